"""The datastores of a repository that keep files, and what they record of them.

The Butler tells where a dataset is, but not which datastores of a chain have it, nor can it replace a file. Its
datastores can: their public methods are used here, but a Butler has no public attribute that gives them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lsst.daf.butler import Butler, DatasetRef
from lsst.daf.butler.datastore.record_data import DatastoreRecordData
from lsst.resources import ResourcePath

from ..errors import ConfigurationError


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


def stored_files(datastore: Any, refs: Iterable[DatasetRef]) -> dict[uuid.UUID, list[Artifact]]:
    """Return the files of datasets in a datastore, by dataset id."""
    (data,) = datastore.export_records(refs).values()
    return {
        id_: [Artifact(datastore, table, record) for table, found in tables.items() for record in found]
        for id_, tables in data.records.items()
    }


def import_files(datastore: Any, files: Mapping[uuid.UUID, list[Artifact]]) -> None:
    """Make files of datasets known to a datastore, as they are now."""
    records: dict[uuid.UUID, dict[str, list[Any]]] = {}
    for id_, artifacts in files.items():
        for artifact in artifacts:
            records.setdefault(id_, {}).setdefault(artifact.table, []).append(artifact.measured())
    datastore.import_records({datastore.name: DatastoreRecordData(records=records)})


def _file_datastores(datastore: Any) -> Iterator[Any]:
    children = getattr(datastore, "datastores", None)
    if children is not None:
        for child in children:
            yield from _file_datastores(child)
    elif not datastore.isEphemeral:
        yield datastore
