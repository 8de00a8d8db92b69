"""The environments as an `environment_factory` of TRL's `GRPOTrainer`. TRL itself is not imported here.

TRL holds the conversation: it shows the operations to the policy as functions, reads the calls, and ends a rollout with
the first turn without one. Every call is played in the environment as text, and so is that last turn, so what is right
and what is an error is decided where it always is.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gymnasium as gym
from PIL import Image

from pixel_env.adapters.groups import TERMS, Played, group_terms
from pixel_env.chat import action_text
from pixel_env.env import Observation, PixelReasonEnv
from pixel_env.prompts import IMAGE_MARKER, NO_TURN_LEFT, NOT_DECODED, OPERATIONS, functions_apart
from pixel_env.protocols import PROTOCOLS
from pixel_env.rollout import Episode

Block = dict[str, Any]
"""A part of a message: ``{"type": "text", "text": str}`` or ``{"type": "image", "image": PIL image}``."""

RewardFunction = Callable[..., list[float | None]]


class ToolEnvironment:
    """One episode after another; its public methods are the functions that TRL shows to the policy.

    >>> environment = ToolEnvironment("PixelReason-Zoom-v0", preset="micro")
    >>> [block["type"] for block in environment.reset(task=0)]
    ['text', 'image', 'text']
    >>> environment.crop_image([60, 10, 20, 50], 1)[0]["text"]
    'Error: bbox_2d [60, 10, 20, 50] is inverted: it needs x1 < x2 and y1 < y2. Turns left: 4.'
    """

    def __init__(self, env_id: str, **env_kwargs: Any) -> None:
        """Make an environment.

        Args:
            env_id: Id for `gymnasium.make`.
            **env_kwargs: Its arguments; `alpha`, `beta` and so on set the constants of `reward_funcs`.

        Raises:
            ValueError: Operations or a protocol that TRL cannot show.
        """
        self._episode = Episode(gym.make(env_id, **env_kwargs))
        bare = self._bare
        if bare.operations != OPERATIONS or bare.protocol is not PROTOCOLS["native"]:
            raise ValueError(
                f"expected both operations and the native protocol, got {list(bare.operations)} and "
                f"{env_kwargs.get('protocol', 'native')!r}: TRL shows every public method as a function, by its name"
            )
        self._calls = 0
        self._finished = False

    def reset(self, task: int | str, **_: Any) -> list[Block]:
        """Begin an episode; return what stands below the prompt.

        Args:
            task: Index or id of the task, a column of the dataset.
        """
        self._calls, self._finished = 0, False
        self._episode.reset(task, seed=0)  # nothing is drawn; the wrappers forget the episodes before
        if self._episode.error is not None:
            side = self._bare.view_settings.factor
            # TRL trains on batches in which every prompt has an image.
            return [_text(NOT_DECODED), {"type": "image", "image": Image.new("RGB", (side, side))}]
        return _blocks(self._episode.conversation.observations[0])

    # TRL would show the type of what is returned to the policy, as a part of the function.
    def crop_image(self, bbox_2d: list[float], target_image: int):  # type: ignore[no-untyped-def]
        """Zoom in: cut a box out of a numbered image and show it enlarged, in full detail.

        Args:
            bbox_2d: The box as [x1, y1, x2, y2]: left, top, right, bottom.
            target_image: The number of the image to crop, counting every image shown so far from 1.
        """
        return self._call("crop_image", bbox_2d=bbox_2d, target_image=target_image)

    def select_frames(self, target_frames: list[int]):  # type: ignore[no-untyped-def]
        """Look closer at frames of the video: show the chosen frames larger.

        Args:
            target_frames: The numbers of the frames, counting from 1.
        """
        return self._call("select_frames", target_frames=target_frames)

    @property
    def _bare(self) -> PixelReasonEnv:
        bare: PixelReasonEnv = self._episode.env.unwrapped  # type: ignore[assignment]
        return bare

    def _call(self, name: str, **arguments: Any) -> list[Block]:
        if self._episode.done:
            return [_text(NO_TURN_LEFT)]
        self._episode.step(action_text(None, [(name, json.dumps(arguments))]))
        self._calls += 1
        if self._episode.error is not None:
            return [_text(NOT_DECODED)]
        return _blocks(self._episode.conversation.observations[-1])

    def _played(self, messages: Sequence[dict[str, Any]]) -> Played | None:
        """Return what became of the rollout, None if it broke off; its last turn, if that is no call, is played first.

        Args:
            messages: Those of the completion. Calls that never came here (of an unknown function, with arguments of
                other names, after the last turn) count as operations too.
        """
        asked = sum(len(message.get("tool_calls") or ()) for message in messages)
        last = messages[-1]
        if not self._finished and not self._episode.done and last["role"] == "assistant" and not last.get("tool_calls"):
            self._episode.step(f"{last.get('reasoning_content') or ''}{last['content']}")
        self._finished = True
        if self._episode.error is not None:
            return None
        trajectory = self._episode.trajectory()
        operations = trajectory.num_operations + asked - self._calls
        is_video = self._bare.task.media.kind == "video"
        return Played(trajectory.correct, trajectory.used_operation, operations, is_video)


def rows(env_id: str, tasks: Iterable[int | str], **env_kwargs: Any) -> list[dict[str, Any]]:
    """Return the rows of a dataset, one a task: what to say before the question, and the task.

    Args:
        env_id: Id for `gymnasium.make`.
        tasks: Indices or ids of tasks.
        **env_kwargs: Arguments for `gymnasium.make`.

    >>> rows("PixelReason-Zoom-v0", [7], preset="micro")[0]["task"]
    7
    """
    env = gym.make(env_id, **env_kwargs)
    system, _ = functions_apart(env.unwrapped.instructions)  # type: ignore[attr-defined]
    env.close()
    prompt = [{"role": "system", "content": system}, {"role": "user", "content": ""}]
    return [{"prompt": prompt, "task": task} for task in tasks]


def reward_funcs(num_generations: int) -> list[RewardFunction]:
    """Return the terms of the reward as functions for TRL, each logged by its name: see `pixel_env.rewards`.

    RaPR is exact: it is taken over the group, and logged as "rapr". Every process must hold whole groups.

    Args:
        num_generations: G, responses to a task, as in `GRPOConfig`.
    """
    if num_generations < 2:
        raise ValueError(f"expected num_generations of at least 2, got {num_generations}")

    def function(name: str) -> RewardFunction:
        def reward(
            completions: Sequence[Sequence[dict[str, Any]]],
            environments: Sequence[ToolEnvironment],
            task: Sequence[int | str],
            log_metric: Callable[[str, float], None],
            **_: Any,
        ) -> list[float | None]:
            played = [one._played(messages) for one, messages in zip(environments, completions, strict=True)]
            whole = [one for one in played if one is not None]
            if name == "curiosity" and whole:
                log_metric("rapr", sum(one.used for one in whole) / len(whole))
            terms: list[dict[str, float] | None] = []
            for start in range(0, len(task), num_generations):
                group = slice(start, start + num_generations)
                _check_group(task[group], num_generations)
                terms += group_terms(played[group], environments[start]._bare.reward_settings)
            return [None if row is None else row[name] for row in terms]

        reward.__name__ = name
        return reward

    return [function(name) for name in TERMS]


def _check_group(tasks: Sequence[int | str], num_generations: int) -> None:
    if len(tasks) < num_generations or len(set(tasks)) > 1:
        raise ValueError(
            f"expected whole groups of {num_generations} responses to one task on every process, got tasks "
            f"{list(tasks)}; make per_device_train_batch_size * steps_per_generation (per_device_eval_batch_size in "
            "evaluation) a multiple of num_generations, the same as given to reward_funcs"
        )


def _blocks(observation: Observation) -> list[Block]:
    """Return an observation as parts of a message, every image where its marker stands."""
    first, *rest = observation["text"].split(IMAGE_MARKER)
    blocks = [_text(first)]
    for image, words in zip(observation["images"], rest, strict=True):
        blocks += [{"type": "image", "image": Image.fromarray(image)}, _text(words)]
    return [block for block in blocks if block.get("text") != ""]


def _text(text: str) -> Block:
    # TRL renders whole conversations and reads the names of special tokens in them as such.
    return {"type": "text", "text": text.replace("<|", "< |")}
