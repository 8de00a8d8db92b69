"""The rows of an optimizer step in forward passes of a limited number of tokens, with the gradient of one pass."""

from collections.abc import Callable, Sequence

import torch

from agents.processes import rank_and_count


def token_passes(lengths: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
    """Split rows into passes, longest first: filled up to `tokens`, padding included, with one row at least.

    Args:
        lengths: Tokens of each row, of each part of it that is padded by itself, as a prompt and what follows.
        tokens: Most tokens of a pass: its rows times the sum of its longest parts.

    Returns:
        Indices of the rows of each pass, ascending.

    >>> token_passes([[3], [9], [4], [2], [5]], tokens=10)
    [[1], [2, 4], [0, 3]]
    >>> token_passes([[3, 1], [1, 3]], tokens=11)  # two rows of 3 + 3
    [[0], [1]]
    """
    passes: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -sum(lengths[row])):
        width = (
            sum(map(max, zip(lengths[row], *(lengths[other] for other in passes[-1]), strict=True))) if passes else 0
        )
        if not passes or (len(passes[-1]) + 1) * width > tokens:
            passes.append([])
        passes[-1].append(row)
    return [sorted(rows) for rows in passes]


def pass_by_pass(
    loss_of: Callable[[list[int]], torch.Tensor],
    passes: Sequence[list[int]],
    backward: Callable[[torch.Tensor], None],
) -> torch.Tensor:
    """Sum the losses of passes with the memory of one: each has gone backward before the next begins.

    Args:
        loss_of: Loss of the rows of a pass, as a part of that of the step.
        passes: What `token_passes` returned.
        backward: Adds the gradient of a loss.

    Returns:
        The sum, which still has to go backward: through the last pass.
    """
    *before, last = passes
    done = torch.zeros(())
    for rows in before:
        loss = loss_of(rows)
        backward(loss)
        done = done.to(loss.device) + loss.detach()
    loss = loss_of(last)
    return loss + done.to(loss.device)


def check_one_process() -> None:
    """Raise ValueError among several processes: each would make another number of passes and wait for the others."""
    if rank_and_count()[1] > 1:
        raise ValueError("expected one process with a limit of tokens a pass, got several; give rows a pass instead")
