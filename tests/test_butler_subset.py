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

from butler_support import RUN, SEED, files_of
from linked_datasets import (  # noqa: F401
    DISASSEMBLED,
    FILE_DATASTORE,
    ON_SQLITE,
    VISIT,
    Repositories,
    _nothing_cached,
    _repositories,
    butler,
    ccd_id,
    content,
    native_targets,
    put_ccds,
    put_overlay_and_catalog,
    repositories,
    root,
    states,
)
from lsst.daf.butler import Butler, Config, DatasetProvenance, DatasetRef, DatasetType, FileDataset
from lsst.daf.butler.cli.butler import cli as butler_cli
from lsst.daf.butler.cli.utils import LogCliRunner

from compositeh5.butler import Subset, link, put_links, register_dataset_type, subset
from compositeh5.butler.formatter import CompositeFormatter

pytestmark = ON_SQLITE

ELSEWHERE = {
    "cls": FILE_DATASTORE,
    "templates": {"default": "elsewhere/{run}/{datasetType}/{instrument:?}/{visit:?}/{detector:?}"},
}


def put_catalogs(butler: Butler, ccds: list[DatasetRef]) -> list[DatasetRef]:
    """Store a catalogue for each exposure, which links to its calibration and to the metadata of the visit."""
    register_dataset_type(butler, "src", "source_catalog")
    refs = []
    for number, ccd in enumerate(ccds):
        provenance = DatasetProvenance()
        provenance.add_input(ccd)
        links = {name: link(butler, ccd, name) for name in ("photo_calib", "wcs", "visit_info")}
        table = Table({"id": np.arange(5), "flux": np.arange(5.0) + number})
        catalog = ch5.Composite("source_catalog", table=table, **links)
        refs.append(butler.put(catalog, "src", ccd.dataId, provenance=provenance))
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


def test_catalogs_come_with_their_calibrations_and_without_pixels(
    butler: Butler, root: Path, tmp_path: Path, repositories: Repositories
) -> None:
    visit_ref, ccds = put_ccds(butler, 3, (1000, 1500))
    catalogs = put_catalogs(butler, ccds)
    expected = content(butler, catalogs)
    before = [identity(butler, ref) for ref in catalogs]
    pixels = sum(os.path.getsize(butler.getURI(ref).ospath) for ref in ccds)
    target = repositories.new(tmp_path / "new")
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
    target = repositories.open(new, collections=RUN)
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


def test_what_does_not_change_keeps_its_file(
    butler: Butler, root: Path, tmp_path: Path, repositories: Repositories
) -> None:
    """Exposures come with all their pixels, and with the visit: the same files, in the same places."""
    visit_ref, ccds = put_ccds(butler)
    expected = content(butler, ccds)
    target = repositories.new(tmp_path / "new", ELSEWHERE)
    done = subset(butler, target, ccds, transfer="hardlink")
    assert (done.refs, done.linked, done.parts, done.lost) == (tuple(ccds), (visit_ref,), (), ())
    for ref in [visit_ref, *ccds]:
        assert os.path.samefile(target.getURI(ref).ospath, butler.getURI(ref).ospath)
    shutil.rmtree(root)
    assert content(target, ccds) == expected


def test_other_templates(butler: Butler, root: Path, tmp_path: Path, repositories: Repositories) -> None:
    """What is written is where the target puts it; what is transferred is where it was. Links lead to both."""
    visit_ref, ccds = put_ccds(butler)
    catalogs = put_catalogs(butler, ccds)
    expected = content(butler, catalogs)
    target = repositories.new(tmp_path / "new", ELSEWHERE)
    done = subset(butler, target, catalogs)
    assert all("elsewhere" in target.getURI(ref).ospath for ref in (*done.refs, *done.parts))
    assert "elsewhere" not in target.getURI(visit_ref).ospath
    shutil.rmtree(root)
    assert content(target, catalogs) == expected
    assert set(states(target).values()) == {"ok"}


def test_overlays_and_what_uses_them(butler: Butler, root: Path, tmp_path: Path, repositories: Repositories) -> None:
    """Of an overlay that has pixels by a link only its own component comes along, and nothing of its base."""
    visit_ref, (first, second) = put_ccds(butler)
    overlay, catalog = put_overlay_and_catalog(butler, first)
    expected = content(butler, [catalog])
    target = repositories.new(tmp_path / "new")
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


def test_what_several_use_comes_once(butler: Butler, root: Path, tmp_path: Path, repositories: Repositories) -> None:
    """With all components that one of them needs."""
    visit_ref, ccds = put_ccds(butler)
    catalogs = put_catalogs(butler, ccds)
    dataset_type = DatasetType("models", tuple(ccd_id()), "CompositeH5PartsV1", universe=butler.dimensions)
    butler.registry.registerDatasetType(dataset_type)
    models = put_links(butler, "models", {"psf": ccds[0], "wcs": ccds[0]}, ccd_id(0))
    target = repositories.new(tmp_path / "new")
    expected = content(butler, [*catalogs, models])
    done = subset(butler, target, [*catalogs, models])
    assert done.linked == (visit_ref,)
    shutil.rmtree(root)
    assert content(target, [*catalogs, models]) == expected
    assert {ref.dataId["detector"]: set(target.get(ref)) for ref in done.parts} == {
        0: {"photo_calib", "wcs", "psf"},
        1: {"photo_calib", "wcs"},
    }


def test_what_is_selected_itself_comes_whole(
    butler: Butler, root: Path, tmp_path: Path, repositories: Repositories
) -> None:
    _, ccds = put_ccds(butler)
    catalogs = put_catalogs(butler, ccds)
    expected = content(butler, [*catalogs, ccds[1]])
    target = repositories.new(tmp_path / "new")
    done = subset(butler, target, [*catalogs, ccds[1]])
    assert [ref.dataId["detector"] for ref in done.parts] == [0]
    assert names(target) == [("calexp", 1), ("calexp_parts", 0), ("src", 0), ("src", 1), ("visit_metadata", -1)]
    shutil.rmtree(root)
    assert content(target, [*catalogs, ccds[1]]) == expected


def test_some_components(butler: Butler, root: Path, tmp_path: Path, repositories: Repositories) -> None:
    visit_ref, ccds = put_ccds(butler, 3, (1000, 1500))
    put_catalogs(butler, ccds)
    pixels = sum(os.path.getsize(butler.getURI(ref).ospath) for ref in ccds)
    target = repositories.new(tmp_path / "new")
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
    butler = repositories.open(tmp_path / "new", collections=RUN)
    assert set(butler.get("src_parts.components", ccd_id(1))) == {"wcs", "visit_info"}


def test_components_that_nobody_has(butler: Butler, tmp_path: Path, repositories: Repositories) -> None:
    _, ccds = put_ccds(butler)
    target = repositories.new(tmp_path / "new")
    with pytest.raises(errors.NoSuchComponentError, match="no dataset has one of the components wsc"):
        subset(butler, target, ccds, components=["wsc"])
    assert names(target) == []
    assert subset(butler, target, []) == Subset()


def test_a_second_call_takes_over_what_is_there(butler: Butler, tmp_path: Path, repositories: Repositories) -> None:
    _, ccds = put_ccds(butler, 3)
    catalogs = put_catalogs(butler, ccds)
    target = repositories.new(tmp_path / "new")
    first = subset(butler, target, catalogs[:2])
    before = {path: path.stat().st_mtime_ns for path in files_of(tmp_path / "new")}
    again = subset(butler, target, catalogs)
    assert set(first.parts) < set(again.parts)
    after = {path: path.stat().st_mtime_ns for path in files_of(tmp_path / "new")}
    assert before.items() <= after.items()
    assert len(after) == len(before) + 2
    # Ids follow from what is in the source.
    assert subset(butler, repositories.new(tmp_path / "other"), catalogs) == again


def test_a_call_that_was_stopped_is_finished_by_the_next(
    butler: Butler, tmp_path: Path, repositories: Repositories, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after each put in turn: what is there has all that it links to."""
    _, ccds = put_ccds(butler, 2)
    catalogs = put_catalogs(butler, ccds)
    target = repositories.new(tmp_path / "new")
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


def test_other_components_of_a_dataset_of_which_the_target_has_some(
    butler: Butler, tmp_path: Path, repositories: Repositories
) -> None:
    _, ccds = put_ccds(butler)
    target = repositories.new(tmp_path / "new")
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


def test_other_datasets_in_the_places_of_these(butler: Butler, tmp_path: Path, repositories: Repositories) -> None:
    _, ccds = put_ccds(butler, 2)
    catalogs = put_catalogs(butler, ccds)
    target = repositories.with_camera(tmp_path / "new")
    put_ccds(target, 1)
    before = files_of(tmp_path / "new")
    for refs in (ccds, catalogs):
        with pytest.raises(errors.ConflictError, match=r"the target has .* in place of .* Nothing was written"):
            subset(butler, target, refs)
    assert files_of(tmp_path / "new") == before


def test_lost_links_are_an_error_before_anything_is_written(
    butler: Butler, tmp_path: Path, repositories: Repositories
) -> None:
    _, ccds = put_ccds(butler)
    catalogs = put_catalogs(butler, ccds)
    butler.pruneDatasets([ccds[1]], disassociate=True, unstore=True, purge=True)
    target = repositories.new(tmp_path / "new")
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
def test_disassembled_composites(tmp_path: Path, where: str, repositories: Repositories) -> None:
    source = repositories.with_camera(tmp_path / "old", DISASSEMBLED if where == "source" else None)
    visit_ref, ccds = put_ccds(source)
    catalogs = put_catalogs(source, ccds)
    expected = content(source, [*catalogs, ccds[0]])
    target = repositories.new(tmp_path / "new", DISASSEMBLED if where == "target" else None)
    done = subset(source, target, [*catalogs, ccds[0]])
    assert (len(done.refs), done.linked, len(done.parts)) == (3, (visit_ref,), 1)
    other = repositories.new(tmp_path / "other", DISASSEMBLED if where == "target" else None)
    parts = subset(source, other, ccds[1:], components=["psf", "visit_info"])
    del source
    shutil.rmtree(tmp_path / "old")
    assert content(target, [*catalogs, ccds[0]]) == expected
    assert set(states(target).values()) == {"ok"}
    assert set(other.get(parts.refs[0])) == {"psf", "visit_info"}


@pytest.mark.parametrize("where", ["source", "target", "nowhere"])
def test_exposures_that_link_to_what_comes_in_part(tmp_path: Path, where: str, repositories: Repositories) -> None:
    """They are put anew, with their pixels."""
    source = repositories.with_camera(tmp_path / "old", DISASSEMBLED if where == "source" else None)
    _, (first, _) = put_ccds(source)
    given = exposure((30, 40), **{name: link(source, first, name) for name in ("photo_calib", "visit_info")})
    source.collections.register("u/x")
    user = source.put(given, "calexp", ccd_id(5), run="u/x")
    expected = content(source, [user])
    target = repositories.new(tmp_path / "new", DISASSEMBLED if where == "target" else None)
    done = subset(source, target, [user])
    assert [ref.dataId["detector"] for ref in done.parts] == [0]
    del source
    shutil.rmtree(tmp_path / "old")
    assert content(target, [user]) == expected
    assert all(uri.ospath.startswith(str(tmp_path / "new")) for uri in target.getURIs(user).iter_all())
    assert set(states(target).values()) == {"ok"}


def test_datasets_that_share_a_file(butler: Butler, root: Path, tmp_path: Path, repositories: Repositories) -> None:
    """Each that is needed gets a file of its own; others, and their pixels, don't come along."""
    register_dataset_type(butler, "calexp", "exposure")
    ccds = {f"ccd{d}": exposure((300, 400)).replace(data_id=ccd_id(d)) for d in range(3)}
    ch5.write_file(tmp_path / "all.h5", ccds)
    refs = [
        DatasetRef(butler.get_dataset_type("calexp"), butler.registry.expandDataId(ccd_id(d)), run=RUN)
        for d in range(3)
    ]
    butler.ingest(FileDataset(str(tmp_path / "all.h5"), refs, formatter=CompositeFormatter), transfer="move")
    register_dataset_type(butler, "src", "source_catalog")
    given = ch5.Composite("source_catalog", table=Table({"id": [1, 2]}), wcs=link(butler, refs[1], "wcs"))
    catalog = butler.put(given, "src", ccd_id(1))
    expected = content(butler, [catalog, refs[2]])
    target = repositories.new(tmp_path / "new")
    done = subset(butler, target, [catalog, refs[2]])
    assert (set(done.refs), done.linked) == ({catalog, refs[2]}, ())
    assert names(target) == [("calexp", 2), ("calexp_parts", 1), ("src", 1)]
    shutil.rmtree(root)
    assert content(target, [catalog, refs[2]]) == expected
    with ch5.open(target.getURI(refs[2]).ospath) as stored:
        assert stored.id == str(refs[2].id)


def test_links_to_datasets_that_are_no_composites(
    butler: Butler, root: Path, tmp_path: Path, repositories: Repositories
) -> None:
    dataset_type = DatasetType("best_wcs", tuple(ccd_id()), "CompositeH5WcsV1", universe=butler.dimensions)
    butler.registry.registerDatasetType(dataset_type)
    alone = butler.put(exposure((30, 40))["wcs"], "best_wcs", ccd_id())
    register_dataset_type(butler, "src", "source_catalog")
    given = ch5.Composite("source_catalog", table=Table({"id": [1, 2]}), wcs=link(butler, alone, "value"))
    catalog = butler.put(given, "src", ccd_id())
    expected = content(butler, [catalog])
    target = repositories.new(tmp_path / "new")
    assert subset(butler, target, [catalog]) == Subset((catalog,), (alone,))
    shutil.rmtree(root)
    assert content(target, [catalog]) == expected


def test_files_that_the_source_has_from_elsewhere(
    butler: Butler, root: Path, tmp_path: Path, repositories: Repositories
) -> None:
    """They get to other places than they had: links follow."""
    visit_ref, ccds = put_ccds(butler)
    catalogs = put_catalogs(butler, ccds)
    expected = content(butler, [*catalogs, *ccds])
    (tmp_path / "far/away").mkdir(parents=True)
    for number, ref in enumerate([visit_ref, *ccds, *catalogs]):
        path = shutil.copy(butler.getURI(ref).ospath, tmp_path / f"far/away/{number}.h5")
        butler.pruneDatasets([ref], disassociate=False, unstore=True, purge=False)
        butler.ingest(FileDataset(path, [ref], formatter=CompositeFormatter), transfer="direct")
    target = repositories.new(tmp_path / "new")
    subset(butler, target, [*catalogs, *ccds])
    shutil.rmtree(root)
    shutil.rmtree(tmp_path / "far")
    assert content(target, [*catalogs, *ccds]) == expected
    assert set(states(target).values()) == {"ok"}


def test_a_target_that_does_not_know_parts(butler: Butler, tmp_path: Path, repositories: Repositories) -> None:
    """As one that was made by an earlier release."""
    _, ccds = put_ccds(butler)
    repositories.new(tmp_path / "new")
    config = tmp_path / "new/butler.yaml"
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if "CompositeH5PartsV1: comp" not in line))
    target = repositories.open(tmp_path / "new", writeable=True)
    catalogs = put_catalogs(butler, ccds)
    with pytest.raises(
        errors.ConfigurationError, match="no formatter .*CompositeH5PartsV1; see `butler compositeh5-install`"
    ):
        subset(butler, target, catalogs)
    assert names(target) == []
    assert set(subset(butler, target, ccds).refs) == set(ccds)


def test_a_target_with_two_datastores(butler: Butler, root: Path, tmp_path: Path, repositories: Repositories) -> None:
    _, ccds = put_ccds(butler)
    catalogs = put_catalogs(butler, ccds)
    expected = content(butler, catalogs)
    children = [
        {
            **ELSEWHERE,
            "root": f"<butlerRoot>/{name}",
            "records": {"table": f"records_{name}"},
            "formatters": Config(SEED)["datastore", "formatters"].toDict(),
            "templates": {"default": f"{name}/{{run}}/{{datasetType}}/{{instrument:?}}/{{visit:?}}/{{detector:?}}"},
        }
        for name in ("one", "two")
    ]
    chain = {"cls": "lsst.daf.butler.datastores.chainedDatastore.ChainedDatastore", "datastores": children}
    target = repositories.new(tmp_path / "new", chain)
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


def test_the_command(butler: Butler, root: Path, tmp_path: Path, repositories: Repositories) -> None:
    visit_ref, ccds = put_ccds(butler, 3)
    put_catalogs(butler, ccds)
    repositories.new(tmp_path / "new")

    def run(*arguments: object, code: int = 0) -> str:
        done = LogCliRunner().invoke(butler_cli, ["compositeh5-subset", *map(str, arguments)])
        assert done.exit_code == code, done.output
        return str(done.stdout if code == 0 else done.stderr)

    where = ("--where", "instrument='DemoCam' AND detector>0")
    output = run(root, tmp_path / "new", "--dataset-type", "src", "--collections", RUN, *where)
    assert output == "Datasets: 2; to which they link: 1 whole, 2 in part\n"
    repositories.new(tmp_path / "other")
    output = run(root, tmp_path / "other", "-d", "calexp", "--components", "photo_calib,wcs", *where)
    assert output == "Datasets: 2; to which they link: 0 whole, 0 in part\n"
    assert names(repositories.open(tmp_path / "other")) == [("calexp_parts", 1), ("calexp_parts", 2)]
    assert "Error: no dataset has one of" in run(root, tmp_path / "other", "-d", "src", "--components", "x", code=2)
    butler.pruneDatasets([visit_ref], disassociate=True, unstore=True, purge=True)
    repositories.new(tmp_path / "third")
    assert "Error: linked components are lost" in run(root, tmp_path / "third", "-d", "src", code=2)
    run(root, tmp_path / "third", "-d", "src", "--ignore-missing")
