"""A second, independent reading of procedural tasks: from the question's text and the list of marks to the answer.

Shares no code with the generators. Every function insists that what it looks for is there exactly once, so an
ambiguous question fails as loudly as a wrong answer.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from pixel_env.media import Box
from pixel_env.tasks import DrawnSource, Task
from pixel_env.tasks.drawing import Canvas, Mark

COLOURS = "red|green|blue|yellow|purple|orange|cyan|pink"
SHAPES = "circle|square|triangle|diamond|star|cross|ring|hexagon"
THING = rf"({COLOURS}) ({SHAPES})"
Pair = tuple[str, str]


@dataclass(frozen=True)
class Verdict:
    """What the marks say: answer, the marks that carry the evidence, the pairs named, the frames that show it."""

    answer: str
    evidence: tuple[Mark, ...] = ()
    pairs: tuple[Pair, ...] = ()
    frames: tuple[int, ...] = ()


def only(found: list[Mark]) -> Mark:
    assert len(found) == 1, found
    return found[0]


def coloured(canvas: Canvas) -> list[Mark]:
    """Objects and trays: marks of a nameable colour and shape; dots, panels and titles are not."""
    return [m for m in canvas.marks if m.colour in COLOURS.split("|") and m.kind in SHAPES.split("|")]


def named(canvas: Canvas, colour: str, shape: str) -> Mark:
    return only([m for m in coloured(canvas) if (m.colour, m.kind) == (colour, shape)])


def middle(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def at_side(canvas: Canvas, side: str) -> Mark:
    axis = 0 if side in ("leftmost", "rightmost") else 1
    extreme = (min if side in ("leftmost", "topmost") else max)(middle(m.box)[axis] for m in coloured(canvas))
    return only([m for m in coloured(canvas) if middle(m.box)[axis] == extreme])


def dots(canvas: Canvas, tray: Mark, ink: str | None = None) -> list[Mark]:
    x1, y1, x2, y2 = tray.box
    return [
        m
        for m in canvas.marks
        if m.kind == "circle" and m.colour in ((ink,) if ink else ("black", "white"))
        and x1 < m.box[0] and m.box[2] < x2 and y1 < m.box[1] and m.box[3] < y2
    ]  # fmt: skip


# --- search and count: functions of the picture and of the groups of the pattern ------------------------------------


def read_named(canvas: Canvas, alphabet: str, colour: str, shape: str) -> Verdict:
    mark = named(canvas, colour, shape)
    assert mark.text.isdigit() == (alphabet == "digit") and len(mark.text) == 1
    return Verdict(mark.text, (mark,), ((colour, shape),))


def read_at_side(canvas: Canvas, side: str) -> Verdict:
    return Verdict(at_side(canvas, side).text, (at_side(canvas, side),))


def same_digit(canvas: Canvas, *words: str) -> Verdict:
    a, b = named(canvas, *words[:2]), named(canvas, *words[2:])
    assert a.text.isdigit() and b.text.isdigit()
    return Verdict("yes" if a.text == b.text else "no", (a, b), (words[:2], words[2:]))  # type: ignore[arg-type]


def where(canvas: Canvas, *words: str) -> Verdict:
    a, b = named(canvas, *words[:2]), named(canvas, *words[2:])
    (ax, ay), (bx, by) = middle(a.box), middle(b.box)
    assert max(abs(ax - bx), abs(ay - by)) > 1.04 * min(abs(ax - bx), abs(ay - by)), "on the diagonal"
    if abs(ax - bx) > abs(ay - by):
        answer = "left of" if ax < bx else "right of"
    else:
        answer = "above" if ay < by else "below"
    return Verdict(answer, (a, b), (words[:2], words[2:]))  # type: ignore[arg-type]


def colour_at_side(canvas: Canvas, side: str) -> Verdict:
    return Verdict(at_side(canvas, side).colour, (at_side(canvas, side),))


def count_dots(canvas: Canvas, ink: str | None, colour: str, shape: str) -> Verdict:
    tray = named(canvas, colour, shape)
    return Verdict(str(len(dots(canvas, tray, ink))), (tray,), ((colour, shape),))


def count_difference(canvas: Canvas, more: str, fewer: str, colour: str, shape: str) -> Verdict:
    tray = named(canvas, colour, shape)
    difference = len(dots(canvas, tray, more)) - len(dots(canvas, tray, fewer))
    return Verdict(str(difference), (tray,), ((colour, shape),))


def count_together(canvas: Canvas, *words: str) -> Verdict:
    a, b = named(canvas, *words[:2]), named(canvas, *words[2:])
    return Verdict(str(len(dots(canvas, a)) + len(dots(canvas, b))), (a, b), (words[:2],))  # type: ignore[arg-type]


def count_trays(canvas: Canvas, shape: str) -> Verdict:
    trays = [m for m in coloured(canvas) if dots(canvas, m)]
    assert {m.kind for m in coloured(canvas) if m not in trays}.isdisjoint({"square", "circle", "hexagon"})
    return Verdict(str(sum(m.kind == shape for m in trays)), tuple(trays))


def count_colour(canvas: Canvas, colour: str) -> Verdict:
    objects = [m for m in coloured(canvas) if m.colour == colour]
    return Verdict(str(len(objects)), tuple(objects))


# --- read -----------------------------------------------------------------------------------------------------------


def panels(canvas: Canvas) -> list[Mark]:
    return [m for m in canvas.marks if m.kind == "panel"]


def icon_of(canvas: Canvas, panel: Mark) -> Mark:
    """The icon beside a panel: it ends just left of the panel, at the panel's height."""
    height = panel.box[3] - panel.box[1]
    near = [m for m in coloured(canvas) if 0 < panel.box[0] - m.box[2] < height and m.box[1] == panel.box[1]]
    return only(near)


def inner_icon(canvas: Canvas, panel: Mark) -> Mark | None:
    """The black or white icon inside a panel, if panels carry icons."""
    x1, y1, x2, y2 = panel.box
    inside = [
        m
        for m in canvas.marks
        if m.kind in SHAPES.split("|") and x1 < m.box[0] and m.box[2] < x2 and y1 < m.box[1] and m.box[3] < y2
    ]
    return only(inside) if inside else None


def in_panel(canvas: Canvas, colour: str, shape: str | None = None) -> Verdict:
    found = [p for p in panels(canvas) if p.colour == colour]
    if shape:
        found = [p for p in found if (icon := inner_icon(canvas, p)) and icon.kind == shape]
    panel = only(found)
    return Verdict(panel.text, (panel,), ((colour, shape),) if shape else ())


def beside_icon(canvas: Canvas, colour: str, shape: str) -> Verdict:
    panel = only([p for p in panels(canvas) if (i := icon_of(canvas, p)).colour == colour and i.kind == shape])
    return Verdict(panel.text, (panel,), ((colour, shape),))


def extreme_panel(canvas: Canvas, end: str) -> Mark:
    tops = sorted(panels(canvas), key=lambda p: p.box[1], reverse=end == "lowest")
    assert abs(tops[0].box[1] - tops[1].box[1]) > 2, "two panels at one height"
    return tops[0]


def in_extreme_panel(canvas: Canvas, end: str) -> Verdict:
    return Verdict(extreme_panel(canvas, end).text, (extreme_panel(canvas, end),))


def owner_icon(canvas: Canvas, text: str) -> Verdict:
    panel = only([p for p in panels(canvas) if p.text == text])
    return Verdict(icon_of(canvas, panel).colour, (panel,))


def owner_panel(canvas: Canvas, text: str) -> Verdict:
    panel = only([p for p in panels(canvas) if p.text == text])
    return Verdict(panel.colour, (panel,))


def title(canvas: Canvas) -> Verdict:
    mark = only([m for m in canvas.marks if m.kind == "text"])
    return Verdict(mark.text, (mark,))


def count_panels(canvas: Canvas) -> Verdict:
    return Verdict(str(len(panels(canvas))), tuple(panels(canvas)))


def highest_icon(canvas: Canvas) -> Verdict:
    return Verdict(icon_of(canvas, extreme_panel(canvas, "highest")).colour, (extreme_panel(canvas, "highest"),))


def highest_panel(canvas: Canvas) -> Verdict:
    return Verdict(extreme_panel(canvas, "highest").colour, (extreme_panel(canvas, "highest"),))


# --- clip: functions of all pictures --------------------------------------------------------------------------------


def shown_as(clip: DrawnSource, words: tuple[str, ...]) -> dict[int, Mark]:
    """Frame (0-based): the mark of this colour and shape, where it is visible; it never moves or changes."""
    seen = {}
    for index, canvas in enumerate(clip.canvases):
        if found := [m for m in coloured(canvas) if (m.colour, m.kind) == words]:
            seen[index] = only(found)
    assert len(set(seen.values())) == 1 and list(seen) == list(range(min(seen), max(seen) + 1))
    return seen


def carrying(clip: DrawnSource, digit: str) -> dict[int, Mark]:
    """Frame: the mark that carries a digit; it is always the same one."""
    seen = {i: only(found) for i, c in enumerate(clip.canvases) if (found := [m for m in c.marks if m.text == digit])}
    assert len(set(seen.values())) == 1
    return seen


def clip_read(clip: DrawnSource, alphabet: str, *words: str) -> Verdict:
    seen = shown_as(clip, words)
    text = next(iter(seen.values())).text
    assert text.isdigit() == (alphabet == "digit") and len(text) == 1
    return Verdict(text, tuple(seen.values()), (words,), tuple(seen))  # type: ignore[arg-type]


def clip_first_digit(clip: DrawnSource, digit: str) -> Verdict:
    seen = carrying(clip, digit)
    return Verdict(str(min(seen) + 1), tuple(seen.values()), (), tuple(seen))


def clip_order_digits(clip: DrawnSource, a: str, b: str) -> Verdict:
    first, second = carrying(clip, a), carrying(clip, b)
    assert min(first) != min(second)
    marks = (*first.values(), *second.values())
    return Verdict(a if min(first) < min(second) else b, marks, (), tuple(sorted({*first, *second})))


def clip_first(clip: DrawnSource, *words: str) -> Verdict:
    seen = shown_as(clip, words)
    return Verdict(str(min(seen) + 1), tuple(seen.values()), (words,), tuple(seen))  # type: ignore[arg-type]


def clip_how_long(clip: DrawnSource, *words: str) -> Verdict:
    seen = shown_as(clip, words)
    return Verdict(str(len(seen)), tuple(seen.values()), (words,), tuple(seen))  # type: ignore[arg-type]


def clip_order(clip: DrawnSource, *words: str) -> Verdict:
    a, b = shown_as(clip, words[:2]), shown_as(clip, words[2:])
    assert min(a) != min(b)
    answer = " ".join(words[:2] if min(a) < min(b) else words[2:])
    return Verdict(answer, (*a.values(), *b.values()), (), tuple(sorted({*a, *b})))


INK = "black|white"
PICTURES: dict[str, dict[str, Callable[..., Verdict]]] = {
    "search": {
        rf"Which (digit|letter) is on the {THING}\?": read_named,
        r"Which digit is on the (\w+most) object\?": read_at_side,
        rf"Do the {THING} and the {THING} carry the same digit\?": same_digit,
        rf"Where is the {THING}, seen from the {THING}\?": where,
        r"Which colour is the (\w+most) object\?": colour_at_side,
    },
    "count": {
        rf"How many (?:({INK}) )?dots are in the {THING} tray\?": count_dots,
        rf"How many more ({INK}) than ({INK}) dots are in the {THING} tray\?": count_difference,
        rf"How many dots are in the {THING} tray and the {THING} tray together\?": count_together,
        rf"How many ({SHAPES}) trays are there\?": count_trays,
        rf"How many ({COLOURS}) objects are there\?": count_colour,
    },
    "read": {
        rf"What is written in the ({COLOURS}) panel(?: with the ({SHAPES}))?\?": in_panel,
        rf"What is written next to the {THING}\?": beside_icon,
        r"What is written in the (highest|lowest) panel\?": in_extreme_panel,
        r"Which colour is the icon next to (\w+)\?": owner_icon,
        r"Which colour is the panel that says (\w+)\?": owner_panel,
        r"What is the title of the page\?": title,
        r"How many panels are on the page\?": count_panels,
        r"Which colour is the highest icon\?": highest_icon,
        r"Which colour is the highest panel\?": highest_panel,
    },
    "clip": {
        rf"Which (digit|letter) is on the {THING}\?": clip_read,
        r"In which frame does the digit (\d) first appear\?": clip_first_digit,
        r"Which digit appears first, (\d) or (\d)\?": clip_order_digits,
        rf"In which frame does the {THING} first appear\?": clip_first,
        rf"In how many frames is the {THING} visible\?": clip_how_long,
        rf"Which appears first, the {THING} or the {THING}\?": clip_order,
    },
}


def template(task: Task) -> str:
    """The one pattern that a question follows, with the words that make another template of it."""
    found = [pattern for pattern in PICTURES[task.suite] if re.fullmatch(pattern, task.question)]
    assert len(found) == 1, task.question
    kind = next((word for word in ("digit", "letter", "black", "white") if word in task.question.split()), "")
    return f"{kind.replace('white', 'black')} {found[0]}"


def recompute(task: Task) -> Verdict:
    """Answer a task from its marks."""
    assert isinstance(task.media, DrawnSource)
    pattern = template(task).split(" ", 1)[1]
    match = re.fullmatch(pattern, task.question)
    assert match is not None
    seen = task.media if task.suite == "clip" else task.media.canvases[0]
    return PICTURES[task.suite][pattern](seen, *match.groups())
