"""A part of a repository in another one, with what it links to and nothing else.

For example all catalogs, with the calibrations that they share with the exposures, and without these. It is first found
out what is needed, by reading no more than attributes. Then what is linked to is stored, and its users last.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

from lsst.daf.butler import (
    Butler,
    DataCoordinate,
    DatasetProvenance,
    DatasetRef,
    DatasetType,
    FileDataset,
    MissingCollectionError,
    MissingDatasetTypeError,
)
from lsst.daf.butler.datastore import DatasetRefURIs
from lsst.utils.iteration import chunk_iterable

from ..container.layout import DEFAULT
from ..container.publish import write_durably
from ..errors import BrokenLinkError, ConflictError
from ..links import Link
from ..operations.references import StoredLink
from ..operations.rewriting import relinked_group
from ..operations.subset import reduced
from ..stored import from_group
from ..writing import group_of, write_image_of
from .closure import Missing
from .datasets import as_dataset, location_of
from .datastores import force_files, formatter_for, predicted_uri
from .formatter import CompositeFormatter
from .relinking import relink
from .staging import ingest_staged, staging_folder
from .stored import describe, open_joined, stored_among
from .subset_plan import Id, Plan

STORAGE_CLASS = "CompositeH5PartsV1"
"""Storage class of datasets that hold some components of others."""

SUFFIX = "_parts"
"""What the names of their dataset types have more than those of the others."""

BATCH = 100
"""How many files are written before they get to the repository, in one transaction."""

_Place: TypeAlias = tuple[str, str, DataCoordinate]


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

    Datasets keep their files, unless these must link to other places, or hold other datasets as well: then they are
    written anew, one for each dataset, with the same id and content. No component that doesn't come along is read.

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
    plan = Plan(source)
    plan.select(refs, None if components is None else frozenset(components))
    if plan.lost and missing == "error":
        raise BrokenLinkError(f"linked components are lost; nothing was written: {'; '.join(plan.lost)}")
    order = plan.order()
    changed = plan.changed(order)
    writer = _Writer(plan, target)
    writer.check(order)
    # Nothing of what stays the same links to what doesn't.
    same = [id_ for id_ in order if id_ not in changed]
    writer.transfer([id_ for id_ in same if id_ not in plan.selected], transfer)
    writer.transfer([id_ for id_ in same if id_ in plan.selected], transfer)
    writer.write(list(changed))
    linked = [id_ for id_ in order if id_ not in plan.selected]
    return Subset(
        tuple(writer.refs[id_] for id_ in plan.selected),
        tuple(writer.refs[id_] for id_ in linked if not plan.is_reduced(id_)),
        tuple(writer.refs[id_] for id_ in linked if plan.is_reduced(id_)),
        tuple(plan.lost),
    )


@dataclass
class _Writer:
    """Stores in the target what a plan needs; datasets go by the ids that they have in the source."""

    plan: Plan
    target: Butler
    refs: dict[Id, DatasetRef] = field(default_factory=dict)
    """The datasets as they are in the target."""
    files: dict[Id, DatasetRefURIs] = field(default_factory=dict)
    """Where they are, or will be, as far as links to them were asked for."""

    def __post_init__(self) -> None:
        self.refs = {id_: self._new_ref(id_) for id_ in self.plan.needs}

    def _new_ref(self, id_: Id) -> DatasetRef:
        ref = self.plan.datasets[id_].ref
        if not self.plan.is_reduced(id_):
            return ref
        name, names = ref.datasetType.name.removesuffix(SUFFIX) + SUFFIX, sorted(self.plan.needs[id_])
        dataset_type = DatasetType(name, ref.datasetType.dimensions, STORAGE_CLASS, universe=self.target.dimensions)
        return DatasetRef(dataset_type, ref.dataId, run=ref.run, id=uuid.uuid5(id_, "+".join(names)))

    def check(self, ids: list[Id]) -> None:
        """Find out what the target has already, and that all others can be stored.

        Raises
        ------
        ConflictError
            If it has others in their places.
        ConfigurationError
            If it can't store parts of composites.
        """
        if parts := [self.refs[id_] for id_ in ids if self.plan.is_reduced(id_)]:
            formatter_for(self.target, parts[0], predicted_uri(self.target, parts[0]))
        there = _in_places_of(self.target, [self.refs[id_] for id_ in ids])
        for id_ in ids:
            new = self.refs[id_]
            known = there.get(_place_of(new), new)
            if known.id == new.id:
                continue
            if not self.plan.is_reduced(id_):
                raise ConflictError(
                    f"the target has {describe(known)} in place of {describe(new)}; choose another repository. "
                    f"Nothing was written"
                )
            if not self._has_parts(known, id_):
                names = ", ".join(sorted(self.plan.needs[id_]))
                raise ConflictError(
                    f"the target has {describe(known)} in place of {describe(new)}, but not with the same {names}; "
                    f"choose another repository, and select all that is wanted of it at once. Nothing was written"
                )
            self.refs[id_] = known

    def _has_parts(self, known: DatasetRef, id_: Id) -> bool:
        """Return whether a dataset of the target has the components that are needed of one."""
        ref = self.plan.datasets[id_].ref
        with (
            suppress(FileNotFoundError),
            open_joined(self.target, known) as there,
            open_joined(self.plan.source, ref) as here,
        ):
            return all(
                name in there and there.component_digest(name) == here.component_digest(name)
                for name in self.plan.needs[id_]
            )
        return False

    def transfer(self, ids: list[Id], how: str) -> None:
        """Transfer datasets with their files."""
        if not ids:
            return
        self.target.transfer_from(
            self.plan.source,
            [self.refs[id_] for id_ in ids],
            transfer=how,
            skip_missing=False,
            register_dataset_types=True,
            transfer_dimensions=True,
        )
        force_files(self.target, [self.refs[id_] for id_ in ids])
        # Paths change where the source has them from elsewhere, or is a chain.
        relink(self.target, [self.refs[id_] for id_ in ids if any(self.plan.links(id_))])

    def write(self, ids: list[Id]) -> None:
        """Write datasets anew that the target doesn't have."""
        there = {ref.id for ref in stored_among(self.target, (self.refs[id_] for id_ in ids))}
        ids = [id_ for id_ in ids if self.refs[id_].id not in there]
        if not ids:
            return
        refs = [self.refs[id_] for id_ in ids]
        for dataset_type in {ref.datasetType for ref in refs}:
            self.target.registry.registerDatasetType(dataset_type)
        for run in {ref.run for ref in refs}:
            self.target.collections.register(run)
        self.target.transfer_dimension_records_from(self.plan.source, refs)
        with staging_folder(self.target) as folder:
            for some in chunk_iterable(ids, BATCH):
                ingest_staged(self.target, [self._written(id_, folder) for id_ in some])

    def _written(self, id_: Id, folder: str) -> FileDataset:
        """Write the file of a dataset to a folder, with links as they must be in the place where it will be."""
        ref, new = self.plan.datasets[id_].ref, self.refs[id_]
        with open_joined(self.plan.source, ref) as stored:
            location = stored.location or ""
            group, _ = relinked_group(group_of(stored), location, self._link_of)
            composite = from_group(group, location)
            if self.plan.is_reduced(id_):
                provenance = DatasetProvenance()
                provenance.add_input(ref)
                composite = as_dataset(reduced(composite, self.plan.needs[id_]), new, provenance)
            path = os.path.join(folder, f"{new.id}{CompositeFormatter.default_extension}")
            place = location_of(predicted_uri(self.target, new))
            write_durably(path, partial(write_image_of, {DEFAULT: composite}, place))
        return FileDataset(path, refs=[new], formatter=CompositeFormatter)

    def _link_of(self, found: StoredLink) -> Link | None:
        id_ = self.plan.target(found.link)
        if id_ is None:
            return None
        link = replace(found.link, uri=self._place(id_, found.link.component))
        if self.plan.is_reduced(id_):
            new = self.refs[id_]
            link = replace(link, id=str(new.id), dataset_type=new.datasetType.name, definition="")
        return link

    def _place(self, id_: Id, component: str) -> str:
        if id_ not in self.files:
            try:
                self.files[id_] = self.target.getURIs(self.refs[id_])
            except FileNotFoundError:
                self.files[id_] = DatasetRefURIs(predicted_uri(self.target, self.refs[id_]))
        uris = self.files[id_]
        return location_of(uris.componentURIs.get(component) or uris.primaryURI)


def _place_of(ref: DatasetRef) -> _Place:
    return ref.datasetType.name, ref.run, ref.dataId


def _in_places_of(butler: Butler, refs: Iterable[DatasetRef]) -> dict[_Place, DatasetRef]:
    """Return the datasets that a repository has with the types, runs and data IDs of others."""
    found: dict[_Place, DatasetRef] = {}
    for name, run in {(ref.datasetType.name, ref.run) for ref in refs}:
        with suppress(MissingDatasetTypeError, MissingCollectionError):
            for ref in butler.query_datasets(name, run, find_first=False, limit=None, explain=False):
                found[_place_of(ref)] = ref
    return found
