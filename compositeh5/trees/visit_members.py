"""The composites of the detectors of a visit, one by one: opened when something of them is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from ..composite.composite import Composite
from ..errors import (
    AbsentComponentError,
    BrokenLinkError,
    DefinitionError,
    DigestMismatchError,
    FormatError,
    NoSuchComponentError,
    WrongTypeError,
    WrongValueError,
)
from .composing import value_order
from .scalar_columns import KINDS_WITH_SCALARS, Row, component_scalars, table_of, to_scalar

if TYPE_CHECKING:
    from astropy.table import QTable, Table

Detector: TypeAlias = int | str
"""What tells the members of a visit from each other: their number, or name, in the data ID."""

DETECTOR_KEY = "detector"
"""The key of data IDs for that."""

Missing: TypeAlias = Literal["error", "skip", "keep"]
"""What to do about detectors that don't have a component."""

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Member:
    """The composite of one detector, as far as it is known without opening its file.

    Attributes
    ----------
    location : str
        Its file.
    data_id : dict
        Its data ID, with the detector.
    open : callable
        Opens it; picklable, so that it can be called in another process.
    """

    location: str
    data_id: Mapping[str, int | str]
    open: Callable[[], Composite]

    @property
    def detector(self) -> Detector:
        """The detector."""
        return self.data_id[DETECTOR_KEY]


@dataclass(frozen=True)
class NotThere:
    """Stands for the component of a detector that doesn't have it.

    Attributes
    ----------
    state : {"absent", "lost", "unknown"}
        Whether it is known to be None, linked and not found, or no component of the composite.
    reason : str
        Why it is lost.
    """

    state: Literal["absent", "lost", "unknown"]
    reason: str = ""


def by_detector(members: Iterable[Member]) -> dict[Detector, Member]:
    """Return members by detector in order, numbers before names; two of one detector are a `DefinitionError`."""
    ordered = sorted(members, key=lambda member: value_order(member.detector))
    if not ordered:
        raise FileNotFoundError("no composite of a detector was found for this visit")
    for one, other in pairwise(ordered):
        if one.detector == other.detector:
            raise DefinitionError(
                f"there are several composites of {DETECTOR_KEY} {one.detector}: {one.location} with data ID "
                f"{dict(one.data_id)}, {other.location} with {dict(other.data_id)}; say more exactly which are meant"
            )
    return {member.detector: member for member in ordered}


def read_if_present(name: str, function: Callable[[Composite], _Result], member: Member) -> _Result | NotThere:
    """Return what a function gives for the composite of a detector, if that has a component of this name."""
    with member.open() as composite:
        if name not in composite:
            return NotThere("absent" if name in composite.absent else "unknown")
        try:
            return function(composite)
        except (BrokenLinkError, DigestMismatchError) as error:
            return NotThere("lost", str(error))


def require_present(found: Mapping[Detector, Any], name: str, missing: Missing, where: str) -> dict[Detector, Any]:
    """Return what `read_if_present` found, or raise an error that names the detectors, as ``missing`` says."""
    if missing not in ("error", "skip", "keep"):
        raise WrongValueError(f"missing should be 'error', 'skip' or 'keep', not {missing!r}")
    gone = {detector: value for detector, value in found.items() if isinstance(value, NotThere)}
    states = {value.state for value in gone.values()}
    if states == {"unknown"} and len(gone) == len(found):
        raise NoSuchComponentError(f"{where}: there is no component {name!r} of {names_of(found)}")
    if missing == "error" and gone:
        what = "; ".join(
            f"{state} for {names_of(detector for detector, value in gone.items() if value.state == state)}"
            for state in sorted(states)
        )
        reason = next((f". {value.reason}" for value in gone.values() if value.reason), "")
        kind = (
            BrokenLinkError
            if "lost" in states
            else AbsentComponentError
            if "absent" in states
            else NoSuchComponentError
        )
        raise kind(f"{where}: component {name!r} is {what} (missing='skip' leaves them out){reason}")
    return {detector: value for detector, value in found.items() if missing == "keep" or detector not in gone}


def unlike_most(values: Mapping[Detector, Hashable]) -> dict[Detector, Hashable]:
    """Return those values that aren't what most are."""
    (most, _), *others = Counter(values.values()).most_common()
    return {detector: value for detector, value in values.items() if value != most} if others else {}


def names_of(detectors: Iterable[Detector]) -> str:
    """Return the names of detectors for a message."""
    names = [str(detector) for detector in detectors]
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"{DETECTOR_KEY} {', '.join(names[:20])}{more}"


def table_part(name: str, parameters: Mapping[str, Any], composite: Composite) -> Table | Row:
    """Return a component that is a table, or the scalars of another, named without the name of the component."""
    kind = composite.kind(name)
    if kind == "table":
        return composite.read(name, **parameters)
    if kind not in KINDS_WITH_SCALARS:
        raise WrongTypeError(
            f"{composite!r}: component {name!r} is of kind {kind!r}, but a table is made of "
            f"{', '.join(sorted(KINDS_WITH_SCALARS))} or table; read() gives the values"
        )
    if parameters:
        raise WrongTypeError(f"{composite!r}: component {name!r} is no table with {', '.join(parameters)}")
    scalars = component_scalars(composite, name)
    return {key.removeprefix(f"{name}."): scalar for key, scalar in scalars.items()}


def join_tables(parts: Mapping[Detector, Any], name: str, missing: Missing) -> QTable:
    """Return what `table_part` gave for each detector as one table; see `VisitView.table`."""
    from astropy.table import QTable, TableMergeError, vstack

    tables = {detector: part for detector, part in parts.items() if hasattr(part, "colnames")}
    if others := [detector for detector, part in parts.items() if isinstance(part, dict)] if tables else []:
        raise FormatError(f"component {name!r} of {names_of(others)} is no table, but that of {names_of(tables)} is")
    if not tables:
        return table_of([_row(detector, part, missing) for detector, part in parts.items()], {DETECTOR_KEY: "int"})
    for detector, table in tables.items():
        if DETECTOR_KEY not in table.colnames:
            table.add_column(detector, name=DETECTOR_KEY, index=0)
    try:
        return QTable(vstack(list(tables.values()), join_type="exact", metadata_conflicts="silent"))
    except (TableMergeError, ValueError) as error:
        raise FormatError(f"component {name!r}: the tables of the detectors can't be joined: {error}") from error


def _row(detector: Detector, part: Row | NotThere, missing: Missing) -> Row:
    own = {DETECTOR_KEY: to_scalar(detector)}
    if missing == "keep":
        own["missing"] = to_scalar(part.state if isinstance(part, NotThere) else "")
    return own if isinstance(part, NotThere) else {**part, **own}
