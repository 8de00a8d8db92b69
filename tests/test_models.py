"""Any Qwen2.5-VL in one command: adapters, precision, passes limited in tokens, and what a run will take."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import tiny_vlm
import torch
from hub_layout import CONFIG_3B, CONFIG_7B, save_as_on_the_hub, write_json
from hypothesis import given
from hypothesis import strategies as st
from test_grpo import SMALL, scripted_inputs, silence, state_of, train, trainer_logps
from test_sft import Stop
from transformers import (
    AutoImageProcessor,
    AutoProcessor,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.models.auto.video_processing_auto import get_video_processor_config
from transformers.utils import is_torchvision_available

from agents import grpo, micro
from agents.checkpoints import load_weights
from agents.conversation import ChatEncoder
from agents.demonstrations import demonstrations
from agents.examples import Examples, collate
from agents.lengths import demonstration, longest_demonstration, mean_demonstration, shares
from agents.memory import GB, Estimate, check, read_config
from agents.plan import guess, plan, speed
from agents.run_settings import Settings, parse
from agents.sft import warm_start
from agents.sft_config import WarmStartConfig
from agents.token_passes import check_one_process, token_passes
from agents.train_vlm import main
from agents.weights import choose_trained, stored_dtype, trained_part
from pixel_env import prompts
from pixel_env.command_line import UsageError
from pixel_env.trajectory import Trajectory, load_jsonl

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`:FutureWarning", "ignore:.*gradient_checkpointing:FutureWarning"
)


@pytest.fixture(scope="module")
def made() -> list[Trajectory]:
    return demonstrations("PixelReason-Mixed-v0", 8, seed=3, preset="micro", progress=False)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_as_on_the_hub(tmp_path_factory.mktemp("Qwen2.5-VL-7B-Instruct"))


def stirred(adapted: Any) -> Any:
    """Adapters that change something: the half that begins at zero gets numbers."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.05)
    return adapted


# --- adapters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vision", [True, False])
def test_adapters_end_as_plain_weights(vision: bool, tmp_path: Path) -> None:
    from peft import PeftModel

    model, before = tiny_vlm.model(), tiny_vlm.model()
    with trained_part(model, tmp_path, lora=2, vision=vision) as adapted:
        learning = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
        assert all("lora_" in name for name in learning)
        assert any("visual" in name for name in learning) == vision
        stirred(adapted)
    old, new = dict(before.named_parameters()), dict(model.named_parameters())
    assert new.keys() == old.keys() and all(weight.requires_grad for weight in new.values())
    linear = {name for name, weight in old.items() if weight.ndim == 2 and "embed" not in name}
    linear = {name for name in linear if vision or "visual" not in name}
    assert {name for name in new if not torch.equal(new[name], old[name])} == linear
    again = PeftModel.from_pretrained(before, tmp_path / "adapter")  # what lies beside the merged model
    name = "model.language_model.layers.1.mlp.down_proj"
    layer = again.get_base_model().get_submodule(name)
    update = 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight  # alpha / rank = 2
    torch.testing.assert_close(new[f"{name}.weight"], old[f"{name}.weight"] + update)


def test_a_warm_start_of_adapters_goes_on_where_it_was_stopped(made: list[Trajectory], tmp_path: Path) -> None:
    config = WarmStartConfig(epochs=2, learning_rate=1e-2, batch_size=2, save_steps=2, lora=2)
    made = made[:4]
    one, broken, again = (tiny_vlm.model() for _ in range(3))
    warm_start(one, tiny_vlm.processor(), made, tmp_path / "one", config, progress=False)
    with pytest.raises(InterruptedError):
        stopped: dict[str, Any] = {"callbacks": [Stop(3)], "progress": False}
        warm_start(broken, tiny_vlm.processor(), made, tmp_path / "two", config, **stopped)
    saved = tmp_path / "two" / "checkpoint-2"
    assert (saved / "adapter_model.safetensors").exists() and not (saved / "model.safetensors").exists()
    warm_start(again, tiny_vlm.processor(), made, tmp_path / "two", config, resume=True, progress=False)
    expected, base = state_of(one), state_of(tiny_vlm.model())
    for name, value in state_of(again).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=name)
    changed = {name for name, value in expected.items() if not torch.equal(value, base[name])}
    assert "model.language_model.layers.0.self_attn.q_proj.weight" in changed
    assert "model.visual.blocks.0.attn.qkv.weight" in changed


def test_rl_of_adapters_without_the_vision_tower(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(grpo, "columns", silence)
    config = dataclasses.replace(SMALL, steps=3, save_steps=1, lora=2, train_vision=False, kl=0.1, learning_rate=1e-2)
    whole, killed, resumed = (tiny_vlm.talking_model() for _ in range(3))
    before = state_of(whole)
    train(whole, tmp_path / "whole", config)
    train(killed, tmp_path / "parts", config, stop_after=2)
    train(resumed, tmp_path / "parts", config, resume=True)
    after = state_of(whole)
    assert before.keys() == after.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert len(changed) == 2 * 7 and not any("visual" in name for name in changed)
    for name, value in state_of(resumed).items():
        torch.testing.assert_close(value, after[name], msg=name)


def test_rl_can_leave_the_vision_tower_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(grpo, "columns", silence)
    model = tiny_vlm.talking_model()
    before = state_of(model)
    train(model, tmp_path, dataclasses.replace(SMALL, steps=2, group_size=16, train_vision=False))
    for name, value in state_of(model).items():
        assert torch.equal(value, before[name]) == ("visual" in name), name


# --- precision ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lora", "dtype", "tolerance"), [(2, "float32", 1e-4), (2, "bfloat16", 0.05), (0, "bfloat16", 0.05)]
)
def test_engine_and_trainer_agree(lora: int, dtype: Any, tolerance: float, tmp_path: Path) -> None:
    """On the log-probabilities of what was sampled, in nats, and with adapters that change them."""
    config = dataclasses.replace(SMALL, dtype=dtype, lora=lora)
    plain = tiny_vlm.talking_model(scale=2.0).to(stored_dtype(dtype, lora))
    model = choose_trained(plain, lora)
    trainer, inputs = scripted_inputs(tmp_path, config, stirred(model) if lora else model)
    assert trainer.args.bf16 == (dtype == "bfloat16")
    logps, worst = trainer_logps(trainer, inputs), []
    for row, sample in enumerate(trainer._samples):
        written = torch.tensor(sample.policy_mask).bool()
        worst.append((logps[row, : len(written)][written] - torch.tensor(sample.logps)[written]).abs().max())
    assert max(worst) < tolerance
    if lora:
        with model.disable_adapter():
            assert (trainer_logps(trainer, inputs) - logps).abs().max() > 0.2


@pytest.mark.parametrize("lora", [0, 2])
def test_trained_weights_have_32_bits(lora: int, made: list[Trajectory], tmp_path: Path) -> None:
    """Steps of 1e-6, the paper's rate, would all round away in 16."""
    dtype = stored_dtype("bfloat16", lora)
    model = tiny_vlm.model().to(dtype)
    before = state_of(choose_trained(tiny_vlm.model().to(dtype), lora))
    config = WarmStartConfig(epochs=1, learning_rate=1e-6, batch_size=4, dtype="bfloat16", lora=lora)
    warm_start(model, tiny_vlm.processor(), made, tmp_path, config, progress=False)
    weights = state_of(model)
    assert {weight.dtype for weight in weights.values()} == {dtype}
    if lora:
        model = choose_trained(model, lora)
        load_weights(model, tmp_path / "checkpoint-2")
        weights = {name: weight for name, weight in state_of(model).items() if "lora_" in name}
    assert {weight.dtype for name, weight in weights.items()} == {torch.float32}
    assert sum(torch.equal(weight, before[name]) for name, weight in weights.items()) == 0


# --- passes limited in tokens ---------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40)), min_size=1, max_size=40),
    st.integers(1, 400),
)
def test_passes_hold_every_row_once_and_no_more_than_fits(lengths: list[tuple[int, int]], tokens: int) -> None:
    passes = token_passes(lengths, tokens)
    assert sorted(row for rows in passes for row in rows) == list(range(len(lengths)))
    for rows in passes:
        assert rows == sorted(rows)
        width = max(lengths[row][0] for row in rows) + max(lengths[row][1] for row in rows)
        assert len(rows) == 1 or len(rows) * width <= tokens


def sft_step(made: list[Trajectory], out: Path, **settings: Any) -> tuple[dict[str, Any], torch.Tensor]:
    """What is logged of the only step, and the weights that it made."""
    rows: list[dict[str, Any]] = []

    class Rows(Stop):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            rows.append(logs)

    model = tiny_vlm.model(scale=1.0)
    config = WarmStartConfig(epochs=1, learning_rate=1e-3, **settings)
    warm_start(model, tiny_vlm.processor(), made, out, config, callbacks=[Rows(-1)], progress=False)
    return rows[0], torch.cat([weight.detach().flatten() for weight in model.parameters()])


def test_a_warm_start_by_tokens_takes_the_same_steps(made: list[Trajectory], tmp_path: Path) -> None:
    by_rows, rows = sft_step(made, tmp_path / "rows", batch_size=8)
    by_tokens, tokens = sft_step(made, tmp_path / "tokens", batch_size=4, accumulation=2, batch_tokens=1500)
    for name in ("loss", "grad_norm", "num_tokens"):
        assert by_tokens[name] == pytest.approx(by_rows[name], rel=1e-5), name
    torch.testing.assert_close(tokens, rows, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
@pytest.mark.parametrize("uniform_groups", ["keep", "drop"])
def test_an_rl_step_by_tokens_has_the_same_gradient(loss_type: Any, uniform_groups: Any, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, batch_size=8, loss_type=loss_type, uniform_groups=uniform_groups)
    trainer, inputs = scripted_inputs(tmp_path, config)
    inputs["advantages"] = torch.tensor([0.7, 1.5, 0.0, -0.5, 0.3, -1.0, 0.0, -0.2])
    inputs = trainer._without_uniform_groups(inputs)
    found = []
    for tokens in (None, 900):
        trainer._config = dataclasses.replace(config, batch_tokens=tokens)
        trainer.model.zero_grad()
        loss = trainer._compute_loss(trainer.model, inputs)  # goes backward itself, but for the last pass
        loss.backward()
        found.append((loss.item(), torch.cat([p.grad.flatten() for p in trainer.model.parameters()])))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-7)
    assert found[0][1].abs().max() > 1e-3


def test_passes_by_tokens_are_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    check_one_process()
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="expected one process with a limit of tokens a pass"):
        check_one_process()


# --- what a run will take -------------------------------------------------------------------------------------------


def big(config: dict[str, Any], folder: Path) -> str:
    """A folder with nothing but a configuration."""
    write_json(folder / "config.json", config)
    return str(folder)


def settings_of(*arguments: str) -> Settings:
    return parse(list(arguments), "")[0]


def attention_and_mlp(hidden: int, keys: int, inner: int) -> int:
    """Weights of a layer of the language model: q, k, v with biases, o; gate, up, down; two norms."""
    return 2 * hidden**2 + hidden + 2 * (hidden + 1) * keys + 3 * hidden * inner + 2 * hidden


def tower(out: int) -> int:
    """Weights of the vision tower: patches of 14 x 14 x 2 x 3 numbers, 32 blocks, the merger of 2 x 2 patches."""
    block = 4 * 1280**2 + 4 * 1280 + 3 * 1280 * 3420 + 2 * 3420 + 1280 + 2 * 1280
    return 1280 * 1176 + 32 * block + 1280 + (5120 + 1) * 5120 + (5120 + 1) * out


def test_parameters_of_the_real_models(tmp_path: Path) -> None:
    seven = Estimate(read_config(big(CONFIG_7B, tmp_path)))
    language = 28 * attention_and_mlp(3584, 512, 18944) + 2 * 152064 * 3584 + 3584
    assert seven.parameters(0, True) == (0, language + tower(3584)) == (0, 8_292_166_656)
    assert seven.parameters(0, False) == (tower(3584), language)
    # A of rank 8 by the inputs and B of 8 by the outputs: q, o; k, v; gate, up, down
    adapters = 28 * 8 * (2 * 2 * 3584 + 2 * (3584 + 512) + 3 * (3584 + 18944))
    assert seven.parameters(8, False) == (8_292_166_656, adapters)
    three = Estimate(read_config(big(CONFIG_3B, tmp_path)))
    language = 36 * attention_and_mlp(2048, 256, 11008) + 151936 * 2048 + 2048  # the output head is the embedding
    assert three.parameters(0, True) == (0, language + tower(2048)) == (0, 3_754_622_976)


def test_memory_by_hand(tmp_path: Path) -> None:
    estimate = Estimate(read_config(big(CONFIG_7B, tmp_path)))
    paper = ("--recipe", "paper", "--gradient-checkpointing", "--dtype", "bfloat16")
    full = estimate.phases(settings_of(*paper, "--prompts", "2", "--max-completion-tokens", "3000"))
    count = 8_292_166_656
    assert full["warm start"]["weights"] == (4 + 2) * count  # 32 bits, and what autocast copies
    assert (full["warm start"]["gradients"], full["warm start"]["optimizer"]) == (4 * count, 8 * count)
    assert full["RL rollouts"].get("gradients", 0) == 0
    assert full["evaluation"]["weights"] == 2 * count
    prompt = 1280 + 453  # the view, and its text by its characters
    cache = 2 * 28 * 4 * 128 * 2  # keys and values, layers, key heads, their width, bytes
    assert full["RL rollouts"]["KV cache"] == pytest.approx(cache * (2 * prompt + 16 * 3000), rel=0.01)
    assert full["RL rollouts"]["logits"] == 16 * 152064 * (2 + 12)
    adapted = estimate.phases(settings_of(*paper, "--lora", "8", "--freeze-vision", "--kl", "0.1"))
    trained = 28 * 8 * (2 * 2 * 3584 + 2 * (3584 + 512) + 3 * (3584 + 18944))
    assert adapted["warm start"]["weights"] == 2 * count + (4 + 2) * trained
    assert adapted["warm start"]["optimizer"] == 8 * trained
    assert adapted["RL update"]["reference"] == 4 * estimate.parameters(8, True)[1]  # its base is shared


def kept_for_the_backward_pass(layers: int, batch: dict[str, Any], dtype: Any, lora: int, checkpointing: bool) -> Any:
    """Bytes of all that a forward pass saves beside weights and their copies in 16 bits, and what is expected."""
    model = micro.build_model(tiny_vlm.processor(), hidden=128, layers=layers, depth=layers)
    trained = choose_trained(model.to(stored_dtype(dtype, lora)), lora).train()
    if checkpointing:
        trained.gradient_checkpointing_enable()
    sizes = dict.fromkeys((weight.untyped_storage().data_ptr() for weight in trained.parameters()), 0)
    kept: list[torch.Tensor] = []  # alive, so that no address is used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        sizes.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes())
        return tensor

    half = dtype == "bfloat16"
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            trained(**batch, use_cache=False, logits_to_keep=1)
    copied = [weight for weight in trained.parameters() if weight.ndim == 2 and weight.requires_grad]
    copies = 2 * sum(weight.numel() for weight in copied) if half and not checkpointing else 0
    sequence = batch["input_ids"].numel(), len(batch["pixel_values"])
    expected = Estimate(model.config).activations(*sequence, dtype, lora, checkpointing, again=False)
    return sum(sizes.values()) - copies, expected


@pytest.mark.parametrize(("lora", "dtype"), [(0, "float32"), (0, "bfloat16"), (4, "float32"), (4, "bfloat16")])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_those_that_autograd_keeps(
    lora: int, dtype: Any, checkpointing: bool, made: list[Trajectory]
) -> None:
    """Of two layers and two blocks: the difference between models of three and of one."""
    encoder = tiny_vlm.encoder()
    batch = collate([Examples(encoder, made[:1], progress=False)[0]] * 2, encoder)
    del batch["labels"]
    (more, much), (less, little) = (kept_for_the_backward_pass(n, batch, dtype, lora, checkpointing) for n in (3, 1))
    assert more - less == pytest.approx(much - little, rel=0.1), (more - less) / (much - little)


def test_a_run_that_cannot_fit_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seven = big(CONFIG_7B, tmp_path)
    paper = ["--model", seven, "--recipe", "paper", "--dtype", "bfloat16", "--memory", "80"]
    assert main([*paper, "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "this run takes" in said and "--lora 16" in said
    assert not (tmp_path / "run").exists()
    estimate = Estimate(read_config(seven))
    words = said.partition(" with ")[2].partition(" (--plan")[0].split()
    assert estimate.peak(settings_of(*paper, *words)) <= 80 * GB  # as suggested it fits ...
    with pytest.raises(UsageError, match="this run takes"):  # ... and without one of its options it does not
        check(estimate, settings_of(*paper, *(word for word in words if word != "--gradient-checkpointing")))
    with pytest.raises(UsageError, match="no option makes it fit"):
        check(estimate, settings_of(*paper, "--memory", "4"))
    check(estimate, settings_of(*paper, "--memory", "1000"))


def test_a_plan_loads_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "7b").mkdir()
    seven = big(CONFIG_7B, tmp_path / "7b")
    given = ["--model", seven, "--recipe", "paper", "--lora", "8", "--dtype", "bfloat16", "--plan", "--memory", "1000"]
    assert main([*given, "--out", str(tmp_path / "runs" / "new")]) == 0
    said = capsys.readouterr().out
    for part in (
        "8.29 billion weights", "118 steps: 2 x 7,500 demonstrations, 128 a step", "at most 10,000 behind them",
        "500 steps: 32 tasks x 8 rollouts a round, 128,000 in all", "3 x 512 episodes", "time        not known",
        "a guess for 1 x H100: warm start ", "passes do 100 TFLOP/s and decoding takes 80 ms a token",
        "KV cache", "fits in 1000.0 GB",
    ):  # fmt: skip
        assert part in said, said
    assert not (tmp_path / "runs").exists()


def test_time_is_that_of_a_run_like_this_one(tmp_path: Path) -> None:
    settings = settings_of("--demonstrations", "1000", "--rl-steps", "100")
    other = tmp_path / "earlier"
    other.mkdir()
    config = {"settings": dataclasses.asdict(settings) | {"prompts": 4}, "machine": {"device": "abacus"}}
    write_json(other / "config.json", config)
    rows = [{"stage": "warm_start", "step": k, "time": 10.0 * k, "num_tokens": 5000 * k} for k in range(1, 5)]
    rows += [{"stage": "rl", "step": k, "time": 100.0 + k, "step_time": 8.0} for k in range(1, 4)]
    (other / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert speed(settings, tmp_path, "abacus") == {"tokens": 500, "rollouts": 4, "run": str(other)}
    assert speed(settings, tmp_path, "other") == speed(settings_of("--lora", "2"), tmp_path, "abacus") == {}
    said = plan(Estimate(read_config(settings.model)), settings, tmp_path, "abacus")
    hours = 100 * 128 / 4 / 3600
    assert f"RL {hours:.2g} hours, as fast as {other}" in said and "warm start " in said


def test_a_guess_by_hand(tmp_path: Path) -> None:
    settings = settings_of("--model", big(CONFIG_7B, tmp_path), "--recipe", "paper", "--no-corrections")
    # 0.22 look once, 0.267 not at all: 0.45 looks; a prompt of 1,280 visual tokens, 100 of a question and the system
    # text, 100 written; a look adds 100, a text of 60 and a crop of 640.
    looks = 0.3 * 5.5 / 7.5 / (0.3 * 5.5 / 7.5 + 2 / 7.5)
    length = round(len(prompts.instructions("pixel")) // 4 + 1280 + 100 + 100 + looks * 800)
    demonstrated = round(7500 * (0.3 * 5.5 / 7.5 + 2 / 7.5))
    found = guess(Estimate(read_config(settings.model), processes=8), settings)
    assert found["warm start"] == pytest.approx(2 * demonstrated * length * 6 * 8_292_166_656 / 8e14)
    update = 256 * length * 8 * 8_292_166_656 / 8e14
    assert found["RL"] == pytest.approx(500 * (update + 100 * (1 + looks) * 0.08))
    assert guess(Estimate(read_config(settings.model)), settings)["warm start"] == 8 * found["warm start"]
    said = plan(Estimate(read_config(settings.model)), settings_of("--dtype", "float32"), tmp_path, "abacus")
    assert "not known" in said and "H100" not in said


def test_demonstrations_that_are_left_out_are_not_planned() -> None:
    everything, uncorrected = (
        settings_of("--textual-share", "0.2"),
        settings_of("--textual-share", "0.2", "--demonstrations", "1000", "--no-corrections"),
    )
    assert sum(shares(everything).values()) == pytest.approx(1)
    assert shares(uncorrected) == pytest.approx({"single": 0.8 * 0.3, "textual": 0.2})
    said = plan(Estimate(read_config(uncorrected.model)), uncorrected, Path("nowhere"), "abacus")
    assert " x 440 demonstrations" in said
    looks = 0.24 / 0.44
    assert mean_demonstration(uncorrected) == demonstration(uncorrected, looks)
    assert longest_demonstration(uncorrected) == demonstration(uncorrected, 1)
    assert longest_demonstration(everything) == demonstration(everything, 3)


def test_a_model_of_the_hub_without_a_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert main(["--model", "Qwen/no-such-model-at-all", "--plan"]) == 2
    said = capsys.readouterr().err
    assert "cannot load the configuration of Qwen/no-such-model-at-all" in said and said.count("\n") == 1
    assert "without a network, give a folder that holds it" in said
    assert main(["--model", big({"model_type": "qwen2", "architectures": []}, tmp_path), "--plan"]) == 2
    assert "expected --model to be a Qwen2.5-VL, got qwen2" in capsys.readouterr().err


# --- the layout of the Hub ------------------------------------------------------------------------------------------


def test_a_run_on_the_layout_of_the_hub(hub: Path, tmp_path: Path) -> None:
    """Both stages with adapters in bfloat16, small views, and passes by tokens; each leaves plain weights."""
    assert len(list(hub.glob("model-*.safetensors"))) > 1 and (hub / "model.safetensors.index.json").exists()
    given = (
        f"--model {hub} --out {tmp_path / 'run'} --lora 2 --dtype bfloat16 --gradient-checkpointing --batch-tokens 3000"
        " --no-freeze-vision --rl-freeze-vision --view-tokens 9 --crop-tokens 4 --demonstrations 4 --epochs 1"
        " --batch-size 2 --rl-steps 1"
        " --prompts 1 --group-size 2 --test-tasks 1 --max-new-tokens 8 --max-completion-tokens 100 --tasks search"
        " --learning-rate 1e-2 --rl-learning-rate 1e-2 --evaluate last"
    )
    assert main(given.split()) == 0
    start = Qwen2_5_VLForConditionalGeneration.from_pretrained(hub).state_dict()
    for stage in ("warm_start", "rl"):
        folder = tmp_path / "run" / stage
        assert (folder / "adapter" / "adapter_model.safetensors").exists()
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder / "model")
        assert model.dtype == torch.bfloat16 and model.state_dict().keys() == start.keys()
    warm = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "run" / "warm_start" / "model").state_dict()
    assert not torch.equal(
        warm["model.visual.blocks.0.attn.qkv.weight"], start["model.visual.blocks.0.attn.qkv.weight"]
    )
    (played,) = load_jsonl(tmp_path / "run" / "trajectories" / "rl.jsonl")
    assert played.env_kwargs["view_pixels"] == 9 * 784 and played.env_kwargs["crop_pixels"] == 4 * 784


def test_a_saved_processor_is_the_stock_one(tmp_path: Path) -> None:
    tiny_vlm.processor().save_pretrained(tmp_path)
    for unread in ("", "processor_config.json"):  # transformers before 5, and vLLM, read the files beside it
        (tmp_path / unread).unlink() if unread else None
        images = AutoImageProcessor.from_pretrained(tmp_path)
        assert (images.patch_size, images.size["shortest_edge"]) == (14, 784)
        videos = get_video_processor_config(tmp_path)
        assert videos["video_processor_type"] == Qwen2VLVideoProcessor.__name__
        assert (videos["patch_size"], videos["merge_size"]) == (14, 2)
        if is_torchvision_available():
            assert type(AutoProcessor.from_pretrained(tmp_path)) is Qwen2_5_VLProcessor
        else:  # so it is found, and would be made
            with pytest.raises(ImportError, match="Qwen2VLVideoProcessor requires the Torchvision library"):
                AutoProcessor.from_pretrained(tmp_path)
        assert micro.load_processor(tmp_path).tokenizer.get_vocab() == tiny_vlm.processor().tokenizer.get_vocab()


def test_the_template_of_the_hub_marks_pictures_and_videos(hub: Path) -> None:
    tokenizer = micro.load_processor(hub).tokenizer
    content = [{"type": "video"}, {"type": "text", "text": "or"}, {"type": "image"}, {"image_url": "x", "type": "y"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "Red."}]
    said = tokenizer.apply_chat_template(messages, tokenize=False, add_vision_id=True)
    assert said == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nVideo 1: <|vision_start|><|video_pad|><|vision_end|>or"
        "Picture 1: <|vision_start|><|image_pad|><|vision_end|>Picture 2: <|vision_start|><|image_pad|><|vision_end|>"
        "<|im_end|>\n<|im_start|>assistant\nRed.<|im_end|>\n"
    )
    assert ": <" not in tokenizer.apply_chat_template(messages, tokenize=False)


def test_the_processor_of_the_hub_is_read_without_torchvision(hub: Path) -> None:
    encoder = ChatEncoder(micro.load_processor(hub))
    assert encoder.processor.image_processor.patch_size == 14 and encoder.factor == 28
    text = encoder.tokenizer.decode(encoder.prompt("Look.", "What?<image>", [torch.zeros(28, 56, 3).numpy()]))
    messages = [
        {"role": "system", "content": "Look."},
        {"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image"}]},
    ]
    expected = encoder.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert text == expected.replace("<|image_pad|>", "<|image_pad|>" * 2)
