"""Conversion of one file, or of many, on several processes if wanted; what was done before is not done again."""

from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from ..composite.opening import open_composite
from ..errors import CompositeH5Error, ConflictError, ConversionError
from ..storage.locations import Paths, checked_path, checked_paths
from ..storage.publish import settle
from ..storage.source import FileSource
from ..trees.running import Progress, each, silent

if TYPE_CHECKING:
    from ..composite.composite import Composite
    from ..composite.link import DataId

__all__ = ["Conversion", "convert", "convert_files"]

Status: TypeAlias = Literal["converted", "unchanged", "failed"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_BEGINNINGS = {"h5": b"SIMPLE  =", "fits": _HDF5}
"""How the files begin that are looked for in a directory, by what they are converted to."""

_SUFFIX = re.compile(r"(\.(fits|fit|fts|h5|hdf5|hdf))?(\.fz)?$", re.IGNORECASE)


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    replace: bool = False,
    data_id: DataId | None = None,
) -> Composite:
    """Convert a FITS file to a composite file, or one that was converted from it back, all of it or nothing.

    What the source is follows from its content, not from its name; see `conversion` for what becomes of
    a FITS file.

    Parameters
    ----------
    source : path
        The file to convert.
    target : path
        The file to write.
    replace : bool, optional
        Whether something else at the target is replaced.
    data_id : mapping, optional
        Data ID of the composite; its items win over what the FITS file says.

    Returns
    -------
    Composite
        What was converted, in memory.

    Raises
    ------
    ConversionError
        If the source is of no known format, damaged, or lacks what its format demands, or if a composite can't be
        written as the FITS file that it was; nothing is written then.
    NoSuchComponentError
        If a composite was never converted from a FITS file.
    ConflictError
        If the target exists and holds something else.
    OSError
        If a file can't be read or written.
    """
    from .conversion import read_fits, write_fits

    if _begins(checked_path(source), _HDF5):
        if data_id is not None:
            raise ConversionError(f"{os.fspath(source)}: a FITS file can't be given a data ID")
        with open_composite(source) as stored:
            composite = stored.load()
        write_fits(composite, target, replace=replace)
    else:
        composite = read_fits(source, data_id=data_id)
        composite.write(target, replace=replace)
    return composite


@dataclass(frozen=True)
class Conversion:
    """What became of one file.

    Attributes
    ----------
    source, target : str
        The paths.
    status : str
        ``"converted"``; ``"unchanged"`` if the target was there, converted from the same source; or ``"failed"``.
    message : str
        Why it failed.
    """

    source: str
    target: str
    status: Status
    message: str = ""


def convert_files(
    sources: Paths,
    folder: str | os.PathLike[str],
    *,
    to: Literal["h5", "fits"] = "h5",
    replace: bool = False,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> list[Conversion]:
    """Convert many files, each to one of the same name in a folder.

    A file that can't be converted doesn't stop the others. Those of an earlier run that was interrupted are not
    converted again.

    Parameters
    ----------
    sources : path, or iterable of path
        Files, and directories whose files are converted, also those in directories of theirs: FITS files to ``"h5"``,
        HDF5 files to ``"fits"``. Other files in them are passed over.
    folder : path
        Where the results go, in directories like those of the sources.
    to : str, optional
        What to make: composites (``"h5"``), or the FITS files from which they were converted (``"fits"``).
    replace : bool, optional
        Whether other files that stand in the way are replaced.
    executor : concurrent.futures.Executor, optional
        Where it runs; in this process without one.
    progress : callable, optional
        Told how many are done.

    Returns
    -------
    list of Conversion
        One for each file, in the order of the sources, within a directory by name.

    Raises
    ------
    ConflictError
        If two files would be converted to the same; nothing is done then.
    FileNotFoundError
        If a source doesn't exist.
    """
    tasks = _tasks(sources, checked_path(folder), to)
    return list(each(partial(_convert, replace), tasks, executor=executor, progress=progress, step="converting"))


def _tasks(sources: Paths, folder: str, to: Literal["h5", "fits"]) -> list[tuple[str, str]]:
    """Return the pairs of source and target."""
    made: dict[str, str] = {}
    for source in checked_paths(sources):
        os.stat(source)
        paths, above = [source], os.path.dirname(source)
        if os.path.isdir(source):
            found = map(str, sorted(Path(source).rglob("*")))
            paths, above = [path for path in found if os.path.isfile(path) and _begins(path, _BEGINNINGS[to])], source
        for path in paths:
            target = os.path.join(folder, f"{_SUFFIX.sub('', os.path.relpath(path, above))}.{to}")
            if made.setdefault(target, path) != path:
                raise ConflictError(f"{made[target]} and {path} would both be converted to {target}")
    return [(path, target) for target, path in made.items()]


def _begins(path: str, beginning: bytes) -> bool:
    # Not by `open`, which would wait for the writer of a FIFO.
    with FileSource(path) as file:
        return file.read(len(beginning)) == beginning


def _convert(replace: bool, task: tuple[str, str]) -> Conversion:
    source, target = task
    try:
        there = os.path.lexists(target) and not replace
        if there and _converted_from(target) == _digest(source):
            settle(os.path.dirname(target) or ".")
            return Conversion(source, target, "unchanged")
        convert(source, target, replace=replace)
    except (CompositeH5Error, OSError) as error:
        return Conversion(source, target, "failed", str(error))
    return Conversion(source, target, "unchanged" if there else "converted")


def _converted_from(target: str) -> str | None:
    """Return the SHA-256 of the file from which a composite was converted; None if it tells none, or isn't one."""
    try:
        with open_composite(target) as composite:
            origin = composite.provenance.get("converted_from")
    except (CompositeH5Error, OSError):
        return None
    return origin.get("sha256") if isinstance(origin, dict) else None


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
