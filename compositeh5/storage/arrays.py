"""Reading arrays of an HDF5 file: chunk by chunk past HDF5 where they are packed as we do it, else by HDF5."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from math import prod
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5s, h5z
from numpy.typing import NDArray

from ..errors import CorruptFileError, FormatError, LimitError, RefusedError, WrongIndexError, WrongTypeError
from . import chunks as _chunks
from .h5types import SCALAR, OpenHDF5, StoredAttrs, checked_dtype, decode_text, reading
from .nodes import ArrayNode, AttrValue, Selection
from .recipes import MAX_CHUNK_ELEMENTS, Recipe
from .threads import batches, for_each

_FILTERS = {
    h5z.FILTER_DEFLATE,
    h5z.FILTER_SHUFFLE,
    h5z.FILTER_FLETCHER32,
    h5z.FILTER_SZIP,
    h5z.FILTER_SCALEOFFSET,
}
_DEFLATED = [[h5z.FILTER_DEFLATE], [h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE]]

KEPT_BYTES = 16 * 1024 * 1024
"""Of chunks of which only a part was needed, so much is kept for each array: the next cutout may need the same ones."""

BYTES_AT_ONCE = 2 * 1024 * 1024
"""So much is read by one call of what is stored in one piece."""

AT_ONCE = 4
"""So many chunks are unpacked by a thread before it is given others."""


class StoredArray(ArrayNode):
    """A dataset of a file."""

    file: OpenHDF5
    """The file."""

    path: str
    """Its path in the file."""

    stored_bytes: int
    """Size of what is stored of it."""

    def __init__(self, file: OpenHDF5, did: h5d.DatasetID, path: str) -> None:
        self.file, self.path, self._did = file, path, did
        self.where = f"{file.name}:{path}"
        # Inflated, oldest first.
        self._kept: dict[tuple[int, ...], bytes] = {}
        self._was_read = False
        with reading(self.where):
            self._check()

    def _check(self) -> None:
        did, where = self._did, self.where
        tid, plist, space = did.get_type(), did.get_create_plist(), did.get_space()
        dtype = checked_dtype(tid, where)
        self._stored_dtype = np.dtype(f"S{tid.get_size()}") if dtype.kind == "U" else dtype
        self._tid = tid
        if space.get_simple_extent_type() not in (h5s.SIMPLE, h5s.SCALAR):
            raise RefusedError(f"{where}: an empty dataspace isn't part of this format")
        shape = tuple(int(n) for n in space.get_simple_extent_dims()) if space.get_simple_extent_ndims() else ()
        self._stored_shape = shape
        layout = plist.get_layout()
        if layout not in (h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED):
            raise RefusedError(f"{where}: a virtual dataset isn't read: its sources are other files")
        if layout != h5d.COMPACT and plist.get_external_count():
            raise RefusedError(f"{where}: data in another file aren't read")
        filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        if not _FILTERS.issuperset(filters) or len(set(filters)) < len(filters):
            raise RefusedError(f"{where}: filters {filters} aren't among those that every HDF5 reader has")
        self._chunks = tuple(int(n) for n in plist.get_chunk()) if layout == h5d.CHUNKED else None
        self._filters = filters
        self._level = int(plist.get_filter(len(filters) - 1)[2][0]) if filters in _DEFLATED else 0
        nbytes, stored = prod(shape) * tid.get_size(), did.get_storage_size()
        self.stored_bytes = stored
        chunk_bytes = 0 if self._chunks is None else prod(self._chunks) * tid.get_size()
        if self._chunks is None and stored != nbytes:
            # HDF5 would make up values, as for chunks that are missing.
            raise CorruptFileError(f"{where}: {nbytes} bytes are declared but {stored} are stored")
        limits = self.file.limits
        if max(nbytes, chunk_bytes) > stored * limits.ratio + limits.attribute_bytes:
            raise LimitError(f"{where}: {nbytes} bytes are declared but only {stored} are stored")

    @cached_property
    def attrs(self) -> Mapping[str, AttrValue]:  # type: ignore[override]
        return StoredAttrs(self.file, self._did, self.where)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return () if self._stored_shape == (1,) and SCALAR in self.attrs else self._stored_shape

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        # UTF-8 takes at least one byte a character, and one byte ends the text.
        size = self._stored_dtype.itemsize
        return np.dtype(f"U{max(size - 1, 1)}") if self._is_text else self._stored_dtype

    @property
    def chunks(self) -> tuple[int, ...] | None:
        return self._chunks

    @property
    def unit(self) -> tuple[int, ...] | None:
        return self._chunks if self._blocks is None else (self._blocks[0], *self._stored_shape[1:])

    @property
    def _is_text(self) -> bool:
        return self._stored_dtype.kind == "S" and self._tid.get_cset() == h5py.h5t.CSET_UTF8

    def read(self, selection: Selection = ()) -> NDArray[Any]:
        self.file.check_open(self.where)
        dense, steps = self._dense(selection)
        if self.file.is_remote:
            self.file.prefetch(self.extents(selection))
        with reading(self.where):
            values = self._read_dense(dense)
        if any(step > 1 for step in steps):
            values = values[tuple(slice(None, None, step) for step in steps)]
        if self._is_text:
            values = decode_text(values, self.where)
        elif values.dtype.kind == "b":
            # Bytes other than 0 and 1 would make invalid bools.
            values = np.asarray(values.view(np.uint8) != 0)
        return values.reshape(()) if self.shape != self._stored_shape else values

    def _dense(self, selection: Selection) -> tuple[Selection, tuple[int, ...]]:
        """Return the slice that covers a selection along each axis, and the steps to take in it."""
        shape = self._stored_shape
        if len(selection) > len(shape) or any(s.step is not None and s.step < 1 for s in selection):
            raise WrongIndexError(f"{self.where}: {selection} is no selection of shape {shape}")
        whole = (slice(None),) * (len(shape) - len(selection))
        limits = [s.indices(n) for s, n in zip((*selection, *whole), shape, strict=True)]
        return tuple(slice(a, max(a, b)) for a, b, _ in limits), tuple(step for _, _, step in limits)

    def extents(self, selection: Selection = ()) -> Iterator[tuple[int, int]]:
        """Yield where in the file the values are, or those of a selection: offsets and sizes."""
        with reading(self.where):
            dense = self._dense(selection)[0]
            if self._chunks is None:
                # None for a compact one, which is in its header.
                if self.stored_bytes and (offset := self._did.get_offset()) is not None:
                    rows, length = dense[0] if dense else slice(0, 1), self.stored_bytes // (*self._stored_shape, 1)[0]
                    block = self._blocks[0] if self._blocks else 1
                    start = rows.start // block * block
                    stop = min(-(-rows.stop // block) * block, self.stored_bytes // length)
                    yield offset + start * length, (stop - start) * length
                return
            for corner in _chunks.chunks_in(dense, self._chunks):
                info = self._did.get_chunk_info_by_coord(corner)
                if info.size:
                    yield info.byte_offset, info.size

    @cached_property
    def _blocks(self) -> tuple[int, NDArray[Any]] | None:
        """The rows of a block and the checksums of all, of an array that is stored in one piece and has them."""
        if self._chunks is not None or self._filters or _chunks.BLOCK_CRC not in self.attrs:
            return None
        rows, sums = self.attr(_chunks.BLOCK_ROWS, int), self.attr(_chunks.BLOCK_CRC, np.ndarray)
        count = -(-self._stored_shape[0] // rows) if self._stored_shape and rows > 0 else None
        if sums.shape != (count,) or sums.dtype.kind != "u":
            raise FormatError(f"{self.where}: {_chunks.BLOCK_CRC!r} isn't a checksum for each {rows} rows")
        return rows, sums

    @property
    def recipe(self) -> Recipe | None:
        if self._blocks is not None:
            return Recipe(contiguous=True)
        if self._chunks is None or self._filters not in _DEFLATED or prod(self._chunks) > MAX_CHUNK_ELEMENTS:
            return None
        return Recipe(gzip=min(self._level, 9), shuffle=len(self._filters) == 2, chunks=self._chunks)

    def memmap(self) -> NDArray[Any]:
        """Return the array mapped into memory: read-only, and not compared with its checksums."""
        self.file.check_open(self.where)
        offset = None if self._chunks is not None or self._filters else self._did.get_offset()
        mapped = self.file.mapped()
        if offset is None or mapped is None or self._stored_dtype.kind not in "iufc":
            raise WrongTypeError(
                f"{self.where}: only numbers in one piece in a file on a disk can be mapped into memory; "
                f"write the component by the recipe 'raw'"
            )
        if offset + self.stored_bytes > len(mapped):
            raise CorruptFileError(f"{self.where}: the file ends before its values")
        return np.frombuffer(mapped, self._stored_dtype, prod(self.shape), offset).reshape(self.shape)

    def _read_dense(self, selection: Selection) -> NDArray[Any]:
        shape = tuple(s.stop - s.start for s in selection)
        self.file.limits.check_read(prod(shape) * self._stored_dtype.itemsize, self.where)
        out = np.empty(shape, self._stored_dtype)
        if out.size == 0:
            return out
        if self._chunks is not None and self._filters in _DEFLATED:
            self._read_chunks(selection, out)
            return out
        if self._blocks is not None:
            self._read_blocks(selection, out, *self._blocks)
            return out
        if self._chunks is not None and self._did.get_num_chunks() < prod(
            -(-n // c) for n, c in zip(self._stored_shape, self._chunks, strict=True)
        ):
            raise CorruptFileError(f"{self.where}: chunks are missing")
        self._read_by_hdf5(selection, out)
        return out

    def _read_by_hdf5(self, selection: Selection, out: NDArray[Any]) -> None:
        if out.shape == self._stored_shape:
            self._did.read(h5s.ALL, h5s.ALL, out, self._tid)
            return
        space = self._did.get_space()
        space.select_hyperslab(tuple(s.start for s in selection), out.shape)
        self._did.read(h5s.create_simple(out.shape), space, out, self._tid)

    def _read_blocks(self, selection: Selection, out: NDArray[Any], rows: int, sums: NDArray[Any]) -> None:
        shape, (wanted, *rest) = self._stored_shape, selection
        row_bytes, offset = self.stored_bytes // shape[0], self._did.get_offset()
        all_columns = out.shape[1:] == shape[1:]

        def read(blocks: tuple[int, int]) -> None:
            first, last = blocks
            start, stop = first * rows, min(last * rows, shape[0])
            begin, end = max(start, wanted.start), min(stop, wanted.stop)
            target = out[begin - wanted.start : end - wanted.start]
            in_place = all_columns and (begin, end) == (start, stop)
            values = target if in_place else np.empty((stop - start, *shape[1:]), out.dtype)
            if self.file.read_at is None:
                self._read_by_hdf5((slice(start, stop), *(slice(0, n) for n in shape[1:])), values)
            else:
                self.file.read_into(offset + start * row_bytes, values.reshape(-1).view(np.uint8).data)
            for i in range(first, last):
                block = values[i * rows - start : (i + 1) * rows - start]
                if _chunks.crc32(block) != sums[i]:
                    raise CorruptFileError(
                        f"{self.where}: rows {i * rows} to {i * rows + len(block)} are damaged: their checksum is wrong"
                    )
            if not in_place:
                target[...] = values[(slice(begin - start, end - start), *rest)]

        at_once, stop = max(1, BYTES_AT_ONCE // (rows * row_bytes)), -(-wanted.stop // rows)
        starts = range(wanted.start // rows, stop, at_once)
        for_each(read, ((first, min(first + at_once, stop)) for first in starts), out.nbytes)

    def _read_chunks(self, selection: Selection, out: NDArray[Any]) -> None:
        assert self._chunks is not None
        chunks, shuffled = self._chunks, len(self._filters) == 2
        out_bytes = out.view(np.uint8).reshape(*out.shape, out.itemsize)
        # Not of the first read: new memory takes longer than what was just given back, and there may be no second one.
        keeps, self._was_read = self._was_read, True

        def fill(corner: tuple[int, ...]) -> None:
            kept = self._kept.get(corner)
            raw = self._read_chunk(corner, chunks) if kept is None else kept
            part, target = _chunks.overlap(corner, chunks, selection)
            _chunks.place(raw, chunks, shuffled, part, out_bytes[target])
            ends = (min(n, end - start) for start, n, end in zip(corner, chunks, self._stored_shape, strict=True))
            if keeps and any(s.start > 0 or s.stop < end for s, end in zip(part, ends, strict=True)):
                self._kept[corner] = raw
                while len(self._kept) * len(raw) > KEPT_BYTES:
                    # Another thread may be doing the same.
                    self._kept.pop(next(iter(self._kept.copy()), ()), None)

        def fill_some(corners: list[tuple[int, ...]]) -> None:
            for corner in corners:
                fill(corner)

        for_each(fill_some, batches(_chunks.chunks_in(selection, chunks), AT_ONCE), out.nbytes)

    def _read_chunk(self, corner: tuple[int, ...], chunks: tuple[int, ...]) -> bytes:
        info = self._did.get_chunk_info_by_coord(corner)
        if not info.size or info.filter_mask:
            raise CorruptFileError(f"{self.where}: the chunk at {corner} is missing or was stored unfiltered")
        # Past HDF5, which would take its lock and copy the bytes once more.
        read_at = self.file.read_at
        stored = read_at(info.byte_offset, info.size) if read_at else self._did.read_direct_chunk(corner)[1]
        try:
            return _chunks.unpack(stored, prod(chunks) * self._stored_dtype.itemsize)
        except ValueError as error:
            raise CorruptFileError(f"{self.where}: the chunk at {corner} is damaged: {error}") from error
