"""Mutants of the sample files are refused or do no harm. ``benchmarks/fuzz.py`` tries many more."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from mutants import Mutator, lookup3, structures
from support import benchmark

from compositeh5.container.source import BlockSource, FileSource

SAMPLES = Path(__file__).parent / "samples" / "1.0"


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    return benchmark("fuzz")


@pytest.mark.parametrize("sample", ["exposure", "list", "several"])
def test_a_mutant_is_refused_or_does_no_harm(fuzz: ModuleType, sample: str) -> None:
    tally = fuzz.fuzz(SAMPLES / f"{sample}.h5", 100, False)
    assert tally.counts.keys() == {"refused", "harmless"}, tally.found
    assert tally.counts["refused"] > 80


@pytest.mark.parametrize("sample", ["exposure", "overlay"])
def test_what_has_right_checksums_gives_no_error_that_is_not_ours(fuzz: ModuleType, sample: str) -> None:
    tally = fuzz.fuzz(SAMPLES / f"{sample}.h5", 50, True)
    # That HDF5 itself may crash is said in the threat model.
    assert not tally.counts.keys() - {"refused", "harmless", "told by verify", "crash"}, tally.found
    assert tally.counts["refused"] > 20


def test_checksums_are_those_of_hdf5() -> None:
    # The examples of its author.
    assert lookup3(b"") == 0xDEADBEEF
    assert lookup3(b"Four score and seven years ago") == 0x17770551
    data = (SAMPLES / "kinds.h5").read_bytes()
    found = {data[structure.start : structure.start + 4] for structure in structures(data)}
    assert found >= {b"\x89HDF", b"OHDR", b"OCHK", b"FRHP", b"FHDB", b"BTHD", b"BTLF"}


def test_a_mutant_has_right_checksums_where_it_should() -> None:
    data = (SAMPLES / "several.h5").read_bytes()
    mutant = Mutator(data).mutant(3, True)
    assert mutant != data
    assert len(mutant) == len(data)
    assert all(structure.is_signed(mutant) for structure in structures(data))


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
