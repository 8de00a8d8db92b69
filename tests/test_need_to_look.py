"""What the reader of `benchmarks/need_to_look.py` is shown, and how its answers are counted."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import pixel_env  # noqa: F401
from benchmarks import need_to_look
from benchmarks.need_to_look import chance, correct, measure, observation, table
from pixel_env.policies import gold
from pixel_env.rollout import Conversation, Episode


class Reader:
    """Knows the answer, and gives it if it sees something: `sees` decides from the images."""

    def __init__(self, tasks: Any, sees: Any) -> None:
        self.tasks, self.sees, self.asked = tasks, sees, list[Conversation]()

    def act(self, conversations: Any) -> list[str]:
        self.asked += conversations
        return [
            rf"\boxed{{{gold(self.tasks[self.tasks.index(c.task_id)])}}}" if self.sees(c) else "I cannot see it."
            for c in conversations
        ]


def tasks_of(suite: str) -> Any:
    env = gym.make("PixelReason-Mixed-v0", suite=suite, difficulty=1, preset="micro", split="test")
    return env.unwrapped.tasks  # type: ignore[attr-defined]


@pytest.mark.parametrize("suite", ["search", "clip"])
def test_the_three_sights(suite: str) -> None:
    episode = Episode(gym.make("PixelReason-Mixed-v0", suite=suite, difficulty=1, preset="micro", split="test"))
    tasks = episode.env.unwrapped.tasks  # type: ignore[attr-defined]
    index = next(k for k in range(50) if tasks[k].needs_operation)
    shown = {}
    for sight in need_to_look.SIGHTS:
        episode.reset(index, seed=0)
        shown[sight] = observation(episode, tasks[index], sight)
        assert shown[sight]["text"].count("<image>") == len(shown[sight]["images"]) > 0
        assert tasks[index].question in shown[sight]["text"] and "tool" not in shown[sight]["text"]
    assert all((image == 128).all() for image in shown["nothing"]["images"])
    first = episode.conversation.observations[0]["images"]
    assert all(map(np.array_equal, shown["first view"]["images"], first))
    assert len(shown["evidence"]["images"]) <= len(first)
    assert not np.array_equal(shown["evidence"]["images"][0], first[0])


def test_a_reader_that_needs_the_evidence() -> None:
    tasks = tasks_of("search")
    first_views = {}
    episode = Episode(gym.make("PixelReason-Mixed-v0", suite="search", difficulty=1, preset="micro", split="test"))
    for k in range(24):
        episode.reset(k, seed=0)
        first_views[tasks[k].task_id] = episode.conversation.observations[0]["images"][0]

    def sees(asked: Conversation) -> bool:
        (image,) = asked.observations[0]["images"]
        first = first_views[asked.task_id]
        if tasks[tasks.index(asked.task_id)].needs_operation:
            return not (image == 128).all() and not np.array_equal(image, first)
        return np.array_equal(image, first)

    needed, easy = measure(Reader(tasks, sees), "search", 1, 24, "micro")  # type: ignore[arg-type]
    assert needed["tasks"] + easy["tasks"] == 24 and min(needed["tasks"], easy["tasks"]) > 0
    assert [needed[sight][0] for sight in need_to_look.SIGHTS] == [0, 0, 1]
    assert (easy["nothing"][0], easy["first view"][0]) == (0, 1) and "evidence" not in easy
    lines = table([needed, easy]).split("\n")
    assert len(lines) == 4 and "| needed |" in lines[2] and "| 100 [" in lines[2]


def test_chance_is_that_of_choices_and_of_the_commonest_answer() -> None:
    count = [task for task in (tasks_of("count")[k] for k in range(60)) if not task.choices]
    answers = [task.answers[0] for task in count]
    assert chance(count) == pytest.approx(max(map(answers.count, answers)) / len(answers))
    task = count[0]
    assert correct(task, rf"So \boxed{{{task.answers[0]}}}")
    assert not correct(task, "no box") and not correct(task, r"\boxed{none}")
