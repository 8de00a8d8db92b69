"""Rows found by their place in a file; what is not asked for is not read."""

import csv
import io
import json
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import hrbench_rows, write_parquet

from pixel_env.decoding import MediaError
from pixel_env.tasks import load_tasks
from pixel_env.tasks import records as files
from pixel_env.tasks.records import json_lines, json_table, tsv_table
from pixel_env.tasks.tables import Parts

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
records = st.lists(st.dictionaries(st.text(max_size=5), values, max_size=4), max_size=6)


@given(records, st.booleans(), st.sampled_from([None, 1]), st.integers(1, 40))
def test_json_records_are_those_of_json(tmp_path_factory, rows, escape, indent, chunk) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    other = {"version": 1.5, "tags": ["data", {"data": [1]}], "data": rows, "after": 1}
    old, files.CHUNK = files.CHUNK, chunk
    try:
        for value in (rows, other):
            path.write_text(json.dumps(value, ensure_ascii=escape, indent=indent), "utf-8", errors="surrogatepass")
            table = json_table(path)
            assert len(table) == len(rows)
            if escape:  # unpaired surrogates cannot be written as UTF-8
                assert [table[index] for index in reversed(range(len(rows)))] == rows[::-1]
    finally:
        files.CHUNK = old


def test_json_with_a_byte_order_mark_and_other_letters(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('\ufeff [ {"a": "größe 大"}, {"a": "]}"} ]\n', "utf-8")
    table = json_table(tmp_path / "a.json")
    assert [table[0], table[1]] == [{"a": "größe 大"}, {"a": "]}"}]
    assert pickle.loads(pickle.dumps(table))[1] == {"a": "]}"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected \\[ or { at byte 0, got the end"),
        ("[1, 2]", "record 0: expected \\] at byte 1, got 1"),
        ('{"dat": []}', "expected , at byte 10, got }"),
        ('{"data": {"a": 1}}', "expected \\[ at byte 9, got {"),
        ('[{"a": 1} {"a": 2}]', "record 1: expected , or \\] at byte 10, got {"),
        ('[{"a": 1}, {"a": ', "record 1: Expecting value in the value at byte 11"),
        ('[{"a": 1},', "record 1: expected \\] at byte 10, got the end"),
        ("[{" + '"a":{' * 100_000, "nested too deeply|Expecting"),
    ],
)
def test_json_that_is_no_list_of_objects(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.json: no list of JSON objects; .*({message})"):
        json_table(tmp_path / "a.json")


cells = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=8), min_size=3, max_size=3
)


@given(st.lists(cells, max_size=5), st.integers(1, 40))
def test_tsv_cells_are_those_of_csv(tmp_path_factory, rows, chunk) -> None:
    path = tmp_path_factory.mktemp("tsv") / "a.tsv"
    buffer = io.StringIO()
    csv.writer(buffer, delimiter="\t", lineterminator="\n").writerows([["x", "y", "z"], *rows])
    path.write_bytes(buffer.getvalue().encode())
    old, files.CHUNK = files.CHUNK, chunk
    try:
        table = tsv_table(path, ["x", "z"])
    finally:
        files.CHUNK = old
    assert [list(table[index].values()) for index in range(len(table))] == rows


def test_tsv_that_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("x\ty\n1\t2\n3\n")
    with pytest.raises(ValueError, match=r"a\.tsv, row 1 .*expected 2 cells, got 1"):
        tsv_table(tmp_path / "a.tsv", ["x"])[1]
    (tmp_path / "a.tsv").write_text('x\ty\n1\t"2\n3\t4\n')
    with pytest.raises(ValueError, match="row 0 has a quote that is never closed"):
        tsv_table(tmp_path / "a.tsv", ["x"])


def test_a_record_without_end_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_RECORD", 1000)
    monkeypatch.setattr(files, "CHUNK", 100)
    (tmp_path / "a.jsonl").write_text('{"a": "' + "x" * 5000)
    with pytest.raises(ValueError, match="expected rows of less than 1000 bytes, got a longer row 0"):
        json_lines(tmp_path / "a.jsonl")
    (tmp_path / "a.json").write_text('[{"a": "' + "x" * 5000)
    with pytest.raises(ValueError, match="no value of less than 1000 bytes"):
        json_table(tmp_path / "a.json")


def test_parts_follow_one_another(tmp_path: Path) -> None:
    for name, count in (("a", 2), ("b", 0), ("c", 1)):
        (tmp_path / f"{name}.json").write_text(json.dumps([{"n": number} for number in range(count)]))
    table = Parts(tuple("abc"), tuple(json_table(tmp_path / f"{name}.json") for name in "abc"))
    assert [table[row] for row in range(len(table))] == [
        {"n": 0, "part": "a"}, {"n": 1, "part": "a"}, {"n": 0, "part": "c"},
    ]  # fmt: skip
    assert table.place(2) == "c.json, row 0 (the first is 0)"


# --- what is not asked for is not read -------------------------------------------------------------------------------


def test_opening_a_parquet_file_reads_no_picture(tmp_path: Path) -> None:
    """The pictures of one row group are wiped out: the set opens, its questions and the other pictures are read."""
    parquet = pytest.importorskip("pyarrow.parquet")
    path = write_parquet(tmp_path / "hr_bench_4k.parquet", hrbench_rows(), row_group_size=4)
    group = parquet.read_metadata(path).row_group(0)
    image = next(group.column(k) for k in range(group.num_columns) if group.column(k).path_in_schema == "image")
    data = bytearray(path.read_bytes())
    start = image.dictionary_page_offset or image.data_page_offset
    data[start : start + image.total_compressed_size] = bytes(image.total_compressed_size)
    path.write_bytes(data)
    tasks = load_tasks("hrbench", tmp_path)
    assert tasks[1].answers == ("exit",)
    assert tasks[6].media.frame(0).getpixel((0, 0)) == (6, 0, 200)
    with pytest.raises(MediaError, match=r"row group 0, row 1 of it: cannot be decoded"):
        tasks[1].media.frame(0)
    assert tasks[7].media.frame(0).getpixel((0, 0)) == (7, 0, 200)


LAYOUTS: dict[str, dict[str, Any]] = {
    "a page a picture": {"write_batch_size": 1},
    "one dictionary": {},  # what pyarrow and pandas write
    "one page": {"use_dictionary": False},
    "as it is": {"use_dictionary": False, "compression": "none"},
    "zstd": {"use_dictionary": False, "compression": "zstd"},
    "second form": {"use_dictionary": False, "data_page_version": "2.0"},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_one_row_group_is_stepped_through(layout: dict[str, Any], tmp_path: Path) -> None:
    """Of a row group of 32 MB of pictures only some are held at a time, whatever is looked at and however it lies."""
    pyarrow = pytest.importorskip("pyarrow")
    from pixel_env.tasks.parquet import ParquetTable

    noise = np.random.default_rng(0)
    rows = [{"question": str(row), "image": noise.bytes(2**20)} for row in range(32)]
    path = write_parquet(tmp_path / "big.parquet", rows, **layout)
    expected = [row["image"] for row in rows]
    del rows
    table = ParquetTable([path], ["question"], (), ["image"])
    pyarrow.default_memory_pool().release_unused()
    before = pyarrow.total_allocated_bytes()
    most = 0
    tracemalloc.start()
    try:
        for row in (28, 29, 30, 3, 31):
            assert table.blob(row, "image") == expected[row]
            most = max(most, pyarrow.total_allocated_bytes() - before)
        most += tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert table[31] == {"question": "31"}
    assert most < 16 * 2**20
    assert pickle.loads(pickle.dumps(table)).blob(5, "image") == expected[5]


def test_no_parquet_file(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "hr_bench_4k.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ValueError, match=r"hr_bench_4k\.parquet: expected a parquet file"):
        load_tasks("hrbench", tmp_path)
    write_parquet(tmp_path / "hr_bench_4k.parquet", [{"question": "x"}])
    with pytest.raises(
        ValueError, match=r"expected the columns question, answer, A, .*; answer, A, B, C, D, category, image"
    ):
        load_tasks("hrbench", tmp_path)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "pixel_env.tasks.parquet", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(ImportError, match=r"pip install 'pixel-env\[data\]'"):
        load_tasks("hrbench", tmp_path)


def test_opening_json_parses_no_row_twice_and_a_row_reads_its_bytes_only(tmp_path: Path) -> None:
    """Everything but one record is wiped out after opening: that record still reads."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"n": number, "fill": "x" * 50} for number in range(100)]))
    table = json_table(path)
    data = path.read_bytes()
    start, end = table.starts[70], table.ends[70]
    path.write_bytes(b"\0" * start + data[start:end])
    assert table[70]["n"] == 70
    with pytest.raises(ValueError, match="row 69"):
        table[69]
