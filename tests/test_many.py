"""One component of many files, many cutouts of one image, one cutout of many: in order, each thing read once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import counted_reads, exposure, pixels
from visits import DETECTORS, SIZE, VISIT, detector_path

import compositeh5 as ch5
from compositeh5.composite.session import current
from compositeh5.errors import BrokenLinkError, NoSuchComponentError, NotACompositeFileError, OutsideError
from compositeh5.storage import chunks
from compositeh5.storage.nodes import Array


@pytest.fixture(scope="module")
def paths(simulated: Path) -> list[Path]:
    return [detector_path(simulated, detector) for detector in DETECTORS]


@pytest.fixture(scope="module")
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exposure of 5 x 5 chunks in each plane, written by the recipe of the parameter; not to be changed."""
    path = tmp_path_factory.mktemp("large") / "x.h5"
    exposure((1100, 1200)).write(path, recipes={"default": getattr(request, "param", "lossless")})
    return path


BOTH = pytest.mark.parametrize("large", ["lossless", "raw"], indirect=True)


@pytest.fixture(params=[None, "threads", "processes"])
def executor(request: pytest.FixtureRequest) -> Executor | None:
    return request.param and request.getfixturevalue(request.param)


_opened: list[str] = []
_is_listening = False


@contextmanager
def counted_opens() -> Iterator[Callable[[Path], int]]:
    """Count how often this process opens files."""
    global _is_listening
    if not _is_listening:
        sys.addaudithook(lambda event, args: _opened.append(str(args[0])) if event == "open" else None)
        _is_listening = True
    _opened.clear()
    yield lambda path: _opened.count(str(path))


# ---- One component of many files ---------------------------------------------------------------------------


def test_values_come_in_the_order_of_the_files(paths: list[Path], executor: Executor | None) -> None:
    chosen = [*reversed(paths), paths[3], paths[3]]
    found = list(ch5.trees.read_many(chosen, "image", executor=executor, chunksize=2))
    for path, image in zip(chosen, found, strict=True):
        with ch5.open(path) as c:
            assert np.array_equal(image.array, c["image"].array)
            assert (image.unit, image.origin) == (c["image"].unit, c["image"].origin)
    found[0].array[0, 0] = 5  # as of any array that was read


def test_folders_patterns_and_parts(simulated: Path, paths: list[Path]) -> None:
    box = ch5.Box(10, 20, 30, 50)
    by_name = sorted(paths, key=str)
    for sources in (simulated / "calexp", f"{simulated}/calexp/*.h5", by_name):
        parts = list(ch5.trees.read_many(sources, "image", box=box))
        for path, part in zip(by_name, parts, strict=True):
            with ch5.open(path) as c:
                assert np.array_equal(part.array, c.read("image", box=box).array)
    with ch5.open(paths[0]) as c:
        assert [image.shape for image in ch5.trees.read_many(c, "image")] == [(SIZE, SIZE)]
        assert [wcs.pixel_shape for wcs in ch5.trees.read_many([c, paths[1]], "wcs")] == [(SIZE, SIZE)] * 2
    assert list(ch5.trees.read_many([], "image")) == []


def test_what_is_shared_is_decoded_once_and_its_file_opened_once(simulated: Path, paths: list[Path]) -> None:
    current().clear_cache()
    visit = simulated / "visit" / "visit.h5"
    with counted_opens() as opens, counted_reads() as read:
        records = list(ch5.trees.read_many(paths, "visit_info"))
        assert opens(visit) == 1
        alone = read()
        assert [opens(path) for path in paths] == [1] * len(paths)
    assert len({repr(record.to_dict()) for record in records}) == 1
    with counted_reads() as read:
        for _ in range(10):
            assert len(list(ch5.trees.read_many(paths[:1], "visit_info"))) == 1
        assert read() < 10 * alone / len(paths)  # the record isn't read again


def test_parts_of_what_is_shared_keep_its_file_open(simulated: Path, paths: list[Path], tmp_path: Path) -> None:
    with ch5.open(simulated / "visit" / "visit.h5") as visit:
        link = visit.link("camera")
    files = []
    for detector in range(5):
        ch5.Composite(None, camera=link, data_id={"detector": detector}).write(tmp_path / f"{detector}.h5")
        files.append(tmp_path / f"{detector}.h5")
    current().clear_cache()
    with counted_opens() as opens:
        tables = list(ch5.trees.read_many(files, "camera", columns=["gain"]))
        assert opens(simulated / "visit" / "visit.h5") == 1
    assert [table.colnames for table in tables] == [["gain"]] * 5
    assert not [
        path for path in map(os.path.realpath, Path("/proc/self/fd").iterdir()) if path.startswith(str(simulated))
    ]


def test_an_error_names_its_file_and_comes_in_its_turn(
    paths: list[Path], executor: Executor | None, tmp_path: Path
) -> None:
    damaged, bare = tmp_path / "damaged.h5", tmp_path / "bare.h5"
    damaged.write_bytes(b"no HDF5")
    ch5.Composite(None, image=pixels((4, 4))).write(bare)
    sources = [paths[0], damaged, paths[1], tmp_path / "none.h5", bare]
    results = ch5.trees.read_many(sources, "wcs", executor=executor, chunksize=2)
    assert next(results).pixel_shape == (SIZE, SIZE)
    with pytest.raises(NotACompositeFileError, match=str(damaged)):
        next(results)
    first, bad, second, missing, unknown = ch5.trees.read_many(
        sources, "wcs", executor=executor, return_exceptions=True
    )
    assert first.pixel_shape == second.pixel_shape == (SIZE, SIZE)
    assert isinstance(bad, NotACompositeFileError)
    assert isinstance(missing, FileNotFoundError)
    assert isinstance(unknown, NoSuchComponentError)
    for error, path in ((bad, damaged), (missing, tmp_path / "none.h5"), (unknown, bare)):
        assert str(path) in str(error)


def test_the_error_of_a_lost_link_names_the_file_that_has_it(tmp_path: Path) -> None:
    whole = ch5.Composite("visit", visit_info={"visit": 1})
    whole.write(tmp_path / "visit.h5")
    ch5.Composite("exposure", image=pixels((4, 4)), visit_info=whole.link("visit_info")).write(tmp_path / "ccd.h5")
    (tmp_path / "visit.h5").unlink()
    current().clear_cache()
    with pytest.raises(BrokenLinkError, match=f"^{tmp_path / 'ccd.h5'}: "):
        next(ch5.trees.read_many([tmp_path / "ccd.h5"], "visit_info"))


def test_what_is_no_composite_is_a_type_error(paths: list[Path]) -> None:
    with pytest.raises(TypeError, match="a path, a URL or an open composite was expected, not 5"):
        ch5.trees.read_many([paths[0], 5], "wcs")  # type: ignore[list-item]
    with pytest.raises(FileNotFoundError, match="no file has a name of this pattern"):
        ch5.trees.cutouts(f"{paths[0].parent}/none*.h5", (1, 2), 3)


@pytest.mark.parametrize("setting", ["chunksize", "buffersize"])
def test_settings_are_checked(setting: str, paths: list[Path]) -> None:
    with pytest.raises(ValueError, match=f"{setting} should be at least 1"):
        ch5.trees.read_many(paths, "wcs", **{setting: 0})


def test_only_a_few_files_are_read_ahead(paths: list[Path]) -> None:
    with ThreadPoolExecutor(4) as threads, counted_opens() as opens:
        results = ch5.trees.read_many(paths, "image", executor=threads, buffersize=2)
        next(results)
        assert sum(map(opens, paths)) <= 3
        results.close()  # type: ignore[attr-defined]


# ---- Cutouts -----------------------------------------------------------------------------------------------


def same(one: ch5.Composite, other: ch5.Composite) -> bool:
    """Whether two cutouts are the same in all."""
    return (
        list(one) == list(other)
        and all(
            np.array_equal(one[name].array, other[name].array) and one[name].origin == other[name].origin
            for name in ("image", "mask", "variance")
        )
        and one["wcs"].to_header_string(relax=True) == other["wcs"].to_header_string(relax=True)
        and one["mask"].planes == other["mask"].planes
        and one["image"].unit == other["image"].unit
        and one.data_id == other.data_id
    )


@BOTH
@settings(max_examples=7, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    places=st.lists(st.tuples(st.integers(0, 1300), st.integers(100, 1500)), max_size=12),
    size=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    room=st.sampled_from([0, 300_000, 10**9]),
)
def test_together_as_one_by_one(large: Path, places: list[tuple[int, int]], size: tuple[int, int], room: int) -> None:
    with pytest.MonkeyPatch.context() as patch, ch5.open(large) as c:
        patch.setattr(chunks, "KEPT_BYTES", room)
        together = list(ch5.trees.cutouts(c, places, size, return_exceptions=True))
        for place, found in zip(places, together, strict=True):
            if isinstance(found, OutsideError):
                with pytest.raises(OutsideError) as error:
                    c.cutout(place, size)
                assert str(found) == str(error.value)
            else:
                assert same(found, c.cutout(place, size))


@BOTH
def test_each_chunk_is_read_once(large: Path) -> None:
    rng = np.random.default_rng(1)
    places = np.column_stack([rng.integers(100, 1200, 200), rng.integers(200, 1400, 200)])
    with counted_reads() as read:
        count = sum(1 for _ in ch5.trees.cutouts(large, places, 150, components=["image", "variance"]))
        assert count == 200
        # Of the mask, nothing; of the planes at most what there is.
        assert read() < 1.02 * large.stat().st_size
    with ch5.open(large) as c, counted_reads() as read:
        for y, x in places[:40].tolist():
            c.cutout((y, x), 150, components=["image"])
        # One by one, only the last few MB are remembered; contiguous ones not at all.
        alone = read()
    with counted_reads() as read:
        list(ch5.trees.cutouts(large, places[:40], 150, components=["image"]))
        assert read() <= alone + 50_000


def test_sky_positions_boxes_and_pixels(large: Path) -> None:
    with ch5.open(large) as c:
        sky = c["wcs"].pixel_to_world([10.0, 500.0, 700.0], [20.0, 600.0, 30.0])
        pixel_positions = [(20.0 + 100, 10.0 + 200), (600.0 + 100, 500.0 + 200), (30.0 + 100, 700.0 + 200)]
        boxes = [c.cutout(place, 31)["image"].box for place in pixel_positions]
        expected = [c.cutout(place, 31) for place in pixel_positions]
    for where, size in (
        (sky, 31),
        (list(sky), 31),
        (pixel_positions, 31),
        (np.array(pixel_positions), (31, 31)),
        (boxes, None),
    ):
        assert all(map(same, ch5.trees.cutouts(large, where, size), expected))
    with pytest.raises(TypeError, match="a Box has its own size"):
        next(ch5.trees.cutouts(large, boxes, 31))
    with pytest.raises(TypeError, match="should be a Box, a SkyCoord or"):
        next(ch5.trees.cutouts(large, [1.0, 2.0], 31))
    (one,) = ch5.trees.cutouts(large, sky[1], 31, components=["psf", "image"])
    assert list(one) == ["psf", "image"]


def test_components_without_pixels_are_not_shared_among_cutouts(large: Path) -> None:
    first, second = ch5.trees.cutouts(large, [(300, 400), (400, 500)], 20, components=["wcs", "psf"])
    first["wcs"].wcs.crval = [1, 2]
    assert second["wcs"].wcs.crval.tolist() == [150.1, 2.2]


def test_the_same_from_many_and_one_from_each(paths: list[Path], executor: Executor | None) -> None:
    with ch5.open(paths[4]) as c:
        star = c["wcs"].pixel_to_world(60, 70)
    found = list(ch5.trees.cutouts(paths, star, 16, executor=executor, return_exceptions=True))
    inside = [path for path, one in zip(paths, found, strict=True) if isinstance(one, ch5.Composite)]
    assert inside == [paths[4]]
    assert all(str(path) in str(one) for path, one in zip(paths, found, strict=True) if path != paths[4])
    with pytest.raises(OutsideError, match=str(paths[0])):
        next(ch5.trees.cutouts(paths, star, 16, executor=executor))
    of_each = [paths[0], paths[0], paths[2], paths[0]]
    places = [(10, 10), (60, 60), (30, 30), (10, 10)]
    pairs = list(ch5.trees.cutouts(of_each, places, 8, executor=executor))
    for path, place, one in zip(of_each, places, pairs, strict=True):
        with ch5.open(path) as c:
            assert same(one, c.cutout(place, 8))
    with pytest.raises(ValueError, match="3 composites and 4 positions can't be paired"):
        ch5.trees.cutouts(paths[:3], places, 8)


def test_cutouts_of_one_image_on_an_executor(large: Path, executor: Executor | None) -> None:
    places = [(100 + 70 * n % 900, 300 + 110 * n % 900) for n in range(16)]
    with ch5.open(large) as c:
        expected = [c.cutout(place, 64) for place in places]
    found = list(ch5.trees.cutouts(large, places, 64, executor=executor, chunksize=5))
    assert all(map(same, found, expected))


@BOTH
def test_a_damaged_plane_is_the_error_of_those_that_need_it(large: Path, tmp_path: Path) -> None:
    content = bytearray(large.read_bytes())
    # Pixels fill the file from some kB on; its middle belongs to one plane.
    for i in range(len(content) // 2, len(content) // 2 + 4096):
        content[i] ^= 0xFF
    (tmp_path / "x.h5").write_bytes(content)
    whole = ch5.Box(100, 1200, 200, 1400)
    found = list(ch5.trees.cutouts([tmp_path / "x.h5", large], whole, return_exceptions=True))
    assert isinstance(found[0], ch5.CompositeH5Error)
    assert str(tmp_path / "x.h5") in str(found[0])
    assert found[1]["image"].shape == (1100, 1200)


def test_cutouts_of_a_remote_file(large: Path) -> None:
    pytest.importorskip("lsst.resources")
    from range_server import range_server

    places = [(150 + 20 * n, 250 + 21 * n) for n in range(40)]
    with range_server(large.parent) as server, ch5.open(large) as local:
        url = f"{server.url}/{large.name}"
        found = list(ch5.trees.cutouts(url, places, 64))
        assert len(server.requests) <= 4
        assert all(map(same, found, (local.cutout(place, 64) for place in places)))
        server.reset()
        server.hold_until = 2
        with ThreadPoolExecutor(3) as threads:
            assert len(list(ch5.trees.read_many([url] * 3, "wcs", executor=threads))) == 3
        assert {method for method, _ in server.requests} == {"GET"}


def test_arrays_in_memory_are_cut_as_well() -> None:
    composite = exposure((40, 50), origin=(0, 0))
    for one, place in zip(ch5.trees.cutouts(composite, [(10, 10), (20, 30)], 8), [(10, 10), (20, 30)], strict=True):
        assert same(one, composite.cutout(place, 8))
    node = Array(np.arange(12).reshape(3, 4))
    parts = list(chunks.read_selections(node, [(slice(0, 2), slice(1, 3))] * 2))
    assert [part.tolist() for part in parts] == [[[1, 2], [5, 6]]] * 2


def test_a_view_tells_which_files_to_cut(simulated: Path) -> None:
    with ch5.trees.open_visit(simulated / "visit" / "visit.h5", simulated / "calexp") as view:
        assert view.data_id == VISIT
        star = view.wcs[4].pixel_to_world(60, 70)
        seen = view.containing(SkyCoord(star))
        stamps = ch5.trees.cutouts([view.locations[d] for d in seen["detector"]], star, 16)
        assert [stamp.data_id["detector"] for stamp in stamps] == [4]
