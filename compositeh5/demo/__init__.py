"""The demonstration: a Butler repository of one visit, what reading parts of it costs, and what sharing saves."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ..composite.composite import Composite
from ..errors import CompositeH5Error, ConflictError
from ..trees.running import Progress, no_progress

if TYPE_CHECKING:
    from astropy.table import QTable

    from .report import Report

_Visit: TypeAlias = "tuple[Composite, list[Composite], list[QTable]]"
"""A visit before it is stored, its exposures and catalogs; there are none of exposures that aren't simulated."""

__all__ = ["MissingExtraError", "run"]


class MissingExtraError(CompositeH5Error, ImportError):
    """What was asked for needs a package that isn't installed."""


def run(
    directory: str | os.PathLike[str],
    *,
    fits: Sequence[str | os.PathLike[str]] = (),
    detectors: int = 9,
    size: int = 1024,
    seed: int = 1,
    progress: Progress = no_progress,
) -> Report:
    """Make the repository, read parts of it, and return what was found.

    Parameters
    ----------
    directory : path
        Where to make it. What an earlier demonstration made there is replaced.
    fits : sequence of path, optional
        FITS files of the exposures of one visit, to be used instead of a simulated one.
    detectors, size : int, optional
        Number of simulated detectors, and rows and columns of each.
    seed : int, optional
        Seed of the simulation.
    progress : callable, optional
        Called with each step.

    Raises
    ------
    MissingExtraError
        If the Butler isn't installed.
    ConflictError
        If the directory holds something else, or two FITS files are of the same detector.
    ConversionError, DefinitionError, DigestMismatchError
        If a FITS file can't be converted, or isn't of the same visit as the first.
    """
    try:
        from . import repository
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "lsst":
            raise
        raise MissingExtraError(
            f"the demonstration needs the LSST Butler ({error}); install it: pip install 'compositeh5[butler]'"
        ) from error
    from .report import Report, measure_reads, measure_sharing

    started = time.monotonic()
    done, total = 0, (len(fits) or detectors) + 4

    def begin(step: str) -> None:
        nonlocal done
        progress(step, done, total)
        done += 1

    directory = os.path.abspath(directory)
    begin("making the repository")
    butler = repository.make_repository(directory)
    visit, exposures, catalogs = _convert(fits, begin) if fits else _simulate(detectors, size, seed, begin)
    begin("storing the visit")
    repository.register_visit(butler, visit, exposures)
    stored = repository.put(butler, visit, exposures, catalogs)
    begin("reading parts of it")
    reads = measure_reads(butler, stored)
    begin("measuring what sharing saves")
    sharing = measure_sharing(stored)
    progress("done", total, total)
    return Report(directory, stored, reads, sharing, time.monotonic() - started)


def _simulate(detectors: int, size: int, seed: int, begin: Callable[[str], None]) -> _Visit:
    from .simulate import Camera, simulate_exposure, simulate_visit

    camera = Camera(detectors, size)
    exposures, catalogs = [], []
    for detector in range(detectors):
        begin(f"simulating detector {camera.name(detector)}")
        exposure, catalog = simulate_exposure(camera, detector, seed)
        exposures.append(exposure)
        catalogs.append(catalog)
    return simulate_visit(camera), exposures, catalogs


def _convert(paths: Sequence[str | os.PathLike[str]], begin: Callable[[str], None]) -> _Visit:
    from ..fits.conversion import read_exposure

    by_detector: dict[int | str, str] = {}
    exposures = []
    for number, path in enumerate(paths):
        name = os.fspath(path)
        begin(f"converting {name}")
        exposure = read_exposure(path)
        # What a file doesn't tell of itself is made up, for the Butler needs all of it.
        known: dict[str, int | str] = {"instrument": "DemoCam", "visit": 1, "detector": number, **exposure.data_id}
        detector = known["detector"]
        if detector in by_detector:
            raise ConflictError(f"{name}: is of detector {detector}, as {by_detector[detector]} is; leave one out")
        by_detector[detector] = name
        exposures.append(exposure.replace(data_id=known))
    first = exposures[0]
    data_id = {name: first.data_id[name] for name in ("instrument", "visit")}
    return Composite("visit", visit_info=first["visit_info"], data_id=data_id), exposures, []
