"""The figures of an ablation as Markdown, the paper's beside them."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.ablation_cells import ROWS
from benchmarks.ablation_report import paper
from benchmarks.failure_modes import OUTCOMES
from benchmarks.learning_trap import OBSERVED
from benchmarks.table1 import SOURCE, STAND_INS

Figures = Mapping[str, Any]
"""What `ablation_report.result` gives, or one of its rows."""
Table = list[list[str]]

PAPER = SOURCE.partition(",")[0]


def markdown(figures: Figures, head: Sequence[str]) -> str:
    """Write figures as tables; `head` are lines on where they come from. Tables without a row are left out."""
    suites = [*figures["suites"], "all"]
    titles = [suite if suite == "all" else f"`{suite}` (after {STAND_INS[suite]})" for suite in suites]
    ahead, kinds = figures["full_ahead"], [name.replace("_", " ") for name in OUTCOMES]
    meanings = "".join(f"\n- {kind}: {meaning}" for kind, meaning in zip(kinds, OUTCOMES.values(), strict=True))
    sections = [
        _section(
            "Score on test tasks",
            "Percent, greedy, with 95% intervals over seeds and tasks; in brackets the paper's row on the benchmark "
            f"that the suite mirrors, which is another scale ({SOURCE}).",
            [["recipe", "seeds", *titles], *_scores(figures, suites)],
        ),
        _section(
            "Full recipe minus the others",
            "Points, paired over the seeds and tasks that both have, with 95% intervals; in brackets the difference in "
            f"the paper. The full recipe is ahead in {ahead['cells']} of {ahead['of']} cells of the paper's four "
            "ablations (paper: 16 of 16).",
            [["full minus", *titles], *_differences(figures, suites)],
        ),
        _section(
            "RaPR on test tasks",
            "Percent: of all tasks / of those that need an operation.",
            [["recipe", *titles, "operations that fail"], *_rapr(figures, suites)],
        ),
        _section(
            "With operations minus without",
            "Points; the same weights on the same tasks.",
            [["recipe", *titles], *_with_minus_without(figures, suites)],
        ),
        _section(
            "The first look",
            "On tasks that need an operation, episodes of all seeds that called one.",
            [
                ["recipe", "found the evidence", "missed it", "failed", "missed or failed, then corrected"],
                *_first_looks(figures),
            ],
        ),
        _section(
            "How answers go wrong",
            f"On tasks that need an operation, episodes of all seeds, percent.\n{meanings}",
            [["recipe", *kinds], *_outcomes(figures)],
        ),
        "## The learning trap\n\n![curves](learning_trap.png)",
        f"What the paper saw ({PAPER}):\n" + "".join(f"\n- {line}" for line in OBSERVED),
        _section("Seconds of training", "Mean of a seed.", [["recipe", "seconds"], *_seconds(figures)]),
    ]
    return "\n\n".join(["# Ablations", "\n".join(f"- {line}" for line in head), *filter(None, sections)]) + "\n"


def _section(title: str, text: str, table: Table) -> str:
    header, *rows = table
    if not rows:
        return ""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return f"## {title}\n\n{text}\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _scores(figures: Figures, suites: Sequence[str]) -> Table:
    table = []
    for row in figures["rows"].values():
        cells = [_interval(row["score"][suite]) for suite in suites]
        if row["paper"]:
            cells = [f"{cell} ({row['paper'][suite]:.1f})" for cell, suite in zip(cells, suites, strict=True)]
        table.append([row["title"], str(len(row["seeds"])), *cells])
    return table


def _differences(figures: Figures, suites: Sequence[str]) -> Table:
    full, table = paper(ROWS["full"].paper), []
    assert full is not None
    for row in figures["rows"].values():
        if "full_minus_this" in row:
            cells = [_interval(row["full_minus_this"][suite], "+") for suite in suites]
            if row["paper"]:
                quoted = [f"{full[suite] - row['paper'][suite]:+.1f}" for suite in suites]
                cells = [f"{cell} ({difference})" for cell, difference in zip(cells, quoted, strict=True)]
            table.append([row["title"], *cells])
    return table


def _rapr(figures: Figures, suites: Sequence[str]) -> Table:
    table = [
        [
            row["title"],
            *(f"{_percent(row['rapr'][suite]['mean'])} / {_percent(row['rapr_needed'][suite])}" for suite in suites),
            _percent(row["operation_error_rate"]),
        ]
        for row in _looking(figures)
    ]
    quoted = paper("Pixel-Reasoner-7B: RaPR")
    assert quoted is not None
    return [*table, [f"full, {PAPER}", *(f"{quoted[suite]:.2f}" for suite in suites), "-"]]


def _with_minus_without(figures: Figures, suites: Sequence[str]) -> Table:
    found = figures["with_minus_without_operations"]
    return [[ROWS[name].title, *(_interval(row[suite], "+") for suite in suites)] for name, row in found.items()]


def _first_looks(figures: Figures) -> Table:
    table = []
    for row in _looking(figures):
        counts = row["first_look"]["all"]
        called = sum(counts[name] for name in ("found", "missed", "failed"))
        shares = [
            f"{counts[name]} ({_percent(counts[name] / max(1, called))}%)" for name in ("found", "missed", "failed")
        ]
        table.append([row["title"], *shares, f"{counts['corrected']} of {counts['missed'] + counts['failed']}"])
    return table


def _outcomes(figures: Figures) -> Table:
    table = []
    for row in _looking(figures):
        counts = row["outcomes"]["all"].values()
        table.append([row["title"], *(_percent(count / max(1, sum(counts))) for count in counts)])
    return table


def _seconds(figures: Figures) -> Table:
    table = []
    for name, by_seed in figures["seconds"].items():
        stages = {stage: [of[stage] for of in by_seed.values() if stage in of] for stage in ROWS[name].stages}
        said = [f"{stage.replace('_', ' ')} {fmean(took):.0f}" for stage, took in stages.items() if took]
        table += [[ROWS[name].title, ", ".join(said)]] if said else []
    return table


def _looking(figures: Figures) -> list[Figures]:
    """The rows with operations on offer."""
    return [row for name, row in figures["rows"].items() if "--no-operations" not in ROWS[name].options]


def _interval(interval: Mapping[str, float] | None, sign: str = "") -> str:
    if interval is None:
        return "-"
    mean, low, high = (format(100 * interval[name], f"{sign}.1f") for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
