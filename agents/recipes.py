"""The two recipes of training: the paper's, for 7B, and one that fits the time of two cores, for the micro model."""

from dataclasses import dataclass, fields
from typing import Any, Literal

from pixel_env.rewards import ALPHA, BETA, LIMIT, THRESHOLD


@dataclass(frozen=True)
class Recipe:
    """What a run does unless its command line says otherwise; `train_vlm.py --help` explains each by its name."""

    preset: str
    crop_padding: float
    demonstrations: int
    epochs: int
    learning_rate: float
    batch_size: int
    accumulation: int
    freeze_vision: bool
    rl_steps: int
    prompts: int
    rl_learning_rate: float
    schedule: Literal["constant", "linear", "cosine"]
    rl_batch_size: int
    rl_freeze_vision: bool
    temperature: float
    scale_rewards: Literal["group", "batch", "none"]
    uniform_groups: Literal["keep", "drop", "replay"]
    batch_episodes: int
    max_new_tokens: int
    max_completion_tokens: int
    group_size: int = 8
    updates: int = 1
    alpha: float = ALPHA
    beta: float = BETA
    threshold: float = THRESHOLD
    limit: int = LIMIT
    kl: float = 0.0


RECIPES: dict[str, Recipe] = {
    "micro": Recipe(
        preset="micro",
        crop_padding=0.04,
        demonstrations=3200,
        epochs=1,
        learning_rate=5e-4,
        batch_size=16,
        accumulation=1,
        freeze_vision=True,
        rl_steps=36,
        prompts=16,
        rl_learning_rate=1e-4,
        schedule="linear",
        rl_batch_size=16,
        rl_freeze_vision=True,
        temperature=0.7,
        scale_rewards="batch",
        uniform_groups="keep",
        batch_episodes=128,
        max_new_tokens=160,
        max_completion_tokens=1024,
    ),
    # arXiv 2505.15966v3, section 5 and appendix C.3: 5,500 demonstrations that look and 2,000 that do not, in batches
    # of 128; RL in batches of 256 rollouts, 8 a query, about 500 gradient steps; selective sample replay. Differs:
    # rollouts are new in each step, where the paper makes 16 steps of 512 queries. Not in the paper: epochs,
    # temperature, and the sizes of passes; the limits of tokens are near those of the release.
    "paper": Recipe(
        preset="standard",
        crop_padding=0.0,
        demonstrations=7500,
        epochs=2,
        learning_rate=1e-6,
        batch_size=1,
        accumulation=128,
        freeze_vision=False,
        rl_steps=500,
        prompts=32,
        rl_learning_rate=1e-6,
        schedule="cosine",
        rl_batch_size=1,
        rl_freeze_vision=False,
        temperature=1.0,
        scale_rewards="group",
        uniform_groups="replay",
        batch_episodes=16,
        max_new_tokens=1024,
        max_completion_tokens=10_000,
    ),
}


def complete(given: dict[str, Any], recipe: str | None) -> dict[str, Any]:
    """Fill in what was not given.

    Args:
        given: Settings by name; None for those that follow from the recipe.
        recipe: Its name; None: the one for the given preset, else micro.

    >>> values = dict.fromkeys(RECIPES["paper"].__dict__) | {"epochs": 3}
    >>> [complete(values, "paper")[name] for name in ("preset", "epochs", "prompts")]
    ['standard', 3, 32]
    """
    if recipe is None:
        recipe = next((name for name, one in RECIPES.items() if one.preset == given["preset"]), "micro")
    chosen = RECIPES[recipe]
    return given | {field.name: getattr(chosen, field.name) for field in fields(chosen) if given[field.name] is None}


def by_recipe(name: str) -> str:
    """Say what a setting is in each recipe, for the help.

    >>> by_recipe("prompts"), by_recipe("group_size"), by_recipe("freeze_vision")
    ('16 for micro, 32 for paper', '8', 'yes for micro, no for paper')
    """
    said = {recipe: _in_words(getattr(values, name)) for recipe, values in RECIPES.items()}
    different = len(set(said.values())) > 1
    return ", ".join(f"{value} for {recipe}" for recipe, value in said.items()) if different else said["micro"]


def _in_words(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else format(value, "g")
