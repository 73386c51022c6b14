"""What the sample files in ``samples/`` hold: a component of each kind, a value of each type.

``python tests/sample_contents.py FOLDER`` writes them. Those of a released version are kept as they are for ever: this
is for those of the next version, which get a folder of their own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import (
    FK5,
    ICRS,
    AltAz,
    Angle,
    CartesianDifferential,
    CartesianRepresentation,
    Distance,
    EarthLocation,
    Latitude,
    Longitude,
    SkyCoord,
)
from astropy.table import MaskedColumn, QTable, Table
from astropy.time import Time, TimeDelta
from astropy.utils.masked import Masked
from astropy.wcs import WCS, DistortionLookupTable, Sip

import compositeh5 as ch5

SHAPE, ORIGIN = (120, 150), (1000, 2000)
DATA_ID = {"instrument": "DemoCam", "visit": 903334}


def values() -> dict[str, Any]:
    """Return a value of each type that records, arrays and tables may have."""
    site = EarthLocation.from_geocentric(1818938.9, -5208470.9, -3195172.0, unit=u.m)
    time = Time([60000.25, 60001.5], format="mjd", scale="tai")
    masked_time = Time(["2025-03-01T04:05:06.789", "2026-01-01T00:00:00"], scale="utc", precision=6, location=site)
    masked_time[1] = np.ma.masked
    return {
        "none": None,
        "bool": True,
        "int": -7,
        "int of 64 bits": 2**64 - 1,
        "int of more": -(10**30),
        "float": float("nan"),
        "complex": 1.5 - 2j,
        "str": "naïve\ntext",
        "bytes": b"\0\xff",
        "numpy": {name: np.ones((), name)[()] for name in ("u1", "i2", "f2", "f4", "c8", "?")},
        "numpy text": np.str_("é"),
        "arrays": {
            name.strip("<>"): np.arange(6).reshape(2, 3).astype(name)
            for name in ("i1", "<i2", ">i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", ">f8", "c8", "c16", "?")
        },
        "text array": np.array([["é", ""], ["long one", "x"]], "U12"),
        "bytes array": np.array([b"a", b"bcd"], "S5"),
        "empty array": np.zeros((0, 3), "f4"),
        "masked array": np.ma.MaskedArray([1, 2, 3], [False, True, False], fill_value=-1, hard_mask=True),
        "quantity": [1.5, 2.5] * u.nJy,
        "angle": Angle([10, 400], u.deg),
        "latitude": Latitude(-30.2, u.deg),
        "longitude": Longitude([-70.7, 10], u.deg, wrap_angle=180 * u.deg),
        "distance": Distance(10, u.kpc),
        "magnitude": u.Magnitude([20.5, 21], u.ABmag),
        "decibel": 3 * u.dB(u.W),
        "dex": 4.4 * u.dex(u.cm / u.s**2),
        "masked quantity": Masked([1, 2] * u.m, mask=[True, False]),
        "time": time,
        "masked time": masked_time,
        "timedelta": TimeDelta([1.5, 3600], format="sec"),
        "earth location": site,
        "sky": SkyCoord([150.1, 10] * u.deg, [2.2, -80] * u.deg),
        "sky with more": SkyCoord(
            1 * u.deg, 2 * u.deg, distance=3 * u.pc, pm_ra_cosdec=4 * u.mas / u.yr, pm_dec=5 * u.mas / u.yr,
            frame=FK5(equinox="J1975"),
        ),
        "horizontal": SkyCoord(1 * u.deg, 2 * u.deg, frame=AltAz(obstime=time[0], location=site, pressure=8e4 * u.Pa)),
        "frame": ICRS(1 * u.deg, 2 * u.deg),
        "representation": CartesianRepresentation([1, 2] * u.m, [3, 4] * u.m, [5, 6] * u.m),
        "differential": CartesianDifferential(1 * u.m / u.s, 2 * u.m / u.s, 3 * u.m / u.s),
        "list": [1, "two", [3.0]],
        "list of numbers": [1.5, 2.5],
        "list of texts": ["a", "é"],
        "tuple": (1, None),
        "record": {"a/b": {"%": 1, "": 2, "@x": 3, ".": 4}},
    }  # fmt: skip


def wcs() -> WCS:
    """Return a tangent-plane WCS with SIP distortion."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.1, 2.2], [75.25, 60.1]
    wcs.wcs.cd = [[-5.5e-5, 1e-7], [1e-7, 5.5e-5]]
    a, b = np.zeros((3, 3)), np.zeros((3, 3))
    a[2, 0], b[1, 1] = 1e-6, -2e-6
    wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.pixel_shape = SHAPE[::-1]
    wcs.wcs.set()
    return wcs


def wcs_with_tables() -> WCS:
    """Return a WCS whose distortion is in lookup tables."""
    table = WCS(naxis=2)
    table.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    table.wcs.crval, table.wcs.cdelt = [10, -20], [-1e-4, 1e-4]
    values = np.linspace(0, 0.5, 6, dtype=np.float32).reshape(2, 3)
    table.cpdis1 = DistortionLookupTable(values, (1.0, 1.0), (1.0, 1.0), (75.0, 120.0))
    table.pixel_bounds = [(-0.5, 149.5), None]
    table.wcs.set()
    return table


def table() -> QTable:
    """Return a table with columns of many types."""
    table = QTable(
        {
            "id": np.arange(3),
            "ra/dec": SkyCoord([1, 2, 3] * u.deg, [4, 5, 6] * u.deg),
            "": [1.5, 2.5, np.nan] * u.nJy,
            "flags": np.array([[True, False]] * 3),
            "name": ["é", "", "long name"],
            "time": Time([60000, 60001, 60002], format="mjd"),
            "maybe": MaskedColumn([1, 2, 3], mask=[False, True, False]),
        }
    )
    table["id"].info.description, table["id"].info.format = "number of the source", "%5d"
    table["id"].info.meta = {"ucd": "meta.id"}
    table.meta["seeing"] = 0.7 * u.arcsec
    return table


def image() -> ch5.Image:
    """Return an image that is larger than what is stored without chunks."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    pixels = np.round(100 * np.exp(-((y - 60) ** 2 + (x - 75) ** 2) / 200)).astype(np.float32)
    pixels[5, 6], pixels[7, 8] = np.nan, np.inf
    return ch5.Image(pixels, ORIGIN, "nJy")


def mask() -> ch5.Mask:
    """Return a mask with two planes."""
    bits = np.zeros(SHAPE, np.int32)
    bits[:, 10], bits[50:70, 60:90] = 1, 4
    planes = {"BAD": ch5.kinds.mask.MaskPlane(0, "a bad column"), "DETECTED": 2}
    return ch5.Mask(bits, planes, ORIGIN)


def psf() -> ch5.Psf:
    """Return a PSF on a grid of four positions."""
    kernels = np.arange(4 * 9, dtype=np.float32).reshape(4, 3, 3) / 100
    return ch5.Psf(kernels, np.array([[0, 0], [0, 9], [9, 0], [9, 9]]), 2)


def photo_calib() -> ch5.PhotoCalib:
    """Return a calibration that varies."""
    field = ch5.kinds.photo_calib.ChebyshevField([[57.5, 0.1], [0.25, 0.0]], ch5.Box(1000, 1120, 2000, 2150))
    return ch5.PhotoCalib(57.5, 0.125, field, "electron")


def kinds() -> ch5.Composite:
    """Return a composite without definition: a component of each kind."""
    inner = ch5.Composite(None, x=np.arange(3), absent=None, data_id={"detector": 11}, stage="inner")
    return ch5.Composite(
        None,
        array=np.arange(10.0) * u.m,
        bytes=b"\0\1\2",
        composite=inner,
        image=image(),
        list=["text", np.arange(3), inner],
        mask=mask(),
        photo_calib=photo_calib(),
        plain_table=Table({"a": [1, 2], "b": ["x", "y"]}),
        psf=psf(),
        record=values(),
        table=table(),
        text="naïve\ntext",
        long_text="a line of text, é\n" * 6000,
        wcs=wcs(),
        wcs_with_tables=wcs_with_tables(),
        data_id={**DATA_ID, "band": "é"},
        dataset_type="all_kinds",
        run="runs/1",
        stage="one",
        provenance={"inputs": ["a", {"b": 1}], "long": "x" * 60_000},
    )


def write(root: Path) -> None:
    """Write the sample files to a folder."""
    kinds().write(root / "kinds.h5")
    visit = ch5.Composite("visit", visit_info=values(), data_id=DATA_ID, stage="raw")
    visit.write(root / "visit.h5")
    exposure = ch5.Composite(
        "exposure", image=image(), mask=mask(), wcs=wcs(), psf=psf(),
        visit_info=visit.link("visit_info"), detector=None,
        data_id={**DATA_ID, "detector": 11}, stage="single_frame",
    )  # fmt: skip
    exposure.write(root / "exposure.h5")
    with ch5.open(root / "exposure.h5") as base:
        overlay = base.overlay(
            photo_calib=photo_calib(), wcs=wcs(), keep=["wcs"], data_id={"tract": 9813}, stage="jointcal"
        )
        overlay.write(root / "overlay.h5")
        ch5.Composite(None, wcss=[base.link("wcs"), wcs_with_tables()]).write(root / "list.h5")
    with ch5.open(root / "overlay.h5") as overlay:
        overlay.flatten(root / "flat.h5")
    several = {name: ch5.Composite(None, x=name, data_id={"visit": 1, "band": name}) for name in ("g", "r")}
    ch5.write_file(root / "several.h5", several)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
