"""How the micro base learns to see: what is under each image token, told to the vision tower token by token.

Image tokens are pulled towards the words of what they show, and carry places and further characters in linear codes:
the language model then finds a thing by its name and repeats what it says by copying.
"""

import itertools

import numpy as np
import torch
from torch import nn

from agents import micro
from pixel_env.tasks.drawing import COLOUR_NAMES, SHAPES, Canvas, Mark, text_width
from pixel_env.tasks.world import DIGITS, LETTERS

NONE = -100
KINDS = (*SHAPES, "panel")
WORDS = {
    "glyph": tuple(DIGITS + LETTERS),
    "colour": (*(f" {colour}" for colour in COLOUR_NAMES), " white"),
    "kind": tuple(f" {kind}" for kind in KINDS),
    "dots": tuple(DIGITS),
}
"""What an image token can say, attribute by attribute; each is one token of the vocabulary."""
SLOTS = ("second", "third")
"""Further characters that a token holds, from left to right."""
INKS = ("black", "white")
"""Dots are counted in all, as a word, and by ink, in linear codes."""
SIDES = ("x1", "y1", "x2", "y2")
TENS = 16
"""Sides of boxes are told by their tens, in pixels of the view, from 0 to 150."""
CHARACTERS = DIGITS + LETTERS
SHARPNESS = 12.0
"""Scale of the cosine between an image token and a word: low enough that the words make up most of the token."""


Labels = dict[str, np.ndarray]


def dense_labels(canvas: Canvas, region: tuple[float, ...], size: tuple[int, int]) -> Labels:
    """What is under each image token, row by row: characters (at most three), colour, kind, dots, box in the view.

    A token belongs to the mark that covers its middle, else to the mark whose middle it holds; characters of a string
    belong to the token that holds their middle, or whose middle they cover.
    """
    x1, y1, x2, y2 = region
    sx, sy = size[0] / (x2 - x1), size[1] / (y2 - y1)
    columns, rows = size[0] // micro.FACTOR, size[1] // micro.FACTOR
    labels: dict[str, np.ndarray] = {name: np.full(columns * rows, NONE) for name in (*WORDS, *SLOTS, *INKS)}
    for name in ("colour", "kind"):
        labels[name][:] = len(WORDS[name])  # nothing
    labels["box"] = np.full((columns * rows, 4), np.nan, np.float32)
    for mark in canvas.marks:
        if _is_dot(mark):
            continue
        box = np.array(
            [(mark.box[0] - x1) * sx, (mark.box[1] - y1) * sy, (mark.box[2] - x1) * sx, (mark.box[3] - y1) * sy]
        )
        legible = mark.text_height * min(sx, sy) >= 5.5
        for cell in range(columns * rows):
            cx, cy = (cell % columns + 0.5) * micro.FACTOR, (cell // columns + 0.5) * micro.FACTOR
            if len(mark.text) > 1 and legible:
                for name, index in zip(("glyph", *SLOTS), _characters_at(mark, box, sx, sy, cx, cy), strict=False):
                    labels[name][cell] = index
            covers = box[0] <= cx < box[2] and box[1] <= cy < box[3]
            holds = max(abs((box[0] + box[2]) / 2 - cx), abs((box[1] + box[3]) / 2 - cy)) < micro.FACTOR / 2
            if mark.kind == "text" or not (covers or holds):
                continue
            shown = 0 <= box[0] + box[2] <= 2 * size[0] and 0 <= box[1] + box[3] <= 2 * size[1]
            if len(mark.text) == 1 and legible and shown:
                labels["glyph"][cell] = CHARACTERS.index(mark.text)
            if mark.colour in COLOUR_NAMES or mark.colour == "white":
                labels["colour"][cell] = (*COLOUR_NAMES, "white").index(mark.colour)
            labels["kind"][cell] = KINDS.index(mark.kind)
            if not mark.text and box[2] - box[0] > 30 and (0 <= box).all() and box[2] <= size[0] and box[3] <= size[1]:
                found = [m.colour for m in canvas.marks if _is_dot(m) and inside(m, mark)]
                black, white = (found.count(ink) for ink in INKS)
                for name, number in (("dots", black + white), ("black", black), ("white", white)):
                    labels[name][cell] = min(number, 9)
            labels["box"][cell] = np.clip(box, 0, [*size, *size])
    return labels


def _is_dot(mark: Mark) -> bool:
    return mark.kind == "circle" and mark.colour in ("black", "white")


def inside(inner: Mark, outer: Mark) -> bool:
    """Whether the middle of a mark lies in another."""
    (x, y), (x1, y1, x2, y2) = inner.centre, outer.box
    return x1 < x < x2 and y1 < y < y2


def _characters_at(mark: Mark, box: np.ndarray, sx: float, sy: float, cx: float, cy: float) -> list[int]:
    """Characters of a string under the token around (cx, cy), filled up with "none"; nothing beside the string."""
    half = micro.FACTOR / 2
    if abs((box[1] + box[3]) / 2 - cy) > max(mark.text_height * sy / 2, half):
        return []
    ends = [text_width(mark.text[:k], mark.text_height) * sx for k in range(len(mark.text) + 1)]
    left = (box[0] + box[2] - ends[-1]) / 2
    spans = [(left + a, left + b) for a, b in itertools.pairwise(ends)]
    inside = [k for k, (a, b) in enumerate(spans) if cx - half <= (a + b) / 2 < cx + half or a <= cx < b]
    found = [CHARACTERS.index(mark.text[k]) for k in inside[: 1 + len(SLOTS)]]
    return found + [len(CHARACTERS)] * (1 + len(SLOTS) - len(found)) if found else []


class TokenReader(nn.Module):
    """Reads image tokens through the word embeddings of the language model, and boxes through a linear map.

    What a red circle looks like is pulled towards the words "red" and "circle": the language model then finds a thing
    by its name, and repeats what it says, by copying, which it learns much sooner than a code of its own.
    """

    def __init__(self, embeddings: nn.Embedding, words: dict[str, list[int]]) -> None:
        super().__init__()
        width = embeddings.embedding_dim
        classes = dict.fromkeys(SLOTS, len(CHARACTERS) + 1) | dict.fromkeys(INKS, len(DIGITS))
        self.linear = nn.ModuleDict({name: nn.Linear(width, number) for name, number in classes.items()})
        self.sides = nn.Linear(width, 4 * TENS)
        self.box = nn.Linear(width, 4)
        self._embeddings, self._words = [embeddings], words  # in a list: not a parameter of this module

    def loss(self, features: torch.Tensor, labels: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        """Sum of the losses of all attributes and the accuracy of each (of the box: mean error in pixels).

        Args:
            features: (tokens, hidden), the image tokens as the language model gets them.
            labels: see `dense_labels`; what is absent is not trained.
        """
        total = features.new_zeros(())
        scores: dict[str, float] = {}
        if "box" in labels:
            total, scores = self._place_loss(features, labels["box"])
        for name, head in self.linear.items():
            if name in labels and (known := labels[name] != NONE).any():
                logits, target = head(features[known]), labels[name][known]
                total = total + 0.5 * nn.functional.cross_entropy(logits, target)
                there = target < len(CHARACTERS)  # mostly there is no second character
                scores[name] = float((logits.argmax(-1) == target)[there].float().mean()) if there.any() else 0.0
        directions = nn.functional.normalize(features, dim=-1)
        for name, words in self._words.items():
            if name in labels and (known := labels[name] != NONE).any():
                meanings = nn.functional.normalize(self._embeddings[0].weight[words], dim=-1)
                logits = SHARPNESS * directions[known] @ meanings.T
                logits = nn.functional.pad(logits, (0, 1))  # nothing at all scores 0
                target = labels[name][known]
                total = total + (1.0 if name == "glyph" else 0.3) * nn.functional.cross_entropy(logits, target)
                scores[name] = float((logits.argmax(-1) == target).float().mean())
        return total, scores

    def _place_loss(self, features: torch.Tensor, boxes: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        known = boxes[:, 0].isfinite()
        error = self.box(features[known]) - boxes[known] / micro.FACTOR
        tens = (boxes[known] / 10).long().flatten()
        tens = tens.where(tens < TENS, NONE)
        logits = self.sides(features[known]).view(-1, TENS)
        loss = nn.functional.smooth_l1_loss(error, torch.zeros_like(error), beta=0.1)
        loss = loss + nn.functional.cross_entropy(logits, tens, ignore_index=NONE)
        right = logits.argmax(-1) == tens
        return 0.5 * loss, {
            "box": float(error.detach().abs().mean()) * micro.FACTOR,
            "tens": float(right[tens != NONE].float().mean()),
        }
