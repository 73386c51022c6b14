"""Comparing composites: what is identical, and how others differ."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import typed_values
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support import data_file, exposure, pixels, simple_wcs, visit_info, write_visit

import compositeh5 as ch5
from compositeh5.cli import main
from compositeh5.comparison import Difference
from compositeh5.errors import ConversionError, CorruptFileError, WrongValueError
from compositeh5.fits import convert

many = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])


def different(a: Any, b: Any) -> dict[str, Difference]:
    """How two values of a component differ, by what, without the name of the component."""
    found = ch5.diff(ch5.Composite(None, x=a), ch5.Composite(None, x=b)).differences
    named = {f"{d.path} {d.what}".removeprefix("x").lstrip("/ "): d for d in found}
    assert len(named) == len(found)
    return named


def sides(found: dict[str, Difference]) -> dict[str, tuple[str | None, str | None]]:
    return {what: (d.a, d.b) for what, d in found.items()}


# ---- What is identical, and what isn't ----------------------------------------------------------------------


@many
@given(typed_values.values(3), typed_values.values(3))
def test_whatever_has_another_digest_differs_there_and_nowhere_else(one: Any, other: Any) -> None:
    a, b = (ch5.Composite(None, x={"x": value, "y": 1}, same=[value_of_both(), "z"]) for value in (one, other))
    found = ch5.diff(a, b)
    assert found.identical == (a.digest == b.digest)
    assert all(d.path.startswith("x/x") and d.a != d.b for d in found.differences if not d.count)
    assert all(d.path.startswith("x/x") for d in found.differences)


def value_of_both() -> dict[str, Any]:
    return {"a": np.arange(3), "b": None}


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
    (found,) = different(values, other).values()
    assert (found.what, found.count, found.at, found.total) == ("values", 1, index, values.size)
    assert (found.a, found.b) == (str(values[index]), str(other[index]))
    (back,) = different(other, values).values()
    assert (back.a, back.b, back.largest) == (found.b, found.a, found.largest)


def test_where_components_are_stored_does_not_matter_and_identical_ones_are_not_read(tmp_path: Path) -> None:
    _, (linked, _) = write_visit(tmp_path)
    exposure(visit_info=visit_info()).write(tmp_path / "whole.h5", recipes={"image": ch5.Recipe(chunks=(10, 10))})
    damaged = bytearray((tmp_path / "whole.h5").read_bytes())
    damaged[-20_000:] = bytes(20_000)  # pixels are last in a file
    (tmp_path / "whole.h5").write_bytes(damaged)
    comparison = ch5.diff(linked, tmp_path / "whole.h5")
    assert comparison.identical
    assert set(comparison.components) >= {"image", "wcs", "visit_info"}


# ---- Kinds --------------------------------------------------------------------------------------------------


def test_images() -> None:
    values = pixels((300, 400))
    other = values.copy()
    other[10, 20] += 2
    other[11, 21] += 8
    other[12, 22] = np.nan
    found = different(ch5.Image(values, unit="nJy"), ch5.Image(other, (1, 2), "mJy"))
    assert found.keys() == {"values", "origin", "units"}
    assert (found["units"].a, found["units"].b) == ("nJy", "mJy")
    assert (found["values"].count, found["values"].total, found["values"].at) == (3, 120_000, (10, 20))
    assert found["values"].largest == pytest.approx(8, rel=1e-6)
    found = different(ch5.Image(values), ch5.Image(values[:50].astype("f8")))
    assert sides(found) == {"content": ("300 x 400 float32", "50 x 400 float64")}


def test_large_images_are_compared_throughout() -> None:
    values = np.zeros((3, 1100, 1100))  # of several blocks
    other = values.copy()
    other[1, 2, 3], other[2, 17, 3], other[2, 17, 4] = 1, 50, np.nan
    (found,) = different(values, other).values()
    assert (found.count, found.at, found.largest) == (3, (1, 2, 3), 50)


def test_numbers_at_their_limits() -> None:
    assert different(np.array([-(2**63)]), np.array([2**63 - 1]))["values"].largest == 2.0**64
    assert different(np.array([0], "u1"), np.array([255], "u1"))["values"].largest == 255
    assert different(np.array([2**62]), np.array([2**62 + 1]))["values"].largest == 1
    assert different(np.array([np.inf]), np.array([1.0]))["values"].largest == np.inf
    assert different(np.array([np.nan]), np.array([1.0]))["values"].largest is None
    assert sides(different(np.array([0.0, 1.0]), np.array([-0.0, 1.0]))) == {"values": ("0.0", "-0.0")}


def test_masks_tables_and_records_are_compared_as_they_are_stored() -> None:
    flags = np.zeros((2, 3), "i4")
    found = different(ch5.Mask(flags, {"SAT": 1}), ch5.Mask(flags | 4, {"SAT": 1, "CR": 3}))
    assert found.keys() == {"planes", "values"}
    assert (found["values"].count, found["values"].largest) == (6, 4)
    a = QTable({"id": [1, 2, 3], "flux": [1.0, 2.0, 3.0] * u.nJy, "name": ["x", "y", "z"], "old": [0, 0, 0]})
    b = QTable({"id": [1, 2, 3], "flux": [1.0, 2.5, 7.0] * u.mJy, "name": ["x", "Y", "z"]})
    found = different(a, b)
    assert (found["old content"].a, found["old content"].b) == ("3 int64", None)
    assert (found["flux units"].a, found["flux units"].b) == ("nJy", "mJy")
    assert (found["flux values"].count, found["flux values"].largest, found["flux values"].at) == (2, 4, (1,))
    assert (found["name values"].a, found["name values"].b) == ("y", "Y")
    assert "@columns content" in found
    c, d = visit_info(), {**visit_info(), "exposure_time": 31 * u.s, "visit": 7.0, "a/b": "new"}
    assert sides(different(c, d)) == {
        "exposure_time values": ("30.0", "31.0"),
        "visit content": ("int64", "float64"),
        "visit type": ("int", "float"),
        "a%2Fb content": (None, "text"),
    }


def test_texts_and_headers_are_compared_by_lines() -> None:
    found = different("one\ntwo\nthree", "one\n2\nthree\n")["lines"]
    assert (found.a, found.b, found.count, found.total, found.at) == ("two", "2", 2, 4, (1,))
    moved = simple_wcs((300, 400))
    moved.wcs.crval = [150.1, 2.3]
    found = different(simple_wcs((300, 400)), moved)["lines"]
    assert [str(card)[:8] for card in (found.a, found.b)] == ["CRVAL2  ", "CRVAL2  "]


def test_another_kind() -> None:
    found = different(np.arange(3), "text")
    assert sides(found)["kind"] == ("array", "text")
    assert sides(found)["content"] == ("3 int64", "text")


def test_composites_within() -> None:
    inner = exposure((9, 8))
    moved = inner.replace({"variance": None}, data_id={**inner.data_id, "detector": 12})
    found = different([inner, inner, "a"], [moved, inner, "b"])
    assert {what.partition(" ")[0] for what in found} == {"0", "0/variance", "2"}
    assert '"detector":11' in str(found["0 data_id"].a)
    assert (found["0/variance content"].a, found["0/variance content"].b) == ("9 x 8 float32", None)


def test_kinds_that_are_not_known_are_compared_as_any(tmp_path: Path) -> None:
    for name, kernels in (("a", np.ones((3, 3)) / 9), ("b", np.ones((3, 3)) / 8)):
        ch5.Composite(None, x=ch5.Psf.constant(kernels)).write(tmp_path / f"{name}.h5")
        with h5py.File(tmp_path / f"{name}.h5", "r+") as file:
            file["composite/x"].attrs["kind"] = np.bytes_(b"unheard_of")
    (found,) = ch5.diff(tmp_path / "a.h5", tmp_path / "b.h5").differences
    assert (found.path, found.what, found.count) == ("x/kernels", "values", 9)


# ---- Absent, linked, lost, damaged --------------------------------------------------------------------------


def test_absent_missing_and_lost_are_told_apart(tmp_path: Path) -> None:
    visit, (linked, _) = write_visit(tmp_path)
    exposure(visit_info={**visit_info(), "airmass": 2.0}).write(tmp_path / "other.h5")
    exposure(visit_info=None).write(tmp_path / "absent.h5")
    exposure().write(tmp_path / "missing.h5")
    exposure(visit_info=visit_info()).write(tmp_path / "same.h5")

    def found(a: Path, b: Path) -> dict[str, tuple[str | None, str | None]]:
        comparison = ch5.diff(a, b, components=["visit_info"])
        assert comparison.identical == (not comparison.differences)
        return {d.what: (d.a, d.b) for d in comparison.differences}

    assert found(linked, tmp_path / "absent.h5") == {"content": ("record", "absent")}
    assert found(tmp_path / "missing.h5", tmp_path / "absent.h5") == {"content": (None, "absent")}
    assert found(tmp_path / "absent.h5", tmp_path / "absent.h5") == {}
    assert found(linked, tmp_path / "other.h5") == {"values": ("1.0625", "2.0")}
    visit.unlink()
    (lost, other) = found(linked, tmp_path / "other.h5")["content"]
    assert "is lost. Tried" in str(lost)
    assert other == "group"
    # By their digests these are the same, though one can't be read now.
    assert found(linked, tmp_path / "same.h5") == {}


def test_links_of_lists_are_compared_by_what_they_lead_to(tmp_path: Path) -> None:
    visits = []
    for visit in (1, 2, 3):
        ch5.Composite("visit", visit_info=visit_info(visit)).write(tmp_path / f"{visit}.h5")
        with ch5.open(tmp_path / f"{visit}.h5") as composite:
            visits.append(composite.link("visit_info"))
    # The first item is linked in one of them.
    for name, items in (("a", [visits[0], visits[1], "x"]), ("b", [visit_info(1), visits[2], "x"])):
        ch5.Composite(None, x=items, inner=ch5.Composite(None, y=items)).write(tmp_path / f"{name}.h5")
    for visit in (1, 2, 3):
        (tmp_path / f"{visit}.h5").unlink()  # they need not be read
    found = ch5.diff(tmp_path / "a.h5", tmp_path / "b.h5").differences
    told = {d.path: (d.a, d.b) for d in found if d.what == "content"}
    assert told.keys() == {"x/1", "inner/y/1"}
    assert visits[1].digest in str(told["x/1"][0])
    assert visits[2].id in str(told["x/1"][1])


def test_a_damaged_component_is_an_error(tmp_path: Path) -> None:
    exposure().write(tmp_path / "a.h5")
    exposure(image=ch5.Image(pixels((300, 400), 2), (100, 200), "nJy")).write(tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5") as file:
        start = file["composite/image"].id.get_chunk_info(0).byte_offset
    content = bytearray((tmp_path / "b.h5").read_bytes())
    content[start + 100 : start + 110] = bytes(10)
    (tmp_path / "b.h5").write_bytes(content)
    with pytest.raises(CorruptFileError, match="/composite/image"):
        ch5.diff(tmp_path / "a.h5", tmp_path / "b.h5")
    assert main(["diff", str(tmp_path / "a.h5"), str(tmp_path / "b.h5")]) == 2


def test_attributes_do_not_count() -> None:
    a = exposure()
    comparison = ch5.diff(a, a.replace(data_id={**a.data_id, "detector": 12}, run="r"))
    assert comparison.identical
    assert [d.what for d in comparison.attributes] == ["data_id", "run"]
    assert (comparison.attributes[1].a, comparison.attributes[1].b) == ("", "r")


def test_unknown_components_are_refused() -> None:
    with pytest.raises(ch5.CompositeH5Error, match="did you mean 'image'"):
        ch5.diff(exposure(), exposure(), components=["imag"])


# ---- FITS ---------------------------------------------------------------------------------------------------


def write_fits(path: Path, values: Any, **cards: Any) -> Path:
    fits.HDUList([fits.PrimaryHDU(header=fits.Header(cards)), fits.ImageHDU(values, name="SCI")]).writeto(path)
    return path


def test_a_changed_fits_file_differs_from_its_composite(tmp_path: Path) -> None:
    values = np.arange(12, dtype="f4").reshape(3, 4)
    convert(write_fits(tmp_path / "a.fits", values), tmp_path / "a.h5")
    values[1, 2] += 1
    (found,) = ch5.diff(write_fits(tmp_path / "b.fits", values), tmp_path / "a.h5").differences
    assert (found.count, found.at) == (1, (1, 2))


def test_two_fits_files_are_compared_by_astropy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = np.arange(12, dtype="f4").reshape(3, 4)
    a = write_fits(tmp_path / "a.fits", values, EXPTIME=1.0)
    values[1, 2] = 60
    b = write_fits(tmp_path / "b.fits", values, EXPTIME=2.0)
    shutil.copy(a, tmp_path / "c.fits")
    assert ch5.diff(a, tmp_path / "c.fits").identical
    report = ch5.diff(a, b).fits_report
    assert "Keyword EXPTIME" in report
    assert "Data differs at [3, 2]" in report
    assert main(["diff", str(a), str(tmp_path / "c.fits")]) == 0
    assert main(["diff", str(a), str(b)]) == 1
    assert "Keyword EXPTIME" in capsys.readouterr().out
    with pytest.raises(WrongValueError, match="no components"):
        ch5.diff(a, b, components=["SCI"])


def test_damaged_fits_files_are_refused(tmp_path: Path) -> None:
    good = data_file("exposure-version-2.fits").read_bytes()
    for content in (good[:-1], good[: len(good) // 2], good[:100], good + b"more"):
        (tmp_path / "a.fits").write_bytes(content)
        with pytest.raises(ConversionError, match="a.fits.*damaged"):
            ch5.diff(data_file("exposure-version-2.fits"), tmp_path / "a.fits")


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
    assert lines[3].split() == ["component", "what", "A", "B", "difference"]
    assert lines[4].startswith("image      values")
    assert lines[4].endswith("1 of 120000, largest 8, first at [10, 20]")
    assert lines[5].split() == ["psf", "content", "psf", "absent"]
    assert lines[6:] == ["2 of 5 components differ"]

    assert main(["diff", one, three]) == 0
    assert main(["diff", one, three, "--attributes"]) == 1
    assert main(["diff", one, two, "--component", "wcs", "--component", "mask"]) == 0
    capsys.readouterr()
    assert main(["diff", one, two, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["identical"] is False
    assert document["differences"][0]["at"] == [10, 20]
    assert main(["diff", one, str(tmp_path / "nothing.h5")]) == 2
    assert "nothing.h5" in capsys.readouterr().err


def test_the_command_takes_one_of_several_composites(tmp_path: Path) -> None:
    path = str(tmp_path / "two.h5")
    ch5.write_file(path, {"one": ch5.Composite(None, x="1"), "two": ch5.Composite(None, x="2")})
    assert main(["diff", f"{path}::one", f"{path}::two"]) == 1
    assert main(["diff", path, f"{path}::one"]) == 0
