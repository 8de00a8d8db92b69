"""Checkpoints that survive a kill, and that are really loaded again."""

import shutil
from pathlib import Path
from typing import Any

from accelerate.utils import is_peft_model
from transformers import TrainerCallback

from agents.processes import once, wait
from pixel_env.journal import sync

COMPLETE = "complete"
"""A file of this name in a checkpoint says that all of it was written."""


class MarkComplete(TrainerCallback):
    """Marks a checkpoint once all of it is written, so that one cut short by a kill is never resumed from.

    The trainer has to keep two checkpoints: it removes the old one before the new one is marked.
    """

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the mark; the trainer calls this last."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        wait()  # each process writes a part
        if state.is_world_process_zero:
            sync(folder)  # a mark on the disk before what it vouches for would lie after a loss of power
            (folder / COMPLETE).touch()


def last_checkpoint(out: str | Path) -> Path | None:
    """Return the newest complete checkpoint in a trainer's folder and remove those that are not complete."""
    return once(lambda: _last_checkpoint(Path(out)))


def _last_checkpoint(out: Path) -> Path | None:
    found = sorted(out.glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]))
    for folder in found:
        if not (folder / COMPLETE).exists():
            shutil.rmtree(folder)
    complete = [folder for folder in found if folder.exists()]
    return complete[-1] if complete else None


def load_weights(model: Any, checkpoint: str | Path) -> None:
    """Load the weights of a checkpoint into `model`, every one of them; of adapters, theirs.

    The trainer's own way is not enough: Qwen2.5-VL is saved under the names of its first release, which only
    `from_pretrained` translates. The trainer finds none of its names, warns, and goes on with the weights it has.
    """
    if is_peft_model(model):
        from peft import load_peft_weights, set_peft_model_state_dict

        set_peft_model_state_dict(model, load_peft_weights(str(checkpoint), device="cpu"))
        return
    saved = type(model).from_pretrained(checkpoint, dtype=model.dtype, use_safetensors=True)
    model.load_state_dict(saved.state_dict())
