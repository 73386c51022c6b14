"""Comparing composites: what is identical, and how others differ."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import typed_values
from astropy import units as u
from astropy.io import fits
from astropy.table import Column, QTable, Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support import data_file, exposure, pixels, simple_wcs, visit_info, write_visit
from typed_values import stored

import compositeh5 as ch5
from compositeh5 import kinds
from compositeh5.cli import main
from compositeh5.convert import convert
from compositeh5.convert.fits import fits_bytes
from compositeh5.errors import CorruptFileError
from compositeh5.integrity import digest
from compositeh5.operations import differences
from compositeh5.operations.diff import Difference, diff, diff_nodes, diff_values

many = settings(suppress_health_check=[HealthCheck.too_slow])


def named(found: tuple[Difference, ...]) -> dict[str, Difference]:
    assert len({d.what for d in found}) == len(found)
    return {d.what: d for d in found}


def changed(a: ch5.Composite, **components: Any) -> dict[str, Difference]:
    """What differs between a composite and the same with other components, all of one component."""
    comparison = diff(a, a.replace(components))
    assert {c.name for c in comparison.components if not c.identical} == set(components)
    return named(tuple(d for c in comparison.components for d in c.differences))


# ---- Identical ----------------------------------------------------------------------------------------------


@many
@given(st.dictionaries(typed_values.names, typed_values.values(4), max_size=3))
def test_a_value_and_its_copy_in_a_file_are_identical(value: dict[str, Any]) -> None:
    node = kinds.encode(value, "record")
    assert diff_nodes(node, stored(node)) == ()
    a = ch5.Composite(None, record=value, list=[value, b"x"])
    assert diff(a, ch5.Composite(None, record=value, list=[value, b"x"])).identical


@many
@given(typed_values.values(3), typed_values.values(3))
def test_what_has_another_digest_differs_and_the_rest_does_not(one: Any, other: Any) -> None:
    a, b = (kinds.encode({"x": value, "y": 1}, "record") for value in (one, other))
    found = diff_nodes(stored(a), b)
    assert bool(found) == (digest(a) != digest(b))
    assert all(d.what.startswith("x") for d in found)
    assert all(d.details or d.a != d.b for d in found)


@many
@given(st.data())
def test_one_changed_element_is_found_and_named(data: st.DataObject) -> None:
    dtype = data.draw(typed_values.number_dtypes)
    values = data.draw(hnp.arrays(dtype, hnp.array_shapes(max_dims=4, max_side=5)))
    index = tuple(data.draw(st.integers(0, n - 1)) for n in values.shape)
    other = values.copy()
    # Any other bits: another number, NaN, or only another sign of zero.
    bits = other.view(f"u{dtype.itemsize}")
    bits[index] ^= bits.dtype.type(1 << data.draw(st.integers(0, 8 * dtype.itemsize - 1)))
    (found,) = diff_values("array", values, other)
    assert (found.what, found.count, found.at, found.total) == ("values", 1, index, values.size)
    assert (found.a, found.b) == (str(values[index]), str(other[index]))
    (back,) = diff_values("array", other, values)
    assert (back.a, back.b, back.largest) == (found.b, found.a, found.largest)


@many
@given(st.data())
def test_one_changed_cell_of_a_table_is_found_and_named(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 4))
    table = Table({name: data.draw(typed_values.arrays((rows,))) for name in ("a", "b/c", "@")})
    name, row = data.draw(st.sampled_from(table.colnames)), data.draw(st.integers(0, rows - 1))
    other = table.copy()
    column = np.asarray(other[name])
    text = st.text("ab", max_size=1) if column.dtype.kind == "U" else None
    value = data.draw(hnp.arrays(column.dtype, (), elements=text))
    column[row] = value
    other[name] = column
    nodes = [kinds.encode(t, "table") for t in (table, other)]
    found = diff_nodes(*nodes)
    if digest(nodes[0]) == digest(nodes[1]):
        assert found == ()
    else:
        (only,) = found
        assert (only.what, only.count, only.at) == (f"column {name}", 1, (row,))


@many
@given(st.data())
def test_changed_planes_are_counted_by_name(data: st.DataObject) -> None:
    types = st.sampled_from(["u1", "i2", "i4", "u8", "i8"])
    (one, other) = (data.draw(hnp.arrays(data.draw(types), (3, 4), elements=st.integers(0, 127))) for _ in "ab")
    (planes, others) = (
        {name: bit for name, bit in zip("ABCD", data.draw(st.permutations(range(7))), strict=False) if bit < 5}
        for _ in "ab"
    )
    found = named(diff_values("mask", ch5.Mask(one, planes), ch5.Mask(other, others)))
    for name in "ABCD":
        in_a, in_b = ((v >> p[name]) & 1 == 1 if name in p else v < 0 for v, p in ((one, planes), (other, others)))
        difference = found.get(f"plane {name} pixels")
        assert (difference.count if difference else 0) == (in_a != in_b).sum()
        assert (f"plane {name}" in found) == (planes.get(name) != others.get(name))
    rest, other_rest = (
        v.astype("i8") & (127 - sum(1 << bit for bit in p.values())) for v, p in ((one, planes), (other, others))
    )
    difference = found.get("bits without a plane")
    assert (difference.count if difference else 0) == (rest != other_rest).sum()


def test_where_components_are_stored_does_not_matter(tmp_path: Path) -> None:
    _, (linked, _) = write_visit(tmp_path)
    whole = exposure(visit_info=visit_info())
    whole.write(tmp_path / "whole.h5", recipes={"image": ch5.Recipe(gzip=1, chunks=(10, 10))})
    comparison = diff(linked, tmp_path / "whole.h5")
    assert comparison.identical
    assert {c.name: (c.a, c.b) for c in comparison.components}["visit_info"] == ("linked", "stored")


def test_what_is_identical_is_not_read(tmp_path: Path) -> None:
    exposure().write(tmp_path / "a.h5")
    shutil.copy(tmp_path / "a.h5", tmp_path / "b.h5")
    damaged = bytearray((tmp_path / "b.h5").read_bytes())
    damaged[-20_000:] = bytes(20_000)  # pixels are last in a file
    (tmp_path / "b.h5").write_bytes(damaged)
    assert diff(tmp_path / "a.h5", tmp_path / "b.h5").identical


# ---- Kinds --------------------------------------------------------------------------------------------------


def test_images() -> None:
    a = exposure()
    values = np.array(a["image"].array)
    values[10, 20] += 8
    values[11, 21] += 2
    values[12, 22] = np.nan
    found = changed(a, image=ch5.Image(values, (1, 2), "mJy"))
    assert set(found) == {"values", "origin", "units"}
    assert (found["units"].a, found["units"].b) == ("nJy", "mJy")
    assert (found["origin"].a, found["origin"].b) == ("100, 200", "1, 2")
    assert (found["values"].count, found["values"].at) == (3, (10, 20))
    assert found["values"].largest == pytest.approx(8, rel=1e-6)
    assert found["values"].details == "3 of 120000, largest 8 at [10, 20], 1 NaN only in B"
    found = changed(a, image=ch5.Image(values[:50].astype("f8"), (100, 200), "nJy"))
    assert (found["dtype"].b, found["shape"].b) == ("float64", "50 x 400")


def test_large_images_are_compared_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differences, "_BLOCK_BYTES", 1000)
    values = pixels((6, 30, 40))
    other = values.copy()
    other[4, 17, 3] += 1
    other[1, 2, 3] += 50
    other[1, 2, 4] = np.nan
    nodes = [typed_values.counting(kinds.encode(ch5.Image(v), "image")) for v in (values, other)]
    sizes: list[int] = []
    read = typed_values.CountingArray.read

    def recorded(self: typed_values.CountingArray, selection: Any = ()) -> Any:
        part = read(self, selection)
        sizes.append(part.nbytes)
        return part

    monkeypatch.setattr(typed_values.CountingArray, "read", recorded)
    (found,) = diff_nodes(*nodes)
    assert (found.count, found.at, found.note) == (3, (1, 2, 3), "1 NaN only in B")
    assert max(sizes) <= 1000
    assert sum(sizes) == 2 * values.nbytes


def test_integers_whose_difference_overflows() -> None:
    (found,) = diff_values("array", np.array([-(2**63)]), np.array([2**63 - 1]))
    assert found.largest == 2.0**64
    (found,) = diff_values("array", np.array([0], "u1"), np.array([255], "u1"))
    assert found.largest == 255


def test_numbers_that_are_equal_but_not_in_their_bits() -> None:
    (found,) = diff_values("array", np.array([0.0, 1.0]), np.array([-0.0, 1.0]))
    assert (found.count, found.largest, found.at, found.a, found.b) == (1, None, (0,), "0.0", "-0.0")
    assert "bits" in found.details


def test_masks() -> None:
    array = np.zeros((20, 30), "i4")
    array[:5] = 1
    other = array.copy()
    other[0, 0] = 2
    other[1, :7] |= 2
    other[19, 29] = 64
    a, b = ch5.Mask(array, {"BAD": 0, "SAT": 1}), ch5.Mask(other, {"BAD": 0, "SAT": 1, "CR": 3})
    found = named(diff_values("mask", a, b))
    assert (found["plane CR"].a, found["plane CR"].b) == (None, "bit 3")
    assert found["plane BAD pixels"].details == "1 of 600, 1 set only in A, 0 only in B"
    assert found["plane SAT pixels"].details == "8 of 600, 0 set only in A, 8 only in B"
    assert found["bits without a plane"].count == 1
    assert len(found) == 4


def test_mask_planes_on_other_bits_are_compared_by_name() -> None:
    array = np.random.default_rng(1).integers(0, 4, (20, 30)).astype("i4")
    swapped = ((array & 1) << 1) | (array >> 1)
    found = named(diff_values("mask", ch5.Mask(array, {"BAD": 0, "SAT": 1}), ch5.Mask(swapped, {"BAD": 1, "SAT": 0})))
    assert set(found) == {"plane BAD", "plane SAT"}
    wide = ch5.Mask(array.astype("u8"), {"BAD": 0, "SAT": 1})
    assert set(named(diff_values("mask", ch5.Mask(array, {"BAD": 0, "SAT": 1}), wide))) == {"dtype"}


def test_wcs() -> None:
    a, b = simple_wcs((300, 400)), simple_wcs((300, 400))
    b.wcs.crval = [150.1, 2.2 + 1 / 3600]
    b.wcs.set()
    found = named(diff_values("wcs", a, b))
    assert next(iter(found)) == "sky"
    assert found["sky"].largest == pytest.approx(1, rel=1e-4)
    assert "arcsec" in found["sky"].details
    assert found["CRVAL2"].a == "2.2"
    assert "CRVAL1" not in found


def test_wcs_that_moves_one_corner(tmp_path: Path) -> None:
    a, b = simple_wcs((300, 400)), simple_wcs((300, 400))
    b.wcs.cd = a.wcs.cd * 1.0001
    b.wcs.set()
    found = named(diff_values("wcs", a, b))["sky"]
    assert found.at in {(0, 0), (0, 399), (299, 0), (299, 399)}
    assert found.largest == pytest.approx(np.hypot(199.5, 149.5) * 5.5e-5 * 3600 * 1e-4, rel=1e-2)


def test_wcs_without_a_sky_or_size() -> None:
    from astropy.wcs import WCS

    def linear(crpix: float) -> WCS:
        wcs = WCS(naxis=1)
        wcs.wcs.crpix = [crpix]
        return wcs

    assert set(named(diff_values("wcs", linear(1), linear(2)))) == {"CRPIX1"}
    a, b = simple_wcs((300, 400)), simple_wcs((300, 400))
    a.pixel_shape = b.pixel_shape = None
    b.wcs.crval = [150.1, 2.3]
    assert named(diff_values("wcs", a, b))["sky"].largest == pytest.approx(360, rel=1e-3)


def test_tables() -> None:
    a = QTable({"id": [1, 2, 3], "flux": [1.0, 2.0, 3.0] * u.nJy, "name": ["x", "y", "z"], "old": [0, 0, 0]})
    b = QTable({"name": ["x", "Y", "z"], "id": [1, 2, 3], "flux": [1.0, 2.5, 7.0] * u.mJy, "new": [1.0, 1.0, 1.0]})
    b.meta["seeing"] = 0.7
    found = named(diff_values("table", a, b))
    assert (found["column old"].a, found["column old"].b) == ("3 int64", None)
    assert (found["column new"].a, found["column new"].b) == (None, "3 float64")
    assert (found["column flux units"].a, found["column flux units"].b) == ("nJy", "mJy")
    assert found["column flux"].details == "2 of 3, largest 4 at [2]"
    assert (found["column name"].a, found["column name"].b, found["column name"].at) == ("y", "Y", (1,))
    assert found["order of columns"].a == "id, flux, name"
    assert (found["meta"].a, found["meta"].b) == (None, "seeing 0.7")
    assert len(found) == 7


def test_tables_of_other_lengths() -> None:
    a = Table({"id": Column([1, 2, 3], unit="m"), "x": [1.0, 2.0, 3.0]})
    b = Table({"id": Column([1, 2], unit="s"), "x": np.array([1, 2], "f4")})
    found = named(diff_values("table", a, b))
    assert {name: (d.a, d.b) for name, d in found.items()} == {
        "rows": ("3", "2"),
        "column id units": ("m", "s"),
        "column x dtype": ("float64", "float32"),
    }


def test_records() -> None:
    a, b = visit_info(), visit_info()
    b["exposure_time"] = 31 * u.s
    b["weather"] = {"temperature": 9.5 * u.deg_C, "humidity": 0.5}
    b["visit"] = 7.0
    b["dithers"] = [1, 2, 4]
    del b["filter"]
    b["extra/field"] = "new"
    found = {d.what: (d.a, d.b) for d in diff_values("record", a, b)}
    assert found == {
        "exposure_time": ("30.0 s", "31.0 s"),
        "weather.humidity": ("None", "0.5"),
        "visit": ("903334 (int)", "7.0 (float)"),
        "dithers": ("3", "4"),
        "filter": ("i_39", None),
        "extra/field": (None, "new"),
    }


def test_sky_positions_without_distance() -> None:
    from astropy.coordinates import SkyCoord

    a, b = (SkyCoord(1 * u.deg, lat * u.deg, frame="galactic", representation_type="unitspherical") for lat in (2, 3))
    (found,) = diff_values("record", {"at": a}, {"at": b})
    assert (found.what, found.b) == ("at", "frame galactic; l 1.0 deg; b 3.0 deg")


def test_texts_by_lines() -> None:
    found = diff_values("text", "one\ntwo\nthree\nfour", "zero\none\ntwo\n3\nfour\n")
    assert [(d.what, d.a, d.b) for d in found] == [
        ("line 1", None, "zero"),
        ("line 3", "three", "3"),
        ("line 6", None, ""),
    ]


def test_headers_by_cards() -> None:
    def text(**cards: Any) -> str:
        header = fits.Header(list(cards.items()))
        for line in ("first", "second"):
            header.add_history(line + str(cards.get("EXPTIME")))
        header["HIERARCH a long keyword"] = cards.get("EXPTIME")
        return header.tostring(sep="\n", endcard=False, padding=False)

    found = diff_values("text", text(EXPTIME=30.0, FILTER="i"), text(FILTER="i", EXPTIME=31.0, AIRMASS=1.5))
    assert [(d.what, d.a, d.b) for d in found] == [
        ("EXPTIME", "30.0", "31.0"),
        ("HIERARCH a long keyword", "30.0", "31.0"),
        ("HISTORY", "first30.0", "first31.0"),
        ("HISTORY", "second30.0", "second31.0"),
        ("AIRMASS", None, "1.5"),
    ]
    (order,) = diff_values("text", text(EXPTIME=1, FILTER="i"), text(FILTER="i", EXPTIME=1))
    assert order.what == "order of cards"


def test_calibrations_kernels_and_bytes() -> None:
    a = exposure(photo_calib=ch5.PhotoCalib(57.5, 0.1))
    found = changed(a, photo_calib=ch5.PhotoCalib(57.5, 0.2, instrumental_unit="electron"))
    assert found["error"].largest == pytest.approx(0.1)
    assert (found["instrumental_unit"].a, found["instrumental_unit"].b) == ("adu", "electron")
    kernel = np.ones((5, 5)) / 25
    kernel[2, 2] = 1
    assert changed(a, psf=ch5.Psf.constant(kernel))["kernels"].at == (0, 2, 2)
    assert diff_values("bytes", b"abc", b"abd")[0].at == (2,)


def test_lists_and_composites_within() -> None:
    inner = exposure((9, 8))
    moved = inner.replace({"variance": None}, data_id={**inner.data_id, "detector": 12})
    found = named(diff_values("list", [inner, "a", np.arange(3)], [moved, "b"]))
    assert (found["[0] data_id.detector"].a, found["[0] data_id.detector"].b) == ("11", "12")
    assert found["[0] variance state"].b == "absent"
    assert (found["[1] line 1"].a, found["[1] line 1"].b) == ("a", "b")
    assert (found["[2]"].a, found["[2]"].b) == ("array", None)


def test_another_kind() -> None:
    a, b = ch5.Composite(None, x=np.arange(3)), ch5.Composite(None, x="text")
    (found,) = diff(a, b).components[0].differences
    assert (found.what, found.a, found.b) == ("kind", "array", "text")


# ---- Absent, missing, lost ----------------------------------------------------------------------------------


def test_absent_missing_and_lost_are_told_apart(tmp_path: Path) -> None:
    visit, (linked, _) = write_visit(tmp_path)
    other = visit_info()
    other["airmass"] = 2.0
    exposure(visit_info=other).write(tmp_path / "other.h5")
    visit.unlink()
    exposure(visit_info=None).write(tmp_path / "absent.h5")
    exposure().write(tmp_path / "missing.h5")
    exposure(visit_info=visit_info()).write(tmp_path / "same.h5")

    def states(a: Path, b: Path) -> tuple[str, str, bool]:
        (component,) = diff(a, b, components=["visit_info"]).components
        assert component.differences == ()
        assert ("is lost. Tried" in component.note) == ("lost" in (component.a, component.b))
        return component.a, component.b, component.identical

    assert states(linked, tmp_path / "other.h5") == ("lost", "stored", False)
    assert states(linked, tmp_path / "absent.h5") == ("lost", "absent", False)
    assert states(tmp_path / "missing.h5", tmp_path / "absent.h5") == ("missing", "absent", False)
    assert states(tmp_path / "absent.h5", tmp_path / "absent.h5") == ("absent", "absent", True)
    # By their digests these are the same, though one can't be read now.
    assert states(linked, tmp_path / "same.h5") == ("lost", "stored", True)
    assert "visit_info (lost)" in diff(linked, tmp_path / "same.h5").text()


def test_linked_components_are_read_where_they_are(tmp_path: Path) -> None:
    _, (one, _) = write_visit(tmp_path)
    _, (other, _) = write_visit(tmp_path, visit=7)
    (component,) = diff(one, other, components=["visit_info"]).components
    (found,) = component.differences
    assert (component.a, component.b) == ("linked", "linked")
    assert (found.what, found.largest) == ("visit", 903327)


def test_lists_of_links_are_compared_item_by_item(tmp_path: Path) -> None:
    visits = []
    for visit in (1, 2, 3):
        ch5.Composite("visit", visit_info=visit_info(visit)).write(tmp_path / f"{visit}.h5")
        with ch5.open(tmp_path / f"{visit}.h5") as composite:
            visits.append(composite.link("visit_info"))
    for name, items in (("a", [visits[0], visits[1], "x"]), ("b", [visits[0], visits[2], "y"])):
        ch5.Composite(None, items=items, inner=ch5.Composite(None, items=items)).write(tmp_path / f"{name}.h5")
    (tmp_path / "1.h5").unlink()  # what is the same needs not be read
    found = {c.name: named(c.differences) for c in diff(tmp_path / "a.h5", tmp_path / "b.h5").components}
    assert {what: (d.a, d.b) for what, d in found["items"].items()} == {
        "[1].visit": ("2", "3"),
        "[2] line 1": ("x", "y"),
    }
    assert set(found["inner"]) == {"items [1].visit", "items [2] line 1"}
    (tmp_path / "3.h5").unlink()
    (lost, _) = diff(tmp_path / "a.h5", tmp_path / "b.h5", components=["items"]).components[0].differences
    assert lost.what == "[1]"
    assert "lost in B" in lost.details


def test_kinds_that_are_not_known_are_compared_as_any_datasets(tmp_path: Path) -> None:
    for name, kernels in (("a", np.ones((3, 3)) / 9), ("b", np.ones((3, 3)) / 8)):
        ch5.Composite(None, x=ch5.Psf.constant(kernels)).write(tmp_path / f"{name}.h5")
        with h5py.File(tmp_path / f"{name}.h5", "r+") as file:
            file["composite/x"].attrs["kind"] = np.bytes_(b"unheard_of")
    (component,) = diff(tmp_path / "a.h5", tmp_path / "b.h5").components
    assert [(d.what, d.count) for d in component.differences] == [("kernels", 9)]


def test_a_damaged_component_is_an_error(tmp_path: Path) -> None:
    exposure().write(tmp_path / "a.h5")
    exposure(image=ch5.Image(pixels((300, 400), 2), (100, 200), "nJy")).write(tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5") as file:
        start = file["composite/image"].id.get_chunk_info(0).byte_offset
    content = bytearray((tmp_path / "b.h5").read_bytes())
    content[start + 100 : start + 110] = bytes(10)
    (tmp_path / "b.h5").write_bytes(content)
    with pytest.raises(CorruptFileError, match="/composite/image"):
        diff(tmp_path / "a.h5", tmp_path / "b.h5")
    assert main(["diff", str(tmp_path / "a.h5"), str(tmp_path / "b.h5")]) == 2


# ---- Attributes ---------------------------------------------------------------------------------------------


def test_attributes_do_not_count() -> None:
    a = exposure()
    b = a.replace(data_id={**a.data_id, "detector": 12}, run="r", provenance={"inputs": {"raw": "x"}})
    comparison = diff(a, b)
    assert comparison.identical
    assert {d.what: (d.a, d.b) for d in comparison.attributes} == {
        "data_id.detector": ("11", "12"),
        "run": ("", "r"),
        "provenance.inputs": (None, "{'raw': 'x'}"),
    }


def test_unknown_components_are_refused() -> None:
    with pytest.raises(ch5.CompositeH5Error, match="did you mean 'image'"):
        diff(exposure(), exposure(), components=["imag"])


# ---- FITS ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["HSC-0908120-056-small.fits", "exposure-version-2.fits"])
def test_a_round_trip_of_real_fits_files_is_proven_identical(name: str, tmp_path: Path) -> None:
    original = data_file(name)
    convert(original, tmp_path / "a.h5")
    assert diff(original, tmp_path / "a.h5").identical
    assert diff(tmp_path / "a.h5", original).identical
    with ch5.open(tmp_path / "a.h5") as composite:
        (tmp_path / "back.fits").write_bytes(fits_bytes(composite))
    comparison = diff(original, tmp_path / "back.fits")
    assert comparison.identical
    with fits.open(original) as hdus:
        assert len(comparison.components) == len(hdus)


def test_a_changed_fits_file_differs_from_its_composite(tmp_path: Path) -> None:
    original = data_file("HSC-0908120-056-small.fits")
    convert(original, tmp_path / "a.h5")
    with fits.open(original) as hdus:
        hdus[1].data[3, 4] += 1
        hdus.writeto(tmp_path / "changed.fits")
    comparison = diff(tmp_path / "changed.fits", tmp_path / "a.h5")
    (component,) = (c for c in comparison.components if c.name == "image")
    assert (component.differences[0].count, component.differences[0].at) == (1, (3, 4))


Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def write(name: str, *hdus: Any, **cards: Any) -> Path:
        primary = fits.PrimaryHDU()
        primary.header.update(cards)
        fits.HDUList([primary, *hdus]).writeto(tmp_path / name)
        return tmp_path / name

    return write


def test_fits_files_are_compared_hdu_by_hdu(make: Make) -> None:
    image = np.arange(12, dtype="f4").reshape(3, 4)
    other = image.copy()
    other[1, 2] = 60
    table = np.array([(1, [1.0, 2.0], b"a")], [("n", "i4"), ("v", "f8", 2), ("s", "S3")])
    changed = table.copy()
    changed["v"][0, 1] = 5
    columns = [fits.Column("var", "PJ()", array=np.array([np.arange(3)], object))]
    more = [fits.Column("var", "PJ()", array=np.array([np.arange(1, 4)], object))]
    a = make(
        "a.fits", fits.ImageHDU(image, name="SCI"), fits.BinTableHDU(table, name="CAT"),
        fits.BinTableHDU.from_columns(columns), fits.ImageHDU(name="SCI"), EXPTIME=1.0,
    )  # fmt: skip
    b = make(
        "b.fits", fits.ImageHDU(other, name="SCI"), fits.BinTableHDU(changed, name="CAT"),
        fits.BinTableHDU.from_columns(more), EXPTIME=2.0,
    )  # fmt: skip
    assert diff(a, a).identical
    comparison = diff(a, b)
    assert {c.name: [(d.what, d.at) for d in c.differences] for c in comparison.components} == {
        "PRIMARY": [("header EXPTIME", ())],
        "SCI": [("data values", (1, 2))],
        "CAT": [("data column v", (0, 1))],
        "HDU_3": [("heap values", (3,))],
        "SCI__2": [],
    }
    assert {c.name: c.b for c in comparison.components}["SCI__2"] == "missing"


def test_tile_compressed_images_are_compared_by_their_pixels(make: Make, tmp_path: Path) -> None:
    values = np.arange(10_000, dtype="i4").reshape(100, 100)
    plain = make("plain.fits", fits.ImageHDU(values, name="SCI"))
    packed = make("packed.fits", fits.CompImageHDU(values, name="SCI"))
    comparison = diff(plain, packed)
    assert not [d for c in comparison.components for d in c.differences if d.what.startswith("data")]


def test_damaged_fits_files_are_refused(tmp_path: Path) -> None:
    good = data_file("exposure-version-2.fits").read_bytes()
    for content in (good[:-1], good[: len(good) // 2], good[:100], good + b"more"):
        (tmp_path / "a.fits").write_bytes(content)
        with pytest.raises(ch5.CompositeH5Error, match="damaged"):
            diff(tmp_path / "a.fits", tmp_path / "a.fits")


# ---- The command --------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = exposure()
    values = np.array(a["image"].array)
    values[10, 20] += 8
    a.write(tmp_path / "a.h5")
    a.replace({"image": ch5.Image(values, (100, 200), "nJy"), "psf": None}).write(tmp_path / "b.h5")
    a.replace(run="other").write(tmp_path / "c.h5")
    one, two, three = (str(tmp_path / name) for name in ("a.h5", "b.h5", "c.h5"))

    assert main(["diff", one, two]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split() == ["component", "part", "A", "B", "difference"]
    assert lines[4].startswith("image      values")
    assert lines[4].endswith("1 of 120000, largest 8 at [10, 20]")
    assert lines[5].split() == ["psf", "stored", "absent"]
    assert lines[7:] == ["2 of 5 components differ", "identical: mask, variance, wcs"]

    assert main(["diff", one, three]) == 0
    assert main(["diff", one, three, "--attributes"]) == 1
    assert main(["diff", one, two, "--component", "wcs", "--component", "mask"]) == 0
    capsys.readouterr()
    assert main(["diff", one, two, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["identical"] is False
    assert document["components"][0]["differences"][0]["at"] == [10, 20]
    assert main(["diff", one, str(tmp_path / "nothing.h5")]) == 2
    assert "nothing.h5" in capsys.readouterr().err


def test_the_command_takes_one_of_several_composites(tmp_path: Path) -> None:
    path = str(tmp_path / "two.h5")
    ch5.write_file(path, {"one": ch5.Composite(None, x="1"), "two": ch5.Composite(None, x="2")})
    assert main(["diff", f"{path}::one", f"{path}::two"]) == 1
    assert main(["diff", path, f"{path}::one"]) == 0


def test_long_reports_are_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ch5.Composite(None, x={f"f{i}": i for i in range(50)}).write(tmp_path / "a.h5")
    ch5.Composite(None, x={f"f{i}": -i - 1 for i in range(50)}).write(tmp_path / "b.h5")
    both = [str(tmp_path / "a.h5"), str(tmp_path / "b.h5")]
    assert main(["diff", *both]) == 1
    assert "... 30 more" in capsys.readouterr().out
    assert main(["diff", *both, "--all"]) == 1
    assert "f49" in capsys.readouterr().out
