"""Using two processors at once: to inflate, and to make digests of what is being written meanwhile.

Threads were tried for deflating, and for reading what isn't compressed, too: they cost a third more CPU time, and gain
a tenth of the time or nothing.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Item = TypeVar("Item")

THREADS = 2
"""So many threads at most. What is between the calls that leave the lock keeps more of them from gaining much."""

WORTHWHILE_BYTES = 4 * 1024 * 1024
"""Less work than that is done by the calling thread."""


NO_THREADS = RuntimeError
"""What starting a thread raises when the interpreter ends, or where the system allows no more of them."""


def for_each(function: Callable[[Item], None], items: Iterable[Item], nbytes: int) -> None:
    """Call a function with each item.

    Parameters
    ----------
    function : callable
        What threads can do at the same time.
    items : iterable
        Its arguments.
    nbytes : int
        How much work it is altogether.

    Raises
    ------
    Exception
        What the function raises for the first item that fails; items that were not begun by then are left out.
    """
    threads = available() if nbytes >= WORTHWHILE_BYTES else 1
    if threads == 1:
        for item in items:
            function(item)
        return
    items = list(items)
    with ExitStack() as stack:
        try:
            results = stack.enter_context(_pool(threads)).map(function, items)
        except NO_THREADS:
            results = map(function, items)
        deque(results, maxlen=0)


def _pool(threads: int) -> ThreadPoolExecutor:
    # Loaded where it is needed; and it can't be when the interpreter ends.
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(threads)


class Aside:
    """Has another thread make texts, one after the other; with one processor they are made when they are needed."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None

    def begin(self, make: Callable[[], str]) -> Callable[[], str]:
        """Have a text made, and return what waits for it."""
        if available() == 1:
            return make
        try:
            self._thread = self._thread or _pool(1)
            return self._thread.submit(make).result
        except NO_THREADS:
            return make

    def close(self) -> None:
        """Let the thread end when it has done what it was given."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)


def available() -> int:
    """Return how many threads may be used: the processors of this process, fewer if ``OMP_NUM_THREADS`` says so.

    That variable is how pipelines that run a process on each processor ask libraries for a single thread.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    limit = int(wanted) if wanted.isdecimal() else THREADS
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(THREADS, limit, processors))
