"""Spaces say what they contain, sample from it, and travel between processes."""

import pickle
from collections import Counter
from copy import deepcopy

import numpy as np
import pytest
from gymnasium.spaces import Space
from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory, write_to_shared_memory

from pixel_env.actions import Answer, CropImage, Malformed, SelectFrames, parse
from pixel_env.settings import ViewSettings
from pixel_env.shared_memory import TEXT_BYTES
from pixel_env.spaces import ActionText, AnyText, ImageList, action_space, image_space

MICRO = ViewSettings(view_pixels=112 * 112, crop_pixels=112 * 112)
IMAGES = ImageList(max_images=3, max_pixels=112 * 112, max_total_pixels=2 * 112 * 112, factor=28)


def black(height: int, width: int) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


@pytest.mark.parametrize("text", ["", "ascii", "图像 \U0001f50d é", "a\ud800", "x" * 10**6, "<image>\x00\n"])
def test_any_text_is_contained(text: str) -> None:
    assert text in AnyText() and text in action_space(MICRO)


@pytest.mark.parametrize("thing", [None, 3, b"bytes", ["a"], np.array("a")])
def test_only_text_is_contained(thing: object) -> None:
    assert thing not in AnyText() and thing not in action_space(MICRO)


def test_action_samples_are_calls_answers_and_junk() -> None:
    space = action_space(MICRO)
    space.seed(0)
    kinds = Counter(type(parse(space.sample())) for _ in range(500))
    assert all(kinds[kind] >= 50 for kind in (CropImage, SelectFrames, Answer)) and kinds[Malformed] >= 30


@pytest.mark.parametrize(("coordinates", "extent"), [("pixel", 112), ("fraction", 1), ("thousandth", 1000)])
def test_sampled_boxes_follow_the_convention(coordinates: str, extent: float) -> None:
    space = action_space(ViewSettings(112 * 112, 112 * 112, coordinates=coordinates))
    space.seed(0)
    drawn = [parse(space.sample()) for _ in range(200)]
    corners = [action.bbox[2] for action in drawn if isinstance(action, CropImage) and action.bbox[0] < action.bbox[2]]
    assert 0.8 * extent < max(corners) <= extent


@pytest.mark.parametrize("space", [AnyText(), action_space(MICRO), IMAGES], ids=repr)
def test_sampling_is_seeded_and_survives_pickling(space: Space[object]) -> None:
    space.seed(7)
    twin = pickle.loads(pickle.dumps(space))
    assert twin == space
    drawn = [space.sample() for _ in range(20)]
    assert all(item in space for item in drawn)
    assert all(np.array_equal(a, b) if isinstance(a, np.ndarray) else repr(a) == repr(b)
               for a, b in zip(drawn, [twin.sample() for _ in range(20)], strict=True))  # fmt: skip


def test_equality() -> None:
    assert AnyText() == AnyText() != action_space(MICRO)
    assert ActionText(112, 0, 16, 8) == action_space(MICRO) != ActionText(1, 3, 16, 8)
    assert IMAGES != image_space(MICRO)


def test_image_space_of_the_presets() -> None:
    space = image_space(MICRO)
    assert tuple(black(112, 112) for _ in range(8)) in space  # eight selected frames
    assert tuple(black(56, 56) for _ in range(16)) in space  # sixteen first frames
    assert tuple(black(112, 112) for _ in range(9)) not in space


@pytest.mark.parametrize(
    ("thing", "reason"),
    [
        ([black(28, 28)], "a list"),
        ((black(28, 28).astype(float),), "not uint8"),
        ((black(28, 30),), "not a multiple of the factor"),
        ((black(112, 140),), "above the budget of an image"),
        ((black(112, 112),) * 3, "above the budget of all"),
        ((black(28, 28),) * 4, "too many"),
        ((np.zeros((28, 28), np.uint8),), "no colours"),
        ((black(0, 28),), "nothing to see"),
    ],
)
def test_what_is_not_an_image_list(thing: object, reason: str) -> None:
    assert thing not in IMAGES, reason
    assert () in IMAGES and (black(28, 56), black(112, 112)) in IMAGES


@pytest.mark.parametrize("space", [action_space(MICRO), IMAGES], ids=repr)
def test_masks_are_refused(space: Space[object]) -> None:
    with pytest.raises(ValueError, match="expected neither mask nor probability"):
        space.sample(mask=(1, None))


def test_images_travel_through_shared_memory() -> None:
    IMAGES.seed(0)
    memory = create_shared_memory(IMAGES, n=2)
    live = read_from_shared_memory(IMAGES, memory, n=2)
    assert deepcopy(live) == ((), ())
    first, second = (black(28, 56) + 1, black(112, 112) + 2), (black(56, 28) + 3,)
    write_to_shared_memory(IMAGES, 0, first, memory)
    write_to_shared_memory(IMAGES, 1, second, memory)
    kept = deepcopy(live)
    write_to_shared_memory(IMAGES, 0, (), memory)
    assert live[0] == () and [image.shape for image in kept[0]] == [(28, 56, 3), (112, 112, 3)]
    assert all(np.array_equal(a, b) for a, b in zip(kept[0] + kept[1], first + second, strict=True))


def test_text_travels_through_shared_memory() -> None:
    memory = create_shared_memory(AnyText(), n=2)
    live = read_from_shared_memory(AnyText(), memory, n=2)
    write_to_shared_memory(AnyText(), 1, "图 \ud800", memory)
    assert (len(live), live[0], live[-1]) == (2, "", "图 \ud800")
    with pytest.raises(ValueError, match="shared_memory=False"):
        write_to_shared_memory(AnyText(), 0, "x" * (TEXT_BYTES + 1), memory)
