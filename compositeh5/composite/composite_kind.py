"""The kind ``composite``: a composite inside a composite."""

from __future__ import annotations

import sys
from typing import Any

from .. import kinds
from ..errors import EncodeError, FormatError
from ..storage.nodes import Group, GroupNode, Node
from ..storage.reader import StoredGroup
from .composite import Composite
from .encoding import composite_node, take_over_written
from .opening import stored_composite
from .session import current

TYPES = (Composite,)
VERSION = 1


def coerce(value: Any) -> Composite:
    """Return the value, which must be a `Composite`."""
    if not isinstance(value, Composite):
        raise EncodeError(f"expected a Composite, found {type(value).__name__}")
    return value


def encode(value: Composite) -> Group:
    """Return the group of a composite."""
    group = composite_node(value)
    take_over_written(value, value, group, None)
    return group


def decode(node: Node) -> Composite:
    """Return the composite of a group, with its values in memory.

    Raises
    ------
    FormatError
        If the node isn't a composite.
    """
    if not isinstance(node, GroupNode):
        raise FormatError(f"{node.where}: a composite is a group")
    if not isinstance(node, StoredGroup):
        return stored_composite(node, None).load()
    # As in any file that isn't trusted, links are followed on the same host only, whatever the session allows.
    session = current().with_policy(False, node.file.limits)
    return stored_composite(node, node.file.name, session).load()


kinds.register("composite", sys.modules[__name__])
