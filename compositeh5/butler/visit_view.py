"""All detectors of a visit in a Butler at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import ExitStack
from functools import partial
from typing import Any

from lsst.daf.butler import Butler, DatasetRef, MissingCollectionError, MissingDatasetTypeError

from ..composite.composite import Composite
from ..composite.link import DataId
from ..composite.opening import open_dataset
from ..errors import NotACompositeFileError
from ..trees.members import DIMENSION, Member
from ..trees.running import Progress, silent
from ..trees.visit_view import VisitView
from .datasets import ASSEMBLY, location_of, source_of
from .resolving import use_butler


def open_visit(
    butler: Butler,
    dataset_type: str,
    data_id: DataId,
    *,
    collections: Any = None,
    visit_dataset_type: str = "visit_metadata",
    executor: Executor | None = None,
    progress: Progress = silent,
) -> VisitView:
    """Open the datasets of all detectors of a visit together; see `compositeh5.trees.open_visit`.

    The repository is asked which there are; no file is opened for that but that of the visit.

    Parameters
    ----------
    butler : Butler
        The repository.
    dataset_type : str
        Name of the dataset type of the detectors, such as ``"calexp"``.
    data_id : mapping
        Data ID of the visit: instrument, visit, and what else the dataset type has but the detector.
    collections : optional
        Where they are looked for, in the order given; by default in those of the Butler.
    visit_dataset_type : str, optional
        Dataset type of what the detectors share. If the visit has such a dataset, its components are those of
        ``view.visit`` and ``view.shared``.
    executor, progress
        As for `compositeh5.trees.open_visit`. On an executor, links aren't looked for in the Butler, only where they
        lead.

    Returns
    -------
    VisitView
        To be closed, best by ``with``.

    Raises
    ------
    FileNotFoundError
        If there are no such datasets, or one has no file.
    DefinitionError
        If there are several of one detector: the data ID doesn't name one visit.
    NotACompositeFileError
        If one is in memory, or isn't stored in a file of this format.
    Exception
        What the Butler raises for dataset types, data IDs and collections that it doesn't know.

    Examples
    --------
    >>> with open_visit(butler, "calexp", {"instrument": "Cam", "visit": 903334}) as view:  # doctest: +SKIP
    ...     print(view.table("summary_stats"))
    """
    refs = butler.query_datasets(dataset_type, collections, data_id=data_id, limit=None, explain=False)
    members = [member for ref in refs for member in _members(butler, ref)]
    if not members:
        raise FileNotFoundError(f"{butler}: there is no {dataset_type} with a {DIMENSION} for the data ID {data_id}")
    with ExitStack() as stack:
        visit = _visit(butler, visit_dataset_type, data_id, collections)
        if visit is not None:
            stack.callback(visit.close)
        view = VisitView(members, visit, executor=executor, progress=progress, context=partial(use_butler, butler))
        stack.pop_all()
        return view


def _members(butler: Butler, ref: DatasetRef) -> Iterator[Member]:
    if DIMENSION in ref.dataId.required:
        opener = _opener(butler, ref)
        yield Member(opener.keywords["location"], opener.keywords["data_id"], opener)


def _opener(butler: Butler, ref: DatasetRef) -> partial[Composite]:
    """Return what opens a dataset; of a disassembled one, the file that joins its components."""
    uris = butler.getURIs(ref)
    uri = uris.primaryURI or uris.componentURIs.get(ASSEMBLY)
    if uri is None or uri.scheme == "mem":
        raise NotACompositeFileError(f"{ref}: isn't stored in one file, but as {uri or sorted(uris.componentURIs)}")
    return partial(
        open_dataset, source_of(uri), id=str(ref.id), data_id=dict(ref.dataId.required), location=location_of(uri)
    )


def _visit(butler: Butler, dataset_type: str, data_id: DataId, collections: Any) -> Composite | None:
    """Return the open dataset of a visit, if there is one."""
    try:
        found = butler.query_datasets(dataset_type, collections, data_id=data_id, limit=None, explain=False)
    except (MissingDatasetTypeError, MissingCollectionError):
        return None
    return _opener(butler, found[0])() if len(found) == 1 else None
