"""Score against what looking costs: visual tokens, and operations.

    python benchmarks/budget_curves.py runs/a runs/b --out runs/curves

A point of a curve is the score if every episode that needed more than the budget had given no answer; it needs no
second run. The dot is the evaluation itself: mean cost and score. To see what a policy does that *knows* of a smaller
budget, evaluate it again with other --view-pixels, --crop-pixels or --max-turns and give all results.
Writes budget_curves.csv and budget_curves.png.
"""

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from benchmarks.result_file import Evaluation, read_evaluation
from pixel_env.command_line import Parser, UsageError
from pixel_env.evaluation import mean_interval
from pixel_env.journal import replacing
from pixel_env.trajectory import Trajectory

AXES = {"visual_tokens": "visual tokens a question", "operations": "operations a question"}
"""Axis: its title."""

POINTS = 24
"""Most budgets of a curve."""


@dataclass(frozen=True)
class Point:
    """A score under a budget. `low` and `high` are its 95% interval over questions."""

    evaluation: str
    axis: str
    budget: float
    score: float
    low: float
    high: float
    kind: str = "cut"


def curve(evaluation: Evaluation, axis: str) -> list[Point]:
    """Return the score under growing budgets, then the evaluation itself (kind ``"run"``) at its mean cost.

    Raises:
        UsageError: No question has an answer.
    """
    done = [t for t in evaluation.trajectories if t.scored and t.error is None]
    if not done:
        raise UsageError(f"expected questions with answers in {evaluation.path}, got none: nothing was scored")
    needed = [(t, _cost(evaluation, t, axis)) for t in done]
    points = []
    for budget in budgets([cost for _, cost in needed]):
        scores = _over_questions([(t.question, t.score if cost <= budget else 0.0) for t, cost in needed])
        points.append(_point(evaluation, axis, budget, scores))
    spent = fmean(_over_questions([(t.question, float(cost)) for t, cost in needed]))
    scores = _over_questions([(t.question, t.score) for t in done])
    return [*points, _point(evaluation, axis, spent, scores, "run")]


def budgets(costs: Sequence[int]) -> list[int]:
    """Return the budgets where a curve can rise: every cost that occurs, thinned to `POINTS`, the largest kept.

    >>> budgets([3, 1, 1, 2])
    [1, 2, 3]
    """
    distinct = sorted(set(costs))
    if len(distinct) <= POINTS:
        return distinct
    return [distinct[round(position * (len(distinct) - 1) / (POINTS - 1))] for position in range(POINTS)]


def _cost(evaluation: Evaluation, trajectory: Trajectory, axis: str) -> int:
    if axis == "operations":
        return trajectory.num_operations
    return sum(evaluation.costs[trajectory.task_id, trajectory.seed].visual_tokens)


def _over_questions(values: Sequence[tuple[tuple[str, str], float]]) -> list[float]:
    by_question: dict[tuple[str, str], list[float]] = defaultdict(list)
    for question, value in values:
        by_question[question].append(value)
    return [fmean(group) for group in by_question.values()]


def _point(evaluation: Evaluation, axis: str, budget: float, scores: Sequence[float], kind: str = "cut") -> Point:
    interval = mean_interval(scores)
    return Point(evaluation.name, axis, budget, interval.mean, interval.low, interval.high, kind)


def write_csv(points: Sequence[Point], path: Path) -> None:
    """Write one point a line."""
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Point.__dataclass_fields__)
        for p in points:
            numbers = (f"{value:.6g}" for value in (p.budget, p.score, p.low, p.high))
            writer.writerow([p.evaluation, p.axis, *numbers, p.kind])


def draw(points: Sequence[Point], path: Path) -> None:
    """Draw both axes beside each other, one colour an evaluation."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(AXES), figsize=(11, 4), sharey=True, layout="constrained")
    for panel, (axis, title) in zip(panels, AXES.items(), strict=True):
        for number, name in enumerate(dict.fromkeys(p.evaluation for p in points)):
            cut = [p for p in points if (p.evaluation, p.axis, p.kind) == (name, axis, "cut")]
            [run] = [p for p in points if (p.evaluation, p.axis, p.kind) == (name, axis, "run")]
            x, colour = [p.budget for p in cut], f"C{number}"
            panel.step(x, [100 * p.score for p in cut], where="post", color=colour, label=name)
            low, high = ([100 * value for value in values] for values in ([p.low for p in cut], [p.high for p in cut]))
            panel.fill_between(x, low, high, step="post", color=colour, alpha=0.15, linewidth=0)
            panel.plot(run.budget, 100 * run.score, "o", color=colour)
        panel.set(xlabel=title, ylim=(-2, 102))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("score in percent, 95% interval")
    panels[0].legend(fontsize="small")
    with replacing(path) as part:
        figure.savefig(part, dpi=120, format=path.suffix[1:])
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="budget_curves.py", description=__doc__, formatter_class=formatter, allow_abbrev=False)
    parser.add_argument("evaluations", nargs="+", type=Path, help="folders of evaluate.py, or their result.json")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder to write to (%(default)s)")
    try:
        arguments = parser.parse_args(argv)
        read = [read_evaluation(path) for path in arguments.evaluations]
        if len({evaluation.path.resolve() for evaluation in read}) < len(read):
            raise UsageError("expected each evaluation once, got one of them twice")
        points = [point for evaluation in read for axis in AXES for point in curve(evaluation, axis)]
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_csv(points, arguments.out / "budget_curves.csv")
        draw(points, arguments.out / "budget_curves.png")
    except ImportError as error:
        print(f"budget_curves.py: error: cannot draw: {error}; pip install -e '.[agents]'", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"budget_curves.py: error: cannot write to {arguments.out}: {error.strerror}", file=sys.stderr)
        return 2
    except UsageError as error:
        print(f"budget_curves.py: error: {error}", file=sys.stderr)
        return 2
    print(f"curves: {arguments.out / 'budget_curves.png'}, {arguments.out / 'budget_curves.csv'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
