"""Rollouts whose turns TRL generates, in place of our engine: with transformers, or with vLLM.

A back end takes conversations and gives the tokens of their next turns; it knows nothing of environments. What a turn
may hold and when an episode ends is `agents.transcript`'s, the same for all. Every turn reads its conversation from the
beginning. The methods of TRL are private, hence its pinned version.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from trl.trainer.utils import pad

from agents.conversation import ChatEncoder, Tokens, patchify
from agents.transcript import Budget, Sample, transcripts
from pixel_env.prompts import IMAGE_MARKER
from pixel_env.rollout import Episode

Turns = tuple[list[list[int]], list[list[float]]]
"""Ids of turns, each up to its ``<|im_end|>`` or as long as allowed, and their log-probabilities."""
Complete = Callable[[Sequence[Tokens]], Turns]
"""A back end: writes the next turns of conversations, which are read up to the cue for the assistant."""


class TurnByTurn:
    """Plays episodes with a back end; `agents.engine.Engine` with another way to compute."""

    def __init__(self, complete: Complete, encoder: ChatEncoder, budget: Budget) -> None:
        self.complete, self.encoder, self.budget = complete, encoder, budget

    def rollout(self, groups: Sequence[Sequence[Episode]]) -> list[Sample]:
        """Play episodes to their end; see `Engine.rollout`."""
        begun = transcripts(groups, self.encoder, self.budget)
        rows = [row for group in begun for row in group]
        while live := [row for row in rows if not row.over]:
            turns = self.complete([row.prompt + row.completion for row in live])
            for row, ids, logps in zip(live, *turns, strict=True):
                row.take(ids[: row.room], logps[: row.room])
        return [row.sample() for row in rows]


class TRLTurns:
    """The generation of a `GRPOTrainer` as a back end: transformers or vLLM, as its configuration says.

    TRL hands vLLM the weights before the first turn that follows an optimizer step. vLLM processes views itself and has
    to leave them at the size they have: its processor's smallest size is checked here.

    Args:
        trainer: Its model is restricted by `restrict_vocabulary`.
        encoder: Chat template and tokenizer.
        max_new_tokens: Most tokens of a turn.

    Raises:
        ValueError: vLLM would enlarge small views, or several processes share a server: TRL then wants the same number
            of conversations from each of them in every turn.
    """

    def __init__(self, trainer: Any, encoder: ChatEncoder, max_new_tokens: int) -> None:
        self._trainer, self._encoder = trainer, encoder
        self._is_colocated = trainer.use_vllm and trainer.vllm_mode == "colocate"
        if not trainer.use_vllm:
            trainer.generation_config.max_new_tokens = max_new_tokens
            return
        if not self._is_colocated and trainer.accelerator.num_processes > 1:
            got = trainer.accelerator.num_processes
            raise ValueError(f"expected one process beside a vLLM server, got {got}; let each have its own: vllm")
        trainer.vllm_generation.generation_kwargs |= {
            "max_tokens": max_new_tokens,
            "logit_bias": {token: -100.0 for token in encoder.forbidden},  # the least that vLLM takes
        }
        pads = self._pads_of_the_smallest_view()
        if pads != 1:
            raise ValueError(
                f"expected vLLM to read {encoder.factor}x{encoder.factor} pixels as 1 token, got {pads}: its processor "
                "has another smallest size; see docs/scaling.md"
            )

    def __call__(self, prompts: Sequence[Tokens]) -> Turns:
        """Write the next turns."""
        fields = {} if self._trainer.use_vllm else self._pixels(prompts)
        ids, logps = self._trainer._generate_single_turn(
            [self._encoder.folded(prompt.ids) if self._is_colocated else prompt.ids for prompt in prompts],
            [list(map(Image.fromarray, prompt.images)) or None for prompt in prompts],
            fields,
            num_generations=1,
            has_tool_images=bool(fields),  # then it tells the model which tokens are images
        )
        if not all(ids):
            raise RuntimeError("the back end gave no token for a turn; see its log")
        if logps is None:
            return ids, self._logps(prompts, ids, fields)
        # vLLM leaves out what it cannot compute, and TRL then makes no correction.
        return ids, [[math.nan if logp is None else logp for logp in row] for row in logps]

    def _pixels(self, prompts: Sequence[Tokens]) -> dict[str, torch.Tensor]:
        images = [image for prompt in prompts for image in prompt.images]
        if not images:
            return {}
        pixels, grid = patchify(images, self._encoder.processor.image_processor)
        device = self._trainer.accelerator.device
        return {"pixel_values": pixels.to(device), "image_grid_thw": grid.to(device)}

    def _logps(
        self, prompts: Sequence[Tokens], turns: Sequence[list[int]], fields: dict[str, torch.Tensor]
    ) -> list[list[float]]:
        """Log-probabilities of turns as TRL computes them for its loss; its generation with transformers gives none."""
        trainer = self._trainer
        rows = [torch.tensor(prompt.ids + turn) for prompt, turn in zip(prompts, turns, strict=True)]
        ids = pad(rows, padding_side="left").to(trainer.accelerator.device)
        with torch.no_grad():
            logps, *_ = trainer._get_per_token_logps_and_entropies(
                trainer.model,
                ids,
                pad(list(map(torch.ones_like, rows)), padding_side="left").to(ids.device),
                max(map(len, turns)),
                batch_size=trainer.args.per_device_train_batch_size,
                num_images=[len(prompt.images) for prompt in prompts],
                mm_token_type_ids=(ids == self._encoder.image_pad).int(),
                **fields,
            )
        return [row[-len(turn) :].tolist() for row, turn in zip(logps, turns, strict=True)]

    def _pads_of_the_smallest_view(self) -> int:
        """Number of tokens that vLLM makes of it."""
        vllm, factor = self._trainer.vllm_generation, self._encoder.factor
        view = np.zeros((factor, factor, 3), np.uint8)
        if self._is_colocated:
            [read], *_ = vllm.generate([self._encoder.observation(IMAGE_MARKER, [view])], [[Image.fromarray(view)]], 1)
            return read.count(self._encoder.image_pad)
        [features] = vllm.vllm_client.image_features([[Image.fromarray(view)]])
        return features["mm_placeholders"]["image"][0]["length"]
