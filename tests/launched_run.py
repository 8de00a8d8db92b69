"""`agents/train_vlm.py` in one of several processes; started by `test_launched_run.py` with `accelerate launch`.

    launched_run.py RECORDS WAY [options of train_vlm.py]

What this process plays and trains on is noted in the folder RECORDS. WAY is "plain", "sharded" (FSDP, which accelerate
has for GPUs and their like only, so it is told that the CPU is one) or "broken" (the same; one process fails midway).
"""

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import torch

from agents import grpo, train_vlm

STARTED = __name__ == "__main__"  # the search for doctests imports it, too
RECORDS, WAY = (Path(sys.argv[1]), sys.argv[2]) if STARTED else (Path(), "")
RANK = os.environ.get("RANK", "")


class Recorded(grpo.CuriosityGRPOTrainer):
    """Notes what it plays and trains on."""

    rounds: list[dict[str, Any]] = []  # noqa: RUF012

    def _calculate_rewards(self, *arguments: Any) -> torch.Tensor:
        self.rewards = super()._calculate_rewards(*arguments)
        return self.rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if WAY == "broken" and RANK == "1" and self.state.global_step == 1:
            raise RuntimeError("this process is made to fail")
        scored = super()._generate_and_score_completions(inputs)
        noted = {
            "step": self.state.global_step,
            "prompts": [row["prompt"] for row in inputs],
            "samples": self._samples,
            "rewards": self.rewards,
            "advantages": scored["advantages"],
            "rapr": self._metrics["train"]["rapr"][-1],
            "whole": sum(weight.numel() for weight in self._whole.parameters()),
            "kept": sum(grpo._own(weight).numel() for weight in self.model.parameters()),
        }
        self.rounds.append(noted)
        (RECORDS / f"{RANK}.pickle").write_bytes(pickle.dumps(self.rounds))
        return scored


def main() -> int:
    """Run the command."""
    if WAY != "plain":
        from accelerate import PartialState
        from accelerate.utils import DistributedType

        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
        PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)
        torch.distributed.init_process_group("gloo")
    grpo.CuriosityGRPOTrainer = Recorded  # type: ignore[misc]
    return train_vlm.main(sys.argv[3:])


if __name__ == "__main__":
    sys.exit(main())
