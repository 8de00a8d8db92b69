"""What was decoded last, kept for every environment of the process, up to a number of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Value = TypeVar("Value")


class Cache:
    """Values by key, of which the least recently used go first; threads may share it.

    Attributes:
        limit: Most bytes that are kept. One value alone may be larger: it stays until another one comes.
        held: Bytes that are kept now.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value], size: Callable[[Value], int]) -> Value:
        """Return the value of a key, made now if it is not there.

        Args:
            key: Whatever has the same key is the same value.
            make: Makes the value; what it raises is raised here, and nothing is kept.
            size: Bytes of a value.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
        value = make()  # slow, so other threads go on; two that want the same value may both make it
        with self._lock:
            self.held -= self._kept.pop(key, (None, 0))[1]
            self._kept[key] = value, size(value)
            self.held += self._kept[key][1]
            while self.held > self.limit and len(self._kept) > 1:
                self.held -= self._kept.popitem(last=False)[1][1]
        return value

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self.held = 0


DECODED = Cache(2**29)
"""Pictures and frames of files. Each process has one; set ``limit`` where many large sources are in play at a time."""
