"""Warm start: supervised fine-tuning on trajectories, a thin layer over TRL's `SFTTrainer`.

The loss falls on what the policy wrote in turns that are flagged as trained, up to and including their ``<|im_end|>``,
by construction and not by position. Differs from the release, which trains the last two turns of each conversation,
whatever they hold. Prompts are made by the same encoder as in RL and evaluation.
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from agents.checkpoints import MarkComplete, last_checkpoint, load_weights
from agents.conversation import ChatEncoder, Tokens, patchify
from agents.processes import is_main, share
from agents.rl_config import checkpointing, passes_of, sharding
from agents.token_passes import check_one_process, pass_by_pass, token_passes
from agents.weights import compute_dtype, fetch, for_trainer, trained_part
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


class ProgressBar(TrainerCallback):
    """One bar for a whole training, the latest figures beside it."""

    def __init__(self, description: str, figures: Sequence[str]) -> None:
        """Show the `figures` that the trainer logs under these names."""
        self._description, self._figures = description, figures

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar, at the step where training begins."""
        shown = {"desc": self._description, "unit": "step", "disable": not state.is_world_process_zero}
        self._bar = tqdm(total=state.max_steps, initial=state.global_step, **shown)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Show the latest figures."""
        known = {name.rpartition("/")[2]: f"{logs[name]:.3g}" for name in self._figures if logs and name in logs}
        if known:
            self._bar.set_postfix(known)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        self._bar.close()


def warm_start(
    model: Any,
    processor: Any,
    trajectories: Sequence[Trajectory],
    out: str | Path,
    *,
    epochs: int = 2,
    learning_rate: float = 3e-4,
    batch_size: int = 16,
    accumulation: int = 1,
    batch_tokens: int | None = None,
    train_vision: bool = True,
    lora: int = 0,
    dtype: str | None = None,
    gradient_checkpointing: bool = False,
    save_steps: int = 50,
    seed: int = 0,
    resume: bool = False,
    env: gym.Env[Any, str] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    progress: bool = True,
) -> None:
    """Train `model` in place on trajectories.

    Args:
        model: a Qwen2.5-VL.
        processor: its processor.
        trajectories: from `agents.demonstrations`; played again for their views.
        out: folder of checkpoints and TensorBoard events.
        epochs: passes over the trajectories.
        learning_rate: peak of a cosine with 10% warm-up, as in the paper (which takes 1e-6 for 7B).
        batch_size: trajectories a forward pass, at most.
        accumulation: forward passes an optimizer step, of all processes together.
        batch_tokens: most tokens of a forward pass, padding included; the `batch_size` times `accumulation`
            trajectories of a step are then spread over as many passes as it takes.
        train_vision: whether the vision tower learns too; the release freezes it here.
        lora: rank of adapters, merged in the end and saved in `out`/adapter; 0 trains the weights themselves.
        dtype: what is computed with, "float32" or "bfloat16"; see `agents.weights`.
        gradient_checkpointing: saves memory, costs time.
        save_steps: optimizer steps between checkpoints; the last two are kept.
        seed: of the order of examples.
        resume: continue from the newest complete checkpoint in `out`, if there is one.
        env: where trajectories are played again; by default made as theirs was.
        callbacks: for the trainer.
        progress: show progress bars.
    """
    encoder = ChatEncoder(processor)
    progress = progress and is_main()
    examples = Examples(encoder, trajectories, env, progress=progress)
    if batch_tokens:
        check_one_process()
    on_gpu = torch.cuda.is_available()
    steps = epochs * math.ceil(len(examples) / (batch_size * accumulation))
    rows = share(batch_size * accumulation, "demonstrations of an optimizer step")
    rows_of_pass = rows if batch_tokens else passes_of(rows, batch_size)
    args = SFTConfig(
        output_dir=str(out),
        num_train_epochs=epochs,
        per_device_train_batch_size=rows_of_pass,
        gradient_accumulation_steps=rows // rows_of_pass,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(0.1 * steps),
        **checkpointing(gradient_checkpointing),
        **sharding(),
        bf16=compute_dtype(dtype) == torch.bfloat16,
        use_cpu=not on_gpu,
        max_length=None,  # truncation could cut through the tokens of an image
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_pin_memory=on_gpu,
        save_steps=save_steps,
        save_total_limit=2,
        logging_steps=1,
        report_to=["tensorboard"],
        disable_tqdm=True,  # the bar below instead, which does not print a dictionary at every log
        seed=seed,
    )
    bar = [ProgressBar("warm start", ("loss", "mean_token_accuracy"))] if progress else []
    checkpoint = last_checkpoint(out) if resume else None
    with causal_only(model), trained_part(model, out, lora=lora, vision=train_vision, seed=seed) as trained:
        handed = for_trainer(trained)
        trainer = WarmStartTrainer(
            handed, examples, encoder, args, batch_tokens, callbacks=[*bar, *callbacks, MarkComplete()]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        fetch(trained, handed)
