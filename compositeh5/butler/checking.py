"""Whether links find what they are meant to, who would miss a dataset, and how links are made right again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from lsst.daf.butler import Butler, DatasetExistence, DatasetRef

from ..errors import CompositeH5Error, DigestMismatchError, RefusedError, WrongIdError
from ..links import Link
from ..opening import open_composite
from ..operations.references import StoredLink
from .stored import dataset_links, describe, is_composite, located, target_ref

State = Literal["ok", "moved", "broken", "stale id", "stale digest", "unreadable", "about to break"]


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
        "ok"; "moved" if the target isn't where the path in the file leads, but where it was recorded or where the
        Butler has it: `relink` makes that right; "broken" if it isn't found; "stale id" or "stale digest" if another
        dataset, or another content, is in its place; "unreadable" if the file that would have links can't be read;
        "about to break" if the target is among datasets that would be removed.
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


def composite_refs(butler: Butler) -> list[DatasetRef]:
    """Return all composites of a repository, stored or only registered."""
    refs = butler.query_all_datasets("*", find_first=False, limit=None)
    return [ref for ref in refs if is_composite(ref)]


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
    """
    for ref in composite_refs(butler) if refs is None else refs:
        try:
            links = _links(butler, ref)
        except (OSError, CompositeH5Error) as error:
            yield CheckedLink(ref, "", None, "unreadable", str(error))
        else:
            for found in links:
                yield CheckedLink(ref, found.component, found.link, *_state(butler, found))


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
            for found in _links(butler, ref):
                target = removed.get(found.link.id) or target_ref(butler, found.link)
                if target is not None and str(target.id) in removed:
                    detail = f"the target would go with the run {target.run}"
                    yield CheckedLink(ref, found.component, found.link, "about to break", detail)


def _links(butler: Butler, ref: DatasetRef) -> list[StoredLink]:
    """Return the links of a dataset; none if it is only registered."""
    try:
        return dataset_links(butler, ref)
    except FileNotFoundError:
        if DatasetExistence.DATASTORE in butler.exists(ref, full_check=False):
            raise
        return []


def _state(butler: Butler, found: StoredLink) -> tuple[State, str]:
    """Return the state of a link, and the detail."""
    now = located(butler, found.link)
    places = dict.fromkeys([found.place, *([now.uri] if now else []), found.link.uri])
    failures: list[Exception] = []
    for place in places:
        try:
            _require(found.link, place)
        except (OSError, CompositeH5Error) as error:
            failures.append(error)
        else:
            return ("ok", place) if place == found.place else ("moved", f"{failures[0]}; it is {place}")
    detail = "; ".join(map(str, failures))
    if any(isinstance(error, WrongIdError) for error in failures):
        return "stale id", detail
    if any(isinstance(error, DigestMismatchError) for error in failures):
        return "stale digest", detail
    return "broken", detail


def _require(link: Link, place: str) -> None:
    """Raise an error unless a file has the target of a link."""
    with open_composite(place, id=link.id) as target:
        digest = target.component_digest(link.component)
        if link.component in target.links:
            raise RefusedError(f"{place}: {link.component} is a link itself; links to links aren't followed")
        if digest != link.digest:
            raise DigestMismatchError(f"{place}: the digest of {link.component} is {digest}, not {link.digest}")
