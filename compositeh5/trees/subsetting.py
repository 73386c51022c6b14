"""A part of a tree of composites, with what it links to and nothing else.

For example all catalogs, with the calibrations that they share with the exposures, and without these. Files that are
needed whole are copied; of others only the needed components are, as composites that tell their origin. First it is
found out what is needed, by reading no more than attributes; then what is linked to is written, and its users last.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

from ..composite.composite import Composite
from ..composite.encoding import composite_node
from ..composite.link import Link
from ..composite.opening import stored_composite
from ..composite.session import current
from ..composite.writing import write_file
from ..errors import BrokenLinkError, CompositeH5Error, ConflictError, NoSuchComponentError, checked_names, require_type
from ..storage.layout import composite_group, composite_names
from ..storage.locations import checked_path, relative_location
from ..storage.publish import make_folders, publish, sync_folder
from ..storage.reader import StoredFile
from .closure import Entry, closure, links_and_pixel_names, targets_first, with_only
from .references import StoredLink
from .relinking import relinked_group
from .running import Progress, map_in_order, no_progress
from .walk import Root, SearchedFiles, files_under, map_files

Transfer: TypeAlias = Literal["copy", "hardlink", "symlink"]
"""How files that are needed whole, and as they are, get to their new place."""

OUTSIDE = "linked"
"""Folder for what was linked to from outside of the source."""


@dataclass(frozen=True)
class Subset:
    """What a subset consists of.

    Attributes
    ----------
    composites : tuple of str
        The new files of the composites that were selected.
    linked : tuple of str
        The new files of what these link to.
    lost : tuple of str
        Links that were lost before, if that was allowed; they are as they were.
    visited : SearchedFiles
        What was looked at.
    """

    composites: tuple[str, ...]
    linked: tuple[str, ...]
    lost: tuple[str, ...]
    visited: SearchedFiles


def subset(
    source: Root,
    destination: Root,
    *,
    definition: str | None = None,
    components: Iterable[str] | None = None,
    transfer: Transfer = "copy",
    allow_lost: bool = False,
    executor: Executor | None = None,
    progress: Progress = no_progress,
) -> Subset:
    """Copy some composites of a folder to another, with all that they link to, and nothing else.

    Files keep their paths relative to the source. A file that is linked to comes along whole, unless it has pixels that
    nobody needs: then its needed components come as a composite of their own, named after them, in its folder:
    ``calexp/a.h5`` gives ``calexp/a.photo_calib.h5``. What is linked to outside of the source comes to the folder
    ``linked``. What several composites share stays shared. No component that doesn't come along is read.

    A call that is interrupted leaves whole files only; the next one takes them over.

    Parameters
    ----------
    source, destination : path
        The folders.
    definition : str, optional
        Only composites of this definition.
    components : iterable of str, optional
        Only these components of them; composites that have none of them are left out.
    transfer : {"copy", "hardlink", "symlink"}, optional
        How files that don't change get to the destination. Others are written.
    allow_lost : bool, optional
        Whether lost links may stay lost.
    executor : concurrent.futures.Executor, optional
        Where the files are read and written: threads, processes, or that of a `distributed.Client`. Without one, here.
    progress : callable, optional
        Told how many are done.

    Raises
    ------
    BrokenLinkError
        If a needed component is lost. Nothing is written.
    ConflictError
        If other composites are at the destination.
    NoSuchComponentError
        If nothing was selected.
    FileNotFoundError
        If the source isn't there.
    """
    root, target = (os.path.realpath(checked_path(path)) for path in (source, destination))
    wanted = None if components is None else frozenset(checked_names(components, "the name of a component"))
    require_type(definition, (str, type(None)), "the name of a definition")
    run = partial(map_in_order, executor=executor, progress=progress)
    tree = files_under(root)
    tree = replace(tree, files=tuple(path for path in tree.files if not path.startswith(target + os.sep)))
    found, visited = map_files(
        partial(_selected, definition, wanted), tree, executor=executor, progress=progress, step="selecting"
    )
    selected = {entry: entry.links.keys() if wanted is None else wanted for entries in found for entry in entries}
    if not selected:
        raise NoSuchComponentError(
            f"{root}: none of its {visited.files} files has a composite"
            + (f" of definition {definition!r}" if definition else "")
            + (f" with one of the components {', '.join(sorted(wanted))}" if wanted else "")
        )
    entries, lost = closure(_Folder(run), selected)
    if lost and not allow_lost:
        raise BrokenLinkError(f"{len(lost)} linked components are lost; nothing was written: {min(lost)}")
    ids = {key: entry.id for key, entry in entries.items()}
    reduced = [entry for entry in entries.values() if entry.is_reduced]
    ids |= zip((entry.key for entry in reduced), run(_reduced_id, reduced, step="naming"), strict=True)
    jobs = _jobs(entries, ids, root, target, transfer)
    linked = [job for job in jobs if not job.is_selected]
    users = [job for job in jobs if job.is_selected]
    for part, step in ((linked, "writing linked files"), (users, "writing")):
        for _ in run(_write, part, step=step):
            pass
    return Subset(
        tuple(sorted(job.destination for job in users)),
        tuple(sorted(job.destination for job in linked)),
        tuple(sorted(lost)),
        visited,
    )


# ---- Which composites are needed ----------------------------------------------------------------------------


class _Place(NamedTuple):
    """A composite: its file, and its name in this."""

    path: str
    name: str


@dataclass(eq=False)
class _Entry(Entry[_Place]):
    """A composite of a file."""

    id: str = ""
    names: tuple[str, ...] = ()
    """The composites of its file."""


@dataclass
class _Folder:
    """The files of a folder, and those to which they link, as a `Store`."""

    run: Callable[..., Iterable[Any]]
    """`map_in_order` on the executor of the caller."""
    places: dict[tuple[Link, str], _Place | str] = field(default_factory=dict)
    """Where the links lead that were followed, by the link and the place that the path in the file leads to."""

    def look_at(self, keys: Sequence[_Place]) -> list[_Entry]:
        names: dict[str, set[str]] = defaultdict(set)
        for path, name in keys:
            names[path].add(name)
        found = self.run(_looked_at, list(names.items()), step="looking at linked files")
        entries = {entry.key: entry for entries in found for entry in entries}
        return [entries[key] for key in keys]

    def locate(self, links: Sequence[tuple[_Place, StoredLink]]) -> list[_Place | str]:
        new: dict[tuple[Link, str], tuple[str, StoredLink]] = {}
        for user, found in links:
            if (found.link, found.place) not in self.places:
                new.setdefault((found.link, found.place), (user.path, found))
        self.places |= zip(new, self.run(_located, list(new.values()), step="following links"), strict=True)
        return [self.places[found.link, found.place] for _, found in links]


def _selected(definition: str | None, wanted: frozenset[str] | None, path: str, file: StoredFile) -> list[_Entry]:
    """Return the composites of a file that are selected."""
    return [
        _entry(path, file, name, composite)
        for name, composite in _composites(path, file)
        if (definition is None or composite.definition == definition)
        and (wanted is None or not wanted.isdisjoint(composite))
    ]


def _looked_at(want: tuple[str, Collection[str]]) -> list[_Entry]:
    path, names = want
    with current().opened(path) as file:
        return [_entry(path, file, name, composite) for name, composite in _composites(path, file) if name in names]


def _entry(path: str, file: StoredFile, name: str, composite: Composite) -> _Entry:
    return _Entry(_Place(path, name), *links_and_pixel_names(composite), id=composite.id, names=composite_names(file))


def _located(want: tuple[str, StoredLink]) -> _Place | str:
    """Return where the target of a link of a file is, or why it is lost."""
    path, found = want
    try:
        with current().find(found.link, path, relative_location(found.place, path)) as target:
            for name, composite in _composites(target.place, target.file):
                if composite.id == found.link.id:
                    return _Place(os.path.realpath(target.place), name)
    except CompositeH5Error as error:
        return f"{path}: {error}"
    return f"{path}: {found.link} was replaced meanwhile"


def _composites(path: str, file: StoredFile) -> Iterator[tuple[str, Composite]]:
    for name in composite_names(file):
        yield name, stored_composite(composite_group(file, name), path)


# ---- What is written ----------------------------------------------------------------------------------------


class _Job(NamedTuple):
    """A file that is to be written."""

    source: str
    destination: str
    is_selected: bool
    needed: dict[str, Set[str] | None]
    """Of each composite the names of the needed components; None for all."""
    ids: dict[str, str]
    links: dict[tuple[str, str], Link]
    """Links that lead elsewhere than in the source, by the name of the composite and `StoredLink.component`."""
    transfer: Transfer | None
    """How to get the same file; None if it changes."""


def _jobs(
    entries: Mapping[_Place, _Entry], ids: Mapping[_Place, str], root: str, target: str, transfer: Transfer
) -> list[_Job]:
    """Return how each file is to be written, those that are linked to first, with the ids of the new composites."""
    files: dict[str, list[_Entry]] = defaultdict(list)
    for entry in targets_first(entries):
        files[entry.key.path].append(entry)
    destinations = {
        path: _destination(path, of_file, ids[of_file[0].key], root, target) for path, of_file in files.items()
    }
    jobs = []
    for path, of_file in files.items():
        links: dict[tuple[str, str], Link] = {}
        same = len(of_file) == len(of_file[0].names) and not any(entry.is_reduced for entry in of_file)
        for entry in of_file:
            for found in (found for name in entry.needed for found in entry.links[name]):
                if (key := entry.targets.get(found.component)) is not None:
                    uri = destinations[key.path]
                    links[entry.key.name, found.component] = replace(found.link, id=ids[key], uri=uri)
                    new = relative_location(uri, destinations[path]), ids[key]
                    same &= new == (relative_location(found.place, path), found.link.id)
        needed = {entry.key.name: entry.needed if entry.is_reduced else None for entry in of_file}
        own_ids = {entry.key.name: ids[entry.key] for entry in of_file}
        is_selected = any(entry.is_selected for entry in of_file)
        jobs.append(_Job(path, destinations[path], is_selected, needed, own_ids, links, transfer if same else None))
    return jobs


def _destination(source: str, entries: Iterable[_Entry], id_: str, root: str, target: str) -> str:
    path = os.path.relpath(source, root)
    if path.startswith(os.pardir):
        # Two of the same name may come from different folders.
        path = os.path.join(OUTSIDE, id_, os.path.basename(path))
    if parts := sorted({name for entry in entries if entry.is_reduced for name in entry.needed}):
        stem, extension = os.path.splitext(path)
        path = f"{stem}.{'+'.join(parts)}{extension}"
    return os.path.join(target, path)


def _reduced_id(entry: _Entry) -> str:
    """Return the id of the composite of the needed components."""
    with current().opened(entry.key.path) as file:
        whole = stored_composite(composite_group(file, entry.key.name), entry.key.path)
        id_: str = composite_node(with_only(whole, entry.needed)).attr("id", str)
        return id_


def _write(job: _Job) -> None:
    """Write a file, unless it is there."""
    if os.path.lexists(job.destination) and _is_there(job):
        sync_folder(os.path.dirname(job.destination))
        return
    make_folders(os.path.dirname(job.destination))
    if job.transfer is not None:
        _transfer(job.source, job.destination, job.transfer)
        return
    with current().opened(job.source) as file:
        composites: dict[str, Composite] = {}
        for name, needed in job.needed.items():

            def link_of(found: StoredLink, name: str = name) -> Link | None:
                return job.links.get((name, found.component))

            group, _ = relinked_group(composite_group(file, name), job.source, link_of)
            whole = stored_composite(group, job.source)
            composites[name] = whole if needed is None else with_only(whole, needed)
        write_file(job.destination, composites)


def _is_there(job: _Job) -> bool:
    """Return whether an earlier, interrupted call has written a file.

    Raises
    ------
    ConflictError
        If there is something else.
    """
    try:
        with current().opened(job.destination) as file:
            ids = {name: composite.id for name, composite in _composites(job.destination, file)}
    except (OSError, CompositeH5Error) as error:
        raise ConflictError(f"{job.destination}: something else is there: {error}") from error
    if ids != job.ids:
        raise ConflictError(f"{job.destination}: holds other composites ({ids}) than are to be written ({job.ids})")
    return True


def _transfer(source: str, destination: str, how: Transfer) -> None:
    if how == "symlink":
        os.symlink(source, destination)
        sync_folder(os.path.dirname(destination))
        return
    if how == "hardlink":
        # Where it can't be, as between two disks, a copy is as good.
        with suppress(OSError):
            os.link(source, destination)
            sync_folder(os.path.dirname(destination))
            return
    with open(source, "rb") as file:
        publish(destination, file.read(), replace=False)
