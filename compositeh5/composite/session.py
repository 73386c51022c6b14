"""`Session`: what reading needs beside a file, and keeps between reads.

Those are the files that are open, the values of components that many composites share, how far the links of a file
may be followed, and whoever can tell where the target of a link is now. A process has one session; `Session` makes
others.

A file that is found for a link is only used if it has the id and the digest that the link records.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ..errors import (
    BrokenLinkError,
    CompositeH5Error,
    DigestMismatchError,
    FormatError,
    LinkRefusedError,
    RefusedError,
    WrongIdError,
    require_type,
)
from ..storage.digests import digest
from ..storage.layout import check_file, composite_group_by_id, composite_ids
from ..storage.limits import LIMITS, Limits
from ..storage.nodes import ArrayNode, ExternalLink, GroupNode, Node
from ..storage.reader import OpenFiles, StoredFile
from ..storage.remote import Location, is_url, open_source, public_location
from ..storage.source import identity
from .link import Link
from .places import Resolver, places

CACHED_BYTES = 4 * 1024 * 1024
"""Values of linked components up to this size are kept; larger ones (pixels) are read anew each time."""


class Target(NamedTuple):
    """The end of a link: its file, open until it is closed, the node in it, and where the file was found."""

    file: StoredFile
    node: Node
    place: str

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *exc: object) -> None:
        self.file.close()


class _LinkedValueCache:
    """Values of linked components, so that what many composites share is decoded once per process.

    They must not be changed. Large ones aren't kept, and those that were not asked for the longest are dropped.
    """

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
        """Keep a value that has the digest of a link, and the size of its arrays."""
        if nbytes > CACHED_BYTES:
            return
        with self._lock:
            key = self._key(link)
            self._held += nbytes - self._values.pop(key, (None, 0))[1]
            self._values[key] = value, nbytes
            while len(self._values) > self._size or self._held > self._nbytes:
                self._held -= self._values.popitem(last=False)[1][1]

    @staticmethod
    def _key(link: Link) -> Hashable:
        return link.id, link.component, link.kind, link.digest

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._values.clear()
            self._held = 0


@dataclass(frozen=True, eq=False)
class Session:
    """How files are read, and what is kept of them between reads.

    Functions use the session of the ``with`` block in which they are called (`use`), else that of the process. What a
    session keeps is shared by those that `dataclasses.replace` makes of it. A session that is sent to another process
    has what that process keeps, and no resolver.

    Parameters
    ----------
    anywhere : bool, optional
        Whether links may lead to other hosts, and from local files to the network.
    limits : Limits, optional
        What files may ask for.
    resolver : callable, optional
        Tells for a `Link` where the file of its target is now, by its id, or raises an `OSError`. It is asked last.

    Examples
    --------
    >>> with Session(limits=Limits(read_bytes=2**30)).use():  # doctest: +SKIP
    ...     verify_files("downloads")
    """

    anywhere: bool = False
    limits: Limits = LIMITS
    resolver: Resolver | None = None
    _files: OpenFiles = field(default_factory=OpenFiles, repr=False)
    _values: _LinkedValueCache = field(default_factory=lambda: _LinkedValueCache(256, 16 * CACHED_BYTES), repr=False)

    def __post_init__(self) -> None:
        require_type(self.limits, Limits, "Limits")

    def __reduce__(self) -> Any:
        return _like_current, (self.anywhere, self.limits)

    def with_policy(self, anywhere: bool | None = None, limits: Limits | None = None) -> Session:
        """Return the session, or one that keeps the same files and values, with another policy where that is given.

        Parameters
        ----------
        anywhere, limits
            As for the class; None for those of this session.
        """
        given = {"anywhere": anywhere, "limits": limits}
        given = {name: value for name, value in given.items() if value is not None}
        return replace(self, **given) if given else self  # type: ignore[arg-type]

    @contextmanager
    def use(self) -> Iterator[Session]:
        """Have this thread, and asynchronous tasks that it starts, use the session within a ``with`` block."""
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)

    # ---- Files -----------------------------------------------------------------------------------------------

    def open(self, location: Location, size: int | None = None, digest: str | None = None) -> StoredFile:
        """Open an HDF5 file, or return the one that is open already if it is still the same.

        Parameters
        ----------
        location : str or ResourcePath
            Where it is; a path must be absolute.
        size : int, optional
            Its size if that is known.
        digest : str, optional
            What `storage.source.check_bytes` compares with the bytes of the file before HDF5 sees them.

        Raises
        ------
        OSError
            If it can't be opened: `FileNotFoundError`, `PermissionError`, `NotACompositeFileError`,
            `CorruptFileError`, `RefusedError`; `TransferError` for what is remote.
        DigestMismatchError
            If the bytes of the file have another digest.
        """
        text = location if isinstance(location, str) else location.geturl()
        is_local = isinstance(location, str) and not is_url(location)
        key: Hashable = identity(os.stat(text)) if is_local else text
        return self._files.open(
            key, lambda: open_source(location, size), public_location(location), self.limits, digest
        )

    @contextmanager
    def opened(self, location: Location) -> Iterator[StoredFile]:
        """Open a file of this format within the block; anything else is an error, as for `open`."""
        file = self.open(location)
        try:
            check_file(file)
            yield file
        finally:
            file.close()

    @contextmanager
    def keep_open(self) -> Iterator[None]:
        """Keep the files of some targets of links open within the block: the next composite may link to them, too."""
        with self._files.keep():
            yield

    def clear_cache(self) -> None:
        """Forget the values of linked components."""
        self._values.clear()

    # ---- Links -----------------------------------------------------------------------------------------------

    def find(
        self,
        link: Link,
        start: str | None = None,
        path: str | None = None,
        own: StoredFile | None = None,
    ) -> Target:
        """Return the target of a link; its file is to be closed.

        It is looked for at the places that `compositeh5.composite.places` gives.

        Parameters
        ----------
        link : Link
            What must be found.
        start, path : str, optional
            Original location of the file that has the link, and the path of the target as seen from there.
        own : StoredFile, optional
            The file that has the link, if its other composites may be meant.

        Raises
        ------
        BrokenLinkError, WrongIdError, DigestMismatchError, LinkRefusedError
            If no place has what was meant.
        """
        failures: list[tuple[str, Exception]] = []
        if own is not None and not own.closed and link.id in composite_ids(own) and own.again():
            try:
                return self._checked(own, link, own.name)
            except (OSError, CompositeH5Error) as error:
                failures.append(("same file", error))
        tried: set[Location] = set()
        # A Butler may be told of only when the file is open.
        resolver = self.resolver or current().resolver
        for rule, found in places(link, start, path, self.anywhere, resolver).items():
            try:
                for place in found:
                    # Not by the name that is shown: that of a URL is without its signature.
                    if place in tried:
                        continue
                    tried.add(place)
                    try:
                        return self.target_at(place, link)
                    except (OSError, CompositeH5Error) as error:
                        failures.append((f"{rule}: {public_location(place)}", error))
            except (OSError, CompositeH5Error) as error:
                failures.append((rule, error))
        known = "; ".join(f"{place}: {error}" for place, error in failures) or "no place is known"
        message = f"the linked component {link} with digest {link.digest} is lost. Tried {known}"
        if link.dataset_type and resolver is None:
            message += "; no Butler was asked (compositeh5.butler.use_butler)"
        for kind, cause in _ERROR_BY_FAILURE.items():
            if any(isinstance(error, cause) for _, error in failures):
                raise kind(message)
        raise BrokenLinkError(message)

    def target_at(self, place: Location, link: Link) -> Target:
        """Return the target of a link in the file at a place; the file is to be closed.

        Parameters
        ----------
        place : str or ResourcePath
            Where the file is; a path must be absolute.
        link : Link
            What must be found.

        Raises
        ------
        OSError, CompositeH5Error
            If it isn't there: `WrongIdError` if another composite is, `DigestMismatchError` if it has other content.
        """
        target = self._checked(self.open(place), link, public_location(place))
        self._files.used(target.file)
        return target

    @staticmethod
    def _checked(file: StoredFile, link: Link, place: str) -> Target:
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
            return Target(file, node, place)
        except BaseException:
            file.close()
            raise


_process = Session()
_current: ContextVar[Session | None] = ContextVar("compositeh5_session", default=None)


def current() -> Session:
    """Return the session of the ``with`` block, else that of the process."""
    return _current.get() or _process


def _like_current(anywhere: bool, limits: Limits) -> Session:
    return current().with_policy(anywhere, limits)


_ERROR_BY_FAILURE = {
    DigestMismatchError: DigestMismatchError,
    WrongIdError: WrongIdError,
    LinkRefusedError: RefusedError,
}
"""Which error a link gets that is lost, by what was found at one of the places; others are only broken."""


def check_content(node: Node, link: Link) -> None:
    """Raise `DigestMismatchError` unless a component has the content that a link records, whatever it says itself."""
    if (found := digest(node)) != link.digest:
        raise DigestMismatchError(f"{node.where}: its content has digest {found}, but {link.digest} was recorded")


def node_bytes(node: Node) -> int:
    """Return the size in memory of all arrays of a component."""
    if isinstance(node, ArrayNode):
        return node.nbytes
    return sum(node_bytes(node[name]) for name in node) if isinstance(node, GroupNode) else 0
