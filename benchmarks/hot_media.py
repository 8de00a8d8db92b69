"""Pictures and videos for `benchmarks/hot_paths.py`: detail at every scale, so that they cost what photographs cost."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from pixel_env.actions import MAX_TURN_CHARACTERS

FRAMES_A_SECOND = 30
FRAMES = 16
"""Frames of a video that are looked at."""
OCTAVES = ((256, 60.0), (64, 40.0), (16, 25.0), (4, 15.0), (1, 6.0))
"""Side of the grains in pixels, and how bright they are: small ones less, as in photographs."""


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        jpegs: Name, width, height and quality of each.
        views: Name of a JPEG, megapixels of the view, and how many times as fast it is to be shown, or None.
        video: Width, height, frames.
        intervals: Frames from one key frame to the next, and how many times as fast it is to be shown.
        repeats: Rounds of quick comparisons; slow ones take a third.
        steps: Steps in one call where a step is short.
        num_envs: Sizes of vector environments.
        characters: Length of hostile texts; the most that is read, as longer turns are refused by their length.
    """

    jpegs: tuple[tuple[str, int, int, int], ...] = (
        ("8K, quality 75", 7680, 4320, 75), ("8K, quality 90", 7680, 4320, 90), ("4K, quality 90", 3840, 2160, 90),
    )  # fmt: skip
    views: tuple[tuple[str, float, float | None], ...] = (
        ("8K, quality 75", 1.5, 3.0), ("8K, quality 75", 0.2, 3.0), ("8K, quality 90", 1.5, 3.0),
        ("8K, quality 90", 0.2, 3.0), ("4K, quality 90", 1.0, None), ("4K, quality 90", 0.2, 2.0),
    )  # fmt: skip
    video: tuple[int, int, int] = (1920, 1080, 1800)
    intervals: tuple[tuple[int, float], ...] = ((30, 4.0), (250, 1.0))
    repeats: int = 6
    steps: int = 200
    num_envs: tuple[int, ...] = (2, 8)
    characters: int = MAX_TURN_CHARACTERS


def pixels(megapixels: float) -> int:
    """Return the budget of a view, at least one cell."""
    return max(28**2, round(megapixels * 10**6))


def texture(width: int, height: int, seed: int) -> Image.Image:
    """Draw grains of many sizes, RGB."""
    rng = np.random.default_rng(seed)
    bright = np.full((height, width, 3), 128, np.float32)
    for grain, amplitude in OCTAVES:
        shape = (-(-height // grain), -(-width // grain), 3)
        grains = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        bright += (np.asarray(grains.resize((width, height)), np.float32) - 128) * np.float32(amplitude / 128)
    return Image.fromarray(np.clip(bright, 0, 255).astype(np.uint8))


def write_jpeg(path: Path, width: int, height: int, quality: int) -> None:
    """Write a picture."""
    texture(width, height, seed=0).save(path, quality=quality)


def write_clip(path: Path, width: int, height: int, num_frames: int, interval: int) -> None:
    """Write a video that moves over a large texture in curves; H.264 with B-frames.

    Args:
        path: File to write.
        width: Width in pixels, even.
        height: Height in pixels, even.
        num_frames: At 30 a second.
        interval: Frames from one key frame to the next.
    """
    ground = np.asarray(texture(2 * width, 2 * height, seed=1).convert("YCbCr"))
    planes = (ground[..., 0], ground[::2, ::2, 1], ground[::2, ::2, 2])
    options = {"preset": "superfast", "g": str(interval), "keyint_min": str(interval), "sc_threshold": "0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAMES_A_SECOND, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(num_frames):
            x, y = round((width - 2) * (1 + np.sin(index / 90)) / 2), round((height - 2) * (1 + np.cos(index / 70)) / 2)
            frame = av.VideoFrame(width, height, "yuv420p")
            for plane, whole, part in zip(frame.planes, planes, (1, 2, 2), strict=True):
                row, column = y // 2 * 2 // part, x // 2 * 2 // part
                rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
                rows[:, : width // part] = whole[row : row + height // part, column : column + width // part]
            frame.pts, frame.time_base = index, Fraction(1, FRAMES_A_SECOND)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_pictures(folder: Path, scale: Scale) -> None:
    """Write the pictures that are not there."""
    for name, width, height, quality in scale.jpegs:
        if not (folder / f"{name}.jpg").exists():
            write_jpeg(folder / f"{name}.jpg", width, height, quality)


def write_clips(folder: Path, scale: Scale) -> None:
    """Write the videos that are not there."""
    for interval, _ in scale.intervals:
        if not (folder / f"{interval}.mp4").exists():
            write_clip(folder / f"{interval}.mp4", *scale.video, interval)
