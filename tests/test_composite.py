"""`Composite`: a lazy mapping of components, in memory and over a file."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable
from support import counted_reads, exposure, pixels

import compositeh5 as ch5
from compositeh5 import errors
from compositeh5.trees.verify import verify


@pytest.fixture
def path(tmp_path: Path) -> Path:
    exposure(transmission_curve=None).write(tmp_path / "calexp" / "a.h5")
    return tmp_path / "calexp" / "a.h5"


def test_what_was_written_comes_back(path: Path) -> None:
    written = exposure()
    with ch5.open(path) as c:
        assert c.definition == "exposure"
        assert c.data_id == {"instrument": "DemoCam", "visit": 903334, "detector": 11}
        assert c.stage == "single_frame"
        assert list(c) == ["image", "mask", "variance", "wcs", "psf"]
        np.testing.assert_array_equal(c["image"].array, written["image"].array)
        assert c["image"].unit == u.nJy
        assert c["image"].origin == (100, 200)
        assert c["mask"].planes.keys() == {"BAD", "SAT"}
        assert c["wcs"].wcs.compare(written["wcs"].wcs)
        assert c.component_stage("image") == "single_frame"
        verify(c)


def test_values_outlive_the_file(path: Path) -> None:
    with ch5.open(path) as c:
        image, mask, wcs = c["image"], c["mask"], c["wcs"]
        part = c.lazy("image")[3:5, 7:9]
    assert image.array.sum() == exposure()["image"].array.sum()
    assert mask.has("BAD").sum() == 100
    assert wcs.pixel_shape == (400, 300)
    np.testing.assert_array_equal(part, image.array[3:5, 7:9])


def test_access_after_close_says_so(path: Path) -> None:
    with ch5.open(path) as c:
        lazy = c.lazy("image")
    for use in (lambda: c["image"], lambda: c.lazy("mask"), lambda: lazy[0, 0], lambda: c.read("wcs")):
        with pytest.raises(errors.ClosedError, match="closed"):
            use()
    assert "closed" in repr(c)
    c.close()


def test_two_composites_on_one_file_close_apart(path: Path) -> None:
    first, second = ch5.open(path), ch5.open(path)
    first.close()
    assert second["image"].shape == (300, 400)
    with pytest.raises(errors.ClosedError):
        first["image"]
    second.close()


def test_absent_and_unknown_components_are_told_apart(path: Path) -> None:
    with ch5.open(path) as c:
        assert c.absent == ("transmission_curve",)
        assert "transmission_curve" not in c
        assert c.get("transmission_curve") is None
        with pytest.raises(errors.AbsentComponentError, match="known to be None"):
            c["transmission_curve"]
        with pytest.raises(errors.NoSuchComponentError, match="did you mean 'image'"):
            c["imgae"]
        with pytest.raises(KeyError):
            c["nothing"]


def test_a_bad_attribute_spoils_only_itself(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["composite"].attrs["provenance"] = np.bytes_("{")
    with ch5.open(path) as c:
        assert c["image"].shape == (300, 400)
        with pytest.raises(errors.FormatError, match="'provenance' isn't valid JSON"):
            c.provenance


def test_attributes_that_were_read_outlive_the_file(path: Path) -> None:
    with ch5.open(path) as c:
        data_id = c.data_id
    assert c.data_id is data_id
    with pytest.raises(errors.ClosedError, match="closed"):
        c.provenance


def test_reading_one_component_takes_no_work_for_the_others(tmp_path: Path) -> None:
    def calls(count: int) -> int:
        values = {f"x{i}": np.arange(i, i + 3) for i in range(count)}
        source = ch5.Composite(None, values)
        source.write(tmp_path / f"{count}.h5")
        made = 0

        def note(frame: object, event: str, arg: object) -> None:
            nonlocal made
            made += event in ("call", "c_call")

        with ch5.open(tmp_path / f"{count}.h5") as opened:
            opened["x1"]  # What is only done once is done.
        sys.setprofile(note)
        try:
            with ch5.open(tmp_path / f"{count}.h5") as opened:
                opened["x1"]
        finally:
            sys.setprofile(None)
        return made

    # HDF5 itself may read the metadata of a larger file in more pieces.
    assert calls(300) < calls(3) * 1.3


def test_partial_reads(path: Path) -> None:
    box = ch5.Box(120, 130, 210, 230)
    with ch5.open(path) as c:
        image = c.read("image", box=box)
        assert image.box == box
        for name in ("mask", "variance"):
            np.testing.assert_array_equal(c.read(name, box=box).array, exposure().read(name, box=box).array)
        np.testing.assert_array_equal(image.array, c["image"].array[20:30, 10:30])
        lazy = c.lazy("image")
        full = c["image"].array
        for index in (np.s_[3], np.s_[-1, ::7], np.s_[..., 5], np.s_[::-2, 3:1], np.s_[5:2:-1, -4:], np.s_[2:9:3, 4]):
            np.testing.assert_array_equal(lazy[index], full[index])
        np.testing.assert_array_equal(np.asarray(lazy), full)
        with pytest.raises(IndexError):
            lazy[300]
        with pytest.raises(IndexError, match="integers, slices"):
            lazy[[1, 2]]
        with pytest.raises(
            errors.UnsupportedParameterError, match=r"'image' has no parameter 'rows'; it has \['box'\]"
        ):
            c.read("image", rows=slice(3))
        with pytest.raises(TypeError, match="isn't one array"):
            c.lazy("psf")


def test_a_cutout_maps_the_same_pixels_to_the_same_sky(path: Path) -> None:
    with ch5.open(path) as c:
        stamp = c.cutout(ch5.Box(150, 182, 300, 364))
        full = c.load()
    assert set(stamp) == {"image", "mask", "variance", "wcs"}
    assert stamp["image"].box == stamp["mask"].box == ch5.Box(150, 182, 300, 364)
    np.testing.assert_array_equal(stamp["image"].array, full["image"].array[50:82, 100:164])
    x, y = np.arange(0, 64.0, 7), np.arange(0, 32.0, 3.5)[:10]
    sky = stamp["wcs"].pixel_to_world(x, y)
    assert sky.separation(full["wcs"].pixel_to_world(x + 100, y + 50)).max() < 1e-10 * u.arcsec
    assert stamp["wcs"].pixel_shape == (64, 32)


def test_a_cutout_around_a_sky_position(path: Path) -> None:
    with ch5.open(path) as c:
        where = c["wcs"].pixel_to_world(200.0, 120.0)
        stamp = c.cutout(where, 64)
        assert stamp["image"].box == ch5.Box.around(220, 400, 64)
        x, y = stamp["wcs"].world_to_pixel(where)
        assert abs(x - 32) < 1e-6
        assert abs(y - 32) < 1e-6
        assert c.cutout(where, 10 * u.arcsec)["image"].shape == (51, 51)
        assert c.cutout((220, 400), (4, 6))["image"].box == ch5.Box.around(220, 400, (4, 6))


def test_a_cutout_around_a_pixel_that_a_wcs_gives(path: Path) -> None:
    """These are arrays without axes."""
    with ch5.open(path) as c:
        x, y = c["wcs"].world_to_pixel(c["wcs"].pixel_to_world(12.2, 9.7))
        assert isinstance(x, np.ndarray)
        y0, x0 = c["image"].origin
        expected = c.cutout((y0 + 9.7, x0 + 12.2), 5)["image"]
        where = np.asarray(y + y0), np.asarray(x + x0)
        for found in (c.cutout(where, 5), *ch5.trees.cutouts(c, where, 5)):
            assert found["image"].box == expected.box
            np.testing.assert_array_equal(found["image"].array, expected.array)


def test_a_cutout_at_the_edge_is_clipped_and_outside_is_an_error(path: Path) -> None:
    with ch5.open(path) as c:
        assert c.cutout(ch5.Box(0, 110, 0, 205))["mask"].box == ch5.Box(100, 110, 200, 205)
        with pytest.raises(errors.OutsideError, match="has no pixel"):
            c.cutout(ch5.Box(0, 50, 0, 50))
        with pytest.raises(TypeError, match="needs a size"):
            c.cutout((120, 220))
        with pytest.raises(TypeError, match="own size"):
            c.cutout(ch5.Box(0, 50, 0, 50), 10)


def test_small_components_and_cutouts_read_little(tmp_path: Path) -> None:
    path = tmp_path / "big.h5"
    exposure((4000, 4072), origin=(0, 0)).write(path)
    with counted_reads() as count:
        with ch5.open(path) as c:
            c["wcs"]
        assert count() < 64 * 1024
    with counted_reads() as count:
        with ch5.open(path) as c:
            stamp = c.cutout(ch5.Box(2000, 2064, 2030, 2094))
        assert count() < 2 * 1024 * 1024
    assert stamp["image"].shape == (64, 64)


def test_loading_keeps_everything_but_the_file(path: Path) -> None:
    with ch5.open(path) as c:
        loaded = c.load()
        assert loaded.digest == c.digest == c.recorded_digest
    assert loaded.id == c.id
    assert loaded["image"].shape == (300, 400)
    assert loaded.absent == c.absent


def test_repr_tree_and_completion(path: Path) -> None:
    with ch5.open(path) as c:
        assert repr(c) == (
            "<Composite exposure detector=11 instrument=DemoCam visit=903334 (image, mask, variance, wcs, psf)>"
        )
        assert c._ipython_key_completions_() == list(c)
        tree = c.tree()
        infos = c.components()
    assert "\n" not in repr(c)
    assert "300 x 400" in tree
    assert "nJy" in tree
    assert infos["transmission_curve"].state == "absent"
    assert infos["image"].state == "stored"
    assert infos["image"].nbytes == 300 * 400 * 4


def test_a_table_is_read_by_rows_and_columns(tmp_path: Path) -> None:
    table = QTable({"ra": np.arange(100.0) * u.deg, "flux": np.arange(100) * 2 * u.nJy, "id": np.arange(100)})
    ch5.Composite("source_catalog", table=table).write(tmp_path / "src.h5")
    with ch5.open(tmp_path / "src.h5") as c:
        part = c.read("table", columns=["id", "flux"], rows=slice(10, 13))
        assert type(part) is QTable
        assert part.colnames == ["id", "flux"]
        assert part["flux"].to_value(u.nJy).tolist() == [20, 22, 24]


def test_composites_nest_and_list(tmp_path: Path) -> None:
    inner = exposure((20, 30))
    outer = ch5.Composite(None, stamp=inner, amplifiers=[ch5.Image(pixels((4, 5), i)) for i in range(16)], note="é")
    outer.write(tmp_path / "a.h5")
    with ch5.open(tmp_path / "a.h5") as c:
        stamp, amplifiers = c["stamp"], c["amplifiers"]
        verify(c)
        assert c["note"] == "é"
    np.testing.assert_array_equal(stamp["image"].array, inner["image"].array)
    assert stamp.digest == inner.digest
    assert [a.array[0, 0] for a in amplifiers] == [pixels((4, 5), i)[0, 0] for i in range(16)]


def test_a_stream_can_be_opened(path: Path) -> None:
    with open(path, "rb") as stream, ch5.open(stream, location=path) as c:
        assert c["wcs"].pixel_shape == (400, 300)
        assert c.location == str(path)


def test_the_same_content_gives_the_same_file_and_id(tmp_path: Path) -> None:
    a, b = exposure(), exposure()
    a.write(tmp_path / "a.h5")
    b.write(tmp_path / "b.h5")
    assert a.id == b.id
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert exposure(psf=None).file_image(tmp_path / "c.h5") != (tmp_path / "a.h5").read_bytes()


def test_writing_again_accepts_the_equal_and_refuses_the_different(path: Path) -> None:
    before = path.read_bytes()
    exposure(transmission_curve=None).write(path)
    with pytest.raises(errors.ConflictError, match=r"replace=True") as caught:
        exposure().write(path)
    assert isinstance(caught.value, FileExistsError)
    assert path.read_bytes() == before
    exposure().write(path, replace=True)
    assert path.read_bytes() != before
    (path.parent / "text").write_text("mine")
    with pytest.raises(errors.ConflictError):
        exposure().write(path.parent / "text")
    assert (path.parent / "text").read_text() == "mine"
    assert sorted(os.listdir(path.parent)) == ["a.h5", "text"]


def test_a_composite_that_is_open_can_be_written_elsewhere(path: Path) -> None:
    with ch5.open(path) as c:
        c.write(path.parent / "copy.h5")
    assert (path.parent / "copy.h5").read_bytes() == path.read_bytes()


def test_a_definition_is_held_to(tmp_path: Path) -> None:
    with pytest.raises(errors.DefinitionError, match="image"):
        ch5.Composite("exposure", mask=ch5.Mask(np.zeros((3, 3), np.int32), {}))
    with pytest.raises(errors.DefinitionError, match="did you mean|nearest"):
        ch5.Composite("exposure", image=pixels((3, 3)), varianse=pixels((3, 3)))
    with pytest.raises(errors.DefinitionError, match="exposure"):
        ch5.Composite("exposur", image=pixels((3, 3)))
    with pytest.raises(errors.EncodeError, match="component 'wcs'"):
        ch5.Composite("exposure", image=pixels((3, 3)), wcs=3)
    with pytest.raises(errors.EncodeError, match="data ID"):
        ch5.Composite("exposure", image=pixels((3, 3)), data_id={"visit": None})


@pytest.mark.parametrize("name", ["a/b", "", ".", "..", "@meta", "a b", "1"])
def test_names_of_components_are_identifiers(name: str) -> None:
    with pytest.raises(errors.EncodeError, match="letters, digits"):
        ch5.Composite(None, {name: "text"})


def test_values_are_coerced_to_what_a_file_gives(path: Path) -> None:
    c = ch5.Composite("exposure", image=pixels((3, 4)), visit_info={"a": 1})
    assert type(c["image"]) is ch5.Image
    assert type(c["visit_info"]) is ch5.Record


KILLED = """
import os, random, signal, sys, time
sys.path.insert(0, sys.argv[1])
from support import exposure
import compositeh5
from compositeh5.trees.verify import verify

path = sys.argv[2]
variants = [exposure((600, 700)), exposure((600, 700), psf=None)]
variants[0].write(path)
for _ in range(8):
    child = os.fork()
    if child == 0:
        while True:
            for composite in variants:
                composite.write(path, replace=True)
    time.sleep(random.uniform(0.01, 0.2))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with compositeh5.open(path) as composite:
        verify(composite)
"""


def test_a_killed_writer_never_leaves_half_a_file(tmp_path: Path) -> None:
    """SIGKILL at random moments of a loop that replaces one file."""
    args = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path / "a.h5")]
    result = subprocess.run(args, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    exposure().write(tmp_path / "a.h5", replace=True)


def test_what_was_read_is_freed_without_the_garbage_collector(tmp_path: Path) -> None:
    """A file holds chunks for the next cutout, and HDF5's objects: they should go when it is closed."""
    exposure((600, 700)).write(tmp_path / "c.h5")

    def use() -> None:
        with ch5.open(tmp_path / "c.h5") as c:
            for name in c:
                c[name]
            for start in (1, 2, 3):
                c.lazy("image")[start:100, start:100]

    use()
    gc.collect()
    gc.disable()
    try:
        use()
        assert gc.collect() == 0
    finally:
        gc.enable()
