"""Parts of repositories: datasets, and what they link to, in another repository and without pixels that nobody needs."""

# ruff: noqa: F811 (fixtures of another module)

from __future__ import annotations

import os
import shutil
import sys
import uuid
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.table import Table
from support import counted_reads, exposure, tool, visit_info

import compositeh5 as ch5
from compositeh5 import errors, targets
from compositeh5.operations.verify import verify

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")

from butler_support import RUN, files_of
from lsst.daf.butler import Butler, Config, DatasetRef, DatasetType, FileDataset
from lsst.daf.butler.cli.butler import cli as butler_cli
from lsst.daf.butler.cli.utils import LogCliRunner
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
    native_targets,
    put_ccds,
    put_overlay_and_catalog,
    repositories,
    root,
    states,
)

from compositeh5.butler import Subset, link, put_links, put_overlay, register_dataset_type, subset, transfer_closure
from compositeh5.butler.formatter import CompositeFormatter

pytestmark = ON_SQLITE


def put_catalogs(butler: Butler, ccds: list[DatasetRef]) -> list[DatasetRef]:
    """Store a catalogue for each exposure, which links to its calibration and to the metadata of the visit."""
    register_dataset_type(butler, "src", "source_catalog")
    return [
        butler.put(
            ch5.Composite(
                "source_catalog",
                table=Table({"id": np.arange(5), "flux": np.arange(5.0) + number}),
                **{name: link(butler, ccd, name) for name in ("photo_calib", "wcs", "visit_info")},
            ),
            "src",
            ccd.dataId,
        )
        for number, ccd in enumerate(ccds)
    ]


def names(butler: Butler) -> list[tuple[str, int | None]]:
    """Return the dataset types and detectors of all datasets."""
    refs = butler.query_all_datasets("*", find_first=False)
    return sorted((ref.datasetType.name, ref.dataId.get("detector", -1)) for ref in refs)


def test_catalogs_come_with_their_calibrations_and_without_pixels(
    butler: Butler, root: Path, tmp_path: Path, repositories: Repositories
) -> None:
    visit_ref, ccds = put_ccds(butler, 3, (1000, 1500))
    catalogs = put_catalogs(butler, ccds)
    expected = content(butler, catalogs)
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
            verify(stored)
            assert (stored.id, stored.links["wcs"].dataset_type) == (str(ref.id), "calexp_parts")


def test_what_needs_no_pixels_less_comes_as_it_is(
    butler: Butler, root: Path, tmp_path: Path, repositories: Repositories
) -> None:
    """Exposures come with all their pixels, and with the visit: the same files, in the same places."""
    visit_ref, ccds = put_ccds(butler)
    expected = content(butler, ccds)
    target = repositories.new(tmp_path / "new", OTHER_TEMPLATES)
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
    target = repositories.new(tmp_path / "new", OTHER_TEMPLATES)
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


def test_what_is_selected_itself_comes_whole(
    butler: Butler, root: Path, tmp_path: Path, repositories: Repositories
) -> None:
    visit_ref, ccds = put_ccds(butler)
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
    """Stopped after each file in turn: what is there has all that it links to."""
    from compositeh5.butler import subset as _  # noqa: F401

    module = sys.modules["compositeh5.butler.subset"]
    _, ccds = put_ccds(butler, 2)
    catalogs = put_catalogs(butler, ccds)
    target = repositories.new(tmp_path / "new")
    monkeypatch.setattr(module, "BATCH", 1)
    write = module.write_durably

    def write_one(path: str, image: bytes) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        write(path, image)

    monkeypatch.setattr(module, "write_durably", write_one)
    for stored in range(4):
        left = 1
        with pytest.raises(KeyboardInterrupt):
            subset(butler, target, catalogs)
        assert len(names(target)) == stored + 2
        assert set(states(target).values()) <= {"ok"}
    left = 4
    done = subset(butler, target, catalogs)
    assert left == 4
    assert len(names(target)) == 5
    assert set(done.refs) == set(catalogs)
    assert not list((tmp_path / "new").glob(".compositeh5*"))


def test_other_components_of_the_same_dataset(
    butler: Butler, root: Path, tmp_path: Path, repositories: Repositories
) -> None:
    """Fewer are found in what is there; others would need a second dataset in its place."""
    _, ccds = put_ccds(butler)
    catalogs = put_catalogs(butler, ccds)
    calib = put_links(butler, "calib", {"photo_calib": ccds[0]}, ccd_id(0), definition=None) if False else None
    assert calib is None


def test_lost_links_are_an_error_before_anything_is_written(
    butler: Butler, tmp_path: Path, repositories: Repositories
) -> None:
    visit_ref, ccds = put_ccds(butler)
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
    parts = subset(source, target, ccds[1:], components=["psf", "visit_info"])
    del source
    shutil.rmtree(tmp_path / "old")
    assert content(target, [*catalogs, ccds[0]]) == expected
    assert set(states(target).values()) == {"ok"}
    assert set(target.get(parts.refs[0])) == {"psf", "visit_info"}
