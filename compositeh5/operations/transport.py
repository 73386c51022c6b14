"""Bringing results home from other processes: large arrays through shared memory, all else pickled.

Through the pipe of a pool an array is copied four times, and twice of that by the process that waits for all of them.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import ACCESS_COPY, mmap
from tempfile import TemporaryDirectory, mkstemp
from typing import Any

_MEMORY = "/dev/shm"
"""A folder whose files are in memory."""

_LARGE = 256 * 1024
"""Fewer bytes than these go through the pipe."""

_ALIGNED = 64


@dataclass(frozen=True)
class Packed:
    """Results on their way.

    Attributes
    ----------
    content : bytes
        A pickle of them without the contents of their arrays.
    sizes : tuple of int
        Bytes of each array.
    arrays : tuple of bytes or str
        The contents themselves, or the file that has them one after the other.
    """

    content: bytes
    sizes: tuple[int, ...]
    arrays: tuple[bytes, ...] | str

    def unpack(self) -> Any:
        """Return the results; once only. Arrays can be written to, and each keeps what it needs of the memory."""
        if not isinstance(self.arrays, str):
            return pickle.loads(self.content, buffers=[bytearray(one) for one in self.arrays])
        fd = os.open(self.arrays, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.unlink(self.arrays)
            # A page that is written to is copied then.
            memory = memoryview(mmap(fd, 0, access=ACCESS_COPY))
        finally:
            os.close(fd)
        views, offset = [], 0
        for size in self.sizes:
            views.append(memory[offset : offset + size])
            offset += size + -size % _ALIGNED
        return pickle.loads(self.content, buffers=views)


@dataclass(frozen=True)
class Sender:
    """What another process needs to know to send results.

    Attributes
    ----------
    home : int
        The process that waits for them.
    folder : str
        Where it looks for large arrays; not there, or empty, if they can't be sent so.
    """

    home: int
    folder: str

    def pack(self, results: Sequence[Any]) -> Packed | Sequence[Any]:
        """Return what is to be sent: the results as they are if they are already where they should be."""
        if os.getpid() == self.home:
            return results
        buffers: list[pickle.PickleBuffer] = []
        content = pickle.dumps(results, protocol=5, buffer_callback=buffers.append)
        arrays = [buffer.raw() for buffer in buffers]
        sizes = tuple(one.nbytes for one in arrays)
        path = self._write(arrays) if sum(sizes) >= _LARGE and self.folder else None
        return Packed(content, sizes, tuple(map(bytes, arrays)) if path is None else path)

    def _write(self, arrays: list[memoryview]) -> str | None:
        """Write arrays to a file; return None if that isn't possible: on another machine, or without space."""
        try:
            fd, path = mkstemp(dir=self.folder)
        except OSError:
            return None
        try:
            with open(fd, "wb", buffering=0) as file:
                # Written, not mapped: memory that isn't there is then an error, and doesn't kill the process.
                for one in arrays:
                    done = 0
                    while done < one.nbytes:
                        done += file.write(one[done:])
                    file.write(bytes(-one.nbytes % _ALIGNED))
        except OSError:
            os.unlink(path)
            return None
        return path


@contextmanager
def sender() -> Iterator[Sender]:
    """Give a `Sender` to this process. What was not fetched by the end is dropped."""
    if not os.access(_MEMORY, os.W_OK):
        yield Sender(os.getpid(), "")
        return
    # Who is late finds no folder, and sends through the pipe what nobody waits for.
    with TemporaryDirectory(dir=_MEMORY, prefix="compositeh5-", ignore_cleanup_errors=True) as folder:
        yield Sender(os.getpid(), folder)
