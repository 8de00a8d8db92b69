"""What a Qwen2.5-VL has to compute and to move, counted from its configuration, and what a device was seen to do.

FLOP: a multiplication and an addition are two. Matrix products and attention scores are counted, nothing else; a token
takes part in 2 FLOP a weight forwards, and in 4 more backwards where that weight is trained (6 N a token). What
gradient checkpointing computes twice counts once. The output head is counted for the tokens whose logits are needed.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

Grid = tuple[int, int]
"""Rows and columns of patches of a view."""

DATASHEET = {"H100": (989e12, 3.35e12), "H200": (989e12, 4.8e12)}
"""FLOP/s in bfloat16, dense, and bytes/s of memory of the SXM modules, from NVIDIA's data sheets."""


def causal(length: int) -> int:
    """Pairs of a token and what it attends to, itself included, in a sequence of this length."""
    return length * (length + 1) // 2


def layer_weights(config: Any) -> int:
    """Weights of the matrix products of all layers of the language model."""
    text = config.text_config
    hidden, share = text.hidden_size, text.num_key_value_heads / text.num_attention_heads
    attention = round(hidden * hidden * (2 + 2 * share))
    return text.num_hidden_layers * (attention + 3 * hidden * text.intermediate_size)


def head_weights(config: Any) -> int:
    """Weights of the output head, also where it shares them with the embedding."""
    return config.text_config.vocab_size * config.text_config.hidden_size


def layers_flop(config: Any, tokens: int, pairs: int) -> int:
    """Forward pass of the layers over `tokens`; `pairs` of a token and what it attends to."""
    text = config.text_config
    return 2 * layer_weights(config) * tokens + 4 * text.num_hidden_layers * text.hidden_size * pairs


def vision_flop(config: Any, grids: Iterable[Grid]) -> int:
    """Forward pass of the vision tower over views of these patches."""
    vision, total = config.vision_config, 0
    hidden, merged = vision.hidden_size, vision.hidden_size * vision.spatial_merge_size**2
    whole = len(set(vision.fullatt_block_indexes) & set(range(vision.depth)))
    side = vision.window_size // vision.patch_size
    embedding = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2 * hidden
    block = 4 * hidden * hidden + 3 * hidden * vision.intermediate_size
    merger = merged * merged + merged * vision.out_hidden_size
    for rows, columns in grids:
        patches = rows * columns
        windows = _squares(rows, side) * _squares(columns, side)
        pairs = whole * patches**2 + (vision.depth - whole) * windows
        weights = patches * (embedding + vision.depth * block) + patches // vision.spatial_merge_size**2 * merger
        total += 2 * weights + 4 * hidden * pairs
    return total


def _squares(length: int, part: int) -> int:
    """Sum of the squares of the parts that a length is cut into."""
    return length // part * part**2 + (length % part) ** 2


def training_flop(
    config: Any,
    tokens: int,
    pairs: int,
    scored: int,
    grids: Iterable[Grid],
    trained_layers: int,
    head_trained: bool = True,
    vision_trained: bool = False,
) -> int:
    """Forward and backward pass.

    Args:
        config: Of a Qwen2.5-VL.
        tokens: Of the sequences, without padding.
        pairs: Of a token and one that it attends to, itself included: `causal` of the length of a sequence.
        scored: Tokens whose logits are needed.
        grids: Patches of the views.
        trained_layers: How many of the last layers of the language model learn; nothing goes back further.
        head_trained: Whether the output head learns.
        vision_trained: Whether the vision tower learns.
    """
    layers = layers_flop(config, tokens, pairs)
    share = trained_layers / config.text_config.num_hidden_layers
    head = 2 * head_weights(config) * scored
    vision = vision_flop(config, grids)
    return round(layers * (1 + 2 * share)) + head * (2 + head_trained) + vision * (1 + 2 * vision_trained)


def decoding_bytes(config: Any, kept: Iterable[int], item: int) -> int:
    """Bytes that steps of decoding have to read: all weights once a step, and the keys and values of `kept` tokens.

    Args:
        config: Of a Qwen2.5-VL.
        kept: For each step, tokens in the cache; a prompt that rows share counts once.
        item: Bytes of a number.
    """
    text, kept = config.text_config, list(kept)
    width = text.num_key_value_heads * text.hidden_size // text.num_attention_heads
    weights = layer_weights(config) + head_weights(config)
    return item * (len(kept) * weights + 2 * text.num_hidden_layers * width * sum(kept))


def synchronize(device: torch.device) -> None:
    """Wait for what was started on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(device: torch.device, act: Callable[[], Any], repeats: int = 10) -> float:
    """Mean time of something, after three runs that are not counted."""
    for _ in range(3):
        act()
    synchronize(device)
    begun = time.perf_counter()
    for _ in range(repeats):
        act()
    synchronize(device)
    return (time.perf_counter() - begun) / repeats


def measured_peaks(device: torch.device, dtype: torch.dtype, side: int = 8192, copied: int = 2**32) -> dict[str, Any]:
    """Rate of a matrix product (side, side) of random numbers and of a copy of `copied` bytes, read and written."""
    one, two = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(one)
    product = _seconds(device, lambda: torch.mm(one, two, out=out))
    source = torch.ones(copied // 4, device=device)
    target = torch.empty_like(source)
    copy = _seconds(device, lambda: target.copy_(source))
    peaks: dict[str, Any] = {"matmul_side": side, "flop_per_second": 2 * side**3 / product}
    peaks |= {"copied_bytes": copied, "bytes_per_second": 2 * copied / copy}
    if device.type == "cuda":
        for name, (flop, moved) in DATASHEET.items():
            if name in torch.cuda.get_device_name(device):
                peaks |= {"datasheet_flop_per_second": flop, "datasheet_bytes_per_second": moved}
    return peaks
