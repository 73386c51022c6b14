"""The kind ``text``."""

from __future__ import annotations

from typing import Any

from ..errors import EncodeError, FormatError
from ..storage.nodes import Array, ArrayNode, Node
from .values import text_array


def coerce(value: Any) -> str:
    """Return text as ``str``.

    Raises
    ------
    EncodeError
        If it isn't text.
    """
    if not isinstance(value, str):
        raise EncodeError(f"text should be a str, not {type(value).__name__}")
    return str(value)


def encode(value: str) -> Node:
    """Return a text array without axes.

    Raises
    ------
    EncodeError
        If the text holds U+0000 or lone surrogates.
    """
    return Array(text_array(value, "text"), where="text")


def decode(node: Node) -> str:
    """Return the text that a node holds.

    Raises
    ------
    FormatError
        If it isn't a text array without axes.
    """
    if not isinstance(node, ArrayNode) or node.ndim or node.dtype.kind != "U":
        raise FormatError(f"{node.where}: text should be a dataset of text without axes")
    return str(node.read()[()])
