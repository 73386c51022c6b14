"""The kind ``table``: an astropy table, each column a typed value of its own, so that columns can be read alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CompositeH5Error, EncodeError, FormatError, NoSuchComponentError, checked_names
from ..storage.nodes import Array, ArrayNode, AttrValue, Group, GroupNode, Node, escape_name, unescape_name
from ..storage.reader import prefetch_nodes
from . import record
from .units import unit_from_text, unit_to_text
from .values import decode_value, encode_value, expect_group, split_rows, text_array, value_shape

if TYPE_CHECKING:
    from astropy.table import Table

# astropy formats a value as soon as a format is set: no attributes of values, and no widths that fill the memory.
_REFUSED_FORMAT = re.compile(r"\d{4}|\{[^}:]*[.\[]")

_COLUMNS, _META, _COLUMN_META = "@columns", "@meta", "@column_meta"


def coerce(value: Any) -> Table:
    """Return an astropy table as it is."""
    from astropy.table import Table

    if not isinstance(value, Table):
        raise EncodeError(
            f"a table should be an astropy Table, not {type(value).__name__}; pass Table(value), "
            f"or Table.from_pandas(value) for a data frame"
        )
    return value


def encode(table: Table) -> Node:
    """Return the group of a table, whose columns are not copied; an `EncodeError` names the column."""
    from astropy.table import QTable

    links = [escape_name(name) for name in table.colnames]
    children: dict[str, Node] = {_COLUMNS: Array(np.array(links, np.str_), {}, _COLUMNS)}
    for link, name in zip(links, table.colnames, strict=True):
        children[link] = _encode_column(table[name], f"column {name!r}")
    if table.meta:
        children[_META] = encode_value(table.meta, "meta")
    if column_meta := {name: table[name].info.meta for name in table.colnames if table[name].info.meta}:
        children[_COLUMN_META] = encode_value(column_meta, "column meta")
    attrs: dict[str, AttrValue] = {
        "table_class": "QTable" if isinstance(table, QTable) else "Table",
        "rows": len(table),
    }
    if table.masked:
        attrs["masked"] = True
    return Group(children, attrs, "table")


def decode(node: Node, *, columns: str | Iterable[str] | None = None, rows: Any = None) -> Table:
    """Return the table that a node holds, or some columns and rows of it; only these are read.

    ``columns`` are names, in the order wanted. ``rows`` is a slice, row numbers (for which all rows between the lowest
    and the highest are read), or a bool for each row. A `NoSuchComponentError` says that there is no column of one of
    the names, an `IndexError` that there is no row of one of the numbers.
    """
    from astropy.table import QTable, Table

    group = expect_group(node, "a table")
    table_class = {"Table": Table, "QTable": QTable}.get(node.attr("table_class", str))
    if table_class is None:
        raise FormatError(f"{node.where}: there is no table class {node.attrs['table_class']!r}")
    length = node.attr("rows", int)
    covering, index = (None, None) if rows is None else split_rows(rows, length)
    names = _names(group)
    if columns is not None:
        there = set(names)
        wanted = list(dict.fromkeys(checked_names(columns, "the name of a column")))
        if missing := [name for name in wanted if name not in there]:
            raise NoSuchComponentError(
                f"{node.where}: there is no column {missing[0]!r} (there are: {', '.join(names)})"
            )
        names = wanted
    column_meta = record.decode(group[_COLUMN_META]).to_dict() if _COLUMN_META in group else {}
    nodes = [group[escape_name(name)] for name in names]
    if columns is not None or rows is not None:
        selection = () if covering is None else (covering,)
        prefetch_nodes((child, selection) for child in nodes if isinstance(child, ArrayNode) and child.ndim)
    try:
        table = table_class(
            [_decode_column(child, length, covering, index) for child in nodes],
            names=names,
            masked=node.attr("masked", bool, False),
            copy=False,
        )
        for given, name, child in zip(table.colnames, names, nodes, strict=True):
            if given != name:
                table.rename_column(given, name)  # astropy makes up a name for an empty one
            _set_info(table[name], child, column_meta.get(name))
    except CompositeH5Error:
        raise
    except (ValueError, TypeError, AttributeError) as error:
        raise FormatError(f"{node.where}: not the columns of a table: {error}") from error
    if _META in group:
        table.meta.update(record.decode(group[_META]).to_dict())
    return table


def _encode_column(column: Any, path: str) -> Node:
    from astropy.table import Column

    info = column.info
    # The data of a plain column are an ndarray, those of a masked one a MaskedArray; other columns are values.
    node = encode_value(column.data if isinstance(column, Column) else column, path)
    attrs: dict[str, AttrValue] = {}
    if isinstance(column, Column) and column.unit is not None:
        attrs["units"] = unit_to_text(column.unit, path)
    if info.description is not None:
        if not isinstance(info.description, str):
            raise EncodeError(f"{path}: its description should be text, not {info.description!r}")
        attrs["description"] = text_array(info.description, f"{path}: description").item()
    if info.format is not None:
        if not isinstance(info.format, str) or _REFUSED_FORMAT.search(info.format):
            raise EncodeError(f"{path}: its format should be a format specification such as '.3f', not {info.format!r}")
        attrs["display_format"] = info.format
    node.attrs = {**node.attrs, **attrs}
    return node


def _decode_column(node: Node, length: int, rows: slice | None, index: Any) -> Any:
    from astropy.table import Column, MaskedColumn

    if value_shape(node)[:1] != (length,):
        raise FormatError(f"{node.where}: a column of {length} rows can't have shape {value_shape(node)}")
    value = decode_value(node, rows)
    if index is not None:
        value = value[index]
    plain = {"array": Column, "masked_array": MaskedColumn}.get(node.attr("type", str))
    return value if plain is None else plain(value, copy=False)


def _set_info(column: Any, node: Node, meta: dict[str, Any] | None) -> None:
    from astropy.table import Column

    display_format = node.attr("display_format", str, None)
    if display_format is not None and _REFUSED_FORMAT.search(display_format):
        raise FormatError(f"{node.where}: {display_format[:40]!r} is not a format specification that is used")
    if isinstance(column, Column) and "units" in node.attrs:
        # Not earlier: a QTable would make a Quantity of a new column with a unit.
        column.unit = unit_from_text(node.attr("units", str), node.where)
    column.info.description = node.attr("description", str, None)
    column.info.format = display_format
    if meta:
        column.info.meta = meta


def _names(node: GroupNode) -> list[str]:
    links: list[str] = node.array(_COLUMNS, 1, "U").read().tolist()
    children = [link for link in node if not link.startswith("@")]
    if sorted(links) != sorted(children):
        different = ", ".join(sorted(set(links) ^ set(children)))
        raise FormatError(f"{node.where}: the columns listed aren't those that there are; different: {different}")
    return [unescape_name(link, node.where) for link in links]
