"""How fast the environments are: resets and steps a second, each kind of step apart.

    python benchmarks/throughput.py                       # every id and preset, about two minutes on one core

One process, one environment, one thread. A reset draws a new task each time, so it includes drawing the picture; a step
includes decoding the action, cutting the view and building the observation. Shown are medians and quartiles of single
calls. The first call of each kind (caches, lazy imports) is left out.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

import pixel_env  # noqa: F401  (registers the ids)
from benchmarks.provenance import RESULTS, provenance
from pixel_env.journal import replace_text
from pixel_env.registration import ENVIRONMENTS
from pixel_env.settings import PRESETS

PACKAGES = ("pixel-env", "gymnasium", "numpy", "pillow")


def timed(call: Callable[..., Any], *arguments: Any, **named: Any) -> tuple[Any, float]:
    """Return what a call gave and how many seconds it took."""
    start = time.perf_counter()
    given = call(*arguments, **named)
    return given, time.perf_counter() - start


def measure(env_id: str, preset: str, episodes: int) -> dict[str, list[float]]:
    """Play episodes of one crop, one selection of two frames (videos) and one answer; seconds of every call by kind."""
    seconds: dict[str, list[float]] = {"reset": [], "crop": [], "select": [], "answer": []}
    with gym.make(env_id, preset=preset) as env:
        env.reset(seed=0)
        for episode in range(episodes + 1):
            kept = seconds if episode else {kind: [] for kind in seconds}
            (observation, _), spent = timed(env.reset, options={"task": episode})
            kept["reset"].append(spent)
            height, width, _ = observation["images"][0].shape
            turns = {"crop": f"crop_image([{width // 4}, {height // 4}, {width // 2}, {height // 2}])"}
            if len(observation["images"]) > 1:
                turns["select"] = "select_frames([3, 11])"
            for kind, turn in {**turns, "answer": r"\boxed{A}"}.items():
                kept[kind].append(timed(env.step, turn)[1])
    return {kind: spent for kind, spent in seconds.items() if spent}


def summary(spent: list[float]) -> dict[str, float]:
    """Calls a second: median and quartiles over single calls."""
    slow, median, fast = (1 / np.quantile(spent, share) for share in (0.75, 0.5, 0.25))
    return {"per_second": round(median, 1), "quartiles": [round(slow, 1), round(fast, 1)], "calls": len(spent)}  # type: ignore[dict-item]


def table(results: list[dict[str, Any]]) -> str:
    """Markdown table of calls a second."""
    kinds = ("reset", "crop", "select", "answer")
    lines = [f"| id | preset | {' | '.join(f'{kind}/s' for kind in kinds)} |", "|---|---|" + "---:|" * len(kinds)]
    for row in results:
        cells = [f"{row[kind]['per_second']:,.0f}" if kind in row else "" for kind in kinds]
        lines.append(f"| {row['id']} | {row['preset']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=100, help="episodes for each id and preset (default 100)")
    parser.add_argument("--out", type=Path, default=RESULTS / "throughput.json", help="JSON file to write")
    arguments = parser.parse_args()
    if arguments.episodes < 1:
        parser.error(f"--episodes must be at least 1, got {arguments.episodes}")
    about = provenance(PACKAGES)
    results = []
    for env_id, preset in tqdm([(env_id, preset) for preset in PRESETS for env_id in ENVIRONMENTS], unit="environment"):
        spent = measure(env_id, preset, arguments.episodes)
        results.append({"id": env_id, "preset": preset} | {kind: summary(calls) for kind, calls in spent.items()})
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    replace_text(arguments.out, json.dumps(about | {"results": results}, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
