"""Sheets: pictures with many labels each, and the drills on them that teach a micro model to look things up.

A picture of a natural lesson answers a few questions; a sheet answers a dozen in one sequence. Without so many labels a
picture, neither the tower nor the language model leaves the plateau at which it guesses (benchmarks/results).
"""

import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from agents.micro import FACTOR
from agents.micro_lessons import MARGIN, Lesson, Shot, about, clip_turn, take, whole
from agents.micro_questions import view_questions
from agents.micro_seeing import Picture
from agents.reasons import Thing, counted, in_rows, object_ends, seen_from
from pixel_env.media import Box
from pixel_env.tasks import DrawnSource
from pixel_env.tasks.drawing import COLOUR_NAMES, SHAPES, Canvas, Mark, text_width
from pixel_env.tasks.scenes import RELATIONS, SIDES, TRAY_SHAPES, Unlucky, relation, tray_dots
from pixel_env.tasks.world import DIGITS, LETTERS, NUM_FRAMES, contrast, glyph_mark, jittered, pick, shuffled

SHEET_SIDE = 224


def character_sheet(rng: np.random.Generator, names: Sequence[tuple[str, str]] = ()) -> Canvas:
    """A picture that is nothing but characters on shapes, one in each cell of a grid, or as many as there are `names`.

    `names` are pairs of colour and shape; by default all are drawn.
    """
    marks = []
    cells = _grid(rng, int(rng.choice([4, 4, 3, 3, 2])))
    places = sorted(rng.permutation(len(cells))[: len(names) or len(cells)].tolist())
    names = names or [(pick(rng, COLOUR_NAMES), pick(rng, SHAPES)) for _ in cells]
    for place, name in zip(places, names, strict=False):
        side = cells[place][2] - cells[place][0]
        box = jittered(rng, cells[place], side * rng.uniform(0.6, 0.9))
        mark = glyph_mark(name, box, pick(rng, DIGITS + LETTERS))
        marks.append(replace(mark, text_height=(box[2] - box[0]) * rng.uniform(0.3, 0.55)))
    return _sheet(rng, marks)


def few_names(rng: np.random.Generator, most: int) -> list[tuple[str, str]]:
    """Two to `most` names, no two alike, in six cases of ten of different shapes: the word just written tells them."""
    number = int(rng.integers(2, most + 1))
    if rng.random() < 0.6:
        return [(pick(rng, COLOUR_NAMES), shape) for shape in shuffled(rng, SHAPES)[:number]]
    return shuffled(rng, [(colour, shape) for colour in COLOUR_NAMES for shape in SHAPES])[:number]


def string_sheet(rng: np.random.Generator) -> Canvas:
    """Coloured panels with short strings of many sizes, in one or two columns: about three characters a token."""
    columns, rows = int(rng.integers(1, 3)), int(rng.integers(1, 5))
    marks = []
    for k in range(columns * rows):
        w, h = SHEET_SIDE / columns, SHEET_SIDE / rows
        height = float(np.exp(rng.uniform(np.log(30), np.log(min(0.7 * h, 70)))))
        most = int((w - 12) / (0.7 * height))  # characters that fit
        text = "".join(pick(rng, LETTERS + DIGITS) for _ in range(int(rng.integers(1, max(3, min(8, most + 1))))))
        width = min(w - 4, max(text_width(text, height) + 8, 30.0))
        x, y = k % columns * w + rng.uniform(0, w - width), k // columns * h + rng.uniform(0, max(0.0, h - height - 8))
        box = (round(x), round(y), round(x + width), round(y + min(h - 2, height + 8)))
        colour = pick(rng, (*COLOUR_NAMES, "white"))
        marks.append(
            Mark("panel", box, colour, text, height * min(1.0, (w - 8) / text_width(text, height)), contrast(colour))
        )
    return _sheet(rng, marks)


def object_sheet(rng: np.random.Generator) -> Canvas:
    """Objects of all colours and shapes at the size of a first view, each with a character too small to read."""
    cells = shuffled(rng, _grid(rng, 4))[: int(rng.integers(6, 17))]
    boxes = [jittered(rng, cell, rng.uniform(18, 34)) for cell in cells]
    return _sheet(
        rng, [glyph_mark((pick(rng, COLOUR_NAMES), pick(rng, SHAPES)), b, pick(rng, DIGITS + LETTERS)) for b in boxes]
    )


def shape_sheet(rng: np.random.Generator) -> Canvas:
    """Objects of all colours, shapes and sizes that carry nothing."""
    cells = _grid(rng, pick(rng, (4, 4, 3, 2)))
    some = shuffled(rng, cells)[: int(rng.integers(1, len(cells) + 1))]
    boxes = [jittered(rng, cell, max(18.0, (cell[2] - cell[0]) * rng.uniform(0.35, 0.9))) for cell in some]
    return _sheet(rng, [Mark(pick(rng, SHAPES), box, pick(rng, COLOUR_NAMES)) for box in boxes])


def dot_sheet(rng: np.random.Generator) -> tuple[Canvas, list[tuple[str, int, int]]]:
    """Trays of dots, and for each its name and its black and white dots."""
    marks, trays = [], []
    for cell in _grid(rng, int(rng.choice([3, 2, 2, 1]))):
        box = jittered(rng, cell, (cell[2] - cell[0]) * rng.uniform(0.6, 0.95))
        tray = Mark(pick(rng, TRAY_SHAPES), box, pick(rng, COLOUR_NAMES))
        black, white = int(rng.integers(0, 5)), int(rng.integers(0, 5))
        marks += [tray, *tray_dots(rng, tray, shuffled(rng, ["black"] * black + ["white"] * white))]
        trays.append((f"{tray.name} tray", black, white))
    return _sheet(rng, marks), trays


def tray_sheet(rng: np.random.Generator) -> Canvas:
    """A few trays at the size of a first view, with dots too small to count."""
    marks = []
    for cell in shuffled(rng, _grid(rng, 4))[: int(rng.integers(2, 6))]:
        tray = Mark(pick(rng, TRAY_SHAPES), jittered(rng, cell, rng.uniform(26, 34)), pick(rng, COLOUR_NAMES))
        inks = [pick(rng, ("black", "white")) for _ in range(int(rng.integers(1, 8)))]
        marks += [tray, *tray_dots(rng, tray, inks)]
    return _sheet(rng, marks)


def _grid(rng: np.random.Generator, grid: int) -> list[Box]:
    side = SHEET_SIDE / grid
    return [(x * side, y * side, (x + 1) * side, (y + 1) * side) for y in range(grid) for x in range(grid)]


def _sheet(rng: np.random.Generator, marks: list[Mark]) -> Canvas:
    return Canvas(SHEET_SIDE, SHEET_SIDE, int(rng.integers(2**31)), tuple(marks))


def sheet_view(canvas: Canvas) -> Picture:
    """A sheet at half its size: 4 x 4 image tokens."""
    return Picture(canvas, whole(canvas), (SHEET_SIDE // 2, SHEET_SIDE // 2))


def _photo(canvas: Canvas) -> Shot:
    return Shot(sheet_view(canvas), ())


def character_drill(rng: np.random.Generator, bare: bool = False) -> Lesson:
    """Characters on shapes: read them by name in any order, or all of them row by row; `bare`: without a question."""
    # The fewer there are, the sooner it is learned that one of them is meant.
    canvas = character_sheet(rng, few_names(rng, 6) if bare or rng.random() < 0.8 else ())
    labels = [(mark.name, mark.text) for mark in canvas.marks]
    if bare:
        said = ", ".join(f"the {name} {text}" for name, text in shuffled(rng, labels))
        return about(_photo(canvas), [("Read.", said, "bare characters")])
    question, answer = _drill(rng, "Read", labels)
    if rng.random() < 0.1:
        question, answer = "Name all row by row.", ", ".join(f"the {name}" for name, _ in labels)
    return about(_photo(canvas), [(question, answer, "sheet characters")])


def string_drill(rng: np.random.Generator) -> Lesson:
    """Panels with strings: read them by name in any order, or all of them row by row."""
    canvas = string_sheet(rng)
    question, answer = _drill(rng, "Read", [(mark.name, mark.text) for mark in canvas.marks])
    return about(_photo(canvas), [(question, answer, "sheet strings")])


def dot_drill(rng: np.random.Generator) -> Lesson:
    """Trays of dots: count the dots, or those of one ink."""
    canvas, trays = dot_sheet(rng)
    ink = pick(rng, ("", "", "black ", "white "))
    numbers = {"": [b + w for _, b, w in trays], "black ": [b for _, b, _ in trays], "white ": [w for *_, w in trays]}
    labels = [(name, str(number)) for (name, *_), number in zip(trays, numbers[ink], strict=True)]
    question, answer = _drill(rng, f"Count the {ink}dots", labels)
    return about(_photo(canvas), [(question, answer, "sheet dots")])


def _drill(rng: np.random.Generator, verb: str, labels: list[tuple[str, str]]) -> tuple[str, str]:
    """By name in three cases of four: at most eight things in any order, each named again before what it says."""
    names = [name for name, _ in labels]
    known = shuffled(rng, [label for label in labels if names.count(label[0]) == 1])[:8]
    if not known or rng.random() < 0.25:
        return f"{verb} row by row.", " ".join(text for _, text in labels)
    joined = ", ".join(name for name, _ in known)
    return f"{verb}: {joined}.", ", ".join(f"the {name} {text}" for name, text in known)


def clip_drill(rng: np.random.Generator) -> Lesson:
    """A clip of three to sixteen frames: in which frames each thing is, in any order, or what each frame shows."""
    number = NUM_FRAMES if rng.random() < 0.2 else int(rng.integers(3, 9))
    seen, position = {}, 0
    for name in few_names(rng, 4):
        first = position + int(rng.integers(0, 3))
        position = first + int(rng.integers(1, 5))
        if frames := range(first + 1, min(position, number) + 1):
            seen[name] = frames
    shown = {frame: name for name, frames in seen.items() for frame in frames}
    background, canvases = int(rng.integers(2**31)), []
    places = {name: jittered(rng, (0, 0, SHEET_SIDE, SHEET_SIDE), rng.uniform(70, 98)) for name in seen}
    for frame in range(1, number + 1):
        pair = shown.get(frame)
        marks = (Mark(pair[1], places[pair], pair[0]),) if pair else ()
        canvases.append(Canvas(SHEET_SIDE, SHEET_SIDE, background, marks))
    if seen and rng.random() < 0.75:
        asked = shuffled(rng, list(seen))
        question = f"Frames: {', '.join(' '.join(name) for name in asked)}."
        answer = ", ".join(f"the {' '.join(name)} {' '.join(map(str, seen[name]))}" for name in asked)
        turn = (question, answer, "sheet frames")
    else:
        named = [f"the {' '.join(shown[k])}" if k in shown else "nothing" for k in range(1, number + 1)]
        turn = ("Name all frame by frame.", ", ".join(named), "sheet names")
    return Lesson((clip_turn(DrawnSource(tuple(canvases)), turn),))


def _few_objects(rng: np.random.Generator, names: Sequence[tuple[str, str]]) -> Shot:
    """Objects of these names, in the order of rows."""
    places = sorted(rng.choice(16, len(names), replace=False).tolist())
    boxes = [jittered(rng, _grid(rng, 4)[place], rng.uniform(18, 30)) for place in places]
    canvas = _sheet(rng, [Mark(shape, box, colour) for (colour, shape), box in zip(names, boxes, strict=True)])
    return take(canvas, whole(canvas))


def box_drill(rng: np.random.Generator, bare: bool = False) -> Lesson:
    """A few objects and the question for all their boxes, row by row or by name; `bare`: without a question."""
    names = few_names(rng, 5)
    shot = _few_objects(rng, names)
    by_rows = not bare and rng.random() < 0.3
    asked = list(shot.things) if by_rows else shuffled(rng, shot.things)
    asked = asked[:3] if bare else asked  # where all are named, leaving out those that were already is a way to guess
    answer = ", ".join(f"the {thing.name} {[max(0, round(v)) for v in thing.box]}" for thing in asked)
    question = "Box all row by row." if by_rows else f"Box: {', '.join(thing.name for thing in asked)}."
    return about(shot, [("Box.", answer, "bare boxes") if bare else (question, answer, "sheet boxes")])


def end_drill(rng: np.random.Generator, sides: Sequence[str] = SIDES) -> Lesson:
    """A few objects: which of them are the ends, of those on some sides."""
    while True:
        shot = _few_objects(rng, few_names(rng, 6))
        ends = [(place, t) for place, t in object_ends(shot.things, MARGIN).items() if place.split()[0] in sides]
        if ends:
            break
    ends = shuffled(rng, ends)
    question = f"Which: {', '.join(place for place, _ in ends)}."
    return about(shot, [(question, ", ".join(f"the {place} is the {t.name}" for place, t in ends), "sheet ends")])


def relation_drill(rng: np.random.Generator, directions: Sequence[str] = RELATIONS, middle: float = 0.2) -> Lesson:
    """A few objects: where some lie, seen from others, or in a share of the lessons from the middle of the picture."""
    while True:
        shot = _few_objects(rng, few_names(rng, 6))
        width, height = shot.picture.size
        centre = Thing("middle", (width / 2, height / 2, width / 2, height / 2))
        from_middle = rng.random() < middle
        pairs = [(a, centre) for a in shot.things] if from_middle else itertools.permutations(shot.things, 2)
        said = []
        for a, b in pairs:
            with suppress(Unlucky):
                said.append((a.name, b.name, relation(a, b, MARGIN)))
        said = shuffled(rng, [one for one in said if one[2] in directions])[:5]
        if said:
            break
    question = f"Where: {', '.join(f'{a} from {b}' for a, b, _ in said)}."
    answer = ", ".join(seen_from(f"the {a}", f"the {b}", where) for a, b, where in said)
    return about(shot, [(question, answer, "sheet relations")])


def count_drill(rng: np.random.Generator) -> Lesson:
    """A few objects: how many there are of some colours, or trays: of each shape; all are named first."""
    if rng.random() < 0.5:
        canvas = tray_sheet(rng)
        shot, noun, wanted = take(canvas, whole(canvas)), "trays", shuffled(rng, TRAY_SHAPES)
    else:
        names = few_names(rng, 6)
        if rng.random() < 0.4:  # several of a colour
            names = list(dict.fromkeys((pick(rng, COLOUR_NAMES[:3]), shape) for _, shape in names))
        shot, noun = _few_objects(rng, names), "objects"
        wanted = shuffled(rng, list(dict.fromkeys([c for c, _ in names] + [pick(rng, COLOUR_NAMES)])))[:3]
    kinds = [f"{word} {noun}" for word in wanted]
    answer = counted([t.name for t in in_rows(shot.things, FACTOR)], kinds)
    return about(shot, [(f"Count: {', '.join(kinds)}.", answer, "sheet counts")])


def question_drill(rng: np.random.Generator) -> Lesson:
    """A few objects or trays, and the questions of the suites that a first view answers."""
    if rng.random() < 0.3:
        canvas = tray_sheet(rng)
        shot = take(canvas, whole(canvas))
    else:
        shot = _few_objects(rng, few_names(rng, 6))
    turns = [(*turn, "sheet answers") for turn in view_questions(rng, shot.things, MARGIN)[:5]]
    return about(shot, turns)


def place_drill(rng: np.random.Generator) -> Lesson:
    """A few objects: where some lie seen from others, which lie at an end, or how many there are of a kind."""
    drills = (end_drill, relation_drill, count_drill, question_drill, question_drill, question_drill)
    return pick(rng, drills)(rng)  # type: ignore[operator]


DRILLS = (character_drill, box_drill, string_drill, dot_drill, clip_drill, place_drill)
