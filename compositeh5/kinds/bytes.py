"""The kind ``bytes``: anything that has a form of its own, such as a compressed document."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import EncodeError, FormatError
from ..storage.nodes import Array, ArrayNode, Node


def coerce(value: Any) -> bytes:
    """Return ``bytes``, ``bytearray`` or ``memoryview`` as ``bytes``.

    Raises
    ------
    EncodeError
        If it is none of these.
    """
    if not isinstance(value, bytes | bytearray | memoryview):
        raise EncodeError(f"bytes should be bytes, a bytearray or a memoryview, not {type(value).__name__}")
    return bytes(value)


def encode(value: bytes) -> Node:
    """Return a uint8 array with one axis."""
    return Array(np.frombuffer(value, np.uint8), where="bytes")


def decode(node: Node) -> bytes:
    """Return the bytes that a node holds.

    Raises
    ------
    FormatError
        If it isn't a uint8 array with one axis.
    """
    if not isinstance(node, ArrayNode) or node.ndim != 1 or node.dtype != np.uint8:
        raise FormatError(f"{node.where}: bytes should be a dataset of uint8 with one axis")
    return node.read().tobytes()
