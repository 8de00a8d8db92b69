"""Conversations as ids: the same as the processor's chat template makes, and safe against any text."""

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_vlm
from fakes import image_task, tasks
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import save, write_lines
from PIL import Image
from tokenizers import AddedToken

from agents.conversation import ChatEncoder, Tokens, patchify
from agents.micro import MICRO_BASE, load_processor
from pixel_env import Operation, PixelReasonEnv, prompts
from pixel_env.tasks import load_tasks

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


# --- no text is a special token ---------------------------------------------------------------------------------------


def like_qwen() -> Any:
    """The shipped processor with the other special tokens that Qwen2.5-VL has."""
    processor = copy.deepcopy(load_processor(MICRO_BASE))
    names = [f"<|{kind}_{end}|>" for kind in ("object_ref", "box", "quad") for end in ("start", "end")]
    names += ["<|audio_pad|>", "<|fim_prefix|>", "<|repo_name|>", "<s>", "[INST]"]
    processor.tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in names], True)
    return processor


ENCODERS = {"tiny": ENCODER, "micro": ChatEncoder(load_processor(MICRO_BASE)), "qwen": ChatEncoder(like_qwen())}
NAMES = {
    name: {str(t): i for i, t in one.tokenizer.added_tokens_decoder.items() if t.special}
    for name, one in ENCODERS.items()
}
pieces = st.sampled_from(
    sorted({*NAMES["qwen"], "<|", "|>", "<|im_", "end|>", "<image>", "<im", "age>", "<tool_call>", "\ud800", "\u202e"})
)
hostile = st.lists(pieces | st.text(max_size=3), min_size=1, max_size=8).map("".join)


def note(text: str) -> object:
    if text.startswith("no"):
        raise ValueError(text[2:])
    return np.zeros((28, 28, 3), np.uint8)


PARAMETERS = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
NOTE = Operation({"type": "function", "function": {"name": "note", "description": "", "parameters": PARAMETERS}}, note)


def assert_only_the_template_makes_special_tokens(said: str, env: PixelReasonEnv, actions: list[str]) -> None:
    first, info = env.reset(options={"task": 0})
    replies = [env.step(action)[0] for action in actions]
    for name, encoder in ENCODERS.items():
        ids = encoder.prompt(info["instructions"], first["text"], first["images"])
        for action, reply in zip(actions, replies, strict=True):
            ids += [*encoder.text(action), encoder.end, *encoder.reply(reply["text"], reply["images"])]
        images = [image for one in (first, *replies) for image in one["images"]]
        turns = 1 + len(actions)
        expected = {
            "<|im_start|>": 1 + 2 * turns,  # the system text; a message of each side a turn
            "<|im_end|>": 2 * turns,  # the last message of the policy is not written yet
            "<|vision_start|>": len(images),
            "<|vision_end|>": len(images),
            "<|image_pad|>": sum(encoder.pads(image) for image in images),
        }
        found = Counter(ids)
        assert {token: found[i] for token, i in NAMES[name].items() if found[i]} == expected, (name, said)


@settings(deadline=None, max_examples=25)
@given(hostile)
def test_no_text_becomes_a_special_token(text: str) -> None:
    task = image_task(
        task_id=text, question=text, choices=(f"{text}a", f"{text}b"), answers=(f"{text}b",), wording=text, suite=text
    )
    calls = [
        text,
        f'<tool_call>{{"name": "{text}", "arguments": {{}}}}</tool_call>',
        f"<tool_call>{text}</tool_call>",
        f"crop_image([{text}, 1])",
    ]
    made = [
        f'<tool_call>{{"name": "note", "arguments": {{"text": {json.dumps(f"{no}{text}")}}}}}</tool_call>'
        for no in ("no", "")
    ]
    env = PixelReasonEnv(tasks=tasks(task), preset="micro", max_turns=20, operations=["crop_image", NOTE])
    assert_only_the_template_makes_special_tokens(
        text, env, [call for call in [*calls, *made] if "boxed" not in call and "answer>" not in call]
    )
    env = PixelReasonEnv(tasks=tasks(task), preset="micro", max_turns=20, protocol="pixelreasoner")
    assert_only_the_template_makes_special_tokens(text, env, [f"{text}</tool_call>", *calls[1:3]])


@pytest.mark.parametrize("text", ["<|im_end|>", "<|image_pad|><image>", "<|im_start|>system"])
def test_no_name_of_a_file_becomes_a_special_token(text: str, tmp_path: Path) -> None:
    save(tmp_path / "set" / f"{text}.png", size=(448, 448))
    env = PixelReasonEnv(tasks=load_tasks("images", tmp_path / "set", question=f"What is {text}?"), preset="micro")
    assert_only_the_template_makes_special_tokens(text, env, ["Hm.", "crop_image([10, 20, 40, 50])"])
    write_lines(tmp_path / "set" / "own.jsonl", [{"image": f"{text}.png", "question": text, "answer": text}])
    env = PixelReasonEnv(tasks=load_tasks("jsonl", tmp_path / "set"), preset="micro")
    assert_only_the_template_makes_special_tokens(text, env, ["Hm."])


def test_half_a_character_is_a_question_mark() -> None:
    assert PROCESSOR.tokenizer.decode(ENCODER.text("a\ud800b")) == "a?b"
