"""What composites link to: carried along, checked, and found again; with the functions and with `butler`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.table import Table
from support import counted_reads, exposure, pixels, simple_wcs, visit_info

import compositeh5 as ch5
from compositeh5 import errors, targets
from compositeh5.operations.verify import verify

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")

from butler_support import RUN, SEED, create_repo, create_repo_with, files_of
from lsst.daf.butler import Butler, Config, DatasetRef, DatasetType
from lsst.daf.butler.cli.butler import cli as butler_cli
from lsst.daf.butler.cli.utils import LogCliRunner
from lsst.resources import ResourcePath

from compositeh5.butler import (
    Relinking,
    check,
    export_closure,
    linked_refs,
    put_links,
    put_overlay,
    put_visit,
    register_dataset_type,
    relink,
    retrieve_closure,
    transfer_closure,
    users_of,
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
    targets.cache.clear()
    yield
    targets.cache.clear()


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
    config.update({"datastore": datastore or {}})
    Butler.makeRepo(str(root), config=config, forceConfigRoot="root" not in (datastore or {}))
    return Butler.from_config(str(root), writeable=True)


def content(butler: Butler, refs: list[DatasetRef]) -> dict[str, dict[str, str]]:
    """Return digests of all components of composites, read from where the links lead."""
    targets.cache.clear()
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


# ---- Checking -----------------------------------------------------------------------------------------------


def states(butler: Butler) -> dict[tuple[str, str], str]:
    return {(checked.ref.datasetType.name, checked.component): checked.state for checked in check(butler)}


def test_links_that_are_fine(butler: Butler) -> None:
    _, (first, second) = put_ccds(butler, 2, (1500, 1000))
    with counted_reads() as count:
        found = list(check(butler, [first, second]))
        assert count() < 600_000
    assert [(c.ref, c.component, c.state) for c in found] == [(r, "visit_info", "ok") for r in (first, second)]
    put_overlay_and_catalog(butler, first)
    assert set(states(butler).values()) == {"ok"}
    assert ("src", "wcs") in states(butler)


def test_links_to_what_was_removed_are_broken(butler: Butler) -> None:
    visit_ref, (ref,) = put_ccds(butler, 1)
    butler.pruneDatasets([visit_ref], disassociate=True, unstore=True, purge=True)
    (found,) = check(butler)
    assert (found.ref, found.component, found.state) == (ref, "visit_info", "broken")
    assert "No such file" in found.detail
    assert str(visit_ref.id) in str(found)


def test_links_to_what_was_replaced_are_stale(butler: Butler) -> None:
    visit_ref, (_,) = put_ccds(butler, 1)
    path = butler.getURI(visit_ref).ospath
    with ch5.open(path) as stored:
        other_content = stored.replace({"visit_info": {"visit": 1}}, id=stored.id)
        other_id = stored.load().replace()
    other_content.write(path, replace=True)
    assert states(butler) == {("calexp", "visit_info"): "stale digest"}
    other_id.write(path, replace=True)
    assert states(butler) == {("calexp", "visit_info"): "stale id"}


def test_files_that_cannot_be_read_are_told_and_others_checked(butler: Butler) -> None:
    visit_ref, (first, second) = put_ccds(butler)
    third = put_overlay(butler, first, {}, "calexp", run="u/third")
    os.truncate(butler.getURI(first).ospath, 100)
    os.remove(butler.getURI(third).ospath)
    butler.pruneDatasets([visit_ref], disassociate=False, unstore=True)
    found = {checked.ref: checked.state for checked in check(butler)}
    assert found == {first: "unreadable", second: "broken", third: "unreadable"}
    with pytest.raises(OSError):
        list(users_of(butler, [visit_ref]))


def test_links_to_disassembled_composites_are_checked(tmp_path: Path) -> None:
    apart = create_repo_with(tmp_path / "apart", {"datastore": DISASSEMBLED})
    _, (first,) = put_ccds(apart, 1)
    put_overlay_and_catalog(apart, first)
    assert set(states(apart).values()) == {"ok"}
    os.remove(apart.getURIs(first).componentURIs["image"].ospath)
    broken = {(c.ref.run, c.component) for c in check(apart) if c.state != "ok"}
    assert broken == {(RUN, "image"), ("u/jointcal", "image")}


def test_what_would_break_is_told_before_it_does(butler: Butler) -> None:
    visit_ref, (first, second) = put_ccds(butler)
    overlay, catalog = put_overlay_and_catalog(butler, first)
    assert {(c.ref, c.component) for c in users_of(butler, [overlay])} == {(catalog, "wcs")}
    assert {c.ref for c in users_of(butler, [visit_ref])} == {first, second, overlay, catalog}
    assert {c.state for c in users_of(butler, [visit_ref])} == {"about to break"}
    # What would go too can't break.
    run = butler.query_all_datasets(RUN, find_first=False)
    assert {c.ref for c in users_of(butler, run)} == {overlay, catalog}
    assert list(users_of(butler, [second])) == []
    assert list(users_of(butler, [visit_ref], among=[second])) != []


# ---- Relinking ----------------------------------------------------------------------------------------------


@pytest.fixture
def moved(butler: Butler, root: Path, tmp_path: Path) -> Butler:
    """Return a repository into which datasets were imported to places of other templates."""
    _, (first, second) = put_ccds(butler)
    _, catalog = put_overlay_and_catalog(butler, first)
    export_closure(butler, [catalog, second], tmp_path / "export")
    target = new_repo(tmp_path / "new", OTHER_TEMPLATES)
    target.import_(directory=str(tmp_path / "export"), filename="export.yaml", transfer="copy")
    shutil.rmtree(tmp_path / "export")
    root.rename(tmp_path / "old")
    return target


def test_links_are_repaired_after_an_import_to_other_places(moved: Butler, tmp_path: Path) -> None:
    composites = [ref for ref in moved.query_all_datasets("*", find_first=False) if ref.datasetType.name != "src_table"]
    uris = {ref.id: moved.getURI(ref) for ref in composites}
    whole = {ref.id: stored_digest(uris[ref.id].ospath) for ref in composites}
    before = {checked.state for checked in check(moved)}
    assert before == {"moved"}
    users = {ref.id for ref in composites} - {ref.id for ref in composites if ref.datasetType.name == "visit_metadata"}
    done = relink(moved)
    assert ({ref.id for ref in done.changed}, done.left) == (users, ())
    assert set(states(moved).values()) == {"ok"}
    assert relink(moved) == Relinking()
    assert {ref.id: moved.getURI(ref) for ref in composites} == uris
    assert {ref.id: stored_digest(uris[ref.id].ospath) for ref in composites} == whole
    assert all(ref.id == uuid.UUID(moved.get(ref).id) for ref in composites)
    targets.cache.clear()
    for ref in composites:
        for name, value in moved.get(ref).items():
            assert value is not None, name
        assert all(not os.path.isabs(target) for target in native_targets(Path(uris[ref.id].ospath)))
        with h5py.File(uris[ref.id].ospath) as file:
            assert all(name in file["composite"] and file["composite"][name] for name in file["composite"])
    assert not list((tmp_path / "new").rglob(".compositeh5*"))


def stored_digest(path: str) -> tuple[str, str]:
    with ch5.open(path) as stored:
        verify(stored)
        return stored.id, stored.digest


KILLED = """
import os, signal, sys
from lsst.daf.butler import Butler
from compositeh5.butler import relink, relinking

root, step, when = sys.argv[1:]
number = {"keep": 1, "replace": 2}.get(step)
calls = 0

def killed(function):
    def call(*args, **keywords):
        global calls
        calls += 1
        if when == "before" and calls == (number or 1):
            os.kill(os.getpid(), signal.SIGKILL)
        function(*args, **keywords)
        if when == "after" and calls == (number or 1):
            os.kill(os.getpid(), signal.SIGKILL)
    return call

name = "_write" if number else "import_files"
setattr(relinking, name, killed(getattr(relinking, name)))
relink(Butler.from_config(root, writeable=True))
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["keep", "replace", "record"])
def test_a_repair_that_is_killed_is_finished(moved: Butler, tmp_path: Path, step: str, when: str) -> None:
    refs = moved.query_datasets("calexp", collections="*", find_first=False)
    expected = {ref.id: stored_digest(moved.getURI(ref).ospath) for ref in refs}
    done = python(KILLED, tmp_path / "new", step, when)
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder = tmp_path / "new" / ".compositeh5-relink"
    assert folder.exists() == ((step, when) != ("keep", "before"))
    relink(moved)
    assert set(states(moved).values()) == {"ok"}
    assert {ref.id: stored_digest(moved.getURI(ref).ospath) for ref in refs} == expected
    assert [moved.get(ref).id for ref in refs] == [str(ref.id) for ref in refs]
    assert not folder.exists()


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], env=env, capture_output=True, text=True)


def test_a_kept_file_of_a_dataset_that_was_removed_is_dropped(moved: Butler, tmp_path: Path) -> None:
    assert python(KILLED, tmp_path / "new", "replace", "before").returncode == -signal.SIGKILL
    (kept,) = (tmp_path / "new" / ".compositeh5-relink").iterdir()
    moved.pruneDatasets([moved.get_dataset(kept.stem)], disassociate=True, unstore=True, purge=True)
    relink(moved)
    assert moved.get_dataset(kept.stem) is None
    assert not kept.parent.exists()


def test_a_repository_in_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    object_store = pytest.importorskip("object_store")
    with object_store.object_store(monkeypatch):
        remote = new_repo(tmp_path / "remote", {**OTHER_TEMPLATES, "root": "s3://data/repo"})
        near = create_repo_with(tmp_path / "near", {})
        visit_ref, (first,) = put_ccds(near, 1)
        overlay, catalog = put_overlay_and_catalog(near, first)
        expected = content(near, [catalog, overlay, first])
        export_closure(near, [catalog], tmp_path / "export")
        del near
        shutil.rmtree(tmp_path / "near")
        remote.import_(directory=str(tmp_path / "export"), filename="export.yaml", transfer="copy")
        assert remote.getURI(first).scheme == "s3"
        assert set(states(remote).values()) == {"moved"}
        assert set(relink(remote).changed) == {catalog, overlay, first}
        assert set(states(remote).values()) == {"ok"}
        assert content(remote, [catalog, overlay, first]) == expected
        assert visit_ref in linked_refs(remote, [overlay])
        assert relink(remote) == Relinking()
        assert not list(ResourcePath.findFileResources([ResourcePath("s3://data/repo/.compositeh5-relink/")]))


# ---- The command `butler` -----------------------------------------------------------------------------------


def run(command: str, *arguments: object, code: int = 0) -> list[str]:
    """Run a sub-command in this process, and return the lines of its output, or of its error."""
    done = LogCliRunner().invoke(butler_cli, [f"compositeh5-{command}", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return (done.stdout if code < 2 else done.stderr).splitlines()


def test_the_commands_for_what_is_linked(butler: Butler, root: Path, tmp_path: Path) -> None:
    visit_ref, (first, second) = put_ccds(butler)
    put_overlay_and_catalog(butler, first)
    one = ("-d", "calexp", "--collections", RUN, "--where", "instrument='DemoCam' AND detector=1")
    assert run("links", root, *one) == [
        f"visit_metadata instrument=DemoCam visit=903334 {RUN} {visit_ref.id}",
    ]
    new_repo(tmp_path / "new")
    assert run("transfer", root, tmp_path / "new", *one) == [
        "Datasets transferred: 1, and 1 to which they link",
    ]
    target = Butler.from_config(str(tmp_path / "new"), collections=RUN)
    assert target.get("calexp.visit_info", ccd_id(1)) == visit_info()

    assert run("export", root, tmp_path / "export", *one) == ["Datasets exported: 1, and 1 to which they link"]
    assert (tmp_path / "export" / "export.yaml").exists()
    files = run("retrieve", root, tmp_path / "out", *one)
    assert len(files) == 2
    assert all(Path(file).exists() for file in files)
    assert second.datasetType.name in " ".join(files)


def test_the_commands_that_check_and_repair(moved: Butler, tmp_path: Path) -> None:
    root = tmp_path / "new"
    lines = run("check", root, code=1)
    assert all(line.startswith("moved: ") for line in lines[:-1])
    assert lines[-1] == f"Links: {len(lines) - 1} moved"
    assert "detector=1" in " ".join(run("relink", root, "-d", "calexp"))
    run("relink", root)
    assert run("check", root) == [f"Links: {len(lines) - 1} ok"]
    (overlay,) = moved.query_datasets("calexp", collections="u/jointcal")
    would_break = run("check", root, "--collections", "u/jointcal", "--if-removed", code=1)
    assert would_break[-1] == "Links: 1 about to break"
    assert would_break[0].startswith("about to break: src detector=0")
    assert str(overlay.id) in would_break[0]
    assert run("check", root, "--collections", "u/src", "-d", "src", "--if-removed") == ["Links: none"]
    moved.pruneDatasets([overlay], disassociate=True, unstore=True, purge=True)
    lines = run("check", root, "--collections", "u/src", code=1)
    assert [line.partition(":")[0] for line in lines] == ["broken", "Links"]
    assert "aren't stored in this repository" in run("links", root, "-d", "src", code=2)[-1]
    assert "needs a selection" in run("check", root, "--if-removed", code=2)[-1]
    assert "Error: " in run("check", tmp_path / "nowhere", code=2)[-1]


def test_the_command_butler_has_the_sub_commands(butler: Butler, root: Path) -> None:
    commands = butler_command("--help").stdout
    for name in ("links", "transfer", "export", "retrieve", "check", "relink", "install"):
        assert f"  compositeh5-{name} " in commands
    visit_ref, _ = put_ccds(butler, 1)
    butler.pruneDatasets([visit_ref], disassociate=True, unstore=True, purge=True)
    done = butler_command("compositeh5-check", root)
    assert done.returncode == 1
    assert done.stdout.startswith("broken: calexp detector=0")


def butler_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = shutil.which("butler", path=os.path.dirname(sys.executable)) or shutil.which("butler")
    assert command is not None
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run([command, *map(str, arguments)], env=env, capture_output=True, text=True)
