"""Typed values: the one codec behind records, arrays and the columns of tables.

The node of a value carries an attribute ``type`` that says what it is, so that exactly that comes back: a Python
float, a numpy scalar, an array of its dtype, a `~astropy.units.Quantity`. Types are looked up by name in the tables
of this module and of `astropy_values`, which is imported only where a value needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from importlib import import_module
from typing import Any, TypeAlias

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

    The value is None, a Python or numpy scalar, text, bytes, an array, a list, tuple or mapping of values, or of one of
    astropy's types: quantities, masked ones, times, locations, coordinates and their frames. An `EncodeError` says that
    it, or a value inside it, can't be stored so that it comes back the same; it is called by its ``path``, such as
    ``observatory.latitude``.
    """
    return _encoder(type(value), path)(value, path)


def decode_value(node: Node, rows: slice | None = None) -> Any:
    """Return the typed value of a node; raise `FormatError` if it isn't what `encode_value` makes.

    Of arrays, and of what is made of arrays, ``rows`` is the part of the first axis to read (step 1 or more).
    """
    name = node.attr("type", str)
    decoder = DECODERS.get(name) or _astropy_values().DECODERS.get(name)
    if decoder is None:
        raise FormatError(f"{node.where}: there are no values of type {name!r}")
    try:
        with nested(node.where, FormatError) if isinstance(node, GroupNode) else nullcontext():
            return decoder(node, rows)
    except (CompositeH5Error, OSError, MemoryError):
        raise
    except Exception as error:
        # What numpy and astropy say to parts that don't make a value.
        raise FormatError(f"{node.where}: not a valid value of type {name!r}: {error}") from error


def value_shape(node: Node) -> tuple[int, ...]:
    """Return the shape of the array-like value of a node, which is not read."""
    while isinstance(node, GroupNode) and node:
        # The first child of a value made of arrays has the shape of the whole.
        node = next(iter(node.values()))
    shape = expect_array(node).shape
    return shape[:-1] if node.attr("type", str, "") == "earth_location" else shape


def split_rows(rows: Any, length: int) -> tuple[slice, NDArray[np.intp] | slice | None]:
    """Return a slice that covers the wanted ones of ``length`` rows, and the index that picks them from what it gives.

    Rows are a slice (any step), row numbers (negative ones count from the end), or a bool for each row. The covering
    slice has non-negative limits and a positive step; the index is None if it gives nothing but the wanted rows. An
    `IndexError` says that a number is out of range, or that there isn't one bool for each row.
    """
    nothing = slice(0, 0, 1), None
    if isinstance(rows, slice):
        wanted = range(length)[rows]
        if not wanted:
            return nothing
        if wanted.step > 0:
            return slice(wanted[0], wanted[-1] + 1, wanted.step), None
        return slice(wanted[-1], wanted[0] + 1, -wanted.step), slice(None, None, -1)
    index = np.asarray(rows)
    if index.ndim != 1 or (index.size and index.dtype.kind not in "iub"):
        raise UnsupportedParameterError(
            f"rows should be a slice, or a one-dimensional array of row numbers or bools, not {rows!r}"
        )
    if index.dtype == bool:
        if len(index) != length:
            raise OutsideError(f"rows has {len(index)} bools, but there are {length} rows")
        index = np.flatnonzero(index)
    if not index.size:
        return nothing
    if index.min() < -length or index.max() >= length:
        raise OutsideError(f"rows {index.min()} to {index.max()} were asked for, but there are {length} rows")
    index = index.astype(np.intp)
    index = np.where(index < 0, index + length, index)
    first = index.min()
    return slice(int(first), int(index.max()) + 1, 1), index - first


def expect_group(node: Node, what: str = "a value of its type") -> GroupNode:
    """Return a node that must be a group, for it should be ``what``."""
    if not isinstance(node, GroupNode):
        raise FormatError(f"{node.where}: {what} should be a group")
    return node


def expect_array(node: Node, dtype_kinds: str = "biufcUS", ndim: int | None = None) -> ArrayNode:
    """Return a node that must be an array of some types (`numpy.dtype.kind`) and number of axes."""
    if not isinstance(node, ArrayNode):
        raise FormatError(f"{node.where}: there should be a dataset, not a group")
    if node.dtype.kind not in dtype_kinds:
        raise FormatError(f"{node.where}: values of type {node.dtype} are not expected here")
    if ndim is not None and node.ndim != ndim:
        raise FormatError(f"{node.where}: should have {ndim} axes, not {node.ndim}")
    return node


def read_rows(node: Node, rows: slice | None, dtype_kinds: str = "biufcUS") -> NDArray[Any]:
    """Return the values of an array of some types (`numpy.dtype.kind`), or those of some rows."""
    array = expect_array(node, dtype_kinds)
    return np.asarray(array.read(() if rows is None else (slice(*rows.indices(array.shape[0])),)))


def read_part(node: Node, rows: slice | None, length: tuple[int, ...]) -> Any:
    """Return some rows of a value whose shape begins with ``length``; all of it if it has no such rows of its own."""
    has_rows = rows is not None and value_shape(node)[:1] == length
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


def _astropy_values() -> Any:
    """Return the module of astropy's types: it needs this one, and astropy, which takes long to import."""
    return import_module(".astropy_values", __package__)


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
    if any(base.__module__.startswith("astropy.") for base in cls.__mro__):
        own: Encoder | None = _astropy_values().encoder(cls)
        if own is not None:
            return own
    bases = (f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__)
    advice = next(
        (_ADVICE[base] for base in bases if base in _ADVICE),
        "use a Python or numpy scalar, text, an array, a list, a dict, or an astropy type",
    )
    raise EncodeError(f"{path}: a value of type {cls.__module__}.{cls.__qualname__} can't be stored; {advice}")


_ADVICE = {
    **{
        f"builtins.{name}": f"pass {name}(value)"
        for name in ("bool", "bytes", "complex", "float", "int", "list", "str", "tuple")
    },
    "astropy.coordinates.sky_coordinate.SkyCoord": "pass astropy.coordinates.SkyCoord(value)",
    "astropy.table.column.Column": "pass value.data, or a Table that holds the column",
    "astropy.table.column.MaskedColumn": "pass value.data, or a Table that holds the column",
    "astropy.table.ndarray_mixin.NdarrayMixin": "make each of its fields a column",
    "astropy.table.table.Table": "make it a component of its own",
    "astropy.time.core.Time": "pass astropy.time.Time(value)",
    "astropy.time.core.TimeDelta": "pass astropy.time.TimeDelta(value)",
    "astropy.units.quantity.Quantity": "pass astropy.units.Quantity(value)",
    "builtins.bytearray": "pass bytes(value)",
    "builtins.frozenset": "pass sorted(value)",
    "builtins.set": "pass sorted(value)",
    "datetime.date": "pass astropy.time.Time(value.isoformat())",
    "datetime.datetime": "pass astropy.time.Time(value)",
    "datetime.timedelta": "pass astropy.time.TimeDelta(value)",
    "numpy.ma.core.MaskedConstant": "pass None",
    "numpy.ma.MaskedArray": "pass numpy.ma.asarray(value)",
    "numpy.ndarray": "pass numpy.asarray(value)",
    "pathlib.PurePath": "pass str(value)",
    "uuid.UUID": "pass str(value)",
}


# ---- Scalars, text and bytes --------------------------------------------------------------------------------


def _typed(name: str, data: Any, path: str, **attrs: AttrValue) -> Array:
    return Array(np.asarray(data), {"type": name, **attrs}, path)


def _encode_scalar(value: bool | float | complex, path: str) -> Node:
    return _typed(type(value).__name__, value, path)


def _scalar_decoder(dtype_kinds: str, convert: Callable[[Any], Any]) -> Decoder:
    return lambda node, rows: convert(expect_array(node, dtype_kinds, 0).read()[()])


def _encode_int(value: int, path: str) -> Node:
    if -(2**63) <= value < 2**63:
        return _typed("int", np.int64(value), path)
    if 0 < value < 2**64:
        return _typed("int", np.uint64(value), path)
    try:
        return _typed("int", str(value), path)
    except ValueError as error:
        raise EncodeError(f"{path}: {error}") from error


def text_array(value: str, path: str) -> NDArray[np.str_]:
    """Return text as an array without axes, if HDF5 can store it: strings end at U+0000, and are valid UTF-8."""
    # Here and not on the array, for numpy drops zeros at the end.
    if "\0" in value:
        raise EncodeError(f"{path}: text with U+0000 can't be stored; pass bytes")
    array = np.array(value)
    _check_text(array, path)
    return array


def read_text(node: Node) -> str:
    """Return the text of an array without axes."""
    return str(expect_array(node, "U", 0).read()[()])


def bytes_array(value: bytes) -> NDArray[np.uint8]:
    """Return bytes as an array with one axis."""
    return np.frombuffer(value, np.uint8)


def read_bytes(node: Node) -> bytes:
    """Return the bytes of an array with one axis."""
    array = expect_array(node, "u", 1)
    if array.dtype != np.uint8:
        raise FormatError(f"{node.where}: bytes should be of type uint8, not {array.dtype}")
    return array.read().tobytes()


def _encode_numpy_scalar(value: np.generic, path: str) -> Node:
    if isinstance(value, np.str_):
        return _typed("scalar", text_array(str(value), path), path)
    if isinstance(value, np.bytes_) and value.endswith(b"\0"):
        raise EncodeError(f"{path}: a numpy byte string can't end in a zero byte; pass bytes(value)")
    array = np.asarray(value)
    _check_dtype(array.dtype, path)
    return _typed("scalar", array, path)


# ---- Arrays -------------------------------------------------------------------------------------------------


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


def _decode_array(node: Node, rows: slice | None) -> NDArray[Any]:
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


def _decode_masked_array(node: Node, rows: slice | None) -> Any:
    group = expect_group(node)
    values = group.array("values")
    fill_value: Any = _decode_array(group.array("fill_value", 0), None) if "fill_value" in group else None
    return np.ma.MaskedArray(
        _decode_array(values, rows),
        mask=read_mask(group, values.shape, rows) if "mask" in group else np.ma.nomask,
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


# ---- Sequences and records ----------------------------------------------------------------------------------

# The Python types of which a list is stored as one array: their dtypes.
_ITEMS: dict[type, Any] = {bool: np.bool_, int: np.int64, float: np.float64, str: np.str_}
_ITEM_KINDS = {cls.__name__: np.dtype(dtype).kind for cls, dtype in _ITEMS.items()}


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
            return sequence(decode_value(node[str(i)]) for i in range(count_items(node)))
        item = node.attr("item", str)
        if item not in _ITEM_KINDS:
            raise FormatError(f"{node.where}: there are no sequences of {item!r}")
        return sequence(expect_array(node, _ITEM_KINDS[item], 1).read().tolist())

    return decode


def count_items(node: GroupNode) -> int:
    """Return how many children ``0``, ``1``, ... a group has: exactly those that its attribute ``length`` says."""
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
    type(None): lambda value, path: _typed("none", "", path),
    bool: _encode_scalar,
    int: _encode_int,
    float: _encode_scalar,
    complex: _encode_scalar,
    str: lambda value, path: _typed("str", text_array(value, path), path),
    bytes: lambda value, path: _typed("bytes", bytes_array(value), path),
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
    "str": lambda node, rows: read_text(node),
    "bytes": lambda node, rows: read_bytes(node),
    "scalar": _scalar_decoder("biufcUS", lambda value: value),
    "array": _decode_array,
    "masked_array": _decode_masked_array,
    "list": _sequence_decoder(list),
    "tuple": _sequence_decoder(tuple),
}
"""The functions that decode values, by the names of their types; the module `record` adds its own."""
