"""The main command: mistakes in one line, a whole run with its files, and runs that are killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_vlm import model, processor

from agents import micro
from agents.report import read_metrics
from agents.run_settings import Settings, UsageError, parse
from agents.train_vlm import main
from pixel_env.trajectory import load_jsonl

# TRL 1.16 still calls transformers' activation checkpointing by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")

ROOT = Path(__file__).parents[1]
SMALL = (
    "--demonstrations 16 --epochs 2 --batch-size 4 --rl-steps 4 --prompts 2 --group-size 2 --save-steps 2"
    " --test-tasks 2 --batch-episodes 4 --max-new-tokens 12 --max-completion-tokens 300"
    " --rl-learning-rate 1e-3 --rl-batch-size 4"
).split()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("weights")
    micro.save(model(), processor(), folder)
    return str(folder)


@pytest.fixture(scope="module")
def finished(weights: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main([*SMALL, "--model", weights, "--out", str(out)]) == 0
    return out


def final_weights(out: Path, stage: str) -> dict[str, torch.Tensor]:
    return micro.load_model(out / stage / "model").state_dict()


def test_a_run_leaves_everything_that_is_promised(finished: Path, weights: str) -> None:
    config = json.loads((finished / "config.json").read_text())
    assert config["settings"]["model"] == weights and config["settings"]["rl_steps"] == 4
    assert config["rl"]["epsilon_high"] == 0.35 and config["train"]["suite"] == ["search", "count", "read", "clip"]
    assert config["command"].startswith("python ") and config["machine"]["torch"] == torch.__version__
    steps = [(row["stage"], row["step"]) for row in read_metrics(finished / "metrics.jsonl") if "train_loss" not in row]
    assert steps == [("rl", k) for k in range(1, 5)] + [("warm_start", k) for k in range(1, 9)]
    for name in ("base", "warm_start", "rl"):
        played = load_jsonl(finished / "trajectories" / f"{name}.jsonl")
        assert [t.suite for t in played] == ["search", "count", "read", "clip"] * 2
        assert all("-test-" in t.task_id and t.error is None for t in played)
    assert len(load_jsonl(finished / "trajectories" / "demonstrations.jsonl")) == 16
    assert (finished / "curves.png").read_bytes()[:4] == b"\x89PNG"
    for stage in ("warm_start", "rl"):
        assert list((finished / stage).rglob("events.out.tfevents*"))
        assert (finished / stage / "model" / "model.safetensors").exists()
    report = (finished / "report.md").read_text()
    for part in (
        "| suite | tasks | base | warm start | RL |",
        "## RaPR",
        "warm start - base",
        "RL - warm start",
        "curves.png",
    ):
        assert part in report, report
    for suite in ("search", "count", "read", "clip", "all"):
        assert report.count(f"\n| {suite} |") == 6  # scores, RaPR, differences, and three evaluations in full


def test_both_stages_train(finished: Path, weights: str) -> None:
    base = micro.load_model(weights).state_dict()
    warm, rl = final_weights(finished, "warm_start"), final_weights(finished, "rl")
    assert any(not torch.equal(base[name], warm[name]) for name in base)
    assert warm.keys() == rl.keys() == base.keys()


def test_resuming_a_finished_run_changes_nothing_but_the_report(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "metrics.jsonl").read_bytes()
    report = (finished / "report.md").read_text()
    assert main(["--resume", "--out", str(finished)]) == 0
    assert (finished / "metrics.jsonl").read_bytes() == before
    assert (finished / "report.md").read_text() == report
    assert "| all |" in capsys.readouterr().out


def start_and_kill(command: list[str], out: Path, moment: str) -> None:
    """Run the command until a file exists, then kill it and its children as the machine would."""
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (out / moment).exists():
        assert process.poll() is None and time.monotonic() < deadline, f"the run ended before {moment}"
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_a_killed_run_loses_at_most_one_checkpoint(finished: Path, weights: str, tmp_path: Path) -> None:
    """Killed in an evaluation, in the warm start and in RL, it ends with the weights of a run that never was."""
    out = tmp_path / "run"
    command = [sys.executable, "agents/train_vlm.py", "--out", str(out)]
    start_and_kill([*command, *SMALL, "--model", weights], out, "trajectories/base.part")
    start_and_kill([*command, "--resume"], out, "warm_start/checkpoint-4/complete")
    start_and_kill([*command, "--resume"], out, "rl/checkpoint-2/complete")
    assert main(["--resume", "--out", str(out)]) == 0
    rows = (out / "metrics.jsonl").read_text().splitlines()
    again = Counter((row["stage"], row["step"]) for row in map(json.loads, rows) if "train_loss" not in row)
    assert sum(count - 1 for count in again.values()) <= 2 * 2  # two kills, two steps between checkpoints
    for stage in ("warm_start", "rl"):
        expected, got = final_weights(finished, stage), final_weights(out, stage)
        for name in expected:
            torch.testing.assert_close(got[name], expected[name], rtol=1e-3, atol=1e-5, msg=name)
    for name in ("base", "warm_start", "rl"):
        path = Path("trajectories") / f"{name}.jsonl"
        assert [t.task_id for t in load_jsonl(out / path)] == [t.task_id for t in load_jsonl(finished / path)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "chess"], "invalid choice: 'chess'"),
        (["--stages", "sleep"], "invalid choice: 'sleep'"),
        (["--rl-steps", "many"], "invalid int value: 'many'"),
        (["--rl-step", "3"], "unrecognized arguments"),  # no guessing of abbreviations
        (["--rl-steps", "0"], "expected --rl-steps of at least 1, got 0"),
        (["--learning-rate", "nan"], "expected --learning-rate above 0, got nan"),
        (["--alpha", "-1"], "expected --alpha of at least 0, got -1.0"),
        (["--crop-padding", "-1"], "expected --crop-padding of at least 0, got -1.0"),
        (["--crop-padding", "2"], "expected --crop-padding of at most 1, the whole image, got 2.0"),
        (["--group-size", "1"], "at least 2"),
        (["--model", "missing/folder/of/weights"], "there is no model in missing/folder/of/weights"),
        (["--model", "tests/no_such_model"], "there is no model in tests/no_such_model"),
        (["--resume", "--out", "missing"], "there is no run to resume in missing"),
        (["--resume", "--seed", "3"], "drop --seed"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("train_vlm.py: error: ") and said.count("\n") == 1


def test_folders_that_do_not_do(weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, run, broken = tmp_path / "file", tmp_path / "run", tmp_path / "broken"
    file.touch()
    for folder, config in ((run, "{}"), (broken, "{")):
        folder.mkdir()
        (folder / "config.json").write_text(config)
    for arguments, message in (
        (["--out", str(file / "below")], "cannot write to"),
        (["--out", str(run)], "holds a run already; add --resume"),
        (["--resume", "--out", str(run)], "is not the configuration of a run"),
        (["--resume", "--out", str(broken)], "is not the configuration of a run"),
        (["--out", str(tmp_path / "new"), "--model", str(run)], "cannot load"),
    ):
        given = [] if "--resume" in arguments or "--model" in arguments else ["--model", weights]
        assert main([*arguments, *given]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1, said


def test_what_is_not_given_follows_from_the_preset(weights: str) -> None:
    def learning_rate(*arguments: str) -> float:
        settings: Settings = parse(["--model", weights, *arguments], "")[0]
        return settings.rl_learning_rate

    assert learning_rate() == 1e-4
    assert learning_rate("--preset", "standard") == 1e-6
    assert learning_rate("--preset", "standard", "--rl-learning-rate", "3e-6") == 3e-6
    assert parse(["--model", "Qwen/Qwen2.5-VL-7B-Instruct"], "")[0].model == "Qwen/Qwen2.5-VL-7B-Instruct"
    with pytest.raises(UsageError, match="there is no run to resume"):
        parse(["--resume", "--out", "nowhere"], "")


def test_the_newest_run_is_resumed(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings: dict[str, Any] = vars(parse(["--model", weights], "")[0])
    for age, name in enumerate(("newer", "older")):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"settings": settings}))
        os.utime(folder / "config.json", (1e9 - age, 1e9 - age))
    read, out, resumed = parse(["--resume"], "")
    assert (read, out, resumed) == (parse(["--model", weights], "")[0], Path("runs/newer"), True)


def test_help_reads_well(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    assert "examples:" in said and "warm start:" in said and "None" not in said
    assert max(map(len, said.splitlines())) <= 120
