"""Kind ``composite``: a composite inside a composite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..access import access_of, location_of
from ..composite import Composite
from ..container.nodes import GroupNode
from ..errors import EncodeError, FormatError
from ..stored import from_group
from ..writing import group_of

if TYPE_CHECKING:
    from ..container.nodes import Group, Node

VERSION = 1


def coerce(value: Any) -> Composite:
    """Return the value, which must be a `Composite`."""
    if not isinstance(value, Composite):
        raise EncodeError(f"expected a Composite, found {type(value).__name__}")
    return value


def encode(value: Composite) -> Group:
    """Return the group of a composite."""
    return group_of(value)


def decode(node: Node) -> Composite:
    """Return the composite of a group, with its values in memory.

    Raises
    ------
    FormatError
        If the node isn't a composite.
    """
    if not isinstance(node, GroupNode):
        raise FormatError(f"{node.where}: a composite is a group")
    return from_group(node, location_of(node), access_of(node)).load()
