"""Files as HDF5 gets to see them: opened and checked by us, read at given offsets, never locked or written.

HDF5's own file driver would lock files, refuse one that this process has open with other settings, and block on
a FIFO.
"""

from __future__ import annotations

import io
import os
import stat

from ..errors import NotACompositeFileError, RefusedError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


class FileSource(io.RawIOBase):
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
        self.identity = identity(status)
        self._size = status.st_size
        self._position = 0

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
