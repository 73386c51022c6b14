"""Reading a file in a process of its own, for files that may be made to break HDF5.

What the process (`isolated_process`) says is taken as hostile: types, shapes and sizes are checked, and values are
decoded here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import errors
from ..errors import CompositeH5Error, ConfigurationError, IsolationError
from ..recipes import Recipe
from .attributes import checked_name
from .files import FileArray, FileGroup, OpenFile
from .h5types import decode_text
from .isolated_process import IsolatedProcess
from .limits import LIMITS, Limits
from .nodes import AttrValue, ExternalLink, Node, Selection
from .source import check_signature
from .wire import WINDOW, checked_dtype, checked_shape, decoded_attr

PIECE = 8 * 1024 * 1024
"""Arrays are asked for in pieces of at most this; larger ones take longer, for they don't stay in a cache."""


class IsolatedFile(OpenFile):
    """An HDF5 file that is read in a process of its own; see `OpenFile`."""

    isolated = True

    largest: int
    """Bytes that an array may have: so many of those of the file can become, at most."""

    def __init__(self, source: Any, name: str, limits: Limits = LIMITS) -> None:
        super().__init__(source, name, limits)
        check_signature(source, name)
        self.largest = int(source.seek(0, os.SEEK_END)) * limits.ratio + limits.attribute_bytes
        self.process = IsolatedProcess(source, name, limits)
        try:
            self._root: Node | None = self.node("/")
            self._all.add(self)
        except BaseException:
            self.process.stop()
            raise

    @property
    def root(self) -> IsolatedGroup:
        self.check_open(self.name)
        assert isinstance(self._root, IsolatedGroup)
        return self._root

    def _release(self) -> None:
        self.process.stop()
        # It refers to the file, which would wait for the garbage collector.
        self._root = None

    def node(self, path: str) -> Node:
        """Return what is at a path.

        Raises
        ------
        KeyError
            If there is nothing.
        IsolationError
            If the process that reads the file says things that can't be.
        CompositeH5Error
            If what is there can't be read.
        """
        found = self.process.ask({"ask": "node", "path": path})
        with checking(self.name):
            if "link" in found:
                file, target = found["link"]
                return ExternalLink(str(file), str(target), where=f"{self.name}:{path}")
            kind = IsolatedArray if "shape" in found else IsolatedGroup
            return kind(self, path, found)


class checking:
    """Turns what a process says that can't be into our own error."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        is_ours = isinstance(error, CompositeH5Error) and not isinstance(error, ConfigurationError)
        if isinstance(error, ValueError | TypeError | LookupError | AttributeError) and not is_ours:
            raise IsolationError(
                f"{self._where}: the process that reads it gave an answer that makes no sense: {error}"
            ) from None


class _Attrs(Mapping[str, AttrValue]):
    """The attributes of an object as they were told; each may be an error instead."""

    def __init__(self, file: IsolatedFile, told: Any, where: str) -> None:
        self._file, self._where = file, where
        self._told = told
        for name in told.get("value", {}):
            checked_name(name.encode(), where)

    def _known(self) -> dict[str, Any]:
        return self._file.process.value_of(self._told)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._known()))

    def __len__(self) -> int:
        return len(self._known())

    def __contains__(self, name: object) -> bool:
        return name in self._known()

    def __getitem__(self, name: str) -> AttrValue:
        told = self._known()[name]
        with checking(f"{self._where}@{name}"):
            return decoded_attr(self._file.process.value_of(told))


class IsolatedGroup(FileGroup):
    """A group of a file that is read in a process of its own."""

    file: IsolatedFile

    def __init__(self, file: IsolatedFile, path: str, told: dict[str, Any]) -> None:
        self.file, self.path = file, path
        self.where = f"{file.name}:{path}"
        self.attrs = _Attrs(file, told["attrs"], self.where)
        self._told_names = told["names"]
        self._opened: dict[str, Node] = {}

    @cached_property
    def _names(self) -> tuple[str, ...]:
        with checking(self.where):
            names = self.file.process.value_of(self._told_names)
            return tuple(checked_name(name.encode(), self.where) for name in names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> Node:
        self.file.check_open(self.where)
        if name not in self._opened:
            if "/" in name or name in ("", ".", ".."):
                raise KeyError(name)
            self._opened[name] = self.file.node(f"{self.path.rstrip('/')}/{name}")
        return self._opened[name]

    def soft_target(self, name: str) -> str | None:
        self.file.check_open(self.where)
        target = self.file.process.ask({"ask": "soft target", "path": self.path, "name": name})
        return None if target is None else str(target)


class IsolatedArray(FileArray):
    """A dataset of a file that is read in a process of its own."""

    file: IsolatedFile

    def __init__(self, file: IsolatedFile, path: str, told: dict[str, Any]) -> None:
        self.file, self.path = file, path
        self.where = f"{file.name}:{path}"
        self.attrs = _Attrs(file, told["attrs"], self.where)
        self._shape = checked_shape(told["shape"])
        self._sent_dtype = checked_dtype(told["dtype"])
        self._is_text = bool(told["text"])
        if self._is_text and self._sent_dtype.kind != "S":
            raise ValueError("text should be byte strings")
        self._chunks = self._parts(told["chunks"])
        (self.stored_bytes,) = checked_shape([told["stored"]])
        self._recipe = None
        if told["recipe"] is not None:
            recipe = told["recipe"]
            self._recipe = Recipe(**{**recipe, "chunks": checked_shape(recipe["chunks"])})
        # The reader has refused what isn't backed by bytes, if it is still ours.
        if self.nbytes > file.largest * (4 if self._is_text else 1):
            raise ValueError(f"an array of {self.nbytes} bytes isn't backed by those of the file")

    def _parts(self, told: Any) -> tuple[int, ...] | None:
        if told is None:
            return None
        parts = checked_shape(told)
        # That of a single text has one axis more.
        if len(parts) != max(len(self._shape), 1) or 0 in parts:
            raise ValueError(f"{parts} are no parts of {self._shape}")
        return parts

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"U{max(self._sent_dtype.itemsize - 1, 1)}") if self._is_text else self._sent_dtype

    @property
    def chunks(self) -> tuple[int, ...] | None:
        return self._chunks

    @property
    def recipe(self) -> Recipe | None:
        return self._recipe

    def memmap(self) -> NDArray[Any]:
        raise TypeError(f"{self.where}: read in a process of its own, and so not mapped into memory")

    def read(self, selection: Selection = ()) -> NDArray[Any]:
        self.file.check_open(self.where)
        if len(selection) > self.ndim or any(s.step is not None and s.step < 1 for s in selection):
            raise IndexError(f"{self.where}: {selection} is no selection of shape {self.shape}")
        whole = (slice(None),) * (self.ndim - len(selection))
        wanted = tuple(range(*s.indices(n)) for s, n in zip((*selection, *whole), self.shape, strict=True))
        shape = tuple(map(len, wanted))
        self.file.limits.check_read(prod(shape) * self._sent_dtype.itemsize, self.where)
        out = np.empty(shape, self._sent_dtype)
        for piece in pieces(wanted, self._sent_dtype.itemsize, self._chunks, PIECE) if out.size else ():
            places = (slice(_at(p, w), _at(p, w) + len(p)) for p, w in zip(piece, wanted, strict=True))
            # The dots make it a view where there are no axes, too.
            index: tuple[Any, ...] = (*places, ...)
            target = out[index]
            values = target if target.flags.c_contiguous else np.empty(target.shape, target.dtype)
            ranges = [[part.start, part.stop, part.step] for part in piece]
            self.file.process.ask({"ask": "read", "path": self.path, "selection": ranges}, into=values)
            if values is not target:
                target[...] = values
        if self._is_text:
            return decode_text(out, self.where)
        # Bytes other than 0 and 1 would make invalid bools.
        return np.asarray(out.view(np.uint8) != 0) if out.dtype.kind == "b" else out


def _at(part: range, whole: range) -> int:
    return (part.start - whole.start) // whole.step


def pieces(
    wanted: tuple[range, ...], itemsize: int, chunks: tuple[int, ...] | None, most: int
) -> Iterator[tuple[range, ...]]:
    """Yield a selection in pieces of at most so many bytes, cut where chunks end as far as that goes.

    Raises
    ------
    RefusedError
        If one element, a text, is larger than what can be sent.
    """
    nbytes = prod(map(len, wanted)) * itemsize
    if nbytes <= most:
        yield wanted
        return
    axis = next((i for i, along in enumerate(wanted) if len(along) > 1), None)
    if axis is None and nbytes > WINDOW:
        raise errors.LimitError(f"a text of {itemsize} bytes is longer than the {WINDOW} that can be read isolated")
    if axis is None:
        yield wanted
        return
    along = wanted[axis]
    count = max(1, most * len(along) // nbytes)
    chunk = chunks[axis] if chunks is not None and along.step == 1 and count >= chunks[axis] else 1
    start = 0
    while start < len(along):
        stop = max(start + 1, start + count - (along.start + start + count) % chunk)
        yield from pieces((*wanted[:axis], along[start:stop], *wanted[axis + 1 :]), itemsize, chunks, most)
        start = stop
