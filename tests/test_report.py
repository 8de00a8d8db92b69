"""The report of a run: its numbers are those of the evaluation, and a kill leaves no double rows."""

from pathlib import Path

import pytest

from agents.report import curves, markdown
from pixel_env.evaluation import evaluate, paired_difference
from pixel_env.policies import DirectPolicy, OraclePolicy
from pixel_env.rollout import Policy, rollout
from pixel_env.tasks import ProceduralTasks
from pixel_env.trajectory import Trajectory


@pytest.fixture(scope="module")
def evaluations() -> dict[str, list[Trajectory]]:
    def play(policy: Policy) -> list[Trajectory]:
        return rollout(policy, "PixelReason-Mixed-v0", range(16), preset="micro", progress=False)

    return {"base": play(DirectPolicy()), "rl": play(OraclePolicy(ProceduralTasks(preset="micro")))}


def test_tables_hold_the_numbers_of_the_evaluation(evaluations: dict[str, list[Trajectory]]) -> None:
    text = markdown(evaluations, command="python train_vlm.py", facts={"seed": "0"})
    base, rl = evaluate(evaluations["base"]), evaluate(evaluations["rl"])
    assert f"| clip | 4 | {base.suites['clip'].score} | {rl.suites['clip'].score} |" in text
    assert f"| all | 16 | {base.overall.score} | 100.0 [80.6, 100.0] |" in text  # Wilson: 16 / (16 + z^2)
    needed = f"{base.overall.rapr} / 0.0 | {rl.overall.rapr} / 100.0"
    assert f"| all | {needed} |" in text
    mean, low, high = (100 * value for value in paired_difference(evaluations["rl"], evaluations["base"]))
    assert f"| all | {mean:+.1f} [{low:+.1f}, {high:+.1f}] |" in text
    assert "RL - base" in text and "warm start" not in text  # a stage that was left out is not in the report
    assert rl.to_markdown() in text


def test_one_evaluation_has_no_differences(evaluations: dict[str, list[Trajectory]]) -> None:
    assert "Differences" not in markdown({"base": evaluations["base"]}, command="", facts={})


def test_curves_are_drawn_of_whatever_was_logged(evaluations: dict[str, list[Trajectory]], tmp_path: Path) -> None:
    metrics = [{"stage": "rl", "step": k, "reward": 0.1 * k, "rapr": 0.2, "unknown": 1.0} for k in range(3)]
    for number, rows in enumerate(([], metrics)):
        path = tmp_path / f"{number}.png"
        curves(rows, {name: evaluate(played) for name, played in evaluations.items()}, path)
        assert path.stat().st_size > 5000
