"""What a run that makes demonstrations came to: how many of each kind, what was dropped and why, and what it took."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from agents.demonstrations import LOOKS, kinds
from agents.outcomes import REASONS, Record
from agents.replies import Usage

STAGES = {"question": "questions about plain images", "taught": "told by the teacher", "textual": "sampled"}


def summary(records: Sequence[Record], prices: tuple[float, float] | None) -> dict[str, Any]:
    """Return the figures of a run.

    Args:
        records: What became of every seed.
        prices: Of a million tokens read and of a million written by the teacher.
    """
    made = [trajectory for record in records for trajectory in record.trajectories]
    usage = sum((record.usage for record in records), Usage())
    useless = sum((r.usage for r in records if not r.trajectories and r.question is None), Usage())
    return {
        "demonstrations": len(made),
        "kinds": {kind: number for kind, number in kinds(made).items() if number},
        "stages": {stage: _stage([r for r in records if r.stage == stage]) for stage in STAGES},
        "sources": {
            source: sum(len(r.trajectories) for r in records if r.source == source)
            for source in dict.fromkeys(record.source for record in records)
        },
        "teacher": {
            "requests": usage.requests,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "unreported": usage.unreported,
            "cost": usage.cost(prices),
            "cost_of_dropped_seeds": useless.cost(prices),
            "requests_about_dropped_seeds": useless.requests,
        },
    }


def _stage(records: Sequence[Record]) -> dict[str, Any]:
    dropped = Counter(reason for record in records for reason in _dropped(record))
    by_kind = Counter((o.kind, bool(o.reason)) for record in records for o in record.outcomes if o.kind)
    return {
        "seeds": len(records),
        "kept": sum(bool(record.trajectories) or record.question is not None for record in records),
        "dropped": {reason: dropped[reason] for reason in REASONS if dropped[reason]},
        "by_kind": {
            kind: {"kept": by_kind[kind, False], "dropped": by_kind[kind, True]}
            for kind in LOOKS
            if by_kind[kind, False] + by_kind[kind, True]
        },
    }


def _dropped(record: Record) -> list[str]:
    return [outcome.reason for outcome in record.outcomes if outcome.reason]


def markdown(figures: dict[str, Any], command: str) -> str:
    """Return the report."""
    lines = ["# Demonstrations", "", f"`{command}`", "", f"{figures['demonstrations']} demonstrations.", ""]
    for stage, title in STAGES.items():
        of = figures["stages"][stage]
        if not of["seeds"]:
            continue
        lines += [f"## {title.capitalize()}", "", f"{of['seeds']} seeds, {of['kept']} kept.", ""]
        lines += _table(("kind", "kept", "dropped"), [(k, n["kept"], n["dropped"]) for k, n in of["by_kind"].items()])
        lines += _table(("dropped because", "number"), [(REASONS[k], number) for k, number in of["dropped"].items()])
    return "\n".join([*lines, "## Cost", "", _cost(figures["teacher"]), ""])


def _cost(teacher: dict[str, Any]) -> str:
    usage = Usage(teacher["requests"], teacher["unreported"], teacher["prompt_tokens"], teacher["completion_tokens"])
    told = f"Teacher: {usage}. {teacher['requests_about_dropped_seeds']} requests were about seeds that were dropped."
    if teacher["cost"] is None:
        return told
    return f"{told} Price: {teacher['cost']:.2f}, of which {teacher['cost_of_dropped_seeds']:.2f} for those."


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    if not rows:
        return []
    cells = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(map(str, row))} |" for row in cells] + [""]
