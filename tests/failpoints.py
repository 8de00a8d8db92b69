"""Faults at chosen moments: a kill or an error at the n-th line that `pixel_env.journal` runs, and a lock of others."""

import errno
import os
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from pixel_env import journal
from pixel_env.command_line import run_folder


@contextmanager
def at_line(number: int, act: Callable[[], object]) -> Iterator[list[int]]:
    """Act before the line with this number, counted from 1, of all that `journal` runs; yields how many ran."""
    count = [0]

    def inside(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            count[0] += 1
            if count[0] == number:
                act()
        return inside

    def outside(frame: FrameType, *_: Any) -> Any:
        return inside if frame.f_code.co_filename == journal.__file__ else None

    before = sys.gettrace(), threading.gettrace()
    sys.settrace(outside)
    threading.settrace(outside)
    try:
        yield count
    finally:
        sys.settrace(before[0])
        threading.settrace(before[1])  # type: ignore[arg-type]


def no_room() -> None:
    """What a full disk says."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def in_fork(work: Callable[[], Any], log: Path) -> int:
    """Do work in a fork; returns its exit code, that of a signal negative. What it says on stderr goes to a file."""
    if pid := _fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        sys.stdout, sys.stderr = (open(descriptor, "w", closefd=False) for descriptor in (1, 2))  # not those of pytest
        code = int(work() or 0)
    finally:
        sys.stderr.flush()
        os._exit(code)


def killed_at_line(number: int, work: Callable[[], Any], log: Path) -> int:
    """Do work in a fork that is killed at a line of `journal`; returns its exit code, as `in_fork`."""

    def traced() -> Any:
        with at_line(number, lambda: os.kill(os.getpid(), signal.SIGKILL)):
            return work()

    return in_fork(traced, log)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file that this process writes grow beyond a number of bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def held_by_another(out: Path) -> Iterator[None]:
    """A process is at work in a run folder, and is killed at the end of the block."""
    reading, writing = os.pipe()
    if not (pid := _fork()):
        try:
            with run_folder(out):
                os.write(writing, b"held")
                signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    try:
        assert os.read(reading, 4) == b"held"
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork where other tests have left threads
        return os.fork()
