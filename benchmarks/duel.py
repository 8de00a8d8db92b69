"""Two ways to do the same, timed in turn, so that what else a machine does falls on both."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Call = Callable[[], Any]
Row = dict[str, Any]
"""What one comparison, or one part, came to."""


@dataclass(frozen=True)
class Wanted:
    """What a duel is to show.

    Attributes:
        times: Ours is at least this many times as fast as the other one.
        milliseconds: Ours takes at most this long.
        more: Ours takes at most this many milliseconds longer than the other one.
    """

    times: float | None = None
    milliseconds: float | None = None
    more: float | None = None

    def __str__(self) -> str:
        times, at_most, more = self.times, self.milliseconds, self.more
        said = (("at least {:g} times", times), ("at most {:g} ms", at_most), ("at most {:g} ms more", more))
        return ", ".join(text.format(bound) for text, bound in said if bound is not None)

    def met(self, ours: float, other: float, ratio: float) -> bool:
        """Whether medians (seconds) and the median of the ratios are within the bounds."""
        return (
            (self.times is None or ratio >= self.times)
            and (self.milliseconds is None or 1000 * ours <= self.milliseconds)
            and (self.more is None or 1000 * (ours - other) <= self.more)
        )


def nothing() -> None:
    """Do nothing before a call."""


def duel(
    path: str,
    case: str,
    ours: Call,
    against: str,
    other: Call,
    repeats: int,
    wanted: Wanted | None = None,
    before: Call = nothing,
    of: int = 1,
    cpu: bool = False,
) -> Row:
    """Time two calls in turn and return a row of the results.

    Args:
        path: What is measured.
        case: Of what size, on what.
        ours: What the environment does.
        against: What the other one is.
        other: The other one.
        repeats: Rounds; one more before them is left out.
        wanted: What the row is to show, if anything.
        before: Called before each call, not timed.
        of: How many steps a call takes: times are of one.
        cpu: Take the time of the processor, for what has one thread and waits for nothing: others then do not count.
    """
    clock = time.process_time if cpu else time.perf_counter
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats + 1):
        for kept, call in zip(seconds, (ours, other), strict=True):
            before()
            start = clock()
            call()
            kept.append((clock() - start) / of)
    mine, theirs = (kept[1:] for kept in seconds)
    ratios = [b / a for a, b in zip(mine, theirs, strict=True)]
    row = {"path": path, "case": case, "against": against, "repeats": repeats}
    row |= {"ours_ms": quartiles(mine, 1000), "other_ms": quartiles(theirs, 1000), "times_as_fast": quartiles(ratios)}
    if wanted in (None, Wanted()):
        return row
    met = wanted.met(float(np.median(mine)), float(np.median(theirs)), float(np.median(ratios)))
    return row | {"wanted": str(wanted), "met": met}


def quartiles(values: Sequence[float], scale: float = 1.0) -> list[float]:
    """Return first quartile, median and third quartile to four digits.

    >>> quartiles([0.5, 0.1, 1.0, 0.2, 0.4], 1000)
    [200.0, 400.0, 500.0]
    """
    return [float(f"{scale * np.quantile(values, share):.4g}") for share in (0.25, 0.5, 0.75)]


def parts(path: str, calls: dict[str, Call], repeats: int) -> list[Row]:
    """Time what a path is made of, each part alone; rows of its name and milliseconds."""
    rows = []
    for name, call in calls.items():
        spent = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            call()
            spent.append(time.perf_counter() - start)
        rows.append({"path": path, "part": name, "ms": quartiles(spent[1:], 1000)})
    return rows
