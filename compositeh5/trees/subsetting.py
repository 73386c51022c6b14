"""A part of a tree of composites, with what it links to and nothing else.

For example all catalogs, with the calibrations that they share with the exposures, and without these. Files that are
needed whole are copied; of others only the needed components are, as composites that tell their origin. First it is
found out what is needed, by reading no more than attributes; then what is linked to is written, and its users last.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from .. import kinds
from ..composite.composite import Composite
from ..composite.definitions import known_definition
from ..composite.encoding import composite_node
from ..composite.link import Link
from ..composite.opening import stored_composite
from ..composite.parts import StoredPart
from ..composite.session import current
from ..composite.writing import write_file
from ..errors import BrokenLinkError, CompositeH5Error, ConflictError, NoSuchComponentError, checked_names, require_type
from ..storage.layout import check_file, composite_group, composite_names
from ..storage.locations import checked_path, relative_location
from ..storage.nodes import GroupNode
from ..storage.publish import make_folders, publish, settle
from ..storage.reader import StoredFile
from .references import StoredLink, part_links
from .rewriting import relinked_group
from .running import Progress, each, silent
from .subset_plan import Found, Job, Needs, Plan, Transfer, Want, Wanted
from .walk import Root, Visited, files_under, visit


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
    visited : Visited
        What was looked at.
    """

    composites: tuple[str, ...]
    linked: tuple[str, ...]
    lost: tuple[str, ...]
    visited: Visited


def subset(
    source: Root,
    destination: Root,
    *,
    definition: str | None = None,
    components: Iterable[str] | None = None,
    transfer: Transfer = "copy",
    allow_lost: bool = False,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> Subset:
    """Copy some composites of a tree to another, with all that they link to, and nothing else.

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
    run = partial(each, executor=executor, progress=progress)
    tree = files_under(root)
    tree = replace(tree, files=tuple(path for path in tree.files if not path.startswith(target + os.sep)))
    found, visited = visit(
        partial(_selected, definition, wanted), tree, executor=executor, progress=progress, step="selecting"
    )
    plan = Plan(root, target, {file.path: file for file in found if file.needs})
    if not plan.files:
        raise NoSuchComponentError(
            f"{root}: none of its {visited.files} files has a composite"
            + (f" of definition {definition!r}" if definition else "")
            + (f" with one of the components {', '.join(sorted(wanted))}" if wanted else "")
        )
    selected = list(plan.files)
    while wants := plan.unresolved():
        plan.resolve(wants, list(run(_located, wants, step="following links")))
        more = plan.to_look_at({path: frozenset(plan.files[path].needs) for path in selected})
        plan.looked_at(run(_needed, more, step="looking at what is linked"))
    if plan.lost and not allow_lost:
        raise BrokenLinkError(f"{len(plan.lost)} linked components are lost; nothing was written: {plan.lost[0]}")
    plan.name_all(run(_new_ids, list(plan.files.values()), step="naming"))
    jobs = [plan.job(file, transfer) for file in plan.files.values()]
    # Users come after what they link to.
    linked = [job for job in reversed(jobs) if job.source not in selected]
    users = [job for job in jobs if job.source in selected]
    for part, step in ((linked, "writing what is linked"), (users, "writing")):
        for _ in run(_write, part, step=step):
            pass
    return Subset(
        tuple(sorted(job.destination for job in users)),
        tuple(sorted(job.destination for job in linked)),
        tuple(sorted(plan.lost)),
        visited,
    )


# ---- What is done with each file, in any process -------------------------------------------------------------


def _selected(definition: str | None, wanted: frozenset[str] | None, path: str, file: StoredFile) -> Wanted:
    """Return what of a file is selected."""
    needs: Needs = {}
    for name in composite_names(file):
        composite = stored_composite(composite_group(file, name), path)
        if definition is not None and composite.definition != definition:
            continue
        if wanted is None or wanted >= {*composite, *composite.absent}:
            needs[name] = None
        elif here := wanted.intersection(composite):
            needs[name] = here
    return _file(path, file, needs)


def _located(want: Want) -> Found | str:
    """Return where the target of a link is, or why it is lost."""
    try:
        with current().find(want.link, want.base, relative_location(want.place, want.base)) as target:
            for name in composite_names(target.file):
                if composite_group(target.file, name).attr("id", str) == want.link.id:
                    return Found(os.path.realpath(target.place), name)
    except CompositeH5Error as error:
        return f"{want.base}: {error}"
    return f"{want.base}: {want.link} was replaced meanwhile"


def _needed(want: tuple[str, Needs, frozenset[str]]) -> Wanted:
    """Return what of a file comes along if some of it is needed.

    Of the composites named last that is all, but for the sake of pixels that aren't needed.
    """
    path, needs, widened = want
    file = current().open(path)
    try:
        check_file(file)
        for name in widened & needs.keys():
            composite, parts = stored_composite(composite_group(file, name), path), needs[name] or frozenset()
            if not any(kinds.get(composite.kind(other)).is_pixels for other in composite if other not in parts):
                needs = {**needs, name: None}
        return _file(path, file, needs)
    finally:
        file.close()


def _file(path: str, file: StoredFile, needs: Needs) -> Wanted:
    links: list[tuple[str, StoredLink]] = []
    for name, parts in needs.items():
        composite = stored_composite(composite_group(file, name), path)
        for component in composite if parts is None else parts:
            links += ((name, found) for found in part_links(component, composite.part(component), path))
    return Wanted(path, composite_names(file), needs, tuple(links))


def _new_ids(wanted: Wanted) -> dict[str, str]:
    """Return the ids that the composites of a file will have: others than now for those of which parts are left out."""
    file = current().open(wanted.path)
    try:
        ids = {}
        for name, parts in wanted.needs.items():
            group: GroupNode = composite_group(file, name)
            if parts is not None:
                group = composite_node(reduced(stored_composite(group, wanted.path), parts))
            ids[name] = group.attr("id", str)
        return ids
    finally:
        file.close()


def _write(job: Job) -> None:
    """Write a file, unless it is there."""
    if os.path.lexists(job.destination) and _is_there(job):
        settle(os.path.dirname(job.destination))
        return
    make_folders(os.path.dirname(job.destination))
    if job.transfer is not None:
        _transfer(job.source, job.destination, job.transfer)
        return
    file = current().open(job.source)
    try:
        composites: dict[str, Composite] = {}
        for name, parts in job.needs.items():

            def link_of(found: StoredLink, name: str = name) -> Link | None:
                return job.links.get((name, found.component))

            group, _ = relinked_group(composite_group(file, name), job.source, link_of)
            whole = stored_composite(group, job.source)
            composites[name] = whole if parts is None else reduced(whole, parts)
        write_file(job.destination, composites)
    finally:
        file.close()


def reduced(whole: Composite, names: Collection[str]) -> Composite:
    """Return a composite of some components of another that is stored, and must stay open.

    What it stores tells where it is from. It has the definition only if it has all components that this requires.
    """
    parts = {name: whole.part(name) for name in whole if name in names}
    copies = {n: part.copied_from(whole.link(n)) if isinstance(part, StoredPart) else part for n, part in parts.items()}
    result = whole.with_parts(copies, [name for name in whole.absent if name in names])
    definition = known_definition(whole.definition)
    if definition is None or not set(definition.required).issubset(names):
        result.definition, result.definition_version = "", 1
    return result


def _is_there(job: Job) -> bool:
    """Return whether an earlier, interrupted call has written a file.

    Raises
    ------
    ConflictError
        If there is something else.
    """
    try:
        file = current().open(job.destination)
        try:
            check_file(file)
            ids = {name: composite_group(file, name).attr("id", str) for name in composite_names(file)}
        finally:
            file.close()
    except (OSError, CompositeH5Error) as error:
        raise ConflictError(f"{job.destination}: something else is there: {error}") from error
    if ids != job.ids:
        raise ConflictError(f"{job.destination}: holds other composites ({ids}) than are to be written ({job.ids})")
    return True


def _transfer(source: str, destination: str, how: Transfer) -> None:
    if how == "symlink":
        os.symlink(source, destination)
        settle(os.path.dirname(destination))
        return
    if how == "hardlink":
        # Where it can't be, as between two disks, a copy is as good.
        with suppress(OSError):
            os.link(source, destination)
            settle(os.path.dirname(destination))
            return
    with open(source, "rb") as file:
        publish(destination, file.read(), replace=False)
