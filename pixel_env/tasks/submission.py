"""Answers to a split whose right answers are hidden, in the form that its organisers score."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixel_env.journal import replace_text
from pixel_env.tasks.files import FileTasks
from pixel_env.tasks.image_sets import question_id

if TYPE_CHECKING:
    from pixel_env.trajectory import Trajectory

FORMS = ("infographicvqa", "docvqa", "jsonl")


def submission(tasks: FileTasks, trajectories: "Iterable[Trajectory]", path: str | Path | None = None) -> list[Any]:
    """Put the answers of trajectories into the official form, and write it as JSON if a path is given.

    InfographicVQA and DocVQA (rrc.cvc.uab.es): a list of ``{"questionId": int, "answer": str}``. Our own JSON Lines
    take the same form with ``"id"``, or the id of the task where a line has none.

    Args:
        tasks: All tasks of the split.
        trajectories: One episode a task, in any order. One that ended without an answer submits "".
        path: File to write.

    Returns:
        One entry a task, in the order of the tasks.

    Raises:
        ValueError: A set of another format; a task without a trajectory, with several, or not of this set; an episode
            that broke off, whose answer would count as wrong.
    """
    if tasks.name not in FORMS:
        raise ValueError(f"expected a task set of {', '.join(FORMS)}, got {tasks.name}, of which no form is known")
    answers: dict[int, str] = {}
    for trajectory in trajectories:
        index = tasks.index(trajectory.task_id)
        if index in answers:
            raise ValueError(f"expected one trajectory a task, got several of {trajectory.task_id}; choose one")
        if trajectory.error is not None:
            raise ValueError(
                f"expected episodes that ended, got one that broke off, {trajectory.task_id}: {trajectory.error}; play "
                "it again"
            )
        answers[index] = trajectory.answer or ""
    if missing := len(tasks) - len(answers):
        first = next(index for index in range(len(tasks)) if index not in answers)
        raise ValueError(
            f"expected a trajectory of each of {len(tasks)} tasks, got none of {missing}, such as "
            f"{tasks.task_id(first)}; play all"
        )
    entries = [{**_name(tasks, tasks.task_id(index)), "answer": answers[index]} for index in range(len(tasks))]
    if path is not None:
        replace_text(Path(path), json.dumps(entries, indent=1))
    return entries


def _name(tasks: FileTasks, task_id: str) -> dict[str, Any]:
    fields = tasks.fields(task_id)
    if tasks.name == "jsonl":
        return {"id": fields.get("id", task_id)}
    return {"questionId": question_id(fields)}
