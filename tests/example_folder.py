"""A folder as the examples in the help of the verbs have it, and what runs them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable
from support import pixels, simple_wcs, visit_info

import compositeh5 as ch5
from compositeh5.fits import convert

SHAPE = (30, 40)
VISIT = {"instrument": "DemoCam", "visit": 903334}


def exposure(detector: int, **components: object) -> ch5.Composite:
    """Return a small exposure of one of several detectors side by side."""
    wcs = simple_wcs(SHAPE)
    wcs.wcs.crpix = [wcs.wcs.crpix[0] - 50 * detector, wcs.wcs.crpix[1]]
    flags = np.zeros(SHAPE, np.int32)
    flags[10:20, 30:40] = 1
    return ch5.Composite(
        "exposure",
        {
            "image": ch5.Image(pixels(SHAPE, detector + 1), unit="nJy"),
            "mask": ch5.Mask(flags, {"SAT": 0, "CR": 1}),
            "wcs": wcs,
            "psf": ch5.Psf.constant(np.ones((5, 5)) / 25),
            "photo_calib": ch5.PhotoCalib(0.75, 0.01),
            "summary_stats": {"psf_sigma": 1.5, "zero_point": 31.4 * u.mag},
            **components,
        },
        data_id={**VISIT, "detector": detector},
        stage="single_frame",
    )


def write_repository(root: Path) -> None:
    """Write a visit, two exposures of it, and their catalogs."""
    visit = ch5.Composite("visit", visit_info=visit_info(), data_id=VISIT, stage="raw")
    visit.write(root / "visit" / "visit_903334.h5")
    for detector in range(2):
        ccd = exposure(detector, visit_info=visit.link("visit_info"))
        ccd.write(root / "calexp" / f"calexp_903334_{detector}.h5")
        table = QTable({"id": np.arange(9), "flux": np.linspace(0, 1, 9) * u.nJy, "band": ["g", "r", "i"] * 3})
        links = {name: ccd.link(name) for name in ("photo_calib", "wcs")}
        catalog = ch5.Composite("source_catalog", {"table": table, **links}, data_id={**VISIT, "detector": detector})
        catalog.write(root / "src" / f"src_{detector}.h5")


def write_example_folder(root: Path) -> Path:
    """Write all files that the examples need, and return the folder."""
    write_repository(root)
    write_repository(root / "repo")
    (root / "archive").mkdir()
    shutil.copytree(root / "visit", root / "old")
    shutil.copyfile(root / "src" / "src_0.h5", root / "src.h5")
    with ch5.open(root / "visit" / "visit_903334.h5") as visit:
        base = exposure(11, visit_info=visit.link("visit_info"))
        base.write(root / "calexp.h5")
    new = base.overlay(wcs=exposure(12)["wcs"], stage="jointcal", keep=["wcs"])
    new.write(root / "calexp_jointcal.h5")
    for detector in range(2):
        with ch5.open(root / "calexp" / f"calexp_903334_{detector}.h5") as ccd:
            ccd.flatten(root / "received" / f"calexp_903334_{detector}.h5")
    hdu = fits.PrimaryHDU(pixels(SHAPE), simple_wcs(SHAPE).to_header())
    hdu.header["BUNIT"] = "adu"
    (root / "night").mkdir()
    for name in ("exposure.fits", "night/a.fits", "night/b.fits"):
        hdu.writeto(root / name)
    convert(root / "exposure.fits", root / "exposure.h5")
    return root


def words(line: str, folder: Path) -> list[str]:
    """Return the arguments of `compositeh5` in a line, as the shell understands it; what follows isn't run."""
    line = line.partition(" | ")[0].partition(" && ")[0]
    script = f"compositeh5() {{ printf '%s\\0' \"$@\"; }}; {line}"
    done = subprocess.run(["bash", "-euc", script], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]
