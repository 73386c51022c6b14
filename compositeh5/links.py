"""Links between composites: the record of what a link must find, and the resolver that finds it.

The id and the digest of a link are the truth; paths are hints. Whatever stands at a path is only used if it says that
it is the object that was meant.
"""

from __future__ import annotations

import os
import posixpath
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from . import kinds
from .container.layout import BY_ID, check_file, composite_group_by_id
from .container.nodes import ArrayNode, ExternalLink, GroupNode, Node
from .container.reader import StoredFile
from .errors import (
    BrokenLinkError,
    CompositeH5Error,
    DigestMismatchError,
    FormatError,
    RefusedError,
    WrongIdError,
)

DataId = Mapping[str, int | str]


@dataclass(frozen=True)
class Link:
    """A reference to one component of a composite that is stored in a file.

    Attributes
    ----------
    id : str
        Id (UUID) of the composite: its dataset id in a Butler.
    component : str
        Name of the component there.
    kind, digest : str
        Kind and digest of the component.
    uri : str
        Where the file was when the link was made: an absolute path, or a URL.
    definition, dataset_type, run, stage : str
        What is known of the composite; empty where it is not.
    data_id : dict
        Data ID of the composite.
    """

    id: str
    component: str
    kind: str
    digest: str
    uri: str
    definition: str = ""
    dataset_type: str = ""
    data_id: dict[str, int | str] = field(default_factory=dict, hash=False)
    run: str = ""
    stage: str = ""

    @property
    def target(self) -> str:
        """HDF5 path of the target: by id, so that another file in its place is never taken for it."""
        return f"/{BY_ID}/{self.id}/{self.component}"

    def record(self) -> dict[str, Any]:
        """Return what is kept of the link in the file of the composite that has it."""
        return {name: value for name, value in asdict(self).items() if value not in ("", {})}

    @classmethod
    def from_record(cls, record: Any, where: str) -> Link:
        """Return the link that a file describes.

        Raises
        ------
        FormatError
            If the record isn't one.
        """
        texts = {"id", "component", "kind", "digest", "uri", "definition", "dataset_type", "run", "stage"}
        needed = {"id", "component", "kind", "digest", "uri"}
        if not isinstance(record, dict) or not needed <= record.keys():
            raise FormatError(f"{where}: the record of a link needs {', '.join(sorted(needed))}, found {record!r}")
        known = {name: value for name, value in record.items() if name in texts}
        data_id = record.get("data_id", {})
        if not all(isinstance(value, str) for value in known.values()) or not isinstance(data_id, dict):
            raise FormatError(f"{where}: the record of a link has values of wrong types: {record!r}")
        return cls(**known, data_id=data_id)

    def read(self, **parameters: Any) -> Any:
        """Return the value of the linked component, or the part that the parameters select.

        Raises
        ------
        BrokenLinkError
            If it is lost.
        """
        return read(self, None, None, **parameters)

    def __str__(self) -> str:
        what = self.dataset_type or self.definition or "composite"
        return f"{what}.{self.component} (id {self.id})"


def relative_location(target: str, start: str) -> str:
    """Return the path of file ``target`` as seen from the folder of file ``start``, both paths or URLs.

    Where there is none (other host, other scheme) it is the target itself.
    """
    to, at = urlsplit(target), urlsplit(start)
    if (to.scheme, to.netloc) != (at.scheme, at.netloc):
        return target
    # A path without scheme is literal, even where it looks like a URL's.
    to_path, at_path = (to.path, at.path) if to.scheme else (target, start)
    return posixpath.relpath(to_path, posixpath.dirname(at_path) or "/")


def absolute_location(location: str | os.PathLike[str]) -> str:
    """Return a path made absolute, a ``file:`` URL as a path, and another URL as it is."""
    text = os.fspath(location)
    parts = urlsplit(text)
    if parts.scheme == "file":
        return unquote(parts.path)
    return text if "://" in text else os.path.abspath(text)


def joined_location(start: str, relative: str) -> str:
    """Return the location of a file that is given as seen from the folder of the file ``start``."""
    if "://" in relative:
        return relative
    parts = urlsplit(start)
    if parts.scheme and "://" in start:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(parts.path), relative))
        return parts._replace(path=path, query="", fragment="").geturl()
    return os.path.normpath(os.path.join(os.path.dirname(start), relative))


class _Cache:
    """Values of linked components, so that what many composites share is decoded once per process."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[tuple[str, str, str], Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, link: Link) -> Any:
        """Return the value of a link, or None."""
        with self._lock:
            key = (link.id, link.component, link.digest)
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, link: Link, value: Any) -> None:
        """Keep a value, and drop the one that was not asked for the longest."""
        with self._lock:
            self._values[link.id, link.component, link.digest] = value
            while len(self._values) > self._size:
                self._values.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._values.clear()


cache = _Cache(256)

CACHED_BYTES = 4 * 1024 * 1024
"""Larger components (pixels) are read anew each time."""


def read(link: Link, base: str | None, path: str | None, **parameters: Any) -> Any:
    """Return the value of a linked component.

    Parameters
    ----------
    link : Link
        What must be found.
    base : str or None
        Original location of the file that has the link.
    path : str or None
        Path of the target as seen from there.
    **parameters
        Of a partial read.

    Raises
    ------
    BrokenLinkError, WrongIdError, DigestMismatchError
        If the component is lost: not found anywhere, replaced by another object, or changed.
    """
    value = cache.get(link)
    kind = kinds.get(link.kind, str(link))
    if value is None:
        with Target(link, base, path) as node:
            if parameters or node_bytes(node) > CACHED_BYTES:
                return kinds.decode(node, **parameters)
            value = kinds.decode(node)
        cache.put(link, value)
    if parameters:
        return kind.decode(kind.encode(value), **parameters)
    return kind.share(value)


class Target:
    """The node at the end of a link, and the file that holds it, open until `close`.

    The places tried are the path as seen from the file that has the link, and the recorded location.
    """

    def __init__(self, link: Link, base: str | None, path: str | None) -> None:
        self.link = link
        failures: list[tuple[str, Exception]] = []
        for place in dict.fromkeys(self._places(base, path)):
            try:
                self.file, self.node = _open_target(link, place)
                return
            except (OSError, CompositeH5Error) as error:
                failures.append((place, error))
        tried = "; ".join(f"{place}: {error}" for place, error in failures) or "no place is known"
        message = f"the linked component {link} with digest {link.digest} is lost. Tried {tried}"
        for kind in (DigestMismatchError, WrongIdError):
            if any(isinstance(error, kind) for _, error in failures):
                raise kind(message)
        raise BrokenLinkError(message)

    def _places(self, base: str | None, path: str | None) -> Iterator[str]:
        if base is not None and path is not None:
            yield joined_location(base, path)
        yield self.link.uri

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def __enter__(self) -> Node:
        return self.node

    def __exit__(self, *exc: object) -> None:
        self.close()


def _open_target(link: Link, place: str) -> tuple[StoredFile, Node]:
    file = StoredFile.open(place)
    try:
        check_file(file)
        group = composite_group_by_id(file, link.id)
        node = group.get(link.component)
        if node is None:
            raise FormatError(f"{group.where}: has no component {link.component!r}")
        if isinstance(node, ExternalLink):
            # Links go to where a component is stored: a chain of them would hide where data come from.
            raise RefusedError(f"{node.where}: is a link itself; links to links aren't followed")
        if node.attr("digest", str) != link.digest:
            raise DigestMismatchError(
                f"{node.where}: its digest is {node.attrs['digest']}, but {link.digest} was recorded by the link"
            )
    except BaseException:
        file.close()
        raise
    return file, node


def node_bytes(node: Node) -> int:
    """Return the size in memory of all arrays of a component."""
    if isinstance(node, ArrayNode):
        return node.nbytes
    return sum(node_bytes(node[name]) for name in node) if isinstance(node, GroupNode) else 0
