"""What verbs say: tables and outlines for people, in colour on terminals, or one document of JSON.

The content is the same for all three. Where the output is no terminal, or rich (the extra ``cli``) isn't there, tables
are aligned text. What acts on a terminal is escaped, for names and texts of files may come from strangers.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ..composite.describe import columns, printable
from .export import to_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_STYLES = {
    "absent": "dim",
    "converted": "green",
    "deleted": "yellow",
    "failed": "bold red",
    "linked": "cyan",
    "lost": "bold red",
    "moved": "yellow",
    "ok": "green",
    "in": "yellow",
    "relinked": "green",
    "stale": "bold red",
    "stored": "green",
    "unread": "bold red",
    "young": "dim",
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
    """Print what a verb found: the document if JSON is wanted, else what is shown to people.

    Parameters
    ----------
    arguments : argparse.Namespace
        The arguments of the verb.
    document : object
        What JSON can hold, dataclasses and links.
    *shown : str, Table or Outline
        The same for people, in this order; each string is a line, or several.
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


def is_dumb() -> bool:
    """Return whether the terminal understands no escape codes."""
    return os.environ.get("TERM", "").lower() in ("dumb", "unknown")


def terminal() -> Console | None:
    """Return what draws on the terminal; None where the standard output is none, or without the extra ``cli``."""
    if is_dumb() or not sys.stdout.isatty():
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
    return _STYLES.get(cell.partition(" ")[0], "") if column in _STATES else ""


def _outline(entries: Mapping[str, Any], depth: int) -> Iterator[tuple[int, str]]:
    """Return depth and text of each line: values with aligned names, then what is one level deeper."""
    leaves = {name: value for name, value in entries.items() if not isinstance(value, Mapping)}
    if leaves:
        yield from ((depth, line) for line in to_text(leaves, "record").split("\n"))
    for name, value in entries.items():
        if isinstance(value, Mapping) and value:
            yield depth, printable(name)
            yield from _outline(value, depth + 1)
