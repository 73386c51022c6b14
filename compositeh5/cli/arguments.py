"""How verbs are declared: their arguments, what a shell completes, exit codes, and running on several processes."""

from __future__ import annotations

import argparse
import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from .output import progress

if TYPE_CHECKING:
    from ..composite.composite import Composite

FINE, FOUND, COULD_NOT, INTERRUPTED = 0, 1, 2, 130
"""The exit codes: 1 where a verb has found what it looks for (differences, damage), 2 where something could not be
done, which is also argparse's for wrong arguments, 130 the shell's for Ctrl-C."""

Argument: TypeAlias = Callable[[argparse._ActionsContainer], object]
"""Adds an argument to a parser."""

Completer: TypeAlias = Callable[..., Iterable[str]]
"""Returns what a shell offers, for ``prefix`` and ``parsed_args``: the beginning of the word, the arguments before."""


class Verb(NamedTuple):
    """A verb of the command line. All verbs have ``--json`` and ``--quiet`` beside their own arguments."""

    run: Callable[[argparse.Namespace], int | None]
    """Does it; returns the exit code if it isn't `FINE`. Its name is that of the verb, its docstring the help."""
    arguments: tuple[Argument, ...]
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


def verb(
    *arguments: Argument, json: str, examples: str, found: str = ""
) -> Callable[[Callable[[argparse.Namespace], int | None]], Verb]:
    """Return a decorator that makes a function a verb; see `Verb`."""
    return lambda run: Verb(run, arguments, json, examples, found)


_FILES = ("FILE", "FOLDER", "OUT", "TARGET")


def argument(
    names: str, metavar: str | tuple[str, ...] | None, help: str, *, completer: Completer | None = None, **how: Any
) -> Argument:
    """Declare an argument, or an option with a value.

    Without a completer, a shell offers names of files for arguments, and for options whose value is called like one.
    What else is given goes to argparse's ``add_argument``.
    """
    if completer is None and names.startswith("-") and metavar not in _FILES:
        completer = _nothing

    def add(parser: argparse._ActionsContainer) -> None:
        """Add it to a parser."""
        action = parser.add_argument(*names.split(), metavar=metavar, help=help, **how)
        if completer is not None:
            action.completer = completer  # type: ignore[attr-defined]

    return add


def choice(name: str, choices: list[str], help: str) -> Argument:
    """Declare an option that has one of some values, by default the first."""
    return lambda parser: parser.add_argument(name, choices=choices, default=choices[0], help=help)


def flag(names: str, help: str) -> Argument:
    """Declare an option without a value."""
    return lambda parser: parser.add_argument(*names.split(), action="store_true", help=help)


def either(*arguments: Argument) -> Argument:
    """Declare arguments of which only one can be given."""

    def add(parser: argparse._ActionsContainer) -> None:
        group = parser.add_mutually_exclusive_group()
        for one in arguments:
            one(group)

    return add


def names(name: str, help: str, completer: Completer | None = None) -> Argument:
    """Declare an option that takes names separated by commas, and may be repeated."""

    def split(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    return argument(name, "NAME,NAME", help, type=split, action="extend", completer=completer)


def between(low: int, high: int) -> Callable[[str], int]:
    """Return the type of an option that takes a whole number between two."""

    def number(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"should be {low} to {high}, not {value}")
        return value

    return number


def force(what: str = "OUT") -> Argument:
    """Declare the option that lets a verb replace files."""
    return flag("--force", f"replace {what} if it exists")


# ---- What a shell offers after a press of the Tab key ---------------------------------------------------------

ENABLE_COMPLETION = 'eval "$(register-python-argcomplete compositeh5)"'
"""The line that makes completion known to bash and zsh."""


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell and end the process, if it is a shell that asks, by argcomplete (the extra ``cli``)."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    import argcomplete

    # Options only after a dash: where a component is wanted, they would be in the way.
    argcomplete.autocomplete(parser, always_complete_options=False)


def _nothing(**_: object) -> Iterable[str]:
    return ()


@contextmanager
def opened(file: str, name: str | None = None) -> Iterator[Composite]:
    """Open the composite that an argument names: ``FILE`` or ``FILE::NAME``."""
    from ..composite.opening import open_composite

    if name is None and "::" in file and not os.path.exists(file):
        file, _, name = file.rpartition("::")
    with open_composite(file, name) as composite:
        yield composite


def _component_names(prefix: str, parsed_args: argparse.Namespace, **_: object) -> Iterable[str]:
    """Offer the names of components of the file that is named before; of several, the part after the last comma."""
    from ..errors import CompositeH5Error

    before = prefix[: prefix.rfind(",") + 1]
    file = getattr(parsed_args, "file", None) or getattr(parsed_args, "a", None) or ""
    try:
        with opened(file, getattr(parsed_args, "name", None)) as composite:
            return [before + name for name in composite]
    except (CompositeH5Error, OSError):
        return ()


def _composite_names(parsed_args: argparse.Namespace, **_: object) -> Iterable[str]:
    """Offer the names of the composites in the file that is named before."""
    from ..composite.opening import file_info
    from ..errors import CompositeH5Error

    try:
        return file_info(parsed_args.file or "").composites
    except (CompositeH5Error, OSError):
        return ()


def definitions(prefix: str, **_: object) -> Iterable[str]:
    """Offer the names of definitions."""
    from ..composite.definitions import definition_names

    before = prefix[: prefix.rfind(",") + 1]
    return [before + name for name in definition_names()]


# ---- What several verbs have ----------------------------------------------------------------------------------

FILE = (
    argument("file", "FILE", "a file, or FILE::NAME if it holds several composites"),
    argument(
        "--name",
        None,
        "the name of the composite, if the file holds several (default: its main one)",
        completer=_composite_names,
    ),
)
"""The arguments of a verb that reads one composite."""

COMPONENT = argument(
    "component", "COMPONENT", "the name of the component, as `ls` shows it", completer=_component_names
)
JOBS = argument("-j --jobs", "N", "how many processes work on it (default: 1)", type=between(1, 1024), default=1)


def components(help: str) -> Argument:
    """Declare the option of a verb that takes some components."""
    return names("-c --components", help, _component_names)


@contextmanager
def working(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the ``executor`` and the ``progress`` for an operation on many files; one job is done in this process."""
    with ExitStack() as stack:
        executor = None
        if arguments.jobs > 1:
            from .workers import Workers

            executor = stack.enter_context(Workers(arguments.jobs))
        yield {"executor": executor, "progress": stack.enter_context(progress(arguments))}
