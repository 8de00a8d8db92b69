"""Sizes, vocabulary and splits shared by the procedural suites.

Sizes are thought of in *view pixels*: pixels of the first view that a policy is shown. An object of a dozen view pixels
can be located there but not read; how many source pixels that is follows from the canvas.

Levels: 1 has few objects and none like the target; 2 has more, near misses, longer strings and higher counts; 3 has
more still, and questions that compare several of them. 0 asks what 1 asks of pictures in which it is large enough for
the first view, so that from the question alone nobody can tell whether a look is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pixel_env.media import Box, view_size
from pixel_env.tasks.drawing import COLOUR_NAMES, INKS, SHAPES, Canvas, Mark
from pixel_env.tasks.task import Cue

DIGITS = "0123456789"
LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"  # I, O and Q look like 1 and 0
ANSWER_LETTERS = LETTERS.strip("ABCD")  # (A) to (D) label the choices of a question
FACTOR = 28
CELL = 28.0
"""Side of a placement cell in view pixels; one mark a cell keeps marks apart."""

LEAST_TEXT = 7.0
"""Height in source pixels under which Pillow's font stops being legible at full resolution."""

VIEW_PIXELS = {"micro": 112 * 112, "standard": 1280 * 784}
CROP_PIXELS = {"micro": 112 * 112, "standard": 640 * 784}
NUM_FRAMES = 16
OBJECT_SIDES = {"micro": (11.0, 15.0), "standard": (9.0, 13.0)}
"""Of an object that carries a character, in view pixels: a micro model tells shapes apart from about ten."""
LEGIBLE = {"micro": 2.3, "standard": 4.0}
"""How many times larger all of that is drawn at level 0: characters of seven view pixels and more."""

T = TypeVar("T")
Pair = tuple[str, str]  # (colour, shape)
Size = tuple[int, int]  # (width, height) in source pixels

_IMAGE_SIZES: dict[tuple[str, str], tuple[Size, ...]] = {
    ("micro", "train"): ((448, 448), (560, 560), (672, 672), (896, 896), (560, 448), (448, 560)),
    ("micro", "test"): ((504, 504), (784, 784), (672, 504), (504, 672)),
    ("standard", "train"): ((2048, 2048), (2560, 2048), (3072, 2304), (4096, 3072)),
    ("standard", "test"): ((2304, 2304), (2816, 2112), (3584, 2688)),
}
_CLIP_SIZES: dict[tuple[str, str], tuple[Size, ...]] = {
    ("micro", "train"): ((448, 448), (560, 560), (672, 672)),
    ("micro", "test"): ((504, 504), (616, 616)),
    ("standard", "train"): ((2048, 1152), (2560, 1440)),
    ("standard", "test"): ((2304, 1296),),
}
# Every eighth pair of colour and shape is never a target in training, and is never drawn there at all.
_HELD_OUT = frozenset((c, s) for i, c in enumerate(COLOUR_NAMES) for j, s in enumerate(SHAPES) if (i - j) % 8 == 3)
_ALL_PAIRS = tuple((c, s) for c in COLOUR_NAMES for s in SHAPES)


@dataclass(frozen=True)
class Draft:
    """A generated task before it gets its id: see `pixel_env.tasks.task.Task` for the fields."""

    question: str
    canvases: tuple[Canvas, ...]
    answers: tuple[str, ...]
    answer_kind: str
    needs_operation: bool
    cue: Cue
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class World:
    """What a preset and a split allow: canvas sizes, attribute pairs, amount of clutter.

    Attributes:
        preset: Name of a preset.
        split: "train" or "test".
        legible: Whether the first view of a picture is enough to read what is in it: level 0.
    """

    preset: str
    split: str
    legible: bool = False

    @property
    def clutter(self) -> int:
        """How many times more objects than in the micro preset."""
        return 1 if self.preset == "micro" else 4

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Attribute pairs that may be drawn at all."""
        return _ALL_PAIRS if self.split == "test" else tuple(p for p in _ALL_PAIRS if p not in _HELD_OUT)

    @property
    def target_pairs(self) -> tuple[Pair, ...]:
        """Attribute pairs that may be asked about: disjoint between the splits."""
        return tuple(p for p in _ALL_PAIRS if (p in _HELD_OUT) == (self.split == "test"))

    def object_side(self, rng: np.random.Generator) -> float:
        """Draw the side of an object that carries a character, view pixels."""
        return float(rng.uniform(*OBJECT_SIDES[self.preset]))

    def image_size(self, rng: np.random.Generator) -> Size:
        """Draw a canvas size for an image."""
        return pick(rng, _IMAGE_SIZES[self.preset, self.split])

    def clip_size(self, rng: np.random.Generator) -> Size:
        """Draw a canvas size for a video."""
        return pick(rng, _CLIP_SIZES[self.preset, self.split])

    @property
    def scale(self) -> float:
        """How many times larger than usual things and texts are drawn."""
        return LEGIBLE[self.preset] if self.legible else 1.0

    def unit(self, size: Size, frames: int = 1) -> float:
        """Source pixels a view pixel of the first view, when `frames` pictures share the view budget."""
        width, height = view_size(*size, VIEW_PIXELS[self.preset] // frames, FACTOR)
        return max(size[0] / width, size[1] / height)


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Draw one of `options` uniformly."""
    return options[int(rng.integers(len(options)))]


def shuffled(rng: np.random.Generator, options: Sequence[T]) -> list[T]:
    """Copy of `options` in random order."""
    return [options[int(i)] for i in rng.permutation(len(options))]


def contrast(colour: str) -> str:
    """Ink that stands out on a fill of this colour."""
    red, green, blue = INKS[colour]
    return "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 110 else "white"


def glyph_mark(pair: Pair, box: Box, glyph: str) -> Mark:
    """An object of a colour and shape that carries one character."""
    colour, shape = pair
    return Mark(shape, box, colour, glyph, max(LEAST_TEXT, 0.27 * (box[2] - box[0])), contrast(colour))


def choices_for(rng: np.random.Generator, answer: str, pool: Sequence[str], count: int = 4) -> tuple[str, ...]:
    """The answer among `count - 1` other members of `pool`, in random order."""
    wrong = [option for option in dict.fromkeys(pool) if option != answer]
    return tuple(shuffled(rng, [answer, *shuffled(rng, wrong)[: count - 1]]))


def cells(size: Size, unit: float) -> list[Box]:
    """Boxes of the placement grid over a canvas, source pixels, row by row."""
    columns, rows = max(2, int(size[0] / unit // CELL)), max(2, int(size[1] / unit // CELL))
    w, h = size[0] / columns, size[1] / rows
    return [(c * w, r * h, (c + 1) * w, (r + 1) * h) for r in range(rows) for c in range(columns)]


def jittered(rng: np.random.Generator, cell: Box, side: float) -> Box:
    """A square of `side` source pixels somewhere inside a cell, on whole pixels."""
    side = round(side)
    x = round(rng.uniform(cell[0] + 1, max(cell[0] + 1, cell[2] - side - 1)))
    y = round(rng.uniform(cell[1] + 1, max(cell[1] + 1, cell[3] - side - 1)))
    return (x, y, x + side, y + side)


def union(*boxes: Box) -> Box:
    """Smallest box around all of `boxes`."""
    return (min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[2] for b in boxes), max(b[3] for b in boxes))
