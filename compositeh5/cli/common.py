"""What the verbs share: how they are declared, their arguments, opening, and running on several processes."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from . import completion
from .progress import progress

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from contextlib import AbstractContextManager


FINE, FOUND, COULD_NOT, INTERRUPTED = 0, 1, 2, 130
"""The exit codes: 1 where a verb has found what it looks for (differences, damage), 2 where something could not be
done, which is also argparse's for wrong arguments, 130 the shell's for Ctrl-C."""


class Argument(NamedTuple):
    """An argument of a verb."""

    names: tuple[str, ...]
    how: dict[str, Any]
    """What else argparse's ``add_argument`` takes."""
    completer: completion.Completer | None
    """What a shell offers for it; None for names of files."""

    def add(self, parser: argparse._ActionsContainer) -> None:
        """Add it to a parser or a group."""
        action = parser.add_argument(*self.names, **self.how)
        if self.completer is not None:
            action.completer = self.completer  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Verb:
    """A verb of the command line. All verbs have ``--json`` and ``--quiet`` beside their own arguments."""

    run: Callable[[argparse.Namespace], int | None]
    """Does it; returns the exit code if it isn't `FINE`. Its name is that of the verb, its docstring the help."""
    arguments: tuple[Argument | tuple[Argument, ...], ...]
    """The arguments; of those in an inner tuple only one can be given."""
    json: str
    """The keys of the document that ``--json`` prints: ``"file, copied"``, or ``"a list of source, target"``."""
    examples: str
    """Command lines, which a test runs."""
    found: str
    """What exit code 1 says; empty if there is none."""

    @property
    def name(self) -> str:
        """What is typed."""
        return self.run.__name__

    @property
    def help(self) -> str:
        """What it does, in one line; also that of the table in the README."""
        summary = (inspect.getdoc(self.run) or "").partition("\n")[0]
        return summary[:1].lower() + summary[1:].removesuffix(".")

    @property
    def description(self) -> str:
        """What it does, as one paragraph."""
        return " ".join((self.run.__doc__ or "").split())

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add its arguments to a parser."""
        for argument in self.arguments:
            if isinstance(argument, Argument):
                argument.add(parser)
            else:
                group = parser.add_mutually_exclusive_group()
                for one in argument:
                    one.add(group)


def verb(
    *arguments: Argument | tuple[Argument, ...], json: str, examples: str, found: str = ""
) -> Callable[[Callable[[argparse.Namespace], int | None]], Verb]:
    """Return a decorator that makes a function a verb; see `Verb`."""
    return lambda run: Verb(run, arguments, json, examples, found)


def argument(*names: str, completer: completion.Completer | None = None, **how: Any) -> Argument:
    """Return an argument for which a shell offers names of files, if nothing else is given."""
    return Argument(names, how, completer)


def option(*names: str, completer: completion.Completer = completion.nothing, **how: Any) -> Argument:
    """Return an option with a value for which a shell offers nothing, if nothing else is given."""
    return Argument(names, how, completer)


def force(what: str = "OUT") -> Argument:
    """Return the option that lets a verb replace files."""
    return argument("--force", action="store_true", help=f"replace {what} if it exists")


def names_option(*names: str, completer: completion.Completer = completion.nothing, help: str) -> Argument:
    """Return an option that takes names separated by commas, and may be repeated."""
    return option(*names, type=_names, action="extend", metavar="NAME,NAME", help=help, completer=completer)


def number_option(*names: str, low: int, high: int, **how: Any) -> Argument:
    """Return an option that takes a whole number between two."""

    def number(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"should be {low} to {high}, not {value}")
        return value

    return option(*names, type=number, **how)


def components_option(help: str) -> Argument:
    """Return the option of a verb that takes some components."""
    return names_option("-c", "--components", help=help, completer=completion.components)


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


FILE = (
    argument("file", metavar="FILE", help="a file, or FILE::NAME if it holds several composites"),
    option(
        "--name",
        help="the name of the composite, if the file holds several (default: its main one)",
        completer=completion.composites,
    ),
)
"""The arguments of a verb that reads one composite."""

COMPONENT = argument(
    "component",
    metavar="COMPONENT",
    help="the name of the component, as `ls` shows it",
    completer=completion.components,
)
JOBS = number_option(
    "-j", "--jobs", low=1, high=1024, default=1, metavar="N", help="how many processes work on it (default: 1)"
)


@contextmanager
def working(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the ``executor`` and the ``progress`` for an operation on many files."""
    with _executor(arguments.jobs) as executor, progress(arguments) as shown:
        yield {"executor": executor, "progress": shown}


def _executor(jobs: int) -> AbstractContextManager[Executor | None]:
    """Return the processes that work on many files; none for one job, which is done here."""
    if jobs == 1:
        return nullcontext()
    from .workers import Workers

    return Workers(jobs)
