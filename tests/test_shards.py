"""Evaluations in shards: the result of all of them is to the letter that of one process."""

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_server import PATIENCE, Answer, completion, refusal, serving
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import evaluate
from benchmarks.shards import Shard, launched, read_shard

MICRO = ("--preset", "micro")
Command = Callable[..., int]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixel_env.evaluation.RESAMPLES", 200)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def run(tmp_path: Path) -> Command:
    def command(*arguments: str, out: str = "out") -> int:
        return evaluate.main([*arguments, "--out", str(tmp_path / out)])

    return command


def files(folder: Path) -> tuple[str, str]:
    """The result but for what tells when and by whom it was written, and the episodes."""
    result = json.loads((folder / "result.json").read_text())
    for name in ("command", "commit", "date"):
        del result[name]
    del result["machine"]["load_before"]
    return json.dumps(result, indent=1), (folder / "trajectories.jsonl").read_text()


# --- shares -----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.integers()), st.integers(1, 9))
def test_shards_share_the_batches(batches: list[int], count: int) -> None:
    shares = [list(Shard(number, count).of(batches)) for number in range(1, count + 1)]
    assert sorted(batch for share in shares for batch in share) == sorted(batches)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@settings(deadline=None)
@given(st.integers(1, 999), st.integers(0, 999))
def test_a_shard_is_read_as_it_is_told(number: int, more: int) -> None:
    shard = Shard(number, number + more)
    assert read_shard(str(shard)) == shard


@pytest.mark.parametrize(
    "text", ["0/2", "3/2", "1/0", "-1/2", "1", "1/2/3", "a/b", "1 / 2", "", "\u0661/\u0662", "1/9999999"]
)
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(ValueError, match="expected I/N with I from 1 to N, such as 2/4, got "):
        read_shard(text)


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}, Shard(1, 2)),
        ({"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}, Shard(6, 8)),
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"RANK": "1", "WORLD_SIZE": "2"}, None),  # a pod of a cluster
        ({"LOCAL_RANK": "-1", "RANK": "-1", "WORLD_SIZE": "2"}, None),
        ({}, None),
    ],
)
def test_launchers_are_known_by_all_that_they_set(environment: dict[str, str], shard: Shard | None) -> None:
    assert launched(environment) == shard


# --- one result -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["random", "grid"])
def test_scripted_policies(policy: str, run: Command, tmp_path: Path) -> None:
    asked = ("--tasks", "search", "clip", *MICRO, "--policy", policy, "--limit", "2", "--samples", "2")
    assert run(*asked, out="alone") == 0
    for shard in ("3/3", "1/3", "2/3"):
        assert run(*asked, "--shard", shard) == 0
    for _ in range(2):  # merging again changes nothing
        assert run(*asked, "--merge") == 0
        assert files(tmp_path / "out") == files(tmp_path / "alone")


def test_a_model_that_samples_and_a_stop_in_the_middle_of_a_batch(run: Command, tmp_path: Path) -> None:
    asked = ("--tasks", "search", "--policy", "micro", "--limit", "3", "--samples", "2", "--temperature", "1",
             "--batch-episodes", "2", "--max-turns", "1", "--max-new-tokens", "6")  # fmt: skip
    assert run(*asked, out="alone") == 0
    assert run(*asked, "--shard", "1/2") == run(*asked, "--shard", "2/2") == 0
    shard = tmp_path / "out" / "shard-1-of-2"
    lines = (shard / "trajectories.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 4  # batches 1 and 3
    assert len({json.loads(line)["turns"][0]["action"] for line in lines}) > 2
    (shard / "trajectories.jsonl").write_text(lines[0] + lines[1][:40])
    (shard / "facts.json").unlink()
    assert run(*asked, "--merge") == 2
    assert run(*asked, "--shard", "1/2") == run(*asked, "--merge") == 0
    assert files(tmp_path / "out") == files(tmp_path / "alone")


def test_an_endpoint_of_which_one_task_fails(run: Command, tmp_path: Path) -> None:
    def answer(number: int, body: dict[str, Any]) -> Answer:
        # What is asked tells the task: in whatever process and order, the same one fails.
        return refusal(400, "too long") if len(str(body["messages"])) % 3 == 0 else completion(r"\boxed{A}")

    with serving(answer) as server:
        asked = ("--tasks", "count", *MICRO, "--limit", "9", "--prices", "0.3", "7",
                 "--policy", f"endpoint:tiny@{server.url}")  # fmt: skip
        assert run(*asked, out="alone") == 0
        alone = len(server.bodies)
        for shard in ("1/2", "2/2", "2/2"):
            assert run(*asked, "--shard", shard) == 0
        assert run(*asked, "--merge") == 0 and len(server.bodies) == 2 * alone
    assert files(tmp_path / "out") == files(tmp_path / "alone")
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    summary, asked_for = result["overall"]["summary"], result["decoding"]["asked"]
    assert 0 < summary["errors"] < 9 and "too long" in result["parts"]["count"]["errors"][0]["error"]
    assert [asked_for[name] for name in ("requests", "unreported")] == [summary["episodes"], 0]
    assert asked_for["prompt_tokens"] == 100 * summary["episodes"]


def test_processes_of_a_launcher_are_shards_and_some_may_be_idle(
    run: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--tasks", "search", *MICRO, "--policy", "direct", "--limit", "2")
    assert run(*asked, out="alone") == 0
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert run(*asked) == 0
    assert evaluate.main([*asked]) == run(*asked, "--shard", "1/3") == run(*asked, "--merge") == 2
    told = capsys.readouterr().err
    assert "expected --out: the shards" in told and told.count("a launcher started 3; leave them out") == 2
    monkeypatch.delenv("RANK")
    assert run(*asked, "--merge") == 0
    assert files(tmp_path / "out") == files(tmp_path / "alone")


# --- what is not whole ------------------------------------------------------------------------------------------------


def test_missing_and_half_shards_are_named(run: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--tasks", "search", *MICRO, "--policy", "direct", "--limit", "6")

    def refused(*more: str) -> str:
        capsys.readouterr()
        assert run(*asked, *more, "--merge") == 2
        error = capsys.readouterr().err
        assert error.startswith("evaluate.py: error: ") and error.count("\n") == 1
        return error

    assert "holds no shards; play them: --shard 1/N to N/N in place of --merge" in refused()
    assert run(*asked, "--shard", "1/3") == run(*asked, "--shard", "3/3") == 0
    last = tmp_path / "out" / "shard-3-of-3"
    (last / "facts.json").unlink()
    written = (last / "trajectories.jsonl").read_text()
    (last / "trajectories.jsonl").write_text(written[:-20])  # a line cut short is no episode
    error = refused()
    assert "shard 2/3 is missing; shard 3/3 was not ended, 1 of 2 episodes are there; the same command with" in error
    assert "holds another evaluation, with --limit 6; choose another --out" in refused("--limit", "7")
    assert run(*asked, "--shard", "2/3") == run(*asked, "--shard", "3/3") == run(*asked, "--merge") == 0
    assert (last / "trajectories.jsonl").read_text() == written
    facts = tmp_path / "out" / "shard-2-of-3" / "facts.json"
    facts.write_text('{"device": "cuda"}')
    assert "played alike, got device None in 1/3 and cuda in 2/3" in refused()
    assert run(*asked, "--shard", "1/2") == 0
    assert "holds shards of 2 and of 3; remove the folders of one cut" in refused()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--shard 3/2", "expected I/N with I from 1 to N, such as 2/4, got '3/2'"),
        ("--shard 1/2 --merge", "--merge plays nothing; leave --shard 1/2 out"),
        ("--retry-errors --merge", "--merge plays nothing; leave --retry-errors out"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: str, said: str, run: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--tasks", "search", *MICRO, "--policy", "direct", *arguments.split()) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


# --- an endpoint, every episode at its own pace -----------------------------------------------------------------------


def test_ctrl_c_loses_nothing_that_is_finished(run: Command, tmp_path: Path) -> None:
    stopped = threading.Event()

    def answer(number: int, _: dict[str, Any]) -> Answer:
        if number == 5 and not stopped.is_set():
            stopped.set()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            return Answer(b"", how="hang")
        return completion(r"\boxed{A}")

    with serving(answer) as server:
        asked = ("--tasks", "count", *MICRO, "--limit", "8", "--concurrency", "1", "--batch-episodes", "1",
                 "--policy", f"endpoint:tiny@{server.url}")  # fmt: skip
        assert run(*asked) == 130
        assert len((tmp_path / "out" / "trajectories.jsonl").read_text().splitlines()) == 5
        assert run(*asked) == 0 and len(server.bodies) == 8 + 1  # what was interrupted is asked again


def test_as_many_episodes_as_requests_at_a_time(run: Command) -> None:
    six = threading.Barrier(6, timeout=PATIENCE)

    def answer(*_: Any) -> Answer:
        six.wait()
        return completion(r"\boxed{A}")

    with serving(answer) as server:
        assert run("--tasks", "count", *MICRO, "--limit", "6", "--concurrency", "6", "--batch-episodes", "2",
                   "--policy", f"endpoint:tiny@{server.url}") == 0  # fmt: skip
        assert server.most_running == 6
