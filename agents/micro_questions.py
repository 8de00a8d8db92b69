"""Questions that a first view answers, many about one picture, in the words of the suites.

The suites ask one question a picture. A micro model that has learned on sheets where things lie does not find it out
for a question that it has read a hundred times only: what it looks up is bound to the words that ask for it.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import permutations

import numpy as np

from agents.micro import FACTOR
from agents.reasons import (
    MOST_NAMED,
    Thing,
    counted,
    in_rows,
    object_ends,
    panels,
    places,
    seen_from,
    seen_in,
    seen_in_order,
    sentence,
    shown_name,
)
from pixel_env.tasks.drawing import COLOUR_NAMES
from pixel_env.tasks.scenes import RELATIONS, TRAY_SHAPES, Unlucky, relation
from pixel_env.tasks.world import choices_for, pick, shuffled

FINAL = "Put the final answer within \\boxed{}."


def worded(question: str, choices: Sequence[str]) -> str:
    """A question, its choices and the request for a boxed answer, as the environment words them."""
    options = [f"({chr(65 + k)}) {choice}" for k, choice in enumerate(choices)]
    return "\n".join([question, *options, FINAL])


def boxed(why: str, answer: str) -> str:
    """An answer in its box, behind what it follows from, if that is known."""
    return f"{sentence(why)} " * bool(why) + f"\\boxed{{{answer}}}"


def view_questions(rng: np.random.Generator, things: Sequence[Thing], margin: float) -> list[tuple[str, str]]:
    """Questions and answers about some things, in random order: where they lie, which is at an end, how many there are.

    Args:
        rng: Draws everything.
        things: All things of a view.
        margin: By which what is named by its place leads, in the pixels of their boxes.
    """
    names = [thing.name for thing in things]
    colours = list(dict.fromkeys(c for c in map(_colour, things) if c in COLOUR_NAMES))
    found = []
    ends = places(things, margin) if panels(things) else object_ends(things, margin)
    for place, thing in ends.items():
        if (colour := _colour(thing)) in colours and names.count(thing.name) == 1:
            choices = choices_for(rng, colour, list(dict.fromkeys([*colours, *shuffled(rng, COLOUR_NAMES)]))[:5])
            asked = place.replace("panel", "icon") if shown_name(thing) != thing.name else place
            question = worded(f"Which colour is the {asked}?", choices)
            found.append((question, boxed(f"the {asked} is the {shown_name(thing)}", colour)))
    objects = [t for t in things if t.text == "" or len(t.text) == 1]
    for a, b in shuffled(rng, [(a, b) for a in objects for b in objects if a is not b])[:6]:
        if names.count(a.name) == names.count(b.name) == 1:
            with suppress(Unlucky):
                where = relation(a, b, 1.5 * margin)
                question = worded(f"Where is the {a.name}, seen from the {b.name}?", shuffled(rng, RELATIONS))
                found.append((question, boxed(seen_from(f"the {a.name}", f"the {b.name}", where), where)))
    if colours and len(objects) == len(things) <= MOST_NAMED:
        trays = any(name.endswith(" tray") for name in names)
        kinds = [f"{pick(rng, TRAY_SHAPES)} tray"] if trays else []
        kinds += [f"{colour} object" for colour in dict.fromkeys((pick(rng, COLOUR_NAMES), pick(rng, colours)))]
        for kind in kinds:
            why = counted([t.name for t in in_rows(things, FACTOR)], [f"{kind}s"])
            found.append((worded(f"How many {kind}s are there?", ()), boxed(why, why.rpartition(" ")[2])))
    if 0 < len(some := panels(things)) <= MOST_NAMED:
        why = counted([shown_name(t) for t in some], ["panels"])
        found.append((worded("How many panels are on the page?", ()), boxed(why, str(len(some)))))
    return shuffled(rng, found)


def clip_questions(rng: np.random.Generator, frames: Mapping[str, Sequence[int]]) -> list[tuple[str, str]]:
    """Questions and answers about in which frames the things of a clip are, in random order.

    Args:
        rng: Draws everything.
        frames: Numbers of frames, from 1, of each thing by its name.
    """
    found = []
    for name, numbers in frames.items():
        first, number, why = str(numbers[0]), str(len(numbers)), seen_in(name, numbers)
        found.append((worded(f"In which frame does the {name} first appear?", ()), boxed(why, first)))
        found.append((worded(f"In how many frames is the {name} visible?", ()), boxed(f"{why}: {number}", number)))
    for a, b in shuffled(rng, list(permutations(frames, 2)))[:2]:
        if frames[a][0] != frames[b][0]:
            question = worded(f"Which appears first, the {a} or the {b}?", (a, b))
            why = seen_in_order({a: frames[a], b: frames[b]})
            found.append((question, boxed(why, min((a, b), key=lambda name: frames[name][0]))))
    return shuffled(rng, found)


def _colour(thing: Thing) -> str:
    return shown_name(thing).split()[0]
