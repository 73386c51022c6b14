"""What images cover of the sky: their WCS and their boxes, without their pixels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..box import Box
from ..composite.cutout import image_box
from ..errors import FormatError, OutsideError, WrongTypeError, WrongValueError

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord
    from astropy.table import QTable
    from astropy.wcs import WCS

    from ..composite.composite import Composite

_PIXEL_TOLERANCE = 0.1
"""A pixel is that of a position if it leads back to it within this."""


@dataclass(frozen=True)
class Footprint:
    """What an image covers.

    Attributes
    ----------
    wcs : astropy.wcs.WCS
        Its celestial WCS, of two axes.
    box : Box
        Its box in parent coordinates.
    centre : SkyCoord
        The ICRS position of its middle.
    radius : float
        Greatest distance of its corners from there, in radians.
    scale : float
        Size of a pixel in degrees, at the reference point.
    """

    wcs: WCS
    box: Box
    centre: SkyCoord
    radius: float
    scale: float

    def pixels(self, positions: SkyCoord) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the pixels (y, x) of positions in parent coordinates; NaN for those that aren't in the image.

        Parameters
        ----------
        positions : SkyCoord, shape (n,)
            The positions.
        """
        y, x = np.full((2, len(positions)), np.nan)
        # Far from the image distortions are wild: their inverse needs long, and may end at a pixel of it by mistake.
        near = np.flatnonzero(positions.separation(self.centre).radian <= 1.01 * self.radius)
        if not near.size:
            return y, x
        there = positions[near]
        with warnings.catch_warnings():
            # Where it finds no inverse; what it gives then doesn't lead back.
            warnings.simplefilter("ignore")
            columns, rows = self.wcs.world_to_pixel(there)
            back = self.wcs.pixel_to_world(columns, rows).icrs
        exact = back.separation(there).deg < _PIXEL_TOLERANCE * self.scale
        ny, nx = self.box.shape
        inside = exact & (rows >= -0.5) & (rows < ny - 0.5) & (columns >= -0.5) & (columns < nx - 0.5)
        y[near[inside]] = rows[inside] + self.box.y0
        x[near[inside]] = columns[inside] + self.box.x0
        return y, x


def footprint(composite: Composite) -> Footprint:
    """Return what the image of a composite covers, by its component ``wcs`` and the boxes of its planes of pixels.

    Without planes, as in a catalog, the WCS must know the shape. No pixel is read.
    """
    from astropy.wcs.utils import proj_plane_pixel_scales

    wcs = composite["wcs"]
    if not wcs.has_celestial:
        raise FormatError(f"{composite!r}: its WCS isn't one of positions on the sky")
    wcs = wcs if wcs.naxis == 2 else wcs.celestial
    try:
        box = image_box(composite)
    except OutsideError:
        if wcs.pixel_shape is None:
            raise FormatError(f"{composite!r}: neither a plane of pixels nor its WCS tells what it covers") from None
        nx, ny = wcs.pixel_shape
        box = Box(0, ny, 0, nx)
    y1, x1 = (n - 1 for n in box.shape)
    # The first is the middle; the others go round, for an image may bulge.
    x = np.array([x1 / 2, -0.5, x1 / 2, x1 + 0.5, x1 + 0.5, x1 + 0.5, x1 / 2, -0.5, -0.5])
    y = np.array([y1 / 2, -0.5, -0.5, -0.5, y1 / 2, y1 + 0.5, y1 + 0.5, y1 + 0.5, y1 / 2])
    sky = wcs.pixel_to_world(x, y).icrs
    radius = float(sky[1:].separation(sky[0]).radian.max())
    return Footprint(wcs, box, sky[0], radius, float(np.mean(proj_plane_pixel_scales(wcs))))


def containing(footprints: Mapping[Any, Footprint], positions: SkyCoord) -> QTable:
    """Return which images contain positions, and at which pixels; see `VisitView.containing`."""
    from astropy.table import QTable

    if not hasattr(positions, "frame"):
        raise WrongTypeError(f"a SkyCoord was expected, not {positions!r}")
    if positions.ndim > 1:
        raise WrongValueError(f"positions should have the shape () or (n,), not {positions.shape}")
    sky = positions.icrs.reshape(-1)
    columns: dict[str, list[NDArray[Any]]] = {"position": [], "detector": [], "y": [], "x": []}
    for detector, covered in footprints.items():
        y, x = covered.pixels(sky)
        (found,) = np.nonzero(np.isfinite(y))
        parts = (found, np.full(len(found), detector), y[found], x[found])
        for column, part in zip(columns.values(), parts, strict=True):
            column.append(part)
    table = QTable({name: np.concatenate(parts) for name, parts in columns.items()})
    return table[np.argsort(table["position"], kind="stable")]
