"""Both sides of the comparisons of `benchmarks/hot_paths.py`: environments, and what does the same without one."""

from pathlib import Path
from typing import Any

import av
import gymnasium as gym
from PIL import Image

import pixel_env  # noqa: F401  (registers the ids)
from pixel_env.media import Box, Source
from pixel_env.tasks import Task
from pixel_env.tasks.task import TaskList


def make(source: Source, **arguments: Any) -> gym.Env[Any, str]:
    """Make an environment with one task, about a source; an episode ends only when it is reset."""
    task = Task("hot", "hot", "What is it?", source, ("3",), "number")
    return gym.make("PixelReason-Mixed-v0", tasks=TaskList((task,)), max_turns=10**9, **arguments)


class Nothing(gym.Env[int, int]):
    """What Gymnasium itself costs: an environment that does nothing."""

    observation_space: gym.Space[Any] = gym.spaces.Discrete(1)
    action_space: gym.Space[Any] = gym.spaces.Discrete(1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Begin nothing."""
        super().reset(seed=seed)
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Do nothing."""
        return 0, 0.0, False, False, {}


def pillow(picture: Image.Image, size: tuple[int, int], box: Box | None = None) -> Image.Image:
    """Resize as Pillow itself does it, with the filter of the environment."""
    return picture.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)


def decoded(path: Path) -> Image.Image:
    """Decode all of a picture as it is commonly done."""
    with Image.open(path) as picture:
        return picture.convert("RGB")


def all_frames(path: Path, indices: list[int]) -> list[Image.Image]:
    """Decode all frames of a video one after the other and keep some."""
    with av.open(str(path)) as container:
        return [frame.to_image() for index, frame in enumerate(container.decode(video=0)) if index in indices]


def share_of(observation: dict[str, Any], part: float) -> str:
    """Return a call that crops the middle of the first image shown: this part of its width and height."""
    height, width, _ = observation["images"][0].shape
    x, y = width * (1 - part) / 2, height * (1 - part) / 2
    return f"crop_image([{x:.2f}, {y:.2f}, {width - x:.2f}, {height - y:.2f}])"


def hostile(characters: int) -> dict[str, str]:
    """Return texts of a length that readers of text take long for."""
    brackets = (
        "{",
        "{}",
        "\\boxed{",
        "\\boxed{}",
        "<tool_call>",
        "</tool_call>",
        "<tool_call></tool_call>",
        "<answer>",
    )
    words = ("crop_image([", "crop_image([])", "crop_image(", "select_frames([1])", "word ", "\ud800")
    repeated = {piece: piece * (characters // len(piece)) for piece in brackets + words}
    half = characters // 2
    return repeated | {
        "nested boxes": "\\boxed{" * (characters // 8) + "}" * (characters // 8),
        "{ then }": "{" * half + "}" * half,
        "emoji, of 4 bytes each in UTF-8": "\U0001f600" * characters,
    }
