"""The micro base's lessons say what is in the picture, and its training can be stopped anywhere."""

import argparse
import json
import multiprocessing
import os
import re
import signal
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import micro, micro_calls, micro_chats, micro_lessons, micro_sheets, micro_worker, pretrain_micro
from agents.boxes import inside, overlap
from agents.conversation import ChatEncoder, patchify
from agents.micro_batches import LessonEncoder, seeing_batch, speaking_batch, talking_batch
from agents.micro_seeing import CHARACTERS, KNOTS, NONE, WORDS, TokenWriter, dense_labels, fitted
from agents.micro_weights import END, LOOKED_UP, WORD, character_weights, token_weights
from agents.micro_worker import Worker
from agents.pretrain_micro import Pretraining, learning_rate, orthogonalised
from agents.reasons import things
from pixel_env.tasks import ProceduralTasks
from pixel_env.tasks.drawing import COLOURS, SHAPES, Canvas, Mark
from pixel_env.tasks.scenes import RELATIONS, SIDES, TRAY_SHAPES

PROCESSOR = micro.load_processor(Path(micro.__file__).parent / "micro_base")
TOKENIZER = PROCESSOR.tokenizer


def test_dense_labels_by_hand() -> None:
    """A 112 px picture of 4 x 4 tokens with one object, in the second token of the third row."""
    mark = Mark("star", (30, 58, 54, 82), "blue", "K", text_height=8)
    labels = dense_labels(Canvas(112, 112, 0, (mark,)), (0, 0, 112, 112), (112, 112))
    cell = 2 * 4 + 1
    assert WORDS["glyph"][labels["glyph"][cell]] == "K"
    assert WORDS["colour"][labels["colour"][cell]] == " blue"
    assert WORDS["kind"][labels["kind"][cell]] == " star"
    np.testing.assert_allclose(labels["sides"][cell], [2, 2, 26, 26])  # from the token's corner, (28, 56)
    others = np.arange(16) != cell
    assert (labels["glyph"][others] == NONE).all() and np.isnan(labels["sides"][others]).all()
    assert (labels["colour"][others] == len(WORDS["colour"])).all()  # nothing


def test_small_characters_and_other_regions_are_not_labelled() -> None:
    mark = Mark("star", (30, 58, 54, 82), "blue", "K", text_height=5)
    assert (dense_labels(Canvas(112, 112, 0, (mark,)), (0, 0, 112, 112), (112, 112))["glyph"] == NONE).all()
    aside = dense_labels(Canvas(112, 112, 0, (mark,)), (56, 0, 112, 56), (112, 112))
    assert np.isnan(aside["sides"]).all()


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
    # Of a mark that is cut off, the part in the view: x from 40.32 to 56, told from the corner of the second token.
    np.testing.assert_allclose(labels["sides"][1], [12.32, 0, 28, 28], rtol=1e-5)


def test_dots_are_counted_in_close_ups() -> None:
    tray = Mark("square", (20, 20, 80, 80), "red")
    dots = tuple(Mark("circle", (30 + 10 * k, 40, 34 + 10 * k, 44), "white") for k in range(3))
    labels = dense_labels(Canvas(112, 112, 0, (tray, *dots)), (0, 0, 112, 112), (112, 112))
    assert labels["dots"][4 + 1] == 3


def text_of(batch: list[list[micro_lessons.Lesson]]) -> list[tuple[str, str]]:
    return [(turn.text, turn.answer) for sequence in batch for lesson in sequence for turn in lesson.turns]


def test_batches_are_functions_of_the_seed() -> None:
    assert text_of(speaking_batch(3, 12, 0.5)) == text_of(speaking_batch(3, 12, 0.5))
    assert text_of(speaking_batch(3, 12, 0.5)) != text_of(speaking_batch(4, 12, 0.5))
    for done in (0.0, 0.2, 0.4, 0.55, 0.9):
        assert text_of(talking_batch(3, 4, done)) == text_of(talking_batch(3, 4, done))
    images, labels = seeing_batch(5, 8, 0.5)
    again, _ = seeing_batch(5, 8, 0.5)
    assert all(np.array_equal(a, b) for a, b in zip(images, again, strict=True))
    for image, one in zip(images, labels, strict=True):
        assert {len(values) for values in one.values()} == {image.shape[0] * image.shape[1] // 28**2}


def test_the_base_never_sees_the_environment() -> None:
    """No function of the environment's name, no result of a call, no sentence of its guideline but the last."""
    for seed in range(8):
        for sequence in speaking_batch(seed, 24, 0.3):
            for lesson in sequence:
                whole = lesson.system + "".join(turn.text + turn.answer for turn in lesson.turns)
                for forbidden in ("crop_image", "select_frames", "cut from image", "Zoom in", "Use a visual operation"):
                    assert forbidden not in whole
                calls = ["<tool_call>" in turn.answer for turn in lesson.turns]
                # Nothing answers a call: either it ends the lesson, or another thing is to be marked.
                assert not any(calls) or all(calls)
                assert not any(calls) or not any(turn.images for turn in lesson.turns[1:])


def test_boxes_of_grounding_lessons_are_where_the_colour_is() -> None:
    """The middle of each box has the colour that the question names: read off the pixels, not off the marks."""
    rng = np.random.default_rng(0)
    checked = 0
    for index in range(0, 120, 3):
        task = ProceduralTasks(("count",), difficulty=1, preset="micro")[index]
        canvas = task.media.canvases[0]  # type: ignore[attr-defined]
        shot = micro_lessons.take(canvas, micro_lessons.whole(canvas))
        pixels = shot.picture.draw()
        for thing in shot.things:
            if "ring" in thing.name or thing.dots is not None:
                continue  # a ring is pale in the middle, a tray has dots
            question, answer = micro_lessons.ground(rng, [thing])
            assert thing.name in question and answer.startswith(f"the {thing.name} ")
            x1, y1, x2, y2 = json.loads(answer[answer.index("{") :])["bbox_2d"]
            seen = pixels[(y1 + y2) // 2, (x1 + x2) // 2].astype(int)
            wanted = np.array(COLOURS[thing.name.split()[0]])
            assert np.abs(seen - wanted).max() < 40, (index, thing)
            checked += 1
    assert checked > 40


def test_a_thing_to_mark_is_marked_where_it_is() -> None:
    rng = np.random.default_rng(0)
    task = ProceduralTasks(("search",), difficulty=1, preset="micro")[0]
    shot = micro_lessons.take(task.media.canvases[0], (0, 0, task.media.width, task.media.height))  # type: ignore[attr-defined]
    lesson = micro_lessons.mark_lesson(rng, shot)
    assert lesson.turns
    for turn in lesson.turns:
        said, _, call = turn.answer.partition("<tool_call>")
        (thing,) = (t for t in shot.things if t.name in said)
        assert thing.name in turn.text or dict(micro_lessons.ends(shot))[turn.text.partition("the ")[2][:-1]] is thing
        box = next(iter(json.loads(call.removesuffix("</tool_call>"))["arguments"].values()))
        assert box == [round(v) for v in thing.box]


def test_what_was_looked_up_weighs_most() -> None:
    """Of a box its first digit, of "says K. \\boxed{K}" both K, of a bare sheet hardly anything else."""
    processor = micro.build_processor(micro_lessons.corpus(), [])
    encoder = LessonEncoder(ChatEncoder(processor), drawn=False)
    turns = {
        "ground": "the red star [12, 7, 30, 41]",
        "closeup answer": "It says K. \\boxed{K}",
        "bare characters": "the red star 7, the blue ring 8",
    }
    heaviest = {}
    for skill, answer in turns.items():
        example = encoder([micro_lessons.Lesson((micro_lessons.Turn("?", (), answer, skill),))])
        top = max(example.weights)
        weighed = zip(example.ids, example.weights, strict=True)
        heaviest[skill] = [processor.tokenizer.decode([i]) for i, w in weighed if w == top]
        assert min(w for w in example.weights if w) <= 0.1 * top
    assert heaviest == {"ground": ["1"], "closeup answer": ["K", "K"], "bare characters": ["7", "8"]}


@pytest.mark.parametrize(
    ("question", "answer", "looked_up"),
    [
        ("Read: red star, blue ring.", "the red star AB7, the blue ring 12", "AB7|1"),
        ("Locate the red star.", 'the red star {"bbox_2d": [12, 7, 30, 41]}', "1"),
        ("Mark the frames.", '{"name": "f", "arguments": {"frames": [3, 14]}}', "3"),
        ("Mark it.", '{"name": "f", "arguments": {"box": [3, 14, 5, 20], "image": 1}}', "3"),
        ("Which: leftmost object.", "the leftmost object is the red square tray", "red square tray"),
        ("Where: red star from cyan panel.", "from the cyan panel the red star is left of it", "left of"),
        (
            "Count: red objects, blue objects.",
            "there is the blue star, the green star, the blue ring: red objects 0, blue objects 2",
            "blue star|green star|blue ring|0|2",
        ),
        ("Which colour?\n(A) red", "The lowest icon is the red star. \\boxed{red}", "red star|red"),
    ],
)
def test_what_the_question_tells_weighs_little(question: str, answer: str, looked_up: str) -> None:
    weights = character_weights(question, answer)
    heavy = "".join(c if w >= LOOKED_UP else "|" for c, w in zip(answer, weights, strict=True))
    assert [part for part in heavy.split("|") if part] == looked_up.split("|")


@settings(deadline=None)
@given(st.text(st.sampled_from("AZ09 ,.:[]{}\\"), max_size=40))
def test_tokens_of_any_answer_have_a_weight(answer: str) -> None:
    """One for each token and one for the end of the message; the heaviest character gives its weight to its token."""
    weights = token_weights(TOKENIZER, "?", answer)
    assert len(weights) == len(TOKENIZER(answer, add_special_tokens=False, split_special_tokens=True)["input_ids"]) + 1
    assert max(weights) == max(character_weights("?", answer), default=WORD)


def test_shape_sheets_hold_all_sizes_and_nothing_else() -> None:
    marks = [m for seed in range(60) for m in micro_sheets.shape_sheet(np.random.default_rng(seed)).marks]
    widths = [mark.box[2] - mark.box[0] for mark in marks]
    assert min(widths) < 22 and max(widths) > 80
    assert {mark.kind for mark in marks} == set(SHAPES) and not any(mark.text for mark in marks)


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


def test_drills_on_clips_name_what_each_frame_shows() -> None:
    """Frames by name and names by frame are the same table; the marks of the pictures are its third copy."""
    rng = np.random.default_rng(4)
    for _ in range(40):
        (turn,) = micro_sheets.clip_drill(rng).turns
        drawn = [" and ".join(mark.name for mark in picture.canvas.marks) for picture in turn.images]
        if turn.skill == "sheet names":
            assert [name.removeprefix("the ") for name in turn.answer.split(", ")] == [n or "nothing" for n in drawn]
            continue
        for part in turn.answer.split(", "):
            name, frames = re.fullmatch(r"the (\w+ \w+) ([\d ]+)", part).groups()
            assert [int(frame) for frame in frames.split()] == [k for k, n in enumerate(drawn, 1) if n == name]


def test_offered_functions_have_other_names() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        system, names = micro_calls.offer(rng)
        call = json.loads(re.sub(r"</?tool_call>", "", micro_calls.some_call(rng, names, (112, 112))))
        assert call["name"] in system and set(call["arguments"]) <= set(names.values())


def test_pictures_that_follow_a_question_answer_it_at_last() -> None:
    """The evidence is in the last picture and in none between it and the first view; a remark names what is shown."""
    rng = np.random.default_rng(0)
    between = 0
    for index in range(240):
        task = micro_lessons.IMAGE_TASKS[index]
        if not task.needs_operation:
            continue
        cue = task.cue.box  # type: ignore[union-attr]
        first, *others, last = micro_chats.followed_lesson(rng, task).turns
        assert task.question in first.text and "boxed{" not in first.answer
        assert inside(cue, last.images[0].region) and last.answer.endswith(f"\\boxed{{{task.answers[0]}}}")
        for turn in others:
            assert not overlap(turn.images[0].region, cue) and turn.answer[0].isupper()
            between += 1
        for fact in re.findall(r"says (\w+)", last.answer):
            assert fact in {mark.text for mark in last.images[0].canvas.marks if inside(mark.box, cue)}
    assert between > 20


def test_close_ups_that_are_checked_show_what_is_said_of_them() -> None:
    """What is named lies in the picture; what is "not" there does not, and another thing of the task does."""
    rng = np.random.default_rng(0)
    wrong = 0
    for index in range(120):
        checked = micro_chats.check_lesson(rng, micro_lessons.IMAGE_TASKS[index])
        for turn in checked.turns if checked else ():
            (picture,) = turn.images
            boxes = {thing.name: thing.box for thing in things(picture.canvas)}
            seen, _, missing = re.sub("^(This is|It shows) the |\\.$", "", turn.answer).partition(", not the ")
            assert inside(boxes[seen], picture.region)
            assert checked and (missing or seen) in checked.turns[0].text
            if missing:
                assert not overlap(boxes[missing], picture.region)
                wrong += 1
    assert 100 < wrong < 350


def test_frames_that_follow_a_question_are_those_of_its_cue() -> None:
    rng = np.random.default_rng(0)
    tasks = [t for t in (micro_lessons.CLIP_TASKS[i] for i in range(60)) if t.needs_operation]
    for task in tasks:
        first, last = micro_chats.followed_lesson(rng, task).turns
        wanted = [task.media.canvases[frame] for frame in task.cue.frames]  # type: ignore[attr-defined, union-attr]
        assert len(first.images) == 16 and 1 <= len(last.images) <= 3
        assert all(picture.canvas in wanted for picture in last.images)


def test_ends_are_asked_for_one_side_after_the_other() -> None:
    """A fifth of the drills on ends each: leftmost, then rightmost too; then all four. Before there are none."""
    asked = {}
    for done in (0.299, 0.3, 0.359, 0.361, 0.419, 0.421, 0.599):
        said = " ".join(text for text, _ in text_of(talking_batch(3, 60, done)))
        asked[done] = [side for side in SIDES if side in said]
    assert list(asked.values()) == [[], *map(list, (SIDES[:1], SIDES[:1], SIDES[:2], SIDES[:2], SIDES, SIDES))]


def test_relations_are_asked_for_after_ends_and_from_the_middle_first() -> None:
    """Left and right of the middle, then of each other too, then all four directions."""
    asked = {}
    for done in (0.419, 0.421, 0.464, 0.466, 0.524, 0.526, 0.599):
        said = " ".join(f"{text} {answer}" for text, answer in text_of(talking_batch(3, 60, done)))
        others = re.findall(r"[\w ]+ from (\w+)", said)
        asked[done] = ([way for way in RELATIONS if f"{way} it" in said], {name == "middle" for name in others})
    sides, all_four, both = list(RELATIONS[:2]), list(RELATIONS), {True, False}
    assert list(asked.values()) == [
        ([], set()),
        (sides, {True}),
        (sides, {True}),
        (sides, both),
        (sides, both),
        (all_four, both),
        (all_four, both),
    ]


def test_places_of_pictures_are_told_as_the_marks_lie() -> None:
    """Each statement is checked against the marks: middles of objects, upper borders of panels or of their icons."""
    statements = {"object": 0, "panel": 0}
    for index in range(150):
        task = micro_lessons.IMAGE_TASKS[index]
        lesson = micro_lessons.places_lesson(np.random.default_rng(index), task)
        if lesson is None:
            continue
        marks = task.media.canvases[0].marks  # type: ignore[attr-defined]
        panels = [m for m in marks if m.kind == "panel"]
        middle = {m.name: m.centre for m in marks if m.kind in SHAPES}
        top = {m.name: m.box[1] for m in marks if m.kind == "panel" or (panels and m.kind in SHAPES)}
        for turn in lesson.turns:
            said = re.findall(r"[Tt]he (\w+) (object|panel) is the ([a-z]+(?: [a-z]+)*)", turn.answer)
            assert said and all(place in turn.text for place, _, _ in said)
            for place, kind, name in said:
                if kind == "object":
                    axis, best = {"left": (0, min), "right": (0, max), "top": (1, min), "bottom": (1, max)}[place[:-4]]
                    assert middle[name][axis] == best(xy[axis] for xy in middle.values())
                else:
                    best = {"highest": min, "lowest": max}[place]
                    assert top[name.removeprefix("text next to the ")] == best(m.box[1] for m in panels)
                statements[kind] += 1
    assert min(statements.values()) > 100


def test_what_says_whether_another_value_follows_weighs_more_than_words() -> None:
    """After a frame, a name and a string; not between the numbers of a box, of which there are four."""
    answer = 'in frames 10, 11, the star is red, {"bbox_2d": [1, 2, 3, 4]}'
    weights = character_weights("?", answer)
    assert [weights[answer.index(text) + len(text)] for text in ("10", "11", "[1", "[1, 2")] == [END, END, 1.0, 1.0]


def test_place_drills_tell_places_as_they_are() -> None:
    """Each statement is checked against the middles of the marks, worked out another way than the drill does."""
    rng = np.random.default_rng(0)
    statements = 0
    for _ in range(300):
        lesson = micro_sheets.place_drill(rng)
        marks = [m for m in lesson.turns[0].images[0].canvas.marks if m.colour not in ("black", "white")]  # no dots
        middle = {m.name + " tray" * (m.kind in TRAY_SHAPES): m.centre for m in marks}
        answer = lesson.turns[0].answer
        width, height = lesson.turns[0].images[0].canvas.width, lesson.turns[0].images[0].canvas.height
        middle["middle"] = (width / 2, height / 2)
        for b, a, where in re.findall(r"from the ([\w ]+?) the ([\w ]+?) is (left of|right of|above|below) it", answer):
            dx, dy = middle[b][0] - middle[a][0], middle[b][1] - middle[a][1]
            ahead = {"left of": dx, "right of": -dx, "above": dy, "below": -dy}
            assert max(ahead, key=lambda way: ahead[way]) == where
            statements += 1
        del middle["middle"]
        for side, name in re.findall(r"the (\w+)most object is the ([\w ]+)", answer):
            axis, best = {"left": (0, min), "right": (0, max), "top": (1, min), "bottom": (1, max)}[side]
            assert middle[name][axis] == best(xy[axis] for xy in middle.values())
            statements += 1
        if lesson.turns[0].text.partition("Count: ")[1]:
            words = [kind.split()[0] for kind in lesson.turns[0].text.partition("Count: ")[2].split(", ")]
            named, _, told = answer.partition(": ")
            assert named.count(" the ") == len(marks)
            counts = [int(n) for n in re.findall(r"\d+", told)]
            assert counts == [sum(word in (m.colour, m.kind) for m in marks) for word in words]
            statements += len(counts)
    assert statements > 300


@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_muon_orthogonalises_in_the_precision_of_the_weights(shape: tuple[int, int]) -> None:
    """By a singular value decomposition: the same vectors, all values near 1; and torch's optimizer uses it."""
    update = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalised(update, (3.4445, -4.775, 2.0315), 5, 1e-7)
    u, _, v = torch.linalg.svd(update, full_matrices=False)
    values = torch.diag(u.T @ found @ v.T)
    assert values.min() > 0.6 and values.max() < 1.3
    torch.testing.assert_close(found, u @ torch.diag(values) @ v, atol=1e-4, rtol=0)

    weight = torch.nn.Parameter(torch.zeros(*shape))
    weight.grad = update.clone()
    torch.optim.Muon([weight], lr=1.0, momentum=0.0, nesterov=False, weight_decay=0.0, adjust_lr_fn="original").step()
    scale = max(1.0, shape[0] / shape[1]) ** 0.5
    torch.testing.assert_close(weight.detach(), -scale * found, atol=1e-5, rtol=1e-5)


def test_learning_rate_by_hand() -> None:
    assert learning_rate(0, 1000, 1.0) == pytest.approx(0.02)  # first of 50 warm-up steps
    assert learning_rate(1000, 1000, 1.0) == pytest.approx(0.05)  # the floor
    assert learning_rate(500, 1000, 1.0) == pytest.approx(0.05 + 0.95 / 2)


def arguments(out: Path, base: str | None = None, begin: str = "speak", **changed: int) -> argparse.Namespace:
    plain = {"see_steps": 2, "see_batch": 2, "talk_steps": 3, "talk_batch": 4, "steps": 2, "batch": 4}
    rates = {"see_lr": 1e-3, "talk_lr": 1e-3, "lr": 1e-3, "vision_lr": 1e-3, "seed": 0, "save_seconds": 120}
    return argparse.Namespace(out=str(out), base=base, begin=begin, **(plain | changed), **rates)


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped behind the second stage and continued, it has the weights of a run that was never stopped."""
    monkeypatch.setattr(pretrain_micro, "FITTED_VIEWS", 20)
    whole = Pretraining(arguments(tmp_path / "whole"))
    whole.run()
    stopped = Pretraining(arguments(tmp_path / "stopped", steps=0))
    stopped.run()
    resumed = Pretraining(arguments(tmp_path / "stopped"))
    assert resumed.state.stage == "talk" and resumed.state.step == 3
    resumed.run()
    for (name, one), other in zip(whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert torch.equal(whole.projector.weight, resumed.projector.weight)
    assert (tmp_path / "whole" / "model" / "model.safetensors").stat().st_size < 16e6


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_worker_that_is_killed_is_replaced_and_ends_with_its_run() -> None:
    asked = [("see", seed, 2, 0.5) for seed in range(8)]
    with Worker(PROCESSOR) as worker:
        batches = worker.batches(iter(asked))
        found = [next(batches)]
        for _ in range(2):
            (child,) = worker._pool._processes.values()
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            found.append(next(batches))
        found += batches
    for (images, _), arguments in zip(found, asked, strict=True):
        expected, _ = micro_worker._batch(*arguments)
        assert all(np.array_equal(one, other) for one, other in zip(images, expected, strict=True))

    reading, writing = multiprocessing.Pipe(duplex=False)
    if not (run := os.fork()):
        worker = Worker(PROCESSOR).__enter__()
        next(worker.batches(iter(asked)))
        writing.send([child.pid for child in worker._pool._processes.values()])
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(run, 0)
    (left,) = reading.recv()
    deadline = time.monotonic() + 60
    while psutil.pid_exists(left) and psutil.Process(left).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it goes on without its run"
        time.sleep(0.01)


def test_a_batch_that_ends_two_workers_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_worker.micro_batches, "seeing_batch", lambda *_: os._exit(1))
    with Worker(PROCESSOR) as worker, pytest.raises(BrokenProcessPool):
        next(worker.batches(iter([("see", 0, 2, 0.5)])))


def test_a_base_that_cannot_be_saved_leaves_no_folder_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Pretraining(arguments(tmp_path, see_steps=0, talk_steps=0, steps=0))

    def half(model: Any, processor: Any, path: Path, half: bool = False) -> None:
        path.mkdir()
        (path / "config.json").touch()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(micro, "save", half)
        run.save()
    assert not list(tmp_path.iterdir())
    run.save()
    assert (tmp_path / "model" / "model.safetensors").exists() and len(list(tmp_path.iterdir())) == 1


def test_the_saved_model_sees_as_the_pretraining_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tower's last layer, apart during pretraining, is back in its place in the folder that plain code loads."""
    monkeypatch.setattr(pretrain_micro, "FITTED_VIEWS", 20)
    run = Pretraining(arguments(tmp_path, see_steps=0, talk_steps=0, steps=1))
    run.run()
    picture = micro_lessons.take(Canvas(112, 112, 3, ()), (0, 0, 112, 112)).picture.draw()
    model = micro.load_model(tmp_path / "model")
    pixels, grid = patchify([picture], run.processor.image_processor)
    with torch.no_grad():
        seen = model.model.visual(pixels, grid_thw=grid).pooler_output
        expected = run.projector(run._features([picture]))
    torch.testing.assert_close(seen, expected, atol=0.02, rtol=0.02)  # the folder holds 16 bits


def test_a_saved_base_goes_on_with_the_tower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It skips the characters of the first stage, and its last layer is fitted anew before the last one."""
    monkeypatch.setattr(pretrain_micro, "FITTED_VIEWS", 20)
    Pretraining(arguments(tmp_path / "first", see_steps=0, talk_steps=0, steps=0)).run()
    base, out = str(tmp_path / "first" / "model"), tmp_path / "second"
    run = Pretraining(arguments(out, base=base, begin="see", see_steps=0, talk_steps=0, steps=1))
    assert run.state.stage == "see"
    run.run()
    assert [row["stage"] for row in run.state.log] == ["fit", "fit"]
    assert (out / "model" / "model.safetensors").exists()
    assert [run.share_done("see", step, 100) for step in (0, 100)] == [0.15, 1.0]
    assert [run.share_done("talk", step, 100) for step in (0, 100)] == [0.3, 1.0]


def test_written_tokens_are_sums_of_words_and_sides() -> None:
    """By hand: a red star without character, whose sides lie on knots or halfway, and a token of nothing."""
    embeddings = torch.nn.Embedding(60, 8)
    words = {name: list(range(5, 5 + len(some))) for name, some in WORDS.items()}
    writer = TokenWriter(embeddings, words)
    canvas = Canvas(56, 28, 0, (Mark("star", (0, 3.5, 21, 24.5), "red"),))
    labels = dense_labels(canvas, (0, 0, 56, 28), (56, 28))
    there, nothing = writer({name: torch.from_numpy(values) for name, values in labels.items()})
    torch.testing.assert_close(nothing, writer.nothing)
    x1, y1, x2, y2 = writer.sides
    zero = list(KNOTS).index(0)
    sides = x1[zero] + (y1[zero] + y1[zero + 1]) / 2 + x2[zero + 3] + (y2[zero + 3] + y2[zero + 4]) / 2
    colour, kind = (embeddings.weight[5 + WORDS[n].index(word)] for n, word in (("colour", " red"), ("kind", " star")))
    torch.testing.assert_close(there, sides + colour + kind)


def test_a_writer_reads_its_own_hand_best() -> None:
    """Its own tokens say what the labels do, those of other labels do not; only the tokens are trained."""
    torch.manual_seed(0)
    words = {name: list(range(5, 5 + len(some))) for name, some in WORDS.items()}
    writer = TokenWriter(torch.nn.Embedding(60, 256), words)
    one, other = (
        {k: torch.from_numpy(v) for k, v in dense_labels(Canvas(56, 28, 0, (mark,)), (0, 0, 56, 28), (56, 28)).items()}
        for mark in (
            Mark("star", (0, 3, 21, 24), "red", "K", text_height=8),
            Mark("ring", (7, 0, 28, 21), "blue", "7", text_height=8),
        )
    )
    assert writer.loss(writer(one), one) < 0.5 * writer.loss(writer(other), one)
    tokens = writer(other).detach().requires_grad_()
    writer.loss(tokens, one).backward()
    assert tokens.grad is not None and tokens.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in writer.parameters())


def test_the_fit_finds_a_linear_map_and_says_what_it_explains() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(500, 12, generator=generator)
    truth = torch.nn.Linear(12, 5)
    with torch.no_grad():
        layer, explained = fitted(features, truth(features), ridge=1e-9)
        assert explained == pytest.approx(1.0, abs=1e-6)
        torch.testing.assert_close(layer(features), truth(features), atol=1e-4, rtol=1e-4)
        noise = torch.randn(500, 5, generator=generator)
        assert fitted(features, noise)[1] < 0.1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--base", "nowhere"], "expected --base to be the folder of a saved base"),
        (["--begin", "see"], "--begin is for --base"),
    ],
)
def test_wrong_arguments_are_told(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert pretrain_micro.main(given) == 2
    error = capsys.readouterr().err
    assert error.startswith("pretrain_micro.py: error: ") and said in error and error.count("\n") == 1
