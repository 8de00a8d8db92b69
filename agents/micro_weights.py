"""How much each character of an answer weighs when the micro base learns it: what was looked up, far above the rest.

An answer of a lesson is mostly words that follow from the question and from each other: over all of them alike the loss
is low, and the share of predicted tokens high, of a model that has found nothing in the picture.
"""

import re
from typing import Any

from pixel_env.tasks.drawing import COLOUR_NAMES, SHAPES
from pixel_env.tasks.scenes import RELATIONS

LEADING, LOOKED_UP, END, FOLLOWING, WORD = 5.0, 3.0, 2.0, 1.0, 0.5
"""Weight of a value's first character, from which all other digits of a box follow; of what else was looked up: further
characters of a string, names and directions that the question does not tell, and a boxed answer at least (to carry over
what was said before is learned late); of what follows a value or a name, which says whether there is another one, and
of a name that the question tells, which is to be copied (a box drawn for another name is wrong however well it fits);
of further digits; of all else. Words need their tenth: guessing what will be named is how a fresh model begins to
attend to image tokens."""
BOX = "\\boxed{"
_VALUES = re.compile(r"(?<!\": )\b[A-Z0-9]+(?:,? [A-Z0-9]+)*\b")  # numbers behind a key say which image, not where
_ENTRIES = re.compile(r'(?:frames|rows|points)": \[$')
_NAMES = re.compile(rf"\b(?:{'|'.join((*COLOUR_NAMES, 'white'))}) (?:{'|'.join((*SHAPES, 'panel'))})(?: tray)?\b")
_SAID = re.compile(rf"\b(?:{'|'.join(RELATIONS)}|nothing)\b")


def character_weights(question: str, answer: str, any_name: bool = False) -> list[float]:
    """The weight of each character of an answer.

    Args:
        question: What was asked: a name in it is copied, not looked up.
        answer: What was answered.
        any_name: Whether things are named in any order, so that no name can be looked up.

    >>> character_weights("Read: red star.", "the red star K")[-3:]
    [2.0, 2.0, 5.0]
    >>> character_weights("Which?", "red star")[-1], character_weights("Is it the red star?", "red star")[-1]
    (3.0, 2.0)
    """
    weights = [WORD] * len(answer)

    def raise_to(weight: float, start: int, end: int) -> None:
        weights[start:end] = [max(weight, one) for one in weights[start:end]]

    for found in _VALUES.finditer(answer):
        before = answer[: found.start()]
        box = before.endswith("[") and not _ENTRIES.search(before)  # of a box four numbers are known to follow
        raise_to(FOLLOWING if box else END, found.start(), found.end() + 1)
        raise_to(LEADING, found.start(), found.start() + 1)
        for value in re.finditer(r"[A-Z]\w*", found[0]):
            raise_to(LOOKED_UP, found.start() + value.start(), found.start() + value.end())
    for pattern in () if any_name else (_NAMES, _SAID):
        for found in pattern.finditer(answer):
            raise_to(END, found.start(), found.end() + 1)
            if pattern is _SAID or found[0] not in question:  # a direction among the choices tells nothing
                raise_to(LOOKED_UP, *found.span())
    if BOX in answer:
        raise_to(LOOKED_UP, answer.index(BOX) + len(BOX), len(answer) - 1)
    return weights


def token_weights(tokenizer: Any, question: str, answer: str, any_name: bool = False) -> list[float]:
    """The weight of each token of an answer: that of its heaviest character; a word's for the end of the message."""
    weights = character_weights(question, answer, any_name)
    offsets = tokenizer(answer, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    return [*(max(weights[start:end], default=WORD) for start, end in offsets["offset_mapping"]), WORD]
