"""Rollouts of a task in one row, so that a forward pass reads their common prompt once.

A row holds the prompt without its last token, then of each rollout that token and what follows. A rollout attends to
the prompt and to itself, at the positions that it has alone: its log-probabilities are those of a row of its own. Of 8
rollouts that are a quarter as long as their prompt, 3 tokens in 10 are left, and no rollout is multiplied with another.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from agents.examples import IGNORED

ATTENTION = "shared_prompts"
"""Name under which transformers finds the attention to `Branches`; to anything else it is that of "sdpa"."""


@dataclass(frozen=True)
class Branches:
    """Takes the place of an attention mask: each row is a prompt, from which rollouts branch off.

    Attributes:
        sizes: Of each row, tokens of the prompt, of each rollout, and of the padding.
        hidden: (C, P + C) float for the longest rollout and prompt, -inf where a token does not look: among the tokens
            of the prompt, then those of its rollout.
    """

    sizes: Sequence[Sequence[int]]
    hidden: torch.Tensor

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
        """Attention of queries (Q, H, T, D) to keys and values (Q, H, T, D); returns (Q, T, H, D)."""
        longest, rows = self.hidden.shape[1] - self.hidden.shape[0], []
        hidden = self.hidden.to(query.dtype)
        for sizes, *row in zip(self.sizes, query.split(1), key.split(1), value.split(1), strict=True):
            (prompt, *queries, padding), (first_key, *keys, _), (first_value, *values, _) = (
                part.split(sizes, dim=2) for part in row
            )
            out = [scaled_dot_product_attention(prompt, first_key, first_value, is_causal=True, **options)]
            for size, q, k, v in zip(sizes[1:-1], queries, keys, values, strict=True):
                seen, read = torch.cat([first_key, k], dim=2), torch.cat([first_value, v], dim=2)
                mask = hidden[:size, longest - sizes[0] : longest + size]
                out.append(scaled_dot_product_attention(q, seen, read, mask, **options))
            rows.append(torch.cat([*out, torch.zeros_like(padding)], dim=2))
        return torch.cat(rows).transpose(1, 2)


def _attention(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **rest: Any) -> Any:
    """Attention function of transformers: `mask` is what the model was given, or made of it."""
    if not isinstance(mask, Branches):
        return sdpa_attention_forward(module, query, key, value, mask, scaling=scaling, **rest)
    # No fused kernel of a GPU takes a mask and heads that share keys: torch would write all scores out.
    shared = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(shared, dim=1) if shared > 1 else part for part in (key, value))
    return mask.attend(query, key, value, scale=scaling, dropout_p=rest.get("dropout", 0.0)), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def let_share(model: Any) -> bool:
    """Let a Qwen2.5-VL attend to `Branches`, if its attention is that of torch; returns whether it does."""
    config = model.model.language_model.config
    if config._attn_implementation == "sdpa":
        config._attn_implementation = ATTENTION
    return bool(config._attn_implementation == ATTENTION)


@dataclass(frozen=True)
class SharedPrompts:
    """Rollouts in rows that share prompts.

    Attributes:
        inputs: For the forward pass of a Qwen2.5-VL, with `shift_labels` (Q, T): the token behind each one that is
            scored, else -100.
        source: (Q, T) int64, where each token lies among those of the rollouts, row by row.
    """

    inputs: dict[str, Any]
    source: torch.Tensor

    def of_rollouts(self, values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Put values (Q, T) of the labels where these lie in rollouts (B, W) `like` these; 0 elsewhere."""
        scored = self.inputs["shift_labels"] != IGNORED
        flat = values.new_zeros(like.numel()).index_put((self.source[scored] + 1,), values[scored])
        return flat.view(like.shape)


def share_prompts(
    ids: torch.Tensor,
    mask: torch.Tensor,
    width: int,
    types: torch.Tensor,
    pixels: torch.Tensor,
    grid: torch.Tensor,
    images: Sequence[int],
    positions: Callable[..., tuple[torch.Tensor, Any]],
    merge: int,
) -> SharedPrompts | None:
    """Put neighbours with the same prompt into one row.

    Args:
        ids: (B, W) int64, prompts padded on the left, the last `width` tokens on the right.
        mask: (B, W), 1 on tokens.
        width: Tokens behind the prompts.
        types: (B, W), 1 on tokens of images.
        pixels: (N, D) patches of all images, rollout by rollout, in the order of their tokens.
        grid: (I, 3) int64, patches of each image in time, height and width.
        images: Number of images of each rollout.
        positions: `get_rope_index` of the model.
        merge: Patches of an image that make one token.

    Returns:
        None where no neighbours share a prompt.
    """
    length, grids = ids.shape[1], grid.split(list(images))
    prompt = length - width
    views = pixels.split([int(one.prod(1).sum()) for one in grids])
    shown = [merge * count for count in types[:, :prompt].sum(1).tolist()]  # patches of the prompt's images

    def same(one: int, other: int) -> bool:
        alike = all(torch.equal(of[one, :prompt], of[other, :prompt]) for of in (ids, mask, types))
        return alike and torch.equal(views[one][: shown[one]], views[other][: shown[other]])

    if len(groups := _neighbours(len(ids), same)) == len(ids):
        return None

    sources, labels = list[torch.Tensor](), list[torch.Tensor]()
    kept_views, kept_grids = list[torch.Tensor](), list[torch.Tensor]()
    sizes = list[list[int]]()
    begins, ends = prompt - mask[:, :prompt].sum(1), prompt + mask[:, prompt:].sum(1)
    for group in groups:
        first, begin = group[0], int(begins[group[0]])
        spans = [(first, begin, prompt - 1), *((row, prompt - 1, int(ends[row])) for row in group)]
        sources.append(torch.cat([torch.arange(row * length + a, row * length + b) for row, a, b in spans]))
        nothing, last = ids.new_full((prompt - 1 - begin,), IGNORED), ids.new_full((1,), IGNORED)
        labels.append(torch.cat([nothing, *(part for row, _, b in spans[1:] for part in (ids[row, prompt:b], last))]))
        sizes.append([b - a for _, a, b in spans])
        of_prompt = int((grids[first].prod(1).cumsum(0) <= shown[first]).sum())
        kept_views += [views[first][: shown[first]], *(views[row][shown[row] :] for row in group)]
        kept_grids += [grids[first][:of_prompt], *(grids[row][of_prompt:] for row in group)]

    source = pad_sequence(sources, True).to(ids.device)
    position, _ = positions(ids, types, image_grid_thw=grid, attention_mask=mask)
    inputs = {
        "input_ids": ids.flatten()[source],
        "attention_mask": {"full_attention": _branches(sizes, ids.device)},
        "position_ids": position.flatten(1)[:, source],
        "mm_token_type_ids": types.flatten()[source],
        "pixel_values": torch.cat(kept_views),
        "image_grid_thw": torch.cat(kept_grids),
        "shift_labels": pad_sequence(labels, True, IGNORED),
    }
    return SharedPrompts(inputs, source)


def _branches(sizes: Sequence[Sequence[int]], device: torch.device) -> Branches:
    """Rows of so many tokens: of the prompt, then of each rollout."""
    total, prompt = max(map(sum, sizes)), max(row[0] for row in sizes)
    longest = max(size for row in sizes for size in row[1:])
    later = torch.full((longest, longest), -torch.inf, device=device).triu(1)
    hidden = torch.cat([later.new_zeros(longest, prompt), later], dim=1)
    return Branches([[*row, total - sum(row)] for row in sizes], hidden)


def _neighbours(count: int, same: Callable[[int, int], bool]) -> list[list[int]]:
    """Split the numbers below `count` into runs that are the `same` as their first.

    >>> _neighbours(5, lambda one, other: "aabba"[one] == "aabba"[other])
    [[0, 1], [2, 3], [4]]
    """
    runs: list[list[int]] = []
    for number in range(count):
        if runs and same(runs[-1][0], number):
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs
