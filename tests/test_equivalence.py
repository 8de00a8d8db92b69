"""The process of math-verify: its outcomes, its time-out, and that it comes back."""

import importlib.util
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pixel_env import equivalence
from pixel_env.equivalence import compare, require

needs_math_verify = pytest.mark.skipif(not importlib.util.find_spec("math_verify"), reason="needs math-verify")

OUTCOMES = [
    (r"\boxed{1/2}", r"\boxed{0.5}", "equal"),  # a fraction
    (r"\boxed{1}", r"\boxed{2}", "different"),  # two numbers
    ("no number", r"\boxed{2}", "first unreadable"),  # nothing to read
    (r"\boxed{2}", "no number", "second unreadable"),  # likewise
    ("", "", "second unreadable"),  # the second is read first
    (r"\boxed{1 < x < 2}", r"\boxed{(1,2)}", "equal"),  # an inequality against an interval: not symmetric
    (r"\boxed{(1,2)}", r"\boxed{1 < x < 2}", "different"),  # so the accepted answer must come first
    ("\ud800\n\x00", r"\boxed{2}", "first unreadable"),  # any text passes the pipe, also half a surrogate pair
]


@needs_math_verify
@pytest.mark.parametrize(("first", "second", "outcome"), OUTCOMES)
def test_outcomes(first: str, second: str, outcome: str) -> None:
    assert compare(first, second) == outcome


@needs_math_verify
def test_a_late_comparison_is_killed_and_the_next_one_works() -> None:
    compare("1", "1")  # started
    began = time.monotonic()
    assert compare(r"\boxed{9^{9^{9^{9}}}}", r"\boxed{3}", seconds=0.5) == "gave up"
    assert time.monotonic() - began < 4.0
    assert compare(r"\boxed{3}", r"\boxed{3}") == "equal"


@needs_math_verify
def test_a_child_that_died_is_replaced() -> None:
    compare("1", "1")
    child = equivalence._checker(os.getpid())._child
    assert child is not None
    os.kill(child.pid, signal.SIGTERM)
    assert compare(r"\boxed{3}", r"\boxed{3}") == "equal"


@needs_math_verify
def test_threads_take_turns() -> None:
    found: dict[int, str] = {}

    def ask(number: int) -> Callable[[], None]:
        return lambda: found.update({number: compare(rf"\boxed{{{number}}}", rf"\boxed{{{number % 3}}}")})

    threads = [threading.Thread(target=ask(number)) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: "equal" if number < 3 else "different" for number in range(9)}


BROKEN = {
    "raises": ("def parse(text, **_): raise ImportError('another antlr4')\n", "ImportError: another antlr4"),
    "finds nothing": ("def parse(text, **_): return []\n", "it does not find 1/2 equal to 0.5"),
    "ends": ("import os\nos._exit(3)\n", "its process ended"),
}


@pytest.mark.parametrize(("source", "said"), BROKEN.values(), ids=BROKEN)
def test_a_broken_math_verify_is_an_error_and_no_wrong_answer(
    source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "math_verify.py").write_text(f"{source}def verify(gold, answer, **_): return gold == answer != []\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    checker = equivalence._Checker()
    for _ in range(2):  # also the second time
        with pytest.raises(RuntimeError, match=rf"expected a math-verify that works, got: {said}.*; install it again"):
            checker.ask("1", "1", 30.0)
    assert checker._child is None


def test_without_math_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"expected math-verify to be installed.*pip install \"pixel-env\[math\]\""):
        require()
