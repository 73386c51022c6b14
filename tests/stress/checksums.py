"""The checksums of the metadata of HDF5 files: what has one, and how it is made right after a change.

A checksum notices any change, so what is behind it is only tried by files whose checksums are right. The layouts are
those of the HDF5 File Format Specification, version 3.0, for offsets and lengths of 8 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_MASK = 0xFFFFFFFF
_SEARCHED = 1024
"""Structures whose size isn't known from their beginning have at most so many bytes in files of our size."""


def lookup3(data: bytes) -> int:
    """Return the checksum that HDF5 gives its metadata: ``hashlittle`` of Bob Jenkins' lookup3, of seed 0."""
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    blocks = max(0, (len(data) - 1) // 12)
    words = struct.unpack_from(f"<{3 * blocks}I", data)
    for i in range(0, 3 * blocks, 3):
        a, b, c = (a + words[i]) & _MASK, (b + words[i + 1]) & _MASK, (c + words[i + 2]) & _MASK
        a = ((a - c) & _MASK) ^ _rotated(c, 4)
        c = (c + b) & _MASK
        b = ((b - a) & _MASK) ^ _rotated(a, 6)
        a = (a + c) & _MASK
        c = ((c - b) & _MASK) ^ _rotated(b, 8)
        b = (b + a) & _MASK
        a = ((a - c) & _MASK) ^ _rotated(c, 16)
        c = (c + b) & _MASK
        b = ((b - a) & _MASK) ^ _rotated(a, 19)
        a = (a + c) & _MASK
        c = ((c - b) & _MASK) ^ _rotated(b, 4)
        b = (b + a) & _MASK
    if not data:
        return c
    x, y, z = struct.unpack("<3I", data[12 * blocks :].ljust(12, b"\0"))
    a, b, c = (a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK
    c = ((c ^ b) - _rotated(b, 14)) & _MASK
    a = ((a ^ c) - _rotated(c, 11)) & _MASK
    b = ((b ^ a) - _rotated(a, 25)) & _MASK
    c = ((c ^ b) - _rotated(b, 16)) & _MASK
    a = ((a ^ c) - _rotated(c, 4)) & _MASK
    b = ((b ^ a) - _rotated(a, 14)) & _MASK
    return ((c ^ b) - _rotated(b, 24)) & _MASK


def _rotated(x: int, bits: int) -> int:
    return ((x << bits) | (x >> (32 - bits))) & _MASK


@dataclass(frozen=True)
class Structure:
    """A part of a file with a checksum: from ``start`` to ``stop``, without the four bytes at ``place``."""

    start: int
    stop: int
    place: int

    def checksum(self, data: bytes | bytearray) -> int:
        content = bytearray(data[self.start : self.stop])
        if self.place < self.stop:
            content[self.place - self.start : self.place - self.start + 4] = bytes(4)
        return lookup3(bytes(content))

    def is_signed(self, data: bytes | bytearray) -> bool:
        return self.place + 4 <= len(data) and self.checksum(data) == struct.unpack_from("<I", data, self.place)[0]

    def sign(self, data: bytearray) -> None:
        struct.pack_into("<I", data, self.place, self.checksum(data))


def structures(data: bytes) -> list[Structure]:
    """Return all parts of a file that have a checksum.

    Raises
    ------
    ValueError
        If one isn't found to be right.
    """
    found = [Structure(0, 44, 44)]
    for signature, candidates in _CANDIDATES.items():
        start = -1
        while (start := data.find(signature, start + 1)) >= 0:
            right = (each for each in candidates(data, start) if each.is_signed(data))
            if (structure := next(right, None)) is not None:
                found.append(structure)
            elif signature in (b"OHDR", b"OCHK"):
                raise ValueError(f"no checksum is right for {signature!r} at {start}")
    if not found[0].is_signed(data):
        raise ValueError("the checksum of the superblock is wrong, or it is of another version than 2 or 3")
    return found


def _ends(start: int, *sizes: int) -> Iterator[Structure]:
    return (Structure(start, start + size, start + size) for size in sizes)


def _object_header(data: bytes, start: int) -> Iterator[Structure]:
    flags = data[start + 5]
    at = start + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    return _ends(start, at + width - start + int.from_bytes(data[at : at + width], "little"))


def _continuation(data: bytes, start: int) -> Iterator[Structure]:
    # Its size is only in the message that leads to it.
    at, address = -1, start.to_bytes(8, "little")
    while (at := data.find(address, at + 1)) >= 0:
        size = int.from_bytes(data[at + 8 : at + 16], "little")
        if 8 <= size <= len(data) - start:
            yield from _ends(start, size - 4)


def _heap_block(data: bytes, start: int) -> Iterator[Structure]:
    for size in (512 << k for k in range(12)):
        for width in (2, 3, 4, 5, 8):
            if start + size <= len(data):
                yield Structure(start, start + size, start + 13 + width)


_CANDIDATES = {
    b"OHDR": _object_header,
    b"OCHK": _continuation,
    b"FRHP": lambda data, start: _ends(start, 142),
    b"FHDB": _heap_block,
    b"BTHD": lambda data, start: _ends(start, 34),
    **{
        name: lambda data, start: _ends(start, *range(6, min(_SEARCHED, len(data) - start - 3)))
        for name in (b"FHIB", b"BTLF", b"BTIN", b"FSHD", b"FSSE")
    },
}
