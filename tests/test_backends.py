"""Back ends: the same tokens as the engine's, whoever computes them; what TRL and vLLM are asked."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_vlm
import torch
import vllm_stub
from hypothesis import given, settings
from hypothesis import strategies as st
from test_grpo import SMALL, trainer_of

from agents.backends import TRLTurns, TurnByTurn, Turns
from agents.conversation import Tokens
from agents.grpo import CuriosityGRPOTrainer
from agents.rl_config import RLConfig
from agents.rollout_rows import chosen_rows
from agents.run_settings import parse
from agents.transcript import Budget
from pixel_env.command_line import UsageError

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
ENCODER = tiny_vlm.encoder()
LIMITS = {"max_new_tokens": 10, "max_completion_tokens": 120}
ENV_IDS = ("PixelReason-Zoom-v0", "PixelReason-Frames-v0")


@pytest.fixture(autouse=True)
def _nothing_by_environment_variable() -> Iterator[None]:
    """Weights, budgets of pixels and coordinates reach what generates by argument, whatever it is."""
    before = dict(os.environ)
    yield
    changed = {name for name in before.keys() | os.environ.keys() if before.get(name) != os.environ.get(name)}
    assert changed <= OTHERS, changed - OTHERS


OTHERS = {"PYTEST_CURRENT_TEST"}


def groups() -> list[list[tiny_vlm.Scripted]]:
    """Images and frames, 0 to 8 images a turn, 1 to 4 turns; not all fit the budget."""
    scripts = [[[], [1], [2, 0, 1]], [[8], [0, 1]]]
    return [[tiny_vlm.Scripted(ENV_IDS[k], k, script) for script in group] for k, group in enumerate(scripts)]


def trainer(tmp_path: Path, rollouts: str) -> CuriosityGRPOTrainer:
    """One that always takes the likeliest token."""
    made = trainer_of(tmp_path, dataclasses.replace(SMALL, **LIMITS, rollouts=rollouts), tiny_vlm.talking_model(2.0))
    if made.use_vllm:
        made.vllm_generation.temperature = 0
    else:
        made.generation_config.do_sample = False
    return made


def assert_as_the_engine(made: CuriosityGRPOTrainer) -> None:
    ours = tiny_vlm.engine(made.model, **LIMITS, temperature=0.0).rollout(groups())
    theirs = made._player.rollout(groups())
    for one, other in zip(ours, theirs, strict=True):
        assert one.prompt_ids == other.prompt_ids and one.completion_ids == other.completion_ids
        assert one.policy_mask == other.policy_mask and one.cut == other.cut
        assert one.num_prompt_images == other.num_prompt_images and len(one.images) == len(other.images)
        assert all(map(np.array_equal, one.images, other.images))
        np.testing.assert_allclose(one.logps, other.logps, atol=1e-4)
    assert {sample.cut for sample in ours} == {False, True}
    assert max(len(sample.images) - sample.num_prompt_images for sample in ours) > 1
    assert len({len(sample.completion_ids) for sample in ours}) > 3


# --- the loop -------------------------------------------------------------------------------------------------------


TURN = st.tuples(st.integers(1, 12), st.booleans())


@settings(max_examples=50, deadline=None)
@given(st.lists(TURN, min_size=4, max_size=4), st.integers(1, 10), st.integers(12, 60))
def test_any_back_end_stays_in_the_budget(turns: list[tuple[int, bool]], most: int, total: int) -> None:
    """Whatever it writes: too much, too little, with an end or without."""
    said = iter(turns)

    def complete(prompts: Sequence[Tokens]) -> Turns:
        length, ends = next(said)
        written = [*ENCODER.text("x") * length][:length] + [ENCODER.end] * ends
        return [written for _ in prompts], [[-1.0] * len(written) for _ in prompts]

    episode = EPISODE
    episode.script, episode.actions, episode.rng = [1, 0, 2], [], np.random.default_rng(0)
    episode.reset(0, seed=0)
    [sample] = TurnByTurn(complete, ENCODER, Budget(most, total)).rollout([[episode]])
    assert len(sample.completion_ids) == len(sample.policy_mask) == len(sample.logps) <= total
    assert [logp == -1.0 for logp in sample.logps] == [bool(mine) for mine in sample.policy_mask]
    assert sample.completion_ids.count(ENCODER.image_pad) == sum(
        map(ENCODER.pads, sample.images[sample.num_prompt_images :])
    )
    assert sample.completion_ids[-1] == ENCODER.end and sample.cut == bool(episode.script or not episode.done)
    assert all(len(action) <= min(length, most) for (length, _), action in zip(turns, episode.actions, strict=False))


EPISODE = tiny_vlm.Scripted(ENV_IDS[0], 0, [])


def test_pads_are_folded_image_by_image() -> None:
    views = [np.zeros((28 * k, 28, 3), np.uint8) for k in (3, 1)]
    ids = ENCODER.observation("<image><image> and", views)
    folded = ENCODER.folded(ids)
    assert folded == ENCODER.observation("<image><image> and", [views[1], views[1]])
    assert vllm_stub.expanded(folded, [3, 1]) == ids
    assert vllm_stub.expanded(ids, [3, 1]) != ids  # what would become of them otherwise


# --- TRL ------------------------------------------------------------------------------------------------------------


def test_transformers_write_the_engine_s_tokens(tmp_path: Path) -> None:
    assert_as_the_engine(trainer(tmp_path, "trl"))


def test_a_turn_without_a_token_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(tmp_path, "trl")
    monkeypatch.setattr(made, "_generate_single_turn", lambda *_, **__: ([[]], [[]]))
    with pytest.raises(RuntimeError, match="gave no token for a turn"):
        made._player.rollout([[EPISODE]] if not EPISODE.reset(0) else [])


# --- vLLM -----------------------------------------------------------------------------------------------------------


def assert_trains_on_what_vllm_drew(made: CuriosityGRPOTrainer) -> None:
    """TRL weighs tokens by the ratio to the probabilities that vLLM reports, which are the trainer's here."""
    made._player.budget = Budget(10, 1024)
    inputs = dict(made._generate_and_score_completions([{"prompt": str(row // 4)} for row in range(8)]))
    torch.testing.assert_close(inputs["importance_sampling_ratio"], torch.ones(8, 1), atol=1e-3, rtol=0)
    assert inputs["tool_mask"].any(dim=1).all()
    rows = torch.tensor([1, 2, 6])
    chosen = chosen_rows(inputs, rows)
    assert torch.equal(chosen["importance_sampling_ratio"], inputs["importance_sampling_ratio"][rows])
    assert chosen["old_per_token_logps"].shape == chosen["completion_ids"].shape
    inputs["advantages"] = torch.tensor([0.0, 1.0, -1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    assert made._compute_loss(made.model, inputs).isfinite()


def test_trl_s_client_makes_a_server_write_the_engine_s_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speaker = vllm_stub.Speaker()
    with vllm_stub.server(speaker, monkeypatch) as url:
        made = trainer(tmp_path, url)
        assert not speaker.synchronized
        assert_as_the_engine(made)
        assert speaker.synchronized == 1  # no optimizer step, so the weights are handed over once
        assert {sampling["max_tokens"] for _, sampling in speaker.asked} == {10}
        assert_trains_on_what_vllm_drew(made)
        speaker.shortest_edge = 56 * 56  # as the processor of Qwen2.5-VL
        with pytest.raises(ValueError, match="expected vLLM to read 28x28 pixels as 1 token, got 4"):
            TRLTurns(made, ENCODER, 10)


def test_vllm_in_the_process_writes_the_engine_s_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speaker = vllm_stub.Speaker()
    vllm_stub.install(speaker, monkeypatch)
    made = trainer(tmp_path, "vllm")
    assert_as_the_engine(made)
    assert speaker.synchronized == 1
    assert_trains_on_what_vllm_drew(made)
    speaker.shortest_edge = 56 * 56
    with pytest.raises(ValueError, match="expected vLLM to read 28x28 pixels as 1 token, got 4"):
        TRLTurns(made, ENCODER, 10)


def test_the_stub_has_routes_of_vllm() -> None:
    routes = {
        route.path: next(iter(route.methods))
        for route in vllm_stub.app(SimpleNamespace(), Queue()).routes  # type: ignore[arg-type]
        if not route.path.startswith(("/docs", "/redoc", "/openapi"))  # type: ignore[attr-defined]
    }
    assert routes == vllm_stub.NAMES["routes"]


def test_several_processes_cannot_share_a_server() -> None:
    several: Any = SimpleNamespace(use_vllm=True, vllm_mode="server", accelerator=SimpleNamespace(num_processes=2))
    with pytest.raises(ValueError, match="expected one process beside a vLLM server, got 2"):
        TRLTurns(several, ENCODER, 10)


# --- options --------------------------------------------------------------------------------------------------------


def test_rollouts_are_by_something_that_exists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected rollouts by engine, trl, vllm or the URL of a vLLM server, got x"):
        RLConfig(rollouts="x")
    out = ["--out", str(tmp_path / "run")]
    assert parse(["--rollouts", "trl", *out], "")[0].rollouts == "trl"
    with pytest.raises(UsageError, match="expected --rollouts of engine, trl, vllm or the URL of a vLLM server, got x"):
        parse(["--rollouts", "x", *out], "")
    for name in ("vllm", "http://localhost:8000"):
        with pytest.raises(UsageError, match="--rollouts by vLLM need vLLM"):
            parse(["--rollouts", name, *out], "")
    monkeypatch.setattr("agents.run_checks.find_spec", lambda _: object())
    assert parse(["--rollouts", "http://localhost:8000", *out], "")[0].rollouts == "http://localhost:8000"
