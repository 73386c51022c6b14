"""FITS files as composites, and back.

`read_fits` tells by the content of a file what it is:

========================================  ===================  ====================================================
file                                      definition           components
========================================  ===================  ====================================================
exposure of the LSST pipelines (``afw``)  ``exposure``         see `read_exposure`
their source catalogs                     ``source_catalog``   ``table``, with a column of bools for each flag
their ``PhotoCalib``, ``VisitInfo``       none                 ``photo_calib``, ``visit_info``
one image, also of `CCDData`              ``exposure``         ``image``, ``mask``, ``variance``, ``wcs``
any other                                 none                 one for each HDU, and ``<name>_wcs`` for each image
========================================  ===================  ====================================================

Nothing of a file is lost: what the components don't say stays in two more, verbatim.

``header``
    The cards of the primary header: lines of 80 columns, without the END card.
``fits``
    A list with a record for each HDU after the primary one, and before them one for this if it has data:

    ``header`` (str)
        Its cards, likewise. For a tile-compressed image they are those of the image that it stands for. Missing for
        the primary HDU.
    ``component`` (str)
        Name of the component that holds its pixels or columns; missing if none does.
    ``data`` (bytes)
        Its data as they stand in the file, heap and padding included; missing if they follow from the component.
    ``uncertainty`` (str)
        What its pixels are, if the component is their variance: ``StdDevUncertainty``, ``VarianceUncertainty`` or
        ``InverseVariance``.
    ``compressed_header`` (str)
        The cards of the table that held a tile-compressed image; missing for other HDUs. Its compressed form is not
        kept.
"""

from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from astropy.io import fits
from astropy.table import Table

from ..composite.composite import Composite
from ..composite.opening import open_composite
from ..errors import CompositeH5Error, ConflictError, ConversionError, EncodeError
from ..storage.locations import Paths, checked_path, checked_paths
from ..storage.publish import make_folders, publish, sync_folder
from ..storage.source import FileSource
from ..trees.running import Progress, map_in_order, no_progress
from . import _afw, _headers, _images, _tables
from ._hdus import MAGIC, FitsFile, open_fits, pixel_bytes

if TYPE_CHECKING:
    from ..composite.link import DataId

__all__ = [
    "MAGIC",
    "Conversion",
    "convert",
    "convert_files",
    "fits_bytes",
    "read_exposure",
    "read_fits",
    "write_fits",
]

Status: TypeAlias = Literal["converted", "unchanged", "failed"]

_VERBATIM = ("header", "fits")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_BEGINNINGS = {"h5": MAGIC, "fits": _HDF5}
"""How the files begin that are looked for in a directory, by what they are converted to."""

_SUFFIX = re.compile(r"(\.(fits|fit|fts|h5|hdf5|hdf))?(\.fz)?$", re.IGNORECASE)


def read_fits(source: str | os.PathLike[str] | bytes, *, data_id: DataId | None = None) -> Composite:
    """Read any FITS file; the page of this module tells what becomes of it.

    Parameters
    ----------
    source : path or bytes
        The FITS file, or its content.
    data_id : mapping, optional
        Data ID. Its items win over those that the file tells.

    Returns
    -------
    Composite
        In memory. ``provenance["converted_from"]`` tells the size and SHA-256 of the file.

    Raises
    ------
    ConversionError
        If it isn't a FITS file, is damaged, or isn't what it claims to be.
    OSError
        If it can't be read.
    """
    with open_fits(source) as file:
        hdus = file.hdus
        if _images.is_exposure(hdus):
            return _composite("exposure", _images.exposure_components(file), file, data_id)
        second = hdus[1].header if len(hdus) > 1 else fits.Header()
        if _headers.text(second, "AFW_TYPE") in ("SOURCE", "SIMPLE") and (catalog := _catalog(file)):
            return _composite("source_catalog", catalog, file, data_id)
        if _headers.text(second, "EXTTYPE") == "ARCHIVE_INDEX" and (own := _afw.object_of_its_own(hdus, file.where)):
            records = [record for _, _, record in file.records()]
            return _composite(None, {**own, "header": file.header(0), "fits": records}, file, data_id)
        if (main := _images.main_image(hdus)) is not None:
            return _composite("exposure", _images.ccd_components(file, main), file, data_id)
        return _composite(None, _images.hdu_components(file), file, data_id)


def read_exposure(path: str | os.PathLike[str], *, data_id: DataId | None = None) -> Composite:
    """Read a calibrated exposure of the LSST pipelines (``calexp``, ``preliminary_visit_image``, ...).

    The planes are the HDUs whose ``EXTTYPE`` (else ``EXTNAME``) is IMAGE, MASK and VARIANCE; mask and variance may be
    missing. They keep their physical types, in native byte order, and get as origin the corner of the parent image
    that the WCS "A" or ``LTV1`` and ``LTV2`` give. The WCS is that of the image's header (not that of the archive,
    of which the header may be an approximation). Visit, calibration, filter and detector come from headers and
    archive tables. The PSF and other objects of the archive stay there, in the component ``fits``.

    Parameters
    ----------
    path : path
        The FITS file.
    data_id : mapping, optional
        Data ID. Its items win over those that the file tells: instrument and visit (keywords ``INSTRUMENT`` and
        ``IDNUM``) and detector.

    Returns
    -------
    Composite
        Of the definition ``exposure``, in memory. Absent are the components that the file says don't exist.

    Raises
    ------
    ConversionError
        If it isn't a FITS file, is damaged, or isn't an exposure in this layout.
    OSError
        If it can't be read.
    """
    with open_fits(path) as file:
        return _composite("exposure", _images.exposure_components(file), file, data_id)


def _composite(definition: str | None, components: dict[str, Any], file: FitsFile, data_id: DataId | None) -> Composite:
    source = {"format": "FITS", "sha256": file.digest()}
    try:
        return Composite(
            definition,
            components,
            data_id={**_images.data_id(components), **(data_id or {})},
            provenance={"converted_from": source},
        )
    except EncodeError as error:
        raise ConversionError(f"{file.where}: {error}") from error


def _catalog(file: FitsFile) -> dict[str, Any] | None:
    """Return the components of a catalog; None if it is in a form that is not understood."""
    found: dict[str, Any] = {"table": None, "header": file.header(0), "fits": []}
    for index, _, record in file.records():
        if index == 1:
            found["table"] = _tables.read_table(record)
            record["component"] = "table"
        found["fits"].append(record)
    return found if found["table"] is not None else None


def fits_bytes(composite: Composite) -> bytes:
    """Return the FITS file from which a composite was converted, with the pixels and columns that it has now.

    The file is read again, to check that it says what the composite does.

    Parameters
    ----------
    composite : Composite
        What `read_fits` or `read_exposure` returned, or what was stored of it.

    Returns
    -------
    bytes
        The same bytes as those of the original file, except for images that were tile-compressed: these come as
        plain images of the same pixels. ``astropy.io.fits.HDUList.fromstring`` makes HDUs of it.

    Raises
    ------
    AbsentComponentError, NoSuchComponentError
        If it wasn't converted from a FITS file, or lacks a plane that this had.
    ConversionError
        If components were added or changed that the headers and tables kept of the FITS file don't follow: a new WCS,
        images of another shape, ...
    """
    where = composite.location or repr(composite)
    try:
        parts = [_headers.to_bytes(composite["header"])]
        for record in composite["fits"]:
            if "header" in record:
                parts.append(_headers.to_bytes(record["header"]))
            parts.append(record["data"] if "data" in record else _data_bytes(composite, record))
        content = b"".join(parts)
    except CompositeH5Error:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, fits.VerifyError) as error:
        raise ConversionError(f"{where}: what is kept of its FITS file makes no sense: {error!r}") from error
    again = read_fits(content)
    names = [name for name in composite if name not in _VERBATIM]
    if changed := [
        name for name in names if name not in again or again.component_digest(name) != composite.component_digest(name)
    ]:
        raise ConversionError(
            f"{where}: {', '.join(changed)}: differs from what the headers and tables "
            f"say that were kept of its FITS file, so it can't be written as that; `export` writes single components"
        )
    return content


def _data_bytes(composite: Composite, record: Any) -> bytes:
    value = composite[record["component"]]
    if isinstance(value, Table):
        return _tables.table_bytes(value, _headers.from_cards(record["header"]))
    pixels = np.asarray(value)
    return pixel_bytes(_images.uncertainty(pixels, record["uncertainty"]) if "uncertainty" in record else pixels)


def write_fits(composite: Composite, path: str | os.PathLike[str], *, replace: bool = False) -> None:
    """Write the FITS file from which a composite was converted, all of it or nothing; see `fits_bytes`.

    Parameters
    ----------
    composite : Composite
        What `read_fits` or `read_exposure` returned, or what was stored of it.
    path : path
        The file; missing folders are made.
    replace : bool, optional
        Whether another file that is there is replaced. One with the same bytes is always accepted.

    Raises
    ------
    ConversionError, AbsentComponentError, NoSuchComponentError
        As `fits_bytes` does; nothing is written then.
    ConflictError
        If there is another file of that name.
    OSError
        If it can't be written.
    """
    content = fits_bytes(composite)
    target = os.path.abspath(path)
    make_folders(os.path.dirname(target))
    try:
        publish(target, content, replace=replace)
    except FileExistsError as error:
        with open(target, "rb") as file:
            if file.read() == content:
                return
        raise ConflictError(f"{target}: holds something else; choose another path, or pass replace=True") from error


# ---- Files ------------------------------------------------------------------------------------------------


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    replace: bool = False,
    data_id: DataId | None = None,
) -> Composite:
    """Convert a FITS file to a composite file, or one that was converted from it back, all of it or nothing.

    What the source is follows from its content, not from its name; the page of this module tells what becomes of a
    FITS file.

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
    progress: Progress = no_progress,
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
    return list(
        map_in_order(partial(_convert, replace), tasks, executor=executor, progress=progress, step="converting")
    )


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
            sync_folder(os.path.dirname(target) or ".")
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
