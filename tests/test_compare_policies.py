"""The table over policies: figures recomputed by hand, what PPO plays, and a command that is stopped and widened."""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import layouts
import pytest
from stable_baselines3 import PPO

from agents import players
from baselines import ppo, ppo_settings
from benchmarks import compare, compare_policies, evaluate
from benchmarks.policy_table import ALL, Figures, draw, rows
from benchmarks.ppo_player import PPOPlayer
from pixel_env.command_line import UsageError
from pixel_env.evaluation import Interval
from pixel_env.rollout import Conversation
from pixel_env.trajectory import load_jsonl, replay

Command = Callable[..., dict[str, Any]]
Trained = Callable[..., tuple[Path, ppo_settings.Settings]]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixel_env.evaluation.RESAMPLES", 200)


@pytest.fixture
def run(tmp_path: Path) -> Command:
    def command(*arguments: str, code: int = 0) -> dict[str, Any]:
        assert compare_policies.main([*arguments, "--out", str(tmp_path / "out")]) == code
        return {} if code else json.loads((tmp_path / "out" / "compare_policies.json").read_text())

    return command


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    """Makes a run folder of baselines/ppo.py whose network has learned nothing yet."""

    def make(*options: str) -> tuple[Path, ppo_settings.Settings]:
        folder = tmp_path / "ppo"
        (folder / "checkpoints").mkdir(parents=True)
        settings, *_ = ppo_settings.parse(["--side", "36", "--envs", "1", *options], "")
        ppo_settings.save(settings, folder, {})
        env = ppo.vectorised(settings)
        ppo.new_model(settings, env, folder).save(folder / "checkpoints" / "0000000000.zip")
        env.close()
        return folder, settings

    return make


class Asked:
    """Answers (A), but stops where `stop` says so; notes what it was asked, and takes two seconds on `clock`."""

    def __init__(self, stop: int | None = None) -> None:
        self.conversations, self.stop, self.clock = list[Conversation](), stop, 0.0

    def act(self, conversations: Sequence[Conversation]) -> list[str]:
        if self.stop is not None and len(self.conversations) >= self.stop:
            raise KeyboardInterrupt
        self.conversations += conversations
        self.clock += 2.0
        return [r"\boxed{A}"] * len(conversations)


POLICY: Asked


def use(policy: Asked, monkeypatch: pytest.MonkeyPatch) -> Asked:
    monkeypatch.setitem(globals(), "POLICY", policy)
    return policy


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def by_hand(cells: Sequence[Path]) -> dict[str, Any]:
    """The figures of a row from the files of its cells, without the code under test."""
    played = [episode for cell in cells for episode in lines(cell / "trajectories.jsonl")]
    calls = [[t for t in episode["turns"] if t["operation"] or t["operation_error"]] for episode in played]
    looked = [any(call["operation_error"] is None for call in of) for of in calls]
    rates = {
        needs: [used for used, episode in zip(looked, played, strict=True) if episode["needs_operation"] is needs]
        for needs in (True, False)
    }
    failed = [call["operation_error"] is not None for of in calls for call in of]
    spent = [cost["seconds"] for cell in cells for cost in lines(cell / "costs.jsonl")]
    return {
        "episodes": len(played),
        "score": sum(episode["score"] for episode in played) / len(played),
        "rapr_needed": sum(rates[True]) / len(rates[True]),
        "rapr_not_needed": sum(rates[False]) / len(rates[False]),
        "operations": len(failed) / len(played),
        "failed": sum(failed) / len(failed) if failed else None,
        "seconds": sum(spent) / len(played),
    }


def test_the_figures_are_those_of_the_episodes(run: Command, tmp_path: Path) -> None:
    begun = time.perf_counter()
    written = run("--suites", "search", "read", "--levels", "1", "2", "--tasks", "8",
                  "--policies", "random", "guess=direct", "oracle", "--seed", "3")  # fmt: skip
    took = time.perf_counter() - begun
    found = {(row["policy"], row["suite"], row["level"]): row for row in written["results"]}
    assert len(found) == 3 * 9
    folders = {name: tmp_path / "out" / name for name in ("random", "guess", "oracle")}
    for name, folder in folders.items():
        for suite, level in rows(["search", "read"], [1, 2]):
            cells = sorted(folder.glob(f"{'*' if suite == ALL else suite}-{'*' if level == ALL else level}"))
            row, expected = found[name, suite, level], by_hand(cells)
            assert len(cells) == (2 if suite == ALL else 1) * (2 if level == ALL else 1)
            for figure in ("score", "rapr_needed", "rapr_not_needed"):
                low, high = row[figure][1:]
                assert row[figure][0] == pytest.approx(expected[figure], abs=1e-4) and low <= expected[figure] <= high
            for figure in ("episodes", "operations", "failed", "seconds"):
                assert row[figure] == pytest.approx(expected[figure], abs=1e-4), figure
            if name == "random" and suite == "search":  # right or wrong: the bounds solve Wilson's equation
                p, n = expected["score"], expected["episodes"]
                for bound in row["score"][1:]:
                    assert abs(p - bound) == pytest.approx(1.96 * math.sqrt(bound * (1 - bound) / n), abs=1e-3)
    assert found["oracle", ALL, ALL]["score"][0] == 1 and found["random", ALL, ALL]["failed"] > 0
    assert 0 < sum(found[name, ALL, ALL]["seconds"] * 32 for name in folders) < took
    for cell in ("search-1", "read-2"):  # all were asked the same
        asked = {
            tuple(e["task_id"] for e in lines(folder / cell / "trajectories.jsonl")) for folder in folders.values()
        }
        assert len(asked) == 1
    assert written["commit"] and written["seed"] == 3 and written["policies"]["guess"]["policy"] == "direct"
    assert written["policies"]["oracle"]["environment"]["view_pixels"] == 112 * 112


def test_the_table_and_the_picture(run: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = run("--suites", "search", "clip", "--levels", "1", "--tasks", "4", "--policies", "direct", "oracle")
    text = (tmp_path / "out" / "compare_policies.md").read_text()
    assert text.partition("## By suite")[0].strip() in capsys.readouterr().out
    short, long = ([line.split(" | ") for line in part.splitlines() if line.startswith("| ")][2:]
                   for part in text.split("## By suite and level"))  # fmt: skip
    assert [cells[0] for cells in short] == ["| direct", "| oracle"] and len(long) == 2 * 3
    rated = {(row["suite"], row["policy"]): row for row in written["results"]}
    mean, low, high = (f"{100 * value:.1f}" for value in rated["search", "oracle"]["score"])
    assert short[1][1] == f"{mean} [{low}, {high}]" == "100.0 [51.0, 100.0]"
    row = next(cells for cells in long if cells[:3] == ["| clip", "1", "oracle"])
    # The first four tasks of clip need an operation, so nothing is known of the others.
    assert row[3:8] == ["100.0 [51.0, 100.0]", "100.0", "-", "1.00", "0.0"]
    assert "- **direct**: guesses in its first turn" in text and "4 test tasks of each suite and level" in text
    assert (tmp_path / "out" / "compare_policies.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_drawn() -> None:
    def of(mean: float) -> Figures:
        return Figures(4, 0, Interval(mean, mean - 0.1, mean + 0.2), None, None, 0.0, None, 1.0)

    cells = rows(["search", "clip"], [1, 3])
    figure = draw({"a": {row: of(0.2) for row in cells},
                   "b": {row: of(0.5) if row[0] == "search" else None for row in cells}})  # fmt: skip
    search, clip = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["search", "clip"]
    assert [label.get_text() for label in search.get_xticklabels()] == ["level 1", "level 3"]
    (a, b), (_, missing) = ([line for line in axis.lines if line.get_marker() == "o"] for axis in (search, clip))
    assert [tuple(line.get_ydata()) for line in (a, b, missing)] == [(20, 20), (50, 50), ()]
    assert list(a.get_xdata()) == pytest.approx([-0.2, 0.8]) and list(b.get_xdata()) == pytest.approx([0.2, 1.2])
    interval = search.collections[1].get_segments()[0]
    assert interval[:, 1] == pytest.approx([40, 70]) and a.get_color() != b.get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b (not trained on clip)"]


def test_seconds_are_those_of_playing(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = use(Asked(), monkeypatch)
    monkeypatch.setattr(evaluate, "time", SimpleNamespace(perf_counter=lambda: policy.clock))
    written = run("--suites", "search", "--levels", "1", "--tasks", "6", "--batch-episodes", "3",
                  "--policies", f"{__name__}:POLICY")  # fmt: skip
    assert [row["seconds"] for row in written["results"]] == [0.6667]  # of six episodes: two batches of two seconds


def test_after_a_kill_nothing_is_asked_twice_and_more_can_be_added(
    run: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--suites", "search", "--tasks", "4", "--batch-episodes", "2", "--policies", "direct",
             f"mine={__name__}:POLICY", "--levels", "1")  # fmt: skip
    first = use(Asked(stop=6), monkeypatch)
    run(*asked, "2", code=130)
    assert "stopped; go on with the same command" in capsys.readouterr().err
    begun = tmp_path / "out" / "mine" / "search-2" / "trajectories.jsonl"
    assert len(first.conversations) == 6 and len(lines(begun)) == 2
    with begun.open("a") as file:
        file.write('{"env_id": "cut sho')
    second = use(Asked(), monkeypatch)
    resumed = run(*asked, "2")
    assert [c.task_id[:9] for c in second.conversations] == ["search-2-"] * 2
    third = use(Asked(), monkeypatch)
    widened = run(*asked, "2", "3")
    assert [c.task_id[:9] for c in third.conversations] == ["search-3-"] * 4
    same = [row for row in widened["results"] if row["level"] in (1, 2)]
    assert same == [row for row in resumed["results"] if row["level"] != ALL] and len(same) == 4
    a, b = (str(tmp_path / "out" / name / "search-1") for name in ("direct", "mine"))
    assert compare.main([a, b]) == 0  # a cell is an evaluation like any other


def test_what_breaks_off_is_told_and_can_be_played_again(
    run: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Broken(Asked):
        def act(self, conversations: Sequence[Conversation]) -> list[Any]:  # type: ignore[override]
            return [RuntimeError("down"), *super().act(conversations)[1:]]

    asked = ("--suites", "search", "--levels", "1", "2", "--tasks", "3", "--policies", f"mine={__name__}:POLICY")
    use(Broken(), monkeypatch)
    assert [(row["episodes"], row["errors"]) for row in run(*asked)["results"]] == [(2, 1), (2, 1), (4, 2)]
    text = tmp_path / "out" / "compare_policies.md"
    assert "2 episodes broke off and are left out" in text.read_text()
    again = use(Asked(), monkeypatch)
    assert [row["errors"] for row in run(*asked, "--retry-errors")["results"]] == [0, 0, 0]
    assert len(again.conversations) == 2 and "broke off" not in text.read_text()


def test_ppo_plays_as_in_its_own_evaluation(run: Command, trained: Trained, tmp_path: Path) -> None:
    folder, settings = trained("--suite", "search", "--levels", "1", "--test-tasks", "5")
    written = run("--suites", "search", "count", "--levels", "1", "2", "--tasks", "5",
                  "--policies", "direct", f"PPO={folder}")  # fmt: skip
    expected = ppo.Run(settings, folder).evaluate(PPO.load(folder / "checkpoints" / "0000000000.zip"))
    cell = load_jsonl(tmp_path / "out" / "PPO" / "search-1" / "trajectories.jsonl")
    assert [[turn.action for turn in t.turns] for t in cell] == [[turn.action for turn in t.turns] for t in expected]
    assert [(t.task_id, t.score) for t in cell] == [(t.task_id, t.score) for t in expected]
    assert all(replay(trajectory) == trajectory for trajectory in cell)
    found = {(row["suite"], row["level"]) for row in written["results"] if row["policy"] == "PPO"}
    assert found == {("search", 1), ("search", 2), ("search", ALL)}
    text = (tmp_path / "out" / "compare_policies.md").read_text()
    assert "| count | 1 | PPO | not played | - | - | - | - | - |" in text
    assert f"- **PPO**: {folder}, trained on search (level 1); it can give no other answers" in text


def test_the_actions_of_ppo_are_those_of_its_training(trained: Trained, tmp_path: Path) -> None:
    """Where fewer suites are played, an action still means what it meant."""
    folder, _ = trained("--suite", "search", "clip")
    arguments = ["--limit", "1", "--policy", str(folder)]
    for suite, meaning, said in (
        ("search", "answer 12", r"\boxed{12}"),
        ("clip", "frame 3", '{"name": "select_frames", "arguments": {"target_frames": [3]}}'),
    ):
        settings = evaluate.parse([*arguments, "--tasks", suite], "").settings
        assert settings.preset == "micro"  # as it was trained
        played = evaluate.Run(settings, tmp_path / suite)
        played.prepare()
        with evaluate.opened(settings, tmp_path) as player:
            assert isinstance(player, PPOPlayer) and player.facts()["checkpoint"] == "0000000000.zip"
            env = ppo.training_env(player._settings)
            index = env.get_wrapper_attr("meanings").index(meaning)
            player._model = SimpleNamespace(predict=lambda *_, index=index, **__: (index, None), num_timesteps=0)
            played.measure(player, played.parts())
        (trajectory,) = load_jsonl(played.trajectories)
        assert said in trajectory.turns[0].action and trajectory.suite == suite


def test_the_micro_model_and_options_of_evaluate(run: Command) -> None:
    written = run("--suites", "search", "--levels", "1", "--tasks", "2", "--max-turns", "1", "--max-new-tokens", "2",
                  "--policies", "micro base=micro")  # fmt: skip
    assert written["options"] == ["--max-turns", "1", "--max-new-tokens", "2"]
    about = written["policies"]["micro base"]
    assert about["decoding"]["temperature"] == 0 and about["environment"]["max_turns"] == 1
    assert [row["episodes"] for row in written["results"]] == [2]


def test_what_a_training_left_is_told_apart(tmp_path: Path) -> None:
    vlm = tmp_path / "vlm"
    layouts.write_json(vlm / "config.json", {"settings": {}})
    for stage in ("warm_start", "rl"):
        layouts.write_json(vlm / stage / "model" / "config.json", {"model_type": "qwen2_5_vl"})
    assert players.read_policy(str(vlm / "rl" / "model"), None).kind == "weights"
    with pytest.raises(
        UsageError, match=r"vlm holds what a training left; expected a model of it, .*rl/model or .*warm"
    ):
        players.read_policy(str(vlm), None)
    with pytest.raises(UsageError, match=r"expected a model of it, .*warm_start/model$"):
        players.read_policy(str(vlm / "warm_start"), None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--policies nobody", "unknown policy 'nobody'; expected micro"),
        ("--policies RL=nobody", "unknown policy 'nobody'; expected micro"),
        ("--policies grid grid", "expected policies of different names, got grid; NAME=POLICY names one"),
        ("--policies a.b=grid a-b=direct", "expected policies of different names, got a-b, a.b"),
        ("--policies =grid", "expected a name with a letter or digit"),
        ("--policies grid --tasks 0", "expected --tasks of at least 1, got 0"),
        ("--policies grid --suites chess", "argument --suites: invalid choice: 'chess'"),
        ("--policies grid --limit 3", "--limit is set by --policies and --tasks"),
        ("--policies grid --view-pixels 9", "expected view_pixels of at least factor**2"),
        ("--policies grid --step 9", "unrecognized arguments: --step 9"),
        (
            "--policies PPO=PPO --suites count read",
            "PPO can play none of count, read: PPO, trained on search (level 1)",
        ),
        ("--policies PPO=PPO --operations none", "PPO cannot be played like this: expected an environment with both"),
        ("--policies bare", "bare has no checkpoint yet; train first"),
        ("--policies broken", "broken/config.json is not the configuration of a run"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: str, said: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    if "PPO" in arguments or "bare" in arguments:
        trained()[0].rename("PPO")
    for name in ("bare", "broken"):
        Path(name, "checkpoints").mkdir(parents=True)
        Path(name, "config.json").write_text("{}")
    if "bare" in arguments:
        Path("bare", "config.json").write_text(Path("PPO", "config.json").read_text())
    assert compare_policies.main([*arguments.split(), "--levels", "1", "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("compare_policies.py: error: ") and said in error and error.count("\n") == 1


def test_other_cells_and_another_suite_are_refused(
    run: Command, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--suites", "search", "--levels", "1", "--policies", "direct")
    run(*asked, "--tasks", "2")
    run(*asked, "--tasks", "3", code=2)
    assert "search-1 holds another evaluation, with --limit 2; choose another --out" in capsys.readouterr().err
    folder, _ = trained()
    out = ["--out", str(tmp_path / "eval")]
    assert evaluate.main(["--tasks", "read", "--limit", "1", "--policy", str(folder), *out]) == 2
    assert "was trained on search and has no answers for read; leave them out" in capsys.readouterr().err
