"""Composites in files: read piece by piece, when something is asked for."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Any

from .access import ACCESS, Access, access_of
from .composite import Composite
from .container.nodes import ExternalLink, GroupNode, Node
from .errors import ClosedError, CompositeH5Error, EncodeError, FormatError, UnsupportedVersionError
from .integrity import read_json
from .links import checked_data_id
from .parts import MemoryPart, Part, StoredPart, linked_part
from .writing import KIND_VERSION

if TYPE_CHECKING:
    from .opening import Opening


def from_group(group: GroupNode, location: str | None, access: Access = ACCESS) -> Composite:
    """Return the composite that a group holds; its attributes and components are read when asked for.

    Raises
    ------
    FormatError
        If the group isn't a composite.
    UnsupportedVersionError
        If it is one of a newer version.
    """
    if group.attr("kind", str) != "composite":
        raise FormatError(f"{group.where}: its kind is {group.attrs['kind']!r}, not 'composite'")
    if (version := group.attr("kind_version", int)) > KIND_VERSION:
        raise UnsupportedVersionError(
            f"{group.where}: version {version} of composites is newer than version {KIND_VERSION}, "
            f"which this release reads; install a newer release"
        )
    return StoredComposite(group, location, access)


class StoredComposite(Composite):
    """A composite of a file. What isn't asked for isn't read, so that opening one costs little."""

    _group: GroupNode

    def __init__(
        self, group: GroupNode | None, location: str | None, access: Access, opening: Opening | None = None
    ) -> None:
        # The location changes when the composite is written elsewhere; that of the file doesn't.
        self._base, self._access = location, access
        self._set_state(location)
        self._opening = opening
        if group is not None:
            self._group = group
        self._lock = Lock()

    def __getattr__(self, name: str) -> Any:
        # Called for what is not there yet.
        if name == "_group":
            return self._reopened_group()
        if name not in _READ:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        try:
            value = _READ[name](self)
        except (ValueError, TypeError) as error:
            if isinstance(error, CompositeH5Error) and not isinstance(error, EncodeError):
                raise
            raise FormatError(f"{self._group.where}: {error}") from error
        setattr(self, name, value)
        return value

    def _reopened_group(self) -> GroupNode:
        # The first use of a composite that was pickled, maybe by several threads at once.
        with self._lock:
            if "_group" not in vars(self):
                if self._closed or self._opening is None:
                    raise ClosedError(f"{self.location}: was closed before it was used; nothing was read of it")
                self._file, self._group = self._opening.open_group(self._opening.pick)
            return self._group

    def __getstate__(self) -> dict[str, Any]:
        # Only asked for where it can't be opened again: it is a part of another one.
        raise EncodeError(f"{self._group.where}: can't be pickled while it is in an open file: pickle composite.load()")

    def close(self) -> None:
        super().close()
        self._closed = self._closed or self._opening is not None

    def _part(self, name: str) -> Part:
        if not self._closed and "_parts" not in vars(self) and isinstance(name, str):
            node = self._group.get(name)
            if isinstance(node, ExternalLink):
                record = read_json(self._group, "links", dict).get(name)
                return linked_part(node, record, self._base, self._access)
            if node is not None:
                return StoredPart(node, self._base, self._access)
        return super()._part(name)


def _stored_parts(composite: StoredComposite) -> dict[str, Part]:
    group, location, access = composite._group, composite._base, composite._access
    records = read_json(group, "links", dict)
    parts: dict[str, Part] = {}
    for name in group:
        if name in records:
            child = group[name]
            if not isinstance(child, ExternalLink):
                raise FormatError(f"{group.where}/{name}: is recorded as a link, but is stored here")
            parts[name] = linked_part(child, records[name], location, access)
        else:
            parts[name] = _StoredOnDemand(group, name, location, access)
    if missing := records.keys() - parts.keys():
        raise FormatError(f"{group.where}: the links {', '.join(sorted(missing))} are recorded, but missing")
    return parts


_READ: dict[str, Callable[[StoredComposite], Any]] = {
    "definition": lambda c: c._group.attr("definition", str),
    "definition_version": lambda c: c._group.attr("definition_version", int),
    "data_id": lambda c: checked_data_id(read_json(c._group, "data_id", dict)),
    "dataset_type": lambda c: c._group.attr("dataset_type", str, ""),
    "run": lambda c: c._group.attr("run", str, ""),
    "stage": lambda c: c._group.attr("stage", str, ""),
    "id": lambda c: str(uuid.UUID(c._group.attr("id", str))),
    "provenance": lambda c: read_json(c._group, "provenance", dict),
    "recorded_digest": lambda c: c._group.attr("digest", str),
    "_absent": lambda c: [str(name) for name in read_json(c._group, "absent", list)],
    "_signal": lambda c: c._group.attr("signal", str, ""),
    "_parts": _stored_parts,
}
"""How each attribute of a composite is read from its group."""


def nested_composite(part: Part) -> Composite:
    """Return the composite that a component of kind ``composite`` is; nothing of a stored one is read.

    Raises
    ------
    FormatError
        If what is stored isn't a composite.
    """
    if isinstance(part, MemoryPart):
        return part.value  # type: ignore[no-any-return]
    if not isinstance(part, StoredPart):
        raise FormatError("a composite in a composite should be stored with it, not linked")
    if not isinstance(part.node, GroupNode):
        raise FormatError(f"{part.node.where}: a composite should be a group")
    return from_group(part.node, part.location, access_of(part.node))


class _StoredOnDemand(StoredPart):
    """A stored component whose node is not opened before it is needed."""

    def __init__(self, group: GroupNode, name: str, location: str | None, access: Access) -> None:
        self._group, self._name, self.location, self._access = group, name, location, access

    @property
    def node(self) -> Node:
        node = self._group[self._name]
        if isinstance(node, ExternalLink):
            raise FormatError(f"{node.where}: is a link, but has no record of what it must find")
        return node
