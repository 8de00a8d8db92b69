"""Rows of parquet files: texts a row group at a time, pictures one at a time.

Files on the Hub put hundreds of pictures into one row group, and into one page of it, more than memory holds: see
`pixel_env.tasks.parquet_pages`. Columns that it cannot read are stepped through by pyarrow, a page at a time. Needs
pyarrow, the extra ``data``.
"""

import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import lru_cache, partial
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from pixel_env.tasks.records import Fields, check_columns

try:
    import pyarrow
    import pyarrow.parquet
except ImportError as error:
    raise ImportError("reading parquet needs pyarrow: pip install 'pixel-env[data]'") from error

from pixel_env.tasks.parquet_pages import ColumnPages, readable  # behind the check for pyarrow

BUFFER = 2**20  # without it, or with pre-buffering, pyarrow reads the whole column of a row group at once


class ParquetTable:
    """The rows of one or several parquet files with the same columns; a `pixel_env.tasks.tables.Table`.

    Opening reads footers. One file is kept open at most, while pictures are read from it.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        columns: Sequence[str],
        optional: Sequence[str] = (),
        blobs: Sequence[str] = (),
    ) -> None:
        """Open files.

        Args:
            paths: The shards, in order.
            columns: Columns that must exist.
            optional: Columns that are read where they exist.
            blobs: Columns that must exist and are only read by `blob`.

        Raises:
            ValueError: A file is no parquet file, or lacks a column.
        """
        self._arguments = (tuple(paths), tuple(columns), tuple(optional), tuple(blobs))
        self._groups: list[tuple[Path, int, tuple[str, ...]]] = []
        sizes: list[int] = []
        for path in paths:
            metadata, names = _footer(path)
            check_columns(path, [*columns, *blobs], names)
            texts = (*columns, *(name for name in optional if name in names))
            for group in range(metadata.num_row_groups):
                self._groups.append((path, group, texts))
                sizes.append(metadata.row_group(group).num_rows)
        self._starts = [0, *accumulate(sizes)]
        self._texts = lru_cache(maxsize=4)(self._read_texts)
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._reading: tuple[int, str] | None = None
        self._cell: Callable[[int], Any]

    def __reduce__(self) -> tuple[Any, ...]:
        return ParquetTable, self._arguments

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, row: int) -> Fields:
        group, offset = self._find(row)
        try:
            texts = self._texts(group)
        except (OSError, pyarrow.ArrowException) as error:
            raise ValueError(f"{self.place(row)}: the row group is damaged: {error}") from error
        return {name: column[offset].as_py() for name, column in texts.items()}

    def place(self, row: int) -> str:
        """Name the file and the row in it."""
        group, offset = self._find(row)
        path, number, _ = self._groups[group]
        return f"{path.name}, row group {number}, row {offset} of it"

    def blob(self, row: int, column: str) -> Any:
        """Read a picture; quick for the row after the last one, else those before it in its page are passed over."""
        group, offset = self._find(row)
        with self._lock:
            try:
                if self._reading != (group, column):
                    self._begin(group, column)
                return self._cell(offset)
            except (OSError, ValueError, pyarrow.ArrowException, StopIteration) as error:
                self._reading = None
                raise ValueError(f"{self.place(row)}: cannot read {column}: {error}") from error

    def _find(self, row: int) -> tuple[int, int]:
        group = bisect_right(self._starts, row) - 1
        return group, row - self._starts[group]

    def _read_texts(self, group: int) -> dict[str, Any]:
        path, number, columns = self._groups[group]
        with pyarrow.parquet.ParquetFile(path) as file:
            table = file.read_row_group(number, columns=list(columns))
        return {name: table.column(name) for name in columns}

    def _begin(self, group: int, column: str) -> None:
        self._stack.close()
        self._reading = None
        path, number, _ = self._groups[group]
        metadata = pyarrow.parquet.read_metadata(path)
        paths = [metadata.schema.column(leaf).path for leaf in range(metadata.num_columns)]
        leaves = [leaf for leaf, name in enumerate(paths) if name.partition(".")[0] == column]
        if all(readable(metadata, number, leaf) for leaf in leaves):
            raw = self._stack.enter_context(pyarrow.OSFile(str(path)))
            pages = {paths[leaf]: ColumnPages(raw, metadata, number, leaf) for leaf in leaves}
            self._cell = partial(_cell, pages, column)
        else:
            file = pyarrow.parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)
            self._stack.callback(file.close, force=True)
            self._cell = _Steps(file, number, column)
        self._reading = group, column


def _cell(pages: dict[str, ColumnPages], column: str, row: int) -> Any:
    """Return a text, bytes, or the mapping of Hugging Face."""
    if column in pages:
        return pages[column][row]
    return {path.rpartition(".")[2]: values[row] for path, values in pages.items()}


class _Steps:
    """The cells of a column of a row group, read forward by pyarrow; from the beginning where a row lies behind."""

    def __init__(self, file: Any, group: int, column: str) -> None:
        options = {"row_groups": [group], "columns": [column], "use_threads": False}
        self._batches = partial(file.iter_batches, batch_size=1, **options)
        self._cells, self._next = self._batches(), 0

    def __call__(self, row: int) -> Any:
        if row < self._next:
            self._cells, self._next = self._batches(), 0
        for batch in islice(self._cells, row - self._next, None):
            self._next = row + 1
            return batch.column(0)[0].as_py()
        raise ValueError("the column ends before")


def _footer(path: Path) -> tuple[Any, list[str]]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            return file.metadata, file.schema_arrow.names
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"{path}: expected a parquet file: {error}") from error
