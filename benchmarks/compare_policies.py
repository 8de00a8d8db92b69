r"""Compare policies on the same tasks, suite by suite and level by level: score, RaPR, operations, seconds.

    python benchmarks/compare_policies.py                     # the scripted policies and the micro base
    python benchmarks/compare_policies.py --suites search --levels 1 --tasks 20                # a first look
    python benchmarks/compare_policies.py --policies random direct grid PPO=runs/ppo/DATE "micro base=micro" \
        "warm start=runs/DATE/warm_start/model" RL=runs/DATE/rl/model oracle

A cell, a policy on a suite and level, is an evaluation of evaluate.py in a folder of its own, which compare.py reads,
too; options that this command does not know are passed through to it. Decoding is greedy. PPO is played on the suites
that it was trained on: its actions are the answers to those. After a stop or a kill the same command goes on, and
policies, suites and levels can be added. Leaves compare_policies.json, compare_policies.md and compare_policies.png.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evaluate import PACKAGES, Run, opened
from benchmarks.evaluation_settings import Settings
from benchmarks.evaluation_settings import parse as parse_evaluation
from benchmarks.policy_table import ALL, Cell, column, draw, markdown
from benchmarks.ppo_player import trained
from benchmarks.provenance import provenance, readable
from benchmarks.result_file import read_evaluation
from pixel_env import plot
from pixel_env.command_line import Parser, UsageError, ending, run_folder
from pixel_env.journal import replace_text
from pixel_env.settings import PRESETS
from pixel_env.tasks import DEFAULT_LEVELS, LEVELS, SUITES

DEFAULT = ("random", "direct", "grid", "micro base=micro", "oracle")

ABOUT = {
    "random": "draws calls, answers and junk",
    "direct": "guesses in its first turn",
    "grid": "looks at every part, then guesses",
    "oracle": "knows where to look, and the answer",
    "micro": "the model that is shipped, without training",
}
"""What the words of `--policies` stand for."""

OWNED = ("--policy", "--limit")
"""Options of evaluate.py that this command sets."""

WHOLE_ONLY = ("--shard", "--merge")
"""Options of evaluate.py that it has no use for."""


@dataclass(frozen=True)
class Entrant:
    """A policy that is compared.

    Attributes:
        name: What it is called.
        about: What it is, in words.
        folder: Of its cells.
        settings: Of its evaluations; each cell has one suite and level of them.
        runs: Its cells, by suite and level; those that it cannot play are missing.
    """

    name: str
    about: str
    folder: Path
    settings: Settings
    runs: dict[Cell, Run]

    def play(self) -> None:
        """Play what is missing; the policy is opened once, and only if there is something to play."""
        missing = [run for run in self.runs.values() if run.retry or not run.written.exists()]
        if not missing:
            return
        with opened(self.settings, self.folder) as player:
            for run in missing:
                print(f"{self.name}, level {run.settings.levels[0]}: ", end="", flush=True)
                run.measure(player, run.parts())


def entrant(word: str, arguments: argparse.Namespace, more: Sequence[str]) -> Entrant:
    """Return the policy of a word of the command line.

    Args:
        word: ``"POLICY"`` or ``"NAME=POLICY"``, the policy as in evaluate.py.
        arguments: The command line.
        more: Options for evaluate.py.

    Raises:
        UsageError: There is no such policy, or it can play none of the suites.
    """
    name, named, policy = word.partition("=")
    policy = policy if named else name
    a = arguments
    asked = ["--tasks", *a.suites, "--levels", *map(str, a.levels), "--policy", policy, "--limit", str(a.tasks)]
    given = parse_evaluation([*more, *asked, "--preset", a.preset, "--seed", str(a.seed)], "")
    settings, retry = given.settings, given.retry
    about, suites = ABOUT.get(policy, policy), a.suites
    if settings.spec().kind == "ppo":
        training = trained(Path(policy))
        suites = [suite for suite in a.suites if suite in training.suite]
        known, levels = ", ".join(training.suite), ", ".join(map(str, training.levels))
        about += (
            f", trained on {known} (level {levels}); it can give no other answers, so the other suites are not played"
        )
        if not suites:
            raise UsageError(f"{policy} can play none of {', '.join(a.suites)}: {about}")
    if not (short := "".join(c if c.isalnum() else "-" for c in name).strip("-")):
        raise UsageError(f"expected a name with a letter or digit, got {word!r}")
    folder = a.out / short
    runs = {
        (suite, level): Run(
            dataclasses.replace(settings, tasks=(suite,), levels=(level,)), folder / f"{suite}-{level}", retry
        )
        for suite in suites
        for level in a.levels
    }
    return Entrant(name, about, folder, settings, runs)


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[Entrant], list[str]]:
    """Read the command line; returns it, the policies, and the options for evaluate.py.

    Raises:
        UsageError: Anything that can be seen to be wrong before something is played.
    """
    formatter = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="compare_policies.py", description=__doc__, formatter_class=formatter, allow_abbrev=False)
    add = parser.add_argument
    add(
        "--policies", nargs="+", default=DEFAULT, metavar="[NAME=]POLICY",
        help="each as --policy of evaluate.py, a name before it (random direct grid 'micro base=micro' oracle)",
    )  # fmt: skip
    add("--suites", nargs="+", choices=tuple(SUITES), default=tuple(SUITES), help="(all)")
    add("--levels", nargs="+", type=int, choices=LEVELS, default=DEFAULT_LEVELS, help="(1 2 3)")
    add("--tasks", type=int, default=100, help="test tasks of each suite and level (%(default)s)")
    add("--preset", choices=tuple(PRESETS), default="micro", help="size of the pictures (%(default)s)")
    add("--seed", type=int, default=0, help="of guesses (%(default)s)")
    add("--out", type=Path, default=Path("runs/compare_policies"), help="folder of everything (%(default)s)")
    arguments, more = parser.parse_known_args(argv)
    if more and not more[0].startswith("--"):
        raise UsageError(f"expected options, got {more[0]!r}; see --help of compare_policies.py and of evaluate.py")
    if taken := [word for word in more if word.partition("=")[0] in OWNED]:
        raise UsageError(f"{taken[0]} is set by --policies and --tasks")
    if given := [word for word in more if word.partition("=")[0] in WHOLE_ONLY]:
        raise UsageError(f"{given[0]} is for evaluate.py alone; to share the work, give each process its --policies")
    if arguments.tasks < 1:
        raise UsageError(f"expected --tasks of at least 1, got {arguments.tasks}")
    arguments.suites, arguments.levels = (list(dict.fromkeys(of)) for of in (arguments.suites, arguments.levels))
    entrants = [entrant(word, arguments, more) for word in arguments.policies]
    if twice := {one.name for one in entrants if [other.folder for other in entrants].count(one.folder) > 1}:
        raise UsageError(f"expected policies of different names, got {', '.join(sorted(twice))}; NAME=POLICY names one")
    return arguments, entrants, more


def report(arguments: argparse.Namespace, entrants: Sequence[Entrant], more: Sequence[str]) -> None:
    """Write JSON, Markdown and picture of all that was played."""
    played = {one.name: {cell: read_evaluation(run.out) for cell, run in one.runs.items()} for one in entrants}
    table = {name: column(cells, arguments.suites, arguments.levels) for name, cells in played.items()}
    results = {name: [evaluation.result for evaluation in cells.values()] for name, cells in played.items()}
    commits = list(dict.fromkeys(result["commit"] for of in results.values() for result in of))
    written: dict[str, Any] = {
        **provenance(PACKAGES),
        "commits_of_cells": commits,
        "suites": arguments.suites,
        "levels": arguments.levels,
        "tasks": arguments.tasks,
        "preset": arguments.preset,
        "seed": arguments.seed,
        "options": more,
        "policies": {
            one.name: {
                "policy": one.settings.policy,
                "about": one.about,
                "batch_episodes": one.settings.batch_episodes,
                **{key: results[one.name][0][key] for key in ("decoding", "environment")},
            }
            for one in entrants
        },
        "results": [
            {"policy": name, "suite": suite, "level": level} | found.to_json()
            for name, figures in table.items()
            for (suite, level), found in figures.items()
            if found
        ],
    }
    path = arguments.out / "compare_policies.json"
    replace_text(path, readable(written))
    text = markdown(table, _head(written, entrants[0].settings), {one.name: one.about for one in entrants})
    replace_text(path.with_suffix(".md"), text)
    print(text.partition("## By suite")[0].strip(), f"all of it: {path.with_suffix('.md')}", sep="\n\n")
    try:
        plot.save(draw(table), path.with_suffix(".png"))
    except ImportError as error:
        raise UsageError(f"cannot draw: {error}; pip install -e '.[agents]'") from None


def _head(written: Mapping[str, Any], settings: Settings) -> list[str]:
    """Return where the figures come from."""
    machine, errors = written["machine"], sum(row["errors"] for row in written["results"] if ALL not in row.values())
    broken = f"{errors} episodes broke off and are left out; --retry-errors plays them again"
    return [
        f"`{written['command']}`, {written['date']}, commit {', '.join(written['commits_of_cells'])}",
        f"{machine['cpu']}, {machine['cores']} cores",
        f"{written['tasks']} {settings.split} tasks of each suite and level, the same for every policy; preset "
        f"{written['preset']}, seed {written['seed']}",
        f"seconds are wall time, divided by episodes, while up to {settings.batch_episodes} of them are played side by "
        "side (by PPO one at a time): weights take longer for an episode in smaller batches",
        *([broken] if errors else []),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    with ending("compare_policies.py") as end:
        arguments, entrants, more = parse(argv)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        with ExitStack() as folders:
            for one in entrants:
                folders.enter_context(run_folder(one.folder))  # others may play other policies in --out
                for run in one.runs.values():
                    run.prepare()
            for one in entrants:
                one.play()
            report(arguments, entrants, more)
    return end.code


if __name__ == "__main__":
    os.environ.setdefault("PIXEL_ENV_DECODE_IN_PROCESS", "1")  # a decoder that crashes costs one file, not the run
    sys.exit(main())
