"""What the micro base can do, skill by skill, measured on test draws with free generation.

python -m agents.micro_probe agents/micro_base --n 256
"""

import argparse
import json
import re
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch

import pixel_env  # noqa: F401  (registers the environments)
from agents import micro, micro_lessons
from agents.conversation import ChatEncoder, patchify
from agents.micro_lessons import Lesson, Shot, closeup_region, take, things, whole
from pixel_env.tasks import ProceduralTasks, Task
from pixel_env.tasks.world import shuffled

Prompt = tuple[list[int], list[np.ndarray]]


@torch.no_grad()
def generate(
    model: Any, processor: Any, prompts: Sequence[Prompt], sample: bool = False, new_tokens: int = 60
) -> list[str]:
    """Continue each prompt (ids, views), greedily or at temperature 1."""
    encoder, texts = ChatEncoder(processor), []
    pad, device = processor.tokenizer.pad_token_id, model.device
    for start in range(0, len(prompts), 64):
        part = prompts[start : start + 64]
        length = max(len(ids) for ids, _ in part)
        ids = torch.tensor([[pad] * (length - len(one)) + one for one, _ in part], device=device)
        mask = torch.tensor([[0] * (length - len(one)) + [1] * len(one) for one, _ in part], device=device)
        pixels, grid = patchify([image for _, images in part for image in images], processor.image_processor)
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            mm_token_type_ids=(ids == encoder.image_pad).int(),
            pixel_values=pixels.to(device),
            image_grid_thw=grid.to(device),
            max_new_tokens=new_tokens,
            do_sample=sample,
            suppress_tokens=[encoder.image_pad, encoder.video_pad],
        )
        texts += processor.tokenizer.batch_decode(output[:, length:], skip_special_tokens=True)
    return texts


def first_turn(encoder: ChatEncoder, lesson: Lesson) -> Prompt:
    """The prompt of a lesson's first turn."""
    turn = lesson.turns[0]
    images = [picture.draw() for picture in turn.images]
    return encoder.prompt(lesson.system, turn.text.replace("{number}", "1", 1), images), images


def closeups(rng: np.random.Generator, count: int, skill: str, level: int) -> list[Lesson]:
    """Lessons of one reading skill on close-ups of test pictures."""
    suite = {"read": "search", "string": "read", "tally": "count"}[skill]
    tasks, found = ProceduralTasks((suite,), "test", level, "micro"), []
    for task in (tasks[i] for i in range(len(tasks))):
        canvas = task.media.canvases[0]  # type: ignore[attr-defined]
        usable = [
            t for t in things(canvas) if t.name != "title" and (t.dots is not None if skill == "tally" else t.text)
        ]
        for thing in shuffled(rng, usable)[:1]:
            shot = take(canvas, closeup_region(rng, canvas, thing.box), closeup=True)
            same = next(t for t in shot.things if t.name == thing.name)
            if skill == "tally" and same.box[2] - same.box[0] > 30:
                found.append(micro_lessons.about(shot, [(*micro_lessons.tally(rng, same), skill)]))
            elif skill != "tally" and same.text_height >= micro_lessons.LEGIBLE:
                found.append(micro_lessons.about(shot, [(*micro_lessons.read(rng, same), skill)]))
        if len(found) == count:
            return found
    raise AssertionError("the task set is larger than any probe")


def grounding(
    encoder: ChatEncoder, model: Any, processor: Any, rng: np.random.Generator, count: int, level: int
) -> float:
    """Share of queries whose target lies wholly in a ninth of the view around the middle of the predicted box."""
    tasks = ProceduralTasks(("search", "count", "read"), "test", level, "micro")
    asked: list[tuple[Shot, Any, Lesson]] = []
    for task in (tasks[i] for i in range(count)):
        canvas = task.media.canvases[0]  # type: ignore[attr-defined]
        shot = take(canvas, whole(canvas))
        names = [t.name for t in shot.things]
        thing = shuffled(rng, [t for t in shot.things if t.name != "title" and names.count(t.name) == 1])[0]
        asked.append((shot, thing, micro_lessons.about(shot, [(*micro_lessons.ground(rng, [thing]), "ground")])))
    hits = 0
    answers = generate(model, processor, [first_turn(encoder, lesson) for _, _, lesson in asked])
    for (shot, thing, _), text in zip(asked, answers, strict=True):
        numbers = [int(v) for v in re.findall(r"\d{1,4}", text.partition("[")[2])]
        if len(numbers) == 4:
            width, height = shot.picture.size
            x, y = (numbers[0] + numbers[2]) / 2, (numbers[1] + numbers[3]) / 2
            x1, y1, x2, y2 = thing.box
            hits += x - width / 6 <= x1 and x2 <= x + width / 6 and y - height / 6 <= y1 and y2 <= y + height / 6
    return hits / count


def direct(encoder: ChatEncoder, model: Any, processor: Any, count: int, needs: bool, level: int) -> float:
    """Share of right answers to test questions asked on the first view without functions on offer."""
    tasks = ProceduralTasks(("search", "count", "read", "clip"), "test", level, "micro")
    rng = np.random.default_rng(0)
    chosen: list[Task] = []
    prompts: list[Prompt] = []
    for task in (tasks[i] for i in range(8 * count)):
        if task.needs_operation != needs or len(chosen) == count:
            continue
        if task.suite == "clip":
            lesson = micro_lessons.clip_lesson(rng, task)
            turn = next((t for t in lesson.turns if t.skill in ("answer", "guess")), None)
            if turn is None or lesson.turns[0] is not turn or lesson.system:
                continue
        else:
            canvas = task.media.canvases[0]  # type: ignore[attr-defined]
            shot = take(canvas, whole(canvas))
            lesson = micro_lessons.about(shot, [(micro_lessons.question_text(task), "", "answer")])
        chosen.append(task)
        prompts.append(first_turn(encoder, lesson))
    answers = generate(model, processor, prompts)
    return sum(f"boxed{{{t.answers[0]}}}" in a for t, a in zip(chosen, answers, strict=True)) / len(chosen)


def offered(encoder: ChatEncoder, model: Any, processor: Any, count: int) -> tuple[float, list[str]]:
    """Share of samples at temperature 1 that call a function in the environment's own prompt, and the first texts."""
    env = gymnasium.make("PixelReason-Mixed-v0", preset="micro", split="test", difficulty=(1, 2))
    prompts = []
    for index in range(count):
        observation, info = env.reset(seed=0, options={"task": index})
        ids = encoder.prompt(info["instructions"], observation["text"], observation["images"])
        prompts.append((ids, list(observation["images"])))
    texts = generate(model, processor, prompts, sample=True)
    return sum("<tool_call>" in text for text in texts) / count, texts[:12]


def probe(model: Any, processor: Any, n: int = 128, seed: int = 0) -> dict[str, float]:
    """All figures of the base as a flat dictionary."""
    rng, encoder = np.random.default_rng(seed), ChatEncoder(processor)
    model.eval()
    figures = {}
    for skill in ("read", "string", "tally"):
        for level in (1, 2):
            lessons = closeups(rng, n, skill, level)
            answers = generate(model, processor, [first_turn(encoder, one) for one in lessons], new_tokens=32)
            right = sum(a == one.turns[0].answer for a, one in zip(answers, lessons, strict=True))
            figures[f"{skill} level {level}"] = right / n
    for level in (1, 2):
        figures[f"ground level {level}"] = grounding(encoder, model, processor, rng, n, level)
        figures[f"first view, no operation needed, level {level}"] = direct(encoder, model, processor, n, False, level)
        figures[f"first view, operation needed, level {level}"] = direct(encoder, model, processor, n, True, level)
    figures["calls when offered"], texts = offered(encoder, model, processor, n)
    figures = {name: round(value, 3) for name, value in figures.items()}
    print("\n".join(texts))
    model.train()
    return figures


def main() -> None:
    """Probe a directory."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="Hugging Face directory of a micro Qwen2.5-VL")
    parser.add_argument("--n", type=int, default=128, help="queries a skill")
    args = parser.parse_args()
    processor = micro.load_processor(args.model)
    model = micro.load_model(args.model)
    print(json.dumps(probe(model, processor, args.n), indent=1))


if __name__ == "__main__":
    main()
