"""How reinforcement learning is done: our settings, and the same in TRL's words."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from trl import GRPOConfig

from agents.processes import is_sharded, share
from agents.token_passes import check_one_process
from agents.weights import compute_dtype

if TYPE_CHECKING:
    from agents.sft_config import WarmStartConfig


@dataclass(frozen=True)
class RLConfig:
    """How to train.

    Attributes:
        steps: Optimizer steps.
        prompts: Tasks played at a time, each `group_size` times.
        group_size: G, rollouts a task.
        updates: Optimizer steps made of one batch of rollouts.
        learning_rate: Peak rate of Adam; the paper has 1e-6 for 7B.
        schedule: Course of the rate after a warm-up of 3% of the steps.
        temperature: Of the rollouts, and so of the policy that is trained.
        epsilon: The ratio of probabilities is clipped at 1 - epsilon ...
        epsilon_high: ... and at 1 + epsilon_high.
        scale_rewards: Advantages are divided by the standard deviation of their group, of the batch, or by nothing.
        loss_type: How tokens are weighted: "dapo" all alike, "grpo" by 1 / length of their rollout, "dr_grpo" alike
            with a constant norm.
        kl: Weight of a penalty on the divergence from the policy that RL began with; the paper has none.
        uniform_groups: What becomes of rollouts without an advantage, mostly of groups with equal rewards. "keep": they
            count among the tokens that the loss is divided by. "drop": they do not. "replay": their places are taken by
            rollouts of the same round, drawn by |advantage| (the selective sample replay of the paper, whose buffer
            lives for one round; arXiv 2504.08837).
        train_on_cut: Whether a rollout that its token budget ended carries loss. It counts as a failure either way.
        max_new_tokens: Most tokens of a turn.
        max_completion_tokens: Most tokens of a rollout behind the prompt.
        max_grad_norm: The gradient is scaled down to this norm.
        batch_size: Most rollouts in one forward and backward pass.
        batch_tokens: Most tokens in one, padding included, in place of `batch_size`.
        train_vision: Whether the vision tower learns, too.
        lora: Rank of adapters, merged in the end and saved beside the checkpoints; 0 trains the weights themselves.
        dtype: What is computed with, "float32" or "bfloat16"; see `agents.weights`.
        gradient_checkpointing: Saves memory, costs time.
        rollouts: What plays them: "engine", or `agents.backends` with "trl" (transformers), "vllm" (in this process) or
            the URL of a vLLM server.
        save_steps: Optimizer steps between checkpoints; the last two are kept.
        seed: Of the order of tasks and of the sampling.
    """

    steps: int = 100
    prompts: int = 16
    group_size: int = 8
    updates: int = 1
    learning_rate: float = 2e-5
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    temperature: float = 1.0
    epsilon: float = 0.2
    epsilon_high: float = 0.35
    scale_rewards: Literal["group", "batch", "none"] = "group"
    loss_type: Literal["dapo", "grpo", "dr_grpo"] = "dapo"
    kl: float = 0.0
    uniform_groups: Literal["keep", "drop", "replay"] = "keep"
    train_on_cut: bool = False
    max_new_tokens: int = 160
    max_completion_tokens: int = 1024
    max_grad_norm: float = 1.0
    batch_size: int = 32
    batch_tokens: int | None = None
    train_vision: bool = True
    lora: int = 0
    dtype: str | None = None
    gradient_checkpointing: bool = False
    rollouts: str = "engine"
    save_steps: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.group_size < 2:
            raise ValueError(f"expected group_size of at least 2, rollouts that can be compared, got {self.group_size}")
        if self.temperature <= 0:
            raise ValueError(f"expected temperature above 0, the policy is sampled, got {self.temperature}")
        if self.rollouts not in ("engine", "trl", "vllm") and "://" not in self.rollouts:
            raise ValueError(f"expected rollouts by engine, trl, vllm or the URL of a vLLM server, got {self.rollouts}")
        if self.kl < 0:
            raise ValueError(f"expected kl of at least 0, got {self.kl}")
        if self.prompts * self.group_size % self.updates or self.save_steps % self.updates:
            raise ValueError(
                f"expected updates to divide prompts * group_size = {self.prompts * self.group_size} "
                f"and save_steps = {self.save_steps}, got {self.updates}"
            )


def checkpointing(on: bool) -> dict[str, bool]:
    """Gradient checkpointing as an argument of any trainer's configuration, under the name transformers has for it."""
    new = "activation_checkpointing"  # where it exists, the other is deprecated
    return {new if new in GRPOConfig.__dataclass_fields__ else "gradient_checkpointing": on}


def sharding() -> dict[str, Any]:
    """Where weights are sharded, have the gradients of every pass shared out: else each process would keep all."""
    each = {"gradient_accumulation_kwargs": {"sync_each_batch": True}}
    return {"accelerator_config": each} if is_sharded() else {}


def passes_of(rows: int, most: int) -> int:
    """Return the largest number of rows a pass, at most `most`, that makes passes of equal size.

    >>> passes_of(12, 5)
    4
    """
    return max(size for size in range(1, min(rows, most) + 1) if rows % size == 0)


def rows_of_pass(rows: int, config: "RLConfig | WarmStartConfig") -> int:
    """Return how many of the rows of an optimizer step the trainer hands over at a time: all of them to fill passes."""
    if config.batch_tokens:
        check_one_process()
        return rows
    return passes_of(rows, config.batch_size)


def of_any_trainer(out: str | Path, config: "RLConfig | WarmStartConfig") -> dict[str, Any]:
    """What both trainers are told alike."""
    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(out),
        **checkpointing(config.gradient_checkpointing),
        **sharding(),
        "bf16": compute_dtype(config.dtype) == torch.bfloat16,
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "save_steps": config.save_steps,
        "save_total_limit": 2,
        "logging_steps": 1,
        "report_to": ["tensorboard"],
        "disable_tqdm": True,  # a bar of ours instead, which does not print a dictionary at every log
        "seed": config.seed,
    }


def trl_config(out: str | Path, config: RLConfig) -> GRPOConfig:
    """The settings in TRL's words."""
    rows = share(config.prompts * config.group_size // config.updates, "rollouts of an optimizer step")
    batch = rows_of_pass(rows, config)
    return GRPOConfig(
        **of_any_trainer(out, config),
        max_steps=config.steps,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=rows // batch,
        steps_per_generation=rows // batch * config.updates,
        num_generations=config.group_size,
        shuffle_dataset=False,  # the tasks come in the order of a run
        max_completion_length=config.max_completion_tokens,
        temperature=config.temperature,
        beta=0.0,  # `CuriosityGRPOTrainer` makes the reference: TRL would load it from disk, its vocabulary whole
        epsilon=config.epsilon,
        epsilon_high=config.epsilon_high,
        scale_rewards=config.scale_rewards,
        loss_type=config.loss_type,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup" if config.schedule == "constant" else config.schedule,
        warmup_steps=int(0.03 * config.steps),
        max_grad_norm=config.max_grad_norm,
        use_vllm=config.rollouts not in ("engine", "trl"),
        vllm_mode="colocate" if config.rollouts == "vllm" else "server",
        vllm_server_base_url=config.rollouts if "://" in config.rollouts else None,
    )
