"""RL: the trainer sees the engine's numbers, rewards are those of the group, and every weight learns."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import tiny_vlm
import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOTrainer

from agents import grpo
from agents.group_rewards import COLUMNS, TERMS, columns, group_rewards, step_metrics
from agents.grpo import CuriosityGRPOTrainer, reinforce
from agents.rl_config import RLConfig, trl_config
from agents.rollout_rows import chosen_rows, in_order_of_length, replayed
from agents.transcript import Sample
from pixel_env.rollout import Episode
from pixel_env.settings import RewardSettings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
ENCODER = tiny_vlm.encoder()
ENV = "PixelReason-Mixed-v0"
KWARGS = {"preset": "micro", "max_turns": 2}
SMALL = RLConfig(steps=4, prompts=2, group_size=4, max_new_tokens=6, batch_size=4, save_steps=2, learning_rate=1e-3)


def table(**changes: Sequence[float]) -> dict[str, np.ndarray]:
    """Columns of rollouts: plain failures but for the changes."""
    size = len(next(iter(changes.values())))
    return {name: np.array(changes.get(name, [0.0] * size), np.float64) for name in COLUMNS}


def users(count: int, group_size: int = 8) -> list[float]:
    return [1.0] * count + [0.0] * (group_size - count)


# --- rewards and advantages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "bonus"), [(0, 0.0), (1, 0.0875), (2, 0.025), (3, 0.0), (8, 0.0)])
def test_curiosity_is_the_paper_s(count: int, bonus: float) -> None:
    rewards = group_rewards(table(used=users(count), operations=users(count)), 8, RewardSettings())
    np.testing.assert_allclose(rewards, [[0, bonus * used, 0] for used in users(count)])


def test_the_terms_of_two_groups_by_hand() -> None:
    rollouts = table(
        correct=[1, 0, 0, 0, 1, 1, 0, 0],
        used=[1, 0, 0, 0, 1, 1, 0, 0],
        operations=[3, 2, 1, 0, 1, 1, 0, 0],
        errors=[0, 2, 1, 0, 0, 0, 0, 0],
    )
    rewards = group_rewards(rollouts, 4, RewardSettings())
    np.testing.assert_allclose(rewards[0], [1, 0.5 * (0.3 - 0.25), -0.1])
    np.testing.assert_allclose(rewards[1], [0, 0, -0.05])  # failed calls cost, and are no looking
    np.testing.assert_allclose(rewards[2:4], 0, atol=1e-12)
    np.testing.assert_allclose(rewards[4:], [[1, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]], atol=1e-12)
    assert (group_rewards(rollouts, 4, RewardSettings(alpha=0.0))[:, TERMS.index("curiosity")] == 0).all()


def test_the_released_variant_knows_videos() -> None:
    settings = RewardSettings(reward_variant="released")
    for video, bonus in ((0.0, 0.175), (1.0, 0.7 / 3)):
        rollouts = table(used=users(1), operations=users(1), video=[video] * 8)
        np.testing.assert_allclose(group_rewards(rollouts, 8, settings)[0], [0, bonus, 0])


def test_a_broken_rollout_is_not_scored_and_not_counted() -> None:
    rollouts = table(used=[1, 0, 0, 0, 0, 0, 0, 0], operations=users(1), broken=[0] * 4 + [1] * 4)
    rewards = group_rewards(rollouts, 8, RewardSettings())
    np.testing.assert_allclose(rewards[0], [0, 0.5 * (0.3 - 0.25), 0])
    assert np.isnan(rewards[4:]).all() and not np.isnan(rewards[:4]).any()
    metrics = step_metrics(rollouts, rewards, 8)
    assert (
        metrics["broken_rate"] == 0.5 and metrics["rapr"] == 0.25 and metrics["curiosity"] == pytest.approx(0.025 / 4)
    )
    everything = group_rewards(table(broken=[1] * 8), 8, RewardSettings())
    assert np.isnan(everything).all() and "rapr" not in step_metrics(table(broken=[1] * 8), everything, 8)


def test_groups_of_one_and_parts_of_groups() -> None:
    rewards = group_rewards(table(correct=[1, 0], used=[1, 0], operations=[1, 0]), 1, RewardSettings())
    np.testing.assert_allclose(rewards, [[1, 0, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match="expected whole groups of 4, got 6 rollouts"):
        group_rewards(table(correct=[0] * 6), 4, RewardSettings())
    with pytest.raises(ValueError, match="group_size of at least 2, rollouts that can be compared, got 1"):
        RLConfig(group_size=1)


def test_the_figures_of_a_step() -> None:
    rollouts = table(
        correct=[1, 0, 0, 0, 1, 1, 1, 1],
        used=[1, 0, 0, 0, 1, 1, 1, 1],
        operations=[2, 1, 0, 0, 1, 1, 1, 1],
        errors=[1, 1, 0, 0, 0, 0, 0, 0],
        repaired=[1, 0, 0, 0, 0, 0, 0, 0],
        cue_known=[1, 0, 0, 0, 1, 1, 1, 0],
        cue_shown=[0.5, 0, 0, 0, 1, 1, 0, 0],
        turns=[3, 3, 1, 1, 2, 2, 2, 2],
        malformed=[0, 1, 1, 0, 0, 0, 0, 0],
        needed=[0, 0, 0, 0, 1, 1, 1, 1],
        cut=[0, 0, 0, 1, 0, 0, 0, 0],
        truncated=[0, 1, 0, 0, 0, 0, 0, 0],
        written=[10] * 8,
        negative_logp=[5] * 8,
    )
    metrics = step_metrics(rollouts, group_rewards(rollouts, 4, RewardSettings()), 4)
    expected = {
        "correctness": 5 / 8, "rapr": 5 / 8, "rapr_needed": 1.0, "operations": 7 / 8, "operation_errors": 2 / 8,
        "correctness_pixel": 1.0, "correctness_textual": 0.0, "repair_rate": 0.5, "cue_coverage": 2.5 / 4,
        "operation_error_rate": 2 / 7, "turns": 2.0, "malformed_rate": 2 / 16, "truncation_rate": 1 / 8,
        "cut_rate": 1 / 8, "entropy": 0.5, "uniform_groups": 0.5, "curiosity": 0.025 / 8,
        "operation_penalty": -0.05 / 8, "broken_rate": 0.0,
        "tokens_per_rollout": 10.0,
    }  # fmt: skip
    assert metrics == pytest.approx(expected)


def test_what_is_said_of_a_rollout() -> None:
    episode = Episode(gym.make("PixelReason-Zoom-v0", preset="micro"))
    played = []
    broken, crop, answer = "crop_image([1, 2", "crop_image([0, 0, 56, 56])", r"\boxed{nothing}"
    for actions in ((crop, broken, answer), (broken, "crop_image([9, 9, 3, 3])", crop, answer), (answer,)):
        episode.reset(0, seed=0)
        for action in actions:
            episode.step(action)
        played.append(Sample([1], [2, 3], [1, 0], [-0.5, 0.0], [], 0, episode.trajectory(), cut=False))
    rows = dict(zip(COLUMNS, columns(played, [False] * 3).T.tolist(), strict=True))
    assert rows["errors"] == [1, 2, 0] and rows["operations"] == [2, 3, 0] and rows["used"] == [1, 1, 0]
    assert rows["repaired"] == [0, 1, 0] and rows["cue_known"] == [1, 1, 0]
    coverage = played[0].trajectory.cue_coverage
    assert rows["cue_shown"] == [coverage, coverage, 0] and rows["negative_logp"] == [0.5] * 3
    assert rows["written"] == [1, 1, 1] and rows["turns"] == [3, 4, 1] and rows["malformed"] == [1, 1, 0]


def trainer_of(tmp_path: Path, config: RLConfig = SMALL, model: Any = None) -> CuriosityGRPOTrainer:
    made = CuriosityGRPOTrainer(
        tiny_vlm.talking_model() if model is None else model,
        tiny_vlm.encoder(),
        ENV,
        KWARGS,
        config,
        args=trl_config(tmp_path, config),
        train_dataset=Dataset.from_dict({"prompt": ["0"] * config.prompts}),
    )
    made.model.train()
    made.current_gradient_accumulation_steps = made.args.gradient_accumulation_steps
    return made


def scored(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: RLConfig = SMALL, **columns: Sequence[float]
) -> dict[str, Any]:
    """What TRL trains on if the rollouts of two tasks had these columns."""
    monkeypatch.setattr(grpo, "columns", lambda *_: np.stack(list(table(**columns).values()), axis=1))
    prompts = [{"prompt": str(row // config.group_size)} for row in range(2 * config.group_size)]
    return dict(trainer_of(tmp_path, config)._generate_and_score_completions(prompts))


def test_advantages_by_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    columns: dict[str, Sequence[float]] = {
        "correct": [1, 1, 0, 0, 0, 0, 0, 0],
        "used": users(1),
        "operations": users(1),
    }
    config = dataclasses.replace(SMALL, group_size=8, scale_rewards="none")
    columns = {name: [*values, *users(0)] for name, values in columns.items()}
    advantages = scored(monkeypatch, tmp_path, config, **columns)["advantages"]
    mean = (1.0875 + 1) / 8
    np.testing.assert_allclose(advantages, [1.0875 - mean, 1 - mean, *[-mean] * 6, *[0.0] * 8], atol=1e-6)
    advantages = scored(monkeypatch, tmp_path, dataclasses.replace(config, scale_rewards="group"), **columns)[
        "advantages"
    ]
    rewards = np.array([1.0875, 1, 0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(advantages[:8], (rewards - mean) / (rewards.std(ddof=1) + 1e-4), atol=1e-5)


@pytest.mark.parametrize(
    "columns",
    [{"correct": [0] * 8}, {"correct": [1] * 8}, {"correct": [1, 1, 1, 1, 0, 0, 0, 0]}, {"broken": [1] * 8}],
    ids=["all failed", "all right", "equal in each group", "all broken"],
)
def test_equal_rewards_have_no_advantage(
    columns: dict[str, list[float]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert scored(monkeypatch, tmp_path, **columns)["advantages"].tolist() == [0.0] * 8


def test_a_failed_group_learns_from_curiosity_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, scale_rewards="none")
    rows = {"used": [1.0, *[0.0] * 7], "operations": [1.0, *[0.0] * 7]}
    bonus = 0.5 * (0.3 - 0.25)
    advantages = scored(monkeypatch, tmp_path, config, **rows)["advantages"]
    np.testing.assert_allclose(advantages, [0.75 * bonus, *[-bonus / 4] * 3, *[0] * 4], atol=1e-7)


@pytest.mark.parametrize("train_on_cut", [False, True])
def test_a_cut_rollout_is_a_failure_whose_loss_is_a_choice(
    train_on_cut: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Room for the first turn only: the rollouts end before the environment's answer.
    config = dataclasses.replace(SMALL, max_completion_tokens=20, train_on_cut=train_on_cut, scale_rewards="none")
    inputs = scored(monkeypatch, tmp_path, config, correct=[1, 0, 0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(inputs["advantages"], [0.75, -0.25, -0.25, -0.25, 0, 0, 0, 0])
    loss_tokens = (inputs["tool_mask"] * inputs["completion_mask"]).sum(1)
    assert bool((loss_tokens > 0).all()) is train_on_cut and bool((loss_tokens == 0).all()) is not train_on_cut


# --- the trainer's numbers ------------------------------------------------------------------------------------------


def scripted_inputs(tmp_path: Path, config: RLConfig, model: Any = None) -> tuple[CuriosityGRPOTrainer, dict[str, Any]]:
    """A trainer, and its inputs for ragged rollouts of 0 to 16 images."""
    trainer = trainer_of(tmp_path, config, model)
    scripts = [[], [1], [2, 0, 1], [0, 0], [16], [1, 1, 3], [4], [0, 8]]
    episodes = [tiny_vlm.Scripted(ENV, row // 4, script) for row, script in enumerate(scripts)]
    for episode in episodes:
        episode.reset = lambda *_: None  # type: ignore[method-assign]
    trainer._episodes = episodes
    inputs = trainer._generate_and_score_completions([{"prompt": str(row // 4)} for row in range(8)])
    return trainer, dict(inputs)


def trainer_logps(trainer: CuriosityGRPOTrainer, inputs: dict[str, Any]) -> torch.Tensor:
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    vision = {k: inputs[k] for k in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")}
    width = inputs["completion_ids"].shape[1]
    with torch.no_grad():
        return trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, width, **vision)[0]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_trainer_s_log_probabilities_are_the_engine_s(temperature: float, tmp_path: Path) -> None:
    trainer, inputs = scripted_inputs(tmp_path, dataclasses.replace(SMALL, temperature=temperature))
    assert inputs["num_images"] == [len(sample.images) for sample in trainer._samples]
    chosen = torch.tensor([1, 3, 4, 6])
    for rows, given in ((range(8), inputs), (chosen.tolist(), chosen_rows(inputs, chosen))):
        logps = trainer_logps(trainer, given)
        for row, k in enumerate(rows):
            sample = trainer._samples[k]
            written = torch.tensor(sample.policy_mask).bool()
            assert torch.equal(given["tool_mask"][row, : len(written)].bool(), written)
            difference = logps[row, : len(written)][written] - torch.tensor(sample.logps)[written]
            assert difference.abs().max() < 1e-4


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo"])
def test_leaving_out_rollouts_without_advantage_changes_nothing(loss_type: Any, tmp_path: Path) -> None:
    trainer, inputs = scripted_inputs(tmp_path, dataclasses.replace(SMALL, loss_type=loss_type))
    inputs["advantages"] = torch.tensor([0.0, 1.5, 0.0, -0.5, 0.0, -1.0, 0.0, 0.0])
    gradients = []
    for loss in (
        trainer._compute_loss(trainer.model, inputs),
        GRPOTrainer._compute_loss(trainer, trainer.model, inputs),
    ):
        trainer.model.zero_grad()
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-6)
    assert gradients[0].abs().max() > 1e-3


UNIFORM = torch.tensor([0.0, 1.5, 0.0, -0.5, 0.0, -1.0, 0.0, 0.0])


def gradient(trainer: CuriosityGRPOTrainer, loss: torch.Tensor) -> torch.Tensor:
    trainer.model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters()])


@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
def test_dropped_groups_are_not_in_the_mean(loss_type: Any, tmp_path: Path) -> None:
    trainer, inputs = scripted_inputs(
        tmp_path, dataclasses.replace(SMALL, loss_type=loss_type, uniform_groups="drop", batch_size=8)
    )
    inputs["advantages"] = UNIFORM
    dropped = trainer._without_uniform_groups(dict(inputs))
    ours = gradient(trainer, trainer._compute_loss(trainer.model, dropped))
    written = (inputs["tool_mask"] * inputs["completion_mask"]).sum(1)
    if loss_type == "dapo":
        assert int(dropped["num_items_in_batch"]) == int(written[UNIFORM != 0].sum()) < int(written.sum())
    alone = chosen_rows(inputs, torch.tensor([1, 3, 5])) | {"num_items_in_batch": written[UNIFORM != 0].sum()}
    torch.testing.assert_close(
        ours, gradient(trainer, GRPOTrainer._compute_loss(trainer, trainer.model, alone)), atol=1e-6, rtol=1e-4
    )


def test_replay_draws_by_advantage_and_replaces_nothing_else() -> None:
    torch.manual_seed(0)
    counts = torch.zeros(8)
    for _ in range(800):
        rows = replayed(UNIFORM)
        assert rows[UNIFORM != 0].tolist() == [1, 3, 5]
        counts += torch.bincount(rows[UNIFORM == 0], minlength=8)
    assert counts[[0, 2, 4, 6, 7]].sum() == 0
    np.testing.assert_allclose(counts[[1, 3, 5]] / counts.sum(), [1.5 / 3, 0.5 / 3, 1.0 / 3], atol=0.03)
    for nothing in (torch.zeros(4), torch.tensor([1.0, -1.0])):
        assert replayed(nothing).tolist() == list(range(len(nothing)))


def test_replayed_rollouts_bring_all_that_is_theirs(tmp_path: Path) -> None:
    trainer, inputs = scripted_inputs(tmp_path, dataclasses.replace(SMALL, uniform_groups="replay", batch_size=8))
    inputs["advantages"] = UNIFORM
    torch.manual_seed(1)
    rows = replayed(UNIFORM)
    torch.manual_seed(1)
    split = grpo.split_pixel_values_by_grid(dict(inputs))
    replay = grpo.unsplit_pixel_values_by_grid(trainer._without_uniform_groups(split))
    assert torch.equal(replay["advantages"], UNIFORM[rows]) and bool((replay["advantages"] != 0).all())
    logps, before = trainer_logps(trainer, replay), trainer_logps(trainer, inputs)
    for new, old in enumerate(rows.tolist()):
        written = inputs["tool_mask"][old].bool()
        torch.testing.assert_close(logps[new][written], before[old][written], atol=1e-4, rtol=0)


def test_divergence_is_that_from_the_policy_at_the_start(tmp_path: Path) -> None:
    trainer, inputs = scripted_inputs(tmp_path, dataclasses.replace(SMALL, kl=0.5))
    inputs["advantages"] = torch.zeros(8)
    assert gradient(trainer, trainer._compute_loss(trainer.model, dict(inputs))).abs().max() < 1e-5
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter += 1e-3 * torch.randn_like(parameter)
    moved = trainer_logps(trainer, inputs)
    loss = trainer._compute_loss(trainer.model, dict(inputs))
    written = (inputs["tool_mask"] * inputs["completion_mask"]).bool()
    log_ratio = (inputs["ref_per_token_logps"] - moved)[written]
    expected = 0.5 * (log_ratio.exp() - log_ratio - 1).mean()  # Schulman's k3
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-3, atol=1e-8)
    assert expected > 1e-6
    with pytest.raises(ValueError, match="expected kl of at least 0"):
        RLConfig(kl=-1.0)


def test_rollouts_of_a_step_are_put_in_order_of_length_group_by_group() -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([5, 9, 2, 7, 3, 8, 1, 6])
    completion_mask = (torch.arange(9) < lengths[:, None]).long()
    advantages = torch.tensor([1.0, -1.0, 0.5, 0.0, 1.0, -0.5, 0.0, 0.0])
    rollouts = {"prompt_mask": torch.ones(8, 4), "completion_mask": completion_mask, "advantages": advantages}
    rollouts["group"] = torch.tensor([3, 3, 4, 4, 5, 5, 6, 6])
    assert in_order_of_length(rollouts, updates=1).tolist() == [0, 1, 4, 5, 2, 3, 6, 7]  # 22, 19, 6 and no tokens
    steps = [in_order_of_length(rollouts, updates=2).chunk(2) for _ in range(20)]
    assert len({tuple(sorted(one.tolist())) for one, _ in steps}) > 3  # which step a group is in stays random
    for pair in steps:
        assert sorted(torch.cat(pair).tolist()) == list(range(8))
        for part in pair:
            assert rollouts["group"][part].tolist() in ([g, g, h, h] for g in (3, 5, 4, 6) for h in (5, 4, 6))
    mixed = rollouts | {"group": torch.tensor([3, 4, 3, 4, 5, 3, 4, 5])}  # as replay leaves them
    assert in_order_of_length(mixed, updates=1).tolist() == [0, 2, 5, 1, 3, 6, 4, 7]


def test_shared_prompts_change_neither_log_probabilities_nor_gradients(tmp_path: Path) -> None:
    """Beside TRL's own forward pass, a row a rollout, in double precision."""
    trainer, inputs = scripted_inputs(tmp_path, dataclasses.replace(SMALL, temperature=0.7), tiny_vlm.model().double())
    trainer._engine = None  # type: ignore[assignment]  # single precision is its own
    chosen = chosen_rows(inputs, torch.tensor([0, 1, 2, 4, 7]))
    chosen["pixel_values"] = chosen["pixel_values"].double()
    ids, mask = (torch.cat([chosen[f"prompt_{name}"], chosen[f"completion_{name}"]], 1) for name in ("ids", "mask"))
    width = chosen["completion_ids"].shape[1]
    vision = {k: chosen[k] for k in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")}
    shared = trainer._shared(ids, mask, width, vision)
    assert shared is not None and len(shared.source) == 2
    assert shared.inputs["image_grid_thw"].shape[0] < chosen["image_grid_thw"].shape[0]
    found = []
    for compute in (CuriosityGRPOTrainer, GRPOTrainer):
        logps, entropies, _ = compute._get_per_token_logps_and_entropies(
            trainer, trainer.model, ids, mask, width, compute_entropy=True, **vision
        )
        written = chosen["completion_mask"].bool()
        weights = torch.linspace(-1, 1, int(written.sum()), dtype=torch.float64)
        trainer.model.zero_grad()
        (logps[written] * weights).sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
        found.append((logps[written].detach(), entropies[written].detach(), gradient))
    (*values, ours), (*others, theirs) = found
    torch.testing.assert_close(values, others, rtol=1e-9, atol=1e-11)
    assert (ours - theirs).norm() < 1e-6 * theirs.norm()  # norms and rotations are in single precision in any case
    alone = torch.tensor([0, 4])  # of two tasks
    few = chosen_rows(inputs, alone)
    rest = {k: few[k] for k in vision}
    assert trainer._shared(few["prompt_ids"], few["prompt_mask"], 1, rest) is None


# --- training -------------------------------------------------------------------------------------------------------


def silence(samples: Any, videos: Any) -> np.ndarray:
    """Columns that call a rollout correct if it ends its first turn at once."""
    ended = [float(sample.completion_ids[0] == ENCODER.end) for sample in samples]
    return np.stack(list(table(correct=ended, written=[1.0] * len(ended)).values()), axis=1)


def state_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


class Logs(TrainerCallback):
    def __init__(self, stop_after: int | None = None) -> None:
        self.rows: list[dict[str, Any]] = []
        self.stop_after = stop_after

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.rows.append(logs)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.stop_after:
            raise KeyboardInterrupt


def train(model: Any, out: Path, config: RLConfig = SMALL, resume: bool = False, stop_after: int | None = None) -> Logs:
    logs = Logs(stop_after)
    settings: dict[str, Any] = {"resume": resume, "callbacks": [logs], "progress": False}
    if stop_after is None:
        reinforce(model, tiny_vlm.processor(), ENV, KWARGS, out, config, **settings)
    else:
        with pytest.raises(KeyboardInterrupt):
            reinforce(model, tiny_vlm.processor(), ENV, KWARGS, out, config, **settings)
    return logs


def test_it_learns_and_every_weight_moves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(grpo, "columns", silence)
    model = tiny_vlm.talking_model(end_bias=5.0, scale=1.0)
    before = state_of(model)
    config = dataclasses.replace(SMALL, steps=12, group_size=8, learning_rate=1e-2, max_new_tokens=2, save_steps=100)
    logs = train(model, tmp_path, config)
    share = [row["correctness"] for row in logs.rows if "correctness" in row]
    assert np.mean(share[-4:]) > np.mean(share[:4]) + 0.15
    assert [name for name, value in state_of(model).items() if torch.equal(value, before[name])] == []
    names = {"rapr", "entropy", "uniform_groups", "operations", "rollouts_per_second", "tokens_per_second", "cut_rate"}
    assert names | {"rewards/curiosity/mean", "operation_penalty", "skipped_steps", "reward"} <= logs.rows[0].keys()


def test_a_killed_run_continues_as_if_nothing_had_happened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(grpo, "columns", silence)
    whole, killed, resumed = (tiny_vlm.talking_model() for _ in range(3))
    train(whole, tmp_path / "whole")
    train(killed, tmp_path / "parts", stop_after=3)
    train(resumed, tmp_path / "parts", resume=True)
    expected = state_of(whole)
    for name, value in state_of(resumed).items():
        torch.testing.assert_close(value, expected[name], msg=name)
    assert not torch.equal(
        state_of(killed)["model.language_model.norm.weight"], expected["model.language_model.norm.weight"]
    )


def test_several_updates_of_one_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(grpo, "columns", silence)
    logs = train(tiny_vlm.talking_model(), tmp_path, dataclasses.replace(SMALL, updates=2))
    assert sum("rollouts_per_second" in row for row in logs.rows) == 2
    with pytest.raises(ValueError, match="expected updates to divide prompts"):
        RLConfig(updates=3)


def test_a_step_that_is_not_finite_is_skipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, bad = tiny_vlm.talking_model(), [0, 1]
    weights = state_of(model)
    original = GRPOTrainer._compute_loss

    def compute_loss(self: Any, model: Any, inputs: Any) -> torch.Tensor:
        loss = original(self, model, inputs)
        return loss * (torch.nan if self.state.global_step in bad else 1.0)

    monkeypatch.setattr(GRPOTrainer, "_compute_loss", compute_loss)
    monkeypatch.setattr(grpo, "columns", silence)
    logs = train(model, tmp_path / "two")
    assert [row["skipped_steps"] for row in logs.rows if "skipped_steps" in row] == [0, 1, 2, 2]
    assert all(value.isfinite().all() for value in state_of(model).values())
    bad += [2, 3]
    model = tiny_vlm.talking_model()
    with pytest.raises(RuntimeError, match="not finite in 3 steps in a row, up to step 3"):
        train(model, tmp_path / "all")
    assert all(torch.equal(value, weights[name]) for name, value in state_of(model).items())
    assert (tmp_path / "all" / "checkpoint-3" / "complete").exists()
