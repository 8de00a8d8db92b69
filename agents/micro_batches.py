"""What each stage of the pretraining is fed: views with dense labels, and tokenised conversations about pictures.

Every batch is a function of its seed, so that a run that was stopped goes on as if it had not been.
"""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

import numpy as np
import torch

from agents import micro_calls, micro_chats, micro_lessons, micro_sheets
from agents.conversation import ChatEncoder, Tokens
from agents.micro import FACTOR
from agents.micro_lessons import CLIP_TASKS, IMAGE_TASKS, PIXELS, Lesson, closeup_region, take, whole
from agents.micro_seeing import Labels, Picture
from agents.micro_sheets import DRILLS, sheet_view
from agents.micro_weights import token_weights
from agents.reasons import things
from pixel_env.media import MAX_ENLARGEMENT, view_size
from pixel_env.tasks import ProceduralTasks
from pixel_env.tasks.scenes import RELATIONS, SIDES, TRAY_SHAPES
from pixel_env.tasks.world import NUM_FRAMES, pick, shuffled

SKILL_WEIGHT: dict[str, float] = defaultdict(
    lambda: 1.0,
    {
        "guess": 0.3,
        "call": 0.5,
        "remark": 0.5,
        "describe": 0.7,
        "ground": 0.6,
        "sheet boxes": 0.6,
        "conclusion": 0.5,
        "string": 2.0,
        "place": 2.0,
        "answer": 2.0,
        "sheet answers": 2.0,
        "sheet counts": 2.0,
        "sheet ends": 2.0,
        "sheet relations": 2.0,
        "frames": 2.0,
        "mark frames": 2.0,
    },
)
PATCH = FACTOR // 2
"""Side of a patch of the tower, two of which make an image token's side."""
CLIP_SHARE = 0.16
"""Of the conversations: those about whole clips."""
CHARACTERS, BARE, PLACES, DRILLED = 0.1, 0.3, 0.6, 0.65
"""Shares of stage "talk" until which there are: only characters, no questions, places on most sheets, only sheets."""
SIDES_LEARNED = ((0.2, SIDES[:1]), (0.4, SIDES[:2]))
"""Shares of the drills on places until which only these ends are asked for. Asked for opposite ends from the start, a
model goes on guessing: they cancel each other while the heads that compare places are not there yet."""
RELATIONS_LEARNED = ((0.4, (), 0.0), (0.55, RELATIONS[:2], 1.0), (0.75, RELATIONS[:2], 0.2))
"""The same for relations, which need those heads: until when, the directions, and the share of pictures in which things
are seen from the middle and not from each other. Both sides of a comparison are not found at once."""
DRILL_SHARES = (0.12, 0.15, 0.18, 0.1, 0.15, 0.3)
SHEETS = (
    *[micro_sheets.character_sheet] * 3,
    micro_sheets.object_sheet,
    *[micro_sheets.shape_sheet] * 3,
    micro_sheets.string_sheet,
    *[lambda rng: micro_sheets.dot_sheet(rng)[0]] * 3,
)


# --- seeing ---------------------------------------------------------------------------------------------------------


def views(rng: np.random.Generator, count: int, sheets: float) -> list[Picture]:
    """`count` views, a share of them sheets, the rest pictures and close-ups."""
    shown: list[Picture] = []
    while len(shown) < count:
        if rng.random() < sheets:
            shown.append(sheet_view(pick(rng, SHEETS)(rng)))
            continue
        if rng.random() < 0.2:
            clip = CLIP_TASKS[int(rng.integers(len(CLIP_TASKS)))]
            canvas = clip.media.canvases[pick(rng, clip.cue.frames)]  # type: ignore[union-attr, attr-defined]
        else:
            canvas = IMAGE_TASKS[int(rng.integers(len(IMAGE_TASKS)))].media.canvases[0]  # type: ignore[attr-defined]
        marks = [m for m in canvas.marks if m.text or (m.kind in TRAY_SHAPES and m.box[2] - m.box[0] > 40)]
        for region in [whole(canvas), *(closeup_region(rng, canvas, m.box) for m in shuffled(rng, marks)[:3])]:
            size = view_size(region[2] - region[0], region[3] - region[1], PIXELS, FACTOR, MAX_ENLARGEMENT)
            shown.append(Picture(canvas, region, size))
    return shown[:count]


def frames(rng: np.random.Generator, count: int) -> list[Picture]:
    """`count` frames of clips at the size of a clip's first view."""
    found = []
    for _ in range(count):
        source = CLIP_TASKS[int(rng.integers(len(CLIP_TASKS)))].media
        size = view_size(source.width, source.height, PIXELS // NUM_FRAMES, FACTOR)
        canvas = pick(rng, source.canvases)  # type: ignore[attr-defined]
        found.append(Picture(canvas, whole(canvas), size))
    return found


def seeing_batch(seed: int, count: int, done: float) -> tuple[list[np.ndarray], list[Labels]]:
    """`count` views and a quarter as many frames of clips, with the dense labels of all their tokens.

    Args:
        seed: Draws everything.
        count: Views.
        done: Share of the stage that is done. It begins with characters alone: beside easy labels they are learned late
            or never. Then all labels, on ever fewer sheets.
    """
    rng = np.random.default_rng([seed, 1])
    if done < 0.15:
        pictures = [sheet_view(micro_sheets.character_sheet(rng)) for _ in range(count)]
        return [p.draw() for p in pictures], [{"glyph": p.labels()["glyph"]} for p in pictures]
    pictures = views(rng, count, 0.7 if done < 0.4 else 0.25) + frames(rng, count // 4)
    return [p.draw() for p in pictures], [p.labels() for p in pictures]


# --- talking --------------------------------------------------------------------------------------------------------


@dataclass
class Example(Tokens):
    """A tokenised sequence of lessons; for each answer its span and skill, for each image its labels and patch grid.

    Each token has a weight in the loss, 0 outside answers. `images` is empty where no pixels are wanted.
    """

    weights: list[float] = field(default_factory=list)
    spans: list[tuple[int, int, str]] = field(default_factory=list)
    labels: list[Labels] = field(default_factory=list)
    grid: list[tuple[int, int, int]] = field(default_factory=list)


class LessonEncoder:
    """Tokenises lessons, with or without the pixels of their pictures."""

    def __init__(self, encoder: ChatEncoder, drawn: bool) -> None:
        self.encoder, self.drawn = encoder, drawn
        self._text = lru_cache(maxsize=8192)(encoder.text)
        self._weights = lru_cache(maxsize=8192)(partial(token_weights, encoder.tokenizer))

    def __call__(self, lessons: Sequence[Lesson]) -> Example:
        """Lessons one after another in one conversation, images numbered as they come."""
        encoder, example, shown = self.encoder, Example(), 0
        for lesson in lessons:
            if lesson.system:
                example.add(encoder.message("system", self._text(lesson.system)), 0)
            for turn in lesson.turns:
                text = turn.text
                for image in range(len(turn.images)):
                    text = text.replace("{number}", str(shown + image + 1), 1)
                shown += len(turn.images)
                drawn = [picture.draw() for picture in turn.images] if self.drawn else []
                said = encoder.observation(text, turn.images) if turn.images else self._text(text)
                example.add(encoder.message("user", said) + encoder.cue, 0, drawn)
                example.labels += [picture.labels() for picture in turn.images]
                example.grid += [(1, p.size[1] // PATCH, p.size[0] // PATCH) for p in turn.images]
                start = len(example.ids)
                example.add([*self._text(turn.answer), encoder.end], 1)
                example.spans.append((start, len(example.ids), turn.skill))
                example.add(self._text("\n"), 0)
        example.weights = [0.0] * len(example.ids)
        turns = (turn for lesson in lessons for turn in lesson.turns)
        for (start, end, skill), turn in zip(example.spans, turns, strict=True):
            weights = self._weights(turn.text, turn.answer, skill.startswith("bare"))
            example.weights[start:end] = [SKILL_WEIGHT[skill] * weight for weight in weights]
        return example


def drills(rng: np.random.Generator, count: int) -> list[Lesson]:
    """`count` sheets of all kinds."""
    return [DRILLS[kind](rng) for kind in rng.choice(len(DRILLS), size=count, p=DRILL_SHARES)]


def talking_batch(seed: int, count: int, done: float) -> list[list[Lesson]]:
    """Sequences of lessons for about `count` pictures, a function of the seed.

    Args:
        seed: Draws everything.
        count: Pictures, or a few more; half as many sequences once there are conversations.
        done: Share of the stage that is done. It begins with one sheet of characters a sequence, its things named in
            any order, then of boxes too: a fresh language model learns within some hundred steps to look things up by
            name, and one that has learned to guess never does. From `BARE` on there are questions, most of them for
            places, one kind after the other; from `PLACES` on sheets of all kinds, up to three a sequence, some behind
            a system text (drilled at one place, the skill stays there); from `DRILLED` on conversations.
    """
    rng = np.random.default_rng([seed, 3])
    if done < BARE:
        boxes = 0.0 if done < CHARACTERS else 0.6
        drawn = [micro_sheets.box_drill if rng.random() < boxes else micro_sheets.character_drill for _ in range(count)]
        return [[drill(rng, bare=True)] for drill in drawn]
    if done < PLACES:
        return [[_place_lesson(rng, (done - BARE) / (PLACES - BARE))] for _ in range(count)]
    if done >= DRILLED:
        return speaking_batch(seed, count // 2, 0.5 - 0.35 * (done - DRILLED) / (1 - DRILLED))
    batch: list[list[Lesson]] = []
    while sum(map(len, batch)) < count:
        lessons = drills(rng, int(rng.integers(1, 4)))
        if rng.random() < 0.3:
            lessons[0] = replace(lessons[0], system=micro_calls.offer(rng)[0])
        batch.append(lessons)
    return batch


def _place_lesson(rng: np.random.Generator, share: float) -> Lesson:
    """A drill on places or counts, by the share that lies behind, or in one of four another, forgotten without."""
    sides = next((sides for until, sides in SIDES_LEARNED if share < until), SIDES)
    directions, middle = next(
        ((some, middle) for until, some, middle in RELATIONS_LEARNED if share < until), (RELATIONS, 0.2)
    )
    kind = rng.random()
    if directions and kind < 0.25:
        return micro_sheets.relation_drill(rng, directions, middle)
    # Real pictures, in the words of the suites too, once all that their questions compare is asked for.
    drawn = (IMAGE_TASKS[int(rng.integers(len(IMAGE_TASKS)))] for _ in itertools.count())
    if sides == SIDES and kind < 0.4:
        return next(filter(None, (micro_lessons.places_lesson(rng, task) for task in drawn)))
    if directions == RELATIONS and kind < 0.55:
        return next(filter(None, (micro_lessons.view_lesson(rng, task) for task in drawn)))
    if kind < 0.65:
        return micro_sheets.end_drill(rng, sides)
    if kind < 0.75:
        return micro_sheets.count_drill(rng)
    if kind < 0.85:
        return next(filter(None, (micro_chats.check_lesson(rng, task) for task in drawn)))
    return pick(rng, DRILLS[:-1])(rng)


def speaking_batch(seed: int, count: int, sheet_share: float) -> list[list[Lesson]]:
    """`count` sequences of lessons, a share of them sheets, the rest pictures and clips, a function of the seed."""
    rng = np.random.default_rng([seed, 2])
    sheets = [drills(rng, 2) for _ in range(int(rng.binomial(count, sheet_share)))]
    return sheets + sequences(rng, (IMAGE_TASKS, CLIP_TASKS), count - len(sheets), CLIP_SHARE)


def sequences(
    rng: np.random.Generator, tasks: Sequence[ProceduralTasks], count: int, clip_share: float
) -> list[list[Lesson]]:
    """`count` sequences of lessons. Lessons of one sequence come from unrelated pictures, in random order.

    Args:
        rng: Draws everything.
        tasks: Task sets to draw from: images first, clips last.
        count: Number of sequences.
        clip_share: Share of sequences that show a whole clip.
    """
    images, clips = tasks
    pool: list[Lesson] = []
    result: list[list[Lesson]] = []
    number_of_clips = int(rng.binomial(count, clip_share))
    for _ in range(number_of_clips):
        clip = clips[int(rng.integers(len(clips)))]
        result.append(
            [
                (
                    micro_chats.followed_lesson
                    if clip.needs_operation and rng.random() < 0.35
                    else micro_lessons.clip_lesson
                )(rng, clip)
            ]
        )
    while len(pool) < 2.5 * (count - number_of_clips) + 4:
        if rng.random() < 0.15:
            clip = clips[int(rng.integers(len(clips)))]
            frames = clip.cue.frames  # type: ignore[union-attr]
            canvas = clip.media.canvases[pick(rng, frames)]  # type: ignore[attr-defined]
            pool.append(micro_lessons.lesson(rng, take(canvas, whole(canvas), closeup=True)))
            continue
        task = images[int(rng.integers(len(images)))]
        canvas = task.media.canvases[0]  # type: ignore[attr-defined]
        if rng.random() < 0.8:
            shot = take(canvas, whole(canvas))
            pool.append(
                micro_lessons.mark_lesson(rng, shot) if rng.random() < 0.35 else micro_lessons.lesson(rng, shot, most=5)
            )
        for thing in shuffled(rng, [t for t in things(canvas) if t.text or t.dots is not None])[:2]:
            pool.append(micro_lessons.lesson(rng, take(canvas, closeup_region(rng, canvas, thing.box), closeup=True)))
        pool.append(micro_lessons.question_lesson(rng, task))
        if rng.random() < 0.35 and (asked_for := micro_lessons.places_lesson(rng, task)):
            pool.append(asked_for)
        if rng.random() < 0.5 and (looked_for := micro_chats.check_lesson(rng, task)):
            pool.append(looked_for)
        if rng.random() < 0.7:
            drawn = (images[int(rng.integers(len(images)))] for _ in itertools.count())
            pool.append(micro_lessons.question_lesson(rng, next(task for task in drawn if not task.needs_operation)))
        if task.needs_operation and rng.random() < 0.6:
            pool.append(micro_chats.followed_lesson(rng, task))
    plain = shuffled(rng, [one for one in pool if not one.system])
    offered = [one for one in pool if one.system]
    for one in shuffled(rng, offered)[: (count - number_of_clips) // 3]:
        result.append([one])
    while len(result) < count:
        drill = [micro_lessons.conclusion_lesson(rng, tasks)] if rng.random() < 0.3 else []
        result.append(shuffled(rng, [*drill, *(plain.pop() for _ in range(2 - len(drill)))]))
    return result


def collate(examples: Sequence[Example], pad: int, image_pad: int) -> dict[str, torch.Tensor]:
    """Right-padded ids, masks and per-token weights, and the grid of all images."""
    length = max(len(e.ids) for e in examples)
    ids = torch.full((len(examples), length), pad)
    weights = torch.zeros(len(examples), length)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        weights[row, : len(example.ids)] = torch.tensor(example.weights)
    return {
        "input_ids": ids,
        "attention_mask": (ids != pad).long(),
        "mm_token_type_ids": (ids == image_pad).int(),
        "image_grid_thw": torch.tensor([one for e in examples for one in e.grid]),
        "weights": weights,
    }


def joined(labels: Sequence[Labels]) -> dict[str, torch.Tensor]:
    """Labels of some images, one image after another."""
    return {name: torch.from_numpy(np.concatenate([one[name] for one in labels])) for name in labels[0]}
