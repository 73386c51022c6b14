"""Strategies for values of every type that is stored, and a comparison that lets nothing differ."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import (
    FK5,
    ICRS,
    AltAz,
    Angle,
    BaseCoordinateFrame,
    BaseRepresentationOrDifferential,
    CartesianDifferential,
    CartesianRepresentation,
    Distance,
    EarthLocation,
    Galactocentric,
    Latitude,
    Longitude,
    SkyCoord,
    frame_transform_graph,
)
from astropy.time import Time, TimeDelta
from astropy.utils.masked import Masked
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compositeh5.storage.nodes import ArrayNode, Group, GroupNode, Node, Selection
from compositeh5.storage.reader import StoredFile
from compositeh5.storage.writer import file_image


def stored(node: Node) -> Node:
    """Return a node as it comes back from an HDF5 file."""
    image = file_image(Group({"node": node}))
    return StoredFile(io.BytesIO(image), "memory.h5").root["node"]


class CountingArray(ArrayNode):
    """An array that counts the elements that are read."""

    def __init__(self, node: ArrayNode) -> None:
        self.node, self.attrs, self.where = node, node.attrs, node.where
        self.elements_read = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.node.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.node.dtype

    def read(self, selection: Selection = ()) -> np.ndarray[Any, Any]:
        values = self.node.read(selection)
        self.elements_read += values.size
        return values


def counting(node: Node) -> Node:
    """Return a tree whose arrays are counting ones."""
    if isinstance(node, ArrayNode):
        return CountingArray(node)
    assert isinstance(node, GroupNode)
    return Group({name: counting(child) for name, child in node.items()}, dict(node.attrs), node.where)


def elements_read(node: Node) -> int:
    if isinstance(node, CountingArray):
        return node.elements_read
    assert isinstance(node, GroupNode)
    return sum(map(elements_read, node.values()))


# Text that HDF5 can hold.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
# Any name at all, with those that HDF5 would misunderstand often.
names = st.one_of(
    st.sampled_from(["", ".", "..", "a/b", "@meta", "100%", "%2E", "keys", "ra\u202e"]), st.text(max_size=6)
)
units = st.sampled_from([u.m, u.nJy, u.km / u.s, u.deg, u.adu / u.s, u.dimensionless_unscaled, u.mag, u.Unit("10 m2")])

number_dtypes = st.one_of(
    hnp.integer_dtypes(endianness="?"),
    hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(sizes=(16, 32, 64), endianness="?"),
)
array_dtypes = st.one_of(
    number_dtypes,
    hnp.complex_number_dtypes(sizes=(64, 128), endianness="?"),
    st.just(np.dtype(bool)),
    hnp.byte_string_dtypes(max_len=5),
)


@st.composite
def arrays(draw: st.DrawFn, shape: Any = None) -> np.ndarray[Any, Any]:
    """Arrays of every dtype that is stored; ``shape`` as `hypothesis.extra.numpy.arrays` takes it."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)) if shape is None else shape
    if draw(st.booleans()):
        return draw(hnp.arrays(array_dtypes, shape))
    width = draw(st.integers(1, 6))
    return draw(hnp.arrays(f"U{width}", shape, elements=texts.map(lambda text: text[:width])))


@st.composite
def quantities(draw: st.DrawFn, shape: Any = None) -> u.Quantity:
    """Quantities and their subclasses."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4)) if shape is None else shape
    floats = hnp.floating_dtypes(sizes=(32, 64))
    cls = draw(st.sampled_from([u.Quantity, Angle, Longitude, Latitude, Distance, u.Magnitude, u.Dex, u.Decibel]))
    if cls is u.Quantity:
        values = draw(hnp.arrays(number_dtypes, shape))
        return u.Quantity(values, draw(units), dtype=values.dtype)
    values = draw(hnp.arrays(floats, shape, elements=st.integers(0, 90)))
    if cls is Longitude:
        return Longitude(values, u.deg, wrap_angle=draw(st.sampled_from([180, 360, 57])) * u.deg, dtype=values.dtype)
    unit = {Distance: u.Mpc, u.Magnitude: u.ABmag, u.Dex: u.dex(u.cm / u.s**2), u.Decibel: u.dB(u.W)}.get(cls, u.deg)
    return cls(values, unit, dtype=values.dtype)


@st.composite
def masked(draw: st.DrawFn, shape: Any = None) -> Any:
    """Masked arrays of numpy and of astropy."""
    if draw(st.booleans()):
        values = draw(st.one_of(arrays(shape), quantities(shape)).filter(lambda v: v.dtype.kind not in "US"))
        return Masked(values, mask=draw(hnp.arrays(bool, values.shape)))
    values = draw(arrays(shape))
    fill_value = draw(hnp.arrays(values.dtype, ())) if values.dtype.kind in "iuf" and draw(st.booleans()) else None
    mask = draw(st.one_of(st.just(np.ma.nomask), hnp.arrays(bool, values.shape)))
    return np.ma.MaskedArray(values, mask, fill_value=fill_value, hard_mask=draw(st.booleans()))


def locations(shape: tuple[int, ...]) -> st.SearchStrategy[EarthLocation]:
    xyz = hnp.arrays(float, (3, *shape), elements=st.floats(-7e6, 7e6))
    return st.builds(lambda a, unit: EarthLocation.from_geocentric(*a, unit=unit), xyz, st.sampled_from(["m", "km"]))


@st.composite
def times(draw: st.DrawFn, shape: Any = None) -> Time | TimeDelta:
    """Times and differences, some masked, some with a location."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3)) if shape is None else shape
    jd1 = draw(hnp.arrays(float, shape, elements=st.integers(2415021, 2469808)))
    jd2 = draw(hnp.arrays(float, shape, elements=st.floats(-1, 1)))
    if draw(st.booleans()):
        value: Any = TimeDelta(jd1, jd2, format="jd", scale=draw(st.sampled_from([None, "tai", "tdb", "local"])))
        value.format = draw(st.sampled_from(["jd", "sec", "datetime"]))
    else:
        location = draw(st.sampled_from([(), shape]).flatmap(locations)) if draw(st.booleans()) else None
        scale, precision = draw(st.sampled_from(["tai", "utc", "tdb", "tt"])), draw(st.integers(0, 9))
        value = Time(jd1, jd2, format="jd", scale=scale, location=location, precision=precision)
        value.format = draw(st.sampled_from(["mjd", "isot", "jyear_str", "unix", "yday", "datetime64"]))
    if shape and draw(st.booleans()):
        value[draw(hnp.arrays(bool, shape))] = np.ma.masked
    return value


@st.composite
def sky_coords(draw: st.DrawFn, shape: Any = None) -> SkyCoord:
    """Coordinates in several frames and representations, with velocities and the attributes of frames."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3)) if shape is None else shape

    def values(low: float, high: float) -> Any:
        return draw(hnp.arrays(float, shape, elements=st.floats(low, high)))

    lon, lat = values(0, 359) * u.deg, values(-90, 90) * u.deg
    speed = {"pm_ra_cosdec": values(-9, 9) * u.mas / u.yr, "pm_dec": values(-9, 9) * u.mas / u.yr}
    time = Time(draw(st.floats(50000, 60000)), format="mjd")
    site = draw(locations(()))
    return draw(
        st.sampled_from(
            [
                lambda: SkyCoord(lon, lat),
                lambda: SkyCoord(lon, lat, obstime=time, location=site),
                lambda: SkyCoord(lon, lat, distance=values(1, 9) * u.kpc, frame=FK5(equinox="J1975")),
                lambda: SkyCoord(lon, lat, **speed),
                lambda: SkyCoord(
                    lon, lat, **speed, distance=values(1, 9) * u.pc, radial_velocity=values(0, 9) * u.km / u.s
                ),
                lambda: SkyCoord(lon, lat, frame="galactic", representation_type="unitspherical"),
                lambda: SkyCoord(lon, lat, frame=AltAz(obstime=time, location=site, pressure=80000 * u.Pa)),
                lambda: SkyCoord(*(values(-9, 9) * u.kpc for _ in range(3)), representation_type="cartesian"),
                lambda: SkyCoord(Galactocentric(CartesianRepresentation(*(values(-9, 9) * u.kpc for _ in range(3))))),
                lambda: SkyCoord(Masked(lon, mask=values(0, 1) > 0.5), Masked(lat, mask=values(0, 1) > 0.5)),
            ]
        )
    )()


python_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.complex_numbers(),
    texts,
    st.binary(max_size=8),
)
numpy_scalars = st.one_of(
    array_dtypes.flatmap(lambda dtype: hnp.arrays(dtype, ())).map(lambda a: a[()]), texts.map(np.str_)
)
leaves = st.one_of(
    python_scalars,
    numpy_scalars,
    arrays(),
    quantities(),
    masked(),
    times(),
    sky_coords(),
    st.sampled_from([(), (2,)]).flatmap(locations),
    st.just(ICRS(1 * u.deg, 2 * u.deg)),
    st.just(CartesianRepresentation([1, 2] * u.m, [3, 4] * u.m, [5, 6] * u.m)),
    st.just(CartesianDifferential(1 * u.m / u.s, 2 * u.m / u.s, 3 * u.m / u.s)),
    *(st.lists(items, max_size=4) for items in (st.booleans(), st.integers(), st.floats(), texts)),
)


def values(max_leaves: int = 8) -> st.SearchStrategy[Any]:
    """Values of every type, nested in lists, tuples and dicts."""
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(names, inner, max_size=3),
        ),
        max_leaves=max_leaves,
    )


def row_selections(length: int) -> st.SearchStrategy[Any]:
    """Return strategies for what may select some of ``length`` rows."""
    numbers = st.lists(st.integers(-length, length - 1), max_size=5) if length else st.just([])
    return st.one_of(st.slices(length), hnp.arrays(bool, length), numbers.map(lambda rows: np.array(rows, int)))


def assert_same(one: Any, other: Any) -> None:
    """Assert that two values don't differ: not in type, dtype, unit, shape, bits or settings."""
    if isinstance(one, Mapping):
        assert isinstance(other, Mapping)
        assert list(one) == list(other)
        for name in one:
            assert_same(one[name], other[name])
        return
    assert type(one) is type(other)
    if isinstance(one, list | tuple):
        assert len(one) == len(other)
        for item, other_item in zip(one, other, strict=True):
            assert_same(item, other_item)
    elif isinstance(one, Time | TimeDelta):
        for name in ("scale", "format", "precision", "in_subfmt", "out_subfmt", "masked", "shape"):
            assert getattr(one, name) == getattr(other, name)
        if isinstance(one, Time) and one.location is not None:
            # A new Time drops the axes of a single location, a slice of one doesn't.
            assert_same(*(np.broadcast_to(time.location, one.shape, subok=True) for time in (one, other)))
        elif isinstance(one, Time):
            assert other.location is None
        _assert_same_array(np.asarray(one.mask), np.asarray(other.mask))
        for name in ("jd1", "jd2"):
            _assert_same_array(*(np.asarray(getattr(time.unmasked, name)) for time in (one, other)))
    elif isinstance(one, SkyCoord):
        assert_same(one.frame, other.frame)
        for name in frame_transform_graph.frame_attributes:
            assert_same(getattr(one, name), getattr(other, name))
    elif isinstance(one, BaseCoordinateFrame):
        assert one.get_representation_cls(None) == other.get_representation_cls(None)
        assert_same(one.data, other.data)
        for name in one.frame_attributes:
            assert_same(getattr(one, name), getattr(other, name))
    elif isinstance(one, BaseRepresentationOrDifferential):
        for name in one.components:
            assert_same(getattr(one, name), getattr(other, name))
        assert_same(dict(getattr(one, "differentials", {})), dict(getattr(other, "differentials", {})))
    elif isinstance(one, Masked):
        _assert_same_array(np.asarray(one.mask), np.asarray(other.mask))
        assert_same(one.unmasked, other.unmasked)
    elif isinstance(one, np.ma.MaskedArray):
        _assert_same_array(one.data, other.data)
        assert (one.mask is np.ma.nomask) == (other.mask is np.ma.nomask)
        _assert_same_array(np.ma.getmaskarray(one), np.ma.getmaskarray(other))
        _assert_same_array(one.fill_value, other.fill_value)
        assert one.hardmask == other.hardmask
    elif isinstance(one, u.Quantity):
        assert one.unit == other.unit
        assert str(one.unit) == str(other.unit)
        assert getattr(one, "wrap_angle", None) == getattr(other, "wrap_angle", None)
        assert getattr(one, "ellipsoid", None) == getattr(other, "ellipsoid", None)
        _assert_same_array(one.view(np.ndarray), other.view(np.ndarray))
    elif isinstance(one, np.ndarray | np.generic):
        _assert_same_array(np.asarray(one), np.asarray(other))
    else:
        assert one == other or (one != one and other != other)


def _assert_same_array(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> None:
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    assert one.tobytes() == other.tobytes()
