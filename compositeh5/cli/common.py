"""What the verbs share: arguments, opening, printing, progress, and running on several processes."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from ..composite import Composite
    from ..operations.running import Progress

FINE, FOUND, COULD_NOT, INTERRUPTED = 0, 1, 2, 130
"""The exit codes: 1 where a verb has found what it looks for (differences, damage), 2 is also argparse's for wrong
arguments, 130 the shell's for Ctrl-C."""


class Verb(NamedTuple):
    """A verb of the command line."""

    run: Callable[[argparse.Namespace], int | None]
    """Does it; returns the exit code if it isn't `FINE`."""
    arguments: Callable[[argparse.ArgumentParser], None]
    help: str
    description: str
    examples: str


def file_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument of a verb that reads one composite."""
    parser.add_argument("file", metavar="FILE", help="the file, or FILE::NAME if it holds several composites")
    parser.add_argument("--name", help="the name of the composite, if the file holds several")


def json_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option of a verb that reports."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def jobs_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option of a verb that works on many files."""
    parser.add_argument(
        "-j", "--jobs", type=number(1, 1024), default=1, metavar="N", help="how many processes work on it (default: 1)"
    )


def number(low: int, high: int) -> Callable[[str], int]:
    """Return the type of an argument that is a whole number between two."""

    def number(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"should be {low} to {high}, not {value}")
        return value

    return number


@contextmanager
def opened(file: str, name: str | None = None) -> Iterator[Composite]:
    """Open the composite that an argument names: ``FILE`` or ``FILE::NAME``."""
    from ..opening import open_composite

    if name is None and "::" in file and not os.path.exists(file):
        file, _, name = file.rpartition("::")
    with open_composite(file, name) as composite:
        yield composite


def print_json(value: Any) -> None:
    """Print what JSON can hold."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def executor(jobs: int) -> AbstractContextManager[Executor | None]:
    """Return the processes that work on many files; none for one job, which is done here."""
    if jobs == 1:
        return nullcontext()
    # Forked copies of a process in which HDF5 has been used, or which has threads, may hang.
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))


@contextmanager
def progress() -> Iterator[Progress]:
    """Return what shows how far the work is: a bar on a terminal, else a line for each step."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
    except ImportError:
        yield _print_steps()
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _print_steps()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task, shown = bar.add_task(""), ""

        def show(step: str, done: int, total: int) -> None:
            nonlocal shown
            # A step that is over before the next redrawing is seen as well.
            bar.update(task, description=step, completed=done, total=total, refresh=step != shown)
            shown = step

        yield show


def _print_steps() -> Progress:
    shown: list[str] = []

    def show(step: str, done: int, total: int) -> None:
        # Not each file: what is piped is read later, if at all.
        if step not in shown:
            shown.append(step)
            print(f"[{done}/{total}] {step}", file=sys.stderr)

    return show
