"""Running the same work on many files, here or on any executor, in order and with bounded memory."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from itertools import islice
from typing import TypeAlias, TypeVar

from ..errors import require_type

Item = TypeVar("Item")
Result = TypeVar("Result")

Progress: TypeAlias = Callable[[str, int, int], object]
"""Called with what is being done, how many are done, and how many there are."""

_BATCHES = 256
"""About so many batches are made: each costs a message to another process."""

_AHEAD = 32
"""So many batches are handed out before their results are taken: with 10 000 files, not all wait in memory."""


def no_progress(step: str, done: int, total: int) -> None:
    """Show nothing."""


def check_running(executor: object, progress: object) -> None:
    """Raise `WrongTypeError` unless these are something that runs work, or None, and something that can be called."""
    require_type(executor, (Executor, type(None)), "a concurrent.futures.Executor (of dask: Client.get_executor())")
    require_type(progress, Callable, "a function that is told of the progress")  # type: ignore[arg-type]


def map_in_order(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    executor: Executor | None = None,
    progress: Progress = no_progress,
    step: str = "",
    chunksize: int | None = None,
    buffersize: int = _AHEAD,
) -> Iterator[Result]:
    """Return the results of a function for each item, in the order of the items.

    Parameters
    ----------
    function : callable
        What to do. For an executor of processes it must be picklable: a function of a module, or `functools.partial`
        of one.
    items : sequence
        The arguments.
    executor : concurrent.futures.Executor, optional
        Where it runs: threads, processes, or `distributed.Client.get_executor`. Without one, here.
    progress : callable, optional
        Told how many are done.
    step : str, optional
        What is being done, for it.
    chunksize : int, optional
        Number of items that are handed out together; by default such that there are some 256 batches.
    buffersize : int, optional
        Number of such batches that are handed out before their results are taken.

    Raises
    ------
    Exception
        What the function raises for the first item that fails; what was not begun by then never runs.
    """
    check_running(executor, progress)
    total = len(items)
    progress(step, 0, total)
    if executor is None:
        for done, item in enumerate(items, 1):
            yield function(item)
            progress(step, done, total)
        return
    size = chunksize or max(1, -(-total // _BATCHES))
    # Dask takes calls with equal arguments for one; but the files may have changed since the last.
    call = uuid.uuid4().hex
    batches = (items[start : start + size] for start in range(0, total, size))
    waiting: deque[Future[list[Result]]] = deque()
    done = 0
    try:
        while done < total:
            for batch in islice(batches, buffersize - len(waiting)):
                waiting.append(executor.submit(_batch, call, function, batch))
            results = waiting.popleft().result()
            done += len(results)
            progress(step, done, total)
            yield from results
    finally:
        for future in waiting:
            future.cancel()


def _batch(call: str, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [function(item) for item in items]
