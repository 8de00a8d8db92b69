r"""Is the answer right? One deterministic rule per answer kind.

An answer that cannot be read is wrong and counted as a parse failure; it is never guessed and never dropped.
Strings are compared as strings: only a value is evaluated, and only in `equivalence`'s child process, so anagrams and
arithmetic do not match.

| kind   | correct                                                               | score         |
|--------|-----------------------------------------------------------------------|---------------|
| choice | the letter of the right option, or exactly its text                   | 1 if correct  |
| number | the only number of the answer, in digits or as a word up to 99        | 1 if correct  |
| value  | one value in digits or LaTeX, equal by math-verify (an extra)          | 1 if correct  |
| text   | equal to an accepted string, but for case, spaces, quotes, a full stop | ANLS, strict |
| spans  | the same comma-separated pieces as an accepted string, in any order   | ANLS, strict  |

A value is for tasks that say so, as a line of our JSON Lines may: the published sets state plain numbers, and a
number is read among words.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TYPE_CHECKING

from rapidfuzz.distance import Levenshtein

from pixel_env.equivalence import compare
from pixel_env.numerals import one_value, only_number

if TYPE_CHECKING:
    from pixel_env.tasks import Task

MAX_CHARACTERS = 2000  # a longer answer is unreadable; bounds the work of every rule below


@dataclass(frozen=True)
class Grade:
    """The verdict on one answer.

    Attributes:
        correct: right or wrong; the reward.
        score: the metric of the task's kind, in [0, 1].
        parse_failure: no answer of the task's kind could be read.
    """

    correct: bool
    score: float
    parse_failure: bool


_UNREADABLE = Grade(correct=False, score=0.0, parse_failure=True)


def grade(task: "Task", answer: str) -> Grade:
    """Grade an answer to a task.

    Args:
        task: holds the accepted `answers`, the `answer_kind` and the `choices`.
        answer: what stood in the box.

    Raises:
        ValueError: if the task has no answers, or they contradict its kind.
    """
    if not task.answers:
        raise ValueError(f"expected a task with answers, got {task.task_id!r}, of which no answer can be graded")
    if len(answer) > MAX_CHARACTERS:
        return _UNREADABLE
    if task.answer_kind == "choice":
        return grade_choice(answer, task.answers, task.choices)
    if task.answer_kind == "number":
        return grade_number(answer, task.answers)
    if task.answer_kind == "value":
        return grade_value(answer, task.answers)
    if task.answer_kind == "text":
        return grade_text(answer, task.answers)
    if task.answer_kind == "spans":
        return grade_spans(answer, task.answers)
    raise ValueError(f"expected answer_kind choice, number, value, text or spans, got {task.answer_kind!r}")


# --- multiple choice --------------------------------------------------------------------------------------------------

_PREFIX = re.compile(
    r"^(?:the )?(?:(?:correct|final|best) )?(?:answer|option|choice)(?: is)?(?:\s*:)?\s+", re.IGNORECASE
)
_LETTER = re.compile(
    r"""^(?: [(\[] \s* (?P<wrapped>[A-Za-z]) \s* [)\]] [.:,]?   # (A)  [A]  (A).
          | (?P<delimited>[A-Z]) \s? [.):] (?=\s|$)             # A.  A)  A:   and not "A red car"
          | (?P<bare>[A-Za-z]) [.):]? $                         # A  a  a.
        ) \s*""",
    re.VERBOSE,
)


def grade_choice(answer: str, answers: Sequence[str], choices: Sequence[str]) -> Grade:
    """Grade a multiple-choice answer, by letter or by the exact text of an option.

    A letter counts when it stands alone or is set off by a delimiter, so the article of "A red car" is no letter.
    A letter followed by the text of another option, or by another letter, is unreadable.

    Args:
        answer: the answer, for example "B", "(B)", "B. red" or "red".
        answers: accepted option texts.
        choices: option texts in the order (A), (B), ...; at most 26.

    >>> grade_choice("(B) blue", ["blue"], ["red", "blue"]).correct
    True
    >>> grade_choice("A blue car", ["blue"], ["red", "blue"]).parse_failure
    True
    """
    options = [normalise(choice) for choice in choices]
    right = {normalise(text) for text in answers}
    accepted = {index for index, option in enumerate(options) if option in right}
    if not accepted:
        raise ValueError(f"expected an accepted answer among the choices {tuple(choices)}, got {tuple(answers)}")
    chosen = _chosen_option(answer, options)
    if chosen is None:
        return _UNREADABLE
    return Grade(chosen in accepted, float(chosen in accepted), parse_failure=False)


def _chosen_option(answer: str, options: list[str]) -> int | None:
    text = _PREFIX.sub("", _unwrap(answer), count=1)
    match = _LETTER.match(text)
    if match is None:
        return _only_index(options, normalise(text))
    letter = ascii_uppercase.index((match["wrapped"] or match["delimited"] or match["bare"]).upper())
    rest = text[match.end() :]
    if letter >= len(options):
        return _only_index(options, normalise(text))
    if not rest or normalise(rest) == options[letter]:
        return letter
    others = {ascii_uppercase.index(other) for other in re.findall(r"\b[A-Z]\b", rest)} - {letter}
    names_another = any(other < len(options) for other in others) or normalise(rest) in options
    return None if names_another else letter


def _only_index(options: list[str], text: str) -> int | None:
    return options.index(text) if options.count(text) == 1 else None


# --- numbers ----------------------------------------------------------------------------------------------------------


def grade_number(answer: str, answers: Sequence[str]) -> Grade:
    """Grade a number: the answer must name exactly one, in digits or as a word from zero to ninety-nine.

    Words around it are allowed ("5 dogs"); two different numbers are unreadable.

    Args:
        answer: the answer.
        answers: accepted numbers, as strings.

    >>> grade_number("seven", ["7"]).correct
    True
    >>> grade_number("3 or 4", ["4"])
    Grade(correct=False, score=0.0, parse_failure=True)
    """
    accepted = {only_number(_unwrap(text)) for text in answers}
    if None in accepted:
        raise ValueError(f"expected every accepted answer to be one number, got {tuple(answers)}")
    number = only_number(_unwrap(answer))
    if number is None:
        return _UNREADABLE
    return Grade(number in accepted, float(number in accepted), parse_failure=False)


def grade_value(answer: str, answers: Sequence[str]) -> Grade:
    r"""Grade a numeric value in digits or LaTeX: right if math-verify finds it equal to an accepted one.

    math-verify takes the accepted answer first, `verify(gold, answer)`; the released scorer swaps them. Before it runs,
    both must be one value and nothing else, or it would read words as products of letters and ranges as differences.
    Its own rules hold: "43%" equals 43 and 0.43, and six decimals are compared. Needs
    ``pip install "pixel-env[math]"``.

    Args:
        answer: the answer, for example "0.5", "1/2" or "\\frac{1}{2}".
        answers: accepted values, written the same way.

    Raises:
        ImportError: if math-verify is not installed.
        ValueError: if an accepted answer is not one value.
    """
    accepted = [one_value(_unwrap(text)) for text in answers]
    if None in accepted:
        raise ValueError(f"expected every accepted answer to be one value, got {tuple(answers)}")
    value = one_value(_unwrap(answer))
    if value is None:
        return _UNREADABLE
    outcomes = {compare(f"\\boxed{{{gold}}}", f"\\boxed{{{value}}}") for gold in accepted}
    if outcomes <= {"second unreadable", "gave up"}:
        return _UNREADABLE
    return Grade("equal" in outcomes, float("equal" in outcomes), parse_failure=False)


# --- text -------------------------------------------------------------------------------------------------------------


def grade_text(answer: str, answers: Sequence[str]) -> Grade:
    """Grade a short text: correct if equal to an accepted string once normalised; the score is ANLS.

    The two are apart: a full stop or quotes leave an answer correct, and cost what the official ANLS takes off for
    them, which is everything where the answer is as short as they are.

    Args:
        answer: the answer.
        answers: accepted strings.

    >>> grade_text("Facebook", ["facebook"])
    Grade(correct=True, score=1.0, parse_failure=False)
    >>> grade_text("facebok", ["facebook"])
    Grade(correct=False, score=0.875, parse_failure=False)
    """
    text = normalise(answer)
    if not text:
        return _UNREADABLE
    correct = any(text == normalise(accepted) for accepted in answers)
    return Grade(correct, anls(_without_latex(answer), answers), parse_failure=False)


def grade_spans(answer: str, answers: Sequence[str]) -> Grade:
    """Grade a list of short texts separated by commas or semicolons, in any order.

    Args:
        answer: the answer, for example "red, blue".
        answers: accepted lists, each written the same way.

    >>> grade_spans("Blue, red", ["red, blue"]).correct
    True
    >>> grade_spans("red, blue, green", ["red, blue"]).correct  # a superset is not the answer
    False
    """
    return grade_text(_sorted_spans(answer), [_sorted_spans(accepted) for accepted in answers])


def anls(answer: str, answers: Sequence[str]) -> float:
    """Return the average normalised Levenshtein similarity of one question, as DocVQA's official scorer does.

    s = 1 - NL if NL < 0.5 else 0, with NL = Levenshtein(answer, accepted) / max(len(answer), len(accepted)) on
    lower-cased strings with single spaces; the best over the accepted strings. Strict: at NL = 0.5 the score is 0
    (arXiv 1907.00490, section 4). The mean over questions is left to `evaluation`.

    Args:
        answer: the answer.
        answers: accepted strings, at least one.

    >>> anls("abc", ["abcd"]), anls("ab", ["ac"])
    (0.75, 0.0)
    """
    return max(_similarity(_collapse(answer).lower(), _collapse(accepted).lower()) for accepted in answers)


def _similarity(answer: str, accepted: str) -> float:
    # Lengths are those in upper case, as in the official scorer: one more for a German sharp s. Compared as whole
    # numbers, so that a distance of exactly one half is not a matter of rounding.
    distance, longest = Levenshtein.distance(answer, accepted), max(len(answer.upper()), len(accepted.upper()))
    if longest == 0:
        return 1.0
    return 1.0 - distance / longest if 2 * distance < longest else 0.0


def _sorted_spans(text: str) -> str:
    # A comma within a number, as in "1,200", parts nothing; "2009,2013" are two.
    pieces = re.split(r"[;\n]|,(?!(?<=\d,)\d{3}(?!\d))", _unstyle(text))
    return ", ".join(sorted(filter(None, map(normalise, pieces))))


# --- normalisation ----------------------------------------------------------------------------------------------------

_LATEX_STYLE = re.compile(
    r"\\(?:text|textbf|textit|texttt|textrm|mathrm|mathbf|mathit|mathsf|operatorname)\s*\{([^{}]*)\}"
)
_QUOTES = "\"'`\u2018\u2019\u201c\u201d"


def normalise(text: str) -> str:
    r"""Return the text without LaTeX styling, quotes around it and a final full stop, lower-cased, with single spaces.

    >>> normalise(r' \text{New  York}. ')
    'new york'
    """
    text = _unwrap(text).strip(_QUOTES + " ")
    return text.removesuffix(".").strip(_QUOTES + " ").casefold()


def _unwrap(text: str) -> str:
    return _collapse(_unstyle(text))


def _unstyle(text: str) -> str:
    """Remove what a box invites, and compose Unicode (NFKC), so that one character has one spelling."""
    return _without_latex(unicodedata.normalize("NFKC", text))


def _without_latex(text: str) -> str:
    r"""Remove dollar signs, \text{...}, escaped characters and Markdown's asterisks around all of it."""
    for _ in range(3):  # styles within styles
        text = _LATEX_STYLE.sub(r"\1", text)
    text = re.sub(r"\\[ ,;!]", " ", text)
    text = re.sub(r"^\s*\$([^$]*)\$\s*$", r"\1", text)  # $3$, and not the price $3
    text = re.sub(r"^\s*\*\*([^*]*)\*\*\s*$", r"\1", text)  # **3**, as Markdown prints it bold
    return re.sub(r"\\([%$&#_{}])", r"\1", text)


def _collapse(text: str) -> str:
    return " ".join(text.split())
