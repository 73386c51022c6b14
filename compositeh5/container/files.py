"""What the layers above see of a file that is open, however it is read: by `reader`, or in a process of its own."""

from __future__ import annotations

import atexit
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import Any, ClassVar, Self
from weakref import WeakSet

from h5py._objects import phil
from numpy.typing import NDArray

from ..errors import ClosedError
from .limits import LIMITS, Limits
from .nodes import ArrayNode, GroupNode
from .source import BlockSource, FileSource, identity

OpenSource = Callable[[], FileSource | BlockSource]


class OpenFile(ABC):
    """An HDF5 file open for reading.

    Use `open` or `shared`: while a file is open in this process, it is opened once in each of the ways and for each of
    the limits, however many composites use it.

    Parameters
    ----------
    source : binary file object
        Seekable, with ``read`` and ``readinto``; it must stay open.
    name : str
        What messages call the file.
    limits : Limits, optional
        What the file may ask for.
    """

    isolated: ClassVar[bool] = False
    """Whether it is read in a process of its own."""

    _open_files: ClassVar[dict[Hashable, Any]] = {}
    _all: ClassVar[WeakSet[OpenFile]] = WeakSet()
    # h5py's own lock: with another one, a thread that closes a file while h5py collects garbage could wait for a
    # thread that waits for it.
    _lock: ClassVar[Any] = phil

    def __init__(self, source: Any, name: str, limits: Limits = LIMITS) -> None:
        self.name, self.limits = name, limits
        self._source = source
        self._users = 1
        self._key: Hashable = None

    @classmethod
    def open(cls, path: str, limits: Limits = LIMITS) -> Self:
        """Open a file, or return the one that is open already if it is still the same file.

        Raises
        ------
        OSError
            If it can't be opened: `FileNotFoundError`, `PermissionError`, `NotACompositeFileError`,
            `CorruptFileError`, `RefusedError`.
        """
        return cls.shared(identity(os.stat(path)), lambda: FileSource(path), path, limits)

    @classmethod
    def shared(cls, key: Hashable, open_source: OpenSource, name: str, limits: Limits = LIMITS) -> Self:
        """Return the file whose source has an identity: the one that is open already, or one opened for it.

        Parameters
        ----------
        key : hashable
            Identity of the source.
        open_source : callable
            Returns the source; the file closes it.
        name : str
            What messages call the file.
        limits : Limits, optional
            What the file may ask for.

        Raises
        ------
        OSError
            As `open` does.
        """
        if (known := cls._known(key, limits)) is not None:
            return known
        # Without the lock: this may wait for a network.
        source = open_source()
        try:
            file = cls(source, name, limits)
        except BaseException:
            source.close()
            raise
        file._key = (cls, source.identity, limits)
        with cls._lock:
            if (known := cls._known(source.identity, limits)) is None:
                cls._open_files[file._key] = file
                return file
        file.close()
        return known

    @classmethod
    def _known(cls, key: Hashable, limits: Limits) -> Self | None:
        with cls._lock:
            known: Self | None = cls._open_files.get((cls, key, limits))
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
    @abstractmethod
    def root(self) -> FileGroup:
        """The root group."""

    @property
    def closed(self) -> bool:
        """Whether all users have closed the file."""
        return self._users == 0

    def close(self) -> None:
        """Give the file up; it is closed when its last user does so."""
        with self._lock:
            if self._users == 0:
                return
            self._users -= 1
            if self._users == 0:
                self._release()
                if self._key is not None:
                    if self._open_files.get(self._key) is self:
                        del self._open_files[self._key]
                    self._source.close()

    @abstractmethod
    def _release(self) -> None:
        """End what reads the file."""

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
atexit.register(OpenFile.close_all)


class FileGroup(GroupNode):
    """A group of a file."""

    file: OpenFile
    """The file."""

    path: str
    """Its path in the file."""

    @abstractmethod
    def soft_target(self, name: str) -> str | None:
        """Return the path to which a child that is a soft link points; None if there is no such child.

        Raises
        ------
        RefusedError
            If the child isn't a soft link.
        """


class FileArray(ArrayNode):
    """A dataset of a file."""

    file: OpenFile
    """The file."""

    stored_bytes: int
    """Size of what is stored of it."""

    @abstractmethod
    def memmap(self) -> NDArray[Any]:
        """Return the array mapped into memory: read-only, and not checked against its checksums.

        Raises
        ------
        TypeError
            If it isn't stored in one piece as it is in memory, or the file isn't on a disk.
        """
