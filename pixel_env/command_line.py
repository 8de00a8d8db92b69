"""How the commands of this project read their words and end: a mistake in one line, a stop with how to go on."""

import argparse
import errno
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Settings = TypeVar("Settings")

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ROOM_SAYS = re.compile(rf"os error ({'|'.join(map(str, NO_ROOM))})\)|unexpected pos \d+ vs|failed writing file")
"""What safetensors and torch say where they can write no more; they raise no OSError."""


class UsageError(Exception):
    """What the caller has to change; told in one line."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Raise, so that all mistakes leave by the same door."""
        raise UsageError(f"{message} (--help lists all options)")


def parser_of(script: str, options: str, description: str) -> Parser:
    """Return an empty command line of a script with many options.

    Args:
        script: Its path, "agents/train_vlm.py".
        options: What follows it in the line on its usage.
        description: A title and, after an empty line, examples.
    """
    title, _, examples = description.partition("\n\n")
    return Parser(
        prog=script.rpartition("/")[2],
        usage=f"python {script} {options}",
        description=title,
        epilog=f"examples:\n{examples}",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=32, width=120),
        allow_abbrev=False,
    )


@dataclass
class Ending:
    """How a command ends.

    Attributes:
        code: The exit code: 0, or 1 where there was no room to write, 2 after a mistake, 130 after Ctrl+C.
        go_on: What to do after a stop.
    """

    code: int = 0
    go_on: str = "go on with the same command"


@contextmanager
def ending(program: str) -> Iterator[Ending]:
    """Tell a mistake, a full disk or a stop in one line, and keep the exit code for it.

    >>> with ending("train_vlm.py") as end:
    ...     raise KeyboardInterrupt
    >>> end.code
    130
    """
    end = Ending()
    try:
        yield end
    except UsageError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        end.code = 2
    except KeyboardInterrupt:
        print(f"\nstopped; {end.go_on}", file=sys.stderr)
        end.code = 130
    except Exception as error:
        if not (full := _no_room(error)):
            raise
        print(f"{program}: error: there is no room to write: {full}; make some, then {end.go_on}", file=sys.stderr)
        end.code = 1


def _no_room(error: Exception) -> str:
    """Return what an error says about a full disk, a quota or a limit of the size of files; "" of any other."""
    if isinstance(error, ExceptionGroup):
        return next(filter(None, map(_no_room, error.exceptions)), "")
    if error.errno in NO_ROOM if isinstance(error, OSError) else NO_ROOM_SAYS.search(str(error)):
        return str(error).splitlines()[0]
    return ""


@contextmanager
def run_folder(out: Path) -> Iterator[None]:
    """Make the folder of a run, and keep other runs out of it until the block, or this process, ends.

    Where the system or the file system knows no locks, nobody is kept out.

    Raises:
        UsageError: It cannot be written to, or another process runs in it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        held = (out / "lock").open("ab")
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror}; choose another --out") from None
    with held:
        try:
            if fcntl is not None:
                fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: workers would hold it after a kill
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UsageError(f"another run is at work in {out}; wait for it, or choose another --out") from None
        yield


def resumed(
    argv: Sequence[str], out: Path | None, runs: Path, read: Callable[[dict[str, Any]], Settings]
) -> tuple[Settings, Path]:
    """Return the settings of a run that --resume continues, and its folder.

    Args:
        argv: The words of the command line; but for the folder, a run keeps the settings that it has.
        out: The folder, or None for the newest in `runs`.
        runs: Where runs lie.
        read: Makes settings of what `config.json` has under "settings".

    Raises:
        UsageError: Other options are given, there is no run, or its file is something else.
    """
    given = [word for word in argv if word.startswith("--") and not word.startswith(("--out", "--resume"))]
    if given:
        raise UsageError(f"--resume takes all settings from the run; drop {' '.join(given)}")
    if out is None:
        found = sorted(runs.glob("*/config.json"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise UsageError(f"there is no run to resume in {runs.resolve()}; give its folder with --out")
        out = found[-1].parent
    path = out / "config.json"
    try:
        return read(json.loads(path.read_text(encoding="utf-8"))["settings"]), out
    except FileNotFoundError:
        raise UsageError(f"there is no run to resume in {out}: {path} does not exist") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is not the configuration of a run: {error}") from None
