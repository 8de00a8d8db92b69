"""An episode that a person plays: one after the other, each kept as a trajectory when it is over.

What the page is told is read off the trajectory so far; every turn goes through `step` of the environment as text.
"""

import dataclasses
import io
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

from pixel_env.journal import append
from pixel_env.rollout import Episode
from pixel_env.tasks import Task
from pixel_env.trajectory import Trajectory

KIND = "human"
"""Kind of the trajectories."""

Json = dict[str, Any]


class Game:
    """Plays episodes of one environment and appends each to a file as soon as it is over.

    Attributes:
        number: Of the current episode, counted from 1.
        out: File of trajectories, one JSON object a line. It holds finished episodes only: one that is left before its
            end, or that broke off because its file could not be decoded, is not written.
        saved: The current episode is in the file.
        problem: Why it could not be written, else None; `save` tries again.
    """

    def __init__(self, env: gym.Env[Any, str], out: Path, seed: int = 0) -> None:
        """Begin the first episode; closing `env` stays with the caller.

        Args:
            env: A `PixelReasonEnv`, wrapped or not.
            out: File to append to.
            seed: Draws the tasks, and the seeds of the resets.
        """
        self._env, self._episode = env, Episode(env)
        self._rng = np.random.default_rng(seed)
        self.out, self.number = out, 0
        self.new()

    def new(self, task: int | str | None = None) -> None:
        """Begin an episode; what was not finished is dropped.

        Args:
            task: Index from 0 or id of the task; by default one is drawn.

        Raises:
            ValueError: There is no such task; the current episode goes on.
        """
        tasks: Any = self._env.get_wrapper_attr("tasks")
        if task is None:
            index = int(self._rng.integers(len(tasks)))
        else:
            index = tasks.index(task) if isinstance(task, str) else task
        if not 0 <= index < len(tasks):
            raise ValueError(f"expected a task from 0 to {len(tasks) - 1}, got {index}")
        # Every reset is seeded, so that replay gives the same rewards.
        self._episode.reset(index, seed=int(self._rng.integers(2**31)))
        self._task: Task = tasks[index]
        self._images: list[np.ndarray] = []
        if self._episode.error is None:
            self._images += self._episode.conversation.observations[0]["images"]
        self._num_first = len(self._images)
        self.number += 1
        self.saved = False
        self.problem: str | None = None

    @property
    def over(self) -> bool:
        """No turn is left in the current episode."""
        return self._episode.done

    @property
    def turn(self) -> int:
        """Turns taken in the current episode."""
        return len(self._episode.trajectory().turns)

    def step(self, action: str) -> None:
        """Take a turn; the last one also saves the episode.

        Raises:
            ValueError: The episode is over.
        """
        self._episode.step(action)
        if self._episode.error is None:
            self._images += self._episode.conversation.observations[-1]["images"]
            if self.over:
                self.save()

    def save(self) -> None:
        """Append the current episode to the file, once; what goes wrong is kept in `problem`, and nothing is lost.

        Raises:
            ValueError: The episode is not finished.
        """
        if not self.over or self._episode.error is not None:
            raise ValueError("expected a finished episode to save; answer, or use up the turns")
        if self.saved:
            return
        try:
            append(self.out, self.trajectory().to_json())
        except OSError as error:
            self.problem = f"{self.out}: {error.strerror}"
        else:
            self.saved, self.problem = True, None

    def trajectory(self) -> Trajectory:
        """Return the record so far. A warm start puts no loss on turns that went wrong."""
        record = self._episode.trajectory(KIND)
        turns = (
            dataclasses.replace(turn, trained=turn.operation_error is None and not turn.malformed)
            for turn in record.turns
        )
        return dataclasses.replace(record, turns=tuple(turns))

    def picture(self, number: int) -> bytes:
        """Return image `number` (counted from 1) of the current episode as PNG, every pixel as a policy sees it.

        Raises:
            ValueError: There is no such image.
        """
        if not 1 <= number <= len(self._images):
            raise ValueError(f"expected an image from 1 to {len(self._images)}, got {number}")
        buffer = io.BytesIO()
        Image.fromarray(self._images[number - 1]).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def state(self) -> Json:
        """Return what the page shows, as plain JSON; the right answer and the evidence only after the end.

        Images, frames and turns count from 1; sizes are in pixels.
        """
        record, task, settings = self.trajectory(), self._task, self._env.get_wrapper_attr("view_settings")
        return {
            "episode": self.number,
            "env": record.env_id,
            "task": {
                "id": task.task_id,
                "suite": task.suite,
                "level": task.level,
                "question": task.question,
                "choices": list(task.choices),
            },
            "instructions": record.instructions,
            "text": record.first_observation,
            "operations": list(self._env.get_wrapper_attr("operations")),
            "video": task.media.kind == "video",
            "max_selected_frames": settings.max_selected_frames,
            "num_first": self._num_first,
            "views": self._views(),
            "turns": [
                {
                    "action": turn.action,
                    "observation": turn.observation,
                    "reward": turn.reward,
                    "terms": turn.reward_terms,
                    "bad": turn.operation_error is not None or turn.malformed,
                }
                for turn in record.turns
            ],
            "turns_left": 0 if self.over else settings.max_turns - len(record.turns),
            "reward": record.episode_return,
            "error": record.error,
            "result": self._result(record) if self.over and record.error is None else None,
            "out": str(self.out),
            "saved": self.saved,
            "problem": self.problem,
        }

    def _views(self) -> list[Json]:
        """Describe every image shown, in the order of their numbers."""
        shown = self._env.get_wrapper_attr("shown")[: len(self._images)] if self._images else ()
        frames = [view.frame for view in shown[: self._num_first]]  # numbered as shown, not as in the file
        media = self._task.media
        of_video = [media.kind == "video" and view.made is None for view in shown]
        return [
            {
                "number": number,
                "width": view.size[0],
                "height": view.size[1],
                "frame": frames.index(view.frame) + 1 if is_frame else None,
                "seconds": round(media.timestamp(view.frame), 2) if is_frame else None,
            }
            for number, (view, is_frame) in enumerate(zip(shown, of_video, strict=True), start=1)
        ]

    def _result(self, record: Trajectory) -> Json:
        choices = self._task.choices
        letters = {choice: f"({chr(ord('A') + place)}) {choice}" for place, choice in enumerate(choices)}
        return {
            "scored": record.scored,
            "correct": record.correct,
            "score": record.score,
            "answer": record.answer,
            "unread": record.parse_failure,
            "right": [letters.get(answer, answer) for answer in self._task.answers],
            "coverage": record.cue_coverage,
        }
