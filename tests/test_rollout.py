"""Rollouts: groups, seeds, batches, and everything that breaks."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import gymnasium as gym
import pytest
from PIL import Image

from pixel_env.evaluation import evaluate
from pixel_env.media import ImageFile
from pixel_env.policies import DirectPolicy, OraclePolicy, RandomPolicy
from pixel_env.rollout import Conversation, Episode, Planned, plan, play, rollout
from pixel_env.tasks import ProceduralTasks, Task, TaskList
from pixel_env.trajectory import Trajectory

ZOOM, MIXED = "PixelReason-Zoom-v0", "PixelReason-Mixed-v0"


class Scripted:
    """Plays the same turns in every conversation and notes what it was given."""

    def __init__(self, *turns: str) -> None:
        self.turns = turns
        self.batches: list[int] = []

    def act(self, conversations: Sequence[Conversation]) -> list[str]:
        self.batches.append(len(conversations))
        for conversation in conversations:
            assert len(conversation.observations) == len(conversation.actions) + 1
        return [self.turns[len(conversation.actions)] for conversation in conversations]


class FailsOn:
    """Raises whenever a batch holds a conversation about `task_id`."""

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id

    def act(self, conversations: Sequence[Conversation]) -> list[str]:
        if any(conversation.task_id == self.task_id for conversation in conversations):
            raise TimeoutError("no reply in 30 s")
        return [r"\boxed{A}"] * len(conversations)


def test_groups_are_contiguous_and_in_order() -> None:
    policy = Scripted("crop_image([0, 0, 56, 56])", r"\boxed{A}")
    played = rollout(policy, ZOOM, [4, 0, 9], group_size=3, batch_size=2, preset="micro", progress=False)
    numbers = [int(trajectory.task_id.rpartition("-")[2]) for trajectory in played]
    assert numbers == [4, 4, 4, 0, 0, 0, 9, 9, 9]
    assert max(policy.batches) == 2
    assert sum(policy.batches) == 2 * 9


def test_episodes_of_different_lengths_keep_the_batch_full() -> None:
    class Uneven(Scripted):
        def act(self, conversations: Sequence[Conversation]) -> list[str]:
            self.batches.append(len(conversations))
            long = [int(c.task_id.rpartition("-")[2]) % 2 == 0 and not c.actions for c in conversations]
            return ["wait" if wait else r"\boxed{A}" for wait in long]

    policy = Uneven()
    played = rollout(policy, ZOOM, range(8), batch_size=4, preset="micro", progress=False)
    assert [len(trajectory.turns) for trajectory in played] == [2, 1] * 4
    assert policy.batches[:2] == [4, 4]  # places that fall free are taken at once


def test_the_same_seed_gives_the_same_trajectories_whatever_the_batch() -> None:
    tasks = ProceduralTasks(preset="micro")
    whole = rollout(OraclePolicy(tasks), MIXED, range(8), preset="micro", progress=False)
    single = rollout(OraclePolicy(tasks), MIXED, range(8), batch_size=1, preset="micro", progress=False)
    other = rollout(OraclePolicy(tasks), MIXED, range(8), seed=1, preset="micro", progress=False)
    assert whole == single
    assert [t.seed for t in whole] != [t.seed for t in other]
    assert [t.first_digests for t in whole] == [t.first_digests for t in other]  # the task decides the pixels


def played_here(planned: list[Planned]) -> list[Trajectory]:
    kept: dict[int, Trajectory] = {}

    def keep(index: int, episode: Episode) -> None:
        kept[index] = episode.trajectory()

    play(RandomPolicy(seed=5), MIXED, planned, keep, preset="micro", progress=False)
    return [kept[index] for index in range(len(planned))]


def test_the_number_of_processes_changes_nothing() -> None:
    planned = plan(range(6), 2, seed=3)
    whole = played_here(planned)
    assert all(one.turns != two.turns for one, two in zip(whole[::2], whole[1::2], strict=True))  # it does draw
    for workers in (1, 2):
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            parts = list(pool.map(played_here, [planned[part::workers] for part in range(workers)]))
        assert [parts[index % workers][index // workers] for index in range(len(planned))] == whole


def test_a_random_policy_is_reproducible() -> None:
    runs = [rollout(RandomPolicy(seed=5), MIXED, range(6), preset="micro", progress=False) for _ in range(2)]
    assert runs[0] == runs[1]


def test_tasks_by_id() -> None:
    tasks = ProceduralTasks(("search", "count", "read"), preset="micro")
    [played] = rollout(DirectPolicy(), ZOOM, [tasks[7].task_id], preset="micro", progress=False)
    assert played.task_id == tasks[7].task_id


def test_a_policy_that_fails_breaks_off_its_own_episodes_only(caplog: pytest.LogCaptureFixture) -> None:
    bad = ProceduralTasks(("search", "count", "read"), preset="micro")[2].task_id
    played = rollout(FailsOn(bad), ZOOM, range(4), group_size=2, preset="micro", progress=False)
    assert [trajectory.error for trajectory in played] == [None] * 4 + ["TimeoutError: no reply in 30 s"] * 2 + [
        None
    ] * 2
    assert all(trajectory.turns == () and not trajectory.terminated for trajectory in played[4:6])
    assert all(trajectory.first_observation for trajectory in played[4:6])
    assert evaluate(played).overall.errors == 2
    [told] = caplog.records  # once, with where it came from
    assert "Traceback" in caplog.text and "in act" in caplog.text and told.levelname == "WARNING"


def test_an_exception_in_place_of_a_text_is_the_error_of_one_episode() -> None:
    class Excuses(Scripted):
        def act(self, conversations: Sequence[Conversation]) -> list[str | Exception]:  # type: ignore[override]
            self.batches.append(len(conversations))
            late = [int(c.task_id.rpartition("-")[2]) == 2 for c in conversations]
            return [TimeoutError("no reply in 30 s") if wait else r"\boxed{A}" for wait in late]

    policy = Excuses()
    played = rollout(policy, ZOOM, range(4), preset="micro", progress=False)
    assert [trajectory.error for trajectory in played] == [None, None, "TimeoutError: no reply in 30 s", None]
    assert policy.batches == [4]  # no one is asked again
    assert evaluate(played).overall.errors == 1


def test_a_function_is_a_policy() -> None:
    def look_then_answer(conversation: Conversation) -> str:
        assert len(conversation.observations) == len(conversation.actions) + 1
        return r"\boxed{A}" if conversation.actions else "crop_image([0, 0, 56, 56])"

    same = Scripted("crop_image([0, 0, 56, 56])", r"\boxed{A}")
    played = rollout(look_then_answer, ZOOM, range(4), group_size=2, preset="micro", progress=False)
    assert played == rollout(same, ZOOM, range(4), group_size=2, preset="micro", progress=False)


def test_a_function_that_raises_is_asked_once_and_breaks_off_that_episode_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked: list[str] = []

    def fails_on_the_third(conversation: Conversation) -> str:
        asked.append(conversation.task_id)
        if len(asked) >= 3:
            raise TimeoutError("no reply in 30 s")
        return r"\boxed{A}"

    played = rollout(fails_on_the_third, ZOOM, range(4), preset="micro", progress=False)
    late = "TimeoutError: no reply in 30 s"
    assert [trajectory.error for trajectory in played] == [None, None, late, late]
    assert len(asked) == 4
    assert len(caplog.records) == 1 and "in fails_on_the_third" in caplog.text


def test_what_can_be_called_and_has_act_is_asked_by_act() -> None:
    class Both(Scripted):
        def __call__(self, conversation: Conversation) -> str:
            raise AssertionError("act is there")

    [played] = rollout(Both(r"\boxed{A}"), ZOOM, [0], preset="micro", progress=False)
    assert played.error is None and played.terminated


def test_an_image_that_cannot_be_decoded_becomes_an_error(tmp_path) -> None:
    Image.new("RGB", (640, 480), "red").save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    tasks = TaskList(
        tuple(
            Task(name, "files", "Which colour?", ImageFile(tmp_path / f"{name}.png"), ("red",), "text")
            for name in ("good", "bad", "missing")
        )
    )
    for names in ([0, 1, 2], ["good", "bad", "missing"]):
        played = rollout(Scripted(r"\boxed{red}"), ZOOM, names, tasks=tasks, preset="micro", progress=False)
        assert [trajectory.task_id for trajectory in played] == ["good", "bad", "missing"]
        assert [trajectory.correct for trajectory in played] == [True, False, False]
        assert played[0].error is None
        assert all(
            t.error is not None and t.error.startswith("MediaError: ") and t.suite == "files" for t in played[1:]
        )


def test_mistakes_of_the_caller_raise() -> None:
    class TooFew:
        def act(self, conversations: Sequence[Conversation]) -> list[str]:
            return []

    class Returns:
        def __init__(self, what: object) -> None:
            self.what = what

        def act(self, conversations: Sequence[Conversation]) -> list[str]:
            return self.what  # type: ignore[return-value]

    class NoText:
        def act(self, conversations: Sequence[Conversation]) -> list[str]:
            return [None] * len(conversations)  # type: ignore[list-item]

    with pytest.raises(ValueError, match="one action a conversation, 2, got 0"):
        rollout(TooFew(), ZOOM, [0, 1], preset="micro", progress=False)
    with pytest.raises(TypeError, match="action as a str"):
        rollout(NoText(), ZOOM, [0], preset="micro", progress=False)
    for words, got in ((r"\boxed{A}", "boxed"), (None, "None")):
        with pytest.raises(TypeError, match=f"`act` to return a list with one text a conversation, got .*{got}"):
            rollout(Returns(words), ZOOM, [0], preset="micro", progress=False)
    with pytest.raises(TypeError, match="action as a str, got NoneType"):
        rollout(lambda conversation: None, ZOOM, [0], preset="micro", progress=False)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="expected a policy, got the class DirectPolicy"):
        rollout(DirectPolicy, ZOOM, [0], preset="micro", progress=False)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a policy with `act`, or a function of a conversation, got 'grid'"):
        rollout("grid", ZOOM, [0], preset="micro", progress=False)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="task index from 0 to"):
        rollout(DirectPolicy(), ZOOM, [-1], preset="micro", progress=False)
    with pytest.raises(ValueError, match="no task 'x'"):
        rollout(DirectPolicy(), ZOOM, ["x"], preset="micro", progress=False)
    with pytest.raises(ValueError, match="expected group_size of at least 1, got 0"):
        rollout(DirectPolicy(), ZOOM, [0], group_size=0, progress=False)


def test_no_tasks_no_trajectories() -> None:
    assert rollout(DirectPolicy(), ZOOM, [], preset="micro", progress=False) == []


def test_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    rollout(DirectPolicy(), ZOOM, [0, 1], preset="micro")
    assert "2/2" in capsys.readouterr().err
    rollout(DirectPolicy(), ZOOM, [0], preset="micro", progress=False)
    assert capsys.readouterr().err == ""


def test_an_episode_can_be_used_again_but_not_after_its_end() -> None:
    episode = Episode(gym.make(ZOOM, preset="micro", max_turns=2))
    with pytest.raises(ValueError, match="call reset before the next step"):
        episode.step("too early")
    episode.reset(0, seed=1)
    first = episode.conversation
    assert not episode.step("wait")
    assert episode.step("wait")
    assert episode.trajectory().truncated
    with pytest.raises(ValueError, match="call reset before the next step"):
        episode.step("too late")
    episode.reset(1, seed=1)
    assert episode.conversation.actions == [] and first.actions == ["wait", "wait"]
    assert episode.trajectory().turns == ()
    assert episode.step(r"\boxed{A}")
    assert episode.trajectory(kind="single_pass").kind == "single_pass"
