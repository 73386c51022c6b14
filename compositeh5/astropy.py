"""Composites as objects of astropy, and back; files of composites in astropy's unified I/O.

Importing this module registers the format ``"compositeh5"``; astropy has no other way for packages to offer one::

    import compositeh5.astropy
    from astropy.nddata import CCDData
    from astropy.table import QTable

    ccd = CCDData.read("calexp.h5")  # CCDData, NDDataRef: known by what is in the file; planes=["SAT"] chooses
    ccd.write("new.h5", format="compositeh5")
    sources = QTable.read("src.h5", columns=["id", "flux"])  # QTable and Table

``CCDData.read.help("compositeh5")`` shows what else can be given. URLs need ``format="compositeh5"``: astropy would
otherwise fetch the whole file to see what it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial, update_wrapper
from typing import IO, Any

import numpy as np
from astropy.io import fits, registry
from astropy.nddata import (
    CCDData,
    InverseVariance,
    NDData,
    NDDataRef,
    NDUncertainty,
    StdDevUncertainty,
    VarianceUncertainty,
)
from astropy.table import QTable, Table

from . import kinds
from .composite.composite import Composite
from .composite.link import DataId
from .composite.opening import open_composite
from .errors import CompositeH5Error, ConversionError, EncodeError, NoSuchComponentError, WrongTypeError
from .kinds.image import Image
from .kinds.mask import Mask
from .kinds.psf import Psf
from .storage.layout import is_copy, is_ours
from .storage.reader import StoredFile

FORMAT = "compositeh5"
"""The name of the format in astropy's registry."""

_Source = str | os.PathLike[str] | IO[bytes]


# ---- Exposures ---------------------------------------------------------------------------------------------


def to_nddata(
    composite: Composite,
    cls: type[NDData] = CCDData,
    *,
    planes: Iterable[str] | None = None,
    uncertainty: type[NDUncertainty] = VarianceUncertainty,
    unit: Any = None,
) -> NDData:
    """Return an exposure as a `CCDData`, or another class of astropy's.

    For a part of it, give it ``composite.cutout(...)``: the WCS is then that of the part.

    Parameters
    ----------
    composite : Composite
        One with the component ``image``, of shape (..., y, x); ``mask``, ``variance``, ``wcs``, ``psf``, and
        ``header`` or ``metadata`` are used if they are there. Of a linked component that is lost, the error is raised.
    cls : type, optional
        `CCDData`, `NDDataRef` or another subclass of `NDData`.
    planes : iterable of str, optional
        The planes of the mask of which any makes a pixel masked, as in `Mask.bad`.
    uncertainty : type, optional
        As what the variance is given: `VarianceUncertainty`, `StdDevUncertainty` or `InverseVariance`.
    unit : str or astropy.units.UnitBase, optional
        Unit of the pixels, if the composite doesn't know it.

    Returns
    -------
    NDData
        ``data`` and ``uncertainty`` of the types of the pixels, ``mask`` bool (True is bad), ``wcs`` for indices of
        this array (its place in parent coordinates is not kept), ``psf`` the kernel in the middle (not if it is
        oversampled), ``meta`` the FITS header of the file from which it was converted, or a dict of ``metadata``.

    Raises
    ------
    ConversionError
        If a `CCDData` is wanted, and there is no unit.
    MaskPlaneError
        If the mask has no plane of one of the names.
    EncodeError
        If one of them is something else than pixels.
    CompositeH5Error
        As ``composite["image"]`` does.
    """
    if not (isinstance(uncertainty, type) and issubclass(uncertainty, NDUncertainty)):
        raise WrongTypeError(f"a class of uncertainties of astropy was expected, not {uncertainty!r}")
    # Composites without a definition may have arrays.
    image = kinds.get("image").coerce(composite["image"])
    unit = image.unit if image.unit is not None else unit
    if unit is None and issubclass(cls, CCDData):
        raise ConversionError(f"{composite!r}: the unit of the image isn't known, but CCDData need one; give `unit`")
    variance = kinds.get("image").coerce(composite["variance"]) if "variance" in composite else None
    ndd = cls(
        image.array,
        unit=unit,
        uncertainty=None if variance is None else VarianceUncertainty(variance.array, unit=variance.unit),
        mask=kinds.get("mask").coerce(composite["mask"]).bad(planes) if "mask" in composite else None,
        wcs=composite.get("wcs"),
        psf=_middle_kernel(composite["psf"], image) if "psf" in composite else None,
        meta=_meta(composite),
    )
    if ndd.uncertainty is not None and uncertainty is not VarianceUncertainty:
        ndd.uncertainty = ndd.uncertainty.represent_as(uncertainty)
    return ndd


def to_ccddata(
    composite: Composite,
    *,
    planes: str | Iterable[str] | None = None,
    uncertainty: type[NDUncertainty] = VarianceUncertainty,
    unit: Any = None,
) -> CCDData:
    """Return an exposure as a `astropy.nddata.CCDData`: image, variance, mask, WCS, PSF and header in one.

    Of a part of it: ``to_ccddata(composite.cutout(...))``.

    Parameters
    ----------
    composite : Composite
        One with an image.
    planes, uncertainty, unit
        As for `to_nddata`, which makes other classes than this, such as `NDDataRef`.

    Raises
    ------
    ConversionError
        If the unit of the pixels isn't known.
    MaskPlaneError
        If the mask has no plane of one of the names.
    CompositeH5Error
        As ``composite["image"]`` does.
    """
    return to_nddata(composite, CCDData, planes=planes, uncertainty=uncertainty, unit=unit)


def _middle_kernel(psf: Any, image: Image) -> Any:
    if not isinstance(psf, Psf) or psf.oversampling != (1, 1):
        return None
    y, x = ((first + (n - 1) / 2) for first, n in zip(image.origin, image.shape[-2:], strict=True))
    return psf.at(y, x)


def _meta(composite: Composite) -> fits.Header | dict[str, Any]:
    if "header" in composite:
        return fits.Header.fromstring(composite["header"], sep="\n")
    return dict(composite["metadata"]) if "metadata" in composite else {}


def from_nddata(
    ndd: NDData, *, definition: str | None = "exposure", data_id: DataId | None = None, origin: tuple[int, int] = (0, 0)
) -> Composite:
    """Return a `CCDData`, or another `NDData` of pixels, as a composite in memory.

    Parameters
    ----------
    ndd : NDData
        Pixels of shape (..., y, x). A mask of bools becomes the plane ``BAD``, one of integers bits without names;
        an uncertainty the variance; ``psf`` a constant PSF; a FITS header as ``meta`` the component ``header``, other
        ``meta`` the record ``metadata``.
    definition : str, optional
        Name of the definition of the composite.
    data_id : mapping, optional
        Its data ID.
    origin : tuple of int, optional
        Parent coordinates (y0, x0) of the first pixel.

    Raises
    ------
    EncodeError
        If something can't be stored: an uncertainty of a type that has no variance, a WCS that isn't one of FITS, a
        value in ``meta``.
    """
    components: dict[str, Any] = {"image": Image(np.asarray(ndd.data), origin, ndd.unit)}
    if ndd.uncertainty is not None:
        if not isinstance(ndd.uncertainty, VarianceUncertainty | StdDevUncertainty | InverseVariance):
            raise EncodeError(f"an uncertainty of type {type(ndd.uncertainty).__name__} can't be stored as variance")
        variance = ndd.uncertainty.represent_as(VarianceUncertainty)
        components["variance"] = Image(np.asarray(variance.array), origin, variance.unit)
    if ndd.mask is not None:
        mask = np.broadcast_to(np.asarray(ndd.mask), components["image"].shape)
        bad = mask.dtype.kind == "b"
        components["mask"] = Mask(mask.astype("u1") if bad else mask, {"BAD": 0} if bad else {}, origin)
    if ndd.wcs is not None:
        components["wcs"] = ndd.wcs
    if ndd.psf is not None:
        components["psf"] = Psf.constant(ndd.psf)
    if isinstance(ndd.meta, fits.Header):
        components["header"] = ndd.meta.tostring(sep="\n", endcard=False, padding=False)
    elif ndd.meta:
        components["metadata"] = dict(ndd.meta)
    return Composite(definition, components, data_id=data_id)


# ---- Unified I/O -------------------------------------------------------------------------------------------


def is_composite(origin: str, path: str | None, file: IO[bytes] | None, /, *args: Any, **kwargs: Any) -> bool:
    """Tell astropy's registry whether a file that is to be read is one of ours, from its first bytes and its root.

    Parameters
    ----------
    origin, path, file, *args, **kwargs
        What the registry gives: ``"read"`` or ``"write"``, the path if there is one, the file if it is open, and
        what the user gave to ``read`` or ``write``.
    """
    if origin != "read" or file is None or not file.seekable():
        return False
    position = file.tell()
    try:
        stored = StoredFile(file, str(path))
        try:
            return is_ours(stored) or is_copy(stored)
        finally:
            stored.close()
    except (CompositeH5Error, OSError):
        return False
    finally:
        file.seek(position)


def _open(source: _Source, name: str | None) -> Composite:
    # Of what it is to recognise, astropy gives the open file and not its path; links are relative to that.
    path = getattr(source, "name", None)
    return open_composite(source, name, location=path if isinstance(path, str) and os.path.isfile(path) else None)


def read_nddata(source: _Source, name: str | None = None, *, cls: type[NDData] = CCDData, **options: Any) -> NDData:
    """Read an exposure.

    Parameters
    ----------
    source : path, URL or binary file object
        The file.
    name : str, optional
        Name of the composite, for a file that holds several.
    cls : type, optional
        What to return; given by astropy.
    **options
        ``planes``, ``uncertainty`` and ``unit`` of `to_nddata`.

    Raises
    ------
    OSError, CompositeH5Error
        As `compositeh5.open` and `to_nddata` do.
    """
    with _open(source, name) as composite:
        return to_nddata(composite, cls, **options)


def write_nddata(ndd: NDData, path: str | os.PathLike[str], *, overwrite: bool = False, **options: Any) -> None:
    """Write an exposure, all of it or nothing.

    Parameters
    ----------
    ndd : NDData
        The exposure.
    path : path
        The file; missing folders are made.
    overwrite : bool, optional
        Whether another composite that is there is replaced.
    **options
        ``definition``, ``data_id`` and ``origin`` of `from_nddata`.

    Raises
    ------
    FileExistsError
        If the file exists and holds something else.
    EncodeError
        If something can't be stored.
    """
    from_nddata(ndd, **options).write(path, replace=overwrite)


def read_table(
    source: _Source,
    component: str | None = None,
    *,
    name: str | None = None,
    cls: type[Table] = QTable,
    columns: Iterable[str] | None = None,
    rows: Any = None,
) -> Table:
    """Read a table, or some of its columns and rows.

    Parameters
    ----------
    source : path, URL or binary file object
        The file.
    component : str, optional
        Name of the component; by default the only one of kind ``table``.
    name : str, optional
        Name of the composite, for a file that holds several.
    cls : type, optional
        What to return; given by astropy.
    columns : iterable of str, optional
        The columns wanted, in their order; no others are read.
    rows : slice, optional
        The rows wanted.

    Raises
    ------
    NoSuchComponentError
        If there is no such component, or not exactly one table to choose.
    OSError, CompositeH5Error
        As `compositeh5.open` does.
    """
    chosen = {"columns": columns, "rows": rows}
    with _open(source, name) as composite:
        tables = [key for key in composite if composite.kind(key) == "table"]
        if component is None and len(tables) != 1:
            held = ", ".join(tables) or "none"
            raise NoSuchComponentError(f"{composite.location}: say which table is meant; there are: {held}")
        table = composite.read(
            component or tables[0], **{key: value for key, value in chosen.items() if value is not None}
        )
    return table if type(table) is cls else cls(table, copy=False)


def write_table(
    table: Table,
    path: str | os.PathLike[str],
    component: str = "table",
    *,
    overwrite: bool = False,
    definition: str | None = None,
    data_id: Mapping[str, Any] | None = None,
) -> None:
    """Write a table as a composite of its own, all of it or nothing.

    Parameters
    ----------
    table : Table
        The table.
    path : path
        The file; missing folders are made.
    component : str, optional
        Name of the component that it becomes.
    overwrite : bool, optional
        Whether another composite that is there is replaced.
    definition : str, optional
        Name of the definition of the composite, such as ``"source_catalog"``.
    data_id : mapping, optional
        Its data ID.

    Raises
    ------
    FileExistsError
        If the file exists and holds something else.
    EncodeError
        If a column can't be stored.
    """
    Composite(definition, {component: table}, data_id=data_id).write(path, replace=overwrite)


def _register() -> None:
    for cls, read, write in (
        (CCDData, read_nddata, write_nddata),
        (NDDataRef, read_nddata, write_nddata),
        (Table, read_table, write_table),
        (QTable, read_table, write_table),
    ):
        # Before astropy's own reader of tables in HDF5, which takes all files of HDF5.
        reader = update_wrapper(partial(read, cls=cls), read)
        registry.register_reader(FORMAT, cls, reader, force=True, priority=1)
        registry.register_writer(FORMAT, cls, write, force=True)
        # A class with a format of its own is no longer asked for those of its base: QTable would know no other.
        if cls is not QTable:
            registry.register_identifier(FORMAT, cls, is_composite, force=True)


_register()
