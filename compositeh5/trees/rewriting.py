"""Writing a file anew with other links, and the same ids and contents: digests don't cover where links lead."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

from ..composite.link import Link
from ..composite.parts import LinkedPart, stored_part
from ..composite.session import current
from ..composite.writing import relative_links
from ..errors import ConflictError
from ..storage.digests import canonical_json, read_json
from ..storage.layout import check_file, composite_group, composite_names, file_root, long_text, text_name
from ..storage.nodes import AttrValue, ExternalLink, Group, GroupNode, Node
from ..storage.publish import publish
from ..storage.reader import StoredFile
from ..storage.source import identity
from ..storage.writer import file_image
from .references import HOLDERS, StoredLink

LinkOf: TypeAlias = Callable[[str, StoredLink], Link | None]
"""Gives for the name of a composite in a file, and a link of it, another to be in its place; None to leave it."""


def rewrite(path: str, link_of: LinkOf) -> bool:
    """Write a file anew, in its place, if links of it change, and return whether that was so.

    Raises
    ------
    ConflictError
        If the file was replaced meanwhile; it is as it is now.
    OSError, CompositeH5Error
        If it can't be read, or written; it is as it was.
    """
    before = identity(os.stat(path))
    file = current().open(path)
    try:
        check_file(file)
        image = relinked_image(file, path, link_of)
    finally:
        file.close()
    if image is None:
        return False
    if identity(os.stat(path)) != before:
        raise ConflictError(f"{path}: was replaced while it was read; it was left as it is now")
    publish(path, image, replace=True)
    return True


def relinked_image(file: StoredFile, location: str, link_of: LinkOf) -> bytes | None:
    """Return the bytes of a file with its links leading elsewhere, and the same ids and contents.

    Parameters
    ----------
    file : StoredFile
        The file; the links in its lists and nested composites are among those that change.
    location : str
        Where it is, and will be.
    link_of : callable
        Gives for the name of a composite in the file, and a link of it, that which should be in its place, of the same
        digest; None to leave it as it is.

    Returns
    -------
    bytes or None
        None if no link changes.

    Raises
    ------
    OSError, CompositeH5Error
        If the file isn't as it should be.
    """
    # The first one is the default.
    default = file.root.attr("default", str)
    groups = {name: composite_group(file, name) for name in sorted(composite_names(file), key=lambda n: n != default)}
    nodes = {name: relinked_group(group, location, partial(link_of, name)) for name, group in groups.items()}
    if not any(changed for _, changed in nodes.values()):
        return None
    root = file_root({name: (group.attr("id", str), nodes[name][0]) for name, group in groups.items()})
    return file_image(relative_links(root, location))


def relinked_group(
    group: GroupNode, location: str, link_of: Callable[[StoredLink], Link | None], path: str = ""
) -> tuple[Group, bool]:
    """Return the group of a composite or a list with links leading elsewhere, to absolute locations.

    Parameters
    ----------
    group : GroupNode
        The group.
    location : str
        Where its file is.
    link_of : callable
        Gives for a link that which should be in its place; None to leave it as it is.
    path : str, optional
        What leads to the group, for the names of its links.

    Returns
    -------
    group : Group
        The new group. Nothing of it is read.
    changed : bool
        Whether a link in it leads elsewhere than before.
    """
    records = read_json(group, "links", dict)
    children: dict[str, Node] = {}
    changed = False
    for name, child in group.items():
        own = f"{path}/{name}".removeprefix("/")
        if isinstance(child, ExternalLink):
            part = stored_part(group, name, location, None, lambda: records)
            assert isinstance(part, LinkedPart)
            link = link_of(StoredLink(own, part.link, part.place))
            if link is None or (link.target, link.uri) == (part.link.target, part.place):
                children[name] = ExternalLink(part.place, part.link.target)
            else:
                children[name] = ExternalLink(link.uri, link.target)
                records[name] = link.record()
                changed = True
        elif isinstance(child, GroupNode) and child.attr("kind", str, "") in HOLDERS:
            children[name], inner = relinked_group(child, location, link_of, own)
            changed |= inner
        else:
            children[name] = child
    attrs = _with_records(group.attrs, records) if changed else dict(group.attrs)
    return Group(children, attrs, group.where), changed


def _with_records(attrs: Mapping[str, AttrValue], records: Mapping[str, object]) -> dict[str, AttrValue]:
    if not records:
        return dict(attrs)
    others = {name: value for name, value in attrs.items() if text_name(name) != "links"}
    return {**others, **long_text("links", canonical_json(records))}
