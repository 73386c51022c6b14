"""Visits: all detectors stored in one transaction, with what they share stored once; and read together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from lsst.daf.butler import Butler, DatasetRef, MissingCollectionError, MissingDatasetTypeError
from lsst.resources import ResourcePath

from .. import kinds
from ..composite.composite import Composite
from ..composite.definitions import get_definition
from ..composite.link import DataId
from ..errors import DefinitionError, DigestMismatchError
from ..trees.running import Progress, no_progress
from ..trees.sharing import differing_fields
from ..trees.visit_members import DETECTOR_KEY, Member
from ..trees.visit_view import VisitView
from .dataset_files import link, location_of, main_uri, open_ref, opener, use_butler
from .datasets import register_dataset_type


def put_visit(
    butler: Butler,
    visit: Composite,
    ccds: Iterable[Composite],
    *,
    visit_dataset_type: str = "visit_metadata",
    ccd_dataset_type: str = "calexp",
    run: str | None = None,
) -> tuple[DatasetRef, list[DatasetRef]]:
    """Store a visit and the composites of its detectors, which link to what they share, in one transaction.

    A component that the definition of the detectors' composites declares to be shared under the dimensions of the
    visit, and that the visit has, is stored with the visit only. Detectors that have it must have an equal one; all get
    a link.

    Parameters
    ----------
    butler : Butler
        The repository. The dataset types are registered if it doesn't have them.
    visit : Composite
        What the detectors share, with its data ID.
    ccds : iterable of Composite
        One for each detector, with its data ID. They stay as they are.
    visit_dataset_type, ccd_dataset_type : str, optional
        Names of the dataset types.
    run : str, optional
        The run; by default that of the Butler.

    Returns
    -------
    visit_ref : DatasetRef
        The visit.
    ccd_refs : list of DatasetRef
        The detectors, in the order given.

    Raises
    ------
    DigestMismatchError
        If a shared component of a detector isn't equal to the visit's. The message names the detectors, components and
        fields.
    DefinitionError
        If a detector isn't of this visit, or its definition or that of the visit isn't known.
    Exception
        What the Butler raises if one of them can't be stored. Then none is.
    """
    detectors = list(ccds)
    shared = [_shared(ccd, visit) for ccd in detectors]
    problems = [
        problem
        for ccd, names in zip(detectors, shared, strict=True)
        for name in names
        for problem in _deviations(ccd, visit, name)
    ]
    if problems:
        raise DigestMismatchError(f"{visit!r}: not all detectors agree with the visit: {'; '.join(problems)}")
    register_dataset_type(butler, visit_dataset_type, visit.definition)
    for definition in {ccd.definition: None for ccd in detectors}:
        register_dataset_type(butler, ccd_dataset_type, definition)
    if run is not None:
        butler.collections.register(run)
    with all_or_nothing(butler) as put:
        visit_ref = put(visit, visit_dataset_type, visit.data_id, run=run)
        targets = {name: link(butler, visit_ref, name) for names in shared for name in names}
        ccd_refs = [
            put(ccd.replace({name: targets[name] for name in names}), ccd_dataset_type, ccd.data_id, run=run)
            for ccd, names in zip(detectors, shared, strict=True)
        ]
    return visit_ref, ccd_refs


@contextmanager
def all_or_nothing(butler: Butler) -> Iterator[Callable[..., DatasetRef]]:
    """Give a function like ``butler.put`` for one transaction that leaves no files if it fails.

    The Butler's own transaction (30.2026.4300) forgets the files of earlier puts when one inside it fails: its
    datastore goes on with the failed inner transaction instead of returning to the outer one.
    """
    written: list[tuple[DatasetRef, ResourcePath]] = []

    def put(*args: Any, **keywords: Any) -> DatasetRef:
        ref = butler.put(*args, **keywords)
        written.extend((ref, uri) for uri in butler.getURIs(ref).iter_all())
        return ref

    try:
        with butler.transaction():
            yield put
    except BaseException as error:
        for ref, uri in written:
            if butler.get_dataset(ref.id) is None:
                try:
                    uri.remove()
                except FileNotFoundError:
                    pass
                except Exception as problem:
                    error.add_note(f"{uri} is left behind: {problem}")
        raise


def open_visit(
    butler: Butler,
    dataset_type: str,
    data_id: DataId,
    *,
    collections: Any = None,
    visit_dataset_type: str = "visit_metadata",
    executor: Executor | None = None,
    progress: Progress = no_progress,
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
    members = [_member(butler, ref) for ref in refs if DETECTOR_KEY in ref.dataId.required]
    if not members:
        raise FileNotFoundError(f"{butler}: there is no {dataset_type} with a {DETECTOR_KEY} for the data ID {data_id}")
    with ExitStack() as stack:
        visit = _visit(butler, visit_dataset_type, data_id, collections)
        if visit is not None:
            stack.callback(visit.close)
        view = VisitView(members, visit, executor=executor, progress=progress, context=partial(use_butler, butler))
        stack.pop_all()
        return view


def _shared(ccd: Composite, visit: Composite) -> list[str]:
    """Return the names of the components that a detector shares with the visit."""
    dimensions = set(get_definition(visit.definition).dimensions)
    for key, value in visit.data_id.items():
        if ccd.data_id.get(key) != value:
            raise DefinitionError(
                f"{ccd!r}: isn't of the visit {visit.data_id}: its data ID has {key} {ccd.data_id.get(key)!r}"
            )
    declared = get_definition(ccd.definition).shared
    return [name for name, keys in declared.items() if set(keys) == dimensions and name in visit]


def _deviations(ccd: Composite, visit: Composite, name: str) -> Iterator[str]:
    """Tell in which fields a component of a detector differs from that of the visit."""
    if name not in ccd or ccd.component_digest(name) == visit.component_digest(name):
        return
    own, common = (kinds.encode(composite[name], composite.kind(name)) for composite in (ccd, visit))
    detector = " ".join(f"{key}={value}" for key, value in ccd.data_id.items() if key not in visit.data_id)
    yield f"{detector}: {name} differs in {', '.join(differing_fields(own, common)) or 'its attributes'}"


def _member(butler: Butler, ref: DatasetRef) -> Member:
    uri = main_uri(butler, ref)
    return Member(location_of(uri), dict(ref.dataId.required), opener(uri, ref))


def _visit(butler: Butler, dataset_type: str, data_id: DataId, collections: Any) -> Composite | None:
    """Return the open dataset of a visit, if there is one."""
    try:
        found = butler.query_datasets(dataset_type, collections, data_id=data_id, limit=None, explain=False)
    except (MissingDatasetTypeError, MissingCollectionError):
        return None
    return open_ref(butler, found[0]) if len(found) == 1 else None
