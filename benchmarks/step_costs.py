"""Seconds, memory and rates of the steps of training, through the code that trains: `benchmarks/scaling.py` runs it."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import torch
from datasets import Dataset
from transformers import PrinterCallback

from agents import decoder, sft
from agents.conversation import ChatEncoder, Tokens, patchify
from agents.decoder import Decoder
from agents.engine import restrict_vocabulary
from agents.grpo import CuriosityGRPOTrainer
from agents.rl_config import RLConfig, trl_config
from agents.sft_config import WarmStartConfig
from agents.transcript import Sample
from benchmarks import roofline
from benchmarks.random_vlm import Written, random_model
from benchmarks.rollouts import ForcedEngine, ForcedRun, ours
from benchmarks.roofline import Grid, causal, synchronize
from benchmarks.stopwatch import Clock, Stopwatch
from pixel_env.rollout import Episode

NEVER = 10**9
LEARNING_RATE = 1e-6


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        size: A key of `random_vlm.SIZES`, or "micro".
        kind: "rollouts", "sft" or "grpo".
        trained: "all", "language" (the vision tower frozen) or the number of the last layers, which alone learn.
        checkpointing: Whether activations are computed again in the backward pass.
        batch_size: Sequences a pass.
        prompts: Tasks played at a time.
        shared: Whether rollouts of a task share the row of their prompt, see `agents.shared_prompts`.
    """

    size: str
    kind: str
    trained: str = "all"
    checkpointing: bool = False
    batch_size: int = 2
    prompts: int = 2
    shared: bool = True

    @property
    def name(self) -> str:
        """What tells it from others."""
        if self.kind == "rollouts":
            return f"{self.size} rollouts, {self.prompts} prompts"
        again = "checkpointing" if self.checkpointing else "no checkpointing"
        rows = "" if self.shared else ", a row a rollout"
        return f"{self.size} {self.kind}, trained: {self.trained}, {again}, batch {self.batch_size}{rows}"


@dataclass(frozen=True)
class Bench:
    """What all points share: device, number format, environment, what is written, steps that are counted."""

    device: torch.device
    dtype: torch.dtype
    env_id: str
    env_kwargs: dict[str, Any]
    encoder: ChatEncoder
    written: Written
    group_size: int
    steps: int


def grid(image: np.ndarray) -> Grid:
    """Patches of a view (H, W, 3)."""
    return image.shape[0] // 14, image.shape[1] // 14


def prepared(point: Point, bench: Bench) -> Any:
    """A new model, of which the wanted part learns."""
    model = random_model(point.size, bench.encoder.processor, bench.device, bench.dtype)
    if point.trained != "all":
        language = model.model.language_model
        model.model.visual.requires_grad_(False)
        if point.trained != "language":
            model.requires_grad_(False)
            for layer in language.layers[-int(point.trained) :]:
                layer.requires_grad_(True)
    return model


def about(model: Any, bench: Bench) -> dict[str, Any]:
    """Parameters, and most memory since the model was made."""
    parameters = list(model.parameters())
    found: dict[str, Any] = {
        "parameters": sum(p.numel() for p in parameters),
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
    }
    if bench.device.type == "cuda":
        found["peak_gib"] = round(torch.cuda.max_memory_allocated(bench.device) / 2**30, 2)
    return found


def _flop(point: Point, config: Any, tokens: int, pairs: int, scored: int, images: Sequence[np.ndarray]) -> int:
    """FLOP of training passes, see `roofline.training_flop`."""
    layers = config.text_config.num_hidden_layers
    part = point.trained not in ("all", "language")
    return roofline.training_flop(
        config,
        tokens,
        pairs,
        scored,
        map(grid, images),
        trained_layers=int(point.trained) if part else layers,
        head_trained=not part,
        vision_trained=point.trained == "all",
    )


def measure_sft(point: Point, bench: Bench) -> dict[str, Any]:
    """Steps of `agents.sft.warm_start`: collate, forward and backward pass, optimizer."""
    model, watch = prepared(point, bench), Stopwatch(bench.device)
    clock, batches, collate = Clock(watch, warm_up=2), list[Sequence[Tokens]](), sft.collate

    def collated(examples: Sequence[Tokens], encoder: ChatEncoder) -> dict[str, torch.Tensor]:
        batches.append(examples)
        with watch.phase("collate"):
            return collate(examples, encoder)

    steps = clock.warm_up + 3 * bench.steps
    every = bench.written.trajectories
    chosen = every[:: max(1, len(every) // (steps * point.batch_size))][: steps * point.batch_size]
    env, trainer = gym.make(bench.env_id, **bench.env_kwargs), sft.WarmStartTrainer
    passes = watch.timing("passes", trainer.training_step)
    with (
        TemporaryDirectory() as out,
        patch("agents.sft.collate", collated),
        patch.object(trainer, "training_step", passes),
    ):
        sft.warm_start(
            model,
            bench.encoder.processor,
            chosen,
            out,
            WarmStartConfig(
                epochs=-(-steps * point.batch_size // len(chosen)),
                learning_rate=LEARNING_RATE,
                batch_size=point.batch_size,
                train_vision=point.trained == "all",
                gradient_checkpointing=point.checkpointing,
                save_steps=NEVER,
            ),
            env=env,
            callbacks=[clock],
            progress=False,
        )
    env.close()
    model.model.visual.requires_grad_(point.trained == "all")  # as it was; `warm_start` leaves it trainable
    seconds, phases = clock.counted()
    examples = [example for batch in batches[clock.warm_up : len(clock.ends)] for example in batch]
    lengths, total = [len(example.ids) for example in examples], sum(seconds)
    scored = sum(sum(example.loss) for example in examples)
    images = [image for example in examples for image in example.images]
    flop = _flop(point, model.config, sum(lengths), sum(map(causal, lengths)), scored, images)
    return about(model, bench) | {
        "steps": len(seconds),
        "seconds_per_step": total / len(seconds),
        "slowest_and_fastest": [max(seconds), min(seconds)],
        "phases": phases,
        "tokens_per_example": fmean(lengths),
        "trained_tokens_per_example": scored / len(examples),
        "examples_per_second": len(examples) / total,
        "tokens_per_second": sum(lengths) / total,
        "flop_per_second": flop / total,
        "passes_flop_per_second": flop / len(seconds) / phases["passes"],
    }


def measure_grpo(point: Point, bench: Bench) -> dict[str, Any]:
    """Steps of `agents.grpo.CuriosityGRPOTrainer`: rollouts of forced tokens, rewards, passes, optimizer."""
    model, watch, written = prepared(point, bench), Stopwatch(bench.device), bench.written
    clock, steps = Clock(watch, warm_up=1), 1 + bench.steps
    config = RLConfig(
        steps=steps,
        prompts=point.prompts,
        group_size=bench.group_size,
        learning_rate=LEARNING_RATE,
        batch_size=point.batch_size,
        gradient_checkpointing=point.checkpointing,
        max_new_tokens=written.longest_turn,
        max_completion_tokens=written.room,
        save_steps=NEVER,
    )
    restrict_vocabulary(model, bench.encoder)
    rows, timed = point.prompts * bench.group_size, CuriosityGRPOTrainer
    phases = {"_generate": "rollouts", "_generate_and_score_completions": "rewards", "training_step": "passes"}
    with TemporaryDirectory() as out, _forced(written.table(rows, bench.device)), ExitStack() as patched:
        patched.enter_context(patch("agents.grpo.Engine", ForcedEngine))
        for method, phase in phases.items():
            patched.enter_context(patch.object(timed, method, watch.timing(phase, getattr(timed, method))))
        if not point.shared:
            patched.enter_context(patch.object(timed, "_shared", lambda *_: None))
        trainer = CuriosityGRPOTrainer(
            model,
            bench.encoder,
            bench.env_id,
            bench.env_kwargs,
            config,
            args=trl_config(Path(out), config),
            train_dataset=Dataset.from_dict({"prompt": [str(task) for task in written.tasks[: point.prompts]] * steps}),
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    seconds, means = clock.counted()
    samples: list[Sample] = trainer._samples
    lengths = [len(sample.prompt_ids) + len(sample.completion_ids) for sample in samples]
    flop = _passes_flop(point, bench, model.config, samples)
    return about(model, bench) | {
        "rollouts": len(samples),
        "correctness": fmean(sample.trajectory.correct for sample in samples),
        "skipped_steps": trainer.skipped_steps,
        "steps": len(seconds),
        "seconds_per_step": fmean(seconds),
        "slowest_and_fastest": [max(seconds), min(seconds)],
        "phases": means,
        "tokens_per_rollout": fmean(lengths),
        "rollouts_per_second": len(samples) / fmean(seconds),
        "passes_flop_per_second": flop / means["passes"],
    }


def _passes_flop(point: Point, bench: Bench, config: Any, samples: Sequence[Sample]) -> int:
    """FLOP of the passes over groups of rollouts, a prompt once in each row that shares it."""
    together = min(point.batch_size, bench.group_size) if point.shared else 1
    groups = [samples[k : k + bench.group_size] for k in range(0, len(samples), bench.group_size)]
    rows = [group[k : k + together] for group in groups for k in range(0, len(group), together)]
    prompts = [len(row[0].prompt_ids) for row in rows]
    written = [[len(sample.completion_ids) for sample in row] for row in rows]
    tokens = sum(map(sum, written), sum(prompts))
    pairs = sum(
        causal(p) + sum(causal(p + c) - causal(p) for c in lengths) for p, lengths in zip(prompts, written, strict=True)
    )
    images = [
        image
        for row in rows
        for k, sample in enumerate(row)
        for image in sample.images[k and sample.num_prompt_images :]
    ]
    return _flop(point, config, tokens, pairs, sum(map(sum, written)), images)


def measure_rollouts(point: Point, bench: Bench) -> dict[str, Any]:
    """`agents.engine` playing forced tokens: once to warm up, then once by phase."""
    model = random_model(point.size, bench.encoder.processor, bench.device, bench.dtype).eval()
    watch, written, kept, step = Stopwatch(bench.device), bench.written, list[int](), Decoder.step
    tasks = [task for task in written.tasks[: point.prompts] for _ in range(bench.group_size)]
    engine = ForcedEngine(model, bench.encoder, max_new_tokens=written.longest_turn, max_completion_tokens=written.room)
    episodes = [Episode(gym.make(bench.env_id, **bench.env_kwargs)) for _ in tasks]

    def counted(self: Decoder, tokens: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        with watch.phase("decode"):
            logits = step(self, tokens, active)
        kept.append(int(self.cache.prompt_lengths.sum()) + int(self.cache.lengths.sum()))
        return logits

    phases = [(decoder, "patchify", "patchify"), (Decoder, "prefill", "prefill"), (Decoder, "extend", "extend")]
    phases += [(Episode, "reset", "environment"), (Episode, "step", "environment")]
    with _forced(written.table(len(tasks), bench.device)), ExitStack() as patched:
        patched.enter_context(patch.object(Decoder, "step", counted))
        for owner, name, phase in phases:
            patched.enter_context(patch.object(owner, name, watch.timing(phase, getattr(owner, name))))
        for _ in range(2):
            watch.take()
            kept.clear()
            begun = time.perf_counter()
            samples = ours(engine, tasks, bench.group_size, episodes)
            synchronize(bench.device)
            total = time.perf_counter() - begun
    for episode in episodes:
        episode.env.close()
    spent = watch.take()
    drawn = sum(sum(sample.policy_mask) for sample in samples)
    first = samples[:: bench.group_size]
    lengths = [len(sample.prompt_ids) for sample in first]
    shown = [grid(image) for sample in first for image in sample.images[: sample.num_prompt_images]]
    config = model.config
    prefill = roofline.layers_flop(config, sum(lengths), sum(map(causal, lengths)))
    prefill += roofline.vision_flop(config, shown) + 2 * roofline.head_weights(config) * len(lengths)
    read = roofline.decoding_bytes(config, kept, torch.finfo(bench.dtype).bits // 8)
    return about(model, bench) | {
        "rollouts": len(samples),
        "seconds": total,
        "rollouts_per_second": len(samples) / total,
        "tokens_per_second": drawn / total,
        "turns": fmean(len(sample.trajectory.turns) for sample in samples),
        "prompt_tokens": fmean(lengths),
        "completion_tokens": fmean(len(sample.completion_ids) for sample in samples),
        "written_tokens": drawn / len(samples),
        "phases": spent | {"other": total - sum(spent.values())},
        "decode_steps": len(kept),
        "seconds_per_decode_step": spent["decode"] / len(kept),
        "decode_bytes_per_second": read / spent["decode"],
        "prefill_flop_per_second": prefill / spent["prefill"],
        "log_probability_difference": _difference(model, bench, samples[0]),
    }


@contextmanager
def _forced(completions: torch.Tensor) -> Iterator[None]:
    """Let runs of a `ForcedEngine` write these ids (rows, room)."""
    with patch("agents.engine._Run", ForcedRun), patch.object(ForcedRun, "completions", completions, create=True):
        yield


@torch.no_grad()
def _difference(model: Any, bench: Bench, sample: Sample) -> dict[str, float]:
    """How far the log-probabilities of a rollout are from those of one pass of the plain model over all of it."""
    ids = torch.tensor([sample.prompt_ids + sample.completion_ids], device=bench.device)
    pixels, grids = patchify(sample.images, bench.encoder.processor.image_processor)
    logits = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == bench.encoder.image_pad).int(),
        pixel_values=pixels.to(bench.device),
        image_grid_thw=grids.to(bench.device),
        logits_to_keep=len(sample.completion_ids) + 1,
    ).logits[0, :-1]
    wanted = torch.tensor(sample.completion_ids, device=bench.device)
    logps = logits.float().log_softmax(-1).gather(1, wanted[:, None])[:, 0].cpu()
    apart = (logps - torch.tensor(sample.logps)).abs()[torch.tensor(sample.policy_mask).bool()]
    return {"mean": float(apart.mean()), "largest": float(apart.max())}
