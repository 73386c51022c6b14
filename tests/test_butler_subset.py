"""Parts of repositories: datasets, and what they link to, in another one without pixels that nobody needs."""

# ruff: noqa: F811 (fixtures of another module)

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from support import counted_reads, exposure, tool, visit_info

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.trees.verify import verify

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")

from butler_support import (  # noqa: F401
    DISASSEMBLED,
    FILE,
    RUN,
    butler,
    ccd,
    ccd_id,
    chain,
    child,
    content,
    files_of,
    ingest_together,
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
)
from lsst.daf.butler import Butler, DatasetProvenance, DatasetRef, FileDataset

from compositeh5.butler import Subset, link, put_links, subset
from compositeh5.butler.formatter import CompositeFormatter

ELSEWHERE = {
    **FILE,
    "templates": {"default": "elsewhere/{run}/{datasetType}/{instrument:?}/{visit:?}/{detector:?}"},
}


def put_catalogs(butler: Butler, ccds: list[DatasetRef]) -> list[DatasetRef]:
    """Store a catalogue for each exposure, which links to its calibration and to the metadata of the visit."""
    refs = []
    for number, base in enumerate(ccds):
        provenance = DatasetProvenance()
        provenance.add_input(base)
        links = {name: link(butler, base, name) for name in ("photo_calib", "wcs", "visit_info")}
        table = Table({"id": np.arange(5), "flux": np.arange(5.0) + number})
        catalog = ch5.Composite("source_catalog", table=table, **links)
        refs.append(butler.put(catalog, "src", base.dataId, provenance=provenance))
    return refs


def identity(butler: Butler, ref: DatasetRef) -> tuple[str, str, object]:
    """Return what stays the same of a composite that is written anew: id, digest and provenance."""
    with ch5.open(butler.getURI(ref).ospath) as stored:
        verify(stored)
        return stored.id, stored.digest, stored.provenance


def names(butler: Butler) -> list[tuple[str, int | None]]:
    """Return the dataset types and detectors of all datasets."""
    if not butler.registry.queryDatasetTypes():
        return []
    refs = butler.query_all_datasets("*", find_first=False)
    return sorted((ref.datasetType.name, ref.dataId.get("detector", -1)) for ref in refs)


def test_catalogs_come_with_their_calibrations_and_without_pixels(butler: Butler, root: Path, tmp_path: Path) -> None:
    visit_ref, ccds = put_ccds(butler, 3, (1000, 1500))
    catalogs = put_catalogs(butler, ccds)
    expected = content(butler, catalogs)
    before = [identity(butler, ref) for ref in catalogs]
    pixels = sum(os.path.getsize(butler.getURI(ref).ospath) for ref in ccds)
    target = new_repo(tmp_path / "new", bare=True)
    with counted_reads() as count:
        done = subset(butler, target, butler.query_datasets("src"))
        assert count() < pixels / 10
    assert set(done.refs) == set(catalogs)
    assert done.linked == (visit_ref,)
    assert [ref.datasetType.name for ref in done.parts] == ["calexp_parts"] * 3
    assert {(ref.dataId, ref.run) for ref in done.parts} == {(ref.dataId, ref.run) for ref in ccds}
    everything = {ref.id for ref in target.query_all_datasets("*", find_first=False)}
    assert everything == {ref.id for ref in (*done.refs, *done.linked, *done.parts)}
    assert sum(path.stat().st_size for path in files_of(tmp_path / "new")) < pixels / 20

    shutil.rmtree(root)
    new = tmp_path / "moved"
    (tmp_path / "new").rename(new)
    target = Butler.from_config(str(new), collections=RUN)
    assert content(target, catalogs) == expected
    assert [identity(target, ref) for ref in catalogs] == before
    assert set(states(target).values()) == {"ok"}
    assert target.get("src.photo_calib", ccd_id(1)).mean == 57.5
    for ref in done.parts:
        with ch5.open(target.getURI(ref).ospath) as parts:
            verify(parts)
            assert (parts.id, parts.dataset_type, parts.definition) == (str(ref.id), "calexp_parts", "")
            assert set(parts) == {"photo_calib", "wcs"}
            (ccd,) = (ccd for ccd in ccds if ccd.dataId == ref.dataId)
            assert parts.component_origin("wcs").id == str(ccd.id)
            assert str(ccd.id) in parts.provenance["butler"].values()
    for ref in done.refs:
        path = Path(target.getURI(ref).ospath)
        assert not any(os.path.isabs(name) for name in native_targets(path))
        assert "photo_calib/mean" in tool("h5ls", "-rE", path).stdout
        with ch5.open(path) as stored:
            assert stored.links["wcs"].dataset_type == "calexp_parts"


def test_what_does_not_change_keeps_its_file(butler: Butler, root: Path, tmp_path: Path) -> None:
    """Exposures come with all their pixels, and with the visit: the same files, in the same places."""
    visit_ref, ccds = put_ccds(butler)
    expected = content(butler, ccds)
    target = new_repo(tmp_path / "new", ELSEWHERE, bare=True)
    done = subset(butler, target, ccds, transfer="hardlink")
    assert (done.refs, done.linked, done.parts, done.lost) == (tuple(ccds), (visit_ref,), (), ())
    for ref in [visit_ref, *ccds]:
        assert os.path.samefile(target.getURI(ref).ospath, butler.getURI(ref).ospath)
    shutil.rmtree(root)
    assert content(target, ccds) == expected


def test_other_templates(butler: Butler, root: Path, tmp_path: Path) -> None:
    """What is written is where the target puts it; what is transferred is where it was. Links lead to both."""
    visit_ref, ccds = put_ccds(butler)
    catalogs = put_catalogs(butler, ccds)
    expected = content(butler, catalogs)
    target = new_repo(tmp_path / "new", ELSEWHERE, bare=True)
    done = subset(butler, target, catalogs)
    assert all("elsewhere" in target.getURI(ref).ospath for ref in (*done.refs, *done.parts))
    assert "elsewhere" not in target.getURI(visit_ref).ospath
    shutil.rmtree(root)
    assert content(target, catalogs) == expected
    assert set(states(target).values()) == {"ok"}


def test_overlays_and_what_uses_them(butler: Butler, root: Path, tmp_path: Path) -> None:
    """Of an overlay that has pixels by a link only its own component comes along, and nothing of its base."""
    visit_ref, (first, second) = put_ccds(butler)
    overlay, catalog = put_overlay_and_catalog(butler, first)
    expected = content(butler, [catalog])
    target = new_repo(tmp_path / "new", bare=True)
    done = subset(butler, target, [catalog, second])
    (table,) = butler.query_datasets("src_table")
    assert set(done.refs) == {catalog, second}
    assert set(done.linked) == {visit_ref, table}
    assert {(ref.datasetType.name, ref.run) for ref in done.parts} == {
        ("calexp_parts", overlay.run),
        ("calexp_parts", RUN),
    }
    shutil.rmtree(root)
    assert content(target, [catalog]) == expected
    assert set(states(target).values()) == {"ok"}


def test_what_several_use_comes_once(butler: Butler, root: Path, tmp_path: Path) -> None:
    """With all components that one of them needs."""
    visit_ref, ccds = put_ccds(butler)
    catalogs = put_catalogs(butler, ccds)
    register(butler, "models", tuple(ccd_id()), "CompositeH5PartsV1")
    models = put_links(butler, "models", {"psf": ccds[0], "wcs": ccds[0]}, ccd_id(0))
    target = new_repo(tmp_path / "new", bare=True)
    expected = content(butler, [*catalogs, models])
    done = subset(butler, target, [*catalogs, models])
    assert done.linked == (visit_ref,)
    shutil.rmtree(root)
    assert content(target, [*catalogs, models]) == expected
    assert {ref.dataId["detector"]: set(target.get(ref)) for ref in done.parts} == {
        0: {"photo_calib", "wcs", "psf"},
        1: {"photo_calib", "wcs"},
    }


def test_what_is_selected_itself_comes_whole(butler: Butler, root: Path, tmp_path: Path) -> None:
    _, ccds = put_ccds(butler)
    catalogs = put_catalogs(butler, ccds)
    expected = content(butler, [*catalogs, ccds[1]])
    target = new_repo(tmp_path / "new", bare=True)
    done = subset(butler, target, [*catalogs, ccds[1]])
    assert [ref.dataId["detector"] for ref in done.parts] == [0]
    assert names(target) == [("calexp", 1), ("calexp_parts", 0), ("src", 0), ("src", 1), ("visit_metadata", -1)]
    shutil.rmtree(root)
    assert content(target, [*catalogs, ccds[1]]) == expected


def test_some_components(butler: Butler, root: Path, tmp_path: Path) -> None:
    visit_ref, ccds = put_ccds(butler, 3, (1000, 1500))
    put_catalogs(butler, ccds)
    pixels = sum(os.path.getsize(butler.getURI(ref).ospath) for ref in ccds)
    target = new_repo(tmp_path / "new", bare=True)
    refs = butler.query_all_datasets(RUN, name=["src", "calexp"])
    with counted_reads() as count:
        done = subset(butler, target, refs, components=["wcs", "visit_info"])
        assert count() < pixels / 10
    shutil.rmtree(root)
    assert [ref.datasetType.name for ref in done.refs] == [f"{ref.datasetType.name}_parts" for ref in refs]
    assert (done.linked, done.parts) == ((visit_ref,), ())
    for ref in done.refs:
        got = target.get(ref)
        assert set(got) == {"wcs", "visit_info"}
        assert got["visit_info"] == visit_info()
        assert got.links.keys() == ({"visit_info", "wcs"} if ref.datasetType.name == "src_parts" else {"visit_info"})
    assert set(states(target).values()) == {"ok"}
    butler = Butler.from_config(str(tmp_path / "new"), collections=RUN)
    assert set(butler.get("src_parts.components", ccd_id(1))) == {"wcs", "visit_info"}


def test_components_that_nobody_has(butler: Butler, tmp_path: Path) -> None:
    _, ccds = put_ccds(butler)
    target = new_repo(tmp_path / "new", bare=True)
    with pytest.raises(errors.NoSuchComponentError, match="no dataset has one of the components wsc"):
        subset(butler, target, ccds, components=["wsc"])
    assert names(target) == []
    assert subset(butler, target, []) == Subset()


def test_a_second_call_takes_over_what_is_there(butler: Butler, tmp_path: Path) -> None:
    _, ccds = put_ccds(butler, 3)
    catalogs = put_catalogs(butler, ccds)
    target = new_repo(tmp_path / "new", bare=True)
    first = subset(butler, target, catalogs[:2])
    before = {path: path.stat().st_mtime_ns for path in files_of(tmp_path / "new")}
    again = subset(butler, target, catalogs)
    assert set(first.parts) < set(again.parts)
    after = {path: path.stat().st_mtime_ns for path in files_of(tmp_path / "new")}
    assert before.items() <= after.items()
    assert len(after) == len(before) + 2
    # Ids follow from what is in the source.
    assert subset(butler, new_repo(tmp_path / "other", bare=True), catalogs) == again


def test_a_call_that_was_stopped_is_finished_by_the_next(
    butler: Butler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after each put in turn: what is there has all that it links to."""
    _, ccds = put_ccds(butler, 2)
    catalogs = put_catalogs(butler, ccds)
    target = new_repo(tmp_path / "new", bare=True)
    put = target.put

    def put_one(*args: Any, **keywords: Any) -> DatasetRef:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        return put(*args, **keywords)

    monkeypatch.setattr(target, "put", put_one)
    for stored in range(3):
        left = 1
        with pytest.raises(KeyboardInterrupt):
            subset(butler, target, catalogs)
        assert len(names(target)) == stored + 2
        assert set(states(target).values()) <= {"ok"}
    left = 4
    done = subset(butler, target, catalogs)
    assert left == 3
    assert len(names(target)) == 5
    assert set(done.refs) == set(catalogs)


def test_other_components_of_a_dataset_of_which_the_target_has_some(butler: Butler, tmp_path: Path) -> None:
    _, ccds = put_ccds(butler)
    target = new_repo(tmp_path / "new", bare=True)
    first = subset(butler, target, ccds, components=["photo_calib", "wcs", "psf"])
    # Fewer are found there.
    catalogs = put_catalogs(butler, ccds)
    assert subset(butler, target, catalogs).parts == first.refs
    assert content(target, catalogs) == content(butler, catalogs)
    before = files_of(tmp_path / "new")
    with pytest.raises(
        errors.ConflictError, match="the target has calexp_parts detector=0.* with the same visit_info, wcs"
    ):
        subset(butler, target, ccds, components=["visit_info", "wcs"])
    assert files_of(tmp_path / "new") == before


def test_other_datasets_in_the_places_of_these(butler: Butler, tmp_path: Path) -> None:
    _, ccds = put_ccds(butler, 2)
    catalogs = put_catalogs(butler, ccds)
    target = new_repo(tmp_path / "new")
    put_ccds(target, 1)
    before = files_of(tmp_path / "new")
    for refs in (ccds, catalogs):
        with pytest.raises(errors.ConflictError, match=r"the target has .* in place of .* Nothing was written"):
            subset(butler, target, refs)
    assert files_of(tmp_path / "new") == before


def test_lost_links_are_an_error_before_anything_is_written(butler: Butler, tmp_path: Path) -> None:
    _, ccds = put_ccds(butler)
    catalogs = put_catalogs(butler, ccds)
    butler.pruneDatasets([ccds[1]], disassociate=True, unstore=True, purge=True)
    target = new_repo(tmp_path / "new", bare=True)
    with pytest.raises(
        errors.BrokenLinkError, match=r"nothing was written: src .*detector=1.* photo_calib -> "
    ) as raised:
        subset(butler, target, catalogs)
    assert str(raised.value).count(str(ccds[1].id)) == 2
    assert names(target) == []
    assert not files_of(tmp_path / "new")
    with pytest.raises(FileNotFoundError):
        subset(butler, target, [*ccds, *catalogs], missing="ignore")
    assert names(target) == []
    done = subset(butler, target, catalogs, missing="ignore")
    assert len(done.lost) == 2
    assert len(done.parts) == 1
    assert states(target)[("src", "wcs")] in ("ok", "broken")
    got = target.get("src", ccd_id(1), collections=RUN)
    assert len(got["table"]) == 5
    assert got["visit_info"] == visit_info()
    with pytest.raises(errors.BrokenLinkError):
        got["wcs"]


@pytest.mark.parametrize("where", ["source", "target"])
def test_disassembled_composites(tmp_path: Path, where: str) -> None:
    source = new_repo(tmp_path / "old", DISASSEMBLED if where == "source" else None)
    visit_ref, ccds = put_ccds(source)
    catalogs = put_catalogs(source, ccds)
    expected = content(source, [*catalogs, ccds[0]])
    target = new_repo(tmp_path / "new", DISASSEMBLED if where == "target" else None, bare=True)
    done = subset(source, target, [*catalogs, ccds[0]])
    assert (len(done.refs), done.linked, len(done.parts)) == (3, (visit_ref,), 1)
    other = new_repo(tmp_path / "other", DISASSEMBLED if where == "target" else None, bare=True)
    parts = subset(source, other, ccds[1:], components=["psf", "visit_info"])
    del source
    shutil.rmtree(tmp_path / "old")
    assert content(target, [*catalogs, ccds[0]]) == expected
    assert set(states(target).values()) == {"ok"}
    assert set(other.get(parts.refs[0])) == {"psf", "visit_info"}


@pytest.mark.parametrize("where", ["source", "target", "nowhere"])
def test_exposures_that_link_to_what_comes_in_part(tmp_path: Path, where: str) -> None:
    """They are put anew, with their pixels."""
    source = new_repo(tmp_path / "old", DISASSEMBLED if where == "source" else None)
    _, (first, _) = put_ccds(source)
    given = exposure((30, 40), **{name: link(source, first, name) for name in ("photo_calib", "visit_info")})
    source.collections.register("u/x")
    user = source.put(given, "calexp", ccd_id(5), run="u/x")
    expected = content(source, [user])
    target = new_repo(tmp_path / "new", DISASSEMBLED if where == "target" else None, bare=True)
    done = subset(source, target, [user])
    assert [ref.dataId["detector"] for ref in done.parts] == [0]
    del source
    shutil.rmtree(tmp_path / "old")
    assert content(target, [user]) == expected
    assert all(uri.ospath.startswith(str(tmp_path / "new")) for uri in target.getURIs(user).iter_all())
    assert set(states(target).values()) == {"ok"}


def test_datasets_that_share_a_file(butler: Butler, root: Path, tmp_path: Path) -> None:
    """Each that is needed gets a file of its own; others, and their pixels, don't come along."""
    refs = ingest_together(butler, tmp_path / "all.h5", [ccd(d, (300, 400)) for d in range(3)], transfer="move")
    given = ch5.Composite("source_catalog", table=Table({"id": [1, 2]}), wcs=link(butler, refs[1], "wcs"))
    catalog = butler.put(given, "src", ccd_id(1))
    expected = content(butler, [catalog, refs[2]])
    target = new_repo(tmp_path / "new", bare=True)
    done = subset(butler, target, [catalog, refs[2]])
    assert (set(done.refs), done.linked) == ({catalog, refs[2]}, ())
    assert names(target) == [("calexp", 2), ("calexp_parts", 1), ("src", 1)]
    shutil.rmtree(root)
    assert content(target, [catalog, refs[2]]) == expected
    with ch5.open(target.getURI(refs[2]).ospath) as stored:
        assert stored.id == str(refs[2].id)


def test_links_to_datasets_that_are_no_composites(butler: Butler, root: Path, tmp_path: Path) -> None:
    register(butler, "best_wcs", tuple(ccd_id()), "CompositeH5WcsV1")
    alone = butler.put(exposure((30, 40))["wcs"], "best_wcs", ccd_id())
    given = ch5.Composite("source_catalog", table=Table({"id": [1, 2]}), wcs=link(butler, alone, "value"))
    catalog = butler.put(given, "src", ccd_id())
    expected = content(butler, [catalog])
    target = new_repo(tmp_path / "new", bare=True)
    assert subset(butler, target, [catalog]) == Subset((catalog,), (alone,))
    shutil.rmtree(root)
    assert content(target, [catalog]) == expected


def test_files_that_the_source_has_from_elsewhere(butler: Butler, root: Path, tmp_path: Path) -> None:
    """They get to other places than they had: links follow."""
    visit_ref, ccds = put_ccds(butler)
    catalogs = put_catalogs(butler, ccds)
    expected = content(butler, [*catalogs, *ccds])
    (tmp_path / "far/away").mkdir(parents=True)
    for number, ref in enumerate([visit_ref, *ccds, *catalogs]):
        path = shutil.copy(butler.getURI(ref).ospath, tmp_path / f"far/away/{number}.h5")
        butler.pruneDatasets([ref], disassociate=False, unstore=True, purge=False)
        butler.ingest(FileDataset(path, [ref], formatter=CompositeFormatter), transfer="direct")
    target = new_repo(tmp_path / "new", bare=True)
    subset(butler, target, [*catalogs, *ccds])
    shutil.rmtree(root)
    shutil.rmtree(tmp_path / "far")
    assert content(target, [*catalogs, *ccds]) == expected
    assert set(states(target).values()) == {"ok"}


def test_a_target_that_does_not_know_parts(butler: Butler, tmp_path: Path) -> None:
    """As one that was made by an earlier release."""
    _, ccds = put_ccds(butler)
    new_repo(tmp_path / "new", bare=True)
    config = tmp_path / "new/butler.yaml"
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if "CompositeH5PartsV1: comp" not in line))
    target = Butler.from_config(str(tmp_path / "new"), writeable=True)
    catalogs = put_catalogs(butler, ccds)
    with pytest.raises(
        errors.ConfigurationError, match="no formatter .*CompositeH5PartsV1; see `butler compositeh5-install`"
    ):
        subset(butler, target, catalogs)
    assert names(target) == []
    assert set(subset(butler, target, ccds).refs) == set(ccds)


def test_a_target_with_two_datastores(butler: Butler, root: Path, tmp_path: Path) -> None:
    _, ccds = put_ccds(butler)
    catalogs = put_catalogs(butler, ccds)
    expected = content(butler, catalogs)
    templates = "{run}/{datasetType}/{instrument:?}/{visit:?}/{detector:?}"
    children = [child(name, templates={"default": f"{name}/{templates}"}) for name in ("one", "two")]
    target = new_repo(tmp_path / "new", chain(*children), bare=True)
    subset(butler, target, catalogs)
    shutil.rmtree(root)
    assert content(target, catalogs) == expected
    # What is written is in both; what is transferred the Butler gives to the first that takes it.
    assert [len(files_of(tmp_path / "new" / name)) for name in ("one", "two")] == [5, 4]
    for name in ("one", "two"):
        catalog, _ = (tmp_path / "new" / name).rglob("src/**/*.h5")
        places = [(catalog.parent / place).resolve() for place in native_targets(catalog)]
        assert all(place.exists() for place in places)
        # Links lead to where the Butler says that a dataset is: in the first datastore.
        assert {place.relative_to(tmp_path / "new").parts[0] for place in places} == {"one"}


def test_the_command(butler: Butler, root: Path, tmp_path: Path) -> None:
    visit_ref, ccds = put_ccds(butler, 3)
    put_catalogs(butler, ccds)
    new_repo(tmp_path / "new", bare=True)

    def run(*arguments: object, code: int = 0) -> str:
        return "\n".join(run_butler("compositeh5-subset", *arguments, code=code))

    where = ("--where", "instrument='DemoCam' AND detector>0")
    output = run(root, tmp_path / "new", "--dataset-type", "src", "--collections", RUN, *where)
    assert output == "Datasets: 2; to which they link: 1 whole, 2 in part"
    new_repo(tmp_path / "other", bare=True)
    output = run(root, tmp_path / "other", "-d", "calexp", "--components", "photo_calib,wcs", *where)
    assert output == "Datasets: 2; to which they link: 0 whole, 0 in part"
    assert names(Butler.from_config(str(tmp_path / "other"))) == [("calexp_parts", 1), ("calexp_parts", 2)]
    assert "Error: no dataset has one of" in run(root, tmp_path / "other", "-d", "src", "--components", "x", code=2)
    purge(butler, visit_ref)
    new_repo(tmp_path / "third", bare=True)
    assert "Error: linked components are lost" in run(root, tmp_path / "third", "-d", "src", code=2)
    run(root, tmp_path / "third", "-d", "src", "--ignore-missing")
