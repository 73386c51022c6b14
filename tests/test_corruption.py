"""Damage is noticed: nothing is silently wrong, hangs or crashes. ``benchmarks/torture.py`` does more of it."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest
from support import benchmark

import compositeh5 as ch5

DAMAGE = [
    "bit flips, whole file",
    "bit flips, metadata",
    "bit flips, pixels",
    "truncated",
    "4 KiB zeroed",
    "bytes appended",
    "4 KiB blocks swapped",
]
EDITS = [
    "a pixel",
    "a tile of pixels",
    "a small array",
    "an attribute of an array",
    "an attribute of a group",
    "a dataset replaced",
    "a dataset deleted",
    "a dataset renamed",
    "a dataset added",
]
REPACKED = ["as it is", "GZIP=9", "SHUF, GZIP", "FLET", "no filters", "contiguous", "other chunks", "latest"]


@pytest.fixture(scope="module")
def torture() -> ModuleType:
    folder = str(Path(__file__).parents[1] / "benchmarks")
    if folder not in sys.path:
        # Where the formats are.
        sys.path.append(folder)
    return benchmark("torture")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("torture")


@pytest.fixture(scope="module")
def table(torture: ModuleType, folder: Path) -> dict[str, Counter[str]]:
    return torture.torture(folder, torture.OURS, 60, 30, 20)


@pytest.fixture(scope="module")
def saved(torture: ModuleType, folder: Path) -> dict[str, Counter[str]]:
    return torture.rescued(folder, 12, 12, 20)


@pytest.fixture(scope="module")
def edited(torture: ModuleType, folder: Path) -> dict[str, list[str]]:
    return torture.edited(folder, [torture.OURS, torture.VERIFIED, "h5py, contiguous"], 20)


@pytest.mark.parametrize("damage", DAMAGE)
def test_nothing_is_silently_wrong(table: dict[str, Counter[str]], damage: str) -> None:
    counts = table[damage]
    assert sum(counts.values()) > 0
    assert {what: counts[what] for what in ("silent", "hang", "crash")} == {"silent": 0, "hang": 0, "crash": 0}


@pytest.mark.parametrize("damage", sorted(set(DAMAGE) - {"bytes appended"}))
def test_it_is_detected(table: dict[str, Counter[str]], damage: str) -> None:
    counts = table[damage]
    assert counts["detected"] > 0.8 * sum(counts.values())


def test_bytes_after_the_end_do_no_harm(table: dict[str, Counter[str]]) -> None:
    assert table["bytes appended"].keys() == {"harmless"}


def test_damage_of_what_a_link_would_need_is_found_by_verify(tmp_path: Path) -> None:
    """The group of ids isn't read without a link to follow: its damage changes no value."""
    path = tmp_path / "x.h5"
    ch5.Composite(None, image=np.arange(100.0).reshape(10, 10)).write(path)
    with h5py.File(path) as file:
        address = h5py.h5o.get_info(file["by-id"].id).addr
    content = path.read_bytes()
    for position in range(address, address + 40):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        with ch5.open(path) as c:
            assert c["image"][9, 9] == 99
        assert ch5.trees.verify_files(path).problems


def test_the_harness_sees_what_others_do_not_notice(torture: ModuleType, folder: Path) -> None:
    counts = torture.torture(folder, "h5py, contiguous", 20, 10, 20)
    assert counts["bit flips, pixels"] == {"silent": 20}
    assert counts["truncated"] == {"detected": 10}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_rescued_is_right(saved: dict[str, Counter[str]], damage: str) -> None:
    counts = saved[damage]
    assert {what: counts[what] for what in ("silent", "hang", "crash")} == {"silent": 0, "hang": 0, "crash": 0}
    if damage == "truncated":
        # HDF5 opens none.
        assert counts.keys() == {"nothing"}
    else:
        # Only the headers of the groups are all that leads to the rest.
        assert counts["all"] + counts["some"] >= 0.6 * sum(counts.values())


@pytest.mark.parametrize("change", EDITS)
def test_changes_by_h5py_are_found_by_verify(edited: dict[str, list[str]], change: str) -> None:
    assert edited[f"h5py r+: {change}"][1] == "detected"


@pytest.mark.parametrize("change", ["a dataset replaced", "a dataset deleted", "a dataset renamed"])
def test_changes_of_what_there_is_are_noticed_by_reading(edited: dict[str, list[str]], change: str) -> None:
    assert edited[f"h5py r+: {change}"][0] == "detected"


@pytest.mark.parametrize("how", REPACKED)
def test_what_h5repack_makes_is_read_and_verifies(edited: dict[str, list[str]], how: str) -> None:
    if shutil.which("h5repack") is None:
        pytest.skip("h5repack isn't installed (Debian package hdf5-tools)")
    assert edited[f"h5repack: {how}"] == ["harmless", "harmless", "harmless"]


@pytest.mark.parametrize("outcome", ["hang", "crash"])
def test_the_harness_outlives_those_that_die(torture: ModuleType, folder: Path, outcome: str) -> None:
    """Also in the middle of a batch, of which the others are counted."""
    deadly = {"hang": lambda: torture.signal.pause(), "crash": lambda: torture.os.kill(torture.os.getpid(), 9)}
    good = folder / "text.h5"
    good.write_text("0")
    cases = [lambda path, n=n: path.write_text(str(n)) for n in range(5)]

    def judged(path: Path) -> str:
        return deadly[outcome]() if path.read_text() == "2" else "harmless"

    found = list(torture.outcomes(cases, good, judged, 1))
    assert found == ["harmless", "harmless", outcome, "harmless", "harmless"]
