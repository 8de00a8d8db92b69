"""The two ways to hold an episode: ours, and that of the release."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pixel_env import operations, prompts, released_prompts, released_protocol
from pixel_env.actions import Action, CropImage, SelectFrames, parse
from pixel_env.json_schema import Schema
from pixel_env.media import Source
from pixel_env.operations import OperationResult, View
from pixel_env.settings import ViewSettings
from pixel_env.tasks import Task


@dataclass(frozen=True)
class Protocol:
    """What is said, how a turn is read, and what operations show.

    Attributes:
        instructions: (unit of boxes, operations on offer, schemas of those that are one's own) to the system text.
        guideline: (operations on offer) to what stands below every question.
        first_text: (task, views, max_turns, operations on offer) to the text of the first observation.
        read_turn: (what a policy wrote, schemas of operations of one's own) to an action; total over `str`.
        first_views: (source, settings) to what is shown at first.
        crop_image: As `pixel_env.operations.crop_image`.
        select_frames: As `pixel_env.operations.select_frames`.
        error_text: (what was wrong, turns left) to the text of an observation.
    """

    instructions: Callable[[str, Sequence[str], Sequence[Schema]], str]
    guideline: Callable[[Sequence[str]], str]
    first_text: Callable[[Task, Sequence[View], int, Sequence[str]], str]
    read_turn: Callable[[str, Sequence[Schema]], Action]
    first_views: Callable[[Source, ViewSettings], tuple[View, ...]]
    crop_image: Callable[[CropImage, Sequence[View], Source, ViewSettings], OperationResult]
    select_frames: Callable[[SelectFrames, Sequence[View], Source, ViewSettings], OperationResult]
    error_text: Callable[[str, int], str]


def _native_first_text(task: Task, views: Sequence[View], max_turns: int, offered: Sequence[str]) -> str:
    if task.media.kind == "image":
        announced = prompts.image_line(0, views[0].size)
    else:
        announced = prompts.video_lines([task.media.timestamp(shot.frame) for shot in views], views[0].size)
    return f"{announced}\n{prompts.question_lines(task.question, task.choices, max_turns, offered)}"


def _released_instructions(coordinates: str, offered: Sequence[str], custom: Sequence[Schema]) -> str:
    return released_prompts.instructions(offered)


def _released_read_turn(text: str, custom: Sequence[Schema]) -> Action:
    return released_protocol.read_turn(text)


def _released_first_text(task: Task, views: Sequence[View], max_turns: int, offered: Sequence[str]) -> str:
    return released_prompts.first_lines(len(views), task, offered)


def _released_error_text(message: str, turns_left: int) -> str:
    return released_prompts.error_line(message)


PROTOCOLS = {
    "native": Protocol(
        instructions=prompts.instructions,
        guideline=prompts.guideline,
        first_text=_native_first_text,
        read_turn=parse,
        first_views=operations.first_views,
        crop_image=operations.crop_image,
        select_frames=operations.select_frames,
        error_text=prompts.error_line,
    ),
    "pixelreasoner": Protocol(
        instructions=_released_instructions,
        guideline=released_prompts.guideline,
        first_text=_released_first_text,
        read_turn=_released_read_turn,
        first_views=released_protocol.first_views,
        crop_image=released_protocol.crop_image,
        select_frames=released_protocol.select_frames,
        error_text=_released_error_text,
    ),
}
"""Name: protocol."""
