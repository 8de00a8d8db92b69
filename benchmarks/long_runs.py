"""Whether anything grows: 100,000 episodes and 10,000 videos, each in one process.

    python benchmarks/long_runs.py                        # about half an hour on an idle core

Every 500th part of each series, memory (resident, with the processes that it started), open descriptors, threads and
seconds of the processor are noted. Episodes are of level 1 and the small preset. Each video is a small file of its own
that was not there before, read by one of the readers, in a thread or in a process.

The first tenth is warm-up: caches fill. Memory is flat if what it grows from there to the end is less than 2% of it,
also at the upper end of the 95% interval of a straight line through the means of the other nine tenths. Speed is
counted by seconds of the processor, of which other programs take none, though they do slow them down.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import psutil
from tqdm import tqdm

from benchmarks.hot_media import write_clip
from benchmarks.provenance import RESULTS, provenance, readable
from pixel_env.cache import DECODED
from pixel_env.decoding import decode, probe_video, read_with_decord, read_with_pyav, sample_frames
from pixel_env.media import VideoFile
from pixel_env.policies import DirectPolicy, OraclePolicy
from pixel_env.rollout import Conversation, Episode, Policy, plan, play
from pixel_env.tasks import ProceduralTasks, TaskSet

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PACKAGES = ("pixel-env", "gymnasium", "numpy", "pillow", "av", "decord", "psutil")
SAMPLES = 500
FEWEST = 32
"""Looks that a verdict takes."""
FLAT = 0.02
"""Share of the memory after the warm-up by which it may grow."""
STEADY = 0.9
"""Least speed of the last tenth, for that of the second as 1."""
T_7 = 2.365
"""Quantile of Student's distribution for 95% and a line through nine points."""
CLIPS = 16
"""Videos that are written; each is copied under many names."""
COUNTED = ("descriptors", "threads", "processes")
Done = Callable[[], None]


@dataclass
class Course:
    """What was noted along a series, of the process and those it started; first of all before the first item.

    Attributes:
        items: How many were done.
        seconds: By the clock.
        cpu: Seconds of the processor.
        memory: Resident, in MB (10**6 bytes).
        descriptors: Open.
        threads: Alive.
        processes: This one and those.
        files: Left in the temporary folder when all was done.
    """

    items: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    processes: list[int] = field(default_factory=list)
    files: int = 0

    def note(self, items: int) -> None:
        """Look at the processes."""
        family = [psutil.Process(), *psutil.Process().children(recursive=True)]
        spent = [one.cpu_times() for one in family]
        self.items.append(items)
        self.seconds.append(round(time.monotonic(), 2))
        self.cpu.append(round(sum(times.user + times.system for times in spent), 2))
        self.memory.append(round(sum(one.memory_info().rss for one in family) / 1e6, 2))
        self.descriptors.append(sum(one.num_fds() for one in family))
        self.threads.append(sum(one.num_threads() for one in family))
        self.processes.append(len(family))


# --- what is done -----------------------------------------------------------------------------------------------------


class MostlyDirect:
    """Looks in one of `looks` episodes, as the oracle does, and else answers at once, which takes half the time."""

    def __init__(self, tasks: TaskSet, looks: int) -> None:
        self._oracle, self._direct, self._looks = OraclePolicy(tasks), DirectPolicy(), looks

    def act(self, conversations: Sequence[Conversation]) -> list[str | Exception]:
        """Return the next turn of each conversation."""
        return [self._policy(one.task_id).act([one])[0] for one in conversations]

    def _policy(self, task_id: str) -> Policy:
        return self._direct if int(task_id.rpartition("-")[2]) % self._looks else self._oracle


def episodes(suites: tuple[str, ...], looks: int, count: int, done: Done) -> None:
    """Play `count` tasks, each another one; the policy looks in one of `looks`."""
    tasks = ProceduralTasks(suites, difficulty=1, preset="micro", size=count)
    policy = MostlyDirect(tasks, looks)

    def keep(_: int, episode: Episode) -> None:
        episode.trajectory()
        done()

    play(policy, "PixelReason-Mixed-v0", plan(range(count), 1, 0), keep, progress=False, tasks=tasks)


def videos(read: Callable[[str], Any], in_process: bool, count: int, done: Done) -> None:
    """Read `count` files, one after the other, none of which was there before."""
    os.environ["PIXEL_ENV_DECODE_IN_PROCESS"] = str(int(in_process))
    DECODED.limit = 2**25  # full within the warm-up
    with tempfile.TemporaryDirectory() as folder:
        clips = []
        for number in range(CLIPS):
            write_clip(path := Path(folder, "clip.mp4"), 160, 120, 20 + number, interval=12)
            clips.append(path.read_bytes())
        for number, clip in zip(range(count), itertools.cycle(clips)):
            (path := Path(folder, f"{number}.mp4")).write_bytes(clip)
            read(str(path))
            path.unlink()
            done()


def by_media(path: str) -> None:
    """Read a video as a task does: with its cache, by PyAV if key frames lead to the frames, else by decord."""
    VideoFile(path).frame(0)


def by_pyav(path: str) -> None:
    """Read 16 frames with PyAV alone."""
    decode(read_with_pyav, path, sample_frames(len(probe_video(path)[2]), 16))


def by_decord(path: str) -> None:
    """Read 16 frames with decord alone."""
    count = len(probe_video(path)[2])
    decode(read_with_decord, path, sample_frames(count, 16), count)


@dataclass(frozen=True)
class Series:
    """Something that is done many times.

    Attributes:
        unit: What an item is.
        count: How many.
        run: Does it, given how many and what to call after each.
    """

    unit: str
    count: int
    run: Callable[[int, Done], None]


def _videos(count: int, read: Callable[[str], Any], in_process: bool) -> Series:
    return Series("video", count, partial(videos, read, in_process))


SERIES = {
    "episodes on stills": Series("episode", 100_000, partial(episodes, ("search", "count", "read"), 10)),
    "episodes on clips": Series("episode", 2_000, partial(episodes, ("clip",), 2)),
    "videos": _videos(10_000, by_media, False),
    "videos, in a process": _videos(2_000, by_media, True),
    "videos by PyAV": _videos(1_000, by_pyav, False),
    "videos by PyAV, in a process": _videos(1_000, by_pyav, True),
    "videos by decord": _videos(1_000, by_decord, False),
    "videos by decord, in a process": _videos(1_000, by_decord, True),
}


class Late(Exception):
    """The time of a series is over."""


def follow(name: str, count: int, seconds: float) -> Course:
    """Do up to `count` items of a series in this process, as many as the seconds allow, and look on the way."""
    course, every, end = Course(), max(1, count // SAMPLES), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder, tqdm(total=count, desc=name, unit=SERIES[name].unit) as bar:
        tempfile.tempdir = folder

        def done() -> None:
            bar.update()
            if bar.n % every == 0:
                course.note(int(bar.n))
            if time.monotonic() > end:
                raise Late

        course.note(0)
        try:
            with suppress(Late):
                SERIES[name].run(count, done)
        finally:
            tempfile.tempdir = None
        course.note(int(bar.n))  # with everything closed
        course.files = len(list(Path(folder).rglob("*")))
    return course


# --- what it says -----------------------------------------------------------------------------------------------------


def verdict(course: Course) -> dict[str, Any]:
    """Return how memory and speed at the end compare with those after the warm-up, and what is left over.

    Returns:
        `memory_mb`: mean of the second tenth. `bytes_an_item`: slope of the memory and its interval. `grown_mb`: upper
        end of that, times the items after the warm-up. `items_a_cpu_second`: in the second and in the last tenth;
        `speed`: the latter by the former, by seconds of the processor and by the clock. `left_over`: more than there
        were before the first item; a process in which decoders run stays for the next file, and ends with its parent.
    """
    numbers = {name: np.array(getattr(course, name)[:-1]) for name in ("items", "memory", "cpu", "seconds")}
    tenths = np.array_split(np.arange(1, len(numbers["items"])), 10)
    items, memory = (np.array([numbers[name][part].mean() for part in tenths[1:]]) for name in ("items", "memory"))
    centred = items - items.mean()
    slope = centred @ memory / (centred @ centred)
    rest = memory - memory.mean() - slope * centred
    margin = T_7 * np.sqrt(rest @ rest / (len(rest) - 2) / (centred @ centred))
    grown = float(slope + margin) * float(numbers["items"][-1] - numbers["items"][tenths[0][-1]])
    ends = [(part[0] - 1, part[-1]) for part in (tenths[1], tenths[-1])]
    paces = {
        clock: [float(np.diff(numbers["items"][[*two]])[0] / np.diff(numbers[clock][[*two]])[0]) for two in ends]
        for clock in ("cpu", "seconds")
    }
    speed = {clock: round(last / second, 3) for clock, (second, last) in paces.items()}
    return {
        "memory_mb": round(float(memory[0]), 1),
        "bytes_an_item": [round(float(1e6 * bound), 1) for bound in (slope, slope - margin, slope + margin)],
        "grown_mb": round(grown, 2),
        "flat": grown < FLAT * float(memory[0]),
        "items_a_cpu_second": [round(pace, 1) for pace in paces["cpu"]],
        "speed": speed,
        "steady": speed["cpu"] > STEADY,
        "left_over": {name: getattr(course, name)[-1] - getattr(course, name)[0] for name in COUNTED}
        | {"files": course.files},
        "most": {"descriptors": max(course.descriptors), "threads": max(course.threads)},
    }


def draw(courses: Mapping[str, Course], path: Path) -> None:
    """Draw memory and speed along every series: a column for each kind of item."""
    columns: dict[str, list[str]] = {}
    for name in courses:
        columns.setdefault(name if name.startswith("episodes") else "videos", []).append(name)
    figure, axes = plt.subplots(2, len(columns), figsize=(6 * len(columns), 7), squeeze=False)
    for (above, below), (title, names) in zip(axes.T, columns.items(), strict=True):
        for name in names:
            items, memory, cpu = (
                np.array(of[:-1]) for of in (courses[name].items, courses[name].memory, courses[name].cpu)
            )
            above.plot(items[1:], memory[1:], label=name)
            apart = 1 + len(items) // 10  # between two samples are a few ticks of the clock only
            below.plot(items[apart:], (items[apart:] - items[:-apart]) / (cpu[apart:] - cpu[:-apart]), label=name)
        above.set(title=title, ylabel="resident memory, MB", ylim=(0, None))
        below.set(xlabel="done", ylabel="a second of the processor", ylim=(0, None))
        above.grid(alpha=0.3)
        below.grid(alpha=0.3)
        if len(names) > 1:
            above.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown table of the verdicts."""
    lines = [
        "| series | done | memory, MB | grown, bytes an item | flat | speed, last tenth / second | left over |",
        "|---|---:|---:|---:|---|---:|---|",
    ]
    for name, said in results.items():
        slope, low, high = said["bytes_an_item"]
        left = ", ".join(f"{count} {what}" for what, count in said["left_over"].items() if count > 0) or "nothing"
        lines.append(
            f"| {name} | {said['done']:,} | {said['memory_mb']:,.0f} | {slope:,.0f} [{low:,.0f}, {high:,.0f}] "
            f"| {'yes' if said['flat'] else 'no'} | {said['speed']['cpu']:.2f} | {left} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run series, each in a process of its own, and write JSON file and picture; what is not run stays in them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", nargs="+", default=list(SERIES), choices=SERIES, help="which to run (default: all)")
    parser.add_argument("--share", type=float, default=1.0, help="share of the items to do (default 1: all)")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="end each series after so long, with what is done"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "long_runs.json", help="JSON file; the PNG lies beside")
    arguments = parser.parse_args()
    if not 0 < arguments.share <= 1:
        parser.error(f"expected --share above 0 and at most 1, got {arguments.share:g}")
    about = provenance(PACKAGES)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for name in arguments.series:
        count = max(SAMPLES, round(arguments.share * SERIES[name].count))
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            course = pool.submit(follow, name, count, 60 * arguments.minutes).result()
        if len(course.items) < FEWEST:
            sys.exit(
                f"{name}: expected at least {FEWEST} looks to judge it by, got {len(course.items)}; give it more time"
            )
        head = {"done": course.items[-1], "of": count, "commit": about["commit"], "date": about["date"]}
        kept = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"results": {}, "courses": {}}
        results, courses = kept["results"] | {name: head | verdict(course)}, kept["courses"] | {name: asdict(course)}
        arguments.out.write_text(readable(about | {"results": results, "courses": courses}))
        draw({name: Course(**courses[name]) for name in SERIES if name in courses}, arguments.out.with_suffix(".png"))
    print(table({name: results[name] for name in SERIES if name in results}))


if __name__ == "__main__":
    main()
