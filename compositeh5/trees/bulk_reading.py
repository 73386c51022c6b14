"""Reading from many files, or many parts of one: in order, with bounded memory, here or on any executor."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, groupby, pairwise
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import numpy as np

from ..box import Box
from ..composite.composite import Composite
from ..composite.cutout import cutouts as cut
from ..composite.cutout import is_position
from ..composite.opening import open_composite
from ..composite.session import current
from ..errors import CompositeH5Error, WrongTypeError, WrongValueError, require_type
from ..storage.locations import absolute_location
from ..storage.remote import Location, public_location
from .running import Progress, check_running, map_in_order, no_progress
from .walk import Files, files_of

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord

Source: TypeAlias = Composite | Location
"""An open composite, or where its file is."""

Sources: TypeAlias = "Source | Files | Iterable[Source | os.PathLike[str]]"
"""One composite or many: open ones, locations of files, a folder with all below it, or a pattern."""

Item = TypeVar("Item")
Work: TypeAlias = Callable[[Sequence[Item]], Generator[Any]]
"""Yields the results for some items; of what fails, the exception."""


def read_many(
    sources: Sources,
    component: str,
    *,
    executor: Executor | None = None,
    chunksize: int = 1,
    buffersize: int | None = None,
    return_exceptions: bool = False,
    progress: Progress = no_progress,
    **parameters: Any,
) -> Iterator[Any]:
    """Read one component of many composites, such as the WCS of all detectors of a visit.

    Files are opened one after the other. What they share by links is decoded once in each process, and its file stays
    open meanwhile (in another process, while one task lasts).

    Parameters
    ----------
    sources : paths or URLs, or open composites
        The composites: a sequence; or a folder with all below it, or a pattern such as ``"calexp/*.h5"``, which are
        sorted.
    component : str
        Name of the component.
    executor : concurrent.futures.Executor, optional
        Where it is read; here by default. Threads make sense for pixels, and for remote files, where each waits for
        answers. What other processes read is pickled on its way here: for whole images that takes longer than reading
        them. Small components are mostly Python objects to be made, here, whoever read them.
    chunksize, buffersize : int, optional
        As of `concurrent.futures.Executor.map`: how many files one task reads, and how many tasks are handed out before
        their results are taken, by default one more than there are processors. So many values are in memory.
    return_exceptions : bool, optional
        Whether a file that can't be read, or doesn't have the component, gives the exception in place of the value, as
        in `asyncio.gather`; otherwise it is raised when its turn has come.
    progress : callable, optional
        Told how many are done.
    **parameters
        What to read of it, as for `Composite.read`: ``box`` for a part of each image.

    Yields
    ------
    value
        What `Composite.read` gives for each of the sources, in their order.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or nothing of that pattern.
    OSError, CompositeH5Error
        What reading raises first. The message names the file.

    Examples
    --------
    >>> paths = [f"calexp/calexp_{n}.h5" for n in range(189)]
    >>> for path, wcs in zip(paths, read_many(paths, "wcs")):  # doctest: +SKIP
    ...     print(path, wcs.footprint_contains(star))
    """
    items = _listed(sources)
    plan = _Plan(executor, chunksize, buffersize, return_exceptions, progress, f"reading {component}")
    return _results(partial(_read, component, parameters), items, len(items), plan)


def cutouts(
    sources: Sources,
    where: Any,
    size: Any = None,
    *,
    components: Sequence[str] | None = None,
    executor: Executor | None = None,
    chunksize: int = 64,
    buffersize: int | None = None,
    return_exceptions: bool = False,
    progress: Progress = no_progress,
) -> Iterator[Composite]:
    """Cut parts out of composites: many from one, the same from many, or one from each.

    Parameters
    ----------
    sources : path or URL, open composite, or many of them
        The composites, as for `read_many`. A single one is taken for each position.
    where : Box, SkyCoord or (float, float), or many of them
        As for `Composite.cutout`; also a sequence, a `SkyCoord` of shape (n,) or an array of shape (n, 2). A single one
        is taken for each source; as many as there are sources belong to these, one to one.
    size : int, (int, int) or Quantity, optional
        As for `Composite.cutout`.
    components : sequence of str, optional
        The components wanted. By default all planes of pixels, and the WCS.
    executor, buffersize, return_exceptions, progress
        As for `read_many`. A position outside of an image is an `OutsideError`.
    chunksize : int, optional
        How many cutouts one task of the executor makes.

    Yields
    ------
    Composite
        What `Composite.cutout` gives, in the order of the positions, or of the sources. Of cutouts of one composite
        that follow each other (with an executor, in one task), each chunk is read and unpacked once, however many touch
        it, as long as no more than 256 MiB of chunks have to be kept for later ones.

    Raises
    ------
    ValueError
        If there are neither as many positions as sources, nor one of either.
    OutsideError
        If a box has no pixel of the image.
    OSError, CompositeH5Error
        As `read_many` does.

    Examples
    --------
    >>> for stamp in cutouts("calexp.h5", stars, 64):  # doctest: +SKIP
    ...     print(stamp["image"].array.max())
    >>> for stamp in cutouts("calexp/*.h5", SkyCoord("10h00m24s +2d12m"), 64, return_exceptions=True):  # doctest: +SKIP
    ...     ...  # of the detectors that don't see it: an OutsideError
    """
    listed, wheres = _listed(sources), _positions(where)
    if len(listed) != len(wheres) and 1 not in (len(listed), len(wheres)):
        raise WrongValueError(f"{len(listed)} composites and {len(wheres)} positions can't be paired")
    total = len(wheres) if len(listed) == 1 else len(listed)
    plan = _Plan(executor, chunksize, buffersize, return_exceptions, progress, "cutouts")
    groups = _groups(listed, wheres, total, total if executor is None else chunksize)
    # A group is a task already.
    return _results(partial(_cut, size, components), groups, total, replace(plan, chunksize=1))


Group: TypeAlias = "tuple[Source, list[Any] | SkyCoord]"
"""A composite, and where cutouts of it are."""


def _groups(sources: list[Source], wheres: list[Any] | SkyCoord, total: int, most: int) -> list[Group]:
    """Return the cutouts of the same composite that follow each other, no more than so many together."""
    if len(sources) == 1:
        runs = [(0, total)] if total else []
    else:
        same = (key if isinstance(key, str) else id(key) for key in sources)
        lengths = [len(list(group)) for _, group in groupby(same)]
        runs = list(pairwise(accumulate(lengths, initial=0)))
    groups: list[Group] = []
    for first, last in runs:
        for start in range(first, last, most):
            stop = min(start + most, last)
            places = wheres[start:stop] if len(wheres) == total else [wheres[0]] * (stop - start)
            groups.append((sources[0 if len(sources) == 1 else start], places))
    return groups


def _positions(where: Any) -> list[Any] | SkyCoord:
    """Return where the cutouts are, as `cut` takes it."""
    if hasattr(where, "frame"):
        return [where] if where.isscalar else where.ravel()
    if isinstance(where, Box) or is_position(where):
        return [where]
    require_type(where, Iterable, "a Box, a SkyCoord, (y, x), or several of them")
    return [tuple(one) if isinstance(one, np.ndarray | list) else one for one in where]


def _listed(sources: Sources) -> list[Source]:
    if isinstance(sources, str | os.PathLike):
        return list(files_of(sources))
    if isinstance(sources, Composite) or hasattr(sources, "geturl"):
        return [_source(sources)]
    require_type(sources, Iterable, "paths, URLs or open composites")
    return [_source(one) for one in sources]


def _source(one: Any) -> Source:
    if isinstance(one, Composite) or hasattr(one, "geturl"):
        return cast("Source", one)
    if isinstance(one, str | os.PathLike):
        return absolute_location(one)
    raise WrongTypeError(f"a path, a URL or an open composite was expected, not {one!r}")


# ---- What is done in each process ---------------------------------------------------------------------------


def _read(component: str, parameters: dict[str, Any], sources: Sequence[Source]) -> Generator[Any]:
    """Yield a component of each, or the exception."""
    with current().keep_open():
        for source in sources:
            try:
                with _opened(source) as composite:
                    value = composite.read(component, **parameters)
            except Exception as error:
                value = _naming(error, source)
            yield value


def _cut(size: Any, components: Sequence[str] | None, groups: Sequence[Group]) -> Generator[Any]:
    """Yield the cutouts of each group, or the exceptions."""
    for source, wheres in groups:
        left = len(wheres)
        try:
            with _opened(source) as composite:
                for part in cut(composite, wheres, size, components=components):
                    left -= 1
                    yield part
        except Exception as error:
            # What went wrong with one plane of pixels has to do with all cutouts that are left.
            yield from [_naming(error, source)] * left


def _opened(source: Source) -> AbstractContextManager[Composite]:
    return nullcontext(source) if isinstance(source, Composite) else open_composite(source)


def _naming(error: Exception, source: Source) -> Exception:
    """Return the error with the name of the file."""
    where = source.where if isinstance(source, Composite) else public_location(source)
    if where not in str(error):
        if isinstance(error, CompositeH5Error):
            error.args = (f"{where}: {error}",)
        else:
            error.add_note(f"while reading {where}")
    return error


# ---- Ordered, wherever it is done ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """Where and how work is done: see `read_many`."""

    executor: Executor | None
    chunksize: int
    buffersize: int | None
    return_exceptions: bool
    progress: Progress
    step: str

    def __post_init__(self) -> None:
        check_running(self.executor, self.progress)
        for name in ("chunksize", "buffersize"):
            value = getattr(self, name)
            require_type(value, (int, type(None)), f"{name}, a whole number,")
            if value is not None and value < 1:
                raise WrongValueError(f"{name} should be at least 1, not {value}")


def _results(work: Work[Item], items: Sequence[Item], total: int, plan: _Plan) -> Generator[Any]:
    """Yield what the work gives for all items; raise an exception among it unless these are wanted."""
    plan.progress(plan.step, 0, total)
    values = work(items) if plan.executor is None else _gathered(work, items, plan, plan.executor)
    with closing(values):
        for done, value in enumerate(values, 1):
            if isinstance(value, Exception) and not plan.return_exceptions:
                raise value
            yield value
            plan.progress(plan.step, done, total)


def _gathered(work: Work[Item], items: Sequence[Item], plan: _Plan, executor: Executor) -> Generator[Any]:
    batches = [items[i : i + plan.chunksize] for i in range(0, len(items), plan.chunksize)]
    ahead = plan.buffersize or (os.cpu_count() or 1) + 1
    function = partial(_task, work, plan.return_exceptions)
    for results in map_in_order(function, batches, executor=executor, chunksize=1, buffersize=ahead):
        yield from results


def _task(work: Work[Item], return_exceptions: bool, items: Sequence[Item]) -> list[Any]:
    found = []
    with closing(work(items)) as values:
        for value in values:
            found.append(value)
            if isinstance(value, Exception) and not return_exceptions:
                break
    return found
