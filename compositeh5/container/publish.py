"""Putting a finished file in its place: all of it or nothing, and to stay.

The bytes go to a uniquely named temporary file in the same folder, are forced to the disk, and are then given their
name by one rename or hard link, which the folder is forced to remember. No final name is ever opened for writing, so a
killed process, a full disk or a power cut leaves the old file, or none, or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def publish(path: str, image: bytes, *, replace: bool) -> None:
    """Write a file.

    Parameters
    ----------
    path : str
        The final name. Its folder must exist.
    image : bytes
        The bytes of the file.
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
    with _temporary(path) as (temporary, fd):
        _write_all(fd, image)
        os.fsync(fd)
        if replace:
            os.replace(temporary, path)
        else:
            _link(temporary, path)
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)


def write_durably(path: str, image: bytes) -> None:
    """Fill a temporary file that somebody else will give its final name, and force it to the disk."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        _write_all(fd, image)
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _temporary(path: str) -> Iterator[tuple[str, int]]:
    folder, name = os.path.split(path)
    # Long names are cut: the temporary one must not be too long where the final one is not.
    temporary = os.path.join(folder, f".{name[:100]}.{os.urandom(8).hex()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        yield temporary, fd
    finally:
        os.close(fd)
        # After a rename it is gone; after a link or a failure it is in the way.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _write_all(fd: int, image: bytes) -> None:
    # Some systems write at most 2 GiB at a time, and any may write less than it was given.
    done = 0
    with memoryview(image) as view:
        while done < len(view):
            done += os.write(fd, view[done : done + (1 << 30)])


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
