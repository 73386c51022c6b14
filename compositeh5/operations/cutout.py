"""Cutting a part out of a composite."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import kinds
from ..container.nodes import Array, ArrayNode, Selection
from ..container.reader import fetch_together
from ..container.selections import read_selections
from ..errors import FormatError, OutsideError, WrongTypeError, WrongValueError, checked_names
from ..geometry import Box
from ..lazy import LazyArray
from ..parts import MemoryPart

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord

    from ..composite import Composite

_WINDOW = 32
"""Of a remote file, what so many cutouts need is fetched together."""


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
    with closing(cut(composite, [where], size, components)) as results:
        result = next(results)
    if isinstance(result, OutsideError):
        raise result
    return result


def cut(
    composite: Composite, wheres: list[Any] | SkyCoord, size: Any, components: Sequence[str] | None
) -> Generator[Composite | OutsideError]:
    """Yield many parts of a composite in memory; for one that has no pixel, the error that says so.

    Parameters
    ----------
    composite, size, components
        As for `Composite.cutout`.
    wheres : list of Box, SkyCoord or (float, float); or SkyCoord of shape (n,)
        Where each is.
    """
    with _open_planes(composite) as planes:
        full = _common_box(composite, planes)
        boxes = _boxes(composite, full, wheres, size)
        inside = [box for box in boxes if isinstance(box, Box)]
        names = [
            name
            for name in (composite if components is None else checked_names(components, "the name of a component"))
            if components is not None or name in planes or composite.kind(name) == "wcs"
        ]
        wanted = {name: planes[name] for name in names if name in planes}
        arrays = {
            name: read_selections(node, [_selection(node, full, box) for box in inside])
            for name, node in wanted.items()
        }
        others = {name: composite[name] for name in names if name not in planes} if inside else {}
        done = 0
        for box in boxes:
            if isinstance(box, OutsideError):
                yield box
                continue
            if done % _WINDOW == 0:
                ahead = inside[done : done + _WINDOW]
                fetch_together((node, _selection(node, full, b)) for node in wanted.values() for b in ahead)
            done += 1
            result = composite._like()
            for name in names:
                kind = kinds.get(composite.kind(name))
                value: Any
                if name in wanted:
                    value = kind.decode(_at(box, wanted[name], next(arrays[name])))
                elif kind.name == "wcs":
                    from ..kinds.wcs import shift

                    value = shift(others[name], box.y0 - full.y0, box.x0 - full.x0, box.shape)
                else:
                    value = kind.share(others[name]) if len(inside) > 1 else others[name]
                result._parts[name] = MemoryPart(value, kind.name, composite.component_stage(name))
            yield result


def _selection(node: ArrayNode, full: Box, box: Box) -> Selection:
    return (*(slice(0, n) for n in node.shape[:-2]), *box.slices_in(full.origin))


def _at(box: Box, node: ArrayNode, values: NDArray[Any]) -> Array:
    """Return a node like that of a plane, with the values of a part of it."""
    attrs: Any = ChainMap({"origin": np.array(box.origin, np.int64)}, node.attrs)  # type: ignore[arg-type]
    return Array(values, attrs, node.where)


def _boxes(composite: Composite, full: Box, wheres: list[Any] | SkyCoord, size: Any) -> list[Box | OutsideError]:
    """Return the part of each wanted box that is inside, or the error of one that has no pixel."""
    wcs = composite["wcs"] if _on_sky(wheres) or any(map(_on_sky, wheres)) or hasattr(size, "unit") else None
    shape = None if size is None else _shape(wcs, size)
    centres = _centres(wcs, full, wheres) if _on_sky(wheres) else wheres
    found: list[Box | OutsideError] = []
    for i, centre in enumerate(centres):
        box = _wanted_box(wcs, full, centre, shape)
        part = None if box is None else full.intersection(box)
        if part is not None and not part.is_empty:
            found.append(part)
        elif box is None:
            found.append(OutsideError(f"{composite._where}: the WCS has no pixel for {wheres[i]}"))
        else:
            found.append(OutsideError(f"{composite._where}: {wheres[i]} with size {size} has no pixel in {full}"))
    return found


def _on_sky(where: Any) -> bool:
    return hasattr(where, "frame")


def is_position(where: Any) -> bool:
    """Return whether this is a pixel (y, x): two numbers, also as arrays without axes, as a WCS gives them."""
    return isinstance(where, tuple) and len(where) == 2 and all(map(_is_number, where))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) or (isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "iuf")


def _centres(wcs: Any, full: Box, positions: SkyCoord) -> list[tuple[float, float]]:
    """Return the pixels (y, x) of sky positions in parent coordinates; NaN where there are none."""
    columns, rows = (np.atleast_1d(np.asarray(values, np.float64)) for values in wcs.world_to_pixel(positions))
    return list(zip((rows + full.y0).tolist(), (columns + full.x0).tolist(), strict=True))


def _wanted_box(wcs: Any, full: Box, where: Any, shape: tuple[int, int] | None) -> Box | None:
    """Return the box of a cutout in parent coordinates; None where the WCS has no pixel."""
    if isinstance(where, Box):
        if shape is not None:
            raise WrongTypeError("a Box has its own size: leave `size` out")
        return where
    if not _on_sky(where) and not is_position(where):
        raise WrongTypeError(f"where a cutout is should be a Box, a SkyCoord or (y, x), not {where!r}")
    if shape is None:
        raise WrongTypeError("a cutout around a position needs a size: pixels, (rows, columns), or an angle")
    y, x = _centres(wcs, full, where)[0] if _on_sky(where) else (float(value) for value in where)
    return Box.around(y, x, shape) if np.isfinite(y) and np.isfinite(x) else None


def _shape(wcs: Any, size: Any) -> tuple[int, int]:
    if hasattr(size, "to_value"):
        from astropy.wcs.utils import proj_plane_pixel_scales

        # In the units of the WCS, which astropy keeps in degrees.
        scales = proj_plane_pixel_scales(wcs.celestial)
        extent = np.ceil(np.broadcast_to(size.to_value("deg"), 2) / scales[::-1])
        size = (int(extent[0]), int(extent[1]))
    numbers = np.asarray(size)
    if numbers.shape not in ((), (2,)) or numbers.dtype.kind not in "iuf" or not np.isfinite(numbers).all():
        raise WrongTypeError(f"the size of a cutout is one number of pixels, or two (y, x), not {size!r}")
    ny, nx = np.broadcast_to(numbers, 2)
    shape = int(ny), int(nx)
    if min(shape) < 1:
        raise WrongValueError(f"the size of a cutout must be positive, not {size}")
    return shape
