"""FITS files of exposures as composites: what comes over, and that nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import EarthLocation, SkyCoord
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS
from fits_samples import (
    AFW2,
    HSC,
    SHAPE,
    archive,
    chebyshev_table,
    exposure_with_archive,
    hdu_list,
    image_hdu,
    photo_calib_table,
    pixels,
)
from support import data_file

import compositeh5 as ch5
from compositeh5.errors import ConflictError, ConversionError, CorruptFileError
from compositeh5.fits import convert
from compositeh5.fits.conversion import fits_bytes, read_exposure

PLANES = {"image": 1, "mask": 2, "variance": 3}


@pytest.fixture(scope="module", params=[HSC, AFW2])
def real(request: pytest.FixtureRequest) -> Path:
    return data_file(request.param)


@pytest.fixture(scope="module")
def stored(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("real") / "exposure.h5"
    convert(real, path)
    return path


@pytest.fixture(scope="module")
def converted(stored: Path) -> Iterator[ch5.Composite]:
    """A real file, converted, and opened again."""
    with ch5.open(stored) as composite:
        yield composite


@pytest.fixture(scope="module")
def afw() -> ch5.Composite:
    return read_exposure(data_file(AFW2))


# ---- Real files -------------------------------------------------------------------------------------------


def test_real_pixels_are_identical_and_stored_once(real: Path, converted: ch5.Composite) -> None:
    with fits.open(real) as hdus:
        for name, index in PLANES.items():
            plane, expected, record = converted[name], hdus[index].data, converted["fits"][index - 1]
            assert plane.dtype == expected.dtype.newbyteorder("=")
            assert plane.dtype.isnative
            assert plane.array.tobytes() == expected.astype(plane.dtype).tobytes()
            assert record["component"] == name
            assert "data" not in record


def test_real_mask_planes(real: Path, converted: ch5.Composite) -> None:
    header = fits.getheader(real, 2)
    expected = {key[3:]: value for key, value in header.items() if key.startswith("MP_")}
    assert {name: plane.bit for name, plane in converted["mask"].planes.items()} == expected
    assert (expected["BAD"], expected["DETECTED"]) == (0, 5)


@pytest.mark.parametrize(("file", "dtype", "origin"), [(HSC, np.uint16, (100, 100)), (AFW2, np.int32, (0, 0))])
def test_real_mask_type_and_origin(file: str, dtype: type, origin: tuple[int, int]) -> None:
    exposure = read_exposure(data_file(file))
    assert exposure["mask"].dtype == dtype
    assert {exposure[name].origin for name in PLANES} == {origin}


def test_real_wcs_gives_the_same_sky(real: Path, converted: ch5.Composite) -> None:
    ny, nx = converted["image"].shape
    y, x = np.mgrid[-0.5 : ny - 0.5 : 40j, -0.5 : nx - 0.5 : 40j]
    expected = WCS(fits.getheader(real, 1)).all_pix2world(x, y, 0)
    np.testing.assert_allclose(converted["wcs"].all_pix2world(x, y, 0), expected, rtol=0, atol=1e-12)


def test_hsc_wcs_is_that_of_the_array() -> None:
    # The archive holds the same WCS for the parent image, counted from 0: its reference pixel is (965.84, 2103.39).
    path = data_file(HSC)
    exposure = read_exposure(path)
    x, y = fits.getdata(path, 5)["crpix"][0]
    y0, x0 = exposure["image"].origin
    sky = exposure["wcs"].wcs_pix2world([[x - x0, y - y0]], 0)[0]
    np.testing.assert_allclose(sky, fits.getdata(path, 5)["crval"][0], rtol=0, atol=1e-9)


def test_real_headers_and_tables_are_verbatim(real: Path, converted: ch5.Composite) -> None:
    raw = real.read_bytes()
    with fits.open(real) as hdus:
        texts = [converted["header"], *(record["header"] for record in converted["fits"])]
        assert len(texts) == len(hdus)
        for index, text in enumerate(texts):
            info = hdus.fileinfo(index)
            cards = text.split("\n")
            assert {len(card) for card in cards} == {80}
            assert raw[info["hdrLoc"] :].startswith("".join([*cards, "END "]).encode("ascii"))
            if isinstance(hdus[index], fits.BinTableHDU):
                assert converted["fits"][index - 1]["data"] == raw[info["datLoc"] : info["datLoc"] + info["datSpan"]]


def test_real_conversion_is_deterministic(real: Path, stored: Path, tmp_path: Path) -> None:
    convert(real, tmp_path / "two.h5")
    assert (tmp_path / "two.h5").read_bytes() == stored.read_bytes()


def test_hsc_has_no_calibration_filter_or_psf() -> None:
    exposure = read_exposure(data_file(HSC))
    assert {"photo_calib", "filter", "psf", "detector"} <= set(exposure.absent)
    assert exposure.data_id == {}
    # TIME-MID is UTC: 1969-12-31T23:59:51.99991824Z.
    assert abs((exposure["visit_info"]["date_avg"] - Time(0, format="unix_tai")).to_value("s")) < 1e-7
    assert exposure["visit_info"]["exposure_time"] == 0 * u.s


def test_afw_visit_info(afw: ch5.Composite) -> None:
    info = afw["visit_info"]
    assert info["exposure_time"] == 30 * u.s
    assert info["dark_time"] == 600 * u.s
    assert info["date_avg"] == Time("2020-01-20T12:34:56", scale="tai")
    assert info["date_avg"].scale == "tai"
    assert info["boresight"].separation(SkyCoord(30 * u.deg, 40 * u.deg)) < 1e-12 * u.deg
    assert info["rotation_type"] == "UNKNOWN"
    # There is no latitude of 123.45 degrees.
    assert "observatory" not in info
    assert info["observatory_latitude"] == 123.45 * u.deg
    assert info["observatory_longitude"] == -12.345 * u.deg
    assert info["observatory_elevation"] == 2000 * u.m
    # It is of one detector's exposure, and visit_info the same for all of them.
    assert afw["metadata"]["exposure_id"] == 12345
    assert "12345" not in repr(info.to_dict())


def test_afw_calibration_filter_and_detector(afw: ch5.Composite) -> None:
    calib = afw["photo_calib"]
    assert (calib.mean, calib.error, calib.field) == (1e6, 2e4, None)
    assert afw["filter"].to_dict() == {"band": "N656", "physical": "ha"}
    detector = afw["detector"]
    assert (detector["id"], detector["name"], detector["serial"]) == (1, "detector 1", "xkcd722")
    assert (detector["type"], detector["physical_type"]) == ("SCIENCE", "CCD")
    assert ch5.Box(**detector["box"]) == ch5.Box(0, 10, 0, 10)
    assert detector["pixel_size_x"] == detector["pixel_size_y"] == 0.02 * u.mm
    assert detector["crosstalk"].shape == (3, 3)
    amplifiers = detector["amplifiers"]
    assert amplifiers["name"][0] == "amp 1"
    assert amplifiers["gain"][0] == 1712.34 * u.electron / u.adu
    assert amplifiers["bbox_min_x"].dtype == np.int32
    assert not amplifiers["hasrawinfo"].any()


def test_afw_data_id_comes_from_the_file_and_the_argument(afw: ch5.Composite) -> None:
    assert afw.data_id == {"detector": 1}
    given: dict[str, int | str] = {"instrument": "HSC", "visit": 903334, "detector": 56}
    assert read_exposure(data_file(AFW2), data_id=given).data_id == given


# ---- Files made here --------------------------------------------------------------------------------------


Make = Callable[[fits.HDUList], Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def write(hdus: fits.HDUList) -> Path:
        path = tmp_path / "in.fits"
        hdus.writeto(path, overwrite=True)
        return path

    return write


def test_calibration_that_varies(make: Make) -> None:
    calib = read_exposure(make(exposure_with_archive()))["photo_calib"]
    assert (calib.mean, calib.error) == (2.5, 0.5)
    assert calib.field.box == ch5.Box(-4, 26, 7, 27)
    # T0 = 1, T1 = t, T2 = 2 t^2 - 1 of positions scaled to the outer edges of the box; rows of coefficients are of y.
    y, x = 3.0, 20.0
    v, w = (y - 10.5) / 15, (x - 16.5) / 10
    expected = 2.5 + 0.1 * w + 0.02 * (2 * w**2 - 1) + v * (0.3 + 0.01 * (2 * w**2 - 1))
    np.testing.assert_allclose(calib.calibration(y, x), expected, rtol=1e-14)


@pytest.mark.parametrize("table", [photo_calib_table(True, version=0), photo_calib_table(True, mean=np.nan)])
def test_calibration_that_is_not_understood_is_neither_present_nor_absent(make: Make, table: fits.BinTableHDU) -> None:
    hdus = hdu_list(AR_HDU=5, PHOTOCALIB_ID=1)
    hdus.extend(archive(("PhotoCalib", table)))
    exposure = read_exposure(make(hdus))
    assert "photo_calib" not in exposure
    assert "photo_calib" not in exposure.absent


def test_psf_in_the_archive_is_not_called_absent(make: Make) -> None:
    hdus = hdu_list(AR_HDU=5, PSF_ID=1, AP_CORR_MAP_ID=0)
    hdus.extend(archive(("PsfexPsf", chebyshev_table())))
    exposure = read_exposure(make(hdus))
    assert "psf" not in exposure.absent
    assert "ap_corr_map" in exposure.absent


def test_calibration_of_old_headers(make: Make) -> None:
    exposure = read_exposure(make(hdu_list(FLUXMAG0=1e12, FLUXMAG0ERR=1e10, FILTER="i")))
    zero = (0 * u.ABmag).to_value(u.nJy)
    calib = exposure["photo_calib"]
    np.testing.assert_allclose([calib.mean, calib.error], [zero / 1e12, zero / 1e14])
    assert exposure["filter"].to_dict() == {"band": "i"}


def test_visit_info_of_a_full_header(make: Make) -> None:
    cards: dict[str, object] = {
        "EXPTIME": "30.5", "DATE-AVG": "2025-05-01T01:02:03.25", "TIMESYS": "UTC", "OBS-LONG": -70.7, "OBS-LAT": -30.2,
        "OBS-ELEV": 2663.0, "AIRTEMP": 9.5, "AIRPRESS": 74000.0, "HUMIDITY": 20.0, "IDNUM": 903334, "INSTRUMENT": "X",
        "BORE-AIRMASS": 1.25, "BORE-ROTANG": 12.5, "BORE-AZ": 10.0, "BORE-ALT": 53.0,
    }  # fmt: skip
    exposure = read_exposure(make(hdu_list(**cards)))
    info = exposure["visit_info"]
    assert info["exposure_time"] == 30.5 * u.s
    assert info["date_avg"].scale == "tai"
    assert abs(info["date_avg"] - Time("2025-05-01T01:02:40.25", scale="tai")) < 1 * u.ns
    site = EarthLocation.from_geodetic(-70.7 * u.deg, -30.2 * u.deg, 2663 * u.m)
    assert np.all(info["observatory"] == site)
    assert info["weather"]["air_temperature"] == 9.5 * u.deg_C
    assert info["boresight_airmass"] == 1.25
    assert info["boresight_rotation_angle"] == 12.5 * u.deg
    assert "boresight" not in info
    assert exposure.data_id == {"instrument": "X", "visit": 903334}


@pytest.mark.parametrize(
    "cards",
    [
        {"DATE-AVG": "yesterday", "TIMESYS": "TAI"},
        {"DATE-AVG": "2025-05-01T01:02:03", "TIMESYS": "MARS"},
        {"EXPTIME": "long"},
        {"AIRTEMP": fits.card.Undefined()},
    ],
)
def test_keywords_without_sense_are_left_to_the_header(make: Make, cards: dict[str, object]) -> None:
    path = make(hdu_list(**cards))
    exposure = read_exposure(path)
    assert "visit_info" in exposure.absent
    assert fits_bytes(exposure) == path.read_bytes()


def test_metadata_in_the_header_of_the_image(make: Make) -> None:
    hdus = hdu_list(EXPTIME=1.0)
    del hdus[1].header["INHERIT"]
    hdus[1].header["EXPTIME"] = 2.0
    assert read_exposure(make(hdus))["visit_info"]["exposure_time"] == 2 * u.s


def test_unit_and_its_square(make: Make) -> None:
    hdus = hdu_list(BUNIT="nJy")
    exposure = read_exposure(make(hdus))
    assert exposure["image"].unit == u.nJy
    assert exposure["variance"].unit == u.nJy**2


def test_mask_and_variance_may_be_missing(make: Make, tmp_path: Path) -> None:
    hdus = hdu_list()
    path = make(hdus[:2])
    convert(path, tmp_path / "out.h5")
    with ch5.open(tmp_path / "out.h5") as exposure:
        assert {"mask", "variance"} <= set(exposure.absent)
        np.testing.assert_array_equal(exposure["image"].array, pixels())
        assert fits_bytes(exposure) == path.read_bytes()


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_masks_of_every_type(make: Make, dtype: str) -> None:
    info = np.iinfo(dtype)
    values = np.random.default_rng(3).integers(info.min, info.max, SHAPE, dtype, endpoint=True)
    values.flat[:2] = info.min, info.max
    hdus = hdu_list()
    hdus[2] = image_hdu("MASK", values, MP_BAD=0)
    path = make(hdus)
    exposure = read_exposure(path)
    assert exposure["mask"].dtype == values.dtype
    np.testing.assert_array_equal(exposure["mask"].array, values)
    assert "data" not in exposure["fits"][1]
    assert fits_bytes(exposure) == path.read_bytes()


def test_scaled_pixels_are_physical_and_the_stored_ones_are_kept(make: Make, tmp_path: Path) -> None:
    hdus = hdu_list()
    stored = np.arange(600, dtype=np.int16).reshape(SHAPE)
    hdus[1] = image_hdu("IMAGE", stored)
    path = make(hdus)
    with fits.open(path, mode="update", do_not_scale_image_data=True) as opened:
        opened[1].header["BSCALE"] = 0.1
        opened[1].header["BZERO"] = 5.0
    exposure = convert(path, tmp_path / "out.h5")
    np.testing.assert_allclose(exposure["image"].array, stored * 0.1 + 5, rtol=1e-6)
    with ch5.open(tmp_path / "out.h5") as opened:
        assert fits_bytes(opened) == path.read_bytes()


def test_other_hdus_and_odd_cards_survive(make: Make, tmp_path: Path) -> None:
    hdus = hdu_list()
    hdus[0].header["HIERARCH LSST long keyword"] = ("x" * 120, "a comment that goes on with CONTINUE cards")
    hdus[0].header["HISTORY"] = "it was made"
    hdus[0].header["COMMENT"] = "  with  blanks "
    hdus[0].header.append(("", ""), end=True)
    ragged = np.array([np.arange(3.0), np.arange(5.0)], object)
    hdus.append(fits.BinTableHDU.from_columns([fits.Column("v", "PD()", array=ragged)], name="RAGGED"))
    hdus.append(fits.ImageHDU(np.arange(24, dtype=np.int16).reshape(2, 3, 4), name="CUBE"))
    hdus.append(fits.TableHDU.from_columns([fits.Column("a", "A5", array=["one", "two"])], name="TEXT"))
    hdus.insert(1, fits.ImageHDU(np.zeros(7), name="BEFORE"))
    path = make(hdus)
    convert(path, tmp_path / "out.h5")
    with ch5.open(tmp_path / "out.h5") as exposure:
        assert fits_bytes(exposure) == path.read_bytes()


def test_changed_pixels_come_back_in_the_fits_file(make: Make) -> None:
    exposure = read_exposure(make(hdu_list()))
    image = exposure["image"]
    changed = ch5.Composite(
        "exposure", {**{name: exposure[name] for name in exposure}, "image": ch5.Image(image.array + 1, image.origin)}
    )
    with fits.HDUList.fromstring(fits_bytes(changed)) as hdus:
        np.testing.assert_array_equal(hdus[1].data, pixels() + 1)
        assert hdus[1].header["EXTTYPE"] == "IMAGE"


def test_tile_compressed_images(make: Make, tmp_path: Path) -> None:
    hdus = hdu_list()
    mask = hdus[2].data.astype(np.uint16)
    for index, data in ((1, hdus[1].data), (2, mask), (3, hdus[3].data)):
        header = hdus[index].header
        hdus[index] = fits.CompImageHDU(data, header, compression_type="GZIP_2", quantize_level=0)
    path = make(hdus)
    convert(path, tmp_path / "out.h5")
    with ch5.open(tmp_path / "out.h5") as exposure:
        assert exposure["image"].array.tobytes() == pixels().tobytes()
        assert exposure["mask"].dtype == np.uint16
        np.testing.assert_array_equal(exposure["mask"].array, mask)
        assert exposure["mask"].planes["SAT"].bit == 1
        assert exposure["image"].origin == (-4, 7)
        assert exposure["wcs"].wcs.crval.tolist() == [150, 2]
        record = exposure["fits"][0]
        assert "ZCMPTYPE= 'GZIP_2  '" in record["compressed_header"]
        with fits.HDUList.fromstring(fits_bytes(exposure)) as rebuilt, fits.open(path) as original:
            for index in PLANES.values():
                assert type(rebuilt[index]) is fits.ImageHDU
                np.testing.assert_array_equal(rebuilt[index].data, original[index].data)
                assert rebuilt[index].data.dtype.kind == original[index].data.dtype.kind
                assert rebuilt[index].header["EXTTYPE"] == original[index].header["EXTTYPE"]


def test_exposure_without_wcs(make: Make) -> None:
    hdus = hdu_list()
    for key in ("CTYPE1", "CTYPE2"):
        del hdus[1].header[key]
    assert "wcs" in read_exposure(make(hdus)).absent


def test_origin_from_ltv_alone_or_neither(make: Make) -> None:
    hdus = hdu_list()
    for hdu in hdus[1:]:
        for axis in "12":
            del hdu.header[f"CRPIX{axis}A"], hdu.header[f"CRVAL{axis}A"]
    assert read_exposure(make(hdus))["image"].origin == (-4, 7)
    for hdu in hdus[1:]:
        del hdu.header["LTV1"], hdu.header["LTV2"]
    assert read_exposure(make(hdus))["image"].origin == (0, 0)


# ---- Errors -----------------------------------------------------------------------------------------------


def set_card(index: int, key: str, value: object) -> Callable[[fits.HDUList], None]:
    def change(hdus: fits.HDUList) -> None:
        hdus[index].header[key] = value

    return change


def replace(index: int, hdu: fits.ImageHDU) -> Callable[[fits.HDUList], None]:
    def change(hdus: fits.HDUList) -> None:
        hdus[index] = hdu

    return change


WRONG = {
    "origins that differ": (set_card(1, "LTV1", -8), "origin.*'CRVAL of WCS A of the image': \\(-4, 7\\).*\\(-4, 8\\)"),
    "origins of planes that differ": (set_card(3, "CRVAL2A", 5.0), "origin.*the variance"),
    "fractional origin": (set_card(2, "LTV2", 4.5), "whole pixels"),
    "plane beyond the type": (set_card(2, "MP_FAR", 40), "mask.*FAR"),
    "bit used twice": (set_card(2, "MP_TWICE", 1), "mask.*TWICE"),
    "bit that is no number": (set_card(2, "MP_TEXT", "one"), "mask.*TEXT"),
    "two images": (set_card(3, "EXTTYPE", "IMAGE"), "1 and 3 are both the image"),
    "mask of floats": (replace(2, image_hdu("MASK", pixels())), "the mask: .*float32"),
    "planes of different shapes": (replace(3, image_hdu("VARIANCE", pixels()[:5])), "same shape"),
    "cube": (replace(1, image_hdu("IMAGE", np.zeros((2, 3, 4)))), "two axes"),
    "archive that isn't there": (set_card(0, "AR_HDU", 9), "HDU 8"),
    "archive that is an image": (set_card(0, "AR_HDU", 2), "HDU 1"),
    "bad WCS": (set_card(1, "CTYPE1", "RA---XYZ"), "damaged"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_files_are_refused(
    make: Make, tmp_path: Path, change: Callable[[fits.HDUList], None], message: str
) -> None:
    hdus = hdu_list()
    change(hdus)
    path = make(hdus)
    with pytest.raises(ConversionError, match=f"(?s)in.fits.*{message}"):
        convert(path, tmp_path / "out.h5")
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.fits"]


def test_exposure_without_image_is_refused(make: Make) -> None:
    hdus = hdu_list()
    hdus[1].header["EXTTYPE"] = "SCI"
    with pytest.raises(ConversionError, match="in.fits.*layout of the LSST pipelines.*1 ImageHDU SCI"):
        read_exposure(make(hdus))
    with pytest.raises(ConversionError, match="not an exposure in the layout of the LSST pipelines"):
        read_exposure(make(fits.HDUList([fits.PrimaryHDU(pixels())])))


def test_object_or_column_that_is_missing_from_the_archive(make: Make) -> None:
    hdus = hdu_list(AR_HDU=5, PHOTOCALIB_ID=3)
    hdus.extend(archive(("PhotoCalib", photo_calib_table(True))))
    with pytest.raises(ConversionError, match="no object 3"):
        read_exposure(make(hdus))
    hdus[0].header["PHOTOCALIB_ID"] = 1
    hdus[5].columns.change_name("calibrationErr", "error")
    with pytest.raises(ConversionError, match=r"archive table 1 \(PhotoCalib\).*calibrationErr"):
        read_exposure(make(hdus))


def test_archive_tables_that_are_missing(real: Path, tmp_path: Path) -> None:
    with fits.open(real) as hdus:
        end = hdus.fileinfo(len(hdus) - 1)["hdrLoc"]
    path = tmp_path / "short.fits"
    path.write_bytes(real.read_bytes()[:end])
    with pytest.raises(ConversionError, match="the archive should be"):
        read_exposure(path)


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n" + bytes(100), b"SIMPLE, but not FITS" * 200])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "in.fits"
    path.write_bytes(content)
    with pytest.raises(ConversionError, match="in.fits"):
        read_exposure(path)
    # What begins as HDF5 does would be converted back.
    with pytest.raises((ConversionError, CorruptFileError), match="in.fits"):
        convert(path, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def test_files_that_are_missing_or_in_the_way(make: Make, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        convert(tmp_path / "none.fits", tmp_path / "out.h5")
    target = tmp_path / "out.h5"
    convert(make(hdu_list()), target)
    before = target.read_bytes()
    other = make(hdu_list(EXPTIME=5.0))
    with pytest.raises(ConflictError):
        convert(other, target)
    assert target.read_bytes() == before
    convert(other, target, replace=True)
    with ch5.open(target) as exposure:
        assert exposure["visit_info"]["exposure_time"] == 5 * u.s
