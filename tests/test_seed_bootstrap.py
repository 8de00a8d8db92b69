"""Intervals over seeds and tasks, against a slow version that draws one value at a time."""

import random
from collections.abc import Callable
from statistics import fmean

import numpy as np
import pytest

from benchmarks.seed_bootstrap import crossed_bootstrap, differences, table
from pixel_env import evaluation


def slow_interval(value: Callable[[int, int], float], seeds: int, tasks: int, resamples: int) -> tuple[float, float]:
    """The same interval by definition: nested loops over drawn seeds and drawn tasks, sorted means."""
    rng, means = random.Random(1), []
    for _ in range(resamples):
        drawn_seeds = [rng.randrange(seeds) for _ in range(seeds)]
        drawn_tasks = [rng.randrange(tasks) for _ in range(tasks)]
        means.append(fmean(value(s, t) for s in drawn_seeds for t in drawn_tasks))
    means.sort()
    return means[int(0.025 * resamples)], means[int(0.975 * resamples)]


@pytest.mark.parametrize(("seeds", "tasks"), [(5, 12), (3, 40), (1, 20)])
def test_intervals_are_those_of_the_slow_version(seeds: int, tasks: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(seeds, 1)) + rng.normal(size=(1, tasks)) + rng.normal(size=(seeds, tasks))
    found = crossed_bootstrap(values)
    low, high = slow_interval(lambda s, t: float(values[s, t]), seeds, tasks, 4000)
    width = high - low
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(low, abs=0.05 * width) and found.high == pytest.approx(high, abs=0.05 * width)


def test_seeds_widen_the_interval() -> None:
    """Answers that depend on the seed alone: tasks say nothing, and more of them do not help."""
    of_seed = np.array([[0.0], [1.0], [1.0], [0.0], [1.0]])
    for tasks in (1, 50):
        found = crossed_bootstrap(of_seed.repeat(tasks, axis=1))
        assert (found.mean, found.low, found.high) == pytest.approx((0.6, 0.2, 1.0))


def test_one_seed_is_the_bootstrap_over_tasks() -> None:
    values = [0.0, 1.0, 1.0, 0.5, 0.0, 1.0, 0.0, 0.0]
    one, other = crossed_bootstrap(np.array([values])), evaluation.bootstrap(values)
    assert (one.mean, one.low, one.high) == pytest.approx((other.mean, other.low, other.high), abs=0.03)


def test_paired_differences_are_of_the_same_seeds_and_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    a = {0: {"x": 1.0, "y": 0.0, "z": 1.0}, 1: {"x": 1.0, "y": 1.0, "z": 0.0}, 2: {"x": 0.0, "y": 0.0, "z": 0.0}}
    b = {1: {"y": 0.0, "x": 1.0, "z": 0.0}, 0: {"x": 0.0, "y": 0.5}}  # another order, a task that broke off, no seed 2
    assert differences(a, b).tolist() == [[1.0, -0.5], [0.0, 1.0]]
    assert table(a).tolist() == [[1.0, 0.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    low, high = slow_interval(lambda s, t: [[1.0, -0.5], [0.0, 1.0]][s][t], 2, 2, 20_000)
    found = crossed_bootstrap(differences(a, b))
    assert (found.low, found.high) == pytest.approx((low, high))  # of few possible means, so exactly these


def test_nothing_to_average() -> None:
    assert differences({0: {"x": 1.0}}, {1: {"x": 1.0}}).size == 0
    assert differences({0: {"x": 1.0}}, {0: {"y": 1.0}}).size == 0
    with pytest.raises(ValueError, match=r"at least one seed and one task, got shape \(0, 0\)"):
        crossed_bootstrap(np.empty((0, 0)))
