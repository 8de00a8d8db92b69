"""From the rollouts of groups to rewards and to the figures of a training step; plain numbers, no tensors.

A group may straddle processes, so everything here is computed from columns that have been gathered from all of them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from agents.transcript import Sample
from pixel_env.rewards import shaped_rewards
from pixel_env.settings import RewardSettings

TERMS = ("correctness", "curiosity", "operation_penalty")
"""The addends of the reward, in the order of its columns."""

COLUMNS = (
    "correct", "used", "operations", "errors", "video", "broken", "cut", "truncated", "turns", "malformed", "needed",
    "written", "negative_logp", "repaired", "cue_known", "cue_shown",
)  # fmt: skip
"""What is said of a rollout; see `columns`."""

Table = Mapping[str, NDArray[np.float64]]


def columns(samples: Sequence[Sample], videos: Sequence[bool]) -> NDArray[np.float64]:
    """Return (N, len(COLUMNS)): one row a rollout.

    Args:
        samples: the rollouts.
        videos: whether the task of each is about a video.
    """
    return np.array([_row(sample, video) for sample, video in zip(samples, videos, strict=True)], np.float64)


def _row(sample: Sample, video: bool) -> list[float]:
    trajectory = sample.trajectory
    worked = [turn.operation_error is None for turn in trajectory.turns if turn.operation or turn.operation_error]
    coverage = trajectory.cue_coverage if trajectory.used_operation else None
    row = {
        "correct": trajectory.correct,
        "used": trajectory.used_operation,
        "operations": trajectory.num_operations,
        "errors": trajectory.num_errors,
        "video": video,
        "broken": trajectory.error is not None,
        "cut": sample.cut,
        "truncated": trajectory.truncated,
        "turns": len(trajectory.turns),
        "malformed": sum(turn.malformed for turn in trajectory.turns),
        "needed": bool(trajectory.needs_operation),
        "written": sum(sample.policy_mask),
        "negative_logp": -sum(sample.logps),
        "repaired": False in worked and any(worked[worked.index(False) :]),
        "cue_known": coverage is not None,
        "cue_shown": coverage or 0.0,
    }
    return [float(row[name]) for name in COLUMNS]


def table(rows: NDArray[np.float64]) -> Table:
    """Name the columns of (N, len(COLUMNS)) rows."""
    return dict(zip(COLUMNS, rows.T, strict=True))


def group_rewards(rollouts: Table, group_size: int, settings: RewardSettings) -> NDArray[np.float64]:
    """Return the terms of the reward, (N, len(TERMS)), RaPR taken over each group.

    A rollout that broke off without fault of the policy (a file that cannot be decoded) is not scored: its row is NaN,
    and the rest of its group is a smaller group.

    Args:
        rollouts: columns of (N,), groups contiguous.
        group_size: G; N is a multiple of it.
        settings: alpha, beta, H, N and the variant.

    >>> rows = {name: np.zeros(8) for name in COLUMNS}
    >>> rows["correct"][:2], rows["used"][0], rows["operations"][0] = 1, 1, 2
    >>> group_rewards(rows, 8, RewardSettings()).sum(axis=1).round(4).tolist()
    [1.0375, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    total = len(rollouts["correct"])
    if group_size < 1 or total % group_size:
        raise ValueError(f"expected whole groups of {group_size}, got {total} rollouts")
    rewards = np.full((total, len(TERMS)), np.nan)
    for start in range(0, total, group_size):
        rows = np.arange(start, start + group_size)
        rows = rows[rollouts["broken"][rows] == 0]
        if len(rows):
            terms = shaped_rewards(
                rollouts["correct"][rows],
                rollouts["used"][rows],
                rollouts["operations"][rows].astype(int),
                alpha=settings.alpha,
                beta=settings.beta,
                threshold=settings.threshold,
                limit=settings.limit,
                variant=settings.reward_variant,
                is_video=bool(rollouts["video"][start]),
            )
            rewards[rows] = np.stack([terms[name] for name in TERMS], axis=1)
    return rewards


def step_metrics(rollouts: Table, rewards: NDArray[np.float64], group_size: int) -> dict[str, float]:
    """Return the figures of one training step; those that mean nothing in it (no operation called) are left out.

    Args:
        rollouts: columns of (N,), groups contiguous.
        rewards: what `group_rewards` made of them.
        group_size: G.
    """
    scored = rollouts["broken"] == 0
    needed = scored & (rollouts["needed"] == 1)
    groups = [group[~np.isnan(group)] for group in rewards.sum(axis=1).reshape(-1, group_size)]
    uniform = sum(len(group) == 0 or np.ptp(group) < 1e-6 for group in groups)
    metrics = {name: float(rewards[scored, k].mean()) for k, name in enumerate(TERMS) if scored.any()}
    failed, looked = rollouts["errors"] > 0, scored & (rollouts["used"] == 1)
    textual = scored & (rollouts["used"] == 0)
    ratios = {
        "correctness_pixel": (rollouts["correct"][looked].sum(), looked.sum()),
        "correctness_textual": (rollouts["correct"][textual].sum(), textual.sum()),
        "rapr": (rollouts["used"][scored].sum(), scored.sum()),
        "rapr_needed": (rollouts["used"][needed].sum(), needed.sum()),
        "operations": (rollouts["operations"].sum(), len(scored)),
        "operation_errors": (rollouts["errors"].sum(), len(scored)),
        "operation_error_rate": (rollouts["errors"].sum(), rollouts["operations"].sum()),
        "repair_rate": (rollouts["repaired"].sum(), failed.sum()),
        "cue_coverage": (rollouts["cue_shown"].sum(), rollouts["cue_known"].sum()),
        "turns": (rollouts["turns"].sum(), len(scored)),
        "malformed_rate": (rollouts["malformed"].sum(), rollouts["turns"].sum()),
        "truncation_rate": (rollouts["truncated"].sum(), len(scored)),
        "cut_rate": (rollouts["cut"].sum(), len(scored)),
        "broken_rate": (rollouts["broken"].sum(), len(scored)),
        "tokens_per_rollout": (rollouts["written"].sum(), len(scored)),
        # Drawn at the temperature of the rollouts: the mean of -log p of the drawn tokens estimates the entropy.
        "entropy": (rollouts["negative_logp"].sum(), rollouts["written"].sum()),
        "uniform_groups": (uniform, len(groups)),
    }
    return metrics | {name: float(part / whole) for name, (part, whole) in ratios.items() if whole}
