"""Whether links find what they are meant to, and who would miss a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from lsst.daf.butler import Butler, DatasetRef

from ..composite.link import Link
from ..composite.session import current
from ..errors import CompositeH5Error, DigestMismatchError, WrongIdError
from ..trees.references import StoredLink
from .dataset_files import composite_refs, describe, links_if_stored, relocated_link, target_ref
from .target_map import Places, read_map

State = Literal["ok", "mapped", "moved", "broken", "stale id", "stale digest", "unreadable", "about to break"]


@dataclass(frozen=True)
class CheckedLink:
    """A link of a dataset, and whether it finds what it is meant to.

    Attributes
    ----------
    ref : DatasetRef
        The dataset that has the link.
    component : str
        Name of the linked component; empty if that isn't known.
    link : Link or None
        What it must find; None if that isn't known.
    state : str
        "ok"; "mapped" if the target isn't where the path in the file leads, but where the map of `relink` says: gets
        find it, tools that know only HDF5 (h5ls, h5py) don't; "moved" if it is where it was recorded or where the
        Butler has it, and no map says so: `relink` writes one; "broken" if it isn't found; "stale id" or "stale
        digest" if another dataset, or another content, is in its place; "unreadable" if the file that would have links
        can't be read; "about to break" if the target is among datasets that would be removed.
    detail : str
        Where the target is, or what was found instead.
    """

    ref: DatasetRef
    component: str
    link: Link | None
    state: State
    detail: str

    def __str__(self) -> str:
        what = f"{self.component} -> {self.link}: " if self.link else ""
        return f"{self.state}: {describe(self.ref)}: {what}{self.detail}"


def check(butler: Butler, refs: Iterable[DatasetRef] | None = None) -> Iterator[CheckedLink]:
    """Check all links of datasets. No component is read.

    Parameters
    ----------
    butler : Butler
        The repository.
    refs : iterable of DatasetRef, optional
        The datasets; by default all composites of the repository.

    Yields
    ------
    CheckedLink
        Each link, also those that are "ok".

    Raises
    ------
    FormatError
        If the map of `relink` can't be read.
    """
    mapped = read_map(butler)
    for ref in composite_refs(butler) if refs is None else refs:
        try:
            links = links_if_stored(butler, ref)
        except (OSError, CompositeH5Error) as error:
            yield CheckedLink(ref, "", None, "unreadable", str(error))
        else:
            for found in links:
                yield CheckedLink(ref, found.component, found.link, *_state(butler, found, mapped))


def users_of(
    butler: Butler, refs: Iterable[DatasetRef], *, among: Iterable[DatasetRef] | None = None
) -> Iterator[CheckedLink]:
    """Tell what would break if datasets were removed: the links to them from datasets that would stay.

    Parameters
    ----------
    butler : Butler
        The repository.
    refs : iterable of DatasetRef
        The datasets that would be removed; of a run, ``butler.query_all_datasets(run)``.
    among : iterable of DatasetRef, optional
        The datasets that may have such links; by default all composites of the repository.

    Yields
    ------
    CheckedLink
        Each of those links, "about to break".

    Raises
    ------
    OSError, CompositeH5Error
        If a file can't be read: it may have such links.
    """
    removed = {str(ref.id): ref for ref in refs}
    for ref in composite_refs(butler) if among is None else among:
        if str(ref.id) not in removed:
            for found in links_if_stored(butler, ref):
                target = removed.get(found.link.id) or target_ref(butler, found.link)
                if target is not None and str(target.id) in removed:
                    detail = f"the target would go with the run {target.run}"
                    yield CheckedLink(ref, found.component, found.link, "about to break", detail)


def _state(butler: Butler, found: StoredLink, mapped: Places) -> tuple[State, str]:
    """Return the state of a link, and the detail."""
    link = found.link
    now = relocated_link(butler, link)
    by_map = mapped.get((link.id, link.component)) or mapped.get((link.id, None))
    places: dict[str, State] = {found.place: "ok"}
    if by_map is not None:
        places.setdefault(by_map, "mapped")
    if now is not None:
        places.setdefault(now.uri, "moved")
    places.setdefault(link.uri, "moved")
    failures: list[Exception] = []
    for place, state in places.items():
        try:
            current().target_at(place, link).file.close()
        except (OSError, CompositeH5Error) as error:
            failures.append(error)
        else:
            return state, place if state == "ok" else f"{failures[0]}; it is {place}"
    detail = "; ".join(map(str, failures))
    if any(isinstance(error, WrongIdError) for error in failures):
        return "stale id", detail
    if any(isinstance(error, DigestMismatchError) for error in failures):
        return "stale digest", detail
    return "broken", detail
