"""What a visual operation shows: from an action and the views so far to new views and a sentence.

Only geometry: no pixel is touched here. Every view is a region of a full-resolution source frame, so the crop of a crop
is again cut from the source; or of a picture that `pixel_env.custom_operations` made, and then it is cut from that.
Mistakes of the policy come back as results with an error, never as exceptions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from PIL import Image

from pixel_env import prompts
from pixel_env.actions import CropImage, SelectFrames
from pixel_env.decoding import sample_frames
from pixel_env.media import MAX_ENLARGEMENT, Box, Source, view_size
from pixel_env.settings import ViewSettings


@dataclass(frozen=True)
class View:
    """A picture shown to the policy.

    Attributes:
        frame: Source frame, 0-based; 0 of a picture that was made.
        region: x1, y1, x2, y2 in source pixels, or in pixels of the picture that was made, half-open.
        size: (width, height) in pixels as shown.
        made: The picture that a function of one's own made and this is a part of; None where it shows the source.
    """

    frame: int
    region: Box
    size: tuple[int, int]
    made: Image.Image | None = field(default=None, repr=False, hash=False)

    def whole(self, source: Source) -> Image.Image:
        """Return the full-resolution picture that `region` is a part of."""
        return source.frame(self.frame) if self.made is None else self.made


@dataclass(frozen=True)
class OperationResult:
    """What an operation gives: new views, or an error.

    Attributes:
        views: New views, in the order of their numbers; empty after an error.
        error: Short code such as ``"inverted_box"``, None if all went well.
        text: What the policy reads: one line a view, or what was wrong and what is allowed.
        clamped: Whether a box reached over the border of the image and was cut.
    """

    views: tuple[View, ...]
    error: str | None
    text: str
    clamped: bool = False


def first_views(source: Source, settings: ViewSettings) -> tuple[View, ...]:
    """Return what is shown before the first turn: the image, or frames spread evenly over the video."""
    frames = sample_frames(source.num_frames, settings.num_frames)
    budget = max(settings.factor**2, settings.view_pixels // len(frames))
    size = view_size(source.width, source.height, budget, settings.factor)
    region = (0.0, 0.0, float(source.width), float(source.height))
    return tuple(View(frame, region, size) for frame in frames)


def crop_image(action: CropImage, shown: Sequence[View], source: Source, settings: ViewSettings) -> OperationResult:
    """Cut a box out of any image shown so far, at its full resolution.

    Args:
        action: Box in the convention of ``settings.coordinates`` and 0-based image number.
        shown: Every view so far, in the order of their numbers.
        source: Where the views come from.
        settings: Budgets and conventions.
    """
    if not 0 <= action.image < len(shown):
        return _error("unknown_image", prompts.unknown_image(action.image, len(shown)))
    parent = shown[action.image]
    limits = extent(parent.size, settings.coordinates)
    box = action.bbox
    if error := _box_error(box, action.image, limits):
        return error
    clamped = _clamp(box, limits)
    margin = [settings.crop_padding * side for side in limits]
    left, top, right, bottom = clamped
    padded = _clamp((left - margin[0], top - margin[1], right + margin[0], bottom + margin[1]), limits)
    region = to_source(padded, parent, settings.coordinates)
    width, height = region[2] - region[0], region[3] - region[1]
    if width < 1 or height < 1:
        return _error("tiny_box", prompts.tiny_box(box, width, height))
    size = view_size(width, height, settings.crop_pixels, settings.factor, MAX_ENLARGEMENT)
    text = prompts.crop_line(len(shown), size, action.image)
    if clamped != box:
        text = f"{prompts.clamped_line(box, clamped, action.image)}\n{text}"
    return OperationResult((replace(parent, region=region, size=size),), None, text, clamped != box)


def select_frames(
    action: SelectFrames, shown: Sequence[View], source: Source, settings: ViewSettings
) -> OperationResult:
    """Show frames of a video again in the larger budget; arguments as for :func:`crop_image`."""
    if source.kind != "video":
        return _error("not_a_video", prompts.not_a_video())
    count = min(source.num_frames, settings.num_frames)  # the first `count` views are the numbered frames
    frames = action.frames
    if not frames:
        return _error("no_frames", prompts.no_frames(count))
    if unknown := [frame for frame in frames if not 0 <= frame < count]:
        return _error("unknown_frame", prompts.unknown_frames(unknown, count))
    if len(set(frames)) < len(frames):
        return _error("repeated_frame", prompts.repeated_frames(frames))
    if len(frames) > settings.max_selected_frames:
        return _error("too_many_frames", prompts.too_many_frames(len(frames), settings.max_selected_frames))
    size = view_size(source.width, source.height, settings.crop_pixels, settings.factor, MAX_ENLARGEMENT)
    views = tuple(View(shown[frame].frame, shown[frame].region, size) for frame in frames)
    lines = [
        prompts.frame_line(len(shown) + position, frame, source.timestamp(shown[frame].frame), size)
        for position, frame in enumerate(frames)
    ]
    return OperationResult(views, None, "\n".join(lines))


def extent(size: tuple[int, int], coordinates: str) -> tuple[float, float]:
    """Return the coordinates of the right and bottom border of an image shown at ``size`` (width, height).

    >>> extent((112, 84), "pixel"), extent((112, 84), "fraction"), extent((112, 84), "thousandth")
    ((112, 84), (1.0, 1.0), (1000.0, 1000.0))
    """
    match coordinates:
        case "pixel":
            return size
        case "fraction":
            return (1.0, 1.0)
        case _:
            return (1000.0, 1000.0)


def to_source(bbox: Box, parent: View, coordinates: str) -> Box:
    """Map a box on an image shown to source pixels.

    >>> crop = View(frame=0, region=(400.0, 200.0, 800.0, 400.0), size=(112, 56))
    >>> to_source((28, 14, 56, 28), crop, "pixel")
    (500.0, 250.0, 600.0, 300.0)
    """
    right, bottom = extent(parent.size, coordinates)
    x1, y1, x2, y2 = parent.region
    # Dividing by the border last makes the border itself map exactly.
    xs = [min(x1 + x * (x2 - x1) / right, x2) for x in (bbox[0], bbox[2])]
    ys = [min(y1 + y * (y2 - y1) / bottom, y2) for y in (bbox[1], bbox[3])]
    return xs[0], ys[0], xs[1], ys[1]


def _clamp(box: Box, limits: tuple[float, float]) -> Box:
    x1, y1, x2, y2 = box
    right, bottom = limits
    return max(x1, 0.0), max(y1, 0.0), min(x2, right), min(y2, bottom)


def _box_error(box: Box, image: int, limits: tuple[float, float]) -> OperationResult | None:
    """Return what is wrong with a box as it was given, before it is cut to the image."""
    x1, y1, x2, y2 = box
    if not all(map(math.isfinite, box)):
        return _error("not_finite", prompts.not_finite(box))
    if x1 > x2 or y1 > y2:
        return _error("inverted_box", prompts.inverted_box(box))
    if x1 == x2 or y1 == y2:
        return _error("empty_box", prompts.empty_box(box))
    if x2 <= 0 or y2 <= 0 or x1 >= limits[0] or y1 >= limits[1]:
        return _error("outside_box", prompts.outside_box(box, image, (0, 0, *limits)))
    return None


def _error(code: str, text: str) -> OperationResult:
    return OperationResult((), code, text)
