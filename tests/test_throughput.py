"""What the throughput benchmark writes, not how fast anything is."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import throughput


def test_summary_by_hand() -> None:
    # Seconds 0.1, 0.2, 0.4, 0.5, 1.0: quartiles 0.2 and 0.5, median 0.4.
    assert throughput.summary([0.5, 0.1, 1.0, 0.2, 0.4]) == {"per_second": 2.5, "quartiles": [2.0, 5.0], "calls": 5}


def test_every_kind_of_call_is_measured() -> None:
    spent = throughput.measure("PixelReason-Mixed-v0", "micro", 4)
    assert {kind: len(calls) for kind, calls in spent.items()} == {"reset": 4, "crop": 4, "select": 1, "answer": 4}
    assert "select" not in throughput.measure("PixelReason-Zoom-v0", "micro", 1)


def test_the_file_says_how_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(throughput, "PRESETS", ("micro",))
    monkeypatch.setattr(sys, "argv", ["benchmarks/throughput.py", "--episodes", "1", "--out", str(tmp_path / "t.json")])
    throughput.main()
    written = json.loads((tmp_path / "t.json").read_text())
    assert written["command"].startswith("python benchmarks/throughput.py --episodes 1")
    assert written["machine"]["cores"] >= 1 and set(written["machine"]["versions"]) >= {"gymnasium", "numpy", "pillow"}
    assert [row["id"] for row in written["results"]] == [
        f"PixelReason-{name}-v0" for name in ("Zoom", "Frames", "Mixed")
    ]
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == 5 and table[2].startswith("| PixelReason-Zoom-v0 | micro | ")
