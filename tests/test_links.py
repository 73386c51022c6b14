"""Links between files: by id and digest, relative, followed only by us, one hop."""

from __future__ import annotations

import gc
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.table import Table
from support import exposure, tool, visit_info, write_visit

import compositeh5 as ch5
from compositeh5 import errors, kinds
from compositeh5.composite.session import current
from compositeh5.storage.locations import joined_location, relative_location
from compositeh5.trees.verify import verify


@pytest.fixture(autouse=True)
def _no_values_from_other_tests() -> None:
    current().clear_cache()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_visit(tmp_path / "repo", ccds=3)
    current().clear_cache()
    return tmp_path / "repo"


def ccd(tree: Path, detector: int = 0) -> Path:
    return tree / "calexp" / f"calexp_903334_{detector}.h5"


VISIT = "visit/visit_903334.h5"


def test_a_linked_component_reads_as_if_it_were_there(tree: Path) -> None:
    with ch5.open(ccd(tree)) as c:
        assert c["visit_info"]["boresight"].ra.deg == pytest.approx(150.1)
        assert c["visit_info"] == ch5.Record(visit_info())
        assert c.components()["visit_info"].state == "linked"
        link = c.links["visit_info"]
        assert c.component_stage("visit_info") == "raw"
        verify(c)
    assert link.uri == str(tree / VISIT)
    assert link.data_id == {"instrument": "DemoCam", "visit": 903334}
    with ch5.open(tree / VISIT) as visit:
        assert link.id == visit.id
        assert link == visit.link("visit_info")


def test_it_is_stored_once(tree: Path) -> None:
    for detector in range(3):
        with h5py.File(ccd(tree, detector)) as file:
            link = file["composite"].get("visit_info", getlink=True)
        assert isinstance(link, h5py.ExternalLink)
        assert link.filename == "../visit/visit_903334.h5"
        assert link.path.startswith("/by-id/")


def test_ccds_decode_it_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = kinds.get("record").module
    calls = []
    decode = record.decode
    monkeypatch.setattr(record, "decode", lambda node, *, fields=None: calls.append(node.where) or decode(node))
    values = []
    for detector in range(3):
        with ch5.open(ccd(tree, detector)) as c:
            values.append(c["visit_info"])
    assert calls == [f"{tree / VISIT}:/composite/visit_info"]
    assert all(value is values[0] for value in values)


def test_what_is_shared_cannot_be_changed_through_one_user(tree: Path) -> None:
    visit = ch5.Composite(
        "visit", visit_info=visit_info(), camera=Table({"id": np.arange(9)}), header={"a": np.arange(3)}
    )
    visit.write(tree / "v.h5")
    ch5.Composite(None, camera=visit.link("camera")).write(tree / "u.h5")
    current().clear_cache()
    with ch5.open(tree / "u.h5") as c:
        c["camera"]["id"][0] = 99
        assert c["camera"]["id"][0] == 0


def test_a_moved_tree_keeps_working(tree: Path) -> None:
    moved = tree.parent / "elsewhere" / "deeper"
    moved.parent.mkdir()
    tree.rename(moved)
    with ch5.open(ccd(moved)) as c:
        assert c["visit_info"]["visit"] == 903334
    with h5py.File(ccd(moved)) as file:
        assert file["composite/visit_info/visit"][()] == 903334


def test_a_ccd_moved_alone_still_finds_the_recorded_place(tree: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.h5"
    shutil.copy(ccd(tree), alone)
    with ch5.open(alone) as c:
        assert c["visit_info"]["visit"] == 903334


def test_a_target_that_is_open_elsewhere_is_not_taken(tree: Path, tmp_path: Path) -> None:
    moved = shutil.move(tree / VISIT, tmp_path / "elsewhere.h5")
    current().clear_cache()
    with ch5.open(ccd(tree)) as c, ch5.open(moved), pytest.raises(errors.BrokenLinkError):
        c["visit_info"]


def test_another_visit_in_the_same_place_is_never_taken_for_it(tree: Path) -> None:
    write_visit(tree.parent / "other", 903336)
    os.replace(tree.parent / "other/visit/visit_903336.h5", tree / VISIT)
    current().clear_cache()
    with ch5.open(ccd(tree)) as c:
        for read in (lambda: c["visit_info"], lambda: c.read("visit_info", fields=["visit"])):
            with pytest.raises(errors.WrongIdError, match="holds no composite with id") as caught:
                read()
            assert isinstance(caught.value, FileNotFoundError)
            assert str(tree / VISIT) in str(caught.value)
        assert c.components()["visit_info"].state == "lost"
        assert c["image"].shape == (300, 400)
    with h5py.File(ccd(tree)) as file, pytest.raises(KeyError):
        file["composite/visit_info"]
    listing = tool("h5ls", "-r", "-E", ccd(tree))
    assert "exposure_time" not in listing.stdout


def test_a_file_in_the_working_directory_is_never_taken_for_it(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / VISIT).unlink()
    write_visit(tree / "x", 903336)
    (tree / "x/visit/visit_903336.h5").rename(tree / "x/visit/visit_903334.h5")
    (tree / "x/there").mkdir()
    monkeypatch.chdir(tree / "x/there")
    current().clear_cache()
    with ch5.open(ccd(tree)) as c, pytest.raises(errors.BrokenLinkError):
        c["visit_info"]
    with h5py.File(ccd(tree)) as file, pytest.raises(KeyError):
        file["composite/visit_info"]


def test_a_lost_component_is_not_an_absent_one(tree: Path) -> None:
    (tree / VISIT).unlink()
    with ch5.open(ccd(tree)) as c:
        assert "visit_info" in c
        with pytest.raises(errors.BrokenLinkError) as caught:
            c["visit_info"]
        assert not isinstance(caught.value, errors.WrongIdError)
        assert "visit.visit_info (id " in str(caught.value)
        assert "No such file" in str(caught.value)
        assert c.components()["visit_info"].state == "lost"
        loaded = c.load()
    assert loaded["image"].shape == (300, 400)
    with pytest.raises(errors.BrokenLinkError):
        loaded["visit_info"]
    assert loaded.links["visit_info"].component == "visit_info"


def test_a_changed_target_is_a_digest_mismatch(tree: Path) -> None:
    with ch5.open(tree / VISIT) as visit:
        id_ = visit.id
    changed = ch5.Composite("visit", visit_info=visit_info(1), id=id_)
    changed.write(tree / VISIT, replace=True)
    with ch5.open(ccd(tree)) as c:
        with pytest.raises(errors.DigestMismatchError, match="was recorded by the link"):
            c["visit_info"]
        assert c.components()["visit_info"].note


def test_links_to_links_go_to_where_the_component_is(tree: Path) -> None:
    with ch5.open(ccd(tree)) as c:
        again = ch5.Composite(None, visit_info=c.link("visit_info"), image=c.link("image"))
    again.write(tree / "deeper/still/overlay.h5")
    with h5py.File(tree / "deeper/still/overlay.h5") as file:
        target = file["composite"].get("visit_info", getlink=True)
        assert target.filename == "../../visit/visit_903334.h5"
        assert file["composite"].get("image", getlink=True).filename == "../../calexp/calexp_903334_0.h5"
    with ch5.open(tree / "deeper/still/overlay.h5") as c:
        assert c["visit_info"]["visit"] == 903334
        np.testing.assert_array_equal(c.lazy("image")[5:7], exposure()["image"].array[5:7])
        assert c.read("image", box=ch5.Box(100, 110, 200, 204)).shape == (10, 4)
        # Rewriting what is open elsewhere keeps the links right.
        c.write(tree / "copy.h5")
    with ch5.open(tree / "copy.h5") as c:
        assert c["visit_info"]["visit"] == 903334
        assert list(c.links) == ["visit_info", "image"]


def test_values_and_links_stand_side_by_side(tree: Path) -> None:
    with ch5.open(tree / VISIT) as visit:
        c = exposure(visit_info=visit.link("visit_info"))
    assert c["visit_info"]["visit"] == 903334
    assert c.links["visit_info"].id == visit.id


def test_linking_needs_a_place_to_link_to() -> None:
    with pytest.raises(ValueError, match="write it first"):
        ch5.Composite("visit", visit_info=visit_info()).link("visit_info")


def test_the_kind_of_a_link_must_be_that_of_the_component(tree: Path) -> None:
    with ch5.open(ccd(tree)) as c, pytest.raises(errors.DefinitionError, match="'record'"):
        ch5.Composite("visit", visit_info=c.link("image"))


def test_reading_through_links_leaves_nothing_open(tree: Path) -> None:
    def open_files() -> list[str]:
        fds = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        return [os.readlink(fd) for fd in fds if os.path.lexists(fd) and os.readlink(fd).startswith(str(tree))]

    with ch5.open(ccd(tree)) as c:
        overlay = ch5.Composite(None, image=c.link("image"), visit_info=c.link("visit_info"))
    overlay.write(tree / "o.h5")
    with ch5.open(tree / "o.h5") as c:
        c["visit_info"], c.lazy("image")[0], c.lazy("image")[1], c.tree()
        assert len(open_files()) == 2
    assert open_files() == []


def test_threads_read_the_same_files(tree: Path) -> None:
    """Eight threads share the open files, and close them in any order, garbage among them."""

    def work(seed: int) -> float:
        rng = np.random.default_rng(seed)
        total = 0.0
        for _ in range(15):
            c = ch5.open(ccd(tree, int(rng.integers(0, 3))))
            cycle = [c]
            cycle.append(cycle)
            total += c["visit_info"]["exposure_time"].value + c.lazy("image")[5, 7] + len(c["mask"].planes)
            if rng.integers(0, 2):
                c.close()
            gc.collect(0)
        return total

    expected = 15 * (30 + float(exposure()["image"].array[5, 7]) + 2)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == pytest.approx([expected] * 8)


@pytest.mark.parametrize(
    ("target", "start", "relative"),
    [
        ("/r/visit/v.h5", "/r/calexp/a/c.h5", "../../visit/v.h5"),
        ("/r/v.h5", "/r/c.h5", "v.h5"),
        ("s3://b/r/visit/v.h5", "s3://b/r/calexp/c.h5", "../visit/v.h5"),
        ("s3://b/v.h5", "s3://other/c.h5", "s3://b/v.h5"),
        ("/r/odd #name?/v.h5", "/r/c.h5", "odd #name?/v.h5"),
    ],
)
def test_relative_locations_and_back(target: str, start: str, relative: str) -> None:
    assert relative_location(target, start) == relative
    assert joined_location(start, relative) == target


def test_many_links_fit_in_a_file(tmp_path: Path) -> None:
    """Their record is longer than one attribute can be."""
    visit = ch5.Composite(None, {f"component_{i}": {"i": i} for i in range(300)})
    visit.write(tmp_path / "v.h5")
    ch5.Composite(None, {f"c{i}": visit.link(f"component_{i}") for i in range(300)}).write(tmp_path / "c.h5")
    current().clear_cache()
    with ch5.open(tmp_path / "c.h5") as c:
        assert [c[f"c{i}"]["i"] for i in (0, 150, 299)] == [0, 150, 299]
