"""The parts of a composite: where each component comes from, and how it is read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from . import kinds, links, targets
from .container.nodes import ArrayNode, ExternalLink, Node
from .container.viewers import image_attrs
from .errors import BrokenLinkError
from .integrity import digest
from .links import Link

_UNREAD: Any = object()


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

    @abstractmethod
    def read(self, **parameters: Any) -> Any:
        """Return the value, or the part of it that the parameters of its kind select."""

    @abstractmethod
    def open_node(self) -> tuple[Node, targets.Target | None]:
        """Return the node of the component, and what must be closed after its use, if anything."""

    @abstractmethod
    def output(self) -> tuple[Node, str]:
        """Return the node to write, and the digest of what it stands for."""


class MemoryPart(Part):
    """A component that is a value in memory."""

    state = "memory"

    def __init__(self, value: Any, kind: str, stage: str) -> None:
        self.value, self._kind, self._stage = kinds.get(kind).coerce(value), kind, stage

    @property
    def kind(self) -> str:
        return self._kind

    @property
    def stage(self) -> str:
        # A nested composite has one of its own.
        return str(self.value.stage) if self._kind == "composite" else self._stage

    def read(self, **parameters: Any) -> Any:
        return kinds.decode(self.open_node()[0], **parameters) if parameters else self.value

    def open_node(self) -> tuple[Node, None]:
        return kinds.encode(self.value, self._kind), None

    def output(self) -> tuple[Node, str]:
        node, _ = self.open_node()
        # A nested composite brings its own.
        own = node.attr("digest", str, "") or digest(node)
        display = image_attrs(node) if isinstance(node, ArrayNode) and kinds.get(self._kind).is_pixels else {}
        node.attrs = {**node.attrs, **display, "digest": own}
        if self.stage:
            node.attrs["stage"] = self.stage
        return node, own


class StoredPart(Part):
    """A component stored in the file of its composite."""

    state = "stored"

    def __init__(self, node: Node) -> None:
        self.node = node

    @property
    def kind(self) -> str:
        return self.node.attr("kind", str)

    @property
    def stage(self) -> str:
        return self.node.attr("stage", str, "")

    def read(self, **parameters: Any) -> Any:
        return kinds.decode(self.node, **parameters)

    def open_node(self) -> tuple[Node, None]:
        return self.node, None

    def output(self) -> tuple[Node, str]:
        return self.node, self.node.attr("digest", str)


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
    anywhere : bool, optional
        Whether that file may lead to any host.
    """

    state = "linked"

    def __init__(self, link: Link, base: str | None = None, path: str | None = None, *, anywhere: bool = False) -> None:
        self.link, self._base, self._path, self._anywhere = link, base, path, anywhere
        self._value: Any = _UNREAD

    @property
    def kind(self) -> str:
        return self.link.kind

    @property
    def stage(self) -> str:
        return self.link.stage

    def read(self, **parameters: Any) -> Any:
        if self._value is _UNREAD:
            return targets.read(self.link, self._base, self._path, self._anywhere, **parameters)
        kind = kinds.get(self.kind)
        return kind.decode(kind.encode(self._value), **parameters) if parameters else self._value

    def open_node(self) -> tuple[Node, targets.Target | None]:
        if self._value is not _UNREAD:
            return kinds.encode(self._value, self.kind), None
        target = targets.Target(self.link, self._base, self._path, self._anywhere)
        return target.node, target

    @property
    def place(self) -> str:
        """Where the link leads: a path as seen from the file that has it; without one where the target was."""
        if self._base is not None and self._path is not None:
            return links.joined_location(self._base, self._path)
        return self.link.uri

    def output(self) -> tuple[Node, str]:
        return ExternalLink(self.place, self.link.target), self.link.digest

    def loaded(self) -> LinkedPart:
        """Return the same with its value beside the link; without it where the target is lost."""
        try:
            return self.with_value(self.read())
        except BrokenLinkError:
            # Reading it will say so; the other components must not suffer from it.
            return self.with_value(_UNREAD)

    def with_value(self, value: Any) -> LinkedPart:
        """Return the same with its value beside the link."""
        part = LinkedPart(self.link, self._base, self._path, anywhere=self._anywhere)
        part._value = value
        return part
