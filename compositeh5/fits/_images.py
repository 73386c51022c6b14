"""FITS files of no particular pipeline: one image with what belongs to it, or any number of images and tables."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from astropy.io import fits

from ..errors import EncodeError
from ..kinds.image import Image
from ..kinds.mask import Mask
from . import _tables
from ._exposure import common_origin, mask_bits, unit_of
from ._hdus import FitsFile, read_pixels
from ._sky import wcs_if_any

_VARIANCE: dict[str, Callable[[Any], Any]] = {
    "StdDevUncertainty": np.square,
    "VarianceUncertainty": np.array,
    "InverseVariance": np.reciprocal,
}
"""Uncertainties that `astropy.nddata.CCDData` writes, by its keyword UTYPE, and how they become variances."""

_UNCERTAINTY: dict[str, Callable[[Any], Any]] = {**_VARIANCE, "StdDevUncertainty": np.sqrt}
"""How variances become these uncertainties."""

_BESIDE = {"MASK", "UNCERT", "PSFIMAGE"}
"""The images that `astropy.nddata.CCDData` writes beside the first."""

_OURS = {"header", "fits"}


def uncertainty(variance: Any, kind: str) -> Any:
    """Return the uncertainties of variances, by the name that astropy has for what they are."""
    return _UNCERTAINTY[kind](variance)


def main_image(hdus: fits.HDUList) -> int | None:
    """Return the index of the image, if the file is of one, with a mask and uncertainties at most, as of `CCDData`."""
    images = [index for index, hdu in enumerate(hdus) if hdu.is_image and hdu.shape]
    tables = [hdu for hdu in hdus[1:] if not hdu.is_image]
    # The tables to which the WCS of astropy and of its standard refer.
    if not images or any(hdu.name not in ("WCSDVARR", "D2IMARR", "WCS-TABLE") for hdu in tables):
        return None
    first, *others = images
    beside = [hdus[index].name for index in others]
    if len(hdus[first].shape) != 2 or not set(beside) <= _BESIDE or len(set(beside)) < len(beside):
        return None
    return (
        first
        if all(hdus[index].shape == hdus[first].shape for index in others if hdus[index].name != "PSFIMAGE")
        else None
    )


def ccd_components(file: FitsFile, main: int) -> dict[str, Any]:
    """Return the components of an exposure that isn't of the LSST pipelines.

    The bits of a mask that keywords don't name are the plane BAD, if there are only zeros and ones.
    """
    header = file.hdus[main].header
    unit = unit_of(header)
    origin = common_origin({"image": header}, file.where)
    sky = wcs_if_any(header, file.hdus)
    found: dict[str, Any] = {"image": None}
    if sky is not None:
        found["wcs"] = sky
    found |= {"header": file.header(0), "fits": []}
    for index, hdu, record in file.records():
        if index == main:
            found["image"] = Image(read_pixels(hdu, record), origin, unit)
            record["component"] = "image"
        elif hdu.name == "MASK" and (mask := _mask(hdu, record, origin)) is not None:
            found["mask"] = mask
        elif hdu.name == "UNCERT" and (kind := hdu.header.get("UTYPE", "StdDevUncertainty")) in _VARIANCE:
            found["variance"] = _variance(hdu, record, kind, origin, unit)
        found["fits"].append(record)
    return found


def _mask(hdu: Any, record: dict[str, Any], origin: tuple[int, int]) -> Mask | None:
    """Return the mask; None if it isn't one of bits with names."""
    kept = dict(record)
    bits = mask_bits(hdu.header)
    pixels = read_pixels(hdu, kept)
    if not bits and pixels.dtype.kind in "iu" and pixels.max(initial=0) <= 1 and pixels.min(initial=0) >= 0:
        bits = {"BAD": 0}
    try:
        mask = Mask(pixels, bits, origin)
    except EncodeError:
        return None
    record.clear()
    record.update(kept, component="mask")
    return mask


def _variance(hdu: Any, record: dict[str, Any], kind: str, origin: tuple[int, int], unit: Any) -> Image:
    data = record["data"]
    pixels = read_pixels(hdu, record)
    with np.errstate(all="ignore"):
        variance = _VARIANCE[kind](pixels)
        same = np.array_equal(uncertainty(variance, kind), pixels, equal_nan=True)
    record |= {"component": "variance", "uncertainty": kind}
    if not same:
        # Roots and reciprocals of some numbers aren't exact.
        record["data"] = data
    return Image(variance, origin, None if unit is None else unit**2)


def components(file: FitsFile) -> dict[str, Any]:
    """Return a component for each HDU that holds an image or a table, and the WCS of each image on the sky.

    They are called what EXTNAME is in small letters, with EXTVER where there are several, and the WCS likewise with
    ``_wcs`` at the end. Images of one axis are arrays.
    """
    found: dict[str, Any] = {}
    records = []
    skies = {
        index: wcs_if_any(hdu.header, file.hdus) for index, hdu in enumerate(file.hdus) if hdu.is_image and hdu.shape
    }
    for index, hdu, record in file.records():
        name = _name(index, hdu, found)
        value: Any = None
        if isinstance(hdu, fits.BinTableHDU) and not isinstance(hdu, fits.CompImageHDU):
            value = _tables.read_table(record)
        elif index in skies:
            unit = unit_of(hdu.header)
            pixels = read_pixels(hdu, record)
            value = Image(pixels, unit=unit) if pixels.ndim > 1 else pixels
        if value is not None:
            record["component"] = name
            found[name] = value
            if skies.get(index) is not None:
                found[f"{name}_wcs"] = skies[index]
        records.append(record)
    return {**found, "header": file.header(0), "fits": records}


def _name(index: int, hdu: Any, taken: dict[str, Any]) -> str:
    name = re.sub(r"\W", "_", hdu.name.lower(), flags=re.ASCII) or f"hdu_{index}"
    name = name if name.isidentifier() and name not in _OURS else f"hdu_{name}"
    if name not in taken and f"{name}_wcs" not in taken:
        return name
    version = hdu.ver
    while f"{name}_{version}" in taken:
        version += 1
    return f"{name}_{version}"
