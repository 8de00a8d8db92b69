"""Chats of the micro base: a question comes before the picture that answers it, and pictures are told apart.

The user brings the pictures: nothing is called, and nothing is cut on demand.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agents.boxes import overlap
from agents.micro_lessons import (
    MORE,
    SMALL,
    Lesson,
    Shot,
    Turn,
    about,
    answered,
    clip_turn,
    closeup_region,
    evidence,
    header,
    question_text,
    take,
    whole,
)
from agents.reasons import facts, named, recognisable, sentence, things
from pixel_env.media import Box
from pixel_env.tasks import DrawnSource, Task
from pixel_env.tasks.drawing import Canvas
from pixel_env.tasks.world import pick, shuffled

_SEEN = ("this is {}", "it shows {}")
_SOUGHT = ("Look for the {}.", "Find the {}.", "Which picture shows the {}?")


def followed_lesson(rng: np.random.Generator, task: Task) -> Lesson:
    """A question that the first view cannot answer, then other pictures, of which the last one shows what it takes.

    A chat with pictures that the user brings: nothing is called, and nothing is cut on demand.
    """
    source, cue = task.media, task.cue
    assert isinstance(source, DrawnSource) and cue is not None
    asked, naming = named(task)
    small = pick(rng, SMALL).format(f"{asked[:1].upper()}{asked[1:]}")
    small = f"{naming} {small}" if naming and rng.random() < 0.5 else small
    question = (f"{question_text(task)}\n{pick(rng, MORE)}", small, "remark")
    if source.kind == "video":
        number = min(len(cue.frames), int(rng.integers(1, 4)))
        frames = [cue.frames[k] for k in np.linspace(0, len(cue.frames) - 1, number).round().astype(int)]
        canvases = [source.canvases[frame] for frame in frames]
        why = facts([(canvas, whole(canvas)) for canvas in canvases], task.question)
        shots = [take(canvas, whole(canvas), closeup=True) for canvas in canvases]
        return Lesson((clip_turn(source, question), shown(shots, answered(task, why))))
    canvas = source.canvases[0]
    assert cue.box is not None
    turns = list(about(take(canvas, whole(canvas)), [question]).turns)
    while rng.random() < 0.5 and (wrong := mistaken(rng, canvas, cue.box, asked)):
        turns.append(wrong)
    shot = take(canvas, closeup_region(rng, canvas, cue.box), closeup=True)
    turns.append(shown([shot], f"{sentence(pick(rng, _SEEN).format(asked))} {answered(task, evidence(task))}"))
    return Lesson(tuple(turns))


def mistaken(rng: np.random.Generator, canvas: Canvas, wanted: Box, name: str) -> Turn | None:
    """A close-up of another thing than the one at `wanted`, more often one of a similar name, and what it shows.

    It is named before it is judged: a micro model that has to judge first has not looked yet, and guesses for good.
    """
    words = set(name.split())
    others = [t for t in things(canvas) if recognisable(t) and t.name != "title" and f"the {t.name}" != name]
    alike = [t for t in others if words & (set(t.name.split()) - {"tray", "panel"})]
    for thing in shuffled(rng, alike if alike and rng.random() < 0.7 else others)[:2]:
        shot = take(canvas, closeup_region(rng, canvas, thing.box), closeup=True)
        if not overlap(shot.picture.region, wanted):
            return shown([shot], sentence(f"{pick(rng, _SEEN).format(f'the {thing.name}')}, not {name}"), "check")
    return None


def check_lesson(rng: np.random.Generator, task: Task) -> Lesson | None:
    """Close-ups of a thing that is looked for and of others, in random order; None where nothing can be told apart."""
    canvas = task.media.canvases[0]  # type: ignore[attr-defined]
    known = [t for t in take(canvas, whole(canvas)).askable() if recognisable(t) and t.name != "title"]
    if len(known) < 2:
        return None
    name = pick(rng, known).name
    wanted = next(thing for thing in things(canvas) if thing.name == name)
    turns: list[Turn] = []
    while len(turns) < 4:
        turn = mistaken(rng, canvas, wanted.box, f"the {name}") if rng.random() < 0.6 else None
        if turn is None:
            shot = take(canvas, closeup_region(rng, canvas, wanted.box), closeup=True)
            turn = shown([shot], sentence(pick(rng, _SEEN).format(f"the {name}")), "check")
        turns.append(turn)
    first = replace(turns[0], text=f"{pick(rng, _SOUGHT).format(name)}\n{turns[0].text}")
    return Lesson((first, *turns[1:]))


def shown(shots: Sequence[Shot], answer: str, skill: str = "followed answer") -> Turn:
    """A turn that shows pictures and asks nothing new."""
    pictures = tuple(shot.picture for shot in shots)
    return Turn("".join(map(header, pictures)).rstrip("\n"), pictures, answer, skill)
