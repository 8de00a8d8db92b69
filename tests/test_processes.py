"""Processes that are started together, and a group whose rollouts two of them share: it is scored as one."""

import json
import os
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agents.processes import rank_and_count, together

SCRIPT = Path(__file__).with_name("half_a_group.py")
USERS = [0, 0, 1, 0, 0, 1, 0, 0]  # one in each half: either process alone would see a rate of 1 in 4
COLUMNS = {
    "used": [*USERS, *USERS, *[0] * 8],
    "operations": [*USERS, *USERS, *[0] * 8],
    "correct": [*[0] * 8, *[1, 0, 1, 0, 0, 0, 0, 0], *[1] * 8],
}


def run(folder: Path, processes: int) -> list[dict[str, Any]]:
    """What each of some processes (gloo, this machine only) would train on."""
    (folder / "columns.json").write_text(json.dumps(COLUMNS))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in range(processes):
        env = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        if processes > 1:
            env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, str(SCRIPT), str(folder)]
        started.append(subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True))
    try:
        errors = [process.communicate(timeout=240)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * processes, errors
    return [json.loads((folder / f"process-{rank}-of-{processes}.json").read_text()) for rank in range(processes)]


def test_two_processes_have_the_rewards_of_one(tmp_path: Path) -> None:
    (alone,), halves = run(tmp_path, 1), run(tmp_path, 2)
    bonus = 0.5 * (0.3 - 2 / 8)
    first = [bonus * used - bonus / 4 for used in USERS]
    second = [
        right + bonus * used - (1 + bonus) / 4 for used, right in zip(USERS, COLUMNS["correct"][8:16], strict=True)
    ]
    hand = [*first, *second, *[0.0] * 8]
    assert alone["counted_share"] == pytest.approx(16 / 24)
    # Shared out in order: the middle group has four rollouts in each process.
    together = halves[0]["advantages"] + halves[1]["advantages"]
    assert together == pytest.approx(alone["advantages"], abs=1e-6)
    scale = alone["advantages"][8] / hand[8]  # of the standard deviation, by default that of the group
    assert alone["advantages"][8:16] == pytest.approx([scale * value for value in hand[8:16]], abs=1e-5)
    for half in halves:
        for name in ("rapr", "curiosity", "correctness", "uniform_groups", "counted_share"):
            assert half[name] == pytest.approx(alone[name]), name
        assert half["num_items_in_batch"] == sum(one["tokens"] for one in halves)
    assert alone["rapr"] == pytest.approx(4 / 24) and alone["curiosity"] == pytest.approx(4 * bonus / 24)


def ends(folder: Path, codes: list[int]) -> int:
    """What a process of `together` does: it says who it is, and ends with its code."""
    rank, count = rank_and_count()
    (folder / f"{rank}-of-{count}").write_text(os.environ["OMP_NUM_THREADS"])
    if codes[rank] < 0:
        time.sleep(600)
    return codes[rank]


@pytest.mark.parametrize(("codes", "code"), [([0, 0], 0), ([3, -1], 3)])
def test_processes_started_here(codes: list[int], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert together(partial(ends, tmp_path, codes), 2) == code  # who would sleep for ever is ended
    assert {path.name: path.read_text() for path in tmp_path.iterdir()}.items() >= {"0-of-2": "1"}.items()
