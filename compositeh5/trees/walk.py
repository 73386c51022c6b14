"""Finding files: all below folders, those of a pattern, and doing the same with each of them."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from glob import glob, has_magic
from typing import TypeAlias, TypeVar

from ..composite.session import Session, current
from ..errors import CompositeH5Error, CorruptFileError, NotACompositeFileError, require_type
from ..storage.layout import check_file
from ..storage.locations import Paths, absolute_location, checked_path
from ..storage.reader import StoredFile
from .running import Progress, map_in_order, no_progress

Result = TypeVar("Result")

Root: TypeAlias = str | os.PathLike[str]

_HDF5 = (".h5", ".hdf5", ".hdf", ".he5", ".nxs")
"""How the names of HDF5 files end: one of these that isn't HDF5 is damaged."""

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")
"""Names of files that `storage.publish` has not finished, or never will."""


@dataclass(frozen=True)
class Unread:
    """A place that wasn't looked into.

    Attributes
    ----------
    path : str
        The file, folder or symbolic link.
    reason : str
        Why: damage, permissions, a link that leads out of the roots.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class SearchedFiles:
    """What was looked at.

    Attributes
    ----------
    files : int
        Number of files of this format that could be read.
    unread : tuple of Unread
        Files that are, or may be, of this format and couldn't be read; folders that couldn't be listed; symbolic links
        that lead out of the roots. There may be composites there.
    foreign : tuple of str
        Files that are something else.
    """

    files: int = 0
    unread: tuple[Unread, ...] = ()
    foreign: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tree:
    """The files below some folders.

    Attributes
    ----------
    files : tuple of str
        Absolute paths, sorted; of a file with several names (hard links) the first.
    others : dict
        The other names of those files that have some.
    unread : tuple of Unread
        Where there may be more.
    """

    files: tuple[str, ...]
    others: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unread: tuple[Unread, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All names of all files, sorted."""
        return tuple(sorted([*self.files, *(name for names in self.others.values() for name in names)]))


def files_under(*roots: Root) -> Tree:
    """Return the regular files below folders, or files themselves, each once, however many names (hard links) it has.

    Symbolic links below a root are not followed: their targets are found at their own places, or are not below a root.
    The temporary files of writers that were killed are left out.
    """
    # As links see them, for their paths are relative to where a file really is.
    real_roots = [os.path.realpath(checked_path(root)) for root in roots]
    names: dict[tuple[int, int], set[str]] = {}
    unread: set[Unread] = set()
    for root in real_roots:
        for found in _walk(root, tuple(real_roots)):
            if isinstance(found, Unread):
                unread.add(found)
            else:
                path, inode = found
                names.setdefault(inode, set()).add(path)
    files = sorted(sorted(paths) for paths in names.values())
    return Tree(
        tuple(paths[0] for paths in files),
        {paths[0]: tuple(paths[1:]) for paths in files if len(paths) > 1},
        tuple(sorted(unread, key=lambda item: item.path)),
    )


def _walk(root: str, roots: tuple[str, ...]) -> Iterator[tuple[str, tuple[int, int]] | Unread]:
    """Yield the path and the inode of each file, and what can't be looked into."""
    status = os.stat(root)
    if os.path.isfile(root):
        yield root, (status.st_dev, status.st_ino)
        return
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError as error:
            yield Unread(folder, str(error))
            continue
        for entry in found:
            if entry.is_symlink():
                target = os.path.realpath(entry.path)
                if not any(_is_below(target, other) for other in roots):
                    yield Unread(entry.path, f"a symbolic link that leads out of the roots, to {target}: not followed")
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif entry.is_file(follow_symlinks=False) and not _TEMPORARY.fullmatch(entry.name):
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError as error:
                    yield Unread(entry.path, str(error))
                else:
                    yield entry.path, (status.st_dev, status.st_ino)


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def map_files(
    function: Callable[[str, StoredFile], Result],
    tree: Tree,
    *,
    executor: Executor | None = None,
    progress: Progress = no_progress,
    step: str = "",
    session: Session | None = None,
) -> tuple[list[Result], SearchedFiles]:
    """Call a function with the path and the open file, for each file of a tree.

    Returns what it gave, in the order of the paths, and which files couldn't be read: those for which it raised
    `OSError` or `CompositeH5Error` are among them. One file is open at a time in each process.
    """
    results: list[Result] = []
    unread = list(tree.unread)
    foreign: list[str] = []
    found = map_in_order(
        partial(_map_file, function, session or current()), tree.files, executor=executor, progress=progress, step=step
    )
    for path, result in zip(tree.files, found, strict=True):
        if result is None:
            foreign.append(path)
        elif isinstance(result, Unread):
            unread.append(result)
        else:
            results.extend(result)
    unread.sort(key=lambda item: item.path)
    return results, SearchedFiles(len(results), tuple(unread), tuple(foreign))


def _map_file(
    function: Callable[[str, StoredFile], Result], session: Session, path: str
) -> tuple[Result] | Unread | None:
    """Return the result for a file, in a tuple of its own; None if it is no file of this format."""
    try:
        try:
            file = session.open(path)
        except NotACompositeFileError:
            if path.lower().endswith(_HDF5):
                raise
            zipped = _zipped(path)
            return Unread(path, f"a zip file: the {zipped} HDF5 files in it aren't looked into") if zipped else None
        try:
            check_file(file)
            return (function(path, file),)
        except NotACompositeFileError:
            return None
        finally:
            file.close()
    except (OSError, CompositeH5Error) as error:
        return Unread(path, str(error))


def _zipped(path: str) -> int:
    """Return the number of HDF5 files in a zip file; 0 for another file."""
    if not zipfile.is_zipfile(path):
        return 0
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(name.lower().endswith(_HDF5) for name in archive.namelist())
    except zipfile.BadZipFile as error:
        raise CorruptFileError(f"{path}: {error}") from error


# ---- Names of files, as they are given -----------------------------------------------------------------------

SUFFIXES = (".h5", ".hdf5")
"""Endings of the names of files that are looked into."""

INDEX_NAME = "compositeh5-index.h5"
"""Name of the index of a tree of composites, in its uppermost folder."""

Files = Paths
"""Files: a folder with all below it, a pattern such as ``calexp/*.h5``, or single ones."""


def hdf5_files(root: str) -> list[str]:
    """Return the paths of the HDF5 files below a folder, relative to it, sorted.

    These are names: unlike those of `files_under` they may be symbolic links, as Butlers make, or several of one file.
    Hidden files and folders, so also files that are being written, and indexes are left out.
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
    """Return the locations of files given in any of the ways of `Files`, those of a folder or a pattern sorted.

    `FileNotFoundError` is raised if there is no such file or folder, or nothing of that pattern.
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
