"""Commands for repositories that there are already: ``butler compositeh5-install``."""

from __future__ import annotations

import click
from lsst.daf.butler.cli.opt import options_file_option, repo_argument
from lsst.daf.butler.cli.utils import ButlerCommand

from ..errors import ConfigurationError

__all__ = ["COMMANDS"]


@click.command("compositeh5-install", cls=ButlerCommand)
@repo_argument(required=True, help="REPO is the path or URI of a repository, or its label.")  # type: ignore[untyped-decorator]
@options_file_option()  # type: ignore[untyped-decorator]
def install_command(repo: str) -> None:
    """Make an existing repository able to store composites.

    Adds storage classes and formatters to its butler.yaml; nothing that is there is changed. Doing it again does no
    harm.
    """
    from .installing import install

    try:
        backup = install(repo)
    except (ConfigurationError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo("Nothing was missing." if backup is None else f"Installed; the former configuration is {backup}")


COMMANDS: list[click.Command] = [install_command]
"""The commands of this module."""
