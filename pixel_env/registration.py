"""The ids of the environments: one table, registered when ``pixel_env`` is imported."""

from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import WrapperSpec

ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "PixelReason-Zoom-v0": {"suite": ["search", "count", "read"]},
    "PixelReason-Frames-v0": {"suite": ["clip"]},
    "PixelReason-Mixed-v0": {"suite": ["search", "count", "read", "clip"]},
}
"""Id: its keyword arguments. Lists, not tuples, so that a spec survives JSON unchanged."""

WRAPPERS = tuple(
    WrapperSpec(name, f"pixel_env.wrappers:{name}", kwargs={}) for name in ("OperationPenalty", "CuriosityReward")
)
"""Innermost first; they take the paper's constants, or those given to ``gymnasium.make``, from the environment."""


def register_environments() -> None:
    """Register every id that is not registered yet."""
    for env_id, kwargs in ENVIRONMENTS.items():
        if env_id not in gym.registry:
            gym.register(env_id, "pixel_env.env:PixelReasonEnv", kwargs=kwargs, additional_wrappers=WRAPPERS)
