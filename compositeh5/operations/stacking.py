"""Arrays of many composites as one lazy array of dask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError

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
class _Stored:
    """An array that is read where it is needed; picklable, for it holds no file."""

    open: Callable[[], Composite]
    name: str
    plane: Plane

    @property
    def shape(self) -> tuple[int, ...]:
        return self.plane.shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.plane.dtype

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        with self.open() as composite:
            lazy = composite.lazy(self.name)
            if all(isinstance(item, int | slice) for item in index):
                return np.asarray(lazy[index])
            return np.asarray(np.asarray(lazy)[index])

    def __dask_tokenize__(self) -> tuple[str, str]:
        return self.name, self.plane.digest


def stack(planes: Mapping[Any, Plane], openers: Mapping[Any, Callable[[], Composite]], name: str, chunks: Any) -> Array:
    """Return planes as one array; see `VisitView.to_dask`."""
    import dask.array as da

    layouts = {key: f"shape {plane.shape}, first pixel {plane.origin}, {plane.dtype}" for key, plane in planes.items()}
    (most, _), *others = Counter(layouts.values()).most_common()
    if others:
        deviating = "; ".join(f"{key}: {layout}" for key, layout in layouts.items() if layout != most)
        raise FormatError(f"component {name!r} can't be stacked: most have {most}, but {deviating}; choose `detectors`")
    stored = [_Stored(openers[key], name, plane) for key, plane in planes.items()]
    return da.stack([da.from_array(array, chunks=chunks, asarray=True) for array in stored])
