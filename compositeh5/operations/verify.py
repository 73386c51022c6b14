"""Checking that a composite still holds what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import DigestMismatchError
from ..integrity import digest
from ..parts import StoredPart

if TYPE_CHECKING:
    from ..composite import Composite


def verify(composite: Composite) -> None:
    """Read all stored components of an open composite and compare them with their digests.

    Components that live in other files are not read: their digests are compared when they are.

    Raises
    ------
    DigestMismatchError
        If the content of a component, or the set of components, isn't what was written.
    CorruptFileError
        If a part can't be read.
    """
    for name in composite:
        part = composite._part(name)
        if isinstance(part, StoredPart):
            node = part.node
            found, recorded = digest(node), node.attr("digest", str)
            if found != recorded:
                raise DigestMismatchError(f"{node.where}: its content has digest {found}, but {recorded} was recorded")
    if composite.recorded_digest and composite.digest != composite.recorded_digest:
        raise DigestMismatchError(
            f"{composite.location}: the composite has digest {composite.digest}, but {composite.recorded_digest} "
            f"was recorded: a component or an attribute was added, removed, renamed or changed"
        )
