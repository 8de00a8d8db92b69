"""Sentences: markers, conventions, and what untrusted text can do."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixel_env import prompts
from pixel_env.actions import SCHEMAS


@pytest.mark.parametrize(
    ("coordinates", "unit"), [("pixel", "pixels"), ("fraction", "fractions"), ("thousandth", "thousandths")]
)
def test_instructions_hold_the_schemas_and_the_convention(coordinates: str, unit: str) -> None:
    text = prompts.instructions(coordinates)
    block = text.split("<tools>\n")[1].split("\n</tools>")[0]
    assert [json.loads(line) for line in block.splitlines()] == list(SCHEMAS)
    assert unit in text.splitlines()[-1]
    assert prompts.IMAGE_MARKER not in text


def test_first_observation_of_an_image() -> None:
    text = prompts.image_line(0, (112, 84)) + "\n" + prompts.question_lines("What?", ("red", "blue"), max_turns=5)
    lines = text.splitlines()
    assert lines[:4] == ["Image 1 (112x84): <image>", "What?", "(A) red", "(B) blue"]
    assert "5 turns" in lines[4] and r"\boxed{}" in lines[4]


def test_first_observation_of_a_video() -> None:
    assert prompts.video_lines([0.0, 0.5], (56, 28)).splitlines() == [
        "Video of 2 frames, 56x28 each. Frame k is image k.",
        "Frame 1 (0.0 s): <image>",
        "Frame 2 (0.5 s): <image>",
    ]


@given(st.lists(st.sampled_from([*"<image> ", "<image>", "<ima", "ge>"])).map("".join), st.text())
def test_no_text_of_a_task_makes_a_marker(question: str, choice: str) -> None:
    assert prompts.IMAGE_MARKER not in prompts.question_lines(question, (choice, question), max_turns=5)
    assert prompts.IMAGE_MARKER not in prompts.error_line(question, turns_left=1)


def test_lone_surrogates_become_question_marks() -> None:
    assert prompts.plain("a\ud800b") == "a?b"
    assert prompts.plain("ünï 图 \U0001f50d <|im_end|>") == "ünï 图 \U0001f50d <|im_end|>"  # all else stays


@given(st.floats() | st.integers())
def test_numbers_are_brief(value: float) -> None:
    assert len(prompts.number(value)) < 20


def test_errors_end_with_the_turns_left() -> None:
    assert prompts.error_line("no", 2) == prompts.error_line("no.", 2) == "Error: no. Turns left: 2."


def test_without_operations_nothing_is_said_of_them() -> None:
    assert prompts.instructions("pixel", ()) == "You are a helpful assistant."
    assert prompts.question_lines("Why?", (), 3, ()) == (
        "Why?\nLook at the visual input and the question. You have 3 turns. Put the final answer within \\boxed{}."
    )


def test_one_operation_is_offered_alone() -> None:
    text = prompts.instructions("pixel", ("select_frames",)) + prompts.question_lines("Why?", (), 3, ("select_frames",))
    assert "select_frames to see frames of a video larger. You have 3 turns, one call a turn." in text
    assert "crop_image" not in text and "bbox_2d" not in text
