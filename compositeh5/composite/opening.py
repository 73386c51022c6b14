"""Opening composites that are stored in files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import IO

from ..errors import (
    ConfigurationError,
    CorruptFileError,
    DigestMismatchError,
    FormatError,
    NoSuchComponentError,
    UnsupportedVersionError,
    WrongTypeError,
    checked_names,
    require_type,
)
from ..storage.digests import composite_digest, read_json
from ..storage.layout import check_file, composite_group, composite_group_by_id, composite_ids, composite_names, is_copy
from ..storage.limits import Limits
from ..storage.locations import absolute_location
from ..storage.nodes import GroupNode
from ..storage.reader import StoredFile
from ..storage.remote import Uri, public_location
from .composite import Composite, OpenGroup
from .encoding import KIND_VERSION
from .link import DataId
from .session import Session, current

Source = str | os.PathLike[str] | IO[bytes] | Uri

SelectGroup = Callable[[StoredFile], GroupNode]
"""Returns the group of the composite that is wanted of a file."""

StageRequirement = tuple[str, tuple[str, ...]] | None
"""The processing stage that is required, and those that are accepted instead."""


def open_composite(
    source: Source,
    name: str | None = None,
    *,
    id: str | None = None,
    location: str | os.PathLike[str] | None = None,
    size: int | None = None,
    anywhere: bool | None = None,
    stage: str | None = None,
    fallback: str | Iterable[str] = (),
    limits: Limits | None = None,
    digest: str | None = None,
) -> Composite:
    """Open a composite for reading.

    Nothing is read of its attributes and components until they are asked for; later than `Composite.close` they can't
    be.

    Parameters
    ----------
    source : path, URL or binary file object
        The file; also a member of a zip file (``<path or URL>#zip-path=<member>``), and an
        ``lsst.resources.ResourcePath``. URLs need the extra ``remote``.
    name : str, optional
        Name of the composite, for a file that holds several.
    id : str, optional
        Id of the composite, instead of its name.
    location : path or URL, optional
        Where the file really is, if ``source`` is a copy or a stream of it: links are relative to this.
    size : int, optional
        Size of a remote file if it is known.
    anywhere : bool, optional
        Whether links may lead anywhere; by default what the session says. Files may come from strangers, so their links
        are otherwise only followed on the host of the file, by the same scheme; from a local file to local files.
    stage, fallback : str, optional
        The processing stage that its calibrations must have reached, and stages to be accepted instead; see
        `Composite.require_stage`.
    limits : Limits, optional
        What the file, and those to which it links, may ask for.
    digest : str, optional
        ``"sha256:"`` and the SHA-256 of all bytes of the file (what ``sha256sum`` prints), where it is known from
        elsewhere. It is checked before HDF5 sees the file, which is read once more for that.

    Returns
    -------
    Composite
        To be closed, best by ``with``.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        If the file can't be opened.
    NotACompositeFileError, UnsupportedVersionError, CorruptFileError, RefusedError, FormatError
        If it isn't one that this release reads.
    WrongIdError, NoSuchComponentError
        If it doesn't hold the composite that was asked for.
    DigestMismatchError
        If the file doesn't have the digest.
    StageError
        If its calibrations have not reached the stage.

    Notes
    -----
    A composite that was opened from a path or a URL can be pickled: as where it is, its id and its digest, and with all
    that was passed here. The copy opens the file when it is first used, and refuses it with `DigestMismatchError` or
    `WrongIdError` if it is another by then.
    """
    for text, expected in ((name, "the name of a composite"), (id, "an id, as text,"), (stage, "the name of a stage")):
        require_type(text, (str, type(None)), expected)

    if digest is not None and not (isinstance(digest, str) and re.fullmatch(r"sha256:[0-9a-fA-F]{64}", digest)):
        raise ConfigurationError(f"the digest of a file is 'sha256:' and 64 hexadecimal digits, not {digest!r}")

    def pick(file: StoredFile) -> GroupNode:
        return composite_group(file, name) if id is None else composite_group_by_id(file, id)

    session = current().with_policy(anywhere, limits)
    required = None if stage is None else (stage, checked_names(fallback, "the name of a stage"))
    return _opened(source, location, size, session, digest, pick, required)


def open_dataset(
    source: Source,
    id: str,
    data_id: DataId,
    *,
    location: str | os.PathLike[str] | None = None,
    size: int | None = None,
) -> Composite:
    """Open the composite of a dataset, in a file that may hold those of several.

    It is the composite with this id; else the only one of the file; else the one with this data ID (required keys), or
    if there is none, the only one that has more keys than it.

    Raises
    ------
    NoSuchComponentError
        If no composite, or more than one, has the data ID.
    CompositeH5Error, OSError
        As `open_composite` does.
    """
    require_type(id, str, "an id, as text,")

    def pick(file: StoredFile) -> GroupNode:
        names = composite_names(file)
        if id in composite_ids(file):
            return composite_group_by_id(file, id)
        if len(names) == 1:
            return composite_group(file, names[0])
        return _group_by_data_id(file, names, data_id)

    return _opened(source, location, size, current(), None, pick, None)


def _group_by_data_id(file: StoredFile, names: tuple[str, ...], data_id: DataId) -> GroupNode:
    groups = {name: composite_group(file, name) for name in names}
    found = {name: read_json(group, "data_id", dict) for name, group in groups.items()}
    agree = [name for name, own in found.items() if data_id.items() <= own.items()]
    matching = [name for name in agree if len(found[name]) == len(data_id)] or agree
    if len(matching) != 1:
        held = ", ".join(f"{name} {own}" for name, own in found.items())
        raise NoSuchComponentError(
            f"{file.name}: {len(matching) or 'no'} composites have the data ID {dict(data_id)}; it holds {held}"
        )
    return groups[matching[0]]


def stored_composite(
    group: GroupNode, location: str | None, session: Session | None = None, file: StoredFile | None = None
) -> Composite:
    """Return the composite that a group holds; its attributes and components are read when asked for.

    The location is where its file is, as links see it; the session is how these are followed; the file is closed with
    the composite.

    Raises
    ------
    FormatError, UnsupportedVersionError
        If the group isn't a composite, or is one of a newer version.
    """
    if group.attr("kind", str) != "composite":
        raise FormatError(f"{group.where}: its kind is {group.attrs['kind']!r}, not 'composite'")
    if (version := group.attr("kind_version", int)) > KIND_VERSION:
        raise UnsupportedVersionError(
            f"{group.where}: version {version} of composites is newer than version {KIND_VERSION}, "
            f"which this release reads; install a newer release"
        )
    composite = _new(location, session)
    composite._group, composite._file, composite._in_memory = group, file, False
    return composite


def _new(location: str | None, session: Session | None, open_group: OpenGroup | None = None) -> Composite:
    """Return a composite whose file is opened when something is asked for."""
    composite = Composite.__new__(Composite)
    composite._set_state(location, session, open_group)
    return composite


def _opened(
    source: Source,
    location: str | os.PathLike[str] | None,
    size: int | None,
    session: Session,
    digest: str | None,
    pick: SelectGroup,
    required: StageRequirement,
) -> Composite:
    """Open a composite, and have it know how it can be opened again."""
    if isinstance(source, str | os.PathLike):
        source = absolute_location(source)
    can_reopen = isinstance(source, str) or hasattr(source, "geturl")
    start = public_location(source) if can_reopen else None  # type: ignore[arg-type]
    if location is not None:
        start = absolute_location(location)
    open_group = partial(_open_group, source, start, size, session, digest)
    file, group = open_group(pick)
    try:
        composite = stored_composite(group, start, session, file)
        if can_reopen:
            composite._reopen = partial(_reopened, open_group, start, session, required)
        return _with_required_stage(composite, required)
    except BaseException:
        file.close()
        raise


def _open_group(
    source: Source, start: str | None, size: int | None, session: Session, digest: str | None, pick: SelectGroup
) -> tuple[StoredFile, GroupNode]:
    """Open a file, and return it with the group of a composite in it."""
    if isinstance(source, str) or hasattr(source, "geturl"):
        file = session.open(source, size, digest)  # type: ignore[arg-type]
    elif hasattr(source, "readinto"):
        file = StoredFile(source, str(start or getattr(source, "name", None) or "stream"), session.limits, digest)
    else:
        raise WrongTypeError(f"a path, a URL or a binary file object was expected, not {source!r}")
    try:
        if not (copied := is_copy(file)):
            check_file(file)
        group = pick(file)
        # The root of a file into which a composite was copied doesn't vouch that all of it is there.
        if copied and (found := composite_digest(group)) != (recorded := group.attr("digest", str)):
            raise CorruptFileError(
                f"{group.where}: the composite was copied into this file, but not all of it: its attributes and "
                f"components give the digest {found}, but {recorded} was recorded"
            )
        return file, group
    except BaseException:
        file.close()
        raise


def _reopened(
    open_group: Callable[[SelectGroup], tuple[StoredFile, GroupNode]],
    start: str | None,
    session: Session,
    required: StageRequirement,
    id_: str,
    digest: str,
) -> Composite:
    """Return a composite that was opened elsewhere; the file is opened when it is first used."""
    composite = _new(start, session, partial(open_group, partial(_unchanged_group, id_, digest)))
    composite._reopen = partial(_reopened, open_group, start, session, required)
    return _with_required_stage(composite, required)


def _unchanged_group(id_: str, digest: str, file: StoredFile) -> GroupNode:
    """Return the group of a composite that must be as it was."""
    group = composite_group_by_id(file, id_)
    if (found := group.attr("digest", str)) != digest:
        raise DigestMismatchError(f"{group.where}: has changed: its digest was {digest}, and now is {found}")
    return group


def _with_required_stage(composite: Composite, required: StageRequirement) -> Composite:
    """Return the composite with calibrations of a stage, or of one that is accepted instead; it has the file."""
    if required is None:
        return composite
    found = composite.require_stage(required[0], fallback=required[1])
    if found is not composite:
        found._reopen, found._reopened_by = composite._reopen, (composite.id, composite.recorded_digest)
        found._file, composite._file = composite._file, None
    return found


@dataclass(frozen=True)
class FileInfo:
    """What a file says of itself.

    Attributes
    ----------
    format, creator : str
        Version of the format; the program that wrote it. Empty for a file of others into which composites were copied.
    composites : tuple of str
        Names of the composites it holds; the first argument after the path of `open_composite`.
    """

    format: str
    creator: str
    composites: tuple[str, ...]


def file_info(path: str | os.PathLike[str], *, limits: Limits | None = None) -> FileInfo:
    """Return what a file says of itself, and which composites it holds.

    It may ask for what the limits allow, and be what `open_composite` opens; errors are the same.
    """
    file = current().with_policy(limits=limits).open(absolute_location(path))
    try:
        if is_copy(file):
            return FileInfo("", "", composite_names(file))
        check_file(file)
        root = file.root
        return FileInfo(root.attr("compositeh5_format", str), root.attr("creator", str, ""), composite_names(file))
    finally:
        file.close()
