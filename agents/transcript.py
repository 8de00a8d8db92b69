"""One rollout as it grows, whatever writes its turns: what a turn may hold, what follows it, and when it is over.

What the policy sampled is what a trainer gets: ids are recorded as they are drawn and never made again from text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agents.conversation import ChatEncoder, Tokens
from pixel_env.rollout import Conversation, Episode
from pixel_env.trajectory import Trajectory


@dataclass(frozen=True)
class Sample:
    """One rollout as a trainer needs it.

    Attributes:
        prompt_ids: Ids of the first observation, image pads expanded.
        completion_ids: All that followed, up to the end of the last turn of the policy.
        policy_mask: 1 where the policy wrote the token (its ``<|im_end|>`` included), 0 where the environment did.
        logps: Log-probabilities the tokens were drawn with; 0 where the policy did not write.
        images: Views (H, W, 3) uint8 in the order of their pads, those of the prompt first.
        num_prompt_images: How many of them belong to the prompt.
        trajectory: The record of the episode.
        cut: The budget of the rollout ended it before the environment did.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    policy_mask: list[int]
    logps: list[float]
    images: list[np.ndarray]
    num_prompt_images: int
    trajectory: Trajectory
    cut: bool


@dataclass(frozen=True)
class Budget:
    """How much may be written.

    Attributes:
        max_new_tokens: Most tokens of one turn; a longer turn is closed and played as it stands.
        max_completion_tokens: Most tokens behind the prompt, those of the environment included.
    """

    max_new_tokens: int = 160
    max_completion_tokens: int = 1024

    def __post_init__(self) -> None:
        if not 0 < self.max_new_tokens <= self.max_completion_tokens - 1:
            raise ValueError(
                "expected max_new_tokens of at least 1 and below max_completion_tokens, "
                f"got {self.max_new_tokens} and {self.max_completion_tokens}"
            )


class Transcript:
    """A rollout that is being played.

    Attributes:
        prompt: What the policy reads first.
        completion: All that followed; its images are those of later observations.
        over: No turn is left.
    """

    def __init__(self, episode: Episode, prompt: Tokens, encoder: ChatEncoder, budget: Budget) -> None:
        self.prompt, self.completion, self.over = prompt, Tokens(), False
        self._episode, self._encoder, self._budget = episode, encoder, budget
        self._logps: list[float] = []
        self._cut = False

    @classmethod
    def unplayable(cls, episode: Episode, encoder: ChatEncoder, budget: Budget) -> "Transcript":
        """That of an episode that broke off at its reset: no token carries loss."""
        empty = cls(episode, Tokens(encoder.cue), encoder, budget)
        empty._hear([encoder.end])
        empty.over = True
        return empty

    def __len__(self) -> int:
        """Number of tokens behind the prompt."""
        return len(self.completion.ids)

    @property
    def conversation(self) -> Conversation:
        """What has been said and shown so far."""
        return self._episode.conversation

    @property
    def room(self) -> int:
        """Most tokens of the next turn, at least 1; an ``<|im_end|>`` fits behind them."""
        return min(self._budget.max_new_tokens, self._budget.max_completion_tokens - len(self) - 1)

    def take(self, ids: Sequence[int], logps: Sequence[float]) -> Tokens | None:
        """Play a turn; returns what the policy has to read behind it, None if the rollout is over.

        Args:
            ids: What the policy wrote, from 1 to `room` tokens; the last may be its ``<|im_end|>``.
            logps: Their log-probabilities.
        """
        closing = [] if ids[-1] == self._encoder.end else [self._encoder.end]
        self.completion.add(ids, 1)
        self._logps += logps
        self._hear(closing)
        self.over = self._episode.step(self._encoder.tokenizer.decode(ids if closing else ids[:-1]))
        if self.over:
            return None
        observation = self._episode.conversation.observations[-1]
        reply = self._encoder.reply(observation["text"], observation["images"])
        if len(self) + len(reply) + 2 > self._budget.max_completion_tokens:
            self.over = self._cut = True
            return None
        self._hear(reply, observation["images"])
        after = Tokens()
        after.add([*closing, *reply], 0, observation["images"])
        return after

    def _hear(self, ids: Sequence[int], images: Sequence[np.ndarray] = ()) -> None:
        """Append what the policy did not write."""
        self.completion.add(ids, 0, images)
        self._logps += [0.0] * len(ids)

    def sample(self) -> Sample:
        """What a trainer needs of the rollout so far."""
        return Sample(
            prompt_ids=self.prompt.ids,
            completion_ids=self.completion.ids,
            policy_mask=self.completion.loss,
            logps=self._logps,
            images=[*self.prompt.images, *self.completion.images],
            num_prompt_images=len(self.prompt.images),
            trajectory=self._episode.trajectory(),
            cut=self._cut,
        )


def transcripts(groups: Sequence[Sequence[Episode]], encoder: ChatEncoder, budget: Budget) -> list[list[Transcript]]:
    """Transcripts of episodes after their reset; those of a group share the task and so the prompt.

    Raises:
        ValueError: The episodes of a group begin with different observations.
    """
    begun = []
    for group in groups:
        playable = [episode for episode in group if not episode.done]
        prompt = _prompt(encoder, playable) if playable else Tokens()
        begun.append(
            [
                Transcript.unplayable(episode, encoder, budget)
                if episode.done
                else Transcript(episode, prompt, encoder, budget)
                for episode in group
            ]
        )
    return begun


def _prompt(encoder: ChatEncoder, group: Sequence[Episode]) -> Tokens:
    """The prompt of a group, once."""
    first = group[0].conversation
    observation = first.observations[0]
    for episode in group[1:]:
        other = episode.conversation.observations[0]
        same = len(other["images"]) == len(observation["images"]) and all(
            map(np.array_equal, other["images"], observation["images"])
        )
        if other["text"] != observation["text"] or not same:
            got = f"{first.task_id} and {episode.conversation.task_id}"
            raise ValueError(f"expected the episodes of a group to begin alike, got {got}")
    tokens = Tokens()
    ids = encoder.prompt(first.instructions, observation["text"], observation["images"])
    tokens.add(ids, 0, observation["images"])
    return tokens
