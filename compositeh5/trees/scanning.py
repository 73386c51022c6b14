"""Finding the composites under a folder, and what their files say of themselves before any component is read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from glob import glob, has_magic

from ..errors import require_type
from ..storage.locations import Paths, absolute_location

SUFFIXES = (".h5", ".hdf5")
"""Endings of the names of files that are looked into."""

INDEX_NAME = "compositeh5-index.h5"
"""Name of the index of a tree of composites, in its uppermost folder."""

Files = Paths
"""Files: a folder with all below it, a pattern such as ``calexp/*.h5``, or single ones."""


def hdf5_files(root: str) -> list[str]:
    """Return the paths of the HDF5 files in a folder and all below it, sorted, as seen from the folder.

    These are names: unlike those of `tree.files_under`, they may be symbolic links, as Butlers make, or several of one
    file. Hidden files and folders are left out, so also files that are being written; and so are indexes.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, PermissionError
        If it isn't a folder that can be listed.
    """

    def fail(error: OSError) -> None:
        raise error

    found: list[str] = []
    for folder, folders, names in os.walk(root, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.endswith(SUFFIXES) and not name.startswith(".") and name != INDEX_NAME:
                found.append(os.path.relpath(os.path.join(folder, name), root))
    return sorted(found)


def files_of(source: Files) -> list[str]:
    """Return the locations of files that are given in any of the ways of `Files`, those of a folder or pattern sorted.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder, or nothing of that pattern.
    """
    if not isinstance(source, str | os.PathLike):
        require_type(source, Iterable, "a path, or several of them,")
        return [absolute_location(path) for path in source]
    location = absolute_location(source)
    if "://" in location or os.path.isfile(location):
        return [location]
    if os.path.isdir(location):
        return [os.path.join(location, path) for path in hdf5_files(location)]
    found = sorted(path for path in glob(location, recursive=True) if os.path.isfile(path))
    if not found:
        what = "no file has a name of this pattern" if has_magic(location) else "there is no such file or folder"
        raise FileNotFoundError(f"{location}: {what}")
    return found
