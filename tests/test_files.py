"""One call for all formats; environments, trajectories and submissions over files."""

import dataclasses
import json
import pickle
from pathlib import Path

import gymnasium as gym
import pytest
from fakes import image_task, tasks, video_task
from gymnasium.envs.registration import EnvSpec
from layouts import infographicvqa, mvbench, video_r1, vstar

from pixel_env.evaluation import evaluate
from pixel_env.grading import Grade, grade
from pixel_env.policies import DirectPolicy, OraclePolicy, gold
from pixel_env.rollout import rollout
from pixel_env.tasks import FORMATS, load_tasks, submission, tasks_from_spec
from pixel_env.trajectory import load_jsonl, replay, save_jsonl

ZOOM, FRAMES, MIXED = (f"PixelReason-{name}-v0" for name in ("Zoom", "Frames", "Mixed"))


class Scripted:
    def __init__(self, *actions: str) -> None:
        self.actions = actions

    def act(self, conversations):
        return [self.actions[len(conversation.actions)] for conversation in conversations]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("vstar", "expected tasks as 'NAME:PATH'"),
        ("vstar:", "expected tasks as 'NAME:PATH'"),
        ("vsta:/data", "expected the name of a format, one of vstar, hrbench, .*, got 'vsta'"),
        ("vstar:/no/such/place", "expected a folder for the media, got /no/such"),
    ],
)
def test_specs_that_are_none(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tasks_from_spec(spec)
    with pytest.raises(ValueError, match=message):
        gym.make(ZOOM, tasks=spec)


def test_a_set_is_opened_once_until_it_changes(tmp_path: Path) -> None:
    vstar(tmp_path)
    first = tasks_from_spec(f"vstar:{tmp_path}")
    assert tasks_from_spec(f"vstar:{tmp_path}") is first
    again = pickle.loads(pickle.dumps(first))
    assert [again[index] for index in range(3)] == [first[index] for index in range(3)]
    assert load_tasks("vstar", tmp_path, seed=1) is not first
    with pytest.raises(IndexError, match=r"task index must be in \[0, 3\), got 3"):
        first[3]
    for wrong in ({"seed": -1}, {"num_frames": 0}):
        with pytest.raises(ValueError, match=rf"expected {next(iter(wrong))} "):
            load_tasks("vstar", tmp_path, **wrong)


def test_a_table_that_is_written_again_is_read_again(tmp_path: Path) -> None:
    def write(count: int) -> None:
        lines = [json.dumps({"image": "a.png", "question": f"Which {'?' * k}", "answer": "1"}) for k in range(count)]
        (tmp_path / "own.jsonl").write_text("\n".join(lines))

    write(2)
    assert len(load_tasks("jsonl", tmp_path)) == 2
    write(3)  # in place: the folder itself does not change
    assert load_tasks("jsonl", tmp_path).fields("jsonl-2")["question"] == "Which ??"


def test_media_elsewhere(tmp_path: Path) -> None:
    vstar(tmp_path / "data")
    lines = tmp_path / "tables/test_questions.jsonl"
    lines.parent.mkdir()
    (tmp_path / "data/test_questions.jsonl").rename(lines)
    assert load_tasks("vstar", lines, root=tmp_path / "data")[0].media.width == 120


def test_an_environment_of_a_spec(tmp_path: Path) -> None:
    spec = f"vstar:{vstar(tmp_path)}"
    env = gym.make(ZOOM, tasks=spec)
    observation, info = env.reset(options={"task": "vstar-0"})
    assert "(C) rubber red" in observation["text"] and info["suite"] == "vstar/direct_attributes"
    assert env.step(r"\boxed{C}")[4]["correct"]
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.reset(options={"task": 0})[0]["text"] == observation["text"]
    assert pickle.loads(pickle.dumps(env.spec)).kwargs["tasks"] == spec


def test_ids_take_the_media_they_are_for(tmp_path: Path) -> None:
    mixed, clips = f"video-r1:{video_r1(tmp_path / 'r1')}", f"mvbench:{mvbench(tmp_path / 'mv')}"
    sizes = [len(gym.make(env_id, tasks=mixed).unwrapped.tasks) for env_id in (ZOOM, FRAMES, MIXED)]
    assert sizes == [2, 1, 3]
    assert len(gym.make(ZOOM, tasks=tasks_from_spec(mixed)).unwrapped.tasks) == 2
    with pytest.raises(
        ValueError, match=r"expected tasks about images, but mvbench at .* has none; use another env id"
    ):
        gym.make(ZOOM, tasks=clips)
    assert len(gym.make(FRAMES, tasks=clips).reset(options={"task": 0})[0]["images"]) == 16
    env = gym.make(FRAMES, tasks=tasks(video_task(), image_task()))
    env.reset(options={"task": 0})
    with pytest.raises(
        ValueError, match="expected a task about video, got 'image-0' about image; PixelReason-Mixed-v0"
    ):
        env.reset(options={"task": 1})


def test_trajectories_of_a_spec_play_again(tmp_path: Path) -> None:
    spec = f"vstar:{vstar(tmp_path)}"
    played = rollout(OraclePolicy(tasks_from_spec(spec)), ZOOM, range(3), tasks=spec, progress=False)
    assert [trajectory.correct for trajectory in played] == [True] * 3
    assert all(trajectory.env_kwargs["tasks"] == spec and trajectory.cue_coverage == 1 for trajectory in played)
    save_jsonl(tmp_path / "played.jsonl", played)
    assert [replay(trajectory) for trajectory in load_jsonl(tmp_path / "played.jsonl")] == played


def test_a_damaged_item_is_one_error(tmp_path: Path) -> None:
    vstar(tmp_path)
    (tmp_path / "direct_attributes/sa_2.jpg").write_bytes(b"damaged")
    (tmp_path / "relative_position/sa_3.jpg").unlink()
    played = rollout(Scripted(r"\boxed{C}"), ZOOM, range(3), tasks=f"vstar:{tmp_path}", progress=False)
    assert [trajectory.error is None for trajectory in played] == [True, False, False]
    assert "sa_2.jpg: cannot be decoded" in played[1].error and "got none at relative_position" in played[2].error
    summary = evaluate(played).overall
    assert (summary.tasks, summary.errors, summary.accuracy.mean) == (1, 2, 1.0)


def test_answers_that_are_hidden_are_submitted_and_not_scored(tmp_path: Path) -> None:
    infographicvqa(tmp_path)
    spec = f"infographicvqa:{tmp_path / 'test.json'}"
    hidden = tasks_from_spec(spec)
    env = gym.make(ZOOM, tasks=spec)
    env.reset(options={"task": 0})
    _, reward, terminated, _, info = env.step(r"\boxed{Paris}")
    assert (reward, terminated, info["correct"], info["score"], info["answer"]) == (0, True, None, None, "Paris")
    played = rollout(Scripted(r"\boxed{Paris}"), ZOOM, [1, 0], tasks=spec, progress=False)
    assert not any(trajectory.scored for trajectory in played)
    summary = evaluate(played).overall
    assert (summary.tasks, summary.score, summary.accuracy, summary.parse_failure_rate) == (2, None, None, None)
    known = rollout(Scripted(r"\boxed{C}"), ZOOM, [0], tasks=f"vstar:{vstar(tmp_path / 'v')}", progress=False)
    both = evaluate([*played, *known]).overall
    assert (both.tasks, both.accuracy.mean) == (3, 1.0)
    entries = submission(hidden, played, tmp_path / "result.json")
    assert entries == [{"questionId": 70001, "answer": "Paris"}, {"questionId": 70002, "answer": "Paris"}]
    assert json.loads((tmp_path / "result.json").read_text()) == entries
    with pytest.raises(
        ValueError, match="expected a trajectory of each of 2 tasks, got none of 1, such as infographicvqa-1"
    ):
        submission(hidden, played[1:])
    broken = [dataclasses.replace(played[0], error="the server is not there"), played[1]]
    with pytest.raises(ValueError, match="expected episodes that ended, got one that broke off, infographicvqa-1: the"):
        submission(hidden, broken)
    with pytest.raises(ValueError, match="expected one trajectory a task, got several of infographicvqa-1"):
        submission(hidden, [*played, played[0]])
    with pytest.raises(ValueError, match=r"expected a task set of infographicvqa, .*got vstar"):
        submission(load_tasks("vstar", tmp_path / "v"), [])
    with pytest.raises(ValueError, match="expected a task with answers, got 'infographicvqa-0'"):
        gold(hidden[0])
    with pytest.raises(ValueError, match="no task 'infographicvqa-9'"):
        hidden.index("infographicvqa-9")


def test_an_answer_to_a_task_without_any_cannot_be_graded() -> None:
    assert grade(image_task(), "B") == Grade(correct=True, score=1.0, parse_failure=False)
    with pytest.raises(ValueError, match="expected a task with answers, got "):
        grade(image_task(answers=()), "B")


def test_direct_policy_plays_a_hidden_split(tmp_path: Path) -> None:
    infographicvqa(tmp_path)
    played = rollout(DirectPolicy(), ZOOM, range(2), tasks=f"infographicvqa:{tmp_path / 'test.json'}", progress=False)
    assert [trajectory.error for trajectory in played] == [None, None]


def test_every_format_says_how_it_lies_on_disk() -> None:
    assert all(form.layout for form in FORMATS.values())
