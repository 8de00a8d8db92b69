"""Draw docs/images/viewer.png, the page of `pixel_env.view` in headless Chromium: `python docs/make_viewer_picture.py`.

Two runs stand side by side: scripted policies, of which one looks off target at first, and the oracle.
"""

import dataclasses
import tempfile
from pathlib import Path

from PIL import Image

from benchmarks.headless import CHROMIUM, NO_CHROMIUM, Browser
from pixel_env.policies import DirectPolicy, GridPolicy, OraclePolicy
from pixel_env.rollout import Conversation, rollout
from pixel_env.tasks import ProceduralTasks
from pixel_env.viewer import to_html

PICTURE = Path(__file__).parent / "images" / "viewer.png"
TASKS = ProceduralTasks(split="test", preset="micro")
EPISODES = 24
SHOWN = TASKS[4].task_id
ORACLE = OraclePolicy(TASKS)
SIZE = (1300, 1180)


def corner_first(conversation: Conversation) -> str:
    """Look at the upper left corner, then as the oracle does."""
    if not conversation.actions:
        return "Let me look at the corner first. crop_image([0, 0, 40, 40], 1)"
    return oracle(dataclasses.replace(conversation, actions=conversation.actions[1:]))


def inverted(conversation: Conversation) -> str:
    """Give a box whose corners are swapped, then guess."""
    return "crop_image([60, 60, 20, 20], 1)" if not conversation.actions else r"\boxed{A}"


def oracle(conversation: Conversation) -> str:
    """Look at the evidence, then answer right."""
    return ORACLE.act([conversation])[0]


def mixture(conversation: Conversation) -> str:
    """One scripted policy after the other, task by task."""
    policies = (DirectPolicy().guess, lambda asked: GridPolicy().act([asked])[0], inverted, oracle, corner_first)
    return policies[TASKS.index(conversation.task_id) % len(policies)](conversation)


def main() -> None:
    """Play, write the page, and take its picture."""
    if CHROMIUM is None:
        print(f"{PICTURE} stays as it is: {NO_CHROMIUM}")
        return
    runs = {}
    for name, policy in {"mixture": mixture, "oracle": oracle}.items():
        runs[name] = rollout(policy, "PixelReason-Mixed-v0", range(EPISODES), split="test", preset="micro")
    with tempfile.TemporaryDirectory() as temporary, Browser(Path(temporary) / "profile") as browser:
        page = Path(temporary) / "page.html"
        page.write_text(to_html(runs), encoding="utf-8")
        browser.emulate(*SIZE)
        browser.send("Emulation.setScrollbarsHidden", hidden=True)
        browser.open(f"{page.as_uri()}#task={SHOWN}")
        few = browser.screenshot().quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
