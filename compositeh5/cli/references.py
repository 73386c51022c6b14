"""The verbs for trees of files that link to each other: ``refs``, ``prune``, ``relink``, ``verify``, ``rescue``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..composite.describe import human_bytes
from . import completion
from .common import COULD_NOT, FINE, FOUND, JOBS, argument, force, names_option, number_option, verb, working
from .output import Table, report
from .progress import progress

if TYPE_CHECKING:
    from ..trees.pruning import PruneReport
    from ..trees.references import Reference
    from ..trees.walk import Unread, Visited

_HOUR = 3600

_HEADER = ("state", "file", "component", "detail")


@verb(
    argument("paths", metavar="FILE", nargs="+", help="the files; with --to, the folders to look in"),
    argument("--to", metavar="TARGET", help="tell who links to this file, or to the composite of this id"),
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
    from ..trees.running import each

    with working(arguments) as how:
        links = each(refs, arguments.paths, step="looking for links", **how)
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
    argument("roots", metavar="FOLDER", nargs="+", help="all folders in which there may be links"),
    argument("--delete", action="store_true", help="delete the files, not only list them"),
    names_option(
        "--definitions",
        help="the definitions of composites that exist to be shared (default: visit)",
        completer=completion.definitions,
    ),
    argument("--promoted", action="store_true", help="promoted components exist to be shared as well"),
    number_option(
        "--older-than",
        low=0,
        high=10**6,
        default=1,
        metavar="HOURS",
        help="keep what is younger: shared files are written before those that link to them (default: 1)",
    ),
    argument("--file", action="append", metavar="FILE", help="take this file instead, whatever it is; may be repeated"),
    argument("--force", action="store_true", help="delete although there are links to it, or files that can't be read"),
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
                older_than=arguments.older_than * _HOUR,
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
    argument("roots", metavar="FOLDER", nargs="+", help="all folders with the files and what they link to"),
    argument("-n", "--dry-run", action="store_true", help="write nothing, and tell what would be"),
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
    argument("paths", metavar="PATH", nargs="+", help="files and folders"),
    argument("--quick", action="store_true", help="look at structure and links only; read no content"),
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
    argument("file", metavar="FILE", help="the damaged file; it isn't changed"),
    argument("output", metavar="OUT", help="the file to write"),
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


def _complete(visited: Visited) -> int:
    """Return the exit code where nothing was found."""
    return COULD_NOT if visited.unread else FINE
