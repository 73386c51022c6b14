"""The kind ``list``: components in order, each of its own kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import kinds
from ..errors import EncodeError, FormatError, OutsideError
from ..storage.nodes import Group, Node
from .values import count_items, expect_group, nested


def coerce(value: Any) -> list[Any]:
    """Return a list or tuple as ``list``."""
    if not isinstance(value, list | tuple):
        raise EncodeError(f"a list of components should be a list or tuple, not {type(value).__name__}")
    return list(value)


def encode(value: list[Any]) -> Node:
    """Return a group of the items' nodes, named ``0``, ``1``, ...; an `EncodeError` gives the index of the item."""
    children = {}
    with nested("list", EncodeError):
        for index, item in enumerate(value):
            try:
                children[str(index)] = kinds.encode(item)
            except EncodeError as error:
                raise EncodeError(f"item {index}: {error}") from error
    return Group(children, {"length": len(children)}, "list")


def decode(node: Node, *, items: Iterable[int] | None = None) -> list[Any]:
    """Return the items of a list, or those of some indices, in the order wanted; negative ones count from the end.

    An `IndexError` says that the list has no item of one of the indices.
    """
    group = expect_group(node, "a list")
    count = count_items(group)
    try:
        chosen = range(count) if items is None else [range(count)[item] for item in items]
    except IndexError:
        raise OutsideError(f"{node.where}: the list has {count} items; {items!r} were asked for") from None
    with nested(node.where, FormatError):
        return [kinds.decode(group[str(index)]) for index in chosen]
