"""Kill runs at random moments, fill their disk, start them twice, and compare what they leave with a run left in peace.

    python benchmarks/faults.py                                      # every job, ten kills each
    python benchmarks/faults.py --jobs evaluation --kills 3 --out /tmp/faults.json

The jobs are the commands of this project on tiny settings. Each is run once undisturbed. Then it is killed (SIGKILL) at
moments drawn evenly over the time that this took, every other time together with all that it has started, and gone on
with by the command that a user would type; a run that ends before is begun anew, until there were enough kills. After
each kill every file is read that bears its final name, and at the end the folder has to hold what the undisturbed one
does. The same with files that may not grow beyond a size drawn at random (RLIMIT_FSIZE), in place of a full disk; with
a second run started beside; and, of the pretraining, with kills of the process that makes its batches alone.

A job is added to the JSON file when it is done, in place of its older figures. Runs are forks of a process that has
imported everything, so that kills fall on work.
"""

import argparse
import json
import math
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from agents import grpo, make_demonstrations, micro, pretrain_micro, report, sft, train_vlm, vlm_policy
from benchmarks import evaluate
from benchmarks.left_behind import broken, difference, repeated
from benchmarks.provenance import RESULTS, provenance, readable
from benchmarks.scripted_teacher import teach
from pixel_env.command_line import Parser, UsageError, ending
from pixel_env.journal import replace_text

IMPORTED = (grpo, report, sft, vlm_policy)
"""What the commands import late, because it takes seconds."""

SMALL = (
    "--epochs 2 --batch-size 4 --demonstrations 16 --prompts 2 --group-size 2 --rl-steps 4 --save-steps 2"
    " --test-tasks 2 --batch-episodes 2 --max-new-tokens 12 --max-completion-tokens 300 --rl-batch-size 4"
    " --rl-learning-rate 1e-3 --evaluate last"
)
PRETRAINING = "--see-steps 8 --see-batch 2 --talk-steps 8 --talk-batch 2 --steps 6 --batch 2 --save-seconds 0.5"
CONCURRENCY = 4
PATIENCE = 3600.0
"""Seconds for a run that nobody kills."""
PACKAGES = ("torch", "transformers", "trl", "gymnasium", "safetensors")


@dataclass(frozen=True)
class Job:
    """A command and what is to be found when it has ended.

    Attributes:
        main: The command.
        arguments: What it is started with, besides ``--out``.
        files: What is the same, whatever happened, as `difference` takes it.
        weights: Folder of the weights, or "".
        resume: It goes on with ``--resume``, and not with the same command.
        worker: It has a process of its own beside it.
    """

    main: Callable[[list[str]], int]
    arguments: str
    files: tuple[str, ...]
    weights: str = ""
    resume: bool = False
    worker: bool = False

    def command(self, out: Path) -> list[str]:
        """Return what to begin with, or to go on with."""
        begun = self.resume and (out / "config.json").exists()
        return [*(["--resume"] if begun else self.arguments.split()), "--out", str(out)]

    def check(self, whole: Path, out: Path) -> float:
        """Compare a run with the undisturbed one, as `difference`."""
        return difference(whole, out, self.files, self.weights)


def jobs(model: Path, teacher: str) -> dict[str, Job]:
    """Return all of them; `model` is the folder of a tiny model, `teacher` the address of a server."""
    played = ("trajectories/*.jsonl", "metrics")
    train = f"{SMALL} --model {model} --stages"
    return {
        "SFT": Job(train_vlm.main, f"{train} warm_start", played, "warm_start/model", resume=True),
        "RL": Job(train_vlm.main, f"{train} rl", played, "rl/model", resume=True),
        "evaluation": Job(
            evaluate.main,
            f"--tasks search clip --preset micro --policy {model} --limit 8 --samples 2 --temperature 0.7"
            " --batch-episodes 2 --max-new-tokens 12 --max-completion-tokens 300",
            ("trajectories.jsonl", "result"),
        ),
        "demonstrations": Job(
            make_demonstrations.main,
            f"--tasks search --preset micro --levels 1 --limit 24 --per-seed 2 --textual 8 --sampler direct --teacher"
            f" tiny@{teacher} --concurrency {CONCURRENCY}",
            ("demonstrations.jsonl", "report"),
        ),
        "pretraining": Job(pretrain_micro.main, PRETRAINING, ("log.json",), "model", worker=True),
    }


# --- runs -----------------------------------------------------------------------------------------------------------


def start(job: Job, out: Path, largest: int | None = None) -> int:
    """Start a run in a process and a group of its own; returns its id. What it says is appended to a file beside.

    With `largest`, no file may grow beyond that many bytes.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    os.setsid()
    log = out.with_suffix(".log") if largest is None else os.devnull  # which would grow, too
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    code = 70
    try:
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
        torch.set_num_threads(1)
        pretrain_micro.FITTED_VIEWS = 20
        arguments = job.command(out)
        sys.argv = [job.main.__module__, *arguments]
        code = job.main(arguments)
    except BaseException as error:
        print(f"not told in one line: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int, seconds: float) -> int | None:
    """Wait for a run; returns its exit code, None if it is still at work then."""
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.005)


def finish(job: Job, out: Path) -> None:
    """Run a job to its end."""
    code = ended(pid := start(job, out), PATIENCE)
    if code is None:
        os.killpg(pid, signal.SIGKILL)
    if code != 0:
        raise RuntimeError(f"expected exit code 0 of {job.command(out)}, got {code}, see {out.with_suffix('.log')}")


def group(pid: int) -> list[psutil.Process]:
    """Return the processes at work in a group, its leader left out."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if process.pid != pid and process.info["status"] != psutil.STATUS_ZOMBIE and os.getpgid(process.pid) == pid:
                found.append(process)
        except ProcessLookupError:
            pass
    return found


# --- trials ---------------------------------------------------------------------------------------------------------


def killed(job: Job, folder: Path, whole: Path, seconds: float, kills: int, rng: np.random.Generator) -> dict[str, Any]:
    """Kill runs until there were `kills`; see the head of this file. `whole` is the undisturbed run."""
    done, runs, alone, left, again, wrong, apart = 0, 0, 0, 0, list[int](), list[str](), 0.0
    while done < kills:
        runs, out = runs + 1, folder / f"killed-{runs}"
        while done < kills and ended(pid := start(job, out), rng.uniform(0, seconds)) is None:
            done += 1
            if done % 2:
                os.killpg(pid, signal.SIGKILL)
            else:
                alone += 1
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            time.sleep(0.0 if done % 2 else 1.0)
            for process in group(pid):
                left += 1
                process.kill()
            wrong += broken(out)
        finish(job, out)
        apart = max(apart, job.check(whole, out))
        if (count := repeated(out)) is not None:
            again.append(count)
    return {
        "kills": done,
        "of_the_process_alone": alone,
        "processes_left_behind": left,
        "runs": runs,
        "repeated": sum(again) if again else None,
        "broken_files": wrong,
        "weights_differ_by": apart if job.weights else None,
    }


def filled(job: Job, folder: Path, whole: Path, times: int, rng: np.random.Generator) -> dict[str, Any]:
    """Let no file grow beyond a size, then go on without a limit."""
    largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    told, ended_well, wrong = 0, 0, list[str]()
    for number in range(times):
        out = folder / f"full-{number}"
        limit = int(math.exp(rng.uniform(math.log(500), math.log(largest))))
        code = ended(start(job, out, limit), PATIENCE)
        told += code in (1, 2)
        ended_well += code == 0
        wrong += broken(out)
        finish(job, out)
        job.check(whole, out)
    return {"times": times, "told": told, "did_not_matter": ended_well, "broken_files": wrong}


def twice(job: Job, folder: Path, whole: Path) -> bool:
    """Start a second run while one is at work; returns whether it refuses."""
    out = folder / "twice"
    first, code = start(job, out), None
    while code is None and not (out / "lock").exists():
        code = ended(first, 0.005)
    code = ended(first, 0.2) if code is None else code
    refused = ended(start(job, out), PATIENCE) == 2 and "another run is at work" in out.with_suffix(".log").read_text()
    if (code if code is not None else ended(first, PATIENCE)) != 0:
        raise RuntimeError(f"the first run in {out} did not end well")
    job.check(whole, out)
    return refused


def without_worker(job: Job, folder: Path, whole: Path, seconds: float, kills: int, rng: np.random.Generator) -> int:
    """Kill the process beside a run, which has to go on; returns how often there was one to kill."""
    done, number = 0, 0
    while done < kills:
        number, out = number + 1, folder / f"worker-{number}"
        pid, code = start(job, out), None
        while code is None and (code := ended(pid, rng.uniform(0, seconds / 2))) is None:
            for process in group(pid) if done < kills else ():
                process.kill()
                done += 1
        if code != 0:
            raise RuntimeError(f"expected exit code 0 after a kill of its worker, got {code}, see {out}.log")
        job.check(whole, out)
    return done


def trial(job: Job, folder: Path, kills: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return what became of a job."""
    folder.mkdir(parents=True)
    whole = folder / "undisturbed"
    begun = time.monotonic()
    finish(job, whole)
    seconds = time.monotonic() - begun
    if wrong := broken(whole):
        raise RuntimeError(f"files of an undisturbed run cannot be read: {wrong}")
    found: dict[str, Any] = {"seconds_undisturbed": round(seconds, 1)}
    found["killed"] = killed(job, folder, whole, seconds, kills, rng)
    found["no_room"] = filled(job, folder, whole, max(1, kills // 2), rng)
    found["second_run_refused"] = twice(job, folder, whole)
    if job.worker:
        found["workers_killed"] = without_worker(job, folder, whole, seconds, max(1, kills // 2), rng)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    with ending("faults.py") as end:
        names = tuple(jobs(Path(), ""))
        parser = Parser(prog="faults.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument(
            "--jobs", nargs="+", choices=names, default=names, metavar="JOB", help=f"of {' '.join(names)}"
        )
        parser.add_argument("--kills", type=int, default=10, help="of every job, at least (%(default)s)")
        parser.add_argument("--seed", type=int, default=0, help="of the moments (%(default)s)")
        parser.add_argument("--out", type=Path, default=RESULTS / "faults.json", help="JSON file (%(default)s)")
        asked = parser.parse_args(argv)
        if asked.kills < 1:
            raise UsageError(f"expected --kills of at least 1, got {asked.kills}")
        torch.set_num_threads(1)  # a process with threads must not be forked
        os.environ |= {"TOKENIZERS_PARALLELISM": "false", "NO_PROXY": "127.0.0.1", "CUDA_VISIBLE_DEVICES": ""}
        written: dict[str, Any] = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else {}
        ours, theirs = multiprocessing.Pipe()
        server = multiprocessing.get_context("fork").Process(target=teach, args=(theirs,), daemon=True)
        server.start()
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder) / "tiny"
            _write_tiny(model)
            for name, job in jobs(model, f"http://127.0.0.1:{ours.recv()}/v1").items():
                if name in asked.jobs:
                    print(name, file=sys.stderr)
                    rng = np.random.default_rng([asked.seed, names.index(name)])
                    about = provenance(PACKAGES) | {"seed": asked.seed}
                    written[name] = about | trial(job, Path(folder) / name, asked.kills, rng)
                    replace_text(asked.out, readable(written))
        server.terminate()
        print(readable(written))
    return end.code


def _write_tiny(folder: Path) -> None:
    processor = micro.load_processor(micro.MICRO_BASE)
    torch.manual_seed(0)
    micro.save(micro.build_model(processor, hidden=64, layers=2, depth=2), processor, folder)


if __name__ == "__main__":
    sys.exit(main())
