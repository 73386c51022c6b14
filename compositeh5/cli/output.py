"""What people see: tables and outlines, in colour on terminals, or one document of JSON; and how far the work is.

The content is the same for all three. Where the output is no terminal, or rich (the extra ``cli``) isn't there, tables
are aligned text. What acts on a terminal is escaped, for names and texts of files may come from strangers.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from ..composite.display import columns, printable
from .export import to_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from ..trees.running import Progress

_STYLES = {
    "green": ("converted", "ok", "relinked", "stored"),
    "cyan": ("linked",),
    "yellow": ("deleted", "in use", "moved"),
    "bold red": ("failed", "lost", "stale", "unread"),
    "dim": ("absent", "young"),
}
"""How cells look that begin with one of these words, in the columns that tell states."""

_STATES = {"state", "where"}


class Table(NamedTuple):
    """Rows below a header; nothing is shown if there are no rows."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


class Outline(NamedTuple):
    """A title, and below it names with their values; where a value is a mapping of its own, one level deeper."""

    title: str
    entries: Mapping[str, Any]


def report(arguments: Namespace, document: Any, *shown: str | Table | Outline) -> None:
    """Print what a verb found: the document if JSON is wanted, else what is shown to people, in this order.

    The document is what JSON can hold, dataclasses and links. Each string is a line, or several.
    """
    if arguments.json:
        print(json.dumps(document, default=_json, indent=2, ensure_ascii=False, allow_nan=False))
        return
    console = terminal()
    for item in shown:
        if isinstance(item, Table) and not item.rows:
            continue
        if console is None:
            _print_plain(item)
        else:
            console.print(_rich(item), soft_wrap=isinstance(item, str))


def _json(value: Any) -> Any:
    from ..composite.link import Link

    if isinstance(value, Link):
        return value.record()
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return dict(value)


def _is_dumb() -> bool:
    """Return whether the terminal understands no escape codes."""
    return os.environ.get("TERM", "").lower() in ("dumb", "unknown")


def terminal() -> Console | None:
    """Return what draws on the terminal; None where the standard output is none, or without the extra ``cli``."""
    if _is_dumb() or not sys.stdout.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(highlight=False, markup=False, emoji=False)


def harmless(text: str) -> str:
    """Return lines with what would act on a terminal escaped."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def _print_plain(item: str | Table | Outline) -> None:
    if isinstance(item, str):
        print(harmless(item) if sys.stdout.isatty() else item)
    elif isinstance(item, Table):
        print(columns([item.header, *item.rows]))
    else:
        print(printable(item.title))
        for depth, line in _outline(item.entries, 1):
            print(f"{'  ' * depth}{line}")


def _rich(item: str | Table | Outline) -> RenderableType:
    from rich.table import Table as Grid
    from rich.text import Text
    from rich.tree import Tree

    if isinstance(item, str):
        return harmless(item)
    if isinstance(item, Outline):
        tree = Tree(Text(printable(item.title), "bold"), guide_style="dim")
        branches = [tree]
        for depth, line in _outline(item.entries, 1):
            del branches[depth:]
            branches.append(branches[-1].add(Text(line)))
        return tree
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in item.header:
        # What doesn't fit is told on a further line, never left out.
        grid.add_column(name, overflow="fold")
    for row in item.rows:
        grid.add_row(*(Text(printable(cell), _style(name, cell)) for name, cell in zip(item.header, row, strict=True)))
    return grid


def _style(column: str, cell: str) -> str:
    found = (style for style, words in _STYLES.items() if column in _STATES and cell.startswith(words))
    return next(found, "")


def _outline(entries: Mapping[str, Any], depth: int) -> Iterator[tuple[int, str]]:
    """Return depth and text of each line: values with aligned names, then what is one level deeper."""
    leaves = {name: value for name, value in entries.items() if not isinstance(value, Mapping)}
    if leaves:
        yield from ((depth, line) for line in to_text(leaves, "record").split("\n"))
    for name, value in entries.items():
        if isinstance(value, Mapping) and value:
            yield depth, printable(name)
            yield from _outline(value, depth + 1)


# ---- How far the work is ---------------------------------------------------------------------------------------


@contextmanager
def progress(arguments: Namespace, step: str = "") -> Iterator[Progress]:
    """Yield a function that shows on the standard error how far the work is.

    With rich it is a bar with the rate and the time that is left, else a line that is written again and again. Nothing
    is shown with ``--quiet``, or where there is no terminal. If the work is one step, its name can be given here.
    """
    if arguments.quiet or _is_dumb() or not sys.stderr.isatty():
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
