"""Look for a text that breaks the readers of what models write, guided by which lines of them it reaches.

    pip install atheris                                            # an environment of its own will do
    python benchmarks/fuzz_text.py --runs 10000000                 # in parts of 20,000 inputs

What has to hold is in `text_promises.py`. Inputs are texts of at most `--longest` bytes of UTF-8, others than UTF-8 as
halves of surrogate pairs; the first of a part, and one in 5,000 after it, is also repeated to the longest turn that is
read, to see time grow with the length. Each part of a run is added to the JSON file when it is done, with its commit,
and the inputs that reached something new are kept in `--corpus`, so a run can be stopped at any time and gone on with.
A text that breaks something ends its part; it is in the file and is printed, and the exit code is 1.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.provenance import RESULTS, provenance
from pixel_env.journal import replace_text

PART = 20_000
"""Inputs after which results are written: so many are lost at most when a run is stopped."""

PROMISES = ("reading", "grading", "chat", "page")
SEEDS = (
    '<tool_call>{"name": "crop_image", "arguments": {"bbox_2d": [1, 3.5, 1e309, NaN], "target_image": 1}}</tool_call>',
    '<tool_call>{"name": "select_frames", "arguments": {"target_frames": [2, 3]}}</tool_call>',
    '<tool_call>{"name": "label", "arguments": {"text": "a", "share": 0.5, "target_images": [1]}}</tool_call>',
    "crop_image([10, 20, 30, 40], 2) or select_frames([1])",
    r"It is red, so \boxed{(A) \text{red}}. <answer>1,200 or twenty-one</answer>",
)


def part(runs: int, options: argparse.Namespace) -> dict[str, Any]:
    """Fuzz in a process of its own, which its library ends.

    Returns:
        ``inputs``; ``seconds``; ``reached``, the edges and features of the code that were; ``findings``, the texts that
        broke something; ``said``, the end of what the fuzzer said where it did not end by itself.
    """
    with tempfile.TemporaryDirectory() as found:
        target = Path(__file__).with_name("fuzz_target.py")
        inputs = [sys.executable, str(target), ",".join(options.promises), str(options.corpus)]
        limits = [
            f"-runs={runs}",
            f"-max_len={options.longest}",
            "-timeout=600",
            "-report_slow_units=600",
            "-rss_limit_mb=2048",
        ]
        words = Path(found, "words")
        words.write_text(_dictionary(), encoding="ascii")
        command = [*inputs, *limits, f"-dict={words}", f"-artifact_prefix={found}/broken-", "-print_final_stats=1"]
        began = time.monotonic()
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
        seconds = round(time.monotonic() - began)
        broken = [path.read_bytes().decode("utf-8", "surrogateescape") for path in Path(found).glob("broken-*")]
    executed = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    if not executed:
        raise SystemExit(f"expected a run of the fuzzer, got {done.stderr[-2000:]}")
    reached = re.findall(r"\bcov: (\d+) ft: (\d+)", done.stderr)
    if not reached and not broken:
        raise SystemExit(f"expected code that tells which lines were reached, got {done.stderr[-2000:]}")
    return {
        "inputs": int(executed[1]),
        "seconds": seconds,
        "reached": [int(count) for count in reached[-1]] if reached else [],  # none where the first input breaks it
        "findings": broken,
        "said": done.stderr[-2000:] if done.returncode else "",
    }


def _dictionary() -> str:
    """Return the pieces of the grammar in the format of libFuzzer."""
    from benchmarks.text_promises import PIECES

    escaped = ("".join(f"\\x{byte:02x}" for byte in piece.encode()) for piece in PIECES)
    return "".join(f'"{piece}"\n' for piece in escaped)


def main() -> int:
    """Fuzz part after part and add each to the JSON file; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs (%(default)s)")
    parser.add_argument("--longest", type=int, default=400, help="bytes of an input, at most (%(default)s)")
    parser.add_argument("--promises", nargs="+", choices=PROMISES, default=list(PROMISES), help="which (all)")
    parser.add_argument("--corpus", type=Path, default=Path("runs/fuzz_text"), help="folder of inputs (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "fuzz_text.json", help="JSON file to add to")
    options = parser.parse_args()
    options.corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS):
        (options.corpus / f"seed-{number}").write_text(seed, encoding="utf-8")
    parts = json.loads(options.out.read_text(encoding="utf-8"))["parts"] if options.out.exists() else []
    for begun in tqdm(range(0, options.runs, PART), unit="part", disable=options.runs <= PART):
        runs = min(PART, options.runs - begun)
        done = part(runs, options)
        parts.append(provenance(["atheris", "pixel-env"]) | {"promises": options.promises} | done)
        total = {"inputs": sum(one["inputs"] for one in parts), "findings": sum(len(one["findings"]) for one in parts)}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        replace_text(options.out, json.dumps(total | {"parts": parts}, indent=1) + "\n")
        if done["said"]:
            print(*map(ascii, done["findings"]), done["said"], sep="\n", file=sys.stderr)
            return 1
    print(f"{options.out}: {total['inputs']} inputs, {total['findings']} findings")
    return 0


if __name__ == "__main__":
    sys.exit(main())
