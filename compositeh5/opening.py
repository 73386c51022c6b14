"""Opening composites that are stored in files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import IO

from . import links, targets
from .access import ACCESS, Access
from .composite import Composite
from .container.layout import (
    check_file,
    composite_group,
    composite_group_by_id,
    composite_ids,
    composite_names,
    is_copy,
)
from .container.limits import LIMITS, Limits
from .container.nodes import GroupNode
from .container.reader import StoredFile
from .errors import (
    CompositeH5Error,
    ConfigurationError,
    ConflictError,
    CorruptFileError,
    DigestMismatchError,
    EncodeError,
    NoSuchComponentError,
    WrongTypeError,
    checked_names,
    require_type,
)
from .integrity import read_json
from .links import DataId
from .remote import Uri, open_file, shown
from .stored import StoredComposite, from_group

Source = str | os.PathLike[str] | IO[bytes] | Uri


def open_composite(
    source: Source,
    name: str | None = None,
    *,
    id: str | None = None,
    location: str | os.PathLike[str] | None = None,
    size: int | None = None,
    anywhere: bool = False,
    stage: str | None = None,
    fallback: str | Iterable[str] = (),
    limits: Limits = LIMITS,
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
        Whether links may lead anywhere. Files may come from strangers, so their links are otherwise only
        followed on the host of the file, by the same scheme; from a local file to local files.
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

    opening = Opening(
        links.absolute_location(source) if isinstance(source, str | os.PathLike) else source,
        location=None if location is None else links.absolute_location(location),
        size=size,
        access=Access(anywhere, limits),
        file_digest=digest,
        stage=stage,
        fallback=checked_names(fallback, "the name of a stage"),
    )
    return opening.open(pick)


def open_dataset(
    source: Source,
    id: str,
    data_id: DataId,
    *,
    location: str | os.PathLike[str] | None = None,
    size: int | None = None,
) -> Composite:
    """Open the composite of a dataset, in a file that may hold those of several.

    It is the composite with this id; else the only one of the file; else the one with this data ID, or if there is
    none, the only one that has more keys than it.

    Parameters
    ----------
    source, location, size
        As for `open_composite`.
    id : str
        Id (UUID) of the dataset.
    data_id : mapping
        Data ID of the dataset: its required keys.

    Raises
    ------
    NoSuchComponentError
        If no composite, or more than one, has the data ID.
    CompositeH5Error, OSError
        As `open_composite` does.
    """

    def pick(file: StoredFile) -> GroupNode:
        names = composite_names(file)
        if id in composite_ids(file):
            return composite_group_by_id(file, id)
        if len(names) == 1:
            return composite_group(file, names[0])
        return _group_by_data_id(file, names, data_id)

    opening = Opening(
        links.absolute_location(source) if isinstance(source, str | os.PathLike) else source,
        location=None if location is None else links.absolute_location(location),
        size=size,
    )
    return opening.open(pick)


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


Pick = Callable[[StoredFile], GroupNode]
"""Returns the group of the composite that is wanted of a file."""


@dataclass(frozen=True)
class Opening:
    """How a composite is opened, and once it is pickled, what must be found there.

    Attributes
    ----------
    source : path, URL or binary file object
        The file; a path is absolute.
    location, size, access, file_digest, stage, fallback
        As for `open_composite`; absolute, too.
    id, digest : str
        Id and digest of the composite; empty while it may be any.
    """

    source: Source
    location: str | None = None
    size: int | None = None
    access: Access = ACCESS
    file_digest: str | None = None
    stage: str | None = None
    fallback: tuple[str, ...] = ()
    id: str = ""
    digest: str = ""

    @property
    def base(self) -> str | None:
        """Where the file is, as links see it."""
        has_place = isinstance(self.source, str) or hasattr(self.source, "geturl")
        return self.location or (shown(self.source) if has_place else None)  # type: ignore[arg-type]

    def open_group(self, pick: Pick) -> tuple[StoredFile, GroupNode]:
        """Open the file, and return it with the group of the composite."""
        file = self._open_file()
        try:
            copied = is_copy(file)
            if not copied:
                check_file(file)
            # What is linked from another composite of this file is in it, wherever the file is now.
            targets.opened.add(file)
            group = pick(file)
            if copied:
                _check_whole(from_group(group, self.base, self.access))
            return file, group
        except BaseException:
            file.close()
            raise

    def _open_file(self) -> StoredFile:
        if isinstance(self.source, str) or hasattr(self.source, "geturl"):
            return open_file(self.source, self.size, self.access, self.file_digest)  # type: ignore[arg-type]
        if not hasattr(self.source, "readinto"):
            raise WrongTypeError(f"a path, a URL or a binary file object was expected, not {self.source!r}")
        name = self.base or getattr(self.source, "name", None) or "stream"
        return StoredFile(self.source, str(name), self.access.limits, self.file_digest)

    def open(self, pick: Pick) -> Composite:
        """Open the composite; see `open_composite`."""
        file, group = self.open_group(pick)
        try:
            composite = from_group(group, self.base, self.access)
        except BaseException:
            file.close()
            raise
        composite._file = file
        composite._opening = self
        if self.stage is None:
            return composite
        try:
            found = composite.require_stage(self.stage, fallback=self.fallback)
            if found is not composite:
                found._opening = self.of(composite)
        except BaseException:
            composite.close()
            raise
        if found is not composite:
            # The file is now that of the other.
            found._file, composite._file = composite._file, None
        return found

    def of(self, composite: Composite) -> Opening:
        """Return the same for this composite alone.

        Raises
        ------
        EncodeError
            If it was opened from a file object, which others can't open.
        """
        if not (isinstance(self.source, str) or hasattr(self.source, "geturl")):
            raise EncodeError(
                f"{composite!r} was opened from a file object, so it can't be pickled: open it by its path or "
                f"URL, or pickle composite.load()"
            )
        return self if self.id else replace(self, id=composite.id, digest=composite.recorded_digest)

    def pick(self, file: StoredFile) -> GroupNode:
        """Return the group of the composite that was pickled.

        Raises
        ------
        WrongIdError, DigestMismatchError
            If the file has another one now.
        """
        group = composite_group_by_id(file, self.id)
        if (found := group.attr("digest", str)) != self.digest:
            raise DigestMismatchError(f"{group.where}: has changed: its digest was {self.digest}, and now is {found}")
        return group

    def reopened(self) -> Composite:
        """Return the composite that was pickled; the file is opened when it is first used."""
        return StoredComposite(None, self.base, self.access, self) if self.stage is None else self.open(self.pick)


def _check_whole(composite: Composite) -> None:
    """Raise `CorruptFileError` unless a composite has all its parts: the root of its file doesn't vouch for that."""
    if composite.digest != composite.recorded_digest:
        raise CorruptFileError(
            f"{composite.location}: the composite was copied into this file, but not all of it: its attributes and "
            f"components give the digest {composite.digest}, but {composite.recorded_digest} was recorded"
        )


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


def file_info(path: str | os.PathLike[str], *, limits: Limits = LIMITS) -> FileInfo:
    """Return what a file says of itself, and which composites it holds.

    Parameters
    ----------
    path : path or URL
        The file.
    limits : Limits, optional
        What it may ask for, as for `open_composite`.

    Raises
    ------
    OSError
        As `open_composite` does.
    """
    file = open_file(links.absolute_location(path), access=Access(limits=limits))
    try:
        if is_copy(file):
            return FileInfo("", "", composite_names(file))
        check_file(file)
        root = file.root
        return FileInfo(root.attr("compositeh5_format", str), root.attr("creator", str, ""), composite_names(file))
    finally:
        file.close()


def require_same(composite: Composite, location: str, error: FileExistsError, name: str | None = None) -> None:
    """Raise `ConflictError` unless the file at ``location`` holds an equal composite with the same id."""
    try:
        with open_composite(location, name) as other:
            digest = composite.digest
            if other.id == composite.id and other.digest == digest:
                return
            found = f"the composite {other.id} ({other!r})"
    except (OSError, CompositeH5Error) as problem:
        found = f"something else ({problem})"
    raise ConflictError(
        f"{location}: holds {found}, so {composite.id} was not written; choose another path, or pass replace=True"
    ) from error
