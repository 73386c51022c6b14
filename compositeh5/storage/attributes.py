"""Reading attributes and names of an HDF5 file, and telling where it is damaged."""

from __future__ import annotations

import mmap
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from math import prod
from typing import Any, Protocol

import numpy as np
from h5py import h5a, h5s

from ..errors import CompositeH5Error, CorruptFileError, LimitError, RefusedError
from .h5types import checked_dtype, decode_one, decode_text
from .limits import Limits
from .nodes import AttrValue
from .source import ReadAt

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of characters that don't show, or change how others show."""


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
    """Return a name found in a file as text.

    Raises
    ------
    RefusedError
        If it isn't UTF-8, or has characters that don't show.
    """
    try:
        text = name.decode()
    except UnicodeDecodeError as error:
        raise RefusedError(f"{where}: the name {name!r} isn't UTF-8") from error
    plain = text.isascii() and text.isprintable()
    if text in ("", ".", "..") or not (plain or _HIDDEN.isdisjoint(map(unicodedata.category, text))):
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
