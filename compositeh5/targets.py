"""The targets of links: found by rules, checked, read, and kept if they are small.

Whatever stands at a place is only used if it says that it is the object that was meant. `RULES` are the ways to
find places.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from weakref import WeakValueDictionary

from . import kinds
from .access import ACCESS, Access
from .artifact_index import INDEX, INDEX_BYTES, MAP, files_of
from .container.layout import check_file, composite_group_by_id, composite_ids
from .container.nodes import ArrayNode, ExternalLink, GroupNode, Node
from .container.reader import StoredFile
from .errors import (
    BrokenLinkError,
    ClosedError,
    CompositeH5Error,
    DigestMismatchError,
    FormatError,
    LinkRefusedError,
    RefusedError,
    WrongIdError,
)
from .links import Link, joined_location, split_location
from .remote import Location, member_location, open_file, read_all, read_member, shown, split_member


class _Cache:
    """Values of linked components, so that what many composites share is decoded once per process."""

    def __init__(self, size: int, nbytes: int) -> None:
        self._size, self._nbytes = size, nbytes
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()

    def get(self, link: Link) -> Any:
        """Return the value of a link, or None."""
        with self._lock:
            key = self._key(link)
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key, (None, 0))[0]

    def put(self, link: Link, value: Any, nbytes: int) -> None:
        """Keep a value of some size, and drop those that were not asked for the longest."""
        with self._lock:
            key = self._key(link)
            self._held += nbytes - self._values.pop(key, (None, 0))[1]
            self._values[key] = value, nbytes
            while len(self._values) > self._size or self._held > self._nbytes:
                self._held -= self._values.popitem(last=False)[1][1]

    @staticmethod
    def _key(link: Link) -> Hashable:
        return link.id, link.component, link.digest

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._values.clear()
            self._held = 0


CACHED_BYTES = 4 * 1024 * 1024
"""Larger components (pixels) are read anew each time."""

cache = _Cache(256, 16 * CACHED_BYTES)


def read(link: Link, base: str | None, path: str | None, access: Access = ACCESS, /, **parameters: Any) -> Any:
    """Return the value of a linked component.

    Parameters
    ----------
    link : Link
        What must be found.
    base : str or None
        Original location of the file that has the link.
    path : str or None
        Path of the target as seen from there.
    access : Access, optional
        How files are read, and whether this one may lead to any host; see `Search`.
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
        with Target(link, base, path, access) as node:
            nbytes = node_bytes(node)
            if parameters or nbytes > CACHED_BYTES:
                return kinds.decode(node, **parameters)
            value = kinds.decode(node)
        cache.put(link, value, nbytes)
    if parameters:
        return kind.decode(kind.encode(value), **parameters)
    return kind.share(value)


_CAUSES = {DigestMismatchError: DigestMismatchError, WrongIdError: WrongIdError, LinkRefusedError: RefusedError}
"""Which error a link gets that is lost, by what was found at one of the places; others are only broken."""


class Target:
    """The node at the end of a link, and the file that holds it, open until `close`.

    The places are those that `RULES` give, in their order.

    Parameters
    ----------
    link, base, path, access
        As for `Search`.
    stored : bool, optional
        Whether only what is stored at a place counts, not a file that happens to be open.

    Raises
    ------
    BrokenLinkError, WrongIdError, DigestMismatchError, LinkRefusedError
        If no place has what was meant.
    """

    place: str
    """Where it was found."""

    def __init__(
        self, link: Link, base: str | None, path: str | None, access: Access = ACCESS, *, stored: bool = False
    ) -> None:
        self.link, self.access = link, access
        search = Search(link, base, path, access)
        failures: list[tuple[str, Exception]] = []
        tried: set[Place] = set()
        for rule, places in RULES.items():
            if stored and places is _already_open:
                continue
            try:
                for place in places(search):
                    name = place.name if isinstance(place, StoredFile) else shown(place)
                    # Not by name: that of a URL is without its signature.
                    if place in tried:
                        continue
                    tried.add(place)
                    try:
                        self.file, self.node = open_target(link, place, access)
                        self.place = name
                        return
                    except (OSError, CompositeH5Error) as error:
                        failures.append((f"{rule}: {name}", error))
            except (OSError, CompositeH5Error) as error:
                failures.append((rule, error))
        known = "; ".join(f"{place}: {error}" for place, error in failures) or "no place is known"
        message = f"the linked component {link} with digest {link.digest} is lost. Tried {known}"
        if link.dataset_type and resolver.get() is None:
            message += "; no Butler was asked (compositeh5.butler.use_butler)"
        for kind, cause in _CAUSES.items():
            if any(isinstance(error, cause) for _, error in failures):
                raise kind(message)
        raise BrokenLinkError(message)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def __enter__(self) -> Node:
        return self.node

    def __exit__(self, *exc: object) -> None:
        self.close()


# ---- Where the target of a link may be ----------------------------------------------------------------------

Place = Location | StoredFile
"""A location as `remote.open_file` takes it, or a file that is open."""


class _OpenComposites:
    """The files in which composites are open, by the ids of these."""

    def __init__(self) -> None:
        self._files: WeakValueDictionary[str, StoredFile] = WeakValueDictionary()
        self._not_listed: WeakValueDictionary[int, StoredFile] = WeakValueDictionary()

    def add(self, file: StoredFile) -> None:
        """Add a file. Which composites it has is looked at when a link is followed: many files are read without."""
        self._not_listed[id(file)] = file

    def get(self, id_: str) -> StoredFile | None:
        """Return the file that has the composite with an id and was added last, or None."""
        for reference in self._not_listed.valuerefs():
            file = reference()
            if file is not None:
                # What is closed, or damaged, has nothing for others.
                with suppress(OSError, CompositeH5Error):
                    self._files.update(dict.fromkeys(composite_ids(file), file))
                self._not_listed.pop(id(file), None)
        return self._files.get(id_)


opened = _OpenComposites()

KEPT_OPEN = 8
"""So many files a `KeepOpen` keeps."""


class KeepOpen:
    """Keeps the files of targets open after use, for the next composite may link to the same ones.

    It does so for targets that are opened within ``with``, until `close`.
    """

    def __init__(self) -> None:
        self._files: OrderedDict[str, StoredFile] = OrderedDict()

    def add(self, id: str, file: StoredFile) -> None:
        """Keep the file that holds the composite with an id; drop the one that was not asked for the longest."""
        if id in self._files or not file.again():
            return
        self._files[id] = file
        opened.add(file)
        while len(self._files) > KEPT_OPEN:
            self._files.popitem(last=False)[1].close()

    def close(self) -> None:
        """Close the files."""
        while self._files:
            self._files.popitem()[1].close()

    def __enter__(self) -> None:
        self._token = _keeper.set(self)

    def __exit__(self, *exc: object) -> None:
        _keeper.reset(self._token)


_keeper: ContextVar[KeepOpen | None] = ContextVar("compositeh5_keep_open", default=None)

resolver: ContextVar[Callable[[Link], Place] | None] = ContextVar("compositeh5_resolver", default=None)
"""Tells where the target of a link is now, by its id, or raises an `OSError`; None where nobody can be asked."""

INDEX_LEVELS = 16
"""So many folders above a file may have the index, or map, that lists it."""


@dataclass(frozen=True)
class Search:
    """What is known of where a target may be.

    Attributes
    ----------
    link : Link
        What must be found.
    base, path : str or None
        Original location of the file that has the link, and the path of the target as seen from there.
    access : Access
        How files are read, and whether what the file says may lead to other hosts.
    """

    link: Link
    base: str | None
    path: str | None
    access: Access

    def permitted(self, place: str) -> str:
        """Return a place that a file names, if it may be followed.

        What a file says is a hint from a stranger: it must not make the reader talk to hosts of its choice.

        Raises
        ------
        RefusedError
            If it leads from a local file to the network, or to another host or scheme.
        FileNotFoundError
            If it isn't a place at all.
        """
        in_memory = self.base is None and self.path is None
        split_location(place)
        if self.access.anywhere or in_memory or _host(place) == _host(self.base or ""):
            return place
        raise RefusedError(
            f"{shown(place)}: isn't on the host of {self.base or 'the file that has the link'}, so it isn't followed "
            f"(compositeh5.open(..., anywhere=True) does)"
        )


def _already_open(search: Search) -> Iterator[Place]:
    file = opened.get(search.link.id)
    if file is not None and not file.closed and file.limits == search.access.limits:
        yield file


def _same_zip(search: Search) -> Iterator[Place]:
    outer, member = split_member(search.base or "")
    if member is not None:
        index = read_member(outer, INDEX, INDEX_BYTES)
        for name in files_of(index, member_location(outer, INDEX), search.link.id, search.link.component):
            yield member_location(outer, name)


def _relative_path(search: Search) -> Iterator[Place]:
    # Inside a zip file, the path is still that between the places from which the members came.
    if search.base is not None and search.path is not None and split_member(search.base)[1] is None:
        yield search.permitted(joined_location(search.base, search.path))


def _artifact_index(search: Search) -> Iterator[Place]:
    if search.base is None:
        return
    base, _ = split_member(search.base)
    places = (
        joined_location(base, "../" * level + name)
        for level in range(INDEX_LEVELS)
        for name in (INDEX, MAP)
        # In an object store each look costs a request: the Butler's index is only looked for beside the file.
        if name == MAP or level == 0 or "://" not in base
    )
    for index in dict.fromkeys(places):
        try:
            content = read_all(index, INDEX_BYTES)
        except FileNotFoundError:
            continue
        below = not index.endswith(MAP)
        for path in files_of(content, index, search.link.id, search.link.component, below=below):
            place = joined_location(index, quote(path) if "://" in index else path)
            split_location(place)
            yield place


def _recorded_location(search: Search) -> Iterator[Place]:
    if search.link.uri:
        yield search.permitted(search.link.uri)


def _resolver(search: Search) -> Iterator[Place]:
    ask = resolver.get()
    if ask is not None:
        yield ask(search.link)


RULES: dict[str, Callable[[Search], Iterator[Place]]] = {
    "already open": _already_open,
    "same zip file": _same_zip,
    "relative path": _relative_path,
    "artifact index": _artifact_index,
    "recorded location": _recorded_location,
    "resolver": _resolver,
}
"""The rules that give places, in the order in which they are tried."""


def _host(location: str) -> tuple[str, str]:
    if "://" not in location:
        return "", ""
    parts = split_location(location)
    return parts.scheme, parts.netloc


def open_target(link: Link, place: Place, access: Access = ACCESS) -> tuple[StoredFile, Node]:
    """Open the file at a place, and return it with the node that a link means.

    Raises
    ------
    OSError, CompositeH5Error
        If it isn't there: `WrongIdError` if another composite is, `DigestMismatchError` if it has other content.
    """
    if not isinstance(place, StoredFile):
        file = open_file(place, access=access)
    elif place.again():
        file = place
    else:
        raise ClosedError(f"{place.name}: was closed meanwhile")
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
    if (keeper := _keeper.get()) is not None:
        keeper.add(link.id, file)
    return file, node


def node_bytes(node: Node) -> int:
    """Return the size in memory of all arrays of a component."""
    if isinstance(node, ArrayNode):
        return node.nbytes
    return sum(node_bytes(node[name]) for name in node) if isinstance(node, GroupNode) else 0
