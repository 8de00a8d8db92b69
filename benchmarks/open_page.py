"""How large a page of many episodes is, and how long it takes to open: ``python benchmarks/open_page.py``.

The oracle plays the micro tasks of all suites; `pixel_env.viewer` writes the page, and a new headless Chromium opens it
from a file, again and again. What is measured is the milliseconds from the start of loading to the end of the page's
script, which has drawn the list and the first episode then; the page says them itself under "Keys and terms".
Making a page of 1,000 episodes takes a minute or two.
"""

import argparse
import re
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.headless import CHROMIUM, NO_CHROMIUM, browse
from benchmarks.provenance import RESULTS, provenance, readable
from pixel_env.journal import replace_text
from pixel_env.policies import OraclePolicy
from pixel_env.rollout import rollout
from pixel_env.tasks import ProceduralTasks
from pixel_env.viewer import to_html

PACKAGES = ("pixel-env", "numpy", "pillow")


def made(episodes: int) -> str:
    """A page of that many episodes of the oracle, no two of one task."""
    oracle = OraclePolicy(ProceduralTasks(preset="micro"))
    played = rollout(oracle, "PixelReason-Mixed-v0", range(episodes), preset="micro")
    return to_html({"oracle": played}, progress=True)


def opening(page: Path, profile: Path) -> int:
    """Milliseconds that a new browser took to open a page."""
    found = re.search(r'data-ready="(\d+)"', browse("--dump-dom", f"--user-data-dir={profile}", page.as_uri()))
    assert found, "the script of the page did not run to its end"
    return int(found[1])


def measure(episodes: int, repeats: int) -> dict[str, Any]:
    """Make a page and open it `repeats` times, after once that does not count: it makes the profile of the browser."""
    with tempfile.TemporaryDirectory() as temporary:
        page = Path(temporary) / "page.html"
        page.write_text(made(episodes), encoding="utf-8")
        took = [opening(page, page.with_name("profile")) for _ in range(1 + repeats)][1:]
        size = page.stat().st_size
    return {"episodes": episodes, "MB": round(size / 1e6, 2), "open ms": took, "median ms": statistics.median(took)}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1000, help="episodes of the page (%(default)s)")
    parser.add_argument("--repeats", type=int, default=9, help="how often it is opened (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "open_page.json", help="JSON file to write")
    arguments = parser.parse_args()
    if CHROMIUM is None:
        parser.error(f"a browser is needed: {NO_CHROMIUM}")
    about = provenance(PACKAGES) | {"browser": browse("--version").strip()}
    result = measure(arguments.episodes, arguments.repeats)
    print(result)
    replace_text(arguments.out, readable(about | {"result": result}))


if __name__ == "__main__":
    main()
