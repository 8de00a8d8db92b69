"""The micro base's lessons say what is in the picture, and its training can be stopped anywhere."""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from agents import micro_lessons, micro_sheets
from agents.micro_seeing import CHARACTERS, NONE, WORDS, dense_labels
from agents.pretrain_micro import Pretraining, drill_batch, learning_rate, seeing_batch, speaking_batch
from pixel_env.tasks import ProceduralTasks
from pixel_env.tasks.drawing import COLOURS, Canvas, Mark


def test_dense_labels_by_hand() -> None:
    """A 112 px picture of 4 x 4 tokens with one object, in the second token of the third row."""
    mark = Mark("star", (30, 58, 54, 82), "blue", "K", text_height=8)
    labels = dense_labels(Canvas(112, 112, 0, (mark,)), (0, 0, 112, 112), (112, 112))
    cell = 2 * 4 + 1
    assert WORDS["glyph"][labels["glyph"][cell]] == "K"
    assert WORDS["colour"][labels["colour"][cell]] == " blue"
    assert WORDS["kind"][labels["kind"][cell]] == " star"
    np.testing.assert_allclose(labels["box"][cell], [30, 58, 54, 82])
    others = np.arange(16) != cell
    assert (labels["glyph"][others] == NONE).all() and np.isnan(labels["box"][others]).all()
    assert (labels["colour"][others] == len(WORDS["colour"])).all()  # nothing


def test_small_characters_and_other_regions_are_not_labelled() -> None:
    mark = Mark("star", (30, 58, 54, 82), "blue", "K", text_height=5)
    assert (dense_labels(Canvas(112, 112, 0, (mark,)), (0, 0, 112, 112), (112, 112))["glyph"] == NONE).all()
    aside = dense_labels(Canvas(112, 112, 0, (mark,)), (56, 0, 112, 56), (112, 112))
    assert np.isnan(aside["box"]).all()


def test_characters_of_a_string_belong_to_the_tokens_they_stand_on() -> None:
    """Two tokens side by side and a string of four characters, centred on their border."""
    panel = Mark("panel", (0, 0, 56, 28), "white", "AB3C", text_height=10)
    labels = dense_labels(Canvas(56, 28, 0, (panel,)), (0, 0, 56, 28), (56, 28))
    said = [
        "".join((*CHARACTERS, "-")[labels[name][token]] for name in ("glyph", "second", "third")) for token in (0, 1)
    ]
    assert said == ["AB-", "3C-"]


def test_what_is_cut_off_is_not_labelled() -> None:
    mark = Mark("star", (36, 0, 68, 28), "blue", "K", text_height=10)
    labels = dense_labels(Canvas(112, 28, 0, (mark,)), (0, 0, 50, 28), (56, 28))
    assert (labels["glyph"] == NONE).all()  # its middle is outside
    np.testing.assert_allclose(
        labels["box"][1], [40.32, 0, 56, 28], rtol=1e-5
    )  # of a mark that is cut off, the part in the view


def test_dots_are_counted_in_close_ups() -> None:
    tray = Mark("square", (20, 20, 80, 80), "red")
    dots = tuple(Mark("circle", (30 + 10 * k, 40, 34 + 10 * k, 44), "white") for k in range(3))
    labels = dense_labels(Canvas(112, 112, 0, (tray, *dots)), (0, 0, 112, 112), (112, 112))
    assert labels["dots"][4 + 1] == 3


def text_of(batch: list[list[micro_lessons.Lesson]]) -> list[tuple[str, str]]:
    return [(turn.text, turn.answer) for sequence in batch for lesson in sequence for turn in lesson.turns]


def test_batches_are_functions_of_the_seed() -> None:
    assert text_of(speaking_batch(3, 12, 0.2, 0.5)) == text_of(speaking_batch(3, 12, 0.2, 0.5))
    assert text_of(speaking_batch(3, 12, 0.2, 0.5)) != text_of(speaking_batch(4, 12, 0.2, 0.5))
    assert text_of(drill_batch(3, 4, 0.9)) == text_of(drill_batch(3, 4, 0.9))
    images, labels = seeing_batch(5, 8, 0.5)
    again, _ = seeing_batch(5, 8, 0.5)
    assert all(np.array_equal(a, b) for a, b in zip(images, again, strict=True))
    for image, one in zip(images, labels, strict=True):
        assert {len(values) for values in one.values()} == {image.shape[0] * image.shape[1] // 28**2}


def test_the_base_never_sees_the_environment() -> None:
    """No function of the environment's name, no result of a call, no sentence of its guideline but the last."""
    for seed in range(8):
        for sequence in speaking_batch(seed, 24, 0.2, 0.3):
            for lesson in sequence:
                whole = lesson.system + "".join(turn.text + turn.answer for turn in lesson.turns)
                for forbidden in ("crop_image", "select_frames", "cut from image", "Zoom in", "Use a visual operation"):
                    assert forbidden not in whole
                calls = [turn for turn in lesson.turns if "<tool_call>" in turn.answer]
                assert not calls or calls == [lesson.turns[-1]]


def test_boxes_of_grounding_lessons_are_where_the_colour_is() -> None:
    """The middle of each box has the colour that the question names: read off the pixels, not off the marks."""
    rng = np.random.default_rng(0)
    checked = 0
    for index in range(0, 120, 3):
        task = ProceduralTasks(("count",), difficulty=1, preset="micro")[index]
        canvas = task.media.canvases[0]  # type: ignore[attr-defined]
        shot = micro_lessons.take(task.media.frame(0), canvas, (0, 0, canvas.width, canvas.height))
        for thing in shot.things:
            if "ring" in thing.name or thing.dots is not None:
                continue  # a ring is pale in the middle, a tray has dots
            question, answer = micro_lessons.ground(rng, [thing])
            assert thing.name in question and answer.startswith(f"the {thing.name} ")
            x1, y1, x2, y2 = json.loads(answer[answer.index("{") :])["bbox_2d"]
            seen = shot.image[(y1 + y2) // 2, (x1 + x2) // 2].astype(int)
            wanted = np.array(COLOURS[thing.name.split()[0]])
            assert np.abs(seen - wanted).max() < 40, (index, thing)
            checked += 1
    assert checked > 40


def test_sheets_are_read_in_the_order_of_rows() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        canvas = micro_sheets.character_sheet(rng)
        grid = round(len(canvas.marks) ** 0.5)
        for place, mark in enumerate(canvas.marks):
            column, row = (int(v // (micro_sheets.SHEET_SIDE / grid)) for v in mark.centre)
            assert place == row * grid + column


def test_box_drills_name_all_boxes_in_order() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        (turn,) = micro_sheets.box_drill(rng).turns
        boxes = [json.loads(found) for found in re.findall(r"\[.*?\]", turn.answer)]
        assert 2 <= len(boxes) <= 5
        assert all(0 <= x1 < x2 <= 112 and 0 <= y1 < y2 <= 112 for x1, y1, x2, y2 in boxes)
        cells = [((y1 + y2) // 2 // 28, (x1 + x2) // 2 // 28) for x1, y1, x2, y2 in boxes]
        if "row by row" in turn.text:
            assert cells == sorted(cells)


def test_drills_on_trays_and_clips_count_what_is_drawn() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        canvas, trays = micro_sheets.dot_sheet(rng)
        drawn = sum(mark.kind == "circle" and mark.colour in ("black", "white") for mark in canvas.marks)
        assert drawn == sum(black + white for _, black, white in trays)
        lesson = micro_sheets.clip_drill(rng)
        (named,) = [turn.answer.split(", ") for turn in lesson.turns if turn.skill == "sheet frames"]
        assert len(lesson.turns[0].images) == len(named)
        for turn in lesson.turns:
            if turn.skill == "frames":
                name = re.findall(r"the (\w+ \w+)[?.]$", turn.text)[0]
                frames = [k for k, seen in enumerate(named, 1) if f"the {name}" in seen.split(" and ")]
                assert json.loads(turn.answer)["target_frames"] == frames


def test_offered_functions_have_other_names() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        system, names = micro_lessons.offer(rng)
        call = json.loads(re.sub(r"</?tool_call>", "", micro_lessons.call(rng, names, (112, 112))))
        assert call["name"] in system and set(call["arguments"]) <= set(names.values())


def test_learning_rate_by_hand() -> None:
    assert learning_rate(0, 1000, 1.0) == pytest.approx(0.01)  # first of 100 warm-up steps
    assert learning_rate(1000, 1000, 1.0) == pytest.approx(0.05)  # the floor
    assert learning_rate(500, 1000, 1.0) == pytest.approx(0.05 + 0.95 / 2)


def arguments(out: Path, start: Path | None = None, **changed: int) -> argparse.Namespace:
    plain = {"see_steps": 2, "see_batch": 2, "drill_steps": 2, "drill_batch": 2, "steps": 2, "batch": 4}
    rates = {"lr": 1e-3, "vision_lr": 1e-3, "clip_share": 0.2, "seed": 0}
    return argparse.Namespace(out=str(out), start=start, **(plain | changed), **rates)


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """Stopped behind the second stage and continued, it has the weights of a run that was never stopped."""
    whole = Pretraining(arguments(tmp_path / "whole"))
    whole.run()
    stopped = Pretraining(arguments(tmp_path / "stopped", steps=0))
    stopped.run()
    resumed = Pretraining(arguments(tmp_path / "stopped"))
    assert resumed.state.stage == "drill" and resumed.state.step == 2
    resumed.run()
    for (name, one), other in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert (tmp_path / "whole" / "model" / "model.safetensors").stat().st_size < 16e6

    further = Pretraining(arguments(tmp_path / "further", start=tmp_path / "whole" / "model"))
    assert (further.state.stage, further.state.step) == ("drill", 2)
    for (name, one), other in zip(whole.model.state_dict().items(), further.model.state_dict().values(), strict=True):
        torch.testing.assert_close(one.half().float(), other, msg=name)  # the folder holds 16 bits
