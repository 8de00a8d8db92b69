"""The page of trajectories in a real browser: what it shows for a state in its address, and that no text runs."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from contrast import faint, luminance
from test_viewer import BAD, CUE, HIT, MISS, RIGHT, WRONG, environment, play

from benchmarks.headless import CHROMIUM, NO_CHROMIUM, Browser
from benchmarks.open_page import made
from pixel_env.trajectory import Trajectory
from pixel_env.viewer import Damaged, to_html

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)

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


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def shown(site: Path, browser: Browser) -> Iterator[Callable[..., str]]:
    """Opens a page and returns the document as the browser holds it, without the block of data and the script."""

    def shown(page: str, fragment: str = "") -> str:
        browser.open(f"{(site / page).as_uri()}.html#{fragment}")
        assert browser.run("document.documentElement.dataset.ready") is not None, "the script ran to its end"
        return re.sub(r"<script.*?</script>|<style.*?</style>", "", document(browser), flags=re.DOTALL)

    yield shown
    browser.emulate()


def document(browser: Browser) -> str:
    return browser.run("document.documentElement.outerHTML")


def listed(dom: str) -> list[str]:
    """Task ids of the rows on the left."""
    return [sub.split(", ")[1] for sub in re.findall(r'<span class="sub">([^<]+)</span>', dom)]


def test_an_episode(shown: Callable[..., str]) -> None:
    dom = shown("one", "task=corrected")
    assert listed(dom) == [*EPISODES, "gone"]
    main = dom.split("<main")[1].split("</main>")[0]
    assert re.search(r"<h2[^>]*>Which one\?</h2>", main)
    assert "(B) blue" in main and main.count("right answer") == 1
    assert re.findall(r"<h3>(.*?)</h3>", main) == ["Turn 1", "Turn 2", "Turn 3"]
    assert main.count('<rect class="look"') == 2 and main.count('<rect class="cue"') == 1
    assert re.findall(r"<text [^>]*>(\d+)</text>", main) == ["2", "3"]
    assert 'alt="Image 2"' in main and "off target: 0%" in main and ">corrected<" in main
    assert all(re.search(r'\balt="[^"]+"', image) for image in re.findall(r"<img [^>]*>", main))


def test_filters_search_and_switches(shown: Callable[..., str]) -> None:
    assert listed(shown("one", "filter=wrong&sort=operations")) == ["failed", "hostile", "blind"]
    assert listed(shown("one", "filter=corrected")) == ["corrected"]
    dom = shown("one", f"q={quote('INVERTED')}&hide=evidence,boxes")
    assert listed(dom) == ["failed"] and "1 of 7 episodes" in dom
    assert 'class="cue"' not in dom and re.search(r'aria-pressed="false">Evidence', dom)


def test_hostile_text_is_text(shown: Callable[..., str]) -> None:
    dom = shown("one", "task=hostile")
    assert "<title>ran" not in dom and "onerror=x" not in dom and not re.search(r"<img[^>]*onerror", dom)
    assert "<script>document.title='ran'</script><img src=x" in unescape(dom.split("<main")[1])
    assert r'<span class="odd">\u202e\u0007\ud800</span>' in dom
    assert "<h2" in shown("one", f"task={quote('line 9')}")  # a damaged line is a row like any other


def test_two_runs_stand_side_by_side(shown: Callable[..., str]) -> None:
    dom = shown("two", "filter=gained")
    assert listed(dom) == ["blind"]
    assert re.findall(r"<h3>(.*?)</h3>", dom.split("<main")[1]) == ["base", "Turn 1", "tuned", "Turn 1", "Turn 2"]
    # A filter asks either run (blind is right in the second), and the order the first (where blind has no operation).
    assert listed(shown("two", "filter=right&sort=operations")) == ["corrected", "hit", "blind"]
    assert "This run has no such episode." in shown("two", "task=hit")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1280])
def test_everything_can_be_read(browser: Browser, shown: Callable[..., str], width: int, dark: bool) -> None:
    browser.emulate(width, dark=dark)
    for page, fragment in (
        ("one", ""),
        ("one", "task=corrected"),
        ("one", "task=hostile&hide=boxes"),
        ("one", "task=gone&filter=problem"),
        ("two", "task=failed"),
    ):
        shown(page, fragment)
        assert browser.run("document.documentElement.scrollWidth") <= width
        cut = "[...document.querySelectorAll('main, main *, nav, header *')].filter(one => one.checkVisibility())"
        cut += f".filter(one => one.getBoundingClientRect().right > {width} || one.scrollWidth > innerWidth)"
        assert browser.run(f"{cut}.map(one => one.outerHTML.slice(0, 99))") == []
        for details in ("none", "all"):  # what can be opened is closed, and open
            assert faint(browser) == {}, details
            browser.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        seen = np.asarray(browser.screenshot().convert("L"))
        assert (np.median(seen) < 40) if dark else (np.median(seen) > 240)
        browser.run("at('about').showModal()")
        assert faint(browser) == {}
    behind = luminance(browser.run("getComputedStyle(document.body).backgroundColor"))
    assert (behind < 0.02) if dark else (behind > 0.9)


def test_faint_text_would_be_found(browser: Browser) -> None:
    style = "<style>body { background: white } p { color: %23767676 } b { color: %23777777 }</style>"
    browser.open(f"data:text/html,{style}<p>dark<p><b>grey</b>")
    assert faint(browser) == {"grey": pytest.approx(4.48, abs=0.005)}


def test_the_keys_that_are_listed(browser: Browser, shown: Callable[..., str]) -> None:
    shown("one")
    assert browser.run("at('about').open") is False
    browser.press("?", "?")
    assert browser.run("at('about').open && at('about').checkVisibility()")
    listed_keys = browser.run("[...document.querySelectorAll('#about kbd')].map(one => one.textContent)")
    assert listed_keys == ["j", "\u2193", "k", "\u2191", "/", "Esc", "b", "c", "?"]
    browser.press("j", "j")  # nothing happens behind the list
    browser.press("Escape")
    assert browser.run("!at('about').open") and current(browser) == "hit"

    for key, name in (
        ("j", "corrected"),
        ("ArrowDown", "failed"),
        ("k", "corrected"),
        ("ArrowUp", "hit"),
        ("k", "hit"),
    ):
        browser.press(key, key if len(key) == 1 else "")
        assert current(browser) == name
        assert browser.run("new URLSearchParams(location.hash.slice(1)).get('task')") == name
    for _ in range(9):
        browser.press("j", "j")
    assert current(browser) == "line 9"  # the last one

    browser.press("/", "/")
    assert browser.run("document.activeElement === at('query') && at('query').value === ''")
    browser.type("inverted")
    assert listed(document(browser)) == ["failed"]
    browser.press("j", "j")  # a letter in the field
    assert browser.run("at('query').value") == "invertedj" and listed(document(browser)) == []
    browser.run("at('query').value = ''; at('query').oninput({ target: at('query') })")
    browser.press("Escape")
    assert browser.run("document.activeElement === document.body")

    shown("one", "task=corrected")
    for key, label, drawn, count in (("b", "Boxes", ".look", 2), ("c", "Evidence", ".cue", 1)):
        for pressed in (False, True):
            browser.press(key, key)
            assert browser.run(f"document.querySelectorAll('main svg {drawn}').length") == count * pressed
            button = f"[...document.querySelectorAll('.bar button')].find(one => one.textContent === '{label}')"
            assert browser.run(f"{button}.ariaPressed") == str(pressed).lower()
    browser.run(f"{button}.focus()")
    browser.press("Enter", "\r")
    assert browser.run(f"document.activeElement === {button} && {button}.ariaPressed === 'false'")


def current(browser: Browser) -> str:
    """Name of the episode that is shown, which is the one that the list marks."""
    marked = browser.run("rows[document.querySelector('[aria-current=true]').dataset.order].first.id")
    assert browser.run("current.first.id") == marked
    return marked


def test_a_narrow_page_shows_the_list_or_an_episode(browser: Browser, shown: Callable[..., str]) -> None:
    browser.emulate(400)
    shown("one")
    visible = "[at('main'), document.querySelector('nav')].map(one => one.checkVisibility())"
    assert browser.run(visible) == [False, True]
    browser.click(".row:nth-child(2)")
    assert browser.run(visible) == [True, False] and browser.run("current.first.id") == "corrected"
    browser.click("#back")
    assert browser.run(visible) == [False, True]


def test_a_thousand_episodes_open(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(made(), encoding="utf-8")
    browser.open((tmp_path / "page.html").as_uri())
    assert browser.run("at('count').textContent") == "1000 of 1000 episodes"
    assert 10 < browser.run("document.querySelectorAll('.row').length") < 40  # those in sight
    browser.run("at('list').scrollTop = 1e9")
    browser.wait("document.querySelector('.row:last-child').dataset.order === '999'")
    browser.click(".row:last-child")
    browser.wait("document.querySelector('.source img').naturalWidth > 0")
    assert browser.run("current.first.id").endswith(", 49")
