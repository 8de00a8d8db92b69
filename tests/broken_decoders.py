"""Decoders that go wrong in every way; a process that decodes has to find them in a module."""

import os
import signal
import sys
import time
from pathlib import Path


def crash(path: str) -> None:
    """End as native code does that reads where it may not."""
    os.kill(os.getpid(), signal.SIGSEGV)


def leave(path: str) -> None:
    os._exit(0)


def hang(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    while True:
        time.sleep(60)


def fail(path: str) -> None:
    raise MemoryError


def chatter(path: str) -> str:
    print("not a reply", flush=True)
    os.write(1, b"nor this")
    return "a result"


def refuse_to_be_sent(path: str) -> object:
    return sys._getframe()


def process(path: str) -> int:
    return os.getpid()
