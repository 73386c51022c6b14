"""What is done by reference, and with many files: an overlay beside writing all anew, and operations on trees.

The exposure has 4000 x 4000 pixels in three planes. In the trees, which are of 1000 and 10 000 files, catalogs link to
calibrations in files with pixels, and all to records of visits. Files are in the cache of the operating system.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable
from data import Exposure, make_wcs
from timing import timed_in_turn

import compositeh5 as ch5
from compositeh5.trees import refs_to, subset, verify_files

CALIB = ch5.PhotoCalib(57.5, 0.25)
CCDS = 9
"""Of 19 files of a visit, nine are exposures, nine are their catalogs, and all link to the record of the visit."""

JOBS = 2
SMALL = 128
"""Rows and columns of the exposures in the trees."""

# ---- One exposure ----------------------------------------------------------------------------------------------


def overlays(folder: Path, size: int, runs: int) -> dict[str, dict[str, float]]:
    """Return wall times in ms and bytes of ways to give an exposure a new WCS and calibration."""
    data = Exposure(size)
    visit = ch5.Composite("visit", visit_info={"exposure_time": 30 * u.s}, data_id={"instrument": "Cam", "visit": 1})
    visit.write(folder / "visit.h5")
    ch5.Composite(
        "exposure",
        image=data.image,
        mask=ch5.Mask(data.mask, {"BAD": 0, "SAT": 1}),
        variance=data.variance,
        wcs=data.wcs,
        photo_calib=ch5.PhotoCalib(50.0, 0.5),
        visit_info=visit.link("visit_info"),
        data_id={"instrument": "Cam", "visit": 1, "detector": 1},
        stage="single_frame",
    ).write(folder / "base.h5")
    planes = [fits.ImageHDU(getattr(data, name), name=name) for name in ("image", "mask", "variance")]
    fits.HDUList([fits.PrimaryHDU(header=data.wcs.to_header()), *planes]).writeto(folder / "base.fits")
    wcs = make_wcs(size)
    wcs.wcs.crval = [150.001, 2.001]
    better = {"wcs": wcs, "photo_calib": CALIB}

    def overlay() -> None:
        with ch5.open(folder / "base.h5") as base:
            new = base.overlay(better, stage="jointcal", data_id={"tract": 9813})
            new.write(folder / "overlay.h5", replace=True)

    def rewrite() -> None:
        with ch5.open(folder / "base.h5") as base:
            base.replace(better).write(folder / "rewritten.h5", replace=True)

    def rewrite_fits() -> None:
        with fits.open(folder / "base.fits", memmap=False) as hdus:
            hdus[0].header.update(wcs.to_header())
            hdus[0].header["CALIB"] = CALIB.mean
            hdus.writeto(folder / "rewritten.fits", overwrite=True)
        with open(folder / "rewritten.fits", "rb") as file:
            os.fsync(file)

    def flatten() -> None:
        with ch5.open(folder / "overlay.h5") as c:
            c.flatten(folder / "flat.h5", replace=True)

    tasks = {
        "overlay: new WCS and calibration": (overlay, "overlay.h5"),
        "rewrite all with these": (rewrite, "rewritten.h5"),
        "rewrite all, astropy.io.fits": (rewrite_fits, "rewritten.fits"),
        "flatten the overlay": (flatten, "flat.h5"),
    }
    times = timed_in_turn([task for task, _ in tasks.values()], runs)
    return {
        name: {"ms": timing["wall"], "bytes": (folder / file).stat().st_size}
        for (name, (_, file)), timing in zip(tasks.items(), times, strict=True)
    }


# ---- Many small composites -------------------------------------------------------------------------------------


def write(composite: ch5.Composite, path: Path) -> None:
    """Write a file without waiting for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(composite.file_image(path))
    composite.location = str(path)


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


def tasks(root: Path, new: Path) -> dict[str, Callable[[Executor | None], object]]:
    """Return what is done with a tree, in this process or others."""
    return {
        "subset of the catalogs": lambda executor: subset(root, new, definition="source_catalog", executor=executor),
        "refs --to": lambda executor: refs_to(root / "visit" / "0.h5", root, executor=executor),
        "verify --quick": lambda executor: verify_files(root, quick=True, executor=executor),
        "verify": lambda executor: verify_files(root, executor=executor),
        "shutil.copytree": lambda executor: shutil.copytree(root, new),
    }


def measure_tree(root: Path, visits: int, pool: Executor) -> dict[str, float]:
    """Return seconds for a tree of some visits: by CPU time in this process, by the clock in several."""
    found: dict[str, float] = {}
    list(pool.map(partial(write_visit, root / "tree"), range(visits)))
    for name, task in tasks(root / "tree", root / "new").items():
        for where, executor in (("1 process, CPU", None), (f"{JOBS} processes, wall", pool)):
            clock = time.process_time if executor is None else time.perf_counter
            start = clock()
            task(executor)
            found[f"{name}, {where}"] = clock() - start
            shutil.rmtree(root / "new", ignore_errors=True)
    shutil.rmtree(root / "tree")
    return found


def measure(folder: Path, quick: bool) -> dict[str, Any]:
    """Return what overlays take, and for trees of some sizes seconds for each task."""
    size, runs, numbers = (400, 1, [1, 2]) if quick else (4000, 5, [52, 526])
    found: dict[str, Any] = {"overlays": overlays(folder, size, runs), "trees": {}}
    with ProcessPoolExecutor(JOBS, mp_context=get_context("spawn")) as pool:
        for visits in numbers:
            found["trees"][visits * (2 * CCDS + 1)] = measure_tree(folder, visits, pool)
    return found
