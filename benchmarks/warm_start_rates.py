"""Examples a second of the warm start: our trainer beside TRL's `SFTTrainer` as it comes, its own vision collator.

    python benchmarks/warm_start_rates.py                 # some minutes on two cores

Same demonstrations, weights, batch size and optimizer; that both sides make the same ids of every example is checked
first. Only training is timed, epoch by epoch in turn, so what else a machine does falls on both; one epoch before them
is left out. Playing the demonstrations again for their views, which our side does once, is told apart. TRL checkpoints
activations unless it is told not to; both are measured, and our side does not.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import gymnasium as gym
import torch
from datasets import Dataset
from tqdm import tqdm
from transformers import PrinterCallback, Qwen2_5_VLForConditionalGeneration, TrainerCallback
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from agents import micro, run_settings
from agents.conversation import ChatEncoder, Tokens
from agents.demonstrations import demonstrations
from agents.examples import Examples, observations
from agents.rl_config import checkpointing
from agents.sft import warm_start
from agents.sft_config import WarmStartConfig
from benchmarks.duel import quartiles
from benchmarks.provenance import RESULTS, provenance
from benchmarks.rollouts import ENV, ENV_ID, blocks
from pixel_env.journal import replace_text
from pixel_env.trajectory import Trajectory

LEARNING_RATE = 5e-4
NEVER = 10**9


class Clock(TrainerCallback):
    """Takes the seconds from the first step to the last."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start."""
        self._begun = time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self._begun


def messages(trajectory: Trajectory, env: gym.Env[Any, str]) -> list[dict[str, Any]]:
    """A demonstration as a user of TRL keeps it: messages with their pictures in them."""
    told: list[dict[str, Any]] = []
    if trajectory.instructions:
        told.append({"role": "system", "content": [{"type": "text", "text": trajectory.instructions}]})
    for observation, turn in zip(observations(trajectory, env), trajectory.turns, strict=False):
        told.append({"role": "user", "content": blocks(observation["text"], observation["images"])})
        told.append({"role": "assistant", "content": [{"type": "text", "text": turn.action}]})
    return told


def by_trl(folder: str, told: Sequence[list[dict[str, Any]]], batch_size: int, checkpointed: bool) -> float:
    """Seconds of an epoch of `SFTTrainer` with its own collator and sampler, in float32."""
    rows = Dataset.from_dict({"index": list(range(len(told)))}).with_transform(
        lambda batch: {"messages": [told[index] for index in batch["index"]], "images": [[] for _ in batch["index"]]}
    )
    clock = Clock()
    with TemporaryDirectory() as out:
        settings = SFTConfig(
            output_dir=out,
            num_train_epochs=1,
            per_device_train_batch_size=batch_size,
            learning_rate=LEARNING_RATE,
            **checkpointing(checkpointed),
            bf16=False,
            use_cpu=not torch.cuda.is_available(),
            max_length=None,
            remove_unused_columns=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            save_strategy="no",
            logging_steps=1,
            report_to=[],
            disable_tqdm=True,
        )
        trainer = SFTTrainer(
            Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32),
            args=settings,
            train_dataset=rows,
            processing_class=micro.load_processor(folder),
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return clock.seconds


def by_us(folder: str, played: Sequence[Trajectory], batch_size: int) -> float:
    """Seconds of an epoch of `agents.sft.warm_start`."""
    clock = Clock()
    with TemporaryDirectory() as out:
        warm_start(
            micro.load_model(folder),
            micro.load_processor(folder),
            played,
            out,
            WarmStartConfig(epochs=1, learning_rate=LEARNING_RATE, batch_size=batch_size, save_steps=NEVER),
            callbacks=[clock],
            progress=False,
        )
    return clock.seconds


def check(processor: Any, told: Sequence[list[dict[str, Any]]], examples: Sequence[Tokens]) -> None:
    """Raise RuntimeError unless the stock collator makes the ids of every example that ours does."""
    collator = DataCollatorForVisionLanguageModeling(processor=processor)
    for index, (one, example) in enumerate(zip(told, examples, strict=True)):
        ids = collator([{"messages": one, "images": []}])["input_ids"][0].tolist()
        if (
            ids[: len(example.ids)] != example.ids or len(ids) > len(example.ids) + 1
        ):  # the template ends with a newline
            raise RuntimeError(f"the two sides read different ids in example {index}")


def compare(folder: str, count: int, batch_size: int, repeats: int) -> dict[str, Any]:
    """Train with both sides in turn, and return their rates."""
    played = demonstrations(ENV_ID, count, seed=0, progress=False, **ENV)
    env, processor = gym.make(ENV_ID, **ENV), micro.load_processor(folder)
    told = [messages(one, env) for one in played]
    begun = time.perf_counter()
    examples = Examples(ChatEncoder(processor), played, progress=False)
    encoding = time.perf_counter() - begun
    check(processor, told, [examples[index] for index in range(count)])
    seconds: dict[str, list[float]] = {"ours": [], "trl": [], "trl_without_checkpointing": []}
    for _ in tqdm(range(repeats + 1), unit="round"):
        seconds["ours"].append(by_us(folder, played, batch_size))
        seconds["trl"].append(by_trl(folder, told, batch_size, checkpointed=True))
        seconds["trl_without_checkpointing"].append(by_trl(folder, told, batch_size, checkpointed=False))
    counted = {name: spent[1:] for name, spent in seconds.items()}
    return {
        "examples": count,
        "batch_size": batch_size,
        "tokens_per_example": round(sum(examples.lengths) / count, 1),
        "repeats": repeats,
        "examples_per_second": {name: quartiles([count / one for one in spent]) for name, spent in counted.items()},
        "times_as_fast_as": {
            name: quartiles([b / a for a, b in zip(counted["ours"], spent, strict=True)])
            for name, spent in counted.items()
            if name != "ours"
        },
        "seconds_of_playing_again": round(encoding, 2),
    }


def main() -> None:
    """Measure, print, write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    base = run_settings.parser("").get_default("model")
    parser.add_argument("--model", default=base, help="folder of a micro Qwen2.5-VL (%(default)s)")
    parser.add_argument("--examples", type=int, default=128, help="demonstrations, an epoch (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="(%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="epochs of each side that are counted (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "warm_start_rates.json", help="JSON file to write")
    arguments = parser.parse_args()
    about = provenance(("torch", "transformers", "trl", "gymnasium"))
    result = compare(arguments.model, arguments.examples, arguments.batch_size, arguments.repeats)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    written = about | {"threads": torch.get_num_threads(), "results": result}
    replace_text(arguments.out, json.dumps(written, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
