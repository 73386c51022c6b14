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

from ..errors import EncodeError, FormatError, NoSuchComponentError, checked_names, did_you_mean, require_type
from ..storage.nodes import ArrayNode, Group, GroupNode, Node, escape_name, unescape_name
from .values import DECODERS, decode_value, encode_value, expect_group, read_only

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

    def __getitem__(self, name: str) -> Any:
        return _handed_out(self._fields[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __getattr__(self, name: str) -> Any:
        # While it is unpickled or copied there are no fields yet.
        if name == "_fields":
            raise AttributeError(name)
        if name in self._fields:
            return self[name]
        hint = did_you_mean(name, self._fields)
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
        return {name: _handed_out(value, dicts=True) for name, value in self._fields.items()}

    def replace(self, **changes: Any) -> Record:
        """Return a record with other values for some names; names that are new come last."""
        return Record(self._fields, **changes)


def coerce(value: Any) -> Record:
    """Return a mapping as `Record`."""
    if isinstance(value, Record):
        return value
    if not isinstance(value, Mapping):
        raise EncodeError(f"a record should be a mapping of names to values, not {type(value).__name__}")
    return Record(value)


def encode(value: Record) -> Node:
    """Return the group of a record."""
    return encode_value(value, "")


def decode(node: Node, *, fields: Iterable[str] | None = None) -> Record:
    """Return the record that a node holds, or one of some ``fields`` in the order wanted; the others aren't read.

    A `NoSuchComponentError` says that there is no field of one of the names.
    """
    group = expect_group(node, "a record")
    if node.attr("type", str) != "record":
        raise FormatError(f"{node.where}: there should be a record")
    if fields is not None:
        names = checked_names(fields, "the name of a field")
        for name in names:
            if escape_name(name) not in group:
                there = ", ".join(unescape_name(link, node.where) for link in group)
                raise NoSuchComponentError(f"{node.where}: there is no field {name!r} (there are: {there})")
        group = Group({link: group[link] for link in map(escape_name, names)}, dict(node.attrs), node.where)
    record: Record = decode_value(group)
    return record


def _decode_record(node: Node, rows: slice | None = None) -> Record:
    group = expect_group(node, "a record")
    fields = {unescape_name(name, node.where): decode_value(read_only(child)) for name, child in group.items()}
    if len(fields) != len(group):
        raise FormatError(f"{node.where}: two children stand for one field")
    record = Record.__new__(Record)
    object.__setattr__(record, "_fields", fields)
    return record


DECODERS["record"] = _decode_record


def _handed_out(value: Any, dicts: bool = False) -> Any:
    """Return a value such that changing it doesn't change the record's; with ``dicts`` in the place of records."""
    if dicts and isinstance(value, Record):
        return value.to_dict()
    if type(value) in (list, tuple):
        return type(value)(_handed_out(item, dicts) for item in value)
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
