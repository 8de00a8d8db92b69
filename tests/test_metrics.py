"""What runs log: read back after kills, smoothed, and put together over seeds, against figures by hand."""

import math
from pathlib import Path

import pytest

from pixel_env.metrics import curve, read_metrics, running_mean

NAN = math.nan


def test_of_steps_done_twice_the_later_counts(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    path.write_text(
        '{"stage": "rl", "step": 1, "reward": 0.1}\n'
        '{"stage": "rl", "step": 2, "reward": 0.2}\n'
        '{"stage": "rl", "step": 3, "rew\n'  # killed here, continued from step 1
        '{"stage": "rl", "step": 2, "reward": 0.3}\n'
        '{"stage": "rl", "step": 2, "train_runtime": 9.0}\n'
    )
    rows = read_metrics(path)
    assert [row.get("reward") for row in rows] == [0.1, 0.3, None]


@pytest.mark.parametrize(
    ("values", "window", "means"),
    [
        ([1.0, 2.0, 6.0, 0.0], 1, [1.0, 2.0, 6.0, 0.0]),
        ([1.0, 2.0, 6.0, 0.0], 2, [1.0, 1.5, 4.0, 3.0]),
        ([1.0, 2.0, 6.0, 0.0], 9, [1.0, 1.5, 3.0, 2.25]),
        ([NAN, 2.0, NAN, 4.0], 2, [NAN, 2.0, 2.0, 4.0]),  # what is no number is left out
        ([1.0, math.inf, 3.0], 2, [1.0, 1.0, 3.0]),
        ([], 5, []),
    ],
)
def test_running_means(values: list[float], window: int, means: list[float]) -> None:
    assert running_mean(values, window) == pytest.approx(means, nan_ok=True)


def test_a_curve_over_three_seeds() -> None:
    def rows(*rewards: float) -> list[dict[str, object]]:
        return [{"stage": "rl", "step": step, "reward": reward} for step, reward in enumerate(rewards, start=1)]

    runs = [rows(0.0, 0.2, 0.4), rows(0.3, 0.4, 0.8), rows(0.6)]
    runs[0] += [{"stage": "warm_start", "step": 1, "reward": 9.0}]  # another stage
    runs[1] += [{"stage": "rl", "step": 3, "reward": 9.0, "train_runtime": 1.0}]  # a summary
    assert curve(runs, "rl", "reward", 1) == {
        "step": [1, 2, 3],
        "mean": pytest.approx([0.3, 0.3, 0.6]),  # (0 + 0.3 + 0.6) / 3, (0.2 + 0.4) / 2, (0.4 + 0.8) / 2
        "low": [0.0, 0.2, 0.4],
        "high": [0.6, 0.4, 0.8],
    }
    smooth = curve(runs[:2], "rl", "reward", 2)
    assert smooth["mean"] == pytest.approx([0.15, 0.225, 0.45])  # of 0, 0.1, 0.3 and 0.3, 0.35, 0.6
    assert smooth["low"] == pytest.approx([0.0, 0.1, 0.3]) and smooth["high"] == pytest.approx([0.3, 0.35, 0.6])
    assert curve(runs, "rl", "unknown", 1)["mean"] == [None, None, None]
