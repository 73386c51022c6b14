"""What composites link to: carried along, checked, and found again; with the functions and with `butler`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.table import Table
from support import counted_reads, exposure, pixels, simple_wcs, visit_info

import compositeh5 as ch5
from compositeh5 import errors, links

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")

from butler_support import RUN, SEED, create_repo, create_repo_with, files_of
from lsst.daf.butler import Butler, Config, DatasetRef, DatasetType

from compositeh5.butler import (
    export_closure,
    linked_refs,
    put_links,
    put_overlay,
    put_visit,
    register_dataset_type,
    retrieve_closure,
    transfer_closure,
)

VISIT = {"instrument": "DemoCam", "visit": 903334}
FILE_DATASTORE = "lsst.daf.butler.datastores.fileDatastore.FileDatastore"
DISASSEMBLED = {"cls": FILE_DATASTORE, "composites": {"disassembled": {"CompositeH5ExposureV1": True}}}
OTHER_TEMPLATES = {"cls": FILE_DATASTORE, "templates": {"default": "{run}/elsewhere/{datasetType}/{id}"}}


@pytest.fixture(scope="module")
def empty_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("closure") / "repo"
    create_repo(root)
    return root


@pytest.fixture
def root(empty_repo: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(empty_repo, tmp_path / "repo"))


@pytest.fixture
def butler(root: Path) -> Butler:
    return Butler.from_config(str(root), run=RUN)


@pytest.fixture(autouse=True)
def _nothing_cached() -> Iterator[None]:
    links.cache.clear()
    yield
    links.cache.clear()


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


def put_overlay_and_catalog(butler: Butler, base: DatasetRef) -> tuple[DatasetRef, DatasetRef]:
    """Store an overlay, and a catalogue that links to its calibration."""
    overlay = put_overlay(butler, base, {"wcs": simple_wcs((30, 40))}, "calexp", run="u/jointcal", stage="jointcal")
    table = Table({"id": np.arange(100), "flux": pixels((100,))})
    register_dataset_type(butler, "src_table", "source_catalog")
    parts = butler.put(ch5.Composite("source_catalog", table=table), "src_table", base.dataId)
    sources = {"table": parts, "photo_calib": overlay, "wcs": overlay, "visit_info": overlay}
    return overlay, put_links(butler, "src", sources, base.dataId.required, definition="source_catalog", run="u/src")


def new_repo(root: Path, datastore: dict[str, object] | None = None) -> Butler:
    """Make a repository that knows nothing."""
    config = Config(SEED)
    if datastore is not None:
        config.update({"datastore": datastore})
    Butler.makeRepo(str(root), config=config)
    return Butler.from_config(str(root), writeable=True)


def content(butler: Butler, refs: list[DatasetRef]) -> dict[str, dict[str, str]]:
    """Return digests of all components of composites, read from where the links lead."""
    links.cache.clear()
    return {str(ref.id): {name: digest_of(value) for name, value in butler.get(ref).items()} for ref in refs}


def digest_of(value: object) -> str:
    return ch5.Composite(None, {"value": value}).component_digest("value")


# ---- What is linked -----------------------------------------------------------------------------------------


def test_all_that_is_linked_is_found_once(butler: Butler) -> None:
    visit_ref, (first, second) = put_ccds(butler)
    assert linked_refs(butler, [visit_ref]) == []
    assert linked_refs(butler, [first, second]) == [visit_ref]
    overlay, catalog = put_overlay_and_catalog(butler, first)
    assert set(linked_refs(butler, [overlay])) == {first, visit_ref}
    # Through the overlay, whose WCS the catalogue uses, to the pixels of its base.
    (table,) = butler.query_datasets("src_table")
    assert set(linked_refs(butler, [catalog])) == {table, overlay, first, visit_ref}
    assert set(linked_refs(butler, [catalog, first])) == {table, overlay, visit_ref}
    assert linked_refs(butler, [first.makeComponentRef("visit_info")]) == [visit_ref]


def test_no_component_is_read_to_find_what_is_linked(butler: Butler) -> None:
    _, refs = put_ccds(butler, 2, (1500, 1000))
    with counted_reads() as count:
        linked_refs(butler, refs)
        assert count() < 400_000


def test_links_in_nested_composites_count(butler: Butler) -> None:
    visit_ref, (ref,) = put_ccds(butler, 1)
    with ch5.open(butler.getURI(ref).ospath) as stored:
        link = stored.links["visit_info"]
    inner = ch5.Composite(None, visit_info=link, note="of an amplifier")
    dataset_type = DatasetType("nested", tuple(VISIT), "CompositeH5RawV1", universe=butler.dimensions)
    butler.registry.registerDatasetType(dataset_type)
    nested = butler.put(ch5.Composite(None, amplifiers=[inner, inner]), dataset_type, VISIT)
    assert linked_refs(butler, [nested]) == [visit_ref]


def test_datasets_that_are_no_composites_have_no_links(butler: Butler) -> None:
    dataset_type = DatasetType("plain", ("instrument",), "StructuredDataDict", universe=butler.dimensions)
    butler.registry.registerDatasetType(dataset_type)
    assert linked_refs(butler, [butler.put({"a": 1}, dataset_type, instrument="DemoCam")]) == []


def test_linked_datasets_that_are_missing_are_named(butler: Butler, tmp_path: Path) -> None:
    visit_ref, refs = put_ccds(butler)
    butler.pruneDatasets([visit_ref], disassociate=False, unstore=True)
    with pytest.raises(errors.BrokenLinkError, match=r"calexp.*visit_info -> visit_metadata.visit_info") as raised:
        linked_refs(butler, refs)
    assert str(visit_ref.id) in str(raised.value)
    assert linked_refs(butler, refs, missing="ignore") == []
    target = new_repo(tmp_path / "new")
    with pytest.raises(errors.BrokenLinkError):
        transfer_closure(butler, target, refs)
    assert not files_of(tmp_path / "new")


# ---- Taking it along ----------------------------------------------------------------------------------------


def test_a_transfer_takes_along_exactly_what_is_linked(butler: Butler, root: Path, tmp_path: Path) -> None:
    visit_ref, (first, _) = put_ccds(butler)
    overlay, catalog = put_overlay_and_catalog(butler, first)
    expected = content(butler, [catalog, overlay, first])
    target = new_repo(tmp_path / "new")
    moved = transfer_closure(butler, target, [catalog])
    assert moved[0] == catalog
    found = {ref.id for ref in target.query_all_datasets("*", find_first=False)}
    assert found == {ref.id for ref in moved} == {catalog.id, overlay.id, first.id, visit_ref.id, moved[1].id}
    assert len(files_of(tmp_path / "new")) == 5
    shutil.rmtree(root)
    assert content(target, [catalog, overlay, first]) == expected


def test_a_transfer_can_be_repeated(butler: Butler, tmp_path: Path) -> None:
    _, (first, second) = put_ccds(butler)
    target = new_repo(tmp_path / "new")
    transfer_closure(butler, target, [first])
    before = {path: path.stat().st_mtime_ns for path in files_of(tmp_path / "new")}
    transfer_closure(butler, target, [first, second])
    after = {path: path.stat().st_mtime_ns for path in files_of(tmp_path / "new")}
    assert before.items() <= after.items()
    assert len(after) == len(before) + 1


def test_files_are_retrieved_with_what_they_link_to(butler: Butler, root: Path, tmp_path: Path) -> None:
    _, (first, _) = put_ccds(butler)
    files = retrieve_closure(butler, [first], tmp_path / "out")
    assert len(files) == 2
    shutil.rmtree(root)
    (path,) = (Path(file.ospath) for file in files if "calexp" in file.ospath)
    with ch5.open(path) as stored, h5py.File(path) as file:
        assert stored["visit_info"] == visit_info()
        assert file["composite/visit_info/airmass"][()] == 1.0625


def test_an_export_has_what_is_linked(butler: Butler, root: Path, tmp_path: Path) -> None:
    visit_ref, (first, _) = put_ccds(butler)
    overlay, catalog = put_overlay_and_catalog(butler, first)
    expected = content(butler, [catalog, overlay, first])
    (tmp_path / "export").mkdir()
    assert {ref.id for ref in export_closure(butler, [catalog], tmp_path / "export")} >= {visit_ref.id, overlay.id}
    assert len(files_of(tmp_path / "export")) == 5
    shutil.rmtree(root)
    target = new_repo(tmp_path / "new")
    target.import_(directory=str(tmp_path / "export"), filename="export.yaml", transfer="copy")
    shutil.rmtree(tmp_path / "export")
    assert content(target, [catalog, overlay, first]) == expected


def test_an_export_of_disassembled_composites(tmp_path: Path) -> None:
    apart = create_repo_with(tmp_path / "apart", {"datastore": DISASSEMBLED})
    visit_ref, (first,) = put_ccds(apart, 1)
    overlay, catalog = put_overlay_and_catalog(apart, first)
    refs = [catalog, overlay, first, visit_ref]
    expected = content(apart, refs)
    (tmp_path / "export").mkdir()
    export_closure(apart, [catalog], tmp_path / "export")
    del apart
    shutil.rmtree(tmp_path / "apart")
    # The exported files are whole without a Butler...
    for path in (tmp_path / "export").rglob("*.h5"):
        with ch5.open(path) as stored:
            assert not any(os.path.isabs(target) for target in native_targets(path))
            assert stored.load().keys() == stored.keys()
            for name in stored:
                stored[name]
    # ... and can be used where they are.
    target = new_repo(tmp_path / "export")
    target.import_(directory=str(tmp_path / "export"), filename="export.yaml", transfer=None)
    assert content(target, refs) == expected
    assert target.get(first).definition == "exposure"
    assert (target.get(first).id, target.get(first).run) == (str(first.id), RUN)


def native_targets(path: Path) -> list[str]:
    """Return the files of the external links of a composite, as HDF5 sees them."""
    with h5py.File(path) as file:
        found = [file["composite"].get(name, getlink=True) for name in file["composite"]]
        return [link.filename for link in found if isinstance(link, h5py.ExternalLink)]
