"""What a step costs at the size of Qwen2.5-VL-3B and -7B on one GPU: random weights, real code, real prompts.

    python benchmarks/scaling.py --sizes 3b 7b --seconds 360          # one GPU of 80 GB or more; nothing is downloaded
    python benchmarks/scaling.py --sizes tiny --device cpu --preset micro --prompts 1 --group-size 2 --out tiny.json

Three kinds of points: steps of the warm start (`agents/sft.py`), rollouts (`agents/engine.py`), steps of RL
(`agents/grpo.py`). Weights, gradients and Adam's moments are in bfloat16 on a GPU: 8 bytes a trained parameter. What is
written in the rollouts is given, demonstrations in the proportions of the paper's, so that both sizes play the same.
Text is that of the micro tokenizer, which has the fixed sentences of the prompts as single tokens: prompts are as long
as with Qwen's in views, and shorter in text.

The results file is written after every point; a point that is in it already, from the same device and settings, is not
measured again. A point that fails, or takes too much memory or time, is recorded as such, and the next one begins.
"""

import argparse
import dataclasses
import gc
import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import gymnasium as gym
import torch

import pixel_env  # noqa: F401
from agents import micro
from agents.conversation import ChatEncoder
from benchmarks.provenance import RESULTS, provenance, readable
from benchmarks.random_vlm import SIZES, write
from benchmarks.roofline import measured_peaks
from benchmarks.step_costs import Bench, Point, measure_grpo, measure_rollouts, measure_sft
from pixel_env.journal import replace_text

BEGUN = time.perf_counter()
MEASURES = {"rollouts": measure_rollouts, "sft": measure_sft, "grpo": measure_grpo}
ENV_ID = "PixelReason-Zoom-v0"
PLANS: dict[str, tuple[Point, ...]] = {
    "3b": (
        Point("3b", "rollouts", prompts=4),
        Point("3b", "sft", "language"),
        Point("3b", "sft", "language", checkpointing=True),
        Point("3b", "grpo", "all", checkpointing=True),
        Point("3b", "grpo", "all", checkpointing=True, batch_size=8),
        Point("3b", "grpo", "all", checkpointing=True, batch_size=8, shared=False),
        Point("3b", "sft", "all", checkpointing=True),
        Point("3b", "sft", "all"),
    ),
    # All of 7B learning with moments in 32 bits takes 112 GB before activations; in 16 bits, vision frozen, 62 GB.
    "7b": (
        Point("7b", "rollouts", prompts=4),
        Point("7b", "sft", "language", checkpointing=True, batch_size=1),
        Point("7b", "grpo", "language", checkpointing=True, batch_size=1),
        Point("7b", "sft", "language", batch_size=1),
        Point("7b", "sft", "8"),
    ),
}
"""Points of a size, those that matter most first."""
FORMULAS = {
    "flop": "2 a weight and token forwards, 4 backwards where it is trained; 4 * hidden a layer and pair of query and "
    "key; vision tower by patches, its windows as they are; output head only where logits are needed; nothing "
    "twice for checkpointing, a prompt once a row that rollouts share",
    "mfu": "flop of the steps / seconds of the steps / flop_per_second of the matrix product",
    "decode_bytes": "weights of the language model and its head once a step, keys and values of all tokens kept, a "
    "prompt once a group",
    "roofline": "measured rate / rate of the matrix product (prefill) or of the copy (decode)",
}


class TooSlowError(Exception):
    """A point took longer than it may."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TooSlowError in what happens inside when its time is over."""

    def over(*_: Any) -> None:
        raise TooSlowError(f"longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(point: Point, bench: Bench, seconds: float) -> dict[str, Any]:
    """Measure a point, or say why it could not be measured."""
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
    begun = time.perf_counter()
    try:
        with time_limit(seconds):
            found = MEASURES[point.kind](point, bench)
    except TooSlowError as error:
        found = {"failed": str(error)}
    except torch.OutOfMemoryError as error:
        found = {"failed": "out of memory", "message": str(error).splitlines()[0]}
    except RuntimeError as error:  # torch's own, such as a kernel that does not take a shape
        traceback.print_exc(file=sys.stderr)
        found = {"failed": f"{type(error).__name__}: {str(error)[:300]}"}
    gc.collect()  # models and trainers refer to each other
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()
    return found | {"seconds_in_all": time.perf_counter() - begun}


def rated(found: dict[str, Any], peaks: dict[str, Any]) -> dict[str, Any]:
    """Shares of the measured peaks, beside the rates."""
    against = {
        "flop_per_second": ("mfu", "flop_per_second"),
        "passes_flop_per_second": ("passes_mfu", "flop_per_second"),
        "prefill_flop_per_second": ("prefill_roofline", "flop_per_second"),
        "decode_bytes_per_second": ("decode_roofline", "bytes_per_second"),
    }
    shares = {share: found[rate] / peaks[peak] for rate, (share, peak) in against.items() if rate in found}
    return found | shares


def rounded(value: Any) -> Any:
    """Numbers of a result to four digits."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def table(points: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield "| point | seconds a step | a second | of the peak | peak GiB |"
    yield "|---|---:|---:|---:|---:|"
    for row in points:
        if "failed" in row:
            yield f"| {row['name']} | {row['failed']} | | | |"
            continue
        rate = f"{row['rollouts_per_second']} rollouts" if "rollouts" in row else f"{row['tokens_per_second']} tokens"
        shares = {
            name: row[name] for name in ("mfu", "passes_mfu", "prefill_roofline", "decode_roofline") if name in row
        }
        said = ", ".join(f"{name.replace('_', ' ')} {share:.0%}" for name, share in shares.items())
        seconds = row.get("seconds_per_step", row.get("seconds"))
        yield f"| {row['name']} | {seconds} | {rate} | {said} | {row.get('peak_gib', '-')} |"


def planned(sizes: Sequence[str], kinds: Sequence[str], prompts: int) -> list[Point]:
    """Points of some sizes, none with more prompts than there are."""
    points = []
    for size in sizes:
        small = (
            Point(size, "rollouts"),
            Point(size, "sft"),
            Point(size, "sft", checkpointing=True),
            Point(size, "grpo", batch_size=8),
            Point(size, "grpo", batch_size=8, shared=False),
        )
        plan = PLANS.get(size, small)
        points += [dataclasses.replace(p, prompts=min(p.prompts, prompts)) for p in plan if p.kind in kinds]
    return points


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure what is not in the results file yet, and write it after every point."""
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    settings = {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "dtype": "bfloat16" if on_gpu else "float32",
        "env": ENV_ID,
        "preset": arguments.preset,
        "prompts": arguments.prompts,
        "group_size": arguments.group_size,
        "steps": arguments.steps,
    }
    known = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
    rows = list(known.get("points", [])) if known.get("settings") == settings else []
    done = {row["name"] for row in rows if "failed" not in row}
    todo = [p for p in planned(arguments.sizes, arguments.kinds, arguments.prompts) if p.name not in done]
    if not todo:
        return rows
    about = provenance(("torch", "transformers", "trl", "accelerate")) | {"settings": settings}
    if on_gpu:
        about["device_gib"] = round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1)
    dtype = torch.bfloat16 if on_gpu else torch.float32
    peaks = measured_peaks(device, dtype) if on_gpu else measured_peaks(device, dtype, side=512, copied=2**26)
    print(f"{time.perf_counter() - BEGUN:.0f} s: peaks {rounded(peaks)}", flush=True)
    encoder = ChatEncoder(micro.load_processor(micro.MICRO_BASE))
    env_kwargs = {"preset": arguments.preset}
    env = gym.make(ENV_ID, **env_kwargs)
    written = write(env, encoder, arguments.prompts, arguments.group_size)
    env.close()
    bench = Bench(device, dtype, ENV_ID, env_kwargs, encoder, written, arguments.group_size, arguments.steps)
    for point in todo:
        left = arguments.seconds - (time.perf_counter() - BEGUN)
        print(f"{time.perf_counter() - BEGUN:.0f} s: {point.name}", flush=True)
        found = attempt(point, bench, min(left, arguments.point_seconds)) if left > 5 else {"failed": "no time left"}
        row = {"name": point.name} | dataclasses.asdict(point) | rounded(rated(found, peaks))
        rows = [old for old in rows if old["name"] != point.name] + [row]
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        result = about | {"peaks": rounded(peaks), "formulas": FORMULAS, "points": rows}
        replace_text(arguments.out, readable(result))
    return rows


def main() -> None:
    """Measure, write the JSON file, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=("micro", *SIZES), default=("3b", "7b"), help="(3b 7b)")
    parser.add_argument("--kinds", nargs="+", choices=tuple(MEASURES), default=tuple(MEASURES), help="(all)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(%(default)s)")
    parser.add_argument(
        "--preset", choices=("standard", "micro"), default="standard", help="size of views (%(default)s)"
    )
    parser.add_argument("--prompts", type=int, default=4, help="most tasks played at a time (%(default)s)")
    parser.add_argument("--group-size", type=int, default=8, help="rollouts a task (%(default)s)")
    parser.add_argument(
        "--steps", type=int, default=2, help="steps of RL that count, a third of those of the warm start"
    )
    parser.add_argument("--seconds", type=float, default=600, help="after which no point begins (%(default)s)")
    parser.add_argument("--point-seconds", type=float, default=90, help="most seconds of a point (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "scaling.json", help="JSON file to write")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the trainers take a GPU where there is one
    elif not torch.cuda.is_available():
        parser.error("expected a GPU, found none; --device cpu measures the small sizes")
    warnings.filterwarnings("ignore", category=FutureWarning)
    print("\n".join(table(measure(arguments))))


if __name__ == "__main__":
    main()
