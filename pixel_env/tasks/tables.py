"""Tables of data files: rows numbered from 0, read when asked for. What their columns mean is not known here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pixel_env.tasks.paths import inside
from pixel_env.tasks.records import MAX_RECORD, Fields, json_lines, json_table, tsv_table


class Table(Protocol):
    """Rows, numbered from 0 in the order of the file."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def __getitem__(self, row: int) -> Fields:
        """Read one row, pictures left out where the format allows it; raises ValueError for a damaged one."""
        ...

    def place(self, row: int) -> str:
        """Say where a row lies, for messages."""
        ...

    def blob(self, row: int, column: str) -> Any:
        """Read a picture as it is stored: bytes, base64 text, or a mapping of bytes and path."""
        ...


@dataclass(frozen=True, eq=False)
class Files:
    """A row a file: its name under ``file``, and what is read from it.

    Attributes:
        folder: Where the files are.
        names: Their names from there.
        read: From the content of a file to more fields; without it the files are not opened.
    """

    folder: Path
    names: tuple[str, ...]
    read: Callable[[bytes], Fields] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> Fields:
        more: Fields = {}
        if self.read is not None:
            try:
                with open(inside(self.folder, self.names[row]), "rb") as file:
                    more = self.read(file.read(MAX_RECORD))
            except (OSError, ValueError) as error:
                raise ValueError(f"{self.place(row)}: {error}") from error
        return {**more, "file": self.names[row]}

    def place(self, row: int) -> str:
        """Name the file."""
        return self.names[row]

    def blob(self, row: int, column: str) -> Any:
        """Return a cell."""
        return self[row][column]


@dataclass(frozen=True, eq=False)
class Parts:
    """Tables one after another; a row says under ``part`` which it is from.

    Attributes:
        names: Name of each part.
        tables: The parts.
    """

    names: tuple[str, ...]
    tables: tuple[Table, ...]

    def __len__(self) -> int:
        return sum(map(len, self.tables))

    def __getitem__(self, row: int) -> Fields:
        part, offset = self._find(row)
        return {**self.tables[part][offset], "part": self.names[part]}

    def place(self, row: int) -> str:
        """Name the file and the row in it."""
        part, offset = self._find(row)
        return self.tables[part].place(offset)

    def blob(self, row: int, column: str) -> Any:
        """Read a picture of one of the parts."""
        part, offset = self._find(row)
        return self.tables[part].blob(offset, column)

    def _find(self, row: int) -> tuple[int, int]:
        for part, table in enumerate(self.tables):
            if row < len(table):
                return part, row
            row -= len(table)
        raise IndexError(f"expected a row below {len(self)}")


def open_table(
    paths: Sequence[Path], columns: Sequence[str], optional: Sequence[str] = (), blobs: Sequence[str] = ()
) -> Table:
    """Open a .json, .jsonl or .tsv file, or the shards of a .parquet file.

    Args:
        paths: The file, or the shards in order.
        columns: Columns that it must have; keys of JSON are left to the rows.
        optional: Columns that are read too where they exist.
        blobs: Columns of pictures: required, and read only when looked at.

    Raises:
        ValueError: The file is not what its suffix says, or lacks a column.
    """
    path = paths[0]
    if path.suffix == ".parquet":
        from pixel_env.tasks.parquet import ParquetTable  # pyarrow is an extra

        return ParquetTable(paths, columns, optional, blobs)
    if len(paths) > 1:
        raise ValueError(f"expected one file, got {len(paths)} beginning with {path}; give the path of one")
    if path.suffix == ".tsv":
        return tsv_table(path, [*columns, *blobs])
    if path.suffix in (".json", ".jsonl"):
        return json_lines(path) if path.suffix == ".jsonl" else json_table(path)
    raise ValueError(f"expected a .json, .jsonl, .tsv or .parquet file, got {path}; check the path and the format")
