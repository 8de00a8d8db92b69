"""The page of trajectories in a real browser: what it shows for a state in its address, and that no text runs."""

import dataclasses
import re
import subprocess
from html import unescape
from pathlib import Path
from urllib.parse import quote

import pytest
from chromium import CHROMIUM, SWITCHES
from test_viewer import BAD, CUE, HIT, MISS, RIGHT, WRONG, environment, play

from pixel_env.trajectory import Trajectory
from pixel_env.viewer import Damaged, to_html

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs a browser: found no chromium, chromium-browser or google-chrome on the PATH"
)

HOSTILE = "</script><script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">\u202e\x07\ud800"


def episode(name: str, *actions: str) -> Trajectory:
    return play(*actions, task=dataclasses.replace(CUE, task_id=name))


EPISODES = {
    "hit": (HIT, RIGHT),
    "corrected": (MISS, HIT, RIGHT),
    "failed": (BAD, WRONG),
    "blind": (WRONG,),
    "hostile": (HOSTILE + MISS, WRONG),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a page of one run and a page of two."""
    folder = tmp_path_factory.mktemp("site")
    env = environment(*(dataclasses.replace(CUE, task_id=name) for name in EPISODES))
    one = [episode(name, *actions) for name, actions in EPISODES.items()]
    broken = dataclasses.replace(one[0], task_id="gone", error="TimeoutError: no reply")
    other = [episode("blind", HIT, RIGHT), episode("failed", WRONG)]
    pages = {"one": {HOSTILE: [*one, broken, Damaged(9, HOSTILE, "no JSON")]}, "two": {"base": one, "tuned": other}}
    for name, runs in pages.items():
        (folder / f"{name}.html").write_text(to_html(runs, env), encoding="utf-8")
    return folder


def shown(site: Path, page: str, fragment: str = "") -> str:
    """The document as the browser holds it, without the block of data and the script."""
    address = f"file://{site / page}.html#{fragment}"
    profile = f"--user-data-dir={site / 'profile'}"
    command = [str(CHROMIUM), *SWITCHES, "--dump-dom", profile, address]
    done = subprocess.run(command, check=True, capture_output=True, timeout=300)
    dom = done.stdout.decode("utf-8", "replace")
    assert re.search(r'data-ready="\d+"', dom), "the script of the page ran to its end"
    return re.sub(r"<script.*?</script>|<style.*?</style>", "", dom, flags=re.DOTALL)


def listed(dom: str) -> list[str]:
    """Task ids of the rows on the left."""
    return [sub.split(", ")[1] for sub in re.findall(r'<span class="sub">([^<]+)</span>', dom)]


def test_an_episode(site: Path) -> None:
    dom = shown(site, "one", "task=corrected")
    assert listed(dom) == [*EPISODES, "gone"]
    main = dom.split("<main")[1].split("</main>")[0]
    assert re.search(r"<h2[^>]*>Which one\?</h2>", main)
    assert "(B) blue" in main and main.count("right answer") == 1
    assert re.findall(r"<h3>(.*?)</h3>", main) == ["Turn 1", "Turn 2", "Turn 3"]
    assert main.count('<rect class="look"') == 2 and main.count('<rect class="cue"') == 1
    assert re.findall(r"<text [^>]*>(\d+)</text>", main) == ["2", "3"]
    assert 'alt="Image 2"' in main and "off target: 0%" in main and ">corrected<" in main
    assert all(re.search(r'\balt="[^"]+"', image) for image in re.findall(r"<img [^>]*>", main))


def test_filters_search_and_switches(site: Path) -> None:
    assert listed(shown(site, "one", "filter=wrong&sort=operations")) == ["failed", "hostile", "blind"]
    assert listed(shown(site, "one", "filter=corrected")) == ["corrected"]
    dom = shown(site, "one", f"q={quote('INVERTED')}&hide=evidence,boxes")
    assert listed(dom) == ["failed"] and "1 of 7 episodes" in dom
    assert 'class="cue"' not in dom and re.search(r'aria-pressed="false">Evidence', dom)


def test_hostile_text_is_text(site: Path) -> None:
    dom = shown(site, "one", "task=hostile")
    assert "<title>ran" not in dom and "onerror=x" not in dom and not re.search(r"<img[^>]*onerror", dom)
    assert "<script>document.title='ran'</script><img src=x" in unescape(dom.split("<main")[1])
    assert r'<span class="odd">\u202e\u0007\ud800</span>' in dom
    assert "<h2" in shown(site, "one", f"task={quote('line 9')}")  # a damaged line is a row like any other


def test_two_runs_stand_side_by_side(site: Path) -> None:
    dom = shown(site, "two", "filter=gained")
    assert listed(dom) == ["blind"]
    assert re.findall(r"<h3>(.*?)</h3>", dom.split("<main")[1]) == ["base", "Turn 1", "tuned", "Turn 1", "Turn 2"]
    assert "This run has no such episode." in shown(site, "two", "task=hit")
