"""The engine draws from the model's own distribution, keeps every id, and stays inside its budgets."""

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import tiny_vlm
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

import pixel_env  # noqa: F401
from agents import micro, ragged_cache
from agents.conversation import ChatEncoder, patchify
from agents.engine import Engine, restrict_vocabulary
from agents.transcript import Sample
from benchmarks.random_vlm import random_model
from pixel_env.decoding import MediaError
from pixel_env.rollout import Episode

PROCESSOR = tiny_vlm.processor()
ENCODER = tiny_vlm.encoder()
IDS = ("PixelReason-Zoom-v0", "PixelReason-Frames-v0")


def scripted_groups() -> list[list[tiny_vlm.Scripted]]:
    """Three groups of different size, prompt length and medium; 0 to 16 images a turn, 1 to 4 turns."""
    scripts = [[[], [1], [2, 0, 1], [0, 0]], [[16], [1, 1, 3], [4]], [[0, 8]]]
    return [
        [tiny_vlm.Scripted(IDS[group % 2], group, script, seed) for seed, script in enumerate(scripts_of_group)]
        for group, scripts_of_group in enumerate(scripts)
    ]


def recomputed(model: Any, sample: Sample, mrope: bool = True, encoder: ChatEncoder = ENCODER) -> torch.Tensor:
    """Log-probabilities of the completion from one forward pass of the plain model over everything."""
    ids = torch.tensor([sample.prompt_ids + sample.completion_ids])
    pixels, grid = patchify(sample.images, encoder.processor.image_processor)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels, "image_grid_thw": grid}
    if mrope:
        inputs["mm_token_type_ids"] = (ids == encoder.image_pad).int()
    with torch.no_grad():
        logps = model(**inputs).logits[0, len(sample.prompt_ids) - 1 : -1].float().log_softmax(-1)
    return logps.gather(1, torch.tensor(sample.completion_ids)[:, None])[:, 0]


def difference(model: Any, sample: Sample, mrope: bool = True, encoder: ChatEncoder = ENCODER) -> float:
    written = torch.tensor(sample.policy_mask).bool()
    return float((recomputed(model, sample, mrope, encoder) - torch.tensor(sample.logps))[written].abs().max())


def test_log_probabilities_are_those_of_a_full_recompute(monkeypatch: pytest.MonkeyPatch) -> None:
    model, alike, parts = tiny_vlm.talking_model(), ragged_cache._alike, list[int]()
    monkeypatch.setattr(ragged_cache, "_alike", lambda lengths: parts.append(len(alike(lengths))) or alike(lengths))
    samples = tiny_vlm.engine(model, max_new_tokens=12, seed=1).rollout(scripted_groups())
    assert sorted(len(sample.images) - sample.num_prompt_images for sample in samples) == [0, 0, 1, 3, 4, 5, 8, 16]
    assert len({len(sample.completion_ids) for sample in samples}) > 5
    assert {1, 3} <= {*parts}  # rows of like length, and of different ones, which are read apart
    assert max(difference(model, sample) for sample in samples) < 1e-4
    # Without the picture's own positions the numbers are far off: the comparison can fail.
    assert max(difference(model, sample, mrope=False) for sample in samples) > 0.1


def test_heads_may_share_keys() -> None:
    """Larger Qwen2.5-VL models have fewer keys than queries."""
    config = tiny_vlm.model().config
    config.text_config.num_key_value_heads = 1
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).double().eval()
    samples = tiny_vlm.engine(model, max_new_tokens=12, seed=1).rollout(scripted_groups())
    assert max(difference(model, sample) for sample in samples) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shapes_and_number_formats_of_large_models(dtype: torch.dtype) -> None:
    """Heads that share keys, a head apart from the embedding, windows in the vision tower; 16 bits as on a GPU."""
    processor = micro.load_processor(micro.MICRO_BASE)
    encoder = ChatEncoder(processor)
    model = random_model("tiny", processor, torch.device("cpu"), dtype).eval()
    with torch.no_grad():
        for parameter in model.model.language_model.layers.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6)
    engine = Engine(model, encoder, max_new_tokens=12, temperature=0.0)
    episodes = [[tiny_vlm.Scripted(IDS[0], task, [1]) for _ in range(2)] for task in (0, 1)]
    samples = engine.rollout(episodes)
    largest = max(difference(model, sample, encoder=encoder) for sample in samples)
    assert model.dtype == dtype and 0 < largest < (1e-3 if dtype == torch.float32 else 0.2)
    if dtype == torch.bfloat16:
        return
    for sample in samples[::2]:  # greedy tokens are those of transformers
        pixels, grid = patchify(sample.images[: sample.num_prompt_images], processor.image_processor)
        ids = torch.tensor([sample.prompt_ids])
        turn = sample.completion_ids[: sample.policy_mask.index(0)]
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == encoder.image_pad).int(),
            pixel_values=pixels,
            image_grid_thw=grid,
            max_new_tokens=12,
            do_sample=False,
        )[0, ids.shape[1] :]
        assert turn == out.tolist()


def test_the_environment_s_tokens_stand_where_it_said_them_and_carry_no_loss() -> None:
    groups = scripted_groups()
    samples = tiny_vlm.engine(tiny_vlm.talking_model(), max_new_tokens=12, seed=2).rollout(groups)
    for sample, episode in zip(samples, itertools.chain(*groups), strict=True):
        written = np.array(sample.policy_mask, bool)
        ids = np.array(sample.completion_ids)
        assert not written[ids == ENCODER.image_pad].any()
        assert all(logp == 0 for logp, mine in zip(sample.logps, written, strict=True) if not mine)
        expected, start = [], 0
        for k, action in enumerate(episode.actions):
            stop = sample.completion_ids.index(ENCODER.end, start)
            turn = sample.completion_ids[start:stop]
            assert PROCESSOR.tokenizer.decode(turn) == action
            reply = []
            if k < len(episode.actions) - 1:
                observation = episode.conversation.observations[k + 1]
                reply = ENCODER.reply(observation["text"], observation["images"])
            expected += [*turn, ENCODER.end, *reply]
            start = stop + 1 + len(reply)
        assert sample.completion_ids == expected
        views = [image for observation in episode.conversation.observations for image in observation["images"]]
        assert all(map(np.array_equal, sample.images, views)) and len(sample.images) == len(views)


def test_special_tokens_are_never_drawn() -> None:
    model = tiny_vlm.model()
    engine = Engine(model, ENCODER, temperature=50.0, max_new_tokens=400, seed=3)
    samples = engine.rollout([[tiny_vlm.Scripted(IDS[0], 0, [], seed) for seed in range(8)]])
    drawn = {i for s in samples for i, mine in zip(s.completion_ids, s.policy_mask, strict=True) if mine}
    specials = {i for i, token in PROCESSOR.tokenizer.added_tokens_decoder.items() if token.special}
    assert len(drawn) > 0.8 * len(PROCESSOR.tokenizer) and not drawn & (specials - {ENCODER.end})


def test_the_restriction_is_not_saved_with_the_weights() -> None:
    model = tiny_vlm.model()
    names = set(model.state_dict())
    for _ in range(2):
        restrict_vocabulary(model, ENCODER)
    assert set(model.state_dict()) == names and not any(name.endswith("lm_head.bias") for name in names)


def test_greedy_turns_are_those_of_generate_on_the_whole_conversation() -> None:
    model = tiny_vlm.talking_model(end_bias=2.0)
    samples = tiny_vlm.engine(model, max_new_tokens=10, temperature=0.0).rollout(scripted_groups())
    checked = 0
    for sample in samples:
        starts = [k for k, mine in enumerate(sample.policy_mask) if mine and (k == 0 or not sample.policy_mask[k - 1])]
        for start in starts:
            before = torch.tensor([sample.prompt_ids + sample.completion_ids[:start]])
            shown = int((before == ENCODER.image_pad).sum())
            images = [i for k, i in enumerate(sample.images) if sum(map(ENCODER.pads, sample.images[: k + 1])) <= shown]
            pixels, grid = patchify(images, PROCESSOR.image_processor)
            out = model.generate(
                input_ids=before,
                attention_mask=torch.ones_like(before),
                mm_token_type_ids=(before == ENCODER.image_pad).int(),
                pixel_values=pixels,
                image_grid_thw=grid,
                max_new_tokens=10,
                do_sample=False,
            )[0, before.shape[1] :].tolist()
            assert sample.completion_ids[start : start + len(out)] == out
            checked += 1
    assert checked == sum(len(episode.script) + 1 for group in scripted_groups() for episode in group)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_rollout_does_not_depend_on_its_neighbours(temperature: float) -> None:
    """Sampled ones draw from a stream of their own; in 64 bits the sums of another batch turn no token."""
    settings: dict[str, Any] = {"max_new_tokens": 10, "temperature": temperature, "seed": 5}
    model = tiny_vlm.talking_model(end_bias=2.0)
    together = tiny_vlm.engine(model, **settings).rollout(scripted_groups())
    alone = [tiny_vlm.engine(model, **settings).rollout([[e]])[0] for group in scripted_groups() for e in group]
    turned = tiny_vlm.engine(model, **settings).rollout([group[::-1] for group in scripted_groups()[::-1]])[::-1]
    for sample, other, again in zip(together, alone, turned, strict=True):
        assert sample.completion_ids == other.completion_ids == again.completion_ids
        np.testing.assert_allclose(sample.logps, other.logps, atol=1e-4)


def test_seed_episode_and_turn_decide_what_is_drawn() -> None:
    def drawn(seed: int, episode: int, script: list[int]) -> list[list[int]]:
        engine = tiny_vlm.engine(tiny_vlm.talking_model(end_bias=-50.0), max_new_tokens=6, seed=seed)
        [sample] = engine.rollout([[tiny_vlm.Scripted(IDS[0], 0, script, episode)]])
        ids, mask = np.array(sample.completion_ids), np.array(sample.policy_mask, bool)
        return ids[mask].reshape(-1, 6).tolist()

    first, second = drawn(0, 0, [0])
    assert first != second
    assert drawn(0, 0, []) == [first] and drawn(1, 0, []) != [first] != drawn(0, 1, [])


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    engine = tiny_vlm.engine(tiny_vlm.model())
    logits = torch.tensor([0.5, 0.0, 0.25, 0.125, 0.125, 0.0]).log()
    evenly = (torch.arange(64, dtype=torch.float64)) / 64
    tokens, logps = engine.draw(logits.expand(64, -1), evenly)
    assert tokens.bincount(minlength=6).tolist() == [32, 0, 16, 8, 8, 0]
    torch.testing.assert_close(logps, logits[tokens])
    least, most = torch.tensor([0.0, np.nextafter(1.0, 0.0)], dtype=torch.float64)
    ends, _ = engine.draw(logits.roll(1).expand(2, -1), torch.stack([least, most]))
    assert ends.tolist() == [1, 5]  # never one of probability 0, at neither end


def test_the_same_seed_gives_the_same_rollouts() -> None:
    first, second, other = (
        [
            s.completion_ids
            for s in tiny_vlm.engine(tiny_vlm.talking_model(), max_new_tokens=8, seed=seed).rollout(scripted_groups())
        ]
        for seed in (0, 0, 1)
    )
    assert first == second != other


def test_a_long_turn_is_closed_and_played() -> None:
    episode = tiny_vlm.Scripted(IDS[0], 0, [1])
    sample = tiny_vlm.engine(tiny_vlm.talking_model(end_bias=-50.0), max_new_tokens=5).rollout([[episode]])[0]
    assert len(episode.actions) == 2 and not sample.cut
    assert sample.policy_mask[:6] == [1] * 5 + [0] and sample.completion_ids[5] == ENCODER.end
    assert sample.policy_mask[-6:] == [1] * 5 + [0] and sample.completion_ids[-1] == ENCODER.end


def test_a_rollout_is_cut_before_an_observation_that_does_not_fit() -> None:
    model = tiny_vlm.talking_model(end_bias=-50.0)
    sample = tiny_vlm.engine(model, max_new_tokens=5, max_completion_tokens=30).rollout(
        [[tiny_vlm.Scripted(IDS[0], 0, [8])]]
    )[0]
    assert sample.cut and len(sample.completion_ids) == 6 and len(sample.images) == sample.num_prompt_images
    # A turn that runs into the budget is still played, and an episode that ends with it was not cut.
    sample = tiny_vlm.engine(model, max_new_tokens=29, max_completion_tokens=30).rollout(
        [[tiny_vlm.Scripted(IDS[0], 0, [])]]
    )[0]
    assert not sample.cut and len(sample.completion_ids) == 30
    assert difference(model, sample) < 1e-4


def test_malformed_turns_are_answered_by_the_environment() -> None:
    episode = Episode(gym.make("PixelReason-Zoom-v0", preset="micro", max_turns=3))
    episode.reset(0, seed=0)
    sample = tiny_vlm.engine(tiny_vlm.talking_model(), max_new_tokens=12, seed=4).rollout([[episode]])[0]
    trajectory = sample.trajectory
    assert trajectory.truncated and [turn.malformed for turn in trajectory.turns] == [True] * 3
    said = PROCESSOR.tokenizer.decode(sample.completion_ids)
    assert all(turn.observation in said for turn in trajectory.turns[:-1])


def test_an_episode_that_cannot_begin_is_an_error_without_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    broken, fine = tiny_vlm.Scripted(IDS[0], 0, []), tiny_vlm.Scripted(IDS[0], 0, [])
    monkeypatch.setattr(broken.env, "reset", lambda **_: (_ for _ in ()).throw(MediaError("no such file")))
    broken.reset(0)
    samples = tiny_vlm.engine(tiny_vlm.talking_model(), max_new_tokens=5).rollout([[broken, fine], [broken]])
    assert [s.trajectory.error for s in samples] == ["MediaError: no such file", None, "MediaError: no such file"]
    assert [any(s.policy_mask) for s in samples] == [False, True, False]


def test_a_group_begins_alike() -> None:
    with pytest.raises(ValueError, match="episodes of a group to begin alike"):
        Engine(tiny_vlm.model(), ENCODER).rollout(
            [[tiny_vlm.Scripted(IDS[0], 0, []), tiny_vlm.Scripted(IDS[0], 1, [])]]
        )


def test_budgets_have_to_make_sense() -> None:
    with pytest.raises(ValueError, match="max_new_tokens of at least 1 and below max_completion_tokens, got 8 and 8"):
        Engine(tiny_vlm.model(), ENCODER, max_new_tokens=8, max_completion_tokens=8)


def test_both_ways_to_attend_agree_with_softmax() -> None:
    """Outputs and sums, where rows see parts of different length."""
    torch.manual_seed(0)
    query, keys, values = torch.randn(3, 4, 2, 32), torch.randn(3, 4, 50, 32), torch.randn(3, 4, 50, 32)
    mask = ragged_cache._additive(torch.arange(50) < torch.tensor([[50], [7], [1]]))
    scores = query @ keys.transpose(2, 3) * 0.3 + mask
    for attend in (ragged_cache._attend, ragged_cache._attend_in_steps):
        out, total = attend(query, keys, values, mask, 0.3)
        torch.testing.assert_close(out, scores.softmax(-1) @ values, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(total[..., 0], scores.logsumexp(-1), atol=1e-5, rtol=1e-5)
