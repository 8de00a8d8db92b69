"""The committed table of verdicts is what the scorers say today."""

import importlib.util

import pytest

from benchmarks.verdicts import OUT, ROWS, Row, line, strict_verdict

WRITTEN = OUT.read_text(encoding="utf-8").splitlines()[-len(ROWS) :]


@pytest.mark.parametrize(("row", "written"), list(zip(ROWS, WRITTEN, strict=True)), ids=[row.answer for row in ROWS])
def test_the_table_is_up_to_date(row: Row, written: str) -> None:
    if importlib.util.find_spec("math_verify"):
        assert line(row) == written
    elif row.kind != "value":
        assert written.split(" | ")[3] == strict_verdict(row)
