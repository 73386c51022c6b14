"""HDF5 types of the values that are stored, and which types of a file are read.

Types are looked at here, at the low level, before h5py turns them into numpy types: some types of a hostile file make
that step crash or run code of a plug-in.
"""

from __future__ import annotations

import mmap
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from math import prod
from typing import Any, Protocol

import h5py
import numpy as np
from h5py import h5a, h5s, h5t
from numpy.typing import NDArray

from ..errors import CompositeH5Error, CorruptFileError, EncodeError, FormatError, LimitError, RefusedError
from .limits import Limits
from .nodes import HIDDEN, AttrValue
from .source import ReadAt

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
    """Return UTF-8 bytes as text."""
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
    """Return the numpy type (``U``, ``S``, bool, numbers) of a type found in a file; refuse what has no place here."""
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


class OpenHDF5(Protocol):
    """What the objects of a file need of it: `reader.StoredFile`."""

    name: str
    limits: Limits

    def check_open(self, where: str) -> None:
        """Raise `ClosedError` if the file is closed."""

    @property
    def is_remote(self) -> bool:
        """Whether each separate read costs a request."""

    @property
    def read_at(self) -> ReadAt | None:
        """Reads bytes past HDF5; None where that can't be."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes from an offset, past HDF5."""

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch ranges (offset, size) of a remote file at once."""

    def mapped(self) -> mmap.mmap | None:
        """Return the file mapped into memory; None if it isn't on a disk."""


class StoredAttrs(Mapping[str, AttrValue]):
    """The attributes of an object; each is read when it is first asked for."""

    def __init__(self, file: OpenHDF5, oid: Any, where: str) -> None:
        self._file, self._oid, self._where = file, oid, where
        self._values: dict[str, AttrValue] = {}

    @cached_property
    def _encoded(self) -> frozenset[bytes]:
        """The names: asking for all of them at once takes no longer than asking for three, one by one."""
        self._file.check_open(self._where)
        names: list[bytes] = []
        with reading(self._where):
            if h5a.get_num_attrs(self._oid) > self._file.limits.attributes:
                raise LimitError(f"{self._where}: more than {self._file.limits.attributes} attributes")
            h5a.iterate(self._oid, names.append)
        return frozenset(names)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(checked_name(name, self._where) for name in self._encoded))

    def __len__(self) -> int:
        return len(self._encoded)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.encode() in self._encoded

    def __getitem__(self, name: str) -> AttrValue:
        if name not in self._values:
            encoded = name.encode()
            if encoded not in self._encoded:
                raise KeyError(name)
            self._file.check_open(self._where)
            with reading(self._where):
                limit = self._file.limits.attribute_bytes
                self._values[name] = _read_attr(h5a.open(self._oid, encoded), limit, f"{self._where}@{name}")
        return self._values[name]


def _read_attr(attr: h5a.AttrID, limit: int, where: str) -> AttrValue:
    tid, space = attr.get_type(), attr.get_space()
    dtype = checked_dtype(tid, where)
    if space.get_simple_extent_type() not in (h5s.SIMPLE, h5s.SCALAR):
        raise RefusedError(f"{where}: an empty dataspace isn't part of this format")
    shape = tuple(int(n) for n in space.get_simple_extent_dims()) if space.get_simple_extent_ndims() else ()
    is_text = dtype.kind in "US"
    size = tid.get_size()
    if prod(shape) * size > limit:
        raise LimitError(f"{where}: larger than {limit} bytes")
    values = np.empty(shape, f"S{size}" if is_text else dtype)
    if values.size:
        attr.read(values, tid)
    if is_text:
        # Text, also where it is ASCII.
        return decode_text(values, where) if shape else decode_one(values.item(), where)
    return values.item() if not shape and dtype.kind in "biuf" else values


def checked_name(name: bytes, where: str) -> str:
    """Return a name found in a file as text; refuse one that isn't UTF-8 or has characters that don't show."""
    try:
        text = name.decode()
    except UnicodeDecodeError as error:
        raise RefusedError(f"{where}: the name {name!r} isn't UTF-8") from error
    plain = text.isascii() and text.isprintable()
    if text in ("", ".", "..") or not (plain or HIDDEN.isdisjoint(map(unicodedata.category, text))):
        raise RefusedError(f"{where}: the name {text!r} has characters that hide what it is")
    return text


class reading:
    """Turns what HDF5 raises on a bad file into our own error that names the place.

    A class, since it is entered dozens of times for each file, and generators take longer.
    """

    __slots__ = ("_where",)

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, CompositeH5Error):
            return
        if isinstance(error, OSError | RuntimeError | ValueError | TypeError | KeyError):
            raise CorruptFileError(f"{self._where}: HDF5 can't read it, the file is damaged: {error}") from error
