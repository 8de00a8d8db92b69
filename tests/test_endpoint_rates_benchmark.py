"""What the benchmark of endpoints computes and writes, not how fast anything is."""

import json
from pathlib import Path

import pytest

from benchmarks import endpoint_rates
from benchmarks.endpoint_rates import Cell, cells, delay_of, row


def test_cells_by_hand() -> None:
    asked = cells([200, 0], [1, 8])
    assert asked == [
        Cell(delay, tail, concurrency)
        for delay, tail in ((0, "fixed"), (200, "fixed"), (200, "heavy"))
        for concurrency in (1, 8)
    ]
    # Two requests of 0.2 s; with the tail 9 of 10 take 0.2 s and one takes 2 s, so 0.38 s on average.
    assert [cell.latency for cell in asked] == pytest.approx([0, 0, 0.4, 0.4, 0.76, 0.76])
    assert [cell.bound for cell in asked[2:]] == pytest.approx([2.5, 20, 1 / 0.76, 8 / 0.76])


def test_figures_by_hand() -> None:
    # Two at a time, waves 0.25 s apart: what lies between the first two ends and the last two is 4 in 0.5 s.
    found = row(Cell(100, "fixed", 2), [0.3, 0.3, 0.55, 0.55, 0.8, 0.8, 1.05, 1.05], 0.08)
    assert found["trajectories_per_second"] == 8 and found["bound"] == 10 and found["ratio"] == 0.8
    assert found["overhead_ms"] == 25 and found["cpu_ms"] == 5  # 0.25 s where the delays are 0.2 s: half of it each
    alone = row(Cell(0, "fixed", 1), [0.01, 0.02, 0.03, 0.04], 0.02)
    assert (alone["trajectories_per_second"], alone["bound"], alone["ratio"]) == (100, None, None)
    assert (alone["overhead_ms"], alone["cpu_ms"]) == (5, 2.5)


def test_one_in_ten_is_slow_and_not_always_the_same() -> None:
    delays = [delay_of("heavy-50-0", number) for number in range(200)]
    tens = [delays[start : start + 10] for start in range(0, 200, 10)]
    assert all(sorted(ten) == [0.05] * 9 + [0.5] for ten in tens)
    assert len({ten.index(0.5) for ten in tens}) > 3


def test_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rates.json"
    asked = ["--delays", "1", "--concurrency", "2", "--seconds", "0.01", "--out", str(out)]
    assert endpoint_rates.main(asked) == 0
    written = json.loads(out.read_text())
    assert [(found["tail"], found["trajectories"]) for found in written["results"]] == [("fixed", 10), ("heavy", 10)]
    assert written["command"] and written["machine"]["versions"]["openai"]
    assert len([line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]) == 4
    assert endpoint_rates.main(["--concurrency", "0"]) == 2
    assert "expected --delays from 0" in capsys.readouterr().err
