"""The archive of an exposure of the LSST pipelines: objects that are kept in binary tables behind its images.

It is that of the package ``afw``, whose source ``InputArchive.cc`` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.units import Quantity

from ..box import Box
from ..errors import ConversionError
from . import _headers
from ._hdus import native


class Archive:
    """The objects that an exposure keeps in binary tables behind its images.

    The first of the tables is an index: for each object (by number) the rows that it has in the others. The header
    tells the number of each component's object.
    """

    def __init__(self, hdus: fits.HDUList, header: Mapping[str, Any], where: str) -> None:
        self._header, self._where = header, where
        self._tables: list[fits.BinTableHDU] = []
        self._rows: dict[int, list[tuple[int, int, int, int]]] = {}
        first = _headers.integer(header, "AR_HDU")  # counted from 1
        if not first:
            return
        index = hdus[first - 1] if 1 < first <= len(hdus) else None
        if not isinstance(index, fits.BinTableHDU) or _headers.text(index.header, "EXTTYPE") != "ARCHIVE_INDEX":
            raise ConversionError(
                f"{where}: keyword AR_HDU says that HDU {first - 1} (from 0) is the index of the archive, but it isn't"
            )
        length = _headers.integer(index.header, "AR_NCAT") or 0
        self._tables = hdus[first - 1 : first - 1 + length]
        if len(self._tables) < length or not all(isinstance(hdu, fits.BinTableHDU) for hdu in self._tables):
            raise ConversionError(f"{where}: the archive should be {length} tables from HDU {first - 1} on; some miss")
        rows = Table(index, slice(None), f"{where}: archive index")
        names = ["cat.persistable", "cat.archive", "row0", "nrows"]
        if names[0] not in rows:  # as it was first
            names = [name.replace(".", "_") for name in names]
        for number, *entry in zip(rows.column("id"), *map(rows.column, names), strict=True):
            self._rows.setdefault(int(number), []).append(tuple(map(int, entry)))  # type: ignore[arg-type]

    def find(self, name: str) -> list[Table]:
        """Return the tables of a component's object; none if there is no such object."""
        number = _headers.integer(self._header, f"ARCHIVE_ID_{name}") or _headers.integer(self._header, f"{name}_ID")
        return self.get(number) if number else []

    def get(self, number: int) -> list[Table]:
        """Return the tables of an object.

        Raises
        ------
        ConversionError
            If the archive has no object of that number.
        """
        if number not in self._rows:
            raise ConversionError(f"{self._where}: the archive has no object {number}, to which the file refers")
        tables = []
        for _, table, row, length in sorted(self._rows[number]):
            if not 0 < table < len(self._tables):
                raise ConversionError(f"{self._where}: object {number} of the archive is in a table that is missing")
            hdu = self._tables[table]
            where = f"{self._where}: archive table {table} ({_headers.text(hdu.header, 'AR_NAME')})"
            tables.append(Table(hdu, slice(row, row + length), where))
        return tables


class Table:
    """Some rows of a binary table."""

    def __init__(self, hdu: fits.BinTableHDU, rows: slice, where: str) -> None:
        self._hdu, self._rows, self._where = hdu, rows, where
        self.type = _headers.text(hdu.header, "AR_NAME")
        """Class of the objects in it."""
        column = _headers.integer(hdu.header, "FLAGCOL")
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
            items = [native(item) for item in items]
            return np.stack(items) if len({item.shape for item in items}) == 1 else items
        if values.dtype.kind in "US":
            return [str(item) for item in values]
        return native(np.asarray(values))

    def quantity(self, name: str) -> Any:
        """Return a column; one of floats as `~astropy.units.Quantity` if it has a unit."""
        values = self.column(name)
        if getattr(values, "dtype", None) != np.float64:
            return values
        unit = _headers.unit({"unit": self._hdu.columns[name].unit}, "unit")
        return values if unit is None else Quantity(values, unit)

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
