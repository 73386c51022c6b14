"""The components of a damaged file that verify are saved, nothing else, and the new file says what is missing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from checksums import lookup3, structures
from support import exposure, tool, visit_info

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.cli import main
from compositeh5.trees.rescuing import Rescue

SHAPE = (300, 400)
"""Four chunks of 256 x 256."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    visit = ch5.Composite("visit", visit_info=visit_info(), data_id={"visit": 903334})
    visit.write(folder / "visit.h5")
    path = folder / "whole.h5"
    exposure(SHAPE, visit_info=visit.link("visit_info")).write(path)
    return path


@pytest.fixture
def bad(tmp_path: Path, whole: Path) -> Path:
    """A copy to be damaged, beside which the target of its link is."""
    (tmp_path / "visit.h5").write_bytes((whole.parent / "visit.h5").read_bytes())
    path = tmp_path / "bad.h5"
    path.write_bytes(whole.read_bytes())
    return path


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def flip_chunk(path: Path, dataset: str, number: int = 0) -> None:
    with h5py.File(path) as file:
        info = file[dataset].id.get_chunk_info(number)
    flip(path, info.byte_offset + info.size // 2)


def flip_header(path: Path, name: str) -> None:
    """Damage the header of an object, which has its attributes and small values."""
    with h5py.File(path) as file:
        address = int(h5py.h5o.get_info(file[name].id).addr)
    flip(path, address + 40)


def names(report: Rescue) -> tuple[list[str], list[str]]:
    return [name.removeprefix("composite/") for name in report.saved], [
        name.removeprefix("composite").removeprefix("/") for name in report.lost
    ]


def assert_equal(one: ch5.Composite, other: ch5.Composite, components: list[str]) -> None:
    assert [one.component_digest(name) for name in components] == [other.component_digest(name) for name in components]
    for name in components:
        one[name]


STORED = ["image", "mask", "variance", "wcs", "psf"]
ALL = [*STORED, "visit_info"]


@pytest.mark.parametrize("behind", [b"", b"garbage" * 999])
def test_of_a_good_file_a_copy_is_made(bad: Path, tmp_path: Path, behind: bytes) -> None:
    bad.write_bytes(bad.read_bytes() + behind)
    report = ch5.trees.rescue(bad, tmp_path / "out" / "new.h5")
    assert names(report) == (ALL, [])
    with ch5.open(bad) as old, ch5.open(tmp_path / "out" / "new.h5") as new:
        assert (new.id, new.digest, new.provenance) == (old.id, old.digest, old.provenance)
        assert_equal(new, old, ALL)
        assert new["visit_info"]["visit"] == 903334


def test_without_a_damaged_image_all_others_are_saved(bad: Path, tmp_path: Path) -> None:
    before = bad.read_bytes()
    flip_chunk(bad, "composite/image", 2)
    damaged = bad.read_bytes()
    report = ch5.trees.rescue(bad, tmp_path / "new.h5")
    assert bad.read_bytes() == damaged
    assert names(report) == ([name for name in ALL if name != "image"], ["image"])
    assert "/composite/image" in report.lost["composite/image"]
    assert [problem.finding for problem in ch5.trees.verify_files(tmp_path / "new.h5").problems] == ["incomplete"]
    bad.write_bytes(before)
    with ch5.open(bad) as old, ch5.open(tmp_path / "new.h5") as new:
        assert (new.id, new.data_id, new.stage, new.definition) == (old.id, old.data_id, old.stage, old.definition)
        assert_equal(new, old, [name for name in ALL if name != "image"])
        assert new["visit_info"]["visit"] == 903334


def test_the_new_file_says_what_is_missing(bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip_chunk(bad, "composite/image")
    ch5.trees.rescue(bad, tmp_path / "new.h5")
    with ch5.open(tmp_path / "new.h5") as new:
        assert list(new.lost) == ["image"]
        assert "image" not in new
        assert new.absent == ()
        assert new.components()["image"].state == "lost"
        with pytest.raises(errors.LostComponentError, match="'image' was lost to damage.*chunk at"):
            new["image"]
        record = new.provenance["rescued"]
        assert record["source"] == "bad.h5"
        # What is told to everybody has no folders.
        assert str(tmp_path) not in json.dumps(record)
        again = new.replace({"image": ch5.Image(np.zeros(SHAPE, "f4"))})
        assert again.lost == {}
    assert main(["ls", str(tmp_path / "new.h5")]) == 0
    assert "lost" in capsys.readouterr().out


def test_links_of_others_find_what_was_saved(bad: Path, tmp_path: Path) -> None:
    with ch5.open(bad) as base:
        base.overlay(photo_calib=ch5.PhotoCalib(2.0), stage="jointcal").write(tmp_path / "overlay.h5")
    flip_chunk(bad, "composite/image", 1)
    ch5.trees.rescue(bad, tmp_path / "new.h5")
    (tmp_path / "new.h5").rename(bad)
    with ch5.open(tmp_path / "overlay.h5") as overlay:
        assert overlay["mask"].shape == SHAPE
        assert overlay["wcs"].pixel_shape == SHAPE[::-1]
        with pytest.raises(errors.BrokenLinkError):
            overlay["image"]


def being_written(path: Path) -> None:
    """As a writer leaves a file that is killed while it changes it: marked as being written to."""
    data = bytearray(path.read_bytes())
    data[11] |= 1
    data[44:48] = lookup3(bytes(data[:44])).to_bytes(4, "little")
    path.write_bytes(data)


NOTHING: dict[str, Callable[[Path], None]] = {
    "cut off in the pixels": lambda path: os.truncate(path, path.stat().st_size - 1),
    "superblock": lambda path: flip(path, 30),
    "its only composite": lambda path: flip_header(path, "composite"),
}


@pytest.mark.parametrize("case", NOTHING)
def test_where_nothing_can_be_saved_nothing_is_written(bad: Path, tmp_path: Path, case: str) -> None:
    NOTHING[case](bad)
    with pytest.raises(errors.CorruptFileError, match="nothing of it can be rescued"):
        ch5.trees.rescue(bad, tmp_path / "new.h5")
    assert not (tmp_path / "new.h5").exists()


def test_a_name_that_is_listed_and_not_found_is_damage(tmp_path: Path) -> None:
    """Of many names there are two indexes, which can contradict each other."""
    ch5.Composite(info={f"field_{i:02}": i for i in range(20)}, note="x").write(tmp_path / "bad.h5")
    data = bytearray((tmp_path / "bad.h5").read_bytes())
    signed = structures(bytes(data))
    data[data.index(b"field_07") + 7] = ord("X")
    for structure in signed:
        structure.sign(data)
    (tmp_path / "bad.h5").write_bytes(data)
    with ch5.open(tmp_path / "bad.h5") as c, pytest.raises(errors.CorruptFileError, match="lists 'field_0X'"):
        c["info"]
    assert names(ch5.trees.rescue(tmp_path / "bad.h5", tmp_path / "new.h5")) == (["note"], ["info"])


@pytest.mark.parametrize("name", ["wcs", "psf", "mask"])
def test_a_component_whose_header_is_damaged_is_lost_alone(bad: Path, tmp_path: Path, name: str) -> None:
    flip_header(bad, f"composite/{name}")
    report = ch5.trees.rescue(bad, tmp_path / "new.h5")
    assert names(report) == ([other for other in ALL if other != name], [name])
    with ch5.open(tmp_path / "new.h5") as new, pytest.raises(errors.LostComponentError):
        new[name]


# ---- Changes by other software ------------------------------------------------------------------------------


def edit(change: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return damage


def _attr(name: str, attribute: str, value: object) -> Callable[[Path], None]:
    return edit(lambda file: file[name].attrs.__setitem__(attribute, value))


EDITS: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "pixel": (edit(lambda file: file["composite/image"].__setitem__((3, 4), 5)), ["image"]),
    "attribute": (_attr("composite/mask", "origin", np.array([0, 0])), ["mask"]),
    "digest": (_attr("composite/mask", "digest", np.bytes_("sha256:" + 64 * "0")), ["mask"]),
    "kind": (edit(lambda file: file["composite/wcs"].attrs.__delitem__("kind")), ["wcs"]),
    "data ID": (_attr("composite", "data_id", np.bytes_('{"visit":8}')), [""]),
    "records of links": (_attr("composite", "links", np.bytes_("{")), ["visit_info"]),
    "component removed": (edit(lambda file: file["composite"].__delitem__("variance")), [""]),
    "component added": (edit(lambda file: file["composite"].__setitem__("more", 3)), ["more"]),
}


@pytest.mark.parametrize("case", EDITS)
def test_what_others_changed_is_not_saved_as_good(bad: Path, tmp_path: Path, case: str) -> None:
    change, expected = EDITS[case]
    change(bad)
    report = ch5.trees.rescue(bad, tmp_path / "new.h5")
    saved, lost = names(report)
    assert lost == expected
    assert not set(saved) & set(lost)
    with ch5.open(tmp_path / "new.h5") as new:
        assert sorted(new) == sorted(saved)
        assert new.provenance["rescued"]["source"] == "bad.h5"
        assert [problem.finding for problem in ch5.trees.verify_files(tmp_path / "new.h5").problems] in (
            [],
            ["incomplete"],
        )


# ---- Composites in composites, files of several -------------------------------------------------------------


def test_a_nested_composite_is_saved_whole_or_not_at_all(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).normal(size=(100, 100))
    inner = ch5.Composite(a=pixels, b="text", data_id={"visit": 1})
    ch5.Composite(one=inner, two=inner, many=[inner, inner.replace({"b": "other"})], note="x").write(
        tmp_path / "bad.h5"
    )
    flip_chunk(tmp_path / "bad.h5", "composite/one/a", 0)
    flip_chunk(tmp_path / "bad.h5", "composite/many/1/a", 0)
    assert names(ch5.trees.rescue(tmp_path / "bad.h5", tmp_path / "new.h5")) == (["two", "note"], ["one", "many"])
    with ch5.open(tmp_path / "new.h5") as new:
        assert (new["two"]["b"], new["two"].data_id) == ("text", {"visit": 1})
        assert sorted(new.lost) == ["many", "one"]
    assert ch5.trees.verify_files(tmp_path / "new.h5").problems == ()


def test_of_several_composites_each_is_saved_and_links_between_them_stay(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).normal(size=(100, 100))
    composites = {f"c{i}": ch5.Composite(shared=pixels, own=f"number {i}", data_id={"visit": i}) for i in range(3)}
    ch5.write_file(tmp_path / "bad.h5", composites, share=True)
    flip_header(tmp_path / "bad.h5", "c2")
    report = ch5.trees.rescue(tmp_path / "bad.h5", tmp_path / "new.h5")
    assert list(report.lost) == ["c2"]
    assert report.saved == ("c0/shared", "c0/own", "c1/shared", "c1/own")
    (tmp_path / "bad.h5").unlink()
    (tmp_path / "new.h5").rename(tmp_path / "moved.h5")
    with ch5.open(tmp_path / "moved.h5", "c1") as new:
        np.testing.assert_array_equal(new["shared"], pixels)
    assert ch5.trees.verify_files(tmp_path / "moved.h5").problems == ()


def test_what_h5copy_copied_is_saved(bad: Path, tmp_path: Path) -> None:
    assert tool("h5copy", "-i", bad, "-o", tmp_path / "copy.h5", "-s", "/composite", "-d", "/it").returncode == 0
    flip_chunk(tmp_path / "copy.h5", "it/image")
    report = ch5.trees.rescue(tmp_path / "copy.h5", tmp_path / "new.h5")
    assert list(report.lost) == ["it/image"]
    with ch5.open(bad) as old, ch5.open(tmp_path / "new.h5") as new:
        assert_equal(new, old, ["mask", "variance", "wcs", "psf"])


def test_a_file_can_be_rescued_again(bad: Path, tmp_path: Path) -> None:
    flip_chunk(bad, "composite/image")
    ch5.trees.rescue(bad, tmp_path / "first.h5")
    flip_chunk(tmp_path / "first.h5", "composite/variance")
    flip_header(tmp_path / "first.h5", "composite/wcs")
    ch5.trees.rescue(tmp_path / "first.h5", tmp_path / "second.h5")
    with ch5.open(tmp_path / "second.h5") as new:
        assert sorted(new.lost) == ["image", "variance", "wcs"]
        assert new.provenance["rescued"]["source"] == "first.h5"


# ---- Where it can't be done ---------------------------------------------------------------------------------


def test_nothing_is_replaced_unless_that_is_asked_for(bad: Path, tmp_path: Path) -> None:
    (tmp_path / "there.h5").write_text("mine")
    with pytest.raises(errors.ConflictError, match="is there already"):
        ch5.trees.rescue(bad, tmp_path / "there.h5")
    assert (tmp_path / "there.h5").read_text() == "mine"
    (tmp_path / "link.h5").symlink_to(bad)
    for target in (bad, tmp_path / "link.h5"):
        with pytest.raises(errors.ConflictError, match="the damaged file itself"):
            ch5.trees.rescue(bad, target, replace=True)
    ch5.trees.rescue(bad, tmp_path / "there.h5", replace=True)
    assert ch5.trees.verify_files(tmp_path / "there.h5").problems == ()


@pytest.mark.parametrize(
    ("change", "error"),
    [(being_written, errors.BusyError), (_attr("/", "min_reader", 99), errors.UnsupportedVersionError)],
)
def test_what_is_being_written_or_newer_is_left_alone(
    bad: Path, tmp_path: Path, change: Callable[[Path], None], error: type[Exception]
) -> None:
    change(bad)
    with pytest.raises(error):
        ch5.trees.rescue(bad, tmp_path / "new.h5")
    assert not (tmp_path / "new.h5").exists()


# ---- The command line ---------------------------------------------------------------------------------------


def test_rescue_on_the_command_line(bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip_chunk(bad, "composite/image")
    (tmp_path / "a.h5").touch()
    assert main(["rescue", str(bad), str(tmp_path / "a.h5")]) == 2
    assert main(["rescue", str(bad), str(tmp_path / "a.h5"), "--force"]) == 1
    assert "lost   composite/image" in capsys.readouterr().out
    assert main(["rescue", str(bad), str(tmp_path / "b.h5"), "--json"]) == 1
    assert "chunk" in json.loads(capsys.readouterr().out)["lost"]["composite/image"]


def test_files_are_closed(bad: Path, tmp_path: Path) -> None:
    flip_chunk(bad, "composite/image")
    ch5.trees.rescue(bad, tmp_path / "new.h5")
    os.truncate(bad, 900)
    with pytest.raises(errors.CorruptFileError):
        ch5.trees.rescue(bad, tmp_path / "other.h5")
    assert not [path for path in Path("/proc/self/fd").iterdir() if str(tmp_path) in os.path.realpath(path)]
