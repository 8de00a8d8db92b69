"""What the script that kills runs takes for broken, for different and for repeated."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks import faults
from benchmarks.left_behind import broken, difference, repeated


def run(folder: Path, weight: float = 1.0, steps: tuple[int, ...] = (1, 2)) -> Path:
    """A small training."""
    (folder / "model").mkdir(parents=True)
    save_file({"a": torch.full((10,), weight)}, folder / "model" / "model.safetensors")
    (folder / "config.json").write_text("{}")
    rows = [{"stage": "rl", "step": step} for step in steps]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_half_files_are_broken_unless_they_say_so(tmp_path: Path) -> None:
    out = run(tmp_path / "run")
    Image.new("RGB", (50, 50)).save(out / "curves.png")
    torch.save({"a": torch.zeros(1000)}, out / "checkpoint.pt")
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "r')  # cut short by a kill: no line yet
    assert broken(out) == []
    whole = {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()}
    for path, content in whole.items():
        path.write_bytes(content[: len(content) // 2] if path.suffix != ".json" else b"{")
        named = [name.partition(":")[0] for name in broken(out)]
        assert named == ([] if path.suffix == ".jsonl" else [str(path.relative_to(out))])
        path.write_bytes(content)
    (out / "metrics.jsonl").write_text('{"stage": "r{"stage": "rl"}\n')
    assert len(broken(out)) == 1
    (out / "metrics.jsonl").unlink()
    for begun in ("result.json.part", "model.old/config.json", "rl/checkpoint-2/trainer_state.json"):
        (out / begun).parent.mkdir(parents=True, exist_ok=True)
        (out / begun).write_text("{")
    assert broken(out) == []
    (out / "rl" / "checkpoint-2" / "complete").touch()
    assert len(broken(out)) == 1


def test_differences(tmp_path: Path) -> None:
    one, same = run(tmp_path / "one"), run(tmp_path / "same", steps=(1, 2, 2, 1))
    files = ("config.json", "metrics")
    assert difference(one, same, files, "model") == 0.0 and (repeated(one), repeated(same)) == (0, 2)
    assert difference(one, run(tmp_path / "near", 1.0001), files, "model") == pytest.approx(1e-4, rel=0.01)
    with pytest.raises(AssertionError, match="not close"):
        difference(one, run(tmp_path / "far", 1.01), files, "model")
    with pytest.raises(RuntimeError, match=r"metrics of .*/short is not that of"):
        difference(one, run(tmp_path / "short", steps=(1,)), files, "model")
    (same / "config.json").write_text("{ }")
    with pytest.raises(RuntimeError, match=r"config\.json of"):
        difference(one, same, files, "model")


def test_a_run_is_begun_and_gone_on_with_as_a_user_would(tmp_path: Path) -> None:
    known = faults.jobs(Path("tiny"), "http://127.0.0.1:1/v1")
    assert set(known) == {"SFT", "RL", "evaluation", "demonstrations", "pretraining"}
    for name, job in known.items():
        out = tmp_path / name
        first = job.command(out)
        assert first[-2:] == ["--out", str(out)] and len(first) > 8
        out.mkdir()
        (out / "config.json").write_text("{}")
        assert job.command(out) == (["--resume", "--out", str(out)] if name in ("SFT", "RL") else first)


def test_mistakes_are_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in ((["--kills", "0"], "expected --kills of at least 1"), (["--jobs", "x"], "invalid choice")):
        assert faults.main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("faults.py: error: ") and said in error and error.count("\n") == 1
