"""The files of datasets: how they are opened, links to their components, and what they link to themselves.

A link names its target by the id that this has in its file. That is the id of the dataset, but for files that were
written without a Butler and ingested under other ids: `target_ref` then finds the dataset by its data ID.

Links are resolved without a Butler as long as the files stay at the same places relative to each other. Where they
don't (other templates, presigned URLs), a Butler knows where a dataset is, by its id: `use_butler`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeAlias, overload

from lsst.daf.butler import (
    Butler,
    ButlerUserError,
    DatasetExistence,
    DatasetRef,
    DatasetType,
    DeferredDatasetHandle,
    LimitedButler,
)
from lsst.resources import ResourcePath

from ..composite.composite import Composite
from ..composite.link import Link
from ..composite.opening import open_dataset
from ..composite.session import current
from ..errors import (
    BrokenLinkError,
    CompositeH5Error,
    NoSuchComponentError,
    NotACompositeFileError,
    WrongValueError,
)
from ..storage.remote import ZIP_PATH, member_location, public_location
from ..trees.references import KINDS_WITH_LINKS, StoredLink, composite_links
from .datasets import ASSEMBLY, is_composite_class

Missing: TypeAlias = Literal["error", "ignore"]
"""What to do about links to datasets that aren't stored."""

RESOLVER = "resolver"
"""Name of the parameter of a get that is a Butler."""


# ---- Files --------------------------------------------------------------------------------------------------


def location_of(uri: ResourcePath) -> str:
    """Return a URI as locations are written: a path, or a URL without signature, maybe of a member of a zip file."""
    outer = str(uri.ospath) if uri.isLocal else public_location(uri.replace(fragment=""))
    found, is_member, member = str(uri.unquoted_fragment).partition("zip-path=")
    return member_location(outer, member) if is_member and not found else outer


def source_of(uri: ResourcePath) -> ResourcePath | str:
    """Return what a URI is opened by: itself if it is remote, for it may have a signature, or headers."""
    location = location_of(uri)
    return location if uri.isLocal or ZIP_PATH in location else uri


def opener(
    uri: ResourcePath, ref: DatasetRef, *, original: ResourcePath | None = None, size: int = -1
) -> partial[Composite]:
    """Return a function that opens the composite of a dataset; it can be sent to other processes.

    Parameters
    ----------
    uri : ResourcePath
        The file, or a copy of it. It may be remote: then only what is asked for is transferred.
    ref : DatasetRef
        The dataset that is wanted of a file which may hold several.
    original : ResourcePath, optional
        The file, if ``uri`` is a copy: links are relative to this.
    size : int, optional
        Size of the file as recorded; not positive if it isn't known.
    """
    location, known = location_of(original or uri), size if size > 0 else None
    return partial(open_dataset, source_of(uri), str(ref.id), dict(ref.dataId.required), location=location, size=known)


def main_uri(butler: LimitedButler, ref: DatasetRef) -> ResourcePath:
    """Return the file of a stored composite; of one that is disassembled, the file that joins its components by links.

    Raises
    ------
    FileNotFoundError
        If it isn't stored.
    NotACompositeFileError
        If it is in memory, or has no such file.
    """
    uris = butler.getURIs(ref)
    return _in_file(ref, uris.primaryURI or uris.componentURIs.get(ASSEMBLY))


def component_uri(butler: LimitedButler, ref: DatasetRef, component: str) -> ResourcePath | None:
    """Return the file that holds a component of a stored dataset; None if a disassembled dataset has no file for it.

    Raises
    ------
    FileNotFoundError
        If it isn't stored.
    """
    uris = butler.getURIs(ref)
    return uris.componentURIs.get(component) or uris.primaryURI


def open_ref(butler: LimitedButler, ref: DatasetRef) -> Composite:
    """Open a stored composite; of one that is disassembled, the file that joins its components by links.

    Raises
    ------
    FileNotFoundError
        If it isn't stored.
    NotACompositeFileError
        If it isn't stored in a file of this format.
    """
    return opener(main_uri(butler, ref), ref)()


@contextmanager
def open_joined(butler: Butler, ref: DatasetRef) -> Iterator[Composite]:
    """Open a stored composite; one that is disassembled as if its components were in one file.

    Raises
    ------
    FileNotFoundError, NotACompositeFileError
        As `open_ref` does.
    """
    with ExitStack() as stack:
        assembly = stack.enter_context(open_ref(butler, ref))
        uris = butler.getURIs(ref)
        if uris.primaryURI is not None:
            yield assembly
            return
        pieces = {}
        for name, target in assembly.links.items():
            if target.id == assembly.id:
                piece = stack.enter_context(opener(uris.componentURIs[name], ref)())
                pieces[name] = piece.part(name)
        whole = assembly.with_parts({**assembly.parts, **pieces}, id=assembly.id)
        whole.location = assembly.location
        yield whole


# ---- Links to datasets --------------------------------------------------------------------------------------


@overload
def link(butler: LimitedButler, ref: DatasetRef, component: str, /) -> Link: ...


@overload
def link(handle: DeferredDatasetHandle, component: str, /) -> Link: ...


def link(source: Any, *what: Any) -> Link:
    """Return a link to a component of a stored dataset.

    Called as ``link(butler, ref, component)`` or ``link(handle, component)``.

    Given to a `Composite` as a component, it makes the file of that composite link to the dataset's file. Only the
    attributes of the latter are read.

    Parameters
    ----------
    butler : LimitedButler
        The repository.
    ref : DatasetRef
        The dataset: a composite.
    handle : DeferredDatasetHandle
        The dataset, as tasks get it for deferred inputs, or ``butler.getDeferred`` gives it.
    component : str
        Name of the component.

    Raises
    ------
    NoSuchComponentError, AbsentComponentError
        If the dataset has no such component, or it is known to be None.
    NotACompositeFileError
        If the dataset isn't stored in a file of this format.
    FileNotFoundError
        If the dataset doesn't exist.
    ValueError
        If the handle has parameters: a link leads to a whole component.
    """
    *pair, component = what
    butler, ref = (source, *pair) if pair else (source.butler, source.ref)
    if not pair and source.parameters:
        raise WrongValueError(
            f"{ref}: a link leads to a whole component, but the handle has parameters {source.parameters}"
        )
    uri = component_uri(butler, ref, component)
    if uri is None:
        raise NoSuchComponentError(f"{ref}: no component {component!r} is stored")
    with opener(_in_file(ref, uri), ref)() as composite:
        return composite.link(component)


@contextmanager
def use_butler(butler: Butler) -> Iterator[None]:
    """Ask a Butler for linked components that aren't found otherwise, within a ``with`` block.

    It holds for this thread and for asynchronous tasks that it starts, not for other threads. For a single get, give
    the Butler as the parameter ``resolver``.

    Parameters
    ----------
    butler : Butler
        A repository that has the datasets to which links lead; any kind of Butler that finds datasets by id.

    Examples
    --------
    >>> with use_butler(butler):  # doctest: +SKIP
    ...     info = butler.get("calexp.visit_info", data_id)
    """

    def locate(link: Link) -> ResourcePath | str:
        try:
            ref = butler.get_dataset(link.id)
            uri = None if ref is None else component_uri(butler, ref, link.component)
        except Exception as error:
            # What a Butler raises depends on its kind: errors of databases, of servers, of look-ups.
            raise BrokenLinkError(f"{butler} can't tell where {link.id} is: {error}") from error
        if uri is None:
            raise BrokenLinkError(f"{butler} has no dataset {link.id}")
        return source_of(uri)

    with replace(current(), resolver=locate).use():
        yield


@contextmanager
def using_resolver_parameter(parameters: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Use the Butler among the parameters of a get, if there is one, and yield the others."""
    rest = dict(parameters or {})
    butler = rest.pop(RESOLVER, None)
    if butler is None:
        yield rest
    else:
        with use_butler(butler):
            yield rest


# ---- What datasets link to ----------------------------------------------------------------------------------


def is_composite(dataset: DatasetRef | DatasetType) -> bool:
    """Return whether a dataset, or those of a type, are stored as composites, and so can have links."""
    dataset_type = dataset if isinstance(dataset, DatasetType) else dataset.datasetType
    try:
        return is_composite_class(dataset_type.storageClass.pytype)
    except ImportError:
        # The type of somebody else's datasets, which isn't installed here.
        return False


def whole_refs(refs: Iterable[DatasetRef]) -> list[DatasetRef]:
    """Return datasets, each once; a dataset in place of its components."""
    whole = (ref.makeCompositeRef() if ref.isComponent() else ref for ref in refs)
    return list({ref.id: ref for ref in whole}.values())


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
    for own in [found.link for found in found if found.link.id == id_ and found.link.kind in KINDS_WITH_LINKS]:
        # Of a disassembled composite, what is nested in a component is in the file of that.
        with opener(butler.getURIs(ref).componentURIs[own.component], ref)() as piece:
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


def relocated_link(butler: Butler, link: Link) -> Link | None:
    """Return a link with the place where the Butler has its target now; None if the target isn't stored there."""
    ref = target_ref(butler, link)
    if ref is None:
        return None
    try:
        uri = component_uri(butler, ref, link.component)
    except FileNotFoundError:
        return None
    return None if uri is None else replace(link, uri=location_of(uri))


def _in_file(ref: DatasetRef, uri: ResourcePath | None) -> ResourcePath:
    """Return the place of a dataset, which must be that of a file."""
    if uri is None:
        raise NotACompositeFileError(f"{ref}: is stored as several files, none of which joins the others")
    if uri.scheme == "mem":
        raise NotACompositeFileError(f"{ref}: is in memory ({uri}), not in a file")
    return uri


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
