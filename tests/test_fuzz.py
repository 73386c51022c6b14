"""Mutants of the sample files are refused or do no harm. ``benchmarks/fuzz.py`` tries many more."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import parser_fuzz
import pytest
from hypothesis import HealthCheck, settings
from mutants import Mutator, lookup3, structures
from support import benchmark

import compositeh5 as ch5
from compositeh5 import errors, kinds
from compositeh5.composite.session import current
from compositeh5.storage.nodes import Group
from compositeh5.storage.source import BlockSource, FileSource

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
    tally = fuzz.fuzz(SAMPLES / f"{sample}.h5", 25, True)
    # That HDF5 itself may crash is said in the threat model.
    assert not tally.counts.keys() - {"refused", "harmless", "told by verify", "crash"}, tally.found
    assert tally.counts["refused"] > 8


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


@pytest.mark.parametrize("name", parser_fuzz.PROPERTIES)
def test_what_strangers_write_is_a_value_or_an_error_of_ours(name: str) -> None:
    few = settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    few(parser_fuzz.PROPERTIES[name])()


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
    assert isinstance(node, Group)
    child = node.children["x"]
    child.attrs = {**child.attrs, attribute: np.array([1, 2])}
    with pytest.raises(errors.FormatError, match=attribute):
        kinds.decode(node)
