"""What the benchmarks of long runs and of flips say of numbers by hand, and that they look at what they claim to."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks import flips, long_runs
from benchmarks.long_runs import Course, Series, follow, verdict
from benchmarks.provenance import RESULTS
from pixel_env.cache import DECODED
from pixel_env.policies import DirectPolicy
from pixel_env.rollout import rollout


def course(megabytes_an_item: float = 0.0, slower: float = 1.0, **more: list[int]) -> Course:
    """1,000 items at 10 a second; after 100 of them 200 MB, then as is said. From item 900 on each takes longer."""
    items = [*range(0, 1001, 10), 1000]
    memory = [100.0 if done < 100 else 200 + megabytes_an_item * (done - 100) for done in items]
    seconds = [done / 10 + max(0, done - 900) / 10 * (slower - 1) for done in items]
    made = Course(items, seconds, seconds, memory, *([5] * len(items) for _ in range(3)))
    return dataclasses.replace(made, **more)


def test_memory_that_stays_is_flat() -> None:
    said = verdict(course())
    assert said["flat"] and said["steady"] and said["bytes_an_item"] == [0, 0, 0] and said["memory_mb"] == 200
    assert said["items_a_cpu_second"] == [10, 10] and said["speed"] == {"cpu": 1, "seconds": 1}
    assert said["left_over"] == {"descriptors": 0, "threads": 0, "processes": 0, "files": 0}


@pytest.mark.parametrize(("leak", "flat"), [(0.004, True), (0.006, False)])
def test_a_leak_is_found(leak: float, flat: bool) -> None:
    """2% of 200 MB over 900 items are 4.4 kB an item."""
    said = verdict(course(leak))
    assert said["bytes_an_item"] == pytest.approx([1e6 * leak] * 3)
    assert said["grown_mb"] == pytest.approx(900 * leak, rel=0.02) and said["flat"] is flat


def test_noise_widens_the_interval() -> None:
    noisy = course()
    noisy.memory = [value + 3 * np.sin(k) for k, value in enumerate(noisy.memory)]
    slope, low, high = verdict(noisy)["bytes_an_item"]
    assert low < slope < high and high - low > 100


def test_a_slowdown_is_found() -> None:
    assert verdict(course(slower=1.25))["speed"]["cpu"] == pytest.approx(0.8, abs=0.001)
    assert not verdict(course(slower=1.25))["steady"] and verdict(course(slower=1.05))["steady"]


def test_what_is_left_over_counts() -> None:
    left = verdict(course(descriptors=[5] * 101 + [7], threads=[5] * 50 + [9] * 51 + [5]))
    assert left["left_over"]["descriptors"] == 2 and left["left_over"]["threads"] == 0 and left["most"]["threads"] == 9


def test_a_course_notes_a_file_that_is_not_closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = []

    def leaky(count: int, done: long_runs.Done) -> None:
        for number in range(count):
            kept.append((tmp_path / str(number)).open("w"))
            done()

    monkeypatch.setitem(long_runs.SERIES, "leaky", Series("file", 40, leaky))
    try:
        noted, stopped = follow("leaky", 40, 60.0), follow("leaky", 10**6, 0.0)
    finally:
        for file in kept:
            file.close()
    assert noted.items == [*range(41), 40] and noted.descriptors[-1] - noted.descriptors[0] == 40
    assert noted.memory[0] == pytest.approx(psutil.Process().memory_info().rss / 1e6, rel=0.5)
    assert stopped.items == [0, 1]  # no time: one file, and it ends


@pytest.mark.parametrize("read", [long_runs.by_media, long_runs.by_pyav, long_runs.by_decord])
def test_videos_are_read_and_removed(read: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXEL_ENV_DECODE_IN_PROCESS", "0")
    monkeypatch.setattr(DECODED, "limit", DECODED.limit)
    monkeypatch.setattr(long_runs, "CLIPS", 1)
    monkeypatch.setitem(long_runs.SERIES, "few", long_runs._videos(3, read, False))  # type: ignore[arg-type]
    noted = follow("few", 3, 60.0)
    assert noted.items == [0, 1, 2, 3, 3] and noted.files == 0


def test_the_page_shows_what_was_measured() -> None:
    results = json.loads((RESULTS / "long_runs.json").read_text(encoding="utf-8"))["results"]
    page = (Path(__file__).parents[1] / "docs" / "reproducibility.md").read_text(encoding="utf-8")
    assert long_runs.table({name: results[name] for name in long_runs.SERIES if name in results}) in page
    ended = all(said["done"] == said["of"] for said in results.values()) and len(results) == len(long_runs.SERIES)
    assert ended != ("So far it has been stopped early" in page)


def test_flips_by_hand() -> None:
    """A turn counts up to and with the first that is another; the rest follows from it."""
    played = rollout(DirectPolicy(), "PixelReason-Zoom-v0", range(4), preset="micro", progress=False)
    first = [dataclasses.replace(one, turns=one.turns * 3) for one in played]
    changed = dataclasses.replace(first[0].turns[0], action="else")
    other = [dataclasses.replace(first[0], turns=(first[0].turns[0], changed)), *first[1:]]
    said = flips.compare(first, other)
    assert (said["turns"], said["flips"]) == (2 + 3 * 3, 1) and said["rate"][0] == pytest.approx(1 / 11, abs=1e-5)
    assert flips.compare(first, first)["flips"] == 0
