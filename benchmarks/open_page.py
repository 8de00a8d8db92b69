"""How large a page of many episodes is, and how long it takes to open: ``python benchmarks/open_page.py``.

The oracle plays a few micro tasks of all suites; they stand on the page again and again, with pictures of their own, as
if they were others. A headless Chromium opens it from a file several times. Milliseconds are those from the start of
loading to the end of the page's script, which has drawn the list and the first episode then; the page itself says them
under "Keys and terms". Those of the CPU are what the page's process computed: they tell what the page costs on a
machine that does other things, too.
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
from pixel_env.viewer import page, page_data

PACKAGES = ("pixel-env", "numpy", "pillow")


def made(played: int = 20, copies: int = 50) -> str:
    """A page of ``played * copies`` episodes of the oracle; copies are of other tasks and share no picture."""
    oracle = OraclePolicy(ProceduralTasks(preset="micro"))
    episodes = rollout(oracle, "PixelReason-Mixed-v0", range(played), preset="micro", progress=False)
    data = page_data({"oracle": episodes})
    numbered = {"picture": len(data["pictures"]), "task": len(data["tasks"])}

    def copied(value: Any, copy: int) -> Any:
        if isinstance(value, list):
            return [copied(item, copy) for item in value]
        if not isinstance(value, dict):
            return value
        moved = {name: value[name] + copy * count for name, count in numbered.items() if name in value}
        named = {"id": f"{value['id']}, {copy}"} if "id" in value else {}
        return {name: copied(item, copy) for name, item in value.items()} | moved | named

    whole = {name: [copied(item, k) for k in range(copies) for item in data[name]] for name in ("episodes", "tasks")}
    rows = [[position] for position in range(played * copies)]
    return page({"runs": ["oracle"], "pictures": data["pictures"] * copies, "rows": rows, **whole})


def opening(browser: Browser, path: Path) -> tuple[int, int]:
    """Milliseconds that opening a page took, and those that its process computed meanwhile."""
    before = computed(browser)
    browser.open(path.as_uri())
    ready = int(browser.run("document.documentElement.dataset.ready"))
    return ready, round(1000 * (computed(browser) - before))


def computed(browser: Browser) -> float:
    """Seconds of processor time that the process of the page has taken."""
    metrics = browser.send("Performance.getMetrics")["metrics"]
    return next(one["value"] for one in metrics if one["name"] == "ProcessTime")


def measure(played: int, copies: int, repeats: int) -> dict[str, Any]:
    """Make a page and open it `repeats` times, after once that does not count."""
    with tempfile.TemporaryDirectory() as temporary, Browser(Path(temporary) / "profile") as browser:
        path = Path(temporary) / "page.html"
        path.write_text(made(played, copies), encoding="utf-8")
        browser.send("Performance.enable")
        took, worked = zip(*[opening(browser, path) for _ in range(1 + repeats)][1:], strict=True)
        return {
            "browser": browser.send("Browser.getVersion")["product"],
            "episodes": played * copies,
            "MB": round(path.stat().st_size / 1e6, 2),
            "open ms": took,
            "open CPU ms": worked,
            "median ms": statistics.median(took),
            "median CPU ms": statistics.median(worked),
        }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--played", type=int, default=20, help="episodes to play (%(default)s)")
    parser.add_argument("--copies", type=int, default=50, help="how often each is on the page (%(default)s)")
    parser.add_argument("--repeats", type=int, default=9, help="how often it is opened (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "open_page.json", help="JSON file to write")
    arguments = parser.parse_args()
    if CHROMIUM is None:
        parser.error(NO_CHROMIUM)
    about = provenance(PACKAGES)
    result = measure(arguments.played, arguments.copies, arguments.repeats)
    print(result)
    replace_text(arguments.out, readable(about | {"result": result}))


if __name__ == "__main__":
    main()
