"""Cutting a part out of a composite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import kinds
from ..container.nodes import ArrayNode, Node
from ..errors import FormatError, OutsideError
from ..geometry import Box
from ..lazy import LazyArray
from ..parts import MemoryPart

if TYPE_CHECKING:
    from ..composite import Composite


def image_box(composite: Composite) -> Box:
    """Return the box, in parent coordinates, of the planes of pixels of a composite.

    Raises
    ------
    OutsideError
        If it has none.
    FormatError
        If they differ in it.
    """
    boxes = {}
    for name in composite:
        if kinds.get(composite.kind(name)).is_pixels:
            node, target = composite._part(name).open_node()
            try:
                boxes[name] = _plane_box(node)
            finally:
                if target is not None:
                    target.close()
    if not boxes:
        raise OutsideError(f"{composite!r} has no image or mask to cut from")
    if len(set(boxes.values())) > 1:
        raise FormatError(f"{composite!r}: its planes cover different boxes: {boxes}")
    return next(iter(boxes.values()))


def _plane_box(node: Node) -> Box:
    if not isinstance(node, ArrayNode):
        raise FormatError(f"{node.where}: a plane of pixels should be one array")
    y0, x0 = LazyArray(node).origin
    return Box(y0, y0 + node.shape[-2], x0, x0 + node.shape[-1])


def cutout(composite: Composite, where: Any, size: Any, components: Sequence[str] | None) -> Composite:
    """Return a part of a composite in memory; see `Composite.cutout`."""
    full = image_box(composite)
    box = full.intersection(_wanted_box(composite, full, where, size))
    if box.is_empty:
        raise OutsideError(f"{composite!r}: {where} with size {size} has no pixel in {full}")
    result = composite._like()
    names = composite if components is None else components
    for name in names:
        kind = kinds.get(composite.kind(name))
        if kind.is_pixels:
            value = composite.read(name, box=box)
        elif kind.name == "wcs":
            from ..kinds.wcs import shift

            value = shift(composite[name], box.y0 - full.y0, box.x0 - full.x0, box.shape)
        elif components is None:
            continue
        else:
            value = composite[name]
        result._parts[name] = MemoryPart(value, kind.name, composite.component_stage(name))
    return result


def _wanted_box(composite: Composite, full: Box, where: Any, size: Any) -> Box:
    if isinstance(where, Box):
        if size is not None:
            raise TypeError("a Box has its own size: leave `size` out")
        return where
    if size is None:
        raise TypeError("a cutout around a position needs a size: pixels, (rows, columns), or an angle")
    if isinstance(where, tuple) and len(where) == 2:
        y, x = (float(value) for value in where)
    else:
        wcs = composite["wcs"]
        column, row = (float(value) for value in wcs.world_to_pixel(where))
        if not (np.isfinite(row) and np.isfinite(column)):
            raise OutsideError(f"{composite!r}: the WCS has no pixel for {where}")
        y, x = row + full.y0, column + full.x0
    if hasattr(size, "unit"):
        from astropy.wcs.utils import proj_plane_pixel_scales

        # In the units of the WCS, which astropy keeps in degrees.
        scales = proj_plane_pixel_scales(composite["wcs"].celestial)
        extent = np.ceil(np.broadcast_to(size.to_value("deg"), 2) / scales[::-1])
        size = (int(extent[0]), int(extent[1]))
    shape = (int(size), int(size)) if np.ndim(size) == 0 else (int(size[0]), int(size[1]))
    if min(shape) < 1:
        raise ValueError(f"the size of a cutout must be positive, not {size}")
    return Box.around(y, x, shape)
