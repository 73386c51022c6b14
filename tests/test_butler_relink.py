"""Links that lead nowhere any more, and the map by which gets find their targets."""

# ruff: noqa: F811 (fixtures of another module)

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import pytest
from support import visit_info

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.composite.places import TARGET_MAP_NAME
from compositeh5.composite.session import current

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")

from butler_support import (  # noqa: F401
    DISASSEMBLED,
    MEMORY,
    OTHER_TEMPLATES,
    RUN,
    VISIT,
    butler,
    catalog,
    ccd,
    ccd_id,
    chain,
    child,
    content,
    ingest_together,
    move_file,
    moved,
    new_repo,
    nothing_cached,
    purge,
    put_ccds,
    put_overlay_and_catalog,
    register,
    root,
    states,
    visit,
)
from lsst.daf.butler import Butler, DatasetRef, FileDataset

from compositeh5.butler import (
    Relinking,
    check,
    export_closure,
    link,
    linked_refs,
    relink,
    transfer_closure,
)
from compositeh5.butler.formatter import CompositeFormatter


def map_of(root: Path) -> dict[str, Any]:
    """Return the places that a map names, each with the ids and the component that it is for."""
    document: dict[str, Any] = json.loads((root / TARGET_MAP_NAME).read_text())
    assert document["index_version"] == "V1"
    artifacts: dict[str, Any] = document["artifact_map"]
    return artifacts


def files_with_content(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*.h5")}


GET = """
import sys
from lsst.daf.butler import Butler
from butler_support import content

butler = Butler.from_config(sys.argv[1])
refs = butler.get_many_datasets(sys.argv[2:])
print(sorted(content(butler, refs).items()))
print({butler.get(ref.makeComponentRef("visit_info"))["visit"] for ref in refs})
"""


def content_in_a_new_process(root: Path, refs: list[DatasetRef]) -> str:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", GET, str(root), *(str(ref.id) for ref in refs)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_gets_find_linked_components_after_an_import_to_other_places(moved: Butler, tmp_path: Path) -> None:
    root = tmp_path / "new"
    refs = [ref for ref in moved.query_all_datasets("*", find_first=False) if "src_table" not in ref.datasetType.name]
    users = [ref for ref in refs if ref.datasetType.name != "visit_metadata"]
    component = users[0].makeComponentRef("visit_info")
    with pytest.raises(errors.BrokenLinkError):
        moved.get(component)
    assert set(states(moved).values()) == {"moved"}
    before = files_with_content(root)
    assert relink(moved) == Relinking(tuple(users))
    assert files_with_content(root) == before
    assert moved.get(component) == visit_info()
    told = content_in_a_new_process(root, users)
    assert told.splitlines() == [str(sorted(content(moved, users).items())), "{903334}"]
    # Tools that know only HDF5 don't find them, and the check says so.
    assert set(states(moved).values()) == {"mapped"}
    (detail, *_) = (checked.detail for checked in check(moved, users) if checked.component == "visit_info")
    assert "No such file" in detail
    with h5py.File(moved.getURI(users[0]).ospath) as file, pytest.raises(KeyError):
        file["composite/visit_info"]
    written = (root / TARGET_MAP_NAME).read_bytes()
    assert relink(moved) == Relinking(tuple(users))
    assert (root / TARGET_MAP_NAME).read_bytes() == written
    # Places are relative: a repository may be moved.
    root.rename(tmp_path / "renamed")
    assert content_in_a_new_process(tmp_path / "renamed", users) == told


def test_the_map_is_brought_up_to_date(butler: Butler, root: Path) -> None:
    """By calls for all, and for some, datasets."""
    visit_ref, (first, second) = put_ccds(butler)
    _, catalog = put_overlay_and_catalog(butler, first)
    assert relink(butler) == Relinking()
    assert not (root / TARGET_MAP_NAME).exists()
    move_file(butler, visit_ref, "elsewhere/visit.h5")
    assert relink(butler, [second]) == Relinking((second,))
    by_visit = {"ids": [str(visit_ref.id)], "info": {"component": "visit_info"}}
    assert map_of(root) == {"elsewhere/visit.h5": by_visit}
    move_file(butler, first, "elsewhere/first.h5")
    assert relink(butler, [catalog]) == Relinking((catalog,))
    assert map_of(root).keys() == {"elsewhere/first.h5", "elsewhere/visit.h5"}
    move_file(butler, visit_ref, "again/visit.h5")
    relink(butler)
    assert map_of(root)["again/visit.h5"] == by_visit
    assert "elsewhere/visit.h5" not in map_of(root)
    assert set(states(butler).values()) == {"ok", "mapped"}
    purge(butler, first)
    relink(butler, [second])
    assert map_of(root) == {"again/visit.h5": by_visit}
    purge(butler, visit_ref)
    relink(butler)
    assert not (root / TARGET_MAP_NAME).exists()


def test_disassembled_composites(tmp_path: Path) -> None:
    """As users of links, and as targets: each component is in a file of its own."""
    apart = new_repo(tmp_path / "apart", DISASSEMBLED)
    visit_ref, (first,) = put_ccds(apart, 1)
    overlay, catalog = put_overlay_and_catalog(apart, first)
    names = ("wcs", "psf", "image")
    ch5.Composite(None, {name: link(apart, first, name) for name in names}).write(tmp_path / "links.h5")
    dataset_type = register(apart, "links", tuple(ccd_id()), "CompositeH5PartsV1")
    user = DatasetRef(dataset_type, first.dataId, run=RUN)
    apart.ingest(FileDataset(str(tmp_path / "links.h5"), [user], formatter=CompositeFormatter), transfer="move")
    users = [first, overlay, catalog, user]
    expected = content(apart, users)
    move_file(apart, visit_ref, "elsewhere/visit.h5")
    (tmp_path / "apart").rename(tmp_path / "renamed")
    renamed = Butler.from_config(str(tmp_path / "renamed"))
    assert set(relink(renamed).mapped) == set(users)
    pieces = {entry["info"]["component"] for entry in map_of(tmp_path / "renamed").values()}
    assert pieces == {"visit_info", *names}
    assert content(renamed, users) == expected
    assert set(states(renamed).values()) == {"ok", "mapped"}
    assert renamed.get(first.makeComponentRef("visit_info")) == visit_info()


def test_a_file_of_several_composites(butler: Butler, tmp_path: Path) -> None:
    visit_ref, _ = put_ccds(butler, 0)
    info = link(butler, visit_ref, "visit_info")
    refs = ingest_together(butler, tmp_path / "all.h5", [ccd(d, visit_info=info) for d in range(2)])
    assert linked_refs(butler, refs) == [visit_ref]
    expected = content(butler, refs)
    move_file(butler, visit_ref, "elsewhere/visit.h5")
    assert set(relink(butler).mapped) == set(refs)
    assert {(c.ref, c.state) for c in check(butler, refs)} == {(ref, "mapped") for ref in refs}
    assert content(butler, refs) == expected


def test_links_in_nested_composites_and_in_lists(butler: Butler) -> None:
    visit_ref, _ = put_ccds(butler, 0)
    info = link(butler, visit_ref, "visit_info")
    inner = ch5.Composite(None, visit_info=info, note="of an amplifier")
    middle = ch5.Composite(None, inner=inner, more=[inner, inner])
    dataset_type = register(butler, "nested", tuple(VISIT), "CompositeH5RawV1")
    ref = butler.put(ch5.Composite(None, amplifiers=[middle]), dataset_type, VISIT)
    move_file(butler, visit_ref, "elsewhere/visit.h5")
    assert relink(butler).mapped == (ref,)
    assert states(butler) == {
        ("nested", f"amplifiers/0/{name}/visit_info"): "mapped" for name in ("inner", "more/0", "more/1")
    }
    current().clear_cache()
    assert butler.get(ref)["amplifiers"][0]["inner"]["visit_info"]["airmass"] == 1.0625


def test_datastores_that_hold_different_datasets(tmp_path: Path) -> None:
    """Each has a map, which also leads to the other."""
    nothing = {**MEMORY, "constraints": {"reject": ["all"]}}
    children = [
        child(name, constraints={"reject": [rejected]})
        for name, rejected in {"visits": "calexp", "ccds": "visit_metadata"}.items()
    ]
    butler = new_repo(tmp_path / "repo", chain(nothing, *children))
    visit_ref, (ref,) = put_ccds(butler, 1)
    expected = content(butler, [ref])
    move_file(butler, visit_ref, "elsewhere/visit.h5")
    with pytest.raises(errors.BrokenLinkError):
        content(butler, [ref])
    assert relink(butler).mapped == (ref,)
    assert map_of(tmp_path / "repo/ccds").keys() == {"../visits/elsewhere/visit.h5"}
    assert map_of(tmp_path / "repo/visits").keys() == {"elsewhere/visit.h5"}
    assert content(butler, [ref]) == expected
    assert states(butler) == {("calexp", "visit_info"): "mapped"}


def test_a_repository_in_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    object_store = pytest.importorskip("object_store")
    with object_store.object_store(monkeypatch):
        remote = new_repo(tmp_path / "remote", {**OTHER_TEMPLATES, "root": "s3://data/a repo"}, bare=True)
        near = new_repo(tmp_path / "near")
        _, (first,) = put_ccds(near, 1)
        overlay, catalog = put_overlay_and_catalog(near, first)
        expected = content(near, [catalog, overlay, first])
        export_closure(near, [catalog], tmp_path / "export")
        shutil.rmtree(tmp_path / "near")
        remote.import_(directory=str(tmp_path / "export"), filename="export.yaml", transfer="copy")
        assert remote.getURI(first).scheme == "s3"
        assert set(states(remote).values()) == {"moved"}
        assert set(relink(remote).mapped) == {catalog, overlay, first}
        assert set(states(remote).values()) == {"mapped"}
        assert content(remote, [catalog, overlay, first]) == expected


def test_what_is_transferred_from_a_repository_with_a_map_has_one(moved: Butler, tmp_path: Path) -> None:
    relink(moved)
    refs = moved.query_datasets("calexp", collections=RUN)
    expected = content(moved, refs)
    target = new_repo(tmp_path / "third", bare=True)
    transfer_closure(moved, target, refs)
    shutil.rmtree(tmp_path / "new")
    assert content(target, refs) == expected


def test_a_member_of_a_zip_file(butler: Butler, root: Path, tmp_path: Path) -> None:
    butler.registry.insertDimensionData("visit_detector_region", ccd_id(0))
    visit_ref, (ref,) = put_ccds(butler, 1)
    expected = content(butler, [ref])
    target = new_repo(tmp_path / "new")
    transfer_closure(butler, target, [visit_ref])
    archive = butler.retrieve_artifacts_zip([ref], tmp_path / "zips")
    target.ingest_zip(archive, transfer="copy")
    shutil.rmtree(root)
    with pytest.raises(errors.BrokenLinkError):
        content(target, [ref])
    assert relink(target).mapped == (ref,)
    assert content(target, [ref]) == expected


def test_a_file_that_cannot_be_read_is_told_and_others_are_mapped(butler: Butler) -> None:
    visit_ref, (first, second) = put_ccds(butler)
    move_file(butler, visit_ref, "elsewhere/visit.h5")
    os.truncate(butler.getURI(first).ospath, 100)
    done = relink(butler)
    assert done.mapped == (second,)
    (left,) = done.left
    assert str(first.id) in left


def test_a_map_that_is_damaged_is_told(butler: Butler, root: Path) -> None:
    visit_ref, (ref,) = put_ccds(butler, 1)
    move_file(butler, visit_ref, "elsewhere/visit.h5")
    (root / TARGET_MAP_NAME).write_text("{")
    with pytest.raises(errors.BrokenLinkError, match=f"{TARGET_MAP_NAME}: isn't valid JSON"):
        content(butler, [ref])
    for function in (check, partial(relink, refs=[ref])):
        with pytest.raises(errors.FormatError, match=f"{TARGET_MAP_NAME}: isn't valid JSON"):
            list(function(butler))
    relink(butler)
    assert states(butler) == {("calexp", "visit_info"): "mapped"}


def test_a_butler_without_files_has_no_map(tmp_path: Path) -> None:
    butler = new_repo(tmp_path / "repo", MEMORY)
    with pytest.raises(errors.ConfigurationError, match="no datastore for a map"):
        relink(butler)
