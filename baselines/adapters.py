r"""Numbers in place of text, for libraries such as Stable-Baselines3 that take arrays of fixed size.

An adapter writes every action as the text that a language model would have written and plays it in the environment
below, which alone says what happens, what it costs and what is right: `info["action"]` is that text. What comes back is
put into arrays. Nothing is read that a policy is not told, so whoever plays the texts plays the same episode.

    >>> import gymnasium as gym, pixel_env
    >>> env = PyramidZoom(gym.make("PixelReason-Zoom-v0", suite="search", preset="micro"))
    >>> env.meanings[3:6], env.meanings[-1]
    (('answer D', 'left', 'right'), 'out')
    >>> observation, info = env.reset(seed=0)
    >>> observation["picture"].shape, observation["position"].tolist()
    ((112, 112, 3), [0.0, 0.0, 1.0, 1.0, 0.0])
    >>> observation, *_, info = env.step(env.meanings.index("in"))
    >>> observation["position"].tolist()
    [0.25, 0.25, 0.75, 0.75, 0.0]
    >>> info["action"]
    '<tool_call>{"name": "crop_image", "arguments": {"bbox_2d": [28, 28, 84, 84], "target_image": 1}}</tool_call>'
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box as BoxSpace
from gymnasium.spaces import Dict, Discrete, MultiDiscrete
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray
from PIL import Image

from baselines.boxes import GRID, LOOKS, WHOLE, around
from baselines.text_encoding import NUMBERS, encode, read_question
from pixel_env import PixelReasonEnv
from pixel_env.actions import Action, Answer, CropImage, SelectFrames, render
from pixel_env.env import Observation
from pixel_env.media import Box
from pixel_env.operations import extent
from pixel_env.prompts import OPERATIONS
from pixel_env.protocols import PROTOCOLS
from pixel_env.settings import at_least
from pixel_env.tasks import ProceduralTasks
from pixel_env.tasks.drawing import COLOUR_NAMES

Arrays = dict[str, NDArray[Any]]
Step = tuple[Arrays, float, bool, bool, dict[str, Any]]

QUESTION_WORDS = 20
CHOICE_WORDS = 4

_LETTERS = tuple("ABCD")
ANSWERS = {
    "search": _LETTERS,
    "count": tuple(map(str, range(11))),
    "read": (*COLOUR_NAMES, *map(str, (*range(2, 9), *range(12, 33, 4)))),
    "clip": (*_LETTERS, *map(str, range(1, 17))),
}
"""What can be answered in each generated suite: every right answer, but for the strings of `read`, which no list can
hold. An adapter that was given no answers reaches only those questions of `read` that ask for a colour or a number."""


@dataclass(frozen=True)
class Place:
    """What is looked at.

    Attributes:
        box: x1, y1, x2, y2 in fractions of the frame.
        frame: 0-based number of the frame that was picked; None before one is, and of an image.
    """

    box: Box = WHOLE
    frame: int | None = None


class Adapter(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """What both kinds of actions share; not made by itself.

    The observation is a dict of

    * ``picture`` (side, side, 3) uint8: the latest view, stretched to a square; at first the frames of a video row by
      row in a grid;
    * ``position`` (5,) float32: x1, y1, x2, y2 of the box looked at, in fractions of image or frame, as it was asked
      for (`crop_padding` shows more); then the number of the frame picked, counted from 1, as a share of all, 0 without
      one;
    * ``turns`` (1,) float32: share of the turns that is left;
    * ``question`` (QUESTION_WORDS,) and ``choices`` (letters * CHOICE_WORDS,) int64: words, see
      `baselines.text_encoding`; choices only where an answer is a letter, and zeros where a question has none.

    An operation that fails costs its turn and moves nothing. Zooming in on a video of which no frame was picked looks
    at the first one.

    Attributes:
        answers: The answers that can be given.
        meanings: What each action, or each score of an action, stands for, in words.

    Args:
        env: Environment to wrap, with both operations and the native protocol.
        answers: The answers that can be given, letters of choices or texts; by default those of the generated suites
            that the environment asks, from `ANSWERS`.
        side: Of the picture, in pixels; at least 36.
        looks: Names of the actions that crop.

    Raises:
        TypeError, ValueError: An environment or argument of another kind.
    """

    def __init__(
        self, env: gym.Env[Observation, str], answers: Sequence[str] | None, side: int, looks: tuple[str, ...]
    ) -> None:
        RecordConstructorArgs.__init__(self, answers=None if answers is None else list(answers), side=side)
        gym.Wrapper.__init__(self, env)
        bare = env.unwrapped
        if not isinstance(bare, PixelReasonEnv):
            raise TypeError(f"expected a PixelReasonEnv inside, got {type(bare).__name__}")
        if bare.protocol is not PROTOCOLS["native"]:
            raise ValueError("expected protocol='native', whose calls an adapter writes, got another one")
        if not {*OPERATIONS} <= {*bare.operations}:
            raise ValueError(f"expected an environment with both operations, got {list(bare.operations)}")
        at_least("side", side, 36)  # what the convolutions of Stable-Baselines3 need
        self._settings, self._side, self._looks = bare.view_settings, side, looks
        self.answers = _checked(_default_answers(bare) if answers is None else answers)
        frames = self._settings.num_frames if "video" in bare.media else 0
        self.meanings = (
            *(f"answer {answer}" for answer in self.answers),
            *looks,
            *(f"frame {frame}" for frame in range(1, frames + 1)),
        )
        self._letters = 1 + max(map(choice_of, self.answers))
        words = {"question": QUESTION_WORDS, "choices": self._letters * CHOICE_WORDS}
        self.observation_space = Dict(
            {
                "picture": BoxSpace(0, 255, (side, side, 3), np.uint8),
                "position": BoxSpace(0, 1, (5,), np.float32),
                "turns": BoxSpace(0, 1, (1,), np.float32),
                **{name: MultiDiscrete([NUMBERS] * length) for name, length in words.items() if length},
            }
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Arrays, dict[str, Any]]:
        """Begin an episode; arguments as of the environment."""
        observation, info = self.env.reset(seed=seed, options=options)
        question, choices = read_question(observation["text"])
        self._words = {"question": encode(question, QUESTION_WORDS)}
        if self._letters:
            told = [*choices, *[""] * self._letters][: self._letters]
            self._words["choices"] = np.concatenate([encode(choice, CHOICE_WORDS) for choice in told])
        height, width, _ = observation["images"][0].shape
        self._extent = extent((width, height), self._settings.coordinates)  # the frames of a video are of one size
        self._place, self._taken = Place(), 0
        self._picture = square(observation["images"], self._side)
        return self._arrays(), info

    def _play(self, index: int, box: Box) -> Step:
        """Play the action `index` of `meanings`; `box` is what it looks at if it crops."""
        action, place = self._meant(index, box)
        text = render(action)
        observation, reward, terminated, truncated, info = self.env.step(text)
        self._taken += 1
        if observation["images"]:  # a failed operation shows nothing, and neither does an answer
            self._place, self._picture = place, square(observation["images"], self._side)
        return self._arrays(), float(reward), terminated, truncated, info | {"action": text}

    def _meant(self, index: int, box: Box) -> tuple[Action, Place]:
        if index < len(self.answers):
            return Answer(self.answers[index]), self._place
        frame = index - len(self.answers) - len(self._looks)
        if frame >= 0:
            return SelectFrames((frame,)), Place(WHOLE, frame)
        right, bottom = self._extent
        x1, y1, x2, y2 = box
        # Boxes are those of the first view of the image or frame, so that no place depends on how it was reached.
        action = CropImage((x1 * right, y1 * bottom, x2 * right, y2 * bottom), image=self._place.frame or 0)
        return action, Place(box, self._place.frame)

    def _arrays(self) -> Arrays:
        picked = 0.0 if self._place.frame is None else (self._place.frame + 1) / self._settings.num_frames
        return {
            "picture": self._picture.copy(),
            "position": np.array([*self._place.box, picked], np.float32),
            "turns": np.array([1 - self._taken / self._settings.max_turns], np.float32),
            **{name: numbers.copy() for name, numbers in self._words.items()},
        }

    def _check(self, action: Any) -> None:
        if not self.action_space.contains(action):
            raise ValueError(f"expected an action in {self.action_space}, got {action!r}")


class PyramidZoom(Adapter):
    """Discrete actions: give an answer, move by half a box, zoom in or out by two, pick a frame.

    Boxes halve and double, so what is looked at is always a place in a pyramid of overlapping parts. A step against the
    border shows the same part again. See `Adapter` for the arguments and the observation, `meanings` for the actions.
    """

    def __init__(self, env: gym.Env[Observation, str], answers: Sequence[str] | None = None, side: int = 112) -> None:
        super().__init__(env, answers, side, tuple(LOOKS))
        self.action_space = Discrete(len(self.meanings))

    def step(self, action: int | np.integer[Any]) -> Step:
        """Take a turn with an action that `meanings` explains, 0-based."""
        self._check(action)
        name = self.meanings[int(action)]
        box = LOOKS[name](self._place.box) if name in LOOKS else self._place.box
        return self._play(int(action), box)


class GridZoom(Adapter):
    """Discrete actions: give an answer, look at one of GRID x GRID places, pick a frame.

    A look shows a part of the image around the middle of a cell of a grid (`baselines.boxes.LOOK`), moved inwards at
    the border: one turn finds what a walk in the pyramid takes several for. See `Adapter` for the arguments and the
    observation, `meanings` for the actions.
    """

    def __init__(self, env: gym.Env[Observation, str], answers: Sequence[str] | None = None, side: int = 112) -> None:
        looks = tuple(
            f"look at row {row}, column {column}" for row in range(1, GRID + 1) for column in range(1, GRID + 1)
        )
        super().__init__(env, answers, side, looks)
        self.action_space = Discrete(len(self.meanings))

    def step(self, action: int | np.integer[Any]) -> Step:
        """Take a turn with an action that `meanings` explains, 0-based."""
        self._check(action)
        look = int(action) - len(self.answers)
        row, column = divmod(look, GRID)
        box = around((column + 0.5) / GRID, (row + 0.5) / GRID) if 0 <= look < GRID**2 else self._place.box
        return self._play(int(action), box)

    def look_at(self, x: float, y: float) -> int:
        """Return the action that looks where a point is, x and y in fractions of the image."""
        column, row = (min(int(GRID * place), GRID - 1) for place in (x, y))
        return len(self.answers) + GRID * row + column


class BoxZoom(Adapter):
    """Continuous actions: two opposite corners x, y, x, y of a box, then one score for each of `meanings`.

    All are from -1 to 1; -1 is the left or upper border of image or frame, 1 the right or lower one. The highest score
    says what is done, the first one where several are highest: an argmax over Gaussian scores learns like a choice
    among discrete actions. The corners count where ``"zoom"`` is highest, and a box without area is an error that the
    environment tells. See `Adapter` for the arguments and the observation.
    """

    def __init__(self, env: gym.Env[Observation, str], answers: Sequence[str] | None = None, side: int = 112) -> None:
        super().__init__(env, answers, side, ("zoom",))
        self.action_space = BoxSpace(-1, 1, (4 + len(self.meanings),), np.float32)

    def step(self, action: NDArray[np.float32]) -> Step:
        """Take a turn with an action (4 + len(meanings),) float32."""
        self._check(action)
        (x1, x2), (y1, y2) = (sorted((float(corner) + 1) / 2 for corner in action[axis:4:2]) for axis in (0, 1))
        return self._play(int(np.argmax(action[4:])), (x1, y1, x2, y2))


def choice_of(answer: str) -> int:
    """Return the 0-based choice that an answer is the letter of, -1 for any other answer.

    >>> choice_of("B"), choice_of("12")
    (1, -1)
    """
    return ascii_uppercase.index(answer) if len(answer) == 1 and answer in ascii_uppercase else -1


def square(images: Sequence[NDArray[np.uint8]], side: int) -> NDArray[np.uint8]:
    """Return images (H, W, 3) of one size, row by row in a grid, as one picture (side, side, 3), stretched to fit."""
    height, width, _ = images[0].shape
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    grid = np.zeros((rows * height, columns * width, 3), np.uint8)
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        grid[row * height : (row + 1) * height, column * width : (column + 1) * width] = image
    return np.array(Image.fromarray(grid).resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0))


def _default_answers(bare: PixelReasonEnv) -> list[str]:
    if not isinstance(bare.tasks, ProceduralTasks):
        raise ValueError(f"expected answers for tasks of one's own, {type(bare.tasks).__name__}; give answers=[...]")
    return list(dict.fromkeys(answer for suite in bare.tasks.suites for answer in ANSWERS[suite]))


def _checked(answers: Sequence[str]) -> tuple[str, ...]:
    if isinstance(answers, str) or not all(isinstance(answer, str) for answer in answers):
        raise TypeError(f"expected answers as a list of texts, got {answers!r}")
    if not answers or len(set(answers)) < len(answers):
        raise ValueError(f"expected at least one answer and none twice, got {list(answers)}")
    for answer in answers:
        render(Answer(answer))  # raises ValueError for one that cannot be written
    return tuple(answers)
