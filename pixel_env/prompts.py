r"""Every sentence a policy can read.

Images and frames count from 0 in the arguments of these functions and from 1 in the sentences they return. ``<image>``
marks where an image of the observation stands; the i-th marker is the i-th image. Text that comes from a task or
from the policy passes through :func:`plain`, so it can never add a marker. Changing a sentence here moves learning
curves: it bumps the version of the environments.
"""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from pixel_env.actions import SCHEMAS
from pixel_env.json_schema import Schema

IMAGE_MARKER = "<image>"

COORDINATES = {
    "pixel": "bbox_2d is in pixels of the numbered image as shown; its size is given as (width x height).",
    "fraction": "bbox_2d is in fractions of the numbered image: 0 is left or top, 1 is right or bottom.",
    "thousandth": "bbox_2d is in thousandths of the numbered image: 0 is left or top, 1000 is right or bottom.",
}

OPERATIONS = tuple(schema["function"]["name"] for schema in SCHEMAS)

_PURPOSES = {
    "crop_image": "crop_image to look closer at a part of an image",
    "select_frames": "select_frames to see frames of a video larger",
}


def guideline(offered: Sequence[str]) -> str:
    """Return what to do, with ``{max_turns}`` to be filled in; nothing of operations where none is offered."""
    purposes = ", ".join(_PURPOSES.get(name, name) for name in offered)
    use = f"Use a visual operation if it helps: {purposes}. " if offered else ""
    turns = "{max_turns} turns, one call a turn." if offered else "{max_turns} turns."
    return (
        f"Look at the visual input and the question. {use}You have {turns} Put the final answer within \\boxed{{{{}}}}."
    )


GUIDELINE = guideline(OPERATIONS)

ANSWER_RECEIVED = "Answer received."

NO_TURN_LEFT = "Error: no turn is left."
"""Answers a call that comes after the end, where a library goes on asking the policy."""

NOT_DECODED = "Error: the picture cannot be shown."
"""Stands for media that cannot be decoded, where a library goes on asking the policy."""

WHAT_IS_SHOWN = "What is shown?"
"""Asked about media that come without a question."""

LONGEST_MESSAGE = 500
"""Characters of a message of a function of one's own."""

IMAGE_BELOW = "shown in the next message"
"""Stands for a marker where a message cannot hold images."""

_HEAD = "You are a helpful assistant."

_TOOLS = """{head}

# Tools

You may call one function a turn to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{schemas}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>

{coordinates}"""


def instructions(coordinates: str, offered: Sequence[str] = OPERATIONS, custom: Sequence[Schema] = ()) -> str:
    """Return the constant system text: the functions, how to call them, and the coordinate convention.

    Args:
        coordinates: ``"pixel"``, ``"fraction"`` or ``"thousandth"``.
        offered: Names of the operations that may be called; without any, nothing is said of functions.
        custom: Schemas of those that are one's own; they stand last, in this order.
    """
    if not offered:
        return _HEAD
    listed = [*(schema for schema in SCHEMAS if schema["function"]["name"] in offered), *custom]
    schemas = "\n".join(json.dumps(schema) for schema in listed)
    units = COORDINATES[coordinates] if "crop_image" in offered else ""
    return _TOOLS.format(head=_HEAD, schemas=schemas, coordinates=units).rstrip()


def functions_apart(system: str) -> tuple[str, list[dict[str, Any]]]:
    """Take the functions out of a system text, for a server that is given their schemas and describes them itself.

    Args:
        system: what :func:`instructions` returned.

    Returns:
        The rest of the text and the schemas of the functions in it; any other text as it is, and none.

    >>> text, schemas = functions_apart(instructions("fraction", ["select_frames"]))
    >>> text, [schema["function"]["name"] for schema in schemas]
    ('You are a helpful assistant.', ['select_frames'])
    """
    listed = system.partition("<tools>\n")[2].partition("\n</tools>")[0]
    try:
        schemas = [json.loads(line) for line in listed.splitlines()]
        offered = [schema["function"]["name"] for schema in schemas]
    except (ValueError, TypeError, KeyError):
        return system, []
    custom = [schema for schema, name in zip(schemas, offered, strict=True) if name not in OPERATIONS]
    for coordinates, sentence in COORDINATES.items():
        if offered and system == instructions(coordinates, offered, custom):
            return f"{_HEAD}\n\n{sentence}" if "crop_image" in offered else _HEAD, schemas
    return system, []


def plain(text: str) -> str:
    """Break every image marker in text that the environment did not write, and every lone surrogate.

    >>> plain("what does <image> mean?")
    'what does <image > mean?'
    """
    # A lone surrogate cannot be written as UTF-8, so tokenizers and files refuse it.
    return text.encode("utf-8", "replace").decode().replace(IMAGE_MARKER, "<image >")


def number(value: float) -> str:
    """Write a number briefly, whatever its size.

    >>> [number(v) for v in (12, 30.0, 0.25, float("nan"), 10**400)]
    ['12', '30', '0.25', 'nan', '1.00e+400']
    """
    if abs(value) > 1e9:
        return f"{Decimal(value):.3g}"
    return str(value) if isinstance(value, int) else f"{value:.4f}".rstrip("0").rstrip(".")


def numbers(values: Sequence[float]) -> str:
    """Write a list of numbers, at most 20 of them.

    >>> numbers((1, 2.5))
    '[1, 2.5]'
    """
    written = [number(value) for value in values[:20]]
    return f"[{', '.join(written + ['...'] * (len(values) > 20))}]"


def image_line(image: int, size: tuple[int, int]) -> str:
    """Announce the first view of an image; ``size`` is (width, height) in pixels."""
    return f"Image {image + 1} ({size[0]}x{size[1]}): {IMAGE_MARKER}"


def video_lines(seconds: Sequence[float], size: tuple[int, int]) -> str:
    """Announce the first views of a video, one line a frame; ``size`` is (width, height) in pixels."""
    head = f"Video of {len(seconds)} frames, {size[0]}x{size[1]} each. Frame k is image k."
    return "\n".join([head] + [f"Frame {k} ({t:.1f} s): {IMAGE_MARKER}" for k, t in enumerate(seconds, start=1)])


def question_lines(question: str, choices: Sequence[str], max_turns: int, offered: Sequence[str] = OPERATIONS) -> str:
    """Ask the question: its text, one line a choice, and the guideline with the budget of turns."""
    return "\n".join([plain(question), *option_lines(choices), guideline(offered).format(max_turns=max_turns)])


def option_lines(choices: Sequence[str]) -> list[str]:
    """Return one line a choice.

    >>> option_lines(("red", "blue"))
    ['(A) red', '(B) blue']
    """
    return [f"({chr(ord('A') + index)}) {plain(choice)}" for index, choice in enumerate(choices)]


def crop_line(image: int, size: tuple[int, int], parent: int) -> str:
    """Announce a crop: its own number, its size (width, height), and the image it was cut from."""
    return f"Image {image + 1} ({size[0]}x{size[1]}), cut from image {parent + 1}: {IMAGE_MARKER}"


def clamped_line(bbox: Sequence[float], clamped: Sequence[float], image: int) -> str:
    """Say that a box reached over the border; both boxes in the environment's convention."""
    return f"The box {numbers(bbox)} reached over the border of image {image + 1}; it was cut to {numbers(clamped)}."


def frame_line(image: int, frame: int, seconds: float, size: tuple[int, int]) -> str:
    """Announce a selected frame: its image number, its frame number and time, its size (width, height)."""
    return f"Image {image + 1} is frame {frame + 1} ({seconds:.1f} s), {size[0]}x{size[1]}: {IMAGE_MARKER}"


def made_line(image: int, size: tuple[int, int], name: str, images: Sequence[int]) -> str:
    """Announce a picture that a function of one's own made: number, size (width, height), and what it was made from.

    >>> made_line(2, (112, 84), "rotate", [0]), made_line(4, (56, 56), "compare", [0, 3])
    ('Image 3 (112x84), rotate of image 1: <image>', 'Image 5 (56x56), compare of images 1 and 4: <image>')
    """
    numbered = " and ".join(str(one + 1) for one in images)
    of = f" of image{'s' * (len(images) > 1)} {numbered}" if images else ""
    return f"Image {image + 1} ({size[0]}x{size[1]}), {name}{of}: {IMAGE_MARKER}"


def refused(name: str, message: str) -> str:
    """Say why a function of one's own does not do what was asked, in its words, as far as they are brief."""
    return f"{name}: {message if len(message) <= LONGEST_MESSAGE else message[:LONGEST_MESSAGE] + '...'}"


def error_line(message: str, turns_left: int) -> str:
    """Answer a turn that went wrong; ``message`` says what was expected and what came.

    >>> error_line("expected one call a turn, got 2 calls", turns_left=3)
    'Error: expected one call a turn, got 2 calls. Turns left: 3.'
    """
    return f"Error: {plain(message).rstrip('.')}. Turns left: {turns_left}."


def not_offered(name: str | None, offered: Sequence[str]) -> str:
    r"""Reject a call of an operation that this environment does not offer.

    >>> not_offered("select_frames", ["crop_image"])
    'select_frames is not available; crop_image is.'
    >>> not_offered(None, [])
    'no functions are available; put the final answer within \\boxed{}.'
    """
    if not offered:
        return "no functions are available; put the final answer within \\boxed{}."
    return f"{name} is not available; {' and '.join(offered)} is."


def no_answer() -> str:
    """Ask for an answer where nothing else can be done."""
    return "found no answer: expected \\boxed{}"


def unknown_image(image: int, shown: int) -> str:
    """Say which images exist; ``shown`` of them so far."""
    return f"target_image {number(image + 1)} does not exist; images 1 to {shown} have been shown."


def too_many_images(got: int, allowed: int) -> str:
    """Reject a call of a function of one's own that names more images than it may."""
    return f"target_images holds {got} images; at most {allowed} may be used in one call."


def not_finite(bbox: Sequence[float]) -> str:
    """Reject a box with NaN or infinity."""
    return f"bbox_2d must hold four finite numbers, got {numbers(bbox)}."


def inverted_box(bbox: Sequence[float]) -> str:
    """Reject a box whose corners are swapped."""
    return f"bbox_2d {numbers(bbox)} is inverted: it needs x1 < x2 and y1 < y2."


def empty_box(bbox: Sequence[float]) -> str:
    """Reject a box without area."""
    return f"bbox_2d {numbers(bbox)} is empty: it needs x1 < x2 and y1 < y2."


def outside_box(bbox: Sequence[float], image: int, limits: Sequence[float]) -> str:
    """Reject a box that shares no pixel with the image; ``limits`` is the whole image in the same convention."""
    return f"bbox_2d {numbers(bbox)} lies outside image {image + 1}, which covers {numbers(limits)}."


def tiny_box(bbox: Sequence[float], width: float, height: float) -> str:
    """Reject a box below the resolution of the source; width and height in source pixels."""
    return (
        f"bbox_2d {numbers(bbox)} is too small: it covers {number(width)} x {number(height)} pixels of the original, "
        "at least 1 x 1 is needed."
    )


def no_frames(count: int) -> str:
    """Reject a selection of nothing from ``count`` frames."""
    return f"target_frames is empty; give at least one frame number from 1 to {count}."


def too_many_frames(got: int, allowed: int) -> str:
    """Reject a selection above the limit."""
    return f"target_frames holds {got} frames; at most {allowed} may be selected in one call."


def unknown_frames(frames: Sequence[int], count: int) -> str:
    """Reject frame numbers outside 1 to ``count``."""
    return f"target_frames {numbers([frame + 1 for frame in frames])} do not exist; frames are numbered 1 to {count}."


def repeated_frames(frames: Sequence[int]) -> str:
    """Reject a selection that names a frame twice."""
    return f"target_frames {numbers([frame + 1 for frame in frames])} names a frame twice; give each frame once."


def not_a_video() -> str:
    """Reject select_frames on an image."""
    return "select_frames works on a video; this is 1 image. Use crop_image with target_image 1 to look closer."
