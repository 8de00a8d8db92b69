"""What holds for every text that a model may write; `fuzz_text.py` and the tests look for a text that breaks it.

A check raises AssertionError for a broken promise, and lets through whatever else is raised: no text may raise.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args
from unittest.mock import patch

import numpy as np
from PIL import Image

from pixel_env import grading, released_grading
from pixel_env.actions import Action, Answer, CropImage, Malformed, SelectFrames, last_answer, parse, render
from pixel_env.chat import Tools, messages
from pixel_env.equivalence import Outcome
from pixel_env.grading import MAX_CHARACTERS, grade
from pixel_env.numerals import one_value
from pixel_env.operations import crop_image, first_views, select_frames
from pixel_env.prompts import IMAGE_MARKER, error_line, plain
from pixel_env.released_grading import grade_released
from pixel_env.released_protocol import crop_image as released_crop
from pixel_env.released_protocol import read_turn
from pixel_env.released_protocol import select_frames as released_select
from pixel_env.rollout import Conversation
from pixel_env.settings import ViewSettings
from pixel_env.tasks import Task
from pixel_env.viewer import as_block

LONGEST_REASON = 400
"""Characters of a reason or an observation: they go into the prompt, however much the policy wrote."""

LABEL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "label",
        "description": "A function of one's own, with an argument of every type.",
        "parameters": {
            "type": "object",
            "properties": {
                "text": {"type": "string"},
                "share": {"type": "number", "minimum": 0, "maximum": 1},
                "flag": {"type": "boolean"},
                "target_images": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
            },
            "required": ["text"],
        },
    },
}

PIECES = (
    *("<tool_call>", "</tool_call>", '{"name": "crop_image", "arguments": {"bbox_2d": [', '], "target_image": 1}}'),
    *('{"name": "select_frames", "arguments": {"target_frames": [', "]}}", '{"name": "crop_image_normalized"'),
    *('{"name": "label", "arguments": {"text": "', '", "share": 0.5, "flag": true, "target_images": [1]', "\\ud800"),
    *("crop_image([", "select_frames([", "])", "\\boxed{", "}", "{", "<answer>", "</answer>", "\\text{", "\\frac{"),
    *("1e309", "-Infinity", "NaN", "0.5", "99999999999999999999", "1,200", "twenty-one", "(A)", "the answer is ", "$"),
    *(IMAGE_MARKER, "<|im_end|>", "\n", " ", '"', "\\", "**", "\u202e", "\u2028", "\u00bd", "\ufdfa", "\u0130"),
)
"""Of what texts are put together: what the grammar gives a meaning to."""


@dataclass(frozen=True)
class Blank:
    """A source of which only the geometry is looked at."""

    kind: str
    num_frames: int
    width: int = 640
    height: int = 480

    def frame(self, index: int) -> Image.Image:
        """Return a picture that nobody draws on."""
        return Image.new("RGB", (self.width, self.height))

    def timestamp(self, index: int) -> float:
        """Return half a second a frame."""
        return index / 2


SOURCES = (Blank("image", 1), Blank("video", 16))
SETTINGS = tuple(ViewSettings(112 * 112, 112 * 112, coordinates=c) for c in ("pixel", "fraction", "thousandth"))
SHOWN = [(source, one, first_views(source, one)) for source in SOURCES for one in SETTINGS]
VIEW = np.zeros((28, 28, 3), np.uint8)
TASKS = (
    Task("choice", "", "", SOURCES[0], ("blue",), "choice", ("red", "blue", "A", "3")),
    Task("number", "", "", SOURCES[0], ("7", "1,200"), "number"),
    Task("value", "", "", SOURCES[0], ("1/2", "1,200"), "value"),
    Task("text", "", "", SOURCES[0], ("stra\u00dfe", "7"), "text"),
    Task("spans", "", "", SOURCES[0], ("red, blue",), "spans"),
)


def check(text: str) -> None:
    """Hold every promise but that of `check_growth` against a text."""
    check_reading(text)
    check_grading(text)
    check_chat(text)
    check_page(text)


def check_reading(text: str) -> None:
    """The readers of a turn are total, what they read can be written down again, and calls of it can be carried out."""
    action = parse(text, [LABEL])
    if isinstance(action, Malformed):
        _check_sentence(action.reason)
    elif not (isinstance(action, CropImage) and any(map(math.isnan, action.bbox))):
        assert parse(render(action, [LABEL]), [LABEL]) == action
    _check_operations(action, crop_image, select_frames)
    released = read_turn(text)
    assert isinstance(released, Answer | CropImage | SelectFrames | Malformed)
    _check_operations(released, released_crop, released_select)


def _check_operations(action: Action, crop: Callable[..., Any], select: Callable[..., Any]) -> None:
    if not isinstance(action, CropImage | SelectFrames):
        return
    for source, settings, shown in SHOWN:
        result = (crop if isinstance(action, CropImage) else select)(action, shown, source, settings)
        assert (result.error is None) == bool(result.views)
        for view in result.views:
            x1, y1, x2, y2 = view.region
            assert 0 <= x1 < x2 <= source.width and 0 <= y1 < y2 <= source.height
            assert view.size[0] * view.size[1] <= settings.crop_pixels
        if result.error is not None:
            _check_sentence(error_line(result.text, 1))


def _check_sentence(text: str) -> None:
    assert 0 < len(text) < LONGEST_REASON
    assert IMAGE_MARKER not in plain(text)
    plain(text).encode()


def check_grading(text: str) -> None:
    """The graders are total: a grade is a verdict, a score in [0, 1], and no score where nothing could be read."""
    with patch.object(grading, "compare", _compare_values), patch.object(released_grading, "compare", _compare):
        for task in TASKS:
            for verdict in (grade(task, text), grade_released(task, [text, text])):
                assert 0 <= verdict.score <= 1
                assert not (verdict.parse_failure and (verdict.correct or verdict.score))
    value = one_value(text[:MAX_CHARACTERS])
    assert value is None or value.isascii()


def _compare(first: str, second: str, seconds: float = 0.0) -> Outcome:
    """Stand in for the process of math-verify, which is asked for short texts that a pipe takes: any outcome."""
    assert json.dumps([first, second]).isascii() and len(first) + len(second) < 2 * released_grading.MAX_CHARACTERS
    outcomes: tuple[Outcome, ...] = get_args(Outcome)
    return outcomes[(len(first) + len(second)) % len(outcomes)]


def _compare_values(first: str, second: str, seconds: float = 0.0) -> Outcome:
    """The same for values: nothing but one of them in a box comes as far as this."""
    for boxed in (first, second):
        assert boxed.isascii() and boxed.startswith("\\boxed{") and len(boxed) <= MAX_CHARACTERS + len("\\boxed{}")
        assert one_value(boxed[len("\\boxed{") : -1]) is not None
    return _compare(first, second)


def check_chat(text: str) -> None:
    """A request that repeats what the policy wrote is JSON as strict servers read it, and no text adds an image."""
    observations: list[dict[str, Any]] = [
        {"text": plain(text), "images": ()},
        {"text": IMAGE_MARKER, "images": (VIEW,)},
    ]
    conversation = Conversation("", "", observations, [text])
    kinds: tuple[Tools, ...] = ("text", "native")
    for tools in kinds:
        said = messages(conversation, tools, lambda image: "shown")
        json.dumps(said, allow_nan=False, ensure_ascii=False).encode()
        parts = [part for message in said for part in message["content"] or () if isinstance(part, dict)]
        assert [part["type"] for part in parts].count("image_url") == 1
        for message in said:
            for call in message.get("tool_calls", ()):
                json.loads(call["function"]["arguments"], parse_constant=_refused)


def _refused(name: str) -> float:
    raise AssertionError(f"{name} is no JSON")


def check_page(text: str) -> None:
    """In the block of data of a page a text is ASCII without what HTML gives a meaning, and comes back."""
    block = as_block({"text": text})
    assert block.isascii() and not set("<>&") & set(block)
    assert json.loads(block) == {"text": text}


def check_growth(text: str, lengths: Sequence[int] = (2**15, 2**18), tries: int = 3) -> None:
    """Time grows with the length, not with its square: 8 times the length takes less than 32 times as long.

    Coarse, because other processes disturb it: only what is slow every time counts. CPU seconds of this process.
    """
    for reader in (parse, read_turn, last_answer):
        for _ in range(tries):
            short, long = (_seconds(reader, text, length) for length in lengths)
            if long < 0.5 or long < 32 * short:
                break
        else:
            raise AssertionError(
                f"{reader.__name__} took {short:.3f} s for {lengths[0]} and {long:.3f} s for {lengths[1]}"
            )


def _seconds(reader: Callable[[str], Any], text: str, length: int) -> float:
    repeated = (text * (length // max(1, len(text)) + 1))[:length]
    began = time.process_time()
    reader(repeated)
    return time.process_time() - began
