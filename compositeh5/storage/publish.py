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

from ..errors import NoSpaceError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_FSYNC = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}

STALE_SECONDS = 24 * 3600
"""Temporary files that nobody has written to for so long are deleted by the next writer in their folder, which looks
for them once in that time."""

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp", re.DOTALL)
_swept: dict[str, float] = {}
_forced: set[str] = set()
"""Folders whose names, and those of all above, were forced to the disk by this process."""


AHEAD_BYTES = 4 * 1024 * 1024
"""After so much was written, the system begins to bring it to the disk."""

Content = bytes | Callable[["Output"], object]
"""What a file is to have: its bytes, or what writes them."""


class Output(io.RawIOBase):
    """A new file that HDF5, or another library, writes to by Python.

    HDF5 crashes if a write fails while it closes a file. So none does: what can't be written, because the disk is
    full, say, stays in memory, and `check` raises the error.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd, self._position = fd, 0
        self._error: OSError | None = None
        self._unwritten: list[tuple[int, bytes]] = []
        self._begun = 0  # Up to here, the system has begun to bring it to the disk.

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
            if self._position - self._begun >= AHEAD_BYTES:
                self._begin_forcing()
            return len(view)

    def _begin_forcing(self) -> None:
        """Have the system begin to bring to the disk what was written, so that `os.fsync` has less to wait for.

        Linux does so with what it is told not to keep; what is not yet on the disk then, it does keep. An error is told
        by `os.fsync`, which still comes after all else.
        """
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._fd, self._begun, self._position - self._begun, os.POSIX_FADV_DONTNEED)
        self._begun = self._position

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
    """Write a file from its bytes, or by a function that writes them to an `Output`; see `named`."""
    with named(path, replace=replace) as temporary:
        write_durably(temporary, content)


@contextlib.contextmanager
def named(path: str, *, replace: bool) -> Iterator[str]:
    """Give a temporary path; what was written there by `write_durably` has its final name when the block ends.

    The folder must exist. Without ``replace`` exactly one of several writers succeeds: where a file has that name
    `FileExistsError` is raised, and the name forced to the disk, for its writer may have died before doing so. After
    any error nothing is left behind.
    """
    folder, name = os.path.split(path)
    folder = folder or "."
    _sweep(folder)
    # Long names are cut: the temporary one must not be too long where the final one is not.
    temporary = os.path.join(folder, f".{name[:100]}.{os.urandom(8).hex()}.tmp")
    try:
        yield temporary
        if replace:
            os.replace(temporary, path)
        else:
            _link(temporary, path)
    except FileExistsError:
        _force_names(folder)
        raise
    finally:
        # After a rename it is gone; after a link or a failure it is in the way.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    _force_names(folder)


def write_durably(path: str, content: Content) -> None:
    """Fill a file that nobody else knows of yet, and force its content, but not its name, to the disk.

    If the disk, or the user's part of it, is full it raises `NoSpaceError`.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            _fill(fd, content)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        text = f"{os.path.dirname(path)}: {os.strerror(error.errno)}; nothing was written"
        raise NoSpaceError(error.errno, text) from error


def make_folders(folder: str) -> None:
    """Make a folder, and those above it, where they don't exist."""
    if not os.path.isdir(folder):
        os.makedirs(folder, exist_ok=True)
        # They may have names that are known from folders that were deleted.
        _forced.clear()


def sync_folder(folder: str) -> None:
    """Do what is left to do in a folder where files were found finished: their writers may have died meanwhile.

    The names in it are forced to the disk, and old temporary files deleted.
    """
    _sweep(folder)
    _force_names(folder)


def _force_names(folder: str) -> None:
    """Force to the disk the names in a folder, and its own, and those of the folders above it, if it may be new.

    Whoever made them has maybe not done so. What this process has forced once, it doesn't again.
    """
    folder = os.path.abspath(folder)
    _force(folder, os.O_RDONLY | os.O_DIRECTORY)
    if folder in _forced:
        return
    above = os.path.realpath(folder)
    passed = [folder]
    while above not in _forced and not os.path.ismount(above):
        passed.append(above)
        above = os.path.dirname(above)
        # To pass through a folder, one need not be allowed to read it.
        with contextlib.suppress(PermissionError):
            _force(above, os.O_RDONLY | os.O_DIRECTORY)
    _forced.update(passed)


def _force(path: str, flags: int) -> None:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some network and user-space file systems have no fsync of folders; their names need none, or nothing helps.
        if not (flags & os.O_DIRECTORY and error.errno in _NO_FSYNC):
            raise
    finally:
        os.close(fd)


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
