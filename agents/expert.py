"""The expert of the demonstrations: where it looks, right or deliberately wrong, and what it says.

It knows the cue of the task, and of drawn sources the list of everything in them, so its remarks are exact. Of others
it says what a teacher has told it, if one has.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from agents.boxes import area, around, inside, on_view, overlap, scale, shape
from agents.reasons import Thing, facts, named, reason, recognisable, sentence, things
from pixel_env import operations
from pixel_env.actions import Answer, CropImage, SelectFrames, render
from pixel_env.env import PixelReasonEnv
from pixel_env.grading import grade
from pixel_env.media import Box
from pixel_env.operations import View
from pixel_env.tasks import DrawnSource, Task
from pixel_env.tasks.world import pick

AREA = (4.0, 16.0)
"""Area of a right crop in areas of the cue: a policy misses by a few pixels, and what is read bears a margin."""
MOST_SHARE = 1 / 8
"""Area of a right crop as a share of the image, unless the cue alone needs more."""
TIGHTEST = 1.5
"""Area of a box around such a large cue, in areas of the cue."""
LEAST_GAIN = 2.0
"""A right crop shows the cue at least this much larger than the first view; below it, it could not be read."""
LARGE_SHARE = (0.3, 0.8)
"""Area of a box that is far too large, as a share of the image."""
MOST_FRAMES = 3
"""Frames in one selection: as many as it takes to read what an event shows, and to compare two."""

# The sentences of the expert. A micro model learns them word by word: short, few words, those of the questions.
_FIRST = ("{Target} is too small to read.", "{Target} is small in image 1.", "Image 1 is too small for {target}.")
_FIRST_VIDEO = ("{Target} is too small to read.", "The frames are too small for {target}.")
_FIRST_FRAMES = ("{Target} is too small in frame {frame}.", "{Target} appears in frame {frame}.")
_ANNOUNCE = ("Locate {target}.", "I will locate {target}.", "I will zoom in on {target}.")
_ANNOUNCE_VIDEO = ("I will look closer at the frames.", "I will look closer at frame {frame}.")
# After a look: first what is seen, then whether that is it. A micro model that has to judge first has not seen yet.
_SEEN = ("Image {image} shows {seen}", "This is {seen}")
_RIGHT = ". {Facts}."
_RIGHT_UNKNOWN = "."
_WRONG = ", not {target}."
_LARGE = ", too small to read."
_NOTHING = ("Image {image} does not show {target}.", "{Target} is not in image {image}.")
_RIGHT_VIDEO = ("{Facts}.", "The frames show it: {facts}.")
_RIGHT_VIDEO_UNKNOWN = ("The frames show {target}.",)
_WRONG_VIDEO = ("{Target} is not in frame {frame}.", "Frame {frame} does not show {target}.")
_TEXTUAL = ("Image 1 is enough.", "It is visible in image 1.")
_TEXTUAL_VIDEO = ("The frames are enough.", "It is visible in the frames.")
# Told by a teacher, for models that know English.
_TOLD = ("I will zoom in on {target}.", "Let me zoom in to look at {target}.", "I need to look closer at {target}.")
_TOLD_VIDEO = ("I will select {frames} to look at {target}.", "Let me look closer at {frames} to see {target}.")
_TOLD_WRONG = (
    "Image {image} does not show {target}. I looked in the wrong place.",
    "{Target} is not in image {image}, so that crop does not help.",
)
_TOLD_WRONG_VIDEO = (
    "I cannot see {target} in {frames}.",
    "{Frames}: no sign of {target}, so this was the wrong moment.",
)
_TOLD_LARGE = (
    "Image {image} shows {target}, but it is still too small to make out.",
    "That crop is too large: {target} is in it, and hardly larger than before.",
)
_FINAL = ("{box}", "The answer is {box}")


class UnsuitedError(ValueError):
    """The task does not allow a demonstration of the wanted kind."""


@dataclass(frozen=True)
class Remarks:
    """What a teacher says of a task, where geometry has nothing to say.

    Attributes:
        target: What is looked for, as it goes into a sentence: "the sign above the door".
        whole: About the first view.
        closer: About what `look` shows.
        look: The right operation, on what is shown first: the one that `closer` is about.
    """

    target: str
    whole: str
    closer: str
    look: CropImage | SelectFrames


class Expert:
    """Speaks and calls in one episode; knows the cue."""

    def __init__(
        self,
        env: gym.Env[Any, str],
        rng: np.random.Generator,
        remarks: Remarks | None = None,
        loosest: float = AREA[1],
    ) -> None:
        """Speak in the episode that `env` has just begun.

        Args:
            env: where; its task has a cue.
            rng: draws boxes, frames and wording.
            remarks: said and done where it looks right, in place of what geometry tells.
            loosest: area of a right crop in areas of the cue, at most; the margin of the environment counts.
        """
        bare = env.unwrapped
        assert isinstance(bare, PixelReasonEnv)
        self.env = bare
        self.rng = rng
        self.task: Task = self.env.task
        self.source = self.task.media
        self.is_video = self.source.kind == "video"
        self.num_first = len(self.env.shown)
        self.remarks, self.loosest = remarks, loosest
        self.target, self.naming = (remarks.target, "") if remarks else named(self.task)
        self.aim = ""  # of the last look
        self.frames: tuple[int, ...] = (0,)

    def look(self, aim: str) -> str:
        """Write a turn with an operation: "right", "wrong" or far too "large"."""
        told = self.remarks.whole if self.remarks else ""
        remark, action = self._remark() if self.aim else told, self.point(aim)
        opening, announcement = (_FIRST_VIDEO, _ANNOUNCE_VIDEO) if self.is_video else (_FIRST, _ANNOUNCE)
        if self.remarks:
            announcement = _TOLD_VIDEO if self.is_video else _TOLD
        if isinstance(action, SelectFrames):
            self.frames = action.frames
            opening = _FIRST_FRAMES if aim == "right" else opening
        self.aim = aim
        remark = remark or f"{self.naming} {self._say(pick(self.rng, opening))}".lstrip()
        return f"{remark} {self._say(pick(self.rng, announcement))} {render(action)}"

    def point(self, aim: str) -> CropImage | SelectFrames:
        """Return the operation of a look."""
        if aim == "right" and self.remarks:
            return self.remarks.look
        return self._frames(aim) if self.is_video else self._crop(aim)

    def answer(self) -> str:
        """Write the last turn."""
        if self.aim:
            remark = self._remark()
        else:
            why = reason(self.task)
            remark = sentence(why) if why else pick(self.rng, _TEXTUAL_VIDEO if self.is_video else _TEXTUAL)
        return f"{remark} {pick(self.rng, _FINAL).format(box=render(Answer(boxed(self.task))))}"

    def _remark(self) -> str:
        """Say what the last look showed."""
        if self.remarks:
            wrong = _TOLD_WRONG_VIDEO if self.is_video else _TOLD_WRONG
            told = {"right": (), "wrong": wrong, "large": _TOLD_LARGE}[self.aim]
            return self._say(pick(self.rng, told)) if told else self.remarks.closer
        said = self._facts() if self.aim == "right" else ""
        if self.is_video:
            right = _RIGHT_VIDEO if said else _RIGHT_VIDEO_UNKNOWN
            return self._say(pick(self.rng, right if self.aim == "right" else _WRONG_VIDEO), facts=said)
        seen = self._nearest() if self.aim == "wrong" else self.target
        if not seen:
            return self._say(pick(self.rng, _NOTHING))
        verdict = {"right": _RIGHT if said else _RIGHT_UNKNOWN, "large": _LARGE, "wrong": _WRONG}[self.aim]
        return self._say(pick(self.rng, _SEEN) + verdict, seen=seen, facts=said)

    def _nearest(self) -> str:
        """What the last view shows nearest to its middle."""
        x1, y1, x2, y2 = self.env.shown[-1].region
        seen = [thing for thing in self._things() if inside(thing.box, (x1, y1, x2, y2))]
        middle = ((x1 + x2) / 2, (y1 + y2) / 2)
        return f"the {min(seen, key=lambda thing: math.dist(thing.centre, middle)).name}" if seen else ""

    def _say(self, text: str, **words: str) -> str:
        numbers = [str(frame + 1) for frame in self.frames]
        words |= {"target": self.target, "image": str(len(self.env.shown)), "frame": ", ".join(numbers)}
        words |= {"frames": _enumerated("frame", numbers)}
        words |= {name.capitalize(): word[:1].upper() + word[1:] for name, word in words.items()}
        return re.sub(r"\{(\w+)\}", lambda found: words.get(found[1], found[0]), text)

    # --- what geometry tells ---

    def _things(self) -> list[Thing]:
        """All that is drawn in an image; nothing is known about one from a file."""
        return things(self.source.canvases[0]) if isinstance(self.source, DrawnSource) else []

    def _facts(self) -> str:
        """What the evidence says, such as "the red circle says 7"."""
        assert self.task.cue is not None
        if not isinstance(self.source, DrawnSource):
            return ""
        views = self.env.shown[self.num_first :] if self.is_video else self.env.shown[-1:]
        box = None if self.is_video else self.task.cue.box
        return facts([(self.source.canvases[v.frame], box or v.region) for v in views], self.task.question)

    # --- boxes ---

    def _crop(self, aim: str) -> CropImage:
        """Return a crop of the wanted kind, checked with the operation itself."""
        shown, settings = self.env.shown, self.env.view_settings
        parent = len(shown) - 1 if self.aim == "large" and self.rng.random() < 0.5 else 0
        for _ in range(200):
            bbox = on_view(self._region(aim), shown[parent], settings.coordinates)
            action = CropImage(bbox, image=parent)
            result = operations.crop_image(action, shown, self.source, settings)
            if result.views and self._fits(aim, result.views[0]):
                return action
        raise UnsuitedError(f"no {aim} box found")

    def _region(self, aim: str) -> Box:
        """Propose a region in source pixels."""
        assert self.task.cue is not None and self.task.cue.box is not None
        cue, whole = self.task.cue.box, (0.0, 0.0, float(self.source.width), float(self.source.height))
        if aim == "large":
            factor = self.rng.uniform(*LARGE_SHARE) * area(whole) / area(cue)
            return around(self.rng, cue, factor, whole, stretch=math.sqrt(shape(whole) / shape(cue)))
        if aim == "right":
            return self._with_margin(cue)
        others = [thing.box for thing in self._things() if recognisable(thing) and not overlap(thing.box, cue)]
        if others and self.rng.random() < 0.7:  # the mistakes of a policy are mostly the wrong thing, seldom nothing
            return self._with_margin(pick(self.rng, others))
        x, y = self.rng.uniform(0, whole[2] - (cue[2] - cue[0])), self.rng.uniform(0, whole[3] - (cue[3] - cue[1]))
        return self._with_margin((x, y, x + cue[2] - cue[0], y + cue[3] - cue[1]))

    def _with_margin(self, box: Box) -> Box:
        """A region around something; the thing itself where the environment adds a margin of its own."""
        if self.env.view_settings.crop_padding:
            return box
        assert self.task.cue is not None and self.task.cue.box is not None
        whole = (0.0, 0.0, float(self.source.width), float(self.source.height))
        most = max(TIGHTEST, MOST_SHARE * area(whole) / area(self.task.cue.box))
        return around(self.rng, box, min(math.exp(self.rng.uniform(*np.log(AREA))), most), whole)

    def _fits(self, aim: str, view: View) -> bool:
        assert self.task.cue is not None and self.task.cue.box is not None
        cue, first = self.task.cue.box, self.env.shown[0]
        if aim == "wrong":
            return not overlap(view.region, cue)
        ratio = area(view.region) / area(cue)
        gain = scale(view) / scale(first)
        if not inside(cue, view.region):
            return False
        if aim == "large":
            return ratio > AREA[1] and gain < LEAST_GAIN
        return ratio <= self.loosest and gain >= LEAST_GAIN

    # --- frames ---

    def _frames(self, aim: str) -> SelectFrames:
        """Return frames of the cue, or frames that show nothing of it."""
        assert self.task.cue is not None
        shown = np.array([view.frame for view in self.env.shown[: self.num_first]])
        cue = sorted({int(np.abs(shown - frame).argmin()) for frame in self.task.cue.frames})
        most = min(MOST_FRAMES, self.env.view_settings.max_selected_frames)
        if aim == "right":
            spread = np.linspace(0, len(cue) - 1, min(len(cue), most)).round().astype(int)
            return SelectFrames(tuple(cue[k] for k in spread))
        others = [k for k in range(self.num_first) if k not in cue]
        if not others:
            raise UnsuitedError("no frames without evidence")
        number = int(self.rng.integers(1, min(most, len(others)) + 1))
        start = int(self.rng.integers(len(others) - number + 1))
        return SelectFrames(tuple(others[start : start + number]))


def _enumerated(noun: str, names: Sequence[str]) -> str:
    """Return "frame 2", "frames 2 and 3" or "frames 2, 3 and 4"."""
    *others, last = names
    return f"{noun}s {', '.join(others)} and {last}" if others else f"{noun} {last}"


def boxed(task: Task) -> str:
    """Return the right answer as it goes into the box: as the task words it, with its letter where it needs one.

    The exact text of an option is an answer, but the text "B" would be read as option (B).
    """
    answer = task.answers[0]
    if task.answer_kind == "choice" and not grade(task, answer).correct:
        return f"({chr(ord('A') + task.choices.index(answer))}) {answer}"
    return answer
