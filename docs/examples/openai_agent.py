"""An agent behind any server that speaks the chat protocol of OpenAI.

    python docs/examples/openai_agent.py http://127.0.0.1:8000/v1 Qwen/Qwen2.5-VL-7B-Instruct

The key is in OPENAI_API_KEY; a server that wants none takes any.
"""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from openai import OpenAI

from pixel_env.chat import messages
from pixel_env.evaluation import evaluate
from pixel_env.rollout import Conversation, rollout


class Agent:
    """Asks the server for the next turn of every conversation, eight at a time."""

    def __init__(self, client: OpenAI, model: str) -> None:
        self.client, self.model = client, model

    def act(self, conversations: Sequence[Conversation]) -> list[str]:
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(self.turn, conversations))

    def turn(self, conversation: Conversation) -> str:
        reply = self.client.chat.completions.create(model=self.model, messages=messages(conversation), max_tokens=1024)
        return reply.choices[0].message.content or ""  # None where it says nothing


if __name__ == "__main__":
    url, model = sys.argv[1:]
    with OpenAI(base_url=url) as client:
        played = rollout(Agent(client, model), "PixelReason-Zoom-v0", range(16), split="test", preset="micro")
    print(evaluate(played).to_markdown())
