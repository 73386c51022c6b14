"""Units as text: the one spelling that every kind stores."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..errors import EncodeError, FormatError

if TYPE_CHECKING:
    from astropy.units import UnitBase

# Longer than any unit of practice; it bounds the work of the parser on hostile text.
_MAX_LENGTH = 200
# The parser evaluates powers of integers exactly: "10**100000000 m" would keep it busy for minutes.
_HUGE_POWER = re.compile(r"\d\.?\s*(\*\*|\^|\(|[+-])[\s(+-]*\d{4}")


def unit_to_text(unit: UnitBase | str, path: str = "") -> str:
    """Return a unit, or text that astropy understands, in astropy's generic format: ``""`` if it is dimensionless.

    An `EncodeError`, which names ``path``, says that it is no unit, or that its text would not give an equal unit back
    (such as that of a user-defined unit).
    """
    from astropy.units import FunctionUnitBase, UnitBase

    where = f"{path}: " if path else ""
    if not isinstance(unit, str | UnitBase | FunctionUnitBase):
        raise EncodeError(f"{where}a unit should be an astropy unit or its name, not {unit!r}")
    try:
        parsed = _parse(str(unit))
        text = str(parsed)
        exact = _parse(text) == (parsed if isinstance(unit, str) else unit)
    except Exception as error:
        raise EncodeError(f"{where}unit {str(unit)[:_MAX_LENGTH]!r} can't be stored as text: {error}") from error
    if not exact:
        raise EncodeError(f"{where}unit {unit!r} can't be stored: its text {text!r} stands for another unit")
    return text


def unit_from_text(text: str, where: str) -> UnitBase:
    """Return the unit that a text of a file stands for; a `FormatError` names ``where`` if there is none."""
    try:
        return _parse(text)
    except Exception as error:
        raise FormatError(f"{where}: {text[:_MAX_LENGTH]!r} is not a unit: {error}") from error


def _parse(text: str) -> UnitBase:
    from astropy.units import StructuredUnit, Unit

    if len(text) > _MAX_LENGTH:
        raise ValueError(f"it has {len(text)} characters, more than {_MAX_LENGTH}")
    if _HUGE_POWER.search(text):
        raise ValueError("it holds a power of a number above 999")
    unit = Unit(text)
    if isinstance(unit, StructuredUnit):
        raise ValueError("it is a structure of several units")
    return unit
