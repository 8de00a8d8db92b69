"""From the cells of an ablation that are done to its figures."""

import dataclasses
import json
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm import tqdm

from benchmarks.ablation_cells import PAPERS, ROWS, Cell
from benchmarks.failure_modes import OUTCOMES, Reading, read
from benchmarks.learning_trap import LINES, curves
from benchmarks.seed_bootstrap import crossed_bootstrap, differences, table
from benchmarks.table1 import COLUMNS, QUOTED, SOURCE, STAND_INS
from pixel_env.journal import replace_text, replacing
from pixel_env.metrics import read_metrics
from pixel_env.trajectory import load_jsonl, made_as

Readings = Mapping[str, Mapping[int, Sequence[Reading]]]
"""Row: seed: the test episodes that were finished."""

WITHOUT = {"instructed": "base_no_operations", "full": "full_no_operations"}
"""Row: the same weights on the same tasks without operations."""

READINGS = "readings.jsonl"
"""Name, in the folder of a cell, of what was read of its test episodes."""


def readings(out: Path, cells: Sequence[Cell], progress: bool = True) -> dict[str, dict[int, list[Reading]]]:
    """Read the test episodes of cells that are done: once, since they are played again, and then what was kept of them.

    After a change to how episodes are read, delete the files `readings.jsonl`.
    """
    found: dict[str, dict[int, list[Reading]]] = defaultdict(dict)
    for cell in tqdm(cells, desc="read cells", disable=not progress):
        kept = cell.folder(out) / READINGS
        if not kept.exists():
            rows = [dataclasses.asdict(reading) for reading in _read(cell.trajectories(out))]
            replace_text(kept, "".join(json.dumps(row) + "\n" for row in rows))
        lines = kept.read_text(encoding="utf-8").splitlines()
        found[cell.row][cell.seed] = [Reading(**json.loads(line)) for line in lines]
    return dict(found)


def _read(path: Path) -> list[Reading]:
    played = [t for t in load_jsonl(path) if t.error is None]
    env = made_as(played[0])
    found = [read(trajectory, env) for trajectory in played]
    env.close()
    return found


def pack(out: Path, cells: Sequence[Cell]) -> None:
    """Write cells.tar.xz: of cells that have been read all that a report needs, a hundredth of their folders.

    Unpacked in an empty folder it gives the same report, and with the same settings the command goes on from there;
    only a cell that starts from the weights of one of these needs that one trained again.
    """
    with replacing(out / "cells.tar.xz") as part, tarfile.open(part, "w:xz") as archive:
        for path in (out / "settings.json", *(f for cell in cells for f in sorted(cell.folder(out).glob("*.jsonl")))):
            if path.exists():
                archive.add(path, path.relative_to(out), filter=_anonymous)
        for cell in cells:  # empty: that there is one says that the cell is done, what it says is of this machine
            archive.addfile(tarfile.TarInfo(str(cell.folder(Path()) / "report.md")))


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def result(out: Path, found: Readings) -> dict[str, Any]:
    """Return all figures.

    Args:
        out: Folder of the cells.
        found: What `readings` gave of them.
    """
    suites = [suite for suite in STAND_INS if any(r.suite == suite for runs in found.values() for r in _all(runs))]
    rows = {name: _row(name, found[name], suites) for name in ROWS if name in found}
    full = found.get("full", {})
    for name, row in rows.items():
        if name != "full" and full:
            row["full_minus_this"] = _difference(found, "full", name, suites)
    cells = [row["full_minus_this"][suite] for name, row in rows.items() if name in PAPERS and full for suite in suites]
    compared = [cell for cell in cells if cell is not None]
    return {
        "suites": suites,
        "paper": SOURCE,
        "full_ahead": {"cells": sum(cell["mean"] > 0 for cell in compared), "of": len(compared)},
        "rows": rows,
        "with_minus_without_operations": {
            name: _difference(found, name, without, suites)
            for name, without in WITHOUT.items()
            if name in found and without in found
        },
        "curves": {
            name: curves([Cell(name, seed).folder(out) for seed in found[name]]) for name in LINES if name in found
        },
        "seconds": {name: {seed: seconds(Cell(name, seed).folder(out)) for seed in found[name]} for name in rows},
    }


def _row(name: str, runs: Mapping[int, Sequence[Reading]], suites: Sequence[str]) -> dict[str, Any]:
    everything = _all(runs)
    operations = sum(r.operations for r in everything)
    return {
        "title": ROWS[name].title,
        "seeds": list(runs),
        "tasks": len(next(iter(runs.values()))),
        "score": _by_suite(suites, lambda suite: _interval(_values(runs, "score", suite))),
        "paper": paper(ROWS[name].paper),
        "rapr": _by_suite(suites, lambda suite: _interval(_values(runs, "used", suite))),
        "rapr_needed": _by_suite(suites, lambda s: _share(r.used for r in everything if r.needed and _in(r, s))),
        "operation_error_rate": sum(r.errors for r in everything) / operations if operations else None,
        "first_look": _by_suite(suites, lambda suite: first_looks([r for r in everything if _in(r, suite)])),
        "outcomes": _by_suite(suites, lambda suite: outcomes([r for r in everything if _in(r, suite)])),
    }


def first_looks(some: Sequence[Reading]) -> dict[str, int]:
    """Count what the first operation gave where one is needed, and how often a later one made up for it."""
    counted = Counter(r.first for r in some if r.first)
    counts = {name: counted[name] for name in ("found", "missed", "failed")}
    return counts | {"corrected": sum(r.corrected for r in some)}


def outcomes(some: Sequence[Reading]) -> dict[str, int]:
    """Count the outcomes of episodes on tasks that need an operation."""
    counted = Counter(r.outcome for r in some if r.outcome)
    return {name: counted[name] for name in OUTCOMES}


def paper(name: str, quoted: Sequence[tuple[str, Sequence[float | None]]] = QUOTED) -> dict[str, float | None] | None:
    """Return the paper's figures of a row of its table by the suite that stands in, and their mean."""
    for title, values in quoted:
        if title == name:
            by_column = dict(zip(COLUMNS, values, strict=True))
            known = [value for value in values if value is not None]
            return {**{suite: by_column[column] for suite, column in STAND_INS.items()}, "all": round(fmean(known), 3)}
    return None


def seconds(folder: Path) -> dict[str, int]:
    """Return the seconds that each stage of a run trained; what a kill cut off is not counted."""
    rows = read_metrics(folder / "metrics.jsonl")
    return {row["stage"]: round(row["train_runtime"]) for row in rows if "train_runtime" in row}


def _by_suite(suites: Sequence[str], of: Callable[[str], Any]) -> dict[str, Any]:
    return {suite: of(suite) for suite in (*suites, "all")}


def _in(reading: Reading, suite: str) -> bool:
    return suite in (reading.suite, "all")


def _all(runs: Mapping[int, Sequence[Reading]]) -> list[Reading]:
    return [reading for some in runs.values() for reading in some]


def _values(runs: Mapping[int, Sequence[Reading]], name: str, suite: str) -> dict[int, dict[tuple[str, str], float]]:
    return {
        seed: {(r.suite, r.task_id): float(getattr(r, name)) for r in some if _in(r, suite)}
        for seed, some in runs.items()
    }


def _interval(runs: Mapping[int, Mapping[tuple[str, str], float]]) -> dict[str, float] | None:
    values = table(runs)
    return dataclasses.asdict(crossed_bootstrap(values)) if values.size else None


def _difference(found: Readings, a: str, b: str, suites: Sequence[str]) -> dict[str, Any]:
    """Compare two rows, a minus b, by suite: the seeds that both have, on the same tasks."""
    sides = [found[a], found[b]]
    if ROWS[b].seeds == "one":  # the same weights and greedy: what it would have with any seed
        sides[1] = dict.fromkeys(found[a], found[b][0])

    def of(suite: str) -> dict[str, Any] | None:
        values = differences(*(_values(runs, "score", suite) for runs in sides))
        if not values.size:
            return None
        return {**dataclasses.asdict(crossed_bootstrap(values)), "seeds": len(values), "tasks": values.shape[1]}

    return _by_suite(suites, of)


def _share(flags: Any) -> float | None:
    listed = list(flags)
    return fmean(listed) if listed else None
