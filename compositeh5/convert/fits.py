"""FITS files of exposures in the layout of the LSST pipelines (``afw``) as composites, and back.

Nothing of a file is lost: what the components don't say stays in two more, verbatim.

``header``
    The cards of the primary header: lines of 80 columns, without the END card.
``fits``
    A list with a record for each HDU after the primary one:

    ``header`` (str)
        Its cards, likewise. For a tile-compressed image they are those of the image that it stands for.
    ``component`` (str)
        Name of the component that holds its pixels; missing if none does.
    ``data`` (bytes)
        Its data as they stand in the file, heap and padding included; missing if they follow from the component.
    ``compressed_header`` (str)
        The cards of the table that held a tile-compressed image; missing for other HDUs. Its compressed form is not
        kept.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from astropy.io import fits
from astropy.units import Unit, UnitBase, UnrecognizedUnit
from astropy.wcs import WCS

from ..composite import Composite
from ..errors import CompositeH5Error, ConversionError, EncodeError
from ..kinds.image import Image
from ..kinds.mask import Mask
from . import _afw

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..links import DataId

__all__ = ["MAGIC", "fits_bytes", "read_exposure"]

MAGIC = b"SIMPLE  ="
"""How every FITS file begins."""

_BLOCK = 2880
_CARD = 80
_END = "END".ljust(_CARD)
_PLANES = ("image", "mask", "variance")


def read_exposure(path: str | os.PathLike[str], *, data_id: DataId | None = None) -> Composite:
    """Read a calibrated exposure of the LSST pipelines (``calexp``, ``preliminary_visit_image``, ...).

    The planes are the HDUs whose ``EXTTYPE`` (else ``EXTNAME``) is IMAGE, MASK and VARIANCE; mask and variance may be
    missing. They keep their physical types, in native byte order, and get as origin the corner of the parent image
    that the WCS "A" or ``LTV1`` and ``LTV2`` give. The WCS is that of the image's header (not that of the archive,
    of which the header may be an approximation). Visit, calibration, filter and detector come from headers and
    archive tables. The PSF and other objects of the archive stay there, in the component ``fits``.

    Parameters
    ----------
    path : path
        The FITS file.
    data_id : mapping, optional
        Data ID. Its items win over those that the file tells: instrument and visit (keywords ``INSTRUMENT`` and
        ``IDNUM``) and detector.

    Returns
    -------
    Composite
        Of the definition ``exposure``, in memory. Absent are the components that the file says don't exist.

    Raises
    ------
    ConversionError
        If it isn't a FITS file, is damaged, or isn't an exposure in this layout.
    OSError
        If it can't be read.
    """
    where = os.fspath(path)
    with open(path, "rb") as stream, _open_hdus(stream, where) as hdus:
        planes = _find_planes(hdus, where)
        headers = {name: hdus[index].header for name, index in planes.items()}
        # Files without INHERIT have everything in the header of the image.
        header = hdus[0].header if "INHERIT" in headers["image"] else headers["image"]
        unit = _unit(headers["image"]) or _unit(header)
        origin = _common_origin(headers, where)
        components: dict[str, Any] = dict.fromkeys(_PLANES)
        components["wcs"] = _wcs(headers["image"])
        components |= _afw.components(hdus, header, unit or "adu", where)
        components["header"] = _stored_header(stream, hdus, 0, where)
        components["fits"] = []
        names = {index: name for name, index in planes.items()}
        # Last, for astropy takes keywords such as BZERO out of a header when it applies them to the pixels.
        for index in range(1, len(hdus)):
            record = _verbatim(stream, hdus, index, where)
            if index in names:
                components[names[index]] = _plane(names[index], hdus[index], record, origin, unit, where)
            components["fits"].append(record)
    try:
        return Composite("exposure", components, data_id={**_data_id(components), **(data_id or {})})
    except EncodeError as error:
        raise ConversionError(f"{where}: {error}") from error


def fits_bytes(composite: Composite) -> bytes:
    """Return the FITS file from which an exposure was converted, with the pixels that it has now.

    Parameters
    ----------
    composite : Composite
        What `read_exposure` returned, or what was stored of it.

    Returns
    -------
    bytes
        The same bytes as those of the original file, except for images that were tile-compressed: these come as
        plain images of the same pixels. ``astropy.io.fits.HDUList.fromstring`` makes HDUs of it.

    Raises
    ------
    AbsentComponentError, NoSuchComponentError
        If it wasn't converted from a FITS file, or lacks a plane that this had.
    """
    parts = [_header_bytes(composite["header"])]
    for record in composite["fits"]:
        parts.append(_header_bytes(record["header"]))
        parts.append(record["data"] if "data" in record else _data_bytes(composite[record["component"]].array))
    return b"".join(parts)


# ---- The file, verbatim -----------------------------------------------------------------------------------


@contextmanager
def _open_hdus(stream: IO[bytes], where: str) -> Iterator[fits.HDUList]:
    """Open a FITS file, check that HDUs make up all of it, and give every error that damage causes one name."""
    start = stream.read(len(MAGIC))
    if start != MAGIC:
        raise ConversionError(f"{where}: not a FITS file: it begins with {start!r}, not with {MAGIC!r}")
    with warnings.catch_warnings():
        # astropy warns of what is an error here, and of dates and units in old headers, which are kept as they are.
        warnings.simplefilter("ignore")
        try:
            with fits.open(stream, lazy_load_hdus=False, memmap=False) as hdus:
                last = len(hdus) - 1
                info = hdus.fileinfo(last)
                end, size = info["datLoc"] + info["datSpan"], os.fstat(stream.fileno()).st_size
                if end > size:
                    raise ConversionError(
                        f"{where}: truncated: HDU {last} should end at byte {end}, the file ends at {size}"
                    )
                if end < size:
                    raise ConversionError(
                        f"{where}: truncated or damaged: the {size - end} bytes after HDU {last} aren't an HDU"
                    )
                yield hdus
        except CompositeH5Error:
            raise
        except Exception as error:  # those of astropy for headers and tables that make no sense have no common base
            if isinstance(error, OSError) and error.errno:
                raise
            raise ConversionError(f"{where}: the FITS file is damaged, or makes no sense: {error}") from error


def _stored_header(stream: IO[bytes], hdus: fits.HDUList, index: int, where: str) -> str:
    """Return the cards of a header as they stand in the file, one per line."""
    info = hdus.fileinfo(index)
    stream.seek(info["hdrLoc"])
    text = stream.read(info["datLoc"] - info["hdrLoc"]).decode("latin-1")
    cards = [text[start : start + _CARD] for start in range(0, len(text), _CARD)]
    if not text.isascii() or not text.isprintable() or _END not in cards:
        raise ConversionError(f"{where}: the header of HDU {index} lacks END, or has characters that FITS forbids")
    end = cards.index(_END)
    if "".join(cards[end + 1 :]).strip():
        raise ConversionError(f"{where}: the header of HDU {index} goes on after END")
    return "\n".join(cards[:end])


def _verbatim(stream: IO[bytes], hdus: fits.HDUList, index: int, where: str) -> dict[str, Any]:
    """Return the record of an HDU, with all of its data."""
    info = hdus.fileinfo(index)
    header = _stored_header(stream, hdus, index, where)
    stream.seek(info["datLoc"])
    return {"header": header, "data": stream.read(info["datSpan"])}


def _header_bytes(cards: str) -> bytes:
    return _padded((cards.replace("\n", "") + _END).encode("ascii"), b" ")


def _data_bytes(pixels: NDArray[Any]) -> bytes:
    """Return pixels as the data of an image HDU."""
    kind, size = pixels.dtype.kind, pixels.dtype.itemsize
    if (kind, size) == ("i", 1) or (kind == "u" and size > 1):
        # FITS has no such type: it stores them with an offset (BZERO) of half their range.
        pixels = pixels ^ pixels.dtype.type(1 << (8 * size - 1) if kind == "u" else -128)
    return _padded(pixels.astype(pixels.dtype.newbyteorder(">")).tobytes(), b"\0")


def _padded(data: bytes, fill: bytes) -> bytes:
    return data + fill * (-len(data) % _BLOCK)


# ---- The planes of pixels ---------------------------------------------------------------------------------


def _find_planes(hdus: fits.HDUList, where: str) -> dict[str, int]:
    """Return the index of the HDU of each plane that the file has."""
    planes: dict[str, int] = {}
    seen = []
    for index, hdu in enumerate(hdus):
        kind = (_afw.text(hdu.header, "EXTTYPE") or _afw.text(hdu.header, "EXTNAME") or "").upper()
        seen.append(f"{index} {type(hdu).__name__} {kind}".rstrip())
        name = kind.lower()
        if index == 0 or not hdu.is_image or name not in _PLANES:
            continue
        if name in planes:
            raise ConversionError(f"{where}: HDUs {planes[name]} and {index} are both the {name}")
        planes[name] = index
    if "image" not in planes or _afw.integer(hdus[0].header, "NAXIS") != 0:
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
        if all(_afw.number(header, f"CRPIX{axis}A") == 1 for axis in (2, 1)):
            found[f"CRVAL of WCS A of the {name}"] = _corner(header, "CRVAL{}A", 1, where)
        if "LTV1" in header and "LTV2" in header:
            found[f"LTV of the {name}"] = _corner(header, "LTV{}", -1, where)
    if len(set(found.values())) > 1:
        raise ConversionError(f"{where}: keywords contradict each other on the origin (y0, x0): {found}")
    return next(iter(found.values()), (0, 0))


def _corner(header: fits.Header, key: str, sign: int, where: str) -> tuple[int, int]:
    values = [_afw.number(header, key.format(axis)) for axis in (2, 1)]
    if any(value is None or not value.is_integer() for value in values):
        raise ConversionError(f"{where}: {key.format('1')} and {key.format('2')} should be whole pixels, not {values}")
    y0, x0 = (sign * int(value) for value in values if value is not None)
    return y0, x0


def _unit(header: fits.Header) -> UnitBase | None:
    """Return the unit of the pixels; None if the header doesn't tell one that can be understood."""
    unit = Unit(_afw.text(header, "BUNIT") or "?", parse_strict="silent")
    return None if isinstance(unit, UnrecognizedUnit) else unit


def _wcs(header: fits.Header) -> WCS | None:
    """Return the WCS of the image; None if it has none of the sky."""
    wcs = WCS(header)
    return wcs if wcs.has_celestial else None


def _plane(
    name: str, hdu: Any, record: dict[str, Any], origin: tuple[int, int], unit: UnitBase | None, where: str
) -> Image | Mask:
    """Return a plane of pixels, and take what follows from it out of the record of its HDU."""
    record["component"] = name
    cards = hdu.header.tostring(sep="\n", endcard=False, padding=False)
    bits = {keyword.removeprefix("MP_"): bit for keyword, bit in hdu.header.items() if keyword.startswith("MP_")}
    try:
        pixels = hdu.data.astype(hdu.data.dtype.newbyteorder("="))
        if isinstance(hdu, fits.CompImageHDU):
            record |= {"header": cards, "compressed_header": record["header"]}
            del record["data"]
        elif record["data"] == _data_bytes(pixels):
            del record["data"]
        if name == "mask":
            return Mask(pixels, bits, origin)
        return Image(pixels, origin, unit if unit is None or name == "image" else unit**2)
    except EncodeError as error:
        raise ConversionError(f"{where}: the {name}: {error}") from error


def _data_id(components: dict[str, Any]) -> dict[str, Any]:
    """Return the part of the data ID that the file tells."""
    visit_info, detector = components["visit_info"] or {}, components["detector"] or {}
    found = {
        "instrument": visit_info.get("instrument"),
        "visit": visit_info.get("id"),
        "detector": detector.get("id"),
    }
    return {key: value for key, value in found.items() if value is not None}
