"""Draw the curves of training runs: `python -m pixel_env.plot RUN [RUN ...]`, one panel a metric.

Runs that differ in nothing but their seed are one line, their mean, in a band from the least to the most of them.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixel_env.journal import replacing
from pixel_env.metrics import PANELS, Rows, curve, is_summary, numbers, read_metrics

Metric = tuple[str, str]
"""A stage and the name of a metric in it."""

STAGES = tuple(dict.fromkeys(stage for stage, _ in PANELS.values()))
NOT_DRAWN = ("stage", "step", "time", "epoch")
COLUMNS = 3
FEW = 30
"""Curves of fewer steps are drawn with points."""


def read_run(path: Path) -> list[dict[str, Any]]:
    """Return what a run logged.

    Args:
        path: A run folder of `agents/train_vlm.py`, or its metrics.jsonl.

    Raises:
        ValueError: There is no such file, or it holds no metrics.
    """
    file = path / "metrics.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"expected the folder of a training run, which holds metrics.jsonl, got {path}: no {file}")
    try:
        rows = read_metrics(file)
    except (KeyError, TypeError, UnicodeDecodeError):
        rows = []
    if not any(not is_summary(row) for row in rows):
        raise ValueError(f"expected rows with a stage, a step and metrics in {file}, got none; has a step been logged?")
    return rows


def grouped(runs: Sequence[Path]) -> dict[str, list[Path]]:
    """Put runs together whose config.json differs in the seed only; a run without one stands alone.

    Returns:
        The runs of each group by its name, that of the folders.
    """
    groups: dict[str, list[Path]] = {}
    for run in runs:
        groups.setdefault(_made_with(run), []).append(run)
    short = [run.resolve().name for run in runs]
    names = {run: name if short.count(name) == 1 else str(run) for run, name in zip(runs, short, strict=True)}
    return {", ".join(names[run] for run in group): group for group in groups.values()}


def _made_with(run: Path) -> str:
    """Return what the settings of a run are compared by."""
    try:
        settings = json.loads((run / "config.json").read_text(encoding="utf-8"))["settings"]
        return json.dumps({name: value for name, value in settings.items() if name != "seed"}, sort_keys=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return str(run.resolve())


def logged(runs: Sequence[Rows]) -> list[Metric]:
    """Return all metrics that any of the runs logged, in order of training."""
    found = {
        (row["stage"], name): None
        for rows in runs
        for row in rows
        if not is_summary(row)
        for name, value in row.items()
        if name not in NOT_DRAWN and isinstance(value, int | float)
    }
    return sorted(found, key=lambda metric: (metric[0] != STAGES[0], metric))


def chosen(names: Sequence[str] | None, runs: Sequence[Rows]) -> list[Metric]:
    """Return the metrics to be drawn.

    Args:
        names: As ``"reward"``, in whatever stage, or ``"rl/reward"``; None for those of `PANELS`.
        runs: What was logged.

    Raises:
        ValueError: No run logged one of that name.
    """
    there = logged(runs)
    if names is None:
        usual = [(stage, name) for stage, of_panel in PANELS.values() for name in of_panel]
        return [metric for metric in usual if metric in there] or there
    found: dict[Metric, None] = {}
    for name in names:
        meant = [metric for metric in there if name in (metric[1], "/".join(metric))]
        if not meant:
            listed = ", ".join(map("/".join, there))
            raise ValueError(f"expected --metrics out of what was logged, {listed}, got {name!r}")
        found |= dict.fromkeys(meant)
    return list(found)


def draw(groups: Mapping[str, Sequence[Rows]], metrics: Sequence[Metric], window: int) -> Any:
    """Return a figure of matplotlib with one panel a metric, and in it one line a group.

    Args:
        groups: Name: the rows of its runs.
        metrics: What to draw.
        window: Steps of the running mean; of a run alone, the values themselves are drawn too, faintly.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('matplotlib is needed to draw: pip install matplotlib, or "pixel-env[agents]"') from error
    columns = min(COLUMNS, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(5 * columns, 3.4 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, (stage, name) in zip(axes.flat, metrics, strict=False):
        for place, runs in enumerate(groups.values()):
            _draw_group(axis, runs, stage, name, window, f"C{place % 10}")
        axis.set(title=f"{stage}/{name}", xlabel="step")
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(metrics) :]:
        axis.set_visible(False)
    _add_legend(figure, {name: len(runs) for name, runs in groups.items()})
    return figure


def _draw_group(axis: Any, runs: Sequence[Rows], stage: str, name: str, window: int, colour: str) -> None:
    found = {key: numbers(values) for key, values in curve(runs, stage, name, window).items()}
    if len(runs) > 1:
        axis.fill_between(found["step"], found["low"], found["high"], color=colour, alpha=0.18, linewidth=0)
    elif window > 1:
        axis.plot(found["step"], numbers(curve(runs, stage, name, 1)["mean"]), color=colour, alpha=0.25)
    axis.plot(found["step"], found["mean"], color=colour, marker="." if len(found["step"]) < FEW else None)


def _add_legend(figure: Any, sizes: Mapping[str, int]) -> None:
    """Name the groups below all panels; their lines are those of any panel, so they are drawn for the legend alone."""
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=f"C{place % 10}") for place in range(len(sizes))]
    names = [name if size == 1 else f"{name} ({size} runs)" for name, size in sizes.items()]
    title = "mean, and least to most of the runs" if max(sizes.values()) > 1 else None
    figure.legend(lines, names, loc="outside lower center", ncols=min(3, len(names)), title=title, frameon=False)


def save(figure: Any, out: Path) -> list[Path]:
    """Write a figure as PNG and SVG, or as one of them if `out` ends in its suffix; return the files."""
    from matplotlib import rc_context

    single = out.suffix in (".png", ".svg")
    paths = [out] if single else [out.with_name(out.name + suffix) for suffix in (".png", ".svg")]
    for path in paths:
        # Text stays text, and the same runs give the same bytes.
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "pixel_env"}), replacing(path) as part:
            dated = {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(part, dpi=110, format=path.suffix[1:], metadata=dated)
    return paths


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(
        prog="python -m pixel_env.plot",
        description="Draw the curves of training runs, a panel a metric. Runs that differ in their seed only are one "
        "line, their mean, in a band from the least to the most of them.",
        allow_abbrev=False,
    )
    add = command.add_argument
    add(
        "runs", nargs="*", type=Path, metavar="RUN",
        help="run folder of agents/train_vlm.py, or its metrics.jsonl; other folders beside one are left out",
    )  # fmt: skip
    add(
        "--group", nargs="+", action="append", default=[], metavar=("NAME", "RUN"),
        help="runs that are one line in any case, and its name; may be given several times",
    )  # fmt: skip
    add("--metrics", nargs="+", metavar="METRIC", help="such as reward, or rl/entropy (those of a report)")
    add("--window", type=int, default=5, help="steps of the running mean; 1 for none (%(default)s)")
    add(
        "-o", "--out", type=Path, default=Path("curves"),
        help="picture: NAME for NAME.png and NAME.svg, or one of them (%(default)s)",
    )  # fmt: skip
    return command


def _with_metrics(runs: Sequence[Path]) -> list[Path]:
    """Leave out folders without metrics.jsonl, as ``runs/*`` has them, and say so; return all if all are such."""
    left_out = [run for run in runs if run.is_dir() and not (run / "metrics.jsonl").is_file()]
    if not 0 < len(left_out) < len(runs):
        return list(runs)
    print(f"plot: without metrics.jsonl, left out: {', '.join(map(str, left_out))}", file=sys.stderr)
    return [run for run in runs if run not in left_out]


def groups_of(options: argparse.Namespace) -> dict[str, list[Path]]:
    """Return the runs of each line by its name.

    Raises:
        ValueError: There are none, two groups of one name, or one run twice in a group.
    """
    groups = grouped(_with_metrics(options.runs))
    for name, *runs in options.group:
        if not runs:
            raise ValueError(f"expected --group NAME RUN [RUN ...], got the name {name!r} alone")
        if name in groups:
            raise ValueError(
                f"expected groups of different names, got {name!r} twice; name all its runs in one --group"
            )
        groups[name] = _with_metrics([Path(run) for run in runs])
    if not groups:
        raise ValueError("expected at least one run, got none; give the folder of a training run")
    for name, members in groups.items():
        if len({run.resolve() for run in members}) < len(members):
            raise ValueError(f"expected each run of {name!r} once, got one twice: it would count as another seed")
    return groups


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 for input that cannot be used."""
    options = parser().parse_args(arguments)
    try:
        if options.window < 1:
            raise ValueError(f"expected --window of at least 1, got {options.window}")
        groups = {name: [read_run(run) for run in runs] for name, runs in groups_of(options).items()}
        metrics = chosen(options.metrics, [rows for runs in groups.values() for rows in runs])
        paths = save(draw(groups, metrics, options.window), options.out)
    except (ImportError, OSError, ValueError) as error:
        print(f"plot: {error}", file=sys.stderr)
        return 2
    for path in paths:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
