"""A scripted agent, a function: it zooms in on the colour that the question names, then chooses (A)."""

import numpy as np

from pixel_env.evaluation import evaluate
from pixel_env.rollout import Conversation, rollout
from pixel_env.tasks.drawing import COLOURS
from pixel_env.trajectory import save_jsonl


def agent(conversation: Conversation) -> str:
    """Write the next turn of one conversation."""
    if conversation.actions:  # what it wrote so far
        return r"\boxed{A}"
    text, image = conversation.observations[0]["text"], conversation.observations[0]["images"][0]
    named = next((rgb for colour, rgb in COLOURS.items() if colour in text), (0, 0, 0))
    distance = np.abs(image - np.array(named)).sum(axis=2)
    y, x = np.unravel_index(distance.argmin(), distance.shape)
    return f"Closer. crop_image([{x - 14}, {y - 14}, {x + 14}, {y + 14}])"


if __name__ == "__main__":
    played = rollout(agent, "PixelReason-Zoom-v0", range(32), suite="search", split="test", preset="micro")
    print(evaluate(played).to_markdown())
    save_jsonl("scripted.jsonl", played)  # python -m pixel_env.view scripted.jsonl
