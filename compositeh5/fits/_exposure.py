"""Exposures in the layout of the LSST pipelines (``afw``): the planes of pixels, and what else the file holds."""

from __future__ import annotations

from typing import Any

from astropy.io import fits
from astropy.units import UnitBase

from ..errors import ConversionError, EncodeError
from ..kinds.image import Image
from ..kinds.mask import Mask
from . import _afw, _keywords
from ._hdus import FitsFile, read_pixels
from ._sky import wcs

_PLANES = ("image", "mask", "variance")


def is_exposure(hdus: fits.HDUList) -> bool:
    """Return whether a file is meant to be an exposure of the LSST pipelines."""
    names = {_kind(hdu.header) for hdu in hdus[1:] if hdu.is_image}
    told = "EXTTYPE" in hdus[1].header or "AR_HDU" in hdus[0].header if len(hdus) > 1 else False
    return "IMAGE" in names and (told or {"MASK", "VARIANCE"} <= names)


def components(file: FitsFile) -> dict[str, Any]:
    """Return the components of an exposure, in the order in which they are to be stored."""
    hdus, where = file.hdus, file.where
    planes = _find_planes(hdus, where)
    headers = {name: hdus[index].header for name, index in planes.items()}
    # Files without INHERIT have everything in the header of the image.
    header = hdus[0].header if "INHERIT" in headers["image"] else headers["image"]
    unit = unit_of(headers["image"]) or unit_of(header)
    origin = common_origin(headers, where)
    found: dict[str, Any] = dict.fromkeys(_PLANES)
    found["wcs"] = wcs(headers["image"])
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


def unit_of(header: fits.Header) -> UnitBase | None:
    """Return the unit of the pixels; None if the header doesn't tell one that can be understood."""
    return _keywords.unit(_keywords.text(header, "BUNIT"))


def mask_bits(header: fits.Header) -> dict[str, Any]:
    """Return the bits of the planes of a mask."""
    return {keyword.removeprefix("MP_"): bit for keyword, bit in header.items() if keyword.startswith("MP_")}


def _kind(header: fits.Header) -> str:
    return (_keywords.text(header, "EXTTYPE") or _keywords.text(header, "EXTNAME") or "").upper()


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
    if "image" not in planes or _keywords.integer(hdus[0].header, "NAXIS") != 0:
        raise ConversionError(
            f"{where}: a FITS file, but not an exposure in the layout of the LSST pipelines: there should be a primary "
            f"HDU without data, and an image with EXTTYPE or EXTNAME 'IMAGE'; there are: {', '.join(seen)}"
        )
    shapes = {name: hdus[index].shape for name, index in planes.items()}
    if len(set(shapes.values())) > 1 or len(shapes["image"]) != 2:
        raise ConversionError(f"{where}: the planes should have two axes, and the same shape, not {shapes}")
    return planes


def common_origin(headers: dict[str, fits.Header], where: str) -> tuple[int, int]:
    """Return the parent coordinates (y0, x0) of the first pixel, which all that tell them must agree on."""
    found: dict[str, tuple[int, int]] = {}
    for name, header in headers.items():
        # Pixel 1 of the WCS "A" is at CRVAL in the parent; LTV is what to add to parent coordinates.
        if all(_keywords.number(header, f"CRPIX{axis}A") == 1 for axis in (2, 1)):
            found[f"CRVAL of WCS A of the {name}"] = _corner(header, "CRVAL{}A", 1, where)
        if "LTV1" in header and "LTV2" in header:
            found[f"LTV of the {name}"] = _corner(header, "LTV{}", -1, where)
    if len(set(found.values())) > 1:
        raise ConversionError(f"{where}: keywords contradict each other on the origin (y0, x0): {found}")
    return next(iter(found.values()), (0, 0))


def _corner(header: fits.Header, key: str, sign: int, where: str) -> tuple[int, int]:
    values = [_keywords.number(header, key.format(axis)) for axis in (2, 1)]
    if any(value is None or not value.is_integer() for value in values):
        raise ConversionError(f"{where}: {key.format('1')} and {key.format('2')} should be whole pixels, not {values}")
    y0, x0 = (sign * int(value) for value in values if value is not None)
    return y0, x0


def _plane(
    name: str, hdu: Any, record: dict[str, Any], origin: tuple[int, int], unit: UnitBase | None, where: str
) -> Image | Mask:
    """Return a plane of pixels, and take what follows from it out of the record of its HDU."""
    record["component"] = name
    bits = mask_bits(hdu.header)
    try:
        pixels = read_pixels(hdu, record)
        if name == "mask":
            return Mask(pixels, bits, origin)
        return Image(pixels, origin, unit if unit is None or name == "image" else unit**2)
    except EncodeError as error:
        raise ConversionError(f"{where}: the {name}: {error}") from error
