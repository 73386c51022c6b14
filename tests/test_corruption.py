"""Damage is noticed: nothing is silently wrong, hangs or crashes. ``benchmarks/torture.py`` does more of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

TORTURE = Path(__file__).parents[1] / "benchmarks" / "torture.py"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    spec = importlib.util.spec_from_file_location("torture", TORTURE)
    assert spec is not None
    assert spec.loader is not None
    torture = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(torture)
    return torture.torture(tmp_path_factory.mktemp("torture"), 60, 30, 20)


DAMAGE = [
    "bit flips, whole file",
    "bit flips, metadata",
    "bit flips, pixels",
    "truncated",
    "4 KiB zeroed",
    "bytes appended",
    "4 KiB blocks swapped",
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_nothing_is_silently_wrong(table: dict[str, dict[str, int]], damage: str) -> None:
    counts = table[damage]
    assert sum(counts.values()) > 0
    assert {what: counts[what] for what in ("silent", "hang", "crash")} == {"silent": 0, "hang": 0, "crash": 0}


@pytest.mark.parametrize("damage", sorted(set(DAMAGE) - {"bytes appended"}))
def test_it_is_detected(table: dict[str, dict[str, int]], damage: str) -> None:
    counts = table[damage]
    assert counts["detected"] > 0.8 * sum(counts.values())


def test_bytes_after_the_end_do_no_harm(table: dict[str, dict[str, int]]) -> None:
    assert table["bytes appended"].keys() == {"harmless"}
