"""Both stages and their evaluations on a GPU, where there is one: other tests see tensors of one device only."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pixel_env.metrics import read_metrics
from pixel_env.trajectory import load_jsonl

ROOT = Path(__file__).parents[1]
SMALL = (
    "--demonstrations 16 --epochs 1 --batch-size 4 --rl-steps 2 --prompts 2 --group-size 4 --save-steps 2"
    " --test-tasks 2 --batch-episodes 4 --max-new-tokens 64 --rl-batch-size 4"
).split()
# Other tests hide the GPU from this process, not from those that it starts.
VISIBLE = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}


def run(*command: str) -> str:
    finished = subprocess.run([sys.executable, *command], cwd=ROOT, env=VISIBLE, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-4000:]
    return finished.stdout


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    if torch.version.cuda is None or "True" not in run("-c", "import torch; print(torch.cuda.is_available())"):
        pytest.skip("there is no GPU, or this torch knows none")


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--kl", "0.01", "--lora", "4", "--dtype", "bfloat16", "--gradient-checkpointing"),
        ("--uniform-groups", "replay", "--updates", "2", "--batch-tokens", "4000"),
    ],
)
def test_both_stages_run(options: tuple[str, ...], tmp_path: Path) -> None:
    run("agents/train_vlm.py", *SMALL, *options, "--out", str(tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["machine"]["device"] != platform.machine()
    steps = [(row["stage"], row["step"]) for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "step" in row]
    assert ("rl", 2) in steps and ("warm_start", 4) in steps
    assert all(row.get("skipped_steps", 0) == 0 for row in read_metrics(tmp_path / "run" / "metrics.jsonl"))
    played = load_jsonl(tmp_path / "run" / "trajectories" / "rl.jsonl")
    assert len(played) == 8 and all(trajectory.error is None for trajectory in played)
