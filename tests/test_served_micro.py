"""The micro model behind a real server: the same pixels arrive, and the same words come back."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import pytest

from agents.api_policy import EndpointPolicy
from agents.micro import MICRO_BASE
from agents.vlm_policy import VLMPolicy
from pixel_env.policies import OraclePolicy
from pixel_env.rollout import Conversation, Episode
from pixel_env.tasks import ProceduralTasks
from pixel_env.trajectory import digest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
CALM = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "NO_PROXY": "127.0.0.1"}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of the server, and the file of digests of what it saw."""
    seen = tmp_path / "seen"
    command = [sys.executable, "tests/serve_micro.py", str(seen)]
    environment = {**os.environ, **CALM, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    with open(tmp_path / "log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        with server:
            assert server.stdin is not None and server.stdout is not None
            try:
                port = server.stdout.readline().strip()
                assert port, (tmp_path / "log").read_text(encoding="utf-8")
                yield f"http://127.0.0.1:{port}/v1", seen
            finally:
                server.stdin.close()
                try:
                    server.wait(30)
                finally:
                    server.kill()


def conversations() -> list[Conversation]:
    """Questions that were just asked, and some after a look."""
    episodes = [Episode(gym.make("PixelReason-Mixed-v0", preset="micro")) for _ in range(8)]
    oracle = OraclePolicy(ProceduralTasks(preset="micro"))
    for task, episode in enumerate(episodes):
        episode.reset(task, seed=0)
        [look] = oracle.act([episode.conversation])
        if task >= 4 and "<tool_call>" in look:
            episode.step(look)
    return [episode.conversation for episode in episodes]


def test_pixels_arrive_and_greedy_words_come_back(served: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    url, seen = served
    talks = conversations()
    local = VLMPolicy.from_pretrained(MICRO_BASE, max_new_tokens=40).act(talks)
    # This server reads calls itself and writes them anew, so that only other turns are the same to the letter.
    said = [(talk, text) for talk, text in zip(talks, local, strict=True) if "<tool_call>" not in text]
    assert len(said) >= 4 and any(talk.actions for talk, _ in said)
    with EndpointPolicy(str(MICRO_BASE), base_url=url, max_new_tokens=40, concurrency=1) as policy:
        assert policy.act([talk for talk, _ in said]) == [text for _, text in said]
        assert policy.asked.requests == len(said) and policy.asked.prompt_tokens and not policy.asked.unreported
    shown = [
        " ".join(digest(image) for observation in talk.observations for image in observation["images"])
        for talk, _ in said
    ]
    assert seen.read_text(encoding="ascii").splitlines() == shown
