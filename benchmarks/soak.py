"""Put and get through one Butler repository (SQLite) from several processes for a while; look for what grows.

    python benchmarks/soak.py [--minutes 10] [--processes 2]

Each round of a process stores a visit of two detectors and an overlay in its own run, reads components, cutouts, whole
composites and what is linked, compares all with what it has put, reads a visit that all processes share, and deletes
its own again. Prints a Markdown table: for each process the rounds, gets and errors, and for each tenth of the time its
memory (resident, MB) and its open files; exit code 1 if there was an error or wrong value, or if memory or open
files grew: files between the second tenth and the last, memory by more than 5 % from the third to the last. What the
allocator of glibc keeps of memory that was freed is given back before the memory is looked at: it is no leak.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from lsst.daf.butler import Butler, DatasetRef

import compositeh5 as ch5
from compositeh5.butler import put_overlay, put_visit

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from butler_support import RUN, create_repo
from support import exposure, simple_wcs, visit_info

SHAPE = (400, 500)
VISIT = {"instrument": "DemoCam", "visit": 903334}
DETECTORS = (0, 1)
PARTS = 10
GROWTH = 1.05
"""More memory than this, over that of the third part of the time, isn't flat."""


@dataclass
class Report:
    """What a process has done, and what it took in each part of the time."""

    rounds: int = 0
    gets: int = 0
    errors: list[str] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    @property
    def is_flat(self) -> bool:
        return self.files[-1] <= self.files[1] and self.megabytes[-1] <= self.megabytes[2] * GROWTH


def ccd(detector: int) -> ch5.Composite:
    return exposure(SHAPE).replace(data_id={**VISIT, "detector": detector})


def visit() -> ch5.Composite:
    return ch5.Composite("visit", visit_info=visit_info(), data_id=VISIT)


def digests(composite: ch5.Composite) -> dict[str, str]:
    """Return the digests of what was read, not those that were recorded."""
    return {name: digest(composite[name]) for name in composite}


def digest(value: Any) -> str:
    return ch5.Composite(None, value=value).component_digest("value")


class Soak:
    """One process."""

    def __init__(self, root: Path, number: int) -> None:
        self.butler = Butler.from_config(str(root), run=f"soak/{number}")
        self.expected = {detector: digests(ccd(detector)) for detector in DETECTORS}
        self.info = digest(ch5.Record(visit_info()))
        self.wcs = simple_wcs((401, 501))
        self.report = Report()

    def check(self, found: Any, expected: Any, what: str) -> None:
        self.report.gets += 1
        if found != expected:
            self.report.errors.append(f"{what}: {found!r} instead of {expected!r}")

    def read(self, refs: list[DatasetRef]) -> None:
        """Read all that is in a visit, whole and in parts."""
        box = ch5.Box(110, 174, 210, 274)
        for ref in refs:
            expected = self.expected[int(ref.dataId["detector"])]
            whole = self.butler.get(ref)
            self.check(digests(whole), {**expected, "visit_info": self.info}, "whole")
            self.check(digest(self.butler.get(ref.makeComponentRef("wcs"))), expected["wcs"], "wcs")
            self.check(digest(self.butler.get(ref.makeComponentRef("visit_info"))), self.info, "visit_info")
            part = self.butler.get(ref.makeComponentRef("image"), parameters={"bbox": box})
            self.check(digest(part), digest(whole["image"].cut(box)), "cutout")

    def round(self, shared: list[DatasetRef]) -> None:
        visit_ref, refs = put_visit(self.butler, visit(), map(ccd, DETECTORS))
        own = [visit_ref, *refs]
        try:
            self.read(refs)
            run = f"{self.butler.run}/overlay"
            overlay = put_overlay(self.butler, refs[0], {"wcs": self.wcs}, "calexp", run=run, stage="jointcal")
            own.append(overlay)
            found = digests(self.butler.get(overlay))
            self.check(found, {**self.expected[0], "visit_info": self.info, "wcs": digest(self.wcs)}, "overlay")
            self.read(shared)
        finally:
            self.butler.pruneDatasets(own, disassociate=True, unstore=True, purge=True)
        self.report.rounds += 1

    def run(self, seconds: float) -> Report:
        shared = list(self.butler.registry.queryDatasets("calexp", collections=RUN))
        start = time.monotonic()
        for part in range(1, PARTS + 1):
            while time.monotonic() < start + seconds * part / PARTS:
                try:
                    self.round(shared)
                except Exception:
                    self.report.errors.append(traceback.format_exc(limit=-6))
            if sys.platform.startswith("linux"):
                ctypes.CDLL(None).malloc_trim(0)
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.report.megabytes.append(pages * resource.getpagesize() / 1e6)
            self.report.files.append(len(os.listdir("/proc/self/fd")))
        return self.report


def soak(work: tuple[Path, int, float]) -> Report:
    root, number, seconds = work
    return Soak(root, number).run(seconds)


def run(folder: Path, processes: int, seconds: float) -> list[Report]:
    """Return what each process reports."""
    root = folder / "repo"
    create_repo(root)
    put_visit(Butler.from_config(str(root), run=RUN), visit(), map(ccd, DETECTORS))
    with get_context("spawn").Pool(processes) as pool:
        return pool.map(soak, [(root, number, seconds) for number in range(processes)], chunksize=1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        reports = run(Path(folder), arguments.processes, 60 * arguments.minutes)
    print("| process | rounds | gets | errors | memory, MB | open files |\n|---|---|---|---|---|---|")
    for number, report in enumerate(reports):
        memory = " ".join(f"{megabytes:.0f}" for megabytes in report.megabytes)
        files = " ".join(map(str, report.files))
        print(f"| {number} | {report.rounds} | {report.gets} | {len(report.errors)} | {memory} | {files} |")
    for error in [error for report in reports for error in report.errors][:5]:
        print(error)
    return int(any(report.errors or not report.is_flat for report in reports))


if __name__ == "__main__":
    sys.exit(main())
