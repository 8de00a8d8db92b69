"""Any OpenAI-compatible endpoint as a policy: turn by turn in `pixel_env.rollout`, or every episode at its own pace."""

import asyncio
import hashlib
import json
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import gymnasium as gym
from tqdm import tqdm

from agents.endpoint import Endpoint, EndpointError
from agents.replies import Reply, ReplyLog, Usage
from pixel_env.chat import Show, Tools, data_url, messages
from pixel_env.prompts import functions_apart
from pixel_env.rollout import Complaint, Conversation, Episode, Planned, plan
from pixel_env.settings import one_of
from pixel_env.trajectory import Trajectory, digest

logger = logging.getLogger(__name__)


class EndpointPolicy:
    """A policy that asks a server. Close it, or use it in a `with` block, to end its connections.

    Attributes:
        asked: Tokens of the requests that this policy sent.
        reused: Tokens of the replies that it found in the cache instead.
        answered_by: Names of the models that answered, as the server says; another than the one asked is warned of.
        complain: Tells of the first error that is not of the endpoint.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        api_key: str | None = None,
        temperature: float | None = 0.0,
        max_new_tokens: int = 1024,
        limit_field: str = "max_tokens",
        tools: Tools = "text",
        concurrency: int = 8,
        timeout: float = 120.0,
        retries: int = 5,
        deadline: float = 600.0,
        cache: str | Path | None = None,
        prices: tuple[float, float] | None = None,
    ) -> None:
        """Speak with a model of a server; nothing is sent before the first turn.

        Args:
            model: The name that the server knows it by.
            base_url: Where the server is, such as ``http://127.0.0.1:8000/v1``.
            api_key: The key; by default that of the environment variable OPENAI_API_KEY, if there is one.
            temperature: 0 for the likeliest turn, None to leave it to the server.
            max_new_tokens: Most tokens of a turn.
            limit_field: What the server calls that; OpenAI's reasoning models want ``"max_completion_tokens"``.
            tools: ``"text"``: calls are written as the system text of the environment asks. ``"native"``: the
                operations on offer are given to the server as tools, and its tool calls become the text of an action;
                not in the protocol of the release, whose functions are others.
            concurrency: Most requests at a time.
            timeout: Seconds that one try may take.
            retries: Tries after the first, where trying again can help.
            deadline: Seconds for a turn with all its tries.
            cache: A JSONL file of replies. A request that is in it is not sent, so a run that was killed goes on where
                it was. It knows model, messages and settings but not the server: use one file for one set of weights.
            prices: Of a million tokens read and of a million written.

        Raises:
            ValueError: A setting out of range, or a `cache` that is not one.
        """
        one_of("tools", tools, ("text", "native"))
        if concurrency < 1 or retries < 0 or timeout <= 0 or deadline <= 0:
            raise ValueError(
                "expected concurrency of at least 1, retries of at least 0, and timeout and deadline above 0, "
                f"got {concurrency}, {retries}, {timeout} and {deadline}"
            )
        self.model, self.tools, self.prices = model, tools, prices
        self.settings: dict[str, Any] = {limit_field: max_new_tokens}
        if temperature is not None:
            self.settings["temperature"] = temperature
        self.asked, self.reused = Usage(), Usage()
        self._log = None if cache is None else ReplyLog(cache)
        self.answered_by = set() if self._log is None else self._log.models
        self._samples: Counter[str] = Counter()
        self._complained, self.complain = False, Complaint()
        self.endpoint = Endpoint(
            base_url, api_key, concurrency=concurrency, timeout=timeout, retries=retries, deadline=deadline
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.endpoint.close()

    @property
    def cost(self) -> float | None:
        """The price of the requests sent; None without prices, or where the server left figures out."""
        return self.asked.cost(self.prices)

    def act(self, conversations: Sequence[Conversation]) -> list[str | Exception]:
        """Write the next turn of every conversation; an error stands in the place of a turn that could not be had.

        The same request asked again is another sample: the n-th time since the policy was made finds the n-th reply of
        the cache.
        """
        turns = self.endpoint.run(self._turns(conversations))
        return [turn.text if isinstance(turn, Reply) else turn for turn in turns]

    async def _turns(self, conversations: Sequence[Conversation]) -> list[Reply | Exception]:
        return await asyncio.gather(*(self._turn_or_error(conversation) for conversation in conversations))

    async def _turn_or_error(self, conversation: Conversation) -> Reply | Exception:
        try:
            return await self.turn(conversation)
        except EndpointError as error:
            return error
        except Exception as error:  # whatever breaks is the error of one episode
            self.complain(error)
            return error

    async def turn(self, conversation: Conversation, sample: int | None = None) -> Reply:
        """Return the reply to one conversation; runs in the endpoint's loop.

        Args:
            conversation: In which it is the policy's turn.
            sample: Number of the sample, where the same may be asked several times; by default how often it was.

        Raises:
            EndpointError: There is no reply.
            ValueError: The markers in a text and the images differ in number; or native tools were asked for, and the
                system text describes functions that are not ours.
        """
        request = self._fingerprint(conversation)
        if sample is None:
            sample = self._samples[request]
            self._samples[request] += 1
        key = f"{request}-{sample}"
        if self._log is not None and (kept := self._log.get(key)) is not None:
            self.reused += Usage.of(kept)
            return kept
        try:
            reply = await self.endpoint.ask(self.model, lambda: self._request(conversation, data_url))
        except EndpointError as error:
            if not self._complained:  # a wrong key fails every episode: say so before the last of them has ended
                logger.warning("%s", error)
                self._complained = True
            raise
        self.asked += Usage.of(reply)
        self._note_model(reply.model)
        if self._log is not None:
            try:
                self._log.add(key, reply)
            except OSError as error:  # no fault of the episode, which has its answer
                logger.warning("a reply was not kept, so another run asks for it again: %s", error)
        return reply

    def _note_model(self, said: str | None) -> None:
        """Note who answered; warn where that is another model, and not a longer or shorter name of the one asked."""
        if said is None or said in self.answered_by:
            return
        self.answered_by.add(said)
        if not any(a.rpartition("/")[2].lower() in b.lower() for a, b in ((self.model, said), (said, self.model))):
            logger.warning("asked for the model %r and was answered by %r; look at base_url", self.model, said)

    def _request(self, conversation: Conversation, show: Show) -> dict[str, Any]:
        request = {"model": self.model, "messages": messages(conversation, self.tools, show), **self.settings}
        return request | (_offered(conversation) if self.tools == "native" else {})

    def _fingerprint(self, conversation: Conversation) -> str:
        """Return a digest of a request; images count by their own digests."""
        request = self._request(conversation, digest)
        return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def _offered(conversation: Conversation) -> dict[str, Any]:
    """Return the operations that the environment offers as tools of a request; nothing where there are none."""
    rest, schemas = functions_apart(conversation.instructions)
    if "<tools>" in rest:
        raise ValueError("expected tools='text' with protocol='pixelreasoner', whose functions are text, got 'native'")
    return {"tools": schemas} if schemas else {}


@dataclass(frozen=True)
class Played:
    """An episode and the tokens of its turns, whether they were asked for or found in the cache."""

    trajectory: Trajectory
    usage: Usage


def rollout_endpoint(
    policy: EndpointPolicy, env_id: str, tasks: Iterable[int | str], /, **settings: Any
) -> list[Trajectory]:
    """What `pixel_env.rollout` does, but no episode waits for another. For the settings see `play`."""
    return [played.trajectory for played in play(policy, env_id, tasks, **settings)]


def play(
    policy: EndpointPolicy,
    env_id: str,
    tasks: Iterable[int | str],
    /,
    *,
    group_size: int = 1,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = True,
    **env_kwargs: Any,
) -> list[Played]:
    """Play tasks, each episode at its own pace.

    Args:
        policy: Asked with one conversation at a time, up to its `concurrency` at once.
        env_id: Id for `gymnasium.make`.
        tasks: Indices or ids of tasks.
        group_size: G, episodes a task.
        batch_size: Episodes played at a time.
        seed: Seeds the resets, as in `pixel_env.rollout`.
        progress: Show a progress bar.
        **env_kwargs: For `gymnasium.make`.

    Returns:
        One an episode: the G of the first task, the G of the second, ...
    """
    planned, done = plan(tasks, group_size, seed), dict[int, Played]()

    def keep(index: int, episode: Episode, usage: Usage) -> None:
        done[index] = Played(episode.trajectory(), usage)

    play_endpoint(policy, env_id, planned, keep, batch_size=batch_size, progress=progress, **env_kwargs)
    return [done[index] for index in range(len(planned))]


KeepPlayed = Callable[[int, Episode, Usage], None]
"""Takes an episode that is over, its place in the plan, and the tokens of its turns."""


def play_endpoint(
    policy: EndpointPolicy,
    env_id: str,
    planned: Sequence[Planned],
    keep: KeepPlayed,
    /,
    *,
    batch_size: int = 32,
    progress: bool = True,
    **env_kwargs: Any,
) -> None:
    """Play the episodes of a plan and hand over each as soon as it is over; `play` describes the arguments."""
    if batch_size < 1:
        raise ValueError(f"expected batch_size of at least 1, got {batch_size}")
    episodes = [Episode(gym.make(env_id, **env_kwargs)) for _ in range(min(batch_size, len(planned)))]
    try:
        # All environments share one thread: their work is short, and sources of a task are not made for several.
        with (
            ThreadPoolExecutor(1, "environments") as environments,
            tqdm(total=len(planned), desc="rollout", unit="episode", disable=not progress) as bar,
        ):
            policy.endpoint.run(_play_all(policy, episodes, deque(enumerate(planned)), keep, environments, bar))
    finally:
        for episode in episodes:
            episode.env.close()


async def _play_all(
    policy: EndpointPolicy,
    episodes: Sequence[Episode],
    waiting: deque[tuple[int, Planned]],
    keep: KeepPlayed,
    environments: ThreadPoolExecutor,
    bar: tqdm,
) -> None:
    """Play the plan to its end; every episode that falls free takes the next."""
    errors = 0

    async def work(episode: Episode) -> None:
        nonlocal errors
        while waiting:
            index, planned = waiting.popleft()
            keep(index, episode, await _play(policy, episode, planned, environments))
            bar.update()
            errors += episode.error is not None
            if errors:
                bar.set_postfix(errors=errors)

    workers = [asyncio.create_task(work(episode)) for episode in episodes]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()


async def _play(policy: EndpointPolicy, episode: Episode, planned: Planned, environments: ThreadPoolExecutor) -> Usage:
    loop, usage = asyncio.get_running_loop(), Usage()
    await loop.run_in_executor(environments, episode.reset, planned.task, planned.seed)
    while not episode.done:
        try:
            reply = await policy.turn(episode.conversation, planned.sample)
        except EndpointError as error:
            episode.fail(error)
            break
        except Exception as error:  # as in `pixel_env.rollout`: whatever breaks there is data
            policy.complain(error)
            episode.fail(error)
            break
        usage += Usage.of(reply)
        await loop.run_in_executor(environments, episode.step, reply.text)
    return usage
