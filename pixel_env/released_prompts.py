r"""What a policy reads in the protocol of the release, so that its checkpoints are measured as they were trained.

The sentences are those of TIGER-AI-Lab/Pixel-Reasoner (MIT): curiosity_driven_rl/openrlhf/trainer/ppo_utils/
experience_maker.py (functions, results, errors) and openrlhf/datasets/prompts_dataset.py (suffixes ``vcot`` and
``notool``), inside the function-calling prompt of Qwen-Agent (Apache-2.0). What the release leaves to the exceptions of
Python is said in our words. As in `pixel_env.prompts`, ``<image>`` marks where an image stands.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pixel_env.prompts import IMAGE_MARKER, option_lines, plain

if TYPE_CHECKING:
    from pixel_env.tasks import Task

CROP = "crop_image_normalized"
"""What the schema calls crop_image; the suffix below a question calls it `crop_image`."""

SCHEMAS: tuple[dict[str, Any], ...] = (
    {
        "type": "function",
        "function": {
            "name": CROP,
            "description": "Zoom in on the image based on the bounding box coordinates. It is useful when the object "
            "or text in the image is too small to be seen.",
            "parameters": {
                "type": "object",
                "properties": {
                    "bbox_2d": {
                        "type": "array",
                        "description": "coordinates for bounding box of the area you want to zoom in. Values should be "
                        "within [0.0,1.0].",
                        "items": {"type": "number"},
                    },
                    "target_image": {
                        "type": "number",
                        "description": "The index of the image to crop. Index from 1 to the number of images. Choose 1 "
                        "to operate on original image.",
                    },
                },
                "required": ["bbox_2d", "target_image"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "select_frames",
            "description": "Select frames from a video.",
            "parameters": {
                "type": "object",
                "properties": {
                    "target_frames": {
                        "type": "array",
                        "description": "List of frame indices to select from the video (no more than 8 frames in "
                        "total).",
                        "items": {"type": "integer", "description": "Frame index from 1 to 16."},
                    }
                },
                "required": ["target_frames"],
            },
        },
    },
)

_HEAD = "You are a helpful assistant."

_TOOLS = """{head}

# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{schemas}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""

_WITH_OPERATIONS = (
    "Guidelines: Understand the given visual information and the user query. Determine if it is beneficial to employ "
    "the given visual operations (tools). For a video, we can look closer by `select_frames`. For an image, we can "
    "look closer by `crop_image`. Reason with the visual information step by step, and put your final answer within "
    "\\boxed{}."
)
_WITHOUT_OPERATIONS = "Please think step by step, and put your final answer within \\boxed{}."


def instructions(offered: Sequence[str]) -> str:
    """Return the system text; of functions it says all or, without any on offer, nothing."""
    if not offered:
        return _HEAD
    return _TOOLS.format(head=_HEAD, schemas="\n".join(json.dumps(schema) for schema in SCHEMAS))


def guideline(offered: Sequence[str]) -> str:
    """Return the suffix of a question."""
    return _WITH_OPERATIONS if offered else _WITHOUT_OPERATIONS


def first_lines(images: int, task: "Task", offered: Sequence[str]) -> str:
    """Ask the question: the pictures without a word about them, the question in the words of its file, the suffix."""
    asked = plain(task.wording) or "\n".join([plain(task.question), *option_lines(task.choices)])
    return f"{IMAGE_MARKER * images}{asked}\n\n{guideline(offered)}"


def crop_line(size: tuple[int, int]) -> str:
    """Announce a crop of this (width, height)."""
    return f"\nHere is the cropped image (Image Size: {size[0]}x{size[1]}):{IMAGE_MARKER}"


def frames_line(size: tuple[int, int], first: int, count: int) -> str:
    """Announce `count` frames of this (width, height), numbered from `first`."""
    numbers = f"Numbered {first} to {first + count - 1}"
    return f"\nHere are the selected frames (Frame Size: {size[0]}x{size[1]}, {numbers}):{IMAGE_MARKER * count}"


def error_line(message: str) -> str:
    """Answer a call that went wrong."""
    return f"\nExecution error:\n{plain(message)}\n"


def too_small(width: int, height: int) -> str:
    """Reject a crop of at most 28 pixels in width or height."""
    return f"Cropped image is too small: {width}x{height}"


def too_many_frames(count: int) -> str:
    """Reject more than 8 frames."""
    return (
        f"You have selected {count} frames in total. Think again which frames you need to check in details (no more "
        "than 8 frames)"
    )


def unknown_frame(count: int) -> str:
    """Reject a frame beyond the video."""
    return f"There are {count} frames numbered in range [1,{count}]. Your selection is out of range."


def unknown_image(count: int) -> str:
    """Reject a number beyond the images so far."""
    return f"Incorrect `target_image`. You can only select previous images within [1,{count}]"


def unknown_video_frame(count: int) -> str:
    """Reject a frame beyond a video of which nothing was selected yet."""
    return f"Incorrect `target_image`. You can only select frames in the given video within [1,{count}]"
