"""Objects of ``lsst.images``, made on the spot."""

from __future__ import annotations

import json
from typing import Any

import astropy.units as u
import numpy as np
from astro_metadata_translator import ObservationInfo
from astropy.time import Time
from lsst.images import (
    YX,
    BackgroundMap,
    Box,
    DetectorFrame,
    Image,
    Mask,
    MaskPlane,
    MaskSchema,
    ObservationSummaryStats,
    Polygon,
    TractFrame,
    VisitImage,
)
from lsst.images.cells import (
    CellCoadd,
    CellGrid,
    CellGridBounds,
    CellPointSpreadFunction,
    CoaddProvenance,
    PatchDefinition,
)
from lsst.images.fields import ChebyshevField, SplineField
from lsst.images.psfs import GaussianPointSpreadFunction
from lsst.images.serialization import DetachedArchive, class_for_schema
from lsst.images.tests import make_random_sky_projection
from starlink import Ast

VISIT = 903334
SHAPE = (300, 400)
ORIGIN = (20, 10)


def detector(number: int) -> Any:
    """Return a detector with two amplifiers."""
    frames = Ast.FrameSet(Ast.Frame(2, "Ident=FOCAL_PLANE,Unit(1)=mm,Unit(2)=mm"))
    frames.addframe(1, Ast.ZoomMap(2, 1e-4), Ast.Frame(2, "Ident=FIELD_ANGLE,Unit(1)=rad,Unit(2)=rad"))
    pixels = f"Ident=DETECTOR_{number:03},Unit(1)=pix,Unit(2)=pix,Bottom(1)=0,Bottom(2)=0,Top(1)=499,Top(2)=399"
    frames.addframe(1, Ast.ZoomMap(2, 100.0), Ast.Frame(2, pixels))
    stamps = {"schema_version": "1.0.0", "min_read_version": 1}

    def box(y0: int, y1: int, x0: int, x1: int) -> dict[str, Any]:
        return {"y": {"start": y0, "stop": y1}, "x": {"start": x0, "stop": x1}}

    tree = {
        **stamps,
        "attributes": {
            "name": f"R22_S{number}",
            "id": number,
            "type": "SCIENCE",
            "serial": f"E2V-{number}",
            "bbox": box(0, 400, 0, 500),
            "orientation": {"focal_plane_x": 1.0, "focal_plane_y": -2.0, "focal_plane_z": 0.0},
            "pixel_size": 0.01,
            "physical_type": "E2V",
        },
        "amplifiers": [
            {
                "name": f"C{i}",
                "bbox": box(0, 400, 250 * i, 250 * i + 250),
                "readout_corner": "LR",
                "assembled_raw_geometry": None,
                "unassembled_raw_geometry": None,
                "nominal_calibrations": {
                    "gain": 1.5,
                    "read_noise": 5.25,
                    "saturation": 1e5,
                    "suspect_level": float("nan"),
                    "linearity_coefficients": {"data": [0.0, 1e5], "datatype": "float64"},
                    "linearity_type": "PROPORTIONAL",
                },
            }
            for i in range(2)
        ],
        "frames": {**stamps, "instrument": "LSSTCam", "ast": str(frames)},
        "visit": VISIT,
    }
    return class_for_schema("detector").model_validate_json(json.dumps(tree)).deserialize(DetachedArchive())


def observation(number: int) -> ObservationInfo:
    """Return what is known of the visit, and of a detector."""
    return ObservationInfo(
        instrument="LSSTCam",
        telescope="Simonyi Survey Telescope",
        visit_id=VISIT,
        exposure_id=VISIT,
        physical_filter="r_57",
        exposure_time=30 * u.s,
        datetime_begin=Time("2025-03-02T03:04:05.678", scale="tai"),
        relative_humidity=float("nan"),
        detector_num=number,
        detector_unique_name=f"R22_S{number}",
        detector_serial=f"E2V-{number}",
    )


def mask_schema(planes: int = 9) -> MaskSchema:
    """Return a schema of so many planes; of more than 9 or fewer, and one bit that is not used."""
    names = ["BAD", "SATURATED", "COSMIC_RAY", *(f"PLANE_{i}" for i in range(3, planes))]
    described: list[MaskPlane | None] = [MaskPlane(name, f"Why {name} is set.") for name in names]
    return MaskSchema(described if planes == 9 else [*described[:2], None, *described[2:]])


def visit_image(number: int = 11, *, shape: tuple[int, int] = SHAPE, planes: int = 9, seed: int = 1) -> VisitImage:
    """Return a visit image with all components, in the unit nJy, whose first pixel isn't (0, 0)."""
    rng = np.random.default_rng(seed + number)
    box = Box.from_shape(shape, start=ORIGIN)
    frame = DetectorFrame(instrument="LSSTCam", visit=VISIT, detector=number, bbox=Box.from_shape((400, 500)))
    mask = Mask(0, schema=mask_schema(planes), bbox=box)
    for plane in mask.schema.names:
        mask.set(plane, rng.random(shape) < 0.05)
    backgrounds = BackgroundMap()
    grid = np.linspace(0, 400, 9)
    spline = SplineField(frame.bbox, rng.normal(size=(9, 9)), y=grid, x=grid)
    backgrounds.add("standard", spline, description="Of the sky.", is_subtracted=True)
    coefficients = np.array([[0.5, 0.01], [0.02, 0.0]])
    return VisitImage(
        Image(rng.normal(0, 20, shape).astype("f4"), bbox=box, unit=u.nJy),
        mask=mask,
        variance=Image(rng.uniform(300, 500, shape).astype("f4"), bbox=box, unit=u.nJy**2),
        sky_projection=make_random_sky_projection(np.random.default_rng(number), frame, frame.bbox),
        psf=GaussianPointSpreadFunction(2.5, stamp_size=25, bounds=frame.bbox),
        obs_info=observation(number),
        summary_stats=ObservationSummaryStats(psfSigma=2.5, zeroPoint=31.4, nPsfStar=143),
        detector=detector(number),
        bounds=Polygon(
            x_vertices=np.array([box.x.start, box.x.stop, box.x.start]) - 0.5,
            y_vertices=np.array([box.y.start, box.y.start, box.y.stop]) - 0.5,
        ),
        photometric_scaling=ChebyshevField(frame.bbox, coefficients, unit=u.nJy / u.electron),
        aperture_corrections={"flux_12": ChebyshevField(frame.bbox, np.array([[0.75]]))},
        backgrounds=backgrounds,
        band="r",
        metadata={"id": 47152417142, "note": "ä", "ratio": float("inf"), "flag": True, "none": None},
    )


def cell_coadd() -> CellCoadd:
    """Return a coadd of 3 x 4 cells, with images, arrays and tables deep in its tree."""
    rng = np.random.default_rng(3)
    box = Box.from_shape((30, 40), start=(60, 80))
    grid = CellGrid(bbox=box, cell_shape=YX(10, 10))
    frame = TractFrame(skymap="sky", tract=9813, bbox=Box.from_shape((1000, 1000)))
    inputs = CoaddProvenance.make_empty_input_table(3)
    for name, values in {"instrument": "LSSTCam", "physical_filter": "r_57", "visit": [101, 102, 103]}.items():
        inputs[name][:] = values
    inputs["detector"][:], inputs["day_obs"][:] = [1, 2, 3], 20250520
    inputs["polygon"][:] = [Polygon(x_vertices=[80, 120, 80 + i], y_vertices=[60, 60, 90]) for i in range(3)]
    contributions = CoaddProvenance.make_empty_contribution_table(6)
    contributions["instrument"][:], contributions["visit"][:], contributions["detector"][:] = "LSSTCam", 101, 1
    contributions["cell_i"][:], contributions["cell_j"][:] = [0, 0, 0, 1, 1, 2], 0

    def image(unit: Any = None) -> Image:
        return Image(rng.normal(size=box.shape).astype("f4"), bbox=box, unit=unit)

    return CellCoadd(
        image(u.nJy),
        mask=Mask(0, schema=mask_schema(), bbox=box),
        variance=image(u.nJy**2),
        mask_fractions={"rejected": image(), "CR & co": image()},
        noise_realizations=[image(), image()],
        sky_projection=make_random_sky_projection(rng, frame, frame.bbox),
        band="r",
        psf=CellPointSpreadFunction(rng.normal(size=(3, 4, 5, 5)), CellGridBounds(grid=grid, bbox=box)),
        patch=PatchDefinition(id=7, index=YX(1, 2), inner_bbox=box, cells=grid),
        provenance=CoaddProvenance(inputs=inputs, contributions=contributions),
    )
