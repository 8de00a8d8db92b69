"""Files that a kill or a full disk leaves whole: written a line at a time, or in one go.

Lines are with the operating system when a function returns, so a kill of the process loses none; what is written in one
go is also on the disk before it takes its place, so a loss of power does not leave it empty.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def append(path: Path, line: str) -> None:
    """Append one line; a kill leaves it whole, or cut short without its end.

    Raises:
        OSError: It does not fit, and the file is as it was.
    """
    data, written = f"{line}\n".encode(), 0
    with path.open("ab", buffering=0) as file:
        end = file.tell()
        try:
            written = file.write(data)
        finally:
            if written < len(data):  # half a line would spoil the next one too
                file.truncate(end)
    if written < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def complete_lines(path: Path) -> None:
    """Drop a last line that a kill cut short; make the file if there is none."""
    path.touch()
    text = path.read_bytes()
    if not text.endswith(b"\n"):
        os.truncate(path, text.rfind(b"\n") + 1)  # not written anew: a kill would leave the half of it


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield where to write a file or a folder, which takes the place of `path` at the end of the block.

    A kill leaves the old one or the new one (of a folder that is replaced, for a moment, neither), and perhaps what was
    begun beside it; an exception in the block leaves the old one alone.
    """
    part, old = (path.with_name(f"{path.name}.{end}") for end in ("part", "old"))
    _remove(part)
    try:
        yield part
        sync(part)
    except BaseException:
        _remove(part)
        raise
    if path.is_dir():  # a folder that is removed piece by piece could be taken for a whole one
        _remove(old)
        path.rename(old)
    part.replace(path)
    _remove(old)


def replace_text(path: Path, text: str) -> None:
    """Write a file; a kill leaves the old one or the new one."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def sync(path: Path) -> None:
    """Return when a file, or all of a folder, is on the disk."""
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file():
            with file.open("rb+") as written:
                os.fsync(written.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
