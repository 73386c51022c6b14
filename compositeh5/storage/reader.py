"""Reading nodes of an HDF5 file that may be damaged or hostile: everything is looked at before it is touched.

HDF5 is never let to follow a link, to load a filter, to open a second file or to convert a type by itself. A file is
opened read-only and without locks: files of this format are replaced, never changed.
"""

from __future__ import annotations

import atexit
import mmap
import os
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, ClassVar
from weakref import WeakSet

import h5py
from h5py import h5, h5d, h5f, h5g, h5i, h5l, h5o, h5p
from h5py._objects import phil

from ..errors import ClosedError, CorruptFileError, LimitError, RefusedError
from .arrays import StoredArray
from .h5types import OpenHDF5, StoredAttrs, checked_name, reading
from .limits import LIMITS, Limits
from .nodes import AttrValue, ExternalLink, GroupNode, Node, Selection
from .source import BlockSource, FileSource, ReadAt, check_bytes, check_signature

OpenSource = Callable[[], FileSource | BlockSource]

_WITHIN = re.compile(rb"/by-id/[0-9a-f-]{36}/[A-Za-z_][A-Za-z0-9_]*")
"""What a soft link from one composite of a file to a component of another looks like."""


class StoredFile:
    """An HDF5 file open for reading.

    The source, a seekable binary file object, must stay open. ``name`` is what messages call the file, ``digest`` the
    SHA-256 that all its bytes must have (see `check_bytes`), which is looked at before HDF5 sees them.
    """

    _all: ClassVar[WeakSet[StoredFile]] = WeakSet()

    def __init__(self, source: Any, name: str, limits: Limits = LIMITS, digest: str | None = None) -> None:
        self.name, self.limits = name, limits
        self._source = source
        self._users = 1
        self._on_close: Callable[[], object] | None = None
        if digest is not None:
            check_bytes(source, digest, name)
        check_signature(source, name)
        fapl = h5p.create(h5p.FILE_ACCESS)
        fapl.set_fclose_degree(h5f.CLOSE_STRONG)
        fapl.set_fileobj_driver(h5py.h5fd.fileobj_driver, source)
        try:
            with reading(name):
                self._fid = h5f.open(b"source", h5f.ACC_RDONLY, fapl)
        finally:
            # Alive at the end of the process, as in the traceback of an error, it would have HDF5 crash.
            fapl.close()
        self._all.add(self)

    def again(self) -> bool:
        """Become one more user of the file; return whether it was still open."""
        with phil:
            if self._users:
                self._users += 1
            return self._users > 0

    @property
    def closed(self) -> bool:
        """Whether all users have closed the file."""
        return self._users == 0

    def close(self) -> None:
        """Give the file up; it is closed when its last user does so."""
        # h5py's own lock: with another one, a thread that closes a file while h5py collects garbage could wait for a
        # thread that waits for it.
        with phil:
            if self._users == 0:
                return
            self._users -= 1
            if self._users > 0:
                return
            # What HDF5 has made of a damaged file it may be unable to give up. Nothing is lost by that.
            with suppress(RuntimeError):
                # `FileID.close` would look through all objects of all files, since HDF5 once gave their numbers to
                # others.
                h5i.dec_ref(self._fid)
            # It refers to the file: without this, both would wait for the garbage collector, with all that was kept.
            vars(self).pop("root", None)
            # It refers to the file, too.
            on_close, self._on_close = self._on_close, None
            if on_close is not None:
                on_close()

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

    @cached_property
    def root(self) -> StoredGroup:
        """The root group."""
        self.check_open(self.name)
        with reading(self.name):
            return StoredGroup(self, h5g.open(self._fid, b"/"), "/", 0)

    @property
    def is_remote(self) -> bool:
        """Whether each separate read costs a request."""
        return isinstance(self._source, BlockSource)

    @property
    def read_at(self) -> ReadAt | None:
        """Reads bytes past HDF5; None for somebody's file object, which has only one position."""
        return self._source.read_at if isinstance(self._source, FileSource | BlockSource) else None

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes from an offset, past HDF5; only where there is `read_at`."""
        if self._source.read_into(offset, buffer) != len(buffer):
            raise CorruptFileError(f"{self.name}: ends before byte {offset + len(buffer)}")

    def mapped(self) -> mmap.mmap | None:
        """Return the file mapped into memory, read-only; None if it isn't on a disk. It outlives `close`."""
        return self._source.mapped() if isinstance(self._source, FileSource) else None

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch ranges (offset, size) of a remote file at once."""
        if isinstance(self._source, BlockSource):
            self._source.prefetch(ranges)


# HDF5 closes what is left open when the process ends, and would then call a source that is gone.
atexit.register(StoredFile.close_all)


KEPT_OPEN = 8
"""So many files an `OpenFiles` keeps open without users."""


class OpenFiles:
    """The files that a session has open: each is opened once for each of the limits, however many use it."""

    def __init__(self) -> None:
        self._open: dict[Hashable, StoredFile] = {}
        self._kept: dict[int, StoredFile] = {}
        self._keepers = 0

    def open(
        self, key: Hashable, open_source: OpenSource, name: str, limits: Limits = LIMITS, digest: str | None = None
    ) -> StoredFile:
        """Return the file whose source has the identity ``key``: the one that is open already, or one opened for it."""
        if (known := self._known((key, limits, digest))) is not None:
            return known
        # Without the lock: this may wait for a network.
        source = open_source()
        try:
            file = StoredFile(source, name, limits, digest)
        except BaseException:
            source.close()
            raise
        # A file may have been replaced since its identity was asked for.
        own_key = source.identity if isinstance(source, FileSource) else key, limits, digest
        with phil:
            if (known := self._known(own_key)) is None:
                self._open[own_key] = file

        def closed() -> None:
            if self._open.get(own_key) is file:
                del self._open[own_key]
            source.close()

        file._on_close = closed
        if known is None:
            return file
        file.close()
        return known

    def _known(self, key: Hashable) -> StoredFile | None:
        with phil:
            known = self._open.get(key)
            return known if known is not None and known.again() else None

    @contextmanager
    def keep(self) -> Iterator[None]:
        """Keep the files that are told to `used` open within the block, no more than `KEPT_OPEN` of them."""
        with phil:
            self._keepers += 1
        try:
            yield
        finally:
            with phil:
                self._keepers -= 1
                while self._kept and not self._keepers:
                    self._kept.popitem()[1].close()

    def used(self, file: StoredFile) -> None:
        """Keep a file open, within `keep`; of too many, that which was not used for the longest is given up."""
        with phil:
            if self._keepers and (self._kept.pop(id(file), None) is file or file.again()):
                self._kept[id(file)] = file
                if len(self._kept) > KEPT_OPEN:
                    self._kept.pop(next(iter(self._kept))).close()


class StoredGroup(GroupNode):
    """A group of a file. Its children are opened, and checked, one by one when asked for."""

    file: StoredFile
    """The file."""

    path: str
    """Its path in the file."""

    def __init__(self, file: StoredFile, gid: h5g.GroupID, path: str, depth: int) -> None:
        if depth > file.limits.depth:
            raise LimitError(f"{file.name}:{path}: groups nested deeper than {file.limits.depth}")
        self.file, self.path, self._gid, self._depth = file, path, gid, depth
        self._opened: dict[str, Node] = {}
        self.where = f"{file.name}:{path}"

    @cached_property
    def attrs(self) -> Mapping[str, AttrValue]:  # type: ignore[override]
        return StoredAttrs(self.file, self._gid, self.where)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        self.file.check_open(self.where)
        with reading(self.where):
            if self._gid.get_num_objs() > self.file.limits.children:
                raise LimitError(f"{self.where}: more than {self.file.limits.children} links")
            names: list[bytes] = []
            tracked = self._gid.get_create_plist().get_link_creation_order() & h5p.CRT_ORDER_TRACKED
            self._gid.links.iterate(names.append, idx_type=h5.INDEX_CRT_ORDER if tracked else h5.INDEX_NAME)
        return tuple(checked_name(name, self.where) for name in names)

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
            try:
                self._opened[name] = self._open(name)
            except KeyError:
                if name in vars(self).get("_names", ()):
                    raise CorruptFileError(
                        f"{self.where}: lists {name!r}, but doesn't find it; it is damaged"
                    ) from None
                raise
        return self._opened[name]

    def _open(self, name: str) -> Node:
        path = f"{self.path.rstrip('/')}/{name}"
        where = f"{self.file.name}:{path}"
        link = self._link_class(name)
        if link == h5l.TYPE_EXTERNAL:
            with reading(where):
                file, target = self._gid.links.get_val(name.encode())
            return ExternalLink(os.fsdecode(file), target.decode(errors="replace"), where=where)
        if link == h5l.TYPE_SOFT:
            with reading(where):
                target = self._gid.links.get_val(name.encode())
            if _WITHIN.fullmatch(target) is None:
                raise RefusedError(f"{where}: a soft link to {target!r} has no place here and isn't followed")
            return ExternalLink("", target.decode(), where=where)
        if link != h5l.TYPE_HARD:
            raise RefusedError(f"{where}: a link of a type that has no place here")
        with reading(where):
            oid = h5o.open(self._gid, name.encode())
            if h5o.get_info(oid).rc != 1:
                raise RefusedError(f"{where}: an object with more than one hard link")
        if isinstance(oid, h5g.GroupID):
            return StoredGroup(self.file, oid, path, self._depth + 1)
        if isinstance(oid, h5d.DatasetID):
            return StoredArray(self.file, oid, path)
        raise RefusedError(f"{where}: neither a group nor a dataset")

    def prefetch(self, limit: int | None = None) -> None:
        prefetch_nodes([(self, ())], limit)

    def extents(self, selection: Selection = ()) -> Iterator[tuple[int, int]]:
        """Yield where in the file the arrays below the group are, all of them: offsets and sizes."""
        for child in self.values():
            if isinstance(child, StoredGroup | StoredArray):
                yield from child.extents()

    def soft_target(self, name: str) -> str | None:
        """Return where a child that must be a soft link points; None if there is no such child."""
        where = f"{self.where.rstrip('/')}/{name}"
        try:
            link = self._link_class(name)
        except KeyError:
            return None
        if link != h5l.TYPE_SOFT:
            raise RefusedError(f"{where}: should be a soft link")
        with reading(where):
            return str(self._gid.links.get_val(name.encode()).decode(errors="replace"))

    def _link_class(self, name: str) -> int:
        self.file.check_open(self.where)
        # HDF5 would take a name with slashes as a path, and follow links on the way.
        if "/" in name or name in ("", ".", "..") or "\0" in name:
            raise KeyError(name)
        link = name.encode()
        with reading(self.where):
            kind = self._gid.links.get_info(link).type if self._gid.links.exists(link) else None
        if kind is None:
            raise KeyError(name)
        return int(kind)


def prefetch_nodes(wanted: Iterable[tuple[Node, Selection]], limit: int | None = None) -> None:
    """Prefetch what will be read of nodes in remote files: selections of arrays, and whole groups.

    Nothing is fetched from a file of which it would be more than ``limit`` bytes.
    """
    ranges: dict[OpenHDF5, list[tuple[int, int]]] = {}
    for node, selection in wanted:
        if isinstance(node, StoredGroup | StoredArray) and node.file.is_remote:
            ranges.setdefault(node.file, []).extend(node.extents(selection))
    for file, own in ranges.items():
        if limit is None or sum(size for _, size in own) <= limit:
            file.prefetch(own)
