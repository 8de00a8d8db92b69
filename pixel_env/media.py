"""Full-resolution images and videos, and the views cut from them.

A source is never shown: a policy sees views, regions of it resized into a pixel budget. Files are read through
:mod:`pixel_env.decoding`. This module knows nothing of tasks, actions or sentences.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from pixel_env.decoding import Frames, Sampling, decode, decode_image, decode_video

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in source pixels, half-open, origin at the top left."""

MAX_ENLARGEMENT = 4.0
"""A crop is enlarged at most this much: beyond it, pixels are spent on blur."""

MAX_ASPECT = 200
"""Qwen's smart_resize refuses a picture whose sides differ by more than this."""


class Source(Protocol):
    """The full-resolution picture or frames behind a task; hidden from policies."""

    @property
    def kind(self) -> str:
        """``"image"`` or ``"video"``."""

    @property
    def width(self) -> int:
        """Width in pixels."""

    @property
    def height(self) -> int:
        """Height in pixels."""

    @property
    def num_frames(self) -> int:
        """Number of frames, 1 for an image."""

    def frame(self, index: int) -> Image.Image:
        """Return frame ``index`` (0-based) as an RGB picture of (width, height)."""

    def timestamp(self, index: int) -> float:
        """Return the time of frame ``index`` (0-based) in seconds."""


def view_size(
    width: float, height: float, max_pixels: int, factor: int, max_enlargement: float = 1.0
) -> tuple[int, int]:
    """Return the (width, height) at which a region is shown.

    Both are multiples of ``factor`` (at least one cell of it), their product is at most ``max_pixels`` and the aspect
    ratio is kept as well as these allow: the arithmetic of Qwen's smart_resize, so that a model's own processor, told
    that one cell is allowed (``min_pixels = factor**2``), changes nothing. No side is more than 200 times the other.

    >>> view_size(2048, 1024, 1280 * 784, 28)
    (1400, 700)
    >>> view_size(10, 10, 112 * 112, 28, max_enlargement=4.0)
    (28, 28)

    Args:
        width: Width of the region in source pixels.
        height: Height of the region in source pixels.
        max_pixels: Budget, at least ``factor**2``.
        factor: Side of a cell in pixels, 28 for Qwen2.5-VL.
        max_enlargement: The region is enlarged at most this much, but for the one cell.
    """
    scale = min(math.sqrt(max_pixels / (width * height)), max_enlargement)
    # The small term keeps an exact quotient from falling one cell short through rounding of the square root.
    columns, rows = (max(1, math.floor(side * scale / factor + 1e-9)) for side in (width, height))
    cells = max_pixels // factor**2
    if columns > rows:
        columns = min(columns, cells // rows, MAX_ASPECT * rows)
    else:
        rows = min(rows, cells // columns, MAX_ASPECT * columns)
    return columns * factor, rows * factor


def view(image: Image.Image, region: Box, size: tuple[int, int]) -> np.ndarray:
    """Cut ``region`` (source pixels, may be fractional) from ``image`` and resize it.

    Returns:
        A fresh array (height, width, 3) uint8 for ``size`` = (width, height).
    """
    picture = image.resize(size, Image.Resampling.BILINEAR, box=region, reducing_gap=2.0)
    return np.array(picture, dtype=np.uint8)


class DecodedImage(ABC):
    """A picture that is decoded when it is first looked at."""

    kind = "image"
    num_frames = 1

    @abstractmethod
    def read(self) -> Image.Image:
        """Decode it; raises `MediaError` where that fails."""

    @cached_property
    def _picture(self) -> Image.Image:
        return self.read()

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self._picture.width

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self._picture.height

    def frame(self, index: int) -> Image.Image:
        """Return the picture; ``index`` is 0."""
        if index != 0:
            raise IndexError(f"an image has frame 0 only, got {index}")
        return self._picture

    def timestamp(self, index: int) -> float:
        """Return 0 seconds."""
        return 0.0


class DecodedFrames(ABC):
    """Frames of a video that are decoded, all together, when one of them is first looked at."""

    kind = "video"

    @abstractmethod
    def read(self) -> Frames:
        """Decode them; raises `MediaError` where that fails."""

    @cached_property
    def _frames(self) -> Frames:
        return self.read()

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self._frames[0][0].shape[1]

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self._frames[0][0].shape[0]

    @property
    def num_frames(self) -> int:
        """Number of frames taken from the file."""
        return len(self._frames[0])

    def frame(self, index: int) -> Image.Image:
        """Return frame ``index``, 0-based among the frames taken."""
        return Image.fromarray(self._frames[0][index])

    def timestamp(self, index: int) -> float:
        """Return the time of frame ``index`` in seconds from the start of the file."""
        return self._frames[1][index]


@dataclass(frozen=True)
class ImageFile(DecodedImage):
    """An image file as a source.

    Attributes:
        path: Any format that Pillow reads; EXIF orientation is applied, transparency goes onto white.
    """

    path: str | Path

    def read(self) -> Image.Image:
        """Decode the file."""
        return decode(decode_image, str(self.path))


@dataclass(frozen=True)
class VideoFile(DecodedFrames):
    """A video file, or a segment of it, as a source of at most ``sampled`` frames.

    Attributes:
        path: Any format that decord or PyAV reads.
        sampled: Number of frames to take, spread evenly; a shorter video gives all it has.
        start: Seconds at which the segment begins, None for the beginning of the file.
        end: Seconds at which it ends, None for the end of the file.
        rule: How frames are chosen, see `pixel_env.decoding.Sampling`.
    """

    path: str | Path
    sampled: int = 16
    start: float | None = None
    end: float | None = None
    rule: str = "middle"

    @property
    def sampling(self) -> Sampling:
        """Which frames are taken."""
        return Sampling(self.sampled, self.start, self.end, self.rule)

    def read(self) -> Frames:
        """Decode the frames that are taken."""
        return decode(decode_video, str(self.path), self.sampling)


def write_video(source: Source, path: str | Path) -> None:
    """Write all frames of a source with their times to a video file (H.264), such as a procedural clip to an mp4.

    Compression is light: a pixel comes back within a few grey levels, other than at coloured edges, since colours are
    stored at half the resolution.

    Args:
        source: Frames of even width and height.
        path: File to write; its suffix chooses the container.

    Raises:
        ValueError: A side is odd, which H.264 cannot store.
    """
    import av

    if source.width % 2 or source.height % 2:
        raise ValueError(f"expected an even width and height, got {source.width} x {source.height}")
    milliseconds = Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", options={"crf": "12", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = source.width, source.height, "yuv420p"
        stream.codec_context.time_base = milliseconds
        for index in range(source.num_frames):
            frame = av.VideoFrame.from_image(source.frame(index))
            frame.pts, frame.time_base = round(1000 * source.timestamp(index)), milliseconds
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
