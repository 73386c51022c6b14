"""What all peers store: an exposure, the record of its visit, and a catalog; the same on every machine."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.wcs import WCS

CALIBRATION = 31.5
"""nJy for each count: the small component of an exposure."""

CCDS = 189
"""Detectors of a visit."""


def make_wcs(size: int, detector: int = 0) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0 + 0.2 * detector, 2.0]
    wcs.wcs.crpix = [size / 2, size / 2]
    wcs.wcs.cdelt = [-5.5e-5, 5.5e-5]
    wcs.pixel_shape = (size, size)
    return wcs


def make_record() -> dict[str, Any]:
    """Return what is known of a visit: 60 numbers and texts, with names that FITS allows."""
    rng = np.random.default_rng(5)
    record: dict[str, Any] = {"VISIT": 903334, "FILTER": "i_39", "DATE": "2025-03-01T04:05:06.789"}
    record |= {f"VALUE{n:02d}": float(value) for n, value in enumerate(rng.normal(size=42))}
    return record | {f"TEXT{n:02d}": f"text of entry {n}" for n in range(15)}


class Exposure:
    """Noise with stars, a sparse mask, a smooth variance, and small components."""

    def __init__(self, size: int, detector: int = 0) -> None:
        rng = np.random.default_rng([1, detector])
        self.image = rng.normal(0, 23, (size, size)).astype("f4")
        for y, x in rng.integers(0, max(1, size - 20), (size * size // 32_000, 2)):
            self.image[y : y + 19, x : x + 19] += rng.uniform(100, 5000)
        self.mask = np.zeros((size, size), "i4")
        self.mask[self.image > 4000] = 2
        self.variance = (529 + np.maximum(self.image, 0)).astype("f4")
        self.wcs = make_wcs(size, detector)
        self.record = make_record()


def make_columns(rows: int) -> dict[str, Any]:
    """Return the columns of a catalog: ids, positions, fluxes and errors, flags."""
    rng = np.random.default_rng(3)
    columns: dict[str, Any] = {"id": np.arange(rows) + 10**15}
    columns |= {name: rng.uniform(0, 4000, rows) for name in ("ra", "dec", "x", "y")}
    for n in range(12):
        columns[f"flux_{n}"] = rng.normal(1000, 300, rows)
        columns[f"flux_err_{n}"] = rng.uniform(5, 30, rows).astype("f4")
        columns[f"flag_{n}"] = rng.random(rows) < 0.02
    return columns
