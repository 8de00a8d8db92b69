"""Intervals over training seeds and test tasks: how sure a difference between two recipes is.

An interval over tasks alone answers for one trained model. A recipe is judged by what it gives with another seed, too.
"""

from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pixel_env.evaluation import RESAMPLES, Interval

Task = TypeVar("Task", bound=Hashable)
Runs = Mapping[int, Mapping[Task, float]]
"""Seed: the value of each task in the run with it."""


def crossed_bootstrap(values: NDArray[np.float64], seed: int = 0) -> Interval:
    """Return the mean of (S, T) values and its 95% percentile interval over seeds and tasks.

    In each resample S seeds and T tasks are drawn with replacement, and every value of their table counts: the
    pigeonhole bootstrap of crossed factors (Owen 2007, arXiv 0712.1111), which does not take the S answers to one task
    for independent. With S = 1 it is the bootstrap over tasks. Three seeds tell little about seeds: their part of the
    interval is too narrow rather than too wide.

    Args:
        values: (S, T), one row a seed, one column a task; for a paired interval their differences.
        seed: Of the resampling.

    Raises:
        ValueError: There is nothing to average.
    """
    if values.ndim != 2 or not values.size:
        raise ValueError(f"expected values of at least one seed and one task, got shape {values.shape}")
    seeds, tasks = values.shape
    rng = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for k in range(RESAMPLES):
        of_tasks = values[rng.integers(seeds, size=seeds)].mean(axis=0)
        means[k] = of_tasks[rng.integers(tasks, size=tasks)].mean()
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))


def percent(interval: Interval) -> list[float]:
    """Return mean, low and high times 100, with one decimal."""
    return [round(100 * value, 1) for value in (interval.mean, interval.low, interval.high)]


def table(runs: Runs[Task]) -> NDArray[np.float64]:
    """Return (S, T) values: the tasks that every run has, in the order of the first."""
    first, *others = runs.values()
    shared = [task for task in first if all(task in other for other in others)]
    return np.array([[run[task] for task in shared] for run in runs.values()], np.float64).reshape(len(runs), -1)


def differences(a: Runs[Task], b: Runs[Task]) -> NDArray[np.float64]:
    """Return (S, T) values of a minus b: the seeds that both have, the tasks that all of their runs have."""
    seeds = [seed for seed in a if seed in b]
    paired = {(side, seed): runs[seed] for side, runs in enumerate((a, b)) for seed in seeds}
    if not paired:
        return np.empty((0, 0))
    values = table(dict(enumerate(paired.values())))
    return values[: len(seeds)] - values[len(seeds) :]
