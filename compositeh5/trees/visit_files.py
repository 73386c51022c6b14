"""Finding the composites of a visit among files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast

from ..composite.composite import Composite
from ..composite.link import DataId, checked_data_id
from ..composite.opening import file_info, open_composite
from ..errors import FormatError, NotACompositeFileError
from ..storage.locations import absolute_location, checked_path
from .index_table import open_index
from .running import Progress, map_in_order, no_progress
from .scalar_columns import rows_of
from .visit_members import DETECTOR_KEY, Member
from .visit_view import VisitView
from .walk import INDEX_NAME, Files, files_of

if TYPE_CHECKING:
    from astropy.table import QTable

Members: TypeAlias = "Files | QTable"
"""Where the composites of detectors are: a folder with all below it, a pattern such as ``calexp/*.h5``, single files,
or rows of an index."""

_LEVELS = 16
"""So many folders above the file of a visit may have the index of the tree."""


@dataclass(frozen=True)
class _Entry:
    """A composite in a file, as far as its attributes tell."""

    location: str
    id: str
    data_id: Mapping[str, int | str]
    links: frozenset[str]


def open_visit(
    source: Members,
    members: Members | None = None,
    *,
    data_id: DataId | None = None,
    executor: Executor | None = None,
    progress: Progress = no_progress,
) -> VisitView:
    """Open the composites of all detectors of a visit together.

    Parameters
    ----------
    source : path, sequence of paths or QTable
        The file of the visit: what the detectors share, such as ``"visit/visit_903334.h5"``. Or, if it isn't a single
        file, the composites of the detectors themselves, as ``members``.
    members : path, sequence of paths or QTable, optional
        Where the composites of the detectors are looked for: in a folder with all below it, by a pattern such
        as ``"calexp/*.h5"``, in single files, or in rows of the table that `open_index` gives. With the file of a visit
        it is by default all of the index of the tree, ``compositeh5-index.h5`` in a folder above it. Without an index
        each file is opened once to see whose it is.
    data_id : mapping, optional
        What the data IDs of the members must have, such as ``{"visit": 903334}``.
    executor : concurrent.futures.Executor, optional
        Where files are read, also later: threads, processes, or `distributed.Client.get_executor`; here by default.
    progress : callable, optional
        Told how many files are read.

    Returns
    -------
    VisitView
        Of those composites found that have a detector in their data ID, agree with ``data_id``, and, if the file of
        the visit is given, link to it. To be closed, best by ``with``.

    Raises
    ------
    FileNotFoundError
        If there is no such file, no index, or no composite of a detector among them.
    DefinitionError
        If there are several composites of one detector: other places, or a data ID, must tell which are meant.
    OSError, CompositeH5Error
        If a file can't be read. In folders and by patterns, files of other formats are passed over.

    Examples
    --------
    >>> with open_visit("visit/visit_903334.h5", "calexp") as view:  # doctest: +SKIP
    ...     print(view.detectors, view.visit_info["exposure_time"])
    ...     print(view.table("summary_stats"), view.containing(SkyCoord("10h00m24s +2d12m")))

    >>> table = open_index("repo")  # doctest: +SKIP
    >>> open_visit(table[table["dataset_type"] == "calexp"], data_id={"visit": 903334})  # doctest: +SKIP
    """
    visit: Composite | None = None
    if isinstance(source, str | os.PathLike) and _is_file(source):
        visit = open_composite(source)
        members = _index_above(absolute_location(source)) if members is None else members
    elif members is not None:
        place = checked_path(source)  # type: ignore[arg-type]
        raise FileNotFoundError(f"{place}: with `members`, this should be the file of a visit, which must exist")
    else:
        members = source
    try:
        wanted = checked_data_id({} if data_id is None else data_id).items()
        view = VisitView(
            (
                Member(entry.location, entry.data_id, partial(open_composite, entry.location, id=entry.id))
                for entry in _entries(members, executor, progress)
                if DETECTOR_KEY in entry.data_id
                and wanted <= entry.data_id.items()
                and (visit is None or visit.id in entry.links)
            ),
            visit,
            executor=executor,
            progress=progress,
        )
    except BaseException:
        if visit is not None:
            visit.close()
        raise
    return view


def _is_file(source: str | os.PathLike[str]) -> bool:
    location = absolute_location(source)
    return "://" in location or os.path.isfile(location)


def _index_above(location: str) -> QTable:
    folder = os.path.dirname(location)
    if "://" not in location:
        for _ in range(_LEVELS):
            if os.path.isfile(os.path.join(folder, INDEX_NAME)):
                return open_index(folder)
            folder = os.path.dirname(folder)
    raise FileNotFoundError(
        f"{location}: no {INDEX_NAME} in a folder above it tells who links to it; say where the composites of the "
        f"detectors are (`members`), or make an index (`compositeh5 index ROOT`)"
    )


def _entries(members: Members, executor: Executor | None, progress: Progress) -> list[_Entry]:
    if hasattr(members, "colnames"):
        return _indexed(members)
    files = cast("Files", members)
    strict = not isinstance(files, str | os.PathLike)
    found = map_in_order(
        partial(_of_file, strict), files_of(files), executor=executor, progress=progress, step="looking into files"
    )
    return [entry for of_file in found for entry in of_file]


def _of_file(strict: bool, location: str) -> Sequence[_Entry]:
    entries = []
    try:
        names = file_info(location).composites
    except NotACompositeFileError:
        if strict:
            raise
        return []
    for name in names:
        with open_composite(location, name) as composite:
            links = frozenset(link.id for link in composite.links.values())
            entries.append(_Entry(location, composite.id, composite.data_id, links))
    return entries


def _indexed(table: QTable) -> list[_Entry]:
    """Return the composites that are rows of an index; those that couldn't be read aren't among them."""
    dimensions = table.meta.get("dimensions", [])
    needed = ["path", "id", "links", *dimensions]
    if not {"root", "dimensions"} <= table.meta.keys() or not set(needed) <= set(table.colnames):
        raise FormatError(
            f"a table of members should be rows of what open_index gives, with columns {', '.join(needed)}"
        )
    entries = []
    for row in rows_of(table[needed]):
        if "id" in row:
            values = {name: scalar.value for name, scalar in row.items()}
            data_id = {name: values[name] for name in dimensions if name in values}
            location = os.path.join(table.meta["root"], values["path"])
            entries.append(_Entry(location, values["id"], data_id, frozenset(values["links"].split())))
    return entries
