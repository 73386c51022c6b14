"""From the definition ``exposure`` to a ``VisitImage`` of ``lsst.images``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from astro_metadata_translator import ObservationInfo
from astropy import units as u
from astropy.time import TimeDelta
from astropy.wcs import WCS
from lsst.images import Box as ImagesBox
from lsst.images import (
    DetectorFrame,
    MaskPlane,
    MaskSchema,
    ObservationSummaryStats,
    SkyProjection,
    VisitImage,
)
from lsst.images import Image as ImagesImage
from lsst.images import Mask as ImagesMask
from lsst.images.fields import ChebyshevField as ImagesField

from ..box import Box
from ..composite.composite import Composite
from ..errors import ConversionError
from ..kinds.image import Image
from ..kinds.mask import Mask
from ..kinds.photo_calib import PhotoCalib
from ..kinds.record import Record
from ._exposures import DIGESTS, KEPT, MADE_OF, VISIT_INFO, WEATHER
from ._files import read
from ._trees import TREE


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
        kept = metadata.get(KEPT, {})
        self._metadata = {name: value for name, value in metadata.items() if name != KEPT}
        self._digests: Mapping[str, str] = kept.get(DIGESTS, {})
        values = {name: value for name, value in kept.items() if name != DIGESTS}
        self._kept = Composite(None, values) if TREE in values else None

    def visit_image(self) -> VisitImage:
        image = self._image("image", required=True)
        # Of the exposure, what has a place in a VisitImage; its own arguments come first.
        arguments = {
            "variance": self._image("variance", required=True),
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
            if name not in {"image", "mask", "variance", "wcs", "metadata", *MADE_OF, *self._drop}:
                self._problems.append(f"{name} has no place in a VisitImage (drop it)")
        if self._problems:
            raise ConversionError(f"{self._exposure.where}: no VisitImage can be made: {'; '.join(self._problems)}")
        arguments |= {name: value for name, value in self._given.items() if name in arguments}
        if unknown := self._given.keys() - arguments.keys():
            raise TypeError(f"to_visit_image has no argument {', '.join(sorted(unknown))}")
        return VisitImage(image, **arguments, metadata=self._plain_metadata())

    def _part(self, name: str, convert: Callable[[str], Any] | None, *, required: bool = True) -> Any:
        """Return what a component becomes: what it was made of, if it wasn't changed since."""
        field = MADE_OF[name]
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

    def _image(self, name: str, *, required: bool) -> ImagesImage | None:
        if name not in self._exposure:
            if required:
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
        known_fields = {VISIT_INFO[key]: fields.pop(key) for key in list(fields) if key in VISIT_INFO}
        for key, value in fields.pop("weather", {}).items():
            field, unit = WEATHER[key]
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
        wrong = [
            name
            for name, value in self._metadata.items()
            if not (value is None or type(value) in (bool, int, float, str)) and f"metadata.{name}" not in self._drop
        ]
        if wrong:
            raise ConversionError(
                f"{self._exposure.where}: metadata.{', metadata.'.join(wrong)}: the metadata of a VisitImage are "
                f"numbers and text (drop them)"
            )
        return {name: value for name, value in self._metadata.items() if f"metadata.{name}" not in self._drop}


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
