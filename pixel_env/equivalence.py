"""Are two answers equal as mathematics? math-verify, in a process that can be killed.

A computer algebra system that reads what a model wrote may compute a tower of powers for hours, in calls that no alarm
interrupts. So it runs in a child process with limited time and memory, which is started when first needed and is this
file run as a script. Install it with ``pip install "pixel-env[math]"``.
"""

import atexit
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from functools import cache
from typing import Literal

Outcome = Literal["equal", "different", "first unreadable", "second unreadable", "gave up"]

SECONDS = 30.0  # math-verify's own time-outs of 5 s would call slow "different" or "unreadable", so they are off
START_SECONDS = 600.0  # with imports, on a machine that is very busy
MEMORY = 4 * 2**30  # bytes of address space of the child


def require() -> None:
    """Raise ImportError unless math-verify is installed."""
    if importlib.util.find_spec("math_verify") is None:
        raise ImportError('expected math-verify to be installed, got none; run pip install "pixel-env[math]"')


def compare(first: str, second: str, seconds: float = SECONDS) -> Outcome:
    r"""Say whether two texts hold equal mathematics. Not symmetric: math-verify takes the accepted answer first.

    Args:
        first: a text with LaTeX or numbers, for example ``\boxed{\frac{1}{2}}``.
        second: the other text.
        seconds: time-out, after which the outcome is "gave up".

    Raises:
        ImportError: if math-verify is not installed.
        RuntimeError: if it is, and does not work: nothing is counted as wrong for that.
    """
    require()
    return _checker(os.getpid()).ask(first, second, seconds)


@cache
def _checker(pid: int) -> "_Checker":
    """Return the checker of this process: a fork must not talk through the pipes of its parent."""
    checker = _Checker()
    atexit.register(lambda: checker.close() if os.getpid() == pid else None)
    return checker


class _Checker:
    """One child process: started when it is asked, and again after it had to be killed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None

    def ask(self, first: str, second: str, seconds: float) -> Outcome:
        line = json.dumps([first, second]) + "\n"
        with self._lock:
            self._running()
            began = time.monotonic()
            reply = self._exchange(line, seconds)
            if not reply and time.monotonic() - began < seconds:  # it died by itself: once more, in a new one
                reply = self._exchange(line, seconds)
        return json.loads(reply) if reply else "gave up"

    def _exchange(self, line: str, seconds: float) -> str:
        """Return the reply, or "" if the child died or was killed for being late."""
        child = self._running()
        assert child.stdin is not None
        with contextlib.suppress(OSError):
            child.stdin.write(line)
            child.stdin.flush()
        reply = _line(child, seconds)
        if not reply:
            self.close()
        return reply

    def _running(self) -> "subprocess.Popen[str]":
        if self._child is None or self._child.poll() is not None:
            self.close()
            # -P keeps the modules beside this file from standing in for others of the same name.
            command = [sys.executable, "-P", __file__]
            pipe, null = subprocess.PIPE, subprocess.DEVNULL
            self._child = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=null, text=True, encoding="ascii", bufsize=-1
            )
            said = _line(self._child, START_SECONDS)
            problem = json.loads(said) if said else "its process ended, or was late, before it said anything"
            if problem:
                self.close()
                raise RuntimeError(
                    f"expected a math-verify that works, got: {problem}; install it again, with "
                    'pip install --force-reinstall "pixel-env[math]"'
                )
        return self._child

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                with contextlib.suppress(OSError):  # what could not be written to a dead child
                    if pipe is not None:
                        pipe.close()
        self._child = None


def _line(child: "subprocess.Popen[str]", seconds: float) -> str:
    """Return the next line of a child, "" where it ended; it is killed when it is late."""
    assert child.stdout is not None
    timer = threading.Timer(seconds, child.kill)
    timer.start()
    try:
        return child.stdout.readline()
    finally:
        timer.cancel()


# --- the child --------------------------------------------------------------------------------------------------------


def _answer_forever() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # not every system can limit it
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print(json.dumps(_problem()), flush=True)
    for line in sys.stdin:
        print(json.dumps(_outcome(*json.loads(line))), flush=True)


def _problem() -> str:
    """Say why math-verify does not work, "" where it does: what breaks in it below counts as unreadable."""
    try:
        from math_verify import parse, verify

        half, same = (parse(text, parsing_timeout=0) for text in (r"\boxed{\frac{1}{2}}", r"\boxed{0.5}"))
        equal = verify(half, same, timeout_seconds=0)
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    return "" if equal else "it does not find 1/2 equal to 0.5"


def _outcome(first: str, second: str) -> Outcome:
    from math_verify import parse, verify

    with contextlib.suppress(Exception):
        parsed = parse(second, parsing_timeout=0)
        if parsed:
            with contextlib.suppress(Exception):
                candidate = parse(first, parsing_timeout=0)
                if candidate:
                    return "equal" if verify(candidate, parsed, timeout_seconds=0) else "different"
            return "first unreadable"
    return "second unreadable"


if __name__ == "__main__":
    _answer_forever()
