"""Headers of FITS files, which may hold anything: values of keywords, units, the WCS, and the cards as they stand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from astropy.io import fits
from astropy.units import Unit, UnitBase, UnrecognizedUnit
from astropy.wcs import WCS

from .. import kinds

CARD = 80
END = "END".ljust(CARD)
_BLOCK = 2880


def value(header: Mapping[str, Any], key: str) -> Any:
    """Return the value of a keyword; None if it is missing, undefined, or can't be parsed."""
    try:
        found = header.get(key)
    except (fits.VerifyError, ValueError):
        return None
    return None if isinstance(found, fits.card.Undefined) else found


def number(header: Mapping[str, Any], key: str) -> float | None:
    """Return a finite number, also from text (as old exposures have it); None if there is none."""
    try:
        found = float(value(header, key))
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def integer(header: Mapping[str, Any], key: str) -> int | None:
    """Return an integer; None if there is none."""
    found = value(header, key)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def text(header: Mapping[str, Any], key: str) -> str | None:
    """Return text that isn't blank; None if there is none."""
    found = value(header, key)
    return found.strip() or None if isinstance(found, str) else None


def unit(header: Mapping[str, Any], key: str = "BUNIT") -> UnitBase | None:
    """Return the unit of a keyword, by default that of pixels; None if there is none that can be understood."""
    if (name := text(header, key)) is None:
        return None
    # Older programs write the names of the standard in capitals.
    found = Unit("adu" if name == "ADU" else name, parse_strict="silent")
    return None if isinstance(found, UnrecognizedUnit) else found


def mask_bits(header: fits.Header) -> dict[str, Any]:
    """Return the bits of the planes of a mask."""
    return {keyword.removeprefix("MP_"): bit for keyword, bit in header.items() if keyword.startswith("MP_")}


def wcs(header: fits.Header) -> WCS | None:
    """Return the WCS of an image; None if it has none of the sky."""
    try:
        found = WCS(header)
    except KeyError:  # there are others, with a letter, only
        return None
    return found if found.has_celestial else None


def wcs_if_any(header: fits.Header, hdus: fits.HDUList) -> WCS | None:
    """Return the WCS of an image of any origin, with the tables to which its header refers.

    None if it has none of the sky, or one that astropy can't make sense of, or that can't be stored: the header is
    kept.
    """
    try:
        found = WCS(header, hdus)
        if not found.has_celestial:
            return None
        kinds.encode(found)
    except Exception:  # those of astropy and its wcslib have no common base
        return None
    return found


def from_cards(cards: str) -> fits.Header:
    """Return the header of cards, one per line."""
    return fits.Header.fromstring(cards, sep="\n")


def to_bytes(cards: str) -> bytes:
    """Return cards as the header of an HDU."""
    return padded((cards.replace("\n", "") + END).encode("ascii"), b" ")


def padded(data: bytes, fill: bytes = b"\0") -> bytes:
    """Return data filled up to whole blocks."""
    return data + fill * (-len(data) % _BLOCK)
