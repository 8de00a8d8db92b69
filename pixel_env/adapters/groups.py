"""Terms of the reward of a whole group of responses, where a library lets one see them together."""

from collections.abc import Sequence
from dataclasses import dataclass

from pixel_env.rewards import shaped_rewards
from pixel_env.settings import RewardSettings

TERMS = ("correctness", "curiosity", "operation_penalty")
"""The addends of the reward."""


@dataclass(frozen=True)
class Played:
    """What the reward depends on.

    Attributes:
        correct: The answer is right.
        used: An operation succeeded.
        num_operations: Operations called, failed ones included.
        is_video: The task is about a video.
    """

    correct: bool
    used: bool
    num_operations: int
    is_video: bool


def group_terms(group: Sequence[Played | None], settings: RewardSettings) -> list[dict[str, float] | None]:
    """Return the terms of each response to one task, RaPR taken over the group.

    A response that broke off without fault of the policy is None; it is not scored, and the rest is a smaller group.

    Args:
        group: (G,) responses.
        settings: alpha, beta, H, N and the variant.

    >>> group = [Played(True, True, 2, False), *[Played(False, False, 0, False)] * 7]
    >>> {name: round(term, 4) for name, term in group_terms(group, RewardSettings())[0].items()}
    {'correctness': 1.0, 'curiosity': 0.0875, 'operation_penalty': -0.05}
    """
    whole = [played for played in group if played is not None]
    if not whole:
        return [None for _ in group]
    terms = shaped_rewards(
        [played.correct for played in whole],
        [played.used for played in whole],
        [played.num_operations for played in whole],
        alpha=settings.alpha,
        beta=settings.beta,
        threshold=settings.threshold,
        limit=settings.limit,
        variant=settings.reward_variant,
        is_video=whole[0].is_video,
    )
    rows = iter(zip(*(terms[name].tolist() for name in TERMS), strict=True))
    return [None if played is None else dict(zip(TERMS, next(rows), strict=True)) for played in group]
