"""A decoder that crashes or hangs costs one file: the processes in which decoders run."""

import dataclasses
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import broken_decoders
import numpy as np
import pytest
from fakes import image_task, tasks
from layouts import infographicvqa, read_code, save, write_coded
from PIL import Image

from pixel_env import decoding
from pixel_env.decoding import MediaError, decode
from pixel_env.media import DecodedImage, ImageFile, VideoFile
from pixel_env.policies import DirectPolicy
from pixel_env.rollout import rollout
from pixel_env.tasks import load_tasks


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXEL_ENV_DECODE_IN_PROCESS", "1")


class CrashingImage(DecodedImage):
    """A picture whose decoder crashes."""

    def read(self) -> Image.Image:
        return decode(broken_decoders.crash, "crash.png")


def test_a_crash_costs_one_episode() -> None:
    broken = image_task(task_id="broken", media=CrashingImage())
    played = rollout(
        DirectPolicy(), "PixelReason-Zoom-v0", range(3), progress=False, preset="micro",
        tasks=tasks(image_task(), broken, image_task(task_id="image-2")),
    )  # fmt: skip
    assert [trajectory.error for trajectory in played] == [
        None, "MediaError: crash.png: cannot be decoded: its process ended with SIGSEGV", None,
    ]  # fmt: skip


def test_a_decoder_that_hangs_is_killed(tmp_path: Path) -> None:
    noted, threads = tmp_path / "pid", threading.active_count()
    with pytest.raises(MediaError, match=r"pid: decoding took longer than 2 s"):
        decode(broken_decoders.hang, str(noted), seconds=2)
    with pytest.raises(ProcessLookupError):
        os.kill(int(noted.read_text()), 0)
    assert threading.active_count() <= threads


def test_what_a_decoder_raises_or_prints_leaves_its_process_as_it_was() -> None:
    first = decode(broken_decoders.process, "a.png")
    assert first != os.getpid()
    with pytest.raises(MediaError, match=r"^a\.png: cannot be decoded: MemoryError$"):
        decode(broken_decoders.fail, "a.png")
    with pytest.raises(MediaError, match=r"a\.png: cannot be decoded: cannot pickle 'frame' object"):
        decode(broken_decoders.refuse_to_be_sent, "a.png")
    assert decode(broken_decoders.chatter, "a.png") == "a result"
    assert decode(broken_decoders.process, "a.png") == first
    with pytest.raises(MediaError, match=r"a\.png: cannot be decoded: its process ended with code 0"):
        decode(broken_decoders.leave, "a.png")
    other = decode(broken_decoders.process, "a.png")
    os.kill(other, signal.SIGKILL)  # by somebody else: the next file is not to blame
    assert decode(broken_decoders.process, "a.png") not in (first, other)


def test_pictures_are_those_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(
        tmp_path / "phone.jpg", exif=exif
    )
    film = VideoFile(write_coded(tmp_path / "clip.mp4", list(range(16))), sampled=4)
    stored = load_tasks("infographicvqa", infographicvqa(tmp_path / "set") and tmp_path / "set" / "test.json")[0].media
    with ThreadPoolExecutor(2) as pool:
        readers = (ImageFile(tmp_path / "phone.jpg"), film, dataclasses.replace(film), stored)
        picture, *films, of_set = pool.map(lambda media: media.read(), readers)
    monkeypatch.setenv("PIXEL_ENV_DECODE_IN_PROCESS", "0")
    assert np.array_equal(picture, readers[0].read()) and np.array_equal(of_set, stored.read())
    for frames, times in films:
        assert [read_code(frame) for frame in frames] == [2, 6, 10, 14] and times == film.read()[1]


def test_limits_hold_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ImageFile(save(tmp_path / "a.png", size=(10, 10)))
    monkeypatch.setattr(decoding, "MAX_IMAGE_PIXELS", 99)
    with pytest.raises(MediaError, match="expected 1 to 99 pixels, got 100"):
        source.read()
    monkeypatch.setattr(decoding, "MAX_IMAGE_PIXELS", 100)
    assert source.read().size == (10, 10)
    monkeypatch.setattr(decoding, "MAX_IMAGE_PIXELS", 2**28)  # above that of Pillow, which would refuse this
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert source.read().size == (10, 10)


@pytest.mark.parametrize("said", ["", "0", "-1", "1e9", "1.5", "many", "٣", "1" * 16])
def test_limits_of_the_environment_are_whole_numbers(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXEL_ENV_DECODE_SECONDS", "90")
    assert decoding._limit("DECODE_SECONDS", 60) == 90 and decoding._limit("MAX_IMAGE_PIXELS", 7) == 7
    monkeypatch.setenv("PIXEL_ENV_DECODE_SECONDS", said)
    with pytest.raises(ValueError, match=r"expected PIXEL_ENV_DECODE_SECONDS as a whole number of at least 1, got '"):
        decoding._limit("DECODE_SECONDS", 60)
