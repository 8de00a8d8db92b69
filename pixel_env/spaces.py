"""The spaces of the environment: text that a policy writes, text that it reads, and lists of images.

Gymnasium's ``Text`` accepts a fixed alphabet and a language model writes any Unicode, so both text spaces contain every
``str``. How observations travel between processes is in :mod:`pixel_env.shared_memory`.
"""

import math
import string
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Space, Text
from numpy.typing import NDArray

from pixel_env import json_schema
from pixel_env.actions import Answer, CropImage, SelectFrames, render, tagged
from pixel_env.settings import ViewSettings

Images = tuple[NDArray[np.uint8], ...]

JUNK = (
    "",
    "Let me think about it.",
    "Ünïcödé 图像 \U0001f50d",
    "<tool_call>{",
    "<tool_call></tool_call>",
    '<tool_call>{"name": "zoom", "arguments": {}}</tool_call>',
    '<tool_call>{"name": "crop_image", "arguments": {"bbox_2d": [1, 2, 3], "target_image": 1}}</tool_call>',
    "crop_image([5, 5, 5, 5])",
    "crop_image([9, 9, 1, 1])",
    "crop_image([NaN, 0, 1, 1])",
    "crop_image([0, 0, 1, 1], 0)",
    "select_frames([0])",
    "select_frames([])",
    "select_frames([2, 2])",
    "<image><|image_pad|><|im_end|>",
    "\\boxed{",
)
"""Turns of every kind that goes wrong, for :meth:`ActionText.sample`."""


class AnyText(Text):
    """Every ``str``; samples are short printable texts."""

    def __init__(self, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(max_length=64, min_length=0, charset=string.printable, seed=seed)

    def contains(self, x: Any) -> bool:
        """Return whether ``x`` is a ``str``, whatever its length and alphabet."""
        return isinstance(x, str)

    @property
    def is_np_flattenable(self) -> bool:
        """Return False: the alphabet is all of Unicode."""
        return False

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    __hash__ = None  # type: ignore[assignment]


class ActionText(AnyText):
    """What a policy may write in a turn: every ``str``; samples are calls, answers and junk.

    Args:
        extent: Boxes are drawn from 0 to this in both directions.
        decimals: Decimals of the numbers in boxes.
        num_frames: Frame numbers are drawn from 1 to this.
        max_selected_frames: Most frames in a drawn call.
        seed: Seed or generator for :meth:`sample`.
        custom: Schemas of functions of one's own; each is called as often as frames are selected.
    """

    def __init__(
        self,
        extent: float,
        decimals: int,
        num_frames: int,
        max_selected_frames: int,
        seed: int | np.random.Generator | None = None,
        custom: Sequence[json_schema.Schema] = (),
    ) -> None:
        self.extent, self.decimals = extent, decimals
        self.num_frames, self.max_selected_frames = num_frames, max_selected_frames
        self.custom = tuple(custom)
        super().__init__(seed)

    def sample(self, mask: None = None, probability: None = None) -> str:  # type: ignore[override]
        """Draw a turn: two of five are crops, one selects frames, one answers, one is junk; and calls of one's own.

        Args:
            mask: Not supported.
            probability: Not supported.
        """
        if mask is not None or probability is not None:
            raise ValueError("expected neither mask nor probability: a turn of text has no fixed set of choices")
        draw = self.np_random
        match kind := int(draw.integers(5 + len(self.custom))):
            case 0 | 1:
                low, high = np.sort(draw.uniform(0, self.extent, (2, 2)), axis=0).round(self.decimals).tolist()
                return render(CropImage((*low, *high), image=int(draw.integers(2))))
            case 2:
                count = int(draw.integers(1, min(self.num_frames, self.max_selected_frames) + 1))
                frames = np.sort(draw.choice(self.num_frames, count, replace=False))
                return render(SelectFrames(tuple(frames.tolist())))
            case 3:
                return render(Answer(str(draw.choice(["A", "B", "C", "D", "0", "3", "red", "X7K"]))))
            case 4:
                junk = int(draw.integers(len(JUNK) + 1))
                return JUNK[junk] if junk < len(JUNK) else super().sample()
            case _:
                function = self.custom[kind - 5]["function"]
                return tagged(function["name"], json_schema.draw(function["parameters"], draw))

    def __repr__(self) -> str:
        names = "".join(f", {schema['function']['name']}" for schema in self.custom)
        return f"ActionText({self.extent}, {self.decimals}, {self.num_frames}, {self.max_selected_frames}{names})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActionText) and repr(self) == repr(other) and self.custom == other.custom


class ImageList(Space[Images]):
    """Tuples of images (H, W, 3) uint8 of differing sizes, none included.

    Args:
        max_images: Most images in a tuple.
        max_pixels: Most pixels ``H * W`` of one image.
        max_total_pixels: Most pixels of all images of a tuple together.
        factor: H and W are multiples of this.
        seed: Seed or generator for :meth:`sample`.
    """

    def __init__(
        self,
        max_images: int,
        max_pixels: int,
        max_total_pixels: int,
        factor: int,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.max_images, self.max_pixels = max_images, max_pixels
        self.max_total_pixels, self.factor = max_total_pixels, factor
        super().__init__(dtype=np.uint8, seed=seed)

    def contains(self, x: Any) -> bool:
        """Return whether ``x`` is a tuple of images within all limits."""
        return (
            isinstance(x, tuple)
            and len(x) <= self.max_images
            and all(self._is_image(image) for image in x)
            and sum(image.shape[0] * image.shape[1] for image in x) <= self.max_total_pixels
        )

    def _is_image(self, image: Any) -> bool:
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            return False
        height, width, _ = image.shape
        sides_fit = height % self.factor == 0 and width % self.factor == 0
        return sides_fit and 0 < height * width <= self.max_pixels

    def sample(self, mask: None = None, probability: None = None) -> Images:
        """Draw zero or more images of noise.

        Args:
            mask: Not supported.
            probability: Not supported.
        """
        if mask is not None or probability is not None:
            raise ValueError("expected neither mask nor probability: images have no fixed set of choices")
        draw = self.np_random
        count = int(draw.integers(self.max_images + 1))
        cells = min(self.max_pixels, self.max_total_pixels // max(count, 1)) // self.factor**2
        side = max(1, math.isqrt(cells))
        shapes = draw.integers(1, side + 1, (count if cells else 0, 2)) * self.factor
        return tuple(draw.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in shapes.tolist())

    @property
    def is_np_flattenable(self) -> bool:
        """Return False: sizes differ."""
        return False

    def __repr__(self) -> str:
        return f"ImageList({self.max_images}, {self.max_pixels}, {self.max_total_pixels}, {self.factor})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageList) and repr(self) == repr(other)

    __hash__ = None  # type: ignore[assignment]


def image_space(settings: ViewSettings) -> ImageList:
    """Return the space of the images of one observation."""
    first_frames, selected = settings.num_frames * settings.factor**2, settings.max_selected_frames
    return ImageList(
        max_images=max(settings.num_frames, selected),
        max_pixels=max(settings.view_pixels, settings.crop_pixels),
        max_total_pixels=max(settings.view_pixels, first_frames, selected * settings.crop_pixels),
        factor=settings.factor,
    )


def action_space(settings: ViewSettings, custom: Sequence[json_schema.Schema] = ()) -> ActionText:
    """Return the space of turns; boxes are drawn for a square first view, what lies beyond exercises the errors."""
    side = math.isqrt(settings.view_pixels)
    extent, decimals = {"pixel": (side, 0), "fraction": (1, 3), "thousandth": (1000, 0)}[settings.coordinates]
    return ActionText(extent, decimals, settings.num_frames, settings.max_selected_frames, custom=custom)
