"""Scorers in an episode and after it: regrading equals having played with the other scorer."""

import dataclasses
import importlib.util

import gymnasium as gym
import pytest
from fakes import image_task, tasks, video_task

from pixel_env import PixelReasonEnv
from pixel_env.policies import DirectPolicy, RandomPolicy
from pixel_env.rollout import Episode, rollout
from pixel_env.scorers import SCORERS, Scorer, check_scorer, grade_episode, regrade
from pixel_env.tasks import ProceduralTasks
from pixel_env.trajectory import Trajectory, replay

MIXED = "PixelReason-Mixed-v0"
TASKS = ProceduralTasks(preset="micro")
needs_math_verify = pytest.mark.skipif(not importlib.util.find_spec("math_verify"), reason="needs math-verify")


def played(scorer: str, **kwargs: object) -> list[Trajectory]:
    policies = (RandomPolicy(seed=3), DirectPolicy(seed=3))
    return [
        trajectory
        for policy in policies
        for trajectory in rollout(policy, MIXED, range(12), preset="micro", scorer=scorer, progress=False, **kwargs)
    ]


@needs_math_verify
def test_regrading_equals_playing_with_the_other_scorer() -> None:
    strict, released = played("strict"), played("pixelreasoner_compat")
    assert regrade(strict, TASKS, "pixelreasoner_compat") == released
    assert regrade(released, TASKS, "strict") == strict
    assert [replay(trajectory) for trajectory in released[:4]] == released[:4]
    assert [t.parse_failure for t in strict] != [t.parse_failure for t in released]  # they do differ


def test_regrading_with_the_same_scorer_changes_nothing() -> None:
    strict = played("strict")
    assert regrade(strict, TASKS, "strict") == strict


@needs_math_verify
def test_the_two_scorers_in_an_episode() -> None:
    three = tasks(video_task(answers=("3",)))
    for scorer, answer, reward in [
        ("strict", r"\boxed{three}", 1.0),
        ("pixelreasoner_compat", r"\boxed{three}", 0.0),  # no number words
        ("strict", r"\boxed{3 or 4}", 0.0),
        ("pixelreasoner_compat", r"\boxed{6/2}", 1.0),  # arithmetic
    ]:
        env = PixelReasonEnv(tasks=three, scorer=scorer, preset="micro")
        env.reset()
        _, got, terminated, _, info = env.step(answer)
        assert (got, terminated, info["correct"]) == (reward, True, bool(reward))


@needs_math_verify
def test_the_released_scorer_grades_an_episode_without_an_answer() -> None:
    three = tasks(video_task(answers=("3",)))
    for scorer, correct in (("strict", False), ("pixelreasoner_compat", True)):
        env = PixelReasonEnv(tasks=three, scorer=scorer, max_turns=2, preset="micro")
        env.reset()
        *_, info = env.step("I see 3")
        assert info["correct"] is None  # not before the end
        _, reward, terminated, truncated, info = env.step("yes")
        assert (reward, terminated, truncated) == (float(correct), False, True)
        assert (info["correct"], info["answer"]) == (correct, None)


def test_episodes_that_broke_off_keep_their_grades() -> None:
    [done] = rollout(DirectPolicy(), MIXED, [0], preset="micro", progress=False)
    broken = dataclasses.replace(done, error="TimeoutError: no reply", correct=True)
    open_ended = dataclasses.replace(done, terminated=False, correct=True)
    for trajectory in (broken, open_ended):
        [again] = regrade([trajectory], TASKS, "strict")
        assert dataclasses.replace(again, env_kwargs=trajectory.env_kwargs) == trajectory


def test_a_turn_that_shaping_paid_keeps_its_other_terms() -> None:
    [done] = rollout(DirectPolicy(), MIXED, [0], preset="micro", progress=False)
    terms = {"correctness": 1.0 - done.turns[-1].reward_terms["correctness"], "curiosity": 0.0875}
    last = dataclasses.replace(done.turns[-1], reward_terms=terms, reward=sum(terms.values()))
    [again] = regrade([dataclasses.replace(done, turns=(last,))], TASKS, "strict")
    assert again.turns[0].reward == done.turns[-1].reward_terms["correctness"] + 0.0875


def test_strict_without_an_answer() -> None:
    assert grade_episode("strict", video_task(), None, ["3"]) is None


def test_unknown_scorers_and_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match="expected scorer to be one of 'strict', 'pixelreasoner_compat', got 'lenient'"
    ):
        gym.make(MIXED, preset="micro", scorer="lenient")
    [done] = rollout(DirectPolicy(), MIXED, [0], preset="micro", progress=False)
    with pytest.raises(ValueError, match="no task"):
        regrade([done], tasks(video_task()), "strict")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="math-verify"):
        check_scorer("pixelreasoner_compat")


def test_an_episode_keeps_the_scorer_in_its_record() -> None:
    episode = Episode(gym.make(MIXED, preset="micro", scorer="strict"))
    episode.reset(0, seed=0)
    episode.step(r"\boxed{A}")
    assert episode.trajectory().env_kwargs["scorer"] == "strict"


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_task_without_answers_is_not_scored_by_either(scorer: Scorer) -> None:
    open_task = dataclasses.replace(image_task(), answers=())
    assert grade_episode(scorer, open_task, "B", [r"\boxed{B}"]) is None
