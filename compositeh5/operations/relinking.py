"""Making links lead to where their targets are now, after files were moved."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, TypeAlias

from ..container.layout import BY_ID, check_file, composite_group, composite_names, file_root, long_text
from ..container.nodes import AttrValue, ExternalLink, Group, GroupNode, Node
from ..container.publish import publish
from ..container.reader import StoredFile
from ..container.source import identity
from ..container.writer import file_image
from ..errors import CompositeH5Error, ConflictError
from ..integrity import canonical_json, read_json
from ..parts import linked_part
from ..targets import open_target
from ..writing import _relative_links
from .references import HOLDERS, Reference, StoredLink, file_links, reference
from .running import Progress, each, silent
from .tree import Root, Tree, Unread, Visited, files_under, visit

PlaceOf: TypeAlias = Callable[[str, StoredLink], str | None]
"""Gives for the name of a composite in a file, and a link of it, the location of the file to which that should lead;
None to leave it as it is."""


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


def relinked_image(file: StoredFile, location: str, place_of: PlaceOf) -> bytes | None:
    """Return the bytes of a file with its links leading to other places, and the same ids and contents.

    Parameters
    ----------
    file : StoredFile
        The file; the links in its lists and nested composites are among those that change.
    location : str
        Where it is, and will be.
    place_of : callable
        Gives for a link the location of the file that it should lead to; None to leave it as it is.

    Returns
    -------
    bytes or None
        None if all links lead there already.

    Raises
    ------
    OSError, CompositeH5Error
        If the file isn't as it should be.
    """
    # The first one is the default.
    default = file.root.attr("default", str)
    groups = {name: composite_group(file, name) for name in sorted(composite_names(file), key=lambda n: n != default)}
    nodes = {name: _relinked("", group, location, partial(place_of, name)) for name, group in groups.items()}
    if all(nodes[name] is group for name, group in groups.items()):
        return None
    root = file_root({name: (group.attr("id", str), nodes[name]) for name, group in groups.items()})
    return file_image(_relative_links(root, location))


def _relinked(path: str, group: GroupNode, location: str, place_of: Callable[[StoredLink], str | None]) -> GroupNode:
    """Return the group of a composite or a list; a new one if a link in it leads elsewhere than before.

    In that the files of external links are absolute.
    """
    records = read_json(group, "links", dict)
    children: dict[str, Node] = {}
    changed = False
    for name, child in group.items():
        own = f"{path}/{name}".removeprefix("/")
        if isinstance(child, ExternalLink):
            part = linked_part(child, records.get(name), location)
            place = place_of(StoredLink(own, part.link, part.place)) or part.place
            children[name] = ExternalLink(place, part.link.target)
            if place != part.place:
                records[name] = replace(part.link, uri=place).record()
                changed = True
        elif isinstance(child, GroupNode) and child.attrs.get("kind") in HOLDERS:
            children[name] = _relinked(own, child, location, place_of)
            changed |= children[name] is not child
        else:
            children[name] = child
    return Group(children, _with_records(group.attrs, records), group.where) if changed else group


def _with_records(attrs: Mapping[str, AttrValue], records: Mapping[str, object]) -> dict[str, AttrValue]:
    others = {name: value for name, value in attrs.items() if name.rstrip("0123456789").removesuffix("_") != "links"}
    return {**others, **long_text("links", canonical_json(records))}


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
        places = {(link.composite, link.component, link.link): place for link, place in found.items()}
        try:
            _rewrite(work.path, lambda name, link: places.get((name, link.component, link.link)))
        except (OSError, CompositeH5Error) as error:
            return Unread(work.path, str(error))
    return RelinkedFile(work.path, tuple(found), tuple(found.values())), left


def _rewrite(path: str, place_of: PlaceOf) -> None:
    before = identity(os.stat(path))
    file = StoredFile.open(path)
    try:
        check_file(file)
        image = relinked_image(file, path, place_of)
    finally:
        file.close()
    if image is not None:
        if identity(os.stat(path)) != before:
            raise ConflictError(f"{path}: was replaced while it was read; it was left as it is now")
        publish(path, image, replace=True)


def _nearest(found: StoredLink, start: str, candidates: Mapping[str, tuple[str, ...]]) -> str | None:
    """Return the nearest file that has the target of a link."""

    def distance(place: str) -> tuple[int, str]:
        return os.path.relpath(place, os.path.dirname(start)).count("/"), place

    for place in sorted(candidates.get(found.link.id, ()), key=distance):
        try:
            file, _ = open_target(found.link, place)
        except (OSError, CompositeH5Error):
            continue
        file.close()
        return place
    return None
