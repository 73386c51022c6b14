"""The kind ``text``: one text, of any length."""

from __future__ import annotations

from typing import Any

from ..errors import EncodeError
from ..storage.nodes import Array, Node
from .values import read_text, text_array


def coerce(value: Any) -> str:
    """Return text as ``str``."""
    if not isinstance(value, str):
        raise EncodeError(f"text should be a str, not {type(value).__name__}")
    return str(value)


def encode(value: str) -> Node:
    """Return a text array without axes."""
    return Array(text_array(value, "text"), where="text")


def decode(node: Node) -> str:
    """Return the text of an array without axes."""
    return read_text(node)
