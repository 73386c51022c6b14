"""The metadata of a visit, from the keywords of an exposure or from a table of ``VisitInfo`` objects.

The names and meanings follow ``VisitInfo.cc`` of the package ``afw`` of the LSST pipelines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from astropy.coordinates import Angle, EarthLocation, SkyCoord
from astropy.time import ScaleValueError, Time
from astropy.units import Quantity

from . import _keywords
from ._archive_table import Table

# The keywords of exposures for the columns of tables of VisitInfo objects; the angles there are in radians.
_COLUMNS = {
    "IDNUM": "idnum",
    "INSTRUMENT": "instrumentlabel",
    "OBSTYPE": "observationType",
    "REASON": "observationReason",
    "PROGRAM": "scienceProgram",
    "OBJECT": "object",
    "HAS-SIMULATED-CONTENT": "hasSimulatedContent",
    "EXPTIME": "exposuretime",
    "DARKTIME": "darktime",
    "MJD-AVG-UT1": "ut1",
    "BORE-AIRMASS": "boresightairmass",
    "OBS-ELEV": "elevation",
    "AIRTEMP": "airtemperature",
    "AIRPRESS": "airpressure",
    "HUMIDITY": "humidity",
    "FOCUSZ": "focusz",
}
_ANGLES = {
    "AVG-ERA": "era",
    "BORE-RA": "boresightradec_ra",
    "BORE-DEC": "boresightradec_dec",
    "BORE-AZ": "boresightazalt_az",
    "BORE-ALT": "boresightazalt_alt",
    "BORE-ROTANG": "boresightrotangle",
    "OBS-LONG": "longitude",
    "OBS-LAT": "latitude",
}
_ROTATION_TYPES = ("UNKNOWN", "SKY", "HORIZON", "MOUNT")
_NO_DATE = -(2**63)
"""How ``lsst.daf.base.DateTime`` says that there is none."""


def from_header(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the header tells of the visit; what it doesn't tell is missing.

    ``EXPID`` is not among it, for it differs from one detector of the visit to the other.
    """
    weather = {
        "air_temperature": _quantity(_keywords.number(header, "AIRTEMP"), "deg_C"),
        "air_pressure": _quantity(_keywords.number(header, "AIRPRESS"), "Pa"),
        "humidity": _quantity(_keywords.number(header, "HUMIDITY"), "percent"),
    }
    ut1 = _keywords.number(header, "MJD-AVG-UT1")
    fields = {
        "id": _keywords.integer(header, "IDNUM") or None,
        "instrument": _keywords.text(header, "INSTRUMENT"),
        "observation_type": _keywords.text(header, "OBSTYPE"),
        "observation_reason": _keywords.text(header, "REASON"),
        "science_program": _keywords.text(header, "PROGRAM"),
        "object": _keywords.text(header, "OBJECT"),
        "has_simulated_content": _keywords.value(header, "HAS-SIMULATED-CONTENT"),
        "exposure_time": _quantity(_keywords.number(header, "EXPTIME"), "s"),
        "dark_time": _quantity(_keywords.number(header, "DARKTIME"), "s"),
        "date_avg": _date(header),
        "ut1": None if ut1 is None else Time(ut1, format="mjd", scale="ut1"),
        "earth_rotation_angle": _angle(header, "AVG-ERA"),
        **_boresight(header),
        "boresight_azimuth": _angle(header, "BORE-AZ"),
        "boresight_altitude": _angle(header, "BORE-ALT"),
        "boresight_airmass": _keywords.number(header, "BORE-AIRMASS"),
        "boresight_rotation_angle": _angle(header, "BORE-ROTANG"),
        "rotation_type": _keywords.text(header, "ROTTYPE"),
        **_observatory(header),
        "weather": known(weather) or None,
        "focus_z": _quantity(_keywords.number(header, "FOCUSZ"), "mm"),
    }
    return known(fields)


def from_table(table: Table) -> dict[str, Any]:
    """Return what the only row of a table of ``VisitInfo`` objects tells of the visit, as `from_header` does.

    Raises
    ------
    ConversionError
        If there isn't one row, or what every version has is missing.
    """
    keywords = {
        key: value
        for key, column in _COLUMNS.items()
        if column in table and (value := table.scalar(column)) not in ("", None)
    }
    degrees = {key: math.degrees(table.scalar(column)) for key, column in _ANGLES.items()}
    turn, tai = table.scalar("rottype"), table.scalar("tai")
    if 0 <= turn < len(_ROTATION_TYPES):
        keywords["ROTTYPE"] = _ROTATION_TYPES[turn]
    if tai != _NO_DATE:
        seconds, nanoseconds = divmod(tai, 10**9)
        # Days of TAI have 86400 seconds, as those of the clocks of Unix do.
        date = datetime(1970, 1, 1) + timedelta(seconds=seconds)
        keywords |= {"DATE-AVG": f"{date.isoformat()}.{nanoseconds:09}", "TIMESYS": "TAI"}
    return from_header(keywords | degrees)


def known(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that aren't None."""
    return {name: field for name, field in fields.items() if field is not None}


def _quantity(number: float | None, unit: str) -> Quantity | None:
    return None if number is None else Quantity(number, unit)


def _angle(header: Mapping[str, Any], key: str) -> Angle | None:
    degrees = _keywords.number(header, key)
    return None if degrees is None else Angle(degrees, "deg")


def _date(header: Mapping[str, Any]) -> Time | None:
    """Return the middle of the exposure as TAI; None if there is no date, or one that can't be understood."""
    for key, scale in (
        ("DATE-AVG", (_keywords.text(header, "TIMESYS") or "UTC").lower()),
        # UTC whatever TIMESYS says, as comment and keyword were wrong when this keyword was in use.
        ("TIME-MID", "utc"),
    ):
        date = _keywords.text(header, key)
        if date is not None:
            try:
                return Time(date, format="isot", scale=scale).tai
            except (ValueError, ScaleValueError):
                return None
    return None


def _boresight(header: Mapping[str, Any]) -> dict[str, Any]:
    ra, dec = _angle(header, "BORE-RA"), _angle(header, "BORE-DEC")
    if ra is not None and dec is not None and abs(dec.degree) <= 90:
        return {"boresight": SkyCoord(ra, dec, frame="icrs")}
    return {"boresight_ra": ra, "boresight_dec": dec}


def _observatory(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return the location of the telescope, or the coordinates that there are where they don't make one."""
    longitude, latitude = _angle(header, "OBS-LONG"), _angle(header, "OBS-LAT")
    elevation = _quantity(_keywords.number(header, "OBS-ELEV"), "m")
    if longitude is not None and latitude is not None and elevation is not None and abs(latitude.degree) <= 90:
        return {"observatory": EarthLocation.from_geodetic(longitude, latitude, elevation)}
    return {
        "observatory_longitude": longitude,
        "observatory_latitude": latitude,
        "observatory_elevation": elevation,
    }
