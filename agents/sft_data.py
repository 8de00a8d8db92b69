r"""Recorded demonstrations, `PixelReasoner-SFT-Data`, as trajectories: each is played again in the environment.

What the policy wrote is kept; what it read is not. Questions, results and errors are the environment's own, so prompts
of warm start, RL and evaluation are the same. In a call three things change:

* The name: the release has several for `crop_image`.
* The box: fractions of the image in the data, here the unit of the environment, rounded outwards. The data count on
  the margin of 0.1 that the release adds around a box: make the environment with `crop_padding=message_lists.MARGIN`.
* The number of an image of a video. In the release the frames are one item: before any operation `target_image` is a
  frame, afterwards 1 is the video, which cannot be cropped, and k + 1 the k-th picture that operations returned,
  although its own text calls that one k. So its revision a3a6c3a; 555a984 counts these pictures from 1, and a record
  does not say which it follows: look at some crops in videos before training on them. Here frames and pictures are
  numbered in one row. An image, whose crops start at 2 in either, needs no change.

A call is erroneous, and its turn gets no loss, if

1. it failed, or
2. another call follows that does not look at what this one showed, but back at an earlier image or at the frames again;
3. or the next turn calls and says that this call was wrong (`OWNS_UP`), such as a box that was too large.

Differs from the release, which trains the last two turns of a record, whatever they hold: two right operations in a
row, frames and then a crop of one of them, are both trained here. Rule 2 also leaves out the first of two crops of one
image that were both wanted: a right call that is not learned costs less than a wrong one that is.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from agents.boxes import inside, on_view
from pixel_env.actions import CropImage, Malformed, SelectFrames, parse, render
from pixel_env.env import Observation, PixelReasonEnv
from pixel_env.operations import View, to_source
from pixel_env.rollout import Episode
from pixel_env.tasks import FileTasks
from pixel_env.tasks.message_lists import FORMAT, Message, messages
from pixel_env.trajectory import Trajectory

NAMES = {"crop_image_normalized": "crop_image", '"zoom_in"': '"crop_image"'}
"""What the release calls `crop_image`, in texts and in calls."""

OWNS_UP = re.compile(
    r"\b(?:wrong|incorrect\w*|mistak\w+|misplaced|too (?:large|big|wide|broad|coarse)"
    r"|not (?:the )?(?:right|correct|relevant|useful|helpful)"
    r"|(?:does|do|did)(?: not|n't) (?:show|contain|include|cover|capture|help))\b",
    re.IGNORECASE,
)
"""Words of a turn that takes back the call before it."""


@dataclass(frozen=True)
class Look:
    """A call of a record, as it was played.

    Attributes:
        said: Text of its turn in front of the call.
        target: The image that was cropped, 0-based; None for a selection of frames.
        shown: Numbers of the views that came back, 0-based; empty if it failed.
    """

    said: str
    target: int | None
    shown: range


def erroneous(looks: Sequence[Look]) -> list[bool]:
    """Say of every call whether it was a mistake, by the three rules of this module."""
    flags = []
    for place, look in enumerate(looks):
        later = looks[place + 1 :]
        following = next((other for other in later if other.shown), None)
        elsewhere = following is not None and following.target not in look.shown
        flags.append(not look.shown or elsewhere or bool(later and OWNS_UP.search(later[0].said)))
    return flags


def recorded(env: gym.Env[Observation, str], *, seed: int = 0, progress: bool = True) -> list[Trajectory]:
    """Play every record once, in the order of the file.

    Args:
        env: Made with ``tasks="pixelreasoner-sft:PATH"``; PixelReason-Mixed-v0 takes images and videos.
        seed: Of the resets.
        progress: Show a progress bar.

    Returns:
        One trajectory a record, its kind a key of `agents.demonstrations.LOOKS`. Of one that cannot be used, `error`
        says where and why; it must not be trained.

    Raises:
        ValueError: The environment has other tasks.
    """
    tasks = _records(env)
    seeds = np.random.default_rng(seed).integers(2**31, size=len(tasks)).tolist()
    bar = tqdm(range(len(tasks)), desc="recorded demonstrations", disable=not progress)
    return [play_record(env, index, seeds[index]) for index in bar]


def play_record(env: gym.Env[Observation, str], index: int, seed: int) -> Trajectory:
    """Play record `index` (0-based); never raises for what stands in it."""
    tasks, episode = _records(env), Episode(env)
    episode.reset(index, seed)
    if episode.error is not None:
        return episode.trajectory("damaged")
    task_id = tasks.task_id(index)
    try:
        looks = _played(episode, messages(tasks.fields(task_id)))
    except ValueError as error:
        episode.fail(ValueError(f"{tasks.place(task_id)}: {error}"))
        return episode.trajectory("damaged")
    if episode.error is not None:
        return episode.trajectory("damaged")
    wrong = erroneous(looks)
    played = episode.trajectory(_kind(looks, wrong, _bare(env)))
    flags = [not flag for flag in wrong] + [True]
    turns = (dataclasses.replace(turn, trained=flag) for turn, flag in zip(played.turns, flags, strict=True))
    return dataclasses.replace(played, turns=tuple(turns))


def _played(episode: Episode, said: Sequence[Message]) -> list[Look]:
    """Take the turns of a record; returns its calls, or those up to a file that cannot be decoded."""
    env, looks = _bare(episode.env), list[Look]()
    turns, results = said[1::2], said[2::2]
    if len(turns) > env.view_settings.max_turns:
        raise ValueError(f"expected at most max_turns = {env.view_settings.max_turns} turns, got {len(turns)}")
    for message, result in zip(turns, results, strict=False):
        before, action, after = _call(message, env)
        first = len(env.shown)
        episode.step(f"{before}{render(action)}{after}")
        if episode.error is not None:
            return looks
        shown = range(first, len(env.shown))
        if bool(shown) != bool(result.images or result.videos):
            raise ValueError(
                f"expected the call in message {message.number} (the first is 0) to {'fail' if shown else 'work'} as "
                f"in the data, got {episode.conversation.observations[-1]['text'][:200]!r}"
            )
        looks.append(Look(before, action.image if isinstance(action, CropImage) else None, shown))
    episode.step(_words(turns[-1].text))
    return looks


def _call(message: Message, env: PixelReasonEnv) -> tuple[str, CropImage | SelectFrames, str]:
    """Return the text before a call, the call as the environment takes it, and the text after it."""
    text, place = _words(message.text), f"message {message.number} (the first is 0)"
    action = parse(text)
    before, opened, rest = text.rpartition("<tool_call>")
    _, closed, after = rest.partition("</tool_call>")
    if not isinstance(action, CropImage | SelectFrames) or not (opened and closed):
        got = action.reason if isinstance(action, Malformed) else repr(action)[:80]
        raise ValueError(f"expected {place} with a call in <tool_call></tool_call>, got this: {got}")
    try:
        moved = _crop(action, env) if isinstance(action, CropImage) else _selection(action, env)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    return before, moved, after


def _words(text: str) -> str:
    """Return what was written, with this environment's names and without lone surrogates, which no tokenizer takes."""
    for theirs, ours in NAMES.items():
        text = text.replace(theirs, ours)
    return text.encode("utf-8", "replace").decode().strip()


def _crop(action: CropImage, env: PixelReasonEnv) -> CropImage:
    """Convert a box in fractions, and the number of the image in a video."""
    if not all(0 <= value <= 1 for value in action.bbox):
        raise ValueError(f"expected bbox_2d in fractions from 0 to 1 of the image, got {list(action.bbox)}")
    image = _image(action.image, env)
    if not 0 <= image < len(env.shown):
        return CropImage(action.bbox, image)  # the environment says so
    parent = env.shown[image]
    region = to_source(action.bbox, parent, "fraction")
    return CropImage(on_view(region, parent, env.view_settings.coordinates), image)


def _image(number: int, env: PixelReasonEnv) -> int:
    """Return the number (0-based) of an image of the release among the views."""
    if env.task.media.kind != "video":
        return number
    first = _first(env)
    if len(env.shown) == len(first):
        return _position(number, first, env)
    if number == 0:
        raise ValueError("expected target_image of at least 2 after an operation on a video, got 1, the video itself")
    return len(first) + number - 1


def _selection(action: SelectFrames, env: PixelReasonEnv) -> SelectFrames:
    """Convert the numbers of frames of the file to those of the frames shown."""
    first = _first(env)
    return SelectFrames(tuple(_position(frame, first, env) for frame in action.frames))


def _position(frame: int, first: Sequence[View], env: PixelReasonEnv) -> int:
    """Return which of the first views shows a frame (0-based); one that does not exist keeps its number."""
    if not 0 <= frame < env.task.media.num_frames:
        return frame
    for position, view in enumerate(first):
        if view.frame == frame:
            return position
    raise ValueError(
        f"expected one of the {len(first)} frames shown of {env.task.media.num_frames}, got frame {frame + 1}; make "
        "the environment with a larger num_frames"
    )


def _first(env: PixelReasonEnv) -> tuple[View, ...]:
    """Return the views of the first observation."""
    return env.shown[: min(env.task.media.num_frames, env.view_settings.num_frames)]


def _kind(looks: Sequence[Look], wrong: Sequence[bool], env: PixelReasonEnv) -> str:
    """Name a record: "single" without mistakes, "recrop_twice" with two or more."""
    if not any(wrong):
        return "single" if looks else "textual"
    if env.task.media.kind == "video":
        return "reselect"
    if sum(wrong) > 1:
        return "recrop_twice"
    place = wrong.index(True)
    regions = [env.shown[look.shown[0]].region for look in looks[place : place + 2] if look.shown]
    return "zoom_further" if len(regions) == 2 and inside(regions[1], regions[0]) else "recrop_once"


def _records(env: gym.Env[Observation, str]) -> FileTasks:
    tasks = _bare(env).tasks
    if not isinstance(tasks, FileTasks) or tasks.name != FORMAT:
        raise ValueError(f"expected an environment with tasks='{FORMAT}:PATH', got {type(tasks).__name__}")
    return tasks


def _bare(env: gym.Env[Observation, str]) -> PixelReasonEnv:
    bare = env.unwrapped
    assert isinstance(bare, PixelReasonEnv)
    return bare
