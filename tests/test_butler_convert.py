"""Converting the datasets of a repository to composites."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable, Table
from support import data_file, exposure

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.composite.session import current
from compositeh5.trees.verify import verify

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")

from butler_support import FILE, MEMORY, add_instrument, chain, files_of, register, run_butler
from click.testing import CliRunner
from fits_formatter import FitsFormatter
from lsst.daf.butler import Butler, Config, DatasetRef, DatasetType, FileDataset
from lsst.daf.butler.cli.butler import cli as butler_cli
from test_convert import hdu_list

from compositeh5.butler.converting import Conversion, convert_dataset_type
from compositeh5.butler.formatter import CompositeFormatter
from compositeh5.butler.installing import install
from compositeh5.fits.conversion import read_exposure

VISITS = (903334, 903335)
PIXEL_DIMENSIONS = ("instrument", "visit", "detector")


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


def stock(folder: Path, scratch: Path, /, **datastore: Any) -> Butler:
    """Make a stock repository, with FITS exposures of three detectors of two visits."""
    config = Config({"datastore": datastore} if datastore else {})
    Butler.makeRepo(str(folder), config=config, forceConfigRoot=not datastore)
    install(str(folder))
    butler = Butler.from_config(str(folder), run="fits")
    add_instrument(butler)
    dataset_type = register(butler, "calexp_fits", PIXEL_DIMENSIONS, "ExposureF")
    for visit in VISITS:
        for detector in range(3):
            ingest(butler, fits_file(scratch / "in.fits", visit, detector), dataset_type, **data_id(visit, detector))
    return butler


@pytest.fixture(scope="module")
def stock_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("convert")
    stock(folder / "repo", folder).close()
    return folder / "repo"


@pytest.fixture
def root(stock_repo: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stock_repo, tmp_path / "repo"))


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


def test_by_processes_and_with_recipes(root: Path, processes: Executor) -> None:
    path = root / "butler.yaml"
    config = yaml.safe_load(path.read_text())
    formatters = config["datastore"]["formatters"]
    formatters["write_recipes"] = {
        CompositeFormatter.name(): {"default": {"table": {"gzip": 7}}, "small": {"default": {"gzip": 9}}}
    }
    path.write_text(yaml.safe_dump(config))
    butler = Butler.from_config(str(root), run="tables")
    put_table(butler, "ArrowAstropy", Table({"id": np.arange(50000)}))
    for recipe, level in {None: 7, "small": 9}.items():
        run = f"h5/{recipe}"
        done = convert_dataset_type(str(root), "src_table", "src", run=run, collections="tables", recipe=recipe)
        assert done == Conversion(converted=1)
        with h5py.File(Butler.from_config(str(root), collections=run).getURI("src", TABLE).ospath) as file:
            levels: list[int | None] = []
            file.visititems(lambda _, node, found=levels: found.append(getattr(node, "compression_opts", None)))
        assert set(levels) == {None, level}
    with pytest.raises(errors.ConfigurationError, match="no recipe 'smal' .*did you mean 'small'"):
        convert(root, recipe="smal")
    assert convert(root, executor=processes, recipe="small") == Conversion(converted=6)
    butler = Butler.from_config(str(root), collections="h5")
    assert butler.get("calexp", data_id(VISITS[1], 2))["image"].shape == (30, 20)


def test_by_the_workers_of_a_cluster(root: Path, dask_client: Any) -> None:
    bad = stored_fits(root, 903335, 1)
    bad.write_bytes(bad.read_bytes()[:4000])
    found = convert(root, executor=dask_client.get_executor())
    assert (found.converted, len(found.failures)) == (3, 1)
    assert "903335" in found.failures[0]
    # The work was done there.
    assert "compositeh5.butler.converting" in dask_client.run(lambda: __import__("sys").modules.keys()).popitem()[1]
    butler = Butler.from_config(str(root), collections="h5")
    for detector in range(3):
        assert butler.get("calexp", data_id(903334, detector)).links.keys() >= {"visit_info"}


def test_a_killed_conversion_is_continued(root: Path) -> None:
    code = (
        "import sys; from compositeh5.butler.converting import convert_dataset_type as c\n"
        "c(sys.argv[1], 'calexp_fits', 'calexp', run='h5', collections='fits')"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen([sys.executable, "-c", code, str(root)], env=env)
    end = time.monotonic() + 60
    while process.poll() is None and not list(root.glob("h5/**/*.h5")) and time.monotonic() < end:
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


TABLE = data_id(903334, 1)


def put_table(butler: Butler, storage_class: str, table: Any, name: str = "src_table") -> None:
    butler.put(table, register(butler, name, PIXEL_DIMENSIONS, storage_class), TABLE, run="tables")


@pytest.fixture(scope="module")
def tables(stock_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Butler]:
    root = Path(shutil.copytree(stock_repo, tmp_path_factory.mktemp("tables") / "repo"))
    return root, Butler.from_config(str(root), run="tables")


@pytest.mark.parametrize(
    ("storage_class", "given"),
    [
        ("AstropyTable", lambda table: table),
        ("AstropyQTable", lambda table: QTable(table, units={"flux": u.nJy})),
        ("ArrowAstropy", lambda table: table),
        ("ArrowTable", lambda table: parquet().astropy_to_arrow(table)),
        ("ArrowNumpy", lambda table: table.as_array()),
        ("ArrowNumpyDict", lambda table: {name: np.asarray(table[name]) for name in table.colnames}),
        ("DataFrame", lambda table: table.to_pandas()),
    ],
)
def test_tables(tables: tuple[Path, Butler], storage_class: str, given: Callable[[Table], Any]) -> None:
    if storage_class == "DataFrame":
        pytest.importorskip("pandas", reason="needs pandas (the extra `test`)")
    root, butler = tables
    table = Table({"id": np.arange(50), "flux": np.linspace(0, 1, 50), "name": [f"s{i}" for i in range(50)]})
    put_table(butler, storage_class, given(table), storage_class)
    done = convert_dataset_type(str(root), storage_class, "src", run=f"h5/{storage_class}", collections="tables")
    assert done == Conversion(converted=1)
    got = butler.get("src.table", TABLE, collections=f"h5/{storage_class}")
    for name in table.colnames:
        assert np.asarray(got[name]).tolist() == table[name].tolist()
    assert got["flux"].unit == (u.nJy if storage_class == "AstropyQTable" else None)


def parquet() -> Any:
    return pytest.importorskip("lsst.daf.butler.formatters.parquet")


TEMPLATES = {
    "a": "{run}/{datasetType}/{instrument}_{visit}_{detector:?}",
    "b": "{datasetType}_{instrument}_{visit}_{detector:?}_{run}",
}


def test_a_chain_of_datastores(tmp_path: Path) -> None:
    children = [
        {**FILE, "root": f"<butlerRoot>/{n}", "records": {"table": f"records_{n}"}, "templates": {"default": template}}
        for n, template in TEMPLATES.items()
    ]
    root = tmp_path / "chain"
    stock(root, tmp_path, **chain(MEMORY, *children))
    assert convert(root) == Conversion(converted=6)
    assert len(list((root / "a").rglob("*.h5"))) == len(list((root / "b").rglob("*.h5"))) == 6 + 2
    butler = Butler.from_config(str(root), collections="h5")
    assert butler.get("calexp.visit_info", data_id(VISITS[1], 2))["id"] == VISITS[1]


def test_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    object_store = pytest.importorskip("object_store")
    with object_store.object_store(monkeypatch):
        stock(tmp_path / "remote", tmp_path, **FILE, root="s3://data/repo")
        assert convert(tmp_path / "remote") == Conversion(converted=6)
        assert convert(tmp_path / "remote") == Conversion(present=6)
        butler = Butler.from_config(str(tmp_path / "remote"), collections="h5")
        assert butler.getURI("calexp", data_id(903335, 2)).scheme == "s3"
        current().clear_cache()
        assert butler.get("calexp.visit_info", data_id(903335, 2))["id"] == 903335


def test_datasets_of_several_files_are_refused(root: Path) -> None:
    path = root / "butler.yaml"
    config = yaml.safe_load(path.read_text())
    config["datastore"]["composites"] = {"disassembled": {"CompositeH5ExposureV1": True}}
    path.write_text(yaml.safe_dump(config))
    butler = Butler.from_config(str(root), run="apart")
    register(butler, "apart", PIXEL_DIMENSIONS, "CompositeH5ExposureV1")
    butler.put(exposure((30, 40)), "apart", TABLE)
    with pytest.raises(errors.DefinitionError, match="a file for each component"):
        convert_dataset_type(str(root), "apart", "calexp", run="h5", collections="apart")


def test_real_exposures(root: Path, tmp_path: Path) -> None:
    path = data_file("HSC-0908120-056-small.fits")
    butler = Butler.from_config(str(root), run="fits")
    dataset_type = register(butler, "hsc", PIXEL_DIMENSIONS, "ExposureF")
    for detector in (4, 5):
        ingest(butler, path, dataset_type, **data_id(903334, detector))
    assert convert_dataset_type(str(root), "hsc", "calexp", run="h5", collections="fits") == Conversion(converted=2)
    got = Butler.from_config(str(root), collections="h5").get("calexp", data_id(903334, 5))
    expected = read_exposure(path)
    assert {n: got.component_digest(n) for n in got} == {n: expected.component_digest(n) for n in expected}
    assert list(got.links) == ["visit_info"]


def test_the_command(root: Path) -> None:
    arguments = ["compositeh5-convert", root, "calexp_fits", "calexp", "h5", "--collections", "fits"]
    done = run_butler(*arguments, "--where", "instrument = 'DemoCam' and visit = 903334")
    assert done[-1] == "3 datasets converted, 0 were there"
    stored_fits(root, 903335, 0).write_bytes(b"SIMPLE  = nonsense")
    failed = CliRunner().invoke(butler_cli, list(map(str, arguments)))
    assert failed.exit_code == 2
    assert "0 datasets converted, 3 were there" in failed.output
    assert "Not converted" in failed.output
    as_json = CliRunner().invoke(butler_cli, [*map(str, arguments), "--json"])
    document = json.loads(as_json.stdout)
    assert (document["converted"], document["present"], len(document["failures"])) == (0, 3, 1)
    arguments[2] = "nothing"
    assert "nothing" in run_butler(*arguments, code=2)[-1]


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
