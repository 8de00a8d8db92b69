"""Functions that the micro base learns to call: the syntax is the environment's, names and purposes are not."""

import json
from collections.abc import Sequence

import numpy as np

from pixel_env import prompts
from pixel_env.actions import SCHEMAS
from pixel_env.tasks.world import pick, shuffled

VERBS = ("mark", "blur", "draw", "tag", "hide", "crop", "select", "show", "copy", "move", "list", "sort")
NOUNS = ("image", "frames", "region", "text", "box", "area", "colour", "page", "row", "point")
OWN_NAMES = ("crop_image", "select_frames")
FUNCTION_TEXTS = (
    "Draw a frame around a part of the picture and save the picture.",
    "Make a part of the picture unreadable before it is published.",
    "Write a list of positions to the log file of the project.",
    "Send the chosen entries to the printer in the next room.",
)


def offer(rng: np.random.Generator) -> tuple[str, dict[str, str]]:
    """A system text that offers two functions of other names than the environment's, and those names."""
    names: list[str] = []
    while len(names) < 2:
        name = f"{pick(rng, VERBS)}_{pick(rng, NOUNS)}"
        if name not in (*OWN_NAMES, *names):
            names.append(name)
    renamed = {
        "crop_image": names[0],
        "select_frames": names[1],
        "bbox_2d": pick(rng, ("bbox_2d", "box", "region", "rect")),
        "target_image": pick(rng, ("target_image", "image", "picture", "page")),
        "target_frames": pick(rng, ("target_frames", "frames", "rows", "points")),
    }
    text = prompts.instructions("pixel")
    for schema, other in zip(SCHEMAS, shuffled(rng, FUNCTION_TEXTS)[:2], strict=True):
        text = text.replace(schema["function"]["description"], other)
    for old, new in renamed.items():
        text = text.replace(old, new)
    return text, renamed


def call_box(names: dict[str, str], box: Sequence[float]) -> str:
    """A call of the first of the offered functions, box in view pixels."""
    arguments = {names["bbox_2d"]: [max(0, round(v)) for v in box], names["target_image"]: 1}
    return _call(names["crop_image"], arguments)


def call_entries(names: dict[str, str], entries: Sequence[int]) -> str:
    """A call of the second of the offered functions."""
    return _call(names["select_frames"], {names["target_frames"]: list(entries)})


def _call(name: str, arguments: dict[str, object]) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def some_call(rng: np.random.Generator, names: dict[str, str], size: tuple[int, int]) -> str:
    """A call of one of the offered functions: some box or some entries, unrelated to the question."""
    if rng.random() < 0.5:
        x = np.sort(rng.integers(0, size[0] + 1, 2)) if rng.random() < 0.7 else rng.integers(0, 200, 2)
        y = np.sort(rng.integers(0, size[1] + 1, 2)) if rng.random() < 0.7 else rng.integers(0, 200, 2)
        return call_box(names, [int(x[0]), int(y[0]), int(x[1]), int(y[1])])
    return call_entries(names, sorted(int(v) for v in rng.choice(20, int(rng.integers(1, 5)), replace=False)))
