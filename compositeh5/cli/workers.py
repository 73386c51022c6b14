"""The processes that work on many files."""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

_CTRL_C = {signal.SIGINT}


class Workers(ProcessPoolExecutor):
    """Processes that Ctrl-C ends without a word: what they write is whole, or not there.

    Ctrl-C reaches all processes of a terminal. It is held back while one is started, and by that until it can take it;
    else those that are just loading their modules would tell where.
    """

    def __init__(self, jobs: int) -> None:
        # Forked copies of a process in which HDF5 has been used, or which has threads, may hang.
        super().__init__(jobs, mp_context=get_context("spawn"), initializer=_take_ctrl_c)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _CTRL_C)
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _take_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _CTRL_C)
