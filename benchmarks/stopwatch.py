"""Where the seconds of training go: by phase, and step by step."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import fmean
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from benchmarks.roofline import synchronize


class Stopwatch:
    """Seconds by phase; a phase inside another does not count for the outer one, so all add up."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.device, self._inner = device, [0.0]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside, the device's work included."""
        synchronize(self.device)
        begun = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            synchronize(self.device)
            spent = time.perf_counter() - begun
            self.seconds[name] += spent - self._inner.pop()
            self._inner[-1] += spent

    def timing(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return function(*args, **kwargs)

        return timed

    def take(self) -> dict[str, float]:
        """Seconds since the last call."""
        taken, self.seconds = dict(self.seconds), defaultdict(float)
        return taken


class Clock(TrainerCallback):
    """Notes when steps end and what they consist of, and keeps the trainer from writing checkpoints."""

    def __init__(self, watch: Stopwatch, warm_up: int) -> None:
        """Leave the first steps out: they allocate the state of the optimizer and compile kernels."""
        self.warm_up, self.ends, self.phases = warm_up, list[float](), list[dict[str, float]]()
        self._watch = watch

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the end of a step; the trainer calls it."""
        synchronize(self._watch.device)
        self.ends.append(time.perf_counter())
        self.phases.append(self._watch.take())
        control.should_save = False  # the trainer saves at its end, whatever its arguments say

    def counted(self) -> tuple[list[float], dict[str, float]]:
        """Seconds of the steps after the warm-up, and their mean phases, of which "other" is the rest."""
        seconds, phases = np.diff(self.ends[self.warm_up - 1 :]).tolist(), self.phases[self.warm_up :]
        means = {name: fmean(one.get(name, 0.0) for one in phases) for name in phases[0]}
        return seconds, means | {"other": fmean(seconds) - sum(means.values())}
