"""Reading one number: what `test_grading` does not reach through the rules."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixel_env.numerals import one_value, only_number


@given(st.integers(-(10**12), 10**12))
def test_every_integer_is_read(number: int) -> None:
    for text in (str(number), f"{number:,}", f"{number}.0", f"about {number} things"):
        assert only_number(text) == number
    assert one_value(f"{number:,}") == str(number)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,200", "1200"),  # thousands
        ("1,2000", None),  # no thousand, so a list
        ("1,200,30", None),  # likewise
        (r"\left(3\right)", r"\left(3\right)"),  # brackets
        (r"\fraction", None),  # only begins like \frac
        (r"\frac12", r"\frac12"),  # without braces
        (r"\pi", r"\pi"),  # a value without a digit
        ("-3", "-3"),  # a sign
        ("2-3", None),  # a difference
        ("10^{-3}", "10^{-3}"),  # a sign in an exponent
        ("()", None),  # no digit
        ("\u0663", None),  # a digit that is not ASCII is not guessed at
    ],
)
def test_values(text: str, value: str | None) -> None:
    assert one_value(text) == value


@given(st.text())
def test_any_text_is_read_or_not(text: str) -> None:
    assert isinstance(only_number(text), Decimal | None)
    assert one_value(text) is None or any(c.isdigit() for c in text) or "\\pi" in text
