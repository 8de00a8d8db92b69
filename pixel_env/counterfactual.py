"""What operations show in a counterfactual run: nothing, or another task's pixels, in place of what was asked for.

A policy that reads what it asked for gets worse without it; one that knew the answer from the first view, or guesses,
does not. Only pixels change: boxes, sizes, texts, rewards and the rules stay as they are, so the two runs can be
compared task by task (`pixel_env.faithfulness.effect_of_views`).
"""

from typing import Literal

import numpy as np

from pixel_env.decoding import MediaError
from pixel_env.media import Box, Source, view, view_of
from pixel_env.operations import View
from pixel_env.tasks import Task, TaskSet

Counterfactual = Literal["none", "blank", "other_task"]
COUNTERFACTUALS: tuple[Counterfactual, ...] = ("none", "blank", "other_task")

GREY = 128


def shown_by_operations(task: Task, tasks: TaskSet, counterfactual: Counterfactual) -> Source | None:
    """Return the source that operations are to show; None for no source, only grey.

    Args:
        task: the task of the episode.
        tasks: where another one comes from: the next of the same suite with other media of the same kind that can be
            read, or of any suite.
        counterfactual: one of `COUNTERFACTUALS`.

    Raises:
        ValueError: if another task is needed and the set has none with the same kind of media.
    """
    if counterfactual == "none":
        return task.media
    return None if counterfactual == "blank" else _next_media(task, tasks)


def picture(source: Source | None, shot: View, asked: Source) -> np.ndarray:
    """Return what a view shows, (height, width, 3) uint8: its region of the source, or of the same part of another.

    Args:
        source: what is shown; None for grey.
        shot: the view; region and frame are of `asked`.
        asked: the source of the task.
    """
    if source is None:
        width, height = shot.size
        return np.full((height, width, 3), GREY, np.uint8)
    if shot.made is not None:  # from the source of the task: the environment offers no such function with another's
        return view(shot.made, shot.region, shot.size)
    frame = min(shot.frame, source.num_frames - 1)
    return view_of(source, frame, _moved(shot.region, asked, source), shot.size)


def _next_media(task: Task, tasks: TaskSet) -> Source:
    here, count = tasks.index(task.task_id), len(tasks)
    same_kind: Source | None = None
    for step in range(1, count):
        other = tasks[(here + step) % count]
        if other.media.kind != task.media.kind or other.media == task.media:
            continue
        same_suite = other.suite == task.suite
        if (same_suite or same_kind is None) and _readable(other.media):
            if same_suite:
                return other.media
            same_kind = other.media
    if same_kind is None:
        raise ValueError(
            f"expected another task with other {task.media.kind} media that can be read for counterfactual "
            f"'other_task', got none among {count} tasks; give more tasks, or take counterfactual='blank'"
        )
    return same_kind


def _readable(media: Source) -> bool:
    """Whether a source can be shown: damage of another task is no error of this one."""
    try:
        media.frame(0)
    except MediaError:
        return False
    return True


def _moved(region: Box, asked: Source, source: Source) -> Box:
    if source is asked or (source.width, source.height) == (asked.width, asked.height):
        return region  # to the pixel
    x, y = source.width / asked.width, source.height / asked.height
    x1, y1, x2, y2 = region
    return x1 * x, y1 * y, min(x2 * x, source.width), min(y2 * y, source.height)
