"""Media of task sets from files: stored pictures, frames as image files, and what stands for a damaged item."""

import base64
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from pixel_env.cache import DECODED
from pixel_env.decoding import Frames, MediaError, decode, decode_here, decode_images
from pixel_env.media import DecodedFrames, EncodedImage, stamp
from pixel_env.tasks.paths import inside
from pixel_env.tasks.records import MAX_RECORD
from pixel_env.tasks.tables import Table


@dataclass(frozen=True)
class StoredImage(EncodedImage):
    """A picture in a cell of a table.

    Attributes:
        place: File and row, for messages.
        row: Row of the table, 0-based.
        column: Column of the table: bytes, base64 text, or the mapping of ``bytes`` and ``path`` of Hugging Face.
        root: Folder that a path in the cell starts from.
        table: The table.
    """

    place: str
    row: int
    column: str
    root: Path
    table: Table = field(compare=False, repr=False)

    def key(self) -> Hashable:
        """Return the table too: what lies at a place changes when the file does, and then it is another table."""
        return self, self.table

    def decoded(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Decode the picture in the cell."""
        encoded = decode_here(_encoded, self.place, self)  # a table is not handed to another process
        return decode(_decoded, self.place, encoded, function, *arguments)

    def encoded(self) -> str | bytes:
        """Return the path or the bytes of the picture; kept, since reading a cell may take longer than decoding it."""
        return DECODED.get((self._key, "encoded"), self._read_cell, len)

    def _read_cell(self) -> str | bytes:
        cell: Any = self.table.blob(self.row, self.column)
        if isinstance(cell, dict):
            if cell.get("bytes") is None:
                return str(inside(self.root, cell.get("path")))
            cell = cell["bytes"]
        if isinstance(cell, str):
            cell = base64.b64decode(cell.rpartition("base64,")[2], validate=True)
        if not isinstance(cell, bytes) or not 0 < len(cell) <= MAX_RECORD:
            raise ValueError(
                f"expected a picture of 1 to {MAX_RECORD} bytes in {self.column}, got {type(cell).__name__}"
            )
        return cell


def _encoded(place: str, image: StoredImage) -> str | bytes:
    return image.encoded()


def _decoded(place: str, encoded: str | bytes, function: Callable[..., Any], *arguments: Any) -> Any:
    return function(encoded, *arguments)


@dataclass(frozen=True)
class FrameFiles(DecodedFrames):
    """Frames of a video stored as image files of one size.

    Attributes:
        folder: Where they are.
        names: File names from there, in the order of time; a name may come twice.
        times: Seconds at which each is shown.
    """

    folder: Path
    names: tuple[str, ...]
    times: tuple[float, ...]

    def key(self) -> Hashable:
        """Return the files, in their order, and their stamps."""
        return self, tuple(stamp(self.folder / name) for name in self.names)

    def read(self) -> Frames:
        """Decode the files."""
        return decode(decode_images, str(self.folder), self.names), list(self.times)


@dataclass(frozen=True)
class DamagedMedia:
    """Stands in a task whose row cannot be used: looking at it raises `MediaError`, so an episode ends as an error.

    Attributes:
        kind: ``"image"`` or ``"video"``: what the task should have shown.
        problem: File, row, what was expected, what was found.
    """

    kind: str
    problem: str

    @property
    def width(self) -> int:
        """Raise MediaError."""
        raise MediaError(self.problem)

    @property
    def height(self) -> int:
        """Raise MediaError."""
        raise MediaError(self.problem)

    @property
    def num_frames(self) -> int:
        """Raise MediaError."""
        raise MediaError(self.problem)

    def frame(self, index: int) -> Image.Image:
        """Raise MediaError."""
        raise MediaError(self.problem)

    def timestamp(self, index: int) -> float:
        """Raise MediaError."""
        raise MediaError(self.problem)
