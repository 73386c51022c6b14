"""Using two processors at once: to inflate, and to make digests of what is being written meanwhile.

Threads were tried for deflating, and for reading what isn't compressed, too: they cost a third more CPU time, and gain
a tenth of the time or nothing.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")

THREADS = 2
"""So many threads at most. What is between the calls that leave the lock keeps more of them from gaining much."""

WORTHWHILE_BYTES = 4 * 1024 * 1024
"""Less work than that is done by the calling thread."""


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
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        deque(pool.map(function, items), maxlen=0)


Begin = Callable[[Callable[[], str]], Callable[[], str]]
"""Has a text be made, and returns what waits for it."""


@contextmanager
def aside() -> Iterator[Begin]:
    """Give what has functions called by another thread, one after the other; with one processor, when they are needed.

    The thread ends when it has done what it was given in the block.
    """
    if available() == 1:
        yield lambda make: make
        return
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(1)
    try:
        yield lambda make: pool.submit(make).result
    finally:
        pool.shutdown(wait=False)


def available() -> int:
    """Return how many threads may be used: the processors of this process, fewer if ``OMP_NUM_THREADS`` says so.

    That variable is how pipelines that run a process on each processor ask libraries for a single thread.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    limit = int(wanted) if wanted.isdecimal() else THREADS
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(THREADS, limit, processors))
