"""Tables in which the LSST pipelines keep objects in FITS files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.units import Quantity, Unit, UnrecognizedUnit

from ..box import Box
from ..errors import ConversionError
from . import _keywords


class Table:
    """Some rows of a binary table."""

    def __init__(self, hdu: fits.BinTableHDU, rows: slice, where: str) -> None:
        self._hdu, self._rows, self._where = hdu, rows, where
        self.type = _keywords.text(hdu.header, "AR_NAME")
        """Class of the objects in it."""
        column = _keywords.integer(hdu.header, "FLAGCOL")
        self._flag_column = hdu.columns.names[column - 1] if column else None
        self._flags = {name: int(key[5:]) - 1 for key, name in hdu.header["TFLAG*"].items()}

    def __iter__(self) -> Iterator[str]:
        return (name for name in [*self._hdu.columns.names, *self._flags] if name != self._flag_column)

    def __contains__(self, name: object) -> bool:
        return name in list(self)

    def column(self, name: str) -> Any:
        """Return a column: a list of text, an array, or a list of arrays whose shapes differ.

        Raises
        ------
        ConversionError
            If there is no such column.
        """
        if name not in self:
            raise ConversionError(f"{self._where}: there should be a column {name!r} (there are: {', '.join(self)})")
        if name in self._flags:
            return np.array(self._hdu.data[self._flag_column][self._rows, self._flags[name]])
        values = self._hdu.data[name][self._rows]
        if values.dtype == object:
            # astropy gives text of variable length as arrays of characters.
            items = [np.asarray(item) for item in values]
            if items and items[0].dtype.kind in "US":
                return ["".join(item.astype(str).tolist()) for item in items]
            items = [_native(item) for item in items]
            return np.stack(items) if len({item.shape for item in items}) == 1 else items
        if values.dtype.kind in "US":
            return [str(item) for item in values]
        return _native(np.asarray(values))

    def quantity(self, name: str) -> Any:
        """Return a column; one of floats as `~astropy.units.Quantity` if it has a unit."""
        values = self.column(name)
        if getattr(values, "dtype", None) != np.float64 or not (name_of_unit := self._hdu.columns[name].unit):
            return values
        unit = Unit(name_of_unit, parse_strict="silent")
        return values if isinstance(unit, UnrecognizedUnit) else Quantity(values, unit)

    def scalar(self, name: str) -> Any:
        """Return the value in the only row of a column of text or single numbers, as a Python object."""
        values = self.column(name)
        if len(values) != 1 or np.ndim(values) != 1:
            raise ConversionError(f"{self._where}: column {name!r} should hold one value")
        return values[0] if isinstance(values, list) else values[0].item()

    def box(self) -> Box:
        """Return the box of the columns ``bbox_min_x`` ..., whose upper limits are inclusive."""
        limits = [self.scalar(f"bbox_{end}_{axis}") for axis in "yx" for end in ("min", "max")]
        try:
            return Box(limits[0], limits[1] + 1, limits[2], limits[3] + 1)
        except (TypeError, ValueError) as error:
            raise ConversionError(f"{self._where}: {error}") from error


def _native(values: Any) -> Any:
    return values.astype(values.dtype.newbyteorder("="))
