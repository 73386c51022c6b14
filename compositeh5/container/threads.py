"""Inflating on two processors at once.

Threads were tried for deflating, and for reading what isn't compressed, too: they cost a third more CPU time, and gain
a tenth of the time or nothing.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
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


def available() -> int:
    """Return how many threads may be used: the processors of this process, fewer if ``OMP_NUM_THREADS`` says so.

    That variable is how pipelines that run a process on each processor ask libraries for a single thread.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    limit = int(wanted) if wanted.isdecimal() else THREADS
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(THREADS, limit, processors))
