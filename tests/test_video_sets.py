"""Sets of videos written as they lie on disk, and the reading of real codecs."""

import importlib.util
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import coded_frame, mvbench, read_code, save, star, write_coded, write_json

from pixel_env import decoding
from pixel_env.decoding import MediaError, Sampling, mvbench_frames
from pixel_env.media import VideoFile
from pixel_env.tasks import Cue, load_tasks


def codes(media: object) -> list[int]:
    return [read_code(media.frame(index)) for index in range(media.num_frames)]  # type: ignore[attr-defined]


# --- which frames ----------------------------------------------------------------------------------------------------


def test_mvbench_frames_by_hand() -> None:
    # Segment 3 to 18 in 5 parts of 3: 3 + 1.5 + 0, 3, 6, 9, 12, cut to whole numbers.
    assert mvbench_frames(3, 18, 5) == [4, 7, 10, 13, 16]
    # 0 to 31 in 16 parts of 1.9375: 0.96875 + round(0, 1.94, 3.88, 5.81, 7.75, 9.69, 11.6, 13.6, 15.5, 17.4, ...)
    assert mvbench_frames(0, 31, 16) == [0, 2, 4, 6, 8, 10, 12, 14, 16, 17, 19, 21, 23, 25, 27, 29]
    assert mvbench_frames(7, 7, 3) == [7, 7, 7]


def test_sampling_of_a_segment() -> None:
    times = [0.0, 0.1, 0.2, 1.0, 2.0, 4.0]  # variable rate
    assert Sampling(16, 0.1, 2.0).indices(times) == [1, 2, 3, 4]
    assert Sampling(2).indices(times) == [1, 4]
    assert Sampling(2, 0.9, 4.2, "mvbench").indices(times) == [3, 4]  # nearest: 3 to 5, parts of 1
    with pytest.raises(ValueError, match=r"expected a segment within 0 to 4\.00 s, got 5 to 6 s"):
        Sampling(2, 5.0, 6.0).indices(times)
    with pytest.raises(ValueError, match=r"expected a segment that holds a frame, got 2\.5 to 3 s"):
        Sampling(2, 2.5, 3.0).indices(times)


# --- sets ------------------------------------------------------------------------------------------------------------


def test_mvbench(tmp_path: Path) -> None:
    tasks = load_tasks("mvbench", mvbench(tmp_path))
    whole, bounded, folder = tasks[0], tasks[1], tasks[2]
    assert [tasks[index].suite for index in range(3)] == [
        "mvbench/action_count", "mvbench/action_sequence", "mvbench/episodic_reasoning",
    ]  # fmt: skip
    assert whole.choices == ("3", "2", "1") and whole.answers == ("2",)
    assert codes(whole.media) == [0, 2, 4, 6, 8, 10, 12, 14, 16, 17, 19, 21, 23, 25, 27, 29]
    assert bounded.answers == ("Stood.",)
    # Frames 10 to 40 in 16 parts of 1.875: 10.9375 + round(0, 1.875, 3.75, 5.625, 7.5, 9.375, ...)
    assert codes(bounded.media)[:6] == [10, 12, 14, 16, 18, 19] and codes(bounded.media)[-1] == 38
    assert bounded.media.timestamp(1) == pytest.approx(1.2)
    # Frames 6 to 24 of the folder, counted from 1, in 16 parts of 1.125: 6.5625 + round(0, 1.125, 2.25, 3.375, ...)
    assert codes(folder.media)[:6] == [6, 7, 8, 9, 10, 12] and codes(folder.media)[-1] == 23
    assert folder.media.timestamp(0) == pytest.approx(5 / 3) and folder.media.num_frames == 16
    assert codes(load_tasks("mvbench", tmp_path, num_frames=2)[1].media) == [17, 32]  # 10 + 7.5 + 0, 15


def test_mvbench_with_damage(tmp_path: Path) -> None:
    mvbench(tmp_path)
    item = {"video": "show", "question": "Why?", "candidates": ["Joy", "Fear"], "answer": "Joy", "start": 20, "end": 30}
    write_json(tmp_path / "json/episodic_reasoning.json", [item, {**item, "answer": "Rage", "start": 0, "end": 3}])
    (tmp_path / "video/star/Charades_v1_480/v2.mp4").unlink()
    tasks = load_tasks("mvbench", tmp_path)
    assert codes(tasks[0].media)[0] == 0
    for index, message in [
        (1, r"action_sequence\.json, row 0 .*got none at video/star/Charades_v1_480/v2\.mp4, video/data0613/star"),
        (2, r"episodic_reasoning\.json, row 0 .*within the 30 frames of show, got 20 to 30 s"),
        (3, r"row 1 .*expected an answer that names exactly one option of \('Joy', 'Fear'\), got 'Rage'"),
    ]:
        with pytest.raises(MediaError, match=message):
            tasks[index].media.frame(0)
    (tmp_path / "json/story.json").write_text("[]")
    with pytest.raises(ValueError, match=r"named by MVBench's tasks in .*got story\.json"):
        load_tasks("mvbench", tmp_path, seed=1)
    with pytest.raises(ValueError, match="expected a folder with json and video"):
        load_tasks("mvbench", tmp_path / "json")


def test_star(tmp_path: Path) -> None:
    star(tmp_path)
    task = load_tasks("star", tmp_path / "STAR_val.json")[0]
    assert (task.suite, task.answers) == ("star/Interaction", ('The {"odd"} [bag].',))
    assert codes(task.media) == [1, 5, 9, 13, 16, 20, 24, 28, 31, 35, 39, 43, 46, 50, 54, 58]  # middles of 16 of 60
    assert task.cue == Cue(frames=(5, 6, 7, 8))  # shown at 2.0, 2.4, 2.8 and 3.1 s: window 1.9 to 3.1
    hidden = load_tasks("star", tmp_path / "STAR_test.json")[0]
    assert (hidden.suite, hidden.answers, len(hidden.choices)) == ("star/Sequence", (), 2)


def test_a_folder_of_videos(tmp_path: Path) -> None:
    write_coded(tmp_path / "b/2.mp4", list(range(5)))
    (tmp_path / "1.mp4").write_bytes(b"no video")
    tasks = load_tasks("videos", tmp_path, question="What happens?")
    assert (len(tasks), tasks[1].question, codes(tasks[1].media)) == (2, "What happens?", [0, 1, 2, 3, 4])
    with pytest.raises(MediaError, match=r"1\.mp4: cannot be decoded"):
        _ = tasks[0].media.width


def test_frames_of_different_sizes(tmp_path: Path) -> None:
    save(tmp_path / "1.jpg")
    save(tmp_path / "2.jpg", size=(60, 90))
    (tmp_path / "own.jsonl").write_text('{"frames": ["1.jpg", "2.jpg"], "question": "What?"}\n')
    with pytest.raises(MediaError, match=r"frames of one size, 120 x 90 as 1\.jpg, got 60 x 90 in 2\.jpg"):
        load_tasks("jsonl", tmp_path)[0].media.frame(0)


# --- codecs ----------------------------------------------------------------------------------------------------------

EVEN = list(range(48))
UNEVEN = np.cumsum([1, 3, 1, 1, 7, 2] * 8).tolist()
VIDEOS = {
    "h264": ("mp4", "libx264", EVEN),
    "h264-variable": ("mp4", "libx264", UNEVEN),
    "vp9": ("webm", "libvpx-vp9", EVEN),
    "hevc": ("mp4", "libx265", EVEN),
    "mpeg4": ("avi", "mpeg4", EVEN),  # packets without a presentation time
    "av1": ("mp4", "libsvtav1", EVEN),
}


def encoded(name: str, folder: Path) -> Path:
    suffix, codec, stamps = VIDEOS[name]
    try:
        av.codec.Codec(codec, "w")
    except Exception as error:
        pytest.skip(f"no encoder {codec} to write the video with: {error}")
    return write_coded(folder / f"{name}.{suffix}", stamps, codec=codec)


@pytest.mark.parametrize("name", VIDEOS)
def test_both_readers_give_the_same_frames(name: str, tmp_path: Path) -> None:
    path = encoded(name, tmp_path)
    wanted = [0, 1, 17, 18, 30, 46, 47]
    if name == "av1":
        with pytest.raises(Exception, match=r".*"):
            decoding.read_with_decord(str(path), wanted, 48)
    else:
        assert [read_code(picture) for picture in decoding.read_with_decord(str(path), wanted, 48)] == wanted
    assert [read_code(picture) for picture in decoding.read_with_pyav(str(path), wanted)] == wanted
    source = VideoFile(path, sampled=48)
    assert codes(source) == list(range(48))
    stamps = VIDEOS[name][2]
    assert [source.timestamp(index) for index in range(48)] == pytest.approx(
        [(s - stamps[0]) / 10 for s in stamps], abs=2e-3
    )


MOVED = {
    "b-frames.mp4": ("libx264", {"g": "12", "bf": "3"}, EVEN),
    "open.mkv": ("libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1"}, UNEVEN),
    "open.ts": ("libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1"}, EVEN),
    "hevc.mp4": ("libx265", {"g": "12", "x265-params": "log-level=none"}, UNEVEN),
    "vp9.webm": ("libvpx-vp9", {"g": "12"}, EVEN),
    "mpeg2.ts": ("mpeg2video", {"g": "12", "bf": "2"}, EVEN),
    "no-key-frames.ts": ("libx264", {"g": "12", "x264-params": "intra-refresh=1"}, EVEN),
}


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, list[np.ndarray]]]:
    """Videos of all kinds of references between frames: where each lies, and its frames read from the start."""
    folder, read = tmp_path_factory.mktemp("moved"), {}
    ground = np.random.default_rng(0).integers(0, 256, (64 + 2 * 48, 96 + 3 * 48, 3), dtype=np.uint8)
    for name, (codec, options, stamps) in MOVED.items():
        with av.open(str(folder / name), "w") as container:
            try:
                stream = container.add_stream(codec, rate=10, options=options)
            except Exception:  # an encoder that this build lacks
                continue
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 10)
            for index, stamp in enumerate(stamps):
                part = ground[2 * index : 2 * index + 64, 3 * index : 3 * index + 96]
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(part), "rgb24")
                frame.pts, frame.time_base = stamp, Fraction(1, 10)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        path = str(folder / name)
        read[name] = path, decoding._read_from_the_start(path, list(range(len(stamps))))
    return read


@settings(max_examples=12, deadline=None)
@given(st.data())
@pytest.mark.parametrize("name", MOVED)
def test_frames_are_those_of_reading_everything(
    name: str, moved: dict[str, tuple[str, list[np.ndarray]]], data: st.DataObject
) -> None:
    if name not in moved:
        pytest.skip("no encoder to write the video with")
    path, frames = moved[name]
    wanted = data.draw(st.lists(st.integers(0, len(frames) - 1), min_size=1, max_size=8))
    read = decoding.read_with_pyav(path, wanted)
    assert all(np.array_equal(picture, frames[index]) for index, picture in zip(wanted, read, strict=True))


def test_only_what_leads_to_a_frame_is_decoded(
    moved: dict[str, tuple[str, list[np.ndarray]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_read_from_the_start", None)  # not asked
    path, frames = moved["b-frames.mp4"]
    runs: list[range] = []
    found = decoding._runs
    monkeypatch.setattr(decoding, "_runs", lambda *arguments: runs.extend(found(*arguments)) or list(runs))
    read = decoding.read_with_pyav(path, [40, 13, 13])
    assert [np.array_equal(a, frames[index]) for a, index in zip(read, (40, 13, 13), strict=True)] == [True] * 3
    assert [run.start for run in runs] == [12, 36] and all(len(run) < 12 for run in runs)


@pytest.mark.parametrize(("degrees", "size"), [(90, (64, 96)), (-90, (64, 96)), (180, (96, 64))])
def test_turned_videos_are_shown_upright(degrees: int, size: tuple[int, int], tmp_path: Path) -> None:
    path = write_coded(tmp_path / "phone.mp4", list(range(3)), turned=degrees)
    [shown] = decoding.read_with_pyav(str(path), [2])
    assert shown.shape == (size[1], size[0], 3) and shown.flags.c_contiguous
    # The display matrix turns against the clock; turned back, the frame says its number again.
    assert read_code(np.rot90(shown, -degrees // 90)) == 2
    if importlib.util.find_spec("decord"):  # there is no wheel of it for every machine
        [other] = decoding.read_with_decord(str(path), [2], 3)
        assert np.abs(shown.astype(int) - other).max() < 8
    video = VideoFile(path)
    assert (video.width, video.height, video.frame(0).size) == (*size, size)


def test_a_segment_of_a_video_of_variable_rate(tmp_path: Path) -> None:
    source = VideoFile(encoded("h264-variable", tmp_path), sampled=3, start=3.0, end=6.0)
    inside = [index for index, stamp in enumerate(UNEVEN) if 30 <= stamp - UNEVEN[0] <= 60]
    assert inside == list(range(12, 25))
    assert codes(source) == [14, 18, 22]  # middles of thirds of 13 frames: 2, 6, 10


def test_a_container_that_promises_too_many_frames(tmp_path: Path) -> None:
    whole = write_coded(tmp_path / "whole.mp4", EVEN, options={"movflags": "faststart"})
    data = whole.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: data.index(b"mdat") + (len(data) - data.index(b"mdat")) * 6 // 10])
    source = VideoFile(tmp_path / "cut.mp4", sampled=48)
    assert 5 < source.num_frames < 48
    assert codes(source)[:5] == [0, 1, 2, 3, 4]


def test_decord_is_not_asked_where_it_counts_otherwise(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "a.mp4", EVEN)
    with pytest.raises(ValueError, match="expected 49 frames, got 48"):
        decoding.read_with_decord(str(path), [48], 49)


def test_damaged_videos(tmp_path: Path) -> None:
    data = write_coded(tmp_path / "a.mp4", EVEN).read_bytes()
    for name, content in {"empty.mp4": b"", "head.mp4": data[:40], "text.mp4": b"hello" * 100}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError, match=rf"{name}: cannot be decoded"):
            VideoFile(tmp_path / name).frame(0)


def test_a_video_of_one_frame(tmp_path: Path) -> None:
    source = VideoFile(write_coded(tmp_path / "one.mp4", [0]))
    assert codes(source) == [0] and source.timestamp(0) == 0


def test_files_are_closed(tmp_path: Path) -> None:
    mvbench(tmp_path)
    tasks = load_tasks("mvbench", tmp_path)
    write_coded(tmp_path / "av1.mp4", EVEN[:8], codec="mpeg4")

    def look() -> None:
        for index in range(3):
            tasks[index].media.frame(0)
        with pytest.raises(MediaError, match="segment"):
            VideoFile(tmp_path / "av1.mp4", start=50.0).frame(0)
        decoding.read_with_pyav(str(tmp_path / "av1.mp4"), [2])

    look()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(4):
        look()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_the_code_survives() -> None:
    assert [read_code(coded_frame(index)) for index in range(64)] == list(range(64))
