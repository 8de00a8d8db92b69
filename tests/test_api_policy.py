"""An endpoint as a policy: turns, episodes at their own pace, replies kept, tokens counted."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from chat_server import PATIENCE, Answer, ChatServer, completion, images, refusal, serving, tool_call

from agents import endpoint
from agents.api_policy import EndpointPolicy, play, rollout_endpoint
from agents.replies import Usage
from pixel_env.evaluation import evaluate
from pixel_env.rollout import Conversation, Episode, rollout
from pixel_env.trajectory import digest, replay, save_jsonl

ZOOM, MIXED = "PixelReason-Zoom-v0", "PixelReason-Mixed-v0"
KEY = "sk-secret-0123456789"
LOOK = '<tool_call>{"name": "crop_image", "arguments": {"bbox_2d": [0, 0, 56, 56], "target_image": 1}}</tool_call>'
ANSWER = r"\boxed{A}"
SMALL: dict[str, Any] = {"preset": "micro", "progress": False}


@pytest.fixture(autouse=True)
def no_pauses_and_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def skip(_: float) -> None:
        pass

    monkeypatch.setattr(endpoint, "_sleep", skip)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@contextmanager
def asking(answer: Any, **settings: Any) -> Iterator[tuple[ChatServer, EndpointPolicy]]:
    with serving(answer) as server, EndpointPolicy("tiny", base_url=server.url, api_key=KEY, **settings) as policy:
        yield server, policy


def turns_so_far(body: dict[str, Any]) -> int:
    return sum(message["role"] == "assistant" for message in body["messages"])


def look_then_answer(_: int, body: dict[str, Any]) -> Answer:
    return completion(ANSWER if turns_so_far(body) else f"Closer. {LOOK}")


def question(body: dict[str, Any]) -> str:
    return str(body["messages"][1]["content"])


def started(task: int, env_id: str = ZOOM) -> Episode:
    episode = Episode(gym.make(env_id, preset="micro"))
    episode.reset(task, seed=0)
    return episode


def conversation(task: int = 0) -> Conversation:
    return started(task).conversation


# --- turns ------------------------------------------------------------------------------------------------------------


def test_a_request_holds_what_was_said_and_every_pixel_shown() -> None:
    episode = started(3, MIXED)  # a video
    episode.step('<tool_call>{"name": "select_frames", "arguments": {"target_frames": [2, 5]}}</tool_call>')
    shown = [image for observation in episode.conversation.observations for image in observation["images"]]
    with asking(lambda *_: completion("Hm."), temperature=0.7, max_new_tokens=9) as (server, policy):
        assert policy.act([episode.conversation]) == ["Hm."]
        [body] = server.bodies
    assert {name: body[name] for name in body if name != "messages"} == {
        "model": "tiny",
        "max_tokens": 9,
        "temperature": 0.7,
    }
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "user"]
    assert len(shown) == 18  # the 16 frames that stand for the video, each an image, and the two selected
    asked = body["messages"][1]["content"]
    assert [part["type"] for part in asked if part["type"] != "text"] == ["image_url"] * 16
    for sent, image in zip(images(body), shown, strict=True):
        np.testing.assert_array_equal(sent, image)


def test_settings_that_a_server_may_not_take() -> None:
    with asking(lambda *_: completion("Hm."), temperature=None, limit_field="max_completion_tokens") as (
        server,
        policy,
    ):
        policy.act([conversation()])
        assert server.bodies[0].keys() == {"model", "messages", "max_completion_tokens"}


@pytest.mark.parametrize("tools", ["text", "native"])
def test_a_tool_call_of_a_server_is_an_action(tools: str) -> None:
    call = tool_call("crop_image", '{"bbox_2d": [0, 0, 56, 56], "target_image": 1}')
    replies = [completion(None, [call]), completion(ANSWER)]
    with asking(lambda n, _: replies[n], tools=tools) as (server, policy):
        [played] = rollout(policy, ZOOM, [0], **SMALL)
        first, second = server.bodies
    assert [turn.action for turn in played.turns] == [LOOK, ANSWER]
    assert played.num_operations == 1 and played.num_errors == 0
    assert ("tools" in first) == (tools == "native")
    roles = [message["role"] for message in second["messages"]]
    assert roles == ["system", "user", "assistant", *(["tool", "user"] if tools == "native" else ["user"])]
    assert digest(images(second)[-1]) == played.turns[0].image_digests[0]


@pytest.mark.parametrize(
    ("operations", "names"),
    [
        ((), None),
        (("crop_image",), ["crop_image"]),
        (("select_frames",), ["select_frames"]),
        (("select_frames", "crop_image"), ["crop_image", "select_frames"]),
    ],
)
def test_native_tools_are_those_on_offer(operations: tuple[str, ...], names: list[str] | None) -> None:
    with asking(lambda *_: completion(ANSWER), tools="native") as (server, policy):
        rollout(policy, ZOOM, [0], operations=operations, **SMALL)
    [body] = server.bodies
    assert [tool["function"]["name"] for tool in body.get("tools", [])] == (names or [])
    assert names or "tools" not in body  # servers refuse an empty list
    assert "<tools>" not in str(body["messages"])


def test_native_tools_are_refused_in_the_protocol_of_the_release() -> None:
    with asking(lambda *_: completion(ANSWER), tools="native") as (server, policy):
        [played] = rollout(policy, ZOOM, [0], protocol="pixelreasoner", **SMALL)
    assert "expected tools='text' with protocol='pixelreasoner'" in str(played.error) and not server.bodies


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("crop_image", '{"bbox_2d": [0, 0, 56', "expected valid JSON in the call"),
        ("rotate", '{"degrees": 90}', "expected the name crop_image or select_frames"),
        ("crop_image", '{"bbox_2d": [0, 0, 900, 900], "target_image": 7}', "images 1 to 1 have been shown"),
    ],
)
def test_a_bad_tool_call_is_answered_by_the_environment(name: str, arguments: str, told: str) -> None:
    replies = [completion(None, [tool_call(name, arguments)]), completion(ANSWER)]
    with asking(lambda n, _: replies[n], tools="native") as (server, policy):
        [played] = rollout(policy, ZOOM, [0], **SMALL)
        assert told in str(server.bodies[1]["messages"][-1]["content"])
    assert played.error is None and arguments in played.turns[0].action
    assert played.num_errors == 1 and played.terminated


def test_one_failing_conversation_costs_the_others_nothing(caplog: Any) -> None:
    talks = [conversation(task) for task in range(4)]
    bad = talks[2].observations[0]["text"].split("\n")[1]
    talks[3].observations[0] = {"text": "no picture", "images": talks[3].observations[0]["images"]}

    def answer(_: int, body: dict[str, Any]) -> Answer:
        return refusal(400, "too long") if bad in question(body) else completion("Hm.")

    with asking(answer) as (server, policy):
        *good, refused, unsent = policy.act(talks)
        assert good == ["Hm.", "Hm."]
        assert isinstance(refused, endpoint.EndpointError) and "too long" in str(refused)
        assert isinstance(unsent, ValueError) and "expected 0 images" in str(unsent)
        assert len(server.bodies) == 3
    assert sorted("Traceback" in (record.exc_text or "") for record in caplog.records) == [False, True]


@pytest.mark.parametrize("play_with", [rollout, rollout_endpoint])
def test_a_server_in_trouble_is_an_error_of_the_episode_and_never_a_score(play_with: Any, caplog: Any) -> None:
    seen: defaultdict[str, int] = defaultdict(int)

    def answer(_: int, body: dict[str, Any]) -> Answer:
        seen[question(body)] += 1
        return refusal(404, "no such model") if len(seen) % 2 == 0 else look_then_answer(_, body)

    with asking(answer, concurrency=1) as (_, policy):
        played = play_with(policy, ZOOM, range(4), batch_size=1, **SMALL)
    errors = [trajectory.error for trajectory in played]
    assert [error is None for error in errors] == [True, False, True, False]
    assert str(errors[1]).startswith("EndpointError: asked 'tiny' at http://127.0.0.1")
    assert evaluate(played).overall.errors == 2 and evaluate(played).overall.episodes == 2
    assert len(caplog.records) == 1 and "no such model" in caplog.text  # said once, at once


# --- episodes at their own pace ---------------------------------------------------------------------------------------


def test_the_same_episodes_as_rollout() -> None:
    with asking(look_then_answer) as (server, policy):
        slow = rollout(policy, MIXED, range(4), group_size=2, seed=3, **SMALL)
        quick = rollout_endpoint(policy, MIXED, range(4), group_size=2, seed=3, batch_size=3, **SMALL)
        assert rollout_endpoint(policy, MIXED, [], **SMALL) == []
    assert quick == slow
    assert [replay(trajectory) for trajectory in quick] == slow
    assert len(server.bodies) == 2 * 8 * 2
    assert {tuple(turn.operation for turn in t.turns) for t in quick} == {("crop_image", None)}


def test_a_slow_answer_holds_no_other_episode_up() -> None:
    """The first answer of one episode is held back until the others have taken all their turns."""
    slow, others_done, late = question_of(0), threading.Event(), []

    def answer(_: int, body: dict[str, Any]) -> Answer:
        if slow in question(body) and not turns_so_far(body):
            late.append(others_done.wait(PATIENCE))
        elif turns_so_far(body) == 3:
            last.append(question(body))
            if len(last) == 3:
                others_done.set()
        return completion(ANSWER if turns_so_far(body) == 3 else LOOK)

    last: list[str] = []
    with asking(answer) as (_, policy):
        played = rollout_endpoint(policy, ZOOM, range(4), **SMALL)
    assert late == [True]
    assert [len(trajectory.turns) for trajectory in played] == [4] * 4


def test_delays_overlap_across_episodes_and_never_within_one() -> None:
    delays, running, most_within = (0.0, 0.05, 0.2), defaultdict(int), []
    questions, lock = [question_of(task) for task in range(3)], threading.Lock()

    def answer(_: int, body: dict[str, Any]) -> Answer:
        task = next(i for i, asked in enumerate(questions) if asked in question(body))
        with lock:
            running[task] += 1
            most_within.append(running[task])
        time.sleep(delays[task])
        with lock:
            running[task] -= 1
        return look_then_answer(_, body)

    with asking(answer) as (server, policy):
        played = rollout_endpoint(policy, ZOOM, range(3), **SMALL)
    assert set(most_within) == {1} and server.most_running >= 2
    assert [t.task_id for t in played] == [conversation(task).task_id for task in range(3)]


def question_of(task: int) -> str:
    """What tells a task from the others in a request."""
    return repr(conversation(task).observations[0]["text"].split("\n", 1)[1])[1:60]


def test_mistakes_of_the_caller_raise() -> None:
    with asking(look_then_answer) as (server, policy):
        with pytest.raises(ValueError, match="no task 'x'"):
            rollout_endpoint(policy, ZOOM, [0, "x", 1], **SMALL)
        with pytest.raises(ValueError, match="expected group_size of at least 1, got 0"):
            rollout_endpoint(policy, ZOOM, [0], group_size=0, **SMALL)
    with pytest.raises(ValueError, match="tools"):
        EndpointPolicy("tiny", base_url=server.url, tools="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"concurrency of at least 1.*got 0, 5, 120\.0 and 600\.0"):
        EndpointPolicy("tiny", base_url=server.url, concurrency=0)


def test_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with asking(look_then_answer) as (_, policy):
        rollout_endpoint(policy, ZOOM, [0, 1], preset="micro")
        assert "2/2" in capsys.readouterr().err
        rollout_endpoint(policy, ZOOM, [0], **SMALL)
        assert capsys.readouterr().err == ""


# --- replies kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("play_with", [rollout, rollout_endpoint])
def test_what_is_in_the_cache_is_not_asked(play_with: Any, tmp_path: Path) -> None:
    def sampled(number: int, body: dict[str, Any]) -> Answer:
        return completion(f"Sample {number}. {ANSWER if turns_so_far(body) else LOOK}")

    path = tmp_path / "replies.jsonl"
    with asking(sampled, temperature=1.0, cache=path) as (server, policy):
        first = play_with(policy, ZOOM, range(2), group_size=3, **SMALL)
        assert len(server.bodies) == 12
    assert len({trajectory.turns[0].action for trajectory in first}) == 6  # samples are not shared
    with asking(sampled, temperature=1.0, cache=path) as (server, policy):
        assert play_with(policy, ZOOM, range(2), group_size=3, **SMALL) == first
        assert server.bodies == [] and policy.asked == Usage()
        assert policy.reused == Usage(12, 0, 1200, 84)
        play_with(policy, ZOOM, [0], group_size=4, seed=1, **SMALL)
        if play_with is rollout_endpoint:
            assert len(server.bodies) == 2  # a fourth sample, two turns
    for changes in ({"temperature": 0.5}, {"temperature": 1.0, "max_new_tokens": 5}, {"tools": "native"}):
        with asking(sampled, cache=path, **changes) as (server, policy):
            policy.act([conversation()])
            assert len(server.bodies) == 1


CHILD = """
import sys
from agents.api_policy import EndpointPolicy, rollout_endpoint
from pixel_env.trajectory import save_jsonl
url, cache, out = sys.argv[1:]
with EndpointPolicy("tiny", base_url=url, cache=cache) as policy:
    played = rollout_endpoint(policy, "PixelReason-Zoom-v0", range(4), batch_size=1, preset="micro", progress=False)
save_jsonl(out, played)
"""


def test_a_run_that_was_killed_asks_nothing_twice(tmp_path: Path) -> None:
    """The server kills the run instead of answering request 5; eight make it whole."""
    child: list[subprocess.Popen[bytes]] = []

    def answer(number: int, body: dict[str, Any]) -> Answer:
        if number == 5:
            os.kill(child[0].pid, signal.SIGKILL)
            return Answer(b"", how="cut")
        return look_then_answer(number, body)

    with serving(answer) as server:
        command = [
            sys.executable,
            "-c",
            CHILD,
            server.url,
            str(tmp_path / "replies.jsonl"),
            str(tmp_path / "out.jsonl"),
        ]
        for status in (-signal.SIGKILL, 0):
            child[:] = [subprocess.Popen(command, cwd=Path(__file__).parents[1])]
            assert child[0].wait(120) == status
        assert len(server.bodies) == 8 + 1
        assert [body for i, body in enumerate(server.bodies) if body in server.bodies[:i]] == [server.bodies[5]]
        with EndpointPolicy("tiny", base_url=server.url) as policy:
            save_jsonl(tmp_path / "whole.jsonl", rollout_endpoint(policy, ZOOM, range(4), **SMALL))
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


# --- tokens, and the key ----------------------------------------------------------------------------------------------


def test_tokens_and_cost_by_trajectory_and_in_total() -> None:
    with asking(look_then_answer, prices=(1.0, 10.0)) as (_, policy):
        played = play(policy, ZOOM, range(3), **SMALL)
        assert [episode.usage for episode in played] == [Usage(2, 0, 200, 14)] * 3
        assert policy.asked == Usage(6, 0, 600, 42)
        assert policy.cost == pytest.approx((600 * 1 + 42 * 10) / 1e6)


def test_a_server_that_does_not_count() -> None:
    def answer(_: int, body: dict[str, Any]) -> Answer:
        return completion(ANSWER) if turns_so_far(body) else completion(LOOK, usage=None)

    with asking(answer, prices=(1.0, 10.0)) as (_, policy):
        [played] = play(policy, ZOOM, [0], **SMALL)
        assert played.usage == policy.asked == Usage(2, 1, None, None)
        assert policy.cost is None


def test_the_key_is_written_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def answer(number: int, body: dict[str, Any]) -> Answer:
        return completion(f"{KEY} {LOOK}") if number == 0 else refusal(401, f"bad key {KEY}")

    caplog.set_level("DEBUG")
    with asking(answer, cache=tmp_path / "replies.jsonl") as (server, policy):
        played = rollout_endpoint(policy, ZOOM, [0], **SMALL)
        save_jsonl(tmp_path / "played.jsonl", played)
        assert server.keys == [f"Bearer {KEY}"] * 2
        assert played[0].turns[0].action == f"*** {LOOK}" and "bad key ***" in str(played[0].error)
        assert KEY not in repr(policy) + repr(vars(policy))
    assert KEY not in caplog.text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2 and not any(KEY.encode() in path.read_bytes() for path in files)
