"""What must not stand in a demonstration: an answer before it was looked for, a crop in a question, a second call.

Every rule would rather drop too much than too little: a teacher is asked about another picture for less than a policy
unlearns what it has read.
"""

import re
from string import ascii_uppercase

from pixel_env.actions import Answer, Malformed, parse, render
from pixel_env.grading import normalise
from pixel_env.numerals import numbers_in, only_number
from pixel_env.tasks import Task

_NUMBERED = re.compile(r"\b(?:images?|frames?|pictures?|crops?) (?:\d+(?:(?:,| and|, and| to|-) ?\d+)*)", re.IGNORECASE)
"""Numbers that name a picture: no answer to how many."""

_CROP = re.compile(
    r"\b(?:crop\w*|zoom\w*|magnif\w*|enlarg\w*|close-?ups?|bounding box\w*|cut-?outs?|insets?"
    r"|(?:highlighted|selected|marked|shown|given|chosen|this|second)"
    r" (?:area|region|part|portion|section|patch|image))\b",
    re.IGNORECASE,
)


def gives_away(text: str, task: Task) -> bool:
    """Say whether a text names the right answer of a task, whatever case and spaces.

    Of a choice: the right option, by its text or its letter, and not all the others too. Of a number: that number in
    digits or as a word, but not as the number of an image. Of anything else: an accepted answer, word for word.
    """
    if task.answer_kind == "choice":
        named = {k for k, choice in enumerate(task.choices) if _says(text, choice) or _says_letter(text, k)}
        right = {k for k, choice in enumerate(task.choices) if normalise(choice) in map(normalise, task.answers)}
        return bool(named & right) and len(named) < len(task.choices)
    if task.answer_kind == "number":
        return bool(numbers_in(_NUMBERED.sub(" ", text)) & {only_number(answer) for answer in task.answers})
    return any(_says(text, answer) for answer in task.answers)


def mentions_crop(question: str) -> bool:
    """Say whether a question speaks of a crop, which whoever is asked has not seen.

    >>> mentions_crop("Which colour is the cap in the zoomed view?"), mentions_crop("Which colour is the cap?")
    (True, False)
    """
    return _CROP.search(question) is not None


def acts(remark: str, answer: str) -> bool:
    r"""Say whether a remark would itself be read as a call or an answer, or spoil the one behind it.

    >>> acts(r"So \boxed{A}.", "B"), acts("<tool_call>", "B"), acts("I see a sign.", "B")
    (True, True, False)
    """
    alone, final = parse(remark), Answer(answer)
    if not isinstance(alone, Malformed) or alone.attempted_call:
        return True
    return parse(f"{remark} {render(final)}") != final


def _says(text: str, answer: str) -> bool:
    """Whether the words of an answer stand in a text, one behind the other."""
    wanted = _words(answer)
    return f" {wanted} " in f" {_words(text)} " if wanted else normalise(answer) in normalise(text)


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", normalise(text)))


def _says_letter(text: str, index: int) -> bool:
    letter = ascii_uppercase[index]
    return re.search(rf"\({letter}\)|\b(?:[Oo]ption|[Aa]nswer|[Cc]hoice)(?: is)? {letter}\b", text) is not None


def numbers_an_image(remark: str) -> bool:
    """Say whether a remark calls an image by a number other than 1, which it does not have in every trajectory.

    >>> numbers_an_image("Image 2 shows a cap."), numbers_an_image("Image 1 and frame 3 show a cap.")
    (True, False)
    """
    return re.search(r"\b(?:image|picture|crop)s? (?:number |#)?(?!1\b)\d", remark, re.IGNORECASE) is not None
