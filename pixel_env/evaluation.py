"""From trajectories to a report: how good, how often it looked, what went wrong, and how sure we are.

Reads the flags of trajectories, never a shaped reward. Episodes that broke off with an error are counted beside the
others and enter no rate: nothing says how they would have ended.
"""

import dataclasses
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixel_env.trajectory import Trajectory

RESAMPLES = 10_000
Z95 = 1.959963984540054  # the 97.5% quantile of the normal distribution

Key = tuple[str, str]
"""Suite, and what tells apart in it."""


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class Summary:
    """The numbers of a set of trajectories; None where nothing could be counted.

    Attributes:
        tasks: number of tasks with at least one finished episode.
        questions: number of questions among them, fewer where several tasks are one question; n of the intervals.
        episodes: number of finished episodes.
        errors: number of episodes that broke off; they enter nothing below.
        score: metric of the task (accuracy, or ANLS for text), over questions that have answers; see `mean_interval`.
        accuracy: share of correct answers, averaged over the same questions; Wilson, with their number as n.
        rapr: rate of pixel-space reasoning: share of episodes in which an operation succeeded; Wilson too.
        rapr_needed: the same over tasks whose first view is not enough.
        mean_operations: operations called an episode, failed ones included.
        operation_error_rate: share of operations that failed.
        malformed_rate: share of turns that were neither a well-formed call nor an answer.
        parse_failure_rate: share of answers that could not be read.
        truncation_rate: share of episodes that ran out of turns.
        cue_coverage: share of the evidence that the operations showed, over episodes with operations and a known cue.
    """

    tasks: int
    questions: int
    episodes: int
    errors: int
    score: Interval | None
    accuracy: Interval | None
    rapr: Interval | None
    rapr_needed: float | None
    mean_operations: float | None
    operation_error_rate: float | None
    malformed_rate: float | None
    parse_failure_rate: float | None
    truncation_rate: float | None
    cue_coverage: float | None


@dataclass(frozen=True)
class Report:
    """An evaluation: all trajectories together, and each suite."""

    overall: Summary
    suites: dict[str, Summary]

    def to_json(self) -> str:
        """Return the report as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    def to_markdown(self) -> str:
        """Return the report as a table, one row a suite, rates in percent."""
        rows = {**self.suites, "all": self.overall}
        table = [["suite", *_COLUMNS], ["---"] * (len(_COLUMNS) + 1)]
        table += [[name, *(_cell(summary, column) for column in _COLUMNS.values())] for name, summary in rows.items()]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in table) + "\n"


_COLUMNS = {
    "tasks": "tasks",
    "score": "score",
    "accuracy": "accuracy",
    "RaPR": "rapr",
    "RaPR, where needed": "rapr_needed",
    "operations": "mean_operations",
    "failed operations": "operation_error_rate",
    "malformed turns": "malformed_rate",
    "unreadable answers": "parse_failure_rate",
    "out of turns": "truncation_rate",
    "cue shown": "cue_coverage",
    "errors": "errors",
}


def _cell(summary: Summary, column: str) -> str:
    value = getattr(summary, column)
    if value is None:
        return "-"
    if column == "mean_operations":
        return f"{value:.2f}"
    if column == "tasks" and summary.questions < summary.tasks:
        return f"{value} ({summary.questions} questions)"
    return f"{100 * value:.1f}" if isinstance(value, float) else str(value)


def evaluate(trajectories: Iterable[Trajectory], seed: int = 0) -> Report:
    """Summarise trajectories, all together and by suite (in alphabetical order).

    Args:
        trajectories: any number of episodes a task; questions weigh equally in `score` and `accuracy`.
        seed: of the bootstrap.
    """
    everything = list(trajectories)
    if not everything:
        raise ValueError("expected at least one trajectory, got none")
    suites: dict[str, list[Trajectory]] = defaultdict(list)
    for trajectory in everything:
        suites[trajectory.suite].append(trajectory)
    summaries = {suite: _summarise(suites[suite], seed) for suite in sorted(suites)}
    return Report(_summarise(everything, seed), summaries)


def paired_difference(a: Iterable[Trajectory], b: Iterable[Trajectory], seed: int = 0) -> tuple[float, float, float]:
    """Return the mean difference in score, a minus b, over the same tasks, and its 95% interval over questions.

    Args:
        a: trajectories of one policy.
        b: trajectories of another policy on the same tasks.
        seed: of the bootstrap.

    Returns:
        (mean, low, high), over the tasks that both sides finished without an error.

    Raises:
        ValueError: if the tasks are not the same, or none was finished by both.
    """
    a, b = list(a), list(b)
    if unmatched := {_task(t) for t in a} ^ {_task(t) for t in b}:
        raise ValueError(
            f"expected trajectories of the same tasks on both sides, got {len(unmatched)} tasks on one side only, "
            f"such as {sorted(unmatched)[0][1]}"
        )
    scores_a, scores_b = (_means(_scored(_finished(side)), "score", _task) for side in (a, b))
    questions = {_task(t): t.question for t in a}
    differences = _grouped((questions[task], scores_a[task] - scores_b[task]) for task in scores_a if task in scores_b)
    if not differences:
        raise ValueError("expected at least one task finished on both sides, got none")
    interval = bootstrap([fmean(values) for values in differences.values()], seed)
    return interval.mean, interval.low, interval.high


@dataclass(frozen=True)
class Samples:
    """What k answers to a task are worth.

    Attributes:
        k: answers a task.
        average: avg@k, the mean accuracy of one answer.
        any_right: pass@k, how often at least one of k answers is right; an upper bound on choosing among them.
    """

    k: int
    average: Interval
    any_right: Interval


def at_k(trajectories: Iterable[Trajectory], k: int, seed: int = 0) -> Samples:
    """Return avg@k and pass@k with 95% intervals over questions, see `mean_interval`.

    Unbiased for any number n >= k of finished episodes a task: avg@k is the mean over all n, pass@k as in `pass_at_k`.

    Args:
        trajectories: at least k finished episodes of every task.
        k: at least 1.
        seed: of the bootstrap.

    Raises:
        ValueError: without a trajectory of a task with answers, or if a task has fewer than k finished episodes.
    """
    by_task: dict[Key, list[bool]] = {}
    questions: dict[Key, Key] = {}
    for trajectory in _scored(trajectories):
        questions[_task(trajectory)] = trajectory.question
        outcomes = by_task.setdefault(_task(trajectory), [])
        if trajectory.error is None:
            outcomes.append(trajectory.correct)
    if not by_task:
        raise ValueError("expected at least one trajectory of a task with answers, got none")
    for (_, task_id), outcomes in by_task.items():
        if len(outcomes) < k:
            raise ValueError(f"expected at least k = {k} finished episodes a task, got {len(outcomes)} of {task_id}")
    average = _grouped((questions[task], fmean(outcomes)) for task, outcomes in by_task.items())
    any_right = _grouped((questions[task], pass_at_k(len(o), sum(o), k)) for task, o in by_task.items())
    over_questions = (mean_interval([fmean(g) for g in groups.values()], seed) for groups in (average, any_right))
    return Samples(k, *over_questions)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the unbiased estimate of pass@k from n answers of which c are right.

    pass@k = 1 - C(n - c, k) / C(n, k), the chance that k of the n, drawn without putting back, hold a right one
    (Chen et al. 2021, arXiv 2107.03374, equation 1). 1 - (1 - c / n)^k would be biased downwards.

    Args:
        n: number of answers.
        c: number of right ones, 0 to n.
        k: 1 to n.

    >>> pass_at_k(4, 1, 1), pass_at_k(4, 1, 2), pass_at_k(4, 3, 2)
    (0.25, 0.5, 1.0)
    """
    if not 1 <= k <= n or not 0 <= c <= n:
        raise ValueError(f"expected 1 <= k <= n and 0 <= c <= n, got n={n}, c={c}, k={k}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def wilson(mean: float, n: int) -> Interval:
    """Return Wilson's 95% score interval of a proportion (E. B. Wilson, 1927).

    Args:
        mean: the observed proportion.
        n: number of independent trials, at least 1.

    >>> str(wilson(0.8, 10))
    '80.0 [49.0, 94.3]'
    """
    if n < 1 or not 0.0 <= mean <= 1.0:
        raise ValueError(f"expected a proportion of at least one trial, got {mean} of {n}")
    centre = mean + Z95**2 / (2 * n)
    spread = Z95 * math.sqrt(mean * (1 - mean) / n + Z95**2 / (4 * n**2))
    scale = 1 + Z95**2 / n
    return Interval(mean, max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale))


def mean_interval(values: Sequence[float], seed: int = 0) -> Interval:
    """Return the mean of independent values and its 95% interval: Wilson's where all are 0 or 1, else `bootstrap`.

    A bootstrap of equal values has no width, so that one wrong answer would be a certain 0.

    >>> str(mean_interval([0.0])), str(mean_interval([0.5, 0.5]))
    ('0.0 [0.0, 79.3]', '50.0 [50.0, 50.0]')
    """
    if all(value in (0, 1) for value in values):
        return wilson(fmean(values), len(values))
    return bootstrap(values, seed)


def bootstrap(values: Sequence[float], seed: int = 0) -> Interval:
    """Return the mean of independent values and its 95% percentile bootstrap interval.

    Args:
        values: at least one.
        seed: of the resampling; the same seed gives the same interval.
    """
    array = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = np.array([_resampled_mean(array, rng) for _ in range(RESAMPLES)])
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(array.mean()), float(low), float(high))


def _resampled_mean(values: NDArray[np.float64], rng: np.random.Generator) -> float:
    return float(values[rng.integers(len(values), size=len(values))].mean())


def _summarise(trajectories: Sequence[Trajectory], seed: int) -> Summary:
    done = _finished(trajectories)
    turns = [turn for trajectory in done for turn in trajectory.turns]
    looked = _means(done, "used_operation")
    scores, accuracies = (_means(_scored(done), name) for name in ("score", "correct"))
    operations = sum(trajectory.num_operations for trajectory in done)
    answered = [trajectory for trajectory in _scored(done) if trajectory.answer is not None]
    return Summary(
        tasks=len({_task(trajectory) for trajectory in done}),
        questions=len(looked),
        episodes=len(done),
        errors=len(trajectories) - len(done),
        score=mean_interval(list(scores.values()), seed) if scores else None,
        accuracy=wilson(fmean(accuracies.values()), len(accuracies)) if scores else None,
        rapr=wilson(fmean(looked.values()), len(looked)) if done else None,
        rapr_needed=_mean(trajectory.used_operation for trajectory in done if trajectory.needs_operation),
        mean_operations=_mean(trajectory.num_operations for trajectory in done),
        operation_error_rate=sum(t.num_errors for t in done) / operations if operations else None,
        malformed_rate=_mean(turn.malformed for turn in turns),
        parse_failure_rate=_mean(trajectory.parse_failure for trajectory in answered),
        truncation_rate=_mean(trajectory.truncated for trajectory in done),
        cue_coverage=_mean(t.cue_coverage for t in done if t.num_operations and t.cue_coverage is not None),
    )


def _finished(trajectories: Iterable[Trajectory]) -> list[Trajectory]:
    return [trajectory for trajectory in trajectories if trajectory.error is None]


def _scored(trajectories: Iterable[Trajectory]) -> list[Trajectory]:
    return [trajectory for trajectory in trajectories if trajectory.scored]


def _task(trajectory: Trajectory) -> Key:
    """Return what tells a task from others: two sets of one format, each a suite of its own, share their ids."""
    return trajectory.suite, trajectory.task_id


def _means(
    trajectories: Sequence[Trajectory], name: str, of: Callable[[Trajectory], Key] = lambda t: t.question
) -> dict[Key, float]:
    """Return the mean of an attribute over the episodes of each question, or of each of what `of` says."""
    grouped = _grouped((of(trajectory), float(getattr(trajectory, name))) for trajectory in trajectories)
    return {key: fmean(values) for key, values in grouped.items()}


def _grouped(values: Iterable[tuple[Key, float]]) -> dict[Key, list[float]]:
    groups: dict[Key, list[float]] = defaultdict(list)
    for key, value in values:
        groups[key].append(value)
    return groups


def _mean(values: Iterable[Any]) -> float | None:
    numbers = [float(value) for value in values]
    return fmean(numbers) if numbers else None
