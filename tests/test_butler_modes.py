"""The same datasets, the same answers, in every datastore and mode of the Butler.

Each mode stores a visit, an exposure that has a part of the visit's metadata by link where a link can be made, and a
catalogue. What it then gives is compared with what a plain file datastore gives.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID

import h5py
import numpy as np
import pytest
from astropy.table import Table
from support import counted_reads, exposure, pixels, simple_wcs
from support import visit_info as metadata

import compositeh5 as ch5
from compositeh5 import errors, kinds
from compositeh5.composite.session import current
from compositeh5.storage.digests import digest
from compositeh5.trees.verify import verify

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")

from butler_support import (
    ALL_DISASSEMBLED,
    CCD,
    DETECTORS,
    FILE,
    MEMORY,
    RUN,
    VISIT,
    chain,
    child,
    files_of,
    new_repo,
    nothing_cached,  # noqa: F401
    purge,
    register,
)
from lsst.daf.butler import Butler, DatasetProvenance, DatasetRef, FileDataset, LimitedButler, QuantumBackedButler

from compositeh5.butler import link, linked_refs, put_overlay
from compositeh5.butler.formatter import CompositeFormatter

BOX = ch5.Box(105, 115, 210, 230)


# ---- What is stored -----------------------------------------------------------------------------------------


def visit() -> ch5.Composite:
    # Noise, so that a copy of it could not hide in a small file.
    info = {**metadata(), "guiding": pixels((20_000,))}
    camera = Table({"detector": np.arange(9), "name": [f"S{d}" for d in range(9)]})
    return ch5.Composite("visit", visit_info=info, camera=camera, data_id=VISIT, stage="raw")


def ccd(detector: int = 4, /, visit_info: Any = None) -> ch5.Composite:
    """Return an exposure with a part of its visit, whose components were made by three steps."""
    shared = visit()["visit_info"] if visit_info is None else visit_info
    others = {"photo_calib": None, "header": "SIMPLE  = T", "fits": ["XTENSION", pixels((3, 4)), {"depth": 25.5}]}
    measured = exposure((30, 40), **others).replace(data_id={**VISIT, "detector": detector})
    return measured.replace({"visit_info": shared}, stage="raw").replace(
        {"wcs": simple_wcs((30, 40))}, stage="jointcal"
    )


def catalog() -> ch5.Composite:
    table = Table({"id": np.arange(100), "flux": pixels((100,)), "spectrum": pixels((100, 5))})
    metadata = {"depth": 25.5, "software": "measure 2.1", "steps": [1, 2, 3]}
    return ch5.Composite("source_catalog", table=table, metadata=metadata, data_id=CCD, stage="measure")


# ---- The modes ----------------------------------------------------------------------------------------------

Get = Callable[[DatasetRef, dict[str, Any] | None], Any]


@dataclass
class Mode:
    """A Butler that has the datasets, and how it is asked for them.

    Attributes
    ----------
    butler : LimitedButler
        The Butler.
    refs : dict
        The datasets, by dataset type.
    ask : callable, optional
        Asks for a dataset or component, where it isn't ``butler.get``.
    keeps_ids : bool
        Whether the exposure has the id of its dataset.
    links : bool
        Whether there are files, and so links.
    """

    butler: LimitedButler
    refs: dict[str, DatasetRef]
    ask: Get | None = None
    keeps_ids: bool = True
    links: bool = True

    def get(self, name: str, **parameters: Any) -> Any:
        """Return a dataset, or a component: ``"calexp"``, ``"calexp.wcs"``."""
        dataset_type, _, component = name.partition(".")
        ref = self.refs[dataset_type]
        if component:
            ref = ref.makeComponentRef(component)
        if self.ask is not None:
            return self.ask(ref, parameters or None)
        return self.butler.get(ref, parameters=parameters or None)


def fill(butler: Butler) -> dict[str, DatasetRef]:
    refs = {"visit_metadata": butler.put(visit(), "visit_metadata", VISIT)}
    refs["calexp"] = butler.put(ccd(visit_info=shared(butler, refs["visit_metadata"])), "calexp", CCD)
    refs["src"] = butler.put(catalog(), "src", CCD, provenance=provenance(refs["visit_metadata"]))
    return refs


def provenance(ref: DatasetRef) -> DatasetProvenance:
    """Return that of a dataset which a quantum made from one input."""
    made = DatasetProvenance(quantum_id=UUID("7f0c7d33-4f7b-4c46-9a2e-5d9b0b7a9a01"))
    made.add_input(ref)
    made.add_extra_provenance(ref.id, {"seeing": 0.75, "skipped": False})
    return made


def shared(butler: LimitedButler, ref: DatasetRef) -> Any:
    """Return a link to the metadata of the visit; where there is no file that it could lead to, the metadata."""
    try:
        return link(butler, ref, "visit_info")
    except errors.NotACompositeFileError:
        return visit()["visit_info"]


def file(root: Path) -> Mode:
    butler = new_repo(root)
    return Mode(butler, fill(butler))


def disassembled(root: Path) -> Mode:
    butler = new_repo(root, ALL_DISASSEMBLED)
    mode = Mode(butler, fill(butler))
    assert all(len(butler.getURIs(ref).componentURIs) > 2 for ref in mode.refs.values())
    return mode


def memory(root: Path) -> Mode:
    butler = new_repo(root, MEMORY)
    return Mode(butler, fill(butler), links=False)


def memory_and_file(root: Path) -> Mode:
    butler = new_repo(root, chain(MEMORY, child("files")))
    mode = Mode(butler, fill(butler))
    assert butler.get(mode.refs["calexp"]).location is None
    return mode


def memory_and_file_later(root: Path) -> Mode:
    """Read in another process: what was in memory is gone, the file is there."""
    mode = memory_and_file(root)
    mode.butler = Butler.from_config(str(root), writeable=True)
    return mode


def two_files(root: Path) -> Mode:
    """Two file datastores of different templates; the one that is asked first takes composites apart."""
    template = "{run:/}/apart/{datasetType}.{component:?}/{instrument}_{visit}_{detector:?}"
    first = child("first", templates={"default": template}, composites={"default": True})
    butler = new_repo(root, chain(first, child("second")))
    mode = Mode(butler, fill(butler))
    assert (root / "first" / "demo" / "run" / "apart" / "calexp.image" / "DemoCam_903334_4.h5").exists()
    assert [path.relative_to(root).parts[0] for path in root.rglob("calexp_*.h5")] == ["second"]
    return mode


def zipped(root: Path, datastore: Mapping[str, Any] = FILE) -> Mode:
    source = new_repo(root / "source", datastore)
    source.registry.insertDimensionData("visit_detector_region", CCD)
    refs = fill(source)
    packed = source.retrieve_artifacts_zip(refs.values(), root / "zips")
    butler = new_repo(root / "repo")
    butler.ingest_zip(packed, transfer="copy")
    # Links lead from member to member.
    shutil.rmtree(root / "source")
    assert all("zip-path" in uri.fragment for ref in refs.values() for uri in butler.getURIs(ref).iter_all())
    return Mode(butler, refs)


def zipped_disassembled(root: Path) -> Mode:
    return zipped(root, ALL_DISASSEMBLED)


def one_file_for_all(root: Path) -> Mode:
    butler = new_repo(root / "repo")
    refs = fill(butler)
    butler.pruneDatasets([refs["calexp"]], disassociate=True, unstore=True, purge=True)
    info = link(butler, refs["visit_metadata"], "visit_info")
    path = root / "visit_903334.h5"
    ch5.write_file(path, {f"ccd_{d}": ccd(d, visit_info=info) for d in DETECTORS})
    dataset_type = butler.get_dataset_type("calexp")
    data_ids = [butler.registry.expandDataId(VISIT, detector=d) for d in DETECTORS]
    all_refs = [DatasetRef(dataset_type, data_id, RUN) for data_id in data_ids]
    butler.ingest(FileDataset(path, all_refs, formatter=CompositeFormatter), transfer="copy")
    assert len({butler.getURI(ref) for ref in all_refs}) == 1
    return Mode(butler, {**refs, "calexp": all_refs[4]}, keeps_ids=False)


def deferred(root: Path) -> Mode:
    mode = file(root)

    def ask(ref: DatasetRef, parameters: dict[str, Any] | None) -> Any:
        whole = ref.makeCompositeRef() if ref.isComponent() else ref
        return mode.butler.getDeferred(whole).get(component=ref.datasetType.component(), parameters=parameters)

    return Mode(mode.butler, mode.refs, ask)


def quantum_backed(root: Path) -> Mode:
    full = new_repo(root)
    data_ids = {"visit_metadata": VISIT, "calexp": CCD, "src": CCD}
    refs = {
        name: DatasetRef(full.get_dataset_type(name), full.registry.expandDataId(data_id), RUN)
        for name, data_id in data_ids.items()
    }
    butler = QuantumBackedButler.from_predicted(
        config=str(root),
        predicted_inputs=[],
        predicted_outputs=[ref.id for ref in refs.values()],
        dimensions=full.dimensions,
        datastore_records={},
        dataset_types={name: ref.datasetType for name, ref in refs.items()},
    )
    butler.put(visit(), refs["visit_metadata"])
    butler.put(ccd(visit_info=shared(butler, refs["visit_metadata"])), refs["calexp"])
    butler.put(catalog(), refs["src"], provenance=provenance(refs["visit_metadata"]))
    return Mode(butler, refs)


def object_store(root: Path) -> Mode:
    """Files in an object store; the database is local."""
    butler = new_repo(root, {**FILE, "root": "s3://data/repo"})
    mode = Mode(butler, fill(butler))
    assert butler.getURI(mode.refs["calexp"]).scheme == "s3"
    return mode


def object_store_disassembled(root: Path) -> Mode:
    butler = new_repo(root, {**ALL_DISASSEMBLED, "root": "s3://data/pieces"})
    return Mode(butler, fill(butler))


MODES = (
    file,
    disassembled,
    memory,
    memory_and_file,
    memory_and_file_later,
    two_files,
    zipped,
    zipped_disassembled,
    one_file_for_all,
    deferred,
    quantum_backed,
    object_store,
    object_store_disassembled,
)


@pytest.fixture(scope="module")
def store() -> Iterator[None]:
    module = pytest.importorskip("object_store")
    with pytest.MonkeyPatch.context() as monkeypatch, module.object_store(monkeypatch):
        yield


@pytest.fixture(scope="module", params=MODES, ids=lambda mode: mode.__name__)
def mode(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mode:
    if request.param in (object_store, object_store_disassembled):
        request.getfixturevalue("store")
    return request.param(tmp_path_factory.mktemp(request.param.__name__))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Mode:
    return file(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Mode:
    return disassembled(tmp_path_factory.mktemp("apart"))


# ---- The answers --------------------------------------------------------------------------------------------


def content(value: Any) -> Any:
    """Return the type and the content of an answer, such that equal ones are equal."""
    if isinstance(value, ch5.Composite):
        own = (value.definition, value.definition_version, value.data_id, value.stage, sorted(value.absent))
        return own, {name: (value.component_stage(name), content(value[name])) for name in value}
    if type(value) is dict:
        return {name: content(item) for name, item in value.items()}
    if value is None or isinstance(value, ch5.Box | tuple | str):
        return type(value), value
    return type(value), digest(kinds.encode(value))


_plain_answers: dict[tuple[str, str], Any] = {}


def same(mode: Mode, plain: Mode, name: str, **parameters: Any) -> Any:
    """Return the answer of a mode, which must be that of the plain file datastore."""
    found = mode.get(name, **parameters)
    question = name, str(parameters)
    if question not in _plain_answers:
        _plain_answers[question] = content(plain.get(name, **parameters))
    assert content(found) == _plain_answers[question]
    return found


COMPONENTS = ("image", "mask", "variance", "wcs", "psf", "visit_info", "header", "fits")


def test_what_was_put_is_got(mode: Mode, plain: Mode) -> None:
    given = {"calexp": ccd(), "visit_metadata": visit(), "src": catalog()}
    for name, composite in given.items():
        found = same(mode, plain, name)
        assert content(found) == content(composite)
        if mode.keeps_ids or name != "calexp":
            assert (found.id, found.dataset_type, found.run) == (str(mode.refs[name].id), name, RUN)
    assert mode.get("calexp").component_stage("image") == "single_frame"
    assert mode.get("calexp").component_stage("wcs") == "jointcal"


def test_a_component(mode: Mode, plain: Mode) -> None:
    given = ccd()
    for name in COMPONENTS:
        assert content(same(mode, plain, f"calexp.{name}")) == content(given[name])
    for name in ("table", "metadata"):
        same(mode, plain, f"src.{name}")
    same(mode, plain, "visit_metadata.camera")
    # One was given as None, of the other nothing is known.
    assert same(mode, plain, "calexp.photo_calib") is None
    assert same(mode, plain, "calexp.transmission_curve") is None
    assert same(mode, plain, "calexp.transmission_curve", rows=slice(3)) is None
    assert mode.get("calexp").absent == ("photo_calib",)


def test_the_provenance(mode: Mode) -> None:
    ref = mode.refs["src"]
    known = mode.get("src").provenance
    assert known["butler"] == provenance(mode.refs["visit_metadata"]).to_flat_dict(ref, simple_types=True)
    assert (known["butler"]["input.0.seeing"], known["butler"]["input.0.skipped"]) == (0.75, False)
    assert known["software"]["lsst-daf-butler"] == version("lsst-daf-butler")
    untold = mode.refs["visit_metadata"]
    expected = DatasetProvenance().to_flat_dict(untold, simple_types=True)
    assert mode.get("visit_metadata").provenance["butler"] == expected


def test_parameters_of_a_component(mode: Mode, plain: Mode) -> None:
    for name in ("image", "mask", "variance"):
        assert same(mode, plain, f"calexp.{name}", bbox=BOX).box == BOX
    table = same(mode, plain, "src.table", columns=["flux", "id"], rows=slice(10, 20))
    assert (table.colnames, len(table)) == (["flux", "id"], 10)
    assert same(mode, plain, "src.metadata", fields=["steps"]) == {"steps": [1, 2, 3]}
    assert same(mode, plain, "calexp.visit_info", fields=["airmass"]) == {"airmass": 1.0625}
    assert same(mode, plain, "calexp.fits", items=[-1, 0]) == [{"depth": 25.5}, "XTENSION"]
    with pytest.raises((IndexError, ValueError), match="the list has 3 items"):
        mode.get("calexp.fits", items=[3])


def test_parameters_go_to_the_components_that_understand_them(mode: Mode, plain: Mode) -> None:
    part = same(mode, plain, "calexp", bbox=BOX, fields=["airmass"], items=[0])
    assert part["image"].box == part["mask"].box == part["variance"].box == BOX
    assert part["visit_info"] == {"airmass": 1.0625}
    assert (part["header"], part["fits"]) == ("SIMPLE  = T", ["XTENSION"])
    # The WCS follows: the same pixel has the same place on the sky.
    sky = ccd()["wcs"].pixel_to_world(17, 8)
    assert part["wcs"].pixel_to_world(17 - 10, 8 - 5).separation(sky).arcsec < 1e-9
    # A part of a dataset isn't the dataset.
    assert (part.id, part.location) == ("", None)
    some = same(mode, plain, "src", columns="id", rows=slice(3), fields=["depth"])
    assert some["table"].colnames == ["id"]
    assert some["metadata"] == {"depth": 25.5}


def test_a_parameter_that_nothing_understands_is_an_error(mode: Mode) -> None:
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("calexp", {"depth": 3}),
        # Exposures may have tables, but this one has none.
        ("calexp", {"rows": slice(3)}),
        ("calexp", {"bbox": BOX, "components": ["psf"]}),
        ("calexp.wcs", {"bbox": BOX}),
        ("calexp.image", {"rows": slice(3)}),
        ("calexp.image", {"components": ["image"]}),
        ("calexp.bbox", {"rows": slice(3)}),
        ("calexp.stage", {"depth": 3}),
        ("calexp.components", {"rows": slice(3)}),
        ("src", {"bbox": BOX}),
        ("src", {"items": [0]}),
        ("calexp.header", {"items": [0]}),
    ]
    for name, parameters in wrong:
        with pytest.raises((KeyError, ValueError), match="not understood|has no parameter"):
            mode.get(name, **parameters)


def test_derived_components(mode: Mode, plain: Mode) -> None:
    assert same(mode, plain, "calexp.bbox") == ch5.Box(100, 130, 200, 240)
    assert same(mode, plain, "calexp.shape") == (30, 40)
    assert same(mode, plain, "calexp.stage") == "jointcal"
    assert same(mode, plain, "src.stage") == "measure"


def test_derived_components_of_what_parameters_leave(mode: Mode, plain: Mode) -> None:
    wide = ch5.Box(0, 110, 0, 205)
    assert same(mode, plain, "calexp.bbox", bbox=wide) == ch5.Box(100, 110, 200, 205)
    assert same(mode, plain, "calexp.shape", bbox=wide) == (10, 5)
    assert same(mode, plain, "calexp.shape", components=["mask"]) == (30, 40)
    assert same(mode, plain, "calexp.stage", bbox=wide) == "jointcal"
    part = same(mode, plain, "calexp.components", bbox=BOX)
    whole = mode.get("calexp", bbox=BOX)
    assert content(part) == {name: content(whole[name]) for name in whole} | {"photo_calib": (type(None), None)}
    for name, parameters in (
        ("bbox", {"bbox": ch5.Box(0, 10, 0, 10)}),
        ("shape", {"bbox": ch5.Box(0, 10, 0, 10)}),
        ("bbox", {"components": ["psf"]}),
    ):
        with pytest.raises(ValueError, match="has no pixel|has no image"):
            mode.get(f"calexp.{name}", **parameters)


def test_several_components_in_one_read(mode: Mode, plain: Mode) -> None:
    wanted = ["visit_info", "wcs", "psf", "photo_calib", "transmission_curve"]
    found = same(mode, plain, "calexp.components", components=wanted)
    assert set(found) == set(wanted)
    assert found["photo_calib"] is found["transmission_curve"] is None
    for name in wanted[:3]:
        assert content(found[name]) == content(mode.get(f"calexp.{name}"))
    some = same(mode, plain, "src.components", components=["table", "metadata"], rows=slice(3), fields=["depth"])
    assert len(some["table"]) == 3
    assert some["metadata"] == {"depth": 25.5}
    assert set(same(mode, plain, "calexp.components")) == {*COMPONENTS, "photo_calib"}
    with pytest.raises((KeyError, ValueError), match="no component 'wsc'; did you mean 'wcs'"):
        mode.get("calexp.components", components=["wsc", "image"])


def test_a_composite_of_some_components(mode: Mode, plain: Mode) -> None:
    part = same(mode, plain, "calexp", components=["image", "wcs", "photo_calib"], bbox=BOX)
    assert set(part) == {"image", "wcs"}
    assert part.absent == ("photo_calib",)
    assert part["image"].box == BOX


def test_answers_are_independent(mode: Mode, plain: Mode) -> None:
    mode.get("calexp.image").array[:] = 7
    mode.get("calexp.components", components=["image", "visit_info"])["image"].array[:] = 8
    mode.get("src.table")["flux"][:] = 9
    same(mode, plain, "calexp.image")
    same(mode, plain, "src.table")


def test_a_link_to_what_is_not_there(mode: Mode) -> None:
    expected: dict[str, type[Exception]] = {
        "photo_calib": errors.AbsentComponentError,
        "transmission_curve": errors.NoSuchComponentError,
    }
    for name, error in expected.items():
        with pytest.raises(error if mode.links else errors.NotACompositeFileError):
            link(mode.butler, mode.refs["calexp"], name)


def test_an_overlay(mode: Mode) -> None:
    better = simple_wcs((30, 40))
    better.wcs.crval = [150.2, 2.3]
    base = mode.refs["calexp"]
    if not isinstance(mode.butler, Butler):
        pytest.skip("an overlay is a new dataset, and needs the registry")
    if not mode.links:
        with pytest.raises(errors.NotACompositeFileError, match="is in memory"):
            put_overlay(mode.butler, base, {"wcs": better}, "calexp", run="overlays")
        return
    ref = put_overlay(mode.butler, base, {"wcs": better}, "calexp", run="overlays", stage="gaia")
    overlay = Mode(mode.butler, {"calexp": ref}, mode.ask)
    for name in COMPONENTS:
        expected = better if name == "wcs" else mode.get(f"calexp.{name}")
        assert content(overlay.get(f"calexp.{name}")) == content(expected)
    whole = overlay.get("calexp")
    assert content(whole) == content(mode.get("calexp").replace({"wcs": better}, stage="gaia"))
    assert set(whole.links) == {*COMPONENTS} - {"wcs"}
    assert whole.links["image"].id == mode.get("calexp").id


def test_what_is_linked_is_found(mode: Mode) -> None:
    if not isinstance(mode.butler, Butler):
        pytest.skip("needs the registry")
    if not mode.links:
        with pytest.raises(errors.NotACompositeFileError, match="is in memory"):
            linked_refs(mode.butler, [mode.refs["calexp"]])
        return
    assert linked_refs(mode.butler, [mode.refs["calexp"]]) == [mode.refs["visit_metadata"]]


# ---- What belongs to one mode -------------------------------------------------------------------------------


def test_a_shared_component_of_a_disassembled_composite_stays_a_stub(apart: Mode) -> None:
    uris = apart.butler.getURIs(apart.refs["calexp"]).componentURIs
    sizes = {name: Path(uri.ospath).stat().st_size for name, uri in uris.items()}
    assert sizes["visit_info"] < 8_000 < 80_000 < visit()["visit_info"]["guiding"].nbytes + 1
    assert sizes["assembly"] < 30_000
    # Nothing is known of this one.
    assert sizes["transmission_curve"] < 3_000
    assert list(apart.get("calexp").links) == ["visit_info"]


def test_a_box_of_a_disassembled_composite_reads_little(tmp_path: Path) -> None:
    butler = new_repo(tmp_path, ALL_DISASSEMBLED)
    ref = butler.put(exposure((2000, 1500)), "calexp", CCD)
    size = Path(butler.getURIs(ref).componentURIs["image"].ospath).stat().st_size
    butler.get(ref, parameters={"bbox": BOX})
    with counted_reads() as count:
        butler.get(ref, parameters={"bbox": BOX})
        assert 0 < count() < size / 5


_opened: list[str] | None = None


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None:
        _opened.append(str(args[0]))


def test_several_components_open_the_file_once(tmp_path: Path) -> None:
    global _opened
    butler = new_repo(tmp_path)
    ref = butler.put(exposure((1500, 1000)), "calexp", CCD)
    path = butler.getURI(ref).ospath
    several = ref.makeComponentRef("components")
    # There is no way to remove such a hook again.
    sys.addaudithook(_watch)
    _opened = []
    try:
        with counted_reads() as count:
            butler.get(several, parameters={"components": ["wcs", "psf"]})
            read = count()
        assert _opened.count(path) == 1
    finally:
        _opened = None
    assert 0 < read < Path(path).stat().st_size / 20


def test_each_dataset_of_a_file_is_picked_by_its_data_id(tmp_path: Path) -> None:
    mode = one_file_for_all(tmp_path)
    refs = mode.butler.query_datasets("calexp", collections=RUN)
    assert len(refs) == len(DETECTORS)
    for ref in refs:
        assert mode.butler.get(ref).data_id == ref.dataId.required
        made = link(mode.butler, ref, "image")
        assert made.data_id["detector"] == ref.dataId["detector"]
        assert ch5.Composite(x=made)["x"].box == ch5.Box(100, 130, 200, 240)
    path = Path(mode.butler.getURI(refs[0]).ospath)
    purge(mode.butler, *refs[:-1])
    assert path.exists()
    assert mode.butler.get(refs[-1]).data_id == refs[-1].dataId.required
    purge(mode.butler, *refs[-1:])
    assert not path.exists()


@pytest.mark.parametrize("transfer", ["copy", "move", "direct"])
def test_the_datasets_of_a_file_link_to_each_other(tmp_path: Path, transfer: str) -> None:
    """A visit and its detectors in one file, which the Butler gives another name."""
    butler = new_repo(tmp_path / "repo")
    data_ids = {"visit": VISIT, "ccd_3": {**VISIT, "detector": 3}, "ccd_4": CCD}
    types = {name: butler.get_dataset_type("visit_metadata" if name == "visit" else "calexp") for name in data_ids}
    refs = {name: DatasetRef(types[name], butler.registry.expandDataId(data_ids[name]), RUN) for name in data_ids}
    path = tmp_path / "inbox" / "visit_903334.h5"
    # With the ids of their datasets, so that the Butler knows what the links lead to.
    whole = visit().replace(id=refs["visit"].id)
    whole.write(path)
    info = whole.link("visit_info")
    ccds = {
        name: ccd(ref.dataId["detector"], visit_info=info).replace(id=ref.id)
        for name, ref in refs.items()
        if name != "visit"
    }
    ch5.write_file(path, {"visit": whole, **ccds}, replace=True)
    butler.ingest(FileDataset(path, list(refs.values()), formatter=CompositeFormatter), transfer=transfer)
    if transfer != "direct":
        shutil.rmtree(path.parent)
    current().clear_cache()
    mode = Mode(butler, {"visit_metadata": refs["visit"], "calexp": refs["ccd_4"]})
    assert (Path(butler.getURI(refs["ccd_4"]).ospath).name == path.name) is (transfer == "direct")
    assert content(mode.get("calexp.visit_info")) == content(visit()["visit_info"])
    assert content(mode.get("calexp")) == content(ccd())
    assert linked_refs(butler, [refs["ccd_3"], refs["ccd_4"]]) == [refs["visit"]]
    # The file, and so what is linked, stays as long as one of them.
    butler.pruneDatasets([refs["visit"]], disassociate=True, unstore=True, purge=True)
    current().clear_cache()
    assert mode.get("calexp.visit_info")["visit"] == 903334


def test_what_joins_the_pieces_of_a_disassembled_composite(apart: Mode) -> None:
    uris = apart.butler.getURIs(apart.refs["calexp"]).componentURIs
    # Other HDF5 software sees the whole, too.
    for name in ("visit_info", "assembly"):
        with h5py.File(uris[name].ospath) as file:
            assert file["composite/visit_info/airmass"][()] == 1.0625
    with ch5.open(uris["assembly"].ospath) as whole:
        verify(whole)
        assert content(whole) == content(ccd())
        assert whole.id == str(apart.refs["calexp"].id)


def test_the_piece_of_a_disassembled_composite_that_a_get_can_not_find(tmp_path: Path) -> None:
    mode = disassembled(tmp_path)
    mode.butler.pruneDatasets([mode.refs["visit_metadata"]], disassociate=True, unstore=True, purge=True)
    current().clear_cache()
    for name in ("calexp", "calexp.visit_info"):
        with pytest.raises(FileNotFoundError, match="visit_metadata.visit_info"):
            mode.get(name)
    assert set(mode.get("calexp", components=["image", "wcs"])) == {"image", "wcs"}


def test_a_composite_has_no_component_that_joins_others(tmp_path: Path) -> None:
    for number, datastore in enumerate((FILE, ALL_DISASSEMBLED)):
        butler = new_repo(tmp_path / str(number), datastore)
        impostor = ch5.Composite(None, image=ch5.Image(pixels((3, 4))), assembly="text")
        with pytest.raises((errors.DefinitionError, RuntimeError)) as caught:
            butler.put(impostor, "calexp", CCD)
        assert "has no component assembly" in str(caught.value.__cause__ or caught.value)


def test_recipes_for_components_that_no_definition_has(tmp_path: Path) -> None:
    classes = {
        "OfTheSunV1": {
            "pytype": "compositeh5.Composite",
            "delegate": "compositeh5.butler.delegate.CompositeDelegate",
            "components": {"image": "CompositeH5ImageV1", "heliometer": "CompositeH5ImageV1"},
        }
    }
    formatter = "compositeh5.butler.formatter.CompositeFormatter"
    formatters = {
        "OfTheSunV1": {"formatter": formatter, "parameters": {"recipe": "sun"}},
        "write_recipes": {formatter: {"default": {"image": {"gzip": 2}}, "sun": {"heliometer": {"gzip": 3}}}},
    }
    butler = new_repo(tmp_path, {"formatters": formatters}, storageClasses=classes)
    dataset_type = register(butler, "theirs", ("instrument",), "OfTheSunV1")
    plane = ch5.Image(pixels((300, 400)))
    butler.put(ch5.Composite(None, image=plane, heliometer=plane), dataset_type, instrument="DemoCam")
    butler.put(exposure((300, 400)), "calexp", CCD)
    levels = {}
    for path in files_of(tmp_path):
        with h5py.File(path) as stored:
            names = {"image", "heliometer"}.intersection(stored["composite"])
            levels |= {(len(names), name): stored["composite"][name].compression_opts for name in names}
    assert levels == {(1, "image"): 2, (2, "image"): 1, (2, "heliometer"): 3}


def test_a_storage_class_whose_composites_can_not_be_disassembled(tmp_path: Path) -> None:
    classes = {
        "OfSomebodyElseV1": {
            "pytype": "compositeh5.Composite",
            "delegate": "compositeh5.butler.delegate.CompositeDelegate",
            "components": {"image": "CompositeH5ImageV1", "psf": "CompositeH5PsfV1"},
        }
    }
    formatters = {"OfSomebodyElseV1": "compositeh5.butler.formatter.CompositeFormatter"}
    datastore = {"composites": {"disassembled": {"OfSomebodyElseV1": True}}, "formatters": formatters}
    butler = new_repo(tmp_path, datastore, storageClasses=classes)
    dataset_type = register(butler, "theirs", ("instrument",), "OfSomebodyElseV1")
    with pytest.raises(errors.DefinitionError, match="needs a component 'assembly'"):
        butler.put(ch5.Composite(None, image=ch5.Image(pixels((3, 4)))), dataset_type, instrument="DemoCam")
    assert not files_of(tmp_path)
