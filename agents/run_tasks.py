"""Which tasks on disk a training run uses, and what is wrong with them. Imports no torch."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pixel_env.tasks import FileTasks, Task, load_tasks, tasks_from_spec
from pixel_env.tasks.message_lists import FORMAT, MARGIN
from pixel_env.tasks.sources import DamagedMedia
from pixel_env.trajectory import Trajectory, load_jsonl

VIEWS: dict[str, Any] = {
    "preset": "standard",
    "view_pixels": None,
    "crop_pixels": None,
    "crop_padding": 0.0,
    "coordinates": "pixel",
    "max_turns": 5,
}
"""What demonstrations and the tasks of a run have to be shown with alike, and the defaults."""

LOOKED_AT = 200
"""Tasks of a set, spread evenly, that are looked at to tell whether it has answers or cues at all."""


def spread(count: int, wanted: int) -> list[int]:
    """Return at most `wanted` indices below `count`, spread evenly: sets list their tasks by topic.

    >>> spread(10, 4), spread(3, 4)
    ([0, 2, 5, 7], [0, 1, 2])
    """
    wanted = min(count, wanted)
    return [place * count // wanted for place in range(wanted)]


def evaluation_plan(specs: Sequence[str], wanted: int) -> list[tuple[str, int]]:
    """Return the tasks of an evaluation, `wanted` of each set: the set as ``"NAME:PATH"``, and the index in it."""
    return [(spec, index) for spec in specs for index in spread(len(tasks_from_spec(spec)), wanted)]


def is_demonstrations(path: str) -> bool:
    """Whether a file holds trajectories, as `agents/make_demonstrations.py` writes them, and not message lists."""
    if not path.endswith(".jsonl"):
        return False
    try:
        with open(path, encoding="utf-8") as lines:
            Trajectory.from_json(lines.readline())
    except (OSError, ValueError):
        return False
    return True


def recorded_padding(path: str) -> float:
    """Return the margin around boxes that recorded demonstrations count on."""
    if not is_demonstrations(path):
        return MARGIN
    with open(path, encoding="utf-8") as lines:
        return float(Trajectory.from_json(lines.readline()).env_kwargs.get("crop_padding", VIEWS["crop_padding"]))


def recorded_spec(path: str) -> str:
    """Return the task set that recorded demonstrations are played in, as ``"NAME:PATH"``."""
    return f"{FORMAT}:{path}"


# --- told before a run begins; all raise ValueError, or ImportError where pyarrow is missing --------------------------


def check_made_alike(path: str, env_kwargs: Mapping[str, Any]) -> None:
    """Check that demonstrations were made with the views that a run shows: warm start and RL read the same prompts."""
    for trajectory in load_jsonl(path):
        theirs, ours = ({**VIEWS, **kwargs} for kwargs in (trajectory.env_kwargs, env_kwargs))
        if other := [name for name in VIEWS if theirs[name] != ours[name]]:
            listed = ", ".join(f"{name} {theirs[name]} and not {ours[name]}" for name in other)
            raise ValueError(f"expected demonstrations made as this run shows its tasks, got {listed}")


def check_recorded(path: str) -> None:
    """Check that `path` has recorded demonstrations, one at least of which can be read."""
    tasks = load_tasks(FORMAT, path)
    if not any(task.answers for task in _some(tasks)):
        problem = getattr(tasks[0].media, "problem", "")
        raise ValueError(f"expected records with a message_list in {path}, got none; the first: {problem}")


def check_rewarded(spec: str) -> None:
    """Check that a set has answers: a reward needs them."""
    if not any(task.answers for task in _some(tasks_from_spec(spec))):
        raise ValueError(f"expected tasks with answers in {spec}, got none; give a split that has them")


def check_demonstrations(spec: str) -> None:
    """Check that a set says where the evidence is: demonstrations are made of that."""
    if not any(task.cue is not None and task.answers for task in _some(tasks_from_spec(spec))):
        raise ValueError(
            f"expected tasks that say where the evidence is, to demonstrate, got none in {spec}; give --sft-data for "
            "the warm start, or leave it out with --stages rl"
        )


def check_tests(specs: Sequence[str], wanted: int) -> None:
    """Check that all test sets open and that no two of their tasks would be taken for the same."""
    seen: dict[tuple[str, str], int] = {}
    for place, spec in enumerate(specs):
        tasks = tasks_from_spec(spec)
        alone = sum(other.partition(":")[0] == tasks.name for other in specs) == 1
        for task in [] if alone else [tasks[index] for index in spread(len(tasks), wanted)]:
            if isinstance(task.media, DamagedMedia):
                continue  # an error, which enters no number
            other = seen.setdefault((task.suite, task.task_id), place)
            if other != place:
                raise ValueError(
                    f"expected sets of different suites, got {task.suite} in {specs[other]} and {spec}; "
                    "evaluate them in two runs"
                )


def _some(tasks: FileTasks) -> Iterable[Task]:
    return (tasks[index] for index in spread(len(tasks), LOOKED_AT))
