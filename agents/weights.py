"""Which weights a stage trains and how precise they are: all of them, those of the language model, or adapters.

Trained weights are kept in 32 bits, whatever is computed with: a step of 1e-6 would round away in bfloat16.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model

from agents.processes import is_main, is_sharded
from pixel_env.journal import replacing

LANGUAGE = r"language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
VISION = r"visual\.(blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(gate|up|down)_proj)|merger\.mlp\.[02])"
"""Names of the linear layers that get an adapter."""


def compute_dtype(name: str | None = None) -> torch.dtype:
    """Return the dtype of this name; by default bfloat16 on a GPU and float32 on a CPU.

    >>> compute_dtype("bfloat16")
    torch.bfloat16
    """
    return getattr(torch, name or ("bfloat16" if torch.cuda.is_available() else "float32"))


def stored_dtype(name: str | None, lora: int) -> torch.dtype:
    """Return the dtype in which a stage keeps the weights that it loads: that of `compute_dtype` if none is trained."""
    return compute_dtype(name) if lora else torch.float32


def add_adapters(model: Any, rank: int, vision: bool) -> Any:
    """Put LoRA adapters (arXiv 2106.09685) on the linear layers of `model`, in place, and freeze all else.

    Args:
        model: A Qwen2.5-VL.
        rank: Of the update of a weight, which is 2 B A: `lora_alpha` is twice the rank.
        vision: Whether the vision tower gets adapters too.

    Returns:
        A `PeftModel` around `model`; the adapters are in 32 bits.
    """
    from peft import LoraConfig, get_peft_model  # takes a second, and only some runs need it

    layers = f"{LANGUAGE}|{VISION}" if vision else LANGUAGE
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=rf"(.*\.)?({layers})"))


def choose_trained(model: Any, lora: int = 0, vision: bool = True) -> Any:
    """Return what a trainer trains: `model`, without its vision tower or not, or adapters of rank `lora` around it."""
    if lora:
        return add_adapters(model, lora, vision)
    model.model.visual.requires_grad_(vision)
    return model


def without_wrapper(model: Any) -> Any:
    """Return the Qwen2.5-VL in what a trainer trains; it computes with the adapters, if there are any."""
    return model.get_base_model() if is_peft_model(model) else model


@contextmanager
def trained_part(model: Any, out: str | Path, *, lora: int = 0, vision: bool = True, seed: int = 0) -> Iterator[Any]:
    """Choose what a trainer trains, and leave `model` as plain weights, all of which can be trained again.

    Args:
        model: A Qwen2.5-VL; trained in place.
        out: Adapters are saved in its folder "adapter", unmerged.
        lora: Rank of adapters, or 0 to train the weights themselves.
        vision: Whether the vision tower learns.
        seed: Of the adapters at the start, half of which are random.

    Yields:
        What to hand to the trainer.
    """
    torch.manual_seed(seed)
    trained = choose_trained(model, lora, vision)
    yield trained
    if lora:
        if is_main():
            with replacing(Path(out) / "adapter") as part:
                trained.save_pretrained(part)
        trained.merge_and_unload()
    model.requires_grad_(True)


def for_trainer(model: Any) -> Any:
    """Return what a trainer gets: `model` itself, or a copy to cut up where each process keeps a part of the weights.

    Copy and model are then in the memory of the processor. `fetch` makes the model whole again: to play, to be saved.
    """
    return copy.deepcopy(model.to("cpu")) if is_sharded() else model


@torch.no_grad()
def fetch(model: Any, trained: Any, dtype: torch.dtype | None = None) -> None:
    """Copy the weights of a trainer into a plain model, whole, one after the other; all processes take part.

    Args:
        model: What `for_trainer` was given; keeps its device.
        trained: What it returned, in whatever way it was cut up since; if that is `model`, nothing is to be done.
        dtype: Of the copies; by default that of the weights.
    """
    if trained is model:
        return
    for whole, part in zip(model.parameters(), trained.parameters(), strict=True):
        with _gathered(part) as weight:
            whole.data = weight.to(device=whole.device, dtype=dtype, copy=True)


@contextmanager
def _gathered(part: torch.nn.Parameter) -> Iterator[torch.Tensor]:
    """Yield all of a weight of which this process keeps a part."""
    gathering: Any = nullcontext()
    if hasattr(part, "ds_id"):
        import deepspeed

        gathering = deepspeed.zero.GatheredParameters([part])
    with gathering:
        yield part.full_tensor() if hasattr(part, "full_tensor") else part.data
