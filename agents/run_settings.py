"""What a training run depends on, and the command line that sets it. Imports no torch: mistakes are told at once."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agents.demonstrations import TEXTUAL_SHARE
from agents.recipes import RECIPES, by_recipe, complete
from agents.run_checks import check, check_processes
from agents.run_tasks import recorded_padding
from pixel_env.command_line import Parser, UsageError, parser_of, resumed
from pixel_env.prompts import OPERATIONS
from pixel_env.rewards import VARIANTS
from pixel_env.settings import PRESETS
from pixel_env.tasks import LEVELS, SUITES
from pixel_env.tasks.message_lists import MARGIN

STAGES = ("warm_start", "rl")
RUNS = Path("runs")
TOKEN_PIXELS = 28 * 28
"""Pixels of a view that Qwen2.5-VL reads as one token."""


@dataclass(frozen=True)
class Settings:
    """Everything that a run depends on; written to its config.json. The command line explains each."""

    model: str
    tasks: tuple[str, ...]
    levels: tuple[int, ...]
    preset: str
    crop_padding: float
    stages: tuple[str, ...]
    seed: int
    demonstrations: int
    epochs: int
    learning_rate: float
    batch_size: int
    accumulation: int
    freeze_vision: bool
    rl_steps: int
    prompts: int
    group_size: int
    updates: int
    rl_learning_rate: float
    rl_batch_size: int
    temperature: float
    schedule: Literal["constant", "linear", "cosine"]
    scale_rewards: Literal["group", "batch", "none"]
    uniform_groups: Literal["keep", "drop", "replay"]
    kl: float
    alpha: float
    beta: float
    threshold: float
    limit: int
    reward_variant: str
    test_tasks: int
    batch_episodes: int
    max_new_tokens: int
    max_completion_tokens: int
    save_steps: int
    gradient_checkpointing: bool
    sft_data: str | None = None
    rl_data: str | None = None
    test_data: tuple[str, ...] = ()
    corrections: bool = True
    textual_share: float = TEXTUAL_SHARE
    operations: tuple[str, ...] = OPERATIONS
    evaluate: Literal["all", "last"] = "all"
    rollouts: str = "engine"
    rl_freeze_vision: bool = False
    lora: int = 0
    dtype: Literal["float32", "bfloat16"] | None = None
    batch_tokens: int | None = None
    view_tokens: int | None = None
    crop_tokens: int | None = None
    memory: float | None = None

    def env_kwargs(self, split: str, tasks: str | None = None) -> dict[str, Any]:
        """Keyword arguments of the environment, for a task set ``"NAME:PATH"`` or the procedural tasks of a split."""
        procedural = {"suite": list(self.tasks), "difficulty": list(self.levels), "split": split}
        budgets = {"view_pixels": self.view_tokens, "crop_pixels": self.crop_tokens}
        return {
            **({"tasks": tasks} if tasks else procedural),
            **{name: tokens * TOKEN_PIXELS for name, tokens in budgets.items() if tokens is not None},
            "preset": self.preset,
            "crop_padding": self.crop_padding,
            "alpha": self.alpha,
            "beta": self.beta,
            "threshold": self.threshold,
            "limit": self.limit,
            "reward_variant": self.reward_variant,
            "operations": list(self.operations),
        }


def parser(description: str) -> Parser:
    """Return the command line; `description` is a title and, after an empty line, examples."""
    main = parser_of("agents/train_vlm.py", "[options]", description)
    _add_run(main.add_argument_group("run"))
    _add_data(main.add_argument_group("data on disk, in place of generated tasks"))
    _add_training(main.add_argument_group("warm start"), main.add_argument_group("reinforcement learning"))
    _add_reward(main.add_argument_group("reward (arXiv 2505.15966, section 4)"))
    _add_machine(main.add_argument_group("evaluation and machine"))
    _add_memory(main.add_argument_group("memory"))
    return main


Group = Any  # argparse keeps the class of its groups to itself


def _add_run(group: Group) -> None:
    suites, add = " ".join(SUITES), group.add_argument
    base = Path(__file__).parent / "micro_base"
    base = base.relative_to(Path.cwd()) if base.is_relative_to(Path.cwd()) else base
    add(
        "--model",
        default=str(base),
        help="Qwen2.5-VL to start from: a folder, or an id of the Hugging Face Hub (%(default)s)",
    )
    add(
        "--tasks",
        nargs="+",
        choices=tuple(SUITES),
        default=tuple(SUITES),
        metavar="SUITE",
        help=f"suites, mixed ({suites})",
    )
    add(
        "--levels",
        nargs="+",
        type=int,
        choices=LEVELS,
        default=(1, 2),
        metavar="LEVEL",
        help="difficulties from 0 to 3, mixed (1 2)",
    )
    add(
        "--recipe",
        choices=tuple(RECIPES),
        help="where all values come from that are not given: micro, for the micro model, or paper, the constants of "
        "the paper and its appendix, for real ones (the one of the preset)",
    )
    add("--show", action="store_true", help="print everything that the run would depend on, and do nothing")
    add(
        "--preset",
        choices=tuple(PRESETS),
        help=f"size of the pictures, for the micro model and for real ones ({by_recipe('preset')})",
    )
    add(
        "--crop-padding",
        type=float,
        help="margin that the environment adds around a box, in fractions of the image shown, for a policy that points "
        f"well and measures badly; {MARGIN} is the release's ({by_recipe('crop_padding')}; with --sft-data, its own)",
    )
    add(
        "--stages",
        nargs="*",
        choices=STAGES,
        default=STAGES,
        metavar="STAGE",
        help="none: only evaluate (warm_start rl)",
    )
    add(
        "--no-operations",
        dest="operations",
        action="store_const",
        const=(),
        default=OPERATIONS,
        help="offer no operations: a model that answers at once; not for a warm start",
    )
    add("--seed", type=int, default=0, help="of tasks, orders and sampling (%(default)s)")
    add("--out", type=Path, help="run folder (runs/vlm-DATE-TIME)")
    add(
        "--resume", action="store_true", help="continue the run in --out, or the newest in runs/, with its own settings"
    )


def _add_data(group: Group) -> None:
    add = group.add_argument
    add(
        "--sft-data",
        metavar="PATH",
        help="PixelReasoner-SFT-Data, or demonstrations.jsonl of make_demonstrations.py: all its records are used",
    )
    add(
        "--rl-data",
        metavar="NAME:PATH",
        help="task set to train on, such as pixelreasoner:PATH; images and videos. Without --sft-data, demonstrations "
        "are made of it too, and it must say where the evidence is",
    )
    add(
        "--test-data",
        nargs="+",
        default=(),
        metavar="NAME:PATH",
        help="task sets of the evaluations, of each --test-tasks tasks, spread evenly",
    )


def _add_training(warm: Group, rl: Group) -> None:
    add = warm.add_argument
    add("--demonstrations", type=int, help=f"expert trajectories ({by_recipe('demonstrations')})")
    add("--epochs", type=int, help=f"passes over them ({by_recipe('epochs')})")
    add("--learning-rate", type=float, help=f"peak rate ({by_recipe('learning_rate')})")
    add("--batch-size", type=int, help=f"trajectories a forward pass ({by_recipe('batch_size')})")
    add("--accumulation", type=int, help=f"forward passes an optimizer step ({by_recipe('accumulation')})")
    add(
        "--no-corrections",
        dest="corrections",
        action="store_false",
        help="leave out demonstrations with a mistake or several looks: others look once, or answer at once",
    )
    add(
        "--textual-share",
        type=float,
        default=TEXTUAL_SHARE,
        metavar="SHARE",
        help="of the demonstrations that answers at once; 1: all, so no operation is learned (%(default).3g)",
    )
    add(
        "--freeze-vision",
        action=argparse.BooleanOptionalAction,
        help=f"leave the vision tower as it is in this stage, as the release does ({by_recipe('freeze_vision')})",
    )
    add = rl.add_argument
    add("--rl-steps", type=int, help=f"rounds of rollouts ({by_recipe('rl_steps')})")
    add("--prompts", type=int, help=f"tasks a round ({by_recipe('prompts')})")
    add("--group-size", type=int, help=f"G, rollouts a task ({by_recipe('group_size')})")
    add("--updates", type=int, help=f"steps made of the rollouts of a round ({by_recipe('updates')})")
    add("--rl-learning-rate", type=float, help=f"learning rate ({by_recipe('rl_learning_rate')})")
    schedules = ("constant", "linear", "cosine")
    add("--schedule", choices=schedules, help=f"course of the rate: constant, or falling ({by_recipe('schedule')})")
    add("--rl-batch-size", type=int, help=f"rollouts a forward pass ({by_recipe('rl_batch_size')})")
    add("--temperature", type=float, help=f"of the rollouts ({by_recipe('temperature')})")
    add(
        "--scale-rewards",
        choices=("group", "batch", "none"),
        help="advantages are divided by the standard deviation of their group, as in GRPO, of all rollouts of a round, "
        "or by nothing; by that of a group, where nothing is answered right the penalty weighs as much as answers "
        f"elsewhere ({by_recipe('scale_rewards')})",
    )
    add(
        "--uniform-groups",
        choices=("keep", "drop", "replay"),
        help="rollouts of groups whose rewards are all equal teach nothing: keep them in the mean, drop them from it, "
        "or put others of the round in their place, drawn by |advantage|: selective sample replay "
        f"({by_recipe('uniform_groups')})",
    )
    add(
        "--rollouts",
        default="engine",
        metavar="HOW",
        help="what generates them: engine, ours; trl, transformers through TRL; vllm, in this process; or the URL of a "
        "vLLM server, see docs/scaling.md (%(default)s)",
    )
    add("--kl", type=float, help=f"weight of the divergence from the policy at the start ({by_recipe('kl')})")
    add(
        "--rl-freeze-vision",
        action=argparse.BooleanOptionalAction,
        help=f"leave the vision tower as it is in this stage ({by_recipe('rl_freeze_vision')})",
    )


def _add_reward(group: Group) -> None:
    add = group.add_argument
    add("--alpha", type=float, help=f"weight of the curiosity bonus; 0 switches it off ({by_recipe('alpha')})")
    add("--beta", type=float, help=f"price of an operation beyond --limit ({by_recipe('beta')})")
    add("--threshold", type=float, help=f"H, the wanted rate of pixel-space reasoning ({by_recipe('threshold')})")
    add("--limit", type=int, help=f"N, operations that are free ({by_recipe('limit')})")
    add(
        "--reward-variant",
        choices=VARIANTS,
        default="paper",
        help="constants of the paper or of its release (%(default)s)",
    )


def _add_machine(group: Group) -> None:
    add = group.add_argument
    add(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="processes of this machine that share the work, as those of a launcher do: on CPUs two of one thread are "
        "faster than one of two (%(default)s)",
    )
    add(
        "--test-tasks",
        type=int,
        default=128,
        help="test tasks a suite or set; before, between and after, greedy (%(default)s)",
    )
    add(
        "--evaluate",
        choices=("all", "last"),
        default="all",
        help="which models play them: before, between and after, or only what comes last (%(default)s)",
    )
    add("--batch-episodes", type=int, help=f"episodes played at a time in evaluations ({by_recipe('batch_episodes')})")
    add("--max-new-tokens", type=int, help=f"most tokens of a turn ({by_recipe('max_new_tokens')})")
    add(
        "--max-completion-tokens",
        type=int,
        help=f"most tokens behind a prompt, operation results included ({by_recipe('max_completion_tokens')})",
    )
    add(
        "--save-steps",
        type=int,
        default=20,
        help="optimizer steps between checkpoints: what a kill can cost (%(default)s)",
    )


def _add_memory(group: Group) -> None:
    add = group.add_argument
    add("--plan", action="store_true", help="print steps, tokens, memory and time, as far as known, and do nothing")
    add(
        "--memory",
        type=float,
        metavar="GB",
        help="what a run may take, in 10^9 bytes; one that would take more is refused (all that the GPU, or else the "
        "machine, has)",
    )
    add("--gradient-checkpointing", action="store_true", help="save memory, spend time")
    add(
        "--lora",
        type=int,
        default=0,
        metavar="RANK",
        help="train adapters of this rank on the linear layers, those of the vision tower too unless it is frozen, in "
        "both stages, and merge them at the end of each; wants about ten times the learning rates (0: train all)",
    )
    add(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="what is computed with, and kept of weights that are not trained; trained ones have 32 bits, so without "
        "--lora this saves activations, not weights (bfloat16 on a GPU, else float32)",
    )
    add(
        "--batch-tokens",
        type=int,
        metavar="N",
        help="fill forward passes of training up to N tokens, padding included, in place of --batch-size and "
        "--rl-batch-size; the examples of an optimizer step stay",
    )
    for name, what in (("view", "first view of an image, or of all first frames"), ("crop", "crop or selected frame")):
        add(f"--{name}-tokens", type=int, metavar="N", help=f"most tokens of a {what} (those of the preset)")


def processes(argv: Sequence[str]) -> int:
    """Return how many processes a command line asks for, 1 where it is wrong: `parse` tells that.

    >>> processes(["--seed", "1", "--processes", "2"]), processes(["--processes=x"]), processes([])
    (2, 1, 1)
    """
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    reader.add_argument("--processes", type=int, default=1)
    try:
        return int(reader.parse_known_args(argv)[0].processes)
    except argparse.ArgumentError:
        return 1


def parse(argv: Sequence[str], description: str) -> tuple[Settings, Path, bool]:
    """Read the command line; returns the settings, the run folder, and whether it is continued.

    Raises:
        UsageError: anything that would make the run fail later and can be seen now.
    """
    arguments = vars(parser(description).parse_args(argv))
    out, resume, recipe = arguments.pop("out"), arguments.pop("resume"), arguments.pop("recipe")
    del arguments["show"], arguments["plan"]  # asked for by the caller
    if arguments.pop("processes") < 1:
        raise UsageError("expected at least one of --processes")
    if arguments["sft_data"] and arguments["crop_padding"] is None:
        arguments["crop_padding"] = recorded_padding(arguments["sft_data"])
    settings = _settings(complete(arguments, recipe))
    if resume:
        of_run = [word for word in argv if not word.startswith("--processes")]
        settings, out = resumed(of_run, out, RUNS, _settings)
        check_processes(settings)
        return settings, out, True
    check(settings)
    check_processes(settings)
    out = out or RUNS / time.strftime("vlm-%Y%m%d-%H%M%S")
    if (out / "config.json").exists():
        raise UsageError(f"{out} holds a run already; add --resume to continue it, or choose another --out")
    return settings, out, False


def _settings(values: dict[str, Any]) -> Settings:
    read: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Settings(**read)
