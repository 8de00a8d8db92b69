"""The rows of the ablation and their cells: which training runs they are, and what has been done of them.

A cell is one run of `agents/train_vlm.py` in a folder of its own. Rows that go on from the weights of another row take
those of the same seed, so a warm start is trained once a seed.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Row:
    """One row: a recipe, run with several seeds.

    Attributes:
        title: Its name in tables.
        stages: What is trained, in words of `train_vlm.py`; nothing: the weights are only evaluated.
        options: Further words of its command line.
        start: The row whose weights it starts from; "": those of the base.
        seeds: "all" that are asked for, the "few" of the other rows, or "one", where nothing is drawn at random.
        times: Its demonstrations, as a multiple of those of the other rows.
        paper: Its name in `benchmarks.table1.QUOTED`; "" if the paper does not have it.
    """

    title: str
    stages: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    start: str = ""
    seeds: Literal["all", "few", "one"] = "few"
    paper: str = ""
    times: int = 1


MOSTLY_LOOKS = ("--textual-share", "0.1")
ROWS: dict[str, Row] = {
    "base": Row("base", seeds="one"),
    "instructed": Row("instructed base", ("warm_start",), ("--textual-share", "1"), seeds="all", times=5),
    "warm_start": Row(
        "warm start only", ("warm_start",), MOSTLY_LOOKS, "instructed", seeds="all", paper="warm start, no RL"
    ),
    "full": Row("full", ("rl",), start="warm_start", seeds="all", paper="Pixel-Reasoner-7B"),
    "no_curiosity": Row(
        "RL without curiosity", ("rl",), ("--alpha", "0"), "warm_start", seeds="all", paper="RL without curiosity"
    ),
    "no_warm_start": Row("RL without warm start", ("rl",), (), "instructed", paper="RL without warm start"),
    "no_corrections": Row(
        "RL without self-correction data",
        ("warm_start", "rl"),
        ("--no-corrections", *MOSTLY_LOOKS),
        "instructed",
        paper="RL without correction data",
    ),
    "released": Row("released reward", ("rl",), ("--reward-variant", "released"), "warm_start"),
    "neither": Row("RL without warm start, without curiosity", ("rl",), ("--alpha", "0"), "instructed"),
    "base_no_operations": Row(
        "instructed base, no operations", (), ("--no-operations",), "instructed", paper="Qwen2.5-VL-7B"
    ),
    "full_no_operations": Row("full, no operations", (), ("--no-operations",), "full", seeds="all"),
}
"""Rows by the names of their folders, each behind the one that it starts from.

The paper starts from a model that answers half of its questions from the first view, in the very prompt that offers
operations; the micro base does so only in prompts that offer none. "instructed" mends that: demonstrations that answer
at once, and no other. All rows below start from it. A warm start on top of that answers most questions at once, where
the paper's looks in 55% of rollouts; with fewer demonstrations that answer at once (`MOSTLY_LOOKS`) it does in 40%.
"neither" is there for the curves: what the trap looks like from the base. The last two play the same tasks with the
same weights while no operation is on offer; that is how the paper measures its base (issue 37 of its repository).
"""

RECIPE = (
    *("--levels", "0", "1", "2", "--rl-steps", "80", "--scale-rewards", "group"),
    *("--no-freeze-vision", "--no-rl-freeze-vision"),
)
"""Options of every cell, before those given: what makes the starting point that of the paper, see `ROWS`.

With level 0 no question tells whether a look is needed; the warm start is short, so that operations still fail and
looking pays less than answering; advantages are divided by the deviation of their group, as in GRPO.
"""

PAPERS = ("warm_start", "no_curiosity", "no_warm_start", "no_corrections")
"""The ablations of the paper's Table 1, each of which the full recipe is compared with."""

OWNED = (
    "--seed", "--out", "--resume", "--stages", "--evaluate", "--alpha", "--reward-variant", "--no-corrections",
    "--no-operations", "--textual-share",
)  # fmt: skip
"""Options of `train_vlm.py` that tell the cells apart; the others may be passed through."""


@dataclass(frozen=True)
class Cell:
    """One run: a row with a seed."""

    row: str
    seed: int

    def __str__(self) -> str:
        return f"{self.row} seed {self.seed}"

    @property
    def needs(self) -> "Cell | None":
        """The cell whose weights it starts from."""
        start = ROWS[self.row].start
        return Cell(start, self.seed) if start else None

    def folder(self, out: Path) -> Path:
        """Its run folder."""
        return out / self.row / f"seed-{self.seed}"

    def weights(self, out: Path) -> Path:
        """What it leaves for those that go on from it."""
        return self.folder(out) / ROWS[self.row].stages[-1] / "model"

    def trajectories(self, out: Path) -> Path:
        """Test episodes of the model that comes last."""
        name = ROWS[self.row].stages[-1] if ROWS[self.row].stages else "base"
        return self.folder(out) / "trajectories" / f"{name}.jsonl"

    def state(self, out: Path) -> Literal["done", "begun", "missing"]:
        """How far it is; a run writes its report last."""
        folder = self.folder(out)
        done, begun = (folder / "report.md").exists(), (folder / "config.json").exists()
        return "done" if done else "begun" if begun else "missing"

    def arguments(self, out: Path, model: str, options: Sequence[str]) -> list[str]:
        """Words for `train_vlm.py`: how to begin, or to go on after a kill.

        Args:
            out: Folder of all cells.
            model: The base.
            options: Passed through, with the value of `--demonstrations` among them, which a row may have multiplied.
        """
        folder, row = self.folder(out), ROWS[self.row]
        if (folder / "config.json").exists():
            return ["--resume", "--out", str(folder)]
        start = str(self.needs.weights(out)) if self.needs else model
        demonstrations = row.times * int(options[options.index("--demonstrations") + 1])
        return [
            *("--model", start, "--stages", *row.stages, "--seed", str(self.seed), "--evaluate", "last"),
            *(*options, *row.options, "--demonstrations", str(demonstrations), "--out", str(folder)),
        ]


def cells(seeds: int, few: int, rows: Collection[str] = tuple(ROWS)) -> list[Cell]:
    """Return the cells, seed by seed, so that what is done after a while is balanced; each behind the one it needs.

    Args:
        seeds: Seeds of the rows that have all of them.
        few: Seeds of the other rows, at most `seeds`.
        rows: Names of rows; those whose weights they start from are added.

    >>> [str(cell) for cell in cells(2, 1, ["warm_start", "no_warm_start"])]
    ['instructed seed 0', 'warm_start seed 0', 'no_warm_start seed 0', 'instructed seed 1', 'warm_start seed 1']
    """
    wanted = set(rows)
    for name in reversed(ROWS):
        if name in wanted and ROWS[name].start:
            wanted.add(ROWS[name].start)
    counts = {"all": seeds, "few": few, "one": 1}
    return [Cell(name, k) for k in range(seeds) for name in ROWS if name in wanted and k < counts[ROWS[name].seeds]]
