"""The command `compositeh5`: what it prints, what it writes, and how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable, Table
from astropy.wcs import WCS
from support import data_file, exposure, group_of, pixels, simple_wcs, write_visit

import compositeh5 as ch5
from compositeh5.cli import main
from compositeh5.storage.layout import file_root
from compositeh5.storage.writer import file_image

HERE = Path(ch5.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HERE)}
COMMAND = [sys.executable, "-m", "compositeh5"]


def command(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, args)], capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT
    )


@pytest.fixture(scope="module")
def ccd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exposure that links to the metadata of its visit."""
    _, (path,) = write_visit(tmp_path_factory.mktemp("files"), ccds=1)
    return path


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog, with components of other kinds."""
    path = tmp_path_factory.mktemp("files") / "catalog.h5"
    table = QTable({"id": np.arange(300), "flux": np.linspace(0, 1, 300) * u.nJy, "name": ["a", "b", "c"] * 100})
    composite = ch5.Composite(
        None,
        table=table,
        photo_calib=ch5.PhotoCalib(0.75, 0.01),
        note="two\nlines",
        blob=bytes(range(256)),
        metadata={"threshold": 5.0, "limit": np.nan, "nested": {"gain": 1.5 * u.electron / u.adu}},
        spectrum=np.arange(5.0) * u.nm,
        masked=np.ma.MaskedArray([1, 2], mask=[True, False]),
        remarks=["first", {"second": 2}],
        provenance={"tool": "\x1b[31mred\x1b[0m"},
    )
    composite.write(path)
    return path


def test_ls_has_one_line_per_component(ccd: Path) -> None:
    run = command("ls", ccd)
    assert (run.returncode, run.stderr) == (0, "")
    header, *rows = run.stdout.splitlines()
    assert header.split() == ["component", "kind", "shape", "type", "units", "size", "stored", "stage", "where"]
    lines = {row.split()[0]: row for row in rows}
    assert list(lines) == ["image", "mask", "variance", "wcs", "psf", "visit_info"]
    assert lines["image"].split()[1:9] == ["image", "300", "x", "400", "float32", "nJy", "480.0", "kB"]
    assert lines["image"].split()[-2:] == ["single_frame", "stored"]
    assert lines["visit_info"].endswith("raw           linked -> visit.visit_info")


def test_ls_json(ccd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", str(ccd), "--json"]) == 0
    found = {info["name"]: info for info in json.loads(capsys.readouterr().out)}
    with ch5.open(ccd) as composite:
        assert {name: info["kind"] for name, info in found.items()} == {n: composite.kind(n) for n in composite}
    assert found["mask"]["shape"] == [300, 400]


def test_info_json_is_what_the_file_says(ccd: Path) -> None:
    document = json.loads(command("info", ccd, "--json").stdout)
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


def test_info_tells_of_absent_components(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exposure(photo_calib=None).write(tmp_path / "a.h5")
    assert main(["info", str(tmp_path / "a.h5"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["absent"] == ["photo_calib"]
    assert "photo_calib" not in document["components"]


def test_info_for_people(ccd: Path, catalog: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(ccd)]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{ccd}\n")
    assert "\n  data_id\n    detector    11\n" in text
    assert "\n    image\n      kind          image\n" in text
    assert "\n  links\n    visit_info\n" in text
    # What a file says can't act on the terminal.
    assert main(["info", str(catalog)]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert r"\x1b[31mred" in text


def test_get_an_image(ccd: Path, tmp_path: Path) -> None:
    run = command("get", ccd, "image")
    expected = pixels((300, 400))
    lines = dict(line.split(maxsplit=1) for line in run.stdout.splitlines())
    facts = {"shape": "[300, 400]", "dtype": "float32", "unit": "nJy", "not_finite": "0"}
    values = {"minimum": expected.min(), "median": np.median(expected), "maximum": expected.max()}
    assert lines == facts | {name: str(float(value)) for name, value in values.items()}
    assert main(["get", str(ccd), "image", "-o", str(tmp_path / "image.npy")]) == 0
    loaded = np.load(tmp_path / "image.npy")
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, expected)
    assert main(["get", str(ccd), "image", "-o", str(tmp_path / "image.fits")]) == 0
    with fits.open(tmp_path / "image.fits") as hdus:
        np.testing.assert_array_equal(hdus[0].data, expected)
        assert (hdus[0].header["BUNIT"], hdus[0].header["LTV1"], hdus[0].header["LTV2"]) == ("nJy", -200, -100)


def test_get_a_mask(ccd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["get", str(ccd), "mask"]) == 0
    assert "planes.BAD  100\n" in capsys.readouterr().out
    assert main(["get", str(ccd), "mask", "-o", str(tmp_path / "mask.fits")]) == 0
    with fits.open(tmp_path / "mask.fits") as hdus:
        assert hdus[0].data.dtype == ">i4"
        assert (hdus[0].data == 1).sum() == 100
        assert (hdus[0].header["MP_BAD"], hdus[0].header["MP_SAT"]) == (0, 1)


def test_get_a_wcs_exactly(ccd: Path, tmp_path: Path) -> None:
    assert main(["get", str(ccd), "wcs", "-o", str(tmp_path / "wcs.hdr")]) == 0
    found = WCS(fits.Header.fromtextfile(tmp_path / "wcs.hdr"))
    expected = simple_wcs((300, 400))
    np.testing.assert_array_equal(found.wcs.cd, expected.wcs.cd)
    np.testing.assert_array_equal(found.wcs.crval, expected.wcs.crval)
    assert found.pixel_shape == expected.pixel_shape


def test_get_a_psf(ccd: Path, tmp_path: Path) -> None:
    assert main(["get", str(ccd), "psf", "-o", str(tmp_path / "psf.npy")]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "psf.npy"), np.ones((1, 5, 5)) / 25)


def test_get_a_linked_record(ccd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["get", str(ccd), "visit_info"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["exposure_time"] == "30.0 s"
    assert lines["date"] == "2025-03-01T04:05:06.789000000 tai"
    assert lines["weather.temperature"] == "9.5 deg_C"
    for extension, load in ((".json", json.loads), (".yaml", yaml.safe_load)):
        path = tmp_path / f"info{extension}"
        assert main(["get", str(ccd), "visit_info", "-o", str(path)]) == 0
        record = load(path.read_text())
        assert record["exposure_time"] == {"value": 30.0, "unit": "s"}
        assert record["boresight"]["ra"]["value"] == pytest.approx(150.1, abs=1e-12)
        assert record["observatory"]["height"]["value"] == pytest.approx(2663, abs=1e-6)
        assert record["weather"]["humidity"] is None
        assert record["dithers"] == [1, 2, 3]


def test_get_a_table(catalog: Path, tmp_path: Path) -> None:
    run = command("get", catalog, "table")
    # All of it, since this is no terminal.
    assert len(run.stdout.splitlines()) == 3 + 300
    expected = QTable({"id": np.arange(300), "flux": np.linspace(0, 1, 300) * u.nJy, "name": ["a", "b", "c"] * 100})
    for name in ("table.ecsv", "table.fits"):
        assert main(["get", str(catalog), "table", "-o", str(tmp_path / name)]) == 0
        found = QTable.read(tmp_path / name)
        assert found["flux"].unit == u.nJy
        np.testing.assert_array_equal(found["flux"], expected["flux"])
        np.testing.assert_array_equal(found["id"], expected["id"])
        assert list(found["name"]) == list(expected["name"])
    assert main(["get", str(catalog), "table", "-o", str(tmp_path / "table.csv")]) == 0
    np.testing.assert_array_equal(Table.read(tmp_path / "table.csv")["flux"], expected["flux"].value)


def test_get_text_bytes_and_others(catalog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("get", catalog, "note").stdout == "two\nlines\n"
    run = subprocess.run([*COMMAND, "get", str(catalog), "blob"], capture_output=True, check=True, env=ENVIRONMENT)
    assert run.stdout == bytes(range(256))
    for name, content in (("note", b"two\nlines"), ("blob", bytes(range(256)))):
        assert main(["get", str(catalog), name, "-o", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_bytes() == content
    assert main(["get", str(catalog), "photo_calib", "-o", str(tmp_path / "calib.json")]) == 0
    assert json.loads((tmp_path / "calib.json").read_text()) == {
        "mean": 0.75, "error": 0.01, "field": None, "instrumental_unit": "adu"
    }  # fmt: skip
    assert main(["get", str(catalog), "metadata", "-o", str(tmp_path / "metadata.json")]) == 0
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    assert metadata == {"threshold": 5.0, "limit": "nan", "nested": {"gain": {"value": 1.5, "unit": "electron / adu"}}}
    capsys.readouterr()
    assert main(["get", str(catalog), "spectrum"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == [["shape", "[5]"], ["dtype", "float64"], ["unit", "nm"]]
    assert lines[4:] == [["minimum", "0.0"], ["median", "2.0"], ["maximum", "4.0"]]
    assert main(["get", str(catalog), "remarks"]) == 0
    assert capsys.readouterr().out == "0         first\n1.second  2\n"
    # Nothing is left out in silence.
    assert main(["get", str(catalog), "masked", "-o", str(tmp_path / "masked.npy")]) == 2
    assert "mask" in capsys.readouterr().err
    assert not (tmp_path / "masked.npy").exists()


def test_get_never_overwrites_unless_forced(ccd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "image.npy"
    out.write_text("precious")
    assert main(["get", str(ccd), "image", "-o", str(out)]) == 2
    assert "image.npy" in capsys.readouterr().err
    assert out.read_text() == "precious"
    assert main(["get", str(ccd), "image", "-o", str(out), "--force"]) == 0
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


@pytest.mark.parametrize(
    ("suffix", "more", "expected"),
    [("", [], "first"), ("::second", [], "second"), ("", ["--name", "second"], "second")],
)
def test_one_of_several_composites(
    two_in_one: Path, suffix: str, more: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["get", f"{two_in_one}{suffix}", "note", *more]) == 0
    assert capsys.readouterr().out == f"this is {expected}\n"


def test_info_tells_which_composites_there_are(two_in_one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", f"{two_in_one}::second", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["composites"] == ["first", "second"]
    assert document["format"] == "1.0"
    assert document["creator"] == f"compositeh5 {ch5.__version__}"


def test_errors_are_one_line_and_exit_code_2(
    ccd: Path, two_in_one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
        assert main([str(arg) for arg in args]) == 2, args
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("compositeh5: error: ")
        assert captured.err.count("\n") == 1
        assert message in captured.err
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_errors_leave_no_traceback(tmp_path: Path) -> None:
    run = command("ls", tmp_path / "none.h5")
    assert run.returncode == 2
    assert run.stdout == ""
    assert "Traceback" not in run.stderr
    # Wrong arguments have the same code.
    assert command("look").returncode == 2
    assert command().returncode == 2


def test_a_lost_link_is_named_and_the_rest_is_readable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    visit, (path,) = write_visit(tmp_path, visit=77, ccds=1)
    visit.unlink()
    # In another process, since this one may still know the value.
    run = command("get", path, "visit_info")
    assert run.returncode == 2
    assert "is lost" in run.stderr
    assert main(["ls", str(path)]) == 0
    assert "lost -> visit.visit_info" in capsys.readouterr().out
    assert main(["get", str(path), "image"]) == 0


def test_a_closed_pipe_is_no_error(ccd: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "info", str(ccd)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(30) == 0
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()


def test_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = data_file("exposure-version-2.fits"), tmp_path / "exposure.h5"
    convert = ["convert", str(source), str(target)]
    assert main(convert) == 0
    assert capsys.readouterr().out.startswith(f"{target}: <Composite exposure")
    with ch5.open(target) as composite, fits.open(source) as hdus:
        np.testing.assert_array_equal(composite["image"].array, hdus[1].data)
    # The same again is fine, something else is not replaced.
    assert main(convert) == 0
    exposure().write(target, replace=True)
    before = target.read_bytes()
    assert main(convert) == 2
    assert target.read_bytes() == before
    assert main([*convert, "--force"]) == 0
    assert target.read_bytes() != before
