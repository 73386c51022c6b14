"""Time what is done by reference: an overlay beside writing all anew, and a subset of many files beside a copy of all.

    python benchmarks/composition.py [--files 1000 3000 10000] [--runs 5] [--json figures.json]

Prints two Markdown tables. The first is of one exposure of 4000 x 4072 pixels in three planes (195 MB): seconds
(median) until all is on the disk. The second is of trees in which catalogs link to calibrations in files with pixels,
and all to records of visits: seconds for the subset of the catalogs, how they grow (t ~ n^x), and the bytes that were
read, of pixels and in all. HDF5 reads 512 bytes where an object begins: of the last one, that may be a part of the
pixels behind it, which is said apart. Files are in the cache of the operating system.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import h5py
import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable
from data import Exposure, make_wcs
from trees import CCDS, write

import compositeh5 as ch5
from compositeh5.storage import reader
from compositeh5.storage.source import FileSource

SHAPE = (4000, 4072)
PLANES = ("image", "mask", "variance")
CALIB = ch5.PhotoCalib(57.5, 0.25)

JOBS = 2
SMALL = 128
"""Rows and columns of the exposures in the trees."""

Task = Callable[[], object]


def seconds(task: Task) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file)


# ---- One exposure ----------------------------------------------------------------------------------------------


def write_exposure(folder: Path) -> None:
    """Write a visit, an exposure that links to it, and the same pixels as FITS."""
    data = Exposure(max(SHAPE))
    image, mask, variance = (np.ascontiguousarray(getattr(data, name)[: SHAPE[0]]) for name in PLANES)
    visit = ch5.Composite("visit", visit_info={"exposure_time": 30 * u.s}, data_id={"instrument": "Cam", "visit": 1})
    visit.write(folder / "visit.h5")
    ch5.Composite(
        "exposure",
        image=image,
        mask=ch5.Mask(mask, {"BAD": 0, "SAT": 1}),
        variance=variance,
        wcs=data.wcs,
        psf=ch5.Psf.constant(np.full((41, 41), 1 / 41**2)),
        photo_calib=ch5.PhotoCalib(50.0, 0.5),
        visit_info=visit.link("visit_info"),
        data_id={"instrument": "Cam", "visit": 1, "detector": 1},
        stage="single_frame",
    ).write(folder / "base.h5")
    planes = [fits.ImageHDU(plane, name=name) for plane, name in zip((image, mask, variance), PLANES, strict=True)]
    fits.HDUList([fits.PrimaryHDU(header=data.wcs.to_header()), *planes]).writeto(folder / "base.fits")


def exposure_tasks(folder: Path) -> dict[str, tuple[Task, Path]]:
    """Return what is timed, and the file that it writes."""
    wcs = make_wcs(max(SHAPE))
    wcs.wcs.crval = [150.001, 2.001]
    better = {"wcs": wcs, "photo_calib": CALIB}

    def overlay() -> None:
        with ch5.open(folder / "base.h5") as base:
            base.overlay(better, stage="jointcal", data_id={"tract": 9813}).write(folder / "overlay.h5")

    def rewrite() -> None:
        with ch5.open(folder / "base.h5") as base:
            base.replace(better).write(folder / "rewritten.h5")

    def rewrite_fits() -> None:
        with fits.open(folder / "base.fits", memmap=False) as hdus:
            hdus[0].header.update(wcs.to_header())
            hdus[0].header["CALIB"] = CALIB.mean
            hdus.writeto(folder / "rewritten.fits")
        sync(folder / "rewritten.fits")

    def flatten() -> None:
        with ch5.open(folder / "overlay.h5") as c:
            c.flatten(folder / "flat.h5")

    def copy() -> None:
        shutil.copyfile(folder / "flat.h5", folder / "copy.h5")
        sync(folder / "copy.h5")

    def split() -> None:
        ch5.trees.split([folder / "flat.h5"], folder / "split")

    def split_elsewhere() -> None:
        (folder / "base.h5").rename(folder / "base.away")
        (folder / "visit.h5").rename(folder / "visit.away")
        try:
            ch5.trees.split([folder / "flat.h5"], folder / "elsewhere")
        finally:
            (folder / "base.away").rename(folder / "base.h5")
            (folder / "visit.away").rename(folder / "visit.h5")

    return {
        "overlay: new WCS and calibration": (overlay, folder / "overlay.h5"),
        "rewrite all with these": (rewrite, folder / "rewritten.h5"),
        "rewrite all, astropy.io.fits": (rewrite_fits, folder / "rewritten.fits"),
        "flatten the overlay": (flatten, folder / "flat.h5"),
        "copy the flat file, shutil": (copy, folder / "copy.h5"),
        "split it where the base is": (split, folder / "split" / "flat.h5"),
        "split it where the base isn't": (split_elsewhere, folder / "elsewhere" / "flat.h5"),
    }


def measure_exposure(folder: Path, runs: int) -> dict[str, dict[str, float]]:
    """Return seconds and bytes of each task; those before it have left what it needs."""
    write_exposure(folder)
    tasks = exposure_tasks(folder)
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for run in range(runs + 1):
        for name, (task, path) in tasks.items():
            if path.parent != folder:
                shutil.rmtree(path.parent, ignore_errors=True)
            path.unlink(missing_ok=True)
            spent = seconds(task)
            # The first run loads modules.
            if run:
                times[name].append(spent)
    return {name: {"seconds": median(times[name]), "bytes": path.stat().st_size} for name, (_, path) in tasks.items()}


# ---- Many small composites -------------------------------------------------------------------------------------


def write_visit(root: Path, visit: int) -> None:
    """Write a visit, exposures, and catalogs that link to both."""
    rng = np.random.default_rng(visit)
    info = {"visit": visit, "exposure_time": 30 * u.s, "airmass": 1.1, "filter": "i"}
    shared = ch5.Composite("visit", visit_info=info, data_id={"visit": visit})
    write(shared, root / "visit" / f"{visit}.h5")
    wcs = make_wcs(SMALL)
    for detector in range(CCDS):
        exposure = ch5.Composite(
            "exposure",
            image=rng.normal(0, 23, (SMALL, SMALL)).astype("f4"),
            variance=rng.uniform(500, 600, (SMALL, SMALL)).astype("f4"),
            photo_calib=ch5.PhotoCalib(1 + detector / CCDS, 0.1),
            wcs=wcs,
            visit_info=shared.link("visit_info"),
            data_id={"visit": visit, "detector": detector},
        )
        write(exposure, root / "calexp" / str(visit) / f"{detector}.h5")
        links = {name: exposure.link(name) for name in ("photo_calib", "wcs", "visit_info")}
        table = QTable({"flux": rng.normal(0, 1, 20) * u.nJy})
        catalog = ch5.Composite("source_catalog", table=table, **links, data_id=exposure.data_id)
        write(catalog, root / "src" / str(visit) / f"{detector}.h5")


class CountedSource(FileSource):
    """A file of which it is noted what is read."""

    reads: ClassVar[dict[str, list[tuple[int, int]]]] = defaultdict(list)
    """Offset and number of bytes of each read, by path."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._reads = self.reads[path]

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        start, count = self._position, super().readinto(buffer)
        self._reads.append((start, count))
        return count

    def read_at(self, offset: int, size: int) -> bytes:
        found = super().read_at(offset, size)
        self._reads.append((offset, len(found)))
        return found


@contextmanager
def counted_reads() -> Iterator[dict[str, list[tuple[int, int]]]]:
    """Note what is read of composites in this process."""
    CountedSource.reads.clear()
    reader.FileSource = CountedSource  # type: ignore[misc]
    try:
        yield CountedSource.reads
    finally:
        reader.FileSource = FileSource  # type: ignore[misc]


def pixels_in(root: Path) -> dict[str, list[tuple[int, int]]]:
    """Return offset and number of the bytes of pixels in the files of a tree."""
    found: dict[str, list[tuple[int, int]]] = {}
    for path in (root / "calexp").rglob("*.h5"):
        with h5py.File(path) as file:
            chunks = [
                dataset.id.get_chunk_info(index)
                for dataset in (file["composite/image"], file["composite/variance"])
                for index in range(dataset.id.get_num_chunks())
            ]
        found[str(path)] = [(chunk.byte_offset, chunk.size) for chunk in chunks]
    return found


def overlapping(reads: list[tuple[int, int]], parts: list[tuple[int, int]]) -> tuple[int, int]:
    """Return how many bytes of parts were read by reads that begin there, and by others."""
    there, ahead = 0, 0
    for start, count in reads:
        for offset, size in parts:
            both = max(0, min(start + count, offset + size) - max(start, offset))
            if offset <= start:
                there += both
            else:
                ahead += both
    return there, ahead


def measure_subset(root: Path, count: int, pool: Executor) -> dict[str, float]:
    """Return seconds and bytes for the subset of the catalogs of a tree of about so many files."""
    source, new = root / str(count), root / "new"
    visits = max(1, count // (2 * CCDS + 1))
    list(pool.map(partial(write_visit, source), range(visits)))
    pixels = pixels_in(source)
    figures: dict[str, float] = {
        "files": visits * (2 * CCDS + 1),
        "bytes": sum(path.stat().st_size for path in source.rglob("*.h5")),
        "bytes_of_pixels": sum(size for parts in pixels.values() for _, size in parts),
    }

    def measure(name: str, task: Task) -> None:
        before = time.process_time()
        figures[f"seconds_{name}"] = seconds(task)
        figures[f"cpu_{name}"] = time.process_time() - before
        if name == "1":
            figures["bytes_subset"] = sum(path.stat().st_size for path in new.rglob("*.h5"))
        shutil.rmtree(new)

    with counted_reads() as reads:
        measure("1", partial(ch5.trees.subset, source, new, definition="source_catalog"))
    figures["bytes_read"] = sum(count for found in reads.values() for _, count in found)
    overlaps = [overlapping(reads[path], parts) for path, parts in pixels.items()]
    figures["bytes_of_pixels_read"], figures["bytes_of_pixels_ahead"] = map(sum, zip(*overlaps, strict=True))
    measure(str(JOBS), partial(ch5.trees.subset, source, new, definition="source_catalog", executor=pool))
    measure("copytree", partial(shutil.copytree, source, new))
    shutil.rmtree(source)
    return figures


def growth(rows: list[dict[str, float]], what: str) -> float:
    """Return x of t ~ n^x, fitted to all sizes."""
    if len(rows) < 2:
        return math.nan
    logs = [np.log([row[key] for row in rows]) for key in ("files", what)]
    return float(np.polyfit(*logs, 1)[0])


# ---- Tables ------------------------------------------------------------------------------------------------------


def print_exposure(rows: dict[str, dict[str, float]]) -> None:
    overlay = next(iter(rows.values()))["seconds"]
    print("| one exposure | bytes | s | overlay takes |\n|---|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {row['bytes']:,.0f} | {row['seconds']:.4f} | {overlay / row['seconds']:.1%} |")


def print_subsets(rows: list[dict[str, float]], exponents: dict[str, float]) -> None:
    print("\n| subset of the catalogs | " + " | ".join(f"{row['files']:.0f} files" for row in rows) + " | t ~ n^x |")
    print("|---|" + "---|" * (len(rows) + 1))
    names = {
        "seconds_1": "1 process, s",
        "cpu_1": "of that, CPU time, s",
        f"seconds_{JOBS}": f"{JOBS} processes, s",
        "seconds_copytree": "shutil.copytree of all, s",
        "cpu_copytree": "of that, CPU time, s",
    }
    for key, name in names.items():
        cells = [f"{row[key]:.2f}" for row in rows]
        print(f"| {name} | {' | '.join(cells)} | {exponents[key]:.2f} |")
    bytes_of = {
        "pixels read": "bytes_of_pixels_read",
        "pixels behind a header that was read": "bytes_of_pixels_ahead",
        "pixels there": "bytes_of_pixels",
        "read in all": "bytes_read",
        "there in all": "bytes",
        "written by the subset": "bytes_subset",
    }
    for name, key in bytes_of.items():
        print(f"| bytes: {name} | {' | '.join(f'{row[key]:,.0f}' for row in rows)} | |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, nargs="+", default=[1000, 3000, 10_000])
    parser.add_argument("--runs", type=int, default=5, help="of what is done with one exposure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    args = parser.parse_args()
    environment = f"Python {platform.python_version()}, h5py {h5py.__version__}, {os.cpu_count()} CPUs"
    figures: dict[str, Any] = {"environment": environment, "runs": args.runs}
    print(f"{environment}, {SHAPE[0]} x {SHAPE[1]} pixels, {args.runs} runs\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        figures["exposure"] = measure_exposure(Path(folder), args.runs)
    print_exposure(figures["exposure"])
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(JOBS, mp_context=get_context("spawn")) as pool,
    ):
        figures["subset"] = [measure_subset(Path(folder), count, pool) for count in sorted(args.files)]
    timed = [key for key in figures["subset"][0] if key.startswith(("seconds", "cpu"))]
    figures["growth"] = {key: growth(figures["subset"], key) for key in timed}
    print_subsets(figures["subset"], figures["growth"])
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
