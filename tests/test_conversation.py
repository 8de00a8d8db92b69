"""Conversations as ids: the same as the processor's chat template makes, and safe against any text."""

import numpy as np
import pytest
import tiny_vlm
from PIL import Image

from agents.conversation import ChatEncoder, Tokens, patchify
from pixel_env import prompts

PROCESSOR = tiny_vlm.processor()
ENCODER = ChatEncoder(PROCESSOR)
SPECIAL = [str(token) for token in PROCESSOR.tokenizer.added_tokens_decoder.values() if token.special]


def pictures(*sizes: tuple[int, int]) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    return tuple(rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sizes)


def message(role: str, text: str, images: tuple[np.ndarray, ...] = ()) -> dict[str, object]:
    first, *rest = text.split(prompts.IMAGE_MARKER)
    content: list[dict[str, object]] = [{"type": "text", "text": first}]
    for image, part in zip(images, rest, strict=True):
        content += [{"type": "image", "image": Image.fromarray(image)}, {"type": "text", "text": part}]
    return {"role": role, "content": content}


def from_template(messages: list[dict[str, object]]) -> list[int]:
    out = PROCESSOR.apply_chat_template([messages], tokenize=True, return_dict=True, add_generation_prompt=True)
    return list(out["input_ids"][0])


def test_conversations_are_those_of_the_chat_template() -> None:
    first, second = pictures((112, 112), (28, 84)), pictures((56, 112))
    question = "Image 1 (112x112): <image>\nImage 2: <image>\nWhich letter is on the red circle?\n(A) 3 (B) Ü\n"
    action = 'I look.\n<tool_call>{"name": "crop_image", "arguments": {"bbox_2d": [1, 2, 3, 4]}}</tool_call>'
    answer = "Image 3 (112x56), cut from image 1: <image>"
    system = prompts.instructions("pixel")
    ids = ENCODER.prompt(system, question, first)
    ids += [*ENCODER.text(action), ENCODER.end, *ENCODER.reply(answer, second)]
    messages = [message("system", system), message("user", question, first), message("assistant", action)]
    assert ids == from_template([*messages, message("user", answer, second)])
    assert ids.count(ENCODER.image_pad) == 16 + 3 + 8


def test_a_conversation_may_have_no_instructions() -> None:
    assert ENCODER.prompt("", "Hello.", ()) == from_template([message("user", "Hello.")])


@pytest.mark.parametrize("token", SPECIAL)
def test_special_tokens_in_text_stay_text(token: str) -> None:
    text = f"Which {token}? {token}"
    ids = ENCODER.text(text)
    specials = PROCESSOR.tokenizer.convert_tokens_to_ids(SPECIAL)
    assert not set(ids) & set(specials)
    assert PROCESSOR.tokenizer.decode(ids) == text


def test_calls_and_unicode_survive_a_round_trip() -> None:
    text = 'Ünï 汉字 🙂\n<tool_call>{"name": "select_frames"}</tool_call>\\boxed{3}'
    ids = ENCODER.text(text)
    assert PROCESSOR.tokenizer.decode(ids) == text
    assert PROCESSOR.tokenizer.convert_tokens_to_ids("<tool_call>") in ids


def test_markers_and_images_have_to_agree() -> None:
    with pytest.raises(ValueError, match="expected 2 images, one for each <image> of the text, got 1"):
        ENCODER.observation("<image><image>", pictures((28, 28)))
    with pytest.raises(ValueError, match="multiple of 28 pixels in both sides, got 30x28"):
        ENCODER.observation("<image>", pictures((28, 30)))


def test_patches_are_those_of_the_image_processor() -> None:
    images = pictures((112, 112), (28, 28), (56, 140))
    pixels, grid = patchify(images, PROCESSOR.image_processor)
    expected = PROCESSOR.image_processor(images=[Image.fromarray(i) for i in images], return_tensors="pt")
    assert grid.tolist() == expected["image_grid_thw"].tolist()
    np.testing.assert_allclose(pixels, expected["pixel_values"], atol=1e-5)


def test_tokens_keep_ids_and_loss_together() -> None:
    tokens = Tokens()
    tokens.add([1, 2], 0, pictures((28, 28)))
    tokens.add([3], 1)
    assert (tokens.ids, tokens.loss, len(tokens.images)) == ([1, 2, 3], [0, 0, 1], 1)
