"""Making links lead to where their targets are now, after files were moved."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, TypeAlias

from ..errors import CompositeH5Error
from ..storage.layout import BY_ID
from ..storage.reader import StoredFile
from .references import Reference, StoredLink, file_links, has_target, reference
from .rewriting import rewrite
from .running import Progress, each, silent
from .walk import Root, Tree, Unread, Visited, files_under, visit


@dataclass(frozen=True)
class RelinkedFile:
    """A file that got, or would get, right links.

    Attributes
    ----------
    path : str
        The file.
    links : tuple of Reference
        The links that were changed, as they were.
    places : tuple of str
        Where these lead now.
    """

    path: str
    links: tuple[Reference, ...]
    places: tuple[str, ...]


@dataclass(frozen=True)
class RelinkReport:
    """What was, or would be, made right.

    Attributes
    ----------
    files : tuple of RelinkedFile
        The files that were written anew.
    left : tuple of Reference
        Links that don't lead where they should, and whose targets aren't below the roots.
    failed : tuple of Unread
        Files that couldn't be written anew, and why; they are as they were.
    visited : Visited
        What was looked at.
    """

    files: tuple[RelinkedFile, ...]
    left: tuple[Reference, ...]
    failed: tuple[Unread, ...]
    visited: Visited


def relink(
    *roots: Root,
    dry_run: bool = False,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> RelinkReport:
    """Make links lead to where their targets are now, in all files below folders.

    A target is found by its id, anywhere below the roots, and taken if it has the digest that the link records; of
    several copies the nearest one is. Only files of which a link doesn't lead to its target are written anew, whole, in
    their place, with the same ids and contents. A call that is interrupted leaves each file old or new; the next one
    goes on.

    Parameters
    ----------
    *roots : path
        The folders.
    dry_run : bool, optional
        Whether to write nothing, and only tell what would be.
    executor : concurrent.futures.Executor, optional
        Where the files are read and written: threads, processes, or that of a `distributed.Client`. Without one, here.
    progress : callable, optional
        Told how many are done.

    Raises
    ------
    FileNotFoundError
        If one of the roots isn't there.
    """
    tree = files_under(*roots)
    # Another name of a file (hard link) is another place, from which paths are different.
    tree = Tree(tree.names, unread=tree.unread)
    found, visited = visit(_survey, tree, executor=executor, progress=progress, step="looking for links")
    places: dict[str, list[str]] = defaultdict(list)
    for path, ids, _ in found:
        for id_ in ids:
            places[id_].append(path)
    work = [
        _Work(path, wrong, {link.link.id: tuple(places[link.link.id]) for link in wrong if link.link.id in places})
        for path, _, wrong in found
        if wrong
    ]
    files: list[RelinkedFile] = []
    failed: list[Unread] = []
    left: list[Reference] = []
    for done in each(partial(_relink, dry_run), work, executor=executor, progress=progress, step="relinking"):
        if isinstance(done, Unread):
            failed.append(done)
        else:
            file, others = done
            files.extend([file] if file.links else [])
            left.extend(others)
    return RelinkReport(tuple(files), tuple(left), tuple(failed), visited)


_Survey: TypeAlias = tuple[str, tuple[str, ...], tuple[Reference, ...]]
"""A file, the ids of its composites, and its links that don't lead where they should."""


class _Work(NamedTuple):
    """A file, its wrong links, and the files that have the ids that these want."""

    path: str
    wrong: tuple[Reference, ...]
    candidates: Mapping[str, tuple[str, ...]]


def _survey(path: str, file: StoredFile) -> _Survey:
    found = (reference(path, name, link) for name, link in file_links(path, file))
    return path, tuple(file.root.group(BY_ID)), tuple(link for link in found if link.state != "ok")


def _relink(dry_run: bool, work: _Work) -> tuple[RelinkedFile, tuple[Reference, ...]] | Unread:
    """Write a file anew, and return what was changed, and the links of which the targets weren't found."""
    found = {link: place for link in work.wrong if (place := _nearest(link, work.path, work.candidates)) is not None}
    left = tuple(link for link in work.wrong if link not in found)
    if found and not dry_run:
        places = {
            (link.composite, link.component, link.link): replace(link.link, uri=place) for link, place in found.items()
        }
        try:
            rewrite(work.path, lambda name, link: places.get((name, link.component, link.link)))
        except (OSError, CompositeH5Error) as error:
            return Unread(work.path, str(error))
    return RelinkedFile(work.path, tuple(found), tuple(found.values())), left


def _nearest(found: StoredLink, start: str, candidates: Mapping[str, tuple[str, ...]]) -> str | None:
    """Return the nearest file that has the target of a link."""

    def distance(place: str) -> tuple[int, str]:
        return os.path.relpath(place, os.path.dirname(start)).count("/"), place

    near = sorted(candidates.get(found.link.id, ()), key=distance)
    return next((place for place in near if has_target(place, found.link)), None)
