"""Pixel-space reasoning as Gymnasium environments: zoom in, select frames, answer."""

from pixel_env import shared_memory as shared_memory  # registers the image space with Gymnasium
from pixel_env.custom_operations import Operation
from pixel_env.env import PixelReasonEnv
from pixel_env.registration import register_environments

__version__ = "0.1.0.dev0"
__all__ = ["Operation", "PixelReasonEnv", "__version__"]

register_environments()
