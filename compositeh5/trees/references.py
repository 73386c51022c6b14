"""Who refers to what: the links of files, whether they find what they are meant to, and which files link to one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

from ..composite.composite import Composite
from ..composite.link import Link
from ..composite.opening import stored_composite
from ..composite.parts import LinkedPart, Part, StoredPart, stored_parts
from ..composite.session import Session, current
from ..errors import BrokenLinkError, CompositeH5Error, DigestMismatchError, WrongIdError
from ..storage.layout import BY_ID, composite_group, composite_names
from ..storage.locations import absolute_location, checked_path
from ..storage.nodes import GroupNode, Node
from ..storage.reader import StoredFile
from .running import Progress, no_progress
from .walk import Root, SearchedFiles, Tree, files_under, map_files

State: TypeAlias = Literal["ok", "moved", "lost", "stale id", "stale digest", "about to break"]
"""Whether a link finds what it is meant to.

"ok"; "moved" if the target isn't where the path in the file leads, but where else a reader looks (such as the place
where it was when the link was made): other software doesn't find it; "lost" if it isn't found; "stale id" or "stale
digest" if another composite, or another content, is in its place; "about to break" if the target is among what would be
deleted."""

KINDS_WITH_LINKS = ("composite", "list")
"""The kinds in which there may be links."""


@dataclass(frozen=True)
class StoredLink:
    """A link as a file has it.

    Attributes
    ----------
    component : str
        Name of the linked component; with the names and indices that lead to it if it is in a list or a nested
        composite: ``amplifiers/3/visit_info``.
    link : Link
        What it must find.
    place : str
        Where the path that is stored leads, seen from where the file is now.
    """

    component: str
    link: Link
    place: str


@dataclass(frozen=True)
class Reference(StoredLink):
    """A link of a file, and whether it finds what it is meant to.

    Attributes
    ----------
    path : str
        The file that has the link.
    composite : str
        Name, in the file, of the composite that has it.
    state : str
        See `State`.
    detail : str
        Where the target is, or what was found instead.
    """

    path: str
    composite: str
    state: State
    detail: str


@dataclass(frozen=True)
class Referrers:
    """Who links to a file.

    Attributes
    ----------
    references : tuple of Reference
        The links to it.
    visited : SearchedFiles
        Where they were looked for. What could not be read may have more.
    """

    references: tuple[Reference, ...]
    visited: SearchedFiles


def composite_links(composite: Composite) -> Iterator[StoredLink]:
    """Yield the links of an open composite, and those in its lists and nested composites. No component is read."""
    for name in composite:
        yield from part_links(name, composite.part(name), composite.location)


def part_links(name: str, part: Part, location: str | None) -> Iterator[StoredLink]:
    """Return the links of one component of an open composite; see `composite_links`."""
    if isinstance(part, LinkedPart):
        yield StoredLink(name, part.link, part.place)
    elif isinstance(part, StoredPart):
        yield from _nested_links(name, part.node, location)


def _nested_links(path: str, node: Node, location: str | None) -> Iterator[StoredLink]:
    if not isinstance(node, GroupNode) or node.attr("kind", str, "") not in KINDS_WITH_LINKS:
        return
    for name, part in stored_parts(node, location).items():
        yield from part_links(f"{path}/{name}", part, location)


def link_state(found: StoredLink, location: str | None, session: Session | None = None) -> tuple[State, str]:
    """Return whether a link of a file finds its target, and where, or what was found instead. No component is read."""
    session = session or current()
    try:
        with session.find(found.link, location, found.place) as target:
            if target.place == found.place:
                return "ok", target.place
            return "moved", f"it isn't {found.place}, but {target.place}"
    except (BrokenLinkError, DigestMismatchError) as error:
        if location is not None and has_target(location, found.link, session):
            # From one composite of a file to another: a reader has that open.
            return "moved", f"it isn't {found.place}, but in the file of the link"
        if isinstance(error, DigestMismatchError):
            return "stale digest", str(error)
        return "stale id" if isinstance(error, WrongIdError) else "lost", str(error)


def has_target(place: str, link: Link, session: Session | None = None) -> bool:
    """Return whether a file has what a link must find."""
    try:
        (session or current()).target_at(place, link).file.close()
    except (OSError, CompositeH5Error):
        return False
    return True


def refs(path: str | os.PathLike[str]) -> tuple[Reference, ...]:
    """Return all links of a file, each with whether it finds what it is meant to. No component is read.

    Parameters
    ----------
    path : path or URL
        The file.

    Raises
    ------
    OSError, CompositeH5Error
        As `compositeh5.open` does.
    """
    location = absolute_location(path)
    with current().opened(location) as file:
        return tuple(checked_reference(location, name, found) for name, found in file_links(location, file))


def refs_to(
    target: str | os.PathLike[str],
    *roots: Root,
    executor: Executor | None = None,
    progress: Progress = no_progress,
) -> Referrers:
    """Tell which files below folders link to a file. No component is read.

    A link is to the file if it is to the id of one of its composites, unless it finds that in another file, of which
    this one is a copy. If the file is gone, or can't be read, those links are meant that lead to its place.

    Parameters
    ----------
    target : path
        The file, or the id of a composite.
    *roots : path
        The folders; also single files.
    executor : concurrent.futures.Executor, optional
        Where the files are read: threads, processes, or that of a `distributed.Client`. Without one, here.
    progress : callable, optional
        Told how many are done.

    Raises
    ------
    FileNotFoundError
        If one of the roots isn't there.
    """
    ids, place = ids_and_place(checked_path(target))
    found, visited = find_references({place: ids}, files_under(*roots), executor=executor, progress=progress)
    return Referrers(tuple(found[place]), visited)


def file_links(location: str, file: StoredFile) -> Iterator[tuple[str, StoredLink]]:
    """Yield the links of all composites of an open file, each with the name of its composite."""
    for name in composite_names(file):
        for found in composite_links(stored_composite(composite_group(file, name), location)):
            yield name, found


def ids_and_place(target: str) -> tuple[frozenset[str], str]:
    """Return the ids of the composites in a file, given by path or by one id, and the real path of the file.

    There are no ids if the file is gone or can't be read; there is no place for an id.
    """
    place = os.path.realpath(target)
    try:
        file = current().open(place)
    except FileNotFoundError:
        with suppress(ValueError):
            return frozenset({str(uuid.UUID(target))}), ""
        return frozenset(), place
    except (OSError, CompositeH5Error):
        return frozenset(), place
    try:
        return frozenset(file.root.group(BY_ID)), place
    except (OSError, CompositeH5Error):
        return frozenset(), place
    finally:
        file.close()


def find_references(
    targets: Mapping[str, frozenset[str]], tree: Tree, *, executor: Executor | None, progress: Progress
) -> tuple[dict[str, list[Reference]], SearchedFiles]:
    """Return the links in a tree to each of several files, and what was looked at.

    Targets are the ids of the composites of each file, by its place; without ids, links that lead to the place count.
    """
    found, visited = map_files(
        partial(_references_to, dict(targets)), tree, executor=executor, progress=progress, step="looking for links"
    )
    result: dict[str, list[Reference]] = {place: [] for place in targets}
    for references in found:
        for place, user in references:
            result[place].append(user)
    return result, visited


def _references_to(targets: Mapping[str, frozenset[str]], path: str, file: StoredFile) -> list[tuple[str, Reference]]:
    found = []
    for name, link in file_links(path, file):
        for place, ids in targets.items():
            if ids and link.link.id not in ids:
                continue
            leads_there = os.path.realpath(link.place) == place
            if ids or leads_there:
                user = checked_reference(path, name, link)
                if leads_there or user.state != "ok" or not place:
                    found.append((place, user))
    return found


def checked_reference(path: str, composite: str, found: StoredLink) -> Reference:
    """Return a link of a file with whether it finds what it is meant to."""
    state, detail = link_state(found, path)
    return Reference(found.component, found.link, found.place, path, composite, state, detail)
