"""Curiosity-driven RL: group-relative policy optimisation (GRPO) over whole episodes, a thin layer over TRL's trainer.

TRL makes advantages, loss, schedule and checkpoints. Replaced are the rollouts (`agents.engine` or `agents.backends`
play the environment) and the rewards (exact over each group, also across processes). Both are private methods of TRL,
hence its pinned version. By default there is no KL term and no reference model, as in the paper.
"""

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from accelerate.utils import gather
from datasets import Dataset
from torch.distributed.tensor import DTensor
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOTrainer
from trl.trainer.grpo_trainer import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from agents.backends import TRLTurns, TurnByTurn
from agents.checkpoints import MarkComplete, last_checkpoint, load_weights
from agents.conversation import ChatEncoder
from agents.engine import Engine, restrict_vocabulary
from agents.group_rewards import columns, group_rewards, step_metrics, table
from agents.processes import gathered
from agents.progress import ProgressBar
from agents.rl_config import RLConfig, trl_config
from agents.rollout_rows import chosen_rows, in_order_of_length, replayed, taken
from agents.shared_prompts import SharedPrompts, let_share, share_prompts
from agents.token_passes import pass_by_pass, token_passes
from agents.transcript import Sample
from agents.weights import compute_dtype, fetch, for_trainer, trained_part, without_wrapper
from pixel_env.rollout import Episode
from pixel_env.trajectory import save_jsonl

PATIENCE = 3
"""Steps in a row that may be skipped because loss or gradient is not finite."""


def correctness(**_: Any) -> None:
    """Name of a column; `CuriosityGRPOTrainer._calculate_rewards` fills all three."""
    raise AssertionError("rewards are computed for whole groups")


def curiosity(**_: Any) -> None:
    """Name of a column."""
    correctness()


def operation_penalty(**_: Any) -> None:
    """Name of a column."""
    correctness()


class CuriosityGRPOTrainer(GRPOTrainer):
    """`GRPOTrainer` whose prompts are task indices, played in `PixelReasonEnv`.

    Attributes:
        skipped_steps: Optimizer steps that were skipped because loss or gradient was not finite.
        gave_up: Whether there were too many of them in a row.
    """

    _buffered_inputs: list[dict[str, Any]] | None

    def __init__(
        self,
        model: Any,
        encoder: ChatEncoder,
        env_id: str,
        env_kwargs: Mapping[str, Any],
        config: RLConfig,
        player: Any = None,
        **kwargs: Any,
    ) -> None:
        """Prepare training.

        Args:
            model: A Qwen2.5-VL, or adapters on one.
            encoder: Its chat template.
            env_id: Id for `gymnasium.make`.
            env_kwargs: Its arguments; the constants of the reward are read from the environment.
            config: How to train.
            player: The model that plays the rollouts, if it is not `model` itself: a copy, given its weights before
                every round. Where a process keeps a part of the weights, it still needs all of them to play.
            **kwargs: `args`, `train_dataset` and `callbacks` for the trainer.
        """
        self._make = lambda: Episode(gym.make(env_id, **env_kwargs))
        self._episodes = [self._make()]
        self._reward_settings = self._episodes[0].env.unwrapped.reward_settings  # type: ignore[attr-defined]
        self._config = config
        self.skipped_steps, self._skipped_in_a_row, self.gave_up = 0, 0, False
        self._loss_is_finite = True
        functions = [correctness, curiosity, operation_penalty]
        super().__init__(model, functions, processing_class=encoder.processor, **kwargs)
        self._handed, self._whole = model, model if player is None else player.to(self.accelerator.device)
        self._engine = Engine(
            without_wrapper(self._whole),
            encoder,
            max_new_tokens=config.max_new_tokens,
            max_completion_tokens=config.max_completion_tokens,
            temperature=config.temperature,
            seed=config.seed,
        )
        self._player: Engine | TurnByTurn = self._engine
        if config.rollouts != "engine":
            turns = TRLTurns(self, encoder, config.max_new_tokens)
            self._player = TurnByTurn(turns, encoder, self._engine.budget)
        if config.kl:  # the engine has restricted the vocabulary by now, so the reference has the same
            self.beta = config.kl
            shared = {id(weight): weight for weight in model.parameters() if not weight.requires_grad}
            reference = copy.deepcopy(model, shared).requires_grad_(False)
            self.ref_model = self.accelerator.prepare_model(reference, evaluation_mode=True)
        self.tools = [self._make]  # not called; TRL accepts images inside a completion only where there are tools

    def _generate(self, prompts: list[str]) -> tuple[Any, ...]:
        """Play the tasks (contiguous in groups, which may straddle processes) instead of completing prompts."""
        begun = time.perf_counter()
        rng = np.random.default_rng([self._config.seed, self.state.global_step])
        seeds = rng.integers(2**31, size=(self.accelerator.num_processes, len(prompts)))[self.accelerator.process_index]
        self._episodes += [self._make() for _ in range(len(prompts) - len(self._episodes))]
        for episode, prompt, seed in zip(self._episodes, prompts, seeds.tolist(), strict=False):
            episode.reset(int(prompt), seed)
        groups = [[self._episodes[row] for row in rows] for rows in _runs(prompts)]
        fetch(self._whole, self._handed, compute_dtype(self._config.dtype))
        with self.accelerator.autocast():
            self._samples = self._player.rollout(groups)
        seconds = time.perf_counter() - begun
        metrics = self._metrics["train"]
        metrics["rollouts_per_second"].append(len(prompts) / seconds * self.accelerator.num_processes)
        tokens = sum(sum(sample.policy_mask) for sample in self._samples)
        metrics["tokens_per_second"].append(tokens / seconds * self.accelerator.num_processes)
        if self.state.global_step % self.args.save_steps == 0:
            played = gathered([sample.trajectory for sample in self._samples])
            if self.accelerator.is_main_process:
                save_jsonl(Path(self.args.output_dir) / f"rollouts-{self.state.global_step}.jsonl", played)
        return self._for_trl(self._samples)

    def _for_trl(self, samples: Sequence[Sample]) -> tuple[Any, ...]:
        """What TRL's `_generate` returns. Images are given as those of tools, so that TRL looks for all their pads."""
        masks = [
            [0] * len(s.policy_mask) if s.cut and not self._config.train_on_cut else s.policy_mask for s in samples
        ]
        prompts, completions = [s.prompt_ids for s in samples], [s.completion_ids for s in samples]
        images = [s.images for s in samples]
        logps = [s.logps for s in samples] if self.use_vllm else None  # TRL corrects for what vLLM computes otherwise
        return prompts, completions, masks, [""] * len(samples), logps, {}, images, images

    def _calculate_rewards(self, *_: Any) -> torch.Tensor:
        """Terms of the rewards (N, 3) of all processes, process by process."""
        videos = [e.env.unwrapped.task.media.kind == "video" if e.error is None else False for e in self._episodes]  # type: ignore[attr-defined]
        rows = columns(self._samples, videos[: len(self._samples)])
        rollouts = table(gather(torch.from_numpy(rows).float().to(self.accelerator.device)).double().cpu().numpy())
        rewards = group_rewards(rollouts, self.num_generations, self._reward_settings)
        metrics = step_metrics(rollouts, rewards, self.num_generations) | {"skipped_steps": self.skipped_steps}
        for name, value in metrics.items():
            self._metrics["train"][name].append(value)
        return torch.from_numpy(rewards).float().to(self.accelerator.device)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """TRL's, but rollouts of an optimizer step are put in order: groups share a pass, its padding and their prompt.

        Those without an advantage come last, where they make passes that cost nothing.
        """
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        steps = self.args.steps_per_generation
        if self._step % steps == 0 or self._buffered_inputs is None:
            rollouts = split_pixel_values_by_grid(self._generate_and_score_completions(generation_batch))
            rows = torch.arange(len(rollouts["advantages"]), device=rollouts["advantages"].device)
            rollouts["group"] = (self.accelerator.process_index * len(rows) + rows) // self.num_generations
            rollouts = self._without_uniform_groups(rollouts)
            rollouts = taken(rollouts, in_order_of_length(rollouts, self._config.updates))
            parts = split_tensor_dict(rollouts, steps)
            self._buffered_inputs = [unsplit_pixel_values_by_grid(part) for part in parts]
        return self._buffered_inputs[self._step % steps]

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """TRL's; of a pass with a gradient, neighbours with the same prompt share a row."""
        if batch_size is None and (shared := self._shared(input_ids, attention_mask, logits_to_keep, kwargs)):
            with self.accelerator.autocast():
                outputs = model(**shared.inputs, fused_lm_head=True)
            values = (shared.of_rollouts(each, input_ids) for each in (outputs.log_probs, outputs.entropy))
            return *(each[:, -logits_to_keep:] for each in values), None
        if batch_size and self._config.batch_tokens:
            batch_size = max(1, self._config.batch_tokens // input_ids.shape[1])
        return super()._get_per_token_logps_and_entropies(
            model, input_ids, attention_mask, logits_to_keep, batch_size, **kwargs
        )

    def _shared(
        self, ids: torch.Tensor, mask: torch.Tensor, width: int, vision: Mapping[str, Any]
    ) -> SharedPrompts | None:
        """Rows with shared prompts, where there are images, and attention that can follow them."""
        model = without_wrapper(self.accelerator.unwrap_model(self.model))
        grid, types = vision.get("image_grid_thw"), vision.get("mm_token_type_ids")
        if grid is None or types is None or not let_share(model):
            return None
        merge = model.config.vision_config.spatial_merge_size**2
        pixels, images, positions = vision["pixel_values"], vision["num_images"], model.model.get_rope_index
        return share_prompts(ids, mask, width, types, pixels, grid, images, positions, merge)

    def _without_uniform_groups(self, rollouts: dict[str, Any]) -> dict[str, Any]:
        """Do with the rollouts that have no advantage as `RLConfig.uniform_groups` says."""
        how = self._config.uniform_groups
        if how == "keep":
            return rollouts
        if how == "replay":
            rollouts = taken(rollouts, replayed(rollouts["advantages"]))
        counts = rollouts["advantages"] != 0
        tokens = (rollouts["completion_mask"] * rollouts["tool_mask"]).sum(1)[counts].sum()
        return rollouts | {
            "num_items_in_batch": self.accelerator.reduce(tokens, reduction="sum"),
            "counted_share": self.accelerator.reduce(counts.float().mean(), reduction="mean"),
        }

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """TRL's loss of the rollouts that have an advantage: without a KL term the others have no gradient."""
        advantages = inputs["advantages"]
        count = (advantages != 0).sum().clamp(min=1)
        # As many rows in every process: TRL gathers a figure of each. Those without an advantage add nothing.
        count = gather(count).max()
        if self.beta and self._config.uniform_groups == "keep":
            count = len(advantages)
        rows = (advantages == 0).int().argsort(stable=True)[:count].sort().values
        if not self._config.batch_tokens:
            return self._loss_of(model, inputs, rows)
        lengths = torch.stack([inputs["prompt_mask"].sum(1), inputs["completion_mask"].sum(1)], dim=1)[rows].tolist()
        return pass_by_pass(
            lambda part: self._loss_of(model, inputs, rows[part]),
            token_passes(lengths, self._config.batch_tokens),
            self.accelerator.backward,
        )

    def _loss_of(self, model: Any, inputs: dict[str, Any], rows: torch.Tensor) -> torch.Tensor:
        """What some rollouts add to the loss of all."""
        loss = super()._compute_loss(model, chosen_rows(inputs, rows))
        entropies = self._metrics["train"]["entropy"]
        entropies.pop()  # of these rollouts only; `step_metrics` has that of all
        if not entropies:  # a later update of the same rollouts
            del self._metrics["train"]["entropy"]
        if self.loss_type == "dapo":  # divides by the tokens of all rollouts, the others by the rows they get
            return loss
        total = len(inputs["advantages"])
        return loss * (len(rows) / total) / max(float(inputs.get("counted_share", 1.0)), 1 / total)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One forward and backward pass; a step with a loss or gradient that is not finite is left out."""
        loss = super().training_step(*args, **kwargs)
        self._loss_is_finite &= bool(loss.isfinite())
        if self.accelerator.sync_gradients:
            gradients = [_own(p.grad) for p in self.model.parameters() if p.grad is not None]
            finite = self._loss_is_finite and all(bool(gradient.isfinite().all()) for gradient in gradients)
            votes = self.accelerator.reduce(torch.tensor(float(finite), device=loss.device), reduction="sum")
            self._loss_is_finite = True
            if int(votes) == self.accelerator.num_processes:
                self._skipped_in_a_row = 0
            else:
                self._skip()
        return loss

    def _skip(self) -> None:
        """Leave out an optimizer step: Adam does not touch weights without a gradient."""
        self.model.zero_grad(set_to_none=True)
        self.skipped_steps += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= PATIENCE:
            self.gave_up = True
            self.control.should_save = self.control.should_training_stop = True

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled:  # saved as they lie in its processes, under the names that the model has
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_weights(self.model, resume_from_checkpoint)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No card: TRL would write one beside every checkpoint."""


def _own(gradient: torch.Tensor) -> torch.Tensor:
    """The part of a gradient that this process keeps."""
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient


def _runs(prompts: Sequence[str]) -> Iterator[list[int]]:
    """Indices of equal neighbours."""
    for _, run in groupby(range(len(prompts)), key=lambda row: prompts[row]):
        yield list(run)


def reinforce(
    model: Any,
    processor: Any,
    env_id: str,
    env_kwargs: Mapping[str, Any],
    out: str | Path,
    config: RLConfig,
    *,
    resume: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    progress: bool = True,
) -> None:
    """Train `model` in place.

    Args:
        model: A Qwen2.5-VL.
        processor: Its processor.
        env_id: Id for `gymnasium.make`.
        env_kwargs: Its arguments; `alpha=0` leaves curiosity out.
        out: Folder of checkpoints, TensorBoard events, and the rollouts of every step that follows a checkpoint.
        config: How to train.
        resume: Continue from the newest complete checkpoint in `out`, if there is one.
        callbacks: For the trainer.
        progress: Show a progress bar.

    Raises:
        RuntimeError: Loss or gradient was not finite several steps in a row; the state before is saved in `out`.
    """
    encoder = ChatEncoder(processor)
    restrict_vocabulary(model, encoder)
    checkpoint = last_checkpoint(out) if resume else None
    bar = [ProgressBar("reinforce", ("reward", "correctness", "rapr"))] if progress else []
    tasks = _task_indices(env_id, env_kwargs, config)
    part = trained_part(model, out, lora=config.lora, vision=config.train_vision, seed=config.seed)
    with part as trained:
        handed = for_trainer(trained)
        trainer = CuriosityGRPOTrainer(
            handed,
            encoder,
            env_id,
            env_kwargs,
            config,
            None if handed is trained else trained,
            args=trl_config(out, config),
            train_dataset=Dataset.from_dict({"prompt": [str(task) for task in tasks]}),
            callbacks=[*bar, *callbacks, MarkComplete()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        fetch(trained, handed)
        if trainer.gave_up:
            raise RuntimeError(
                f"loss or gradient was not finite in {PATIENCE} steps in a row, up to step "
                f"{trainer.state.global_step}; the weights before them are in {out}; try a lower learning rate"
            )


def _task_indices(env_id: str, env_kwargs: Mapping[str, Any], config: RLConfig) -> list[int]:
    """The tasks of a whole run, in order: every one before any comes again."""
    env = gym.make(env_id, **env_kwargs)
    available, wanted = len(env.unwrapped.tasks), -(-config.steps // config.updates) * config.prompts  # type: ignore[attr-defined]
    env.close()
    rng = np.random.default_rng([config.seed, 1])
    rounds = [rng.choice(available, min(available, wanted), replace=False) for _ in range(-(-wanted // available))]
    return np.concatenate(rounds)[:wanted].tolist()
