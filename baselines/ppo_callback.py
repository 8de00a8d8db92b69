"""What is logged and kept while PPO trains."""

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

from pixel_env.journal import replacing


class TrainingLog(BaseCallback):
    """A progress bar, checkpoints, and the mean of every figure over the episodes that ended since the last update.

    Figures are read from `info`, never from a shaped return: ``episode/accuracy``, ``rapr`` (share of episodes in which
    an operation succeeded), ``operations`` and ``errors`` (calls an episode, and those that failed), ``turns``, and
    each term of the reward as ``reward/NAME``.

    Args:
        folder: Where checkpoints go, named by the turns that were played.
        save_steps: Turns between checkpoints.
        steps: Turns of the whole run.
    """

    def __init__(self, folder: Path, save_steps: int, steps: int) -> None:
        super().__init__()
        self._folder, self._save_steps, self._steps = folder, save_steps, steps
        self._figures: defaultdict[str, list[float]] = defaultdict(list)

    def _on_training_start(self) -> None:
        self._saved, self._since = self.model.num_timesteps, time.monotonic()
        self._turns = [0] * self.training_env.num_envs
        self._bar = tqdm(total=self._steps, initial=self._saved, desc="train", unit="turn")

    def _on_rollout_start(self) -> None:
        # Here the weights are those after an update; while a rollout is collected they are not yet paid for it.
        if self.model.num_timesteps - self._saved >= self._save_steps:
            self.save()

    def _on_step(self) -> bool:
        for k, (done, info) in enumerate(zip(self.locals["dones"], self.locals["infos"], strict=True)):
            self._turns[k] += 1
            if done:
                self._add(info, self._turns[k])
                self._turns[k] = 0
        self._bar.update(min(self.training_env.num_envs, self._bar.total - self._bar.n))
        return True

    def _add(self, info: dict[str, Any], turns: int) -> None:
        figures = {
            "episode/accuracy": info["correct"],
            "episode/rapr": info["num_operations"] > info["num_errors"],
            "episode/operations": info["num_operations"],
            "episode/errors": info["num_errors"],
            "episode/turns": turns,
            **{f"reward/{name}": term for name, term in info["reward_terms"].items()},
        }
        for name, value in figures.items():
            self._figures[name].append(float(value))

    def _on_rollout_end(self) -> None:
        for name, values in self._figures.items():
            self.logger.record(name, float(np.mean(values)))
        if shown := self._figures["episode/accuracy"]:
            self._bar.set_postfix(
                accuracy=f"{np.mean(shown):.2f}", rapr=f"{np.mean(self._figures['episode/rapr']):.2f}"
            )
        self._figures.clear()

    def _on_training_end(self) -> None:
        self.logger.dump(self.model.num_timesteps)  # what the last update logged
        self._bar.close()

    def save(self) -> None:
        """Write a checkpoint."""
        self._saved = self.model.num_timesteps
        self._since = save_model(self.model, self._folder, "PPO", self._since)


def save_model(model: BaseAlgorithm, folder: Path, stage: str, since: float) -> float:
    """Write a checkpoint, named by the turns that were played; a kill leaves no half of it.

    Args:
        model: Its `seconds`, by stage, are kept with it.
        folder: Where it goes.
        stage: Trained since it was last saved.
        since: When that was, by the monotonic clock.

    Returns:
        Now, by that clock.
    """
    now, seconds = time.monotonic(), getattr(model, "seconds", {})
    model.seconds = seconds | {stage: seconds.get(stage, 0.0) + now - since}
    with replacing(folder / f"{model.num_timesteps:010d}.zip") as part:
        model.save(part)
    return now
