"""The four procedural suites as one task set: a task is a pure function of (seed, index)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pixel_env.tasks.clips import clip
from pixel_env.tasks.drawing import DrawnSource
from pixel_env.tasks.pages import read
from pixel_env.tasks.scenes import count, search
from pixel_env.tasks.task import Task
from pixel_env.tasks.world import VIEW_PIXELS, Draft, World

SUITES: dict[str, Callable[[np.random.Generator, World, int], Draft]] = {
    "search": search,
    "count": count,
    "read": read,
    "clip": clip,
}
MEDIA = {"search": "image", "count": "image", "read": "image", "clip": "video"}
"""What a task of each suite is about."""

SPLITS = ("train", "test")
PRESETS = tuple(VIEW_PIXELS)
LEVELS = (0, 1, 2, 3)
DEFAULT_LEVELS = (1, 2, 3)


@dataclass(frozen=True)
class ProceduralTasks:
    """Generated tasks; suites and levels take turns, so any run of consecutive indices is balanced.

    The splits cannot overlap: a test task asks about a pair of attributes that training tasks never show.

    Args:
        suites: Names from `SUITES`.
        split: ``"train"`` or ``"test"``.
        difficulty: A level 0 to 3, or several; at level 0 the first view is always enough.
        preset: ``"standard"`` (sources of 2048 to 4096 pixels) or ``"micro"`` (448 to 896).
        seed: Draws another set of tasks.
        size: Number of tasks.

    Raises:
        ValueError: An argument is not one of the above.

    >>> tasks = ProceduralTasks(("search",), split="test", difficulty=1, preset="micro")
    >>> tasks[7] == tasks[7], tasks.index(tasks[7].task_id)
    (True, 7)
    """

    suites: tuple[str, ...] = tuple(SUITES)
    split: str = "train"
    difficulty: int | tuple[int, ...] = DEFAULT_LEVELS
    preset: str = "standard"
    seed: int = 0
    size: int = 100_000

    def __post_init__(self) -> None:
        _check("suites", self.suites, tuple(SUITES), several=True)
        _check("split", self.split, SPLITS)
        _check("preset", self.preset, PRESETS)
        _check("difficulty", self.levels, LEVELS, several=True)
        if not (isinstance(self.seed, int) and self.seed >= 0):
            raise ValueError(f"seed must be an integer of at least 0, got {self.seed!r}")
        if not (isinstance(self.size, int) and self.size > 0):
            raise ValueError(f"size must be an integer of at least 1, got {self.size!r}")

    @property
    def levels(self) -> tuple[int, ...]:
        """The difficulty as a tuple of levels."""
        return self.difficulty if isinstance(self.difficulty, tuple) else (self.difficulty,)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Task:
        if not 0 <= index < self.size:
            raise IndexError(f"task index must be in [0, {self.size}), got {index}")
        suite = self.suites[index % len(self.suites)]
        level = self.levels[index // len(self.suites) % len(self.levels)]
        codes = [
            self.seed,
            index,
            SPLITS.index(self.split),
            PRESETS.index(self.preset),
            list(SUITES).index(suite),
            level,
        ]
        world = World(self.preset, self.split, legible=level == 0)
        draft = SUITES[suite](np.random.default_rng(codes), world, max(level, 1))
        return Task(
            task_id=f"{self._prefix(suite, level)}-{index}",
            suite=suite,
            question=draft.question,
            media=DrawnSource(draft.canvases),
            answers=draft.answers,
            answer_kind=draft.answer_kind,
            choices=draft.choices,
            cue=draft.cue,
            needs_operation=draft.needs_operation and not world.legible,
            level=level,
        )

    def index(self, task_id: str) -> int:
        """Index of the task with this id; raises ValueError for an id that is not of this set."""
        number = task_id.rpartition("-")[2]
        if number.isascii() and number.isdigit() and len(number) < 12 and int(number) < self.size:
            index = int(number)
            suite = self.suites[index % len(self.suites)]
            level = self.levels[index // len(self.suites) % len(self.levels)]
            if task_id == f"{self._prefix(suite, level)}-{index}":
                return index
        raise ValueError(
            f"no task {task_id!r} in this set; its first is {self[0].task_id!r}, its last number {self.size - 1}"
        )

    def _prefix(self, suite: str, level: int) -> str:
        return f"{suite}-{level}-{self.preset}-{self.split}-{self.seed}"


def _check(name: str, value: object, allowed: tuple[object, ...], several: bool = False) -> None:
    values = value if several and isinstance(value, tuple) else (value,)
    if not values or any(v not in allowed for v in values):
        listed = ", ".join(map(repr, allowed))
        raise ValueError(f"{name} must be {'some' if several else 'one'} of {listed}; got {value!r}")
