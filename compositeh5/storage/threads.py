"""Using two processors at once: to deflate, to read and inflate or check, to make digests of what is written."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = 2
"""So many threads at most. What is between the calls that leave the lock keeps more of them from gaining much."""

WORTHWHILE_BYTES = 4 * 1024 * 1024
"""Less work than that is done by the calling thread."""

WAITING = 4
"""So many items at most wait for a thread, or for being fetched."""

NO_THREADS = RuntimeError
"""What starting a thread raises when the interpreter ends, or where the system allows no more of them."""


def in_order(function: Callable[[Item], Result], items: Iterable[Item], nbytes: int) -> Iterator[Result]:
    """Yield what a function returns for each item, in order; threads call it while the caller makes the next items.

    ``nbytes`` says how much work it is altogether. The first failure is raised; items not begun by then are left out.
    """
    pool = _pool() if nbytes >= WORTHWHILE_BYTES else None
    if pool is None:
        yield from map(function, items)
        return
    running: deque[Callable[[], Result]] = deque()
    try:
        for item in items:
            if len(running) == WAITING:
                yield running.popleft()()
            try:
                running.append(pool.submit(function, item).result)
            except NO_THREADS:
                running.append(partial(function, item))
        while running:
            yield running.popleft()()
    finally:
        pool.shutdown(cancel_futures=True)


def for_each(function: Callable[[Item], object], items: Iterable[Item], nbytes: int) -> None:
    """Call a function with each item; see `in_order`."""
    deque(in_order(function, items, nbytes), maxlen=0)


def batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of so many items; the last one may have fewer."""
    # `itertools.batched` came with Python 3.12.
    while batch := list(islice(items, size)):
        yield batch


def _pool() -> ThreadPoolExecutor | None:
    """Return what starts threads; None where all is done by one, or if the interpreter ends, and has none any more."""
    if (threads := available()) == 1:
        return None
    try:
        # Loaded where it is needed.
        from concurrent.futures import ThreadPoolExecutor
    except NO_THREADS:
        return None
    return ThreadPoolExecutor(threads)


def available() -> int:
    """Return how many threads may be used: the processors of this process, fewer if ``OMP_NUM_THREADS`` says so.

    That variable is how pipelines that run a process on each processor ask libraries for a single thread.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    limit = int(wanted) if wanted.isdecimal() else THREADS
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(THREADS, limit, processors))
