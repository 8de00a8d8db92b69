"""What a training shows of how far it is."""

from collections.abc import Sequence
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback


class ProgressBar(TrainerCallback):
    """One bar for a whole training, the latest figures beside it."""

    def __init__(self, description: str, figures: Sequence[str]) -> None:
        """Show the `figures` that the trainer logs under these names."""
        self._description, self._figures = description, figures

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar, at the step where training begins."""
        shown = {"desc": self._description, "unit": "step", "disable": not state.is_world_process_zero}
        self._bar = tqdm(total=state.max_steps, initial=state.global_step, **shown)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Show the latest figures."""
        known = {name.rpartition("/")[2]: f"{logs[name]:.3g}" for name in self._figures if logs and name in logs}
        if known:
            self._bar.set_postfix(known)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        self._bar.close()
