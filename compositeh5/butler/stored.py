"""The files of datasets, and what they say of the components that they link to; no component is read for that.

A link names its target by the id that this has in its file. That is the id of the dataset, but for files that were
written without a Butler and ingested under other ids: `target_ref` then finds the dataset by its data ID.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Literal, TypeAlias

from lsst.daf.butler import Butler, ButlerUserError, DatasetExistence, DatasetRef, DatasetType
from lsst.daf.butler.datastore import DatasetRefURIs

from ..composite.composite import Composite
from ..composite.link import Link
from ..errors import CompositeH5Error, NotACompositeFileError
from ..trees.references import HOLDERS, StoredLink, composite_links
from .datasets import ASSEMBLY, is_composite_class, location_of, open_uri

Missing: TypeAlias = Literal["error", "ignore"]
"""What to do about links to datasets that aren't stored."""


def is_composite(dataset: DatasetRef | DatasetType) -> bool:
    """Return whether a dataset, or those of a type, are stored as composites, and so can have links."""
    dataset_type = dataset if isinstance(dataset, DatasetType) else dataset.datasetType
    try:
        return is_composite_class(dataset_type.storageClass.pytype)
    except ImportError:
        # The type of somebody else's datasets, which isn't installed here.
        return False


def describe(ref: DatasetRef) -> str:
    """Return a dataset as people and programs read it: dataset type, data ID, run, id."""
    data_id = " ".join(f"{key}={value}" for key, value in sorted(ref.dataId.required.items()))
    return f"{ref.datasetType.name} {data_id} {ref.run} {ref.id}"


def composite_refs(butler: Butler) -> list[DatasetRef]:
    """Return all composites of a repository, stored or only registered."""
    refs = butler.query_all_datasets("*", find_first=False, limit=None)
    return [ref for ref in refs if is_composite(ref)]


def stored_among(butler: Butler, refs: Iterable[DatasetRef]) -> list[DatasetRef]:
    """Return those datasets that are stored, and not only registered."""
    given = list(refs)
    found = butler.stored_many(given)
    # Of several datasets in one file, stored_many (of 30.2026.4300) knows one; asked alone, each is known.
    return [ref for ref in given if found[ref] or butler.stored(ref)]


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
    with _open_main(ref, butler.getURIs(ref)) as composite:
        yield composite


@contextmanager
def open_joined(butler: Butler, ref: DatasetRef) -> Iterator[Composite]:
    """Open a stored composite; one that is disassembled as if its components were in one file.

    Raises
    ------
    FileNotFoundError, NotACompositeFileError
        As `open_ref` does.
    """
    uris = butler.getURIs(ref)
    with ExitStack() as stack:
        assembly = stack.enter_context(_open_main(ref, uris))
        if uris.primaryURI is not None:
            yield assembly
            return
        pieces = {}
        for name, target in assembly.links.items():
            if target.id == assembly.id:
                piece = stack.enter_context(open_uri(uris.componentURIs[name], ref=ref))
                pieces[name] = piece.part(name)
        whole = assembly.with_parts({**assembly.parts, **pieces}, id=assembly.id)
        whole.location = assembly.location
        yield whole


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
        found = list(composite_links(composite))
        id_ = composite.id
    for own in [found.link for found in found if found.link.id == id_ and found.link.kind in HOLDERS]:
        # Of a disassembled composite, what is nested in a component is in the file of that.
        with open_uri(butler.getURIs(ref).componentURIs[own.component], ref=ref) as piece:
            found += composite_links(piece)
    return found


def links_if_stored(butler: Butler, ref: DatasetRef) -> list[StoredLink]:
    """Return all links of a dataset, as `dataset_links` does; none if it is only registered.

    Raises
    ------
    OSError, FormatError
        As `dataset_links` does; also if the file of a stored dataset isn't there.
    """
    try:
        return dataset_links(butler, ref)
    except FileNotFoundError:
        if DatasetExistence.DATASTORE in butler.exists(ref, full_check=False):
            raise
        return []


def target_ref(butler: Butler, link: Link) -> DatasetRef | None:
    """Return the dataset to which a link leads; None if it isn't registered in this repository.

    It is the one with the id of the link. Where there is none, it is one of those with the data ID of the link, or a
    part of it, in whose file there is a composite of that id: such files were ingested under other ids than they have
    inside. A link that knows no data ID only finds a dataset of its id.
    """
    return butler.get_dataset(link.id) or next(_ingested(butler, link), None)


def stored_targets(butler: Butler, links: Iterable[Link]) -> dict[str, DatasetRef]:
    """Return the datasets to which links lead, by the ids of the links; without those that aren't stored."""
    known = {link.id: link for link in links}
    targets = {str(ref.id): ref for ref in butler.get_many_datasets(map(uuid.UUID, known))}
    for id_, link in known.items():
        if id_ not in targets and (other := target_ref(butler, link)) is not None:
            targets[id_] = other
    stored = {ref.id for ref in stored_among(butler, targets.values())}
    return {id_: ref for id_, ref in targets.items() if ref.id in stored}


def located(butler: Butler, link: Link) -> Link | None:
    """Return a link with the place where the Butler has its target now; None if the target isn't stored there."""
    ref = target_ref(butler, link)
    if ref is None:
        return None
    try:
        uris = butler.getURIs(ref)
    except FileNotFoundError:
        return None
    uri = uris.componentURIs.get(link.component) or uris.primaryURI
    return None if uri is None else replace(link, uri=location_of(uri))


@contextmanager
def _open_main(ref: DatasetRef, uris: DatasetRefURIs) -> Iterator[Composite]:
    """Open the only file of a composite, or that which joins the others."""
    uri = uris.primaryURI or uris.componentURIs[ASSEMBLY]
    if uri.scheme == "mem":
        raise NotACompositeFileError(f"{ref}: is in memory ({uri}), not in a file")
    with open_uri(uri, ref=ref) as composite:
        yield composite


def _ingested(butler: Butler, link: Link) -> Iterator[DatasetRef]:
    """Return the datasets, of other ids, that hold the target of a link."""
    for dataset_type in butler.registry.queryDatasetTypes():
        keys = dataset_type.dimensions.required
        if not keys or not link.data_id.keys() >= set(keys) or not is_composite(dataset_type):
            continue
        data_id = {key: link.data_id[key] for key in keys}
        # A file may say anything of the data ID of its links.
        with suppress(ButlerUserError, ValueError, TypeError):
            refs = butler.query_datasets(
                dataset_type, "*", find_first=False, data_id=data_id, limit=None, explain=False
            )
            for ref in refs:
                with suppress(OSError, CompositeH5Error), open_ref(butler, ref) as stored:
                    if stored.id == link.id and link.component in stored:
                        yield ref
