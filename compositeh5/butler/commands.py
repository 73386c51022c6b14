"""The sub-commands of ``butler`` for datasets that link to others, which the entry point ``butler.cli`` makes known."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click
from lsst.daf.butler import Butler, DatasetRef
from lsst.daf.butler.cli.opt import destination_argument, directory_argument
from lsst.daf.butler.cli.utils import split_commas

from .checking import CheckedLink, check, users_of
from .closure import export_closure, linked_refs, retrieve_closure, transfer_closure
from .commands_common import (
    FOUND,
    IGNORE_MISSING,
    REPO,
    SELECTION,
    TRANSFER,
    command,
    dataset,
    missing_links,
    report,
    selecting,
)
from .commands_setup import COMMANDS as SETUP_COMMANDS
from .relinking import relink
from .stored import describe
from .subset import subset


def commands() -> list[click.Command]:
    """Return all sub-commands of this package."""
    return [_links, _transfer, _export, _retrieve, _subset, _check, _relink, *SETUP_COMMANDS]


@command("compositeh5-links", REPO, *SELECTION, IGNORE_MISSING)
def _links(repo: str, ignore_missing: bool, as_json: bool, **selection: Any) -> None:
    """List the datasets to which the selected ones link, directly or through others.

    One line for each: dataset type, data ID, run and id.
    """
    with selecting(repo, selection) as (butler, refs):
        found = linked_refs(butler, refs, missing=missing_links(ignore_missing))
        report(as_json, [dataset(ref) for ref in found], *map(describe, found))


@command(
    "compositeh5-transfer",
    click.argument("source", required=True),
    click.argument("target", required=True),
    *SELECTION,
    TRANSFER,
    IGNORE_MISSING,
)
def _transfer(source: str, target: str, transfer: str, ignore_missing: bool, as_json: bool, **selection: Any) -> None:
    """Transfer the selected datasets of one repository, and all to which they link, to another.

    SOURCE and TARGET are the paths or URIs of the repositories.
    """
    with selecting(source, selection) as (butler, refs):
        into = Butler.from_config(target, writeable=True)
        moved = transfer_closure(butler, into, refs, transfer=transfer, missing=missing_links(ignore_missing))
        _report_count(as_json, refs, moved, "transferred")


@command(
    "compositeh5-export",
    REPO,
    directory_argument(required=True, help="DIRECTORY is the folder to export to, for `butler import`."),
    *SELECTION,
    TRANSFER,
    IGNORE_MISSING,
)
def _export(repo: str, directory: str, transfer: str, ignore_missing: bool, as_json: bool, **selection: Any) -> None:
    """Export the selected datasets, and all to which they link. Disassembled ones become one file each."""
    with selecting(repo, selection) as (butler, refs):
        saved = export_closure(butler, refs, directory, transfer=transfer, missing=missing_links(ignore_missing))
        _report_count(as_json, refs, saved, "exported")


@command(
    "compositeh5-retrieve",
    REPO,
    destination_argument(required=True, help="DESTINATION is the folder to copy to."),
    *SELECTION,
    TRANSFER,
    click.option("--clobber", "overwrite", is_flag=True, help="Replace files that are there."),
    IGNORE_MISSING,
)
def _retrieve(
    repo: str, destination: str, transfer: str, overwrite: bool, ignore_missing: bool, as_json: bool, **selection: Any
) -> None:
    """Copy the files of the selected datasets, and of all to which they link. Their links work in the copy."""
    how: dict[str, Any] = {"transfer": transfer, "overwrite": overwrite, "missing": missing_links(ignore_missing)}
    with selecting(repo, selection) as (butler, refs):
        uris = retrieve_closure(butler, refs, destination, **how)
        files = [uri.ospath if uri.isLocal else str(uri) for uri in uris]
        report(as_json, files, *files)


@command(
    "compositeh5-subset",
    click.argument("source", required=True),
    click.argument("target", required=True),
    *SELECTION,
    click.option(
        "--components",
        multiple=True,
        callback=split_commas,
        help="Only these components of the selected datasets, separated by commas; all by default.",
    ),
    TRANSFER,
    IGNORE_MISSING,
)
def _subset(
    source: str,
    target: str,
    components: tuple[str, ...],
    transfer: str,
    ignore_missing: bool,
    as_json: bool,
    **selection: Any,
) -> None:
    """Store the selected datasets of one repository, and what they need of others, in another one.

    SOURCE and TARGET are the paths or URIs of the repositories. What is linked to comes along whole, unless it has
    pixels that nobody needs: then only its needed components do, as datasets of the type `<dataset type>_parts`. If
    it is stopped, do it again: what is there is kept.
    """
    with selecting(source, selection) as (butler, refs):
        into = Butler.from_config(target, writeable=True)
        missing = missing_links(ignore_missing)
        done = subset(butler, into, refs, components=components or None, transfer=transfer, missing=missing)
    document = {
        "datasets": [dataset(ref) for ref in done.refs],
        "linked": [dataset(ref) for ref in done.linked],
        "parts": [dataset(ref) for ref in done.parts],
        "lost": list(done.lost),
    }
    summary = f"Datasets: {len(done.refs)}; to which they link: {len(done.linked)} whole, {len(done.parts)} in part"
    report(as_json, document, summary, *(f"Lost: {lost}" for lost in done.lost))


@command(
    "compositeh5-check",
    REPO,
    *SELECTION,
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
    with selecting(repo, selection, lost=True) as (butler, refs):
        for checked in users_of(butler, refs) if if_removed else check(butler, refs):
            found[checked.state] += 1
            if checked.state != "ok":
                wrong.append(checked)
                if not as_json:
                    # At once: a large repository takes its time.
                    click.echo(str(checked))
    links = [{"dataset": dataset(w.ref), "component": w.component, "state": w.state, "detail": w.detail} for w in wrong]
    counts = dict(sorted(found.items()))
    summary = f"Links: {', '.join(f'{count} {state}' for state, count in counts.items()) or 'none'}"
    report(as_json, {"counts": counts, "links": links}, summary)
    if any(checked.state != "mapped" for checked in wrong):
        click.get_current_context().exit(FOUND)


@command("compositeh5-relink", REPO, *SELECTION)
def _relink(repo: str, as_json: bool, **selection: Any) -> None:
    """Write a map of where the repository has the targets of links, as after an import to other paths.

    With it, gets find them again. Datasets stay as they are: tools that know only HDF5 still don't find the targets.
    The datasets that need the map are listed, and those that can't be read: the exit code is then 1.
    """
    with selecting(repo, selection, lost=True) as (butler, refs):
        done = relink(butler, refs if any(selection.values()) else None)
    document = {"mapped": [dataset(ref) for ref in done.mapped], "left": list(done.left)}
    report(as_json, document, *map(describe, done.mapped), *(f"Left: {what}" for what in done.left))
    if done.left:
        click.get_current_context().exit(FOUND)


def _report_count(as_json: bool, given: list[DatasetRef], closure: list[DatasetRef], done: str) -> None:
    own = len({ref.id for ref in given})
    linked = len(closure) - own
    report(as_json, {"selected": own, "linked": linked}, f"Datasets {done}: {own}, and {linked} to which they link")
