"""Arrays of which only the asked-for part is read."""

from __future__ import annotations

from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OutsideError, WrongIndexError, WrongTypeError, WrongValueError
from ..kinds.pixels import stored_origin
from ..storage.arrays import StoredArray
from ..storage.nodes import ArrayNode

Index = int | slice | EllipsisType


class LazyArray:
    """A view of a stored array that reads what is indexed.

    Indices are those of the array (not parent coordinates): integers, slices and ``...``. The values outlive the
    file; the view does not.
    """

    def __init__(self, node: ArrayNode) -> None:
        self._node = node

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return self._node.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self._node.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._node.ndim

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Shape of the chunks in which it is stored; None if there are none."""
        return self._node.chunks

    @property
    def origin(self) -> tuple[int, int]:
        """Parent coordinates (y0, x0) of the first pixel of an image or mask; (0, 0) for other arrays."""
        return stored_origin(self._node) if "origin" in self._node.attrs else (0, 0)

    def __len__(self) -> int:
        if not self.shape:
            raise WrongTypeError("a 0-d array has no length")
        return self.shape[0]

    def __getitem__(self, index: Index | tuple[Index, ...]) -> Any:
        """Return the values at an index.

        Raises
        ------
        IndexError
            If it is out of range, or of another sort: read a box and index the result.
        """
        items = list(index) if isinstance(index, tuple) else [index]
        dots = [i for i, item in enumerate(items) if item is ...]
        if len(dots) > 1:
            raise WrongIndexError("an index can have only one '...'")
        for at in dots:
            items[at : at + 1] = [slice(None)] * (self.ndim - len(items) + 1)
        items += [slice(None)] * (self.ndim - len(items))
        if len(items) > self.ndim:
            raise WrongIndexError(f"{len(items)} indices for an array of {self.ndim} axes")
        selection, after = [], []
        for item, length in zip(items, self.shape, strict=True):
            chosen, then = _resolve(item, length)
            selection.append(chosen)
            after.append(then)
        values = self._node.read(tuple(selection))
        return values[tuple(after)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise WrongValueError("reading a file always makes a copy")
        return np.asarray(self._node.read(), dtype)

    def memmap(self) -> NDArray[Any]:
        """Return the array mapped into memory: nothing is read or copied before it is looked at.

        The array is read-only and stays usable after the file is closed. Its checksums are not looked at:
        ``composite[name]`` and `verify_files <compositeh5.trees.verify_files>` do that.

        Raises
        ------
        TypeError
            If it isn't an array of numbers that is stored in one piece, by the recipe ``"raw"``, in a file on a disk.
        """
        if not isinstance(self._node, StoredArray):
            raise WrongTypeError("it isn't a stored array, which could be mapped into memory")
        return self._node.memmap()

    def __repr__(self) -> str:
        return f"<LazyArray {self._node.where} {self.shape} {self.dtype}>"


def _resolve(item: Any, length: int) -> tuple[slice, int | slice]:
    """Return what to read along an axis, and the index that then gives what was asked for."""
    if isinstance(item, slice):
        start, stop, step = item.indices(length)
        if step > 0:
            return slice(start, max(start, stop), step), slice(None)
        wanted = range(start, stop, step)
        if not wanted:
            return slice(0, 0), slice(None)
        return slice(wanted[-1], wanted[0] + 1, -step), slice(None, None, -1)
    if isinstance(item, int | np.integer) and not isinstance(item, bool):
        if not -length <= item < length:
            raise OutsideError(f"index {item} is out of range for an axis of length {length}")
        start = int(item) % length
        return slice(start, start + 1), 0
    raise WrongIndexError(f"lazy arrays take integers, slices and '...', not {item!r}; read a part and index that")
