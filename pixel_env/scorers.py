"""Which scorer decides: the strict rules of `grading`, or the verdicts of the release, in an episode or after it."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Literal

from pixel_env.equivalence import require
from pixel_env.grading import Grade, grade
from pixel_env.released_grading import grade_released
from pixel_env.rewards import correctness
from pixel_env.settings import one_of
from pixel_env.tasks import Task, TaskSet
from pixel_env.trajectory import Trajectory

Scorer = Literal["strict", "pixelreasoner_compat"]
SCORERS: tuple[Scorer, ...] = ("strict", "pixelreasoner_compat")


def check_scorer(scorer: str) -> None:
    """Raise ValueError for an unknown scorer, ImportError for one that needs math-verify where it is not installed."""
    one_of("scorer", scorer, SCORERS)
    if scorer == "pixelreasoner_compat":
        require()


def grade_episode(scorer: Scorer, task: Task, answer: str | None, actions: Sequence[str]) -> Grade | None:
    """Grade an episode that is over; None for a task without answers, and where the strict scorer has nothing to grade.

    Args:
        scorer: one of `SCORERS`.
        task: what was asked.
        answer: what stood in the box, None without one. The strict scorer reads nothing else.
        actions: everything the policy wrote. The released scorer reads all of it, also without an answer.
    """
    if not task.answers:
        return None
    if scorer == "pixelreasoner_compat":
        return grade_released(task, actions)
    return None if answer is None else grade(task, answer)


def regrade(trajectories: Iterable[Trajectory], tasks: TaskSet, scorer: Scorer) -> list[Trajectory]:
    """Return the trajectories as another scorer would have graded them, without running a policy or an environment.

    `correct`, `score`, `parse_failure`, the term "correctness" of the last turn, its reward (the sum of its terms) and
    the environment's keyword `scorer` change; so `replay` of the result is exact too. Episodes that broke off, or were
    not played to their end, keep their grades.

    Args:
        trajectories: any episodes of `tasks`.
        tasks: what they were played on.
        scorer: one of `SCORERS`.

    Raises:
        ValueError: for an unknown scorer, or a task that is not in the set.
        ImportError: if the scorer needs math-verify and it is not installed.
    """
    check_scorer(scorer)
    return [_regraded(trajectory, tasks, scorer) for trajectory in trajectories]


def _regraded(trajectory: Trajectory, tasks: TaskSet, scorer: Scorer) -> Trajectory:
    renamed = dataclasses.replace(trajectory, env_kwargs=trajectory.env_kwargs | {"scorer": scorer})
    if trajectory.error is not None or not (trajectory.terminated or trajectory.truncated):
        return renamed
    task = tasks[tasks.index(trajectory.task_id)]
    verdict = grade_episode(scorer, task, trajectory.answer, [turn.action for turn in trajectory.turns])
    verdict = verdict or Grade(correct=False, score=0.0, parse_failure=False)
    last = trajectory.turns[-1]
    terms = last.reward_terms | {"correctness": correctness(verdict.correct)}
    last = dataclasses.replace(last, reward_terms=terms, reward=sum(terms.values()))
    return dataclasses.replace(
        renamed,
        turns=(*trajectory.turns[:-1], last),
        correct=verdict.correct,
        score=verdict.score,
        parse_failure=verdict.parse_failure,
    )
