"""Files as HDF5 gets to see them: opened and checked by us, read at given offsets, never locked or written.

HDF5's own file driver would lock files, refuse one that this process has open with other settings, and block on
a FIFO.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from collections.abc import Callable, Hashable, Iterable

from ..errors import CorruptFileError, NotACompositeFileError, RefusedError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"

BLOCK = 1024 * 1024
"""Remote files are fetched in blocks of this size; the metadata of most files fit in the first."""

GAP = 8 * BLOCK
"""To fetch so much that isn't needed takes no longer than another request."""

LARGEST = 256
"""Blocks of one request."""

KEPT = 64 * BLOCK
"""Of what was fetched for earlier reads, no more than this is kept."""


class _Source(io.RawIOBase):
    """What HDF5 reads: bytes of known number, and a position among them."""

    _size: int
    _position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position


class FileSource(_Source):
    """A regular file, opened for reading.

    Parameters
    ----------
    path : str
        Path of the file.

    Raises
    ------
    OSError
        If it can't be opened.
    RefusedError
        If it is neither a file nor a folder: a FIFO or a device.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        # Without O_NONBLOCK, opening a FIFO waits for a writer.
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(self._fd)
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(f"{path} is a directory, not a file")
            if not stat.S_ISREG(status.st_mode):
                raise RefusedError(f"{path}: not a regular file")
        except BaseException:
            os.close(self._fd)
            self._fd = -1
            raise
        self.identity: Hashable = identity(status)
        self._size = status.st_size

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer from the current position, and return the number of bytes read."""
        count = os.preadv(self._fd, [buffer], self._position)
        self._position += count
        return count

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()


class BlockSource(_Source):
    """A file of which blocks are fetched, in few large requests, when they are needed.

    Parameters
    ----------
    read_at : callable
        ``read_at(offset, size)`` returns so many bytes from there, fewer only at the end of the file.
    name : str
        What messages call the file.
    size : int, optional
        Size of the file. Without it, it is that which the file itself states (HDF5 does), or what ``measure``
        returns.
    measure : callable, optional
        Returns the size of the file at the cost of another request.
    close : callable, optional
        Called when the source is closed.

    Raises
    ------
    OSError
        What ``read_at`` raises for the first block, which is fetched at once.
    """

    def __init__(
        self,
        read_at: Callable[[int, int], bytes],
        name: str,
        size: int | None = None,
        *,
        measure: Callable[[], int] | None = None,
        close: Callable[[], object] | None = None,
    ) -> None:
        super().__init__()
        self._read_at, self._name, self._on_close = read_at, name, close
        self.identity: Hashable = name
        # Files are read by threads, too: the position is HDF5's, which lets in one at a time, but not the blocks.
        self._lock = threading.RLock()
        first = read_at(0, BLOCK if size is None else min(BLOCK, size))
        if size is None:
            size = len(first) if len(first) < BLOCK else stated_size(first) or (measure() if measure else None)
        if size is None:
            raise NotACompositeFileError(f"{name}: not an HDF5 file (its beginning doesn't state its size)")
        self._size = size
        self._blocks = {0: first}

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer from the current position, and return the number of bytes read."""
        start = self._position
        stop = min(start + len(buffer), self._size)
        with self._lock:
            self.prefetch([(start, stop - start)])
            while self._position < stop:
                number, offset = divmod(self._position, BLOCK)
                part = self._blocks[number][offset : offset + stop - self._position]
                done = self._position - start
                buffer[done : done + len(part)] = part
                self._position += len(part)
        return max(0, stop - start)

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch what isn't there yet of some ranges (offset, size), those that are near each other at once.

        Raises
        ------
        CorruptFileError
            If the file ends before its end.
        OSError
            What ``read_at`` raises.
        """
        with self._lock:
            wanted = {
                number
                for offset, size in ranges
                for number in range(max(0, offset) // BLOCK, -(-min(offset + size, self._size) // BLOCK))
            }
            missing = sorted(wanted - self._blocks.keys())
            if missing and len(self._blocks) * BLOCK > KEPT:
                self._blocks = {n: block for n, block in self._blocks.items() if n == 0 or n in wanted}
            while missing:
                run = 1
                while (
                    run < len(missing)
                    and (missing[run] - missing[run - 1] - 1) * BLOCK <= GAP
                    and missing[run] - missing[0] < LARGEST
                ):
                    run += 1
                self._fetch(missing[0], missing[run - 1] + 1)
                missing = missing[run:]

    def _fetch(self, first: int, last: int) -> None:
        start, stop = first * BLOCK, min(last * BLOCK, self._size)
        data = self._read_at(start, stop - start)
        if len(data) != stop - start:
            raise CorruptFileError(f"{self._name}: ends at byte {start + len(data)} of {self._size}")
        for number in range(first, last):
            self._blocks[number] = data[number * BLOCK - start : (number + 1) * BLOCK - start]

    def close(self) -> None:
        if not self.closed:
            self._blocks.clear()
            if self._on_close is not None:
                self._on_close()
        super().close()


def stated_size(start: bytes) -> int | None:
    """Return the size of an HDF5 file that its superblock states; None if these aren't the first bytes of one.

    Superblocks of version 2 and 3 (HDF5 1.8 and later), with offsets of 8 bytes.
    """
    if len(start) < 36 or not start.startswith(_SIGNATURE) or start[8] not in (2, 3) or start[9] != 8:
        return None
    return int.from_bytes(start[28:36], "little")


def identity(status: os.stat_result) -> tuple[int, ...]:
    """Return what tells a file from another, and from a later one that replaced it."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def check_signature(source: io.RawIOBase | io.BufferedIOBase, name: str) -> None:
    """Raise `NotACompositeFileError` unless a file begins as HDF5 files do."""
    source.seek(0)
    start = source.read(8)
    if start != _SIGNATURE:
        found = "it is empty" if not start else "its first bytes are others"
        raise NotACompositeFileError(f"{name}: not an HDF5 file ({found})")
