"""Faithfulness: each measure against one worked out by hand, and the counterfactual run."""

import dataclasses

import pytest
from fakes import image_task, tasks, video_task

from pixel_env import PixelReasonEnv
from pixel_env.faithfulness import Call, calls, effect_of_views, faithfulness
from pixel_env.policies import OraclePolicy
from pixel_env.rollout import Episode, rollout
from pixel_env.tasks import Cue, ProceduralTasks, Task
from pixel_env.trajectory import Trajectory

# The ramp is 448 x 448, shown at 112 x 112: four source pixels a pixel. The cue is the square of 112 source pixels.
BOX = image_task(cue=Cue((112.0, 112.0, 224.0, 224.0)), needs_operation=True)
FRAMES = video_task(cue=Cue(frames=(2, 3)), needs_operation=True)
BOX_IN_FRAME = video_task(task_id="both", cue=Cue((0.0, 0.0, 224.0, 168.0), (2,)), needs_operation=True)
PLAIN = image_task(task_id="plain", needs_operation=False)
ALL = (BOX, FRAMES, BOX_IN_FRAME, PLAIN)


def environment(**kwargs: object) -> PixelReasonEnv:
    return PixelReasonEnv(tasks=tasks(*ALL), preset="micro", **kwargs)  # type: ignore[arg-type]


def play(task: Task, *actions: str, **kwargs: object) -> Trajectory:
    episode = Episode(environment(**kwargs))
    episode.reset(task.task_id, seed=0)
    for action in actions:
        episode.step(action)
    return episode.trajectory()


CALLS = [  # (task, action, what the call is)
    (BOX, "crop_image([28, 28, 56, 56])", Call(True, 1.0, 1.0)),  # exactly the cue
    (BOX, "crop_image([0, 0, 56, 56])", Call(True, 1.0, 0.25)),  # four times as large
    (BOX, "crop_image([28, 28, 42, 56])", Call(False, 0.5, 0.5)),  # its left half
    (BOX, "crop_image([42, 42, 70, 70])", Call(False, 0.25, 1 / 7)),  # a quarter: 1 / (4 + 4 - 1)
    (BOX, "crop_image([56, 28, 84, 56])", Call(False, 0.0, 0.0)),  # beside it
    (FRAMES, "select_frames([3, 4])", Call(True, cue_frames=1.0)),  # exactly the cue, counted from 1
    (FRAMES, "select_frames([3])", Call(False, cue_frames=1.0)),  # half of it
    (FRAMES, "select_frames([1, 3, 4, 5])", Call(True, cue_frames=0.5)),  # with two needless frames
    (FRAMES, "select_frames([9])", Call(False, cue_frames=0.0)),  # none of it
    (FRAMES, "crop_image([0, 0, 10, 10], 3)", Call(False)),  # the cue is two whole frames: no box to compare with
    (BOX_IN_FRAME, "select_frames([3])", Call(True, cue_frames=1.0)),  # a whole frame holds the box
    (BOX_IN_FRAME, "crop_image([0, 0, 10, 10], 1)", Call(False, 0.0, 0.0)),  # the place, in another frame
]


@pytest.mark.parametrize(("task", "action", "call"), CALLS)
def test_calls_by_hand(task: Task, action: str, call: Call) -> None:
    [found] = calls(play(task, action), environment())
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(call))


def test_calls_that_show_nothing_are_no_calls() -> None:
    assert calls(play(BOX, "hm", "crop_image([9, 9, 1, 1])", r"\boxed{A}"), environment()) == []
    assert calls(play(PLAIN, "crop_image([0, 0, 9, 9])"), environment()) == []  # no cue to compare with


def test_a_crop_of_a_crop_is_measured_in_the_source() -> None:
    _, second = calls(play(BOX, "crop_image([0, 0, 56, 56])", "crop_image([56, 56, 112, 112], 2)"), environment())
    assert dataclasses.astuple(second)[:3] == pytest.approx((True, 1.0, 1.0))


def test_means_over_calls_then_over_tasks() -> None:
    found = faithfulness(
        [
            play(BOX, "crop_image([28, 28, 56, 56])", "crop_image([56, 28, 84, 56])", r"\boxed{B}"),
            play(FRAMES, "select_frames([3, 9])", r"\boxed{3}"),
            play(FRAMES, r"\boxed{3}"),  # right without looking
            play(PLAIN, r"\boxed{B}"),  # needs no operation
            dataclasses.replace(play(BOX, r"\boxed{B}"), error="TimeoutError: no reply"),
        ],
        environment(),
    )
    assert (found.episodes, found.calls) == (4, 3)
    means = {name: getattr(found, name).mean for name in list(vars(found))[2:]}
    assert means == {
        "crop_coverage": 0.5,
        "crop_iou": 0.5,
        "whole_cue_rate": pytest.approx((0.5 + 0.0) / 2),
        "cue_frame_rate": 0.5,
        "answered_without_looking": pytest.approx((0.0 + 0.5 + 1.0) / 3),  # also where nothing is known of a need
        "right_without_looking": pytest.approx((0.0 + 0.5) / 2),
    }


def test_nothing_to_count() -> None:
    found = faithfulness([play(PLAIN, "hm")], environment())
    assert list(vars(found).values()) == [1, 0, None, None, None, None, None, None]


def test_answers_without_looking_count_where_no_need_is_known() -> None:
    unknown = [image_task(task_id=f"u{number}") for number in range(2)]
    env = PixelReasonEnv(tasks=tasks(*unknown), preset="micro")
    played = []
    for task, looks in zip(unknown, (["crop_image([0, 0, 56, 56])"], []), strict=True):
        episode = Episode(env)
        episode.reset(task.task_id, seed=0)
        for action in [*looks, r"\boxed{B}"]:
            episode.step(action)
        played.append(episode.trajectory())
    found = faithfulness(played, env)
    assert found.answered_without_looking is not None and found.answered_without_looking.mean == 0.5
    assert found.right_without_looking is None


def test_failed_operations_do_not_count_as_looking() -> None:
    found = faithfulness([play(BOX, "crop_image([9, 9, 1, 1])", r"\boxed{B}")], environment())
    assert found.right_without_looking is not None and found.right_without_looking.mean == 1.0


def test_an_environment_that_shows_other_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an environment that replays task image-0, got other pictures"):
        calls(play(BOX, "crop_image([28, 28, 56, 56])"), environment(crop_padding=0.1))


def test_a_counterfactual_run_is_measured_by_what_it_asked_for() -> None:
    [call] = calls(
        play(BOX, "crop_image([28, 28, 56, 56])", counterfactual="blank"), environment(counterfactual="blank")
    )
    assert call == Call(True, 1.0, 1.0)


def test_the_oracle_is_faithful() -> None:
    items = ProceduralTasks(("search", "clip"), preset="micro")
    played = rollout(
        OraclePolicy(items), "PixelReason-Mixed-v0", range(12), suite=["search", "clip"], preset="micro", progress=False
    )
    env = PixelReasonEnv(tasks=items, preset="micro")
    found = faithfulness(played, env)
    assert found.calls and found.whole_cue_rate is not None and found.whole_cue_rate.mean > 0.9
    assert found.right_without_looking is not None and found.right_without_looking.mean == 0.0


def scored(score: float, **kwargs: object) -> Trajectory:
    return dataclasses.replace(play(BOX, r"\boxed{A}"), score=score, env_kwargs=kwargs)


def test_effect_of_views_by_hand() -> None:
    assert effect_of_views([scored(1.0)], [scored(0.25, counterfactual="blank")]) == (0.75, 0.75, 0.75)


def test_effect_of_views_needs_one_run_of_each_kind() -> None:
    normal, blank = scored(1.0), scored(0.0, counterfactual="blank")
    for runs in (([normal], [normal]), ([blank], [normal]), ([blank], [blank]), ([normal, blank], [blank])):
        with pytest.raises(ValueError, match="expected a normal run, then a counterfactual one"):
            effect_of_views(*runs)
