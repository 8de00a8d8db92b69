"""The head of results files."""

import sys
from pathlib import Path

import pytest

from agents.players import weights_digest
from benchmarks.provenance import commit, provenance


def test_the_commit_is_that_of_the_checkout_wherever_one_calls_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = commit()
    monkeypatch.chdir(tmp_path)
    assert commit() == here


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() == "unknown"


def test_the_command_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["a.py", "--out", "my runs/$1"])
    assert provenance(())["command"] == "python a.py --out 'my runs/$1'"


def test_versions_are_of_what_is_installed() -> None:
    assert list(provenance(("numpy", "no-such-package"))["machine"]["versions"]) == ["numpy"]


def test_other_weights_have_another_digest(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"1")
    (tmp_path / "config.json").write_text("{}")
    first = weights_digest(tmp_path)
    (tmp_path / "config.json").write_text("{ }")
    assert weights_digest(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert weights_digest(tmp_path) != first
