"""Files of each released version of the format are read for ever: samples, kept as they were written then."""

from __future__ import annotations

import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import sample_contents
from typed_values import assert_same

import compositeh5 as ch5
from compositeh5 import kinds
from compositeh5.comparison import diff
from compositeh5.composite.opening import file_info
from compositeh5.errors import FormatError, UnsupportedVersionError
from compositeh5.kinds import astropy_values, values
from compositeh5.storage.digests import digest
from compositeh5.storage.layout import FORMAT
from compositeh5.trees.verify import verify_files

SAMPLES = Path(__file__).parent / "samples"
VERSIONS = sorted(
    (folder.name for folder in SAMPLES.iterdir() if folder.is_dir()), key=lambda name: [int(n) for n in name.split(".")]
)


@pytest.fixture(params=VERSIONS)
def samples(request: pytest.FixtureRequest) -> Path:
    return SAMPLES / str(request.param)


def test_there_are_samples_of_the_first_and_the_present_version() -> None:
    assert (VERSIONS[0], VERSIONS[-1]) == ("1.0", FORMAT)


def test_the_samples_are_those_that_were_written_then() -> None:
    """A file that is written anew proves nothing: samples of a new version get a folder, and lines there, instead."""
    listed = dict(reversed(line.split()) for line in (SAMPLES / "SHA256SUMS").read_text().splitlines())
    found = {
        path.relative_to(SAMPLES).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in SAMPLES.rglob("*.h5")
    }
    assert found == listed


def test_they_have_each_kind_and_each_type(samples: Path) -> None:
    names: set[str] = set()
    types: set[str] = set()

    def collect(name: str, node: h5py.Group | h5py.Dataset) -> None:
        names.update([node.attrs["kind"].decode()] if "kind" in node.attrs else [])
        types.update([node.attrs["type"].decode()] if "type" in node.attrs else [])

    with h5py.File(samples / "kinds.h5") as file:
        file.visititems(collect)
    if samples.name == FORMAT:
        assert names == kinds.names()
        assert types == {"record", *values.DECODERS, *astropy_values.DECODERS}


def test_they_are_whole_and_their_links_lead_to_each_other(samples: Path) -> None:
    report = verify_files(samples)
    assert report.problems == ()
    assert {file_info(path).format for path in samples.glob("*.h5")} == {samples.name}


def test_each_component_is_what_was_written(samples: Path) -> None:
    expected = sample_contents.kinds()
    with ch5.open(samples / "kinds.h5") as composite:
        for name in composite:
            one, other = (kinds.encode(c[name], composite.kind(name)) for c in (composite, expected))
            assert digest(one) == digest(other), name
        for name in ("data_id", "dataset_type", "run", "stage", "provenance", "absent", "definition"):
            assert getattr(composite, name) == getattr(expected, name)
        assert_same(composite["record"].to_dict(), ch5.Record(sample_contents.values()).to_dict())
        inner = composite["composite"]
        assert (inner.stage, inner.absent, inner["x"].tolist()) == ("inner", ("absent",), [0, 1, 2])


def test_parts_of_components_are_read(samples: Path) -> None:
    with ch5.open(samples / "kinds.h5") as composite:
        box = ch5.Box(1010, 1030, 2050, 2100)
        assert (composite.read("image", box=box).array == sample_contents.image().cut(box).array).all()
        assert composite.read("table", columns=["ra/dec", "time"], rows=slice(1, 3))["ra/dec"][0].ra.deg == 2
        assert composite.read("record", fields=["tuple"])["tuple"] == (1, None)


def test_links_overlays_and_copies_give_the_same(samples: Path) -> None:
    with ch5.open(samples / "exposure.h5") as base, ch5.open(samples / "overlay.h5") as overlay:
        assert base.absent == ("detector",)
        assert base["visit_info"] == ch5.Record(sample_contents.values())
        assert overlay.component_stage("wcs") == "jointcal"
        assert overlay.component_stage("image") == "single_frame"
        assert overlay.versions("wcs") == ("jointcal", "single_frame")
        assert overlay.data_id["tract"] == 9813
        before = overlay.read_version("wcs", "single_frame")
        assert digest(kinds.encode(before)) == digest(kinds.encode(base["wcs"]))
    assert diff(samples / "overlay.h5", samples / "flat.h5").identical
    with ch5.open(samples / "list.h5") as composite:
        assert [wcs.wcs.crval[0] for wcs in composite["wcss"]] == [150.1, 10]
    with ch5.open(samples / "several.h5", "r") as composite:
        assert (composite["x"], composite.data_id["band"]) == ("r", "r")


# ---- Other versions -----------------------------------------------------------------------------------------


def set_version(path: Path, version: str, min_reader: int = 1) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["compositeh5_format"] = np.bytes_(version.encode())
        file.attrs["min_reader"] = np.int64(min_reader)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    ch5.Composite(None, x=np.arange(3), y="text").write(tmp_path / "a.h5")
    return tmp_path / "a.h5"


def test_later_minor_versions_are_read(small: Path) -> None:
    set_version(small, "1.7")
    with ch5.open(small) as composite:
        assert composite["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("version", "min_reader", "error", "message"),
    [
        ("0.9", 1, UnsupportedVersionError, r"format 0\.9 is older than 1\.0"),
        ("2.0", 2, UnsupportedVersionError, r"format 2\.0 needs reader version 2.* install"),
        ("new", 1, FormatError, r"major\.minor"),
    ],
)
def test_other_versions_are_refused(
    small: Path, version: str, min_reader: int, error: type[Exception], message: str
) -> None:
    set_version(small, version, min_reader)
    with pytest.raises(error, match=message):
        ch5.open(small)


def test_newer_versions_of_a_kind_are_refused_and_others_read(small: Path) -> None:
    with h5py.File(small, "r+") as file:
        file["composite/x"].attrs["kind_version"] = np.int64(2)
    with ch5.open(small) as composite:
        assert composite["y"] == "text"
        with pytest.raises(UnsupportedVersionError, match="version 2 of kind 'array'"):
            composite["x"]
