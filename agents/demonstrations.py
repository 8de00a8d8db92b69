"""Expert trajectories for the warm start, made from the cue of each task and played in the environment.

After the recipe of Pixel Reasoner (arXiv 2505.15966, section 3 and Table 2): look at the whole, announce an operation,
call it, say what came back, answer. Some trajectories begin with a mistake and recover. Where the paper asks GPT-4o
what a crop shows, here geometry says it; `agents.taught` asks a teacher, `agents.textual` samples textual ones from a
policy. Mistakes are played but not trained: `Turn.trained` is False on them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from agents.expert import Expert, Remarks, UnsuitedError
from pixel_env.rollout import Episode
from pixel_env.tasks import TaskSet
from pixel_env.trajectory import Trajectory

LOOKS: dict[str, tuple[str, ...]] = {
    "single": ("right",),
    "recrop_once": ("wrong", "right"),
    "recrop_twice": ("wrong", "wrong", "right"),
    "zoom_further": ("large", "right"),
    "reselect": ("wrong", "right"),
    "textual": (),
}
"""Kind of demonstration: its operations, of which only the right ones are trained."""

IMAGE_MIX = {"single": 0.3, "recrop_once": 0.2, "recrop_twice": 0.2, "zoom_further": 0.3}
VIDEO_MIX = {"single": 0.9, "reselect": 0.1}
TEXTUAL_SHARE = 2000 / 7500
"""The proportions of the paper (Table 2 and section 5)."""
NO_CORRECTIONS = ("single", "textual")
"""Kinds without a mistake to correct; the others are left out in the ablation of the paper."""

MOST_TRIES = 1000
"""Tasks in a row of which no demonstration could be made: then there is probably none that would do."""


def demonstrate(
    task: int | str, env: gym.Env[Any, str], rng: np.random.Generator, kind: str, remarks: Remarks | None = None
) -> Trajectory:
    """Play one demonstration.

    Args:
        task: index or id in the environment's task set; all kinds but "textual" need its cue.
        env: where it is played.
        rng: draws boxes, frames and wording.
        kind: a key of `LOOKS`; "reselect" is for videos, those with "crop" or "zoom" are for images.
        remarks: what a teacher says of the task, see `agents.expert.Remarks`.

    Returns:
        A trajectory of that kind with a right answer; `trained` is False on turns with a deliberate mistake.

    Raises:
        UnsuitedError: no such boxes or frames exist for this task, or the budget of turns is too small.
    """
    if kind not in LOOKS:
        raise ValueError(f"expected kind to be one of {', '.join(LOOKS)}, got {kind!r}")
    episode = Episode(env)
    episode.reset(task, seed=int(rng.integers(2**31)))
    if episode.error is not None:
        raise UnsuitedError(episode.error)
    expert = Expert(env, rng, remarks)
    check_suited(expert, kind)
    for aim in LOOKS[kind]:
        episode.step(expert.look(aim))
    episode.step(expert.answer())
    trajectory = episode.trajectory(kind)
    assert trajectory.correct and not trajectory.num_errors, trajectory
    trained = [aim == "right" for aim in LOOKS[kind]] + [True]
    turns = (dataclasses.replace(turn, trained=flag) for turn, flag in zip(trajectory.turns, trained, strict=True))
    return dataclasses.replace(trajectory, turns=tuple(turns))


def check_suited(expert: Expert, kind: str) -> None:
    """Raise UnsuitedError where the medium, the answers, the cue or the turns do not allow the kind."""
    cue, turns = expert.task.cue, len(LOOKS[kind]) + 1
    if turns > expert.env.view_settings.max_turns:
        raise UnsuitedError(f"a demonstration of kind {kind} needs {turns} turns")
    if not expert.task.answers:
        raise UnsuitedError("the task has no answers")
    if kind == "textual":
        return
    if kind not in (VIDEO_MIX if expert.is_video else IMAGE_MIX):
        raise UnsuitedError(f"a demonstration of kind {kind} is not for media of kind {expert.source.kind}")
    if cue is None or not (cue.frames if expert.is_video else cue.box):
        raise UnsuitedError("the task has no cue")


def demonstrations(
    env_id: str,
    count: int,
    /,
    *,
    seed: int = 0,
    textual_share: float = TEXTUAL_SHARE,
    image_mix: Mapping[str, float] = IMAGE_MIX,
    video_mix: Mapping[str, float] = VIDEO_MIX,
    progress: bool = True,
    **env_kwargs: Any,
) -> list[Trajectory]:
    """Make `count` demonstrations in random order.

    Args:
        env_id: id for `gymnasium.make`.
        count: how many.
        seed: of the tasks, the kinds, boxes and wording.
        textual_share: share of answers without operations, asked of tasks that need none where there are any.
        image_mix: kinds of the others for images, with their shares.
        video_mix: the same for videos.
        progress: show a progress bar.
        **env_kwargs: for `gymnasium.make`.

    Raises:
        ValueError: of `MOST_TRIES` tasks in a row none allowed a demonstration; tasks need a cue and answers.
    """
    rng = np.random.default_rng(seed)
    env = gym.make(env_id, **env_kwargs)
    tasks: TaskSet = env.unwrapped.tasks  # type: ignore[attr-defined]
    textual = round(count * textual_share)
    made: list[Trajectory] = []
    tries, problem = 0, "the task needs no operation"
    with tqdm(total=count, desc="demonstrations", disable=not progress) as bar:
        while len(made) < count:
            if tries == MOST_TRIES:
                raise ValueError(
                    f"expected tasks with a cue and answers to demonstrate, got {tries} in a row that do not do, the "
                    f"last because {problem}; give other tasks, or recorded demonstrations"
                )
            tries += 1
            wanted = len(made) < textual
            index = _easy_task(tasks, rng) if wanted else int(rng.integers(len(tasks)))
            task = tasks[index]
            if not wanted and task.needs_operation is False:
                continue
            mix = {"textual": 1.0} if wanted else video_mix if task.media.kind == "video" else image_mix
            kind = str(rng.choice(list(mix), p=np.array(list(mix.values())) / sum(mix.values())))
            try:
                made.append(demonstrate(index, env, rng, kind))
            except UnsuitedError as error:
                problem = str(error)
                continue
            tries = 0
            bar.update()
    env.close()
    return [made[int(k)] for k in rng.permutation(len(made))]


def _easy_task(tasks: TaskSet, rng: np.random.Generator) -> int:
    """Return the index of a task whose first view is enough, if one turns up in 50 draws."""
    for index in rng.integers(len(tasks), size=50).tolist():
        if tasks[index].needs_operation is False:
            break
    return int(index)


def kinds(trajectories: Sequence[Trajectory]) -> dict[str, int]:
    """Return how many trajectories there are of each kind."""
    return {kind: sum(t.kind == kind for t in trajectories) for kind in LOOKS}
