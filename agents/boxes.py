"""Boxes for demonstrations: random ones around a given one, and their way from the source onto a view."""

import math

import numpy as np

from pixel_env.media import Box
from pixel_env.operations import View, extent
from pixel_env.policies import DECIMALS


def around(rng: np.random.Generator, box: Box, factor: float, whole: Box, stretch: float = 1.0) -> Box:
    """Return a region of about `factor` times the area of a box that holds it, the box near its middle, inside `whole`.

    Near the middle, because a policy that learns from such boxes aims at their mean, and misses the rest by as much.

    Args:
        rng: draws shape and place.
        box: x1, y1, x2, y2.
        factor: area of the region in areas of the box.
        whole: the image.
        stretch: mean factor of the width; the height gets the inverse.
    """
    stretch *= math.exp(rng.uniform(-0.3, 0.3))
    sides = []
    for k, grow in ((0, stretch), (1, 1 / stretch)):
        low, high, end = box[k], min(box[k + 2], whole[k + 2]), whole[k + 2]
        side = min(max(high - low, (high - low) * math.sqrt(factor) * grow), end)
        start = low - rng.uniform(0.25, 0.75) * (side - (high - low))
        start = min(max(0.0, start), end - side)
        sides.append((start, start + side))
    (x1, x2), (y1, y2) = sides
    return x1, y1, x2, y2


def on_view(region: Box, view: View, coordinates: str) -> Box:
    """Map a region in source pixels to a box on a view, rounded outwards and cut to the view.

    >>> on_view((501.0, 251.0, 599.0, 300.0), View(0, (400.0, 200.0, 800.0, 400.0), (112, 56)), "pixel")
    (28.0, 14.0, 56.0, 28.0)
    """
    unit = 10 ** DECIMALS[coordinates]
    box = []
    for k, border in enumerate(extent(view.size, coordinates) * 2):
        low, high = view.region[k % 2], view.region[k % 2 + 2]
        value = (region[k] - low) / (high - low) * border * unit
        rounded = math.floor(value + 1e-9) if k < 2 else math.ceil(value - 1e-9)
        box.append(min(max(rounded / unit, 0.0), float(border)))
    x1, y1, x2, y2 = box
    return x1, y1, x2, y2


def area(box: Box) -> float:
    """Return width times height."""
    return (box[2] - box[0]) * (box[3] - box[1])


def shape(box: Box) -> float:
    """Return width over height."""
    return (box[2] - box[0]) / (box[3] - box[1])


def scale(view: View) -> float:
    """Return how many shown pixels a source pixel gets, in the direction that gets fewer."""
    x1, y1, x2, y2 = view.region
    return min(view.size[0] / (x2 - x1), view.size[1] / (y2 - y1))


def inside(inner: Box, outer: Box) -> bool:
    """Return whether a box lies wholly in another one."""
    return all(inner[k] >= outer[k] - 1e-6 for k in (0, 1)) and all(inner[k] <= outer[k] + 1e-6 for k in (2, 3))


def overlap(a: Box, b: Box) -> bool:
    """Return whether two boxes share any area."""
    return max(a[0], b[0]) < min(a[2], b[2]) and max(a[1], b[1]) < min(a[3], b[3])
