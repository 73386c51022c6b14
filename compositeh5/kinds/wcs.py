"""Kind ``wcs``: an `astropy.wcs.WCS`, exactly.

The component is the text of the FITS header cards of the WCS, whose numbers have as many digits as it takes to
tell them from their neighbours, so that the text alone gives every bit back. The WCS maps the indices of the image's
array, which start from 0, not parent coordinates.

The cards are written here, from what astropy shows of wcslib's parameters: wcslib itself turns all forms of the linear
part into one, leaves out what it takes for a default, and writes other cards in other versions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isfinite, isnan
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EncodeError, FormatError
from ..storage.nodes import Array, ArrayNode, AttrValue, Group, GroupNode, Node

if TYPE_CHECKING:
    from astropy.wcs import WCS, DistortionLookupTable, Wcsprm

VERSION = 1

_TABLES = ("cpdis1", "cpdis2", "det2im1", "det2im2")
_TABLE_ATTRS = ("crpix", "crval", "cdelt")
_SIP = ("a", "b", "ap", "bp")

# What is read: astropy and wcslib allocate and loop as a text tells them, without limits of their own.
_MAX_LENGTH = 2**20
_MAX_CARDS = 10_000
_MAX_AXES = 32
_MAX_SIP_ORDER = 20
_LONGEST_NAME = 255
_CARD = re.compile(r"([A-Z][A-Z0-9_-]*) *= +('(?:[ -&(-~]|'')*'|[+-]?\d+(?:\.\d+)?(?:E[+-]?\d+)?)")
# Distortions that aren't told by the header alone; never written.
_DISTORTION = re.compile(r"C[PQ](DIS|ERR)\d|D2IM|D[PQ]\d|WAT\d|AXISCORR")

# Keywords that set the attribute of `astropy.wcs.Wcsprm` of the same name (in lower case, without hyphens): of each
# axis, of each alternate WCS of a header, and of the header; the last ones set attributes of `Wcsprm.aux`.
_OF_AXES = ("CNAME", "CRDER", "CSYER", "CZPHS", "CPERI")
_OF_WCS = ("LONPOLE", "LATPOLE", "EQUINOX", "RADESYS", "RESTFRQ", "RESTWAV", "SPECSYS", "SSYSOBS", "SSYSSRC",
           "VELOSYS", "VELANGL", "ZSOURCE")  # fmt: skip
_OF_HEADER = ("VELREF", "TIMESYS", "TIMEUNIT", "TREFPOS", "TREFDIR", "PLEPHEM", "DATEREF", "TIMEOFFS",
              "DATE-OBS", "DATE-BEG", "DATE-AVG", "DATE-END", "MJD-OBS", "MJD-BEG", "MJD-AVG", "MJD-END",
              "JEPOCH", "BEPOCH", "TSTART", "TSTOP", "XPOSURE", "TELAPSE", "TIMSYER", "TIMRDER", "TIMEDEL",
              "TIMEPIXR", "OBSORBIT")  # fmt: skip
_OF_AUX = ("RSUN_REF", "DSUN_OBS", "CRLN_OBS", "HGLN_OBS", "HGLT_OBS", "A_RADIUS", "B_RADIUS", "C_RADIUS",
           "BLON_OBS", "BLAT_OBS", "BDIS_OBS")  # fmt: skip
_MJDREF = ("MJDREFI", "MJDREFF")
_OBSGEO = ("OBSGEO-X", "OBSGEO-Y", "OBSGEO-Z", "OBSGEO-L", "OBSGEO-B", "OBSGEO-H")
# Of these alone, 0 means that they aren't given; the others have NaN or an empty text.
_ZERO_IF_UNSET = ("RESTFRQ", "RESTWAV", "VELREF")


def coerce(value: Any) -> WCS:
    """Return the value, which must be an `astropy.wcs.WCS`."""
    from astropy.wcs import WCS

    if not isinstance(value, WCS):
        raise EncodeError(f"expected an astropy.wcs.WCS, found {type(value).__name__}")
    return value


def encode(value: WCS) -> Array | Group:
    """Return the node of a WCS, having decoded it and found every part the same; an `EncodeError` tells which isn't.

    Units are those into which wcslib converts them (degrees, metres, ...).
    """
    if any(ctype.endswith("-TAB") for ctype in value.wcs.ctype) or value.wcs.wtb:
        raise EncodeError("wcs: coordinates looked up in a table (-TAB) can't be stored: the table isn't in the header")
    if getattr(value, "_preserve_units", False):
        raise EncodeError("wcs: one made with preserve_units=True can't be stored exactly; make it without")
    try:
        node = _encode(value)
        difference = _difference(value, node)
    except EncodeError:
        raise
    except Exception as error:  # astropy and wcslib raise whatever comes up
        raise EncodeError(f"wcs: can't be stored as FITS header cards: {error}") from error
    if difference:
        raise EncodeError(f"wcs: can't be stored exactly: {difference}")
    return node


def decode(node: Node) -> WCS:
    """Return the WCS of a node."""
    group = node if isinstance(node, GroupNode) else Group({"header": node}, where=node.where)
    header = group.array("header", 0, "U")
    if header.nbytes > 4 * _MAX_LENGTH:
        raise FormatError(f"{header.where}: should be a text of at most {_MAX_LENGTH} characters")
    tables = {name: group.array(name, 2, "f") for name in _TABLES if name in group}
    sip_crpix, bounds = (node.attr(name, np.ndarray, None) for name in ("sip_crpix", "pixel_bounds"))
    text = str(header.read())
    try:
        wcs = _parse(text)
        for name, table in tables.items():
            setattr(wcs, name, _decode_table(table))
        if sip_crpix is not None:
            if wcs.sip is None:
                raise FormatError(f"{node.where}: there are no SIP coefficients of order 2 or more for 'sip_crpix'")
            wcs.sip = _sip_at(wcs.sip, sip_crpix)
        if bounds is not None:
            wcs.pixel_bounds = [None if np.isnan(low) else (low, high) for low, high in bounds.tolist()]
    except FormatError:
        raise
    except Exception as error:  # astropy and wcslib raise whatever comes up
        raise FormatError(f"{node.where}: it can't be read as a WCS: {error}") from error
    return wcs


def shift(wcs: WCS, y0: int, x0: int, shape: tuple[int, int]) -> WCS:
    """Return the WCS of a part of the image: the same sky for the same pixels, distortions and limits included.

    The part begins at index (y0, x0) of the last two axes of the image's array, and has ``shape`` rows and columns,
    which becomes the ``array_shape`` of the result. A `ValueError` says that the WCS has fewer than two pixel axes.
    """
    if wcs.naxis < 2:
        raise ValueError(f"a WCS of {wcs.naxis} pixel axis has no rows and columns")
    start = np.array([index(x0), index(y0)], np.float64)
    new = wcs.deepcopy()
    new.wcs.crpix = wcs.wcs.crpix - np.pad(start, (0, wcs.naxis - 2))
    if wcs.sip is not None:
        new.sip = _sip_at(wcs.sip, wcs.sip.crpix - start)
    for table in filter(None, (getattr(new, name) for name in _TABLES)):
        table.crval = np.asarray(table.crval) - start
    whole = wcs.pixel_shape or (0,) * wcs.naxis
    new.pixel_shape = (index(shape[1]), index(shape[0]), *whole[2 : wcs.naxis])
    if wcs.pixel_bounds is not None:
        moved = [
            None if limits is None else tuple(limit - first for limit in limits)
            for limits, first in zip(wcs.pixel_bounds[:2], start.tolist(), strict=True)
        ]
        new.pixel_bounds = [*moved, *wcs.pixel_bounds[2:]]
    return new


def _encode(value: WCS) -> Array | Group:
    wcs = value.deepcopy()
    wcs.wcs.set()
    text = "\n".join(_cards(wcs))
    attrs: dict[str, AttrValue] = {}
    if wcs.sip is not None and wcs.sip.crpix.tobytes() != wcs.wcs.crpix.tobytes():
        attrs["sip_crpix"] = np.array(wcs.sip.crpix)
    if wcs.pixel_bounds is not None:
        attrs["pixel_bounds"] = np.array(
            [(np.nan, np.nan) if limits is None else limits for limits in wcs.pixel_bounds], np.float64
        )
    tables = {name: getattr(wcs, name) for name in _TABLES if getattr(wcs, name) is not None}
    if not tables:
        return Array(np.array(text), attrs)
    return Group({"header": Array(np.array(text)), **{n: _encode_table(t) for n, t in tables.items()}}, attrs)


def _cards(wcs: WCS) -> Iterator[str]:
    """Yield the header cards of a WCS that has been set up."""
    prm, alt = wcs.wcs, wcs.wcs.alt.strip()
    yield _card(f"WCSAXES{alt}", prm.naxis)
    for keyword in ("CRPIX", "CRVAL"):
        for i, value in enumerate(getattr(prm, keyword.lower()), 1):
            yield _card(f"{keyword}{i}{alt}", value)
    yield from _linear_cards(prm, alt)
    yield from _wcslib_cards(prm)
    for keyword, value in _parameters(prm, alt):
        if _is_given(keyword, value):
            yield _card(keyword, value)
    for i, length in enumerate(wcs.pixel_shape or (), 1):
        yield _card(f"NAXIS{i}", length)
    for name in _SIP if wcs.sip is not None else ():
        coefficients = getattr(wcs.sip, name)
        if coefficients is not None:
            yield _card(f"{name.upper()}_ORDER", len(coefficients) - 1)
            for (i, j), value in np.ndenumerate(coefficients):
                # The header has no place for a coefficient above the order; -0.0 doesn't need one.
                if value != 0 or (_differs(value, 0.0) and i + j < len(coefficients)):
                    yield _card(f"{name.upper()}_{i}_{j}", value)


def _linear_cards(prm: Wcsprm, alt: str) -> Iterator[str]:
    """Yield the cards of the linear transformation in the form in which it was given."""
    if prm.has_pc():
        for (i, j), value in np.ndenumerate(prm.pc):
            if _differs(value, float(i == j)):
                yield _card(f"PC{i + 1}_{j + 1}{alt}", value)
    if prm.has_cd():
        for (i, j), value in np.ndenumerate(prm.cd):
            yield _card(f"CD{i + 1}_{j + 1}{alt}", value)
    else:
        for i, value in enumerate(prm.cdelt, 1):
            yield _card(f"CDELT{i}{alt}", value)
    if prm.has_crota():
        for i, value in enumerate(prm.crota, 1):
            yield _card(f"CROTA{i}", value)


def _wcslib_cards(prm: Wcsprm) -> Iterator[str]:
    """Yield the cards of types, units and projections: once it is set up, only wcslib knows what they were."""
    from astropy.io.fits import Card
    from astropy.wcs import WCSHDO_EFMT, WCSHDO_P17, WCSHDO_all

    text = prm.to_header(WCSHDO_all | WCSHDO_P17 | WCSHDO_EFMT)
    for start in range(0, len(text), 80):
        card = Card.fromstring(text[start : start + 80])
        if _DISTORTION.match(card.keyword):
            raise EncodeError(f"wcs: its distortion can't be stored: {str(card).strip()}")
        if card.keyword.startswith(("CTYPE", "CUNIT", "PV", "PS")):
            yield _card(card.keyword, card.value)


def _parameters(prm: Wcsprm, alt: str) -> Iterator[tuple[str, Any]]:
    """Yield the keywords and values of all other parameters, also those that aren't given."""
    for keyword in _OF_AXES:
        for i, value in enumerate(getattr(prm, keyword.lower()), 1):
            yield f"{keyword}{i}{alt}", value
    yield f"WCSNAME{alt}", prm.name
    for keyword in _OF_WCS:
        yield f"{keyword}{alt}", getattr(prm, keyword.lower())
    for keyword in _OF_HEADER:
        yield keyword, getattr(prm, keyword.replace("-", "").lower())
    yield from zip(_MJDREF, prm.mjdref, strict=True)
    yield from zip(_OBSGEO, prm.obsgeo, strict=True)
    for keyword in _OF_AUX:
        yield keyword, getattr(prm.aux, keyword.lower(), None)


def _is_given(keyword: str, value: Any) -> bool:
    if keyword.startswith(_ZERO_IF_UNSET):
        return bool(value != 0)
    return value is not None and value != "" and not (isinstance(value, float) and isnan(value))


def _differs(value: float, default: float) -> bool:
    # Also 0.0 and -0.0 differ.
    return repr(float(value)) != repr(default)


def _card(keyword: str, value: str | int | float | None) -> str:
    if isinstance(value, str):
        text = "'" + value.replace("'", "''").ljust(8) + "'"
    elif isinstance(value, int | np.integer):
        text = f"{value:20d}"
    elif isinstance(value, float) and isfinite(value):
        text = f"{float(value)!r:>20}".upper()
    else:
        raise EncodeError(f"wcs: a FITS header can't hold {keyword} = {value}")
    return f"{keyword:8}= {text}"


def _parse(text: str) -> WCS:
    from astropy.io.fits import Header
    from astropy.wcs import WCS

    lines = text.split("\n")
    _check(lines)
    header: Any = "".join(line.ljust(80) for line in lines)
    if "/" in header[:_LONGEST_NAME] or len(header) <= _LONGEST_NAME:
        # WCS takes text for the path of a file if there is one. It needs a third less time for text than for a Header.
        header = Header.fromstring(header)
    # The letter of an alternate WCS follows after the keyword of the first card.
    return WCS(header, key=text[7], fix=False)


def _check(lines: list[str]) -> None:
    """Raise ValueError unless these are cards as `encode` writes them, which ask for nothing out of bounds."""
    if len(lines) > _MAX_CARDS or not lines[0].startswith("WCSAXES"):
        raise ValueError(f"it should be at most {_MAX_CARDS} cards, with WCSAXES first")
    for line in lines:
        match = _CARD.fullmatch(line) if len(line) <= 80 and line[8:10] == "= " else None
        if match is None or _DISTORTION.match(line) or line.startswith("NAXIS "):
            raise ValueError(f"the card {line[:80]!r} is not expected")
        keyword, value = match.groups()
        limit = _MAX_AXES if keyword.startswith("WCSAXES") else _MAX_SIP_ORDER if keyword.endswith("_ORDER") else None
        if limit is not None and not (value.isdecimal() and int(value) <= limit):
            raise ValueError(f"{keyword} should be an integer up to {limit}, not {value}")
        if not value.startswith("'") and not isfinite(float(value)):
            raise ValueError(f"{keyword} is not finite")


def _sip_at(sip: Any, crpix: NDArray[np.float64]) -> Any:
    """Return the same SIP coefficients with another reference pixel."""
    from astropy.wcs import Sip

    return Sip(*(getattr(sip, name) for name in _SIP), crpix)


def _encode_table(table: DistortionLookupTable) -> Array:
    return Array(table.data, {name: np.array(getattr(table, name), np.float64) for name in _TABLE_ATTRS})


def _decode_table(node: ArrayNode) -> DistortionLookupTable:
    from astropy.wcs import DistortionLookupTable

    if 0 in node.shape:
        raise FormatError(f"{node.where}: a table of distortions can't be empty")
    vectors = [node.attr(name, np.ndarray) for name in _TABLE_ATTRS]
    return DistortionLookupTable(np.asarray(node.read(), np.float32), *(tuple(v.tolist()) for v in vectors))


def _difference(value: WCS, node: Array | Group) -> str:
    """Return what differs between a WCS and what its node is decoded to; an empty text if nothing does."""
    decoded = decode(node)
    before, after = list(_parts(node)), list(_parts(_encode(decoded)))
    for name, content in before:
        if (name, content) not in after:
            return f"{name} doesn't come back"
    if before != after:
        return f"more comes back than was stored: {[name for name, _ in after]}"
    wcs = value.deepcopy()
    wcs.wcs.set()
    for prm in (wcs.wcs, decoded.wcs):
        _ = prm.aux  # wcslib would take it for a difference that these parameters are allocated in only one of them
    if not wcs.wcs.compare(decoded.wcs):
        return "wcslib finds a difference in a parameter that it doesn't write into headers"
    # Some distortions show in nothing but the transformation itself.
    pixels = wcs.wcs.crpix + np.array([[0.0], [1.0], [-57.25], [300.5]])
    if wcs.all_pix2world(pixels, 1).tobytes() != decoded.all_pix2world(pixels, 1).tobytes():
        return "it has a distortion that wcslib doesn't write into headers"
    return ""


def _parts(node: Array | Group) -> Iterator[tuple[str, bytes]]:
    """Yield the parts of a node: what to call each, and its content."""
    for name, attr in node.attrs.items():
        yield f"{name} {attr}", np.asarray(attr).tobytes()
    for name, child in node.items() if isinstance(node, Group) else [("header", node)]:
        assert isinstance(child, Array)
        if name == "header":
            yield from ((card, b"") for card in str(child.data).split("\n"))
        else:
            yield name, child.data.tobytes() + b"".join(np.asarray(attr).tobytes() for attr in child.attrs.values())
