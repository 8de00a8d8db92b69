"""Run any policy over any tasks, alone or in groups, and keep every episode as a trajectory.

What goes wrong outside the environment's rules (a policy that raises, a file that cannot be decoded, an operation of
one's own with a bug) ends that one episode with an error; it never takes the others down and is never scored.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from pixel_env.custom_operations import OperationError
from pixel_env.decoding import MediaError
from pixel_env.env import Observation
from pixel_env.trajectory import Recorder, Trajectory

logger = logging.getLogger(__name__)


@dataclass
class Conversation:
    """What has been said and shown so far; all that a policy gets.

    Attributes:
        task_id: the task; an oracle may look it up, no other policy may use it.
        instructions: the constant system text.
        observations: one more than `actions` when it is the policy's turn.
        actions: what the policy wrote.
        seed: of the reset, None if there was none. It tells samples of a task apart; a policy that draws from a stream
            of it, and of the number of the turn, does not depend on what else is played.
    """

    task_id: str
    instructions: str
    observations: list[Observation]
    actions: list[str] = field(default_factory=list)
    seed: int | None = None


class Policy(Protocol):
    """Anything that writes the next turn of conversations."""

    def act(self, conversations: Sequence[Conversation]) -> Sequence[str | Exception]:
        """Return one action text a conversation, in their order.

        An exception in place of a text ends that episode with an error. One that is raised says nothing about whose
        fault it was, so every conversation of the batch is asked again, alone.
        """
        ...


PolicyFunction = Callable[[Conversation], str]
"""A policy as a function: writes the next turn of one conversation."""


class Complaint:
    """Tells of the first error that a run did not expect, with its traceback: episodes keep only the text of theirs."""

    def __init__(self) -> None:
        """Begin a run."""
        self._told = False

    def __call__(self, error: Exception) -> None:
        """Log an error, unless there was one before."""
        if not self._told:
            self._told = True
            logger.warning("an episode ended in an error; those after it are only counted", exc_info=error)


class OneByOne:
    """A function as a policy: what it raises in one conversation is the error of that one."""

    def __init__(self, function: PolicyFunction) -> None:
        """Ask `function` for every turn."""
        self.function, self._complain = function, Complaint()

    def act(self, conversations: Sequence[Conversation]) -> list[str | Exception]:
        """Return one turn a conversation, or what the function raised."""
        return [self._turn(conversation) for conversation in conversations]

    def _turn(self, conversation: Conversation) -> str | Exception:
        try:
            return self.function(conversation)
        except Exception as error:
            self._complain(error)
            return error


class Episode:
    r"""One environment and the conversation in it, driven turn by turn; can be reset and used again.

    Attributes:
        conversation: what has been said and shown in the current episode.
        done: no turn is left; reset before the next step.
        error: why the episode broke off, else None.

    >>> import gymnasium as gym, pixel_env
    >>> episode = Episode(gym.make("PixelReason-Zoom-v0", preset="micro"))
    >>> episode.reset(task=0, seed=0)
    >>> episode.step("No idea."), episode.step(r"\boxed{A}")
    (False, True)
    >>> len(episode.trajectory().turns)
    2
    """

    conversation: Conversation

    def __init__(self, env: gym.Env[Any, str]) -> None:
        """Drive `env`; closing it stays with the caller."""
        self.env = env
        self.done = True
        self.error: str | None = None
        self._recorder = Recorder(env)

    def reset(self, task: int | str, seed: int | None = None) -> None:
        """Begin a task, by index or id. A seed clears the statistics of reward wrappers, so that replay is exact.

        A file that cannot be decoded ends the episode at once, with an `error`.
        """
        self.done, self.error = False, None
        try:
            observation, info = self.env.reset(seed=seed, options={"task": task})
        except MediaError as error:
            tasks = self.env.unwrapped.tasks  # type: ignore[attr-defined]
            self._recorder.begin_failed(tasks[tasks.index(task) if isinstance(task, str) else task], seed)
            self.fail(error)
            return
        self._recorder.begin(observation, info, seed)
        self.conversation = Conversation(info["task_id"], info["instructions"], [observation], seed=seed)

    def step(self, action: str) -> bool:
        """Take one turn and return whether the episode is over."""
        if self.done:
            raise ValueError("the episode is over; call reset before the next step")
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
        except (MediaError, OperationError) as error:
            self.fail(error)
            return True
        self._recorder.add(action, observation, float(reward), terminated, truncated, info)
        self.conversation.actions.append(action)
        self.conversation.observations.append(observation)
        self.done = terminated or truncated
        return self.done

    def fail(self, error: Exception) -> None:
        """Break the episode off: its trajectory carries the error and is not scored."""
        self.done, self.error = True, f"{type(error).__name__}: {error}"

    def trajectory(self, kind: str = "rollout") -> Trajectory:
        """Return the record so far."""
        return self._recorder.trajectory(kind, self.error)


def rollout(
    policy: Policy | PolicyFunction,
    env_id: str,
    tasks: Iterable[int | str],
    /,
    *,
    group_size: int = 1,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = True,
    **env_kwargs: Any,
) -> list[Trajectory]:
    """Play tasks with a policy.

    Args:
        policy: asked with up to `batch_size` conversations at a time; a function is asked with each of them.
        env_id: id for `gymnasium.make`.
        tasks: indices or ids of tasks. (Positional, so that `tasks=` can give the environment a task set.)
        group_size: G, episodes a task.
        batch_size: episodes played at a time; each holds an environment with the source of its task.
        seed: seeds the resets. Every reset is seeded, so rewards do not depend on the order of episodes: the curiosity
            of the wrapper sees one response at a time, and the terms of a group are left to `rewards.shaped_rewards`.
        progress: show a progress bar.
        **env_kwargs: for `gymnasium.make`.

    Returns:
        One trajectory an episode: the G of the first task, the G of the second, ...
    """
    planned, done = plan(tasks, group_size, seed), dict[int, Trajectory]()

    def keep(index: int, episode: Episode) -> None:
        done[index] = episode.trajectory()

    play(policy, env_id, planned, keep, batch_size=batch_size, progress=progress, **env_kwargs)
    return [done[index] for index in range(len(planned))]


@dataclass(frozen=True)
class Planned:
    """An episode to be played.

    Attributes:
        task: index or id of the task.
        sample: how often the task came before in the plan.
        seed: of the reset.
    """

    task: int | str
    sample: int
    seed: int


Keep = Callable[[int, Episode], None]
"""Takes an episode that is over, and its place in the plan; the episode is used again afterwards."""


def plan(tasks: Iterable[int | str], group_size: int, seed: int) -> list[Planned]:
    """Return the episodes of a rollout in order: the G of the first task, the G of the second, ...

    >>> [(one.task, one.sample) for one in plan([3, 7], group_size=2, seed=0)]
    [(3, 0), (3, 1), (7, 0), (7, 1)]
    """
    if group_size < 1:
        raise ValueError(f"expected group_size of at least 1, got {group_size}")
    listed = [task for task in tasks for _ in range(group_size)]
    seeds = np.random.default_rng(seed).integers(2**31, size=len(listed)).tolist()
    before: Counter[int | str] = Counter()
    planned = []
    for task, reset_seed in zip(listed, seeds, strict=True):
        planned.append(Planned(task, before[task], reset_seed))
        before[task] += 1
    return planned


def play(
    policy: Policy | PolicyFunction,
    env_id: str,
    planned: Sequence[Planned],
    keep: Keep,
    /,
    *,
    batch_size: int = 32,
    progress: bool = True,
    **env_kwargs: Any,
) -> None:
    """Play the episodes of a plan and hand over each as soon as it is over; `rollout` describes the arguments."""
    if batch_size < 1:
        raise ValueError(f"expected batch_size of at least 1, got {batch_size}")
    asked, complain = _policy(policy), Complaint()
    waiting, errors = deque(enumerate(planned)), 0
    episodes = [Episode(gym.make(env_id, **env_kwargs)) for _ in range(min(batch_size, len(planned)))]
    free, running = list(episodes), dict[int, Episode]()
    with tqdm(total=len(planned), desc="rollout", unit="episode", disable=not progress) as bar:
        while waiting or running:
            while waiting and free:
                index, next_one = waiting.popleft()
                running[index] = free.pop()
                running[index].reset(next_one.task, next_one.seed)
            _take_turn(asked, [episode for episode in running.values() if not episode.done], complain)
            for index in [index for index, episode in running.items() if episode.done]:
                episode = running.pop(index)
                keep(index, episode)
                free.append(episode)
                bar.update()
                errors += episode.error is not None
            if errors:
                bar.set_postfix(errors=errors)
    for episode in episodes:
        episode.env.close()


def _policy(given: Policy | PolicyFunction) -> Policy:
    if isinstance(given, type):
        raise TypeError(f"expected a policy, got the class {given.__name__}; make one: {given.__name__}(...)")
    if callable(getattr(given, "act", None)):
        return cast(Policy, given)
    if not callable(given):
        raise TypeError(f"expected a policy with `act`, or a function of a conversation, got {given!r}")
    return OneByOne(given)


def _take_turn(policy: Policy, episodes: Sequence[Episode], complain: Complaint) -> None:
    """Ask the policy once and step every episode; a policy that raises is asked again, one conversation at a time."""
    if not episodes:
        return
    try:
        actions = policy.act([episode.conversation for episode in episodes])
    except Exception as error:  # a policy may be an endpoint: whatever breaks there is data
        if len(episodes) == 1:
            complain(error)
            episodes[0].fail(error)
            return
        for episode in episodes:
            _take_turn(policy, [episode], complain)
        return
    if isinstance(actions, str) or not isinstance(actions, Sequence):
        raise TypeError(f"expected `act` to return a list with one text a conversation, got {actions!r:.60}")
    if len(actions) != len(episodes):
        raise ValueError(f"expected one action a conversation, {len(episodes)}, got {len(actions)}")
    for episode, action in zip(episodes, actions, strict=True):
        if isinstance(action, Exception):
            episode.fail(action)
        else:
            episode.step(action)
