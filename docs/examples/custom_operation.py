"""Two operations of one's own, to turn a picture and to change its contrast: run me, I need neither GPU nor network."""

from typing import Any

import gymnasium as gym
from PIL import Image, ImageEnhance

from pixel_env import Operation

IMAGE = {"type": "integer", "minimum": 1, "description": "The number of the image, counting every image shown from 1."}
DEGREES = {"type": "integer", "enum": [90, 180, 270], "description": "How far, clockwise."}
FACTOR = {"type": "number", "minimum": 0, "maximum": 4, "description": "2 if it is left out."}


def rotate(target_image: Image.Image, degrees: int) -> Image.Image:
    """Turn a picture clockwise; Pillow turns the other way."""
    return target_image.rotate(-degrees, expand=True)


def enhance_contrast(target_image: Image.Image, factor: float = 2.0) -> Image.Image:
    """Change the contrast; what ValueError says is what the policy reads."""
    if factor == 1:
        raise ValueError("factor 1 changes nothing; more raises the contrast, less lowers it")
    return ImageEnhance.Contrast(target_image).enhance(factor)


def schema(name: str, description: str, required: list[str], **properties: Any) -> dict[str, Any]:
    """Describe a function to the policy, in the form of OpenAI."""
    parameters = {"type": "object", "properties": {"target_image": IMAGE, **properties}, "required": required}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


ROTATE = Operation(schema("rotate", "Turn an image.", ["target_image", "degrees"], degrees=DEGREES), rotate)
CONTRAST = Operation(
    schema("enhance_contrast", "Change the contrast of an image.", ["target_image"], factor=FACTOR), enhance_contrast
)

if __name__ == "__main__":
    env = gym.make("PixelReason-Zoom-v0", preset="micro", operations=("crop_image", ROTATE, CONTRAST))
    print(env.reset(seed=0)[1]["instructions"])
    for call in (
        '{"name": "rotate", "arguments": {"target_image": 1, "degrees": 90}}',
        '{"name": "crop_image", "arguments": {"bbox_2d": [0, 0, 56, 56], "target_image": 2}}',  # in full detail
        '{"name": "enhance_contrast", "arguments": {"target_image": 3, "factor": 9}}',
    ):
        print(env.step(f"<tool_call>{call}</tool_call>")[0]["text"])
    env.close()
