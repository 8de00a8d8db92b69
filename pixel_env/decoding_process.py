"""Processes in which decoders run, so that one that crashes or hangs takes one file along, and not the run.

Not a sandbox: what a decoder could be made to do in this process, it can do in that one. A process is started when it
is first needed and again after it died; as many run as threads decode at a time.
"""

import atexit
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from PIL import Image

START_SECONDS = 600.0
"""Time-out of starting a process, which imports the decoders."""

MEMORY = 8 * 2**30
"""Bytes of address space of a process, or 24 for each pixel allowed if that is more, where the system can limit it."""


class Died(RuntimeError):
    """A process ended before it gave a result: how."""


class Late(RuntimeError):
    """A process was killed for taking too long."""


class Failed(RuntimeError):
    """A decoder raised: what it said."""


def run(function: Callable[..., Any], arguments: tuple[Any, ...], limits: Mapping[str, int], seconds: float) -> Any:
    """Run a decoder in a process.

    Args:
        function: A module-level function.
        arguments: Its arguments; they and the result are pickled.
        limits: Constants of `pixel_env.decoding` that hold there, by name.
        seconds: Time-out.

    Raises:
        Died, Late, Failed: It gave no result.
    """
    request = pickle.dumps((function, arguments, limits))
    idle = _idle(os.getpid())
    child = idle.pop() if idle else _Child()
    try:
        try:
            done, result = child.ask(request, seconds)
        except Died:
            if child.asked == 1:
                raise
            child.close()
            child = _Child()  # what ended it may have come before this file: once more, in a new one
            done, result = child.ask(request, seconds)
    except BaseException:
        child.close()
        raise
    idle.append(child)
    if not done:
        raise Failed(result)
    return result


@cache
def _idle(pid: int) -> list["_Child"]:
    """Return the children of this process that wait: a fork must not talk through the pipes of its parent."""
    children: list[_Child] = []

    def close() -> None:
        for child in children if os.getpid() == pid else ():
            child.close()

    atexit.register(close)
    return children


class _Child:
    """One process and its pipes."""

    def __init__(self) -> None:
        self.asked = 0
        # Functions are found where this process would find them; -P keeps the current folder from adding more.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        command = [sys.executable, "-P", "-c", "from pixel_env.decoding_process import serve; serve()"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=-1
        )
        try:
            self._exchange(b"", START_SECONDS)
        except BaseException:
            self.close()
            raise

    def ask(self, request: bytes, seconds: float) -> tuple[bool, Any]:
        """Return whether the decoder gave a result, and that, or what it raised."""
        self.asked += 1
        return self._exchange(request, seconds)

    def _exchange(self, request: bytes, seconds: float) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
            return pickle.load(self._process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            if late.is_set():
                raise Late(f"took longer than {seconds:g} s") from None
            self._process.kill()  # without effect on what ended by itself
            code = self._process.wait()
            said = signal.Signals(-code).name if -code in set(signal.Signals) else f"code {code}"
            raise Died(f"its process ended with {said}") from None
        finally:
            timer.cancel()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what could not be written to a dead child
                if pipe is not None:
                    pipe.close()


# --- the child --------------------------------------------------------------------------------------------------------


def serve() -> None:
    """Run one decoder after the other until the parent is gone."""
    from pixel_env import decoding

    with contextlib.suppress(ImportError, ValueError, OSError):  # not every system can limit it
        import resource

        memory = max(MEMORY, 24 * max(decoding.MAX_IMAGE_PIXELS, decoding.MAX_VIDEO_PIXELS))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file for every bad picture would fill the disk
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the parent
    Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit; ours is held right after it
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no reply
    _reply(replies, "ready")
    while True:
        try:
            function, arguments, limits = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        vars(decoding).update(limits)
        try:
            result = function(*arguments)
            if isinstance(result, Image.Image):
                result.info = {}  # of any size and kind, and never read
            _reply(replies, (True, result))
        except Exception as error:
            _reply(replies, (False, str(error) or type(error).__name__))


def _reply(file: Any, value: Any) -> None:
    pickle.dump(value, file, protocol=5)
    file.flush()
