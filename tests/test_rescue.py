"""Of a damaged file, all that is provably good is saved, nothing else, and the new file says what is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.table import QTable
from mutants import structures
from support import exposure, tool, visit_info

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.cli import main
from compositeh5.container.reader import StoredFile
from compositeh5.container.salvage import lookup3, superblock
from compositeh5.operations.damage import Box, Extent, joined
from compositeh5.operations.rescue import Rescue

SHAPE = (600, 700)
"""Six chunks of 256 x 256."""


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


def chunk(path: Path, dataset: str, number: int) -> tuple[int, int]:
    """Return where a chunk is."""
    with h5py.File(path) as file:
        info = file[dataset].id.get_chunk_info(number)
        return info.byte_offset, info.size


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def flip_chunk(path: Path, dataset: str, number: int) -> None:
    offset, size = chunk(path, dataset, number)
    flip(path, offset + size // 2)


def header(path: Path, name: str) -> int:
    """Return a place in the header of an object, which has its attributes and small values."""
    with h5py.File(path) as file:
        return int(h5py.h5o.get_info(file[f"composite/{name}"].id).addr) + 40


def names(report: Rescue) -> tuple[list[str], list[str]]:
    return [name.removeprefix("composite/") for name in report.saved], [item.component for item in report.lost]


def assert_equal(one: ch5.Composite, other: ch5.Composite, components: list[str]) -> None:
    assert [one.component_digest(name) for name in components] == [other.component_digest(name) for name in components]
    for name in components:
        one[name]


STORED = ["image", "mask", "variance", "wcs", "psf"]
ALL = [*STORED, "visit_info"]


def test_of_a_good_file_a_copy_is_made(bad: Path, tmp_path: Path) -> None:
    report = ch5.rescue(bad, tmp_path / "out" / "new.h5")
    assert names(report) == (ALL, [])
    assert report.damage == ""
    with ch5.open(bad) as old, ch5.open(tmp_path / "out" / "new.h5") as new:
        assert (new.id, new.digest, new.provenance) == (old.id, old.digest, old.provenance)
        assert_equal(new, old, ALL)
        assert new["visit_info"]["visit"] == 903334


def test_without_a_damaged_image_all_others_are_saved(bad: Path, tmp_path: Path) -> None:
    before = bad.read_bytes()
    flip_chunk(bad, "composite/image", 2)
    damaged = bad.read_bytes()
    report = ch5.rescue(bad, tmp_path / "new.h5")
    assert bad.read_bytes() == damaged
    assert names(report) == ([name for name in ALL if name != "image"], ["image"])
    (lost,) = report.lost
    assert [(extent.path, extent.box) for extent in lost.extents] == [("/composite/image", ((0, 256), (512, 700)))]
    assert [problem.finding for problem in ch5.verify_files(tmp_path / "new.h5").problems] == ["incomplete"]
    bad.write_bytes(before)
    with ch5.open(bad) as old, ch5.open(tmp_path / "new.h5") as new:
        assert (new.id, new.data_id, new.stage, new.definition) == (old.id, old.data_id, old.stage, old.definition)
        assert_equal(new, old, [name for name in ALL if name != "image"])
        assert new["visit_info"]["visit"] == 903334


def test_the_new_file_says_what_is_missing(bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip_chunk(bad, "composite/image", 0)
    ch5.rescue(bad, tmp_path / "new.h5")
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
    ch5.rescue(bad, tmp_path / "new.h5")
    (tmp_path / "new.h5").rename(bad)
    with ch5.open(tmp_path / "overlay.h5") as overlay:
        assert overlay["mask"].shape == SHAPE
        assert overlay["wcs"].pixel_shape == SHAPE[::-1]
        with pytest.raises(errors.BrokenLinkError):
            overlay["image"]


def cut(keep: Callable[[Path], int]) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, keep(path))


def spoil(first: int, last: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[:first] + b"\xff" * (last - first) + data[last:])

    return damage


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"garbage" * 999)


def being_written(path: Path) -> None:
    """As a writer leaves a file that is killed while it changes it: marked as being written to."""
    data = bytearray(path.read_bytes())
    data[11] |= 1
    data[44:48] = lookup3(bytes(data[:44])).to_bytes(4, "little")
    path.write_bytes(data)


WHOLE_FILE: dict[str, tuple[Callable[[Path], None], str, list[str]]] = {
    "cut off behind the image": (cut(lambda path: chunk(path, "composite/mask", 0)[0] + 9), "cut off", ["image"]),
    "cut off in the image": (cut(lambda path: chunk(path, "composite/image", 3)[0] + 9), "cut off", []),
    "cut off before all pixels": (cut(lambda path: chunk(path, "composite/image", 0)[0]), "cut off", []),
    "bytes appended": (append, "", STORED),
    "flags of the superblock": (being_written, "open for writing", STORED),
    "superblock": (spoil(9, 48), "superblock", STORED),
}


@pytest.mark.parametrize("case", WHOLE_FILE)
def test_files_that_hdf5_cannot_open_are_read(bad: Path, tmp_path: Path, case: str) -> None:
    damage, said, good = WHOLE_FILE[case]
    damage(bad)
    good = [*good, *(name for name in ("wcs", "psf", "visit_info") if name not in good)]
    if said:
        with pytest.raises((errors.CorruptFileError, errors.BusyError)):
            ch5.open(bad)
    report = ch5.rescue(bad, tmp_path / "new.h5")
    assert said in report.damage
    assert sorted(names(report)[0]) == sorted(good)
    with ch5.open(tmp_path / "new.h5") as new:
        assert sorted(new) == sorted(good)
        assert new["wcs"].pixel_shape == SHAPE[::-1]
        assert new["visit_info"]["visit"] == 903334


NOTHING: dict[str, Callable[[Path], None]] = {
    "cut off in the metadata": cut(lambda path: 1000),
    "cut off in the superblock": cut(lambda path: 20),
    "hole at the start": spoil(16, 4096),
    "root group": spoil(60, 80),
    "its only composite": lambda path: flip(path, header(path, "")),
}


@pytest.mark.parametrize("case", NOTHING)
def test_where_nothing_can_be_saved_nothing_is_written(bad: Path, tmp_path: Path, case: str) -> None:
    NOTHING[case](bad)
    with pytest.raises(errors.CorruptFileError, match="nothing of it can be rescued"):
        ch5.rescue(bad, tmp_path / "new.h5")
    assert not (tmp_path / "new.h5").exists()
    assert main(["rescue", str(bad), str(tmp_path / "new.h5")]) == 2
    assert len(ch5.verify_files(bad).problems) == 1


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
    assert names(ch5.rescue(tmp_path / "bad.h5", tmp_path / "new.h5")) == (["note"], ["info"])


@pytest.mark.parametrize("name", ["wcs", "psf", "mask"])
def test_a_component_whose_header_is_damaged_is_lost_alone(bad: Path, tmp_path: Path, name: str) -> None:
    flip(bad, header(bad, name))
    report = ch5.rescue(bad, tmp_path / "new.h5", partial=True)
    assert names(report) == ([other for other in ALL if other != name], [name])
    with ch5.open(tmp_path / "new.h5") as new, pytest.raises(errors.LostComponentError):
        new[name]


# ---- Changes by other software ------------------------------------------------------------------------------


def edit(change: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return damage


def _set(name: str, index: object, value: object) -> Callable[[Path], None]:
    return edit(lambda file: file[name].__setitem__(index, value))


def _attr(name: str, attribute: str, value: object) -> Callable[[Path], None]:
    return edit(lambda file: file[name].attrs.__setitem__(attribute, value))


EDITS: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "pixel": (_set("composite/image", (3, 4), 5), ["image"]),
    "small values": (_set("composite/psf/kernels", ..., 1), ["psf"]),
    "attribute": (_attr("composite/mask", "origin", np.array([0, 0])), ["mask"]),
    "digest": (_attr("composite/mask", "digest", np.bytes_("sha256:" + 64 * "0")), ["mask"]),
    "kind": (edit(lambda file: file["composite/wcs"].attrs.__delitem__("kind")), ["wcs"]),
    "data ID": (_attr("composite", "data_id", np.bytes_('{"visit":8}')), [""]),
    "bad JSON": (_attr("composite", "data_id", np.bytes_("[")), ["", ""]),
    "records of links": (_attr("composite", "links", np.bytes_("{")), ["", "visit_info"]),
    "component removed": (edit(lambda file: file["composite"].__delitem__("variance")), [""]),
    "component renamed": (edit(lambda file: file["composite"].move("variance", "mean")), [""]),
    "component added": (edit(lambda file: file["composite"].__setitem__("more", 3)), ["more"]),
}


@pytest.mark.parametrize("case", EDITS)
def test_what_others_changed_is_not_saved_as_good(bad: Path, tmp_path: Path, case: str) -> None:
    change, expected = EDITS[case]
    change(bad)
    report = ch5.rescue(bad, tmp_path / "new.h5", partial=True)
    saved, lost = names(report)
    assert lost == expected
    assert not set(saved) & set(lost)
    assert not any(item.kept for item in report.lost)
    with ch5.open(tmp_path / "new.h5") as new:
        assert sorted(new) == sorted(saved)
        assert new.provenance["rescued"]["source"] == "bad.h5"
        assert [problem.finding for problem in ch5.verify_files(tmp_path / "new.h5").problems] in ([], ["incomplete"])


# ---- Parts of components ------------------------------------------------------------------------------------


def test_pixels_of_a_damaged_image_are_kept_if_that_is_asked_for(bad: Path, whole: Path, tmp_path: Path) -> None:
    for number in (0, 1, 5):
        flip_chunk(bad, "composite/image", number)
    report = ch5.rescue(bad, tmp_path / "new.h5", partial=True)
    (lost,) = report.lost
    assert lost.component == "image"
    assert "NaN" in lost.kept
    boxes = [extent.box for extent in lost.extents]
    assert boxes == [((0, 256), (0, 512)), ((256, 512), (512, 700))]
    with ch5.open(whole) as old, ch5.open(tmp_path / "new.h5") as new:
        expected = old["image"].array.copy()
        expected[0:256, 0:512] = expected[256:512, 512:700] = np.nan
        np.testing.assert_array_equal(new["image"].array, expected)
        assert (new["image"].dtype, new["image"].unit, new["image"].origin) == ("f4", "nJy", (100, 200))
        assert new.lost == {}
        assert new.provenance["rescued"]["partial"]["image"]["extents"][0]["box"] == [[0, 256], [0, 512]]
    assert ch5.verify_files(tmp_path / "new.h5").problems == ()


def test_integers_become_floats_and_masks_get_a_plane(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    values = {name: rng.integers(0, 60_000, (300, 800)) for name in ("raw", "counts", "flags")}
    ch5.Composite(
        raw=ch5.Image(values["raw"].astype("u2")),
        counts=ch5.Image(values["counts"].astype("i8")),
        flags=ch5.Mask(values["flags"].astype("i4"), {f"P{i}": i for i in range(16)}),
    ).write(tmp_path / "bad.h5")
    for name in values:
        flip_chunk(tmp_path / "bad.h5", f"composite/{name}", 1)
    report = ch5.rescue(tmp_path / "bad.h5", tmp_path / "new.h5", partial=True)
    lost = {item.component: item for item in report.lost}
    assert not lost["counts"].kept
    with ch5.open(tmp_path / "new.h5") as new:
        assert sorted(new) == ["flags", "raw"]
        raw, flags = new["raw"], new["flags"]
        assert raw.dtype == "f4"
        for name, found in (("raw", np.isnan(raw.array)), ("flags", flags.has("LOST"))):
            expected = np.zeros((300, 800), bool)
            for extent in lost[name].extents:
                expected[tuple(slice(*limits) for limits in extent.box)] = True
            np.testing.assert_array_equal(found, expected)
            assert 0 < expected.sum() < expected.size
        np.testing.assert_array_equal(raw.array[~np.isnan(raw.array)], values["raw"][~np.isnan(raw.array)])
        kept = ~flags.has("LOST")
        np.testing.assert_array_equal(flags.array[kept], values["flags"][kept])
        assert set(flags.array[~kept]) == {flags.bits("LOST")}


def test_a_mask_without_a_free_bit_and_raw_arrays_without_checksums_are_not_kept_in_part(tmp_path: Path) -> None:
    mask = ch5.Mask(np.random.default_rng(1).integers(0, 255, (600, 700)).astype("u1"), {f"P{i}": i for i in range(8)})
    ch5.Composite(mask=mask, note="x").write(tmp_path / "bad.h5")
    flip_chunk(tmp_path / "bad.h5", "composite/mask", 0)
    report = ch5.rescue(tmp_path / "bad.h5", tmp_path / "new.h5", partial=True)
    assert [(item.component, item.kept) for item in report.lost] == [("mask", "")]


def test_rows_of_a_raw_image_are_kept(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=(1500, 400)).astype("f4")
    ch5.Composite(image=ch5.Image(values)).write(tmp_path / "bad.h5", recipes={"image": "raw"})
    with h5py.File(tmp_path / "bad.h5") as file:
        offset, rows = file["composite/image"].id.get_offset(), int(file["composite/image"].attrs["block_rows"])
    flip(tmp_path / "bad.h5", offset + rows * 1600 + 7)
    (lost,) = ch5.rescue(tmp_path / "bad.h5", tmp_path / "new.h5", partial=True).lost
    assert [extent.box for extent in lost.extents] == [((rows, 2 * rows), (0, 400))]
    with ch5.open(tmp_path / "new.h5") as new:
        values[rows : 2 * rows] = np.nan
        np.testing.assert_array_equal(new["image"].array, values)


def test_whole_columns_of_a_table_are_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    table = QTable({name: rng.normal(size=9000) for name in ("flux", "error", "a/b")}, meta={"author": "x"})
    table["flux"].info.description = "of the source"
    ch5.Composite(sources=table).write(tmp_path / "bad.h5")
    flip_chunk(tmp_path / "bad.h5", "composite/sources/a%2Fb", 0)
    (lost,) = ch5.rescue(tmp_path / "bad.h5", tmp_path / "new.h5", partial=True).lost
    assert [extent.path for extent in lost.extents] == ["/composite/sources/a%2Fb"]
    assert "a/b" in lost.kept
    with ch5.open(tmp_path / "new.h5") as new:
        assert new["sources"].colnames == ["flux", "error"]
        np.testing.assert_array_equal(new["sources"]["flux"], table["flux"])
        assert new["sources"]["flux"].info.description == "of the source"
        assert new["sources"].meta == {"author": "x"}
    assert ch5.verify_files(tmp_path / "new.h5").problems == ()


# ---- Composites in composites, files of several -------------------------------------------------------------


def test_what_is_good_of_a_nested_composite_is_saved(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).normal(size=(100, 100))
    inner = ch5.Composite(a=pixels, b="text", data_id={"visit": 1})
    ch5.Composite(one=inner, many=[inner, inner.replace({"b": "other"})], note="x").write(tmp_path / "bad.h5")
    flip_chunk(tmp_path / "bad.h5", "composite/one/a", 0)
    flip_chunk(tmp_path / "bad.h5", "composite/many/1/a", 0)
    report = ch5.rescue(tmp_path / "bad.h5", tmp_path / "new.h5")
    assert sorted(names(report)[0]) == ["note", "one/b"]
    assert sorted(names(report)[1]) == ["many", "one/a"]
    with ch5.open(tmp_path / "new.h5") as new:
        assert list(new["one"].lost) == ["a"]
        assert new["one"]["b"] == "text"
        assert new["one"].data_id == {"visit": 1}
        assert list(new.lost) == ["many"]
    assert ch5.verify_files(tmp_path / "new.h5").problems == ()


def test_a_nested_composite_of_which_nothing_is_good_is_lost(tmp_path: Path) -> None:
    inner = ch5.Composite(a=np.random.default_rng(1).normal(size=(100, 100)))
    ch5.Composite(one=inner, note="x").write(tmp_path / "bad.h5")
    flip_chunk(tmp_path / "bad.h5", "composite/one/a", 0)
    assert names(ch5.rescue(tmp_path / "bad.h5", tmp_path / "new.h5")) == (["note"], ["one/a", "one"])
    with ch5.open(tmp_path / "new.h5") as new:
        assert list(new.lost) == ["one"]


def test_of_several_composites_each_is_saved_and_links_between_them_stay(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).normal(size=(100, 100))
    composites = {f"c{i}": ch5.Composite(shared=pixels, own=f"number {i}", data_id={"visit": i}) for i in range(3)}
    ch5.write_file(tmp_path / "bad.h5", composites, share=True)
    flip(tmp_path / "bad.h5", _group_header(tmp_path / "bad.h5", "c2"))
    report = ch5.rescue(tmp_path / "bad.h5", tmp_path / "new.h5")
    assert [(item.composite, item.component) for item in report.lost] == [("c2", "")]
    assert report.saved == ("c0/shared", "c0/own", "c1/shared", "c1/own")
    (tmp_path / "bad.h5").unlink()
    (tmp_path / "new.h5").rename(tmp_path / "moved.h5")
    with ch5.open(tmp_path / "moved.h5", "c1") as new:
        np.testing.assert_array_equal(new["shared"], pixels)
    assert ch5.verify_files(tmp_path / "moved.h5").problems == ()


def _group_header(path: Path, name: str) -> int:
    with h5py.File(path) as file:
        return int(h5py.h5o.get_info(file[name].id).addr) + 40


def test_what_h5copy_copied_is_saved(bad: Path, tmp_path: Path) -> None:
    assert tool("h5copy", "-i", bad, "-o", tmp_path / "copy.h5", "-s", "/composite", "-d", "/it").returncode == 0
    flip_chunk(tmp_path / "copy.h5", "it/image", 0)
    report = ch5.rescue(tmp_path / "copy.h5", tmp_path / "new.h5")
    assert [item.component for item in report.lost] == ["image"]
    with ch5.open(bad) as old, ch5.open(tmp_path / "new.h5") as new:
        assert_equal(new, old, ["mask", "variance", "wcs", "psf"])


def test_a_file_can_be_rescued_again(bad: Path, tmp_path: Path) -> None:
    flip_chunk(bad, "composite/image", 0)
    ch5.rescue(bad, tmp_path / "first.h5", partial=True)
    flip_chunk(tmp_path / "first.h5", "composite/variance", 0)
    flip(tmp_path / "first.h5", header(tmp_path / "first.h5", "wcs"))
    ch5.rescue(tmp_path / "first.h5", tmp_path / "second.h5", partial=True)
    with ch5.open(tmp_path / "second.h5") as new:
        assert list(new.lost) == ["wcs"]
        assert sorted(new.provenance["rescued"]["partial"]) == ["image", "variance"]
        assert new.provenance["rescued"]["source"] == "first.h5"


# ---- Where it can't be done ---------------------------------------------------------------------------------


def test_nothing_is_replaced_unless_that_is_asked_for(bad: Path, tmp_path: Path) -> None:
    (tmp_path / "there.h5").write_text("mine")
    with pytest.raises(errors.ConflictError, match="is there already"):
        ch5.rescue(bad, tmp_path / "there.h5")
    assert (tmp_path / "there.h5").read_text() == "mine"
    (tmp_path / "link.h5").symlink_to(bad)
    for target in (bad, tmp_path / "link.h5"):
        with pytest.raises(errors.ConflictError, match="the damaged file itself"):
            ch5.rescue(bad, target, replace=True)
    ch5.rescue(bad, tmp_path / "there.h5", replace=True)
    assert ch5.verify_files(tmp_path / "there.h5").problems == ()


def test_a_newer_file_is_not_rescued(bad: Path, tmp_path: Path) -> None:
    _attr("/", "min_reader", 99)(bad)
    with pytest.raises(errors.UnsupportedVersionError):
        ch5.rescue(bad, tmp_path / "new.h5")


# ---- The pieces of it ---------------------------------------------------------------------------------------


def test_the_superblock_is_that_of_hdf5(whole: Path) -> None:
    data = whole.read_bytes()
    assert superblock(len(data)) == data[:48]
    # The values that its author gives.
    assert lookup3(b"Four score and seven years ago") == 0x17770551
    assert lookup3(b"") == 0xDEADBEEF


@pytest.mark.parametrize("lost", [{0}, {0, 1, 2}, {0, 3}, {1, 4, 5}, set(range(6)), set()])
def test_boxes_put_together_cover_the_same(lost: set[int]) -> None:
    boxes: list[Box] = [((y, y + 2), (x, x + 3)) for y in (0, 2) for x in (0, 3, 6)]
    found = joined({box: str(i) for i, box in enumerate(boxes) if i in lost})
    covered = np.zeros((4, 9), int)
    for box in found:
        covered[tuple(slice(*limits) for limits in box)] += 1
    expected = np.zeros((4, 9), int)
    for i in lost:
        expected[tuple(slice(*limits) for limits in boxes[i])] = 1
    np.testing.assert_array_equal(covered, expected)
    assert sorted(text for reasons in found.values() for text in reasons) == sorted(map(str, lost))
    assert len(found) <= max(1, len(lost) - 1) or len(lost) < 3


# ---- The command line ---------------------------------------------------------------------------------------


def test_verify_tells_the_extent_and_what_can_be_rescued(
    bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip_chunk(bad, "composite/image", 4)
    assert main(["verify", "--json", str(bad)]) == 1
    out = capsys.readouterr().out
    report = json.loads(out[out.index("{") :])
    (problem,) = report["problems"]
    assert [(part["path"], part["box"]) for part in problem["extents"]] == [
        ("/composite/image", [[256, 512], [256, 512]])
    ]
    assert report["rescuable"] == {str(bad): [f"composite/{name}" for name in ALL if name != "image"]}
    cut(lambda path: chunk(path, "composite/mask", 0)[0])(bad)
    assert main(["verify", str(bad)]) == 1
    out = capsys.readouterr().out
    assert "cut off" in out
    assert "damaged: /composite/mask[0:600, 0:700]" in out
    assert "still good: composite/wcs, composite/psf, composite/visit_info" in out


def test_rescue_on_the_command_line(bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rescue", str(bad), str(tmp_path / "a.h5")]) == 0
    flip_chunk(bad, "composite/image", 0)
    assert main(["rescue", str(bad), str(tmp_path / "a.h5")]) == 2
    assert main(["rescue", str(bad), str(tmp_path / "a.h5"), "--force"]) == 1
    assert "lost   composite/image" in capsys.readouterr().out
    assert main(["rescue", str(bad), str(tmp_path / "b.h5"), "--partial", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert "NaN" in report["lost"][0]["kept"]
    assert main(["rescue", str(tmp_path / "nowhere.h5"), str(tmp_path / "c.h5")]) == 2


def test_other_software_reads_what_was_saved(bad: Path, tmp_path: Path) -> None:
    flip_chunk(bad, "composite/image", 0)
    ch5.rescue(bad, tmp_path / "new.h5", partial=True)
    listed: subprocess.CompletedProcess[str] = tool("h5ls", "-r", "-E", tmp_path / "new.h5")
    assert listed.returncode == 0
    assert "/composite/image         Dataset {600, 700}" in listed.stdout
    with h5py.File(tmp_path / "new.h5") as file:
        assert np.isnan(file["composite/image"][:256, :256]).all()


def test_files_are_closed(bad: Path, tmp_path: Path) -> None:
    flip_chunk(bad, "composite/image", 0)
    ch5.rescue(bad, tmp_path / "new.h5")
    cut(lambda path: 900)(bad)
    with pytest.raises(errors.CorruptFileError):
        ch5.rescue(bad, tmp_path / "other.h5")
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    open_files = [os.readlink(link) for link in links if os.path.lexists(link)]
    assert not [name for name in open_files if str(tmp_path) in name]
    assert not [file for file in StoredFile._open_files.values() if str(tmp_path) in file.name]


# ---- In a process of its own --------------------------------------------------------------------------------


def _chunks(path: Path) -> None:
    for number in (0, 1, 5):
        flip_chunk(path, "composite/image", number)
    flip_chunk(path, "composite/mask", 2)


def _outcome(source: Path, target: Path, *, isolated: bool) -> tuple[object, ...]:
    """Return what verify and rescue find, in whatever words, and the digests of what is saved."""

    def places(extents: Iterable[Extent]) -> list[tuple[str, object]]:
        return [(extent.path, extent.box) for extent in extents]

    verification = ch5.verify_files(source, isolated=isolated)
    problems = [(item.composite, item.component, item.finding, places(item.extents)) for item in verification.problems]
    try:
        report = ch5.rescue(source, target, partial=True, replace=True, isolated=isolated)
    except errors.CompositeH5Error as error:
        return problems, verification.rescuable, type(error)
    lost = [(item.composite, item.component, places(item.extents), item.kept) for item in report.lost]
    with ch5.open(target) as new:
        digests = {name: new.component_digest(name) for name in new}
        return problems, verification.rescuable, report.damage, report.saved, lost, new.id, digests


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
@pytest.mark.parametrize(
    "damage",
    [
        *(pytest.param(case[0], id=name) for name, case in WHOLE_FILE.items()),
        *(pytest.param(case, id=name) for name, case in NOTHING.items()),
        *(pytest.param(case[0], id=name) for name, case in EDITS.items()),
        pytest.param(_chunks, id="chunks"),
        pytest.param(lambda path: flip(path, header(path, "psf")), id="header"),
        pytest.param(lambda path: None, id="nothing"),
    ],
)
def test_isolated_it_is_the_same(bad: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(bad)
    plain = _outcome(bad, tmp_path / "new.h5", isolated=False)
    assert _outcome(bad, tmp_path / "new.h5", isolated=True) == plain


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
def test_what_asks_its_process_for_too_much_is_told_and_the_others_are_verified(bad: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.h5"
    ch5.Composite(None, text="x").write(small)
    # The address space of the process, and so what HDF5 may do with the larger one.
    limits = ch5.Limits(memory=100 * 2**20, seconds=20)
    huge = ch5.Composite(None, text="x" * 30_000_000)
    huge.write(bad, replace=True)
    done = ch5.verify_files(tmp_path, isolated=True, limits=limits)
    assert [(problem.path, problem.finding) for problem in done.problems] == [(str(bad), "unread")]
    assert "process" in done.problems[0].detail
    assert done.visited.files == 3
    with pytest.raises(errors.CorruptFileError, match="process"):
        ch5.rescue(bad, tmp_path / "new.h5", isolated=True, limits=limits)
    assert not (tmp_path / "new.h5").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
def test_isolated_on_the_command_line(bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (["ls"], ["info"], ["verify"], ["get", "--json"]):
        said = []
        for more in ([], ["--isolated"]):
            component = ["visit_info"] if verb[0] == "get" else []
            assert main([verb[0], str(bad), *component, *verb[1:], *more]) == 0
            said.append(capsys.readouterr().out)
        assert said[0] == said[1]
    _chunks(bad)
    assert main(["rescue", str(bad), str(tmp_path / "a.h5"), "--isolated"]) == 1
