"""Reference policies: what scores mean next to guessing, searching blindly, and knowing where to look.

None of them looks at a pixel. Policies with weights or an endpoint live elsewhere; they implement the same protocol,
`pixel_env.rollout.Policy`.
"""

import math
import re
from collections.abc import Sequence
from itertools import product

import numpy as np

from pixel_env.actions import Answer, CropImage, SelectFrames, render
from pixel_env.decoding import sample_frames
from pixel_env.media import Box
from pixel_env.operations import extent
from pixel_env.rollout import Conversation
from pixel_env.spaces import ActionText
from pixel_env.tasks import Task, TaskSet

MOST_FRAMES = 8  # in one call of select_frames
DECIMALS = {"pixel": 0, "fraction": 4, "thousandth": 0}


class Streams:
    """A random stream for each turn of each episode, so that a turn does not depend on what else is played, or where.

    Conversations without a seed share one stream.
    """

    def __init__(self, seed: int) -> None:
        self._seed, self._shared = seed, np.random.default_rng(seed)

    def of(self, conversation: Conversation) -> np.random.Generator:
        """Return what the next turn is drawn from."""
        if conversation.seed is None:
            return self._shared
        return np.random.default_rng([self._seed, conversation.seed, len(conversation.actions)])


class RandomPolicy:
    """Draws calls, answers and junk from the grammar of actions: the floor, and a test of every branch."""

    def __init__(self, seed: int = 0, coordinates: str = "pixel") -> None:
        """Draw boxes in the convention `coordinates`."""
        self._streams = Streams(seed)
        self._coordinates = coordinates

    def act(self, conversations: Sequence[Conversation]) -> list[str]:
        """Return one random turn a conversation."""
        return [self._turn(conversation) for conversation in conversations]

    def _turn(self, conversation: Conversation) -> str:
        border = max(extent(_first_size(conversation), self._coordinates))
        frames = len(conversation.observations[0]["images"])
        rng = self._streams.of(conversation)
        return ActionText(border, DECIMALS[self._coordinates], frames, MOST_FRAMES, seed=rng).sample()


class DirectPolicy:
    """Answers in its first turn by chance: an option, a number from 0 to 10, or nothing where a text is asked for."""

    def __init__(self, seed: int = 0) -> None:
        """Seed the guesses."""
        self._streams = Streams(seed)

    def act(self, conversations: Sequence[Conversation]) -> list[str]:
        """Return one guess a conversation."""
        return [self.guess(conversation) for conversation in conversations]

    def guess(self, conversation: Conversation) -> str:
        """Return an answer that fits the question."""
        text, rng = conversation.observations[0]["text"], self._streams.of(conversation)
        if letters := re.findall(r"^\(([A-Z])\) ", text, re.MULTILINE):
            return render(Answer(str(rng.choice(letters))))
        return render(Answer(str(rng.integers(11)) if "how many" in text.lower() else ""))


class GridPolicy:
    """Looks at the cells of a grid one after another (of a video: at its parts), then guesses."""

    def __init__(self, rows: int = 2, columns: int = 2, seed: int = 0, coordinates: str = "pixel") -> None:
        """Search `rows * columns` cells; the budget of turns must hold one more."""
        self._cells = list(product(range(rows), range(columns)))
        self._rows, self._columns = rows, columns
        self._coordinates = coordinates
        self._direct = DirectPolicy(seed)

    def act(self, conversations: Sequence[Conversation]) -> list[str]:
        """Return the next cell of each conversation, or its guess."""
        return [self._turn(conversation) for conversation in conversations]

    def _turn(self, conversation: Conversation) -> str:
        turn = len(conversation.actions)
        if turn >= len(self._cells):
            return self._direct.guess(conversation)
        frames = len(conversation.observations[0]["images"])
        if frames > 1:
            part = np.array_split(np.arange(frames), len(self._cells))[turn][:MOST_FRAMES]
            return render(SelectFrames(tuple(part.tolist()) or (frames - 1,)))
        row, column = self._cells[turn]
        cell = (column / self._columns, row / self._rows, (column + 1) / self._columns, (row + 1) / self._rows)
        return render(CropImage(_on_image(cell, _first_size(conversation), self._coordinates), image=0))


class OraclePolicy:
    """Looks at the evidence where the first view is not enough, then gives the right answer: the ceiling.

    It reads the ground truth of the task set, so it also tests that every task can be solved by the rules.
    """

    def __init__(self, tasks: TaskSet, coordinates: str = "pixel", margin: float = 0.1) -> None:
        """Look tasks up in `tasks`; crop the cue with `margin` of its width and height on every side."""
        self._tasks = tasks
        self._coordinates = coordinates
        self._margin = margin

    def act(self, conversations: Sequence[Conversation]) -> list[str]:
        """Return the next turn of each conversation."""
        return [self._turn(conversation) for conversation in conversations]

    def _turn(self, conversation: Conversation) -> str:
        task = self._tasks[self._tasks.index(conversation.task_id)]
        if conversation.actions or task.cue is None or task.needs_operation is False:
            return render(Answer(gold(task)))
        if task.media.kind == "video":
            return render(SelectFrames(self._cue_frames(task, len(conversation.observations[0]["images"]))))
        box = self._cue_box(task)
        return render(CropImage(_on_image(box, _first_size(conversation), self._coordinates), image=0))

    def _cue_box(self, task: Task) -> Box:
        """Return the cue with its margin in fractions of the image."""
        assert task.cue is not None and task.cue.box is not None, "an image has its cue in a box"
        x1, y1, x2, y2 = task.cue.box
        dx, dy = self._margin * (x2 - x1), self._margin * (y2 - y1)
        width, height = task.media.width, task.media.height
        return (
            max(0.0, (x1 - dx) / width),
            max(0.0, (y1 - dy) / height),
            min(1.0, (x2 + dx) / width),
            min(1.0, (y2 + dy) / height),
        )

    def _cue_frames(self, task: Task, shown: int) -> tuple[int, ...]:
        """Return the numbers (0-based) of the shown frames nearest to the cue, at most as many as one call takes."""
        assert task.cue is not None
        frames = np.array(sample_frames(task.media.num_frames, shown))
        wanted = sorted({int(np.abs(frames - frame).argmin()) for frame in task.cue.frames})
        spread = np.linspace(0, len(wanted) - 1, min(len(wanted), MOST_FRAMES)).round().astype(int)
        return tuple(wanted[position] for position in spread)


def gold(task: Task) -> str:
    """Return the preferred right answer: the letter of a choice, otherwise the first accepted string.

    Raises:
        ValueError: The task has no answers.
    """
    if not task.answers:
        raise ValueError(f"expected a task with answers, got {task.task_id!r} without; use a split that has them")
    if task.answer_kind == "choice":
        return chr(ord("A") + task.choices.index(task.answers[0]))
    return task.answers[0]


def _first_size(conversation: Conversation) -> tuple[int, int]:
    height, width, _ = conversation.observations[0]["images"][0].shape
    return width, height


def _on_image(fractions: Box, size: tuple[int, int], coordinates: str) -> Box:
    """Return a box given in fractions in the convention of the environment, rounded outwards.

    >>> _on_image((0.1, 0.1, 0.5, 0.5), (112, 56), "pixel")
    (11.0, 5.0, 56.0, 28.0)
    """
    width, height = extent(size, coordinates)
    unit = 10 ** DECIMALS[coordinates]
    x1, y1, x2, y2 = (share * side * unit for share, side in zip(fractions, (width, height) * 2, strict=True))
    # The small term keeps a border that falls on a whole number from being pushed one further by rounding.
    low, high = 1e-9, -1e-9
    return (
        math.floor(x1 + low) / unit,
        math.floor(y1 + low) / unit,
        math.ceil(x2 + high) / unit,
        math.ceil(y2 + high) / unit,
    )
