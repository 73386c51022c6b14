"""Storing only what changed: overlays of stored composites, and composites made of links alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

from lsst.daf.butler import (
    Butler,
    DataCoordinate,
    DatasetProvenance,
    DatasetRef,
    DatasetType,
    DeferredDatasetHandle,
    MissingDatasetTypeError,
)

from ..composite.composite import Composite
from ..composite.definition import Definition
from ..composite.link import DataId, Link
from ..errors import NoSuchComponentError, WrongValueError
from ..trees.composing import list_members
from .dataset_files import is_composite, link, open_ref, relocated_link
from .datasets import definition_of, register_dataset_type
from .formatter import SINGLE_COMPONENT

Source: TypeAlias = DatasetRef | DeferredDatasetHandle
"""A stored dataset: its ref, or the handle that tasks get for deferred inputs."""

OneSource: TypeAlias = Source | tuple[Source, str] | Link
"""A stored dataset, with the name of the component there if it is another, or a link."""


def put_overlay(
    butler: Butler,
    base: Source,
    components: Mapping[str, Any],
    dataset_type: str,
    *,
    data_id: DataId | None = None,
    run: str | None = None,
    stage: str = "",
    keep: Iterable[str] = (),
) -> DatasetRef:
    """Store a composite that is a stored one with some components changed.

    The file holds the changed components. All others are links to where they are stored, also where the base itself
    has links, so that overlays of overlays need only what they show. The base isn't changed, and none of its
    components is read.

    Parameters
    ----------
    butler : Butler
        The repository.
    base : DatasetRef or DeferredDatasetHandle
        The composite to change. It may be disassembled.
    components : mapping
        Values, `Link` objects or None by name, in place of those of the base, or new.
    dataset_type : str
        Name of the dataset type of the overlay. If there is none, it is registered, with the storage class of the base
        and the dimensions of the base and of ``data_id``.
    data_id : mapping, optional
        What differs from the data ID of the base: more keys, such as the tract for which the calibration was made.
    run : str, optional
        The run, which is made if there is none; by default that of the Butler.
    stage : str, optional
        The processing step that made the changed components.
    keep : iterable of str, optional
        The components of which the version that is replaced is kept as well; see `Composite.versions`.

    Returns
    -------
    DatasetRef
        The overlay. Its provenance names the base as input, and under ``history`` the steps that led to it.

    Raises
    ------
    FileNotFoundError
        If the base isn't stored.
    NotACompositeFileError
        If the base isn't stored in a file of this format.
    DefinitionError
        If its definition, or the storage class, doesn't have one of the components.
    EncodeError
        If a value can't be of its component's kind.
    ValueError
        If the handle has parameters.
    """
    base_ref = _ref(base)
    wanted = {**base_ref.dataId.required, **(data_id or {})}
    try:
        butler.get_dataset_type(dataset_type)
    except MissingDatasetTypeError:
        dimensions = {*base_ref.datasetType.dimensions.required, *wanted}
        butler.registry.registerDatasetType(
            DatasetType(dataset_type, dimensions, base_ref.datasetType.storageClass_name, universe=butler.dimensions)
        )
    # What the base keeps of earlier versions is copied.
    with _overlaid(butler, base_ref, components, stage, keep) as overlay:
        return _put(butler, overlay, dataset_type, wanted, run, [base_ref])


def put_component(
    butler: Butler,
    value: Any,
    name: str,
    data_id: DataId | DataCoordinate,
    *,
    run: str,
    collections: str | list[str] | None = None,
    stage: str = "",
) -> DatasetRef:
    """Store one component of a composite anew, in a run of its own: an overlay of the dataset that is found now.

    A search that has the new run before the old one then gives the new composite, one in the old run what was there.

    Parameters
    ----------
    butler : Butler
        The repository.
    value : object
        The value, a `Link`, or None.
    name : str
        Dataset type and component: ``"calexp.wcs"``.
    data_id : mapping
        Data ID of the dataset.
    run : str
        The run of the new dataset, which is made if there is none.
    collections : str or list of str, optional
        Where the dataset to change is looked for; by default in the collections of the Butler.
    stage : str, optional
        The processing step that made the component.

    Returns
    -------
    DatasetRef
        The new dataset, of the same dataset type.

    Raises
    ------
    NoSuchComponentError
        If the name has no component.
    FileNotFoundError
        If no dataset is found.
    Exception
        As `put_overlay` does.
    """
    dataset_type, component = DatasetType.splitDatasetTypeName(name)
    if component is None:
        raise NoSuchComponentError(f"{name!r} names no component, as {name + '.wcs'!r} would")
    base = butler.find_dataset(dataset_type, data_id, collections=collections)
    if base is None:
        raise FileNotFoundError(f"there is no {dataset_type} with data ID {data_id} of which to change {component!r}")
    return put_overlay(butler, base, {component: value}, dataset_type, run=run, stage=stage)


def put_links(
    butler: Butler,
    dataset_type: str,
    sources: Mapping[str, OneSource | list[OneSource]],
    data_id: DataId,
    *,
    definition: str | Definition | None = None,
    run: str | None = None,
    stage: str = "",
) -> DatasetRef:
    """Store a composite of components that are stored already, by links alone: none of them is read.

    Parameters
    ----------
    butler : Butler
        The repository.
    dataset_type : str
        Name of the dataset type of the composite.
    sources : mapping
        For the name of each component, the dataset that has it: a ref or handle (of a composite with a component of
        that name, or of a dataset that is such a component), that of a component (``ref.makeComponentRef("wcs")``), a
        pair of one and the name of the component there, or a `Link`; or a list of these, such as `gather` gives.
    data_id : mapping
        Data ID of the composite.
    definition : str or Definition, optional
        Definition of the composite, needed only if there is no such dataset type yet: it is then registered.
    run : str, optional
        The run, which is made if there is none; by default that of the Butler.
    stage : str, optional
        The processing step that joins the components; each keeps its own.

    Returns
    -------
    DatasetRef
        The composite. Its provenance names the sources as inputs.

    Raises
    ------
    NoSuchComponentError, AbsentComponentError
        If a source doesn't have the component.
    NotACompositeFileError, FileNotFoundError
        If a source isn't stored in a file of this format, or not stored at all.
    DefinitionError
        If components are missing, or not of the definition.
    """
    inputs: dict[DatasetRef, None] = {}

    def linked(source: OneSource, name: str) -> Link:
        if isinstance(source, Link):
            return source
        ref, component = _dataset_and_component(source, name)
        inputs[ref] = None
        target = link(butler, ref, component)
        # If the component is a link itself, its target may have moved since: the Butler knows where it is now.
        return (relocated_link(butler, target) or target) if target.id != str(ref.id) else target

    found = {
        name: [linked(item, name) for item in source] if isinstance(source, list) else linked(source, name)
        for name, source in sources.items()
    }
    if definition is not None:
        register_dataset_type(butler, dataset_type, definition)
    storage_class = butler.get_dataset_type(dataset_type).storageClass
    composite = Composite(definition_of(storage_class), found).replace(stage=stage)
    return _put(butler, composite, dataset_type, data_id, run, list(inputs))


def gather(
    butler: Butler,
    dataset_type: str,
    component: str,
    data_id: DataId,
    *,
    key: str,
    expected: Iterable[int | str] | None = None,
    missing: Literal["error", "skip"] = "error",
    collections: str | list[str] | None = None,
) -> list[DatasetRef]:
    """Return the datasets that a partial data ID means, as the items of a list-valued component.

    Parameters
    ----------
    butler : Butler
        The repository.
    dataset_type : str
        Name of their dataset type.
    component : str
        Name of the component.
    data_id : mapping
        Data ID but for one key.
    key : str
        That key. The list is in the order of its values.
    expected : iterable of int or str, optional
        The values of the key of which there must be a dataset.
    missing : {"error", "skip"}, optional
        What to do about expected datasets that are not there.
    collections : str or list of str, optional
        Where they are looked for; by default in the collections of the Butler.

    Returns
    -------
    list of DatasetRef
        The component of each dataset, for `put_links`.

    Raises
    ------
    NoSuchComponentError
        If datasets are missing; the message names all. Also if there is none at all.
    """
    refs = butler.query_datasets(dataset_type, collections, data_id=dict(data_id), explain=False)
    found = {ref.dataId[key]: ref.makeComponentRef(component) for ref in refs}
    return list_members(found, component, key, expected, missing)


@contextmanager
def _overlaid(
    butler: Butler, ref: DatasetRef, components: Mapping[str, Any], stage: str, keep: Iterable[str]
) -> Iterator[Composite]:
    """Give an overlay of a stored composite, with links to where its components are stored now."""
    with open_ref(butler, ref) as stored:
        overlay = stored.overlay(components, stage=stage, keep=keep)
        # A component that is linked already may have moved since. Where the Butler doesn't know it, it stays the part
        # that it is, which knows the path from the base's file as well as the recorded place.
        now = {name: relocated_link(butler, target) for name, target in stored.links.items() if name not in components}
        yield overlay.replace({name: target for name, target in now.items() if target is not None})


def _dataset_and_component(source: Source | tuple[Source, str], name: str) -> tuple[DatasetRef, str]:
    """Return the dataset that has a component, and its name there; ``name`` is that which it will have."""
    component: str | None = None
    if isinstance(source, tuple):
        source, component = source
    ref = _ref(source)
    if ref.isComponent():
        component = component or ref.datasetType.component()
        ref = ref.makeCompositeRef()
    return ref, component or (name if is_composite(ref) else SINGLE_COMPONENT)


def _ref(source: Source) -> DatasetRef:
    if not isinstance(source, DeferredDatasetHandle):
        return source
    if source.parameters:
        raise WrongValueError(
            f"{source.ref}: a link leads to a whole component, but the handle has parameters {source.parameters}"
        )
    return source.ref


def _put(
    butler: Butler,
    composite: Composite,
    dataset_type: str,
    data_id: Mapping[str, Any],
    run: str | None,
    inputs: list[DatasetRef],
) -> DatasetRef:
    if run is not None:
        butler.collections.register(run)
    provenance = DatasetProvenance()
    for ref in inputs:
        provenance.add_input(ref)
    return butler.put(composite, dataset_type, data_id, run=run, provenance=provenance)
