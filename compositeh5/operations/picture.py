"""Images of many detectors as one small picture of the sky."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, WrongTypeError
from ..kinds.image import Image
from .footprints import Footprint

if TYPE_CHECKING:
    from astropy.units import UnitBase
    from astropy.wcs import WCS

    from ..composite import Composite

_MOSTLY_EMPTY = 1000
"""A picture so many times larger than what is in it is taken for a mistake in a WCS."""


class Reduced(NamedTuple):
    """An image at reduced size: float32 of shape (y, x), and its unit."""

    array: NDArray[np.float32]
    unit: UnitBase | None


def reduced(name: str, step: int, composite: Composite) -> Reduced:
    """Return the means of blocks of ``step`` by ``step`` pixels, those at the last edges maybe smaller.

    Pixels that are NaN don't count.

    Raises
    ------
    TypeError
        If the component isn't an image of two axes.
    """
    if composite.kind(name) != "image":
        raise WrongTypeError(
            f"{composite!r}: component {name!r} is of kind {composite.kind(name)!r}, but a picture needs images"
        )
    image = composite[name]
    if len(image.shape) != 2:
        raise WrongTypeError(f"{composite!r}: component {name!r} has {len(image.shape)} axes, but a picture needs two")
    padding = [(0, -n % step) for n in image.shape]
    padded = np.pad(image.array.astype(np.float32, copy=False), padding, constant_values=np.nan)
    ny, nx = padded.shape
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")
        means = np.nanmean(padded.reshape(ny // step, step, nx // step, step), axis=(1, 3))
    return Reduced(means.astype(np.float32, copy=False), image.unit)


def mosaic(images: Mapping[Any, Reduced], footprints: Mapping[Any, Footprint], step: int) -> tuple[Image, WCS]:
    """Return a picture of images where they are on the sky, and its WCS; see `VisitView.picture`."""
    if len({image.unit for image in images.values()}) > 1:
        units = "; ".join(f"{key}: {image.unit}" for key, image in images.items())
        raise FormatError(f"the images are in different units: {units}")
    footprints = {key: footprints[key] for key in images}
    wcs = _tangent_plane(list(footprints.values()), step)
    limits = np.array([_limits(covered, wcs) for covered in footprints.values()])
    first, last = np.floor(limits[:, 0].min(axis=0)), np.ceil(limits[:, 1].max(axis=0))
    extent = last - first + 1
    if not extent.prod() < _MOSTLY_EMPTY * sum(image.array.size for image in images.values()):
        raise FormatError(f"the WCS of {', '.join(map(str, images))} put them too far from each other for a picture")
    wcs.wcs.crpix -= first
    nx, ny = map(int, extent)
    wcs.pixel_shape = (nx, ny)
    wcs.wcs.set()
    picture = np.full((ny, nx), np.nan, np.float32)
    for key, image in images.items():
        _place(image.array, footprints[key], step, picture, wcs)
    return Image(picture, unit=next(iter(images.values())).unit), wcs


def _tangent_plane(footprints: list[Footprint], step: int) -> WCS:
    """Return the WCS of a plane around the middle of images, whose pixel 0 is there."""
    from astropy.coordinates import SkyCoord
    from astropy.wcs import WCS

    directions = np.array([covered.centre.cartesian.xyz.value for covered in footprints])
    middle = SkyCoord(*directions.mean(axis=0), representation_type="cartesian").spherical
    scale = step * float(np.median([covered.scale for covered in footprints]))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.crval = [middle.lon.deg, middle.lat.deg]
    wcs.wcs.crpix = [1, 1]
    wcs.wcs.cdelt = [-scale, scale]
    wcs.wcs.set()
    return wcs


def _limits(covered: Footprint, wcs: WCS) -> NDArray[np.float64]:
    """Return the least and the greatest pixel (x, y) of a picture that an image touches."""
    corners = np.array(wcs.world_to_pixel(covered.wcs.pixel_to_world(*covered.corners)))
    return np.array([corners.min(axis=1), corners.max(axis=1)])


def _place(image: NDArray[np.float32], covered: Footprint, step: int, picture: NDArray[np.float32], wcs: WCS) -> None:
    """Put an image at reduced size where it belongs in a picture."""
    ny, nx = covered.box.shape
    # Distortions within a detector are small against the pixels of a picture: a linear map does, fitted to nine points.
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(-0.5, nx - 0.5, 3), np.linspace(-0.5, ny - 0.5, 3)))
    u, v = wcs.world_to_pixel(covered.wcs.pixel_to_world(x, y))
    linear, *_ = np.linalg.lstsq(np.column_stack([np.ones_like(u), u, v]), np.column_stack([x, y]), rcond=None)
    (u0, v0), (u1, v1) = _limits(covered, wcs)
    part = (slice(int(np.floor(v0)), int(np.ceil(v1)) + 1), slice(int(np.floor(u0)), int(np.ceil(u1)) + 1))
    rows, columns = np.mgrid[part]
    x, y = (c + cu * columns + cv * rows for c, cu, cv in linear.T)
    inside = (x >= -0.5) & (x < nx - 0.5) & (y >= -0.5) & (y < ny - 0.5)
    blocks = (np.floor((c[inside] + 0.5) / step).astype(np.intp) for c in (y, x))
    values = image[tuple(blocks)]
    target = picture[part]
    target[inside] = np.where(np.isnan(values), target[inside], values)
