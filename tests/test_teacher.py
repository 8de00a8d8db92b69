"""What is read of a reply of the teacher, whatever it is."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.teacher import MalformedReplyError, box_or_none, flag, options, phrase, read_fields, words


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [
        (words, " two\n lines ", "two lines"),
        (words, 3, "3"),
        (words, "\ud800", "?"),
        (phrase, "the sign above the door.", "the sign above the door"),
        (flag, False, False),
        (options, ["a", "b", "c", "d"], ("a", "b", "c", "d")),
        (box_or_none, [1, 2.5, 3, 4], (1.0, 2.5, 3.0, 4.0)),
        (box_or_none, None, None),
    ],
)
def test_fields(field: Any, value: Any, read: Any) -> None:
    text = f"Here it is:\n```json\n{json.dumps({'x': value, 'more': {}})}\n```"
    assert read_fields(text, {"x": field}) == {"x": read}


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        (words, "", "x as a text of 1 to"),
        (words, "a" * 2000, "x as a text of 1 to"),
        (words, None, "x as a text of 1 to"),
        (words, True, "x as a text of 1 to"),
        (phrase, "the <image>", "at most ten plain words"),
        (phrase, "one. Two", "at most ten plain words"),
        (flag, 1, "true or false"),
        (options, ["a", "b", "c"], "a list of 4 texts"),
        (options, ["a", "A", "b", "c"], "4 different texts"),
        (box_or_none, [1, 2, 3], "a list of four numbers"),
        (box_or_none, [1, 2, 3, "4"], "a list of four numbers"),
        (box_or_none, [1, 2, 3, float("nan")], "a list of four numbers"),
        (box_or_none, [1, 2, 3, 1e400], "a list of four numbers"),
        (box_or_none, [True, 0, 3, 4], "a list of four numbers"),
        (box_or_none, [3, 0, 1, 4], "with x1 < x2"),
    ],
)
def test_fields_that_are_not_as_asked_for(field: Any, value: Any, expected: str) -> None:
    with pytest.raises(MalformedReplyError, match=expected):
        read_fields(json.dumps({"x": value}), {"x": field})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected a JSON object of at most"),
        ("{" * 30_000 + "}", "got 30001 characters"),
        ('{"x": 1', "expected a JSON object of at most"),
        ('{"x": ' + "[" * 9000 + "}", "expected a JSON object, got"),
        ('{"x": ' + "1" * 9000 + "}", "expected a JSON object, got"),
        ('{"y": 1}', "expected the keys x, got none named x"),
        ("{'x': 1}", "expected a JSON object, got"),
    ],
)
def test_what_is_no_object(text: str, expected: str) -> None:
    with pytest.raises(MalformedReplyError, match=expected):
        read_fields(text, {"x": words})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(json_values | st.text().map(lambda text: text), st.sampled_from([words, phrase, flag, options, box_or_none]))
def test_nothing_else_is_raised(value: Any, field: Any) -> None:
    for text in (json.dumps({"x": value}), f"{value}", f"{{{value}}}"):
        try:
            read_fields(text, {"x": field})
        except MalformedReplyError as error:
            assert len(str(error)) < 300
