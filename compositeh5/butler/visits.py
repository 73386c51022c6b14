"""Storing a visit: what its detectors share once, and the composites of the detectors, all or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from lsst.daf.butler import Butler, DatasetRef
from lsst.resources import ResourcePath

from .. import kinds
from ..composite.composite import Composite
from ..composite.definitions import get_definition
from ..errors import DefinitionError, DigestMismatchError
from ..trees.sharing import differing_fields
from .dataset_types import register_dataset_type
from .linking import link


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
