"""Rounding the pixels of noisy images, so that they compress well.

The low bits of a noisy pixel are noise, and noise can't be compressed. Rounded to multiples of a power of two
these bits are zeros; the values stay plain floats, which every reader takes as they are.
"""

from __future__ import annotations

from math import floor, isfinite, log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .nodes import ArrayNode, Described, Selection

STEP, FRACTION = "quantized_step", "quantized_fraction"
"""Attributes of rounded pixels: that of which they are multiples, and how much of the noise it was to be at most."""

_SAMPLE = 2**18
"""Pixels, about, from which the noise is measured, to half a per cent: whole rows, evenly spread."""


def noise(node: ArrayNode) -> float:
    """Return the standard deviation of the noise of an image along its last axis; 0 if it has none.

    It is 0.6052697 times the median of ``|2 x[i] - x[i-2] - x[i+2]|``, which neither gradients nor stars change much:
    the estimate DER_SNR (Stoehr et al. 2008, ASP Conf. Ser. 394, 505), by which FITS images are quantised, too
    (``noise3`` of CFITSIO). Pixels that aren't finite are left out.
    """
    if node.ndim == 0 or node.shape[-1] < 5 or 0 in node.shape:
        return 0.0
    # Along the first axis of several; a vector is a single row.
    rows = node.nbytes // node.dtype.itemsize // node.shape[0] if node.ndim > 1 else 0
    every = max(1, node.shape[0] * rows // _SAMPLE)
    found: list[NDArray[Any]] = []
    for start in range(0, node.shape[0], every) if rows else (0,):
        values = node.read((slice(start, start + 1),) if rows else ()).astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            differences = np.abs(2 * values[..., 2:-2] - values[..., :-4] - values[..., 4:])
        found.append(differences[np.isfinite(differences)])
    sample = np.concatenate(found)
    return 0.6052697 * float(np.median(sample)) if sample.size else 0.0


def step_for(sigma: float, fraction: float, dtype: np.dtype[Any]) -> float:
    """Return the largest power of two that is at most ``fraction * sigma``; 0 if floats of a type are too coarse."""
    wanted = fraction * sigma
    if not (isfinite(wanted) and wanted >= np.finfo(dtype).tiny):
        return 0.0
    return float(2.0 ** floor(log2(wanted)))


def rounded(values: NDArray[Any], step: float) -> NDArray[Any]:
    """Return values rounded to multiples of ``step``, a power of two; NaN and infinities bit by bit as they are."""
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    scale = native.dtype.type(step)
    with np.errstate(over="ignore", invalid="ignore"):
        # Exact but for the rounding itself. What is too large for it has no smaller bits.
        result = np.atleast_1d(native / scale)
        np.rint(result, out=result)
        result *= scale
    finite = np.isfinite(result)
    if not finite.all():
        result = np.where(finite, result, native)
    return result.reshape(values.shape).astype(values.dtype, copy=False)


class QuantizedArray(Described):
    """An image of floats, rounded when it is read to multiples of at most a fraction of its noise."""

    def __init__(self, node: ArrayNode, fraction: float) -> None:
        self._step = step_for(noise(node), fraction, node.dtype)
        super().__init__(node, {STEP: self._step, FRACTION: float(fraction)})

    @property
    def recipe(self) -> None:
        """None: what is rounded isn't a copy."""

    def read(self, selection: Selection = ()) -> NDArray[Any]:
        return self.round(super().read(selection))

    def round(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return values rounded as those of the image are."""
        return rounded(values, self._step) if self._step else values
