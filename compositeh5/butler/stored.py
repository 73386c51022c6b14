"""The files of datasets, and what they say of the components that they link to; no component is read for that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from lsst.daf.butler import Butler, DatasetRef

from ..composite import Composite
from ..container.nodes import GroupNode, Node
from ..errors import NotACompositeFileError
from ..links import Link
from ..opening import from_group
from ..parts import LinkedPart
from .datasets import ASSEMBLY, location_of, open_uri


@dataclass(frozen=True)
class StoredLink:
    """A link as a file has it.

    Attributes
    ----------
    component : str
        Name of the linked component; with the names and indices that lead to it if it is in a nested composite:
        ``amplifiers/3/visit_info``.
    link : Link
        What it must find.
    place : str
        Where the path that is stored leads, seen from where the file is now.
    """

    component: str
    link: Link
    place: str


def is_composite(ref: DatasetRef) -> bool:
    """Return whether a dataset is a `Composite`, and so can have links."""
    try:
        return issubclass(ref.datasetType.storageClass.pytype, Composite)
    except ImportError:
        # The type of somebody else's datasets, which isn't installed here.
        return False


def describe(ref: DatasetRef) -> str:
    """Return a dataset as people and programs read it: dataset type, data ID, run, id."""
    data_id = " ".join(f"{key}={value}" for key, value in sorted(ref.dataId.required.items()))
    return f"{ref.datasetType.name} {data_id} {ref.run} {ref.id}"


@contextmanager
def open_ref(butler: Butler, ref: DatasetRef) -> Iterator[Composite]:
    """Open a stored composite; of one that is disassembled, the file that joins its components by links.

    Raises
    ------
    FileNotFoundError
        If it isn't stored.
    NotACompositeFileError
        If it isn't stored in a file of this format.
    """
    uris = butler.getURIs(ref)
    uri = uris.primaryURI or uris.componentURIs[ASSEMBLY]
    if uri.scheme == "mem":
        raise NotACompositeFileError(f"{ref}: is in memory ({uri}), not in a file")
    with open_uri(uri, ref=ref) as composite:
        yield composite


def dataset_links(butler: Butler, ref: DatasetRef) -> list[StoredLink]:
    """Return all links of a dataset; none if it is no composite.

    Raises
    ------
    OSError
        As `open_ref` does, or if the file can't be read.
    FormatError
        If the file isn't as it should be.
    """
    if not is_composite(ref):
        return []
    with open_ref(butler, ref) as composite:
        return list(composite_links(composite))


def composite_links(composite: Composite) -> Iterator[StoredLink]:
    """Return the links of an open composite, and of those nested in it."""
    for name in composite:
        part = composite._part(name)
        if isinstance(part, LinkedPart):
            yield StoredLink(name, part.link, part.place)
        elif part.kind in ("composite", "list"):
            yield from _nested_links(name, part.open_node()[0], composite.location)


def relinked(composite: Composite, place_of: Callable[[Link], str | None]) -> Composite | None:
    """Return an open composite with its links leading to other places, and the same id and content.

    Links of nested composites stay as they are.

    Parameters
    ----------
    composite : Composite
        An open composite.
    place_of : callable
        Gives for a link the location of the file that it should lead to; None to leave it as it is.

    Returns
    -------
    Composite or None
        None if all links lead there already.
    """
    places = {name: place_of(target) for name, target in composite.links.items()}
    moved = {
        found.component: replace(found.link, uri=place)
        for found in composite_links(composite)
        if (place := places.get(found.component)) is not None and place != found.place
    }
    return composite.replace(moved, id=composite.id) if moved else None


def located(butler: Butler, link: Link) -> Link | None:
    """Return a link with the place where the Butler has its target now; None if the target isn't stored there."""
    ref = butler.get_dataset(link.id)
    if ref is None:
        return None
    try:
        uris = butler.getURIs(ref)
    except FileNotFoundError:
        return None
    uri = uris.componentURIs.get(link.component) or uris.primaryURI
    return None if uri is None else replace(link, uri=location_of(uri))


def _nested_links(path: str, node: Node, location: str | None) -> Iterator[StoredLink]:
    kind = node.attr("kind", str)
    if kind == "composite" and isinstance(node, GroupNode):
        for found in composite_links(from_group(node, location)):
            yield replace(found, component=f"{path}/{found.component}")
    elif kind == "list" and isinstance(node, GroupNode):
        for index, item in node.items():
            yield from _nested_links(f"{path}/{index}", item, location)
