"""Whether a run can be what its settings say: mistakes are told before anything is loaded. Imports no torch."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.processes import is_sharded, rank_and_count
from agents.run_tasks import (
    check_demonstrations,
    check_made_alike,
    check_recorded,
    check_rewarded,
    check_tests,
    is_demonstrations,
)
from pixel_env.command_line import UsageError

if TYPE_CHECKING:
    from agents.run_settings import Settings

AT_LEAST_ONE = (
    "demonstrations", "epochs", "batch_size", "accumulation", "rl_steps", "prompts", "group_size", "updates",
    "rl_batch_size",
    "test_tasks", "batch_episodes", "max_new_tokens", "max_completion_tokens", "save_steps",
    "batch_tokens", "view_tokens", "crop_tokens",
)  # fmt: skip
ABOVE_ZERO = ("learning_rate", "rl_learning_rate", "temperature", "memory")


def check(settings: "Settings") -> None:
    """Check what is known before anything is loaded; task sets on disk are opened, which takes seconds.

    Raises:
        UsageError: anything that would make the run fail later and can be seen now.
    """
    for name in (*AT_LEAST_ONE, *ABOVE_ZERO):
        value, whole = getattr(settings, name), name in AT_LEAST_ONE
        if value is not None and (value < 1 if whole else not value > 0):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"expected {option} {'of at least 1' if whole else 'above 0'}, got {value}")
    for name in ("crop_padding", "alpha", "beta", "threshold", "limit", "seed", "kl", "lora"):
        if not getattr(settings, name) >= 0:
            raise UsageError(f"expected --{name.replace('_', '-')} of at least 0, got {getattr(settings, name)}")
    if settings.crop_padding > 1:
        raise UsageError(f"expected --crop-padding of at most 1, the whole image, got {settings.crop_padding}")
    if not 0 <= settings.textual_share <= 1:
        raise UsageError(f"expected --textual-share from 0 to 1, got {settings.textual_share}")
    if settings.group_size < 2 and "rl" in settings.stages:
        raise UsageError("expected --group-size of at least 2: an advantage compares the rollouts of a task, got 1")
    rollouts = settings.prompts * settings.group_size
    if rollouts % settings.updates or settings.save_steps % settings.updates:
        raise UsageError(
            f"expected --updates to divide --prompts times --group-size = {rollouts} and --save-steps = "
            f"{settings.save_steps}, got {settings.updates}"
        )
    if not settings.operations and "warm_start" in settings.stages:
        raise UsageError("expected operations in a warm start, whose demonstrations call them; drop --no-operations")
    if settings.rollouts not in ("engine", "trl"):
        _check_vllm(settings.rollouts)
    _check_model(settings.model)
    _check_data(settings)


def _check_data(settings: "Settings") -> None:
    warm, sft, rl = "warm_start" in settings.stages, settings.sft_data, settings.rl_data
    if sft and warm and is_demonstrations(sft):
        _tell("--sft-data", check_made_alike, sft, settings.env_kwargs("train"))
    elif sft and warm:
        _tell("--sft-data", check_recorded, sft)
    if rl and "rl" in settings.stages:
        _tell("--rl-data", check_rewarded, rl)
    if rl and warm and not sft:
        _tell("--rl-data", check_demonstrations, rl)
    _tell("--test-data", check_tests, settings.test_data, settings.test_tasks)


def _tell(option: str, check: Callable[..., None], *arguments: Any) -> None:
    try:
        check(*arguments)
    except (ValueError, ImportError, OSError) as error:
        raise UsageError(f"{option}: {error}") from None


def check_processes(settings: "Settings") -> None:
    """Check that several processes can share out the work of every step.

    Raises:
        UsageError: they cannot.
    """
    s, count = settings, rank_and_count()[1]
    if count > 1 and s.batch_tokens and s.stages:
        raise UsageError(f"expected one process with --batch-tokens, got {count}; give rows a pass instead")
    shared = {
        "warm_start": ("--batch-size times --accumulation", s.batch_size * s.accumulation),
        "rl": ("--prompts times --group-size, by --updates,", s.prompts * s.group_size // s.updates),
    }
    for options, rows in (shared[stage] for stage in s.stages):
        if rows % count:
            raise UsageError(f"expected {options} to be a multiple of the {count} processes, got {rows}")
    if is_sharded() and "rl" in s.stages and s.kl:
        raise UsageError("expected --kl 0 where weights are sharded: the reference would be whole in every process")
    if is_sharded() and os.environ.get("FSDP_VERSION") == "1":
        raise UsageError("expected fsdp_version: 2 in the configuration of accelerate, got 1; see agents/accelerate")


def _check_vllm(rollouts: str) -> None:
    if rollouts != "vllm" and "://" not in rollouts:
        raise UsageError(f"expected --rollouts of engine, trl, vllm or the URL of a vLLM server, got {rollouts}")
    if find_spec("vllm") is None:  # TRL's client of a server needs it, too
        raise UsageError("--rollouts by vLLM need vLLM; install trl[vllm] of the version in pyproject.toml")


def _check_model(model: str) -> None:
    folder = Path(model)
    is_hub_id = model.count("/") == 1 and not folder.is_absolute() and not folder.parent.is_dir()
    if not (folder / "config.json").is_file() and not is_hub_id:
        raise UsageError(f"there is no model in {model}; expected a folder with a config.json, or an id of the Hub")
