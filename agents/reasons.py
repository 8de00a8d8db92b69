"""Why an answer is right: what can be said of a drawn task before it is answered, read off the list of what is drawn.

The micro base is taught to think like this and the expert of the demonstrations does: a thing that is named by its
place gets its own name first, what is counted is named one by one. Sources from files have no such list: nothing is
said of them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from agents.boxes import inside
from pixel_env.media import Box
from pixel_env.tasks import DrawnSource, Task
from pixel_env.tasks.drawing import Canvas, Mark
from pixel_env.tasks.scenes import RELATIONS, TRAY_SHAPES

INKS = ("black", "white")
ENDS = {
    "leftmost": (0, 1), "rightmost": (0, -1), "topmost": (1, 1), "bottommost": (1, -1),
    "highest": (1, 1), "lowest": (1, -1),
}  # fmt: skip
"""Words of place, each with its axis and the sign of what comes first along it."""
# What a question asks about, in its own words: letters, digits and spaces only, so it can neither call nor answer.
_TARGETS = (
    r"on (the [\w ]+)\?$",
    r"^Do (the [\w ]+ and the [\w ]+) carry",
    r"next to (the [\w ]+)\?$",
    r"in (the [\w ]+?)(?: together)?\?$",
    r"is (the (?:icon|panel) [\w ]+)\?$",
    r"does (the [\w ]+) first",
    r"^Which (digit) appears",
)

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
            found.append(Thing(f"text next to the {icon.name}", mark.box, mark.text, mark.text_height))
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


def panels(some: Sequence[Thing]) -> list[Thing]:
    """Those of a page's things that are panels."""
    return [t for t in some if t.name.startswith("text ") or " panel" in t.name]


def at_end(some: Sequence[Thing], place: str) -> Thing:
    """The thing that comes first in the direction of `place`, by its middle; of panels and texts, by its upper border.

    >>> at_end([Thing("red star", (0, 0, 9, 9)), Thing("blue star", (5, 5, 14, 14))], "bottommost").name
    'blue star'
    """
    return min(some, key=lambda thing: _along(thing, place))


def _along(thing: Thing, place: str) -> float:
    """How far a thing is from the end that a word of place means."""
    axis, sign = ENDS[place]
    if place in ("highest", "lowest"):
        return sign * thing.box[axis]
    return sign * (thing.box[axis] + thing.box[axis + 2]) / 2


def places(some: Sequence[Thing], margin: float) -> dict[str, Thing]:
    """Things by the names that their places give them, "leftmost object" or "highest panel".

    Args:
        some: All things of a picture.
        margin: By which one has to lead, in the pixels of their boxes.
    """
    if all(len(t.text) == 1 for t in some):
        return object_ends(some, margin)
    return _ends(panels(some), ("highest", "lowest"), "panel", margin)


def object_ends(some: Sequence[Thing], margin: float) -> dict[str, Thing]:
    """`places` of objects."""
    return _ends(some, ("leftmost", "rightmost", "topmost", "bottommost"), "object", margin)


def _ends(some: Sequence[Thing], words: Sequence[str], noun: str, margin: float) -> dict[str, Thing]:
    found: dict[str, Thing] = {}
    for word in words if len(some) > 1 else ():
        first, second = sorted(some, key=lambda t: _along(t, word))[:2]
        if _along(second, word) - _along(first, word) >= margin:
            found[f"{word} {noun}"] = first
    return found


def direction(a: Thing, b: Thing, margin: float) -> str:
    """Where `a` lies seen from `b`, a word of `RELATIONS`; empty unless one direction leads by a margin.

    >>> direction(Thing("star", (0, 0, 9, 9)), Thing("moon", (30, 5, 39, 14)), 8)
    'left of'
    """
    dx, dy = ((a.box[k] + a.box[k + 2] - b.box[k] - b.box[k + 2]) / 2 for k in (0, 1))
    if abs(abs(dx) - abs(dy)) < margin:
        return ""
    first = RELATIONS[:2] if abs(dx) > abs(dy) else RELATIONS[2:]
    return first[0] if (dx if abs(dx) > abs(dy) else dy) < 0 else first[1]


def target(question: str) -> str:
    """Return what a question asks about, in its own words.

    >>> target("Which digit is on the red circle?"), target("How many people are waving?")
    ('the red circle', 'what is asked')
    """
    for pattern in _TARGETS:
        if found := re.search(pattern, question):
            return found[1] if found[1].startswith("the ") else f"the {found[1]}"
    return "what is asked"


def owner(task: Task, target: str) -> str:
    """Name what a task calls by its place: "the leftmost object" is "the red circle". Empty for all else.

    Args:
        task: The task, of which the list of what is drawn is used, if there is one.
        target: What it asks about, as `target` finds it.
    """
    if not isinstance(task.media, DrawnSource) or target.removeprefix("the ").partition(" ")[0] not in ENDS:
        return ""
    cue = task.cue.box if task.cue is not None else None
    found = [t.name for t in things(task.media.canvases[0]) if cue is not None and inside(t.box, cue)]
    return f"the {found[0]}" if len(found) == 1 else ""


def listed(names: Sequence[str]) -> str:
    """An enumeration and how many it names.

    >>> listed(["red star", "red moon"]), listed([])
    ('the red star, the red moon: 2', 'none: 0')
    """
    return f"{', '.join(f'the {name}' for name in names) or 'none'}: {len(names)}"


def seen_in(name: str, numbers: Sequence[int]) -> str:
    """In which frames something is, from 1.

    >>> seen_in("red star", (3, 4))
    'the red star is in frames 3, 4'
    """
    return f"the {name} is in frame{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


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
    'the yellow triangle is right of the purple cross'
    """
    if not isinstance(task.media, DrawnSource) or task.needs_operation is not False:
        return ""
    if task.media.kind == "video":
        return _clip_reason(task, frames_of(task.media))
    named = sorted(things(task.media.canvases[0]), key=lambda t: t.box[0] + t.box[2])
    question = task.question
    if found := re.fullmatch(r"Where is (the .+), seen from (the .+)\?", question):
        return f"{found[1]} is {task.answers[0]} {found[2]}" if task.answers[0] in RELATIONS else ""
    if found := re.fullmatch(r"How many (\w+ tray|\w+ object|panel)s are .+\?", question):
        asked, _, noun = found[1].rpartition(" ")
        if noun == "panel":
            some = [t.name.removeprefix("text next to the ") for t in panels(named)]
        else:
            some = [t.name for t in named if asked in t.name.split() and (noun == "object" or t.name.endswith(" tray"))]
        return listed(some) if len(some) <= MOST_NAMED else ""
    if found := re.fullmatch(r"Which colour is the (\w+) (object|panel|icon)\?", question):
        pool = [t for t in named if t.name != "title"]
        thing = at_end(pool, found[1]).name.removeprefix("text next to the ")
        return f"the {found[1]} {found[2]} is the {thing}"
    return f"the title says {task.answers[0]}" if "title" in question else ""


def _clip_reason(task: Task, frames: dict[str, list[int]]) -> str:
    asked = [name for name in frames if f"the {name} " in task.question or f"the {name}?" in task.question]
    said = ", ".join(seen_in(name, frames[name]) for name in asked)
    return f"{said}: {len(frames[asked[0]])}" if "how many" in task.question and asked else said
