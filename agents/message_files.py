"""Trajectories as the release's message lists, the format of PixelReasoner-SFT-Data, with their media beside them.

`agents.sft_data.recorded` plays such a file again: with the settings that they were made with it gives demonstrations
of a teacher back, calls, kinds and what is trained. Boxes are written as they were called, in fractions of the image.
The release adds a margin of 0.1 around every box: demonstrations for its own trainer are made with
``crop_padding=0.1``, where they point exactly.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

from agents.questions import copied
from pixel_env import released_prompts
from pixel_env.actions import CropImage, SelectFrames, parse
from pixel_env.env import Observation, PixelReasonEnv
from pixel_env.journal import replace_text
from pixel_env.operations import extent
from pixel_env.prompts import IMAGE_MARKER, OPERATIONS
from pixel_env.trajectory import Trajectory, made_as

DECIMALS = 4
FILE, IMAGES, VIDEOS = "sft.json", "images", "videos"

Message = dict[str, Any]


def write_message_lists(trajectories: Sequence[Trajectory], out: Path) -> Path:
    """Write trajectories and the pictures in them; returns the JSON file.

    Args:
        trajectories: Without failed operations, and without crops of a video.
        out: Folder; pictures that are there already are written again.
    """
    for folder in (IMAGES, VIDEOS):
        (out / folder).mkdir(parents=True, exist_ok=True)
    envs: dict[str, gym.Env[Observation, str]] = {}
    records = []
    for number, trajectory in enumerate(trajectories):
        made_like = json.dumps([trajectory.env_id, trajectory.env_kwargs], sort_keys=True)
        if made_like not in envs:
            envs[made_like] = made_as(trajectory)
        records.append({"message_list": _messages(trajectory, envs[made_like], number, out)})
    replace_text(out / FILE, json.dumps(records, indent=1) + "\n")
    return out / FILE


def _messages(trajectory: Trajectory, env: gym.Env[Observation, str], number: int, out: Path) -> list[Message]:
    """Play a trajectory again and write down what is said, `number` in the names of its pictures."""
    env.reset(seed=trajectory.seed, options={"task": trajectory.task_id})
    bare = env.unwrapped
    assert isinstance(bare, PixelReasonEnv)
    task, num_first = bare.task, len(bare.shown)
    asked = released_prompts.first_lines(0, task, OPERATIONS)
    said = [
        _message("system", released_prompts.instructions(OPERATIONS)),
        _message("user", asked, _media(bare, number, out)),
    ]
    for turn in trajectory.turns:
        action, count = parse(turn.action), len(bare.shown)
        written = _written(turn.action, action, bare)
        observation = env.step(turn.action)[0]
        said.append(_message("assistant", written))
        if isinstance(action, CropImage | SelectFrames):
            views = bare.shown[count:]
            if isinstance(action, CropImage):
                result = released_prompts.crop_line(views[0].size)
            else:
                result = released_prompts.frames_line(views[0].size, 1 + count - num_first, len(views))
            names = [f"{IMAGES}/{number}-{count + place}.png" for place in range(len(views))]
            for name, picture in zip(names, observation["images"], strict=True):
                Image.fromarray(np.asarray(picture)).save(out / name)
            said.append(_message("user", result.replace(IMAGE_MARKER, ""), [{"image": name} for name in names]))
    return said


def _message(role: str, text: str, visuals: Sequence[Mapping[str, Any]] = ()) -> Message:
    """A message, its visuals in front, as in RL."""
    return {"role": role, "content": [*visuals, {"text": text}]}


def _media(env: PixelReasonEnv, number: int, out: Path) -> list[dict[str, Any]]:
    """Write the image, or the frames of the video that are shown, at their full resolution."""
    source = env.task.media
    if source.kind == "image":
        return [{"image": copied(source, out, f"{IMAGES}/{number}-0")}]
    names = [f"{VIDEOS}/{number}/{place}.png" for place in range(len(env.shown))]
    (out / VIDEOS / str(number)).mkdir(exist_ok=True)
    for name, view in zip(names, env.shown, strict=True):
        source.frame(view.frame).save(out / name)
    return [{"video": names}]


def _written(text: str, action: object, env: PixelReasonEnv) -> str:
    """Return a turn with the call as the release writes it."""
    if isinstance(action, CropImage):
        if env.task.media.kind != "image":
            raise ValueError("expected crops of images only: the release numbers those of a video in another way")
        size, unit = env.shown[action.image].size, env.view_settings.coordinates
        arguments: dict[str, Any] = {"bbox_2d": _fractions(action, size, unit), "target_image": action.image + 1}
        call = {"name": released_prompts.CROP, "arguments": arguments}
    elif isinstance(action, SelectFrames):
        call = {"name": "select_frames", "arguments": {"target_frames": [frame + 1 for frame in action.frames]}}
    else:
        return text
    before, _, rest = text.rpartition("<tool_call>")
    return f"{before}<tool_call>\n{json.dumps(call)}\n</tool_call>{rest.partition('</tool_call>')[2]}"


def _fractions(action: CropImage, size: tuple[int, int], unit: str) -> list[float]:
    """Return a box in fractions, rounded inwards: whoever rounds it outwards to pixels again finds the same ones."""
    scale = 10**DECIMALS
    borders = extent(size, unit) * 2
    exact = [value / border * scale for value, border in zip(action.bbox, borders, strict=True)]
    low, high = [math.ceil(value - 1e-6) for value in exact[:2]], [math.floor(value + 1e-6) for value in exact[2:]]
    return [value / scale for value in low + high]
