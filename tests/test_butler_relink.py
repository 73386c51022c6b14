"""Links that are made right again."""

# ruff: noqa: F811 (fixtures of another module)

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import h5py
import pytest
import yaml
from support import exposure

import compositeh5 as ch5
from compositeh5 import targets
from compositeh5.operations.verify import verify

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")

from butler_support import RUN
from linked_datasets import (  # noqa: F401
    DISASSEMBLED,
    FILE_DATASTORE,
    ON_SQLITE,
    OTHER_TEMPLATES,
    VISIT,
    Repositories,
    _nothing_cached,
    _repositories,
    butler,
    ccd_id,
    content,
    move_file,
    moved,
    native_targets,
    put_ccds,
    put_overlay_and_catalog,
    repositories,
    root,
    states,
)
from lsst.daf.butler import Butler, DatasetRef, DatasetType, FileDataset
from lsst.resources import ResourcePath

from compositeh5.butler import Relinking, check, export_closure, link, linked_refs, register_dataset_type, relink
from compositeh5.butler.datastores import file_datastores, stored_files
from compositeh5.butler.formatter import CompositeFormatter


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
from compositeh5.butler import datastores, relink, relinking

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

module, name = (relinking, "_write") if number else (datastores, "_import")
setattr(module, name, killed(getattr(module, name)))
relink(Butler.from_config(root, writeable=True))
"""


@pytest.mark.parametrize(
    ("_repositories", "step", "when"),
    [
        ("sqlite", "keep", "after"),
        ("sqlite", "replace", "after"),
        ("sqlite", "record", "after"),
        ("postgres", "replace", "after"),
    ],
    indirect=["_repositories"],
)
def test_a_repair_that_is_killed_is_finished(moved: Butler, tmp_path: Path, step: str, when: str) -> None:
    refs = moved.query_datasets("calexp", collections="*", find_first=False)
    expected = {ref.id: stored_digest(moved.getURI(ref).ospath) for ref in refs}
    done = python(KILLED, tmp_path / "new", step, when)
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder = tmp_path / "new" / ".compositeh5-relink"
    assert folder.exists()
    relink(moved)
    assert set(states(moved).values()) == {"ok"}
    assert {ref.id: stored_digest(moved.getURI(ref).ospath) for ref in refs} == expected
    assert [moved.get(ref).id for ref in refs] == [str(ref.id) for ref in refs]
    assert not folder.exists()


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], env=env, capture_output=True, text=True)


@ON_SQLITE
def test_a_kept_file_of_a_dataset_that_was_removed_is_dropped(moved: Butler, tmp_path: Path) -> None:
    assert python(KILLED, tmp_path / "new", "replace", "before").returncode == -signal.SIGKILL
    (kept,) = (tmp_path / "new" / ".compositeh5-relink").iterdir()
    moved.pruneDatasets([moved.get_dataset(kept.stem)], disassociate=True, unstore=True, purge=True)
    relink(moved)
    assert moved.get_dataset(kept.stem) is None
    assert not kept.parent.exists()


@ON_SQLITE
def test_a_repository_in_an_object_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repositories: Repositories
) -> None:
    object_store = pytest.importorskip("object_store")
    with object_store.object_store(monkeypatch):
        remote = repositories.new(tmp_path / "remote", {**OTHER_TEMPLATES, "root": "s3://data/repo"})
        near = repositories.with_camera(tmp_path / "near")
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


# ---- Which files are repaired ---------------------------------------------------------------------------------


@ON_SQLITE
def test_the_files_of_disassembled_composites(tmp_path: Path, repositories: Repositories) -> None:
    apart = repositories.with_camera(tmp_path / "apart", DISASSEMBLED)
    visit_ref, (first,) = put_ccds(apart, 1)
    overlay, catalog = put_overlay_and_catalog(apart, first)
    expected = content(apart, [first, overlay, catalog])
    uris = apart.getURIs(first).componentURIs
    move_file(apart, visit_ref, "elsewhere/visit.h5")
    assert {state for (_, component), state in states(apart).items() if component == "visit_info"} == {"moved"}
    done = relink(apart)
    assert (set(done.changed), done.left) == ({first, overlay, catalog}, ())
    assert set(states(apart).values()) == {"ok"}
    assert apart.getURIs(first).componentURIs == uris
    for name in ("visit_info", "assembly"):
        with h5py.File(uris[name].ospath) as file:
            assert file["composite/visit_info/airmass"][()] == 1.0625
    (tmp_path / "apart").rename(tmp_path / "renamed")
    renamed = repositories.open(tmp_path / "renamed")
    assert content(renamed, [first, overlay, catalog]) == expected
    assert relink(renamed) == Relinking()


def ingested(butler: Butler, path: Path, detectors: int = 2, transfer: str = "copy") -> list[DatasetRef]:
    """Ingest one file of several exposures that link to a stored visit."""
    visit_ref, _ = put_ccds(butler, 0)
    register_dataset_type(butler, "calexp", "exposure")
    info = link(butler, visit_ref, "visit_info")
    ccds = {f"ccd{d}": exposure((30, 40), visit_info=info).replace(data_id=ccd_id(d)) for d in range(detectors)}
    ch5.write_file(path, ccds)
    dataset_type = butler.get_dataset_type("calexp")
    ids = [butler.registry.expandDataId(ccd_id(d)) for d in range(detectors)]
    refs = [DatasetRef(dataset_type, data_id, run=RUN) for data_id in ids]
    butler.ingest(FileDataset(str(path), refs, formatter=CompositeFormatter), transfer=transfer)
    return refs


def test_a_file_of_several_composites(butler: Butler, tmp_path: Path) -> None:
    refs = ingested(butler, tmp_path / "all.h5")
    (visit_ref,) = linked_refs(butler, refs)
    expected = content(butler, refs)
    move_file(butler, visit_ref, "elsewhere/visit.h5")
    # One of them is enough to have the file repaired.
    assert set(relink(butler, refs[:1]).changed) == set(refs)
    assert {(c.ref, c.state) for c in check(butler, refs)} == {(ref, "ok") for ref in refs}
    assert content(butler, refs) == expected
    assert [butler.get(ref).data_id["detector"] for ref in refs] == [0, 1]


@ON_SQLITE
def test_recorded_sizes_and_checksums_are_those_of_the_new_files(tmp_path: Path, repositories: Repositories) -> None:
    butler = repositories.with_camera(tmp_path / "checksums", {"checksum": True})
    visit_ref, (ref,) = put_ccds(butler, 1)
    (before,) = stored_files(file_datastores(butler)[0], [ref])[ref.id]
    move_file(butler, visit_ref, "elsewhere/in/a/deep/folder/visit.h5")
    assert relink(butler).changed == (ref,)
    (after,) = stored_files(file_datastores(butler)[0], [ref])[ref.id]
    assert after.record.checksum not in (None, before.record.checksum)
    assert after.record == after.measured()


@ON_SQLITE
def test_links_in_nested_composites_and_in_lists(butler: Butler) -> None:
    visit_ref, _ = put_ccds(butler, 0)
    info = link(butler, visit_ref, "visit_info")
    inner = ch5.Composite(None, visit_info=info, note="of an amplifier")
    middle = ch5.Composite(None, inner=inner, more=[inner, inner])
    dataset_type = DatasetType("nested", tuple(VISIT), "CompositeH5RawV1", universe=butler.dimensions)
    butler.registry.registerDatasetType(dataset_type)
    ref = butler.put(ch5.Composite(None, amplifiers=[middle]), dataset_type, VISIT)
    before = stored_digest(butler.getURI(ref).ospath)
    move_file(butler, visit_ref, "elsewhere/visit.h5")
    assert {state for (_, component), state in states(butler).items()} == {"moved"}
    assert relink(butler).changed == (ref,)
    assert states(butler) == {
        ("nested", f"amplifiers/0/{name}/visit_info"): "ok" for name in ("inner", "more/0", "more/1")
    }
    assert stored_digest(butler.getURI(ref).ospath) == before
    with h5py.File(butler.getURI(ref).ospath) as file:
        assert file["composite/amplifiers/0/more/1/visit_info/airmass"][()] == 1.0625
    assert butler.get(ref)["amplifiers"][0]["inner"]["visit_info"]["airmass"] == 1.0625


@ON_SQLITE
def test_each_datastore_of_a_chain(tmp_path: Path, repositories: Repositories) -> None:
    near = repositories.with_camera(tmp_path / "near")
    _, (first,) = put_ccds(near, 1)
    overlay, catalog = put_overlay_and_catalog(near, first)
    expected = content(near, [catalog, overlay, first])
    export_closure(near, [catalog], tmp_path / "export")
    formatters = yaml.safe_load((tmp_path / "near/butler.yaml").read_text())["datastore"]["formatters"]
    children = [
        {
            "cls": FILE_DATASTORE,
            "root": f"<butlerRoot>/{name}",
            "records": {"table": f"records_{name}"},
            "templates": {"default": template},
            "formatters": formatters,
        }
        for name, template in {"a": "{run}/{datasetType}/{id}", "b": "{datasetType}_{id}"}.items()
    ]
    memory = {"cls": "lsst.daf.butler.datastores.inMemoryDatastore.InMemoryDatastore"}
    chain = {
        "cls": "lsst.daf.butler.datastores.chainedDatastore.ChainedDatastore",
        "datastores": [memory, *children],
    }
    butler = repositories.new(tmp_path / "chain", chain)
    butler.import_(directory=str(tmp_path / "export"), filename="export.yaml", transfer="copy")
    shutil.rmtree(tmp_path / "near")
    shutil.rmtree(tmp_path / "export")
    assert set(relink(butler).changed) == {catalog, overlay, first}
    assert relink(butler) == Relinking()
    for child in (tmp_path / "chain/a", tmp_path / "chain/b"):
        for path in child.rglob("*.h5"):
            for target in native_targets(path):
                place = (path.parent / target).resolve()
                assert place.exists()
                assert place.is_relative_to(child)
    assert content(butler, [catalog, overlay, first]) == expected
    shutil.rmtree(tmp_path / "chain/a")
    assert content(butler, [catalog, overlay, first]) == expected


@ON_SQLITE
def test_files_of_others_stay_as_they_are(butler: Butler, tmp_path: Path) -> None:
    (ref,) = ingested(butler, tmp_path / "others.h5", 1, "direct")
    (visit_ref,) = linked_refs(butler, [ref])
    before = (tmp_path / "others.h5").read_bytes()
    move_file(butler, visit_ref, "elsewhere/visit.h5")
    done = relink(butler)
    assert done.changed == ()
    (left,) = done.left
    assert left == f"{tmp_path / 'others.h5'}: the repository doesn't hold this file itself"
    assert (tmp_path / "others.h5").read_bytes() == before
    os.truncate(tmp_path / "others.h5", 100)
    (left,) = relink(butler).left
    assert "others.h5" in left


RELINK = """
import sys, time
from lsst.daf.butler import Butler
from compositeh5.butler import relink

butler = Butler.from_config(sys.argv[1], writeable=True)
print("ready", flush=True)
sys.stdin.readline()
print(len(relink(butler).changed), relink(butler).left)
"""


def test_several_repairs_at_once(moved: Butler, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", RELINK, str(tmp_path / "new")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = [subprocess.Popen(command, env=env, text=True, **pipes) for _ in range(3)]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert out.endswith("()\n")
    assert set(states(moved).values()) == {"ok"}
    for ref in moved.query_all_datasets("*", name="calexp", find_first=False):
        assert moved.get(ref).id == str(ref.id)
    assert not list((tmp_path / "new").rglob(".compositeh5*"))
