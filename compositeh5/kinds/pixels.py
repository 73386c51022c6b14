"""What images and masks have in common: pixels that know where in their parent image they lie."""

from __future__ import annotations

from abc import ABC, abstractmethod
from operator import index
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ..box import Box
from ..errors import EncodeError, FormatError, OutsideError, require_type
from ..storage.nodes import ArrayNode, Node, Selection

_INT64 = range(-(2**63), 2**63)


class Pixels(ABC):
    """Pixels, and the place of their first one in the image of which they may be a part.

    Parameters
    ----------
    array : numpy.ndarray, shape (..., ny, nx)
        The values. They are not copied: the object is a view of the array that was given.
    origin : tuple of int
        Parent coordinates (y0, x0) of ``array[..., 0, 0]``.

    Raises
    ------
    EncodeError
        If the array has fewer than two axes, a mask, or values of an unsuitable type, or if the origin isn't two
        integers of 64 bits.
    """

    DTYPE_KINDS: ClassVar[str]
    """The types (`numpy.dtype.kind`) that the values may have, of up to 64 bits."""

    def __init__(self, array: NDArray[Any], origin: tuple[int, int]) -> None:
        name = type(self).__name__
        if hasattr(array, "mask"):
            raise EncodeError(f"{name}: masked arrays can't be stored; store the values and a mask side by side")
        self._array = np.asarray(array)
        if self.dtype.kind not in self.DTYPE_KINDS or self.dtype.itemsize > 8:
            raise EncodeError(f"{name}: values of type {self.dtype} can't be stored; convert them")
        if self._array.ndim < 2:
            raise EncodeError(f"{name}: needs two axes (y, x) or more, but the array has shape {self.shape}")
        try:
            y0, x0 = (index(coordinate) for coordinate in origin)
        except (TypeError, ValueError) as error:
            raise EncodeError(f"{name}: the origin should be two integers (y0, x0), not {origin!r}") from error
        if y0 not in _INT64 or x0 not in _INT64:
            raise EncodeError(f"{name}: the origin {origin!r} needs more than 64 bits")
        self._origin = y0, x0

    @property
    def array(self) -> NDArray[Any]:
        """The values, shape (..., ny, nx)."""
        return self._array

    @property
    def origin(self) -> tuple[int, int]:
        """Parent coordinates (y0, x0) of the first pixel."""
        return self._origin

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis; the last two are y and x."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self._array.dtype

    @property
    def box(self) -> Box:
        """The pixels that this covers, in parent coordinates."""
        return _box_of(self.shape, self._origin)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self._array, dtype, copy=copy)

    def cut(self, box: Box) -> Self:
        """Return the part in a box of parent coordinates, a view of the same values.

        An `OutsideError` says that the box isn't wholly inside this one.
        """
        return self._part(self._array[_selection(box, self.shape, self._origin, repr(self))], box.origin)

    @abstractmethod
    def _part(self, array: NDArray[Any], origin: tuple[int, int]) -> Self:
        """Return an object with these pixels that is otherwise like this one."""

    def _describe(self, details: str) -> str:
        return f"<{type(self).__name__} {self.shape} {self.dtype} origin={self._origin} {details}>"


def read_pixels(node: Node, box: Box | None, dtype_kinds: str) -> tuple[NDArray[Any], tuple[int, int]]:
    """Return the pixels of a stored image or mask of some types (`numpy.dtype.kind`), or of a box, and their origin.

    The box is in parent coordinates; nothing outside of it is read. An `OutsideError` says that it isn't wholly inside.
    """
    if not isinstance(node, ArrayNode) or node.ndim < 2 or node.dtype.kind not in dtype_kinds:
        raise FormatError(f"{node.where}: should be an array of pixels: two axes or more, type {dtype_kinds!r}")
    origin = stored_origin(node)
    require_type(box, (Box, type(None)), "a Box")
    if box is None:
        return node.read(), origin
    return node.read(_selection(box, node.shape, origin, node.where)), box.origin


def stored_origin(node: Node) -> tuple[int, int]:
    """Return the origin of a stored image or mask."""
    stored = node.attr("origin", np.ndarray)
    if stored.shape != (2,) or stored.dtype.kind != "i":
        raise FormatError(f"{node.where}: attribute 'origin' should be two integers, not {stored!r}")
    return int(stored[0]), int(stored[1])


def _box_of(shape: tuple[int, ...], origin: tuple[int, int]) -> Box:
    return Box(origin[0], origin[0] + shape[-2], origin[1], origin[1] + shape[-1])


def _selection(box: Box, shape: tuple[int, ...], origin: tuple[int, int], where: str) -> Selection:
    """Return the index of a box of parent coordinates in an array (..., y, x)."""
    full = _box_of(shape, origin)
    if not full.contains(box):
        raise OutsideError(f"{where}: {box} is not wholly inside {full}")
    return (slice(None),) * (len(shape) - 2) + box.slices_in(origin)
