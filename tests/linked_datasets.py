"""Datasets that link to others, in repositories on SQLite and on PostgreSQL: what several test modules use."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from astropy.table import Table
from butler_support import RUN, SEED, add_instrument
from lsst.daf.butler import Butler, Config, DatasetRef, FileDataset
from postgres_server import copy_database
from support import exposure, pixels, simple_wcs, visit_info

import compositeh5 as ch5
from compositeh5.butler import check, export_closure, put_links, put_overlay, put_visit, register_dataset_type
from compositeh5.butler.formatter import CompositeFormatter
from compositeh5.composite.session import current

VISIT = {"instrument": "DemoCam", "visit": 903334}
FILE_DATASTORE = "lsst.daf.butler.datastores.fileDatastore.FileDatastore"
DISASSEMBLED = {"cls": FILE_DATASTORE, "composites": {"disassembled": {"CompositeH5ExposureV1": True}}}
OTHER_TEMPLATES = {"cls": FILE_DATASTORE, "templates": {"default": "{run}/elsewhere/{datasetType}/{id}"}}

ON_SQLITE = pytest.mark.parametrize("_repositories", ["sqlite"], indirect=True)
"""For tests of what has nothing to do with the kind of database."""

_names = (f"repository{number}" for number in count())


@dataclass
class Repositories:
    """Makes repositories with databases of one kind, as copies of one that was made before."""

    folder: Path
    server: str | None = None
    """URL of the default database of a server; None for SQLite."""
    opened: list[Butler] = field(default_factory=list)

    def new(self, root: Path, datastore: dict[str, Any] | None = None) -> Butler:
        """Return a repository that knows nothing."""
        return self._copied(self._bare, root, datastore)

    def with_camera(self, root: Path, datastore: dict[str, Any] | None = None) -> Butler:
        """Return a repository with an instrument and two visits."""
        return self._copied(self._with_camera, root, datastore)

    def open(self, root: Path, **more: Any) -> Butler:
        """Return a Butler that is closed when the test ends."""
        self.opened.append(Butler.from_config(str(root), **more))
        return self.opened[-1]

    def close(self) -> None:
        """Close all that were opened."""
        for butler in self.opened:
            butler.close()
        self.opened.clear()

    @cached_property
    def _bare(self) -> Path:
        config = Config(SEED)
        if self.server is not None:
            config["registry", "db"] = copy_database(self.server, next(_names), "postgres")
        Butler.makeRepo(str(self.folder / "bare"), config=config)
        return self.folder / "bare"

    @cached_property
    def _with_camera(self) -> Path:
        butler = self._copied(self._bare, self.folder / "with_camera", None)
        add_instrument(butler)
        # Nobody may be connected to a database that is copied.
        butler.close()
        return self.folder / "with_camera"

    def _copied(self, template: Path, root: Path, datastore: dict[str, Any] | None) -> Butler:
        shutil.copytree(template, root, dirs_exist_ok=True)
        path = root / "butler.yaml"
        config = yaml.safe_load(path.read_text())
        if self.server is not None:
            source = config["registry"]["db"].rpartition("/")[2]
            config["registry"]["db"] = copy_database(self.server, next(_names), source)
        config["datastore"].update(datastore or {})
        path.write_text(yaml.safe_dump(config))
        return self.open(root, run=RUN)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def _repositories(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Repositories:
    server = request.getfixturevalue("database") if request.param == "postgres" else None
    return Repositories(tmp_path_factory.mktemp(request.param), server)


@pytest.fixture
def repositories(_repositories: Repositories) -> Iterator[Repositories]:
    yield _repositories
    _repositories.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "repo"


@pytest.fixture
def butler(repositories: Repositories, root: Path) -> Butler:
    return repositories.with_camera(root)


@pytest.fixture(autouse=True)
def _nothing_cached() -> Iterator[None]:
    current().clear_cache()
    yield
    current().clear_cache()


def ccd_id(detector: int = 4) -> dict[str, int | str]:
    return {**VISIT, "detector": detector}


def put_ccds(
    butler: Butler, detectors: int = 2, shape: tuple[int, int] = (30, 40)
) -> tuple[DatasetRef, list[DatasetRef]]:
    """Store a visit, and exposures that link to it."""
    whole = ch5.Composite("visit", visit_info=visit_info(), data_id=VISIT, stage="raw")
    calib = ch5.PhotoCalib(57.5, 0.25)
    ccds = [exposure(shape, photo_calib=calib).replace(data_id=ccd_id(d)) for d in range(detectors)]
    return put_visit(butler, whole, ccds)


def move_file(butler: Butler, ref: DatasetRef, path: str) -> None:
    """Move the file of a dataset to another place in its datastore, which no link to it knows."""
    old = butler.getURI(ref)
    roots = butler.get_datastore_roots().values()
    new = Path(next(root for root in roots if root and old.relative_to(root) is not None).ospath, path)
    new.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(old.ospath, new)
    butler.pruneDatasets([ref], disassociate=False, unstore=True, purge=False)
    butler.ingest(FileDataset(str(new), [ref], formatter=CompositeFormatter), transfer=None)


def put_overlay_and_catalog(butler: Butler, base: DatasetRef) -> tuple[DatasetRef, DatasetRef]:
    """Store an overlay, and a catalogue that links to its calibration."""
    overlay = put_overlay(butler, base, {"wcs": simple_wcs((30, 40))}, "calexp", run="u/jointcal", stage="jointcal")
    table = Table({"id": np.arange(100), "flux": pixels((100,))})
    register_dataset_type(butler, "src_table", "source_catalog")
    parts = butler.put(ch5.Composite("source_catalog", table=table), "src_table", base.dataId)
    sources = {"table": parts, "photo_calib": overlay, "wcs": overlay, "visit_info": overlay}
    return overlay, put_links(butler, "src", sources, base.dataId.required, definition="source_catalog", run="u/src")


def content(butler: Butler, refs: list[DatasetRef]) -> dict[str, dict[str, str]]:
    """Return digests of all components of composites, read from where the links lead."""
    current().clear_cache()
    return {str(ref.id): {name: digest_of(value) for name, value in butler.get(ref).items()} for ref in refs}


def digest_of(value: object) -> str:
    return ch5.Composite(None, {"value": value}).component_digest("value")


def states(butler: Butler) -> dict[tuple[str, str], str]:
    return {(checked.ref.datasetType.name, checked.component): checked.state for checked in check(butler)}


def native_targets(path: Path) -> list[str]:
    """Return the files of the external links of a composite, as HDF5 sees them."""
    with h5py.File(path) as file:
        found = [file["composite"].get(name, getlink=True) for name in file["composite"]]
        return [link.filename for link in found if isinstance(link, h5py.ExternalLink)]


@pytest.fixture
def moved(butler: Butler, root: Path, tmp_path: Path, repositories: Repositories) -> Butler:
    """Return a repository into which datasets were imported to places of other templates."""
    _, (first, second) = put_ccds(butler)
    _, catalog = put_overlay_and_catalog(butler, first)
    export_closure(butler, [catalog, second], tmp_path / "export")
    target = repositories.new(tmp_path / "new", OTHER_TEMPLATES)
    target.import_(directory=str(tmp_path / "export"), filename="export.yaml", transfer="copy")
    shutil.rmtree(tmp_path / "export")
    root.rename(tmp_path / "old")
    return target
