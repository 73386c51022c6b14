"""Binary tables of FITS files as astropy tables, and back bit by bit.

Columns have the types of the standard (its section 7.3): unsigned integers where TZERO makes them, physical values
where TSCAL and TZERO scale, masked where there are undefined values. Units are TUNIT, descriptions TDOC or TCOMM, else
the comment of TTYPE. A column of bits that has names for them (keywords FLAGCOL and TFLAG, of the LSST pipelines)
becomes a column of bools for each.
"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits
from astropy.table import Column, MaskedColumn, Table
from numpy.typing import NDArray

from ..errors import ConversionError
from . import _headers
from ._hdus import flipped, native

# Offsets (TZERO) by which the standard makes other types of integers: their values have the first bit flipped.
_OFFSETS = {("B", -128): "i1", ("I", 1 << 15): "u2", ("J", 1 << 31): "u4", ("K", 1 << 63): "u8"}


class _Field(NamedTuple):
    """A column as it stands in the file."""

    number: int
    name: str
    key: str  # in the type of a row
    code: str
    bits: int
    scale: float
    zero: float
    null: int | None

    @property
    def integers(self) -> str | None:
        """The type of integers that TZERO makes; None if it makes none."""
        return _OFFSETS.get((self.code, int(self.zero))) if self.scale == 1 and self.zero else None


def read_table(record: dict[str, Any]) -> Table | None:
    """Return the table of an HDU, and take its data out of its record if they can be made again.

    Returns
    -------
    astropy.table.Table or None
        All columns but those of variable length. None if it is in a form that is not understood: such a table stays
        in the record.
    """
    try:
        # Not that of the HDU, in which astropy mends cards.
        header = _headers.from_cards(record["header"])
        fields, layout = _fields(header)
        rows = np.ndarray(header["NAXIS2"], layout, record["data"])
        flags = _flags(header)
        columns: list[Any] = []
        for field in fields:
            raw = rows[field.key]
            if flags and field.number == header["FLAGCOL"]:
                columns += [_flag(header, name, key, raw, bit) for key, (name, bit) in flags.items()]
            elif field.code not in "PQ":
                columns.append(_column(header, field, raw))
        if len({column.name for column in columns}) < len(columns):
            raise ConversionError("columns have the same name")
        table = Table(columns, copy=False)
        if header.get("PCOUNT", 0) == 0 and table_bytes(table, header) == record["data"]:
            del record["data"]
    except (ConversionError, fits.VerifyError, LookupError, ValueError, TypeError):
        return None
    return table


def table_bytes(table: Table, header: fits.Header) -> bytes:
    """Return the data of the binary table that a header describes.

    Parameters
    ----------
    table : astropy.table.Table
        What `read_table` returned, or with other values.
    header : astropy.io.fits.Header
        The header, which fixes the columns, their types, and the number of rows.

    Raises
    ------
    ConversionError
        If the columns aren't those of the header.
    """
    fields, layout = _fields(header)
    rows = np.zeros(header["NAXIS2"], layout)
    if len(table) != len(rows):
        raise ConversionError(f"the table has {len(table)} rows, but the header of its FITS file says {len(rows)}")
    flags = _flags(header)
    for field in fields:
        stored = rows[field.key]
        is_flags = bool(flags) and field.number == header["FLAGCOL"]
        names = [name for name, _ in flags.values()] if is_flags else [field.name]
        if missing := [name for name in names if name not in table.colnames]:
            raise ConversionError(f"the table lacks the column {missing[0]!r} that its FITS file has")
        if is_flags:
            bits = np.zeros((len(rows), 8 * stored.shape[1]), np.uint8)
            for name, bit in flags.values():
                bits[:, bit] = table[name]
            stored[:] = np.packbits(bits, axis=1)
        else:
            _store(table[field.name], field, stored)
    return _headers.padded(rows.tobytes())


def _fields(header: fits.Header) -> tuple[list[_Field], np.dtype[Any]]:
    """Return the columns that a header describes, and the type of a row as it stands in the file."""
    fields, columns = [], []
    for number in range(1, header["TFIELDS"] + 1):
        name = _headers.text(header, f"TTYPE{number}") or f"column_{number}"
        column = fits.Column(f"{number} {name}", str(header[f"TFORM{number}"]))
        code, repeat = column.format.format, column.format.repeat
        lengths = re.findall(r"\d+", str(header.get(f"TDIM{number}", "")))
        if lengths and code not in "PQX" and math.prod(map(int, lengths)) == repeat:
            column = fits.Column(column.name, column.format, dim=f"({','.join(lengths)})")
        scale, zero = header.get(f"TSCAL{number}", 1), header.get(f"TZERO{number}", 0)
        null = header.get(f"TNULL{number}") if code in "BIJK" else None
        fields.append(_Field(number, name, column.name, code, repeat, scale, zero, null))
        columns.append(column)
        if code == "A" and repeat == 0:
            raise ConversionError(f"column {name!r} has no characters")
    layout = fits.ColDefs(columns).dtype.newbyteorder(">")
    if layout.itemsize != header["NAXIS1"]:
        raise ConversionError(f"the columns are {layout.itemsize} bytes, a row is {header['NAXIS1']}")
    return fields, layout


def _flags(header: fits.Header) -> dict[str, tuple[str, int]]:
    """Return name and number of the named bits, by their keywords."""
    if "FLAGCOL" not in header:
        return {}
    return {key: (name, int(key[5:]) - 1) for key, name in header["TFLAG*"].items()}


def _flag(header: fits.Header, name: str, key: str, raw: NDArray[Any], bit: int) -> Column:
    values = (raw[:, bit // 8] >> (7 - bit % 8) & 1).astype(bool)
    return Column(values, name, description=_headers.text(header, f"TFDOC{key[5:]}") or header.comments[key] or None)


def _column(header: fits.Header, field: _Field, raw: NDArray[Any]) -> Column:
    """Return a column as physical values."""
    undefined: NDArray[np.bool_] | None = None
    values: NDArray[Any]
    if field.code == "L":
        values, undefined = raw == ord("T"), raw == 0
    elif field.code == "X":
        values = np.unpackbits(raw, axis=1, count=field.bits).astype(bool)
    elif field.code == "A":
        values = np.char.rstrip(np.char.decode(raw, "ascii"), " ")
    else:
        undefined = None if field.null is None else raw == field.null
        if field.integers:
            values = flipped(native(raw)).view(field.integers)
        elif (field.scale, field.zero) != (1, 0):
            values = raw * field.scale + field.zero
        else:
            values = native(raw)
    docs = [_headers.text(header, f"{key}{field.number}") for key in ("TDOC", "TCOMM")]
    if f"TTYPE{field.number}" in header:
        docs.append(header.comments[f"TTYPE{field.number}"])
    described = {
        "name": field.name,
        "unit": _headers.unit(header, f"TUNIT{field.number}"),
        "description": next(filter(None, docs), None),
    }
    if undefined is not None and undefined.any():
        return MaskedColumn(values, mask=undefined, **described)
    return Column(values, **described)


def _store(column: Any, field: _Field, stored: NDArray[Any]) -> None:
    """Store the values of a column as they should stand in the file."""
    masked = getattr(column, "mask", None)
    values = np.asarray(column.data.data if masked is not None else column.data)
    shape = stored.shape if field.code != "X" else (len(stored), field.bits)
    if values.shape != shape:
        raise ConversionError(f"column {field.name!r} has the shape {values.shape}, its FITS file has {shape}")
    if field.code == "L":
        values = np.where(values, ord("T"), ord("F"))
    elif field.code == "X":
        values = np.packbits(values.astype(np.uint8), axis=1)
    elif field.code == "A":
        values = np.char.encode(values, "ascii")
    elif field.integers:
        if values.dtype != field.integers:
            raise ConversionError(
                f"column {field.name!r} is of type {values.dtype}, its FITS file has {field.integers}"
            )
        values = flipped(values).view(stored.dtype.newbyteorder("="))
    elif (field.scale, field.zero) != (1, 0):
        values = (values - field.zero) / field.scale
        values = np.rint(values) if stored.dtype.kind in "iu" else values
    stored[...] = values.astype(stored.dtype)
    if masked is not None and np.any(masked):
        if field.code != "L" and field.null is None:
            raise ConversionError(f"column {field.name!r} has undefined values, for which its FITS file has no TNULL")
        stored[masked] = 0 if field.code == "L" else field.null
