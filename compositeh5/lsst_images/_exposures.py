"""Conversion between a ``VisitImage`` of ``lsst.images`` and the definition ``exposure``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from astro_metadata_translator import ObservationInfo
from astropy import units as u
from astropy.coordinates import EarthLocation
from astropy.time import TimeDelta
from astropy.wcs import WCS
from lsst.images import Box as ImagesBox
from lsst.images import DetectorFrame, MaskPlane, MaskSchema, ObservationSummaryStats, SkyProjection, VisitImage
from lsst.images import Image as ImagesImage
from lsst.images import Mask as ImagesMask
from lsst.images.fields import ChebyshevField as ImagesField

from ..box import Box
from ..composite.composite import Composite
from ..errors import ConversionError
from ..kinds.image import Image
from ..kinds.mask import Mask
from ..kinds.mask import MaskPlane as OwnPlane
from ..kinds.photo_calib import ChebyshevField, PhotoCalib
from ..kinds.psf import Psf
from ..kinds.record import Record
from ._files import read, to_composite
from ._trees import TREE

_KEPT = "lsst_images"
"""The entry of the component ``metadata`` that has what an exposure has no place for."""

_DIGESTS = "digests"
"""Its entry that has the digests of the components for which something is kept."""
_MADE_OF = {
    "psf": "psf",
    "photo_calib": "photometric_scaling",
    "visit_info": "obs_info",
    "detector": "detector",
    "filter": "band",
    "ap_corr_map": "aperture_corrections",
    "summary_stats": "summary_stats",
}
"""The components of an exposure, and the fields of a VisitImage of which they are made."""

_VISIT_INFO = {
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

_WEATHER = {
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
    digests = {name: exposure.component_digest(name) for name in _MADE_OF if name in exposure}
    own = visit_image.metadata.native
    return exposure.replace({"metadata": {**own, _KEPT: {**kept, _DIGESTS: digests}}})


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
    field = ChebyshevField(values, Box(**_limits(scaling.bounds.bbox)))
    # The mean of T_n over [-1, 1].
    means = [np.array([0.0 if n % 2 else 1 / (1 - n * n) for n in range(length)]) for length in values.shape]
    mean = float(means[0] @ values @ means[1])
    return PhotoCalib(mean, field=None if values.size == 1 else field, instrumental_unit=visit_image.unit)


def _visit_info(info: ObservationInfo) -> dict[str, Any]:
    fields = {own: getattr(info, name) for own, name in _VISIT_INFO.items()}
    if isinstance(fields["observatory"], EarthLocation):
        fields["observatory"] = EarthLocation.from_geocentric(*fields["observatory"].to_geocentric())
    if info.datetime_begin is not None and info.datetime_end is not None:
        fields["date_avg"] = (info.datetime_begin + (info.datetime_end - info.datetime_begin) / 2).tai
    weather = {own: getattr(info, name) for own, (name, _) in _WEATHER.items()}
    converted = {
        own: value.to(unit, u.temperature()) if isinstance(value, u.Quantity) else value * unit
        for (own, (_, unit)), value in zip(_WEATHER.items(), weather.values(), strict=True)
        if value is not None
    }
    fields["weather"] = converted or None
    return {name: field for name, field in fields.items() if field is not None}


def _detector(visit_image: VisitImage) -> dict[str, Any]:
    detector = visit_image.detector
    return {
        "id": detector.id,
        "name": detector.name,
        "serial": detector.serial,
        "type": detector.type.value,
        "physical_type": detector.physical_type,
        "box": _limits(detector.bbox),
    }


def _corrections(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {"coefficients": np.array(field.coefficients), "box": _limits(field.bounds.bbox)}
        for name, field in fields.items()
        if isinstance(field, ImagesField)
    }


def _limits(box: Any) -> dict[str, int]:
    return {"y0": box.y.start, "y1": box.y.stop, "x0": box.x.start, "x1": box.x.stop}


# ---- Back -------------------------------------------------------------------------------------------------


def to_visit_image(exposure: Composite, *, drop: Iterable[str] = (), **given: Any) -> VisitImage:
    """Return an exposure as a ``VisitImage``; the pixels of one in memory are not copied.

    Of an exposure that `to_exposure` made, all that wasn't changed since is as it was. What was changed is converted,
    and so are other exposures: ``wcs``, ``photo_calib``, ``visit_info``, ``filter``, ``summary_stats``.

    Parameters
    ----------
    exposure : Composite
        The exposure.
    drop : iterable of str, optional
        Components without a counterpart, or fields of them (``"visit_info.ut1"``), that are to be left out.
    **given
        Arguments of ``VisitImage`` (``psf``, ``detector``, ``obs_info``, ``sky_projection``, ``photometric_scaling``,
        ``summary_stats``, ``aperture_corrections``, ``backgrounds``, ``bounds``, ``band``), instead of what the
        exposure has.

    Raises
    ------
    ConversionError
        If the exposure lacks what a ``VisitImage`` must have, or has what this has no place for: kernels of a PSF, an
        error of the calibration, components such as ``transmission_curve``. The message names all of them.
    CompositeH5Error
        If a component can't be read.
    """
    return _Converter(exposure, set(drop), given).visit_image()


class _Converter:
    """Makes a VisitImage of an exposure, and collects what stands against it."""

    def __init__(self, exposure: Composite, drop: set[str], given: Mapping[str, Any]) -> None:
        self._exposure, self._drop, self._given = exposure, drop, dict(given)
        self._problems: list[str] = []
        metadata = exposure.get("metadata", {})
        kept = metadata.get(_KEPT, {})
        self._metadata = {name: value for name, value in metadata.items() if name != _KEPT}
        self._digests: Mapping[str, str] = kept.get(_DIGESTS, {})
        values = {name: value for name, value in kept.items() if name != _DIGESTS}
        self._kept = Composite(None, values) if TREE in values else None

    def visit_image(self) -> VisitImage:
        image = self._image("image")
        # Of the exposure, what has a place in a VisitImage; its own arguments come first.
        arguments = {
            "variance": self._image("variance"),
            "mask": self._mask(),
            "obs_info": self._part("visit_info", self._obs_info),
            "detector": self._part("detector", None),
            "band": self._part("filter", lambda name: self._exposure[name].get("band")),
            "psf": self._part("psf", None),
            "photometric_scaling": self._part("photo_calib", self._scaling, required=False),
            "summary_stats": self._part("summary_stats", self._statistics, required=False),
            "aperture_corrections": self._part("ap_corr_map", None, required=False),
            "bounds": self._of_kept("bounds"),
            "backgrounds": self._of_kept("backgrounds"),
        }
        arguments["sky_projection"] = self._sky_projection(arguments)
        for name in self._exposure:
            if name not in {"image", "mask", "variance", "wcs", "metadata", *_MADE_OF, *self._drop}:
                self._problems.append(f"{name} has no place in a VisitImage (drop it)")
        if self._problems:
            raise ConversionError(f"{self._exposure.where}: no VisitImage can be made: {'; '.join(self._problems)}")
        arguments |= {name: value for name, value in self._given.items() if name in arguments}
        if unknown := self._given.keys() - arguments.keys():
            raise TypeError(f"to_visit_image has no argument {', '.join(sorted(unknown))}")
        return VisitImage(image, **arguments, metadata=self._plain_metadata())

    def _part(self, name: str, convert: Callable[[str], Any] | None, *, required: bool = True) -> Any:
        """Return what a component becomes: what it was made of, if it wasn't changed since."""
        field = _MADE_OF[name]
        if field in self._given:
            return self._given[field]
        there = name in self._exposure and name not in self._drop
        own = self._exposure.component_digest(name) if there else None
        if self._kept is not None and (own == self._digests.get(name)):
            return self._of_kept(field)
        if not there and not required:
            return None
        if not there:
            self._problems.append(f"{name} is missing (pass {field}=)")
        elif convert is None:
            self._problems.append(f"{name} can't be converted (pass {field}={', or drop it' if not required else ''})")
        else:
            return convert(name)
        return None

    def _of_kept(self, field: str) -> Any:
        if field in self._given:
            return self._given[field]
        if self._kept is None or field not in self._kept:
            return None
        return read(self._kept, component=field)

    def _image(self, name: str) -> ImagesImage | None:
        if name not in self._exposure:
            self._problems.append(f"{name} is missing")
            return None
        value: Image = self._exposure[name]
        if value.unit is None:
            self._problems.append(f"{name} has no unit")
        return ImagesImage(value.array, yx0=value.origin, unit=value.unit)

    def _mask(self) -> ImagesMask | None:
        if "mask" not in self._exposure:
            self._problems.append("mask is missing")
            return None
        own: Mask = self._exposure["mask"]
        planes: list[MaskPlane | None] = [MaskPlane(name, plane.description) for name, plane in own.planes.items()]
        if self._kept is not None:
            for index in json.loads(self._kept[TREE]["json"])["mask"]["unused"]:
                planes.insert(index, None)
        mask = ImagesMask(0, schema=MaskSchema(planes), yx0=own.origin, shape=own.shape)
        for name, plane in own.planes.items():
            mask.set(name, own.array >> plane.bit & 1 == 1)
        return mask

    def _sky_projection(self, arguments: Mapping[str, Any]) -> Any:
        kept = self._of_kept("sky_projection")
        if "wcs" not in self._exposure or "sky_projection" in self._given:
            if kept is None:
                self._problems.append("wcs is missing (pass sky_projection=)")
            return kept
        if "image" not in self._exposure:
            return None
        wcs, box = self._exposure["wcs"], self._exposure["image"].box
        if kept is not None and _same_sky(wcs, kept, box):
            return kept
        detector, info = arguments["detector"], arguments["obs_info"]
        if detector is None or info is None:
            return None
        frame = DetectorFrame(instrument=info.instrument, visit=info.visit_id, detector=detector.id, bbox=detector.bbox)
        return SkyProjection.from_fits_wcs(wcs, frame, pixel_bounds=detector.bbox, x0=box.x0, y0=box.y0)

    def _scaling(self, name: str) -> Any:
        calibration: PhotoCalib = self._exposure[name]
        if calibration.error and f"{name}.error" not in self._drop:
            self._problems.append(f"{name}.error has no place in a VisitImage (drop it)")
        unit = self._exposure["image"].unit
        if calibration.instrumental_unit != unit:
            self._problems.append(f"{name} is for pixels in {calibration.instrumental_unit}, but these are in {unit}")
        if unit == u.nJy and calibration.mean == 1 and calibration.field is None:
            # They are calibrated already, and nothing tells from what.
            return None
        field, box = calibration.field, self._exposure["image"].box
        bounds = box if field is None else field.box
        return ImagesField(
            ImagesBox.from_shape(bounds.shape, start=bounds.origin),
            np.array([[calibration.mean]]) if field is None else np.array(field.coefficients),
            unit=u.nJy / calibration.instrumental_unit,
        )

    def _statistics(self, name: str) -> ObservationSummaryStats:
        fields = {key: value for key, value in self._exposure[name].items() if f"{name}.{key}" not in self._drop}
        if unknown := fields.keys() - ObservationSummaryStats.model_fields.keys():
            self._problems += [f"{name}.{key} has no place in a VisitImage (drop it)" for key in sorted(unknown)]
            return ObservationSummaryStats()
        return ObservationSummaryStats.model_validate({key: _plain(value) for key, value in fields.items()})

    def _obs_info(self, name: str) -> ObservationInfo | None:
        record: Record = self._exposure[name]
        fields = {key: value for key, value in record.items() if f"{name}.{key}" not in self._drop}
        known_fields = {_VISIT_INFO[key]: fields.pop(key) for key in list(fields) if key in _VISIT_INFO}
        for key, value in fields.pop("weather", {}).items():
            field, unit = _WEATHER[key]
            known_fields[field] = value.to_value(unit) if key == "humidity" else value
        if (middle := fields.pop("date_avg", None)) is not None:
            half = TimeDelta(known_fields.get("exposure_time", 0 * u.s) / 2)
            known_fields |= {"datetime_begin": middle - half, "datetime_end": middle + half}
        if fields:
            self._problems += [f"{name}.{key} has no place in a VisitImage (drop it)" for key in fields]
        labels = self._exposure.get("filter", {})
        detector = self._exposure.get("detector", {})
        others = {
            "exposure_id": known_fields.get("visit_id"),
            "physical_filter": labels.get("physical"),
            "detector_num": detector.get("id"),
            "detector_serial": detector.get("serial"),
        }
        known_fields |= {key: value for key, value in others.items() if value is not None}
        try:
            return ObservationInfo(**known_fields)
        except (TypeError, ValueError) as error:
            self._problems.append(f"{name}: {error} (pass obs_info=)")
            return None

    def _plain_metadata(self) -> dict[str, Any]:
        found = {name: value for name, value in self._metadata.items() if f"metadata.{name}" not in self._drop}
        wrong = [name for name, value in found.items() if type(value) not in (type(None), bool, int, float, str)]
        if wrong:
            raise ConversionError(
                f"{self._exposure.where}: metadata.{', metadata.'.join(wrong)}: the metadata of a VisitImage are "
                f"numbers and text (drop them)"
            )
        return found


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _same_sky(wcs: WCS, projection: Any, box: Box) -> bool:
    """Return whether a WCS is what `to_exposure` made of a projection, or a part of that."""
    own = projection.as_fits_wcs(ImagesBox.from_shape(box.shape, start=box.origin), allow_approximation=True)
    if own is None:
        return False
    y, x = np.array([[0, 0, box.shape[0] - 1, box.shape[0] - 1], [0, box.shape[1] - 1, 0, box.shape[1] - 1]])
    try:
        return bool((own.pixel_to_world(x, y).separation(wcs.pixel_to_world(x, y)) < 1e-7 * u.arcsec).all())
    except (TypeError, AttributeError, ValueError):
        return False
