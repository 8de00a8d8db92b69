"""Suite ``clip`` (after MVBench): which, when, how many and in what order, of brief events in a 16-frame video."""

from dataclasses import dataclass

import numpy as np

from pixel_env.media import Box
from pixel_env.tasks.drawing import Canvas, Mark
from pixel_env.tasks.scenes import Unlucky
from pixel_env.tasks.task import Cue
from pixel_env.tasks.world import (
    ANSWER_LETTERS,
    DIGITS,
    LETTERS,
    NUM_FRAMES,
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
)

EVENTS = {1: (1, 2), 2: (2, 3), 3: (4, 5)}


@dataclass(frozen=True)
class Event:
    """An object that appears in frames ``first`` to ``last`` (0-based, inclusive) at one place with one character."""

    pair: Pair
    first: int
    last: int
    box: Box
    glyph: str

    @property
    def name(self) -> str:
        """How a question refers to the event's object."""
        return " ".join(self.pair)

    @property
    def frames(self) -> tuple[int, ...]:
        """Frames in which the object is visible, 0-based."""
        return tuple(range(self.first, self.last + 1))


def clip(rng: np.random.Generator, world: World, level: int) -> Draft:
    """One task of the suite ``clip``: three in four need larger frames to read a character.

    A frame of the first view is too small for a legible one, so level 0 asks only for what is seen from afar.
    """
    while True:
        try:
            return _clip(rng, world, level)
        except Unlucky:
            continue


def _clip(rng: np.random.Generator, world: World, level: int) -> Draft:
    size = world.clip_size(rng)
    events = _events(rng, world, level, size)
    if not world.legible and rng.random() < 0.75:
        kinds = [_which_digit, _which_letter] + ([_when_digit, _order_of_digits] if level > 2 else [])
    else:
        kinds = [_when, _how_many] + ([_order] if len(events) > 1 else [])
    events, question, answer, kind, needs, frames, choices = pick(rng, kinds)(rng, events)
    cue = Cue(events[0].box if len(frames) == len(events[0].frames) else None, frames)
    return Draft(question, _canvases(rng, world, size, events), (answer,), kind, needs, cue, choices)


def _events(rng: np.random.Generator, world: World, level: int, size: Size) -> list[Event]:
    """Events one after another, in random order of names; at level 3 their times may touch."""
    number = int(rng.integers(EVENTS[level][0], EVENTS[level][1] + 1))
    unit = world.unit(size, NUM_FRAMES)
    target = pick(rng, world.target_pairs)
    others = [p for p in shuffled(rng, world.pairs) if p[0] != target[0]]
    near = [p for p in world.pairs if p[0] == target[0] and p != target] if level > 2 else []
    pairs = shuffled(rng, [target, *shuffled(rng, near)[:1], *others][:number])
    starts = sorted(int(s) for s in rng.choice(NUM_FRAMES - 1, size=number, replace=False))
    events = []
    for k, (pair, start) in enumerate(zip(pairs, starts, strict=True)):
        end = starts[k + 1] - 1 if k + 1 < number else NUM_FRAMES - 1
        last = min(end, start + int(rng.integers(0, 4)))
        side = round(world.object_side(rng) * unit)
        x = int(rng.integers(1, size[0] - side - 1))
        y = int(rng.integers(1, size[1] - side - 1))
        events.append(Event(pair, start, last, (x, y, x + side, y + side), pick(rng, DIGITS + LETTERS)))
    position = pairs.index(target)
    return [events[position], *events[:position], *events[position + 1 :]]


def _canvases(rng: np.random.Generator, world: World, size: Size, events: list[Event]) -> tuple[Canvas, ...]:
    background = int(rng.integers(2**31))
    scenery = _scenery(rng, world, size, events) if world.clutter > 1 else []
    return tuple(
        Canvas(*size, background, (*scenery, *(glyph_mark(e.pair, e.box, e.glyph) for e in events if t in e.frames)))
        for t in range(NUM_FRAMES)
    )


def _scenery(rng: np.random.Generator, world: World, size: Size, events: list[Event]) -> list[Mark]:
    """Objects that stand in every frame, without a character and never asked about; events pass in front of them."""
    unit = world.unit(size, NUM_FRAMES)
    pairs = [p for p in shuffled(rng, world.pairs) if p not in [e.pair for e in events]][: 3 * world.clutter]
    places = shuffled(rng, cells(size, unit))
    return [
        Mark(shape, jittered(rng, place, world.object_side(rng) * unit), colour)
        for (colour, shape), place in zip(pairs, places, strict=False)
    ]


Question = tuple[list[Event], str, str, str, bool, tuple[int, ...], tuple[str, ...]]
"""events (asked about first), question, answer, answer kind, needs an operation, cue frames, choices"""


def _with_glyphs(events: list[Event], glyphs: list[str]) -> list[Event]:
    renamed = [Event(e.pair, e.first, e.last, e.box, g) for e, g in zip(events, glyphs, strict=False)]
    return renamed + events[len(renamed) :]


def _which(rng: np.random.Generator, events: list[Event], alphabet: str, noun: str) -> Question:
    answer = pick(rng, alphabet)
    events = _with_glyphs(events, [answer])
    shown = [e.glyph for e in events[1:] if e.glyph in alphabet]
    choices = choices_for(rng, answer, shown[:2] + shuffled(rng, alphabet)[:4])
    return events, f"Which {noun} is on the {events[0].name}?", answer, "choice", True, events[0].frames, choices


def _which_digit(rng: np.random.Generator, events: list[Event]) -> Question:
    return _which(rng, events, DIGITS, "digit")


def _which_letter(rng: np.random.Generator, events: list[Event]) -> Question:
    return _which(rng, events, ANSWER_LETTERS, "letter")


def _when_digit(rng: np.random.Generator, events: list[Event]) -> Question:
    digits = shuffled(rng, DIGITS)[: len(events)]
    events = _with_glyphs(events, digits)
    question = f"In which frame does the digit {digits[0]} first appear?"
    return events, question, str(events[0].first + 1), "number", True, events[0].frames, ()


def _order_of_digits(rng: np.random.Generator, events: list[Event]) -> Question:
    digits = shuffled(rng, DIGITS)[: len(events)]
    events = _with_glyphs(events, digits)
    a, b = events[:2]
    first = min(a, b, key=lambda e: e.first)
    choices = tuple(shuffled(rng, (a.glyph, b.glyph)))
    question = f"Which digit appears first, {choices[0]} or {choices[1]}?"
    return events, question, first.glyph, "choice", True, tuple(sorted(a.frames + b.frames)), choices


def _when(rng: np.random.Generator, events: list[Event]) -> Question:
    question = f"In which frame does the {events[0].name} first appear?"
    return events, question, str(events[0].first + 1), "number", False, events[0].frames, ()


def _how_many(rng: np.random.Generator, events: list[Event]) -> Question:
    question = f"In how many frames is the {events[0].name} visible?"
    return events, question, str(len(events[0].frames)), "number", False, events[0].frames, ()


def _order(rng: np.random.Generator, events: list[Event]) -> Question:
    a, b = events[:2]
    first = min(a, b, key=lambda e: e.first)
    choices = tuple(shuffled(rng, (a.name, b.name)))
    question = f"Which appears first, the {choices[0]} or the {choices[1]}?"
    return events, question, first.name, "choice", False, tuple(sorted(a.frames + b.frames)), choices
