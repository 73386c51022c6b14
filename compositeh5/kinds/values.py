"""Typed values: the one codec behind records, arrays and the columns of tables.

The node of a value carries an attribute ``type`` that says what it is, so that exactly that comes back: a Python
float, a numpy scalar, an array of its dtype, a `~astropy.units.Quantity`. Types are looked up by name in the tables
of this module and of `astropy_values`, which is imported only where a value needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import CompositeH5Error, EncodeError, FormatError, OutsideError, UnsupportedParameterError
from ..storage.nodes import Array, ArrayNode, AttrValue, Group, GroupNode, Node, escape_name

MAX_DEPTH = 16
"""How many groups of one value may stand inside each other; it bounds the recursion, also over hostile nodes."""

Encoder: TypeAlias = Callable[[Any, str], Node]
Decoder: TypeAlias = Callable[[Any, slice | None], Any]

_NUMBERS = {np.dtype(name) for name in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")}
# Wider text arrays come back as narrow as their values allow: a width is memory that a file must not ask for freely.
_MAX_LENGTH = 65_536
# Lists of text are stored as one array up to this many characters (with padding), whatever the padding wastes.
_MAX_PADDED = 1 << 20


class More(Protocol):
    """Codecs of modules that need this one, and are imported when they are needed."""

    def encoder(self, cls: type) -> Encoder | None:
        """Return what encodes values of an astropy class; None if there is nothing."""

    def decoder(self, name: str) -> Decoder | None:
        """Return what decodes values of a type; None if there is nothing."""


more: More = None  # type: ignore[assignment]
"""Set by the package."""

_depth: ContextVar[int] = ContextVar("_depth", default=0)


@contextmanager
def nested(where: str, error: type[CompositeH5Error]) -> Iterator[None]:
    """Count one level of nesting; raise ``error`` at more than `MAX_DEPTH`."""
    depth = _depth.get() + 1
    if depth > MAX_DEPTH:
        raise error(f"{where}: values are nested more than {MAX_DEPTH} levels deep")
    token = _depth.set(depth)
    try:
        yield
    finally:
        _depth.reset(token)


def encode_value(value: Any, path: str) -> Node:
    """Return the node of a typed value; arrays are not copied.

    Parameters
    ----------
    value : object
        None, a Python or numpy scalar, text, bytes, an array, a list, tuple or mapping of values, or one of the
        astropy types: quantities, masked ones, times, locations, coordinates and their frames.
    path : str
        What messages call the value, such as ``observatory.latitude``.

    Raises
    ------
    EncodeError
        If the value, or one inside it, can't be stored so that it comes back the same.
    """
    return _encoder(type(value), path)(value, path)


def decode_value(node: Node, rows: slice | None = None) -> Any:
    """Return the typed value of a node.

    Parameters
    ----------
    node : Node
        A node that `encode_value` made, or a stored one.
    rows : slice, optional
        The part of the first axis to read (step 1 or more); only for arrays and what is made of arrays.

    Raises
    ------
    FormatError
        If the node isn't what `encode_value` makes.
    """
    name = node.attr("type", str)
    decoder = DECODERS.get(name) or more.decoder(name)
    if decoder is None:
        raise FormatError(f"{node.where}: there are no values of type {name!r}")
    try:
        return decoder(node, rows)
    except (CompositeH5Error, OSError, MemoryError):
        raise
    except Exception as error:
        # What numpy and astropy say to parts that don't make a value.
        raise FormatError(f"{node.where}: not a valid value of type {name!r}: {error}") from error


def value_shape(node: Node) -> tuple[int, ...]:
    """Return the shape of the array-like value of a node; nothing is read.

    Raises
    ------
    FormatError
        If the node has no arrays.
    """
    while isinstance(node, GroupNode) and node:
        # The first child of a value made of arrays has the shape of the whole.
        node = next(iter(node.values()))
    if not isinstance(node, ArrayNode):
        raise FormatError(f"{node.where}: there should be an array")
    return node.shape[:-1] if node.attr("type", str, "") == "earth_location" else node.shape


def split_rows(rows: Any, length: int) -> tuple[slice, NDArray[np.intp] | slice | None]:
    """Return which rows to read, and the index that picks the wanted ones from them.

    Parameters
    ----------
    rows : slice or array_like of int or bool
        A slice (any step), row numbers (negative ones count from the end), or a bool for each row.
    length : int
        How many rows there are.

    Returns
    -------
    covering : slice
        A slice with non-negative limits and a positive step.
    index : ndarray of int, slice, or None
        What to apply to the rows that were read; None if they are the wanted ones.

    Raises
    ------
    IndexError
        If a row number is out of range, or there isn't one bool for each row.
    UnsupportedParameterError
        If ``rows`` is something else.
    """
    if isinstance(rows, slice):
        wanted = range(length)[rows]
        if not wanted:
            return slice(0, 0, 1), None
        if wanted.step > 0:
            return slice(wanted[0], wanted[-1] + 1, wanted.step), None
        return slice(wanted[-1], wanted[0] + 1, -wanted.step), slice(None, None, -1)
    index = np.asarray(rows)
    if index.dtype == bool and index.ndim == 1:
        if len(index) != length:
            raise OutsideError(f"rows has {len(index)} bools, but there are {length} rows")
        index = np.flatnonzero(index)
    if index.ndim != 1 or (index.size and index.dtype.kind not in "iu"):
        raise UnsupportedParameterError(
            f"rows should be a slice, or a one-dimensional array of row numbers or bools, not {rows!r}"
        )
    if not index.size:
        return slice(0, 0, 1), None
    if index.min() < -length or index.max() >= length:
        raise OutsideError(f"rows {index.min()} to {index.max()} were asked for, but there are {length} rows")
    index = index.astype(np.intp)
    index = np.where(index < 0, index + length, index)
    first = index.min()
    return slice(int(first), int(index.max()) + 1, 1), index - first


def read_rows(node: ArrayNode, rows: slice | None) -> NDArray[Any]:
    """Return the values of an array of numbers, bools or strings, or those of some rows."""
    if node.dtype.kind not in "biufcUS":
        raise FormatError(f"{node.where}: values of type {node.dtype} are not expected here")
    return np.asarray(node.read(() if rows is None else (slice(*rows.indices(node.shape[0])),)))


def read_part(node: Node, rows: slice | None, length: int | None) -> Any:
    """Return a part of a value of ``length`` rows: all of it if it has no rows of its own."""
    has_rows = rows is not None and value_shape(node)[:1] == (length,)
    return decode_value(node, rows if has_rows else None)


def read_only(node: Node) -> Node:
    """Return a node in memory whose arrays can't be written; arrays in memory aren't copied."""
    if isinstance(node, ArrayNode):
        data = np.asarray(node.read()).view()
        data.flags.writeable = False
        return Array(data, dict(node.attrs), node.where)
    if isinstance(node, GroupNode):
        with nested(node.where, FormatError):
            return Group({name: read_only(child) for name, child in node.items()}, dict(node.attrs), node.where)
    raise FormatError(f"{node.where}: a link can't be part of a value")


def _encoder(cls: type, path: str) -> Encoder:
    if (encoder := _ENCODERS.get(cls)) is not None:
        return encoder
    # numpy loads this module when it is first named.
    if issubclass(cls, np.ndarray) and cls is np.ma.MaskedArray:
        return _encode_masked_array
    if issubclass(cls, np.generic):
        return _encode_numpy_scalar
    if issubclass(cls, Mapping):
        return _encode_record
    is_astropy = any(base.__module__.startswith("astropy.") for base in cls.__mro__)
    if is_astropy and (encoder := more.encoder(cls)) is not None:
        return encoder
    for base in cls.__mro__:
        if advice := _ADVICE.get(f"{base.__module__}.{base.__qualname__}"):
            break
    else:
        advice = "use a Python or numpy scalar, text, an array, a list, a dict, or an astropy type"
    raise EncodeError(f"{path}: a value of type {cls.__module__}.{cls.__qualname__} can't be stored; {advice}")


_ADVICE = {
    "astropy.coordinates.sky_coordinate.SkyCoord": "pass astropy.coordinates.SkyCoord(value)",
    "astropy.table.column.Column": "pass value.data, or a Table that holds the column",
    "astropy.table.column.MaskedColumn": "pass value.data, or a Table that holds the column",
    "astropy.table.ndarray_mixin.NdarrayMixin": "make each of its fields a column",
    "astropy.table.table.Table": "make it a component of its own",
    "astropy.time.core.Time": "pass astropy.time.Time(value)",
    "astropy.time.core.TimeDelta": "pass astropy.time.TimeDelta(value)",
    "astropy.units.quantity.Quantity": "pass astropy.units.Quantity(value)",
    "builtins.bool": "pass bool(value)",
    "builtins.bytearray": "pass bytes(value)",
    "builtins.bytes": "pass bytes(value)",
    "builtins.complex": "pass complex(value)",
    "builtins.float": "pass float(value)",
    "builtins.frozenset": "pass sorted(value)",
    "builtins.int": "pass int(value)",
    "builtins.list": "pass list(value)",
    "builtins.set": "pass sorted(value)",
    "builtins.str": "pass str(value)",
    "builtins.tuple": "pass tuple(value)",
    "datetime.date": "pass astropy.time.Time(value.isoformat())",
    "datetime.datetime": "pass astropy.time.Time(value)",
    "datetime.timedelta": "pass astropy.time.TimeDelta(value)",
    "numpy.ma.core.MaskedConstant": "pass None",
    "numpy.ma.MaskedArray": "pass numpy.ma.asarray(value)",
    "numpy.ndarray": "pass numpy.asarray(value)",
    "pathlib.PurePath": "pass str(value)",
    "uuid.UUID": "pass str(value)",
}


def _typed(name: str, data: Any, path: str, **attrs: AttrValue) -> Array:
    return Array(np.asarray(data), {"type": name, **attrs}, path)


def _encode_none(value: None, path: str) -> Node:
    return _typed("none", "", path)


def _encode_scalar(value: bool | float | complex, path: str) -> Node:
    return _typed(type(value).__name__, value, path)


def _scalar_decoder(kinds: str, convert: Callable[[Any], Any]) -> Decoder:
    """Return a decoder of arrays without axes, of dtypes whose kind is among ``kinds``."""

    def decode(node: Node, rows: slice | None) -> Any:
        if not isinstance(node, ArrayNode) or node.ndim or node.dtype.kind not in kinds:
            raise FormatError(f"{node.where}: there should be a dataset without axes, of dtype kind {kinds!r}")
        return convert(node.read()[()])

    return decode


def _encode_int(value: int, path: str) -> Node:
    if -(2**63) <= value < 2**63:
        return _typed("int", np.int64(value), path)
    if 0 < value < 2**64:
        return _typed("int", np.uint64(value), path)
    try:
        return _typed("int", str(value), path)
    except ValueError as error:
        raise EncodeError(f"{path}: {error}") from error


def _encode_str(value: str, path: str) -> Node:
    return _typed("str", text_array(value, path), path)


def text_array(value: str, path: str) -> NDArray[np.str_]:
    """Return text as an array without axes.

    Raises
    ------
    EncodeError
        If HDF5 can't store it: its strings end at U+0000, and are UTF-8, which has no lone surrogates.
    """
    # Here and not on the array, for numpy drops zeros at the end.
    if "\0" in value:
        raise EncodeError(f"{path}: text with U+0000 can't be stored; pass bytes")
    array = np.array(value)
    _check_text(array, path)
    return array


def _encode_bytes(value: bytes, path: str) -> Node:
    return _typed("bytes", np.frombuffer(value, np.uint8), path)


def _decode_bytes(node: ArrayNode, rows: slice | None) -> bytes:
    if not isinstance(node, ArrayNode) or node.ndim != 1 or node.dtype != np.uint8:
        raise FormatError(f"{node.where}: bytes should be an array of uint8 with one axis")
    return node.read().tobytes()


def _encode_numpy_scalar(value: np.generic, path: str) -> Node:
    if isinstance(value, np.str_):
        return _typed("scalar", text_array(str(value), path), path)
    if isinstance(value, np.bytes_) and value.endswith(b"\0"):
        raise EncodeError(f"{path}: a numpy byte string can't end in a zero byte; pass bytes(value)")
    array = np.asarray(value)
    _check_dtype(array.dtype, path)
    return _typed("scalar", array, path)


def _encode_array(value: NDArray[Any], path: str) -> Array:
    data = np.asarray(value)
    dtype = data.dtype
    _check_dtype(dtype, path)
    attrs: dict[str, AttrValue] = {"type": "array"}
    if dtype.kind == "U":
        data = data.astype(dtype.newbyteorder("="), copy=False)
        _check_text(data, path)
    if dtype.kind in "US" and (length := _length(dtype)) <= _MAX_LENGTH:
        attrs["length"] = length
    return Array(data, attrs, path)


def _decode_array(node: ArrayNode, rows: slice | None) -> NDArray[Any]:
    if not isinstance(node, ArrayNode):
        raise FormatError(f"{node.where}: there should be a dataset, not a group")
    values = read_rows(node, rows)
    if values.dtype.kind not in "US" or "length" not in node.attrs:
        return values
    length = node.attr("length", int)
    if not 1 <= length <= _MAX_LENGTH:
        raise FormatError(f"{node.where}: attribute 'length' should be 1 to {_MAX_LENGTH}, not {length}")
    if _length(values.dtype) > length and values.size and np.strings.str_len(values).max() > length:
        raise FormatError(f"{node.where}: strings are longer than the {length} that attribute 'length' says")
    return values.astype(f"{values.dtype.kind}{length}", copy=False)


def _length(dtype: np.dtype[Any]) -> int:
    return max(1, dtype.itemsize // np.dtype(f"{dtype.kind}1").itemsize)


def _check_dtype(dtype: np.dtype[Any], path: str) -> None:
    if dtype.kind in "bUS" or dtype.newbyteorder("=") in _NUMBERS:
        return
    advice = {
        "O": "convert it to numbers or text, such as value.astype(str)",
        "V": "make each field a value of its own, or the whole a Table",
        "M": "pass astropy.time.Time(value)",
        "m": "pass a Quantity or astropy.time.TimeDelta",
        "T": "pass value.astype(str)",
    }.get(dtype.kind, "convert it to at most 64 bits (complex: 128), such as value.astype('f8')")
    raise EncodeError(f"{path}: values of dtype {dtype} can't be stored; {advice}")


def _check_text(values: NDArray[np.str_], path: str) -> None:
    points = np.ascontiguousarray(values).view(np.uint32).reshape(-1, _length(values.dtype))
    # numpy pads with zeros, so a zero before a character is U+0000.
    if ((points[:, :-1] == 0) & (points[:, 1:] != 0)).any():
        raise EncodeError(f"{path}: text with U+0000 can't be stored; pass bytes")
    if ((points >= 0xD800) & (points < 0xE000)).any():
        raise EncodeError(f"{path}: text with lone surrogates can't be stored, for it has no UTF-8 form")


def _encode_masked_array(value: Any, path: str) -> Node:
    data = np.ma.getdata(value, subok=False)
    with nested(path, EncodeError):
        children: dict[str, Node] = {"values": _encode_array(data, path)}
        if value.mask is not np.ma.nomask:
            children["mask"] = Array(value.mask, {}, f"{path}.mask")
        with np.errstate(over="ignore"):  # numpy's default of 1e20 is too large for float16
            fill_value, default = value.fill_value, np.ma.MaskedArray(np.empty(0, data.dtype)).fill_value
        if fill_value.tobytes() != default.tobytes():
            children["fill_value"] = _encode_array(fill_value, f"{path}.fill_value")
    attrs: dict[str, AttrValue] = {"type": "masked_array"}
    if value.hardmask:
        attrs["hard_mask"] = True
    return Group(children, attrs, path)


def _decode_masked_array(node: GroupNode, rows: slice | None) -> Any:
    with nested(node.where, FormatError):
        values = node.array("values")
        fill_value: Any = _decode_array(node.array("fill_value", 0), None) if "fill_value" in node else None
        return np.ma.MaskedArray(
            _decode_array(values, rows),
            mask=read_mask(node, values.shape, rows) if "mask" in node else np.ma.nomask,
            fill_value=fill_value,
            hard_mask=node.attr("hard_mask", bool, False),
            copy=False,
        )


def read_mask(node: GroupNode, shape: tuple[int, ...], rows: slice | None) -> NDArray[np.bool_]:
    """Return the child ``mask`` of a masked value of some shape, or some of its rows."""
    mask = node.array("mask", len(shape), "b")
    if mask.shape != shape:
        raise FormatError(f"{mask.where}: the mask has shape {mask.shape}, its values {shape}")
    return read_rows(mask, rows)


# The Python types of which a list is stored as one array: their dtypes.
_ITEMS: dict[type, Any] = {bool: np.bool_, int: np.int64, float: np.float64, str: np.str_}


def _encode_sequence(value: list[Any] | tuple[Any, ...], path: str) -> Node:
    name = type(value).__name__
    types = {type(item) for item in value} or {float}
    if len(types) == 1 and (item_type := types.pop()) in _ITEMS and _fits_array(value, item_type, path):
        return _typed(name, np.array(value, _ITEMS[item_type]), path, item=item_type.__name__)
    with nested(path, EncodeError):
        children = {str(i): encode_value(item, f"{path}[{i}]") for i, item in enumerate(value)}
    return Group(children, {"type": name, "length": len(children)}, path)


def _fits_array(items: list[Any] | tuple[Any, ...], item_type: type, path: str) -> bool:
    if item_type is int:
        return all(-(2**63) <= item < 2**63 for item in items)
    if item_type is not str:
        return True
    for i, item in enumerate(items):
        text_array(item, f"{path}[{i}]")
    lengths = [len(item) for item in items]
    return max(lengths) * len(lengths) <= max(_MAX_PADDED, 4 * sum(lengths))


def _sequence_decoder(sequence: type) -> Decoder:
    def decode(node: Node, rows: slice | None) -> Any:
        if isinstance(node, GroupNode):
            with nested(node.where, FormatError):
                return sequence(decode_value(node[str(i)]) for i in range(count_items(node)))
        item = node.attr("item", str)
        if not isinstance(node, ArrayNode) or node.ndim != 1 or (item, node.dtype.kind) not in _ITEM_KINDS:
            raise FormatError(f"{node.where}: there should be a dataset of {item!r} with one axis")
        return sequence(node.read().tolist())

    return decode


_ITEM_KINDS = {(cls.__name__, np.dtype(dtype).kind) for cls, dtype in _ITEMS.items()}


def count_items(node: GroupNode) -> int:
    """Return the number of children ``0``, ``1``, ... of a group, which its attribute ``length`` says.

    Raises
    ------
    FormatError
        If one of them is missing, or there are others.
    """
    length = node.attr("length", int)
    for i in range(min(length, len(node) + 1)):
        if str(i) not in node:
            raise FormatError(f"{node.where}: item {i} of {length} is missing")
    if length != len(node):
        raise FormatError(f"{node.where}: there should be {length} items, not {len(node)}")
    return length


def _encode_record(value: Mapping[Any, Any], path: str) -> Node:
    children = {}
    with nested(path, EncodeError):
        for key, item in value.items():
            if not isinstance(key, str):
                raise EncodeError(f"{path or 'record'}: the key {key!r} is not text; pass str(key)")
            children[escape_name(key)] = encode_value(item, f"{path}.{key}" if path else key)
    return Group(children, {"type": "record"}, path or "record")


_ENCODERS: dict[type, Encoder] = {
    type(None): _encode_none,
    bool: _encode_scalar,
    int: _encode_int,
    float: _encode_scalar,
    complex: _encode_scalar,
    str: _encode_str,
    bytes: _encode_bytes,
    list: _encode_sequence,
    tuple: _encode_sequence,
    np.ndarray: _encode_array,
    np.memmap: _encode_array,
}

DECODERS: dict[str, Decoder] = {
    "none": _scalar_decoder("U", lambda value: None),
    "bool": _scalar_decoder("b", bool),
    "int": _scalar_decoder("iuU", int),
    "float": _scalar_decoder("f", float),
    "complex": _scalar_decoder("c", complex),
    "str": _scalar_decoder("U", str),
    "bytes": _decode_bytes,
    "scalar": _scalar_decoder("biufcUS", lambda value: value),
    "array": _decode_array,
    "masked_array": _decode_masked_array,
    "list": _sequence_decoder(list),
    "tuple": _sequence_decoder(tuple),
}
