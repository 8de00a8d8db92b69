"""Rollouts of a task in one row, so that a forward pass reads their common prompt once.

A row holds the prompt without its last token, then of each rollout that token and what follows. A rollout attends to
the prompt and to itself, at the positions that it has alone: its log-probabilities are those of a row of its own. Of 8
rollouts that are a quarter as long as their prompt, 3 tokens in 10 are left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from agents.sft import IGNORED

COMMON, PADDING = -1, -2
"""In place of the number of a rollout: the prompt, and what fills up a row."""


@dataclass(frozen=True)
class SharedPrompts:
    """Rollouts in rows that share prompts.

    Attributes:
        inputs: For the forward pass of a Qwen2.5-VL, with `shift_labels` (Q, T): the token behind each one that is
            scored, else -100.
        source: (Q, T) int64, where each token lies among those of the rollouts, row by row.
    """

    inputs: dict[str, torch.Tensor]
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

    sources, rollouts, labels = list[torch.Tensor](), list[torch.Tensor](), list[torch.Tensor]()
    kept_views, kept_grids = list[torch.Tensor](), list[torch.Tensor]()
    ends = prompt + mask[:, prompt:].sum(1)
    for group in groups:
        first = group[0]
        begin = prompt - int(mask[first, :prompt].sum())
        spans = [(first, begin, prompt - 1), *((row, prompt - 1, int(ends[row])) for row in group)]
        sources.append(torch.cat([torch.arange(row * length + a, row * length + b) for row, a, b in spans]))
        rollouts.append(torch.cat([torch.full((b - a,), k) for k, (_, a, b) in enumerate(spans, COMMON)]))
        nothing, last = ids.new_full((prompt - 1 - begin,), IGNORED), ids.new_full((1,), IGNORED)
        labels.append(torch.cat([nothing, *(part for row, _, b in spans[1:] for part in (ids[row, prompt:b], last))]))
        of_prompt = int((grids[first].prod(1).cumsum(0) <= shown[first]).sum())
        kept_views += [views[first][: shown[first]], *(views[row][shown[row] :] for row in group)]
        kept_grids += [grids[first][:of_prompt], *(grids[row][of_prompt:] for row in group)]

    source = pad_sequence(sources, True).to(ids.device)
    rollout = pad_sequence(rollouts, True, PADDING).to(ids.device)
    position, _ = positions(ids, types, image_grid_thw=grid, attention_mask=mask)
    seen = (rollout[:, None] == COMMON) | (rollout[:, None] == rollout[:, :, None])  # (Q, of queries, of keys)
    inputs = {
        "input_ids": ids.flatten()[source],
        "attention_mask": seen.tril()[:, None],
        "position_ids": position.flatten(1)[:, source],
        "mm_token_type_ids": types.flatten()[source],
        "pixel_values": torch.cat(kept_views),
        "image_grid_thw": torch.cat(kept_grids),
        "shift_labels": pad_sequence(labels, True, IGNORED),
    }
    return SharedPrompts(inputs, source)


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
