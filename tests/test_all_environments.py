"""What must hold for every registered id."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env, data_equivalence

import pixel_env
from pixel_env.registration import ENVIRONMENTS, register_environments

IDS = list(ENVIRONMENTS)
every_id = pytest.mark.parametrize("env_id", IDS)


def make(env_id: str, **kwargs: Any) -> gym.Env[Any, str]:
    return gym.make(env_id, **({"preset": "micro"} | kwargs))


def layers(env: gym.Env[Any, Any]) -> list[str]:
    names = [type(env).__name__]
    while isinstance(env, gym.Wrapper):
        env = env.env
        names.append(type(env).__name__)
    return names


def play(env: gym.Env[Any, str], seed: int, turns: int = 30) -> list[Any]:
    """Everything an environment returns over some episodes of sampled actions."""
    env.action_space.seed(seed)
    record: list[Any] = [env.reset(seed=seed)]
    for _ in range(turns):
        record.append(env.step(env.action_space.sample()))
        assert record[-1][0] in env.observation_space
        assert record[-1][0]["text"].count("<image>") == len(record[-1][0]["images"])
        if record[-1][2] or record[-1][3]:
            record.append(env.reset())
    return record


@every_id
def test_check_env(env_id: str) -> None:
    with make(env_id) as env:
        check_env(env.unwrapped)  # warnings are errors


@every_id
def test_check_env_standard(env_id: str) -> None:
    with gym.make(env_id) as env:
        check_env(env.unwrapped)


@every_id
def test_two_wrapped_instances_agree_to_the_byte(env_id: str) -> None:
    with make(env_id) as one, make(env_id) as two:
        play(two, seed=1, turns=12)  # statistics of the past are cleared by the seeded reset
        for left, right in zip(play(one, seed=0), play(two, seed=0), strict=True):
            assert data_equivalence(left, right, exact=True)


@every_id
def test_the_kinds_of_media_and_suites(env_id: str) -> None:
    with make(env_id) as env:
        suites = {env.reset(options={"task": index})[1]["suite"] for index in range(8)}
    assert suites == set(ENVIRONMENTS[env_id]["suite"])


@every_id
def test_spec_survives_json_and_make_does_not_wrap_twice(env_id: str) -> None:
    with make(env_id, max_turns=3) as env:
        spec = env.spec
        assert spec is not None
        assert layers(env) == [
            "CuriosityReward", "OperationPenalty", "OrderEnforcing", "PassiveEnvChecker", "PixelReasonEnv",
        ]  # fmt: skip
        copy = EnvSpec.from_json(spec.to_json())
        assert copy == spec
        for again in (gym.make(spec), gym.make(copy)):
            assert layers(again) == layers(env)
            assert again.unwrapped.view_settings == env.unwrapped.view_settings  # type: ignore[attr-defined]
            again.close()
    json.loads(gym.spec(env_id).to_json())


def test_registration_is_idempotent() -> None:
    before = [gym.spec(env_id) for env_id in IDS]
    register_environments()
    assert [gym.spec(env_id) for env_id in IDS] == before


def test_make_imports_the_package_by_itself() -> None:
    code = "import gymnasium; gymnasium.make('pixel_env:PixelReason-Zoom-v0').close()"
    root = Path(pixel_env.__file__).parents[1]
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=root, check=True)


def test_reward_constants_reach_the_wrappers() -> None:
    with make("PixelReason-Zoom-v0", alpha=0.1, beta=0.2, threshold=0.4, limit=2, reward_variant="released") as env:
        assert [env.get_wrapper_attr(name) for name in ("alpha", "beta", "threshold", "limit", "variant")] == [
            0.1, 0.2, 0.4, 2, "released",
        ]  # fmt: skip


def actions(count: int) -> list[tuple[str, ...]]:
    turns = ["crop_image([0, 0, 50, 50])", "select_frames([1, 5])", "é 图", r"\boxed{A}", "next", "crop_image([9])"]
    return [tuple(turns[(turn + env) % len(turns)] for env in range(count)) for turn in range(6)]


def vector_record(vector: gym.vector.VectorEnv[Any, Any, Any], count: int) -> list[Any]:
    try:
        record: list[Any] = [vector.reset(seed=5)[0]]
        for turn in actions(count):
            observation, reward, terminated, truncated, _ = vector.step(turn)
            record.append((observation, reward, terminated, truncated))
        return record
    finally:
        vector.close()


@pytest.mark.parametrize("turn", ["crop_image([10, 10, 60, 60])", "select_frames([3, 11])"])
def test_what_info_holds_is_small(turn: str) -> None:
    """A vector environment pickles it, and pictures go through shared memory: a view says only where it lies."""
    env = gym.make("PixelReason-Mixed-v0", suite="clip", preset="micro")
    env.reset(seed=0)
    observation, *_, info = env.step(turn)
    assert observation["images"] and len(info["views"]) == len(observation["images"])
    assert len(pickle.dumps(info)) < 2000


def test_vector_environments_agree_with_and_without_shared_memory() -> None:
    def makers() -> list[Any]:
        return [lambda env_id=env_id: make(env_id) for env_id in ("PixelReason-Mixed-v0",) * 2]

    sync = vector_record(gym.vector.SyncVectorEnv(makers()), 2)
    assert [text.count("<image>") for text in sync[0]["text"]] == [len(images) for images in sync[0]["images"]]
    for shared_memory in (True, False):
        vector = gym.vector.AsyncVectorEnv(makers(), shared_memory=shared_memory, context="spawn")
        assert data_equivalence(sync, vector_record(vector, 2), exact=True)


def test_make_vec_and_sampled_actions() -> None:
    vector = gym.make_vec("PixelReason-Mixed-v0", num_envs=2, vectorization_mode="sync", preset="micro")
    vector.action_space.seed(0)
    observation, _ = vector.reset(seed=0)
    for _ in range(5):
        observation, *_ = vector.step(vector.action_space.sample())
        assert len(observation["text"]) == len(observation["images"]) == 2
    vector.close()


@every_id
def test_rgb_array_frames_have_one_shape(env_id: str) -> None:
    with make(env_id, render_mode="rgb_array") as env:
        env.action_space.seed(0)
        env.reset(seed=0)
        shapes = set()
        for _ in range(8):
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            shapes.add(np.asarray(env.render()).shape)
            if terminated or truncated:
                env.reset()
    assert shapes == {(544, 960, 3)}


def test_record_video_writes_a_file(tmp_path: Path) -> None:
    env = make("PixelReason-Zoom-v0", render_mode="rgb_array")
    env = gym.wrappers.RecordVideo(env, str(tmp_path / "video"), episode_trigger=lambda episode: True)
    env.reset(seed=0)
    for turn in ("crop_image([0, 0, 50, 50])", r"\boxed{A}"):
        env.step(turn)
    env.close()
    assert [path.name for path in (tmp_path / "video").iterdir()] == ["rl-video-episode-0.mp4"]
