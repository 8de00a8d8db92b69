"""Who plays: from the word on the command line to something that plays a plan of episodes.

Torch, the OpenAI client and modules of one's own are imported only for the policy that was asked for.
"""

import dataclasses
import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from pixel_env.command_line import UsageError
from pixel_env.policies import DirectPolicy, GridPolicy, OraclePolicy, RandomPolicy
from pixel_env.rollout import Keep, Planned, Policy, PolicyFunction, play
from pixel_env.tasks import TaskSet

ENV_ID = "PixelReason-Mixed-v0"

SCRIPTED: dict[str, Callable[[TaskSet, int, str], Policy]] = {
    "random": lambda tasks, seed, coordinates: RandomPolicy(seed, coordinates),
    "direct": lambda tasks, seed, coordinates: DirectPolicy(seed),
    "grid": lambda tasks, seed, coordinates: GridPolicy(seed=seed, coordinates=coordinates),
    "oracle": lambda tasks, seed, coordinates: OraclePolicy(tasks, coordinates),
}
"""Name: makes the policy of a task set, a seed and a unit of boxes."""


@dataclass(frozen=True)
class PolicySpec:
    """Which policy was asked for.

    Attributes:
        kind: ``"scripted"``, ``"endpoint"``, ``"object"``, ``"weights"``, or ``"ppo"``, a run of `baselines/ppo.py`,
            which `benchmarks.ppo_player` plays.
        name: Its name, the model of the endpoint, the module, where the weights are, or the run folder.
        more: Address of the endpoint, or the name of the object; else "".
    """

    kind: str
    name: str
    more: str = ""


@dataclass(frozen=True)
class Decoding:
    """How a policy writes its turns; what it has no use for is without effect.

    Attributes:
        temperature: 0 for the likeliest turn; None leaves it to an endpoint.
        max_new_tokens: Most tokens of a turn.
        max_completion_tokens: Most tokens behind the first view.
        batch_episodes: Episodes played at a time.
        concurrency: Requests to an endpoint at a time, and at least as many episodes.
        coordinates: Unit of the boxes of a scripted policy.
        tools, limit_field, timeout, retries, deadline, prices: Of an endpoint, as `EndpointPolicy` takes them.
    """

    temperature: float | None
    max_new_tokens: int
    max_completion_tokens: int
    batch_episodes: int
    concurrency: int = 8
    coordinates: str = "pixel"
    tools: Literal["text", "native"] = "text"
    limit_field: str = "max_tokens"
    timeout: float = 120.0
    retries: int = 5
    deadline: float = 600.0
    prices: tuple[float, float] | None = None


def read_policy(policy: str, base_url: str | None) -> PolicySpec:
    """Return which policy the words of the command line mean.

    Raises:
        UsageError: None that is known.
    """
    if policy in SCRIPTED:
        return PolicySpec("scripted", policy)
    if policy == "micro":
        return PolicySpec("weights", str(Path(__file__).parents[1] / "agents" / "micro_base"))
    if policy.startswith("endpoint:"):
        model, at, address = policy.removeprefix("endpoint:").partition("@http")
        url = f"http{address}" if at else base_url
        if not model or not url:
            raise UsageError(f"expected --policy endpoint:MODEL@BASE_URL or --base-url, got {policy!r}")
        return PolicySpec("endpoint", model, url)
    folder = Path(policy)
    if models := sorted({*folder.glob("model/config.json"), *folder.glob("*/model/config.json")}):
        listed = " or ".join(str(path.parent) for path in models)
        raise UsageError(f"{policy} holds what a training left; expected a model of it, {listed}")
    if (folder / "config.json").is_file():
        return PolicySpec("ppo" if (folder / "checkpoints").is_dir() else "weights", policy)
    module, _, name = policy.partition(":")
    if name.isidentifier() and all(part.isidentifier() for part in module.split(".")):
        return PolicySpec("object", module, name)
    if policy.count("/") == 1 and ":" not in policy and not folder.is_absolute() and not folder.parent.is_dir():
        return PolicySpec("weights", policy)
    raise UsageError(
        f"unknown policy {policy!r}; expected micro, a folder with a config.json (weights, a run of baselines/ppo.py), "
        f"an id of the Hub, endpoint:MODEL@BASE_URL, {', '.join(SCRIPTED)}, or module:object"
    )


class Player(Protocol):
    """Plays episodes until it is closed."""

    def play(self, tasks: TaskSet, planned: list[Planned], keep: Keep, seed: int, env_kwargs: dict[str, Any]) -> None:
        """Play a plan on tasks that `env_kwargs` opens; `seed` is of the sampling."""
        ...

    def facts(self) -> dict[str, Any]:
        """Return what is to be noted about it."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: Any) -> None: ...


class PolicyPlayer:
    """Plays anything that `pixel_env.rollout` plays, a new one for every set of tasks."""

    def __init__(self, make: Callable[[TaskSet, int], Policy | PolicyFunction], batch_size: int) -> None:
        self._make, self._batch_size = make, batch_size

    def play(self, tasks: TaskSet, planned: list[Planned], keep: Keep, seed: int, env_kwargs: dict[str, Any]) -> None:
        """Play a plan."""
        play(self._make(tasks, seed), ENV_ID, planned, keep, batch_size=self._batch_size, **env_kwargs)

    def facts(self) -> dict[str, Any]:
        """Return nothing: its decoding, if it has one, is its own."""
        return {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


class WeightsPlayer:
    """Plays Qwen2.5-VL weights with the engine; a GPU, where there is one, computes in 16 bits."""

    def __init__(self, path: str, decoding: Decoding) -> None:
        if decoding.temperature is None:
            raise UsageError("expected a number as the temperature of weights, got none, which is for an endpoint")
        import torch
        import transformers

        from agents import micro

        transformers.utils.logging.disable_progress_bar()  # the terminal is for the bar of the episodes
        self._decoding, self._temperature, self._path = decoding, decoding.temperature, Path(path)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        if self._device == "cuda" and (rank := os.environ.get("LOCAL_RANK")):  # of a launcher: one process a GPU
            torch.cuda.set_device(int(rank) % torch.cuda.device_count())
        dtype = torch.bfloat16 if self._device == "cuda" else torch.float32
        try:
            self._model: Any = micro.load_model(path, dtype).to(self._device)
            self._processor = micro.load_processor(path)
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot load {path}: {str(error).splitlines()[0]}") from None

    def play(self, tasks: TaskSet, planned: list[Planned], keep: Keep, seed: int, env_kwargs: dict[str, Any]) -> None:
        """Play a plan."""
        from agents.conversation import ChatEncoder
        from agents.engine import Engine
        from agents.vlm_policy import play_vlm

        engine = Engine(
            self._model,
            ChatEncoder(self._processor),
            max_new_tokens=self._decoding.max_new_tokens,
            max_completion_tokens=self._decoding.max_completion_tokens,
            temperature=self._temperature,
            seed=seed,
        )
        play_vlm(engine, ENV_ID, planned, keep, batch_size=self._decoding.batch_episodes, **env_kwargs)

    def facts(self) -> dict[str, Any]:
        """Return where and how it computes."""
        s = self._decoding
        return {
            "temperature": s.temperature,
            "max_new_tokens": s.max_new_tokens,
            "max_completion_tokens": s.max_completion_tokens,
            "device": self._device,
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "parameters": sum(weights.numel() for weights in self._model.parameters()),
        } | (
            {"weights": weights_digest(self._path)}
            if self._path.is_dir()
            else {"revision": self._model.config._commit_hash}  # of the Hub
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


class EndpointPlayer:
    """Plays the model of a server. Replies are kept in a file, so nothing is asked twice."""

    def __init__(self, model: str, base_url: str, decoding: Decoding, cache: Path) -> None:
        from agents.api_policy import EndpointPolicy

        self._decoding = decoding
        try:
            self._policy = EndpointPolicy(
                model,
                base_url=base_url,
                temperature=decoding.temperature,
                max_new_tokens=decoding.max_new_tokens,
                limit_field=decoding.limit_field,
                tools=decoding.tools,
                concurrency=decoding.concurrency,
                timeout=decoding.timeout,
                retries=decoding.retries,
                deadline=decoding.deadline,
                cache=cache,
                prices=decoding.prices,
            )
        except ValueError as error:
            raise UsageError(str(error)) from None

    def play(self, tasks: TaskSet, planned: list[Planned], keep: Keep, seed: int, env_kwargs: dict[str, Any]) -> None:
        """Play a plan; the server samples as it likes."""
        from agents.api_policy import play_endpoint

        batch = max(self._decoding.batch_episodes, self._decoding.concurrency)  # an episode has one request at a time
        play_endpoint(self._policy, ENV_ID, planned, lambda i, e, _: keep(i, e), batch_size=batch, **env_kwargs)

    def facts(self) -> dict[str, Any]:
        """Return how it was asked, and the tokens that this took in this run, with their price where it is known."""
        s, policy = self._decoding, self._policy
        return {
            "temperature": s.temperature,
            "max_new_tokens": s.max_new_tokens,
            "tools": s.tools,
            "answered_by": sorted(policy.answered_by),
            "asked": dataclasses.asdict(policy.asked),
            "reused": dataclasses.asdict(policy.reused),
            "cost": policy.cost,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._policy.close()


def open_player(spec: PolicySpec, decoding: Decoding, out: Path) -> Player:
    """Return the player of a policy; `out` is where it may keep files.

    Raises:
        UsageError: The policy cannot be had.
    """
    match spec.kind:
        case "scripted":
            make, coordinates = SCRIPTED[spec.name], decoding.coordinates
            return PolicyPlayer(lambda tasks, seed: make(tasks, seed, coordinates), decoding.batch_episodes)
        case "object":
            policy = _imported(spec.name, spec.more)
            return PolicyPlayer(lambda tasks, seed: policy, decoding.batch_episodes)
        case "ppo":
            raise UsageError(f"{spec.name} is a run of baselines/ppo.py, which benchmarks/evaluate.py plays")
    try:
        if spec.kind == "endpoint":
            return EndpointPlayer(spec.name, spec.more, decoding, out / "replies.jsonl")
        return WeightsPlayer(spec.name, decoding)
    except ImportError as error:
        extra = "endpoint" if spec.kind == "endpoint" else "agents"
        first = str(error).partition(";")[0]
        raise UsageError(f"cannot play with {spec.kind} here: {first}; pip install -e '.[{extra}]'") from None


def weights_digest(folder: Path) -> str:
    """Return a digest of the weights in a folder: names and contents.

    They are its ``.safetensors`` files or, of a run of `baselines/ppo.py`, its newest checkpoint.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")) or sorted(folder.glob("checkpoints/*.zip"))[-1:]:
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _imported(module: str, name: str) -> Policy | PolicyFunction:
    """Import a policy of one's own, from the current folder too; classes and functions without arguments make it."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"cannot import --policy {module}:{name}: {error}") from None
    makes = isinstance(found, type) or (not hasattr(found, "act") and _takes(found))
    try:
        policy = found() if makes else found
    except TypeError as error:  # it wants arguments
        raise UsageError(f"cannot make --policy {module}:{name}: {error}") from None
    if not callable(getattr(policy, "act", None)) and not _takes(policy, "a conversation"):
        raise UsageError(
            f"expected {module}:{name} to have `act`, to be a function of one conversation, or to make one of these "
            f"without arguments, got {policy!r}"
        )
    return policy


def _takes(function: Any, *arguments: str) -> bool:
    """Say whether something can be called with these arguments; not of builtins that do not tell."""
    try:
        inspect.signature(function).bind(*arguments)
    except (TypeError, ValueError):
        return False
    return True
