"""The warm start: what the expert shows, what is drawn of it, that a network learns it, and a run that is stopped."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from fakes import image_task, tasks
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.logger import Logger

from baselines import cloning
from baselines.adapters import GridZoom
from baselines.cloning import Demonstrations, batches, clone, demonstrate
from baselines.ppo import Run, new_model, vectorised
from baselines.ppo_settings import parse
from pixel_env import PixelReasonEnv
from pixel_env.policies import gold

TASKS = range(8)


def environment(**kwargs: object) -> GridZoom:
    return GridZoom(PixelReasonEnv(**{"suite": "search", "difficulty": 1, "preset": "micro"} | kwargs), side=56)  # type: ignore[arg-type]


@pytest.mark.parametrize("suite", ["search", "count"])
def test_the_expert_sees_the_evidence_and_is_right(suite: str) -> None:
    env = environment(suite=suite)
    shown = demonstrate(env, TASKS)
    turns = iter(zip(shown.actions, shown.points, strict=True))
    for index in TASKS:
        seen, _ = env.reset(options={"task": index})
        task = env.unwrapped.task  # type: ignore[attr-defined]
        for turn in range(2 if task.needs_operation else 1):
            action, (x, y) = next(turns)
            left, top, right, bottom, _ = seen["position"]
            at = (left + x * (right - left)) * task.media.width, (top + y * (bottom - top)) * task.media.height
            x1, y1, x2, y2 = task.cue.box
            assert at == pytest.approx(((x1 + x2) / 2, (y1 + y2) / 2), abs=0.01)
            seen, reward, terminated, *_ = env.step(action)
            assert terminated == (reward == 1) == (turn == task.needs_operation)
    assert next(turns, None) is None and len(shown.observations["picture"]) == len(shown)


def test_what_cannot_be_answered_is_left_out() -> None:
    bare = PixelReasonEnv(suite="search", preset="micro")
    shown = demonstrate(GridZoom(bare, answers=["B", "C"]), TASKS)
    wanted = [gold(bare.tasks[index]) for index in TASKS]
    assert [("B", "C")[action] for action in shown.actions if action < 2] == [w for w in wanted if w in ("B", "C")]
    assert 0 < sum(w in ("B", "C") for w in wanted) < len(TASKS)
    assert not demonstrate(GridZoom(bare, answers=["no"]), TASKS)
    with pytest.raises(ValueError, match="expected tasks that say where their evidence is, got a"):
        bare.tasks = tasks(image_task(task_id="a"))
        demonstrate(GridZoom(bare, answers=["no"]), [0])


@given(st.lists(st.integers(1, 50), min_size=1, max_size=4), st.integers(0, 9))
def test_batches_hold_every_turn_once(lengths: list[int], seed: int) -> None:
    starts = np.cumsum([0, *lengths])
    chunks = [
        Demonstrations({"x": np.arange(a, b)}, np.arange(a, b), np.array([np.arange(a, b)] * 2, np.float32).T)
        for a, b in itertools.pairwise(starts)
    ]
    drawn = list(batches(chunks, np.random.default_rng(seed)))
    actions = np.concatenate([batch.actions for batch in drawn])
    assert sorted(actions) == list(range(sum(lengths))) and max(map(len, drawn)) <= cloning.BATCH
    for batch in drawn:
        assert np.array_equal(batch.observations["x"], batch.actions) and (batch.points.T == batch.actions).all()


def test_a_network_learns_what_it_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloning, "CHUNK", len(TASKS))
    settings, *_ = parse(["--envs", "1", "--side", "56"], "")
    env = vectorised(settings)
    model = new_model(settings, env, tmp_path)
    logged: list[dict[str, float]] = []

    class Kept(Logger):
        def dump(self, step: int = 0) -> None:
            logged.append(dict(self.name_to_value))

    rng = np.random.default_rng(0)
    clone(model, environment(), [*TASKS] * 10, Kept(None, []), lambda _: None, rng)
    assert len(logged) == 10
    assert all(logged[-1][f"cloning/{figure}"] > 0.9 for figure in ("action", "place"))
    assert logged[-1]["cloning/loss"] < logged[0]["cloning/loss"] / 4
    shown = demonstrate(environment(), TASKS)
    done, _ = model.predict(shown.observations, deterministic=True)  # what PPO goes on from
    assert (done == shown.actions).mean() > 0.9
    env.close()


def test_a_warm_start_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloning, "CHUNK", 2)
    settings, *_ = parse("--demonstrations 6 --steps 128 --envs 1 --side 36 --test-tasks 1 --max-turns 2".split(), "")
    played: list[int] = []
    whole = cloning.demonstrate

    def until_stopped(env: GridZoom, tasks: list[int]) -> Demonstrations:
        if len(played) == 4:
            raise KeyboardInterrupt
        played.extend(tasks)
        return whole(env, tasks)

    monkeypatch.setattr(cloning, "demonstrate", until_stopped)
    run = Run(settings, tmp_path / "run")
    run.prepare()
    with pytest.raises(KeyboardInterrupt):
        run.train()
    assert len(played) == 4 and [path.name for path in run.checkpoints.iterdir()] == ["0000000000.zip"]
    played.append(-1)
    model = run.train()
    assert len(played) == 7 and model.demonstrated == 6 and model.num_timesteps == 128
    assert len({*played}) == 7
