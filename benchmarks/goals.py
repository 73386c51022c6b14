"""Measure what the goals in `README.md` are about: ours and what it is compared with in turn, in one process.

    python benchmarks/goals.py [--size 4000] [--runs 9] [--json FILE]

Times of peers in the other tables are minutes apart, in which a shared machine may become twice as slow; these are not.
Prints Markdown. `run.py` calls this, and `report.py` makes the table of its figures.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import containers
from data import CALIBRATION, Exposure
from peers import add_sizes, corners_in, megabytes
from report import goals_table
from timing import Timing, run_program, timed_in_turn


class Goal(NamedTuple):
    """A ratio of times, and what it shall be at most."""

    text: str
    limit: float | None
    ours: Callable[[], object]
    other: Callable[[], object]
    often: int = 1
    """Short tasks are run so many times as often."""


class Result(NamedTuple):
    """What came of a goal: times, or sizes in MB."""

    text: str
    limit: float | None
    ours: Timing | float
    other: Timing | float


def goals(folder: Path, size: int, ccds: int, visit_size: int) -> Iterator[Goal]:
    """Yield each goal, in an order in which files are written before they are read."""
    data = Exposure(size)
    ours, raw, quantized = (
        kind(folder) for kind in (containers.Composite, containers.CompositeRaw, containers.CompositeQuantized)
    )
    gzip, gzip_2, rice = (kind(folder) for kind in (containers.Plain, containers.FitsGzip, containers.FitsRice))
    on_ours, on_raw = containers.OnLossless(folder), containers.OnRaw(folder)
    raw.write(data)
    write = partial(ours.write, data)
    yield Goal("write lossless, to h5py gzip", 0.2, write, lambda: gzip.write(data))
    yield Goal("write lossless, to FITS GZIP_2", 0.02, write, lambda: gzip_2.write(data))
    yield Goal("write quantized, to FITS RICE q16", 0.2, lambda: quantized.write(data), lambda: rice.write(data))
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


def measure(folder: Path, size: int, ccds: int, visit_size: int, runs: int, seconds: float) -> Iterator[Result]:
    """Yield what came of each goal."""
    for goal in goals(folder, size, ccds, visit_size):
        times = timed_in_turn([goal.ours, goal.other], goal.often * runs, seconds)
        yield Result(goal.text, goal.limit, *times)
    sizes = (megabytes(kind(folder).path) for kind in (containers.CompositeQuantized, containers.FitsRice))
    yield Result("size quantized, to FITS RICE q16", 1.1, *sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sizes(parser)
    parser.set_defaults(runs=9, seconds=60)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        sizes = (arguments.size, arguments.ccds, arguments.visit_size)
        found = [each._asdict() for each in measure(Path(folder), *sizes, arguments.runs, arguments.seconds)]
    print(goals_table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
