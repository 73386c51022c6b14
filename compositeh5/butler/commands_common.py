"""What the sub-commands of ``butler`` share: how they are made, and what they do about errors.

The exit code is 0, 1 if a command finds something or leaves something undone, and 2 for what is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from lsst.daf.butler import ButlerUserError
from lsst.daf.butler.cli.opt import options_file_option, repo_argument
from lsst.daf.butler.cli.utils import ButlerCommand

from ..errors import CompositeH5Error

FOUND, COULD_NOT = 1, 2
"""The exit codes but for success."""

REPO = repo_argument(required=True, help="REPO is the path or URI of a repository, or its label.")


def command(name: str, *parameters: Callable[..., Any]) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator that makes a function a command with these arguments and options."""

    def decorate(function: Callable[..., None]) -> click.Command:
        for parameter in reversed([*parameters, options_file_option()]):
            function = parameter(function)
        made: Any = click.command(name, cls=ButlerCommand)
        return made(function)  # type: ignore[no-any-return]

    return decorate


@contextmanager
def reported() -> Iterator[None]:
    """Make what is expected to go wrong one line for the user."""
    try:
        yield
    except (CompositeH5Error, ButlerUserError, OSError) as error:
        raise _CouldNotError(str(error)) from error


class _CouldNotError(click.ClickException):
    exit_code = COULD_NOT
