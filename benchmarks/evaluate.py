"""Measure a policy on any tasks, and write down everything that the numbers depend on.

    python benchmarks/evaluate.py --tasks vstar:/data/vstar_bench --policy Qwen/Qwen2.5-VL-7B-Instruct
    python benchmarks/evaluate.py --tasks search count --policy micro --samples 4 --temperature 0.7
    python benchmarks/evaluate.py --tasks vstar:/data/vstar_bench --policy endpoint:MODEL@http://127.0.0.1:8000/v1
    python benchmarks/evaluate.py --tasks search --policy my_module:MyPolicy --operations none

Leaves result.json, trajectories.jsonl and costs.jsonl in the folder of the results, and the official file of a split
whose answers are hidden. Episodes are written as they finish; after a stop or a kill the same command with --out goes
on. A model that runs here plays a batch at a time, so a kill costs at most the batch.
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import pixel_env  # noqa: F401  (registers the ids)
from agents.journal import append, complete_lines, replace_text
from agents.players import ENV_ID, Player, open_player, weights_digest
from benchmarks.evaluation_settings import Settings, parse
from benchmarks.fingerprint import fingerprint
from benchmarks.measures import block, prompt_version, scores, visual_tokens
from benchmarks.ppo_player import PPOPlayer
from benchmarks.provenance import provenance
from benchmarks.result_file import Costs, read_costs
from pixel_env.command_line import UsageError, ending
from pixel_env.env import PixelReasonEnv
from pixel_env.evaluation import evaluate
from pixel_env.released_protocol import BOXES
from pixel_env.rollout import Episode, Planned
from pixel_env.scorers import regrade
from pixel_env.tasks import SUITES, FileTasks, Task, TaskSet, submission
from pixel_env.tasks.submission import FORMS
from pixel_env.trajectory import Trajectory, load_jsonl, save_jsonl

PACKAGES = (
    "pixel-env", "gymnasium", "numpy", "pillow", "av", "decord", "rapidfuzz", "math-verify", "pyarrow", "openai",
    "torch", "transformers",
)  # fmt: skip
"""Whose versions may move a number."""

MOST_ERRORS = 50

SUITE_LIMIT = 256
"""Questions of a generated suite, unless --limit says otherwise."""


@dataclass(frozen=True)
class Part:
    """One entry of --tasks.

    Attributes:
        label: Name of the set or suite.
        env_kwargs: Makes its environment.
        env: Its environment, without wrappers.
        planned: Every episode, the samples of a question beside each other.
        asked: The questions.
    """

    label: str
    env_kwargs: dict[str, Any]
    env: PixelReasonEnv
    planned: tuple[Planned, ...]
    asked: tuple[Task, ...]

    @property
    def tasks(self) -> TaskSet:
        """What the planned tasks are indices of."""
        return self.env.tasks

    @property
    def keys(self) -> list[tuple[str, int]]:
        """Task and seed of each episode: what tells episodes apart."""
        samples = len(self.planned) // len(self.asked)
        ids = [task.task_id for task in self.asked for _ in range(samples)]
        return [(task_id, one.seed) for task_id, one in zip(ids, self.planned, strict=True)]


def open_part(settings: Settings, tasks: str) -> Part:
    """Open one entry of --tasks and plan its episodes.

    Raises:
        UsageError: The set cannot be opened, or the environment refuses a setting.
    """
    env_kwargs = settings.env_kwargs(tasks)
    try:
        env: Any = gym.make(ENV_ID, **env_kwargs).unwrapped
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise UsageError(f"--tasks {tasks}: {str(error).splitlines()[0]}") from None
    count = len(env.tasks)
    limit = settings.limit or (SUITE_LIMIT if tasks in SUITES else count)
    chosen: list[int] = list(range(min(limit, count)))
    if tasks not in SUITES and limit < count:  # sets on disk are sorted, so the first ones are of one kind
        chosen = sorted(np.random.default_rng(settings.seed).choice(count, limit, replace=False).tolist())
    samples = range(settings.samples)
    planned = tuple(Planned(i, sample, _reset_seed(settings.seed, i, sample)) for i in chosen for sample in samples)
    asked = tuple(env.tasks[index] for index in chosen)
    return Part(tasks.partition(":")[0], env_kwargs, env, planned, asked)


def _reset_seed(*numbers: int) -> int:
    return int(np.random.default_rng(numbers).integers(2**31))


def opened(settings: Settings, out: Path) -> Player:
    """Return what plays the policy of the settings; `out` is where it may keep files.

    Raises:
        UsageError: The policy cannot be had.
    """
    spec = settings.spec()
    return PPOPlayer(Path(spec.name)) if spec.kind == "ppo" else open_player(spec, settings.decoding(), out)


class Run:
    """A folder of results and what has been played in it."""

    def __init__(self, settings: Settings, out: Path, retry: bool = False) -> None:
        """Use the folder `out`; `retry` plays episodes again that broke off with an error."""
        self.settings, self.out, self.retry = settings, out, retry
        self.trajectories, self.costs = out / "trajectories.jsonl", out / "costs.jsonl"
        self.written = out / "result.json"
        self._episode_ended = 0.0

    def prepare(self) -> None:
        """Make the folder, or check that it is one of the same run.

        Raises:
            UsageError: It cannot be written, or holds another run.
        """
        config = self.out / "config.json"
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            if config.exists() and self.trajectories.exists() and self.trajectories.stat().st_size:
                self._check(json.loads(config.read_text(encoding="utf-8")))
            else:
                kept = dataclasses.asdict(self.settings) | {"weights": self._weights()}
                config.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
            for path in (self.trajectories, self.costs):
                complete_lines(path)
        except OSError as error:
            raise UsageError(f"cannot write to {self.out}: {error.strerror}; choose another --out") from None
        except ValueError as error:
            raise UsageError(f"{config} is not the configuration of an evaluation: {error}") from None

    def _check(self, kept: dict[str, Any]) -> None:
        asked = json.loads(json.dumps(dataclasses.asdict(self.settings)))
        free = ("batch_episodes", "concurrency", "timeout", "retries", "deadline", "prices")  # how fast, not what
        other = [name for name in asked if asked[name] != kept.get(name) and name not in free]
        if other:
            options = ", ".join(f"--{name.replace('_', '-')} {kept.get(name)}" for name in other)
            raise UsageError(f"{self.out} holds another evaluation, with {options}; choose another --out")
        if kept.get("weights") != self._weights():
            raise UsageError(
                f"{self.out} holds an evaluation of other weights in {kept['policy']}; choose another --out"
            )

    def _weights(self) -> str | None:
        spec = self.settings.spec()
        return weights_digest(Path(spec.name)) if spec.kind in ("weights", "ppo") and Path(spec.name).is_dir() else None

    def parts(self) -> list[Part]:
        """Open the tasks; raises UsageError where that is not possible."""
        return [open_part(self.settings, tasks) for tasks in self.settings.tasks]

    def execute(self) -> dict[str, Any]:
        """Play what is missing, then write and return the result."""
        parts = self.parts()
        self.prepare()
        with opened(self.settings, self.out) as player:
            result = self.measure(player, parts)
        print(evaluate(self._kept()).to_markdown().strip())
        print(f"result: {self.written}")
        return result

    def measure(self, player: Player, parts: Sequence[Part]) -> dict[str, Any]:
        """Play what is missing in a folder that was prepared, then write and return the result."""
        for part in parts:
            self.play(player, part)
        result = self.result(parts, self.order(parts), player.facts())
        replace_text(self.written, json.dumps(result, indent=1) + "\n")
        return result

    def play(self, player: Player, part: Part) -> None:
        """Play the episodes of a part that are not there yet."""
        done = {(t.task_id, t.seed) for t in self._kept() if t.error is None or not self.retry}
        missing = [one for key, one in zip(part.keys, part.planned, strict=True) if key not in done]
        if not missing:
            return
        print(f"{part.label}: {len(missing)} of {len(part.planned)} episodes to play")
        # What is left draws from another stream, or a second sample could repeat the first.
        stream = int(np.random.default_rng([self.settings.seed, len(done)]).integers(2**31))
        self._episode_ended = time.perf_counter()
        player.play(part.tasks, missing, self._keep, stream, part.env_kwargs)

    def _keep(self, index: int, episode: Episode) -> None:
        trajectory, before = episode.trajectory(), self._episode_ended
        self._episode_ended = time.perf_counter()
        costs = Costs(trajectory.task_id, trajectory.seed, visual_tokens(episode), self._episode_ended - before)
        append(self.costs, json.dumps(dataclasses.asdict(costs)))  # first: an episode that is there has its costs
        append(self.trajectories, trajectory.to_json())

    def _kept(self) -> list[Trajectory]:
        return load_jsonl(self.trajectories) if self.trajectories.exists() else []

    def order(self, parts: Sequence[Part]) -> list[list[Trajectory]]:
        """Put the file into the order of the plan, and return the trajectories of each part.

        Of an episode that was played again the later record counts.
        """
        found = {(trajectory.task_id, trajectory.seed): trajectory for trajectory in self._kept()}
        played = [[found[key] for key in part.keys] for part in parts]
        whole = self.trajectories.with_suffix(".part")
        save_jsonl(whole, [trajectory for trajectories in played for trajectory in trajectories])
        whole.replace(self.trajectories)
        return played

    def result(self, parts: Sequence[Part], played: list[list[Trajectory]], facts: dict[str, Any]) -> dict[str, Any]:
        """Return all that was measured, and all that it depends on."""
        s, costs = self.settings, read_costs(self.costs)
        first, blocks, prints = parts[0].env, {}, []
        for part, trajectories in zip(parts, played, strict=True):
            prints.append(fingerprint(part.asked))
            measured = block(trajectories, costs, part.env)
            measured |= {"fingerprint": prints[-1], "env_kwargs": part.env_kwargs, "errors": _errors(trajectories)}
            if s.scorer != "strict":
                measured["strict"] = scores(regrade(trajectories, part.tasks, "strict"))
            blocks[part.label] = measured | self.submit(part, trajectories)
        return {
            **provenance(PACKAGES),
            "policy": s.policy,
            "fingerprint": fingerprint(prints),
            "samples": s.samples,
            "seeds": {"sampling": s.seed, "bootstrap": 0},
            "decoding": facts,
            "environment": {"id": ENV_ID, "protocol": s.protocol, **dataclasses.asdict(first.view_settings)}
            | ({"coordinates": BOXES} if s.protocol == "pixelreasoner" else {}),
            "operations": list(s.operations),
            "scorer": s.scorer,
            "counterfactual": s.counterfactual,
            "prompt": prompt_version(first),
            "settings": dataclasses.asdict(s),
            "overall": block([t for trajectories in played for t in trajectories], costs),
            "parts": blocks,
        }

    def submit(self, part: Part, trajectories: Sequence[Trajectory]) -> dict[str, Any]:
        """Write the official file of a split whose answers are hidden."""
        tasks = part.tasks
        if any(t.scored for t in trajectories):
            return {}
        if not isinstance(tasks, FileTasks) or tasks.name not in FORMS:
            print(
                f"{part.label}: no answers are known, so no score, and no official form to hand them in; they are in "
                f"{self.trajectories}"
            )
            return {}
        if len({t.task_id for t in trajectories}) < len(tasks):
            return {"submission": None}  # a part of the questions cannot be handed in
        handed_in = [t for t, one in zip(trajectories, part.planned, strict=True) if one.sample == 0]
        if broken := sum(t.error is not None for t in handed_in):
            print(f"{part.label}: {broken} episodes broke off, so there is nothing to hand in; add --retry-errors")
            return {"submission": None}
        path = self.out / f"submission-{part.label}.json"
        submission(tasks, handed_in, path)
        print(f"{part.label}: no answers are known, so no score; to hand in: {path}")
        return {"submission": path.name}


def _errors(trajectories: Sequence[Trajectory]) -> list[dict[str, Any]]:
    """Return which episodes broke off and why, the first `MOST_ERRORS`; the summary has their number."""
    broken = [t for t in trajectories if t.error is not None][:MOST_ERRORS]
    return [{"task_id": t.task_id, "seed": t.seed, "error": t.error} for t in broken]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    with ending("evaluate.py") as end:
        description = (__doc__ or "").partition("\n\nLeaves")[0]
        settings, out, retry = parse(sys.argv[1:] if argv is None else argv, description)
        end.go_on = f"go on with the same command and --out {out}"
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        result = Run(settings, out, retry).execute()
        if not result["overall"]["summary"]["episodes"]:
            raise UsageError(f"every episode broke off; why is in {out / 'result.json'}; add --retry-errors to go on")
    return end.code


if __name__ == "__main__":
    sys.exit(main())
