"""The images of FITS files: exposures of the LSST pipelines (``afw``), those of astropy's `CCDData`, and any others."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.units import UnitBase

from ..errors import ConversionError, EncodeError
from ..kinds.image import Image
from ..kinds.mask import Mask
from . import _afw, _headers, _tables
from ._hdus import FitsFile, read_pixels

_PLANES = ("image", "mask", "variance")

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


# ---- Exposures of the LSST pipelines -----------------------------------------------------------------------


def is_exposure(hdus: fits.HDUList) -> bool:
    """Return whether a file is meant to be an exposure of the LSST pipelines."""
    names = {_kind(hdu.header) for hdu in hdus[1:] if hdu.is_image}
    told = "EXTTYPE" in hdus[1].header or "AR_HDU" in hdus[0].header if len(hdus) > 1 else False
    return "IMAGE" in names and (told or {"MASK", "VARIANCE"} <= names)


def exposure_components(file: FitsFile) -> dict[str, Any]:
    """Return the components of an exposure, in the order in which they are to be stored."""
    hdus, where = file.hdus, file.where
    planes = _find_planes(hdus, where)
    headers = {name: hdus[index].header for name, index in planes.items()}
    # Files without INHERIT have everything in the header of the image.
    header = hdus[0].header if "INHERIT" in headers["image"] else headers["image"]
    unit = _headers.unit(headers["image"]) or _headers.unit(header)
    origin = _common_origin(headers, where)
    found: dict[str, Any] = dict.fromkeys(_PLANES)
    found["wcs"] = _headers.wcs(headers["image"])
    found |= _afw.components(hdus, header, unit or "adu", where)
    found["header"] = file.header(0)
    names = {index: name for name, index in planes.items()}
    found["fits"] = []
    # Last, for astropy takes keywords such as BZERO out of a header when it applies them to the pixels.
    for index, hdu, record in file.records():
        if index in names:
            found[names[index]] = _plane(names[index], hdu, record, origin, unit, where)
        found["fits"].append(record)
    return found


def data_id(components: dict[str, Any]) -> dict[str, Any]:
    """Return the part of the data ID that the components tell."""
    visit_info, detector = components.get("visit_info") or {}, components.get("detector") or {}
    found = {
        "instrument": visit_info.get("instrument"),
        "visit": visit_info.get("id"),
        "detector": detector.get("id"),
    }
    return {key: value for key, value in found.items() if value is not None}


def _kind(header: fits.Header) -> str:
    return (_headers.text(header, "EXTTYPE") or _headers.text(header, "EXTNAME") or "").upper()


def _find_planes(hdus: fits.HDUList, where: str) -> dict[str, int]:
    """Return the index of the HDU of each plane that the file has."""
    planes: dict[str, int] = {}
    seen = []
    for index, hdu in enumerate(hdus):
        kind = _kind(hdu.header)
        seen.append(f"{index} {type(hdu).__name__} {kind}".rstrip())
        name = kind.lower()
        if index == 0 or not hdu.is_image or name not in _PLANES:
            continue
        if name in planes:
            raise ConversionError(f"{where}: HDUs {planes[name]} and {index} are both the {name}")
        planes[name] = index
    if "image" not in planes or _headers.integer(hdus[0].header, "NAXIS") != 0:
        raise ConversionError(
            f"{where}: a FITS file, but not an exposure in the layout of the LSST pipelines: there should be a primary "
            f"HDU without data, and an image with EXTTYPE or EXTNAME 'IMAGE'; there are: {', '.join(seen)}"
        )
    shapes = {name: hdus[index].shape for name, index in planes.items()}
    if len(set(shapes.values())) > 1 or len(shapes["image"]) != 2:
        raise ConversionError(f"{where}: the planes should have two axes, and the same shape, not {shapes}")
    return planes


def _common_origin(headers: dict[str, fits.Header], where: str) -> tuple[int, int]:
    """Return the parent coordinates (y0, x0) of the first pixel, which all that tell them must agree on."""
    found: dict[str, tuple[int, int]] = {}
    for name, header in headers.items():
        # Pixel 1 of the WCS "A" is at CRVAL in the parent; LTV is what to add to parent coordinates.
        if all(_headers.number(header, f"CRPIX{axis}A") == 1 for axis in (2, 1)):
            found[f"CRVAL of WCS A of the {name}"] = _corner(header, "CRVAL{}A", 1, where)
        if "LTV1" in header and "LTV2" in header:
            found[f"LTV of the {name}"] = _corner(header, "LTV{}", -1, where)
    if len(set(found.values())) > 1:
        raise ConversionError(f"{where}: keywords contradict each other on the origin (y0, x0): {found}")
    return next(iter(found.values()), (0, 0))


def _corner(header: fits.Header, key: str, sign: int, where: str) -> tuple[int, int]:
    values = [_headers.number(header, key.format(axis)) for axis in (2, 1)]
    if any(value is None or not value.is_integer() for value in values):
        raise ConversionError(f"{where}: {key.format('1')} and {key.format('2')} should be whole pixels, not {values}")
    y0, x0 = (sign * int(value) for value in values if value is not None)
    return y0, x0


def _plane(
    name: str, hdu: Any, record: dict[str, Any], origin: tuple[int, int], unit: UnitBase | None, where: str
) -> Image | Mask:
    """Return a plane of pixels, and take what follows from it out of the record of its HDU."""
    record["component"] = name
    bits = _headers.mask_bits(hdu.header)
    try:
        pixels = read_pixels(hdu, record)
        if name == "mask":
            return Mask(pixels, bits, origin)
        return Image(pixels, origin, unit if unit is None or name == "image" else unit**2)
    except EncodeError as error:
        raise ConversionError(f"{where}: the {name}: {error}") from error


# ---- Other files ------------------------------------------------------------------------------------------


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
    unit = _headers.unit(header)
    origin = _common_origin({"image": header}, file.where)
    sky = _headers.wcs_if_any(header, file.hdus)
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
    bits = _headers.mask_bits(hdu.header)
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


def hdu_components(file: FitsFile) -> dict[str, Any]:
    """Return a component for each HDU that holds an image or a table, and the WCS of each image on the sky.

    They are called what EXTNAME is in small letters, with EXTVER where there are several, and the WCS likewise with
    ``_wcs`` at the end. Images of one axis are arrays.
    """
    found: dict[str, Any] = {}
    records = []
    skies = {
        index: _headers.wcs_if_any(hdu.header, file.hdus)
        for index, hdu in enumerate(file.hdus)
        if hdu.is_image and hdu.shape
    }
    for index, hdu, record in file.records():
        name = _name(index, hdu, found)
        value: Any = None
        if isinstance(hdu, fits.BinTableHDU) and not isinstance(hdu, fits.CompImageHDU):
            value = _tables.read_table(record)
        elif index in skies:
            unit = _headers.unit(hdu.header)
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
