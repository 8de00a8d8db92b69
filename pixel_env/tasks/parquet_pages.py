"""Single values of a column of a parquet file, from pages of any size.

Unless told otherwise pyarrow and pandas write the pictures of a row group as one page, or one page of a dictionary, and
pyarrow unpacks a page at once, up to 2 GB of it. Here a page is unpacked piece by piece, and what comes before a value
is passed over. Formats: github.com/apache/parquet-format (thrift headers, encodings) and github.com/google/snappy
(format_description.txt).

Read are byte arrays and texts outside of lists, plain or by dictionary, under the usual codecs: what writers use unless
told otherwise. The rest is left to pyarrow.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Protocol

import pyarrow

from pixel_env.tasks.records import CHUNK, MAX_RECORD

WHOLE = 2**24
"""Bytes up to which a page is unpacked at once, which is quicker."""

WINDOW = 2**16
"""Bytes that Snappy may refer back to: encoders take blocks of this size, each for itself."""

CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI", "ZSTD")
_PLAIN, _DICTIONARY = 0, (2, 8)
ENCODINGS = {"PLAIN", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "RLE"}
_DATA, _DICTIONARY_PAGE, _DATA_V2 = 0, 2, 3
_CUT = "it is damaged or cut short"


class Stream(Protocol):
    """Bytes from front to back."""

    def read(self, count: int, /) -> bytes:
        """Return this many bytes, fewer at the end."""
        ...

    def seekable(self) -> bool:
        """Whether `seek` works."""
        ...


class Section(io.RawIOBase):
    """A part of a file; several may be read in turn."""

    def __init__(self, file: pyarrow.NativeFile, start: int, size: int) -> None:
        """Begin at byte `start` of the file."""
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Move; see `io.IOBase.seek`."""
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        """Read up to the end of the part."""
        count = min(len(buffer), max(0, self._size - self._at))
        data = self._file.read_at(count, self._start + self._at)  # leaves the position, which forks share, alone
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


@dataclass(frozen=True)
class Page:
    """A page of a column chunk.

    Attributes:
        first: Row of its first value in the row group, 0-based.
        values: Number of its values, nulls included.
        start: Byte of the file behind its header.
        stored: Bytes there.
        unpacked: Bytes of it once unpacked.
        encoding: Number of the encoding of its values.
        levels: Bytes of definition levels that stand before it unpacked; -1 where they are part of it.
        packed: Whether it is compressed.
    """

    first: int
    values: int
    start: int
    stored: int
    unpacked: int
    encoding: int
    levels: int = -1
    packed: bool = True


class ColumnPages:
    """The values of one leaf column in one row group."""

    def __init__(self, file: pyarrow.NativeFile, metadata: Any, group: int, leaf: int) -> None:
        """Read the headers of the pages.

        Args:
            file: The file.
            metadata: Its `pyarrow.parquet.FileMetaData`.
            group: Number of the row group.
            leaf: Number of the leaf column, for which `readable` holds.

        Raises:
            ValueError: The headers are damaged.
        """
        chunk, column = metadata.row_group(group).column(leaf), metadata.schema.column(leaf)
        self._file, self._codec, self._depth = file, chunk.compression, column.max_definition_level
        self._text = column.logical_type.type == "STRING" or column.converted_type == "UTF8"
        self._dictionary: Page | None = None
        self._pages: list[Page] = []
        self._read_headers(chunk)
        self._contents = lru_cache(maxsize=1)(self._read_contents)
        self._at: tuple[Page, int, Stream] | None = None
        self._kept: tuple[Page, int, bytes] | None = None

    def __getitem__(self, row: int) -> bytes | str | None:
        """Return the value of a row of the group; quick for the row after the last one read.

        Raises:
            ValueError: The page is damaged.
        """
        page = next((page for page in self._pages if row < page.first + page.values), None)
        if page is None:
            raise ValueError(_CUT)
        present, indices = self._contents(page)
        if not present[row - page.first]:
            return None
        index = sum(present[: row - page.first])
        value = self._value(page, index) if indices is None else self._value(self._dictionary, indices[index])
        return value.decode() if self._text else value

    def _read_headers(self, chunk: Any) -> None:
        start = min(filter(None, (chunk.data_page_offset, chunk.dictionary_page_offset)))
        stream, row = self._section(start, chunk.total_compressed_size), 0
        while row < chunk.num_values:
            header = _struct(stream)
            try:
                kind, unpacked, stored = header[1], header[2], header[3]
                at = stream.tell()
                if not 0 <= stored <= chunk.total_compressed_size - at or unpacked < 0:
                    raise ValueError(_CUT)
                place = (start + at, stored, unpacked)
                if kind == _DICTIONARY_PAGE:
                    self._dictionary = Page(0, header[7][1], *place, _PLAIN, 0)
                elif kind in (_DATA, _DATA_V2):
                    head = header[5] if kind == _DATA else header[8]
                    if not 0 <= head[1] <= chunk.num_values - row:
                        raise ValueError(_CUT)
                    more = (head[2],) if kind == _DATA else (head[4], head[5], head.get(7, True))
                    self._pages.append(Page(row, head[1], *place, *more))
                    row += head[1]
            except (KeyError, TypeError):
                raise ValueError(_CUT) from None
            stream.seek(stored, 1)

    def _section(self, start: int, size: int) -> io.BufferedReader:
        return io.BufferedReader(Section(self._file, start, size), WINDOW)

    def _read_contents(self, page: Page) -> tuple[list[int], list[int] | None]:
        """Return which values of a page are there (0 or 1 each), and their numbers in the dictionary, if it has one."""
        present, stream = self._open(page)
        if page.encoding == _PLAIN:
            return present, None
        if page.encoding not in _DICTIONARY or self._dictionary is None:
            raise ValueError(_CUT)
        width = _exactly(stream, 1)[0] if any(present) else 0
        return present, list(islice(_runs(stream, width), sum(present)))

    def _open(self, page: Page) -> tuple[list[int], Stream]:
        """Return which values of a page are there, and the stream of those."""
        before = max(0, page.levels)
        levels: Stream = self._section(page.start, before)
        stream = self._unpacked(page, before)
        if page is self._dictionary:
            return [], stream
        if not self._depth:
            return [1] * page.values, stream
        if page.levels < 0:
            levels = io.BytesIO(_exactly(stream, min(_length(stream), MAX_RECORD)))
        found = islice(_runs(levels, self._depth.bit_length()), page.values)
        return [int(level == self._depth) for level in found], stream

    def _unpacked(self, page: Page, before: int) -> Stream:
        packed, size = self._section(page.start + before, page.stored - before), page.unpacked - before
        if self._codec == "UNCOMPRESSED" or not page.packed or not size:
            return packed
        if max(size, page.stored) <= WHOLE:
            return io.BytesIO(pyarrow.decompress(packed.read(), size, self._codec.lower(), asbytes=True))
        if self._codec == "SNAPPY":
            return Unsnapped(packed)
        return pyarrow.CompressedInputStream(packed, self._codec.lower())

    def _value(self, page: Page | None, index: int) -> bytes:
        """Return a plain value of a page, passing over those before it."""
        assert page is not None  # a page of numbers comes with a dictionary
        if self._kept is not None and self._kept[0] is page and self._kept[1] == index:
            return self._kept[2]
        if self._at is None or self._at[0] is not page or self._at[1] > index:
            self._at = page, 0, self._open(page)[1]
        _, following, stream = self._at
        self._at = None  # a stream that fails is not used again
        for _ in range(following, index):
            _pass_over(stream, _length(stream))
        length = _length(stream)
        if length > MAX_RECORD:
            raise ValueError(f"expected a value of at most {MAX_RECORD} bytes, got {length}")
        self._kept = page, index, _exactly(stream, length)
        self._at = page, index + 1, stream
        return self._kept[2]


def readable(metadata: Any, group: int, leaf: int) -> bool:
    """Whether `ColumnPages` can read a leaf column of a row group."""
    chunk, column = metadata.row_group(group).column(leaf), metadata.schema.column(leaf)
    return (
        column.physical_type == "BYTE_ARRAY"
        and column.max_repetition_level == 0
        and chunk.compression in CODECS
        and set(chunk.encodings) <= ENCODINGS
    )


class Unsnapped:
    """Raw Snappy, unpacked piece by piece."""

    def __init__(self, packed: Stream) -> None:
        """Begin at the length that stands in front, which is passed over."""
        self._packed = packed
        self._literal = 0  # bytes of it that are still packed
        self._out, self._at = bytearray(), 0
        _varint(packed)

    def seekable(self) -> bool:
        """Return False."""
        return False

    def read(self, count: int, /) -> bytes:
        """Return this many bytes; raises ValueError where the data is damaged or at an end."""
        while len(self._out) - self._at < count:
            self._unpack()
        data = bytes(memoryview(self._out)[self._at : self._at + count])
        self._at += count
        if self._at > CHUNK:
            forgotten = self._at - WINDOW
            del self._out[:forgotten]
            self._at = WINDOW
        return data

    def _unpack(self) -> None:
        if self._literal:
            piece = _exactly(self._packed, min(self._literal, CHUNK))
            self._literal -= len(piece)
            self._out += piece
            return
        tag = _exactly(self._packed, 1)[0]
        kind, high = tag & 3, tag >> 2
        if kind == 0:
            self._literal = 1 + (high if high < 60 else self._number(high - 59))
            return
        length = 4 + (high & 7) if kind == 1 else 1 + high
        offset = (tag >> 5 << 8) + self._number(1) if kind == 1 else self._number(2 if kind == 2 else 4)
        if not 0 < offset <= min(len(self._out), WINDOW):
            raise ValueError(_CUT)
        start = len(self._out) - offset
        back = self._out[start : start + length]
        self._out += (back * (length // len(back) + 1))[:length]  # may repeat itself

    def _number(self, size: int) -> int:
        return int.from_bytes(_exactly(self._packed, size), "little")


def _length(stream: Stream) -> int:
    return int.from_bytes(_exactly(stream, 4), "little")


def _pass_over(stream: Stream, count: int) -> None:
    if stream.seekable():
        stream.seek(count, 1)  # type: ignore[attr-defined]
        return
    while count:
        count -= len(_exactly(stream, min(count, CHUNK)))


def _exactly(stream: Stream, count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise ValueError(_CUT)
    return data


def _runs(stream: Stream, width: int) -> Iterator[int]:
    """Yield numbers of `width` bits, in runs and in packs of eight, until the data ends."""
    mask = (1 << width) - 1
    while True:
        head = _varint(stream)
        if head & 1:
            for _ in range(head >> 1):
                packed = int.from_bytes(_exactly(stream, width), "little")
                yield from ((packed >> width * place) & mask for place in range(8))
        else:
            value = int.from_bytes(_exactly(stream, (width + 7) // 8), "little")
            for _ in range(head >> 1):
                yield value


def _varint(stream: Stream) -> int:
    number = shift = 0
    while shift < 70:
        byte = _exactly(stream, 1)[0]
        number |= (byte & 127) << shift
        if byte < 128:
            return number
        shift += 7
    raise ValueError(_CUT)


def _struct(file: io.BufferedReader, depth: int = 4) -> dict[int, Any]:
    """Read a struct of thrift's compact protocol: number of a field to its value, texts passed over."""
    fields: dict[int, Any] = {}
    number = 0
    while head := _exactly(file, 1)[0]:
        number = number + (head >> 4) if head >> 4 else _zigzag(file)
        match head & 15:
            case 1 | 2 as kind:
                fields[number] = kind == 1
            case 3:
                fields[number] = _exactly(file, 1)[0]
            case 4 | 5 | 6:
                fields[number] = _zigzag(file)
            case 7:
                file.seek(8, 1)
            case 8:
                file.seek(min(_varint(file), MAX_RECORD), 1)
            case 12 if depth:
                fields[number] = _struct(file, depth - 1)
            case _:
                raise ValueError(_CUT)
    return fields


def _zigzag(stream: Stream) -> int:
    number = _varint(stream)
    return (number >> 1) ^ -(number & 1)
