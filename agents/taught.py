"""Demonstrations of tasks that bring their evidence, such as a box or a window of seconds, told by a teacher.

The way of the paper (arXiv 2505.15966, section 3 and appendix C): the whole is analysed, templates announce and make
the operation that the evidence asks for, what it shows is analysed, and the answer is boxed. The teacher writes the two
analyses once a task; every kind of demonstration is assembled of them, mistakes included, and played.

The box holds the answer as the task words it: the teacher has to find it too, and is never quoted there. First it is
asked without a closer look, since a question that is answered so demonstrates nothing.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from agents.api_policy import EndpointPolicy
from agents.boxes import on_view
from agents.demonstrations import IMAGE_MIX, LOOKS, VIDEO_MIX, check_suited, demonstrate
from agents.endpoint import EndpointError
from agents.expert import AREA, Expert, Remarks, UnsuitedError, boxed
from agents.leaks import acts, gives_away, numbers_an_image
from agents.outcomes import DroppedError, Outcome, Record, fingerprint
from agents.players import ENV_ID
from agents.teacher import Consultation, MalformedReplyError
from pixel_env.actions import CropImage, SelectFrames, render
from pixel_env.env import PixelReasonEnv
from pixel_env.grading import grade
from pixel_env.rollout import Episode
from pixel_env.tasks import Task, TaskSet
from pixel_env.trajectory import Trajectory, replay


@dataclass(frozen=True)
class Seed:
    """A task, and what a teacher is shown of it.

    Attributes:
        index: Its index in the task set.
        task: The task.
        fingerprint: Of picture and question.
        look: The right operation.
        first: The first views, (H, W, 3) uint8 each.
        closer: What `look` shows.
        place: Where the evidence is, in words.
        kinds: The demonstrations to be made.
    """

    index: int
    task: Task
    fingerprint: str
    look: CropImage | SelectFrames
    first: Sequence[np.ndarray]
    closer: Sequence[np.ndarray]
    place: str
    kinds: tuple[str, ...]


class Stage:
    """An environment with the tasks of one set, where seeds are prepared and demonstrations played. For one thread."""

    def __init__(self, env_kwargs: Mapping[str, Any], seed: int, per_seed: int, seen: set[str]) -> None:
        """Open the task set.

        Args:
            env_kwargs: For `gymnasium.make`.
            seed: Of boxes, frames, kinds and wording.
            per_seed: Demonstrations of each task, all of different kinds.
            seen: Fingerprints that came before; those of new seeds are added.
        """
        self.env = gym.make(ENV_ID, **env_kwargs)
        self._seed, self._per_seed, self._seen = seed, per_seed, seen

    @property
    def bare(self) -> PixelReasonEnv:
        """The environment without its wrappers."""
        bare = self.env.unwrapped
        assert isinstance(bare, PixelReasonEnv)
        return bare

    @property
    def tasks(self) -> TaskSet:
        """The task set."""
        return self.bare.tasks

    def prepare(self, index: int) -> Seed:
        """Look at a task as its demonstrations will; raises DroppedError if none can be made."""
        rng = np.random.default_rng([self._seed, index])
        episode = self.begin(index, rng)
        task, first = self.bare.task, episode.conversation.observations[0]
        if task.needs_operation is False:
            raise DroppedError("no_need_to_look", "the task says so")
        # A wide margin of the environment around a tiny cue is no mistake of whoever pointed at it.
        loosest = math.inf if self.bare.view_settings.crop_padding else AREA[1]
        expert = Expert(self.env, rng, loosest=loosest)
        kinds = self._kinds(expert, rng)
        mark = self.mark(episode)
        place, look = self._place(task), expert.point("right")
        episode.step(render(look))
        closer = episode.conversation.observations[-1]
        return Seed(index, task, mark, look, first["images"], closer["images"], place, kinds)

    def begin(self, index: int, rng: np.random.Generator) -> Episode:
        """Begin an episode; raises DroppedError where the media cannot be read."""
        episode = Episode(self.env)
        episode.reset(index, seed=int(rng.integers(2**31)))
        if episode.error is not None:
            raise DroppedError("damaged", episode.error)
        return episode

    def mark(self, episode: Episode) -> str:
        """Return the fingerprint of an episode; raises DroppedError if its picture and question came before."""
        mark = fingerprint(episode.trajectory())
        if mark in self._seen:
            raise DroppedError("duplicate")
        self._seen.add(mark)
        return mark

    def _kinds(self, expert: Expert, rng: np.random.Generator) -> tuple[str, ...]:
        """Draw kinds, in the proportions of the paper, from those for which boxes or frames exist."""
        mix, suited, problem = VIDEO_MIX if expert.is_video else IMAGE_MIX, list[str](), ""
        for kind in mix:
            try:
                check_suited(expert, kind)
                for aim in dict.fromkeys(LOOKS[kind]):  # the order of a set is not the same in two processes
                    expert.point(aim)
                suited.append(kind)
            except UnsuitedError as error:
                problem = str(error)
        if not suited:
            raise DroppedError("unsuited", problem)
        shares = np.array([mix[kind] for kind in suited])
        drawn = rng.choice(suited, size=min(self._per_seed, len(suited)), replace=False, p=shares / shares.sum())
        return tuple(map(str, drawn))

    def _place(self, task: Task) -> str:
        """Say where the evidence is, on what is shown first."""
        assert task.cue is not None
        shown = self.bare.shown
        if task.media.kind == "video":
            numbers = [str(k) for k, view in enumerate(shown, start=1) if view.frame in task.cue.frames]
            return f"frames {', '.join(numbers)}" if numbers else "a few of the frames"
        assert task.cue.box is not None
        box, (width, height) = on_view(task.cue.box, shown[0], "pixel"), shown[0].size
        return f"the box {[int(side) for side in box]} (x1, y1, x2, y2) of the image of {width} x {height} pixels"

    def play(self, seed: Seed, kind: str, remarks: Remarks) -> Trajectory:
        """Play a demonstration, and play it again; raises DroppedError where that goes wrong."""
        rng = np.random.default_rng([self._seed, seed.index, list(LOOKS).index(kind)])
        try:
            made = demonstrate(seed.index, self.env, rng, kind, remarks)
        except UnsuitedError as error:
            raise DroppedError("unsuited", str(error)) from None
        if replay(made, self.env) != made:
            raise DroppedError("replay")
        return made


async def teach(stage: Stage, source: str, index: int, policy: EndpointPolicy, environments: Executor) -> Record:
    """Make the demonstrations of one task; whatever goes wrong with it is in the record.

    Args:
        stage: Where they are played.
        source: Name of the task set.
        index: Of the task.
        policy: The teacher.
        environments: One thread, in which everything is done on the stage.
    """
    loop, task_id = asyncio.get_running_loop(), ""
    consultation, mark, outcomes = Consultation(policy), "", list[Outcome]()
    try:
        task_id = await loop.run_in_executor(environments, lambda: stage.tasks[index].task_id)
        seed = await loop.run_in_executor(environments, stage.prepare, index)
        mark = seed.fingerprint
        remarks = await _remarks(seed, consultation)
        for kind in seed.kinds:
            outcomes.append(await loop.run_in_executor(environments, _played, stage, seed, kind, remarks))
    except (DroppedError, MalformedReplyError, EndpointError) as error:
        outcomes = [dropped(error)]
    return Record("taught", source, index, task_id, mark, consultation.usage, tuple(outcomes))


def dropped(error: DroppedError | MalformedReplyError | EndpointError) -> Outcome:
    """Return the outcome of a seed that ended in an error; any other error is a mistake of ours."""
    if isinstance(error, DroppedError):
        return Outcome(reason=error.reason, detail=error.detail)
    return Outcome(reason="no_reply" if isinstance(error, EndpointError) else "malformed_reply", detail=str(error))


def _played(stage: Stage, seed: Seed, kind: str, remarks: Remarks) -> Outcome:
    try:
        return Outcome(kind, stage.play(seed, kind, remarks))
    except DroppedError as error:
        return Outcome(kind, reason=error.reason, detail=error.detail)


async def _remarks(seed: Seed, consultation: Consultation) -> Remarks:
    """Ask for what is said in the demonstrations of a seed; raises DroppedError if it cannot be used.

    What costs least and drops most comes first.
    """
    task, answer = seed.task, boxed(seed.task)
    guess = await consultation.guess(task, seed.first)
    if grade(task, guess).correct:
        raise DroppedError("no_need_to_look", guess)
    whole, target = await consultation.whole(task, seed.first, seed.place)
    _check_remark(f"{whole} {target}", answer)
    if gives_away(f"{whole} {target}", task):
        raise DroppedError("leak", f"{whole} [{target}]")
    closer, found = await consultation.closer(task, seed.first, seed.closer, target)
    if not grade(task, found).correct:
        raise DroppedError("wrong_answer", found)
    _check_remark(closer, answer)
    return Remarks(target, whole, closer, seed.look)


def _check_remark(remark: str, answer: str) -> None:
    if acts(remark, answer):
        raise DroppedError("acts", remark)
    if numbers_an_image(remark):
        raise DroppedError("numbered", remark)
