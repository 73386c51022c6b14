"""PSFs as models of photutils, and back. Needs the extra ``photutils``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .composite.composite import Composite
from .errors import EncodeError, require_type
from .kinds.psf import Psf

if TYPE_CHECKING:
    from photutils.psf import GriddedPSFModel, ImagePSF


def to_photutils(psf: Psf | Composite, origin: tuple[int, int] | None = None) -> GriddedPSFModel | ImagePSF:
    """Return a PSF as a model of photutils, which interpolates between positions as `Psf.at` does.

    Parameters
    ----------
    psf : Psf or Composite
        The PSF, or a composite of which it is the component ``psf``. Kernels are taken as they are; photutils expects
        that their sum is the product of the oversampling.
    origin : tuple of int, optional
        Parent coordinates (y0, x0) of the first pixel of the image on which the model is to be used: positions of
        the model are indices of that array. By default that of the component ``image`` of the composite, else (0, 0).

    Returns
    -------
    GriddedPSFModel or ImagePSF
        The latter if the PSF is constant.

    Raises
    ------
    ImportError
        If photutils isn't installed (extra ``photutils``).
    ValueError
        If photutils can't have such a PSF: one of two or three positions, kernels of fewer than four rows or columns.
    """
    require_type(psf, (Psf, Composite), "a PSF, or a composite that has one")
    if isinstance(psf, Composite):
        return to_photutils(psf["psf"], origin or (psf.lazy("image").origin if "image" in psf else None))
    origin = origin or (0, 0)
    from astropy.nddata import NDData
    from photutils.psf import GriddedPSFModel, ImagePSF

    if len(psf.kernels) == 1:
        return ImagePSF(psf.kernels[0], oversampling=psf.oversampling)
    positions = [(x - origin[1], y - origin[0]) for y, x in psf.positions.tolist()]
    return GriddedPSFModel(
        NDData(psf.kernels, meta={"grid_xypos": positions, "oversampling": np.array(psf.oversampling)})
    )


def from_photutils(model: GriddedPSFModel | ImagePSF, origin: tuple[int, int] = (0, 0)) -> Psf:
    """Return a model of photutils as a PSF; its flux and place are not kept.

    Parameters
    ----------
    model : GriddedPSFModel or ImagePSF
        The model.
    origin : tuple of int, optional
        Parent coordinates (y0, x0) of the first pixel of the image for which the model was made.

    Raises
    ------
    EncodeError
        If it is another model, or its reference point isn't the middle of its array.
    """
    kernels, oversampling = getattr(model, "data", None), getattr(model, "oversampling", None)
    if not isinstance(kernels, np.ndarray) or oversampling is None:
        raise EncodeError(f"expected a GriddedPSFModel or an ImagePSF of photutils, found {type(model).__name__}")
    oy, ox = (int(n) for n in np.broadcast_to(oversampling, 2))
    if kernels.ndim == 3:
        positions = np.asarray(model.grid_xypos, np.float64)[:, ::-1] + origin
        return Psf(kernels, positions, (oy, ox))
    middle = [(n - 1) / 2 for n in kernels.shape[::-1]]
    if not np.array_equal(model.origin, middle):
        raise EncodeError(f"the origin of an ImagePSF should be the middle of its array {middle}, not {model.origin}")
    return Psf.constant(kernels, (oy, ox))
