"""Reference policies: the oracle solves every suite, the others are as good as chance."""

from dataclasses import replace
from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest

from pixel_env.actions import Answer, CropImage, Malformed, SelectFrames, parse
from pixel_env.evaluation import evaluate
from pixel_env.policies import DirectPolicy, GridPolicy, OraclePolicy, RandomPolicy, gold
from pixel_env.rollout import Conversation, Episode, rollout
from pixel_env.tasks import SUITES, ProceduralTasks

MIXED = "PixelReason-Mixed-v0"


def conversation(suite: str, index: int = 0, **kwargs: object) -> Conversation:
    episode = Episode(gym.make(MIXED, suite=suite, preset="micro", **kwargs))
    episode.reset(index, seed=0)
    return episode.conversation


def samples(asked: Conversation, count: int) -> list[Conversation]:
    """The beginning of as many episodes of one task."""
    return [replace(asked, seed=seed) for seed in range(count)]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("suite", SUITES)
def test_oracle_solves_every_suite(suite: str, split: str) -> None:
    tasks = ProceduralTasks((suite,), split=split, preset="micro")
    played = rollout(OraclePolicy(tasks), MIXED, range(40), suite=suite, split=split, preset="micro", progress=False)
    summary = evaluate(played).overall
    assert summary.accuracy is not None and summary.accuracy.mean >= 0.95
    assert summary.operation_error_rate == 0.0
    assert summary.rapr_needed == 1.0
    assert summary.mean_operations is not None and 0.5 < summary.mean_operations < 1.0  # some tasks need no operation
    assert summary.cue_coverage == pytest.approx(1.0)


@pytest.mark.parametrize("coordinates", ["fraction", "thousandth"])
def test_oracle_in_other_coordinates(coordinates: str) -> None:
    tasks = ProceduralTasks(preset="micro")
    policy = OraclePolicy(tasks, coordinates)
    played = rollout(policy, MIXED, range(16), coordinates=coordinates, preset="micro", progress=False)
    assert all(trajectory.correct and trajectory.num_errors == 0 for trajectory in played)
    assert all(trajectory.cue_coverage == pytest.approx(1.0) for trajectory in played if trajectory.used_operation)


def test_oracle_finds_the_frames_of_a_video_shown_in_part() -> None:
    tasks = ProceduralTasks(("clip",), preset="micro")
    wanted = next(index for index in range(20) if tasks[index].needs_operation)
    turn = OraclePolicy(tasks).act([conversation("clip", wanted, num_frames=4)])[0]
    action = parse(turn)
    assert isinstance(action, SelectFrames) and action.frames and max(action.frames) < 4


def test_gold_of_each_kind() -> None:
    task = ProceduralTasks(("search",), preset="micro")[0]
    assert task.choices[ord(gold(task)) - ord("A")] == task.answers[0]
    task = ProceduralTasks(("count",), preset="micro")[0]
    assert gold(task) == task.answers[0]


def test_direct_policy_fits_the_question() -> None:
    policy = DirectPolicy(seed=0)
    letters = set(policy.act(samples(conversation("search"), 60)))
    number = ProceduralTasks(("search",), preset="micro")[0]
    assert letters == {f"\\boxed{{{chr(ord('A') + k)}}}" for k in range(len(number.choices))}
    guesses = [parse(policy.guess(asked)) for asked in samples(conversation("count"), 60)]
    assert all(isinstance(guess, Answer) and 0 <= int(guess.text) <= 10 for guess in guesses)
    assert len(set(guesses)) > 5


def test_direct_policy_is_seeded() -> None:
    asked = samples(conversation("search"), 20)
    assert DirectPolicy(3).act(asked) == DirectPolicy(3).act(asked)
    assert DirectPolicy(3).act(asked) != DirectPolicy(4).act(asked)


def test_random_policy_says_everything() -> None:
    asked = samples(conversation("search"), 200)
    turns = RandomPolicy(seed=0).act(asked)
    kinds = {type(parse(turn)) for turn in turns}
    assert kinds == {CropImage, SelectFrames, Answer, Malformed}
    assert turns == RandomPolicy(seed=0).act(asked)


@pytest.mark.parametrize("policy", [RandomPolicy, DirectPolicy])
def test_a_turn_depends_on_its_own_episode_only(policy: type[RandomPolicy] | type[DirectPolicy]) -> None:
    asked = samples(conversation("search"), 30)
    later = [replace(one, actions=["crop_image([1, 2, 30, 40])"]) for one in asked]
    together = policy(seed=5).act(asked)
    assert len(set(together)) > 1 and together != policy(seed=5).act(later)
    alone = policy(seed=5)
    assert [alone.act([one])[0] for one in reversed(asked)] == together[::-1]


def test_without_a_seed_no_two_samples_are_the_same_stream() -> None:
    asked = replace(conversation("count"), seed=None)
    assert len(set(DirectPolicy(seed=0).act([asked] * 60))) > 5


def test_random_policy_stays_on_the_image_in_fractions() -> None:
    asked = samples(conversation("search", coordinates="fraction"), 200)
    turns = RandomPolicy(seed=0, coordinates="fraction").act(asked)
    boxes = [action.bbox for action in map(parse, turns) if isinstance(action, CropImage)]
    drawn = [box for box in boxes if max(box) <= 1]  # junk has boxes of its own
    assert len(drawn) > 40


@pytest.mark.parametrize("coordinates", ["pixel", "fraction", "thousandth"])
def test_grid_policy_covers_the_image(coordinates: str) -> None:
    played = rollout(
        GridPolicy(coordinates=coordinates),
        MIXED,
        [0],
        suite="search",
        coordinates=coordinates,
        preset="micro",
        progress=False,
    )[0]
    boxes = [
        action.bbox for action in map(parse, (turn.action for turn in played.turns)) if isinstance(action, CropImage)
    ]
    assert (len(boxes), played.num_errors, played.terminated) == (4, 0, True)
    area = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in boxes)
    whole = max(box[2] for box in boxes) * max(box[3] for box in boxes)
    assert area == pytest.approx(whole, rel=0.05)  # four quarters, rounded outwards
    assert all(a != b for a, b in pairwise(boxes))


def test_grid_policy_covers_the_video() -> None:
    played = rollout(GridPolicy(), MIXED, [0], suite="clip", preset="micro", progress=False)[0]
    actions = [parse(turn.action) for turn in played.turns]
    frames = [frame for action in actions if isinstance(action, SelectFrames) for frame in action.frames]
    assert frames == list(range(16))
    assert played.num_errors == 0


def test_direct_policy_is_no_better_than_chance() -> None:
    played = rollout(DirectPolicy(seed=0), MIXED, range(200), suite="search", preset="micro", progress=False)
    tasks = ProceduralTasks(("search",), preset="micro")
    chance = np.mean([1 / len(tasks[index].choices) for index in range(200)])
    accuracy = evaluate(played).overall.accuracy
    # Three standard errors: fails once in 370 changes of the generator.
    assert accuracy is not None and abs(accuracy.mean - chance) < 3 * np.sqrt(chance * (1 - chance) / 200)
