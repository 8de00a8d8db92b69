"""The page of trajectories: what its block of JSON holds, and that nothing a policy writes leaves that block."""

import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import ArraySource, image_task, ramp, tasks, video_task
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.open_page import made
from pixel_env import PixelReasonEnv
from pixel_env.media import ImageFile
from pixel_env.playback import SHEET, Player, coverage, sheet
from pixel_env.rollout import Episode
from pixel_env.tasks import Cue, Task
from pixel_env.trajectory import Trajectory, save_jsonl
from pixel_env.view import main, read_run
from pixel_env.viewer import Damaged, page, page_data, to_html

GOLDEN = Path(__file__).parent / "golden"
CUE = image_task(cue=Cue(box=(40.0, 40.0, 80.0, 80.0)), needs_operation=True)
HIT, MISS, BAD = "crop_image([5, 5, 25, 25])", "crop_image([60, 60, 100, 100])", "crop_image([60, 60, 10, 10])"
RIGHT, WRONG = r"\boxed{B}", r"\boxed{A}"


def environment(*items: Task) -> PixelReasonEnv:
    suite = "clip" if items[0].media.kind == "video" else "search"
    return PixelReasonEnv(tasks=tasks(*items), suite=suite, preset="micro")


def play(*actions: str, task: Task = CUE) -> Trajectory:
    episode = Episode(environment(task))
    episode.reset(task.task_id, seed=7)
    for action in actions:
        episode.step(action)
    return episode.trajectory()


def data_of(*trajectories: Trajectory, task: Task = CUE) -> dict[str, Any]:
    return page_data({"run": trajectories}, environment(task))


class Scripts(HTMLParser):
    """Collects the elements of a page, and the text of its scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data


def block(html: str) -> dict[str, Any]:
    held, _script = Scripts(html).scripts
    return json.loads(held)


def picture(data: dict[str, Any], position: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data["pictures"][position]))).convert("RGB")).astype(int)


def test_every_field_of_an_episode() -> None:
    record = play(f"Here. {HIT}", "hm", RIGHT)
    data = data_of(
        dataclasses.replace(record, turns=(dataclasses.replace(record.turns[0], trained=False), *record.turns[1:]))
    )
    (episode,), (task,) = data["episodes"], data["tasks"]
    first, turns, source = episode.pop("first"), episode.pop("turns"), task.pop("source")
    assert data["runs"] == ["run"] and data["rows"] == [[0]]
    assert episode == {
        "id": "image-0", "suite": "search", "env": "", "seed": 7, "needs": True, "task": 0, "problem": "",
        "instructions": record.instructions, "observation": record.first_observation, "terminated": True,
        "truncated": False, "answer": "B", "unread": False, "correct": True, "score": 1.0, "reward": 1.0,
        "operations": 1, "errors": 0, "coverage": 1.0, "kind": "rollout", "error": None, "scored": True,
        "corrected": False,
    }  # fmt: skip
    assert task == {
        "question": "Which one?", "choices": ["red", "blue"], "answers": ["blue"], "kind": "choice", "level": None,
        "cue": [[40.0, 40.0, 80.0, 80.0]],
    }  # fmt: skip
    shown, no_call, answer = turns
    (view,) = shown.pop("views")
    assert shown == {
        "action": f"Here. {HIT}", "observation": record.turns[0].observation, "reward": 0.0,
        "terms": [["correctness", 0.0]], "operation": "crop_image", "error": None, "malformed": False, "trained": False,
        "coverage": 1.0, "missed": False,
    }  # fmt: skip
    assert no_call["malformed"] and no_call["operation"] is None and no_call["views"] == []
    assert answer["terms"] == [["correctness", 1.0]] and answer["coverage"] is None
    assert (view["number"], view["frame"], view["box"]) == (2, 1, [20.0, 20.0, 100.0, 100.0])
    assert [(one["number"], one["width"], one["height"]) for one in first] == [(1, 112, 112)]
    assert (source["width"], source["height"], source["full"]) == (448, 448, [448, 448])
    assert source["frames"] == [{"number": 1, "box": [0, 0, 448, 448]}]
    # The pictures are those: red grows with x from 0 to 255 over the whole source.
    crop = picture(data, view["picture"])
    assert crop.shape == (view["height"], view["width"], 3)
    assert abs(crop[:, 0, 0].mean() - 20 / 448 * 255) < 6 and abs(crop[:, -1, 0].mean() - 100 / 448 * 255) < 6
    assert abs(picture(data, source["picture"]) - ramp(448, 448)).mean() < 4


@pytest.mark.parametrize(
    ("actions", "corrected"),
    [
        ((RIGHT,), False),
        ((HIT, RIGHT), False),
        ((MISS, HIT, RIGHT), True),
        ((BAD, RIGHT), True),
        ((MISS, WRONG), False),
        ((MISS, HIT), False),
    ],
)
def test_a_failed_or_wrong_look_before_a_right_answer_is_a_correction(
    actions: tuple[str, ...], corrected: bool
) -> None:
    assert data_of(play(*actions))["episodes"][0]["corrected"] is corrected


def test_frames_of_a_video_are_cells_of_one_picture() -> None:
    task = video_task(cue=Cue(frames=(2, 3)))
    data = data_of(play("select_frames([3, 8])", r"\boxed{3}", task=task), task=task)
    (shown,) = data["tasks"]
    turn = data["episodes"][0]["turns"][0]
    assert [frame["number"] for frame in shown["source"]["frames"]] == list(range(1, 17))
    assert shown["cue"] == [shown["source"]["frames"][2]["box"], shown["source"]["frames"][3]["box"]]
    assert [(view["number"], view["frame"]) for view in turn["views"]] == [(17, 3), (18, 8)]
    assert turn["views"][1]["box"] == shown["source"]["frames"][7]["box"] and turn["coverage"] == 1.0
    sheet_of, (x1, y1, x2, y2) = picture(data, shown["source"]["picture"]), map(int, turn["views"][1]["box"])
    assert abs(sheet_of[y1 + 4 : y2 - 4, x1 + 4 : x2 - 4] - 70).max() <= 6


def test_a_large_source_is_drawn_smaller_and_boxes_with_it() -> None:
    drawn = sheet(ArraySource((ramp(3 * SHEET, SHEET),)), [0])
    assert drawn.picture.size == (SHEET, round(SHEET / 3))
    assert drawn.box(0, (SHEET, 0, 3 * SHEET, SHEET)) == pytest.approx((SHEET / 3, 0, SHEET, round(SHEET / 3)))
    assert drawn.box(1) is None


def test_coverage_is_that_of_the_best_frame() -> None:
    assert coverage(None, []) is None and coverage(Cue(frames=(1, 2)), []) == 0.0


def test_each_picture_and_task_is_stored_once() -> None:
    one, many = data_of(play(HIT, RIGHT)), data_of(*[play(HIT, HIT, RIGHT)] * 5)
    assert len(many["pictures"]) == len(one["pictures"]) == len(set(one["pictures"])) == 3
    assert len(many["tasks"]) == 1 and many["rows"] == [[k] for k in range(5)]


def test_two_runs_are_matched_by_task_and_repetition() -> None:
    other = dataclasses.replace(CUE, task_id="image-1")
    env = environment(CUE, other)
    a, b = play(RIGHT), play(WRONG, task=other)
    data = page_data({"a": [a, b, a], "b": [b, a, Damaged(3, "?", "no JSON")]}, env)
    assert data["rows"] == [[0, 4], [1, 3], [2, None], [None, 5]]
    with pytest.raises(ValueError, match="one run or two"):
        to_html({})


def test_what_cannot_be_replayed_is_shown_with_a_reason(tmp_path: Path) -> None:
    record = play(MISS, RIGHT)
    gone = dataclasses.replace(record, env_id="PixelReason-Zoom-v0", env_kwargs={"tasks": f"vstar:{tmp_path / 'none'}"})
    memory = dataclasses.replace(record, env_id="PixelReason-Zoom-v0", env_kwargs={"tasks": "TaskList"})
    module = dataclasses.replace(record, env_id="os:PixelReason-Zoom-v0")
    odd = dataclasses.replace(record, env_kwargs=[1], turns=(dataclasses.replace(record.turns[0], reward="much"),))  # type: ignore[arg-type]
    broken = dataclasses.replace(record, turns=record.turns[:1], error="TimeoutError: no reply")
    data = page_data({"run": [gone, memory, module, odd, broken, Damaged(6, "{", "no JSON")]})
    problems = [episode["problem"] for episode in data["episodes"]]
    assert all(problem.startswith("cannot be played again: ") for problem in problems[:3])
    assert "in memory (TaskList)" in problems[1] and "got 'os:PixelReason-Zoom-v0'" in problems[2]
    assert data["episodes"][0]["turns"][0]["action"] == MISS and data["episodes"][0]["turns"][0]["views"] == []
    assert "not of a trajectory" in problems[3] and "much" in data["episodes"][3]["raw"]
    assert data["episodes"][4]["error"] == "TimeoutError: no reply"
    assert data["episodes"][5] == {"problem": "line 6: no JSON", "raw": "{", "suite": "", "id": "line 6"}
    assert block(page(data)) == data


@pytest.mark.parametrize(
    "changes",
    [
        '"seed": 1e999',
        f'"score": 1{"0" * 400}',
        '"seed": NaN',
        f'"seed": {"[" * 900}{"]" * 900}',
        '"turns": [{"image_digests": []}]',
        '"env_kwargs": null',
        f'"env_kwargs": {{"max_turns": 1{"0" * 4000}}}',
        '"env_kwargs": {"tasks": 3}',
        '"env_id": ["PixelReason-Zoom-v0"]',
        '"task_id": null',
        '"first_digests": "ab"',
        '"suite": {"__proto__": 1}',
        '"cue_coverage": -Infinity',
        '"score": true',
        '"kind": "\\ud800</script>"',
    ],
)
def test_a_line_that_was_tampered_with_spoils_no_page(changes: str, tmp_path: Path) -> None:
    record = play(MISS, RIGHT).to_json()
    (tmp_path / "a.jsonl").write_text(f"{record}\n{record[:-1]}, {changes}}}\n", encoding="utf-8")
    html = to_html({"run": read_run(tmp_path / "a.jsonl")}, environment(CUE))
    data = block(html)
    assert len(data["episodes"]) == 2 and data["episodes"][0]["problem"] == ""
    assert (Scripts(html).tags, Scripts(html).scripts[1]) == EMPTY


def test_pictures_that_differ_from_the_record_and_damaged_media_are_told(tmp_path: Path) -> None:
    changed = dataclasses.replace(play(RIGHT), first_digests=("0" * 16,))
    (episode,) = data_of(changed)["episodes"]
    assert "not what the policy saw" in episode["problem"] and len(episode["first"]) == 1
    task = dataclasses.replace(CUE, media=ImageFile(tmp_path / "missing.png"))
    playback = Player(environment(task)).play(changed)
    assert playback.task is not None and playback.sheet is None and "missing.png" in playback.problem


@settings(max_examples=60, deadline=None)
@given(
    st.text(st.characters(), max_size=60)
    | st.sampled_from(["</script><script>x()</script>", "<!--<script>", "\u2028{{data}}]]>", "\ud800"])
)
def test_any_text_stays_in_the_block(text: str) -> None:
    html = page({"runs": [text], "text": text})
    found = Scripts(html)
    held, script = found.scripts
    assert json.loads(held) == {"runs": [text], "text": text}
    assert held.isascii() and not set("<>&") & set(held)
    assert (found.tags, script) == EMPTY


EMPTY = (lambda found: (found.tags, found.scripts[1]))(Scripts(page({"runs": []})))


def test_hostile_texts_of_every_field_come_back() -> None:
    text = "</script><img src=x onerror=x()>\u202e\ud800\x00{{data}}"
    record = play(f"{text} {MISS}", r"\boxed{" + text + "}")
    html = to_html({text: [record]}, environment(CUE))
    episode = block(html)["episodes"][0]
    assert episode["turns"][0]["action"] == record.turns[0].action and episode["answer"] == record.answer
    assert text in block(html)["runs"]


def test_the_page_asks_for_nothing_and_may_not() -> None:
    html = page({"runs": []})
    assert not re.findall(r"\b(?:src|href)=[\"'](?!data:)|@import|url\(|https?://(?!www\.w3\.org/2000/svg)", html)
    assert "default-src 'none'" in html and "innerHTML" not in html and "eval(" not in html


def test_a_thousand_micro_episodes_are_small() -> None:
    html = made()
    data = block(html)
    assert len(data["episodes"]) == len(data["tasks"]) == 1000 and data["rows"][-1] == [999]
    shown = {int(picture) for picture in re.findall(r'"picture":(\d+)', html)}
    assert shown == set(range(len(data["pictures"]))) and len(shown) > 2000  # none is shared by copies
    assert not any(episode["problem"] for episode in data["episodes"])
    assert len(html.encode()) < 30_000_000


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two, out = tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "page.html"
    save_jsonl(one, [play(RIGHT)])
    two.write_text(one.read_text() + "{broken\n\n[1]\n", encoding="utf-8")
    assert main([str(one), str(two), "-o", str(out)]) == 0
    data = block(out.read_text(encoding="utf-8"))
    assert data["runs"] == ["a", "b"] and data["rows"] == [[0, 1], [None, 2], [None, 3]]
    assert [episode["problem"][:7] for episode in data["episodes"][2:]] == ["line 2:", "line 4:"]
    assert "4 episodes" in capsys.readouterr().out
    assert [type(item).__name__ for item in read_run(two)] == ["Trajectory", "Damaged", "Damaged"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "an empty file"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "expected .* to hold trajectories, one JSON object a line"),
        (b'{"a": 1}\n', "line 1: expected a trajectory as a JSON object with turns"),
        (b"[" * 100_000, "line 1: "),
    ],
)
def test_wrong_input_is_one_line_and_code_2(
    content: bytes | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "in.jsonl"
    if content is not None:
        path.write_bytes(content)
    assert main([str(path), "-o", str(tmp_path / "out.html")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(said, error)
    assert not (tmp_path / "out.html").exists()
