"""Draw the GIF of each environment for the README: run `python docs/make_gifs.py`.

The oracle plays a few fixed tasks of the micro preset; what is shown is the environment's own rendering with the
policy's turn below it. The same tasks give the same files.
"""

from pathlib import Path
from typing import Any

import gymnasium as gym
from PIL import Image, ImageDraw, ImageFont

from pixel_env.actions import Answer, render
from pixel_env.policies import OraclePolicy
from pixel_env.registration import ENVIRONMENTS
from pixel_env.rollout import Episode

IMAGES = Path(__file__).parent / "images"
TASKS = {
    "PixelReason-Zoom-v0": ("search", "count", "read"),
    "PixelReason-Frames-v0": ("clip", "clip"),
    "PixelReason-Mixed-v0": ("read", "clip", "search"),
}
WIDTH = 640
STRIP = 44
"""Height of the strip that holds the policy's turn, in pixels."""
MILLISECONDS = (2000, 3000, 2500)
"""How long the question, the result of the operation and the answer are shown."""
LARGEST = 400_000
"""Bytes that a GIF may take."""


def picture(env: gym.Env[Any, str], said: str, colour: str) -> Image.Image:
    """The rendering of an environment with a line of text below it."""
    canvas = Image.fromarray(env.render())  # type: ignore[arg-type]
    height = round(canvas.height * WIDTH / canvas.width)
    whole = Image.new("RGB", (WIDTH, height + STRIP), (24, 24, 28))
    whole.paste(canvas.resize((WIDTH, height), Image.Resampling.LANCZOS))
    ImageDraw.Draw(whole).text((12, height + 8), said, colour, ImageFont.load_default(16))
    return whole


def play(env: gym.Env[Any, str], index: int) -> list[Image.Image]:
    """Three pictures of an episode: the question, what the oracle's operation shows, the answer in words."""
    episode = Episode(env)
    episode.reset(index)
    task = env.unwrapped.task  # type: ignore[attr-defined]
    pictures = [picture(env, "...", "grey")]
    (call,) = OraclePolicy(env.unwrapped.tasks, margin=0.3).act([episode.conversation])  # type: ignore[attr-defined]
    for turn, colour in ((call, "orange"), (render(Answer(task.answers[0])), "limegreen")):
        episode.step(turn)
        pictures.append(picture(env, turn.removeprefix("<tool_call>").removesuffix("</tool_call>"), colour))
    assert episode.trajectory().correct, f"the answer to {task.task_id} was refused"
    return pictures


def first_that_needs_an_operation(env: gym.Env[Any, str], start: int) -> int:
    """Index of the first task from `start` on that cannot be answered from the first view."""
    tasks = env.unwrapped.tasks  # type: ignore[attr-defined]
    return next(index for index in range(start, len(tasks)) if tasks[index].needs_operation)


def make_gif(env_id: str) -> Path:
    """Write the GIF of an environment and return its path."""
    pictures: list[Image.Image] = []
    for position, suite in enumerate(TASKS[env_id]):
        with gym.make(env_id, suite=suite, preset="micro", difficulty=3, render_mode="rgb_array") as env:
            pictures += play(env, first_that_needs_an_operation(env, 7 * position))
    # The octree keeps the few pixels of a rare colour, which median cut would merge into the background.
    frames = [whole.quantize(160, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE) for whole in pictures]
    path = IMAGES / f"{env_id}.gif"
    durations = list(MILLISECONDS) * len(TASKS[env_id])
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True)
    assert path.stat().st_size < LARGEST, f"{path.name} takes {path.stat().st_size} bytes"
    return path


def main() -> None:
    """Write all GIFs."""
    IMAGES.mkdir(exist_ok=True)
    for env_id in ENVIRONMENTS:
        path = make_gif(env_id)
        print(f"{path}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
