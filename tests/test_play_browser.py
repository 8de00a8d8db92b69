"""Playing in a real browser: mouse and keyboard write the same text that a policy would, and no text runs."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from contrast import faint, luminance
from fakes import image_task, video_task
from test_play import Client, made_of, serving

from benchmarks.headless import CHROMIUM, NO_CHROMIUM, Browser
from pixel_env.actions import Answer, CropImage, SelectFrames, parse, render
from pixel_env.trajectory import load_jsonl

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)

HOSTILE = "</script><script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def opened(browser: Browser, client: Client) -> None:
    browser.open(f"http://127.0.0.1:{client.port}/{client.token}/")
    browser.wait("state && [...document.images].every(image => image.complete && image.naturalWidth > 0)")


def written(browser: Browser) -> str:
    return browser.run("at('action').value")


def sent(browser: Browser, turns: int) -> None:
    """Press Enter and wait for the turn."""
    browser.press("Enter", "\r")
    browser.wait(f"!busy && state.turns.length === {turns}")


def test_a_drag_a_thought_and_a_choice(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "played.jsonl"
    with serving(made_of(out, image_task())) as client:
        opened(browser, client)
        assert browser.run("at('question').textContent") == "Which one?"
        assert browser.run("[...at('choices').children].map(one => one.textContent)") == ["(A) red", "(B) blue"]
        assert browser.run("at('send').disabled")  # nothing is written yet
        browser.drag("figure[data-number='1'] .pad", (0.75, 0.5), (0.25, 0.25))  # from the lower right corner
        crop = parse(written(browser))
        assert isinstance(crop, CropImage) and crop.image == 0
        assert crop.bbox == pytest.approx((28, 28, 84, 56), abs=1)  # of 112 pixels
        assert written(browser) == render(crop)  # to the letter
        browser.run("at('thought').focus()")
        browser.type("Top left.")
        browser.press("Enter", "\r")  # a new line there
        assert browser.run("state.turns.length") == 0
        browser.press("Enter", modifiers=2)
        browser.wait("!busy && state.turns.length === 1")
        assert browser.run("document.querySelectorAll('figure').length") == 2 and written(browser) == ""
        assert browser.run("document.activeElement.closest('figure').dataset.number") == "2"
        browser.press("b", "b")
        assert written(browser) == render(Answer("B"))
        assert browser.run("[...at('choices').children].map(one => one.ariaPressed)") == ["false", "true"]
        browser.run("document.activeElement.blur()")
        sent(browser, 2)
        result = browser.run("at('result').innerText")
        assert "Right" in result and "Right answer: (B) blue" in result and f"Saved in {out}" in result
        assert "correctness 1" in browser.run("at('turns').lastElementChild.innerText")
        assert browser.run("at('write').hidden && document.activeElement.textContent") == "Next episode"
        browser.press("Enter", "\r")
        browser.wait("!busy && state.episode === 2")
        assert browser.run("document.querySelectorAll('figure').length") == 1
        assert browser.run("at('result').hidden && at('turns').children.length === 0 && !at('write').hidden")
    (kept,) = load_jsonl(out)
    assert [turn.action for turn in kept.turns] == [f"Top left. {render(crop)}", render(Answer("B"))]
    assert kept.correct


def test_frames_errors_and_a_typed_answer(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "played.jsonl"
    with serving(made_of(out, video_task(answers=("3",)))) as client:
        opened(browser, client)
        browser.click("figure[data-number='3'] .pad")
        browser.click("figure[data-number='2'] figcaption button")
        assert written(browser) == render(SelectFrames((1, 2)))
        assert browser.run("[...document.querySelectorAll('.chosen')].map(one => one.dataset.number)") == ["2", "3"]
        browser.click("figure[data-number='3'] .pad")  # again: not chosen
        assert written(browser) == render(SelectFrames((1,)))
        browser.drag("figure[data-number='5'] .pad", (0.1, 0.1), (0.9, 0.9))  # a box takes its place
        action = parse(written(browser))
        assert isinstance(action, CropImage) and action.image == 4
        assert browser.run("document.querySelectorAll('.chosen').length") == 0
        browser.click("figure[data-number='2'] .pad")
        browser.run("document.activeElement.blur()")
        sent(browser, 1)
        assert browser.run("at('later').innerText").startswith("Image 17, frame 2 at 0.5 s")
        browser.run("at('action').focus()")
        browser.type("select_frames([99])")
        sent(browser, 2)
        reply = browser.run("document.querySelector('.reply.bad').textContent")
        assert "[99] do not exist; frames are numbered 1 to 16" in reply
        assert "Turns left: 3" in browser.run("at('figures').textContent")
        browser.run("at('answer').focus()")
        browser.type("3")
        assert written(browser) == render(Answer("3"))
        sent(browser, 3)
        assert browser.run("at('result').className") == "right"
    assert load_jsonl(out)[0].correct


def test_a_box_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    with serving(made_of(tmp_path / "x.jsonl", image_task())) as client:
        opened(browser, client)
        browser.run("document.querySelector('.pad').focus()")
        browser.press("ArrowRight")  # the first press shows the box
        assert written(browser) == render(CropImage((42, 42, 70, 70), 0))  # 3/8 and 5/8 of 112
        browser.press("ArrowRight")
        browser.press("ArrowDown", modifiers=8)
        assert written(browser) == render(CropImage((46, 42, 74, 74), 0))  # 4% of 112 is 4.48
        for _ in range(30):
            browser.press("ArrowLeft")
        assert written(browser) == render(CropImage((0, 42, 28, 74), 0))  # it stays inside and keeps its size
        browser.press("Escape")
        assert written(browser) == "" and browser.run("document.querySelector('.box').hidden")


def test_what_the_server_refuses_is_shown_and_nothing_is_lost(browser: Browser, tmp_path: Path) -> None:
    with serving(made_of(tmp_path / "x.jsonl", image_task())) as client:
        opened(browser, client)
        client.post("step", episode=1, turn=0, action="from another tab")
        browser.run("at('action').focus()")
        browser.type("my turn")
        browser.press("Enter", "\r")
        browser.wait("!busy && !at('error').hidden")
        assert "this turn was taken already" in browser.run("at('error').textContent")
        assert written(browser) == "my turn"
    browser.press("Enter", "\r")  # the server is gone
    browser.wait("!busy && at('error').textContent.includes('No answer from the server')")
    assert written(browser) == "my turn"


def test_an_unfinished_episode_is_left_on_purpose_only(browser: Browser, tmp_path: Path) -> None:
    with serving(made_of(tmp_path / "x.jsonl", image_task(), image_task(task_id="other"))) as client:
        opened(browser, client)
        browser.run("at('task').focus()")
        browser.type("other")
        browser.press("Enter", "\r")  # nothing was done yet, so nothing is asked
        browser.wait("!busy && state.episode === 2")
        assert browser.run("state.task.id") == "other"
        browser.run("at('action').focus()")
        browser.type("hm")
        sent(browser, 1)
        browser.run("window.asked = 0; window.confirm = () => { asked += 1; return false; }")
        browser.click("#new button")
        assert browser.run("asked === 1 && state.episode === 2")
        browser.run("window.confirm = () => true; at('task').value = 'none such'")
        browser.click("#new button")
        browser.wait("!busy && !at('error').hidden")
        assert "none such" in browser.run("at('error').textContent") and browser.run("state.episode") == 2
        browser.run("at('task').value = '0'")
        browser.click("#new button")
        browser.wait("!busy && state.episode === 3")
        assert browser.run("state.task.id === 'image-0' && at('error').hidden")


def test_an_episode_that_was_not_written_can_be_saved_again(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "played.jsonl"
    out.mkdir()
    with serving(made_of(out, image_task())) as client:
        opened(browser, client)
        browser.press("b", "b")
        sent(browser, 1)
        assert "Not saved:" in browser.run("at('result').innerText")
        out.rmdir()
        browser.click("#result button")
        browser.wait("!busy && state.saved")
        assert f"Saved in {out}" in browser.run("at('result').innerText")
    assert len(load_jsonl(out)) == 1


def test_hostile_text_is_text(browser: Browser, tmp_path: Path) -> None:
    task = dataclasses.replace(
        image_task(), question=HOSTILE, choices=(HOSTILE, "blue"), task_id=HOSTILE, suite="search"
    )
    with serving(made_of(tmp_path / "x.jsonl", task)) as client:
        opened(browser, client)
        assert browser.run("at('question').textContent") == HOSTILE
        browser.run("at('action').focus()")
        browser.type(HOSTILE)
        sent(browser, 1)
        browser.run("at('action').focus()")
        browser.type(r"\boxed{A}")
        sent(browser, 2)
        assert browser.run("document.querySelector('#turns .action').textContent") == HOSTILE
        assert browser.run("document.title") == "Play"
        assert browser.run("document.querySelectorAll('script').length") == 1
        # A second line of defence: the policy of the page runs nothing that was put into it, and reaches no other site.
        assert not browser.run(
            "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
            " document.body.append(s); return window.ran === 1; })()"
        )
        assert (
            browser.run("fetch('http://127.0.0.1:9/').then(() => 'sent', error => error.message)") == "Failed to fetch"
        )


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [380, 700, 1280])
def test_everything_can_be_read(browser: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    browser.emulate(width, 800, dark)
    long = image_task(choices=("red", "blue" * 40), answers=("red",), question="word" * 40)
    with serving(made_of(tmp_path / "x.jsonl", long)) as client:
        opened(browser, client)
        assert faint(browser) == {}
        behind = luminance(browser.run("getComputedStyle(document.body).backgroundColor"))
        assert (behind < 0.02) if dark else (behind > 0.9)
        browser.drag(".pad", (0.1, 0.1), (0.5, 0.5))
        browser.press("Enter", "\r")
        browser.wait("!busy && state.turns.length === 1")
        inner = browser.run("document.documentElement.clientWidth")  # less the bar that scrolls
        assert browser.run("document.documentElement.scrollWidth") <= inner
        outside = "[...document.querySelectorAll('button, figure, textarea, h2')].filter(one => one.offsetParent)"
        outside += f".map(one => one.getBoundingClientRect()).filter(one => one.left < 0 || one.right > {inner}).length"
        assert browser.run(outside) == 0
        for turn, action in enumerate(("hm", r"\boxed{B}"), start=2):  # an error, and the end
            assert faint(browser) == {}
            browser.run("at('action').focus()")
            browser.type(action)
            sent(browser, turn)
        browser.run("at('about').showModal(); document.querySelector('details').open = true")
        assert faint(browser) == {}
    browser.emulate()
