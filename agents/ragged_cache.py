"""Keys and values of conversations that share prompts and grow by pieces of different length.

A prompt is kept once for all the rows that share it. What follows is kept row by row, without holes: the next token of
a row goes right behind its last one, wherever the other rows are. Attention over the two parts is that of the plain
model, only ordered differently; the module plugs in where transformers looks attention functions up.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

ATTENTION = "ragged_rows"
"""Name under which transformers finds the attention of this cache."""

SLOTS = 128
"""Slots are added this many at a time."""

PARTS, WORTH = 3, 16
"""A step reads the rows in at most so many parts, and takes another one where it saves a sixteenth of the slots."""

Attend = Callable[[torch.Tensor, float], torch.Tensor]


def _attention(module: Any, query: Attend, key: Attend, value: Any, mask: Any, scaling: float, **_: Any) -> Any:
    """Attention function of transformers: `key` is what `RaggedCache.update` returned."""
    return key(query, scaling), None  # type: ignore[arg-type]


AttentionInterface.register(ATTENTION, _attention)


@contextmanager
def ragged_attention(language_model: Any) -> Iterator[None]:
    """Let the language model attend through `RaggedCache`."""
    config, training = language_model.config, language_model.training
    before = config._attn_implementation
    config._attn_implementation = ATTENTION
    language_model.eval()  # gradient checkpointing, on only while training, would drop the cache
    try:
        yield
    finally:
        config._attn_implementation = before
        language_model.train(training)


class _Layer:
    """Tensors of one layer: the prompts (U, H, P, D) and what follows, row by row (N, H, slots, D)."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, rows: int) -> None:
        self.prompt = keys, values
        self.own = tuple(t.new_zeros(rows, t.shape[1], 0, t.shape[3]) for t in (keys, values))

    def grow(self, slots: int) -> None:
        """Make room. New slots are zeros: a masked slot still takes part, with weight 0, and 0 * nan is nan."""
        self.own = tuple(
            torch.cat([t, t.new_zeros(*t.shape[:2], slots - t.shape[2], t.shape[3])], dim=2) for t in self.own
        )


class RaggedCache:
    """The cache of N rows in U groups, each with its own prompt.

    Attributes:
        lengths: (N,) tokens a row has behind its prompt.
    """

    def __init__(self, prompt_lengths: torch.Tensor, group: torch.Tensor) -> None:
        """Begin empty.

        Args:
            prompt_lengths: (U,) tokens of each prompt.
            group: (N,) the prompt of each row, 0-based.
        """
        self.prompt_lengths, self.group = prompt_lengths, group
        self.lengths = torch.zeros_like(group)
        self._layers: list[_Layer] = []
        self._slots = 0
        self._mode: Callable[..., torch.Tensor] = self._prefill
        self._parts: list[slice] = []
        self._arrange()

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any) -> tuple[Attend, None]:
        """Called by every layer with its new keys and values (B, H, Q, D); returns what `_attention` calls."""
        keys = keys.to(values.dtype)  # autocast leaves rotated ones in 32 bits
        if layer == len(self._layers):
            self._layers.append(_Layer(keys, values, len(self.group)))
        return partial(self._mode, self._layers[layer], keys, values), None

    def begin_extension(self, rows: torch.Tensor, added: torch.Tensor, longest: int) -> None:
        """The next forward pass appends right-padded pieces (R, longest) to `rows`, `added` (R,) tokens of each."""
        start = self.lengths[rows]
        self._reserve(int(start.max()) + longest)
        slots = start[:, None] + torch.arange(longest, device=start.device)
        high = int(slots.max()) + 1
        visible = torch.cat([self._prompt_mask[rows, None].expand(-1, longest, -1), _below(slots + 1, high)], dim=2)
        self._mode = partial(self._extend, rows, slots, visible[:, None], high)
        self.lengths[rows] = start + added
        self._parts = []

    def begin_step(self, active: torch.Tensor) -> None:
        """The next forward pass feeds one token to every row; only that of `active` (N,) bool rows is kept."""
        lengths = [length + 1 for length in self.lengths.tolist()]
        self._reserve(max(lengths))
        self._parts = self._parts or _alike(lengths)
        parts = []
        for part in self._parts:
            high = max(lengths[part])
            parts.append((part, high, _additive(_below(self.lengths[part] + 1, high))))
        self._mode = partial(self._step, self.lengths.clone(), _additive(self._prompt_table_mask), parts)
        self.lengths += active

    def keep(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order, and their prompts. Steps read less where neighbours are of like length."""
        groups, self.group = self.group[rows].unique(return_inverse=True)
        for layer in self._layers:
            layer.own = layer.own[0][rows], layer.own[1][rows]
            if len(groups) < len(self.prompt_lengths):
                layer.prompt = layer.prompt[0][groups], layer.prompt[1][groups]
        self.prompt_lengths, self.lengths = self.prompt_lengths[groups], self.lengths[rows]
        self._arrange()

    def _arrange(self) -> None:
        """Give every row its place in a (U, largest group) table, and mark the real tokens of its prompt."""
        sizes = self.group.bincount(minlength=len(self.prompt_lengths))
        first, order = sizes.cumsum(0) - sizes, self.group.argsort(stable=True)
        self._widest = int(sizes.max()) if len(sizes) else 0
        rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        self._place = self.group * self._widest + rank - first[self.group]
        self._parts = []
        length = self._layers[0].prompt[0].shape[2] if self._layers else int(self.prompt_lengths.max())
        self._prompt_table_mask = _below(self.prompt_lengths, length)
        self._prompt_mask = self._prompt_table_mask[self.group]

    def _reserve(self, slots: int) -> None:
        if slots > self._slots:
            self._slots = -(-slots // SLOTS) * SLOTS
            for layer in self._layers:
                layer.grow(self._slots)

    def _prefill(self, layer: _Layer, keys: Any, values: Any, query: torch.Tensor, scaling: float) -> torch.Tensor:
        """Prompts, right-padded: no real token looks at padding, which comes later."""
        gqa = query.shape[1] != keys.shape[1]
        out = scaled_dot_product_attention(query, keys, values, is_causal=True, scale=scaling, enable_gqa=gqa)
        return out.transpose(1, 2)

    def _extend(
        self,
        rows: torch.Tensor,
        slots: torch.Tensor,
        visible: torch.Tensor,
        high: int,
        layer: _Layer,
        keys: torch.Tensor,
        values: torch.Tensor,
        query: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """Pieces of some rows (R, H, Q, D); padding writes where the next token will overwrite it."""
        both: list[torch.Tensor] = []
        for own, prompt, new in zip(layer.own, layer.prompt, (keys, values), strict=True):
            own[rows[:, None], :, slots] = new.transpose(1, 2)
            both.append(torch.cat([prompt[self.group[rows]], own[rows, :, :high]], dim=2))
        # No fused kernel of a GPU takes a mask and heads that share keys: torch would write all scores out.
        shared = query.shape[1] // keys.shape[1]
        k, v = (part[:, :, None].expand(-1, -1, shared, -1, -1).flatten(1, 2) for part in both)
        out = scaled_dot_product_attention(query, k, v, attn_mask=visible, scale=scaling)
        return out.transpose(1, 2)

    def _step(
        self,
        slots: torch.Tensor,
        prompt_mask: torch.Tensor,
        parts: Sequence[tuple[slice, int, torch.Tensor]],
        layer: _Layer,
        keys: torch.Tensor,
        values: torch.Tensor,
        query: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """One token of every row (N, heads, 1, D): the rows of a group read their prompt together.

        Attention over both parts is the mean of that over each, weighted by its share of the softmax's sum.
        """
        every = torch.arange(len(slots), device=slots.device)
        for kept, new in zip(layer.own, (keys, values), strict=True):
            kept[every, :, slots] = new[:, :, 0]
        query = query.to(keys.dtype).unflatten(1, (keys.shape[1], -1))[:, :, :, 0]  # (N, H, heads / H, D)
        prompt_keys, prompt_values = layer.prompt
        shared, shared_sum = _attend(self._spread(query), prompt_keys, prompt_values, prompt_mask, scaling)
        shared, shared_sum = self._gather(shared), self._gather(shared_sum)
        own_keys, own_values = layer.own
        found = [
            _attend(query[part], own_keys[part, :, :high], own_values[part, :, :high], mask, scaling)
            for part, high, mask in parts
        ]
        own, own_sum = (torch.cat(each) for each in zip(*found, strict=True))
        share = torch.sigmoid(shared_sum - own_sum).to(own.dtype)
        return torch.lerp(own, shared, share).flatten(1, 2)[:, None]

    def _spread(self, rows: torch.Tensor) -> torch.Tensor:
        """(N, H, R, X) to (U, H, widest * R, X): the rows of a group under each other."""
        table = rows.new_zeros(len(self.prompt_lengths) * self._widest, *rows.shape[1:])
        table[self._place] = rows
        return table.unflatten(0, (-1, self._widest)).transpose(1, 2).flatten(2, 3)

    def _gather(self, table: torch.Tensor) -> torch.Tensor:
        """The reverse of `_spread`."""
        return table.unflatten(2, (self._widest, -1)).transpose(1, 2).flatten(0, 1)[self._place]


def _alike(lengths: Sequence[int]) -> list[slice]:
    """Split rows where fewer slots are read if each part reads no more than its longest row has.

    >>> _alike([9] * 10 + [3] * 30), _alike([9, 8, 8, 9])
    ([slice(0, 10, None), slice(10, 40, None)], [slice(0, 4, None)])
    """
    parts = [slice(0, len(lengths))]
    while len(parts) < PARTS:
        found = []
        for k, part in enumerate(parts):
            of = np.array(lengths[part])
            left, right = np.maximum.accumulate(of), np.maximum.accumulate(of[::-1])[::-1]
            counts = np.arange(1, len(of))
            saved = len(of) * of.max() - counts * left[:-1] - (len(of) - counts) * right[1:]
            if len(saved):
                found.append((int(saved.max()), k, part.start + 1 + int(saved.argmax())))
        saving, k, at = max(found, default=(0, 0, 0))
        if saving * WORTH < len(lengths) * max(lengths):
            break
        parts[k : k + 1] = slice(parts[k].start, at), slice(at, parts[k].stop)
    return parts


def _attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention (B, H, Q, D) and the logarithm of the softmax's sum (B, H, Q, 1); `mask` is added to the scores."""
    if query.device.type != "cpu":
        return _attend_in_steps(query, keys, values, mask, scaling)
    out, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, keys, values, attn_mask=mask.to(query.dtype), scale=scaling
    )
    return out, total[..., None]


def _attend_in_steps(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same where there is no fused attention that tells the sum."""
    scores = (query @ keys.transpose(2, 3) * scaling + mask).float()
    total = scores.logsumexp(-1, keepdim=True)
    return (scores - total).exp().to(query.dtype) @ values, total


def _additive(visible: torch.Tensor) -> torch.Tensor:
    """What to add to scores (B, 1, 1, length) so that only what is visible (B, length) bool counts."""
    return torch.zeros(visible.shape, device=visible.device).masked_fill_(~visible, -torch.inf)[:, None, None]


def _below(limits: torch.Tensor, length: int) -> torch.Tensor:
    """(..., length) bool: position < limit."""
    return torch.arange(length, device=limits.device) < limits[..., None]
