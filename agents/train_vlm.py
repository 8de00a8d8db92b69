"""Train a VLM policy to look closer: warm start on demonstrations, reinforcement learning with curiosity, evaluation.

    python agents/train_vlm.py --processes 2         # the micro model that is shipped, on two cores
    python agents/train_vlm.py --resume              # go on with the newest run after a stop or a kill
    python agents/train_vlm.py --model Qwen/Qwen2.5-VL-7B-Instruct --recipe paper --gradient-checkpointing
    python agents/train_vlm.py --recipe paper --show        # every value of the recipe; --plan: steps, memory, time
    python agents/train_vlm.py --model Qwen/Qwen2.5-VL-7B-Instruct --recipe paper --gradient-checkpointing --lora 64
    python agents/train_vlm.py ... --sft-data SFT.json --rl-data pixelreasoner:RL --test-data vstar:VSTAR   # real data
    accelerate launch --config_file agents/accelerate/fsdp.yaml agents/train_vlm.py ...   # GPUs, docs/scaling.md

Simplified against the paper, unless data are given: demonstrations are written by a program that knows the cue, not by
GPT-4o, and tasks are procedural. Every stage works on files of its run folder, so a run can be stopped and continued
anywhere.
"""

import dataclasses
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.processes import gathered, is_main, joined, once, rank_and_count, together, wait
from agents.run_settings import Settings, parse, processes
from agents.run_tasks import evaluation_plan, is_demonstrations, recorded_spec
from pixel_env.command_line import UsageError, ending, run_folder
from pixel_env.journal import complete_lines, replace_text, replacing

if TYPE_CHECKING:  # torch and transformers take seconds to import; a wrong argument is told at once
    import torch
    from transformers import TrainerCallback

    from agents.rl_config import RLConfig
    from agents.sft_config import WarmStartConfig
    from pixel_env.trajectory import Trajectory

ENV_ID = "PixelReason-Mixed-v0"


class Run:
    """A run folder and what has been done in it. Whatever is complete is kept, so `execute` can be called again.

    Several processes train and evaluate together; only the main one writes.
    """

    def __init__(self, settings: Settings, out: Path) -> None:
        self.settings, self.out = settings, out
        self.metrics = out / "metrics.jsonl"

    def prepare(self) -> None:
        """Make the folder and write the configuration; raises UsageError where that is not possible."""
        try:
            (self.out / "trajectories").mkdir(parents=True, exist_ok=True)
            if not (self.out / "config.json").exists():
                replace_text(self.out / "config.json", json.dumps(self.resolved(), indent=2))
            complete_lines(self.metrics)
        except OSError as error:
            raise UsageError(f"cannot write to {self.out}: {error.strerror}; choose another --out") from None

    def resolved(self) -> dict[str, Any]:
        """Everything that the run depends on, also what no option sets."""
        s = self.settings
        try:
            rl = dataclasses.asdict(self.rl_config()) if "rl" in s.stages else None
        except ValueError as error:
            raise UsageError(str(error)) from None
        resolved = {"settings": dataclasses.asdict(s), "rl": rl, "environment": ENV_ID, "train": self._train_kwargs()}
        return resolved | _machine()

    def plan(self) -> str:
        """Say what the run would do, and what that takes."""
        from agents import memory
        from agents.plan import plan

        device = _machine()["machine"]["device"]
        return plan(memory.estimate(self.settings.model), self.settings, self.out.parent, device)

    def check_memory(self) -> None:
        """Raise UsageError if the run cannot fit."""
        from agents import memory

        memory.check(memory.estimate(self.settings.model), self.settings)

    def execute(self) -> None:
        """Evaluate, train and evaluate; then write the report."""
        model, names = self.settings.model, ("base", *self.settings.stages)
        evaluations = {}
        for name in names:
            model = model if name == "base" else self.train(name, model)
            if self.settings.evaluate == "all" or name == names[-1]:
                evaluations[name] = self.evaluate(name, model)
        once(lambda: self.report(evaluations))

    def train(self, stage: str, start: str) -> str:
        """Train a stage from the weights in `start`; returns the folder of the new ones."""
        from agents import micro
        from agents.weights import stored_dtype

        finished = self.out / stage / "model"
        if finished.is_dir():
            return str(finished)
        model, processor = self.load(start, stored_dtype(self.settings.dtype, self.settings.lora))
        begun = time.perf_counter()
        (self._warm_start if stage == "warm_start" else self._reinforce)(model, processor)
        if is_main():
            with replacing(finished) as part:
                micro.save(model, processor, part)
        wait()
        print(f"{stage}: {time.perf_counter() - begun:.0f} s, weights in {finished}")
        return str(finished)

    def load(self, path: str, dtype: "torch.dtype") -> tuple[Any, Any]:
        """Load weights and processor."""
        import torch
        from transformers.integrations import unset_hf_deepspeed_config

        from agents import micro

        unset_hf_deepspeed_config()  # what a stage before has left; it would cut up what is loaded
        try:
            model, processor = micro.load_model(path, dtype), micro.load_processor(path)
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot load {path}: {str(error).splitlines()[0]}") from None
        return model.to("cuda" if torch.cuda.is_available() else "cpu"), processor

    def _warm_start(self, model: Any, processor: Any) -> None:
        from agents.sft import warm_start
        from pixel_env.trajectory import load_jsonl, save_jsonl

        path = self.out / "trajectories" / "demonstrations.jsonl"

        def make() -> None:
            if not path.exists():
                save_jsonl(path, self._demonstrations())

        once(make)
        warm_start(
            model,
            processor,
            [trajectory for trajectory in load_jsonl(path) if trajectory.error is None],
            self.out / "warm_start",
            self.warm_start_config(),
            resume=True,
            callbacks=self._callbacks("warm_start"),
        )

    def warm_start_config(self) -> "WarmStartConfig":
        """The settings of the first stage."""
        from agents.sft_config import WarmStartConfig

        s = self.settings
        return WarmStartConfig(
            epochs=s.epochs,
            learning_rate=s.learning_rate,
            batch_size=s.batch_size,
            accumulation=s.accumulation,
            batch_tokens=s.batch_tokens,
            train_vision=not s.freeze_vision,
            lora=s.lora,
            dtype=s.dtype,
            gradient_checkpointing=s.gradient_checkpointing,
            save_steps=s.save_steps,
            seed=s.seed,
        )

    def _demonstrations(self) -> "list[Trajectory]":
        """Make demonstrations, or play the recorded ones and list those that cannot be used."""
        import gymnasium as gym

        from agents.demonstrations import NO_CORRECTIONS, demonstrations
        from agents.sft_data import recorded
        from pixel_env.trajectory import load_jsonl

        s = self.settings
        if s.sft_data is None:
            try:
                made = demonstrations(
                    ENV_ID, s.demonstrations, seed=s.seed, textual_share=s.textual_share, **self._train_kwargs()
                )
            except ValueError as error:
                raise UsageError(str(error)) from None
        elif is_demonstrations(s.sft_data):
            made = load_jsonl(s.sft_data)
        else:
            made = recorded(gym.make(ENV_ID, **s.env_kwargs("train", recorded_spec(s.sft_data))), seed=s.seed)
        problems = [trajectory.error for trajectory in made if trajectory.error is not None]
        if problems:
            listed = self.out / "trajectories" / "damaged.txt"
            replace_text(listed, "".join(f"{problem}\n" for problem in problems))
            print(f"{len(problems)} of {len(made)} records of {s.sft_data} cannot be used, see {listed}: {problems[0]}")
        if not s.corrections:
            made = [t for t in made if t.error is not None or t.kind in NO_CORRECTIONS]
        if len(problems) == len(made):
            raise UsageError(f"no record of {s.sft_data} can be used, see {self.out / 'trajectories'}")
        return made

    def _train_kwargs(self) -> dict[str, Any]:
        return self.settings.env_kwargs("train", self.settings.rl_data)

    def _reinforce(self, model: Any, processor: Any) -> None:
        from agents.grpo import reinforce

        reinforce(
            model,
            processor,
            ENV_ID,
            self._train_kwargs(),
            self.out / "rl",
            self.rl_config(),
            resume=True,
            callbacks=self._callbacks("rl"),
        )

    def rl_config(self) -> "RLConfig":
        """The settings of the second stage; what is not on the command line is as in `RLConfig`."""
        from agents.rl_config import RLConfig

        s = self.settings
        return RLConfig(
            steps=s.rl_steps,
            prompts=s.prompts,
            group_size=s.group_size,
            updates=s.updates,
            learning_rate=s.rl_learning_rate,
            temperature=s.temperature,
            schedule=s.schedule,
            scale_rewards=s.scale_rewards,
            uniform_groups=s.uniform_groups,
            kl=s.kl,
            rollouts=s.rollouts,
            max_new_tokens=s.max_new_tokens,
            max_completion_tokens=s.max_completion_tokens,
            batch_size=s.rl_batch_size,
            batch_tokens=s.batch_tokens,
            train_vision=not s.rl_freeze_vision,
            lora=s.lora,
            dtype=s.dtype,
            gradient_checkpointing=s.gradient_checkpointing,
            save_steps=s.save_steps,
            seed=s.seed,
        )

    def _callbacks(self, stage: str) -> "list[TrainerCallback]":
        from agents.report import MetricsLog

        return [MetricsLog(self.metrics, stage)]

    def evaluate(self, name: str, path: str) -> "list[Trajectory]":
        """Play the test tasks greedily with the weights in `path`; what a kill left is taken up again."""
        from tqdm import tqdm

        from agents.vlm_policy import rollout_vlm
        from agents.weights import compute_dtype
        from pixel_env.trajectory import load_jsonl, save_jsonl

        s, finished = self.settings, self.out / "trajectories" / f"{name}.jsonl"
        if finished.exists():
            return load_jsonl(finished)
        begun = finished.with_suffix(".part")
        done = once(lambda: load_jsonl(begun) if begun.exists() else [])
        model, processor = self.load(path, compute_dtype(s.dtype))
        procedural = [(None, index) for index in range(s.test_tasks * len(s.tasks))]  # suites take turns in the set
        plan = evaluation_plan(s.test_data, s.test_tasks) or procedural
        rank, count = rank_and_count()
        shown = {"desc": f"evaluate {name.replace('_', ' ')}", "unit": "episode", "disable": not is_main()}
        with tqdm(total=len(plan), initial=len(done), **shown) as bar:
            while len(done) < len(plan):
                batches = list(islice(_batches(plan[len(done) :], s.batch_episodes), count))
                played: list[Trajectory] = []
                for tasks, indices in batches[rank : rank + 1]:
                    played = rollout_vlm(
                        model,
                        processor,
                        ENV_ID,
                        indices,
                        max_new_tokens=s.max_new_tokens,
                        max_completion_tokens=s.max_completion_tokens,
                        batch_size=s.batch_episodes,
                        seed=s.seed,
                        progress=False,
                        **s.env_kwargs("test", tasks),
                    )
                done += gathered(played)
                if is_main():
                    save_jsonl(begun, done)
                bar.update(sum(len(indices) for _, indices in batches))
        if is_main():
            begun.rename(finished)
        return done

    def report(self, evaluations: "dict[str, list[Trajectory]]") -> None:
        """Write report.md and curves.png and print the table of scores."""
        from agents.demonstrations import kinds
        from agents.report import curves, markdown
        from pixel_env.evaluation import evaluate
        from pixel_env.metrics import read_metrics
        from pixel_env.trajectory import load_jsonl

        config = json.loads((self.out / "config.json").read_text(encoding="utf-8"))
        metrics = read_metrics(self.metrics)
        curves(metrics, {name: evaluate(played) for name, played in evaluations.items()}, self.out / "curves.png")
        s = self.settings
        facts = {
            "model": s.model,
            "tasks": f"{', '.join(s.tasks)}; levels {', '.join(map(str, s.levels))}; preset {s.preset}",
            "seed": str(s.seed),
            "machine": ", ".join(f"{key} {value}" for key, value in config["machine"].items()),
            "files": "config.json, metrics.jsonl, trajectories/; tensorboard --logdir on this folder",
        }
        for name in ("sft_data", "rl_data", "test_data"):
            if given := getattr(s, name):
                facts[name.replace("_", " ")] = given if isinstance(given, str) else ", ".join(given)
        if "warm_start" in s.stages:
            made = load_jsonl(self.out / "trajectories" / "demonstrations.jsonl")
            facts["demonstrations"] = ", ".join(f"{number} {kind}" for kind, number in kinds(made).items())
            facts["demonstrations"] += f", {sum(t.error is not None for t in made)} damaged" if s.sft_data else ""
        text = markdown(evaluations, command=config["command"], facts=facts)
        replace_text(self.out / "report.md", text)
        print(text.partition("## RaPR")[0].partition("## Score")[2].partition("\n")[2].strip())
        print(f"report: {self.out / 'report.md'}")


def _batches(plan: Sequence[tuple[str | None, int]], size: int) -> Iterator[tuple[str | None, list[int]]]:
    """Task sets and indices of the batches that are played, none of two sets."""
    while plan:
        tasks = plan[0][0]
        indices = [index for of, index in plan[:size] if of == tasks]
        yield tasks, indices
        plan = plan[len(indices) :]


def _machine() -> dict[str, Any]:
    """What a reader needs to run this again."""
    import platform
    from importlib.metadata import version

    import torch

    count = rank_and_count()[1]
    launched = count > 1 and processes(sys.argv[1:]) == 1
    launcher = ["accelerate", "launch", "--num_processes", str(count)] if launched else ["python"]
    return {
        "command": shlex.join([*launcher, *sys.argv]),
        "machine": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "trl", "gymnasium")},
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
            "threads": torch.get_num_threads(),
            **({"processes": count} if count > 1 else {}),
        },
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    about = (__doc__ or "").partition("\n\nSimplified")[0]
    if rank_and_count()[1] == 1 and (count := processes(argv)) > 1:
        with ending("train_vlm.py") as end:
            parse(argv, about)  # a mistake is told before they start
            end.code = together(partial(main, argv), count)
        return end.code
    with ending("train_vlm.py") as end, joined():
        settings, out, resumed = once(lambda: parse(argv, about))
        end.go_on = f"continue with --resume --out {out}"
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        run = Run(settings, out)
        if "--show" in argv:
            once(lambda: print(json.dumps(run.resolved(), indent=2)))
            return 0
        if "--plan" in argv:
            once(lambda: print(run.plan()))
            return 0
        if not resumed:
            once(run.check_memory)
        with ExitStack() as held:
            once(lambda: held.enter_context(run_folder(out)))
            once(run.prepare)
            print(f"{'continuing' if resumed else 'starting'} {out}")
            _quieten()
            run.execute()
    return end.code


def _quieten() -> None:
    """Leave the terminal to our own bars; warnings of the libraries about this very set-up are known."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


if __name__ == "__main__":
    os.environ.setdefault("PIXEL_ENV_DECODE_IN_PROCESS", "1")  # a decoder that crashes costs one file, not the run
    sys.exit(main())
