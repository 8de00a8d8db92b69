"""Comparisons, curves and the table, over evaluations whose numbers are known."""

import csv
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from test_evaluation import made

from benchmarks import budget_curves, compare, evaluate, table1
from benchmarks.fingerprint import fingerprint
from pixel_env.trajectory import load_jsonl, save_jsonl

A = {"mean": 0.5, "low": 0.25, "high": 0.75}


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixel_env.evaluation.RESAMPLES", 200)


def written(folder: Path, scores: dict[str, float], fingerprint_of: str = "same", **changes: Any) -> Path:
    """An evaluation with one episode a question; a question `q3` has 3 operations and 16 + 3 visual tokens."""
    folder.mkdir()
    episodes = [
        made(task_id=name, score=score, correct=score == 1, num_operations=int(name[1:]), suite=f"suite-{name[0]}")
        for name, score in scores.items()
    ]
    save_jsonl(folder / "trajectories.jsonl", episodes)
    costs = [{"task_id": t.task_id, "seed": t.seed, "visual_tokens": [16, t.num_operations]} for t in episodes]
    (folder / "costs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in costs))
    part = {"tasks": len(episodes), "summary": {"tasks": 4, "questions": 4, "score": A, "rapr": A}}
    result: dict[str, Any] = {
        "policy": folder.name, "commit": "abc", "fingerprint": fingerprint([fingerprint_of]), "scorer": "strict",
        "settings": {"policy": folder.name, "seed": 0}, "operations": ["crop_image"], "overall": {},
        "environment": {"protocol": "native"},
        "parts": {"vstar": part},
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result | changes))
    return folder


def test_the_difference_and_the_flips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = written(tmp_path / "a", {"p0": 1.0, "p1": 0.0, "q0": 0.0, "q1": 0.0})
    b = written(tmp_path / "b", {"p0": 0.0, "p1": 1.0, "q0": 1.0, "q1": 0.0})
    assert compare.main([str(a), str(b / "result.json"), "--out", str(tmp_path / "c.json")]) == 0
    compared = json.loads((tmp_path / "c.json").read_text())
    rows = compared["difference"]
    assert {suite: (row["tasks"], row["a"], row["b"], row["mean"]) for suite, row in rows.items()} == {
        "all": (4, 0.25, 0.5, 0.25), "suite-p": (2, 0.5, 0.5, 0.0), "suite-q": (2, 0.0, 0.5, 0.5),
    }  # fmt: skip
    assert [flip["task_id"] for flip in compared["better"]] == ["p1", "q0"]
    assert [flip["task_id"] for flip in compared["worse"]] == ["p0"]
    assert compared["differs"] == {"policy": ["a", "b"]}
    said = capsys.readouterr().out
    assert "| all | 4 | 25.0 | 50.0 | +25.0 [" in said and "B worse than A: 1\n  p0: A -> A" in said


def test_forms_of_a_question_are_compared_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, score in (("a", 0.0), ("b", 1.0)):
        folder = written(tmp_path / name, {"p0": score, "p1": score, "p2": score})
        episodes = [dataclasses.replace(t, group="p") for t in load_jsonl(folder / "trajectories.jsonl")]
        save_jsonl(folder / "trajectories.jsonl", episodes)
    assert compare.main([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "| all | 1 | 0.0 | 100.0 |" in capsys.readouterr().out


def test_other_questions_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = written(tmp_path / "a", {"p0": 1.0})
    b = written(tmp_path / "b", {"p0": 1.0}, fingerprint_of="other")
    assert compare.main([str(a), str(b)]) == 2
    error = capsys.readouterr().err
    assert "expected two evaluations of the same questions, got vstar (1)" in error and error.count("\n") == 1
    assert compare.main([str(a), str(tmp_path / "nothing")]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_a_curve_rises_where_episodes_end(tmp_path: Path) -> None:
    a = written(tmp_path / "a", {"p0": 1.0, "p1": 0.0, "p2": 1.0, "p4": 0.5})
    assert budget_curves.main([str(a), "--out", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "budget_curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    points = {axis: [(float(r["budget"]), float(r["score"])) for r in rows if r["axis"] == axis] for axis in
              ("operations", "visual_tokens")}  # fmt: skip
    # By hand: of four questions, those with at most 0, 1, 2, 4 operations score 1, 1, 2, 2.5; the mean is 1.75.
    assert points["operations"] == [(0, 0.25), (1, 0.25), (2, 0.5), (4, 0.625), (1.75, 0.625)]
    assert points["visual_tokens"] == [(16, 0.25), (17, 0.25), (18, 0.5), (20, 0.625), (17.75, 0.625)]
    assert (tmp_path / "out" / "budget_curves.png").stat().st_size > 5000


def test_curves_without_matplotlib(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    assert budget_curves.main([str(written(tmp_path / "a", {"p0": 1.0})), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "cannot draw: " in error and "pip install" in error and error.count("\n") == 1
    assert (tmp_path / "out" / "budget_curves.csv").exists()


def test_folders_of_the_same_name_have_a_curve_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        written(tmp_path / place / "out", {"p0": 1.0, "p1": 0.0})
    given = [str(tmp_path / place / "out") for place in ("a", "b")]
    assert budget_curves.main([*given, "--out", str(tmp_path / "curves")]) == 0
    with (tmp_path / "curves" / "budget_curves.csv").open() as file:
        assert {row["evaluation"] for row in csv.DictReader(file)} == {f"out ({folder})" for folder in given}
    assert budget_curves.main([given[0], given[0], "--out", str(tmp_path / "curves")]) == 2
    assert "expected each evaluation once" in capsys.readouterr().err


def test_long_curves_are_thinned() -> None:
    budgets = budget_curves.budgets(list(range(1000)))
    assert len(budgets) == budget_curves.POINTS and (budgets[0], budgets[-1]) == (0, 999)


def test_the_table_has_every_row_of_the_paper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = written(tmp_path / "mine", {"p0": 1.0})
    assert table1.main(["--results", str(a), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "table1.md").read_text()
    assert text.strip() in capsys.readouterr().out
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert len(rows) == 2 + 18 + 2  # head and rule, the paper's rows, score and RaPR measured here
    assert "| 84.3 | 73.8 | 67.8 | 84.0 | quoted, arXiv 2505.15966v3, Table 1 |" in rows["Pixel-Reasoner-7B"]
    assert "| 78.53 | 57.78 | 66.95 | 58.95 |" in rows["Pixel-Reasoner-7B: RaPR"]
    assert "| 73.2 | 73.8 | - | 86.5 |" in rows["Gemini-2.0-Flash"]
    averages = {
        "Pixel-Reasoner-7B": 77.5,
        "Qwen2.5-VL-7B": 70.9,
        "warm start, no RL": 70.1,
        "RL without curiosity": 75.0,
        "RL without warm start": 75.2,
        "RL without correction data": 72.9,
    }
    for name, average in averages.items():  # of the four benchmarks, worked out from the paper by hand
        numbers = [float(cell) for cell in rows[name].split(" | ")[1:5]]
        assert sum(numbers) / 4 == pytest.approx(average, abs=0.06), name
    assert rows["**mine**"] == "| **mine** | 50.0 [25.0, 75.0] n=4 | - | - | - | measured, scorer strict, commit abc |"
    assert "The generated suites" not in text


def test_without_data_the_generated_suites_stand_in(tmp_path: Path) -> None:
    assert table1.main(["--run", "direct", "oracle", "--n", "2", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "table1.md").read_text().split("## The generated suites")[1]
    assert "Not to be set beside" in text and "`search` (after V*)" in text and "**oracle**: RaPR" in text
    assert (
        text.split("| **oracle** | ")[1].splitlines()[0].count("100.0 [34.2, 100.0] n=2") == 4
    )  # Wilson: 2 / (2 + z^2)
    assert (tmp_path / "0-direct" / "result.json").exists()


@pytest.mark.parametrize(
    ("label", "suite", "column"),
    [
        ("pixelreasoner", "pixelreasoner/vstar", 0),
        ("pixelreasoner", "pixelreasoner/tallyqa", 1),
        ("tallyqa", "tallyqa/complex", 1),
        ("pixelreasoner", "pixelreasoner/InfographicsVQA", 3),
    ],
)
def test_a_benchmark_inside_a_set_has_its_column(label: str, suite: str, column: int, tmp_path: Path) -> None:
    summary = {"tasks": 4, "questions": 4, "score": A, "rapr": A}
    other = summary | {"score": None}
    part = {"summary": other, "suites": {suite: summary, "pixelreasoner/other": other, "tallyqa/simple": other}}
    a = written(tmp_path / "mine", {"p0": 1.0}, parts={label: part})
    assert table1.main(["--results", str(a), "--out", str(tmp_path / "out")]) == 0
    line = (tmp_path / "out" / "table1.md").read_text().split("| **mine** | ")[1].splitlines()[0]
    cells = ["-"] * 4
    cells[column] = "50.0 [25.0, 75.0] n=4"
    assert line.startswith(" | ".join(cells))


def test_infographics_are_scored_by_anls_whatever_the_scorer(tmp_path: Path) -> None:
    wrong = {"tasks": 4, "questions": 4, "score": None, "rapr": A}
    part = {"summary": wrong, "suites": {}, "strict": {"summary": wrong | {"score": A}, "suites": {}}}
    released: dict[str, Any] = {"scorer": "pixelreasoner_compat", "environment": {"protocol": "pixelreasoner"}}
    a = written(tmp_path / "mine", {"p0": 1.0}, parts={"infographicvqa": part, "vstar": part}, **released)
    assert table1.main(["--results", str(a), "--out", str(tmp_path / "out")]) == 0
    line = (tmp_path / "out" / "table1.md").read_text().split("| **mine** | ")[1].splitlines()[0]
    scored = "measured, scorer pixelreasoner_compat, protocol pixelreasoner, commit abc"
    assert line == f"- | - | - | 50.0 [25.0, 75.0] n=4 | {scored} |"


def test_two_suites_of_one_column_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = {"tasks": 4, "questions": 4, "score": A, "rapr": A}
    suites = {"pixelreasoner/infovqa": summary, "pixelreasoner/infographicvqa": summary}
    a = written(tmp_path / "mine", {"p0": 1.0}, parts={"pixelreasoner": {"summary": summary, "suites": suites}})
    assert table1.main(["--results", str(a), "--out", str(tmp_path / "out")]) == 2
    assert "expected one suite for InfoVQA, got several" in capsys.readouterr().err


def test_a_table_without_a_row_of_its_own_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = written(tmp_path / "mine", {"p0": 1.0}, parts={"hrbench": {"summary": {}, "suites": {"hrbench/single": {}}}})
    assert table1.main(["--results", str(a), "--out", str(tmp_path / "out")]) == 2
    assert "got hrbench of mine" in capsys.readouterr().err
    assert table1.main(["--run", "direct", "--tasks", f"hrbench:{tmp_path}", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "got hrbench" in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_run_that_fails_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert table1.main(["--run", "nobody", "--out", str(tmp_path)]) == 2
    assert "unknown policy 'nobody'" in capsys.readouterr().err


def test_evaluations_of_the_command_can_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for policy in ("direct", "oracle"):
        asked = ["--tasks", "search", "--preset", "micro", "--policy", policy, "--limit", "3"]
        assert evaluate.main([*asked, "--out", str(tmp_path / policy)]) == 0
    assert compare.main([str(tmp_path / "direct"), str(tmp_path / "oracle")]) == 0
    assert "| search | 3 |" in capsys.readouterr().out
