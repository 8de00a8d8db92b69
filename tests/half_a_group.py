"""One process of several that share the rollouts of a group; started by `test_processes.py`.

Its rollouts are said to be its part of given columns; it writes what it would train on.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tiny_vlm
from accelerate import PartialState
from datasets import Dataset

from agents import grpo
from agents.group_rewards import COLUMNS
from agents.grpo import CuriosityGRPOTrainer
from agents.rl_config import RLConfig, trl_config


def main(folder: Path) -> None:
    """Score the rollouts of this process."""
    given = json.loads((folder / "columns.json").read_text())
    total, group_size = len(given["used"]), 8
    state = PartialState(cpu=True)
    mine = slice(
        state.process_index * total // state.num_processes, (state.process_index + 1) * total // state.num_processes
    )
    rows = np.stack([np.array(given.get(name, [0.0] * total), float) for name in COLUMNS], axis=1)[mine]
    grpo.columns = lambda *_: rows  # type: ignore[assignment]
    config = RLConfig(prompts=total // group_size, group_size=group_size, max_new_tokens=4, uniform_groups="drop")
    trainer: Any = CuriosityGRPOTrainer(
        tiny_vlm.talking_model(),
        tiny_vlm.encoder(),
        "PixelReason-Mixed-v0",
        {"preset": "micro", "max_turns": 1},
        config,
        args=trl_config(folder, config),
        train_dataset=Dataset.from_dict({"prompt": ["0"] * config.prompts}),
    )
    trainer.model.train()
    tasks = [{"prompt": str(row // group_size)} for row in range(total)][mine]
    inputs = trainer._without_uniform_groups(trainer._generate_and_score_completions(tasks))
    metrics = trainer._metrics["train"]
    found = {
        "advantages": inputs["advantages"].tolist(),
        "tokens": int(((inputs["completion_mask"] * inputs["tool_mask"]).sum(1) * (inputs["advantages"] != 0)).sum()),
        "num_items_in_batch": int(inputs["num_items_in_batch"]),
        "counted_share": float(inputs["counted_share"]),
        **{name: metrics[name][-1] for name in ("rapr", "curiosity", "correctness", "uniform_groups")},
    }
    (folder / f"process-{state.process_index}-of-{state.num_processes}.json").write_text(json.dumps(found))
    state.wait_for_everyone()  # one that ends before the others may take them along
    state.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
