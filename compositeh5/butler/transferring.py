"""Carrying along what composites link to: into other repositories, exports and folders."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterable

from lsst.daf.butler import Butler, Config, DatasetRef
from lsst.resources import ResourcePath

from ..errors import BrokenLinkError
from ..trees.closure import closure
from .dataset_files import Missing, is_composite, whole_refs
from .formatter import CompositeFormatter
from .subsetting import Repository, subset
from .target_map import relink

SEED = "resource://compositeh5/butler/configs/seed.yaml"
"""Configuration of a new repository that can store composites."""


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
    return [ref for ref, is_given in _with_linked(butler, refs, missing).items() if not is_given]


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
    already stay as they are. Paths are kept, so links work there; for those that didn't lead to their targets in the
    source, or whose files it has from elsewhere, `relink` writes a map.

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
    datasets = list(_with_linked(source, refs, missing))
    target.transfer_from(
        source, datasets, transfer=transfer, skip_missing=False, register_dataset_types=True, transfer_dimensions=True
    )
    relink(target, datasets)
    return datasets


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
    datasets = list(_with_linked(butler, refs, missing))
    folder = ResourcePath(destination, forceDirectory=True)
    return list(butler.retrieveArtifacts(datasets, folder, transfer=transfer, preserve_path=True, overwrite=overwrite))


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

    If there are disassembled composites among them, or several datasets in one file, which ``Butler.export`` refuses,
    all composites are written to files of their own, one each, with links to each other. Otherwise links stay as they
    are. Where an import gives files other paths, `relink` makes them work.

    Parameters
    ----------
    butler, refs
        The repository, and the datasets.
    directory : path
        The folder, which is made if there is none.
    filename : str, optional
        Name of the file in it that describes the export.
    transfer : str, optional
        How files are transferred, as for ``Butler.export``; those that are written anew are simply written.
    missing : {"error", "ignore"}, optional
        As for `linked_refs`.

    Returns
    -------
    list of DatasetRef
        The datasets given, and then those that they link to.

    Raises
    ------
    BrokenLinkError, FileNotFoundError
        As `linked_refs` does; then nothing is exported.
    """
    datasets = list(_with_linked(butler, refs, missing))
    folder = os.path.abspath(directory)
    os.makedirs(folder, exist_ok=True)

    def save(repository: Butler, how: str) -> None:
        with repository.export(directory=folder, filename=filename, format="yaml", transfer=how) as export:
            export.saveDatasets(datasets)

    files = Counter(uris.primaryURI for uris in butler.get_many_uris(datasets).values())
    if None not in files and set(files.values()) <= {1}:
        save(butler, transfer)
        return datasets
    # What the Butler can't export has files of its own in a repository that is there only for that.
    with tempfile.TemporaryDirectory(dir=folder, prefix="unfinished-") as scratch:
        config = Config(SEED)
        for ref in filter(is_composite, datasets):
            config["datastore", "formatters", ref.datasetType.storageClass_name] = CompositeFormatter.name()
        Butler.makeRepo(scratch, config, butler.dimensions.dimensionConfig)
        with Butler.from_config(scratch, writeable=True) as whole:
            subset(butler, whole, datasets, missing=missing)
            save(whole, "hardlink")
    return datasets


def _with_linked(butler: Butler, refs: Iterable[DatasetRef], missing: Missing) -> dict[DatasetRef, bool]:
    """Return datasets and then those that they link to, with the records of their dimensions; True for those given."""
    store = Repository(butler)
    selected = {dataset: dataset.links.keys() for dataset in store.look_at(whole_refs(refs))}
    found, lost = closure(store, selected, whole=True)
    if lost and missing == "error":
        raise BrokenLinkError(f"linked datasets aren't stored in this repository: {'; '.join(lost)}")
    return {dataset.key: dataset.is_selected for dataset in found.values()}
