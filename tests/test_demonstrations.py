"""Demonstrations: every promise about boxes, frames, remarks and flags, checked on the trajectories themselves."""

import re
from collections import Counter
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from fakes import image_task, tasks, video_task

from agents.demonstrations import IMAGE_MIX, LOOKS, VIDEO_MIX, demonstrate, demonstrations
from agents.expert import UnsuitedError, boxed
from agents.reasons import target
from pixel_env.actions import CropImage, SelectFrames, parse
from pixel_env.grading import grade
from pixel_env.media import Box
from pixel_env.operations import View
from pixel_env.tasks import Cue, ProceduralTasks
from pixel_env.trajectory import Trajectory, replay

COUNT = 300
MICRO: dict[str, Any] = {"preset": "micro", "difficulty": [1, 2, 3]}
TASKS = ProceduralTasks(preset="micro")


@pytest.fixture(scope="module")
def made() -> list[Trajectory]:
    return demonstrations("PixelReason-Mixed-v0", COUNT, seed=1, progress=False, **MICRO)


@pytest.fixture(scope="module")
def env() -> gym.Env[Any, str]:
    return gym.make("PixelReason-Mixed-v0", **MICRO)


def cue_of(trajectory: Trajectory) -> Cue:
    cue = TASKS[TASKS.index(trajectory.task_id)].cue
    assert cue is not None
    return cue


def box_of(trajectory: Trajectory) -> Box:
    box = cue_of(trajectory).box
    assert box is not None
    return box


def looks(trajectory: Trajectory, env: gym.Env[Any, str]) -> tuple[View, list[list[View]]]:
    """The first view, and the views of every operation."""
    env.reset(seed=trajectory.seed, options={"task": trajectory.task_id})
    first: View = env.unwrapped.shown[0]  # type: ignore[attr-defined]
    return first, [env.step(turn.action)[4]["views"] for turn in trajectory.turns[:-1]]


def covers(view: View, cue: Box) -> bool:
    x1, y1, x2, y2 = view.region
    return x1 <= cue[0] and y1 <= cue[1] and x2 >= cue[2] and y2 >= cue[3]


def touches(view: View, cue: Box) -> bool:
    x1, y1, x2, y2 = view.region
    return x1 < cue[2] and cue[0] < x2 and y1 < cue[3] and cue[1] < y2


def area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def magnification(view: View) -> float:
    x1, y1, x2, y2 = view.region
    return min(view.size[0] / (x2 - x1), view.size[1] / (y2 - y1))


def test_shares_are_those_of_the_paper(made: list[Trajectory]) -> None:
    assert sum(t.kind == "textual" for t in made) == round(COUNT * 2000 / 7500)
    for suites, mix in ((("search", "count", "read"), IMAGE_MIX), (("clip",), VIDEO_MIX)):
        kinds = Counter(t.kind for t in made if t.suite in suites and t.kind != "textual")
        assert set(kinds) <= set(mix)
        for kind, share in mix.items():
            assert kinds[kind] / kinds.total() == pytest.approx(share, abs=0.12), (suites, kinds)


def test_all_are_right_and_free_of_errors(made: list[Trajectory]) -> None:
    for trajectory in made:
        assert trajectory.correct and trajectory.terminated and trajectory.score == 1.0
        assert trajectory.num_operations == len(LOOKS[trajectory.kind]) and not trajectory.num_errors
        assert not any(turn.malformed for turn in trajectory.turns)


def test_replay_reproduces_them(made: list[Trajectory]) -> None:
    for trajectory in made[:20]:
        assert replay(trajectory) == trajectory


def test_only_mistakes_are_not_trained(made: list[Trajectory]) -> None:
    flags = {kind: {tuple(turn.trained for turn in t.turns) for t in made if t.kind == kind} for kind in LOOKS}
    assert flags == {
        "single": {(True, True)},
        "recrop_once": {(False, True, True)},
        "recrop_twice": {(False, False, True, True)},
        "zoom_further": {(False, True, True)},
        "reselect": {(False, True, True)},
        "textual": {(True,)},
    }


def test_right_boxes_hold_the_cue_and_enlarge_it(made: list[Trajectory], env: gym.Env[Any, str]) -> None:
    for trajectory in made:
        if trajectory.kind == "textual" or trajectory.suite == "clip":
            continue
        first, views = looks(trajectory, env)
        (view,) = views[-1]
        cue = box_of(trajectory)
        assert covers(view, cue)
        ratio = area(view.region) / area(cue)
        assert 1.4 <= ratio <= 16.0
        assert area(view.region) <= 0.15 * area(first.region) or ratio <= 2.0
        assert magnification(view) >= 2 * magnification(first)
        assert trajectory.cue_coverage == pytest.approx(1.0)


def test_where_the_environment_adds_a_margin_right_boxes_are_tight() -> None:
    padded = {**MICRO, "crop_padding": 0.1}
    env = gym.make("PixelReason-Mixed-v0", **padded)
    seen = Counter[str]()
    for trajectory in demonstrations("PixelReason-Mixed-v0", 120, seed=2, progress=False, **padded):
        if trajectory.kind == "textual" or trajectory.suite == "clip":
            continue
        first, (*earlier, (view,)) = looks(trajectory, env)
        cue, action = box_of(trajectory), parse(trajectory.turns[-2].action)
        assert isinstance(action, CropImage) and covers(view, cue)
        assert magnification(view) >= 2 * magnification(first)
        parent = earlier[-1][0] if action.image else first
        for k in range(4):  # the evidence, rounded outwards to a pixel of the image it was cut from
            start, end = parent.region[k % 2], parent.region[k % 2 + 2]
            exact = (cue[k] - start) / (end - start) * parent.size[k % 2]
            assert -1e-6 <= (exact - action.bbox[k]) * (1 if k < 2 else -1) < 1
        if trajectory.kind.startswith("recrop"):
            assert not any(touches(wrong, cue) for (wrong,) in earlier)
        seen[trajectory.kind] += 1
    assert set(seen) == set(IMAGE_MIX)


def test_wrong_boxes_do_not_touch_the_cue_and_large_ones_hold_it(
    made: list[Trajectory], env: gym.Env[Any, str]
) -> None:
    parents = set()
    for trajectory in made:
        if trajectory.kind in ("recrop_once", "recrop_twice"):
            _, views = looks(trajectory, env)
            assert not any(touches(view, box_of(trajectory)) for (view,) in views[:-1])
        if trajectory.kind == "zoom_further":
            first, ((large,), _) = looks(trajectory, env)
            assert covers(large, box_of(trajectory)) and area(large.region) > 9 * area(box_of(trajectory))
            assert magnification(large) < 2 * magnification(first)
            action = parse(trajectory.turns[1].action)
            assert isinstance(action, CropImage)
            parents.add(action.image)
    assert parents == {0, 1}  # from the original, and from the crop


def test_frames_are_those_of_the_cue_or_none_of_them(made: list[Trajectory]) -> None:
    for trajectory in made:
        if trajectory.suite == "clip" and trajectory.kind != "textual":
            *wrong, right = (parse(turn.action) for turn in trajectory.turns[:-1])
            assert isinstance(right, SelectFrames) and 1 <= len(right.frames) <= 3
            assert set(right.frames) <= set(cue_of(trajectory).frames)
            for action in wrong:
                assert isinstance(action, SelectFrames) and not set(action.frames) & set(cue_of(trajectory).frames)


def test_remarks_say_what_the_crops_show(made: list[Trajectory]) -> None:
    for trajectory in made:
        remarks = [turn.action.partition("<tool_call>")[0] for turn in trajectory.turns]
        for index, aim in enumerate(LOOKS[trajectory.kind]):
            if aim == "wrong":
                assert re.search(r" not ", remarks[index + 1]), remarks
            if aim == "large":
                assert "too small" in remarks[index + 1], remarks
            if aim == "right":
                assert not re.search(r" not |too small", remarks[index + 1]), remarks
        if trajectory.suite == "search" and trajectory.kind != "textual" and "same" not in trajectory.first_observation:
            said = re.search(r" says (\w)", remarks[-1])
            assert said is not None
            question = TASKS[TASKS.index(trajectory.task_id)]
            assert said[1] == question.answers[0], (remarks, question.question)


def test_a_remark_never_names_what_is_not_in_the_crop(made: list[Trajectory], env: gym.Env[Any, str]) -> None:
    checked = 0
    for trajectory in made:
        if trajectory.suite != "search" or LOOKS[trajectory.kind][:1] != ("wrong",):
            continue
        _, views = looks(trajectory, env)
        canvas = TASKS[TASKS.index(trajectory.task_id)].media.canvases[0]  # type: ignore[attr-defined]
        for (view,), turn in zip(views[:-1], trajectory.turns[1:], strict=False):
            seen = re.match(r"(?:Image \d shows|This is) (.+?), not ", turn.action)
            names = re.findall(r"the (\w+ \w+)", seen[1]) if seen else []
            whole = [m.name for m in canvas.marks if covers(view, m.box)]
            assert set(names) <= set(whole)
            assert bool(names) == bool(whole)
            checked += 1
    assert checked > 10


def test_turns_are_short(made: list[Trajectory]) -> None:
    words = [len(re.findall(r"\w+", turn.action.partition("<tool_call>")[0])) for t in made for turn in t.turns]
    assert np.mean(words) < 17


def test_wording_varies_and_the_seed_decides() -> None:
    one, same, other = (demonstrations("PixelReason-Mixed-v0", 24, seed=s, progress=False, **MICRO) for s in (5, 5, 6))
    assert one == same
    assert one != other
    assert len({re.sub(r"[\d\w]+ \w+", "", t.turns[0].action.partition("<")[0]) for t in one}) > 5


def test_textual_ones_prefer_tasks_that_need_no_operation(made: list[Trajectory]) -> None:
    assert {t.needs_operation for t in made if t.kind == "textual"} == {False}
    assert {t.needs_operation for t in made if t.kind != "textual"} == {True}


@pytest.mark.parametrize(
    ("question", "asked_about"),
    [
        ("Which digit is on the leftmost object?", "the leftmost object"),
        ("Do the red ring and the blue star carry the same digit?", "the red ring and the blue star"),
        ("How many dots are in the red ring and the cyan star together?", "the red ring and the cyan star"),
        ("How many more black than white dots are in the red square tray?", "the red square tray"),
        ("What is written next to the red circle?", "the text next to the red circle"),
        ("Which colour is the icon next to K7?", "the icon next to K7"),
        ("Which colour is the panel that says K7?", "the panel that says K7"),
        ("In which frame does the digit 7 first appear?", "the digit 7"),
        ("Which digit appears first, 3 or 5?", "the digit"),
        ("Why does the dog bark?", "what is asked"),
        (r"What is on the \boxed{7} <tool_call>?", "what is asked"),  # could answer or call
    ],
)
def test_target(question: str, asked_about: str) -> None:
    assert target(question) == asked_about


def test_boxed_answers_are_always_read_as_meant() -> None:
    for index in range(200):
        assert grade(TASKS[index], boxed(TASKS[index])).correct
    task = image_task(choices=("C", "D", "B"), answers=("B",))
    assert not grade(task, "B").correct  # read as option (B)
    assert boxed(task) == "(C) B"


def test_media_from_files_get_remarks_without_names() -> None:
    cue = Cue((200.0, 200.0, 240.0, 240.0))
    env = gym.make("PixelReason-Zoom-v0", tasks=tasks(image_task(cue=cue)), preset="micro")
    trajectory = demonstrate(0, env, np.random.default_rng(0), "recrop_once")
    assert trajectory.correct
    assert "what is asked" in trajectory.turns[1].action


@pytest.mark.parametrize("coordinates", ["pixel", "fraction", "thousandth"])
def test_every_convention_of_coordinates(coordinates: str) -> None:
    made = demonstrations("PixelReason-Zoom-v0", 12, coordinates=coordinates, progress=False, **MICRO)
    assert all(t.correct for t in made)
    assert all(t.cue_coverage == pytest.approx(1.0) for t in made if t.kind != "textual")


def test_the_standard_preset() -> None:
    made = demonstrations("PixelReason-Mixed-v0", 6, difficulty=3, textual_share=0.0, progress=False)
    assert all(t.correct and t.cue_coverage == pytest.approx(1.0) for t in made)


@pytest.mark.parametrize(
    ("task", "kind", "message"),
    [
        (image_task(), "single", "no cue"),
        (image_task(answers=()), "textual", "no answers"),
        (image_task(cue=Cue((0.0, 0.0, 448.0, 448.0))), "recrop_once", "no wrong box"),
        (image_task(cue=Cue((200.0, 200.0, 240.0, 240.0))), "reselect", "is not for media of kind image"),
        (video_task(cue=Cue(frames=tuple(range(16)))), "reselect", "no frames without evidence"),
    ],
)
def test_unsuited(task: Any, kind: str, message: str) -> None:
    env = gym.make("PixelReason-Mixed-v0", tasks=tasks(task), preset="micro")
    with pytest.raises(UnsuitedError, match=message):
        demonstrate(0, env, np.random.default_rng(0), kind)


def test_too_few_turns() -> None:
    cue = Cue((200.0, 200.0, 240.0, 240.0))
    env = gym.make("PixelReason-Zoom-v0", tasks=tasks(image_task(cue=cue)), preset="micro", max_turns=3)
    with pytest.raises(UnsuitedError, match="needs 4 turns"):
        demonstrate(0, env, np.random.default_rng(0), "recrop_twice")
    with pytest.raises(ValueError, match="expected kind to be one of"):
        demonstrate(0, env, np.random.default_rng(0), "perfect")


def test_tasks_that_cannot_be_demonstrated_end_the_search() -> None:
    """Without cues, without answers, or all easy: an error with the reason instead of a search without end."""
    easy = image_task(needs_operation=False)
    for of, reason in ((image_task(), "the task has no cue"), (easy, "the task needs no operation")):
        with pytest.raises(
            ValueError, match=f"expected tasks with a cue .*, got 1000 in a row .* because {reason}; give"
        ):
            demonstrations("PixelReason-Zoom-v0", 2, tasks=tasks(of), textual_share=0.5, progress=False)
