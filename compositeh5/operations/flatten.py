"""Making a composite self-contained: every link replaced by what it leads to."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..container.nodes import GroupNode
from ..errors import FormatError
from ..opening import from_group
from ..parts import LIST, CopiedPart, LinkedPart, ListPart, MemoryPart, Part, StoredPart, list_part

if TYPE_CHECKING:
    import os

    from ..composite import Composite
    from ..recipes import Recipes


def flatten(composite: Composite, path: str | os.PathLike[str], *, replace: bool, recipes: Recipes | None) -> None:
    """Write a copy of a composite that needs no other file; see `Composite.flatten`."""
    with ExitStack() as opened:
        flat = flattened(composite, opened)
        flat.write(path, replace=replace, recipes=recipes)


def flattened(composite: Composite, opened: ExitStack) -> Composite:
    """Return the composite, with the same id, that has what its links lead to.

    Parameters
    ----------
    composite : Composite
        The composite.
    opened : ExitStack
        Closes the files of which the result is made.

    Raises
    ------
    BrokenLinkError
        If a component is lost.
    """
    flat = composite.replace(id=composite.id or None)
    for name in composite:
        flat._parts[name] = _flat_part(composite._part(name), opened)
    return flat


def _flat_part(part: Part, opened: ExitStack) -> Part:
    if isinstance(part, LinkedPart):
        node, target = part.open_node()
        if target is None:
            return MemoryPart(part.read(), part.kind, part.stage, part.link)
        opened.callback(target.close)
        part = CopiedPart(node, part.link, target.file.name)
    if isinstance(part, ListPart) or (part.kind == LIST and isinstance(part, StoredPart)):
        items = part.items if isinstance(part, ListPart) else list_part(part.node, part.location).items
        return ListPart([_flat_part(item, opened) for item in items], part.stage, part.origin)
    if part.kind == "composite":
        nested = part.value if isinstance(part, MemoryPart) else _nested(part)
        return MemoryPart(flattened(nested, opened), "composite", part.stage, part.origin)
    return part


def _nested(part: Part) -> Composite:
    if not isinstance(part, StoredPart) or not isinstance(part.node, GroupNode):
        raise FormatError("a composite in a composite should be a group")
    return from_group(part.node, part.location)
