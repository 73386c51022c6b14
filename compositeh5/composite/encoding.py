"""A composite as a group of a file, and links to its components."""

from __future__ import annotations

import uuid
from dataclasses import replace as changed

from ..errors import WrongValueError
from ..storage.digests import canonical_json, composite_digest, digest
from ..storage.layout import ID_NAMESPACE, long_text
from ..storage.nodes import AttrValue, ExternalLink, Group
from ..storage.threads import in_order
from .interface import CompositeLike
from .link import Link
from .parts import LinkedPart, with_digest
from .session import node_bytes

KIND_VERSION = 1
"""Version of the encoding of a composite's group."""


def composite_node(composite: CompositeLike) -> Group:
    """Return the group to write of a composite, complete with its id, digests and the records of links.

    The files of external links in it are absolute locations. A composite without id gets one of its content.
    """
    parts = composite.parts
    outputs = {name: part.output() for name, part in parts.items()}
    unknown = {name: node for name, (node, known) in outputs.items() if not known}
    found = in_order(digest, unknown.values(), sum(map(node_bytes, unknown.values())))
    digests = {name: known for name, (_, known) in outputs.items()} | dict(zip(unknown, found, strict=True))
    records = {name: part.link.record() for name, part in parts.items() if isinstance(part, LinkedPart)}
    title = [composite.definition or "composite", *(f"{key}={value}" for key, value in composite.data_id.items())]
    attrs: dict[str, AttrValue] = {
        "kind": "composite",
        "kind_version": KIND_VERSION,
        "definition": composite.definition,
        "definition_version": composite.definition_version,
        "data_id": canonical_json(composite.data_id),
        "dataset_type": composite.dataset_type,
        "run": composite.run,
        "stage": composite.stage,
        "title": " ".join(title),
        **long_text("absent", canonical_json(sorted(composite.absent))),
        **long_text("links", canonical_json(records)),
        **long_text("provenance", canonical_json(composite.provenance)),
    }
    if composite.signal in parts:
        attrs |= {"NX_class": "NXdata", "signal": composite.signal}
    children = {
        name: node if isinstance(node, ExternalLink) else with_digest(node, digests[name])
        for name, (node, _) in outputs.items()
    }
    group = Group(children, attrs, composite.where)
    whole = composite_digest(group)
    group.attrs |= {"id": composite.id or str(uuid.uuid5(ID_NAMESPACE, whole)), "digest": whole}
    return group


def take_over_written(composite: CompositeLike, written: CompositeLike, group: Group, location: str | None) -> None:
    """Update a composite after it was written: its id, and the written parts (links for values, rounded images).

    Its location changes only if one is given.
    """
    parts = dict(written.parts)
    composite._digests = {
        name: part.link.digest if isinstance(part, LinkedPart) else group[name].attr("digest", str)
        for name, part in parts.items()
    }
    if parts != dict(composite.parts):
        composite._parts, composite._in_memory = parts, True
    composite.id = group.attr("id", str)
    composite.location = location or composite.location


def link(composite: CompositeLike, name: str) -> Link:
    """Return a link to a component, for use as a component of another composite.

    If the component is itself linked, the link leads to where it is stored.

    Parameters
    ----------
    composite : Composite
        The composite.
    name : str
        Name of the component.

    Raises
    ------
    ClosedError, NoSuchComponentError, AbsentComponentError
        As ``composite[name]`` does.
    ValueError
        If the composite isn't stored yet: nothing could be found at the link's end.
    """
    part = composite.part(name)
    if isinstance(part, LinkedPart):
        return changed(part.link, uri=part.place)
    if composite.location is None:
        raise WrongValueError(f"{composite.where}: write it first, then link to its component {name!r}")
    return link_to(composite, name, composite._digests.get(name) or part.digest, composite.location)


def link_to(composite: CompositeLike, name: str, digest: str, location: str) -> Link:
    """Return a link to a component whose digest is known, in a file at a location."""
    part = composite.parts[name]
    return Link(
        id=composite.id,
        component=name,
        kind=part.kind,
        digest=digest,
        uri=location,
        definition=composite.definition,
        dataset_type=composite.dataset_type,
        data_id=composite.data_id,
        run=composite.run,
        stage=part.stage,
    )
