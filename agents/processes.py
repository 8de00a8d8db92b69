"""The processes that a launcher, or `together`, starts: which one this is, and what they do together.

Everything works in a process that was started alone, too, and then costs nothing. Only what several need imports torch.
"""

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from typing import Any, TypeVar

from pixel_env.command_line import UsageError

LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
"""What torchrun and accelerate set for every process that they start; clusters set some of them, never all."""
PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: while one draws demonstrations, or plays the longest rollouts."""
PATIENCE_WITH_A_STOP = 60
"""Seconds that processes have to end by themselves."""

T = TypeVar("T")


def rank_and_count(environ: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return the number of this process, 0 for the main one, and how many there are.

    >>> rank_and_count({"RANK": "2", "LOCAL_RANK": "2", "WORLD_SIZE": "4"}), rank_and_count({"WORLD_SIZE": "4"})
    ((2, 4), (0, 1))
    """
    if not all(environ.get(name, "").isdecimal() for name in LAUNCHED):
        return 0, 1
    return int(environ["RANK"]), int(environ["WORLD_SIZE"])


def is_sharded(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the launcher says that each process keeps a part of the weights: FSDP, or ZeRO-3 of DeepSpeed."""
    said = {name: environ.get(f"ACCELERATE_{name}", "").lower() for name in ("USE_FSDP", "USE_DEEPSPEED")}
    zero = environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3"
    return said["USE_FSDP"] == "true" or (said["USE_DEEPSPEED"] == "true" and zero)


def is_main() -> bool:
    """Whether this is the process that writes and prints."""
    return rank_and_count()[0] == 0


def together(call: Callable[[], int], count: int) -> int:
    """Run `call` in so many new processes of this machine, as if a launcher had started them.

    They share the threads that one would have. Where one fails the others are ended, as all are with this process.

    Returns:
        The exit code of the first that failed, else 0.
    """
    from torch.multiprocessing import ProcessExitedException, start_processes

    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # that it ends the others
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = start_processes(_one, (call, count, port), count, join=False, start_method="spawn")
    try:
        while not started.join():
            pass
    except ProcessExitedException as error:
        return error.exit_code
    except KeyboardInterrupt:  # of the terminal, which tells them as well: they save, and one says how to go on
        for process in started.processes:
            process.join(PATIENCE_WITH_A_STOP)
        return 130
    return 0


def _one(rank: int, call: Callable[[], int], count: int, port: int) -> None:
    place = zip(LAUNCHED, (rank, rank, count), strict=True)
    os.environ.update({name: str(value) for name, value in place}, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    sys.exit(call())


@contextmanager
def joined() -> Iterator[None]:
    """Let the processes find each other, and part again; those beside the main one print nothing meanwhile."""
    rank, count = rank_and_count()
    if count == 1:
        yield
        return
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    if rank:
        try:
            with redirect_stdout(None):
                yield
        except KeyboardInterrupt:
            raise SystemExit(130) from None  # the main one tells
    else:
        yield
    wait()  # not after an error: the others may wait elsewhere, until the launcher ends them
    PartialState().destroy_process_group()


def wait() -> None:
    """Wait until all processes are here."""
    if rank_and_count()[1] > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def once(call: Callable[[], T]) -> T:
    """Call in the main process and return its result in all of them; if it raises, the others end without a word."""
    rank, count = rank_and_count()
    if count == 1:
        return call()
    from accelerate.utils import broadcast_object_list

    told: list[Any] = [None, None]
    if rank == 0:
        try:
            told[0] = call()
        except (Exception, SystemExit) as error:
            told[1] = error.code if isinstance(error, SystemExit) else 2 if isinstance(error, UsageError) else 1
            broadcast_object_list(told)
            raise
    broadcast_object_list(told)
    if told[1] is not None:
        raise SystemExit(told[1])
    return told[0]


def gathered(items: Sequence[T]) -> list[T]:
    """Return the items of all processes, those of the main one first."""
    if rank_and_count()[1] == 1:
        return list(items)
    from accelerate.utils import gather_object

    return gather_object(list(items))


def share(number: int, what: str) -> int:
    """Return how many of a number of equal pieces of work each process does.

    Raises:
        ValueError: They cannot be shared out evenly.
    """
    count = rank_and_count()[1]
    if number % count:
        raise ValueError(f"expected {what} that {count} processes can share out evenly, got {number}")
    return number // count
