"""What the LSST pipelines write of an exposure beside its pixels: header keywords, and an archive of tables.

The names and meanings follow the package ``afw`` of the LSST pipelines: its page "FITS metadata for lsst.afw.image
Exposures", and the sources ``ExposureFitsReader.cc``, ``PhotoCalib.cc``,
``VisitInfo.cc``, ``ChebyshevBoundedField.cc`` and ``Detector.cc``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from astropy.coordinates import Angle, EarthLocation, SkyCoord
from astropy.io import fits
from astropy.time import ScaleValueError, Time
from astropy.units import Quantity, UnitBase

from ..errors import EncodeError
from ..kinds.photo_calib import ChebyshevField, PhotoCalib
from . import _headers
from ._archive import Archive, Table

REFERENCE_FLUX = 1e23 * 10 ** (-48.6 / 2.5) * 1e9
"""Flux of an AB magnitude of zero, in nJy (about 3631 Jy)."""

_DETECTOR_TYPES = ("SCIENCE", "FOCUS", "GUIDER", "WAVEFRONT")
# How afw tells a band from a physical filter where there is only one name.
_BAND = re.compile(r"[ugrizy]|SH|PH|VR|white|N\d+|I\d{2,}")

# The fields of visit_info: their keywords in exposures, their columns in tables of VisitInfo objects, and the type or
# the unit. Angles are in degrees in headers, and in radians in tables. Those without a type are made of the next ones.
_VISIT_INFO: dict[str, tuple[str, str, Any]] = {
    "id": ("IDNUM", "idnum", int),
    "instrument": ("INSTRUMENT", "instrumentlabel", str),
    "observation_type": ("OBSTYPE", "observationType", str),
    "observation_reason": ("REASON", "observationReason", str),
    "science_program": ("PROGRAM", "scienceProgram", str),
    "object": ("OBJECT", "object", str),
    "has_simulated_content": ("HAS-SIMULATED-CONTENT", "hasSimulatedContent", bool),
    "exposure_time": ("EXPTIME", "exposuretime", "s"),
    "dark_time": ("DARKTIME", "darktime", "s"),
    "date_avg": ("", "", None),
    "ut1": ("MJD-AVG-UT1", "ut1", Time),
    "earth_rotation_angle": ("AVG-ERA", "era", Angle),
    "boresight": ("", "", None),
    "boresight_ra": ("BORE-RA", "boresightradec_ra", Angle),
    "boresight_dec": ("BORE-DEC", "boresightradec_dec", Angle),
    "boresight_azimuth": ("BORE-AZ", "boresightazalt_az", Angle),
    "boresight_altitude": ("BORE-ALT", "boresightazalt_alt", Angle),
    "boresight_airmass": ("BORE-AIRMASS", "boresightairmass", float),
    "boresight_rotation_angle": ("BORE-ROTANG", "boresightrotangle", Angle),
    "rotation_type": ("ROTTYPE", "", str),
    "observatory": ("", "", None),
    "observatory_longitude": ("OBS-LONG", "longitude", Angle),
    "observatory_latitude": ("OBS-LAT", "latitude", Angle),
    "observatory_elevation": ("OBS-ELEV", "elevation", "m"),
    "weather": ("", "", None),
    "air_temperature": ("AIRTEMP", "airtemperature", "deg_C"),
    "air_pressure": ("AIRPRESS", "airpressure", "Pa"),
    "humidity": ("HUMIDITY", "humidity", "percent"),
    "focus_z": ("FOCUSZ", "focusz", "mm"),
}
_ROTATION_TYPES = ("UNKNOWN", "SKY", "HORIZON", "MOUNT")
_NO_DATE = -(2**63)  # of lsst.daf.base.DateTime

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
        "visit_info": _visit_info(header) or None,
        "photo_calib": _flux_of_zero_magnitude(header, unit),
        "detector": _detector_names(header) or None,
        "filter": _filter_name(header),
        "metadata": {"exposure_id": number} if (number := _headers.integer(header, "EXPID")) is not None else None,
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
        return {"visit_info": _visit_info_of_table(tables[0])}
    if tables and tables[0].type == "PhotoCalib":
        calibration = _photo_calib(tables[0], archive, "adu")
        return {} if calibration is None else {"photo_calib": calibration}
    return {}


# ---- Header keywords --------------------------------------------------------------------------------------


def _flux_of_zero_magnitude(header: fits.Header, unit: UnitBase | str) -> PhotoCalib | None:
    """Return the calibration that old headers give as the counts of an AB magnitude of zero."""
    counts = _headers.number(header, "FLUXMAG0")
    if counts is None or counts <= 0:
        return None
    error = _headers.number(header, "FLUXMAG0ERR") or 0.0
    return PhotoCalib(REFERENCE_FLUX / counts, REFERENCE_FLUX * error / counts**2, instrumental_unit=unit)


def _detector_names(header: fits.Header) -> dict[str, Any]:
    return _known({"name": _headers.text(header, "DETNAME"), "serial": _headers.text(header, "DETSER")})


def _filter_name(header: fits.Header) -> dict[str, Any] | None:
    name = _headers.text(header, "FILTER")
    if name is None or name == "_unknown_":
        return None
    return {"band" if _BAND.fullmatch(name) else "physical": name}


# ---- The visit --------------------------------------------------------------------------------------------


def _visit_info(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the header tells of the visit; what it doesn't tell is missing.

    ``EXPID`` is not among it, for it differs from one detector of the visit to the other.
    """
    fields = {name: _field(header, key, what) for name, (key, _, what) in _VISIT_INFO.items()}
    fields["id"] = fields["id"] or None
    fields["date_avg"] = _date(header)
    ra, dec = fields["boresight_ra"], fields["boresight_dec"]
    if ra is not None and dec is not None and abs(dec.degree) <= 90:
        fields |= {"boresight": SkyCoord(ra, dec, frame="icrs"), "boresight_ra": None, "boresight_dec": None}
    names = [f"observatory_{name}" for name in ("longitude", "latitude", "elevation")]
    place = [fields[name] for name in names]
    if all(item is not None for item in place) and abs(place[1].degree) <= 90:
        fields |= {**dict.fromkeys(names), "observatory": EarthLocation.from_geodetic(*place)}
    weather = {name: fields.pop(name) for name in ("air_temperature", "air_pressure", "humidity")}
    fields["weather"] = _known(weather) or None
    return _known(fields)


def _field(header: Mapping[str, Any], key: str, what: Any) -> Any:
    """Return the value of a keyword as a type, or as a number in a unit; None if there is none."""
    if what is bool:
        return _headers.value(header, key)
    if what in (int, str):
        return (_headers.integer if what is int else _headers.text)(header, key)
    number = _headers.number(header, key)
    if what is None or number is None or what is float:
        return number
    if what is Time:
        return Time(number, format="mjd", scale="ut1")
    return Angle(number, "deg") if what is Angle else Quantity(number, what)


def _date(header: Mapping[str, Any]) -> Time | None:
    """Return the middle of the exposure as TAI; None if there is no date, or one that can't be understood."""
    # TIME-MID is UTC whatever TIMESYS says, as comment and keyword were wrong when this keyword was in use.
    scales = {"DATE-AVG": (_headers.text(header, "TIMESYS") or "UTC").lower(), "TIME-MID": "utc"}
    for key, scale in scales.items():
        if (date := _headers.text(header, key)) is not None:
            try:
                return Time(date, format="isot", scale=scale).tai
            except (ValueError, ScaleValueError):
                return None
    return None


def _visit_info_of_table(table: Table) -> dict[str, Any]:
    """Return what the only row of a table of ``VisitInfo`` objects tells of the visit, as `_visit_info` does."""
    keywords: dict[str, Any] = {}
    for key, column, what in _VISIT_INFO.values():
        if what is Angle:
            keywords[key] = math.degrees(table.scalar(column))
        elif column and column in table and (value := table.scalar(column)) not in ("", None):
            keywords[key] = value
    turn, tai = table.scalar("rottype"), table.scalar("tai")
    if 0 <= turn < len(_ROTATION_TYPES):
        keywords["ROTTYPE"] = _ROTATION_TYPES[turn]
    if tai != _NO_DATE:
        seconds, nanoseconds = divmod(tai, 10**9)
        # Days of TAI have 86400 seconds, as those of the clocks of Unix do.
        date = datetime(1970, 1, 1) + timedelta(seconds=seconds)
        keywords |= {"DATE-AVG": f"{date.isoformat()}.{nanoseconds:09}", "TIMESYS": "TAI"}
    return _visit_info(keywords)


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: field for name, field in fields.items() if field is not None}


# ---- Objects of the archive -------------------------------------------------------------------------------


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
    return {**_known(fields), "amplifiers": columns}


def _filter_label(table: Table) -> dict[str, Any]:
    return {name: table.scalar(name) for name in ("band", "physical") if table.scalar(f"{name}_exists")}
