"""The released scorer's verdicts: a table with the oddity beside each string."""

import importlib.util
import time

import pytest
from fakes import image_task, video_task
from hypothesis import given, settings
from hypothesis import strategies as st

from pixel_env.released_grading import grade_released, released_verdict

if not importlib.util.find_spec("math_verify"):
    pytest.skip("needs math-verify", allow_module_level=True)

RIGHT, WRONG, UNREADABLE = 1, 0, -1

# Each row agrees with the released functions themselves, run with math-verify 0.9.0.
VERDICTS = [  # (response, accepted, verdict)
    (r"\boxed{(A)}", "A", RIGHT),  # brackets
    (r"\boxed{a}", "A", RIGHT),  # all is lower-cased
    (r"\boxed{\text{A}}", "A", RIGHT),  # LaTeX
    (r"\boxed{\textbf{A}}", "A", WRONG),  # "\text" is cut out of "\textbf"
    (r"\boxed{A. rubber}", "A", WRONG),  # a letter with its text: the branch for letters never runs
    (r"\boxed{A: Lion}", "A", WRONG),  # likewise
    (r"\boxed{A.}", "A", WRONG),  # likewise
    (r"\boxed{B}", "A", WRONG),  # another letter
    ("It is A", "A", UNREADABLE),  # no box, no number
    (r"\boxed{5 dogs}", "5", WRONG),  # words around a number
    (r"\boxed{five}", "5", WRONG),  # a number word
    (r"\boxed{7 cm}", "7", RIGHT),  # two units are cut out
    (r"\boxed{$5}", "5", RIGHT),  # likewise
    (r"\boxed{12,000}", "12000", RIGHT),  # likewise
    (r"\boxed{45\%}", "45", RIGHT),  # likewise
    (r"\boxed{43}", "43%", RIGHT),  # tried without the percent sign first
    (r"\boxed{0.43}", "43%", RIGHT),  # and as a fraction
    (r"\boxed{york new}", "new york", RIGHT),  # words are products of letters: any anagram
    (r"\boxed{eat}", "tea", RIGHT),  # likewise
    (r"\boxed{listen}", "silent", RIGHT),  # likewise
    (r"\boxed{dog}", "god", WRONG),  # but not all of them
    (r"\boxed{facebook.}", "facebook", WRONG),  # a full stop
    (r"\boxed{siege of krishnapur}", "the siege of krishnapur", WRONG),  # an article; ANLS is not used
    (r"\boxed{-4}", "2009-2013", RIGHT),  # a range is a difference
    (r"\boxed{2009-2013}", "2009-2013", RIGHT),  # also for itself
    (r"\boxed{red, blue, green}", "red, blue", RIGHT),  # a superset of the pieces
    (r"\boxed{x}: troubles, then the siege", "troubles, the siege", RIGHT),  # pieces anywhere after the last "boxed"
    (r"troubles, the siege \boxed{x}", "troubles, the siege", WRONG),  # not before it
    (r"\boxed{21200}", "1,200", RIGHT),  # a thousand is a list of pieces, and both occur in 21200
    (r"\boxed{8} then \boxed{7}", "7", RIGHT),  # the last box
    (r"\boxed{7} then \boxed{8}", "7", WRONG),  # the first box is not looked at
    ("<answer>7</answer>", "7", RIGHT),  # the tag
    (r"\boxed{8}, <answer>7</answer>", "7", RIGHT),  # the tag saves a wrong box
    ("<answer>7\n</answer> 8", "7", WRONG),  # the tag must be on one line; the last number of the text is 8
    ("the answer is 7", "7", RIGHT),  # no box: the last number
    ("I counted 3 and 4", "4", RIGHT),  # likewise
    ("I counted 4 and 3", "4", WRONG),  # and not the others
    (r"\boxed{}", "A", UNREADABLE),  # an empty box
    (r"\boxed{7", "7", UNREADABLE),  # an open box
    ("", "7", UNREADABLE),  # nothing
    (r"\boxed{7}", "", UNREADABLE),  # the accepted answer cannot be read
    ("7" * 10_000_000, "7", UNREADABLE),  # ten million digits
]


@pytest.mark.parametrize(("response", "accepted", "verdict"), VERDICTS, ids=lambda value: str(value)[:40])
def test_verdicts(response: str, accepted: str, verdict: int) -> None:
    assert released_verdict(response, [accepted]) == verdict
    assert released_verdict(response, [f"\\boxed{{{accepted}}}"]) == verdict  # as the released data writes it


def test_any_accepted_answer_counts() -> None:
    assert released_verdict(r"\boxed{7}", ["8", "7"]) == RIGHT
    assert released_verdict(r"\boxed{6}", ["8", "7"]) == WRONG
    assert released_verdict(r"\boxed{6}", ["8", ""]) == UNREADABLE  # the last one decides
    with pytest.raises(ValueError, match="at least one accepted answer"):
        released_verdict(r"\boxed{6}", [])


def test_choice_tasks_accept_the_letter_alone() -> None:
    task = image_task(choices=("red", "blue"), answers=("blue",))
    assert grade_released(task, [r"\boxed{B}"]).correct
    assert not grade_released(task, [r"\boxed{blue}"]).correct


def test_choice_tasks_whose_file_states_the_text_accept_that() -> None:
    task = image_task(stated=("blue",))
    assert [grade_released(task, [rf"\boxed{{{answer}}}"]).correct for answer in ("blue", "B")] == [True, False]


def test_grades_read_every_turn() -> None:
    task = video_task(answers=("3",))
    assert grade_released(task, ["I see 3", "<tool_call>"]).correct  # an earlier turn, without a box
    assert grade_released(task, [r"\boxed{3}", r"\boxed{4}"]).score == 0.0
    nothing = grade_released(task, ["no idea"])
    assert (nothing.correct, nothing.score, nothing.parse_failure) == (False, 0.0, True)


def test_the_answer_takes_the_place_of_the_accepted_one() -> None:
    # math-verify reads an inequality as an interval in its first argument only, which is for the accepted answer.
    assert released_verdict(r"\boxed{1 < x < 2}", ["(1,2)"]) == RIGHT
    assert released_verdict(r"\boxed{(1,2)}", ["1 < x < 2"]) == WRONG


@pytest.mark.parametrize("piece", ["<answer>", "\\boxed{", "7,", "(", "$", "boxed", "\\frac{"])
def test_long_responses_return_fast(piece: str) -> None:
    began = time.perf_counter()
    released_verdict(piece * (10_000_000 // len(piece)), ["a, b"])
    assert time.perf_counter() - began < 20.0  # math-verify may take its 5 s for each text


@settings(deadline=None, max_examples=100)
@given(st.one_of(st.text(max_size=60), st.text("\\boxed{}<answer>/,%$^0123ab ", max_size=60)))
def test_any_text_gets_a_verdict(response: str) -> None:
    assert released_verdict(response, ["7", "red, blue"]) in (RIGHT, WRONG, UNREADABLE)
