"""The whole recipe under `accelerate launch --num_processes 2` on the CPU, beside the same in one process."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from datasets import Dataset
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl

from agents import micro
from agents.conversation import ChatEncoder
from agents.grpo import CuriosityGRPOTrainer
from agents.rl_config import RLConfig, trl_config
from agents.train_vlm import ENV_ID, main
from pixel_env.metrics import read_metrics

# TRL 1.16 still calls transformers' activation checkpointing by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "agents" / "accelerate"
SMALL = (
    "--tasks search --levels 1 --demonstrations 8 --epochs 1 --batch-size 4 --test-tasks 3 --batch-episodes 2"
    " --evaluate last --max-new-tokens 40 --max-completion-tokens 300"
).split()
RL = "--rl-steps 2 --prompts 3 --group-size 4 --rl-batch-size 4 --save-steps 1 --temperature 1".split()
PLAIN, SHARDED = ["--multi_gpu"], ["--config_file", str(CONFIGS / "fsdp.yaml")]


def launch(launcher: list[str], way: str, out: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run `train_vlm.py` in two processes; `--multi_gpu` starts several where there is no GPU, too."""
    records = out.with_name(f"{out.name}-records")
    records.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "accelerate.commands.launch", *launcher, "--num_processes", "2"]
    command += ["--main_process_port", "0", str(ROOT / "tests" / "launched_run.py"), str(records), way, *options]
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    return subprocess.run([*command, "--out", str(out)], env=env, cwd=out.parent, capture_output=True, text=True)


def records(out: Path) -> list[list[dict[str, Any]]]:
    """What each process noted in each round."""
    return [pickle.loads((out.with_name(f"{out.name}-records") / f"{rank}.pickle").read_bytes()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain") / "run"
    done = launch(PLAIN, "plain", out, *SMALL, *RL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("starting") == done.stdout.count("report:") == 1  # the other process prints nothing
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return micro.load_model(folder).state_dict()


class Again:
    """Plays what was played."""

    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def rollout(self, groups: list[list[Any]]) -> list[Any]:
        assert sum(map(len, groups)) == len(self.samples)
        return self.samples


def test_processes_that_the_command_starts_do_as_those_of_a_launcher(plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, str(ROOT / "agents" / "train_vlm.py"), "--processes", "2", *SMALL, *RL]
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*command, "--out", str(out)], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("starting") == done.stdout.count("report:") == 1
    config = json.loads((out / "config.json").read_text())
    assert config["command"].split()[:4] == ["python", command[1], "--processes", "2"]
    assert config["machine"]["processes"] == 2
    named = ("rewards/correctness/mean", "rapr", "tokens_per_rollout", "loss")
    theirs, ours = ([{k: row.get(k) for k in named} for row in read_metrics(f / "metrics.jsonl")] for f in (plain, out))
    assert ours == theirs and len(ours) > 3
    resumed = subprocess.run(
        [*command[:4], "--resume", "--out", str(out)], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert resumed.returncode == 0 and resumed.stdout.count("continuing") == 1, resumed.stderr


def test_a_mistake_that_processes_tell_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nine rollouts cannot be shared out, which only the new processes see: all end with the code of a mistake."""
    assert main([*"--processes 2 --prompts 3 --group-size 3 --out".split(), str(tmp_path / "run")]) == 2
    said = capfd.readouterr().err
    assert "to be a multiple of the 2 processes, got 9" in said and said.count("\n") == 1


@pytest.mark.slow
def test_rewards_and_advantages_are_those_of_one_process(plain: Path, tmp_path: Path) -> None:
    config = json.loads((plain / "config.json").read_text())
    assert config["machine"]["processes"] == 2 and "--num_processes 2" in config["command"]
    halves = records(plain)
    rl = RLConfig(**config["rl"])
    alone: Any = CuriosityGRPOTrainer(
        micro.load_model(plain / "warm_start" / "model"),
        ChatEncoder(micro.load_processor(plain / "warm_start" / "model")),
        ENV_ID,
        config["train"],
        rl,
        args=trl_config(tmp_path, rl),
        train_dataset=Dataset.from_dict({"prompt": ["0"] * rl.prompts}),
    )
    alone.model.train()
    assert len(halves[0]) == 2
    for first, second in zip(*halves, strict=True):
        assert len(set(first["prompts"]) & set(second["prompts"])) == 1  # a group of which each has played a half
        alone._player = Again(first["samples"] + second["samples"])
        rewards, calculate = [], alone._calculate_rewards
        alone._calculate_rewards = lambda *found, of=rewards, by=calculate: of.append(by(*found)) or of[-1]
        scored = alone._generate_and_score_completions([{"prompt": p} for p in first["prompts"] + second["prompts"]])
        alone._calculate_rewards = calculate
        assert rewards[0].isfinite().all() and torch.equal(rewards[0], first["rewards"])
        assert torch.equal(rewards[0], second["rewards"])
        assert torch.equal(scored["advantages"], torch.cat([first["advantages"], second["advantages"]]))
        assert first["rapr"] == second["rapr"] == alone._metrics["train"]["rapr"][-1]
    assert any(one["advantages"].any() for half in halves for one in half)
    played = [sample.trajectory.to_json() for half in halves for sample in half[0]["samples"]]
    assert (plain / "rl" / "rollouts-0.jsonl").read_text().splitlines() == played  # of both processes


@pytest.mark.slow
def test_warm_start_and_evaluation_are_those_of_one_process(plain: Path, tmp_path: Path) -> None:
    assert main([*SMALL, "--stages", "warm_start", "--out", str(tmp_path / "alone")]) == 0
    for name, one in weights(tmp_path / "alone" / "warm_start" / "model").items():
        torch.testing.assert_close(weights(plain / "warm_start" / "model")[name], one, rtol=1e-3, atol=1e-5, msg=name)
    trained = str(plain / "rl" / "model")
    assert main([*SMALL, "--stages", "--model", trained, "--out", str(tmp_path / "played")]) == 0
    files = [tmp_path / "alone" / "trajectories" / "demonstrations.jsonl", tmp_path / "played/trajectories/base.jsonl"]
    ours = [plain / "trajectories" / "demonstrations.jsonl", plain / "trajectories" / "rl.jsonl"]
    assert [file.read_text() for file in ours] == [file.read_text() for file in files]


@pytest.mark.slow
def test_sharded_weights_train_alike_and_a_failure_ends_all(plain: Path, tmp_path: Path) -> None:
    """Under FSDP, where a process fails after a step and the run is continued."""
    out = tmp_path / "run"
    failed = launch(SHARDED, "broken", out, *SMALL, *RL)
    assert failed.returncode and "this process is made to fail" in failed.stderr
    assert (out / "rl" / "checkpoint-1" / "complete").exists() and not (out / "report.md").exists()
    (broken, _) = records(out)
    assert broken[0]["kept"] < 0.6 * broken[0]["whole"]
    done = launch(SHARDED, "sharded", out, "--resume")
    assert done.returncode == 0, done.stderr
    for stage in ("warm_start", "rl"):
        theirs = weights(out / stage / "model")
        for name, one in weights(plain / stage / "model").items():
            torch.testing.assert_close(theirs[name], one, rtol=1e-3, atol=1e-5, msg=f"{stage} {name}")
    begun = weights(plain / "warm_start" / "model")
    assert any(not torch.equal(begun[name], one) for name, one in theirs.items())
    # What plays has the weights that were trained: both ways draw the same.
    for ours, found in zip(records(plain), records(out), strict=True):
        assert [s.completion_ids for s in found[-1]["samples"]] == [s.completion_ids for s in ours[-1]["samples"]]
    assert (out / "trajectories" / "rl.jsonl").read_text() == (plain / "trajectories" / "rl.jsonl").read_text()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_configurations_are_accelerates(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config_from_file(str(path))  # raises for a key that it does not know
    options = {action.dest for action in launch_command_parser()._actions}
    for section in (config.fsdp_config, config.deepspeed_config):
        assert section.keys() <= options
    assert config.num_processes % config.num_machines == 0
    if config.distributed_type == DistributedType.FSDP:
        wrapped = config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(",")
        assert all(hasattr(modeling_qwen2_5_vl, name) for name in wrapped)
        assert set(wrapped) == set(Qwen2_5_VLForConditionalGeneration._no_split_modules)
        assert config.fsdp_config["fsdp_version"] == 2
        for name, value in config.fsdp_config.items():
            monkeypatch.setenv(name.upper(), str(value))
        FullyShardedDataParallelPlugin()  # raises for a value that it does not know
    if config.distributed_type == DistributedType.DEEPSPEED:
        assert config.deepspeed_config["zero_stage"] == 3
