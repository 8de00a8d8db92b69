"""What an evaluation plays: each entry of --tasks, opened, and its episodes planned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

import pixel_env  # noqa: F401  (registers the ids)
from agents.players import ENV_ID
from benchmarks.evaluation_settings import Settings
from pixel_env.command_line import UsageError
from pixel_env.env import PixelReasonEnv
from pixel_env.rollout import Planned
from pixel_env.tasks import SUITES, Task, TaskSet

SUITE_LIMIT = 256
"""Questions of a generated suite, unless --limit says otherwise."""

Key = tuple[str, int]
"""Task and seed of an episode: what tells episodes apart."""


@dataclass(frozen=True)
class Part:
    """One entry of --tasks.

    Attributes:
        label: Name of the set or suite.
        env_kwargs: Makes its environment.
        env: Its environment, without wrappers.
        planned: Every episode, the samples of a question beside each other.
        asked: The questions.
        stream: Seed of what the policy draws.
    """

    label: str
    env_kwargs: dict[str, Any]
    env: PixelReasonEnv
    planned: tuple[Planned, ...]
    asked: tuple[Task, ...]
    stream: int

    @property
    def tasks(self) -> TaskSet:
        """What the planned tasks are indices of."""
        return self.env.tasks

    @property
    def keys(self) -> list[Key]:
        """Key of each episode, in the order of the plan."""
        samples = len(self.planned) // len(self.asked)
        ids = [task.task_id for task in self.asked for _ in range(samples)]
        return [(task_id, one.seed) for task_id, one in zip(ids, self.planned, strict=True)]

    def batches(self, size: int) -> list[Sequence[tuple[Key, Planned]]]:
        """Cut the plan into batches of `size` episodes, the last one shorter."""
        plan = list(zip(self.keys, self.planned, strict=True))
        return [plan[start : start + size] for start in range(0, len(plan), size)]


def open_part(settings: Settings, tasks: str) -> Part:
    """Open one entry of --tasks and plan its episodes.

    Raises:
        UsageError: The set cannot be opened, or the environment refuses a setting.
    """
    env_kwargs = settings.env_kwargs(tasks)
    try:
        env: Any = gym.make(ENV_ID, **env_kwargs).unwrapped
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise UsageError(f"--tasks {tasks}: {str(error).splitlines()[0]}") from None
    count = len(env.tasks)
    limit = settings.limit or (SUITE_LIMIT if tasks in SUITES else count)
    chosen: list[int] = list(range(min(limit, count)))
    if tasks not in SUITES and limit < count:  # sets on disk are sorted, so the first ones are of one kind
        chosen = sorted(np.random.default_rng(settings.seed).choice(count, limit, replace=False).tolist())
    samples = range(settings.samples)
    planned = tuple(Planned(i, sample, _seed(settings.seed, i, sample)) for i in chosen for sample in samples)
    asked, label = tuple(env.tasks[index] for index in chosen), tasks.partition(":")[0]
    return Part(label, env_kwargs, env, planned, asked, _seed(settings.seed, *label.encode()))


def _seed(*numbers: int) -> int:
    return int(np.random.default_rng(numbers).integers(2**31))
