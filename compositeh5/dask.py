"""Composites as lazy arrays and data frames of dask: one component, or those of many detectors stacked.

Needs the extra ``dask``, and for tables pandas and pyarrow. What is sent to workers is where components are, not their
content: they open the files themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .composite.composite import Composite
from .composite.opening import open_composite
from .composite.session import node_bytes
from .errors import (
    ConversionError,
    FormatError,
    NoSuchComponentError,
    UnsupportedParameterError,
    WrongValueError,
    checked_names,
)
from .storage.nodes import Node
from .trees.visit_members import Detector, unlike_most
from .trees.visit_view import VisitView

if TYPE_CHECKING:
    from astropy.table import Column, Table
    from dask.array import Array
    from dask.dataframe import DataFrame

_PARTITION_BYTES = 64 * 1024 * 1024
"""Size in memory of a partition of a table where none is asked for."""


def to_dask(
    composite: Composite, name: str = "image", *, chunks: Any = "auto", columns: str | Iterable[str] | None = None
) -> Array | DataFrame:
    """Return a component as a lazy array or data frame of dask, read where it is computed.

    The composite need not stay open. If it isn't stored, the result holds the values.

    Parameters
    ----------
    composite : Composite
        The composite.
    name : str, optional
        Name of a component that is one array (an image, a mask), or a table.
    chunks : int, str or tuple, optional
        Chunks along each axis, as dask takes them. By default dask chooses multiples of the chunks as stored;
        ``composite.lazy(name).chunks`` are these themselves. Of a table the number of rows in each partition, by
        default as many as are 64 MiB.
    columns : iterable of str, or str, optional
        The columns of a table; all by default. Of these, what a computation doesn't need isn't read.

    Returns
    -------
    dask.array.Array or dask.dataframe.DataFrame
        An array of shape and type of the component; a frame with what `astropy.table.Table.to_pandas` gives,
        indexed by row. Neither has units.

    Raises
    ------
    ImportError
        If dask, or for tables pandas or pyarrow, isn't installed.
    TypeError
        If the component is neither one array nor a table.
    ConversionError
        If the table has columns of several axes.
    CompositeH5Error
        As ``composite[name]`` does.

    Examples
    --------
    >>> to_dask(composite, "image").mean().compute()  # doctest: +SKIP
    """
    if composite.kind(name) == "table":
        return _to_frame(composite, name, chunks, columns)
    if columns is not None:
        raise UnsupportedParameterError(f"{composite.where}: component {name!r} is no table, and has no columns")
    return _to_array(composite, name, chunks)


def stack(
    view: VisitView, name: str = "image", *, detectors: Sequence[Detector] | None = None, chunks: Any = -1
) -> Array:
    """Return the pixels of all detectors of a visit as one lazy array, in the order of `VisitView.detectors`.

    Parameters
    ----------
    view : VisitView
        What `compositeh5.trees.open_visit` gives.
    name : str, optional
        Name of a component that is one array: an image, a mask.
    detectors : sequence, optional
        The detectors that are wanted, by default all.
    chunks : int or tuple, optional
        Rows and columns of chunks, as dask takes them; by default a chunk for each detector. What is stored in
        one chunk of the file is always read as a whole.

    Returns
    -------
    dask.array.Array, shape (detector, y, x)
        Of the type of the pixels, without unit.

    Raises
    ------
    FormatError
        If the components differ in box or type; the message says which.
    TypeError
        If they aren't arrays.
    """
    da = _dask_array()
    planes = view.map(name, partial(_plane_of, name), detectors=detectors)
    if not planes:
        raise NoSuchComponentError(f"{view!r}: no detector was chosen; there are {', '.join(map(str, view.detectors))}")
    layouts = {key: f"shape {plane.shape}, first pixel {plane.origin}, {plane.dtype}" for key, plane in planes.items()}
    if others := unlike_most(layouts):
        most = next(layout for key, layout in layouts.items() if key not in others)
        deviating = "; ".join(f"{key}: {layout}" for key, layout in others.items())
        raise FormatError(f"component {name!r} can't be stacked: most have {most}, but {deviating}; choose `detectors`")
    stored = _Stack(tuple(view.opener(key) for key in planes), name, tuple(planes.values()))
    # One array, and not one for each detector, lets dask push slices down to what is read.
    within = chunks if isinstance(chunks, tuple) else (chunks,) * (stored.ndim - 1)
    return da.from_array(stored, chunks=(1, *within), asarray=True)


class _Plane(NamedTuple):
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


def _plane_of(name: str, composite: Composite) -> _Plane:
    """Return what is known of an array component of an open composite.

    Raises
    ------
    TypeError
        If it isn't one array.
    """
    lazy = composite.lazy(name)
    return _Plane(composite.component_digest(name), lazy.shape, lazy.dtype, lazy.origin)


@dataclass(frozen=True)
class _Stack:
    """Arrays that are read where and as far as they are needed; picklable, for it holds no file."""

    openers: tuple[Callable[[], Composite], ...]
    name: str
    planes: tuple[_Plane, ...]
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


def _to_array(composite: Composite, name: str, chunks: Any) -> Array:
    da = _dask_array()
    lazy = composite.lazy(name)
    if composite.location is None and name not in composite.links:
        return da.from_array(np.asarray(lazy), chunks=chunks)
    # Where it really is: the workers then have no link to follow.
    link = composite.link(name)
    can_reopen = composite.can_reopen and name not in composite.links
    opener = composite.opener() if can_reopen else partial(open_composite, link.uri, id=link.id)
    stored = _Stack((opener,), link.component, (_plane_of(name, composite),), (1, *(lazy.chunks or lazy.shape)))
    within = chunks if isinstance(chunks, tuple) else (chunks,) * lazy.ndim
    return da.from_array(stored, chunks=(1, *within), asarray=True)[0]


def _dask_array() -> Any:
    try:
        import dask.array
    except ImportError as error:
        raise ImportError("lazy arrays for many workers need dask: pip install 'compositeh5[dask]'") from error
    return dask.array


def _to_frame(composite: Composite, name: str, chunks: Any, columns: str | Iterable[str] | None) -> DataFrame:
    try:
        import dask.dataframe as dd
    except ImportError as error:
        raise ImportError(
            "tables as data frames of dask need pandas and pyarrow: pip install dask[dataframe]"
        ) from error
    chosen = {} if columns is None else {"columns": list(checked_names(columns, "the name of a column"))}
    # The types of what is empty are not always those of what isn't.
    first = composite.read(name, rows=slice(0, 1), **chosen)
    meta = _empty_frame(first, f"{composite!r}: table {name!r}")
    if composite.location is None and name not in composite.links:
        frame = composite.read(name, **chosen).to_pandas(index=False).astype(meta.dtypes)
        return dd.from_pandas(frame, npartitions=1) if chunks == "auto" else dd.from_pandas(frame, chunksize=chunks)
    node, target = composite.part(name).open_node()
    try:
        rows = node.attr("rows", int)
        each = _rows_of_partitions(node, rows) if chunks == "auto" else chunks
    finally:
        if target is not None:
            target.close()
    if isinstance(each, bool) or not isinstance(each, int) or each < 1:
        raise WrongValueError(f"the chunks of a table should be a number of rows, not {chunks!r}")
    starts = range(0, max(rows, 1), each)
    # Where it really is: the workers then have no link to follow.
    link = composite.link(name)
    read = partial(
        _read, partial(open_composite, link.uri, id=link.id), link.component, _sources(first), meta.dtypes.to_dict()
    )
    return dd.from_map(
        read,
        [slice(start, min(start + each, rows)) for start in starts],
        meta=meta,
        divisions=(*starts, rows - 1) if rows else None,
        label=f"compositeh5-{name}",
    )


def _rows_of_partitions(node: Node, rows: int) -> int:
    return max(1, _PARTITION_BYTES * rows // max(node_bytes(node), 1))


def _empty_frame(table: Table, where: str) -> Any:
    """Return a frame without rows, of the types that the frame of any part of the table has."""
    if deep := [name for name in table.colnames if len(table[name].shape) > 1]:
        raise ConversionError(
            f"{where} can't be a data frame, for columns have several axes: {', '.join(deep)}; choose other `columns`"
        )
    try:
        frame = table.to_pandas(index=False)[:0]
    except (ValueError, TypeError) as error:
        raise ConversionError(f"{where} can't be a data frame; choose other `columns`: {error}") from error
    # Of masked integers pandas has other types, but astropy gives them only to parts in which something is masked.
    return frame.astype({name: dtype for name in table.colnames if (dtype := _nullable(table[name])) is not None})


def _nullable(column: Column) -> str | None:
    from astropy.table import MaskedColumn

    if not isinstance(column, MaskedColumn) or column.dtype.kind not in "iub":
        return None
    kind, bits = column.dtype.kind, 8 * column.dtype.itemsize
    return {"i": f"Int{bits}", "u": f"UInt{bits}", "b": "boolean"}[kind]


def _sources(table: Table) -> dict[str, str]:
    """Return of which column of the table each one of the frame is made: a sky position becomes several."""
    return {made: name for name in table.colnames for made in table[[name]].to_pandas(index=False).columns}


def _read(
    opener: Callable[[], Composite],
    component: str,
    sources: Mapping[str, str],
    dtypes: Mapping[str, Any],
    rows: slice,
    columns: Sequence[str] | None = None,
) -> Any:
    """Return some rows as a frame of pandas; dask says by ``columns`` which ones are needed of it."""
    import pandas as pd

    wanted = list(sources) if columns is None else list(columns)
    with opener() as composite:
        table = composite.read(component, rows=rows, columns=list(dict.fromkeys(sources[name] for name in wanted)))
    if len(table) != rows.stop - rows.start:
        raise FormatError(f"{composite.location}: table {component!r} has other rows than it had")
    frame = table.to_pandas(index=False)[wanted].astype({name: dtypes[name] for name in wanted})
    return frame.set_index(pd.RangeIndex(rows.start, rows.stop))
