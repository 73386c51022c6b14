"""What composites link to: carried along, checked, and found again; with the functions and with `butler`."""

# ruff: noqa: F811 (fixtures of another module)

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import h5py
import pytest
from astropy.table import Table
from support import counted_reads, exposure, visit_info

import compositeh5 as ch5
from compositeh5 import errors

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")

from butler_support import (  # noqa: F401
    DISASSEMBLED,
    FILE,
    RUN,
    VISIT,
    butler,
    catalog,
    ccd,
    ccd_id,
    content,
    files_of,
    ingest_together,
    moved,
    native_targets,
    new_repo,
    nothing_cached,
    purge,
    put_ccds,
    put_overlay_and_catalog,
    register,
    root,
    run_butler,
    states,
    visit,
)
from lsst.daf.butler import Butler

from compositeh5.butler import (
    check,
    export_closure,
    link,
    linked_refs,
    put_overlay,
    relink,
    retrieve_closure,
    transfer_closure,
    users_of,
)

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
    dataset_type = register(butler, "nested", tuple(VISIT), "CompositeH5RawV1")
    nested = butler.put(ch5.Composite(None, amplifiers=[inner, inner]), dataset_type, VISIT)
    assert linked_refs(butler, [nested]) == [visit_ref]


def test_links_in_a_component_of_a_disassembled_composite_count(tmp_path: Path) -> None:
    apart = {"CompositeH5RawV1": True}
    butler = new_repo(tmp_path / "apart", {**FILE, "composites": {"disassembled": apart}})
    visit_ref, _ = put_ccds(butler, 0)
    inner = ch5.Composite(None, visit_info=link(butler, visit_ref, "visit_info"), note="of an amplifier")
    dataset_type = register(butler, "nested", tuple(VISIT), "CompositeH5RawV1")
    nested = butler.put(ch5.Composite(None, amplifiers=[inner, inner]), dataset_type, VISIT)
    assert "amplifiers" in butler.getURIs(nested).componentURIs
    assert linked_refs(butler, [nested]) == [visit_ref]


def test_datasets_that_are_no_composites_have_no_links(butler: Butler) -> None:
    dataset_type = register(butler, "plain", ("instrument",), "StructuredDataDict")
    assert linked_refs(butler, [butler.put({"a": 1}, dataset_type, instrument="DemoCam")]) == []


def test_linked_datasets_that_are_missing_are_named(butler: Butler, tmp_path: Path) -> None:
    visit_ref, refs = put_ccds(butler)
    butler.pruneDatasets([visit_ref], disassociate=False, unstore=True)
    with pytest.raises(errors.BrokenLinkError, match=r"calexp.*visit_info -> visit_metadata.visit_info") as raised:
        linked_refs(butler, refs)
    assert str(visit_ref.id) in str(raised.value)
    assert linked_refs(butler, refs, missing="ignore") == []
    target = new_repo(tmp_path / "new", bare=True)
    with pytest.raises(errors.BrokenLinkError):
        transfer_closure(butler, target, refs)
    assert not files_of(tmp_path / "new")


# ---- Taking it along ----------------------------------------------------------------------------------------


def test_a_transfer_takes_along_exactly_what_is_linked(butler: Butler, root: Path, tmp_path: Path) -> None:
    visit_ref, (first, _) = put_ccds(butler)
    overlay, catalog = put_overlay_and_catalog(butler, first)
    expected = content(butler, [catalog, overlay, first])
    target = new_repo(tmp_path / "new", bare=True)
    moved = transfer_closure(butler, target, [catalog])
    assert moved[0] == catalog
    found = {ref.id for ref in target.query_all_datasets("*", find_first=False)}
    assert found == {ref.id for ref in moved} == {catalog.id, overlay.id, first.id, visit_ref.id, moved[1].id}
    assert len(files_of(tmp_path / "new")) == 5
    shutil.rmtree(root)
    assert content(target, [catalog, overlay, first]) == expected


def test_a_transfer_can_be_repeated(butler: Butler, tmp_path: Path) -> None:
    _, (first, second) = put_ccds(butler)
    target = new_repo(tmp_path / "new", bare=True)
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
    target = new_repo(tmp_path / "new", bare=True)
    target.import_(directory=str(tmp_path / "export"), filename="export.yaml", transfer="copy")
    shutil.rmtree(tmp_path / "export")
    assert content(target, [catalog, overlay, first]) == expected


def test_an_export_of_disassembled_composites(tmp_path: Path) -> None:
    apart = new_repo(tmp_path / "apart", DISASSEMBLED)
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
    target = new_repo(tmp_path / "export", bare=True)
    target.import_(directory=str(tmp_path / "export"), filename="export.yaml", transfer=None)
    assert content(target, refs) == expected
    assert target.get(first).definition == "exposure"
    assert (target.get(first).id, target.get(first).run) == (str(first.id), RUN)


def test_an_export_never_changes_the_repository(tmp_path: Path) -> None:
    """The catalogue's file is the repository's own, and what it links to is now elsewhere: in one file, not several."""
    apart = new_repo(tmp_path / "apart", DISASSEMBLED)
    _, (first,) = put_ccds(apart, 1)
    _, catalog = put_overlay_and_catalog(apart, first)
    before = {path: path.read_bytes() for path in files_of(tmp_path / "apart")}
    for transfer in ("direct", "symlink", "hardlink"):
        export_closure(apart, [catalog], tmp_path / transfer, transfer=transfer)
        assert {path: path.read_bytes() for path in files_of(tmp_path / "apart")} == before


# ---- Ingested under other ids -------------------------------------------------------------------------------


def test_what_was_ingested_under_another_id_is_found(butler: Butler, tmp_path: Path) -> None:
    """By the data ID that the link has, and the id inside of the file."""
    ccds = [ccd(detector) for detector in range(2)]
    calexps = ingest_together(butler, tmp_path / "all.h5", ccds)
    assert {str(ref.id) for ref in calexps}.isdisjoint(ccd.id for ccd in ccds)
    table = Table({"id": [1, 2]})
    catalogs = [
        butler.put(ch5.Composite("source_catalog", table=table, wcs=ccd.link("wcs")), "src", ccd.data_id)
        for ccd in ccds
    ]
    (tmp_path / "all.h5").unlink()
    assert linked_refs(butler, catalogs[1:]) == [calexps[1]]
    assert {c.ref: c.component for c in users_of(butler, calexps[:1])} == {catalogs[0]: "wcs"}
    assert {c.state for c in check(butler, catalogs)} == {"moved"}
    assert set(relink(butler).mapped) == set(catalogs)
    assert {c.state for c in check(butler, catalogs)} == {"mapped"}
    expected = content(butler, catalogs)
    target = new_repo(tmp_path / "new", bare=True)
    assert set(transfer_closure(butler, target, catalogs[:1])) == {catalogs[0], calexps[0]}
    export_closure(butler, catalogs, tmp_path / "export")
    purge(butler, *calexps, *catalogs)
    other = new_repo(tmp_path / "other", bare=True)
    other.import_(directory=str(tmp_path / "export"), filename="export.yaml", transfer="copy")
    assert content(other, catalogs) == expected
    assert content(target, catalogs[:1]) == {str(catalogs[0].id): expected[str(catalogs[0].id)]}


def test_a_link_of_which_no_data_id_is_known_or_a_wrong_one(butler: Butler, tmp_path: Path) -> None:
    table = Table({"id": [1, 2]})
    for data_id in ({}, {"instrument": "DemoCam", "visit": "no number", "detector": 1}, {"tract": 1}):
        other = exposure((30, 40)).replace(data_id=data_id)
        other.write(tmp_path / "other.h5", replace=True)
        given = ch5.Composite("source_catalog", table=table, wcs=other.link("wcs"))
        ref = butler.put(given, "src", ccd_id(len(data_id)))
        assert linked_refs(butler, [ref], missing="ignore") == []
        with pytest.raises(errors.BrokenLinkError, match=other.id):
            linked_refs(butler, [ref])


# ---- Checking -----------------------------------------------------------------------------------------------


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
    purge(butler, visit_ref)
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
    apart = new_repo(tmp_path / "apart", DISASSEMBLED)
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


# ---- The command `butler` -----------------------------------------------------------------------------------


def run(command: str, *arguments: object, code: int = 0) -> list[str]:
    return run_butler(f"compositeh5-{command}", *arguments, code=code)


def test_the_commands_for_what_is_linked(butler: Butler, root: Path, tmp_path: Path) -> None:
    visit_ref, (first, second) = put_ccds(butler)
    put_overlay_and_catalog(butler, first)
    one = ("-d", "calexp", "--collections", RUN, "--where", "instrument='DemoCam' AND detector=1")
    assert run("links", root, *one) == [
        f"visit_metadata instrument=DemoCam visit=903334 {RUN} {visit_ref.id}",
    ]
    (linked,) = json.loads("\n".join(run("links", root, *one, "--json")))
    data_id = {"instrument": "DemoCam", "visit": 903334}
    assert linked == {"dataset_type": "visit_metadata", "data_id": data_id, "run": RUN, "id": str(visit_ref.id)}
    new_repo(tmp_path / "new", bare=True)
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
    assert json.loads("\n".join(run("export", root, tmp_path / "again", *one, "--json"))) == {
        "selected": 1,
        "linked": 1,
    }
    assert second.datasetType.name in " ".join(files)


def test_the_commands_that_check_and_repair(moved: Butler, tmp_path: Path) -> None:
    root = tmp_path / "new"
    lines = run("check", root, code=1)
    assert all(line.startswith("moved: ") for line in lines[:-1])
    assert lines[-1] == f"Links: {len(lines) - 1} moved"
    document = json.loads("\n".join(run("check", root, "--json", code=1)))
    assert document["counts"] == {"moved": len(lines) - 1}
    assert [link["state"] for link in document["links"]] == ["moved"] * (len(lines) - 1)
    assert "detector=1" in " ".join(run("relink", root, "-d", "calexp"))
    document = json.loads("\n".join(run("relink", root, "--json")))
    assert document["left"] == []
    assert {ref["dataset_type"] for ref in document["mapped"]} == {"calexp", "src"}
    lines = run("check", root)
    assert all(line.startswith("mapped: ") for line in lines[:-1])
    assert lines[-1] == f"Links: {len(lines) - 1} mapped"
    (overlay,) = moved.query_datasets("calexp", collections="u/jointcal")
    would_break = run("check", root, "--collections", "u/jointcal", "--if-removed", code=1)
    assert would_break[-1] == "Links: 1 about to break"
    assert would_break[0].startswith("about to break: src detector=0")
    assert str(overlay.id) in would_break[0]
    assert run("check", root, "--collections", "u/src", "-d", "src", "--if-removed") == ["Links: none"]
    purge(moved, overlay)
    lines = run("check", root, "--collections", "u/src", code=1)
    found = [line.partition(":")[0] for line in lines]
    assert [state for state in found if state != "mapped"] == ["broken", "Links"]
    assert "aren't stored in this repository" in run("links", root, "-d", "src", code=2)[-1]
    assert "needs a selection" in run("check", root, "--if-removed", code=2)[-1]
    assert "Error: " in run("check", tmp_path / "nowhere", code=2)[-1]


def test_the_command_butler_has_the_sub_commands() -> None:
    commands = "\n".join(run_butler("--help"))
    for name in ("links", "transfer", "export", "retrieve", "subset", "check", "relink", "install", "convert"):
        assert f"  compositeh5-{name} " in commands
