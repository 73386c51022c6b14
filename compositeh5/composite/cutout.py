"""Cutting a part out of a composite."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import kinds
from ..box import Box
from ..errors import (
    FormatError,
    OutsideError,
    RefusedError,
    WrongTypeError,
    WrongValueError,
    checked_names,
    require_type,
)
from ..storage.chunks import read_selections
from ..storage.nodes import Array, ArrayNode, Selection
from ..storage.reader import prefetch_nodes
from .interface import CompositeLike
from .lazy import LazyArray
from .parts import Part, ValuePart

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord

_WINDOW = 32
"""Of a remote file, what so many cutouts need is fetched together."""


_C = TypeVar("_C", bound=CompositeLike)
Parts = Mapping[str, Part]


def lazy(composite: CompositeLike, name: str) -> LazyArray:
    """Return an array component such that indexing reads only that part: ``c.lazy("image")[10:20, 30:40]``.

    Parameters
    ----------
    composite : Composite
        The composite.
    name : str
        Name of the component.

    Raises
    ------
    TypeError
        If the component isn't one array.
    """
    part = composite.part(name)
    node, file = part.open_node()
    if file is not None:
        if len(composite._files) >= (most := file.limits.open_files):
            file.close()
            raise RefusedError(
                f"{composite.where}: would keep more than {most} files of its links open: read whole components, or "
                f"pass other limits (compositeh5.Limits(open_files=...))"
            )
        composite._files.append(file)
    if not isinstance(node, ArrayNode):
        raise WrongTypeError(f"{composite.where}: component {name!r} of kind {part.kind!r} isn't one array")
    return LazyArray(node)


def memmap(composite: CompositeLike, name: str) -> NDArray[Any]:
    """Return an array component mapped into memory, read-only; see `LazyArray.memmap`.

    Parameters
    ----------
    composite : Composite
        The composite.
    name : str
        Name of the component.
    """
    array = lazy(composite, name)
    try:
        return array.memmap()
    except WrongTypeError as error:
        kind = composite.part(name).kind
        raise WrongTypeError(f"{composite.where}: component {name!r} of kind {kind!r}: {error}") from error


def cutout(composite: _C, where: Any, size: Any = None, *, components: Sequence[str] | None = None) -> _C:
    """Return the part of the composite around a position, in memory.

    Parameters
    ----------
    composite : Composite
        The composite.
    where : Box, SkyCoord or (float, float)
        A box in parent coordinates, or the centre: a sky position, or (y, x) in parent coordinates.
    size : int, (int, int) or Quantity, optional
        Number of pixels along both axes, or of rows and columns, or an angle; needed with a centre.
    components : sequence of str, optional
        The components wanted. By default all planes of pixels, and the WCS.

    Returns
    -------
    Composite
        The planes cut to the part of the box that is inside the image, the WCS changed so that the same
        pixels have the same sky positions, others as they are.

    Raises
    ------
    OutsideError
        If the box has no pixel of the image.
    """
    with closing(cutouts(composite, [where], size, components=components)) as results:
        result = next(results)
    if isinstance(result, OutsideError):
        raise result
    return result


def cutouts(
    composite: _C, wheres: Any, size: Any = None, *, components: Sequence[str] | None = None
) -> Generator[_C | OutsideError]:
    """Yield the parts around several positions, each chunk read once; an error for one that has no pixel.

    Parameters
    ----------
    composite : Composite
        The composite.
    wheres : sequence of Box, SkyCoord or (float, float); or SkyCoord of shape (n,)
        Where each is.
    size, components
        As for `cutout`.
    """
    require_type(wheres, Sequence if not hasattr(wheres, "frame") else object, "positions, several of them,")
    if components is not None:
        components = checked_names(components, "the name of a component")
    with closing(_cut(composite.parts, wheres, size, components, composite.where)) as results:
        for parts in results:
            yield parts if isinstance(parts, OutsideError) else composite.with_parts(parts)


def image_box(composite: CompositeLike) -> Box:
    """Return the box, in parent coordinates, of the planes of pixels of a composite.

    Raises
    ------
    OutsideError
        If it has none.
    FormatError
        If they differ in it.
    """
    with _open_planes(composite.parts) as planes:
        return _common_box(planes, composite.where)


@contextmanager
def _open_planes(parts: Parts) -> Iterator[dict[str, ArrayNode]]:
    """Give the nodes of the planes of pixels; the files of linked ones are open meanwhile, and so opened once."""
    with ExitStack() as stack:
        planes = {}
        for name, part in parts.items():
            if kinds.get(part.kind).is_pixels:
                node, file = part.open_node()
                if file is not None:
                    stack.callback(file.close)
                if not isinstance(node, ArrayNode):
                    raise FormatError(f"{node.where}: a plane of pixels should be one array")
                planes[name] = node
        yield planes


def _common_box(planes: dict[str, ArrayNode], where: str) -> Box:
    boxes = {name: _plane_box(node) for name, node in planes.items()}
    if not boxes:
        raise OutsideError(f"{where}: has no image or mask to cut from")
    if len(set(boxes.values())) > 1:
        raise FormatError(f"{where}: its planes cover different boxes: {boxes}")
    return next(iter(boxes.values()))


def _plane_box(node: ArrayNode) -> Box:
    y0, x0 = LazyArray(node).origin
    return Box(y0, y0 + node.shape[-2], x0, x0 + node.shape[-1])


def _cut(
    parts: Parts, wheres: list[Any] | SkyCoord, size: Any, components: Iterable[str] | None, where: str
) -> Generator[dict[str, Part] | OutsideError]:
    """Yield the components of parts of a composite, in memory; for one that has no pixel, the error that says so."""
    with _open_planes(parts) as planes:
        full = _common_box(planes, where)
        boxes = _boxes(parts, full, wheres, size, where)
        inside = [box for box in boxes if isinstance(box, Box)]
        names = [
            name
            for name in (parts if components is None else components)
            if components is not None or name in planes or parts[name].kind == "wcs"
        ]
        wanted = {name: planes[name] for name in names if name in planes}
        arrays = {
            name: read_selections(node, [_selection(node, full, box) for box in inside])
            for name, node in wanted.items()
        }
        others = {name: parts[name].read() for name in names if name not in planes} if inside else {}
        done = 0
        for box in boxes:
            if isinstance(box, OutsideError):
                yield box
                continue
            if done % _WINDOW == 0:
                ahead = inside[done : done + _WINDOW]
                prefetch_nodes((node, _selection(node, full, b)) for node in wanted.values() for b in ahead)
            done += 1
            result: dict[str, Part] = {}
            for name in names:
                kind = kinds.get(parts[name].kind)
                value: Any
                if name in wanted:
                    value = kind.decode(_at(box, wanted[name], next(arrays[name])))
                elif kind.name == "wcs":
                    from ..kinds.wcs import shift

                    value = shift(others[name], box.y0 - full.y0, box.x0 - full.x0, box.shape)
                else:
                    value = kind.share(others[name]) if len(inside) > 1 else others[name]
                result[name] = ValuePart(value, kind.name, parts[name].stage)
            yield result


def _selection(node: ArrayNode, full: Box, box: Box) -> Selection:
    return (*(slice(0, n) for n in node.shape[:-2]), *box.slices_in(full.origin))


def _at(box: Box, node: ArrayNode, values: NDArray[Any]) -> Array:
    """Return a node like that of a plane, with the values of a part of it."""
    attrs: Any = ChainMap({"origin": np.array(box.origin, np.int64)}, node.attrs)  # type: ignore[arg-type]
    return Array(values, attrs, node.where)


def _boxes(parts: Parts, full: Box, wheres: list[Any] | SkyCoord, size: Any, where: str) -> list[Box | OutsideError]:
    """Return the part of each wanted box that is inside, or the error of one that has no pixel."""
    wcs = parts["wcs"].read() if _on_sky(wheres) or any(map(_on_sky, wheres)) or hasattr(size, "unit") else None
    shape = None if size is None else _shape(wcs, size)
    centres = _centres(wcs, full, wheres) if _on_sky(wheres) else wheres
    found: list[Box | OutsideError] = []
    for i, centre in enumerate(centres):
        box = _wanted_box(wcs, full, centre, shape)
        part = None if box is None else full.intersection(box)
        if part is not None and not part.is_empty:
            found.append(part)
        elif box is None:
            found.append(OutsideError(f"{where}: the WCS has no pixel for {wheres[i]}"))
        else:
            found.append(OutsideError(f"{where}: {wheres[i]} with size {size} has no pixel in {full}"))
    return found


def _on_sky(where: Any) -> bool:
    return hasattr(where, "frame")


def is_position(where: Any) -> bool:
    """Return whether this is a pixel (y, x): two numbers, also as arrays without axes, as a WCS gives them."""
    return (
        isinstance(where, tuple)
        and len(where) == 2
        and all(np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iuf" for value in where)
    )


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
