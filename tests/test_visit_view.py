"""The view of a visit: all detectors at once."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import QTable
from support import counted_reads, exposure, pixels, simple_wcs, visit_info, write_visit
from visits import CAMERA, DETECTORS, SIZE, VISIT, detector_path

import compositeh5 as ch5
from compositeh5.cli import main
from compositeh5.composite.session import current
from compositeh5.dask import stack
from compositeh5.demo.simulate import make_wcs
from compositeh5.errors import (
    AbsentComponentError,
    BrokenLinkError,
    ClosedError,
    DefinitionError,
    DigestMismatchError,
    FormatError,
    NoSuchComponentError,
    NotACompositeFileError,
)
from compositeh5.trees.index_table import index, open_index
from compositeh5.trees.visit_files import open_visit
from compositeh5.trees.visit_view import VisitView


@pytest.fixture
def view(simulated: Path) -> Iterator[VisitView]:
    with open_visit(simulated / "visit" / "visit.h5", simulated / "calexp") as view:
        yield view


def write_detectors(root: Path, *, visits: tuple[int, ...] = (903334,), **changes: dict[str, object]) -> Path:
    """Write three small exposures of each visit; return the folder. ``d1`` changes components of detector 1."""
    for visit in visits:
        whole = ch5.Composite("visit", visit_info=visit_info(visit), data_id={"instrument": "Cam", "visit": visit})
        whole.write(root / "visit" / f"{visit}.h5")
        for detector in range(3):
            more = {"visit_info": whole.link("visit_info"), **changes.get(f"d{detector}", {})}
            data_id = {**whole.data_id, "detector": detector}
            exposure((20, 30), **more).replace(data_id=data_id).write(root / "calexp" / f"{visit}_{detector}.h5")
    return root / "calexp"


# ---- Which detectors there are -----------------------------------------------------------------------------


def test_the_detectors_that_link_to_a_visit(view: VisitView, simulated: Path) -> None:
    assert view.detectors == DETECTORS
    with pytest.raises(TypeError, match="not iterable"):
        list(view)  # type: ignore[call-overload]
    assert view.data_id == VISIT
    assert view.locations == {d: str(detector_path(simulated, d)) for d in DETECTORS}
    with view.open(7) as ccd:
        assert ccd.data_id["detector"] == 7
    assert repr(view) == "<VisitView instrument=DemoCam visit=2025052000042 (12 detectors)>"
    with pytest.raises(NoSuchComponentError, match="there is no detector 12; there are detector 0, 1, 2"):
        view.open(12)


def test_all_ways_to_say_where_they_are(tmp_path: Path) -> None:
    folder = write_detectors(tmp_path, visits=(1, 2))
    visit = tmp_path / "visit" / "2.h5"
    files = sorted(folder.glob("2_*.h5"))
    index(tmp_path)
    table = open_index(tmp_path)
    for source, members, data_id in (
        (visit, folder, None),
        (visit, str(folder / "*.h5"), None),
        (visit, sorted(folder.iterdir()), None),
        (visit, table, None),
        (visit, None, None),
        (folder, None, {"visit": 2}),
        (f"{folder}/2_*.h5", None, None),
        (files, None, None),
        (table[table["definition"] == "exposure"], None, {"visit": 2, "instrument": "Cam"}),
        (tmp_path, None, {"visit": 2}),
    ):
        with open_visit(source, members, data_id=data_id) as view:
            assert view.locations == {d: str(path) for d, path in enumerate(files)}
            assert view.visit_info["visit"] == 2
            assert (view.visit is None) == (source is not visit)


def test_one_file_with_all_detectors(tmp_path: Path) -> None:
    folder = write_detectors(tmp_path)
    ccds = {path.stem: ch5.open(path) for path in folder.iterdir()}
    ch5.write_file(tmp_path / "all.h5", {f"d{name}": ccd for name, ccd in ccds.items()})
    with open_visit([tmp_path / "all.h5"]) as view:
        assert view.detectors == (0, 1, 2)
        for detector, image in view["image"].items():
            assert np.array_equal(image.array, ccds[f"903334_{detector}"]["image"].array)
            with view.open(detector) as ccd:
                assert ccd.data_id["detector"] == detector


def test_detectors_by_name(tmp_path: Path) -> None:
    for name in ("S11", "S02"):
        exposure((20, 30)).replace(data_id={"visit": 1, "detector": name}).write(tmp_path / f"{name}.h5")
    with open_visit(tmp_path) as view:
        assert view.detectors == ("S02", "S11")
        assert view.table("wcs")["detector"].tolist() == ["S02", "S11"]


def test_which_are_meant_must_be_clear(tmp_path: Path) -> None:
    folder = write_detectors(tmp_path, visits=(1, 2))
    with pytest.raises(DefinitionError, match="several composites of detector 0: .*1_0.h5 .*'visit': 1.*2_0.h5"):
        open_visit(folder)
    for args, data_id, message in (
        ([folder], {"visit": 3}, "no composite of a detector"),
        ([tmp_path / "visit"], None, "no composite of a detector"),
        ([tmp_path / "visit/1.h5"], None, "no compositeh5-index.h5 in a folder above .*compositeh5 index ROOT"),
        ([tmp_path / "nowhere"], None, "no such file or folder"),
        ([str(folder / "3_*.h5")], None, "no file has a name of this pattern"),
        ([tmp_path / "visit/3.h5", folder], None, "should be the file of a visit"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            open_visit(*args, data_id=data_id)
    with pytest.raises(FormatError, match="rows of what open_index gives"):
        open_visit(QTable({"path": ["a"]}))


def test_other_files_in_between(tmp_path: Path) -> None:
    folder = write_detectors(tmp_path)
    (folder / "notes.h5").write_text("no HDF5")
    with open_visit(folder) as view:
        assert view.detectors == (0, 1, 2)
    with pytest.raises(NotACompositeFileError):
        open_visit(list(folder.iterdir()))


def test_a_file_that_was_replaced_is_not_taken_for_what_it_was(tmp_path: Path) -> None:
    folder = write_detectors(tmp_path)
    with open_visit(folder) as view:
        exposure((20, 30)).write(folder / "903334_1.h5", replace=True)
        with pytest.raises(BrokenLinkError, match="holds no composite with id"):
            view["wcs"]


# ---- Components --------------------------------------------------------------------------------------------


def test_what_is_shared_is_read_once(simulated: Path) -> None:
    current().clear_cache()
    with open_visit(simulated / "visit" / "visit.h5", simulated / "calexp") as view:
        assert view.visit_info["exposure_time"] == 30 * u.s
        with counted_reads() as count:
            assert view.visit_info is view.visit_info
            assert len(view.shared("camera")) == len(DETECTORS)
            view.shared("camera").remove_rows(slice(None))
            assert len(view.shared("camera")) == len(DETECTORS)
        once = count()
        with counted_reads() as count:
            view.shared("camera")
        assert count() == 0 < once
    current().clear_cache()
    with open_visit(simulated / "calexp") as view:
        assert view.visit is None
        assert view.visit_info["exposure_time"] == 30 * u.s
        with pytest.raises(NoSuchComponentError, match="there is no component 'camera' of detector 0, 1"):
            view.shared("camera")


def test_what_is_not_the_same_is_not_shared(tmp_path: Path) -> None:
    one, two = ({"photo_calib": ch5.PhotoCalib(mean)} for mean in (1.0, 2.0))
    folder = write_detectors(tmp_path, d0=one, d1=two, d2=one)
    with open_visit(folder) as view:
        assert view.shared("wcs").wcs.crval.tolist() == [150.1, 2.2]
        with pytest.raises(DigestMismatchError, match="'photo_calib' of detector 1 isn't the same as that of most"):
            view.shared("photo_calib")


def test_one_component_of_all(view: VisitView, simulated: Path) -> None:
    calibrations = view["photo_calib"]
    assert list(calibrations) == list(DETECTORS)
    table = view.table("photo_calib")
    assert table["detector"].tolist() == list(DETECTORS)
    summaries = view.table("summary_stats")
    positions = view.table("wcs")
    for row in DETECTORS:
        with ch5.open(detector_path(simulated, row)) as ccd:
            assert calibrations[row] == ccd["photo_calib"]
            assert table["mean"][row] == ccd["photo_calib"].mean * u.nJy / u.adu
            assert summaries["psf_fwhm"][row] == ccd["summary_stats"]["psf_fwhm"]
            assert summaries["sources"][row] == ccd["summary_stats"]["sources"]
            assert view.wcs[row].wcs.crpix.tolist() == ccd["wcs"].wcs.crpix.tolist()
            assert positions["ra"][row].value == pytest.approx(summaries["ra"][row].value)
    assert "amplifiers.C00.gain" in view.table("detector").colnames
    assert view.table("summary_stats", detectors=[5, 3])["detector"].tolist() == [5, 3]
    boxes = view.read("image", box=ch5.Box(0, 2, 0, 3), detectors=[1])
    assert boxes[1].shape == (2, 3)
    with pytest.raises(TypeError, match="component 'image' is of kind 'image'"):
        view.table("image")


def test_tables_are_joined(tmp_path: Path) -> None:
    for detector in range(3):
        table = QTable({"id": np.arange(4) + 10 * detector, "flux": np.ones(4) * u.nJy})
        data_id = {"visit": 1, "detector": detector}
        ch5.Composite("source_catalog", table=table, data_id=data_id).write(tmp_path / f"src_{detector}.h5")
    with open_visit(tmp_path) as view:
        sources = view.table("table", columns=["id"], rows=slice(1, 3))
    assert sources.colnames == ["detector", "id"]
    assert sources["detector"].tolist() == [0, 0, 1, 1, 2, 2]
    assert sources["id"].tolist() == [1, 2, 11, 12, 21, 22]
    record = ch5.Composite(None, table={"id": 3}, data_id={"visit": 1, "detector": 3})
    record.write(tmp_path / "src_3.h5")
    with open_visit(tmp_path) as view, pytest.raises(FormatError, match="of detector 3 is no table"):
        view.table("table")
    (tmp_path / "src_3.h5").unlink()
    other = ch5.Composite("source_catalog", table=QTable({"name": ["a"]}), data_id={"visit": 1, "detector": 4})
    other.write(tmp_path / "src_4.h5")
    with open_visit(tmp_path) as view, pytest.raises(FormatError, match="can't be joined"):
        view.table("table")


def test_detectors_without_a_component_are_named(tmp_path: Path) -> None:
    calib = ch5.PhotoCalib(2.0)
    folder = write_detectors(tmp_path, d0={"photo_calib": calib}, d1={"photo_calib": None})
    with open_visit(folder) as view:
        with pytest.raises(AbsentComponentError, match="absent for detector 1; unknown for detector 2"):
            view["photo_calib"]
        assert view.read("photo_calib", missing="skip") == {0: calib}
        assert view.read("photo_calib", missing="keep") == {0: calib, 1: None, 2: None}
        kept = view.table("photo_calib", missing="keep")
        assert kept["missing"].tolist() == ["", "absent", "unknown"]
        assert kept["mean"].mask.tolist() == [False, True, True]
        assert view.table("photo_calib", missing="skip")["detector"].tolist() == [0]
        with pytest.raises(NoSuchComponentError, match="there is no component 'phot_calib' of detector 0, 1, 2"):
            view.read("phot_calib", missing="skip")
        with pytest.raises(ValueError, match="'error', 'skip' or 'keep'"):
            view.read("photo_calib", missing="ignore")  # type: ignore[arg-type]


def test_a_lost_component_is_not_an_absent_one(tmp_path: Path) -> None:
    folder = write_detectors(tmp_path)
    base = folder / "903334_1.h5"
    with ch5.open(base) as ccd:
        overlay = ccd.replace({name: ccd.link(name) for name in ("image", "mask", "variance")}, stage="jointcal")
        overlay.write(folder / "overlay.h5")
    base.unlink()
    with open_visit(folder) as view:
        with pytest.raises(BrokenLinkError, match="component 'image' is lost for detector 1 .*Tried"):
            view["image"]
        assert list(view.read("image", missing="skip")) == [0, 2]
        # The WCS is there, but not what it is for.
        with pytest.raises(BrokenLinkError, match="'wcs' is lost for detector 1"):
            view.containing(SkyCoord(150.1, 2.2, unit="deg"))
    (tmp_path / "visit" / "903334.h5").unlink()
    current().clear_cache()
    with open_visit(folder) as view:
        assert view.table("visit_info", missing="keep")["missing"].tolist() == ["lost"] * 3
        with pytest.raises(BrokenLinkError, match="'visit_info' is lost for detector 0"):
            view.visit_info


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_on_an_executor_it_is_the_same(
    simulated: Path, view: VisitView, request: pytest.FixtureRequest, kind: str
) -> None:
    steps: list[tuple[str, int, int]] = []
    executor = request.getfixturevalue(kind)
    with open_visit(simulated / "calexp", executor=executor, progress=lambda *step: steps.append(step)) as other:
        assert other.detectors == view.detectors
        assert (other.table("summary_stats") == view.table("summary_stats")).all()
        assert other.visit_info == view.visit_info
        assert {d: image.array.sum() for d, image in other["image"].items()} == {
            d: image.array.sum() for d, image in view["image"].items()
        }
    assert ("looking into files", 12, 12) in steps
    assert ("reading image", 12, 12) in steps


def test_files_are_open_only_while_they_are_read(simulated: Path) -> None:
    def files() -> list[str]:
        opened = map(os.path.realpath, Path("/proc/self/fd").iterdir())
        return [path for path in opened if path.startswith(str(simulated))]

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("/proc is needed to see which files are open")
    with open_visit(simulated / "visit" / "visit.h5", simulated / "calexp") as view:
        view.table("summary_stats")
        view["image"]
        assert files() == [str(simulated / "visit" / "visit.h5")]
    assert files() == []
    for use in (lambda: view["wcs"], lambda: view.visit_info, lambda: view.open(1)):
        with pytest.raises(ClosedError, match="was closed"):
            use()
    with pytest.raises(FileNotFoundError):
        open_visit(simulated / "visit" / "visit.h5", simulated / "visit")
    assert files() == []


def test_a_closed_view_is_not_stacked(simulated: Path) -> None:
    pytest.importorskip("dask.array", reason="needs dask (the extra `dask`)")
    with open_visit(simulated / "visit" / "visit.h5", simulated / "calexp") as view:
        pass
    with pytest.raises(ClosedError, match="was closed"):
        stack(view)


# ---- On the sky --------------------------------------------------------------------------------------------


def test_who_contains_a_position(view: VisitView) -> None:
    for detector in (0, 5, 11):
        wcs = make_wcs(CAMERA, detector)
        found = view.containing(wcs.pixel_to_world(30.25, 100.5))
        assert found["detector"].tolist() == [detector]
        assert found["position"].tolist() == [0]
        assert (found["y"][0], found["x"][0]) == (pytest.approx(100.5, abs=1e-4), pytest.approx(30.25, abs=1e-4))
    for nowhere in (SkyCoord(150.1, -30, unit="deg"), SkyCoord(330.1, 32.4, unit="deg"), SkyCoord(0, 90, unit="deg")):
        assert len(view.containing(nowhere)) == 0


def test_many_positions_agree_with_each_wcs(view: VisitView) -> None:
    random = np.random.default_rng(1)
    sky = SkyCoord(150.1 + random.uniform(-0.03, 0.03, 400), -32.4 + random.uniform(-0.03, 0.03, 400), unit="deg")
    found = view.containing(sky.galactic)
    expected = []
    for detector in DETECTORS:
        x, y = make_wcs(CAMERA, detector).world_to_pixel(sky)
        inside = (x >= -0.5) & (x < SIZE - 0.5) & (y >= -0.5) & (y < SIZE - 0.5)
        expected += [(position, detector) for position in np.flatnonzero(inside).tolist()]
    assert len(expected) > 50
    assert list(zip(found["position"].tolist(), found["detector"].tolist(), strict=True)) == sorted(expected)
    with pytest.raises(ValueError, match="shape"):
        view.containing(sky.reshape(20, 20))


def test_positions_are_in_parent_coordinates_up_to_the_edges(tmp_path: Path) -> None:
    wcs = simple_wcs((20, 30))
    composite = exposure((20, 30), origin=(1000, 2000), wcs=wcs)
    composite.replace(data_id={"visit": 1, "detector": 1}).write(tmp_path / "a.h5")
    with open_visit(tmp_path) as view:
        edges = wcs.pixel_to_world([-0.49, 29.49, -0.51, 29.51, 10, 10], [-0.49, 19.49, 5, 5, -0.51, 19.51])
        found = view.containing(edges)
        assert found["position"].tolist() == [0, 1]
        assert found["y"].tolist() == pytest.approx([999.51, 1019.49], abs=1e-5)
        assert found["x"].tolist() == pytest.approx([1999.51, 2029.49], abs=1e-5)


def test_positions_in_catalogs(tmp_path: Path) -> None:
    shapeless = simple_wcs((20, 30))
    shapeless.pixel_shape = None
    for detector, wcs in enumerate((simple_wcs((20, 30)), shapeless)):
        ch5.Composite(
            "source_catalog", table=QTable({"id": [1]}), wcs=wcs, data_id={"visit": 1, "detector": detector}
        ).write(tmp_path / f"src_{detector}.h5")
    with open_visit([tmp_path / "src_0.h5"]) as view:
        assert view.containing(SkyCoord(150.1, 2.2, unit="deg"))["y"].tolist() == [pytest.approx(9.5)]
    with open_visit(tmp_path) as view, pytest.raises(FormatError, match="neither a plane of pixels nor its WCS"):
        view.containing(SkyCoord(150.1, 2.2, unit="deg"))


def test_detectors_without_a_wcs(tmp_path: Path) -> None:
    folder = write_detectors(tmp_path, d0={"wcs": None}, d2={"photo_calib": ch5.PhotoCalib(2.0)})
    for detector in (0, 1, 2):
        # Definitions may want an image; these composites have none.
        with ch5.open(folder / f"903334_{detector}.h5") as ccd:
            more = {} if detector == 2 else {"image": ccd["image"]}
            bare = ch5.Composite(None, wcs=ccd["wcs"] if detector else None, **more, data_id=ccd.data_id)
        bare.write(folder / f"903334_{detector}.h5", replace=True)
    position = SkyCoord(150.1, 2.2, unit="deg")
    with open_visit(folder) as view:
        for _ in range(2):
            with pytest.raises(AbsentComponentError, match="'wcs' is absent for detector 0"):
                view.containing(position)
            assert view.containing(position, missing="skip")["detector"].tolist() == [1, 2]
        assert view.containing(position, detectors=[2])["detector"].tolist() == [2]
        with pytest.raises(ValueError, match="'error' or 'skip'"):
            view.containing(position, missing="keep")


def test_positions_and_tables_read_no_pixel(tmp_path: Path) -> None:
    visit, [first] = write_visit(tmp_path, ccds=1)
    for detector in range(1, 4):
        with ch5.open(first) as ccd:
            data_id = {**ccd.data_id, "detector": 20 + detector}
            changed = {"image": ch5.Image(pixels((300, 400), detector), origin=(100, 200), unit="nJy")}
            ccd.replace(changed, data_id=data_id).write(first.with_name(f"{detector}.h5"))
    stored = sum(path.stat().st_size for path in first.parent.iterdir())
    with counted_reads() as count, open_visit(visit, first.parent) as view:
        assert len(view.containing(SkyCoord(150.1, 2.2, unit="deg"))) == 4
        view.table("wcs")
        view.visit_info
    assert count() < 0.2 * stored


# ---- Pixels ------------------------------------------------------------------------------------------------


def test_stacked_pixels(view: VisitView, simulated: Path) -> None:
    pytest.importorskip("dask.array", reason="needs dask (the extra `dask`)")
    stacked = stack(view, "image")
    assert stacked.shape == (12, SIZE, SIZE)
    assert stacked.chunks == ((1,) * 12, (SIZE,), (SIZE,))
    images = {d: image.array for d, image in view["image"].items()}
    expected = np.stack([images[d] for d in DETECTORS])
    assert stacked.dtype == expected.dtype
    assert np.array_equal(stacked.compute(), expected)
    assert np.array_equal(stacked[3, 10:20:3, ::-1].compute(), expected[3, 10:20:3, ::-1])
    assert np.array_equal(stacked[[2, 0], 5].compute(), expected[[2, 0], 5])
    assert np.array_equal(stacked[1:4, [7, 1, 100]].compute(), expected[1:4, [7, 1, 100]])
    assert stacked[5:5].compute().shape == (0, SIZE, SIZE)
    assert np.array_equal(stack(view, "mask", detectors=[5, 3]).compute()[1], view["mask"][3].array)
    assert stack(view, "image", chunks=(64, 32)).numblocks == (12, 2, 4)
    # What is sent to workers is where the pixels are.
    sent = pickle.dumps(stacked)
    assert len(sent) < 100_000
    assert np.array_equal(pickle.loads(sent)[4].compute(), expected[4])
    assert stack(view, "image").name == stacked.name
    with pytest.raises(TypeError, match="isn't one array"):
        stack(view, "psf")


def test_part_of_a_stack_reads_little(tmp_path: Path) -> None:
    pytest.importorskip("dask.array", reason="needs dask (the extra `dask`)")
    for detector in range(3):
        image = ch5.Image(pixels((900, 900), detector))
        ch5.Composite(None, image=image, data_id={"detector": detector}).write(tmp_path / f"{detector}.h5")
    with open_visit(tmp_path) as view:
        stacked = stack(view, "image")
        with counted_reads() as count:
            stacked[:, 100:120, 100:120].compute(scheduler="synchronous")
    assert count() < 0.3 * sum(path.stat().st_size for path in tmp_path.iterdir())


def test_only_equal_boxes_are_stacked(tmp_path: Path) -> None:
    pytest.importorskip("dask.array", reason="needs dask (the extra `dask`)")
    other = {"image": ch5.Image(pixels((20, 30)), origin=(0, 0)), "mask": None, "variance": None}
    folder = write_detectors(tmp_path, d1=other)
    with open_visit(folder) as view:
        with pytest.raises(FormatError, match=r"most have .* first pixel \(100, 200\).* but 1: .*\(0, 0\)"):
            stack(view, "image")
        assert stack(view, "image", detectors=[0, 2]).shape == (2, 20, 30)


# ---- The command -------------------------------------------------------------------------------------------


def test_the_command(simulated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    visit, folder = str(simulated / "visit" / "visit.h5"), str(simulated / "calexp")
    assert main(["visit", visit, folder]) == 0
    assert capsys.readouterr().out.splitlines()[3].split() == ["2", str(detector_path(simulated, 2))]
    assert main(["visit", folder, "-d", f"visit={VISIT['visit']}", "--table", "photo_calib"]) == 0
    assert "nJy / adu" in capsys.readouterr().out
    centre = make_wcs(CAMERA, 6).pixel_to_world(64, 64)
    assert main(["visit", folder, "--at", str(centre.ra.deg), str(centre.dec.deg)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[0] == "6"
    assert main(["visit", folder, "--at", "somewhere", "2"]) == 2
    assert main(["visit", folder, "-d", "visit=3"]) == 2
    errors = capsys.readouterr().err
    assert "isn't a position on the sky" in errors
    assert "no composite of a detector" in errors
