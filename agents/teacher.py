r"""A teacher: a model behind an endpoint that is shown pictures and says what they show, as one JSON object a reply.

Nothing of a reply is taken on trust: it is read as JSON, every field is checked, and a reply that is not as asked for
is sent back once with what was wrong. What the fields say is judged elsewhere (`agents.leaks`, `agents.taught`).

The questions follow the paper (arXiv 2505.15966, appendix C): is the image rich enough, and which small part of it is
worth a question; a question about that part that does not mention it; what the whole shows; what the closer look shows.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from agents.api_policy import EndpointPolicy
from agents.replies import Usage
from pixel_env.prompts import IMAGE_MARKER, option_lines, plain
from pixel_env.rollout import Conversation
from pixel_env.tasks import Task

MOST_CHARACTERS = 1500
"""Of one field of a reply."""
MOST_REPLY = 20_000
NUM_CHOICES = 4

SYSTEM = (
    "You help to write examples of reasoning about pictures. Look carefully, say only what you see, and reply with one "
    "JSON object and nothing else."
)

_GUESS = """{shown}
{asked}

Answer from what is shown here alone. Do not guess: if it cannot be made out here, the answer is "unknown".
Reply: {{"answer": "..."}}"""

_WHOLE = """{shown}
{asked}

The evidence is in {place}, and will be looked at more closely in a moment. In one to three sentences, say what the \
{media} shows as a whole, what the question needs, and where to look for it. Do not answer the question, do not name \
or guess any answer, and do not number images.
Then name what to look at as it would stand in "I will zoom in on ...": at most ten words, such as "the sign above the \
door".
Reply: {{"analysis": "...", "target": "..."}}"""

_CLOSER = """{shown}
{closer}
{asked}

In one to three sentences, say what the closer look shows of {target} and what follows for the question. Do not number \
images. Then answer the question{how}.
Reply: {{"analysis": "...", "answer": "..."}}"""

_JUDGE = """Image, {width} pixels wide and {height} high: {marker}

Is this image rich enough to ask about a small detail of it: many objects, some of them small, all of it sharp? If so, \
choose a small part with something definite in it, such as an object, its colour, its material or a text: a box \
[x1, y1, x2, y2] in pixels of the image, left, top, right, bottom, of at most an eighth of its area. Otherwise the box \
is null.
Reply: {{"rich": true or false, "box": [x1, y1, x2, y2] or null}}"""

_QUESTION = """Image: {marker}
A small part of it, larger: {marker}

Write a question with four options about one small thing in that part: what it is, its colour, its material, or what \
is written on it. It is asked about the whole image: say which thing is meant so that no other one could be, and do \
not mention the part, a crop or zooming in. One option is right, the others are plausible and wrong. The question must \
not give the answer away.
Reply: {{"question": "...", "choices": ["...", "...", "...", "..."], "answer": "one of the choices"}}"""

_AGAIN = (
    "This reply cannot be used: {problem}. Reply again, with one JSON object of the form asked for and nothing else."
)


class MalformedReplyError(ValueError):
    """A reply is not what was asked for; says what was expected."""


Field = Callable[[Any], Any]
"""Checks the value of a field and returns it; raises ValueError, which says what was expected."""


class Consultation:
    """The questions to the teacher about one task, and what they took.

    Attributes:
        usage: Tokens of the replies so far, those found in the cache included.
    """

    def __init__(self, policy: EndpointPolicy) -> None:
        """Ask `policy`."""
        self._policy = policy
        self.usage = Usage()

    async def guess(self, task: Task, first: Sequence[np.ndarray]) -> str:
        """Return what the teacher answers who has not looked closer; `first` are the first views (H, W, 3) uint8."""
        text = _GUESS.format(shown=_shown(task, len(first)), asked=_asked(task))
        return (await self._ask(text, first, {"answer": words}))["answer"]

    async def whole(self, task: Task, first: Sequence[np.ndarray], place: str) -> tuple[str, str]:
        """Return the analysis of the whole, and what to look at; `place` says where that is."""
        text = _WHOLE.format(shown=_shown(task, len(first)), asked=_asked(task), place=place, media=task.media.kind)
        said = await self._ask(text, first, {"analysis": words, "target": phrase})
        return said["analysis"], said["target"]

    async def closer(
        self, task: Task, first: Sequence[np.ndarray], closer: Sequence[np.ndarray], target: str
    ) -> tuple[str, str]:
        """Return the analysis of the closer look, and the answer."""
        how = ", with the letter of the right option" if task.choices else ", as briefly as possible"
        text = _CLOSER.format(
            shown=_shown(task, len(first)),
            closer="\n".join(f"A closer look: {IMAGE_MARKER}" for _ in closer),
            asked=_asked(task),
            target=plain(target),
            how=how,
        )
        said = await self._ask(text, [*first, *closer], {"analysis": words, "answer": words})
        return said["analysis"], said["answer"]

    async def judge(self, image: np.ndarray) -> tuple[float, float, float, float] | None:
        """Return a box worth a question, in pixels of `image` (H, W, 3), None where it is not rich enough."""
        height, width = image.shape[:2]
        text = _JUDGE.format(width=width, height=height, marker=IMAGE_MARKER)
        said = await self._ask(text, [image], {"rich": flag, "box": box_or_none})
        return said["box"] if said["rich"] else None

    async def question(self, image: np.ndarray, part: np.ndarray) -> tuple[str, tuple[str, ...], str]:
        """Return a question about a part of an image, its options, and the right one as the teacher words it."""
        text = _QUESTION.format(marker=IMAGE_MARKER)
        said = await self._ask(text, [image, part], {"question": words, "choices": options, "answer": words})
        return said["question"], said["choices"], said["answer"]

    async def _ask(self, text: str, images: Sequence[np.ndarray], wanted: Mapping[str, Field]) -> dict[str, Any]:
        """Ask, and once more if the reply is not as asked for; raises MalformedReplyError if that one is not either."""
        conversation = Conversation("", SYSTEM, [{"text": text, "images": tuple(images)}])
        for last in (False, True):
            reply = await self._policy.turn(conversation, sample=0)
            self.usage += Usage.of(reply)
            try:
                return read_fields(reply.text, wanted)
            except MalformedReplyError as error:
                if last:
                    raise
                again = {"text": _AGAIN.format(problem=plain(str(error))), "images": ()}
            conversation.actions.append(reply.text[:MOST_REPLY])
            conversation.observations.append(again)
        raise AssertionError("the last try returns or raises")


def read_fields(text: str, wanted: Mapping[str, Field]) -> dict[str, Any]:
    r"""Read the one JSON object of a reply; what stands around it, such as a Markdown fence, is left out.

    Raises:
        MalformedReplyError: There is none, or a field is missing or not what it should be.

    >>> read_fields('```json\n{"answer": " B "}\n```', {"answer": words})
    {'answer': 'B'}
    """
    found = text[text.find("{") : text.rfind("}") + 1]
    if len(text) > MOST_REPLY or not found:
        got = f"{len(text)} characters" if found else repr(text[:40])
        raise MalformedReplyError(f"expected a JSON object of at most {MOST_REPLY} characters, got {got}")
    try:
        fields = json.loads(found)
    except (ValueError, RecursionError):
        raise MalformedReplyError(f"expected a JSON object, got {found[:40]!r}") from None
    read = {}
    for name, field in wanted.items():
        if name not in fields:
            raise MalformedReplyError(f"expected the keys {', '.join(wanted)}, got none named {name}")
        try:
            read[name] = field(fields[name])
        except ValueError as error:
            raise MalformedReplyError(f"expected {name} as {error}, got {repr(fields[name])[:60]}") from None
    return read


# --- what a field may hold --------------------------------------------------------------------------------------------


def words(value: Any) -> str:
    """Return a text as one line; a number counts as its text, half a surrogate pair becomes a question mark."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    line = " ".join(value.encode("utf-8", "replace").decode().split()) if isinstance(value, str) else ""
    if not 0 < len(line) <= MOST_CHARACTERS:
        raise ValueError(f"a text of 1 to {MOST_CHARACTERS} characters")
    return line


def phrase(value: Any) -> str:
    """Return a few words that go into a sentence."""
    line = words(value).rstrip(".")
    if not line or len(line) > 120 or any(mark in line for mark in "<>{}[]\\.?!"):
        raise ValueError("at most ten plain words")
    return line


def flag(value: Any) -> bool:
    """Return true or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def options(value: Any) -> tuple[str, ...]:
    """Return four different options."""
    if not isinstance(value, list) or len(value) != NUM_CHOICES:
        raise ValueError(f"a list of {NUM_CHOICES} texts")
    listed = tuple(map(words, value))
    if len({option.casefold() for option in listed}) != NUM_CHOICES:
        raise ValueError(f"{NUM_CHOICES} different texts")
    return listed


def box_or_none(value: Any) -> tuple[float, float, float, float] | None:
    """Return x1, y1, x2, y2, or None; whether it fits the image is for the caller to see."""
    if value is None:
        return None
    numbers = value if isinstance(value, list) and len(value) == 4 else []
    sides = [float(v) for v in numbers if isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9]
    if len(sides) < 4:  # NaN is not below anything either
        raise ValueError("a list of four numbers, or null")
    x1, y1, x2, y2 = sides
    if not (x1 < x2 and y1 < y2):
        raise ValueError("x1, y1, x2, y2 with x1 < x2 and y1 < y2")
    return x1, y1, x2, y2


def _shown(task: Task, count: int) -> str:
    if task.media.kind == "image":
        return f"Image: {IMAGE_MARKER}"
    return "\n".join(f"Frame {number}: {IMAGE_MARKER}" for number in range(1, count + 1))


def _asked(task: Task) -> str:
    return "\n".join([f"Question: {plain(task.question)}", *option_lines(task.choices)])
