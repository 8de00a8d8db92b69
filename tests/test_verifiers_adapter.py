"""verifiers plays the environments as the plugin `pixel-env`; the rewards are the environment's and the group's."""

import asyncio
import json
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("verifiers.v1", reason="needs an environment of its own: make adapters")

import verifiers.v1 as vf
from chat_server import ChatServer, completion, images, refusal, serving, tool_call

import pixel_env
from pixel_env.adapters import verifiers as adapter
from pixel_env.adapters.groups import TERMS
from pixel_env.decoding import MediaError
from pixel_env.env import PixelReasonEnv
from pixel_env.rewards import shaped_rewards
from pixel_env.trajectory import Trajectory, load_jsonl, replay

ENV = "PixelReason-Zoom-v0"
SCRIPT = Path(__file__).parents[1] / "docs" / "examples" / "verifiers_play.py"
LOOK = '<tool_call>{"name": "crop_image", "arguments": {"bbox_2d": [10, 10, 60, 60], "target_image": 1}}</tool_call>'
INVERTED = LOOK.replace("[10, 10, 60, 60]", "[60, 10, 20, 60]")
ALONE = [[LOOK, r"\boxed{A}"], [INVERTED, INVERTED, r"\boxed{B}"], ["<tool_call>{", r"\boxed{C}"], [r"\boxed{D}"]]
MANY = [[LOOK, LOOK, LOOK, r"\boxed{A}"], [LOOK, INVERTED, r"\boxed{B}"], [r"\boxed{C}"], ["hm"] * 5]


def config(attempts: int = 1, **changes: Any) -> Any:
    taskset = {"id": "pixel-env", "env_id": ENV, "settings": {"preset": "micro"}, "num_tasks": 1}
    return vf.resolve_env_config({"taskset": taskset | changes.pop("taskset", {}), "attempts": attempts} | changes)


def played(server: ChatServer, settings: Any) -> list[Any]:
    """The episodes of all tasks, one each."""

    async def play() -> list[Any]:
        env = vf.load_environment(settings)
        client = vf.EvalClientConfig(base_url=server.url, api_key_var="NO_KEY")
        context = vf.ModelContext(model="served-model", client=client)
        async with env.serving():
            return [await env.run_slot(slot, context) for task in env.taskset for slot in env.slots(task)]

    return asyncio.run(play())


class Scripts:
    """Gives every attempt a script of its own: each begins with its number, by which later turns are told apart."""

    def __init__(self, scripts: Sequence[Sequence[str]]) -> None:
        self.scripts = [[f"{n}: {first}", *rest] for n, (first, *rest) in enumerate(scripts)]
        self.begun = 0

    def __call__(self, _: int, body: dict[str, Any]) -> Any:
        said = [message["content"] for message in body["messages"] if message["role"] == "assistant"]
        if not said:
            self.begun += 1
            return completion(self.scripts[self.begun - 1][0])
        (script,) = [script for script in self.scripts if script[0] == said[0]]
        assert script[: len(said)] == said
        return completion(script[len(said)])


def directly(turns: Sequence[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The observations and the last info of the first task."""
    env = gym.make(ENV, preset="micro")
    first, info = env.reset(options={"task": 0})
    observations = [first]
    for turn in turns:
        observation, *_, info = env.step(turn)
        observations.append(observation)
    return observations, info


def rewards(trace: Any) -> list[float]:
    return [trace.rewards[name].value for name in TERMS]


def test_verifiers_finds_the_plugin_by_its_name() -> None:
    env = vf.load_environment(config())
    assert isinstance(env, adapter.PixelGroup) and isinstance(env.taskset, adapter.PixelTaskset)
    assert config().agent_harnesses()["player"].id == "pixel-env"
    assert {"PixelChat", "PixelGroup", "PixelTaskset"} < set(pixel_env.__all__)
    code = "import sys, pixel_env; print('verifiers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_the_policy_is_told_and_shown_what_the_environment_tells_and_shows() -> None:
    turns = [LOOK, INVERTED, r"\boxed{A}"]
    with serving(Scripts([turns])) as server:
        played(server, config())
    observations, _ = directly([f"0: {turns[0]}", *turns[1:]])
    last = server.bodies[-1]
    assert len(server.bodies) == 3 and last["model"] == "served-model"
    assert last["messages"][0] == {"role": "system", "content": gym.make(ENV).unwrapped.instructions}  # type: ignore[attr-defined]
    assert [m["content"] for m in last["messages"] if m["role"] == "assistant"] == [f"0: {LOOK}", INVERTED]
    asked = [message["content"] for message in last["messages"] if message["role"] == "user"]
    texts = ["".join(part.get("text", "<image>") for part in content) for content in asked]
    assert texts == [observation["text"] for observation in observations[:-1]]
    shown = [image for observation in observations[:-1] for image in observation["images"]]
    for image, expected in zip(images(last), shown, strict=True):
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(("scripts", "rapr"), [(ALONE, 0.25), (MANY, 0.5)])
def test_rewards_are_those_of_the_environment_and_rapr_is_the_group_s(scripts: list[list[str]], rapr: float) -> None:
    with serving(Scripts(scripts)) as server:
        (episode,) = played(server, config(attempts=4))
    assert episode.ok and not episode.errors
    infos, found = [], []
    for number, (first, *rest) in enumerate(scripts):
        turns = [f"{number}: {first}", *rest]
        (trace,) = [t for t in episode.traces if t.info["trajectory"].find(f'"{number}: ') > 0]
        found.append(rewards(trace))
        infos.append(directly(turns)[1])
        assert trace.metrics["num_operations"] == infos[-1]["num_operations"]
        trajectory = Trajectory.from_json(trace.info["trajectory"])
        assert [turn.action for turn in trajectory.turns] == turns and replay(trajectory) == trajectory
        terms = infos[-1]["reward_terms"]
        assert found[-1][0] == terms["correctness"] and found[-1][2] == pytest.approx(terms["operation_penalty"])
    used = [info["num_operations"] > info["num_errors"] for info in infos]
    assert np.mean(used) == rapr == np.mean([trace.metrics["used_operation"] for trace in episode.traces])
    np.testing.assert_allclose([row[1] for row in found], [0.5 * max(0.3 - rapr, 0) * u for u in used])
    expected = shaped_rewards([i["correct"] for i in infos], used, [i["num_operations"] for i in infos])
    np.testing.assert_allclose(found, np.stack([expected[name] for name in TERMS], axis=1))
    json.dumps(episode.to_record())


def test_the_constants_are_those_of_the_environment() -> None:
    settings = {"preset": "micro", "alpha": 2.0, "beta": 0.5}
    with serving(Scripts(ALONE)) as server:
        (episode,) = played(server, config(attempts=4, taskset={"settings": settings}))
    found = np.array([rewards(trace) for trace in episode.traces])
    assert found[:, 1].sum() == pytest.approx(2.0 * 0.05) and found[:, 2].sum() == pytest.approx(-0.5)


def test_an_episode_of_one_attempt_is_a_group_of_its_own() -> None:
    with serving(Scripts([[LOOK, r"\boxed{A}"]])) as server:
        (episode,) = played(server, config())
    assert rewards(episode.traces[0])[1:] == [0.0, 0.0]


def test_calls_and_reasoning_that_a_server_takes_out_of_the_text_are_put_back() -> None:
    call = tool_call("crop_image", '{"bbox_2d": [10, 10, 60, 60], "target_image": 1}')
    replies = [completion(None, [call]), completion("", [tool_call("crop_image", "{broken")]), completion(r"\boxed{A}")]
    with serving(lambda n, _: replies[n]) as server:
        (episode,) = played(server, config())
    trajectory = Trajectory.from_json(episode.traces[0].info["trajectory"])
    assert [turn.operation_error for turn in trajectory.turns] == [None, "malformed_call", None]
    assert trajectory.turns[0].action == LOOK and trajectory.num_operations == 2


def test_an_attempt_that_breaks_off_is_not_scored() -> None:
    scripts = Scripts(ALONE)

    def answer(number: int, body: dict[str, Any]) -> Any:
        assistant = [message["content"] for message in body["messages"] if message["role"] == "assistant"]
        return refusal(400, "too long") if assistant and assistant[0].startswith("1: ") else scripts(number, body)

    with serving(answer) as server:
        (episode,) = played(server, config(attempts=4))
    (broken,) = [trace for trace in episode.traces if not trace.ok]
    whole = [trace for trace in episode.traces if trace.ok]
    assert not episode.ok and broken.rewards == {} and "too long" in broken.errors[0].message
    assert len(whole) == 3 and sum(rewards(trace)[1] for trace in whole) == 0.0  # one in three has looked


def test_a_limit_of_the_player_ends_an_attempt_without_an_answer() -> None:
    with serving(Scripts([[LOOK, r"\boxed{A}"]])) as server:
        (episode,) = played(server, config(player={"max_turns": 1}))
    assert episode.ok and rewards(episode.traces[0]) == [0.0, 0.0, 0.0]


def test_media_that_cannot_be_decoded_are_an_error_of_the_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        raise MediaError("gone")

    monkeypatch.setattr(PixelReasonEnv, "reset", broken)
    with serving(Scripts([])) as server:
        (episode,) = played(server, config(attempts=2))
    assert not episode.ok and "gone" in episode.last_error.message and server.bodies == []


def test_mistakes_are_told(tmp_path: Path) -> None:
    line = {"question": "Which?", "answer": "A", "choices": ["A", "B"], "image": "a.png"}
    (tmp_path / "mine.jsonl").write_text(json.dumps(line) + "\n")
    settings = {"preset": "micro", "tasks": f"jsonl:{tmp_path / 'mine.jsonl'}"}
    with pytest.raises(ValueError, match="expected num_tasks of at most 1, got 2"):
        list(vf.load_environment(config(taskset={"num_tasks": 2, "settings": settings})).taskset)
    with pytest.raises(ValueError, match="attempts"):
        config(attempts=0)


def test_the_script_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with serving(lambda n, body: completion(LOOK if len(images(body)) == 1 else r"\boxed{A}")) as server:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), "served-model", server.url])
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert server.most_running > 1 and server.bodies[0]["temperature"] == 1.0
    assert "'curiosity': 0.0" in capsys.readouterr().out
    assert len(load_jsonl(tmp_path / "played.jsonl")) == 4 * 8
