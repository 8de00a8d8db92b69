"""The page of promises names tests, files and settings that exist."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_every_test_and_file_exists() -> None:
    written = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").glob("test_*.py")))
    tests = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(tests) > 10 and not {name for name in tests if f"def {name}(" not in written}
    files = set(re.findall(r"`((?:tests|benchmarks|pixel_env|agents)/[\w/]+\.(?:py|json))", PAGE))
    assert len(files) > 8 and not {file for file in files if not (ROOT / file).exists()}


def test_every_limit_is_read() -> None:
    said = (ROOT / "pixel_env" / "decoding.py").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `PIXEL_ENV_(\w+)` \| (\d+)", PAGE, re.MULTILINE)
    assert [name for name, _ in rows] == ["MAX_IMAGE_PIXELS", "MAX_VIDEO_PIXELS", "DECODE_SECONDS", "DECODE_IN_PROCESS"]
    for name, default in rows:
        if name == "DECODE_IN_PROCESS":
            assert f'"PIXEL_ENV_{name}", "{default}"' in said
        else:
            written = re.search(rf'^{name} = _limit\("{name}", ([\d*]+)\)$', said, re.MULTILINE)
            assert written is not None
            base, _, power = written[1].partition("**")
            assert int(base) ** int(power or 1) == int(default)


def test_figures_of_the_fuzzer_are_those_of_its_file() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "fuzz_text.json").read_text(encoding="utf-8"))
    assert result["inputs"] == sum(part["inputs"] for part in result["parts"]) and result["findings"] == 0
    seconds = sum(part["seconds"] for part in result["parts"])
    assert f"{result['inputs']:,} inputs were tried, in {seconds:,} seconds" in PAGE


def test_figures_of_the_faults_are_those_of_their_file() -> None:
    """Jobs that the script has not killed are named as such."""
    result = json.loads((ROOT / "benchmarks" / "results" / "faults.json").read_text(encoding="utf-8"))
    told = "".join(PAGE.partition("So far: demonstrations")[1:]).partition("## ")[0]
    done, _, missing = " ".join(told.split()).partition("nothing lost; ")
    for name in ("SFT", "RL", "evaluation", "demonstrations", "pretraining"):
        assert (name in result) == (name not in missing)
    for name, found in result.items():
        killed, full = found["killed"], found["no_room"]
        assert f"{name}, {killed['kills']} kills and {full['times']} limits" in done and killed["kills"] >= 10
        assert not killed["broken_files"] and not full["broken_files"] and not killed["processes_left_behind"]
        assert found["second_run_refused"] and full["told"] + full["did_not_matter"] == full["times"]
