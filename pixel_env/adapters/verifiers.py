"""The environments as a plugin of verifiers 0.4, named `pixel-env`.

verifiers names a plugin by its package and looks for classes in the package's `__all__`; so `pixel_env` lists those of
this module where verifiers is installed. An episode of verifiers is a group of attempts at one task, each of them a
conversation in which the environment is the user: only so can RaPR be taken over the group.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import verifiers.v1 as vf
from openai import AsyncOpenAI
from pydantic import Field
from verifiers.v1.dialects.chat import message_to_wire

from pixel_env.adapters.groups import Played, group_terms
from pixel_env.chat import Message, action_text, data_url, parts
from pixel_env.decoding import MediaError
from pixel_env.env import Observation, PixelReasonEnv
from pixel_env.rollout import Episode
from pixel_env.trajectory import Trajectory


class PixelTasksetConfig(vf.TasksetConfig):
    """Which tasks are played.

    Attributes:
        env_id: Id for `gymnasium.make`.
        settings: Its arguments, such as ``{"preset": "micro", "split": "test"}``.
        num_tasks: The first so many tasks.
    """

    env_id: str = "PixelReason-Zoom-v0"
    settings: dict[str, Any] = Field(default_factory=dict)
    num_tasks: int = Field(1024, ge=1)


class PixelData(vf.TaskData):
    """One task, without its pixels: the environment shows them when it is played.

    Attributes:
        index: Of the task in the task set.
    """

    index: int


class PixelTask(vf.Task[PixelData]):
    """One task; what it is worth is said by `PixelGroup.finalize`."""


class PixelTaskset(vf.Taskset[PixelTask, PixelTasksetConfig]):
    """The tasks of an environment, by index."""

    def load(self) -> Iterator[PixelTask]:
        """Yield the tasks.

        Raises:
            ValueError: There are fewer than `num_tasks`.
        """
        config = self.config
        bare = _made(config)
        if config.num_tasks > len(bare.tasks):
            raise ValueError(f"expected num_tasks of at most {len(bare.tasks)}, got {config.num_tasks}")
        for index in range(config.num_tasks):
            data = PixelData(name=f"{config.env_id}#{index}", system_prompt=bare.instructions or None, index=index)
            yield PixelTask(data, config.task)


class PixelChatConfig(vf.HarnessConfig):
    """Settings of `PixelChat`: none of its own."""


class PixelChat(vf.Harness[PixelChatConfig]):
    """Asks the model for one turn, in this process: there is nothing to be run, so nothing needs a sandbox."""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        """Send the conversation so far to verifiers, which passes it on and keeps what comes back."""
        system, prompt = self.resolve_prompt(data)
        head = [vf.SystemMessage(content=system)] if system else []
        messages = [message_to_wire(message) for message in [*head, *(prompt or [])]]
        async with AsyncOpenAI(base_url=endpoint, api_key=secret, max_retries=2) as client:
            await client.chat.completions.create(model=ctx.model, messages=messages)
        return vf.ProgramResult(exit_code=0, stdout="", stderr="")


class PixelGroupConfig(vf.EnvConfig):
    """How a task is played.

    Attributes:
        player: The policy.
        attempts: G, responses to a task in one episode, over which RaPR is taken. With 1, an episode is a group of its
            own and curiosity pays nothing.
    """

    player: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())
    attempts: int = Field(1, ge=1)


class PixelGroup(vf.Env[PixelGroupConfig]):
    """Plays every attempt in an environment of its own, and scores them together."""

    async def run(self, task: PixelTask, agents: vf.Agents) -> None:
        """Play the attempts; how many at a time is `max_concurrent_agents`.

        Raises:
            MediaError: The media of the task cannot be decoded.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.config.attempts):
                    group.create_task(self._attempt(task, agents.player))
        except ExceptionGroup as raised:
            raise raised.exceptions[0] from None

    async def _attempt(self, task: PixelTask, player: vf.Agent) -> None:
        episode = Episode(gym.make(self.taskset.config.env_id, **self.taskset.config.settings))
        await asyncio.to_thread(episode.reset, task.data.index, 0)  # nothing is drawn; the record names the seed
        if episode.error is not None:
            raise MediaError(episode.error)
        async with player.interaction(task) as interaction:
            while not episode.done:
                said = await interaction.turn([_message(episode.conversation.observations[-1])])
                if said.terminated:  # a limit of the player, or an error that the trace holds
                    break
                await asyncio.to_thread(episode.step, _action(said))
            if episode.error is not None:
                raise MediaError(episode.error)
        is_video = episode.env.unwrapped.task.media.kind == "video"  # type: ignore[attr-defined]
        interaction.trace.info |= {"trajectory": episode.trajectory().to_json(), "is_video": is_video}

    async def finalize(self, task: PixelTask, episode: vf.Episode) -> None:
        """Record the terms of the reward on every attempt, RaPR taken over all of them; see `pixel_env.rewards`.

        An attempt that broke off gets none, and the rest is a smaller group.
        """
        played = [_played(trace) for trace in episode.traces]
        settings = _made(self.taskset.config).reward_settings
        for trace, one, terms in zip(episode.traces, played, group_terms(played, settings), strict=True):
            if one is not None and terms is not None:
                for name, term in terms.items():
                    trace.record_reward(name, term)
                trace.record_metrics({"used_operation": one.used, "num_operations": one.num_operations})


def _made(config: PixelTasksetConfig) -> PixelReasonEnv:
    bare: PixelReasonEnv = gym.make(config.env_id, **config.settings).unwrapped  # type: ignore[assignment]
    return bare


def _played(trace: vf.Trace) -> Played | None:
    """Return what became of an attempt, None if it broke off."""
    if not trace.ok:
        return None
    trajectory = Trajectory.from_json(trace.info["trajectory"])
    return Played(trajectory.correct, trajectory.used_operation, trajectory.num_operations, trace.info["is_video"])


def _message(observation: Observation) -> Message:
    return {"role": "user", "content": parts(observation["text"], observation["images"], data_url)}


def _action(said: vf.Segment) -> str:
    """Return a turn as the environment reads it; some clients take calls out of the text."""
    reply = said.messages[-1]
    calls = [(call.name, call.arguments) for call in reply.tool_calls or ()]
    return action_text(f"{reply.reasoning_content or ''}{reply.content or ''}", calls)
