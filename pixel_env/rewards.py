r"""The reward of Pixel Reasoner (arXiv 2505.15966, section 4), one pure function per term.

    r'(x, y) = r(x, y) + alpha * max(H - RaPR(x), 0) * 1_PR(y) + beta * min(N - n_vo(y), 0)

x is a task, y one of the G responses to it; r is 1 for a correct answer, else 0; 1_PR(y) is 1 if y looked again at the
pixels (at least one operation that succeeded); RaPR(x), the rate of pixel-space reasoning, is the mean of 1_PR over the
G responses; n_vo(y) counts the operations of y, failed ones included. Paper: alpha 0.5, beta 0.05, H 0.3, N 1, G 8.

The functions do not look at episodes: whoever calls them decides what counts as used and as an operation.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

ALPHA, BETA, THRESHOLD, LIMIT = 0.5, 0.05, 0.3, 1  # the paper's constants, appendix C.3

Variant = Literal["paper", "released"]
VARIANTS: tuple[Variant, ...] = ("paper", "released")

Rewards = NDArray[np.float64]


def correctness(correct: bool) -> float:
    """Return r: 1.0 for a correct answer, else 0.0 (no answer included).

    Differs from the release, which gives -1 when no answer can be found: here a malformed turn only costs a turn.
    """
    return 1.0 if correct else 0.0


def rapr(used: ArrayLike) -> float:
    """Return the rate of pixel-space reasoning of one group: RaPR(x) = mean of 1_PR(y).

    Args:
        used: (G,) bool, whether each response used an operation that succeeded.

    >>> rapr([True, False, False, False])
    0.25
    """
    return float(_flags(used, "used").mean())


def curiosity(used: ArrayLike, alpha: float = ALPHA, threshold: float = THRESHOLD) -> Rewards:
    """Return alpha * max(H - RaPR(x), 0) * 1_PR(y), the bonus for looking while few do (arXiv 2505.15966, section 4).

    Args:
        used: (G,) bool, the responses to one task.
        alpha: weight of the bonus.
        threshold: H, the wanted rate.

    Returns:
        (G,) float64. With G = 8 the one user of a group earns 0.0875, two earn 0.025 each, three or more nothing.

    >>> [round(float(curiosity(np.arange(8) < users)[0]), 4) for users in (1, 2, 3)]
    [0.0875, 0.025, 0.0]
    >>> curiosity([True, False, False, False, False, False, False, False])[1:].tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    flags = _flags(used, "used")
    return alpha * max(threshold - float(flags.mean()), 0.0) * flags


def curiosity_released(used: ArrayLike, is_video: bool, threshold: float = THRESHOLD) -> Rewards:
    """Return the bonus as the released training code computes it (TIGER-AI-Lab/Pixel-Reasoner, experience_maker.py).

    max(H - RaPR, 0) / c / RaPR * 0.25 * 1_PR(y), with c = 2 for images and 1.5 for videos; all 0 when nobody looked.
    Differs from the paper: divided by RaPR, with constants that depend on the medium. The release also counts
    operations that failed as used.

    Args:
        used: (G,) bool, the responses to one task.
        is_video: whether the task is about a video.
        threshold: H, the wanted rate.

    Returns:
        (G,) float64.

    >>> [round(float(curiosity_released(np.arange(8) < users, is_video=False)[0]), 4) for users in (1, 2, 3)]
    [0.175, 0.025, 0.0]
    >>> [round(float(curiosity_released(np.arange(8) < users, is_video=True)[0]), 4) for users in (1, 2, 3)]
    [0.2333, 0.0333, 0.0]
    """
    flags = _flags(used, "used")
    rate = float(flags.mean())
    if rate == 0.0:
        return np.zeros_like(flags)
    return max(threshold - rate, 0.0) / (1.5 if is_video else 2.0) / rate * 0.25 * flags


def operation_penalty(num_operations: ArrayLike, beta: float = BETA, limit: int = LIMIT) -> Rewards:
    """Return beta * min(N - n_vo(y), 0), the price of every operation beyond the limit (arXiv 2505.15966, section 4).

    Args:
        num_operations: int or (G,) int, n_vo: operations called, failed ones included.
        beta: price of one operation.
        limit: N, the number that is free.

    Returns:
        float64 of the same shape, zero or negative.

    >>> operation_penalty([0, 1, 2, 4]).round(2).tolist()
    [0.0, 0.0, -0.05, -0.15]
    >>> float(operation_penalty(3))
    -0.1
    """
    counts = np.asarray(num_operations)
    if counts.ndim > 1 or not np.issubdtype(counts.dtype, np.integer) or (counts < 0).any():
        raise ValueError(f"expected num_operations as one count or (G,) counts of at least 0, got {num_operations!r}")
    return beta * np.minimum(limit - counts, 0) + 0.0  # + 0.0 turns -0.0 into 0.0


def shaped_rewards(
    correct: ArrayLike,
    used: ArrayLike,
    num_operations: Sequence[int] | NDArray[np.integer],
    *,
    alpha: float = ALPHA,
    beta: float = BETA,
    threshold: float = THRESHOLD,
    limit: int = LIMIT,
    variant: Variant = "paper",
    is_video: bool = False,
) -> dict[str, Rewards]:
    """Return the named terms of r' for the G responses to one task; their sum is the reward.

    Args:
        correct: (G,) bool, whether the answer was right.
        used: (G,) bool, whether an operation succeeded.
        num_operations: (G,) int, operations called.
        alpha: weight of the bonus; the released variant has its own constants and ignores it.
        beta: price of an operation beyond `limit`.
        threshold: H, the wanted rate of pixel-space reasoning.
        limit: N, operations that are free.
        variant: "paper" or "released".
        is_video: whether the task is about a video; only the released variant cares.

    Returns:
        {"correctness", "curiosity", "operation_penalty"}, each (G,) float64.

    >>> terms = shaped_rewards([True, False, False, False], [True, False, False, False], [2, 0, 0, 0])
    >>> {name: round(float(term[0]), 4) for name, term in terms.items()}
    {'correctness': 1.0, 'curiosity': 0.025, 'operation_penalty': -0.05}
    """
    if variant not in VARIANTS:
        raise ValueError(f"expected variant to be one of {VARIANTS}, got {variant!r}")
    terms = {
        "correctness": _flags(correct, "correct"),
        "curiosity": curiosity(used, alpha, threshold)
        if variant == "paper"
        else curiosity_released(used, is_video, threshold),
        "operation_penalty": operation_penalty(num_operations, beta, limit),
    }
    shapes = {name: term.shape for name, term in terms.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"expected correct, used and num_operations of one shape (G,), got {shapes}")
    return terms


def _flags(values: ArrayLike, name: str) -> Rewards:
    """Return (G,) float64 zeros and ones, or raise."""
    flags = np.asarray(values)
    if flags.ndim != 1 or flags.size == 0:
        raise ValueError(f"expected {name} of shape (G,) with G at least 1, got shape {flags.shape}")
    if not np.isin(flags, (0, 1)).all():
        raise ValueError(f"expected {name} to hold only True and False, got {flags.tolist()}")
    return flags.astype(np.float64)
