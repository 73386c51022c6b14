"""FITS files of all sorts as composites, and back: catalogs, calibrations, images, and anything else."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import EarthLocation, SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty
from astropy.time import Time
from fits_samples import AFW2, CATALOG, PHOTO_CALIB, REAL, VISIT_INFO
from hypothesis import given, settings
from hypothesis import strategies as st
from support import data_file, simple_wcs

import compositeh5 as ch5
from compositeh5.cli import main
from compositeh5.errors import ConflictError, ConversionError, NoSuchComponentError
from compositeh5.fits import convert
from compositeh5.fits.conversion import fits_bytes, read_fits, write_fits


@pytest.fixture(scope="module")
def catalog() -> ch5.Composite:
    return read_fits(data_file(CATALOG))


def written(hdus: fits.HDUList | list[Any], path: Path) -> Path:
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.mark.parametrize("name", REAL)
def test_there_and_back_is_identical_by_bytes_and_by_diff(name: str, tmp_path: Path) -> None:
    source, stored, back = data_file(name), tmp_path / "stored.h5", tmp_path / "back.fits"
    assert main(["convert", str(source), str(stored)]) == 0
    assert main(["convert", str(stored), str(back)]) == 0
    assert back.read_bytes() == source.read_bytes()
    assert main(["diff", str(source), str(back)]) == 0
    assert main(["diff", str(source), str(stored)]) == 0
    assert main(["verify", str(stored)]) == 0


# ---- Catalogs ---------------------------------------------------------------------------------------------


def test_catalog_has_flags_units_and_descriptions(tmp_path: Path) -> None:
    source = data_file(CATALOG)
    convert(source, tmp_path / "src.h5")
    with ch5.open(tmp_path / "src.h5") as catalog, fits.open(source) as hdus:
        header, data = hdus[1].header, hdus[1].data
        assert catalog.definition == "source_catalog"
        table = catalog["table"]
        flags = {name: int(key[5:]) - 1 for key, name in header["TFLAG*"].items()}
        assert len(flags) == 114
        assert len(table.colnames) == 114 + len(hdus[1].columns) - 1
        for name, bit in flags.items():
            assert table[name].dtype == bool
            np.testing.assert_array_equal(table[name], data["flags"][:, bit])
        assert any(table[name].any() for name in flags)
        for column in hdus[1].columns[1:]:
            np.testing.assert_array_equal(table[column.name], data[column.name])
            assert table[column.name].dtype.isnative
            if column.unit:
                assert table[column.name].unit == u.Unit(column.unit.replace("^", "**"))
        assert table["coord_ra"].unit == u.rad
        assert table["id"].description == "unique ID"
        assert "data" not in catalog["fits"][0]
        # One column is read alone.
        assert catalog.read("table", columns=["coord_ra"]).colnames == ["coord_ra"]


def test_changed_columns_come_back_in_the_fits_file(catalog: ch5.Composite) -> None:
    table = catalog["table"].copy()
    name = next(name for name in table.colnames if name.endswith("_flag"))
    table["coord_ra"] = table["coord_ra"] + 1
    table[name] = ~table[name]
    with fits.HDUList.fromstring(fits_bytes(catalog.replace({"table": table}))) as hdus:
        np.testing.assert_array_equal(hdus[1].data["coord_ra"], table["coord_ra"])
        bit = next(int(key[5:]) - 1 for key, other in hdus[1].header["TFLAG*"].items() if other == name)
        np.testing.assert_array_equal(hdus[1].data["flags"][:, bit], table[name])


def test_columns_that_the_header_does_not_have_are_refused(catalog: ch5.Composite) -> None:
    table = catalog["table"]
    more = table.copy()
    more["new"] = 1.0
    for wrong, message in (
        (table[:2], "2 rows, but.* 5"),
        (table[table.colnames[1:]], "lacks the column"),
        (more, "table: differs"),
    ):
        with pytest.raises(ConversionError, match=message):
            fits_bytes(catalog.replace({"table": wrong}))


_NUMBERS = {"B": np.uint8, "I": np.int16, "J": np.int32, "K": np.int64, "E": np.float32, "D": np.float64}


@st.composite
def columns(draw: st.DrawFn) -> list[fits.Column]:
    rows = draw(st.integers(0, 5))
    made = []
    for number in range(draw(st.integers(1, 6))):
        code = draw(st.sampled_from([*_NUMBERS, "L", "X", "A", "unsigned", "null", "complex"]))
        width = draw(st.integers(1, 9))
        random = np.random.default_rng(draw(st.integers(0, 99)))
        raw = random.integers(0, 120, (rows, width))
        name = f"c{number}"
        if code in _NUMBERS:
            info: dict[str, Any] = {"format": f"{width}{code}", "array": raw.astype(_NUMBERS[code])}
        elif code == "L":
            info = {"format": f"{width}L", "array": raw % 2 == 0}
        elif code == "X":
            info = {"format": f"{width}X", "array": raw % 2 == 0}
        elif code == "A":
            info = {"format": f"{width}A", "array": ["x" * (row % (width + 1)) for row in range(rows)]}
        elif code == "unsigned":
            size = draw(st.sampled_from([2, 4]))
            values = raw[:, 0].astype(f"u{size}")
            info = {"format": {2: "I", 4: "J"}[size], "bzero": 1 << 8 * size - 1, "array": values}
        elif code == "null":
            info = {"format": "J", "null": 7, "array": raw[:, 0].astype("i4") % 10}
        else:
            info = {"format": "M", "array": raw[:, 0] + 1j}
        made.append(fits.Column(name, unit=draw(st.sampled_from([None, "s", "furlong"])), **info))
    return made


@settings(max_examples=20)
@given(columns())
def test_tables_of_every_type_are_read_as_astropy_reads_them_and_written_again(
    tmp_path_factory: pytest.TempPathFactory, columns: list[fits.Column]
) -> None:
    hdu = fits.BinTableHDU.from_columns(columns, name="T")
    path = written([fits.PrimaryHDU(), hdu], tmp_path_factory.mktemp("t") / "t.fits")
    composite = read_fits(path)
    table = composite["t"]
    with fits.open(path) as hdus:
        for column in columns:
            expected, got = hdus[1].data[column.name], table[column.name]
            undefined = getattr(got, "mask", None)
            if undefined is not None and np.any(undefined):
                np.testing.assert_array_equal(undefined, expected == 7)
            np.testing.assert_array_equal(np.asarray(got.data), np.asarray(expected).reshape(got.shape))
    assert fits_bytes(composite) == path.read_bytes()


def test_scaled_and_shaped_columns_are_physical_and_those_stored_are_kept(tmp_path: Path) -> None:
    hdu = fits.BinTableHDU.from_columns(
        [
            fits.Column("x", "I", array=np.arange(5, dtype="i2")),
            fits.Column("y", "6J", dim="(3,2)", array=np.arange(30).reshape(5, 2, 3)),
            fits.Column("z", "6A", dim="(3,2)", array=[["abc", "d"]] * 5),
        ],
        name="T",
    )
    hdu.header["TSCAL1"], hdu.header["TZERO1"] = 0.1, 3.0
    path = written([fits.PrimaryHDU(), hdu], tmp_path / "in.fits")
    composite = read_fits(path)
    table = composite["t"]
    np.testing.assert_allclose(table["x"], np.arange(5) * 0.1 + 3)
    np.testing.assert_array_equal(table["y"], np.arange(30).reshape(5, 2, 3))
    assert table["z"][4].tolist() == ["abc", "d"]
    assert fits_bytes(composite) == path.read_bytes()


def test_tables_with_columns_of_variable_length_keep_them_verbatim(tmp_path: Path) -> None:
    ragged = np.array([np.arange(3.0), np.arange(5.0)], object)
    hdu = fits.BinTableHDU.from_columns(
        [fits.Column("v", "PD()", array=ragged), fits.Column("x", "J", array=[1, 2])], name="RAGGED"
    )
    path = written([fits.PrimaryHDU(), hdu], tmp_path / "in.fits")
    composite = read_fits(path)
    assert composite["ragged"].colnames == ["x"]
    assert fits_bytes(composite) == path.read_bytes()
    changed = composite["ragged"]
    changed["x"] = [3, 4]
    with pytest.raises(ConversionError, match="ragged: differs"):
        fits_bytes(composite.replace({"ragged": changed}))


# ---- Archives of one object -------------------------------------------------------------------------------


def test_visit_info_archive(tmp_path: Path) -> None:
    convert(data_file(VISIT_INFO), tmp_path / "visit.h5")
    with ch5.open(tmp_path / "visit.h5") as composite:
        info = composite["visit_info"]
        assert composite.data_id == {"instrument": "TestCameraOne", "visit": 987654}
    row = fits.getdata(data_file(VISIT_INFO), 2)[0]
    assert info.exposure_time == 10.01 * u.s
    assert info.dark_time == 11.02 * u.s
    assert isinstance(info.date_avg, Time)
    assert info.date_avg.scale == "tai"
    # Nanoseconds since 1970, as clocks of TAI show them.
    elapsed = (info.date_avg - Time("1970-01-01T00:00:00", scale="tai")).to_value("s")
    assert elapsed == pytest.approx(row["tai"] * 1e-9, abs=1e-6)
    boresight = SkyCoord(row["boresightradec_ra"], row["boresightradec_dec"], unit="rad")
    assert info.boresight.separation(boresight) < 1e-9 * u.arcsec
    site = EarthLocation.from_geodetic(row["longitude"] * u.rad, row["latitude"] * u.rad, row["elevation"] * u.m)
    assert np.abs(info.observatory.x - site.x) < 1 * u.um
    assert info.boresight_altitude.radian == pytest.approx(row["boresightazalt_alt"])
    assert (info.rotation_type, info.observation_type, info.science_program) == ("SKY", "flat", "test program")
    assert info.has_simulated_content is False
    assert info.weather.air_temperature == 1.1 * u.deg_C
    assert info.weather.humidity == 34.5 * u.percent
    assert info.focus_z == 1.5 * u.mm


def test_photo_calib_archive() -> None:
    calibration = read_fits(data_file(PHOTO_CALIB))["photo_calib"]
    row = fits.getdata(data_file(PHOTO_CALIB), 2)[0]
    assert (calibration.mean, calibration.error) == (row["calibrationMean"], row["calibrationErr"]) == (123.0, 45.0)
    assert calibration.field is None  # the file has one, but says that it is constant


def test_photo_calib_that_varies_agrees_with_its_own_table(tmp_path: Path) -> None:
    coefficients = np.array([[2.0, 0.5, 0.25], [0.125, -0.5, 0.0]])  # [y, x]
    path = tmp_path / "in.fits"
    with fits.open(data_file(PHOTO_CALIB)) as hdus:
        hdus[2].data["flags"][:] = False
        table = fits.BinTableHDU.from_columns(
            [
                fits.Column("order_x", "J", array=[2]),
                *(fits.Column(f"bbox_{end}", "J", array=[at]) for end, at in
                  (("min_x", 10), ("min_y", -5), ("max_x", 109), ("max_y", 44))),
                fits.Column("coefficients", "6D", array=[coefficients.ravel()]),
            ]
        )  # fmt: skip
        table.header.update({key: hdus[3].header[key] for key in ("EXTTYPE", "AR_CATN", "AR_NAME")})
        hdus[3] = table
        hdus.writeto(path)
    composite = read_fits(path)
    row = fits.getdata(path, 3)[0]
    y, x = np.mgrid[-5:45:7, 10:110:9].astype(float)
    # afw: centres of the outer pixels are half a pixel inside of the domain of -1 to 1.
    u_, v = ((2 * at - low - high) / (high - low + 1) for at, low, high in ((x, 10, 109), (y, -5, 44)))
    expected = sum(
        row["coefficients"][3 * i + j] * np.cos(i * np.arccos(v)) * np.cos(j * np.arccos(u_))
        for i in range(2)
        for j in range(3)
    )
    np.testing.assert_allclose(composite["photo_calib"].calibration(y, x), expected, rtol=1e-12)
    assert fits_bytes(composite) == path.read_bytes()


# ---- Images of other origin -------------------------------------------------------------------------------


def ccd(uncertainty: type = StdDevUncertainty, dtype: str = "f4") -> CCDData:
    random = np.random.default_rng(5)
    shape = (20, 30)
    return CCDData(
        random.normal(100, 5, shape).astype(dtype),
        unit="electron",
        mask=random.random(shape) > 0.9,
        uncertainty=uncertainty(random.uniform(1, 9, shape).astype(dtype)),
        wcs=simple_wcs(shape),
        meta={"EXPTIME": 30.0, "OBJECT": "M 31"},
    )


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    ("uncertainty", "power"), [(StdDevUncertainty, 2), (VarianceUncertainty, 1), (InverseVariance, -1)]
)
def test_ccddata_is_an_exposure(uncertainty: type, power: int, dtype: str, tmp_path: Path) -> None:
    original = ccd(uncertainty, dtype)
    original.write(tmp_path / "ccd.fits")
    convert(tmp_path / "ccd.fits", tmp_path / "ccd.h5")
    with ch5.open(tmp_path / "ccd.h5") as exposure:
        assert exposure.definition == "exposure"
        np.testing.assert_array_equal(exposure["image"].array, original.data)
        assert exposure["image"].unit == u.electron
        np.testing.assert_array_equal(exposure["mask"].has("BAD"), original.mask)
        np.testing.assert_allclose(exposure["variance"].array, original.uncertainty.array**power, rtol=1e-6)
        assert exposure["variance"].unit == u.electron**2
        np.testing.assert_allclose(
            exposure["wcs"].wcs_pix2world([[3, 4]], 0), original.wcs.wcs_pix2world([[3, 4]], 0), atol=1e-12
        )
        write_fits(exposure, tmp_path / "back.fits")
        # A cutout needs the WCS, and nothing of the file.
        assert exposure.cutout(ch5.Box(2, 6, 3, 8))["image"].shape == (4, 5)
    back = CCDData.read(tmp_path / "back.fits")
    np.testing.assert_array_equal(back.data, original.data)
    np.testing.assert_array_equal(back.mask, original.mask)
    np.testing.assert_array_equal(back.uncertainty.array, original.uncertainty.array)
    assert type(back.uncertainty) is uncertainty
    assert (back.unit, back.meta["OBJECT"]) == (u.electron, "M 31")
    assert (tmp_path / "back.fits").read_bytes() == (tmp_path / "ccd.fits").read_bytes()


def test_ccddata_whose_mask_has_other_values_keeps_it_verbatim(tmp_path: Path) -> None:
    hdus = [fits.PrimaryHDU(np.ones((4, 4))), fits.ImageHDU(np.full((4, 4), 0.5), name="MASK")]
    path = written(hdus, tmp_path / "in.fits")
    exposure = read_fits(path)
    assert "mask" not in exposure
    assert fits_bytes(exposure) == path.read_bytes()


@pytest.mark.parametrize("compression", ["RICE_1", "GZIP_1"])
def test_one_compressed_image(compression: str, tmp_path: Path) -> None:
    values = np.arange(600, dtype=np.int16).reshape(20, 30)
    header = fits.Header({"BUNIT": "ADU", **simple_wcs(values.shape).to_header()})
    hdu = fits.CompImageHDU(values, header, compression_type=compression)
    path = written([fits.PrimaryHDU(), hdu], tmp_path / "in.fits.fz")
    exposure = read_fits(path)
    assert exposure.definition == "exposure"
    assert exposure["image"].unit == u.adu
    np.testing.assert_array_equal(exposure["image"].array, values)
    with fits.HDUList.fromstring(fits_bytes(exposure)) as hdus:
        np.testing.assert_array_equal(hdus[1].data, values)
        assert hdus[1].header["CRVAL1"] == pytest.approx(150.1)


def test_any_other_file_has_a_component_for_each_hdu(tmp_path: Path) -> None:
    shape = (20, 30)
    sky = simple_wcs(shape).to_header()
    hdus = [
        fits.PrimaryHDU(header=fits.Header({"TELESCOP": "HST"})),
        *(
            fits.ImageHDU(
                np.full(shape, number, "f4"), fits.Header({"BUNIT": "electron", "EXTVER": number, **sky}), "SCI"
            )
            for number in (1, 2)
        ),
        fits.ImageHDU(np.arange(600, dtype=np.uint16).reshape(shape), name="DQ"),
        fits.ImageHDU(np.arange(24, dtype=np.int16).reshape(2, 3, 4), name="my cube"),
        fits.ImageHDU(np.arange(5.0), name="HEADER"),
        fits.ImageHDU(name="EMPTY"),
        fits.BinTableHDU.from_columns([fits.Column("flux", "2D", unit="Jy", array=[[1, 2], [3, 4]])]),
        fits.TableHDU.from_columns([fits.Column("a", "A5", array=["one", "two"])], name="ASCII"),
    ]
    path = written(hdus, tmp_path / "in.fits")
    convert(path, tmp_path / "out.h5")
    with ch5.open(tmp_path / "out.h5") as composite:
        assert composite.definition == ""
        names = ["sci", "sci_wcs", "sci_2", "sci_2_wcs", "dq", "my_cube", "hdu_header", "hdu_7", "header", "fits"]
        assert sorted(composite) == sorted(names)
        assert (composite["sci_2"].array == 2).all()
        assert composite["sci"].unit == u.electron
        assert composite["sci_2_wcs"].wcs.crval.tolist() == [150.1, 2.2]
        assert (composite["dq"].dtype, composite["my_cube"].shape) == (np.uint16, (2, 3, 4))
        assert composite["hdu_header"].tolist() == [0, 1, 2, 3, 4]
        assert composite["hdu_7"]["flux"].unit == u.Jy
        assert "TELESCOP= 'HST" in composite["header"]
        assert fits_bytes(composite) == path.read_bytes()


# ---- Back -------------------------------------------------------------------------------------------------


def test_what_headers_do_not_follow_is_refused(tmp_path: Path) -> None:
    ccd().write(tmp_path / "ccd.fits")
    exposure = read_fits(tmp_path / "ccd.fits")
    moved = simple_wcs((20, 30))
    moved.wcs.crval = [10, 20]
    changes: dict[str, Any] = {
        "wcs": moved,
        "psf": ch5.Psf.constant(np.ones((5, 5)) / 25),
        "image": ch5.Image(exposure["image"].array, unit="nJy"),
        "mask": ch5.Mask(exposure["mask"].array, {"SATURATED": 0}),
    }
    for name, value in changes.items():
        with pytest.raises(ConversionError, match=f"{name}: differs from what the headers"):
            write_fits(exposure.replace({name: value}), tmp_path / "back.fits")
    with pytest.raises(ConversionError):
        write_fits(exposure.replace({"image": ch5.Image(np.zeros((3, 3), "f4"))}), tmp_path / "back.fits")
    assert not (tmp_path / "back.fits").exists()


def test_pixels_that_are_kept_as_they_stood_are_not_written_for_others(tmp_path: Path) -> None:
    path = written([fits.PrimaryHDU(np.arange(600, dtype=np.int16).reshape(20, 30))], tmp_path / "in.fits")
    with fits.open(path, mode="update", do_not_scale_image_data=True) as hdus:
        hdus[0].header["BSCALE"] = 0.1
    exposure = read_fits(path)
    assert fits_bytes(exposure) == path.read_bytes()
    with pytest.raises(ConversionError, match="image: differs"):
        fits_bytes(exposure.replace({"image": ch5.Image(exposure["image"].array + 1)}))


def test_composites_that_were_never_fits_files_are_refused(tmp_path: Path) -> None:
    ch5.Composite("exposure", image=ch5.Image(np.zeros((3, 3)))).write(tmp_path / "own.h5")
    with pytest.raises(NoSuchComponentError, match="header"):
        convert(tmp_path / "own.h5", tmp_path / "own.fits")


def test_writing_back_replaces_only_when_told(tmp_path: Path) -> None:
    exposure = read_fits(data_file(AFW2))
    target = tmp_path / "new" / "back.fits"
    write_fits(exposure, target)
    write_fits(exposure, target)  # the same
    target.write_bytes(b"mine")
    with pytest.raises(ConflictError, match="back.fits"):
        write_fits(exposure, target)
    assert target.read_bytes() == b"mine"
    write_fits(exposure, target, replace=True)
    assert target.read_bytes() == data_file(AFW2).read_bytes()


def test_what_a_fits_file_can_not_be_told_is_refused(tmp_path: Path) -> None:
    convert(data_file(AFW2), tmp_path / "out.h5")
    with pytest.raises(ConversionError, match="data ID"):
        convert(tmp_path / "out.h5", tmp_path / "back.fits", data_id={"detector": 1})
    packed = tmp_path / "in.fits.gz"
    packed.write_bytes(gzip.compress(data_file(AFW2).read_bytes()))
    with pytest.raises(ConversionError, match="gunzip"):
        convert(packed, tmp_path / "other.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.fits.gz", "out.h5"]


def test_an_exported_image_is_an_exposure_with_its_origin(tmp_path: Path) -> None:
    image = ch5.Image(np.ones((4, 5), "f4"), origin=(10, -3), unit="nJy")
    ch5.Composite("exposure", image=image).write(tmp_path / "in.h5")
    assert main(["get", str(tmp_path / "in.h5"), "image", "-o", str(tmp_path / "image.fits")]) == 0
    again = read_fits(tmp_path / "image.fits")["image"]
    assert (again.origin, again.unit, again.dtype) == (image.origin, image.unit, image.dtype)
