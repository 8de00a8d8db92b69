"""What is said before an answer follows from what is drawn, and the answer from what is said."""

import re

import pytest

from agents.reasons import Thing, counted, in_rows, named, object_ends, places, reason, seen_in, target
from pixel_env.tasks import ProceduralTasks, Task

SUITES = ("search", "count", "read", "clip")


def thing(name: str, x: float, y: float, text: str = "") -> Thing:
    return Thing(name, (x, y, x + 10, y + 10), text)


def easy(suite: str, level: int) -> list[Task]:
    tasks = ProceduralTasks((suite,), "test", level, "micro")
    return [t for t in (tasks[i] for i in range(150)) if not t.needs_operation]


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("suite", SUITES)
def test_the_answer_follows_from_the_reason(suite: str, level: int) -> None:
    """A reader who sees the reason alone gives the right answer, template by template."""
    tasks = easy(suite, level)
    assert len(tasks) > 20
    for task in tasks:
        said, answer = reason(task), task.answers[0]
        if task.question.startswith("How many") or "how many" in task.question:
            enumerated, _, told = said.rpartition(": ")
            assert told.rpartition(" ")[2] == answer
            frames = len(re.findall(r"\d+", enumerated))  # of a clip; else things
            word = re.match(r"How many (\w+) (?:tray|object)s", task.question)
            names = enumerated.removeprefix("there is ").split(", ")
            assert int(answer) == (frames or sum(word is None or word[1] in name.split() for name in names))
        elif task.question.startswith("In which frame"):
            assert re.findall(r"\d+", said)[0] == answer
        elif task.question.startswith("Which appears first"):
            seen, _, told = said.partition(": ")
            parts = re.split(r", (?=the)", seen)
            first = {part[4:].partition(" is in")[0]: int(re.findall(r"\d+", part)[0]) for part in parts}
            assert len(first) == 2 and min(first, key=lambda name: first[name]) == answer
            begun = [f"{number} the {name}" for name, number in first.items()]
            assert told == f"{', '.join(begun)}, first {first[answer]} the {answer}"
        else:
            assert f" {answer}" in said


def test_places_by_hand() -> None:
    left, middle, low = thing("red star", 0, 40, "A"), thing("red moon", 50, 44, "B"), thing("blue star", 54, 90, "C")
    assert object_ends([left, middle, low], 8) == {"leftmost object": left, "bottommost object": low}
    assert places([left, middle, low], 8) == object_ends([left, middle, low], 8)
    assert object_ends([left], 8) == {}
    panels = [thing("text next to the red star", 0, 30, "AB"), thing("text next to the red ring", 0, 60, "C")]
    assert list(places([*panels, thing("title", 0, 0, "XY"), thing("red star", 0, 30)], 6)) == [
        "highest panel", "lowest panel"
    ]  # fmt: skip


def test_rows_by_hand() -> None:
    some = [thing("a", 80, 40), thing("b", 10, 0), thing("c", 60, 10), thing("d", 20, 30)]
    assert [t.name for t in in_rows(some, 28)] == ["b", "c", "d", "a"]


def test_wording() -> None:
    assert counted(["red star tray"], ["star trays"]) == "there is the red star tray: star trays 1"
    assert seen_in("red star", [7]) == "the red star is in frames 7"


def test_what_is_called_by_its_place_gets_its_name() -> None:
    tasks = ProceduralTasks(("search",), "test", 1, "micro")
    asked = [t for t in (tasks[i] for i in range(60)) if "most object" in t.question and t.needs_operation]
    assert asked
    for task in asked:
        name, naming = named(task)
        (mark,) = (m for m in task.media.canvases[0].marks if m.box == task.cue.box)  # type: ignore[attr-defined, union-attr]
        asked = target(task.question)
        assert (name, naming) == (f"the {mark.name}", f"The{asked[3:]} is the {mark.name}.")
    (other, *_) = (t for t in (tasks[i] for i in range(60)) if t.question.startswith("Which letter"))
    assert named(other) == (target(other.question), "")
