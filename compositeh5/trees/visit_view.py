"""All detectors of a visit at once: one component of each, who sees a position, stacked pixels."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .. import kinds
from ..composite.composite import Composite
from ..errors import ClosedError, DigestMismatchError, NoSuchComponentError, WrongValueError, require_type
from .footprints import Footprint, containing, footprint
from .running import Progress, map_in_order, no_progress
from .visit_members import (
    DETECTOR_KEY,
    Detector,
    Member,
    Missing,
    NotThere,
    by_detector,
    join_tables,
    names_of,
    read_if_present,
    require_present,
    table_part,
    unlike_most,
)

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord
    from astropy.table import QTable
    from astropy.wcs import WCS

_Result = TypeVar("_Result")


class VisitView:
    """The composites of the detectors of a visit, seen together. Made by `open_visit`.

    Files are opened when something is read from them, and closed again. To be closed itself, best by ``with``; values
    stay usable.

    Methods that read a component have the parameters ``detectors``, those that are wanted, by default all; and
    ``missing``, what to do about detectors that don't have it, because it is absent (known to be None), lost (linked,
    and not found) or unknown (the composite says nothing of it). ``"error"``, the default, raises an
    `AbsentComponentError`, `BrokenLinkError` or `NoSuchComponentError` that names them; ``"skip"`` leaves them out;
    ``"keep"`` gives None, and in tables a masked row. A component that is unknown to all is always an error.

    Parameters
    ----------
    members : iterable of Member
        One for each detector.
    visit : Composite, optional
        The open composite of what the detectors share. The view closes it.
    executor : concurrent.futures.Executor, optional
        Where components are read; here by default.
    progress : callable, optional
        Told how many detectors are done.
    context : callable, optional
        Gives what must be entered while links are followed here (not on the executor), such as ``use_butler``.

    Raises
    ------
    FileNotFoundError
        If there are no members.
    DefinitionError
        If two members are of the same detector.
    """

    def __init__(
        self,
        members: Iterable[Member],
        visit: Composite | None = None,
        *,
        executor: Executor | None = None,
        progress: Progress = no_progress,
        context: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._members = by_detector(members)
        self.visit = visit
        """The open composite of what the detectors share; None if only those of the detectors are known."""
        self._executor, self._progress, self._context = executor, progress, context
        self._shared: dict[str, Any] = {}
        self._footprints: dict[Detector, Footprint | NotThere] = {}
        self._closed = False

    @property
    def detectors(self) -> tuple[Detector, ...]:
        """The detectors, in order."""
        return tuple(self._members)

    @property
    def locations(self) -> dict[Detector, str]:
        """The files of the detectors."""
        return {detector: member.location for detector, member in self._members.items()}

    @property
    def data_id(self) -> dict[str, int | str]:
        """What is the same in the data IDs of all detectors: that of the visit."""
        first, *others = (member.data_id for member in self._members.values())
        common = (key for key in first if all(other.get(key) == first[key] for other in others))
        return {key: first[key] for key in common if key != DETECTOR_KEY}

    def opener(self, detector: Detector) -> Callable[[], Composite]:
        """Return what opens the composite of one detector, also in another process; see `open`."""
        return self._chosen([detector])[0].open

    def open(self, detector: Detector) -> Composite:
        """Open the composite of one detector; to be closed, best by ``with``.

        Raises
        ------
        NoSuchComponentError
            If there is no such detector.
        OSError, CompositeH5Error
            As `compositeh5.open` does.
        """
        return self.opener(detector)()

    # ---- Components ----------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> dict[Detector, Any]:
        """Return a component of all detectors; see `read`."""
        return self.read(name)

    def read(
        self,
        name: str,
        *,
        detectors: Sequence[Detector] | None = None,
        missing: Missing = "error",
        **parameters: Any,
    ) -> dict[Detector, Any]:
        """Return a component, or a part of it, of all detectors.

        Parameters
        ----------
        name : str
            Name of the component.
        detectors, missing
            See the class.
        **parameters
            What to read, as for `Composite.read`.

        Returns
        -------
        dict
            The values by detector, in order.

        Raises
        ------
        OSError, CompositeH5Error
            If a file can't be read; see also the class.
        """
        found = self.map(name, partial(Composite.read, name=name, **parameters), detectors=detectors, missing=missing)
        return {detector: None if isinstance(value, NotThere) else value for detector, value in found.items()}

    def map(
        self,
        name: str,
        function: Callable[[Composite], Any],
        *,
        detectors: Sequence[Detector] | None = None,
        missing: Missing = "error",
    ) -> dict[Detector, Any]:
        """Return what a function gives for the composites of all detectors that have a component of some name.

        Parameters
        ----------
        name : str
            Name of the component.
        function : callable
            What to do with the open composite of a detector; picklable where the view has an executor of processes.
        detectors, missing
            See the class; with "keep" a detector without the component has a `NotThere`, which says why.
        """
        return require_present(self._found(name, function, detectors), name, missing, repr(self))

    @property
    def wcs(self) -> dict[Detector, WCS]:
        """The WCS of all detectors."""
        return self.read("wcs")

    def table(
        self,
        name: str,
        *,
        detectors: Sequence[Detector] | None = None,
        missing: Missing = "error",
        **parameters: Any,
    ) -> QTable:
        """Return a component of all detectors as one table, whose first column is ``detector``.

        Parameters
        ----------
        name : str
            Name of a component whose kind is ``record``, ``photo_calib``, ``wcs`` or ``table``.
        detectors, missing
            See the class.
        **parameters
            What to read of tables: ``columns`` and ``rows`` of each.

        Returns
        -------
        QTable
            Of tables all rows of all of them. Of others a row for each detector, its columns the scalars, as in
            an index, but without the name of the component: the values of a record that are one number, text or time,
            with units and dotted names for nested ones; ``mean`` and ``error`` of a calibration; ``ra``, ``dec``,
            ``ra_corners`` and ``dec_corners`` of a WCS. Scalars that only some detectors have are masked for the
            others. If ``missing`` is "keep", the column ``missing`` says which rows are ``"absent"``, ``"lost"`` or
            ``"unknown"``; it is empty for others. Tables have no rows for those.

        Raises
        ------
        TypeError
            If components of this kind have no scalars.
        FormatError
            If tables differ in their columns.
        OSError, CompositeH5Error
            As for `read`.
        """
        found = self.map(name, partial(table_part, name, parameters), detectors=detectors, missing=missing)
        return join_tables(found, name, missing)

    @property
    def visit_info(self) -> Any:
        """What is known of the visit as a whole: the component ``visit_info`` that all detectors share."""
        return self.shared("visit_info")

    def shared(self, name: str) -> Any:
        """Return a component that is the same for all detectors, read once.

        It is that of the visit, if the view was opened by its file and it has one. Otherwise all detectors must have an
        equal one, which is told by the digests.

        Raises
        ------
        DigestMismatchError
            If it isn't the same for all detectors; the message names those that deviate from most.
        """
        self._check_open()
        require_type(name, str, "the name of a component")
        if name not in self._shared:
            if self.visit is not None and name in self.visit:
                with self._context():
                    self._shared[name] = self.visit[name]
            else:
                digests = self.map(name, partial(Composite.component_digest, name=name))
                if deviating := unlike_most(digests):
                    what = f"component {name!r} of {names_of(deviating)} isn't the same as that of most"
                    raise DigestMismatchError(f"{self!r}: {what}")
                self._shared[name] = self.read(name, detectors=self.detectors[:1])[self.detectors[0]]
        value = self._shared[name]
        return kinds.get(kinds.infer(value)).share(value)

    # ---- On the sky, and pixels ----------------------------------------------------------------------------

    def containing(
        self, positions: SkyCoord, *, detectors: Sequence[Detector] | None = None, missing: Missing = "error"
    ) -> QTable:
        """Tell which detectors contain sky positions, and at which of their pixels.

        Only WCS, and the boxes of the images, are read, once for many calls. Nothing else needs to be known of the
        camera.

        Parameters
        ----------
        positions : SkyCoord
            One position or many, of shape () or (n,).
        detectors, missing
            See the class; "keep" isn't possible here.

        Returns
        -------
        QTable
            A row for each detector that contains a position, sorted by both. Columns ``position`` (index of the
            position; 0 for a single one), ``detector``, ``y`` and ``x`` (float64, pixels in parent coordinates: the
            centre of the first pixel of an image is at its origin). A position belongs to a detector from the outer
            edge of the first pixel up to that of the last.

        Raises
        ------
        FormatError
            If it can't be known what a WCS covers, for there are neither images nor ``pixel_shape``.
        """
        if missing == "keep":
            raise WrongValueError(
                "missing should be 'error' or 'skip': a detector without WCS has no place to be kept at"
            )
        chosen = [member.detector for member in self._chosen(detectors)]
        self._footprints |= self._found("wcs", footprint, [key for key in chosen if key not in self._footprints])
        found = {detector: self._footprints[detector] for detector in chosen}
        return containing(require_present(found, "wcs", missing, repr(self)), positions)

    def close(self) -> None:
        """Close the file of the visit."""
        self._closed = True
        if self.visit is not None:
            self.visit.close()

    def __enter__(self) -> VisitView:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Python would iterate by __getitem__; it isn't clear whether over detectors or components, so neither.
    __iter__ = None

    def __repr__(self) -> str:
        ids = " ".join(f"{key}={value}" for key, value in self.data_id.items())
        return f"<VisitView {ids} ({len(self._members)} detectors{', closed' if self._closed else ''})>"

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self!r}: was closed; read what is needed inside of the `with` block")

    def _chosen(self, detectors: Iterable[Detector] | None) -> list[Member]:
        self._check_open()
        if detectors is None:
            return list(self._members.values())
        require_type(detectors, Iterable, "detectors")
        wanted = list(detectors)
        for detector in wanted:
            require_type(detector, Hashable, "a detector")
        chosen = dict.fromkeys(wanted)
        if unknown := [detector for detector in chosen if detector not in self._members]:
            raise NoSuchComponentError(
                f"{self!r}: there is no {names_of(unknown)}; there are {names_of(self._members)}"
            )
        return [self._members[detector] for detector in chosen]

    def _found(
        self, name: str, function: Callable[[Composite], _Result], detectors: Iterable[Detector] | None
    ) -> dict[Detector, _Result | NotThere]:
        require_type(name, str, "the name of a component")
        members = self._chosen(detectors)
        work = partial(read_if_present, name, function)
        with self._context():
            results = map_in_order(
                work, members, executor=self._executor, progress=self._progress, step=f"reading {name}"
            )
            return {member.detector: result for member, result in zip(members, results, strict=True)}
