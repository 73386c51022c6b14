"""Files as HDF5 gets to see them: opened and checked by us, read at given offsets, never locked or written.

HDF5's own file driver would lock files, refuse one that this process has open with other settings, and block on
a FIFO.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import os
import stat
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import nullcontext

from ..errors import BusyError, CorruptFileError, DigestMismatchError, NotACompositeFileError, RefusedError

WRITING = 0x05
"""Marks of the superblock: open for writing, and for writing while others read."""

SIGNATURE = b"\x89HDF\r\n\x1a\n"

BLOCK = 1024 * 1024
"""Remote files are fetched in blocks of this size; the metadata of most files fit in the first."""

GAP = 8 * BLOCK
"""Blocks nearer to each other than this are fetched by one request, with what lies between: that takes about as long
as another request, which waits some 30 ms for its answer, at 250 MB/s."""

PARALLEL = 8
"""So many requests are made at once for what is farther apart."""

LARGEST = 256
"""Blocks of one request."""

KEPT = 64 * BLOCK
"""Of what was fetched for earlier reads, no more than this is kept."""

ReadAt = Callable[[int, int], bytes]
"""``read_at(offset, size)`` returns so many bytes from there, fewer only at the end of the file."""


class _Source(io.RawIOBase):
    """What HDF5 reads: bytes of known number, and a position among them."""

    _size: int
    _position = 0

    def read_at(self, offset: int, size: int) -> bytes:
        """Return so many bytes from an offset, fewer only at the end of the file; the position stays."""
        raise NotImplementedError

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill a buffer with the bytes from an offset; return how many there were. The position stays."""
        data = self.read_at(offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        # HDF5 always says where to begin.
        start = 0 if whence == os.SEEK_SET else self._position if whence == os.SEEK_CUR else self._size
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position


class FileSource(_Source):
    """A regular file, opened for reading; FIFOs and devices are refused."""

    def __init__(self, path: str) -> None:
        super().__init__()
        # Before, since opening a device or a FIFO can have effects, and after, since it may be another by then.
        _check_regular(os.stat(path), path)
        # Without O_NONBLOCK, opening a FIFO waits for a writer.
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            status = os.fstat(self._fd)
            _check_regular(status, path)
        except BaseException:
            os.close(self._fd)
            self._fd = -1
            raise
        self.identity: Hashable = identity(status)
        self._size = status.st_size

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer from the current position, and return the number of bytes read."""
        # A damaged file can lead to any place. HDF5 doesn't look at how much was read.
        count = os.preadv(self._fd, [buffer], self._position) if self._position < self._size else 0
        if count < len(buffer):
            buffer[count:] = bytes(len(buffer) - count)
        self._position += count
        return count

    def read_at(self, offset: int, size: int) -> bytes:
        # No more memory than there are bytes, whatever a damaged file says.
        return os.pread(self._fd, min(size, self._size - offset), offset) if offset < self._size else b""

    def read_into(self, offset: int, buffer: memoryview) -> int:
        done = 0
        while done < len(buffer) and (count := os.preadv(self._fd, [buffer[done:]], offset + done)):
            done += count
        return done

    def mapped(self) -> mmap.mmap:
        """Return the file mapped into memory, read-only; it stays so after `close`."""
        return mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ)

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
        super().close()


class BlockSource(_Source):
    """A file of which blocks are fetched, in few large requests, when they are needed.

    Threads may read it at the same time; what two of them ask for at once can be fetched twice. ``read_at`` is called
    by several threads, and at the start for the first block. Without ``size`` it is what the file itself states (HDF5
    does), or what ``measure`` returns, maybe at the cost of another request.
    """

    def __init__(
        self,
        read_at: ReadAt,
        name: str,
        size: int | None = None,
        *,
        measure: Callable[[], int | None] | None = None,
        close: Callable[[], object] | None = None,
    ) -> None:
        super().__init__()
        self._read, self._name, self._on_close = read_at, name, close
        first = read_at(0, BLOCK if size is None else min(BLOCK, size))
        if size is None:
            size = len(first) if len(first) < BLOCK else stated_size(first) or (measure() if measure else None)
        if size is None:
            raise NotACompositeFileError(f"{name}: not an HDF5 file (its beginning doesn't state its size)")
        self._size = size
        # No lock: whoever waits for the network with one can be waited for by a thread that has HDF5's, while its own
        # garbage collection waits for that one.
        self._blocks = {0: memoryview(first)}

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer from the current position, and return the number of bytes read."""
        # HDF5 calls this, and holds its lock meanwhile: for the same reason, no other thread may be needed.
        data = self._part(self._position, len(buffer), threads=1)
        buffer[:] = data.ljust(len(buffer), b"\0")
        self._position += len(data)
        return len(data)

    def read_at(self, offset: int, size: int) -> bytes:
        return self._part(offset, size, PARALLEL)

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch what isn't there yet of some ranges (offset, size): near ones at once, far ones in parallel."""
        self._get({n for offset, size in ranges for n in self._numbers(offset, size)}, PARALLEL)

    def _part(self, offset: int, size: int, threads: int) -> bytes:
        numbers = self._numbers(offset, size)
        blocks = self._get(set(numbers), threads)
        return b"".join(blocks[n][max(0, offset - n * BLOCK) : offset + size - n * BLOCK] for n in numbers)

    def _numbers(self, offset: int, size: int) -> range:
        """Return the numbers of the blocks that have the bytes of a range, as far as it is in the file."""
        stop = min(offset + size, self._size)
        return range(offset // BLOCK, -(-stop // BLOCK)) if stop > offset else range(0)

    def _get(self, wanted: set[int], threads: int) -> dict[int, memoryview]:
        """Return blocks by number; those that aren't there are fetched."""
        # Held here, for another thread may drop them.
        blocks = {n: block for n in wanted if (block := self._blocks.get(n)) is not None}
        missing = sorted(wanted - blocks.keys())
        if not missing:
            return blocks
        if len(self._blocks) * BLOCK > KEPT:
            for n in set(self._blocks) - wanted - {0}:
                self._blocks.pop(n, None)
        from concurrent.futures import ThreadPoolExecutor

        requests = list(_merged(missing))
        threads = min(threads, len(requests))
        with ThreadPoolExecutor(threads) if threads > 1 else nullcontext() as pool:
            for fetched in (pool.map if pool else map)(self._fetch, requests):
                self._blocks.update(fetched)
                blocks.update(fetched)
        return blocks

    def _fetch(self, limits: tuple[int, int]) -> dict[int, memoryview]:
        first, last = limits
        start, stop = first * BLOCK, min((last + 1) * BLOCK, self._size)
        data = memoryview(self._read(start, stop - start))
        if len(data) != stop - start:
            raise CorruptFileError(f"{self._name}: ends at byte {start + len(data)} of {self._size}")
        return {n: data[n * BLOCK - start : (n + 1) * BLOCK - start] for n in range(first, last + 1)}

    def close(self) -> None:
        if not self.closed:
            self._blocks.clear()
            if self._on_close is not None:
                self._on_close()
        super().close()


def _merged(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and last block of each request by which blocks (sorted) are fetched."""
    first = last = numbers[0]
    for n in numbers[1:]:
        if (n - last - 1) * BLOCK > GAP or n - first >= LARGEST:
            yield first, last
            first = n
        last = n
    yield first, last


def stated_size(start: bytes) -> int | None:
    """Return the size of an HDF5 file that its superblock states; None if these aren't the first bytes of one.

    Superblocks of version 2 and 3 (HDF5 1.8 and later), with offsets of 8 bytes.
    """
    if len(start) < 36 or not start.startswith(SIGNATURE) or start[8] not in (2, 3) or start[9] != 8:
        return None
    return int.from_bytes(start[28:36], "little")


def _check_regular(status: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"{path} is a directory, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError(f"{path}: not a regular file")


def identity(status: os.stat_result) -> tuple[int, ...]:
    """Return what tells a file from another, and from a later one that replaced it."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def check_signature(source: io.RawIOBase | io.BufferedIOBase, name: str) -> None:
    """Raise `NotACompositeFileError` unless a file begins as HDF5 files do, and `BusyError` if it is being edited."""
    source.seek(0)
    start = source.read(12) or b""
    if not start.startswith(SIGNATURE):
        found = "it is empty" if not start else "its first bytes are others"
        raise NotACompositeFileError(f"{name}: not an HDF5 file ({found})")
    # Superblocks of version 3 say so. HDF5 itself only looks there if it also locks files.
    if len(start) == 12 and start[8] == 3 and start[11] & WRITING:
        raise BusyError(
            f"{name}: is open for writing by another program, or one died that had it so; if there is none, "
            f"`h5clear -s` takes the mark away, and `compositeh5 verify` tells whether the file is still whole"
        )


def check_bytes(source: io.RawIOBase | io.BufferedIOBase, digest: str, name: str) -> None:
    """Raise `DigestMismatchError` unless the bytes of a file have this digest, ``"sha256:"`` and 64 digits."""
    source.seek(0)
    hasher = hashlib.sha256()
    while block := source.read(BLOCK):
        hasher.update(block)
    if (found := f"sha256:{hasher.hexdigest()}") != digest.lower():
        raise DigestMismatchError(
            f"{name}: the digest of its bytes is {found}, but {digest} was expected; HDF5 hasn't seen it"
        )
