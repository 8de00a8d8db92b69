"""A teacher that says what a script has for each question, and small seeds to ask it about."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from chat_server import Answer, completion
from layouts import write_lines
from PIL import Image

GOOD: dict[str, Any] = {
    "guess": {"answer": "unknown"},
    "whole": {"analysis": "A busy street with many small things.", "target": "the sign above the door"},
    "closer": {"analysis": "The sign is easy to read now.", "answer": ""},
    "judge": {"rich": True, "box": [40, 40, 60, 56]},
    "question": {
        "question": "What is painted on the door of the bakery?",
        "choices": ["a loaf", "a cat", "a fish", "a tree"],
        "answer": "a cat",
    },
}
"""What is said unless the script has something else; an empty answer is the right one of the script."""


def request_of(body: dict[str, Any]) -> tuple[str, str]:
    """Which of the requests a body is, and the question in it."""
    text = "".join(part.get("text", "") for part in body["messages"][1]["content"])
    asked = text.partition("Question: ")[2].partition("\n")[0]
    for kind, words in (
        ("guess", "alone"),
        ("whole", "The evidence is in"),
        ("closer", "A closer look"),
        ("judge", "rich enough"),
        ("question", "Write a question"),
    ):
        if words in text:
            return kind, asked
    raise AssertionError(text)


class ScriptedTeacher:
    """Answers requests; `script` has, for a question, the right answer and what is said in place of `GOOD`.

    What is said may be an object, a raw text, a whole `Answer`, or a list of these, one for each time it is asked.
    """

    def __init__(self, script: dict[str, dict[str, Any]]) -> None:
        self.script = script
        self.asked: list[tuple[str, str]] = []

    def __call__(self, number: int, body: dict[str, Any]) -> Answer:
        kind, question = request_of(body)
        self.asked.append((kind, question))
        wanted = self.script.get(question, {})
        said = wanted.get(kind, GOOD[kind])
        if isinstance(said, list):
            said = said[min(self.asked.count((kind, question)), len(said)) - 1]
        if isinstance(said, dict) and said.get("answer") == "":
            said = said | {"answer": wanted.get("right", "exit")}
        if isinstance(said, Answer):
            return said
        return completion(said if isinstance(said, str) else f"```json\n{json.dumps(said)}\n```")


def noise(path: Path, seed: int, size: tuple[int, int] = (448, 448)) -> Path:
    """A picture that is like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(256, size=(size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).save(path)
    return path


def seeds(root: Path, questions: Sequence[dict[str, Any]]) -> str:
    """A set of our own format: a picture with a box for each question, unless it says otherwise."""
    lines = []
    for number, fields in enumerate(questions):
        name = f"{number}.png"
        noise(root / name, number)
        line = {"image": name, "answer": "exit", "boxes": [200, 200, 230, 216], **fields}
        lines.append({key: value for key, value in line.items() if value is not None})
    return f"jsonl:{write_lines(root / 'seeds.jsonl', lines)}"


def video(root: Path, name: str, seed: int) -> list[str]:
    """Frames of a video, as paths from `root`."""
    names = [f"{name}/{number}.png" for number in range(8)]
    for number, path in enumerate(names):
        noise(root / path, 100 * seed + number, (112, 112))
    return names
