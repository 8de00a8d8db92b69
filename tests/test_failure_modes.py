"""How answers go wrong: hand-made episodes, each with the outcome that a reader would give it."""

import dataclasses
import re

import gymnasium as gym
import pytest
from fakes import image_task, tasks, video_task

from agents.demonstrations import demonstrations
from agents.reasons import things
from benchmarks.failure_modes import OUTCOMES, Look, found, made_up, read, replayed_looks
from pixel_env import PixelReasonEnv
from pixel_env.media import Box
from pixel_env.operations import View
from pixel_env.rollout import Episode
from pixel_env.tasks import Cue, DrawnSource, ProceduralTasks, Task
from pixel_env.trajectory import Trajectory

DRAWN = ProceduralTasks(("search",), preset="micro", difficulty=2)
ASKED = next(  # "Which letter is on the red cross?", with other things around
    task
    for task in (DRAWN[index] for index in range(100))
    if task.needs_operation and re.fullmatch(r"Which (letter|digit) is on the \w+ \w+\?", task.question)
)
TARGET = ASKED.question.removesuffix("?").split(" on the ")[1]
THINGS = {thing.name: thing for thing in things(ASKED.media.canvases[0])}  # type: ignore[attr-defined]
OTHER = next(t for t in THINGS.values() if t.name != TARGET and t.text and t.text != THINGS[TARGET].text)
UNSEEN = next(c for c in "XYZ123" if c not in (OTHER.text, THINGS[TARGET].text))
WRONG = rf"\boxed{{{OTHER.text}}}"


def environment(task: Task = ASKED) -> PixelReasonEnv:
    return PixelReasonEnv(tasks=tasks(task), preset="micro")


def crop(box: Box, margin: float = 8.0) -> str:
    """A call whose crop shows a box in source pixels, and little else."""
    source = ASKED.media
    x, y = 112 / source.width, 112 / source.height
    assert source.width == source.height
    x1, y1, x2, y2 = ((box[0] - margin) * x, (box[1] - margin) * y, (box[2] + margin) * x, (box[3] + margin) * y)
    corners = [max(0.0, x1), max(0.0, y1), min(112.0, x2), min(112.0, y2)]
    return f"crop_image([{', '.join(f'{value:.2f}' for value in corners)}])"


def play(*actions: str, task: Task = ASKED) -> Trajectory:
    episode = Episode(environment(task))
    episode.reset(task.task_id, seed=0)
    for action in actions:
        episode.step(action)
    return episode.trajectory()


def outcome(*actions: str, task: Task = ASKED) -> str:
    return read(play(*actions, task=task), environment(task)).outcome


FAILS = "crop_image([60, 60, 10, 10])"
EPISODES = [  # (actions, outcome)
    ((crop(THINGS[TARGET].box), rf"\boxed{{{THINGS[TARGET].text}}}"), "right"),
    ((rf"\boxed{{{THINGS[TARGET].text}}}",), "right"),  # a guess is right, too
    ((WRONG,), "no_look"),
    (("hm",) * 5, "no_answer"),
    ((crop(THINGS[TARGET].box), "crop_image([0, 0, 9, 9])", WRONG), "wrong_answer"),  # the first one showed it
    ((crop(THINGS[TARGET].box), f"The {TARGET} says {UNSEEN}. {WRONG}"), "wrong_answer"),  # misread
    ((crop(OTHER.box), WRONG), "wrong_place"),
    ((crop(OTHER.box), f"This is the {OTHER.name}. {WRONG}"), "wrong_place"),
    # The 7 on the blue ring taken for that on the red cross: what is claimed is there, on something else.
    ((crop(OTHER.box), f"This is the {TARGET}. The {TARGET} says {OTHER.text}. {WRONG}"), "wrong_place"),
    ((crop(OTHER.box), f"The {TARGET} says {UNSEEN}. {WRONG}"), "hallucinated"),
    ((crop(OTHER.box), f"Image 2 shows the {TARGET}. {WRONG}"), "hallucinated"),
    ((crop(OTHER.box), f"Image 2 does not show the {TARGET}. {WRONG}"), "wrong_place"),
    ((crop(OTHER.box), f"Image 3 shows it. {WRONG}"), "hallucinated"),  # there is no image 3
    ((FAILS, WRONG), "ignored_error"),
    ((FAILS, f"Image 1 is enough. {WRONG}"), "ignored_error"),
    ((FAILS, f"Image 2 shows the {TARGET}. {WRONG}"), "hallucinated"),
    ((FAILS, f"The {TARGET} says {OTHER.text}. {WRONG}"), "hallucinated"),  # nothing was shown
    ((FAILS, crop(OTHER.box), WRONG), "wrong_place"),  # the error was not ignored
    ((crop(OTHER.box), FAILS, WRONG), "ignored_error"),
    ((FAILS, crop(THINGS[TARGET].box), WRONG), "wrong_answer"),
]


@pytest.mark.parametrize(("actions", "expected"), EPISODES)
def test_outcomes_by_hand(actions: tuple[str, ...], expected: str) -> None:
    assert outcome(*actions) == expected and expected in OUTCOMES


def test_every_outcome_occurs_above() -> None:
    assert {expected for _, expected in EPISODES} == set(OUTCOMES)


@pytest.mark.parametrize(
    ("actions", "first", "corrected"),
    [
        ((WRONG,), "", False),
        ((crop(THINGS[TARGET].box), crop(OTHER.box), WRONG), "found", False),
        ((crop(OTHER.box), WRONG), "missed", False),
        ((crop(OTHER.box), crop(THINGS[TARGET].box), WRONG), "missed", True),
        ((FAILS, "hm", crop(THINGS[TARGET].box), WRONG), "failed", True),
        ((FAILS, FAILS, WRONG), "failed", False),
    ],
)
def test_the_first_look_by_hand(actions: tuple[str, ...], first: str, corrected: bool) -> None:
    reading = read(play(*actions), environment())
    assert (reading.first, reading.corrected) == (first, corrected)


def test_the_rest_is_copied() -> None:
    reading = read(play(FAILS, crop(OTHER.box), WRONG), environment())
    assert (reading.suite, reading.task_id, reading.score) == ("search", ASKED.task_id, 0.0)
    assert (reading.used, reading.needed, reading.operations, reading.errors) == (True, True, 2, 1)


def test_tasks_that_need_no_operation_have_no_outcome() -> None:
    task = image_task(needs_operation=False, cue=Cue((0.0, 0.0, 9.0, 9.0)))
    reading = read(play("crop_image([9, 9, 40, 40])", r"\boxed{A}", task=task), environment(task))
    assert (reading.outcome, reading.first, reading.used) == ("", "", True)
    assert outcome(r"\boxed{A}", task=image_task(needs_operation=True)) == ""  # no cue


def test_of_a_file_nothing_is_known_but_the_number_of_images() -> None:
    task = image_task(needs_operation=True, cue=Cue((0.0, 0.0, 40.0, 40.0)))
    elsewhere = "crop_image([60, 60, 90, 90])"
    assert outcome(elsewhere, r"The red cross says 7. \boxed{A}", task=task) == "wrong_place"
    assert outcome(elsewhere, r"Image 3 says it. \boxed{A}", task=task) == "hallucinated"
    assert outcome(FAILS, r"The red cross says 7. \boxed{A}", task=task) == "hallucinated"


def test_the_evidence_of_a_video_is_any_of_its_frames() -> None:
    task = video_task(cue=Cue(frames=(2, 3)), needs_operation=True)
    assert outcome("select_frames([3, 9])", r"\boxed{7}", task=task) == "wrong_answer"
    assert outcome("select_frames([9])", r"\boxed{7}", task=task) == "wrong_place"
    cue = Cue((0.0, 0.0, 100.0, 100.0), (2,))
    assert found(cue, [View(2, (0.0, 0.0, 100.0, 100.0), (112, 112))])
    assert not found(
        cue, [View(2, (1.0, 0.0, 100.0, 100.0), (112, 112)), View(3, (0.0, 0.0, 448.0, 336.0), (112, 112))]
    )


def test_counted_dots_and_pairs_of_names() -> None:
    counted = ProceduralTasks(("count",), preset="micro")
    tray = next(t for k in range(50) for t in things(counted[k].media.canvases[0]) if t.dots)  # type: ignore[attr-defined]
    assert tray.dots is not None
    black, white = tray.dots
    look = [Look(False, False, (dataclasses.replace(tray, name="red square tray"),))]
    for text, invented in (
        (f"The blue ring tray has {black + white} dots.", False),
        (f"The blue ring tray has {black} black, {white} white dots.", False),
        (f"The blue ring tray has {black + white + 1} dots.", True),
        ("This is the blue ring and the red square tray.", False),  # one of them is there
        ("This is the blue ring and the red ring.", True),
        ("This is the leftmost tray.", False),  # which of them that is has not been said
        ("", False),
    ):
        assert made_up(text, look, images=2) is invented, text


def test_demonstrations_make_nothing_up() -> None:
    """What the expert says of a view is there: nothing of it would count as made up, were the answer wrong."""
    suites = ["search", "count", "read", "clip"]
    env_kwargs = {"suite": suites, "preset": "micro", "difficulty": [1, 2], "crop_padding": 0.04}
    made = demonstrations("PixelReason-Mixed-v0", 40, seed=3, progress=False, **env_kwargs)
    env = gym.make("PixelReason-Mixed-v0", **env_kwargs)
    looked = [t for t in made if t.num_operations and t.needs_operation]
    for trajectory in looked:
        reading = read(trajectory, env)
        assert reading.outcome == "right", trajectory
        assert reading.corrected == (trajectory.kind not in ("single", "zoom_further"))
        assert not made_up(trajectory.turns[-1].action, *replayed_looks(trajectory, env)), trajectory
    assert len(looked) > 20 and isinstance(env.unwrapped.task.media, DrawnSource)  # type: ignore[attr-defined]
