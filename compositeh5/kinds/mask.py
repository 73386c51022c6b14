"""Kind ``mask``: a plane of integers whose bits are named."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ..box import Box
from ..errors import CompositeH5Error, EncodeError, FormatError, checked_names, require_type
from ..storage.nodes import Array, Node
from .pixels import Pixels, read_pixels

VERSION = 1

HARMLESS_PLANES = frozenset({"DETECTED", "DETECTED_NEGATIVE"})
"""Planes that tell what was found in a pixel, and not that its value is no good."""

_NAME_LENGTH = 80


class MaskPlaneError(CompositeH5Error, KeyError):
    """A mask has no plane of that name."""


class MaskPlane(NamedTuple):
    """One plane of a mask: the bit that is set in its pixels (0 is the lowest), and what that means."""

    bit: int
    description: str = ""


class Mask(Pixels):
    """Pixels whose bits are named planes, with a place in parent coordinates.

    A method that takes names of planes raises `MaskPlaneError` if there is none of such a name.

    Parameters
    ----------
    array : numpy.ndarray, shape (..., ny, nx)
        Signed or unsigned integers; not copied.
    planes : mapping of str to int or MaskPlane, optional
        The bit of each plane. The sign bit can't be one: its value differs between the types of different sizes.
    origin : tuple of int, optional
        Parent coordinates (y0, x0) of ``array[..., 0, 0]``.

    Raises
    ------
    EncodeError
        If the array has fewer than two axes, a mask, or values of another type; if the origin isn't two integers;
        if a name or bit isn't usable or a bit is used twice.
    """

    DTYPE_KINDS: ClassVar[str] = "iu"

    def __init__(
        self,
        array: NDArray[Any],
        planes: Mapping[str, int | MaskPlane] = MappingProxyType({}),
        origin: tuple[int, int] = (0, 0),
    ) -> None:
        if np.asarray(array).dtype.kind == "b":
            raise EncodeError("Mask: bools have no bits to name; use array.astype('u1') and planes={'BAD': 0}, say")
        super().__init__(array, origin)
        require_type(planes, Mapping, "a mapping of names of planes to bits")
        self._planes: dict[str, MaskPlane] = {}
        for name, plane in planes.items():
            self._insert(name, plane if isinstance(plane, MaskPlane) else MaskPlane(plane))

    @property
    def planes(self) -> Mapping[str, MaskPlane]:
        """The planes by name, in the order of their bits; a view that can't be changed."""
        return MappingProxyType(self._planes)

    def add(self, name: str, description: str = "") -> int:
        """Name the lowest bit that has no name yet, and return the bit.

        Parameters
        ----------
        name, description : str
            Name of the new plane, and what it means.

        Raises
        ------
        EncodeError
            If there is a plane of that name, no free bit, or the name isn't usable.
        """
        used = {plane.bit for plane in self._planes.values()}
        bit = next((bit for bit in range(self._bit_count) if bit not in used), None)
        if bit is None:
            raise EncodeError(f"{self!r}: no bit is left for plane {name!r}; use a wider type of integers")
        self._insert(name, MaskPlane(bit, description))
        return bit

    def bits(self, *names: str) -> int:
        """Return the value that has the bits of these planes set."""
        value = 0
        for name in names:
            if name not in self._planes:
                raise MaskPlaneError(f"the mask has no plane {name!r}; it has {', '.join(self._planes) or 'none'}")
            value |= 1 << self._planes[name].bit
        return value

    def has(self, *names: str) -> NDArray[np.bool_]:
        """Return which pixels have any of these planes set, or any bit at all if no plane is named."""
        return np.asarray((self._array & self._value(*names) if names else self._array) != 0)

    def bad(self, planes: str | Iterable[str] | None = None) -> NDArray[np.bool_]:
        """Return which pixels are not to be used, as the masks of numpy and astropy have it: True is bad.

        Parameters
        ----------
        planes : str or iterable of str, optional
            The planes of which any makes a pixel bad; without any none is. By default all bits, named or not, but
            those of `HARMLESS_PLANES`.
        """
        if planes is None:
            chosen = ~self._value(*HARMLESS_PLANES & self._planes.keys())
        else:
            chosen = self._value(*checked_names(planes, "the name of a plane"))
        return np.asarray((self._array & chosen) != 0)

    def set(self, name: str, where: Any) -> None:
        """Set a plane in some pixels.

        Parameters
        ----------
        name : str
            Name of the plane.
        where : numpy.ndarray of bool, slice or other numpy index
            Which pixels; bools have the shape of the mask.
        """
        self._array[where] |= self._value(name)

    def clear(self, name: str, where: Any) -> None:
        """Clear a plane in some pixels.

        Parameters
        ----------
        name, where
            As for `set`.
        """
        self._array[where] &= ~self._value(name)

    def _value(self, *names: str) -> Any:
        return self.dtype.type(self.bits(*names))

    @property
    def _bit_count(self) -> int:
        return 8 * self.dtype.itemsize - (self.dtype.kind == "i")

    def _insert(self, name: str, plane: MaskPlane) -> None:
        if not isinstance(name, str) or not name.isprintable() or name.strip() != name or not name:
            raise EncodeError(f"Mask: {name!r} can't name a plane; use printable characters")
        if len(name) > _NAME_LENGTH:
            raise EncodeError(f"Mask: the name {name[:20]!r}... of a plane exceeds {_NAME_LENGTH} characters")
        if name in self._planes:
            raise EncodeError(f"Mask: there is a plane {name!r} already, on bit {self._planes[name].bit}")
        if not isinstance(plane.bit, int | np.integer) or isinstance(plane.bit, bool):
            raise EncodeError(f"Mask: the bit of plane {name!r} should be an integer, not {plane.bit!r}")
        if not isinstance(plane.description, str):
            raise EncodeError(f"Mask: the description of plane {name!r} should be text, not {plane.description!r}")
        bit = int(plane.bit)
        if not 0 <= bit < self._bit_count:
            raise EncodeError(f"Mask: {self.dtype} has bits 0 to {self._bit_count - 1}, but plane {name!r} has {bit}")
        for other, taken in self._planes.items():
            if taken.bit == bit:
                raise EncodeError(f"Mask: planes {other!r} and {name!r} are both on bit {bit}")
        planes = {**self._planes, name: MaskPlane(bit, plane.description)}
        self._planes = dict(sorted(planes.items(), key=lambda item: item[1].bit))

    def _part(self, array: NDArray[Any], origin: tuple[int, int]) -> Self:
        return type(self)(array, self._planes, origin)

    def __repr__(self) -> str:
        return self._describe(f"planes={','.join(self._planes) or 'none'}")


def coerce(value: Any) -> Mask:
    """Return a `Mask` as it is, an array of integers as a `Mask` without named planes."""
    if isinstance(value, Mask):
        return value
    if isinstance(value, np.ndarray):
        return Mask(value)
    raise EncodeError(f"expected a Mask or an array of integers, found {type(value).__name__}")


def encode(value: Mask) -> Array:
    """Return the node of a mask; its values are not copied."""
    planes = json.dumps({name: plane._asdict() for name, plane in value.planes.items()}, ensure_ascii=False)
    return Array(value.array, {"origin": np.array(value.origin, np.int64), "planes": planes})


def decode(node: Node, *, box: Box | None = None) -> Mask:
    """Return the mask of a node, or the part of it in a box of parent coordinates; nothing else is read.

    An `OutsideError` says that the box isn't wholly inside the mask.
    """
    text = node.attr("planes", str)
    try:
        planes = {name: MaskPlane(**plane) for name, plane in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"{node.where}: attribute 'planes' isn't a JSON object of planes: {error}") from error
    array, origin = read_pixels(node, box, Mask.DTYPE_KINDS)
    try:
        return Mask(array, planes, origin)
    except EncodeError as error:
        raise FormatError(f"{node.where}: {error}") from error
