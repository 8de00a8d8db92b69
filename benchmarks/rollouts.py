"""Rollouts a second of our engine and of TRL's own tool loop: same model, prompts, environment and forced tokens.

    python benchmarks/rollouts.py                         # four mixes of lengths, some minutes on two cores

What is written is that of the expert: whole demonstrations, ragged as they are. Both sides play them in the same
environments; that their ids and masks are equal is checked before anything is reported. Both get a first run that is
not counted; then they take turns. The mixes:

* direct: every answer at once.
* paper: the kinds of the paper's demonstrations, images and videos; the mix that a run has by default.
* long: a third look after two wrong ones, videos selected twice.
* images: clips of which eight frames are selected and two or three crops are taken.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import gymnasium as gym
import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from tqdm import tqdm
from transformers import LogitsProcessor, LogitsProcessorList
from trl import GRPOConfig, GRPOTrainer
from trl.chat_template_utils import qwen3_template

from agents import micro
from agents.conversation import ChatEncoder
from agents.demonstrations import IMAGE_MIX, TEXTUAL_SHARE, VIDEO_MIX, demonstrate
from agents.engine import Engine, _Run, restrict_vocabulary
from agents.expert import UnsuitedError, boxed
from agents.transcript import Sample
from benchmarks.duel import Wanted, duel
from benchmarks.provenance import RESULTS, provenance, readable
from pixel_env.actions import Answer, CropImage, SelectFrames, render
from pixel_env.journal import replace_text
from pixel_env.prompts import IMAGE_MARKER
from pixel_env.rollout import Episode
from pixel_env.trajectory import Trajectory

ENV_ID = "PixelReason-Mixed-v0"
ENV: dict[str, Any] = {"preset": "micro", "difficulty": [1, 2]}
MIXES: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "direct": ({"textual": 1.0}, {"textual": 1.0}),
    "paper": (
        {kind: share * (1 - TEXTUAL_SHARE) for kind, share in IMAGE_MIX.items()} | {"textual": TEXTUAL_SHARE},
        {kind: share * (1 - TEXTUAL_SHARE) for kind, share in VIDEO_MIX.items()} | {"textual": TEXTUAL_SHARE},
    ),
    "long": ({"recrop_twice": 1.0}, {"reselect": 1.0}),
    "images": ({}, {"image_heavy": 1.0}),
}
"""Name of a mix: kinds of demonstrations for images and for videos, with their shares; without any, none are played."""
WANTED = {"paper": Wanted(times=2.5), "images": Wanted(times=4)}
Script = list[list[int]]
"""The ids of each turn of a rollout, ends included."""


def scripts(encoder: ChatEncoder, mix: str, prompts: int, group_size: int, seed: int = 0) -> dict[int, list[Script]]:
    """Tasks, and what is written in the rollouts of each."""
    rng, env = np.random.default_rng(seed), gym.make(ENV_ID, **ENV)
    written: dict[int, list[Script]] = {}
    for task in range(10 * prompts):
        if len(written) == prompts:
            break
        kinds = MIXES[mix][env.unwrapped.tasks[task].media.kind == "video"]  # type: ignore[attr-defined]
        if not kinds:
            continue
        drawn = rng.choice(list(kinds), size=group_size, p=list(kinds.values()))
        try:
            played = [
                image_heavy(task, env, rng) if kind == "image_heavy" else demonstrate(task, env, rng, str(kind))
                for kind in drawn
            ]
        except UnsuitedError:  # "wrong" boxes do not exist where the evidence is everywhere
            continue
        written[task] = [[[*encoder.text(turn.action), encoder.end] for turn in one.turns] for one in played]
    return written


def image_heavy(task: int, env: gym.Env[Any, str], rng: np.random.Generator) -> Trajectory:
    """Select eight frames of a clip, take two or three crops of them, and answer."""
    episode, bare = Episode(env), env.unwrapped
    episode.reset(task, seed=0)
    first, number = len(bare.shown), 8  # type: ignore[attr-defined]
    frames = np.sort(rng.choice(first, number, replace=False)).tolist()
    episode.step(render(SelectFrames(tuple(frames))))
    for _ in range(rng.integers(2, 4)):
        image = first + int(rng.integers(number))
        width, height = bare.shown[image].size  # type: ignore[attr-defined]
        x, y = int(rng.integers(width // 2)), int(rng.integers(height // 2))
        episode.step(render(CropImage((x, y, x + width // 2, y + height // 2), image)))
    episode.step(render(Answer(boxed(bare.task))))  # type: ignore[attr-defined]
    return episode.trajectory()


# --- TRL ------------------------------------------------------------------------------------------------------------


class ToolEnvironment:
    """Our environment as TRL wants one: every public method is a tool."""

    def __init__(self) -> None:
        self._episode = Episode(gym.make(ENV_ID, **ENV))

    def reset(self, task: int = 0, **_: Any) -> None:
        """Begin a task."""
        self._episode.reset(task, seed=0)

    def crop_image(self, bbox_2d: list, target_image: int) -> list:
        """Zoom in.

        Args:
            bbox_2d: x1, y1, x2, y2.
            target_image: Number of the image.

        Returns:
            The crop.
        """
        return self._step(render(CropImage(tuple(bbox_2d), image=target_image - 1)))

    def select_frames(self, target_frames: list) -> list:
        """Show frames.

        Args:
            target_frames: Their numbers.

        Returns:
            The frames.
        """
        return self._step(render(SelectFrames(tuple(frame - 1 for frame in target_frames))))

    def _step(self, action: str) -> list[dict[str, Any]]:
        self._episode.step(action)
        observation = self._episode.conversation.observations[-1]
        return blocks(observation["text"], observation["images"])


def blocks(text: str, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """An observation as the content of a message."""
    pictures, content = iter(images), list[dict[str, Any]]()
    for k, part in enumerate(text.split(IMAGE_MARKER)):
        if k:
            content.append({"type": "image", "image": Image.fromarray(next(pictures))})
        if part:
            content.append({"type": "text", "text": part})
    return content


class Force(LogitsProcessor):
    """Leaves one token possible in every row."""

    def __init__(self, turns: Sequence[list[int]], start: int, pad: int) -> None:
        self.turns, self.start, self.pad = turns, start, pad

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores (B, V) with everything but the wanted token at -inf."""
        at = input_ids.shape[1] - self.start
        wanted = torch.tensor([turn[at] if at < len(turn) else self.pad for turn in self.turns])
        forced = torch.full_like(scores, -1e9)
        forced[torch.arange(len(wanted)), wanted] = 0.0
        return forced  # type: ignore[return-value]


def with_tools(template: str) -> str:
    """Our chat template, so that both sides read the same ids, with the calls and results that TRL wants in it."""
    speaker, end = "message.role +", "{{- '<|im_end|>"
    calls = "{%- for call in message.tool_calls or [] %}{{- '<tool_call>' + call.function | tojson }}{%- endfor %}"
    assert template.count(speaker) == template.count(end) == 1
    return template.replace(speaker, "('user' if message.role == 'tool' else message.role) +").replace(end, calls + end)


class ToolLoop:
    """TRL's trainer, of which only `_generate` is called: prompts tokenised, turns generated, tools called."""

    def __init__(self, model: Any, processor: Any, written: dict[int, list[Script]], group_size: int) -> None:
        self.rows = [script for group in written.values() for script in group]
        self.tasks = [task for task, group in written.items() for _ in group]
        processor.chat_template = processor.tokenizer.chat_template = with_tools(processor.chat_template)
        processor.tokenizer.response_template = qwen3_template
        self.model, self.generate, self.pad = model, model.generate, processor.tokenizer.pad_token_id
        model.generate = self.forced
        self.trainer = GRPOTrainer(
            model,
            lambda completions, **_: [0.0] * len(completions),
            processing_class=processor,
            args=GRPOConfig(
                output_dir=tempfile.mkdtemp(), per_device_train_batch_size=len(self.rows), num_generations=group_size,
                max_completion_length=1024, use_cpu=True, bf16=False, report_to=[], max_steps=1,
            ),
            train_dataset=Dataset.from_dict({"prompt": [[{"role": "user", "content": "-"}]] * len(self.tasks)}),
            environment_factory=ToolEnvironment,
        )  # fmt: skip
        self.turn = 0

    def forced(self, **inputs: Any) -> Any:
        """`model.generate` that writes the next turn of every script that has one."""
        turns = [script[self.turn] for script in self.rows if len(script) > self.turn]
        force = Force(turns, inputs["input_ids"].shape[1], self.pad)
        self.turn += 1
        return self.generate(**inputs, logits_processor=LogitsProcessorList([force]))

    def play(self) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
        """Prompts, completions and masks (1 where the policy wrote) of all rollouts."""
        trainer, self.turn = self.trainer, 0
        pool = trainer._environment_pool[None]
        pool += [ToolEnvironment() for _ in range(len(self.rows) - len(pool))]
        trainer.environments, trainer._batch_environments = pool, [None] * len(self.rows)
        prompts = []
        for environment, task in zip(pool, self.tasks, strict=True):
            environment.reset(task)
            first = environment._episode.conversation
            content = blocks(first.observations[0]["text"], first.observations[0]["images"])
            prompts.append([{"role": "system", "content": first.instructions}, {"role": "user", "content": content}])
        trainer._sync_tool_dicts = [
            {name: getattr(environment, name) for name in ("crop_image", "select_frames")} for environment in pool
        ]
        trainer._async_tool_dicts = [{} for _ in pool]
        given = trainer._generate(prompts)
        return given[0], given[1], given[2]


# --- ours -----------------------------------------------------------------------------------------------------------


class ForcedEngine(Engine):
    """The engine, drawing given tokens; their log-probabilities are computed as always."""

    wanted: torch.Tensor

    def draw(self, logits: torch.Tensor, chances: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The wanted tokens (N,) and their log-probabilities (N,)."""
        logps = (logits.float() / self.temperature).log_softmax(-1)
        return self.wanted, logps.gather(1, self.wanted[:, None])[:, 0]


class ForcedRun(_Run):
    """A run whose rows are told apart when tokens are drawn."""

    completions: torch.Tensor

    def _choose(self, rows: torch.Tensor, logits: torch.Tensor) -> None:
        records = self.index[rows]
        self.engine.wanted = self.completions[records, self.length[records]]  # type: ignore[attr-defined]
        super()._choose(rows, logits)


def ours(engine: ForcedEngine, tasks: Sequence[int], group_size: int, episodes: Sequence[Episode]) -> list[Sample]:
    """Play all rollouts with the engine."""
    for episode, task in zip(episodes, tasks, strict=True):
        episode.reset(task, seed=0)
    return engine.rollout([episodes[k : k + group_size] for k in range(0, len(tasks), group_size)])


# --- both -----------------------------------------------------------------------------------------------------------


def compare(path: str, mix: str, prompts: int, group_size: int, repeats: int) -> dict[str, Any]:
    """Seconds of both sides for the same rollouts."""
    processor = micro.load_processor(path)
    encoder = ChatEncoder(processor)
    written = scripts(encoder, mix, prompts, group_size)
    model = micro.load_model(path).eval()
    restrict_vocabulary(model, encoder)
    engine = ForcedEngine(model, encoder)
    loop = ToolLoop(micro.load_model(path), micro.load_processor(path), written, group_size)
    loop.model.eval()
    ids, completions, masks = loop.play()
    room = engine.budget.max_completion_tokens
    ForcedRun.completions = torch.tensor([row + [0] * (room - len(row)) for row in completions])
    episodes = [Episode(gym.make(ENV_ID, **ENV)) for _ in loop.tasks]
    with patch("agents.engine._Run", ForcedRun):
        samples = ours(engine, loop.tasks, group_size, episodes)
        for sample, prompt, completion, mask in zip(samples, ids, completions, masks, strict=True):
            same = sample.prompt_ids == prompt and sample.completion_ids == completion and sample.policy_mask == mask
            if not same:
                raise RuntimeError(f"the two sides read or wrote different tokens in {sample.trajectory.task_id}")
        rollouts = partial(ours, engine, loop.tasks, group_size, episodes)
        row = duel("rollouts", mix, rollouts, "TRL's tool loop", loop.play, repeats, WANTED.get(mix))
    return row | {
        "rollouts": len(samples),
        "group_size": group_size,
        "prompt_tokens": round(statistics.fmean(map(len, ids)), 1),
        "completion_tokens": round(statistics.fmean(map(len, completions)), 1),
        "written_tokens": round(statistics.fmean(sum(sample.policy_mask) for sample in samples), 1),
        "images": round(statistics.fmean(len(sample.images) for sample in samples), 2),
        "turns": round(statistics.fmean(len(sample.trajectory.turns) for sample in samples), 2),
    }


def table(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield (
        "| mix | turns | images | prompt tokens | written tokens | TRL, a second | engine, a second | ratio | wanted |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---|"
    for row in results:
        trl, engine = (1000 * row["rollouts"] / row[side][1] for side in ("other_ms", "ours_ms"))
        low, middle, high = row["times_as_fast"]
        wanted = f"{row['wanted']}: {'yes' if row['met'] else '**no**'}" if "wanted" in row else ""
        yield (
            f"| {row['case']} | {row['turns']} | {row['images']} | {row['prompt_tokens']} | {row['written_tokens']} "
            f"| {trl:.2f} | {engine:.2f} | {middle:.2f} ({low:.2f} to {high:.2f}) | {wanted} |"
        )


def main() -> None:
    """Measure, print the table, write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    base = Path(__file__).parents[1] / "agents" / "micro_base"
    parser.add_argument("--model", default=str(base), help="folder of a micro Qwen2.5-VL (agents/micro_base)")
    parser.add_argument("--mixes", nargs="+", choices=tuple(MIXES), default=tuple(MIXES), help="(all)")
    parser.add_argument("--prompts", type=int, default=8, help="tasks played at a time (%(default)s)")
    parser.add_argument("--group-size", type=int, default=8, help="rollouts a task (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side that are counted (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "rollouts.json", help="JSON file to write")
    arguments = parser.parse_args()
    about = provenance(("torch", "transformers", "trl", "gymnasium"))
    results = [
        compare(arguments.model, mix, arguments.prompts, arguments.group_size, arguments.repeats)
        for mix in tqdm(arguments.mixes, unit="mix")
    ]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    written = about | {"threads": torch.get_num_threads(), "results": results}
    replace_text(arguments.out, readable(written))
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
