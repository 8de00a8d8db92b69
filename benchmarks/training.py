"""The figures of training runs as small files: one run, or one with curiosity beside one without.

    python benchmarks/training.py runs/A                      # results/training.json
    python benchmarks/training.py runs/A --without runs/B     # and results/pilots.json, pilots.png

Reads what `agents/train_vlm.py` left in its run folders; runs nothing.
"""

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents.report import TITLES
from benchmarks.provenance import RESULTS, commit
from pixel_env import plot
from pixel_env.evaluation import evaluate, paired_difference
from pixel_env.journal import replace_text
from pixel_env.metrics import read_metrics
from pixel_env.trajectory import Trajectory, load_jsonl

CURVES = tuple(
    ("rl", name) for name in ("correctness", "rapr", "rapr_needed", "operations", "operation_error_rate", "curiosity")
)
"""Metrics of the picture."""
WINDOW = 5
"""Steps of the running mean that is drawn."""

Run = dict[str, list[Trajectory]]


def evaluations(folder: Path) -> Run:
    """Test trajectories of every evaluated model of a run, in order of training."""
    found = {name: folder / "trajectories" / f"{name}.jsonl" for name in TITLES}
    return {name: load_jsonl(path) for name, path in found.items() if path.exists()}


def percent(values: Sequence[float]) -> list[float]:
    """Values times 100, with one decimal."""
    return [round(100 * value, 1) for value in values]


def scores(played: Sequence[Trajectory]) -> dict[str, Any]:
    """Score with its interval, RaPR and operations by suite, in percent."""
    report = evaluate(played)
    rows = {}
    for suite, summary in {**report.suites, "all": report.overall}.items():
        assert summary.score is not None and summary.rapr is not None
        rows[suite] = {
            "score": percent([summary.score.mean, summary.score.low, summary.score.high]),
            "rapr": percent([summary.rapr.mean])[0],
            "rapr_needed": None if summary.rapr_needed is None else percent([summary.rapr_needed])[0],
            "operations": round(summary.mean_operations or 0.0, 2),
        }
    return rows


def difference(later: Sequence[Trajectory], earlier: Sequence[Trajectory]) -> dict[str, list[float]]:
    """Paired difference in score by suite, in points, with its 95% interval."""
    suites = sorted({t.suite for t in later})
    parts = {s: [[t for t in side if t.suite == s] for side in (later, earlier)] for s in suites}
    return {suite: percent(paired_difference(*part)) for suite, part in (parts | {"all": [later, earlier]}).items()}


def summary(folder: Path) -> dict[str, Any]:
    """The figures of a run."""
    config, run = json.loads((folder / "config.json").read_text(encoding="utf-8")), evaluations(folder)
    names = list(run)
    rows = read_metrics(folder / "metrics.jsonl")
    return {
        "commit": commit(),
        "settings": config["settings"] | {"model": Path(config["settings"]["model"]).name},
        "machine": config["machine"],
        "test_tasks": len(run[names[0]]),
        "seconds": {row["stage"]: round(row["train_runtime"]) for row in rows if "train_runtime" in row},
        **{TITLES[name]: scores(run[name]) for name in names},
        **{
            f"{TITLES[later]} - {TITLES[earlier]}": difference(run[later], run[earlier])
            for earlier, later in itertools.pairwise(names)
        },
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a results file."""
    text = json.dumps(content, indent=1)
    replace_text(path, text + "\n")
    print(path)


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--without", type=Path, help="folder of the same run with --alpha 0")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder to write to (benchmarks/results)")
    arguments = parser.parse_args()
    for folder in (arguments.run, arguments.without):
        if folder and len(evaluations(folder)) < 2:
            parser.error(f"expected a finished run with two evaluated models or more in {folder}")
    write(arguments.out / "training.json", summary(arguments.run))
    if arguments.without:
        both = {"with curiosity": arguments.run, "without curiosity": arguments.without}
        played = [evaluations(folder)["rl"] for folder in both.values()]
        content: dict[str, Any] = {name: summary(folder) for name, folder in both.items()}
        write(arguments.out / "pilots.json", content | {"with - without": difference(*played)})
        curves = {label: [read_metrics(folder / "metrics.jsonl")] for label, folder in both.items()}
        plot.save(plot.draw(curves, CURVES, WINDOW), arguments.out / "pilots.png")


if __name__ == "__main__":
    main()
