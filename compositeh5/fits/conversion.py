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

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from astropy.table import Table

from ..composite.composite import Composite
from ..errors import CompositeH5Error, ConflictError, ConversionError, EncodeError
from ..storage.publish import make_folders, publish
from . import _afw, _exposure, _images, _keywords, _tables
from ._hdus import MAGIC, FitsFile, cards_of, header_bytes, open_fits, pixel_bytes

if TYPE_CHECKING:
    from ..composite.link import DataId

__all__ = ["MAGIC", "fits_bytes", "read_exposure", "read_fits", "write_fits"]

_VERBATIM = ("header", "fits")


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
        if _exposure.is_exposure(hdus):
            return _composite("exposure", _exposure.components(file), file, data_id)
        second = hdus[1].header if len(hdus) > 1 else fits.Header()
        if _keywords.text(second, "AFW_TYPE") in ("SOURCE", "SIMPLE") and (catalog := _catalog(file)):
            return _composite("source_catalog", catalog, file, data_id)
        if _keywords.text(second, "EXTTYPE") == "ARCHIVE_INDEX" and (own := _afw.object_of_its_own(hdus, file.where)):
            records = [record for _, _, record in file.records()]
            return _composite(None, {**own, "header": file.header(0), "fits": records}, file, data_id)
        if (main := _images.main_image(hdus)) is not None:
            return _composite("exposure", _images.ccd_components(file, main), file, data_id)
        return _composite(None, _images.components(file), file, data_id)


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
        return _composite("exposure", _exposure.components(file), file, data_id)


def _composite(definition: str | None, components: dict[str, Any], file: FitsFile, data_id: DataId | None) -> Composite:
    source = {"format": "FITS", "sha256": file.digest()}
    try:
        return Composite(
            definition,
            components,
            data_id={**_exposure.data_id(components), **(data_id or {})},
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
        parts = [header_bytes(composite["header"])]
        for record in composite["fits"]:
            if "header" in record:
                parts.append(header_bytes(record["header"]))
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
        return _tables.table_bytes(value, cards_of(record["header"]))
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
