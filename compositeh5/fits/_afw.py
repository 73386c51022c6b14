"""What the LSST pipelines write of an exposure beside its pixels: header keywords, and an archive of tables.

The names and meanings follow the package ``afw`` of the LSST pipelines: its page "FITS metadata for lsst.afw.image
Exposures", and the sources ``ExposureFitsReader.cc``, ``PhotoCalib.cc``,
``ChebyshevBoundedField.cc``, ``Detector.cc`` and ``InputArchive.cc``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from astropy.io import fits
from astropy.units import UnitBase

from ..errors import ConversionError, EncodeError
from ..kinds.photo_calib import ChebyshevField, PhotoCalib
from . import _keywords, _visit_info
from ._archive_table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

REFERENCE_FLUX = 1e23 * 10 ** (-48.6 / 2.5) * 1e9
"""Flux of an AB magnitude of zero, in nJy (about 3631 Jy)."""

_DETECTOR_TYPES = ("SCIENCE", "FOCUS", "GUIDER", "WAVEFRONT")
# How afw tells a band from a physical filter where there is only one name.
_BAND = re.compile(r"[ugrizy]|SH|PH|VR|white|N\d+|I\d{2,}")

# Objects of the archive that stay among the verbatim tables, by component.
_NOT_UNDERSTOOD = {
    "psf": "PSF",
    "ap_corr_map": "AP_CORR_MAP",
    "summary_stats": "SUMMARY_STATS",
    "transmission_curve": "TRANSMISSION_CURVE",
}


def components(hdus: fits.HDUList, header: fits.Header, unit: UnitBase | str, where: str) -> dict[str, Any]:
    """Return the components that header and archive hold.

    Parameters
    ----------
    hdus : astropy.io.fits.HDUList
        The file.
    header : astropy.io.fits.Header
        The header with the keywords of the exposure.
    unit : astropy.units.UnitBase or str
        Unit of the pixels.
    where : str
        The file, for messages.

    Returns
    -------
    dict
        By name; None for those that the file says don't exist. Missing are those that it holds in a form that
        is not understood.

    Raises
    ------
    ConversionError
        If the archive is damaged, or an object in it lacks what it should have.
    """
    found: dict[str, Any] = {
        "visit_info": _visit_info.from_header(header) or None,
        "photo_calib": _flux_of_zero_magnitude(header, unit),
        "detector": _detector_names(header) or None,
        "filter": _filter_name(header),
        "metadata": {"exposure_id": number} if (number := _keywords.integer(header, "EXPID")) is not None else None,
    }
    archive = Archive(hdus, header, where)
    found |= {name: None for name, key in _NOT_UNDERSTOOD.items() if not archive.find(key)}
    if tables := archive.find("PHOTOCALIB"):
        found["photo_calib"] = _photo_calib(tables[0], archive, unit)
        if found["photo_calib"] is None:
            del found["photo_calib"]
    if tables := archive.find("DETECTOR"):
        found["detector"] = _detector(tables)
    if tables := archive.find("FILTER"):
        found["filter"] = _filter_label(tables[0])
    return found


def object_of_its_own(hdus: fits.HDUList, where: str) -> dict[str, Any]:
    """Return the component that a file holds of which the archive is all: ``photo_calib`` or ``visit_info``.

    Returns
    -------
    dict
        Empty if the object is of another type, or in a form that is not understood.

    Raises
    ------
    ConversionError
        As `components` does.
    """
    archive = Archive(hdus, {"AR_HDU": 2}, where)
    tables = archive.get(1)  # the object for which the archive was made
    if tables and tables[0].type == "VisitInfo":
        return {"visit_info": _visit_info.from_table(tables[0])}
    if tables and tables[0].type == "PhotoCalib":
        calibration = _photo_calib(tables[0], archive, "adu")
        return {} if calibration is None else {"photo_calib": calibration}
    return {}


# ---- Header keywords --------------------------------------------------------------------------------------


def _flux_of_zero_magnitude(header: fits.Header, unit: UnitBase | str) -> PhotoCalib | None:
    """Return the calibration that old headers give as the counts of an AB magnitude of zero."""
    counts = _keywords.number(header, "FLUXMAG0")
    if counts is None or counts <= 0:
        return None
    error = _keywords.number(header, "FLUXMAG0ERR") or 0.0
    return PhotoCalib(REFERENCE_FLUX / counts, REFERENCE_FLUX * error / counts**2, instrumental_unit=unit)


def _detector_names(header: fits.Header) -> dict[str, Any]:
    return _visit_info.known({"name": _keywords.text(header, "DETNAME"), "serial": _keywords.text(header, "DETSER")})


def _filter_name(header: fits.Header) -> dict[str, Any] | None:
    name = _keywords.text(header, "FILTER")
    if name is None or name == "_unknown_":
        return None
    return {"band" if _BAND.fullmatch(name) else "physical": name}


# ---- The archive ------------------------------------------------------------------------------------------


class Archive:
    """The objects that an exposure keeps in binary tables behind its images.

    The first of the tables is an index: for each object (by number) the rows that it has in the others. The header
    tells the number of each component's object.
    """

    def __init__(self, hdus: fits.HDUList, header: Mapping[str, Any], where: str) -> None:
        self._header, self._where = header, where
        self._tables: list[fits.BinTableHDU] = []
        self._rows: dict[int, list[tuple[int, int, int, int]]] = {}
        first = _keywords.integer(header, "AR_HDU")  # counted from 1
        if not first:
            return
        index = hdus[first - 1] if 1 < first <= len(hdus) else None
        if not isinstance(index, fits.BinTableHDU) or _keywords.text(index.header, "EXTTYPE") != "ARCHIVE_INDEX":
            raise ConversionError(
                f"{where}: keyword AR_HDU says that HDU {first - 1} (from 0) is the index of the archive, but it isn't"
            )
        length = _keywords.integer(index.header, "AR_NCAT") or 0
        self._tables = hdus[first - 1 : first - 1 + length]
        if len(self._tables) < length or not all(isinstance(hdu, fits.BinTableHDU) for hdu in self._tables):
            raise ConversionError(f"{where}: the archive should be {length} tables from HDU {first - 1} on; some miss")
        rows = Table(index, slice(None), f"{where}: archive index")
        names = ["cat.persistable", "cat.archive", "row0", "nrows"]
        if names[0] not in rows:  # as it was first
            names = [name.replace(".", "_") for name in names]
        for number, *entry in zip(rows.column("id"), *map(rows.column, names), strict=True):
            self._rows.setdefault(int(number), []).append(tuple(map(int, entry)))  # type: ignore[arg-type]

    def find(self, name: str) -> list[Table]:
        """Return the tables of a component's object; none if there is no such object."""
        number = _keywords.integer(self._header, f"ARCHIVE_ID_{name}") or _keywords.integer(self._header, f"{name}_ID")
        return self.get(number) if number else []

    def get(self, number: int) -> list[Table]:
        """Return the tables of an object.

        Raises
        ------
        ConversionError
            If the archive has no object of that number.
        """
        if number not in self._rows:
            raise ConversionError(f"{self._where}: the archive has no object {number}, to which the file refers")
        tables = []
        for _, table, row, length in sorted(self._rows[number]):
            if not 0 < table < len(self._tables):
                raise ConversionError(f"{self._where}: object {number} of the archive is in a table that is missing")
            hdu = self._tables[table]
            where = f"{self._where}: archive table {table} ({_keywords.text(hdu.header, 'AR_NAME')})"
            tables.append(Table(hdu, slice(row, row + length), where))
        return tables


def _photo_calib(table: Table, archive: Archive, unit: UnitBase | str) -> PhotoCalib | None:
    """Return the calibration; None if it is no number, or in a form that is not understood."""
    # Version 0 was in other units.
    if "version" not in table or table.scalar("version") != 1:
        return None
    try:
        chebyshev = None
        if not table.scalar("isConstant"):
            field = archive.get(table.scalar("field"))[0]
            if field.type != "ChebyshevBoundedField":
                return None
            coefficients = field.column("coefficients")[0].reshape(-1, field.scalar("order_x") + 1)
            chebyshev = ChebyshevField(coefficients, field.box())
        return PhotoCalib(table.scalar("calibrationMean"), table.scalar("calibrationErr"), chebyshev, unit)
    except EncodeError:
        return None


def _detector(tables: list[Table]) -> dict[str, Any]:
    """Return the detector, its amplifiers as columns of one item each."""
    table, amplifiers = tables
    box = table.box()
    fields: dict[str, Any] = {
        "id": table.scalar("id"),
        "name": table.scalar("name"),
        "serial": table.scalar("serial"),
        "type": _DETECTOR_TYPES[table.scalar("type")],
        "physical_type": table.scalar("physicalType") if "physicalType" in table else None,
        "box": {"y0": box.y0, "y1": box.y1, "x0": box.x0, "x1": box.x1},
    }
    for name, column in (
        ("pixel_size", "pixelSize"),
        ("focal_plane", "fpPosition"),
        ("reference_point", "refPoint"),
    ):
        fields |= {f"{name}_{axis}": table.quantity(f"{column}_{axis}")[0] for axis in "yx"}
    fields |= {name: table.quantity(name)[0] for name in ("yaw", "pitch", "roll")}
    columns = {name: amplifiers.quantity(name) for name in amplifiers}
    if "crosstalk" in table and (crosstalk := table.column("crosstalk")[0]).size:
        fields["crosstalk"] = crosstalk.reshape(len(amplifiers.column("name")), -1)
    return {**_visit_info.known(fields), "amplifiers": columns}


def _filter_label(table: Table) -> dict[str, Any]:
    return {name: table.scalar(name) for name in ("band", "physical") if table.scalar(f"{name}_exists")}
