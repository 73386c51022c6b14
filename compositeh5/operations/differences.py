"""How two values of a component differ: their nodes, compared part by part, large arrays in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..container.layout import is_content
from ..container.nodes import ArrayNode, AttrValue, GroupNode, Node, Selection

_BLOCK_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Difference:
    """One thing in which two values differ.

    Attributes
    ----------
    what : str
        Which part: ``values``, ``shape``, ``dtype`` or an attribute (``units``, ``origin``) of an array; ``plane SAT``,
        ``column flux``, ``line 3``; a keyword of a header; the path of a field; ``sky`` for where a WCS puts pixels.
    a, b : str or None
        Both sides as text: of an array, the two elements that differ most. None where one hasn't got it.
    count, total : int
        How many elements (pixels, rows) differ, and how many there are; 0 for what isn't an array.
    largest : float or None
        The largest absolute difference, in the units of the values (of ``sky``: arcsec); None for what aren't numbers.
    at : tuple of int
        Index of it, or else of the first difference.
    note : str
        What else there is to say.
    """

    what: str
    a: str | None = ""
    b: str | None = ""
    count: int = 0
    total: int = 0
    largest: float | None = None
    at: tuple[int, ...] = ()
    note: str = ""

    @property
    def details(self) -> str:
        """How much differs, and where, as text."""
        size = "" if self.largest is None else f"{'largest ' if self.total > 1 or self.at else 'by '}{self.largest:.6g}"
        if self.what.endswith("sky"):
            size += " arcsec"
        if self.at:
            size += f"{' ' if size else ''}at [{', '.join(map(str, self.at))}]"
        return ", ".join(filter(None, [f"{self.count} of {self.total}" if self.total > 1 else "", size, self.note]))


def unequal(what: str, a: Any, b: Any, text: Callable[[Any], str] = str) -> Difference:
    """Return the difference between two things, each shown as text, or None if it isn't there."""
    return Difference(what, None if a is None else text(a), None if b is None else text(b))


def part_of(name: str, part: str) -> str:
    """Return what a part of something is called."""
    return " ".join(filter(None, (name, part)))


# ---- Any tree ----------------------------------------------------------------------------------------------


def compare_trees(name: str, a: Node, b: Node, *, values: bool = True) -> Iterator[Difference]:
    """Compare two nodes, whatever they are; without values only types, attributes, and what there is."""
    if isinstance(a, GroupNode) and isinstance(b, GroupNode):
        yield from compare_attributes(name, a, b)
        for child in dict.fromkeys([*a, *b]):
            one, other = a.get(child), b.get(child)
            if one is None or other is None:
                yield unequal(part_of(name, child), one, other, described)
            else:
                yield from compare_trees(part_of(name, child), one, other, values=values)
    elif isinstance(a, ArrayNode) and isinstance(b, ArrayNode):
        yield from compare_attributes(name, a, b)
        yield from (compare_arrays if values else compare_types)(name, a, b)
    else:
        yield unequal(name or "content", a, b, described)


def compare_attributes(name: str, a: Node, b: Node, besides: tuple[str, ...] = ()) -> Iterator[Difference]:
    """Compare the attributes that are content, but for some."""
    for key in sorted({*a.attrs, *b.attrs} - {*besides}):
        if not is_content(key):
            continue
        one, other = a.attrs.get(key), b.attrs.get(key)
        if one is None or other is None or not _same_attribute(one, other):
            yield unequal(part_of(name, key), one, other, _text)


def _same_attribute(a: AttrValue, b: AttrValue) -> bool:
    one, other = np.asarray(a), np.asarray(b)
    if one.dtype.kind == other.dtype.kind == "U":
        return bool(np.array_equal(one, other))
    return (one.dtype.name, one.shape, one.tobytes()) == (other.dtype.name, other.shape, other.tobytes())


def _text(value: Any) -> str:
    return ", ".join(map(str, np.ravel(value))) if isinstance(value, np.ndarray) else str(value)


def described(node: Node) -> str:
    """Return what an array or a group is, in a few words."""
    if not isinstance(node, ArrayNode):
        return str(node.attrs.get("type", "group"))
    return " ".join(filter(None, (_shape(node.shape), _type(node.dtype), str(node.attrs.get("units", "")))))


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _type(dtype: np.dtype[Any]) -> str:
    """Return the name of a type, in which byte order and widths of strings don't count."""
    return {"U": "text", "S": "bytes"}.get(dtype.kind, dtype.name)


# ---- Arrays ------------------------------------------------------------------------------------------------


def compare_types(name: str, a: ArrayNode, b: ArrayNode) -> Iterator[Difference]:
    """Compare the types of two arrays."""
    if _type(a.dtype) != _type(b.dtype):
        yield unequal(part_of(name, "dtype"), a.dtype, b.dtype, _type)


def compare_shapes(name: str, a: ArrayNode, b: ArrayNode) -> Iterator[Difference]:
    """Compare the shapes of two arrays."""
    if a.shape != b.shape:
        yield unequal(part_of(name, "shape"), a.shape, b.shape, _shape)


def compare_arrays(name: str, a: ArrayNode, b: ArrayNode) -> Iterator[Difference]:
    """Compare types, shapes and elements of two arrays."""
    yield from compare_types(name, a, b)
    yield from compare_shapes(name, a, b)
    if a.shape == b.shape:
        tally = _Tally()
        for start, one, other in blocks(a, b):
            tally.add(start, one, other)
        yield from tally.differences(name or "values", a.shape)


def blocks(a: ArrayNode, b: ArrayNode) -> Iterator[tuple[tuple[int, ...], NDArray[Any], NDArray[Any]]]:
    """Return the values of two arrays of one shape in parts of bounded size, with the index where each begins."""
    shape, itemsize = a.shape, max(a.dtype.itemsize, b.dtype.itemsize)
    if not shape:
        yield (), np.asarray(a.read()), np.asarray(b.read())
        return
    # The first axis of which whole steps fit into a block is cut; those before it are gone through.
    cut = next(
        (i for i in range(len(shape)) if int(np.prod(shape[i + 1 :])) * itemsize <= _BLOCK_BYTES), len(shape) - 1
    )
    step = max(1, _BLOCK_BYTES // max(1, int(np.prod(shape[cut + 1 :])) * itemsize))
    for index in np.ndindex(shape[:cut]):
        for start in range(0, shape[cut], step):
            selection: Selection = (*(slice(i, i + 1) for i in index), slice(start, start + step))
            begin = (*index, start, *(0 for _ in shape[cut + 1 :]))
            yield begin, a.read(selection), b.read(selection)


@dataclass
class _Tally:
    """What differs between two arrays, summed up over blocks."""

    count: int = 0
    only_bits: int = 0
    only_nan: list[int] = field(default_factory=lambda: [0, 0])
    largest: float | None = None
    shown: tuple[tuple[int, ...], str, str] | None = None
    """Index, and the elements there: of the largest difference, else of the first one."""

    def add(self, start: tuple[int, ...], a: NDArray[Any], b: NDArray[Any]) -> None:
        shape = a.shape
        a, b = (np.ascontiguousarray(values, values.dtype.newbyteorder("=")).reshape(-1) for values in (a, b))
        if a.dtype == b.dtype and a.dtype.kind not in "US" and np.array_equal(a.view(np.uint8), b.view(np.uint8)):
            return
        nan = [values != values for values in (a, b)] if a.dtype.kind not in "US" else [np.zeros(len(a), bool)] * 2
        with np.errstate(invalid="ignore"):
            different = (a != b) & ~(nan[0] & nan[1])
        self.count += int(different.sum())
        for side in (0, 1):
            self.only_nan[side] += int((nan[side] & ~nan[1 - side]).sum())
        if different.any():
            places = np.flatnonzero(different)
            sizes = sizes_of(a[places], b[places])
            if sizes is not None and not np.isnan(sizes).all():
                best = int(np.nanargmax(sizes))
                if self.largest is None or sizes[best] > self.largest:
                    self.largest = float(sizes[best])
                    self._show(start, shape, places[best], a, b)
            elif self.shown is None:
                self._show(start, shape, places[0], a, b)
        elif a.dtype == b.dtype and a.dtype.kind in "fc":
            # Equal as numbers, but a digest sees more.
            bits = (a.view(np.uint8) != b.view(np.uint8)).reshape(len(a), -1).any(axis=1)
            self.only_bits += int(bits.sum())
            if self.shown is None:
                self._show(start, shape, np.flatnonzero(bits)[0], a, b)

    def _show(
        self, start: tuple[int, ...], shape: tuple[int, ...], place: Any, a: NDArray[Any], b: NDArray[Any]
    ) -> None:
        within = np.unravel_index(int(place), shape) if shape else ()
        index = tuple(first + int(i) for first, i in zip(start, within, strict=True))
        self.shown = index, str(a[place]), str(b[place])

    def differences(self, what: str, shape: tuple[int, ...]) -> Iterator[Difference]:
        if self.shown is None:
            return
        notes = [f"{n} NaN only in {side}" for n, side in zip(self.only_nan, "AB", strict=True) if n]
        if not self.count:
            notes.append("equal as numbers, but not in their bits (the sign of 0, or the sort of NaN)")
        at, a, b = self.shown
        total = int(np.prod(shape, dtype=np.int64))
        yield Difference(what, a, b, self.count or self.only_bits, total, self.largest, at, ", ".join(notes))


def sizes_of(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64] | None:
    """Return the absolute differences of numbers; None for others."""
    if a.dtype.kind in "US" or b.dtype.kind in "US" or a.dtype.kind == b.dtype.kind == "b":
        return None
    common = np.result_type(a.dtype, b.dtype)
    if common.kind in "iu":
        a, b = a.astype(common), b.astype(common)
        # In unsigned arithmetic this is right also where the signed difference would overflow.
        sizes = np.maximum(a, b).astype(np.uint64) - np.minimum(a, b).astype(np.uint64)
        return np.asarray(sizes, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        wide = np.complex128 if common.kind == "c" else np.float64
        sizes = np.abs(a.astype(wide) - b.astype(wide))
    return np.asarray(sizes, np.float64)
