"""Why an answer is wrong: each test episode gets one outcome, decided from its actions and the evidence of its task.

The paper names two ways to fail after an operation that did not work (arXiv 2505.15966v3, appendix D.2): its result is
made up, or it is ignored and the answer comes from the text. Here these and the ways to fail with operations that did
work are counted. Views are drawn again by replay; what a policy claims to see is read in the words that the
demonstrations teach, and compared with the list of what is drawn. A policy that says it in other words is not caught
making things up, except where it speaks of an image that does not exist.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from agents.reasons import Thing, things
from pixel_env.operations import View
from pixel_env.tasks import Cue, DrawnSource
from pixel_env.tasks.drawing import COLOUR_NAMES
from pixel_env.trajectory import Trajectory, cue_coverage

OUTCOMES: dict[str, str] = {
    "right": "answered right",
    "no_answer": "gave no answer before its turns or tokens ran out",
    "no_look": "answered wrong without calling an operation",
    "wrong_answer": "looked right and answered wrong: an operation showed the evidence",
    "hallucinated": "no operation showed the evidence, and the answer rests on content that none of them showed",
    "ignored_error": "no operation showed the evidence, the last one failed, and the answer came all the same",
    "wrong_place": "no operation showed the evidence: looked at the wrong place and answered",
}
"""Every outcome; the first that fits counts, in this order."""

_WHOLE = 1 - 1e-9

# What the demonstrations say of a view: agents/expert.py and agents/reasons.py.
_SAYS = re.compile(r"\b[Tt]he ([\w ]+?) says (\w+)")
_DOTS = re.compile(r"\b[Tt]he ([\w ]+?) has (\d+(?: black, \d+ white)?) dots")
_SHOWN = re.compile(r"(?:(?<!not )\bshows?|\bThis is) the ([\w ]+)")
_IMAGE = re.compile(r"\b[Ii]mage (\d{1,4})\b")


@dataclass(frozen=True)
class Look:
    """One operation that was called.

    Attributes:
        failed: It showed nothing.
        found: It showed the evidence, see `found`.
        seen: What is drawn in the views that it showed; None where that is not known: in a source from a file.
    """

    failed: bool
    found: bool
    seen: tuple[Thing, ...] | None = ()


@dataclass(frozen=True)
class Reading:
    """A test episode, reduced to what is counted.

    Attributes:
        suite: Of the task.
        task_id: The task; with the suite it tells tasks apart.
        score: Its metric.
        used: An operation succeeded.
        needed: The first view is not enough.
        operations: Called.
        errors: Of these failed.
        first: What the first operation gave: "found" the evidence, "missed" it, "failed"; "" without one.
        corrected: The first one did not show the evidence, a later one did.
        outcome: A key of `OUTCOMES`; "" for a task that needs no operation, or whose evidence is not known.
    """

    suite: str
    task_id: str
    score: float
    used: bool
    needed: bool
    operations: int
    errors: int
    first: str
    corrected: bool
    outcome: str


def read(trajectory: Trajectory, env: gym.Env[Any, str]) -> Reading:
    """Reduce an episode to what is counted.

    Args:
        trajectory: An episode without an error.
        env: An environment that replays it: made with the same tasks and keyword arguments.
    """
    looks, images = replayed_looks(trajectory, env)
    task = env.unwrapped.task  # type: ignore[attr-defined]
    counts = bool(trajectory.needs_operation) and task.cue is not None
    first = looks[0] if counts and looks else None
    return Reading(
        suite=trajectory.suite,
        task_id=trajectory.task_id,
        score=trajectory.score,
        used=trajectory.used_operation,
        needed=bool(trajectory.needs_operation),
        operations=trajectory.num_operations,
        errors=trajectory.num_errors,
        first="" if first is None else "failed" if first.failed else "found" if first.found else "missed",
        corrected=first is not None and not first.found and any(look.found for look in looks[1:]),
        outcome=outcome(trajectory, looks, images) if counts else "",
    )


def replayed_looks(trajectory: Trajectory, env: gym.Env[Any, str]) -> tuple[list[Look], int]:
    """Play an episode again; returns its operations in order, and how many images were shown in all."""
    env.reset(seed=trajectory.seed, options={"task": trajectory.task_id})
    bare: Any = env.unwrapped
    cue: Cue | None = bare.task.cue
    looks = []
    for turn in trajectory.turns:
        *_, info = env.step(turn.action)
        views = info["views"]
        if turn.operation or turn.operation_error:
            hit = cue is not None and found(cue, views)
            looks.append(Look(turn.operation_error is not None, hit, _seen(bare.task.media, views) if views else ()))
    return looks, len(bare.shown)


def found(cue: Cue, views: Iterable[View]) -> bool:
    """Whether views show the evidence: the whole of its box; of a video, in one of its frames at least.

    Whether it is large enough to be read is not asked. Of several frames one is enough, since an event that lasts is
    shown by each; where two events are compared, that is lenient.
    """
    shown = list(views)
    return any(cue_coverage(Cue(cue.box, (frame,)), shown) > _WHOLE for frame in cue.frames or (0,))


def _seen(source: Any, views: Iterable[View]) -> tuple[Thing, ...] | None:
    """Things whose middle lies in a view."""
    if not isinstance(source, DrawnSource):
        return None
    return tuple(
        thing
        for view in views
        for thing in things(source.canvases[view.frame])
        if view.region[0] <= thing.centre[0] < view.region[2] and view.region[1] <= thing.centre[1] < view.region[3]
    )


def outcome(trajectory: Trajectory, looks: list[Look], images: int) -> str:
    """Return the outcome of an episode on a task that needs an operation.

    Args:
        trajectory: The episode.
        looks: Its operations, in order.
        images: How many images it was shown, the first ones included.
    """
    if trajectory.answer is None:
        return "no_answer"
    if trajectory.correct:
        return "right"
    if not looks:
        return "no_look"
    if any(look.found for look in looks):
        return "wrong_answer"
    if made_up(trajectory.turns[-1].action, looks, images):
        return "hallucinated"
    return "ignored_error" if looks[-1].failed else "wrong_place"


def made_up(text: str, looks: list[Look], images: int) -> bool:
    """Whether the last turn claims what no operation showed.

    It does if it speaks of an image that does not exist; if it states what is written or counted ("the red cross says
    7", "the blue tray has 3 dots") and that is on nothing that was shown; and, where it states nothing of the kind, if
    it claims to be shown things ("image 2 shows the red cross") of which none was. A policy that takes the 7 on a blue
    ring for that on a red cross has looked at the wrong place, and has made up nothing.

    Args:
        text: The turn with the answer.
        looks: The operations before it.
        images: How many images there were.
    """
    if any(int(number) > images for number in _IMAGE.findall(text)):
        return True
    if any(look.seen is None for look in looks):
        return False  # nothing to compare with
    seen = [thing for look in looks for thing in look.seen or ()]
    if stated := {value for pattern in (_SAYS, _DOTS) for _, value in pattern.findall(text)}:
        return not stated <= {value for thing in seen for value in _values(thing)}
    names = [name for claim in _SHOWN.findall(text) for name in claim.split(" and the ")]
    claimed = [
        name for name in names if name.split()[0] in COLOUR_NAMES
    ]  # what goes by its place has another name, too
    return bool(claimed) and not any(thing.name.endswith(name) for name in claimed for thing in seen)


def _values(thing: Thing) -> set[str]:
    """What can be stated of a thing."""
    if thing.dots is None:
        return {thing.text}
    black, white = thing.dots
    return {str(black + white), f"{black} black, {white} white"}
