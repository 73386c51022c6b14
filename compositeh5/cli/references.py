"""The verbs for trees of files that link to each other: ``refs``, ``prune``, ``relink``, ``verify``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from .. import export
from .common import (
    COULD_NOT,
    FINE,
    FOUND,
    Verb,
    executor,
    jobs_argument,
    json_argument,
    number,
    print_json,
    progress,
)

if TYPE_CHECKING:
    from ..operations.pruning import PruneReport
    from ..operations.references import Reference
    from ..operations.tree import Unread, Visited

_HOUR = 3600


def _refs(arguments: argparse.Namespace) -> int:
    if arguments.to is not None:
        return _refs_to(arguments)
    from ..operations.references import refs

    found = [link for path in arguments.paths for link in refs(path)]
    if arguments.json:
        print_json(_plain(found))
    else:
        _print_rows((link.state, link.path, link.component, str(link.link), link.detail) for link in found)
    return FINE if all(link.state == "ok" for link in found) else FOUND


def _refs_to(arguments: argparse.Namespace) -> int:
    from ..operations.references import refs_to

    with executor(arguments.jobs) as workers, progress() as shown:
        report = refs_to(arguments.to, *arguments.paths, executor=workers, progress=shown)
    if arguments.json:
        print_json(_plain(report))
    else:
        _print_rows([*map(_row, report.references), *_unread(report.visited.unread)])
    if report.references:
        return FOUND
    return COULD_NOT if report.visited.unread else FINE


def _prune(arguments: argparse.Namespace) -> int:
    from ..operations import pruning

    with executor(arguments.jobs) as workers, progress() as shown:
        common = {
            "delete": arguments.delete,
            "force": arguments.force,
            "executor": workers,
            "progress": shown,
        }
        if arguments.file:
            report = pruning.remove(arguments.file, *arguments.roots, **common)
        else:
            report = pruning.prune(
                *arguments.roots,
                definitions=arguments.definition or pruning.SHARED,
                promoted=arguments.promoted,
                older_than=arguments.older_than * _HOUR,
                **common,
            )
    if arguments.json:
        print_json(_plain(report))
    else:
        _print_pruned(report)
    if arguments.delete:
        return FINE if all(file.deleted for file in report.files) else FOUND
    # Whoever names files asks whether they can go; else, what can.
    return FOUND if any(file.users or not arguments.file for file in report.files) else _complete(report.visited)


def _print_pruned(report: PruneReport) -> None:
    rows = []
    for file in report.files:
        done = "deleted" if file.deleted else "in use" if file.users else "unreferenced"
        rows.append((done, file.path, f"{file.size} bytes", ""))
        rows.extend(_row(user) for user in file.users)
    rows.extend(("young", path, "unreferenced, but kept: its users may be on the way", "") for path in report.young)
    _print_rows([*rows, *_unread(report.visited.unread)])


def _relink(arguments: argparse.Namespace) -> int:
    from ..operations.relinking import relink

    with executor(arguments.jobs) as workers, progress() as shown:
        report = relink(*arguments.roots, dry_run=arguments.dry_run, executor=workers, progress=shown)
    if arguments.json:
        print_json(_plain(report))
    else:
        done = "to relink" if arguments.dry_run else "relinked"
        rows = [
            (done, file.path, link.component, f"{link.place} => {place}")
            for file in report.files
            for link, place in zip(file.links, file.places, strict=True)
        ]
        failed = [("failed", item.path, "", item.reason) for item in report.failed]
        _print_rows([*rows, *map(_row, report.left), *failed, *_unread(report.visited.unread)])
    if report.failed:
        return COULD_NOT
    return FOUND if report.left or (arguments.dry_run and report.files) else _complete(report.visited)


def _verify(arguments: argparse.Namespace) -> int:
    from ..operations.verify import verify_files

    with executor(arguments.jobs) as workers, progress() as shown:
        report = verify_files(*arguments.paths, quick=arguments.quick, executor=workers, progress=shown)
    if arguments.json:
        print_json(_plain(report))
    else:
        _print_rows((problem.finding, problem.path, problem.component, problem.detail) for problem in report.problems)
        print(
            f"{len(report.problems)} problems in {report.visited.files} files: {report.composites} composites, "
            f"{report.components} components read, {report.links} links"
        )
    return FOUND if report.problems else FINE


def _row(link: Reference) -> tuple[str, str, str, str]:
    return link.state, link.path, link.component, link.detail


def _unread(items: Iterable[Unread]) -> list[tuple[str, str, str, str]]:
    return [("unread", item.path, "", item.reason) for item in items]


def _complete(visited: Visited) -> int:
    """Return the exit code where nothing was found."""
    return COULD_NOT if visited.unread else FINE


def _print_rows(rows: Iterable[tuple[str, ...]]) -> None:
    if rows := list(rows):
        print(export.columns(rows))


def _plain(value: Any) -> Any:
    """Return a report as JSON can hold it."""
    from ..links import Link

    if isinstance(value, Link):
        return _plain(value.record())
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    # Names of files may be no text.
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _many(parser: argparse.ArgumentParser) -> None:
    jobs_argument(parser)
    json_argument(parser)


def _refs_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="FILE", nargs="+", help="the files; with --to, the folders to look in")
    parser.add_argument("--to", metavar="TARGET", help="tell who links to this file, or to the composite of this id")
    _many(parser)


def _prune_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("roots", metavar="ROOT", nargs="+", help="all folders in which there may be links")
    parser.add_argument("--delete", action="store_true", help="delete the files, not only list them")
    parser.add_argument(
        "--definition",
        action="append",
        metavar="NAME",
        help="the definition of composites that exist to be shared; may be repeated (default: visit)",
    )
    parser.add_argument("--promoted", action="store_true", help="promoted components exist to be shared as well")
    parser.add_argument(
        "--older-than",
        type=number(0, 10**6),
        default=1,
        metavar="HOURS",
        help="keep what is younger: shared files are written before those that link to them (default: 1)",
    )
    parser.add_argument(
        "--file", action="append", metavar="FILE", help="take this file instead, whatever it is; may be repeated"
    )
    parser.add_argument(
        "--force", action="store_true", help="delete although there are links to it, or files that can't be read"
    )
    _many(parser)


def _relink_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("roots", metavar="ROOT", nargs="+", help="all folders with the files and what they link to")
    parser.add_argument("-n", "--dry-run", action="store_true", help="write nothing, and tell what would be")
    _many(parser)


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="+", help="files and folders")
    parser.add_argument("--quick", action="store_true", help="look at structure and links only; read no content")
    _many(parser)


VERBS = {
    "refs": Verb(
        _refs,
        _refs_arguments,
        "list what files link to, or who links to a file",
        "List the links of files, with where each leads and whether it finds what it is meant to: ok, moved (found, "
        "but not where the path in the file leads), lost, stale id or stale digest (something else is there). With "
        "--to, list the files below folders that link to one. Nothing but attributes is read. The exit code is 1 if a "
        "link isn't ok; with --to if there is any link to it, and 2 if there is none but not all could be read.",
        """
        compositeh5 refs calexp.h5
        compositeh5 refs --to visit/visit_903334.h5 . && rm visit/visit_903334.h5""",
    ),
    "prune": Verb(
        _prune,
        _prune_arguments,
        "find shared files to which nobody refers, and delete them",
        "List the files of which all composites exist to be shared, and to which no link in a file below the folders "
        "leads; with --delete, delete them. With --file, take these files instead, and tell who would miss them. What "
        "can't be read may have links: then nothing is deleted, unless it is forced. Whoever links to a file that was "
        "deleted by force has a lost component, and says so. The exit code is 1 if files are listed; with --file, if "
        "they are in use.",
        """
        compositeh5 prune repo
        compositeh5 prune repo --delete --definition visit --definition camera
        compositeh5 prune repo --file repo/visit/visit_903334.h5 --delete --force""",
    ),
    "relink": Verb(
        _relink,
        _relink_arguments,
        "make links right after files were moved",
        "Find the targets of links that lead nowhere by their ids, anywhere below the folders, and write the files "
        "that have such links anew, with the same ids and contents. Interrupted, it goes on when it is called again. "
        "The exit code is 1 if links are left, or with --dry-run if something would be done; 2 if a file couldn't be "
        "read or written.",
        """
        compositeh5 relink repo --dry-run
        compositeh5 relink repo archive -j 4""",
    ),
    "verify": Verb(
        _verify,
        _verify_arguments,
        "check that files hold what was written, and that links find it",
        "Check files, and all files below folders: that they are whole, that each stored component has the content "
        "that was written, that no component is missing, that each link finds the id and the content that it is meant "
        "to. The exit code is 1 if something was found.",
        """
        compositeh5 verify repo -j 4
        compositeh5 verify repo --quick --json | jq -r '.problems[] | [.finding, .path, .component] | @tsv'""",
    ),
}
