"""How often another batch changes what a model writes, though each turn draws from a stream of its own.

    python benchmarks/flips.py                            # the micro model; some minutes on two idle cores

Logits that are computed beside others differ in their last digits, and a token flips where those decide: in greedy
turns between two tokens that are nearly equally likely, in sampled ones where the number that was drawn falls between
two sums of probabilities. The same episodes are played in batches of several sizes, and each turn whose episode was the
same up to there is compared with that of the first size.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from agents import micro
from agents.vlm_policy import rollout_vlm
from benchmarks.provenance import RESULTS, provenance, readable
from pixel_env.evaluation import Interval, wilson
from pixel_env.trajectory import Trajectory

PACKAGES = ("pixel-env", "torch", "transformers", "numpy")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def compare(first: Sequence[Trajectory], other: Sequence[Trajectory]) -> dict[str, Any]:
    """Return how many turns were compared, and how many were others than the first time."""
    turns = flips = 0
    for one, two in zip(first, other, strict=True):
        texts = [[turn.action for turn in trajectory.turns] for trajectory in (one, two)]
        same = next((k for k, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), None)
        turns += min(map(len, texts)) if same is None else same + 1
        flips += same is not None
    rate = wilson(flips / turns, turns)
    return {"turns": turns, "flips": flips, "rate": [round(part, 5) for part in (rate.mean, rate.low, rate.high)]}


def measure(
    path: str, dtype: str, temperatures: Sequence[float], episodes: int, sizes: Sequence[int]
) -> list[dict[str, Any]]:
    """Play the episodes in batches of every size, at every temperature."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, processor = micro.load_model(path, DTYPES[dtype]).to(device).eval(), micro.load_processor(path)
    rows = []
    for temperature in temperatures:
        played = [
            rollout_vlm(
                model, processor, "PixelReason-Mixed-v0", range(episodes), temperature=temperature, batch_size=size,
                preset="micro", split="test",
            )
            for size in sizes
        ]  # fmt: skip
        for size, other in zip(sizes[1:], played[1:], strict=True):
            about = {"dtype": dtype, "device": device, "temperature": temperature, "batches": [sizes[0], size]}
            rows.append(about | {"episodes": episodes} | compare(played[0], other))
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown table."""
    lines = ["| dtype | temperature | batches | turns | flips | rate in percent |", "|---|---:|---|---:|---:|---|"]
    for row in rows:
        sizes, rate = " and ".join(map(str, row["batches"])), Interval(*row["rate"])
        cells = [row["dtype"], row["temperature"], sizes, row["turns"], row["flips"], rate]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(micro.MICRO_BASE), help="folder or id (default: the micro model)")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=DTYPES, help="precisions (default float32)")
    parser.add_argument("--temperatures", nargs="+", type=float, default=[0.0, 1.0], help="0 is greedy (default 0 1)")
    parser.add_argument("--episodes", type=int, default=192, help="of all suites (default 192)")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 8, 1], help="sizes; the first is compared with")
    parser.add_argument("--out", type=Path, default=RESULTS / "flips.json", help="JSON file to write")
    arguments = parser.parse_args()
    if arguments.episodes < 1 or len(arguments.batches) < 2 or min(arguments.batches) < 1:
        parser.error("expected --episodes of at least 1 and two or more --batches of at least 1")
    about, asked = provenance(PACKAGES), (arguments.temperatures, arguments.episodes, arguments.batches)
    rows = [row for dtype in arguments.dtypes for row in measure(arguments.model, dtype, *asked)]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(
        readable(about | {"model": Path(arguments.model).name, "threads": torch.get_num_threads(), "results": rows})
    )
    print(table(rows))


if __name__ == "__main__":
    main()
