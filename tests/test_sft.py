"""The warm start: what is trained, that prompts are those of acting, and that a resumed run is the same run."""

import dataclasses
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from tiny_vlm import model, processor
from transformers import TrainerCallback

from agents.checkpoints import last_checkpoint
from agents.conversation import ChatEncoder, Tokens
from agents.demonstrations import LOOKS, demonstrations
from agents.engine import Engine
from agents.examples import Examples, collate, observations, to_example
from agents.sft import LengthGroupedSampler, causal_only, warm_start
from agents.sft_config import WarmStartConfig
from agents.vlm_policy import read
from pixel_env.rollout import Conversation, Episode
from pixel_env.trajectory import Trajectory

MICRO: dict[str, Any] = {"preset": "micro", "difficulty": [1, 2]}
# float32 sums of a run that was stopped and continued differ from those of one run in the order of operations only
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-6}


@pytest.fixture(scope="module")
def made() -> list[Trajectory]:
    return demonstrations("PixelReason-Mixed-v0", 60, seed=3, textual_share=0.2, progress=False, **MICRO)


@pytest.fixture(scope="module")
def env() -> gym.Env[Any, str]:
    return gym.make("PixelReason-Mixed-v0", **MICRO)


@pytest.fixture(scope="module")
def encoder() -> ChatEncoder:
    return ChatEncoder(processor())


def spans(encoder: ChatEncoder, example: Tokens, flag: int) -> list[str]:
    """Decoded runs of ids with the same loss flag."""
    found: list[list[int]] = []
    last = None
    for token, loss in zip(example.ids, example.loss, strict=True):
        if loss == flag:
            found += [[]] if last != flag else []
            found[-1].append(token)
        last = loss
    return [encoder.tokenizer.decode(ids) for ids in found]


@pytest.mark.parametrize("kind", list(LOOKS))
def test_trained_spans(kind: str, made: list[Trajectory], env: gym.Env[Any, str], encoder: ChatEncoder) -> None:
    of_kind = [trajectory for trajectory in made if trajectory.kind == kind]
    if kind == "reselect":  # one in ten of the clips
        of_kind = demonstrations(
            "PixelReason-Frames-v0", 1, textual_share=0, video_mix={"reselect": 1.0}, progress=False, **MICRO
        )
    assert of_kind
    for trajectory in of_kind[:3]:
        own = gym.make(trajectory.env_id, **trajectory.env_kwargs)
        example = to_example(encoder, trajectory, observations(trajectory, own))
        expected = [f"{turn.action}<|im_end|>" for turn in trajectory.turns if turn.trained]
        assert spans(encoder, example, 1) == expected
        untrained = "".join(spans(encoder, example, 0))
        for turn, aim in zip(trajectory.turns, LOOKS[kind], strict=False):
            assert (f"assistant\n{turn.action}<|im_end|>" in untrained) == (aim != "right")
        trained = [token for token, loss in zip(example.ids, example.loss, strict=True) if loss]
        assert encoder.image_pad not in trained
        assert trained.count(encoder.end) == len(expected)


def test_sequences_are_those_of_the_chat_template(
    made: list[Trajectory], env: gym.Env[Any, str], encoder: ChatEncoder
) -> None:
    """The independent way: the template's text, pads expanded by hand, tokenised turn by turn."""
    for trajectory in made[:8]:
        seen = observations(trajectory, env)
        example = to_example(encoder, trajectory, seen)
        messages: list[dict[str, Any]] = [{"role": "system", "content": trajectory.instructions}]
        for observation, turn in zip(seen, trajectory.turns, strict=False):
            parts: list[dict[str, str]] = []
            for piece in re.split(r"(<image>)", observation["text"]):
                parts.append({"type": "image"} if piece == "<image>" else {"type": "text", "text": piece})
            messages += [{"role": "user", "content": parts}, {"role": "assistant", "content": turn.action}]
        text = encoder.processor.apply_chat_template(messages, tokenize=False)
        images = [image for observation in seen[:-1] for image in observation["images"]]
        pads = iter("<|image_pad|>" * encoder.pads(image) for image in images)
        text = re.sub(r"<\|image_pad\|>", lambda _: next(pads), text)  # noqa: B023
        assert encoder.tokenizer.decode(example.ids) + "\n" == text
        assert len(example.images) == len(images)


def test_prompts_are_those_of_acting(made: list[Trajectory], env: gym.Env[Any, str], encoder: ChatEncoder) -> None:
    """SFT, RL and evaluation read the same ids: those of `Engine`, whatever the policy says in between."""
    engine = Engine(model(), encoder, max_new_tokens=4, max_completion_tokens=400)
    for trajectory in made[:3]:
        example = to_example(encoder, trajectory, observations(trajectory, env))
        episode = Episode(env)
        episode.reset(trajectory.task_id, trajectory.seed)
        (sample,) = engine.rollout([[episode]])
        assert example.ids[: len(sample.prompt_ids)] == sample.prompt_ids
        assert example.loss[: len(sample.prompt_ids)] == [0] * len(sample.prompt_ids)
        assert example.loss[len(sample.prompt_ids)] == int(trajectory.turns[0].trained)


def test_what_a_policy_reads_is_what_it_was_trained_on(
    made: list[Trajectory], env: gym.Env[Any, str], encoder: ChatEncoder
) -> None:
    """In the middle of a conversation too: `VLMPolicy` reads a prefix of the example."""
    for trajectory in made[:8]:
        seen = observations(trajectory, env)
        example = to_example(encoder, trajectory, seen)
        for turns in range(len(trajectory.turns)):
            actions = [turn.action for turn in trajectory.turns[:turns]]
            prefix = read(
                encoder, Conversation(trajectory.task_id, trajectory.instructions, seen[: turns + 1], actions)
            )
            assert example.ids[: len(prefix.ids)] == prefix.ids
            assert len(prefix.images) == sum(len(observation["images"]) for observation in seen[: turns + 1])
            assert example.loss[len(prefix.ids)] == int(trajectory.turns[turns].trained)


def test_collate(encoder: ChatEncoder) -> None:
    view = np.zeros((28, 56, 3), np.uint8)
    pad, end = encoder.tokenizer.pad_token_id, encoder.end
    long, short = Tokens(), Tokens()
    long.add([5, encoder.image_pad, encoder.image_pad, 6], 0, [view])
    long.add([7, end], 1)
    short.add([8], 0)
    short.add([end], 1)
    batch = collate([long, short], encoder)
    assert batch["input_ids"].tolist() == [
        [5, encoder.image_pad, encoder.image_pad, 6, 7, end],
        [8, end, pad, pad, pad, pad],
    ]
    assert batch["labels"].tolist() == [[-100, -100, -100, -100, 7, end], [-100, end, -100, -100, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1] * 6, [1, 1, 0, 0, 0, 0]]
    assert batch["mm_token_type_ids"].tolist() == [[0, 1, 1, 0, 0, 0], [0] * 6]
    assert batch["image_grid_thw"].tolist() == [[1, 2, 4]]
    assert len(batch["pixel_values"]) == 8


def test_padding_on_the_right_needs_no_mask(made: list[Trajectory], encoder: ChatEncoder) -> None:
    trained, examples = model(), Examples(encoder, made[:4], progress=False)
    batch = collate([examples[index] for index in range(4)], encoder)
    assert not batch["attention_mask"].all() and len(set(examples.lengths)) > 1
    found, masks = [], []
    trained.model.language_model.layers[0].self_attn.register_forward_pre_hook(
        lambda _, __, given: masks.append(given["attention_mask"]), with_kwargs=True
    )
    for context in (nullcontext(), causal_only(trained), nullcontext()):
        with context:
            loss = trained(**batch).loss
        trained.zero_grad()
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in trained.parameters() if p.grad is not None)])
    assert [mask is None for mask in masks] == [False, True, False]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_examples_outside_the_cache_are_played_again(made: list[Trajectory], encoder: ChatEncoder) -> None:
    kept, played = (Examples(encoder, made[:4], cached_bytes=size, progress=False) for size in (2**30, 0))
    assert kept[0] is kept[0] and played[0] is not played[0]
    for index in range(4):
        assert kept[index].ids == played[index].ids and kept.lengths[index] == len(kept[index].ids)
        assert all(map(np.array_equal, kept[index].images, played[index].images))
    with pytest.raises(ValueError, match="at least one trajectory"):
        Examples(encoder, [])
    with pytest.raises(ValueError, match=r"expected an environment of PixelReason-Zoom-v0, .*, got 'module:Foo-v0'"):
        Examples(encoder, [dataclasses.replace(made[0], env_id="module:Foo-v0")])


def test_batches_hold_equal_lengths() -> None:
    lengths = np.random.default_rng(0).integers(100, 700, size=205).tolist()
    sampler = LengthGroupedSampler(lengths, batch_size=8, seed=0)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert sorted(orders[-1]) == list(range(205)) and len(sampler) == 205
        padding = [max(batch) - min(batch) for batch in np.split(np.array(lengths)[orders[-1]][:200], 25)]
        assert np.mean(padding) < 50
    assert orders[0] == orders[2] != orders[1]


class Stop(TrainerCallback):
    """Leaves training at a step, as if the power had gone."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise InterruptedError


def test_a_resumed_run_is_the_same_run(made: list[Trajectory], tmp_path: Path) -> None:
    config = WarmStartConfig(epochs=2, learning_rate=1e-3, batch_size=4, save_steps=2)
    one = model()
    warm_start(one, processor(), made[:16], tmp_path / "one", config, progress=False)
    broken = model()
    with pytest.raises(InterruptedError):
        warm_start(broken, processor(), made[:16], tmp_path / "two", config, callbacks=[Stop(7)], progress=False)
    newest = last_checkpoint(tmp_path / "two")
    assert newest is not None and newest.name == "checkpoint-6"
    (newest / "complete").unlink()  # as a kill while it was written would leave it
    again = model()  # the trainer has to load the weights, not only to count on
    warm_start(again, processor(), made[:16], tmp_path / "two", config, resume=True, progress=False)
    for name, value in one.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, **CLOSE, msg=name)


def test_training_lowers_the_loss_and_moves_what_it_should(made: list[Trajectory], tmp_path: Path) -> None:
    losses: list[float] = []

    class Losses(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            losses.extend([logs["loss"]] if "loss" in logs else [])

    trained, before = model(), model()
    config = WarmStartConfig(batch_size=4, learning_rate=2e-3, epochs=5, train_vision=False)
    warm_start(trained, processor(), made[:12], tmp_path, config, callbacks=[Losses()], progress=False)
    assert losses[-1] < 0.9 * losses[0]
    for (name, new), old in zip(trained.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(new, old) == ("visual" in name), name
        assert new.requires_grad
