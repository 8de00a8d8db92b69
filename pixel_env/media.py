"""Full-resolution images and videos, and the views cut from them.

A source is never shown: a policy sees views, regions of it resized into a pixel budget. Files are read through
:mod:`pixel_env.decoding` and kept in :mod:`pixel_env.cache`. This module knows nothing of tasks, actions or sentences.
"""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from pixel_env.cache import DECODED
from pixel_env.decoding import Frames, JpegHeader, Sampling, decode, decode_image, decode_video, read_header

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


def view_of(source: Source, frame: int, region: Box, size: tuple[int, int]) -> np.ndarray:
    """Cut ``region`` from a frame (0-based) of a source and resize it; arguments and result as of `view`.

    A JPEG is decoded as small as the view allows. How small depends on the region and the size alone, and on nothing
    that was decoded before: a view is always the same.
    """
    if isinstance(source, EncodedImage):
        return view(*source.reduced(region, size), size)
    return view(source.frame(frame), region, size)


class Decoded(ABC):
    """What is decoded when it is first looked at, and kept in `pixel_env.cache.DECODED`: read again once it is not."""

    @abstractmethod
    def read(self) -> Any:
        """Decode it; raises `MediaError` where that fails."""

    def key(self) -> Hashable:
        """Return what equals the key of every source that shows the same; by default of no other one."""
        return object()

    @cached_property
    def _key(self) -> Hashable:
        return self.key()


class DecodedImage(Decoded):
    """A picture that is decoded when it is first looked at."""

    kind = "image"
    num_frames = 1

    @abstractmethod
    def read(self) -> Image.Image:
        """Decode it; raises `MediaError` where that fails."""

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.frame(0).width

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.frame(0).height

    def frame(self, index: int) -> Image.Image:
        """Return the picture, which is not to be drawn on; ``index`` is 0."""
        if index != 0:
            raise IndexError(f"an image has frame 0 only, got {index}")
        return DECODED.get(self._key, self.read, _bytes)

    def timestamp(self, index: int) -> float:
        """Return 0 seconds."""
        return 0.0


class EncodedImage(DecodedImage):
    """A picture in a file; for a small view a JPEG is decoded at a half, a quarter or an eighth of its size."""

    @abstractmethod
    def decoded(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of `pixel_env.decoding` on the path or the bytes of the file, and what else it takes.

        Raises:
            MediaError: It fails.
        """

    def read(self) -> Image.Image:
        """Decode the file at full size."""
        return self.decoded(decode_image)

    @cached_property
    def _header(self) -> JpegHeader | None:
        return self.decoded(read_header)

    @property
    def width(self) -> int:
        """Width in pixels."""
        return super().width if self._header is None else self._header.width

    @property
    def height(self) -> int:
        """Height in pixels."""
        return super().height if self._header is None else self._header.height

    def reduced(self, region: Box, size: tuple[int, int]) -> tuple[Image.Image, Box]:
        """Return the picture, decoded as small as it can be while no pixel of a view lacks one, and the region on it.

        Args:
            region: x1, y1, x2, y2 in pixels of the full size.
            size: (width, height) of the view.
        """
        x1, y1, x2, y2 = region
        for reduction in () if self._header is None else self._header.reductions:
            if x2 - x1 >= reduction * size[0] and y2 - y1 >= reduction * size[1]:
                picture = DECODED.get((self._key, reduction), lambda: self.decoded(decode_image, reduction), _bytes)  # noqa: B023
                return picture, (x1 / reduction, y1 / reduction, x2 / reduction, y2 / reduction)
        return self.frame(0), region


class DecodedFrames(Decoded):
    """Frames of a video that are decoded, all together, when one of them is first looked at."""

    kind = "video"

    @abstractmethod
    def read(self) -> Frames:
        """Decode them; raises `MediaError` where that fails."""

    @property
    def _frames(self) -> tuple[list[Image.Image], list[float]]:
        return DECODED.get(self._key, self._pictures, lambda frames: sum(map(_bytes, frames[0])))

    def _pictures(self) -> tuple[list[Image.Image], list[float]]:
        arrays, times = self.read()
        return [Image.fromarray(array) for array in arrays], times

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self._frames[0][0].width

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self._frames[0][0].height

    @property
    def num_frames(self) -> int:
        """Number of frames taken from the file."""
        return len(self._frames[0])

    def frame(self, index: int) -> Image.Image:
        """Return frame ``index``, 0-based among the frames taken; not to be drawn on."""
        return self._frames[0][index]

    def timestamp(self, index: int) -> float:
        """Return the time of frame ``index`` in seconds from the start of the file."""
        return self._frames[1][index]


def _bytes(picture: Image.Image) -> int:
    """Bytes of a picture in memory, where Pillow gives an RGB pixel four."""
    return 4 * picture.width * picture.height


def stamp(path: str | Path) -> tuple[int, ...]:
    """Return what changes when a file does; nothing for one that is not there: reading it says so."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class ImageFile(EncodedImage):
    """An image file as a source.

    Attributes:
        path: Any format that Pillow reads; EXIF orientation is applied, transparency goes onto white.
    """

    path: str | Path

    def key(self) -> Hashable:
        """Return the path and the stamp of the file."""
        return self, stamp(self.path)

    def decoded(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Decode the file."""
        return decode(function, str(self.path), *arguments)


@dataclass(frozen=True)
class VideoFile(DecodedFrames):
    """A video file, or a segment of it, as a source of at most ``sampled`` frames.

    Attributes:
        path: Any format that PyAV reads.
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

    def key(self) -> Hashable:
        """Return what is taken from which file, and the stamp of it."""
        return self, stamp(self.path)

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
