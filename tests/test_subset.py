"""Parts of trees: subsets with what they link to, and components promoted to files of their own."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import pytest
from astropy.table import QTable
from support import counted_reads, exposure, tool, visit_info

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.cli import main
from compositeh5.composite.opening import file_info
from compositeh5.composite.session import current
from compositeh5.trees.relinking import promote
from compositeh5.trees.subsetting import subset
from compositeh5.trees.verify import verify

KEYS = {"instrument": "DemoCam", "visit": 903334}


def build(root: Path) -> Path:
    """Write a visit, its exposures with pixels and calibration, and catalogs that link to the calibrations."""
    visit = ch5.Composite("visit", visit_info=visit_info(), camera=QTable({"name": ["R22"]}), data_id=KEYS)
    visit.write(root / "visit/visit.h5")
    for detector in range(3):
        data_id = {**KEYS, "detector": detector}
        calib = ch5.PhotoCalib(2.5 + detector, 0.01)
        info = visit.link("visit_info")
        ccd = exposure(photo_calib=calib, visit_info=info).replace(data_id=data_id)
        ccd.write(root / f"calexp/ccd_{detector}.h5")
        table = QTable({"flux": np.arange(5.0) + detector})
        links = {"photo_calib": ccd.link("photo_calib"), "wcs": ccd.link("wcs"), "visit_info": info}
        ch5.Composite("source_catalog", table=table, **links, data_id=data_id).write(root / f"src/src_{detector}.h5")
    current().clear_cache()
    return root


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("repository"))


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_catalogs_come_with_their_calibrations_and_without_pixels(repository: Path, tmp_path: Path) -> None:
    size = sum(path.stat().st_size for path in (repository / "calexp").iterdir())
    with counted_reads() as count:
        done = subset(repository, tmp_path / "new", definition="source_catalog")
        assert count() < size / 5
    assert files(tmp_path / "new") == [
        *(f"calexp/ccd_{d}.photo_calib+wcs.h5" for d in range(3)),
        *(f"src/src_{d}.h5" for d in range(3)),
        "visit/visit.h5",
    ]
    assert len(done.composites) == 3
    assert len(done.linked) == 4
    moved = tmp_path / "moved"
    (tmp_path / "new").rename(moved)
    for detector in range(3):
        with ch5.open(moved / f"src/src_{detector}.h5") as c, ch5.open(repository / f"src/src_{detector}.h5") as old:
            verify(c)
            assert (c.id, c.digest) == (old.id, old.digest)
            assert c["photo_calib"].mean == 2.5 + detector
            assert c["visit_info"]["visit"] == 903334
            assert c.components()["wcs"].state == "linked"
            with ch5.open(moved / f"calexp/ccd_{detector}.photo_calib+wcs.h5") as parts:
                verify(parts)
                assert parts.id == c.links["wcs"].id
                assert (parts.definition, set(parts)) == ("", {"photo_calib", "wcs"})
                assert parts.component_origin("wcs").id == old.links["wcs"].id
                assert parts.data_id == c.data_id
        native = tool("h5ls", "-rE", moved / f"src/src_{detector}.h5").stdout
        assert "photo_calib/mean" in native
    # The visit is a file without pixels, and comes as it is.
    assert (moved / "visit/visit.h5").read_bytes() == (repository / "visit/visit.h5").read_bytes()


def test_some_components_of_all_composites(repository: Path, tmp_path: Path) -> None:
    subset(repository, tmp_path / "new", components=["wcs", "visit_info"])
    assert files(tmp_path / "new") == [
        *(f"calexp/ccd_{d}.visit_info+wcs.h5" for d in range(3)),
        *(f"src/src_{d}.visit_info+wcs.h5" for d in range(3)),
        "visit/visit.visit_info.h5",
    ]
    with ch5.open(tmp_path / "new/src/src_1.visit_info+wcs.h5") as c:
        verify(c)
        assert set(c) == {"wcs", "visit_info"}
        assert c["visit_info"]["visit"] == 903334
        assert c.links["wcs"].uri == str(tmp_path / "new/calexp/ccd_1.visit_info+wcs.h5")


def test_whole_composites_keep_all_and_their_definition(repository: Path, tmp_path: Path) -> None:
    subset(repository, tmp_path / "new", definition="exposure")
    for detector in range(3):
        path = f"calexp/ccd_{detector}.h5"
        assert (tmp_path / "new" / path).read_bytes() == (repository / path).read_bytes()
    assert "visit/visit.h5" in files(tmp_path / "new")


@pytest.mark.parametrize("transfer", ["hardlink", "symlink"])
def test_files_that_do_not_change_can_be_links(repository: Path, tmp_path: Path, transfer: str) -> None:
    subset(repository, tmp_path / "new", definition="exposure", transfer=transfer)
    path = tmp_path / "new/calexp/ccd_1.h5"
    if transfer == "symlink":
        assert os.readlink(path) == str(repository / "calexp/ccd_1.h5")
    else:
        assert path.samefile(repository / "calexp/ccd_1.h5")
    with ch5.open(path) as c:
        assert c["visit_info"]["visit"] == 903334


def test_a_second_call_takes_over_what_is_there(repository: Path, tmp_path: Path) -> None:
    subset(repository, tmp_path / "new", definition="source_catalog")
    for path in (tmp_path / "new").rglob("*.h5"):
        os.utime(path, (1, 1))
    (tmp_path / "new/src/src_1.h5").unlink()
    subset(repository, tmp_path / "new", definition="source_catalog")
    written = [name for name in files(tmp_path / "new") if (tmp_path / "new" / name).stat().st_mtime > 1]
    assert written == ["src/src_1.h5"]
    ch5.Composite(x=np.arange(3)).write(tmp_path / "other/src/src_1.h5")
    with pytest.raises(errors.ConflictError, match="holds other composites"):
        subset(repository, tmp_path / "other", definition="source_catalog")


def test_processes_give_the_same(repository: Path, tmp_path: Path, processes: Executor) -> None:
    one = subset(repository, tmp_path / "one", definition="source_catalog")
    two = subset(repository, tmp_path / "two", definition="source_catalog", executor=processes)
    assert two.linked == tuple(path.replace("/one/", "/two/") for path in one.linked)
    for name in files(tmp_path / "one"):
        with ch5.open(tmp_path / "one" / name) as a, ch5.open(tmp_path / "two" / name) as b:
            assert (a.id, a.digest, a.links.keys()) == (b.id, b.digest, b.links.keys())


def test_what_is_outside_of_the_source_comes_too(tmp_path: Path) -> None:
    build(tmp_path / "all")
    subset(tmp_path / "all/src", tmp_path / "new")
    found = files(tmp_path / "new")
    assert [name for name in found if not name.startswith("linked/")] == [f"src_{d}.h5" for d in range(3)]
    assert len(found) == 7
    shutil.rmtree(tmp_path / "all")
    current().clear_cache()
    with ch5.open(tmp_path / "new/src_2.h5") as c:
        assert c["photo_calib"].mean == 4.5
        assert c["visit_info"]["visit"] == 903334


def test_lost_links_are_an_error_before_anything_is_written(tmp_path: Path) -> None:
    build(tmp_path / "all")
    (tmp_path / "all/calexp/ccd_1.h5").unlink()
    with pytest.raises(errors.BrokenLinkError, match=r"2 linked components are lost; nothing was written: .*src_1.h5"):
        subset(tmp_path / "all", tmp_path / "new", definition="source_catalog")
    assert not (tmp_path / "new").exists()
    done = subset(tmp_path / "all", tmp_path / "new", definition="source_catalog", allow_lost=True)
    assert len(done.lost) == 2
    with ch5.open(tmp_path / "new/src/src_1.h5") as c:
        assert c.components()["photo_calib"].state == "lost"
        assert len(c["table"]) == 5


def test_an_empty_selection_is_an_error(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.NoSuchComponentError, match="none of its 7 files has a composite of definition 'raw'"):
        subset(repository, tmp_path / "new", definition="raw")
    with pytest.raises(FileNotFoundError):
        subset(tmp_path / "nowhere", tmp_path / "new")


def test_links_in_lists_are_followed(tmp_path: Path) -> None:
    links = []
    for index in range(3):
        image = ch5.Image(np.full((90, 90), index, np.float32))
        amp = ch5.Composite(image=image, variance=image, data_id={"amplifier": index})
        amp.write(tmp_path / f"all/amps/{index}.h5")
        links.append(amp.link("image"))
    ch5.Composite("raw", amplifiers=links).write(tmp_path / "all/raw/raw.h5")
    subset(tmp_path / "all", tmp_path / "new", definition="raw")
    assert files(tmp_path / "new") == [*(f"amps/{i}.image.h5" for i in range(3)), "raw/raw.h5"]
    shutil.rmtree(tmp_path / "all")
    with ch5.open(tmp_path / "new/raw/raw.h5") as c:
        verify(c)
        assert [image.array[0, 0] for image in c["amplifiers"]] == [0, 1, 2]


def test_several_composites_of_a_file(tmp_path: Path) -> None:
    given = {f"ccd_{d}": exposure((30, 40)).replace(data_id={**KEYS, "detector": d}) for d in (1, 2)}
    catalog = ch5.Composite("source_catalog", table=QTable({"flux": [1.0]}), data_id=KEYS)
    ch5.write_file(tmp_path / "all/visit.h5", {**given, "src": catalog})
    subset(tmp_path / "all", tmp_path / "new", definition="source_catalog")
    with ch5.open(tmp_path / "new/visit.h5", "src") as c:
        assert c.id == catalog.id
        verify(c)
    assert file_info(tmp_path / "new/visit.h5").composites == ("src",)


# ---- Promotion -----------------------------------------------------------------------------------------------


def test_a_promoted_component_outlives_its_parent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = build(tmp_path / "all")
    known = {}
    for path in sorted((root / "src").iterdir()):
        with ch5.open(path) as c:
            known[path] = c.id, c.digest
    done = promote(root / "calexp/ccd_1.h5", "photo_calib", root / "calib/ccd_1.h5", root)
    assert done.users == (str(root / "src/src_1.h5"),)
    assert main(["promote", f"{root}/calexp/ccd_1.h5", "wcs", f"{root}/wcs/ccd_1.h5", "--users", str(root)]) == 0
    assert "to which 1 files link now" in capsys.readouterr().out
    (root / "calexp/ccd_1.h5").unlink()
    current().clear_cache()
    for path, (id_, digest) in known.items():
        with ch5.open(path) as c:
            verify(c)
            assert (c.id, c.digest) == (id_, digest)
            assert c["photo_calib"].mean == 2.5 + c.data_id["detector"]
            assert c["wcs"].wcs.crval.tolist() == [150.1, 2.2]
    with ch5.open(root / "calib/ccd_1.h5") as c:
        verify(c)
        assert c.component_origin("photo_calib").uri == str(root / "calexp/ccd_1.h5")
        assert c.data_id == {**KEYS, "detector": 1}
    assert "photo_calib/mean" in tool("h5ls", "-rE", root / "src/src_1.h5").stdout


def test_only_what_is_stored_can_be_promoted(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.ConflictError, match="'visit_info' is stored elsewhere already: visit.visit_info"):
        promote(repository / "calexp/ccd_1.h5", "visit_info", tmp_path / "a.h5")
    with pytest.raises(errors.NoSuchComponentError, match="'psv'"):
        promote(repository / "calexp/ccd_1.h5", "psv", tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []
