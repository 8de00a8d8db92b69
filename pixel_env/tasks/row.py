"""One row of a data file, read with suspicion: every access says what it expects, and what it got instead."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, TypeGuard

from pixel_env.decoding import decode, sampled_times
from pixel_env.grading import grade, normalise
from pixel_env.media import Box, ImageFile, Source, VideoFile
from pixel_env.tasks.paths import inside
from pixel_env.tasks.questions import answer_kind
from pixel_env.tasks.records import Fields
from pixel_env.tasks.sources import FrameFiles, StoredImage
from pixel_env.tasks.tables import Table
from pixel_env.tasks.task import Cue, Task

MAX_TEXT = 2**16
MOST_VALUES = 50
"""Of accepted answers of the kind value: an answer is compared with each, in a process, for seconds at worst."""

MOST = 1e9
"""Of a number of pixels or seconds; sums and products of two stay far from what a float can hold."""

SECONDS_PER_FRAME = 0.5
"""Where a list of frames comes without times: 2 a second, what Qwen's processing takes them for."""


@dataclass(frozen=True)
class Row:
    """A row and what is needed to make a task of it.

    Attributes:
        name: Name of the format.
        number: Row of the table, 0-based; part of the task's id.
        fields: Its cells.
        table: Where it is from.
        root: Folder that its media lie in.
        seed: Of shuffled options.
        num_frames: Frames taken from a video.
        question: What a folder of media without questions is asked.

    Every method raises ValueError, which names file and row, for a cell that is not what it should be.
    """

    name: str
    number: int
    fields: Fields
    table: Table
    root: Path
    seed: int
    num_frames: int
    question: str

    def has(self, key: str) -> bool:
        """Whether the cell exists and is not null."""
        return self.fields.get(key) is not None

    def wrong(self, key: str, expected: str) -> ValueError:
        """Make the error for a cell."""
        got = (
            repr(self.fields[key])[:80] if key in self.fields else f"no such cell among {', '.join(self.fields)[:200]}"
        )
        return self.error(f"expected {key} as {expected}, got {got}; correct the row")

    def text(self, key: str) -> str:
        """Return a text that is not empty."""
        value = self.fields.get(key)
        if not isinstance(value, str) or not value.strip() or len(value) > MAX_TEXT:
            raise self.wrong(key, f"a text of 1 to {MAX_TEXT} characters")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts, or a single one as a list; numbers count as texts."""
        value = self.fields.get(key)
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(v, str | int | float) and not isinstance(v, bool) for v in values):
            raise self.wrong(key, "a text or a list of texts")
        if len(values) > 1000 or any(len(str(v)) > MAX_TEXT for v in values):
            raise self.wrong(key, f"at most 1000 texts of at most {MAX_TEXT} characters")
        return tuple(str(v) for v in values)

    def one_text(self, key: str) -> str:
        """Return a single text or number, as text."""
        values = self.texts(key)
        if len(values) != 1:
            raise self.wrong(key, "one text")
        return values[0]

    def flag(self, key: str) -> bool:
        """Return true or false."""
        value = self.fields.get(key)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def seconds(self, key: str) -> float:
        """Return a time of at least 0."""
        value = self.fields.get(key)
        if not _is_measure(value) or value < 0:
            raise self.wrong(key, f"seconds from 0 to {MOST:g}")
        return float(value)

    def boxes(self, key: str) -> tuple[Box, ...]:
        """Return boxes as they stand: four numbers each, a single box as a list of one."""
        value = self.fields.get(key)
        boxes = [value] if isinstance(value, list) and value and not isinstance(value[0], list) else value
        if not isinstance(boxes, list) or not boxes or len(boxes) > 1000 or not all(map(_is_box, boxes)):
            raise self.wrong(key, "a box of four numbers, or a list of boxes")
        return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in boxes)

    def lettered(self, key: str, choices: Sequence[str]) -> str:
        """Return the option that a cell names by its letter; never by its text, as an option may be a letter too."""
        letter = self.text(key).strip().upper()
        index = ascii_uppercase.find(letter) if len(letter) == 1 else -1
        if not 0 <= index < len(choices):
            raise self.wrong(key, f"the letter of one of {len(choices)} options")
        return choices[index]

    def category(self, key: str) -> str:
        """Return ``NAME/category``, by which reports group tasks; a category may have parts, with ``/``."""
        value = self.text(key).strip()
        if not re.fullmatch(r"[\w .&+()/-]{1,60}", value):
            raise self.wrong(key, "a category of 1 to 60 letters, digits and spaces")
        return f"{self.name}/{value}"

    def window(self, key: str) -> tuple[float, float]:
        """Return a first and a last second."""
        value = self.fields.get(key)
        pair = value if isinstance(value, list) and len(value) == 2 else [None, None]
        start, end = (self.with_fields({key: second}).seconds(key) if second is not None else -1.0 for second in pair)
        if not 0 <= start <= end:
            raise self.wrong(key, "a list of two seconds, the first before the last")
        return start, end

    def mappings(self, key: str) -> list[Fields]:
        """Return a list of objects."""
        value = self.fields.get(key)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.wrong(key, "a list of objects")
        return value

    def with_fields(self, fields: Fields) -> "Row":
        """Return the row with other cells, such as those of an object in a cell."""
        return replace(self, fields=fields)

    def image(self, key: str, folders: Sequence[str] = ("",)) -> ImageFile:
        """Return the image file that a cell names."""
        return self.image_file(key, self.text(key), folders)

    def image_file(self, key: str, relative: str, folders: Sequence[str] = ("",)) -> ImageFile:
        """Return an image file inside the root; ``key`` is the cell that led to it."""
        return ImageFile(self.path(key, relative, folders))

    def stored_image(self, key: str) -> StoredImage:
        """Return the picture that a cell holds; it is not read yet."""
        return StoredImage(self.table.place(self.number), self.number, key, self.root, self.table)

    def video(
        self, path: Path, start: float | None = None, end: float | None = None, rule: str = "middle"
    ) -> VideoFile:
        """Return a video file, or a segment of it in seconds."""
        return VideoFile(path, self.num_frames, start, end, rule)

    def frame_files(self, key: str, seconds_per_frame: float = SECONDS_PER_FRAME) -> FrameFiles:
        """Return the frames whose image files a cell lists."""
        names = self.texts(key)
        paths = [self.path(key, name) for name in names]
        relative = tuple(path.relative_to(self.root).as_posix() for path in paths)
        return FrameFiles(self.root, relative, tuple(index * seconds_per_frame for index in range(len(names))))

    def path(self, key: str, relative: str, folders: Sequence[str] = ("",)) -> Path:
        """Return a file or folder inside the root."""
        try:
            return inside(self.root, relative, folders)
        except (ValueError, OSError) as error:
            raise self.error(f"{key}: {error}") from error

    def choice(self, question: str, media: Source, choices: Sequence[str], right: str | None, **others: Any) -> Task:
        """Make a choice task; ``right`` is the text of the right option, None if it is not known.

        Two options that read alike cannot be told apart by their text; if one of them is right, the row is refused.
        """
        options = str(tuple(choices))[:80]
        normal = [normalise(choice) for choice in choices]
        if not 2 <= len(choices) <= 26 or not all(normal):
            raise self.error(f"expected 2 to 26 options with text, got {options}")
        if right is not None and normal.count(normalise(right)) != 1:
            raise self.error(f"expected an answer that names exactly one option of {options}, got {right[:40]!r}")
        answers = () if right is None else (right,)
        return self.task(question, media, answers, answer_kind="choice", choices=tuple(choices), **others)

    def task(self, question: str, media: Source, answers: Sequence[str], **others: Any) -> Task:
        """Make a task; without ``answer_kind`` it is a number where all answers are, else a text.

        Each accepted answer has to be right by itself; that costs time linear in their number.
        """
        fields: dict[str, Any] = {"suite": self.name, "answer_kind": answer_kind(answers)} | others
        task = Task(f"{self.name}-{self.number}", fields.pop("suite"), question, media, tuple(answers), **fields)
        if task.answer_kind == "value" and len(answers) > MOST_VALUES:
            raise self.error(f"expected at most {MOST_VALUES} answers of the kind value, got {len(answers)}; keep some")
        if task.answer_kind != "choice":
            try:
                legible = all(grade(replace(task, answers=(answer,)), answer).correct for answer in answers)
            except ValueError as error:  # a number that is none
                raise self.error(str(error)) from error
            if not legible:
                raise self.error(f"expected answers of the kind {task.answer_kind}, got {str(task.answers)[:80]}")
        return task

    def error(self, message: str) -> ValueError:
        """Make an error that names file and row."""
        return ValueError(f"{self.table.place(self.number)}: {message}")


def window_cue(video: VideoFile, start: float, end: float) -> Cue:
    """Return the taken frames of a video that lie in a window of seconds, the nearest one where none does.

    Raises:
        MediaError: The file is no video.
    """
    times = decode(sampled_times, str(video.path), video.sampling)
    return Cue(frames=frames_within(times, start, end))


def frames_within(times: Sequence[float], start: float, end: float) -> tuple[int, ...]:
    """Return the 0-based numbers of the times in a window, the nearest to its middle where none is.

    >>> frames_within([0.0, 1.0, 2.0], 0.5, 2.0), frames_within([0.0, 1.0, 2.0], 0.6, 0.7)
    ((1, 2), (1,))
    """
    inside = tuple(index for index, time in enumerate(times) if start <= time <= end)
    middle = (start + end) / 2
    return inside or (min(range(len(times)), key=lambda index: abs(times[index] - middle)),)


def united(boxes: Sequence[Box]) -> Box:
    """Return the smallest box around boxes, x1 y1 x2 y2."""
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return min(x1), min(y1), max(x2), max(y2)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_measure, value))


def _is_measure(value: Any) -> TypeGuard[int | float]:
    """Whether a value of JSON is a number of at most `MOST`; compared as it is, since no float holds every integer."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST
