"""Composites as objects of astropy and photutils, and in astropy's unified I/O."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import (
    CCDData,
    InverseVariance,
    NDDataRef,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from astropy.table import QTable, Table
from support import counted_reads, data_file, exposure, pixels, simple_wcs

import compositeh5 as ch5
from compositeh5.astropy import from_nddata, to_ccddata, to_nddata
from compositeh5.errors import ConflictError, ConversionError, EncodeError, NoSuchComponentError
from compositeh5.fits import convert
from compositeh5.kinds.mask import MaskPlaneError
from compositeh5.photutils import from_photutils, to_photutils

SHAPE = (40, 50)


@pytest.fixture
def ccd_path(tmp_path: Path) -> Path:
    path = tmp_path / "ccd.h5"
    mask = np.zeros(SHAPE, np.int32)
    mask[0, 0], mask[0, 1], mask[0, 2], mask[0, 3] = 1, 2, 4, 5
    planes = {"BAD": 0, "SAT": 1, "DETECTED": 2}
    exposure(SHAPE, mask=ch5.Mask(mask, planes, origin=(100, 200))).write(path)
    return path


@pytest.fixture
def table_path(tmp_path: Path) -> Path:
    path = tmp_path / "src.h5"
    table = QTable({"id": np.arange(5), "flux": np.arange(5.0) * u.nJy, "name": list("abcde")})
    ch5.Composite("source_catalog", table=table, photo_calib=ch5.PhotoCalib(2.0, 0.1)).write(path)
    return path


# ---- Exposures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"format": "compositeh5"}], ids=["recognised", "named"])
@pytest.mark.parametrize("cls", [CCDData, NDDataRef])
def test_an_exposure_is_read_as_nddata(ccd_path: Path, cls: type, options: dict[str, str]) -> None:
    ccd = cls.read(ccd_path, **options)
    assert type(ccd) is cls
    with ch5.open(ccd_path) as c:
        assert np.array_equal(ccd.data, c["image"].array)
        assert ccd.data.dtype == np.float32
        assert ccd.unit == u.nJy
        assert isinstance(ccd.uncertainty, VarianceUncertainty)
        assert np.array_equal(ccd.uncertainty.array, c["variance"].array)
        assert ccd.uncertainty.unit == u.nJy**2
        assert ccd.wcs.wcs.compare(c["wcs"].wcs)
        assert np.array_equal(ccd.psf, c["psf"].kernels[0])
    assert np.argwhere(ccd.mask).tolist() == [[0, 0], [0, 1], [0, 3]]  # not those only detected


def test_chosen_planes_of_the_mask(ccd_path: Path) -> None:
    assert np.argwhere(CCDData.read(ccd_path, planes=["SAT", "DETECTED"]).mask).tolist() == [[0, 1], [0, 2], [0, 3]]
    assert np.argwhere(CCDData.read(ccd_path, planes="SAT").mask).tolist() == [[0, 1]]
    assert not CCDData.read(ccd_path, planes=[]).mask.any()
    with pytest.raises(MaskPlaneError, match="no plane 'COSMIC'; it has BAD, SAT, DETECTED"):
        CCDData.read(ccd_path, planes=["COSMIC"])


def test_uncertainty_of_another_type(ccd_path: Path) -> None:
    ccd = CCDData.read(ccd_path, uncertainty=StdDevUncertainty)
    assert isinstance(ccd.uncertainty, StdDevUncertainty)
    assert ccd.uncertainty.unit == u.nJy
    assert np.all(ccd.uncertainty.array == 23)


def test_linked_components_are_found_from_a_file_that_was_recognised(tmp_path: Path) -> None:
    base = exposure(SHAPE)
    base.write(tmp_path / "base" / "ccd.h5")
    overlay = base.overlay(wcs=simple_wcs((90, 90)))
    overlay.write(tmp_path / "new" / "ccd.h5")
    ccd = CCDData.read(tmp_path / "new" / "ccd.h5")
    assert np.array_equal(ccd.data, base["image"].array)
    assert ccd.wcs.wcs.crpix[0] == 45.5
    with open(tmp_path / "new" / "ccd.h5", "rb") as file:
        assert np.array_equal(CCDData.read(file).data, base["image"].array)


def test_a_cutout_as_ccddata(ccd_path: Path) -> None:
    with ch5.open(ccd_path) as c:
        whole, part = to_nddata(c), to_ccddata(c.cutout(ch5.Box(110, 120, 205, 230)))
    assert np.array_equal(part.data, whole.data[10:20, 5:30])
    sky = whole.wcs.pixel_to_world(7, 12)
    assert part.wcs.pixel_to_world(2, 2).separation(sky) < 1e-6 * u.arcsec


def test_a_composite_becomes_what_is_read(ccd_path: Path) -> None:
    with ch5.open(ccd_path) as c:
        ours = to_ccddata(c, planes="SAT", uncertainty=StdDevUncertainty)
    ccd = CCDData.read(ccd_path, planes="SAT", uncertainty=StdDevUncertainty)
    assert type(ours) is CCDData
    assert np.array_equal(ours.data, ccd.data)
    assert np.array_equal(ours.mask, ccd.mask)
    assert np.array_equal(ours.uncertainty.array, ccd.uncertainty.array)
    assert ours.unit == u.nJy
    bare = ch5.Composite(image=np.ones((3, 4)))
    assert to_ccddata(bare, unit="adu").unit == u.adu
    with pytest.raises(ConversionError, match="give `unit`"):
        to_ccddata(bare)


@pytest.mark.parametrize("uncertainty", [VarianceUncertainty, StdDevUncertainty, InverseVariance])
def test_ccddata_round_trip(tmp_path: Path, uncertainty: type) -> None:
    data = pixels(SHAPE)
    header = fits.Header([("OBJECT", "M 31", "what"), ("EXPTIME", 30.0)])
    header["HISTORY"] = "made by hand"
    ccd = CCDData(
        data,
        unit="adu",
        mask=data > 40,
        uncertainty=uncertainty(np.full(SHAPE, 4.0)),
        wcs=simple_wcs(SHAPE),
        meta=header,
        psf=np.ones((5, 5)) / 25,
    )
    path = tmp_path / "ccd.h5"
    ccd.write(path, format="compositeh5", data_id={"visit": 3, "detector": 1})
    back = CCDData.read(path, uncertainty=uncertainty)
    assert np.array_equal(back.data, data)
    assert np.array_equal(back.mask, ccd.mask)
    assert np.allclose(back.uncertainty.array, 4.0)
    assert back.unit == u.adu
    assert back.header == header
    assert back.header.comments["OBJECT"] == "what"
    assert back.wcs.wcs.compare(ccd.wcs.wcs)
    assert np.array_equal(back.psf, ccd.psf)
    back.write(tmp_path / "ccd.fits")  # what astropy writes of others, it writes of ours
    with ch5.open(path) as c:
        assert c.definition == "exposure"
        assert c.data_id == {"detector": 1, "visit": 3}
        assert c["mask"].planes.keys() == {"BAD"}


def test_a_real_exposure_as_ccddata(tmp_path: Path) -> None:
    original = data_file("HSC-0908120-056-small.fits")
    convert(original, tmp_path / "hsc.h5")
    with pytest.raises(ConversionError, match="give `unit`"):
        CCDData.read(tmp_path / "hsc.h5")
    ccd = CCDData.read(tmp_path / "hsc.h5", unit="adu", planes=["DETECTED"])
    with fits.open(original) as hdus:
        assert np.array_equal(ccd.data, hdus[1].data)
        assert np.array_equal(ccd.mask, hdus[2].data & (1 << hdus[2].header["MP_DETECTED"]) != 0)
        assert np.array_equal(ccd.uncertainty.array, hdus[3].data)
        assert len(ccd.meta) > 10
        assert fits.HeaderDiff(ccd.meta, hdus[0].header).identical


def test_overwriting_must_be_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "ccd.h5"
    CCDData(pixels(SHAPE), unit="adu").write(path, format="compositeh5")
    other = CCDData(pixels(SHAPE, 2), unit="adu")
    with pytest.raises(ConflictError, match="holds"):
        other.write(path, format="compositeh5")
    other.write(path, format="compositeh5", overwrite=True)
    assert np.array_equal(CCDData.read(path).data, other.data)


def test_other_metadata_become_a_record() -> None:
    ccd = NDDataRef(pixels(SHAPE), meta={"airmass": 1.2, "exposure_time": 30 * u.s})
    composite = from_nddata(ccd, origin=(5, 6))
    assert composite["metadata"]["exposure_time"] == 30 * u.s
    assert composite["image"].origin == (5, 6)
    assert composite["image"].unit is None
    assert to_nddata(composite, NDDataRef).meta == ccd.meta
    with pytest.raises(ConversionError, match="the unit of the image isn't known, but CCDData need one; give `unit`"):
        to_nddata(composite)
    assert to_nddata(composite, unit="adu").unit == u.adu


def test_what_cannot_be_stored_is_refused() -> None:
    with pytest.raises(EncodeError, match="UnknownUncertainty can't be stored as variance"):
        from_nddata(NDDataRef(pixels(SHAPE), uncertainty=UnknownUncertainty(pixels(SHAPE))))
    with pytest.raises(EncodeError, match="metadata"):
        from_nddata(NDDataRef(pixels(SHAPE), meta={"function": len}))


# ---- Tables ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"format": "compositeh5"}], ids=["recognised", "named"])
def test_a_table_is_read(table_path: Path, options: dict[str, str]) -> None:
    table = QTable.read(table_path, **options)
    assert type(table) is QTable
    assert table.colnames == ["id", "flux", "name"]
    assert table["flux"][2] == 2 * u.nJy
    plain = Table.read(table_path, **options)
    assert type(plain) is Table
    assert plain["flux"].unit == u.nJy
    some = QTable.read(table_path, columns=["name", "id"], rows=slice(1, 3), **options)
    assert some.colnames == ["name", "id"]
    assert list(some["name"]) == ["b", "c"]


def test_chosen_columns_are_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "wide.h5"
    rng = np.random.default_rng(1)
    QTable({f"c{n}": rng.normal(size=100_000) for n in range(10)}).write(path, format="compositeh5")
    Table.read(path, format="compositeh5", columns=["c0"])
    with counted_reads() as count:
        Table.read(path, format="compositeh5", columns=["c7"])
    assert count() < 0.15 * path.stat().st_size


def test_a_table_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "t.h5"
    table = QTable({"x": [1.0, 2.0] * u.m, "flag": [True, False]}, meta={"made": "by hand"})
    table.write(path, format="compositeh5", definition="source_catalog", data_id={"visit": 1})
    back = QTable.read(path)
    assert (back == table).all()
    assert back.meta == table.meta
    with ch5.open(path) as c:
        assert (c.definition, c.data_id) == ("source_catalog", {"visit": 1})
    Table({"y": [1, 2]}).write(path, format="compositeh5", overwrite=True)
    assert type(Table.read(path)) is Table
    assert type(QTable.read(path)) is QTable


def test_which_table_must_be_clear(tmp_path: Path, ccd_path: Path) -> None:
    path = tmp_path / "two.h5"
    ch5.Composite(None, a=Table({"x": [1]}), b=Table({"y": [2]})).write(path)
    with pytest.raises(NoSuchComponentError, match="say which table is meant; there are: a, b"):
        Table.read(path)
    assert Table.read(path, "b")["y"][0] == 2
    with pytest.raises(NoSuchComponentError, match="there are: none"):
        Table.read(ccd_path)


# ---- The registry ------------------------------------------------------------------------------------------


def test_other_files_of_hdf5_are_left_to_astropy(tmp_path: Path) -> None:
    path = tmp_path / "plain.h5"
    Table({"x": [1, 2]}).write(path, format="hdf5", path="data", serialize_meta=True)
    for cls in (Table, QTable):
        assert list(cls.read(path)["x"]) == [1, 2]
        table = cls({"x": [1, 2]})
        table.write(tmp_path / f"{cls.__name__}.fits")
        assert list(cls.read(tmp_path / f"{cls.__name__}.fits")["x"]) == [1, 2]
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    assert Table.read(tmp_path / "t.csv", format="ascii.csv")["b"][0] == 2
    CCDData(pixels(SHAPE), unit="adu").write(tmp_path / "c.fits")
    assert CCDData.read(tmp_path / "c.fits").unit == u.adu
    assert list(QTable.read(path, path="data")["x"]) == [1, 2]


def test_an_incomplete_file_is_recognised_and_refused(ccd_path: Path) -> None:
    import h5py

    with h5py.File(ccd_path, "r+") as file:
        del file.attrs["complete"]
    with pytest.raises(OSError, match="complete"):
        CCDData.read(ccd_path)


def test_help_of_the_format(capsys: pytest.CaptureFixture[str]) -> None:
    CCDData.read.help("compositeh5")
    assert "planes" in capsys.readouterr().out
    QTable.read.help("compositeh5")
    assert "columns : iterable of str" in capsys.readouterr().out


def test_nothing_is_registered_before_it_is_asked_for() -> None:
    code = "import sys, compositeh5; assert not {'astropy', 'compositeh5.astropy'} & set(sys.modules), sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- PSF ---------------------------------------------------------------------------------------------------


def gaussian(width: float, shape: tuple[int, int] = (21, 25)) -> np.ndarray:
    y, x = (np.arange(n) - (n - 1) / 2 for n in shape)
    kernel = np.exp(-0.5 * (y[:, None] ** 2 + x**2) / width**2)
    return kernel / kernel.sum()


@pytest.fixture
def photutils() -> ModuleType:
    return pytest.importorskip("photutils.psf", reason="needs photutils (the extra `photutils`)")


def test_a_psf_on_a_grid_as_a_model_of_photutils(photutils: ModuleType) -> None:
    positions = [(y, x) for y in (100, 200) for x in (300, 350, 400)]
    psf = ch5.Psf(np.stack([gaussian(2 + 0.1 * n) for n in range(6)]), positions)
    model = to_photutils(psf, origin=(100, 300))
    assert isinstance(model, photutils.GriddedPSFModel)
    y, x = np.mgrid[40 - 10 : 40 + 11, 60 - 12 : 60 + 13]
    assert np.allclose(model.evaluate(x, y, flux=1, x_0=60, y_0=40), psf.at(140, 360), atol=1e-12)
    back = from_photutils(model, origin=(100, 300))
    assert back.oversampling == psf.oversampling
    assert np.array_equal(back.at(140, 360), psf.at(140, 360))
    # Of a composite positions are indices of its image.
    ours = to_photutils(exposure((300, 300), origin=(100, 300), psf=psf))
    assert np.array_equal(ours.grid_xypos, model.grid_xypos)


@pytest.mark.parametrize("oversampling", [(1, 1), (2, 3)])
def test_a_constant_psf_as_a_model_of_photutils(oversampling: tuple[int, int], photutils: ModuleType) -> None:
    psf = ch5.Psf.constant(gaussian(4), oversampling)
    model = to_photutils(psf)
    assert isinstance(model, photutils.ImagePSF)
    # One pixel up and to the right is so many samples from the middle.
    one = np.array([1.0])
    sample = psf.kernels[0][10 + oversampling[0], 12 + oversampling[1]]
    assert np.allclose(model.evaluate(one, one, 1, 0, 0), sample)
    back = from_photutils(model)
    assert back.oversampling == oversampling
    assert np.array_equal(back.kernels, psf.kernels)


def test_psfs_that_one_of_both_cannot_have(photutils: ModuleType) -> None:
    two = ch5.Psf(np.stack([gaussian(2), gaussian(3)]), [(0, 0), (0, 9)])
    with pytest.raises(ValueError, match="2 or 3"):
        to_photutils(two)
    with pytest.raises(EncodeError, match="found GaussianPSF"):
        from_photutils(photutils.GaussianPSF())
    with pytest.raises(EncodeError, match="should be the middle of its array"):
        from_photutils(photutils.ImagePSF(gaussian(3), origin=(3, 4)))
