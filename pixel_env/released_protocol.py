"""How the release reads a turn and what its operations show, as far as our views can follow it.

Kept: a turn is a call if it ends with ``</tool_call>``, and else the final answer; the last call of a turn counts;
boxes are fractions if all four numbers are below 1, and else pixels; a margin, 0.1 of the image in the release, is
added on every side; crops of at most 28 pixels are refused; pictures have 512 to 5120 cells of 28 x 28 pixels, frames
of a video at most 512; selected frames come at the size they had; numbers of images after a selection count the video
as 1. All as of revision a3a6c3a of the release; earlier ones (555a984) count the selected frames from 1 and word some
errors otherwise.

Differs: a video is shown as images, not as one video item. Crops are cut from the source, which is sharper where a
source has more than 8000 cells, or a crop is cut from a crop. Numbers below 1 are errors, which the release takes to
count from the end. An episode does not stop at 16 images or 12,088 tokens.
"""

import json
import math
from collections.abc import Sequence

from pixel_env import released_prompts as prompts
from pixel_env.actions import (
    MAX_CALL_CHARACTERS,
    MAX_TURN_CHARACTERS,
    Action,
    Answer,
    CropImage,
    SelectFrames,
    last_answer,
    parse,
)
from pixel_env.decoding import sample_frames
from pixel_env.media import Box, Source, view_size
from pixel_env.operations import OperationResult, View
from pixel_env.prompts import not_a_video, not_finite
from pixel_env.settings import ViewSettings

BOXES = "fraction where all four numbers are below 1, else pixel"
"""What stands for the unit of boxes, which the setting `coordinates` does not change here."""

CELL = 784
VIEW_CELLS = (512, 5120)
"""What the README exports as MIN_PIXELS and MAX_PIXELS: bounds of every picture that the model reads."""
STORED_CELLS = (256, 8000)
"""Bounds of the picture that pixels of a box refer to."""
CROP_CELLS = (256, 5120)
"""Bounds of the size that a crop is said to have."""
FRAME_CELLS = 512
VIDEO_PIXELS = 16 * FRAME_CELLS * CELL
"""Budget of the first view that holds 16 frames, and any image."""
SMALLEST = 28
MOST_FRAMES = 8

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


def read_turn(text: str) -> Action:
    r"""Read a turn as the release does; total over `str`.

    >>> read_turn('<tool_call>{"name": "select_frames", "arguments": {"target_frames": [2]}}</tool_call>')
    SelectFrames(frames=(1,))
    >>> read_turn(r"I see \boxed{B}"), read_turn("I see nothing.")
    (Answer(text='B'), Answer(text=''))
    """
    if len(text) > MAX_TURN_CHARACTERS:
        return parse(text)  # says so
    if not text.endswith(_CLOSE):
        return Answer(last_answer(text) or "")
    call = text[text.rfind(_OPEN) + len(_OPEN) : -len(_CLOSE)] if _OPEN in text else ""
    return parse(f"{_OPEN}{_renamed(call)}{_CLOSE}")


def _renamed(call: str) -> str:
    """Return a call of the released name under our own; a call that cannot be read is left to `actions.parse`."""
    if len(call) > MAX_CALL_CHARACTERS:
        return call
    try:
        read = json.loads(call)
    except (ValueError, RecursionError):
        return call
    if not isinstance(read, dict) or read.get("name") not in (prompts.CROP, "crop_image"):
        return call
    # The prompt names both; the release knows only the name of the schema.
    name = "crop_image" if read["name"] == prompts.CROP else "crop_image (not a function)"
    return json.dumps(read | {"name": name})


def first_views(source: Source, settings: ViewSettings) -> tuple[View, ...]:
    """Return what is shown at first: an image in its bounds, the frames of a video in theirs."""
    frames = sample_frames(source.num_frames, settings.num_frames)
    region = (0.0, 0.0, float(source.width), float(source.height))
    budget = max(settings.factor**2, settings.view_pixels // len(frames))
    if source.kind == "video":
        budget = min(budget, FRAME_CELLS * CELL)
        size = resized(source.width, source.height, (0, budget), settings.factor)
    else:
        size = resized(source.width, source.height, _within(VIEW_CELLS, budget), settings.factor)
    return tuple(View(frame, region, size) for frame in frames)


def crop_image(action: CropImage, shown: Sequence[View], source: Source, settings: ViewSettings) -> OperationResult:
    """Cut out a box with its margin; arguments as for `pixel_env.operations.crop_image`."""
    parent = _parent(action.image, shown, source, settings)
    if isinstance(parent, OperationResult):
        return parent
    if not all(map(math.isfinite, action.bbox)):
        return _error("not_finite", not_finite(action.bbox))
    width, height = stored_size(parent, source, settings)
    left, top, right, bottom = _with_margin(action.bbox, (width, height), settings.crop_padding)
    cut = round(right * width) - round(left * width), round(bottom * height) - round(top * height)
    if min(cut) <= SMALLEST:
        return _error("tiny_box", prompts.too_small(*cut))
    x1, y1, x2, y2 = parent.region
    region = x1 + left * (x2 - x1), y1 + top * (y2 - y1), x1 + right * (x2 - x1), y1 + bottom * (y2 - y1)
    said = resized(*cut, _within(CROP_CELLS, settings.crop_pixels), settings.factor)
    size = resized(*said, _within(VIEW_CELLS, settings.crop_pixels), settings.factor)
    return OperationResult((View(parent.frame, region, size),), None, prompts.crop_line(said))


def select_frames(
    action: SelectFrames, shown: Sequence[View], source: Source, settings: ViewSettings
) -> OperationResult:
    """Show frames again as they were; arguments as for `pixel_env.operations.select_frames`."""
    if source.kind != "video":
        return _error("not_a_video", not_a_video())
    count = min(source.num_frames, settings.num_frames)
    if len(action.frames) > MOST_FRAMES:
        return _error("too_many_frames", prompts.too_many_frames(len(action.frames)))
    if not action.frames or not all(0 <= frame < count for frame in action.frames):
        return _error("unknown_frame", prompts.unknown_frame(count))
    views = tuple(shown[frame] for frame in action.frames)
    number = 1 + len(shown) - count  # the video is one
    return OperationResult(views, None, prompts.frames_line(views[0].size, number, len(views)))


def resized(width: float, height: float, bounds: tuple[int, int], factor: int) -> tuple[int, int]:
    """Return the (width, height) that Qwen's smart_resize gives for bounds in pixels.

    Each side is rounded to a multiple of `factor`; where the area is then out of bounds, both sides are scaled by the
    same number and rounded towards the inside.

    >>> resized(2000, 1500, (256 * 784, 8000 * 784), 28), resized(100, 50, (256 * 784, 5120 * 784), 28)
    ((1988, 1512), (644, 336))
    """
    low, high = bounds
    columns, rows = (max(1, round(side / factor)) for side in (width, height))
    if columns * rows * factor**2 < low:
        scale = math.sqrt(low / (width * height))
        columns, rows = (math.ceil(side * scale / factor) for side in (width, height))
    if columns * rows * factor**2 > high or max(columns, rows) > 200 * min(columns, rows):
        return view_size(width, height, high, factor, max_enlargement=math.inf)
    return columns * factor, rows * factor


def stored_size(parent: View, source: Source, settings: ViewSettings) -> tuple[int, int]:
    """Return the size of the picture that a box on a view refers to: larger than the view for a large image."""
    whole = parent.region == (0.0, 0.0, float(source.width), float(source.height))
    if source.kind == "video" or not whole:
        return parent.size
    low, high = (cells * CELL for cells in STORED_CELLS)
    return resized(source.width, source.height, (low, high), settings.factor)


def _within(cells: tuple[int, int], budget: int) -> tuple[int, int]:
    """Return bounds in pixels inside a budget; a budget far below them, as of the micro preset, lowers both."""
    low, high = (count * CELL for count in cells)
    return min(low, budget // 4), min(high, budget)


def _with_margin(bbox: Box, size: tuple[int, int], padding: float) -> Box:
    """Return a box in fractions with its margin, inside the image."""
    if not all(number < 1 for number in bbox):
        bbox = bbox[0] / size[0], bbox[1] / size[1], bbox[2] / size[0], bbox[3] / size[1]
    x1, y1, x2, y2 = bbox
    left, top, right, bottom = (
        min(max(0.0, number), 1.0) for number in (x1 - padding, y1 - padding, x2 + padding, y2 + padding)
    )
    return left, top, right, bottom


def _parent(image: int, shown: Sequence[View], source: Source, settings: ViewSettings) -> View | OperationResult:
    """Return the view that a number means, or an error."""
    count = min(source.num_frames, settings.num_frames)
    if source.kind != "video":
        return shown[image] if 0 <= image < len(shown) else _error("unknown_image", prompts.unknown_image(len(shown)))
    later = shown[count:]
    if not later:
        return shown[image] if 0 <= image < count else _error("unknown_image", prompts.unknown_video_frame(count))
    if not 1 <= image <= len(later):  # number 1 is the video itself
        return _error("unknown_image", prompts.unknown_image(1 + len(later)))
    return later[image - 1]


def _error(code: str, text: str) -> OperationResult:
    return OperationResult((), code, text)
