"""How far the work is: on the standard error, where that is a terminal."""

from __future__ import annotations

import shutil
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from .output import is_dumb

if TYPE_CHECKING:
    from ..trees.running import Progress


@contextmanager
def progress(arguments: Namespace, step: str = "") -> Iterator[Progress]:
    """Yield a function that shows how far the work is.

    With rich (the extra ``cli``) it is a bar with the rate and the time that is left, else a line that is written again
    and again. Nothing is shown with ``--quiet``, or where there is no terminal. If the work is one step, its name can
    be given here.
    """
    if arguments.quiet or is_dumb() or not sys.stderr.isatty():
        yield lambda step, done, total: None
        return
    with _bar() if find_spec("rich") else _line() as show:
        if step:
            show(step, 0, 1)
        yield show


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich import progress as bars
    from rich.console import Console

    class Rate(bars.ProgressColumn):  # type: ignore[misc]
        def render(self, task: bars.Task) -> str:
            speed = task.finished_speed or task.speed or 0
            return f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each" if speed else ""

    columns = (
        bars.SpinnerColumn(),
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        Rate(),
        bars.TimeRemainingColumn(),
        bars.TimeElapsedColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task("", total=None, visible=False)
        (task,) = bar.tasks

        def show(step: str, done: int, total: int) -> None:
            if total != task.total or done < task.completed:
                # Other work begins, which has its own rate.
                bar.reset(task.id, total=total, completed=done, visible=True)
            # A step that is over before the next redrawing is seen as well.
            bar.update(task.id, description=step, completed=done, refresh=step != task.description)

        yield show


@contextmanager
def _line() -> Iterator[Progress]:
    width = 0

    def show(step: str, done: int, total: int) -> None:
        nonlocal width
        text = f"{step} {done}/{total}"[: shutil.get_terminal_size().columns - 1]
        print(f"\r{text.ljust(width)}", end="", file=sys.stderr, flush=True)
        width = len(text)

    try:
        yield show
    finally:
        print(f"\r{' ' * width}\r", end="", file=sys.stderr, flush=True)
