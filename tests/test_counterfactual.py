"""Counterfactual views: only pixels of operations change."""

import dataclasses
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from fakes import ArraySource, checkerboard, image_task, ramp, tasks, video_task

from pixel_env import PixelReasonEnv
from pixel_env.counterfactual import picture, shown_by_operations
from pixel_env.media import ImageFile, view
from pixel_env.operations import View
from pixel_env.policies import OraclePolicy, RandomPolicy
from pixel_env.rollout import rollout
from pixel_env.tasks import ProceduralTasks, TaskList
from pixel_env.tasks.sources import DamagedMedia
from pixel_env.trajectory import Trajectory, replay

MIXED = "PixelReason-Mixed-v0"
BOARD = checkerboard(224, 448)  # half as wide as the ramp


def board_task(**changes: object) -> object:
    return image_task(BOARD, task_id="board", **changes)


def begin(*items: object, counterfactual: str, task: str = "image-0") -> PixelReasonEnv:
    env = PixelReasonEnv(tasks=tasks(*items), preset="micro", counterfactual=counterfactual)  # type: ignore[arg-type]
    env.reset(options={"task": task})
    return env


def without_pixels(trajectory: Trajectory) -> Trajectory:
    turns = tuple(dataclasses.replace(turn, image_digests=()) for turn in trajectory.turns)
    return dataclasses.replace(trajectory, turns=turns, env_kwargs={})


@pytest.mark.parametrize("counterfactual", ["blank", "other_task"])
def test_nothing_but_the_pixels_of_operations_changes(counterfactual: str) -> None:
    def play(**kwargs: object) -> list[Trajectory]:
        return rollout(RandomPolicy(seed=5), MIXED, range(16), preset="micro", progress=False, **kwargs)

    normal, changed = play(), play(counterfactual=counterfactual)
    assert [without_pixels(t) for t in changed] == [without_pixels(t) for t in normal]  # first digests are compared too
    pairs = [
        (new, old)
        for a, b in zip(changed, normal, strict=True)
        for new_turn, old_turn in zip(a.turns, b.turns, strict=True)
        for new, old in zip(new_turn.image_digests, old_turn.image_digests, strict=True)
    ]
    assert len(pairs) > 5 and all(new != old for new, old in pairs)
    assert [replay(trajectory) for trajectory in changed] == changed


def test_blank_is_grey_of_the_same_size() -> None:
    env = begin(image_task(), counterfactual="blank")
    observation, *_, info = env.step("crop_image([0, 0, 56, 28])")
    [image] = observation["images"]
    assert image.shape[:2] == info["views"][0].size[::-1]
    assert (image == 128).all() and image.dtype == np.uint8
    assert image.flags.writeable and env.step("crop_image([0, 0, 56, 28])")[0]["images"][0] is not image


def test_another_task_shows_the_same_part_of_its_picture() -> None:
    env = begin(image_task(), board_task(), counterfactual="other_task")
    observation, *_, info = env.step("crop_image([28, 0, 112, 56])")  # the right three quarters, the upper half
    [shot] = info["views"]
    assert shot.region == (112.0, 0.0, 448.0, 224.0)  # as asked for
    source = ArraySource((BOARD,))
    np.testing.assert_array_equal(observation["images"][0], view(source.frame(0), (56.0, 0.0, 224.0, 224.0), shot.size))


def test_another_task_is_the_next_one_of_the_suite_and_kind() -> None:
    first = image_task()
    other_suite = board_task(suite="read")
    same_suite = image_task(checkerboard(56, 56), task_id="next")
    twin = image_task(task_id="twin", media=first.media)  # another question about the same picture
    order = tasks(first, video_task(), twin, other_suite, same_suite)  # type: ignore[arg-type]
    assert shown_by_operations(first, order, "other_task") is same_suite.media
    assert shown_by_operations(same_suite, order, "other_task") is first.media  # around the end
    assert shown_by_operations(first, tasks(first, other_suite), "other_task") is other_suite.media  # type: ignore
    assert shown_by_operations(first, order, "none") is first.media
    assert shown_by_operations(first, order, "blank") is None


def test_a_neighbour_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(b"no picture")
    damaged = [image_task(task_id="row", media=DamagedMedia("image", "row 1"))]
    damaged += [image_task(task_id="file", media=ImageFile(tmp_path / "cut.jpg"))]
    board = board_task(suite="count")
    items = tasks(image_task(), *damaged, board)  # type: ignore[arg-type]
    assert shown_by_operations(items[0], items, "other_task") is items[3].media
    with pytest.raises(ValueError, match="that can be read"):
        shown_by_operations(items[0], tasks(image_task(), *damaged), "other_task")


def test_frames_of_a_shorter_video() -> None:
    short = video_task(2, task_id="short")
    env = begin(video_task(16), short, counterfactual="other_task", task="video-0")
    observation, *_ = env.step("select_frames([1, 16])")
    assert [int(image[0, 0, 0]) for image in observation["images"]] == [0, 10]  # its first frame, and its last


def test_no_other_task() -> None:
    with pytest.raises(ValueError, match=r"another task with other image media .* got none among 2 tasks"):
        begin(image_task(), video_task(), counterfactual="other_task")


def test_a_view_of_the_task_itself_is_exact() -> None:
    source = ArraySource((ramp(448, 448),))
    shot = View(0, (0.1, 0.2, 100.3, 50.7), (56, 28))
    np.testing.assert_array_equal(picture(source, shot, source), view(source.frame(0), shot.region, shot.size))


def test_regions_at_the_border_of_an_odd_sized_picture() -> None:
    asked, other = ArraySource((ramp(1000, 700),)), ArraySource((ramp(333, 77),))
    for x in range(1, 1000, 37):  # rounding must not reach over the border, nor shrink a sliver to nothing
        assert picture(other, View(0, (x - 1.0, 699.0, 1000.0, 700.0), (28, 28)), asked).shape == (28, 28, 3)


def test_unknown_counterfactual() -> None:
    with pytest.raises(ValueError, match="expected counterfactual to be one of 'none', 'blank', 'other_task'"):
        gym.make(MIXED, preset="micro", counterfactual="noise")


def test_the_oracle_still_looks_where_the_cue_is() -> None:
    items = TaskList(tuple(ProceduralTasks(("search",), preset="micro")[index] for index in range(6)))
    [played] = rollout(
        OraclePolicy(items), MIXED, [1], tasks=items, preset="micro", counterfactual="blank", progress=False
    )
    assert played.cue_coverage in (None, 0.0, 1.0) and played.correct
