"""What PPO learns, seed by seed: its checkpoints on the test tasks, from the warm start on, beside guessing.

    for seed in 0 1 2; do python baselines/ppo.py --seed $seed --out runs/ppo/$seed; done
    python benchmarks/ppo_curves.py runs/ppo/0 runs/ppo/1 runs/ppo/2       # results/ppo.json, ppo.png

What has been played is kept in the run folders.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
from stable_baselines3 import PPO

from baselines.ppo import Run
from benchmarks.ppo_player import trained
from benchmarks.provenance import RESULTS, provenance, readable
from benchmarks.seed_bootstrap import Runs, crossed_bootstrap, differences, table
from pixel_env.evaluation import Interval
from pixel_env.trajectory import Trajectory

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def played(folder: Path) -> tuple[dict[int, list[Trajectory]], dict[str, list[Trajectory]]]:
    """Return the test trajectories of every checkpoint by its turns, and those of guessing by name."""
    run = Run(trained(folder), folder)
    models = (PPO.load(path) for path in sorted(run.checkpoints.glob("*.zip")))
    return {model.num_timesteps: run.evaluate(model) for model in models}, run.guessed()


def accuracies(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Return 1 for each task answered right, 0 for the others."""
    return {trajectory.task_id: float(bool(trajectory.correct)) for trajectory in trajectories}


def figures(folders: Sequence[Path]) -> dict[str, Any]:
    """Return the figures of runs that differ in their seed, in percent.

    Raises:
        ValueError: They differ in something else, or one has no checkpoint.
    """
    settings = [dataclasses.asdict(trained(folder)) for folder in folders]
    seeds = [run.pop("seed") for run in settings]
    if len(set(seeds)) < len(seeds) or any(run != settings[0] for run in settings):
        raise ValueError("expected runs that differ in their seed and in nothing else")
    curves: dict[int, dict[int, list[Trajectory]]] = {}
    guesses: dict[int, dict[str, list[Trajectory]]] = {}
    for seed, folder in zip(seeds, folders, strict=True):
        curves[seed], guesses[seed] = played(folder)
        if len(curves[seed]) < 2:
            raise ValueError(f"expected a run with checkpoints from before PPO and after it, got {folder}")
    policies: dict[str, Runs[str]] = {
        "PPO": {seed: accuracies(curve[max(curve)]) for seed, curve in curves.items()},
        "warm start": {seed: accuracies(curve[min(curve)]) for seed, curve in curves.items()},
        **{name: {seed: accuracies(guess[name]) for seed, guess in guesses.items()} for name in ("direct", "random")},
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
                "accuracy": [round(100 * fmean(accuracies(some).values()), 1) for some in curve.values()],
                "operations": [round(fmean(t.num_operations for t in some), 2) for some in curve.values()],
            }
            for seed, curve in curves.items()
        },
    }


def percent(interval: Interval) -> list[float]:
    """Return mean, low and high times 100."""
    return [round(100 * value, 1) for value in dataclasses.astuple(interval)]


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the accuracy of each seed over the turns of PPO, and that of guessing as lines."""
    figure, axis = plt.subplots(figsize=(7, 4.5))
    for seed, curve in found["curves"].items():
        axis.plot(curve["turns"], curve["accuracy"], marker=".", label=f"seed {seed}")
    for name, style in (("direct", "--"), ("random", ":")):
        axis.axhline(found["accuracy"][name][0], color="black", linestyle=style, linewidth=1, label=name)
    axis.set(xlabel="turns of PPO after the warm start", ylabel="test tasks answered right (%)", ylim=(0, 100))
    axis.grid(alpha=0.3)
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of baselines/ppo.py, one a seed")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder to write to (benchmarks/results)")
    arguments = parser.parse_args()
    found = figures(arguments.runs)
    head = provenance(("gymnasium", "stable-baselines3", "torch"))
    (arguments.out / "ppo.json").write_text(readable(head | found), encoding="utf-8")
    draw(found, arguments.out / "ppo.png")
    print(arguments.out / "ppo.json")


if __name__ == "__main__":
    main()
