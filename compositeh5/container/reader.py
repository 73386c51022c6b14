"""Reading nodes of an HDF5 file that may be damaged or hostile: everything is looked at before it is touched.

HDF5 is never let to follow a link, to load a filter, to open a second file or to convert a type by itself. A file is
opened read-only and without locks: files of this format are replaced, never changed.
"""

from __future__ import annotations

import atexit
import os
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import cached_property
from math import prod
from typing import Any, ClassVar
from weakref import WeakSet

import h5py
import numpy as np
from h5py import h5, h5a, h5d, h5f, h5g, h5l, h5o, h5p, h5s, h5z
from h5py._objects import phil
from numpy.typing import NDArray

from ..errors import ClosedError, CompositeH5Error, CorruptFileError, RefusedError
from . import chunks as _chunks
from .h5types import SCALAR, checked_dtype, decode_one, decode_text
from .limits import LIMITS
from .nodes import ArrayNode, AttrValue, ExternalLink, GroupNode, Node, Selection
from .source import BlockSource, FileSource, ReadAt, check_signature, identity

_FILTERS = {
    h5z.FILTER_DEFLATE,
    h5z.FILTER_SHUFFLE,
    h5z.FILTER_FLETCHER32,
    h5z.FILTER_SZIP,
    h5z.FILTER_SCALEOFFSET,
}
_DEFLATED = [[h5z.FILTER_DEFLATE], [h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE]]


_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of characters that don't show, or change how others show."""


class StoredFile:
    """An HDF5 file open for reading.

    Use `open`: while a file is open in this process, it is opened once, however many composites use it.

    Parameters
    ----------
    source : binary file object
        Seekable, with ``read`` and ``readinto``; it must stay open.
    name : str
        What messages call the file.
    """

    _open_files: ClassVar[dict[Hashable, StoredFile]] = {}
    _all: ClassVar[WeakSet[StoredFile]] = WeakSet()
    # h5py's own lock: with another one, a thread that closes a file while h5py collects garbage could wait for a
    # thread that waits for it.
    _lock: ClassVar[Any] = phil

    def __init__(self, source: Any, name: str) -> None:
        self.name = name
        self._users = 1
        self._source = source
        self._owned = False
        check_signature(source, name)
        fapl = h5p.create(h5p.FILE_ACCESS)
        fapl.set_fclose_degree(h5f.CLOSE_STRONG)
        fapl.set_fileobj_driver(h5py.h5fd.fileobj_driver, source)
        with _reading(name):
            self._fid = h5f.open(b"source", h5f.ACC_RDONLY, fapl)
        self._all.add(self)

    @classmethod
    def open(cls, path: str) -> StoredFile:
        """Open a file, or return the one that is open already if it is still the same file.

        Raises
        ------
        OSError
            If it can't be opened: `FileNotFoundError`, `PermissionError`, `NotACompositeFileError`,
            `CorruptFileError`, `RefusedError`.
        """
        return cls.shared(identity(os.stat(path)), lambda: FileSource(path), path)

    @classmethod
    def shared(cls, key: Hashable, open_source: Callable[[], FileSource | BlockSource], name: str) -> StoredFile:
        """Return the file whose source has an identity: the one that is open already, or one opened for it.

        Parameters
        ----------
        key : hashable
            Identity of the source.
        open_source : callable
            Returns the source; the file closes it.
        name : str
            What messages call the file.

        Raises
        ------
        OSError
            As `open` does.
        """
        if (known := cls._known(key)) is not None:
            return known
        # Without the lock: this may wait for a network.
        source = open_source()
        try:
            file = cls(source, name)
        except BaseException:
            source.close()
            raise
        file._owned = True
        with cls._lock:
            if (known := cls._known(source.identity)) is None:
                cls._open_files[source.identity] = file
                return file
        file.close()
        return known

    @classmethod
    def _known(cls, key: Hashable) -> StoredFile | None:
        with cls._lock:
            known = cls._open_files.get(key)
            if known is not None:
                known._users += 1
            return known

    def again(self) -> bool:
        """Become one more user of the file; return whether it was still open."""
        with self._lock:
            if self._users:
                self._users += 1
            return self._users > 0

    @property
    def is_remote(self) -> bool:
        """Whether each separate read costs a request."""
        return isinstance(self._source, BlockSource)

    @property
    def read_at(self) -> ReadAt | None:
        """Reads bytes past HDF5; None for somebody's file object, which has only one position."""
        return self._source.read_at if isinstance(self._source, FileSource | BlockSource) else None

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch ranges (offset, size) of a remote file at once.

        Raises
        ------
        OSError
            If they can't be fetched.
        """
        if isinstance(self._source, BlockSource):
            self._source.prefetch(ranges)

    @property
    def closed(self) -> bool:
        """Whether all users have closed the file."""
        return self._users == 0

    @cached_property
    def root(self) -> StoredGroup:
        """The root group."""
        with _reading(self.name):
            return StoredGroup(self, h5g.open(self._fid, b"/"), "/", 0)

    def close(self) -> None:
        """Give the file up; it is closed when its last user does so."""
        with self._lock:
            if self._users == 0:
                return
            self._users -= 1
            if self._users == 0:
                self._fid.close()
                if self._owned:
                    if self._open_files.get(self._source.identity) is self:
                        del self._open_files[self._source.identity]
                    self._source.close()

    @classmethod
    def close_all(cls) -> None:
        """Close every file, whoever uses it."""
        for file in list(cls._all):
            while not file.closed:
                file.close()

    def check_open(self, where: str) -> None:
        """Raise `ClosedError` if the file is closed."""
        if self._users == 0:
            raise ClosedError(f"{where}: the file is closed; read components inside the `with` block")


# HDF5 closes what is left open when the process ends, and would then call a source that is gone.
atexit.register(StoredFile.close_all)


class StoredGroup(GroupNode):
    """A group of a file. Its children are opened, and checked, one by one when asked for."""

    def __init__(self, file: StoredFile, gid: h5g.GroupID, path: str, depth: int) -> None:
        if depth > LIMITS.depth:
            raise RefusedError(f"{file.name}:{path}: groups nested deeper than {LIMITS.depth}")
        self.file, self.path, self._gid, self._depth = file, path, gid, depth
        self._opened: dict[str, Node] = {}
        self.where = f"{file.name}:{path}"

    @cached_property
    def attrs(self) -> Mapping[str, AttrValue]:  # type: ignore[override]
        return _StoredAttrs(self.file, self._gid, self.where)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        self.file.check_open(self.where)
        with _reading(self.where):
            if self._gid.get_num_objs() > LIMITS.children:
                raise RefusedError(f"{self.where}: more than {LIMITS.children} links")
            names: list[bytes] = []
            tracked = self._gid.get_create_plist().get_link_creation_order() & h5p.CRT_ORDER_TRACKED
            self._gid.links.iterate(names.append, idx_type=h5.INDEX_CRT_ORDER if tracked else h5.INDEX_NAME)
        return tuple(_checked_name(name, self.where) for name in names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        try:
            self._link_class(str(name))
        except KeyError:
            return False
        return True

    def __getitem__(self, name: str) -> Node:
        self.file.check_open(self.where)
        if name not in self._opened:
            self._opened[name] = self._open(name)
        return self._opened[name]

    def _open(self, name: str) -> Node:
        path = f"{self.path.rstrip('/')}/{name}"
        where = f"{self.file.name}:{path}"
        link = self._link_class(name)
        if link == h5l.TYPE_EXTERNAL:
            with _reading(where):
                file, target = self._gid.links.get_val(name.encode())
            return ExternalLink(os.fsdecode(file), target.decode(errors="replace"), where=where)
        if link != h5l.TYPE_HARD:
            raise RefusedError(f"{where}: a soft link has no place here and isn't followed")
        with _reading(where):
            oid = h5o.open(self._gid, name.encode())
            if h5o.get_info(oid).rc != 1:
                raise RefusedError(f"{where}: an object with more than one hard link")
        if isinstance(oid, h5g.GroupID):
            return StoredGroup(self.file, oid, path, self._depth + 1)
        if isinstance(oid, h5d.DatasetID):
            return StoredArray(self.file, oid, path)
        raise RefusedError(f"{where}: neither a group nor a dataset")

    def fetch(self, limit: int | None = None) -> None:
        fetch_together([(self, ())], limit)

    def extents(self, selection: Selection = ()) -> Iterator[tuple[int, int]]:
        """Yield where in the file the arrays below the group are, all of them: offsets and sizes."""
        for child in self.values():
            if isinstance(child, StoredGroup | StoredArray):
                yield from child.extents()

    def soft_target(self, name: str) -> str | None:
        """Return the path to which a child that is a soft link points; None if there is no such child.

        Raises
        ------
        RefusedError
            If the child isn't a soft link.
        """
        where = f"{self.where.rstrip('/')}/{name}"
        try:
            link = self._link_class(name)
        except KeyError:
            return None
        if link != h5l.TYPE_SOFT:
            raise RefusedError(f"{where}: should be a soft link")
        with _reading(where):
            return str(self._gid.links.get_val(name.encode()).decode(errors="replace"))

    def _link_class(self, name: str) -> int:
        self.file.check_open(self.where)
        # HDF5 would take a name with slashes as a path, and follow links on the way.
        if "/" in name or name in ("", ".", "..") or "\0" in name:
            raise KeyError(name)
        link = name.encode()
        with _reading(self.where):
            kind = self._gid.links.get_info(link).type if self._gid.links.exists(link) else None
        if kind is None:
            raise KeyError(name)
        return int(kind)


class StoredArray(ArrayNode):
    """A dataset of a file."""

    def __init__(self, file: StoredFile, did: h5d.DatasetID, path: str) -> None:
        self.file, self.path, self._did = file, path, did
        self.where = f"{file.name}:{path}"
        with _reading(self.where):
            self._check()

    def _check(self) -> None:
        did, where = self._did, self.where
        tid, plist, space = did.get_type(), did.get_create_plist(), did.get_space()
        dtype = checked_dtype(tid, where)
        self._stored_dtype = np.dtype(f"S{tid.get_size()}") if dtype.kind == "U" else dtype
        self._tid = tid
        if space.get_simple_extent_type() not in (h5s.SIMPLE, h5s.SCALAR):
            raise RefusedError(f"{where}: an empty dataspace isn't part of this format")
        shape = tuple(int(n) for n in space.get_simple_extent_dims()) if space.get_simple_extent_ndims() else ()
        self._stored_shape = shape
        layout = plist.get_layout()
        if layout not in (h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED):
            raise RefusedError(f"{where}: a virtual dataset isn't read: its sources are other files")
        if layout != h5d.COMPACT and plist.get_external_count():
            raise RefusedError(f"{where}: data in another file aren't read")
        filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        if not _FILTERS.issuperset(filters) or len(set(filters)) < len(filters):
            raise RefusedError(f"{where}: filters {filters} aren't among those that every HDF5 reader has")
        self._chunks = tuple(int(n) for n in plist.get_chunk()) if layout == h5d.CHUNKED else None
        self._filters = filters
        nbytes, stored = prod(shape) * tid.get_size(), did.get_storage_size()
        self.stored_bytes = stored
        chunk_bytes = 0 if self._chunks is None else prod(self._chunks) * tid.get_size()
        if max(nbytes, chunk_bytes) > stored * LIMITS.ratio + LIMITS.attribute_bytes:
            raise RefusedError(f"{where}: {nbytes} bytes are declared but only {stored} are stored")

    @cached_property
    def attrs(self) -> Mapping[str, AttrValue]:  # type: ignore[override]
        return _StoredAttrs(self.file, self._did, self.where)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return () if self._stored_shape == (1,) and SCALAR in self.attrs else self._stored_shape

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        # UTF-8 takes at least one byte a character, and one byte ends the text.
        size = self._stored_dtype.itemsize
        return np.dtype(f"U{max(size - 1, 1)}") if self._is_text else self._stored_dtype

    @property
    def _is_text(self) -> bool:
        return self._stored_dtype.kind == "S" and self._tid.get_cset() == h5py.h5t.CSET_UTF8

    def read(self, selection: Selection = ()) -> NDArray[Any]:
        self.file.check_open(self.where)
        dense, steps = self._dense(selection)
        if self.file.is_remote:
            self.file.prefetch(self.extents(selection))
        with _reading(self.where):
            values = self._read_dense(dense)
        if any(step > 1 for step in steps):
            values = values[tuple(slice(None, None, step) for step in steps)]
        if self._is_text:
            values = decode_text(values, self.where)
        elif values.dtype.kind == "b":
            # Bytes other than 0 and 1 would make invalid bools.
            values = np.asarray(values.view(np.uint8) != 0)
        return values.reshape(()) if self.shape != self._stored_shape else values

    def _dense(self, selection: Selection) -> tuple[Selection, tuple[int, ...]]:
        """Return the slice that covers a selection along each axis, and the steps to take in it."""
        shape = self._stored_shape
        if len(selection) > len(shape) or any(s.step is not None and s.step < 1 for s in selection):
            raise IndexError(f"{self.where}: {selection} is no selection of shape {shape}")
        whole = (slice(None),) * (len(shape) - len(selection))
        limits = [s.indices(n) for s, n in zip((*selection, *whole), shape, strict=True)]
        return tuple(slice(a, max(a, b)) for a, b, _ in limits), tuple(step for _, _, step in limits)

    def extents(self, selection: Selection = ()) -> Iterator[tuple[int, int]]:
        """Yield where in the file the values are, or those of a selection: offsets and sizes."""
        with _reading(self.where):
            dense = self._dense(selection)[0]
            if self._chunks is None:
                # None for a compact one, which is in its header.
                if self.stored_bytes and (offset := self._did.get_offset()) is not None:
                    rows, length = dense[0] if dense else slice(0, 1), self.stored_bytes // (*self._stored_shape, 1)[0]
                    yield offset + rows.start * length, (rows.stop - rows.start) * length
                return
            for corner in _chunks.chunks_in(dense, self._chunks):
                info = self._did.get_chunk_info_by_coord(corner)
                if info.size:
                    yield info.byte_offset, info.size

    def _read_dense(self, selection: Selection) -> NDArray[Any]:
        out = np.empty(tuple(s.stop - s.start for s in selection), self._stored_dtype)
        if out.size == 0:
            return out
        if self._chunks is not None and self._filters in _DEFLATED:
            self._read_chunks(selection, out)
            return out
        if self._chunks is not None and self._did.get_num_chunks() < prod(
            -(-n // c) for n, c in zip(self._stored_shape, self._chunks, strict=True)
        ):
            raise CorruptFileError(f"{self.where}: chunks are missing")
        space = self._did.get_space()
        if selection:
            space.select_hyperslab(tuple(s.start for s in selection), out.shape)
        memory = h5s.create_simple(out.shape) if out.shape else h5s.create(h5s.SCALAR)
        self._did.read(memory, space, out, self._tid)
        return out

    def _read_chunks(self, selection: Selection, out: NDArray[Any]) -> None:
        assert self._chunks is not None
        shuffled, read_at = len(self._filters) == 2, self.file.read_at
        for corner in _chunks.chunks_in(selection, self._chunks):
            info = self._did.get_chunk_info_by_coord(corner)
            if not info.size or info.filter_mask:
                raise CorruptFileError(f"{self.where}: the chunk at {corner} is missing or was stored unfiltered")
            # Past HDF5, which would take its lock and copy the bytes once more.
            stored = read_at(info.byte_offset, info.size) if read_at else self._did.read_direct_chunk(corner)[1]
            try:
                chunk = _chunks.unpack(stored, self._chunks, self._stored_dtype, shuffled)
            except ValueError as error:
                raise CorruptFileError(f"{self.where}: the chunk at {corner} is damaged: {error}") from error
            source, target = [], []
            for start, length, wanted in zip(corner, self._chunks, selection, strict=True):
                first, last = max(start, wanted.start), min(start + length, wanted.stop)
                source.append(slice(first - start, last - start))
                target.append(slice(first - wanted.start, last - wanted.start))
            out[tuple(target)] = chunk[tuple(source)]


def fetch_together(wanted: Iterable[tuple[Node, Selection]], limit: int | None = None) -> None:
    """Have what will be read of several nodes transferred at once, as far as they are in remote files.

    Parameters
    ----------
    wanted : iterable of (Node, tuple of slice)
        The nodes, and for arrays the selection that will be read; groups are fetched whole.
    limit : int, optional
        Do nothing for files of which it is more bytes than this.

    Raises
    ------
    OSError
        If it can't be fetched.
    """
    ranges: dict[StoredFile, list[tuple[int, int]]] = {}
    for node, selection in wanted:
        if isinstance(node, StoredGroup | StoredArray) and node.file.is_remote:
            ranges.setdefault(node.file, []).extend(node.extents(selection))
    for file, own in ranges.items():
        if limit is None or sum(size for _, size in own) <= limit:
            file.prefetch(own)


class _StoredAttrs(Mapping[str, AttrValue]):
    """The attributes of an object; each is read when it is first asked for."""

    def __init__(self, file: StoredFile, oid: Any, where: str) -> None:
        self._file, self._oid, self._where = file, oid, where
        self._values: dict[str, AttrValue] = {}

    @cached_property
    def _encoded(self) -> frozenset[bytes]:
        """The names: asking for all of them at once takes no longer than asking for three, one by one."""
        self._file.check_open(self._where)
        names: list[bytes] = []
        with _reading(self._where):
            if h5a.get_num_attrs(self._oid) > LIMITS.attributes:
                raise RefusedError(f"{self._where}: more than {LIMITS.attributes} attributes")
            h5a.iterate(self._oid, names.append)
        return frozenset(names)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(_checked_name(name, self._where) for name in self._encoded))

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
            with _reading(self._where):
                self._values[name] = _read_attr(h5a.open(self._oid, encoded), f"{self._where}@{name}")
        return self._values[name]


def _read_attr(attr: h5a.AttrID, where: str) -> AttrValue:
    tid, space = attr.get_type(), attr.get_space()
    dtype = checked_dtype(tid, where)
    if space.get_simple_extent_type() not in (h5s.SIMPLE, h5s.SCALAR):
        raise RefusedError(f"{where}: an empty dataspace isn't part of this format")
    shape = tuple(int(n) for n in space.get_simple_extent_dims()) if space.get_simple_extent_ndims() else ()
    is_text = dtype.kind in "US"
    size = tid.get_size()
    if prod(shape) * size > LIMITS.attribute_bytes:
        raise RefusedError(f"{where}: larger than {LIMITS.attribute_bytes} bytes")
    values = np.empty(shape, f"S{size}" if is_text else dtype)
    if values.size:
        attr.read(values, tid)
    if is_text:
        # Text, also where it is ASCII.
        return decode_text(values, where) if shape else decode_one(values.item(), where)
    return values.item() if not shape and dtype.kind in "biuf" else values


def _checked_name(name: bytes, where: str) -> str:
    try:
        text = name.decode()
    except UnicodeDecodeError as error:
        raise RefusedError(f"{where}: the name {name!r} isn't UTF-8") from error
    plain = text.isascii() and text.isprintable()
    if text in ("", ".", "..") or not (plain or _HIDDEN.isdisjoint(map(unicodedata.category, text))):
        raise RefusedError(f"{where}: the name {text!r} has characters that hide what it is")
    return text


class _reading:
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
