"""What PPO learns, seed by seed: its checkpoints on the test tasks, from the warm start on, beside guessing.

    for seed in 0 1 2; do python baselines/ppo.py --seed $seed --out runs/ppo/$seed; done
    python benchmarks/ppo_curves.py runs/ppo/0 runs/ppo/1 runs/ppo/2       # results/ppo.json, ppo.png

What PPO played is kept in the run folders.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure
from stable_baselines3 import PPO

from baselines.ppo import Run
from benchmarks.ppo_player import trained
from benchmarks.provenance import RESULTS, provenance, readable
from benchmarks.seed_bootstrap import Runs, crossed_bootstrap, differences, percent, table
from pixel_env import plot
from pixel_env.command_line import UsageError, ending, parser_of, run_folder
from pixel_env.journal import replace_text
from pixel_env.trajectory import Trajectory

Curve = dict[int, list[Trajectory]]
"""Turns of PPO: what was then played on the test tasks."""


def played(folder: Path) -> tuple[Curve, dict[str, list[Trajectory]], dict[str, float]]:
    """Return the curve of a run, what guessing gives, by name, and the seconds of training, by stage.

    Raises:
        UsageError: It had no warm start, or is not at its end yet.
    """
    run = Run(trained(folder), folder)
    with run_folder(folder):
        saved = sorted(run.checkpoints.glob("*.zip"))
        if not (folder / "report.md").exists() or not saved or int(saved[0].stem):
            raise UsageError(
                f"expected a run that began with demonstrations and is over, got {folder}; "
                f"python baselines/ppo.py --resume --out {folder} goes on with it"
            )
        models = [PPO.load(path) for path in saved]
        return {model.num_timesteps: run.evaluate(model) for model in models}, run.guessed(), models[-1].seconds


def _right(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Return 1 for each task answered right, 0 for the others."""
    return {trajectory.task_id: float(bool(trajectory.correct)) for trajectory in trajectories}


def figures(folders: Sequence[Path]) -> dict[str, Any]:
    """Return the figures of runs that differ in their seed, in percent.

    Raises:
        UsageError: They differ in something else, or one cannot be shown.
    """
    settings = [dataclasses.asdict(trained(folder)) for folder in folders]
    seeds = [run.pop("seed") for run in settings]
    if len(set(seeds)) < len(seeds) or any(run != settings[0] for run in settings):
        raise UsageError("expected runs that differ in their seed and in nothing else")
    found = {seed: played(folder) for seed, folder in zip(seeds, folders, strict=True)}
    curves = {seed: curve for seed, (curve, _, _) in found.items()}
    guesses = {seed: guess for seed, (_, guess, _) in found.items()}
    policies: dict[str, Runs[str]] = {
        "PPO": {seed: _right(curve[max(curve)]) for seed, curve in curves.items()},
        "warm start": {seed: _right(curve[min(curve)]) for seed, curve in curves.items()},
        **{name: {seed: _right(guess[name]) for seed, guess in guesses.items()} for name in ("direct", "random")},
    }
    first, *others = policies
    pairs = [(first, other) for other in others] + [("warm start", name) for name in ("direct", "random")]
    return {
        "settings": settings[0],
        "accuracy": {name: percent(crossed_bootstrap(table(runs))) for name, runs in policies.items()},
        "difference": {
            f"{a} - {b}": percent(crossed_bootstrap(differences(policies[a], policies[b]))) for a, b in pairs
        },
        "curves": {
            seed: {
                "turns": list(curve),
                "accuracy": [round(100 * fmean(_right(some).values()), 1) for some in curve.values()],
                "operations": [round(fmean(t.num_operations for t in some), 2) for some in curve.values()],
            }
            for seed, curve in curves.items()
        },
        "seconds": {
            seed: {stage: round(spent) for stage, spent in times.items()} for seed, (_, _, times) in found.items()
        },
    }


def draw(found: dict[str, Any]) -> Figure:
    """Draw the accuracy of each seed over the turns of PPO, and that of guessing as lines."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for seed, curve in found["curves"].items():
        axis.plot(curve["turns"], curve["accuracy"], marker=".", label=f"seed {seed}")
    for name, style in (("direct", "--"), ("random", ":")):
        axis.axhline(found["accuracy"][name][0], color="black", linestyle=style, linewidth=1, label=name)
    axis.set(xlabel="turns of PPO after the warm start", ylabel="test tasks answered right (%)", ylim=(0, 100))
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    with ending("ppo_curves.py") as end:
        parser = parser_of("benchmarks/ppo_curves.py", "RUN [RUN ...] [--out FOLDER]", __doc__ or "")
        parser.add_argument("runs", type=Path, nargs="+", help="run folders of baselines/ppo.py, one a seed")
        parser.add_argument("--out", type=Path, default=RESULTS, help="folder to write to (benchmarks/results)")
        arguments = parser.parse_args(argv)
        arguments.out.mkdir(parents=True, exist_ok=True)
        found = figures(arguments.runs)
        head = provenance(("gymnasium", "stable-baselines3", "torch"))
        replace_text(arguments.out / "ppo.json", readable(head | found))
        plot.save(draw(found), arguments.out / "ppo.png")
        print(arguments.out / "ppo.json")
    return end.code


if __name__ == "__main__":
    sys.exit(main())
