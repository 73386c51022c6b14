"""The sub-commands of ``butler``, which the entry point ``butler.cli`` makes known.

Exit codes are those of ``compositeh5``: 0 is fine, 1 says that something was found, or left as it is, 2 that something
could not be done.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from multiprocessing import get_context
from typing import Any

import click
from lsst.daf.butler import Butler, ButlerUserError, DatasetRef
from lsst.daf.butler.cli.opt import (
    collections_option,
    dataset_type_option,
    destination_argument,
    directory_argument,
    options_file_option,
    processes_option,
    repo_argument,
    transfer_option,
    where_option,
)
from lsst.daf.butler.cli.progress import ClickProgressHandler
from lsst.daf.butler.cli.utils import ButlerCommand, split_commas
from lsst.daf.butler.progress import Progress

from ..errors import CompositeH5Error
from .checking import CheckedLink, check, users_of
from .converting import convert_dataset_type
from .dataset_files import Missing, describe, stored_among
from .installing import install
from .subsetting import subset
from .target_map import relink
from .transferring import export_closure, linked_refs, retrieve_closure, transfer_closure


def commands() -> list[click.Command]:
    """Return all sub-commands of this package."""
    return [_links, _transfer, _export, _retrieve, _subset, _check, _relink, _install, _convert]


_FOUND, _COULD_NOT = 1, 2
"""The exit codes but for success."""

_REPO = repo_argument(required=True, help="REPO is the path or URI of a repository, or its label.")

_TRANSFER = transfer_option(default="copy")
_IGNORE_MISSING = click.option(
    "--ignore-missing",
    "missing",
    is_flag=True,
    callback=lambda context, option, ignore: "ignore" if ignore else "error",
    help="Leave out linked datasets that the repository doesn't have.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one document of JSON instead of text.")
_SELECTION = (
    dataset_type_option(help="Dataset types of the datasets, which may have wildcards; all by default."),
    collections_option(help="Collections of the datasets, which may have wildcards; all by default."),
    where_option(help="A Butler query expression for the data IDs of the datasets."),
    click.option(
        "--find-first", is_flag=True, help="For each data ID take the dataset of the first collection that has one."
    ),
)


def _command(name: str, *parameters: Callable[..., Any]) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator that makes a function a command with these arguments and options, and with ``--json``."""

    def decorate(function: Callable[..., None]) -> click.Command:
        for parameter in reversed([*parameters, _JSON, options_file_option()]):
            function = parameter(function)
        made: Any = click.command(name, cls=ButlerCommand)
        return made(function)  # type: ignore[no-any-return]

    return decorate


def _report(as_json: bool, document: Any, *lines: str) -> None:
    """Print what a command has found or done: the document, or lines for people."""
    if as_json:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        for line in lines:
            click.echo(line)


def _dataset(ref: DatasetRef) -> dict[str, Any]:
    """Return a dataset as JSON can hold it; `describe` is the same for people."""
    data_id = dict(sorted(ref.dataId.required.items()))
    return {"dataset_type": ref.datasetType.name, "data_id": data_id, "run": ref.run, "id": str(ref.id)}


@contextmanager
def _reported() -> Iterator[None]:
    """Make what is expected to go wrong one line for the user."""
    try:
        yield
    except (CompositeH5Error, ButlerUserError, OSError, BrokenExecutor) as error:
        raise _CouldNotError(str(error)) from error


@contextmanager
def _selecting(repo: str, options: dict[str, Any], *, lost: bool = False) -> Iterator[tuple[Butler, list[DatasetRef]]]:
    """Open a repository, and select the datasets that the options name, with errors reported."""
    with _reported():
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


def _report_count(as_json: bool, given: list[DatasetRef], closure: list[DatasetRef], done: str) -> None:
    own = len({ref.id for ref in given})
    linked = len(closure) - own
    _report(as_json, {"selected": own, "linked": linked}, f"Datasets {done}: {own}, and {linked} to which they link")


class _CouldNotError(click.ClickException):
    exit_code = _COULD_NOT


@_command("compositeh5-links", _REPO, *_SELECTION, _IGNORE_MISSING)
def _links(repo: str, missing: Missing, as_json: bool, **selection: Any) -> None:
    """List the datasets to which the selected ones link, directly or through others.

    One line for each: dataset type, data ID, run and id.
    """
    with _selecting(repo, selection) as (butler, refs):
        found = linked_refs(butler, refs, missing=missing)
        _report(as_json, [_dataset(ref) for ref in found], *map(describe, found))


@_command(
    "compositeh5-transfer",
    click.argument("source", required=True),
    click.argument("target", required=True),
    *_SELECTION,
    _TRANSFER,
    _IGNORE_MISSING,
)
def _transfer(source: str, target: str, transfer: str, missing: Missing, as_json: bool, **selection: Any) -> None:
    """Transfer the selected datasets of one repository, and all to which they link, to another.

    SOURCE and TARGET are the paths or URIs of the repositories.
    """
    with _selecting(source, selection) as (butler, refs):
        into = Butler.from_config(target, writeable=True)
        moved = transfer_closure(butler, into, refs, transfer=transfer, missing=missing)
        _report_count(as_json, refs, moved, "transferred")


@_command(
    "compositeh5-export",
    _REPO,
    directory_argument(required=True, help="DIRECTORY is the folder to export to, for `butler import`."),
    *_SELECTION,
    _TRANSFER,
    _IGNORE_MISSING,
)
def _export(repo: str, directory: str, transfer: str, missing: Missing, as_json: bool, **selection: Any) -> None:
    """Export the selected datasets, and all to which they link. Disassembled ones become one file each."""
    with _selecting(repo, selection) as (butler, refs):
        saved = export_closure(butler, refs, directory, transfer=transfer, missing=missing)
        _report_count(as_json, refs, saved, "exported")


@_command(
    "compositeh5-retrieve",
    _REPO,
    destination_argument(required=True, help="DESTINATION is the folder to copy to."),
    *_SELECTION,
    _TRANSFER,
    click.option("--clobber", "overwrite", is_flag=True, help="Replace files that are there."),
    _IGNORE_MISSING,
)
def _retrieve(
    repo: str, destination: str, transfer: str, overwrite: bool, missing: Missing, as_json: bool, **selection: Any
) -> None:
    """Copy the files of the selected datasets, and of all to which they link. Their links work in the copy."""
    how: dict[str, Any] = {"transfer": transfer, "overwrite": overwrite, "missing": missing}
    with _selecting(repo, selection) as (butler, refs):
        uris = retrieve_closure(butler, refs, destination, **how)
        files = [uri.ospath if uri.isLocal else str(uri) for uri in uris]
        _report(as_json, files, *files)


@_command(
    "compositeh5-subset",
    click.argument("source", required=True),
    click.argument("target", required=True),
    *_SELECTION,
    click.option(
        "--components",
        multiple=True,
        callback=split_commas,
        help="Only these components of the selected datasets, separated by commas; all by default.",
    ),
    _TRANSFER,
    _IGNORE_MISSING,
)
def _subset(
    source: str,
    target: str,
    components: tuple[str, ...],
    transfer: str,
    missing: Missing,
    as_json: bool,
    **selection: Any,
) -> None:
    """Store the selected datasets of one repository, and what they need of others, in another one.

    SOURCE and TARGET are the paths or URIs of the repositories. What is linked to comes along whole, unless it has
    pixels that nobody needs: then only its needed components do, as datasets of the type `<dataset type>_parts`. If
    it is stopped, do it again: what is there is kept.
    """
    with _selecting(source, selection) as (butler, refs):
        into = Butler.from_config(target, writeable=True)
        done = subset(butler, into, refs, components=components or None, transfer=transfer, missing=missing)
    document = {
        "datasets": [_dataset(ref) for ref in done.refs],
        "linked": [_dataset(ref) for ref in done.linked],
        "parts": [_dataset(ref) for ref in done.parts],
        "lost": list(done.lost),
    }
    summary = f"Datasets: {len(done.refs)}; to which they link: {len(done.linked)} whole, {len(done.parts)} in part"
    _report(as_json, document, summary, *(f"Lost: {lost}" for lost in done.lost))


@_command(
    "compositeh5-check",
    _REPO,
    *_SELECTION,
    click.option(
        "--if-removed", is_flag=True, help="Tell what would break if the selected datasets (of a RUN) were removed."
    ),
)
def _check(repo: str, if_removed: bool, as_json: bool, **selection: Any) -> None:
    """List the links of the selected datasets that don't find what they are meant to.

    A link is "moved" (found, but elsewhere: `butler compositeh5-relink` helps), "mapped" (found by what that wrote, but
    not by h5ls or h5py), "broken" (not found), or stale: another dataset ("stale id") or another content ("stale
    digest") is in its place. With --if-removed, the links of all others that are "about to break". No component is
    read. The exit code is 1 if there is any that isn't "mapped".
    """
    if if_removed and not any(selection.values()):
        raise click.UsageError("--if-removed needs a selection of the datasets to remove")
    found = Counter[str]()
    wrong: list[CheckedLink] = []
    with _selecting(repo, selection, lost=True) as (butler, refs):
        for checked in users_of(butler, refs) if if_removed else check(butler, refs):
            found[checked.state] += 1
            if checked.state != "ok":
                wrong.append(checked)
                if not as_json:
                    # At once: a large repository takes its time.
                    click.echo(str(checked))
    links = [
        {"dataset": _dataset(link.ref), "component": link.component, "state": link.state, "detail": link.detail}
        for link in wrong
    ]
    counts = dict(sorted(found.items()))
    summary = f"Links: {', '.join(f'{count} {state}' for state, count in counts.items()) or 'none'}"
    _report(as_json, {"counts": counts, "links": links}, summary)
    if any(checked.state != "mapped" for checked in wrong):
        click.get_current_context().exit(_FOUND)


@_command("compositeh5-relink", _REPO, *_SELECTION)
def _relink(repo: str, as_json: bool, **selection: Any) -> None:
    """Write a map of where the repository has the targets of links, as after an import to other paths.

    With it, gets find them again. Datasets stay as they are: tools that know only HDF5 still don't find the targets.
    The datasets that need the map are listed, and those that can't be read: the exit code is then 1.
    """
    with _selecting(repo, selection, lost=True) as (butler, refs):
        done = relink(butler, refs if any(selection.values()) else None)
    document = {"mapped": [_dataset(ref) for ref in done.mapped], "left": list(done.left)}
    _report(as_json, document, *map(describe, done.mapped), *(f"Left: {what}" for what in done.left))
    if done.left:
        click.get_current_context().exit(_FOUND)


@_command("compositeh5-install", _REPO)
def _install(repo: str, as_json: bool) -> None:
    """Make an existing repository able to store composites.

    Adds storage classes and formatters to its butler.yaml; what is configured there stays, comments are lost. The
    former file is kept. Doing it again does no harm.
    """
    with _reported():
        backup = install(repo)
    former = None if backup is None else str(backup)
    line = "Nothing was missing." if backup is None else f"Installed; the former configuration is {former}"
    _report(as_json, {"former_configuration": former}, line)


@_command(
    "compositeh5-convert",
    _REPO,
    click.argument("source"),
    click.argument("target"),
    click.argument("run"),
    collections_option(required=True),
    where_option(),
    click.option("--recipe", help="Name of the recipe to compress by; by default the configuration chooses."),
    processes_option(),
)
def _convert(repo: str, source: str, target: str, as_json: bool, processes: int, **more: Any) -> None:
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
        with _reported(), pool as executor:
            done = convert_dataset_type(repo, source, target, executor=executor, **more)
    finally:
        Progress.set_handler(None)
    _report(
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
        click.get_current_context().exit(_COULD_NOT)
