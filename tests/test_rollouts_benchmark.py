"""The comparison with TRL's tool loop: that it compares the same thing, not how fast anything is."""

import json
import sys
from pathlib import Path

import pytest

from agents import engine
from agents.conversation import ChatEncoder
from agents.engine import _Run
from benchmarks import rollouts

BASE = str(Path(__file__).parents[1] / "agents" / "micro_base")
pytestmark = pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing`:FutureWarning")


def test_mixes_are_ragged_demonstrations() -> None:
    encoder = ChatEncoder(rollouts.micro.load_processor(BASE))
    for mix, turns in (("direct", {1}), ("paper", {1, 2, 3, 4}), ("long", {3, 4})):
        written = rollouts.scripts(encoder, mix, prompts=4, group_size=8)
        assert len(written) == 4 and {len(group) for group in written.values()} == {8}
        assert {len(script) for group in written.values() for script in group} <= turns
        assert all(turn[-1] == encoder.end for group in written.values() for script in group for turn in script)


def test_both_sides_play_the_same_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rollouts.json"
    command = "rollouts.py --mixes paper --prompts 2 --group-size 2 --repeats 1"
    monkeypatch.setattr(sys, "argv", [*command.split(), "--out", str(out)])
    rollouts.main()  # raises where ids or masks differ
    (row,) = json.loads(out.read_text())["results"]
    assert row["rollouts"] == 4 and row["turns"] > 1 and row["written_tokens"] < row["completion_tokens"]
    assert set(row["rollouts_per_second"]) == {"trl", "engine"} and row["ratio"]["low"] == row["ratio"]["high"] > 0
    assert "| paper |" in capsys.readouterr().out
    assert engine._Run is _Run  # put back


def test_different_tokens_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    play = rollouts.ToolLoop.play

    def other(loop: rollouts.ToolLoop) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
        ids, completions, masks = play(loop)
        return [[*ids[0][:-1], ids[0][-1] + 1], *ids[1:]], completions, masks

    monkeypatch.setattr(rollouts.ToolLoop, "play", other)
    with pytest.raises(RuntimeError, match="different tokens in "):
        rollouts.compare(BASE, "direct", 1, 2, 1)
