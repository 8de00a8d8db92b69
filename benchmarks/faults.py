"""Kill runs at random moments, fill their disk, start them twice, and compare what they leave with a run left in peace.

    python benchmarks/faults.py                                      # every job, ten kills each
    python benchmarks/faults.py --jobs evaluation --kills 3 --out /tmp/faults.json

The jobs are the commands of this project on tiny settings. Each is run once undisturbed. Then it is killed (SIGKILL) at
moments drawn evenly over the time that this took, every other time together with all that it has started, and gone on
with by the command that a user would type; a run that ends before is begun anew, until there were enough kills. After
each kill every file is read that bears its final name, and at the end the folder has to hold what the undisturbed one
does. The same with files that may not grow beyond a size drawn at random (RLIMIT_FSIZE), in place of a full disk; with
a second run started beside; and, of the pretraining, with kills of the process that makes its batches alone.

Runs are forks of a process that has imported everything, so that kills fall on work.
"""

import argparse
import hashlib
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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from agents import grpo, make_demonstrations, micro, pretrain_micro, report, sft, train_vlm, vlm_policy
from benchmarks import evaluate
from benchmarks.provenance import RESULTS, provenance, readable
from pixel_env.command_line import Parser, UsageError, ending
from pixel_env.journal import replace_text
from pixel_env.trajectory import load_jsonl

IMPORTED = (grpo, report, sft, vlm_policy)
"""What the commands import late, because it takes seconds."""

SMALL = (
    "--epochs 2 --batch-size 4 --demonstrations 16 --prompts 2 --group-size 2 --rl-steps 4 --save-steps 2"
    " --test-tasks 2 --batch-episodes 2 --max-new-tokens 12 --max-completion-tokens 300 --rl-batch-size 4"
    " --rl-learning-rate 1e-3"
    " --evaluate last"
)
PRETRAINING = "--see-steps 8 --see-batch 2 --talk-steps 8 --talk-batch 2 --steps 6 --batch 2 --save-seconds 0.5"
CONCURRENCY = 4
TOLERANCE = {"rtol": 1e-3, "atol": 1e-5}
"""Of the weights: sums are not always made in the same order."""
PATIENCE = 600.0
PACKAGES = ("torch", "transformers", "trl", "gymnasium", "safetensors")


@dataclass(frozen=True)
class Job:
    """A command and what is to be found when it has ended.

    Attributes:
        main: The command.
        arguments: What it is started with, besides ``--out``.
        files: Those that are the same to the byte, whatever happened; of those with a "*" at least one is there.
        weights: Folder of the weights, which are the same to `TOLERANCE`, or "".
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
        return ["--resume" if begun else word for word in ([""] if begun else self.arguments.split())] + [
            "--out",
            str(out),
        ]


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
    """Start a run in a process and a group of its own; returns its id. What it says is appended to a file beside."""
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    os.setsid()
    said = os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    code = 70
    try:
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
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


# --- what they leave ------------------------------------------------------------------------------------------------


def broken(out: Path) -> list[str]:
    """Return the files with a final name that cannot be read; lines that a kill cut short are no part of a file."""
    wrong = []
    for path in sorted(out.rglob("*")):
        place = path.relative_to(out)
        begun = any(Path(part).suffix in (".part", ".old") for part in place.parts)
        marked = not str(place.parts[-2:-1]).count("checkpoint-") or (path.parent / "complete").exists()
        if begun or not marked or not path.is_file():
            continue
        try:
            _read(path)
        except Exception as error:
            wrong.append(f"{place}: {type(error).__name__}: {error}")
    return wrong


def _read(path: Path) -> None:
    match path.suffix:
        case ".json":
            json.loads(path.read_bytes())
        case ".jsonl":
            for line in path.read_bytes().split(b"\n")[:-1]:
                json.loads(line)
        case ".safetensors":
            with safe_open(path, "pt") as tensors:
                for name in tensors.keys():
                    tensors.get_tensor(name)
        case ".pt" | ".pth" | ".bin":
            torch.load(path, weights_only=False)
        case ".png":
            Image.open(path).load()


def difference(job: Job, expected: Path, got: Path) -> float:
    """Return by how much the weights of two runs differ at most.

    Raises:
        RuntimeError: Something else does, or they differ by more than `TOLERANCE`.
    """
    for pattern in job.files:
        sides = [_content(folder, pattern) for folder in (expected, got)]
        if sides[0] != sides[1]:
            raise RuntimeError(f"{pattern} of {got} is not that of {expected}")
    if not job.weights:
        return 0.0
    first, second = (load_file(folder / job.weights / "model.safetensors") for folder in (expected, got))
    for name, weights in first.items():
        torch.testing.assert_close(second[name].float(), weights.float(), **TOLERANCE)
    return max(float((second[name].float() - weights.float()).abs().max()) for name, weights in first.items())


def _content(out: Path, pattern: str) -> Any:
    """Return what may not differ in files; of "metrics", "result" and "report" what does not tell time or machine."""
    if pattern == "metrics":
        return {
            (row["stage"], row["step"]) for row in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        }
    if pattern == "result":
        return json.loads((out / "result.json").read_text())["overall"]["summary"]
    if pattern == "report":
        return json.loads((out / "report.json").read_text())["stages"]
    return {
        path.name: [t.task_id for t in load_jsonl(path)] if "*" in pattern else _digest(path)
        for path in sorted(out.glob(pattern))
    }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def repeated(job: Job, out: Path) -> int:
    """Return how much was done more than once: optimizer steps, or episodes."""
    if (out / "metrics.jsonl").exists():
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        steps = [(row["stage"], row["step"]) for row in rows if "train_runtime" not in row]
        return len(steps) - len(set(steps))
    if (out / "costs.jsonl").exists():
        return len((out / "costs.jsonl").read_text().splitlines()) - len(load_jsonl(out / "trajectories.jsonl"))
    return 0


# --- a teacher ------------------------------------------------------------------------------------------------------


def teach(pipe: Any) -> None:
    """Serve the chat protocol: say of every question of `search` what a teacher would. Sends its port."""
    env = gym.make("PixelReason-Mixed-v0", suite=["search"], difficulty=[1], preset="micro", split="train")
    tasks = env.unwrapped.tasks  # type: ignore[attr-defined]
    answers = {task.question: task.answers[0] for task in (tasks[index] for index in range(64))}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = "".join(part.get("text", "") for part in body["messages"][1]["content"])
            said = {"analysis": "Many small things.", "target": "what is asked about", "answer": "unknown"}
            if "A closer look" in text:
                said["answer"] = answers.get(text.partition("Question: ")[2].partition("\n")[0], "unknown")
            wanted = [name for name in said if f'"{name}"' in text.rpartition("Reply: ")[2]]
            message = {"role": "assistant", "content": json.dumps({name: said[name] for name in wanted})}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
            reply = {"id": "", "object": "chat.completion", "created": 0, "model": "tiny"}
            sent = json.dumps(reply | {"choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:  # a client that was killed
            pass

    server = Server(("127.0.0.1", 0), Handler)
    pipe.send(server.server_port)
    server.serve_forever()


# --- trials ---------------------------------------------------------------------------------------------------------


def killed(job: Job, folder: Path, whole: Path, seconds: float, kills: int, rng: np.random.Generator) -> dict[str, Any]:
    """Kill runs until there were `kills`; see the head of this file. `whole` is the undisturbed run."""
    done, runs, alone, left, again, wrong, apart = 0, 0, 0, 0, 0, list[str](), 0.0
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
        apart = max(apart, difference(job, whole, out))
        again += repeated(job, out)
    return {
        "kills": done, "of_the_process_alone": alone, "processes_left_behind": left, "runs": runs, "repeated": again,
        "broken_files": wrong, "weights_differ_by": apart,
    }  # fmt: skip


def filled(job: Job, folder: Path, whole: Path, times: int, rng: np.random.Generator) -> dict[str, Any]:
    """Let no file grow beyond a size, then go on without a limit."""
    largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    told, ended_well, wrong = 0, 0, list[str]()
    for number in range(times):
        out = folder / f"full-{number}"
        limit = int(math.exp(rng.uniform(math.log(500), math.log(largest))))
        code = ended(start(job, out, limit), PATIENCE)
        told += code == 1
        ended_well += code == 0
        wrong += broken(out)
        finish(job, out)
        difference(job, whole, out)
    return {"times": times, "told": told, "did_not_matter": ended_well, "broken_files": wrong}


def twice(job: Job, folder: Path, whole: Path) -> bool:
    """Start a second run while one is at work; returns whether it refuses."""
    out = folder / "twice"
    first = start(job, out)
    while not (out / "lock").exists():
        time.sleep(0.005)
    time.sleep(0.2)
    refused = ended(start(job, out), PATIENCE) == 2 and "another run is at work" in out.with_suffix(".log").read_text()
    if ended(first, PATIENCE) != 0:
        raise RuntimeError(f"the first run in {out} did not end well")
    difference(job, whole, out)
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
        difference(job, whole, out)
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
        written: dict[str, Any] = provenance(PACKAGES) | {"seed": asked.seed, "jobs": {}}
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
                    written["jobs"][name] = trial(job, Path(folder) / name, asked.kills, rng)
                    replace_text(asked.out, readable(written))
        server.terminate()
        print(readable(written["jobs"]))
    return end.code


def _write_tiny(folder: Path) -> None:
    processor = micro.load_processor(micro.MICRO_BASE)
    torch.manual_seed(0)
    micro.save(micro.build_model(processor, hidden=64, layers=2, depth=2), processor, folder)


if __name__ == "__main__":
    sys.exit(main())
