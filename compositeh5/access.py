"""How the files of a composite are read: its own, and those to which it links."""

from __future__ import annotations

from dataclasses import dataclass

from .container.arrays import StoredArray
from .container.limits import LIMITS, Limits
from .container.nodes import Node
from .container.reader import StoredGroup
from .errors import require_type


@dataclass(frozen=True)
class Access:
    """How files are read; the same for a file and for those to which it links.

    Attributes
    ----------
    anywhere : bool
        Whether what a file says may lead to other hosts, and from local files to the network.
    limits : Limits
        What files may ask for.
    """

    anywhere: bool = False
    limits: Limits = LIMITS

    def __post_init__(self) -> None:
        require_type(self.limits, Limits, "Limits")


ACCESS = Access()
"""How it is done unless something else is asked for."""


def access_of(node: Node) -> Access:
    """Return how the file is read that a node is in; its links lead to where those of strangers may."""
    if isinstance(node, StoredGroup | StoredArray):
        return Access(limits=node.file.limits)
    return ACCESS


def location_of(node: Node) -> str | None:
    """Return the name of the file that a node is in; None if it is in memory."""
    return node.file.name if isinstance(node, StoredGroup | StoredArray) else None
