"""How far the work is: on the standard error, where that is a terminal, with the rate and the time that is left."""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from .output import is_dumb

if TYPE_CHECKING:
    from ..operations.running import Progress

_EVERY = 0.1
"""Seconds between two writings of the plain line."""


@contextmanager
def progress(arguments: Namespace) -> Iterator[Progress]:
    """Return what shows how far the work is; nothing is shown with ``--quiet``, or where there is no terminal.

    With rich (the extra ``cli``) it is a bar, else a line that is written again and again.
    """
    if arguments.quiet or is_dumb() or not sys.stderr.isatty():
        yield lambda step, done, total: None
        return
    try:
        import rich.progress  # noqa: F401
    except ImportError:
        shown: AbstractContextManager[Progress] = _line()
    else:
        shown = _bar()
    with shown as show:
        yield show


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}", markup=False),
        TimeElapsedColumn(),
    )
    pace, shown = _Pace(), ("", False)
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", visible=False, pace="")

        def show(step: str, done: int, total: int) -> None:
            nonlocal shown
            speed = pace.text(done, total)
            now = step, bool(speed)
            # A step that is over before the next redrawing is seen as well, and its rate.
            more = {"refresh": now != shown, "visible": True, "pace": speed}
            bar.update(task, description=step, completed=done, total=total, **more)
            shown = now

        yield show


@contextmanager
def _line() -> Iterator[Progress]:
    pace, shown, width, last = _Pace(), ("", False), 0, 0.0

    def show(step: str, done: int, total: int) -> None:
        nonlocal shown, width, last
        now, speed = time.monotonic(), pace.text(done, total)
        if (step, bool(speed)) == shown and now - last < _EVERY:
            return
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
        text = f"{step} {done}/{total} {speed}"[: columns - 1]
        print(f"\r{text.ljust(width)}", end="", file=sys.stderr, flush=True)
        shown, width, last = (step, bool(speed)), len(text), now

    try:
        yield show
    finally:
        print(f"\r{' ' * width}\r", end="", file=sys.stderr, flush=True)


class _Pace:
    """How fast the work is done, and how long the rest takes at that rate."""

    def __init__(self) -> None:
        self._total, self._done, self._first, self._start = 0, 0, 0, 0.0

    def text(self, done: int, total: int) -> str:
        """Return rate and time left, as ``12.5/s, 0:01:20 left``; nothing before the first item is done."""
        now = time.monotonic()
        if total != self._total or done < self._done:
            # Other work begins, which has its own rate.
            self._total, self._first, self._start = total, done, now
        self._done = done
        if done == self._first or now == self._start:
            return ""
        rate = (done - self._first) / (now - self._start)
        left = round((total - done) / rate)
        speed = f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
        return f"{speed}, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
