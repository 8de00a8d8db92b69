"""Episodes: what a turn does, what it costs, and what info says about it."""

import pickle
from typing import Any

import numpy as np
import pytest
from fakes import ArraySource, checkerboard, image_task, tasks, video_task
from gymnasium.error import ResetNeeded
from hypothesis import given, settings
from hypothesis import strategies as st

from pixel_env import PixelReasonEnv
from pixel_env import render as render_module

BOTH = tasks(image_task(), video_task())


def make(**kwargs: Any) -> PixelReasonEnv:
    return PixelReasonEnv(**({"tasks": BOTH, "preset": "micro"} | kwargs))


def begin(task: int | str = 0, **kwargs: Any) -> PixelReasonEnv:
    env = make(**kwargs)
    env.reset(seed=0, options={"task": task})
    return env


def call(name: str, **arguments: Any) -> str:
    import json

    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def test_first_observation_of_an_image() -> None:
    observation, info = make().reset(options={"task": "image-0"})
    assert observation["text"].splitlines()[:4] == ["Image 1 (112x112): <image>", "Which one?", "(A) red", "(B) blue"]
    assert [image.shape for image in observation["images"]] == [(112, 112, 3)]
    assert (info["task_id"], info["suite"], info["correct"], info["score"]) == ("image-0", "search", None, None)
    assert "# Tools" in info["instructions"]


def test_first_observation_of_a_video() -> None:
    observation, _ = make().reset(options={"task": 1})
    assert observation["text"].count("<image>") == len(observation["images"]) == 16
    assert [int(image.mean()) for image in observation["images"]] == [10 * index for index in range(16)]


def test_a_crop_shows_pixels_the_first_view_lost() -> None:
    env = make(tasks=tasks(image_task(checkerboard(448, 448))))
    first, _ = env.reset()
    crop, *_ = env.step(call("crop_image", bbox_2d=[0, 0, 7, 7], target_image=1))
    again, *_ = env.step(call("crop_image", bbox_2d=[0, 0, 28, 28], target_image=2))
    assert np.ptp(first["images"][0]) < 10
    assert np.ptp(crop["images"][0]) > 200
    assert np.ptp(again["images"][0]) > 200  # the crop of a crop too is cut from the source


def test_selected_frames_and_a_crop_of_one() -> None:
    env = begin(1)
    observation, reward, terminated, truncated, info = env.step("Look. select_frames([3, 16])")
    assert [int(image.mean()) for image in observation["images"]] == [20, 150]
    assert [image.shape for image in observation["images"]] == [(84, 112, 3)] * 2
    assert observation["text"].startswith("Image 17 is frame 3 (1.0 s), 112x84: <image>")
    assert (reward, terminated, truncated, info["operation"], info["operation_error"]) == (
        0.0, False, False, "select_frames", None,
    )  # fmt: skip
    observation, *_, info = env.step("crop_image([0, 0, 50, 50], 18)")
    assert int(observation["images"][0].mean()) == 150
    assert (info["num_operations"], info["num_errors"], info["views"][0].frame) == (2, 0, 15)
    assert len(env.shown) == 19


@pytest.mark.parametrize(
    ("answer", "correct", "parse_failure"),
    [(r"so \boxed{B}", True, False), (r"\boxed{A}", False, False), (r"\boxed{}", False, True)],
)
def test_an_answer_terminates(answer: str, correct: bool, parse_failure: bool) -> None:
    env = begin()
    observation, reward, terminated, truncated, info = env.step(answer)
    assert (reward, terminated, truncated) == (float(correct), True, False)
    assert (info["correct"], info["score"], info["parse_failure"]) == (correct, float(correct), parse_failure)
    assert info["reward_terms"] == {"correctness": float(correct)}
    assert observation["images"] == ()
    with pytest.raises(ResetNeeded, match="after the end of an episode"):
        env.step(answer)


def test_the_last_turn_truncates_unless_it_answers() -> None:
    env = begin(max_turns=2)
    assert env.step("hm")[2:4] == (False, False)
    _, reward, terminated, truncated, info = env.step("crop_image([0, 0, 50, 50])")
    assert (reward, terminated, truncated, info["correct"], info["score"]) == (0.0, False, True, False, 0.0)
    env.reset(options={"task": 0})
    env.step("hm")
    assert env.step(r"\boxed{B}")[1:4] == (1.0, True, False)  # never both


MISTAKES = [
    # turn, task, code, counts as a call, what the text must hold
    ("crop_image([50, 10, 20, 30])", 0, "inverted_box", True, "[50, 10, 20, 30] is inverted"),
    ("crop_image([5, 5, 5, 5])", 0, "empty_box", True, "[5, 5, 5, 5] is empty"),
    ("crop_image([NaN, 0, 9, 9])", 0, "not_finite", True, "[nan, 0, 9, 9]"),
    ("crop_image([-9, -9, -1, -1])", 0, "outside_box", True, "[-9, -9, -1, -1] lies outside image 1"),
    ("crop_image([200, 0, 300, 9])", 0, "outside_box", True, "covers [0, 0, 112, 112]"),
    ("crop_image([0, 0, 9, 9], 0)", 0, "unknown_image", True, "target_image 0 does not exist; images 1 to 1"),
    ("crop_image([0, 0, 9, 9], 2)", 0, "unknown_image", True, "target_image 2 does not exist"),
    (call("crop_image", bbox_2d=["a", 0, 1, 1], target_image=1), 0, "malformed_call", True, "four numbers"),
    (call("crop_image", bbox_2d=[0, 0, 1], target_image=1), 0, "malformed_call", True, "four numbers"),
    (call("crop_image", bbox_2d=[0, 0, 9, 9], target_image="1"), 0, "malformed_call", True, "as an integer"),
    (call("crop_image", bbox_2d=[0, 0, 9, 9]), 0, "malformed_call", True, "missing target_image"),
    (call("zoom_in", bbox_2d=[0, 0, 9, 9]), 0, "malformed_call", True, "zoom_in"),
    ("select_frames([1])", 0, "not_a_video", True, "Use crop_image"),  # wrong operation for the medium
    ("select_frames([0])", 1, "unknown_frame", True, "[0] do not exist; frames are numbered 1 to 16"),
    ("select_frames([17])", 1, "unknown_frame", True, "[17]"),
    ("select_frames([])", 1, "no_frames", True, "at least one frame"),
    ("select_frames([2, 2])", 1, "repeated_frame", True, "[2, 2] names a frame twice"),
    ("select_frames([1, 2, 3, 4, 5, 6, 7, 8, 9])", 1, "too_many_frames", True, "holds 9 frames; at most 8"),
    (call("select_frames", target_frames=[1.5]), 1, "malformed_call", True, "1.5"),
    ("crop_image([0, 0, 9, 9]) crop_image([0, 0, 8, 8])", 0, "malformed_call", True, "got 2 calls"),
    ('<tool_call>{"name": "crop_image"', 0, "malformed_call", True, "not complete"),  # unclosed tag
    ("<tool_call>{nonsense}</tool_call>", 0, "malformed_call", True, "valid JSON"),
    (f"<tool_call>{'[' * 100_000}</tool_call>", 0, "malformed_call", True, "100000"),  # huge JSON
    ("I think it is blue.", 0, None, False, "neither a call nor an answer"),
    ("", 0, None, False, "neither a call nor an answer"),
    ("<image><|image_pad|><|im_end|>", 0, None, False, "neither"),
    ("\ud800\x00", 0, None, False, "neither"),
]


@pytest.mark.parametrize(("turn", "task", "code", "called", "fragment"), MISTAKES)
def test_mistakes_cost_a_turn_and_are_explained(
    turn: str, task: int, code: str | None, called: bool, fragment: str
) -> None:
    env = begin(task)
    before = len(env.shown)
    observation, reward, terminated, truncated, info = env.step(turn)
    assert fragment in observation["text"]
    assert observation["text"].startswith("Error: ") and observation["text"].endswith("Turns left: 4.")
    assert observation["images"] == () and "<image>" not in observation["text"]
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info["operation_error"] == code
    assert info["malformed"] is (code in (None, "malformed_call"))
    assert (info["num_operations"], info["num_errors"]) == (int(called), int(called))
    assert len(env.shown) == before
    assert observation in env.observation_space


def test_a_box_cut_to_the_image_is_flagged_but_no_mistake() -> None:
    observation, *_, info = begin().step("crop_image([-20, 0, 56, 56])")
    assert "reached over the border of image 1; it was cut to [0, 0, 56, 56]" in observation["text"]
    assert (info["clamped"], info["operation_error"], info["num_errors"]) == (True, None, 0)


def test_a_turn_with_a_complete_call_is_a_call() -> None:
    _, _, terminated, _, info = begin().step(r"\boxed{B} or rather crop_image([0, 0, 50, 50])")
    assert not terminated and info["operation"] == "crop_image"


@pytest.mark.parametrize("action", [None, 3, b"crop", ["a"], {"name": "crop_image"}])
def test_an_action_that_is_not_text_raises(action: Any) -> None:
    with pytest.raises(TypeError, match="expected the action as a str, got"):
        begin().step(action)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.text(), st.text("<>{}[]0,tool_calcrop_image/\\boxed ")), max_size=5), st.sampled_from([0, 1])
)
def test_no_string_raises(turns: list[str], task: int) -> None:
    env = begin(task)
    for turn in turns:
        observation, _, terminated, truncated, _ = env.step(turn)
        assert observation in env.observation_space
        assert observation["text"].count("<image>") == len(observation["images"])
        assert not (terminated and truncated)
        if terminated or truncated:
            break


def test_text_of_a_task_never_makes_a_marker() -> None:
    task = image_task(question="What does <image> mean? <ima<image>ge>", choices=("<image>", "blue"))
    observation, _ = make(tasks=tasks(task)).reset()
    assert observation["text"].count("<image>") == 1


def test_padding_coordinates_and_budgets_have_effect() -> None:
    box = call("crop_image", bbox_2d=[0.25, 0.25, 0.5, 0.5], target_image=1)
    views = {
        name: begin(coordinates="fraction", **kwargs).step(box)[-1]["views"][0]
        for name, kwargs in {"plain": {}, "padded": {"crop_padding": 0.1}, "small": {"crop_pixels": 56 * 56}}.items()
    }
    assert views["plain"].region == (112, 112, 224, 224)
    assert views["padded"].region == pytest.approx((67.2, 67.2, 268.8, 268.8))
    assert (views["plain"].size, views["small"].size) == ((112, 112), (56, 56))
    observation, _ = make(view_pixels=128 * 128, crop_pixels=128 * 128, factor=32).reset(options={"task": 0})
    assert observation["images"][0].shape == (128, 128, 3)
    observation, _ = make(num_frames=4).reset(options={"task": 1})
    assert len(observation["images"]) == 4


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"preset": "tiny"}, ValueError, "expected preset to be one of 'standard', 'micro', got 'tiny'"),
        ({"coordinates": "percent"}, ValueError, "expected coordinates to be one of"),
        ({"reward_variant": "mine"}, ValueError, "expected reward_variant to be one of 'paper', 'released'"),
        ({"max_turns": 0}, ValueError, "expected max_turns of at least 1, got 0"),
        ({"max_turns": 2.5}, TypeError, r"expected max_turns as an int, got 2\.5"),
        ({"max_turns": True}, TypeError, "expected max_turns as an int, got True"),
        ({"num_frames": "16"}, TypeError, "expected num_frames as an int, got '16'"),
        ({"max_selected_frames": 0}, ValueError, "expected max_selected_frames of at least 1"),
        ({"factor": 0}, ValueError, "expected factor of at least 1"),
        ({"view_pixels": 100}, ValueError, r"expected view_pixels of at least factor\*\*2 = 784"),
        ({"crop_pixels": 100}, ValueError, r"expected crop_pixels of at least factor\*\*2 = 784"),
        ({"crop_padding": -0.1}, ValueError, "expected crop_padding finite and from 0 to 1, got -0.1"),
        ({"crop_padding": None}, TypeError, "expected crop_padding as a number, got None"),
        ({"alpha": float("nan")}, ValueError, "expected alpha finite"),
        ({"alpha": float("inf")}, ValueError, "expected alpha finite"),
        ({"beta": -1}, ValueError, "expected beta finite"),
        ({"threshold": 1.5}, ValueError, "expected threshold finite and from 0 to 1"),
        ({"limit": -1}, ValueError, "expected limit of at least 0"),
        ({"render_mode": "ascii"}, ValueError, "expected render_mode to be None, 'rgb_array' or 'human', got 'ascii'"),
        ({"tasks": 3}, TypeError, "expected tasks with a length, indexing and index"),
        ({"tasks": tasks()}, ValueError, "expected tasks to hold at least one task"),
        ({"tasks": None, "suite": "chess"}, ValueError, "chess"),
        ({"tasks": None, "suite": []}, ValueError, "suites"),
        ({"tasks": None, "split": "dev"}, ValueError, "dev"),
        ({"tasks": None, "difficulty": 4}, ValueError, "4"),
        ({"tasks": None, "difficulty": [1, 9]}, ValueError, "9"),
    ],
)
def test_wrong_arguments(kwargs: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(**kwargs)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"task": 2}, ValueError, "expected a task index from 0 to 1, got 2"),
        ({"task": -1}, ValueError, "expected a task index from 0 to 1, got -1"),
        ({"task": "nowhere"}, ValueError, "nowhere"),
        ({"task": 1.0}, TypeError, r"expected the option 'task' as an index or an id, got 1\.0"),
        ({"tsk": 1}, ValueError, r"expected no reset option but 'task', got \['tsk'\]"),
    ],
)
def test_wrong_reset_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make().reset(options=options)


def test_step_before_reset() -> None:
    with pytest.raises(ResetNeeded, match="expected reset before"):
        make().step("hm")


def test_a_pickled_episode_goes_on_alike() -> None:
    env = begin()
    env.step("crop_image([0, 0, 50, 50])")
    twin = pickle.loads(pickle.dumps(env))
    for turn in ("crop_image([9, 9, 50, 50], 2)", r"\boxed{B}"):
        here, there = env.step(turn), twin.step(turn)
        assert repr(here[1:]) == repr(there[1:]) and here[0]["text"] == there[0]["text"]
        assert all(map(np.array_equal, here[0]["images"], there[0]["images"]))


def test_observations_are_fresh_arrays() -> None:
    env = make()
    first, _ = env.reset(options={"task": 0})
    kept = first["images"][0].copy()
    first["images"][0][:] = 0
    again, _ = env.reset(options={"task": 0})
    assert np.array_equal(again["images"][0], kept)


@pytest.mark.parametrize("task", [0, 1])
def test_the_canvas_keeps_its_size_and_shows_what_was_visited(task: int) -> None:
    env = begin(task, render_mode="rgb_array")
    frames = [env.render()]
    for turn in ("crop_image([10, 10, 50, 25])", "hm", "select_frames([2])" if task else "crop_image([0, 0, 9, 9], 2)"):
        env.step(turn)
        frames.append(env.render())
    assert {frame.shape for frame in frames} == {(544, 960, 3)} and frames[0].dtype == np.uint8
    assert (frames[0] != frames[1]).any() and (frames[2] != frames[3]).any()
    assert (frames[1] == frames[2]).all()  # nothing new was shown
    box_colour = np.array(render_module.COLOURS[len(env.shown) % len(render_module.COLOURS)])
    assert (frames[3][:, :480] == box_colour).all(axis=-1).any() and not (frames[0] == box_colour).all(axis=-1).any()


def test_no_render_mode_renders_nothing() -> None:
    assert begin().render() is None


def test_human_rendering_needs_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixel_env.env.window_possible", lambda: False)
    with pytest.raises(RuntimeError, match="needs a display and Python with tkinter"):
        make(render_mode="human")
    assert make().metadata["render_modes"] == ["rgb_array"]


def test_human_rendering_keeps_a_window_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Any] = []

    class FakeWindow:
        def __init__(self, title: str) -> None:
            events.append(title)

        def show(self, picture: np.ndarray) -> None:
            events.append(picture.shape)

        def close(self) -> None:
            events.append("closed")

    monkeypatch.setattr("pixel_env.env.window_possible", lambda: True)
    monkeypatch.setattr("pixel_env.env.Window", FakeWindow)
    env = begin(render_mode="human")
    env.step("hm")
    assert env.render() is None
    env.close()
    env.close()
    assert events == ["PixelReasonEnv", (544, 960, 3), (544, 960, 3), "closed"]


def test_a_source_below_one_cell_is_enlarged_to_it() -> None:
    tiny = image_task(media=ArraySource((checkerboard(5, 3),)))
    observation, _ = make(tasks=tasks(tiny)).reset()
    assert observation["images"][0].shape == (28, 28, 3)


def test_an_operation_that_is_not_offered_is_an_error() -> None:
    env = begin(operations=["crop_image"])
    observation, _, _, _, info = env.step("select_frames([1])")
    assert observation["text"] == "Error: select_frames is not available; crop_image is. Turns left: 4."
    assert (info["operation_error"], info["num_operations"], info["num_errors"]) == ("not_offered", 1, 1)
    observation, _, _, _, info = env.step("crop_image([10, 10, 50, 25])")
    assert len(observation["images"]) == 1 and info["num_errors"] == 1


def test_a_model_without_tools_reads_nothing_of_them() -> None:
    env = make(operations=())
    first, begun = env.reset(options={"task": 0})
    said = [begun["instructions"], first["text"]]
    for turn in ("crop_image([10, 10, 50, 25])", "<tool_call>{", "well"):
        observation, _, terminated, _, info = env.step(turn)
        assert observation["images"] == () and not terminated
        said.append(observation["text"])
    assert (info["num_operations"], info["num_errors"], info["malformed"]) == (2, 2, True)
    assert not [text for text in said for word in ("tool", "crop_image", "select_frames") if word in text]
    assert env.step(r"\boxed{B}")[1:3] == (1.0, True)


@pytest.mark.parametrize(("names", "error"), [("crop_image", TypeError), (["zoom"], ValueError)])
def test_operations_are_a_list_of_known_names(names: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="operations"):
        make(operations=names)
