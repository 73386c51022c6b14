"""The kind ``table``: an astropy table, each column a typed value of its own, so that columns can be read alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..container.names import escape_name, unescape_name
from ..container.nodes import Array, AttrValue, Group, GroupNode, Node
from ..errors import EncodeError, FormatError, NoSuchComponentError
from ._units import unit_from_text, unit_to_text
from ._values import decode_value, encode_value, split_rows, value_shape

if TYPE_CHECKING:
    from astropy.table import Table

_COLUMNS, _META, _COLUMN_META = "@columns", "@meta", "@column_meta"


def coerce(value: Any) -> Table:
    """Return an astropy table as it is.

    Raises
    ------
    EncodeError
        If it is something else.
    """
    from astropy.table import Table

    if not isinstance(value, Table):
        raise EncodeError(
            f"a table should be an astropy Table, not {type(value).__name__}; pass Table(value), "
            f"or Table.from_pandas(value) for a data frame"
        )
    return value


def encode(table: Table) -> Node:
    """Return the group of a table; the columns are not copied.

    Raises
    ------
    EncodeError
        If a column or the metadata can't be stored; the message names it.
    """
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

    Parameters
    ----------
    node : Node
        What `encode` returned, or a stored group.
    columns : iterable of str, or str, optional
        The names of the columns, in the order wanted; all by default.
    rows : slice or array_like of int or bool, optional
        A slice, row numbers (for which all rows between the lowest and the highest are read), or a bool for each row.

    Returns
    -------
    astropy.table.Table or astropy.table.QTable
        As it was stored.

    Raises
    ------
    NoSuchComponentError
        If the table has no column of one of the names.
    IndexError
        If a row number is out of range.
    FormatError
        If the node is no table.
    """
    from astropy.table import QTable, Table

    if not isinstance(node, GroupNode):
        raise FormatError(f"{node.where}: a table should be a group")
    table_class = {"Table": Table, "QTable": QTable}.get(node.attr("table_class", str))
    if table_class is None:
        raise FormatError(f"{node.where}: there is no table class {node.attrs['table_class']!r}")
    length = node.attr("rows", int)
    covering, index = (None, None) if rows is None else split_rows(rows, length)
    names = _names(node)
    if columns is not None:
        names = _chosen(names, [columns] if isinstance(columns, str) else list(columns), node.where)
    column_meta = decode_value(node[_COLUMN_META]).to_dict() if _COLUMN_META in node else {}
    table = table_class(masked=node.attr("masked", bool, False))
    for name in names:
        child = node[escape_name(name)]
        if value_shape(child)[:1] != (length,):
            raise FormatError(f"{child.where}: a column of {length} rows can't have shape {value_shape(child)}")
        _add_column(table, name, child, covering, column_meta.get(name))
    if _META in node:
        table.meta.update(decode_value(node[_META]).to_dict())
    return table if index is None or not names else table[index]


def _encode_column(column: Any, path: str) -> Node:
    from astropy.table import Column

    info = column.info
    # The data of a plain column are an ndarray, those of a masked one a MaskedArray; other columns are values.
    node = encode_value(column.data if isinstance(column, Column) else column, path)
    attrs: dict[str, AttrValue] = {}
    if isinstance(column, Column) and column.unit is not None:
        try:
            attrs["units"] = unit_to_text(column.unit)
        except EncodeError as error:
            raise EncodeError(f"{path}: {error}") from error
    for attr, text in (("description", info.description), ("display_format", info.format)):
        if text is not None:
            if not isinstance(text, str):
                raise EncodeError(f"{path}: its {attr} should be text, not {text!r}")
            attrs[attr] = text
    node.attrs = {**node.attrs, **attrs}
    return node


def _add_column(table: Table, name: str, node: Node, rows: slice | None, meta: dict[str, Any] | None) -> None:
    from astropy.table import Column, MaskedColumn

    value = decode_value(node, rows)
    plain = {"array": Column, "masked_array": MaskedColumn}.get(node.attr("type", str))
    try:
        table.add_column(value if plain is None else plain(value, copy=False), name=name, copy=False)
    except (ValueError, TypeError, AttributeError) as error:
        raise FormatError(f"{node.where}: not a column: {error}") from error
    column = table[name]
    if plain is not None and "units" in node.attrs:
        # Not earlier: a QTable would make a Quantity of a new column with a unit.
        column.unit = unit_from_text(node.attr("units", str), node.where)
    column.info.description = node.attr("description", str, None)
    column.info.format = node.attr("display_format", str, None)
    if meta:
        column.info.meta = meta


def _names(node: GroupNode) -> list[str]:
    links: list[str] = node.array(_COLUMNS, 1, "U").read().tolist()
    children = [link for link in node if not link.startswith("@")]
    if sorted(links) != sorted(children):
        different = ", ".join(sorted(set(links) ^ set(children)))
        raise FormatError(f"{node.where}: the columns listed aren't those that there are; different: {different}")
    return [unescape_name(link, node.where) for link in links]


def _chosen(names: list[str], wanted: list[str], where: str) -> list[str]:
    there = set(names)
    for name in wanted:
        if name not in there:
            raise NoSuchComponentError(f"{where}: there is no column {name!r} (there are: {', '.join(names)})")
    return list(dict.fromkeys(wanted))
