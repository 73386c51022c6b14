"""An index of the composites under a folder: one table of their scalars, for planning without opening files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..composite.composite import Composite
from ..composite.opening import file_info, open_composite
from ..errors import CompositeH5Error, ConflictError, FormatError, NotACompositeFileError, WrongValueError
from ..storage.locations import absolute_location
from .running import Progress, map_in_order, no_progress
from .scalar_columns import KINDS_WITH_SCALARS, Scalar, component_scalars, rows_of, table_of, to_scalar
from .walk import INDEX_NAME, hdf5_files

if TYPE_CHECKING:
    from astropy.table import QTable

TABLE = "table"
"""Name of the component of an index."""

_MARK, _VERSION = "compositeh5_index", 1

_FIXED_COLUMNS = {
    "path": "text",
    "name": "text",
    "size": "int",
    "mtime_ns": "int",
    "problem": "text",
    "id": "text",
    "dataset_type": "text",
    "run": "text",
    "definition": "text",
    "stage": "text",
    "links": "text",
}


@dataclass(frozen=True)
class IndexReport:
    """What `index` did.

    Attributes
    ----------
    path : str
        The file of the index.
    composites : int
        Rows of the table.
    read, unchanged, removed : int
        Files that were read, that are as they were in the earlier index, and that are gone since.
    problems : dict
        What can't be read, by the paths of the files as seen from the root.
    """

    path: str
    composites: int
    read: int
    unchanged: int
    removed: int
    problems: dict[str, str]


class _File(NamedTuple):
    """A file, and what tells whether it is the one of an earlier index."""

    path: str
    size: int
    mtime_ns: int


_Rows = list[dict[str, Scalar]]


def index(
    root: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    executor: Executor | None = None,
    progress: Progress = no_progress,
) -> IndexReport:
    """Write, or update, one table with the scalar values of all composites below a folder.

    Only files whose size or time of change isn't that of the earlier index are opened, and of these only attributes and
    components that have scalars; of what is shared, such as the metadata of a visit, one copy. No pixel is read.

    Parameters
    ----------
    root : path
        The folder.
    output : path, optional
        The file of the index, by default ``compositeh5-index.h5`` in the folder. An earlier index there is replaced.
    executor : concurrent.futures.Executor, optional
        Where files are read; here by default.
    progress : callable, optional
        Told how many files are read.

    Returns
    -------
    IndexReport
        What was done. `open_index` gives the table.

    Raises
    ------
    ConflictError
        If the file is something else than an index (a `FileExistsError`). It is untouched.
    OSError
        If the folder can't be listed, or the index can't be written. Files that can't be read are no error, but have
        a row that says so.

    Notes
    -----
    The columns:

    ==================== =====================================================================================
    ``path``             the file, as seen from the root
    ``name``             the name of the composite in it
    ``size, mtime_ns``   bytes of the file, and when it was changed last, in ns
    ``problem``          what can't be read, such as a lost component, and why; empty if nothing. The file will be read
                         again next time
    ``id, dataset_type`` of the composite, likewise ``run``, ``definition``, ``stage``; empty if unknown
    ``links``            ids of the composites that it links to, with spaces between
    ``visit``, ...       its data ID, a column for each dimension
    ``<component>.…``    scalars, with units: the values of records by dotted names, ``mean`` and ``error`` of
                         photometric calibrations, ``ra``, ``dec`` (of the middle of the image), ``ra_corners``,
                         ``dec_corners`` (ICRS) of a WCS
    ==================== =====================================================================================
    """
    folder = absolute_location(root)
    path = absolute_location(os.path.join(folder, INDEX_NAME) if output is None else output)
    for location in (folder, path):
        if "://" in location:
            raise WrongValueError(f"{location}: only folders and files on disk can be indexed and written")
    files = _listed(folder, path)
    before = _earlier(path)
    known = {file: rows for file, rows in before.items() if not any(row["problem"].value for row in rows)}
    changed = [file for file in files if file not in known]
    found = map_in_order(
        partial(_read, folder), changed, executor=executor, progress=progress, step="reading composites"
    )
    fresh = dict(zip(changed, found, strict=True))
    rows = [row for file in files for row in (known.get(file) or fresh[file])]
    paths = {file.path for file in files}
    if rows != [row for group in before.values() for row in group] or not os.path.exists(path):
        table = _table(rows)
        table.meta["root"] = os.path.relpath(folder, os.path.dirname(path))
        Composite(None, {TABLE: table}, dataset_type=_MARK).write(path, replace=True)
    return IndexReport(
        path,
        composites=len(rows),
        read=len(changed),
        unchanged=len(files) - len(changed),
        removed=len({file.path for file in before} - paths),
        problems={row["path"].value: row["problem"].value for row in rows if row["problem"].value},
    )


def open_index(path: str | os.PathLike[str]) -> QTable:
    """Return the table of an index. No other file is opened.

    Parameters
    ----------
    path : path
        The file of the index, or the folder in which it is.

    Returns
    -------
    QTable
        One row for each composite; see `index` for the columns. ``table.meta["root"]`` is the folder from which
        ``path`` is seen, ``table.meta["dimensions"]`` lists the columns of data IDs.

    Raises
    ------
    FormatError
        If the file isn't an index of this version.
    OSError
        As `compositeh5.open` does.

    Examples
    --------
    What a row doesn't have is masked, and a masked condition is neither true nor false: ``np.ma.filled`` decides.

    >>> table = open_index("calexp")  # doctest: +SKIP
    >>> good = (table["summary_stats.psf_fwhm"] < 1 * u.arcsec) & (table["visit_info.airmass"] < 1.2)  # doctest: +SKIP
    >>> table[np.ma.filled(good, False)]["path", "visit", "detector"]  # doctest: +SKIP
    """
    location = absolute_location(path)
    if os.path.isdir(location):
        location = os.path.join(location, INDEX_NAME)
    with open_composite(location) as composite:
        if composite.dataset_type != _MARK or TABLE not in composite:
            raise FormatError(f"{location}: isn't an index but a {composite!r}")
        table: QTable = composite[TABLE]
    if table.meta.get(_MARK) != _VERSION:
        raise FormatError(f"{location}: an index of version {table.meta.get(_MARK)}, not {_VERSION}; make it anew")
    table.meta["root"] = os.path.normpath(os.path.join(os.path.dirname(location), str(table.meta["root"])))
    return table


def _listed(folder: str, output: str) -> list[_File]:
    files = []
    for path in hdf5_files(folder):
        location = os.path.join(folder, path)
        try:
            status = os.stat(location)
        except FileNotFoundError:
            continue
        if location != output:
            files.append(_File(path, status.st_size, status.st_mtime_ns))
    return files


def _earlier(path: str) -> dict[_File, _Rows]:
    """Return what an earlier index says, if there is one that can be read."""
    try:
        table = open_index(path)
    except FileNotFoundError:
        return {}
    except (OSError, CompositeH5Error) as error:
        raise ConflictError(f"{path}: can't be read as an index, so it isn't replaced: {error}") from error
    before: dict[_File, _Rows] = {}
    for row in rows_of(table):
        before.setdefault(_File(*(row[key].value for key in ("path", "size", "mtime_ns"))), []).append(row)
    return before


def _table(rows: _Rows) -> QTable:
    # Only components have dots in the names of their scalars.
    dimensions = sorted({name for row in rows for name in row if "." not in name} - _FIXED_COLUMNS.keys())
    table = table_of(
        rows, {**_FIXED_COLUMNS, **{name: row[name].type for name in dimensions for row in rows if name in row}}
    )
    table.meta = {_MARK: _VERSION, "dimensions": dimensions}
    return table


def _read(folder: str, file: _File) -> _Rows:
    """Return the rows of a file; one that says why if it can't be read, none if it isn't of this format."""
    location = os.path.join(folder, file.path)
    about = {key: to_scalar(value) for key, value in file._asdict().items()}
    try:
        rows = [{**about, **_scalars(location, name)} for name in file_info(location).composites]
    except (NotACompositeFileError, FileNotFoundError):
        return []
    except (OSError, CompositeH5Error) as error:
        return [{**about, "problem": to_scalar(_reason(error))}]
    return rows


def _scalars(location: str, name: str) -> Mapping[str, Scalar]:
    with open_composite(location, name) as composite:
        row = {key: to_scalar(value) for key, value in composite.data_id.items() if key not in _FIXED_COLUMNS}
        problems = []
        for component in composite:
            try:
                if composite.kind(component) in KINDS_WITH_SCALARS:
                    row |= component_scalars(composite, component)
            except (OSError, CompositeH5Error) as error:
                problems.append(f"{component}: {_reason(error)}")
        own: dict[str, Any] = {
            "name": name,
            "problem": "; ".join(problems),
            "links": " ".join(sorted({link.id for link in composite.links.values()})),
            **{key: getattr(composite, key) for key in ("id", "dataset_type", "run", "definition", "stage")},
        }
        return row | {key: to_scalar(value) for key, value in own.items()}


def _reason(error: Exception) -> str:
    """Return a reason that is the same wherever the tree is; opening the file tells more."""
    return type(error).__name__.removesuffix("Error")
