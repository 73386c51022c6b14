"""What the goals in `README.md` are about: ours and what it is compared with in turn, in one process.

Times of peers in the other tables are minutes apart, in which a shared machine may become twice as slow; these are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import containers
from data import CALIBRATION, Exposure
from peers import SIZES, corners_in, megabytes
from timing import run_program, timed_in_turn


class Goal(NamedTuple):
    """A ratio of times, and what it shall be at most."""

    text: str
    limit: float | None
    ours: Callable[[], object]
    other: Callable[[], object]
    often: int = 1
    """Short tasks are run so many times as often."""


def goals(folder: Path, size: int, ccds: int, visit_size: int) -> Iterator[Goal]:
    """Yield each goal, in an order in which files are written before they are read."""
    data = Exposure(size)
    ours, raw, quantized = (
        kind(folder) for kind in (containers.Composite, containers.CompositeRaw, containers.CompositeQuantized)
    )
    gzip, gzip_2, rice = (kind(folder) for kind in (containers.Plain, containers.FitsGzip, containers.FitsRice))
    contiguous = containers.PlainContiguous(folder)
    on_ours, on_raw = containers.OnLossless(folder), containers.OnRaw(folder)
    raw.write(data)
    write = partial(ours.write, data)
    yield Goal("write lossless, to h5py gzip", 0.2, write, lambda: gzip.write(data))
    yield Goal("write lossless, to FITS GZIP_2", 0.02, write, lambda: gzip_2.write(data))
    yield Goal("write quantized, to FITS RICE q16", 0.2, lambda: quantized.write(data), lambda: rice.write(data))
    yield Goal("write raw, to h5py contiguous", 2, lambda: raw.write(data), lambda: contiguous.write(data))
    yield Goal("read whole lossless, to h5py on the same file", 0.6, ours.planes, on_ours.planes, 2)
    yield Goal("read whole raw, to h5py `read_direct` on the same file", 1.1, raw.planes, on_raw.planes, 4)
    corners = corners_in(size)
    one, other, tiles = (partial(peer.cutouts, corners[:1]) for peer in (ours, on_ours, rice))
    yield Goal("256 x 256 cutout, to h5py on the same file", 1.2, one, other, 20)
    yield Goal("256 x 256 cutout, to FITS RICE tiles", 0.33, one, tiles, 2)
    yield Goal("open, WCS, to h5py by hand and the same decoding", 1.5, ours.wcs, on_ours.wcs, 40)
    of_visit, plain = containers.Composite(folder), containers.Plain(folder)
    exposures = [Exposure(visit_size, detector) for detector in range(ccds)]
    for peer in (of_visit, plain):
        peer.write_visit(exposures)
    records = partial(of_visit.records, ccds)
    yield Goal(
        f"shared record of {ccds} detectors, to opening their files", 1.2, records, lambda: of_visit.open_all(ccds)
    )
    yield Goal("the same, to opening them by h5py", None, records, lambda: plain.open_all(ccds))
    yield Goal(
        f"all WCS of {ccds} detectors, to h5py", None, lambda: of_visit.all_wcs(ccds), lambda: plain.all_wcs(ccds)
    )
    many, other_many = (partial(peer.cutouts, corners) for peer in (ours, on_ours))
    yield Goal("100 cutouts, to h5py on the same file", None, many, other_many)
    cold, other_cold = (partial(run_program, peer.cold, peer.path, str(CALIBRATION)) for peer in (ours, on_ours))
    yield Goal("calibration in a new process, to h5py by hand", None, cold, other_cold)


def measure(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Return what came of each goal: the text, the limit, and times of ours and the other, or sizes in MB."""
    sizes = SIZES[quick]
    runs, seconds = (1, sizes["seconds"]) if quick else (9, 60)
    found = []
    for goal in goals(folder, sizes["size"], sizes["ccds"], sizes["visit_size"]):
        ours, other = timed_in_turn([goal.ours, goal.other], goal.often * runs, seconds)
        found.append({"text": goal.text, "limit": goal.limit, "ours": ours, "other": other})
    ours, other = (megabytes(kind(folder).path) for kind in (containers.CompositeQuantized, containers.FitsRice))
    return [*found, {"text": "size quantized, to FITS RICE q16", "limit": 1.1, "ours": ours, "other": other}]
