"""Make demonstrations for the warm start from real tasks: a teacher behind an endpoint writes what is said in them.

    python agents/make_demonstrations.py --tasks star:STAR_train.json --teacher MODEL@http://127.0.0.1:8000/v1
    python agents/make_demonstrations.py --tasks images:PHOTOS --teacher MODEL@https://HOST/v1 --prices 2.5 10
    python agents/make_demonstrations.py --tasks search --preset micro --textual 100 --sampler micro
    python agents/train_vlm.py --preset standard --sft-data runs/demonstrations-.../demonstrations.jsonl

Leaves demonstrations.jsonl (trajectories), records.jsonl (what became of every seed, and why), report.md and
report.json in its folder, and questions-N/ for the N-th of --tasks if it is plain images. Seeds are written as they are
finished and replies as they arrive: after a stop or a kill the same command with --out goes on and asks nothing twice.
"""

import asyncio
import json
import os
import shlex
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from agents import questions
from agents.api_policy import EndpointPolicy
from agents.demonstration_report import markdown, summary
from agents.demonstration_settings import SAMPLED_TOKENS, Settings, parse
from agents.message_files import write_message_lists
from agents.outcomes import Record
from agents.players import Decoding, open_player, read_policy
from agents.taught import Stage, teach
from agents.textual import Sampling, sample
from pixel_env.command_line import UsageError, ending, run_folder
from pixel_env.journal import append, complete_lines, replace_text
from pixel_env.tasks import SUITES
from pixel_env.trajectory import save_jsonl

SUITE_LIMIT = 256
"""Tasks of a generated suite, unless --limit says otherwise."""

Work = Callable[[Stage, str, int, EndpointPolicy, Executor], Awaitable[Record]]
"""Makes something of one task: `agents.taught.teach` or `agents.questions.ask`."""


class Run:
    """A folder and what has been made in it; `execute` does what is missing."""

    def __init__(self, settings: Settings, out: Path) -> None:
        """Use the folder `out`."""
        self.settings, self.out, self.journal = settings, out, out / "records.jsonl"
        self.records: dict[tuple[str, str, int], Record] = {}
        self.asked: list[tuple[str, str, int]] = []  # in the order of the command line, whatever came first
        self.sampled_with: dict[str, Any] = {}

    def prepare(self) -> None:
        """Make the folder, or take up the run in it; raises UsageError where it holds another one."""
        config, asked = self.out / "config.json", json.loads(json.dumps(self.settings.depends_on))
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            kept = json.loads(config.read_text(encoding="utf-8")) if config.exists() else asked
            if other := [name for name in asked if asked[name] != kept.get(name)]:
                options = ", ".join(f"--{name.replace('_', '-')} {kept.get(name)}" for name in other)
                raise UsageError(f"{self.out} holds other demonstrations, with {options}; choose another --out")
            replace_text(config, json.dumps(asked, indent=1) + "\n")
            complete_lines(self.journal)
            with self.journal.open(encoding="ascii") as lines:
                read = map(Record.from_json, lines)
                self.records = {record.key: record for record in read}
        except OSError as error:
            raise UsageError(f"cannot write to {self.out}: {error.strerror}; choose another --out") from None
        except ValueError as error:
            raise UsageError(f"{self.out} holds something else: {error}") from None

    def execute(self) -> None:
        """Make what is missing, and write demonstrations and report."""
        s = self.settings
        if s.teacher_spec is not None:
            with self._teacher(s.teacher_spec.name, s.teacher_spec.more) as teacher:
                self._teach(teacher)
        if s.sampler is not None:
            self._sample(s.sampler)
        self.report()

    def _teacher(self, model: str, base_url: str) -> EndpointPolicy:
        s = self.settings
        try:
            return EndpointPolicy(
                model,
                base_url=base_url,
                temperature=s.temperature,
                max_new_tokens=s.max_new_tokens,
                concurrency=s.concurrency,
                cache=self.out / "replies.jsonl",
            )
        except ValueError as error:
            raise UsageError(str(error)) from None

    def _teach(self, teacher: EndpointPolicy) -> None:
        seen = {record.fingerprint for record in self.records.values() if "duplicate" not in record.reasons}
        for number, tasks in enumerate(self.settings.tasks):
            stage = self._stage(tasks, seen)
            chosen: Sequence[int] = self._chosen(tasks, stage)
            if questions.is_plain(stage.tasks):
                asked = self._work("question", questions.ask, stage, tasks, chosen, teacher)
                made = questions.write_questions(asked, stage, self.out / f"questions-{number}")
                if made is None:
                    continue
                tasks, stage = made, self._stage(made, seen)
                chosen = range(len(stage.tasks))
            self._work("taught", teach, stage, tasks, chosen, teacher)

    def _work(
        self, name: str, work: Work, stage: Stage, tasks: str, chosen: Sequence[int], teacher: EndpointPolicy
    ) -> list[Record]:
        """Do the work on tasks that is not done yet, several at a time; returns the records of all of them."""
        keys = [(name, tasks, index) for index in chosen]
        waiting = deque(index for key, index in zip(keys, chosen, strict=True) if key not in self.records)
        with (
            ThreadPoolExecutor(1, "environments") as environments,
            tqdm(total=len(keys), initial=len(keys) - len(waiting), desc=name, unit="task") as bar,
        ):

            async def worker() -> None:
                while waiting:
                    self._keep(await work(stage, tasks, waiting.popleft(), teacher, environments))
                    bar.update()

            async def workers() -> None:
                async with asyncio.TaskGroup() as group:
                    for _ in range(self.settings.concurrency):
                        group.create_task(worker())

            teacher.endpoint.run(workers())
        self.asked += keys
        return [self.records[key] for key in keys]

    def _keep(self, record: Record) -> None:
        """Note what became of a seed; what was not answered is asked again by the next run."""
        self.records[record.key] = record
        if "no_reply" not in record.reasons:
            append(self.journal, record.to_json())

    def _sample(self, sampler: str) -> None:
        """Sample textual demonstrations of tasks that may be answered at a glance, until there are enough."""
        s = self.settings
        decoding = Decoding(
            s.sampler_temperature, *SAMPLED_TOKENS[s.preset], s.batch_episodes, s.concurrency, s.coordinates
        )
        seen = {record.fingerprint for record in self.records.values() if record.trajectories}
        sampling, wanted = Sampling(s.tries, s.batch_episodes, s.seed), s.textual
        with open_player(read_policy(sampler, None), decoding, self.out / "sampler") as player:
            for tasks in s.tasks:
                stage = self._stage(tasks, set())
                keys = [("textual", tasks, index) for index in self._chosen(tasks, stage)]
                wanted -= sum(len(self.records[key].trajectories) for key in keys if key in self.records)
                if not questions.is_plain(stage.tasks):
                    new = [key[2] for key in keys if key not in self.records and _at_a_glance(stage, key[2])]
                    wanted -= sample(player, stage, tasks, new, wanted, self._keep, sampling, s.env_kwargs(tasks), seen)
                self.asked += [key for key in keys if key in self.records]
            self.sampled_with = player.facts()

    def _stage(self, tasks: str, seen: set[str]) -> Stage:
        s = self.settings
        try:
            return Stage(s.env_kwargs(tasks), s.seed, s.per_seed, seen)
        except (ValueError, TypeError, ImportError, OSError) as error:
            raise UsageError(f"--tasks {tasks}: {str(error).splitlines()[0]}") from None

    def _chosen(self, tasks: str, stage: Stage) -> Sequence[int]:
        """Draw --limit tasks, in random order since sets on disk are sorted; a larger limit adds to the same."""
        count, limit = len(stage.tasks), self.settings.limit
        if tasks in SUITES:
            return range(min(limit or SUITE_LIMIT, count))
        return np.random.default_rng(self.settings.seed).permutation(count).tolist()[:limit]

    def report(self) -> None:
        """Write the demonstrations and the report, in an order that no kill has changed."""
        s, records = self.settings, [self.records[key] for key in self.asked]
        path = self.out / "demonstrations.jsonl"
        made = [trajectory for record in records for trajectory in record.trajectories]
        save_jsonl(path, made)
        if s.message_lists:
            write_message_lists(made, self.out / "message_lists")
        command = shlex.join(["python", *sys.argv])
        figures = summary(records, s.prices) | {"sampler": self.sampled_with}
        replace_text(self.out / "report.json", json.dumps({"command": command, **figures}, indent=1) + "\n")
        text = markdown(figures, command)
        replace_text(self.out / "report.md", text)
        print(text)
        if lost := [outcome.detail for r in records for outcome in r.outcomes if outcome.reason == "no_reply"]:
            print(f"{len(lost)} without a reply; the same command with --out {self.out} asks again. First: {lost[0]}")


def _at_a_glance(stage: Stage, index: int) -> bool:
    task = stage.tasks[index]
    return bool(task.answers) and task.needs_operation is not True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    with ending("make_demonstrations.py") as end:
        description = (__doc__ or "").partition("\n\nLeaves")[0]
        settings, out = parse(sys.argv[1:] if argv is None else argv, description)
        end.go_on = f"go on with the same command and --out {out}"
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        run = Run(settings, out)
        with run_folder(out):
            run.prepare()
            run.execute()
    return end.code


if __name__ == "__main__":
    os.environ.setdefault("PIXEL_ENV_DECODE_IN_PROCESS", "1")  # a decoder that crashes costs one file, not the run
    sys.exit(main())
