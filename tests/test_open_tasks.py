"""What the benchmark of opening makes and writes, not how fast anything is."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import open_tasks
from pixel_env.tasks import load_tasks


def test_every_set_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(open_tasks, "makers", lambda *_: {
        "videos": lambda folder: open_tasks.make_videos(folder, 2),
        "parquet": lambda folder: open_tasks.make_parquet(folder, 3, 16),
        "one row group": lambda folder: open_tasks.make_parquet_at_once(folder, 6, 16),
        "TSV": lambda folder: open_tasks.make_tsv(folder, 4, 16),
        "JSON": lambda folder: open_tasks.make_json(folder, 5),
    })  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["benchmarks/open_tasks.py", "--out", str(tmp_path / "o.json")])
    open_tasks.main()
    written = json.loads((tmp_path / "o.json").read_text())
    assert [(row["set"], row["tasks"]) for row in written["results"]] == [
        ("videos", 2), ("parquet", 3), ("one row group", 6), ("TSV", 4), ("JSON", 5),
    ]  # fmt: skip
    assert written["command"].startswith("python benchmarks/open_tasks.py") and written["machine"]["cores"] >= 1
    assert len(capsys.readouterr().out.splitlines()) == 7


def test_pictures_of_one_row_group_are_each_shown_four_times(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    tasks = load_tasks("hrbench", open_tasks.make_parquet_at_once(tmp_path / "set", 6, 16).partition(":")[2])
    shown = [tasks[index].media.frame(0).tobytes() for index in range(6)]
    assert shown[0] == shown[3] != shown[4] == shown[5]
