"""What is asked: a task is one question about one image or video, with its answer and its visual cue."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from pixel_env.media import Box, Source

ANSWER_KINDS = ("choice", "number", "value", "text", "spans")


@dataclass(frozen=True)
class Cue:
    """Where the evidence for the answer is: ground truth that only an oracle may read.

    Attributes:
        box: Source pixels x1 y1 x2 y2 (half-open) of the evidence in an image, or None.
        frames: Frames of a video that show the evidence, 0-based; empty for an image.
    """

    box: Box | None = None
    frames: tuple[int, ...] = ()


@dataclass(frozen=True)
class Task:
    """One question with its answer.

    Attributes:
        task_id: Unique within its task set.
        suite: Name of the suite or benchmark, by which reports are grouped.
        question: Plain text. Never trusted: `pixel_env.prompts` defuses it.
        media: The full-resolution image or video. Policies only ever see views of it.
        answers: Accepted strings, the first one preferred; empty where the right answer is not known (a hidden test
            split, say): such a task can be played and is not scored.
        answer_kind: One of `ANSWER_KINDS`; says which rule of `pixel_env.grading` scores an answer.
        choices: Texts of the options (A), (B), ... of a ``"choice"`` task; empty otherwise.
        cue: Ground-truth location of the evidence, None if unknown.
        needs_operation: Whether the first view is not enough; None if unknown.
        stated: The accepted answers of a ``"choice"`` task as the file states them, letter or text, where the verdict
            of the released scorer depends on that. Empty for the letters of `answers`.
        wording: Question and options in the words of the file, shown where `protocol="pixelreasoner"` asks what the
            release asked. Empty for the question with its options (A), (B), ... below it.
        group: Shared by tasks that are one question in several forms, such as with its options turned round; intervals
            count them once. Empty for a question of its own.
        level: Difficulty 1 to 3 of a procedural task, else None.
    """

    task_id: str
    suite: str
    question: str
    media: Source
    answers: tuple[str, ...]
    answer_kind: str
    choices: tuple[str, ...] = ()
    cue: Cue | None = None
    needs_operation: bool | None = None
    stated: tuple[str, ...] = ()
    wording: str = ""
    group: str = ""
    level: int | None = None

    def __post_init__(self) -> None:
        if self.answer_kind not in ANSWER_KINDS:
            raise ValueError(f"answer_kind must be one of {ANSWER_KINDS}, got {self.answer_kind!r}")
        if (self.answer_kind == "choice") != bool(self.choices):
            raise ValueError(
                f"choices go with answer_kind 'choice': got {self.answer_kind!r} with {len(self.choices)} choices"
            )


class TaskSet(Protocol):
    """A finite, indexable set of tasks. One of one's own that derives from this needs a length and indexing only."""

    def __len__(self) -> int:
        """Number of tasks."""
        ...

    def __getitem__(self, index: int) -> Task:
        """Task at `index`, 0-based. The same index always gives an equal task."""
        ...

    def index(self, task_id: str) -> int:
        """Index of the task with this id; raises ValueError for an unknown id.

        Looks at one task after another: a large set whose ids say where a task is does better with a method of its own.
        """
        for position in range(len(self)):
            if self[position].task_id == task_id:
                return position
        raise ValueError(f"no task {task_id!r} in this set of {len(self)} tasks")


@dataclass(frozen=True)
class TaskList(TaskSet):
    """A task set held in memory."""

    tasks: tuple[Task, ...]

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: int) -> Task:
        return self.tasks[index]

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)
