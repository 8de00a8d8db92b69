"""Shards of an evaluation: which batches of the plan a process plays, and what lies in the folder of each.

The plan of an evaluation, its batches and their random streams do not depend on the number of shards: of N shards the
i-th plays batches i, i + N, i + 2 N, ...
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from agents.processes import rank_and_count
from agents.replies import Usage
from pixel_env.command_line import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """One of `count` processes that share an evaluation; `number` counts from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return f"shard-{self.number}-of-{self.count}"

    def of(self, batches: Sequence[T]) -> Sequence[T]:
        """Return its share.

        >>> Shard(2, 3).of("abcdefgh")
        'beh'
        """
        return batches[self.number - 1 :: self.count]


WHOLE = Shard(1, 1)


def read_shard(text: str) -> Shard:
    """Read I/N.

    Raises:
        ValueError: It is something else.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"expected I/N with I from 1 to N, such as 2/4, got {text!r}")
    return Shard(int(match[1]), int(match[2]))


def launched(environ: Mapping[str, str]) -> Shard | None:
    """Return the shard of a process that torchrun or accelerate started beside others; None where they did not.

    >>> launched({"RANK": "2", "LOCAL_RANK": "2", "WORLD_SIZE": "4"}), launched({"WORLD_SIZE": "4"})
    (Shard(number=3, count=4), None)
    """
    rank, count = rank_and_count(environ)
    return Shard(rank + 1, count) if count > 1 else None


def shards_in(out: Path) -> list[Shard]:
    """Return all shards of the evaluation in a folder, whether they are there yet or not.

    Raises:
        UsageError: There is none, or they are of several cuts.
    """
    names = [re.fullmatch(r"shard-\d+-of-(\d+)", path.name, re.ASCII) for path in sorted(out.glob("shard-*"))]
    counts = sorted({int(name[1]) for name in names if name})
    if not counts:
        raise UsageError(f"{out} holds no shards; play them: --shard 1/N to N/N in place of --merge")
    if len(counts) > 1:
        raise UsageError(f"{out} holds shards of {' and of '.join(map(str, counts))}; remove the folders of one cut")
    return [Shard(number, counts[0]) for number in range(1, counts[0] + 1)]


def joined(facts: Mapping[Shard, dict[str, Any]], prices: tuple[float, float] | None) -> dict[str, Any]:
    """Return what a player of all would have noted: tokens are summed, names put together, the rest is alike in all.

    Args:
        facts: Of the player of each shard.
        prices: Of a million tokens read and of a million written.

    Raises:
        UsageError: Shards were played with other means, such as on a CPU and on a GPU.
    """
    (first, common), *others = ((shard, dict(noted)) for shard, noted in facts.items())
    spent = {name for name in ("answered_by", "asked", "reused", "cost") if name in common}
    for shard, noted in others:
        if other := [name for name in common | noted if name not in spent and common.get(name) != noted.get(name)]:
            raise UsageError(
                f"expected shards that were played alike, got {other[0]} {common.get(other[0])} in {first} "
                f"and {noted.get(other[0])} in {shard}; play one of them again in an empty folder"
            )
    if spent:
        asked, reused = (sum((Usage(**of[name]) for of in facts.values()), Usage()) for name in ("asked", "reused"))
        common |= {"asked": asdict(asked), "reused": asdict(reused), "cost": asked.cost(prices)}
        common["answered_by"] = sorted({name for of in facts.values() for name in of.get("answered_by", ())})
    return common
