"""The kind ``record``, and through it every typed value."""

from __future__ import annotations

import copy
import datetime
import decimal
import enum
import pickle
import unicodedata
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import ICRS, EarthLocation, SkyCoord
from astropy.time import Time
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typed_values import assert_same, counting, elements_read, names, stored, values

from compositeh5 import kinds
from compositeh5.errors import EncodeError, FormatError, NoSuchComponentError
from compositeh5.kinds.record import Record
from compositeh5.storage.nodes import Array, Group, Node, escape_name, unescape_name

exact = settings(max_examples=60, suppress_health_check=list(HealthCheck))
records = st.dictionaries(names, values(), max_size=3)


@exact
@given(records)
def test_round_trip_equality_and_copies(fields: dict[str, Any]) -> None:
    node = kinds.encode(fields)
    assert_same(fields, kinds.decode(node).to_dict())
    assert_same(fields, kinds.decode(stored(node)).to_dict())
    record = Record(fields)
    assert record == fields
    assert dict(reversed(fields.items())) == record
    assert copy.copy(record) is record
    for again in (copy.deepcopy(record), pickle.loads(pickle.dumps(record, 5)), Record(record)):
        assert_same(fields, again.to_dict())
    assert record.replace(more=1) != fields
    assert "\n" not in repr(record)
    assert len(repr(record)) < 120


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1.0, np.float64(1)),
        (True, 1),
        ([1], (1,)),
        (1 * u.m, 100 * u.cm),
        (np.arange(3), np.arange(3.0)),
        (np.arange(3), np.arange(4)),
        (np.array([np.nan, 1]), np.array([np.nan, 2])),
        (Time(5, format="mjd", scale="tai"), Time(5, format="mjd", scale="utc")),
        ({"x": 1}, {"y": 1}),
        ("", None),
        (None, object()),
    ],
)
def test_what_differs_is_not_equal(one: Any, other: Any) -> None:
    assert Record(value=one) != {"value": other}


def test_fields_are_items_and_attributes() -> None:
    record = Record({"exposure_time": 30.0, "weather": {"temperature": 9.5 * u.deg_C}, "keys": 3})
    assert record.exposure_time == record["exposure_time"] == 30.0
    assert record.weather.temperature == 9.5 * u.deg_C
    assert isinstance(record.weather, Record)
    assert record["keys"] == 3
    assert list(record.keys()) == ["exposure_time", "weather", "keys"]
    assert "exposure_time" in dir(record)
    with pytest.raises(AttributeError, match="did you mean 'exposure_time'"):
        record.exposuretime
    with pytest.raises(KeyError):
        record["exptime"]
    with pytest.raises(TypeError):
        hash(record)


def test_nothing_can_be_changed() -> None:
    array = np.arange(3.0)
    time = Time([1.0, 2.0], format="mjd", location=EarthLocation.from_geocentric(1, 2, 3, unit="m"))
    record = Record(
        array=array,
        quantity=array * u.m,
        masked=np.ma.MaskedArray(array, [0, 1, 0]),
        time=time,
        coord=SkyCoord([1, 2] * u.deg, [3, 4] * u.deg),
        list=[[1, 2], "a"],
        inner={"array": array},
    )
    with pytest.raises(AttributeError, match="replace"):
        record.array = 3
    with pytest.raises(AttributeError):
        del record.array
    for change in (
        lambda: record.array.__setitem__(0, 5),
        lambda: record.quantity.__setitem__(0, 5 * u.m),
        lambda: record.masked.__setitem__(0, 5),
        lambda: record.masked.__setitem__(0, np.ma.masked),
        lambda: record.time.__setitem__(0, time[1]),
        lambda: record.time.location.__setitem__((), time.location),
        lambda: record.coord.__setitem__(0, record.coord[1]),
        lambda: record.inner.array.__setitem__(0, 5),
    ):
        with pytest.raises(ValueError, match="read-only"):
            change()
    record["list"][0].append(3)
    assert record["list"] == [[1, 2], "a"]
    # The caller's own stay as they were, and are not copied.
    assert array.flags.writeable
    assert time.writeable
    assert np.shares_memory(record.array, array)


def test_replace_keeps_the_order() -> None:
    record = Record(a=1, b=2).replace(a=3, c=4)
    assert list(record.items()) == [("a", 3), ("b", 2), ("c", 4)]


COORD = SkyCoord(1 * u.deg, 2 * u.deg)


class Colour(enum.IntEnum):
    RED = 1


class MyArray(np.ndarray):
    pass


class MyTime(Time):
    pass


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (object(), "dict"),
        (decimal.Decimal(1), "dict"),
        (datetime.datetime(2020, 1, 1), "Time"),
        (datetime.date(2020, 1, 1), "Time"),
        (Colour.RED, r"int\(value\)"),
        ({1, 2}, "sorted"),
        ({1: 2}, "key"),
        (np.ma.masked, "None"),
        (np.array([object()]), "astype"),
        (np.zeros(1, "M8[s]"), "Time"),
        (np.longdouble(1), "astype"),
        (np.zeros(1, [("x", "f4")])[0], "field"),
        ("a\0", "bytes"),
        ("\ud800", "surrogates"),
        (["a", "\0"], r"\[1\].*bytes"),
        (np.array(["\ud800"]), "surrogates"),
        (np.arange(3).view(MyArray), "asarray"),
        pytest.param(10**5000, "digits", id="many digits"),
        (MyTime(5, format="mjd"), r"Time\(value\)"),
        (5 * u.def_unit("bottle"), "bottle"),
        (COORD.skyoffset_frame(), "frame"),
        (COORD.transform_to(COORD.skyoffset_frame()), "SkyOffset"),
        (ICRS(), "without coordinates"),
    ],
)
def test_what_cannot_be_stored_is_named(value: Any, advice: str) -> None:
    with pytest.raises(EncodeError, match=rf"^observatory\.lat.*{advice}"):
        Record({"observatory": {"lat": value}})


def nested(depth: int) -> dict[str, Any]:
    fields: dict[str, Any] = {"x": 1}
    for _ in range(depth - 1):
        fields = {"inner": fields}
    return fields


def test_depth() -> None:
    assert kinds.decode(kinds.encode(nested(16))) == nested(16)
    with pytest.raises(EncodeError, match="16"):
        kinds.encode(nested(17))
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(EncodeError, match="16"):
        kinds.encode({"endless": endless})
    deep: Node = Array(np.array(1), {"type": "int"})
    for _ in range(2000):
        deep = Group({"a": deep}, {"type": "record", "kind": "record", "kind_version": 1})
    with pytest.raises(FormatError, match="16"):
        kinds.decode(deep)


def test_some_fields() -> None:
    node = counting(kinds.encode({"a": np.arange(100), "b/c": 2, "c": 3}))
    assert kinds.decode(node, fields=["c", "b/c"]) == {"c": 3, "b/c": 2}
    assert list(kinds.decode(node, fields="c")) == ["c"]
    assert elements_read(node) == 3
    with pytest.raises(NoSuchComponentError, match="'d'.*b/c"):
        kinds.decode(node, fields=["d"])


def test_scalars_are_readable_by_any_tool() -> None:
    node: Any = kinds.encode({"site": {"date": Time("2025-03-01T04:05:06.789", scale="tai")}, "exptime": 30 * u.s})
    assert node["exptime"].attrs == {"type": "quantity", "units": "s"}
    assert node["exptime"].shape == ()
    assert node["site"]["date"].attrs["isot"] == "2025-03-01T04:05:06.789"


def typed(type_: str, data: Any = 1, **attrs: Any) -> Array:
    return Array(np.asarray(data), {"type": type_, **attrs})


def group(type_: str, children: dict[str, Any] | None = None, **attrs: Any) -> Group:
    return Group(
        {name: typed("array", data) if isinstance(data, list) else data for name, data in (children or {}).items()},
        {"type": type_, **attrs},
    )


coords = {"lon": typed("longitude", 1.0, units="deg"), "lat": typed("latitude", 1.0, units="deg")}
icrs = {"frame": "icrs", "representation": "unitspherical", "representation_type": "spherical"}
jds = {"jd1": [1.0, 2.0], "jd2": [0.0, 0.0]}
utc = {"format": "mjd", "scale": "utc"}


@pytest.mark.parametrize(
    "node",
    [
        Array(np.array(1)),
        typed("module.Class"),
        typed("float"),
        typed("int", [1]),
        typed("int", "one"),
        typed("int", "9" * 5000),
        typed("bool", 2),
        typed("str", b"abc"),
        typed("bytes", [1, 2]),
        *(group(type_) for type_ in ("bytes", "int", "array", "quantity", "list", "masked_array")),
        typed("array", np.array(["abc"]), length=2),
        typed("array", np.array(["abc"]), length="3"),
        typed("quantity"),
        typed("quantity", units="no unit"),
        typed("quantity", "a", units="m"),
        typed("magnitude", units="m"),
        typed("latitude", 91.0, units="deg"),
        typed("longitude", 1.0, units="m"),
        typed("record"),
        typed("time"),
        typed("list", [1], item="float"),
        typed("list", [1]),
        typed("list", 1, item="int"),
        group("list", {"0": typed("int")}, length=2),
        group("list", {"1": typed("int")}, length=1),
        group("list", {"0": typed("int")}, length=-1),
        group("list", {"0": typed("int")}, length=10**12),
        group("record", {"%": typed("int"), "%zz": typed("int")}),
        group("record", {"a": typed("int"), "%61": typed("int")}),
        group("masked_array", {"values": [1, 2], "mask": [True]}),
        group("masked_array", {"values": [1, 2], "mask": [1, 2]}),
        group("masked_array", {"values": [1, 2], "fill_value": typed("array", "a")}),
        group("masked", {"values": [1, 2]}),
        group("masked", {"values": typed("str", "a"), "mask": typed("array", True)}),
        group("time", jds, format="mjd", scale="moon"),
        group("time", jds, format="os.system", scale="utc"),
        group("time", jds, scale="utc"),
        group("time", jds, **utc, precision=99),
        group("time", jds, **utc, out_subfmt="x"),
        group("time", {**jds, "location": typed("int")}, **utc),
        group("time", {**jds, "mask": [True]}, **utc),
        group("time", {"jd1": [1.0], "jd2": [0.0, 1.0]}, **utc),
        group("time", {"jd1": [np.nan], "jd2": [0.0]}, **utc),
        group("time", {"jd1": [1], "jd2": [0]}, **utc),
        group("time", {"jd1": [1.0]}, **utc),
        group("timedelta", jds, format="mjd"),
        typed("earth_location", [1.0, 2.0], units="m", ellipsoid="WGS84"),
        typed("earth_location", [1.0, 2.0, 3.0], units="s", ellipsoid="WGS84"),
        typed("earth_location", [1.0, 2.0, 3.0], units="m", ellipsoid="flat"),
        typed("earth_location", 1.0, units="m", ellipsoid="WGS84"),
        group("sky_coord", {}, **icrs),
        group("sky_coord", {"lon": coords["lon"]}, **icrs),
        group("sky_coord", coords, **{**icrs, "frame": "os.system"}),
        group("sky_coord", coords, **{**icrs, "representation": "flat"}),
        group("sky_coord", coords, **{**icrs, "representation_type": "flat"}),
        group("sky_coord", {**coords, "lat": typed("quantity", 1.0, units="m")}, **icrs),
        group("sky_coord", {**coords, "attributes": group("record", {"colour": typed("int")})}, **icrs),
        group("sky_coord", {**coords, "attributes": group("record", {"obstime": typed("bool", True)})}, **icrs),
        group("sky_coord", {**coords, "differential": typed("int")}, **icrs),
        group("sky_coord", {**coords, "differential": group("representation", coords, **icrs)}, **icrs),
        group("frame", {**coords, "attributes": group("record", {"obswl": typed("quantity", 1.0, units="m")})}, **icrs),
    ],
)  # fmt: skip
def test_bad_nodes(node: Node) -> None:
    record = Group({"field": node}, {"type": "record", "kind": "record", "kind_version": 1})
    with pytest.raises(FormatError):
        kinds.decode(record)


@given(names, names)
def test_link_names(one: str, other: str) -> None:
    link = escape_name(one)
    assert unescape_name(link) == one
    assert (link == escape_name(other)) == (one == other)
    assert link not in ("", ".", "..")
    assert not link.startswith("@")
    assert "/" not in link
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in link)


@pytest.mark.parametrize("link", ["%4", "a%", "%zz", "%ff", "%C3", "%2e%"])
def test_wrong_link_names(link: str) -> None:
    with pytest.raises(FormatError, match="file.h5"):
        unescape_name(link, "file.h5:/a")
