"""Textual demonstrations by rejection sampling: a policy's own answers, where they are right and took no operation.

As in the paper (arXiv 2505.15966, section 5), which takes them from the base model on easier questions.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agents.outcomes import Outcome, Record, fingerprint
from agents.players import Player
from agents.replies import Usage
from agents.taught import Stage
from pixel_env.rollout import Episode, Planned
from pixel_env.tasks import TaskSet
from pixel_env.trajectory import Trajectory


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled.

    Attributes:
        tries: Most episodes a task.
        batch: Tasks decided at a time; a kill costs at most these.
        seed: Of resets and sampling.
    """

    tries: int
    batch: int
    seed: int


def sample(
    player: Player,
    stage: Stage,
    source: str,
    indices: Sequence[int],
    wanted: int,
    keep: Callable[[Record], None],
    sampling: Sampling,
    env_kwargs: Mapping[str, Any],
    seen: set[str],
) -> int:
    """Sample until `wanted` tasks have a textual demonstration, or no task is left; returns how many have one.

    Args:
        player: Plays the policy.
        stage: Has the tasks.
        source: Name of their set.
        indices: Of the tasks that may be asked, in this order.
        wanted: Demonstrations, one a task.
        keep: Takes the record of each task that was asked.
        sampling: How.
        env_kwargs: For `gymnasium.make`.
        seen: Fingerprints that must not come again; those kept are added.
    """
    waiting, made = deque(indices), 0
    while waiting and made < wanted:
        batch = [waiting.popleft() for _ in range(min(sampling.batch, len(waiting)))]
        decided: dict[int, Trajectory] = {}
        for attempt in range(sampling.tries):
            open_ones = [index for index in batch if index not in decided or _reason(decided[index])]
            if not open_ones:
                break
            decided |= _round(player, stage.tasks, open_ones, attempt, sampling.seed, env_kwargs)
        for index in batch:
            if made == wanted:
                break
            record = _record(source, index, decided[index], seen)
            made += len(record.trajectories)
            keep(record)
    return made


def _round(
    player: Player, tasks: TaskSet, indices: Sequence[int], attempt: int, seed: int, env_kwargs: Mapping[str, Any]
) -> dict[int, Trajectory]:
    """Play each of some tasks once."""
    played: dict[int, Trajectory] = {}

    def take(place: int, episode: Episode) -> None:
        played[indices[place]] = episode.trajectory("textual")

    rng = np.random.default_rng([seed, attempt, indices[0]])
    planned = [Planned(index, attempt, int(rng.integers(2**31))) for index in indices]
    player.play(tasks, planned, take, int(rng.integers(2**31)), dict(env_kwargs))
    return played


def _reason(trajectory: Trajectory) -> str:
    """Return why an episode is no textual demonstration, "" if it is one."""
    if trajectory.error is not None:
        return "damaged" if trajectory.error.startswith("MediaError") else "no_reply"
    if not trajectory.scored:
        return "unsuited"
    if len(trajectory.turns) != 1 or not trajectory.terminated:
        return "looked"
    return "" if trajectory.correct else "wrong_answer"


def _record(source: str, index: int, trajectory: Trajectory, seen: set[str]) -> Record:
    mark, reason = fingerprint(trajectory), _reason(trajectory)
    if not reason and mark in seen:
        reason = "duplicate"
    if not reason:
        seen.add(mark)
    outcome = Outcome("textual", None if reason else trajectory, reason, trajectory.error or trajectory.answer or "")
    if not reason:
        outcome = replace(outcome, detail="")
    return Record("textual", source, index, trajectory.task_id, mark, Usage(), (outcome,))
