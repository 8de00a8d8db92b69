"""The lessons' questions about a first view are answered as a second reading of the marks answers them."""

import re
from dataclasses import replace

import numpy as np
import pytest
from recomputed import PICTURES, recompute

from agents.micro_lessons import MARGIN, take, whole
from agents.micro_questions import FINAL, boxed, clip_questions, view_questions, worded
from agents.reasons import Thing, frames_of
from pixel_env.tasks import ProceduralTasks


@pytest.mark.parametrize("suite", ["search", "count", "read", "clip"])
def test_questions_are_answered_as_the_marks_say(suite: str) -> None:
    rng, checked = np.random.default_rng(0), set()
    tasks = ProceduralTasks((suite,), difficulty=(1, 2), preset="micro")
    for task in (tasks[k] for k in range(60)):
        if suite == "clip":
            asked = clip_questions(rng, frames_of(task.media))  # type: ignore[arg-type]
        else:
            canvas = task.media.canvases[0]  # type: ignore[attr-defined]
            things = take(canvas, whole(canvas)).things
            if any(thing.dots == (0, 0) for thing in things):
                continue  # the second reading knows a tray by its dots
            asked = view_questions(rng, things, MARGIN)
        for text, answer in asked:
            question, *options, final = text.split("\n")
            known = [pattern for pattern in PICTURES[suite] if re.fullmatch(pattern, question)]
            if not known:  # in the words of another suite, or of no suite: "lowest icon", "red circle tray"
                continue
            said = answer.partition("\\boxed{")[2].removesuffix("}")
            assert said == recompute(replace(task, question=question)).answer
            assert final == FINAL and (not options or said in [option[4:] for option in options])
            checked.add(known[0])
    assert len(checked) == {"search": 2, "count": 2, "read": 3, "clip": 3}[suite]


def test_wording() -> None:
    assert worded("Which?", ("a", "b")) == f"Which?\n(A) a\n(B) b\n{FINAL}"
    assert (boxed("it is red", "red"), boxed("", "3")) == ("It is red. \\boxed{red}", "\\boxed{3}")


def test_what_has_no_clear_answer_is_not_asked() -> None:
    """Two alike are not told apart by name, and things side by side have no top."""
    pair = [Thing("red star", (0, 50, 10, 60)), Thing("red star", (80, 50, 90, 60))]
    asked = {text.split("\n")[0] for text, _ in view_questions(np.random.default_rng(0), pair, MARGIN)}
    assert asked and all(question.startswith("How many") for question in asked)
