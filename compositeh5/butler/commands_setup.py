"""Commands for repositories that there are already: ``butler compositeh5-install`` and ``compositeh5-convert``."""

from __future__ import annotations

from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from multiprocessing import get_context
from typing import Any

import click
from lsst.daf.butler.cli.opt import collections_option, processes_option, where_option
from lsst.daf.butler.cli.progress import ClickProgressHandler
from lsst.daf.butler.progress import Progress

from .commands_common import COULD_NOT, REPO, command, report, reported
from .converting import convert_dataset_type
from .installing import install


@command("compositeh5-install", REPO)
def install_command(repo: str, as_json: bool) -> None:
    """Make an existing repository able to store composites.

    Adds storage classes and formatters to its butler.yaml; what is configured there stays, comments are lost. The
    former file is kept. Doing it again does no harm.
    """
    with reported():
        backup = install(repo)
    former = None if backup is None else str(backup)
    line = "Nothing was missing." if backup is None else f"Installed; the former configuration is {former}"
    report(as_json, {"former_configuration": former}, line)


@command(
    "compositeh5-convert",
    REPO,
    click.argument("source"),
    click.argument("target"),
    click.argument("run"),
    collections_option(required=True),
    where_option(),
    click.option("--recipe", help="Name of the recipe to compress by; by default the configuration chooses."),
    processes_option(),
)
def convert_command(repo: str, source: str, target: str, as_json: bool, processes: int, **more: Any) -> None:
    """Convert the datasets of a type to composites.

    SOURCE is the dataset type of FITS exposures or tables; TARGET that of the composites, in the collection RUN. What
    the detectors of a visit have in common is stored once. If it is stopped, do it again: what is there is kept. The
    exit code is 2 if some could not be converted.
    """
    # Connections to a database don't survive a fork.
    pool: AbstractContextManager[Executor | None] = (
        nullcontext() if processes == 1 else ProcessPoolExecutor(processes, get_context("spawn"))
    )
    Progress.set_handler(ClickProgressHandler())
    try:
        with reported(), pool as executor:
            done = convert_dataset_type(repo, source, target, executor=executor, **more)
    finally:
        Progress.set_handler(None)
    report(
        as_json,
        asdict(done),
        f"{done.converted} datasets converted, {done.present} were there",
        *(
            f"{deviation} differs from that of the visit, and is stored with the dataset"
            for deviation in done.deviations
        ),
        *(f"Not converted: {failure}" for failure in done.failures),
    )
    if done.failures:
        click.get_current_context().exit(COULD_NOT)


COMMANDS: list[click.Command] = [install_command, convert_command]
"""The commands of this module."""
