"""The view of a visit, and the index, of a Butler repository."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from support import exposure, pixels, simple_wcs, visit_info

import compositeh5 as ch5
from compositeh5.composite.session import current
from compositeh5.dask import stack
from compositeh5.errors import BrokenLinkError, DefinitionError, NotACompositeFileError
from compositeh5.trees.index_table import index, open_index
from compositeh5.trees.visit_files import open_visit as open_files

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")

from butler_support import (
    ALL_DISASSEMBLED,
    DETECTORS,
    MEMORY,
    OTHER_TEMPLATES,
    RUN,
    VISIT,
    ccd,
    ccd_id,
    files_of,
    new_repo,
    nothing_cached,  # noqa: F401
    purge,
)
from lsst.daf.butler import Butler, FileDataset, MissingDatasetTypeError

from compositeh5.butler import open_visit, put_overlay, put_visit


def wcs_of(detector: int) -> WCS:
    """Return a WCS such that the detectors stand side by side."""
    wcs = simple_wcs((20, 30))
    wcs.wcs.crpix = wcs.wcs.crpix - [40 * detector, 0]
    return wcs


def put_visits(butler: Butler, *visits: int) -> None:
    for number in visits:
        visit = ch5.Composite("visit", visit_info=visit_info(number), data_id={**VISIT, "visit": number})
        ccds = [
            exposure(
                (20, 30),
                image=ch5.Image(pixels((20, 30), detector), origin=(100, 200), unit="nJy"),
                wcs=wcs_of(detector),
                photo_calib=ch5.PhotoCalib(1.0 + detector),
            ).replace(data_id={**visit.data_id, "detector": detector})
            for detector in reversed(DETECTORS)
        ]
        put_visit(butler, visit, ccds, run=RUN)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two visits; not to be changed."""
    folder = tmp_path_factory.mktemp("butler")
    butler = new_repo(folder / "made")
    put_visits(butler, 903334, 903335)
    butler.collections.register("empty")
    # So that copies of it don't find the places that are recorded in their links.
    return (folder / "made").rename(folder / "repo")


@pytest.fixture
def butler(root: Path) -> Butler:
    return Butler.from_config(str(root), collections=[RUN])


@pytest.fixture
def copied(root: Path, tmp_path: Path) -> Butler:
    """Return a repository that may be changed."""
    shutil.copytree(root, tmp_path / "copy")
    return Butler.from_config(str(tmp_path / "copy"), run=RUN)


def test_the_detectors_of_a_visit(butler: Butler) -> None:
    with open_visit(butler, "calexp", VISIT) as view:
        assert view.detectors == tuple(DETECTORS)
        assert view.data_id == VISIT
        assert view.visit is not None
        assert view.visit.data_id == VISIT
        assert view.visit_info["visit"] == 903334
        assert view.table("photo_calib")["mean"].value.tolist() == [1.0 + d for d in DETECTORS]
        for detector, image in view["image"].items():
            assert np.array_equal(image.array, pixels((20, 30), detector))
        position = wcs_of(4).pixel_to_world(3, 5)
        found = view.containing(position)
        assert found["detector"].tolist() == [4]
        assert (found["y"][0], found["x"][0]) == (pytest.approx(105), pytest.approx(203))
        assert len(view.containing(SkyCoord(0, 0, unit="deg"))) == 0
        with view.open(3) as ccd:
            assert ccd.data_id == {**VISIT, "detector": 3}
    with open_visit(butler, "calexp", {**VISIT, "detector": 2}) as view:
        assert view.detectors == (2,)


def test_stacked_pixels(butler: Butler) -> None:
    pytest.importorskip("dask.array", reason="needs dask (the extra `dask`)")
    with open_visit(butler, "calexp", VISIT) as view:
        stacked = stack(view, "image").compute()
    assert np.array_equal(stacked, [pixels((20, 30), detector) for detector in DETECTORS])


def test_on_threads(butler: Butler) -> None:
    with ThreadPoolExecutor(2) as pool, open_visit(butler, "calexp", VISIT, executor=pool) as view:
        assert view.table("photo_calib")["mean"].value.tolist() == [1.0 + d for d in DETECTORS]
        assert view.shared("visit_info")["visit"] == 903334


def test_which_are_meant_must_be_clear(butler: Butler) -> None:
    with pytest.raises(DefinitionError, match="several composites of detector 0"):
        open_visit(butler, "calexp", {"instrument": "DemoCam"})
    with pytest.raises(FileNotFoundError, match="there is no calexp with a detector"):
        open_visit(butler, "calexp", VISIT, collections="empty")
    with pytest.raises(FileNotFoundError, match="there is no visit_metadata with a detector"):
        open_visit(butler, "visit_metadata", VISIT)
    with pytest.raises(MissingDatasetTypeError):
        open_visit(butler, "calexpo", VISIT)


def test_overlays_of_some_detectors(copied: Butler) -> None:
    for detector in (5, 2):
        ref = copied.find_dataset("calexp", {**VISIT, "detector": detector})
        assert ref is not None
        better = simple_wcs((20, 30))
        better.wcs.crval = [10, 20]
        put_overlay(copied, ref, {"wcs": better}, "calexp_jointcal", stage="jointcal")
    with open_visit(copied, "calexp_jointcal", VISIT) as view:
        assert view.detectors == (2, 5)
        assert view.containing(SkyCoord(10, 20, unit="deg"))["detector"].tolist() == [2, 5]
        assert view.visit_info["visit"] == 903334
        assert np.array_equal(view["image"][5].array, pixels((20, 30), 5))


def test_the_butler_knows_where_the_visit_is(copied: Butler, tmp_path: Path) -> None:
    other = new_repo(tmp_path / "other", OTHER_TEMPLATES)
    other.transfer_from(
        copied, copied.query_datasets("calexp", data_id=VISIT), transfer="copy", register_dataset_types=True
    )
    (visit,) = copied.query_datasets("visit_metadata", data_id=VISIT)
    other.registry.registerDatasetType(visit.datasetType)
    other.ingest(FileDataset(copied.getURI(visit).ospath, [visit]), transfer="move")
    current().clear_cache()
    with open_visit(other, "calexp", VISIT, visit_dataset_type="unknown") as view:
        assert view.visit is None
        assert view.visit_info["visit"] == 903334
    current().clear_cache()
    with open_files(list(view.locations.values())) as files, pytest.raises(BrokenLinkError):
        files.visit_info


def test_a_disassembled_visit(tmp_path: Path) -> None:
    butler = new_repo(tmp_path / "repo", ALL_DISASSEMBLED)
    put_visits(butler, 903334)
    current().clear_cache()
    with open_visit(butler, "calexp", VISIT) as view:
        assert view.table("photo_calib")["mean"].value.tolist() == [1.0 + d for d in DETECTORS]
        assert view.visit_info["visit"] == 903334
        assert view.containing(wcs_of(1).pixel_to_world(3, 5))["detector"].tolist() == [1]


def test_a_visit_in_memory_has_no_files(tmp_path: Path) -> None:
    butler = new_repo(tmp_path / "repo", MEMORY)
    butler.put(ccd(), "calexp", ccd_id())
    with pytest.raises(NotACompositeFileError, match="is in memory"):
        open_visit(butler, "calexp", VISIT)


def test_a_deleted_visit_is_lost(copied: Butler) -> None:
    purge(copied, *copied.query_datasets("visit_metadata", data_id=VISIT))
    current().clear_cache()
    with open_visit(copied, "calexp", VISIT) as view:
        assert view.visit is None
        assert set(view.table("visit_info", missing="keep")["missing"]) == {"lost"}
        with pytest.raises(BrokenLinkError, match="'visit_info' is lost for detector 0"):
            view.visit_info


def test_an_index_of_a_repository(root: Path, butler: Butler, tmp_path: Path) -> None:
    report = index(root, tmp_path / "index.h5")
    assert report.composites == 20
    assert report.problems == {}
    table = open_index(tmp_path / "index.h5")
    assert {root / path for path in table["path"]} == files_of(root)
    for ref in butler.query_datasets("calexp"):
        (row,) = table[table["id"] == str(ref.id)]
        assert (row["dataset_type"], row["run"]) == ("calexp", RUN)
        assert {key: row[key] for key in ref.dataId.required} == dict(ref.dataId.required)
        assert row["visit_info.airmass"] == 1.0625
    chosen = table[table["dataset_type"] == "calexp"]
    with open_files(chosen, data_id=VISIT) as view, open_visit(butler, "calexp", VISIT) as other:
        assert view.locations == other.locations
