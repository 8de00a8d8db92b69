"""Golden trajectories play again exactly as they were recorded; `tests/golden/make.py` wrote them."""

from pathlib import Path

import pytest

from pixel_env.registration import ENVIRONMENTS
from pixel_env.trajectory import load_jsonl, replay

FOLDER = Path(__file__).parent / "golden"
FILES = sorted(FOLDER.glob("*.jsonl"))

CODES = {
    *("inverted_box", "empty_box", "not_finite", "outside_box", "tiny_box", "unknown_image", "not_a_video"),
    *("no_frames", "unknown_frame", "repeated_frame", "too_many_frames", "malformed_call"),
}


def test_every_id_has_its_files() -> None:
    names = {f"{env_id}-{policy}" for env_id in ENVIRONMENTS for policy in ("random", "oracle")}
    assert {path.stem for path in FILES} == names | {"mistakes"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_replay_equals_the_record(path: Path) -> None:
    for trajectory in load_jsonl(path):
        assert replay(trajectory) == trajectory


def test_oracles_are_right_and_mistakes_are_complete() -> None:
    oracles = [trajectory for path in FILES if path.stem.endswith("oracle") for trajectory in load_jsonl(path)]
    assert all(trajectory.correct and trajectory.num_errors == 0 for trajectory in oracles)
    turns = [turn for trajectory in load_jsonl(FOLDER / "mistakes.jsonl") for turn in trajectory.turns]
    assert {turn.operation_error for turn in turns} - {None} == CODES
    assert any(turn.malformed and turn.operation_error is None for turn in turns)  # no call was tried
    assert all(turn.observation.startswith("Error: ") for turn in turns if turn.malformed or turn.operation_error)
    # Every marker stands for an image: nothing the policy wrote adds one.
    assert all(turn.observation.count("<image>") == len(turn.image_digests) for turn in turns)
