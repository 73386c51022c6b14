"""The Butler plug-in, on repositories made by `butler create`."""

from __future__ import annotations

import json
import os
import platform
import uuid
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from astropy.io import fits
from astropy.table import QTable
from astropy.wcs import WCS
from support import counted_reads, data_file, pixels, tool, visit_info

import compositeh5 as ch5
from compositeh5 import errors, kinds
from compositeh5.cli import main as compositeh5
from compositeh5.composite.definitions import definition_names, get_definition
from compositeh5.composite.session import current
from compositeh5.fits.conversion import fits_bytes, read_exposure
from compositeh5.trees.verify import verify

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")

from butler_support import (
    CCD,
    DETECTORS,
    DISASSEMBLED,
    MEMORY,
    RUN,
    VISIT,
    add_megaprime,
    catalog,
    ccd,
    digest_of,
    digests,
    files_of,
    in_new_run,
    new_repo,
    nothing_cached,  # noqa: F401
    purge,
    register,
    visit,
)
from lsst.daf.butler import (
    Butler,
    DatasetProvenance,
    DatasetRef,
    FileDataset,
    QuantumBackedButler,
    StorageClassFactory,
)

from compositeh5.butler import link, put_visit
from compositeh5.butler.datasets import storage_class_name


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("butler") / "repo"


@pytest.fixture(scope="module")
def filled(root: Path) -> Butler:
    """Return a Butler that has the datasets of `ccd`, `visit` and `catalog`, for tests that only read."""
    butler = new_repo(root)
    butler.put(ccd(visit_info=visit_info(), photo_calib=None), "calexp", CCD)
    butler.put(visit(), "visit_metadata", VISIT)
    butler.put(catalog(), "src", CCD)
    return butler


@pytest.fixture
def butler(filled: Butler) -> Butler:
    """Return a Butler with a run in which there is nothing."""
    return in_new_run(filled)


def nothing_is_stored(butler: Butler, root: Path) -> bool:
    found = butler.query_all_datasets(butler.run, find_first=False)
    return not found and not any(path.is_relative_to(root / butler.run) for path in files_of(root))


# ---- Configuration ------------------------------------------------------------------------------------------


def camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


@pytest.mark.parametrize("name", definition_names())
def test_storage_classes_agree_with_the_definitions(name: str, filled: Butler) -> None:
    definition = get_definition(name)
    storage_class = StorageClassFactory().getStorageClass(storage_class_name(definition))
    assert storage_class.pytype is ch5.Composite
    expected = {
        component.name: f"CompositeH5{camel('list' if component.is_list else component.kind)}V1"
        for component in definition.components.values()
    }
    expected["assembly"] = "CompositeH5AssemblyV1"
    assert {name: inner.name for name, inner in storage_class.components.items()} == expected
    planes = [c for c in definition.components.values() if not c.is_list and kinds.get(c.kind).is_pixels]
    assert set(storage_class.derivedComponents) == {"stage", "components", *(("bbox", "shape") if planes else ())}
    # What is derived from the whole takes all its parameters.
    assert StorageClassFactory().getStorageClass("CompositeH5AssemblyV1").parameters >= storage_class.knownParameters()


def test_storage_classes_agree_with_the_kinds(filled: Butler) -> None:
    configs = files("compositeh5.butler") / "configs"
    classes = yaml.safe_load((configs / "storageClasses.yaml").read_text())
    names = {f"CompositeH5{camel(kind)}V1": kind for kind in kinds.BUILTIN}
    for name in classes.keys() & names.keys():
        parameters = {"bbox" if p == "box" else p for p in kinds.get(names[name]).parameters}
        assert StorageClassFactory().getStorageClass(name).parameters == parameters | {"resolver"}, name
    stored = classes.keys() - {f"CompositeH5{name}V1" for name in ("Box", "Shape", "Components")}
    assert yaml.safe_load((configs / "formatters.yaml").read_text()).keys() == stored


# ---- Put and get --------------------------------------------------------------------------------------------


def test_a_composite_comes_back_as_the_dataset_it_was_put_as(butler: Butler) -> None:
    given = ccd(visit_info=visit_info(), detector={"name": "R22_S11"}, header="SIMPLE = T", photo_calib=None)
    ref = butler.put(given, "calexp", CCD)
    assert (given.id, given.dataset_type, given.run, given.location) == ("", "", "", None)

    got = butler.get("calexp", CCD)
    assert digests(got) == digests(given)
    assert {name: type(got[name]) for name in got} == {name: type(given[name]) for name in given}
    assert got.absent == ("photo_calib",)
    assert (got.id, got.dataset_type, got.run) == (str(ref.id), "calexp", butler.run)
    assert got.data_id == CCD
    assert got.stage == got.component_stage("image") == "single_frame"
    with ch5.open(butler.getURI(ref).ospath) as stored:
        verify(stored)
        assert stored.id == str(ref.id)


def test_a_composite_of_an_open_file_can_be_put(butler: Butler, tmp_path: Path) -> None:
    ccd().write(tmp_path / "a.h5")
    with ch5.open(tmp_path / "a.h5") as opened:
        expected = digests(opened)
        butler.put(opened, "calexp", CCD)
    assert digests(butler.get("calexp", CCD)) == expected


def test_a_component_is_read_alone(butler: Butler) -> None:
    ref = butler.put(ccd(shape=(1500, 1000), visit_info=visit_info()), "calexp", CCD)
    size = os.path.getsize(butler.getURI(ref).ospath)
    component = ref.makeComponentRef("visit_info")
    butler.get(component)
    with counted_reads() as count:
        info = butler.get(component)
        read = count()
    assert info == visit_info()
    assert 0 < read < size / 20


def test_components_that_the_storage_class_lacks_are_refused(butler: Butler, root: Path) -> None:
    composite = ch5.Composite(None, image=ch5.Image(pixels((3, 4))), heliometer="3 mm")
    with pytest.raises(RuntimeError) as caught:
        butler.put(composite, "calexp", CCD)
    assert "no component heliometer" in str(caught.value.__cause__)
    assert nothing_is_stored(butler, root)


# ---- Provenance ---------------------------------------------------------------------------------------------

QUANTUM = uuid.UUID("7f0c7d33-4f7b-4c46-9a2e-5d9b0b7a9a01")


def made_from(*inputs: DatasetRef, **known_of_first: Any) -> DatasetProvenance:
    provenance = DatasetProvenance(quantum_id=QUANTUM)
    for ref in inputs:
        provenance.add_input(ref)
    provenance.add_extra_provenance(inputs[0].id, known_of_first)
    return provenance


def test_what_the_butler_knows_of_a_dataset_is_seen_in_its_file(
    butler: Butler, capsys: pytest.CaptureFixture[str]
) -> None:
    visit_ref = butler.put(visit(), "visit_metadata", VISIT)
    given = ccd().replace(provenance={"software": {"isr": "2.1", "numpy": "mine"}})
    ref = butler.put(given, "calexp", CCD, provenance=made_from(visit_ref, seeing=0.75, night="clear"))
    assert given.provenance == {"software": {"isr": "2.1", "numpy": "mine"}}
    path = butler.getURI(ref).ospath

    assert compositeh5(["info", "--json", path]) == 0
    known = json.loads(capsys.readouterr().out)["provenance"]
    assert known["butler"] == {
        "id": str(ref.id),
        "run": butler.run,
        "datasettype": "calexp",
        **{f"dataid.{key}": value for key, value in CCD.items()},
        "quantum": str(QUANTUM),
        "n_inputs": 1,
        "input.0.id": str(visit_ref.id),
        "input.0.run": butler.run,
        "input.0.datasettype": "visit_metadata",
        "input.0.seeing": 0.75,
        "input.0.night": "clear",
    }
    assert known["software"] == {
        "python": platform.python_version(),
        "isr": "2.1",
        # What the composite says itself stays.
        "numpy": "mine",
        **{name: version(name) for name in ("compositeh5", "h5py", "astropy", "lsst-daf-butler")},
    }

    shown = tool("h5dump", "-a", "/composite/provenance", path).stdout.replace("\\", "")
    for text in (f'"quantum":"{QUANTUM}"', f'"input.0.id":"{visit_ref.id}"', '"input.0.seeing":0.75', '"isr":"2.1"'):
        assert text in shown


def test_the_butler_reads_what_it_knew_of_a_dataset(butler: Butler) -> None:
    visit_ref = butler.put(visit(), "visit_metadata", VISIT)
    given = made_from(visit_ref, seeing=0.75)
    ref = butler.put(ccd(), "calexp", CCD, provenance=given)
    read, of = DatasetProvenance.from_flat_dict(butler.get(ref).provenance["butler"], butler)
    assert of == ref
    assert (read.quantum_id, read.extras) == (given.quantum_id, given.extras)
    assert [each.id for each in read.inputs] == [visit_ref.id]


def test_what_the_butler_knew_of_another_dataset_does_not_stay(butler: Butler) -> None:
    visit_ref = butler.put(visit(), "visit_metadata", VISIT)
    first = butler.put(ccd(), "calexp", CCD, provenance=made_from(visit_ref, seeing=0.75))
    again = butler.put(butler.get(first), "calexp", {**CCD, "detector": 5})
    known = butler.get(again).provenance["butler"]
    assert known == DatasetProvenance().to_flat_dict(again, simple_types=True)
    assert known["id"] == str(again.id)


def test_a_thousand_inputs_and_numbers_that_json_lacks(butler: Butler) -> None:
    dataset_type = butler.get_dataset_type("visit_metadata")
    data_id = butler.registry.expandDataId(VISIT)
    inputs = [DatasetRef(dataset_type, data_id, f"run/{number}") for number in range(1000)]
    ref = butler.put(ccd(), "calexp", CCD, provenance=made_from(*inputs, seeing=float("nan"), depth=np.float64("inf")))
    known = butler.get(ref).provenance["butler"]
    assert (known["n_inputs"], known["input.999.id"]) == (1000, str(inputs[-1].id))
    assert (known["input.0.seeing"], known["input.0.depth"]) == ("nan", "inf")
    # It is more than an attribute can hold.
    with h5py.File(butler.getURI(ref).ospath) as file:
        parts = [value for name, value in sorted(file["composite"].attrs.items()) if name.startswith("provenance")]
    assert len(parts) > 1
    assert json.loads(b"".join(parts))["butler"] == known


def test_the_provenance_of_a_quantum(butler: Butler, root: Path) -> None:
    visit_ref = butler.put(visit(), "visit_metadata", VISIT)
    dataset_type = butler.get_dataset_type("calexp")
    ref = DatasetRef(dataset_type, butler.registry.expandDataId(CCD), butler.run)
    quantum = QuantumBackedButler.from_predicted(
        config=str(root),
        predicted_inputs=[],
        predicted_outputs=[ref.id],
        dimensions=butler.dimensions,
        datastore_records={},
        dataset_types={"calexp": dataset_type},
    )
    given = ccd(visit_info=link(butler, visit_ref, "visit_info"))
    quantum.put(given, ref, provenance=made_from(visit_ref, seeing=0.75))
    with ch5.open(quantum.getURI(ref).ospath) as stored:
        expected = made_from(visit_ref, seeing=0.75).to_flat_dict(ref, simple_types=True)
        assert stored.provenance["butler"] == expected
        assert stored["visit_info"] == visit_info()


def test_the_provenance_of_a_disassembled_composite(tmp_path: Path) -> None:
    apart = new_repo(tmp_path, DISASSEMBLED)
    visit_ref = apart.put(visit(), "visit_metadata", VISIT)
    ref = apart.put(ccd(), "calexp", CCD, provenance=made_from(visit_ref, seeing=0.75))
    expected = made_from(visit_ref, seeing=0.75).to_flat_dict(ref, simple_types=True)
    uris = apart.getURIs(ref).componentURIs
    with ch5.open(uris["assembly"].ospath) as whole:
        assert whole.provenance["butler"] == expected
        assert whole.provenance["software"]["h5py"] == version("h5py")
    # Once is enough; the other pieces name the dataset.
    with ch5.open(uris["image"].ospath) as piece:
        assert (piece.id, piece.run, piece.provenance) == (str(ref.id), apart.run, {})
    assert apart.get(ref).provenance["butler"] == expected


# ---- Parameters ---------------------------------------------------------------------------------------------

BOX = ch5.Box(105, 115, 210, 230)
BOXES = [
    BOX,
    SimpleNamespace(y=slice(105, 115), x=slice(210, 230)),
    SimpleNamespace(y=SimpleNamespace(begin=105, end=115), x=SimpleNamespace(begin=210, end=230)),
]


@pytest.mark.parametrize("bbox", BOXES, ids=["compositeh5", "lsst.images", "lsst.geom"])
def test_a_box_of_a_component(filled: Butler, bbox: Any) -> None:
    given = ccd()
    for name in ("image", "mask", "variance"):
        part = filled.get(f"calexp.{name}", CCD, parameters={"bbox": bbox})
        assert type(part) is type(given[name])
        assert part.box == BOX
        np.testing.assert_array_equal(part.array, given[name].array[5:15, 10:30])
    assert filled.get("calexp.bbox", CCD) == ch5.Box(100, 130, 200, 240)
    assert filled.get("calexp.bbox", CCD, parameters={"bbox": bbox}) == BOX
    with pytest.raises(ValueError, match="bbox should be a box of compositeh5"):
        filled.get("calexp", CCD, parameters={"bbox": (1, 2, 3, 4)})


def test_a_box_is_cut_to_the_image(filled: Butler) -> None:
    wide = {"bbox": ch5.Box(0, 110, 0, 205)}
    assert filled.get("calexp", CCD, parameters=wide)["image"].box == ch5.Box(100, 110, 200, 205)
    assert filled.get("calexp.image", CCD, parameters=wide).box == ch5.Box(100, 110, 200, 205)
    outside = {"bbox": ch5.Box(0, 10, 0, 10)}
    for what in ("calexp", "calexp.image", "calexp.bbox"):
        with pytest.raises(ValueError, match="has no pixel"):
            filled.get(what, CCD, parameters=outside)


def test_a_box_reads_little(butler: Butler) -> None:
    ref = butler.put(ccd(shape=(2000, 1500)), "calexp", CCD)
    size = os.path.getsize(butler.getURI(ref).ospath)
    butler.get(ref, parameters={"bbox": BOX})
    with counted_reads() as count:
        butler.get(ref, parameters={"bbox": BOX})
        assert 0 < count() < size / 5


# ---- Visits and links ---------------------------------------------------------------------------------------


def test_nine_detectors_share_one_record_that_is_decoded_once(butler: Butler) -> None:
    visit_ref, refs = put_visit(butler, visit(), [ccd(d, visit_info=visit_info()) for d in DETECTORS])
    assert len(refs) == 9
    current().clear_cache()
    fresh = butler.clone()
    infos = [fresh.get(ref.makeComponentRef("visit_info")) for ref in refs]
    assert infos[0] == visit_info()
    assert all(info is infos[0] for info in infos)
    got = fresh.get("calexp", CCD)
    assert got["visit_info"] is infos[0]
    assert got.links["visit_info"].id == str(visit_ref.id)
    assert got.links["visit_info"].data_id == VISIT
    assert got.links["visit_info"].dataset_type == "visit_metadata"


def test_plain_h5py_follows_the_link_in_the_repository(butler: Butler, root: Path) -> None:
    visit_ref, (ref,) = put_visit(butler, visit(), [ccd()])
    path = Path(butler.getURI(ref).ospath)
    with h5py.File(path) as file:
        native = file["composite"].get("visit_info", getlink=True)
        assert native.filename == os.path.relpath(butler.getURI(visit_ref).ospath, path.parent)
        assert native.path == f"/by-id/{visit_ref.id}/visit_info"
        assert file["composite/visit_info/airmass"][()] == 1.0625


def test_a_moved_repository_still_works(tmp_path: Path) -> None:
    put_visit(new_repo(tmp_path / "repo"), visit(), [ccd()])
    (tmp_path / "repo").rename(tmp_path / "elsewhere")
    current().clear_cache()
    moved = Butler.from_config(str(tmp_path / "elsewhere"), collections=RUN)
    assert moved.get("calexp.visit_info", CCD) == visit_info()
    with h5py.File(moved.getURI("calexp", CCD).ospath) as file:
        assert file["composite/visit_info/airmass"][()] == 1.0625


def test_another_file_in_the_place_of_the_visit_is_never_taken_for_it(butler: Butler) -> None:
    visit_ref, (ref,) = put_visit(butler, visit(), [ccd()])
    visit().write(butler.getURI(visit_ref).ospath, replace=True)
    current().clear_cache()
    with pytest.raises(errors.WrongIdError, match="visit_metadata.visit_info .* is lost"):
        butler.get(ref.makeComponentRef("visit_info"))
    got = butler.get(ref)
    assert got["image"].shape == (30, 40)
    with pytest.raises(errors.WrongIdError):
        got["visit_info"]
    assert butler.get(ref, parameters={"bbox": BOX})["image"].box == BOX
    with h5py.File(butler.getURI(ref).ospath) as file, pytest.raises(KeyError):
        file["composite/visit_info"]


def test_a_removed_visit_leaves_a_named_lost_component(butler: Butler) -> None:
    visit_ref, (ref,) = put_visit(butler, visit(), [ccd()])
    purge(butler, visit_ref)
    current().clear_cache()
    with pytest.raises(FileNotFoundError, match="visit_metadata.visit_info"):
        butler.get(ref.makeComponentRef("visit_info"))


def test_put_visit_registers_what_is_missing(butler: Butler) -> None:
    visit_ref, (ref,) = put_visit(
        butler, visit(), [ccd()], visit_dataset_type="meta", ccd_dataset_type="image", run="new/run"
    )
    assert set(visit_ref.datasetType.dimensions.required) == {"instrument", "visit"}
    assert ref.datasetType.storageClass_name == "CompositeH5ExposureV1"
    assert butler.get("image.visit_info", CCD, collections="new/run") == visit_info()


def test_a_deviating_detector_is_named_and_nothing_is_stored(butler: Butler, root: Path) -> None:
    wrong = {**visit_info(), "airmass": 1.07, "filter": "z_20"}
    ccds = [ccd(0, visit_info=visit_info()), ccd(1, visit_info=wrong), ccd(2)]
    with pytest.raises(errors.DigestMismatchError, match=r"detector=1: visit_info differs in (airmass|filter), ") as e:
        put_visit(butler, visit(), ccds)
    assert "detector=0" not in str(e.value)
    assert "exposure_time" not in str(e.value)
    assert nothing_is_stored(butler, root)


def test_a_detector_of_another_visit_is_refused(butler: Butler, root: Path) -> None:
    other = ccd().replace(data_id={**CCD, "visit": 903335})
    with pytest.raises(errors.DefinitionError, match="isn't of the visit .* has visit 903335"):
        put_visit(butler, visit(), [ccd(0), other])
    assert nothing_is_stored(butler, root)


@pytest.mark.parametrize("bad", [ccd(4), ccd(77)], ids=["stored twice", "no such detector"])
def test_a_put_that_fails_late_leaves_nothing(butler: Butler, root: Path, bad: ch5.Composite) -> None:
    with pytest.raises(Exception, match=r"(?i)constraint|conflict|detector"):
        put_visit(butler, visit(), [ccd(3), ccd(4), bad])
    assert nothing_is_stored(butler, root)
    put_visit(butler, visit(), [ccd(3), ccd(4)])


def test_a_visit_that_is_stored_stays_when_it_is_stored_again(butler: Butler) -> None:
    put_visit(butler, visit(), [ccd()])
    with pytest.raises(Exception, match="(?i)constraint"):
        put_visit(butler, visit(), [ccd(), ccd(5)])
    assert butler.get("calexp.visit_info", CCD) == visit_info()
    assert butler.get("calexp", CCD)["image"].shape == (30, 40)


def test_a_link_from_a_butler_and_from_a_handle(butler: Butler) -> None:
    ref = butler.put(visit(), "visit_metadata", VISIT)
    made = link(butler, ref, "visit_info")
    assert made == link(butler.getDeferred("visit_metadata", VISIT), "visit_info")
    assert (made.id, made.kind, made.stage) == (str(ref.id), "record", "raw")
    assert made.digest == visit().component_digest("visit_info")
    butler.put(ccd(visit_info=made), "calexp", CCD)
    assert butler.get("calexp.visit_info", CCD) == visit_info()
    # A link to a link leads to where the component is stored.
    assert link(butler.getDeferred("calexp", CCD), "visit_info").id == made.id


def test_links_that_lead_nowhere(butler: Butler, root: Path) -> None:
    ref = butler.put(visit(camera=None), "visit_metadata", VISIT)
    with pytest.raises(errors.AbsentComponentError, match="'camera' is absent"):
        link(butler, ref, "camera")
    with pytest.raises(errors.NoSuchComponentError, match="no component 'visit_inof'; did you mean 'visit_info'"):
        link(butler, ref, "visit_inof")
    handle = butler.getDeferred(ref, parameters={"fields": ["airmass"]})
    with pytest.raises(ValueError, match="leads to a whole component"):
        link(handle, "visit_info")
    plain = register(butler, "plain", ("instrument",), "StructuredDataDict")
    with pytest.raises(errors.NotACompositeFileError):
        link(butler, butler.put({"a": 1}, plain, instrument="DemoCam"), "a")
    butler.pruneDatasets([ref], disassociate=False, unstore=True)
    with pytest.raises(FileNotFoundError):
        link(butler, ref, "visit_info")


@pytest.fixture(scope="module")
def megaprime(filled: Butler) -> Butler:
    add_megaprime(filled)
    return filled


def test_real_visits(megaprime: Butler) -> None:
    butler = in_new_run(megaprime)
    whole = visit().replace(data_id={"instrument": "MegaPrime", "visit": 849375})
    detectors = (12, 13, 14, 21, 22, 23)
    ccds = [ccd().replace(data_id={**whole.data_id, "detector": d}) for d in detectors]
    _, refs = put_visit(butler, whole, ccds)
    with butler.query() as query:
        found = query.where("visit.exposure_time > 300").datasets("calexp", collections=butler.run)
        assert {ref.dataId["detector"] for ref in found} == set(detectors)
    assert all(butler.get(ref.makeComponentRef("visit_info")) == visit_info() for ref in refs)


@pytest.mark.parametrize("file", ["HSC-0908120-056-small.fits", "exposure-version-2.fits"])
def test_real_exposures_come_back_from_the_butler(megaprime: Butler, file: str) -> None:
    """Identical pixels, mask planes, sky and headers, with the dimension records of real visits."""
    path = data_file(file)
    butler = in_new_run(megaprime)
    converted = read_exposure(path, data_id={"instrument": "MegaPrime", "visit": 849375, "detector": 12})
    whole = ch5.Composite(
        "visit", visit_info=converted["visit_info"], data_id={"instrument": "MegaPrime", "visit": 849375}
    )
    _, (ref,) = put_visit(butler, whole, [converted])
    stored = butler.get(ref)
    with fits.open(path) as hdus:
        for name, hdu in zip(("image", "mask", "variance"), hdus[1:4], strict=True):
            np.testing.assert_array_equal(stored[name].array, hdu.data)
            assert stored[name].array.dtype == hdu.data.dtype.newbyteorder("=")
        planes = {key[3:]: bit for key, bit in hdus[2].header.items() if key.startswith("MP_")}
        assert {name: plane.bit for name, plane in stored["mask"].planes.items()} == planes
        expected = WCS(hdus[1].header)
        shape = hdus[1].data.shape
    y, x = np.mgrid[0 : shape[0] : 7, 0 : shape[1] : 7]
    sky, found = (np.array(wcs.all_pix2world(x, y, 0)) for wcs in (expected, stored["wcs"]))
    assert np.abs(sky - found).max() < 1e-12
    assert fits_bytes(stored) == path.read_bytes()
    assert stored.links["visit_info"].dataset_type == "visit_metadata"


# ---- Single components --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("storage_class", "value"),
    [
        ("CompositeH5RecordV1", visit_info()),
        ("CompositeH5TableV1", QTable({"a": np.arange(10)})),
        ("CompositeH5ImageV1", ch5.Image(pixels((30, 40)), origin=(100, 200), unit="nJy")),
        ("CompositeH5TextV1", "SIMPLE  = T"),
        ("CompositeH5ListV1", [ch5.Image(pixels((3, 4))), "text"]),
    ],
)
def test_a_component_as_a_dataset_of_its_own(butler: Butler, storage_class: str, value: Any) -> None:
    dataset_type = register(butler, f"alone_{storage_class}", ("instrument", "visit"), storage_class)
    ref = butler.put(value, dataset_type, VISIT)
    got = butler.get(ref)
    expected = ch5.Record(value) if isinstance(value, dict) else value
    assert type(got) is type(expected)
    assert digest_of(got) == digest_of(expected)
    with ch5.open(butler.getURI(ref).ospath) as stored:
        assert list(stored) == ["value"]
        assert stored.id == str(ref.id)


def test_parameters_of_a_component_as_a_dataset_of_its_own(butler: Butler) -> None:
    dataset_type = register(butler, "flat", ("instrument", "detector"), "CompositeH5ImageV1")
    image = ch5.Image(pixels((30, 40)), origin=(100, 200))
    ref = butler.put(image, dataset_type, instrument="DemoCam", detector=1)
    np.testing.assert_array_equal(butler.get(ref, parameters={"bbox": BOX}).array, image.cut(BOX).array)
    with pytest.raises(KeyError, match="'rows' not understood"):
        butler.get(ref, parameters={"rows": slice(3)})


# ---- Other datastores ---------------------------------------------------------------------------------------


def test_in_memory_datasets_are_independent(tmp_path: Path) -> None:
    memory = new_repo(tmp_path, MEMORY)
    given = ccd()
    ref = memory.put(given, "calexp", CCD)
    given["image"].array[:] = 7
    component = ref.makeComponentRef("image")
    memory.get(component).array[:] = 8
    assert memory.get(component).array.std() > 1
    with pytest.raises(errors.NotACompositeFileError, match="is in memory"):
        link(memory, ref, "image")


def test_a_file_that_is_not_local_is_read_in_parts(
    butler: Butler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "path" / "some_data_package"
    given = ccd(shape=(2000, 1500))
    given.write(package / "a.h5")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(package.parent))
    ref = DatasetRef(butler.get_dataset_type("calexp"), butler.registry.expandDataId(CCD), butler.run)
    dataset = FileDataset("resource://some_data_package/a.h5", [ref])
    butler.ingest(dataset, transfer="direct", record_validation_info=False)
    assert butler.getURI(ref).scheme == "resource"
    with counted_reads() as count:
        part = butler.get(ref.makeComponentRef("image"), parameters={"bbox": BOX})
        assert 0 < count() < os.path.getsize(package / "a.h5") / 5
    np.testing.assert_array_equal(part.array, given["image"].array[5:15, 10:30])
    assert link(butler, ref, "image").uri == "resource://some_data_package/a.h5"
    # The Butler moves this file to its cache, so this comes last.
    assert digests(butler.get(ref)) == digests(given)
