"""Images, and what images and masks share: origin, box, cuts, partial reads."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compositeh5 import kinds
from compositeh5.box import Box
from compositeh5.errors import EncodeError, FormatError, OutsideError
from compositeh5.kinds.image import Image
from compositeh5.kinds.mask import Mask
from compositeh5.storage.nodes import Array, ArrayNode, Group

UNITS = [None, u.nJy, u.ABmag, u.dimensionless_unscaled, u.nJy**2, u.electron / u.s, u.m ** (1 / 3), u.Unit("1e-7 m")]
ORIGINS = st.tuples(st.integers(-(2**62), 2**62), st.integers(-(2**40), 2**40))


class RecordingNode(ArrayNode):
    """An array node that remembers how many elements were read."""

    def __init__(self, node):
        self.node, self.attrs, self.where, self.read_count = node, node.attrs, "file.h5:/c/image", 0

    @property
    def shape(self):
        return self.node.shape

    @property
    def dtype(self):
        return self.node.dtype

    def read(self, selection=()):
        values = self.node.read(selection)
        self.read_count += values.size
        return values


@st.composite
def box_inside(draw, full):
    y0, y1 = sorted(draw(st.tuples(*[st.integers(full.y0, full.y1)] * 2)))
    x0, x1 = sorted(draw(st.tuples(*[st.integers(full.x0, full.x1)] * 2)))
    return Box(y0, y1, x0, x1)


@st.composite
def arrays(draw, kinds="iuf"):
    dtypes = {
        "i": hnp.integer_dtypes(),
        "u": hnp.unsigned_integer_dtypes(),
        "f": hnp.floating_dtypes(sizes=(16, 32, 64)),
    }
    dtype = draw(st.one_of([dtypes[kind] for kind in kinds]))
    return draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=5)))


def assert_same_image(actual, expected):
    assert type(actual) is Image
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual.array, expected.array)
    assert actual.origin == expected.origin
    assert actual.unit == expected.unit
    assert (actual.unit is None) == (expected.unit is None)


@given(arrays(), ORIGINS, st.sampled_from(UNITS))
def test_images_come_back_exactly(array, origin, unit):
    image = Image(array, origin, unit)
    node = kinds.encode(image)
    assert node.read() is array
    assert_same_image(kinds.decode(node), image)


@given(st.data(), st.sampled_from([Image, Mask]))
def test_a_box_reads_only_itself_and_equals_the_cut(data, cls):
    array = data.draw(arrays("iu"))
    value = cls(array, origin=data.draw(ORIGINS))
    box = data.draw(box_inside(value.box))
    node = RecordingNode(kinds.encode(value))
    part, cut = kinds.decode(node, box=box), value.cut(box)
    assert node.read_count == np.prod(array.shape[:-2], dtype=int) * np.prod(box.shape, dtype=int)
    assert type(part) is type(cut) is cls
    assert part.box == cut.box == box
    np.testing.assert_array_equal(part.array, cut.array)
    y, x = box.y0 - value.origin[0], box.x0 - value.origin[1]
    np.testing.assert_array_equal(cut.array, array[..., y : y + box.shape[0], x : x + box.shape[1]])


@pytest.mark.parametrize("cls", [Image, Mask])
def test_cuts_are_views_that_keep_parent_coordinates(cls):
    whole = cls(np.zeros((3, 10, 20), "i4"), origin=(100, -5))
    assert whole.box == Box(100, 110, -5, 15)
    cut = whole.cut(Box(102, 104, 0, 3)).cut(Box(103, 104, 1, 3))
    cut.array[...] = 7
    assert (whole.array == 7).nonzero()[1].tolist() == [3] * 6
    assert whole.array[:, 3, 6:8].min() == 7


@pytest.mark.parametrize("cls", [Image, Mask])
@pytest.mark.parametrize("box", [Box(4, 7, 0, 2), Box(3, 4, 0, 2), Box(5, 6, 0, 5), Box(5, 6, -1, 0), Box(9, 9, 0, 0)])
def test_boxes_that_stick_out_are_refused_naming_both(cls, box):
    value = cls(np.zeros((2, 4), "u1"), origin=(4, 0))
    for attempt in (lambda: value.cut(box), lambda: kinds.decode(kinds.encode(value), box=box)):
        with pytest.raises(OutsideError) as caught:
            attempt()
        assert str(box) in str(caught.value)
        assert str(value.box) in str(caught.value)


def test_a_quantity_is_an_image_with_its_unit_and_the_image_a_quantity():
    values = np.arange(6.0).reshape(2, 3)
    image = kinds.decode(kinds.encode(values * u.nJy, "image"))
    assert image.unit == u.nJy
    assert image.quantity.unit == u.nJy
    assert np.shares_memory(Image(values, unit="nJy").quantity.value, values)
    assert Image(values, unit=u.ABmag).quantity[0, 1] == 1 * u.ABmag
    assert np.asarray(image).tolist() == values.tolist()
    with pytest.raises(EncodeError, match="own unit nJy"):
        Image(values * u.nJy, unit="mJy")
    with pytest.raises(ValueError, match="no unit"):
        Image(values).quantity


def test_an_unknown_unit_is_not_a_dimensionless_one():
    values = np.zeros((2, 2))
    assert "units" not in kinds.encode(values, "image").attrs
    assert kinds.encode(Image(values, unit="")).attrs["units"] == ""


def test_the_repr_is_one_line():
    assert repr(Image(np.zeros((2, 3), "f4"), (1, -2), "nJy")) == "<Image (2, 3) float32 origin=(1, -2) unit='nJy'>"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros(3), "two axes"),
        (np.zeros((2, 2), complex), "complex128"),
        (np.zeros((2, 2), bool), "bool"),
        (np.zeros((2, 2), "U3"), "U3"),
        (np.zeros((2, 2), "M8[s]"), "datetime64"),
        (np.zeros((2, 2), np.longdouble), "convert"),
        (np.ma.masked_array(np.zeros((2, 2))), "masked"),
        ([[1, 2]], "found list"),
        (None, "found NoneType"),
    ],
)
def test_other_values_are_no_images(value, message):
    with pytest.raises(EncodeError, match=message):
        kinds.encode(value, "image")


@pytest.mark.parametrize("origin", [(0.5, 0), (1,), (1, 2, 3), None, "ab", (2**63, 0)])
def test_origins_are_two_integers(origin):
    with pytest.raises(EncodeError, match="origin"):
        Image(np.zeros((2, 2)), origin)


@pytest.mark.parametrize(
    "unit", ["furlong per fortnight", u.def_unit("zorkmid"), 3, u.Unit(1.23456789 * u.m), "m" * 300]
)
def test_units_that_would_not_come_back_are_refused(unit):
    with pytest.raises(EncodeError, match="unit"):
        Image(np.zeros((2, 2)), unit=unit)


@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"origin": 3},
        {"origin": np.zeros(2)},
        {"origin": np.zeros(3, "i8")},
        {"origin": np.zeros(2, "i8"), "units": "furlong"},
        {"origin": np.zeros(2, "i8"), "units": 3},
        {"origin": np.zeros(2, "i8"), "units": "m, s"},
        {"origin": np.zeros(2, "i8"), "units": "(" * 5000},
        {"origin": np.zeros(2, "i8"), "units": "10**100000000 m"},
        {"origin": np.zeros(2, "i8"), "units": "7 9**(100000000/1) m"},
    ],
)
def test_bad_attributes_are_format_errors(attrs):
    node = Array(np.zeros((2, 2)), {"kind": "image", "kind_version": 1, **attrs}, "f.h5:/c/image")
    with pytest.raises(FormatError, match="f.h5:/c/image"):
        kinds.decode(node)


@pytest.mark.parametrize("node", [Array(np.zeros(2)), Array(np.zeros((2, 2), "S3")), Group()])
@pytest.mark.parametrize("kind", ["image", "mask"])
def test_nodes_of_other_shape_are_format_errors(node, kind):
    node.attrs = {"kind": kind, "kind_version": 1, "origin": np.zeros(2, "i8"), "planes": "{}"}
    with pytest.raises(FormatError, match="array of pixels"):
        kinds.decode(node)
