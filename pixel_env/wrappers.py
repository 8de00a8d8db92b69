"""Reward terms of an episode, groups of one task, and records of episodes.

A wrapper sees one episode at a time, so the rate of pixel-space reasoning of a group can only be estimated here; the
trainer computes it over the whole group. Both call the functions of :mod:`pixel_env.rewards`.
"""

from collections import defaultdict, deque
from functools import partial
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs

from pixel_env.env import Observation, PixelReasonEnv
from pixel_env.journal import append
from pixel_env.rewards import Variant, curiosity, curiosity_released, operation_penalty, rapr
from pixel_env.settings import at_least, one_of, within
from pixel_env.trajectory import Recorder

Step = tuple[Observation, float, bool, bool, dict[str, Any]]
Env = gym.Env[Observation, str]
Wrapper = gym.Wrapper[Observation, str, Observation, str]


class OperationPenalty(Wrapper, RecordConstructorArgs):
    """Add ``beta * min(N - n_vo, 0)`` at the end of an episode, ``n_vo`` counting failed operations too.

    Args:
        env: Environment to wrap.
        beta: Price of an operation beyond ``limit``; by default that of the environment.
        limit: N, operations that are free; by default that of the environment.
    """

    def __init__(self, env: Env, beta: float | None = None, limit: int | None = None) -> None:
        RecordConstructorArgs.__init__(self, **_given(beta=beta, limit=limit))
        gym.Wrapper.__init__(self, env)
        settings = _bare(env).reward_settings
        self.beta = settings.beta if beta is None else beta
        self.limit = settings.limit if limit is None else limit
        within("beta", self.beta, 0, float("inf"))
        at_least("limit", self.limit, 0)

    def step(self, action: str) -> Step:
        """Take a turn; the last one carries the penalty."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        penalty = 0.0
        if terminated or truncated:
            penalty = float(operation_penalty(info["num_operations"], self.beta, self.limit))
        return observation, *_add_term(reward, terminated, truncated, info, "operation_penalty", penalty)


class CuriosityReward(Wrapper, RecordConstructorArgs):
    """Add ``alpha * max(H - RaPR, 0)`` at the end of an episode that used an operation; set ``info["rapr"]``.

    RaPR, the rate of pixel-space reasoning, is estimated over the last ``group_size`` episodes of the same task, this
    one included. With :class:`RepeatTask` it is the paper's at the last episode of each group and an estimate before.
    Where a task seldom comes twice, an episode is its own group and earns nothing: take ``over="all"`` there.
    A seeded reset forgets all episodes.

    Args:
        env: Environment to wrap.
        alpha: Weight; by default that of the environment. Without effect on the released variant.
        threshold: H, the wanted rate; by default that of the environment.
        variant: ``"paper"`` or ``"released"``; by default that of the environment.
        group_size: G, episodes that RaPR is taken over.
        over: ``"task"``, the last episodes of the same task, or ``"all"``, of any.
        count_failed: Whether an operation that failed counts as used, as in the release.
    """

    def __init__(
        self,
        env: Env,
        alpha: float | None = None,
        threshold: float | None = None,
        variant: Variant | None = None,
        group_size: int = 8,
        over: Literal["task", "all"] = "task",
        count_failed: bool = False,
    ) -> None:
        given = _given(alpha=alpha, threshold=threshold, variant=variant)
        RecordConstructorArgs.__init__(self, **given, group_size=group_size, over=over, count_failed=count_failed)
        gym.Wrapper.__init__(self, env)
        settings = _bare(env).reward_settings
        self.alpha = settings.alpha if alpha is None else alpha
        self.threshold = settings.threshold if threshold is None else threshold
        self.variant = settings.reward_variant if variant is None else variant
        self.group_size, self.over, self.count_failed = group_size, over, count_failed
        within("alpha", self.alpha, 0, float("inf"))
        within("threshold", self.threshold, 0, 1)
        one_of("variant", self.variant, ("paper", "released"))
        at_least("group_size", group_size, 1)
        one_of("over", over, ("task", "all"))
        self._clear()

    def _clear(self) -> None:
        self._used: defaultdict[str, deque[bool]] = defaultdict(partial(deque, maxlen=self.group_size))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; a seed also forgets all episodes so far."""
        if seed is not None:
            self._clear()
        return self.env.reset(seed=seed, options=options)

    def step(self, action: str) -> Step:
        """Take a turn; the last one carries the bonus."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        bonus = 0.0
        if terminated or truncated:
            bonus, rate = self._close_episode(info)
            info = info | {"rapr": rate}
        return observation, *_add_term(reward, terminated, truncated, info, "curiosity", bonus)

    def _close_episode(self, info: dict[str, Any]) -> tuple[float, float]:
        """Note whether this episode used an operation; return its bonus and the rate."""
        failed = 0 if self.count_failed else info["num_errors"]
        used = self._used[info["task_id"] if self.over == "task" else ""]
        used.append(info["num_operations"] > failed)
        if self.variant == "paper":
            bonuses = curiosity(used, self.alpha, self.threshold)
        else:
            is_video = _bare(self.env).task.media.kind == "video"
            bonuses = curiosity_released(used, is_video, self.threshold)
        return float(bonuses[-1]), rapr(used)


class RepeatTask(Wrapper, RecordConstructorArgs):
    """Play every task ``group_size`` times in a row. A seeded reset, or one that names a task, begins a new group.

    Args:
        env: Environment to wrap.
        group_size: G, episodes of one task.
    """

    def __init__(self, env: Env, group_size: int = 8) -> None:
        RecordConstructorArgs.__init__(self, group_size=group_size)
        gym.Wrapper.__init__(self, env)
        at_least("group_size", group_size, 1)
        self.group_size = group_size
        self._played = group_size
        self._task_id = ""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode of the same task, or of the next one after ``group_size`` episodes."""
        options = options or {}
        if seed is not None or options.get("task") is not None or self._played >= self.group_size:
            self._played = 0
        else:
            options = options | {"task": self._task_id}
        observation, info = self.env.reset(seed=seed, options=options)
        self._played += 1
        self._task_id = info["task_id"]
        return observation, info


class RecordTrajectories(Wrapper, RecordConstructorArgs):
    """Append every finished episode to a JSONL file as a trajectory, with the rewards of the wrappers inside this one.

    Args:
        env: Environment to wrap.
        path: File to append to; its folder must exist.
    """

    def __init__(self, env: Env, path: str | Path) -> None:
        RecordConstructorArgs.__init__(self, path=str(path))
        gym.Wrapper.__init__(self, env)
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise ValueError(f"expected path in an existing folder, got {str(path)!r}; make the folder first")
        self._recorder = Recorder(env)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; one that was not finished is dropped."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._recorder.begin(observation, info, seed)
        return observation, info

    def step(self, action: str) -> Step:
        """Take a turn; the last one writes the trajectory."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._recorder.add(action, observation, float(reward), terminated, truncated, info)
        if terminated or truncated:
            append(self.path, self._recorder.trajectory().to_json())
        return observation, float(reward), terminated, truncated, info


def _bare(env: Env) -> PixelReasonEnv:
    bare = env.unwrapped
    if not isinstance(bare, PixelReasonEnv):
        raise TypeError(f"expected a PixelReasonEnv inside, got {type(bare).__name__}")
    return bare


def _given(**arguments: Any) -> dict[str, Any]:
    """Return the arguments that are not None, so that the spec of a wrapper holds only what was asked for."""
    return {name: value for name, value in arguments.items() if value is not None}


def _add_term(
    reward: Any, terminated: bool, truncated: bool, info: dict[str, Any], name: str, term: float
) -> tuple[float, bool, bool, dict[str, Any]]:
    terms = info["reward_terms"] | {name: term}
    return float(reward) + term, terminated, truncated, info | {"reward_terms": terms}
