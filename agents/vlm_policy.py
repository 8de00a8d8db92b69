"""Any Qwen2.5-VL weights as a policy: turn by turn in `pixel_env.rollout`, or whole episodes through the engine."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import gymnasium as gym
from tqdm import tqdm

from agents.conversation import ChatEncoder, Tokens
from agents.engine import Engine
from agents.micro import load_model, load_processor
from pixel_env.rollout import Conversation, Episode, Keep, Planned, plan
from pixel_env.trajectory import Trajectory


class VLMPolicy:
    """A policy without memory: every turn it reads the conversation from the beginning.

    Slower than `rollout_vlm`, but it can continue conversations of any origin.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        temperature: float = 0.0,
        max_new_tokens: int = 160,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        """Speak with these weights.

        Args:
            model: A Qwen2.5-VL model.
            processor: Its processor, from `load_processor`.
            temperature: 0 for the likeliest turn.
            max_new_tokens: Most tokens of a turn.
            batch_size: Conversations read at a time.
            seed: Seed of the sampling.
        """
        self.encoder, self.batch_size = ChatEncoder(processor), batch_size
        room = max_new_tokens + 1
        self.engine = Engine(
            model,
            self.encoder,
            max_new_tokens=max_new_tokens,
            max_completion_tokens=room,
            temperature=temperature,
            seed=seed,
        )

    @classmethod
    def from_pretrained(cls, path: str | Path, **settings: Any) -> "VLMPolicy":
        """Load model and processor of a Hugging Face directory or id."""
        return cls(load_model(path), load_processor(path), **settings)

    def act(self, conversations: Sequence[Conversation]) -> list[str]:
        """Write the next turn of every conversation."""
        turns: list[str] = []
        for start in range(0, len(conversations), self.batch_size):
            batch = conversations[start : start + self.batch_size]
            prompts = [read(self.encoder, conversation) for conversation in batch]
            turns += [self.encoder.tokenizer.decode(ids) for ids in self.engine.complete(prompts, batch)]
        return turns


def read(encoder: ChatEncoder, conversation: Conversation) -> Tokens:
    """A conversation as tokens, up to the cue for the next action."""
    first, *later = conversation.observations
    tokens = Tokens()
    tokens.add(encoder.prompt(conversation.instructions, first["text"], first["images"]), 0, first["images"])
    for action, observation in zip(conversation.actions, later, strict=True):
        tokens.add([*encoder.text(action), encoder.end], 1)
        tokens.add(encoder.reply(observation["text"], observation["images"]), 0, observation["images"])
    return tokens


def rollout_vlm(
    model: Any,
    processor: Any,
    env_id: str,
    tasks: Iterable[int | str],
    /,
    *,
    group_size: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int = 160,
    max_completion_tokens: int = 1024,
    batch_size: int = 128,
    seed: int = 0,
    progress: bool = True,
    **env_kwargs: Any,
) -> list[Trajectory]:
    """What `pixel_env.rollout` does with a `VLMPolicy`, several times faster.

    Args:
        model: A Qwen2.5-VL model.
        processor: Its processor.
        env_id: Id for `gymnasium.make`.
        tasks: Indices or ids of tasks.
        group_size: G, episodes a task.
        temperature: 0 for the likeliest turns.
        max_new_tokens: Most tokens of a turn.
        max_completion_tokens: Most tokens behind the prompt; an episode that would need more ends without an answer.
        batch_size: Episodes played at a time, at least one group.
        seed: Seeds the resets, as in `pixel_env.rollout`, and the sampling.
        progress: Show a progress bar.
        **env_kwargs: For `gymnasium.make`.

    Returns:
        One trajectory an episode: the G of the first task, the G of the second, ...
    """
    engine = Engine(
        model,
        ChatEncoder(processor),
        max_new_tokens=max_new_tokens,
        max_completion_tokens=max_completion_tokens,
        temperature=temperature,
        seed=seed,
    )
    done: list[Trajectory] = []
    at_once = max(batch_size // group_size, 1) * group_size
    play_vlm(
        engine,
        env_id,
        plan(tasks, group_size, seed),
        lambda _, episode: done.append(episode.trajectory()),
        batch_size=at_once,
        progress=progress,
        **env_kwargs,
    )
    return done


def play_vlm(
    engine: Engine,
    env_id: str,
    planned: Sequence[Planned],
    keep: Keep,
    /,
    *,
    batch_size: int = 128,
    progress: bool = True,
    **env_kwargs: Any,
) -> None:
    """Play the episodes of a plan, a batch at a time, and hand them over in order when their batch is over.

    A turn draws from a stream of its own, so another batch changes an episode only where the last digits of its logits
    decide (`Engine`). Played in another process or after a stop, the same batch gives the same episodes.

    Args:
        engine: Plays them. Neighbours of the same task share the computation of their prompt.
        env_id: Id for `gymnasium.make`.
        planned: What to play.
        keep: Takes every episode.
        batch_size: Episodes played at a time.
        progress: Show a progress bar.
        **env_kwargs: For `gymnasium.make`.
    """
    episodes = [Episode(gym.make(env_id, **env_kwargs)) for _ in range(min(batch_size, len(planned)))]
    with tqdm(total=len(planned), desc="rollout", unit="episode", disable=not progress) as bar:
        for start in range(0, len(planned), batch_size):
            batch = list(zip(planned[start : start + batch_size], episodes, strict=False))
            for one, episode in batch:
                episode.reset(one.task, one.seed)
            engine.rollout([[e for _, e in group] for _, group in groupby(batch, lambda pair: pair[0].task)])
            for index, (_, episode) in enumerate(batch, start):
                keep(index, episode)
            bar.update(len(batch))
    for episode in episodes:
        episode.env.close()
