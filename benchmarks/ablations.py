"""The ablations of the paper's Table 1, the learning trap, and how answers go wrong, in one command.

    python benchmarks/ablations.py --plan                          # what there is to do
    python benchmarks/ablations.py                                 # everything, in runs/ablations
    python benchmarks/ablations.py --report                        # only the tables of what is done so far
    python benchmarks/ablations.py --seeds 1 --other-seeds 1 --rl-steps 20     # a first look

Every cell, a recipe with a seed, is a run of agents/train_vlm.py in a folder of its own; options that this command does
not know are passed through to it. After a stop or a kill the same command goes on: cells that are done are kept, the
one that was at work continues from its checkpoint. Leaves ablations.json, ablations.md, learning_trap.png and,
for whoever wants to compute something else, cells.tar.xz with what was counted in every test episode.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents import run_settings
from benchmarks.ablation_cells import OWNED, RECIPE, ROWS, cells
from benchmarks.ablation_runs import Plan, Runner
from benchmarks.provenance import provenance, readable
from pixel_env.command_line import Parser, UsageError, ending
from pixel_env.journal import replace_text


def report(plan: Plan, commits: Sequence[str]) -> None:
    """Write JSON, Markdown and picture of the cells that are done, which were run at these commits.

    Raises:
        UsageError: None is.
    """
    from benchmarks import ablation_report, ablation_tables, learning_trap  # torch takes seconds to import

    done = plan.done
    if not done:
        raise UsageError(f"expected at least one finished cell in {plan.out}, got none; run without --report")
    figures = ablation_report.result(plan.out, ablation_report.readings(plan.out, done))
    missing = [str(cell) for cell in plan.cells if cell not in done]
    written: dict[str, Any] = {
        **provenance(("torch", "transformers", "trl", "gymnasium", "numpy")),
        "commits_of_cells": commits,
        "model": Path(plan.model).name,
        "options": plan.options,
        "missing": missing,
        **figures,
    }
    replace_text(plan.out / "ablations.json", readable(written))
    head = [
        f"`{written['command']}`, {written['date']}, commit {', '.join(commits)}",
        f"{written['machine']['cpu']}, {written['machine']['cores']} cores",
        f"base {written['model']}; options of every cell: `{' '.join(plan.options)}`",
        *([f"not done yet: {', '.join(missing)}"] if missing else []),
    ]
    text = ablation_tables.markdown(figures, head)
    replace_text(plan.out / "ablations.md", text)
    learning_trap.draw(figures["curves"], plan.out / "learning_trap.png")
    ablation_report.pack(plan.out, done)
    print(text.partition("## RaPR")[0].strip(), f"all of it: {plan.out / 'ablations.md'}", sep="\n\n")


def parse(argv: Sequence[str] | None) -> tuple[Plan, argparse.Namespace]:
    """Read the command line.

    Raises:
        UsageError: Anything that a cell would refuse.
    """
    formatter = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="ablations.py", description=__doc__, formatter_class=formatter, allow_abbrev=False)
    add = parser.add_argument
    add("--rows", nargs="+", choices=tuple(ROWS), default=tuple(ROWS), metavar="ROW", help=f"of {' '.join(ROWS)} (all)")
    add("--seeds", type=int, default=5, help="seeds of warm start, full recipe and no curiosity (%(default)s)")
    add("--other-seeds", type=int, default=3, help="seeds of the other rows (%(default)s)")
    add("--test-tasks", type=int, default=500, help="test tasks a suite (%(default)s)")
    add("--demonstrations", type=int, default=640, help="of a warm start; see ROWS for the others (%(default)s)")
    add("--model", default=run_settings.parser("").get_default("model"), help="the base (%(default)s)")
    add("--jobs", type=int, default=1, help="cells at a time, which share the cores (%(default)s)")
    add("--out", type=Path, default=Path("runs/ablations"), help="folder of everything (%(default)s)")
    add("--plan", action="store_true", help="only print the cells and what is missing")
    add("--report", action="store_true", help="only write the tables of what is done")
    arguments, more = parser.parse_known_args(argv)
    for name in ("seeds", "other_seeds", "test_tasks", "jobs"):
        if getattr(arguments, name) < 1:
            raise UsageError(f"expected --{name.replace('_', '-')} of at least 1, got {getattr(arguments, name)}")
    if arguments.other_seeds > arguments.seeds:
        raise UsageError(f"expected --other-seeds of at most --seeds, got {arguments.other_seeds} > {arguments.seeds}")
    if taken := [word for word in more if word.partition("=")[0] in OWNED]:
        raise UsageError(f"{' '.join(taken)} tells the cells apart and cannot be given to all of them")
    listed = tuple(cells(arguments.seeds, arguments.other_seeds, arguments.rows))
    counts = ("--demonstrations", str(arguments.demonstrations), "--test-tasks", str(arguments.test_tasks))
    options = (*RECIPE, *counts, *more)
    plan = Plan(arguments.out, listed, arguments.model, options, arguments.jobs)
    plan.check()
    return plan, arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    with ending("ablations.py") as end:
        plan, arguments = parse(argv)
        if arguments.plan:
            print(plan.table())
            return 0
        kept = plan.prepare(running=not arguments.report)
        failed = [] if arguments.report else Runner(plan).run()
        report(plan, kept["commits"])
        end.code = 1 if failed else 0
    return end.code


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stop ends the trainings, too
    sys.exit(main())
