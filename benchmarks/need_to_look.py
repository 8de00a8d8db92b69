"""How much a suite asks for looking: what a reader answers that sees nothing, the first view, or the evidence.

    python benchmarks/need_to_look.py                     # the micro base on all suites and levels

The reader is asked once, without operations on offer. It sees a grey picture in place of the first view ("nothing"),
the first view, or what the oracle looks at ("evidence"). A suite measures looking where, on tasks that need an
operation, the first view is hardly better than chance and the evidence is enough. Chance: one in the number of choices;
without choices the share of the most frequent answer.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

import pixel_env  # noqa: F401  (registers the ids)
from agents.micro_lessons import question_text
from agents.vlm_policy import VLMPolicy
from benchmarks.provenance import RESULTS, provenance
from pixel_env import prompts
from pixel_env.actions import Answer, SelectFrames, parse
from pixel_env.env import Observation
from pixel_env.evaluation import wilson
from pixel_env.grading import grade
from pixel_env.journal import replace_text
from pixel_env.policies import OraclePolicy
from pixel_env.rollout import Conversation, Episode
from pixel_env.tasks import DEFAULT_LEVELS, LEVELS, SUITES, Task

SIGHTS = ("nothing", "first view", "evidence")
MARGIN = 0.3
"""Around the evidence, in its width and height."""
GREY = 128


def observation(episode: Episode, task: Task, sight: str) -> Observation:
    """What the reader sees of the task that an episode has just begun, and the question."""
    env: Any = episode.env.unwrapped
    images: tuple[np.ndarray, ...] = tuple(episode.conversation.observations[0]["images"])
    frames = range(len(images))
    if sight == "evidence":
        action = OraclePolicy(env.tasks, margin=MARGIN).act([episode.conversation])[0]
        call = parse(action)
        episode.step(action)
        images = tuple(episode.conversation.observations[-1]["images"])
        frames = call.frames if isinstance(call, SelectFrames) else frames  # type: ignore[assignment]
    height, width, _ = images[0].shape
    if task.media.kind == "image":
        seen = prompts.image_line(0, (width, height))
    else:
        seconds = {k: task.media.timestamp(env.shown[k].frame) for k in frames}
        seen = "\n".join(f"Frame {k + 1} ({at:.1f} s): {prompts.IMAGE_MARKER}" for k, at in seconds.items())
        if sight != "evidence":
            seen = prompts.video_lines(list(seconds.values()), (width, height))
    if sight == "nothing":
        images = tuple(np.full_like(image, GREY) for image in images)
    return {"text": f"{seen}\n{question_text(task)}", "images": images}


def chance(tasks: Sequence[Task]) -> float:
    """Share of tasks that a guess gets right.

    >>> from pixel_env.tasks import ProceduralTasks
    >>> tasks = ProceduralTasks(("search",))
    >>> where = next(task for task in tasks if task.question.startswith("Where is"))
    >>> len(where.choices), chance([where])
    (4, 0.25)
    """
    free = Counter(task.answers[0] for task in tasks if not task.choices)
    best = max(free.values(), default=0)
    return (sum(1 / len(task.choices) for task in tasks if task.choices) + best) / len(tasks)


def correct(task: Task, text: str) -> bool:
    """Whether what the reader wrote holds the right answer."""
    action = parse(text)
    return isinstance(action, Answer) and grade(task, action.text).correct


def measure(policy: VLMPolicy, suite: str, level: int, count: int, preset: str) -> list[dict[str, Any]]:
    """Rows for the tasks that need an operation and for the others."""
    episode = Episode(gym.make("PixelReason-Mixed-v0", suite=suite, difficulty=level, preset=preset, split="test"))
    tasks = [episode.env.unwrapped.tasks[k] for k in range(count)]  # type: ignore[attr-defined]
    right: dict[str, list[bool]] = {}
    for sight in SIGHTS:
        asked = []
        for k, task in enumerate(tasks):
            episode.reset(k, seed=0)
            # Where the first view is enough, it is all the evidence that there is.
            seen = "first view" if sight == "evidence" and not task.needs_operation else sight
            asked.append(Conversation(task.task_id, "", [observation(episode, task, seen)]))
        right[sight] = [correct(task, text) for task, text in zip(tasks, policy.act(asked), strict=True)]
    rows = []
    for needs in (True, False):
        chosen = [k for k, task in enumerate(tasks) if task.needs_operation is needs]
        row: dict[str, Any] = {"suite": suite, "level": level, "needs_operation": needs, "tasks": len(chosen)}
        row["chance"] = round(chance([tasks[k] for k in chosen]), 3)
        for sight in SIGHTS if needs else SIGHTS[:2]:
            share = wilson(float(np.mean([right[sight][k] for k in chosen])), len(chosen))
            row[sight] = [round(value, 3) for value in (share.mean, share.low, share.high)]
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, percent with 95% intervals."""
    lines = [
        "| suite | level | operation | tasks | chance | nothing | first view | evidence |",
        "|---|---|---|---" + "|---:" * 4 + "|",
    ]
    for row in rows:
        cells = [
            "{:.0f} [{:.0f}, {:.0f}]".format(*(100 * v for v in row[sight])) if sight in row else "" for sight in SIGHTS
        ]
        needed = "needed" if row["needs_operation"] else "not needed"
        first = f"{row['suite']} | {row['level']} | {needed} | {row['tasks']} | {100 * row['chance']:.0f}"
        lines.append(f"| {first} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    base = Path(__file__).parents[1] / "agents" / "micro_base"
    parser.add_argument("--model", default=str(base), help="the reader, any Qwen2.5-VL (agents/micro_base)")
    parser.add_argument("--suites", nargs="+", choices=tuple(SUITES), default=tuple(SUITES), help="(all)")
    parser.add_argument("--levels", nargs="+", type=int, choices=LEVELS, default=DEFAULT_LEVELS, help="(1 2 3)")
    parser.add_argument("--preset", default="micro", help="size of the pictures (%(default)s)")
    parser.add_argument("--tasks", type=int, default=256, help="test tasks a suite and level (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "need_to_look.json", help="JSON file to write")
    arguments = parser.parse_args()
    about = provenance(("pixel-env", "torch", "transformers"))
    policy = VLMPolicy.from_pretrained(arguments.model, max_new_tokens=80)
    pairs = [(suite, level) for suite in arguments.suites for level in arguments.levels]
    rows: list[dict[str, Any]] = []
    for suite, level in tqdm(pairs, unit="level"):
        rows += measure(policy, suite, level, arguments.tasks, arguments.preset)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    written = about | {"model": Path(arguments.model).name, "results": rows}
    replace_text(arguments.out, json.dumps(written, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
