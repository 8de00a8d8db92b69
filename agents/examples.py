"""Trajectories as examples of supervised training: ids with a loss flag each, and views.

Prompts are made by the same encoder as in RL and evaluation.
"""

import json
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from agents.conversation import ChatEncoder, Tokens, patchify
from pixel_env.env import Observation
from pixel_env.trajectory import Trajectory, made_as

IGNORED = -100
CACHED_BYTES = 2**30
"""Views of examples are kept in memory up to this size; those of the other examples are drawn again when needed."""


def observations(trajectory: Trajectory, env: gym.Env[Any, str]) -> list[Observation]:
    """Play the actions of a trajectory again and return what the policy saw: one more than turns."""
    observation, _ = env.reset(seed=trajectory.seed, options={"task": trajectory.task_id})
    seen = [observation]
    for turn in trajectory.turns:
        seen.append(env.step(turn.action)[0])
    return seen


def to_example(encoder: ChatEncoder, trajectory: Trajectory, seen: Sequence[Observation]) -> Tokens:
    """Turn a trajectory into ids with a loss flag each, and views.

    Args:
        encoder: knows the chat template.
        trajectory: its turns say what was written and whether it is trained.
        seen: what `observations` returned for it; the last one ends the episode and is not needed.
    """
    example = Tokens()
    first = seen[0]
    example.add(encoder.prompt(trajectory.instructions, first["text"], first["images"]), 0, first["images"])
    for number, turn in enumerate(trajectory.turns):
        if number:
            reply = seen[number]
            example.add(encoder.reply(reply["text"], reply["images"]), 0, reply["images"])
        example.add([*encoder.text(turn.action), encoder.end], int(turn.trained))
    return example


class Examples:
    """Trajectories as training examples; what does not fit the cache is played again for its views.

    Attributes:
        lengths: Number of tokens of each example.
    """

    def __init__(
        self,
        encoder: ChatEncoder,
        trajectories: Sequence[Trajectory],
        env: gym.Env[Any, str] | None = None,
        cached_bytes: int = CACHED_BYTES,
        progress: bool = True,
    ) -> None:
        """Encode `trajectories`, each played again in an environment made as its own was, or all of them in `env`."""
        if not trajectories:
            raise ValueError("expected at least one trajectory to train on, got none")
        self._encoder, self._trajectories = encoder, trajectories
        self._env, self._made = env, dict[str, gym.Env[Any, str]]()
        self._cache: dict[int, Tokens] = {}
        self.lengths: list[int] = []
        for index in tqdm(range(len(trajectories)), desc="encoding", unit="example", disable=not progress):
            example = self._encode(index)
            self.lengths.append(len(example.ids))
            cached_bytes -= sum(image.nbytes for image in example.images)
            if cached_bytes >= 0:
                self._cache[index] = example

    def __len__(self) -> int:
        return len(self._trajectories)

    def __getitem__(self, index: int) -> Tokens:
        return self._cache[index] if index in self._cache else self._encode(index)

    def _encode(self, index: int) -> Tokens:
        trajectory = self._trajectories[index]
        return to_example(self._encoder, trajectory, observations(trajectory, self._env or self._made_for(trajectory)))

    def _made_for(self, trajectory: Trajectory) -> gym.Env[Any, str]:
        """Return an environment like that of a trajectory; there is one for each task set."""
        made_like = json.dumps([trajectory.env_id, trajectory.env_kwargs], sort_keys=True)
        if made_like not in self._made:
            self._made[made_like] = made_as(trajectory)
        return self._made[made_like]


def collate(examples: Sequence[Tokens], encoder: ChatEncoder) -> dict[str, torch.Tensor]:
    """Put examples side by side, padded on the right.

    Returns:
        input_ids, labels (-100 where nothing is trained), attention_mask and mm_token_type_ids (1 on image tokens),
        all (B, T) int64; pixel_values and image_grid_thw as `patchify` gives them, images in the order of their pads.
    """
    pad = encoder.tokenizer.pad_token_id
    ids = pad_sequence([torch.tensor(example.ids) for example in examples], True, pad)
    loss = pad_sequence([torch.tensor(example.loss) for example in examples], True, 0)
    attended = pad_sequence([torch.ones(len(example.ids), dtype=torch.long) for example in examples], True, 0)
    images = [image for example in examples for image in example.images]
    pixel_values, image_grid_thw = patchify(images, encoder.processor.image_processor)
    return {
        "input_ids": ids,
        "labels": ids.masked_fill(loss == 0, IGNORED),
        "attention_mask": attended,
        "mm_token_type_ids": (ids == encoder.image_pad).long(),
        "pixel_values": pixel_values,
        "image_grid_thw": image_grid_thw,
    }
