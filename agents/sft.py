"""Warm start: supervised fine-tuning on trajectories, a thin layer over TRL's `SFTTrainer`.

The loss falls on what the policy wrote in turns that are flagged as trained, up to and including their ``<|im_end|>``,
by construction and not by position. Differs from the release, which trains the last two turns of each conversation,
whatever they hold. Prompts are made by the same encoder as in RL and evaluation.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from agents.checkpoints import MarkComplete, last_checkpoint, load_weights
from agents.conversation import ChatEncoder, Tokens
from agents.examples import Examples, collate
from agents.processes import is_main
from agents.progress import ProgressBar
from agents.sft_config import WarmStartConfig, trl_config
from agents.token_passes import pass_by_pass, token_passes
from agents.weights import fetch, for_trainer, trained_part
from pixel_env.trajectory import Trajectory


@contextmanager
def causal_only(model: Any) -> Iterator[None]:
    """Let a Qwen2.5-VL attend without a mask of its padding, which takes half of the time.

    Only for rows that are padded on the right: no token is followed by one that it attends to, and nothing of the
    padding is scored.
    """

    def without_mask(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, kwargs | {"attention_mask": None}

    hook = model.model.language_model.register_forward_pre_hook(without_mask, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


class LengthGroupedSampler(torch.utils.data.Sampler[int]):
    """A random order in which neighbours are of about equal length: a function of seed and epoch.

    Transformers' own draws from the global generator, so a resumed run would see another order than the one it left.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = np.array(lengths), batch_size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration; the trainer calls it."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self._seed, self._epoch])
        order = rng.permutation(len(self._lengths))
        # Sorted within pools of 32 batches only: the batches of a pool differ in length, those of two pools do not.
        pool = 32 * self._batch_size
        batches: list[np.ndarray] = []
        for start in range(0, len(order), pool):
            members = order[start : start + pool]
            members = members[np.argsort(-self._lengths[members], kind="stable")]
            batches += np.split(members, range(self._batch_size, len(members), self._batch_size))
        full = [batch for batch in batches if len(batch) == self._batch_size]
        rest = [batch for batch in batches if len(batch) < self._batch_size]
        # A short batch anywhere but at the end would shift the borders of all that follow.
        for batch in [full[int(k)] for k in rng.permutation(len(full))] + rest:
            yield from batch.tolist()


class WarmStartTrainer(SFTTrainer):
    """`SFTTrainer` over `Examples`: its data set holds their indices, its collator looks them up."""

    def __init__(
        self,
        model: Any,
        examples: Examples,
        encoder: ChatEncoder,
        args: SFTConfig,
        batch_tokens: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Prepare training.

        Args:
            model: A Qwen2.5-VL, or adapters on one.
            examples: What to train on.
            encoder: The chat template.
            args: How; its batches are forward passes, or whole optimizer steps if `batch_tokens` is given.
            batch_tokens: Most tokens of a forward pass.
            **kwargs: `callbacks` for the trainer.
        """
        self._lengths, self._encoder, self._batch_tokens = examples.lengths, encoder, batch_tokens
        super().__init__(
            model,
            args=args,
            train_dataset=Dataset.from_dict({"index": list(range(len(examples)))}),
            data_collator=lambda rows: self._batch([examples[row["index"]] for row in rows]),
            processing_class=encoder.processor,
            **kwargs,
        )
        self.model_accepts_loss_kwargs = True  # all tokens of a step weigh alike, in whatever passes and processes

    def _batch(self, examples: list[Tokens]) -> dict[str, Any]:
        """A padded batch; of a whole step the examples, of which one pass at a time gets its padding and patches."""
        return {"step": examples} if self._batch_tokens else collate(examples, self._encoder)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        if not self._batch_tokens:
            return super()._get_num_items_in_batch(batch_samples, device)
        return torch.tensor(sum(sum(example.loss[1:]) for batch in batch_samples for example in batch["step"]))

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """TRL's; of a whole step pass by pass."""
        compute_loss = super().compute_loss
        if not self._batch_tokens:
            return compute_loss(model, inputs, return_outputs, num_items_in_batch)
        examples: list[Tokens] = inputs["step"]

        def loss_of(rows: list[int]) -> torch.Tensor:
            batch = self._prepare_inputs(collate([examples[row] for row in rows], self._encoder))
            return compute_loss(model, batch, num_items_in_batch=num_items_in_batch)

        passes = token_passes([[len(example.ids)] for example in examples], self._batch_tokens)
        return pass_by_pass(loss_of, passes, self.accelerator.backward)

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler[int]:
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthGroupedSampler(self._lengths, batch, self.args.seed)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled:  # saved as they lie in its processes, under the names that the model has
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_weights(self.model, resume_from_checkpoint)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No card: TRL would write one beside every checkpoint."""


def warm_start(
    model: Any,
    processor: Any,
    trajectories: Sequence[Trajectory],
    out: str | Path,
    config: WarmStartConfig,
    *,
    resume: bool = False,
    env: gym.Env[Any, str] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    progress: bool = True,
) -> None:
    """Train `model` in place on trajectories.

    Args:
        model: A Qwen2.5-VL.
        processor: Its processor.
        trajectories: From `agents.demonstrations`; played again for their views.
        out: Folder of checkpoints and TensorBoard events.
        config: How to train.
        resume: Continue from the newest complete checkpoint in `out`, if there is one.
        env: Where trajectories are played again; by default made as theirs was.
        callbacks: For the trainer.
        progress: Show progress bars.
    """
    encoder = ChatEncoder(processor)
    progress = progress and is_main()
    examples = Examples(encoder, trajectories, env, progress=progress)
    args = trl_config(out, config, len(examples))
    bar = [ProgressBar("warm start", ("loss", "mean_token_accuracy"))] if progress else []
    checkpoint = last_checkpoint(out) if resume else None
    part = trained_part(model, out, lora=config.lora, vision=config.train_vision, seed=config.seed)
    with causal_only(model), part as trained:
        handed = for_trainer(trained)
        trainer = WarmStartTrainer(
            handed, examples, encoder, args, config.batch_tokens, callbacks=[*bar, *callbacks, MarkComplete()]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        fetch(trained, handed)
