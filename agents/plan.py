"""What a run would do and take, before anything of it is loaded but the configuration of its model."""

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from agents.lengths import (
    WRITTEN,
    longest_demonstration,
    longest_rollout,
    mean_demonstration,
    mean_looks,
    prompt,
    shares,
)
from agents.memory import GB, Estimate, check, room, table
from agents.run_settings import Settings
from agents.run_tasks import evaluation_plan, is_demonstrations, recorded_spec
from agents.weights import compute_dtype
from pixel_env.command_line import UsageError
from pixel_env.metrics import read_metrics
from pixel_env.tasks import tasks_from_spec

ALIKE = ("model", "preset", "view_tokens", "crop_tokens", "lora", "dtype", "gradient_checkpointing", "freeze_vision")
"""Settings in which another run has to be the same for its speed to say something."""

PASSES, DECODING = 1e14, 0.08
"""What a GPU is taken to do in bfloat16: FLOP a second of passes, and seconds of a token of all rollouts together.

One H100 did 0.3 to 2.4e14 in the warm start and RL of 3B and 7B, and took 0.071 to 0.089 s
(benchmarks/results/scaling.json).
"""


def plan(estimate: Estimate, settings: Settings, runs: Path, device: str) -> str:
    """Say the steps, tokens, time and memory of a run.

    Args:
        estimate: Of its model.
        settings: Of the run.
        runs: Where other runs lie, whose speed is taken if they are like this one.
        device: On which they have to have run.
    """
    s, stages = settings, settings.stages
    lines = [f"model       {s.model}: {_count(sum(estimate.parameters(0, True)))} weights"]
    lines += [f"computes    in {str(compute_dtype(s.dtype)).removeprefix('torch.')}"]
    seconds = {}
    rates = speed(settings, runs, device)
    if "warm_start" in stages:
        number, mean, longest = demonstrations(s), mean_demonstration(s).tokens, longest_demonstration(s).tokens
        each = s.batch_size * s.accumulation
        read = s.epochs * number * mean
        lines += [
            f"warm start  {s.epochs * -(-number // each):,} steps: {s.epochs} x {number:,} demonstrations,"
            f" {each} a step; about {mean:,} tokens each, at most {longest:,}; {_count(read)} tokens in all;"
            f" trains {_count(estimate.parameters(s.lora, not s.freeze_vision)[1])} weights"
        ]
        seconds["warm start"] = read / rates["tokens"] if "tokens" in rates else None
    if "rl" in stages:
        rounds, first = -(-s.rl_steps // s.updates), prompt(s).tokens
        rollouts, most = rounds * s.prompts * s.group_size, longest_rollout(s).tokens - first
        lines += [
            f"RL          {s.rl_steps:,} steps: {s.prompts} tasks x {s.group_size} rollouts a round,"
            f" {rollouts:,} in all; prompts of about {first:,} tokens, at most {most:,} behind them;"
            f" trains {_count(estimate.parameters(s.lora, not s.rl_freeze_vision)[1])} weights"
        ]
        seconds["RL"] = rollouts / rates["rollouts"] if "rollouts" in rates else None
    tests = len(evaluation_plan(s.test_data, s.test_tasks)) or s.test_tasks * len(s.tasks)
    lines += [f"evaluation  {1 + len(stages) if s.evaluate == 'all' else 1} x {tests:,} episodes"]
    time = _time(seconds, rates, runs)
    if "run" not in rates and compute_dtype(s.dtype) == torch.bfloat16:
        time += f"; {_guessed(guess(estimate, s), estimate.processes)}"
    lines += [f"time        {time}", "", table(estimate.phases(s)), ""]
    try:
        check(estimate, s)
        lines += [f"fits in {room(s) / GB:.1f} GB"]
    except UsageError as error:
        lines += [str(error)]
    return "\n".join(lines)


def demonstrations(settings: Settings) -> int:
    """Return the number of demonstrations of the warm start; in a file those that are left out count, too."""
    path = settings.sft_data
    if path is None:
        return round(settings.demonstrations * sum(shares(settings).values()))
    if not is_demonstrations(path):
        return len(tasks_from_spec(recorded_spec(path)))
    with open(path, encoding="utf-8") as lines:
        return sum(1 for _ in lines)


def speed(settings: Settings, runs: Path, device: str) -> dict[str, Any]:
    """Return the speed of the newest run that is like this one.

    Returns:
        As far as measured: "tokens" a second that the warm start read, "rollouts" a second that RL played and learned
        from; and "run", its folder.
    """
    for path in sorted(runs.glob("*/config.json"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            ours, theirs = vars(settings), config["settings"]
            if config["machine"]["device"] != device or any(theirs.get(name) != ours[name] for name in ALIKE):
                continue
        except (ValueError, KeyError, TypeError):
            continue
        rows = read_metrics(path.with_name("metrics.jsonl"))
        found: dict[str, Any] = {}
        if paces := list(_paces(row for row in rows if row["stage"] == "warm_start" and "num_tokens" in row)):
            found["tokens"] = median(paces)
        if steps := [row["step_time"] for row in rows if row["stage"] == "rl" and "step_time" in row]:
            found["rollouts"] = theirs["prompts"] * theirs["group_size"] / theirs["updates"] / fmean(steps)
        if found:
            return found | {"run": str(path.parent)}
    return {}


def guess(estimate: Estimate, settings: Settings) -> dict[str, float]:
    """Return the seconds of the stages on GPUs as `PASSES` and `DECODING` take them to be: their order of magnitude.

    A weight takes 6 FLOP a token in a pass that learns, and 2 in reading. Rollouts are taken to be as long as
    demonstrations; how long decoding takes is a matter of tokens one after the other, not of how many rollouts.
    """
    s, each = settings, sum(estimate.parameters(0, True)) * mean_demonstration(settings).tokens
    rate, found = PASSES * estimate.processes, dict[str, float]()
    if "warm_start" in s.stages:
        found["warm start"] = 6 * each * s.epochs * demonstrations(s) / rate
    if "rl" in s.stages:
        rounds = -(-s.rl_steps // s.updates)
        decoding = WRITTEN * (1 + mean_looks(s)) * DECODING
        found["RL"] = rounds * (decoding + (2 + 6) * each * s.prompts * s.group_size / rate)
    return found


def _guessed(seconds: dict[str, float], processes: int) -> str:
    stages = ", ".join(f"{stage} {value / 3600:.2g} hours" for stage, value in seconds.items())
    return (
        f"a guess for {processes} x H100: {stages}, if rollouts are as long as demonstrations, passes do "
        f"{PASSES / 1e12:.0f} TFLOP/s and decoding takes {1000 * DECODING:.0f} ms a token; evaluations apart"
    )


def _paces(rows: Iterable[dict[str, Any]]) -> Iterable[float]:
    """Tokens a second between steps that follow each other."""
    before: dict[str, Any] | None = None
    for row in rows:
        if before and row["step"] == before["step"] + 1 and row["time"] > before["time"]:
            if row["num_tokens"] > before["num_tokens"]:
                yield (row["num_tokens"] - before["num_tokens"]) / (row["time"] - before["time"])
        before = row


def _time(seconds: dict[str, float | None], rates: dict[str, Any], runs: Path) -> str:
    known = [f"{stage} {value / 3600:.2g} hours" for stage, value in seconds.items() if value is not None]
    if not known:
        return f"not known: no run like this one on this machine in {runs}"
    unknown = [f"{stage} not known" for stage, value in seconds.items() if value is None]
    return f"{', '.join(known + unknown)}, as fast as {rates['run']}; evaluations apart"


def _count(number: float) -> str:
    """Say a large number in words.

    >>> _count(8_292_166_656), _count(2_600_000), _count(96)
    ('8.29 billion', '2.60 million', '96')
    """
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.2f} {name}"
    return f"{number:,.0f}"
