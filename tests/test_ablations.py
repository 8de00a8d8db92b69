"""The ablation command: its cells, its tables from run folders made by hand, and a real run that is resumed."""

import dataclasses
import fcntl
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_train_vlm import SMALL
from tiny_vlm import model, processor

from agents import micro
from benchmarks import ablation_runs, ablations
from benchmarks.ablation_cells import PAPERS, RECIPE, ROWS, Cell, cells
from benchmarks.ablation_report import first_looks, outcomes, paper
from benchmarks.failure_modes import Reading
from benchmarks.learning_trap import curves
from benchmarks.provenance import RESULTS
from benchmarks.table1 import QUOTED
from pixel_env.policies import DirectPolicy
from pixel_env.rollout import rollout
from pixel_env.trajectory import Trajectory, save_jsonl

SUITES = ("search", "count", "read", "clip")


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.seed_bootstrap.RESAMPLES", 200)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("weights")
    micro.save(model(), processor(), folder)
    return str(folder)


@pytest.fixture(scope="module")
def played() -> list[Trajectory]:
    """Four tasks of each suite, answered at once."""
    env_kwargs = {"suite": list(SUITES), "preset": "micro", "split": "test", "difficulty": [1, 2]}
    return rollout(DirectPolicy(), "PixelReason-Mixed-v0", range(16), progress=False, **env_kwargs)


def cell_folder(out: Path, cell: Cell, played: list[Trajectory], right: dict[str, int]) -> None:
    """A finished cell: so many of four tasks of a suite right, two steps of RL with RaPR of 0.1 and 0.2 + its seed."""
    graded, seen = [], dict.fromkeys(SUITES, 0)
    for t in played:
        correct = seen[t.suite] < right[t.suite]
        seen[t.suite] += 1
        graded.append(dataclasses.replace(t, correct=correct, score=float(correct)))
    cell.trajectories(out).parent.mkdir(parents=True)
    save_jsonl(cell.trajectories(out), graded)
    rows: list[dict[str, Any]] = [{"stage": "rl", "step": 1, "rapr": 0.1}, {"stage": "rl", "step": 2}]
    rows[1] |= {"rapr": 0.2 + cell.seed, "operation_error_rate": 0.5}
    rows += [{"stage": stage, "step": 2, "train_runtime": 60.4} for stage in ROWS[cell.row].stages]
    (cell.folder(out) / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("config.json", "report.md"):
        (cell.folder(out) / name).write_text("{}")


def test_the_cells() -> None:
    listed = cells(5, 3)
    counts = {row: sum(cell.row == row for cell in listed) for row in ROWS}
    assert counts == {
        "base": 1, "instructed": 5, "warm_start": 5, "full": 5, "no_curiosity": 5, "no_warm_start": 3,
        "no_corrections": 3, "released": 3, "neither": 3, "base_no_operations": 3, "full_no_operations": 5,
    }  # fmt: skip
    for place, cell in enumerate(listed):
        assert cell.needs is None or cell.needs in listed[:place], cell
    assert [cell.seed for cell in listed] == sorted(cell.seed for cell in listed)
    quoted = {name for name, _ in QUOTED}
    assert all(ROWS[name].paper in quoted for name in ("base_no_operations", "full", *PAPERS))


def test_commands_of_cells(tmp_path: Path) -> None:
    first, warm, full = Cell("instructed", 3), Cell("warm_start", 3), Cell("full", 3)
    options = ["--demonstrations", "10"]
    assert first.arguments(tmp_path, "base", options) == [
        "--model", "base", "--stages", "warm_start", "--seed", "3", "--evaluate", "last", *options,
        "--textual-share", "1", "--demonstrations", "50", "--out", str(tmp_path / "instructed" / "seed-3"),
    ]  # fmt: skip
    start = str(tmp_path / "instructed" / "seed-3" / "warm_start" / "model")
    assert warm.arguments(tmp_path, "base", options)[:4] == ["--model", start, "--stages", "warm_start"]
    start = str(tmp_path / "warm_start" / "seed-3" / "warm_start" / "model")
    assert full.arguments(tmp_path, "base", options)[:4] == ["--model", start, "--stages", "rl"]
    without = Cell("full_no_operations", 3).arguments(tmp_path, "base", options)
    assert without[1] == str(tmp_path / "full" / "seed-3" / "rl" / "model") and without[2:4] == ["--stages", "--seed"]
    assert (warm.state(tmp_path), Cell("no_corrections", 0).weights(tmp_path).parent.name) == ("missing", "rl")
    warm.folder(tmp_path).mkdir(parents=True)
    (warm.folder(tmp_path) / "config.json").touch()
    assert warm.state(tmp_path) == "begun"
    assert warm.arguments(tmp_path, "base", options) == ["--resume", "--out", str(warm.folder(tmp_path))]


def test_the_plan(tmp_path: Path, played: list[Trajectory], capsys: pytest.CaptureFixture[str]) -> None:
    for row in ("instructed", "warm_start"):
        cell_folder(tmp_path, Cell(row, 0), played, dict.fromkeys(SUITES, 1))
    asked = ["--rows", "full", "no_warm_start", "--seeds", "2", "--other-seeds", "1", "--out", str(tmp_path), "--plan"]
    assert ablations.main(asked) == 0
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert said == [
        ["done", "instructed", "seed", "0"],
        ["done", "warm_start", "seed", "0", "from", "instructed", "seed", "0"],
        ["missing", "full", "seed", "0", "from", "warm_start", "seed", "0"],
        ["missing", "no_warm_start", "seed", "0", "from", "instructed", "seed", "0"],
        ["missing", "instructed", "seed", "1"],
        ["missing", "warm_start", "seed", "1", "from", "instructed", "seed", "1"],
        ["missing", "full", "seed", "1", "from", "warm_start", "seed", "1"],
        ["5", "of", "7", "cells", "to", "do", "in", str(tmp_path)],
    ]
    assert not (tmp_path / "settings.json").exists()  # looking changes nothing


def test_the_report_of_folders_made_by_hand(
    tmp_path: Path, played: list[Trajectory], capsys: pytest.CaptureFixture[str]
) -> None:
    right = {"base": 0, "warm_start": 2, "full": 3, "no_curiosity": 2, "full_no_operations": 1}
    for row, number in right.items():
        for seed in range(1 if row == "base" else 2):
            scored = dict.fromkeys(SUITES, number) | ({"read": 4, "clip": 3} if row == "no_curiosity" else {})
            cell_folder(tmp_path, Cell(row, seed), played, scored)
    assert ablations.main(["--report", "--seeds", "2", "--other-seeds", "1", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "ablations.json").read_text())
    rows = written["rows"]
    assert list(rows) == ["base", "warm_start", "full", "no_curiosity", "full_no_operations"]
    assert rows["full"]["score"]["all"]["mean"] == 0.75 and rows["full"]["seeds"] == [0, 1]
    assert rows["full"]["paper"] == {"search": 84.3, "count": 73.8, "clip": 67.8, "read": 84.0, "all": 77.475}
    differences = {suite: cell["mean"] for suite, cell in rows["no_curiosity"]["full_minus_this"].items()}
    assert differences == {"search": 0.25, "count": 0.25, "clip": 0.0, "read": -0.25, "all": 0.0625}
    base = rows["base"]["full_minus_this"]["all"]  # one run of the base stands for both seeds
    assert (base["mean"], base["seeds"], base["tasks"]) == (0.75, 2, 16)
    assert written["full_ahead"] == {"cells": 4 + 2, "of": 8}
    assert written["with_minus_without_operations"]["full"]["all"]["mean"] == 0.5
    assert "no_warm_start seed 0" in written["missing"] and len(written["missing"]) == 7
    assert rows["full"]["outcomes"]["all"]["no_look"] > 0 and rows["full"]["rapr"]["all"]["mean"] == 0
    assert written["seconds"]["full"] == {"0": {"rl": 60}, "1": {"rl": 60}}
    assert (
        written["options"] == [*RECIPE, "--demonstrations", "640", "--test-tasks", "500"]
        and written["model"] == "micro_base"
    )
    text = (tmp_path / "ablations.md").read_text()
    assert (
        "ahead in 6 of 8 cells" in text
        and "| full, arXiv 2505.15966v3 | 78.53 | 57.78 | 66.95 | 58.95 | 65.55 | " in text
    )
    line = next(line for line in text.split("## Full recipe minus")[1].splitlines() if "without curiosity" in line)
    cell = line.split(" | ")[1]
    assert cell.startswith("+25.0 [") and cell.endswith("] (+3.2)")  # 84.3 - 81.1
    assert "not done yet: instructed seed 0" in text and str(Path.home()) not in text
    with Image.open(tmp_path / "learning_trap.png") as picture:
        assert picture.width > 1000
    assert "# Ablations" in capsys.readouterr().out

    # from what is packed, without the episodes, comes the same
    with tarfile.open(tmp_path / "cells.tar.xz") as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    names = {path.name for path in (tmp_path / "unpacked").rglob("*") if path.is_file()}
    assert names == {"readings.jsonl", "metrics.jsonl", "report.md"}  # and this one empty
    assert ablations.main(["--report", "--seeds", "2", "--other-seeds", "1", "--out", str(tmp_path / "unpacked")]) == 0
    assert (tmp_path / "unpacked" / "ablations.md").read_text().splitlines()[1:] == text.splitlines()[1:]


def test_the_committed_figures_follow_from_the_committed_counts(tmp_path: Path) -> None:
    with tarfile.open(RESULTS / "ablation_cells.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    committed = json.loads((RESULTS / "ablations.json").read_text())
    assert ablations.main(["--report", "--out", str(tmp_path)]) == 0
    made = json.loads((tmp_path / "ablations.json").read_text())
    for name in ("options", "suites", "full_ahead", "curves", "seconds"):
        assert made[name] == committed[name], name
    assert made["rows"].keys() == committed["rows"].keys()
    for name, row in committed["rows"].items():
        found = made["rows"][name]
        for part in ("score", "rapr", "full_minus_this"):
            means = {suite: value["mean"] for suite, value in row.get(part, {}).items()}
            assert {suite: value["mean"] for suite, value in found.get(part, {}).items()} == means, (name, part)
        for part in ("seeds", "tasks", "rapr_needed", "operation_error_rate", "first_look", "outcomes"):
            assert found[part] == row[part], (name, part)


def test_curves_by_hand(tmp_path: Path, played: list[Trajectory]) -> None:
    pair = [Cell("full", seed) for seed in (0, 1)]
    for cell in pair:
        cell_folder(tmp_path, cell, played, dict.fromkeys(SUITES, 1))
    found = curves([cell.folder(tmp_path) for cell in pair])
    # running means 0.1, 0.15 with seed 0 and 0.1, 0.65 with seed 1
    assert found["rapr"] == {"step": [1, 2], "mean": [0.1, 0.4], "low": [0.1, 0.15], "high": [0.1, 0.65]}
    assert found["operation_error_rate"]["mean"] == [None, 0.5]  # in the first step none was called
    assert found["curiosity"]["mean"] == [None, None]


def test_counts_by_hand() -> None:
    one = Reading("search", "a", 0.0, True, True, 1, 0, "found", False, "wrong_answer")
    some = [
        one,
        dataclasses.replace(one, first="missed", corrected=True, outcome="right"),
        dataclasses.replace(one, first="failed", outcome="ignored_error"),
        dataclasses.replace(one, first="", outcome="no_look"),
        dataclasses.replace(one, first="", outcome="", needed=False),
    ]
    assert first_looks(some) == {"found": 1, "missed": 1, "failed": 1, "corrected": 1}
    assert {name: count for name, count in outcomes(some).items() if count} == {
        "right": 1, "no_look": 1, "wrong_answer": 1, "ignored_error": 1,
    }  # fmt: skip
    assert paper("") is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--seeds", "0"], "expected --seeds of at least 1, got 0"),
        (["--seeds", "1"], "expected --other-seeds of at most --seeds, got 3 > 1"),
        (["--alpha=0"], "--alpha=0 tells the cells apart"),
        (["--rl-steps", "0"], "expected --rl-steps of at least 1, got 0"),
        (["--rl-stepz", "1"], "unrecognized arguments: --rl-stepz 1"),
        (["--rows", "all"], "invalid choice: 'all'"),
        (["--report", "--out", "nothing"], "expected at least one finished cell in nothing"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str],
    expected: str,
    weights: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ablations.main([*arguments, "--model", weights]) == 2
    error = capsys.readouterr().err
    assert not Path("nothing").exists()  # a look at nothing settles nothing
    assert error.startswith("ablations.py: error: ") and expected in error and error.count("\n") == 1


@pytest.mark.slow
def test_a_real_run_that_loses_a_cell(weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A warm start and RL from its weights; then RL is lost, and it alone is done again."""
    out, asked = tmp_path / "out", ["--rows", "full", "--seeds", "1", "--other-seeds", "1", "--jobs", "2"]
    asked += [*SMALL, "--model", weights, "--out", str(out)]
    assert ablations.main(asked) == 0, (out / "warm_start" / "seed-0.log").read_text()
    _, warm, full = cells(1, 1, ["full"])
    config = json.loads((full.folder(out) / "config.json").read_text())["settings"]
    assert (config["model"], config["rl_steps"], config["test_tasks"]) == (str(warm.weights(out)), 4, 2)
    first = json.loads((out / "ablations.json").read_text())
    assert first["missing"] == [] and first["rows"]["full"]["tasks"] == 8 and len(first["commits_of_cells"]) == 1
    assert len(first["curves"]["full"]["rapr"]["step"]) == 4

    shutil.rmtree(full.folder(out))
    kept = (warm.folder(out) / "report.md").stat().st_mtime_ns
    assert ablations.main(asked) == 0
    assert full.state(out) == "done" and (warm.folder(out) / "report.md").stat().st_mtime_ns == kept
    again = json.loads((out / "ablations.json").read_text())
    assert again["rows"] == first["rows"] and again["curves"] == first["curves"]

    capsys.readouterr()
    assert ablations.main([*asked, "--rl-steps", "5"]) == 2
    assert f"{out} holds cells with options [" in capsys.readouterr().err
    lock = (out / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert ablations.main(asked) == 2 and f"cells are being run in {out}" in capsys.readouterr().err
    lock.close()


def test_a_cell_that_fails_is_told(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others go on, what needs it is left out, and the command says so with its exit code."""
    failing = tmp_path / "train.py"
    failing.write_text("import sys; sys.exit('no memory left')")
    monkeypatch.setattr(ablation_runs, "TRAIN", failing)
    asked = ["--rows", "full", "--seeds", "1", "--other-seeds", "1", "--model", weights, "--out", str(tmp_path / "out")]
    plan, _ = ablations.parse(asked)
    plan.prepare(running=True)
    assert ablation_runs.Runner(plan).run() == [Cell("instructed", 0), Cell("warm_start", 0), Cell("full", 0)]
    assert "instructed seed 0: failed with exit code 1, see" in capsys.readouterr().out
    assert (tmp_path / "out" / "instructed" / "seed-0.log").read_text() == "no memory left\n"
    assert not (tmp_path / "out" / "full").exists()


NOTED = """
import pathlib, sys, time
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
note = (out.parents[1] / "notes").open("a")
print("begin", out.parent.name, file=note, flush=True)
deadline = time.monotonic() + 30
while out.parent.name == "warm_start" and time.monotonic() < deadline:  # it takes longer than the other two
    if "end no_corrections" in (out.parents[1] / "notes").read_text():
        break
    time.sleep(0.01)
(out / "warm_start" / "model").mkdir(parents=True)
(out / "report.md").touch()
print("end", out.parent.name, file=note, flush=True)
"""


def test_cells_run_beside_each_other_as_soon_as_they_can(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at a time; what waits for a warm start keeps nobody waiting who does not."""
    noting = tmp_path / "train.py"
    noting.write_text(NOTED)
    monkeypatch.setattr(ablation_runs, "TRAIN", noting)
    monkeypatch.setattr(ablation_runs, "POLL", 0.01)
    asked = ["--rows", "full", "no_warm_start", "no_corrections", "--seeds", "1", "--other-seeds", "1", "--jobs", "2"]
    plan, _ = ablations.parse([*asked, "--model", weights, "--out", str(tmp_path / "out")])
    plan.prepare(running=True)
    assert ablation_runs.Runner(plan).run() == [] and len(plan.done) == 5
    notes = [line.split() for line in (tmp_path / "out" / "notes").read_text().splitlines()]
    running, most = set[str](), 0
    for _, row in notes:
        running ^= {row}
        most = max(most, len(running))
    assert most == 2 and not running
    order = [" ".join(note) for note in notes]
    assert order.index("end warm_start") < order.index("begin full")
    assert order.index("end no_corrections") < order.index("end warm_start")  # both others went by
    assert ablation_runs.Runner(plan).run() == [] and len(notes) == 10  # nothing is left to do
