"""A task set of one's own, two methods: which way do the stripes of a sign run? In a small view they are grey."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image, ImageDraw

from pixel_env.evaluation import evaluate
from pixel_env.media import DecodedImage
from pixel_env.policies import DirectPolicy, OraclePolicy
from pixel_env.rollout import rollout
from pixel_env.tasks import Cue, Task, TaskSet
from pixel_env.viewer import to_html

SIDE, SIGN, STRIPE = 224, 32, 4
"""Pixels of the page, of the sign on it, and of a stripe."""

SETTINGS: dict[str, Any] = {"view_pixels": 28 * 28, "crop_pixels": 56 * 56}
"""A black and a white stripe together are one pixel of the first view."""


@dataclass(frozen=True)
class Page(DecodedImage):
    """A page with a sign, drawn when it is first looked at. Where pictures are files, `ImageFile(path)` is all."""

    x: int
    y: int
    across: bool

    def read(self) -> Image.Image:
        page = Image.new("RGB", (SIDE, SIDE), "navy")
        draw = ImageDraw.Draw(page)
        draw.rectangle((self.x, self.y, self.x + SIGN - 1, self.y + SIGN - 1), "white")
        for begin in range(0, SIGN, 2 * STRIPE):
            end = begin + STRIPE - 1
            x1, y1, x2, y2 = (0, begin, SIGN - 1, end) if self.across else (begin, 0, end, SIGN - 1)
            draw.rectangle((self.x + x1, self.y + y1, self.x + x2, self.y + y2), "black")
        return page


class Signs(TaskSet):
    """Ten thousand pages; the same index always gives the same task."""

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> Task:
        rng = np.random.default_rng([0, index])
        x, y = (int(corner) for corner in rng.integers(SIDE - SIGN, size=2))
        across = bool(rng.integers(2))
        return Task(
            task_id=f"signs-{index}",
            suite="signs",
            question="Do the stripes of the sign run across or down?",
            media=Page(x, y, across),
            answers=("across" if across else "down",),
            answer_kind="choice",
            choices=("across", "down"),
            cue=Cue(box=(x, y, x + SIGN, y + SIGN)),
            needs_operation=True,
        )


if __name__ == "__main__":
    tasks = Signs()
    for policy in (DirectPolicy(), OraclePolicy(tasks)):
        played = rollout(policy, "PixelReason-Zoom-v0", range(64), tasks=tasks, **SETTINGS)
        print(evaluate(played).to_markdown())
    page = to_html({"oracle": played}, gym.make("PixelReason-Zoom-v0", tasks=tasks, **SETTINGS))
    Path("signs.html").write_text(page, encoding="utf-8")
