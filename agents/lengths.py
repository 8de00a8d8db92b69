"""How long the sequences of a run get, from its settings alone: what memory and time are estimated from.

Pictures are counted at their budget, text by its characters: a plan, not a measurement.
"""

from dataclasses import dataclass

from agents.demonstrations import IMAGE_MIX, LOOKS, NO_CORRECTIONS
from agents.run_settings import TOKEN_PIXELS, Settings
from agents.run_tasks import VIEWS
from pixel_env import prompts
from pixel_env.settings import PRESETS

CHARACTERS = 4
"""Characters of a token in English."""

QUESTION, WRITTEN, REPLY = 100, 100, 60
"""Tokens of a question with its choices, of a turn of a demonstration, and of the text around a crop."""


@dataclass(frozen=True)
class Length:
    """Tokens of a sequence, `pictures` of them those of pictures."""

    tokens: int
    pictures: int


def budgets(settings: Settings) -> tuple[int, int]:
    """Return the most tokens of a first view and of a crop."""
    view, crop = (pixels // TOKEN_PIXELS for pixels in PRESETS[settings.preset])
    return settings.view_tokens or view, settings.crop_tokens or crop


def prompt(settings: Settings) -> Length:
    """Return the length of a first observation, instructions included."""
    view, _ = budgets(settings)
    return Length(len(prompts.instructions("pixel")) // CHARACTERS + QUESTION + view, view)


def demonstration(settings: Settings, looks: float) -> Length:
    """Return the length of a demonstration with so many crops."""
    first, (_, crop) = prompt(settings), budgets(settings)
    tokens = first.tokens + WRITTEN + looks * (WRITTEN + REPLY + crop)
    return Length(round(tokens), round(first.pictures + looks * crop))


def shares(settings: Settings) -> dict[str, float]:
    """Return what share of the demonstrations that are made of images is of each kind that is learned from."""
    made = {kind: (1 - settings.textual_share) * share for kind, share in IMAGE_MIX.items()}
    made["textual"] = settings.textual_share
    return made if settings.corrections else {kind: made[kind] for kind in NO_CORRECTIONS}


def longest_demonstration(settings: Settings) -> Length:
    """Return the length of a demonstration of the kind with most looks."""
    return demonstration(settings, max(len(LOOKS[kind]) for kind in shares(settings)))


def mean_looks(settings: Settings) -> float:
    """Return the mean number of crops over the kinds that are made of images."""
    learned = shares(settings)
    return sum(share * len(LOOKS[kind]) for kind, share in learned.items()) / sum(learned.values())


def mean_demonstration(settings: Settings) -> Length:
    """Return the mean length over the kinds that are made of images."""
    return demonstration(settings, mean_looks(settings))


def longest_rollout(settings: Settings) -> Length:
    """Return the length of a rollout that uses up all its tokens, on pictures as far as its turns allow."""
    first, (_, crop) = prompt(settings), budgets(settings)
    pictures = min(settings.max_completion_tokens, (VIEWS["max_turns"] - 1) * FRAMES * crop)
    return Length(first.tokens + settings.max_completion_tokens, first.pictures + pictures)


FRAMES = 8
"""Most frames that a call can select, each shown as large as a crop."""
