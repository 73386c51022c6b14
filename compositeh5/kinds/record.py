"""The kind ``record``: named values, such as the metadata of a visit.

A record is a group whose children are typed values; nested mappings are groups inside it, so that
``f["composite/visit_info/exposure_time"]`` is a number in any HDF5 tool.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np

from ..errors import EncodeError, FormatError, NoSuchComponentError, checked_names, require_type
from ..storage.nodes import ArrayNode, Group, GroupNode, Node, escape_name, unescape_name
from .values import decode_value, encode_value, nested, read_only

IMMUTABLE = True

_REPR_WIDTH = 100


class Record(Mapping[str, Any]):
    """Named values that can't be changed, so that many composites may share one.

    The values are items and attributes: ``r["exposure_time"]`` and ``r.exposure_time``. A name that is also a method
    of mappings (``keys``, ``items``, ...) is an item only. Nested mappings are records, arrays are read-only views,
    lists are handed out as copies. A record equals any mapping that holds the same: values agree in type, dtype, unit
    and shape, and NaN equals NaN.

    Parameters
    ----------
    fields : mapping, optional
        The values by name, in the order to keep.
    **more
        Further values.

    Raises
    ------
    EncodeError
        If one of the values can't be stored; the message names its path, such as ``observatory.latitude``.
    """

    __slots__ = ("_fields",)
    __hash__ = None  # type: ignore[assignment]

    _fields: Mapping[str, Any]

    def __init__(self, fields: Mapping[str, Any] = MappingProxyType({}), /, **more: Any) -> None:
        require_type(fields, Mapping, "a mapping of names to values")
        # Encoded and decoded, the values are checked, cut off from what the caller may change, and read-only.
        decoded: Record = decode_value(encode_value({**fields, **more}, ""))
        object.__setattr__(self, "_fields", decoded._fields)

    @classmethod
    def _of_decoded(cls, fields: Mapping[str, Any]) -> Record:
        record = cls.__new__(cls)
        object.__setattr__(record, "_fields", fields)
        return record

    def __getitem__(self, name: str) -> Any:
        return _handed_out(self._fields[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def __getattr__(self, name: str) -> Any:
        # While it is unpickled or copied there are no fields yet.
        if name != "_fields" and name in self._fields:
            return self[name]
        from difflib import get_close_matches

        near = [] if name == "_fields" else get_close_matches(name, self._fields)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise AttributeError(f"the record has no field {name!r}{hint}", name=name, obj=self)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a record can't be changed; use replace({name}=...) to get a new one")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a record can't be changed")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *filter(str.isidentifier, self)]

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        try:
            return _same(encode_value(self, ""), encode_value(other, ""))
        except EncodeError:
            return False

    def __copy__(self) -> Record:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Nodes survive pickling unchanged, which not all of numpy's and astropy's types do. deepcopy uses it too.
        return decode_value, (encode_value(self, ""),)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={_short(value)}" for name, value in self._fields.items())
        text = " ".join(fields.split())
        return f"Record({text if len(text) <= _REPR_WIDTH else text[: _REPR_WIDTH - 3] + '...'})"

    def to_dict(self) -> dict[str, Any]:
        """Return the values as a dict; nested records become dicts too."""
        return {name: _plain(value) for name, value in self._fields.items()}

    def replace(self, **changes: Any) -> Record:
        """Return a record with other values for some names; names that are new come last."""
        return Record(self._fields, **changes)


def coerce(value: Any) -> Record:
    """Return a mapping as `Record`.

    Raises
    ------
    EncodeError
        If it isn't a mapping of text to values that can be stored.
    """
    if isinstance(value, Record):
        return value
    if not isinstance(value, Mapping):
        raise EncodeError(f"a record should be a mapping of names to values, not {type(value).__name__}")
    return Record(value)


def encode(value: Record) -> Node:
    """Return the group of a record."""
    return encode_value(value, "")


def decode(node: Node, *, fields: Iterable[str] | None = None) -> Record:
    """Return the record that a node holds.

    Parameters
    ----------
    node : Node
        What `encode` returned, or a stored group.
    fields : iterable of str, optional
        The names of the fields to read, in the order wanted; all by default.

    Raises
    ------
    NoSuchComponentError
        If there is no field of one of the names.
    FormatError
        If the node is no record.
    """
    if not isinstance(node, GroupNode) or node.attr("type", str) != "record":
        raise FormatError(f"{node.where}: there should be a record")
    if fields is not None:
        names = checked_names(fields, "the name of a field")
        for name in names:
            if escape_name(name) not in node:
                there = ", ".join(unescape_name(link, node.where) for link in node)
                raise NoSuchComponentError(f"{node.where}: there is no field {name!r} (there are: {there})")
        node = Group({link: node[link] for link in map(escape_name, names)}, dict(node.attrs), node.where)
    record: Record = decode_value(node)
    return record


def _handed_out(value: Any) -> Any:
    """Return a value of which nothing that the record holds can be changed."""
    if type(value) in (list, tuple):
        return type(value)(map(_handed_out, value))
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value


def _short(value: Any) -> str:
    if getattr(value, "shape", ()):
        return f"<{type(value).__name__} of shape {value.shape}>"
    return reprlib.repr(value) if isinstance(value, str | bytes | list | tuple) else repr(value)


def _same(one: Node, other: Node) -> bool:
    """Return whether two nodes hold the same value; the order of fields doesn't matter."""
    if dict(one.attrs) != dict(other.attrs):
        return False
    if isinstance(one, GroupNode) and isinstance(other, GroupNode):
        return one.keys() == other.keys() and all(_same(child, other[name]) for name, child in one.items())
    if not (isinstance(one, ArrayNode) and isinstance(other, ArrayNode)) or one.dtype != other.dtype:
        return False
    return np.array_equal(one.read(), other.read(), equal_nan=one.dtype.kind in "fc")


def decode_fields(node: Node, rows: slice | None) -> Record:
    """Return the record of the group of one, as `values.decode_value` needs it."""
    if not isinstance(node, GroupNode):
        raise FormatError(f"{node.where}: a record should be a group")
    with nested(node.where, FormatError):
        fields = {unescape_name(name, node.where): decode_value(read_only(child)) for name, child in node.items()}
    if len(fields) != len(node):
        raise FormatError(f"{node.where}: two children stand for one field")
    return Record._of_decoded(fields)
