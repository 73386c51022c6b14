"""The processes that work on many files."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

_CTRL_C = {signal.SIGINT}


class Workers(ProcessPoolExecutor):
    """Processes that Ctrl-C ends without a word: what they write is whole, or not there.

    Ctrl-C reaches all processes of a terminal. While one is started it is held back, here and there: else a process
    that is just loading its modules, or is told what to do, would tell where it was.
    """

    def __init__(self, jobs: int) -> None:
        # Forked copies of a process in which HDF5 has been used, or which has threads, may hang.
        super().__init__(jobs, mp_context=get_context("spawn"), initializer=_take_ctrl_c)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        try:
            with _ctrl_c_held():
                return super().submit(fn, *args, **kwargs)
        except OSError as error:
            # The pipes to processes that are gone.
            raise BrokenProcessPool(str(error)) from error


@contextmanager
def _ctrl_c_held() -> Iterator[None]:
    pressed: list[int] = []
    # A process that is started inherits what is blocked. In this one, another thread may take the signal.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _CTRL_C)
    handler = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGINT, handler)
    if pressed:
        raise KeyboardInterrupt


def _take_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _CTRL_C)
