"""What a run leaves to be read: metrics as they come, curves as a picture, and a Markdown report."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from transformers import TrainerCallback

from pixel_env.evaluation import Report, evaluate, paired_difference
from pixel_env.journal import append, replacing
from pixel_env.metrics import PANELS
from pixel_env.trajectory import Trajectory

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TITLES = {"base": "base", "warm_start": "warm start", "rl": "RL"}
"""Evaluated model: its name in the report, in order of training."""


class MetricsLog(TrainerCallback):
    """Appends what a trainer logs to a file of one JSON object a line."""

    def __init__(self, path: str | Path, stage: str) -> None:
        """Write to `path`, each row marked with `stage`."""
        self._path, self._stage = Path(path), stage

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Append one row."""
        if state.is_world_process_zero and logs:
            row = {"stage": self._stage, "step": state.global_step, "time": round(time.time(), 1)} | logs
            append(self._path, json.dumps(row))


def curves(metrics: Sequence[Mapping[str, Any]], reports: Mapping[str, Report], path: str | Path) -> None:
    """Draw what was logged, a panel a topic, and the scores of the evaluations by suite."""
    drawn = []
    for title, (stage, names) in PANELS.items():
        lines = {
            name: [(row["step"], row[name]) for row in metrics if row["stage"] == stage and name in row]
            for name in names
        }
        if lines := {name: points for name, points in lines.items() if points}:
            drawn.append((title, lines))
    columns = 3
    rows = -(-(len(drawn) + 1) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(5 * columns, 3.4 * rows), squeeze=False)
    for axis, (title, lines) in zip(axes.flat, drawn, strict=False):
        for name, points in lines.items():
            axis.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else None, label=name)
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    _draw_scores(axes.flat[len(drawn)], reports)
    for axis in list(axes.flat)[len(drawn) + 1 :]:
        axis.set_visible(False)
    figure.tight_layout()
    with replacing(Path(path)) as part:
        figure.savefig(part, dpi=110, format="png")
    plt.close(figure)


def _draw_scores(axis: Any, reports: Mapping[str, Report]) -> None:
    """Draw the score of every evaluated model on every suite, with its interval."""
    for number, (name, report) in enumerate(reports.items()):
        summaries = [*report.suites.values(), report.overall]
        scores = [summary.score for summary in summaries if summary.score is not None]
        if len(scores) < len(summaries):
            continue
        spread = [[max(s.mean - s.low, 0) for s in scores], [max(s.high - s.mean, 0) for s in scores]]  # of rounding
        places = [k + 0.25 * (number - 1) for k in range(len(scores))]
        axis.bar(places, [s.mean for s in scores], width=0.23, yerr=spread, capsize=2, label=TITLES[name])
        axis.set_xticks(range(len(scores)), [*report.suites, "all"])
    axis.set(title="Test score", ylim=(0, 1))
    axis.grid(alpha=0.3, axis="y")
    if axis.patches:
        axis.legend(fontsize=8)


def markdown(
    evaluations: Mapping[str, Sequence[Trajectory]],
    *,
    command: str,
    facts: Mapping[str, str],
    seed: int = 0,
) -> str:
    """Write the report of a run.

    Args:
        evaluations: test trajectories of each evaluated model, a key of `TITLES` each, of the same tasks.
        command: that made the run.
        facts: what else to say about it, a line each.
        seed: of the bootstrap.
    """
    names = [name for name in TITLES if name in evaluations]
    reports = {name: evaluate(evaluations[name], seed) for name in names}
    parts = ["# Training report", "", f"    {command}", "", *(f"- {key}: {value}" for key, value in facts.items()), ""]
    parts += ["## Score on test tasks", "", "Percent, with 95% intervals; greedy decoding.", ""]
    parts += [*_table(["suite", "tasks", *(TITLES[name] for name in names)], _scores(reports, names)), ""]
    parts += [
        "## RaPR",
        "",
        "Share of answers that looked closer, in percent: of all tasks / of those that need it.",
        "",
    ]
    parts += [*_table(["suite", *(TITLES[name] for name in names)], _looks(reports, names)), ""]
    if len(names) > 1:
        parts += ["## Differences on the same tasks", "", "Score, in points, with paired 95% intervals.", ""]
        pairs = list(zip(names[1:], names, strict=False))
        header = ["suite", *(f"{TITLES[later]} - {TITLES[earlier]}" for later, earlier in pairs)]
        parts += [*_table(header, _differences(evaluations, list(reports[names[0]].suites), pairs, seed)), ""]
    for name in names:
        parts += [f"## {TITLES[name]} in full", "", reports[name].to_markdown()]
    return "\n".join([*parts, "![curves](curves.png)", ""])


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def _summaries(report: Report) -> dict[str, Any]:
    return {**report.suites, "all": report.overall}


def _scores(reports: Mapping[str, Report], names: list[str]) -> list[list[str]]:
    first = _summaries(reports[names[0]])
    return [
        [suite, str(first[suite].tasks), *(str(_summaries(reports[name])[suite].score or "-") for name in names)]
        for suite in first
    ]


def _looks(reports: Mapping[str, Report], names: list[str]) -> list[list[str]]:
    rows = []
    for suite in _summaries(reports[names[0]]):
        cells = []
        for name in names:
            summary = _summaries(reports[name])[suite]
            needed = "-" if summary.rapr_needed is None else f"{100 * summary.rapr_needed:.1f}"
            cells.append(f"{summary.rapr or '-'} / {needed}")
        rows.append([suite, *cells])
    return rows


def _differences(
    evaluations: Mapping[str, Sequence[Trajectory]], suites: list[str], pairs: list[tuple[str, str]], seed: int
) -> list[list[str]]:
    rows = []
    for suite in [*suites, "all"]:
        cells = []
        for later, earlier in pairs:
            new, old = ([t for t in evaluations[name] if suite in (t.suite, "all")] for name in (later, earlier))
            if not _done(new) & _done(old):  # no answers, or nothing but files that cannot be decoded
                cells.append("-")
                continue
            mean, low, high = (100 * value for value in paired_difference(new, old, seed))
            cells.append(f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]")
        rows.append([suite, *cells])
    return rows


def _done(trajectories: Sequence[Trajectory]) -> set[tuple[str, str]]:
    """Return the tasks that were finished and have a score."""
    return {(t.suite, t.task_id) for t in trajectories if t.error is None and t.scored}
