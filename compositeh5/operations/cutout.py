"""Cutting a part out of a composite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import kinds
from ..container.nodes import ArrayNode
from ..container.reader import fetch_together
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
    with _open_planes(composite) as planes:
        return _common_box(composite, planes)


@contextmanager
def _open_planes(composite: Composite) -> Iterator[dict[str, ArrayNode]]:
    """Give the nodes of the planes of pixels; the files of linked ones are open meanwhile, and so opened once."""
    with ExitStack() as stack:
        planes = {}
        for name in composite:
            if kinds.get(composite.kind(name)).is_pixels:
                node, target = composite._part(name).open_node()
                if target is not None:
                    stack.callback(target.close)
                if not isinstance(node, ArrayNode):
                    raise FormatError(f"{node.where}: a plane of pixels should be one array")
                planes[name] = node
        yield planes


def _common_box(composite: Composite, planes: dict[str, ArrayNode]) -> Box:
    boxes = {name: _plane_box(node) for name, node in planes.items()}
    if not boxes:
        raise OutsideError(f"{composite!r} has no image or mask to cut from")
    if len(set(boxes.values())) > 1:
        raise FormatError(f"{composite!r}: its planes cover different boxes: {boxes}")
    return next(iter(boxes.values()))


def _plane_box(node: ArrayNode) -> Box:
    y0, x0 = LazyArray(node).origin
    return Box(y0, y0 + node.shape[-2], x0, x0 + node.shape[-1])


def cutout(composite: Composite, where: Any, size: Any, components: Sequence[str] | None) -> Composite:
    """Return a part of a composite in memory; see `Composite.cutout`."""
    with _open_planes(composite) as planes:
        full = _common_box(composite, planes)
        box = full.intersection(_wanted_box(composite, full, where, size))
        if box.is_empty:
            raise OutsideError(f"{composite!r}: {where} with size {size} has no pixel in {full}")
        names = composite if components is None else components
        rows_and_columns = box.slices_in(full.origin)
        fetch_together(
            (node, (slice(None),) * (node.ndim - 2) + rows_and_columns)
            for name, node in planes.items()
            if name in names
        )
        result = composite._like()
        for name in names:
            kind = kinds.get(composite.kind(name))
            value: Any
            if name in planes:
                value = kinds.decode(planes[name], box=box)
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
