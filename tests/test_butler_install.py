"""Installing composites in a repository that there is already, and recipes in its configuration."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from astropy.table import Table
from support import exposure, visit_info

import compositeh5 as ch5
from compositeh5 import errors

daf_butler = pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")

from butler_support import RUN, add_instrument  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from lsst.daf.butler import Butler, Config, DatasetType  # noqa: E402

from compositeh5.butler import put_visit, register_dataset_type  # noqa: E402
from compositeh5.butler.commands import commands  # noqa: E402
from compositeh5.butler.installing import install  # noqa: E402

CCD = {"instrument": "DemoCam", "visit": 903334, "detector": 4}
VISIT = {"instrument": "DemoCam", "visit": 903334}
FORMATTER = "compositeh5.butler.formatter.CompositeFormatter"
FILE_DATASTORE = "lsst.daf.butler.datastores.fileDatastore.FileDatastore"


@pytest.fixture(scope="module")
def stock_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("install") / "repo"
    Butler.makeRepo(str(root))
    butler = Butler.from_config(str(root), run="old")
    add_instrument(butler)
    dataset_type = DatasetType("notes", ("instrument", "visit"), "StructuredDataDict", universe=butler.dimensions)
    butler.registry.registerDatasetType(dataset_type)
    butler.put({"seeing": 0.7}, "notes", VISIT)
    butler.close()
    return root


@pytest.fixture
def root(stock_repo: Path, tmp_path: Path) -> Path:
    """Return a stock repository that has seen some use."""
    return Path(shutil.copytree(stock_repo, tmp_path / "repo"))


def put_composites(root: Path, **recipe: Any) -> Butler:
    butler = Butler.from_config(str(root), run=RUN)
    visit = ch5.Composite("visit", visit_info=visit_info(), data_id=VISIT)
    ccd = exposure((400, 300), visit_info=visit_info()).replace(data_id=CCD)
    put_visit(butler, visit, [ccd])
    return butler


def test_a_stock_repository_learns_to_store_composites(root: Path) -> None:
    install(str(root))
    butler = put_composites(root)
    assert butler.get("calexp.visit_info", CCD)["visit"] == 903334
    assert butler.get("calexp.image", CCD, parameters={"bbox": ch5.Box(110, 115, 210, 220)}).array.shape == (5, 10)
    assert Butler.from_config(str(root), collections="old").get("notes", VISIT) == {"seeing": 0.7}


def test_the_command_says_what_it_did(root: Path) -> None:
    (command,) = [command for command in commands() if command.name == "compositeh5-install"]
    first = (root / "butler.yaml").read_text()
    done = CliRunner().invoke(command, [str(root)])
    assert done.exit_code == 0, done.output
    assert "butler.yaml.backup1" in done.output
    assert (root / "butler.yaml.backup1").read_text() == first
    again = CliRunner().invoke(command, [str(root)])
    assert again.output == "Nothing was missing.\n"
    assert sorted(path.name for path in root.glob("butler.yaml*")) == ["butler.yaml", "butler.yaml.backup1"]
    failed = CliRunner().invoke(command, [str(root / "none")])
    assert failed.exit_code == 2
    assert str(root / "none") in failed.output


def test_own_choices_stay(root: Path) -> None:
    path = root / "butler.yaml"
    before = yaml.safe_load(path.read_text())
    text = {"formatter": FORMATTER, "parameters": {"recipe": "small"}}
    recipes = {FORMATTER: {"small": {"default": {"gzip": 9}}}}
    before["datastore"]["formatters"] = {"CompositeH5TextV1": text, "write_recipes": recipes}
    before["storageClasses"] = {"Ours": {"pytype": "dict"}}
    path.write_text("# Our repository.\n" + yaml.safe_dump(before))
    backup = install(str(root))
    assert Path(backup.ospath).read_text().startswith("# Our repository.")
    after = yaml.safe_load(path.read_text())
    assert after["datastore"]["formatters"]["CompositeH5ExposureV1"] == FORMATTER
    for config in (after["storageClasses"], after["datastore"]["formatters"]):
        for name in [name for name in config if name.startswith("CompositeH5") and config[name] != text]:
            del config[name]
    assert after == before
    put_composites(root)


def test_what_an_older_release_installed_is_completed(root: Path) -> None:
    install(str(root))
    path = root / "butler.yaml"
    whole = yaml.safe_load(path.read_text())
    part = yaml.safe_load(path.read_text())
    del part["datastore"]["formatters"]["CompositeH5WcsV1"], part["storageClasses"]["CompositeH5WcsV1"]
    path.write_text(yaml.safe_dump(part))
    assert install(str(root)) is not None
    assert yaml.safe_load(path.read_text()) == whole


def test_all_file_datastores_of_a_chain_are_served(tmp_path: Path) -> None:
    root = tmp_path / "repo"
    datastores = [
        {"cls": "lsst.daf.butler.datastores.inMemoryDatastore.InMemoryDatastore"},
        *({"cls": FILE_DATASTORE, "root": f"<butlerRoot>/{n}", "records": {"table": f"records{n}"}} for n in range(2)),
    ]
    chain = {"cls": "lsst.daf.butler.datastores.chainedDatastore.ChainedDatastore", "datastores": datastores}
    Butler.makeRepo(str(root), config=Config({"datastore": chain}))
    add_instrument(Butler.from_config(str(root), writeable=True))
    install(str(root))
    assert install(str(root)) is None
    written = yaml.safe_load((root / "butler.yaml").read_text())["datastore"]["datastores"]
    assert ["formatters" in datastore for datastore in written] == [False, True, True]
    put_composites(root)
    assert len(list(root.rglob("visit_metadata*.h5"))) == len(list(root.rglob("calexp*.h5"))) == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("registry:", "storageClasses: !include other.yaml\nregistry:", "isn't plain YAML"),
        ("registry:", "storageClasses: other.yaml\nregistry:", "storageClasses should be names with values"),
        ("registry:", "since: 2020-13-01\nregistry:", "isn't plain YAML"),
        (
            "registry:",
            "storageClasses:\n  CompositeH5WcsV1: {pytype: str}\nregistry:",
            "CompositeH5WcsV1 is there, but",
        ),
        ("datastore:", "- datastore:", "isn't"),
        ("datastore:", "stores:", "isn't the configuration of a repository"),
    ],
)
def test_a_configuration_that_cannot_be_added_to_stays(root: Path, old: str, new: str, message: str) -> None:
    path = root / "butler.yaml"
    path.write_text(path.read_text().replace(old, new, 1))
    before = path.read_text()
    with pytest.raises(errors.ConfigurationError, match=message):
        install(str(root))
    assert path.read_text() == before
    assert not list(root.glob("*backup*"))


WITHOUT = """
import json, sys
sys.modules["compositeh5"] = None  # so that importing it fails
from lsst.daf.butler import Butler
root, target = sys.argv[1:]
butler = Butler.from_config(root, collections=["demo/run", "old"])
refs = butler.query_datasets("calexp", where="detector = 4 and instrument = 'DemoCam' and visit = 903334")
notes = butler.get("notes", instrument="DemoCam", visit=903334)
paths = butler.retrieveArtifacts(refs, target)
try:
    butler.get(refs[0])
except Exception as error:
    failure = f"{type(error).__name__}: {error}"
print(json.dumps([len(refs), notes, [str(path.ospath) for path in paths], failure]))
"""


def test_the_repository_opens_without_the_package(root: Path, tmp_path: Path) -> None:
    install(str(root))
    image = put_composites(root).get("calexp.image", CCD)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(root), f"{tmp_path}/out/"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    number, notes, (path,), failure = json.loads(done.stdout.splitlines()[-1])
    assert (number, notes) == (1, {"seeing": 0.7})
    assert "compositeh5" in failure
    with ch5.open(path) as opened:
        np.testing.assert_array_equal(opened["image"].array, image.array)


# ---- Recipes in the configuration ---------------------------------------------------------------------------


def with_recipes(root: Path, recipes: dict[str, Any], chosen: str | None = None) -> None:
    install(str(root))
    path = root / "butler.yaml"
    config = yaml.safe_load(path.read_text())
    formatters = config["datastore"]["formatters"]
    formatters["write_recipes"] = {FORMATTER: recipes}
    if chosen is not None:
        formatters["default"] = {FORMATTER: {"recipe": chosen}}
    path.write_text(yaml.safe_dump(config))


def levels(butler: Butler) -> dict[str, int]:
    with h5py.File(butler.getURI("calexp", CCD).ospath) as file:
        return {name: file[f"composite/{name}"].compression_opts for name in ("image", "mask", "variance")}


RECIPES = {"default": {"mask": {"gzip": 3}}, "small": {"default": {"gzip": 9}, "image": {"gzip": 0}}}


def test_a_recipe_is_chosen_in_the_configuration(root: Path) -> None:
    with_recipes(root, RECIPES, "small")
    butler = put_composites(root)
    assert levels(butler) == {"image": 0, "mask": 9, "variance": 9}
    assert butler.get("calexp", CCD)["mask"].shape == (400, 300)


def test_the_recipe_named_default_needs_no_choice(root: Path) -> None:
    with_recipes(root, RECIPES)
    assert levels(put_composites(root)) == {"image": 1, "mask": 3, "variance": 1}


def test_the_recipe_follows_a_disassembled_component(root: Path) -> None:
    with_recipes(root, RECIPES, "small")
    path = root / "butler.yaml"
    config = yaml.safe_load(path.read_text())
    config["datastore"]["composites"] = {"disassembled": {"CompositeH5ExposureV1": True}}
    path.write_text(yaml.safe_dump(config))
    butler = Butler.from_config(str(root), run=RUN)
    register_dataset_type(butler, "calexp", "exposure")
    ref = butler.put(exposure((400, 300)).replace(data_id=CCD), "calexp", CCD)
    for name, level in {"image": 0, "mask": 9}.items():
        with h5py.File(butler.getURIs(ref).componentURIs[name].ospath) as file:
            assert file[f"composite/{name}"].compression_opts == level


@pytest.mark.parametrize(
    ("recipes", "chosen", "message"),
    [
        ({"small": {"image": {"gzpi": 3}}}, None, "recipe 'small': component 'image': .*did you mean 'gzip'"),
        ({"small": {"imgae": {"gzip": 3}}}, "small", "recipe 'small': .* component 'imgae'; did you mean 'image'"),
        ({"small": {}}, "smal", "no recipe 'smal' .*did you mean 'small'"),
    ],
)
def test_a_wrong_recipe_fails_the_first_put(root: Path, recipes: Any, chosen: str | None, message: str) -> None:
    with_recipes(root, recipes, chosen)
    with pytest.raises(Exception, match=message):
        put_composites(root)
    assert not list(root.rglob("*.h5"))


def test_an_unknown_write_parameter_fails(root: Path) -> None:
    with_recipes(root, {})
    path = root / "butler.yaml"
    config = yaml.safe_load(path.read_text())
    config["datastore"]["formatters"]["default"] = {FORMATTER: {"recipes": "small"}}
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match="does not accept parameter 'recipes'"):
        put_composites(root)
    assert butler_files(root) == []


def butler_files(root: Path) -> list[Path]:
    return list(root.rglob("*.h5"))


def test_tables_have_recipes(root: Path) -> None:
    with_recipes(root, {"default": {"table": {"chunks": [1000]}}})
    butler = Butler.from_config(str(root), run=RUN)
    register_dataset_type(butler, "src", "source_catalog")
    catalog = ch5.Composite("source_catalog", table=Table({"flux": np.arange(9000.0)}), data_id=CCD)
    ref = butler.put(catalog, "src", CCD)
    chunks = []
    with h5py.File(butler.getURI(ref).ospath) as file:
        file["composite/table"].visititems(lambda _, node: chunks.append(getattr(node, "chunks", None)))
    assert (1000,) in chunks
