"""Pixel-space reasoning as Gymnasium environments: zoom in, select frames, answer."""

from importlib.util import find_spec
from typing import Any

from pixel_env import shared_memory as shared_memory  # registers the image space with Gymnasium
from pixel_env.custom_operations import Operation
from pixel_env.env import PixelReasonEnv
from pixel_env.registration import register_environments

__version__ = "0.1.0.dev0"
__all__ = ["Operation", "PixelReasonEnv", "__version__"]

register_environments()

# verifiers looks here for the classes of the plugin "pixel-env"; they are imported when it asks for them.
if find_spec("verifiers") is not None:
    __all__ += ["PixelChat", "PixelGroup", "PixelTaskset"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pixel_env.adapters import verifiers

    return getattr(verifiers, name)
