"""What the verbs share: how they are described, their arguments, opening, and running on several processes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

from . import completion

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from contextlib import AbstractContextManager

    from ..composite import Composite

FINE, FOUND, COULD_NOT, INTERRUPTED = 0, 1, 2, 130
"""The exit codes: 1 where a verb has found what it looks for (differences, damage), 2 where something could not be
done, which is also argparse's for wrong arguments, 130 the shell's for Ctrl-C."""


class Verb(NamedTuple):
    """A verb of the command line. All verbs have ``--json`` and ``--quiet`` beside their own arguments."""

    run: Callable[[argparse.Namespace], int | None]
    """Does it; returns the exit code if it isn't `FINE`."""
    arguments: Callable[[argparse.ArgumentParser], None]
    """Adds its arguments to a parser."""
    help: str
    """What it does, in one line; also that of the table in the README."""
    description: str
    examples: str
    """Command lines, which a test runs."""
    json: str
    """The keys of the document that ``--json`` prints: ``"file, copied"``, or ``"a list of source, target"``."""
    found: str = ""
    """What exit code 1 says; empty if there is none."""


def file_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument of a verb that reads one composite."""
    parser.add_argument("file", metavar="FILE", help="a file, or FILE::NAME if it holds several composites")
    option(
        parser, "--name", help="the name of the composite, if the file holds several (default: its main one)",
        completer=completion.composites,
    )  # fmt: skip


def component_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument of a verb that takes one component of a file."""
    action = parser.add_argument("component", metavar="COMPONENT", help="the name of the component, as `ls` shows it")
    completion.completed(action, completion.components)


def option(
    parser: argparse._ActionsContainer,
    *names: str,
    completer: completion.Completer = completion.nothing,
    **more: object,
) -> None:
    """Add an option with a value of which a shell offers what ``completer`` tells; by default nothing."""
    completion.completed(parser.add_argument(*names, **more), completer)  # type: ignore[arg-type]


def components_option(parser: argparse.ArgumentParser, help: str) -> None:
    """Add the option of a verb that takes some components."""
    option(
        parser, "-c", "--components", type=names, action="extend", metavar="NAME,NAME", help=help,
        completer=completion.components,
    )  # fmt: skip


def folder_arguments(parser: argparse.ArgumentParser, help: str) -> None:
    """Add the arguments of a verb that looks into folders, with all below them."""
    parser.add_argument("roots", metavar="FOLDER", nargs="+", help=help)


def force_argument(parser: argparse.ArgumentParser, what: str = "OUT") -> None:
    """Add the option that lets a verb replace files."""
    parser.add_argument("--force", action="store_true", help=f"replace {what} if it exists")


def jobs_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option of a verb that works on many files."""
    option(
        parser, "-j", "--jobs", type=number(1, 1024), default=1, metavar="N",
        help="how many processes work on it (default: 1)",
    )  # fmt: skip


def names(text: str) -> list[str]:
    """Return the names in a list that is separated by commas."""
    return [name for name in text.split(",") if name]


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


def executor(jobs: int) -> AbstractContextManager[Executor | None]:
    """Return the processes that work on many files; none for one job, which is done here."""
    if jobs == 1:
        return nullcontext()
    from .workers import Workers

    return Workers(jobs)
