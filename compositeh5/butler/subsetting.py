"""A part of a repository in another one, with what it links to and nothing else.

For example all catalogs, with the calibrations that they share with the exposures, and without these. First it is found
out what is needed, by reading no more than attributes. Then what is linked to is stored, and its users last.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

from lsst.daf.butler import (
    Butler,
    DataCoordinate,
    DatasetProvenance,
    DatasetRef,
    DatasetType,
    DatasetTypeNotSupportedError,
    MissingCollectionError,
    MissingDatasetTypeError,
)

from ..composite.encoding import composite_node
from ..composite.link import Link
from ..composite.opening import stored_composite
from ..errors import BrokenLinkError, ConfigurationError, ConflictError, NoSuchComponentError
from ..trees.closure import Entry, closure, links_and_pixel_names, targets_first, with_only
from ..trees.references import StoredLink
from ..trees.relinking import relinked_group
from .dataset_files import (
    Missing,
    describe,
    is_composite,
    location_of,
    open_joined,
    stored_among,
    stored_targets,
    whole_refs,
)
from .target_map import relink

STORAGE_CLASS = "CompositeH5PartsV1"
"""Storage class of datasets that hold some components of others."""

SUFFIX = "_parts"
"""What the names of their dataset types have more than those of the others."""


@dataclass(frozen=True)
class Subset:
    """What a subset consists of, as datasets of the target.

    Attributes
    ----------
    refs : tuple of DatasetRef
        What was selected; those of which only some components were wanted have another type, and another id.
    linked : tuple of DatasetRef
        What these link to that came along whole.
    parts : tuple of DatasetRef
        What these link to of which only the needed components came along.
    lost : tuple of str
        Links that were lost before, if that was allowed; they are as they were.
    """

    refs: tuple[DatasetRef, ...] = ()
    linked: tuple[DatasetRef, ...] = ()
    parts: tuple[DatasetRef, ...] = ()
    lost: tuple[str, ...] = ()


def subset(
    source: Butler,
    target: Butler,
    refs: Iterable[DatasetRef],
    *,
    components: Iterable[str] | None = None,
    transfer: str = "copy",
    missing: Missing = "error",
) -> Subset:
    """Store datasets of one repository in another one, with all that they link to, and nothing else.

    A dataset that is linked to comes along whole, with the same id, unless it has pixels that nobody needs: then its
    needed components come as a dataset of their own, of the type ``<dataset type>_parts`` and the same data ID and run.
    Their id follows from that of the dataset and the names of the components; they tell where they are from. What
    several datasets share stays shared.

    Datasets keep their files, unless they link to what doesn't, share a file with others, or are disassembled: then
    they are put anew, with the same id and content. No component that doesn't come along is read.

    Dataset types, runs and dimension records are made in the target where it doesn't have them. Datasets that it has
    already stay as they are, so that a call that was interrupted is continued by calling it again.

    Parameters
    ----------
    source, target : Butler
        The repositories.
    refs : iterable of DatasetRef
        The datasets, from any query.
    components : iterable of str, optional
        Only these components of them; composites that have none of them, and what is no composite, are left out.
    transfer : str, optional
        How files that don't change are transferred; as for ``Butler.transfer_from``.
    missing : {"error", "ignore"}, optional
        What to do about links to what the source doesn't have.

    Returns
    -------
    Subset
        The datasets in the target.

    Raises
    ------
    BrokenLinkError
        If a needed component is lost, and ``missing`` is "error". The message names all of them.
    NoSuchComponentError
        If no dataset has one of the components.
    ConflictError
        If the target has other datasets in the place of these: also other components of one that is linked to.
    ConfigurationError
        If the target can't store parts of composites: `butler compositeh5-install` adds what is missing.
    FileNotFoundError
        If one of the datasets isn't stored. In all of these cases, nothing is written.
    """
    wanted = None if components is None else frozenset(components)
    store = Repository(source)
    selected = {
        dataset: dataset.links.keys() if wanted is None else wanted
        for dataset in store.look_at(whole_refs(refs))
        if wanted is None or not wanted.isdisjoint(dataset.links)
    }
    if wanted is not None and not selected:
        raise NoSuchComponentError(f"no dataset has one of the components {', '.join(sorted(wanted))}")
    entries, lost = closure(store, selected)
    if lost and missing == "error":
        raise BrokenLinkError(f"linked components are lost; nothing was written: {'; '.join(lost)}")
    datasets = targets_first(entries)
    for dataset in datasets:
        dataset.plan(target, entries)
    _check(source, target, datasets)
    _transfer(source, target, [dataset.new for dataset in datasets if dataset.keeps_file], transfer)
    _put(source, target, [dataset for dataset in datasets if not dataset.keeps_file], entries)
    linked = [dataset for dataset in datasets if not dataset.is_selected]
    return Subset(
        tuple(dataset.new for dataset in selected),
        tuple(dataset.new for dataset in linked if not dataset.is_reduced),
        tuple(dataset.new for dataset in linked if dataset.is_reduced),
        tuple(lost),
    )


# ---- What is needed -----------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Dataset(Entry[DatasetRef]):
    """A dataset of the source, and what the target gets of it."""

    has_file: bool = True
    """Whether it is one file, and that is of no other composite."""
    keeps_file: bool = True
    new: DatasetRef = field(init=False)
    """The dataset in the target."""

    def plan(self, target: Butler, others: Mapping[DatasetRef, _Dataset]) -> None:
        """Decide as which dataset the target gets it, after that was done for those to which it links."""
        self.new = self.key
        self.keeps_file = self.has_file and all(others[ref].keeps_file for ref in self.targets.values())
        if self.is_reduced:
            name = self.key.datasetType.name.removesuffix(SUFFIX) + SUFFIX
            dimensions = self.key.datasetType.dimensions
            dataset_type = DatasetType(name, dimensions, STORAGE_CLASS, universe=target.dimensions)
            id_ = uuid.uuid5(self.key.id, "+".join(sorted(self.needed)))
            self.new = DatasetRef(dataset_type, self.key.dataId, run=self.key.run, id=id_)
            self.keeps_file = False


class Repository:
    """The datasets of a repository, as a `trees.closure.Store`."""

    def __init__(self, butler: Butler) -> None:
        self._butler = butler

    def look_at(self, keys: Sequence[DatasetRef]) -> list[_Dataset]:
        """Return what datasets hold; what is no composite holds nothing."""
        return [self._look_at(ref) for ref in keys]

    def _look_at(self, ref: DatasetRef) -> _Dataset:
        # Without their records, the Butler fails on some dimensions (KeyError 'visit_detector_region').
        ref = ref.expanded(self._butler.registry.expandDataId(ref.dataId))
        if not is_composite(ref):
            return _Dataset(ref)
        with open_joined(self._butler, ref) as composite:
            held = links_and_pixel_names(composite)
            return _Dataset(ref, *held, has_file=len(composite.names_in_file) == 1)

    def locate(self, links: Sequence[tuple[DatasetRef, StoredLink]]) -> list[DatasetRef | str]:
        """Return the dataset to which each link leads, or a message about one that is lost."""
        targets = stored_targets(self._butler, (found.link for _, found in links))
        return [
            targets.get(found.link.id, f"{describe(user)}: {found.component} -> {found.link}") for user, found in links
        ]


# ---- What the target gets -----------------------------------------------------------------------------------


def _check(source: Butler, target: Butler, datasets: Sequence[_Dataset]) -> None:
    """Find out which parts the target has already, and that it can store all others.

    Raises
    ------
    ConflictError
        If it has others in their places.
    ConfigurationError
        If it can't store parts of composites.
    """
    there: dict[tuple[str, str, DataCoordinate], DatasetRef] = {}
    for name, run in {(dataset.new.datasetType.name, dataset.new.run) for dataset in datasets}:
        with suppress(MissingDatasetTypeError, MissingCollectionError):
            for ref in target.query_datasets(name, run, find_first=False, limit=None, explain=False):
                there[name, run, ref.dataId] = ref
    for dataset in datasets:
        new = dataset.new
        known = there.get((new.datasetType.name, new.run, new.dataId), new)
        if known.id != new.id:
            if not (dataset.is_reduced and _has_same(source, target, dataset, known)):
                needed = f"with the same {', '.join(sorted(dataset.needed))}" if dataset.is_reduced else "that dataset"
                raise ConflictError(
                    f"the target has {describe(known)} in place of {describe(new)}, but not {needed}; choose another "
                    f"repository, and select all that is wanted of a dataset at once. Nothing was written"
                )
            dataset.new = known
    try:
        target.get_many_uris([dataset.new for dataset in datasets if dataset.is_reduced], predict=True)
    except DatasetTypeNotSupportedError as error:
        raise ConfigurationError(
            f"the target has no formatter for the storage class {STORAGE_CLASS}; see `butler compositeh5-install`. "
            f"Nothing was written"
        ) from error


def _has_same(source: Butler, target: Butler, dataset: _Dataset, known: DatasetRef) -> bool:
    """Return whether a dataset of the target has the components that are needed of one of the source."""
    with suppress(FileNotFoundError), open_joined(target, known) as there, open_joined(source, dataset.key) as here:
        return all(n in there and there.component_digest(n) == here.component_digest(n) for n in dataset.needed)
    return False


def _transfer(source: Butler, target: Butler, refs: Sequence[DatasetRef], how: str) -> None:
    """Transfer datasets with their files, which link to each other only."""
    if refs:
        target.transfer_from(
            source, refs, transfer=how, skip_missing=False, register_dataset_types=True, transfer_dimensions=True
        )
        # Paths may differ in the target: if the source has files from outside of its root, or its datastore is a chain.
        relink(target, refs)


def _put(source: Butler, target: Butler, datasets: Sequence[_Dataset], others: Mapping[DatasetRef, _Dataset]) -> None:
    """Put datasets that the target doesn't have, each after those to which it links."""
    there = {ref.id for ref in stored_among(target, [dataset.new for dataset in datasets])}
    missing = [dataset for dataset in datasets if dataset.new.id not in there]
    for dataset_type in {dataset.new.datasetType for dataset in missing}:
        target.registry.registerDatasetType(dataset_type)
    for run in {dataset.new.run for dataset in missing}:
        target.collections.register(run)
    target.transfer_dimension_records_from(source, [dataset.new for dataset in missing])
    for dataset in missing:
        with open_joined(source, dataset.key) as stored:
            location = stored.location or ""
            group, _ = relinked_group(composite_node(stored), location, partial(_new_link, target, dataset, others))
            composite, provenance = stored_composite(group, location), None
            if dataset.is_reduced:
                composite, provenance = with_only(composite, dataset.needed), DatasetProvenance()
                provenance.add_input(dataset.key)
            target.put(composite, dataset.new, provenance=provenance)


def _new_link(butler: Butler, user: _Dataset, others: Mapping[DatasetRef, _Dataset], found: StoredLink) -> Link | None:
    """Return a link to where the target of another one is, or will be, in the new repository; None if that is lost."""
    link = found.link
    ref = user.targets.get(found.component)
    if ref is None:
        return None
    target = others[ref]
    uris = butler.get_many_uris([target.new], predict=True)[target.new]
    link = replace(link, uri=location_of(uris.componentURIs.get(link.component) or uris.primaryURI))
    if target.keeps_file:
        return link
    definition = "" if target.is_reduced else link.definition
    return replace(link, id=str(target.new.id), dataset_type=target.new.datasetType.name, definition=definition)
