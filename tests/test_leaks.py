"""What must not stand in a demonstration."""

import pytest
from fakes import image_task

from agents.leaks import acts, gives_away, mentions_crop
from pixel_env.tasks import Task


def task(kind: str, *answers: str, choices: tuple[str, ...] = ()) -> Task:
    return image_task(answers=answers, answer_kind=kind, choices=choices)


COLOUR = task("choice", "dark red", choices=("blue", "dark red", "green"))


@pytest.mark.parametrize(
    ("asked", "text", "gives"),
    [
        (task("text", "Exit"), "The sign says EXIT.", True),
        (task("text", "Exit"), "Look for the exits.", False),  # another word
        (task("text", "New York", "NYC"), "A map with nyc on it", True),
        (task("text", "New York"), "A new building in York", False),
        (task("text", "10%"), "It grew by 10 %.", True),
        (task("text", "+"), "a plus, or +", True),  # no word at all
        (task("spans", "red, blue"), "red and blue", False),
        (task("spans", "red, blue"), "red, blue", True),
        (task("number", "3"), "There are three dogs.", True),
        (task("number", "3"), "There are 3.0 dogs.", True),
        (task("number", "3"), "Image 1 and frames 2, 3 and 4 show dogs.", False),
        (task("number", "3"), "There are 33 dogs.", False),
        (COLOUR, "The car is dark  red.", True),
        (COLOUR, "The car is red.", False),
        (COLOUR, "Blue, dark red or green: which is it?", False),  # all of them
        (COLOUR, "Blue or dark red?", True),
        (COLOUR, "It is (B).", True),
        (COLOUR, "So the answer is B", True),
        (COLOUR, "Option A is wrong.", False),
        (COLOUR, "Platform B", False),
    ],
)
def test_what_gives_the_answer_away(asked: Task, text: str, gives: bool) -> None:
    assert gives_away(text, asked) is gives


@pytest.mark.parametrize(
    ("question", "mentions"),
    [
        ("What is shown in the cropped area?", True),
        ("What can be seen when zooming in?", True),
        ("Which colour has the cap in this part?", True),
        ("What is in the bounding box?", True),
        ("What is next to the box of oranges?", False),
        ("Which area of the map is red?", False),
    ],
)
def test_what_mentions_a_crop(question: str, mentions: bool) -> None:
    assert mentions_crop(question) is mentions


@pytest.mark.parametrize(
    "remark",
    [
        r"\boxed{A}",
        r"So \boxed{ B }",
        "<answer>A</answer>",
        "select_frames([1])",
        "<tool_call>",
        "</tool_call>",
        "select_frames([1",
    ],
)
def test_what_acts(remark: str) -> None:
    assert acts(remark, "B")


@pytest.mark.parametrize("remark", ["", "I will zoom in.", "a < b", "{}", "a crop_image of a box"])
def test_what_does_not_act(remark: str) -> None:
    assert not acts(remark, "B")
