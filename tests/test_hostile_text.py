"""No text that a model writes breaks a reader, a grader, a request or a page; nothing of it is carried out."""

import json
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hostile_texts import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import fuzz_text, text_promises
from pixel_env.actions import MAX_TURN_CHARACTERS, Answer, CropImage, Malformed, parse
from pixel_env.released_protocol import read_turn

ROOT = Path(__file__).parents[1]
pieces = st.sampled_from(text_promises.PIECES)
texts = st.lists(pieces | st.text(st.characters(), max_size=4), max_size=25).map("".join)


@settings(deadline=None, max_examples=200)
@given(texts)
def test_every_promise_holds_for_any_text(text: str) -> None:
    text_promises.check(text)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_every_promise_holds_for(text: str) -> None:
    text_promises.check(text)


def test_a_broken_promise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_promises, "parse", lambda text, schemas: Answer("A"))
    monkeypatch.setattr(text_promises, "render", lambda action, schemas: "B")
    text_promises.check_reading("")  # what is written is read as it was
    monkeypatch.setattr(text_promises, "parse", lambda text, schemas: Malformed(text, attempted_call=False))
    with pytest.raises(AssertionError):
        text_promises.check_reading("x" * 1000)  # a reason without end


def test_of_names_that_stand_twice_the_last_counts() -> None:
    assert parse(HOSTILE["a name twice"]) == CropImage((5.0, 6.0, 7.0, 8.0), 0)


@pytest.mark.parametrize("reader", [parse, read_turn])
def test_memory_is_bounded(reader) -> None:  # type: ignore[no-untyped-def]
    def peak(text: str) -> int:
        tracemalloc.start()
        try:
            reader(text)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak("crop_image([1])" * (MAX_TURN_CHARACTERS // 15)) < 2**28  # a call is the most that a piece can become
    longer = "{" * (MAX_TURN_CHARACTERS + 1)
    assert peak(longer) < 2**16
    action = reader(longer)
    assert isinstance(action, Malformed) and not action.attempted_call
    assert action.reason == "expected a turn of at most 262144 characters, got 262145"
    call = f'<tool_call>{{"name": "crop_image_normalized", "arguments": [{"[1,2]," * 40_000}1]}}</tool_call>'
    assert peak(call) < 2**23  # 240,000 characters that JSON would make 80,000 objects of


def events_of(folder: Path, *arguments: str) -> dict[str, list[str]]:
    """What the interpreter reported while hostile texts were read in a process of their own."""
    command = [sys.executable, str(ROOT / "tests" / "hostile_texts.py"), *arguments]
    done = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert list(folder.iterdir()) == []
    return json.loads(done.stdout)


def test_nothing_is_opened_run_or_sent(tmp_path: Path) -> None:
    events = events_of(tmp_path)
    assert {"compile", "exec", "open"} <= set(events["seen"])
    assert events["during"] == []


def test_mathematics_is_no_code(tmp_path: Path) -> None:
    """sympy evaluates what math-verify takes for a formula of digits and operators: that, and nothing else."""
    pytest.importorskip("math_verify")
    events = events_of(tmp_path, "math")
    assert events["during"] == ["compile", "exec"] and events["seen"] == ["open"]
    formulas = {source for source in events["compiled"] if source not in ("", "from sympy import *")}
    assert "Integer (1 )+(Integer (2 )*Integer (3 ))**Integer (2 )/Integer (7 )" in formulas
    assert all(re.fullmatch(r"(?:Integer|Float|Rational|[\d\s+\-*/().,'])*", formula) for formula in formulas)


def test_the_fuzzer(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="the fuzzer needs atheris")
    out = tmp_path / "fuzz.json"
    command = [sys.executable, fuzz_text.__file__, "--runs", "100", "--corpus", str(tmp_path / "corpus"), "--out"]
    subprocess.run([*command, str(out)], check=True, env={"PYTHONPATH": str(ROOT)}, cwd=tmp_path)
    written = json.loads(out.read_text())
    assert (written["inputs"], written["findings"]) == (100, 0) and written["parts"][0]["reached"][0] > 50
