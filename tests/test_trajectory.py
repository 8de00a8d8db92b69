"""Trajectories: storage, replay, and the coverage of the cue."""

import dataclasses
import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import pixel_env
from agents.message_files import write_message_lists
from pixel_env.operations import View
from pixel_env.playback import Player
from pixel_env.policies import OraclePolicy, RandomPolicy
from pixel_env.rollout import Episode, rollout
from pixel_env.tasks import Cue, ProceduralTasks
from pixel_env.trajectory import Trajectory, Turn, cue_coverage, digest, load_jsonl, made_as, replay, save_jsonl

MIXED = "PixelReason-Mixed-v0"


@pytest.fixture(scope="module")
def trajectories() -> list[Trajectory]:
    return rollout(RandomPolicy(seed=1), MIXED, range(12), preset="micro", progress=False)


def test_storage_keeps_everything(trajectories: list[Trajectory], tmp_path: Path) -> None:
    save_jsonl(tmp_path / "all.jsonl", trajectories)
    assert load_jsonl(tmp_path / "all.jsonl") == trajectories


def test_storage_keeps_any_text_a_policy_may_write(trajectories: list[Trajectory], tmp_path: Path) -> None:
    texts = ("\n\r\u2028\x00", "Ünïcödé 图像 \U0001f50d", "\ud800 alone", '"quotes" \\ {}')
    turn = trajectories[0].turns[0]
    odd = dataclasses.replace(
        trajectories[0], turns=tuple(dataclasses.replace(turn, action=text) for text in texts), answer=texts[2]
    )
    save_jsonl(tmp_path / "odd.jsonl", [odd, odd])
    assert load_jsonl(tmp_path / "odd.jsonl") == [odd, odd]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "Expecting value"),  # an empty line
        ("{", "Expecting"),  # cut off
        ("[]", "a JSON object with turns"),  # not an object
        ("[" * 100_000, "nested too deeply"),  # would exhaust the stack of the reader
        ('{"turns": [{}]}', "fields of a trajectory: 'image_digests'"),  # a turn without fields
        ('{"turns": [], "first_digests": [], "colour": 1}', "unexpected keyword argument 'colour'"),  # unknown field
        ('{"turns": [], "first_digests": []}', "missing .* required keyword-only arguments"),  # missing fields
    ],
)
def test_loading_names_the_file_and_the_line(
    trajectories: list[Trajectory], tmp_path: Path, line: str, reason: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(trajectories[0].to_json() + "\n" + line + "\n")
    with pytest.raises(ValueError, match=rf"bad\.jsonl:2: .*{reason}"):
        load_jsonl(path)


def test_replay_is_exact(trajectories: list[Trajectory]) -> None:
    for trajectory in trajectories:
        assert replay(trajectory) == trajectory


def test_replay_after_storage_with_every_argument_changed(tmp_path: Path) -> None:
    kwargs = {"suite": ("clip", "read"), "difficulty": (1, 3), "coordinates": "thousandth", "crop_padding": 0.1}
    policy = RandomPolicy(seed=2, coordinates="thousandth")
    played = rollout(
        policy, MIXED, [3, 4], preset="micro", split="test", beta=0.2, max_turns=3, progress=False, **kwargs
    )
    save_jsonl(tmp_path / "t.jsonl", played)
    assert [replay(trajectory) for trajectory in load_jsonl(tmp_path / "t.jsonl")] == played


def test_replay_keeps_what_the_environment_does_not_know(trajectories: list[Trajectory]) -> None:
    turns = tuple(dataclasses.replace(turn, trained=False) for turn in trajectories[0].turns)
    demonstration = dataclasses.replace(trajectories[0], kind="recrop_once", turns=turns)
    assert replay(demonstration) == demonstration


def test_replay_notices_a_difference(trajectories: list[Trajectory]) -> None:
    first = trajectories[0]
    for changed in (
        dataclasses.replace(first, first_digests=("0" * 16,)),
        dataclasses.replace(first, turns=(dataclasses.replace(first.turns[0], reward=0.25), *first.turns[1:])),
        dataclasses.replace(first, turns=(dataclasses.replace(first.turns[0], observation="?"), *first.turns[1:])),
    ):
        assert replay(changed) != changed


def test_replay_of_given_tasks_needs_the_environment() -> None:
    tasks = ProceduralTasks(("search",), preset="micro", seed=7)
    [played] = rollout(OraclePolicy(tasks), MIXED, [5], tasks=tasks, preset="micro", progress=False)
    assert played.env_kwargs["tasks"] == "ProceduralTasks"
    with pytest.raises(ValueError, match="pass the same one as `env`"):
        replay(played)
    assert replay(played, gym.make(MIXED, tasks=tasks, preset="micro")) == played


def test_replay_of_an_environment_without_an_id() -> None:
    env = pixel_env.PixelReasonEnv(preset="micro")
    episode = Episode(env)
    episode.reset(0, seed=0)
    episode.step(r"\boxed{A}")
    played = episode.trajectory()
    assert (played.env_id, played.env_kwargs) == ("", {})
    with pytest.raises(ValueError, match="pass the same one as `env`"):
        replay(played)
    assert replay(played, env) == played


@pytest.mark.parametrize("env_id", ["a_module_of_a_stranger:Foo-v0", "CartPole-v1", "PixelReason-Zoom-v1"])
def test_a_trajectory_of_a_stranger_imports_and_makes_nothing(
    trajectories: list[Trajectory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env_id: str
) -> None:
    (tmp_path / "a_module_of_a_stranger.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    foreign = Trajectory.from_json(dataclasses.replace(trajectories[0], env_id=env_id).to_json())
    made = "expected an environment of PixelReason-Zoom-v0, .*; pass the same one as `env`"
    for make in (made_as, replay, lambda t: write_message_lists([t], tmp_path / "lists")):
        with pytest.raises(ValueError, match=made):
            make(foreign)
    assert Player().play(foreign).problem.startswith("cannot be played again: ValueError: expected an environment of ")
    env = gym.make(MIXED, preset="micro")
    assert replay(foreign, env).turns == foreign.turns  # one's own is asked for by name of nobody


def test_a_trajectory_says_what_happened() -> None:
    env = gym.make(MIXED, preset="micro", max_turns=4)
    episode = Episode(env)
    episode.reset("search-1-micro-train-0-0", seed=3)
    assert not episode.step("Hm.")
    assert not episode.step("crop_image([50, 50, 20, 20])")
    assert not episode.step("So crop_image([20, 20, 50, 50])")
    assert episode.step(r"\boxed{nothing like it}")
    played = episode.trajectory()
    assert (played.env_id, played.task_id, played.suite, played.seed) == (
        MIXED,
        "search-1-micro-train-0-0",
        "search",
        3,
    )
    assert [turn.malformed for turn in played.turns] == [True, False, False, False]
    assert [turn.operation for turn in played.turns] == [None, "crop_image", "crop_image", None]
    assert [turn.operation_error for turn in played.turns] == [None, "inverted_box", None, None]
    assert [len(turn.image_digests) for turn in played.turns] == [0, 0, 1, 0]
    assert (played.num_operations, played.num_errors, played.used_operation) == (2, 1, True)
    assert (played.answer, played.parse_failure, played.correct, played.score) == ("nothing like it", True, False, 0.0)
    assert (played.terminated, played.truncated, played.error) == (True, False, None)
    assert played.turns[-1].reward_terms == {"correctness": 0.0, "operation_penalty": -0.05, "curiosity": 0.0}
    assert played.episode_return == pytest.approx(-0.05)
    assert json.loads(played.to_json())["turns"][2]["action"] == "So crop_image([20, 20, 50, 50])"


def test_used_operation_needs_one_that_succeeded(trajectories: list[Trajectory]) -> None:
    for operations, errors, used in ((0, 0, False), (2, 2, False), (2, 1, True)):
        changed = dataclasses.replace(trajectories[0], num_operations=operations, num_errors=errors)
        assert changed.used_operation == used


def test_digest_depends_on_pixels_and_shape() -> None:
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert digest(image) == digest(image.copy())
    assert digest(image) == digest(np.asfortranarray(image))  # the layout in memory does not matter
    assert digest(image) != digest(image.reshape(3, 2, 3))
    assert digest(image) != digest(image + np.uint8(1))
    assert digest(image) == "3a1e9e38cc037b3a"  # pinned: golden files of other machines hold such digests


def shot(frame: int, *region: float) -> View:
    return View(frame, region, (28, 28))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cue", "views", "share"),
    [
        (Cue((10, 10, 20, 20)), [], 0.0),  # nothing was shown
        (Cue((10, 10, 20, 20)), [shot(0, 0, 0, 30, 30)], 1.0),  # all of it
        (Cue((10, 10, 20, 20)), [shot(0, 15, 0, 30, 30)], 0.5),  # the right half
        (Cue((10, 10, 20, 20)), [shot(0, 15, 15, 30, 30)], 0.25),  # a quarter
        (Cue((10, 10, 20, 20)), [shot(0, 20, 10, 30, 20)], 0.0),  # touching is not overlapping
        (Cue((10, 10, 20, 20)), [shot(0, 15, 0, 30, 30), shot(0, 0, 0, 15, 30)], 0.5),  # the best view, not the union
        (Cue(frames=(2, 3)), [shot(2, 0, 0, 9, 9)], 0.5),  # one of two frames
        (
            Cue(frames=(2, 3)),
            [shot(2, 0, 0, 9, 9), shot(3, 0, 0, 9, 9), shot(5, 0, 0, 9, 9)],
            1.0,
        ),  # and a needless one
        (Cue((0, 0, 4, 4), (2, 3)), [shot(2, 0, 0, 2, 4), shot(3, 0, 0, 4, 4)], 0.75),  # a box in frames: half and all
        (Cue((0, 0, 4, 4), (2,)), [shot(1, 0, 0, 4, 4)], 0.0),  # the right box of the wrong frame
    ],
)
def test_cue_coverage_by_hand(cue: Cue, views: list[View], share: float) -> None:
    assert cue_coverage(cue, views) == pytest.approx(share)


def test_turns_are_trained_unless_said_otherwise() -> None:
    assert Turn("a", "", (), 0.0, {}, None, None, False).trained
