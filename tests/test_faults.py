"""Commands that are killed, run out of room, may not write, are started twice, or ask a server that breaks."""

import dataclasses
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_server import Answer, completion, serving
from failpoints import at_line, files_of_at_most, held_by_another, in_fork, killed_at_line, no_room
from scripted_teacher import ScriptedTeacher, seeds

from agents import endpoint, make_demonstrations, pretrain_micro, train_vlm
from baselines import ppo
from benchmarks import ablation_runs, ablations, compare_policies, evaluate
from pixel_env.command_line import UsageError, ending, run_folder
from pixel_env.trajectory import load_jsonl

Main = Callable[[list[str]], int]

PLAYED = "--tasks search --preset micro --policy grid --limit 3 --batch-episodes 2".split()
COMMANDS: dict[str, tuple[Main, list[str]]] = {
    "train_vlm": (train_vlm.main, ["--stages", "rl"]),
    "pretrain_micro": (pretrain_micro.main, []),
    "make_demonstrations": (make_demonstrations.main, "--tasks search --textual 1 --sampler direct".split()),
    "evaluate": (evaluate.main, PLAYED),
    "evaluate a shard": (evaluate.main, [*PLAYED, "--shard", "1/2"]),
    "compare_policies": (compare_policies.main, "--policies direct --suites search --levels 1 --tasks 2".split()),
    "ppo": (ppo.main, []),
}
"""Every command that leaves a run which can be gone on with."""
WITHIN = {"evaluate a shard": "shard-1-of-2", "compare_policies": "direct"}
"""Folders of runs that may share a folder with others."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    async def skip(_: float) -> None:
        pass

    monkeypatch.setattr(endpoint, "_sleep", skip)
    monkeypatch.setattr("pixel_env.evaluation.RESAMPLES", 20)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


# --- one run a folder -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_a_second_run_in_a_folder_refuses(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main, arguments = COMMANDS[name]
    held = tmp_path / "out" / WITHIN.get(name, "")
    with held_by_another(held):
        assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert f"another run is at work in {held}; wait for it, or choose another --out" in error
        assert error.rstrip().rpartition("\n")[2].startswith(f"{main.__module__.rpartition('.')[2]}.py: error: ")
        assert [path.name for path in held.iterdir()] == ["lock"]  # nothing was touched


def test_cells_of_an_ablation_are_run_by_one_command(tmp_path: Path) -> None:
    asked = ["--rows", "full", "--seeds", "1", "--other-seeds", "1", "--out", str(tmp_path / "out")]
    plan, _ = ablations.parse(asked)
    plan.prepare(running=True)
    first = ablation_runs.Runner(plan)
    with pytest.raises(UsageError, match="cells are being run in"):
        ablation_runs.Runner(plan)
    first.lock.close()
    ablation_runs.Runner(plan).lock.close()


def test_a_kill_frees_the_folder(tmp_path: Path) -> None:
    for _ in range(2):
        with held_by_another(tmp_path), pytest.raises(UsageError, match="another run is at work"), run_folder(tmp_path):
            pass
    with run_folder(tmp_path):
        pass


# --- where nothing can be written -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_that_cannot_be_made_is_told_in_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    main, arguments = COMMANDS[name]
    assert main([*arguments, "--out", str(tmp_path / "file" / "out")]) == 2
    last = capsys.readouterr().err.rstrip().rpartition("\n")[2]
    assert "error: cannot write to" in last and "Not a directory; choose another --out" in last


def test_a_folder_that_is_read_only_is_told_in_one_line(tmp_path: Path) -> None:
    """As a user without rights: these do not bind root."""
    folder = Path(tempfile.mkdtemp())  # the folders of pytest are for their owner alone

    def work() -> int:
        if os.getuid() == 0:
            os.setuid(65534)
        return evaluate.main([*PLAYED, "--out", str(folder)])

    try:
        folder.chmod(0o555)
        assert in_fork(work, tmp_path / "log") == 2
        expected = f"evaluate.py: error: cannot write to {folder}: Permission denied; choose another --out\n"
        assert (tmp_path / "log").read_text() == expected
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "/runs/x"), "[Errno 28] No space left on device: '/runs/x'"),
        (OSError(122, "Disk quota exceeded"), "Disk quota exceeded"),
        (ExceptionGroup("tasks", [ValueError(), OSError(28, "No space left")]), "No space left"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), "unexpected pos"),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "os error 28"),
    ],
)
def test_a_full_disk_is_told_in_one_line(error: Exception, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with ending("command.py") as end:
        end.go_on = "go on with --resume"
        raise error
    told = capsys.readouterr().err
    assert end.code == 1 and told.startswith("command.py: error: there is no room to write: ") and said in told
    assert told.endswith("; make some, then go on with --resume\n") and told.count("\n") == 1


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), RuntimeError("CUDA"), ExceptionGroup("", [OSError()])]
)
def test_other_errors_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)), ending("command.py"):
        raise error


def test_what_safetensors_and_torch_say_of_a_full_disk_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {"a": torch.zeros(10_000)}
    for save in (lambda: save_file(tensors, tmp_path / "a"), lambda: torch.save(tensors, tmp_path / "b")):
        with ending("command.py") as end, files_of_at_most(1000):
            save()
        assert end.code == 1 and "there is no room to write" in capsys.readouterr().err


# --- evaluation -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """An evaluation, and how many lines of `journal` it runs."""
    out = tmp_path_factory.mktemp("evaluation") / "out"
    with pytest.MonkeyPatch.context() as patch, at_line(0, no_room) as lines:
        patch.setattr("pixel_env.evaluation.RESAMPLES", 20)
        assert evaluate.main([*PLAYED, "--out", str(out)]) == 0
    return out, lines[0]


def results(out: Path) -> list[Any]:
    result = json.loads((out / "result.json").read_text())
    return [(out / "trajectories.jsonl").read_text(), result["overall"]["summary"], result["fingerprint"]]


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.7, 0.8, 0.9, 0.99])
def test_an_evaluation_that_is_killed_at_a_write_goes_on(
    share: float, undisturbed: tuple[Path, int], tmp_path: Path
) -> None:
    whole, lines = undisturbed
    out, log = tmp_path / "out", tmp_path / "log"
    code = killed_at_line(max(1, int(share * lines)), lambda: evaluate.main([*PLAYED, "--out", str(out)]), log)
    assert (code == -signal.SIGKILL and not (out / "result.json").exists()) or results(out) == results(whole)
    kept = (out / "trajectories.jsonl").read_text() if (out / "trajectories.jsonl").exists() else ""
    assert evaluate.main([*PLAYED, "--out", str(out)]) == 0
    assert results(out) == results(whole)
    costs = [json.loads(line) for line in (out / "costs.jsonl").read_text().splitlines()]
    assert len(costs) <= 3 + 1  # of one episode only the costs may have been written before the kill
    assert kept.count("\n") <= 3 and {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}


@pytest.mark.parametrize(
    ("file", "share", "code"), [("config.json", 0.5, 2), ("trajectories.jsonl", 0.5, 1), ("result.json", 0.9, 1)]
)
def test_an_evaluation_on_a_full_disk_goes_on_where_there_is_room(
    file: str, share: float, code: int, undisturbed: tuple[Path, int], tmp_path: Path
) -> None:
    out, size = tmp_path / "out", int(share * (undisturbed[0] / file).stat().st_size)

    def work() -> int:
        with files_of_at_most(size):
            return evaluate.main([*PLAYED, "--out", str(out)])

    assert in_fork(work, Path(os.devnull)) == code
    assert not (out / "result.json").exists()
    for path in out.glob("*.jsonl"):
        assert all(json.loads(line) for line in path.read_text().splitlines())
    assert evaluate.main([*PLAYED, "--out", str(out)]) == 0
    assert results(out) == results(undisturbed[0])


@pytest.mark.parametrize("how", ["hang", "drip", "drip head", "cut", "half", "status"])
def test_a_server_that_breaks_costs_episodes_until_they_are_tried_again(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, out, broken = completion(r"\boxed{A}"), tmp_path / "out", list[Answer]()
    broken += {"half": [Answer(good.body[:50])], "status": [dataclasses.replace(good, status=503)]}.get(
        how, [dataclasses.replace(good, how=how)]
    )
    with serving(lambda *_: broken[0] if broken else good) as server:
        asked = [*PLAYED, "--policy", f"endpoint:tiny@{server.url}", "--out", str(out), "--retries", "1"]
        assert evaluate.main([*asked, "--timeout", "0.2" if how[:4] in ("hang", "drip") else "20"]) == 2
        assert "every episode broke off" in capsys.readouterr().err
        for trajectory in load_jsonl(out / "trajectories.jsonl"):
            assert "after 2 tries" in (trajectory.error or "") and "\n" not in (trajectory.error or "")
        broken.clear()
        assert evaluate.main([*asked, "--retry-errors"]) == 0
    assert json.loads((out / "result.json").read_text())["decoding"]["asked"]["requests"] == 3
    assert all(trajectory.error is None for trajectory in load_jsonl(out / "trajectories.jsonl"))


def test_another_model_is_told_and_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The names of the models that answered are in the result, those before a kill too."""
    out = tmp_path / "out"
    with serving(lambda n, _: completion(r"\boxed{A}", model=("tiny-2026", "other\x1b")[n % 2])) as server:
        asked = [*PLAYED, "--concurrency", "1", "--policy", f"endpoint:tiny@{server.url}", "--out", str(out)]
        assert evaluate.main(asked) == 0
        said = [record.getMessage() for record in caplog.records]
        assert said == [r"asked for the model 'tiny' and was answered by 'other\x1b'; look at base_url"]
        (out / "result.json").unlink()
        assert evaluate.main(asked) == 0 and len(server.bodies) == 3
    assert json.loads((out / "result.json").read_text())["decoding"]["answered_by"] == ["other\x1b", "tiny-2026"]


# --- demonstrations ---------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an error between open and with
@pytest.mark.parametrize("share", [0.1, 0.35, 0.6, 0.8, 0.97])
def test_demonstrations_on_a_full_disk_go_on_where_there_is_room(
    share: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever cannot be written: a reply, a record, the demonstrations or the report."""
    tasks = seeds(tmp_path, [{"question": f"What of {k}?"} for k in range(3)])
    teacher = ScriptedTeacher({})
    with serving(teacher) as server:
        asked = ["--preset", "micro", "--tasks", tasks, "--teacher", f"tiny@{server.url}", "--concurrency", "1"]
        with at_line(0, no_room) as lines:
            assert make_demonstrations.main([*asked, "--out", str(tmp_path / "whole")]) == 0
        assert len(teacher.asked) == 9
        capsys.readouterr()
        with at_line(int(share * lines[0]), no_room):
            code = make_demonstrations.main([*asked, "--out", str(tmp_path / "out")])
        told = capsys.readouterr().err
        assert code in (0, 1, 2) and ("there is no room to write" in told) == (code == 1)
        assert make_demonstrations.main([*asked, "--out", str(tmp_path / "out")]) == 0
        assert len(teacher.asked) <= 18 + 1  # a reply that was not kept
    for name in ("demonstrations.jsonl", "records.jsonl"):
        written = [(tmp_path / out / name).read_text() for out in ("whole", "out")]
        assert written[0] == written[1]
