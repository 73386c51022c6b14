"""Kind ``psf``: point-spread functions on a grid of positions."""

from __future__ import annotations

from operator import index
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import EncodeError, FormatError, OutsideError
from ..storage.nodes import Array, Group, Node
from .values import expect_group

VERSION = 1
IMMUTABLE = True


class Psf:
    """A point-spread function that varies over the image, given by kernels on a grid of positions.

    Parameters
    ----------
    kernels : numpy.ndarray of float, shape (n, ky, kx)
        The kernel at each position; not copied.
    positions : array_like of float, shape (n, 2)
        The positions (y, x) in parent coordinates, in pixels; in any order they must be all points of a rectangular
        grid, whose lines need not be equally spaced. With a single position, the PSF is constant.
    oversampling : int or tuple of int, optional
        Kernel samples per pixel, the same in both axes or (in y, in x).

    Raises
    ------
    EncodeError
        If a shape or type is another, the positions aren't finite or no full grid, or the oversampling isn't positive.
    """

    def __init__(
        self, kernels: NDArray[Any], positions: NDArray[np.float64], oversampling: int | tuple[int, int] = 1
    ) -> None:
        # Views, so that neither the caller's arrays become read-only nor ours writable.
        self._kernels = np.asarray(kernels).view()
        self._kernels.flags.writeable = False
        n, dtype = len(self._kernels) if self._kernels.ndim else 0, self._kernels.dtype
        if self._kernels.ndim != 3 or dtype.kind != "f" or dtype.itemsize > 8:
            raise EncodeError(f"Psf: kernels should be floats (n, ky, kx), not {dtype} of shape {self._kernels.shape}")
        if not self._kernels.size:
            raise EncodeError(f"Psf: there are no kernels in an array of shape {self._kernels.shape}")
        try:
            self._positions = np.array(positions, np.float64)
        except (TypeError, ValueError) as error:
            raise EncodeError(f"Psf: positions should be floats (n, 2): {error}") from error
        self._positions.flags.writeable = False
        if self._positions.shape != (n, 2):
            raise EncodeError(f"Psf: {n} kernels need positions of shape ({n}, 2), not {self._positions.shape}")
        if not np.isfinite(self._positions).all():
            raise EncodeError("Psf: positions must be finite")
        self._y, row = np.unique(self._positions[:, 0], return_inverse=True)
        self._x, column = np.unique(self._positions[:, 1], return_inverse=True)
        ny, nx = len(self._y), len(self._x)
        self._index = np.full((ny, nx), -1)
        self._index[row, column] = np.arange(n)
        if ny * nx != n or (self._index < 0).any():
            raise EncodeError(
                f"Psf: the {n} positions are no full grid: they have {ny} different y and {nx} different x"
            )
        try:
            self._oversampling = tuple(index(samples) for samples in np.broadcast_to(np.asarray(oversampling), 2))
        except (TypeError, ValueError) as error:
            raise EncodeError(f"Psf: oversampling should be one or two integers, not {oversampling!r}") from error
        if not all(1 <= samples < 2**31 for samples in self._oversampling):
            raise EncodeError(f"Psf: oversampling should be positive, not {oversampling!r}")

    @classmethod
    def constant(cls, kernel: NDArray[Any], oversampling: int | tuple[int, int] = 1) -> Self:
        """Return a PSF that has the same kernel everywhere.

        Parameters
        ----------
        kernel : numpy.ndarray of float, shape (ky, kx)
            The kernel.
        oversampling : int or (int, int), optional
            Samples per pixel along both axes, or along y and x.
        """
        return cls(np.asarray(kernel)[np.newaxis], np.zeros((1, 2)), oversampling)

    @property
    def kernels(self) -> NDArray[Any]:
        """The kernels, shape (n, ky, kx), read-only."""
        return self._kernels

    @property
    def positions(self) -> NDArray[np.float64]:
        """Positions (y, x) of the kernels in parent coordinates, in pixels, shape (n, 2), read-only."""
        return self._positions

    @property
    def oversampling(self) -> tuple[int, int]:
        """Kernel samples per pixel in y and in x."""
        y, x = self._oversampling
        return y, x

    def at(self, y: float, x: float) -> NDArray[Any]:
        """Return the kernel at a position of the image, a new array of the type of the kernels.

        The kernels of the four grid positions around it are interpolated bilinearly, sample by sample, as
        ``photutils.psf.GriddedPSFModel`` does. Outside of the grid it is the kernel at the nearest point of its edge.

        Parameters
        ----------
        y, x : float
            Position in parent coordinates, in pixels. A `ValueError` says that it is NaN.
        """
        if np.isnan(y) or np.isnan(x):
            raise OutsideError(f"there is no PSF at y={y}, x={x}")
        rows, columns = _neighbours(self._y, y), _neighbours(self._x, x)
        kernel = np.zeros(self._kernels.shape[1:], self._kernels.dtype)
        for row, row_weight in rows:
            for column, column_weight in columns:
                kernel += self._kernels[self._index[row, column]] * (row_weight * column_weight)
        return kernel

    def __repr__(self) -> str:
        n, ky, kx = self._kernels.shape
        grid = "constant" if n == 1 else f"grid {len(self._y)} x {len(self._x)}"
        return f"<Psf {grid}, kernels {ky} x {kx} {self._kernels.dtype}, oversampling {self._oversampling}>"


def _neighbours(lines: NDArray[np.float64], value: float) -> list[tuple[int, float]]:
    """Return the indices of the grid lines next to a coordinate, with the weights of those that have any."""
    after = int(np.searchsorted(lines, value))
    if after == 0:
        return [(0, 1.0)]
    if after == len(lines):
        return [(after - 1, 1.0)]
    fraction = float((value - lines[after - 1]) / (lines[after] - lines[after - 1]))
    # A line of no weight is left out, so that its values (NaN, even) don't matter.
    return [(i, weight) for i, weight in ((after - 1, 1 - fraction), (after, fraction)) if weight]


def coerce(value: Any) -> Psf:
    """Return a `Psf` as it is, a plane of floats (a kernel) as a constant `Psf`."""
    if isinstance(value, Psf):
        return value
    if isinstance(value, np.ndarray) and value.ndim == 2:
        return Psf.constant(value)
    raise EncodeError(f"expected a Psf or a kernel (a plane of floats), found {type(value).__name__}")


def encode(value: Psf) -> Group:
    """Return the group of a PSF; its kernels are not copied."""
    return Group(
        {"kernels": Array(value.kernels), "positions": Array(value.positions)},
        {"oversampling": np.array(value.oversampling, np.int64)},
    )


def decode(node: Node) -> Psf:
    """Return the PSF of a group."""
    group = expect_group(node, "a PSF")
    oversampling = node.attr("oversampling", np.ndarray)
    if oversampling.shape != (2,):
        raise FormatError(f"{node.where}: attribute 'oversampling' should be two integers, not {oversampling!r}")
    kernels, positions = group.array("kernels", 3, "f").read(), group.array("positions", 2, "f").read()
    try:
        return Psf(kernels, positions, (oversampling[0], oversampling[1]))
    except EncodeError as error:
        raise FormatError(f"{node.where}: {error}") from error
