"""What a run that makes demonstrations depends on, and the command line that sets it. Imports no torch."""

import argparse
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.players import PolicySpec, read_policy
from pixel_env.command_line import Parser, UsageError, parser_of
from pixel_env.prompts import COORDINATES
from pixel_env.settings import PRESETS
from pixel_env.tasks import FORMATS, LEVELS, SUITES

RUNS = Path("runs")
SAMPLED_TOKENS = {"micro": (160, 1024), "standard": (1024, 10_000)}
"""Most tokens of a sampled turn, and of all behind the first view, by preset."""


@dataclass(frozen=True)
class Settings:
    """Everything that the demonstrations depend on; written to config.json. The command line explains each."""

    tasks: tuple[str, ...]
    levels: tuple[int, ...]
    limit: int | None
    teacher: str | None
    temperature: float
    max_new_tokens: int
    concurrency: int
    prices: tuple[float, float] | None
    per_seed: int
    textual: int
    sampler: str | None
    sampler_temperature: float
    tries: int
    batch_episodes: int
    preset: str
    crop_padding: float
    coordinates: str
    max_turns: int
    seed: int
    message_lists: bool

    def env_kwargs(self, tasks: str) -> dict[str, Any]:
        """Return the keyword arguments of the environment for one entry of `tasks`, a set on disk or a suite."""
        asked = {"suite": [tasks], "difficulty": list(self.levels)} if tasks in SUITES else {"tasks": tasks}
        names = ("preset", "crop_padding", "coordinates", "max_turns")
        return asked | {name: getattr(self, name) for name in names}

    @property
    def teacher_spec(self) -> PolicySpec | None:
        """Model and address of the teacher."""
        return None if self.teacher is None else read_policy(f"endpoint:{self.teacher}", None)

    @property
    def depends_on(self) -> dict[str, Any]:
        """What must not change when a run is taken up again: all but how fast, how much, how dear and on which port."""
        free = ("concurrency", "batch_episodes", "prices", "limit", "textual", "message_lists")
        fixed = {name: value for name, value in dataclasses.asdict(self).items() if name not in free}
        return fixed | {"teacher": self.teacher_spec and self.teacher_spec.name}


def parser(description: str) -> Parser:
    """Return the command line; `description` is a title and, after an empty line, examples."""
    main = parser_of(
        "agents/make_demonstrations.py", "--tasks TASKS ... --teacher MODEL@BASE_URL [options]", description
    )
    _add_seeds(main.add_argument_group("seeds"))
    _add_teacher(main.add_argument_group("demonstrations with operations"))
    _add_textual(main.add_argument_group("textual demonstrations"))
    _add_views(main.add_argument_group("the environment that they are played in: as in training"))
    return main


def _add_seeds(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add(
        "--tasks", nargs="+", required=True, metavar="TASKS",
        help=f"NAME:PATH of sets on disk ({', '.join(FORMATS)}) that say where the evidence is, images:FOLDER to have "
        f"questions made, or generated suites ({', '.join(SUITES)})",
    )  # fmt: skip
    add("--limit", type=int, help="tasks of each entry of --tasks, drawn (all of a set on disk; 256 of a suite)")
    add("--levels", nargs="+", type=int, choices=LEVELS, default=(1, 2), help="of generated suites, mixed (1 2)")
    add("--seed", type=int, default=0, help="of the tasks drawn, kinds, boxes, wording and sampling (%(default)s)")
    add("--out", type=Path, help="folder; the same command goes on where it stopped (runs/demonstrations-DATE-TIME)")
    add("--message-lists", action="store_true", help="write them as the release's message lists too, with their media")


def _add_teacher(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add("--teacher", metavar="MODEL@BASE_URL", help="who writes: a model of a server that speaks the OpenAI protocol")
    add("--per-seed", type=int, default=1, help="demonstrations a task, of different kinds (%(default)s)")
    add("--temperature", type=float, default=0.0, help="of the teacher (%(default)s)")
    add("--max-new-tokens", type=int, default=1024, help="most tokens of a turn (%(default)s)")
    add("--concurrency", type=int, default=8, help="requests at a time (%(default)s)")
    add(
        "--prices", nargs=2, type=float, metavar=("READ", "WRITTEN"),
        help="of a million tokens of the teacher, for the report",
    )  # fmt: skip


def _add_textual(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add("--textual", type=int, default=0, help="how many, over all tasks (%(default)s)")
    add(
        "--sampler",
        help="whose right answers without an operation they are: micro, a Hugging Face folder or id, "
        "endpoint:MODEL@BASE_URL, or module:object",
    )
    add("--sampler-temperature", type=float, default=1.0, help="of the sampler (%(default)s)")
    add("--tries", type=int, default=4, help="answers sampled of a task until one is right (%(default)s)")
    add("--batch-episodes", type=int, default=32, help="episodes played at a time (%(default)s)")


def _add_views(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add("--preset", choices=tuple(PRESETS), default="standard", help="size of pictures (%(default)s)")
    add("--crop-padding", type=float, default=0.0, help="margin around a box, in fractions of the image (%(default)s)")
    add("--coordinates", choices=tuple(COORDINATES), default="pixel", help="unit of boxes (%(default)s)")
    add("--max-turns", type=int, default=5, help="turns an episode, the answer included (%(default)s)")


AT_LEAST_ONE = ("limit", "max_new_tokens", "concurrency", "per_seed", "tries", "batch_episodes", "max_turns")
AT_LEAST_ZERO = ("temperature", "sampler_temperature", "textual", "crop_padding", "seed")


def parse(argv: Sequence[str], description: str) -> tuple[Settings, Path]:
    """Read the command line; returns the settings and the folder.

    Raises:
        UsageError: anything that would make the run fail later and can be seen now.
    """
    values = vars(parser(description).parse_args(argv))
    out = values.pop("out") or RUNS / time.strftime("demonstrations-%Y%m%d-%H%M%S")
    read: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    settings = Settings(**read)
    _check(settings)
    return settings, out


def _check(settings: Settings) -> None:
    for name in (*AT_LEAST_ONE, *AT_LEAST_ZERO):
        value, least = getattr(settings, name), int(name in AT_LEAST_ONE)
        if value is not None and not value >= least:
            raise UsageError(f"expected --{name.replace('_', '-')} of at least {least}, got {value}")
    if bool(settings.textual) != bool(settings.sampler):
        raise UsageError("expected --textual and --sampler together, got one of them")
    if not settings.teacher and not settings.sampler:
        raise UsageError("expected --teacher, or --textual and --sampler, got neither")
    if settings.teacher:
        try:
            read_policy(f"endpoint:{settings.teacher}", None)
        except UsageError:
            raise UsageError(f"expected --teacher MODEL@http://HOST:PORT/v1, got {settings.teacher!r}") from None
    if settings.sampler:
        read_policy(settings.sampler, None)
    for tasks in settings.tasks:
        if tasks not in SUITES and tasks.partition(":")[0] not in FORMATS:
            raise UsageError(f"expected --tasks as NAME:PATH or one of {', '.join(SUITES)}, got {tasks!r} (see --help)")
        if settings.tasks.count(tasks) > 1:
            raise UsageError(f"expected each of --tasks once, got {tasks} twice")
