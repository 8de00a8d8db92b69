"""The grader: tables of answers with the reason beside each, and every procedural suite accepts its own gold."""

import time

import numpy as np
import pytest
from fakes import image_task
from hypothesis import given, settings
from hypothesis import strategies as st

from pixel_env.actions import Answer, parse
from pixel_env.grading import anls, grade, grade_choice, grade_number, grade_spans, grade_text, grade_value, normalise
from pixel_env.policies import gold
from pixel_env.tasks import SUITES, ProceduralTasks, Task

RIGHT, WRONG, UNREADABLE = "right", "wrong", "unreadable"
KINDS = ("number", "text", "spans")  # those that need no math-verify
COLOURS = ("red car", "blue car", "a green car", "none")

CHOICE = [  # the right option is (B) blue car
    ("B", RIGHT),  # the letter
    ("b", RIGHT),  # alone, its case does not matter
    ("(B)", RIGHT),  # in brackets
    ("[b].", RIGHT),  # other brackets, full stop
    ("B.", RIGHT),  # full stop
    ("B)", RIGHT),  # half a bracket
    ("B: blue car", RIGHT),  # letter and its text
    ("(B) blue car", RIGHT),  # letter and its text
    ("B. because of the sign", RIGHT),  # letter set off, then words
    ("blue car", RIGHT),  # exactly the text
    ("Blue  Car.", RIGHT),  # but for case, spaces and a full stop
    (r"\text{(B)}", RIGHT),  # LaTeX
    (r"\mathrm{\text{B}}", RIGHT),  # LaTeX in LaTeX
    ("$B$", RIGHT),  # math mode
    ("**B**", RIGHT),  # Markdown
    ("The answer is B", RIGHT),  # a phrase before the letter
    ("Option (B)", RIGHT),  # likewise
    ("answer: blue car", RIGHT),  # a phrase before the text
    ("A", WRONG),  # another letter
    ("red car", WRONG),  # another text
    ("C. A blue car", UNREADABLE),  # two letters of options: never guess
    ("A blue car", UNREADABLE),  # the article trap: A is not set off, and this is no option's text
    ("a green car", WRONG),  # an option that begins with the article is matched as text
    ("blue", UNREADABLE),  # part of an option's text is a guess
    ("the blue car", UNREADABLE),  # more than an option's text
    ("car blue", UNREADABLE),  # words in another order
    ("rac eulb", UNREADABLE),  # anagram
    ("B or C", UNREADABLE),  # undecided
    ("B, C", UNREADABLE),  # undecided
    ("(B) or (C)", UNREADABLE),  # undecided
    ("B. red car", UNREADABLE),  # the letter and the text disagree
    ("E", UNREADABLE),  # no such option
    ("", UNREADABLE),  # empty
    ("I don't know", UNREADABLE),  # nothing
    ("Be quick", UNREADABLE),  # a word that begins with the letter
    ("B" * 3000, UNREADABLE),  # too long
]


@pytest.mark.parametrize(("answer", "verdict"), CHOICE)
def test_choice(answer: str, verdict: str) -> None:
    result = grade_choice(answer, ["blue car"], COLOURS)
    assert (result.correct, result.parse_failure) == (verdict == RIGHT, verdict == UNREADABLE)
    assert result.score == float(result.correct)


NUMBER = [  # the right number is 7
    ("7", RIGHT),  # digits
    (" 7 ", RIGHT),  # spaces
    ("7.", RIGHT),  # full stop
    ("7.0", RIGHT),  # the same number
    ("07", RIGHT),  # the same number
    ("+7", RIGHT),  # the same number
    ("seven", RIGHT),  # word
    ("Seven", RIGHT),  # its case does not matter
    ("7 dogs", RIGHT),  # words around
    ("There are seven dogs.", RIGHT),  # a sentence
    ("7 (seven)", RIGHT),  # the same number twice
    (r"\text{7}", RIGHT),  # LaTeX
    ("$7$", RIGHT),  # math mode
    ("\uff17", RIGHT),  # full-width digit
    ("8", WRONG),  # another number
    ("-7", WRONG),  # sign
    ("\u22127", WRONG),  # typographic minus
    ("17", WRONG),  # holds the digit
    ("0.7", WRONG),  # holds the digit
    ("twenty", WRONG),  # another word
    ("7 or 8", UNREADABLE),  # two numbers
    ("3 + 4", UNREADABLE),  # nothing is computed
    ("7/1", UNREADABLE),  # nothing is computed
    ("2009-2013", UNREADABLE),  # a range is no difference
    ("twenty-one", WRONG),  # 21, and not 20 or 1
    ("twenty one", WRONG),  # likewise
    ("seventy-seven", WRONG),  # holds the word
    ("seven hundred", UNREADABLE),  # words are read up to 99, and this is not 7
    ("seven and a half", UNREADABLE),  # nor this
    ("no one", UNREADABLE),  # and this is not 1
    ("none", UNREADABLE),  # may mean 0, or that nothing was found
    ("**7**", RIGHT),  # Markdown
    ("7th", UNREADABLE),  # a digit within a word
    ("B7", UNREADABLE),  # a digit within a word
    ("1.2.7", UNREADABLE),  # a version
    ("1,7", UNREADABLE),  # not a thousand
    ("neves", UNREADABLE),  # anagram
    ("sevenths", UNREADABLE),  # a longer word
    ("many", UNREADABLE),  # no number
    ("", UNREADABLE),  # empty
]


@pytest.mark.parametrize(("answer", "verdict"), NUMBER)
def test_number(answer: str, verdict: str) -> None:
    result = grade_number(answer, ["7"])
    assert (result.correct, result.parse_failure) == (verdict == RIGHT, verdict == UNREADABLE)
    assert result.score == float(result.correct)


def test_number_words_and_thousands() -> None:
    words = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    for number, word in enumerate([*words.split(), "seventeen", "eighteen", "nineteen", "twenty"]):
        assert grade_number(word, [str(number)]).correct
    assert grade_number("1,200", ["1200"]).correct
    assert grade_number("12,345,678", ["12345678"]).correct


def test_number_words_to_ninety_nine() -> None:
    tens = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
    units = ("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    for number in range(20, 100):
        ten, unit = tens[number // 10 - 2], units[number % 10]
        for word in {f"{ten}-{unit}".strip("-"), f"{ten} {unit}".strip()}:
            assert grade_number(f"There are {word}.", [str(number)]).correct, word


VALUE = [  # (answer, accepted, verdict)
    ("0.5", r"\frac{1}{2}", RIGHT),  # LaTeX against digits
    ("1/2", "0.5", RIGHT),  # a fraction in digits
    (r"\dfrac{2}{4}", "0.5", RIGHT),  # not reduced
    ("$0.5$", "0.5", RIGHT),  # math mode
    ("0.5.", "0.5", RIGHT),  # full stop
    ("50%", "0.5", RIGHT),  # a percentage is its fraction
    (r"50\%", "50", RIGHT),  # and its number, as math-verify has it
    ("1,200", "1200", RIGHT),  # thousands
    (r"3 \times 10^5", "300000", RIGHT),  # a product with its sign, a power
    (r"\sqrt{4}", "2", RIGHT),  # a root
    (r"2\pi", "6.283185", RIGHT),  # six decimals
    ("\u22125", "-5", RIGHT),  # typographic minus
    ("3.14", r"\pi", WRONG),  # two decimals
    ("5", "-5", WRONG),  # sign
    ("0.33", r"\frac{1}{3}", WRONG),  # rounded
    ("1/0", "3", WRONG),  # no number equals it
    ("-4", "2013", WRONG),  # another number
    ("2009-2013", "-4", UNREADABLE),  # a range is no difference
    ("3 + 4", "7", UNREADABLE),  # a sum
    ("1 2", "3", UNREADABLE),  # math-verify alone reads 3
    ("1 1/2", "1.5", UNREADABLE),  # mixed numbers are not guessed
    ("1, 2", "2", UNREADABLE),  # two values
    ("x", "3", UNREADABLE),  # a letter
    ("tea", "3", UNREADABLE),  # math-verify alone reads a product of letters
    ("5 dogs", "5", UNREADABLE),  # units are for "number"
    ("five", "5", UNREADABLE),  # words too
    ("..", "3", UNREADABLE),  # no digit
    ("", "3", UNREADABLE),  # nothing
    ("7" * 3000, "7", UNREADABLE),  # too long for `grade`, and here for nothing
]


@pytest.mark.parametrize(("answer", "accepted", "verdict"), VALUE)
def test_value(answer: str, accepted: str, verdict: str) -> None:
    pytest.importorskip("math_verify")
    result = grade(value_task(accepted), answer)
    assert (result.correct, result.parse_failure) == (verdict == RIGHT, verdict == UNREADABLE)
    assert result.score == float(result.correct)


def value_task(*answers: str) -> Task:
    return image_task(answer_kind="value", answers=answers, choices=())


def test_value_of_several_accepted() -> None:
    pytest.importorskip("math_verify")
    assert grade_value("0.25", ["0.2", r"\frac{1}{4}"]).correct
    assert not grade_value("0.3", ["0.2", r"\frac{1}{4}"]).correct


def test_what_is_no_value_needs_no_math_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixel_env.grading.compare", None)
    assert grade_value("tea", ["3"]).parse_failure


def test_a_comparison_given_up_is_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixel_env.grading.compare", lambda gold, answer: "gave up")
    assert grade_value("9^{9^9}", ["3"]).parse_failure


def test_the_accepted_value_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("pixel_env.grading.compare", lambda *texts: asked.append(texts) or "different")
    grade_value("2", ["1"])
    assert asked == [(r"\boxed{1}", r"\boxed{2}")]


TEXT = [  # the accepted strings are "facebook" and "New York"; scores by hand
    ("facebook", True, 1.0),  # equal
    ("Facebook", True, 1.0),  # case
    ("facebook.", True, 1 - 1 / 9),  # a full stop is right, and costs what ANLS takes for it
    ('"facebook"', True, 1 - 2 / 10),  # quotes likewise
    (r"\text{facebook}", True, 1.0),  # LaTeX
    ("new  york", True, 1.0),  # spaces
    ("facebok", False, 1 - 1 / 8),  # one letter missing of eight
    ("facebooks", False, 1 - 1 / 9),  # one too many, of nine
    ("face", False, 0.0),  # half is missing: exactly 0.5 scores nothing
    ("york new", False, 0.0),  # words in another order: distance 8 of 8
    ("kobecafo", False, 0.0),  # anagram
    ("newyork", False, 1 - 1 / 8),  # the space counts
]


@pytest.mark.parametrize(("answer", "correct", "score"), TEXT)
def test_text(answer: str, correct: bool, score: float) -> None:
    result = grade_text(answer, ["facebook", "New York"])
    assert (result.correct, result.parse_failure) == (correct, False)
    assert result.score == pytest.approx(score)


def test_text_of_odd_characters_equals_itself() -> None:
    for text in ("10 m\u00b2", "\u00bd cup", "caf\u00e9\u2122", "stra\u00dfe", "\uff17", r"50\%", "$5"):
        assert grade_text(text, [text.replace("\\", "")]).score == 1.0


@pytest.mark.parametrize("answer", ["", "  ", ".", '""', r"\text{}"])
def test_text_of_nothing_is_unreadable(answer: str) -> None:
    assert grade_text(answer, ["facebook"]).parse_failure


ANLS = [  # (answer, accepted, value by hand); strict: a normalised distance of 0.5 gives 0
    ("abc", ["abc"], 1.0),
    ("ABC ", ["abc"], 1.0),  # case, spaces
    ("ab", ["ac"], 0.0),  # 1 of 2
    ("abcd", ["ab"], 0.0),  # 2 of 4
    ("abc", ["abd"], 2 / 3),  # 1 of 3
    ("abcde", ["abc"], 0.6),  # 2 of 5
    ("", ["abc"], 0.0),  # 3 of 3
    ("", [""], 1.0),  # two empty strings are equal
    ("kitten", ["sitting"], 4 / 7),  # 3 of 7, the textbook pair
    ("abc", ["xyz", "abd"], 2 / 3),  # the best of several
    ("a\n b", ["a b"], 1.0),  # white space
]


@pytest.mark.parametrize(("answer", "accepted", "value"), ANLS)
def test_anls(answer: str, accepted: list[str], value: float) -> None:
    assert anls(answer, accepted) == pytest.approx(value)


def slow_levenshtein(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        row, above = [i], row
        for j, y in enumerate(b, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (x != y)))
    return row[-1]


@settings(deadline=None)
@given(st.text(alphabet="abC", max_size=8), st.text(alphabet="abC", min_size=1, max_size=8))
def test_anls_equals_a_slow_version(a: str, b: str) -> None:
    distance = slow_levenshtein(a.lower(), b.lower()) / max(len(a), len(b))
    assert anls(a, [b]) == pytest.approx(1 - distance if distance < 0.5 else 0.0)


def test_anls_equals_the_package() -> None:
    reference = pytest.importorskip("anls").anls_score
    rng = np.random.default_rng(0)
    letters = np.array(list("abcABC 1.\té\u00df\u4e2d"))
    for _ in range(5000):
        answer, *accepted = ("".join(rng.choice(letters, size=rng.integers(9))) for _ in range(rng.integers(2, 5)))
        assert anls(answer, accepted) == pytest.approx(reference(answer, accepted), abs=1e-12), (answer, accepted)


@settings(deadline=None)
@given(st.text(max_size=12), st.lists(st.text(max_size=12), min_size=1, max_size=3))
def test_anls_equals_the_package_on_any_text(answer: str, accepted: list[str]) -> None:
    reference = pytest.importorskip("anls").anls_score
    assert anls(answer, accepted) == pytest.approx(reference(answer, accepted), abs=1e-12)


SPANS = [  # the accepted list is "red, blue"
    ("red, blue", True),  # equal
    ("Blue,red", True),  # order, case, space
    ("red; blue", True),  # semicolons
    ("red\nblue", True),  # lines
    ("red", False),  # one is missing
    ("red, blue, green", False),  # one too many
    ("red, red, blue", False),  # twice
    ("redblue", False),  # no separator
    ("red and blue", False),  # "and" may be part of a span
]


@pytest.mark.parametrize(("answer", "correct"), SPANS)
def test_spans(answer: str, correct: bool) -> None:
    assert grade_spans(answer, ["red, blue"]).correct == correct


def test_spans_keep_thousands_together() -> None:
    assert grade_spans("2,000; 1,500", ["1,500, 2,000"]).correct
    assert grade_spans("2013,2009", ["2009, 2013"]).correct  # four digits after a comma are no thousand
    assert not grade_spans("1,500", ["1, 500"]).correct


def test_equal_options_are_equally_right() -> None:
    assert all(grade_choice(letter, ["red"], ["red", "blue", "Red"]).correct for letter in "AC")
    assert grade_choice("red", ["red"], ["red", "blue", "Red"]).parse_failure  # which one?


def test_normalise_composes_unicode() -> None:
    assert normalise("Cafe\u0301") == normalise("CAF\u00c9")


@settings(deadline=None)
@given(st.text(max_size=50))
def test_grading_is_total_and_deterministic(answer: str) -> None:
    for result in (
        lambda: grade_choice(answer, ["blue car"], COLOURS),
        lambda: grade_number(answer, ["7"]),
        lambda: grade_text(answer, ["facebook"]),
        lambda: grade_spans(answer, ["red, blue"]),
        lambda: grade(image_task(), answer),
    ):
        verdict = result()
        assert verdict == result()
        assert 0.0 <= verdict.score <= 1.0
        assert not (verdict.parse_failure and (verdict.correct or verdict.score))


@pytest.mark.parametrize("piece", ["7", "7,", "B", "(", r"\text{", " ", "a b", "-", "\ufdfa", "seven ", "$", "*"])
def test_long_answers_return_fast(piece: str) -> None:
    answer = piece * (10_000_000 // len(piece))
    began = time.perf_counter()
    for kind in ("number", "value", "text", "spans"):
        assert grade(image_task(answer_kind=kind, answers=("7",), choices=()), answer).parse_failure
    assert grade(image_task(), answer).parse_failure
    short = piece * (2000 // len(piece))  # the longest that is read
    for task in (image_task(), *(image_task(answer_kind=kind, answers=("7",), choices=()) for kind in KINDS)):
        grade(task, short)
    assert time.perf_counter() - began < 5.0  # quadratic work on the ten million would take hours


def task_of(index: int, suite: str) -> Task:
    return ProceduralTasks((suite,), preset="micro")[index]


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("index", range(12))
def test_a_suite_accepts_its_gold_and_rejects_a_near_miss(suite: str, index: int) -> None:
    task = task_of(index, suite)
    best = grade(task, gold(task))
    assert best.correct and best.score == 1.0
    if task.answer_kind == "choice":
        assert all(grade(task, text).correct == (text in task.answers) for text in task.choices)
    elif task.answer_kind == "number":
        assert not grade(task, str(int(task.answers[0]) + 1)).correct
    else:
        near = grade(task, task.answers[0] + "x")
        assert not near.correct and 0.0 < near.score < 1.0


@pytest.mark.parametrize("suite", SUITES)
def test_the_gold_survives_the_box(suite: str) -> None:
    task = task_of(0, suite)
    assert parse(f"\\boxed{{{gold(task)}}}") == Answer(gold(task))


def test_tasks_that_contradict_themselves() -> None:
    with pytest.raises(ValueError, match="accepted answer among the choices"):
        grade_choice("A", ["yellow"], COLOURS)
    with pytest.raises(ValueError, match="every accepted answer to be one number"):
        grade_number("7", ["a few"])
    with pytest.raises(ValueError, match="every accepted answer to be one value"):
        grade_value("7", ["x + 1"])
