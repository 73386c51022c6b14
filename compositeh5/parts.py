"""The parts of a composite: where each component comes from, and how it is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, TypeAlias

import numpy as np

from . import kinds, links, targets
from .access import ACCESS, Access
from .container.layout import ORIGIN, long_text
from .container.nodes import (
    ArrayNode,
    AttrValue,
    ExternalLink,
    Group,
    GroupNode,
    Later,
    Node,
    Selection,
    known,
    with_attrs,
)
from .container.quantized import QuantizedArray
from .container.reader import fetch_together
from .container.viewers import RANGE, image_attrs
from .errors import BrokenLinkError, EncodeError, FormatError, OutsideError, UnsupportedParameterError
from .integrity import canonical_json, digest, read_json
from .kinds._values import count_items
from .links import Link


class _UNREAD:
    """Stands for a value that was not read; a class, so that it is the same one after pickling."""


LIST = "list"
"""The kind whose items may be links."""

DigestOf: TypeAlias = Callable[[Node], str | Later]
"""Makes the digest of a component, at once or later."""


class Part(ABC):
    """One component of a composite that is not absent."""

    state: str
    """``"memory"``, ``"stored"`` or ``"linked"``."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """Name of the kind."""

    @property
    @abstractmethod
    def stage(self) -> str:
        """The processing step that made it; empty if unknown."""

    @property
    @abstractmethod
    def origin(self) -> Link | None:
        """Where its content is from; None if it is the composite's own."""

    @abstractmethod
    def read(self, **parameters: Any) -> Any:
        """Return the value, or the part of it that the parameters of its kind select."""

    @abstractmethod
    def open_node(self) -> tuple[Node, targets.Target | None]:
        """Return the node of the component, and what must be closed after its use, if anything."""

    @abstractmethod
    def output(self, digest_of: DigestOf = digest) -> tuple[Node, str | Later]:
        """Return the node to write, and the digest of what it stands for."""

    @property
    def digest(self) -> str:
        """The digest of the content."""
        return known(self.output()[1])


class MemoryPart(Part):
    """A component that is a value in memory."""

    state = "memory"

    def __init__(self, value: Any, kind: str, stage: str, origin: Link | None = None) -> None:
        self.value, self._kind, self._stage, self._origin = kinds.get(kind).coerce(value), kind, stage, origin

    @property
    def kind(self) -> str:
        return self._kind

    @property
    def stage(self) -> str:
        # A nested composite has one of its own.
        return str(self.value.stage) if self._kind == "composite" else self._stage

    @property
    def origin(self) -> Link | None:
        return self._origin

    def read(self, **parameters: Any) -> Any:
        return kinds.decode(self.open_node()[0], **parameters) if parameters else self.value

    def open_node(self) -> tuple[Node, None]:
        return kinds.encode(self.value, self._kind), None

    def output(self, digest_of: DigestOf = digest) -> tuple[Node, str | Later]:
        node, _ = self.open_node()
        # A nested composite brings its own.
        own = node.attr("digest", str, "") or digest_of(node)
        display = image_attrs(node) if isinstance(node, ArrayNode) and kinds.get(self._kind).is_pixels else {}
        node.attrs = {**node.attrs, **display, **_use(self.stage, self.origin)}
        return _with_digest(node, own), own


class StoredPart(Part):
    """A component stored in a file.

    Parameters
    ----------
    node : Node
        What is stored.
    location : str, optional
        Original location of the file.
    access : Access, optional
        How its files are read.
    """

    state = "stored"

    def __init__(self, node: Node, location: str | None = None, access: Access = ACCESS) -> None:
        self._node, self.location, self._access = node, location, access

    @property
    def node(self) -> Node:
        """What is stored."""
        return self._node

    def __reduce__(self) -> Any:
        raise EncodeError(
            f"{self.node.where}: a composite that isn't as it was opened can't be pickled while components of it are "
            f"in an open file: write() it and pickle the one that you open, or pickle composite.load()"
        )

    @property
    def kind(self) -> str:
        return self.node.attr("kind", str)

    @property
    def stage(self) -> str:
        return self.node.attr("stage", str, "")

    @property
    def origin(self) -> Link | None:
        record = read_json(self.node, ORIGIN, dict)
        return Link.from_record(record, self.node.where) if record else None

    def read(self, **parameters: Any) -> Any:
        node = self.node
        if is_list_of_links(node):
            return list_part(node, self.location, self._access).read(**parameters)
        return kinds.decode(node, **parameters)

    def open_node(self) -> tuple[Node, None]:
        return self.node, None

    def output(self, digest_of: DigestOf = digest) -> tuple[Node, str | Later]:
        # Items of a list don't carry their digests.
        own = self.node.attr("digest", str, "") or digest_of(self.node)
        return _absolute_links(self.node, self.location), own


class CopiedPart(StoredPart):
    """A component stored in the file of another composite, to be stored with this one as well.

    Parameters
    ----------
    node : Node
        What is stored there.
    link : Link
        The link that leads there.
    location : str, optional
        Where that file is.
    """

    def __init__(self, node: Node, link: Link, location: str | None = None) -> None:
        super().__init__(node, location)
        self._link = link

    @property
    def stage(self) -> str:
        return self._link.stage

    @property
    def origin(self) -> Link:
        return super().origin or self._link

    def output(self, digest_of: DigestOf = digest) -> tuple[Node, str | Later]:
        node, own = super().output(digest_of)
        return with_attrs(node, _use(self.stage, self.origin)), own


class LinkedPart(Part):
    """A component that lives in another file.

    Parameters
    ----------
    link : Link
        What must be found.
    base : str, optional
        Original location of the file that has the link.
    path : str, optional
        Path of the target's file as seen from there.
    access : Access, optional
        How its files are read.
    """

    state = "linked"

    def __init__(self, link: Link, base: str | None = None, path: str | None = None, access: Access = ACCESS) -> None:
        self.link, self._base, self._path, self.access = link, base, path, access
        self._value: Any = _UNREAD

    @property
    def kind(self) -> str:
        return self.link.kind

    @property
    def stage(self) -> str:
        return self.link.stage

    @property
    def origin(self) -> Link:
        return self.link

    def read(self, **parameters: Any) -> Any:
        if self._value is _UNREAD:
            return targets.read(self.link, self._base, self._path, self.access, **parameters)
        kind = kinds.get(self.kind)
        return kind.decode(kind.encode(self._value), **parameters) if parameters else self._value

    def open_node(self) -> tuple[Node, targets.Target | None]:
        if self._value is not _UNREAD:
            return kinds.encode(self._value, self.kind), None
        target = self.open_target()
        return target.node, target

    def open_target(self) -> targets.Target:
        """Return where it is stored, to be closed after use."""
        return targets.Target(self.link, self._base, self._path, self.access)

    @property
    def place(self) -> str:
        """Where the link leads: a path as seen from the file that has it; without one where the target was."""
        if self._base is not None and self._path is not None:
            return links.joined_location(self._base, self._path)
        return self.link.uri

    def output(self, digest_of: DigestOf = digest) -> tuple[Node, str | Later]:
        return ExternalLink(self.place, self.link.target), self.link.digest

    @property
    def is_unread(self) -> bool:
        """Whether reading it needs the file of its target."""
        return self._value is _UNREAD and targets.cache.get(self.link) is None

    def loaded(self) -> LinkedPart:
        """Return the same with its value beside the link; without it where the target is lost."""
        try:
            return self.with_value(self.read())
        except BrokenLinkError:
            # Reading it will say so; the other components must not suffer from it.
            return self.with_value(_UNREAD)

    def with_value(self, value: Any) -> LinkedPart:
        """Return the same with its value beside the link."""
        part = LinkedPart(self.link, self._base, self._path, self.access)
        part._value = value
        return part


class ListPart(Part):
    """A list of components of which at least one lives in another file.

    Parameters
    ----------
    items : sequence of Part
        The items.
    stage : str
        The processing step that put them together; empty if unknown.
    origin : Link, optional
        Where the list is from.
    """

    state = "linked"

    def __init__(self, items: Sequence[Part], stage: str, origin: Link | None = None) -> None:
        self.items, self._stage, self._origin = tuple(items), stage, origin

    @property
    def kind(self) -> str:
        return LIST

    @property
    def stage(self) -> str:
        return self._stage

    @property
    def origin(self) -> Link | None:
        return self._origin

    def read(self, **parameters: Any) -> list[Any]:
        items: Iterable[int] | None = parameters.pop("items", None)
        if parameters:
            raise UnsupportedParameterError(f"a list has no parameter {sorted(parameters)[0]!r}; it has ['items']")
        chosen = range(len(self.items)) if items is None else items
        try:
            return [self.items[index].read() for index in chosen]
        except IndexError:
            raise OutsideError(f"the list has {len(self.items)} items; {items!r} were asked for") from None

    def open_node(self) -> tuple[Node, None]:
        return kinds.encode(self.read(), LIST), None

    def output(self, digest_of: DigestOf = digest) -> tuple[Node, str | Later]:
        children: dict[str, Node] = {}
        records: dict[str, Any] = {}
        for index, item in enumerate(self.items):
            children[str(index)], _ = item.output()
            if isinstance(item, LinkedPart):
                records[str(index)] = item.link.record()
        attrs: dict[str, AttrValue] = {
            "kind": LIST,
            "kind_version": kinds.get(LIST).version,
            "length": len(self.items),
            **(long_text("links", canonical_json(records)) if records else {}),
        }
        node = Group(children, attrs, LIST)
        own = digest(node)
        node.attrs |= {"digest": own, **_use(self.stage, self.origin)}
        return node, own


class RoundedPart(StoredPart):
    """An image with its pixels rounded; see `container.quantized`. Its digest is made when it is written."""

    def output(self, digest_of: DigestOf = digest) -> tuple[Node, str | Later]:
        node, own = super().output(digest_of)
        return _with_digest(with_attrs(node, {}), own), own


def rounded_part(part: Part, node: ArrayNode, fraction: float) -> RoundedPart:
    """Return the part of an image, whose node is given, with the pixels rounded."""
    rounded = QuantizedArray(node, fraction)
    attrs = {**rounded.attrs, **image_attrs(node), **_use(part.stage, None)}
    if RANGE in attrs:
        attrs[RANGE] = rounded.round(np.asarray(attrs[RANGE]))
    # No longer what it was copied from.
    rounded.attrs = {name: value for name, value in attrs.items() if name not in (ORIGIN, "digest")}
    return RoundedPart(rounded)


def fetch_parts(parts: Iterable[Part], limit: int) -> ExitStack:
    """Have what reading some parts needs of remote files transferred at once, and open targets of links once.

    No more of them than the limits allow to be open; the others are opened when they are read.

    Parameters
    ----------
    parts : iterable of Part
        All of them will be read.
    limit : int
        Of a file of which they are more bytes than this, they are left to be transferred one after the other.

    Returns
    -------
    ExitStack
        To be closed after the reads.
    """
    wanted: list[tuple[Node, Selection]] = []
    count = 0
    with ExitStack() as stack:
        for part in parts:
            if isinstance(part, StoredPart):
                wanted.append((part.node, ()))
            elif isinstance(part, LinkedPart) and part.is_unread and count < part.access.limits.open_files:
                count += 1
                # One that is lost says so when it is read.
                with suppress(BrokenLinkError):
                    target = part.open_target()
                    stack.callback(target.close)
                    wanted.append((target.node, ()))
        fetch_together(wanted, limit)
        return stack.pop_all()


def is_list_of_links(node: Node) -> bool:
    """Return whether a node is a list of which items live in other files."""
    return node.attr("kind", str, "") == LIST and "links" in node.attrs


def list_part(node: Node, location: str | None, access: Access = ACCESS) -> ListPart:
    """Return a stored list with its items, which are not read.

    Raises
    ------
    FormatError
        If it isn't a list, or has links without a record or records without a link.
    """
    if not isinstance(node, GroupNode):
        raise FormatError(f"{node.where}: a list should be a group")
    records = read_json(node, "links", dict)
    items: list[Part] = []
    for index in map(str, range(count_items(node))):
        item, record = node[index], records.pop(index, None)
        if isinstance(item, ExternalLink):
            items.append(linked_part(item, record, location, access))
        elif record is None:
            items.append(StoredPart(item, location, access))
        else:
            raise FormatError(f"{item.where}: is recorded as a link, but is stored here")
    if records:
        raise FormatError(f"{node.where}: the links {', '.join(sorted(records))} are recorded, but missing")
    return ListPart(items, node.attr("stage", str, ""))


def linked_part(node: ExternalLink, record: Any, location: str | None, access: Access = ACCESS) -> LinkedPart:
    """Return the part of a stored link.

    Raises
    ------
    FormatError
        If the record isn't one, or not that of this link.
    """
    if record is None:
        raise FormatError(f"{node.where}: is a link, but has no record of what it must find")
    link = Link.from_record(record, node.where)
    if node.target != link.target:
        raise FormatError(f"{node.where}: links to {node.target}, but {link.target} is recorded")
    return LinkedPart(link, location, node.file, access)


def _with_digest(node: Node, own: str | Later) -> Node:
    """Have a node say its digest, at once or later."""
    if isinstance(own, Later):
        node.later = {"digest": own}
    else:
        node.attrs = {**node.attrs, "digest": own}
    return node


def _use(stage: str, origin: Link | None) -> dict[str, AttrValue]:
    """Return the attributes that say how a composite came to have a component."""
    attrs: dict[str, AttrValue] = {"stage": stage} if stage else {}
    if origin is not None:
        attrs[ORIGIN] = canonical_json(origin.record())
    return attrs


def _absolute_links(node: Node, location: str | None) -> Node:
    """Return the node with the links in it as they are seen from everywhere."""
    if isinstance(node, ExternalLink):
        return ExternalLink(links.joined_location(location, node.file) if location else node.file, node.target)
    # Only these have others within them, of which any may be a link.
    if isinstance(node, GroupNode) and node.attr("kind", str, "") in ("composite", LIST):
        return Group({name: _absolute_links(child, location) for name, child in node.items()}, dict(node.attrs))
    return node
