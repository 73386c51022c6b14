"""Opening composites that are stored in files."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import IO, Any

from . import links, targets
from .composite import Composite
from .container.layout import (
    check_file,
    composite_group,
    composite_group_by_id,
    composite_ids,
    composite_names,
    is_copy,
)
from .container.nodes import ExternalLink, GroupNode, Node
from .container.reader import StoredFile
from .errors import (
    CompositeH5Error,
    ConflictError,
    CorruptFileError,
    EncodeError,
    FormatError,
    NoSuchComponentError,
    UnsupportedVersionError,
)
from .integrity import read_json
from .links import DataId, checked_data_id
from .parts import MemoryPart, Part, StoredPart, linked_part
from .remote import Uri, open_file, shown
from .writing import KIND_VERSION

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
    StageError
        If its calibrations have not reached the stage.
    """

    def pick(file: StoredFile) -> GroupNode:
        return composite_group(file, name) if id is None else composite_group_by_id(file, id)

    composite = _open(source, location, pick, size, anywhere)
    if stage is None:
        return composite
    try:
        found = composite.require_stage(stage, fallback=fallback)
    except BaseException:
        composite.close()
        raise
    if found is not composite:
        # The file is now that of the other.
        found._file, composite._file = composite._file, None
    return found


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

    return _open(source, location, pick, size)


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


def _open(
    source: Source,
    location: str | os.PathLike[str] | None,
    pick: Callable[[StoredFile], GroupNode],
    size: int | None,
    anywhere: bool = False,
) -> Composite:
    base = None if location is None else links.absolute_location(location)
    if isinstance(source, str | os.PathLike):
        source = links.absolute_location(source)
    if isinstance(source, str) or hasattr(source, "geturl"):
        file = open_file(source, size)
        base = base or shown(source)
    elif not hasattr(source, "readinto"):
        raise TypeError(f"a path, a URL or a binary file object was expected, not {source!r}")
    else:
        file = StoredFile(source, base or getattr(source, "name", None) or "stream")
    try:
        copied = is_copy(file)
        if not copied:
            check_file(file)
        # What is linked from another composite of this file is in it, wherever the file is now.
        targets.opened.update(dict.fromkeys(composite_ids(file), file))
        composite = from_group(pick(file), base, anywhere)
        if copied:
            _check_whole(composite)
    except BaseException:
        file.close()
        raise
    composite._file = file
    return composite


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


def file_info(path: str | os.PathLike[str]) -> FileInfo:
    """Return what a file says of itself, and which composites it holds.

    Raises
    ------
    OSError
        As `open_composite` does.
    """
    file = open_file(links.absolute_location(path))
    try:
        if is_copy(file):
            return FileInfo("", "", composite_names(file))
        check_file(file)
        root = file.root
        return FileInfo(root.attr("compositeh5_format", str), root.attr("creator", str, ""), composite_names(file))
    finally:
        file.close()


def from_group(group: GroupNode, location: str | None, anywhere: bool = False) -> Composite:
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
    return _StoredComposite(group, location, anywhere)


class _StoredComposite(Composite):
    """A composite of a file. What isn't asked for isn't read, so that opening one costs little."""

    def __init__(self, group: GroupNode, location: str | None, anywhere: bool) -> None:
        # The location changes when the composite is written elsewhere; that of the file doesn't.
        self._group, self._base, self._anywhere = group, location, anywhere
        self._set_state(location)

    def __getattr__(self, name: str) -> Any:
        # Called for what is not there yet.
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

    def _part(self, name: str) -> Part:
        if not self._closed and "_parts" not in vars(self) and isinstance(name, str):
            node = self._group.get(name)
            # What a link must find is among the records of all of them.
            if node is not None and not isinstance(node, ExternalLink):
                return StoredPart(node, self._base, anywhere=self._anywhere)
        return super()._part(name)


def _stored_parts(composite: _StoredComposite) -> dict[str, Part]:
    group, location, anywhere = composite._group, composite._base, composite._anywhere
    records = read_json(group, "links", dict)
    parts: dict[str, Part] = {}
    for name in group:
        if name in records:
            child = group[name]
            if not isinstance(child, ExternalLink):
                raise FormatError(f"{group.where}/{name}: is recorded as a link, but is stored here")
            parts[name] = linked_part(child, records[name], location, anywhere=anywhere)
        else:
            parts[name] = _StoredOnDemand(group, name, location, anywhere)
    if missing := records.keys() - parts.keys():
        raise FormatError(f"{group.where}: the links {', '.join(sorted(missing))} are recorded, but missing")
    return parts


_READ: dict[str, Callable[[_StoredComposite], Any]] = {
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
    return from_group(part.node, part.location)


class _StoredOnDemand(StoredPart):
    """A stored component whose node is not opened before it is needed."""

    def __init__(self, group: GroupNode, name: str, location: str | None, anywhere: bool) -> None:
        self._group, self._name, self.location, self._anywhere = group, name, location, anywhere

    @property
    def node(self) -> Node:
        node = self._group[self._name]
        if isinstance(node, ExternalLink):
            raise FormatError(f"{node.where}: is a link, but has no record of what it must find")
        return node


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
