"""Files behind URLs: few requests, links on the same host, errors that say what was not found where."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support import exposure, pixels, visit_info, write_visit

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.composite.session import current
from compositeh5.storage.remote import member_location
from compositeh5.storage.source import BLOCK

object_store = pytest.importorskip("object_store")

CCD = "s3://data/calexp/calexp_903334_0.h5"
VISIT = "s3://data/visit/visit_903334.h5"


@pytest.fixture(scope="module")
def store() -> Iterator[object_store.ObjectStore]:
    with pytest.MonkeyPatch.context() as monkeypatch, object_store.object_store(monkeypatch) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_cached() -> None:
    current().clear_cache()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with a visit and two exposures that link to it."""
    write_visit(tmp_path / "tree")
    current().clear_cache()
    return tmp_path / "tree"


@pytest.fixture(scope="module")
def uploaded(tmp_path_factory: pytest.TempPathFactory, store: object_store.ObjectStore) -> Path:
    """Such a folder that is on the object store as well; not to be changed."""
    root = tmp_path_factory.mktemp("uploaded")
    write_visit(root)
    store.upload(root)
    return root


# ---- Object store -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("uploaded")
def test_a_small_component_is_one_request(store: object_store.ObjectStore) -> None:
    with store.counted() as count, ch5.open(CCD) as c:
        assert c["wcs"].wcs.crval.tolist() == [150.1, 2.2]
        assert c["psf"].at(3, 4).shape == (5, 5)
        assert count("GET") == {"calexp_903334_0.h5": 1}
        assert count("HEAD") == {}


@pytest.mark.usefixtures("uploaded")
def test_a_link_is_followed_on_the_store_and_read_once(store: object_store.ObjectStore) -> None:
    with store.counted() as count:
        values = []
        for detector in range(2):
            with ch5.open(f"s3://data/calexp/calexp_903334_{detector}.h5") as c:
                values.append(c["visit_info"])
        assert values[0] == ch5.Record(visit_info())
        assert values[1] is values[0]
        assert count("GET") == {"calexp_903334_0.h5": 1, "calexp_903334_1.h5": 1, "visit_903334.h5": 1}
        assert count("HEAD") == {}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, store: object_store.ObjectStore) -> ch5.Composite:
    """Return what is stored as ``large.h5``: two planes of 2.5 MB each, and small ones."""
    folder = tmp_path_factory.mktemp("large")
    variance = ch5.Image(pixels((900, 800), 2), origin=(100, 200))
    composite = exposure((900, 800), variance=variance)
    composite.write(folder / "large.h5")
    assert (folder / "large.h5").stat().st_size > 4 * BLOCK
    store.upload(folder)
    return composite


BOX = ch5.Box(500, 564, 700, 764)


def test_parts_and_the_whole_are_two_requests_also_through_links(
    large: ch5.Composite, store: object_store.ObjectStore
) -> None:
    url = "s3://data/overlay.h5"
    with ch5.open("s3://data/large.h5") as base:
        links = {name: base.link(name) for name in base if name != "wcs"}
        image = base.replace({**links, "wcs": large["wcs"]}).file_image(url)
    store.client().put_object(Bucket="data", Key="overlay.h5", Body=image)
    current().clear_cache()
    for opened, expected in (("s3://data/large.h5", {"large.h5": 2}), (url, {"overlay.h5": 1, "large.h5": 2})):
        with store.counted() as count, ch5.open(opened) as c:
            part = c.cutout(BOX)
            assert count("GET") == expected
        with store.counted() as count, ch5.open(opened) as c:
            loaded = c.load()
            assert count("GET") == expected
            assert count("HEAD") == {}
        for name in ("image", "mask", "variance"):
            np.testing.assert_array_equal(part[name].array, large[name].cut(BOX).array)
            np.testing.assert_array_equal(loaded[name].array, large[name].array)


def test_what_is_missing_on_the_store_is_a_missing_file(uploaded: Path, store: object_store.ObjectStore) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.h5"):
        ch5.open("s3://data/nothing.h5")
    for name in ("calexp/calexp_903334_0.h5", "visit/visit_903334.h5"):
        store.client().upload_file(str(uploaded / name), "data", f"gone/{name}")
    store.client().delete_object(Bucket="data", Key="gone/visit/visit_903334.h5")
    with ch5.open("s3://data/gone/calexp/calexp_903334_0.h5") as c:
        with pytest.raises(errors.BrokenLinkError, match=r"relative path: s3://data/gone/visit/visit_903") as caught:
            c["visit_info"]
        # The place that was recorded is on the disk of whoever wrote the file.
        recorded = f"recorded location: {uploaded}/visit/visit_903334.h5: isn't on the host of s3://data/gone/calexp"
        assert recorded in str(caught.value)
        assert c["image"].shape == (300, 400)


def test_what_the_store_refuses_is_a_transfer_error(
    store: object_store.ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from lsst.resources.s3utils import _get_s3_client

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    _get_s3_client.cache_clear()
    try:
        with pytest.raises(errors.TransferError, match=r"s3://data/x\.h5: NoCredentialsError"):
            ch5.open("s3://data/x.h5")
    finally:
        _get_s3_client.cache_clear()


def test_what_is_not_of_the_format_says_so(store: object_store.ObjectStore) -> None:
    store.client().put_object(Bucket="data", Key="text.h5", Body=b"not HDF5 at all")
    with pytest.raises(errors.NotACompositeFileError, match="its first bytes are others"):
        ch5.open("s3://data/text.h5")
    store.client().put_object(Bucket="data", Key="long.h5", Body=b"x" * (BLOCK + 1))
    with pytest.raises(errors.NotACompositeFileError, match="not an HDF5 file"):
        ch5.open("s3://data/long.h5")


@pytest.mark.usefixtures("uploaded")
def test_an_open_file_is_shared(store: object_store.ObjectStore) -> None:
    with store.counted() as count, ch5.open(VISIT) as first, ch5.open(VISIT) as second:
        assert first["visit_info"] == second["visit_info"]
        assert count("GET") == {"visit_903334.h5": 1}


def test_other_schemes_go_through_fsspec(tree: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec (the extra `remote`)")
    files = fsspec.filesystem("memory")
    for path in tree.rglob("*.h5"):
        files.pipe(f"/repo/{path.relative_to(tree)}", path.read_bytes())
    with ch5.open("memory://repo/calexp/calexp_903334_0.h5") as c:
        assert c["visit_info"]["visit"] == 903334
        np.testing.assert_array_equal(c["image"].array, exposure()["image"].array)
    with pytest.raises(FileNotFoundError):
        ch5.open("memory://repo/nothing.h5")


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lsst.resources", "fsspec.core"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(errors.TransferError, match=r"pip install 'compositeh5\[remote\]'"):
        ch5.open("s3://data/x.h5")


# ---- What a link may reach ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("uploaded")
def test_a_local_file_leads_to_the_network_only_if_one_asks_for_that(
    tmp_path: Path, store: object_store.ObjectStore
) -> None:
    with ch5.open(VISIT) as visit:
        ch5.Composite(None, visit_info=visit.link("visit_info")).write(tmp_path / "local.h5")
    current().clear_cache()
    with store.counted() as count, ch5.open(tmp_path / "local.h5") as c:
        assert c.links["visit_info"].uri == VISIT
        with pytest.raises(errors.BrokenLinkError, match="isn't on the host of"):
            c["visit_info"]
        assert count("GET") == {}
    with ch5.open(tmp_path / "local.h5", anywhere=True) as c:
        assert c["visit_info"]["visit"] == 903334


def test_a_remote_file_does_not_lead_to_this_machine(uploaded: Path, store: object_store.ObjectStore) -> None:
    store.client().upload_file(str(uploaded / "calexp/calexp_903334_0.h5"), "data", "else/where/c.h5")
    with ch5.open("s3://data/else/where/c.h5") as c:
        assert c.links["visit_info"].uri == str(uploaded / "visit/visit_903334.h5")
        with pytest.raises(errors.BrokenLinkError, match="isn't on the host of s3://data"):
            c["visit_info"]


# ---- Zip files and indexes ----------------------------------------------------------------------------------


def write_index(folder: Path, files: dict[str, str], component: str | None = None) -> bytes:
    artifacts = {path: {"ids": [id_], "info": {"component": component}} for path, id_ in files.items()}
    content = json.dumps({"index_version": "V1", "artifact_map": artifacts}).encode()
    (folder / "_butler_zip_index.json").write_bytes(content)
    return content


def id_of(path: Path) -> str:
    with ch5.open(path) as c:
        return c.id


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_of_a_zip_file_is_read_in_place(tree: Path, tmp_path: Path, compression: int) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.write(tree / "calexp/calexp_903334_0.h5", "odd #1/c.h5")
    if compression == zipfile.ZIP_DEFLATED:
        with pytest.raises(errors.RefusedError, match="compressed"):
            ch5.open(member_location(str(path), "odd #1/c.h5"))
        return
    with ch5.open(member_location(str(path), "odd #1/c.h5")) as c:
        np.testing.assert_array_equal(c["image"].array, exposure()["image"].array)
    with pytest.raises(FileNotFoundError, match="has no member 'd.h5'"):
        ch5.open(member_location(str(path), "d.h5"))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(errors.CorruptFileError, match="zip"):
        ch5.open(member_location(str(path), "odd #1/c.h5"))


def test_a_zip_file_on_the_store(tree: Path, tmp_path: Path, store: object_store.ObjectStore) -> None:
    names = {"c.h5": tree / "calexp/calexp_903334_0.h5", "v.h5": tree / "visit/visit_903334.h5"}
    index = write_index(tmp_path, {name: id_of(path) for name, path in names.items()})
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("_butler_zip_index.json", index, zipfile.ZIP_DEFLATED)
        for name, path in names.items():
            archive.write(path, name)
    store.client().upload_file(str(tmp_path / "x.zip"), "data", "zips/x.zip")
    with ch5.open("s3://data/zips/x.zip#zip-path=c.h5") as c:
        assert c["visit_info"]["visit"] == 903334


def moved_apart(tree: Path, target: Path) -> tuple[Path, Path]:
    """Put a CCD and its visit where neither the relative nor the recorded path finds the visit."""
    target.mkdir(parents=True)
    ccd = (tree / "calexp/calexp_903334_0.h5").rename(target / "a.h5")
    return ccd, (tree / "visit/visit_903334.h5").rename(target / "b.h5")


@pytest.mark.parametrize("level", [0, 2])
def test_an_index_finds_what_lies_flat(tree: Path, tmp_path: Path, level: int) -> None:
    ccd, visit = moved_apart(tree, tmp_path / "flat")
    write_index(ccd.parent, {visit.name: id_of(visit)})
    if level:
        (ccd.parent / "x/y").mkdir(parents=True)
        ccd = ccd.rename(ccd.parent / "x/y/a.h5")
    with ch5.open(ccd) as c:
        assert c["visit_info"]["visit"] == 903334


def test_a_map_may_lead_to_another_folder(tree: Path, tmp_path: Path, store: object_store.ObjectStore) -> None:
    """Unlike the Butler's index; also from far above in an object store."""
    ccd, visit = moved_apart(tree, tmp_path / "flat")
    index = json.loads(write_index(tmp_path, {"../../flat/b.h5": id_of(visit)}))
    (tmp_path / "_butler_zip_index.json").unlink()
    (tmp_path / "root/a/b").mkdir(parents=True)
    ccd = ccd.rename(tmp_path / "root/a/b/a.h5")
    (tmp_path / "root/a/_compositeh5_map.json").write_text(json.dumps(index))
    with ch5.open(ccd) as c:
        assert c["visit_info"]["visit"] == 903334
    current().clear_cache()
    for name in ("root/a/_compositeh5_map.json", "root/a/b/a.h5", "flat/b.h5"):
        store.client().upload_file(str(tmp_path / name), "data", name)
    with ch5.open("s3://data/root/a/b/a.h5") as c:
        assert c["visit_info"]["visit"] == 903334


def test_an_index_on_the_store(tree: Path, tmp_path: Path, store: object_store.ObjectStore) -> None:
    ccd, visit = moved_apart(tree, tmp_path / "deep/flat with blanks")
    visit = visit.rename(visit.parent / "the visit #1.h5")
    write_index(ccd.parent, {visit.name: id_of(visit)})
    store.upload(tmp_path)
    with ch5.open("s3://data/deep/flat%20with%20blanks/a.h5") as c:
        assert c["visit_info"]["visit"] == 903334


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (b"{", "isn't valid JSON"),
        (b'{"index_version": "V2"}', "version 'V1' was expected, not 'V2'"),
        (b'{"index_version": "V1", "artifact_map": {"a": {"ids": 3}}}', "has no ids or no info"),
        (b'{"index_version": "V1", "artifact_map": {"../b.h5": {"ids": ["ID"], "info": {}}}}', "is not below it"),
        (b'{"index_version": "V1", "artifact_map": {"s3://x/b": {"ids": ["ID"], "info": {}}}}', "is not below it"),
        (b'{"index_version": "V1", "artifact_map": {"gone.h5": {"ids": ["ID"], "info": {}}}}', "No such file"),
    ],
)
def test_a_bad_index_is_told_among_the_places_tried(tree: Path, tmp_path: Path, index: bytes, message: str) -> None:
    ccd, visit = moved_apart(tree, tmp_path / "flat")
    content = index.replace(b"ID", id_of(visit).encode())
    (ccd.parent / "_butler_zip_index.json").write_bytes(content)
    with ch5.open(ccd) as c, pytest.raises(errors.BrokenLinkError, match=f"artifact index.*{message}"):
        c["visit_info"]


def test_an_index_is_only_read_up_to_a_size(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ccd, visit = moved_apart(tree, tmp_path / "flat")
    write_index(ccd.parent, {visit.name: id_of(visit)})
    monkeypatch.setattr("compositeh5.composite.places.INDEX_BYTES", 50)
    with ch5.open(ccd) as c, pytest.raises(errors.BrokenLinkError, match="larger than 50 bytes"):
        c["visit_info"]
