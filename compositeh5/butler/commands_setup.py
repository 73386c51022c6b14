"""Commands for repositories that there are already: ``butler compositeh5-install`` and ``compositeh5-convert``."""

from __future__ import annotations

import click
from lsst.daf.butler import ButlerUserError
from lsst.daf.butler.cli.opt import (
    collections_option,
    options_file_option,
    processes_option,
    repo_argument,
    where_option,
)
from lsst.daf.butler.cli.progress import ClickProgressHandler
from lsst.daf.butler.cli.utils import ButlerCommand
from lsst.daf.butler.progress import Progress

from ..errors import ConfigurationError, DefinitionError

__all__ = ["COMMANDS"]


_REPO = "REPO is the path or URI of a repository, or its label."


@click.command("compositeh5-install", cls=ButlerCommand)
@repo_argument(required=True, help=_REPO)  # type: ignore[untyped-decorator]
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


@click.command("compositeh5-convert", cls=ButlerCommand)
@repo_argument(required=True, help=_REPO)  # type: ignore[untyped-decorator]
@click.argument("source")
@click.argument("target")
@click.argument("run")
@collections_option(required=True)  # type: ignore[untyped-decorator]
@where_option()  # type: ignore[untyped-decorator]
@processes_option()  # type: ignore[untyped-decorator]
@options_file_option()  # type: ignore[untyped-decorator]
def convert_command(
    repo: str, source: str, target: str, run: str, collections: tuple[str, ...], where: str, processes: int
) -> None:
    """Convert the datasets of a type to composites.

    SOURCE is the dataset type of FITS exposures or tables; TARGET that of the composites, in the collection RUN. What
    the detectors of a visit have in common is stored once. If it is stopped, do it again: what is there is kept.
    """
    from .converting import convert_dataset_type

    Progress.set_handler(ClickProgressHandler())
    try:
        done = convert_dataset_type(
            repo, source, target, run=run, collections=collections, where=where, processes=processes
        )
    except (ButlerUserError, DefinitionError, OSError) as error:
        raise click.ClickException(str(error)) from error
    finally:
        Progress.set_handler(None)
    click.echo(f"{done.converted} datasets converted, {done.present} were there")
    for deviation in done.deviations:
        click.echo(f"{deviation} differs from that of the visit, and is stored with the dataset")
    for failure in done.failures:
        click.echo(f"Not converted: {failure}", err=True)
    if done.failures:
        raise SystemExit(1)


COMMANDS: list[click.Command] = [install_command, convert_command]
"""The commands of this module."""
