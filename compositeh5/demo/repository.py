"""The Butler repository of the demonstration, and what it must know of a visit before datasets can be put."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from astropy import units as u
from astropy.table import QTable
from lsst.daf.butler import Butler, Config, DatasetRef, Timespan
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

from ..butler import link, put_visit, register_dataset_type
from ..composite.composite import Composite
from ..errors import ConflictError

RUN = "demo"
_MADE = ("butler.yaml", "gen3.sqlite3", RUN)
"""What the demonstration makes in its folder: nothing else is ever removed from it."""

_MARKER = "compositeh5-demo.txt"
_MARKER_TEXT = """This folder was made by `compositeh5 demo`, which replaces what it made when it is run again.
It is a Butler repository, and can be deleted.
"""


def make_repository(directory: str) -> Butler:
    """Return a new repository in a folder that is new, empty, or that of an earlier demonstration; else raise."""
    os.makedirs(directory, exist_ok=True)
    marker = os.path.join(directory, _MARKER)
    if os.path.exists(marker):
        for path in (os.path.join(directory, name) for name in _MADE):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            elif os.path.lexists(path):
                os.remove(path)
    elif os.listdir(directory):
        raise ConflictError(f"{directory}: is not empty, and not from an earlier demonstration; choose another folder")
    with open(marker, "w") as file:
        file.write(_MARKER_TEXT)
    config = Butler.makeRepo(directory, config=Config("resource://compositeh5/butler/configs/seed.yaml"))
    return Butler.from_config(config, run=RUN)


class Dataset(NamedTuple):
    """A dataset of the repository, and its file."""

    ref: DatasetRef
    path: str


@dataclass(frozen=True)
class Stored:
    """What the demonstration stored: a visit, and for each detector an exposure, and a catalog if there are any."""

    visit: Dataset
    exposures: list[Dataset]
    catalogs: list[Dataset]

    def __iter__(self) -> Iterator[Dataset]:
        return iter((self.visit, *self.exposures, *self.catalogs))


def put(butler: Butler, visit: Composite, exposures: Sequence[Composite], tables: Sequence[QTable]) -> Stored:
    """Store a visit, its exposures, and catalogs that link to the calibrations of the exposures."""
    visit_ref, exposure_refs = put_visit(butler, visit, exposures)
    if tables:
        register_dataset_type(butler, "src", "source_catalog")
    catalog_refs = []
    for ref, table in zip(exposure_refs, tables, strict=False):
        shared = {name: link(butler, ref, name) for name in ("photo_calib", "visit_info", "wcs")}
        catalog = Composite("source_catalog", {"table": table, **shared}, data_id=dict(ref.dataId.required))
        catalog_refs.append(butler.put(catalog, "src", ref.dataId))

    def dataset(ref: DatasetRef) -> Dataset:
        return Dataset(ref, butler.getURI(ref).ospath)

    return Stored(dataset(visit_ref), [*map(dataset, exposure_refs)], [*map(dataset, catalog_refs)])


def register_visit(butler: Butler, visit: Composite, exposures: Sequence[Composite]) -> None:
    """Tell the registry about the exposures of one visit, whose data IDs have instrument, visit and detector.

    What an exposure doesn't know (a FITS file need not have a date) stays unknown.
    """
    visit_info: Mapping[str, Any] = visit["visit_info"]
    names: Mapping[str, str] = exposures[0].get("filter", {})
    instrument, number = visit.data_id["instrument"], visit.data_id["visit"]
    timespan = _timespan(visit_info)
    day_obs = 19700101 if timespan is None else int((timespan.begin - 12 * u.hour).strftime("%Y%m%d"))
    corners = {int(exposure.data_id["detector"]): _corners(exposure) for exposure in exposures}
    all_corners = [corner for found in corners.values() if found for corner in found]
    altitude = visit_info.get("boresight_altitude")
    common = {
        "instrument": instrument,
        "day_obs": day_obs,
        "physical_filter": names.get("physical", names.get("band", "unknown")),
        "exposure_time": _number(visit_info.get("exposure_time"), "s"),
        "target_name": visit_info.get("object"),
        "observation_reason": visit_info.get("observation_reason"),
        "science_program": visit_info.get("science_program"),
        "azimuth": _number(visit_info.get("boresight_azimuth"), "deg"),
        "zenith_angle": None if altitude is None else 90 - altitude.to_value("deg"),
        "timespan": timespan,
    }
    of_visit = {"instrument": instrument, "visit": number}
    records: dict[str, list[dict[str, Any]]] = {
        "instrument": [{"name": instrument, "class_name": "", "visit_max": _LARGEST, "exposure_max": _LARGEST,
                        "detector_max": 1 + max(corners)}],
        "physical_filter": [{"instrument": instrument, "name": common["physical_filter"],
                             "band": names.get("band", "unknown")}],
        "day_obs": [{"instrument": instrument, "id": day_obs}],
        "group": [{"instrument": instrument, "name": str(number)}],
        "detector": [
            {"instrument": instrument, "id": exposure.data_id["detector"], "purpose": "SCIENCE",
             "full_name": exposure.get("detector", {}).get("name", str(exposure.data_id["detector"]))}
            for exposure in exposures
        ],
        "exposure": [{**common, "id": number, "group": str(number), "obs_id": str(number),
                      "observation_type": visit_info.get("observation_type"),
                      "has_simulated": visit_info.get("has_simulated_content")}],
        "visit_system": [{"instrument": instrument, "id": 0, "name": "one-to-one"}],
        "visit": [{**common, "id": number, "name": str(number), "region": _hull(all_corners)}],
        "visit_definition": [{**of_visit, "exposure": number}],
        "visit_system_membership": [{**of_visit, "visit_system": 0}],
        "visit_detector_region": [
            {**of_visit, "detector": detector, "region": _hull(found)} for detector, found in corners.items()
        ],
    }  # fmt: skip
    with butler.transaction():
        for element, rows in records.items():
            # Several visits of the demonstration may have the same instrument, filter and detectors.
            butler.registry.insertDimensionData(element, *rows, skip_existing=True)


_LARGEST = 2**62


def _timespan(visit_info: Mapping[str, Any]) -> Timespan | None:
    if "date_begin" in visit_info and "date_end" in visit_info:
        begin, end = visit_info["date_begin"], visit_info["date_end"]
    elif "date_avg" in visit_info:
        half = visit_info.get("exposure_time", 0 * u.s) / 2
        begin, end = visit_info["date_avg"] - half, visit_info["date_avg"] + half
    else:
        return None
    try:
        return Timespan(begin, end)
    except ValueError:
        # The Butler's time starts in 1970; files with a date before that have none.
        return None


def _number(quantity: Any, unit: str) -> float | None:
    return None if quantity is None else float(quantity.to_value(unit))


def _corners(exposure: Composite) -> list[UnitVector3d]:
    """Return the positions on the sky of the corners of the image; none without a WCS."""
    if "wcs" not in exposure:
        return []
    ny, nx = exposure["image"].shape
    sky = exposure["wcs"].pixel_to_world([0, nx - 1, nx - 1, 0], [0, 0, ny - 1, ny - 1]).icrs
    return [UnitVector3d(LonLat.fromDegrees(ra, dec)) for ra, dec in zip(sky.ra.deg, sky.dec.deg, strict=True)]


def _hull(corners: list[UnitVector3d]) -> ConvexPolygon | None:
    return ConvexPolygon.convexHull(corners) if corners else None
