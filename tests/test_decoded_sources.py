"""JPEGs decoded small, and decoded sources that are shared and bounded: a view is the same whatever was looked at."""

import base64
import gc
import os
import pickle
import subprocess
import sys
import tracemalloc
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from fakes import image_task, tasks
from gymnasium.error import ResetNeeded
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import hrbench_rows, png, write_coded, write_parquet
from PIL import Image

from benchmarks.hot_media import write_clip
from benchmarks.hot_sides import make
from pixel_env import Operation, decoding
from pixel_env.cache import DECODED, Cache
from pixel_env.decoding import MediaError, read_header
from pixel_env.media import DecodedImage, ImageFile, VideoFile, view, view_of
from pixel_env.tasks import load_tasks

SIDES = (413, 301)
"""Of the picture in the files: numbers that no reduction divides."""


@pytest.fixture(autouse=True)
def _nothing_decoded() -> Iterator[None]:
    DECODED.clear()
    yield
    DECODED.clear()


def smooth(width: int, height: int) -> Image.Image:
    """A picture of slopes in which every place has a colour of its own."""
    y, x = np.mgrid[:height, :width]
    waves = 128 + 60 * np.sin(x / 31) + 60 * np.cos(y / 23)
    return Image.fromarray(np.stack([x * 255 / width, y * 255 / height, waves], axis=2).astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    smooth(*SIDES).save(folder / "upright.jpg", quality=95)
    smooth(*SIDES).save(folder / "lossless.png")
    smooth(*SIDES).convert("CMYK").save(folder / "ink.jpg", quality=95)
    smooth(*SIDES).convert("L").save(folder / "grey.jpg", quality=95)
    smooth(*SIDES).save(folder / "progressive.jpg", quality=95, progressive=True)
    smooth(*SIDES).save(folder / "several.mpo", "MPO", quality=95, save_all=True, append_images=[smooth(64, 64)])
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        smooth(*SIDES).save(folder / f"odd-{orientation}.jpg", quality=95, exif=exif)
        smooth(416, 304).save(folder / f"even-{orientation}.jpg", quality=95, exif=exif)
    return folder


JPEGS = ["upright.jpg", "ink.jpg", "grey.jpg", "progressive.jpg", "several.mpo"]
TURNED = [f"{parity}-{orientation}.jpg" for parity in ("odd", "even") for orientation in range(2, 9)]
fraction = st.floats(0, 1)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([*JPEGS, *TURNED, "lossless.png"]), fraction, fraction, st.floats(0.05, 1), st.integers(1, 4))
def test_a_view_is_that_of_the_whole_and_the_same_whatever_is_kept(
    folder: Path, name: str, x: float, y: float, part: float, cells: int
) -> None:
    source, size = ImageFile(folder / name), (28 * cells, 28)
    width, height = source.width * part, source.height * part
    left, top = x * (source.width - width), y * (source.height - height)
    region = (left, top, min(left + width, source.width), min(top + height, source.height))
    DECODED.clear()
    cold = view_of(source, 0, region, size)
    whole = source.frame(0)
    assert whole.size == (source.width, source.height)
    warm = view_of(source, 0, region, size)
    other = view_of(ImageFile(str(folder / name)), 0, region, size)  # another key: decoded again
    assert np.array_equal(cold, warm) and np.array_equal(cold, other)
    exact = view(whole, region, size).astype(int)
    assert np.abs(cold - exact).mean() < 2 and np.abs(cold - exact).max() < 16  # nothing is shifted by a pixel
    if name == "lossless.png":
        assert np.array_equal(cold, exact)


@pytest.mark.parametrize("name", JPEGS)
def test_a_small_view_of_a_jpeg_decodes_little(name: str, folder: Path) -> None:
    source = ImageFile(folder / name)
    assert (source.width, source.height) == SIDES and DECODED.held == 0  # its header says so
    for size, reduction in (((28, 28), 8), ((56, 56), 4), ((140, 84), 2), ((224, 140), 1)):
        DECODED.clear()
        view_of(source, 0, (0, 0, *SIDES), size)
        assert DECODED.held == 4 * -(-SIDES[0] // reduction) * -(-SIDES[1] // reduction)
    assert view_of(source, 0, (10, 10, 66, 66), (28, 28)).shape == (28, 28, 3)  # twice as large: at a half


def test_what_can_be_decoded_small(folder: Path) -> None:
    def reductions(name: str) -> tuple[int, ...]:
        header = read_header(str(folder / name))
        assert header is not None and (header.width, header.height) == ImageFile(folder / name).frame(0).size
        return header.reductions

    assert reductions("upright.jpg") == (8, 4, 2)
    assert {reductions(f"even-{orientation}.jpg") for orientation in range(2, 9)} == {(8, 4, 2)}
    assert {reductions(f"odd-{orientation}.jpg") for orientation in range(2, 9)} == {()}
    assert read_header(str(folder / "lossless.png")) is None
    assert read_header((folder / "upright.jpg").read_bytes()) == read_header(str(folder / "upright.jpg"))


def test_equal_sources_share_what_is_decoded_until_the_file_changes(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png((1, 2, 3)))
    first = ImageFile(path)
    assert first.frame(0) is ImageFile(path).frame(0)
    held = DECODED.held
    path.write_bytes(png((7, 8, 9), (90, 90)))
    assert ImageFile(path).frame(0).getpixel((0, 0)) == (7, 8, 9) and DECODED.held > held
    assert first.frame(0).getpixel((0, 0)) == (1, 2, 3)  # an episode goes on with what it began with
    assert pickle.loads(pickle.dumps(first)).frame(0).size == first.frame(0).size
    clip = write_coded(tmp_path / "clip.mp4", list(range(8)))
    assert VideoFile(clip).frame(5) is VideoFile(clip).frame(5) is not VideoFile(clip, sampled=8).frame(5)


def test_pictures_in_tables_are_shared_and_decoded_small(folder: Path, tmp_path: Path) -> None:
    encoded = (folder / "upright.jpg").read_bytes()
    row = {**hrbench_rows()[0], "image": base64.b64encode(encoded).decode()}
    set_ = load_tasks("hrbench", write_parquet(tmp_path / "hr_bench_4k.parquet", [row]))
    small = view_of(set_[0].media, 0, (0, 0, *SIDES), (28, 28))
    assert np.array_equal(small, view_of(ImageFile(folder / "upright.jpg"), 0, (0, 0, *SIDES), (28, 28)))
    assert DECODED.held == 2 * 4 * 52 * 38 + len(encoded)  # an eighth of each, and the bytes of the cell
    assert set_[0].media.frame(0) is set_[0].media.frame(0)


@dataclass(frozen=True)
class Drawn(DecodedImage):
    """A picture of one's own that counts how often it is drawn."""

    drawn: list[int]

    def read(self) -> Image.Image:
        self.drawn.append(1)
        return Image.new("RGB", (40, 30))


def test_pictures_of_ones_own_are_drawn_once_and_not_shared() -> None:
    first, second = Drawn([]), Drawn([])
    assert [first.frame(0).size, first.width, first.height] == [(40, 30), 40, 30] and len(first.drawn) == 1
    assert second.frame(0) is not first.frame(0)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 30), st.lists(st.integers(0, 9), max_size=40))
def test_the_cache_against_a_slow_one(limit: int, keys: list[int]) -> None:
    """The key is its size too."""
    cache, kept = Cache(limit), OrderedDict[int, int]()
    for key in keys:
        made: list[int] = []
        assert cache.get(key, lambda key=key, made=made: made.append(key) or -key, abs) == -key  # type: ignore[misc]
        assert made == ([] if key in kept else [key])
        kept[key] = kept.pop(key, key)
        while sum(kept.values()) > limit and len(kept) > 1:
            kept.popitem(last=False)
        assert cache.held == sum(kept.values())
    cache.clear()
    assert cache.held == 0


def test_what_fails_is_not_kept() -> None:
    cache = Cache(9)
    with pytest.raises(ZeroDivisionError):
        cache.get("a", lambda: 1 // 0, abs)
    assert cache.held == 0 and cache.get("a", lambda: 3, abs) == 3


def test_a_source_larger_than_the_limit_is_seen_all_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DECODED, "limit", 1)
    whole, small = ImageFile(folder / "lossless.png"), ImageFile(folder / "upright.jpg")
    assert whole.frame(0) is whole.frame(0) and DECODED.held == 4 * SIDES[0] * SIDES[1]
    view_of(small, 0, (0, 0, *SIDES), (28, 28))
    assert DECODED.held == 4 * 52 * 38  # the other one is gone


def test_a_reset_that_fails_leaves_no_episode(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes((folder / "upright.jpg").read_bytes()[:3000])  # its header is whole
    env = gym.make(
        "PixelReason-Zoom-v0", preset="micro", tasks=tasks(image_task(media=ImageFile(tmp_path / "cut.jpg")))
    )
    with pytest.raises(MediaError, match=r"cut\.jpg: cannot be decoded"):
        env.reset()
    with pytest.raises(ResetNeeded):
        env.unwrapped.step("hm")


def test_pictures_that_functions_make_are_left_as_they_are() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    made = Image.new("RGB", (60, 30))
    made.info["exif"] = exif.tobytes()
    schema = {"name": "make", "description": "Make.", "parameters": {"type": "object", "properties": {}}}
    operation = Operation({"type": "function", "function": schema}, lambda: made)
    env = gym.make("PixelReason-Zoom-v0", preset="micro", tasks=tasks(image_task()), operations=[operation])
    env.reset()
    *_, info = env.step('<tool_call>{"name": "make", "arguments": {}}</tool_call>')
    (shot,) = info["views"]
    assert shot.made.size == (30, 60) and made.size == (60, 30) and shot.made is not made


def test_files_are_closed_whatever_is_decoded(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for name in (*JPEGS, "lossless.png"):
        read_header(str(folder / name))
        decoding.decode_image(str(folder / name))
        decoding.decode_image(str(folder / "upright.jpg"), 8)
    assert len(os.listdir("/proc/self/fd")) == before


def pillow_bytes() -> int:
    """What Pillow has taken for pictures so far; block by block, so with small blocks it can be counted."""
    stats = Image.core.get_stats()
    return (stats["allocated_blocks"] + stats["reused_blocks"]) * Image.core.get_block_size()


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_crop_copies_nothing_of_the_source(tmp_path: Path, suffix: str) -> None:
    smooth(1600, 1200).save(tmp_path / f"large.{suffix}")
    source = ImageFile(tmp_path / f"large.{suffix}")
    env = make(source, preset="micro")
    env.reset()
    size = Image.core.get_block_size()
    Image.core.set_block_size(8192)  # a row of the source, many of a crop
    try:
        env.step("crop_image([40, 40, 60, 60])")  # decodes it
        gc.collect()
        tracemalloc.start()
        before = pillow_bytes()
        observation, *_ = env.step("crop_image([44, 44, 64, 64])")
        by_pillow, by_python = pillow_bytes() - before, tracemalloc.get_traced_memory()[1]
        before = pillow_bytes()
        source.frame(0).copy()
        copied = pillow_bytes() - before
    finally:
        tracemalloc.stop()
        Image.core.set_block_size(size)
    assert copied >= 4 * 1600 * 1200  # it would be noticed
    assert observation["images"][0].nbytes <= by_python < 1600 * 1200 / 2
    assert observation["images"][0].nbytes <= by_pillow < 1600 * 1200 / 2


PEAK = """
import sys
from pathlib import Path
from pixel_env.cache import DECODED
from pixel_env.media import VideoFile

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

peaks = []
for path in sys.argv[1:]:
    DECODED.clear()
    assert VideoFile(path).num_frames == 16
    peaks.append(peak())
print(*peaks)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the system does not tell the peak of memory")
def test_a_longer_video_takes_no_more_memory(tmp_path: Path) -> None:
    width, height, few, many = 320, 240, 60, 480
    for frames in (few, many):
        write_clip(tmp_path / f"{frames}.mp4", width, height, frames, 250)
    paths = [str(tmp_path / f"{frames}.mp4") for frames in (few, few, many)]  # what is taken once is not counted
    said = subprocess.run([sys.executable, "-c", PEAK, *paths], capture_output=True, text=True, check=True).stdout
    _, short, long = map(int, said.split())
    whole = 3 * width * height * (many - few) / 1024  # kB, were all frames held
    assert long - short < whole / 4
