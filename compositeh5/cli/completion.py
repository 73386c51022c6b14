"""What a shell offers after a press of the Tab key, by argcomplete (the extra ``cli``).

Nothing of it is loaded unless a shell asks. One line makes it known to a shell; `HOW` has it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..composite.composite import Composite

HOW = 'eval "$(register-python-argcomplete compositeh5)"'
"""The line for bash and zsh."""

Completer = Callable[..., Iterable[str]]
"""Is called with ``prefix`` and ``parsed_args``, the beginning of the word and the arguments before it."""


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell and end the process, if it is a shell that asks."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    import argcomplete

    # Options only after a dash: where a component is wanted, they would be in the way.
    argcomplete.autocomplete(parser, always_complete_options=False)


def nothing(**_: object) -> Iterable[str]:
    """Offer nothing, for what can't be known."""
    return ()


@contextmanager
def opened(file: str, name: str | None = None) -> Iterator[Composite]:
    """Open the composite that an argument names: ``FILE`` or ``FILE::NAME``."""
    from ..composite.opening import open_composite

    if name is None and "::" in file and not os.path.exists(file):
        file, _, name = file.rpartition("::")
    with open_composite(file, name) as composite:
        yield composite


def components(prefix: str, parsed_args: argparse.Namespace, **_: object) -> Iterable[str]:
    """Offer the names of components of the file that is named before; of several, the part after the last comma."""
    from ..errors import CompositeH5Error

    before = prefix[: prefix.rfind(",") + 1]
    file = getattr(parsed_args, "file", None) or getattr(parsed_args, "a", None) or ""
    try:
        with opened(file, getattr(parsed_args, "name", None)) as composite:
            return [before + name for name in composite]
    except (CompositeH5Error, OSError):
        return ()


def composites(parsed_args: argparse.Namespace, **_: object) -> Iterable[str]:
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
