"""What a person sees of an episode: one canvas of fixed size, and a window for it.

On the left the source, shrunken, with every region visited, numbered as in the conversation; on the right the views of
the latest turn that showed something; below them the question.
"""

import importlib.util
import math
import os
import sys
import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pixel_env.media import Source, view, view_of
from pixel_env.operations import View

PANEL = 480
CAPTION = 64
SIZE = (2 * PANEL, PANEL + CAPTION)
"""Width and height of the canvas in pixels, both even as video codecs want."""

Colour = tuple[int, int, int]
BACKGROUND, INK = (24, 24, 28), (235, 235, 235)
COLOURS: tuple[Colour, ...] = (
    (255, 99, 71),
    (64, 200, 120),
    (80, 160, 255),
    (255, 200, 60),
    (200, 120, 255),
    (90, 220, 220),
)


def canvas(source: Source, shown: Sequence[View], num_first: int, num_latest: int, question: str) -> np.ndarray:
    """Draw an episode.

    Args:
        source: Full-resolution media of the task.
        shown: Every view so far, in the order of their numbers.
        num_first: How many of them, from the front, were shown before the first turn.
        num_latest: How many of them, from the back, the latest turn that showed something showed.
        question: The question, shown as far as it fits.

    Returns:
        (544, 960, 3) uint8.
    """
    picture = Image.new("RGB", SIZE, BACKGROUND)
    _draw_source(picture, source, shown, num_first)
    _draw_latest(picture, source, shown[-num_latest:], first_number=len(shown) - num_latest + 1)
    lines = textwrap.wrap(question, width=100, max_lines=2, placeholder=" ...")
    ImageDraw.Draw(picture).multiline_text((12, PANEL + 10), "\n".join(lines), INK, ImageFont.load_default(18))
    return np.array(picture, dtype=np.uint8)


def _draw_source(picture: Image.Image, source: Source, shown: Sequence[View], num_first: int) -> None:
    """Fill the left half: the first views, and over them the numbered boxes of all later ones that show the source."""
    pen = ImageDraw.Draw(picture)
    corners: dict[int, tuple[int, int, int, int]] = {}
    places = _places(num_first, 0, (source.width, source.height))
    for first, place in zip(shown[:num_first], places, strict=True):
        corners[first.frame] = place
        _paste(picture, source, first, place)
    for number, shot in enumerate(shown[num_first:], start=num_first + 1):
        if shot.made is not None:
            continue
        left, top, width, height = corners[shot.frame]
        x1, x2 = (left + shot.region[side] * width / source.width for side in (0, 2))
        y1, y2 = (top + shot.region[side] * height / source.height for side in (1, 3))
        colour = COLOURS[number % len(COLOURS)]
        pen.rectangle((x1, y1, max(x2 - 1, x1 + 2), max(y2 - 1, y1 + 2)), outline=colour, width=2)
        _write_number(pen, number, (x1 + 4, y1 + 2), colour)


def _draw_latest(picture: Image.Image, source: Source, latest: Sequence[View], first_number: int) -> None:
    """Fill the right half with the views of the latest turn, each with its number."""
    pen = ImageDraw.Draw(picture)
    for position, shot in enumerate(latest):
        place = _places(len(latest), PANEL, shot.size)[position]
        _paste(picture, source, shot, place)
        _write_number(pen, first_number + position, (place[0] + 4, place[1] + 2), INK)


def _paste(picture: Image.Image, source: Source, shot: View, place: tuple[int, int, int, int]) -> None:
    """Paste a view as the policy saw it, scaled to its place (left, top, width, height)."""
    if shot.made is None:
        pixels = view_of(source, shot.frame, shot.region, shot.size)
    else:
        pixels = view(shot.made, shot.region, shot.size)
    seen = Image.fromarray(pixels)
    picture.paste(seen.resize(place[2:], Image.Resampling.BILINEAR, reducing_gap=2.0), place[:2])


def _write_number(pen: ImageDraw.ImageDraw, number: int, corner: tuple[float, float], colour: Colour) -> None:
    pen.text(corner, str(number), colour, ImageFont.load_default(16), stroke_width=2, stroke_fill=BACKGROUND)


def _places(count: int, left: int, size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """Return left, top, width and height for ``count`` pictures of one aspect ratio in a grid in a square panel."""
    columns = math.ceil(math.sqrt(count))
    cell = PANEL // columns
    room = cell - 4
    scale = room / max(size)
    width, height = (max(1, round(side * scale)) for side in size)
    return [
        (left + (k % columns) * cell + (cell - width) // 2, (k // columns) * cell + (cell - height) // 2, width, height)
        for k in range(count)
    ]


def window_possible() -> bool:
    """Return whether a window can open here: a display, and Python built with tkinter."""
    display = sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(display) and importlib.util.find_spec("_tkinter") is not None


def check_render_mode(render_mode: str | None, possible: Sequence[str]) -> None:
    """Raise ValueError for a mode that does not exist, RuntimeError for ``"human"`` where it is not ``possible``."""
    if render_mode not in (None, "rgb_array", "human"):
        raise ValueError(f"expected render_mode to be None, 'rgb_array' or 'human', got {render_mode!r}")
    if render_mode is not None and render_mode not in possible:
        raise RuntimeError(
            "render_mode='human' needs a display and Python with tkinter, and here is none; "
            "use render_mode='rgb_array', alone or with gymnasium.wrappers.RecordVideo"
        )


class Window:
    """A window that shows the canvas."""

    def __init__(self, title: str) -> None:
        import tkinter

        self._root = tkinter.Tk()
        self._root.title(title)
        self._label = tkinter.Label(self._root)
        self._label.pack()

    def show(self, picture: np.ndarray) -> None:
        """Show a canvas and return at once."""
        from PIL import ImageTk

        self._photo = ImageTk.PhotoImage(Image.fromarray(picture))  # tkinter keeps no reference of its own
        self._label.configure(image=self._photo)
        self._root.update()

    def close(self) -> None:
        """Close the window."""
        self._root.destroy()
