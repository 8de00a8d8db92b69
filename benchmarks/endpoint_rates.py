"""What asking a server costs: trajectories a second against delays of its own, and what our side adds to a request.

    python benchmarks/endpoint_rates.py                   # every delay and concurrency, in less than three minutes

A server on the loopback interface, a process of its own, answers after a delay: a fixed one, or one with a heavy tail,
of which 1 in 10 requests, at random places, takes 10 times longer. Every trajectory is a crop and an answer, two
requests one after the other, each with every picture so far as PNG. As many are in flight as there may be requests.

* bound: concurrency / mean trajectory latency, where a trajectory lasts as long as its delays and nothing else.
* ratio: of the trajectories a second that were measured, to that bound. 1 means that no slot was ever idle.
* overhead: what a request takes beyond its delay, in ms: the environment, pictures, the client, the network, the
  server's own work, and, with several at a time, waiting for a core.
* CPU: what a request takes of a core in our process, in ms. A process cannot ask faster than one request in that time;
  beyond it, evaluate in shards.

With several at a time, rates are those between the ends of the first and of the last `concurrency` trajectories, so
that filling the slots and running empty do not count.
"""

import argparse
import json
import math
import multiprocessing
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from agents.api_policy import EndpointPolicy, play_endpoint
from agents.replies import Usage
from benchmarks.chat_endpoint import serve
from benchmarks.provenance import RESULTS, provenance
from pixel_env.command_line import Parser, UsageError, ending
from pixel_env.journal import replace_text
from pixel_env.rollout import Episode, plan

ENV_ID = "PixelReason-Zoom-v0"
ENV: dict[str, Any] = {"preset": "micro"}
DELAYS = (0, 50, 200)
"""Milliseconds."""
CONCURRENCIES = (1, 8, 32)
SLOW, TIMES = 10, 10
"""With a heavy tail 1 in SLOW requests takes TIMES as long."""
TURNS = ("crop_image([20, 20, 60, 60])", r"\boxed{A}")
PACKAGES = ("pixel-env", "openai", "httpx", "numpy", "pillow")


@dataclass(frozen=True)
class Cell:
    """One measurement.

    Attributes:
        delay: Of the server, in ms.
        tail: "fixed", or "heavy".
        concurrency: Requests at a time.
    """

    delay: int
    tail: str
    concurrency: int

    @property
    def latency(self) -> float:
        """Mean seconds of a trajectory that only waits for the server."""
        mean = (SLOW - 1 + TIMES) / SLOW if self.tail == "heavy" else 1.0
        return len(TURNS) * mean * self.delay / 1000

    @property
    def bound(self) -> float:
        """Trajectories a second, if nothing else took time."""
        return self.concurrency / self.latency if self.delay else math.inf


def cells(delays: Sequence[int], concurrencies: Sequence[int]) -> list[Cell]:
    """Return all measurements, those without a delay first."""
    shapes = [(delay, tail) for delay in sorted(delays) for tail in ("fixed", "heavy") if delay or tail == "fixed"]
    return [Cell(delay, tail, concurrency) for delay, tail in shapes for concurrency in concurrencies]


# --- the server -------------------------------------------------------------------------------------------------------


def delay_of(model: str, number: int) -> float:
    """Return the seconds before the answer to request `number`; the name of the model says of which kind.

    >>> [delay_of("fixed-50-x", n) for n in range(3)], round(sum(delay_of("heavy-50-x", n) for n in range(100)), 3)
    ([0.05, 0.05, 0.05], 9.5)
    """
    tail, milliseconds, _ = model.split("-")
    slow = tail == "heavy" and number % SLOW == np.random.default_rng(number // SLOW).integers(SLOW)
    return int(milliseconds) / 1000 * (TIMES if slow else 1)


ASKED: Counter[str] = Counter()
LOCK = threading.Lock()


def answer(body: dict[str, Any]) -> str:
    """Wait, and answer with the crop, or after it with the answer."""
    model, turn = body["model"], sum(message["role"] == "assistant" for message in body["messages"])
    with LOCK:
        number = ASKED[model]
        ASKED[model] += 1
    time.sleep(delay_of(model, number))
    return TURNS[turn]


# --- the client -------------------------------------------------------------------------------------------------------


def play(url: str, model: str, concurrency: int, count: int) -> tuple[list[float], float]:
    """Play `count` trajectories; returns when each was over, in seconds from the start, and the CPU seconds of all."""
    over: list[float] = []

    def keep(_: int, episode: Episode, usage: Usage) -> None:
        if episode.error:
            raise RuntimeError(episode.error)
        over.append(time.perf_counter() - begun)

    with EndpointPolicy(model, base_url=url, api_key="none", concurrency=concurrency) as policy:
        planned, begun, spent = plan(range(count), 1, 0), time.perf_counter(), time.process_time()
        play_endpoint(policy, ENV_ID, planned, keep, batch_size=concurrency, progress=False, **ENV)
        return over, time.process_time() - spent


def row(cell: Cell, over: Sequence[float], cpu: float) -> dict[str, Any]:
    """Return the figures of a measurement.

    Args:
        cell: What was measured.
        over: When each trajectory was over, in seconds from the start, in their order; more than two `concurrency`.
        cpu: Seconds of a core that all of them took.

    >>> row(Cell(50, "fixed", 1), [0.2, 0.4, 0.6], 0.012)["trajectories_per_second"]
    5.0
    """
    moments, edge = [0.0, *over], cell.concurrency if cell.concurrency > 1 else 0
    rate = (len(over) - 2 * edge) / (moments[len(over) - edge] - moments[edge])
    return {
        "delay_ms": cell.delay,
        "tail": cell.tail,
        "concurrency": cell.concurrency,
        "trajectories": len(over),
        "trajectories_per_second": round(rate, 2),
        "bound": round(cell.bound, 2) if cell.delay else None,
        "ratio": round(rate / cell.bound, 3) if cell.delay else None,
        "overhead_ms": round(1000 * (cell.concurrency / rate - cell.latency) / len(TURNS), 2),
        "cpu_ms": round(1000 * cpu / len(over) / len(TURNS), 2),
    }


def measure(url: str, asked: Sequence[Cell], seconds: float) -> list[dict[str, Any]]:
    """Return the figures of all cells, about `seconds` each."""
    play(url, "fixed-0-imports", 1, 4)
    over, _ = play(url, "fixed-0-fastest", 8, 40)
    fastest, rows = len(over) / over[-1], []
    for number, cell in enumerate(tqdm(asked, unit="cell")):
        # Whole waves, as with fixed delays they end together, and whole tens of requests, of which each has a slow one.
        step = math.lcm(cell.concurrency, SLOW // len(TURNS))
        steps = round(seconds * min(fastest, cell.bound) / step)
        count = step * max(steps, math.ceil(5 * cell.concurrency / step))
        rows.append(row(cell, *play(url, f"{cell.tail}-{cell.delay}-{number}", cell.concurrency, count)))
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the figures as Markdown."""
    head = ["delay (ms)", "tail", "concurrency", "trajectories/s", "bound", "ratio", "overhead (ms)", "CPU (ms)"]
    lines = [f"| {' | '.join(head)} |", "|---:|---|" + "---:|" * (len(head) - 2)]
    names = ["delay_ms", "tail", "concurrency", "trajectories_per_second", "bound", "ratio", "overhead_ms", "cpu_ms"]
    for found in rows:
        lines.append(f"| {' | '.join('-' if found[name] is None else str(found[name]) for name in names)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the JSON file; returns the exit code."""
    with ending("endpoint_rates.py") as end:
        formatter = argparse.RawDescriptionHelpFormatter
        parser = Parser(prog="endpoint_rates.py", description=__doc__, formatter_class=formatter, allow_abbrev=False)
        add = parser.add_argument
        add("--delays", nargs="+", type=int, default=DELAYS, help="of the server, in ms (0 50 200)")
        add("--concurrency", nargs="+", type=int, default=CONCURRENCIES, help="requests at a time (1 8 32)")
        add("--seconds", type=float, default=8.0, help="about, of each of them (%(default)s)")
        add("--out", type=Path, default=RESULTS / "endpoint_rates.json", help="JSON file to write")
        a = parser.parse_args(argv)
        if min(a.delays) < 0 or min(a.concurrency) < 1 or not a.seconds > 0:
            raise UsageError("expected --delays from 0, --concurrency from 1 and --seconds above 0")
        os.environ["NO_PROXY"] = "127.0.0.1"
        about = provenance(PACKAGES)
        ours, theirs = multiprocessing.Pipe(duplex=False)
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(answer, theirs), daemon=True)
        server.start()
        try:
            rows = measure(f"http://127.0.0.1:{ours.recv()}/v1", cells(a.delays, a.concurrency), a.seconds)
        finally:
            server.terminate()
            server.join()
        a.out.parent.mkdir(parents=True, exist_ok=True)
        replace_text(a.out, json.dumps(about | {"env": ENV, "results": rows}, indent=1) + "\n")
        print(table(rows))
    return end.code


if __name__ == "__main__":
    sys.exit(main())
