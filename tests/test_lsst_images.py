"""Objects of ``lsst.images`` as composites."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import pages
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from range_server import range_server
from support import counted_reads, tool

import compositeh5 as ch5
from compositeh5.errors import (
    BrokenLinkError,
    DigestMismatchError,
    EncodeError,
    FormatError,
    NoSuchComponentError,
    OutsideError,
    UnknownKindError,
    UnsupportedParameterError,
    UnsupportedVersionError,
)

pytest.importorskip(
    "lsst.images", reason="needs lsst-images (the extra `images`, on Python 3.12)", exc_type=ImportError
)

import images_samples as samples
import pydantic
from astropy import units as u
from astropy.table import Table
from lsst.images import Box, ColorImage, FrameSet, Image, MaskedImage, ObservationSummaryStats, VisitImage
from lsst.images.cells import CellCoadd
from lsst.images.fields import ChebyshevField, SplineField, SumField
from lsst.images.json import write as write_json
from lsst.images.serialization import (
    ArchiveInfo,
    ArchiveReadError,
    ArchiveTree,
    ArrayReferenceModel,
    InlineArrayModel,
    JsonRef,
    Reader,
    TableModel,
)
from lsst.images.tests import (
    assert_images_equal,
    assert_masked_images_equal,
    assert_masks_equal,
    assert_psfs_equal,
    assert_sky_projections_equal,
    assert_visit_images_equal,
)

from compositeh5 import lsst_images
from compositeh5.lsst_images import CompositeInputArchive
from compositeh5.lsst_images._trees import Tree, take_apart

P = TypeVar("P", bound=pydantic.BaseModel)
VISIT = {"instrument": "LSSTCam", "visit": samples.VISIT}


@pytest.fixture(scope="module")
def visit_image() -> VisitImage:
    return samples.visit_image()


@pytest.fixture(scope="module")
def stored(visit_image: VisitImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "visit_image.h5"
    lsst_images.write(visit_image, path, data_id={**VISIT, "detector": 11})
    return path


def same_tree(one: Any, other: Any) -> None:
    """Compare objects by what their own JSON back end writes of them, which is all."""
    assert type(one) is type(other)
    assert write_json(one).model_dump_json() == write_json(other).model_dump_json()


# ---- Round trips ---------------------------------------------------------------------------------------------------


def test_a_visit_image_comes_back_the_same(visit_image: VisitImage, stored: Path) -> None:
    back = lsst_images.read(stored, VisitImage)
    assert_visit_images_equal(visit_image, back)
    assert dict(back.metadata) == dict(visit_image.metadata)
    same_tree(visit_image, back)
    assert back.image.array.flags.writeable
    assert back.mask.array.flags.writeable


def test_a_cell_coadd_comes_back_the_same(tmp_path: Path) -> None:
    coadd = samples.cell_coadd()
    lsst_images.write(coadd, tmp_path / "coadd.h5")
    back = lsst_images.read(tmp_path / "coadd.h5", CellCoadd)
    # assert_cell_coadds_equal also shifts PSFs, which takes a package of the pipelines.
    assert_masked_images_equal(coadd, back)
    same_tree(coadd, back)
    box = Box.from_shape((10, 20), start=(70, 90))
    part = lsst_images.read(tmp_path / "coadd.h5", bbox=box)
    assert_masked_images_equal(coadd[box], part)
    assert_images_equal(coadd.noise_realizations[1][box], part.noise_realizations[1])
    with ch5.open(tmp_path / "coadd.h5") as composite:
        for name in ("noise_realizations_1", "mask_fractions_rejected", "mask_fractions_CR___co"):
            assert composite.kind(name) == "image"
        np.testing.assert_array_equal(composite["noise_realizations_1"].array, coadd.noise_realizations[1].array)
        np.testing.assert_array_equal(composite["provenance_"]["inputs.columns.visit.data"], [101, 102, 103])
        # Each plane is cut, so that what is left of a coadd is one.
        composite.cutout(ch5.Box(70, 80, 90, 110), components=list(composite)).write(tmp_path / "part.h5")
    assert_images_equal(part.noise_realizations[0], lsst_images.read(tmp_path / "part.h5").noise_realizations[0])


@pytest.mark.parametrize("planes", [3, 31, 32, 70])
def test_masks_of_any_number_of_planes_come_back(planes: int, tmp_path: Path) -> None:
    mask = samples.visit_image(planes=planes, shape=(30, 40)).mask
    lsst_images.write(mask, tmp_path / "mask.h5")
    assert_masks_equal(mask, lsst_images.read(tmp_path / "mask.h5"))
    box = Box.from_shape((5, 7), start=(25, 20))
    assert_masks_equal(mask[box], lsst_images.read(tmp_path / "mask.h5", bbox=box))
    with ch5.open(tmp_path / "mask.h5") as composite:
        names = [name for name in composite if composite.kind(name) == "mask"]
        assert names == ["mask", "mask_2", "mask_3"][: -(-planes // 31)]
        for name in names:
            for plane, known in composite[name].planes.items():
                np.testing.assert_array_equal(composite[name].array >> known.bit & 1 == 1, mask.get(plane))


def objects() -> dict[str, Any]:
    rng = np.random.default_rng(2)
    whole = samples.visit_image(shape=(20, 30))
    box = Box.from_shape((8, 9), start=(-3, 4))
    red, green, blue = (Image(rng.integers(0, 9, (8, 9)).astype("u1"), bbox=box) for _ in range(3))
    spline = SplineField(Box.from_shape((9, 9)), rng.normal(size=(4, 4)), y=np.arange(4.0), x=np.arange(4.0))
    return {
        "image": whole.image,
        "image without a unit": Image(rng.integers(-5, 5, (3, 4)), bbox=Box.from_shape((3, 4), start=(-7, 2))),
        "image with a unit beyond the standard of FITS": Image(rng.normal(size=(3, 4)), unit=u.Unit("dn") / u.s),
        "masked image": MaskedImage(whole.image, mask=whole.mask, variance=whole.variance),
        "colours": ColorImage.from_channels(red, green, blue),
        "coadd": samples.cell_coadd(),
        "provenance": samples.cell_coadd().provenance,
        "psf of cells": samples.cell_coadd().psf,
        "detector": whole.detector,
        "projection": whole.sky_projection,
        "psf": whole.psf,
        "statistics": whole.summary_stats,
        "field": ChebyshevField(Box.from_shape((9, 9)), np.array([[1.0, 0.5], [0.25, 0.0]]), unit=u.nJy),
        "spline": spline,
        "sum": SumField([spline, spline]),
        "backgrounds": whole.backgrounds,
    }


@pytest.fixture(scope="module")
def all_objects() -> dict[str, Any]:
    return objects()


@pytest.mark.parametrize("name", list(objects()))
def test_each_type_comes_back_the_same(name: str, all_objects: dict[str, Any], tmp_path: Path) -> None:
    original = all_objects[name]
    lsst_images.write(original, tmp_path / "object.h5")
    back = lsst_images.read(tmp_path / "object.h5", type(original))
    same_tree(original, back)
    same_tree(original, lsst_images.read(lsst_images.to_composite(original)))
    if name == "statistics":
        assert back.model_copy(deep=True) == original
    assert not ch5.trees.verify_files(tmp_path / "object.h5").problems


def test_metadata_and_the_dataset_of_a_butler_are_written_beside(visit_image: VisitImage, tmp_path: Path) -> None:
    lsst_images.write(visit_image, tmp_path / "a.h5", metadata={"extra": 2.5, "id": 1})
    with lsst_images.open(tmp_path / "a.h5") as reader:
        assert reader.metadata == {**visit_image.metadata.native, "extra": 2.5, "id": 1}
        assert reader.butler_info is None
    assert "extra" not in visit_image.metadata


def test_the_same_object_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        lsst_images.write(samples.visit_image(shape=(20, 30)), tmp_path / name)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=4),
    max_leaves=12,
)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True) | st.sampled_from(["image", "obs_info", "provenance"])


@settings(max_examples=50)
@given(fields=st.dictionaries(NAMES, JSON, max_size=5), place=st.lists(st.text(min_size=1, max_size=3), max_size=4))
def test_any_tree_comes_back_the_same(fields: dict[str, Any], place: list[str]) -> None:
    stamps = {"schema_url": "https://x/schemas/x-1.0.0", "schema_version": "1.0.0", "min_read_version": 1}
    pixels, array = np.arange(6, dtype="f4").reshape(2, 3), np.arange(3)
    references = [
        {"source": name, "shape": list(values.shape), "datatype": values.dtype.name}
        for name, values in (("array:0", pixels), ("array:1", array))
    ]
    model: Any = {"data": {"value": references[0], "unit": "nJy"}, "yx0": [3, 4], "other": references[1], **stamps}
    innermost = model
    for key in reversed(place):
        model = {key: [model]}
    tree = {**fields, "planes": model, **stamps}
    components = take_apart(tree, {"array:0": pixels, "array:1": array})
    found = Tree(ch5.Composite(None, components))
    back = found.whole([*fields, "planes"])
    moved = found.whole(["planes"])["planes"]
    for key in place:
        moved = moved[key][0]
    np.testing.assert_array_equal(found.array(moved["data"]["value"]["source"])(()), pixels)
    np.testing.assert_array_equal(found.array(moved["other"]["source"])(()), array)
    moved["data"]["value"]["source"], moved["other"]["source"] = "array:0", "array:1"
    assert {name: back[name] for name in fields} == fields
    assert moved == innermost


# ---- As composites -------------------------------------------------------------------------------------------------


def test_components_are_read_without_the_package(visit_image: VisitImage, stored: Path) -> None:
    code = (
        "import json, sys; sys.modules['lsst'] = None\n"
        "import compositeh5 as ch5\n"
        f"with ch5.open({str(stored)!r}) as c:\n"
        "    image, mask = c['image'], c['mask']\n"
        "    print(json.dumps([list(c), image.array.sum().item(), str(image.unit), image.origin,\n"
        "        {name: int((mask.array >> p.bit & 1).sum()) for name, p in mask.planes.items()},\n"
        "        c['obs_info']['exposure_time'], c['obs_info_detector']['detector_num'], c['band'],\n"
        "        json.loads(c['detector']['json'])['attributes']['serial'], c['summary_stats'].zeroPoint,\n"
        "        c['backgrounds']['fields.standard.data'].shape, c.cutout((100, 100), 8)['wcs'].pixel_shape]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, total, unit, origin, planes, exposure, number, band, serial, zero, spline, shape = json.loads(done.stdout)
    assert {"image", "mask", "variance", "sky_projection", "psf", "obs_info", "detector", "wcs"} <= set(names)
    assert total == pytest.approx(visit_image.image.array.sum().item())
    assert (unit, origin, exposure, number, band, serial, zero, spline, shape) == (
        "nJy", [20, 10], 30.0, 11, "r", "E2V-11", 31.4, [9, 9], [8, 8],
    )  # fmt: skip
    assert planes == {name: int(visit_image.mask.get(name).sum()) for name in visit_image.mask.schema.names}


def test_the_wcs_is_that_of_the_pixels(visit_image: VisitImage, stored: Path) -> None:
    with ch5.open(stored) as composite:
        wcs = composite["wcs"]
    y0, x0 = samples.ORIGIN
    expected = visit_image.sky_projection.pixel_to_sky(x=x0 + 30.0, y=y0 + 200.0)
    assert wcs.pixel_to_world(30, 200).separation(expected) < 1e-6 * u.arcsec


def test_viewers_show_the_image(stored: Path) -> None:
    with ch5.open(stored) as composite:
        assert composite.definition == "visit_image"
        assert composite.signal == "image"
    listed = tool("h5ls", "-r", stored).stdout
    assert "/composite/image" in listed
    assert "/composite/obs_info/exposure_time" in listed


def test_what_becomes_of_the_composite_is_still_a_visit_image(
    visit_image: VisitImage, stored: Path, tmp_path: Path
) -> None:
    box = ch5.Box(50, 90, 100, 160)
    with ch5.open(stored) as composite:
        composite.cutout(box, components=list(composite)).write(tmp_path / "cutout.h5")
        overlay = composite.overlay(metadata={"id": 3}, photometric_scaling=None)
        overlay.write(tmp_path / "overlay.h5")
    with ch5.open(tmp_path / "overlay.h5") as composite:
        composite.flatten(tmp_path / "flat.h5")
    part = lsst_images.read(tmp_path / "cutout.h5")
    assert_visit_images_equal(visit_image[Box.from_shape(box.shape, start=box.origin)], part)
    for name in ("overlay.h5", "flat.h5"):
        changed = lsst_images.read(tmp_path / name)
        assert changed.photometric_scaling is None
        assert dict(changed.metadata) == {"id": 3}
        assert_images_equal(visit_image.variance, changed.variance)
        assert changed.detector == visit_image.detector
    assert (tmp_path / "overlay.h5").stat().st_size < 30_000


# ---- Only what is asked for ----------------------------------------------------------------------------------------


def test_a_part_reads_only_its_chunks(tmp_path: Path) -> None:
    large = samples.visit_image(shape=(2000, 2000))
    large._bounds = large.bbox
    path = tmp_path / "large.h5"
    lsst_images.write(large, path)
    size = path.stat().st_size
    assert size > 20_000_000
    box = ch5.Box(1000, 1064, 700, 764)
    with counted_reads() as count:
        part = lsst_images.read(path, bbox=box)
        for_box = count()
    assert_masked_images_equal(part, large[Box.from_shape(box.shape, start=box.origin)])
    for component, limit in {"image": 20_000_000, "psf": 200_000, "obs_info": 200_000, "detector": 200_000}.items():
        with counted_reads() as count:
            lsst_images.read(path, component=component)
            assert count() < limit
    with counted_reads() as count:
        assert lsst_images.read(path, component="bbox") == large.bbox
        assert lsst_images.read(path, component="unit") == u.nJy
        assert count() < 400_000
    assert for_box < 0.15 * size


def test_components_of_the_type_are_those_of_the_object(visit_image: VisitImage, stored: Path) -> None:
    with lsst_images.open(stored, VisitImage) as reader:
        assert isinstance(reader, Reader)
        assert reader.info.schema_name == "visit_image"
        assert_psfs_equal(reader.get_component("psf"), visit_image.psf)
        assert_sky_projections_equal(reader.get_component("sky_projection"), visit_image.sky_projection)
        planes = MaskedImage(visit_image.image, mask=visit_image.mask, variance=visit_image.variance)
        planes.metadata = visit_image.metadata
        assert_masked_images_equal(reader.get_component("masked_image"), planes)
        for name in ("obs_info", "detector", "summary_stats", "bounds", "bbox", "unit", "band", "photometric_scaling"):
            assert reader.get_component(name) == getattr(visit_image, name)
        box = Box.from_shape((4, 5), start=(40, 50))
        variance = reader.get_component("variance", bbox=box)
        assert (variance.bbox, variance.unit) == (box, u.nJy**2)
        np.testing.assert_array_equal(variance.array, visit_image.variance[box].array)
        assert reader.get_tree().min_read_version == 1
    assert CompositeInputArchive.get_basic_info(stored).schema_name == "visit_image"


def test_a_remote_component_is_one_request(
    visit_image: VisitImage, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lsst.resources.http", reason="needs lsst-resources[https] (the extra `remote`)")
    for name in ("http_proxy", "HTTP_PROXY", "LSST_HTTP_AUTH_BEARER_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with range_server(stored.parent) as server:
        url = f"{server.url}/{stored.name}"
        assert_psfs_equal(lsst_images.read(url, component="psf"), visit_image.psf)
        assert [method for method, _ in server.requests] == ["GET"]
        assert_visit_images_equal(lsst_images.read(url), visit_image)


# ---- Links ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, VisitImage]]:
    folder = tmp_path_factory.mktemp("together")
    images = {number: samples.visit_image(number, shape=(20, 30)) for number in (11, 12, 13)}
    ch5.trees.write_together(
        {
            folder / f"ccd_{number}.h5": lsst_images.to_composite(image, data_id={**VISIT, "detector": number})
            for number, image in images.items()
        },
        str(folder / "visit_{visit}.h5"),
    )
    return folder, images


def test_what_is_of_the_visit_is_stored_once(together: tuple[Path, dict[int, VisitImage]]) -> None:
    folder, images = together
    with ch5.open(folder / f"visit_{samples.VISIT}.h5") as visit:
        assert list(visit) == ["obs_info"]
        assert visit["obs_info"]["exposure_time"] == 30
    for number, image in images.items():
        path = folder / f"ccd_{number}.h5"
        with ch5.open(path) as composite:
            assert list(composite.links) == ["obs_info"]
        assert_visit_images_equal(image, lsst_images.read(path))
        assert lsst_images.read(path, component="obs_info") == image.obs_info
    assert not ch5.trees.verify_files(folder).problems


def test_links_are_given_for_what_is_equal(visit_image: VisitImage, stored: Path, tmp_path: Path) -> None:
    with ch5.open(stored) as first:
        links = {name: first.link(name) for name in ("detector", "backgrounds", "image")}
    lsst_images.write(visit_image, tmp_path / "other.h5", links=links, data_id={"visit": 5})
    assert (tmp_path / "other.h5").stat().st_size < 0.7 * stored.stat().st_size
    assert_visit_images_equal(visit_image, lsst_images.read(tmp_path / "other.h5"))
    box = Box.from_shape((4, 5), start=(40, 50))
    part = lsst_images.read(tmp_path / "other.h5", component="image", bbox=box)
    np.testing.assert_array_equal(visit_image.image[box].array, part.array)
    other = samples.visit_image(12)
    with pytest.raises(DigestMismatchError, match="'detector' of this VisitImage isn't that of visit_image"):
        lsst_images.write(other, tmp_path / "wrong.h5", links=links)
    with pytest.raises(NoSuchComponentError, match="did you mean 'detector'"):
        lsst_images.write(other, tmp_path / "wrong.h5", links={"detektor": links["detector"]})
    assert not (tmp_path / "wrong.h5").exists()


def test_a_lost_link_is_an_error_of_that_component(
    together: tuple[Path, dict[int, VisitImage]], tmp_path: Path
) -> None:
    folder, images = together
    for name, content in (("ccd_11.h5", None), (f"visit_{samples.VISIT}.h5", samples.visit_image(7, shape=(3, 4)))):
        if content is None:
            (tmp_path / name).write_bytes((folder / name).read_bytes())
        else:
            lsst_images.write(content, tmp_path / name)
    # Another composite is where the target was; the recorded place is another.
    with ch5.open(tmp_path / "ccd_11.h5") as composite:
        link = dataclasses.replace(composite.links["obs_info"], uri=str(tmp_path / "gone.h5"), id="0" * 8 + link_id())
        composite.replace({"obs_info": link}).write(tmp_path / "lost.h5")
    with pytest.raises(BrokenLinkError, match=r"obs_info.*is lost"):
        lsst_images.read(tmp_path / "lost.h5")
    assert_psfs_equal(lsst_images.read(tmp_path / "lost.h5", component="psf"), images[11].psf)


def link_id() -> str:
    return "-0000-5000-8000-000000000000"


# ---- Pointers, tables, other people's types ------------------------------------------------------------------------


class Pair:
    """An object whose two halves may be the same, with a table of each sort."""

    def __init__(self, first: FrameSet, second: FrameSet, table: Table, rows: Any, kernel: Any) -> None:
        self.first, self.second, self.table, self.rows, self.kernel = first, second, table, rows, kernel

    def serialize(self, archive: Any) -> PairModel[Any]:
        def frames(name: str, half: FrameSet) -> Any:
            return archive.serialize_frame_set(name, half, half.serialize, key=id(half))

        first = frames("first", self.first)
        assert [found is self.first for found, _ in archive.iter_frame_sets()] == [True]
        return PairModel(
            first=first,
            second=frames("second", self.second),
            table=archive.add_table(self.table, name="table"),
            rows=archive.add_structured_array(
                self.rows, name="rows", units={"flux": u.nJy}, descriptions={"flux": "Of it."}
            ),
            kernel=archive.serialize_pointer("kernel", self._serialize_kernel, key="kernel"),
            small=InlineArrayModel(data=[[1, 2], [3, 4]], datatype="int16"),
        )

    def _serialize_kernel(self, archive: Any) -> KernelModel:
        return KernelModel(data=archive.add_array(self.kernel, name="data"))


class KernelModel(ArchiveTree):
    SCHEMA_NAME: ClassVar[str] = "compositeh5_test_kernel"
    SCHEMA_VERSION: ClassVar[str] = "1.0.0"
    MIN_READ_VERSION: ClassVar[int] = 1
    PUBLIC_TYPE: ClassVar[type] = np.ndarray
    data: ArrayReferenceModel | InlineArrayModel

    def deserialize(self, archive: Any, **kwargs: Any) -> Any:
        return archive.get_array(self.data)


class PairModel(ArchiveTree, Generic[P]):
    SCHEMA_NAME: ClassVar[str] = "compositeh5_test_pair"
    SCHEMA_VERSION: ClassVar[str] = "1.2.0"
    MIN_READ_VERSION: ClassVar[int] = 1
    PUBLIC_TYPE: ClassVar[type] = Pair
    first: P
    second: P
    table: TableModel
    rows: TableModel
    kernel: P
    small: InlineArrayModel
    later: int = 7

    def deserialize(self, archive: Any, **kwargs: Any) -> Pair:
        from lsst.images.serialization import class_for_schema

        model = class_for_schema("camera_frame_set")
        assert model is not None
        with pytest.raises(ArchiveReadError, match="must be read as a set of frames before"):
            archive.get_frame_set(self.first)
        first, second = (
            archive.deserialize_pointer(half, model, lambda tree, own: tree.deserialize(own))
            for half in (self.first, self.second)
        )
        assert archive.get_frame_set(self.first) is first
        assert archive.get_array(self.small, slices=(slice(1, 2), slice(0, 1))).tolist() == [[3]]
        assert self.later == 7
        return Pair(
            first,
            second,
            archive.get_table(self.table),
            archive.get_structured_array(self.rows),
            archive.deserialize_pointer(self.kernel, KernelModel, lambda tree, own: tree.deserialize(own)),
        )


def test_pointers_and_tables_come_back(visit_image: VisitImage, tmp_path: Path) -> None:
    frames, others = visit_image.detector._frames, samples.detector(12)._frames
    table = Table({"a": np.arange(3), "b": np.ones((3, 2, 2), "f4")}, meta={"origin": "test"})
    table["a"].unit, table["a"].description = u.s, "Seconds."
    table["b"].meta["x"] = 1.5
    rows = np.zeros(4, [("id", "i8"), ("flux", "f8", (2,))])
    rows["flux"] = np.arange(8).reshape(4, 2)
    kernel = np.random.default_rng(1).normal(size=(3, 4, 5))
    for halves in ((frames, frames), (frames, others)):
        path = tmp_path / f"pair_{halves[0] is halves[1]}.h5"
        lsst_images.write(Pair(*halves, table, rows, kernel), path)
        back = lsst_images.read(path, Pair)
        assert (back.first, back.second) == halves
        assert (back.first is back.second) == (halves[0] is halves[1])
        assert back.table.meta == table.meta
        assert back.table["a"].unit == u.s
        assert back.table["a"].description == "Seconds."
        assert back.table["b"].meta == {"x": 1.5}
        for name in table.colnames:
            np.testing.assert_array_equal(back.table[name], table[name])
            assert back.table[name].dtype == table[name].dtype
        np.testing.assert_array_equal(back.rows, rows)
        np.testing.assert_array_equal(back.kernel, kernel)
    with ch5.open(path) as composite:
        np.testing.assert_array_equal(composite["rows"]["columns.flux.data"], rows["flux"])
        assert len(json.loads(composite["tree"]["json"])["indirect"]) == 3


# ---- What is refused -----------------------------------------------------------------------------------------------


def test_wrong_questions_are_named(stored: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="holds a VisitImage, not a CellCoadd"):
        lsst_images.read(stored, CellCoadd)
    with pytest.raises(NoSuchComponentError, match="wings"):
        lsst_images.read(stored, component="wings")
    with pytest.raises(UnsupportedParameterError, match="rows"):
        lsst_images.read(stored, rows=3)
    with pytest.raises(UnsupportedParameterError, match="bbox"):
        lsst_images.read(stored, component="psf", bbox=ch5.Box(0, 1, 0, 1))
    for box in (ch5.Box(10, 30, 50, 60), ch5.Box(318, 320, 405, 410)):
        with pytest.raises(OutsideError):
            lsst_images.read(stored, bbox=box)
    with pytest.raises(FileNotFoundError):
        lsst_images.read(tmp_path / "none.h5")
    ch5.Composite(None, image=ch5.Image(np.zeros((3, 3)))).write(tmp_path / "other.h5")
    with pytest.raises(FormatError, match="isn't an object of lsst.images"):
        lsst_images.read(tmp_path / "other.h5")
    for wrong in ({"a": 1}, np.zeros(3), None):
        with pytest.raises(EncodeError, match="expected an object of lsst.images"):
            lsst_images.write(wrong, tmp_path / "wrong.h5")
    unreadable = samples.visit_image(shape=(3, 4))
    unreadable._psf = ArchiveReadError("no package for it")
    with pytest.raises(EncodeError, match="PSF"):
        lsst_images.write(unreadable, tmp_path / "wrong.h5")
    assert not (tmp_path / "wrong.h5").exists()


def tree_with(**changes: Any) -> Callable[[ch5.Composite], dict[str, Any]]:
    return lambda composite: {"tree": {**composite["tree"], **changes}}


def plane_with(name: str = "image", **changes: Any) -> Callable[[ch5.Composite], dict[str, Any]]:
    def changed(composite: ch5.Composite) -> dict[str, Any]:
        tree = json.loads(composite["tree"]["json"])
        return {"tree": {**composite["tree"], "json": json.dumps({**tree, name: {**tree[name], **changes}})}}

    return changed


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (tree_with(schema_url="https://images.lsst.io/schemas/nothing-1.0.0"), UnknownKindError, "schema 'nothing'"),
        (tree_with(schema_url="http://x"), FormatError, "schemas"),
        (tree_with(schema_version="x.y"), FormatError, "version of its schema"),
        (tree_with(min_read_version=99), UnsupportedVersionError, "needs a newer lsst.images"),
        (tree_with(min_read_version="1"), FormatError, "'min_read_version' should be int"),
        (tree_with(json="{"), FormatError, "isn't valid JSON"),
        (tree_with(json="[1]"), FormatError, "should be a JSON object"),
        (tree_with(json="[" * 100_000), FormatError, "isn't valid JSON"),
        (tree_with(json="{}"), FormatError, "has no component 'image'|kind 'image'"),
        (plane_with(**{"$plane": "image"}), FormatError, "should be a list of components"),
        (plane_with(**{"$plane": ["nowhere"]}), FormatError, "no component 'nowhere'"),
        (plane_with(**{"$plane": ["psf"]}), FormatError, "should be an image or a mask"),
        (plane_with("mask", unused=["x"]), FormatError, "'unused' should be a list of integers"),
        (lambda composite: {"psf": {"json": "{}"}}, FormatError, "can't make an object of it"),
        (lambda composite: {"band": "x", "detector": {"json": "{}"}}, FormatError, "'detector' isn't as its schema"),
        (lambda composite: {"obs_info": None}, FormatError, "obs_info"),
        (lambda composite: {"tree": None}, FormatError, "isn't an object of lsst.images"),
    ],
)
def test_damaged_trees_are_refused(
    change: Callable[[ch5.Composite], dict[str, Any]], error: type[Exception], message: str, tmp_path: Path
) -> None:
    composite = lsst_images.to_composite(samples.visit_image(shape=(3, 4)))
    composite.replace(change(composite)).write(tmp_path / "damaged.h5")
    with pytest.raises(error, match=message):
        lsst_images.read(tmp_path / "damaged.h5")


def test_references_to_arrays_stay_in_the_composite(tmp_path: Path) -> None:
    composite = lsst_images.to_composite(samples.visit_image(shape=(3, 4)))
    assert "backgrounds/fields.standard.data" in composite["backgrounds"]["json"]
    for source in ("nothing/x", "backgrounds/nothing", "backgrounds/json", "/etc/passwd", "../image", "band"):
        text = composite["backgrounds"]["json"].replace("backgrounds/fields.standard.data", source)
        damaged = composite.replace({"backgrounds": {**composite["backgrounds"], "json": text}})
        damaged.write(tmp_path / "damaged.h5", replace=True)
        with pytest.raises(FormatError, match="array"):
            lsst_images.read(tmp_path / "damaged.h5")


def test_the_schema_is_told_without_reading_the_object(stored: Path) -> None:
    info = CompositeInputArchive.get_basic_info(stored)
    assert isinstance(info, ArchiveInfo)
    assert info.schema_version == info.schema_url.rpartition("-")[2]


def test_models_follow_names(stored: Path) -> None:
    with lsst_images.open(stored) as reader:
        tree = reader.get_tree()
        with pytest.raises(AttributeError):
            tree.nothing
        assert isinstance(tree.summary_stats, ObservationSummaryStats)
        assert tree.photometric_scaling is tree.photometric_scaling
        assert JsonRef(**{"$ref": "#/indirect/0"}).ref.endswith("0")


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = pages.ROOT / "specs" / "interoperability.md"
    wanted = [block for block in pages.blocks(page.read_text()) if "images" in block.tags]
    images = {number: samples.visit_image(number) for number in (11, 12)}
    namespace: dict[str, Any] = {"visit_images": images}
    monkeypatch.chdir(tmp_path)
    pages.run(wanted, namespace, tmp_path, page.name)
    assert_visit_images_equal(namespace["again"], images[11])
    assert_visit_images_equal(namespace["stamp"], images[11][Box.from_shape((64, 64), start=(40, 30))])
    assert dict(lsst_images.read("seen_11.h5").metadata) == {"seen": True}
