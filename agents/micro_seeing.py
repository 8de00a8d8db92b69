"""What a view shows, image token by image token: told to the vision tower, and to the language model in its stead.

The tower learns to say what is under each of its tokens (`TokenReader`). The language model learns from tokens written
straight from the list of what is drawn (`TokenWriter`), without a pixel. A least-squares fit (`fitted`) then makes the
tower write as the writer does, and both go on together.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from agents.micro import FACTOR
from agents.reasons import INKS, holds
from pixel_env.media import Box, view
from pixel_env.tasks import DrawnSource
from pixel_env.tasks.drawing import COLOUR_NAMES, SHAPES, Canvas, Mark, text_width
from pixel_env.tasks.world import DIGITS, LETTERS

NONE = -100
KINDS = (*SHAPES, "panel")
CHARACTERS = DIGITS + LETTERS
WORDS = {
    "glyph": tuple(CHARACTERS),
    "colour": (*(f" {colour}" for colour in COLOUR_NAMES), " white"),
    "kind": tuple(f" {kind}" for kind in KINDS),
    "dots": tuple(DIGITS),
}
"""What an image token can say, attribute by attribute; each is one token of the vocabulary."""
SLOTS = ("second", "third")
"""Further characters that a token holds, from left to right."""
KNOTS = np.arange(-84.0, 113.0, 7.0)
"""Places, in view pixels from the upper left corner of a token, between which the sides of a box are told.

Where the token itself lies is for the language model to know, which has its row and column in the rotary positions; the
tower, whose positions are relative, would spend most of what it is on finding that out.
"""
CLASSES = {name: len(words) for name, words in WORDS.items()} | {
    **dict.fromkeys(SLOTS, len(CHARACTERS) + 1),
    **dict.fromkeys(INKS, len(DIGITS)),
}
"""Number of values of each attribute; the last of a further character is "none"."""
WORD_WEIGHT = {"glyph": 1.0, "colour": 0.3, "kind": 1.0, "dots": 1.0}
"""In the loss: shapes and dots are learned as late as characters, and at a low weight hardly at all."""
SHARPNESS = 12.0
"""Scale of the cosine between an image token and a direction."""
LEGIBLE = 5.5
"""Height in view pixels from which a character is told."""

Labels = dict[str, np.ndarray]


@dataclass(frozen=True)
class Picture:
    """A view of a region of a canvas (source pixels) at a size (width, height), drawn when its pixels are needed."""

    canvas: Canvas
    region: Box
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3), as of the array that `draw` returns."""
        return self.size[1], self.size[0], 3

    def draw(self) -> np.ndarray:
        """The pixels, (H, W, 3) uint8."""
        return view(DrawnSource((self.canvas,)).frame(0), self.region, self.size)

    def labels(self) -> Labels:
        """What is under each image token, row by row: see `dense_labels`."""
        return dense_labels(self.canvas, self.region, self.size)


def dense_labels(canvas: Canvas, region: Box, size: tuple[int, int]) -> Labels:
    """What is under each image token, row by row: characters (at most three), colour, kind, dots, sides of its box.

    A token belongs to the mark that covers its middle, else to the mark whose middle it holds; characters of a string
    belong to the token that holds their middle, or whose middle they cover.

    Returns:
        For each attribute of `CLASSES` (tokens,) int with `NONE` where nothing is told, for colour and kind the number
        of classes where there is nothing; for "sides" (tokens, 4) float32, x1 y1 x2 y2 of the part of the box in the
        view, in view pixels from the token's upper left corner, NaN for nothing.
    """
    x1, y1, x2, y2 = region
    sx, sy = size[0] / (x2 - x1), size[1] / (y2 - y1)
    columns, rows = size[0] // FACTOR, size[1] // FACTOR
    labels: Labels = {name: np.full(columns * rows, NONE) for name in CLASSES}
    for name in ("colour", "kind"):
        labels[name][:] = CLASSES[name]
    labels["sides"] = np.full((columns * rows, 4), np.nan, np.float32)
    cx, cy = (np.tile(np.arange(columns), rows) + 0.5) * FACTOR, (np.arange(rows).repeat(columns) + 0.5) * FACTOR
    for mark in canvas.marks:
        if _is_dot(mark):
            continue
        left, top, right, bottom = (
            (mark.box[0] - x1) * sx, (mark.box[1] - y1) * sy, (mark.box[2] - x1) * sx, (mark.box[3] - y1) * sy
        )  # fmt: skip
        if right <= 0 or bottom <= 0 or left >= size[0] or top >= size[1]:
            continue
        box = np.array([left, top, right, bottom])
        legible = mark.text_height * min(sx, sy) >= LEGIBLE
        if len(mark.text) > 1 and legible:
            for cell in range(columns * rows):
                for name, index in zip(
                    ("glyph", *SLOTS), _characters_at(mark, box, sx, sy, cx[cell], cy[cell]), strict=False
                ):
                    labels[name][cell] = index
        if mark.kind == "text":
            continue
        covers = (left <= cx) & (cx < right) & (top <= cy) & (cy < bottom)
        centred = np.maximum(abs((left + right) / 2 - cx), abs((top + bottom) / 2 - cy)) < FACTOR / 2
        mine = covers | centred
        if len(mark.text) == 1 and legible and 0 <= left + right <= 2 * size[0] and 0 <= top + bottom <= 2 * size[1]:
            labels["glyph"][mine] = CHARACTERS.index(mark.text)
        if mark.colour in COLOUR_NAMES or mark.colour == "white":
            labels["colour"][mine] = (*COLOUR_NAMES, "white").index(mark.colour)
        labels["kind"][mine] = KINDS.index(mark.kind)
        if not mark.text and right - left > 30 and (box >= 0).all() and right <= size[0] and bottom <= size[1]:
            found = [m.colour for m in canvas.marks if _is_dot(m) and holds(mark, m)]
            black, white = (found.count(ink) for ink in INKS)
            for name, number in (("dots", black + white), ("black", black), ("white", white)):
                labels[name][mine] = min(number, 9)
        corners = np.stack([cx, cy, cx, cy], axis=1)[mine] - FACTOR / 2
        labels["sides"][mine] = np.clip(box, 0, [*size, *size]) - corners
    return labels


def _is_dot(mark: Mark) -> bool:
    return mark.kind == "circle" and mark.colour in INKS


def _characters_at(mark: Mark, box: np.ndarray, sx: float, sy: float, cx: float, cy: float) -> list[int]:
    """Characters of a string under the token around (cx, cy), filled up with "none"; nothing beside the string."""
    half = FACTOR / 2
    if abs((box[1] + box[3]) / 2 - cy) > max(mark.text_height * sy / 2, half):
        return []
    ends = [text_width(mark.text[:k], mark.text_height) * sx for k in range(len(mark.text) + 1)]
    left = (box[0] + box[2] - ends[-1]) / 2
    spans = [(left + a, left + b) for a, b in itertools.pairwise(ends)]
    inside = [k for k, (a, b) in enumerate(spans) if cx - half <= (a + b) / 2 < cx + half or a <= cx < b]
    found = [CHARACTERS.index(mark.text[k]) for k in inside[: 1 + len(SLOTS)]]
    return found + [len(CHARACTERS)] * (1 + len(SLOTS) - len(found)) if found else []


class TokenReader(nn.Module):
    """Reads what the tower found: words as the nearest of some directions, places and further characters linearly.

    It reads the activations in front of the tower's last layer, through a layer of its own as narrow as an image token:
    so the last layer is free to be fitted to the language model.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.narrow = nn.Linear(features, width)
        self.linear = nn.ModuleDict({name: nn.Linear(width, CLASSES[name]) for name in (*SLOTS, *INKS)})
        self.directions = nn.ParameterDict(
            {name: nn.Parameter(torch.randn(len(words), width)) for name, words in WORDS.items()}
        )
        self.sides = nn.Linear(width, 4 * len(KNOTS))

    def loss(self, features: torch.Tensor, labels: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        """Sum of the losses of all attributes and the accuracy of each (of sides: mean error in pixels).

        Args:
            features: (tokens, features), what the tower's last layer gets.
            labels: see `dense_labels`; what is absent is not trained.
        """
        seen = self.narrow(features)
        total = features.new_zeros(())
        scores: dict[str, float] = {}
        if "sides" in labels and (known := labels["sides"][:, 0].isfinite()).any():
            wanted = between_knots(labels["sides"][known])
            logits = self.sides(seen[known]).view(wanted.shape)
            total = 0.1 * nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(0, 1))
            places = torch.from_numpy(KNOTS).to(logits)
            scores["sides"] = float(((logits.detach().softmax(-1) - wanted) @ places).abs().mean())
        for name, head in self.linear.items():
            if name in labels and (known := labels[name] != NONE).any():
                logits, target = head(seen[known]), labels[name][known]
                total = total + 0.5 * nn.functional.cross_entropy(logits, target)
                there = target < len(CHARACTERS)  # mostly there is no second character
                scores[name] = float((logits.argmax(-1) == target)[there].float().mean()) if there.any() else 0.0
        pointing = nn.functional.normalize(seen, dim=-1)
        for name, meanings in self.directions.items():
            if name in labels and (known := labels[name] != NONE).any():
                logits = SHARPNESS * pointing[known] @ nn.functional.normalize(meanings, dim=-1).T
                logits = nn.functional.pad(logits, (0, 1))  # nothing at all scores 0
                target = labels[name][known]
                total = total + WORD_WEIGHT[name] * nn.functional.cross_entropy(logits, target)
                scores[name] = float((logits.argmax(-1) == target).float().mean())
        return total, scores


def between_knots(sides: torch.Tensor) -> torch.Tensor:
    """Weights of the `KNOTS` between which each side lies, in proportion: (n, 4) pixels to (n, 4, knots).

    >>> between_knots(torch.tensor([[-84.0, -75.25, 112.0, 500.0]]))[0, :, [0, 1, 2, -1]]
    tensor([[1.0000, 0.0000, 0.0000, 0.0000],
            [0.0000, 0.7500, 0.2500, 0.0000],
            [0.0000, 0.0000, 0.0000, 1.0000],
            [0.0000, 0.0000, 0.0000, 1.0000]])
    """
    step = KNOTS[1] - KNOTS[0]
    place = ((sides - KNOTS[0]) / step).clamp(0, len(KNOTS) - 1)
    distance = (place[..., None] - torch.arange(len(KNOTS), device=sides.device)).abs()
    return (1 - distance).clamp(min=0)


class TokenWriter(nn.Module):
    """Writes image tokens from labels, as a tower would that sees everything: a sum of one vector an attribute.

    Words are written as the language model embeds them, so that it finds a thing by its name and reads by copying,
    which it learns much sooner than a code of its own. A side of a box is written between the vectors of its two
    nearest knots, in proportion.
    """

    def __init__(self, embeddings: nn.Embedding, words: dict[str, list[int]]) -> None:
        super().__init__()
        self._embeddings = [embeddings]  # in a list: not a part of this module
        width, scale = embeddings.embedding_dim, float(embeddings.weight.detach().std())
        self._words = {name: torch.tensor(ids) for name, ids in words.items()}
        self.codes = nn.ModuleDict({name: nn.Embedding(n, width) for name, n in CLASSES.items() if name not in words})
        self.sides = nn.Parameter(0.5 * scale * torch.randn(4, len(KNOTS), width))
        self.nothing = nn.Parameter(scale * torch.randn(width))
        for parameter in self.codes.parameters():
            nn.init.normal_(parameter, std=scale)

    def forward(self, labels: dict[str, torch.Tensor]) -> torch.Tensor:
        """Tokens (tokens, width) of labels as `dense_labels` gives them."""
        known = labels["sides"][:, :1].isfinite()
        written = torch.einsum("nsk,skw->nw", between_knots(labels["sides"].nan_to_num()), self.sides)
        tokens = torch.where(known, written, self.nothing)
        for name in CLASSES:
            told = (labels[name] != NONE) & (labels[name] < CLASSES[name])
            value = labels[name].where(told, 0)
            tokens = tokens + self._table(name)[value] * told[:, None]
        return tokens

    def _table(self, name: str) -> torch.Tensor:
        """Vectors (values, width) of an attribute."""
        if name in self._words:
            return self._embeddings[0].weight[self._words[name].to(self.sides.device)]
        table = self.codes[name].weight
        assert isinstance(table, torch.Tensor)
        return table

    def loss(self, tokens: torch.Tensor, labels: dict[str, torch.Tensor]) -> torch.Tensor:
        """How badly tokens (tokens, width) of another writer say what the labels do: cross-entropies, a scalar.

        Each attribute is read as the vector that a token holds most of; the vectors themselves stay as they are.
        """
        total = tokens.new_zeros(())
        for name in CLASSES:
            known = (labels[name] != NONE) & (labels[name] < CLASSES[name])
            if known.any():
                logits = _matched(tokens[known], self._table(name).detach())
                total = total + WORD_WEIGHT.get(name, 0.3) * nn.functional.cross_entropy(logits, labels[name][known])
        if (known := labels["sides"][:, 0].isfinite()).any():
            wanted = between_knots(labels["sides"][known])
            for side, table in enumerate(self.sides.detach()):
                logits = _matched(tokens[known], table)
                total = total + 0.1 * nn.functional.cross_entropy(logits, wanted[:, side])
        return total


def _matched(tokens: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Logits (tokens, values) of what tokens (tokens, width) hold of a table (values, width)."""
    table = table - table.mean(0)
    scale = table.square().sum(1).mean()
    return 4 * (tokens @ table.T - 0.5 * table.square().sum(1)) / scale


def fitted(features: torch.Tensor, tokens: torch.Tensor, ridge: float = 1e-3) -> tuple[nn.Linear, float]:
    """The linear layer that maps features to tokens with the least squared error, and the share it explains.

    Args:
        features: (n, features).
        tokens: (n, width).
        ridge: penalty on the weights, in mean squares of the features.
    """
    x, y = features.double(), tokens.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    gram = x.T @ x
    gram += ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    weight = torch.linalg.solve(gram, x.T @ y)
    explained = 1 - float((y - x @ weight).square().sum() / y.square().sum())
    layer = nn.Linear(x.shape[1], y.shape[1], device=features.device)
    with torch.no_grad():
        layer.weight.copy_(weight.T)
        layer.bias.copy_(y_mean - x_mean @ weight)
    return layer, explained
