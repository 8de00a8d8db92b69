"""Measure a policy on any tasks, and write down everything that the numbers depend on.

    python benchmarks/evaluate.py --tasks vstar:/data/vstar_bench --policy Qwen/Qwen2.5-VL-7B-Instruct
    python benchmarks/evaluate.py --tasks search count --policy micro --samples 4 --temperature 0.7
    python benchmarks/evaluate.py --tasks vstar:/data/vstar_bench --policy endpoint:MODEL@http://127.0.0.1:8000/v1
    python benchmarks/evaluate.py --tasks search --policy my_module:MyPolicy --operations none
    python benchmarks/evaluate.py --tasks search --policy micro --out runs/x --shard 1/2     # and 2/2, then --merge

Leaves result.json, trajectories.jsonl and costs.jsonl in the folder of the results, and the official file of a split
whose answers are hidden. Episodes are written as they finish; after a stop or a kill the same command with --out goes
on. A model that runs here plays a batch at a time, so a kill costs at most the batch. Processes that share an
evaluation play a shard each, in a folder of its own; --merge makes the result that one process makes.
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agents.players import ENV_ID, Player, open_player, weights_digest
from benchmarks.evaluation_settings import Settings, parse
from benchmarks.fingerprint import fingerprint
from benchmarks.measures import block, prompt_version, scores, visual_tokens
from benchmarks.parts import Key, Part, open_part
from benchmarks.ppo_player import PPOPlayer
from benchmarks.provenance import provenance
from benchmarks.result_file import Costs, read_costs
from benchmarks.shards import WHOLE, Shard, joined, launched, shards_in
from pixel_env.command_line import UsageError, ending, run_folder
from pixel_env.evaluation import evaluate
from pixel_env.journal import append, complete_lines, replace_text
from pixel_env.released_protocol import BOXES
from pixel_env.rollout import Episode, Planned
from pixel_env.scorers import regrade
from pixel_env.tasks import FileTasks, submission
from pixel_env.tasks.submission import FORMS
from pixel_env.trajectory import Trajectory, load_jsonl, save_jsonl

PACKAGES = (
    "pixel-env", "gymnasium", "numpy", "pillow", "av", "decord", "rapidfuzz", "math-verify", "pyarrow", "openai",
    "torch", "transformers",
)  # fmt: skip
"""Whose versions may move a number."""

MOST_ERRORS = 50


def opened(settings: Settings, out: Path) -> Player:
    """Return what plays the policy of the settings; `out` is where it may keep files.

    Raises:
        UsageError: The policy cannot be had.
    """
    spec = settings.spec()
    return PPOPlayer(Path(spec.name)) if spec.kind == "ppo" else open_player(spec, settings.decoding(), out)


class Run:
    """A folder of results and what has been played in it."""

    def __init__(self, settings: Settings, out: Path, retry: bool = False, shard: Shard = WHOLE) -> None:
        """Use the folder `out`, or that of a shard in it; `retry` plays episodes again that broke off with an error."""
        self.settings, self.retry, self.shard = settings, retry, shard
        self.out = out = out if shard == WHOLE else out / shard.folder
        self.trajectories, self.costs = out / "trajectories.jsonl", out / "costs.jsonl"
        self.written, self.facts = out / "result.json", out / "facts.json"
        self._episode_ended = 0.0

    def prepare(self) -> None:
        """Make the folder, or check that it is one of the same run.

        Raises:
            UsageError: It cannot be written, or holds another run.
        """
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            if not self._check():
                kept = dataclasses.asdict(self.settings) | {"weights": self._weights()}
                replace_text(self.out / "config.json", json.dumps(kept, indent=1) + "\n")
            for path in (self.trajectories, self.costs):
                complete_lines(path)
        except OSError as error:
            raise UsageError(f"cannot write to {self.out}: {error.strerror}; choose another --out") from None

    def _check(self) -> bool:
        """Say whether the folder holds a beginning of this run.

        Raises:
            UsageError: It holds another run.
        """
        config = self.out / "config.json"
        if not (config.exists() and self.trajectories.exists() and self.trajectories.stat().st_size):
            return False
        try:
            kept = json.loads(config.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"{config} is not the configuration of an evaluation: {error}") from None
        asked = json.loads(json.dumps(dataclasses.asdict(self.settings)))
        free = ["concurrency", "timeout", "retries", "deadline", "prices"]  # how fast, not what
        free += ["batch_episodes"] if self.shard == WHOLE or self.batch == 1 else []  # else another share of the plan
        other = [name for name in asked if asked[name] != kept.get(name) and name not in free]
        if other:
            options = ", ".join(f"--{name.replace('_', '-')} {kept.get(name)}" for name in other)
            raise UsageError(f"{self.out} holds another evaluation, with {options}; choose another --out")
        if kept.get("weights") != self._weights():
            raise UsageError(
                f"{self.out} holds an evaluation of other weights in {kept['policy']}; choose another --out"
            )
        return True

    def _weights(self) -> str | None:
        spec = self.settings.spec()
        return weights_digest(Path(spec.name)) if spec.kind in ("weights", "ppo") and Path(spec.name).is_dir() else None

    @property
    def batch(self) -> int:
        """Episodes that belong together: rounding and random streams of a model that runs here are those of a batch."""
        return self.settings.batch_episodes if self.settings.spec().kind == "weights" else 1

    def parts(self) -> list[Part]:
        """Open the tasks; raises UsageError where that is not possible."""
        return [open_part(self.settings, tasks) for tasks in self.settings.tasks]

    def execute(self) -> dict[str, Any]:
        """Play what is missing, then write and return the result."""
        parts = self.parts()
        with run_folder(self.out):
            self.prepare()
            with opened(self.settings, self.out) as player:
                return self.measure(player, parts)

    def measure(self, player: Player, parts: Sequence[Part]) -> dict[str, Any]:
        """Play what is missing in a folder that was prepared, then write and return the result."""
        for part in parts:
            self.play(player, part)
        return self.write(parts, player.facts())

    def write(self, parts: Sequence[Part], facts: dict[str, Any]) -> dict[str, Any]:
        """Write and return the result of episodes that are all there."""
        result = self.result(parts, self.order(parts), facts)
        replace_text(self.written, json.dumps(result, indent=1) + "\n")
        return result

    def tell(self) -> None:
        """Print the table of the result."""
        print(evaluate(self._kept()).to_markdown().strip())
        print(f"result: {self.written}")

    def execute_shard(self) -> None:
        """Play what is missing of a shard, and note that it is whole."""
        parts = self.parts()
        with run_folder(self.out):
            self.prepare()
            if self.facts.exists() and not any(self.missing(part) for part in parts):
                print(f"shard {self.shard} was whole already")
                return
            self.facts.unlink(missing_ok=True)
            with opened(self.settings, self.out) as player:
                for part in parts:
                    self.play(player, part)
                replace_text(self.facts, json.dumps(player.facts(), indent=1) + "\n")
        print(f"shard {self.shard} is whole; when all are: --merge in place of --shard")

    def merge(self) -> dict[str, Any]:
        """Make of all shards in the folder the result that one process makes.

        Raises:
            UsageError: A shard is missing, not whole yet, or of another evaluation.
        """
        parts = self.parts()
        runs = [Run(self.settings, self.out, shard=shard) for shard in shards_in(self.out)]
        if lacks := "; ".join(lack for run in runs if (lack := run.lacking(parts))):
            raise UsageError(
                f"cannot merge {self.out}: {lacks}; the same command with --shard in place of --merge goes on"
            )
        facts = {run.shard: json.loads(run.facts.read_text(encoding="utf-8")) for run in runs}
        noted = joined(facts, self.settings.prices)
        with run_folder(self.out):
            self.prepare()
            for name in (self.trajectories.name, self.costs.name):
                replace_text(self.out / name, "".join((run.out / name).read_text(encoding="utf-8") for run in runs))
            return self.write(parts, noted)

    def lacking(self, parts: Sequence[Part]) -> str:
        """Return what a shard lacks, "" if it is whole."""
        if not self.out.is_dir():
            return f"shard {self.shard} is missing"
        self._check()
        whole = sum(len(batch) for part in parts for batch in self.shard.of(part.batches(self.batch)))
        if self.facts.exists():
            there = whole - sum(len(self.missing(part)) for part in parts)
            if there == whole:
                return ""
        else:  # it may be played at this moment, so that its last line is not whole yet
            there = min(whole, self.trajectories.read_bytes().count(b"\n") if self.trajectories.exists() else 0)
        return f"shard {self.shard} was not ended, {there} of {whole} episodes are there"

    def missing(self, part: Part) -> list[tuple[Key, Planned]]:
        """Return the episodes of a part that are to be played, in whole batches."""
        done = {(t.task_id, t.seed) for t in self._kept() if t.error is None or not self.retry}
        batches = self.shard.of(part.batches(self.batch))
        return [one for batch in batches if any(key not in done for key, _ in batch) for one in batch]

    def play(self, player: Player, part: Part) -> None:
        """Play the episodes of a part that are not there yet."""
        missing = [one for _, one in self.missing(part)]
        if not missing:
            return
        print(f"{part.label}: {len(missing)} of {len(part.planned)} episodes to play")
        self._episode_ended = time.perf_counter()
        player.play(part.tasks, missing, self._keep, part.stream, part.env_kwargs)

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
        save_jsonl(self.trajectories, [trajectory for trajectories in played for trajectory in trajectories])
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
        asked = parse(sys.argv[1:] if argv is None else argv, description, launched(os.environ))
        end.go_on = f"go on with the same command and --out {asked.out}"
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        run = Run(asked.settings, asked.out, asked.retry, asked.shard)
        if asked.shard != WHOLE:
            run.execute_shard()
            return end.code
        result = run.merge() if asked.merge else run.execute()
        run.tell()
        if not result["overall"]["summary"]["episodes"]:
            raise UsageError(f"every episode broke off; why is in {run.written}; add --retry-errors to go on")
    return end.code


if __name__ == "__main__":
    os.environ.setdefault("PIXEL_ENV_DECODE_IN_PROCESS", "1")  # a decoder that crashes costs one file, not the run
    sys.exit(main())
