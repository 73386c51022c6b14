"""Conversion between ``VisitImage`` of ``lsst.images`` and exposures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compositeh5 as ch5
from compositeh5.errors import ConversionError

pytest.importorskip("lsst.images", reason="needs lsst-images (the extra `images`)", exc_type=ImportError)

import images_samples as samples
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.time import Time
from astropy.wcs import WCS
from lsst.images import Box, VisitImage
from lsst.images.fields import ChebyshevField, SplineField
from lsst.images.psfs import GaussianPointSpreadFunction
from lsst.images.tests import assert_images_equal, assert_psfs_equal, assert_visit_images_equal

from compositeh5 import lsst_images


@pytest.fixture(scope="module")
def visit_image() -> VisitImage:
    return samples.visit_image()


@pytest.fixture(scope="module")
def stored(visit_image: VisitImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exposures") / "exposure.h5"
    lsst_images.to_exposure(visit_image, data_id={"visit": 903334, "detector": 11}).write(path)
    return path


def test_an_exposure_is_what_programs_expect(visit_image: VisitImage, stored: Path) -> None:
    with ch5.open(stored) as exposure:
        exposure = exposure.load()
    assert exposure.definition == "exposure"
    np.testing.assert_array_equal(exposure["image"].array, visit_image.image.array)
    assert (exposure["image"].unit, exposure["variance"].unit) == (u.nJy, u.nJy**2)
    assert exposure["mask"].origin == samples.ORIGIN
    assert list(exposure["mask"].planes) == list(visit_image.mask.schema.names)
    y0, x0 = samples.ORIGIN
    sky = visit_image.sky_projection.pixel_to_sky(x=x0 + 30.0, y=y0 + 200.0)
    assert exposure["wcs"].pixel_to_world(30, 200).separation(sky) < 1e-6 * u.arcsec
    kernel = visit_image.psf.compute_kernel_image(x=100.0, y=100.0).array
    np.testing.assert_allclose(exposure["psf"].at(100, 100), kernel, atol=1e-12)
    assert exposure["photo_calib"].mean == 1
    assert exposure["visit_info"]["exposure_time"] == 30 * u.s
    assert exposure["detector"]["serial"] == "E2V-11"
    assert dict(exposure["filter"]) == {"band": "r", "physical": "r_57"}
    assert exposure["summary_stats"].zeroPoint == 31.4
    assert exposure["ap_corr_map"]["flux_12"]["coefficients"].tolist() == [[0.75]]
    assert exposure["metadata"]["note"] == "ä"


def test_what_was_not_changed_comes_back_the_same(visit_image: VisitImage, stored: Path) -> None:
    with ch5.open(stored) as exposure:
        back = lsst_images.to_visit_image(exposure)
    assert_visit_images_equal(visit_image, back)
    assert dict(back.metadata) == dict(visit_image.metadata)
    assert_visit_images_equal(visit_image, lsst_images.to_visit_image(lsst_images.to_exposure(visit_image)))


def test_a_part_of_an_exposure_is_a_part_of_the_image(visit_image: VisitImage, stored: Path) -> None:
    with ch5.open(stored) as exposure:
        cut = exposure.cutout(ch5.Box(50, 90, 100, 160), components=list(exposure))
    box = Box.from_shape((40, 60), start=(50, 100))
    assert_visit_images_equal(visit_image[box], lsst_images.to_visit_image(cut))


@pytest.mark.parametrize("planes", [31, 32, 62])
def test_all_planes_of_masks_are_converted(planes: int) -> None:
    original = samples.visit_image(shape=(20, 30), planes=planes)
    exposure = lsst_images.to_exposure(original)
    assert exposure["mask"].dtype == (np.int32 if planes == 31 else np.int64)
    assert_visit_images_equal(original, lsst_images.to_visit_image(exposure))
    with pytest.raises(ConversionError, match="62 planes of masks, not 63"):
        lsst_images.to_exposure(samples.visit_image(shape=(3, 4), planes=63))


def test_what_was_changed_is_converted_and_not_taken_from_before(visit_image: VisitImage) -> None:
    exposure = lsst_images.to_exposure(visit_image)
    wcs = exposure["wcs"].deepcopy()
    middle = Time(60000, format="mjd", scale="tai")
    wcs.wcs.crval = wcs.wcs.crval + [0.01, 0.01]
    changed = exposure.replace(
        {
            "wcs": wcs,
            "filter": {"band": "i", "physical": "i_39"},
            "visit_info": {"id": 5, "instrument": "Other", "exposure_time": 15 * u.s, "date_avg": middle},
            "summary_stats": {"zeroPoint": 30.0},
            "photo_calib": None,
        }
    )  # fmt: skip
    back = lsst_images.to_visit_image(changed)
    y0, x0 = samples.ORIGIN
    sky = back.sky_projection.pixel_to_sky(x=x0 + 30.0, y=y0 + 200.0)
    assert wcs.pixel_to_world(30, 200).separation(sky) < 1e-6 * u.arcsec
    assert (back.band, back.physical_filter, back.obs_info.visit_id, back.obs_info.instrument) == (
        "i", "i_39", 5, "Other",
    )  # fmt: skip
    assert back.obs_info.exposure_time == 15 * u.s
    assert abs((back.obs_info.datetime_end - back.obs_info.datetime_begin).to(u.s) - 15 * u.s) < 1 * u.ns
    assert back.summary_stats.zeroPoint == 30.0
    assert np.isnan(back.summary_stats.psfSigma)
    assert back.photometric_scaling is None
    assert back.detector == visit_image.detector
    assert_psfs_equal(back.psf, visit_image.psf)


def test_calibrations_have_the_same_factors() -> None:
    counts = samples.visit_image(shape=(20, 30))
    coefficients = np.array([[0.5, 0.01], [0.02, 0.0]])
    scaling = ChebyshevField(counts.detector.bbox, coefficients, unit=u.nJy / u.electron)
    counts._image, counts._variance = counts.image.view(unit=u.electron), counts.variance.view(unit=u.electron**2)
    counts.photometric_scaling = scaling
    exposure = lsst_images.to_exposure(counts)
    calibration = exposure["photo_calib"]
    assert calibration.mean == pytest.approx(0.5)
    for y, x in ((20, 10), (30, 35)):
        expected = scaling.render(Box.from_shape((1, 1), start=(y, x)), dtype=np.float64).array.item()
        assert calibration.calibration(y, x) == pytest.approx(expected)
    other = exposure.replace(
        {"photo_calib": ch5.PhotoCalib(2.5, field=calibration.field, instrumental_unit="electron")}
    )
    assert lsst_images.to_visit_image(other).photometric_scaling == scaling
    constant = exposure.replace({"photo_calib": ch5.PhotoCalib(2.5, instrumental_unit="electron")})
    assert lsst_images.to_visit_image(constant).photometric_scaling.unit == u.nJy / u.electron
    wrong = exposure.replace({"photo_calib": ch5.PhotoCalib(2.5, 0.1)})
    with pytest.raises(
        ConversionError, match=r"photo_calib\.error has no place.*is for pixels in adu, but these are in electron"
    ):
        lsst_images.to_visit_image(wrong)
    spline = SplineField(counts.bbox, np.ones((4, 4)), y=np.arange(4.0), x=np.arange(4.0), unit=u.nJy / u.electron)
    counts.photometric_scaling = spline
    exposure = lsst_images.to_exposure(counts)
    assert "photo_calib" in exposure.absent
    assert lsst_images.to_visit_image(exposure).photometric_scaling == spline


def test_other_exposures_need_what_only_a_visit_image_has(visit_image: VisitImage) -> None:
    plain: dict[str, Any] = dict(lsst_images.to_exposure(visit_image))
    del plain["metadata"]
    exposure = ch5.Composite(
        "exposure", plain, transmission_curve=None, header="SIMPLE", metadata={"id": 3, "list": [1, 2]}
    )
    with pytest.raises(ConversionError) as caught:
        lsst_images.to_visit_image(exposure)
    for text in (
        "detector can't be converted (pass detector=)",
        "psf can't be converted (pass psf=)",
        "ap_corr_map",
        "header has no place",
    ):
        assert text in str(caught.value)
    given = {
        "psf": GaussianPointSpreadFunction(2.0, stamp_size=9, bounds=visit_image.bbox),
        "detector": visit_image.detector,
        "aperture_corrections": {},
    }
    with pytest.raises(ConversionError, match=r"metadata\.list: the metadata of a VisitImage are numbers and text"):
        lsst_images.to_visit_image(exposure, drop=["header"], **given)
    back = lsst_images.to_visit_image(exposure, drop=["header", "metadata.list"], **given)
    assert_images_equal(visit_image.image.view(sky_projection=back.sky_projection), back.image)
    assert back.obs_info.physical_filter == "r_57"
    assert back.obs_info.detector_num == 11
    assert back.summary_stats == visit_image.summary_stats
    assert dict(back.metadata) == {"id": 3}
    with pytest.raises(TypeError, match="no argument wings"):
        lsst_images.to_visit_image(exposure, drop=["header", "metadata.list"], wings=1, **given)
    unknown = exposure.replace(
        {"visit_info": {**plain["visit_info"], "ut1": 5.0}, "summary_stats": {"myScore": 1.0}, "header": None}
    )
    with pytest.raises(ConversionError, match=r"visit_info\.ut1 has no place.*summary_stats\.myScore has no place"):
        lsst_images.to_visit_image(unknown, **given)
    for name in ("variance", "mask", "wcs", "filter", "visit_info"):
        with pytest.raises(ConversionError, match=f"{name} is missing"):
            lsst_images.to_visit_image(exposure.replace({name: None}), drop=["header"], **given)


def test_only_visit_images_with_a_fits_form_are_converted(visit_image: VisitImage) -> None:
    with pytest.raises(ConversionError, match="a VisitImage was expected, not Image"):
        lsst_images.to_exposure(visit_image.image)
    assert isinstance(visit_image.fits_wcs, WCS)
    assert isinstance(visit_image.sky_projection.pixel_to_sky(x=0.0, y=0.0), SkyCoord)
