"""What training gives, as small files: runs of `agents/train_vlm.py` that differ in their seed, or one.

    for seed in 0 1 2; do python agents/train_vlm.py --test-tasks 500 --seed $seed --out runs/default/$seed; done
    python benchmarks/training.py runs/default/0 runs/default/1 runs/default/2   # results/training.json, .png

Reads what is in the run folders; runs nothing. Intervals are over seeds and test tasks.
"""

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from agents.report import TITLES
from benchmarks.provenance import RESULTS, commit, readable
from benchmarks.seed_bootstrap import Runs, crossed_bootstrap, differences, percent, table
from pixel_env import plot
from pixel_env.evaluation import evaluate
from pixel_env.journal import replace_text
from pixel_env.metrics import read_metrics
from pixel_env.trajectory import Trajectory, load_jsonl

CURVES = tuple(
    ("rl", name) for name in ("correctness", "rapr", "rapr_needed", "operations", "operation_error_rate", "curiosity")
)
"""Metrics of the picture."""
WINDOW = 5
"""Steps of the running mean that is drawn."""

Seeds = dict[int, list[Trajectory]]
"""Seed: what was played."""


def evaluations(folder: Path) -> dict[str, list[Trajectory]]:
    """Test trajectories of every evaluated model of a run, in order of training."""
    found = {name: folder / "trajectories" / f"{name}.jsonl" for name in TITLES}
    return {name: load_jsonl(path) for name, path in found.items() if path.exists()}


def by_suite(seeds: Seeds) -> dict[str, Seeds]:
    """The same suite by suite, then all of it."""
    suites = sorted({t.suite for played in seeds.values() for t in played})
    parts = {suite: {seed: [t for t in of if t.suite == suite] for seed, of in seeds.items()} for suite in suites}
    return parts | {"all": seeds}


def scored(seeds: Seeds) -> Runs[str]:
    """Score of each task, seed by seed, but for episodes that broke off."""
    return {seed: {t.task_id: t.score for t in played if t.error is None} for seed, played in seeds.items()}


def scores(seeds: Seeds) -> dict[str, Any]:
    """Score with its interval and by seed, RaPR and operations by suite, in percent."""
    rows = {}
    for suite, part in by_suite(seeds).items():
        reports = [evaluate(played).overall for played in part.values()]
        needed = [report.rapr_needed for report in reports if report.rapr_needed is not None]
        rows[suite] = {
            "score": percent(crossed_bootstrap(table(scored(part)))),
            "by_seed": [round(100 * fmean(of.values()), 1) for of in scored(part).values()],
            "rapr": round(100 * fmean(report.rapr.mean for report in reports if report.rapr), 1),
            "rapr_needed": round(100 * fmean(needed), 1) if needed else None,
            "operations": round(fmean(report.mean_operations or 0.0 for report in reports), 2),
        }
    return rows


def difference(later: Seeds, earlier: Seeds) -> dict[str, list[float]]:
    """Paired difference in score by suite, in points, with its interval."""
    a, b = by_suite(later), by_suite(earlier)
    return {suite: percent(crossed_bootstrap(differences(scored(a[suite]), scored(b[suite])))) for suite in a}


def summary(folders: Sequence[Path]) -> dict[str, Any]:
    """The figures of runs.

    Raises:
        ValueError: They differ in more than their seed, or one is not finished.
    """
    configs = [json.loads((folder / "config.json").read_text(encoding="utf-8")) for folder in folders]
    settings = [config["settings"] | {"model": Path(config["settings"]["model"]).name} for config in configs]
    seeds = [run.pop("seed") for run in settings]
    if len(set(seeds)) < len(seeds) or any(run != settings[0] for run in settings):
        raise ValueError("expected runs that differ in their seed and in nothing else")
    runs = {seed: evaluations(folder) for seed, folder in zip(seeds, folders, strict=True)}
    names = list(runs[seeds[0]])
    for folder, run in zip(folders, runs.values(), strict=True):
        if len(run) < 2 or list(run) != names:
            raise ValueError(f"expected a finished run with two evaluated models or more in {folder}")
    played = {name: {seed: run[name] for seed, run in runs.items()} for name in names}
    logged = [read_metrics(folder / "metrics.jsonl") for folder in folders]
    times = [{row["stage"]: round(row["train_runtime"]) for row in rows if "train_runtime" in row} for rows in logged]
    return {
        "commit": commit(),
        "settings": settings[0],
        "machine": configs[0]["machine"],
        "seeds": seeds,
        "test_tasks": len(played[names[0]][seeds[0]]),
        "seconds": times,
        **{TITLES[name]: scores(of) for name, of in played.items()},
        **{
            f"{TITLES[later]} - {TITLES[earlier]}": difference(played[later], played[earlier])
            for earlier, later in itertools.pairwise(names)
        },
    }


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs, one a seed")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder to write to (benchmarks/results)")
    arguments = parser.parse_args()
    try:
        found = summary(arguments.runs)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    replace_text(arguments.out / "training.json", readable(found))
    curves = {"seeds": [read_metrics(folder / "metrics.jsonl") for folder in arguments.runs]}
    plot.save(plot.draw(curves, CURVES, WINDOW), arguments.out / "training.png")
    print(arguments.out / "training.json")


if __name__ == "__main__":
    main()
