"""Values of parquet pages, against what pyarrow reads of the same files."""

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from layouts import write_parquet

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pixel_env.tasks.parquet")
parquet_pages = pytest.importorskip("pixel_env.tasks.parquet_pages")

CELLS: dict[str, list[Any]] = {
    "bytes": [b"", b"\0" * 300, bytes(range(256)), b"ab" * 500, b"same", b"same", b"same"],
    "text": ["", "one", "zwei \u00fc", "three" * 200, "one", "one"],
    "bytes or nothing": [None, b"x", None, None, b"xyz" * 40, b"x"],
    "picture": [{"bytes": b"abc" * 90, "path": None}, {"bytes": None, "path": "a.png"}, None],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "plain": {"use_dictionary": False},
    "second form": {"data_page_version": "2.0"},
    "second form, plain": {"data_page_version": "2.0", "use_dictionary": False},
    "uncompressed": {"compression": "none"},
    "gzip": {"compression": "gzip", "use_dictionary": False},
    "zstd": {"compression": "zstd", "use_dictionary": False},
    "brotli": {"compression": "brotli"},
    "small pages": {"write_batch_size": 3, "data_page_size": 1},
    "a dictionary that runs full": {"write_batch_size": 3, "dictionary_pagesize_limit": 200, "data_page_size": 1},
    "several row groups": {"row_group_size": 7},
    "left to pyarrow, lz4": {"compression": "lz4"},
    "left to pyarrow, differences": {"use_dictionary": False, "column_encoding": "DELTA_LENGTH_BYTE_ARRAY"},
}


def many(kind: str) -> list[Any]:
    return random.Random(0).choices(CELLS[kind], k=40)


@pytest.mark.parametrize("whole", [2**24, 0], ids=["at once", "piece by piece"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("kind", CELLS)
def test_values_are_those_of_pyarrow(
    kind: str, options: dict[str, Any], whole: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_pages, "WHOLE", whole)
    path = write_parquet(tmp_path / "t.parquet", [{"image": cell} for cell in many(kind)], **options)
    expected = pyarrow.parquet.read_table(path).column("image").to_pylist()
    if kind == "picture":  # a missing mapping and one of nothing mean the same
        expected = [cell or {"bytes": None, "path": None} for cell in expected]
    table = parquet.ParquetTable([path], [], blobs=["image"])
    rows = [*range(40), *random.Random(1).sample(range(40), 40)]
    read = [table.blob(row, "image") for row in rows]
    assert [cell or {"bytes": None, "path": None} if kind == "picture" else cell for cell in read] == [
        expected[row] for row in rows
    ]


def test_what_is_left_to_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ColumnPages", None)
    for number, options in enumerate(OPTIONS.values()):
        path = write_parquet(tmp_path / f"{number}.parquet", [{"image": cell} for cell in many("bytes")], **options)
        table = parquet.ParquetTable([path], [], blobs=["image"])
        if number < len(OPTIONS) - 2:
            with pytest.raises(TypeError):
                table.blob(0, "image")
        else:
            assert table.blob(7, "image") == many("bytes")[7]


@example([b"ab", bytes(2**21), b"cd"])  # more than is kept, and a pattern that repeats itself
@settings(deadline=None)  # which takes its time
@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"ab" * 4000, b"abcdefg" * 9999]), max_size=8))
def test_snappy_is_that_of_pyarrow(pieces: list[bytes]) -> None:
    packed = pyarrow.compress(b"".join(pieces), "snappy", asbytes=True)
    stream = parquet_pages.Unsnapped(pyarrow.BufferReader(packed))
    assert [stream.read(len(piece)) for piece in pieces] == pieces


@pytest.mark.parametrize(
    "packed",
    [
        b"\x05\x01\x01",  # a copy of what is not there
        b"\x05\x00a\x01\x00",  # from no distance
        b"\x05\x10abc",  # a literal that is cut
        b"\x05\xf0",  # its length is cut
    ],
)
def test_snappy_that_is_damaged(packed: bytes) -> None:
    with pytest.raises(ValueError, match="damaged or cut short"):
        parquet_pages.Unsnapped(pyarrow.BufferReader(packed)).read(5)


def test_a_header_that_promises_too_much_is_not_believed(tmp_path: Path) -> None:
    import pyarrow.parquet

    schema = pyarrow.schema([pyarrow.field("image", pyarrow.binary(), nullable=False)])
    path = tmp_path / "t.parquet"
    table = pyarrow.Table.from_pylist([{"image": b"abc"}] * 3, schema)
    pyarrow.parquet.write_table(table, path, use_dictionary=False)
    start = pyarrow.parquet.read_metadata(path).row_group(0).column(0).data_page_offset
    head = path.read_bytes()[start : start + 40]
    count = start + head.index(b"\x2c\x15\x06") + 2  # the struct of a data page, and 3 as its number of values
    broken = bytearray(path.read_bytes())
    broken[count] = 0x7E  # 63
    path.write_bytes(broken)
    with pytest.raises(ValueError, match="row 0 of it: cannot read image: it is damaged or cut short"):
        parquet.ParquetTable([path], [], blobs=["image"]).blob(0, "image")


@settings(deadline=None)  # it writes files
@given(st.data())
def test_damaged_pages_are_values_or_errors(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    options = data.draw(st.sampled_from([OPTIONS[name] for name in ("defaults", "plain", "second form", "gzip")]))
    path = write_parquet(tmp_path_factory.mktemp("t") / "t.parquet", [{"image": c} for c in many("bytes")], **options)
    chunk = pyarrow.parquet.read_metadata(path).row_group(0).column(0)
    start = min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)))
    broken = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(start, start + chunk.total_compressed_size - 1))
        broken[place] = data.draw(st.integers(0, 255))
    path.write_bytes(broken)
    table = parquet.ParquetTable([path], [], blobs=["image"])
    for row in (0, 17, 39):
        try:
            value = table.blob(row, "image")  # one byte is enough to make it a null
            assert value is None or isinstance(value, bytes)
        except ValueError as error:
            assert f"row {row} of it: cannot read image" in str(error)
