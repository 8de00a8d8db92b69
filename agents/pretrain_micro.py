"""Make the micro base: the tower learns what is under each image token, the text model to look up, both to converse.

    python agents/pretrain_micro.py --out runs/micro_base        # resumes where it was stopped

Simplified against real pretraining: pictures are procedural, language is a few templates, and the vision tower starts
from dense labels instead of contrastive captions. What the base must not learn is listed in `agents.micro_lessons`.
"""

import argparse
import json
import math
import time
from collections import defaultdict
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from agents import micro, micro_lessons, micro_sheets
from agents.conversation import ChatEncoder, Tokens, patchify
from agents.micro_lessons import CLIP_TASKS, IMAGE_TASKS, PIXELS, Lesson, closeup_region
from agents.micro_seeing import WORDS, Labels, TokenReader, dense_labels
from agents.micro_sheets import DRILLS
from pixel_env.media import MAX_ENLARGEMENT, Box, view, view_size
from pixel_env.tasks import DrawnSource
from pixel_env.tasks.drawing import Canvas
from pixel_env.tasks.scenes import TRAY_SHAPES
from pixel_env.tasks.world import pick, shuffled

SKILL_WEIGHT: dict[str, float] = defaultdict(lambda: 1.0, {"guess": 0.3, "frames": 0.7, "call": 0.5, "describe": 0.7})
WORD_WEIGHT = 0.1
"""Of a word in an answer, where characters and digits weigh 1: they are what was looked up."""
BARE = 0.4
"""Share of the drills with pictures and answers, without questions; the tower rests meanwhile."""
DRILL_SHARES = (0.3, 0.34, 0.14, 0.14, 0.02, 0.06)
SEEING_WEIGHT = 0.5
"""Of the loss on image tokens beside that on answers: the tower goes on learning to see in all stages."""
STAGES = ("see", "drill", "speak")


# --- stage 1: seeing ------------------------------------------------------------------------------------------------

SHEETS = (*[micro_sheets.character_sheet] * 3, micro_sheets.string_sheet, lambda rng: micro_sheets.dot_sheet(rng)[0])


def seeing_batch(
    seed: int, count: int, sheets: float, only_characters: bool = False
) -> tuple[list[np.ndarray], list[Labels]]:
    """`count` views with the dense labels of all their tokens: a share of sheets, the rest pictures and close-ups."""
    rng = np.random.default_rng([seed, 1])
    shown: list[tuple[Canvas, Box]] = []
    while len(shown) < count:
        if rng.random() < sheets:
            canvas = pick(rng, SHEETS[:1] if only_characters else SHEETS)(rng)
            shown.append((canvas, _whole(canvas)))
            continue
        if rng.random() < 0.2:
            clip = CLIP_TASKS[int(rng.integers(len(CLIP_TASKS)))]
            canvas = clip.media.canvases[clip.cue.frames[0]]  # type: ignore[union-attr, attr-defined]
        else:
            canvas = IMAGE_TASKS[int(rng.integers(len(IMAGE_TASKS)))].media.canvases[0]  # type: ignore[attr-defined]
        marks = [m for m in canvas.marks if m.text or (m.kind in TRAY_SHAPES and m.box[2] - m.box[0] > 40)]
        regions = [closeup_region(rng, canvas, m.box) for m in shuffled(rng, marks)[:3]]
        shown += [(canvas, region) for region in [_whole(canvas), *regions]]
    images, labels = [], []
    for canvas, region in shown[:count]:
        size = view_size(region[2] - region[0], region[3] - region[1], PIXELS, micro.FACTOR, MAX_ENLARGEMENT)
        images.append(view(DrawnSource((canvas,)).frame(0), region, size))
        labels.append(dense_labels(canvas, region, size))
    if only_characters:
        labels = [{"glyph": one["glyph"]} for one in labels]
    return images, labels


def _whole(canvas: Canvas) -> Box:
    return (0.0, 0.0, float(canvas.width), float(canvas.height))


# --- stages 2 and 3: speaking ---------------------------------------------------------------------------------------


@dataclass
class Example(Tokens):
    """A tokenised sequence of lessons; for each answer its span and skill, for each image its labels.

    Each token has a weight in the loss, 0 outside answers.
    """

    weights: list[float] = field(default_factory=list)
    spans: list[tuple[int, int, str]] = field(default_factory=list)
    labels: list[Labels] = field(default_factory=list)


def encode(encoder: ChatEncoder, lessons: list[Lesson]) -> Example:
    """Lessons one after another in one conversation, images numbered as they come."""
    example, shown = Example(), 0
    values = {encoder.text(character)[0] for character in WORDS["glyph"]}
    for lesson in lessons:
        if lesson.system:
            example.add(encoder.message("system", encoder.text(lesson.system)), 0)
        for turn in lesson.turns:
            text = turn.text.replace("{number}", str(shown + 1), 1) if turn.images else turn.text
            shown += len(turn.images)
            example.add(encoder.message("user", encoder.observation(text, turn.images)) + encoder.cue, 0, turn.images)
            example.labels += turn.labels
            start = len(example.ids)
            example.add([*encoder.text(turn.answer), encoder.end], 1)
            example.spans.append((start, len(example.ids), turn.skill))
            example.add(encoder.text("\n"), 0)
    example.weights = [0.0] * len(example.ids)
    for start, end, skill in example.spans:
        telling = [token in values for token in example.ids[start:end]]
        for k, tells in enumerate(telling, start):
            example.weights[k] = SKILL_WEIGHT[skill] * (1.0 if tells or not any(telling) else WORD_WEIGHT)
    return example


def drills(rng: np.random.Generator, count: int) -> list[Lesson]:
    """`count` sheets of all kinds."""
    return [DRILLS[kind](rng) for kind in rng.choice(len(DRILLS), size=count, p=DRILL_SHARES)]


def drill_batch(seed: int, count: int, done: float) -> list[list[Lesson]]:
    """Sequences of sheets, `count` sheets in all or a few more, a function of the seed.

    Args:
        seed: Draws everything.
        count: Sheets.
        done: Share of the stage that is done. Begins with one sheet of characters a sequence, its things named in any
            order, then of boxes too: a fresh language model learns within some hundred steps to look things up by name,
            and one that has learned to guess never does. Goes on, from `BARE`, with sheets of all kinds, up to three a
            sequence, some behind a system text: drilled at one place, the skill stays there.
    """
    rng = np.random.default_rng([seed, 3])
    if done < BARE:
        boxes = 0.0 if done < BARE / 2 else 0.5
        drawn = [micro_sheets.box_drill if rng.random() < boxes else micro_sheets.character_drill for _ in range(count)]
        return [[drill(rng, bare=True)] for drill in drawn]
    batch: list[list[Lesson]] = []
    while sum(map(len, batch)) < count:
        lessons = drills(rng, int(rng.integers(1, 4)))
        if rng.random() < 0.3:
            lessons[0] = replace(lessons[0], system=micro_lessons.offer(rng)[0])
        batch.append(lessons)
    return batch


def speaking_batch(seed: int, count: int, clip_share: float, sheet_share: float) -> list[list[Lesson]]:
    """`count` sequences of lessons, a share of them sheets, the rest pictures and clips, a function of the seed."""
    rng = np.random.default_rng([seed, 2])
    sheets = [drills(rng, 2) for _ in range(int(rng.binomial(count, sheet_share)))]
    return sheets + micro_lessons.sequences(rng, (IMAGE_TASKS, CLIP_TASKS), count - len(sheets), clip_share)


def collate(examples: list[Example], pad: int, image_pad: int, image_processor: Any) -> dict[str, torch.Tensor]:
    """Right-padded ids, labels, per-token weights and the patches of all images."""
    length = max(len(e.ids) for e in examples)
    ids = torch.full((len(examples), length), pad)
    weights = torch.zeros(len(examples), length)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        weights[row, : len(example.ids)] = torch.tensor(example.weights)
    batch = {"input_ids": ids, "attention_mask": (ids != pad).long(), "weights": weights}
    if images := [image for e in examples for image in e.images]:
        batch["mm_token_type_ids"] = (ids == image_pad).int()
        batch["pixel_values"], batch["image_grid_thw"] = patchify(images, image_processor)
    return batch


def speaking_loss(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Weighted sum of the cross-entropies of the answers, which answer tokens were predicted, and the image tokens.

    Returns:
        The sum, a scalar; (B, T - 1) bool, True where a token is no answer or was predicted; (image tokens, hidden),
        None where there are no images.
    """
    weights = batch.pop("weights")[:, 1:]
    tokens = None
    if "pixel_values" in batch:
        seen = model.model.get_image_features(batch.pop("pixel_values"), batch["image_grid_thw"], return_dict=True)
        tokens, batch["mm_encoder_outputs"] = torch.cat(seen.pooler_output), {"image": seen}  # type: ignore[assignment]
    hidden = model.model(**batch, use_cache=False).last_hidden_state[:, :-1]
    targets, chosen = batch["input_ids"][:, 1:], weights > 0
    logits = model.lm_head(hidden[chosen])
    losses = nn.functional.cross_entropy(logits, targets[chosen], reduction="none")
    hits = torch.ones_like(chosen)
    hits[chosen] = logits.argmax(-1) == targets[chosen]
    return (losses * weights[chosen]).sum(), hits, tokens


# --- the run --------------------------------------------------------------------------------------------------------


@dataclass
class State:
    """What a checkpoint holds besides tensors."""

    stage: str = "see"
    step: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 100 steps, then cosine down to a twentieth."""
    return peak * min(1.0, (step + 1) / 100) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


class Pretraining:
    """The stages with their optimizer, log and checkpoint."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.args, self.out = args, Path(args.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        phrases = [*micro.fixed_phrases(), *micro_lessons.FUNCTION_TEXTS]
        self.processor = micro.build_processor(micro_lessons.corpus(), phrases)
        self.encoder = ChatEncoder(self.processor)
        self.model = micro.build_model(self.processor).to(self.device)
        words = {name: [self._token(word) for word in some] for name, some in WORDS.items()}
        self.reader = TokenReader(self.model.get_input_embeddings(), words).to(self.device)
        self.optimizer = self._optimizer(1e-3)
        self.state = State()
        self.averages: dict[str, float] = {}
        self.checkpoint = self.out / "checkpoint.pt"
        if self.checkpoint.exists():
            self._resume()
        elif args.start:
            self.model.load_state_dict(micro.load_model(args.start).state_dict())
            self.state = State(stage="drill", step=args.drill_steps)  # what is left is the last stage

    def _token(self, word: str) -> int:
        ids = self.encoder.text(word)
        assert len(ids) == 1, f"{word!r} is not one token"
        return ids[0]

    def _optimizer(self, vision_lr: float) -> torch.optim.AdamW:
        vision = list(self.model.model.visual.parameters()) + list(self.reader.parameters())
        text = [p for n, p in self.model.named_parameters() if "visual" not in n]
        groups = [{"params": vision, "peak": vision_lr}, {"params": text, "peak": self.args.lr}]
        return torch.optim.AdamW(groups, lr=0.0, weight_decay=0.02, betas=(0.9, 0.98))

    def _resume(self) -> None:
        saved = torch.load(self.checkpoint, map_location=self.device, weights_only=False)
        self.state = State(**saved["state"])
        self.model.load_state_dict(saved["model"])
        self.reader.load_state_dict(saved["reader"])
        if self.state.stage != "see":
            self.optimizer = self._optimizer(self.args.vision_lr)
        self.optimizer.load_state_dict(saved["optimizer"])
        print(f"resumed {self.checkpoint} at stage {self.state.stage}, step {self.state.step}", flush=True)

    def run(self) -> None:
        """All stages, then write the Hugging Face directory."""
        with ProcessPoolExecutor(1) as workers:
            self._stage("see", self.args.see_steps, workers)
            # Looking things up, by place and by name, is learned from sheets alone.
            self._stage("drill", self.args.drill_steps, workers)
            self._stage("speak", self.args.steps, workers)
        self.save()

    def _stage(self, stage: str, steps: int, workers: ProcessPoolExecutor) -> None:
        if STAGES.index(self.state.stage) > STAGES.index(stage):
            return
        if self.state.stage != stage:
            self.state.stage, self.state.step = stage, 0
            self.averages = {}
            self.optimizer = self._optimizer(self.args.vision_lr)

        def submit(step: int) -> Future[Any]:
            if stage == "see":
                # Characters first and alone: beside easy labels they are learned late or never.
                return workers.submit(
                    seeing_batch, step, self.args.see_batch, 1.0 if step < 0.5 * steps else 0.3, step < 0.15 * steps
                )
            if stage == "drill":
                return workers.submit(drill_batch, step, self.args.drill_batch, step / max(1, steps))
            sheets = 0.5 - 0.35 * min(1.0, step / max(1, steps))  # less and less
            return workers.submit(speaking_batch, step, self.args.batch, self.args.clip_share, sheets)

        ahead = [submit(self.state.step + k) for k in range(3)]
        begun, first, saved_at = time.time(), self.state.step, time.time()
        while self.state.step < steps:
            batch = ahead.pop(0).result()
            ahead.append(submit(self.state.step + 3))
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.state.step, steps, group["peak"])
            # A picture that changes under its eyes teaches a language model little.
            self.model.model.visual.requires_grad_(stage != "drill" or self.state.step >= BARE * steps)
            scores = self._see(batch) if stage == "see" else self._speak(batch)
            torch.nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.state.step += 1
            self._track(scores)
            if self.state.step % 50 == 0:
                pace = (time.time() - begun) / (self.state.step - first)
                self._log(stage, steps, pace)
            if time.time() - saved_at > 120 or self.state.step == steps:
                self._checkpoint()
                saved_at = time.time()

    def _see(self, batch: tuple[list[np.ndarray], list[Labels]]) -> dict[str, float]:
        images, labels = batch
        pixels, grid = patchify(images, self.processor.image_processor)
        output = self.model.model.visual(pixels.to(self.device), grid_thw=grid.to(self.device))
        loss, scores = self.reader.loss(output.pooler_output, self._on_device(labels))
        loss.backward()
        return {"loss": float(loss.detach()), **scores}

    def _on_device(self, labels: list[Labels]) -> dict[str, torch.Tensor]:
        """Labels of some images, one image after another."""
        return {
            name: torch.from_numpy(np.concatenate([one[name] for one in labels])).to(self.device) for name in labels[0]
        }

    def _speak(self, batch: list[list[Lesson]]) -> dict[str, float]:
        """Gradients of one batch, in parts of similar length so that little is spent on padding."""
        examples = sorted((encode(self.encoder, lessons) for lessons in batch), key=lambda e: len(e.ids))
        total = sum(sum(e.weights) for e in examples)
        pad, image_pad = self.processor.tokenizer.pad_token_id, self.encoder.image_pad
        found: dict[str, list[float]] = defaultdict(list)
        loss_sum = 0.0
        size = -(-len(examples) // 4)
        for part in (examples[k : k + size] for k in range(0, len(examples), size)):
            tensors = collate(part, pad, image_pad, self.processor.image_processor)
            loss, hits, tokens = speaking_loss(self.model, {k: v.to(self.device) for k, v in tensors.items()})
            loss = loss / total
            loss_sum += float(loss.detach())
            if tokens is not None and tokens.requires_grad:
                seeing, scores = self.reader.loss(tokens, self._on_device([one for e in part for one in e.labels]))
                loss = loss + SEEING_WEIGHT * seeing * len(part) / len(examples)
                for name in ("glyph", "dots", "tens"):
                    if name in scores:
                        found[f"see {name}"].append(scores[name])
            loss.backward()
            for row, example in enumerate(part):
                for start, end, skill in example.spans:
                    right = hits[row, start - 1 : end - 1]
                    if skill in ("ground", "table") or skill.startswith("sheet"):  # judged by its values
                        weights = torch.tensor(example.weights[start:end])
                        found[skill].append(float(right[weights == weights.max()].float().mean()))
                    else:
                        found[skill].append(float(right.all()))
        return {"loss": loss_sum, **{skill: sum(v) / len(v) for skill, v in found.items()}}

    def _track(self, scores: dict[str, float]) -> None:
        for name, value in scores.items():
            self.averages[name] = 0.96 * self.averages.get(name, value) + 0.04 * value

    def _log(self, stage: str, steps: int, pace: float) -> None:
        row = {"stage": stage, "step": self.state.step, **{k: round(v, 3) for k, v in sorted(self.averages.items())}}
        self.state.log.append(row)
        shown = " ".join(f"{k} {v}" for k, v in row.items() if k not in ("stage", "step"))
        left = (steps - self.state.step) * pace / 60
        print(f"{stage} {self.state.step}/{steps} {shown} | {pace:.3f} s/step, {left:.0f} min left", flush=True)

    def _checkpoint(self) -> None:
        part = self.checkpoint.with_suffix(".part")
        torch.save(
            {
                "model": self.model.state_dict(),
                "reader": self.reader.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "state": asdict(self.state),
            },
            part,
        )
        part.replace(self.checkpoint)  # a kill while writing leaves the previous checkpoint whole
        (self.out / "log.json").write_text(json.dumps(self.state.log, indent=0))

    def save(self) -> None:
        """Write the base as a Hugging Face directory with 16-bit weights."""
        micro.save(self.model, self.processor, self.out / "model", half=True)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", default="runs/micro_base", help="folder of checkpoint, log and model; resumes from it")
    parser.add_argument("--see-steps", type=int, default=3600, help="steps of stage 1: the vision tower alone")
    parser.add_argument("--drill-steps", type=int, default=1500, help="steps of stage 2: the language model on sheets")
    parser.add_argument("--drill-batch", type=int, default=64, help="sheets a step in stage 2")
    parser.add_argument("--steps", type=int, default=2000, help="steps of stage 3: the whole model")
    parser.add_argument("--see-batch", type=int, default=64, help="views a step in stage 1")
    parser.add_argument("--batch", type=int, default=24, help="sequences a step in stage 3")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak rate of the language model")
    parser.add_argument("--vision-lr", type=float, default=8e-4, help="peak rate of the vision tower in stages 2 and 3")
    parser.add_argument("--clip-share", type=float, default=0.12, help="share of sequences that show a whole clip")
    parser.add_argument("--start", help="skip to stage 3 with the weights of this folder, such as agents/micro_base")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights")
    Pretraining(parser.parse_args()).run()


if __name__ == "__main__":
    main()
