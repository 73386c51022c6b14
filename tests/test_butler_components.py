"""Overlays, single components and composites of links in the Butler."""

# ruff: noqa: F811 (fixtures of another module)

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy.wcs import WCS
from support import counted_reads, exposure, simple_wcs, visit_info

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.composite.session import current
from compositeh5.trees.verify import verify

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")

from butler_support import (  # noqa: F401
    CCD,
    DISASSEMBLED,
    RUN,
    TRACT,
    VISIT,
    butler,
    ccd,
    digests,
    files_of,
    new_repo,
    nothing_cached,
    register,
    root,
    visit,
)
from lsst.daf.butler import Butler, DatasetRef

from compositeh5.butler import gather, link, put_component, put_links, put_overlay, put_visit


@pytest.fixture
def apart(tmp_path: Path) -> Butler:
    return new_repo(tmp_path / "apart", DISASSEMBLED)


def put_base(butler: Butler, shape: tuple[int, int] = (30, 40)) -> tuple[DatasetRef, DatasetRef]:
    """Store a visit and an exposure that links to it."""
    visit_ref, (ref,) = put_visit(butler, visit(), [ccd(shape=shape, photo_calib=None)])
    return visit_ref, ref


def better_wcs() -> WCS:
    wcs = simple_wcs((30, 40))
    wcs.wcs.crval = [150.2, 2.3]
    wcs.wcs.set()
    return wcs


CALIB = ch5.PhotoCalib(57.5, 0.25)


# ---- Stages, versions and lists -------------------------------------------------------------------------------


def test_an_overlay_tells_stages_origins_and_history(butler: Butler) -> None:
    _, base = put_base(butler)
    first = put_overlay(butler, base, {"wcs": better_wcs()}, "calexp", run="u/jointcal", stage="jointcal", keep=["wcs"])
    second = put_overlay(butler, first, {"photo_calib": CALIB}, "calexp", run="u/fgcm", stage="fgcm")
    c = butler.get(second)
    assert [step["id"] for step in c.provenance["history"]] == [str(base.id), str(first.id)]
    assert [step.get("run") for step in c.provenance["history"]] == [RUN, "u/jointcal"]
    assert c.component_origin("image").id == str(base.id)
    assert c.component_origin("wcs").run == "u/jointcal"
    assert c.versions("wcs") == ("jointcal", "single_frame")
    assert c.read_version("wcs", "single_frame").wcs.crval.tolist() == [150.1, 2.2]
    with pytest.raises(errors.StageError, match="wcs is at jointcal, single_frame"):
        c.require_stage("fgcm")
    assert c.require_stage("fgcm", fallback="jointcal").fallbacks == {"wcs": "jointcal"}
    chosen = c.require_stage("single_frame", ["wcs"])
    assert chosen["wcs"].wcs.crval.tolist() == [150.1, 2.2]


def test_versions_are_not_disassembled(apart: Butler) -> None:
    _, base = put_base(apart)
    with pytest.raises(Exception, match="several versions of components; these can't be disassembled"):
        put_overlay(apart, base, {"wcs": better_wcs()}, "calexp", run="u/j", stage="jointcal", keep=["wcs"])


def test_a_list_of_all_detectors_of_a_visit(butler: Butler) -> None:
    put_visit(butler, visit(), [ccd(d, image=ch5.Image(np.full((30, 40), d, np.float32))) for d in (3, 1, 2)])
    register(butler, "mosaic", VISIT, "CompositeH5RawV1")
    members = gather(butler, "calexp", "image", VISIT, key="detector", expected=[1, 2, 3])
    with counted_reads() as count:
        ref = put_links(butler, "mosaic", {"amplifiers": members}, VISIT)
        assert count() < 200_000
    current().clear_cache()
    assert [image.array[0, 0] for image in butler.get(ref)["amplifiers"]] == [1, 2, 3]
    assert [image.array[0, 0] for image in butler.get("mosaic.amplifiers", VISIT, parameters={"items": [2]})] == [3]
    with pytest.raises(errors.NoSuchComponentError, match="missing for detector = 4, 5; it is there for 1, 2, 3"):
        gather(butler, "calexp", "image", VISIT, key="detector", expected=range(1, 6))
    assert len(gather(butler, "calexp", "image", VISIT, key="detector", expected=range(1, 6), missing="skip")) == 3
    with pytest.raises(errors.NoSuchComponentError, match="there is no composite"):
        gather(butler, "calexp", "image", {**VISIT, "visit": 903335}, key="detector")


# ---- Overlays -----------------------------------------------------------------------------------------------


def test_an_overlay_shows_the_base_but_for_what_changed(butler: Butler) -> None:
    visit_ref, base = put_base(butler)
    before = Path(butler.getURI(base).ospath).read_bytes()
    ref = put_overlay(
        butler, base, {"wcs": better_wcs(), "photo_calib": CALIB}, "calexp", run="u/jointcal", stage="jointcal"
    )
    old, new = butler.get(base), butler.get(ref)
    assert (ref.run, ref.dataId) == ("u/jointcal", base.dataId)
    assert new["wcs"].wcs.crval.tolist() == [150.2, 2.3]
    assert new["photo_calib"].mean == 57.5
    assert new.absent == ()
    same = {name: digest for name, digest in digests(old).items() if name != "wcs"}
    assert {name: digests(new)[name] for name in same} == same
    assert np.array_equal(new["image"].array, old["image"].array)
    assert {name: new.component_stage(name) for name in ("wcs", "photo_calib", "image", "visit_info")} == {
        "wcs": "jointcal",
        "photo_calib": "jointcal",
        "image": "single_frame",
        "visit_info": "raw",
    }
    assert {target.id for target in new.links.values()} == {str(base.id), str(visit_ref.id)}
    assert Path(butler.getURI(base).ospath).read_bytes() == before
    with ch5.open(butler.getURI(ref).ospath) as stored:
        verify(stored)
        assert stored.id == str(ref.id)
        assert stored.run == "u/jointcal"
        assert str(base.id) in str(stored.provenance["butler"])


def test_an_overlay_is_small_and_reads_no_pixel(butler: Butler, root: Path) -> None:
    _, base = put_base(butler, (1500, 2000))
    pixels = Path(butler.getURI(base).ospath).stat().st_size
    before = files_of(root)
    changes = {"wcs": better_wcs()}
    with counted_reads() as count:
        ref = put_overlay(butler, base, changes, "calexp", run="u/jointcal")
        assert count() < 300_000
    (new,) = files_of(root) - before
    assert new == Path(butler.getURI(ref).ospath)
    assert new.stat().st_size < 65536 < pixels / 100
    # Other HDF5 software finds the pixels through the link.
    with h5py.File(new) as file, h5py.File(butler.getURI(base).ospath) as original:
        native = file["composite"].get("image", getlink=True)
        assert native.filename == os.path.relpath(original.filename, new.parent)
        assert np.array_equal(file["composite/image"][:3], original["composite/image"][:3])


def test_an_overlay_may_have_more_keys_than_its_base(butler: Butler) -> None:
    _, base = put_base(butler)
    ref = put_overlay(butler, base, {"wcs": better_wcs()}, "calexp_tract", data_id=TRACT)
    assert ref.dataId["tract"] == 9813
    assert set(ref.datasetType.dimensions.required) == {*CCD, *TRACT}
    assert ref.datasetType.storageClass_name == base.datasetType.storageClass_name
    got = butler.get("calexp_tract", {**CCD, **TRACT})
    assert got.data_id == {**CCD, **TRACT}
    assert got["image"].shape == (30, 40)
    assert butler.get("calexp_tract.visit_info", {**CCD, **TRACT}) == visit_info()


def test_an_overlay_of_an_overlay_links_to_where_components_are_stored(butler: Butler) -> None:
    visit_ref, base = put_base(butler)
    first = put_overlay(butler, base, {"wcs": better_wcs()}, "calexp", run="u/first")
    second = put_overlay(butler, first, {"photo_calib": CALIB}, "calexp", run="u/second")
    got = butler.get(second)
    ids = {name: target.id for name, target in got.links.items()}
    assert ids["image"] == str(base.id)
    assert ids["visit_info"] == str(visit_ref.id)
    assert ids["wcs"] == str(first.id)
    assert got["wcs"].wcs.crval.tolist() == [150.2, 2.3]


def test_an_overlay_of_an_overlay_in_a_moved_repository(butler: Butler, root: Path, tmp_path: Path) -> None:
    _, base = put_base(butler)
    first = put_overlay(butler, base, {"wcs": better_wcs()}, "calexp", run="u/first")
    root.rename(tmp_path / "elsewhere")
    current().clear_cache()
    moved = Butler.from_config(str(tmp_path / "elsewhere"), run=RUN)
    got = moved.get(put_overlay(moved, first, {"photo_calib": CALIB}, "calexp", run="u/second"))
    assert got["image"].shape == (30, 40)
    assert got["visit_info"] == visit_info()
    assert all(target.uri.startswith(str(tmp_path / "elsewhere")) for target in got.links.values())


def test_an_overlay_of_a_disassembled_composite(apart: Butler) -> None:
    _, base = put_base(apart)
    assert apart.getURIs(base).primaryURI is None
    ref = put_overlay(apart, base, {"wcs": better_wcs()}, "calexp", run="u/jointcal")
    old, new = apart.get(base), apart.get(ref)
    assert new.definition == "exposure"
    assert {n: d for n, d in digests(new).items() if n != "wcs"} == {
        n: d for n, d in digests(old).items() if n != "wcs"
    }
    assert new["wcs"].wcs.crval.tolist() == [150.2, 2.3]
    uris = apart.getURIs(ref).componentURIs
    with ch5.open(uris["image"].ospath) as stored:
        assert stored.links["image"].id == str(base.id)


def test_an_overlay_of_a_handle(butler: Butler) -> None:
    _, base = put_base(butler)
    ref = put_overlay(butler, butler.getDeferred(base), {"psf": None}, "calexp", run="u/none")
    assert butler.get(ref.makeComponentRef("psf")) is None
    with pytest.raises(ValueError, match="the handle has parameters"):
        put_overlay(butler, butler.getDeferred(base, parameters={"bbox": None}), {}, "calexp", run="u/none")


def test_overlays_that_cannot_be(butler: Butler, root: Path) -> None:
    _, base = put_base(butler)
    before = files_of(root)
    with pytest.raises(errors.DefinitionError, match="has no component 'wsc'"):
        put_overlay(butler, base, {"wsc": better_wcs()}, "calexp", run="u/jointcal")
    with pytest.raises(errors.EncodeError, match="component 'wcs'"):
        put_overlay(butler, base, {"wcs": 3}, "calexp", run="u/jointcal")
    with pytest.raises(Exception, match="(?i)constraint"):
        put_overlay(butler, base, {"wcs": better_wcs()}, "calexp")
    assert files_of(root) == before
    butler.pruneDatasets([base], disassociate=False, unstore=True)
    with pytest.raises(FileNotFoundError):
        put_overlay(butler, base, {"wcs": better_wcs()}, "calexp", run="u/jointcal")


def test_an_overlay_keeps_links_that_the_butler_does_not_know(butler: Butler, tmp_path: Path) -> None:
    outside = visit()
    outside.write(tmp_path / "outside.h5")
    base = butler.put(ccd(visit_info=outside.link("visit_info")), "calexp", CCD)
    ref = put_overlay(butler, base, {"wcs": better_wcs()}, "calexp", run="u/jointcal")
    assert butler.get(ref.makeComponentRef("visit_info")) == visit_info()


# ---- Single components --------------------------------------------------------------------------------------


def test_a_component_is_put_into_another_run(butler: Butler) -> None:
    _, base = put_base(butler)
    ref = put_component(butler, better_wcs(), "calexp.wcs", CCD, run="u/jointcal", stage="jointcal")
    assert ref.datasetType == base.datasetType
    later = ["u/jointcal", RUN]
    assert butler.get("calexp.wcs", CCD, collections=later).wcs.crval.tolist() == [150.2, 2.3]
    assert butler.get("calexp.wcs", CCD).wcs.crval.tolist() == [150.1, 2.2]
    assert butler.get("calexp.image", CCD, collections=later).shape == (30, 40)
    second = put_component(butler, CALIB, "calexp.photo_calib", CCD, run="u/fgcm", collections=later)
    got = butler.get(second)
    assert got["wcs"].wcs.crval.tolist() == [150.2, 2.3]
    assert got["photo_calib"].mean == 57.5
    with pytest.raises(errors.NoSuchComponentError, match="names no component"):
        put_component(butler, CALIB, "calexp", CCD, run="u/fgcm")
    with pytest.raises(FileNotFoundError, match="there is no calexp with data ID"):
        put_component(butler, CALIB, "calexp.wcs", {**CCD, "detector": 5}, run="u/fgcm")


# ---- Composites of links ------------------------------------------------------------------------------------


def test_a_composite_of_what_other_tasks_stored(butler: Butler, root: Path) -> None:
    visit_ref, _ = put_base(butler)
    given = exposure((1500, 2000))
    sources: dict[str, Any] = {"visit_info": visit_ref}
    for name, storage_class in (("image", "Image"), ("mask", "Mask"), ("wcs", "Wcs"), ("psf", "Psf")):
        task_output = register(butler, f"task_{name}", CCD, f"CompositeH5{storage_class}V1")
        sources[name] = butler.put(given[name], task_output, CCD)
    sources["wcs"] = butler.getDeferred(sources["wcs"])
    before = files_of(root)
    with counted_reads() as count:
        ref = put_links(butler, "joined", sources, CCD, definition="exposure", run="u/joined", stage="join")
        assert count() < 400_000
    (new,) = files_of(root) - before
    assert new.stat().st_size < 65536
    got = butler.get(ref)
    expected = digests(given)
    assert {name: digests(got)[name] for name in ("image", "mask", "wcs", "psf")} == {
        name: expected[name] for name in ("image", "mask", "wcs", "psf")
    }
    assert got["visit_info"] == visit_info()
    assert got.definition == "exposure"
    assert set(got.links) == set(sources)
    inputs = str(got.provenance["butler"])
    assert all(str(id_) in inputs for id_ in {target.id for target in got.links.values()})
    assert got["image"].shape == (1500, 2000)


def test_components_of_composites_under_other_names(butler: Butler) -> None:
    _, base = put_base(butler)
    sources = {
        "image": (base, "variance"),
        "variance": base.makeComponentRef("image"),
        "visit_info": base,
        "wcs": link(butler, base, "wcs"),
    }
    got = butler.get(put_links(butler, "calexp", sources, CCD, run="u/swapped"))
    whole = butler.get(base)
    assert got.component_digest("image") == whole.component_digest("variance")
    assert got.component_digest("variance") == whole.component_digest("image")
    # A component that the source links to is linked to where it is stored.
    assert got.links["visit_info"] == whole.links["visit_info"]
    assert got["visit_info"] == visit_info()


def test_composites_of_links_that_cannot_be(butler: Butler, root: Path) -> None:
    _, base = put_base(butler)
    before = files_of(root)
    with pytest.raises(errors.AbsentComponentError, match="'photo_calib' is absent"):
        put_links(butler, "calexp", {"image": base, "photo_calib": base}, CCD, run="u/joined")
    with pytest.raises(errors.DefinitionError, match="should be of kind 'wcs', but the link to .* is of kind 'image'"):
        put_links(butler, "calexp", {"image": base, "wcs": (base, "image")}, CCD, run="u/joined")
    with pytest.raises(errors.DefinitionError, match="image"):
        put_links(butler, "calexp", {"wcs": base}, CCD, run="u/joined")
    with pytest.raises(LookupError, match="nothing"):
        put_links(butler, "nothing", {"image": base}, CCD, run="u/joined")
    handle = butler.getDeferred(base, parameters={"bbox": None})
    with pytest.raises(ValueError, match="has parameters"):
        put_links(butler, "calexp", {"image": handle}, CCD, run="u/joined")
    assert files_of(root) == before
