"""Plays what `baselines/ppo.py` trained: the texts that its numbers stand for, in the environment of any policy."""

import dataclasses
from pathlib import Path
from typing import Any, Self

import gymnasium as gym
from tqdm import tqdm

from agents.players import ENV_ID
from baselines import ppo_settings
from baselines.ppo import adapted
from pixel_env.command_line import UsageError
from pixel_env.rollout import Episode, Keep, Planned
from pixel_env.tasks import TaskSet


class Played(gym.Wrapper[Any, Any, Any, Any]):
    """Looks like the environment that a run was trained in, and plays the episodes of another one.

    Which actions there are follows from the suites of the training, also where fewer of them are played.
    """

    def __init__(self, env: gym.Env[Any, str], episode: Episode) -> None:
        """Pass for `env`; `episode` is what is driven."""
        super().__init__(env)
        self.episode = episode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin the task of the options."""
        self.episode.reset((options or {})["task"], seed)
        return self.episode.conversation.observations[-1], {}

    def step(self, action: str) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a turn; what it is worth stands in the trajectory of the episode."""
        over = self.episode.step(action)
        return self.episode.conversation.observations[-1], 0.0, over, False, {}


class PPOPlayer:
    """Plays the newest checkpoint of a run, one episode at a time, always its likeliest action."""

    def __init__(self, run: Path) -> None:
        """Load a run folder.

        Raises:
            UsageError: It holds no run, or no checkpoint yet, or Stable-Baselines3 is missing.
        """
        self._run, self._settings = run, trained(run)
        saved = sorted((run / "checkpoints").glob("*.zip"))  # names have leading zeros
        if not saved:
            raise UsageError(f"{run} has no checkpoint yet; train first: python baselines/ppo.py --resume --out {run}")
        try:
            from stable_baselines3 import PPO
        except ImportError as error:
            raise UsageError(f"cannot play with ppo here: {error}; pip install -e '.[baselines]'") from None
        self._checkpoint, self._model = saved[-1], PPO.load(saved[-1])

    def play(self, tasks: TaskSet, planned: list[Planned], keep: Keep, seed: int, env_kwargs: dict[str, Any]) -> None:
        """Play a plan; nothing is sampled.

        Raises:
            UsageError: On tasks that it has no answers for, or by other rules than it can play by.
        """
        suites = self._settings.suite
        asked = env_kwargs.get("suite", ["tasks of your own"])
        if not set(asked) <= set(suites):
            raise UsageError(
                f"{self._run} was trained on {', '.join(suites)} and has no answers for {', '.join(asked)}; "
                "leave them out"
            )
        episode = Episode(gym.make(ENV_ID, **env_kwargs))
        like = gym.make(ENV_ID, **env_kwargs | {"suite": list(suites)})
        try:
            env = adapted(Played(like, episode), self._settings)
        except ValueError as error:
            raise UsageError(f"{self._run} cannot be played like this: {error}") from None
        for index, one in enumerate(tqdm(planned, desc="rollout", unit="episode")):
            observation, _ = env.reset(seed=one.seed, options={"task": one.task})
            while not episode.done:
                action, _ = self._model.predict(observation, deterministic=True)
                observation, *_ = env.step(action)
            keep(index, episode)
        for made in (episode.env, like):
            made.close()

    def facts(self) -> dict[str, Any]:
        """Return what was trained, and how far."""
        settings = dataclasses.asdict(self._settings)
        return {"checkpoint": self._checkpoint.name, "turns": self._model.num_timesteps, "training": settings}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


def trained(run: Path) -> ppo_settings.Settings:
    """Return the settings of a run; raises UsageError where there is none."""
    return ppo_settings.parse(["--resume", "--out", str(run)], "")[0]
