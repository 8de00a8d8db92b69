"""What can be set on an environment, checked when it is made."""

from dataclasses import dataclass, fields

from pixel_env.prompts import COORDINATES
from pixel_env.rewards import ALPHA, BETA, LIMIT, THRESHOLD, VARIANTS, Variant

PRESETS = {"standard": (1280 * 784, 640 * 784), "micro": (112 * 112, 112 * 112)}
"""Name of a preset: default (view_pixels, crop_pixels)."""


@dataclass(frozen=True)
class ViewSettings:
    """How sources are shown; budgets are in pixels.

    Attributes:
        view_pixels: Budget of the first view: of an image, or of all first frames of a video together.
        crop_pixels: Budget of each crop and of each selected frame.
        factor: Sides of every picture are multiples of this many pixels.
        num_frames: Most frames of a video shown at first.
        max_selected_frames: Most frames in one call of select_frames.
        coordinates: Unit of boxes: ``"pixel"`` of the image as shown, ``"fraction"`` or ``"thousandth"`` of it.
        crop_padding: Margin added on every side of a box, in fractions of the width and height of the image shown.
        max_turns: Turns in an episode.

    Raises:
        TypeError, ValueError: A setting of the wrong type or out of range.
    """

    view_pixels: int
    crop_pixels: int
    factor: int = 28
    num_frames: int = 16
    max_selected_frames: int = 8
    coordinates: str = "pixel"
    crop_padding: float = 0.0
    max_turns: int = 5

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type is int:
                at_least(field.name, getattr(self, field.name), 1)
        cell = self.factor**2
        for name in ("view_pixels", "crop_pixels"):
            if getattr(self, name) < cell:
                raise ValueError(
                    f"expected {name} of at least factor**2 = {cell}, got {getattr(self, name)}; "
                    f"raise {name} or lower factor"
                )
        one_of("coordinates", self.coordinates, tuple(COORDINATES))
        within("crop_padding", self.crop_padding, 0, 1)


@dataclass(frozen=True)
class RewardSettings:
    """Constants of the shaped reward; the wrappers read them, the bare environment does not.

    Attributes:
        alpha: Weight of the curiosity bonus; without effect on the released variant, which has its own constants.
        beta: Price of an operation beyond ``limit``.
        threshold: H, the wanted rate of pixel-space reasoning.
        limit: N, operations that are free.
        reward_variant: ``"paper"`` or ``"released"``.

    Raises:
        TypeError, ValueError: A setting of the wrong type or out of range.
    """

    alpha: float = ALPHA
    beta: float = BETA
    threshold: float = THRESHOLD
    limit: int = LIMIT
    reward_variant: Variant = "paper"

    def __post_init__(self) -> None:
        within("alpha", self.alpha, 0, float("inf"))
        within("beta", self.beta, 0, float("inf"))
        within("threshold", self.threshold, 0, 1)
        at_least("limit", self.limit, 0)
        one_of("reward_variant", self.reward_variant, VARIANTS)


def at_least(name: str, value: object, low: int) -> None:
    """Raise unless ``value`` is an int of at least ``low``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"expected {name} as an int, got {value!r}")
    if value < low:
        raise ValueError(f"expected {name} of at least {low}, got {value}")


def within(name: str, value: object, low: float, high: float) -> None:
    """Raise unless ``value`` is a finite number from ``low`` to ``high``."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"expected {name} as a number, got {value!r}")
    if not low <= value <= high or value == float("inf"):
        raise ValueError(f"expected {name} finite and from {low} to {high}, got {value}")


def one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"expected {name} to be one of {', '.join(map(repr, allowed))}, got {value!r}")
