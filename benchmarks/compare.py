"""Compare two evaluations of the same questions: the paired difference, and the questions that flipped.

    python benchmarks/compare.py runs/a runs/b           # folders of evaluate.py, or their result.json

The difference is B minus A in score, with a 95% bootstrap interval over questions; a question answered several times
counts with its mean. Questions that an error broke off on either side are left out.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.result_file import Evaluation, read_evaluation
from pixel_env.command_line import Parser, UsageError
from pixel_env.evaluation import paired_difference
from pixel_env.journal import replace_text
from pixel_env.trajectory import Trajectory

SHOWN = 20
"""Flipped questions of each kind that are printed; the JSON file has all."""


def compare(a: Evaluation, b: Evaluation) -> dict[str, Any]:
    """Return the differences by suite and overall, and the flips.

    Raises:
        UsageError: The evaluations asked different questions, or have none to compare.
    """
    if a.result["fingerprint"] != b.result["fingerprint"]:
        raise UsageError(
            f"expected two evaluations of the same questions, got {_asked(a)} and {_asked(b)}; "
            "give both the same --tasks, --levels, --split, --preset, --limit and --seed"
        )
    if a.result["scorer"] != b.result["scorer"]:
        raise UsageError(f"expected the same --scorer on both sides, got {a.result['scorer']} and {b.result['scorer']}")
    suites = sorted({t.suite for t in a.trajectories if t.scored})
    if not suites:
        raise UsageError("expected questions with answers, got none: nothing was scored")
    rows = {"all": _difference(a.trajectories, b.trajectories)}
    for suite in suites:
        rows[suite] = _difference(*([t for t in side.trajectories if t.suite == suite] for side in (a, b)))
    means = [_means(side.trajectories) for side in (a, b)]
    shared = [task_id for task_id in means[0] if task_id in means[1]]
    return {
        "a": str(a.path),
        "b": str(b.path),
        "fingerprint": a.result["fingerprint"],
        "differs": differing(a.result["settings"], b.result["settings"]),
        "difference": rows,
        "better": [_flip(task_id, a, b) for task_id in shared if means[1][task_id] > means[0][task_id]],
        "worse": [_flip(task_id, a, b) for task_id in shared if means[1][task_id] < means[0][task_id]],
    }


def differing(a: dict[str, Any], b: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the settings that differ, with both values.

    >>> differing({"policy": "grid", "seed": 0}, {"policy": "micro", "seed": 0})
    {'policy': ['grid', 'micro']}
    """
    return {name: [a.get(name), b.get(name)] for name in a | b if a.get(name) != b.get(name)}


def table(compared: dict[str, Any]) -> str:
    """Return the differences as Markdown, in points."""
    lines = ["| suite | questions | A | B | B - A |", "|---|---:|---:|---:|---:|"]
    for suite, row in compared["difference"].items():
        if row is None:
            lines.append(f"| {suite} | 0 | - | - | - |")
            continue
        low, mean, high = (100 * row[key] for key in ("low", "mean", "high"))
        scores = f"{100 * row['a']:.1f} | {100 * row['b']:.1f}"
        lines.append(f"| {suite} | {row['questions']} | {scores} | {mean:+.1f} [{low:+.1f}, {high:+.1f}] |")
    return "\n".join(lines)


def flips(compared: dict[str, Any]) -> str:
    """Return the questions that flipped, the first `SHOWN` of each kind."""
    lines = []
    for kind, title in (("better", "B better than A"), ("worse", "B worse than A")):
        found = compared[kind]
        lines.append(f"{title}: {len(found)}")
        for flip in found[:SHOWN]:
            lines.append(f"  {flip['task_id']}: {' / '.join(flip['a'])} -> {' / '.join(flip['b'])}")
        if len(found) > SHOWN:
            lines.append(f"  ... and {len(found) - SHOWN} more (--out FILE writes all)")
    return "\n".join(lines)


def _difference(a: Sequence[Trajectory], b: Sequence[Trajectory]) -> dict[str, Any] | None:
    means = [_means(side) for side in (a, b)]
    shared = means[0].keys() & means[1].keys()
    if not shared:
        return None
    mean, low, high = paired_difference(b, a)
    scores = {name: fmean(side[task_id] for task_id in shared) for name, side in zip("ab", means, strict=True)}
    questions = len({t.question for t in a if t.task_id in shared})
    return {"tasks": len(shared), "questions": questions, **scores, "mean": mean, "low": low, "high": high}


def _means(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Return the mean score of each question over its finished episodes."""
    scores: dict[str, list[float]] = defaultdict(list)
    for trajectory in trajectories:
        if trajectory.scored and trajectory.error is None:
            scores[trajectory.task_id].append(trajectory.score)
    return {task_id: fmean(values) for task_id, values in scores.items()}


def _flip(task_id: str, a: Evaluation, b: Evaluation) -> dict[str, Any]:
    answers = [[str(t.answer) for t in side.trajectories if t.task_id == task_id] for side in (a, b)]
    return {"task_id": task_id, "a": answers[0], "b": answers[1]}


def _asked(evaluation: Evaluation) -> str:
    parts = ", ".join(f"{name} ({part['tasks']})" for name, part in evaluation.result["parts"].items())
    return f"{parts} [{evaluation.result['fingerprint']}] in {evaluation.path}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    description = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="compare.py", description=__doc__, formatter_class=description, allow_abbrev=False)
    parser.add_argument("a", type=Path, help="an evaluation")
    parser.add_argument("b", type=Path, help="another one of the same questions")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    try:
        arguments = parser.parse_args(argv)
        a, b = read_evaluation(arguments.a), read_evaluation(arguments.b)
        compared = compare(a, b)
        if arguments.out:
            replace_text(arguments.out, json.dumps(compared, indent=1) + "\n")
    except OSError as error:
        print(f"compare.py: error: cannot write {arguments.out}: {error.strerror}", file=sys.stderr)
        return 2
    except UsageError as error:
        print(f"compare.py: error: {error}", file=sys.stderr)
        return 2
    print(f"A: {a.name}\nB: {b.name}\n")
    print(table(compared), flips(compared), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
