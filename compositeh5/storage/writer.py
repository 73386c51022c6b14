"""Writing a tree of nodes as the image of an HDF5 file.

HDF5 itself never writes to a disk, where a full one can crash it, but to a file object: one in memory, or that of
`publish`. The same tree always gives the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, TypeAlias

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5g, h5p, h5s
from numpy.typing import NDArray

from ..errors import EncodeError
from . import chunks as _chunks
from .h5types import SCALAR, text_type, to_stored
from .limits import LIMITS
from .nodes import ArrayNode, AttrValue, ExternalLink, Group, GroupNode, Node, SoftLink
from .publish import Output
from .recipes import Recipe
from .threads import batches, in_order

COMPACT_BYTES = 16 * 1024
"""Arrays up to this size are kept in the object header, whose checksum covers them."""

COMPACT_TEXT_BYTES = 60_000
"""The same for a single text: it can't be cut into chunks."""

ATTRIBUTE_BYTES = 60_000
"""Largest attribute; HDF5 readers are only sure to take up to 64 KiB."""

CHUNK_LIMIT = 2**32 - 1
"""Largest chunk in bytes that HDF5 knows."""

ALIGNMENT = 64
"""Bytes of which the places of arrays that can be mapped into memory are multiples."""

_LAST = "complete"
"""Attribute that gets its value after everything else is written."""

EARLY_BYTES = 1024 * 1024
"""The chunks of arrays up to this size come before those of larger ones: a remote reader has them with the metadata."""

GROUP_BYTES = 2 * 1024 * 1024
"""Chunks of so much in memory are packed together by one thread."""


_Pending: TypeAlias = list[tuple[int, Iterator[None]]]
"""Sizes of arrays in memory, and what writes one of their chunks at each step, when all in front has its place."""


def file_image(root: GroupNode) -> bytes:
    """Return the bytes of an HDF5 file with this root group; see `write_image`."""
    image = io.BytesIO()
    write_image(root, image)
    # Not a view of the buffer: Python 3.12.1 crashes when such a pair is garbage.
    return image.getvalue()


def write_image(root: GroupNode, output: io.RawIOBase | io.BytesIO) -> None:
    """Write an HDF5 file with this root group, for HDF5 1.10 and later.

    Beside the tree it takes the memory of a few groups of chunks, which have `GROUP_BYTES` or one chunk each.

    Groups, attributes, links and small arrays come first in the file, then the chunks of larger arrays, last those of
    the largest, each array in one piece.
    """
    fapl = h5p.create(h5p.FILE_ACCESS)
    fapl.set_fclose_degree(h5f.CLOSE_STRONG)
    fapl.set_libver_bounds(h5f.LIBVER_V110, h5f.LIBVER_V110)
    fapl.set_fileobj_driver(h5py.h5fd.fileobj_driver, output)
    # One block for all metadata, so that a single read at the front of the file finds it.
    fapl.set_meta_block_size(_metadata_bytes(root, None))
    if _is_mapped(root):
        # Numbers that are mapped into memory should begin where the processor likes it.
        fapl.set_alignment(COMPACT_BYTES, ALIGNMENT)
    fcpl = h5p.create(h5p.FILE_CREATE)
    fcpl.set_link_creation_order(h5p.CRT_ORDER_TRACKED | h5p.CRT_ORDER_INDEXED)
    _keep_lean(fcpl)
    file = h5f.create(b"image", h5f.ACC_TRUNC, fcpl, fapl)
    try:
        pending: _Pending = []
        group = h5g.open(file, b"/")
        marked = _LAST in root.attrs
        _write_attrs(group, root, {_LAST: 0} if marked else {})
        _write_children(group, root, pending, None)
        # Parts of the metadata only get their places now, in front of the chunks.
        h5f.flush(file)
        for _, chunks in sorted(pending, key=lambda array: array[0] > EARLY_BYTES):
            for _ in chunks:
                if isinstance(output, Output):
                    output.check()
        if marked:
            # A value, not a new attribute: that would be behind the chunks.
            h5a.open(group, _LAST.encode()).write(np.asarray(root.attrs[_LAST], np.int64))
        h5f.flush(file)
    finally:
        file.close()
        # Were it alive when the process ends, as in the traceback of an error, HDF5 would crash giving up the output.
        fapl.close()


def _write_children(
    parent: h5g.GroupID, node: GroupNode, pending: _Pending, recipe: Recipe | None, depth: int = 0
) -> None:
    if depth > LIMITS.depth:
        raise EncodeError(f"{node.where}: nested deeper than the {LIMITS.depth} groups that a reader accepts")
    for name in node:
        child, link, own = node[name], name.encode(), node.recipes.get(name, recipe)
        if isinstance(child, ExternalLink):
            parent.links.create_external(link, child.file.encode(), child.target.encode())
        elif isinstance(child, SoftLink):
            parent.links.create_soft(link, child.target.encode())
        elif isinstance(child, ArrayNode):
            _write_array(parent, link, child, pending, own)
        elif isinstance(child, GroupNode):
            gcpl = h5p.create(h5p.GROUP_CREATE)
            gcpl.set_link_creation_order(h5p.CRT_ORDER_TRACKED | h5p.CRT_ORDER_INDEXED)
            _keep_lean(gcpl)
            group = h5g.create(parent, link, gcpl=gcpl)
            _write_attrs(group, child)
            _write_children(group, child, pending, own, depth + 1)
        else:
            raise EncodeError(f"{child.where}: a {type(child).__name__} can't be written")


def _write_array(parent: h5g.GroupID, link: bytes, node: ArrayNode, pending: _Pending, recipe: Recipe | None) -> None:
    dcpl = h5p.create(h5p.DATASET_CREATE)
    _keep_lean(dcpl)
    # Strings are encoded at once, since the size of each depends on all of them.
    strings, tid = to_stored(node.read() if node.dtype.kind in "US" else np.empty(0, node.dtype), node.where)
    is_text = node.dtype.kind in "US"
    size = prod(node.shape) * tid.get_size()
    if size <= (COMPACT_BYTES if node.shape else COMPACT_TEXT_BYTES):
        values = strings if is_text else to_stored(node.read(), node.where)[0]
        dcpl.set_layout(h5d.COMPACT)
        dataset = h5d.create(parent, link, tid, _space(node.shape), dcpl=dcpl)
        if values.size:
            dataset.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(values), tid)
        _write_attrs(dataset, node)
        return
    shape = node.shape or (1,)
    # What is copied is stored as it was, if nothing else is asked for.
    recipe = recipe or node.recipe or Recipe()
    if recipe.contiguous and not is_text:
        pending.append((size, _write_contiguous(parent, link, node, dcpl, tid)))
        return
    chunks = _chunks.chunk_shape(shape, tid.get_size(), recipe.chunks)
    if prod(chunks) * tid.get_size() > CHUNK_LIMIT:
        raise EncodeError(f"{node.where}: chunks of shape {chunks} and type {node.dtype} have more than 4 GiB")
    dcpl.set_chunk(chunks)
    shuffle = recipe.shuffle and recipe.gzip > 0 and not is_text and tid.get_size() > 1
    if shuffle:
        dcpl.set_shuffle()
    dcpl.set_deflate(recipe.gzip)
    dcpl.set_fill_time(h5d.FILL_TIME_NEVER)
    dataset = h5d.create(parent, link, tid, _space(shape), dcpl=dcpl)
    _write_attrs(dataset, node, {} if node.shape else {SCALAR: True})
    # The index of the chunks gets its place with the first of them: in front, before any that is large.
    dataset.write_direct_chunk((0,) * len(shape), b"\0")

    whole = strings.reshape(shape) if is_text else None

    def pack(group: list[_chunks.Chunk]) -> list[tuple[_chunks.Chunk, bytes]]:
        packer = _chunks.Packer(chunks, shuffle, recipe.gzip)
        return [(index, packer.pack(node.read(index) if whole is None else whole[index])) for index in group]

    def write_chunks() -> Iterator[None]:
        # What a group of chunks becomes doesn't depend on how many threads there are.
        at_once = max(1, GROUP_BYTES // (prod(chunks) * tid.get_size()))
        for group in in_order(pack, batches(_chunks.chunks_of(shape, chunks), at_once), size):
            for index, packed in group:
                yield dataset.write_direct_chunk(tuple(s.start for s in index), packed)

    pending.append((size, write_chunks()))


def _write_contiguous(
    parent: h5g.GroupID, link: bytes, node: ArrayNode, dcpl: h5p.PropDCID, tid: h5py.h5t.TypeID
) -> Iterator[None]:
    """Make an array that is to be stored in one piece, and return what writes its values and then their checksums."""
    rows = _chunks.block_rows(node.shape, tid.get_size())
    starts = range(0, node.shape[0], rows)
    dcpl.set_layout(h5d.CONTIGUOUS)
    dcpl.set_fill_time(h5d.FILL_TIME_NEVER)
    dataset = h5d.create(parent, link, tid, _space(node.shape), dcpl=dcpl)
    sums = np.zeros(len(starts), np.uint32)
    _write_attrs(dataset, node, {_chunks.BLOCK_ROWS: rows, _chunks.BLOCK_CRC: sums})

    def write_blocks() -> Iterator[None]:
        space = dataset.get_space()
        for i, start in enumerate(starts):
            values = np.ascontiguousarray(node.read((slice(start, start + rows),)))
            sums[i] = _chunks.crc32(values)
            space.select_hyperslab((start,) + (0,) * (node.ndim - 1), values.shape)
            yield dataset.write(_space(values.shape), space, values, tid)
        h5a.open(dataset, _chunks.BLOCK_CRC.encode()).write(sums)

    return write_blocks()


def _keep_lean(plist: Any) -> None:
    """Have an object be without times of its writing, and with its attributes in its header: no index to read first."""
    plist.set_obj_track_times(False)
    plist.set_attr_phase_change(LIMITS.attributes, LIMITS.attributes)


def _space(shape: tuple[int, ...]) -> h5s.SpaceID:
    return h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)


def _write_attrs(owner: Any, node: Node, more: Mapping[str, AttrValue] | None = None) -> None:
    # Checksums of blocks are of the file from which a node is copied.
    own = {name: value for name, value in node.attrs.items() if name not in (_chunks.BLOCK_ROWS, _chunks.BLOCK_CRC)}
    attrs = {**own, **(more or {})}
    for name in sorted(attrs):
        where = f"{node.where}@{name}"
        stored, tid = _stored_attr(attrs[name], where)
        if stored.size * tid.get_size() > ATTRIBUTE_BYTES:
            raise EncodeError(
                f"{where}: an attribute of {stored.size * tid.get_size()} bytes is too large "
                f"(limit {ATTRIBUTE_BYTES}); store it as a component"
            )
        attribute = h5a.create(owner, name.encode(), tid, _space(stored.shape))
        attribute.write(np.ascontiguousarray(stored), tid)


def _stored_attr(value: AttrValue, where: str) -> tuple[NDArray[Any], h5py.h5t.TypeID]:
    stored, tid = to_stored(np.asarray(value), where)
    if isinstance(value, str) and value.isascii():
        # Readers of the HDF5 Image conventions compare ASCII text.
        tid = text_type(tid.get_size() - 1, ascii_only=True)
    return stored, tid


def _is_mapped(node: Node) -> bool:
    """Return whether the recipe of any array is that of one that can be mapped into memory."""
    if isinstance(node, ArrayNode):
        return node.recipe is not None and node.recipe.contiguous
    return isinstance(node, Group) and (
        any(recipe.contiguous for recipe in node.recipes.values()) or any(map(_is_mapped, node.children.values()))
    )


def _metadata_bytes(node: Node, recipe: Recipe | None) -> int:
    """Return a generous estimate of the metadata of a tree: headers, attributes, small arrays, chunk indexes."""
    size = 512 + sum(64 + len(name) + np.asarray(value).nbytes for name, value in node.attrs.items())
    if isinstance(node, ArrayNode):
        # Of text only the number is known before it is encoded.
        itemsize = 16 if node.dtype.kind in "US" else node.dtype.itemsize
        if prod(node.shape) * itemsize <= COMPACT_BYTES:
            return size + prod(node.shape) * itemsize
        chunks = _chunks.chunk_shape(node.shape, itemsize, (recipe or node.recipe or Recipe()).chunks)
        return size + 24 * (2 + prod(-(-n // c) for n, c in zip(node.shape, chunks, strict=True)))
    if isinstance(node, GroupNode):
        own = node.recipes
        return size + sum(64 + len(name) + _metadata_bytes(node[name], own.get(name, recipe)) for name in node)
    return size
