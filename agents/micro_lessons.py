"""What the micro base is taught: to describe, to ground, to read close-ups, to answer from one view, to call functions.

A lesson is a few turns about one picture or clip. Nothing here is a trajectory of the environment: no lesson shows the
result of a call, and the functions that are offered have other names than the environment's.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from agents.micro import FACTOR
from agents.micro_calls import call_box, call_entries, offer, some_call
from agents.micro_questions import boxed, clip_questions, view_questions, worded
from agents.micro_seeing import Picture
from agents.reasons import Thing, fact, facts, frames_of, in_rows, places, reason, sentence, things
from pixel_env import prompts
from pixel_env.media import MAX_ENLARGEMENT, Box, view_size
from pixel_env.tasks import DrawnSource, ProceduralTasks, Task
from pixel_env.tasks.drawing import COLOUR_NAMES, SHAPES, Canvas
from pixel_env.tasks.world import DIGITS, NUM_FRAMES, VIEW_PIXELS, pick, shuffled

PIXELS = VIEW_PIXELS["micro"]
LEVELS = (1, 1, 2, 2, 3)
IMAGE_TASKS = ProceduralTasks(("search", "count", "read"), difficulty=LEVELS, preset="micro", seed=1)
CLIP_TASKS = ProceduralTasks(("clip",), difficulty=LEVELS, preset="micro", seed=1)
MARGIN = 8.0
"""View pixels by which what is named by its place leads."""
LEGIBLE = 6.0
"""Height in view pixels from which a character can be asked for."""


@dataclass(frozen=True)
class Shot:
    """A view of a region of a canvas, and the things of the canvas in view pixels."""

    picture: Picture
    things: tuple[Thing, ...]
    closeup: bool = False

    def visible(self, thing: Thing) -> bool:
        """Whether the thing lies wholly in the view."""
        width, height = self.picture.size
        x1, y1, x2, y2 = thing.box
        return x1 >= -0.5 and y1 >= -0.5 and x2 <= width + 0.5 and y2 <= height + 0.5

    def askable(self) -> list[Thing]:
        """What lies wholly in the view and has a name of its own."""
        names = [t.name for t in self.things]
        return [t for t in self.things if self.visible(t) and names.count(t.name) == 1]


@dataclass(frozen=True)
class Turn:
    """One exchange: what is said and shown, the answer to learn, the skill it belongs to."""

    text: str
    images: tuple[Picture, ...]
    answer: str
    skill: str


@dataclass(frozen=True)
class Lesson:
    """Turns about one picture or clip; `system` offers functions, if any."""

    turns: tuple[Turn, ...]
    system: str = ""


def take(canvas: Canvas, region: Box, max_pixels: int = PIXELS, closeup: bool = False) -> Shot:
    """Cut and resize a region of a canvas, as the environment does."""
    x1, y1, x2, y2 = region
    size = view_size(x2 - x1, y2 - y1, max_pixels, FACTOR, MAX_ENLARGEMENT if closeup else 1.0)
    sx, sy = size[0] / (x2 - x1), size[1] / (y2 - y1)
    seen = tuple(
        Thing(t.name, ((t.box[0] - x1) * sx, (t.box[1] - y1) * sy, (t.box[2] - x1) * sx, (t.box[3] - y1) * sy),
              t.text, t.text_height * min(sx, sy), t.dots)
        for t in things(canvas)
    )  # fmt: skip
    return Shot(Picture(canvas, region, size), seen, closeup)


def whole(canvas: Canvas) -> Box:
    """The region that is all of a canvas."""
    return (0.0, 0.0, float(canvas.width), float(canvas.height))


def closeup_region(rng: np.random.Generator, canvas: Canvas, box: Box) -> Box:
    """A box around `box`, from tight to four times its side, the target anywhere in it, any moderate aspect."""
    side = max(box[2] - box[0], box[3] - box[1])
    extra = side * float(np.exp(rng.uniform(np.log(0.15), np.log(3.0))))
    w, h = (extent + extra * rng.uniform(0.6, 1.4) for extent in (box[2] - box[0], box[3] - box[1]))
    x1 = box[0] - rng.uniform(0.1, 0.9) * (w - (box[2] - box[0]))
    y1 = box[1] - rng.uniform(0.1, 0.9) * (h - (box[3] - box[1]))
    return (max(0.0, x1), max(0.0, y1), min(float(canvas.width), x1 + w), min(float(canvas.height), y1 + h))


# --- turns about a shot ---------------------------------------------------------------------------------------------


def ground(rng: np.random.Generator, some: Sequence[Thing]) -> tuple[str, str]:
    """Where are X, Y, ...: each named again, with its box in pixels of the view."""
    question = pick(rng, ("Where is the {}?", "Locate the {}.", "Give the box of the {}."))
    boxes = [f"the {t.name} {_box(t)}" for t in some]
    return question.format(", ".join(thing.name for thing in some)), "\n".join(boxes)


def _box(thing: Thing) -> str:
    return json.dumps({"bbox_2d": [max(0, round(v)) for v in thing.box]})


def read(rng: np.random.Generator, thing: Thing) -> tuple[str, str]:
    """What is written on X."""
    question = pick(rng, ("What is written in the {}?", "Read the {}.")).format(thing.name)
    if len(thing.text) == 1:
        noun = "digit" if thing.text in DIGITS else "letter"
        question = f"Which {noun} is on the {thing.name}?"
    elif thing.name == "title":
        question = "What is the title of the page?"
    elif thing.name.startswith("text "):
        question = pick(rng, ("What is written {}?", "Read the text {}.")).format(thing.name[5:])
    return question, sentence(fact(thing, question))


def tally(rng: np.random.Generator, thing: Thing) -> tuple[str, str]:
    """How many dots are in X."""
    ink = pick(rng, ("", "", "black ", "white "))
    question = f"How many {ink}dots are in the {thing.name}?"
    return question, sentence(fact(thing, question))


def describe(shot: Shot) -> tuple[str, str]:
    """What is in the picture, row by row."""
    seen = in_rows((t for t in shot.things if shot.visible(t) and t.name != "title"), FACTOR)
    return "What is in the picture, row by row?", ", ".join(f"the {t.name}" for t in seen) or "nothing"


def ends(shot: Shot) -> list[tuple[str, Thing]]:
    """What can be named by its place and has a name of its own: ("leftmost object", the thing)."""
    known = shot.askable()
    return [(place, thing) for place, thing in places(shot.things, MARGIN).items() if thing in known]


def by_place(rng: np.random.Generator, place: str, thing: Thing) -> tuple[str, str]:
    """Which thing is at a place, half of the time with its box."""
    name = f"the {place} is the {thing.name}"
    if rng.random() < 0.5:
        return pick(rng, (f"Which is the {place}?", f"Name the {place}.")), sentence(name)
    return ground(rng, [replace(thing, name=place)])[0], f"{name} {_box(thing)}"


def lesson(rng: np.random.Generator, shot: Shot, most: int = 4) -> Lesson:
    """Up to `most` turns about a shot, in random order."""
    known = shot.askable()
    turns: list[tuple[str, str, str]] = []
    for thing in shuffled(rng, known)[:5]:
        if thing.text and thing.text_height >= LEGIBLE:
            turns.append((*read(rng, thing), "read" if len(thing.text) == 1 else "string"))
        if thing.dots is not None and thing.box[2] - thing.box[0] > 30:
            turns.append((*tally(rng, thing), "tally"))
    solid = shuffled(rng, [thing for thing in known if thing.name != "title"])
    if solid and (not shot.closeup or rng.random() < 0.25):
        turns.append((*ground(rng, solid[: pick(rng, (1, 3, 4, 5))]), "ground"))
    if 0 < len(known) <= 6 and rng.random() < 0.35:
        turns.append((*describe(shot), "describe"))
    if not shot.closeup:
        turns += [(*turn, "answer") for turn in view_questions(rng, shot.things, MARGIN)[:4]]
    if not shot.closeup and rng.random() < 0.6:
        turns += [(*by_place(rng, place, thing), "place") for place, thing in shuffled(rng, ends(shot))[:2]]
    chosen = shuffled(rng, turns)[:most] or [(*describe(shot), "describe")]
    return about(shot, chosen)


def header(picture: Picture) -> str:
    """What stands before a picture; its number is put in when lessons are joined."""
    return f"Image {{number}} ({picture.size[0]}x{picture.size[1]}): {prompts.IMAGE_MARKER}\n"


def about(shot: Shot, turns: Sequence[tuple[str, str, str]], system: str = "", prefix: str = "") -> Lesson:
    """A lesson of (question, answer, skill) turns; the first one shows the shot."""
    (question, answer, skill), *rest = turns
    first = Turn(header(shot.picture) + prefix + question, (shot.picture,), answer, skill)
    return Lesson((first, *(Turn(q, (), a, s) for q, a, s in rest)), system)


# --- questions, calls and clips -------------------------------------------------------------------------------------


def question_text(task: Task) -> str:
    """The question, its choices and the request for a boxed answer, worded as the environment does."""
    return worded(task.question, task.choices)


def mark_lesson(rng: np.random.Generator, shot: Shot) -> Lesson:
    """One thing after another that is to be marked by a call of the function on offer; no call is answered."""
    system, names = offer(rng)
    verb = names["crop_image"].partition("_")[0]
    question = pick(rng, (f"{verb.capitalize()} the {{}}.", f"Now {verb} the {{}}.", f"Please {verb} the {{}}."))
    said = pick(rng, ("The {}. ", "The {} is here. ", f"{verb.capitalize()} the {{}}. "))
    turns = [
        (question.format(thing.name), said.format(thing.name) + call_box(names, thing.box), "mark")
        for thing in shuffled(rng, [t for t in shot.askable() if t.name != "title"])[:4]
    ]
    for place, thing in shuffled(rng, ends(shot))[:1]:
        remark = sentence(f"the {place} is the {thing.name}")
        turns[0] = (question.format(place), f"{remark} {call_box(names, thing.box)}", "mark")
    turns = shuffled(rng, turns)
    return about(shot, turns, system)


def asked(rng: np.random.Generator, lesson: Lesson, size: tuple[int, int]) -> Lesson:
    """A question on a view of a size, functions sometimes on offer, and sometimes used.

    Answers weigh more than calls, and most questions come without an offer: a base calls less often than its lessons.
    """
    if rng.random() < 0.5:
        return lesson
    system, names = offer(rng)
    turn = lesson.turns[0]
    if rng.random() < 0.5:
        turn = replace(turn, answer=some_call(rng, names, size), skill="call")
    return Lesson((turn,), system)


def answered(task: Task, why: str) -> str:
    """The right answer in its box, behind what it follows from, if that is known."""
    return boxed(why, task.answers[0])


def question_lesson(rng: np.random.Generator, task: Task) -> Lesson:
    """A task's own question, on a view in which it can be answered (or, one time in four, only guessed)."""
    canvas = task.media.canvases[0]  # type: ignore[attr-defined]
    closer = bool(task.needs_operation) and rng.random() < 0.75 and task.cue is not None and task.cue.box is not None
    if closer:
        shot = take(canvas, closeup_region(rng, canvas, task.cue.box), closeup=True)  # type: ignore[union-attr, arg-type]
    else:
        shot = take(canvas, whole(canvas))
    skill = "closeup answer" if closer else ("guess" if task.needs_operation else "answer")
    why = evidence(task) if closer else reason(task)
    turn = (question_text(task), answered(task, why), skill)
    return asked(rng, about(shot, [turn]), shot.picture.size)


def conclusion_lesson(rng: np.random.Generator, tasks: Sequence[ProceduralTasks], count: int = 5) -> Lesson:
    """Questions without pictures, each behind what answers it: to repeat that and to conclude."""
    turns: list[Turn] = []
    while len(turns) < count:
        if rng.random() < 0.3:  # what comes first is the one conclusion that compares, and rare among the tasks
            query, answer = next(one for one in clip_questions(rng, _some_frames(rng)) if "appears first" in one[0])
            turns.append(Turn(f"{answer.partition(': ')[0]}.\n{query}", (), answer, "conclusion"))
            continue
        some = pick(rng, tasks)
        task = some[int(rng.integers(len(some)))]
        if task.needs_operation and rng.random() < 0.6:
            continue  # these are nearly all "it says 5: 5"
        why = evidence(task) if task.needs_operation else reason(task)
        if why and not (task.needs_operation and " first" in task.question):  # what frames show does not number them
            turns.append(Turn(f"{sentence(why)}\n{question_text(task)}", (), answered(task, why), "conclusion"))
    return Lesson(tuple(turns))


def _some_frames(rng: np.random.Generator) -> dict[str, list[int]]:
    """Two things of a clip that begin in different frames, and the numbers of their frames, from 1."""
    names = [f"{pick(rng, COLOUR_NAMES)} {shape}" for shape in shuffled(rng, SHAPES)[:2]]
    begun = rng.choice(NUM_FRAMES, 2, replace=False) + 1
    ended = np.minimum(begun + rng.integers(0, 5, 2), NUM_FRAMES)
    return {name: list(range(first, last + 1)) for name, first, last in zip(names, begun, ended, strict=True)}


def evidence(task: Task) -> str:
    """What the cue of a drawn task shows."""
    source, cue = task.media, task.cue
    assert isinstance(source, DrawnSource) and cue is not None
    if source.kind == "video":
        canvases = [source.canvases[frame] for frame in cue.frames]
        return facts([(canvas, whole(canvas)) for canvas in canvases], task.question)
    assert cue.box is not None
    return facts([(source.canvases[0], cue.box)], task.question)


def clip_turn(source: DrawnSource, query: tuple[str, str, str]) -> Turn:
    """A question on all frames of a clip, shown as in the environment's first view; `query` as in `frame_queries`."""
    size = view_size(source.width, source.height, PIXELS // NUM_FRAMES, FACTOR)
    pictures = tuple(Picture(canvas, whole(canvas), size) for canvas in source.canvases)
    seconds = [source.timestamp(k) for k in range(source.num_frames)]
    return Turn(prompts.video_lines(seconds, size) + "\n" + query[0], pictures, *query[1:])


def frame_queries(rng: np.random.Generator, source: DrawnSource) -> list[tuple[str, str, str]]:
    """In which frames is X, as (question, answer, skill), for all things of a clip in random order."""
    question = pick(rng, ("In which frames is the {}?", "Give the frames of the {}."))
    return [
        (question.format(name), json.dumps({"target_frames": numbers}), "frames")
        for name, numbers in shuffled(rng, list(frames_of(source).items()))
    ]


def mark_queries(rng: np.random.Generator, source: DrawnSource, names: dict[str, str]) -> list[tuple[str, str, str]]:
    """The frames of each thing of a clip, to be marked by a call of the second of the offered functions."""
    verb = names["select_frames"].partition("_")[0].capitalize()
    return [
        (
            f"{verb} the frames of the {name}.",
            f"The frames of the {name}. {call_entries(names, numbers)}",
            "mark frames",
        )
        for name, numbers in shuffled(rng, list(frames_of(source).items()))
    ]


def clip_lesson(rng: np.random.Generator, task: Task) -> Lesson:
    """All frames of a clip as small pictures: in which frames is X, and the task's own question."""
    source = task.media
    assert isinstance(source, DrawnSource)
    answer = (question_text(task), answered(task, reason(task)), "guess" if task.needs_operation else "answer")
    if rng.random() < 0.3:
        turn = clip_turn(source, answer)
        return asked(rng, Lesson((turn,)), turn.images[0].size)
    system = ""
    if rng.random() < 0.4:
        system, names = offer(rng)
        turns = mark_queries(rng, source, names)
    else:
        questions = [(*turn, "answer") for turn in clip_questions(rng, frames_of(source))[:3]]
        turns = shuffled(rng, [*frame_queries(rng, source)[:1], *questions, answer])
    return Lesson((clip_turn(source, turns[0]), *(Turn(q, (), a, s) for q, a, s in turns[1:4])), system)


# --- places and views of pictures -----------------------------------------------------------------------------------

MORE = ("More pictures follow.", "A larger picture follows.", "Wait for the next picture.")
SMALL = ("{} is too small to read.", "{} is too small here.")


def places_lesson(rng: np.random.Generator, task: Task) -> Lesson | None:
    """What is at the places of a task's picture, in all the words that ask for it; None where no place has a thing.

    In the words of a drill, in those of a suite before what they ask for can be read, or which one it is: a micro model
    binds what it looks up to the words that asked for it.
    """
    canvas = task.media.canvases[0]  # type: ignore[attr-defined]
    shot = take(canvas, whole(canvas))
    found = shuffled(rng, ends(shot))
    if not found:
        return None
    said = {place: f"the {place} is the {thing.name}" for place, thing in found}
    turns = [(f"Which: {', '.join(said)}.", ", ".join(said.values()), "place")]
    for place, thing in found:
        asked, _ = read(rng, replace(thing, name=place))
        small = pick(rng, SMALL).format(f"The {thing.name}")
        turns.append((f"{asked}\n{pick(rng, MORE)}", f"{sentence(said[place])} {small}", "place"))
        turns.append((*by_place(rng, place, thing), "place"))
    return about(shot, shuffled(rng, turns)[:4])


def view_lesson(rng: np.random.Generator, task: Task) -> Lesson | None:
    """Questions that the first view of a task's picture answers, in the words of the suites; None if there are none."""
    canvas = task.media.canvases[0]  # type: ignore[attr-defined]
    shot = take(canvas, whole(canvas))
    turns = [(*turn, "answer") for turn in view_questions(rng, shot.things, MARGIN)[:4]]
    return about(shot, turns) if turns else None


def corpus(seed: int = 0) -> list[str]:
    """Sentences to train the tokenizer on: questions, prompts and answers, but no random strings."""
    rng = np.random.default_rng(seed)
    texts: list[str] = []
    for task in (ProceduralTasks(preset="micro")[i] for i in range(1200)):
        words = [w for w in task.question.split(" ") if not (w.isupper() and len(w) > 1)]
        texts.append(" ".join(words) + "\n(A) red\n(B) " + pick(rng, COLOUR_NAMES))
    texts += [offer(rng)[0] for _ in range(60)] + [
        prompts.instructions(c) for c in prompts.COORDINATES for _ in range(40)
    ]
    texts += [prompts.GUIDELINE, prompts.video_lines([0.0, 0.5], (28, 28)), prompts.crop_line(1, (112, 112), 0)] * 40
    texts += [
        "Locate the red circle.",
        "Give the box of the blue star tray.",
        '{"bbox_2d": [',
        '{"target_frames": [',
    ] * 40
    texts += [
        "What is in the picture, row by row?",
        "In which frames is the",
        "\\boxed{",
        '", "arguments": {"',
    ] * 40
    texts += [some_call(rng, offer(rng)[1], (112, 112)) for _ in range(200)]
    texts += ["system\nuser\nassistant\n", "The {} is too small to read here.", "I will zoom in on the"] * 40
    texts += [
        "I will look closer at the frames with the red circle.",
        "Now I can see that it says",
        "The answer is",
    ] * 40
    texts += [
        "This part does not show the",
        "I will try another part.",
        "It is still too small, I will zoom in again.",
    ] * 40
    texts += [
        "I can answer this from the first view.",
        "Image 2 shows the blue star clearly.",
        "There are 3 dots.",
    ] * 40
    return texts
