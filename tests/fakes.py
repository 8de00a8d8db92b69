"""Small sources and tasks whose every pixel is known."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from pixel_env.tasks import Task
from pixel_env.tasks.task import TaskList


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Frames held in memory: one array (H, W, 3) uint8 a frame, half a second apart."""

    frames: tuple[np.ndarray, ...]

    @property
    def kind(self) -> str:
        return "image" if len(self.frames) == 1 else "video"

    @property
    def width(self) -> int:
        return self.frames[0].shape[1]

    @property
    def height(self) -> int:
        return self.frames[0].shape[0]

    @property
    def num_frames(self) -> int:
        return len(self.frames)

    def frame(self, index: int) -> Image.Image:
        return Image.fromarray(self.frames[index])

    def timestamp(self, index: int) -> float:
        return index * 0.5


def checkerboard(width: int, height: int) -> np.ndarray:
    """Black and white pixels in turn: grey when shrunken, black and white at full resolution."""
    y, x = np.mgrid[:height, :width]
    return np.repeat((((x + y) % 2) * 255)[..., None], 3, axis=2).astype(np.uint8)


def ramp(width: int, height: int) -> np.ndarray:
    """Red grows with x and green with y, both 0 to 255 over the picture."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.linspace(0, 255, width)[None, :]
    picture[..., 1] = np.linspace(0, 255, height)[:, None]
    return picture


def image_task(picture: np.ndarray | None = None, **changes: object) -> Task:
    """A choice task about an image, option (B) right."""
    source = ArraySource((ramp(448, 448) if picture is None else picture,))
    fields = dict(
        task_id="image-0", suite="search", question="Which one?", media=source, answers=("blue",), answer_kind="choice",
        choices=("red", "blue"),
    )  # fmt: skip
    return Task(**(fields | changes))  # type: ignore[arg-type]


def video_task(num_frames: int = 16, **changes: object) -> Task:
    """A number task about a video whose frame i is uniformly 10 * i bright, answer 3."""
    frames = tuple(np.full((336, 448, 3), 10 * index % 256, np.uint8) for index in range(num_frames))
    fields = dict(
        task_id="video-0", suite="clip", question="How many?", media=ArraySource(frames), answers=("3",),
        answer_kind="number",
    )  # fmt: skip
    return Task(**(fields | changes))  # type: ignore[arg-type]


def tasks(*items: Task) -> TaskList:
    """A task set of these tasks."""
    return TaskList(items)
