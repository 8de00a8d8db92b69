r"""Reading one number out of a text: a count in digits or words, or a value written in LaTeX.

Both readers return None rather than guess. They run in time linear in the text.
"""

import re
from decimal import Decimal

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_WORDS = {word: number for number, word in enumerate(_UNITS)}
_WORDS |= {word: 10 * number for number, word in enumerate(_TENS, start=2)}
_WORDS |= {f"{ten}-{unit}": _WORDS[ten] + _WORDS[unit] for ten in _TENS for unit in _UNITS[1:10]}

_WORD = "|".join(word.replace("-", "[- ]") for word in sorted(_WORDS, key=len, reverse=True))

# A number that stands alone: not part of a word ("B3"), of a version ("1.2.3") or of a malformed thousand ("1,2000").
_NUMBER = re.compile(
    r"(?<![\w.,])[-+]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?![\w]|[.,][0-9])"
    # A word that stands alone: "one hundred" and "no one" are not 1.
    rf"|(?<![\w-])(?<!no )(?:{_WORD})(?![\w-]| (?:hundred|thousand|million|billion|and a|point|dozen)\b)"
)


def only_number(text: str) -> Decimal | None:
    """Return the one number that a text names, in digits or as a word from zero to ninety-nine; else None.

    The same number twice is one number; a sum, a fraction or a range is two.

    >>> only_number("There are twenty-one dogs"), only_number("1,200"), only_number("3 or 4")
    (Decimal('21'), Decimal('1200'), None)
    """
    found = numbers_in(text)
    return found.pop() if len(found) == 1 else None


def numbers_in(text: str) -> set[Decimal]:
    """Return every number that a text names, in digits or as a word from zero to ninety-nine."""
    return {_to_decimal(token) for token in _NUMBER.findall(text.replace("\u2212", "-").lower())}


def _to_decimal(token: str) -> Decimal:
    word = token.replace(" ", "-")
    return Decimal(_WORDS[word]) if word in _WORDS else Decimal(token.replace(",", ""))


_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_VALUE = re.compile(r"(?:\\(?:[dt]?frac|sqrt|pi|times|cdot|left|right)(?![A-Za-z])|\\%|[0-9.+\-/^%(){} ])+")
_SEVERAL = re.compile(r"[0-9)}%]\s*[-+]|[0-9]\s+[0-9.]")  # a sum, a range, or numbers side by side


def one_value(text: str) -> str | None:
    r"""Return a text that holds one numeric value and nothing else, in digits or LaTeX; None for anything else.

    Fractions, roots, powers, products with a sign of multiplication, percentages and pi are values. Sums, ranges,
    mixed numbers and lists are not, nor letters, words and units: math-verify would read another value into them.

    >>> one_value(r"\frac{1}{2}"), one_value("1,200"), one_value("2009-2013"), one_value("tea")
    ('\\frac{1}{2}', '1200', None, None)
    """
    text = _THOUSANDS.sub("", text.replace("\u2212", "-")).strip().removesuffix(".")
    digits = any(character.isdigit() for character in text) or "\\pi" in text
    return text if digits and _VALUE.fullmatch(text) and not _SEVERAL.search(text) else None
