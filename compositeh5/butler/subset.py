"""A part of a repository in another one, with what it links to and nothing else.

For example all catalogs, with the calibrations that they share with the exposures, and without these. First it is found
out what is needed, by reading no more than attributes. Then what is linked to is stored, and its users last.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
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

from .. import kinds
from ..composite.encoding import composite_node
from ..composite.link import Link
from ..composite.opening import stored_composite
from ..composite.parts import StoredPart
from ..errors import BrokenLinkError, ConfigurationError, ConflictError, NoSuchComponentError, UnknownKindError
from ..storage.layout import composite_names
from ..trees.references import StoredLink, part_links
from ..trees.rewriting import relinked_group
from ..trees.subsetting import reduced
from .relinking import relink
from .stored import Missing, describe, is_composite, location_of, open_joined, stored_among, stored_targets

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
    selected, lost = _needed(source, refs, None if components is None else frozenset(components))
    if lost and missing == "error":
        raise BrokenLinkError(f"linked components are lost; nothing was written: {'; '.join(lost)}")
    datasets = list(_in_order(selected))
    for dataset in datasets:
        dataset.plan(target)
    _check(source, target, datasets)
    _transfer(source, target, [dataset.new for dataset in datasets if dataset.keeps_file], transfer)
    _put(source, target, [dataset for dataset in datasets if not dataset.keeps_file])
    linked = [dataset for dataset in datasets if not dataset.is_selected]
    return Subset(
        tuple(dataset.new for dataset in selected),
        tuple(dataset.new for dataset in linked if not dataset.is_reduced),
        tuple(dataset.new for dataset in linked if dataset.is_reduced),
        tuple(lost),
    )


# ---- What is needed -----------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Dataset:
    """A dataset of the source, as far as its attributes tell, and what the target gets of it."""

    ref: DatasetRef
    links: Mapping[str, tuple[StoredLink, ...]] = field(default_factory=dict)
    """The links of each component; what is no composite has no components."""
    pixels: Set[str] = frozenset()
    """The components that are planes of pixels."""
    has_file: bool = True
    """Whether it is one file, and that is of no other composite."""
    is_selected: bool = False
    needed: Set[str] = frozenset()
    """The components that the target gets."""
    targets: dict[tuple[str, str], _Dataset] = field(default_factory=dict)
    """Where the links of these lead, by the id and component that they name; without lost ones."""
    keeps_file: bool = True
    new: DatasetRef = field(init=False)
    """The dataset in the target."""

    @property
    def is_reduced(self) -> bool:
        return self.needed != self.links.keys()

    def plan(self, target: Butler) -> None:
        """Decide as which dataset the target gets it, after that was done for those to which it links."""
        self.new = self.ref
        self.keeps_file = self.has_file and all(other.keeps_file for other in self.targets.values())
        if self.is_reduced:
            name = self.ref.datasetType.name.removesuffix(SUFFIX) + SUFFIX
            dimensions = self.ref.datasetType.dimensions
            dataset_type = DatasetType(name, dimensions, STORAGE_CLASS, universe=target.dimensions)
            id_ = uuid.uuid5(self.ref.id, "+".join(sorted(self.needed)))
            self.new = DatasetRef(dataset_type, self.ref.dataId, run=self.ref.run, id=id_)
            self.keeps_file = False


def _needed(
    source: Butler, refs: Iterable[DatasetRef], components: Set[str] | None
) -> tuple[list[_Dataset], list[str]]:
    """Return the selected datasets, which know to what they link, and the lost links."""
    known: dict[uuid.UUID, _Dataset] = {}
    lost: list[str] = []

    def look_at(ref: DatasetRef) -> _Dataset:
        if ref.id not in known:
            known[ref.id] = _looked_at(source, ref)
        return known[ref.id]

    selected = list(dict.fromkeys(look_at(ref.makeCompositeRef() if ref.isComponent() else ref) for ref in refs))
    if components is not None:
        selected = [dataset for dataset in selected if not components.isdisjoint(dataset.links)]
        if not selected:
            raise NoSuchComponentError(f"no dataset has one of the components {', '.join(sorted(components))}")
    wanted: list[tuple[_Dataset, Set[str]]] = []
    for dataset in selected:
        dataset.is_selected = True
        wanted.append((dataset, dataset.links.keys() if components is None else components))
    while wanted:
        links: list[tuple[_Dataset, StoredLink]] = []
        for dataset, names in wanted:
            before, dataset.needed = dataset.needed, dataset.needed | (names & dataset.links.keys())
            if not dataset.is_selected and dataset.pixels <= dataset.needed:
                dataset.needed = dataset.links.keys()
            links += [(dataset, found) for name in sorted(dataset.needed - before) for found in dataset.links[name]]
        targets = stored_targets(source, (found.link for _, found in links))
        wanted = []
        for user, found in links:
            link, target = found.link, None
            with suppress(FileNotFoundError, KeyError):
                target = look_at(targets[link.id])
            if target is None or (is_composite(target.ref) and link.component not in target.links):
                lost.append(f"{describe(user.ref)}: {found.component} -> {link}")
            else:
                user.targets[link.id, link.component] = target
                wanted.append((target, {link.component}))
    return selected, lost


def _looked_at(butler: Butler, ref: DatasetRef) -> _Dataset:
    """Return what the attributes of a dataset tell."""
    # Without their records, the Butler fails on some dimensions (KeyError 'visit_detector_region').
    ref = ref.expanded(butler.registry.expandDataId(ref.dataId))
    if not is_composite(ref):
        return _Dataset(ref)
    links: dict[str, tuple[StoredLink, ...]] = {}
    with open_joined(butler, ref) as composite:
        for name in composite:
            part = composite.part(name)
            location = part.location if isinstance(part, StoredPart) else None
            links[name] = tuple(part_links(name, part, location))
        pixels = {name for name in composite if _is_pixels(composite.kind(name))}
        has_file = composite._file is not None and len(composite_names(composite._file)) == 1
    return _Dataset(ref, links, pixels, has_file)


def _is_pixels(kind: str) -> bool:
    # What isn't known isn't left behind.
    with suppress(UnknownKindError):
        return kinds.get(kind).is_pixels
    return False


def _in_order(datasets: Iterable[_Dataset], seen: set[_Dataset] | None = None) -> Iterator[_Dataset]:
    """Yield datasets and all to which they link, each after those to which it links itself."""
    seen = set() if seen is None else seen
    for dataset in datasets:
        # Composites of one file may link to each other.
        if dataset not in seen:
            seen.add(dataset)
            yield from _in_order(dataset.targets.values(), seen)
            yield dataset


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
    with suppress(FileNotFoundError), open_joined(target, known) as there, open_joined(source, dataset.ref) as here:
        return all(n in there and there.component_digest(n) == here.component_digest(n) for n in dataset.needed)
    return False


def _transfer(source: Butler, target: Butler, refs: Sequence[DatasetRef], how: str) -> None:
    """Transfer datasets with their files, which link to each other only."""
    if refs:
        target.transfer_from(
            source, refs, transfer=how, skip_missing=False, register_dataset_types=True, transfer_dimensions=True
        )
        # Paths change where the source has them from elsewhere, or is a chain.
        relink(target, refs)


def _put(source: Butler, target: Butler, datasets: Sequence[_Dataset]) -> None:
    """Put datasets that the target doesn't have, each after those to which it links."""
    there = {ref.id for ref in stored_among(target, [dataset.new for dataset in datasets])}
    missing = [dataset for dataset in datasets if dataset.new.id not in there]
    for dataset_type in {dataset.new.datasetType for dataset in missing}:
        target.registry.registerDatasetType(dataset_type)
    for run in {dataset.new.run for dataset in missing}:
        target.collections.register(run)
    target.transfer_dimension_records_from(source, [dataset.new for dataset in missing])
    for dataset in missing:
        with open_joined(source, dataset.ref) as stored:
            location = stored.location or ""
            group, _ = relinked_group(composite_node(stored), location, partial(_new_link, target, dataset))
            composite, provenance = stored_composite(group, location), None
            if dataset.is_reduced:
                composite, provenance = reduced(composite, dataset.needed), DatasetProvenance()
                provenance.add_input(dataset.ref)
            target.put(composite, dataset.new, provenance=provenance)


def _new_link(butler: Butler, user: _Dataset, found: StoredLink) -> Link | None:
    """Return a link to where the target of another one is, or will be, in the new repository; None if that is lost."""
    link = found.link
    target = user.targets.get((link.id, link.component))
    if target is None:
        return None
    uris = butler.get_many_uris([target.new], predict=True)[target.new]
    link = replace(link, uri=location_of(uris.componentURIs.get(link.component) or uris.primaryURI))
    if target.keeps_file:
        return link
    definition = "" if target.is_reduced else link.definition
    return replace(link, id=str(target.new.id), dataset_type=target.new.datasetType.name, definition=definition)
