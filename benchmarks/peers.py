"""One peer: an exposure, a visit, a catalog. Each result is compared with what was written.

Returned are for each group of tasks and each task the medians of wall and CPU time in ms, or another number.
"""

from __future__ import annotations

import math
import resource
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import catalogs
import containers
import numpy as np
from containers import PLANES, SIDE, Corner, Peer
from data import CALIBRATION, Exposure, make_columns
from timing import Timing, run_program, timed, versions

Found = Iterator[tuple[str, Timing | float]]

ROWS = 1000
PEERS = (*containers.PEERS, *catalogs.CATALOGS)
"""Those that need no other Python."""


def peers() -> tuple[type[Peer], ...]:
    """Return all peers of exposures that this Python can have."""
    try:
        import lsst_images_peers
    except ImportError:
        return containers.PEERS
    return (*containers.PEERS, *lsst_images_peers.PEERS)


def megabytes(*paths: Path) -> float:
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def corners_in(size: int) -> list[Corner]:
    """Return where 100 cutouts begin."""
    return [(int(y), int(x)) for y, x in np.random.default_rng(3).integers(0, size - SIDE + 1, (100, 2))]


def exposure(peer: Peer, size: int, runs: int, seconds: float) -> Found:
    """Yield each task with one exposure, and what it takes."""
    data = Exposure(size)
    corners = corners_in(size)
    if not isinstance(peer, containers.OnComposite):
        yield "write", timed(lambda: peer.write(data), runs, seconds)
    yield "size, MB", megabytes(peer.path)
    for name, values in zip(PLANES, peer.planes(), strict=True):
        error = values.astype("f8") - getattr(data, name)
        if name == "image":
            yield "rms error, counts", float(error.std())
        assert np.abs(error).max() < 25, f"{peer.name}: wrong {name}"
    assert peer.calibration() == CALIBRATION
    yield "read whole", timed(peer.planes, runs, seconds)
    cold = partial(run_program, peer.cold, peer.path, str(CALIBRATION))
    yield "calibration, new process", timed(cold, runs)
    yield "calibration", timed(peer.calibration, 20 * runs, seconds)
    yield "WCS", timed(peer.wcs, 20 * runs, seconds)
    try:
        (part,) = peer.cutouts(corners[:1])
    except TypeError as error:
        # That of NDF in lsst.images 30.
        warnings.warn(f"{peer.name}: cutouts fail: {error}", stacklevel=1)
    else:
        y, x = corners[0]
        assert np.abs(part - data.image[y : y + SIDE, x : x + SIDE]).max() < 25
        yield "one cutout", timed(lambda: peer.cutouts(corners[:1]), 4 * runs, seconds)
        yield "100 cutouts", timed(lambda: peer.cutouts(corners), runs, seconds)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    image = peer.mapped()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    if image is not None:
        # Not a page for each 4 kB of pixels was touched: nothing was copied.
        assert image.shape == data.image.shape
        assert not image.flags.owndata
        assert faults < image.nbytes / 4096 / 4 + 1000
        assert np.array_equal(image[:5], data.image[:5])
        yield "map without copying", timed(peer.mapped, 4 * runs, seconds)


def visit(peer: Peer, ccds: int, size: int, runs: int, seconds: float) -> Found:
    """Yield each task with the files of all detectors of a visit."""
    data = [Exposure(size, detector) for detector in range(ccds)]
    yield "write", timed(lambda: peer.write_visit(data), runs, seconds)
    yield "size, MB", megabytes(peer.members(1)[0].path.parents[1])
    for record in peer.records(ccds):
        # fitsio writes 15 digits.
        assert all(
            record[key] == value or math.isclose(record[key], value, rel_tol=1e-13)
            for key, value in data[0].record.items()
        )
    yield "record of each", timed(lambda: peer.records(ccds), runs, seconds)
    yield "all WCS", timed(lambda: peer.all_wcs(ccds), runs, seconds)
    if isinstance(peer, containers.Composite | containers.Plain):
        yield "open and close each", timed(lambda: peer.open_all(ccds), runs, seconds)


def catalog(peer: catalogs.Catalog, rows: int, runs: int, seconds: float) -> Found:
    """Yield each task with a catalog."""
    columns = make_columns(rows)
    three, middle = ["ra", "flux_3", "flag_5"], slice(rows // 2, rows // 2 + ROWS)
    yield "write", timed(lambda: peer.write(columns), runs, seconds)
    yield "size, MB", megabytes(peer.path)
    for names, part in ((list(columns), slice(None)), (three, slice(None)), (list(columns), middle)):
        found = peer.read(names, part)
        assert all(np.array_equal(found[name], columns[name][part]) for name in names), peer.name
    yield "read whole", timed(lambda: peer.read(list(columns)), runs, seconds)
    yield "3 columns", timed(lambda: peer.read(three), 4 * runs, seconds)
    yield f"{ROWS} rows", timed(lambda: peer.read(list(columns), middle), 4 * runs, seconds)
    yield f"{ROWS} rows of one column", timed(lambda: peer.read(three[:1], middle), 4 * runs, seconds)


SIZES = {
    False: {"size": 4000, "ccds": 189, "visit_size": 64, "rows": 100_000, "runs": 5, "seconds": 2},
    True: {"size": 400, "ccds": 8, "visit_size": 32, "rows": 2000, "runs": 1, "seconds": 0.3},
}
"""Pixels along each side of the exposure, detectors of the visit and their pixels along each side, rows of the catalog,
runs of each task, and seconds after which one isn't run once more; also for a quick look."""


def measure(folder: Path, quick: bool, name: str) -> dict[str, Any]:
    """Return what a peer takes, by group and task, and the versions of what it uses."""
    sizes = SIZES[quick]
    runs, seconds = sizes["runs"], sizes["seconds"]
    found: dict[str, Any] = {}
    for kind in peers():
        if kind.name == name:
            peer = kind(folder)
            if kind is not containers.PlainLinked:
                found["exposure"] = dict(exposure(peer, sizes["size"], runs, seconds))
            if not isinstance(peer, containers.OnComposite):
                of_visit = visit(peer, sizes["ccds"], sizes["visit_size"], max(1, runs // 2), seconds)
                found["visit"] = dict(of_visit)
    for other in catalogs.CATALOGS:
        if other.name == name:
            found["catalog"] = dict(catalog(other(folder), sizes["rows"], runs, seconds))
    used = versions("compositeh5", "h5py", "numpy", "astropy", "isal", "fitsio", "asdf", "zarr", "lsst.images")
    return {"versions": used, "results": found}
