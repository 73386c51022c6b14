"""Datasets of a repository that are no composites yet, as composites in a run of their own."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from multiprocessing import get_context

from lsst.daf.butler import Butler, DataCoordinate, DatasetRef, DatasetType, FileDataset, StorageClassFactory
from lsst.daf.butler.progress import Progress
from lsst.resources import ResourcePath

from ..composite import Composite
from ..convert.fits import MAGIC, read_exposure
from ..definition import Definition, get_definition
from ..errors import DefinitionError
from ..links import Link
from ..opening import open_composite
from .dataset_types import register_dataset_type, storage_class_name
from .datasets import location_of
from .datastores import formatter_for, predicted_uri
from .formatter import CompositeFormatter
from .staging import ingest_staged, staging_folder
from .stored import open_ref

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
    """Why a group of datasets, those of one visit, wasn't converted: one message for each."""


@dataclass(frozen=True)
class _Output:
    """A dataset that is to be made, and where its file will be."""

    ref: DatasetRef
    uri: ResourcePath


@dataclass(frozen=True)
class _Group:
    """Datasets that are converted together or not at all: those that share components."""

    pairs: Sequence[tuple[DatasetRef, _Output]]
    shared: Sequence[str]
    visit: _Output | None
    links: dict[str, Link]
    recipe: str | None


@dataclass
class _Staged:
    """The files of a group, not yet in their places."""

    files: list[FileDataset] = field(default_factory=list)
    deviations: list[str] = field(default_factory=list)


def convert_dataset_type(
    repository: str,
    source: str,
    target: str,
    *,
    run: str,
    collections: str | Iterable[str],
    where: str = "",
    visit_dataset_type: str = "visit_metadata",
    processes: int = 1,
    executor: Executor | None = None,
    recipe: str | None = None,
) -> Conversion:
    """Convert the datasets of one type to composites of another type.

    FITS files of exposures become composites of the definition ``exposure``, tables (of Astropy or in Parquet files)
    those of ``source_catalog``. What the detectors of a visit have in common is stored once, and linked. Components are
    compressed as they are when such a dataset is put.

    A visit is converted as a whole or not at all. Datasets that are there already are left as they are, so a
    conversion that was stopped is continued by starting it again. Several may run at once. Unfinished files are in a
    folder in the root of the datastore, or, if that is remote or there are several, where temporary files go; what one
    that was killed leaves there, the next removes.

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
    processes : int, optional
        How many visits are converted at a time, each by a process.
    executor : concurrent.futures.Executor, optional
        Where they are converted instead, such as `distributed.Client.get_executor`. Its processes must reach the
        repository and the folder for unfinished files under the same names.
    recipe : str, optional
        Name of one of the repository's recipes (``write_recipes`` in its configuration of formatters), in place of that
        which the configuration chooses.

    Returns
    -------
    Conversion
        What was done, and what was not.

    Raises
    ------
    DefinitionError
        If the repository can't store composites yet, or the datasets are stored as several files each.
    ConfigurationError
        If there is no such recipe, or one is wrong, or the repository stores these composites in another format.
    Exception
        What the Butler raises for dataset types and collections that it doesn't know, and if the target is there but is
        of another type.
    """
    butler = Butler.from_config(repository, writeable=True)
    refs = butler.query_datasets(source, collections, where=where, limit=None, explain=False)
    if not refs:
        return Conversion()
    definition = get_definition(_definition_name(butler, refs[0]))
    storage_class = storage_class_name(definition)
    if storage_class not in StorageClassFactory():
        raise DefinitionError(
            f"the repository {repository} has no storage class {storage_class}; `butler compositeh5-install` adds it"
        )
    butler.collections.register(run)
    target_type = DatasetType(target, refs[0].datasetType.dimensions, storage_class, universe=butler.dimensions)
    butler.registry.registerDatasetType(target_type)
    there = {ref.dataId for ref in butler.query_datasets(target, run, limit=None, explain=False)}
    missing = [ref for ref in refs if ref.dataId not in there]
    shared = _shared(definition, target_type)
    visit_type = register_dataset_type(butler, visit_dataset_type, VISIT) if shared else None

    converted = 0
    deviations: list[str] = []
    failures: list[str] = []
    groups = [
        _group(butler, members, target_type, visit_type, run, shared, recipe)
        for members in _by_visit(missing, visit_type)
    ]
    for group in groups[:1]:
        # What is wrong with the configuration is wrong for all.
        _, output = group.pairs[0]
        formatter_for(butler, output.ref, output.uri, recipe)
    progress = Progress("compositeh5.butler.converting")
    with (
        staging_folder(butler) as folder,
        progress.bar(total=len(missing), desc=f"Converting {source}") as bar,
        _executor(executor, processes) as workers,
    ):
        running = {workers.submit(_stage, repository, pickle.dumps(group), folder): group for group in groups}
        try:
            for done in as_completed(running):
                group = running.pop(done)
                try:
                    staged = done.result()
                    ingest_staged(butler, staged.files)
                except Exception as error:
                    # The other visits have nothing to do with it.
                    failures.append(f"{group.pairs[0][0].dataId}: {error}")
                else:
                    converted += len(group.pairs)
                    deviations += staged.deviations
                bar.update(len(group.pairs))
        finally:
            for left in running:
                left.cancel()
    return Conversion(converted, len(refs) - len(missing), tuple(deviations), tuple(failures))


def _executor(given: Executor | None, processes: int) -> AbstractContextManager[Executor]:
    if given is not None:
        return nullcontext(given)
    # Connections to a database don't survive a fork.
    return ThreadPoolExecutor(1) if processes == 1 else ProcessPoolExecutor(processes, get_context("spawn"))


def _definition_name(butler: Butler, ref: DatasetRef) -> str:
    with _uri(butler, ref).open("rb") as file:
        return "exposure" if file.read(len(MAGIC)) == MAGIC else "source_catalog"


def _uri(butler: Butler, ref: DatasetRef) -> ResourcePath:
    uris = butler.getURIs(ref)
    if uris.primaryURI is None:
        raise DefinitionError(f"{ref}: is stored as a file for each component; only whole files can be converted")
    return uris.primaryURI


def _shared(definition: Definition, dataset_type: DatasetType) -> list[str]:
    visit = get_definition(VISIT)
    if not set(visit.dimensions) < set(dataset_type.dimensions.names):
        return []
    return [
        name
        for name, keys in definition.shared.items()
        if set(keys) == set(visit.dimensions) and name in visit.components
    ]


def _by_visit(refs: Iterable[DatasetRef], visit_type: DatasetType | None) -> Iterator[list[DatasetRef]]:
    groups: dict[DataCoordinate, list[DatasetRef]] = {}
    for ref in sorted(refs, key=lambda ref: ref.dataId):
        groups.setdefault(ref.dataId.subset(visit_type.dimensions) if visit_type else ref.dataId, []).append(ref)
    yield from groups.values()


def _group(
    butler: Butler,
    refs: Sequence[DatasetRef],
    target_type: DatasetType,
    visit_type: DatasetType | None,
    run: str,
    shared: Sequence[str],
    recipe: str | None,
) -> _Group:
    def output(dataset_type: DatasetType, data_id: DataCoordinate) -> _Output:
        # The names of files need the records. Asking for them in the query would leave out visits that lack some.
        ref = DatasetRef(dataset_type, butler.registry.expandDataId(data_id), run=run)
        return _Output(ref, predicted_uri(butler, ref))

    visit: _Output | None = None
    links: dict[str, Link] = {}
    if visit_type is not None:
        data_id = refs[0].dataId.subset(visit_type.dimensions)
        known = butler.find_dataset(visit_type, data_id, collections=run)
        if known is None:
            visit = output(visit_type, data_id)
        else:
            with open_ref(butler, known) as stored:
                links = {name: stored.stored_link(name) for name in shared if name in stored}
    pairs = [(ref, output(target_type, ref.dataId)) for ref in refs]
    return _Group(pairs, shared, visit, links, recipe)


def _stage(repository: str, pickled: bytes, folder: str) -> _Staged:
    """Write the files of a group to a temporary folder, with links as they must be in the places where they will be."""
    butler = Butler.from_config(repository)
    # Only now: dataset references can't be unpickled before the dimensions of their repository are known.
    group: _Group = pickle.loads(pickled)
    staged, links = _Staged(), dict(group.links)

    def write(composite: Composite, output: _Output) -> str:
        path = os.path.join(folder, f"{output.ref.id}{CompositeFormatter.default_extension}")
        formatter_for(butler, output.ref, output.uri, group.recipe).write_local_file(composite, ResourcePath(path))
        staged.files.append(FileDataset(path, refs=[output.ref], formatter=CompositeFormatter))
        return path

    for source, output in group.pairs:
        composite = _read(butler, source)
        common = [name for name in group.shared if name in composite]
        if common and not links and group.visit is not None:
            path = write(Composite(VISIT, {name: composite[name] for name in common}), group.visit)
            with open_composite(path, location=location_of(group.visit.uri)) as visit:
                links = {name: visit.stored_link(name) for name in common}
        equal = {
            name: links[name]
            for name in common
            if name in links and links[name].digest == composite.component_digest(name)
        }
        staged.deviations += [f"{source.dataId}: {name}" for name in common if name not in equal]
        origin = {"dataset_type": source.datasetType.name, "id": str(source.id), "run": source.run}
        write(composite.replace(equal, provenance={**composite.provenance, "converted_from": origin}), output)
    return staged


def _read(butler: Butler, ref: DatasetRef) -> Composite:
    with _uri(butler, ref).as_local() as local, open(local.ospath, "rb") as file:
        if file.read(len(MAGIC)) == MAGIC:
            return read_exposure(local.ospath, data_id=dict(ref.dataId.required))
    return Composite("source_catalog", table=butler.get(ref, storageClass="ArrowAstropy"))
