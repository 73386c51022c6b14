"""Objects of ``lsst.images`` in a Butler, in our files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import counted_reads

import compositeh5 as ch5

pytest.importorskip("lsst.images", reason="needs lsst-images (the extra `images`)", exc_type=ImportError)
pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")

import images_samples as samples
from astropy import units as u
from butler_support import RUN, add_instrument
from lsst.daf.butler import Butler, Config, DatasetProvenance, DatasetRef, DatasetType, FileDataset
from lsst.images import Box, VisitImage
from lsst.images.tests import (
    assert_images_equal,
    assert_masked_images_equal,
    assert_psfs_equal,
    assert_visit_images_equal,
)

from compositeh5 import lsst_images

SEED = "resource://compositeh5/butler/configs/lsst_images.yaml"
BOX = Box.from_shape((8, 9), start=(40, 50))


def data_id(detector: int = 0, visit: int = 903334) -> dict[str, Any]:
    return {"instrument": "DemoCam", "visit": visit, "detector": detector}


@pytest.fixture(scope="module")
def butler(tmp_path_factory: pytest.TempPathFactory) -> Butler:
    root = tmp_path_factory.mktemp("images") / "repo"
    Butler.makeRepo(str(root), config=Config(SEED))
    butler = Butler.from_config(str(root), run=RUN)
    add_instrument(butler)
    for name, storage_class, dimensions in (
        ("visit_image", "VisitImage", ("visit", "detector")),
        ("deep_coadd", "CellCoadd", ("instrument",)),
        ("flat", "ImageV2", ("instrument", "detector")),
    ):
        butler.registry.registerDatasetType(DatasetType(name, dimensions, storage_class, universe=butler.dimensions))
    return butler


@pytest.fixture(scope="module")
def visit_image() -> VisitImage:
    return samples.visit_image()


@pytest.fixture(scope="module")
def ref(butler: Butler, visit_image: VisitImage) -> DatasetRef:
    source = butler.put(samples.visit_image(5, shape=(3, 4)).image, "flat", instrument="DemoCam", detector=5)
    provenance = DatasetProvenance()
    provenance.add_input(source)
    return butler.put(visit_image, "visit_image", data_id(), provenance=provenance)


def test_a_visit_image_comes_back_the_same(butler: Butler, ref: DatasetRef, visit_image: VisitImage) -> None:
    back = butler.get(ref)
    assert_visit_images_equal(visit_image, back)
    assert dict(back.metadata) == dict(visit_image.metadata)
    assert DatasetRef.from_simple(back.butler_dataset, universe=butler.dimensions) == ref
    assert [each.datasetType.name for each in map_refs(back, butler)] == ["flat"]
    path = butler.getURI(ref).ospath
    assert path.endswith(".h5")
    with ch5.open(path) as composite:
        assert composite.id == str(ref.id)
        assert composite.data_id == data_id()
        assert "flat" in composite.provenance["butler"].values()
        assert composite["image"].unit == u.nJy


def map_refs(image: VisitImage, butler: Butler) -> list[DatasetRef]:
    return [DatasetRef.from_simple(each, universe=butler.dimensions) for each in image.butler_provenance.inputs]


def test_each_component_is_got_alone(butler: Butler, ref: DatasetRef, visit_image: VisitImage) -> None:
    names = butler.get_dataset_type("visit_image").storageClass.derivedComponents
    assert len(names) >= 15
    assert_psfs_equal(butler.get("visit_image.psf", data_id()), visit_image.psf)
    for name in ("obs_info", "detector", "summary_stats", "bounds", "bbox", "unit", "photometric_scaling"):
        with counted_reads() as count:
            assert butler.get(f"visit_image.{name}", data_id()) == getattr(visit_image, name)
            assert count() < 300_000
    together = butler.get("visit_image.components", data_id())
    assert together.keys() == names.keys() - {"components", "masked_image"}
    np.testing.assert_array_equal(together["variance"].array, visit_image.variance.array)
    for name in names.keys() - {"components"}:
        assert butler.get(ref.makeComponentRef(name)) is not None


def test_a_box_is_got_alone(butler: Butler, ref: DatasetRef, visit_image: VisitImage) -> None:
    expected = visit_image[BOX]
    ours = ch5.Box(40, 48, 50, 59)
    for box in (BOX, ours):
        assert_visit_images_equal(butler.get(ref, parameters={"bbox": box}), expected)
        part = butler.get("visit_image.masked_image", data_id(), parameters={"bbox": box})
        assert_images_equal(part.image, expected.image)
        np.testing.assert_array_equal(
            butler.get("visit_image.mask", data_id(), parameters={"bbox": box}).array, expected.mask.array
        )
    wanted = {"bbox": BOX, "components": ["image", "psf"]}
    some = butler.get("visit_image.components", data_id(), parameters=wanted)
    assert list(some) == ["image", "psf"]
    np.testing.assert_array_equal(some["image"].array, expected.image.array)


def test_wrong_questions_are_named(butler: Butler, ref: DatasetRef) -> None:
    for parameters, message in (
        ({"components": ["wings"]}, "VisitImage has no component 'wings'"),
        ({"components": ["components"]}, "no component 'components'"),
        ({"components": ["psf"], "bbox": BOX}, r"no component of \['psf'\] has the parameter 'bbox'"),
        ({"components": [], "bbox": BOX}, r"no component of \[\] has the parameter 'bbox'"),
    ):
        # The Butler makes its own error of what a formatter raises.
        with pytest.raises(ValueError, match=message):
            butler.get("visit_image.components", data_id(), parameters=parameters)
    with pytest.raises(ValueError, match="parameter of the component"):
        butler.get(ref, parameters={"components": ["psf"]})
    with pytest.raises(ValueError, match=r"bbox=.*not wholly|stop|start|within|contain"):
        butler.get(ref, parameters={"bbox": Box.from_shape((5, 5), start=(10**6, 0))})


def test_other_types_are_stored_too(butler: Butler) -> None:
    coadd = samples.cell_coadd()
    ref = butler.put(coadd, "deep_coadd", instrument="DemoCam")
    back = butler.get(ref)
    assert_masked_images_equal(coadd, back)
    assert len(back.provenance.inputs) == 3
    assert butler.get(ref.makeComponentRef("provenance")).inputs["visit"].tolist() == [101, 102, 103]


def test_files_that_share_are_ingested(butler: Butler, tmp_path: Path) -> None:
    images = {number: samples.visit_image(number, shape=(20, 30)) for number in (1, 2)}
    files = {
        tmp_path / f"ccd_{number}.h5": lsst_images.to_composite(image, data_id=data_id(number, 903335))
        for number, image in images.items()
    }
    ch5.trees.write_together(files, str(tmp_path / "visit.h5"))
    dataset_type = butler.get_dataset_type("visit_image")
    refs = [
        DatasetRef(dataset_type, butler.registry.expandDataId(data_id(number, 903335)), run=RUN) for number in images
    ]
    datasets = [FileDataset(str(path), [ref]) for path, ref in zip(files, refs, strict=True)]
    butler.ingest(*datasets, transfer="direct")
    for ref, image in zip(refs, images.values(), strict=True):
        assert_visit_images_equal(butler.get(ref), image)
        assert butler.get(ref.makeComponentRef("obs_info")) == image.obs_info
