"""The procedural suites, checked against a second reading of their marks (`recomputed.py`)."""

import dataclasses
import itertools
import pickle
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from recomputed import COLOURS, SHAPES, Verdict, coloured, icon_of, panels, recompute, template

from pixel_env.env import PixelReasonEnv
from pixel_env.grading import grade
from pixel_env.media import Box
from pixel_env.operations import first_views
from pixel_env.policies import gold
from pixel_env.settings import PRESETS, ViewSettings
from pixel_env.tasks import SUITES, DrawnSource, ProceduralTasks, Task, TaskList, TaskSet
from pixel_env.tasks.drawing import Mark, draw, text_width

COUNT = 300
every = pytest.mark.parametrize(
    ("suite", "preset", "split"), list(itertools.product(SUITES, PRESETS, ("train", "test")))
)
every_suite = pytest.mark.parametrize(("suite", "preset"), list(itertools.product(SUITES, PRESETS)))


@cache
def tasks(suite: str, preset: str, split: str = "train", count: int = COUNT) -> tuple[Task, ...]:
    task_set = ProceduralTasks((suite,), split=split, preset=preset, seed=3)
    return tuple(task_set[index] for index in range(count))


@cache
def verdicts(suite: str, preset: str, split: str = "train", count: int = COUNT) -> tuple[Verdict, ...]:
    return tuple(recompute(task) for task in tasks(suite, preset, split, count))


def marks(task: Task) -> Iterator[Mark]:
    assert isinstance(task.media, DrawnSource)
    for canvas in task.media.canvases:
        yield from canvas.marks


def scale(task: Task, preset: str) -> float:
    """View pixels a source pixel in the first view."""
    views = first_views(task.media, ViewSettings(*PRESETS[preset]))
    return min(views[0].size[0] / task.media.width, views[0].size[1] / task.media.height)


def within(inner: Box, outer: Box, slack: float = 0.0) -> bool:
    return all(a >= b - slack for a, b in zip(inner[:2], outer[:2], strict=True)) and all(
        a <= b + slack for a, b in zip(inner[2:], outer[2:], strict=True)
    )


# --- a pure function of seed and index ------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_a_task_is_a_function_of_seed_and_index(preset: str) -> None:
    first, again = ProceduralTasks(preset=preset, seed=5), ProceduralTasks(preset=preset, seed=5)
    order = np.random.default_rng(0).permutation(40).tolist()
    late = {index: again[index] for index in order}
    assert all(first[index] == late[index] for index in range(40))
    assert pickle.loads(pickle.dumps(first))[7] == first[7]
    other = ProceduralTasks(preset=preset, seed=6)
    assert all(first[index].media != other[index].media for index in range(40))
    shifted = ProceduralTasks(preset=preset, seed=4)  # seed + index would make these neighbours equal
    assert all(first[index].media != shifted[index + 4].media for index in range(40))


def test_pixels_are_a_function_of_the_marks() -> None:
    task = tasks("search", "micro")[0]
    assert isinstance(task.media, DrawnSource)
    assert draw(task.media.canvases[0]).tobytes() == task.media.frame(0).tobytes()
    assert task.media.frame(0).size == (task.media.width, task.media.height)


def test_suites_and_levels_take_turns() -> None:
    task_set = ProceduralTasks()
    assert Counter((task_set[i].suite, task_set[i].level) for i in range(24)) == {
        (suite, level): 2 for suite in SUITES for level in (1, 2, 3)
    }


@pytest.mark.parametrize("size", [24, 100_000])
def test_ids_are_found_and_strangers_refused(size: int) -> None:
    task_set = ProceduralTasks(seed=2, preset="micro", size=size)
    assert [task_set.index(task_set[i].task_id) for i in (0, 5, 23)] == [0, 5, 23]
    for stranger in ("", "search-1-micro-train-2-1", "search-1-micro-train-9-0", f"search-1-micro-train-2-{size}", "²"):
        with pytest.raises(ValueError, match="no task"):
            task_set.index(stranger)
    with pytest.raises(IndexError, match="task index must be in"):
        task_set[size]


def test_a_task_set_needs_two_methods() -> None:
    class Twice(TaskSet):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Task:  # raises no IndexError, so it must not be iterated over
            return dataclasses.replace(tasks("search", "micro")[0], task_id=f"t{index}")

    for task_set in (Twice(), TaskList(tuple(Twice()[index] for index in range(3)))):
        assert [task_set.index(f"t{index}") for index in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="no task 't3' in this set of 3 tasks"):
            task_set.index("t3")
    assert PixelReasonEnv(Twice()).reset(options={"task": "t1"})[1]["task_id"] == "t1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"suites": ("find",)}, "suites must be some of 'search', 'count', 'read', 'clip'; got"),
        ({"suites": ()}, "suites must be some of"),
        ({"split": "dev"}, "split must be one of 'train', 'test'; got 'dev'"),
        ({"preset": "tiny"}, "preset must be one of"),
        ({"difficulty": 4}, "difficulty must be some of 0, 1, 2, 3"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"size": 0}, "size must be an integer of at least 1, got 0"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ProceduralTasks(**arguments)  # type: ignore[arg-type]


# --- answers --------------------------------------------------------------------------------------------------------


@every
def test_answers_follow_from_the_marks(suite: str, preset: str, split: str) -> None:
    for task, verdict in zip(tasks(suite, preset, split), verdicts(suite, preset, split), strict=True):
        assert task.answers == (verdict.answer,), (task.task_id, task.question)
        if task.choices:
            assert len(set(task.choices)) == len(task.choices) and task.choices.count(verdict.answer) == 1


@every
def test_the_cue_covers_the_evidence_and_stays_on_the_canvas(suite: str, preset: str, split: str) -> None:
    for task, verdict in zip(tasks(suite, preset, split), verdicts(suite, preset, split), strict=True):
        assert task.cue is not None
        canvas = (0, 0, task.media.width, task.media.height)
        if task.cue.box is not None:
            assert within(task.cue.box, canvas), task.task_id
            assert all(within(mark.box, task.cue.box, slack=0.01) for mark in verdict.evidence), task.task_id
        assert task.cue.frames == verdict.frames
        assert (suite == "clip") == bool(task.cue.frames)
        assert all(within(mark.box, canvas) for mark in marks(task)), task.task_id


@every
def test_the_grader_accepts_gold_and_refuses_another_answer(suite: str, preset: str, split: str) -> None:
    for task in tasks(suite, preset, split)[:60]:
        assert grade(task, gold(task)).correct and grade(task, task.answers[0]).correct
        wrong = {"choice": "zebra", "number": str(int(task.answers[0]) + 1) if task.answer_kind == "number" else ""}
        assert not grade(task, wrong.get(task.answer_kind, task.answers[0] + "7")).correct


@every_suite
def test_at_least_six_templates(suite: str, preset: str) -> None:
    # Patterns count once, but digit and letter, dots and dots of one ink are asked differently.
    templates = Counter(template(task) for task in tasks(suite, preset))
    assert len(templates) >= 6, templates
    assert min(templates.values()) >= 3 or (suite, preset) == ("read", "standard"), templates


def test_four_kinds_of_clip_question() -> None:
    kinds = Counter(re.match(r"Which \w+ is|Which|In which|In how many", t.question)[0] for t in tasks("clip", "micro"))  # type: ignore[index]
    assert {re.sub(r" (digit|letter)", "", kind) for kind in kinds} == {"Which is", "Which", "In which", "In how many"}


@every_suite
def test_20_to_30_percent_need_no_operation(suite: str, preset: str) -> None:
    drawn = tasks(suite, preset, count=900)
    assert 0.2 <= [task.needs_operation for task in drawn].count(False) / len(drawn) <= 0.3
    for level in (1, 2, 3):
        chosen = [task.needs_operation for task in drawn if task.level == level]
        assert 0.16 <= chosen.count(False) / len(chosen) <= 0.34, level  # 3.6 standard deviations of 300 draws


# --- balance --------------------------------------------------------------------------------------------------------


def chi_square(counts: list[int]) -> float:
    """Pearson's statistic against equal shares, over its degrees of freedom: about 1 for fair draws."""
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 / expected for count in counts) / (len(counts) - 1)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("suite", ["search", "clip"])
def test_right_choices_stand_anywhere(suite: str, preset: str) -> None:
    drawn = [task for task in tasks(suite, preset, count=900) if task.choices]
    for number in (2, 4):  # yes or no; four options
        places = Counter(t.choices.index(t.answers[0]) for t in drawn if len(t.choices) == number)
        assert len(places) == number and chi_square(list(places.values())) < 6, places


@pytest.mark.parametrize("preset", PRESETS)
def test_answers_are_balanced(preset: str) -> None:
    search = tasks("search", preset, count=900)
    digits = Counter(t.answers[0] for t in search if t.answers[0].isdigit())
    assert len(digits) == 10 and chi_square(list(digits.values())) < 2.5, digits
    letters = Counter(t.answers[0] for t in search if re.fullmatch("[A-Z]", t.answers[0]))
    assert len(letters) == 19 and chi_square(list(letters.values())) < 2.5  # no I, O, Q, and no A to D of the choices
    for options in (("yes", "no"), ("left of", "right of", "above", "below")):
        counts = Counter(t.answers[0] for t in search if t.answers[0] in options)
        assert len(counts) == len(options) and chi_square(list(counts.values())) < 6, counts


@pytest.mark.parametrize("preset", PRESETS)
def test_counts_run_from_0_to_10(preset: str) -> None:
    hardest = ProceduralTasks(("count",), difficulty=3, preset=preset, seed=1)
    drawn = [hardest[index] for index in range(600)]
    plain = Counter(int(t.answers[0]) for t in drawn if re.match(r"How many (black |white )?dots", t.question))
    assert sorted(plain) == list(range(11)) and chi_square(list(plain.values())) < 2.5, plain
    assert {int(t.answers[0]) for t in drawn if "more" in t.question} == set(range(11))
    for level, most in ((1, 4), (2, 6)):
        easier = [t for t in tasks("count", preset, count=900) if t.level == level and "dots" in t.question]
        assert {int(t.answers[0]) for t in easier} == set(range(most + 1))


@pytest.mark.parametrize("preset", PRESETS)
def test_strings_of_2_to_12_characters(preset: str) -> None:
    drawn = tasks("read", preset, count=900)
    lengths = {level: {len(m.text) for t in drawn if t.level == level for m in panels_of(t)} for level in (1, 2, 3)}
    if preset == "micro":
        assert lengths == {1: {2}, 2: {2, 3}, 3: set(range(4, 13))}
    else:
        assert lengths == {1: {2, 3}, 2: {3, 4, 5}, 3: set(range(6, 13))}


@pytest.mark.parametrize("preset", PRESETS)
def test_clip_frames_are_spread(preset: str) -> None:
    firsts = [int(t.answers[0]) for t in tasks("clip", preset, count=900) if t.question.startswith("In which frame")]
    assert set(firsts) == set(range(1, 16))
    assert max(Counter(firsts).values()) < 0.15 * len(firsts)


# --- splits ---------------------------------------------------------------------------------------------------------


@every_suite
def test_splits_cannot_overlap(suite: str, preset: str) -> None:
    asked, shown, sizes = {}, {}, {}
    for split in ("train", "test"):
        drawn = tasks(suite, preset, split)
        asked[split] = {pair for verdict in verdicts(suite, preset, split) for pair in verdict.pairs}
        shown[split] = {(m.colour, m.kind) for t in drawn for c in t.media.canvases for m in coloured(c)}  # type: ignore[attr-defined]
        sizes[split] = {(task.media.width, task.media.height) for task in drawn}
    assert len(asked["test"]) >= 3 and asked["test"].isdisjoint(asked["train"] | shown["train"])
    assert sizes["train"].isdisjoint(sizes["test"])
    assert len(sizes["train"]) >= 2


def test_eight_shapes_and_eight_colours() -> None:
    seen = {(mark.colour, mark.kind) for task in tasks("search", "standard") for mark in marks(task)}
    assert {colour for colour, _ in seen} == set(COLOURS.split("|"))
    assert {shape for _, shape in seen} == set(SHAPES.split("|"))
    assert len(seen) == 56  # of 64 pairs every eighth is held out


# --- what the first view shows --------------------------------------------------------------------------------------


@every
def test_targets_are_locatable_but_not_legible_in_the_first_view(suite: str, preset: str, split: str) -> None:
    for task, verdict in zip(tasks(suite, preset, split), verdicts(suite, preset, split), strict=True):
        ratio = scale(task, preset)
        for mark in verdict.evidence:
            side = min(mark.box[2] - mark.box[0], mark.box[3] - mark.box[1])
            assert side * ratio >= 8, (task.task_id, mark)
            if task.needs_operation:
                most = 4.7 if preset == "micro" else 4  # the micro base is taught to read from 5.5 on
                assert mark.text_height * ratio < most, (task.task_id, mark)
            if task.needs_operation and mark.text:
                assert mark.text_height >= 7  # legible once the source is looked at
        if suite == "count" and task.needs_operation:
            small = [m for m in marks(task) if m.colour in ("black", "white")]
            assert all((m.box[2] - m.box[0]) * ratio < 4 for m in small), task.task_id
        if task.question == "What is the title of the page?":
            assert verdict.evidence[0].text_height * ratio > 8  # read without a closer look


@every
def test_level_0_asks_the_same_and_is_legible_in_the_first_view(suite: str, preset: str, split: str) -> None:
    levels = [ProceduralTasks((suite,), split=split, preset=preset, difficulty=level, seed=3) for level in (0, 1)]
    drawn, usual = ([task_set[index] for index in range(COUNT)] for task_set in levels)
    assert {task.needs_operation for task in drawn} == {False}
    if suite == "clip":  # a frame of the first view is too small: only what is seen from afar
        usual = [task for task in usual if not task.needs_operation]
    assert {template(task) for task in drawn} == {template(task) for task in usual}
    for task in drawn:
        verdict, ratio = recompute(task), scale(task, preset)
        assert task.answers == (verdict.answer,), (task.task_id, task.question)
        assert task.cue is not None and task.cue.frames == verdict.frames
        assert all(within(mark.box, (0, 0, task.media.width, task.media.height)) for mark in marks(task)), task.task_id
        if suite != "clip":
            assert all(mark.text_height * ratio > 6.5 for mark in verdict.evidence if mark.text), task.task_id
        if suite == "count":
            small = [mark for mark in marks(task) if mark.colour in ("black", "white")]
            assert all((mark.box[2] - mark.box[0]) * ratio > 1.9 for mark in small), task.task_id


@every_suite
def test_marks_stand_apart_and_hold_their_text(suite: str, preset: str) -> None:
    for task in tasks(suite, preset)[:120]:
        assert isinstance(task.media, DrawnSource)
        for mark in marks(task):
            room = mark.box[2] - mark.box[0]
            # The longest strings of the micro preset stand out of their panel a little: less than a crop's margin.
            assert (
                text_width(mark.text, mark.text_height) <= (1.2 if (suite, preset) == ("read", "micro") else 1) * room
            )
        if suite == "clip":
            continue  # events may pass in front of what stands there
        canvas = task.media.canvases[0]
        for a, b in itertools.combinations([*coloured(canvas), *panels(canvas)], 2):
            if b.kind != "panel" or a.kind == "panel" or b.colour == "white":
                gap = max(a.box[0] - b.box[2], b.box[0] - a.box[2], a.box[1] - b.box[3], b.box[1] - a.box[3])
                assert gap >= 0, (task.task_id, a, b)


@pytest.mark.parametrize("split", ["train", "test"])
def test_near_misses_grow_with_the_level(split: str) -> None:
    """Objects of the target's colour and another shape: none, some, more."""
    rates = []
    for level in (1, 2, 3):
        same = []
        for task, verdict in zip(tasks("search", "micro", split), verdicts("search", "micro", split), strict=True):
            if task.level == level and verdict.pairs:
                canvas = task.media.canvases[0]  # type: ignore[attr-defined]
                same.append(sum(mark.colour == verdict.pairs[0][0] for mark in coloured(canvas)) - 1)
        rates.append(np.mean(same))
    assert rates[0] == 0 and 0.8 < rates[1] < 1.2 and rates[2] > 1.5, rates


# --- pages ----------------------------------------------------------------------------------------------------------


def panels_of(task: Task) -> list[Mark]:
    assert isinstance(task.media, DrawnSource)
    return panels(task.media.canvases[0])


def layout(task: Task) -> tuple[str, bool]:
    """How panels are named (by the icon beside them or by themselves), and whether they stand in straight columns."""
    canvas = task.media.canvases[0]  # type: ignore[attr-defined]
    lefts = {panel.box[0] for panel in panels(canvas)}
    beside = panels(canvas)[0].colour == "white"
    if beside:
        assert all(icon_of(canvas, panel) for panel in panels(canvas))
    return ("icon" if beside else "panel"), len(lefts) <= max(2, len(panels(canvas)) // 2)


def test_four_layouts_of_pages() -> None:
    layouts = Counter(layout(task) for task in tasks("read", "standard"))
    assert len(layouts) == 4 and min(layouts.values()) > 0.15 * COUNT, layouts


def test_standard_pages_are_full() -> None:
    """Panels reach into every quarter of the page: none is left empty."""
    for task in tasks("read", "standard"):
        halves = {(p.box[0] < task.media.width / 2, p.box[1] < task.media.height / 2) for p in panels_of(task)}
        assert len(halves) == 4, task.task_id
        assert 8 <= len(panels_of(task)) <= 32


# --- clips ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_clips_have_16_frames_and_brief_events(preset: str) -> None:
    for task in tasks("clip", preset):
        assert (task.media.kind, task.media.num_frames, task.media.timestamp(2)) == ("video", 16, 1.0)
        assert isinstance(task.media, DrawnSource)
        with_text = [[mark for mark in canvas.marks if mark.text] for canvas in task.media.canvases]
        assert max(map(len, with_text)) == 1  # one event at a time
        events = {mark for frame in with_text for mark in frame}
        assert len(events) in {1: (1, 2), 2: (2, 3), 3: (4, 5)}[task.level or 0]
        assert all(sum(mark in frame for frame in with_text) <= 4 for mark in events)
