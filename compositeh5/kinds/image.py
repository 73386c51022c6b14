"""Kind ``image``: a plane of numbers, or several, with a unit and a place in parent coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from ..box import Box
from ..errors import EncodeError, WrongValueError
from ..storage.nodes import Array, AttrValue, Node
from .pixels import Pixels, read_pixels
from .units import unit_from_text, unit_to_text

if TYPE_CHECKING:
    from astropy.units import Quantity, UnitBase

VERSION = 1


class Image(Pixels):
    """Pixels with a unit and a place in parent coordinates.

    Parameters
    ----------
    array : numpy.ndarray or astropy.units.Quantity, shape (..., ny, nx)
        Integers or floats; not copied.
    origin : tuple of int, optional
        Parent coordinates (y0, x0) of ``array[..., 0, 0]``.
    unit : astropy.units.UnitBase or str, optional
        Unit of the values; that of the array if it is a quantity. None means that it isn't known; what has no
        dimension has the unit ``""``.

    Raises
    ------
    EncodeError
        If the array has fewer than two axes, a mask, or values of another type; if the origin isn't two integers;
        if the unit can't be stored, or is given for a quantity.
    """

    DTYPE_KINDS: ClassVar[str] = "iuf"

    def __init__(
        self, array: NDArray[Any], origin: tuple[int, int] = (0, 0), unit: UnitBase | str | None = None
    ) -> None:
        super().__init__(array, origin)
        own_unit = getattr(array, "unit", None)
        if own_unit is not None and unit is not None:
            raise EncodeError(f"Image: the array has its own unit {own_unit}; convert it with .to({str(unit)!r})")
        chosen = own_unit if unit is None else unit
        self._unit = None if chosen is None else unit_from_text(unit_to_text(chosen), "Image")

    @property
    def unit(self) -> UnitBase | None:
        """Unit of the values; None if it isn't known."""
        return self._unit

    @property
    def quantity(self) -> Quantity:
        """The values with their unit, a view if they are floats; a `ValueError` says that the unit isn't known."""
        if self._unit is None:
            raise WrongValueError(f"{self!r} has no unit to make a quantity with")
        return self._array << self._unit

    def _part(self, array: NDArray[Any], origin: tuple[int, int]) -> Self:
        return type(self)(array, origin, self._unit)

    def __repr__(self) -> str:
        return self._describe("no unit" if self._unit is None else f"unit={str(self._unit)!r}")


def coerce(value: Any) -> Image:
    """Return an `Image` as it is, an array or quantity as an `Image` with origin (0, 0)."""
    if isinstance(value, Image):
        return value
    if isinstance(value, np.ndarray):
        return Image(value)
    raise EncodeError(f"expected an Image, an array or a Quantity, found {type(value).__name__}")


def encode(value: Image) -> Array:
    """Return the node of an image; its values are not copied."""
    attrs: dict[str, AttrValue] = {"origin": np.array(value.origin, np.int64)}
    if value.unit is not None:
        attrs["units"] = unit_to_text(value.unit)
    return Array(value.array, attrs)


def decode(node: Node, *, box: Box | None = None) -> Image:
    """Return the image of a node, or the part of it in a box of parent coordinates; nothing else is read.

    An `OutsideError` says that the box isn't wholly inside the image.
    """
    text = node.attr("units", str) if "units" in node.attrs else None
    unit = None if text is None else unit_from_text(text, node.where)
    array, origin = read_pixels(node, box, Image.DTYPE_KINDS)
    return Image(array, origin, unit)
