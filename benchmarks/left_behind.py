"""What runs leave in their folders: whether every file can be read, and whether two of them hold the same."""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from pixel_env.trajectory import load_jsonl

RELATIVE, ABSOLUTE = 1e-3, 1e-5
"""Of weights: sums are not always made in the same order."""


def broken(out: Path) -> list[str]:
    """Return the files with a final name that cannot be read; lines that a kill cut short are no part of a file."""
    wrong = []
    for path in sorted(out.rglob("*")):
        place = path.relative_to(out)
        begun = any(Path(part).suffix in (".part", ".old") for part in place.parts)
        marked = not str(place.parts[-2:-1]).count("checkpoint-") or (path.parent / "complete").exists()
        if begun or not marked or not path.is_file():
            continue
        try:
            _read(path)
        except Exception as error:
            wrong.append(f"{place}: {type(error).__name__}: {error}")
    return wrong


def _read(path: Path) -> None:
    match path.suffix:
        case ".json":
            json.loads(path.read_bytes())
        case ".jsonl":
            for line in path.read_bytes().split(b"\n")[:-1]:
                json.loads(line)
        case ".safetensors":
            with safe_open(path, "pt") as tensors:
                for name in tensors.keys():
                    tensors.get_tensor(name)
        case ".pt" | ".pth" | ".bin":
            with ZipFile(path) as parts:  # what torch writes
                if damaged := parts.testzip():
                    raise ValueError(f"{damaged} in it is damaged")
        case ".png":
            with Image.open(io.BytesIO(path.read_bytes())) as picture:
                picture.load()


def difference(expected: Path, got: Path, files: Sequence[str], weights: str) -> float:
    """Return by how much the weights of two runs differ at most.

    Args:
        expected: Folder of a run.
        got: Folder of another one.
        files: Names of files that are the same to the byte; with a "*" of trajectories that are of the same tasks; or
            "metrics", "result", "report" for what does not tell time or machine in these.
        weights: Folder of the weights in that of a run, or "".

    Raises:
        RuntimeError: Something else differs.
        AssertionError: The weights differ by more than these tolerances.
    """
    for pattern in files:
        sides = [_content(folder, pattern) for folder in (expected, got)]
        if sides[0] != sides[1]:
            raise RuntimeError(f"{pattern} of {got} is not that of {expected}")
    if not weights:
        return 0.0
    first, second = (load_file(folder / weights / "model.safetensors") for folder in (expected, got))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=RELATIVE, atol=ABSOLUTE)
    return max(float((second[name] - tensor).abs().max()) for name, tensor in first.items())


def _content(out: Path, pattern: str) -> Any:
    if pattern == "metrics":
        return {
            (row["stage"], row["step"]) for row in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        }
    if pattern == "result":
        return json.loads((out / "result.json").read_text())["overall"]["summary"]
    if pattern == "report":
        return json.loads((out / "report.json").read_text())["stages"]
    return {
        path.name: [t.task_id for t in load_jsonl(path)] if "*" in pattern else _digest(path)
        for path in sorted(out.glob(pattern))
    }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def repeated(out: Path) -> int | None:
    """Return how much was done more than once: optimizer steps, or episodes; None where that is not written down."""
    if (out / "metrics.jsonl").exists():
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        steps = [(row["stage"], row["step"]) for row in rows if "train_runtime" not in row]
        return len(steps) - len(set(steps))
    if (out / "costs.jsonl").exists():
        return len((out / "costs.jsonl").read_text().splitlines()) - len(load_jsonl(out / "trajectories.jsonl"))
    return None
