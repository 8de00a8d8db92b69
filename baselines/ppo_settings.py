"""What a run of PPO depends on, and the command line that sets it. Imports no torch: mistakes are told at once."""

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pixel_env.command_line import Parser, UsageError, parser_of, resumed
from pixel_env.journal import replace_text
from pixel_env.settings import PRESETS
from pixel_env.tasks import LEVELS, MEDIA, SUITES

RUNS = Path("runs/ppo")  # apart from the runs of train_vlm.py, whose --resume takes the newest
ROLLOUT = 128
"""Turns that each environment plays between two updates."""
DEMONSTRATIONS = 24_000
Actions = Literal["grid", "pyramid", "box"]


@dataclass(frozen=True)
class Settings:
    """Everything that a run depends on; written to its config.json. The command line explains each."""

    suite: tuple[str, ...]
    levels: tuple[int, ...]
    preset: str
    actions: Actions
    side: int
    max_turns: int
    curiosity: bool
    demonstrations: int
    steps: int
    envs: int
    learning_rate: float
    entropy: float
    save_steps: int
    test_tasks: int
    seed: int

    def env_kwargs(self, split: str) -> dict[str, Any]:
        """Keyword arguments of the environment for the tasks of a split."""
        return {
            "suite": list(self.suite),
            "difficulty": list(self.levels),
            "split": split,
            "preset": self.preset,
            "max_turns": self.max_turns,
        }


def parser(description: str) -> Parser:
    """Return the command line; `description` is a title and, after an empty line, examples."""
    main = parser_of("baselines/ppo.py", "[options]", description)
    add = main.add_argument
    suites = tuple(SUITES)
    add("--suite", nargs="+", choices=suites, default=("search",), help="suites, mixed (search)")
    add("--levels", nargs="+", type=int, choices=LEVELS, default=(1,), help="difficulties from 0 to 3, mixed (1)")
    add("--preset", choices=tuple(PRESETS), default="micro", help="size of the pictures (%(default)s)")
    add(
        "--actions",
        choices=get_args(Actions),
        default="grid",
        help="places of a grid, discrete steps in a pyramid of boxes, or the corners of a box (%(default)s)",
    )
    add("--side", type=int, default=112, help="of the picture that the network sees, in pixels (%(default)s)")
    add("--max-turns", type=int, default=5, help="turns in an episode (%(default)s)")
    add(
        "--no-curiosity",
        dest="curiosity",
        action="store_false",
        help="no bonus for episodes that look while few do; the price of more than one operation stays",
    )
    add(
        "--demonstrations",
        type=int,
        help=f"training tasks shown by an expert before PPO begins ({DEMONSTRATIONS:,} of images in a grid, else 0)",
    )
    add("--steps", type=int, default=40_000, help="turns to train on, of all environments together (%(default)s)")
    add("--envs", type=int, default=8, help="environments side by side (%(default)s)")
    add("--learning-rate", type=float, default=2e-4, help="of PPO's Adam (%(default)s)")
    add("--entropy", type=float, default=0.0, help="weight of the entropy bonus (%(default)s)")
    add("--save-steps", type=int, default=10_000, help="turns between checkpoints: what a kill can cost (%(default)s)")
    add("--test-tasks", type=int, default=400, help="test tasks, played greedily at the end (%(default)s)")
    add("--seed", type=int, default=0, help="of tasks, weights and sampling (%(default)s)")
    add("--out", type=Path, help="run folder (runs/ppo/DATE-TIME)")
    add(
        "--resume",
        action="store_true",
        help="continue the run in --out, or the newest in runs/ppo/, with its own settings",
    )
    return main


def parse(argv: Sequence[str], description: str) -> tuple[Settings, Path, bool]:
    """Read the command line; returns the settings, the run folder, and whether it is continued.

    Raises:
        UsageError: anything that would make the run fail later and can be seen now.
    """
    arguments = vars(parser(description).parse_args(argv))
    out, resume = arguments.pop("out"), arguments.pop("resume")
    if resume:
        return *resumed(argv, out, RUNS, _settings), True
    shown = arguments["actions"] == "grid" and all(MEDIA[suite] == "image" for suite in arguments["suite"])
    if arguments["demonstrations"] is None:
        arguments["demonstrations"] = DEMONSTRATIONS if shown else 0
    settings = _settings(arguments)
    _check(settings)
    if settings.demonstrations and not shown:
        raise UsageError("expected --demonstrations 0 but for --actions grid and suites of images")
    out = out or RUNS / time.strftime("%Y%m%d-%H%M%S")
    if (out / "config.json").exists():
        raise UsageError(f"{out} holds a run already; add --resume to continue it, or choose another --out")
    return settings, out, False


def save(settings: Settings, out: Path, facts: dict[str, Any]) -> None:
    """Write config.json with further facts; a kill leaves no half of it."""
    replace_text(out / "config.json", json.dumps({"settings": dataclasses.asdict(settings), **facts}, indent=2))


def _settings(values: dict[str, Any]) -> Settings:
    read: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Settings(**read)


def _check(settings: Settings) -> None:
    lowest = {
        "side": 36,
        "max_turns": 1,
        "demonstrations": 0,
        "steps": 1,
        "envs": 1,
        "save_steps": 1,
        "test_tasks": 1,
        "entropy": 0,
        "seed": 0,
    }
    for name, low in lowest.items():
        if not getattr(settings, name) >= low:
            raise UsageError(f"expected --{name.replace('_', '-')} of at least {low}, got {getattr(settings, name)}")
    if not settings.learning_rate > 0:
        raise UsageError(f"expected --learning-rate above 0, got {settings.learning_rate}")
