"""The story of test_story.py in repositories: put, overlaid, subset, sent, split, ingested, pruned, checked."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import QTable

import compositeh5 as ch5
from compositeh5.composite.session import current
from compositeh5.demo.simulate import Camera, simulate_exposure, simulate_visit

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")

from butler_support import RUN, SEED, files_of
from lsst.daf.butler import Butler, Config, DatasetRef, DatasetType, FileDataset

from compositeh5.butler import check, link, put_overlay, put_visit, subset, users_of
from compositeh5.butler.datasets import storage_class_name
from compositeh5.butler.formatter import CompositeFormatter
from compositeh5.demo.repository import register_visit

CAMERA = Camera(12, 64)
TRACTS = {9812: range(1, 5), 9813: range(4, 8)}
"""The detectors that each tract covers: 4 is in both, 0 and those from 8 are in none."""
SENT = (9813, 7)
"""Tract and detector of the one that a colleague gets, and of which there is no catalogue."""
SINGLE_COMPONENT = ("wcs", "photo_calib", "visit_info")
"""The components that an overlay has of its own, or from the visit."""


@dataclass
class Story:
    """Who takes part, and where."""

    observatory: Path
    catalogs: Path
    colleague: Path
    visit: ch5.Composite
    exposures: list[ch5.Composite]
    tables: list[QTable]
    calexps: list[DatasetRef] = field(default_factory=list)
    overlays: dict[tuple[int, int], DatasetRef] = field(default_factory=dict)


def open_repository(root: Path) -> Butler:
    return Butler.from_config(str(root), run=RUN)


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    current().clear_cache()
    simulated = [simulate_exposure(CAMERA, detector, seed=1) for detector in range(CAMERA.detectors)]
    roots = [tmp_path / name for name in ("observatory", "catalogs", "colleague")]
    for root in roots:
        Butler.makeRepo(str(root), config=Config(SEED))
    exposures, tables = zip(*simulated, strict=True)
    yield Story(*roots, simulate_visit(CAMERA), list(exposures), list(tables))
    current().clear_cache()


def test_the_story(story: Story) -> None:
    butler = open_repository(story.observatory)
    a_visit_is_put(story, butler)
    both_tracts_are_calibrated_anew(story, butler)
    catalogs_use_the_new_calibrations(story, butler)
    catalogs_get_a_repository_of_their_own(story, butler)
    one_exposure_is_sent_split_and_ingested(story, butler)
    originals_that_nobody_refers_to_are_deleted(story, butler)
    one_that_is_in_use_is_deleted_nevertheless(story, butler)


def a_visit_is_put(story: Story, butler: Butler) -> None:
    register_visit(butler, story.visit, story.exposures)
    visit_ref, story.calexps = put_visit(butler, story.visit, story.exposures)
    for ref, exposure in zip(story.calexps, story.exposures, strict=True):
        stored = butler.get(ref)
        assert {name: target.id for name, target in stored.links.items()} == {"visit_info": str(visit_ref.id)}
        assert digests(exposure).items() <= digests(stored).items()
        assert np.array_equal(stored["image"].array, exposure["image"].array)


def both_tracts_are_calibrated_anew(story: Story, butler: Butler) -> None:
    before = contents(story.observatory)
    add_tracts(butler)
    for tract, detectors in TRACTS.items():
        for detector in detectors:
            base = story.calexps[detector]
            better = {"wcs": shifted(butler.get(base)["wcs"], tract), "photo_calib": ch5.PhotoCalib(tract / 100, 0.01)}
            ref = put_overlay(
                butler, base, better, "calexp_jointcal", data_id={"skymap": "demo", "tract": tract}, stage="jointcal"
            )
            story.overlays[tract, detector] = ref
            assert Path(butler.getURI(ref).ospath).stat().st_size < 64 * 1024
    after = contents(story.observatory)
    assert before.items() <= after.items()
    assert len(after) == len(before) + len(story.overlays)
    for (tract, detector), ref in story.overlays.items():
        overlay, base = butler.get(ref), butler.get(story.calexps[detector])
        overlay.require_stage("jointcal")
        old, new = digests(base), digests(overlay)
        assert {name for name in new if new[name] != old.get(name)} == {"wcs", "photo_calib"}
        assert butler.get(ref.makeComponentRef("photo_calib")).mean == tract / 100


def catalogs_use_the_new_calibrations(story: Story, butler: Butler) -> None:
    dimensions = butler.get_dataset_type("calexp_jointcal").dimensions
    storage_class = storage_class_name(ch5.get_definition("source_catalog"))
    butler.registry.registerDatasetType(DatasetType("src", dimensions, storage_class))
    for key, ref in story.overlays.items():
        if key != SENT:
            links = {name: link(butler, ref, name) for name in SINGLE_COMPONENT}
            catalog = ch5.Composite("source_catalog", {"table": story.tables[key[1]], **links})
            butler.put(catalog, "src", ref.dataId)
    assert not_ok(butler) == set()


def catalogs_get_a_repository_of_their_own(story: Story, butler: Butler) -> None:
    before = contents(story.observatory)
    catalogs = butler.query_datasets("src")
    expected = {ref.id: digests(butler.get(ref)) for ref in catalogs}
    done = subset(butler, open_repository(story.catalogs), catalogs)
    assert contents(story.observatory) == before
    assert {ref.datasetType.name for ref in done.parts} == {"calexp_jointcal_parts"}
    assert {ref.datasetType.name for ref in done.linked} == {"visit_metadata"}
    assert (len(done.refs), len(done.parts), len(done.linked)) == (len(catalogs), len(catalogs), 1)
    with out_of_reach(story.observatory):
        target = open_repository(story.catalogs)
        assert not_ok(target) == set()
        assert {ref.id: digests(target.get(ref)) for ref in target.query_datasets("src")} == expected
        for ref in catalogs:
            catalog = target.get(ref)
            assert np.all(catalog["table"]["id"] == story.tables[ref.dataId["detector"]]["id"])
            assert catalog["photo_calib"].mean == ref.dataId["tract"] / 100
            assert catalog["visit_info"] == story.visit["visit_info"]


def one_exposure_is_sent_split_and_ingested(story: Story, butler: Butler) -> None:
    sent = story.overlays[SENT]
    original = butler.get(sent)
    known = original["image"].array, digests(original)
    received = story.colleague / "received.h5"
    original.flatten(received)
    with out_of_reach(story.observatory, story.catalogs):
        mine = open_repository(story.colleague)
        with ch5.open(received) as flat:
            assert (flat.id, flat.links, digests(flat)) == (str(sent.id), {}, known[1])
            register_visit(mine, flat, [flat])
        add_tracts(mine)
        files = story.colleague / "files"
        ch5.trees.split([received], files / "calexp", shared="../visit/visit_{visit}.h5")
        received.unlink()
        (visit,) = ingest(mine, files / "visit", "visit_metadata")
        (again,) = ingest(mine, files / "calexp", "calexp_jointcal")
        assert (again.id, again.dataId) == (sent.id, sent.dataId)
        assert {(found.ref, found.component) for found in users_of(mine, [visit])} == {(again, "visit_info")}
        assert not_ok(mine) == set()
        overlay = mine.get(again)
        assert np.array_equal(overlay["image"].array, known[0])
        assert digests(overlay) == known[1]
        assert mine.get(again.makeComponentRef("visit_info")) == story.visit["visit_info"]


def originals_that_nobody_refers_to_are_deleted(story: Story, butler: Butler) -> None:
    roots = story.observatory, story.catalogs, story.colleague
    before = {root: contents(root) for root in roots}
    used = {found.link.id for found in users_of(butler, story.calexps) if found.link}
    unused = [ref for ref in story.calexps if str(ref.id) not in used]
    assert [ref.dataId["detector"] for ref in unused] == [0, 8, 9, 10, 11]
    # Of the one that was sent, the base is in use only by the overlay, and that by nobody.
    sent, base = story.overlays[SENT], story.calexps[SENT[1]]
    assert {found.ref for found in users_of(butler, [base])} == {sent}
    assert list(users_of(butler, [sent, base])) == []
    waste = [*unused, sent, base]
    paths = {butler.getURI(ref).ospath for ref in waste}
    butler.pruneDatasets(waste, disassociate=True, unstore=True, purge=True)
    for root, files in before.items():
        assert contents(root) == {path: digest for path, digest in files.items() if str(path) not in paths}
        assert not_ok(open_repository(root)) == set()


def one_that_is_in_use_is_deleted_nevertheless(story: Story, butler: Butler) -> None:
    roots = story.observatory, story.catalogs, story.colleague
    before = {root: contents(root) for root in roots}
    base = story.calexps[4]
    path = butler.getURI(base).ospath
    missed = {
        (story.overlays[tract, 4], component)
        for tract in TRACTS
        for component in set(story.exposures[4]) - {"wcs", "photo_calib"}
    }
    assert {(found.ref, found.component) for found in users_of(butler, [base])} == missed
    butler.pruneDatasets([base], disassociate=True, unstore=True, purge=True)
    assert not_ok(butler) == {(*link, "broken") for link in missed}
    for root, files in before.items():
        assert contents(root) == {name: digest for name, digest in files.items() if str(name) != path}
    assert not_ok(open_repository(story.catalogs)) == not_ok(open_repository(story.colleague)) == set()
    overlay = story.overlays[9812, 4]
    with pytest.raises(FileNotFoundError, match=r"image .* is lost"):
        butler.get(overlay.makeComponentRef("image"))
    assert butler.get(overlay.makeComponentRef("photo_calib")).mean == 98.12
    assert butler.get(overlay.makeComponentRef("visit_info")) == story.visit["visit_info"]


def add_tracts(butler: Butler) -> None:
    skymap = {"name": "demo", "hash": b"1", "tract_max": 20000, "patch_nx_max": 9, "patch_ny_max": 9}
    butler.registry.insertDimensionData("skymap", skymap)
    butler.registry.insertDimensionData("tract", *({"skymap": "demo", "id": tract} for tract in TRACTS))


def ingest(butler: Butler, folder: Path, name: str) -> list[DatasetRef]:
    """Make the files of a folder datasets, where they are, with the ids and data IDs that they say."""
    refs = []
    for path in folder.iterdir():
        with ch5.open(path) as composite:
            id_, data_id = uuid.UUID(composite.id), composite.data_id
            storage_class = storage_class_name(ch5.get_definition(composite.definition))
        dataset_type = DatasetType(name, tuple(data_id), storage_class, universe=butler.dimensions)
        butler.registry.registerDatasetType(dataset_type)
        refs.append(DatasetRef(dataset_type, butler.registry.expandDataId(data_id), run=RUN, id=id_))
        butler.ingest(FileDataset(str(path), [refs[-1]], formatter=CompositeFormatter), transfer="direct")
    return refs


def shifted(wcs: Any, tract: int) -> Any:
    new = deepcopy(wcs)
    new.wcs.crval = wcs.wcs.crval + tract * 1e-8
    new.wcs.set()
    return new


def digests(composite: ch5.Composite) -> dict[str, str]:
    return {name: composite.component_digest(name) for name in composite}


def contents(root: Path) -> dict[Path, str]:
    """Return digests of the bytes of all files of datasets."""
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files_of(root)}


def not_ok(butler: Butler) -> set[tuple[DatasetRef, str, str]]:
    """Return the links of a repository that don't find what they are meant to."""
    return {(found.ref, found.component, found.state) for found in check(butler) if found.state != "ok"}


@contextmanager
def out_of_reach(*roots: Path) -> Iterator[None]:
    """Have repositories elsewhere for a while, so that nothing finds them."""
    current().clear_cache()
    for root in roots:
        root.rename(root.with_name(f"{root.name}, out of reach"))
    yield
    current().clear_cache()
    for root in roots:
        root.with_name(f"{root.name}, out of reach").rename(root)
