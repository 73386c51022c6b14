"""Objects of a user's own class in the Butler: put as such, got as such, from every sort of datastore."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy.table import Table
from support import pixels, simple_wcs, visit_info

import compositeh5 as ch5
from compositeh5.composite import definitions
from compositeh5.composite.session import current
from compositeh5.errors import BrokenLinkError, DefinitionError

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")

import observations
from butler_support import (
    ALL_DISASSEMBLED,
    CCD,
    FILE,
    MEMORY,
    RUN,
    VISIT,
    chain,
    child,
    files_of,
    in_new_run,
    new_repo,
    nothing_cached,  # noqa: F401
    purge,
    register,
)
from lsst.daf.butler import Butler, DatasetProvenance, DatasetRef, FileDataset
from observations import Observation, Unregistered

from compositeh5.butler import (
    check,
    link,
    linked_refs,
    put_component,
    put_links,
    put_overlay,
    subset,
    transfer_closure,
)
from compositeh5.butler.formatter import CompositeFormatter

BOX = ch5.Box(2, 12, 5, 25)

NAMES = ("TestObservationV1", "TestUnregisteredV1")
FORMATTERS = dict.fromkeys(NAMES, "compositeh5.butler.formatter.CompositeFormatter")


def storage_class(python_type: str) -> dict[str, Any]:
    return {
        "pytype": f"observations.{python_type}",
        "converters": {"compositeh5.Composite": "compositeh5.Composite.assemble"},
        "delegate": "compositeh5.butler.delegate.CompositeDelegate",
        "parameters": ["components"],
        "components": {
            "image": "CompositeH5ImageV1",
            "wcs": "CompositeH5WcsV1",
            "visit_info": "CompositeH5RecordV1",
            "sources": "CompositeH5TableV1",
            "assembly": "CompositeH5AssemblyV1",
        },
        "derivedComponents": {"stage": "CompositeH5TextV1", "shape": "CompositeH5ShapeV1"},
    }


def repository(root: Path, datastore: dict[str, Any] = FILE) -> Butler:
    classes = {NAMES[0]: storage_class("Observation"), NAMES[1]: storage_class("Unregistered")}
    butler = new_repo(root, {**datastore, "formatters": FORMATTERS}, storageClasses=classes)
    for name, storage in zip(("observation", "unregistered"), NAMES, strict=True):
        register(butler, name, observations.definition.dimensions, storage)
    return butler


def observation(info: Any = None, cls: type[Observation] = Observation) -> Observation:
    shape = (30, 40)
    seen = cls(ch5.Image(pixels(shape)), simple_wcs(shape), visit_info() if info is None else info)
    seen.setSources(Table({"id": np.arange(5), "x": np.arange(5.0), "flux": pixels((5,))}))
    return seen


def put_visit_info(butler: Butler) -> DatasetRef:
    return butler.put(ch5.Composite("visit", visit_info=visit_info(), data_id=VISIT), "visit_metadata", VISIT)


@dataclass
class Mode:
    """A Butler with a run in which there is nothing yet, and whether it has files."""

    butler: Butler
    root: Path
    files: bool
    later: bool

    def __post_init__(self) -> None:
        self.before = files_of(self.root)

    def reader(self) -> Butler:
        """Return the Butler that reads: in a chain, one that finds nothing in memory."""
        return Butler.from_config(str(self.root), run=self.butler.run) if self.later else self.butler

    def new_files(self) -> set[Path]:
        return files_of(self.root) - self.before


# The formatters of a child of a chain are its own.
CHAIN = chain(MEMORY, child("files", formatters=FORMATTERS))
MODES: dict[str, tuple[dict[str, Any], bool, bool]] = {
    "file": (FILE, True, False),
    "disassembled": (ALL_DISASSEMBLED, True, False),
    "memory": (MEMORY, False, False),
    "chain_later": (CHAIN, True, True),
}


@pytest.fixture(scope="module", params=MODES)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Butler, Path, bool, bool]:
    datastore, files, later = MODES[request.param]
    root = tmp_path_factory.mktemp(request.param) / "repo"
    return repository(root, datastore), root, files, later


@pytest.fixture
def mode(shared: tuple[Butler, Path, bool, bool]) -> Mode:
    butler, root, files, later = shared
    return Mode(in_new_run(butler), root, files, later)


@pytest.fixture(autouse=True)
def _nothing_fails() -> Iterator[None]:
    yield
    observations.fails.clear()


def assert_same(found: Any, expected: Observation) -> None:
    assert type(found) is Observation
    np.testing.assert_array_equal(found.image.array, expected.image.array)
    assert found.wcs.wcs.compare(expected.wcs.wcs)
    assert found.visit_info == ch5.Record(visit_info())
    assert (found.getSources() == expected.getSources()).all()


# ---- What was put is got ------------------------------------------------------------------------------------


def test_an_object_is_put_and_got(mode: Mode) -> None:
    seen = observation()
    ref = mode.butler.put(seen, "observation", CCD)
    # What is done to it afterwards is not stored.
    seen.image.array[:] = 0
    reader = mode.reader()
    assert_same(reader.get(ref), observation())
    assert_same(reader.getDeferred("observation", CCD).get(), observation())
    assert bool(mode.new_files()) == mode.files


def test_optional_components_may_be_absent(mode: Mode) -> None:
    mode.butler.put(Observation(observation().image, simple_wcs((30, 40))), "observation", CCD)
    found = mode.reader().get("observation", CCD)
    assert found.visit_info is None
    assert found.getSources() is None
    assert mode.reader().get("observation.sources", CCD) is None


def test_a_component_alone(mode: Mode) -> None:
    mode.butler.put(observation(), "observation", CCD)
    reader = mode.reader()
    # It is no object, so none is built.
    observations.fails["constructor"] = AssertionError("built")
    assert reader.get("observation.wcs", CCD).wcs.compare(simple_wcs((30, 40)).wcs)
    sources = reader.get("observation.sources", CCD, parameters={"columns": ["flux"], "rows": slice(1, 3)})
    assert sources.colnames == ["flux"]
    assert len(sources) == 2
    assert reader.get("observation.image", CCD, parameters={"bbox": BOX}).shape == BOX.shape
    assert reader.get("observation.shape", CCD, parameters={"bbox": BOX}) == BOX.shape


def test_no_other_component_is_read(tmp_path: Path) -> None:
    butler = repository(tmp_path)
    visit = put_visit_info(butler)
    butler.put(observation(link(butler, visit, "visit_info")), "observation", CCD)
    purge(butler, visit)
    current().clear_cache()
    assert butler.get("observation.wcs", CCD).wcs.compare(simple_wcs((30, 40)).wcs)
    with pytest.raises(BrokenLinkError):
        butler.get("observation", CCD)


def test_parameters_give_an_object_of_parts(mode: Mode) -> None:
    mode.butler.put(observation(), "observation", CCD)
    whole = observation()
    part = mode.reader().get("observation", CCD, parameters={"bbox": BOX, "columns": ["x"]})
    assert type(part) is Observation
    np.testing.assert_array_equal(part.image.array, whole.image.array[2:12, 5:25])
    assert part.wcs.pixel_to_world(0, 0).separation(whole.wcs.pixel_to_world(5, 2)).arcsec < 1e-6
    assert part.getSources().colnames == ["x"]
    few = mode.reader().get("observation", CCD, parameters={"components": ["image", "wcs"]})
    assert few.getSources() is None
    with pytest.raises(DefinitionError, match="required component 'wcs' is absent"):
        mode.reader().get("observation", CCD, parameters={"components": ["image"]})


def test_what_the_butler_knows_is_in_the_file(tmp_path: Path) -> None:
    for name, datastore in (("whole", FILE), ("apart", ALL_DISASSEMBLED)):
        butler = repository(tmp_path / name, datastore)
        made = DatasetProvenance()
        made.add_input(put_visit_info(butler))
        ref = butler.put(observation(), "observation", CCD, provenance=made)
        uris = butler.getURIs(ref)
        with ch5.open((uris.primaryURI or uris.componentURIs["assembly"]).ospath) as stored:
            assert (stored.definition, stored.id) == ("test_observation", str(ref.id))
            assert stored.provenance["butler"] == made.to_flat_dict(ref, simple_types=True)


def test_a_file_of_a_script_is_ingested(tmp_path: Path) -> None:
    butler = repository(tmp_path / "repo")
    ch5.Composite.of(observation(), "test_observation", data_id=CCD).write(tmp_path / "one.h5")
    ref = DatasetRef(butler.get_dataset_type("observation"), butler.registry.expandDataId(CCD), RUN)
    butler.ingest(FileDataset(tmp_path / "one.h5", [ref], formatter=CompositeFormatter), transfer="copy")
    assert_same(butler.get("observation", CCD), observation())


# ---- Links --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("datastore", [FILE, ALL_DISASSEMBLED], ids=["file", "disassembled"])
def test_an_object_holds_a_link(tmp_path: Path, datastore: dict[str, Any]) -> None:
    butler = repository(tmp_path / "repo", datastore)
    visit = put_visit_info(butler)
    ref = butler.put(observation(link(butler, visit, "visit_info")), "observation", CCD)
    assert_same(butler.get("observation", CCD), observation())
    assert butler.get("observation.visit_info", CCD) == ch5.Record(visit_info())
    assert visit in linked_refs(butler, [ref])
    assert {(found.component, found.state) for found in check(butler, [ref])} >= {("visit_info", "ok")}
    target = repository(tmp_path / "target", datastore)
    transfer_closure(butler, target, [ref])
    assert_same(target.get(ref), observation())
    assert target.get_dataset(visit.id) == visit


def test_a_subset_has_what_an_object_links_to(tmp_path: Path) -> None:
    butler = repository(tmp_path / "repo")
    ref = butler.put(observation(link(butler, put_visit_info(butler), "visit_info")), "observation", CCD)
    target = repository(tmp_path / "target", {**FILE, "templates": {"default": "{run}/other/{datasetType}/{id}"}})
    subset(butler, target, [ref])
    assert_same(target.get(ref), observation())


def test_a_composite_of_links_is_got_as_an_object(tmp_path: Path) -> None:
    butler = repository(tmp_path)
    visit = put_visit_info(butler)
    first = butler.put(observation(), "observation", CCD)
    sources = {**dict.fromkeys(("image", "wcs", "sources"), first), "visit_info": visit}
    put_links(butler, "observation", sources, {**CCD, "detector": 5}, stage="joined")
    assert_same(butler.get("observation", CCD, detector=5), observation())
    assert butler.get("observation.stage", CCD, detector=5) == "joined"


# ---- Composites of the definition ---------------------------------------------------------------------------


def test_a_composite_is_put_and_got_as_an_object(mode: Mode) -> None:
    composite = ch5.Composite.of(observation(), "test_observation", stage="isr")
    mode.butler.put(composite, "observation", CCD)
    assert_same(mode.reader().get("observation", CCD), observation())
    assert mode.reader().get("observation.stage", CCD) == "isr"


@pytest.mark.parametrize("datastore", [FILE, ALL_DISASSEMBLED], ids=["file", "disassembled"])
def test_overlays_of_objects(tmp_path: Path, datastore: dict[str, Any]) -> None:
    butler = repository(tmp_path, datastore)
    ref = butler.put(observation(), "observation", CCD)
    better = simple_wcs((30, 40))
    better.wcs.crval += 0.001
    put_overlay(butler, ref, {"wcs": better}, "observation", run="overlay", stage="jointcal")
    put_component(butler, better, "observation.wcs", CCD, run="component")
    for run in ("overlay", "component"):
        found = butler.get("observation", CCD, collections=run)
        assert type(found) is Observation
        assert found.wcs.wcs.crval.tolist() == better.wcs.crval.tolist()
        np.testing.assert_array_equal(found.image.array, observation().image.array)
    assert_same(butler.get("observation", CCD), observation())
    if datastore is FILE:
        with h5py.File(butler.getURI("observation", CCD, collections="overlay").ospath) as file:
            assert isinstance(file["composite"].get("image", getlink=True), h5py.ExternalLink)


# ---- What fails ---------------------------------------------------------------------------------------------


def cause(caught: pytest.ExceptionInfo[BaseException]) -> BaseException:
    return caught.value.__cause__ or caught.value


@pytest.mark.parametrize(
    ("part", "error"), [("constructor", TypeError("missing argument")), ("setter", KeyError("image"))]
)
def test_errors_of_a_class_come_out_of_a_get_unchanged(mode: Mode, part: str, error: Exception) -> None:
    mode.butler.put(observation(), "observation", CCD)
    observations.fails[part] = error
    for parameters in (None, {"bbox": BOX}):
        with pytest.raises(type(error)) as caught:
            mode.reader().get("observation", CCD, parameters=parameters)
        assert caught.value is error
        assert error.__cause__ is None


def test_errors_of_a_class_come_out_of_a_put(mode: Mode) -> None:
    seen = observation()
    observations.fails["getter"] = error = TypeError("missing argument")
    with pytest.raises((TypeError, RuntimeError)) as caught:
        mode.butler.put(seen, "observation", CCD)
    assert cause(caught) is error
    assert not mode.butler.exists("observation", CCD)
    assert not mode.new_files()


def test_objects_of_another_class_are_refused(mode: Mode) -> None:
    with pytest.raises(TypeError):
        mode.butler.put({"image": 1}, "observation", CCD)
    assert not mode.new_files()


def test_composites_of_another_definition_are_refused(mode: Mode) -> None:
    other = ch5.Composite("exposure", image=observation().image, wcs=simple_wcs((30, 40)))
    with pytest.raises((DefinitionError, RuntimeError)) as caught:
        mode.butler.put(other, "observation", CCD)
    assert "isn't of the definition test_observation" in str(cause(caught))


def test_a_class_without_a_definition(mode: Mode) -> None:
    with pytest.raises((DefinitionError, RuntimeError)) as caught:
        mode.butler.put(observation(cls=Unregistered), "unregistered", CCD)
    assert "no registered definition has this class as its python_type" in str(cause(caught))


def test_a_definition_that_the_reader_does_not_know(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    mode.butler.put(observation(), "observation", CCD)
    monkeypatch.setattr(definitions, "_registered", {})
    with pytest.raises(DefinitionError, match="no definition 'test_observation'"):
        mode.reader().get("observation", CCD)
    assert mode.reader().get("observation.image", CCD).shape == (30, 40)


def test_two_definitions_for_a_class(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definitions, "_registered", dict(definitions._registered))
    components = {"image": {"kind": "image"}, "wcs": {"kind": "wcs"}, "visit_info": {"kind": "record"}}
    mapping = {"name": "another", "version": 1, "components": components, "python_type": "observations.Observation"}
    ch5.register_definition(ch5.load_definition(mapping))
    with pytest.raises((DefinitionError, RuntimeError)) as caught:
        mode.butler.put(observation(), "observation", CCD)
    assert "are of the definitions another, test_observation: put Composite.of" in str(cause(caught))
    mode.butler.put(ch5.Composite.of(observation(), "another"), "observation", CCD)
    found = mode.reader().get("observation", CCD)
    assert type(found) is Observation
    assert found.getSources() is None
