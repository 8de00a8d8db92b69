"""Procedural pictures: a canvas is a list of marks (shapes, panels, text) on a textured background.

Everything a question can ask is in the list of marks, so answers are computed and never read off pixels.
Coordinates are source pixels, origin at the top left, boxes ``(x1, y1, x2, y2)`` half-open.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pixel_env.media import Box

SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "ring", "hexagon")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 38, 40),
    "green": (34, 150, 62),
    "blue": (44, 84, 216),
    "yellow": (238, 214, 40),
    "purple": (138, 50, 178),
    "orange": (242, 132, 24),
    "cyan": (40, 200, 214),
    "pink": (246, 140, 190),
}
COLOUR_NAMES = tuple(COLOURS)
INKS: dict[str, tuple[int, int, int]] = {"black": (12, 12, 12), "white": (250, 250, 250), **COLOURS}
CAP_HEIGHT = 0.7
"""Height of a capital letter as a share of the font size (Pillow's built-in font)."""


@dataclass(frozen=True)
class Mark:
    """One drawn thing.

    Attributes:
        kind: One of `SHAPES`, or ``"panel"`` (a rectangle that fills its box), or ``"text"`` (no fill).
        box: Source pixels, x1 y1 x2 y2.
        colour: Name of the fill, a key of `INKS`; ignored for ``"text"``.
        text: Characters drawn in the middle of the box, possibly none.
        text_height: Height of a capital letter in source pixels.
        ink: Name of the text colour, a key of `INKS`.
    """

    kind: str
    box: Box
    colour: str = "white"
    text: str = ""
    text_height: float = 0.0
    ink: str = "black"

    @property
    def name(self) -> str:
        """How a question refers to the mark, such as ``"red circle"``."""
        return f"{self.colour} {self.kind}"

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the box, (x, y) source pixels."""
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2


@dataclass(frozen=True)
class Canvas:
    """A picture to be drawn: size in pixels, seed of the background, marks from back to front."""

    width: int
    height: int
    background: int
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class DrawnSource:
    """A `pixel_env.media.Source` drawn on demand: one canvas is an image, several are the frames of a video."""

    canvases: tuple[Canvas, ...]
    seconds_per_frame: float = 0.5

    @property
    def kind(self) -> str:
        """``"image"`` or ``"video"``."""
        return "image" if len(self.canvases) == 1 else "video"

    @property
    def width(self) -> int:
        """Width of every frame in source pixels."""
        return self.canvases[0].width

    @property
    def height(self) -> int:
        """Height of every frame in source pixels."""
        return self.canvases[0].height

    @property
    def num_frames(self) -> int:
        """Number of frames, 1 for an image."""
        return len(self.canvases)

    def frame(self, index: int) -> Image.Image:
        """Return one frame (0-based) at full resolution, RGB; shared, so not to be drawn on."""
        canvas = self.canvases[index]
        return (_drawn_small if canvas.width * canvas.height <= 2**20 else _drawn_large)(canvas)

    def timestamp(self, index: int) -> float:
        """Seconds from the start at which the frame (0-based) is shown."""
        return index * self.seconds_per_frame


def draw(canvas: Canvas) -> Image.Image:
    """Draw a canvas: RGB image of ``(canvas.width, canvas.height)``."""
    image = _background(canvas.width, canvas.height, canvas.background).copy()
    pen = ImageDraw.Draw(image)
    for mark in canvas.marks:
        if mark.kind != "text":
            _fill(pen, mark)
        if mark.text:
            font = _font(max(4, round(mark.text_height / CAP_HEIGHT)))
            pen.text(mark.centre, mark.text, fill=INKS[mark.ink], font=font, anchor="mm")
    return image


# The turns of an episode, and the episodes of a group, look at the same pictures: at most 300 MB are kept,
# backgrounds included.
_drawn_small = lru_cache(maxsize=48)(draw)
_drawn_large = lru_cache(maxsize=2)(draw)


def text_width(text: str, text_height: float) -> float:
    """Width in pixels of `text` when its capitals are `text_height` pixels high."""
    return float(_font(max(4, round(text_height / CAP_HEIGHT))).getlength(text))


def _fill(pen: ImageDraw.ImageDraw, mark: Mark) -> None:
    x1, y1, x2, y2 = mark.box
    fill, side = INKS[mark.colour], min(x2 - x1, y2 - y1)
    inner = (x1, y1, x2 - 1, y2 - 1)  # Pillow's boxes include their last pixel, ours are half-open
    if mark.kind in ("square", "panel"):
        pen.rectangle(inner, fill=fill)
    elif mark.kind == "circle":
        pen.ellipse(inner, fill=fill)
    elif mark.kind == "ring":
        # A pale disc in a coloured rim, so that a character in the middle stays readable.
        pen.ellipse(inner, fill=INKS["white"] if mark.ink == "black" else INKS["black"])
        pen.ellipse(inner, outline=fill, width=max(1, round(side * 0.2)))
    else:
        pen.polygon([(x1 + u * (x2 - x1 - 1), y1 + v * (y2 - y1 - 1)) for u, v in _POLYGONS[mark.kind]], fill=fill)


def _regular(corners: int, inner: float, turn: float) -> list[tuple[float, float]]:
    radii = [0.5, inner] if inner else [0.5]
    steps = corners * len(radii)
    angles = [turn + 2 * math.pi * k / steps for k in range(steps)]
    return [
        (0.5 + radii[k % len(radii)] * math.cos(a), 0.5 + radii[k % len(radii)] * math.sin(a))
        for k, a in enumerate(angles)
    ]


# Corners in the unit square. Each leaves the middle filled, where the character stands.
_POLYGONS: dict[str, list[tuple[float, float]]] = {
    "triangle": [(0.5, 0.0), (1.0, 1.0), (0.0, 1.0)],
    "diamond": [(0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)],
    "star": _regular(5, 0.27, -math.pi / 2),
    "cross": [
        (0.3, 0),
        (0.7, 0),
        (0.7, 0.3),
        (1, 0.3),
        (1, 0.7),
        (0.7, 0.7),
        (0.7, 1),
        (0.3, 1),
        (0.3, 0.7),
        (0, 0.7),
        (0, 0.3),
        (0.3, 0.3),
    ],
    "hexagon": _regular(6, 0.0, 0.0),
}


@lru_cache(maxsize=256)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


@lru_cache(maxsize=2)  # the frames of a video share it
def _background(width: int, height: int, seed: int) -> Image.Image:
    """A soft grey-brown slope with blotches: no flat areas, and no colour that a question could name."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:14, 0:14] / 13.0
    slope = rng.uniform(-40, 40, 2)
    base = rng.integers(90, 170) + slope[0] * (x - 0.5) + slope[1] * (y - 0.5)
    tint = rng.uniform(-12, 12, 3)
    small = base[..., None] + tint + rng.uniform(-9, 9, (14, 14, 1))
    return Image.fromarray(np.clip(small, 0, 255).astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
