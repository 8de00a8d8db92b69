"""Numeric actions and observations: the same episodes as their texts, boxes by hand, and both libraries' checkers."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from fakes import image_task, tasks, video_task
from gymnasium.utils.env_checker import check_env, data_equivalence
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

from baselines.adapters import (
    ANSWERS,
    CHOICE_WORDS,
    Adapter,
    BoxZoom,
    GridZoom,
    PyramidZoom,
    square,
)
from baselines.boxes import GRID, around, moved, scaled
from baselines.text_encoding import NUMBERS, SPARE, encode, read_question
from pixel_env import Operation, PixelReasonEnv
from pixel_env.policies import gold
from pixel_env.tasks import LEVELS, SPLITS, SUITES, ProceduralTasks

MIXED = tasks(image_task(), video_task(num_frames=5))
LIST = ["A", "B", "3"]
PARAMETERS: dict[str, Any] = {"type": "object"}
FUNCTION = {"name": "blank", "description": "Show grey.", "parameters": PARAMETERS}
OTHER = Operation({"type": "function", "function": FUNCTION}, lambda: np.full((28, 28, 3), 128, np.uint8))


Kind = type[GridZoom] | type[PyramidZoom] | type[BoxZoom]


def make(kind: Kind, task: int = 0, **kwargs: Any) -> Adapter:
    env = kind(gym.make("PixelReason-Mixed-v0", tasks=MIXED, preset="micro", **kwargs), answers=LIST, side=56)
    env.reset(seed=0, options={"task": task})
    return env


GRID_ENV = make(GridZoom)


def do(env: Adapter, meaning: str) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
    return env.step(env.meanings.index(meaning))


def scores(env: Adapter, meaning: str, *corners: float) -> np.ndarray:
    """An action of `BoxZoom`: corners, and the highest score for what is meant."""
    action = np.full(4 + len(env.meanings), -0.5, np.float32)
    action[:4] = corners or 0
    action[4 + env.meanings.index(meaning)] = 0.25
    return action


@pytest.mark.parametrize(
    ("box", "right", "down", "expected"),
    [
        ((0.25, 0.25, 0.75, 0.75), -0.5, 0, (0, 0.25, 0.5, 0.75)),
        ((0, 0.25, 0.5, 0.75), -0.5, 0, (0, 0.25, 0.5, 0.75)),  # at the border already
        ((0.25, 0.25, 0.5, 0.75), 0.5, 0.5, (0.375, 0.5, 0.625, 1)),  # only as far as the border
        ((0, 0, 1, 1), 0.5, 0.5, (0, 0, 1, 1)),
    ],
)
def test_moved(box: Any, right: float, down: float, expected: Any) -> None:
    assert moved(box, right, down) == expected


@pytest.mark.parametrize(
    ("box", "factor", "expected"),
    [
        ((0, 0, 1, 1), 0.5, (0.25, 0.25, 0.75, 0.75)),
        ((0.25, 0.25, 0.75, 0.75), 2, (0, 0, 1, 1)),
        ((0, 0, 0.25, 0.25), 2, (0, 0, 0.5, 0.5)),  # pushed inwards from a corner
        ((0.75, 0.5, 1, 1), 2, (0.5, 0, 1, 1)),
        ((0, 0, 1, 1), 2, (0, 0, 1, 1)),
    ],
)
def test_scaled(box: Any, factor: float, expected: Any) -> None:
    assert scaled(box, factor) == expected


@pytest.mark.parametrize("coordinates", ["pixel", "fraction", "thousandth"])
def test_a_walk_through_the_pyramid(coordinates: str) -> None:
    env = make(PyramidZoom, coordinates=coordinates, max_turns=9)
    regions = {  # of the source of 448 x 448 pixels
        "in": (112, 112, 336, 336),
        "left": (0, 112, 224, 336),
        "up": (0, 0, 224, 224),
        "right": (112, 0, 336, 224),
        "down": (112, 112, 336, 336),
        "out": (0, 0, 448, 448),
    }
    for turn, (meaning, region) in enumerate(regions.items(), start=1):
        observation, _, _, _, info = do(env, meaning)
        assert info["views"][0].region == pytest.approx(region)
        assert observation["position"].tolist() == [*(side / 448 for side in region), 0]
        assert observation["turns"] == pytest.approx(1 - turn / 9)
        # The source is a ramp: red grows with x, green with y, 0 to 255.
        corners = observation["picture"][[0, -1], [0, -1], :2].ravel()
        assert corners == pytest.approx(np.array(region) * 255 / 448, abs=5)


def test_a_video_is_a_grid_of_frames_until_one_is_picked() -> None:
    env = make(PyramidZoom, task=1, max_turns=9)
    observation, _ = env.reset(options={"task": 1})
    # Five frames of brightness 0 to 40, in two rows of three places, the last one empty.
    centres = observation["picture"][[14, 14, 14, 42, 42, 42], [9, 28, 47] * 2, 0]
    assert centres.tolist() == [0, 10, 20, 30, 40, 0]
    assert observation["position"].tolist() == [0, 0, 1, 1, 0]
    observation, *_, info = do(env, "frame 4")
    assert info["action"].endswith('{"target_frames": [4]}}</tool_call>')
    assert (observation["picture"] == 30).all() and observation["position"].tolist() == [0, 0, 1, 1, 0.25]  # 4 of 16
    observation, *_, info = do(env, "in")
    assert (info["views"][0].frame, info["views"][0].region) == (3, (112, 84, 336, 252))
    observation, *_, info = do(env, "frame 6")  # there is none: nothing moves
    assert info["operation_error"] == "unknown_frame"
    assert observation["position"].tolist() == [0.25, 0.25, 0.75, 0.75, 0.25]
    do(env, "frame 2")
    observation, *_, info = do(env, "in")
    assert info["views"][0].frame == 1 and (observation["picture"] == 10).all()


def test_zooming_in_on_a_video_looks_at_its_first_frame() -> None:
    observation, *_, info = do(make(PyramidZoom, task=1), "in")
    assert info["views"][0].frame == 0 and observation["position"].tolist() == [0.25, 0.25, 0.75, 0.75, 0]


def test_frames_of_an_image_are_an_error_that_costs_a_turn() -> None:
    env = make(PyramidZoom)
    before, _ = env.reset(options={"task": 0})
    after, *_, info = do(env, "frame 1")
    assert info["operation_error"] == "not_a_video" and info["num_errors"] == 1
    assert np.array_equal(before["picture"], after["picture"])
    assert np.array_equal(before["position"], after["position"]) and after["turns"] == pytest.approx(0.8)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_look_shows_what_it_is_aimed_at(x: float, y: float) -> None:
    row, column = divmod(GRID_ENV.look_at(x, y) - len(LIST), GRID)
    x1, y1, x2, y2 = around((column + 0.5) / GRID, (row + 0.5) / GRID)
    assert (x2 - x1, y2 - y1) == pytest.approx((0.25, 0.25)) and min(x1, y1) >= 0 and max(x2, y2) <= 1
    assert x1 <= x <= x2 and y1 <= y <= y2
    middle = abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)
    inside = [0.125 <= place <= 0.875 for place in (x, y)]  # elsewhere the border is in the way
    assert all(off <= 0.5 / GRID + 1e-9 for off, free in zip(middle, inside, strict=True) if free)


def test_looks_are_of_the_first_view_whatever_was_looked_at_before() -> None:
    env = make(GridZoom)
    for row, column, region in ((4, 4, (168, 168, 280, 280)), (1, 7, (336, 0, 448, 112)), (4, 4, (168, 168, 280, 280))):
        observation, *_, info = do(env, f"look at row {row}, column {column}")
        assert info["views"][0].region == pytest.approx(region)
        assert observation["position"].tolist() == [*(side / 448 for side in region), 0]


@pytest.mark.parametrize("corners", [(-0.5, -0.5, 0.5, 0), (0.5, 0, -0.5, -0.5), (-0.5, 0, 0.5, -0.5)])
def test_box_zoom_takes_any_two_opposite_corners(corners: tuple[float, ...]) -> None:
    env = make(BoxZoom)
    observation, *_, info = env.step(scores(env, "zoom", *corners))
    assert info["action"].endswith('{"bbox_2d": [28, 28, 84, 56], "target_image": 1}}</tool_call>')
    assert observation["position"].tolist() == [0.25, 0.25, 0.75, 0.5, 0]


def test_box_zoom_without_area_is_an_error_of_the_environment() -> None:
    env = make(BoxZoom)
    observation, _, terminated, truncated, info = env.step(scores(env, "zoom", 1, 1, 1, 1))
    assert info["operation_error"] == "empty_box" and not terminated and not truncated
    assert observation["position"].tolist() == [0, 0, 1, 1, 0]


def test_the_highest_score_decides() -> None:
    env = make(BoxZoom)
    _, reward, terminated, _, info = env.step(scores(env, "answer B"))
    assert terminated and reward == 1 and info["answer"] == "B"
    env = make(BoxZoom, task=1)
    assert env.step(scores(env, "frame 3"))[-1]["views"][0].frame == 2
    _, reward, terminated, _, info = env.step(scores(env, "answer 3"))
    assert terminated and info["correct"]


def equal_to_its_texts(env: Adapter, actions: list[Any], task: int) -> None:
    """Play numeric actions, and what they say in the environment without an adapter, side by side."""
    plain = gym.make("PixelReason-Mixed-v0", tasks=MIXED, preset="micro")
    told, info = plain.reset(seed=1, options={"task": task})
    seen, adapted_info = env.reset(seed=1, options={"task": task})
    assert data_equivalence(info, adapted_info, exact=True)
    picture = square(told["images"], 56)
    for turn, action in enumerate(actions, start=1):
        position = seen["position"]
        seen, reward, terminated, truncated, adapted_info = env.step(action)
        text = adapted_info.pop("action")
        told, *rest = plain.step(text)
        assert data_equivalence([reward, terminated, truncated, adapted_info], rest, exact=True)
        assert seen in env.observation_space
        if told["images"]:
            picture = square(told["images"], 56)
        else:
            assert np.array_equal(seen["position"], position)
        assert np.array_equal(seen["picture"], picture)
        assert seen["turns"] == pytest.approx(1 - turn / 5)
        x1, y1, x2, y2, _ = seen["position"]
        assert 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1
        if terminated or truncated:
            return


@given(st.lists(st.integers(0, 24), min_size=1, max_size=5), st.sampled_from([0, 1]))
@settings(max_examples=25, deadline=None)
def test_pyramid_episodes_are_those_of_their_texts(actions: list[int], task: int) -> None:
    env = make(PyramidZoom)
    assert env.action_space.n == 25  # type: ignore[attr-defined]  # 3 answers, 6 looks, 16 frames
    equal_to_its_texts(env, actions, task)


@given(st.lists(st.integers(0, 67), min_size=1, max_size=5), st.sampled_from([0, 1]))
@settings(max_examples=25, deadline=None)
def test_grid_episodes_are_those_of_their_texts(actions: list[int], task: int) -> None:
    env = make(GridZoom)
    assert env.action_space.n == 68  # type: ignore[attr-defined]  # 3 answers, 49 looks, 16 frames
    equal_to_its_texts(env, actions, task)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1]))
@settings(max_examples=25, deadline=None)
def test_box_episodes_are_those_of_their_texts(seed: int, task: int) -> None:
    env = make(BoxZoom)
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (5, 24)).astype(np.float32)
    actions[:, 4 + 3] += rng.integers(2, size=5)  # half of the turns zoom
    equal_to_its_texts(env, list(actions.clip(-1, 1)), task)


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version:UserWarning")  # true of every wrapper
@pytest.mark.parametrize("kind", [GridZoom, PyramidZoom, BoxZoom])
@pytest.mark.parametrize("env_id", ["PixelReason-Zoom-v0", "PixelReason-Frames-v0", "PixelReason-Mixed-v0"])
def test_both_checkers(env_id: str, kind: Kind) -> None:
    with kind(gym.make(env_id, preset="micro")) as env:
        check_env_of_sb3(env)  # warnings are errors
        check_env(env)


@pytest.mark.parametrize(("env_id", "kind"), [("PixelReason-Zoom-v0", PyramidZoom), ("PixelReason-Frames-v0", BoxZoom)])
def test_checker_with_real_sizes(env_id: str, kind: Kind) -> None:
    with kind(gym.make(env_id)) as env:
        check_env_of_sb3(env)
        assert env.reset(seed=0)[0]["picture"].shape == (112, 112, 3)


def test_the_spec_makes_it_again() -> None:
    env = BoxZoom(gym.make("PixelReason-Zoom-v0", suite="count", preset="micro"), side=64)
    assert env.spec is not None
    again = gym.make(env.spec)
    assert isinstance(again, BoxZoom) and again.observation_space == env.observation_space
    assert data_equivalence(again.reset(seed=3), env.reset(seed=3), exact=True)


@pytest.mark.parametrize("suite", SUITES)
def test_words_and_answers_of_the_suites_are_known(suite: str) -> None:
    for split in SPLITS:
        for level in LEVELS:
            drawn = ProceduralTasks((suite,), split=split, difficulty=level, preset="micro")
            for task in (drawn[index] for index in range(12)):
                known = encode(task.question, 20) < NUMBERS - SPARE
                assert known.all() or (suite == "read" and known.sum() == 19)  # a string that the page shows
                assert all((encode(choice, CHOICE_WORDS) < NUMBERS - SPARE).all() for choice in task.choices)
                is_string = suite == "read" and task.question.startswith("What")
                assert is_string or gold(task) in ANSWERS[suite], task.question


@pytest.mark.parametrize("suite", SUITES)
def test_question_and_choices_are_read_from_the_text(suite: str) -> None:
    env = PixelReasonEnv(suite=suite, preset="micro")
    for index in range(6):
        observation, _ = env.reset(options={"task": index})
        assert read_question(observation["text"]) == (env.task.question, env.task.choices)


def test_a_question_of_several_lines_keeps_them() -> None:
    asked = "Which?\n(A) stands here\nand not <image> there."
    env = PixelReasonEnv(tasks=tasks(image_task(question=asked)), preset="micro")
    question, choices = read_question(env.reset()[0]["text"])
    assert (question, choices) == (asked.replace("<image>", "<image >"), ("red", "blue"))


def test_words_are_in_their_order_and_choices_in_rows() -> None:
    env = make(PyramidZoom)
    image, _ = env.reset(options={"task": 0})
    assert image["question"].tolist() == [*encode("which one", 2), *[0] * 18]
    assert image["choices"].tolist() == [*encode("red", 1), 0, 0, 0, *encode("blue", 1), 0, 0, 0]
    video, _ = env.reset(options={"task": 1})
    assert video["question"].tolist() == [*encode("how many", 2), *[0] * 18] and not video["choices"].any()


def test_unknown_words_share_numbers_by_hash_and_long_questions_are_cut() -> None:
    numbers = encode("zebra crossing zebra", 5)
    assert numbers[0] == numbers[2] != numbers[1] and (numbers[:3] >= NUMBERS - SPARE).all()
    assert numbers[:3].max() < NUMBERS and numbers[3:].tolist() == [0, 0]
    assert len(encode("a " * 50, 20)) == 20


def test_without_letters_there_are_no_choices() -> None:
    env = PyramidZoom(gym.make("PixelReason-Zoom-v0", suite="count", preset="micro"))
    assert set(env.observation_space.spaces) == {"picture", "position", "turns", "question"}  # type: ignore[attr-defined]
    assert "choices" not in env.reset(seed=0)[0]


def test_observations_are_not_shared() -> None:
    env = make(PyramidZoom)
    first, _ = env.reset(options={"task": 0})
    first["question"][:] = 0
    first["picture"][:] = 0
    second = do(env, "frame 1")[0]
    assert second["question"].any() and second["picture"].any()


@pytest.mark.parametrize(
    ("kwargs", "env_kwargs", "error", "message"),
    [
        ({"side": 35}, {}, ValueError, "expected side of at least 36"),
        ({"side": 56.0}, {}, TypeError, "expected side as an int"),
        ({"answers": "AB"}, {}, TypeError, "expected answers as a list of texts"),
        ({"answers": [1, 2]}, {}, TypeError, "expected answers as a list of texts"),
        ({"answers": []}, {}, ValueError, "at least one answer and none twice"),
        ({"answers": ["A", "A"]}, {}, ValueError, "at least one answer and none twice"),
        ({"answers": ["crop_image([1, 2, 3, 4])"]}, {}, ValueError, "expected an action that can be written"),
        ({}, {"tasks": MIXED}, ValueError, "expected answers for tasks of one's own, TaskList"),
        ({}, {"protocol": "pixelreasoner"}, ValueError, "expected protocol='native'"),
        ({}, {"operations": ["crop_image"]}, ValueError, "expected an environment with both operations"),
        ({}, {"operations": ["crop_image", OTHER]}, ValueError, "expected an environment with both operations"),
    ],
)
def test_wrong_arguments(
    kwargs: dict[str, Any], env_kwargs: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        PyramidZoom(gym.make("PixelReason-Mixed-v0", preset="micro", **env_kwargs), **kwargs)


def test_another_environment_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a PixelReasonEnv inside, got CartPoleEnv"):
        PyramidZoom(gym.make("CartPole-v1"))  # type: ignore[arg-type]


@pytest.mark.parametrize("action", [25, -1, 0.5, "in", None])
def test_actions_outside_the_space_are_mistakes_of_the_caller(action: Any) -> None:
    with pytest.raises(ValueError, match="expected an action in Discrete"):
        make(PyramidZoom).step(action)


@pytest.mark.parametrize("value", [np.nan, 1.5, -2])
def test_numbers_outside_the_space_are_mistakes_of_the_caller(value: float) -> None:
    action = np.zeros(24, np.float32)
    action[0] = value
    with pytest.raises(ValueError, match="expected an action in Box"):
        make(BoxZoom).step(action)
