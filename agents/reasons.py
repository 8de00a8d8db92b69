"""Why an answer is right: what can be said of a drawn task before it is answered, read off the list of what is drawn.

The micro base is taught to think like this and the expert of the demonstrations does: a thing that is named by its
place gets its own name first, and all is named one by one before some of it is counted. Sources from files have no such
list: nothing is said of them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from agents.boxes import inside
from agents.micro import FACTOR
from pixel_env.media import Box, view_size
from pixel_env.tasks import DrawnSource, Task
from pixel_env.tasks.drawing import Canvas, Mark
from pixel_env.tasks.scenes import RELATIONS, SIDES, TRAY_SHAPES, Unlucky, at_edge
from pixel_env.tasks.world import VIEW_PIXELS

INKS = ("black", "white")
HEIGHTS = {"highest": 1, "lowest": -1}
"""Words for the ends of a page, and the sign of an upper border that comes first."""
# What a question asks about, in its own words: letters, digits and spaces only, so it can neither call nor answer.
_TARGETS = (
    r"on (the [\w ]+)\?$",
    r"^Do (the [\w ]+ and the [\w ]+) carry",
    r"^What is written (next to the [\w ]+)\?$",
    r"in (the [\w ]+?)(?: together)?\?$",
    r"is (the (?:icon|panel) [\w ]+)\?$",
    r"does (the [\w ]+) first",
    r"^Which (digit) appears",
)

_BESIDE = "text next to the "
MOST_NAMED = 12
"""Things in one enumeration."""


@dataclass(frozen=True)
class Thing:
    """Something in a picture that a question can name: its box, and what can be read or counted in it."""

    name: str
    box: Box
    text: str = ""
    text_height: float = 0.0
    dots: tuple[int, int] | None = None  # (black, white)

    @property
    def centre(self) -> tuple[float, float]:
        """x, y of the middle."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


def things(canvas: Canvas) -> list[Thing]:
    """All that a question can name in a canvas, read off its list of marks."""
    found: list[Thing] = []
    dots = [m for m in canvas.marks if m.kind == "circle" and m.colour in INKS]
    trays = bool(dots) or not any(m.text for m in canvas.marks)
    for index, mark in enumerate(canvas.marks):
        if mark in dots:
            continue
        if mark.kind == "text":
            found.append(Thing("title", mark.box, mark.text, mark.text_height))
        elif mark.kind == "panel" and mark.colour == "white":
            icon = canvas.marks[index + 1]
            found.append(Thing(f"{_BESIDE}{icon.name}", mark.box, mark.text, mark.text_height))
        elif trays and mark.kind in TRAY_SHAPES:
            inks = [d.colour for d in dots if holds(mark, d)]
            found.append(Thing(f"{mark.name} tray", mark.box, dots=(inks.count("black"), inks.count("white"))))
        else:
            found.append(Thing(mark.name, mark.box, mark.text, mark.text_height))
    return found


def holds(outer: Mark, inner: Mark) -> bool:
    """Whether the middle of a mark lies in another."""
    (x, y), (x1, y1, x2, y2) = inner.centre, outer.box
    return x1 < x < x2 and y1 < y < y2


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def fact(thing: Thing, question: str) -> str:
    """Return what can be read or counted in a thing, as far as the question wants it.

    A micro model finds a thing by the name that it has just written, much sooner than by one further back.
    """
    if thing.dots is None:
        return f"the {thing.name} says {thing.text}" if thing.text else f"the {thing.name}"
    black, white = thing.dots
    if "black" in question or "white" in question:
        return f"the {thing.name} has {black} black, {white} white dots"
    return f"the {thing.name} has {black + white} dots"


def facts(seen: Iterable[tuple[Canvas, Box]], question: str) -> str:
    """What is said by all that lies wholly in some regions of canvases, each thing once."""
    found = [fact(t, question) for canvas, region in seen for t in things(canvas) if inside(t.box, region)]
    return ", ".join(dict.fromkeys(found))


def panels(some: Sequence[Thing]) -> list[Thing]:
    """Those of a page's things that are panels, the highest first."""
    found = [t for t in some if t.name.startswith(_BESIDE) or " panel" in t.name]
    return sorted(found, key=lambda panel: panel.box[1])


def recognisable(thing: Thing) -> bool:
    """Whether a close-up of a thing tells its name: that of a text beside an icon is outside."""
    return not thing.name.startswith(_BESIDE)


def shown_name(thing: Thing) -> str:
    """The name of what stands for a thing: of the icon beside a text, else its own."""
    return thing.name.removeprefix(_BESIDE)


def places(some: Sequence[Thing], margin: float) -> dict[str, Thing]:
    """Things by the names that their places give them, "leftmost object" or "highest panel".

    Args:
        some: All things of a picture.
        margin: By which one has to lead, in the pixels of their boxes.
    """
    if all(len(t.text) == 1 for t in some):
        return object_ends(some, margin)
    return _panel_ends(panels(some), margin)


def object_ends(some: Sequence[Thing], margin: float) -> dict[str, Thing]:
    """`places` of objects."""
    found = {}
    for side in SIDES if len(some) > 1 else ():
        with suppress(Unlucky):
            found[f"{side} object"] = at_edge(some, side, margin)
    return found


def _panel_ends(some: Sequence[Thing], margin: float) -> dict[str, Thing]:
    found = {}
    for word, sign in HEIGHTS.items() if len(some) > 1 else ():
        first, second = sorted(some, key=lambda t: sign * t.box[1])[:2]
        if abs(second.box[1] - first.box[1]) >= margin:
            found[f"{word} panel"] = first
    return found


def target(question: str) -> str:
    """Return what a question asks about, in its own words.

    >>> target("Which digit is on the red circle?"), target("How many people are waving?")
    ('the red circle', 'what is asked')
    >>> target("What is written next to the red star?")  # what is read is beside the icon
    'the text next to the red star'
    """
    for pattern in _TARGETS:
        if found := re.search(pattern, question):
            name = f"text {found[1]}" if found[1].startswith("next to ") else found[1].removeprefix("the ")
            return f"the {name}"
    return "what is asked"


def named(task: Task) -> tuple[str, str]:
    """What a task asks about, and the sentence that gives it this name where the question names its place instead.

    ("the red circle", "The leftmost object is the red circle."), or the words of the question and no sentence.
    """
    asked = target(task.question)
    at_a_place = asked.removeprefix("the ").partition(" ")[0] in (*SIDES, *HEIGHTS)
    if at_a_place and isinstance(task.media, DrawnSource) and task.cue is not None and task.cue.box is not None:
        found = [t.name for t in things(task.media.canvases[0]) if inside(t.box, task.cue.box)]
        if len(found) == 1:
            return f"the {found[0]}", sentence(f"{asked} is the {found[0]}")
    return asked, ""


def counted(names: Sequence[str], kinds: Sequence[str]) -> str:
    """All things of a picture by name, then how many there are of some kinds: by a word of the name, or of any.

    A micro model learns to go through a picture token by token. To find the next thing of a kind it does not learn.

    >>> counted(["red star", "blue ring", "red moon"], ["red objects", "pink objects", "objects"])
    'there is the red star, the blue ring, the red moon: red objects 2, pink objects 0, objects 3'
    """
    words = [kind.split()[:-1] for kind in kinds]
    numbers = [sum(set(some) <= set(name.split()) for name in names) for some in words]
    told = ", ".join(f"{kind} {number}" for kind, number in zip(kinds, numbers, strict=True))
    return f"there is {', '.join(f'the {name}' for name in names)}: {told}"


def in_rows(some: Iterable[Thing], row: float) -> list[Thing]:
    """Things row by row and from left to right, as the image tokens lie; `row` is their height."""
    return sorted(some, key=lambda thing: (thing.centre[1] // row, thing.centre[0]))


def seen_in(name: str, numbers: Sequence[int]) -> str:
    """In which frames something is, from 1.

    >>> seen_in("red star", (3, 4))
    'the red star is in frames 3, 4'
    """
    return f"the {name} is in frames {', '.join(map(str, numbers))}"


def seen_in_order(frames: Mapping[str, Sequence[int]]) -> str:
    """In which frames things are, where each begins, and which is first.

    Each number is written before its name: a micro model finds what followed a number, not what was ahead of it.

    >>> seen_in_order({"red star": (3, 4), "sun": (1,)})
    'the red star is in frames 3, 4, the sun is in frames 1: 3 the red star, 1 the sun, first 1 the sun'
    """
    said = ", ".join(seen_in(name, numbers) for name, numbers in frames.items())
    begun = [f"{numbers[0]} the {name}" for name, numbers in frames.items()]
    first = min(frames, key=lambda name: frames[name][0])
    return f"{said}: {', '.join(begun)}, first {frames[first][0]} the {first}"


def seen_from(name: str, other: str, where: str) -> str:
    """Where one thing lies, seen from another: both are named before it is said, the one that is asked about last.

    >>> seen_from("the red star", "the blue ring", "left of")
    'from the blue ring the red star is left of it'
    """
    return f"from {other} {name} is {where} it"


def frames_of(source: DrawnSource) -> dict[str, list[int]]:
    """For all things of a clip, the numbers of the frames in which they are, from 1."""
    frames: dict[str, list[int]] = {}
    for number, canvas in enumerate(source.canvases, 1):
        for mark in canvas.marks:
            frames.setdefault(mark.name, []).append(number)
    return frames


def reason(task: Task) -> str:
    """What the first view of a task tells about its answer, where it is enough; empty where nothing can be said.

    >>> from pixel_env.tasks import ProceduralTasks
    >>> reason(next(t for t in ProceduralTasks(("search",)) if t.question.startswith("Where is")))
    'from the purple cross the yellow triangle is right of it'
    """
    if not isinstance(task.media, DrawnSource) or task.needs_operation is not False:
        return ""
    if task.media.kind == "video":
        return _clip_reason(task, frames_of(task.media))
    canvas, question = task.media.canvases[0], task.question
    rows = view_size(canvas.width, canvas.height, VIEW_PIXELS["micro"], FACTOR)[1] / FACTOR
    seen = in_rows(things(canvas), canvas.height / rows)
    if found := re.fullmatch(r"Where is (the .+), seen from (the .+)\?", question):
        return seen_from(found[1], found[2], task.answers[0]) if task.answers[0] in RELATIONS else ""
    if found := re.fullmatch(r"How many (\w+ tray|\w+ object|panel)s are .+\?", question):
        some = panels(seen) if found[1] == "panel" else seen
        return counted([shown_name(t) for t in some], [f"{found[1]}s"]) if len(some) <= MOST_NAMED else ""
    if found := re.fullmatch(r"Which colour is the (\w+) (object|panel|icon)\?", question):
        word, noun = found.groups()
        if noun == "object":
            first = at_edge(seen, word, 0)
        else:
            first = min(panels(seen), key=lambda t: HEIGHTS[word] * t.box[1])
        return f"the {word} {noun} is the {shown_name(first)}"
    return f"the title says {task.answers[0]}" if "title" in question else ""


def _clip_reason(task: Task, frames: dict[str, list[int]]) -> str:
    places = {name: re.search(rf"\bthe {name}\b", task.question) for name in frames}
    asked = sorted((name for name, at in places.items() if at), key=lambda name: places[name].start())  # type: ignore[union-attr]
    if "appears first" in task.question and len(asked) == 2:
        return seen_in_order({name: frames[name] for name in asked})
    said = ", ".join(seen_in(name, frames[name]) for name in asked)
    return f"{said}: {len(frames[asked[0]])}" if "how many" in task.question and asked else said
