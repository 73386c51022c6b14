"""What the tests of the Butler plug-in share: repositories, the datasets in them, and what is told of these.

Making a repository takes a second, copying one nothing. So one is made for the whole process, and copied.
"""

from __future__ import annotations

import atexit
import io
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy.table import Table
from lsst.daf.butler import Butler, Config, DatasetRef, DatasetType, FileDataset
from lsst.daf.butler.cli.butler import cli as butler_cli
from lsst.daf.butler.cli.utils import LogCliRunner
from support import data_file, exposure, pixels, simple_wcs, visit_info

import compositeh5 as ch5
from compositeh5.butler import check, export_closure, put_links, put_overlay, put_visit, register_dataset_type
from compositeh5.butler.formatter import CompositeFormatter
from compositeh5.composite.session import current

SEED = "resource://compositeh5/butler/configs/seed.yaml"
FORMATTERS = Config("resource://compositeh5/butler/configs/formatters.yaml").toDict()
RUN = "demo/run"
DETECTORS = range(9)
VISIT = {"instrument": "DemoCam", "visit": 903334}
CCD = {**VISIT, "detector": 4}
TRACT = {"skymap": "demo", "tract": 9813}

# ---- Repositories -------------------------------------------------------------------------------------------

DATASTORES = "lsst.daf.butler.datastores"
FILE = {"cls": f"{DATASTORES}.fileDatastore.FileDatastore"}
ALL_DISASSEMBLED = {**FILE, "composites": {"default": True}}
DISASSEMBLED = {**FILE, "composites": {"disassembled": {"CompositeH5ExposureV1": True}}}
OTHER_TEMPLATES = {**FILE, "templates": {"default": "{run}/elsewhere/{datasetType}/{id}"}}
MEMORY = {"cls": f"{DATASTORES}.inMemoryDatastore.InMemoryDatastore"}


def chain(*children: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a datastore of several."""
    return {"cls": f"{DATASTORES}.chainedDatastore.ChainedDatastore", "datastores": list(children)}


def child(name: str, **settings: Any) -> dict[str, Any]:
    """Return the configuration of a file datastore of a chain."""
    own = {"root": f"<butlerRoot>/{name}", "records": {"table": f"records_{name}"}, "formatters": FORMATTERS}
    return {**FILE, **own, **settings}


def create_repo(root: Path, datastore: dict[str, Any] | None = None, *, bare: bool = False, **changes: Any) -> None:
    """Make a repository, maybe with another datastore, and other settings than those of the seed configuration.

    It has an instrument with two visits, a tract, and three dataset types; a bare one knows nothing.
    """
    shutil.copytree(_made(bare), root, dirs_exist_ok=True)
    if datastore is not None:
        changes["datastore"] = datastore
    if changes:
        config = Config(str(root / "butler.yaml"))
        config.update(changes)
        config.dumpToUri(str(root / "butler.yaml"))


def new_repo(root: Path, datastore: dict[str, Any] | None = None, **more: Any) -> Butler:
    """Make a repository as `create_repo` does, and open it."""
    create_repo(root, datastore, **more)
    return Butler.from_config(str(root), run=RUN)


@cache
def _made(bare: bool) -> Path:
    root = Path(tempfile.mkdtemp(prefix="compositeh5-tests-"))
    atexit.register(shutil.rmtree, root)
    if bare:
        run_butler("create", root / "repo", "--seed-config", SEED)
    else:
        shutil.copytree(_made(True), root / "repo")
        butler = Butler.from_config(str(root / "repo"), writeable=True)
        add_instrument(butler)
        register_types(butler)
        butler.close()
    return root / "repo"


def run_butler(*arguments: object, code: int = 0) -> list[str]:
    """Run the command ``butler`` in this process, and return the lines of its output, or of its error."""
    done = LogCliRunner().invoke(butler_cli, list(map(str, arguments)))
    assert done.exit_code == code, done.output
    return (done.stdout if code < 2 else done.stderr).splitlines()


def add_instrument(butler: Butler) -> None:
    """Register an invented instrument with nine detectors and two visits, and a tract."""
    registry = butler.registry
    registry.insertDimensionData("instrument", {"name": "DemoCam", "class_name": "demo.DemoCam"})
    registry.insertDimensionData("physical_filter", {"instrument": "DemoCam", "name": "i_39", "band": "i"})
    registry.insertDimensionData("day_obs", {"instrument": "DemoCam", "id": 20250301})
    registry.insertDimensionData(
        "detector",
        *({"instrument": "DemoCam", "id": d, "full_name": f"R22_S{d // 3}{d % 3}"} for d in DETECTORS),
    )
    registry.insertDimensionData(
        "visit",
        *(
            {
                "instrument": "DemoCam",
                "id": visit,
                "name": str(visit),
                "physical_filter": "i_39",
                "day_obs": 20250301,
            }
            for visit in (903334, 903335)
        ),
    )
    registry.insertDimensionData(
        "skymap", {"name": "demo", "hash": b"1", "tract_max": 20000, "patch_nx_max": 9, "patch_ny_max": 9}
    )
    registry.insertDimensionData("tract", {"skymap": "demo", "id": TRACT["tract"]})


def register_types(butler: Butler) -> None:
    """Register the dataset types of exposures, visits and catalogues."""
    for name, definition in (("calexp", "exposure"), ("visit_metadata", "visit"), ("src", "source_catalog")):
        register_dataset_type(butler, name, definition)


def register(butler: Butler, name: str, dimensions: Any, storage_class: str) -> DatasetType:
    """Register a dataset type of any storage class."""
    dataset_type = DatasetType(name, tuple(dimensions), storage_class, universe=butler.dimensions)
    butler.registry.registerDatasetType(dataset_type)
    return dataset_type


def add_megaprime(butler: Butler) -> None:
    """Import the dimension records of real visits, without the datasets that the export also lists."""
    export = data_file("megaprime_exports.yaml").read_text()
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        # The export is older than the dimension day_obs.
        butler.import_(filename=io.StringIO(export.split("- type: collection")[0]))


def files_of(root: Path) -> set[Path]:
    """Return all files of a repository but its configuration and its database."""
    return {path for path in root.rglob("*") if path.is_file() and path.parent != root}


_runs = (f"run{number}" for number in count())


def in_new_run(butler: Butler) -> Butler:
    """Return a Butler of the same repository with a run of its own, in which there is nothing."""
    return butler.clone(run=next(_runs), collections=None)


# ---- Fixtures: a repository for one test, and one that others have filled ------------------------------------


@pytest.fixture(autouse=True)
def nothing_cached() -> Iterator[None]:
    current().clear_cache()
    yield
    current().clear_cache()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "repo"


@pytest.fixture
def butler(root: Path) -> Butler:
    return new_repo(root)


@pytest.fixture
def moved(butler: Butler, root: Path, tmp_path: Path) -> Butler:
    """Return a repository into which datasets were imported to places of other templates."""
    _, (first, second) = put_ccds(butler)
    _, catalog = put_overlay_and_catalog(butler, first)
    export_closure(butler, [catalog, second], tmp_path / "export")
    target = new_repo(tmp_path / "new", OTHER_TEMPLATES, bare=True)
    target.import_(directory=str(tmp_path / "export"), filename="export.yaml", transfer="copy")
    shutil.rmtree(tmp_path / "export")
    root.rename(tmp_path / "old")
    return target


# ---- Datasets -----------------------------------------------------------------------------------------------


def ccd_id(detector: int = 4) -> dict[str, int | str]:
    return {**VISIT, "detector": detector}


def ccd(detector: int = 4, /, shape: tuple[int, int] = (30, 40), **more: Any) -> ch5.Composite:
    return exposure(shape, **more).replace(data_id=ccd_id(detector))


def visit(**more: Any) -> ch5.Composite:
    return ch5.Composite("visit", visit_info=visit_info(), data_id=VISIT, stage="raw", **more)


def catalog() -> ch5.Composite:
    table = Table({"id": np.arange(100), "flux": pixels((100,)), "spectrum": pixels((100, 5))})
    return ch5.Composite("source_catalog", table=table, data_id=CCD)


def put_ccds(
    butler: Butler, detectors: int = 2, shape: tuple[int, int] = (30, 40)
) -> tuple[DatasetRef, list[DatasetRef]]:
    """Store a visit, and exposures that link to it."""
    calib = ch5.PhotoCalib(57.5, 0.25)
    return put_visit(butler, visit(), [ccd(d, shape, photo_calib=calib) for d in range(detectors)])


def put_overlay_and_catalog(butler: Butler, base: DatasetRef) -> tuple[DatasetRef, DatasetRef]:
    """Store an overlay, and a catalogue that links to its calibration."""
    overlay = put_overlay(butler, base, {"wcs": simple_wcs((30, 40))}, "calexp", run="u/jointcal", stage="jointcal")
    register_dataset_type(butler, "src_table", "source_catalog")
    parts = butler.put(catalog(), "src_table", base.dataId)
    sources = {"table": parts, "photo_calib": overlay, "wcs": overlay, "visit_info": overlay}
    return overlay, put_links(butler, "src", sources, base.dataId.required, definition="source_catalog", run="u/src")


def ingest_together(
    butler: Butler, path: Path, composites: list[ch5.Composite], transfer: str = "copy"
) -> list[DatasetRef]:
    """Ingest exposures as one file, under other ids than they have in it."""
    ch5.write_file(path, {f"ccd_{number}": composite for number, composite in enumerate(composites)})
    dataset_type = register_dataset_type(butler, "calexp", "exposure")
    refs = [DatasetRef(dataset_type, butler.registry.expandDataId(c.data_id), run=RUN) for c in composites]
    butler.ingest(FileDataset(str(path), refs, formatter=CompositeFormatter), transfer=transfer)
    return refs


def move_file(butler: Butler, ref: DatasetRef, path: str) -> None:
    """Move the file of a dataset to another place in its datastore, which no link to it knows."""
    old = butler.getURI(ref)
    roots = butler.get_datastore_roots().values()
    new = Path(next(root for root in roots if root and old.relative_to(root) is not None).ospath, path)
    new.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(old.ospath, new)
    butler.pruneDatasets([ref], disassociate=False, unstore=True, purge=False)
    butler.ingest(FileDataset(str(new), [ref], formatter=CompositeFormatter), transfer=None)


def purge(butler: Butler, *refs: DatasetRef) -> None:
    """Remove datasets as if they had never been."""
    butler.pruneDatasets(refs, disassociate=True, unstore=True, purge=True)


# ---- What is told of datasets -------------------------------------------------------------------------------


def digests(composite: ch5.Composite) -> dict[str, str]:
    return {name: composite.component_digest(name) for name in composite}


def digest_of(value: object) -> str:
    return ch5.Composite(None, {"value": value}).component_digest("value")


def content(butler: Butler, refs: list[DatasetRef]) -> dict[str, dict[str, str]]:
    """Return digests of all components of composites, read from where the links lead."""
    current().clear_cache()
    return {str(ref.id): {name: digest_of(value) for name, value in butler.get(ref).items()} for ref in refs}


def states(butler: Butler) -> dict[tuple[str, str], str]:
    return {(checked.ref.datasetType.name, checked.component): checked.state for checked in check(butler)}


def native_targets(path: Path) -> list[str]:
    """Return the files of the external links of a composite, as HDF5 sees them."""
    with h5py.File(path) as file:
        found = [file["composite"].get(name, getlink=True) for name in file["composite"]]
        return [link.filename for link in found if isinstance(link, h5py.ExternalLink)]
