"""The reader of a policy's turn: a table of strings, and properties."""

import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.text_promises import PIECES, check_growth
from pixel_env import actions
from pixel_env.actions import (
    MAX_TURN_CHARACTERS,
    SCHEMAS,
    Answer,
    CropImage,
    Malformed,
    SelectFrames,
    last_answer,
    parse,
    render,
)

BOX = (12.0, 30.0, 50.0, 60.0)
CROP = '<tool_call>{"name": "crop_image", "arguments": {"bbox_2d": [12, 30, 50, 60], "target_image": 1}}</tool_call>'
FRAMES = '<tool_call>{"name": "select_frames", "arguments": {"target_frames": [2, 3]}}</tool_call>'


def call(name: str, arguments: str) -> str:
    return f'<tool_call>{{"name": {name}, "arguments": {arguments}}}</tool_call>'


def crop(bbox: str, image: str = "1") -> str:
    return call('"crop_image"', f'{{"bbox_2d": {bbox}, "target_image": {image}}}')


WELL_FORMED = [
    (CROP, CropImage(BOX, 0)),  # the full form
    (FRAMES, SelectFrames((1, 2))),  # frames count from 1 in text
    (f"Let me look. {CROP}\n", CropImage(BOX, 0)),  # reasoning before, newline after
    (f"{CROP} I will see the sign.", CropImage(BOX, 0)),  # text after a call
    (rf"\boxed{{A}} but first {CROP}", CropImage(BOX, 0)),  # a complete call wins over an answer before it
    (rf"{CROP} so \boxed{{A}}", CropImage(BOX, 0)),  # and over one after it
    (f"A <tool_call> helps: {CROP}", CropImage(BOX, 0)),  # a stray opening tag is only a word
    (f"{CROP} <tool_call>", CropImage(BOX, 0)),  # also after the call
    (CROP.replace("{", "\n { ", 1).replace("</", "\n</"), CropImage(BOX, 0)),  # white space inside the tags
    (crop("[0.5, -3, 1e2, 60.25]", "2"), CropImage((0.5, -3.0, 100.0, 60.25), 1)),  # any JSON number
    (crop("[12, 30, 50, 60]", "1.0"), CropImage(BOX, 0)),  # 1.0 is an integer in JSON Schema
    (crop("[50, 60, 12, 30]"), CropImage((50.0, 60.0, 12.0, 30.0), 0)),  # inverted: for operations to answer
    (crop("[1e999, 0, 1, 1]"), CropImage((math.inf, 0.0, 1.0, 1.0), 0)),  # overflows to infinity
    (crop(f"[{'9' * 400}, 0, 1, 1]"), CropImage((math.inf, 0.0, 1.0, 1.0), 0)),  # an integer no float can hold
    (crop("[-Infinity, 0, 1, 1]"), CropImage((-math.inf, 0.0, 1.0, 1.0), 0)),  # Python's JSON reads it
    (crop("[1, 2, 3, 4]", "0"), CropImage((1.0, 2.0, 3.0, 4.0), -1)),  # image 0: for operations to answer
    (crop("[1, 2, 3, 4]", "9" * 300), CropImage((1.0, 2.0, 3.0, 4.0), int("9" * 300) - 1)),  # a huge image number
    (call('"select_frames"', '{"target_frames": []}'), SelectFrames(())),  # empty: for operations to answer
    (call('"select_frames"', '{"target_frames": [0, -4, 7, 7]}'), SelectFrames((-1, -5, 6, 6))),  # likewise
    ("crop_image([12, 30, 50, 60])", CropImage(BOX, 0)),  # short form, first image
    ("I use crop_image([12,30,50,60], 2) now", CropImage(BOX, 1)),  # short form with an image, in a sentence
    ("select_frames([2, 3])", SelectFrames((1, 2))),  # short form
    (f"crop_image([1, 2, 3, 4]) means {CROP}", CropImage(BOX, 0)),  # a tagged call beats a short form in the reasoning
    (r"It is \boxed{A}.", Answer("A")),  # an answer
    (r"\boxed{}", Answer("")),  # an empty answer is an answer
    (r"\boxed{ 3 }", Answer(" 3 ")),  # kept as it stands; grading normalises
    (r"\boxed{\text{red}}", Answer(r"\text{red}")),  # balanced braces inside
    (r"\boxed{A} no, \boxed{B}", Answer("B")),  # the last one
    (r"\boxed{A} no, \boxed{B", Answer("A")),  # the last closed one
    (r"\boxed{x \boxed{y} z}", Answer(r"x \boxed{y} z")),  # nested: the outer ends last
    (r"} \boxed{A} {", Answer("A")),  # unbalanced braces around
    (r"\boxed {A}", Answer("A")),  # LaTeX allows the space
    ("<answer>B</answer>", Answer("B")),  # the other form
    ("<answer>A</answer><answer>B</answer>", Answer("B")),  # the last one
    (r"<answer>\boxed{C}</answer>", Answer("C")),  # the box is the inner one
    (r"<tool_call> or not, \boxed{A}", Answer("A")),  # an unfinished call before a finished answer
    (r"\boxed{crop_image}", Answer("crop_image")),  # a name without brackets is no call
    ("日本 \\boxed{é\U0001f50d}", Answer("é\U0001f50d")),  # any Unicode
]


@pytest.mark.parametrize(("text", "action"), WELL_FORMED)
def test_parse_well_formed(text: str, action: object) -> None:
    assert parse(text) == action


MALFORMED = [
    ("", False, "neither a call nor an answer"),  # nothing
    ("The sign is red.", False, "neither a call nor an answer"),  # prose
    (r"\boxed{A", False, "neither a call nor an answer"),  # a box that never closes
    ("<answer>A", False, "neither a call nor an answer"),  # a tag that never closes
    ("</answer>A<answer>", False, "neither a call nor an answer"),  # the wrong way round
    (CROP + CROP, True, "expected one call a turn, got 2 calls"),  # twice the same is still two
    (CROP + FRAMES + CROP, True, "got 3 calls"),  # mixed
    ("crop_image([1,2,3,4]) crop_image([1,2,3,4], 2)", True, "got 2 calls"),  # short forms too
    (CROP[: -len("</tool_call>")], True, "not complete"),  # unclosed tag
    (r"\boxed{A}? <tool_call>{", True, "not complete"),  # cut short while calling: the answer before was a thought
    ("</tool_call>", True, "not complete"),  # a closing tag alone
    ("crop_image([1, 2", True, "not complete"),  # short form cut off
    ("<tool_call></tool_call>", True, "valid JSON"),  # empty
    ("<tool_call>{'name': 'crop_image'}</tool_call>", True, "valid JSON"),  # Python, not JSON
    ("<tool_call>crop_image([1,2,3,4])</tool_call>", True, "valid JSON"),  # the forms do not mix
    ("<tool_call>[]</tool_call>", True, '"name"'),  # not an object
    ("<tool_call>3</tool_call>", True, '"name"'),  # not an object
    ('<tool_call>{"name": "crop_image"}</tool_call>', True, '"arguments"'),  # no arguments
    (CROP.replace('"name"', '"id": 1, "name"'), True, '"name"'),  # an extra key beside them
    (call('"zoom"', "{}"), True, 'crop_image or select_frames, got `"zoom"`'),  # unknown name
    (call("3", "{}"), True, "got `3`"),  # the name is a number
    (call('["crop_image"]', "{}"), True, "crop_image or select_frames"),  # unhashable name
    (call('"crop_image"', '"[1,2,3,4]"'), True, "as an object"),  # arguments as a string
    (call('"crop_image"', '{"bbox_2d": [1,2,3,4]}'), True, "missing target_image"),  # a missing argument
    (call('"crop_image"', "{}"), True, "missing bbox_2d and target_image"),  # both missing
    (call('"select_frames"', '{"target_frames": [1], "fps": 2}'), True, "only, got"),  # an extra argument
    (crop("[1, 2, 3]"), True, "four numbers"),  # three numbers
    (crop('"1,2,3,4"'), True, "four numbers"),  # a string
    (crop('[1, 2, 3, "4"]'), True, "four numbers"),  # a number as a string
    (crop("[1, 2, 3, true]"), True, "four numbers"),  # true is no number
    (crop("[1, 2, 3, null]"), True, "four numbers"),  # null
    (crop("[1, 2, 3, 4]", "1.5"), True, "target_image as an integer, got `1.5`"),  # half an image
    (crop("[1, 2, 3, 4]", "NaN"), True, "target_image as an integer"),  # not a number
    (crop("[1, 2, 3, 4]", "1e999"), True, "target_image as an integer"),  # infinity
    (crop("[1, 2, 3, 4]", "true"), True, "target_image as an integer"),  # true is not 1
    (crop("[1, 2, 3, 4]", '"1"'), True, "target_image as an integer"),  # a string
    (call('"select_frames"', '{"target_frames": 3}'), True, "a list of integers"),  # not a list
    (call('"select_frames"', '{"target_frames": [1, 2.5]}'), True, "each of target_frames as an integer"),  # a half
    (call('"select_frames"', '{"target_frames": [[1]]}'), True, "each of target_frames"),  # nested
    (crop("[" * 100_000), True, "at most 4096 characters"),  # huge
    (f"<tool_call>{'[' * 4000}</tool_call>", True, "nested at most 4 deep"),  # would exhaust the JSON parser's stack
    (crop(f"[{'1' * 5000}, 0, 1, 1]"), True, "at most 4096 characters"),  # digits beyond Python's own limit
    ("crop_image([1,2,3])", True, "four numbers"),  # short form, three numbers
    ("crop_image([1,2,3,4], 1, 2)", True, "got 3 arguments"),  # short form, too many
    ("crop_image([1,2,3,4],)", True, "valid JSON"),  # short form, trailing comma
    ("crop_image([[1,2],[3,4]])", True, "not complete"),  # short form, nested
    ("select_frames([1], 2)", True, "got 2 arguments"),  # short form, too many
    ("select_frames([__import__('os')])", True, "not complete"),  # nothing is evaluated
]


@pytest.mark.parametrize(("text", "attempted_call", "reason"), MALFORMED)
def test_parse_malformed(text: str, attempted_call: bool, reason: str) -> None:
    action = parse(text)
    assert isinstance(action, Malformed), action
    assert action.attempted_call == attempted_call
    assert reason in action.reason
    assert len(action.reason) < 300  # it goes into the prompt, however much the policy wrote


def test_nan_is_left_to_operations() -> None:
    action = parse(crop("[NaN, 0, 1, 1]"))
    assert isinstance(action, CropImage) and math.isnan(action.bbox[0])


def test_reasons_can_be_encoded() -> None:
    action = parse("<tool_call>\ud800</tool_call>")
    assert isinstance(action, Malformed)
    action.reason.encode("utf-8")  # a lone surrogate of the policy does not come back


WORDS = (
    r'<tool_call> </tool_call> { } [ ] ( ) " , : \boxed{ \boxed <answer> </answer> crop_image select_frames 1 NaN 1e999'
)
MORE = ['"name"', '"arguments"', "bbox_2d", "target_frames", "crop_image([", "])", CROP, FRAMES, " ", "\n"]
fragments = st.sampled_from(WORDS.split() + MORE)
turns = st.one_of(st.text(), st.lists(st.one_of(fragments, st.text(max_size=3)), max_size=30).map("".join))
reals = st.floats(allow_nan=False) | st.integers(-(10**6), 10**6).map(float)
calls = st.one_of(
    st.builds(CropImage, st.tuples(reals, reals, reals, reals), st.integers(-(10**30), 10**30)),
    st.builds(SelectFrames, st.lists(st.integers(-(10**30), 10**30), max_size=20).map(tuple)),
)


@settings(deadline=None)
@given(turns)
def test_parse_is_total_and_what_it_reads_can_be_written(text: str) -> None:
    action = parse(text)
    if isinstance(action, Malformed):
        assert action.reason
    elif not (isinstance(action, CropImage) and any(map(math.isnan, action.bbox))):
        assert parse(render(action)) == action


@settings(deadline=None)
@given(calls, st.text(alphabet="abc \n{}()[]", max_size=20))
def test_render_and_parse_are_inverse(action: CropImage | SelectFrames, reasoning: str) -> None:
    assert parse(render(action)) == action
    assert parse(reasoning + render(action) + reasoning) == action


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_characters="<{}()\\"), max_size=40))
def test_render_and_parse_are_inverse_on_answers(text: str) -> None:
    assert parse(render(Answer(text))) == Answer(text)


def test_render_writes_integers_without_a_point() -> None:
    assert render(CropImage(BOX, 0)) == CROP
    assert render(SelectFrames((1, 2))) == FRAMES
    assert render(Answer("a}b")) == "<answer>a}b</answer>"  # braces that do not match need the other form


@pytest.mark.parametrize(
    "action",
    [
        Malformed("no", attempted_call=False),  # nothing to write
        CropImage((math.nan, 0.0, 1.0, 1.0), 0),  # NaN equals nothing, so no text is its inverse
        Answer(CROP),  # would be read as a call
        Answer("}<answer>"),  # fits neither form
    ],
)
def test_render_refuses_what_cannot_be_read_back(action: object) -> None:
    with pytest.raises(ValueError, match="expected an action that can be written down"):
        render(action)  # type: ignore[arg-type]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["{", "}", r"\boxed{", r"\boxed {", r"\boxed", "x", "\ud800", "图"]), max_size=30).map(
        "".join
    )
)
def test_the_last_answer_is_that_of_a_stack(text: str) -> None:
    found, opened = None, list[int]()
    for match in re.finditer(r"(\\boxed\s*)?\{|\}", text):
        if match[0] != "}":
            opened.append(match.end() if match[1] else 0)
        elif opened and (begin := opened.pop()):
            found = text[begin : match.start()]
    assert last_answer(text) == found


SHORT = r"\b(crop_image|select_frames)\(\s*(\[[^\[\]()]*\][^\[\]()]*)\)"
BEGUN = r"\b(crop_image|select_frames)\(\s*\["
names = ["crop_image", "select_frames", "crop_image([1, 2, 3, 4])", "(", "[", "]", ")", "x", "_", "é", " ", ","]


@settings(deadline=None)
@given(st.lists(st.sampled_from(names), max_size=20).map("".join))
def test_short_calls_are_found_as_by_two_plain_patterns(text: str) -> None:
    complete = [match.start() for match in re.finditer(SHORT, text)]
    action = parse(text)
    assert getattr(action, "attempted_call", True) == bool(complete or re.search(BEGUN, text))
    if len(complete) > 1:
        assert isinstance(action, Malformed) and f"got {len(complete)} calls" in action.reason


@pytest.mark.parametrize("piece", PIECES)
def test_time_is_linear_in_the_length(piece: str) -> None:
    """Most of these took time quadratic in their number in a naive reader."""
    check_growth(piece, (MAX_TURN_CHARACTERS // 8, MAX_TURN_CHARACTERS))


def test_time_that_is_quadratic_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(text: str) -> tuple[list[object], int]:
        for begin in range(0, len(text), 4):
            text[begin:].find("</tool_call>")
        return [], -1

    monkeypatch.setattr(actions, "_tagged_calls", slow)
    with pytest.raises(AssertionError, match="parse took"):
        check_growth("{", (MAX_TURN_CHARACTERS // 8, MAX_TURN_CHARACTERS), tries=1)


def test_schemas_describe_what_parse_accepts() -> None:
    functions = {schema["function"]["name"]: schema["function"]["parameters"] for schema in SCHEMAS}
    json.dumps(SCHEMAS)  # they are written into the prompt
    for text, name in ((CROP, "crop_image"), (FRAMES, "select_frames")):
        arguments = json.loads(text.removeprefix("<tool_call>").removesuffix("</tool_call>"))["arguments"]
        assert set(arguments) == set(functions[name]["properties"]) == set(functions[name]["required"])
