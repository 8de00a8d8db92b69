"""The memory that a run takes, from the configuration of its model alone: no weights are loaded.

Counted are weights, gradients, Adam's moments, what a forward pass keeps for the backward one, logits, and the KV
cache; not the context of CUDA and not what an allocator loses in gaps.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration

from agents.lengths import Length, longest_demonstration, longest_rollout, prompt
from agents.processes import is_sharded, rank_and_count
from agents.run_settings import Settings
from agents.weights import choose_trained, compute_dtype, stored_dtype
from pixel_env.command_line import UsageError

GB = 1e9
ADAM = 8
"""Bytes of the two moments of a trained weight; it and its gradient take 4 each."""

HEAD_ROWS, HEAD_COLUMNS = 4096, 32768
"""TRL computes logits in tiles of so many tokens and words."""

Parts = dict[str, float]
"""Bytes by what they are for."""


def read_config(model: str) -> Any:
    """Read the configuration of a model; of the Hub, nothing else is fetched.

    Raises:
        UsageError: It cannot be read, or is not that of a Qwen2.5-VL.
    """
    try:
        config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        where = "" if Path(model).is_dir() else "; without a network, give a folder that holds it"
        raise UsageError(f"cannot load the configuration of {model}: {str(error).splitlines()[0]}{where}") from None
    if config.model_type != "qwen2_5_vl":
        raise UsageError(f"expected --model to be a Qwen2.5-VL, got {config.model_type} in {model}")
    return config


def estimate(model: str) -> "Estimate":
    """Return what runs of a model take in each of the processes that there are."""
    return Estimate(read_config(model), rank_and_count()[1], is_sharded())


@dataclass(frozen=True)
class Shape:
    """Sizes of a transformer.

    Attributes:
        layers: Their number.
        hidden: Width.
        heads: Width of all heads together.
        keys: Width of the keys of all heads together.
        inner: Width of the gated MLP.
        projections: Linear layers that read the normalised input of a layer: q, k, v, gate, up.
    """

    layers: int
    hidden: int
    heads: int
    keys: int
    inner: int
    projections: int = 5

    def kept(self, compute: int, stream: int, full: bool) -> int:
        """Bytes a token that one layer keeps for the backward pass.

        That is: the inputs of both norms, in 32 bits; what they normalise, where their weights are trained; the inputs
        of the linear layers, which autocast copies for each; query, key, value (at the width of the query), output of
        the attention, twice; gate, its activation, up, and their product.

        Args:
            compute: Bytes of a number in linear layers and attention.
            stream: Bytes of a number between them.
            full: Whether all weights are trained, and not adapters on them.
        """
        copies = self.projections if compute < 4 else 2
        norms = 2 * self.hidden * (4 + (stream if full else 0))
        return norms + compute * (copies * self.hidden + 5 * self.heads + 4 * self.inner)


def shapes(config: Any) -> tuple[Shape, Shape]:
    """Return the language model, a token a column, and the vision tower, a patch a column."""
    text, vision = config.get_text_config(), config.vision_config
    head = text.hidden_size // text.num_attention_heads
    keys = head * text.num_key_value_heads
    language = Shape(text.num_hidden_layers, text.hidden_size, text.hidden_size, keys, text.intermediate_size)
    width = vision.hidden_size
    return language, Shape(vision.depth, width, width, width, vision.intermediate_size, projections=3)


class Estimate:
    """What runs of one model take, in each process.

    Args:
        config: Of a Qwen2.5-VL.
        processes: That share the work of a step.
        sharded: Whether they share the weights too, and the moments; each then has all weights once more, to play with.
    """

    def __init__(self, config: Any, processes: int = 1, sharded: bool = False) -> None:
        self.config, self.processes, self.sharded = config, processes, sharded
        self.language, self.vision = shapes(config)
        self.vocabulary: int = config.get_text_config().vocab_size
        self._patches = config.vision_config.spatial_merge_size**2
        self.parameters = functools.cache(self._parameters)

    def _parameters(self, lora: int, vision: bool) -> tuple[int, int]:
        """Numbers of frozen and of trained weights, counted on a model without memory."""
        with torch.device("meta"):
            model = Qwen2_5_VLForConditionalGeneration(self.config)
            weights = list(choose_trained(model, lora, vision).parameters())
        trained = sum(weight.numel() for weight in weights if weight.requires_grad)
        return sum(weight.numel() for weight in weights) - trained, trained

    def phases(self, settings: Settings) -> dict[str, Parts]:
        """Return the bytes of the phases of a run, one after the other; the largest sum is what it takes."""
        s, found = settings, dict[str, Parts]()
        if "warm_start" in s.stages:
            length = longest_demonstration(s)
            found["warm start"] = self._update(s, not s.freeze_vision, length, _rows(s, s.batch_size, length))
        if "rl" in s.stages:
            length, vision = longest_rollout(s), not s.rl_freeze_vision
            reference = self.parameters(s.lora, vision)[1] * 4 if s.kl else 0
            others = {"reference": reference, "copy that plays": self._whole(s) if self.sharded else 0}
            found["RL rollouts"] = self._weights(s, vision) | others | self._playing(s)
            found["RL update"] = self._update(s, vision, length, _rows(s, s.rl_batch_size, length)) | others
        found["evaluation"] = {"weights": self._whole(s)} | self._cache_and_logits(
            s, s.batch_episodes, s.batch_episodes
        )
        return found

    def peak(self, settings: Settings) -> float:
        """Return the bytes of the largest phase."""
        return max(sum(parts.values()) for parts in self.phases(settings).values())

    def _whole(self, s: Settings) -> float:
        """All weights as they play."""
        return sum(self.parameters(0, True)) * compute_dtype(s.dtype).itemsize

    @property
    def _parts(self) -> int:
        """Into how many parts weights are cut."""
        return self.processes if self.sharded else 1

    def _weights(self, s: Settings, vision: bool) -> Parts:
        frozen, trained = self.parameters(s.lora, vision)
        compute = compute_dtype(s.dtype).itemsize
        copies = compute * trained if compute < 4 else 0  # autocast keeps those of trained weights
        kept = frozen * stored_dtype(s.dtype, s.lora).itemsize + 4 * trained
        if self.sharded:
            return {"weights": kept / self._parts, "optimizer": ADAM * trained / self._parts}
        return {"weights": kept + copies, "optimizer": ADAM * trained}

    def _update(self, s: Settings, vision: bool, length: Length, rows: float) -> Parts:
        """A forward and backward pass over rows of some length."""
        compute = compute_dtype(s.dtype).itemsize
        tokens, patches = rows * length.tokens, rows * length.pictures * self._patches
        activations = self.activations(tokens, patches if vision else 0, s.dtype, s.lora, s.gradient_checkpointing)
        tile = min(tokens, HEAD_ROWS) * min(self.vocabulary, HEAD_COLUMNS) * (compute + 4)
        head = 0 if s.lora else 4 * self.vocabulary * self.language.hidden  # its gradient, before it is added
        logits = tile + head + 4 * tokens * self.language.hidden
        gradients = 4 * self.parameters(s.lora, vision)[1] / self._parts
        return self._weights(s, vision) | {"gradients": gradients, "activations": activations, "logits": logits}

    def activations(
        self, tokens: float, patches: float, dtype: str | None, lora: int, checkpointing: bool, again: bool = True
    ) -> float:
        """Return the bytes that a forward pass keeps for the backward one.

        Args:
            tokens: That the language model reads, padding included.
            patches: That a vision tower reads that is trained.
            dtype: What is computed with.
            lora: Rank of adapters, or 0.
            checkpointing: Whether only the inputs of layers are kept.
            again: Count what one of them keeps when it is computed again.
        """
        compute, stored = compute_dtype(dtype).itemsize, stored_dtype(dtype, lora).itemsize
        found = 0.0
        for shape, read, stream in ((self.language, tokens, stored), (self.vision, patches, compute)):
            layer = shape.kept(compute, stream, not lora)
            each = shape.hidden * stream if checkpointing else layer
            found += read * (shape.layers * each + (layer if checkpointing and again else 0))
        return found

    def _playing(self, s: Settings) -> Parts:
        """Rollouts of a round: prompts are read at once, a layer after the other, and kept once a group."""
        compute, first = compute_dtype(s.dtype).itemsize, prompt(s)
        prompts, rows = -(-s.prompts // self.processes), s.prompts * s.group_size // self.processes
        reading = prompts * first.tokens * self.language.kept(compute, compute, False)
        seeing = prompts * first.pictures * self._patches * self.vision.kept(compute, compute, False)
        return {"activations": max(reading, seeing)} | self._cache_and_logits(s, prompts, rows)

    def _cache_and_logits(self, s: Settings, prompts: int, rows: int) -> Parts:
        """Keys and values of every layer, and for each row the logits, their logarithms and probabilities."""
        compute = compute_dtype(s.dtype).itemsize
        tokens = prompts * prompt(s).tokens + rows * s.max_completion_tokens
        cache = tokens * 2 * self.language.layers * self.language.keys * compute
        return {"KV cache": cache, "logits": rows * self.vocabulary * (compute + 3 * 4)}


def _rows(s: Settings, rows: int, length: Length) -> float:
    """Rows of a pass; with a limit of tokens as many as fit, or one that does not."""
    return max(1.0, s.batch_tokens / length.tokens) if s.batch_tokens else rows


def room(settings: Settings) -> float:
    """Return the bytes that a run may take: as told, or all of the GPU or of the machine."""
    if settings.memory is not None:
        return settings.memory * GB
    return torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else psutil.virtual_memory().total


def table(phases: Mapping[str, Parts]) -> str:
    """Say in columns what the phases of a run take, in GB."""
    parts = list(dict.fromkeys(name for phase in phases.values() for name, size in phase.items() if size))
    lines = [["memory, GB", *phases]]
    lines += [[name, *(f"{phase.get(name, 0) / GB:.2f}" for phase in phases.values())] for name in parts]
    lines += [["sum", *(f"{sum(phase.values()) / GB:.2f}" for phase in phases.values())]]
    return "\n".join(
        "".join(f"{cell:<12}" if not k else f"{cell:>14}" for k, cell in enumerate(line)) for line in lines
    )


def check(estimate: Estimate, settings: Settings) -> None:
    """Raise UsageError if a run cannot fit, with the options that would make it fit."""
    limit = room(settings)
    phases = estimate.phases(settings)
    phase = max(phases, key=lambda name: sum(phases[name].values()))
    needed = sum(phases[phase].values())
    if needed <= limit:
        return
    largest = max(phases[phase], key=lambda name: phases[phase][name])
    found = remedy(settings, lambda changed: _excess(estimate.phases(changed), limit))
    told = f"{needed / GB:.1f} GB in the {phase}, most of it {largest}, where there are {limit / GB:.1f}"
    if found is None:
        raise UsageError(f"this run takes {told}, and no option makes it fit; --plan has the figures")
    options, changed = found
    after = estimate.peak(changed) / GB
    raise UsageError(
        f"this run takes {told}; it would take {after:.1f} with {' '.join(options)} (--plan has the figures; "
        "--memory GB says otherwise what it may take)"
    )


def _excess(phases: Mapping[str, Parts], limit: float) -> float:
    return sum(max(0.0, sum(parts.values()) - limit) for parts in phases.values())


def remedy(settings: Settings, excess: Callable[[Settings], float]) -> tuple[list[str], Settings] | None:
    """Find options that make a run fit, none of which could be left out, or None.

    Args:
        settings: Of a run that does not fit.
        excess: Bytes by which one exceeds its memory.

    Returns:
        The options as they are written, and the settings with them.
    """
    options = list(_options(settings))
    for number in range(len(options) + 1):
        for part in (1, 2, 4, 8):  # of the episodes that are played at once
            chosen = dict(options[:number]) | dict(_fewer(settings, part))
            if not excess(_with(settings, chosen)):
                for option in list(chosen):
                    without = {name: changes for name, changes in chosen.items() if name != option}
                    chosen = chosen if excess(_with(settings, without)) else without
                return list(chosen), _with(settings, chosen)
    return None


Changes = dict[str, Any]


def _with(settings: Settings, chosen: Mapping[str, Changes]) -> Settings:
    return replace(settings, **{name: value for changes in chosen.values() for name, value in changes.items()})


def _options(s: Settings) -> Iterator[tuple[str, Changes]]:
    """Options that lower memory, those that change the training least first."""
    if not s.gradient_checkpointing:
        yield "--gradient-checkpointing", {"gradient_checkpointing": True}
    if s.batch_tokens:
        yield "--batch-tokens 1", {"batch_tokens": 1}
    elif s.batch_size > 1:
        once = s.batch_size * s.accumulation
        yield f"--batch-size 1 --accumulation {once}", {"batch_size": 1, "accumulation": once}
    if s.rl_batch_size > 1 and not s.batch_tokens:
        yield "--rl-batch-size 1", {"rl_batch_size": 1}
    if compute_dtype(s.dtype) != torch.bfloat16:
        yield "--dtype bfloat16", {"dtype": "bfloat16"}
    if not s.lora:
        yield "--lora 16", {"lora": 16}
    if not (s.freeze_vision and s.rl_freeze_vision):
        yield "--freeze-vision --rl-freeze-vision", {"freeze_vision": True, "rl_freeze_vision": True}


def _fewer(s: Settings, part: int) -> Iterator[tuple[str, Changes]]:
    for name in ("prompts", "batch_episodes"):
        if (value := getattr(s, name)) >= part > 1:
            yield f"--{name.replace('_', '-')} {value // part}", {name: value // part}
