"""Arrays of composites as lazy arrays of dask: one of them, or many stacked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError
from ..opening import open_composite
from .members import Detector, unlike_most

if TYPE_CHECKING:
    from dask.array import Array

    from ..composite import Composite


class Plane(NamedTuple):
    """What is known of an array component before it is read.

    Attributes
    ----------
    digest : str
        Its digest.
    shape, dtype
        Of the array.
    origin : (int, int)
        Parent coordinates of its first pixel.
    """

    digest: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    origin: tuple[int, int]


def plane_of(name: str, composite: Composite) -> Plane:
    """Return what is known of an array component of an open composite.

    Raises
    ------
    TypeError
        If it isn't one array.
    """
    lazy = composite.lazy(name)
    return Plane(composite.component_digest(name), lazy.shape, lazy.dtype, lazy.origin)


@dataclass(frozen=True)
class _Stack:
    """Arrays that are read where and as far as they are needed; picklable, for it holds no file."""

    openers: tuple[Callable[[], Composite], ...]
    name: str
    planes: tuple[Plane, ...]
    chunks: tuple[int, ...] | None = None
    """Shape of the chunks as stored, of which those of dask are multiples."""

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.planes), *self.planes[0].shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.planes[0].dtype

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        first, *rest = index
        chosen = np.arange(len(self.planes))[first]
        if not chosen.size:
            nothing: NDArray[Any] = np.broadcast_to(np.zeros((), self.dtype), self.shape)[index]
            return nothing
        if chosen.ndim == 0:
            return self._read(int(chosen), tuple(rest))
        return np.stack([self._read(number, tuple(rest)) for number in chosen.tolist()])

    def _read(self, number: int, index: tuple[Any, ...]) -> NDArray[Any]:
        with self.openers[number]() as composite:
            lazy = composite.lazy(self.name)
            if all(isinstance(item, int | slice) for item in index):
                return np.asarray(lazy[index])
            return np.asarray(np.asarray(lazy)[index])

    def __dask_tokenize__(self) -> tuple[str, ...]:
        return self.name, *(plane.digest for plane in self.planes)


def stack(
    planes: Mapping[Detector, Plane], openers: Mapping[Detector, Callable[[], Composite]], name: str, chunks: Any
) -> Array:
    """Return planes as one array; see `VisitView.to_dask`."""
    da = _dask_array()
    layouts = {key: f"shape {plane.shape}, first pixel {plane.origin}, {plane.dtype}" for key, plane in planes.items()}
    if others := unlike_most(layouts):
        most = next(layout for key, layout in layouts.items() if key not in others)
        deviating = "; ".join(f"{key}: {layout}" for key, layout in others.items())
        raise FormatError(f"component {name!r} can't be stacked: most have {most}, but {deviating}; choose `detectors`")
    stored = _Stack(tuple(openers[key] for key in planes), name, tuple(planes.values()))
    # One array, and not one for each detector, lets dask push slices down to what is read.
    within = chunks if isinstance(chunks, tuple) else (chunks,) * (stored.ndim - 1)
    return da.from_array(stored, chunks=(1, *within), asarray=True)


def to_dask(composite: Composite, name: str, chunks: Any) -> Array:
    """Return one component as an array; see `Composite.to_dask`."""
    da = _dask_array()
    lazy = composite.lazy(name)
    if composite.location is None and name not in composite.links:
        return da.from_array(np.asarray(lazy), chunks=chunks)
    # Where it really is: the workers then have no link to follow.
    link = composite.stored_link(name)
    opening = None if name in composite.links else composite._opening
    opener = partial(open_composite, link.uri, id=link.id) if opening is None else opening.of(composite).reopened
    stored = _Stack((opener,), link.component, (plane_of(name, composite),), (1, *(lazy.chunks or lazy.shape)))
    within = chunks if isinstance(chunks, tuple) else (chunks,) * lazy.ndim
    return da.from_array(stored, chunks=(1, *within), asarray=True)[0]


def _dask_array() -> Any:
    try:
        import dask.array
    except ImportError as error:
        raise ImportError("lazy arrays for many workers need dask: pip install 'compositeh5[dask]'") from error
    return dask.array
