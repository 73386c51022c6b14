"""What the sub-commands of ``butler`` share: how they are made, how datasets are selected, what they print, and errors.

Exit codes are those of ``compositeh5``: 0 is fine, 1 says that something was found, or left as it is, 2 that something
could not be done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from typing import Any

import click
from lsst.daf.butler import Butler, ButlerUserError, DatasetRef
from lsst.daf.butler.cli.opt import (
    collections_option,
    dataset_type_option,
    options_file_option,
    repo_argument,
    transfer_option,
    where_option,
)
from lsst.daf.butler.cli.utils import ButlerCommand

from ..errors import CompositeH5Error
from .stored import Missing, stored_among

FOUND, COULD_NOT = 1, 2
"""The exit codes but for success."""

REPO = repo_argument(required=True, help="REPO is the path or URI of a repository, or its label.")

TRANSFER = transfer_option(default="copy")
IGNORE_MISSING = click.option(
    "--ignore-missing", is_flag=True, help="Leave out linked datasets that the repository doesn't have."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one document of JSON instead of text.")
SELECTION = (
    dataset_type_option(help="Dataset types of the datasets, which may have wildcards; all by default."),
    collections_option(help="Collections of the datasets, which may have wildcards; all by default."),
    where_option(help="A Butler query expression for the data IDs of the datasets."),
    click.option(
        "--find-first", is_flag=True, help="For each data ID take the dataset of the first collection that has one."
    ),
)


def command(name: str, *parameters: Callable[..., Any]) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator that makes a function a command with these arguments and options, and with ``--json``."""

    def decorate(function: Callable[..., None]) -> click.Command:
        for parameter in reversed([*parameters, _JSON, options_file_option()]):
            function = parameter(function)
        made: Any = click.command(name, cls=ButlerCommand)
        return made(function)  # type: ignore[no-any-return]

    return decorate


def report(as_json: bool, document: Any, *lines: str) -> None:
    """Print what a command has found or done: the document, or lines for people."""
    if as_json:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        for line in lines:
            click.echo(line)


def dataset(ref: DatasetRef) -> dict[str, Any]:
    """Return a dataset as JSON can hold it; `describe` is the same for people."""
    data_id = dict(sorted(ref.dataId.required.items()))
    return {"dataset_type": ref.datasetType.name, "data_id": data_id, "run": ref.run, "id": str(ref.id)}


@contextmanager
def reported() -> Iterator[None]:
    """Make what is expected to go wrong one line for the user."""
    try:
        yield
    except (CompositeH5Error, ButlerUserError, OSError, BrokenExecutor) as error:
        raise _CouldNotError(str(error)) from error


@contextmanager
def selecting(repo: str, options: dict[str, Any], *, lost: bool = False) -> Iterator[tuple[Butler, list[DatasetRef]]]:
    """Open a repository, and select the datasets that the options name, with errors reported."""
    with reported():
        butler = Butler.from_config(repo)
        yield butler, _selected(butler, lost=lost, **options)


def _selected(
    butler: Butler,
    *,
    dataset_type: Iterable[str],
    collections: Iterable[str],
    where: str,
    find_first: bool,
    lost: bool,
) -> list[DatasetRef]:
    """Return the datasets that the options select; with ``lost``, also those whose files aren't there."""
    refs: list[DatasetRef] = butler.query_all_datasets(
        list(collections) or "*", name=list(dataset_type) or "*", where=where, find_first=find_first, limit=None
    )
    return refs if lost else stored_among(butler, refs)


def missing_links(ignore: bool) -> Missing:
    """Return what is to be done about links to datasets that the repository doesn't have."""
    return "ignore" if ignore else "error"


class _CouldNotError(click.ClickException):
    exit_code = COULD_NOT
