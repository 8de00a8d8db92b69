"""Questions about plain images: a teacher finds a small part worth one, and asks about it. The result is a task set.

The first step of the paper for images without annotations (arXiv 2505.15966, appendix C): is the image rich enough,
which small region, and a four-option question about it that does not mention the crop. Here the question is written
with the region in view, cut from the full-resolution image.
"""

import asyncio
import json
import shutil
from collections.abc import Iterable
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from agents.api_policy import EndpointPolicy
from agents.boxes import area, inside, on_view
from agents.endpoint import EndpointError
from agents.expert import MOST_SHARE
from agents.leaks import gives_away, mentions_crop
from agents.outcomes import DroppedError, Outcome, Record
from agents.taught import Stage, dropped
from agents.teacher import Consultation, MalformedReplyError
from pixel_env.actions import CropImage, render
from pixel_env.grading import normalise
from pixel_env.journal import replace_text
from pixel_env.media import Box, ImageFile, Source
from pixel_env.operations import to_source
from pixel_env.tasks import Cue, FileTasks, Task
from pixel_env.tasks.questions import bare_options, option_of

LEAST_SIDE = 4.0
"""Shown pixels of a region, below which nobody can have seen what is in it."""

FOLDER, FILE = "images", "questions.jsonl"


async def ask(stage: Stage, source: str, index: int, policy: EndpointPolicy, environments: Executor) -> Record:
    """Make a question about one image; for the arguments see `agents.taught.teach`."""
    loop, task_id = asyncio.get_running_loop(), ""
    consultation, mark, outcomes, line = Consultation(policy), "", tuple[Outcome, ...](), None
    try:
        task = await loop.run_in_executor(environments, stage.tasks.__getitem__, index)
        task_id = task.task_id
        mark, image = await loop.run_in_executor(environments, _first_view, stage, index)
        box = await consultation.judge(image)
        if box is None:
            raise DroppedError("not_rich")
        region, part = await loop.run_in_executor(environments, _part, stage, index, box)
        question, choices, answer = await consultation.question(image, part)
        line = _line(_checked(task, question, choices, answer, region))
    except (DroppedError, MalformedReplyError, EndpointError) as error:
        outcomes = (dropped(error),)
    return Record("question", source, index, task_id, mark, consultation.usage, outcomes, line)


def is_plain(tasks: object) -> bool:
    """Whether a task set is images without questions."""
    return isinstance(tasks, FileTasks) and tasks.name == "images"


def write_questions(records: Iterable[Record], stage: Stage, out: Path) -> str | None:
    """Write the questions as a task set of our own format, with copies of the images that they are about.

    Lines that are there already stay where they are, since they number the tasks.

    Args:
        records: In the order of their tasks.
        stage: Has the images.
        out: Folder of the set.

    Returns:
        The set as ``"NAME:PATH"``, None without any question.
    """
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    lines = (out / FILE).read_text(encoding="ascii").splitlines() if (out / FILE).exists() else []
    written = {Path(json.loads(line)["image"]).stem for line in lines}
    for record in records:
        if record.question is not None and str(record.index) not in written:
            name = copied(stage.tasks[record.index].media, out, f"{FOLDER}/{record.index}")
            lines.append(json.dumps({"image": name, **record.question}))
    if not lines:
        return None
    replace_text(out / FILE, "".join(f"{line}\n" for line in lines))
    return f"jsonl:{out / FILE}"


def copied(media: Source, out: Path, name: str) -> str:
    """Write an image into a folder, as `name` with the ending of its format, which is returned; a file is copied."""
    if isinstance(media, ImageFile):
        name += Path(media.path).suffix.lower()
        shutil.copyfile(media.path, out / name)
    else:
        name += ".png"
        media.frame(0).save(out / name)
    return name


def _first_view(stage: Stage, index: int) -> tuple[str, np.ndarray]:
    episode = stage.begin(index, np.random.default_rng(index))
    return stage.mark(episode), episode.conversation.observations[0]["images"][0]


def _part(stage: Stage, index: int, box: Box) -> tuple[Box, np.ndarray]:
    """Return the region of a box in pixels of the first view, and what a crop of it shows."""
    episode = stage.begin(index, np.random.default_rng(index))
    (first,) = stage.bare.shown
    width, height = first.size
    x1, y1, x2, y2 = box
    if not inside(box, (0.0, 0.0, width, height)) or area(box) > MOST_SHARE * width * height:
        raise DroppedError("bad_region", f"{list(box)} of {width} x {height} pixels")
    if min(x2 - x1, y2 - y1) < LEAST_SIDE:
        raise DroppedError("bad_region", f"{list(box)} is smaller than {LEAST_SIDE:g} pixels")
    region = to_source(box, first, "pixel")
    episode.step(render(CropImage(on_view(region, first, stage.bare.view_settings.coordinates), image=0)))
    return region, episode.conversation.observations[-1]["images"][0]


def _checked(image: Task, question: str, choices: tuple[str, ...], answer: str, region: Box) -> Task:
    """Return the task that a question makes; raises DroppedError if it must not be asked."""
    choices = bare_options(choices)
    right = option_of(answer, choices)
    if right is None or len({normalise(choice) for choice in choices} - {""}) < len(choices):
        raise DroppedError("bad_question", f"{answer!r} of {list(choices)}")
    task = Task(image.task_id, image.suite, question, image.media, (right,), "choice", choices, Cue(region))
    if mentions_crop(question):
        raise DroppedError("mentions_crop", question)
    if gives_away(question, task):
        raise DroppedError("leak", question)
    return task


def _line(task: Task) -> dict[str, object]:
    assert task.cue is not None and task.cue.box is not None
    return {
        "question": task.question,
        "choices": list(task.choices),
        "answer": task.answers[0],
        "boxes": list(task.cue.box),
    }
