"""The record of an episode: texts, seeds and flags, but no pixels, which `replay` makes again.

A `Trajectory` is the only currency between acting and learning. It is written by a `Recorder` that sits beside an
environment, stored one a line as JSON, and says nothing about tokens.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from pixel_env.custom_operations import Operation
from pixel_env.journal import replacing
from pixel_env.media import Box
from pixel_env.operations import View
from pixel_env.registration import ENVIRONMENTS
from pixel_env.tasks import Cue, Task


@dataclass(frozen=True)
class Turn:
    """One action and what came of it.

    Attributes:
        action: everything the policy wrote.
        observation: the text of the answer of the environment; `<image>` stands where an image was.
        image_digests: one `digest` an image of the observation.
        reward: the reward of the step, wrappers included.
        reward_terms: its named addends.
        operation: "crop_image", "select_frames", the name of an `Operation`, or None.
        operation_error: short code of a failed operation, else None.
        malformed: the action was neither a well-formed call nor an answer.
        trained: warm start puts its loss on the action; False for deliberate mistakes in demonstrations.
    """

    action: str
    observation: str
    image_digests: tuple[str, ...]
    reward: float
    reward_terms: dict[str, float]
    operation: str | None
    operation_error: str | None
    malformed: bool
    trained: bool = True


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """One episode, from reset to its end.

    Attributes:
        env_id: id of the environment, "" for one made without `gymnasium.make`.
        env_kwargs: its keyword arguments; `tasks` as it was given if that was "NAME:PATH", else the name of its class;
            of an `Operation` its name.
        task_id: the task.
        suite: its suite.
        needs_operation: whether the first view is not enough for it; None if unknown.
        seed: what `reset` was seeded with.
        instructions: the constant system text.
        first_observation: the text of the first observation.
        first_digests: one `digest` an image of the first observation.
        turns: what was done, in order.
        terminated: an answer was given.
        truncated: the budget of turns ran out.
        answer: the answer as it stood in the box, None without one.
        parse_failure: there is an answer, but none of the task's kind could be read in it.
        correct: the answer is right.
        score: the metric of the task in [0, 1].
        num_operations: operations called, failed ones included.
        num_errors: operations that failed.
        cue_coverage: share of the evidence that the operations showed, see `cue_coverage`; None if unknown, as where
            an `Operation` made a picture.
        kind: what it is for: "rollout", "human" (of `pixel_env.play`), or the kind of a demonstration.
        error: why the episode broke off (a file that cannot be decoded, a policy that failed), else None. With an
            error, `correct` and `score` mean nothing.
        scored: the task has answers; without any, `correct` and `score` mean nothing.
        group: shared by tasks that are one question in several forms; "" for a question of its own.
    """

    env_id: str
    env_kwargs: dict[str, Any]
    task_id: str
    suite: str
    needs_operation: bool | None
    seed: int | None
    instructions: str
    first_observation: str
    first_digests: tuple[str, ...]
    turns: tuple[Turn, ...]
    terminated: bool
    truncated: bool
    answer: str | None
    parse_failure: bool
    correct: bool
    score: float
    num_operations: int
    num_errors: int
    cue_coverage: float | None
    kind: str = "rollout"
    error: str | None = None
    scored: bool = True
    group: str = ""

    @property
    def question(self) -> tuple[str, str]:
        """What tells independent questions apart: two sets of one format, each a suite of its own, share their ids."""
        return self.suite, self.group or self.task_id

    @property
    def used_operation(self) -> bool:
        """1_PR: whether at least one operation succeeded."""
        return self.num_operations > self.num_errors

    @property
    def episode_return(self) -> float:
        """Sum of the rewards, wrappers included."""
        return sum(turn.reward for turn in self.turns)

    def to_json(self) -> str:
        """Return one line of JSON (ASCII, so that any text a policy may write survives)."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> "Trajectory":
        """Read what `to_json` wrote.

        Raises:
            ValueError: for anything else.
        """
        try:
            fields = json.loads(line)
        except RecursionError:
            raise ValueError(f"expected a trajectory, got JSON nested too deeply, {line[:60]!r}") from None
        turns = fields.get("turns") if isinstance(fields, dict) else None
        if not isinstance(turns, list):
            raise ValueError(f"expected a trajectory as a JSON object with turns, got {line[:60]!r}")
        try:
            fields["turns"] = tuple(Turn(**{**turn, "image_digests": tuple(turn["image_digests"])}) for turn in turns)
            fields["first_digests"] = tuple(fields["first_digests"])
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise ValueError(f"expected the fields of a trajectory: {error}") from error


def save_jsonl(path: str | Path, trajectories: Iterable[Trajectory]) -> None:
    """Write one trajectory a line, replacing the file; a kill leaves the old one or the new one."""
    with replacing(Path(path)) as part, part.open("w", encoding="ascii") as file:
        file.writelines(trajectory.to_json() + "\n" for trajectory in trajectories)


def load_jsonl(path: str | Path) -> list[Trajectory]:
    """Read a file of `save_jsonl`.

    Raises:
        ValueError: names the file and the line (counted from 1) that is not a trajectory.
    """
    trajectories = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                trajectories.append(Trajectory.from_json(line))
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from error
    return trajectories


def digest(image: np.ndarray) -> str:
    """Return a short fingerprint of an image (H, W, 3) uint8: equal for equal pixels, on every machine."""
    shape = "x".join(map(str, image.shape))
    return hashlib.sha256(shape.encode() + image.tobytes()).hexdigest()[:16]


def cue_coverage(cue: Cue, views: Sequence[View]) -> float:
    """Return which share of the evidence the views show.

    For an image: the largest share of the area of the cue's box inside one view. For a video: that share (1 where the
    cue is whole frames), averaged over the frames of the cue.

    Args:
        cue: where the evidence is, in source pixels and 0-based frames.
        views: what operations showed; the first view does not count, nor do pictures that a function of one's own
            made: what of the evidence they show is unknown.
    """
    frames = cue.frames or (0,)
    shares = [
        max((_covered(cue.box, v.region) for v in views if v.frame == frame and v.made is None), default=0.0)
        for frame in frames
    ]
    return sum(shares) / len(shares)


def _covered(box: Box | None, region: Box) -> float:
    if box is None:
        return 1.0
    width = max(0.0, min(box[2], region[2]) - max(box[0], region[0]))
    height = max(0.0, min(box[3], region[3]) - max(box[1], region[1]))
    return width * height / ((box[2] - box[0]) * (box[3] - box[1]))


_NOTHING_DONE = {
    "answer": None,
    "parse_failure": False,
    "correct": None,
    "score": None,
    "num_operations": 0,
    "num_errors": 0,
}


class Recorder:
    """Writes the trajectory of one episode: `begin` with what `reset` returned, `add` what each `step` returned."""

    def __init__(self, env: gym.Env[Any, str]) -> None:
        """Record episodes of `env`; the recorder only reads from it."""
        self._env = env
        self._env_id, self._env_kwargs = _how_made(env)

    def begin_failed(self, task: Task, seed: int | None) -> None:
        """Start a new record of a task that `reset(seed=seed)` could not show: there is no observation."""
        self._task, self._seed = task, seed
        self._instructions = self._first_text = ""
        self._first_digests: tuple[str, ...] = ()
        self._turns: list[Turn] = []
        self._views: list[View] = []
        self._terminated = self._truncated = False
        self._info: Mapping[str, Any] = _NOTHING_DONE

    def begin(self, observation: Mapping[str, Any], info: Mapping[str, Any], seed: int | None) -> None:
        """Start a new record with the result of `reset(seed=seed)`."""
        self.begin_failed(self._env.unwrapped.task, seed)  # type: ignore[attr-defined]
        self._instructions, self._info = info["instructions"], info
        self._first_text, self._first_digests = observation["text"], _digests(observation)

    def add(
        self,
        action: str,
        observation: Mapping[str, Any],
        reward: float,
        terminated: bool,
        truncated: bool,
        info: Mapping[str, Any],
    ) -> None:
        """Append one turn: the action and the result of `step(action)`."""
        self._turns.append(
            Turn(
                action=action,
                observation=observation["text"],
                image_digests=_digests(observation),
                reward=float(reward),
                reward_terms={name: float(term) for name, term in info["reward_terms"].items()},
                operation=info["operation"],
                operation_error=info["operation_error"],
                malformed=info["malformed"],
            )
        )
        self._views += info["views"]
        self._terminated, self._truncated, self._info = terminated, truncated, info

    def trajectory(self, kind: str = "rollout", error: str | None = None) -> Trajectory:
        """Return the record so far."""
        info, cue = self._info, self._task.cue
        unknown = any(view.made is not None for view in self._views)
        return Trajectory(
            env_id=self._env_id,
            env_kwargs=self._env_kwargs,
            task_id=self._task.task_id,
            suite=self._task.suite,
            needs_operation=self._task.needs_operation,
            seed=self._seed,
            instructions=self._instructions,
            first_observation=self._first_text,
            first_digests=self._first_digests,
            turns=tuple(self._turns),
            terminated=self._terminated,
            truncated=self._truncated,
            answer=info["answer"],
            parse_failure=info["parse_failure"],
            correct=bool(info["correct"]),
            score=float(info["score"] or 0.0),
            num_operations=info["num_operations"],
            num_errors=info["num_errors"],
            cue_coverage=None if cue is None or unknown else cue_coverage(cue, self._views),
            kind=kind,
            error=error,
            scored=bool(self._task.answers),
            group=self._task.group,
        )


def replay(trajectory: Trajectory, env: gym.Env[Any, str] | None = None) -> Trajectory:
    """Play the actions of a trajectory again and return the new record.

    Of an episode that began with a seeded reset, as all of `rollout` do, it equals the old one exactly: every text, the
    digest of every image, every reward. (Without a seed the reward wrappers keep what they saw before.)

    Args:
        trajectory: what to play.
        env: where; by default a new environment, made as the old one was.

    Raises:
        ValueError: without `env`, what `made_as` raises.
    """
    if env is None:
        made = made_as(trajectory)
        try:
            return replay(trajectory, made)
        finally:
            made.close()
    recorder = Recorder(env)
    observation, info = env.reset(seed=trajectory.seed, options={"task": trajectory.task_id})
    recorder.begin(observation, info, trajectory.seed)
    for turn in trajectory.turns:
        observation, reward, terminated, truncated, info = env.step(turn.action)
        recorder.add(turn.action, observation, float(reward), terminated, truncated, info)
    again = recorder.trajectory(trajectory.kind, trajectory.error)
    trained = [
        dataclasses.replace(new, trained=old.trained) for new, old in zip(again.turns, trajectory.turns, strict=True)
    ]
    return dataclasses.replace(again, turns=tuple(trained))


def made_as(trajectory: Trajectory, operations: Mapping[str, Operation] | None = None) -> gym.Env[Any, str]:
    """Make an environment like the one that a trajectory was played in.

    A record may come from anywhere, and `gymnasium.make` imports the module that an id names: only the ids of
    `pixel_env.registration.ENVIRONMENTS` are made.

    Args:
        trajectory: says how.
        operations: of which it holds the names only.

    Raises:
        ValueError: another id or none; a task set in memory, or an `Operation`, that the record does not hold.
    """
    if trajectory.env_id not in ENVIRONMENTS:
        known = ", ".join(ENVIRONMENTS)
        raise ValueError(f"expected an environment of {known}, got {trajectory.env_id!r}; pass the same one as `env`")
    kwargs = dict(trajectory.env_kwargs)
    if (tasks := kwargs.get("tasks")) is not None and ":" not in str(tasks):
        raise ValueError(
            f"it was played on a task set in memory ({tasks}), which the record does not hold; "
            "pass the same one as `env`"
        )
    if operations and "operations" in kwargs:
        kwargs["operations"] = [operations.get(name, name) for name in kwargs["operations"]]
    return gym.make(trajectory.env_id, **kwargs)


def _digests(observation: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(digest(image) for image in observation["images"])


def _how_made(env: gym.Env[Any, str]) -> tuple[str, dict[str, Any]]:
    """Return the id and the keyword arguments of an environment, as they look after a trip through JSON."""
    if env.spec is None:
        return "", {}
    kwargs = {name: value for name, value in env.spec.kwargs.items() if name != "render_mode"}
    if not isinstance(kwargs.get("tasks"), str | None):
        kwargs["tasks"] = type(kwargs["tasks"]).__name__
    return env.spec.id, json.loads(json.dumps(kwargs, default=_operation_name))


def _operation_name(value: object) -> str:
    """Return what stands for an operation of one's own, whose function no JSON can hold."""
    if not isinstance(value, Operation):
        raise TypeError(f"expected keyword arguments that JSON can hold, got {value!r}")
    return value.name
