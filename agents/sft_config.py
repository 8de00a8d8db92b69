"""How the warm start is done: our settings, and the same in TRL's words."""

import math
from dataclasses import dataclass
from pathlib import Path

from trl import SFTConfig

from agents.processes import share
from agents.rl_config import of_any_trainer, rows_of_pass


@dataclass(frozen=True)
class WarmStartConfig:
    """How to train.

    Attributes:
        epochs: Passes over the trajectories.
        learning_rate: Peak of a cosine with 10% warm-up, as in the paper (which takes 1e-6 for 7B).
        batch_size: Trajectories a forward pass, at most.
        accumulation: Forward passes an optimizer step, of all processes together.
        batch_tokens: Most tokens of a forward pass, padding included; the `batch_size` times `accumulation`
            trajectories of a step are then spread over as many passes as it takes.
        train_vision: Whether the vision tower learns too; the release freezes it here.
        lora: Rank of adapters, merged in the end and saved beside the checkpoints; 0 trains the weights themselves.
        dtype: What is computed with, "float32" or "bfloat16"; see `agents.weights`.
        gradient_checkpointing: Saves memory, costs time.
        save_steps: Optimizer steps between checkpoints; the last two are kept.
        seed: Of the order of trajectories.
    """

    epochs: int = 2
    learning_rate: float = 3e-4
    batch_size: int = 16
    accumulation: int = 1
    batch_tokens: int | None = None
    train_vision: bool = True
    lora: int = 0
    dtype: str | None = None
    gradient_checkpointing: bool = False
    save_steps: int = 50
    seed: int = 0


def trl_config(out: str | Path, config: WarmStartConfig, count: int) -> SFTConfig:
    """The settings in TRL's words, for `count` trajectories."""
    step = config.batch_size * config.accumulation
    rows = share(step, "demonstrations of an optimizer step")
    batch = rows_of_pass(rows, config)
    return SFTConfig(
        **of_any_trainer(out, config),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=rows // batch,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(0.1 * config.epochs * math.ceil(count / step)),
        max_length=None,  # truncation could cut through the tokens of an image
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
