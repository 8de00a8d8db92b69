"""How large a page of many episodes is, and how long it takes to open: ``python benchmarks/open_page.py``.

The oracle plays the micro tasks of all suites; `pixel_env.viewer` writes the page, and a headless Chromium opens it
from a file, again and again. Milliseconds are those from the start of loading to the end of the page's script, which
has drawn the list and the first episode then; the page itself says them under "Keys and terms". Those of the CPU are
what the page's process computed: they tell what the page costs on a machine that does other things, too.
Making a page of 1,000 episodes takes a minute or two.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.headless import CHROMIUM, NO_CHROMIUM, Browser
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


def opening(browser: Browser, page: Path) -> tuple[int, int]:
    """Milliseconds that opening a page took, and those that its process computed meanwhile."""
    before = computed(browser)
    browser.open(page.as_uri())
    ready = int(browser.run("document.documentElement.dataset.ready"))
    return ready, round(1000 * (computed(browser) - before))


def computed(browser: Browser) -> float:
    """Seconds of processor time that the process of the page has taken."""
    metrics = browser.send("Performance.getMetrics")["metrics"]
    return next(one["value"] for one in metrics if one["name"] == "ProcessTime")


def measure(episodes: int, repeats: int) -> dict[str, Any]:
    """Make a page and open it `repeats` times, after once that does not count."""
    with tempfile.TemporaryDirectory() as temporary, Browser(Path(temporary) / "profile") as browser:
        page = Path(temporary) / "page.html"
        page.write_text(made(episodes), encoding="utf-8")
        browser.send("Performance.enable")
        took, worked = zip(*[opening(browser, page) for _ in range(1 + repeats)][1:], strict=True)
        return {
            "browser": browser.send("Browser.getVersion")["product"],
            "episodes": episodes,
            "MB": round(page.stat().st_size / 1e6, 2),
            "open ms": took,
            "open CPU ms": worked,
            "median ms": statistics.median(took),
            "median CPU ms": statistics.median(worked),
        }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1000, help="episodes of the page (%(default)s)")
    parser.add_argument("--repeats", type=int, default=9, help="how often it is opened (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "open_page.json", help="JSON file to write")
    arguments = parser.parse_args()
    if CHROMIUM is None:
        parser.error(NO_CHROMIUM)
    about = provenance(PACKAGES)
    result = measure(arguments.episodes, arguments.repeats)
    print(result)
    replace_text(arguments.out, readable(about | {"result": result}))


if __name__ == "__main__":
    main()
