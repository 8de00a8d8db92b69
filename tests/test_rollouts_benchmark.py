"""The comparison with TRL's tool loop: that it compares the same thing, not how fast anything is."""

import json
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from agents import engine
from agents.conversation import ChatEncoder
from agents.engine import _Run
from benchmarks import rollouts
from pixel_env.actions import Answer, CropImage, SelectFrames, parse

BASE = str(Path(__file__).parents[1] / "agents" / "micro_base")
pytestmark = pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing`:FutureWarning")


def test_mixes_are_ragged_demonstrations() -> None:
    encoder = ChatEncoder(rollouts.micro.load_processor(BASE))
    for mix, turns in (("direct", {1}), ("paper", {1, 2, 3, 4}), ("long", {3, 4}), ("images", {4, 5})):
        written = rollouts.scripts(encoder, mix, prompts=4, group_size=8)
        assert len(written) == 4 and {len(group) for group in written.values()} == {8}
        assert {len(script) for group in written.values() for script in group} <= turns
        assert all(turn[-1] == encoder.end for group in written.values() for script in group for turn in script)


def test_the_image_heavy_mix_looks_at_eight_frames_and_several_crops() -> None:
    env = gym.make(rollouts.ENV_ID, **rollouts.ENV)
    tasks = env.unwrapped.tasks  # type: ignore[attr-defined]
    clip = next(task for task in range(100) if tasks[task].media.kind == "video")
    played = [rollouts.image_heavy(clip, env, np.random.default_rng(seed)) for seed in range(8)]
    actions = [[parse(turn.action) for turn in one.turns] for one in played]
    for select, *crops, answer in actions:
        assert isinstance(select, SelectFrames) and len(set(select.frames)) == 8 and isinstance(answer, Answer)
        assert all(isinstance(crop, CropImage) and 16 <= crop.image < 24 for crop in crops)  # of the frames selected
    assert {len(turns) for turns in actions} == {4, 5}
    assert all(one.correct and not one.num_errors for one in played)


def test_both_sides_play_the_same_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rollouts.json"
    command = "rollouts.py --mixes paper images --prompts 2 --group-size 2 --repeats 1"
    monkeypatch.setattr(sys, "argv", [*command.split(), "--out", str(out)])
    rollouts.main()  # raises where ids or masks differ
    paper, images = json.loads(out.read_text())["results"]
    for row in (paper, images):
        assert row["rollouts"] == 4 and row["turns"] > 1 and row["written_tokens"] < row["completion_tokens"]
        low, middle, high = row["times_as_fast"]
        assert 0 < low == middle == high  # of one round
    assert (paper["wanted"], images["wanted"]) == ("at least 2.5 times", "at least 4 times")
    assert images["images"] == 16 + 8 + images["turns"] - 2  # first view, selected, crops: all turns but first and last
    said = capsys.readouterr().out
    assert "| paper |" in said and said.count(" times: ") == 2
    assert engine._Run is _Run  # put back


def test_different_tokens_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    play = rollouts.ToolLoop.play

    def other(loop: rollouts.ToolLoop) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
        ids, completions, masks = play(loop)
        return [[*ids[0][:-1], ids[0][-1] + 1], *ids[1:]], completions, masks

    monkeypatch.setattr(rollouts.ToolLoop, "play", other)
    with pytest.raises(RuntimeError, match="different tokens in "):
        rollouts.compare(BASE, "direct", 1, 2, 1)
