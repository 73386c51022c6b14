"""The sub-commands of ``butler`` for datasets that link to others.

They are found through the entry-point group ``butler.cli``. The exit code is 0, 1 if `compositeh5-check` finds
something, and 2 for what is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from lsst.daf.butler import Butler, ButlerUserError, DatasetRef
from lsst.daf.butler.cli.opt import (
    collections_option,
    dataset_type_option,
    destination_argument,
    directory_argument,
    options_file_option,
    repo_argument,
    transfer_option,
    where_option,
)
from lsst.daf.butler.cli.utils import ButlerCommand

from ..errors import CompositeH5Error
from .checking import check, users_of
from .closure import export_closure, linked_refs, retrieve_closure, transfer_closure
from .commands_setup import COMMANDS as SETUP_COMMANDS
from .relinking import relink
from .stored import describe

FOUND, COULD_NOT = 1, 2
"""The exit codes but for success."""

_REPO = repo_argument(required=True, help="REPO is the path or URI of a repository, or its label.")
_TRANSFER = transfer_option(default="copy")
_IGNORE_MISSING = click.option(
    "--ignore-missing", is_flag=True, help="Leave out linked datasets that the repository doesn't have."
)
_SELECTION = (
    dataset_type_option(help="Dataset types of the datasets, which may have wildcards; all by default."),
    collections_option(help="Collections of the datasets, which may have wildcards; all by default."),
    where_option(help="A Butler query expression for the data IDs of the datasets."),
    click.option(
        "--find-first", is_flag=True, help="For each data ID take the dataset of the first collection that has one."
    ),
)


def commands() -> list[click.Command]:
    """Return all sub-commands of this package."""
    return [*_COMMANDS, *SETUP_COMMANDS]


def _command(name: str, *parameters: Callable[..., Any]) -> Callable[[Callable[..., None]], None]:
    """Return a decorator that makes a function a command with these arguments and options."""

    def decorate(function: Callable[..., None]) -> None:
        for parameter in reversed([*parameters, options_file_option()]):
            function = parameter(function)
        command: Any = click.command(name, cls=ButlerCommand)
        _COMMANDS.append(command(function))

    return decorate


_COMMANDS: list[click.Command] = []


@_command("compositeh5-links", _REPO, *_SELECTION, _IGNORE_MISSING)
def _links(repo: str, ignore_missing: bool, **selection: Any) -> None:
    """List the datasets to which the selected ones link, directly or through others.

    One line for each: dataset type, data ID, run and id.
    """
    with _reported():
        butler = Butler.from_config(repo)
        for ref in linked_refs(butler, _selected(butler, **selection), missing=_missing(ignore_missing)):
            click.echo(describe(ref))


@_command(
    "compositeh5-transfer",
    click.argument("source", required=True),
    click.argument("target", required=True),
    *_SELECTION,
    _TRANSFER,
    _IGNORE_MISSING,
)
def _transfer(source: str, target: str, transfer: str, ignore_missing: bool, **selection: Any) -> None:
    """Transfer the selected datasets of one repository, and all to which they link, to another.

    SOURCE and TARGET are the paths or URIs of the repositories.
    """
    with _reported():
        from_butler, to_butler = Butler.from_config(source), Butler.from_config(target, writeable=True)
        refs = _selected(from_butler, **selection)
        moved = transfer_closure(from_butler, to_butler, refs, transfer=transfer, missing=_missing(ignore_missing))
        click.echo(_count(refs, moved, "transferred"))


@_command(
    "compositeh5-export",
    _REPO,
    directory_argument(required=True, help="DIRECTORY is the folder to export to, for `butler import`."),
    *_SELECTION,
    _TRANSFER,
    _IGNORE_MISSING,
)
def _export(repo: str, directory: str, transfer: str, ignore_missing: bool, **selection: Any) -> None:
    """Export the selected datasets, and all to which they link. Disassembled ones become one file each."""
    with _reported():
        butler = Butler.from_config(repo)
        refs = _selected(butler, **selection)
        saved = export_closure(butler, refs, directory, transfer=transfer, missing=_missing(ignore_missing))
        click.echo(_count(refs, saved, "exported"))


@_command(
    "compositeh5-retrieve",
    _REPO,
    destination_argument(required=True, help="DESTINATION is the folder to copy to."),
    *_SELECTION,
    _TRANSFER,
    click.option("--clobber", is_flag=True, help="Replace files that are there."),
    _IGNORE_MISSING,
)
def _retrieve(
    repo: str, destination: str, transfer: str, clobber: bool, ignore_missing: bool, **selection: Any
) -> None:
    """Copy the files of the selected datasets, and of all to which they link. Their links work in the copy."""
    with _reported():
        butler = Butler.from_config(repo)
        refs = _selected(butler, **selection)
        missing = _missing(ignore_missing)
        for uri in retrieve_closure(butler, refs, destination, transfer=transfer, overwrite=clobber, missing=missing):
            click.echo(uri.ospath if uri.isLocal else str(uri))


@_command(
    "compositeh5-check",
    _REPO,
    *_SELECTION,
    click.option(
        "--if-removed", is_flag=True, help="Tell what would break if the selected datasets (of a RUN) were removed."
    ),
)
def _check(repo: str, if_removed: bool, **selection: Any) -> None:
    """List the links of the selected datasets that don't find what they are meant to.

    A link is "moved" (found, but elsewhere: `butler compositeh5-relink` helps), "broken" (not found), or stale:
    another dataset ("stale id") or another content ("stale digest") is in its place. With --if-removed, the links of
    all others that are "about to break". No component is read. The exit code is 1 if there is any.
    """
    if if_removed and not any(selection.values()):
        raise click.UsageError("--if-removed needs a selection of the datasets to remove")
    with _reported():
        butler = Butler.from_config(repo)
        refs = _selected(butler, lost=True, **selection)
        found = Counter[str]()
        for checked in users_of(butler, refs) if if_removed else check(butler, refs):
            found[checked.state] += 1
            if checked.state != "ok":
                click.echo(str(checked))
    click.echo(f"Links: {', '.join(f'{count} {state}' for state, count in sorted(found.items())) or 'none'}")
    if found.keys() - {"ok"}:
        click.get_current_context().exit(FOUND)


@_command("compositeh5-relink", _REPO, *_SELECTION)
def _relink(repo: str, **selection: Any) -> None:
    """Make links lead to where the repository has their targets now, as after an import to other paths.

    Ids, URIs and contents stay the same. What an interrupted call didn't finish is finished. Files that the
    repository doesn't hold itself are listed, and stay as they are: the exit code is then 1.
    """
    with _reported():
        butler = Butler.from_config(repo, writeable=True)
        done = relink(butler, _selected(butler, **selection))
    for ref in done.changed:
        click.echo(describe(ref))
    for what in done.left:
        click.echo(f"Left: {what}", err=True)
    if done.left:
        click.get_current_context().exit(FOUND)


def _selected(
    butler: Butler,
    *,
    dataset_type: Iterable[str],
    collections: Iterable[str],
    where: str,
    find_first: bool,
    lost: bool = False,
) -> list[DatasetRef]:
    """Return the datasets that the options select; with ``lost``, also those whose files aren't there."""
    refs: list[DatasetRef] = butler.query_all_datasets(
        list(collections) or "*", name=list(dataset_type) or "*", where=where, find_first=find_first, limit=None
    )
    if lost:
        return refs
    stored = butler.stored_many(refs)
    return [ref for ref in refs if stored[ref]]


def _missing(ignore: bool) -> Any:
    return "ignore" if ignore else "error"


def _count(given: list[DatasetRef], closure: list[DatasetRef], done: str) -> str:
    own = len({ref.id for ref in given})
    return f"Datasets {done}: {own}, and {len(closure) - own} to which they link"


class _CouldNotError(click.ClickException):
    exit_code = COULD_NOT


@contextmanager
def _reported() -> Iterator[None]:
    """Make what is expected to go wrong one line for the user."""
    try:
        yield
    except (CompositeH5Error, ButlerUserError, OSError) as error:
        raise _CouldNotError(str(error)) from error
