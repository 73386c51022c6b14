"""The datastores of a repository that keep files, and what they record of them.

The Butler tells where a dataset is, but not which datastores of a chain have it, nor can it replace a file. Its
datastores can: their public methods are used here, but a Butler has no public attribute that gives them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from lsst.daf.butler import Butler, DatasetRef, FileDescriptor, Location
from lsst.daf.butler.datastore.record_data import DatastoreRecordData
from lsst.resources import ResourcePath

from ..container.publish import force
from ..errors import ConfigurationError
from .formatter import CompositeFormatter


@dataclass(frozen=True)
class Artifact:
    """A file of a dataset in a datastore.

    Attributes
    ----------
    datastore : FileDatastore
        The datastore.
    table : str
        Name of its table of records.
    record : StoredFileInfo
        What it records of the file.
    """

    datastore: Any
    table: str
    record: Any

    @property
    def path(self) -> str:
        """A path below the root of the datastore, or an absolute URI."""
        return str(self.record.path)

    @property
    def component(self) -> str | None:
        """The component that is in the file, of a disassembled composite."""
        component: str | None = self.record.component
        return component

    @property
    def uri(self) -> ResourcePath:
        """Where the file is."""
        return self.record.file_location(self.datastore.locationFactory).uri

    @property
    def is_own(self) -> bool:
        """Whether it is below the root of the datastore, and a file by itself: no member of a zip file."""
        uri = self.uri
        return not uri.fragment and uri.relative_to(self.datastore.root) is not None

    def dataset_ids(self) -> set[uuid.UUID]:
        """Return the ids of all datasets that are in the file."""
        # There is no public way.
        ids: set[uuid.UUID] = self.datastore._refs_associated_with_artifacts([self.path]).get(self.path, set())
        return ids

    def measured(self) -> Any:
        """Return the record with what is true of the file now."""
        record = self.record
        if not self.is_own:
            return record
        with suppress(FileNotFoundError):
            record = record.update(file_size=self.uri.size())
            if record.checksum is not None:
                record = record.update(checksum=self.datastore.computeChecksum(self.uri))
        return record


def file_datastores(butler: Butler) -> list[Any]:
    """Return the datastores that keep files, in the order in which the Butler asks them.

    Raises
    ------
    ConfigurationError
        If the Butler has none itself, but asks a server.
    """
    datastore = getattr(butler, "_datastore", None)
    if datastore is None:
        raise ConfigurationError(f"{butler}: has no datastores itself; open the repository without a server")
    return list(_file_datastores(datastore))


def predicted_uri(butler: Butler, ref: DatasetRef) -> ResourcePath:
    """Return where the file of a dataset will be, if it is one: in the first datastore that takes it.

    Raises
    ------
    lsst.daf.butler.datastore.file_templates.FileTemplateValidationError
        If other datasets would have the same name.
    """
    # The datastore itself only predicts where it puts a dataset: that may be disassembled, unlike one that is ingested.
    datastore = _first_for(butler, ref)
    template = datastore.templates.getTemplate(ref)
    template.validateTemplate(ref)
    uri: ResourcePath = datastore.locationFactory.fromPath(template.format(ref), trusted_path=True).uri
    return uri.updatedExtension(CompositeFormatter.default_extension)


def formatter_for(butler: Butler, ref: DatasetRef, uri: ResourcePath, recipe: str | None = None) -> CompositeFormatter:
    """Return the formatter that writes the file of a dataset when it is put.

    Parameters
    ----------
    butler : Butler
        The repository.
    ref : DatasetRef
        The dataset.
    uri : ResourcePath
        Where its file will be.
    recipe : str, optional
        Name of one of the repository's recipes, in place of that which the configuration chooses.

    Raises
    ------
    ConfigurationError
        If there is none, or it is that of another format, or there is no such recipe, or one is wrong.
    """
    descriptor = FileDescriptor(Location(None, uri), ref.datasetType.storageClass)
    chosen = {} if recipe is None else {"write_parameters": {"recipe": recipe}}
    factory = _first_for(butler, ref).formatterFactory
    try:
        formatter = factory.getFormatter(ref, descriptor, dataId=ref.dataId, ref=ref, **chosen)
    except KeyError:
        raise ConfigurationError(
            f"{ref.datasetType.name}: the repository has no formatter for the storage class "
            f"{ref.datasetType.storageClass_name}; see `butler compositeh5-install`"
        ) from None
    if not isinstance(formatter, CompositeFormatter):
        raise ConfigurationError(
            f"{ref.datasetType.name}: the repository stores the storage class {ref.datasetType.storageClass_name} with "
            f"{formatter.name()}, not with {CompositeFormatter.name()}; see `butler compositeh5-install`"
        )
    return formatter


def stored_files(datastore: Any, refs: Iterable[DatasetRef]) -> dict[uuid.UUID, list[Artifact]]:
    """Return the files of datasets in a datastore, by dataset id."""
    (data,) = datastore.export_records(refs).values()
    return {
        id_: [Artifact(datastore, table, record) for table, found in tables.items() for record in found]
        for id_, tables in data.records.items()
    }


def force_files(butler: Butler, refs: Iterable[DatasetRef]) -> None:
    """Force the local files of datasets, and their names, to the disk: the Butler doesn't.

    Raises
    ------
    OSError
        If the disk can't keep them.
    """
    refs = list(refs)
    for datastore in file_datastores(butler):
        uris = {file.uri for files in stored_files(datastore, refs).values() for file in files}
        for path in sorted(uri.ospath for uri in uris if uri.isLocal):
            force(path)


class OvertakenError(Exception):
    """Somebody else has replaced a file while this one waited to do so."""


@contextmanager
def replacing(butler: Butler, artifact: Artifact) -> Iterator[list[DatasetRef]]:
    """Have a file to oneself within a ``with`` block, and what it is after that recorded.

    Yields
    ------
    list of DatasetRef
        The datasets that are in the file.

    Raises
    ------
    OvertakenError
        If somebody else has just had it; then nothing is recorded.
    """
    datastore = artifact.datastore
    with butler.transaction():
        refs = butler.get_many_datasets(artifact.dataset_ids())
        before = stored_files(datastore, refs)
        # The first who takes these rows away makes all others wait until the transaction ends.
        datastore.forget(refs)
        if any(datastore.bridge.check([ref.id for ref in refs])):
            raise OvertakenError(str(artifact.uri))
        yield refs
        _import(datastore, before)


def _import(datastore: Any, files: Mapping[uuid.UUID, list[Artifact]]) -> None:
    """Make files known to a datastore again, as they are now."""
    records: dict[uuid.UUID, dict[str, list[Any]]] = {}
    for id_, artifacts in files.items():
        for artifact in artifacts:
            records.setdefault(id_, {}).setdefault(artifact.table, []).append(artifact.measured())
    datastore.import_records({datastore.name: DatastoreRecordData(records=records)})


def _first_for(butler: Butler, ref: DatasetRef) -> Any:
    for datastore in file_datastores(butler):
        if datastore.constraints.isAcceptable(ref):
            return datastore
    raise ConfigurationError(f"{ref}: no datastore of the repository that keeps files takes it")


def _file_datastores(datastore: Any) -> Iterator[Any]:
    children = getattr(datastore, "datastores", None)
    if children is not None:
        for child in children:
            yield from _file_datastores(child)
    elif not datastore.isEphemeral:
        yield datastore
