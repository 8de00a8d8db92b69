"""Runs the cells of an ablation: which there are, what they have in common, and several of them at a time."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from agents import run_settings
from benchmarks.ablation_cells import Cell
from benchmarks.provenance import commit
from pixel_env.command_line import UsageError
from pixel_env.journal import replace_text

TRAIN = Path(__file__).parents[1] / "agents" / "train_vlm.py"
POLL = 1.0
"""Seconds between two looks at how far the cells are."""


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
        """Return what the cells have in common, checked against the folder; a run writes it down.

        Args:
            running: Cells will be run, at the commit of now.

        Raises:
            UsageError: The folder cannot be written, or holds cells with other settings.
        """
        path = self.out / "settings.json"
        kept: dict[str, Any] = {"model": self.model, "options": list(self.options), "commits": []}
        try:
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
                self.out.mkdir(parents=True, exist_ok=True)
                replace_text(path, json.dumps(kept, indent=1) + "\n")
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
    """Runs the cells of a plan that are not done, several at a time, each after the one that it needs."""

    def __init__(self, plan: Plan) -> None:
        """Run the cells of `plan`.

        Raises:
            UsageError: A command is at work in the folder, or a training that a killed one has left behind.
        """
        self.plan = plan
        self.running: dict[Cell, tuple[subprocess.Popen[bytes], float]] = {}
        self.lock = (plan.out / "lock").open("w")  # trainings inherit it, so it is held until the last of them ends
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.lock.close()
            raise UsageError(f"cells are being run in {plan.out}; wait, or choose another --out") from None

    def run(self) -> list[Cell]:
        """Run what is missing; returns the cells that failed, and those that would have needed them."""
        plan, failed = self.plan, list[Cell]()
        waiting = [cell for cell in plan.cells if cell.state(plan.out) != "done"]
        with tqdm(total=len(plan.cells), initial=len(plan.done), desc="cells", unit="cell") as bar, self.lock:
            try:
                while True:
                    ready = [cell for cell in waiting if not cell.needs or cell.needs.state(plan.out) == "done"]
                    for cell in ready[: plan.jobs - len(self.running)]:
                        waiting.remove(cell)
                        self._start(cell)
                    if not self.running:
                        return failed + waiting
                    time.sleep(POLL)
                    for cell, said in self._ended():
                        bar.write(said)
                        bar.update()
                        failed += [cell] if cell.state(plan.out) != "done" else []
                    places = ", ".join(f"{cell}: {_place(cell.folder(plan.out))}" for cell in self.running)
                    if places != bar.postfix:
                        bar.set_postfix_str(places)
            finally:
                for child, _ in self.running.values():
                    child.terminate()

    def _start(self, cell: Cell) -> None:
        """Start a cell; what it says goes to a file beside its folder."""
        plan, log = self.plan, _log(cell, self.plan.out)
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(TRAIN), *cell.arguments(plan.out, plan.model, plan.options)]
        environment = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // plan.jobs)), **os.environ}
        with log.open("ab") as file:
            child = subprocess.Popen(command, stdout=file, stderr=file, env=environment, pass_fds=(self.lock.fileno(),))
        self.running[cell] = child, time.perf_counter()

    def _ended(self) -> Iterator[tuple[Cell, str]]:
        """Take the cells out that have ended, and say how."""
        for cell, (child, begun) in list(self.running.items()):
            if (code := child.poll()) is None:
                continue
            del self.running[cell]
            said = f"{cell}: {time.perf_counter() - begun:.0f} s"
            if cell.state(self.plan.out) != "done":
                log = _log(cell, self.plan.out)
                last = log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()[-1:]
                said = f"{cell}: failed with exit code {code}, see {log}: {''.join(last)}"
            yield cell, said


def _log(cell: Cell, out: Path) -> Path:
    return cell.folder(out).with_suffix(".log")


def _place(folder: Path) -> str:
    """Say how far a run is, from the last whole line that it logged."""
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    if not lines:
        return "begun"
    row = json.loads(lines[-1])
    return f"{row['stage']} {row['step']}"
