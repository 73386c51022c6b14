"""FITS files of exposures, made as the LSST pipelines write them, and damaged ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

SHAPE = (30, 20)
REAL = [
    "HSC-0908120-056-small.fits",
    "exposure-version-2.fits",
    "photoCalib-version1.fits",
    "sourceCatalog-hsc-v2.fits",
    "visitInfo-version-5.fits",
]
HSC, AFW2, PHOTO_CALIB, CATALOG, VISIT_INFO = REAL


def pixels(seed: int = 0) -> np.ndarray[Any, Any]:
    values = np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)
    values[3, 4] = np.nan
    return values


def image_hdu(name: str, data: np.ndarray[Any, Any], **cards: object) -> fits.ImageHDU:
    hdu = fits.ImageHDU(data)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150, 2], [10, 15]
    wcs.wcs.cdelt = [-5e-5, 5e-5]
    hdu.header.update(wcs.to_header())
    hdu.header.update({"INHERIT": True, "EXTTYPE": name})
    hdu.header.update({"CRPIX1A": 1.0, "CRPIX2A": 1.0, "CRVAL1A": 7.0, "CRVAL2A": -4.0, "LTV1": -7, "LTV2": 4})
    hdu.header.update(cards)
    return hdu


def hdu_list(**primary: object) -> fits.HDUList:
    """Return an exposure as the LSST pipelines write it, without an archive."""
    mask = np.random.default_rng(1).integers(0, 4, SHAPE).astype(np.int32)
    hdus = fits.HDUList(
        [
            fits.PrimaryHDU(),
            image_hdu("IMAGE", pixels()),
            image_hdu("MASK", mask, MP_BAD=0, MP_SAT=1),
            image_hdu("VARIANCE", np.abs(pixels(2))),
        ]
    )
    hdus[0].header.update({key if len(key) <= 8 else f"HIERARCH {key}": value for key, value in primary.items()})
    return hdus


def archive(*objects: tuple[str, fits.BinTableHDU]) -> list[fits.BinTableHDU]:
    """Return the HDUs of an archive that holds objects numbered from 1, each in a table of its own."""
    count = len(objects)
    index = fits.BinTableHDU.from_columns(
        [
            fits.Column("id", "1J", array=np.arange(1, count + 1)),
            fits.Column("cat.archive", "1J", array=np.arange(1, count + 1)),
            fits.Column("cat.persistable", "1J", array=np.zeros(count, int)),
            fits.Column("row0", "1J", array=np.zeros(count, int)),
            fits.Column("nrows", "1J", array=np.ones(count, int)),
            fits.Column("name", "64A", array=[name for name, _ in objects]),
        ]
    )
    index.header.update({"EXTTYPE": "ARCHIVE_INDEX", "AR_NCAT": count + 1})
    for name, table in objects:
        table.header.update({"EXTTYPE": "ARCHIVE_DATA", "AR_NAME": name})
    return [index, *(table for _, table in objects)]


def photo_calib_table(constant: bool, version: int = 1, mean: float = 2.5) -> fits.BinTableHDU:
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column("flags", "1X", array=np.array([[constant]])),
            fits.Column("calibrationMean", "1D", array=[mean]),
            fits.Column("calibrationErr", "1D", array=[0.5]),
            fits.Column("field", "1J", array=[2]),
            fits.Column("version", "1J", array=[version]),
        ]
    )
    table.header.update({"FLAGCOL": 1, "TFLAG1": "isConstant"})
    return table


def chebyshev_table() -> fits.BinTableHDU:
    limits = {"bbox_min_x": 7, "bbox_min_y": -4, "bbox_max_x": 26, "bbox_max_y": 25, "order_x": 2}
    columns = [fits.Column(name, "1J", array=[value]) for name, value in limits.items()]
    coefficients = [2.5, 0.1, 0.02, 0.3, 0.0, 0.01]
    return fits.BinTableHDU.from_columns([*columns, fits.Column("coefficients", "6D", array=[coefficients])])


def exposure_with_archive() -> fits.HDUList:
    """Return an exposure with a calibration that varies."""
    hdus = hdu_list(AR_HDU=5, PHOTOCALIB_ID=1, **{"DATE-AVG": "2020-01-01T00:00:00", "TIMESYS": "TAI"})
    hdus.extend(archive(("PhotoCalib", photo_calib_table(False)), ("ChebyshevBoundedField", chebyshev_table())))
    return hdus


def damaged(whole: bytes, rounds: int, changes: int) -> Iterator[bytes]:
    """Return copies in which some bytes are others, such as stand in headers."""
    random = np.random.default_rng(6)
    for _ in range(rounds):
        content = bytearray(whole)
        for position in random.integers(0, len(whole), changes):
            content[position] = random.choice(list(b" '0123456789=EDAJX\x00\xff"))
        yield bytes(content)
