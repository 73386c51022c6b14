"""A short form of each campaign; ``python tests/stress`` runs the long ones."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import parsers
import pytest
from checksums import lookup3, structures
from concurrency import BAD, butler, replacement, visits
from damage import (
    SAMPLES,
    SIGNED,
    content,
    damage,
    damage_table,
    damaged,
    damages,
    examine,
    files,
    other_software,
    write_large,
)
from disk import Disk, Event
from faults import OPERATIONS, faults, faults_table
from processes import judged
from reporting import Table
from soak import DETECTORS, Soak, prepared

import compositeh5 as ch5
from compositeh5 import errors, kinds
from compositeh5.composite.session import current
from compositeh5.storage.source import BlockSource, FileSource

# ---- Damage -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def damage_counts(tmp_path_factory: pytest.TempPathFactory) -> Table:
    table, folder = damage_table(), tmp_path_factory.mktemp("damage")
    damage(table, folder, 0, 3, only=["large"])
    damage(table, folder, 0, 1, only=["list", "overlay"])
    other_software(table, folder)
    return table


def test_damage_is_noticed_or_does_no_harm(damage_counts: Table) -> None:
    assert not damage_counts.found
    for (name, sort), counts in damage_counts.rows.items():
        if sort == "bytes appended":
            assert counts.keys() <= {"harmless", "all"}
        elif name in ("large", "list", "overlay") and sort != SIGNED:
            assert counts.keys() <= {"refused", "harmless"}, sort
        if name == "large" and sort != "bytes appended" and sort != SIGNED:
            assert counts["refused"] > 0.4 * counts.total(), sort


def test_what_is_rescued_is_most_of_it(damage_counts: Table) -> None:
    rescued = {sort: counts for (name, sort), counts in damage_counts.rows.items() if name == "rescue"}
    # HDF5 opens no file that was cut off.
    assert rescued["truncated"].keys() == {"nothing"}
    assert rescued["bit flips, pixels"].keys() == {"some"}


def test_changes_by_other_software_are_told(damage_counts: Table) -> None:
    edited = {sort: counts for (name, sort), counts in damage_counts.rows.items() if name == "h5py r+"}
    assert len(edited) == 9
    for sort, counts in edited.items():
        assert counts.keys() <= {"refused", "told by verify"}
        if sort in ("a dataset deleted", "a dataset renamed"):
            assert counts.keys() == {"refused"}
    for (name, _), counts in damage_counts.rows.items():
        assert name != "h5repack" or counts.keys() == {"harmless"}


def test_damage_of_what_a_link_would_need_is_found_by_verify(tmp_path: Path) -> None:
    """The group of ids isn't read without a link to follow: its damage changes no value."""
    path = tmp_path / "x.h5"
    ch5.Composite(None, image=np.arange(100.0).reshape(10, 10)).write(path)
    with h5py.File(path) as file:
        address = h5py.h5o.get_info(file["by-id"].id).addr
    good = path.read_bytes()
    for position in range(address, address + 40, 3):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x10]) + good[position + 1 :])
        with ch5.open(path) as c:
            assert c["image"][9, 9] == 99
        assert ch5.trees.verify_files(path).problems


def test_another_file_of_other_values_would_be_silent(tmp_path: Path) -> None:
    path = tmp_path / "large.h5"
    write_large(path)
    expected = content(path)
    assert examine(path, expected) == ("harmless", "")
    write_large(path, seed=2)
    assert examine(path, expected)[0] == "silent"


@pytest.mark.parametrize("outcome", ["hang", "crash"])
def test_the_harness_outlives_those_that_die(outcome: str) -> None:
    """Also in the middle of a batch, of which the others are counted."""

    def judge(number: int) -> tuple[str, str]:
        if number == 2:
            signal.pause() if outcome == "hang" else os.kill(os.getpid(), signal.SIGKILL)
        return "harmless", ""

    assert [found for _, found, _ in judged(5, judge, 1)] == ["harmless", "harmless", outcome, "harmless", "harmless"]


def test_checksums_are_those_of_hdf5(tmp_path: Path) -> None:
    # The examples of its author.
    assert lookup3(b"") == 0xDEADBEEF
    assert lookup3(b"Four score and seven years ago") == 0x17770551
    data = (SAMPLES / "kinds.h5").read_bytes()
    found = {data[structure.start : structure.start + 4] for structure in structures(data)}
    assert found >= {b"\x89HDF", b"OHDR", b"OCHK", b"FRHP", b"FHDB", b"BTHD", b"BTLF"}
    path = files(tmp_path)["several"]
    good = path.read_bytes()
    changed = damaged(good, SIGNED, damages(path)[SIGNED], 3)
    assert changed != good
    assert all(structure.is_signed(changed) for structure in structures(good))


# ---- What strangers write -----------------------------------------------------------------------------------


def test_what_strangers_write_is_a_value_or_an_error_of_ours(tmp_path: Path) -> None:
    parsers.parsers(table := parsers.parsers_table(), tmp_path, 0, examples=10)
    assert not table.found
    assert {name for (name,) in table.rows} == {*parsers.PROPERTIES}


@pytest.mark.parametrize("place", ["x://[", "a\0b", "\ud800", "x\0://y/z"])
def test_what_is_no_place_at_all(tmp_path: Path, place: str) -> None:
    """Found by fuzzing: each was a `ValueError`, in a link's record too."""
    with pytest.raises(FileNotFoundError, match="neither a path nor a URL"):
        ch5.open(place)
    link = ch5.Link("7280c70e-0000-5000-8000-000000000000", "x", "array", "sha256:0", place)
    with pytest.raises(errors.BrokenLinkError, match="neither a path nor a URL"):
        current().find(link, str(tmp_path / "a.h5"), place)


@pytest.mark.parametrize("attribute", ["kind", "kind_version"])
def test_an_attribute_that_should_be_text_is_an_array(attribute: str) -> None:
    """Found by fuzzing: comparing it with a text was an error of numpy."""
    node = kinds.encode(ch5.Composite(None, x=ch5.Record({"a": 1})))
    child = node.children["x"]
    child.attrs = {**child.attrs, attribute: np.array([1, 2])}
    with pytest.raises(errors.FormatError, match=attribute):
        kinds.decode(node)


def test_what_is_outside_of_the_file_is_zeros(tmp_path: Path) -> None:
    """Found by fuzzing: an address that can't be an offset in any file was an `OverflowError`."""
    path = tmp_path / "x.h5"
    path.write_bytes(b"abc")
    for source in (FileSource(str(path)), BlockSource(lambda offset, size: b"abc"[offset : offset + size], "x", 3)):
        for offset, expected in ((1, b"bc\0\0"), (3, bytes(4)), (2**63 + 8, bytes(4))):
            buffer = bytearray(b"????")
            source.seek(offset)
            assert source.readinto(memoryview(buffer)) == max(0, 3 - offset)
            assert buffer == expected
        source.close()


# ---- Faults -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPERATIONS)
def test_faults_while_writing(tmp_path: Path, name: str) -> None:
    if name.startswith("Butler"):
        pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")
    calls, moments = {"write": (8, 3), "replace": (4, 2), "Butler: put_visit": (1, 0)}.get(name, (1, 1))
    faults(table := faults_table(), tmp_path.resolve(), 1, [name], calls, moments)
    assert not table.found
    assert sum(counts.total() for counts in table.rows.values()) >= calls


def test_the_model_loses_what_was_not_forced(tmp_path: Path) -> None:
    root, left = tmp_path / "root", tmp_path / "left"
    root.mkdir()
    path, new = str(root / "x"), b"new" * 3000
    events = [
        Event("create", path),
        Event("write", path, data=new),
        Event("sync", path),
        Event("rename", path, other=f"{root}/y"),
        Event("write", f"{root}/y", data=b"?"),
        Event("sync", str(root)),
    ]
    disk = Disk(root)
    disk.replay(events)
    rng = random.Random(1)

    def found(at: int) -> set[tuple[tuple[str, bytes], ...]]:
        states = set()
        for _ in range(60):
            disk.cut(left, at, rng)
            states.add(tuple((file.name, file.read_bytes()) for file in sorted(left.iterdir())))
        return states

    # Without its name no file; with it, before it is forced, any size and any pages.
    assert (()) in found(2)
    assert len(found(2)) > 2
    assert found(3) == {(), (("x", new),)}
    assert found(4) == {(), (("x", new),), (("y", new),)}
    assert found(6) == {(("y", new),), (("y", b"?" + new[1:]),)}


# ---- Many at once -------------------------------------------------------------------------------------------


def not_right(counts: Counter[str]) -> dict[str, int]:
    return {what: count for what, count in counts.items() if what in BAD and count}


def test_workers_of_visits(tmp_path: Path) -> None:
    counts = visits(tmp_path, 6, 2, random.Random(3))
    assert not not_right(counts)
    assert counts["visit files"] == 2
    assert counts["told of a conflict"] > 0
    assert counts["told of a conflict"] + counts["CCD files"] == 12
    assert counts["reads"] >= 6


def test_readers_while_a_file_is_replaced(tmp_path: Path) -> None:
    counts = replacement(tmp_path, 8)
    assert not not_right(counts)
    assert counts["reads"] >= 3


def test_workers_of_one_butler(tmp_path: Path) -> None:
    pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")
    counts = butler(tmp_path, 3, random.Random(2), workers=3, detectors=1)
    assert not not_right(counts)
    assert (counts["visit files"], counts["CCD files"]) == (3, 3)


def test_soak(tmp_path: Path) -> None:
    pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")
    root, run = prepared(tmp_path)
    report = Soak(root, 0).run(run, 0)
    assert not report.errors
    assert report.rounds == 1
    assert report.gets == 4 * 2 * len(DETECTORS) + 1
