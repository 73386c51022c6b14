"""The command `compositeh5`: what it prints, what it writes, and how it fails."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable, Table
from astropy.wcs import WCS
from support import data_file, exposure, group_of, pixels, simple_wcs, write_visit
from terminal import COMMAND, ENVIRONMENT

import compositeh5 as ch5
from compositeh5.cli import main
from compositeh5.composite.session import current
from compositeh5.storage.layout import file_root
from compositeh5.storage.writer import file_image

TABLE = QTable({"id": np.arange(300), "flux": np.linspace(0, 1, 300) * u.nJy, "name": ["a", "b", "c"] * 100})

Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a verb, and return what it printed, or its error; the other of the two must be empty."""

    def run(*args: object, code: int = 0) -> str:
        capsys.readouterr()
        assert main([*map(str, args)]) == code
        said = capsys.readouterr()
        assert (said.out if code else said.err) == ""
        return said.err if code else said.out

    return run


@pytest.fixture(scope="module")
def ccd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exposure that links to the metadata of its visit."""
    _, (path,) = write_visit(tmp_path_factory.mktemp("files"), ccds=1)
    return path


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog, with components of other kinds."""
    path = tmp_path_factory.mktemp("files") / "catalog.h5"
    composite = ch5.Composite(
        None,
        table=TABLE,
        photo_calib=ch5.PhotoCalib(0.75, 0.01),
        note="two\nlines",
        blob=bytes(range(256)),
        metadata={"threshold": 5.0, "limit": np.nan, "nested": {"gain": 1.5 * u.electron / u.adu}},
        spectrum=np.arange(5.0) * u.nm,
        flags=np.array([True, False]),
        words=np.array(["a", "b"]),
        waves=np.zeros(3, complex),
        masked=np.ma.MaskedArray([1, 2], mask=[True, False]),
        remarks=["first", {"second": 2}],
        provenance={"tool": "\x1b[31mred\x1b[0m"},
    )
    composite.write(path)
    return path


def test_ls_has_one_line_per_component(ccd: Path, run: Run) -> None:
    header, *rows = run("ls", ccd).splitlines()
    assert header.split() == ["component", "kind", "shape", "type", "units", "size", "stored", "stage", "where"]
    lines = {row.split()[0]: row for row in rows}
    assert list(lines) == ["image", "mask", "variance", "wcs", "psf", "visit_info"]
    assert lines["image"].split()[1:9] == ["image", "300", "x", "400", "float32", "nJy", "480.0", "kB"]
    assert lines["image"].split()[-2:] == ["single_frame", "stored"]
    assert lines["visit_info"].endswith("raw           linked -> visit.visit_info")
    found = {info["name"]: info for info in json.loads(run("ls", ccd, "--json"))}
    with ch5.open(ccd) as composite:
        assert {name: info["kind"] for name, info in found.items()} == {n: composite.kind(n) for n in composite}
    assert found["mask"]["shape"] == [300, 400]


def test_info_json_is_what_the_file_says(ccd: Path, tmp_path: Path, run: Run) -> None:
    document = json.loads(run("info", ccd, "--json"))
    with ch5.open(ccd) as composite:
        assert document["file"] == str(ccd)
        assert document["id"] == composite.id
        assert document["digest"] == composite.digest
        assert document["data_id"] == composite.data_id == {"instrument": "DemoCam", "visit": 903334, "detector": 11}
        assert document["links"]["visit_info"]["id"] == composite.links["visit_info"].id
        for name, info in document["components"].items():
            assert info["digest"] == composite.component_digest(name)
            assert info["stored_bytes"] > 0
    assert document["components"].keys() == {"image", "mask", "variance", "wcs", "psf", "visit_info"}
    assert document["components"]["visit_info"]["state"] == "linked"
    exposure((3, 4), photo_calib=None).write(tmp_path / "a.h5")
    document = json.loads(run("info", tmp_path / "a.h5", "--json"))
    assert document["absent"] == ["photo_calib"]
    assert "photo_calib" not in document["components"]


def test_info_for_people(ccd: Path, catalog: Path, run: Run) -> None:
    text = run("info", ccd)
    assert text.startswith(f"{ccd}\n")
    assert "\n  data_id\n    detector    11\n" in text
    assert "\n    image\n      kind          image\n" in text
    assert "\n  links\n    visit_info\n" in text
    # What a file says can't act on the terminal.
    text = run("info", catalog)
    assert "\x1b" not in text
    assert r"\x1b[31mred" in text


def written(run: Run, path: Path, component: str, out: Path) -> Path:
    """Write a component to a file, and return that."""
    run("get", path, component, "-o", out)
    return out


def test_get_pixels(ccd: Path, tmp_path: Path, run: Run) -> None:
    expected = pixels((300, 400))
    lines = dict(line.split(maxsplit=1) for line in run("get", ccd, "image").splitlines())
    facts = {"shape": "[300, 400]", "dtype": "float32", "unit": "nJy", "not_finite": "0"}
    values = {"minimum": expected.min(), "median": np.median(expected), "maximum": expected.max()}
    assert lines == facts | {name: str(float(value)) for name, value in values.items()}
    loaded = np.load(written(run, ccd, "image", tmp_path / "image.npy"))
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, expected)
    with fits.open(written(run, ccd, "image", tmp_path / "image.fits")) as hdus:
        np.testing.assert_array_equal(hdus[0].data, expected)
        assert [hdus[0].header[card] for card in ("BUNIT", "LTV1", "LTV2")] == ["nJy", -200, -100]
    assert "planes.BAD  100\n" in run("get", ccd, "mask")
    with fits.open(written(run, ccd, "mask", tmp_path / "mask.fits")) as hdus:
        assert hdus[0].data.dtype == ">i4"
        assert (hdus[0].data == 1).sum() == 100
        assert (hdus[0].header["MP_BAD"], hdus[0].header["MP_SAT"]) == (0, 1)
    psf = np.load(written(run, ccd, "psf", tmp_path / "psf.npy"))
    np.testing.assert_array_equal(psf, np.ones((1, 5, 5)) / 25)


def test_get_a_wcs_exactly(ccd: Path, tmp_path: Path, run: Run) -> None:
    found = WCS(fits.Header.fromtextfile(written(run, ccd, "wcs", tmp_path / "wcs.hdr")))
    expected = simple_wcs((300, 400))
    np.testing.assert_array_equal(found.wcs.cd, expected.wcs.cd)
    np.testing.assert_array_equal(found.wcs.crval, expected.wcs.crval)
    assert found.pixel_shape == expected.pixel_shape


def test_get_records(ccd: Path, catalog: Path, tmp_path: Path, run: Run) -> None:
    lines = dict(line.split(maxsplit=1) for line in run("get", ccd, "visit_info").splitlines())
    assert lines["exposure_time"] == "30.0 s"
    assert lines["date"] == "2025-03-01T04:05:06.789000000 tai"
    assert lines["weather.temperature"] == "9.5 deg_C"
    for extension, load in ((".json", json.loads), (".yaml", yaml.safe_load)):
        record = load(written(run, ccd, "visit_info", tmp_path / f"info{extension}").read_text())
        assert record["exposure_time"] == {"value": 30.0, "unit": "s"}
        assert record["boresight"]["ra"]["value"] == pytest.approx(150.1, abs=1e-12)
        assert record["observatory"]["height"]["value"] == pytest.approx(2663, abs=1e-6)
        assert record["weather"]["humidity"] is None
        assert record["dithers"] == [1, 2, 3]
    assert json.loads(written(run, catalog, "photo_calib", tmp_path / "calib.json").read_text()) == {
        "mean": 0.75, "error": 0.01, "field": None, "instrumental_unit": "adu"
    }  # fmt: skip
    metadata = json.loads(written(run, catalog, "metadata", tmp_path / "metadata.json").read_text())
    assert metadata == {"threshold": 5.0, "limit": "nan", "nested": {"gain": {"value": 1.5, "unit": "electron / adu"}}}
    assert run("get", catalog, "remarks") == "0         first\n1.second  2\n"


def test_get_a_table(catalog: Path, tmp_path: Path, run: Run) -> None:
    # All of it, since this is no terminal.
    assert len(run("get", catalog, "table").splitlines()) == 3 + 300
    for extension in (".ecsv", ".fits"):
        found = QTable.read(written(run, catalog, "table", tmp_path / f"table{extension}"))
        assert found["flux"].unit == u.nJy
        for name in ("flux", "id", "name"):
            assert list(found[name]) == list(TABLE[name])
    csv = Table.read(written(run, catalog, "table", tmp_path / "table.csv"))
    np.testing.assert_array_equal(csv["flux"], TABLE["flux"].value)


def test_get_text_bytes_and_arrays(catalog: Path, tmp_path: Path, run: Run) -> None:
    assert run("get", catalog, "note") == "two\nlines\n"
    for name, content in (("note", b"two\nlines"), ("blob", bytes(range(256)))):
        assert written(run, catalog, name, tmp_path / name).read_bytes() == content
    lines = [line.split(maxsplit=1) for line in run("get", catalog, "spectrum").splitlines()]
    assert lines[:3] == [["shape", "[5]"], ["dtype", "float64"], ["unit", "nm"]]
    assert lines[4:] == [["minimum", "0.0"], ["median", "2.0"], ["maximum", "4.0"]]


def test_get_bytes_in_a_pipe(catalog: Path) -> None:
    done = subprocess.run([*COMMAND, "get", catalog, "blob"], capture_output=True, check=True, env=ENVIRONMENT)
    assert done.stdout == bytes(range(256))


@pytest.mark.parametrize(
    ("component", "extension", "reason"),
    [
        ("masked", ".npy", "mask"),
        ("flags", ".fits", "no pixels of type bool"),
        ("words", ".fits", "no pixels of type str32"),
        ("waves", ".fits", "no pixels of type complex128"),
    ],
)
def test_get_says_what_a_format_has_no_place_for(
    component: str, extension: str, reason: str, catalog: Path, tmp_path: Path, run: Run
) -> None:
    out = tmp_path / f"a{extension}"
    assert reason in run("get", catalog, component, "-o", out, code=2)
    assert not out.exists()


def test_get_never_overwrites_unless_forced(ccd: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "image.npy"
    out.write_text("precious")
    assert "image.npy" in run("get", ccd, "image", "-o", out, code=2)
    assert out.read_text() == "precious"
    run("get", ccd, "image", "-o", out, "--force")
    assert np.load(out).shape == (300, 400)
    assert os.listdir(tmp_path) == ["image.npy"]


@pytest.fixture(scope="module")
def two_in_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of two composites."""
    path = tmp_path_factory.mktemp("files") / "two.h5"
    composites = {name: ch5.Composite(None, note=f"this is {name}") for name in ("first", "second")}
    nodes = {name: group_of(composite) for name, composite in composites.items()}
    root = file_root({name: (node.attr("id", str), node) for name, node in nodes.items()})
    path.write_bytes(file_image(root))
    return path


def test_one_of_several_composites(two_in_one: Path, run: Run) -> None:
    assert run("get", two_in_one, "note") == "this is first\n"
    assert run("get", f"{two_in_one}::second", "note") == "this is second\n"
    assert run("get", two_in_one, "note", "--name", "second") == "this is second\n"
    document = json.loads(run("info", f"{two_in_one}::second", "--json"))
    assert document["composites"] == ["first", "second"]
    assert document["format"] == "1.0"
    assert document["creator"] == f"compositeh5 {ch5.__version__}"


def test_errors_are_one_line_and_exit_code_2(ccd: Path, two_in_one: Path, tmp_path: Path, run: Run) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not HDF5")
    cases = {
        ("ls", tmp_path / "none.h5"): "none.h5",
        ("ls", tmp_path): "is a directory",
        ("info", text): "not an HDF5 file",
        ("get", ccd, "imag"): "did you mean 'image'",
        ("get", ccd, "image", "-o", tmp_path / "image.jpeg"): ".npy, .fits",
        ("get", ccd, "visit_info", "-o", tmp_path / "no" / "folder.json"): "No such file or directory",
        ("ls", f"{two_in_one}::third"): "first, second",
        ("convert", text, tmp_path / "out.h5"): "notes.txt",
    }
    for args, message in cases.items():
        said = run(*args, code=2)
        assert said.startswith("compositeh5: error: ")
        assert said.count("\n") == 1
        assert message in said
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_an_error_of_the_process_leaves_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "ls", tmp_path / "none.h5"], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


def test_a_lost_link_is_named_and_the_rest_is_readable(tmp_path: Path, run: Run) -> None:
    visit, (path,) = write_visit(tmp_path, visit=77, ccds=1)
    visit.unlink()
    current().clear_cache()
    assert "is lost" in run("get", path, "visit_info", code=2)
    assert "lost -> visit.visit_info" in run("ls", path)
    run("get", path, "image")


def test_a_closed_pipe_is_no_error(ccd: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "info", ccd], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_convert(tmp_path: Path, run: Run) -> None:
    source, target = data_file("exposure-version-2.fits"), tmp_path / "exposure.h5"
    assert run("convert", source, target).startswith(f"{target}: <Composite exposure")
    with ch5.open(target) as composite, fits.open(source) as hdus:
        np.testing.assert_array_equal(composite["image"].array, hdus[1].data)
    # The same again is fine, something else is not replaced.
    run("convert", source, target)
    exposure((3, 4)).write(target, replace=True)
    before = target.read_bytes()
    run("convert", source, target, code=2)
    assert target.read_bytes() == before
    run("convert", source, target, "--force")
    assert target.read_bytes() != before
