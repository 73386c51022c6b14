"""Putting a finished file in its place: all of it or nothing, and to stay.

The bytes go to a uniquely named temporary file in the same folder, are forced to the disk, and are then given their
name by one rename or hard link, which the folder is forced to remember. No final name is ever opened for writing, so a
killed process, a full disk or a power cut leaves the old file, or none, or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import time
from collections.abc import Callable, Iterator

_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}

STALE_SECONDS = 24 * 3600
"""Temporary files that nobody has written to for so long are deleted by the next writer in their folder, which looks
for them once in that time."""

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp", re.DOTALL)
_swept: dict[str, float] = {}


Content = bytes | Callable[["Output"], object]
"""What a file is to have: its bytes, or what writes them."""


class Output(io.RawIOBase):
    """A new file that HDF5, or another library, writes to by Python.

    HDF5 crashes if a write fails while it closes a file. So none does: what can't be written, because the disk is
    full, say, stays in memory, and `check` raises the error.

    Parameters
    ----------
    fd : int
        File descriptor, open for reading and writing.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd, self._position = fd, 0
        self._error: OSError | None = None
        self._unwritten: list[tuple[int, bytes]] = []

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        size = os.fstat(self._fd).st_size
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer from the current position, and return the number of bytes read."""
        start, size = self._position, len(buffer)
        count = os.preadv(self._fd, [buffer], start)
        buffer[count:] = bytes(size - count)
        for offset, data in self._unwritten:
            first, last = max(start, offset), min(start + size, offset + len(data))
            if first < last:
                buffer[first - start : last - start] = data[first - offset : last - offset]
        self._position += size
        return size

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        """Write all bytes at the current position."""
        with memoryview(data).cast("B") as view:
            done = 0
            while done < len(view) and self._error is None:
                try:
                    # Some systems write at most 2 GiB at a time, and any may write less than it was given.
                    done += os.pwrite(self._fd, view[done : done + (1 << 30)], self._position + done)
                except OSError as error:
                    self._error = error
            if self._error is not None:
                self._unwritten.append((self._position, bytes(view)))
            self._position += len(view)
            return len(view)

    def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            self._error = self._error or error
        return size

    def check(self) -> None:
        """Raise the `OSError` of the first write that failed, if any."""
        if self._error is not None:
            raise OSError(*self._error.args)


def publish(path: str, content: Content, *, replace: bool) -> None:
    """Write a file.

    Parameters
    ----------
    path : str
        The final name. Its folder must exist.
    content : bytes or callable
        The bytes of the file, or a function that writes them to an `Output`.
    replace : bool
        Whether a file of that name is replaced. Where it is not, exactly one of several writers succeeds.

    Raises
    ------
    FileExistsError
        If there is a file of that name, and ``replace`` is False. It is untouched.
    OSError
        If the disk is full, the folder can't be written to, and so on; nothing is left behind.
    """
    folder = os.path.dirname(path) or "."
    _sweep(folder)
    with _temporary(path) as (temporary, fd):
        _fill(fd, content)
        if replace:
            os.replace(temporary, path)
        else:
            _link(temporary, path)
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)


def write_durably(path: str, content: Content) -> None:
    """Fill a temporary file that somebody else will give its final name, and force it to the disk."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        _fill(fd, content)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _temporary(path: str) -> Iterator[tuple[str, int]]:
    folder, name = os.path.split(path)
    # Long names are cut: the temporary one must not be too long where the final one is not.
    temporary = os.path.join(folder, f".{name[:100]}.{os.urandom(8).hex()}.tmp")
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        yield temporary, fd
    finally:
        os.close(fd)
        # After a rename it is gone; after a link or a failure it is in the way.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _fill(fd: int, content: Content) -> None:
    with Output(fd) as output:
        if callable(content):
            content(output)
        else:
            output.write(content)
        output.check()
        os.fsync(fd)


def _link(temporary: str, path: str) -> None:
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        # Without hard links two writers can meet between these two calls; both then hold whole files.
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None
        os.replace(temporary, path)


def _sweep(folder: str) -> None:
    """Delete the temporary files of writers that were killed: those that nobody has written to for a day."""
    now = time.time()
    if now - _swept.get(folder, 0) < STALE_SECONDS:
        return
    _swept[folder] = now
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    if now - entry.stat(follow_symlinks=False).st_mtime > STALE_SECONDS:
                        os.unlink(entry.path)
