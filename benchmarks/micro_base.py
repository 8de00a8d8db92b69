"""What the micro base can do, skill by skill, on test draws with free generation, and how it learned it.

python benchmarks/micro_base.py                       # the base that is shipped, some minutes on two cores
python benchmarks/micro_base.py --log runs/micro_base/log.json      # with the curves of its training
"""

import argparse
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import matplotlib
import numpy as np
import torch

import pixel_env  # noqa: F401  (registers the environments)
from agents import micro, micro_lessons
from agents.boxes import inside
from agents.conversation import ChatEncoder, patchify
from agents.micro_lessons import Lesson, Shot, closeup_region, take, things, whole
from agents.reasons import Thing
from benchmarks.provenance import RESULTS, provenance, readable
from pixel_env.evaluation import wilson
from pixel_env.tasks import ProceduralTasks, Task
from pixel_env.tasks.world import shuffled

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from pixel_env.journal import replace_text, replacing

Prompt = tuple[list[int], list[np.ndarray]]
LEVELS = (1, 2)
SKILLS = {"read": "characters in close-ups", "string": "strings in close-ups", "tally": "dots in close-ups"}
"""Skill of `closeups`: its name in the table."""
NO_SHARES = ("loss", "sides")
"""What is logged and is no share: the loss, and by how many pixels the sides of boxes are off."""
CANDIDATES = ((1, 4), (5, 8))
"""Fewest and most things in a view in which one is to be found."""


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


def closeups(rng: np.random.Generator, count: int, skill: str, level: int | tuple[int, ...]) -> list[Lesson]:
    """Lessons of one reading skill on close-ups of test pictures."""
    suite = {"read": "search", "name": "search", "string": "read", "tally": "count"}[skill]
    tasks, found = ProceduralTasks((suite,), "test", level, "micro"), []
    for task in (tasks[i] for i in range(len(tasks))):
        canvas = task.media.canvases[0]  # type: ignore[attr-defined]
        usable = [
            t for t in things(canvas) if t.name != "title" and (t.dots is not None if skill == "tally" else t.text)
        ]
        for thing in shuffled(rng, usable)[:1]:
            shot = take(canvas, closeup_region(rng, canvas, thing.box), closeup=True)
            same = next(t for t in shot.things if t.name == thing.name)
            if skill == "name":
                if [t for t in shot.things if shot.visible(t)] == [same]:
                    found.append(micro_lessons.about(shot, [(*micro_lessons.describe(shot), skill)]))
            elif skill == "tally":
                if same.box[2] - same.box[0] > 30:
                    found.append(micro_lessons.about(shot, [(*micro_lessons.tally(rng, same), skill)]))
            elif same.text_height >= micro_lessons.LEGIBLE:
                found.append(micro_lessons.about(shot, [(*micro_lessons.read(rng, same), skill)]))
        if len(found) == count:
            return found
    raise AssertionError("the task set is larger than any probe")


def grounding(
    encoder: ChatEncoder, model: Any, processor: Any, rng: np.random.Generator, count: int, candidates: tuple[int, int]
) -> float:
    """Share of queries whose target lies wholly in the predicted box, scaled to a ninth of the view's area."""
    tasks = ProceduralTasks(("search", "count", "read"), "test", (1, 2, 3), "micro")
    asked: list[tuple[Shot, Thing, Lesson]] = []
    for task in (tasks[i] for i in itertools.count()):
        if len(asked) == count:
            break
        canvas = task.media.canvases[0]  # type: ignore[attr-defined]
        shot = take(canvas, whole(canvas))
        known = [t for t in shot.askable() if t.name != "title"]
        if known and candidates[0] <= sum(t.name != "title" for t in shot.things) <= candidates[1]:
            thing = shuffled(rng, known)[0]
            asked.append((shot, thing, micro_lessons.about(shot, [(*micro_lessons.ground(rng, [thing]), "ground")])))
    answers = generate(model, processor, [first_turn(encoder, lesson) for _, _, lesson in asked])
    return sum(holds(text, shot, thing) for (shot, thing, _), text in zip(asked, answers, strict=True)) / count


def holds(text: str, shot: Shot, thing: Thing) -> bool:
    """Whether the first box of a text, scaled about its middle to a ninth of the view's area, holds all of a thing."""
    numbers = [int(v) for v in re.findall(r"\d{1,4}", text.partition("[")[2])][:4]
    if len(numbers) < 4 or numbers[2] <= numbers[0] or numbers[3] <= numbers[1]:
        return False
    left, top, right, bottom = numbers
    width, height = right - left, bottom - top
    scale = (shot.picture.size[0] * shot.picture.size[1] / 9 / (width * height)) ** 0.5
    x, y, w, h = (left + right) / 2, (top + bottom) / 2, scale * width / 2, scale * height / 2
    return inside(thing.box, (x - w, y - h, x + w, y + h))


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


def probe(model: Any, processor: Any, n: int, seed: int = 0) -> tuple[dict[str, float], list[str]]:
    """Share of right answers of each skill over `n` queries, and some texts written with the operations on offer."""
    rng, encoder = np.random.default_rng(seed), ChatEncoder(processor)
    model.eval()
    shares = {}
    for skill, name in SKILLS.items():
        for level in LEVELS:
            lessons = closeups(rng, n, skill, level)
            answers = generate(model, processor, [first_turn(encoder, one) for one in lessons], new_tokens=32)
            right = sum(a == one.turns[0].answer for a, one in zip(answers, lessons, strict=True))
            shares[f"{name}, level {level}"] = right / n
    lessons = closeups(rng, n, "name", LEVELS)
    answers = generate(model, processor, [first_turn(encoder, one) for one in lessons], new_tokens=32)
    named = [(one.turns[0].answer.split(), a.split()) for one, a in zip(lessons, answers, strict=True)]
    for word, attribute in enumerate(("colours", "shapes"), 1):  # "the red star"
        shares[f"{attribute} in close-ups"] = sum(a[word : word + 1] == [want[word]] for want, a in named) / n
    for fewest, most in CANDIDATES:
        share = grounding(encoder, model, processor, rng, n, (fewest, most))
        shares[f"box holds the thing, {fewest} to {most} candidates"] = share
    for level in LEVELS:
        shares[f"first view, enough, level {level}"] = direct(encoder, model, processor, n, False, level)
        shares[f"first view, not enough, level {level}"] = direct(encoder, model, processor, n, True, level)
    shares["operations called when offered"], texts = offered(encoder, model, processor, n)
    return shares, texts


Curves = dict[str, dict[str, list[list[float]]]]
"""Stage of the training: skill: [step, running mean over training batches], as often as it was logged."""


def curves(log: Sequence[dict[str, Any]]) -> Curves:
    """The log of `agents/pretrain_micro.py`, skill by skill.

    >>> curves([{"stage": "fit", "explained": 0.6}, {"stage": "speak", "step": 50, "loss": 2.0, "read": 0.25}])
    {'speak': {'loss': [[50, 2.0]], 'read': [[50, 0.25]]}}
    """
    found: Curves = {}
    for row in log:
        for name, value in row.items():
            if name not in ("stage", "step") and "step" in row:
                found.setdefault(row["stage"], {}).setdefault(name, []).append([row["step"], value])
    return found


def draw(found: Curves, path: Path) -> None:
    """One axis a skill; the stages follow each other, each in a colour of its own."""
    skills = list(dict.fromkeys(name for stage in found.values() for name in stage))
    rows = -(-len(skills) // 5)
    figure, axes = plt.subplots(rows, 5, figsize=(15, 2.2 * rows), sharex=True, squeeze=False)
    of = dict(zip(skills, axes.flat, strict=False))
    for axis in axes.flat[len(skills) :]:
        axis.set_axis_off()
    before = 0.0
    for number, (stage, measured) in enumerate(found.items()):
        for name, points in measured.items():
            steps, values = zip(*points, strict=True)
            of[name].plot([before + step for step in steps], values, f"C{number}", label=stage)
        before += max(points[-1][0] for points in measured.values())
    for name, axis in of.items():
        axis.set_title(name, fontsize=9)
        axis.set_ylim(0, None if name in NO_SHARES else 1)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.supxlabel("step", fontsize=9)
    figure.tight_layout()
    with replacing(path) as part:
        figure.savefig(part, dpi=80, format=path.suffix[1:])
    plt.close(figure)


def main() -> None:
    """Measure, print the table, write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    base = Path(__file__).parents[1] / "agents" / "micro_base"
    parser.add_argument("--model", default=str(base), help="folder of a micro Qwen2.5-VL (agents/micro_base)")
    parser.add_argument("--n", type=int, default=256, help="queries a skill and level (%(default)s)")
    parser.add_argument("--log", type=Path, help="log.json of its pretraining: adds its curves, and draws them beside")
    parser.add_argument("--out", type=Path, default=RESULTS / "micro_base.json", help="JSON file to write")
    arguments = parser.parse_args()
    about = provenance(("pixel-env", "torch", "transformers"))
    learned = curves(json.loads(arguments.log.read_text())) if arguments.log else {}
    processor = micro.load_processor(arguments.model)
    shares, texts = probe(micro.load_model(arguments.model), processor, arguments.n)
    intervals = {name: wilson(share, arguments.n) for name, share in shares.items()}
    results = {name: [round(v, 3) for v in (i.mean, i.low, i.high)] for name, i in intervals.items()}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    written = about | {"model": Path(arguments.model).name, "n": arguments.n, "results": results, "texts": texts}
    replace_text(arguments.out, readable(written | {"curves": learned}))
    if learned:
        draw(learned, arguments.out.with_suffix(".png"))
    print("| skill | percent, 95% |\n|---|---:|")
    print("\n".join(f"| {name} | {interval} |" for name, interval in intervals.items()))


if __name__ == "__main__":
    main()
