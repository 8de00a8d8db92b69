"""Boxes to look at, as x1, y1, x2, y2 in fractions of the image or frame."""

from functools import partial

from pixel_env.media import Box

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
GRID = 7
"""Places side by side, and above each other, in a grid of looks."""
LOOK = 0.25
"""Share of the width and of the height that one of them shows: more than twice the distance of two places."""


def around(x: float, y: float) -> Box:
    """Return the box that a look at a point shows.

    >>> around(0.5, 0.0)
    (0.375, 0.0, 0.625, 0.25)
    """
    return moved((x - LOOK / 2, y - LOOK / 2, x + LOOK / 2, y + LOOK / 2), 0, 0)


def moved(box: Box, right: float, down: float) -> Box:
    """Move a box by shares of its own sides, up to the border.

    >>> moved((0.25, 0.25, 0.75, 0.75), 0.25, 1)
    (0.375, 0.5, 0.875, 1.0)
    """
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    x = min(max(x1 + right * width, 0.0), 1 - width)
    y = min(max(y1 + down * height, 0.0), 1 - height)
    return x, y, x + width, y + height


def scaled(box: Box, factor: float) -> Box:
    """Enlarge or shrink a box around its middle; at the border it is moved inwards.

    >>> scaled((0.0, 0.5, 0.25, 0.75), 2)
    (0.0, 0.375, 0.5, 0.875)
    """
    x1, y1, x2, y2 = box
    width, height = (min(1.0, factor * length) for length in (x2 - x1, y2 - y1))
    grown = ((x1 + x2 - width) / 2, (y1 + y2 - height) / 2, (x1 + x2 + width) / 2, (y1 + y2 + height) / 2)
    return moved(grown, 0, 0)


LOOKS = {
    "left": partial(moved, right=-0.5, down=0),
    "right": partial(moved, right=0.5, down=0),
    "up": partial(moved, right=0, down=-0.5),
    "down": partial(moved, right=0, down=0.5),
    "in": partial(scaled, factor=0.5),
    "out": partial(scaled, factor=2),
}
"""Steps in the pyramid: half a box aside, the middle half of it, twice as much."""
