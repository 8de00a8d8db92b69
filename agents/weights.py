"""Which weights a stage trains and how precise they are: all of them, those of the language model, or adapters.

Trained weights are kept in 32 bits, whatever is computed with: a step of 1e-6 would round away in bfloat16.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import is_peft_model

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
        if PartialState().is_main_process:  # all processes have the same
            with replacing(Path(out) / "adapter") as part:
                trained.save_pretrained(part)
        trained.merge_and_unload()
    model.requires_grad_(True)
