"""The figures of policies that played the same tasks: a row a suite and level, as Markdown and as a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from benchmarks.result_file import Evaluation
from pixel_env.evaluation import Interval, evaluate
from pixel_env.trajectory import Trajectory

Cell = tuple[str, int]
"""Suite and level."""
ALL = "all"
Row = tuple[str, int | str]
"""Suite and level; `ALL` of either means that their tasks are put together."""

COLUMNS = ("score", "RaPR: needed", "RaPR: not needed", "operations", "failed", "seconds")


@dataclass(frozen=True)
class Figures:
    """What a policy did in a row; None where nothing could be counted.

    Attributes:
        episodes: Those that were finished.
        errors: Those that broke off; they enter nothing but `seconds`.
        score: Metric of the tasks, mean over questions.
        rapr_needed: Share of episodes in which an operation succeeded, over tasks whose first view is not enough.
        rapr_not_needed: The same over the other tasks.
        operations: Called in an episode, failed ones included.
        failed: Share of them that failed.
        seconds: Time of playing, divided by the number of episodes.
    """

    episodes: int
    errors: int
    score: Interval | None
    rapr_needed: Interval | None
    rapr_not_needed: Interval | None
    operations: float | None
    failed: float | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain values, an interval as mean, low and high."""
        return {name: _plain(value) for name, value in vars(self).items()}

    def cells(self) -> list[str]:
        """Return a cell for each of `COLUMNS`; rates in percent."""
        rates = [None if rate is None else rate.mean for rate in (self.rapr_needed, self.rapr_not_needed)]
        operations = "-" if self.operations is None else f"{self.operations:.2f}"
        score = "-" if self.score is None else str(self.score)
        return [score, *map(_percent, rates), operations, _percent(self.failed), f"{self.seconds:#.2g}"]


Column = Mapping[Row, Figures | None]
"""The figures of a policy; None where it did not play all of the row."""
Table = Mapping[str, Column]
"""Policies by name; all have the same rows."""


def rows(suites: Sequence[str], levels: Sequence[int]) -> dict[Row, list[Cell]]:
    """Return the rows of a table, and the cells that each puts together.

    >>> list(rows(["search", "clip"], [2]))
    [('search', 2), ('clip', 2), ('all', 2)]
    """
    of_suites = {suite: [suite] for suite in suites} | ({ALL: list(suites)} if len(suites) > 1 else {})
    of_levels: dict[int | str, list[int]] = {level: [level] for level in levels}
    of_levels |= {ALL: list(levels)} if len(levels) > 1 else {}
    return {
        (suite, level): list(product(some, others))
        for suite, some in of_suites.items()
        for level, others in of_levels.items()
    }


def column(played: Mapping[Cell, Evaluation], suites: Sequence[str], levels: Sequence[int]) -> Column:
    """Return the figures of a policy in every row, from the cells that it played."""
    return {
        row: figures([played[cell] for cell in cells]) if set(cells) <= played.keys() else None
        for row, cells in rows(suites, levels).items()
    }


def figures(evaluations: Sequence[Evaluation]) -> Figures:
    """Put evaluations of one policy together. They are of equally many tasks, so a mean over tasks is one over them."""
    played = [trajectory for evaluation in evaluations for trajectory in evaluation.trajectories]
    everything = evaluate(played).overall
    needed, others = (_rapr([t for t in played if t.needs_operation is needs]) for needs in (True, False))
    return Figures(
        episodes=everything.episodes,
        errors=everything.errors,
        score=everything.score,
        rapr_needed=needed,
        rapr_not_needed=others,
        operations=everything.mean_operations,
        failed=everything.operation_error_rate,
        seconds=sum(cost.seconds for evaluation in evaluations for cost in evaluation.costs.values()) / len(played),
    )


def markdown(table: Table, head: Sequence[str], about: Mapping[str, str]) -> str:
    """Write a table: first a line a policy, then one a policy and row.

    Args:
        table: The figures.
        head: Lines on where they come from.
        about: What each policy is.
    """
    of = list(next(iter(table.values())))
    last = of[-1]  # everything together
    suites = [row for row in of if row[1] == last[1]]
    short = [["policy", *(suite for suite, _ in suites), *COLUMNS[1:]]]
    for name, figures_of in table.items():
        everything = figures_of[last]
        short.append([name, *(_cells(figures_of[row])[0] for row in suites), *_cells(everything)[1:]])
    long = [["suite", "level", "policy", *COLUMNS]]
    long += [[row[0], str(row[1]), name, *_cells(table[name][row])] for row in of for name in table]
    sections = [
        "# Policies",
        "\n".join(f"- {line}" for line in head),
        "\n".join(f"- **{name}**: {text}" for name, text in about.items()),
        "Score with its 95% interval; RaPR, the share of episodes in which an operation succeeded, on tasks that need "
        "one and on the others; operations an episode, and the share of them that failed; seconds an episode. Scores "
        "and shares in percent.",
        _table(short),
        "## By suite and level",
        _table(long),
    ]
    return "\n\n".join(sections) + "\n"


def draw(table: Table) -> Any:
    """Return a figure of matplotlib: scores with their intervals, a panel a suite, a colour a policy.

    Raises:
        ImportError: matplotlib is missing.
    """
    from matplotlib.figure import Figure

    cells = [row for row in next(iter(table.values())) if ALL not in row]
    suites, levels = (list(dict.fromkeys(values)) for values in zip(*cells, strict=True))
    across = min(2, len(suites))
    down = -(-len(suites) // across)
    figure = Figure(figsize=(5.2 * across, 2.8 * down + 0.9), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=True)
    points = {}
    for axis, suite in zip(axes.flat, suites, strict=False):
        for place, (name, found) in enumerate(table.items()):
            shift = 0.8 * ((place + 0.5) / len(table) - 0.5)
            scores = {k + shift: _score(found[suite, level]) for k, level in enumerate(levels)}
            drawn = _draw_scores(axis, {x: score for x, score in scores.items() if score}, f"C{place % 10}")
            points[_label(name, found, suites, levels)] = drawn
        axis.set(title=suite, ylim=(-4, 104), xlim=(-0.5, len(levels) - 0.5))
        axis.set_xticks(range(len(levels)), [f"level {level}" for level in levels])
        axis.tick_params(axis="x", length=0)
        for border in range(1, len(levels)):
            axis.axvline(border - 0.5, color="0.8", linewidth=0.8)
        axis.grid(axis="y", alpha=0.3)
    for axis in list(axes.flat)[len(suites) :]:
        axis.set_visible(False)
    figure.supylabel("score in percent, with 95% interval", fontsize="medium")
    figure.legend(points.values(), points.keys(), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _draw_scores(axis: Any, scores: Mapping[float, Interval], colour: str) -> Any:
    """Draw a dot and its interval at each place."""
    of = scores.values()
    axis.vlines(list(scores), [100 * s.low for s in of], [100 * s.high for s in of], color=colour, linewidth=1.6)
    [dots] = axis.plot(list(scores), [100 * s.mean for s in of], "o", markersize=5, color=colour)
    return dots


def _label(name: str, found: Column, suites: Sequence[Any], levels: Sequence[Any]) -> str:
    """Name a policy, and what it did not play: a run of PPO, the suites that it was not trained on."""
    missing = [suite for suite in suites if found[suite, levels[0]] is None]
    return f"{name} (not trained on {', '.join(missing)})" if missing else name


def _score(found: Figures | None) -> Interval | None:
    return None if found is None else found.score


def _rapr(trajectories: Sequence[Trajectory]) -> Interval | None:
    return evaluate(trajectories).overall.rapr if trajectories else None


def _cells(found: Figures | None) -> list[str]:
    return found.cells() if found else ["not played", *["-"] * (len(COLUMNS) - 1)]


def _table(lines: Sequence[Sequence[str]]) -> str:
    head, *others = lines
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---", *["---:"] * (len(head) - 1)], *others))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        return [round(number, 4) for number in (value.mean, value.low, value.high)]
    return round(value, 4) if isinstance(value, float) else value
