"""Datasets of a repository that are no composites yet, as composites in a run of their own."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from lsst.daf.butler import Butler, DataCoordinate, DatasetRef, DatasetType, StorageClassFactory
from lsst.daf.butler.progress import Progress
from lsst.resources import ResourcePath

from ..composite.composite import Composite
from ..composite.definition import Definition
from ..composite.definitions import get_definition
from ..composite.link import Link
from ..errors import ConfigurationError, DefinitionError
from ..fits.conversion import MAGIC, read_exposure
from ..trees.running import map_in_order
from .dataset_files import open_ref
from .datasets import register_dataset_type, storage_class_name
from .formatter import use_recipe
from .visits import all_or_nothing

VISIT = "visit"
"""Definition of the composites that hold what others share."""


@dataclass(frozen=True)
class Conversion:
    """What a conversion has done."""

    converted: int = 0
    """Number of datasets that were converted."""
    present: int = 0
    """Number of those that were there already."""
    deviations: tuple[str, ...] = ()
    """Data IDs and components that differ from what others of the visit have; these are stored with the dataset."""
    failures: tuple[str, ...] = ()
    """Why the datasets of a visit weren't converted: one message for each visit."""


def convert_dataset_type(
    repository: str,
    source: str,
    target: str,
    *,
    run: str,
    collections: str | Iterable[str],
    where: str = "",
    visit_dataset_type: str = "visit_metadata",
    executor: Executor | None = None,
    recipe: str | None = None,
) -> Conversion:
    """Convert the datasets of one type to composites of another type.

    FITS files of exposures become composites of the definition ``exposure``, tables (of Astropy or in Parquet files)
    those of ``source_catalog``. What the detectors of a visit have in common is stored once, and linked. Components are
    compressed as they are when such a dataset is put.

    A visit is converted as a whole or not at all, in one transaction. Datasets that are there already are left as they
    are, so a conversion that was stopped is continued by starting it again.

    Parameters
    ----------
    repository : str
        Path, URI or label of the repository.
    source, target : str
        Names of the dataset types. The second is registered if there is none, with the dimensions of the first.
    run : str
        The run of the new datasets; it is made if there is none.
    collections : str or iterable of str
        Where the datasets are searched; the first one of each data ID is converted.
    where : str, optional
        Expression that selects some.
    visit_dataset_type : str, optional
        Name of the dataset type of what is shared by a visit.
    executor : concurrent.futures.Executor, optional
        Where visits are converted, each by one task: processes (started, not forked), or
        ``distributed.Client.get_executor()``. They must reach the repository under the same name. A registry in SQLite
        lets one of them write at a time.
    recipe : str, optional
        Name of one of the repository's recipes (``write_recipes`` in its configuration of formatters), in place of the
        one that the configuration chooses.

    Returns
    -------
    Conversion
        What was done, and what was not.

    Raises
    ------
    DefinitionError
        If the repository can't store composites yet, or the datasets are stored as several files each.
    ConfigurationError
        If there is no such recipe, or one is wrong.
    Exception
        What the Butler raises for dataset types and collections that it doesn't know, and if the target is there but is
        of another type.
    """
    butler = Butler.from_config(repository, writeable=True)
    refs = butler.query_datasets(source, collections, where=where, limit=None, explain=False)
    if not refs:
        return Conversion()
    definition = get_definition("exposure" if _is_fits(butler, refs[0]) else "source_catalog")
    storage_class = storage_class_name(definition)
    if storage_class not in StorageClassFactory():
        raise DefinitionError(
            f"the repository {repository} has no storage class {storage_class}; `butler compositeh5-install` adds it"
        )
    butler.collections.register(run)
    target_type = DatasetType(target, refs[0].datasetType.dimensions, storage_class, universe=butler.dimensions)
    butler.registry.registerDatasetType(target_type)
    shared = _shared(definition, target_type)
    visit_type = register_dataset_type(butler, visit_dataset_type, VISIT) if shared else None
    present = {ref.dataId for ref in butler.query_datasets(target, run, limit=None, explain=False)}
    visits: dict[DataCoordinate, list[uuid.UUID]] = {}
    for ref in sorted(refs, key=lambda ref: ref.dataId):
        if ref.dataId not in present:
            visits.setdefault(ref.dataId.subset(visit_type.dimensions) if visit_type else ref.dataId, []).append(ref.id)

    convert = partial(_convert_visit, repository, target, run, visit_type.name if visit_type else None, shared, recipe)
    done: list[Conversion] = []
    total = sum(map(len, visits.values()))
    with Progress("compositeh5.butler.converting").bar(total=total, desc=f"Converting {source}") as bar:
        ids = list(visits.values())
        for some, converted in zip(ids, map_in_order(convert, ids, executor=executor, chunksize=1), strict=True):
            done.append(converted)
            bar.update(len(some))
    return Conversion(
        sum(visit.converted for visit in done),
        len(refs) - total,
        tuple(deviation for visit in done for deviation in visit.deviations),
        tuple(failure for visit in done for failure in visit.failures),
    )


def _convert_visit(
    repository: str,
    target: str,
    run: str,
    visit_type: str | None,
    shared: Sequence[str],
    recipe: str | None,
    ids: Sequence[uuid.UUID],
) -> Conversion:
    """Convert the datasets of one visit, all or none."""
    butler = Butler.from_config(repository, writeable=True)
    # Dataset references couldn't be sent to another process: it would have to know the dimensions of the repository.
    refs = sorted(butler.get_many_datasets(ids), key=lambda ref: ref.dataId)
    links: dict[str, Link] = {}
    deviations: list[str] = []
    try:
        with all_or_nothing(butler) as put, use_recipe(recipe):
            if visit_type is not None:
                data_id = refs[0].dataId.subset(butler.get_dataset_type(visit_type).dimensions)
                links = _links(butler, butler.find_dataset(visit_type, data_id, collections=run))
            for ref in refs:
                composite = _read(butler, ref)
                common = {name: composite[name] for name in shared if name in composite}
                if common and not links:
                    links = _links(butler, put(Composite(VISIT, common), visit_type, data_id, run=run))
                equal = {
                    name: links[name]
                    for name in common
                    if name in links and links[name].digest == composite.component_digest(name)
                }
                deviations += [f"{ref.dataId}: {name}" for name in common if name not in equal]
                origin = {"dataset_type": ref.datasetType.name, "id": str(ref.id), "run": ref.run}
                provenance = {**composite.provenance, "converted_from": origin}
                put(composite.replace(equal, provenance=provenance), target, ref.dataId, run=run)
    except ConfigurationError:
        # What is wrong for one is wrong for all.
        raise
    except Exception as error:
        # The other visits have nothing to do with it.
        return Conversion(failures=(f"{refs[0].dataId}: {error}",))
    finally:
        butler.close()
    return Conversion(len(refs), deviations=tuple(deviations))


def _links(butler: Butler, visit: DatasetRef | None) -> dict[str, Link]:
    if visit is None:
        return {}
    with open_ref(butler, visit) as stored:
        return {name: stored.link(name) for name in stored}


def _shared(definition: Definition, dataset_type: DatasetType) -> list[str]:
    visit = get_definition(VISIT)
    if not set(visit.dimensions) < set(dataset_type.dimensions.names):
        return []
    return [
        name
        for name, keys in definition.shared.items()
        if set(keys) == set(visit.dimensions) and name in visit.components
    ]


def _uri(butler: Butler, ref: DatasetRef) -> ResourcePath:
    uris = butler.getURIs(ref)
    if uris.primaryURI is None:
        raise DefinitionError(f"{ref}: is stored as a file for each component; only whole files can be converted")
    return uris.primaryURI


def _is_fits(butler: Butler, ref: DatasetRef) -> bool:
    with _uri(butler, ref).open("rb") as file:
        return bool(file.read(len(MAGIC)) == MAGIC)


def _read(butler: Butler, ref: DatasetRef) -> Composite:
    if not _is_fits(butler, ref):
        return Composite("source_catalog", table=butler.get(ref, storageClass="ArrowAstropy"))
    with _uri(butler, ref).as_local() as local:
        return read_exposure(local.ospath, data_id=dict(ref.dataId.required))
