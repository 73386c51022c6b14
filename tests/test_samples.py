"""Files of each released version of the format are read for ever: samples, kept as they were written then."""

from __future__ import annotations

import hashlib
from pathlib import Path

import h5py
import pytest
import sample_contents
from typed_values import assert_same

import compositeh5 as ch5
from compositeh5.container.layout import FIRST, FORMAT, version_number
from compositeh5.kinds import BUILTIN, _astropy_values, _values
from compositeh5.opening import file_info
from compositeh5.operations.diff import diff, diff_values
from compositeh5.operations.migrate import migrate
from compositeh5.operations.verify import verify_files

SAMPLES = Path(__file__).parent / "samples"
VERSIONS = sorted((folder.name for folder in SAMPLES.iterdir() if folder.is_dir()), key=version_number)


@pytest.fixture(params=VERSIONS)
def samples(request: pytest.FixtureRequest) -> Path:
    return SAMPLES / str(request.param)


def test_there_are_samples_of_the_first_and_the_present_version() -> None:
    assert (VERSIONS[0], VERSIONS[-1]) == (FIRST, FORMAT)


def test_the_samples_are_those_that_were_written_then() -> None:
    """A file that is written anew proves nothing: samples of a new version get a folder, and lines there, instead."""
    listed = dict(reversed(line.split()) for line in (SAMPLES / "SHA256SUMS").read_text().splitlines())
    found = {
        path.relative_to(SAMPLES).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in SAMPLES.rglob("*.h5")
    }
    assert found == listed


def test_they_have_each_kind_and_each_type(samples: Path) -> None:
    kinds: set[str] = set()
    types: set[str] = set()

    def collect(name: str, node: h5py.Group | h5py.Dataset) -> None:
        kinds.update([node.attrs["kind"].decode()] if "kind" in node.attrs else [])
        types.update([node.attrs["type"].decode()] if "type" in node.attrs else [])

    with h5py.File(samples / "kinds.h5") as file:
        file.visititems(collect)
    if samples.name == FORMAT:
        assert kinds == set(BUILTIN)
        assert types == {*_values._DECODERS, *_astropy_values.DECODERS}


def test_they_are_whole_and_their_links_lead_to_each_other(samples: Path) -> None:
    report = verify_files(samples)
    assert report.problems == ()
    assert {file_info(path).format for path in samples.glob("*.h5")} == {samples.name}


def test_each_component_is_what_was_written(samples: Path) -> None:
    expected = sample_contents.kinds()
    with ch5.open(samples / "kinds.h5") as composite:
        for name in composite:
            assert diff_values(composite.kind(name), composite[name], expected[name]) == (), name
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
        assert diff_values("wcs", overlay.read_version("wcs", "single_frame"), base["wcs"]) == ()
    assert diff(samples / "overlay.h5", samples / "flat.h5").identical
    with ch5.open(samples / "list.h5") as composite:
        assert [wcs.wcs.crval[0] for wcs in composite["wcss"]] == [150.1, 10]
    with ch5.open(samples / "several.h5", "r") as composite:
        assert (composite["x"], composite.data_id["band"]) == ("r", "r")


def test_they_are_migrated_unless_they_are_of_the_present_version(samples: Path, tmp_path: Path) -> None:
    for done in migrate([samples], output=tmp_path):
        assert not done.problem
        assert bool(done.target) == (samples.name != FORMAT)
        if done.target:
            assert diff(done.path, done.target).identical
