"""Opening files that HDF5 refuses as a whole, so that checksums can tell which parts of them are still good.

HDF5 opens no file that is shorter than its first 48 bytes, the superblock, say, and none whose superblock is damaged,
though everything else may be whole. Here it gets to see a file of the right length and with a right superblock; nothing
is written. What is missing can't be taken for values: reading it is an error, or gives zeros that no checksum confirms.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import CorruptFileError
from .files import OpenFile
from .limits import LIMITS, Limits
from .source import SIGNATURE, WRITING, FileSource, stated_size

SUPERBLOCK_BYTES = 48
"""Size of a superblock of version 3 with offsets and lengths of 8 bytes, as files of this format have it."""

_OBJECT_HEADER = b"OHDR"
_FLAGS = 11
"""Offset of the byte that says whether somebody has the file open for writing."""
_UNDEFINED = b"\xff" * 8
_UINT32 = 0xFFFFFFFF


@contextmanager
def salvaged(path: str, kind: type[OpenFile], limits: Limits = LIMITS) -> Iterator[tuple[OpenFile, str]]:
    """Open a file on a disk that may be damaged, also one that HDF5 itself wouldn't open.

    Parameters
    ----------
    path : str
        Path of the file.
    kind : type
        How it is read: `StoredFile` or `IsolatedFile`.
    limits : Limits, optional
        What it may ask for.

    Yields
    ------
    file : OpenFile
        The file. No other user gets it.
    damage : str
        What is wrong with the file as a whole; empty if nothing is.

    Raises
    ------
    OSError
        If it can't be opened: `FileNotFoundError`, `PermissionError`, `NotACompositeFileError`, `CorruptFileError`,
        `RefusedError`.
    """
    source = _SalvagedSource(path)
    try:
        file = kind(source, path, limits)
        try:
            yield file, source.damage
        finally:
            file.close()
    finally:
        source.close()


class _SalvagedSource(FileSource):
    """A file as it should be: as long as it says, and with a superblock that can be read."""

    as_stored = False

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._path, self._present, self.damage = path, self._size, ""
        start = FileSource.read_at(self, 0, SUPERBLOCK_BYTES + len(_OBJECT_HEADER))
        self._start = start[:SUPERBLOCK_BYTES]
        is_right = _is_right(self._start)
        stated = stated_size(self._start) if is_right and not self._start[_FLAGS] & WRITING else None
        if stated is not None:
            if stated > self._present:
                self.damage = f"the file was cut off: it has {self._present} of {stated} bytes"
                self._size = stated
        elif start[SUPERBLOCK_BYTES:] == _OBJECT_HEADER:
            # The root group follows at once. How long the file was isn't known otherwise.
            self._start = superblock(self._present)
            self.damage = (
                "it is marked as open for writing by another program, which may have died"
                if is_right
                else f"its superblock, the first {SUPERBLOCK_BYTES} bytes, is damaged"
            )

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer from the current position, with zeros behind what is there; return its length."""
        start, size = self._position, len(buffer)
        if self._present <= start < self._size:
            # All of it is lost; whoever asks for gigabytes of it must not get zeros.
            raise CorruptFileError(f"{self._path}: ends before byte {start + size}")
        count = super().readinto(buffer)
        if start < len(self._start):
            known = self._start[start : start + size]
            buffer[: len(known)] = known
        self._position = start + size
        return size if start < self._size else count

    def read_at(self, offset: int, size: int) -> bytes:
        data = super().read_at(offset, size)
        if offset < len(self._start):
            known = self._start[offset : offset + size]
            data = known + data[len(known) :]
        # Of what is missing, whoever asks for it alone gets nothing.
        return data.ljust(min(size, self._size - offset), b"\0") if offset < self._present else data


def superblock(size: int, root: int = SUPERBLOCK_BYTES) -> bytes:
    """Return the superblock of a file (HDF5 File Format Specification 3.0, II.A.2).

    Parameters
    ----------
    size : int
        Size of the file.
    root : int, optional
        Where the header of the root group is.
    """
    # Version 3; offsets and lengths of 8 bytes; no flags; base address 0; no extension.
    fields = bytes([3, 8, 8, 0]) + bytes(8) + _UNDEFINED + size.to_bytes(8, "little") + root.to_bytes(8, "little")
    return SIGNATURE + fields + lookup3(SIGNATURE + fields).to_bytes(4, "little")


def _is_right(start: bytes) -> bool:
    is_whole = len(start) == SUPERBLOCK_BYTES and start[:8] == SIGNATURE
    return is_whole and lookup3(start[:-4]) == int.from_bytes(start[-4:], "little")


def lookup3(data: bytes) -> int:
    """Return the checksum of HDF5's metadata: Bob Jenkins' ``hashlittle`` (lookup3.c, 2006) with initial value 0."""
    a = b = c = (0xDEADBEEF + len(data)) & _UINT32
    if not data:
        return c
    words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
    words += [0] * (-len(words) % 3)
    last = len(words) - 3
    for i in range(0, last, 3):
        a, b, c = ((n + words[i + j]) & _UINT32 for j, n in enumerate((a, b, c)))
        for turn in (4, 6, 8, 16, 19, 4):
            # Each step changes one of the three in turn.
            a = ((a - c) ^ _rotated(c, turn)) & _UINT32
            c = (c + b) & _UINT32
            a, b, c = b, c, a
    a, b, c = ((n + words[last + j]) & _UINT32 for j, n in enumerate((a, b, c)))
    for turn in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _rotated(b, turn)) & _UINT32
        a, b, c = b, c, a
    return b


def _rotated(word: int, bits: int) -> int:
    return (word << bits | word >> (32 - bits)) & _UINT32
