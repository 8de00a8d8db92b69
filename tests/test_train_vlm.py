"""The main command: mistakes in one line, a whole run with its files, and runs that are killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from layouts import message, mvbench, pixelreasoner_rows, pixelreasoner_sft, tallyqa, write_json, write_lines
from tiny_vlm import model, processor

from agents import micro
from agents.conversation import ChatEncoder, Tokens
from agents.demonstrations import demonstrations
from agents.examples import IGNORED, collate
from agents.recipes import RECIPES
from agents.run_settings import Settings, parse
from agents.train_vlm import Run, main
from pixel_env.actions import Answer, render
from pixel_env.command_line import UsageError
from pixel_env.game import Game
from pixel_env.metrics import read_metrics
from pixel_env.policies import gold
from pixel_env.tasks import ProceduralTasks
from pixel_env.trajectory import Trajectory, load_jsonl, save_jsonl

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
    told = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    logged = {name for row in read_metrics(finished / "metrics.jsonl") for name in row}
    assert {name for name in logged if f"`{name}`" not in told} == set()
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


def real_data(root: Path) -> dict[str, str]:
    """Small files in the layouts of the SFT, RL and evaluation data; one record of the first is damaged."""
    sft = pixelreasoner_sft(root / "sft")
    records = json.loads(sft.read_text())
    write_json(sft, [*records, {"message_list": [message("user", "?", "images/gone.jpg")] * 2}])
    rows = pixelreasoner_rows(root / "rl")
    write_json(root / "rl" / "release.json", rows)
    for name, qid in (("vstar", "vstar-1"), ("info", "infovqa-1")):
        pixelreasoner_rows(root / name)
        write_json(root / name / "test.json", [{**rows[0], "qid": qid}, {**rows[1], "qid": qid}])
    specs = {name: f"pixelreasoner:{root / name}" for name in ("rl", "vstar", "info")}
    return specs | {"sft": str(sft), "tallyqa": f"tallyqa:{tallyqa(root / 'tallyqa') / 'test.json'}"}


def test_a_run_on_real_data(weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Warm start on records, RL on images and videos, evaluations on three sets, of which one has a missing file."""
    data, out = real_data(tmp_path / "data"), tmp_path / "run"
    given = ["--sft-data", data["sft"], "--rl-data", data["rl"]]
    given += ["--test-data", data["vstar"], data["info"], data["tallyqa"]]
    small = [*SMALL, "--epochs", "1", "--rl-steps", "2", "--prompts", "4", "--test-tasks", "3"]
    assert main([*small, *given, "--model", weights, "--out", str(out)]) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["train"]["tasks"] == data["rl"] and "suite" not in config["train"]
    assert config["settings"]["crop_padding"] == 0.1  # the boxes of the records count on it
    recorded = load_jsonl(out / "trajectories" / "demonstrations.jsonl")
    assert len(recorded) == 12 and [t.error is not None for t in recorded] == [False] * 11 + [True]
    (problem,) = (out / "trajectories" / "damaged.txt").read_text().splitlines()
    assert "sft.json, row 11 (the first is 0): expected message 1" in problem
    assert "1 of 12 records of" in capsys.readouterr().out
    steps = Counter(row["stage"] for row in read_metrics(out / "metrics.jsonl") if "train_loss" not in row)
    assert steps == {"warm_start": 3, "rl": 2}  # 11 records in batches of 4
    rollouts = load_jsonl(next((out / "rl").glob("rollouts-*.jsonl")))
    assert {t.suite for t in rollouts} >= {"pixelreasoner/vstar", "pixelreasoner/STAR"}  # an image and a video
    for name in ("base", "warm_start", "rl"):
        played = load_jsonl(out / "trajectories" / f"{name}.jsonl")
        assert [t.task_id for t in played] == [
            *["pixelreasoner-0", "pixelreasoner-1"] * 2, "tallyqa-0", "tallyqa-1", "tallyqa-2",
        ]  # fmt: skip
        assert [t.suite for t in played[:4]] == ["pixelreasoner/vstar"] * 2 + ["pixelreasoner/infovqa"] * 2
        assert [t.error is not None for t in played] == [False] * 6 + [True]
    report = (out / "report.md").read_text()
    assert "5 single, 1 recrop_once, 1 recrop_twice, 2 zoom_further, 1 reselect, 1 textual, 1 damaged" in report
    assert "\n| all | 6 |" in report  # sets of one format share their ids, and are not taken for one
    assert f"- test data: {data['vstar']}, {data['info']}, {data['tallyqa']}" in report


def test_demonstrations_of_a_task_set_with_cues(weights: str, tmp_path: Path) -> None:
    frame = pixelreasoner_rows(tmp_path)[0]["image"][0]
    task = {"image": frame, "question": "What?", "answer": "7", "boxes": [60, 40, 66, 46]}
    spec = f"jsonl:{write_lines(tmp_path / 'mine.jsonl', [task] * 3)}"
    given = ["--rl-data", spec, "--test-data", spec, "--stages", "warm_start", "--demonstrations", "4"]
    assert main([*SMALL, *given, "--model", weights, "--out", str(tmp_path / "run")]) == 0
    made = load_jsonl(tmp_path / "run" / "trajectories" / "demonstrations.jsonl")
    assert len(made) == 4 and {t.suite for t in made} == {"jsonl"} and all(t.correct for t in made)


def test_demonstrations_that_were_made_before(weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = demonstrations("PixelReason-Mixed-v0", 4, preset="micro", crop_padding=0.07, progress=False)
    save_jsonl(tmp_path / "demonstrations.jsonl", made)
    given = ["--sft-data", str(tmp_path / "demonstrations.jsonl"), "--stages", "warm_start", "--model", weights]
    assert main([*SMALL, *given, "--crop-padding", "0", "--out", str(tmp_path / "run")]) == 2
    assert "--sft-data: expected demonstrations made as this run shows its tasks, got crop_padding 0.07 and not 0" in (
        capsys.readouterr().err
    )
    assert main([*SMALL, *given, "--out", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["settings"]["crop_padding"] == 0.07
    assert load_jsonl(tmp_path / "run" / "trajectories" / "demonstrations.jsonl") == made


def test_what_a_person_played_is_learnt_from(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, taught = tmp_path / "played.jsonl", []

    def noted(examples: Sequence[Tokens], encoder: ChatEncoder) -> dict[str, torch.Tensor]:
        batch = collate(examples, encoder)
        for row in batch["labels"]:
            taught.append(encoder.tokenizer.decode(row[row != IGNORED]))
        return batch

    game = Game(gym.make("PixelReason-Mixed-v0", preset="micro"), path)
    game.new(0)
    right = render(Answer(gold(ProceduralTasks(preset="micro")[0])))
    turns = ("crop_image([60, 60, 9, 9])", "Here. crop_image([9, 9, 60, 60])", "Hm.", f"So {right}.")
    for turn in turns:
        game.step(turn)
    assert game.trajectory().correct
    monkeypatch.setattr("agents.sft.collate", noted)
    small = ["--epochs", "2", "--stages", "warm_start", "--test-tasks", "1"]
    assert main([*SMALL, *small, "--sft-data", str(path), "--model", weights, "--out", str(tmp_path / "run")]) == 0
    assert taught == 2 * [f"{turns[1]}<|im_end|>{turns[3]}<|im_end|>"]  # nothing of what went wrong
    assert load_jsonl(tmp_path / "run" / "trajectories" / "demonstrations.jsonl") == [game.trajectory()]


@pytest.mark.parametrize("recorded", [False, True])
def test_demonstrations_without_corrections(weights: str, tmp_path: Path, recorded: bool) -> None:
    given = ["--sft-data", real_data(tmp_path / "data")["sft"]] if recorded else ["--demonstrations", "40"]

    def made(*more: str) -> list[Trajectory]:
        settings, out, _ = parse([*SMALL, *given, *more, "--model", weights, "--out", str(tmp_path / "run")], "")
        run = Run(settings, out)
        run.prepare()
        shutil.rmtree(out)
        (out / "trajectories").mkdir(parents=True)
        return run._demonstrations()

    every = made()
    assert {one.kind for one in every} > {"single", "textual", "zoom_further", "recrop_once"}
    kept = [one for one in every if one.kind in ("single", "textual") or one.error is not None]
    assert made("--no-corrections") == kept and len(kept) > 2


def test_only_the_last_model_is_evaluated_without_operations(weights: str, tmp_path: Path) -> None:
    given = ["--stages", "rl", "--rl-steps", "1", "--evaluate", "last", "--no-operations"]
    assert main([*SMALL, *given, "--model", weights, "--out", str(tmp_path / "run")]) == 0
    assert [path.name for path in (tmp_path / "run" / "trajectories").iterdir()] == ["rl.jsonl"]
    played = load_jsonl(tmp_path / "run" / "trajectories" / "rl.jsonl")
    assert all("crop_image" not in trajectory.instructions for trajectory in played)
    assert "| suite | tasks | RL |" in (tmp_path / "run" / "report.md").read_text()


def test_mistakes_about_data_are_told_in_one_line(
    weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = real_data(tmp_path)
    damaged = write_json(tmp_path / "damaged.json", [{"message_list": []}])
    hidden = f"jsonl:{write_lines(tmp_path / 'hidden.jsonl', [{'image': 'rl/images/x_0001.jpg', 'question': 'What?'}])}"
    for arguments, said in (
        (
            ["--rl-data", data["rl"]],
            "--rl-data: expected tasks that say where the evidence is, to demonstrate",
        ),
        (["--rl-data", hidden, "--stages", "rl"], "--rl-data: expected tasks with answers in"),
        (["--rl-data", "chess:x", "--sft-data", data["sft"]], "--rl-data: expected the name of a format"),
        (["--rl-data", str(tmp_path)], "--rl-data: expected tasks as 'NAME:PATH'"),
        (["--sft-data", str(tmp_path / "gone")], "--sft-data: expected a file or a folder, got"),
        (
            ["--sft-data", str(damaged)],
            "damaged.json, row 0 (the first is 0): expected message_list as 2 to",
        ),
        (["--test-data", data["vstar"], data["rl"]], "expected sets of different suites, got pixelreasoner/vstar in"),
        (["--test-data", f"mvbench:{mvbench(tmp_path / 'm')}x"], "--test-data: expected a folder"),
    ):
        assert main([*SMALL, *arguments, "--model", weights, "--out", str(tmp_path / "run")]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, error


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--tasks", "chess"], "invalid choice: 'chess'"),
        (["--stages", "sleep"], "invalid choice: 'sleep'"),
        (["--rl-steps", "many"], "invalid int value: 'many'"),
        (["--rl-step", "3"], "unrecognized arguments"),  # no guessing of abbreviations
        (["--rl-steps", "0"], "expected --rl-steps of at least 1, got 0"),
        (["--learning-rate", "nan"], "expected --learning-rate above 0, got nan"),
        (["--alpha", "-1"], "expected --alpha of at least 0, got -1.0"),
        (["--crop-padding", "-1"], "expected --crop-padding of at least 0, got -1.0"),
        (["--textual-share", "2"], "expected --textual-share from 0 to 1, got 2.0"),
        (["--crop-padding", "2"], "expected --crop-padding of at most 1, the whole image, got 2.0"),
        (["--group-size", "1"], "at least 2"),
        (["--updates", "3"], "to divide --prompts times --group-size = 128 and --save-steps = 20, got 3"),
        (["--no-operations"], "expected operations in a warm start"),
        (["--model", "missing/folder/of/weights"], "there is no model in missing/folder/of/weights"),
        (["--model", "tests/no_such_model"], "there is no model in tests/no_such_model"),
        (["--resume", "--out", "missing"], "there is no run to resume in missing"),
        (["--resume", "--seed", "3"], "drop --seed"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.startswith("train_vlm.py: error: ") and said.count("\n") == 1


def test_folders_that_do_not_do(weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, run, broken = tmp_path / "file", tmp_path / "run", tmp_path / "broken"
    file.touch()
    for folder, config in ((run, "{}"), (broken, "{")):
        folder.mkdir()
        (folder / "config.json").write_text(config)
    for arguments, expected in (
        (["--out", str(file / "below")], "cannot write to"),
        (["--out", str(run)], "holds a run already; add --resume"),
        (["--resume", "--out", str(run)], "is not the configuration of a run"),
        (["--resume", "--out", str(broken)], "is not the configuration of a run"),
        (["--out", str(tmp_path / "new"), "--model", str(run)], "cannot load"),
    ):
        given = [] if "--resume" in arguments or "--model" in arguments else ["--model", weights]
        assert main([*arguments, *given]) == 2
        said = capsys.readouterr().err
        assert expected in said and said.count("\n") == 1, said


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


def test_a_recipe_is_the_preset_and_all_that_goes_with_it(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    def settings(*arguments: str) -> dict[str, Any]:
        return vars(parse(["--model", weights, *arguments], "")[0])

    assert settings() == settings("--recipe", "micro") == settings("--preset", "micro")
    assert settings("--recipe", "paper") == settings("--preset", "standard")
    for name, recipe in RECIPES.items():
        found = settings("--recipe", name)
        assert {key: found[key] for key in vars(recipe)} == vars(recipe)
    mixed = settings("--recipe", "paper", "--preset", "micro", "--alpha", "0")
    assert (mixed["preset"], mixed["prompts"], mixed["alpha"], mixed["uniform_groups"]) == ("micro", 32, 0.0, "replay")
    # arXiv 2505.15966v3, section 4, section 5 and appendix C.3
    paper = RECIPES["paper"]
    assert (paper.alpha, paper.beta, paper.threshold, paper.limit, paper.group_size) == (0.5, 0.05, 0.3, 1, 8)
    assert (paper.batch_size * paper.accumulation, paper.prompts * paper.group_size) == (128, 256)
    assert (paper.demonstrations, paper.learning_rate, paper.rl_learning_rate) == (7500, 1e-6, 1e-6)

    out = Path("never") / "made"
    assert main(["--model", weights, "--recipe", "paper", "--show", "--out", str(out)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["settings"] == json.loads(json.dumps(settings("--recipe", "paper")))
    assert shown["rl"]["epsilon_high"] == 0.35 and shown["train"]["alpha"] == 0.5 and not out.exists()


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
