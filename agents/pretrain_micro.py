"""Make the micro base: the tower learns to see, the language model to talk, then both together.

    python agents/pretrain_micro.py --out runs/micro_base        # resumes where it was stopped
    python agents/pretrain_micro.py --base agents/micro_base     # more of the last stage
    python agents/pretrain_micro.py --base agents/micro_base --begin see     # and of the others

1. see: the vision tower alone learns what is under each image token.
2. talk: the language model alone learns to look up, to ground and to answer, from image tokens that are written
   straight from the list of what is drawn: no pixels, no mistakes, and a fraction of the cost.
3. speak: the tower's last layer is fitted to what the language model knows, and the whole model goes on with pixels.

Simplified against real pretraining: pictures are procedural, language is a few templates, and the vision tower starts
from dense labels instead of contrastive captions. What the base must not learn is listed in `agents.micro_lessons`.
"""

import argparse
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from agents import micro, micro_batches, micro_calls, micro_lessons
from agents.conversation import ChatEncoder, patchify
from agents.micro_batches import Example, collate, joined
from agents.micro_seeing import WORDS, Labels, TokenReader, TokenWriter, fitted
from agents.micro_weights import LOOKED_UP
from agents.micro_worker import OFFSET, Worker
from pixel_env.command_line import Parser, ending, run_folder
from pixel_env.journal import replace_text, replacing

SEEING_WEIGHT = 0.3
"""Of the loss on image tokens beside that on answers: the tower goes on learning to see."""
NOISE = (0.1, 0.3)
"""Added to written tokens in drills and in conversations, in their root mean square: a tower is never that sure."""
FITTED_VIEWS = 2500
"""Views, and frames of clips for another half, on which the tower's last layer, or the writer, is fitted."""
WRITER_STEPS, WRITER_RATE = 300, 2e-2
"""Of the fit of a writer to a saved base."""
BEGUN = {"see": 0.15, "talk": micro_batches.BARE, "speak": 0.0}
"""Share of a stage's lessons that a saved base can already: characters alone, to look things up by name."""
STAGES = ("see", "talk", "speak")


# --- the run --------------------------------------------------------------------------------------------------------


@dataclass
class State:
    """What a checkpoint holds besides tensors."""

    stage: str = "see"
    step: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)
    averages: dict[str, float] = field(default_factory=dict)


def orthogonalised(
    update: torch.Tensor, ns_coefficients: tuple[float, float, float], ns_steps: int, eps: float
) -> torch.Tensor:
    """The Newton-Schulz iteration of `torch.optim.Muon` (arguments as there), in the precision of its first argument.

    Torch's own runs in bfloat16, which is very slow on processors without the instructions for it.
    """
    a, b, c = ns_coefficients
    wide = update if update.shape[0] <= update.shape[1] else update.T
    wide = wide / wide.norm().clamp(min=eps)
    for _ in range(ns_steps):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide if update.shape[0] <= update.shape[1] else wide.T


# Muon has no option for it; a test says that this name is still the one it calls.
torch.optim._muon._zeropower_via_newtonschulz = orthogonalised  # type: ignore[assignment]


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 50 steps, then cosine down to a twentieth."""
    return peak * min(1.0, (step + 1) / 50) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


class Pretraining:
    """The stages with their optimizers, log and checkpoint.

    The tower's last layer is taken out of the model and put back when it is saved: the reader reads what it gets.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.args, self.out = args, Path(args.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        if args.base:
            self.processor, self.model = micro.load_processor(args.base), micro.load_model(args.base)
        else:
            phrases = [*micro.fixed_phrases(), *micro_calls.FUNCTION_TEXTS]
            self.processor = micro.build_processor(micro_lessons.corpus(), phrases)
            self.model = micro.build_model(self.processor)
        self.encoder = ChatEncoder(self.processor)
        merger = self.model.model.visual.merger
        self.projector, merger.mlp[-1] = merger.mlp[-1], nn.Identity()
        self.reader = TokenReader(self.projector.in_features, self.projector.out_features)
        words = {name: [self._token(word) for word in some] for name, some in WORDS.items()}
        self.writer = TokenWriter(self.model.get_input_embeddings(), words)
        self.parts = {"model": self.model, "projector": self.projector, "reader": self.reader, "writer": self.writer}
        for part in self.parts.values():
            part.to(self.device)
        self.state = State()
        self.checkpoint = self.out / "checkpoint.pt"
        saved = None
        if self.checkpoint.exists():
            saved = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            self.state = State(**saved["state"])
            for name, part in self.parts.items():
                part.load_state_dict(saved[name])
            print(f"resumed {self.checkpoint} at stage {self.state.stage}, step {self.state.step}", flush=True)
        elif args.base:
            self.state.stage = args.begin
            self._fit_writer()
        self.optimizers = self._optimizers()
        if saved is not None:
            for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)

    def _token(self, word: str) -> int:
        ids = self.encoder.text(word)
        assert len(ids) == 1, f"{word!r} is not one token"
        return ids[0]

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """For what the present stage trains: Muon for matrices, AdamW for the rest."""
        args, visual = self.args, self.model.model.visual
        text = [p for n, p in self.model.named_parameters() if "visual" not in n]
        rates = {
            "see": [([*visual.parameters(), *self.reader.parameters()], args.see_lr)],
            "talk": [([*text, *self.writer.parameters()], args.talk_lr)],
            "speak": [([*visual.parameters(), *self.projector.parameters()], args.vision_lr), (text, args.lr)],
        }[self.state.stage]
        matrices = {p for n, p in self.model.named_parameters() if p.ndim == 2 and "embed" not in n}
        inner = [{"params": [p for p in some if p in matrices], "peak": peak} for some, peak in rates]
        rest = [{"params": [p for p in some if p not in matrices], "peak": peak} for some, peak in rates]
        return [
            torch.optim.Muon(inner, lr=0.0, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=0.0, weight_decay=0.02, betas=(0.9, 0.98)),
        ]

    def run(self) -> None:
        """All stages, then write the Hugging Face directory."""
        with Worker(self.processor) as worker:
            for stage, steps in zip(STAGES, (self.args.see_steps, self.args.talk_steps, self.args.steps), strict=True):
                self._stage(stage, steps, worker)
        self.save()

    def _stage(self, stage: str, steps: int, worker: Worker) -> None:
        if STAGES.index(self.state.stage) > STAGES.index(stage):
            return
        if self.state.stage != stage:
            self.state.stage, self.state.step, self.state.averages = stage, 0, {}
            if stage == "speak":
                self._fit()
            self.optimizers = self._optimizers()

        size = {"see": self.args.see_batch, "talk": self.args.talk_batch, "speak": self.args.batch}[stage]
        begun, first, saved_at = time.time(), self.state.step, time.time()
        asked = (
            (stage, step + OFFSET * self.args.seed, size, self.share_done(stage, step, steps))
            for step in range(first, steps)
        )
        for batch in worker.batches(asked):
            groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
            for group in groups:
                group["lr"] = learning_rate(self.state.step, steps, group["peak"])
            scores = self._see(*batch) if stage == "see" else self._speak(batch)
            torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
            self.state.step += 1
            self._track(scores)
            if self.state.step % 50 == 0:
                pace = (time.time() - begun) / (self.state.step - first)
                self._log(stage, steps, pace)
            if time.time() - saved_at > self.args.save_seconds or self.state.step == steps:
                self._checkpoint()
                saved_at = time.time()

    def share_done(self, stage: str, step: int, steps: int) -> float:
        """Share of a stage's lessons that lie behind: of those that a saved base cannot do already, if there is one."""
        begun = BEGUN[stage] if self.args.base else 0.0
        return begun + (1 - begun) * step / max(1, steps)

    def _features(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """What the tower's last layer gets, (image tokens, features)."""
        pixels, grid = patchify(images, self.processor.image_processor)
        return self.model.model.visual(pixels.to(self.device), grid_thw=grid.to(self.device)).pooler_output

    def _labels(self, labels: Sequence[Labels]) -> dict[str, torch.Tensor]:
        return {name: values.to(self.device) for name, values in joined(labels).items()}

    def _see(self, images: list[np.ndarray], labels: list[Labels]) -> dict[str, float]:
        loss, scores = self.reader.loss(self._features(images), self._labels(labels))
        loss.backward()
        return {"loss": float(loss.detach()), **scores}

    @torch.no_grad()
    def _described(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """What the tower's last layer gets of some views and frames of clips, and the labels of all their tokens."""
        rng = np.random.default_rng(0)
        pictures = micro_batches.views(rng, FITTED_VIEWS, 0.3) + micro_batches.frames(rng, FITTED_VIEWS // 2)
        features = [self._features([p.draw() for p in pictures[k : k + 100]]) for k in range(0, len(pictures), 100)]
        return torch.cat(features), self._labels([p.labels() for p in pictures])

    def _fit_writer(self) -> None:
        """Let the writer, which is not saved with a base, write what the base's tower does."""
        features, labels = self._described()
        tokens = self.projector(features).detach()
        optimizer = torch.optim.Adam(self.writer.parameters(), lr=WRITER_RATE)
        for _ in range(WRITER_STEPS):
            loss = (self.writer(labels) - tokens).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        explained = 1 - float(loss.detach() / tokens.var())
        self.state.log.append({"stage": "fit", "explained": round(explained, 3)})
        print(f"the writer explains {explained:.1%} of the tower's tokens", flush=True)

    @torch.no_grad()
    def _fit(self) -> None:
        """Let the tower's last layer write what the writer would, as well as it can."""
        features, labels = self._described()
        layer, explained = fitted(features, self.writer(labels))
        self.projector.load_state_dict(layer.state_dict())
        self.state.log.append({"stage": "fit", "explained": round(explained, 3)})
        print(f"the tower's last layer explains {explained:.1%} of what the language model learned from", flush=True)

    def _speak(self, examples: list[Example]) -> dict[str, float]:
        """Gradients of one batch, in parts of similar length so that little is spent on padding."""
        examples = sorted(examples, key=lambda e: len(e.ids))
        total = sum(sum(e.weights) for e in examples)
        found: dict[str, list[float]] = defaultdict(list)
        loss_sum = 0.0
        size = -(-len(examples) // 4)
        for part in (examples[k : k + size] for k in range(0, len(examples), size)):
            batch = collate(part, self.processor.tokenizer.pad_token_id, self.encoder.image_pad)
            tokens, seeing = self._image_tokens(part)
            loss, hits = speaking_loss(self.model, {k: v.to(self.device) for k, v in batch.items()}, tokens)
            loss_sum += float(loss.detach()) / total
            (loss / total + SEEING_WEIGHT * seeing * len(part) / len(examples)).backward()
            for row, example in enumerate(part):
                for start, end, skill in example.spans:
                    right = hits[row, start - 1 : end - 1].cpu()
                    # By what was looked up: the rest of an answer follows.
                    looked = torch.tensor(example.weights[start:end]) >= LOOKED_UP * micro_batches.SKILL_WEIGHT[skill]
                    found[skill].append(float(right[looked].float().mean() if looked.any() else right.all()))
        return {"loss": loss_sum, **{skill: sum(v) / len(v) for skill, v in found.items()}}

    def _image_tokens(self, examples: list[Example]) -> tuple[torch.Tensor, torch.Tensor | float]:
        """Tokens of all images, from labels or from pixels, and how badly the tower writes what the labels say."""
        labels = self._labels([one for e in examples for one in e.labels])
        if self.state.stage == "talk":
            tokens = self.writer(labels)
            noise = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(self.state.step)).to(self.device)
            done = self.share_done("talk", self.state.step, self.args.talk_steps)
            return tokens + NOISE[done >= micro_batches.DRILLED] * tokens.detach().square().mean().sqrt() * noise, 0.0
        tokens = self.projector(self._features([image for e in examples for image in e.images]))
        return tokens, self.writer.loss(tokens, labels)

    def _track(self, scores: dict[str, float]) -> None:
        for name, value in scores.items():
            self.state.averages[name] = 0.96 * self.state.averages.get(name, value) + 0.04 * value

    def _log(self, stage: str, steps: int, pace: float) -> None:
        averages = {name: round(value, 3) for name, value in sorted(self.state.averages.items())}
        row = {"stage": stage, "step": self.state.step, **averages}
        self.state.log.append(row)
        shown = " ".join(f"{k} {v}" for k, v in row.items() if k not in ("stage", "step"))
        left = (steps - self.state.step) * pace / 60
        print(f"{stage} {self.state.step}/{steps} {shown} | {pace:.3f} s/step, {left:.0f} min left", flush=True)

    def _checkpoint(self) -> None:
        saved: dict[str, Any] = {name: part.state_dict() for name, part in self.parts.items()}
        saved |= {"optimizers": [o.state_dict() for o in self.optimizers], "state": asdict(self.state)}
        # First, as a run whose last checkpoint is there writes no more of it.
        replace_text(self.out / "log.json", json.dumps(self.state.log, indent=0))
        with replacing(self.checkpoint) as part:
            torch.save(saved, part)

    def save(self) -> None:
        """Write the base as a Hugging Face directory with 16-bit weights."""
        merger = self.model.model.visual.merger
        merger.mlp[-1] = self.projector
        with replacing(self.out / "model") as part:
            micro.save(self.model, self.processor, part, half=True)
        merger.mlp[-1] = nn.Identity()


def speaking_loss(
    model: Any, batch: dict[str, torch.Tensor], image_tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted sum of the cross-entropies of the answers, and which answer tokens were predicted.

    Args:
        model: A Qwen2.5-VL.
        batch: As `collate` gives it.
        image_tokens: (image tokens, hidden), of all images of the batch in order.

    Returns:
        The sum, a scalar; (B, T - 1) bool, True where a token is no answer or was predicted.
    """
    weights = batch.pop("weights")[:, 1:]
    seen = {"image": BaseModelOutputWithPooling(pooler_output=[image_tokens])}
    hidden = model.model(**batch, mm_encoder_outputs=seen, use_cache=False).last_hidden_state[:, :-1]
    targets, chosen = batch["input_ids"][:, 1:], weights > 0
    logits = model.lm_head(hidden[chosen])
    losses = nn.functional.cross_entropy(logits, targets[chosen], reduction="none")
    hits = torch.ones_like(chosen)
    hits[chosen] = logits.argmax(-1) == targets[chosen]
    return (losses * weights[chosen]).sum(), hits


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        UsageError: A wrong argument.
    """
    parser = Parser(
        prog="pretrain_micro.py",
        description=__doc__.split("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", default="runs/micro_base", help="folder of checkpoint, log and model; resumes from it")
    parser.add_argument("--see-steps", type=int, default=9000, help="steps of stage 1: the vision tower alone")
    parser.add_argument("--see-batch", type=int, default=32, help="views a step in stage 1")
    parser.add_argument("--see-lr", type=float, default=3e-3, help="peak rate of stage 1")
    parser.add_argument("--talk-steps", type=int, default=8000, help="steps of stage 2: the language model alone")
    parser.add_argument("--talk-batch", type=int, default=24, help="pictures a step in stage 2")
    parser.add_argument("--talk-lr", type=float, default=2e-3, help="peak rate of stage 2")
    parser.add_argument("--steps", type=int, default=2400, help="steps of stage 3: the whole model")
    parser.add_argument("--batch", type=int, default=24, help="sequences a step in stage 3")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak rate of the language model in stage 3")
    parser.add_argument("--vision-lr", type=float, default=1e-3, help="peak rate of the vision tower in stage 3")
    parser.add_argument("--base", help="saved base to go on from (by default from scratch)")
    parser.add_argument("--begin", choices=STAGES, default="speak", help="stage from which a saved base goes on")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of weights and lessons; another one goes on with new lessons"
    )
    parser.add_argument("--save-seconds", type=float, default=120, help="between checkpoints: what a kill can cost")
    args = parser.parse_args(argv)
    if args.base and not (Path(args.base) / "config.json").is_file():
        parser.error(f"expected --base to be the folder of a saved base, with its config.json, got {args.base}")
    if args.begin != "speak" and not args.base:
        parser.error("--begin is for --base; from scratch all stages are gone through")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    with ending("pretrain_micro.py") as end:
        args = parse(argv)
        end.go_on = f"go on with the same command and --out {args.out}"
        with run_folder(Path(args.out)):
            Pretraining(args).run()
    return end.code


if __name__ == "__main__":
    sys.exit(main())
