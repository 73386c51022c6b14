"""The kind ``bytes``: anything that has a form of its own, such as a compressed document."""

from __future__ import annotations

from typing import Any

from ..errors import EncodeError
from ..storage.nodes import Array, Node
from .values import bytes_array, read_bytes


def coerce(value: Any) -> bytes:
    """Return ``bytes``, ``bytearray`` or ``memoryview`` as ``bytes``."""
    if not isinstance(value, bytes | bytearray | memoryview):
        raise EncodeError(f"bytes should be bytes, a bytearray or a memoryview, not {type(value).__name__}")
    return bytes(value)


def encode(value: bytes) -> Node:
    """Return a uint8 array with one axis."""
    return Array(bytes_array(value), where="bytes")


def decode(node: Node) -> bytes:
    """Return the bytes of a uint8 array with one axis."""
    return read_bytes(node)
