"""Put and get through one Butler repository (SQLite) from two processes for a while; look for what grows.

Each round of a process stores a visit of two detectors and an overlay in its own run, reads components, cutouts, whole
composites and what is linked, compares all with what it has put, reads a visit that all processes share, and deletes
its own again. *Grew*: there are more open files at the end than after the second tenth of the time, or memory is more
than 5 % above that of the third. What the allocator of glibc keeps of memory that was freed is given back before the
memory is looked at: it is no leak.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
import traceback
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from damage import digest
from reporting import Table
from support import exposure, simple_wcs, visit_info

import compositeh5 as ch5

VISIT = {"instrument": "DemoCam", "visit": 903334}
DETECTORS = (0, 1)
PARTS = 10
GROWTH = 1.05


@dataclass
class Report:
    """What a process has done, and what it took in each part of the time."""

    rounds: int = 0
    gets: int = 0
    errors: list[str] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    @property
    def grew(self) -> bool:
        return self.files[-1] > self.files[1] or self.megabytes[-1] > self.megabytes[2] * GROWTH


def ccd(detector: int, shape: tuple[int, int] = (400, 500)) -> ch5.Composite:
    return exposure(shape).replace(data_id={**VISIT, "detector": detector})


def visit() -> ch5.Composite:
    return ch5.Composite("visit", visit_info=visit_info(), data_id=VISIT)


def digests(composite: ch5.Composite) -> dict[str, str]:
    return {name: digest(composite[name]) for name in composite}


class Soak:
    """One process."""

    def __init__(self, root: Path, number: int) -> None:
        from lsst.daf.butler import Butler

        self.butler = Butler.from_config(str(root), run=f"soak/{number}")
        self.expected = {detector: digests(ccd(detector)) for detector in DETECTORS}
        self.info = digest(ch5.Record(visit_info()))
        self.wcs = simple_wcs((401, 501))
        self.report = Report()

    def check(self, found: Any, expected: Any, what: str) -> None:
        self.report.gets += 1
        if found != expected:
            self.report.errors.append(f"{what}: {found!r} instead of {expected!r}")

    def read(self, refs: list[Any]) -> None:
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

    def round(self, shared: list[Any]) -> None:
        from compositeh5.butler import put_overlay, put_visit

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

    def run(self, run: str, seconds: float) -> Report:
        shared = list(self.butler.registry.queryDatasets("calexp", collections=run))
        start = time.monotonic()
        for part in range(1, PARTS + 1):
            while not self.report.rounds or time.monotonic() < start + seconds * part / PARTS:
                try:
                    self.round(shared)
                except Exception:
                    self.report.errors.append(traceback.format_exc(limit=-6))
                    break
            if sys.platform.startswith("linux"):
                ctypes.CDLL(None).malloc_trim(0)
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.report.megabytes.append(pages * resource.getpagesize() / 1e6)
            self.report.files.append(len(os.listdir("/proc/self/fd")))
        return self.report


def _in_process(work: tuple[Path, int, str, float]) -> Report:
    root, number, run, seconds = work
    return Soak(root, number).run(run, seconds)


def prepared(folder: Path) -> tuple[Path, str]:
    """Return a repository in which there is a visit, and its run."""
    from butler_support import RUN, create_repo
    from lsst.daf.butler import Butler

    from compositeh5.butler import put_visit

    create_repo(folder / "repo")
    put_visit(Butler.from_config(str(folder / "repo"), run=RUN), visit(), map(ccd, DETECTORS))
    return folder / "repo", RUN


def soak(table: Table, folder: Path, seconds: float, processes: int = 2) -> None:
    """Soak for some seconds."""
    root, run = prepared(folder)
    with get_context("spawn").Pool(processes) as pool:
        reports = pool.map(_in_process, [(root, n, run, seconds) for n in range(processes)], chunksize=1)
    for number, report in enumerate(reports):
        counts = {"rounds": report.rounds, "gets": report.gets, "errors": len(report.errors), "grew": int(report.grew)}
        memory = " ".join(f"{megabytes:.0f}" for megabytes in report.megabytes)
        files = " ".join(map(str, report.files))
        table.note(str(number), memory, files, counts=counts, detail="\n".join(report.errors[:3]))


def soak_table() -> Table:
    return Table(("process", "memory, MB", "open files"), frozenset({"errors", "grew"}))
