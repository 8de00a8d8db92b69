"""Records of text files: JSON, JSON Lines and TSV, found by a scan for their byte offsets and parsed when asked for.

A file of any size costs a few bytes a record. Nothing here knows what a column means.
"""

import json
import re
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

CHUNK = 2**20
MAX_RECORD = 2**26
"""Most bytes in a record, its picture included; bounds what a damaged file can make us read at once."""

Fields = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Records:
    """Records of a text file, by their byte offsets.

    Attributes:
        path: The file.
        starts: First byte of each record.
        ends: Byte after each record.
        parse: From the bytes of a record to its fields; raises ValueError.
    """

    path: Path
    starts: "array[int]"
    ends: "array[int]"
    parse: Callable[[bytes], Fields]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, row: int) -> Fields:
        with open(self.path, "rb", buffering=0) as file:  # a buffer would cost more than the row
            file.seek(self.starts[row])
            data = file.read(self.ends[row] - self.starts[row])
        try:
            return self.parse(data)
        except ValueError as error:
            raise ValueError(f"{self.place(row)}: {error}") from error

    def place(self, row: int) -> str:
        """Name the file and the row."""
        return f"{self.path.name}, row {row} (the first is 0)"

    def blob(self, row: int, column: str) -> Any:
        """Return a cell."""
        return self[row][column]


# --- JSON Lines and TSV -----------------------------------------------------------------------------------------------


def json_lines(path: Path) -> Records:
    """Index a file with a JSON object a line."""
    with open(path, "rb") as file:
        starts, ends = _lines(path, file, quoted=False)
    return Records(path, starts, ends, parse_json)


def tsv_table(path: Path, columns: Sequence[str]) -> Records:
    """Index a tab-separated file with a header; cells may be quoted and hold tabs, quotes and new lines then."""
    with open(path, "rb") as file:
        header = _cells(file.readline(MAX_RECORD))
        check_columns(path, columns, header)
        starts, ends = _lines(path, file, quoted=True)
    return Records(path, starts, ends, partial(_parse_tsv, tuple(header)))


def check_columns(path: Path, expected: Sequence[str], got: Sequence[str]) -> None:
    """Raise ValueError unless every expected column exists."""
    if missing := [name for name in expected if name not in got]:
        raise ValueError(
            f"{path}: expected the columns {', '.join(expected)}; {', '.join(missing)} not among "
            f"{', '.join(name[:40] for name in got[:40]) or 'none'}; rename the columns or name another format"
        )


def _lines(path: Path, file: BinaryIO, quoted: bool) -> tuple["array[int]", "array[int]"]:
    """Return where each record from here on begins and ends; one with an open quote goes on in the next line."""
    starts, ends, position = array("Q"), array("Q"), file.tell()
    start, quotes = position, 0
    while chunk := file.read(CHUNK):
        at = 0
        while newline := chunk.find(b"\n", at) + 1:
            quotes += chunk.count(b'"', at, newline) if quoted else 0
            at = newline
            if quotes % 2 == 0:
                starts.append(start)
                ends.append(position + at)
                start = position + at
        quotes += chunk.count(b'"', at) if quoted else 0
        position += len(chunk)
        if position - start >= MAX_RECORD:
            raise ValueError(f"{path}: expected rows of less than {MAX_RECORD} bytes, got a longer row {len(starts)}")
    if quotes % 2:
        raise ValueError(f"{path}: row {len(starts)} has a quote that is never closed; the file is cut short")
    if start != position:  # the last line without its end
        starts.append(start)
        ends.append(position)
    return starts, ends


def parse_json(data: bytes) -> Fields:
    """Read one JSON object."""
    try:
        fields = json.loads(data)
    except RecursionError:
        raise ValueError("expected a JSON object, got one nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError(f"expected a JSON object, got {type(fields).__name__}")
    return fields


_CELL = re.compile(r'(?:"([^"]*(?:""[^"]*)*)"|([^\t]*))\t')


def _cells(data: bytes) -> list[str]:
    line = data.decode("utf-8-sig").rstrip("\r\n") + "\t"
    if '"' not in line:
        return line.split("\t")[:-1]
    return [bare if not quoted else quoted.replace('""', '"') for quoted, bare in _CELL.findall(line)]


def _parse_tsv(header: tuple[str, ...], data: bytes) -> Fields:
    cells = _cells(data)
    if len(cells) != len(header):
        raise ValueError(f"expected {len(header)} cells, got {len(cells)}")
    return dict(zip(header, cells, strict=True))


# --- JSON -------------------------------------------------------------------------------------------------------------


def json_table(path: Path, key: str = "data") -> Records:
    """Index a JSON file that is a list of objects, or an object with such a list under ``key``.

    One record is parsed at a time, so a file larger than memory can be opened.
    """
    starts, ends = array("Q"), array("Q")
    with open(path, "rb") as file:
        scanner = _Scanner(file)
        try:
            scanner.enter_list(key)
            while scanner.peek() == "{":
                start, end, _ = scanner.value()
                starts.append(start)
                ends.append(end)
                if scanner.take(",]") == "]":
                    break
            else:
                scanner.take("]")
        except ValueError as error:
            raise ValueError(f"{path}: no list of JSON objects; record {len(starts)}: {error}") from error
    return Records(path, starts, ends, parse_json)


class _Scanner:
    """Walks over the JSON of a file, holding a piece of it. Bytes are read as Latin-1, so positions are byte offsets.

    What JSON gives structure by is ASCII; the values read here are thrown away.
    """

    _SPACE = re.compile(r"[ \t\r\n]*")
    _NUMBER = re.compile(r"[-+.0-9eE]*")

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._text, self._base, self._at = file, "", 0, 0
        self._decoder = json.JSONDecoder()
        if file.read(3) == b"\xef\xbb\xbf":  # byte order mark
            self._base = 3
        file.seek(self._base)

    def enter_list(self, key: str) -> None:
        """Step over ``[``, or over everything up to the list under ``key`` of an object."""
        if self.take("[{") == "[":
            return
        while self.value()[2] != key:
            self.take(":")
            self.value()
            self.take(",")
        self.take(":")
        self.take("[")

    def peek(self) -> str:
        """Return the next character that is no space, "" at the end."""
        while True:
            self._at = self._SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, characters: str) -> str:
        """Step over one of ``characters``."""
        found = self.peek()
        if not found or found not in characters:
            raise ValueError(
                f"expected {' or '.join(characters)} at byte {self._base + self._at}, got {found or 'the end'}"
            )
        self._at += 1
        return found

    def value(self) -> tuple[int, int, Any]:
        """Step over a value; return its first byte, the byte after it, and the value."""
        self.peek()
        while True:
            problem: json.JSONDecodeError | None = None
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                if self._NUMBER.match(self._text, self._at).end() < len(self._text):  # type: ignore[union-attr]
                    break  # else it is a number that may go on
            except RecursionError:
                raise ValueError("nested too deeply") from None
            except json.JSONDecodeError as error:
                problem = error
            if len(self._text) - self._at >= MAX_RECORD:
                raise ValueError(f"no value of less than {MAX_RECORD} bytes at byte {self._base + self._at}")
            if not self._more():
                if problem:
                    raise ValueError(f"{problem.msg} in the value at byte {self._base + self._at}") from problem
                break
        start, self._at = self._at, end
        return self._base + start, self._base + end, value

    def _more(self) -> bool:
        rest = self._text[self._at :]
        data = self._file.read(max(CHUNK, len(rest)))
        self._text, self._base, self._at = rest + data.decode("latin-1"), self._base + self._at, 0
        return bool(data)
