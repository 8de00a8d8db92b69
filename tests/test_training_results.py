"""The results files of training runs, from run folders that are made by hand."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import training
from pixel_env.policies import DirectPolicy
from pixel_env.rollout import rollout
from pixel_env.trajectory import save_jsonl


def run_folder(folder: Path, right: dict[str, int], seed: int = 0, steps: int = 4) -> Path:
    """A finished run whose models answered so many of 8 tasks, four of search and four of count."""
    (folder / "trajectories").mkdir(parents=True)
    played = rollout(
        DirectPolicy(), "PixelReason-Zoom-v0", range(8), suite=["search", "count"], preset="micro", progress=False
    )
    for name, number in right.items():
        graded = [dataclasses.replace(t, correct=k < number, score=float(k < number)) for k, t in enumerate(played)]
        save_jsonl(folder / "trajectories" / f"{name}.jsonl", graded)
    config = {"settings": {"model": "some/micro_base", "seed": seed, "rl_steps": steps}, "machine": {"threads": 2}}
    (folder / "config.json").write_text(json.dumps(config))
    logged = [{"stage": "rl", "step": k, "rapr": k / 4, "correctness": 0.5} for k in range(4)]
    logged += [
        {"stage": stage, "step": 4, "train_runtime": seconds} for stage, seconds in (("rl", 9.6), ("warm_start", 5))
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in logged))
    return folder


def test_two_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = run_folder(tmp_path / "a", {"base": 0, "warm_start": 2, "rl": 6})
    other = run_folder(tmp_path / "b", {"base": 0, "warm_start": 4, "rl": 6}, seed=1)
    monkeypatch.setattr(sys, "argv", ["training.py", str(one), str(other), "--out", str(tmp_path)])
    training.main()
    found = json.loads((tmp_path / "training.json").read_text())
    assert found["base"]["all"]["score"] == [0, 0, 0] and found["RL"]["all"]["score"][0] == 75
    warm = found["warm start"]["all"]
    assert warm["score"][0] == 37.5 and warm["by_seed"] == [25, 50] and warm["rapr"] == 0
    assert 0 <= warm["score"][1] < 37.5 < warm["score"][2] <= 100
    assert found["warm start - base"]["all"][0] == found["RL - warm start"]["all"][0] == 37.5
    assert found["RL"].keys() == {"search", "count", "all"} and found["settings"]["model"] == "micro_base"
    assert found["seeds"] == [0, 1] and found["seconds"] == [{"rl": 10, "warm_start": 5}] * 2
    assert found["test_tasks"] == 8
    with Image.open(tmp_path / "training.png") as picture:
        assert picture.width > 1000


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ({"right": {"base": 0}, "seed": 1}, "expected a finished run with two evaluated models or more in"),
        ({"right": {"base": 0, "rl": 1}, "seed": 0}, "expected runs that differ in their seed and in nothing else"),
        ({"right": {"base": 0, "rl": 1}, "seed": 1, "steps": 5}, "expected runs that differ in their seed"),
        (None, "No such file"),
    ],
)
def test_runs_that_do_not_go_together_are_told(
    others: dict[str, Any] | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    folders = [run_folder(tmp_path / "a", {"base": 0, "rl": 1}), tmp_path / "b"]
    if others:
        run_folder(folders[1], **others)
    monkeypatch.setattr(sys, "argv", ["training.py", *map(str, folders), "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        training.main()
    assert told in capsys.readouterr().err and not (tmp_path / "training.json").exists()
