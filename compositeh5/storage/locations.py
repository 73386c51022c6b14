"""Locations of files, paths or URLs: checked, made absolute, and relative to each other."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable
from urllib.parse import SplitResult, unquote, urlsplit

from ..errors import require_type

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
"""A path, or several."""


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
    """Return the parts of a path or URL; `FileNotFoundError` if it can't be either."""
    try:
        # File names of other encodings have surrogates.
        os.fsencode(location)
        if "\0" in location:
            raise ValueError("it has a null character")
        return urlsplit(location)
    except ValueError as error:
        raise FileNotFoundError(f"{location!r} is neither a path nor a URL: {error}") from error


def checked_path(path: str | os.PathLike[str], expected: str = "a path") -> str:
    """Return a path as text. Numbers aren't paths: they would be taken for descriptors of open files."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    require_type(text, str, expected)
    return text


def checked_paths(paths: Paths) -> list[str]:
    """Return paths as text; a single one may stand alone."""
    if isinstance(paths, str | os.PathLike):
        return [checked_path(paths)]
    require_type(paths, Iterable, "a path, or several of them,")
    return [checked_path(path) for path in paths]


def absolute_location(location: str | os.PathLike[str]) -> str:
    """Return a path made absolute, a ``file:`` URL as a path, and another URL as it is."""
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
