"""HDF5 types of the values that are stored, and which types of a file are read.

Types are looked at here, at the low level, before h5py turns them into numpy types: some types of a hostile file make
that step crash or run code of a plug-in.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from h5py import h5t
from numpy.typing import NDArray

from ..errors import EncodeError, FormatError, RefusedError

SCALAR = "scalar"
"""Attribute that marks a large 0-d text: it has one axis of length 1 in the file, since only such can be compressed."""

_NUMBERS = {np.dtype(name) for name in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")}

_READ: dict[tuple[int, int], list[tuple[h5py.h5t.TypeID, np.dtype[Any]]]] = {}
"""The types of numbers that are read, in both byte orders, by class and size."""
for _number in _NUMBERS:
    for _dtype in (_number, _number.newbyteorder()):
        _tid = h5t.py_create(_dtype)
        _READ.setdefault((_tid.get_class(), _tid.get_size()), []).append((_tid, _dtype))


def text_type(size: int, ascii_only: bool = False) -> h5py.h5t.TypeStringID:
    """Return the type of null-terminated text of at most ``size`` bytes."""
    tid = h5t.C_S1.copy()
    tid.set_size(size + 1)
    tid.set_strpad(h5t.STR_NULLTERM)
    tid.set_cset(h5t.CSET_ASCII if ascii_only else h5t.CSET_UTF8)
    return tid


def to_stored(values: NDArray[Any], where: str) -> tuple[NDArray[Any], h5py.h5t.TypeID]:
    """Return the values as they are written (text as UTF-8 bytes), and their HDF5 type.

    Text (``U``) becomes null-terminated UTF-8 of fixed length, byte strings (``S``) null-padded ASCII-typed
    strings, bool HDF5's customary enum of int8, complex numbers a compound of ``r`` and ``i``.

    Raises
    ------
    EncodeError
        If there is no portable type for the values, or text holds U+0000 or lone surrogates.
    """
    dtype = values.dtype
    if dtype.kind == "U":
        encoded = encode_text(values, where)
        padded = encoded.astype(f"S{encoded.dtype.itemsize + 1}")
        return padded, text_type(encoded.dtype.itemsize)
    if dtype.kind == "S":
        tid = h5t.C_S1.copy()
        tid.set_size(max(1, dtype.itemsize))
        tid.set_strpad(h5t.STR_NULLPAD)
        return values.astype("S1") if dtype.itemsize == 0 else values, tid
    if dtype.kind == "b" or dtype.newbyteorder("=") in _NUMBERS:
        return values, h5t.py_create(dtype, logical=True)
    raise EncodeError(
        f"{where}: values of type {dtype} have no portable HDF5 type; "
        f"use integers or floats of up to 64 bits, complex of up to 128, bool or strings"
    )


def encode_text(values: NDArray[Any], where: str) -> NDArray[np.bytes_]:
    """Return text as UTF-8 bytes (``S``) of the smallest common length, which is at least 1."""
    if values.dtype.kind != "U":
        raise EncodeError(f"{where}: expected text, found {values.dtype}")
    if values.dtype.itemsize == 0 or values.size == 0:
        return np.zeros(values.shape, "S1")
    points = np.ascontiguousarray(values).view(np.uint32).reshape(*values.shape, -1)
    # numpy pads with zeros at the end, so a zero before a character can only be U+0000.
    if ((points[..., :-1] == 0) & (points[..., 1:] != 0)).any():
        raise EncodeError(f"{where}: text with U+0000 can't be stored: HDF5 strings end there; use bytes")
    try:
        encoded: NDArray[np.bytes_] = np.char.encode(values, "utf-8")
    except UnicodeEncodeError as error:
        raise EncodeError(f"{where}: text can't be encoded as UTF-8: {error}") from error
    return encoded if encoded.dtype.itemsize else np.zeros(values.shape, "S1")


def decode_text(values: NDArray[np.bytes_], where: str) -> NDArray[np.str_]:
    """Return UTF-8 bytes as text.

    Raises
    ------
    FormatError
        If the bytes aren't UTF-8.
    """
    if values.shape == ():
        return np.array(decode_one(values.item(), where))
    try:
        return np.char.decode(values, "utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(error, where) from error


def decode_one(value: bytes, where: str) -> str:
    """Return the text of one element; see `decode_text`."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise _not_utf8(error, where) from error


def _not_utf8(error: UnicodeDecodeError, where: str) -> FormatError:
    return FormatError(f"{where}: text is not valid UTF-8: {error}")


def checked_dtype(tid: h5py.h5t.TypeID, where: str) -> np.dtype[Any]:
    """Return the numpy type of a type found in a file: ``U`` for text, ``S`` for byte strings, else numbers.

    Raises
    ------
    RefusedError
        If it isn't one of the types that this format stores.
    """
    kind = tid.get_class()
    if kind == h5t.STRING:
        if tid.is_variable_str():
            raise RefusedError(f"{where}: variable-length text isn't read: its bytes have no checksum")
        # UTF-8 takes at least a byte a character, so this is wide enough.
        size = tid.get_size()
        return np.dtype(f"U{size}") if tid.get_cset() == h5t.CSET_UTF8 else np.dtype(f"S{size}")
    if kind == h5t.ENUM:
        members = [tid.get_member_name(i) for i in range(tid.get_nmembers())]
        if tid.get_super().get_size() == 1 and members == [b"FALSE", b"TRUE"]:
            return np.dtype(bool)
    else:
        # Only what is exactly one of these: h5py maps types with odd precision or offset to the nearest one.
        for known, dtype in _READ.get((kind, tid.get_size()), ()):
            if tid.equal(known):
                return dtype
    raise RefusedError(
        f"{where}: its HDF5 type (class {kind}, {tid.get_size()} bytes) isn't one that this format stores"
    )
