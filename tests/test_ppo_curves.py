"""The curves of PPO: figures of runs counted by hand, and runs that cannot be shown."""

import json
import shutil
from pathlib import Path
from statistics import fmean

import pytest

from baselines import ppo
from benchmarks import ppo_curves
from pixel_env.trajectory import load_jsonl

TINY = "--demonstrations 2 --steps 128 --envs 1 --side 36 --test-tasks 3 --max-turns 2".split()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    found = [folder / seed for seed in "01"]
    for run in found:
        assert ppo.main([*TINY, "--seed", run.name, "--out", str(run)]) == 0
    return found


def test_figures_are_those_of_the_trajectories(runs: list[Path], tmp_path: Path) -> None:
    assert ppo_curves.main([*map(str, runs), "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "ppo.json").read_text())
    assert (tmp_path / "ppo.png").stat().st_size > 10_000 and found["settings"]["demonstrations"] == 2
    for place, stage in ((0, "warm start"), (128, "PPO")):
        played = [load_jsonl(run / "trajectories" / f"{place:010d}.jsonl") for run in runs]
        right = [100 * fmean(bool(t.correct) for t in some) for some in played]
        assert found["accuracy"][stage][0] == pytest.approx(fmean(right), abs=0.1)
        for run, some, share in zip(runs, played, right, strict=True):
            curve = found["curves"][run.name]
            at = curve["turns"].index(place)
            assert len(curve["turns"]) == 2 and curve["accuracy"][at] == pytest.approx(share, abs=0.1)
            assert curve["operations"][at] == pytest.approx(fmean(t.num_operations for t in some), abs=0.01)
            assert set(found["seconds"][run.name]) == {"warm start", "PPO"}
    means = {name: interval[0] for name, interval in found["accuracy"].items()}
    for pair, interval in found["difference"].items():
        one, other = pair.split(" - ")
        assert interval[0] == pytest.approx(means[one] - means[other], abs=0.2)


def test_runs_that_cannot_be_shown(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = shutil.copytree(runs[0], tmp_path / "half")
    (half / "report.md").unlink()
    for given, message in (
        ([runs[0], runs[0]], "expected runs that differ in their seed and in nothing else"),
        ([half], f"expected a run that began with demonstrations and is over, got {half}"),
        ([tmp_path], "there is no run to resume in"),
    ):
        assert ppo_curves.main(list(map(str, given))) == 2
        assert message in capsys.readouterr().err
