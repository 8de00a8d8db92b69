"""The comparison with TRL's supervised trainer: that both sides train on the same ids, not how fast anything is."""

import json
import sys
from pathlib import Path

import pytest
from tiny_vlm import model, processor

from agents import micro
from agents.examples import Examples
from benchmarks import warm_start_rates


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("weights")
    micro.save(model(), processor(), folder)
    return str(folder)


def test_both_sides_train_on_the_same_ids(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "rates.json"
    command = f"rates.py --model {weights} --examples 4 --batch-size 2 --repeats 1 --out {out}"
    monkeypatch.setattr(sys, "argv", command.split())
    warm_start_rates.main()  # raises where the ids differ
    found = json.loads(out.read_text())["results"]
    assert found["examples"] == 4 and found["tokens_per_example"] > 50
    low, median, high = found["times_as_fast_as"]["trl"]
    assert 0 < low == median == high
    assert set(found["examples_per_second"]) == {"ours", "trl", "trl_without_checkpointing"}


def test_different_ids_are_an_error(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(Examples):
        def __getitem__(self, index: int):  # type: ignore[no-untyped-def]
            example = super().__getitem__(index)
            example.ids[5] += 1
            return example

    monkeypatch.setattr(warm_start_rates, "Examples", Other)
    with pytest.raises(RuntimeError, match="different ids in example 0"):
        warm_start_rates.compare(weights, 2, 2, 1)
