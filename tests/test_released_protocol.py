"""The protocol of the release: what is read against a text written by hand, and its rules against numbers by hand."""

import json
from typing import Any

import numpy as np
import pytest
from fakes import ArraySource, image_task, ramp, tasks, video_task
from hypothesis import given
from hypothesis import strategies as st

from pixel_env import PixelReasonEnv
from pixel_env.actions import Answer, CropImage, Malformed
from pixel_env.released_protocol import VIDEO_PIXELS, read_turn, resized

SYSTEM = """You are a helpful assistant.

# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{"type": "function", "function": {"name": "crop_image_normalized", "description": "Zoom in on the image based on the bounding box coordinates. It is useful when the object or text in the image is too small to be seen.", "parameters": {"type": "object", "properties": {"bbox_2d": {"type": "array", "description": "coordinates for bounding box of the area you want to zoom in. Values should be within [0.0,1.0].", "items": {"type": "number"}}, "target_image": {"type": "number", "description": "The index of the image to crop. Index from 1 to the number of images. Choose 1 to operate on original image."}}, "required": ["bbox_2d", "target_image"]}}}
{"type": "function", "function": {"name": "select_frames", "description": "Select frames from a video.", "parameters": {"type": "object", "properties": {"target_frames": {"type": "array", "description": "List of frame indices to select from the video (no more than 8 frames in total).", "items": {"type": "integer", "description": "Frame index from 1 to 16."}}}, "required": ["target_frames"]}}}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""  # noqa: E501

FIRST = """<image>Which one?
(A) red
(B) blue

Guidelines: Understand the given visual information and the user query. Determine if it is beneficial to employ the given visual operations (tools). For a video, we can look closer by `select_frames`. For an image, we can look closer by `crop_image`. Reason with the visual information step by step, and put your final answer within \\boxed{}."""  # noqa: E501

# A picture of 2000 x 1500 is stored at 1988 x 1512 (71 x 54 cells). A box from 0.2 to 0.3 grows by 0.1 on every side:
# 0.1 to 0.4, so 199 to 795 and 151 to 605, 596 x 454 pixels; that rounds to 21 x 16 cells, 588 x 448.
SECOND = "\nHere is the cropped image (Image Size: 588x448):<image>"


def env(*items: Any, **kwargs: Any) -> PixelReasonEnv:
    released: dict[str, Any] = {
        "protocol": "pixelreasoner", "view_pixels": VIDEO_PIXELS, "crop_pixels": 5120 * 784, "crop_padding": 0.1,
    }  # fmt: skip
    return PixelReasonEnv(tasks=tasks(*items), **(released | kwargs))


def call(name: str, **arguments: Any) -> str:
    return f"Let me look.\n<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def crop(*bbox: float, image: int = 1) -> str:
    return call("crop_image_normalized", bbox_2d=bbox, target_image=image)


def test_the_first_and_the_second_turn() -> None:
    made = env(image_task(ramp(2000, 1500)))
    first, info = made.reset()
    assert info["instructions"] == SYSTEM
    assert first["text"] == FIRST
    assert [image.shape for image in first["images"]] == [(1512, 1988, 3)]
    second, _, _, _, info = made.step(crop(0.2, 0.2, 0.3, 0.3))
    assert second["text"] == SECOND
    # The engine enlarges what is below 512 cells: 588 x 448 is 336 cells, scaled by 1.2344 and rounded up.
    assert [image.shape for image in second["images"]] == [(560, 728, 3)]
    assert info["views"][0].region == pytest.approx((200, 150, 800, 600))
    assert made.step(r"So \boxed{B}")[1:3] == (1.0, True)


def test_without_functions() -> None:
    first, info = env(image_task(), operations=()).reset()
    assert info["instructions"] == "You are a helpful assistant."
    assert first["text"].endswith("(B) blue\n\nPlease think step by step, and put your final answer within \\boxed{}.")


def test_a_coordinate_of_one_means_pixels() -> None:
    made = env(image_task(ramp(2000, 1000)))  # stored at 71 x 36 cells, 1988 x 1008
    made.reset()
    info = made.step(crop(0.5, 0.5, 1.0, 1.0))[4]
    # Half a pixel to one pixel, and a tenth of the image around it: the corner, as in the release.
    assert info["views"][0].region == pytest.approx((0, 0, 200 + 2000 / 1988, 100 + 1000 / 1008))


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        (crop(0.5, 0.5, 0.2, 0.2), "Cropped image is too small: -45x-45"),  # of 448 pixels: 179 to 134
        (crop(0.1, 0.1, 0.2, 0.2, image=4), "You can only select previous images within [1,1]"),
        (call("zoom", bbox_2d=[0, 0, 1, 1], target_image=1), "expected the name crop_image or select_frames"),
        (call("select_frames", target_frames=[1]), "select_frames works on a video"),
        ("<tool_call>{</tool_call>", "expected valid JSON in the call"),
        ("</tool_call>", "expected valid JSON in the call"),
    ],
)  # fmt: skip
def test_errors(turn: str, said: str) -> None:
    made = env(image_task())
    made.reset()
    observation, _, terminated, _, info = made.step(turn)
    assert observation["text"].startswith("\nExecution error:\n") and said in observation["text"]
    assert not terminated and info["num_errors"] == info["num_operations"] == 1 and observation["images"] == ()


def test_what_does_not_end_with_a_call_is_the_answer() -> None:
    assert read_turn(f"{crop(0, 0, 0.5, 0.5)} and so \\boxed{{C}}") == Answer("C")
    assert read_turn(f"{crop(0, 0, 0.5, 0.5)}\n") == Answer("")
    assert read_turn("") == Answer("")
    two = crop(0, 0, 0.5, 0.5) + crop(0.5, 0, 0.9, 0.5)
    assert read_turn(two) == CropImage((0.5, 0, 0.9, 0.5), 0)  # the last counts
    assert isinstance(read_turn(call("crop_image", bbox_2d=[0, 0, 1, 1], target_image=1)), Malformed)


@given(st.text() | st.text().map(lambda text: f"<tool_call>{text}</tool_call>"))
def test_any_text_is_read(text: str) -> None:
    assert isinstance(read_turn(text), Answer | Malformed)


def test_a_video() -> None:
    made = env(video_task())
    first, _ = made.reset()
    assert first["text"].startswith("<image>" * 16 + "How many?\n\nGuidelines:") and len(first["images"]) == 16
    assert {image.shape for image in first["images"]} == {(336, 448, 3)}  # 16 x 12 cells, nothing to shrink
    observation, _, _, _, info = made.step(call("select_frames", target_frames=[3, 16]))
    assert observation["text"] == "\nHere are the selected frames (Frame Size: 448x336, Numbered 1 to 2):<image><image>"
    assert [int(image.mean()) for image in observation["images"]] == [20, 150]
    assert [shot.frame for shot in info["views"]] == [2, 15]
    # From now on number 1 is the video, and the first selected frame is number 2.
    assert made.step(crop(0.1, 0.1, 0.2, 0.2, image=1))[4]["operation_error"] == "unknown_image"
    assert made.step(crop(0.1, 0.1, 0.2, 0.2, image=2))[4]["views"][0].frame == 2
    observation, *_ = made.step(call("select_frames", target_frames=list(range(1, 10))))
    assert "You have selected 9 frames in total." in observation["text"]


def test_large_frames_have_512_cells() -> None:
    frames = tuple(np.full((720, 1280, 3), 9, np.uint8) for _ in range(2))
    first, _ = env(video_task(media=ArraySource(frames))).reset()
    # 1280 x 720 is scaled by sqrt(512 * 784 / 921600) = 0.66: 844 x 475, so 30 x 16 cells.
    assert {image.shape for image in first["images"]} == {(448, 840, 3)}


@pytest.mark.parametrize("size", [(2000, 1500), (100, 50), (5000, 4000), (30, 3000), (1001, 997), (56, 84)])
@pytest.mark.parametrize("cells", [(256, 5120), (512, 5120), (256, 8000)])
def test_sizes_are_those_of_qwen(size: tuple[int, int], cells: tuple[int, int]) -> None:
    smart_resize = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl").smart_resize
    low, high = (count * 784 for count in cells)
    height, width = smart_resize(size[1], size[0], factor=28, min_pixels=low, max_pixels=high)
    assert resized(*size, (low, high), 28) == (width, height)


def test_small_budgets_stay_in_the_observation_space() -> None:
    small: dict[str, Any] = {"view_pixels": None, "crop_pixels": None, "preset": "micro"}
    made = env(image_task(), video_task(), **small)
    for task in (0, 1):
        observation, _ = made.reset(options={"task": task})
        assert observation in made.observation_space
        assert made.step(crop(0.1, 0.1, 0.3, 0.2))[0] in made.observation_space


def test_one_operation_alone_is_not_part_of_it() -> None:
    with pytest.raises(ValueError, match="both operations or none"):
        env(image_task(), operations=["crop_image"])
    with pytest.raises(ValueError, match="expected protocol to be one of 'native', 'pixelreasoner'"):
        env(image_task(), protocol="other")
