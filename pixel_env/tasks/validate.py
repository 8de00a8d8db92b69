"""Look at every task of a set and list what cannot be used: ``python -m pixel_env.tasks.validate NAME:PATH``.

A path alone means our own JSON Lines. The exit status is 1 if there is a problem.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from pixel_env.decoding import MediaError
from pixel_env.tasks.files import FORMATS, FileTasks, load_tasks, tasks_from_spec
from pixel_env.tasks.task import Task, TaskSet


@dataclass(frozen=True)
class Problem:
    """A task that cannot be used.

    Attributes:
        task_id: Which.
        message: What was expected and what was found.
    """

    task_id: str
    message: str


def problems(tasks: TaskSet) -> Iterator[Problem]:
    """Decode the media of every task, check cues against them, and yield what is wrong, in order."""
    for index in range(len(tasks)):
        task = tasks[index]
        try:
            task.media.frame(0)
            if message := _cue_problem(task):
                yield Problem(task.task_id, message)
        except MediaError as error:
            yield Problem(task.task_id, str(error))


def _cue_problem(task: Task) -> str | None:
    """Say what is wrong with the evidence of a task whose media can be read."""
    if task.cue is None or task.cue.box is None:
        return None
    x1, y1, x2, y2 = task.cue.box
    width, height = task.media.width, task.media.height
    if 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height:
        return None
    return f"expected a box within {width} x {height} pixels, got {x1:g}, {y1:g}, {x2:g}, {y2:g}; correct the box"


def main(arguments: list[str] | None = None) -> int:
    """Check the task set named on the command line; return the exit status."""
    listed = "\n".join(f"  {name}: {form.layout}" for name, form in FORMATS.items())
    parser = argparse.ArgumentParser(
        description="Check every task of a set.",
        epilog=f"formats:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tasks", help="NAME:PATH, or the PATH of a .jsonl file")
    given = parser.parse_args(arguments).tasks
    try:
        tasks = _opened(given)
    except (ValueError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1
    found = 0
    for problem in problems(tasks):
        found += 1
        print(f"{problem.task_id}: {problem.message}")
    print(f"{len(tasks)} tasks, {found} that cannot be used")
    return int(found > 0)


def _opened(given: str) -> FileTasks:
    return tasks_from_spec(given) if given.partition(":")[0] in FORMATS else load_tasks("jsonl", given)


if __name__ == "__main__":
    os.environ.setdefault("PIXEL_ENV_DECODE_IN_PROCESS", "1")  # a decoder that crashes costs one task, not the list
    sys.exit(main())
