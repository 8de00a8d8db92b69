"""A browser without a window, where this machine has one."""

import shutil
import subprocess

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_CHROMIUM = "found no chromium, chromium-browser or google-chrome on the PATH"

SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


def browse(*arguments: str) -> str:
    """Let a new browser open an address as `arguments` say; return what it writes.

    Raises:
        RuntimeError: There is no browser.
        subprocess.CalledProcessError: It failed.
    """
    if CHROMIUM is None:
        raise RuntimeError(f"a browser is needed: {NO_CHROMIUM}")
    done = subprocess.run([CHROMIUM, *SWITCHES, *arguments], check=True, capture_output=True, timeout=300)
    return done.stdout.decode("utf-8", "replace")
