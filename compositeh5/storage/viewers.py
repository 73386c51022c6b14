"""Attributes that let other software show a dataset as an image.

HDF5 Image and Palette Specification 1.2 (for HDFView and the HL library) and NeXus (for silx, h5web and NeXpy).
"""

from __future__ import annotations

import numpy as np

from .nodes import ArrayNode, AttrValue

RANGE = "IMAGE_MINMAXRANGE"
"""Attribute with the least and the greatest finite value."""


def image_attrs(node: ArrayNode) -> dict[str, AttrValue]:
    """Return the attributes of a 2-d image; an empty dict for an array that can't be shown as one."""
    if node.ndim != 2 or 0 in node.shape:
        return {}
    values = node.read()
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        # Viewers take the range as it is, and show all black where it is not finite.
        finite = np.isfinite(values)
        low = values.min(where=finite, initial=np.inf) if finite.any() else values.dtype.type(0)
        high = values.max(where=finite, initial=-np.inf) if finite.any() else values.dtype.type(0)
    return {
        "CLASS": "IMAGE",
        "IMAGE_VERSION": "1.2",
        "IMAGE_SUBCLASS": "IMAGE_GRAYSCALE",
        RANGE: np.array([low, high], values.dtype),
        "DISPLAY_ORIGIN": "LL",
        "interpretation": "image",
    }
