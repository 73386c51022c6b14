"""The values of header keywords, for headers that may hold anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from astropy.io import fits
from astropy.units import Unit, UnitBase, UnrecognizedUnit


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


def unit(name: str | None) -> UnitBase | None:
    """Return the unit of a name; None if it isn't one that can be understood."""
    if name is None:
        return None
    # Older programs write the names of the standard in capitals.
    found = Unit("adu" if name == "ADU" else name, parse_strict="silent")
    return None if isinstance(found, UnrecognizedUnit) else found
