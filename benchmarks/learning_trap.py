"""The learning trap as curves: what RL does to looking, with curiosity and without, from warm start and base.

The trap (arXiv 2505.15966v3, section 4): while operations are used badly they cost reward, so plain RL abandons them
before they are learned.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

from benchmarks.ablation_cells import ROWS
from pixel_env.journal import replacing
from pixel_env.metrics import Curve, curve, numbers, read_metrics

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PANELS = {
    "RaPR": "rapr",
    "operations that fail": "operation_error_rate",
    "correct with operations": "correctness_pixel",
    "correct without operations": "correctness_textual",
    "reward: correctness": "correctness",
    "reward: curiosity": "curiosity",
    "reward: price of operations": "operation_penalty",
}
"""Title of a panel: the metric of `metrics.jsonl` in it."""

LINES = {
    "full": ("C0", "-"),
    "no_curiosity": ("C3", "-"),
    "no_warm_start": ("C0", ":"),
    "neither": ("C3", ":"),
    "no_corrections": ("C2", "--"),
}
"""Row: colour, which says whether there is curiosity, and style, which says where RL begins."""

OBSERVED = (
    "from the warm start without curiosity RaPR falls from 0.55 to 0 in about 240 gradient steps, from the base from "
    "0.2 to 0",
    "with curiosity RaPR dips for about 50 steps, is level for about 150, and rises after about 200, to 0.8; failed "
    "operations stay few, and the gap in correctness between responses with and without operations narrows",
    "without correction data RaPR rises and failed operations with it: calls are made for the bonus, their errors are "
    "ignored, the answer comes from the text",
    "the bonus averages 0.008 at most, early, and decays; the price of operations goes down to -0.0125",
)
"""What the paper saw (arXiv 2505.15966v3, section 5 and its figures)."""

WINDOW = 5
"""Steps of the running mean."""


def curves(folders: Sequence[Path]) -> dict[str, Curve]:
    """Return the curve of each metric over runs that differ in their seed.

    Args:
        folders: Run folders of `train_vlm.py`.

    Returns:
        Of each metric its running mean over `WINDOW` steps: mean, least and most of the runs. A step in which it means
        nothing (no operation was called) is left out of the running mean.
    """
    logged = [read_metrics(folder / "metrics.jsonl") for folder in folders]
    return {name: _rounded(curve(logged, "rl", name, WINDOW)) for name in PANELS.values()}


def _rounded(found: Curve) -> Curve:
    return {key: [None if value is None else round(value, 5) for value in values] for key, values in found.items()}


def draw(rows: Mapping[str, Mapping[str, Curve]], path: str | Path) -> None:
    """Draw the curves, a panel a metric.

    Args:
        rows: Row: its `curves`.
        path: Picture to write.
    """
    figure, axes = plt.subplots(2, 4, figsize=(17, 7))
    for axis, (title, name) in zip(axes.flat, PANELS.items(), strict=False):
        for row, (colour, style) in LINES.items():
            if row in rows and any(value is not None for value in rows[row][name]["mean"]):
                found = {key: numbers(values) for key, values in rows[row][name].items()}
                axis.plot(found["step"], found["mean"], color=colour, linestyle=style, label=ROWS[row].title)
                axis.fill_between(found["step"], found["low"], found["high"], color=colour, alpha=0.12, linewidth=0)
        axis.set(title=title, xlabel="step of RL")
        axis.grid(alpha=0.3)
    legend = axes.flat[-1]
    legend.axis("off")
    shown = {label: line for axis in axes.flat for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    legend.legend(
        shown.values(), shown.keys(), loc="center", frameon=False, title="mean, and least to most, over seeds"
    )
    figure.tight_layout()
    with replacing(Path(path)) as part:
        figure.savefig(part, dpi=100, format="png")
    plt.close(figure)
