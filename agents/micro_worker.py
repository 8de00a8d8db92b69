"""The process that makes the batches of the micro base's pretraining, each a function of its stage, seed and size."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Self

import torch

from agents import micro_batches
from agents.conversation import ChatEncoder
from agents.micro_batches import LessonEncoder

AHEAD = 3
"""Batches that are made ahead."""
OFFSET = 2_000_000
"""Between the lessons of two seeds: more than a run has steps."""


class Worker:
    """Makes batches in a process of its own, some ahead; one that is killed is replaced by another."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __enter__(self) -> Self:
        self._pool = ProcessPoolExecutor(1, initializer=_prepare, initargs=(self._processor,))
        return self

    def __exit__(self, *_: Any) -> None:
        self._pool.shutdown(cancel_futures=True)

    def batches(self, asked: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Yield what `_batch` makes of arguments, in their order.

        Raises:
            BrokenProcessPool: A batch has ended two processes.
        """
        ahead = deque[tuple[tuple[Any, ...], Future[Any]]]()
        for arguments in asked:
            ahead.append((arguments, self._submit(arguments)))
            if len(ahead) > AHEAD:
                yield self._first(ahead)
        while ahead:
            yield self._first(ahead)

    def _submit(self, arguments: tuple[Any, ...]) -> Future[Any]:
        try:
            return self._pool.submit(_batch, *arguments)
        except BrokenProcessPool as error:  # told when it is this batch's turn
            broken = Future[Any]()
            broken.set_exception(error)
            return broken

    def _first(self, ahead: deque[tuple[tuple[Any, ...], Future[Any]]]) -> Any:
        try:
            batch = ahead[0][1].result()
        except BrokenProcessPool:
            print("the process that makes batches was killed; another one goes on", flush=True)
            self.__enter__()
            for place, (arguments, _) in enumerate(ahead):
                ahead[place] = arguments, self._submit(arguments)
            batch = ahead[0][1].result()
        ahead.popleft()
        return batch


_encoders: dict[str, LessonEncoder] = {}


def _prepare(processor: Any) -> None:
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    torch.set_num_threads(1)
    encoder = ChatEncoder(processor)
    _encoders.update(talk=LessonEncoder(encoder, drawn=False), speak=LessonEncoder(encoder, drawn=True))


def _end_with_the_run() -> None:
    """End this process when its parent is killed: it would wait for more work for ever."""
    run = multiprocessing.parent_process()
    assert run is not None
    run.join()
    os._exit(1)


def _batch(stage: str, seed: int, size: int, done: float) -> Any:
    if stage == "see":
        return micro_batches.seeing_batch(seed, size, done)
    if stage == "talk":
        batch = micro_batches.talking_batch(seed, size, done)
    else:
        batch = micro_batches.speaking_batch(seed + OFFSET // 2, size, 0.3)  # not the lessons of the stage before
    return [_encoders[stage](lessons) for lessons in batch]
