"""Links between composites: the record of what a link must find, and locations relative to each other.

The id and the digest of a link are the truth; paths are hints. `targets` finds what a link leads to.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from .container.layout import BY_ID
from .errors import EncodeError, FormatError, require_type

DataId = Mapping[str, int | str]

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
"""A path, or several."""


def checked_data_id(data_id: Mapping[str, Any]) -> dict[str, int | str]:
    """Return a data ID with plain numbers and text, in order of its keys; anything else is an `EncodeError`."""
    require_type(data_id, Mapping, "a data ID, a mapping of names to numbers and text,")
    checked: dict[str, int | str] = {}
    for key, value in sorted(data_id.items()):
        # numpy's integers are common here; JSON has no place for them.
        plain = value.item() if hasattr(value, "item") else value
        if not isinstance(key, str) or not isinstance(plain, int | str) or isinstance(plain, bool):
            raise EncodeError(f"a data ID holds numbers or text by name, not {key!r}: {value!r}")
        checked[key] = plain
    return checked


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

        Parameters
        ----------
        record : object
            What JSON gave.
        where : str
            File and path, for messages.

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

    def __str__(self) -> str:
        what = self.dataset_type or self.definition or "composite"
        return f"{what}.{self.component} (id {self.id})"


def relative_location(target: str, start: str) -> str:
    """Return the path of file ``target`` as seen from the folder of file ``start``, both paths or URLs.

    Where there is none (other host, other scheme) it is the target itself.
    """
    to, at = split_location(target), split_location(start)
    if (to.scheme, to.netloc) != (at.scheme, at.netloc):
        return target
    # A path without scheme is literal, even where it looks like a URL's.
    to_path, at_path = (to.path, at.path) if to.scheme else (target, start)
    return posixpath.relpath(to_path or "/", posixpath.dirname(at_path) or "/")


def split_location(location: str) -> SplitResult:
    """Return the parts of a path or URL.

    Raises
    ------
    FileNotFoundError
        If it can't be either: there is nothing at such a place.
    """
    try:
        # File names of other encodings have surrogates.
        os.fsencode(location)
        if "\0" in location:
            raise ValueError("it has a null character")
        return urlsplit(location)
    except ValueError as error:
        raise FileNotFoundError(f"{location!r} is neither a path nor a URL: {error}") from error


def checked_path(path: str | os.PathLike[str], expected: str = "a path") -> str:
    """Return a path as text.

    Raises
    ------
    WrongTypeError
        If it isn't text, or a path: numbers would be taken for descriptors of open files.
    """
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    require_type(text, str, expected)
    return text


def checked_paths(paths: Paths) -> list[str]:
    """Return paths as text; a single one may stand alone.

    Raises
    ------
    WrongTypeError
        As `checked_path` does.
    """
    if isinstance(paths, str | os.PathLike):
        return [checked_path(paths)]
    require_type(paths, Iterable, "a path, or several of them,")
    return [checked_path(path) for path in paths]


def absolute_location(location: str | os.PathLike[str]) -> str:
    """Return a path made absolute, a ``file:`` URL as a path, and another URL as it is.

    Raises
    ------
    FileNotFoundError
        If it can't be either.
    WrongTypeError
        As `checked_path` does.
    """
    text = checked_path(location, "a path or a URL")
    parts = split_location(text)
    if parts.scheme == "file":
        return unquote(parts.path) or "/"
    return text if "://" in text else os.path.abspath(text)


def joined_location(start: str, relative: str) -> str:
    """Return the location of a file that is given as seen from the folder of the file ``start``; itself for nothing."""
    if not relative:
        return start
    if "://" in relative:
        return relative
    parts = split_location(start)
    if parts.scheme and "://" in start:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(parts.path), relative))
        return parts._replace(path=path, query="", fragment="").geturl()
    return os.path.normpath(os.path.join(os.path.dirname(start), relative))
