"""The results files of training runs, from run folders that are made by hand."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import training
from pixel_env.policies import DirectPolicy
from pixel_env.rollout import rollout
from pixel_env.trajectory import save_jsonl


def run_folder(folder: Path, right: dict[str, int]) -> Path:
    """A finished run whose models answered so many of 8 tasks, four of search and four of count."""
    (folder / "trajectories").mkdir(parents=True)
    played = rollout(
        DirectPolicy(), "PixelReason-Zoom-v0", range(8), suite=["search", "count"], preset="micro", progress=False
    )
    for name, number in right.items():
        graded = [dataclasses.replace(t, correct=k < number, score=float(k < number)) for k, t in enumerate(played)]
        save_jsonl(folder / "trajectories" / f"{name}.jsonl", graded)
    config = {"settings": {"model": "some/where/micro_base", "seed": 0}, "machine": {"threads": 2}}
    (folder / "config.json").write_text(json.dumps(config))
    logged = [{"stage": "rl", "step": k, "rapr": k / 4, "correctness": 0.5} for k in range(4)]
    logged += [
        {"stage": stage, "step": 4, "train_runtime": seconds} for stage, seconds in (("rl", 9.6), ("warm_start", 5))
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in logged))
    return folder


def test_both_files_and_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curious = run_folder(tmp_path / "a", {"base": 0, "warm_start": 2, "rl": 6})
    plain = run_folder(tmp_path / "b", {"base": 0, "warm_start": 2, "rl": 4})
    command = ["training.py", str(curious), "--without", str(plain), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    training.main()
    one, both = (json.loads((tmp_path / name).read_text()) for name in ("training.json", "pilots.json"))
    assert one["base"]["all"]["score"][0] == 0 and one["warm start"]["all"]["score"][0] == 25
    assert one["RL"]["all"]["score"][0] == 75 and one["RL"]["all"]["rapr"] == 0
    assert one["warm start - base"]["all"][0] == 25 and one["RL - warm start"]["all"][0] == 50
    assert one["RL"].keys() == {"search", "count", "all"} and one["settings"]["model"] == "micro_base"
    assert one["seconds"] == {"rl": 10, "warm_start": 5} and one["test_tasks"] == 8
    assert both["with - without"]["all"][0] == 25 and both["with curiosity"]["RL"] == one["RL"]
    with Image.open(tmp_path / "pilots.png") as picture:
        assert picture.width > 1000


def test_an_unfinished_run_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path / "a", {"base": 0})
    monkeypatch.setattr(sys, "argv", ["training.py", str(folder)])
    with pytest.raises(SystemExit):
        training.main()
    assert f"expected a finished run with two evaluated models or more in {folder}" in capsys.readouterr().err
