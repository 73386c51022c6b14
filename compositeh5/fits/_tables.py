"""Binary tables of FITS files as astropy tables, and back bit by bit.

Columns have the types of the standard (its section 7.3): unsigned integers where TZERO makes them, physical values
where TSCAL and TZERO scale, masked where there are undefined values. Units are TUNIT, descriptions TDOC or TCOMM, else
the comment of TTYPE. A column of bits that has names for them (keywords FLAGCOL and TFLAG, of the LSST pipelines)
becomes a column of bools for each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Column, MaskedColumn, Table
from numpy.typing import NDArray

from ..errors import ConversionError
from . import _keywords
from ._hdus import cards_of, native, padded

_FORM = re.compile(r"(\d*)([LXBIJKAEDCMPQ])")
_TYPES = {"L": "u1", "X": "u1", "B": "u1", "A": "S", "P": ">i4", "Q": ">i8"} | {
    "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "C": ">c8", "M": ">c16",
}  # fmt: skip
# Offsets (TZERO) by which the standard makes other types of integers: their values have the first bit flipped.
_OFFSETS = {("B", -128): "i1", ("I", 1 << 15): "u2", ("J", 1 << 31): "u4", ("K", 1 << 63): "u8"}


@dataclass
class _Field:
    """A column of the file: its place in a row, and how its bytes are values."""

    number: int
    name: str
    code: str
    repeat: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    scale: float
    zero: float
    null: int | None

    @property
    def size(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.shape))

    @property
    def integers(self) -> str | None:
        """The type of integers that TZERO makes; None if it makes none."""
        return _OFFSETS.get((self.code, int(self.zero))) if self.scale == 1 and self.zero else None


def read_table(record: dict[str, Any]) -> Table | None:
    """Return a table, and take its data out of its record if they can be made again.

    Parameters
    ----------
    record : dict
        The record of the HDU of the table.

    Returns
    -------
    astropy.table.Table or None
        All columns but those of variable length. None if it is in a form that is not understood: such a table stays
        in the record.
    """
    try:
        # Not that of the HDU, in which astropy mends cards.
        header = cards_of(record["header"])
        fields, length = _fields(header), header["NAXIS2"]
        width = header["NAXIS1"]
        rows = np.frombuffer(record["data"], np.uint8, length * width).reshape(length, width)
        flags = _flags(header)
        columns: list[Any] = []
        for field in fields:
            if field.code in "PQ":
                continue
            raw = _raw(rows, field)
            if flags and field.number == header["FLAGCOL"]:
                columns += [_flag(header, name, key, raw, bit) for key, (name, bit) in flags.items()]
            else:
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
    length = header["NAXIS2"]
    if len(table) != length:
        raise ConversionError(f"the table has {len(table)} rows, but the header of its FITS file says {length}")
    rows = np.zeros((length, header["NAXIS1"]), np.uint8)
    flags = _flags(header)
    for field in _fields(header):
        is_flags = bool(flags) and field.number == header["FLAGCOL"]
        names = [name for name, _ in flags.values()] if is_flags else [field.name]
        if missing := [name for name in names if name not in table.colnames]:
            raise ConversionError(f"the table lacks the column {missing[0]!r} that its FITS file has")
        if is_flags:
            bits = np.zeros((length, 8 * field.size), np.uint8)
            for name, bit in flags.values():
                bits[:, bit] = table[name]
            raw = np.packbits(bits, axis=1)
        else:
            raw = _stored(table[field.name], field)
        rows[:, field.offset : field.offset + field.size] = np.frombuffer(raw.tobytes(), np.uint8).reshape(
            length, field.size
        )
    return padded(rows.tobytes())


def _fields(header: fits.Header) -> list[_Field]:
    """Return the columns that a header describes."""
    fields, offset = [], 0
    for number in range(1, header["TFIELDS"] + 1):
        form = _FORM.match(header[f"TFORM{number}"].strip())
        if form is None:
            raise ConversionError(f"column {number} has the format {header[f'TFORM{number}']!r}")
        repeat, code = int(form[1] or 1), form[2]
        shape: tuple[int, ...] = {"X": (-(-repeat // 8),), "P": (2 * repeat,), "Q": (2 * repeat,)}.get(code, (repeat,))
        dtype = np.dtype(_TYPES[code])
        lengths = tuple(map(int, re.findall(r"\d+", str(header.get(f"TDIM{number}", "")))))[::-1]
        if code == "A":
            *outer, width = lengths if lengths and np.prod(lengths) == repeat else (repeat,)
            shape, dtype = tuple(outer), np.dtype(f"S{width}")
            if not width:
                raise ConversionError(f"column {number} has no characters")
        elif lengths and code not in "PQX" and np.prod(lengths) == repeat:
            shape = lengths
        elif shape == (1,) and code != "X":
            shape = ()
        name = _keywords.text(header, f"TTYPE{number}") or f"column_{number}"
        scale, zero = header.get(f"TSCAL{number}", 1), header.get(f"TZERO{number}", 0)
        null = header.get(f"TNULL{number}") if code in "BIJK" else None
        fields.append(_Field(number, name, code, repeat, dtype, shape, offset, scale, zero, null))
        offset += fields[-1].size
    if offset != header["NAXIS1"]:
        raise ConversionError(f"the columns are {offset} bytes, a row is {header['NAXIS1']}")
    return fields


def _flags(header: fits.Header) -> dict[str, tuple[str, int]]:
    """Return name and number of the named bits, by their keywords."""
    if "FLAGCOL" not in header:
        return {}
    return {key: (name, int(key[5:]) - 1) for key, name in header["TFLAG*"].items()}


def _raw(rows: NDArray[np.uint8], field: _Field) -> NDArray[Any]:
    """Return what stands in the file of a column."""
    packed = np.ascontiguousarray(rows[:, field.offset : field.offset + field.size])
    return packed.reshape(-1).view(field.dtype).reshape(len(rows), *field.shape)


def _flag(header: fits.Header, name: str, key: str, raw: NDArray[Any], bit: int) -> Column:
    values = (raw[:, bit // 8] >> (7 - bit % 8) & 1).astype(bool)
    return Column(values, name, description=_keywords.text(header, f"TFDOC{key[5:]}") or header.comments[key] or None)


def _column(header: fits.Header, field: _Field, raw: NDArray[Any]) -> Column:
    """Return a column as physical values."""
    undefined: NDArray[np.bool_] | None = None
    values: NDArray[Any]
    if field.code == "L":
        values, undefined = raw == ord("T"), raw == 0
    elif field.code == "X":
        values = np.unpackbits(raw, axis=1, count=field.repeat).astype(bool)
    elif field.code == "A":
        values = np.char.rstrip(np.char.decode(raw, "ascii"), " ")
    else:
        undefined = None if field.null is None else raw == field.null
        if field.integers:
            values = raw.view(raw.dtype.str.replace("i", "u"))
            values = _flipped(native(values)).view(field.integers)
        elif (field.scale, field.zero) != (1, 0):
            values = raw * field.scale + field.zero
        else:
            values = native(raw)
    docs = [_keywords.text(header, f"{key}{field.number}") for key in ("TDOC", "TCOMM")]
    if f"TTYPE{field.number}" in header:
        docs.append(header.comments[f"TTYPE{field.number}"])
    described = {
        "name": field.name,
        "unit": _keywords.unit(_keywords.text(header, f"TUNIT{field.number}")),
        "description": next(filter(None, docs), None),
    }
    if undefined is not None and undefined.any():
        return MaskedColumn(values, mask=undefined, **described)
    return Column(values, **described)


def _stored(column: Any, field: _Field) -> NDArray[Any]:
    """Return what should stand in the file for the values of a column."""
    masked = getattr(column, "mask", None)
    values = np.asarray(column.data.data if masked is not None else column.data)
    shape = (len(values), *field.shape) if field.code != "X" else (len(values), field.repeat)
    if values.shape != shape:
        raise ConversionError(f"column {field.name!r} has the shape {values.shape}, its FITS file has {shape}")
    if field.code == "L":
        values = np.where(values, ord("T"), ord("F"))
    elif field.code == "X":
        return np.packbits(values.astype(np.uint8), axis=1)
    elif field.code == "A":
        values = np.char.encode(values, "ascii")
    elif field.integers:
        if values.dtype != field.integers:
            raise ConversionError(
                f"column {field.name!r} is of type {values.dtype}, its FITS file has {field.integers}"
            )
        values = _flipped(values.view(values.dtype.str.replace("i", "u")))
        values = values.view(values.dtype.str.replace("u", "i")) if field.code != "B" else values
    elif (field.scale, field.zero) != (1, 0):
        values = (values - field.zero) / field.scale
        values = np.rint(values) if field.dtype.kind in "iu" else values
    stored = values.astype(field.dtype)
    if masked is not None and np.any(masked):
        if field.code != "L" and field.null is None:
            raise ConversionError(f"column {field.name!r} has undefined values, for which its FITS file has no TNULL")
        stored[masked] = 0 if field.code == "L" else field.null
    return stored


def _flipped(values: NDArray[Any]) -> NDArray[Any]:
    flipped: NDArray[Any] = values ^ values.dtype.type(1 << (8 * values.dtype.itemsize - 1))
    return flipped
