"""A user's script trains with unmodified TRL; what its reward functions give is what the environment gives."""

import json
import os
import runpy
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fakes
import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("trl", reason='needs pip install "pixel-env[trl]"')

import torch
from transformers import LogitsProcessor, LogitsProcessorList, Qwen2_5_VLForConditionalGeneration
from transformers.utils import get_json_schema
from trl import GRPOTrainer

import pixel_env  # noqa: F401
from agents import micro  # also makes the processor of the micro model known to transformers
from pixel_env import prompts
from pixel_env.actions import SCHEMAS
from pixel_env.adapters.groups import TERMS
from pixel_env.adapters.trl import ToolEnvironment, reward_funcs, rows
from pixel_env.decoding import MediaError
from pixel_env.rewards import shaped_rewards

ENV = "PixelReason-Zoom-v0"
SCRIPT = Path(__file__).parents[1] / "docs" / "examples" / "trl_grpo.py"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

LOOK = ("crop_image", {"bbox_2d": [10, 10, 60, 60], "target_image": 1})
INVERTED = ("crop_image", {"bbox_2d": [60, 10, 20, 60], "target_image": 1})
NO_VIDEO = ("select_frames", {"target_frames": [1]})
UNKNOWN = ("zoom", {"box": [1]})
MISNAMED = ("crop_image", {"box": [10, 10, 60, 60]})
Call = tuple[str, dict[str, Any]]
Turn = Sequence[Call] | str
"""The calls of a turn, or its text."""


def text(turn: Turn) -> str:
    """A turn as a policy writes it."""
    if isinstance(turn, str):
        return turn
    calls = [json.dumps({"name": name, "arguments": arguments}) for name, arguments in turn]
    return "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in calls)


def completion(environment: ToolEnvironment, turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """What TRL makes of a rollout: it calls the methods that there are and writes down the rest itself."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        if isinstance(turn, str):
            messages.append({"role": "assistant", "content": turn})
            continue
        calls = [{"type": "function", "function": {"name": name, "arguments": given}} for name, given in turn]
        messages.append({"role": "assistant", "content": "", "tool_calls": calls})
        for name, given in turn:
            try:
                content = getattr(environment, name)(**given)
            except (AttributeError, TypeError) as error:
                content = str({"error": str(error)})
            messages.append({"role": "tool", "name": name, "content": content})
    return messages


def directly(task: int | str, turns: Sequence[Turn], **kwargs: Any) -> dict[str, Any]:
    """The last info of the environment that is told one call a turn, then the text."""
    env = gym.make(ENV, **{"preset": "micro", "max_turns": 9} | kwargs)
    _, info = env.reset(options={"task": task})
    for turn in turns:
        for action in [turn] if isinstance(turn, str) else [text([call]) for call in turn]:
            *_, info = env.step(action)
    return info


def scored(groups: Sequence[Sequence[Sequence[Turn]]], indices: Sequence[int], **kwargs: Any) -> list[Any]:
    """Rows of the three terms, as TRL would get them."""
    size = len(groups[0])
    environments, completions, column = [], [], []
    for task, group in zip(indices, groups, strict=True):
        for turns in group:
            environments.append(ToolEnvironment(ENV, **{"preset": "micro", "max_turns": 9} | kwargs))
            environments[-1].reset(prompt=[], task=task)
            completions.append(completion(environments[-1], turns))
            column.append(task)
    arguments = {"completions": completions, "environments": environments, "task": column, "prompts": None}
    metrics: list[tuple[str, float]] = []
    found = [f(log_metric=lambda *m: metrics.append(m), **arguments) for f in reward_funcs(size)]
    assert [name for name, _ in metrics] == ["rapr"]
    return list(zip(*found, strict=True))


ALONE = [[[LOOK], r"\boxed{A}"], [[INVERTED], [INVERTED], r"\boxed{B}"], [[NO_VIDEO], r"\boxed{C}"], [r"\boxed{D}"]]
MANY = [[[LOOK, LOOK, LOOK], r"So \boxed{A}"], [[LOOK], [INVERTED], r"\boxed{B}"], ["no idea"], ["<tool_call>{"]]


def test_functions_are_those_of_the_environment() -> None:
    environment = ToolEnvironment(ENV, preset="micro")
    for schema, method in zip(SCHEMAS, (environment.crop_image, environment.select_frames), strict=True):
        shown, ours = get_json_schema(method)["function"], schema["function"]
        assert shown.keys() == ours.keys()
        assert (shown["name"], shown["description"]) == (ours["name"], ours["description"])
        assert shown["parameters"]["required"] == ours["parameters"]["required"]
        for name, described in ours["parameters"]["properties"].items():
            bounds = {"minItems", "maxItems", "minimum"}  # type hints cannot say them; the environment checks them
            expected = {key: value for key, value in described.items() if key not in bounds}
            if "items" in expected:
                expected["items"] = {"type": expected["items"]["type"]}
            assert shown["parameters"]["properties"][name] == expected


def test_only_operations_are_public() -> None:
    public = {name for name in vars(ToolEnvironment) if not name.startswith("_")}
    assert public == {"reset", *prompts.OPERATIONS}


def test_observations_are_those_of_the_environment() -> None:
    environment, env = ToolEnvironment(ENV, preset="micro"), gym.make(ENV, preset="micro")
    observed = [env.reset(options={"task": 3})[0], env.step(text([LOOK]))[0], env.step(text([INVERTED]))[0]]
    blocks = [environment.reset(task=3), environment.crop_image(**LOOK[1]), environment.crop_image(**INVERTED[1])]
    for observation, shown in zip(observed, blocks, strict=True):
        marks = [block["text"] if block["type"] == "text" else prompts.IMAGE_MARKER for block in shown]
        assert "".join(marks) == observation["text"]
        images = [np.asarray(block["image"]) for block in shown if block["type"] == "image"]
        assert len(images) == len(observation["images"])
        for image, expected in zip(images, observation["images"], strict=True):
            np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_terms_are_those_of_the_environment_and_rapr_is_the_group_s(variant: str) -> None:
    found = scored([ALONE, MANY], [0, 5], reward_variant=variant)
    for task, group, terms in ((0, ALONE, found[:4]), (5, MANY, found[4:])):
        infos = [directly(task, turns, reward_variant=variant) for turns in group]
        for info, row in zip(infos, terms, strict=True):
            if "correctness" in info["reward_terms"]:
                assert row[0] == float(bool(info["correct"]))
        used = [info["num_operations"] > info["num_errors"] for info in infos]
        expected = shaped_rewards([bool(i["correct"]) for i in infos], used, [i["num_operations"] for i in infos], variant=variant)  # fmt: skip # noqa: E501
        np.testing.assert_allclose(terms, np.stack([expected[name] for name in TERMS], axis=1))
    bonus = {"paper": 0.5 * (0.3 - 0.25), "released": (0.3 - 0.25) / 2 / 0.25 * 0.25}[variant]
    np.testing.assert_allclose(found, np.array([
        [found[0][0], bonus, 0.0], [found[1][0], 0.0, -0.05], [found[2][0], 0.0, 0.0], [found[3][0], 0.0, 0.0],
        [found[4][0], 0.0, -0.1], [found[5][0], 0.0, -0.05], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0],
    ]))  # fmt: skip


def test_rapr_equals_that_of_our_trainer() -> None:
    group_rewards = pytest.importorskip("agents.group_rewards")
    used, operations = [1, 0, 0, 0, 1, 1, 0, 0], [1, 2, 1, 0, 3, 2, 0, 1]
    found = np.array(scored([ALONE, MANY], [0, 5]), float)
    table = {name: np.zeros(8) for name in group_rewards.COLUMNS}
    table |= {"used": np.array(used), "operations": np.array(operations), "correct": found[:, 0]}
    settings = gym.make(ENV).unwrapped.reward_settings  # type: ignore[attr-defined]
    np.testing.assert_allclose(found, group_rewards.group_rewards(table, 4, settings))


def test_the_right_answer_is_right() -> None:
    group = [[r"\boxed{B}"], [[LOOK], r"(B), so \boxed{B}"], [r"\boxed{A}"], [""]]
    found = scored([group], [0], tasks=fakes.tasks(fakes.image_task()))
    assert [row[0] for row in found] == [1.0, 1.0, 0.0, 0.0]


def test_an_answer_may_stand_in_what_the_template_calls_reasoning() -> None:
    environment = ToolEnvironment(ENV, tasks=fakes.tasks(fakes.image_task()))
    environment.reset(task=0)
    played = environment._played([{"role": "assistant", "content": "", "reasoning_content": r"\boxed{B}"}])
    assert played is not None and played.correct


def test_calls_that_trl_answers_itself_count() -> None:
    turns: list[Sequence[Turn]] = [[[UNKNOWN], [MISNAMED], r"\boxed{A}"], [[LOOK, UNKNOWN], r"\boxed{A}"]]
    found = scored([turns], [0], alpha=0.0)
    assert [row[2] for row in found] == [-0.05, -0.05]
    past_the_end = [[[LOOK], [LOOK], [LOOK], r"\boxed{A}"], [r"\boxed{A}"]]
    found = scored([past_the_end], [0], max_turns=2, alpha=0.0)
    assert [row[2] for row in found] == [-0.1, 0.0] and found[0][0] == 0.0


def test_no_turn_comes_after_the_last() -> None:
    environment = ToolEnvironment(ENV, preset="micro", max_turns=1)
    environment.reset(task=0)
    environment.crop_image(**LOOK[1])
    assert environment.crop_image(**LOOK[1]) == [{"type": "text", "text": "Error: no turn is left."}]


def test_names_of_special_tokens_are_broken() -> None:
    environment = ToolEnvironment(ENV, preset="micro")
    environment.reset(task=0)
    (block,) = environment.crop_image("<|image_pad|>", 1)
    assert "< |image_pad|>" in block["text"] and "<|" not in block["text"]


def test_media_that_cannot_be_decoded_are_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        raise MediaError("gone")

    good = ToolEnvironment(ENV, preset="micro")
    good.reset(task=0)
    bad = ToolEnvironment(ENV, preset="micro")
    with monkeypatch.context() as patch:
        patch.setattr(type(bad._bare), "reset", broken)
        words, picture = bad.reset(task=0)
    assert words["text"] == prompts.NOT_DECODED and picture["image"].size == (28, 28)
    assert bad.crop_image(**LOOK[1]) == [{"type": "text", "text": prompts.NO_TURN_LEFT}]
    completions = [completion(one, [[LOOK], r"\boxed{A}"]) for one in (good, bad)]
    found = [f(completions=completions, environments=[good, bad], task=[0, 0], log_metric=print) for f in reward_funcs(2)]  # fmt: skip # noqa: E501
    assert [column[1] for column in found] == [None, None, None] and None not in [column[0] for column in found]


def test_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match=r"expected both operations and the native protocol, got \['crop_image'\]"):
        ToolEnvironment(ENV, operations=["crop_image"])
    with pytest.raises(ValueError, match=r"got .* and 'pixelreasoner': TRL shows every public method"):
        ToolEnvironment(ENV, protocol="pixelreasoner")
    with pytest.raises(ValueError, match="num_generations of at least 2, got 1"):
        reward_funcs(1)
    environments = [ToolEnvironment(ENV, preset="micro") for _ in range(2)]
    for task, environment in enumerate(environments):
        environment.reset(task=task)
    arguments = {"completions": [[{"role": "assistant", "content": ""}]] * 2, "log_metric": lambda *_: None}
    correctness = reward_funcs(2)[0]
    with pytest.raises(
        ValueError, match=r"whole groups of 2 responses to one task on every process, got tasks \[0, 1\]"
    ):
        correctness(environments=environments, task=[0, 1], **arguments)
    with pytest.raises(ValueError, match=r"whole groups of 4 .* got tasks \[0, 0\]"):
        reward_funcs(4)[0](environments=environments, task=[0, 0], **arguments)


def test_the_prompt_says_the_unit_of_boxes() -> None:
    (row,) = rows(ENV, ["an-id"], coordinates="thousandth")
    system, user = row["prompt"]
    assert row["task"] == "an-id" and user == {"role": "user", "content": ""}
    assert system["content"].endswith(prompts.COORDINATES["thousandth"]) and "<tools>" not in system["content"]


# --- the user's script ----------------------------------------------------------------------------------------------


class Forced(LogitsProcessor):
    """Makes row k write `texts[k]`; None leaves it to the model."""

    def __init__(self, width: int, texts: Sequence[str], tokenizer: Any) -> None:
        self.width = width
        self.ids = [tokenizer(f"{text}<|im_end|>")["input_ids"] for text in texts]

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        done = ids.shape[1] - self.width
        for row, wanted in enumerate(self.ids):
            if done < len(wanted):
                scores[row] = -torch.inf
                scores[row, wanted[done]] = 0.0
        return scores


def documented() -> dict[str, Any]:
    """Return the options of the page's command for the micro model."""
    page = (SCRIPT.parents[1] / "trl.md").read_text(encoding="utf-8")
    command = page.split("```bash\npython -c ")[1].split("```")[0].replace("\\\n", " ")
    _, *words = shlex.split(command)
    return {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_user_s_script_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts: list[Sequence[Turn]] = [
        [[LOOK], r"\boxed{A}"], [[UNKNOWN], r"\boxed{B}"], ["<tool_call>{"], [[INVERTED], [INVERTED], r"\boxed{D}"],
        [[LOOK, LOOK], r"\boxed{A}"], [[LOOK], [LOOK], r"\boxed{B}"], [r"\boxed{C}"], [r"\boxed{D}"],
    ]  # fmt: skip
    no_picture: list[Sequence[Turn]] = [[[INVERTED], r"\boxed{A}"], [[UNKNOWN], r"\boxed{A}"], *[[r"\boxed{A}"]] * 6]
    batches = [[list(turns) for turns in batch] for batch in (no_picture, rollouts)]
    tokenizer = micro.load_processor(micro.MICRO_BASE).tokenizer
    generate = Qwen2_5_VLForConditionalGeneration.generate

    def forced(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not any(batches[0]):
            batches.pop(0)
        texts = [text(turns.pop(0)) for turns in batches[0] if turns]  # in order, those whose last turn was a call
        assert len(texts) == len(kwargs["input_ids"])
        force = Forced(kwargs["input_ids"].shape[1], texts, tokenizer)
        return generate(self, *args, **kwargs, logits_processor=LogitsProcessorList([force]))

    seen: list[dict[str, Any]] = []
    compute_loss = GRPOTrainer._compute_loss

    def noted(self: GRPOTrainer, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        seen.append(inputs)
        return compute_loss(self, model, inputs)

    monkeypatch.setattr(Qwen2_5_VLForConditionalGeneration, "generate", forced)
    monkeypatch.setattr(GRPOTrainer, "_compute_loss", noted)
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    monkeypatch.chdir(SCRIPT.parents[2])
    options = documented() | {
        "output_dir": tmp_path, "num_tasks": 4, "logging_steps": 1, "gradient_checkpointing": "false",
        "learning_rate": 1e-3, "save_strategy": "no", "seed": 1,
    }  # fmt: skip
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *(str(a) for k, v in options.items() for a in (f"--{k}", v))])
    trainer = runpy.run_path(str(SCRIPT), run_name="__main__")["trainer"]

    # What was logged is what the environment gives when it is played directly.
    tasks = [environment._bare.task.task_id for environment in trainer.environments]
    assert tasks[:4] == tasks[:1] * 4 and tasks[4:] == tasks[4:5] * 4
    infos = [directly(task, [turn for turn in turns], max_turns=5) for task, turns in zip(tasks, rollouts, strict=True)]
    first, log, *_ = trainer.state.log_history
    assert first["tools/call_frequency"] == 2 / 8 and first["rapr"] == 0
    assert log["rewards/correctness/mean"] == pytest.approx(np.mean([bool(info["correct"]) for info in infos]))
    assert log["rewards/curiosity/mean"] == pytest.approx(0.5 * (0.3 - 0.25) / 8)
    assert log["rewards/operation_penalty/mean"] == pytest.approx(-0.05 * 3 / 8)
    assert log["rapr"] == 3 / 8 and log["tools/call_frequency"] == 8 / 8

    # Every picture reached the loss, and what is trained is what the policy wrote. (TRL shuffles the rows.)
    _, inputs = seen
    assert sorted(inputs["num_images"]) == sorted([1 + 1, 1, 1, 1, 1 + 2, 1 + 2, 1, 1])
    whole = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    pads = (whole == tokenizer.convert_tokens_to_ids("<|image_pad|>")).sum()
    assert pads == inputs["image_grid_thw"].prod(1).sum() / 4
    trained = (inputs["completion_mask"] * inputs["tool_mask"]).bool()
    texts = [tokenizer.decode(ids[mask]) for ids, mask in zip(inputs["completion_ids"], trained, strict=True)]
    assert sorted(texts) == sorted("".join(f"{text(turn)}<|im_end|>" for turn in turns) for turns in rollouts)

    # It learned something, and what it saved can be loaded.
    before, after = (micro.load_model(path).state_dict() for path in (micro.MICRO_BASE, tmp_path))
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert any("visual" in name for name in changed) and any("language_model" in name for name in changed)
