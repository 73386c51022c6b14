"""The kind ``array``: an array of numbers, bools or strings, a quantity, or what is made of arrays (times, ...)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import EncodeError, UnsupportedParameterError
from ..storage.nodes import Node
from .values import decode_value, encode_value, split_rows, value_shape


def coerce(value: Any) -> Any:
    """Return a value that has a shape: arrays of any sort as they are, numbers and sequences as `numpy.ndarray`."""
    if isinstance(value, bool | int | float | complex | list | tuple) and not isinstance(value, np.generic):
        try:
            return np.asarray(value)
        except ValueError as error:
            raise EncodeError(f"array: {error}") from error
    if not hasattr(value, "shape"):
        raise EncodeError(f"array: a value of type {type(value).__name__} is no array; pass numpy.asarray(value)")
    return value


def encode(value: Any) -> Node:
    """Return the node of an array; its values are not copied."""
    return encode_value(value, "array")


def decode(node: Node, *, rows: Any = None) -> Any:
    """Return the array that a node holds, or those elements of its first axis that ``rows`` says.

    Rows are a slice, or an array_like of int or bool. An `UnsupportedParameterError` says that the value has no axes,
    or that ``rows`` is no selection.
    """
    if rows is None:
        return decode_value(node)
    shape = value_shape(node)
    if not shape:
        raise UnsupportedParameterError(f"{node.where}: a value without axes has no rows")
    covering, index = split_rows(rows, shape[0])
    value = decode_value(node, covering)
    return value if index is None else value[index]
