"""What the benchmark of opening a page writes, not how fast anything is."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import open_page
from benchmarks.headless import CHROMIUM, NO_CHROMIUM


@pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
def test_a_page_is_made_and_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--played", "2", "--copies", "2", "--repeats", "3", "--out", str(tmp_path / "o.json")]
    monkeypatch.setattr(sys, "argv", ["benchmarks/open_page.py", *arguments])
    open_page.main()
    written = json.loads((tmp_path / "o.json").read_text())
    assert written["command"].startswith("python benchmarks/open_page.py") and written["machine"]["cores"] >= 1
    result = written["result"]
    assert result["episodes"] == 4 and result["MB"] > 0 and "Chrome" in result["browser"]
    for unit in ("ms", "CPU ms"):
        assert len(result[f"open {unit}"]) == 3 and sorted(result[f"open {unit}"])[1] == result[f"median {unit}"] > 0


def test_a_missing_browser_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(open_page, "CHROMIUM", None)
    monkeypatch.setattr(sys, "argv", ["benchmarks/open_page.py"])
    with pytest.raises(SystemExit, match="2"):
        open_page.main()
    assert "found no chromium" in capsys.readouterr().err
