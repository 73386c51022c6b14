"""Tables of composites as data frames of dask, whose partitions are rows that are read where they are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..container.nodes import Node
from ..errors import ConversionError, FormatError, WrongValueError, checked_names
from ..opening import open_composite
from ..targets import node_bytes

if TYPE_CHECKING:
    from astropy.table import Column, Table
    from dask.dataframe import DataFrame

    from ..composite import Composite

_PARTITION_BYTES = 64 * 1024 * 1024
"""Size in memory of a partition where none is asked for."""


def to_frame(composite: Composite, name: str, chunks: Any, columns: str | Iterable[str] | None) -> DataFrame:
    """Return a component that is a table as a data frame; see `Composite.to_dask`."""
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
    node, target = composite._part(name).open_node()
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
    link = composite.stored_link(name)
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
