"""Which rollouts make an optimizer step and its passes, in which order: rows chosen from the inputs of TRL's loss."""

from collections.abc import Mapping
from typing import Any

import torch

OF_COMPLETIONS = (
    "completion_ids", "completion_mask", "tool_mask", "old_per_token_logps", "ref_per_token_logps",
    "sampling_per_token_logps", "importance_sampling_ratio",
)  # fmt: skip
"""Inputs of TRL's loss with one row a rollout and one column a token behind the prompt."""
PER_ROW = (*OF_COMPLETIONS, "prompt_ids", "prompt_mask", "advantages", "mm_token_type_ids", "group")
"""Inputs of TRL's loss with one row a rollout."""


def chosen_rows(inputs: Mapping[str, Any], rows: torch.Tensor) -> dict[str, Any]:
    """Some rows of the inputs of TRL's loss, without the columns that are padding in all of them.

    Args:
        inputs: `prompt_*` are (B, P), padded on the left, the other tokens (B, C), padded on the right;
            `mm_token_type_ids` (B, P + C); `num_images` a list of B, their patches and grids one after another.
        rows: (R,) indices, ascending.
    """
    chosen = dict(inputs) | {name: inputs[name][rows] for name in PER_ROW if inputs.get(name) is not None}
    width = inputs["prompt_ids"].shape[1]
    first = width - int(chosen["prompt_mask"].sum(1).max())
    last = int(chosen["completion_mask"].sum(1).max())
    for name in ("prompt_ids", "prompt_mask"):
        chosen[name] = chosen[name][:, first:]
    for name in OF_COMPLETIONS:
        if chosen.get(name) is not None:
            chosen[name] = chosen[name][:, :last]  # a ratio of whole sequences has one column, which stays
    if inputs.get("image_grid_thw") is not None:
        chosen["mm_token_type_ids"] = chosen["mm_token_type_ids"][:, first : width + last]
        counts = torch.tensor(inputs["num_images"])
        of_row = torch.arange(len(counts)).repeat_interleave(counts)
        image = torch.isin(of_row, rows.cpu()).to(inputs["image_grid_thw"].device)
        patch = image.repeat_interleave(inputs["image_grid_thw"].prod(dim=1))
        chosen["image_grid_thw"], chosen["pixel_values"] = (
            inputs["image_grid_thw"][image],
            inputs["pixel_values"][patch],
        )
        chosen["num_images"] = counts[rows.cpu()].tolist()
    return chosen


def in_order_of_length(rollouts: Mapping[str, Any], updates: int) -> torch.Tensor:
    """Indices (B,) of rollouts for `updates` optimizer steps, groups side by side, as they share their prompts.

    Groups are drawn at random for each step, then those with the most tokens come first.

    Args:
        rollouts: "prompt_mask" (B, P), "completion_mask" (B, C), "group" (B,), "advantages" (B,), of which 0 counts
            for nothing.
        updates: Divides B.
    """
    length = rollouts["prompt_mask"].sum(1) + rollouts["completion_mask"].sum(1)
    counted = (length * (rollouts["advantages"] != 0)).cpu()
    group = rollouts["group"].unique(return_inverse=True)[1].cpu()
    place = torch.randperm(int(group.max()) + 1)[group]
    tokens = torch.zeros(len(counted), dtype=counted.dtype)
    order = []
    for part in place.argsort(stable=True).chunk(updates):
        of_group = tokens.index_add(0, place[part], counted[part])
        order.append(part[of_group[place[part]].argsort(descending=True, stable=True)])
    return torch.cat(order)


def replayed(advantages: torch.Tensor) -> torch.Tensor:
    """Indices (B,) of rollouts in which those without an advantage are replaced by others, drawn by |advantage|.

    Selective sample replay (arXiv 2504.08837) as Pixel Reasoner has it, from a buffer that is emptied each round: what
    is replayed was sampled by the policy that is trained.

    Args:
        advantages: (B,); if all are 0, there is nothing to replay and nothing is replaced.
    """
    rows = torch.arange(len(advantages), device=advantages.device)
    without = (advantages == 0).nonzero()[:, 0]
    if 0 < len(without) < len(rows):
        rows[without] = torch.multinomial(advantages.abs(), len(without), replacement=True)
    return rows


def taken(rollouts: Mapping[str, Any], rows: torch.Tensor) -> dict[str, Any]:
    """The rollouts of these rows, in this order; what is not of a rollout stays."""
    return {
        name: [value[k] for k in rows.tolist()]
        if isinstance(value, list)
        else value[rows]
        if isinstance(value, torch.Tensor) and value.ndim
        else value
        for name, value in rollouts.items()
    }
