"""A digest of what an evaluation asks, by which two evaluations know that they asked the same."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pixel_env.media import ImageFile, Source, VideoFile
from pixel_env.tasks import Task
from pixel_env.tasks.paths import inside
from pixel_env.tasks.sources import FrameFiles, StoredImage

EDGE = 2**16
"""Bytes read at each end of a file."""


def fingerprint(items: Sequence[Task] | Sequence[str]) -> str:
    """Return a digest of tasks (id, question, options, answers, and the stored form of the media), or of others.

    The order does not count, and neither does where the files lie. Media are not decoded: of a file of pictures or a
    video count its size and both ends, of a picture in a table its bytes. Pictures that are drawn follow from the id.
    """
    parts = [item if isinstance(item, str) else _of_task(item) for item in items]
    return _digest("\n".join(sorted(parts)).encode())


def _of_task(task: Task) -> str:
    return json.dumps([task.task_id, task.question, task.choices, task.answers, _of_media(task.media)])


def _of_media(media: Source) -> str:
    try:
        match media:
            case ImageFile() | VideoFile():
                return _of_file(Path(media.path))
            case FrameFiles():
                return _digest("".join(_of_file(media.folder / name) for name in media.names).encode())
            case StoredImage():
                return _of_cell(media, media.table.blob(media.row, media.column))
    except (OSError, ValueError):
        return "unreadable"
    return ""


def _of_cell(media: StoredImage, cell: Any) -> str:
    """Return the digest of a picture in a table: bytes, base64 text, or a mapping of bytes and path."""
    if isinstance(cell, dict):
        if cell.get("bytes") is None:
            return _of_file(inside(media.root, cell.get("path")))
        cell = cell["bytes"]
    return _digest(cell if isinstance(cell, bytes) else str(cell).encode())


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        start = file.read(EDGE)
        file.seek(max(0, size - EDGE))
        return _digest(str(size).encode() + start + file.read(EDGE))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
