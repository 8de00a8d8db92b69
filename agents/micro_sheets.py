"""Sheets: pictures with many labels each, and the drills on them that teach a micro model to look things up.

A picture of a natural lesson answers a few questions; a sheet answers a dozen in one sequence. Without so many labels a
picture, neither the tower nor the language model leaves the plateau at which it guesses (benchmarks/results).
"""

from dataclasses import replace

import numpy as np

from agents.micro_lessons import CLIP_TASKS, Lesson, Shot, Turn, about, clip_turn, frame_queries, ground, take
from agents.micro_seeing import dense_labels
from pixel_env.media import Box, view
from pixel_env.tasks import DrawnSource
from pixel_env.tasks.drawing import COLOUR_NAMES, SHAPES, Canvas, Mark, draw, text_width
from pixel_env.tasks.scenes import TRAY_SHAPES, tray_dots
from pixel_env.tasks.world import DIGITS, LETTERS, contrast, glyph_mark, jittered, pick, shuffled

SHEET_SIDE = 224


def character_sheet(rng: np.random.Generator) -> Canvas:
    """A picture that is nothing but characters on shapes, one in each cell of a grid."""
    marks = []
    for cell in _grid(rng, int(rng.choice([4, 4, 3, 3, 2]))):
        side = cell[2] - cell[0]
        box = jittered(rng, cell, side * rng.uniform(0.6, 0.9))
        mark = glyph_mark((pick(rng, COLOUR_NAMES), pick(rng, SHAPES)), box, pick(rng, DIGITS + LETTERS))
        marks.append(replace(mark, text_height=(box[2] - box[0]) * rng.uniform(0.3, 0.55)))
    return _sheet(rng, marks)


def string_sheet(rng: np.random.Generator) -> Canvas:
    """Coloured panels with short strings, in one or two columns."""
    columns, rows = int(rng.integers(1, 3)), int(rng.integers(2, 6))
    marks = []
    for k in range(columns * rows):
        w, h = SHEET_SIDE / columns, SHEET_SIDE / rows
        height = rng.uniform(14, 22)
        text = "".join(pick(rng, LETTERS + DIGITS) for _ in range(int(rng.integers(1, 7 if columns == 2 else 12))))
        width = min(w - 4, max(text_width(text, height) + 8, 30.0))
        x, y = k % columns * w + rng.uniform(0, w - width), k // columns * h + rng.uniform(0, max(0.0, h - height - 8))
        box = (round(x), round(y), round(x + width), round(y + min(h - 2, height + 8)))
        colour = pick(rng, (*COLOUR_NAMES, "white"))
        marks.append(
            Mark("panel", box, colour, text, height * min(1.0, (w - 8) / text_width(text, height)), contrast(colour))
        )
    return _sheet(rng, marks)


def dot_sheet(rng: np.random.Generator) -> tuple[Canvas, list[tuple[str, int, int]]]:
    """Trays of dots, and for each its name and its black and white dots."""
    marks, trays = [], []
    for cell in _grid(rng, int(rng.choice([3, 2, 2, 1]))):
        box = jittered(rng, cell, (cell[2] - cell[0]) * rng.uniform(0.6, 0.95))
        tray = Mark(pick(rng, TRAY_SHAPES), box, pick(rng, COLOUR_NAMES))
        black, white = int(rng.integers(0, 5)), int(rng.integers(0, 5))
        marks += [tray, *tray_dots(rng, tray, shuffled(rng, ["black"] * black + ["white"] * white), 3)]
        trays.append((f"{tray.name} tray", black, white))
    return _sheet(rng, marks), trays


def _grid(rng: np.random.Generator, grid: int) -> list[Box]:
    side = SHEET_SIDE / grid
    return [(x * side, y * side, (x + 1) * side, (y + 1) * side) for y in range(grid) for x in range(grid)]


def _sheet(rng: np.random.Generator, marks: list[Mark]) -> Canvas:
    return Canvas(SHEET_SIDE, SHEET_SIDE, int(rng.integers(2**31)), tuple(marks))


def _photo(canvas: Canvas) -> Shot:
    whole, size = (0, 0, SHEET_SIDE, SHEET_SIDE), (112, 112)
    return Shot(view(draw(canvas), whole, size), (), dense_labels(canvas, whole, size))


def character_drill(rng: np.random.Generator) -> Lesson:
    """A sheet of characters: read them by name in any order, or all of them row by row."""
    canvas = character_sheet(rng)
    labels = [(mark.name, mark.text) for mark in canvas.marks]
    question, answer = _drill(rng, "Read", labels)
    if rng.random() < 0.1:
        question, answer = "Name all row by row.", ", ".join(name for name, _ in labels)
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
    return f"{verb}: {joined}.", ", ".join(f"{name} {text}" for name, text in known)


def clip_drill(rng: np.random.Generator) -> Lesson:
    """All frames of a clip: what is in each, then in which frames each thing is."""
    source = CLIP_TASKS[int(rng.integers(len(CLIP_TASKS)))].media
    assert isinstance(source, DrawnSource)
    named = [" and ".join(mark.name for mark in canvas.marks) or "nothing" for canvas in source.canvases]
    turns = [("Name all frame by frame.", ", ".join(named), "sheet frames")]
    turns += frame_queries(rng, source)[:2]
    first, *rest = shuffled(rng, turns)
    return Lesson((clip_turn(source, first), *(Turn(q, (), a, s) for q, a, s in rest)))


def box_drill(rng: np.random.Generator) -> Lesson:
    """A few objects and the question for all their boxes, row by row or by name."""
    places = sorted(rng.choice(16, int(rng.integers(2, 6)), replace=False).tolist())
    grid, pairs = _grid(rng, 4), shuffled(rng, [(colour, shape) for colour in COLOUR_NAMES for shape in SHAPES])
    boxes = [jittered(rng, grid[place], rng.uniform(18, 30)) for place in places]
    marks = [Mark(shape, box, colour) for (colour, shape), box in zip(pairs, boxes, strict=False)]
    canvas = _sheet(rng, marks)
    shot = take(draw(canvas), canvas, (0, 0, SHEET_SIDE, SHEET_SIDE))
    question, answer = ground(rng, shuffled(rng, shot.things))
    if rng.random() < 0.5:
        question, answer = "Locate all row by row.", ground(rng, shot.things)[1]
    return about(shot, [(question, answer, "ground")])


DRILLS = (character_drill, box_drill, string_drill, dot_drill, clip_drill)
