"""From a ``VisitImage`` of ``lsst.images`` to the definition ``exposure``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from astro_metadata_translator import ObservationInfo
from astropy import units as u
from astropy.coordinates import EarthLocation
from lsst.images import (
    VisitImage,
)
from lsst.images.fields import ChebyshevField as ImagesField

from ..box import Box
from ..composite.composite import Composite
from ..errors import ConversionError
from ..kinds.mask import Mask
from ..kinds.mask import MaskPlane as OwnPlane
from ..kinds.photo_calib import ChebyshevField, PhotoCalib
from ..kinds.psf import Psf
from ._files import to_composite

KEPT = "lsst_images"
"""The entry of the component ``metadata`` that has what an exposure has no place for."""

DIGESTS = "digests"
"""Its entry that has the digests of the components for which something is kept."""
MADE_OF = {
    "psf": "psf",
    "photo_calib": "photometric_scaling",
    "visit_info": "obs_info",
    "detector": "detector",
    "filter": "band",
    "ap_corr_map": "aperture_corrections",
    "summary_stats": "summary_stats",
}
"""The components of an exposure, and the fields of a VisitImage of which they are made."""

VISIT_INFO = {
    "id": "visit_id",
    "instrument": "instrument",
    "observation_type": "observation_type",
    "observation_reason": "observation_reason",
    "science_program": "science_program",
    "object": "object",
    "has_simulated_content": "has_simulated_content",
    "exposure_time": "exposure_time",
    "dark_time": "dark_time",
    "boresight": "tracking_radec",
    "boresight_airmass": "boresight_airmass",
    "boresight_rotation_angle": "boresight_rotation_angle",
    "rotation_type": "boresight_rotation_coord",
    "observatory": "location",
    "focus_z": "focus_z",
}
"""The fields of ``visit_info``, and those of an ObservationInfo that mean the same."""

WEATHER = {
    "air_temperature": ("temperature", u.deg_C),
    "air_pressure": ("pressure", u.Pa),
    "humidity": ("relative_humidity", u.percent),
}
"""Those of its field ``weather``, with their units."""


def to_exposure(visit_image: VisitImage, *, psf_grid: int = 3, **attributes: Any) -> Composite:
    """Return a ``VisitImage`` as an exposure, which programs use that don't know ``lsst.images``.

    ==================  ==============================================================================================
    component           made of
    ==================  ==============================================================================================
    ``image``           the image, its unit and its place; ``variance`` likewise; not copied
    ``mask``            the mask, with the names of its planes: int32 for up to 31, else int64
    ``wcs``             the FITS WCS of the sky projection, or the FITS approximation that it carries
    ``psf``             kernels of the PSF model at a grid of positions, between which they are interpolated
    ``photo_calib``     the factor from pixel values to nJy: 1 for a calibrated image, else the photometric scaling
                        if it is a Chebyshev polynomial; without an error, for there is none
    ``visit_info``      what the observation info says of the visit
    ``detector``        names, numbers and box; ``filter`` band and physical name; ``summary_stats`` all
    ``ap_corr_map``     the aperture corrections that are Chebyshev polynomials
    ==================  ==============================================================================================

    What has no counterpart (models of PSF and sky projection, backgrounds, bounds, amplifiers, ...) is kept verbatim in
    the entry ``lsst_images`` of ``metadata``, for `to_visit_image`. FITS headers that the object carries along are not.

    Parameters
    ----------
    visit_image : lsst.images.VisitImage
        The image.
    psf_grid : int, optional
        Number of positions along each axis at which the PSF is evaluated; 1 for one that doesn't vary.
    **attributes
        ``data_id``, ``dataset_type``, ``run``, ``stage``, ``id`` and ``provenance``, as of `Composite`.

    Raises
    ------
    ConversionError
        If it is another object, its sky projection has no FITS approximation, or it has more than 62 planes of masks.
    EncodeError
        If a part can't be stored.
    """
    if not isinstance(visit_image, VisitImage):
        raise ConversionError(f"a VisitImage was expected, not {type(visit_image).__name__}")
    wcs = visit_image.fits_wcs
    if wcs is None:
        raise ConversionError(
            "the sky projection of this VisitImage has no FITS form: attach a FITS approximation to it"
        )
    whole = to_composite(visit_image)
    planes = [whole[name] for name in whole if whole.kind(name) == "mask"]
    components = {
        "image": whole["image"],
        "mask": _merged(planes),
        "variance": whole["variance"],
        "wcs": wcs,
        "psf": _sampled(visit_image, psf_grid),
        "photo_calib": _photo_calib(visit_image),
        "visit_info": _visit_info(visit_image.obs_info),
        "detector": _detector(visit_image),
        "filter": {"band": visit_image.band, "physical": visit_image.physical_filter},
        "ap_corr_map": _corrections(visit_image.aperture_corrections) or None,
        "summary_stats": {key: value for key, value in whole["summary_stats"].items() if key != "json"},
    }
    exposure = Composite("exposure", components, **attributes)
    kept = {name: whole[name] for name in whole if whole.kind(name) in ("record", "text")}
    kept |= dict.fromkeys(whole.absent)
    digests = {name: exposure.component_digest(name) for name in MADE_OF if name in exposure}
    own = visit_image.metadata.native
    return exposure.replace({"metadata": {**own, KEPT: {**kept, DIGESTS: digests}}})


def _merged(masks: list[Mask]) -> Mask:
    if len(masks) == 1:
        return masks[0]
    if len(masks) > 2:
        raise ConversionError(f"an exposure has room for 62 planes of masks, not {sum(len(m.planes) for m in masks)}")
    first, second = masks
    values = first.array.astype(np.int64) | second.array.astype(np.int64) << 31
    above = {name: OwnPlane(plane.bit + 31, plane.description) for name, plane in second.planes.items()}
    return Mask(values, {**first.planes, **above}, first.origin)


def _sampled(visit_image: VisitImage, grid: int) -> Psf:
    box = visit_image.psf.bounds.bbox.intersection(visit_image.bbox)
    ys, xs = (np.linspace(side.min, side.max, grid + 2)[1:-1] if grid == 1 else np.linspace(side.min, side.max, grid)
              for side in (box.y, box.x))  # fmt: skip
    positions = np.array([(y, x) for y in ys for x in xs])
    kernels = [visit_image.psf.compute_kernel_image(x=float(x), y=float(y)).array for y, x in positions]
    return Psf(np.array(kernels), positions)


def _photo_calib(visit_image: VisitImage) -> PhotoCalib | None:
    if visit_image.unit.is_equivalent(u.nJy):
        return PhotoCalib(visit_image.unit.to(u.nJy), instrumental_unit=visit_image.unit)
    scaling = visit_image.photometric_scaling
    if not isinstance(scaling, ImagesField) or not (visit_image.unit * scaling.unit).is_equivalent(u.nJy):
        return None
    values = np.asarray(scaling.coefficients) * (visit_image.unit * scaling.unit).to(u.nJy)
    field = ChebyshevField(values, _box(scaling.bounds.bbox))
    # The mean of T_n over [-1, 1].
    means = [np.array([0.0 if n % 2 else 1 / (1 - n * n) for n in range(length)]) for length in values.shape]
    mean = float(means[0] @ values @ means[1])
    return PhotoCalib(mean, field=None if values.size == 1 else field, instrumental_unit=visit_image.unit)


def _visit_info(info: ObservationInfo) -> dict[str, Any]:
    fields = {own: getattr(info, name) for own, name in VISIT_INFO.items()}
    if isinstance(fields["observatory"], EarthLocation):
        fields["observatory"] = EarthLocation.from_geocentric(*fields["observatory"].to_geocentric())
    if info.datetime_begin is not None and info.datetime_end is not None:
        fields["date_avg"] = (info.datetime_begin + (info.datetime_end - info.datetime_begin) / 2).tai
    weather = {own: getattr(info, name) for own, (name, _) in WEATHER.items()}
    converted = {
        own: value.to(unit, u.temperature()) if isinstance(value, u.Quantity) else value * unit
        for (own, (_, unit)), value in zip(WEATHER.items(), weather.values(), strict=True)
        if value is not None
    }
    fields["weather"] = converted or None
    return {name: field for name, field in fields.items() if field is not None}


def _detector(visit_image: VisitImage) -> dict[str, Any]:
    detector = visit_image.detector
    box = _box(detector.bbox)
    return {
        "id": detector.id,
        "name": detector.name,
        "serial": detector.serial,
        "type": detector.type.value,
        "physical_type": detector.physical_type,
        "box": {"y0": box.y0, "y1": box.y1, "x0": box.x0, "x1": box.x1},
    }


def _corrections(fields: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, field in fields.items():
        if isinstance(field, ImagesField):
            box = _box(field.bounds.bbox)
            limits = {"y0": box.y0, "y1": box.y1, "x0": box.x0, "x1": box.x1}
            found[name] = {"coefficients": np.array(field.coefficients), "box": limits}
    return found


def _box(box: Any) -> Box:
    return Box(box.y.start, box.y.stop, box.x.start, box.x.stop)
