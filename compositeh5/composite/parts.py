"""The parts of a composite: what it holds of each component, and how that is read and written.

A part is a value in memory, a node that is stored in a file, a link to another file, or a list of parts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any, ClassVar

from .. import kinds
from ..errors import (
    BrokenLinkError,
    DefinitionError,
    EncodeError,
    FormatError,
    OutsideError,
    UnsupportedParameterError,
)
from ..kinds.values import count_items, nested
from ..storage.digests import canonical_json, digest, read_json
from ..storage.layout import ORIGIN, image_attrs, long_text
from ..storage.locations import joined_location
from ..storage.nodes import ArrayNode, AttrValue, ExternalLink, Group, GroupNode, Node, Selection, with_attrs
from ..storage.reader import StoredFile, StoredGroup, prefetch_nodes
from .definition import ComponentDefinition, Definition
from .link import Link
from .session import CACHED_BYTES, Session, Target, check_content, current, node_bytes

LIST = "list"
"""The kind whose items may be links."""


FETCHED_TOGETHER = 256 * 1024 * 1024
"""Components of a remote file that are more than this, as stored, are fetched one after the other."""


class _UNREAD:
    """Stands for a value that was not read; a class, so that it is the same one after pickling."""


class Part(ABC):
    """One component of a composite that is not absent."""

    state: ClassVar[str]
    """``"memory"``, ``"stored"`` or ``"linked"``."""

    kind: str
    """Name of the kind."""

    stage: str
    """The processing step that made it; empty if unknown."""

    origin: Link | None
    """Link to the component that it is, or was copied from; None if it was made for this composite."""

    @abstractmethod
    def read(self, **parameters: Any) -> Any:
        """Return the value, or the part of it that the parameters of its kind select."""

    @abstractmethod
    def open_node(self) -> tuple[Node, StoredFile | None]:
        """Return the node of the component, and the file that must be closed after its use, if any."""

    @abstractmethod
    def output(self) -> tuple[Node, str]:
        """Return the node to write, and the digest of its content; empty if that is to be computed of the node."""

    @property
    def digest(self) -> str:
        """The digest of the content."""
        node, known = self.output()
        return known or digest(node)


class ValuePart(Part):
    """A component that is a value in memory."""

    state = "memory"

    def __init__(self, value: Any, kind: str, stage: str = "", origin: Link | None = None) -> None:
        self.value, self.kind, self.origin = kinds.get(kind).coerce(value), kind, origin
        # A nested composite has one of its own.
        self.stage = str(self.value.stage) if kind == "composite" else stage

    def read(self, **parameters: Any) -> Any:
        return kinds.decode(self.open_node()[0], **parameters) if parameters else self.value

    def open_node(self) -> tuple[Node, None]:
        return kinds.encode(self.value, self.kind), None

    def output(self) -> tuple[Node, str]:
        node, _ = self.open_node()
        shown = image_attrs(node) if isinstance(node, ArrayNode) and kinds.get(self.kind).is_pixels else {}
        node.attrs = {**node.attrs, **shown, **_usage_attrs(self.stage, self.origin)}
        # A nested composite brings its own.
        return node, node.attr("digest", str, "")


class StoredPart(Part):
    """A component stored in a file. Links inside it are relative to ``location``.

    Given a ``link``, the part is a copy for another composite: the link is recorded as its origin.
    """

    state = "stored"

    def __init__(
        self, node: Node, location: str | None = None, session: Session | None = None, link: Link | None = None
    ) -> None:
        self.node, self.location, self.session, self._link = node, location, session, link

    def __reduce__(self) -> Any:
        raise EncodeError(
            f"{self.node.where}: a composite that isn't as it was opened can't be pickled while components of it are "
            f"in an open file: write() it and pickle the one that you open, or pickle composite.load()"
        )

    @property
    def kind(self) -> str:  # type: ignore[override]
        """Name of the kind."""
        return self.node.attr("kind", str)

    @property
    def stage(self) -> str:  # type: ignore[override]
        """The processing step that made it; empty if unknown."""
        return self._link.stage if self._link is not None else self.node.attr("stage", str, "")

    @property
    def origin(self) -> Link | None:  # type: ignore[override]
        """Link to the component that it is, or was copied from; None if it was made for this composite."""
        record = read_json(self.node, ORIGIN, dict)
        return Link.from_record(record, self.node.where) if record else self._link

    def copied_from(self, link: Link) -> StoredPart:
        """Return the part to be stored with another composite, to which a link would lead to it."""
        return StoredPart(self.node, self.location, self.session, link)

    def read(self, **parameters: Any) -> Any:
        return self.as_list().read(**parameters) if self.kind == LIST else kinds.decode(self.node, **parameters)

    def as_list(self) -> ListPart:
        """Return a stored list with its items, which are not read."""
        node = self.node
        if not isinstance(node, GroupNode):
            raise FormatError(f"{node.where}: a list should be a group")
        parts = stored_parts(node, self.location, self.session)
        items = [parts[str(index)] for index in range(count_items(node))]
        return ListPart(items, self.stage, self._link)

    def open_node(self) -> tuple[Node, None]:
        return self.node, None

    def output(self) -> tuple[Node, str]:
        node = _absolute_links(self.node, self.location)
        if self._link is not None:
            node = with_attrs(node, _usage_attrs(self.stage, self.origin))
        # Items of a list don't carry their digests.
        return node, self.node.attr("digest", str, "")


class LinkedPart(Part):
    """A component that lives in another file.

    ``start`` is the original location of the file that has the link, ``path`` that of the target as seen from there;
    ``own`` is the file itself, of which another composite may be meant. The value is given if it is known.
    """

    state = "linked"

    def __init__(
        self,
        link: Link,
        start: str | None = None,
        path: str | None = None,
        session: Session | None = None,
        own: StoredFile | None = None,
        value: Any = _UNREAD,
    ) -> None:
        self.link, self.kind, self.stage, self.origin = link, link.kind, link.stage, link
        self._start, self._path, self._session, self._own, self._value = start, path, session, own, value

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_own": None}

    @property
    def session(self) -> Session:
        """How the link is followed."""
        return self._session or current()

    def read(self, **parameters: Any) -> Any:
        kind, value = kinds.get(self.kind, str(self.link)), self._value
        if value is _UNREAD:
            value = self.session._values.get(self.link)
            if value is None:
                with self.open_target() as target:
                    part = StoredPart(target.node, target.place, self.session)
                    nbytes = node_bytes(target.node)
                    if parameters or nbytes > CACHED_BYTES:
                        return part.read(**parameters)
                    check_content(target.node, self.link)
                    value = part.read()
                self.session._values.put(self.link, value, nbytes)
            value = value if parameters else kind.share(value)
        return kind.decode(kind.encode(value), **parameters) if parameters else value

    def open_node(self) -> tuple[Node, StoredFile | None]:
        if self._value is not _UNREAD:
            return kinds.encode(self._value, self.kind), None
        target = self.open_target()
        return target.node, target.file

    def open_target(self) -> Target:
        """Return where it is stored, to be closed after use."""
        return self.session.find(self.link, self._start, self._path, self._own)

    @property
    def place(self) -> str:
        """Where the link leads: a path as seen from the file that has it; without one where the target was."""
        if self._start is not None and self._path is not None:
            return joined_location(self._start, self._path)
        return self.link.uri

    def output(self) -> tuple[Node, str]:
        return ExternalLink(self.place, self.link.target), self.link.digest

    @property
    def is_unread(self) -> bool:
        """Whether reading it needs the file of its target."""
        return self._value is _UNREAD and self.session._values.get(self.link) is None

    def loaded(self) -> LinkedPart:
        """Return the same with its value beside the link; without it where the target is lost."""
        try:
            return self.with_value(self.read())
        except BrokenLinkError:
            # Reading it will say so; the other components must not suffer from it.
            return self.with_value(_UNREAD)

    def with_value(self, value: Any) -> LinkedPart:
        """Return the same with its value beside the link."""
        return LinkedPart(self.link, self._start, self._path, self._session, value=value)


class ListPart(Part):
    """A list of components, each with its own part."""

    state = "linked"
    kind = LIST

    def __init__(self, items: Sequence[Part], stage: str, origin: Link | None = None) -> None:
        self.items, self.stage, self.origin = tuple(items), stage, origin

    def read(self, *, items: Iterable[int] | None = None, **parameters: Any) -> list[Any]:
        if parameters:
            raise UnsupportedParameterError(f"a list has no parameter {sorted(parameters)[0]!r}; it has ['items']")
        chosen = range(len(self.items)) if items is None else items
        try:
            with nested("a list", FormatError):
                return [self.items[index].read() for index in chosen]
        except IndexError:
            raise OutsideError(f"the list has {len(self.items)} items; {items!r} were asked for") from None

    def open_node(self) -> tuple[Node, None]:
        return kinds.encode(self.read(), LIST), None

    def output(self) -> tuple[Node, str]:
        children: dict[str, Node] = {}
        records: dict[str, Any] = {}
        for index, item in enumerate(self.items):
            children[str(index)], known = item.output()
            if isinstance(item, LinkedPart):
                records[str(index)] = item.link.record()
            else:
                children[str(index)] = with_digest(children[str(index)], known)
        attrs: dict[str, AttrValue] = {
            "kind": LIST,
            "kind_version": kinds.get(LIST).version,
            "length": len(self.items),
            **(long_text("links", canonical_json(records)) if records else {}),
        }
        node = Group(children, {**attrs, **_usage_attrs(self.stage, self.origin)}, LIST)
        return node, ""


def parts_of(
    values: Mapping[str, Any], definition: Definition | None, stage: str
) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Return the parts of components that were given, and the names of those that are None."""
    parts: dict[str, Part] = {}
    for name, value in values.items():
        if not (isinstance(name, str) and name.isidentifier()):
            raise EncodeError(f"a component's name should be letters, digits and '_', as Python's are, not {name!r}")
        if value is not None:
            component = definition.components.get(name) if definition else None
            try:
                parts[name] = _part_of(value, component, stage)
            except (EncodeError, DefinitionError) as error:
                raise type(error)(f"component {name!r}: {error}") from error
    return parts, tuple(name for name in values if name not in parts)


def _part_of(value: Any, component: ComponentDefinition | None, stage: str) -> Part:
    """Return the part of a value, a link, a list in which there may be links, or a part."""
    kind = None if component is None else LIST if component.is_list else component.kind
    if isinstance(value, Link):
        value = LinkedPart(value)
    if isinstance(value, Part):
        if kind is not None and value.kind != kind:
            what = f"the link to {value.link}" if isinstance(value, LinkedPart) else "the component given for it"
            raise DefinitionError(f"should be of kind {kind!r}, but {what} is of kind {value.kind!r}")
        return value
    if kind in (None, LIST) and isinstance(value, list | tuple) and any(isinstance(item, Link) for item in value):
        own = None if component is None else component.kind
        return ListPart([_item(item, own, stage) for item in value], stage)
    if component is not None and component.is_list:
        value = [kinds.get(component.kind).coerce(item) for item in value]
    return ValuePart(value, kind or kinds.infer(value), stage)


def _item(value: Any, kind: str | None, stage: str) -> Part:
    if not isinstance(value, Link):
        return ValuePart(value, kind or kinds.infer(value), stage)
    if kind is not None and value.kind != kind:
        raise DefinitionError(f"its items should be of kind {kind!r}, but {value} is of kind {value.kind!r}")
    return LinkedPart(value)


def stored_parts(group: GroupNode, location: str | None, session: Session | None = None) -> dict[str, Part]:
    """Return the parts of the components of a stored composite, or of the items of a stored list, by name."""
    check_records(group)
    records = read_json(group, "links", dict)
    return {name: stored_part(group, name, location, session, lambda: records) for name in group}


def stored_part(
    group: GroupNode,
    name: str,
    location: str | None,
    session: Session | None,
    records: Callable[[], Mapping[str, Any]],
) -> Part:
    """Return the part of a component of a stored composite, or of an item of a stored list.

    The file's original location is that from which its links start; their records are only asked for if it is a link.

    Raises
    ------
    KeyError
        If there is none of that name.
    FormatError
        If it is a link without a record, or with one that isn't its own.
    """
    node = group[name]
    if not isinstance(node, ExternalLink):
        return StoredPart(node, location, session)
    record = records().get(name)
    if record is None:
        raise FormatError(f"{node.where}: is a link, but has no record of what it must find")
    link = Link.from_record(record, node.where)
    if node.target != link.target:
        raise FormatError(f"{node.where}: links to {node.target}, but {link.target} is recorded")
    if not isinstance(group, StoredGroup):
        return LinkedPart(link, location, None if location is None else node.file, session)
    return LinkedPart(link, location, node.file, session, group.file)


def check_records(group: GroupNode) -> None:
    """Raise `FormatError` if a recorded link is missing, or its component is stored here instead."""
    records = read_json(group, "links", dict)
    for name in records:
        if name in group and not isinstance(group[name], ExternalLink):
            raise FormatError(f"{group[name].where}: is recorded as a link, but is stored here")
    if missing := records.keys() - set(group):
        raise FormatError(f"{group.where}: the links {', '.join(sorted(missing))} are recorded, but missing")


def fetch_parts(parts: Iterable[Part]) -> ExitStack:
    """Prefetch what reading some parts needs of remote files; targets of links are open until the result is closed.

    No more of them than the limits allow to be open; the others are opened when they are read. Those of a file of
    which they are too many bytes are left to be transferred one after the other.
    """
    wanted: list[tuple[Node, Selection]] = []
    count = 0
    with ExitStack() as stack:
        for part in parts:
            if isinstance(part, StoredPart):
                wanted.append((part.node, ()))
            elif isinstance(part, LinkedPart) and part.is_unread and count < part.session.limits.open_files:
                count += 1
                # One that is lost says so when it is read.
                with suppress(BrokenLinkError):
                    wanted.append((stack.enter_context(part.open_target()).node, ()))
        prefetch_nodes(wanted, FETCHED_TOGETHER)
        return stack.pop_all()


def with_digest(node: Node, known: str = "") -> Node:
    """Return a node that says the digest of its content, which is computed if it isn't known."""
    return node if "digest" in node.attrs else with_attrs(node, {"digest": known or digest(node)})


def _usage_attrs(stage: str, origin: Link | None) -> dict[str, AttrValue]:
    """Return the attributes that say how a composite came to have a component."""
    attrs: dict[str, AttrValue] = {"stage": stage} if stage else {}
    if origin is not None:
        attrs[ORIGIN] = canonical_json(origin.record())
    return attrs


def _absolute_links(node: Node, location: str | None) -> Node:
    """Return the node with the links in it as they are seen from everywhere."""
    if isinstance(node, ExternalLink):
        return ExternalLink(joined_location(location, node.file) if location else node.file, node.target)
    # Only these have others within them, of which any may be a link.
    if isinstance(node, GroupNode) and node.attr("kind", str, "") in ("composite", LIST):
        return Group({name: _absolute_links(child, location) for name, child in node.items()}, dict(node.attrs))
    return node
