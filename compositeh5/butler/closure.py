"""Carrying along what composites link to: into other repositories, exports and folders."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from lsst.daf.butler import Butler, DatasetRef, FileDataset
from lsst.daf.butler.transfers import RepoExportContext
from lsst.resources import ResourcePath
from lsst.utils.introspection import get_full_type_name

from ..container.publish import publish
from ..errors import BrokenLinkError
from ..links import Link
from ..operations.references import StoredLink
from .formatter import CompositeFormatter
from .stored import dataset_links, describe, is_composite, open_joined, relinked, stored_targets, target_ref

Missing = Literal["error", "ignore"]


def linked_refs(butler: Butler, refs: Iterable[DatasetRef], *, missing: Missing = "error") -> list[DatasetRef]:
    """Return the datasets that composites link to, directly or through the links of those.

    Only the records of links are read. A link names the id that its target has in its file. Where that is no dataset
    id, for the file was written without a Butler and ingested under another, the dataset is found by the data ID that
    the link knows, or a part of it, and then by the id in its file (see `target_ref`).

    Parameters
    ----------
    butler : Butler
        The repository.
    refs : iterable of DatasetRef
        Any datasets; those that are no composites have no links.
    missing : {"error", "ignore"}, optional
        What to do about links to datasets that aren't stored in this repository.

    Returns
    -------
    list of DatasetRef
        Each once, without those given, in the order in which they are found.

    Raises
    ------
    BrokenLinkError
        If a target isn't stored in this repository, and ``missing`` is "error". The message names all of them, and
        who links to them.
    FileNotFoundError
        If one of the given datasets isn't stored.
    """
    layer = {ref.id: _whole(ref) for ref in refs}
    given = set(layer)
    known = dict(layer)
    seen = {str(id_) for id_ in given}
    lost: list[str] = []
    while layer:
        users: dict[str, tuple[DatasetRef, StoredLink]] = {}
        for ref in layer.values():
            for found in dataset_links(butler, ref):
                if found.link.id not in seen:
                    users.setdefault(found.link.id, (ref, found))
        seen |= users.keys()
        targets = stored_targets(butler, (found.link for _, found in users.values()))
        layer = {}
        for id_, (ref, found) in users.items():
            target = targets.get(id_)
            if target is None:
                lost.append(f"{describe(ref)}: {found.component} -> {found.link}")
            elif target.id not in known:
                layer[target.id] = target
        known |= layer
    if lost and missing == "error":
        raise BrokenLinkError(f"linked datasets aren't stored in this repository: {'; '.join(lost)}")
    return [ref for id_, ref in known.items() if id_ not in given]


def transfer_closure(
    source: Butler,
    target: Butler,
    refs: Iterable[DatasetRef],
    *,
    transfer: str = "copy",
    missing: Missing = "error",
) -> list[DatasetRef]:
    """Transfer datasets and all that they link to from one repository to another.

    Dataset types, runs and dimension records are made in the target where it doesn't have them. Datasets that it has
    already stay as they are. Paths are kept, so links work there.

    Parameters
    ----------
    source, target : Butler
        The repositories.
    refs : iterable of DatasetRef
        The datasets.
    transfer : str, optional
        How files are transferred; as for ``Butler.transfer_from``.
    missing : {"error", "ignore"}, optional
        As for `linked_refs`.

    Returns
    -------
    list of DatasetRef
        The datasets given, and then those that they link to.

    Raises
    ------
    BrokenLinkError, FileNotFoundError
        As `linked_refs` does; then nothing is transferred.
    """
    closure = _closure(source, refs, missing)
    target.transfer_from(
        source, closure, transfer=transfer, skip_missing=False, register_dataset_types=True, transfer_dimensions=True
    )
    return closure


def retrieve_closure(
    butler: Butler,
    refs: Iterable[DatasetRef],
    destination: str | os.PathLike[str],
    *,
    transfer: str = "copy",
    overwrite: bool = False,
    missing: Missing = "error",
) -> list[ResourcePath]:
    """Copy the files of datasets, and of all that they link to, to a folder, where they can be opened without a Butler.

    Parameters
    ----------
    butler, refs
        The repository, and the datasets.
    destination : path
        The folder. Files get the same paths under it as in the repository, so that links work there.
    overwrite : bool, optional
        Whether files that are there are replaced.
    transfer, missing
        As for ``Butler.retrieveArtifacts``, and for `linked_refs`.

    Returns
    -------
    list of ResourcePath
        The files.

    Raises
    ------
    BrokenLinkError, FileNotFoundError
        As `linked_refs` does; then nothing is copied.
    """
    closure = _closure(butler, refs, missing)
    folder = ResourcePath(destination, forceDirectory=True)
    return list(butler.retrieveArtifacts(closure, folder, transfer=transfer, preserve_path=True, overwrite=overwrite))


def export_closure(
    butler: Butler,
    refs: Iterable[DatasetRef],
    directory: str | os.PathLike[str],
    *,
    filename: str = "export.yaml",
    transfer: str = "copy",
    missing: Missing = "error",
) -> list[DatasetRef]:
    """Export datasets and all that they link to, for ``butler import``.

    Disassembled composites, which ``Butler.export`` refuses, are exported as one file each. Links lead to where the
    exported files are.

    Parameters
    ----------
    butler, refs
        The repository, and the datasets.
    directory : path
        The folder, which is made if there is none.
    filename : str, optional
        Name of the file in it that describes the export.
    transfer, missing
        As for ``Butler.export``, and for `linked_refs`.

    Returns
    -------
    list of DatasetRef
        The datasets given, and then those that they link to.

    Raises
    ------
    BrokenLinkError, FileNotFoundError
        As `linked_refs` does; then nothing is exported.
    """
    closure = _closure(butler, refs, missing)
    folder = os.path.abspath(directory)
    os.makedirs(folder, exist_ok=True)
    apart = [ref for ref in closure if is_composite(ref) and butler.getURIs(ref).primaryURI is None]
    paths = {ref.id: os.path.join(folder, ref.run, ref.datasetType.name, f"{ref.id}.h5") for ref in apart}
    # Of several datasets in one file, the Butler would fail to export the second.
    together: dict[str, list[DatasetRef]] = {}
    for ref in closure:
        if ref.id not in paths:
            together.setdefault(str(butler.getURI(ref)), []).append(ref)
    exported: dict[uuid.UUID, FileDataset] = {}

    def note_path(dataset: FileDataset) -> FileDataset:
        (first,) = dataset.refs
        exported[first.id] = dataset
        return dataset

    def link_of(found: StoredLink) -> Link | None:
        target = target_ref(butler, found.link)
        path = None if target is None else paths.get(target.id)
        return None if path is None else replace(found.link, uri=path)

    with butler.export(directory=folder, filename=filename, format="yaml", transfer=transfer) as export:
        export.saveDatasets([first for first, *_ in together.values()], rewrite=note_path)
        for first, *others in together.values():
            file = exported[first.id]
            for ref in others:
                _save_file(export, ref, file)
            paths |= {ref.id: os.path.join(folder, os.fspath(file.path)) for ref in [first, *others]}
        for ref in apart:
            with open_joined(butler, ref) as whole:
                whole.write(paths[ref.id], replace=True)
            path = os.path.relpath(paths[ref.id], folder)
            _save_file(export, ref, FileDataset(path, [ref], formatter=get_full_type_name(CompositeFormatter)))
        for path in dict.fromkeys(paths[ref.id] for ref in filter(is_composite, closure)):
            # Without a transfer, or with one by symbolic links, the file is that of the repository.
            if path.startswith(f"{folder}{os.sep}") and os.path.isfile(path) and not os.path.islink(path):
                image = relinked(ResourcePath(path), link_of)
                if image is not None:
                    publish(path, image, replace=True)
    return closure


def _save_file(export: RepoExportContext, ref: DatasetRef, file: FileDataset) -> None:
    """Add a dataset to an export whose file is there."""
    export.saveDataIds([ref.dataId])
    # The export has no public way to add a dataset without its file. It lists files by dataset type and run.
    files = export._datasets[ref.datasetType][ref.run]
    if file in files:
        file.refs.append(ref)
    else:
        files.append(FileDataset(file.path, [ref], formatter=file.formatter))


def _closure(butler: Butler, refs: Iterable[DatasetRef], missing: Missing) -> list[DatasetRef]:
    given = list({ref.id: _whole(ref) for ref in refs}.values())
    closure = [*given, *linked_refs(butler, given, missing=missing)]
    # Without their records, the Butler fails on some dimensions (KeyError 'visit_detector_region').
    return [ref.expanded(butler.registry.expandDataId(ref.dataId)) for ref in closure]


def _whole(ref: DatasetRef) -> DatasetRef:
    return ref.makeCompositeRef() if ref.isComponent() else ref
