"""What an episode showed: a trajectory holds no pixels, so its actions are played again and the pictures kept.

Whatever is wrong with a record (its task set is not here, its file cannot be decoded, it was edited) becomes a note
beside what could be made: a record is shown as far as it goes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

from pixel_env.custom_operations import Operation
from pixel_env.media import Box, Source
from pixel_env.operations import View
from pixel_env.tasks import Cue, Task
from pixel_env.trajectory import Trajectory, cue_coverage, digest, made_as

SHEET = 896
"""Longest side in pixels of the picture that stands for a source: sources of the micro preset keep their size."""


@dataclass(frozen=True)
class Shot:
    """A view as it was shown.

    Attributes:
        view: where it comes from.
        image: (H, W, 3) uint8.
    """

    view: View
    image: np.ndarray


@dataclass(frozen=True)
class Sheet:
    """The picture that stands for a source: the image, or the frames shown first side by side.

    Attributes:
        picture: RGB, no side longer than `SHEET`.
        frames: source frame (0-based) of each cell, row by row.
        columns: cells in a row.
        source: (width, height) of the source in pixels.
    """

    picture: Image.Image
    frames: tuple[int, ...]
    columns: int
    source: tuple[int, int]

    @property
    def cell(self) -> tuple[float, float]:
        """(width, height) of a cell in pixels of the picture."""
        rows = math.ceil(len(self.frames) / self.columns)
        return self.picture.width / self.columns, self.picture.height / rows

    def box(self, frame: int, region: Box | None = None) -> Box | None:
        """Return where a region of a source frame (source pixels; by default all of it) lies on the picture.

        None for a frame that has no cell.
        """
        if frame not in self.frames:
            return None
        row, column = divmod(self.frames.index(frame), self.columns)
        x1, y1, x2, y2 = region or (0, 0, *self.source)
        x, y = self.cell[0] / self.source[0], self.cell[1] / self.source[1]
        left, top = column * self.cell[0], row * self.cell[1]
        return left + x1 * x, top + y1 * y, left + x2 * x, top + y2 * y


@dataclass
class Playback:
    """As much of an episode as could be played again.

    Attributes:
        task: None where the task was not found.
        sheet: None where the source could not be shown.
        shots: the views of each observation, the first one included; fewer than the record has if playing failed.
        problem: why something is missing or may differ from what the policy saw, else "".
    """

    task: Task | None = None
    sheet: Sheet | None = None
    shots: list[tuple[Shot, ...]] = field(default_factory=list)
    problem: str = ""


class Player:
    """Plays trajectories again, each in an environment made as its own was; equal ones share one."""

    def __init__(self, env: gym.Env[Any, str] | None = None, operations: Sequence[Operation] = ()) -> None:
        """Play everything in `env`, if it is given; closing it stays with the caller.

        Else `operations` are what records, which hold only names, call by theirs.
        """
        self._env, self._operations = env, {operation.name: operation for operation in operations}
        self._made: dict[str, gym.Env[Any, str]] = {}

    def play(self, trajectory: Trajectory) -> Playback:
        """Play a trajectory as far as possible; raises nothing for what a record may hold."""
        playback = Playback()
        try:
            bare: Any = self._environment(trajectory).unwrapped
            playback.task = bare.tasks[bare.tasks.index(trajectory.task_id)]
            _play(trajectory, bare, playback)
        except Exception as error:  # files, task sets and records of all kinds: what goes wrong is shown
            playback.problem = f"cannot be played again: {_said(error)}"
        return playback

    def close(self) -> None:
        """Close the environments that were made here."""
        for env in self._made.values():
            env.close()

    def _environment(self, trajectory: Trajectory) -> gym.Env[Any, str]:
        if self._env is not None:
            return self._env
        key = repr((trajectory.env_id, sorted(trajectory.env_kwargs.items())))
        if key not in self._made:
            self._made[key] = made_as(trajectory, self._operations)
        return self._made[key]


def coverage(cue: Cue | None, views: Sequence[View]) -> float | None:
    """Return the share in [0, 1] of the evidence that views show: of its box, in the frame that shows most of it.

    None without a cue, and of pictures that a function of one's own made. One frame of an event is enough, as in
    `benchmarks/failure_modes.py`.
    """
    if cue is None or any(view.made is not None for view in views):
        return None
    return max(cue_coverage(Cue(cue.box, (frame,)), views) for frame in cue.frames or (0,))


def _play(trajectory: Trajectory, bare: Any, playback: Playback) -> None:
    """Play in a `PixelReasonEnv` and fill `playback` step by step, so that a failure leaves what came before."""
    observation, info = bare.reset(seed=trajectory.seed, options={"task": trajectory.task_id})
    playback.shots.append(_shots(observation, info))
    playback.sheet = sheet(bare.task.media, [shot.view.frame for shot in playback.shots[0]])
    for turn in trajectory.turns:
        observation, _, _, _, info = bare.step(turn.action)
        playback.shots.append(_shots(observation, info))
    recorded = [trajectory.first_digests, *(turn.image_digests for turn in trajectory.turns)]
    if [tuple(digest(shot.image) for shot in shots) for shots in playback.shots] != recorded:
        playback.problem = "these are not what the policy saw: the task set or the version of the environment differs"


def _shots(observation: dict[str, Any], info: dict[str, Any]) -> tuple[Shot, ...]:
    return tuple(Shot(*pair) for pair in zip(info["views"], observation["images"], strict=True))


def sheet(source: Source, frames: Sequence[int]) -> Sheet:
    """Draw the picture that stands for a source.

    Args:
        source: an image or a video.
        frames: which frames to show, 0-based.
    """
    columns = math.ceil(math.sqrt(len(frames)))
    rows = math.ceil(len(frames) / columns)
    scale = min(1.0, SHEET / max(columns * source.width, rows * source.height))
    size = max(1, round(source.width * scale)), max(1, round(source.height * scale))
    picture = Image.new("RGB", (columns * size[0], rows * size[1]), (127, 127, 127))
    for position, frame in enumerate(frames):
        small = source.frame(frame).convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
        picture.paste(small, (position % columns * size[0], position // columns * size[1]))
    return Sheet(picture, tuple(frames), columns, (source.width, source.height))


def _said(error: Exception) -> str:
    """One line of at most 300 characters: messages may quote whole files."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else text[:297] + "..."
