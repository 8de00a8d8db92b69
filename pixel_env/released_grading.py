r"""The verdicts of Pixel Reasoner's released scorer, oddities included, so that numbers can be set beside the paper's.

Source: `rule_reward` and `handle_boxed` of `experience_maker.py` in github.com/TIGER-AI-Lab/Pixel-Reasoner, in our own
words. Not a scorer to train or to judge by; `pixel_env.grading` is that. What makes it odd:

* everything is lower-cased first, which disables its special case for option letters, so that "B. red" is wrong for B;
* words are read as products of letters, so that anagrams match, and "2009-2013" is -4;
* the accepted answer and the answer change places in math-verify's `verify`;
* no box is needed: if nothing else matched, the whole response is searched, and its last number may be right;
* with a comma in the accepted answer each piece of it need only occur somewhere after the last "boxed";
* ANLS is not used: a text is right or wrong.

Differs from the release: a response is what the policy wrote, without the environment's turns, and of a longer one than
`MAX_CHARACTERS` only the end is read; a comparison that has to be killed counts as unreadable.
"""

from collections.abc import Iterator, Sequence
from string import ascii_uppercase
from typing import TYPE_CHECKING

from pixel_env.equivalence import compare
from pixel_env.grading import Grade, normalise

if TYPE_CHECKING:
    from pixel_env.tasks import Task

MAX_CHARACTERS = 32_768  # the release stops at 8192 tokens
_BOX = "\\boxed"


def grade_released(task: "Task", actions: Sequence[str]) -> Grade:
    """Grade an episode as the release does; -1, where nothing can be read, becomes a parse failure with score 0.

    Args:
        task: holds the accepted `answers`; of a choice task what its file states is accepted, else their letters.
        actions: everything the policy wrote, turn by turn.

    Raises:
        ImportError: if math-verify is not installed.
        ValueError: if the task accepts nothing.
    """
    verdict = released_verdict("\n".join(actions), _accepted(task))
    return Grade(correct=verdict == 1, score=float(verdict == 1), parse_failure=verdict == -1)


def released_verdict(response: str, answers: Sequence[str]) -> int:
    r"""Return 1 (right), 0 (wrong) or -1 (the answer, or the accepted one, cannot be read).

    Args:
        response: what the policy wrote.
        answers: accepted answers, in a ``\boxed{}`` or not.

    Raises:
        ImportError: if math-verify is not installed.
        ValueError: without an accepted answer.
    """
    if not answers:
        raise ValueError("expected at least one accepted answer, got none")
    text = response[-MAX_CHARACTERS:].lower()
    verdict = -1
    for gold in _golds(answers):
        verdict = _verdict(text, gold)
        if verdict == 1 or ("," in gold and _holds_pieces(text, gold)):
            return 1
    return verdict


def _accepted(task: "Task") -> tuple[str, ...]:
    if task.answer_kind != "choice":
        return task.answers
    if task.stated:
        return task.stated
    accepted = {normalise(answer) for answer in task.answers}
    return tuple(
        letter for letter, choice in zip(ascii_uppercase, task.choices, strict=False) if normalise(choice) in accepted
    )


def _golds(answers: Sequence[str]) -> list[str]:
    """Box and lower-case the accepted answers; the first with a percent sign is tried without it before all others."""
    golds = [(answer if _BOX in answer else f"{_BOX}{{{answer}}}").lower() for answer in answers]
    without = next((gold.replace("%", "") for gold in golds if "%" in gold), None)
    return golds if without is None or without in golds else [without, *golds]


def _verdict(text: str, gold: str) -> int:
    outcome = ""
    for candidate in _candidates(text):
        outcome = compare(_stripped(candidate), _stripped(gold))  # the answer first, as in the release
        if outcome == "equal":
            return 1
        if outcome == "second unreadable":
            return -1
    return 0 if outcome == "different" else -1


def _candidates(text: str) -> Iterator[str]:
    """Yield the places where an answer is looked for: the last box, the first answer tag, and the whole text."""
    if (begin := text.rfind(_BOX)) >= 0:
        yield text[begin:].strip()
    for line in text.split("\n"):
        begin = line.find("<answer>")
        end = line.find("</answer>", begin + len("<answer>")) if begin >= 0 else -1
        if end >= 0:
            yield f"{_BOX}{{{line[begin + len('<answer>') : end]}}}"
            break
    yield text


def _stripped(text: str) -> str:
    text = text.replace("dfrac", "frac").replace("\\text", "").replace("\\varnothing", "\\emptyset")
    return text.replace("minutes", "").replace("cm", "")


def _holds_pieces(text: str, gold: str) -> bool:
    begin = text.rfind("boxed")
    pieces = gold[len(_BOX) + 1 : -1].split(",")
    return begin >= 0 and all(piece.strip() in "\\" + text[begin:] for piece in pieces)
