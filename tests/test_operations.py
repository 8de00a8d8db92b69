"""What crop_image and select_frames show, in numbers."""

import math

import numpy as np
import pytest
from fakes import ArraySource, ramp, video_task
from hypothesis import given
from hypothesis import strategies as st

from pixel_env.actions import CropImage, SelectFrames
from pixel_env.operations import View, crop_image, extent, first_views, select_frames
from pixel_env.settings import ViewSettings

SOURCE = ArraySource((ramp(896, 448),))
MICRO = ViewSettings(view_pixels=112 * 112, crop_pixels=112 * 112)
FIRST = View(frame=0, region=(0, 0, 896, 448), size=(140, 56))


def settings(**changes: object) -> ViewSettings:
    return ViewSettings(view_pixels=112 * 112, crop_pixels=112 * 112, **changes)  # type: ignore[arg-type]


def test_first_view_is_the_whole_image() -> None:
    assert first_views(SOURCE, MICRO) == (FIRST,)


def test_first_views_of_a_video_share_the_budget_and_spread_evenly() -> None:
    views = first_views(video_task(32).media, settings(num_frames=4))
    assert [view.frame for view in views] == [4, 12, 20, 28]
    assert {view.size for view in views} == {(56, 28)}  # of 448 x 336 in 3136 pixels: 64 x 48, down to cells
    assert {view.size for view in first_views(video_task(32).media, MICRO)} == {(28, 28)}  # 16 frames: a cell each
    assert {view.size for view in first_views(video_task(3).media, MICRO)} == {(56, 28)}  # 4181 pixels each
    large = ViewSettings(view_pixels=1280 * 784, crop_pixels=640 * 784)
    assert {view.size for view in first_views(video_task(16).media, large)} == {(280, 196)}  # 62720: 289 x 216


@pytest.mark.parametrize(
    ("coordinates", "bbox"),
    [
        ("pixel", (35, 14, 70, 28)),  # of the image as shown, 140 x 56
        ("fraction", (0.25, 0.25, 0.5, 0.5)),
        ("thousandth", (250, 250, 500, 500)),
    ],
)
def test_the_same_box_in_every_convention(coordinates: str, bbox: tuple[float, float, float, float]) -> None:
    result = crop_image(CropImage(bbox, 0), [FIRST], SOURCE, settings(coordinates=coordinates))
    assert result.error is None and not result.clamped
    assert result.views[0].region == (224, 112, 448, 224)  # a quarter to a half of 896 x 448
    assert result.views[0].size == (140, 56)
    assert result.text == "Image 2 (140x56), cut from image 1: <image>"


def test_fraction_one_is_the_border() -> None:
    """The release took a box touching 1.0 for pixels and showed the top left corner."""
    result = crop_image(CropImage((0.5, 0.5, 1.0, 1.0), 0), [FIRST], SOURCE, settings(coordinates="fraction"))
    assert result.views[0].region == (448, 224, 896, 448)


def test_a_crop_of_a_crop_is_cut_from_the_source() -> None:
    first_crop = crop_image(CropImage((35, 14, 70, 28), 0), [FIRST], SOURCE, MICRO).views[0]
    result = crop_image(CropImage((70, 28, 140, 56), 1), [FIRST, first_crop], SOURCE, MICRO)
    assert result.views[0].region == (336, 168, 448, 224)  # the lower right quarter of (224, 112, 448, 224)
    assert result.text.startswith("Image 3 (140x56), cut from image 2")


def test_clamping_is_reported_in_the_convention_of_the_box() -> None:
    result = crop_image(CropImage((-10, 14, 70, 99.5), 0), [FIRST], SOURCE, MICRO)
    assert result.clamped and result.error is None
    assert result.views[0].region == (0, 112, 448, 448)
    assert result.text.splitlines()[0] == (
        "The box [-10, 14, 70, 99.5] reached over the border of image 1; it was cut to [0, 14, 70, 56]."
    )


def test_padding_is_a_fraction_of_the_image_shown() -> None:
    bbox = (0.2, 0.2, 0.3, 0.3)
    padded = settings(coordinates="fraction", crop_padding=0.1)
    square = ArraySource((ramp(1000, 1000),))
    shown = first_views(square, padded)
    result = crop_image(CropImage(bbox, 0), shown, square, padded)
    assert result.views[0].region == pytest.approx((100, 100, 400, 400))  # nine times the area, as in the release
    corner = crop_image(CropImage((0.0, 0.0, 0.3, 0.3), 0), shown, square, padded)
    assert corner.views[0].region == pytest.approx((0, 0, 400, 400)) and not corner.clamped  # only the margin was cut


BAD_BOXES = [
    ((50, 14, 20, 28), 0, "inverted_box", "bbox_2d [50, 14, 20, 28] is inverted: it needs x1 < x2 and y1 < y2."),
    ((20, 28, 50, 14), 0, "inverted_box", "[20, 28, 50, 14]"),
    ((20, 14, 20, 28), 0, "empty_box", "bbox_2d [20, 14, 20, 28] is empty"),
    ((math.nan, 0, 9, 9), 0, "not_finite", "four finite numbers, got [nan, 0, 9, 9]"),
    ((0, 0, math.inf, 9), 0, "not_finite", "got [0, 0, Infinity, 9]"),
    ((-9, -9, 0, 0), 0, "outside_box", "[-9, -9, 0, 0] lies outside image 1, which covers [0, 0, 140, 56]"),
    ((140, 0, 150, 9), 0, "outside_box", "which covers [0, 0, 140, 56]"),  # half-open: 140 is the border
    ((10, 10, 10.1, 20), 0, "tiny_box", "covers 0.64 x 80 pixels of the original, at least 1 x 1 is needed"),
    ((0, 0, 9, 9), 1, "unknown_image", "target_image 2 does not exist; images 1 to 1 have been shown"),
    ((0, 0, 9, 9), -1, "unknown_image", "target_image 0 does not exist"),
    ((0, 0, 9, 9), 10**300, "unknown_image", "target_image 1.00e+300 does not exist"),
]


@pytest.mark.parametrize(("bbox", "image", "code", "fragment"), BAD_BOXES)
def test_bad_boxes_are_explained(bbox: tuple[float, ...], image: int, code: str, fragment: str) -> None:
    result = crop_image(CropImage(tuple(map(float, bbox)), image), [FIRST], SOURCE, MICRO)  # type: ignore[arg-type]
    assert (result.views, result.error) == ((), code)
    assert fragment in result.text


number = st.one_of(st.floats(-300, 300), st.floats())


@given(
    st.tuples(number, number, number, number),
    st.tuples(number, number, number, number),
    st.sampled_from(["pixel", "fraction", "thousandth"]),
    st.floats(0, 1),
    st.integers(30, 3000),
    st.integers(30, 3000),
)
def test_crops_stay_inside_the_source_and_the_budget(
    first: tuple[float, float, float, float],
    second: tuple[float, float, float, float],
    coordinates: str,
    padding: float,
    width: int,
    height: int,
) -> None:
    source = ArraySource((np.empty((height, width, 3), np.uint8),))
    config = settings(coordinates=coordinates, crop_padding=padding)
    shown = list(first_views(source, config))
    for bbox in (first, second):
        parent = shown[-1]
        limits = extent(parent.size, coordinates)
        scaled = tuple(value * limits[side % 2] / 200 for side, value in enumerate(bbox))
        result = crop_image(CropImage(scaled, len(shown) - 1), shown, source, config)  # type: ignore[arg-type]
        assert (result.error is None) == (len(result.views) == 1)
        for crop in result.views:
            x1, y1, x2, y2 = crop.region
            left, top, right, bottom = parent.region
            assert left <= x1 <= x2 - 0.999 and x2 <= right
            assert top <= y1 <= y2 - 0.999 and y2 <= bottom
            assert crop.size[0] % 28 == crop.size[1] % 28 == 0
            assert crop.size[0] * crop.size[1] <= 112 * 112
            shown.append(crop)


def test_selected_frames_come_larger_with_number_and_time() -> None:
    source = video_task().media
    shown = first_views(source, MICRO)
    result = select_frames(SelectFrames((2, 15)), shown, source, MICRO)
    assert [view.frame for view in result.views] == [2, 15]
    assert (shown[2].size, result.views[0].size) == ((28, 28), (112, 84))  # one sixteenth of the budget: a cell
    assert result.text.splitlines() == [
        "Image 17 is frame 3 (1.0 s), 112x84: <image>",
        "Image 18 is frame 16 (7.5 s), 112x84: <image>",
    ]


def test_frame_numbers_are_those_shown_when_the_video_is_longer() -> None:
    source = video_task(32).media
    config = settings(num_frames=4)
    result = select_frames(SelectFrames((3,)), first_views(source, config), source, config)
    assert [view.frame for view in result.views] == [28]
    assert result.text == "Image 5 is frame 4 (14.0 s), 112x84: <image>"


def test_a_crop_of_a_selected_frame_is_of_that_frame() -> None:
    source = video_task().media
    shown = [
        *first_views(source, MICRO),
        *select_frames(SelectFrames((2,)), first_views(source, MICRO), source, MICRO).views,
    ]
    assert crop_image(CropImage((0, 0, 56, 42), 16), shown, source, MICRO).views[0].frame == 2


@pytest.mark.parametrize(
    ("frames", "code", "fragment"),
    [
        ((), "no_frames", "target_frames is empty; give at least one frame number from 1 to 16"),
        ((-1,), "unknown_frame", "target_frames [0] do not exist; frames are numbered 1 to 16"),  # frame 0
        ((-4, 3), "unknown_frame", "[-3]"),
        ((16,), "unknown_frame", "[17]"),
        ((10**300,), "unknown_frame", "[1.00e+300]"),
        ((1, 2, 1), "repeated_frame", "target_frames [2, 3, 2] names a frame twice"),
        (tuple(range(9)), "too_many_frames", "holds 9 frames; at most 8"),
        (tuple(range(100, 1100)), "unknown_frame", "..."),  # a long list is shortened
    ],
)
def test_bad_selections_are_explained(frames: tuple[int, ...], code: str, fragment: str) -> None:
    source = video_task().media
    result = select_frames(SelectFrames(frames), first_views(source, MICRO), source, MICRO)
    assert (result.views, result.error) == ((), code)
    assert fragment in result.text and len(result.text) < 300


def test_select_frames_needs_a_video() -> None:
    result = select_frames(SelectFrames((0,)), [FIRST], SOURCE, MICRO)
    assert result.error == "not_a_video" and "Use crop_image" in result.text
