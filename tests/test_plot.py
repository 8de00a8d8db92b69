"""Curves of training runs: what is drawn is what was logged, and what cannot be drawn is told."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pixel_env.plot import chosen, draw, grouped, main, read_run

pytest.importorskip("matplotlib")


def run(folder: Path, rewards: list[float], **settings: Any) -> Path:
    folder.mkdir()
    rows = [{"stage": "warm_start", "step": k, "time": 0.5, "epoch": 0.1, "loss": 1 / k} for k in (1, 2)]
    rows += [{"stage": "rl", "step": k, "loss": 0.1, "reward": r, "rapr": 0.5} for k, r in enumerate(rewards, start=1)]
    rows += [{"stage": "rl", "step": len(rewards), "train_runtime": 9.0, "train_loss": 0.1}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if settings:
        (folder / "config.json").write_text(json.dumps({"settings": settings}), encoding="utf-8")
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two seeds with curiosity, one without."""
    return [
        run(tmp_path / "with-0", [0.0, 0.2], alpha=0.5, seed=0),
        run(tmp_path / "with-1", [0.4, 0.8], alpha=0.5, seed=1),
        run(tmp_path / "without", [0.1, 0.1], alpha=0.0, seed=0),
    ]


def test_runs_that_differ_in_their_seed_are_one_group(runs: list[Path], tmp_path: Path) -> None:
    alone = run(tmp_path / "alone", [0.0])  # without settings
    assert grouped([*runs, alone]) == {"with-0, with-1": runs[:2], "without": [runs[2]], "alone": [alone]}
    (tmp_path / "other").mkdir()
    twin = run(tmp_path / "other" / "without", [0.0], alpha=1.0)
    assert list(grouped([runs[2], twin])) == [str(runs[2]), str(twin)]


def test_metrics_are_chosen_by_name(runs: list[Path]) -> None:
    rows = [read_run(path) for path in runs]
    assert chosen(None, rows) == [("warm_start", "loss"), ("rl", "reward"), ("rl", "rapr")]  # of a report
    assert chosen(["loss"], rows) == [("warm_start", "loss"), ("rl", "loss")]
    assert chosen(["rl/loss", "rapr", "loss"], rows) == [("rl", "loss"), ("rl", "rapr"), ("warm_start", "loss")]
    with pytest.raises(ValueError, match="logged, warm_start/loss, rl/loss, rl/rapr, rl/reward, got 'train_loss'"):
        chosen(["train_loss"], rows)
    unusual = [{"stage": "rl", "step": 1, "mine": 2.0, "text": "x"}]
    assert chosen(None, [unusual]) == [("rl", "mine")]


def test_what_is_drawn(runs: list[Path]) -> None:
    groups = {"with": [read_run(path) for path in runs[:2]], "without": [read_run(runs[2])]}
    figure = draw(groups, [("rl", "reward"), ("warm_start", "loss")], window=2)
    reward, loss = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["rl/reward", "warm_start/loss"]
    mean, raw, alone = reward.lines
    # running means of the seeds: 0, 0.1 and 0.4, 0.6
    assert np.allclose(mean.get_xydata(), [[1, 0.2], [2, 0.35]])
    (band,) = reward.collections
    assert {tuple(np.round(corner, 9)) for corner in band.get_paths()[0].vertices} == {
        (1.0, 0.0), (1.0, 0.4), (2.0, 0.1), (2.0, 0.6),
    }  # fmt: skip
    assert np.allclose(raw.get_xydata(), alone.get_xydata()) and raw.get_alpha() == 0.25
    assert mean.get_color() != alone.get_color() == raw.get_color()
    assert np.allclose(loss.lines[0].get_xydata(), [[1, 1.0], [2, 0.75]])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["with (2 runs)", "without"]


def test_the_command_writes_both_pictures(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "figures.v2"
    assert main([*map(str, runs), "-o", str(out)]) == 0
    assert capsys.readouterr().out.split() == [f"{out}.png", f"{out}.svg"]
    with Image.open(f"{out}.png") as picture:
        assert picture.format == "PNG" and picture.width > 1000
    svg = Path(f"{out}.svg").read_text(encoding="utf-8")
    for said in ("warm_start/loss", "rl/reward", "rl/rapr", "with-0, with-1 (2 runs)", "without"):
        assert said in svg
    only = tmp_path / "only.svg"
    files = ["--metrics", "reward", "--group", "all", *map(str, runs), "--group", "one", str(runs[2] / "metrics.jsonl")]
    for _ in range(2):
        before = only.read_bytes() if only.exists() else None
        assert main([*files, "--out", str(only)]) == 0
        assert before in (None, only.read_bytes())  # the same bytes again
    assert "all (3 runs)" in only.read_text(encoding="utf-8") and not only.with_suffix(".png").exists()


def test_folders_of_other_things_are_left_out(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ppo", "evaluation"):
        (tmp_path / name).mkdir()
    given, svg = sorted(map(str, tmp_path.iterdir())), tmp_path / "curves.svg"
    assert main([*given, "--group", "all", *given, "-o", str(svg)]) == 0
    said = f"plot: without metrics.jsonl, left out: {tmp_path}/evaluation, {tmp_path}/ppo\n"
    assert capsys.readouterr().err == 2 * said
    drawn = svg.read_text(encoding="utf-8")
    assert "all (3 runs)" in drawn and "evaluation" not in drawn
    assert main([*map(str, runs), str(tmp_path / "gone"), "-o", str(svg)]) == 2  # what is not there is a mistake


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected at least one run, got none"),
        (["nowhere"], "expected the folder of a training run, which holds metrics.jsonl, got nowhere: no nowhere"),
        (["empty"], "got empty: no empty/metrics.jsonl"),
        (["bare"], "expected rows with a stage, a step and metrics in bare/metrics.jsonl, got none"),
        (["other"], "expected rows with a stage, a step and metrics in other/metrics.jsonl, got none"),
        (["good", "--metrics", "rewards"], "expected --metrics out of what was logged, warm_start/loss, rl/loss,"),
        (["good", "--window", "0"], "expected --window of at least 1, got 0"),
        (["--group", "name"], "got the name 'name' alone"),
        (["--group", "name", "good", "./good"], "expected each run of 'name' once, got one twice"),
        (["good", "--group", "good", "good"], "expected groups of different names, got 'good' twice"),
        (["good", "-o", "none/curves"], "none/curves.png"),
    ],
)
def test_what_cannot_be_drawn_is_told(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run(Path("good"), [0.1])
    Path("empty").mkdir()
    for name, text in (("bare", '{"stage": "rl", "st'), ("other", '{"task_id": "a"}\n[1]\n')):
        Path(name).mkdir()
        Path(name, "metrics.jsonl").write_text(text, encoding="utf-8")
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("plot: ") and said in told


def test_a_missing_matplotlib_is_told(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main([str(runs[0])]) == 2
    assert 'matplotlib is needed to draw: pip install matplotlib, or "pixel-env[agents]"' in capsys.readouterr().err


def test_matplotlib_is_imported_to_draw_only() -> None:
    code = "import sys, pixel_env.plot; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
