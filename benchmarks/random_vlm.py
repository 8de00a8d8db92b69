"""Qwen2.5-VL of the real sizes with random weights, and what is written in their rollouts: no download, no training."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig

from agents import micro
from agents.conversation import ChatEncoder, Tokens
from agents.demonstrations import demonstrate
from agents.examples import observations, to_example
from agents.expert import UnsuitedError
from benchmarks.rollouts import MIXES
from pixel_env.actions import Answer, render
from pixel_env.trajectory import Trajectory

_VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "window_size": 112}
_LAYERS = "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"
SIZES: dict[str, dict[str, Any]] = {
    "3b": {
        "text": dict(zip(_LAYERS, (36, 2048, 11008, 16, 2), strict=True)) | {"vocab_size": 151936},
        "vision": _VISION | {"fullatt_block_indexes": [7, 15, 23, 31]},
        "tied": True,
        "mrope_section": [16, 24, 24],
    },
    "7b": {
        "text": dict(zip(_LAYERS, (28, 3584, 18944, 28, 4), strict=True)) | {"vocab_size": 152064},
        "vision": _VISION | {"fullatt_block_indexes": [7, 15, 23, 31]},
        "tied": False,
        "mrope_section": [16, 24, 24],
    },
    # Shapes like those of 7B, for tests: keys shared by heads, head and embedding apart, windows in the vision tower.
    "tiny": {
        "text": dict(zip(_LAYERS, (2, 64, 96, 4, 2), strict=True)) | {"vocab_size": 800},
        "vision": _VISION
        | {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "fullatt_block_indexes": [1]},
        "tied": False,
        "mrope_section": [2, 3, 3],
    },
}
"""What Qwen2.5-VL-3B and -7B have in their `config.json`; "micro" is that of `agents/micro_base`."""


def configuration(size: str) -> Qwen2_5_VLConfig:
    """Configuration of a size, with the special tokens of the micro tokenizer; the rest of the vocabulary is unused."""
    base = json.loads((micro.MICRO_BASE / "config.json").read_text(encoding="utf-8"))
    if size == "micro":
        return Qwen2_5_VLConfig(**base)
    about = SIZES[size]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": about["mrope_section"]}
    ids = {name: base["text_config"][name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    pads = {name: value for name, value in base.items() if name.endswith("_token_id")}
    tied = {"tie_word_embeddings": about["tied"]}
    text = about["text"] | ids | tied | {"max_position_embeddings": 128000, "rope_parameters": rope}
    vision = about["vision"] | {"out_hidden_size": about["text"]["hidden_size"], "patch_size": 14}
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, **pads, **tied)


def random_model(size: str, processor: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A model of a size, made on the device, as `agents.micro.load_model` returns one."""
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(configuration(size), dtype=dtype)
    model.generation_config.eos_token_id = [processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id]
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return micro.with_fast_vision(model)


@dataclass(frozen=True)
class Written:
    """What is written in the rollouts of some tasks: demonstrations, of which every other ends with a wrong answer.

    Attributes:
        tasks: Indices, P of them.
        trajectories: The demonstrations, P * G, those of the first task first.
        completions: Ids behind the prompt, of the rollouts, up to the end of the last turn.
        longest_turn: Tokens of the longest turn, its end included.
    """

    tasks: list[int]
    trajectories: list[Trajectory]
    completions: list[list[int]]
    longest_turn: int

    @property
    def room(self) -> int:
        """Tokens that every rollout fits into."""
        return max(map(len, self.completions)) + 8

    def table(self, rows: int, device: torch.device) -> torch.Tensor:
        """Completions of the first rollouts (rows, room), padded."""
        padded = [ids + [0] * (self.room - len(ids)) for ids in self.completions[:rows]]
        return torch.tensor(padded, device=device)


def write(env: gym.Env[Any, str], encoder: ChatEncoder, prompts: int, group_size: int, seed: int = 0) -> Written:
    """Demonstrate tasks in the proportions of the paper's demonstrations; those that do not allow it are left out."""
    rng, shares = np.random.default_rng(seed), MIXES["paper"][0]
    tasks: list[int] = []
    played: list[Trajectory] = []
    task = -1
    while len(tasks) < prompts:
        task += 1
        kinds = rng.choice(list(shares), size=group_size, p=list(shares.values()))
        try:
            played += [demonstrate(task, env, rng, str(kind)) for kind in kinds]
        except UnsuitedError:
            continue
        tasks.append(task)
    completions = []
    for row, trajectory in enumerate(played):
        # Were all right, no rollout would have an advantage, and there would be nothing to update.
        completions.append(_completion(env, encoder, _with_wrong_answer(trajectory) if row % 2 else trajectory))
    turns = [len(encoder.text(turn.action)) + 1 for trajectory in played for turn in trajectory.turns]
    return Written(tasks, played, completions, max(turns))


def _with_wrong_answer(trajectory: Trajectory) -> Trajectory:
    last = dataclasses.replace(trajectory.turns[-1], action=render(Answer("?")))
    return dataclasses.replace(trajectory, turns=(*trajectory.turns[:-1], last))


def _completion(env: gym.Env[Any, str], encoder: ChatEncoder, trajectory: Trajectory) -> list[int]:
    seen = observations(trajectory, env)
    example: Tokens = to_example(encoder, trajectory, seen)
    return example.ids[len(encoder.prompt(trajectory.instructions, seen[0]["text"], seen[0]["images"])) :]
