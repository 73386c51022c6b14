"""Operations on trees in the worker processes of a cluster of Dask, and components as its arrays and data frames."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import signal
from concurrent.futures import Executor
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn, QTable
from astropy.time import Time
from linked_trees import ccd, ccd_path, write_shared
from support import counted_reads, exposure, pixels, simple_wcs, write_visit

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.dask import stack, to_dask
from compositeh5.fits import convert_files
from compositeh5.trees import index, open_index, subset, verify_files
from compositeh5.trees.running import map_in_order

pytest.importorskip("distributed", reason="needs dask (the extra `dask`)")
pytest.importorskip("dask.dataframe", reason="needs dask[dataframe]")

import dask as dask_package
import dask.array as da
from dask.distributed import Client


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exposures of three visits, and catalogs that link to their calibrations."""
    root = tmp_path_factory.mktemp("original")
    for visit in (1, 2, 3):
        info = write_shared(root, visit).link("visit_info")
        for detector in range(2):
            calexp = ccd(info, visit, detector, photo_calib=ch5.PhotoCalib(visit + detector / 10, 0.01))
            calexp.write(ccd_path(root, visit, detector))
            links = {"photo_calib": calexp.link("photo_calib"), "visit_info": info}
            table = QTable({"flux": np.arange(5.0) + detector})
            catalog = ch5.Composite("source_catalog", table=table, **links, data_id=calexp.data_id)
            catalog.write(root / f"src/src_{visit}_{detector}.h5")
    return root


@pytest.fixture
def damaged(original: Path, tmp_path: Path) -> Path:
    """A copy with changed pixels, a file cut off, and one that is found only where all was copied from."""
    root = Path(shutil.copytree(original, tmp_path / "damaged"))
    with h5py.File(ccd_path(root, 2, 1), "r+") as file:
        file["composite/image"][...] = 9
    os.truncate(root / "src/src_1_1.h5", 1000)
    ccd_path(root, 3, 0).unlink()
    return root


def contents(root: Path) -> dict[str, str]:
    """Return digests of the bytes of all files of a tree but the unfinished ones of writers that were killed."""
    found = root.rglob("[!.]*.h5")
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def process(_: int) -> int:
    return os.getpid()


def test_the_work_is_done_in_the_workers(dask_client: Client, dask: Executor) -> None:
    workers = set(dask_client.run(os.getpid).values())
    assert len(workers - {os.getpid()}) == 2
    assert set(map_in_order(process, range(100), executor=dask)) == workers


def test_verify(damaged: Path, dask: Executor) -> None:
    told: list[tuple[str, int, int]] = []
    found = verify_files(damaged, executor=dask, progress=lambda *now: told.append(now))
    assert found == verify_files(damaged)
    assert {(Path(problem.path).name, problem.component, problem.finding) for problem in found.problems} == {
        ("calexp_2_1.h5", "image", "digest"),
        ("src_1_1.h5", "", "unread"),
        ("src_3_0.h5", "photo_calib", "moved"),
    }
    assert {(done, total) for _, done, total in told} >= {(0, 14), (14, 14)}


def test_subset(original: Path, tmp_path: Path, dask: Executor) -> None:
    new = tmp_path / "new"
    alone = subset(original, new, definition="source_catalog"), contents(new)
    shutil.rmtree(new)
    assert (subset(original, new, definition="source_catalog", executor=dask), contents(new)) == alone
    assert len(alone[1]) == 15
    assert verify_files(new, executor=dask).problems == ()


def test_index(damaged: Path, tmp_path: Path, dask: Executor) -> None:
    alone, ours = tmp_path / "alone.h5", tmp_path / "dask.h5"
    one, two = index(damaged, alone), index(damaged, ours, executor=dask)
    assert alone.read_bytes() == ours.read_bytes()
    assert (one.composites, one.problems) == (two.composites, two.problems)
    assert len(open_index(ours)) == 14
    assert list(two.problems) == ["src/src_1_1.h5"]


def test_an_error_in_a_worker_is_raised_here(original: Path, tmp_path: Path, dask: Executor) -> None:
    ch5.Composite(x=np.arange(3)).write(tmp_path / "new/src/src_2_1.h5")
    with pytest.raises(errors.ConflictError, match=r"src_2_1.h5: holds other composites"):
        subset(original, tmp_path / "new", definition="source_catalog", executor=dask)


def test_a_subset_is_the_same_if_a_worker_is_killed(
    original: Path, tmp_path: Path, dask_client: Client, dask: Executor
) -> None:
    new = tmp_path / "new"
    subset(original, new, definition="source_catalog")
    expected = contents(new)
    shutil.rmtree(new)
    victims = list(dask_client.run(os.getpid).values())[:1]

    def kill(step: str, done: int, total: int) -> None:
        if step == "writing" and done and victims:
            os.kill(victims.pop(), signal.SIGKILL)

    subset(original, new, definition="source_catalog", executor=dask, progress=kill)
    assert victims == []
    assert contents(new) == expected


# ---- Tables as data frames ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog of 1000 sources, with columns of many types."""
    path = tmp_path_factory.mktemp("catalog") / "src.h5"
    n = np.arange(1000)
    table = QTable(
        {
            "id": n,
            "flux": n * 0.5 * u.nJy,
            "name": [f"s{i}" for i in n],
            "parent": MaskedColumn(n, mask=n >= 990),
            "good": MaskedColumn(n % 2 == 0, mask=n == 0),
            "coord": SkyCoord(n / 10 * u.deg, n / 100 * u.deg),
            "date": Time(60000 + n / 100, format="mjd", scale="utc"),
        }
    )
    ch5.Composite("source_catalog", table=table).write(path)
    return path


def test_a_table_is_a_data_frame(catalog: Path) -> None:
    with ch5.open(catalog) as c:
        frame = to_dask(c, "table", chunks=300)
        expected = c["table"].to_pandas()
    assert frame.npartitions == 4
    assert frame.divisions == (0, 300, 600, 900, 999)
    found = frame.compute()
    assert list(found.columns) == [*expected.columns]
    assert {"coord.ra", "coord.dec"} <= set(found.columns)
    for name in expected:
        assert found[name].isna().tolist() == expected[name].isna().tolist()
        assert found[name].dropna().tolist() == expected[name].dropna().tolist()
    assert (found.dtypes == frame.dtypes).all()
    assert found["parent"].dtype == "Int64"  # also in partitions in which nothing is masked
    assert len(frame.loc[250:349].compute()) == 100
    assert pickle.loads(pickle.dumps(frame)).npartitions == 4


def test_only_the_columns_that_are_needed_are_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(size=(40, 50_000))
    table = QTable({f"x{i}": column for i, column in enumerate(noise)})
    ch5.Composite(table=table).write(tmp_path / "wide.h5")
    with ch5.open(tmp_path / "wide.h5") as c:
        frame = to_dask(c, "table")
    with dask_package.config.set(scheduler="synchronous"), counted_reads() as count:
        assert frame["x7"].mean().compute() == pytest.approx(noise[7].mean())
        assert count() < noise.nbytes / 8


def test_columns_can_be_chosen(catalog: Path, tmp_path: Path) -> None:
    with ch5.open(catalog) as c:
        assert list(to_dask(c, "table", columns=["flux", "id"]).columns) == ["flux", "id"]
        assert list(to_dask(c, "table", columns="coord").columns) == ["coord.ra", "coord.dec"]
        with pytest.raises(errors.NoSuchComponentError, match="no column 'mag'"):
            to_dask(c, "table", columns="mag")
        with pytest.raises(ValueError, match="a number of rows, not 0"):
            to_dask(c, "table", chunks=0)
    deep = ch5.Composite(table=QTable({"id": [1], "moments": np.zeros((1, 3))}), image=ch5.Image(np.zeros((2, 2))))
    with pytest.raises(errors.ConversionError, match="choose other `columns`"):
        to_dask(deep, "table")
    assert to_dask(deep, "table", columns="id").compute()["id"].tolist() == [1]
    with pytest.raises(errors.UnsupportedParameterError, match="component 'image' is no table"):
        to_dask(deep, "image", columns="id")
    empty = ch5.Composite(table=QTable({"id": np.zeros(0, int)}))
    empty.write(tmp_path / "empty.h5")
    assert len(to_dask(empty, "table").compute()) == 0


def test_workers_read_the_rows_of_a_table(catalog: Path, dask_client: Client) -> None:
    with ch5.open(catalog) as c:
        frame = to_dask(c, "table", chunks=200)
    assert dask_client.compute(frame[frame["id"] % 10 == 3]["flux"].sum()).result() == sum(
        i / 2 for i in range(3, 1000, 10)
    )


# ---- Arrays -----------------------------------------------------------------------------------------------


SHAPE = (40, 50)


def test_a_component_as_an_array_of_dask(tmp_path: Path) -> None:
    path = tmp_path / "ccd.h5"
    exposure((600, 700)).write(path)
    with ch5.open(path) as c:
        lazy, expected, stored = to_dask(c, "image"), c["image"].array, c.lazy("image").chunks
        as_stored = to_dask(c, "image", chunks=stored)
        assert to_dask(c, "image").name == lazy.name
        with pytest.raises(TypeError, match="isn't one array"):
            to_dask(c, "psf")
        with pytest.raises(errors.NoSuchComponentError, match="imgae"):
            to_dask(c, "imgae")
    assert (lazy.shape, lazy.dtype) == (expected.shape, expected.dtype)
    assert as_stored.chunksize == stored == (256, 256)
    assert len(pickle.dumps(as_stored)) < 20_000
    for array in (lazy, as_stored, pickle.loads(pickle.dumps(lazy))):
        assert np.array_equal(array.compute(), expected)
        assert np.array_equal(array[10:20:3, ::-1].compute(), expected[10:20:3, ::-1])
    with counted_reads() as count:
        as_stored[300:310, 300:310].compute(scheduler="synchronous")
    assert count() < 0.4 * path.stat().st_size


def test_a_linked_component_as_an_array_of_dask_is_read_where_it_is(tmp_path: Path) -> None:
    base = exposure(SHAPE)
    base.write(tmp_path / "base" / "ccd.h5")
    overlay = base.overlay(wcs=simple_wcs(SHAPE))
    expected = base["image"].array
    assert len(pickle.dumps(to_dask(overlay))) < expected.nbytes  # not yet stored itself
    overlay.write(tmp_path / "new" / "ccd.h5")
    with ch5.open(tmp_path / "new" / "ccd.h5") as c:
        lazy = to_dask(c, "image")
    (tmp_path / "new" / "ccd.h5").unlink()
    assert np.array_equal(lazy.compute(), expected)
    shutil.move(tmp_path / "base" / "ccd.h5", tmp_path / "gone.h5")
    with pytest.raises(FileNotFoundError):
        lazy.compute()


def test_another_file_in_the_place_of_pixels_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "ccd.h5"
    exposure(SHAPE).write(path)
    with ch5.open(path) as c:
        lazy = to_dask(c, "image")
    exposure(SHAPE, image=ch5.Image(pixels(SHAPE, 2))).write(path, replace=True)
    with pytest.raises(errors.WrongIdError, match=r"ccd\.h5"):
        lazy.compute()


def test_values_in_memory_as_an_array_of_dask() -> None:
    c = exposure(SHAPE)
    assert np.array_equal(to_dask(c, "mask").compute(), c["mask"].array)
    assert to_dask(c, "mask", chunks=20).numblocks == (2, 3)


def test_workers_compute_the_median_sky_of_a_visit(tmp_path: Path, dask_client: Client) -> None:
    visit_path, _ = write_visit(tmp_path, ccds=0)
    with ch5.open(visit_path) as visit:
        link = visit.link("visit_info")
    sky = 100 * np.arange(1, 4)
    for detector, level in enumerate(sky):
        image = ch5.Image(pixels((200, 300), detector) + np.float32(level), unit="nJy")
        ccd = exposure((200, 300), (0, 0), image=image, visit_info=link)
        ccd.replace(data_id={"visit": 903334, "detector": detector}).write(tmp_path / f"calexp/{detector}.h5")
    with dask_client.as_current(), ch5.trees.open_visit(visit_path, tmp_path / "calexp") as view:
        images, masks = stack(view, "image"), stack(view, "mask")
        medians = da.nanmedian(da.where(masks == 0, images, np.nan), axis=(1, 2)).compute()
        expected = [np.median(view["image"][d].array[view["mask"][d].array == 0]) for d in view.detectors]
        with view.open(1) as c:
            single = da.nanmedian(to_dask(c, "image", chunks=(100, 300)), axis=1)
            assert np.array_equal(single.compute(), np.median(c["image"].array, axis=1))
    assert np.allclose(medians, expected, rtol=1e-6)
    assert np.allclose(medians, sky, atol=2)


# ---- Conversion --------------------------------------------------------------------------------------------


def test_a_directory_of_fits_files_is_converted_in_workers(tmp_path: Path, dask: Executor) -> None:
    for number in range(6):
        hdu = fits.PrimaryHDU(np.full((20, 30), number, np.float32), fits.Header([("OBJECT", f"M {number}")]))
        (tmp_path / "raw" / f"night{number % 2}").mkdir(parents=True, exist_ok=True)
        hdu.writeto(tmp_path / "raw" / f"night{number % 2}" / f"{number}.fits")
    (tmp_path / "raw" / "broken.fits").write_bytes(b"SIMPLE  = nothing")
    told: list[tuple[str, int, int]] = []
    sources, new = [tmp_path / "raw"], tmp_path / "new"
    done = convert_files(sources, new, executor=dask, progress=lambda *now: told.append(now))
    assert sorted(item.status for item in done) == ["converted"] * 6 + ["failed"]
    assert told[-1] == ("converting", 7, 7)
    convert_files(sources, tmp_path / "alone")
    assert contents(new) == contents(tmp_path / "alone")
    again = convert_files(sources, new, executor=dask)
    assert sorted(item.status for item in again) == ["failed"] + ["unchanged"] * 6
