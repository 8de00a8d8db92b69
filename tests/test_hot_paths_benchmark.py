"""What the benchmark of the hot paths writes, and that it compares like with like; not how fast anything is."""

import json
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from benchmarks import hot_paths
from benchmarks.duel import Wanted, duel, parts
from benchmarks.hot_media import Scale, write_clip
from benchmarks.hot_rest import memory
from benchmarks.hot_sides import all_frames, hostile
from pixel_env.actions import Malformed, parse

TINY = Scale(
    jpegs=(("a", 640, 480, 75), ("b", 640, 480, 90)),
    views=(("a", 0.02, 3.0), ("b", 0.02, None)),
    video=(96, 64, 40),
    intervals=((8, 4.0),),
    repeats=1,
    steps=2,
    num_envs=(2,),
    characters=1000,
)


def test_a_row_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("benchmarks.duel.time.perf_counter", lambda: clock[0])

    def taking(*seconds: float):  # type: ignore[no-untyped-def]
        left = iter(seconds)

        def call() -> None:
            clock[0] += next(left)

        return call

    said: list[str] = []
    row = duel(
        "p", "c", taking(9, 2, 4, 2), "the other", taking(9, 8, 8, 4), repeats=3, wanted=Wanted(times=2.1), of=2,
        before=lambda: said.append("before"),
    )  # fmt: skip
    assert row["ours_ms"] == [1000, 1000, 1500] and row["other_ms"] == [3000, 4000, 4000]  # the first is left out
    assert row["times_as_fast"] == [2, 2, 3]  # 4, 2 and 2, in pairs
    assert (row["wanted"], row["met"], len(said)) == ("at least 2.1 times", False, 8)
    assert "wanted" not in duel("p", "c", taking(1, 1), "", taking(1, 1), 1, Wanted())
    assert parts("p", {"x": taking(5, 0.5)}, 1) == [{"path": "p", "part": "x", "ms": [500, 500, 500]}]


@pytest.mark.parametrize(
    ("wanted", "met"),
    [
        (Wanted(times=2), True),
        (Wanted(times=2.5), False),
        (Wanted(milliseconds=1000), True),
        (Wanted(milliseconds=999), False),
        (Wanted(more=0), True),
        (Wanted(times=2, milliseconds=999), False),  # both
    ],
)
def test_what_is_wanted(wanted: Wanted, met: bool) -> None:
    assert wanted.met(1.0, 2.0, 2.0) == met
    assert Wanted(more=0.1).met(2.0, 1.0, 0.5) is False


def test_key_frames_lie_as_asked(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", 96, 64, 40, 8)
    with av.open(str(tmp_path / "a.mp4")) as container:
        keys = sorted(p.pts // (p.duration or 1) for p in container.demux(video=0) if p.size and p.is_keyframe)
    assert keys == [0, 8, 16, 24, 32]
    first, last = all_frames(tmp_path / "a.mp4", [0, 39])
    assert first.size == (96, 64) and np.ptp(np.asarray(first)) > 100  # detail
    assert np.abs(np.asarray(first).astype(int) - np.asarray(last)).mean() > 10  # that moves


def test_hostile_texts_are_as_long_as_they_say_and_no_answers() -> None:
    texts = hostile(1000)
    assert all(900 < len(text) <= 1000 for text in texts.values())
    answered = {name for name, text in texts.items() if not isinstance(parse(text), Malformed)}
    assert answered == {"\\boxed{}", "nested boxes"}
    assert len(texts["emoji, of 4 bytes each in UTF-8"].encode()) == 4000


def test_every_path_is_measured_and_the_page_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "speed.md"
    page.write_text("before\n<!-- table -->\nold\n<!-- end -->\nafter\n")
    command = ["benchmarks/hot_paths.py", "--out", str(tmp_path / "hot.json"), "--page", str(page)]
    monkeypatch.setattr(sys, "argv", [*command, "--media", str(tmp_path / "media")])
    hot_paths.main(TINY)
    written = json.loads((tmp_path / "hot.json").read_text())
    assert written["command"].startswith("python benchmarks/hot_paths.py") and written["machine"]["versions"]["pillow"]
    paths = {row["path"] for row in written["results"]}
    assert paths >= {"reset", "reset and a crop", "crop_image", "16 frames, then 8", "step without pixels"}
    assert paths >= {"AsyncVectorEnv", "parse"}
    assert all(min(row["ours_ms"] + row["other_ms"] + row["times_as_fast"]) > 0 for row in written["results"])
    assert isinstance(parse("{" * 4 * 2**18), Malformed) and "1,048,576 characters" in written["results"][-1]["case"]
    assert (
        set(written["media_mb"]) == {"a.jpg", "b.jpg", "8.mp4"}
        and len(written["parts"]) == 10
        and set(written["measured"]) == set(hot_paths.CHOICES)
    )
    with Image.open(tmp_path / "media" / "a.jpg") as picture:
        assert picture.size == (640, 480)
    shown = page.read_text()
    assert shown.startswith("before\n<!-- table -->\n\n| path |") and shown.endswith("\n<!-- end -->\nafter\n")
    assert "old" not in shown and hot_paths.table(written) in shown
    assert hot_paths.table(written) in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*command, "--only", "parse"])
    monkeypatch.setattr(hot_paths, "write_pictures", None)  # nothing is written or measured but that
    hot_paths.main(TINY)
    again = json.loads((tmp_path / "hot.json").read_text())
    assert [row["case"] for row in again["results"]] == [row["case"] for row in written["results"]]
    kept = [(old == new, new["part"]) for old, new in zip(written["results"], again["results"], strict=True)]
    assert {part for same, part in kept if not same} == {"parse"}
    assert again["memory"] == written["memory"] and again["parts"] == written["parts"]


def test_a_part_is_measured_again_where_there_is_a_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["hot_paths.py", "--only", "parse", "--out", str(tmp_path / "none.json")])
    with pytest.raises(SystemExit):
        hot_paths.main(TINY)
    assert "--only measures a part again, and there is no " in capsys.readouterr().err


def test_the_memory_of_a_source_is_seen_and_a_second_environment_adds_none(tmp_path: Path) -> None:
    Image.new("RGB", (4000, 3000)).save(tmp_path / "a.jpg")
    found = memory(tmp_path, TINY)
    assert found["first environment on a"] > 4 * 4000 * 3000 / 1e6 > 40 > 4 * found["second environment on a"]
    assert found["kept by the cache"] > 48


def test_repeats_are_checked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["hot_paths.py", "--repeats", "0"])
    with pytest.raises(SystemExit):
        hot_paths.main()
    assert "--repeats must be at least 1, got 0" in capsys.readouterr().err
