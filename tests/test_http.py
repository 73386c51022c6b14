"""Files behind an HTTP server: few requests, made at once, by GET alone."""

from __future__ import annotations

import multiprocessing
import pickle
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from range_server import RangeServer, range_server
from support import exposure, pixels, write_visit

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.composite.session import current
from compositeh5.storage.remote import member_location
from compositeh5.storage.source import BLOCK

pytest.importorskip("lsst.resources.http", reason="needs lsst-resources[https] (the extra `remote`)")

CORNER = ch5.Box(400, 464, 900, 964)
"""Of the large image: its part, and that of the mask, are 10 MB apart."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a visit, and with exposures of which the planes have 13 MB and 2 MB."""
    root = tmp_path_factory.mktemp("files")
    write_visit(root)
    for name, shape in (("large", (2500, 2000)), ("small", (800, 800))):
        variance = ch5.Image(pixels(shape, 2), origin=(100, 200), unit="nJy2")
        exposure(shape, variance=variance).write(root / f"{name}.h5")
    return root


@pytest.fixture(scope="module")
def running(files: Path) -> Iterator[RangeServer]:
    with pytest.MonkeyPatch.context() as monkeypatch, range_server(files) as server:
        for name in ("http_proxy", "HTTP_PROXY", "LSST_HTTP_AUTH_BEARER_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield server


@pytest.fixture
def server(running: RangeServer) -> RangeServer:
    current().clear_cache()
    running.reset()
    running.knows_ranges = True
    return running


def gets(server: RangeServer) -> int:
    """Return the number of requests, all of which must be GET."""
    assert {method for method, _ in server.requests} == {"GET"}
    return len(server.requests)


def test_a_small_component_is_one_request(server: RangeServer) -> None:
    with ch5.open(f"{server.url}/large.h5") as c:
        assert c["wcs"].wcs.crval.tolist() == [150.1, 2.2]
        assert c["psf"].at(3, 4).shape == (5, 5)
    assert gets(server) == 1
    assert server.sent == BLOCK


def test_a_component_of_some_hundred_kilobytes_is_with_the_metadata(server: RangeServer, files: Path) -> None:
    kernels = np.random.default_rng(1).random((9, 101, 101))
    y, x = np.meshgrid([0.0, 1000.0, 2000.0], [0.0, 1000.0, 2000.0], indexing="ij")
    psf = ch5.Psf(kernels, np.stack([y.ravel(), x.ravel()], 1))
    exposure((2000, 1000), psf=psf).write(files / "psf.h5")
    with ch5.open(f"{server.url}/psf.h5") as c:
        np.testing.assert_array_equal(c["psf"].kernels, kernels)
    assert gets(server) == 1


@pytest.mark.parametrize(
    "read",
    [
        lambda c: c["image"].array,
        lambda c: c.read("variance", box=CORNER).array,
        lambda c: c.lazy("image")[1000:1010, ::3],
        lambda c: c.cutout(CORNER, components=["image", "wcs"])["image"].array,
        lambda c: c.load()["variance"].array,
    ],
    ids=["image", "box", "slice", "cutout", "load"],
)
def test_any_component_or_part_is_two_requests(
    server: RangeServer, files: Path, read: Callable[[ch5.Composite], Any]
) -> None:
    with ch5.open(f"{server.url}/large.h5") as c, ch5.open(files / "large.h5") as local:
        np.testing.assert_array_equal(read(c), read(local))
    assert gets(server) == 2


def test_some_columns_of_a_large_table_are_two_requests(server: RangeServer, files: Path) -> None:
    rng = np.random.default_rng(1)
    table = Table({f"c{i}": rng.random(160_000) for i in range(9)})
    ch5.Composite(None, table=table).write(files / "table.h5")
    with ch5.open(f"{server.url}/table.h5") as c:
        part = c.read("table", columns=["c3", "c5", "c7"], rows=slice(10, 150_000))
    assert gets(server) == 2
    assert server.sent < (files / "table.h5").stat().st_size
    for name in ("c3", "c5", "c7"):
        np.testing.assert_array_equal(part[name], table[name][10:150_000])


def test_a_cutout_of_planes_that_are_near_is_two_requests(server: RangeServer, files: Path) -> None:
    box = ch5.Box(700, 764, 700, 764)
    with ch5.open(f"{server.url}/small.h5") as c, ch5.open(files / "small.h5") as local:
        part, expected = c.cutout(box), local.cutout(box)
    for name in ("image", "mask", "variance"):
        np.testing.assert_array_equal(part[name].array, expected[name].array)
    assert gets(server) == 2


def test_a_cutout_of_planes_that_are_far_apart_is_made_of_requests_at_once(server: RangeServer, files: Path) -> None:
    with ch5.open(f"{server.url}/large.h5") as c, ch5.open(files / "large.h5") as local:
        # After that of opening, two more.
        server.hold_until = 3
        part, expected = c.cutout(CORNER), local.cutout(CORNER)
    for name in ("image", "mask", "variance"):
        np.testing.assert_array_equal(part[name].array, expected[name].array)
    # The mask is small, so that the variance is near it.
    assert gets(server) == 3
    assert server.sent < 8 * BLOCK


def test_links_are_followed(server: RangeServer) -> None:
    with ch5.open(f"{server.url}/calexp/calexp_903334_0.h5") as c:
        assert c["visit_info"]["visit"] == 903334
    assert gets(server) == 2


def test_a_zip_file(server: RangeServer, files: Path) -> None:
    with zipfile.ZipFile(files / "x.zip", "w") as archive:
        archive.write(files / "large.h5", "c.h5")
    with ch5.open(member_location(f"{server.url}/x.zip", "c.h5")) as c:
        np.testing.assert_array_equal(c["image"].array, pixels((2500, 2000)))
    # Its beginning, its end with the directory, what is missing of the first block of the member, and the image.
    assert gets(server) == 4


def test_a_server_that_knows_no_ranges_sends_the_file_once(server: RangeServer, files: Path) -> None:
    server.knows_ranges = False
    with ch5.open(f"{server.url}/large.h5") as c:
        np.testing.assert_array_equal(c["image"].array, pixels((2500, 2000)))
    assert gets(server) == 1
    assert server.sent == (files / "large.h5").stat().st_size


@pytest.mark.parametrize("path", ["nothing.h5", "secret.h5"])
def test_what_is_not_there_or_not_for_us_is_a_missing_file(server: RangeServer, path: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"{server.url}/{path}: there is no such file, or it may not be read"):
        ch5.open(f"{server.url}/{path}?Signature=abc")
    assert gets(server) == 1


def test_an_empty_file_and_one_that_becomes_shorter_say_so(server: RangeServer, files: Path) -> None:
    (files / "empty.h5").touch()
    with pytest.raises(errors.NotACompositeFileError, match=r"empty\.h5: not an HDF5 file \(it is empty\)"):
        ch5.open(f"{server.url}/empty.h5")
    content = (files / "large.h5").read_bytes()
    (files / "cut.h5").write_bytes(content[: 15 * BLOCK])
    with ch5.open(f"{server.url}/cut.h5") as c, pytest.raises(errors.CorruptFileError, match=r"cut\.h5: ends at byte"):
        c["variance"]


def test_the_error_of_a_connection_keeps_the_signature_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from urllib3.util.retry import Retry

    # It would wait for the server to come back.
    monkeypatch.setattr(Retry, "sleep", lambda *args, **keywords: None)
    with range_server(tmp_path) as gone:
        url = gone.url
    with pytest.raises(errors.TransferError, match=rf"{url}/x\.h5: ConnectionError") as caught:
        ch5.open(f"{url}/x.h5?Signature=abc")
    assert "abc" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_pickled_composite_opens_its_url(server: RangeServer) -> None:
    with ch5.open(f"{server.url}/small.h5?signature=1") as composite:
        wanted = composite["image"]
        data = pickle.dumps(composite)
        # The forked process must not use the connection of this one.
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
            for found in pool.map(read_image, [data] * 2):
                assert np.array_equal(found, wanted.array)
    with pickle.loads(data) as copy:
        assert np.array_equal(copy["image"].array, wanted.array)
    # Workers need what gives access.
    assert b"?signature=1" in data


def read_image(data: bytes) -> Any:
    with pickle.loads(data) as composite:
        return composite["image"].array
