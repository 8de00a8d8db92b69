"""The ablations of the paper's Table 1, the learning trap, and how answers go wrong, in one command.

    python benchmarks/ablations.py --plan                          # what there is to do
    python benchmarks/ablations.py                                 # everything, in runs/ablations
    python benchmarks/ablations.py --report                        # only the tables of what is done so far
    python benchmarks/ablations.py --seeds 1 --other-seeds 1 --rl-steps 20 --demonstrations 800    # a first look

Every cell, a recipe with a seed, is a run of agents/train_vlm.py in a folder of its own; options that this command does
not know are passed through to it. After a stop or a kill the same command goes on: cells that are done are kept, the
one that was at work continues from its checkpoint. Leaves ablations.json, ablations.md and learning_trap.png.
"""

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from agents import run_settings
from agents.run_settings import Parser, UsageError
from benchmarks.ablation_cells import OWNED, ROWS, Cell, cells
from benchmarks.provenance import commit, provenance

TRAIN = Path(__file__).parents[1] / "agents" / "train_vlm.py"
POLL = 5.0
"""Seconds between two looks at how far a cell is."""


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        out: Folder of everything.
        cells: In order.
        model: The base.
        options: Passed through to every cell, the number of test tasks included.
        jobs: Cells at a time.
    """

    out: Path
    cells: tuple[Cell, ...]
    model: str
    options: tuple[str, ...]
    jobs: int

    @property
    def done(self) -> list[Cell]:
        """The cells that are finished."""
        return [cell for cell in self.cells if cell.state(self.out) == "done"]

    def prepare(self, running: bool) -> dict[str, Any]:
        """Write down and return what the cells have in common, or check that the folder holds the same.

        Args:
            running: Cells will be run, at the commit of now.

        Raises:
            UsageError: The folder cannot be written, or holds cells with other settings.
        """
        path = self.out / "settings.json"
        kept: dict[str, Any] = {"model": self.model, "options": list(self.options), "commits": []}
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            if path.exists():
                found = json.loads(path.read_text(encoding="utf-8"))
                for name in ("model", "options"):
                    if found[name] != kept[name]:
                        raise UsageError(
                            f"{self.out} holds cells with {name} {found[name]}, got {kept[name]}; choose another --out"
                        )
                kept = found
            if running:
                kept["commits"] = list(dict.fromkeys([*kept["commits"], commit()]))
            path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
            return kept
        except OSError as error:
            raise UsageError(f"cannot write to {self.out}: {error.strerror}; choose another --out") from None
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} is not of an ablation: {error}") from None

    def check(self) -> None:
        """Raise UsageError for what `train_vlm.py` would refuse in every cell."""
        run_settings.parse([*self.options, "--model", self.model, "--out", str(self.out / "none")], "")

    def table(self) -> str:
        """Return a line a cell."""
        states = [(cell, cell.state(self.out)) for cell in self.cells]
        lines = [
            f"{state:8}{cell.row:20}seed {cell.seed}" + (f"   from {cell.needs}" if cell.needs else "")
            for cell, state in states
        ]
        missing = sum(state != "done" for _, state in states)
        return "\n".join([*lines, f"{missing} of {len(states)} cells to do in {self.out}"])


class Runner:
    """Runs the cells of a plan that are not done, several at a time, each behind the one it needs."""

    def __init__(self, plan: Plan) -> None:
        """Run the cells of `plan`.

        Raises:
            UsageError: A command is at work in the folder, or a training that a killed one has left behind.
        """
        self.plan = plan
        self.children: list[subprocess.Popen[bytes]] = []
        self.lock = (plan.out / "lock").open("w")  # trainings inherit it, so it is held until the last of them ends
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.lock.close()
            raise UsageError(f"cells are being run in {plan.out}; wait, or choose another --out") from None

    def run(self) -> list[Cell]:
        """Run what is missing; returns the cells that failed."""
        plan, results = self.plan, dict[Cell, Future[bool]]()
        with tqdm(total=len(plan.cells), initial=len(plan.done), desc="cells", unit="cell") as self.bar:
            pool = ThreadPoolExecutor(plan.jobs)
            try:
                for cell in plan.cells:  # one behind another, so what a cell waits for has begun before it
                    needs = results.get(cell.needs) if cell.needs else None
                    results[cell] = pool.submit(self._cell, cell, needs)
                return [cell for cell, future in results.items() if not future.result()]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                for child in self.children:
                    child.terminate()
                self.lock.close()

    def _cell(self, cell: Cell, needs: "Future[bool] | None") -> bool:
        if cell.state(self.plan.out) == "done":
            return True
        if needs is not None and not needs.result():
            self.bar.write(f"{cell}: left out, it needs {cell.needs}")
            return False
        begun = time.perf_counter()
        code = self._train(cell)
        if code or cell.state(self.plan.out) != "done":
            log = cell.folder(self.plan.out).with_suffix(".log")
            last = log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()[-1:]
            self.bar.write(f"{cell}: failed with exit code {code}, see {log}: {''.join(last)}")
            return False
        self.bar.write(f"{cell}: {time.perf_counter() - begun:.0f} s")
        self.bar.update()
        return True

    def _train(self, cell: Cell) -> int:
        """Run a cell; returns its exit code. What it says goes to a file beside its folder."""
        plan, folder = self.plan, cell.folder(self.plan.out)
        folder.parent.mkdir(parents=True, exist_ok=True)
        threads = max(1, (os.cpu_count() or 1) // plan.jobs)
        command = [sys.executable, str(TRAIN), *cell.arguments(plan.out, plan.model, plan.options)]
        with folder.with_suffix(".log").open("ab") as log:
            environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
            child = subprocess.Popen(command, stdout=log, stderr=log, env=environment, pass_fds=(self.lock.fileno(),))
            self.children.append(child)
            while True:
                try:
                    return child.wait(POLL)
                except subprocess.TimeoutExpired:
                    self.bar.set_postfix_str(f"{cell}: {_place(folder)}")


def _place(folder: Path) -> str:
    """Say how far a run is, from the last whole line that it logged."""
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    if not lines:
        return "begun"
    row = json.loads(lines[-1])
    return f"{row['stage']} {row['step']}"


def report(plan: Plan, commits: Sequence[str]) -> None:
    """Write JSON, Markdown and picture of the cells that are done, which were run at these commits.

    Raises:
        UsageError: None is.
    """
    from benchmarks import ablation_report, learning_trap  # torch takes seconds to import

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
    (plan.out / "ablations.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    head = [
        f"`{written['command']}`, {written['date']}, commit {', '.join(commits)}",
        f"{written['machine']['cpu']}, {written['machine']['cores']} cores",
        f"base {written['model']}; options of every cell: `{' '.join(plan.options)}`",
        *([f"not done yet: {', '.join(missing)}"] if missing else []),
    ]
    text = ablation_report.markdown(figures, head)
    (plan.out / "ablations.md").write_text(text, encoding="utf-8")
    learning_trap.draw(figures["curves"], plan.out / "learning_trap.png")
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
    options = ("--test-tasks", str(arguments.test_tasks), *more)
    plan = Plan(arguments.out, listed, arguments.model, options, arguments.jobs)
    plan.check()
    return plan, arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        plan, arguments = parse(argv)
        if arguments.plan:
            print(plan.table())
            return 0
        kept = plan.prepare(running=not arguments.report)
        failed = [] if arguments.report else Runner(plan).run()
        report(plan, kept["commits"])
    except UsageError as error:
        print(f"ablations.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; go on with the same command", file=sys.stderr)
        return 130
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stop ends the trainings, too
    sys.exit(main())
