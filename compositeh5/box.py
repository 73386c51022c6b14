"""Rectangles of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from .errors import WrongTypeError, WrongValueError


@dataclass(frozen=True, order=True)
class Box:
    """A rectangle of pixels, half-open, in parent coordinates.

    Parent coordinates are the integer pixel indices of the image of which an array may be a part: a cutout keeps
    the coordinates of the image from which it was cut.

    Parameters
    ----------
    y0, y1 : int
        First row, and the row after the last.
    x0, x1 : int
        First column, and the column after the last.

    Raises
    ------
    ValueError
        If an upper limit is below its lower one.
    """

    y0: int
    y1: int
    x0: int
    x1: int

    def __post_init__(self) -> None:
        for name in ("y0", "y1", "x0", "x1"):
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, int(value))
            except (TypeError, ValueError, OverflowError):
                raise WrongTypeError(f"{name} of a Box should be a whole number, not {value!r}") from None
        if self.y1 < self.y0 or self.x1 < self.x0:
            raise WrongValueError(f"a Box needs y0 <= y1 and x0 <= x1, but got {self}")

    @classmethod
    def around(cls, y: float, x: float, shape: int | tuple[int, int]) -> Box:
        """Return the box of ``shape`` (rows, columns) whose centre is nearest to the pixel position (y, x).

        Where two are equally near, as for even numbers of pixels around the middle of one, it is the lower one.

        Parameters
        ----------
        y, x : float
            The centre in parent coordinates: the middle of a pixel has whole numbers.
        shape : int or (int, int)
            Number of pixels along both axes, or of rows and columns.
        """
        ny, nx = (shape, shape) if isinstance(shape, int) else shape
        # Positions from a WCS carry rounding errors, which must not decide between two boxes.
        y0, x0 = (ceil(round(centre, 6) - n / 2) for centre, n in ((y, ny), (x, nx)))
        return cls(y0, y0 + ny, x0, x0 + nx)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def origin(self) -> tuple[int, int]:
        """The first row and column."""
        return self.y0, self.x0

    @property
    def is_empty(self) -> bool:
        """Whether the box holds no pixel."""
        return 0 in self.shape

    def contains(self, other: Box) -> bool:
        """Return whether all of ``other`` lies inside this box."""
        return self.y0 <= other.y0 and other.y1 <= self.y1 and self.x0 <= other.x0 and other.x1 <= self.x1

    def intersection(self, other: Box) -> Box:
        """Return the part that both boxes share; an empty box at a corner of this one if they share none."""
        y0, x0 = max(self.y0, other.y0), max(self.x0, other.x0)
        return Box(y0, max(y0, min(self.y1, other.y1)), x0, max(x0, min(self.x1, other.x1)))

    def slices_in(self, origin: tuple[int, int]) -> tuple[slice, slice]:
        """Return the index of this box in an array whose first pixel is at ``origin`` = (y0, x0)."""
        return (
            slice(self.y0 - origin[0], self.y1 - origin[0]),
            slice(self.x0 - origin[1], self.x1 - origin[1]),
        )
