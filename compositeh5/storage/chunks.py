"""Chunks of large arrays: their shape, and packing them by the shuffle and gzip filters.

Chunks are packed and unpacked here instead of in HDF5's filter pipeline. That is several times faster where the ISA-L
library is installed (extra ``fast``), never stores a chunk without its checksum (HDF5 leaves incompressible chunks
unfiltered), and gives damaged or hostile chunks no way past an exact check of their length. The bytes are
those of the standard filters: every HDF5 reader unpacks them.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from math import ceil, prod
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .nodes import ArrayNode, Selection

fast_zlib: ModuleType
try:
    from isal import isal_zlib as fast_zlib
except ImportError:
    fast_zlib = zlib

CHUNK_BYTES = 256 * 1024
"""Aimed size of a chunk: a small cutout of an image reads at most four of them."""

WORTHWHILE = 0.97
"""What does not become smaller than this part of it is stored as it is."""

SAMPLE_BYTES = 2048
"""Three pieces of this size are tried of bytes that didn't compress in the last chunk."""

BLOCK_ROWS, BLOCK_CRC = "block_rows", "block_crc32"
"""Attributes of an array that is stored in one piece: rows in each of its blocks, and the CRC-32 of each block."""

BLOCK_BYTES = 1024 * 1024
"""Aimed size of such a block: all of it is read to check a part."""

MAX_BLOCKS = 10_000
"""More checksums than these would be too large an attribute."""

Chunk = tuple[slice, ...]


def chunk_shape(shape: tuple[int, ...], itemsize: int, last: tuple[int, ...] = ()) -> tuple[int, ...]:
    """Return the shape of the chunks of an array that isn't empty.

    ``last`` gives lengths along the last axes. By default chunks are square in the last two axes (y, x) of an image, so
    that a cutout reads few of them, and run along the first axis of a table column.
    """
    elements = max(1, CHUNK_BYTES // itemsize)
    if not last and len(shape) > 1:
        side = 2 ** int(np.log2(elements**0.5))
        last = (max(1, elements // shape[-1]) if shape[-1] < side else side, side)
    chunks = [min(n, c) for n, c in zip(reversed(shape), reversed(last), strict=False)]
    for n in reversed(shape[: len(shape) - len(chunks)]):
        chunks.append(max(1, min(n, elements // prod(chunks))))
    return tuple(reversed(chunks))


def block_rows(shape: tuple[int, ...], itemsize: int) -> int:
    """Return the number of rows (along the first axis) of a block of an array that is stored in one piece."""
    return max(1, BLOCK_BYTES // (prod(shape[1:]) * itemsize), ceil(shape[0] / MAX_BLOCKS))


def crc32(values: NDArray[Any]) -> int:
    """Return the CRC-32 (that of gzip) of the bytes of an array in C order."""
    return int(fast_zlib.crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data))


def chunks_of(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Iterator[Chunk]:
    """Yield the index of each chunk of an array in C order; the last along an axis may be cut short by its end."""
    for position in product(*(range(ceil(n / c)) for n, c in zip(shape, chunks, strict=True))):
        yield tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(position, chunks, shape, strict=True))


def chunks_in(selection: tuple[slice, ...], chunks: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the first element of each chunk that a selection (slices of step 1, not empty) touches."""
    ranges = [range(s.start // c * c, s.stop, c) for s, c in zip(selection, chunks, strict=True)]
    return product(*ranges)


def overlap(corner: tuple[int, ...], lengths: tuple[int, ...], selection: Chunk) -> tuple[Chunk, Chunk]:
    """Return what a chunk and a selection (step 1) share: as a part of the chunk, and as a part of the selection."""
    part, target = [], []
    for start, length, wanted in zip(corner, lengths, selection, strict=True):
        first, last = max(start, wanted.start), min(start + length, wanted.stop)
        part.append(slice(first - start, last - start))
        target.append(slice(first - wanted.start, last - wanted.start))
    return tuple(part), tuple(target)


class Packer:
    """Packs the chunks of one array: filled up with zeros to full size, shuffled, deflated.

    Each byte of the shuffled elements is deflated apart, or kept as it is if that gains little: the low bytes of noisy
    pixels don't compress, and inflating them would take most of the time of a read. Such a byte is likely to be so in
    the next chunk as well: at level 1 a sample of it is tried first. Level 0 keeps all as it is. In each case the
    result is one stream with a checksum, as the gzip filter has them (RFC 1950, RFC 1951).
    """

    def __init__(self, chunks: tuple[int, ...], shuffle: bool, level: int) -> None:
        self._chunks, self._shuffle, self._level = chunks, shuffle, level
        self._kept: set[int] = set()
        """Bytes of an element that were kept as they are in the last chunk."""

    def pack(self, values: NDArray[Any]) -> bytes:
        """Return the stored bytes of the next chunk."""
        if values.shape != self._chunks:
            full = np.zeros(self._chunks, values.dtype)
            full[tuple(slice(0, n) for n in values.shape)] = values
            values = full
        raw = np.ascontiguousarray(values).view(np.uint8).reshape(-1, values.dtype.itemsize)
        shuffled = np.ascontiguousarray(raw.T) if self._shuffle else raw.reshape(1, -1)
        parts = [piece for i, part in enumerate(shuffled) for piece in self._part(i, part.data)]
        return b"".join([_ZLIB_HEADER, *parts, _END, fast_zlib.adler32(shuffled.data).to_bytes(4, "big")])

    def _part(self, number: int, data: memoryview) -> list[bytes | memoryview]:
        """Return the pieces of a part of a deflate stream, which ends with a byte."""
        is_tried = self._level > 1 or (self._level == 1 and (number not in self._kept or _sample_gains(data)))
        pieces = _deflated(data, self._level) if is_tried else None
        if pieces is None:
            self._kept.add(number)
            return [piece for i in range(0, len(data), _BLOCK) for piece in _as_it_is(data[i : i + _BLOCK])]
        self._kept.discard(number)
        return pieces


def _sample_gains(data: memoryview) -> bool:
    """Return whether some pieces of a part become smaller; also if it is too small to tell."""
    if len(data) < 8 * SAMPLE_BYTES:
        return True
    starts = (0, (len(data) - SAMPLE_BYTES) // 2, len(data) - SAMPLE_BYTES)
    return _deflated(b"".join(data[start : start + SAMPLE_BYTES] for start in starts), 1) is not None


def _deflated(data: bytes | memoryview, level: int) -> list[bytes | memoryview] | None:
    """Return the pieces of a part of a deflate stream; None if little is gained."""
    # Levels mean other things to ISA-L, which has no higher ones.
    deflate = fast_zlib if level == 1 else zlib
    compressor = deflate.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    first = _FIRST if deflate is not zlib and len(data) > _FIRST else 0
    pieces: list[bytes | memoryview] = []
    if first:
        compressor.compress(data[:first])
        compressor.flush(zlib.Z_SYNC_FLUSH)
        pieces += _as_it_is(data[:first])
    pieces += [compressor.compress(data[first:]), compressor.flush(zlib.Z_SYNC_FLUSH)]
    return pieces if sum(map(len, pieces)) < len(data) * WORTHWHILE else None


def _as_it_is(block: bytes | memoryview) -> list[bytes | memoryview]:
    """Return a block of a deflate stream that isn't compressed."""
    return [_stored_header(len(block)), block]


def _stored_header(size: int, is_last: bool = False) -> bytes:
    """Return what precedes bytes that are kept as they are."""
    return bytes([is_last]) + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little")


_ZLIB_HEADER = b"\x78\x01"

_BLOCK = 0xFFFF
"""Largest block that is kept as it is."""

_FIRST = 8
"""So many bytes at the start of a part are kept as they are, and given to ISA-L (2.32) alone: where the first one comes
with many others, it makes a hash of what a register of the processor happens to hold, an address, and so doesn't always
give the same stream."""

_END = _stored_header(0, is_last=True)
"""An empty block that ends a stream."""


def unpack(stored: bytes, size: int) -> bytes:
    """Return what a chunk of so many bytes was deflated from; ValueError unless it holds exactly that."""
    decompressor = fast_zlib.decompressobj()
    try:
        # One more than there should be, so that the checksum behind them is looked at.
        raw = decompressor.decompress(stored, size + 1)
    except (zlib.error, fast_zlib.error) as error:
        raise ValueError(f"its checksum or its compressed data are wrong ({error})") from error
    if len(raw) != size or not decompressor.eof:
        raise ValueError(f"it does not hold {size} bytes")
    return bytes(raw)


def place(raw: bytes, chunks: tuple[int, ...], shuffled: bool, part: Chunk, target: NDArray[np.uint8]) -> None:
    """Put a part of an unpacked chunk into an array, which has one more axis: that of the bytes of an element.

    What isn't wanted isn't touched: of 4 bytes that are shuffled, each goes to its place by itself.
    """
    itemsize = target.shape[-1]
    if shuffled:
        for i, plane in enumerate(np.frombuffer(raw, np.uint8).reshape(itemsize, *chunks)):
            target[..., i] = plane[part]
    else:
        target[...] = np.frombuffer(raw, np.uint8).reshape(*chunks, itemsize)[part]


KEPT_BYTES = 256 * 1024 * 1024
"""Of chunks that later parts need as well, so much is kept."""


def read_selections(node: ArrayNode, selections: Sequence[Selection]) -> Iterator[NDArray[Any]]:
    """Yield the values of many selections (slices of step 1 within the array) of an array, in their order.

    Each chunk is read once, when the first of them needs it, and kept until the last has had it; unless more than
    `KEPT_BYTES` would have to be kept. So memory is bounded by the size of the array, too.
    """
    unit = node.unit
    if unit is None or len(selections) == 1:
        yield from map(node.read, selections)
        return
    # A chunk that only one of them needs isn't worth keeping.
    users = Counter(corner for selection in selections for corner in chunks_in(selection, unit))
    kept: dict[tuple[int, ...], NDArray[Any]] = {}
    room = KEPT_BYTES // (int(np.prod(unit)) * node.dtype.itemsize)
    for selection in selections:
        corners = list(chunks_in(selection, unit))
        if all(users[corner] == 1 and corner not in kept for corner in corners):
            yield node.read(selection)
            continue
        out = np.empty(tuple(s.stop - s.start for s in selection), node.dtype)
        for corner in corners:
            chunk = kept.get(corner)
            if chunk is None:
                chunk = node.read(tuple(slice(a, a + n) for a, n in zip(corner, unit, strict=True)))
            part, target = overlap(corner, chunk.shape, selection)
            out[target] = chunk[part]
            users[corner] -= 1
            if users[corner]:
                kept[corner] = chunk
                if len(kept) > room:
                    del kept[next(iter(kept))]
            else:
                kept.pop(corner, None)
        yield out
