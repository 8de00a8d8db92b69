r"""What a policy may say in one turn, and the only place where its text is read.

`parse` turns any string into one of five actions and `render` is its inverse. A turn is read in this order:

1. a complete call, `<tool_call>{json}</tool_call>` or the short form `crop_image([x1, y1, x2, y2], 1)`: the turn is a
   call, whatever else it says; more than one is a mistake;
2. an answer, the last closed `\boxed{}`, or without any the last `<answer>...</answer>`, unless a call is begun after
   it and never finished (a turn cut short while calling);
3. otherwise the turn is `Malformed`, with a reason the policy can act on.

Policies count images and frames from 1, code counts from 0: the conversion lives here and nowhere else.
Numbers that can be read but make no sense (frame 0, an inverted box, NaN) are not malformed: `operations` answers
those. Nothing is ever evaluated as code.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixel_env.json_schema import Mismatch, Schema, fitted

MAX_TURN_CHARACTERS = 2**18  # a longer turn is not read: bounds time and memory, whatever a policy writes
MAX_CALL_CHARACTERS = 4096  # longer than any sensible call; keeps the JSON parser's work bounded
MAX_NESTING = 4  # object > arguments > list is 3; the JSON parser recurses, so depth must be bounded before it runs
SHOWN_CHARACTERS = 60  # of the policy's own text repeated in a reason

SCHEMAS: tuple[dict[str, Any], ...] = (
    {
        "type": "function",
        "function": {
            "name": "crop_image",
            "description": "Zoom in: cut a box out of a numbered image and show it enlarged, in full detail.",
            "parameters": {
                "type": "object",
                "properties": {
                    "bbox_2d": {
                        "type": "array",
                        "items": {"type": "number"},
                        "minItems": 4,
                        "maxItems": 4,
                        "description": "The box as [x1, y1, x2, y2]: left, top, right, bottom.",
                    },
                    "target_image": {
                        "type": "integer",
                        "minimum": 1,
                        "description": "The number of the image to crop, counting every image shown so far from 1.",
                    },
                },
                "required": ["bbox_2d", "target_image"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "select_frames",
            "description": "Look closer at frames of the video: show the chosen frames larger.",
            "parameters": {
                "type": "object",
                "properties": {
                    "target_frames": {
                        "type": "array",
                        "items": {"type": "integer", "minimum": 1},
                        "description": "The numbers of the frames, counting from 1.",
                    }
                },
                "required": ["target_frames"],
            },
        },
    },
)

IMAGE_ARGUMENTS = ("target_image", "target_images")
"""What a function of one's own calls the image, or the list of images, that it works on."""


@dataclass(frozen=True)
class CropImage:
    """Zoom in on `bbox` (x1, y1, x2, y2; the environment's convention) of the shown image `image` (0-based)."""

    bbox: tuple[float, float, float, float]
    image: int


@dataclass(frozen=True)
class SelectFrames:
    """Show these frames (0-based) of the video in the larger frame budget."""

    frames: tuple[int, ...]


@dataclass(frozen=True)
class CustomCall:
    """Call a function of one's own with arguments that fit its schema; image numbers among them are 0-based."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """End the episode with this answer, exactly as it stood in the box; `grading` normalises it."""

    text: str


@dataclass(frozen=True)
class Malformed:
    """A turn that is neither a call nor an answer; `attempted_call` tells whether it tried to be a call."""

    reason: str
    attempted_call: bool


Action = CropImage | SelectFrames | CustomCall | Answer | Malformed


class _CallError(ValueError):
    """Why a call could not be read; never leaves this module."""


def parse(text: str, schemas: Sequence[Schema] = ()) -> Action:
    r"""Read one turn of a policy; total over `str`, never raises.

    Args:
        text: everything the policy wrote this turn, reasoning included.
        schemas: of functions of one's own, each as in `SCHEMAS`; they have no short form.

    Returns:
        The action, with images and frames counted from 0.

    >>> parse('Closer. <tool_call>{"name": "select_frames", "arguments": {"target_frames": [2, 3]}}</tool_call>')
    SelectFrames(frames=(1, 2))
    >>> parse("crop_image([10, 20, 30, 40])")
    CropImage(bbox=(10.0, 20.0, 30.0, 40.0), image=0)
    >>> parse(r"It is red, so \boxed{A}.")
    Answer(text='A')
    """
    if len(text) > MAX_TURN_CHARACTERS:
        reason = f"expected a turn of at most {MAX_TURN_CHARACTERS} characters, got {len(text)}"
        return Malformed(reason, attempted_call=False)
    calls, unfinished_at = _tagged_calls(text)
    tagged_call = bool(calls)
    if not calls:
        calls, short_unfinished_at = _short_calls(text)
        unfinished_at = max(unfinished_at, short_unfinished_at)
    if len(calls) > 1:
        return Malformed(f"expected one call a turn, got {len(calls)} calls", attempted_call=True)
    if calls:
        try:
            return _read_json_call(calls[0], schemas) if tagged_call else _read_short_call(calls[0])
        except _CallError as error:
            return Malformed(str(error), attempted_call=True)
    answer = _last_answer(text)
    if answer is not None and answer[1] > unfinished_at:
        return Answer(answer[0])
    if unfinished_at >= 0:
        return Malformed(
            'the call is not complete: expected <tool_call>{"name": ..., "arguments": {...}}</tool_call>, '
            f"got {_quoted(text[unfinished_at:])}",
            attempted_call=True,
        )
    return Malformed(r"found neither a call nor an answer: expected one <tool_call> or \boxed{}", attempted_call=False)


def render(action: Action, schemas: Sequence[Schema] = ()) -> str:
    r"""Write an action the way `parse` reads it: `parse(render(action)) == action`, with the same schemas.

    Raises:
        ValueError: for a `Malformed`, a box holding NaN, arguments that do not fit their schema, or an answer whose
            text would be read differently (it holds a complete call, or both unbalanced braces and `</answer>`).

    >>> render(CropImage((12.0, 30.0, 50.5, 60.0), image=0))
    '<tool_call>{"name": "crop_image", "arguments": {"bbox_2d": [12, 30, 50.5, 60], "target_image": 1}}</tool_call>'
    >>> render(Answer("A"))
    '\\boxed{A}'
    """
    match action:
        case CropImage(bbox, image):
            arguments: dict[str, Any] = {"bbox_2d": [_plain_number(x) for x in bbox], "target_image": image + 1}
            candidates = [tagged("crop_image", arguments)]
        case SelectFrames(frames):
            candidates = [tagged("select_frames", {"target_frames": [frame + 1 for frame in frames]})]
        case CustomCall(name, given):
            candidates = [tagged(name, _renumbered(given, 1))]
        case Answer(text):
            candidates = [f"\\boxed{{{text}}}", f"<answer>{text}</answer>"]
        case Malformed():
            candidates = []
    for candidate in candidates:
        if parse(candidate, schemas) == action:
            return candidate
    raise ValueError(f"expected an action that can be written down, got {action!r}")


def tagged(name: str, arguments: dict[str, Any]) -> str:
    """Write a call with its arguments as they are, images and frames counted from 1."""
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def _plain_number(value: float) -> float | int:
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else value


# --- finding calls ----------------------------------------------------------------------------------------------------

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
# The short form, up to its first bracket where it is not complete. No word may run into the name: that is looked for
# behind it, since a pattern that begins with letters is searched several times as fast as one that begins with \b.
_SHORT = re.compile(
    r"(crop_image(?<!\wcrop_image)|select_frames(?<!\wselect_frames))"
    r"\(\s*(?:(\[[^\[\]()]*\][^\[\]()]*)\)|\[)"
)


# Calls are kept as texts: of a turn that holds ten thousand, objects would set off the collector of garbage.


def _tagged_calls(text: str) -> tuple[list[str], int]:
    """Return what stands in the complete tagged calls, and where the last tag without a partner is (-1: none)."""
    calls: list[str] = []
    unfinished_at, position = -1, 0
    while (close := text.find(_CLOSE, position)) >= 0:
        # The innermost opening tag: a stray "<tool_call>" in the reasoning before it is only words.
        opened = text.rfind(_OPEN, position, close)
        if opened >= 0:
            calls.append(text[opened + len(_OPEN) : close])
        else:
            unfinished_at = close
        position = close + len(_CLOSE)
    return calls, max(unfinished_at, text.rfind(_OPEN, position))


def _short_calls(text: str) -> tuple[list[str], int]:
    """Return the complete calls in short form, and where the last one begun but not complete stands (-1: none)."""
    calls: list[str] = []
    unfinished_at = -1
    for match in _SHORT.finditer(text):
        if match[2] is None:
            unfinished_at = match.start()
        else:
            calls.append(match[0])
    return calls, unfinished_at


# --- reading one call -------------------------------------------------------------------------------------------------


def _read_json_call(body: str, schemas: Sequence[Schema]) -> CropImage | SelectFrames | CustomCall:
    call = _load_json(body)
    if not isinstance(call, dict) or set(call) != {"name", "arguments"}:
        raise _CallError(f'expected {{"name": ..., "arguments": {{...}}}}, got {_quoted(body.strip())}')
    name, arguments = call["name"], call["arguments"]
    custom = {schema["function"]["name"]: schema["function"]["parameters"] for schema in schemas}
    if name in ("crop_image", "select_frames") or name not in list(custom):  # a list: the name may be a list, too
        return _read_call(name, arguments, list(custom))
    try:
        return CustomCall(name, _renumbered(fitted(arguments, custom[name], f"the arguments of {name}"), -1))
    except Mismatch as mismatch:
        expected, got = mismatch.args
        raise _CallError(f"expected {expected}, got {_shown(got)}") from None


def _renumbered(arguments: Mapping[str, Any], by: int) -> dict[str, Any]:
    """Return arguments with ``by`` added to the numbers of images."""
    shifted = {name: arguments[name] for name in IMAGE_ARGUMENTS if name in arguments}
    for name, value in shifted.items():
        shifted[name] = [number + by for number in value] if isinstance(value, list) else value + by
    return {**arguments, **shifted}


def _read_short_call(call: str) -> CropImage | SelectFrames:
    name, _, arguments = call[:-1].partition("(")
    values = _load_json(f"[{arguments.lstrip()}]")
    if name == "crop_image" and len(values) == 1:
        values.append(1)  # the short form may leave the first image unsaid
    names = ("bbox_2d", "target_image") if name == "crop_image" else ("target_frames",)
    if len(values) != len(names):
        raise _CallError(f"expected {name}({', '.join(names)}), got {len(values)} arguments")
    return _read_call(name, dict(zip(names, values, strict=True)), ())


def _load_json(body: str) -> Any:
    if len(body) > MAX_CALL_CHARACTERS:
        raise _CallError(f"expected a call of at most {MAX_CALL_CHARACTERS} characters, got {len(body)}")
    if _nesting(body) > MAX_NESTING:
        raise _CallError(f"expected JSON nested at most {MAX_NESTING} deep, got {_nesting(body)}")
    try:
        return json.loads(body)
    except ValueError:  # its message differs between versions of Python, so the policy does not get to read it
        raise _CallError(f"expected valid JSON in the call, got {_quoted(body.strip())}") from None


def _nesting(body: str) -> int:
    depth = deepest = 0
    for bracket in re.findall(r"[][{}]", body):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _read_call(name: Any, arguments: Any, others: Sequence[str]) -> CropImage | SelectFrames:
    if name not in ("crop_image", "select_frames"):
        names = " or ".join(("crop_image", "select_frames", *others))
        raise _CallError(f"expected the name {names}, got {_shown(name)}")
    expected = {"bbox_2d", "target_image"} if name == "crop_image" else {"target_frames"}
    if not isinstance(arguments, dict):
        raise _CallError(f"expected the arguments of {name} as an object, got {_shown(arguments)}")
    if missing := sorted(expected - set(arguments)):
        raise _CallError(f"{name} needs {' and '.join(sorted(expected))}, missing {' and '.join(missing)}")
    if extra := sorted(set(arguments) - expected):
        raise _CallError(f"{name} takes {' and '.join(sorted(expected))} only, got {_shown(extra)} too")
    if name == "crop_image":
        return CropImage(_bbox(arguments["bbox_2d"]), _number(arguments["target_image"], "target_image"))
    frames = arguments["target_frames"]
    if not isinstance(frames, list):
        raise _CallError(f"expected target_frames as a list of integers, got {_shown(frames)}")
    return SelectFrames(tuple(_number(frame, "each of target_frames") for frame in frames))


def _bbox(value: Any) -> tuple[float, float, float, float]:
    if not isinstance(value, list) or len(value) != 4 or not all(_is_real(x) for x in value):
        raise _CallError(f"expected bbox_2d as four numbers [x1, y1, x2, y2], got {_shown(value)}")
    x1, y1, x2, y2 = (_to_float(x) for x in value)
    return x1, y1, x2, y2


def _number(value: Any, what: str) -> int:
    """Convert a number counted from 1 to an index counted from 0; 2.0 is an integer in JSON Schema, so here too."""
    if not _is_real(value) or not (isinstance(value, int) or value.is_integer()):
        raise _CallError(f"expected {what} as an integer, got {_shown(value)}")
    return int(value) - 1


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _to_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond 1e308
        return math.inf if value > 0 else -math.inf


def _shown(value: Any) -> str:
    return _quoted(json.dumps(value, ensure_ascii=False))


def _quoted(text: str) -> str:
    """Quote what the policy wrote, shortened, and without lone surrogates, which no tokenizer takes."""
    text = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
    return f"`{text.encode('utf-8', 'replace').decode()}`"


# --- finding the answer -----------------------------------------------------------------------------------------------

_BOXED = re.compile(r"\\boxed\s*\{")


def last_answer(text: str) -> str | None:
    r"""Return the text of the last answer, whatever else a turn holds; None without one.

    >>> last_answer(r"\boxed{A}, no, \boxed{B}")
    'B'
    """
    found = _last_answer(text)
    return None if found is None else found[0]


def _last_answer(text: str) -> tuple[str, int] | None:
    """Return the text of the last answer and where it ends, or None."""
    begins = [match.end() for match in _BOXED.finditer(text)]
    return _last_box(text, begins) or _last_answer_tag(text)


def _last_box(text: str, begins: Sequence[int]) -> tuple[str, int] | None:
    """Return what the last box to be closed holds, and where that ends; None where none is closed.

    A million braces take some milliseconds, which a loop over them would not.

    Args:
        text: The turn.
        begins: Where the content of each box begins, behind its brace, in ascending order.
    """
    if not begins:
        return None
    letters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)[begins[0] - 1 :]
    places = np.flatnonzero((letters == ord("{")) | (letters == ord("}")))
    depths = np.cumsum(np.where(letters[places] == ord("{"), 1, -1), dtype=np.int32)  # behind each brace
    least = np.minimum.accumulate(depths[::-1])[::-1]  # from each brace to the end
    boxes = np.searchsorted(places, np.asarray(begins) - begins[0])
    closed = boxes[least[boxes] < depths[boxes]]
    if not len(closed):
        return None
    # The box that begins last is closed last, unless others are closed around it: then the outermost of those.
    between = np.minimum.accumulate(depths[closed[-1] :: -1])[::-1]
    box = closed[between[closed] >= depths[closed]][0]
    end = places[box + 1 + np.flatnonzero(depths[box + 1 :] < depths[box])[0]] + begins[0] - 1
    return text[places[box] + begins[0] : end], int(end) + 1


def _last_answer_tag(text: str) -> tuple[str, int] | None:
    end = text.rfind("</answer>")
    begin = text.rfind("<answer>", 0, end) if end >= 0 else -1
    return (text[begin + len("<answer>") : end], end) if begin >= 0 else None
