"""The index: one table of the scalars of all composites below a folder."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import EarthLocation, SkyCoord
from astropy.table import QTable
from astropy.time import Time
from support import counted_reads, exposure, simple_wcs, write_visit
from visits import DETECTORS, VISIT, detector_path, write_simulated_visit

import compositeh5 as ch5
from compositeh5.cli import main
from compositeh5.composite.session import current
from compositeh5.errors import ConflictError, FormatError
from compositeh5.trees.index_table import index, open_index

NAME = "compositeh5-index.h5"

opened_files: list[str] = []
_listening = False


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if _listening and event == "open":
        opened_files.append(str(arguments[0]))


sys.addaudithook(_hear)


@contextmanager
def files_opened() -> Iterator[Callable[[], list[str]]]:
    """Give what returns the names of the HDF5 files that were opened for reading meanwhile."""
    global _listening
    opened_files.clear()
    _listening = True
    try:
        yield lambda: [os.path.basename(path) for path in opened_files if path.endswith(".h5")]
    finally:
        _listening = False


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a visit of twelve detectors; not to be changed."""
    root = tmp_path_factory.mktemp("visit")
    write_simulated_visit(root)
    return root


@pytest.fixture
def tree(simulated: Path, tmp_path: Path) -> Path:
    """A copy of it that may be changed."""
    shutil.copytree(simulated, tmp_path / "tree")
    return tmp_path / "tree"


def contents(path: Path) -> dict[str, str]:
    """Return the columns of an index, masked values as such, as text: NaN is equal to NaN."""
    table = open_index(path)
    return {name: f"{table[name].info.unit} {[str(value) for value in table[name]]}" for name in table.colnames}


def test_what_the_composites_say(tree: Path) -> None:
    report = index(tree)
    assert report.path == str(tree / NAME)
    assert (report.composites, report.read, report.unchanged, report.removed, report.problems) == (13, 13, 0, 0, {})
    table = open_index(tree)
    assert table.meta["root"] == str(tree)
    assert table.meta["dimensions"] == ["detector", "instrument", "visit"]
    ccds = table[np.ma.filled(table["detector"] >= 0, False)]
    assert sorted(ccds["detector"]) == list(DETECTORS)
    (visit,) = table[table["definition"] == "visit"]
    assert visit["path"] == "visit/visit.h5"
    assert visit["detector"] is np.ma.masked
    assert set(ccds["links"]) == {visit["id"]}
    for row in ccds:
        with ch5.open(tree / row["path"]) as ccd:
            assert (row["id"], row["stage"], row["visit"]) == (ccd.id, "simulate", VISIT["visit"])
            assert row["summary_stats.psf_fwhm"] == ccd["summary_stats"]["psf_fwhm"]
            assert row["summary_stats.sources"] == ccd["summary_stats"]["sources"]
            assert row["summary_stats.zero_point"].value == ccd["summary_stats"]["zero_point"].value
            assert row["photo_calib.mean"] == ccd["photo_calib"].mean * u.nJy / u.adu
            assert row["visit_info.date_avg"] == ccd["visit_info"]["date_avg"]
            assert row["visit_info.boresight.ra"] == ccd["visit_info"]["boresight"].ra
            assert row["visit_info.weather.humidity"] == 23 * u.percent
            assert row["detector.amplifiers.C01.gain"] == ccd["detector"]["amplifiers"]["C01"]["gain"]
            first, _, last, _ = ccd["wcs"].pixel_to_world([-0.5, 127.5, 127.5, -0.5], [-0.5, -0.5, 127.5, 127.5])
            corners = SkyCoord(row["wcs.ra_corners"], row["wcs.dec_corners"])
            assert corners[0].separation(first) < 1e-6 * u.arcsec
            assert corners[2].separation(last) < 1e-6 * u.arcsec
            centre = SkyCoord(row["wcs.ra"], row["wcs.dec"])
            assert centre.separation(ccd["wcs"].pixel_to_world(63.5, 63.5)) < 1e-6 * u.arcsec
    assert table["summary_stats.zero_point"].info.description == "mag(AB)"


def test_queries_need_no_other_file(tree: Path) -> None:
    index(tree)
    with files_opened() as opened:
        table = open_index(tree / NAME)
        good = (table["summary_stats.psf_fwhm"] < 0.75 * u.arcsec) & (table["visit_info.boresight_airmass"] < 1.5)
        chosen = table[np.ma.filled(good, False)]
    assert opened() == [NAME]
    expected = {
        f"calexp/calexp_{d}.h5"
        for d in DETECTORS
        if ch5.open(detector_path(tree, d))["summary_stats"]["psf_fwhm"] < 0.75 * u.arcsec
    }
    assert 0 < len(expected) < len(DETECTORS)
    assert set(chosen["path"]) == expected


def test_only_what_has_changed_is_opened_again(tree: Path) -> None:
    index(tree)
    before = (tree / NAME).read_bytes()
    with files_opened() as opened:
        report = index(tree)
    assert opened() == [NAME]
    assert (report.read, report.unchanged) == (0, 13)
    assert (tree / NAME).read_bytes() == before

    detector_path(tree, 3).unlink()
    with ch5.open(detector_path(tree, 5)) as ccd:
        ccd.replace({"photo_calib": ch5.PhotoCalib(2.0, 0.5)}).write(detector_path(tree, 5), replace=True)
    exposure().write(tree / "more" / "new.h5")
    with files_opened() as opened:
        report = index(tree)
    assert set(opened()) - {NAME} == {"calexp_5.h5", "new.h5"}
    assert (report.composites, report.read, report.unchanged, report.removed) == (13, 2, 11, 1)
    table = open_index(tree)
    table.add_index("path")
    assert table.loc["calexp/calexp_5.h5"]["photo_calib.mean"] == 2 * u.nJy / u.adu
    assert table.loc["calexp/calexp_5.h5"]["visit_info.weather.humidity"] == 23 * u.percent
    assert table.loc["more/new.h5"]["visit"] == 903334

    index(tree, tree / "fresh.h5")
    assert contents(tree / "fresh.h5") == contents(tree / NAME)


def test_a_moved_tree_is_not_read_again(tree: Path, tmp_path: Path) -> None:
    index(tree)
    tree.rename(tmp_path / "moved")
    assert index(tmp_path / "moved").read == 0
    assert open_index(tmp_path / "moved").meta["root"] == str(tmp_path / "moved")


def test_no_pixel_is_read_and_what_is_shared_only_once(tmp_path: Path) -> None:
    visit, ccds = write_visit(tmp_path, ccds=12)
    pixels = sum(path.stat().st_size for path in ccds)
    current().clear_cache()
    with counted_reads() as count, files_opened() as opened:
        index(tmp_path)
    assert count() < 0.1 * pixels
    # For the row of its own, and once for all that link to it.
    assert opened().count(visit.name) <= 3


@pytest.mark.parametrize("kind", ["threads", "processes", "dask"])
def test_on_an_executor_it_is_the_same(tree: Path, request: pytest.FixtureRequest, kind: str) -> None:
    steps: list[tuple[str, int, int]] = []
    executor = request.getfixturevalue(kind)
    index(tree)
    index(tree, tree / "other.h5", executor=executor, progress=lambda *step: steps.append(step))
    assert contents(tree / NAME) == contents(tree / "other.h5")
    assert steps[0] == ("reading composites", 0, 13)
    assert steps[-1] == ("reading composites", 13, 13)


def test_what_can_not_be_read_is_said_and_tried_again(tmp_path: Path) -> None:
    _, (one, damaged) = write_visit(tmp_path)
    data = damaged.read_bytes()
    damaged.write_bytes(data[:20_000])
    (tmp_path / "visit").rename(tmp_path / "elsewhere")
    (tmp_path / "notes.h5").write_bytes(b"no HDF5")
    current().clear_cache()
    report = index(tmp_path)
    problems = {"calexp/calexp_903334_0.h5": "visit_info: BrokenLink", "calexp/calexp_903334_1.h5": "CorruptFile"}
    assert report.problems == problems
    table = open_index(tmp_path)
    table.add_index("path")
    for path, problem in problems.items():
        assert table.loc[path]["problem"] == problem
        assert table.loc[path]["visit_info.filter"] is np.ma.masked
    assert table.loc["calexp/calexp_903334_1.h5"]["id"] is np.ma.masked
    with ch5.open(one) as ccd:
        assert table.loc["calexp/calexp_903334_0.h5"]["id"] == ccd.id

    (tmp_path / "elsewhere").rename(tmp_path / "visit")
    damaged.write_bytes(data)
    assert index(tmp_path).problems == {}
    assert set(open_index(tmp_path)["visit_info.filter"]) == {"i_39"}


def test_values_of_all_sorts(tmp_path: Path) -> None:
    first = {
        "flag": True,
        "count": 2**62,
        "huge": 2**70,
        "ratio": 0.5,
        "name": "é",
        "nothing": None,
        "list": [1, 2],
        "array": np.arange(3.0),
        "blob": b"x",
        "complex": 1j,
        "single": np.float32(0.25),
        "length": 2.0 * u.m,
        "sky": SkyCoord(10 * u.deg, 20 * u.deg, frame="galactic"),
        "far": SkyCoord(10 * u.deg, 20 * u.deg, distance=3 * u.kpc),
        "site": EarthLocation.from_geodetic(10 * u.deg, 20 * u.deg, 300 * u.m),
        "time": Time("2025-03-01T04:05:06.123456789", scale="tai"),
        "nested": {"deep": {"value": 7}},
        "masked": np.ma.masked_array(1.0, True),
        "temperature": 3 * u.deg_C,
        "magnitude": 20 * u.ABmag,
        "mixed": 1,
    }
    second = {
        "length": 50.0 * u.cm,
        "ratio": 3,
        "name": 5,
        "time": Time(59000.5, format="mjd", scale="utc"),
        "temperature": 276 * u.K,
        "magnitude": 21 * u.STmag,
        "mixed": 1.5,
        "count": -1,
    }
    for name, record in (("a", first), ("b", second)):
        ch5.Composite(None, {"x": record}, data_id={"visit": 1}).write(tmp_path / f"{name}.h5")
    index(tmp_path)
    for time in (1, 2):
        table = open_index(tmp_path)
        names = {name for name in table.colnames if name.startswith("x.")}
        assert names == {
            "x.flag", "x.count", "x.huge", "x.ratio", "x.name", "x.name [int]", "x.single", "x.length", "x.sky.l",
            "x.sky.b", "x.far.ra", "x.far.dec", "x.far.distance", "x.site.lon", "x.site.lat", "x.site.height", "x.time",
            "x.time [utc]", "x.nested.deep.value", "x.temperature", "x.temperature [K]", "x.magnitude",
            "x.magnitude [mag(ST)]", "x.mixed",
        }  # fmt: skip
        assert table["x.length"].unit == u.m
        assert table["x.length"].value.tolist() == [2.0, 0.5]
        assert table["x.count"].tolist() == [2**62, -1]
        assert table["x.huge"][0] == str(2**70)
        assert table["x.mixed"].tolist() == [1.0, 1.5]
        assert table["x.name"].tolist() == ["é", None]
        assert table["x.name [int]"].tolist() == [None, 5]
        assert table["x.time"][0] == first["time"]
        assert table["x.time [utc]"][1] == second["time"]
        assert table["x.time"].mask.tolist() == [False, True]
        assert table["x.temperature [K]"][1] == 276 * u.K
        assert table["x.magnitude"][0] == 20 * u.mag
        assert table["x.magnitude [mag(ST)]"].info.description == "mag(ST)"
        # The rows of the first file are now made of the earlier table.
        os.utime(tmp_path / "b.h5", ns=(time, time))
        assert index(tmp_path).read == 1


def test_several_composites_of_a_file_and_several_links(tmp_path: Path) -> None:
    visit, (path,) = write_visit(tmp_path, ccds=1)
    with ch5.open(visit) as one, ch5.open(path) as other:
        catalog = ch5.Composite(
            "source_catalog",
            table=QTable({"id": [1, 2]}),
            wcs=other.link("wcs"),
            visit_info=one.link("visit_info"),
            data_id={"visit": 903334, "detector": 0},
        )
        ch5.write_file(tmp_path / "all.h5", {"first": catalog, "second": catalog.replace(stage="again")})
        index(tmp_path)
        table = open_index(tmp_path)
        rows = table[table["path"] == "all.h5"]
        assert rows["name"].tolist() == ["first", "second"]
        assert rows["stage"].tolist() == ["", "again"]
        assert set(rows["links"]) == {" ".join(sorted([one.id, other.id]))}
    # The shape that the WCS knows is enough.
    assert np.isfinite(rows["wcs.ra"]).all()


def test_images_without_a_sky(tmp_path: Path) -> None:
    linear = simple_wcs((10, 20))
    linear.wcs.ctype = ["LINEAR", "LINEAR"]
    shapeless = simple_wcs((10, 20))
    shapeless.pixel_shape = None
    for name, wcs in (("linear", linear), ("shapeless", shapeless)):
        ch5.Composite(None, wcs=wcs).write(tmp_path / f"{name}.h5")
    exposure((10, 20), wcs=shapeless).write(tmp_path / "shape_of_the_image.h5")
    assert index(tmp_path).problems == {}
    table = open_index(tmp_path)
    assert table["wcs.ra"].mask.tolist() == [True, False, True]
    assert table["path"].tolist() == ["linear.h5", "shape_of_the_image.h5", "shapeless.h5"]
    assert float(table["wcs.ra"][1].value) == pytest.approx(150.1)


def test_an_empty_folder_and_what_is_no_folder(tmp_path: Path) -> None:
    assert index(tmp_path).composites == 0
    table = open_index(tmp_path)
    assert len(table) == 0
    assert {"path", "id", "stage"} <= set(table.colnames)
    with pytest.raises(FileNotFoundError):
        index(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        open_index(tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError):
        index(tmp_path / NAME)
    with pytest.raises(ValueError, match="on disk"):
        index("s3://bucket/folder")


def test_only_an_index_is_replaced(tree: Path) -> None:
    other = tree / "notes.h5"
    other.write_text("precious")
    ccd = detector_path(tree, 1)
    before = ccd.read_bytes()
    for path in (other, ccd):
        with pytest.raises(ConflictError, match="isn't replaced"):
            index(tree, path)
    assert other.read_text() == "precious"
    assert ccd.read_bytes() == before
    with pytest.raises(FormatError, match="isn't an index"):
        open_index(ccd)


def test_links_of_the_file_system_and_hidden_files(tree: Path, tmp_path: Path) -> None:
    (tree / "calexp" / "again.h5").symlink_to(detector_path(tree, 1))
    (tree / "calexp" / ".hidden.h5").write_bytes(detector_path(tree, 1).read_bytes())
    (tree / ".trash").mkdir()
    shutil.copy(detector_path(tree, 1), tree / ".trash")
    (tree / "calexp" / "gone.h5").symlink_to(tmp_path / "nowhere.h5")
    index(tree)
    paths = set(open_index(tree)["path"])
    assert len(paths) == 14
    assert "calexp/again.h5" in paths


def test_the_command(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hdf5 = tmp_path / "index.hdf5"
    assert main(["index", str(tree), "--export", str(hdf5), "-j", "2"]) == 0
    assert "13 composites; 13 files read, 0 unchanged, 0 gone" in capsys.readouterr().out
    # As astropy itself reads it.
    exported = QTable.read(hdf5, path="table")
    table = open_index(tree)
    assert exported.colnames == table.colnames
    assert (exported["visit_info.date_avg"] == table["visit_info.date_avg"]).all()
    assert exported["wcs.ra"].mask.tolist() == table["wcs.ra"].mask.tolist()
    detector_path(tree, 2).write_bytes(detector_path(tree, 2).read_bytes()[:20_000])
    assert main(["index", str(tree), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["read"], report["problems"]) == (1, {"calexp/calexp_2.h5": "CorruptFile"})
    assert main(["index", str(tree)]) == 1
    assert "calexp/calexp_2.h5  CorruptFile" in capsys.readouterr().out
    assert main(["index", str(tree / "nowhere")]) == 2


def test_parquet(tree: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    assert main(["index", str(tree), "--export", str(tmp_path / "index.parquet")]) == 0
    read = parquet.read_table(tmp_path / "index.parquet")
    assert read.num_rows == 13
    assert read["path"].to_pylist() == open_index(tree)["path"].tolist()
    # As astropy writes masked columns.
    assert read["detector.mask"].to_pylist().count(True) == 1
