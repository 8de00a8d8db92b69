"""What the times of `benchmarks/hot_paths.py` are made of, and what decoded sources take in memory."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import av
import numpy as np
from PIL import Image

from benchmarks.duel import Row, parts
from benchmarks.hot_media import FRAMES, Scale, pixels
from benchmarks.hot_sides import make, pillow, share_of
from pixel_env import decoding
from pixel_env.cache import DECODED
from pixel_env.media import ImageFile, VideoFile, view, view_size


def breakdown(folder: Path, scale: Scale) -> list[Row]:
    """Time the parts of a reset on a large JPEG, and of the first look at a video."""
    name, width, height, _ = scale.jpegs[1]
    path, source = str(folder / f"{name}.jpg"), ImageFile(folder / f"{name}.jpg")
    size = view_size(width, height, pixels(scale.views[0][1]), 28)
    small, region = source.reduced((0.0, 0.0, float(width), float(height)), size)
    reduction = round(width / small.width)
    rows = parts(f"reset, {name}, view of {scale.views[0][1]:g} MP", {
        "header": lambda: decoding.read_header(path),
        f"decoding at 1/{reduction}": lambda: decoding.decode_image(path, reduction),
        "of that, reading the codes (decoding at 1/8)": lambda: decoding.decode_image(path, 8),
        "resizing, to an array": lambda: view(small, region, size),
        "of that, resizing": lambda: pillow(small, size, region),
    }, scale.repeats)  # fmt: skip
    interval = scale.intervals[0][0]
    clip, indices = str(folder / f"{interval}.mp4"), decoding.sample_frames(scale.video[2], FRAMES)
    picture = VideoFile(clip).frame(0)
    whole = (0.0, 0.0, float(picture.width), float(picture.height))
    array, raw = np.asarray(picture), av.VideoFrame.from_image(picture).reformat(format="yuv420p")
    return rows + parts(f"{FRAMES} frames, a key frame every {interval}", {
        "times of all packets": lambda: decoding.probe_video(clip),
        "decoding to arrays": lambda: decoding.read_with_pyav(clip, indices),
        "of that, colours of one frame": lambda: raw.to_ndarray(format="rgb24"),
        "an array to a picture, one frame": lambda: Image.fromarray(array),
        "resizing one frame, to an array": lambda: view(picture, whole, (336, 168)),
    }, max(1, scale.repeats // 3))  # fmt: skip


def memory(folder: Path, scale: Scale) -> dict[str, float]:
    """Return megabytes: what a decoded picture takes, and what a second environment on it adds.

    Measured in a process of its own: in one that has decoded before, memory that was freed is taken again unseen.
    """
    name = scale.jpegs[0][0]
    with ProcessPoolExecutor(1, get_context("spawn")) as alone:
        before, first, second, held = alone.submit(two_environments, folder / f"{name}.jpg").result()
    return {
        f"first environment on {name}": round(first - before, 1),
        f"second environment on {name}": round(second - first, 1),
        "kept by the cache": round(held, 1),
        "limit of the cache": round(DECODED.limit / 1e6, 1),
    }


def two_environments(path: Path) -> tuple[float, ...]:
    """Return megabytes of this process before and after each of two environments has cropped, and of its cache."""
    taken, kept = [resident()], []
    for _ in range(2):
        kept.append(env := make(ImageFile(path)))
        env.step(share_of(env.reset()[0], 0.125))
        taken.append(resident())
    return *taken, DECODED.held / 1e6


def resident() -> float:
    """Return megabytes of this process in memory; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6 if statm.exists() else 0.0
