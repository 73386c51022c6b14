"""Making components self-contained: every link replaced by what it leads to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TypeVar

from ..storage.digests import read_json
from ..storage.layout import long_text, text_name
from ..storage.nodes import ExternalLink, Group, GroupNode, Node
from ..storage.recipes import Recipes
from .parts import LIST, Composed, LinkedPart, Part, StoredPart, ValuePart, stored_part
from .session import Session

_C = TypeVar("_C", bound=Composed)


def flatten(
    composite: _C, path: str | os.PathLike[str], *, replace: bool = False, recipes: Recipes | None = None
) -> None:
    """Write a copy that needs no other file: with what the links lead to in their place.

    The copy has the same id, and its components the same digests, as this composite; each that was linked keeps its
    origin. `split` turns such files into linked ones again.

    Parameters
    ----------
    composite : Composite
        The composite.
    path, replace, recipes
        As for `write`.

    Raises
    ------
    BrokenLinkError
        If a component is lost. Nothing is written.
    ConflictError, OSError
        As `write` does.
    """
    with ExitStack() as opened:
        flat = composite.with_parts(_flat_parts(composite.parts, opened), id=composite.id or None)
        flat.write(path, replace=replace, recipes=recipes)


def _flat_parts(parts: Mapping[str, Part], opened: ExitStack) -> dict[str, Part]:
    """Return parts that need no other file, with what their links lead to; their digests stay the same.

    Parameters
    ----------
    parts : mapping of str to Part
        The components of a composite.
    opened : ExitStack
        Closes the files of which the result is made.

    Raises
    ------
    BrokenLinkError
        If a component is lost.
    """
    return {name: _flat_part(part, opened) for name, part in parts.items()}


def _flat_part(part: Part, opened: ExitStack) -> Part:
    start, session = None, None
    if isinstance(part, LinkedPart):
        session, link = part.session, part.link
        node, file = part.open_node()
        if file is None:
            part = ValuePart(part.read(), part.kind, part.stage, link)
        else:
            opened.callback(file.close)
            part = StoredPart(node, file.name, session, link)
    if isinstance(part, StoredPart):
        start, session = part.location, part.session
    if part.kind not in (LIST, "composite"):
        return part
    node, _ = part.output()
    return StoredPart(_flat_node(node, start, session, opened))


def _flat_node(node: Node, start: str | None, session: Session | None, opened: ExitStack) -> Node:
    """Return a list or a composite, whose links lead to absolute locations, with what these lead to."""
    if not isinstance(node, GroupNode) or (kind := node.attr("kind", str, "")) not in (LIST, "composite"):
        return node
    children: dict[str, Node] = {}
    records = read_json(node, "links", dict)
    for name, child in node.items():
        if isinstance(child, ExternalLink):
            # Of a composite in memory, a link may lead to any host.
            part = stored_part(node, name, start or child.file, session, lambda: records)
            children[name], _ = _flat_part(part, opened).output()
        else:
            children[name] = _flat_node(child, start, session, opened)
    attrs = {name: value for name, value in node.attrs.items() if text_name(name) != "links"}
    return Group(children, attrs | (long_text("links", "{}") if kind == "composite" else {}), node.where)
