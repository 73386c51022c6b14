"""Giving a component a file of its own, so that the composite that it was stored with can be deleted."""

from __future__ import annotations

import os
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from ..composite.composite import Composite
from ..composite.link import Link
from ..composite.opening import open_composite
from ..composite.parts import StoredPart
from ..errors import CompositeH5Error, ConflictError
from ..storage.locations import absolute_location
from .references import StoredLink, refs_to
from .rewriting import rewrite
from .running import Progress, each, silent
from .walk import Root, Unread, Visited


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
    visited : Visited
        Where users were looked for.
    """

    link: Link
    users: tuple[str, ...]
    failed: tuple[Unread, ...]
    visited: Visited


def promote(
    source: str | os.PathLike[str],
    component: str,
    path: str | os.PathLike[str],
    *users: Root,
    name: str | None = None,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> Promotion:
    """Write a component of a stored composite to a file of its own, and make those that link to it link to that.

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
            reference.path
            for reference in referrers.references
            if (reference.link.id, reference.link.component, reference.link.digest) == (old.id, component, old.digest)
        }
    )
    done = list(each(partial(_relink, old, new), found, executor=executor, progress=progress, step="linking users"))
    failed = tuple(result for result in done if isinstance(result, Unread))
    bad = {problem.path for problem in failed}
    return Promotion(new, tuple(user for user in found if user not in bad), failed, referrers.visited)


def _relink(old: Link, new: Link, path: str) -> Unread | None:
    def link_of(_: str, found: StoredLink) -> Link | None:
        same = (found.link.id, found.link.component, found.link.digest) == (old.id, old.component, old.digest)
        return new if same else None

    try:
        rewrite(path, link_of)
    except (OSError, CompositeH5Error) as error:
        return Unread(path, str(error))
    return None
