"""Making a composite self-contained: every link replaced by what it leads to."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from .. import kinds
from ..composite import Composite
from ..parts import LIST, CopiedPart, LinkedPart, ListPart, MemoryPart, Part, StoredPart, list_part
from ..stored import nested_composite

if TYPE_CHECKING:
    import os

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
            part = MemoryPart(part.read(), part.kind, part.stage, part.link)
        else:
            opened.callback(target.close)
            part = CopiedPart(node, part.link, target.file.name)
    if part.kind == LIST and (items := _items(part)) is not None:
        return ListPart([_flat_part(item, opened) for item in items], part.stage, part.origin)
    if part.kind == "composite":
        return MemoryPart(flattened(nested_composite(part), opened), "composite", part.stage, part.origin)
    return part


def _items(part: Part) -> Sequence[Part] | None:
    """Return the items of a list in which there may be links; None if there are none."""
    if isinstance(part, ListPart):
        return part.items
    if isinstance(part, StoredPart):
        return list_part(part.node, part.location).items
    if isinstance(part, MemoryPart) and any(isinstance(value, Composite | list) for value in part.value):
        return [MemoryPart(value, kinds.infer(value), "") for value in part.value]
    return None
