"""Making links lead elsewhere: to where their targets are now, or to components that got files of their own.

A file is written anew with other links, and the same ids and contents: digests don't cover where links lead.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, TypeAlias

from ..composite.composite import Composite
from ..composite.link import Link
from ..composite.opening import open_composite
from ..composite.parts import LinkedPart, StoredPart, stored_part
from ..composite.session import current
from ..composite.writing import relative_links
from ..errors import CompositeH5Error, ConflictError
from ..storage.digests import canonical_json, read_json
from ..storage.layout import BY_ID, composite_group, composite_names, file_root, long_text, text_name
from ..storage.locations import absolute_location
from ..storage.nodes import AttrValue, ExternalLink, Group, GroupNode, Node
from ..storage.publish import publish
from ..storage.reader import StoredFile
from ..storage.source import identity
from ..storage.writer import file_image
from .references import KINDS_WITH_LINKS, Reference, StoredLink, checked_reference, file_links, has_target, refs_to
from .running import Progress, map_in_order, no_progress
from .walk import Root, SearchedFiles, Tree, Unread, files_under, map_files

LinkOf: TypeAlias = Callable[[str, StoredLink], Link | None]
"""Gives for the name of a composite in a file, and a link of it, another to be in its place; None to leave it."""


def rewrite_links(path: str, link_of: LinkOf) -> bool:
    """Write a file anew, in its place, if links of it change; return whether that was so.

    `ConflictError` is raised if the file was replaced meanwhile; it is left as it is.
    """
    before = identity(os.stat(path))
    with current().opened(path) as file:
        image = relinked_image(file, path, link_of)
    if image is None:
        return False
    if identity(os.stat(path)) != before:
        raise ConflictError(f"{path}: was replaced while it was read; it was left as it is now")
    publish(path, image, replace=True)
    return True


def relinked_image(file: StoredFile, location: str, link_of: LinkOf) -> bytes | None:
    """Return the bytes of a file with other links, and the same ids and contents; None if no link changes.

    The function gives, for the name of a composite and a link of it (also in lists and nested composites), another link
    of the same digest, or None to leave it.
    """
    # The first one is the default.
    default = file.root.attr("default", str)
    groups = {name: composite_group(file, name) for name in sorted(composite_names(file), key=lambda n: n != default)}
    nodes = {name: relinked_group(group, location, partial(link_of, name)) for name, group in groups.items()}
    if not any(changed for _, changed in nodes.values()):
        return None
    root = file_root({name: (group.attr("id", str), nodes[name][0]) for name, group in groups.items()})
    return file_image(relative_links(root, location))


def relinked_group(
    group: GroupNode, location: str, link_of: Callable[[StoredLink], Link | None], path: str = ""
) -> tuple[Group, bool]:
    """Return the group of a composite or list with other links, to absolute locations, and whether one changed.

    The function gives another link for each, or None to leave it. Links are named by the path that leads to them. No
    component is read.
    """
    records = read_json(group, "links", dict)
    children: dict[str, Node] = {}
    changed = False
    for name, child in group.items():
        own = f"{path}/{name}".removeprefix("/")
        if isinstance(child, ExternalLink):
            part = stored_part(group, name, location, None, lambda: records)
            assert isinstance(part, LinkedPart)
            link = link_of(StoredLink(own, part.link, part.place))
            if link is None or (link.target, link.uri) == (part.link.target, part.place):
                children[name] = ExternalLink(part.place, part.link.target)
            else:
                children[name] = ExternalLink(link.uri, link.target)
                records[name] = link.record()
                changed = True
        elif isinstance(child, GroupNode) and child.attr("kind", str, "") in KINDS_WITH_LINKS:
            children[name], inner = relinked_group(child, location, link_of, own)
            changed |= inner
        else:
            children[name] = child
    attrs = _with_records(group.attrs, records) if changed else dict(group.attrs)
    return Group(children, attrs, group.where), changed


def _with_records(attrs: Mapping[str, AttrValue], records: Mapping[str, object]) -> dict[str, AttrValue]:
    if not records:
        return dict(attrs)
    others = {name: value for name, value in attrs.items() if text_name(name) != "links"}
    return {**others, **long_text("links", canonical_json(records))}


# ---- Relinking -----------------------------------------------------------------------------------------------


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
    visited : SearchedFiles
        What was looked at.
    """

    files: tuple[RelinkedFile, ...]
    left: tuple[Reference, ...]
    failed: tuple[Unread, ...]
    visited: SearchedFiles


def relink(
    *roots: Root,
    dry_run: bool = False,
    executor: Executor | None = None,
    progress: Progress = no_progress,
) -> RelinkReport:
    """Repair the links of all files below folders after files were moved.

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
    found, visited = map_files(_survey, tree, executor=executor, progress=progress, step="looking for links")
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
    for done in map_in_order(partial(_relink, dry_run), work, executor=executor, progress=progress, step="relinking"):
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
    found = (checked_reference(path, name, link) for name, link in file_links(path, file))
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
            rewrite_links(work.path, lambda name, link: places.get((name, link.component, link.link)))
        except (OSError, CompositeH5Error) as error:
            return Unread(work.path, str(error))
    return RelinkedFile(work.path, tuple(found), tuple(found.values())), left


def _nearest(found: StoredLink, start: str, candidates: Mapping[str, tuple[str, ...]]) -> str | None:
    """Return the nearest file that has the target of a link."""

    def distance(place: str) -> tuple[int, str]:
        return os.path.relpath(place, os.path.dirname(start)).count("/"), place

    near = sorted(candidates.get(found.link.id, ()), key=distance)
    return next((place for place in near if has_target(place, found.link)), None)


# ---- Promotion -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Promotion:
    """What a promotion has done.

    Attributes
    ----------
    link : Link
        The link to the component in its own file.
    users : tuple of str
        The files that linked to it in the old place, and now link to it in the new one.
    failed : tuple of Unread
        Those that couldn't be written anew, and why; they link to the old place still.
    visited : SearchedFiles
        Where users were looked for.
    """

    link: Link
    users: tuple[str, ...]
    failed: tuple[Unread, ...]
    visited: SearchedFiles


def promote(
    source: str | os.PathLike[str],
    component: str,
    path: str | os.PathLike[str],
    *users: Root,
    name: str | None = None,
    executor: Executor | None = None,
    progress: Progress = no_progress,
) -> Promotion:
    """Write a component of a stored composite to a file of its own, and make all links to it lead there.

    The composite that had it stays as it is; nothing needs that any more for this component. Users keep their ids and
    digests. The new file comes first, so a call that is interrupted leaves each user with one good link or the other;
    the next call goes on.

    Parameters
    ----------
    source : path
        The file of the composite.
    component : str
        The component. It must be stored there, not linked.
    path : path
        The new file: a composite of this component alone, with the same data ID, which tells its origin.
    *users : path
        Folders, or files, in which users are looked for.
    name : str, optional
        Name of the composite, if the file holds several.
    executor : concurrent.futures.Executor, optional
        Where users are read and written; without one, here.
    progress : callable, optional
        Told how many are done.

    Raises
    ------
    NoSuchComponentError, AbsentComponentError
        If there is no such component.
    ConflictError
        If it is a link already, or another composite is at the path.
    """
    with open_composite(source, name) as composite:
        old = composite.link(component)
        part = composite.part(component)
        if not isinstance(part, StoredPart):
            raise ConflictError(f"{composite.location}: {component!r} is stored elsewhere already: {old} in {old.uri}")
        own = Composite(None, {component: part.copied_from(old)}, data_id=composite.data_id, stage=part.stage)
        own.write(path)
        new = own.link(component)
    referrers = refs_to(absolute_location(source), *users, executor=executor, progress=progress)
    found = sorted(
        {
            user.path
            for user in referrers.references
            if (user.link.id, user.link.component, user.link.digest) == (old.id, component, old.digest)
        }
    )
    done = list(
        map_in_order(partial(_link_to, old, new), found, executor=executor, progress=progress, step="linking users")
    )
    failed = tuple(result for result in done if isinstance(result, Unread))
    bad = {problem.path for problem in failed}
    return Promotion(new, tuple(user for user in found if user not in bad), failed, referrers.visited)


def _link_to(old: Link, new: Link, path: str) -> Unread | None:
    def link_of(_: str, found: StoredLink) -> Link | None:
        same = (found.link.id, found.link.component, found.link.digest) == (old.id, old.component, old.digest)
        return new if same else None

    try:
        rewrite_links(path, link_of)
    except (OSError, CompositeH5Error) as error:
        return Unread(path, str(error))
    return None
