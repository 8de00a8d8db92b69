"""What training runs log, `metrics.jsonl`: read back, smoothed, and put together over runs of several seeds."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

PANELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Warm start: loss": ("warm_start", ("loss",)),
    "Warm start: token accuracy": ("warm_start", ("mean_token_accuracy",)),
    "RL: reward": ("rl", ("reward", "correctness")),
    "RL: correctness with and without operations": ("rl", ("correctness_pixel", "correctness_textual")),
    "RL: curiosity and penalty": ("rl", ("curiosity", "operation_penalty")),
    "RL: rate of pixel-space reasoning": ("rl", ("rapr", "rapr_needed")),
    "RL: operations a rollout": ("rl", ("operations", "operation_errors")),
    "RL: operations that fail, and are repaired": ("rl", ("operation_error_rate", "repair_rate")),
    "RL: share of the evidence in what was looked at": ("rl", ("cue_coverage",)),
    "RL: what goes wrong": ("rl", ("malformed_rate", "truncation_rate", "cut_rate", "broken_rate")),
    "RL: uniform groups": ("rl", ("uniform_groups",)),
    "RL: entropy": ("rl", ("entropy",)),
    "RL: rollouts a second": ("rl", ("rollouts_per_second",)),
    "RL: tokens a second": ("rl", ("tokens_per_second",)),
}
"""What is worth looking at, in order of training. Title: the stage and its metrics."""

Rows = Sequence[Mapping[str, Any]]
"""What one run logged: a row has a "stage", a "step" and metrics by name."""

Curve = dict[str, list[float | None]]
"""Lists of one length: "step", and "mean", "low", "high" over the runs; None where nothing was logged."""


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Read a file of metrics; of steps that were done twice, because the run was killed, the later row counts.

    A last line that a kill cut short is left out; without a file there are no rows.
    """
    rows: dict[tuple[str, int, bool], dict[str, Any]] = {}
    if not Path(path).exists():
        return []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        rows[row["stage"], row["step"], is_summary(row)] = row
    return sorted(rows.values(), key=lambda row: (row["stage"], row["step"]))


def is_summary(row: Mapping[str, Any]) -> bool:
    """Whether a row sums up a stage that ended; it has the number of the last step."""
    return "train_runtime" in row


def curve(runs: Iterable[Rows], stage: str, name: str, window: int) -> Curve:
    """Return the running mean of a metric: its mean, least and most over runs that differ in their seed.

    A step in which a run logged nothing, or what means nothing (the share of failed operations where none was called),
    is left out of its running mean.

    Args:
        runs: The rows of each run.
        stage: "warm_start" or "rl".
        name: Of the metric.
        window: Steps of the running mean; 1 for the values as they are.
    """
    logged = [[row for row in rows if row["stage"] == stage and not is_summary(row)] for rows in runs]
    steps = sorted({row["step"] for rows in logged for row in rows})
    values = [{row["step"]: float(row[name]) for row in rows if name in row} for rows in logged]
    means = [running_mean([of_run.get(step, math.nan) for step in steps], window) for of_run in values]
    columns = [[value for value in column if math.isfinite(value)] for column in zip(*means, strict=True)]
    found: Curve = {"step": list(steps)}
    for key, of in (("mean", fmean), ("low", min), ("high", max)):
        found[key] = [of(column) if column else None for column in columns]
    return found


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Return the mean of the last `window` values at each place, those that are not finite left out.

    >>> running_mean([1.0, float("nan"), 3.0], window=2)
    [1.0, 1.0, 3.0]
    """
    means = []
    for place in range(len(values)):
        part = [value for value in values[max(0, place - window + 1) : place + 1] if math.isfinite(value)]
        means.append(fmean(part) if part else math.nan)
    return means


def numbers(values: Iterable[float | None]) -> list[float]:
    """Return values with NaN, where a drawn line has a gap, in place of None."""
    return [math.nan if value is None else value for value in values]
