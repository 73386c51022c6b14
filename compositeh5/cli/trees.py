"""The verbs for trees of files: ``index``, ``visit``, ``refs``, ``prune``, ``relink``, ``verify``, ``rescue``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..composite.display import human_bytes
from ..errors import OutsideError
from . import export
from .arguments import (
    COULD_NOT,
    FINE,
    FOUND,
    JOBS,
    argument,
    between,
    definitions,
    either,
    flag,
    force,
    names,
    verb,
    working,
)  # fmt: skip
from .output import Table, progress, report

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord
    from astropy.table import QTable

    from ..trees.pruning import PruneReport
    from ..trees.references import Reference
    from ..trees.walk import SearchedFiles, Unread


@verb(
    argument("root", "FOLDER", "the folder; all below it is looked into"),
    argument("-o --output", "OUT", "the index (default: FOLDER/compositeh5-index.h5)"),
    argument("--export", "FILE", "also write the table as .parquet, .hdf5 (astropy's), .ecsv or .fits"),
    force("the exported file"),
    JOBS,
    json="path, composites, read, unchanged, removed, problems",
    examples="""
        compositeh5 index calexp
        compositeh5 index repo -j 8 --export index.fits
        compositeh5 get calexp/compositeh5-index.h5 table -o index.ecsv""",
    found="some files can't be read",
)
def index(arguments: argparse.Namespace) -> int:
    """Write one table of the scalars of all composites in a folder.

    What they say of themselves, data IDs, records such as the metadata of visits, calibrations, corners on the sky.
    Only files that have changed since last time are opened, and no pixel is read. `compositeh5.trees.open_index` gives
    the table; queries need no other file.
    """
    from ..trees.index_table import index, open_index

    with working(arguments) as how:
        done = index(arguments.root, arguments.output, **how)
    if arguments.export is not None:
        export.write(open_index(done.path), "table", arguments.export, replace=arguments.force)
    files = f"{done.read} files read, {done.unchanged} unchanged, {done.removed} gone"
    report(
        arguments,
        done,
        Table(("state", "file", "why"), [("unread", *problem) for problem in done.problems.items()]),
        f"{done.path}: {done.composites} composites; {files}",
    )
    return FOUND if done.problems else FINE


def _pair(text: str) -> tuple[str, int | str]:
    key, found, value = text.partition("=")
    if not (key and found):
        raise argparse.ArgumentTypeError(f"should be KEY=VALUE, not {text!r}")
    return key, int(value) if value.lstrip("-").isdecimal() else value


@verb(
    argument("source", "VISIT", "the file of the visit; or a folder or pattern of detectors"),
    argument(
        "members",
        "WHERE",
        "a folder, pattern or file where the detectors of that visit are looked for (default: the index above it)",
        nargs="?",
    ),
    argument(
        "-d --data-id",
        "KEY=VALUE",
        "only these, as visit=42; may be repeated",
        type=_pair,
        action="append",
        default=[],
    ),
    either(
        argument("--table", "COMPONENT", "show this component of all detectors, as a table"),
        argument(
            "--at",
            ("RA", "DEC"),
            "show which detectors contain a position (ICRS; degrees, or as 10h00m24s +2d12m)",
            nargs=2,
        ),
    ),
    JOBS,
    json="a list of detector, file; with --table and --at unit and values of each column",
    examples="""
        compositeh5 visit visit/visit_903334.h5 calexp
        compositeh5 visit calexp -d visit=903334 --table summary_stats
        compositeh5 visit visit/visit_903334.h5 calexp --at 150.1 2.2""",
)
def visit(arguments: argparse.Namespace) -> None:
    """Show all detectors of a visit together.

    List them and their files, show one component of all of them as a table, or tell which contain a position on the
    sky.
    """
    from ..trees.visit_files import open_visit

    with (
        working(arguments) as how,
        open_visit(arguments.source, arguments.members, data_id=dict(arguments.data_id), **how) as view,
    ):
        if arguments.at is not None:
            _report_table(arguments, view.containing(_position(*arguments.at))["detector", "y", "x"])
        elif arguments.table is not None:
            _report_table(arguments, view.table(arguments.table, missing="keep"))
        else:
            header, rows = ("detector", "file"), [*view.locations.items()]
            shown = Table(header, [(str(detector), path) for detector, path in rows])
            report(arguments, [dict(zip(header, row, strict=True)) for row in rows], shown)


def _report_table(arguments: argparse.Namespace, table: QTable) -> None:
    report(arguments, export.to_plain(table, "table"), export.to_text(table, "table"))


def _position(ra: str, dec: str) -> SkyCoord:
    """Return a position that is given in degrees, or as ``10h00m24s +2d12m``."""
    from astropy.coordinates import SkyCoord

    try:
        return SkyCoord(ra, dec, unit="deg")
    except ValueError as error:
        raise OutsideError(f"{ra} {dec} isn't a position on the sky: {error}") from error


_HEADER = ("state", "file", "component", "detail")


@verb(
    argument("paths", "FILE", "the files; with --to, the folders to look in", nargs="+"),
    argument("--to", "TARGET", "tell who links to this file, or to the composite of this id"),
    JOBS,
    json="a list of component, link, place, path, composite, state, detail; with --to references, visited",
    examples="""
        compositeh5 refs calexp.h5
        compositeh5 refs --to visit/visit_903334.h5 . && rm visit/visit_903334.h5""",
    found="a link isn't right; with --to: somebody links to it",
)
def refs(arguments: argparse.Namespace) -> int:
    """List what files link to, or who links to a file.

    With where each link leads and whether it finds what it is meant to: ok, moved (found, but not where the path in the
    file leads), lost, stale id or stale digest (something else is there). With --to, list the files below folders that
    link to one; the exit code is 2 if none is found, but not all could be read. Nothing but attributes is read.
    """
    if arguments.to is not None:
        return _refs_to(arguments)
    from ..trees.references import refs
    from ..trees.running import map_in_order

    with working(arguments) as how:
        links = map_in_order(refs, arguments.paths, step="looking for links", **how)
        found = [link for links_of_file in links for link in links_of_file]
    rows = [(link.state, link.path, link.component, f"{link.link} {link.detail}".rstrip()) for link in found]
    report(arguments, found, Table(_HEADER, rows))
    return FINE if all(link.state == "ok" for link in found) else FOUND


def _refs_to(arguments: argparse.Namespace) -> int:
    from ..trees.references import refs_to

    with working(arguments) as how:
        done = refs_to(arguments.to, *arguments.paths, **how)
    report(arguments, done, Table(_HEADER, [*map(_row, done.references), *_unread(done.visited.unread)]))
    if done.references:
        return FOUND
    return COULD_NOT if done.visited.unread else FINE


@verb(
    argument("roots", "FOLDER", "all folders in which there may be links", nargs="+"),
    flag("--delete", "delete the files, not only list them"),
    names("--definitions", "the definitions of composites that exist to be shared (default: visit)", definitions),
    flag("--promoted", "promoted components exist to be shared as well"),
    argument(
        "--older-than",
        "HOURS",
        "keep what is younger: shared files are written before those that link to them (default: 1)",
        type=between(0, 10**6),
        default=1,
    ),
    argument("--file", "FILE", "take this file instead, whatever it is; may be repeated", action="append"),
    flag("--force", "delete although there are links to it, or files that can't be read"),
    JOBS,
    json="files, young, visited",
    examples="""
        compositeh5 prune repo
        compositeh5 prune repo --delete --definitions visit,camera
        compositeh5 prune repo --file repo/visit/visit_903334.h5 --delete --force""",
    found="files can be deleted; with --file: are in use; with --delete: were left",
)
def prune(arguments: argparse.Namespace) -> int:
    """Find shared files to which nobody refers, and delete them.

    List the files of which all composites exist to be shared, and to which no link in a file below the folders leads;
    with --delete, delete them. With --file, take these files instead, and tell who would miss them. What can't be read
    may have links: then nothing is deleted, unless it is forced. Whoever links to a file that was deleted by force has
    a lost component, and says so.
    """
    from ..trees import pruning

    with working(arguments) as how:
        how |= {"delete": arguments.delete, "force": arguments.force}
        if arguments.file:
            done = pruning.remove(arguments.file, *arguments.roots, **how)
        else:
            done = pruning.prune(
                *arguments.roots,
                definitions=arguments.definitions or pruning.SHARED,
                promoted=arguments.promoted,
                older_than=arguments.older_than * 3600,
                **how,
            )
    report(arguments, done, Table(_HEADER, _pruned_rows(done)))
    if arguments.delete:
        return FINE if all(file.deleted for file in done.files) else FOUND
    # Whoever names files asks whether they can go; else, what can.
    return FOUND if any(file.users or not arguments.file for file in done.files) else _complete(done.visited)


def _pruned_rows(done: PruneReport) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for file in done.files:
        state = "deleted" if file.deleted else "in use" if file.users else "unreferenced"
        rows.append((state, file.path, "", human_bytes(file.size)))
        rows.extend(_row(user) for user in file.users)
    rows.extend(("young", path, "", "unreferenced, but kept: its users may be on the way") for path in done.young)
    return [*rows, *_unread(done.visited.unread)]


@verb(
    argument("roots", "FOLDER", "all folders with the files and what they link to", nargs="+"),
    flag("-n --dry-run", "write nothing, and tell what would be"),
    JOBS,
    json="files, left, failed, visited",
    examples="""
        compositeh5 relink repo --dry-run
        compositeh5 relink repo archive -j 4""",
    found="links are left; with --dry-run: there is something to do",
)
def relink(arguments: argparse.Namespace) -> int:
    """Make links right after files were moved.

    Find the targets of links that lead nowhere by their ids, anywhere below the folders, and write the files that have
    such links anew, with the same ids and contents. Interrupted, it goes on when it is called again.
    """
    from ..trees.relinking import relink

    with working(arguments) as how:
        done = relink(*arguments.roots, dry_run=arguments.dry_run, **how)
    state = "to relink" if arguments.dry_run else "relinked"
    rows = [
        (state, file.path, link.component, f"{link.place} => {place}")
        for file in done.files
        for link, place in zip(file.links, file.places, strict=True)
    ]
    failed = [("failed", item.path, "", item.reason) for item in done.failed]
    rows = [*rows, *map(_row, done.left), *failed, *_unread(done.visited.unread)]
    summary = f"{len(done.files)} files {state}, {len(done.left)} links left, {len(done.failed)} files failed"
    report(arguments, done, Table(_HEADER, rows), summary)
    if done.failed:
        return COULD_NOT
    return FOUND if done.left or (arguments.dry_run and done.files) else _complete(done.visited)


@verb(
    argument("paths", "PATH", "files and folders", nargs="+"),
    flag("--quick", "look at structure and links only; read no content"),
    JOBS,
    json="problems, composites, components, links, visited",
    examples="""
        compositeh5 verify repo -j 4
        compositeh5 verify repo --quick --json | jq -r '.problems[] | [.finding, .path, .component] | @tsv'""",
    found="something is wrong",
)
def verify(arguments: argparse.Namespace) -> int:
    """Check that files hold what was written, and that links find it.

    That files, and all files below folders, are whole, that each stored component has the content that was written,
    that no component is missing, that each link finds the id and the content that it is meant to. Each component that
    is damaged is named; `rescue` saves the others.
    """
    from ..trees.verify import verify_files

    with working(arguments) as how:
        done = verify_files(*arguments.paths, quick=arguments.quick, **how)
    rows = [(problem.finding, problem.path, problem.component, problem.detail) for problem in done.problems]
    summary = (
        f"{len(done.problems)} problems in {done.visited.files} files: {done.composites} composites, "
        f"{done.components} components read, {done.links} links"
    )
    report(arguments, done, Table(_HEADER, rows), summary)
    return FOUND if done.problems else FINE


@verb(
    argument("file", "FILE", "the damaged file; it isn't changed"),
    argument("output", "OUT", "the file to write"),
    force(),
    json="source, target, saved, lost",
    examples="""
        compositeh5 rescue calexp.h5 rescued.h5
        compositeh5 rescue calexp.h5 rescued.h5 --force --json""",
    found="something is lost",
)
def rescue(arguments: argparse.Namespace) -> int:
    """Write what is still good of a damaged file.

    The new file has all components whose content is still that which was written, and the links. It says what is
    missing, and why. The exit code is 2 if nothing can be saved, or HDF5 can't open the file, for it was cut off, say.
    """
    from ..trees.rescuing import rescue

    with progress(arguments, "reading"):
        done = rescue(arguments.file, arguments.output, replace=arguments.force)
    rows = [("saved", name, "") for name in done.saved]
    rows += (("lost", name, reason) for name, reason in done.lost.items())
    summary = f"{done.target}: {len(done.saved)} components saved, {len(done.lost)} lost"
    report(arguments, done, Table(("state", "component", "detail"), rows), summary)
    return FOUND if done.lost else FINE


def _row(link: Reference) -> tuple[str, str, str, str]:
    return link.state, link.path, link.component, link.detail


def _unread(items: Iterable[Unread]) -> list[tuple[str, str, str, str]]:
    return [("unread", item.path, "", item.reason) for item in items]


def _complete(visited: SearchedFiles) -> int:
    """Return the exit code where nothing was found."""
    return COULD_NOT if visited.unread else FINE
