"""A VLM as a policy: turn by turn, and whole episodes through the engine."""

import numpy as np
import pytest
import tiny_vlm
import torch

from agents import micro
from agents.conversation import patchify
from agents.vlm_policy import VLMPolicy, read, rollout_vlm
from pixel_env.rollout import Conversation, rollout

PROCESSOR = tiny_vlm.processor()


def conversations() -> list[Conversation]:
    rng = np.random.default_rng(0)
    images = tuple(rng.integers(0, 256, (size, 56, 3), dtype=np.uint8) for size in (112, 28, 56))
    first = {"text": "Image 1: <image>\nWhich letter?", "images": images[:1]}
    crop = {"text": "Image 2: <image> Image 3: <image>", "images": images[1:]}
    call = "crop_image([1, 2, 3, 4])"
    return [
        Conversation("a", "Answer.", [first]),
        Conversation("b", "Answer in one word.", [first, crop], [call]),
        Conversation("c", "", [first, crop, {"text": "Error: no.", "images": ()}], [call, "<tool_call>"]),
    ]


def test_turns_are_those_of_generate() -> None:
    model = tiny_vlm.model()
    policy = VLMPolicy(model, PROCESSOR, max_new_tokens=12, batch_size=2)
    turns = policy.act(conversations())
    for turn, conversation in zip(turns, conversations(), strict=True):
        tokens = read(policy.encoder, conversation)
        ids = torch.tensor([tokens.ids])
        pixels, grid = patchify(tokens.images, PROCESSOR.image_processor)
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == policy.encoder.image_pad).int(),
            pixel_values=pixels,
            image_grid_thw=grid,
            max_new_tokens=12,
            do_sample=False,
        )[0, ids.shape[1] :].tolist()
        assert turn == PROCESSOR.tokenizer.decode([i for i in out if i != policy.encoder.end])
    assert len(set(turns)) > 1


def test_actions_are_the_policy_s_own() -> None:
    tokens = read(VLMPolicy(tiny_vlm.model(), PROCESSOR).encoder, conversations()[2])
    spans = "".join(PROCESSOR.tokenizer.decode([i]) for i, mine in zip(tokens.ids, tokens.loss, strict=True) if mine)
    assert spans == "crop_image([1, 2, 3, 4])<|im_end|><tool_call><|im_end|>"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_whole_episodes_are_those_of_the_turn_by_turn_policy(temperature: float) -> None:
    """The two agree while texts are tokenised as they were drawn; of random weights only the first turn surely is."""
    model, settings = tiny_vlm.model(), {"preset": "micro", "max_turns": 2}
    quick = rollout_vlm(
        model, PROCESSOR, "PixelReason-Mixed-v0", range(5), group_size=2, batch_size=4, max_new_tokens=8, seed=3,
        temperature=temperature, progress=False, **settings,
    )  # fmt: skip
    policy = VLMPolicy(model, PROCESSOR, temperature=temperature, max_new_tokens=8, seed=3)
    slow = rollout(policy, "PixelReason-Mixed-v0", range(5), group_size=2, seed=3, progress=False, **settings)
    assert [t.task_id for t in quick] == [t.task_id for t in slow]
    assert [t.turns[0] for t in quick] == [t.turns[0] for t in slow]
    assert [(t.seed, t.first_digests, len(t.turns)) for t in quick] == [
        (t.seed, t.first_digests, len(t.turns)) for t in slow
    ]


def test_weights_on_disk_speak_the_same(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = tiny_vlm.model()
    before = VLMPolicy(model, PROCESSOR, max_new_tokens=8).act(conversations())
    micro.save(model, PROCESSOR, tmp_path)
    assert VLMPolicy.from_pretrained(tmp_path, max_new_tokens=8).act(conversations()) == before
