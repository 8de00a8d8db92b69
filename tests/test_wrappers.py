"""Reward wrappers, groups of one task, and records."""

import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from fakes import image_task, tasks, video_task

from pixel_env import PixelReasonEnv
from pixel_env.trajectory import load_jsonl, replay
from pixel_env.wrappers import CuriosityReward, OperationPenalty, RecordTrajectories, RepeatTask

CROP, BAD, ANSWER, WRONG = "crop_image([0, 0, 50, 50])", "crop_image([5, 5, 5, 5])", r"\boxed{B}", r"\boxed{A}"
MANY = tasks(*(image_task(task_id=f"image-{index}") for index in range(50)))


def bare(**kwargs: Any) -> PixelReasonEnv:
    return PixelReasonEnv(**({"tasks": MANY, "preset": "micro"} | kwargs))


def play(
    env: gym.Env[Any, str], *turns: str, seed: int | None = None, task: int | None = 0
) -> tuple[float, dict[str, Any]]:
    """Play one episode; return the sum of its rewards and the last info."""
    env.reset(seed=seed, options=None if task is None else {"task": task})
    total = 0.0
    for turn in turns:
        _, reward, terminated, truncated, info = env.step(turn)
        total += float(reward)
    assert terminated or truncated
    assert total == pytest.approx(sum(info["reward_terms"].values()))  # nothing is paid before the end
    return total, info


@pytest.mark.parametrize(
    ("turns", "penalty"),
    [
        ((ANSWER,), 0.0),
        ((CROP, ANSWER), 0.0),
        ((CROP, CROP, ANSWER), -0.05),
        ((CROP, BAD, CROP, ANSWER), -0.1),  # a failed call costs too
        (("hm", "hm", "hm", ANSWER), 0.0),  # words are no call
        ((CROP, CROP, CROP, CROP, CROP), -0.2),  # truncated
    ],
)
def test_operation_penalty(turns: tuple[str, ...], penalty: float) -> None:
    _, info = play(OperationPenalty(bare()), *turns)
    assert info["reward_terms"]["operation_penalty"] == pytest.approx(penalty)


def test_operation_penalty_takes_its_constants_from_the_environment_or_its_arguments() -> None:
    assert play(OperationPenalty(bare(beta=0.5, limit=0)), CROP, ANSWER)[0] == pytest.approx(0.5)
    assert play(OperationPenalty(bare(beta=0.5, limit=0), beta=0.1, limit=0), CROP, ANSWER)[0] == pytest.approx(0.9)


@pytest.mark.parametrize(("users", "bonus"), [(1, 0.0875), (2, 0.025), (3, 0.0)])
def test_curiosity_at_the_last_response_of_a_group_is_the_papers(users: int, bonus: float) -> None:
    env = CuriosityReward(bare())
    for _ in range(8 - users):
        play(env, WRONG)
    for _ in range(users):
        _, info = play(env, CROP, WRONG)
    assert info["rapr"] == users / 8
    assert info["reward_terms"]["curiosity"] == pytest.approx(bonus)


@pytest.mark.parametrize(("task", "bonus"), [(0, 0.175), (1, 0.7 / 3)])
def test_the_released_variant_depends_on_the_medium(task: int, bonus: float) -> None:
    env = CuriosityReward(bare(tasks=tasks(image_task(), video_task()), reward_variant="released"))
    for _ in range(7):
        play(env, WRONG, task=task)
    _, info = play(env, CROP, WRONG, task=task)
    assert info["reward_terms"]["curiosity"] == pytest.approx(bonus)


def test_failed_operations_count_only_when_asked_for() -> None:
    for count_failed, rate in ((False, 0.0), (True, 1 / 8)):
        env = CuriosityReward(bare(), count_failed=count_failed)
        for _ in range(7):
            play(env, WRONG)
        assert play(env, BAD, WRONG)[1]["rapr"] == rate


def test_rapr_is_taken_over_the_same_task_or_over_all() -> None:
    for over, rate in (("task", 1.0), ("all", 0.25)):
        env = CuriosityReward(bare(), over=over)  # type: ignore[arg-type]
        for task in (1, 2, 3):
            play(env, WRONG, task=task)
        assert play(env, CROP, WRONG, task=0)[1]["rapr"] == rate


def test_only_the_last_group_counts() -> None:
    env = CuriosityReward(bare(), group_size=2)
    for _ in range(3):
        play(env, CROP, WRONG)
    play(env, WRONG)
    assert play(env, WRONG)[1]["rapr"] == 0.0


def test_a_seeded_reset_forgets() -> None:
    env = CuriosityReward(bare())
    for _ in range(7):
        play(env, WRONG)
    assert play(env, CROP, WRONG, seed=3)[1]["rapr"] == 1.0


def test_rapr_is_unknown_before_the_end() -> None:
    env = CuriosityReward(bare())
    env.reset(seed=0)
    *_, info = env.step(CROP)
    assert info["rapr"] is None and info["reward_terms"] == {"correctness": 0.0, "curiosity": 0.0}


def test_repeat_task_plays_each_task_g_times() -> None:
    env = RepeatTask(bare(), group_size=3)
    ids = [env.reset(seed=0 if index == 0 else None)[1]["task_id"] for index in range(9)]
    assert ids[0] == ids[1] == ids[2] != ids[3] == ids[4] == ids[5] != ids[6] == ids[8]
    single = bare()  # the tasks are those that the environment would draw by itself
    assert ids[::3] == [single.reset(seed=0 if index == 0 else None)[1]["task_id"] for index in range(3)]


def test_repeat_task_begins_anew_with_a_seed_or_a_named_task() -> None:
    env = RepeatTask(bare(), group_size=3)
    env.reset(seed=0)
    assert [env.reset(options={"task": 7})[1]["task_id"]] + [env.reset()[1]["task_id"] for _ in range(2)] == [
        "image-7"
    ] * 3
    assert env.reset()[1]["task_id"] != "image-7"


def test_repeat_task_and_curiosity_give_the_papers_reward() -> None:
    env = RepeatTask(CuriosityReward(bare()), group_size=8)
    rates = [play(env, *turns, task=None)[1]["rapr"] for turns in [(WRONG,)] * 7 + [(CROP, WRONG)]]
    assert rates[-1] == 1 / 8


@pytest.mark.parametrize(
    ("wrapper", "kwargs", "error", "message"),
    [
        (OperationPenalty, {"beta": -1}, ValueError, "expected beta finite"),
        (OperationPenalty, {"limit": 0.5}, TypeError, "expected limit as an int"),
        (CuriosityReward, {"alpha": "0.5"}, TypeError, "expected alpha as a number"),
        (CuriosityReward, {"threshold": 2}, ValueError, "expected threshold"),
        (CuriosityReward, {"variant": "mine"}, ValueError, "expected variant"),
        (CuriosityReward, {"group_size": 0}, ValueError, "expected group_size of at least 1"),
        (CuriosityReward, {"over": "batch"}, ValueError, "expected over to be one of 'task', 'all'"),
        (RepeatTask, {"group_size": 0}, ValueError, "expected group_size of at least 1"),
        (RecordTrajectories, {"path": "/nowhere/there/x.jsonl"}, ValueError, "make the folder first"),
    ],
)
def test_wrong_arguments(wrapper: Any, kwargs: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        wrapper(bare(), **kwargs)


def test_reward_wrappers_need_this_environment() -> None:
    with pytest.raises(TypeError, match="expected a PixelReasonEnv inside, got CartPoleEnv"):
        CuriosityReward(gym.make("CartPole-v1"))  # type: ignore[arg-type]


def test_wrappers_can_be_pickled_with_their_statistics() -> None:
    env = CuriosityReward(bare())
    for _ in range(3):
        play(env, WRONG)
    assert play(pickle.loads(pickle.dumps(env)), CROP, WRONG)[1]["rapr"] == 0.25


def test_recorded_trajectories_replay(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    with RecordTrajectories(gym.make("PixelReason-Zoom-v0", preset="micro"), path) as env:
        play(env, CROP, CROP, ANSWER, seed=5)
        env.reset(seed=6)  # not finished: dropped
        play(env, "hm", BAD, WRONG, seed=7)
    first, second = load_jsonl(path)
    assert (first.seed, first.num_operations, second.seed, second.num_errors) == (5, 2, 7, 1)
    assert replay(first) == first and replay(second) == second
