"""Pictures of composites, with the contrast of zscale and the mask in colours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .composite.composite import Composite
from .composite.display import block_means, stretched
from .errors import WrongTypeError
from .kinds.mask import Mask

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (230, 25, 25),
    "green": (40, 200, 60),
    "blue": (40, 90, 255),
    "yellow": (240, 220, 30),
    "magenta": (230, 40, 220),
    "cyan": (40, 210, 220),
    "orange": (255, 140, 20),
}
"""Colours of planes of masks: red, green, blue by name."""

PLANE_COLOURS: Mapping[str, str] = {
    "BAD": "red",
    "CR": "magenta",
    "DETECTED": "blue",
    "DETECTED_NEGATIVE": "cyan",
    "EDGE": "yellow",
    "INTRP": "green",
    "NO_DATA": "orange",
    "SAT": "green",
    "SUSPECT": "yellow",
}
"""Colours that ``lsst.afw.display`` has for planes; others take those of `COLOURS` in turn."""


class Picture(NamedTuple):
    """An image as it is shown.

    Attributes
    ----------
    pixels : numpy.ndarray of uint8, shape (ny, nx, 3)
        Red, green, blue; the first row is the lowest.
    low, high : float
        Values of the image that are black and white.
    step : int
        Rows and columns of the image that became one.
    colours : dict
        The name of the colour of each plane of the mask that is seen.
    """

    pixels: NDArray[np.uint8]
    low: float
    high: float
    step: int
    colours: dict[str, str]


def picture(composite: Composite, side: int = 1024, *, planes: Iterable[str] | None = None) -> Picture:
    """Return an image, reduced to at most ``side`` rows and columns, with its mask in colours.

    Parameters
    ----------
    composite : Composite
        One with an image of two axes; all its pixels are read.
    side : int, optional
        Rows and columns at most. Each pixel is the mean of a block; it has the colour of a plane if any pixel of the
        block does.
    planes : iterable of str, optional
        The planes of the mask that are shown; none if it is empty; all by default.

    Raises
    ------
    NoSuchComponentError
        If there is no image.
    MaskPlaneError
        If the mask has no plane of one of the names.
    TypeError
        If the image doesn't have two axes.
    CompositeH5Error
        As reading the image and the mask does.
    """
    name = composite.shown_image()
    shape = composite.lazy(name).shape
    if len(shape) != 2:
        raise WrongTypeError(f"{composite!r}: component {name!r} has {len(shape)} axes, but a picture needs two")
    step = max(1, *(-(-n // side) for n in shape))
    grey, low, high = stretched(block_means(composite[name].array, step))
    pixels = np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    colours: dict[str, str] = {}
    if "mask" in composite and (planes is None or planes):
        mask = composite["mask"]
        # A mask of another shape belongs to something else.
        if isinstance(mask, Mask) and mask.shape == shape:
            colours = _paint(pixels, mask, step, list(mask.planes) if planes is None else list(planes))
    return Picture(pixels, low, high, step, colours)


def _paint(pixels: NDArray[np.uint8], mask: Mask, step: int, planes: list[str]) -> dict[str, str]:
    """Mix the colours of planes into pixels; return those that are seen."""
    ny, nx = (-(-n // step) for n in mask.shape)
    padded = np.pad(mask.array, [(0, -n % step) for n in mask.shape])
    bits = np.bitwise_or.reduce(padded.reshape(ny, step, nx, step), axis=(1, 3))
    seen = {}
    names = list(COLOURS)
    for number, plane in enumerate(planes):
        where = bits & bits.dtype.type(mask.bits(plane)) != 0
        if where.any():
            seen[plane] = PLANE_COLOURS.get(plane, names[number % len(names)])
            pixels[where] = (pixels[where].astype(np.uint16) + COLOURS[seen[plane]]) // 2
    return seen


def on_terminal(shown: Picture) -> Any:
    """Return a picture as text of rich: two rows of pixels in each line, in half blocks. Needs the extra ``cli``."""
    from rich.text import Text

    pixels = shown.pixels[::-1]
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[:1])])
    text = Text(no_wrap=True, end="")
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        for above, below in zip(upper, lower, strict=True):
            text.append("▀", style="rgb({},{},{}) on rgb({},{},{})".format(*above, *below))
        text.append("\n")
    return text
