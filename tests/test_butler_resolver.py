"""Links after everything that a Butler does to files: each way to find the target on the operation that needs it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support import visit_info

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.composite.session import current

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")

from butler_support import CCD, DISASSEMBLED, RUN, VISIT, ccd, new_repo, nothing_cached, purge, visit  # noqa: F401
from lsst.daf.butler import Butler, DatasetRef, FileDataset

from compositeh5.butler import link, put_visit, use_butler

INFO = ch5.Record(visit_info())


@pytest.fixture
def butler(tmp_path: Path) -> Butler:
    return repository(tmp_path / "repo")


def repository(root: Path, template: str | None = None) -> Butler:
    butler = new_repo(root, None if template is None else {"templates": {"default": template}})
    # Without it, the Butler can't read the index of a zip file.
    butler.registry.insertDimensionData("visit_detector_region", CCD)
    return butler


@pytest.fixture
def refs(butler: Butler) -> tuple[DatasetRef, DatasetRef]:
    """Return a visit and a CCD that links to it."""
    visit_ref, (ccd_ref,) = put_visit(butler, visit(), [ccd()])
    current().clear_cache()
    return visit_ref, ccd_ref


def path_of(butler: Butler, ref: DatasetRef) -> Path:
    return Path(butler.getURI(ref).ospath)


def info(butler: Butler, ref: DatasetRef, **parameters: Any) -> Any:
    current().clear_cache()
    return butler.get(ref.makeComponentRef("visit_info"), parameters=parameters or None)


def delete_source(butler: Butler, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "repo")


Refs = tuple[DatasetRef, DatasetRef]

# ---- Transfer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["copy", "hardlink", "relsymlink", "unsafe_direct"])
def test_both_files_transferred(butler: Butler, refs: Refs, tmp_path: Path, mode: str) -> None:
    other = repository(tmp_path / "other")
    other.transfer_from(butler, refs, transfer=mode)
    assert info(other, refs[1]) == INFO
    if mode in ("copy", "hardlink"):
        delete_source(butler, tmp_path)
        assert info(other, refs[1]) == INFO


def test_both_files_moved(butler: Butler, refs: Refs, tmp_path: Path) -> None:
    before = [path_of(butler, ref) for ref in refs]
    for ref in refs:
        target = tmp_path / "new" / path_of(butler, ref).relative_to(tmp_path / "repo")
        target.parent.mkdir(parents=True, exist_ok=True)
        path_of(butler, ref).rename(target)
    other = repository(tmp_path / "other")
    moved = [tmp_path / "new" / path.relative_to(tmp_path / "repo") for path in before]
    other.ingest(*(FileDataset(str(p), [r]) for p, r in zip(moved, refs, strict=True)), transfer="move")
    assert not any(path.exists() for path in before)
    assert info(other, refs[1]) == INFO


@pytest.mark.parametrize("mode", ["copy", "symlink", "unsafe_direct"])
def test_only_the_ccd_transferred(butler: Butler, refs: Refs, tmp_path: Path, mode: str) -> None:
    other = repository(tmp_path / "other")
    other.transfer_from(butler, refs[1:], transfer=mode)
    # The recorded location, or the relative path from where the file is.
    assert info(other, refs[1]) == INFO
    moved = path_of(butler, refs[0]).rename(tmp_path / "visit.h5")
    with pytest.raises(errors.BrokenLinkError, match="No such file") as caught:
        info(other, refs[1])
    assert str(refs[0].id) in str(caught.value)
    assert "use_butler" in str(caught.value)
    third = repository(tmp_path / "third")
    third.ingest(FileDataset(str(moved), [refs[0]]), transfer="copy")
    assert info(other, refs[1], resolver=third) == INFO
    with use_butler(other), pytest.raises(errors.BrokenLinkError, match="resolver: .* has no dataset"):
        info(other, refs[1])


# ---- Export and import --------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", ["{run}/{datasetType}/{id}", "{id}_{datasetType}_{run}", None])
def test_export_and_import(butler: Butler, refs: Refs, tmp_path: Path, template: str | None) -> None:
    exported = tmp_path / "exported"
    exported.mkdir()
    with butler.export(directory=str(exported), format="yaml", transfer="copy") as export:
        export.saveDatasets(refs)
    other = repository(tmp_path / "other", template)
    other.import_(directory=str(exported), filename=str(exported / "export.yaml"), transfer="copy")
    assert info(other, refs[1]) == INFO
    delete_source(butler, tmp_path)
    if template == "{id}_{datasetType}_{run}":
        # Elsewhere relative to each other: only a Butler can tell.
        with pytest.raises(errors.BrokenLinkError):
            info(other, refs[1])
    with use_butler(other):
        assert info(other, refs[1]) == INFO
        current().clear_cache()
        whole = other.get(refs[1])
    assert whole["visit_info"] == INFO


# ---- Retrieved files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("preserve_path", [True, False])
def test_retrieved_files(butler: Butler, refs: Refs, tmp_path: Path, preserve_path: bool) -> None:
    found = butler.retrieveArtifacts(refs, f"{tmp_path}/out/", transfer="copy", preserve_path=preserve_path)
    delete_source(butler, tmp_path)
    (path,) = (uri.ospath for uri in found if "calexp" in uri.basename())
    current().clear_cache()
    with ch5.open(path) as c:
        assert c["visit_info"] == INFO


def test_flat_copies_are_ingested_again(butler: Butler, refs: Refs, tmp_path: Path) -> None:
    """Each with the index beside it; elsewhere the Butler that took them in knows them."""
    found = butler.retrieveArtifacts(refs, f"{tmp_path}/out/", transfer="copy", preserve_path=False)
    delete_source(butler, tmp_path)
    paths = {("calexp" in uri.basename()): uri.ospath for uri in found}
    datasets = [FileDataset(paths[False], [refs[0]]), FileDataset(paths[True], [refs[1]])]
    other = repository(tmp_path / "other")
    other.ingest(*datasets, transfer="direct")
    assert info(other, refs[1]) == INFO
    third = repository(tmp_path / "third", "{id}_{datasetType}_{run}")
    third.ingest(*datasets, transfer="copy")
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(errors.BrokenLinkError):
        info(third, refs[1])
    assert info(third, refs[1], resolver=third) == INFO


def test_a_zip_file_after_its_source_is_gone(butler: Butler, refs: Refs, tmp_path: Path) -> None:
    (tmp_path / "zips").mkdir()
    path = butler.retrieve_artifacts_zip(refs, str(tmp_path / "zips"))
    other = repository(tmp_path / "other")
    other.ingest_zip(path, transfer="copy")
    delete_source(butler, tmp_path)
    assert "zip-path=" in other.getURI(refs[1]).fragment
    assert info(other, refs[1]) == INFO
    current().clear_cache()
    assert other.get(refs[1])["visit_info"] == INFO
    # What is put next to it can link into the zip file.
    given = ccd(visit_info=link(other, refs[0], "visit_info")).replace(data_id={**CCD, "detector": 5})
    assert info(other, other.put(given, "calexp", given.data_id)) == INFO


# ---- In one repository --------------------------------------------------------------------------------------


def test_a_renamed_root(butler: Butler, refs: Refs, tmp_path: Path) -> None:
    (tmp_path / "repo").rename(tmp_path / "renamed")
    assert info(Butler.from_config(str(tmp_path / "renamed")), refs[1]) == INFO


def test_a_visit_in_another_run(butler: Butler, tmp_path: Path) -> None:
    butler.collections.register("other/run")
    visit_ref = butler.put(visit(), "visit_metadata", VISIT, run="other/run")
    ref = butler.put(ccd(visit_info=link(butler, visit_ref, "visit_info")), "calexp", CCD)
    assert (visit_ref.run, ref.run) == ("other/run", RUN)
    assert info(butler, ref) == INFO
    (tmp_path / "repo").rename(tmp_path / "renamed")
    assert info(Butler.from_config(str(tmp_path / "renamed")), ref) == INFO


def test_purged_and_put_again_is_another_dataset(butler: Butler, refs: Refs) -> None:
    purge(butler, refs[0])
    again = butler.put(visit(), "visit_metadata", VISIT)
    assert again.id != refs[0].id
    with use_butler(butler), pytest.raises(errors.WrongIdError) as caught:
        info(butler, refs[1])
    message = str(caught.value)
    assert str(refs[0].id) in message
    assert str(again.id) in message
    assert f"has no dataset {refs[0].id}" in message


# ---- Asking a Butler ----------------------------------------------------------------------------------------


def test_a_butler_is_asked_for_each_kind_of_get(butler: Butler, refs: Refs, tmp_path: Path) -> None:
    other = repository(tmp_path / "other", "{id}_{datasetType}_{run}")
    other.transfer_from(butler, refs[1:], transfer="copy")
    other.ingest(FileDataset(str(path_of(butler, refs[0])), [refs[0]]), transfer="move")
    delete_source(butler, tmp_path)
    box = ch5.Box(105, 115, 210, 230)
    with pytest.raises(errors.BrokenLinkError):
        info(other, refs[1])
    assert info(other, refs[1], resolver=other, fields=["airmass"]) == {"airmass": 1.0625}
    current().clear_cache()
    part = other.get(refs[1], parameters={"resolver": other, "bbox": box})
    assert (part["visit_info"], part["image"].box) == (INFO, box)
    current().clear_cache()
    handle = other.getDeferred(refs[1])
    assert handle.get(component="visit_info", parameters={"resolver": other}) == INFO
    current().clear_cache()
    assert other.get(refs[1], parameters={"resolver": other})["visit_info"] == INFO


def test_use_butler_ends_with_its_block(butler: Butler) -> None:
    with use_butler(butler):
        with use_butler(butler):
            pass
        assert current().resolver is not None
    assert current().resolver is None


def test_a_disassembled_target(tmp_path: Path) -> None:
    """The file is that of the component; the index and the Butler tell which."""
    butler = new_repo(tmp_path / "repo", DISASSEMBLED)
    base = butler.put(ccd(visit_info=visit_info()), "calexp", CCD)
    ch5.Composite(None, wcs=link(butler, base, "wcs")).write(tmp_path / "out/alone.h5")
    found = butler.retrieveArtifacts([base], f"{tmp_path}/out/", transfer="copy", preserve_path=False)
    assert len(found) > 3
    shutil.rmtree(tmp_path / "repo")
    current().clear_cache()
    with ch5.open(tmp_path / "out/alone.h5") as c:
        assert c["wcs"].wcs.crval.tolist() == [150.1, 2.2]
