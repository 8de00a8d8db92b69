"""PPO: the command, its reward and network, that it learns, and a run that is killed."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import image_task, tasks
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents import run_settings
from baselines.adapters import PyramidZoom
from baselines.ppo import BudgetEnds, main, new_model, run_seed, training_env, vectorised
from baselines.ppo_settings import Settings, parse
from pixel_env import PixelReasonEnv
from pixel_env.command_line import UsageError
from pixel_env.trajectory import load_jsonl, replay

ROOT = Path(__file__).parents[1]


def settings(*options: str) -> Settings:
    return parse(["--side", "36", *options], "")[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--side 35", "expected --side of at least 36, got 35"),
        ("--steps 0", "expected --steps of at least 1, got 0"),
        ("--envs -1", "expected --envs of at least 1, got -1"),
        ("--demonstrations -1", "expected --demonstrations of at least 0, got -1"),
        ("--demonstrations 9 --actions box", "expected --demonstrations 0 but for --actions grid and suites of images"),
        ("--demonstrations 9 --suite search clip", "expected --demonstrations 0 but for --actions grid"),
        ("--max-turns 0", "expected --max-turns of at least 1, got 0"),
        ("--entropy nan", "expected --entropy of at least 0, got nan"),
        ("--learning-rate 0", "expected --learning-rate above 0, got 0.0"),
        ("--suite chess", "argument --suite: invalid choice: 'chess'"),
        ("--actions text", "argument --actions: invalid choice: 'text'"),
        ("--step 3", "unrecognized arguments: --step 3"),
        ("--resume --seed 1", "--resume takes all settings from the run; drop --seed"),
        ("--resume", "there is no run to resume in"),
        ("--resume --out nowhere", "there is no run to resume in nowhere"),
        ("--out taken", "taken holds a run already; add --resume"),
        ("--resume --out taken", "is not the configuration of a run"),
        ("--out taken/config.json", "cannot write to taken/config.json: File exists"),
    ],
)
def test_mistakes_are_told_in_one_line(
    options: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "config.json").write_text("{}")
    assert main(options.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("ppo.py: error: ") and said.count("\n") == 1 and message in said


def test_a_newest_run_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither command takes a run of the other."""
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/ppo/1", "runs/vlm-2"):
        Path(folder).mkdir(parents=True)
        (Path(folder) / "config.json").write_text("{}")
    for read, folder in ((parse, "ppo/1"), (run_settings.parse, "vlm-2")):
        with pytest.raises(UsageError, match=rf"runs/{folder}/config.json is not the configuration"):
            read(["--resume"], "")


def looks(env: Any, times: int) -> tuple[float, dict[str, Any]]:
    """Look some times, then give an answer that is wrong: a number, to a question with choices."""
    env.reset()
    for _ in range(times):
        env.step(len(env.get_wrapper_attr("answers")))
    answers = env.get_wrapper_attr("answers")
    _, reward, terminated, _, info = env.step(answers.index("0"))
    assert terminated and info["correct"] is False
    return reward, info


def test_curiosity_is_paid_over_the_last_episodes_of_any_task_and_can_be_switched_off() -> None:
    options = ("--suite", "search", "count")  # so that a number is among the answers
    env = training_env(settings(*options))
    env.reset(seed=0)
    env.unwrapped.tasks = tasks(image_task(task_id="a"), image_task(task_id="b"))  # type: ignore[attr-defined]
    assert [looks(env, 0)[0] for _ in range(9)] == [0] * 9
    reward, info = looks(env, 1)
    assert reward == pytest.approx(0.5 * (0.3 - 1 / 10))  # alpha * (H - RaPR), one of ten has looked
    assert info["rapr"] == pytest.approx(1 / 10)
    reward, info = looks(env, 3)
    assert reward == pytest.approx(0.5 * (0.3 - 2 / 11) - 0.05 * 2)
    without = training_env(settings("--no-curiosity", *options))
    without.reset(seed=0)
    without.unwrapped.tasks = env.unwrapped.tasks  # type: ignore[attr-defined]
    reward, info = looks(without, 3)
    assert reward == pytest.approx(-0.1) and set(info["reward_terms"]) == {"correctness", "operation_penalty"}


def test_running_out_of_turns_is_an_end() -> None:
    env = training_env(settings("--max-turns", "2"))
    env.reset(seed=0)
    ends = [env.step(len(env.get_wrapper_attr("answers")))[2:4] for _ in range(2)]
    assert ends == [(False, False), (True, False)]


def test_seeds_of_neighbouring_runs_share_no_tasks() -> None:
    seeds = [run_seed(settings("--seed", str(seed)), done) for seed in range(20) for done in (0, 1024)]
    assert min(abs(a - b) for a, b in itertools.combinations(seeds, 2)) > 64  # more than environments side by side
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize(("actions", "corners", "looks"), [("grid", 0, 49), ("pyramid", 0, 0), ("box", 4, 0)])
def test_at_first_only_attention_and_the_fit_of_the_choices_count(
    actions: str, corners: int, looks: int, tmp_path: Path
) -> None:
    chosen = settings("--envs", "2", "--actions", actions)
    env = vectorised(chosen)
    model = new_model(chosen, env, tmp_path)
    observations, _ = model.policy.obs_to_tensor(model.env.reset())  # type: ignore[union-attr, arg-type]
    with torch.no_grad():
        features = model.policy.extract_features(observations)  # type: ignore[arg-type]
        outputs = model.policy.action_net(features)
    assert features.shape == (2, 128 + 6 + looks + 4)  # type: ignore[union-attr]
    assert torch.equal(features[:, 128:134], torch.tensor([[0.0, 0, 1, 1, 0, 1]] * 2))  # type: ignore[index]
    shares = features[:, 134 : 134 + looks]  # type: ignore[index]
    assert torch.equal(outputs[:, corners : corners + 4], features[:, -4:])  # type: ignore[index]
    assert torch.equal(outputs[:, corners + 4 : corners + 4 + looks], shares)
    assert not looks or torch.allclose(shares.exp().sum(1), torch.ones(2), atol=1e-3)
    assert not outputs[:, corners + 4 + looks :].any() and not outputs[:, :corners].any()
    env.close()


def test_the_same_choice_fits_as_well_in_any_row(tmp_path: Path) -> None:
    chosen = settings("--envs", "1")
    env = vectorised(chosen)
    model = new_model(chosen, env, tmp_path)
    observation = env.reset()
    turned = {**observation, "choices": observation["choices"].reshape(1, 4, -1)[:, ::-1].reshape(1, -1)}
    fits = [
        model.policy.extract_features(model.policy.obs_to_tensor(seen)[0])[:, -4:].detach()  # type: ignore[index, arg-type]
        for seen in (observation, turned)
    ]
    assert torch.allclose(fits[0], fits[1].flip(1)) and fits[0].std() > 0
    env.close()


COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200), "green": (30, 160, 30)}
PLAIN = tasks(
    *(
        image_task(np.full((56, 56, 3), COLOURS[right], np.uint8), task_id=f"{k}", choices=order, answers=(right,))
        for k, (order, right) in enumerate(itertools.product(itertools.permutations(COLOURS, 2), COLOURS))
        if right in order
    )
)


class UntilLearnt(BaseCallback):
    """Stops the training once 180 of the last 200 episodes were answered right."""

    def __init__(self) -> None:
        super().__init__()
        self.right: deque[bool] = deque(maxlen=200)

    @property
    def learnt(self) -> bool:
        return sum(self.right) >= 180

    def _on_step(self) -> bool:
        ended = zip(self.locals["dones"], self.locals["infos"], strict=True)
        self.right.extend(info["correct"] for done, info in ended if done)
        return not self.learnt


def test_it_learns_which_choice_names_the_colour_that_it_sees(tmp_path: Path) -> None:
    """A bias for a letter, eyes without words, or words without eyes get half of the tasks right."""

    def make() -> BudgetEnds:
        return BudgetEnds(PyramidZoom(PixelReasonEnv(tasks=PLAIN, preset="micro"), answers=["A", "B"], side=36))

    chosen = settings("--envs", "4", "--learning-rate", "2e-3", "--actions", "pyramid")
    model, progress = new_model(chosen, DummyVecEnv([make] * 4), tmp_path), UntilLearnt()
    model.learn(8192, callback=progress)
    assert progress.learnt


def test_a_killed_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    options = "--demonstrations 8 --steps 512 --envs 2 --side 36 --save-steps 256 --test-tasks 4 --seed 3"
    command = [sys.executable, str(ROOT / "baselines" / "ppo.py"), *options.split(), "--out", str(out)]
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.DEVNULL)
    while not (out / "checkpoints" / "0000000256.zip").exists():
        assert process.poll() is None, "ended before its first checkpoint"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "report.md").exists()

    assert main(["--resume", "--out", str(out)]) == 0
    assert f"continuing {out}" in capsys.readouterr().out
    config = json.loads((out / "config.json").read_text())
    assert config["settings"]["steps"] == 512 and "--seed 3" in config["command"]
    model = PPO.load(out / "checkpoints" / "0000000512.zip")
    assert model.num_timesteps == 512
    # Two rollouts of 256 turns, four passes over each in one batch: a start from scratch would have made four steps.
    assert {int(state["step"]) for state in model.policy.optimizer.state_dict()["state"].values()} == {8}

    assert model.demonstrated == 8
    played = load_jsonl(out / "trajectories" / "0000000512.jsonl")
    assert [t.task_id for t in played] == [f"search-1-micro-test-0-{k}" for k in range(4)]
    assert all(replay(trajectory) == trajectory for trajectory in played)
    report = (out / "report.md").read_text()
    for part in ("| PPO |", "| warm start |", "| random |", "PPO - warm start:", "PPO - direct:"):
        assert part in report
    (folder,) = (out / "tensorboard").glob("ppo_*")  # the resumed run writes beside the killed one
    log = EventAccumulator(str(folder)).Reload()
    names = ("episode/accuracy", "episode/rapr", "reward/curiosity", "reward/operation_penalty", "train/loss")
    assert {*names} <= {*log.Tags()["scalars"]}
    assert log.Scalars("episode/accuracy")[-1].step == 512
    assert 0 <= log.Scalars("episode/rapr")[-1].value <= 1

    assert main(["--resume", "--out", str(out)]) == 0  # finished: nothing is trained again
    assert sorted(path.stem for path in (out / "checkpoints").glob("*.zip")) == [
        f"{turns:010d}" for turns in (0, 256, 512)
    ]
