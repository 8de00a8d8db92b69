"""Paths of task sets: the tables of a folder, and media that must lie inside the data root."""

import glob
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg")


def inside(root: Path, relative: object, folders: Sequence[str] = ("",)) -> Path:
    """Return the file or folder that a data file names, which must lie inside ``root``.

    Args:
        root: The data root.
        relative: What the data file says: a path relative to ``root`` or one of ``folders``, with ``/``.
        folders: Where to look below ``root``, in this order.

    In the cache of the Hugging Face Hub, where ``snapshots/REVISION/`` holds links into ``blobs/`` beside it, the links
    of a snapshot are inside.

    Raises:
        ValueError: No such file, or one outside of the root: an absolute path, ``..``, or a link that leads out.
        OSError: The place cannot be looked at, as where a part of the path is too long for a name.
    """
    pure = PurePosixPath(relative.replace("\\", "/") if isinstance(relative, str) else "")
    if not isinstance(relative, str) or not pure.parts or "\0" in relative or len(relative) > 1000:
        raise ValueError(f"expected a path relative to the data root, got {str(relative)[:80]!r}")
    if pure.is_absolute() or ".." in pure.parts or ":" in pure.parts[0]:
        raise ValueError(f"expected a path inside the data root, got {relative!r}; make it relative, without '..'")
    for folder in folders:
        path = root / folder / pure
        if path.is_file() or path.is_dir():  # no pipe or device, which could be read without end
            target = path.resolve()
            if not any(target.is_relative_to(place) for place in (root.resolve(), *_blobs(root))):
                raise ValueError(
                    f"expected a path inside the data root, got {relative!r}, a link that leads out of it to {target}; "
                    "copy the file, or give the folder of both as root"
                )
            return path
    tried = ", ".join(str(PurePosixPath(folder, pure)) for folder in folders)
    raise ValueError(f"expected a file below {root}, got none at {tried}; unpack the media there, or give their root")


def _blobs(root: Path) -> list[Path]:
    """Return the folder that the links of a snapshot lead to, if ``root`` lies in one."""
    snapshots = [place for place in root.absolute().parents if place.name == "snapshots" and "--" in place.parent.name]
    return [place.with_name("blobs").resolve() for place in snapshots[:1]]


def media_root(path: Path) -> Path:
    """Return the folder that media paths start from: a folder, or that of a table.

    The document challenges unpack into ``*_qas/`` and ``*_images/`` beside each other: there it is the folder of both.
    """
    folder = path if path.is_dir() else path.parent
    if folder.name.endswith("_qas") and any(folder.parent.glob("*_images")):
        return folder.parent
    return folder


def files_in(folder: Path, suffixes: Sequence[str]) -> list[str]:
    """Return the names of the files with these suffixes in a folder and the folders in it, sorted, with ``/``.

    Links to folders are not followed.
    """
    found: list[str] = []
    for place, _, names in os.walk(folder):
        below = Path(place).relative_to(folder)
        found += [(below / name).as_posix() for name in names if name.lower().endswith(tuple(suffixes))]
    return sorted(found)


def find_tables(path: Path, patterns: Sequence[str]) -> list[Path]:
    """Return the one table, or its shards, that ``path`` means.

    Args:
        path: A file; a folder with one table in it; or the common beginning of shards: ``.../validation`` for
            ``.../validation-00000-of-00002.parquet``.
        patterns: Globs of the tables of a folder, tried in this order.

    Raises:
        ValueError: There is none, or more than one.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        shards = sorted(path.parent.glob(f"{glob.escape(path.name)}-*-of-*.parquet"))
        if not shards:
            raise ValueError(f"expected a file or a folder, got {path}, where there is none; check the path")
        return shards
    for pattern in patterns:
        found = sorted(file for file in path.glob(pattern) if file.is_file())
        stems = {re.sub(r"-\d+-of-\d+$", "", file.stem) for file in found}
        if len(stems) > 1:
            raise ValueError(
                f"expected one table in {path}, got {_listed(f.name for f in found)}; give the path of one"
            )
        if found:
            return found
    raise ValueError(f"expected {' or '.join(patterns)} in {path}, got {_contents(path)}; is it the right folder?")


def require_folder(path: Path, entries: Sequence[str]) -> None:
    """Raise ValueError unless ``path`` is a folder that has all ``entries``."""
    if not path.is_dir() or any(not (path / entry).exists() for entry in entries):
        got = _contents(path) if path.is_dir() else "no folder"
        raise ValueError(
            f"expected a folder with {' and '.join(entries)} at {path}, got {got}; is it the right folder?"
        )


def _contents(folder: Path) -> str:
    return _listed(sorted(entry.name for entry in folder.iterdir())) or "an empty folder"


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:6]) + (f" and {len(listed) - 6} more" if len(listed) > 6 else "")
