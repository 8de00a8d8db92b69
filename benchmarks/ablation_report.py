"""From the cells of an ablation that are done to its figures: a dictionary for JSON, and the same as Markdown."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import gymnasium as gym
from tqdm import tqdm

from agents.report import read_metrics
from benchmarks.ablation_cells import PAPERS, ROWS, Cell
from benchmarks.failure_modes import OUTCOMES, Reading, read
from benchmarks.learning_trap import LINES, OBSERVED, curves
from benchmarks.seed_bootstrap import crossed_bootstrap, differences, table
from benchmarks.table1 import COLUMNS, QUOTED, SOURCE, STAND_INS
from pixel_env.trajectory import load_jsonl

Readings = Mapping[str, Mapping[int, Sequence[Reading]]]
"""Row: seed: the test episodes that were finished."""

WITHOUT = {"base": "base_no_operations", "full": "full_no_operations"}
"""Row: the same weights on the same tasks without operations."""


def readings(out: Path, cells: Sequence[Cell], progress: bool = True) -> dict[str, dict[int, list[Reading]]]:
    """Read the test episodes of cells that are done."""
    found: dict[str, dict[int, list[Reading]]] = defaultdict(dict)
    for cell in tqdm(cells, desc="read cells", disable=not progress):
        played = [t for t in load_jsonl(cell.trajectories(out)) if t.error is None]
        env = gym.make(played[0].env_id, **played[0].env_kwargs)
        found[cell.row][cell.seed] = [read(trajectory, env) for trajectory in played]
        env.close()
    return dict(found)


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


def markdown(figures: Mapping[str, Any], head: Sequence[str]) -> str:
    """Write the figures of `result` as tables; `head` are lines on where they come from."""
    rows, suites = figures["rows"], [*figures["suites"], "all"]
    titles = [suite if suite == "all" else f"`{suite}` (after {STAND_INS[suite]})" for suite in suites]
    parts = ["# Ablations", "", *(f"- {line}" for line in head), "", "## Score on test tasks", ""]
    parts += [
        "Percent, greedy, with 95% intervals over seeds and tasks; in brackets the paper's row on the benchmark that "
        f"the suite mirrors, which is another scale ({SOURCE}).",
        "",
    ]
    scores = [[row["title"], str(len(row["seeds"])), *_scores(row, suites)] for row in rows.values()]
    parts += [_table(["recipe", "seeds", *titles], scores), "", "## Full recipe minus the others", ""]
    ahead = figures["full_ahead"]
    parts += [
        "Points, paired over the seeds and tasks that both have, with 95% intervals; in brackets the difference in the "
        f"paper, on the benchmark that the suite mirrors ({SOURCE}). The full recipe is ahead in {ahead['cells']} of "
        f"{ahead['of']} cells of the paper's four ablations (paper: 16 of 16).",
        "",
    ]
    parts += [_table(["full minus", *titles], [_compared(rows, name, suites) for name in rows if name != "full"]), ""]
    parts += ["## RaPR on test tasks", "", "Percent: of all tasks / of those that need an operation.", ""]
    parts += [_table(["recipe", *titles, "operations that fail"], _looking(rows, suites)), ""]
    parts += ["## With operations minus without, same weights, same tasks", "", "Points.", ""]
    without = figures["with_minus_without_operations"]
    parts += [
        _table(["recipe", *titles], [[rows[n]["title"], *_cells(d, suites, "+")] for n, d in without.items()]),
        "",
    ]
    parts += ["## The first look", "", "On tasks that need an operation, episodes of all seeds that called one.", ""]
    looks = ["found the evidence", "missed it", "failed", "missed or failed, then corrected"]
    parts += [_table(["recipe", *looks], [[row["title"], *_first(row)] for row in rows.values()]), ""]
    parts += ["## How answers go wrong", "", "On tasks that need an operation, episodes of all seeds, percent.", ""]
    parts += [*(f"- {name.replace('_', ' ')}: {meaning}" for name, meaning in OUTCOMES.items()), ""]
    kinds = [name.replace("_", " ") for name in OUTCOMES]
    parts += [_table(["recipe", *kinds], [[row["title"], *_outcomes(row)] for row in rows.values()]), ""]
    parts += [
        "## The learning trap",
        "",
        "![curves](learning_trap.png)",
        "",
        f"What the paper saw ({SOURCE[:16]}):",
        "",
    ]
    parts += [*(f"- {line}" for line in OBSERVED), "", "## Seconds of training", ""]
    return "\n".join([*parts, _table(["recipe", "a seed each"], _costs(figures)), ""])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(intervals: Mapping[str, Mapping[str, float] | None], suites: Sequence[str], sign: str = "") -> list[str]:
    return [_cell(intervals[suite], sign) for suite in suites]


def _scores(row: Mapping[str, Any], suites: Sequence[str]) -> list[str]:
    cells, quoted = _cells(row["score"], suites), row["paper"]
    return [f"{cell} ({quoted[suite]:.1f})" for cell, suite in zip(cells, suites, strict=True)] if quoted else cells


def _cell(interval: Mapping[str, float] | None, sign: str = "") -> str:
    if interval is None:
        return "-"
    mean, low, high = (format(100 * interval[name], f"{sign}.1f") for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _compared(rows: Mapping[str, Any], name: str, suites: Sequence[str]) -> list[str]:
    row, ours, theirs = rows[name], rows[name].get("full_minus_this"), paper(ROWS["full"].paper)
    cells = []
    for suite in suites:
        cell = _cell(ours[suite], "+") if ours else "-"
        quoted = row["paper"] and theirs and (theirs[suite], row["paper"][suite])
        cells.append(f"{cell} ({quoted[0] - quoted[1]:+.1f})" if quoted and None not in quoted else cell)
    return [row["title"], *cells]


def _looking(rows: Mapping[str, Any], suites: Sequence[str]) -> list[list[str]]:
    lines = []
    for row in rows.values():
        pairs = [(row["rapr"][suite]["mean"], row["rapr_needed"][suite]) for suite in suites if row["rapr"][suite]]
        lines.append([row["title"], *(" / ".join(map(_percent, pair)) for pair in pairs)])
        lines[-1].append(_percent(row["operation_error_rate"]))
    quoted = paper("Pixel-Reasoner-7B: RaPR")
    assert quoted is not None
    return [*lines, [f"full, {SOURCE[:16]}", *(f"{quoted[suite]}" for suite in suites), "-"]]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _first(row: Mapping[str, Any]) -> list[str]:
    counts = row["first_look"]["all"]
    called, wrong = sum(counts[name] for name in ("found", "missed", "failed")), counts["missed"] + counts["failed"]
    shares = [f"{counts[name]} ({_percent(counts[name] / called)}%)" if called else "0" for name in ("found", "missed")]
    failed = f"{counts['failed']} ({_percent(counts['failed'] / called)}%)" if called else "0"
    return [*shares, failed, f"{counts['corrected']} of {wrong}"]


def _outcomes(row: Mapping[str, Any]) -> list[str]:
    counts = row["outcomes"]["all"]
    return [_percent(count / max(1, sum(counts.values()))) for count in counts.values()]


def _costs(figures: Mapping[str, Any]) -> list[list[str]]:
    lines = []
    for name, by_seed in figures["seconds"].items():
        stages = {stage: [of[stage] for of in by_seed.values() if stage in of] for stage in ROWS[name].stages}
        said = ", ".join(f"{stage.replace('_', ' ')} {fmean(took):.0f}" for stage, took in stages.items() if took)
        if said:
            lines.append([ROWS[name].title, said])
    return lines
