"""Views and the decoding of files."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import gymnasium as gym
import numpy as np
import pytest
from fakes import ArraySource, checkerboard, ramp
from hypothesis import given
from hypothesis import strategies as st
from layouts import read_code, write_coded
from PIL import Image

from pixel_env import decoding
from pixel_env.decoding import MediaError, decode, sample_frames
from pixel_env.media import ImageFile, VideoFile, view, view_size, write_video
from pixel_env.tasks import ProceduralTasks, TaskList

MICRO = 112 * 112


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Qwen's arithmetic, written anew: what the processor of the model does to a picture."""
    assert max(height, width) / min(height, width) <= 200
    rows, columns = round(height / factor) * factor, round(width / factor) * factor
    assert min_pixels <= rows * columns <= max_pixels
    return rows, columns


@pytest.mark.parametrize(
    ("size", "budget", "enlargement", "expected"),
    [
        ((448, 448), MICRO, 1.0, (112, 112)),  # a quarter, exactly
        ((896, 448), MICRO, 1.0, (140, 56)),  # scale 0.1768: 158.4 x 79.2, down to cells of 28
        ((100, 90), MICRO, 1.0, (84, 84)),  # never enlarged in a first view
        ((20, 20), MICRO, 4.0, (56, 56)),  # 80 x 80 at four times, down to cells
        ((4, 4), MICRO, 4.0, (28, 28)),  # at least one cell
        ((4000, 2), MICRO, 4.0, (448, 28)),  # a thin region: the longer side is cut to the budget
        ((2, 4000), MICRO, 4.0, (28, 448)),  # the same upright
        ((4096, 4096), 1280 * 784, 1.0, (980, 980)),  # 1001.8: 35.8 cells
    ],
)
def test_view_size_by_hand(size: tuple[int, int], budget: int, enlargement: float, expected: tuple[int, int]) -> None:
    assert view_size(*size, budget, 28, enlargement) == expected


side = st.floats(1, 5000)


@given(side, side, st.integers(1, 2000), st.sampled_from([28, 32]), st.sampled_from([1.0, 4.0]))
def test_view_size_fits(width: float, height: float, cells: int, factor: int, enlargement: float) -> None:
    budget = cells * factor**2
    columns, rows = view_size(width, height, budget, factor, enlargement)
    assert columns % factor == rows % factor == 0
    assert smart_resize(rows, columns, factor, factor**2, budget) == (rows, columns)
    # Aspect: an ideal picture differs by less than a cell in each direction, unless the limit of 200 to 1 cuts it.
    scale = min((budget / (width * height)) ** 0.5, enlargement)
    if min(width, height) * scale >= 2 * factor and max(width, height) < 100 * min(width, height):
        assert -1e-6 <= width * scale - columns < factor
        assert -1e-6 <= height * scale - rows < factor


def test_view_shows_the_region_in_rgb_uint8() -> None:
    picture = Image.fromarray(ramp(256, 256))
    shown = view(picture, (128, 0, 256, 128), (56, 28))
    assert shown.shape == (28, 56, 3) and shown.dtype == np.uint8
    assert shown[:, 0, 0] == pytest.approx(129, abs=2)  # left border of the region: x = 128
    assert shown[-1, :, 1] == pytest.approx(126, abs=2)  # its lower border: y = 128
    shown[:] = 0  # fresh and writable


def test_a_crop_reveals_what_the_first_view_lost() -> None:
    picture = Image.fromarray(checkerboard(448, 448))
    first = view(picture, (0, 0, 448, 448), (112, 112))
    crop = view(picture, (0, 0, 28, 28), (112, 112))
    assert np.ptp(first) < 10  # even grey
    assert np.ptp(crop) > 200  # black and white


@pytest.mark.parametrize(
    ("count", "num_frames", "expected"),
    [
        (16, 16, list(range(16))),  # all
        (8, 4, [1, 3, 5, 7]),  # middles of the four quarters
        (5, 16, [0, 1, 2, 3, 4]),  # no frame twice
        (100, 1, [50]),
    ],
)
def test_sample_frames(count: int, num_frames: int, expected: list[int]) -> None:
    assert sample_frames(count, num_frames) == expected


def save(picture: Image.Image, path: Path, **options: object) -> ImageFile:
    picture.save(path, **options)
    return ImageFile(path)


def test_image_files_become_rgb(tmp_path: Path) -> None:
    clear = save(Image.new("RGBA", (40, 30), (255, 0, 0, 0)), tmp_path / "clear.png")
    assert clear.frame(0).getpixel((5, 5)) == (255, 255, 255)  # transparent goes onto white
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([0, 128, 0] * 256)
    assert save(palette, tmp_path / "hole.png", transparency=0).frame(0).getpixel((0, 0)) == (255, 255, 255)
    assert save(Image.new("CMYK", (40, 30), (0, 255, 255, 0)), tmp_path / "ink.tif").frame(0).mode == "RGB"
    assert save(Image.new("L", (40, 30), 7), tmp_path / "grey.png").frame(0).getpixel((0, 0)) == (7, 7, 7)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    source = save(Image.new("RGB", (40, 30)), tmp_path / "phone.jpg", exif=exif)
    assert (source.width, source.height, source.num_frames, source.kind) == (30, 40, 1, "image")
    assert source.timestamp(0) == 0
    with pytest.raises(IndexError, match="frame 0 only, got 1"):
        source.frame(1)


def test_files_that_cannot_be_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MediaError, match=r"gone\.png: cannot be decoded: .*No such file"):
        ImageFile(tmp_path / "gone.png").frame(0)
    (tmp_path / "noise.png").write_bytes(b"not a picture")
    with pytest.raises(MediaError, match=r"noise\.png: cannot be decoded"):
        _ = ImageFile(tmp_path / "noise.png").width
    (tmp_path / "noise.mp4").write_bytes(b"not a video")
    with pytest.raises(MediaError, match=r"noise\.mp4: cannot be decoded"):
        _ = VideoFile(tmp_path / "noise.mp4").num_frames
    monkeypatch.setattr(decoding, "MAX_IMAGE_PIXELS", 99)
    with pytest.raises(MediaError, match="expected 1 to 99 pixels, got 100"):
        save(Image.new("RGB", (10, 10)), tmp_path / "large.png").frame(0)


def test_slow_decoders_are_abandoned() -> None:
    with pytest.raises(MediaError, match=r"slow\.mp4: decoding took longer than 0\.05 s"):
        decode(lambda path: time.sleep(0.5), "slow.mp4", seconds=0.05)


def test_a_clip_of_16_frames_comes_back_frame_by_frame(tmp_path: Path) -> None:
    source = VideoFile(write_coded(tmp_path / "clip.mp4", list(range(16)), 4))
    assert (source.kind, source.width, source.height, source.num_frames) == ("video", 96, 64, 16)
    assert [read_code(source.frame(index)) for index in range(16)] == list(range(16))
    assert [source.timestamp(index) for index in range(16)] == pytest.approx([index / 4 for index in range(16)])


def test_a_long_video_is_sampled_with_its_times(tmp_path: Path) -> None:
    source = VideoFile(write_coded(tmp_path / "long.mp4", list(range(60)), 4), sampled=4)
    assert [read_code(source.frame(index)) for index in range(4)] == [7, 22, 37, 52]
    assert [source.timestamp(index) for index in range(4)] == pytest.approx([1.75, 5.5, 9.25, 13.0])


def test_pyav_reads_what_decord_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_coded(tmp_path / "clip.mp4", list(range(16)), 4)
    by_decord = [np.asarray(VideoFile(path).frame(index)) for index in (0, 15)]

    def refuse(path: str, indices: list[int], count: int) -> list[np.ndarray]:
        raise RuntimeError("cannot find video stream")

    monkeypatch.setattr(decoding, "read_with_decord", refuse)
    by_pyav = VideoFile(path)
    assert [read_code(by_pyav.frame(index)) for index in range(16)] == list(range(16))
    assert np.abs(np.asarray(by_pyav.frame(15)).astype(int) - by_decord[1]).max() <= 8  # other colour arithmetic


def test_video_limits_and_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_coded(tmp_path / "clip.mp4", list(range(16)), 4)
    (tmp_path / "cut.mp4").write_bytes(path.read_bytes()[:600])
    with pytest.raises(MediaError, match=r"cut\.mp4: cannot be decoded"):
        VideoFile(tmp_path / "cut.mp4").frame(0)
    monkeypatch.setattr(decoding, "MAX_VIDEO_PIXELS", 96 * 64 * 16 - 1)
    with pytest.raises(MediaError, match="expected 1 to 98303 pixels, got 98304"):
        VideoFile(path).frame(0)


@pytest.mark.parametrize("preset", ["micro", "standard"])
def test_procedural_clips_survive_as_mp4(preset: str, tmp_path: Path) -> None:
    clip = ProceduralTasks(("clip",), preset=preset)[2].media
    write_video(clip, tmp_path / "clip.mp4")
    step = clip.width // 200  # some of the pixels are enough
    drawn = [np.asarray(clip.frame(index))[::step, ::step].astype(int) for index in range(16)]
    assert len({picture.tobytes() for picture in drawn}) >= 3  # frames that can be told apart
    path, indices = str(tmp_path / "clip.mp4"), list(range(16))
    for pictures in (decoding.read_with_decord(path, indices, 16), decoding.read_with_pyav(path, indices)):
        for index, picture in enumerate(pictures):
            distance = [np.abs(picture[::step, ::step] - other).mean() for other in drawn]
            assert distance[index] == min(distance) < 2  # frame-accurate, and within the loss of compression
            worst = np.percentile(np.abs(picture[::step, ::step] - drawn[index]), 99.9)
            assert worst <= 60  # colours bleed at fine edges


def test_a_written_clip_has_its_times_and_plays_as_an_environment(tmp_path: Path) -> None:
    drawn = ProceduralTasks(("clip",), preset="micro")[2]
    write_video(drawn.media, tmp_path / "clip.mp4")
    filmed = replace(drawn, media=VideoFile(tmp_path / "clip.mp4"))
    assert [filmed.media.timestamp(index) for index in range(16)] == [index / 2 for index in range(16)]
    tasks = TaskList((drawn, filmed))
    env = gym.make("PixelReason-Frames-v0", tasks=tasks, preset="micro")
    played = []
    for index in range(2):
        env.reset(options={"task": index})
        played.append(env.step("select_frames([3, 9])")[0])
    assert played[0]["text"] == played[1]["text"]
    for original, stored in zip(played[0]["images"], played[1]["images"], strict=True):
        assert np.abs(original.astype(int) - stored).mean() < 2


def test_write_video_refuses_odd_sides(tmp_path: Path) -> None:
    odd = ArraySource((np.zeros((30, 41, 3), np.uint8),))
    with pytest.raises(ValueError, match="expected an even width and height, got 41 x 30"):
        write_video(odd, tmp_path / "odd.mp4")


def test_readers_are_closed(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "clip.mp4", list(range(16)), 4)
    assert VideoFile(path).num_frames == 16
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert VideoFile(path).num_frames == 16
        decoding.read_with_pyav(str(path), [3])
    assert len(os.listdir("/proc/self/fd")) <= before


class Watched:
    """A reader of decord or PyAV that notes which threads touch it; the first is the one that opened it."""

    def __init__(self, reader: Any) -> None:
        self.reader, self.threads = reader, [threading.get_ident()]

    def __getattr__(self, name: str) -> Any:
        self.threads.append(threading.get_ident())
        return getattr(self.reader, name)

    def __len__(self) -> int:
        return self.__getattr__("__len__")()

    def __enter__(self) -> "Watched":
        self.__getattr__("__enter__")()
        return self

    def __exit__(self, *error: Any) -> None:
        self.__getattr__("__exit__")(*error)


@pytest.mark.parametrize("by_pyav", [False, True])
def test_no_reader_is_shared_by_threads(by_pyav: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decord = pytest.importorskip("decord")
    path, readers = write_coded(tmp_path / "clip.mp4", list(range(16)), 4), list[Watched]()
    together = threading.Barrier(4)

    def watched(opener: Callable[..., Any], meet: bool, *arguments: Any, **options: Any) -> Watched:
        if meet:
            together.wait(20)  # so that four readers are alive at a time, each in a thread that cannot end before
        readers.append(Watched(opener(*arguments, **options)))
        return readers[-1]

    def refused(*_: Any, **__: Any) -> None:
        raise RuntimeError("cannot find video stream")

    monkeypatch.setattr(av, "open", partial(watched, av.open, True))
    reader = refused if by_pyav else partial(watched, decord.VideoReader, False)
    monkeypatch.setattr(decord, "VideoReader", reader)
    shared = VideoFile(path)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda _: shared.read()[0], range(4)))
    assert [[read_code(Image.fromarray(frame)) for frame in frames] for frames in read] == [list(range(16))] * 4
    assert len(readers) == 8  # to probe and to read, four times
    assert all(len(set(reader.threads)) == 1 for reader in readers)
    assert Counter(reader.threads[0] for reader in readers).most_common()[0][1] == 2  # the two of one look
