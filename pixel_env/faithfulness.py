"""Does a policy use what it asked to see? Measures beside accuracy, from trajectories and the ground truth of tasks.

A right answer does not show that the operations led to it. Here is measured whether they showed the evidence (the cue),
how often a task was answered without an operation, and, with a second run in which operations show grey
or another task's pixels (`pixel_env.counterfactual`), what their pixels were worth.

A cue is one box: where a question compares two things (the relative positions of V*Bench), it spans both, and two good
crops, one of each, meet it only in part.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import gymnasium as gym

from pixel_env.evaluation import Interval, mean_interval, paired_difference
from pixel_env.media import Box
from pixel_env.operations import View
from pixel_env.tasks import Cue
from pixel_env.trajectory import Trajectory, cue_coverage, digest


@dataclass(frozen=True)
class Call:
    """One operation that succeeded, against the cue. Shares are in [0, 1].

    Attributes:
        whole_cue: it showed all of the evidence: the cue's box, in each of the cue's frames.
        coverage: of a crop, the share of the cue's box inside it, 0 in a frame without the cue; None without a box.
        iou: of a crop, intersection over union with the cue's box, likewise.
        cue_frames: of a selection, the share of its frames that are frames of the cue; None for a crop.
    """

    whole_cue: bool
    coverage: float | None = None
    iou: float | None = None
    cue_frames: float | None = None


@dataclass(frozen=True)
class Faithfulness:
    """The measures of a set of trajectories; None where nothing could be counted.

    Means over the calls (or episodes) of each question, then over questions, with an interval. Calls that failed showed
    nothing and are left to `evaluation`'s error rate; episodes that broke off enter nothing.

    Attributes:
        episodes: finished episodes.
        calls: operations that succeeded, on tasks with a known cue.
        crop_coverage: share of the cue's box inside a crop.
        crop_iou: intersection over union of a crop and the cue's box: below 1 also for crops that are too large.
        whole_cue_rate: share of calls that show the whole cue.
        cue_frame_rate: share of selected frames that are frames of the cue.
        answered_without_looking: of the episodes with an answer, the share without an operation that succeeded,
            whether or not the task is known to need one.
        right_without_looking: of the episodes on tasks that need an operation, the share right without one that
            succeeded: guesses, or answers that the first view should not have allowed.
    """

    episodes: int
    calls: int
    crop_coverage: Interval | None
    crop_iou: Interval | None
    whole_cue_rate: Interval | None
    cue_frame_rate: Interval | None
    answered_without_looking: Interval | None
    right_without_looking: Interval | None


def faithfulness(trajectories: Iterable[Trajectory], env: gym.Env[Any, str], seed: int = 0) -> Faithfulness:
    """Measure how operations met the cues.

    Trajectories hold no views; the environment gives them back by playing the actions again. Operations of episodes in
    which a function of one's own made a picture are left out: what of the evidence these showed is unknown.

    Args:
        trajectories: any number of episodes a task.
        env: an environment that replays them: made with the same tasks and keyword arguments.
        seed: of the bootstrap.

    Raises:
        ValueError: if the environment shows other pictures than the trajectories say.
    """
    done = [trajectory for trajectory in trajectories if trajectory.error is None]
    cued = [trajectory for trajectory in done if trajectory.cue_coverage is not None]
    made = [(trajectory.question, call) for trajectory in cued for call in calls(trajectory, env)]
    answered = [(t.question, float(not t.used_operation)) for t in done if t.answer is not None]
    unseen = [
        (trajectory.question, float(trajectory.correct and not trajectory.used_operation))
        for trajectory in done
        if trajectory.needs_operation
    ]

    def over_calls(name: str) -> Interval | None:
        return _over_questions([(question, getattr(call, name)) for question, call in made], seed)

    return Faithfulness(
        episodes=len(done),
        calls=len(made),
        crop_coverage=over_calls("coverage"),
        crop_iou=over_calls("iou"),
        whole_cue_rate=over_calls("whole_cue"),
        cue_frame_rate=over_calls("cue_frames"),
        answered_without_looking=_over_questions(answered, seed),
        right_without_looking=_over_questions(unseen, seed),
    )


def calls(trajectory: Trajectory, env: gym.Env[Any, str]) -> list[Call]:
    """Return the operations of an episode that succeeded, in order; none of a task without a known cue.

    Pictures that a function of one's own made are left out: what of the evidence they show is unknown.

    Args:
        trajectory: what to play again.
        env: an environment that replays it.

    Raises:
        ValueError: if the environment shows other pictures than the trajectory says.
    """
    env.reset(seed=trajectory.seed, options={"task": trajectory.task_id})
    cue: Cue | None = env.unwrapped.task.cue  # type: ignore[attr-defined]
    found = []
    for turn in trajectory.turns:
        observation, _, _, _, info = env.step(turn.action)
        if tuple(map(digest, observation["images"])) != turn.image_digests:
            raise ValueError(
                f"expected an environment that replays task {trajectory.task_id}, got other pictures; make it with "
                f"the tasks and the keyword arguments of the trajectory: {trajectory.env_kwargs}"
            )
        if cue is not None and info["views"] and info["views"][0].made is None:
            found.append(_call(info["operation"], cue, info["views"]))
    return found


def effect_of_views(
    normal: Iterable[Trajectory], counterfactual: Iterable[Trajectory], seed: int = 0
) -> tuple[float, float, float]:
    """Return the mean score that the pixels of operations are worth, and its 95% interval (paired, over tasks).

    Near 0 means that the policy answers as well when its operations show nothing of what it asked for.

    Args:
        normal: trajectories of a policy, `counterfactual="none"`.
        counterfactual: trajectories of the same policy on the same tasks, with another `counterfactual`.
        seed: of the bootstrap.

    Returns:
        (mean, low, high) of normal minus counterfactual.

    Raises:
        ValueError: if the runs are not one of each kind, or not of the same tasks.
    """
    normal, counterfactual = list(normal), list(counterfactual)
    kinds = [{t.env_kwargs.get("counterfactual", "none") for t in run} for run in (normal, counterfactual)]
    if kinds[0] != {"none"} or "none" in kinds[1]:
        raise ValueError(
            f"expected a normal run, then a counterfactual one, got counterfactual={sorted(kinds[0])} and "
            f"{sorted(kinds[1])}"
        )
    return paired_difference(normal, counterfactual, seed)


def _call(operation: str, cue: Cue, views: Sequence[View]) -> Call:
    whole = cue_coverage(cue, views) > 1 - 1e-9
    if operation == "select_frames":
        return Call(whole, cue_frames=fmean(view.frame in cue.frames for view in views) if cue.frames else None)
    if cue.box is None:
        return Call(whole)
    [crop] = views
    if cue.frames and crop.frame not in cue.frames:
        return Call(whole, 0.0, 0.0)
    shared = _area(_intersection(cue.box, crop.region))
    area = _area(cue.box)
    return Call(whole, shared / area, shared / (area + _area(crop.region) - shared))


def _intersection(a: Box, b: Box) -> Box:
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _over_questions(values: Iterable[tuple[tuple[str, str], float | None]], seed: int) -> Interval | None:
    by_question: dict[tuple[str, str], list[float]] = defaultdict(list)
    for question, value in values:
        if value is not None:
            by_question[question].append(float(value))
    return mean_interval([fmean(group) for group in by_question.values()], seed) if by_question else None
