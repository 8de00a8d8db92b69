"""What a step costs: operations and bytes as counted by others, and that the points measure what they say."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText

from agents import micro
from agents.conversation import patchify
from benchmarks import roofline, scaling
from benchmarks.random_vlm import configuration
from benchmarks.roofline import causal

TINY = configuration("tiny")
LAYERS = 2 * (64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 96)
HEAD = 800 * 64
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")


@pytest.mark.parametrize(
    ("size", "parameters"),
    [("3b", 3_754_622_976), ("7b", 8_292_166_656)],  # of the released weights
)
def test_the_sizes_are_those_of_the_real_models(size: str, parameters: int) -> None:
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(configuration(size))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    matrices = sum(p.numel() for p in model.model.language_model.layers.parameters() if p.ndim == 2)
    assert roofline.layer_weights(model.config) == matrices
    assert roofline.head_weights(model.config) == model.lm_head.weight.numel()


def test_operations_are_those_that_torch_counts() -> None:
    """Its counter sees every product of attention written out, so all pairs instead of the causal ones."""
    model = AutoModelForImageTextToText.from_config(TINY, attn_implementation="eager")
    images = [np.zeros(size, np.uint8) for size in ((168, 280, 3), (84, 56, 3))]  # both cut windows of 8 x 8 patches
    pixels, grid = patchify(images, micro.load_processor(micro.MICRO_BASE).image_processor)
    pads = [12 * 20 // 4, 6 * 4 // 4]
    ids = torch.tensor([[1, 2] + [TINY.image_token_id] * pads[0] + [3] + [TINY.image_token_id] * pads[1] + [4, 5]])
    length = ids.shape[1]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(
            input_ids=ids,
            mm_token_type_ids=(ids == TINY.image_token_id).int(),
            pixel_values=pixels,
            image_grid_thw=grid,
            logits_to_keep=3,
        )
    counted = roofline.layers_flop(TINY, length, length**2) + roofline.vision_flop(TINY, [(12, 20), (6, 4)])
    assert counter.get_total_flops() == counted + 2 * HEAD * 3


def test_counts_by_hand() -> None:
    assert roofline.layer_weights(TINY) == LAYERS and roofline.head_weights(TINY) == HEAD
    assert [causal(length) for length in (1, 2, 3)] == [1, 3, 6]
    forward = 2 * LAYERS * 5 + 4 * 2 * 64 * (6 + 3)  # sequences of 3 and 2 tokens
    vision = roofline.vision_flop(TINY, [(4, 4)])
    assert roofline.training_flop(TINY, 5, 9, 4, [(4, 4)], 2) == 3 * forward + 6 * HEAD * 4 + vision
    assert roofline.training_flop(TINY, 5, 9, 4, [(4, 4)], 2, vision_trained=True) - vision == 3 * forward + (
        6 * HEAD * 4 + 2 * vision
    )
    assert roofline.training_flop(TINY, 5, 9, 4, [], 1, head_trained=False) == 2 * forward + 4 * HEAD * 4
    keys_and_values = 2 * 2 * 32  # of a token, in two layers, two of four heads of 16
    assert roofline.decoding_bytes(TINY, [10, 12], item=2) == 2 * (2 * (LAYERS + HEAD) + keys_and_values * 22)


def run(monkeypatch: pytest.MonkeyPatch, out: Path, kinds: str = "rollouts sft grpo") -> list[dict[str, Any]]:
    command = (
        f"scaling.py --sizes tiny --device cpu --preset micro --prompts 1 --group-size 2 --steps 1 --kinds {kinds}"
    )
    monkeypatch.setattr(
        sys, "argv", [*command.split(), "--seconds", "9999", "--point-seconds", "9999", "--out", str(out)]
    )
    scaling.main()
    points: list[dict[str, Any]] = json.loads(out.read_text())["points"]
    return points


def test_points_of_a_tiny_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scaling.json"
    points = rollouts, whole, again, grpo, alone = run(monkeypatch, out)
    assert not [row for row in points if "failed" in row]
    assert rollouts["log_probability_difference"]["largest"] < 1e-3
    assert rollouts["decode_steps"] > 10 and rollouts["rollouts"] == 2
    for row, seconds in ((rollouts, "seconds"), (whole, "seconds_per_step"), (grpo, "seconds_per_step")):
        assert sum(row["phases"].values()) == pytest.approx(row[seconds], rel=1e-2)
        assert min(row["phases"].values()) >= 0
    assert grpo["correctness"] == 0.5 and grpo["skipped_steps"] == 0 and grpo["phases"]["passes"] > 0
    assert alone["name"].endswith("a row a rollout") and alone["tokens_per_rollout"] == grpo["tokens_per_rollout"]
    flop = [row["passes_flop_per_second"] * row["phases"]["passes"] for row in (grpo, alone)]
    assert 0.5 < flop[0] / flop[1] < 0.95  # two rollouts and one prompt
    assert whole["trained_parameters"] == whole["parameters"] and again["checkpointing"]
    assert whole["trained_tokens_per_example"] < whole["tokens_per_example"]
    said = capsys.readouterr().out
    assert all(f"| {row['name']} |" in said for row in points)

    def not_again(*_: Any) -> dict[str, Any]:
        raise AssertionError("measured already")

    monkeypatch.setattr(scaling, "MEASURES", dict.fromkeys(scaling.MEASURES, not_again))
    assert run(monkeypatch, out) == list(points)


def test_a_point_that_fails_is_recorded_and_the_next_one_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> dict[str, Any]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")

    def broken(*_: Any) -> dict[str, Any]:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(scaling, "MEASURES", {"rollouts": full, "grpo": broken})
    rows = run(monkeypatch, tmp_path / "scaling.json", "rollouts grpo")
    assert [row["failed"] for row in rows] == ["out of memory", *["RuntimeError: no such kernel"] * 2]
    assert "| out of memory |" in capsys.readouterr().out


def test_a_point_has_its_time() -> None:
    with pytest.raises(scaling.TooSlowError, match=r"longer than 0 s"), scaling.time_limit(0.05):
        time.sleep(5)
    with scaling.time_limit(60):
        pass
