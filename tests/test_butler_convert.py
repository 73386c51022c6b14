"""Converting the datasets of a repository to composites."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from support import data_file

import compositeh5 as ch5
from compositeh5.operations.verify import verify

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")

from butler_support import add_instrument, files_of
from click.testing import CliRunner
from fits_formatter import FitsFormatter
from lsst.daf.butler import Butler, DatasetRef, DatasetType, FileDataset
from test_convert import hdu_list

from compositeh5.butler.commands_setup import COMMANDS
from compositeh5.butler.converting import Conversion, convert_dataset_type
from compositeh5.butler.installing import install
from compositeh5.convert.fits import read_exposure

VISITS = (903334, 903335)
PIXEL_DIMENSIONS = ("instrument", "visit", "detector")
(COMMAND,) = (command for command in COMMANDS if command.name == "compositeh5-convert")


def data_id(visit: int, detector: int) -> dict[str, Any]:
    return {"instrument": "DemoCam", "visit": visit, "detector": detector}


def fits_file(path: Path, visit: int, detector: int, **cards: Any) -> Path:
    hdus = hdu_list(BUNIT="nJy", IDNUM=visit, EXPTIME=30.0, INSTRUMENT="DemoCam", DETECTOR=detector, **cards)
    hdus[1].data += detector
    hdus.writeto(path, overwrite=True)
    return path


def ingest(butler: Butler, path: Path, dataset_type: DatasetType, **key: Any) -> DatasetRef:
    ref = DatasetRef(dataset_type, butler.registry.expandDataId(key), run="fits")
    butler.ingest(FileDataset(path, [ref], formatter=FitsFormatter), transfer="copy")
    return ref


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a stock repository with FITS exposures of three detectors of two visits."""
    root = tmp_path / "repo"
    Butler.makeRepo(str(root))
    install(str(root))
    butler = Butler.from_config(str(root), run="fits")
    add_instrument(butler)
    exposures = DatasetType("calexp_fits", PIXEL_DIMENSIONS, "ExposureF", universe=butler.dimensions)
    butler.registry.registerDatasetType(exposures)
    for visit in VISITS:
        for detector in range(3):
            path = fits_file(tmp_path / "in.fits", visit, detector)
            ingest(butler, path, exposures, **data_id(visit, detector))
    return root


def convert(root: Path, **more: Any) -> Conversion:
    return convert_dataset_type(str(root), "calexp_fits", "calexp", run="h5", collections="fits", **more)


def stored_fits(root: Path, visit: int, detector: int) -> Path:
    return Path(
        Butler.from_config(str(root), collections="fits").getURI("calexp_fits", data_id(visit, detector)).ospath
    )


def test_exposures_become_composites_that_share_their_visit(root: Path) -> None:
    before = files_of(root)
    assert convert(root) == Conversion(converted=6)
    assert len(files_of(root) - before) == 6 + 2
    butler = Butler.from_config(str(root), collections="h5")
    for visit in VISITS:
        visit_ref = butler.find_dataset("visit_metadata", {"instrument": "DemoCam", "visit": visit})
        for detector in range(3):
            uri = butler.getURI("calexp", data_id(visit, detector))
            with ch5.open(uri.ospath) as stored:
                verify(stored)
                assert stored.links["visit_info"].id == str(visit_ref.id)
                source = Butler.from_config(str(root)).find_dataset(
                    "calexp_fits", data_id(visit, detector), collections="fits"
                )
                assert stored.provenance["converted_from"]["id"] == str(source.id)
            expected = fits.getdata(stored_fits(root, visit, detector), 1)
            got = butler.get("calexp.image", data_id(visit, detector))
            np.testing.assert_array_equal(got.array, expected)
            assert butler.get("calexp.visit_info", data_id(visit, detector))["id"] == visit
    assert butler.get("calexp", data_id(VISITS[0], 1)).data_id == data_id(VISITS[0], 1)


def test_a_conversion_is_continued(root: Path, tmp_path: Path) -> None:
    first = convert(root, where="instrument = 'DemoCam' and visit = 903334 and detector < 2")
    assert first == Conversion(converted=2)
    ids = {ref.id for ref in Butler.from_config(str(root)).query_datasets("calexp", "h5")}
    assert convert(root) == Conversion(converted=4, present=2)
    assert convert(root) == Conversion(present=6)
    butler = Butler.from_config(str(root), collections="h5")
    assert ids < {ref.id for ref in butler.query_datasets("calexp")}
    assert len(butler.query_datasets("visit_metadata")) == 2
    links = {ch5.open(butler.getURI("calexp", data_id(903334, d)).ospath).links["visit_info"].id for d in range(3)}
    assert len(links) == 1, "the third links to what was made for the first two"


def test_a_bad_file_leaves_out_its_visit_only(root: Path) -> None:
    bad = stored_fits(root, 903335, 1)
    good = bad.read_bytes()
    bad.write_bytes(good[:4000])
    before = files_of(root)
    done = convert(root)
    assert (done.converted, len(done.failures)) == (3, 1)
    assert "903335" in done.failures[0]
    assert len(files_of(root) - before) == 3 + 1
    bad.write_bytes(good)
    assert convert(root) == Conversion(converted=3, present=3)


def test_a_deviating_detector_keeps_its_own(root: Path, tmp_path: Path) -> None:
    path = stored_fits(root, 903334, 2)
    fits_file(path, 903334, 2, AIRTEMP=7.0)
    done = convert(root)
    assert done.converted == 6
    (deviation,) = done.deviations
    assert "detector: 2" in deviation
    assert deviation.endswith("visit_info")
    butler = Butler.from_config(str(root), collections="h5")
    assert "weather" in butler.get("calexp.visit_info", data_id(903334, 2))
    assert "weather" not in butler.get("calexp.visit_info", data_id(903334, 1))


def test_by_processes_and_with_recipes(root: Path) -> None:
    done = convert(root, processes=2, recipes={"default": ch5.Recipe(gzip=9), "psf": ch5.Recipe()})
    assert done == Conversion(converted=6)
    butler = Butler.from_config(str(root), collections="h5")
    assert butler.get("calexp", data_id(VISITS[1], 2))["image"].shape == (30, 20)
    assert not list(root.glob(".compositeh5-*"))


def test_a_killed_conversion_is_continued(root: Path) -> None:
    code = (
        "import sys; from compositeh5.butler.converting import convert_dataset_type as c\n"
        "c(sys.argv[1], 'calexp_fits', 'calexp', run='h5', collections='fits')"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen([sys.executable, "-c", code, str(root)], env=env)
    end = time.monotonic() + 60
    while process.poll() is None and not list(root.glob(".compositeh5-*/*")) and time.monotonic() < end:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = convert(root)
    assert done.converted + done.present == 6
    butler = Butler.from_config(str(root), collections="h5")
    for ref in butler.query_datasets("calexp"):
        with ch5.open(butler.getURI(ref).ospath) as stored:
            verify(stored)
            assert stored["visit_info"]["id"] == ref.dataId["visit"]


@pytest.mark.parametrize("storage_class", ["AstropyTable", "ArrowAstropy"])
def test_tables(root: Path, storage_class: str) -> None:
    if storage_class == "ArrowAstropy":
        pytest.importorskip("pyarrow", reason="Parquet needs it")
    table = Table({"id": np.arange(50), "flux": np.linspace(0, 1, 50)})
    butler = Butler.from_config(str(root), run="tables")
    dataset_type = DatasetType("src_table", PIXEL_DIMENSIONS, storage_class, universe=butler.dimensions)
    butler.registry.registerDatasetType(dataset_type)
    butler.put(table, "src_table", data_id(903334, 1))
    done = convert_dataset_type(str(root), "src_table", "src", run="h5", collections="tables")
    assert done == Conversion(converted=1)
    got = Butler.from_config(str(root), collections="h5").get("src.table", data_id(903334, 1))
    for name in ("id", "flux"):
        np.testing.assert_array_equal(got[name], table[name])


def test_real_exposures(root: Path, tmp_path: Path) -> None:
    path = data_file("HSC-0908120-056-small.fits")
    butler = Butler.from_config(str(root), run="fits")
    dataset_type = DatasetType("hsc", PIXEL_DIMENSIONS, "ExposureF", universe=butler.dimensions)
    butler.registry.registerDatasetType(dataset_type)
    for detector in (4, 5):
        ingest(butler, path, dataset_type, **data_id(903334, detector))
    assert convert_dataset_type(str(root), "hsc", "calexp", run="h5", collections="fits") == Conversion(converted=2)
    got = Butler.from_config(str(root), collections="h5").get("calexp", data_id(903334, 5))
    expected = read_exposure(path)
    assert {n: got.component_digest(n) for n in got} == {n: expected.component_digest(n) for n in expected}
    assert list(got.links) == ["visit_info"]


def test_the_command(root: Path) -> None:
    arguments = [str(root), "calexp_fits", "calexp", "h5", "--collections", "fits"]
    done = CliRunner().invoke(COMMAND, [*arguments, "--where", "instrument = 'DemoCam' and visit = 903334"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == "3 datasets converted, 0 were there"
    stored_fits(root, 903335, 0).write_bytes(b"SIMPLE  = nonsense")
    failed = CliRunner().invoke(COMMAND, arguments)
    assert failed.exit_code == 1
    assert "0 datasets converted, 3 were there" in failed.output
    assert "Not converted" in failed.output
    unknown = CliRunner().invoke(COMMAND, [str(root), "nothing", "calexp", "h5", "--collections", "fits"])
    assert unknown.exit_code == 1
    assert "nothing" in unknown.output


def test_a_repository_that_stores_no_composites_yet_says_what_to_do(tmp_path: Path) -> None:
    code = """
import sys
from lsst.daf.butler import Butler, DatasetType
from butler_support import add_instrument
from compositeh5.butler.converting import convert_dataset_type
root = sys.argv[1]
Butler.makeRepo(root)
butler = Butler.from_config(root, run="old")
add_instrument(butler)
dataset_type = DatasetType("t", ("instrument", "visit"), "StructuredDataDict", universe=butler.dimensions)
butler.registry.registerDatasetType(dataset_type)
butler.put({}, "t", instrument="DemoCam", visit=903334)
convert_dataset_type(root, "t", "new", run="h5", collections="old")
"""
    # Storage classes are known to a whole process: this one must not have seen ours.
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "r")], env=env, capture_output=True, text=True)
    assert "DefinitionError" in done.stderr
    assert "butler compositeh5-install" in done.stderr
