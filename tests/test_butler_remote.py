"""Repositories on an object store, and Butlers that hand out presigned URLs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import pixels, visit_info

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.composite.session import current

pytest.importorskip("lsst.daf.butler", reason="needs lsst-daf-butler (the extra `butler`)")
object_store = pytest.importorskip("object_store")

from butler_support import CCD, ccd, digests, new_repo, nothing_cached, visit  # noqa: E402, F401
from lsst.daf.butler import Butler, DatasetRef, FileDataset  # noqa: E402

from compositeh5.butler import put_visit, use_butler  # noqa: E402
from compositeh5.butler.formatter import CompositeFormatter  # noqa: E402

INFO = ch5.Record(visit_info())
BOX = ch5.Box(1100, 1164, 900, 964)


@pytest.fixture(scope="module")
def store() -> Iterator[object_store.ObjectStore]:
    with pytest.MonkeyPatch.context() as monkeypatch, object_store.object_store(monkeypatch) as running:
        yield running


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def butler(store: object_store.ObjectStore, root: Path) -> Butler:
    return new_repo(root, {"root": "s3://data/repo"})


@pytest.fixture(scope="module")
def refs(butler: Butler) -> tuple[DatasetRef, DatasetRef]:
    """Return a visit and a CCD of 25 MB that links to it."""
    shape = (2500, 2000)
    variance = ch5.Image(pixels(shape, 2), origin=(100, 200))
    visit_ref, (ccd_ref,) = put_visit(butler, visit(), [ccd(4, shape, variance=variance)])
    assert butler.getURI(ccd_ref).scheme == "s3"
    return visit_ref, ccd_ref


@pytest.mark.parametrize(
    ("component", "parameters"),
    [
        ("wcs", None),
        ("psf", None),
        ("image", None),
        ("variance", {"bbox": BOX}),
        ("mask", {"bbox": BOX}),
        ("bbox", None),
        ("visit_info", None),
        ("visit_info", {"fields": ["airmass"]}),
        ("components", {"components": ["image", "mask", "psf", "wcs"]}),
        ("components", {"components": ["image", "wcs", "visit_info"], "bbox": BOX}),
        # All planes, which here are near each other.
        (None, {"bbox": BOX}),
    ],
)
def test_a_component_or_a_part_costs_two_requests_a_file(
    root: Path,
    refs: tuple[DatasetRef, DatasetRef],
    store: object_store.ObjectStore,
    component: str | None,
    parameters: dict[str, Any] | None,
) -> None:
    # What this one has put is still in its cache.
    fresh = Butler.from_config(str(root))
    with store.counted() as count:
        fresh.get(refs[1] if component is None else refs[1].makeComponentRef(component), parameters=parameters)
        requests = count("GET")
        is_linked = component in (None, "visit_info") or "visit_info" in (parameters or {}).get("components", ())
        assert len(requests) == 1 + is_linked
        assert all(number <= 2 for number in requests.values())
        assert count("HEAD") == {}


def test_full_gets_go_through_the_cache_but_links_do_not(
    butler: Butler, refs: tuple[DatasetRef, DatasetRef], store: object_store.ObjectStore
) -> None:
    assert butler.get(refs[1])["visit_info"] == INFO
    current().clear_cache()
    visit_file, ccd_file = (Path(butler.getURI(ref).path).name for ref in refs)
    with store.counted() as count:
        got = butler.get(refs[1])
        assert got["visit_info"] == INFO
        assert got.location == butler.getURI(refs[1]).geturl()
        assert ccd_file not in count("GET")
        assert count("GET") == {visit_file: 1}
        # Read once per process.
        butler.get(refs[1].makeComponentRef("visit_info"))
        assert count("GET") == {visit_file: 1}


@pytest.fixture
def presigned(
    butler: Butler, refs: tuple[DatasetRef, DatasetRef], store: object_store.ObjectStore, tmp_path: Path
) -> Butler:
    """Return a Butler that has only presigned URLs of the files, as a remote Butler hands them out."""
    other = new_repo(tmp_path / "presigned")
    for ref in refs:
        key = butler.getURI(ref).relativeToPathRoot
        other.ingest(FileDataset(store.presigned(key), [ref]), transfer="direct", record_validation_info=False)
    return other


def test_presigned_urls_resolve_by_dataset_id(
    presigned: Butler, refs: tuple[DatasetRef, DatasetRef], store: object_store.ObjectStore
) -> None:
    component = refs[1].makeComponentRef("visit_info")
    assert "Signature=" in presigned.getURI(refs[1]).query
    assert presigned.get(refs[1].makeComponentRef("wcs")).wcs.crval.tolist() == [150.1, 2.2]
    with pytest.raises(errors.BrokenLinkError, match="may not be read") as caught:
        presigned.get(component)
    # What gives access isn't shown.
    assert "Signature=" not in str(caught.value)
    assert presigned.get(component, parameters={"resolver": presigned}) == INFO
    current().clear_cache()
    with use_butler(presigned):
        assert presigned.get(component) == INFO
        current().clear_cache()
        assert presigned.get(refs[1], parameters={"bbox": BOX})["visit_info"] == INFO


def test_datasets_that_are_not_cached_are_uploaded_from_memory(
    store: object_store.ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = {"cacheable": {"calexp": False}}
    butler = new_repo(tmp_path / "repo", {"root": "s3://data/uncached", "cached": cached})
    written: list[object] = []
    monkeypatch.setattr(CompositeFormatter, "write_local_file", lambda *args: written.append(args))
    given = ccd()
    ref = butler.put(given, "calexp", CCD)
    assert not written
    stored = butler.get(ref)
    assert stored.id == str(ref.id)
    assert digests(stored) == digests(given)
