"""A tiny Qwen2.5-VL with random weights that are large enough for every input to matter."""

import functools
import os
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import pixel_env  # noqa: F401
from agents import micro
from agents.conversation import ChatEncoder
from agents.engine import Engine, restrict_vocabulary
from pixel_env import prompts
from pixel_env.rollout import Episode

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # numbers are compared closely, and the trainer would move the model

CORPUS = [
    *micro.fixed_phrases(),
    'crop_image select_frames "bbox_2d" "target_image" [12, 30, 50, 60] Which letter is on it? A B C D 1 2 3',
    *(prompts.instructions(c) for c in prompts.COORDINATES),
]


@functools.cache
def processor() -> micro.ImageProcessor:
    return micro.build_processor(CORPUS, micro.fixed_phrases())


def model(scale: float = 6.0) -> Any:
    """Each call gives the same new model; its weights are `scale` times the usual."""
    torch.manual_seed(0)
    made = micro.build_model(processor(), hidden=64, layers=2, depth=2)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.ndim >= 2 and "embed_tokens" not in name:  # else it would repeat its last token for ever
                parameter.mul_(scale)
    return made.double().eval()  # two ways of summing then agree to the digits a comparison asks for, on every CPU


def encoder() -> ChatEncoder:
    return ChatEncoder(processor())


def talking_model(end_bias: float = 3.0, scale: float = 6.0) -> Any:
    """A model that ends its turn after a few tokens, at another place in every row."""
    made = model(scale)
    restrict_vocabulary(made, encoder())
    made.lm_head.bias[encoder().end] = end_bias
    return made


def engine(speaker: Any, **settings: Any) -> Engine:
    return Engine(speaker, encoder(), **settings)


class Scripted(Episode):
    """Answers turn k with `script[k]` images of any size, whatever the policy says, then is over."""

    def __init__(self, env_id: str, task: int, script: Sequence[int], seed: int = 0) -> None:
        super().__init__(gym.make(env_id, preset="micro", difficulty=1))
        self.script, self.rng, self.actions = list(script), np.random.default_rng(len(script)), list[str]()
        self.reset(task, seed)

    def step(self, action: str) -> bool:
        self.actions.append(action)
        if not self.script:
            self.done = True
            return True
        sizes = self.rng.integers(1, 5, (self.script.pop(0), 2)) * 28
        images = tuple(self.rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes)
        self.conversation.actions.append(action)
        self.conversation.observations.append({"text": "Look:" + "<image> and " * len(images), "images": images})
        return False
