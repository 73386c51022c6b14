"""Deleting files: those that exist to be shared and that nobody refers to any more, or ones that are named."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from numbers import Real

from ..composite.composite import Composite
from ..composite.opening import stored_composite
from ..composite.parts import StoredPart
from ..errors import InUseError, checked_names, require_type
from ..storage.layout import composite_group, composite_names
from ..storage.locations import Paths, checked_paths
from ..storage.reader import StoredFile
from ..storage.source import identity
from .references import Reference, composite_links, find_references, ids_and_place, link_state
from .running import Progress, no_progress
from .walk import Root, SearchedFiles, files_under, map_files

SHARED = ("visit",)
"""The definitions of composites that exist to be shared."""

YOUNG = 3600.0
"""Age in seconds below which files are kept: shared files are written first, then those that link to them."""


@dataclass(frozen=True)
class PrunedFile:
    """A file that is, or would be, deleted.

    Attributes
    ----------
    path : str
        The file.
    size : int
        Its size in bytes.
    ids : tuple of str
        The ids of its composites.
    users : tuple of Reference
        The links of other files to it. Before it is deleted they are "about to break"; after that they say what has
        become of them.
    deleted : bool
        Whether it was deleted. One that was replaced since it was looked at is not.
    """

    path: str
    size: int
    ids: tuple[str, ...]
    users: tuple[Reference, ...] = ()
    deleted: bool = False


@dataclass(frozen=True)
class PruneReport:
    """What was, or would be, deleted.

    Attributes
    ----------
    files : tuple of PrunedFile
        The files; those that link to others of them come before these.
    young : tuple of str
        Files that are kept though nobody refers to them: they are so new that their users may be on the way.
    visited : SearchedFiles
        Where links were looked for.
    """

    files: tuple[PrunedFile, ...]
    young: tuple[str, ...]
    visited: SearchedFiles


def prune(
    *roots: Root,
    definitions: Iterable[str] = SHARED,
    promoted: bool = False,
    delete: bool = False,
    force: bool = False,
    older_than: float = YOUNG,
    executor: Executor | None = None,
    progress: Progress = no_progress,
) -> PruneReport:
    """List, or delete, shared files to which no other file links.

    A file is shared if all its composites are of definitions that exist to be shared. It is unreferenced if no file
    that stays has a link to the id of one of its composites, wherever that link leads: copies don't count as one
    another's waste. What only unreferenced files refer to is itself unreferenced.

    What is outside of the roots isn't looked at: name all folders that may have users. A call that is interrupted has
    deleted some of the files; the next one goes on.

    Parameters
    ----------
    *roots : path
        The folders.
    definitions : iterable of str, optional
        Names of the definitions of composites that exist to be shared.
    promoted : bool, optional
        Whether components that were promoted exist to be shared as well: composites without a definition that have one
        component, which is a copy of that of another.
    delete : bool, optional
        Whether to delete the files; else they are only listed.
    force : bool, optional
        Whether to delete them also where not everything could be read.
    older_than : float, optional
        Age in seconds that a file must have; see `YOUNG`.
    executor : concurrent.futures.Executor, optional
        Where the files are read: threads, processes, or that of a `distributed.Client`. Without one, here.
    progress : callable, optional
        Told how many are done.

    Raises
    ------
    InUseError
        If something couldn't be read, which may have links to the files to delete. Nothing is deleted.
    FileNotFoundError
        If one of the roots isn't there.
    OSError
        If a file can't be deleted.
    """
    tree = files_under(*roots)
    outlines, visited = map_files(_outline, tree, executor=executor, progress=progress, step="looking for links")
    users = _users(outlines)
    names = frozenset([*checked_names(definitions, "the name of a definition"), *([_PROMOTED] if promoted else [])])
    require_type(older_than, Real, "a number of seconds")
    limit = time.time() - older_than
    shared = [outline for outline in outlines if outline.definitions <= names]
    # What a young one refers to is kept, too.
    chosen = _unreferenced([outline for outline in shared if outline.changed <= limit], users)
    young = {outline.path for outline in _unreferenced(shared, users)} - {outline.path for outline in chosen}
    if delete and chosen and visited.unread and not force:
        raise InUseError(f"nothing was deleted: {_unknown(visited)}")
    files = []
    for outline in chosen:
        deleted = delete and _unlink((outline.path, *tree.others.get(outline.path, ())), outline.identity)
        files.append(PrunedFile(outline.path, outline.size, outline.ids, deleted=deleted))
    return PruneReport(tuple(files), tuple(sorted(young)), visited)


def remove(
    files: Paths,
    *roots: Root,
    delete: bool = False,
    force: bool = False,
    executor: Executor | None = None,
    progress: Progress = no_progress,
) -> PruneReport:
    """List the links to files, and delete the files if there are none or it is forced.

    Parameters
    ----------
    files : path, or iterable of path
        The files.
    *roots : path
        The folders that may have users.
    delete : bool, optional
        Whether to delete the files; else it is only told who would miss them.
    force : bool, optional
        Whether to delete them also if they are referred to, or not everything could be read. The linked components of
        their users are then lost: each says so, with its name and that of what it missed, when it is asked for.
    executor, progress
        As for `prune`.

    Raises
    ------
    InUseError
        If there are users, or something couldn't be read, which may be one. Nothing is deleted.
    FileNotFoundError
        If one of the roots, or of the files, isn't there.
    OSError
        If a file can't be deleted.
    """
    paths = [os.path.realpath(file) for file in checked_paths(files)]
    before = {path: os.stat(path) for path in paths}
    targets = {path: ids_and_place(path)[0] for path in paths}
    found, visited = find_references(targets, files_under(*roots), executor=executor, progress=progress)
    users = {
        path: tuple(replace(user, state="about to break") for user in found[path] if user.path not in before)
        for path in paths
    }
    if delete and not force:
        missed = [f"{user.path}: {user.component}" for of_file in users.values() for user in of_file]
        if missed:
            raise InUseError(f"nothing was deleted: {len(missed)} links lead there: {_some(missed)}")
        if visited.unread:
            raise InUseError(f"nothing was deleted: {_unknown(visited)}")
    deleted = {path: delete and _unlink((path,), identity(before[path])) for path in paths}
    return PruneReport(
        tuple(
            PrunedFile(
                path,
                before[path].st_size,
                tuple(sorted(targets[path])),
                tuple(_after(user) if deleted[path] else user for user in users[path]),
                deleted[path],
            )
            for path in paths
        ),
        (),
        visited,
    )


_PROMOTED = "a promoted component"
"""Stands for the definition of promoted components, which have none; no definition can have this name."""


@dataclass(frozen=True)
class _Outline:
    """What is known of a file to tell whether it is waste."""

    path: str
    identity: tuple[int, ...]
    size: int
    changed: float
    ids: tuple[str, ...]
    definitions: frozenset[str]
    links: frozenset[str]


def _outline(path: str, file: StoredFile) -> _Outline:
    status = os.stat(path)
    composites = [stored_composite(composite_group(file, name), path) for name in composite_names(file)]
    return _Outline(
        path,
        identity(status),
        status.st_size,
        # Not when it was modified: copying a tree keeps that.
        status.st_ctime,
        tuple(composite.id for composite in composites),
        frozenset(_PROMOTED if _is_promoted(composite) else composite.definition for composite in composites),
        frozenset(found.link.id for composite in composites for found in composite_links(composite)),
    )


def _is_promoted(composite: Composite) -> bool:
    if composite.definition or len(composite) != 1:
        return False
    part = composite.part(next(iter(composite)))
    return isinstance(part, StoredPart) and part.origin is not None


def _users(outlines: Iterable[_Outline]) -> Mapping[str, set[str]]:
    """Return for the path of each file those of the files that have links to ids in it."""
    by_id: dict[str, set[str]] = defaultdict(set)
    for outline in outlines:
        for id_ in outline.links:
            by_id[id_].add(outline.path)
    return {
        outline.path: set().union(*(by_id.get(id_, ()) for id_ in outline.ids)) - {outline.path} for outline in outlines
    }


def _unreferenced(candidates: Iterable[_Outline], users: Mapping[str, set[str]]) -> list[_Outline]:
    """Return the candidates to which only others of them refer, those that refer to others before these."""
    gone: dict[str, _Outline] = {}
    left = list(candidates)
    while found := [outline for outline in left if users[outline.path] <= gone.keys()]:
        gone |= {outline.path: outline for outline in found}
        left = [outline for outline in left if outline.path not in gone]
    return list(gone.values())


def _unlink(names: Iterable[str], known: tuple[int, ...]) -> bool:
    """Delete all names of a file, if they still are its names; return whether that was so."""
    deleted = False
    for name in names:
        try:
            if identity(os.stat(name)) == known:
                os.unlink(name)
                deleted = True
        except FileNotFoundError:
            continue
    return deleted


def _after(user: Reference) -> Reference:
    """Return a reference to a deleted file with what has become of it."""
    state, detail = link_state(user, user.path)
    return replace(user, state=state, detail=detail)


def _unknown(visited: SearchedFiles) -> str:
    reasons = [f"{item.path} ({item.reason})" for item in visited.unread]
    return f"{len(reasons)} places couldn't be looked into, and may have links there: {_some(reasons)}"


def _some(texts: Sequence[str]) -> str:
    return "; ".join([*texts[:5], *(["..."] if len(texts) > 5 else [])])
