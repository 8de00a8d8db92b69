"""Observations in shared memory, so that ``AsyncVectorEnv`` works as it is.

Gymnasium dispatches on the type of a space. Each environment has a slot of fixed size for its texts and images; the
main process reads the slots when the observation is copied (``copy=True``, the default) or indexed (``copy=False``).
Importing this module registers the functions.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceABC
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory, write_to_shared_memory

from pixel_env.spaces import AnyText, ImageList, Images

TEXT_BYTES = 2**16
"""Room for one observation text in UTF-8."""


class Slots(NamedTuple):
    """Shared arrays of all environments: ``head`` (int64) says how to read ``data`` (bytes)."""

    head: Any
    data: Any

    def of(self, index: int, num_envs: int) -> tuple[np.ndarray, np.ndarray]:
        """Return head and data of one environment as writable arrays."""
        head = np.frombuffer(self.head.get_obj(), dtype=np.int64).reshape(num_envs, -1)
        data = np.frombuffer(self.data.get_obj(), dtype=np.uint8).reshape(num_envs, -1)
        return head[index], data[index]


class Live(SequenceABC[Any]):
    """What the environments wrote last, read when it is asked for; a deep copy is a plain tuple."""

    def __init__(self, read: Callable[[int], Any], num_envs: int) -> None:
        self._read, self._num_envs = read, num_envs

    def __len__(self) -> int:
        return self._num_envs

    def __getitem__(self, index: Any) -> Any:
        return self._read(range(self._num_envs)[index])

    def __iter__(self) -> Iterator[Any]:
        return map(self._read, range(self._num_envs))

    def __deepcopy__(self, memo: dict[int, Any]) -> tuple[Any, ...]:
        return tuple(self)


@create_shared_memory.register
def _create_text(space: AnyText, n: int = 1, ctx: Any = multiprocessing) -> Slots:
    return Slots(ctx.Array("q", n), ctx.Array("B", n * TEXT_BYTES))


@write_to_shared_memory.register
def _write_text(space: AnyText, index: int, value: str, shared_memory: Slots) -> None:
    encoded = value.encode("utf-8", "surrogatepass")
    if len(encoded) > TEXT_BYTES:
        raise ValueError(
            f"expected an observation text of at most {TEXT_BYTES} bytes, got {len(encoded)}; "
            "make the AsyncVectorEnv with shared_memory=False"
        )
    head, data = shared_memory.of(index, len(shared_memory.head))
    head[0] = len(encoded)
    data[: len(encoded)] = np.frombuffer(encoded, dtype=np.uint8)


@read_from_shared_memory.register  # type: ignore[arg-type]
def _read_text(space: AnyText, shared_memory: Slots, n: int = 1) -> Live:
    def read(index: int) -> str:
        head, data = shared_memory.of(index, n)
        return data[: head[0]].tobytes().decode("utf-8", "surrogatepass")

    return Live(read, n)


@create_shared_memory.register
def _create_images(space: ImageList, n: int = 1, ctx: Any = multiprocessing) -> Slots:
    # Head of one environment: number of images, then height and width of each.
    return Slots(ctx.Array("q", n * (1 + 2 * space.max_images)), ctx.Array("B", n * space.max_total_pixels * 3))


@write_to_shared_memory.register
def _write_images(space: ImageList, index: int, value: Images, shared_memory: Slots) -> None:
    num_envs = len(shared_memory.head) // (1 + 2 * space.max_images)
    head, data = shared_memory.of(index, num_envs)
    head[0] = len(value)
    start = 0
    for position, image in enumerate(value):
        head[1 + 2 * position : 3 + 2 * position] = image.shape[:2]
        data[start : start + image.size] = image.ravel()
        start += image.size


@read_from_shared_memory.register  # type: ignore[arg-type]
def _read_images(space: ImageList, shared_memory: Slots, n: int = 1) -> Live:
    def read(index: int) -> Images:
        head, data = shared_memory.of(index, n)
        sizes = head[1 : 1 + 2 * head[0]].reshape(-1, 2).tolist()
        ends = np.cumsum([0] + [3 * height * width for height, width in sizes]).tolist()
        return tuple(
            data[start:end].reshape(height, width, 3).copy()
            for (height, width), start, end in zip(sizes, ends[:-1], ends[1:], strict=True)
        )

    return Live(read, n)
