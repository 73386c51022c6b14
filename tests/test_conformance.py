"""The adapter with which the Butler's own tests run on our formatter, and the script that runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")

from butler_support import add_instrument
from conformance import daf_butler
from lsst.daf.butler import Butler, Config, DatasetRef, DatasetType, FileDataset
from lsst.daf.butler.tests import MetricsExample, MetricsExampleDataclass, MetricsExampleModel
from lsst.daf.butler.tests.dict_convertible_model import DictConvertibleModel

import compositeh5 as ch5

EXAMPLES = "lsst.daf.butler.tests"
PARTS = {"summary": "ConformanceDict", "output": "ConformanceDict", "data": "ConformanceList"}
WHOLE = {
    "pytype": f"{EXAMPLES}.MetricsExample",
    "delegate": f"{EXAMPLES}.MetricsDelegate",
    "parameters": ["slice"],
    "components": PARTS,
    "derivedComponents": {"counter": "ConformanceInt"},
}
# Not the storage classes of the Butler's tests: their names are global to the process.
STORAGE_CLASSES: dict[str, Any] = {
    "ConformanceInt": {"pytype": "int"},
    "ConformanceDict": {"pytype": "dict"},
    "ConformanceTuple": {"pytype": "tuple"},
    "ConformanceList": {
        "pytype": "list",
        "delegate": f"{EXAMPLES}.ListDelegate",
        "parameters": ["slice"],
        "derivedComponents": {"counter": "ConformanceInt"},
    },
    "ConformanceModel": {"pytype": f"{EXAMPLES}.MetricsExampleModel"},
    "ConformanceDataclass": {"pytype": f"{EXAMPLES}.MetricsExampleDataclass"},
    "ConformanceConvertible": {"pytype": f"{EXAMPLES}.dict_convertible_model.DictConvertibleModel"},
    "ConformanceMetrics": WHOLE,
    "ConformanceMetricsInPieces": WHOLE,
    # Somebody's class whose components are stored by our formatter itself.
    "ConformanceRecords": {
        "pytype": f"{EXAMPLES}.MetricsExample",
        "components": {"summary": "CompositeH5RecordV1", "output": "CompositeH5RecordV1"},
    },
}
METRICS = MetricsExample({"AM1": 5.2, "AM2": 30.6}, {"a": [1, 2], "b": {"blue": 5}}, [563, 234, 456.7, 752])


@pytest.fixture(scope="module")
def butler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Butler]:
    config = Config("resource://compositeh5/butler/configs/seed.yaml")
    ours = dict.fromkeys(STORAGE_CLASSES, daf_butler.FORMATTER)
    config.update(
        {
            "storageClasses": STORAGE_CLASSES,
            "datastore": {
                "formatters": ours,
                "composites": {"disassembled": {"ConformanceMetricsInPieces": True, "ConformanceRecords": True}},
            },
        }
    )
    root = tmp_path_factory.mktemp("repo")
    Butler.makeRepo(str(root), config=config)
    with Butler.from_config(str(root), run="run") as butler:
        add_instrument(butler)
        yield butler


def put(butler: Butler, value: Any, storage_class: str) -> DatasetRef:
    run = str(uuid.uuid4())
    butler.registry.registerRun(run)
    dataset_type = DatasetType(
        f"set_{storage_class}", ["instrument", "detector"], storage_class, universe=butler.dimensions
    )
    butler.registry.registerDatasetType(dataset_type)
    return butler.put(value, dataset_type, instrument="DemoCam", detector=1, run=run)


@pytest.fixture(params=["ConformanceMetrics", "ConformanceMetricsInPieces"], scope="module")
def metrics(butler: Butler, request: pytest.FixtureRequest) -> DatasetRef:
    return put(butler, METRICS, request.param)


def test_metrics_come_back(butler: Butler, metrics: DatasetRef) -> None:
    assert butler.get(metrics) == METRICS


@pytest.mark.parametrize("component", PARTS)
def test_a_component_comes_back(butler: Butler, metrics: DatasetRef, component: str) -> None:
    value = butler.get(metrics.makeComponentRef(component))
    assert type(value) in (dict, list)
    assert value == getattr(METRICS, component)


def test_a_slice_is_read_from_an_array(butler: Butler, metrics: DatasetRef) -> None:
    sliced = {"slice": slice(1, 3)}
    assert butler.get(metrics.makeComponentRef("data"), parameters=sliced) == [234, 456.7]
    whole = butler.get(metrics, parameters=sliced)
    assert whole == MetricsExample(METRICS.summary, METRICS.output, [234, 456.7])


def test_a_derived_component(butler: Butler, metrics: DatasetRef) -> None:
    counter = metrics.makeComponentRef("counter")
    assert butler.get(counter) == 4
    assert butler.get(counter, parameters={"slice": slice(3)}) == 3


def test_the_file_is_a_composite(butler: Butler) -> None:
    ref = put(butler, METRICS, "ConformanceMetrics")
    with ch5.open(butler.getURI(ref).ospath) as composite:
        assert {name: composite.kind(name) for name in composite} == {
            "summary": "record",
            "output": "record",
            "data": "array",
        }
        assert composite.id == str(ref.id)
        np.testing.assert_array_equal(composite["data"], METRICS.data)


@pytest.mark.parametrize(
    ("storage_class", "value"),
    [
        ("ConformanceDict", {"a": [1, 2.5, "x", None], "b": {}}),
        ("ConformanceDict", {1: 2, 3: 4}),
        ("ConformanceDict", {}),
        ("ConformanceList", [1, 2, 3]),
        ("ConformanceList", ["a", {"b": 1}, [2.5]]),
        ("ConformanceList", []),
        ("ConformanceTuple", (1.5, 2.5)),
        ("ConformanceInt", 12),
        ("ConformanceMetrics", MetricsExample(summary={"a": 1})),
        ("ConformanceModel", MetricsExampleModel(summary={"a": 1}, data=[1, 2])),
        ("ConformanceDataclass", MetricsExampleDataclass({"a": 1}, None, [2])),
        ("ConformanceConvertible", DictConvertibleModel(content={"a": "b"}, extra="c")),
    ],
)
def test_other_objects_come_back(butler: Butler, storage_class: str, value: Any) -> None:
    found = butler.get(put(butler, value, storage_class))
    assert type(found) is type(value)
    assert found == value


def test_json_can_be_ingested(butler: Butler, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(METRICS.exportAsDict()))
    butler.registry.registerRun("ingested")
    dataset_type = butler.get_dataset_type(put(butler, METRICS, "ConformanceMetrics").datasetType.name)
    data_id = butler.registry.expandDataId(instrument="DemoCam", detector=2)
    ref = DatasetRef(dataset_type, data_id, run="ingested")
    butler.ingest(FileDataset(path, ref), transfer="copy")
    assert butler.getURI(ref).getExtension() == ".json"
    assert butler.get(ref) == METRICS
    assert butler.get(ref.makeComponentRef("data"), parameters={"slice": slice(2)}) == [563, 234]


def test_components_that_another_delegate_takes_apart_come_back(butler: Butler) -> None:
    example = MetricsExample(ch5.Record(a=1), ch5.Record(b=2.5))
    ref = put(butler, example, "ConformanceRecords")
    uris = butler.getURIs(ref).componentURIs
    assert uris.keys() == {"summary", "output"}
    with ch5.open(uris["summary"].ospath) as piece:
        assert piece.provenance["butler"]["run"] == ref.run
    assert butler.get(ref.makeComponentRef("summary")) == {"a": 1}
    assert butler.get(ref) == example


# The script


@pytest.mark.parametrize(
    ("one", "cleanup", "code", "said"),
    [
        ("passed", "failed: .h5", 0, "expected not to pass (1): testCleanup"),
        ("failed: 1 != 2", "failed: .h5", 1, "DOES NOT PASS: test_a.A.test_one: failed: 1 != 2"),
        ("skipped", "failed: .h5", 1, "DOES NOT PASS: test_a.A.test_one: skipped"),
        (None, "failed: .h5", 1, "DOES NOT PASS: test_a.A.test_one: not run"),
        ("passed", "passed", 1, "SHOULD NOT PASS: testCleanup"),
    ],
)
def test_what_differs_is_reported(
    one: str | None, cleanup: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("test_a.A.test_one", "test_a.A.testCleanup")
    ours = {name: outcome for name, outcome in zip(names, (one, cleanup), strict=True) if outcome}
    assert daf_butler.report(dict.fromkeys(names, "passed"), ours) == code
    assert said in capsys.readouterr().out


def test_what_fails_anyway_does_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = {"test_a.A.test_one": "failed: 1 != 2", "test_a.A.test_two": "skipped"}
    assert daf_butler.report(outcomes, outcomes) == 0
    assert capsys.readouterr().out.split()[-6:] == ["failed", "1", "1", "skipped", "1", "1"]


def test_the_data_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(daf_butler.TESTS_VARIABLE, raising=False)
    with pytest.raises(SystemExit):
        daf_butler.main([])
    assert "git clone" in capsys.readouterr().err
    (tmp_path / "data").mkdir()
    with pytest.raises(SystemExit):
        daf_butler.main(["--data", str(tmp_path)])
    assert "has no folder config" in capsys.readouterr().err


def test_some_of_their_tests(tmp_path: Path) -> None:
    if daf_butler.TESTS_VARIABLE not in os.environ:
        pytest.skip(f"{daf_butler.TESTS_VARIABLE} should be the path of a clone of daf_butler")
    try:
        daf_butler.download(tmp_path)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"the source distribution of lsst-daf-butler can't be downloaded: {error}")
    posix = ("testBasicPutGet", "testDisassembly", "testIngestTransfer")
    some = [f"test_datastore.py::PosixDatastoreTestCase::{name}" for name in posix]
    some += ["test_datastore.py::CleanupPosixDatastoreTestCase::testCleanup"]
    script = [sys.executable, daf_butler.__file__, "--cache", str(tmp_path), "--tests", *some]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "expected not to pass (1): testCleanup" in done.stdout
