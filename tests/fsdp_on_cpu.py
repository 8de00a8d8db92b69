"""`agents/train_vlm.py` under FSDP without a GPU; started by `test_processes.py` with `accelerate launch`.

accelerate shards weights on GPUs and their like only: it is told here that the CPU is one. All else is as it is.
"""

import os
import sys

os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from agents.train_vlm import main

PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)

if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    sys.exit(main())
