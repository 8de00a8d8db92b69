"""What an evaluation depends on, and the command line that sets it. Imports no torch: mistakes are told at once."""

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agents.players import SCRIPTED, Decoding, PolicySpec, read_policy
from benchmarks.shards import WHOLE, Shard, read_shard
from pixel_env.command_line import Parser, UsageError, parser_of
from pixel_env.counterfactual import COUNTERFACTUALS
from pixel_env.prompts import COORDINATES, OPERATIONS
from pixel_env.protocols import PROTOCOLS
from pixel_env.released_protocol import CELL, CROP_CELLS, VIDEO_PIXELS
from pixel_env.scorers import SCORERS
from pixel_env.settings import PRESETS
from pixel_env.tasks import FORMATS, LEVELS, SPLITS, SUITES

RUNS = Path("runs")


@dataclass(frozen=True)
class Settings:
    """Everything that the answers depend on; written to config.json. The command line explains each."""

    policy: str
    base_url: str | None
    tasks: tuple[str, ...]
    levels: tuple[int, ...]
    split: str
    preset: str
    limit: int | None
    samples: int
    operations: tuple[str, ...]
    protocol: str
    view_pixels: int | None
    crop_pixels: int | None
    coordinates: str
    crop_padding: float
    max_turns: int
    num_frames: int
    scorer: str
    counterfactual: str
    temperature: float | None
    max_new_tokens: int
    max_completion_tokens: int
    batch_episodes: int
    tools: Literal["text", "native"]
    limit_field: str
    concurrency: int
    timeout: float
    retries: int
    deadline: float
    prices: tuple[float, float] | None
    seed: int

    def spec(self) -> PolicySpec:
        """Return which policy is meant."""
        return read_policy(self.policy, self.base_url)

    def decoding(self) -> Decoding:
        """Return how it is to write its turns."""
        names = [field.name for field in dataclasses.fields(Decoding)]
        return Decoding(**{name: getattr(self, name) for name in names})

    def env_kwargs(self, tasks: str) -> dict[str, Any]:
        """Return the keyword arguments of the environment for one entry of `tasks`."""
        asked = {"suite": [tasks], "split": self.split, "difficulty": list(self.levels)} if tasks in SUITES else {}
        names = (
            "protocol",
            "preset",
            "max_turns",
            "coordinates",
            "crop_padding",
            "num_frames",
            "scorer",
            "counterfactual",
        )
        budgets = {name: getattr(self, name) for name in ("view_pixels", "crop_pixels") if getattr(self, name)}
        source = asked or {"tasks": tasks}
        return source | {name: getattr(self, name) for name in names} | budgets | {"operations": list(self.operations)}


DERIVED: dict[str, dict[str, Any]] = {
    "micro": {"max_new_tokens": 160, "max_completion_tokens": 1024, "batch_episodes": 128},
    "standard": {"max_new_tokens": 1024, "max_completion_tokens": 10_000, "batch_episodes": 16},
}
"""What follows from the preset unless it is given."""

NATIVE: dict[str, Any] = {
    "crop_padding": 0.0,
    "coordinates": "pixel",
    "scorer": "strict",
    "view_pixels": None,
    "crop_pixels": None,
}
RELEASED: dict[str, Any] = {"crop_padding": 0.1, "scorer": "pixelreasoner_compat", "max_new_tokens": 2048}
RELEASED_PIXELS = {"view_pixels": VIDEO_PIXELS, "crop_pixels": CROP_CELLS[1] * CELL}
"""What follows from the protocol unless it is given; the pixels only with the standard preset."""


def parser(description: str) -> Parser:
    """Return the command line; `description` is a title and, after an empty line, examples."""
    main = parser_of("benchmarks/evaluate.py", "--tasks TASKS ... --policy POLICY [options]", description)
    _add_what(main.add_argument_group("what is measured"))
    _add_views(main.add_argument_group("what is shown"))
    _add_how(main.add_argument_group("how it is played"))
    _add_endpoint(main.add_argument_group("how an endpoint is asked"))
    return main


def _add_what(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    suites, formats = ", ".join(SUITES), ", ".join(FORMATS)
    add(
        "--tasks", nargs="+", required=True, metavar="TASKS",
        help=f"NAME:PATH of a set on disk ({formats}), or a generated suite ({suites})",
    )  # fmt: skip
    add(
        "--policy", required=True,
        help="micro (the model that is shipped), a Hugging Face folder or id, endpoint:MODEL@BASE_URL, "
        f"{', '.join(SCRIPTED)}, a run folder of baselines/ppo.py, or module:object: something with `act`, a function "
        "of one conversation, or what makes one of these without arguments; see docs/custom_agents.md",
    )  # fmt: skip
    add("--samples", type=int, default=1, metavar="K", help="episodes a question (%(default)s)")
    add("--limit", type=int, help="questions of each entry of --tasks (all of a set on disk; 256 of a suite)")
    add("--levels", nargs="+", type=int, choices=LEVELS, default=(1, 2), help="of generated suites, mixed (1 2)")
    add("--split", choices=SPLITS, default="test", help="of generated suites (%(default)s)")
    add(
        "--preset",
        choices=tuple(PRESETS),
        help="size of pictures (as a trained run says; micro for --policy micro, else standard)",
    )
    add("--scorer", choices=SCORERS, help="whose verdicts (strict; pixelreasoner_compat in that protocol)")
    add("--seed", type=int, default=0, help="of sampling, and of the questions that --limit draws (%(default)s)")
    add("--out", type=Path, help="folder for results; the same command goes on where it stopped (runs/eval-DATE-TIME)")


def _add_views(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add(
        "--protocol", choices=tuple(PROTOCOLS), default="native",
        help="pixelreasoner: prompts, names, padding, budgets and scorer of the release (%(default)s)",
    )  # fmt: skip
    add("--view-pixels", type=int, help="budget of the first view; the frames of a video share it (by preset)")
    add("--crop-pixels", type=int, help="budget of each crop and selected frame (by preset)")
    add("--num-frames", type=int, default=16, help="frames of a video shown at first (%(default)s)")
    add("--coordinates", choices=tuple(COORDINATES), help="unit of boxes (pixel)")
    add(
        "--crop-padding",
        type=float,
        help="margin around a box, in fractions of the image (as a trained run says, else 0; 0.1 as released)",
    )
    add("--max-turns", type=int, default=5, help="turns an episode, the answer included (%(default)s)")
    add(
        "--operations", nargs="+", choices=(*OPERATIONS, "none"), default=OPERATIONS, metavar="NAME",
        help=f"operations on offer ({' '.join(OPERATIONS)}); none: a model without tools",
    )  # fmt: skip
    add(
        "--counterfactual", choices=COUNTERFACTUALS, default="none",
        help="what operations show in place of what was asked for (%(default)s)",
    )  # fmt: skip


def _add_how(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add(
        "--temperature", type=_number_or_none, default=0.0,
        help="0: greedy; none: as the endpoint likes, where it takes no other (%(default)s)",
    )  # fmt: skip
    add("--max-new-tokens", type=int, help="most tokens of a turn (160 for micro, else 1024; 2048 as released)")
    add("--max-completion-tokens", type=int, help="most tokens behind the first view (1024 for micro, else 10000)")
    add("--batch-episodes", type=int, help="episodes played at a time (128 for micro, else 16)")
    add("--retry-errors", action="store_true", help="play episodes again that broke off with an error")
    add(
        "--shard", type=_shard, metavar="I/N",
        help="play the I-th of N shares, in a folder of its own in --out (what torchrun or accelerate launch say)",
    )  # fmt: skip
    add("--merge", action="store_true", help="play nothing: make one result of all shards in --out")


def _add_endpoint(group: "argparse._ArgumentGroup") -> None:
    add, default = group.add_argument, {field.name: field.default for field in dataclasses.fields(Decoding)}
    add("--base-url", help="its address, for --policy endpoint:MODEL; the key comes from OPENAI_API_KEY")
    add(
        "--tools", choices=("text", "native"), default=default["tools"],
        help="native: operations are given to the server as tools, instead of in the system text (%(default)s)",
    )  # fmt: skip
    add(
        "--limit-field", default=default["limit_field"], metavar="NAME",
        help="what the server calls --max-new-tokens; max_completion_tokens for reasoning models (%(default)s)",
    )  # fmt: skip
    add("--concurrency", type=int, default=default["concurrency"], help="requests at a time (%(default)s)")
    add("--timeout", type=float, default=default["timeout"], help="seconds that one try may take (%(default)s)")
    add("--retries", type=int, default=default["retries"], help="tries of a turn after the first (%(default)s)")
    add("--deadline", type=float, default=default["deadline"], help="seconds of a turn, all tries (%(default)s)")
    add(
        "--prices", nargs=2, type=float, metavar=("READ", "WRITTEN"),
        help="of a million tokens, for the cost in result.json",
    )  # fmt: skip


def _shard(text: str) -> Shard:
    try:
        return read_shard(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _number_or_none(text: str) -> float | None:
    try:
        return None if text == "none" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, or none, got {text!r}") from None


@dataclass(frozen=True)
class Command:
    """What the command line asks for.

    Attributes:
        settings: What is measured, and how.
        out: Folder of the results.
        retry: Play episodes again that broke off with an error.
        shard: What this process plays of it.
        merge: Make the result of all shards, and play nothing.
    """

    settings: Settings
    out: Path
    retry: bool
    shard: Shard
    merge: bool


AT_LEAST_ONE = (
    "samples", "limit", "view_pixels", "crop_pixels", "num_frames", "max_turns", "max_new_tokens",
    "max_completion_tokens", "batch_episodes", "concurrency",
)  # fmt: skip


def parse(argv: Sequence[str], description: str, launched: Shard | None = None) -> Command:
    """Read the command line; `launched` is the shard of a process that torchrun or accelerate started.

    Raises:
        UsageError: anything that would make the run fail later and can be seen now.
    """
    values = vars(parser(description).parse_args(argv))
    retry, out, shard, merge = (values.pop(name) for name in ("retry_errors", "out", "shard", "merge"))
    if launched and (shard or merge):
        raise UsageError(
            f"--shard and --merge are for one process, a launcher started {launched.count}; leave them out"
        )
    if merge and (shard or retry):
        raise UsageError(f"--merge plays nothing; leave {f'--shard {shard}' if shard else '--retry-errors'} out")
    shard = shard or launched or WHOLE
    if out is None and (merge or shard != WHOLE):
        raise UsageError("expected --out: the shards of an evaluation lie in one folder")
    out = out or RUNS / time.strftime("eval-%Y%m%d-%H%M%S")
    trained = trained_with(values["policy"])
    taken = {name: value for name, value in trained.items() if values[name] is None}
    if values["protocol"] == "pixelreasoner":
        taken = {name: value for name, value in taken.items() if name == "preset"}  # the rest is the protocol's
    values |= taken
    if taken:
        said = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in taken.items())
        print(f"{values['policy']} was trained with {said}; so it is evaluated with that")
    values["preset"] = values["preset"] or ("micro" if values["policy"] == "micro" else "standard")
    released = values["protocol"] == "pixelreasoner"
    by_protocol = RELEASED | (RELEASED_PIXELS if values["preset"] == "standard" else {}) if released else {}
    for name, value in (NATIVE | DERIVED[values["preset"]] | by_protocol).items():
        values[name] = value if values[name] is None else values[name]
    if "none" in values["operations"]:
        if len(values["operations"]) > 1:
            raise UsageError(f"expected --operations none or names, got both: {' '.join(values['operations'])}")
        values["operations"] = ()
    settings = settings_of(values)
    _check(settings)
    return Command(settings, out, retry, shard, merge)


def trained_with(policy: str) -> dict[str, Any]:
    """Return how a model of `agents/train_vlm.py` or `baselines/ppo.py` saw pictures, from the config.json of its run.

    A run of the first keeps its models two folders below that file, ``RUN/rl/model``, ``RUN/rl/checkpoint-100``; one of
    the second is given itself. For a model of another origin: nothing.
    """
    folder = Path(policy).resolve()
    if not (folder / "config.json").is_file() or len(folder.parents) < 2:
        return {}
    run = folder if (folder / "checkpoints").is_dir() else folder.parents[1]
    try:
        settings = json.loads((run / "config.json").read_text(encoding="utf-8"))["settings"]
        return {name: settings[name] for name in ("preset", "coordinates", "crop_padding") if name in settings}
    except (OSError, ValueError, KeyError, TypeError):  # the model is of another origin
        return {}


def settings_of(values: dict[str, Any]) -> Settings:
    """Return settings from plain values, such as those of a config.json.

    Raises:
        TypeError: a setting is missing or unknown.
    """
    read: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Settings(**read)


def _check(settings: Settings) -> None:
    for name in AT_LEAST_ONE:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise UsageError(f"expected --{name.replace('_', '-')} of at least 1, got {value}")
    if settings.seed < 0 or not (settings.temperature is None or settings.temperature >= 0):
        raise UsageError(f"expected --seed and --temperature from 0, got {settings.seed} and {settings.temperature}")
    if not (settings.retries >= 0 and settings.timeout > 0 and settings.deadline > 0):
        raise UsageError(
            "expected --retries from 0, and --timeout and --deadline above 0, got "
            f"{settings.retries}, {settings.timeout:g} and {settings.deadline:g}"
        )
    names = [tasks.partition(":")[0] for tasks in settings.tasks]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"expected each of --tasks once, got {sorted(twice)[0]} twice; evaluate them apart")
    for tasks in settings.tasks:
        name, colon, path = tasks.partition(":")
        if tasks in SUITES or (name in FORMATS and path and Path(path).expanduser().exists()):
            continue
        if name in FORMATS:
            lacking = f"there is nothing at {path!r}" if colon else f"of {name} the path is missing: {name}:PATH"
            raise UsageError(f"cannot open --tasks {tasks}: {lacking}")
        raise UsageError(f"expected --tasks as NAME:PATH or one of {', '.join(SUITES)}, got {tasks!r} (see --help)")
    kind, name = settings.spec().kind, settings.spec().name
    if settings.protocol == "pixelreasoner" and kind == "scripted" and name != "direct":
        raise UsageError(f"--policy {name} speaks the native protocol only; give a model, or direct")
    if settings.tools == "native" and settings.protocol == "pixelreasoner":
        raise UsageError("--protocol pixelreasoner has its own functions, in text; leave --tools native out")
