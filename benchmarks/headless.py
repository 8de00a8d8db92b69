"""A headless Chromium driven through its debugging pipe: commands as JSON, each ended by a zero byte."""

import base64
import fcntl
import io
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_CHROMIUM = "a browser is needed: found no chromium, chromium-browser or google-chrome on the PATH"

SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


class Browser:
    """One page of a browser; use as a context."""

    def __init__(self, profile: Path) -> None:
        """Start a browser that keeps what it has to in the folder `profile`.

        Raises:
            RuntimeError: There is none on this machine.
        """
        if CHROMIUM is None:
            raise RuntimeError(NO_CHROMIUM)
        ours, theirs = os.pipe(), os.pipe()  # (read, write): what it reads, what it writes
        # Copies with numbers above those that the browser wants, so that neither is overwritten before it is used.
        given = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (ours[0], theirs[1])]
        self._pid = os.posix_spawn(
            CHROMIUM,
            [CHROMIUM, *SWITCHES, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                (os.POSIX_SPAWN_DUP2, given[0], 3),
                (os.POSIX_SPAWN_DUP2, given[1], 4),
            ],
            setpgroup=0,
        )
        for end in (ours[0], theirs[1], *given):
            os.close(end)
        self._in, self._out = os.fdopen(ours[1], "wb", buffering=0), os.fdopen(theirs[0], "rb")
        self._session: str | None = None
        self._number = 0
        self._events: list[str] = []
        target = next(one for one in self.send("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        self.send("Page.enable")
        self.emulate()

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._pid, signal.SIGKILL)  # its own group: it and its helpers
        os.waitpid(self._pid, 0)
        self._in.close()
        self._out.close()

    def emulate(self, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Have a window of that many pixels, and prefer that colour scheme."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def send(self, method: str, **params: Any) -> Any:
        """Send a command and return its result; events that come before are noted by their names."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            command["sessionId"] = self._session
        self._in.write(json.dumps(command).encode() + b"\0")
        while (message := self._read()).get("id") != self._number:
            self._events.append(message["method"])
        assert "error" not in message, message
        return message["result"]

    def _read(self) -> dict[str, Any]:
        data = bytearray()
        while (byte := self._out.read(1)) != b"\0":
            assert byte, "the browser ended"
            data += byte
        return json.loads(data)

    def open(self, address: str) -> None:
        """Open an address and wait until it is loaded, also where only its fragment differs from what is open."""
        for url in ("about:blank", address):
            self._events.clear()
            self.send("Page.navigate", url=url)
            while "Page.loadEventFired" not in self._events:
                self._events.append(self._read()["method"])

    def run(self, script: str) -> Any:
        """Return what an expression of JavaScript gives, once it is there."""
        got = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in got, got
        return got["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression of JavaScript is true, at most 20 seconds."""
        done = f"(async () => {{ for (let k = 0; k < 400; k++) {{ if ({condition}) return true; "
        assert self.run(done + "await new Promise(r => setTimeout(r, 50)); } return false; })()"), condition

    def drag(self, selector: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press on an element, move, and release; places are fractions of its width and height. A click if equal."""
        self.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'nearest'}})")
        sides = self.run(
            f"(({{x, y, width, height}}) => [x, y, width, height])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        places = [(sides[0] + x * sides[2], sides[1] + y * sides[3]) for x, y in (start, end)]
        kinds = ("mouseMoved", "mousePressed", "mouseMoved", "mouseReleased")
        for kind, (x, y) in zip(kinds, (places[0], places[0], places[1], places[1]), strict=True):
            held = {"button": "left", "buttons": 1} if kind != "mouseMoved" or (x, y) == places[1] else {}
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, clickCount=1, **held)

    def click(self, selector: str) -> None:
        """Click on the middle of an element."""
        self.drag(selector, (0.5, 0.5), (0.5, 0.5))

    def press(self, key: str, text: str = "", modifiers: int = 0) -> None:
        """Press a key: its name in JavaScript, what it types, and 2 for Ctrl, 8 for Shift."""
        code = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        fields = {"key": key, "windowsVirtualKeyCode": code.get(key, 0), "modifiers": modifiers}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **fields)
        self.send("Input.dispatchKeyEvent", type="keyUp", **fields)

    def type(self, text: str) -> None:
        """Type text where the focus is."""
        self.send("Input.insertText", text=text)

    def screenshot(self) -> Image.Image:
        """What is seen, RGB."""
        png = base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])
        return Image.open(io.BytesIO(png)).convert("RGB")
