"""Suites ``search`` (attributes and relations of tiny objects, after V*) and ``count`` (after TallyQA-complex)."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from pixel_env.media import Box
from pixel_env.tasks.drawing import COLOUR_NAMES, Canvas, Mark
from pixel_env.tasks.task import Cue
from pixel_env.tasks.world import (
    ANSWER_LETTERS,
    DIGITS,
    LETTERS,
    Draft,
    Pair,
    Size,
    World,
    cells,
    choices_for,
    glyph_mark,
    jittered,
    pick,
    shuffled,
    union,
)

OBJECTS = {1: (3, 4), 2: (5, 6), 3: (7, 9)}
SAME_COLOUR = {1: 0, 2: 1, 3: 2}
"""Near misses a level: objects that share the target's colour and differ in shape."""
MOST_OBJECTS = 64
"""Places drawn for a scene, of the hundreds that a large canvas has; there are no more attribute pairs than these."""
SIDES = ("leftmost", "rightmost", "topmost", "bottommost")
RELATIONS = ("left of", "right of", "above", "below")
TRAY_SHAPES = ("square", "circle", "hexagon")
TRAYS = {1: (2, 3), 2: (3, 4), 3: (4, 5)}
MOST_DOTS = {1: 4, 2: 6, 3: 10}


class Placed(Protocol):
    """What has a place in a picture."""

    @property
    def centre(self) -> tuple[float, float]:
        """x, y."""


PlacedT = TypeVar("PlacedT", bound=Placed)


class Unlucky(Exception):
    """A random draw does not allow an unambiguous question; the caller draws again."""


def search(rng: np.random.Generator, world: World, level: int) -> Draft:
    """One task of the suite ``search``: three in four need a look at a tiny character."""
    needs = rng.random() < 0.75
    reads = [_read_digit, _read_letter, _read_edge] + ([_same_character] if level > 2 else [])
    return _until_lucky(rng, world, level, pick(rng, reads if needs else [_relation, _edge_colour]))


def count(rng: np.random.Generator, world: World, level: int) -> Draft:
    """One task of the suite ``count``: three in four need a look into a tray of dots."""
    needs = rng.random() < 0.75
    dots = [_dots, _dots_of_ink] + ([_more_dots, _dots_in_two] if level > 2 else [])
    return _until_lucky(rng, world, level, pick(rng, dots if needs else [_trays, _shapes]))


def _unit(world: World, size: Size) -> float:
    """What things and the distances between them are measured in, source pixels."""
    return world.scale * world.unit(size)


def _until_lucky(
    rng: np.random.Generator, world: World, level: int, template: Callable[[np.random.Generator, World, int], Draft]
) -> Draft:
    for _ in range(1000):
        try:
            return template(rng, world, level)
        except Unlucky:
            continue
    raise AssertionError(f"{template.__name__} at level {level} found no unambiguous scene in 1000 draws")


# --- search ---------------------------------------------------------------------------------------------------------


def cast(rng: np.random.Generator, world: World, level: int, targets: int) -> list[Pair]:
    """Attribute pairs of a scene, the `targets` asked about first, all distinct.

    Level 1 never repeats a target's colour; higher levels add objects that differ from the target in shape only.
    """
    chosen: list[Pair] = []
    while len(chosen) < targets:
        pair = pick(rng, world.target_pairs)
        if all(pair[0] != other[0] for other in chosen):
            chosen.append(pair)
    total = int(rng.integers(OBJECTS[level][0], OBJECTS[level][1] + 1)) * world.clutter
    colours = {colour for colour, _ in chosen}
    pairs = shuffled(rng, world.pairs)
    near = [p for p in pairs if p[0] == chosen[0][0] and p not in chosen][: SAME_COLOUR[level]]
    alike = [p for p in pairs if p[1] == chosen[0][1] and p[0] not in colours][:1]
    others = [p for p in pairs if p[0] not in colours and p not in alike]
    return (chosen + near + alike + others)[: max(total, targets)]


def _scene(
    rng: np.random.Generator, world: World, level: int, targets: int = 1, adjacent: bool = False
) -> tuple[Size, list[Mark]]:
    """A canvas size and its marks, targets first; every mark carries a character."""
    size = world.image_size(rng)
    unit = _unit(world, size)
    pairs = cast(rng, world, level, targets)
    places = shuffled(rng, cells(size, unit))
    if adjacent:
        places = _neighbours_first(places)
    glyphs = [pick(rng, DIGITS + LETTERS) for _ in pairs]
    boxes = [jittered(rng, place, world.object_side(rng) * unit) for place in places[:MOST_OBJECTS]]
    return size, [glyph_mark(pair, box, glyph) for pair, box, glyph in zip(pairs, boxes, glyphs, strict=False)]


def _neighbours_first(places: list[Box]) -> list[Box]:
    first = places[0]
    width, height = first[2] - first[0], first[3] - first[1]
    for k, other in enumerate(places[1:], 1):
        if abs(other[0] - first[0]) < 1.5 * width and abs(other[1] - first[1]) < 1.5 * height:
            return [first, other, *places[1:k], *places[k + 1 :]]
    raise Unlucky


def find(marks: list[Mark], name: str) -> Mark:
    """The only mark that a question calls `name`; raises Unlucky if there is none or more than one."""
    found = [mark for mark in marks if mark.name == name]
    if len(found) != 1:
        raise Unlucky
    return found[0]


def at_edge(marks: Sequence[PlacedT], side: str, margin: float) -> PlacedT:
    """The mark furthest towards `side`, by its centre; raises Unlucky unless it leads by `margin` pixels."""
    axis, sign = {"leftmost": (0, 1), "rightmost": (0, -1), "topmost": (1, 1), "bottommost": (1, -1)}[side]
    order = sorted(marks, key=lambda mark: sign * mark.centre[axis])
    if abs(order[1].centre[axis] - order[0].centre[axis]) < margin:
        raise Unlucky
    return order[0]


def relation(a: Placed, b: Placed, margin: float) -> str:
    """Where `a` lies seen from `b`; raises Unlucky unless one direction clearly dominates (`margin` pixels)."""
    dx, dy = a.centre[0] - b.centre[0], a.centre[1] - b.centre[1]
    if abs(abs(dx) - abs(dy)) < margin:
        raise Unlucky
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def _asked(
    rng: np.random.Generator, marks: list[Mark], target: Mark, alphabet: str
) -> tuple[list[Mark], str, tuple[str, ...]]:
    """Give the target a character of `alphabet`; wrong choices are first those that other objects carry."""
    answer = pick(rng, alphabet)
    marks = [glyph_mark((m.colour, m.kind), m.box, answer) if m is target else m for m in marks]
    shown = [m.text for m in marks if m.text in alphabet]
    return marks, answer, choices_for(rng, answer, shown[:2] + shuffled(rng, alphabet)[:4])


def _image(rng: np.random.Generator, size: Size, marks: list[Mark]) -> tuple[Canvas, ...]:
    return (Canvas(*size, int(rng.integers(2**31)), tuple(marks)),)


def _read(rng: np.random.Generator, world: World, level: int, alphabet: str, noun: str) -> Draft:
    size, marks = _scene(rng, world, level)
    target = find(marks, marks[0].name)
    marks, answer, choices = _asked(rng, marks, target, alphabet)
    question = f"Which {noun} is on the {target.name}?"
    return Draft(question, _image(rng, size, marks), (answer,), "choice", True, Cue(target.box), choices)


def _read_digit(rng: np.random.Generator, world: World, level: int) -> Draft:
    return _read(rng, world, level, DIGITS, "digit")


def _read_letter(rng: np.random.Generator, world: World, level: int) -> Draft:
    return _read(rng, world, level, ANSWER_LETTERS, "letter")


def _read_edge(rng: np.random.Generator, world: World, level: int) -> Draft:
    size, marks = _scene(rng, world, level)
    side = pick(rng, SIDES)
    target = at_edge(marks, side, 8 * _unit(world, size))
    marks, answer, choices = _asked(rng, marks, target, DIGITS)
    question = f"Which digit is on the {side} object?"
    return Draft(question, _image(rng, size, marks), (answer,), "choice", True, Cue(target.box), choices)


def _same_character(rng: np.random.Generator, world: World, level: int) -> Draft:
    size, marks = _scene(rng, world, level, targets=2, adjacent=True)
    answer = pick(rng, ("yes", "no"))
    first, second = shuffled(rng, DIGITS)[:2]
    texts = (first, first if answer == "yes" else second)
    pair = [glyph_mark((m.colour, m.kind), m.box, text) for m, text in zip(marks, texts, strict=False)]
    question = f"Do the {pair[0].name} and the {pair[1].name} carry the same digit?"
    cue = Cue(union(pair[0].box, pair[1].box))
    return Draft(question, _image(rng, size, pair + marks[2:]), (answer,), "choice", True, cue, ("yes", "no"))


def _relation(rng: np.random.Generator, world: World, level: int) -> Draft:
    wanted = pick(rng, RELATIONS)
    size, marks = _scene(rng, world, level, targets=2)
    a, b = find(marks, marks[0].name), find(marks, marks[1].name)
    if relation(a, b, 12 * _unit(world, size) * world.clutter) != wanted:
        raise Unlucky
    question = f"Where is the {a.name}, seen from the {b.name}?"
    cue = Cue(union(a.box, b.box))
    return Draft(question, _image(rng, size, marks), (wanted,), "choice", False, cue, tuple(shuffled(rng, RELATIONS)))


def _edge_colour(rng: np.random.Generator, world: World, level: int) -> Draft:
    size, marks = _scene(rng, world, level)
    side = pick(rng, SIDES)
    target = at_edge(marks, side, 8 * _unit(world, size))
    pool = [m.colour for m in marks[:4]] + shuffled(rng, COLOUR_NAMES)
    choices = choices_for(rng, target.colour, list(dict.fromkeys(pool))[:5])
    question = f"Which colour is the {side} object?"
    return Draft(question, _image(rng, size, marks), (target.colour,), "choice", False, Cue(target.box), choices)


# --- count ----------------------------------------------------------------------------------------------------------


def tray_dots(rng: np.random.Generator, tray: Mark, inks: list[str], columns: int = 3) -> list[Mark]:
    """Dots of the given inks in distinct places of a tray; their sizes vary so that the tray's shade tells little."""
    x1, y1, x2, _ = tray.box
    side = x2 - x1
    pitch = 0.48 * side / columns
    dots = []
    for place, ink in zip(rng.permutation(columns**2), inks, strict=False):
        d = max(2.0, pitch * rng.uniform(0.45, 0.75))
        x = x1 + 0.26 * side + (place % columns + 0.5) * pitch - d / 2
        y = y1 + 0.26 * side + (place // columns + 0.5) * pitch - d / 2
        dots.append(Mark("circle", (x, y, x + d, y + d), ink))
    return dots


def _tray_scene(
    rng: np.random.Generator, world: World, level: int, adjacent: bool = False
) -> tuple[Size, list[Mark], list[Mark]]:
    """A canvas size, its trays (the one asked about first) and other objects without dots."""
    size = world.image_size(rng)
    unit = _unit(world, size)
    places = shuffled(rng, cells(size, unit))
    if adjacent:
        places = _neighbours_first(places)
    pairs = [p for p in shuffled(rng, world.pairs) if p[1] in TRAY_SHAPES]
    target = pick(rng, [p for p in world.target_pairs if p[1] in TRAY_SHAPES])
    number = int(rng.integers(TRAYS[level][0], TRAYS[level][1] + 1)) * (1 if world.clutter == 1 else 2)
    near = [p for p in pairs if p[0] == target[0] and p != target][: SAME_COLOUR[level]]
    chosen = ([target, *near] + [p for p in pairs if p[0] != target[0]])[:number]
    trays = [
        Mark(s, jittered(rng, place, rng.uniform(13, 17) * unit), c)
        for (c, s), place in zip(chosen, places, strict=False)
    ]
    loose = [p for p in shuffled(rng, world.pairs) if p[1] not in TRAY_SHAPES][
        : int(rng.integers(1, 4)) * world.clutter
    ]
    objects = [
        Mark(s, jittered(rng, place, world.object_side(rng) * unit), c)
        for (c, s), place in zip(loose, places[number:], strict=False)
    ]
    return size, trays, objects


def _inks(rng: np.random.Generator, number: int) -> list[str]:
    return [pick(rng, ("black", "white")) for _ in range(number)]


def _dots_draft(
    rng: np.random.Generator,
    world: World,
    level: int,
    asked: list[list[str]],
    question: str,
    answer: int,
    needs: bool = True,
) -> Draft:
    """A tray scene in which tray k holds dots of the inks ``asked[k]``; ``{k}`` in the question names tray k."""
    size, trays, objects = _tray_scene(rng, world, level, adjacent=len(asked) > 1)
    columns = 3 if MOST_DOTS[level] <= 9 else 4
    inks = asked + [_inks(rng, int(rng.integers(MOST_DOTS[level] + 1))) for _ in trays[len(asked) :]]
    dots = [dot for tray, some in zip(trays, inks, strict=True) for dot in tray_dots(rng, tray, some, columns)]
    text = question.format(*(f"{tray.name} tray" for tray in trays))
    cue = Cue(union(*(tray.box for tray in trays[: max(1, len(asked))])))
    return Draft(text, _image(rng, size, [*objects, *trays, *dots]), (str(answer),), "number", needs, cue)


def _dots(rng: np.random.Generator, world: World, level: int) -> Draft:
    answer = int(rng.integers(MOST_DOTS[level] + 1))
    return _dots_draft(rng, world, level, [_inks(rng, answer)], "How many dots are in the {0}?", answer)


def _split_inks(rng: np.random.Generator, level: int, first: str, second: str) -> tuple[list[str], int, int]:
    """Inks of a tray with a balanced number of `first`; returns inks, number of first, number of second."""
    a = int(rng.integers(MOST_DOTS[level] + 1))
    b = int(rng.integers(min(MOST_DOTS[level], 9 if MOST_DOTS[level] <= 9 else 16) - a + 1))
    return shuffled(rng, [first] * a + [second] * b), a, b


def _dots_of_ink(rng: np.random.Generator, world: World, level: int) -> Draft:
    first, second = shuffled(rng, ("black", "white"))
    inks, answer, _ = _split_inks(rng, level, first, second)
    return _dots_draft(rng, world, level, [inks], f"How many {first} dots are in the {{0}}?", answer)


def _more_dots(rng: np.random.Generator, world: World, level: int) -> Draft:
    first, second = shuffled(rng, ("black", "white"))
    inks, a, b = _split_inks(rng, level, first, second)
    if a < b:
        raise Unlucky
    return _dots_draft(rng, world, level, [inks], f"How many more {first} than {second} dots are in the {{0}}?", a - b)


def _dots_in_two(rng: np.random.Generator, world: World, level: int) -> Draft:
    answer = int(rng.integers(MOST_DOTS[level] + 1))
    first = int(rng.integers(answer + 1))
    asked = [_inks(rng, first), _inks(rng, answer - first)]
    return _dots_draft(rng, world, level, asked, "How many dots are in the {0} and the {1} together?", answer)


def _trays(rng: np.random.Generator, world: World, level: int) -> Draft:
    size, trays, objects = _tray_scene(rng, world, level)
    dots = [d for tray in trays for d in tray_dots(rng, tray, _inks(rng, int(rng.integers(1, MOST_DOTS[level] + 1))))]
    shape = pick(rng, TRAY_SHAPES)
    answer = sum(tray.kind == shape for tray in trays)
    cue = Cue(union(*(tray.box for tray in trays)))
    question = f"How many {shape} trays are there?"
    return Draft(question, _image(rng, size, [*objects, *trays, *dots]), (str(answer),), "number", False, cue)


def _shapes(rng: np.random.Generator, world: World, level: int) -> Draft:
    """Objects of one colour: large enough to be told apart in the first view."""
    size = world.image_size(rng)
    unit = _unit(world, size)
    places = shuffled(rng, cells(size, unit))
    answer = int(rng.integers(0, {1: 3, 2: 5, 3: 7}[level] + 1))
    colour = pick(rng, COLOUR_NAMES)
    mine = [p for p in world.pairs if p[0] == colour]
    rest = shuffled(rng, [p for p in world.pairs if p[0] != colour])[: int(rng.integers(2, 5)) * world.clutter]
    pairs = [pick(rng, mine) for _ in range(answer)] + rest
    marks = [
        Mark(s, jittered(rng, place, rng.uniform(11, 15) * unit), c)
        for (c, s), place in zip(pairs, places, strict=False)
    ]
    cue = Cue((0.0, 0.0, float(size[0]), float(size[1])))
    question = f"How many {colour} objects are there?"
    return Draft(question, _image(rng, size, marks), (str(answer),), "number", False, cue)
