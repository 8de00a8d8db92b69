"""Questions as data files write them: options inside the text, letters, boxed answers."""

import re
from collections.abc import Sequence
from string import ascii_uppercase

import numpy as np

from pixel_env.actions import Answer, parse
from pixel_env.grading import normalise

_MARKERS = (
    re.compile(r"(?:^|(?<=\s))\(([A-Z])\)\s*", re.MULTILINE),  # (A) red (B) blue, in a line or in several
    re.compile(r"^\s*([A-Z])[.):]\s+", re.MULTILINE),  # A. red, a line each
)
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


def split_options(text: str) -> tuple[str, tuple[str, ...]]:
    r"""Split a question that ends in its options into the question and the options.

    Options are marked ``(A)``, or ``A.``, ``A)``, ``A:`` at the beginning of a line, in order from A and at least two.
    The last one ends with its line; text after it says how to answer, which an environment does itself, and is left
    out. Without options the text comes back as it is.

    >>> split_options("Which colour?\n(A) red\n(B) blue\nAnswer with the letter.")
    ('Which colour?', ('red', 'blue'))
    >>> split_options("How many (A) are there?")
    ('How many (A) are there?', ())
    """
    for marker in _MARKERS:
        found = list(marker.finditer(text))
        letters = "".join(match[1] for match in found)
        if len(found) < 2 or not ascii_uppercase.startswith(letters):
            continue
        ends = [match.start() for match in found[1:]] + [len(text)]
        options = [text[match.end() : end].strip() for match, end in zip(found, ends, strict=True)]
        options[-1] = options[-1].partition("\n")[0].strip()
        question = re.sub(r"(?:^|\n)\s*(?:Options|Choices)\s*:\s*$", "", text[: found[0].start()].rstrip())
        if all(options) and question.strip():
            return question.strip(), tuple(options)
    return text.strip(), ()


def bare_options(options: Sequence[str]) -> tuple[str, ...]:
    """Strip the letters of options written ``"A. red"`` or ``"(A) red"``; others come back as they are.

    >>> bare_options(["A. red", "B. blue"]), bare_options(["A dog", "Two dogs"])
    (('red', 'blue'), ('A dog', 'Two dogs'))
    """
    bare = []
    for letter, option in zip(ascii_uppercase, options, strict=False):
        match = re.match(rf"\s*(?:\({letter}\)|{letter}[.):])\s*(?=\S)", option)
        if match is None:
            return tuple(options)
        bare.append(option[match.end() :].strip())
    return tuple(bare)


def unboxed(answer: str) -> str:
    r"""Take an answer out of ``\boxed{}`` or ``<answer>``.

    >>> unboxed(r"\boxed{B}"), unboxed("<answer>3</answer>"), unboxed("plain")
    ('B', '3', 'plain')
    """
    action = parse(answer)
    return action.text.strip() if isinstance(action, Answer) else answer.strip()


def option_of(answer: str, choices: Sequence[str]) -> str | None:
    """Return the option that an answer names by its letter or its text, None if it names none.

    >>> option_of("B", ["red", "blue"]), option_of("(b)", ["red", "blue"]), option_of("Red", ["red", "blue"])
    ('blue', 'blue', 'red')
    """
    by_text = [choice for choice in choices if normalise(choice) == normalise(answer)]
    if len(by_text) == 1:
        return by_text[0]
    letter = re.fullmatch(r"\(?([A-Za-z])\)?[.:]?", answer.strip())
    index = ascii_uppercase.index(letter[1].upper()) if letter else len(choices)
    return choices[index] if index < len(choices) else None


def shuffled(choices: Sequence[str], seed: int, row: int) -> tuple[str, ...]:
    """Return the options in an order that is a function of (seed, row): for files that list the right one first."""
    order = np.random.default_rng([seed, row]).permutation(len(choices))
    return tuple(choices[index] for index in order)


def answer_kind(answers: Sequence[str]) -> str:
    """Return ``"number"`` if every answer is one, else ``"text"``.

    >>> answer_kind(["7"]), answer_kind(["7", "seven dogs"])
    ('number', 'text')
    """
    return "number" if answers and all(_NUMBER.fullmatch(answer) for answer in answers) else "text"
