"""Images and masks: pixels with an origin, of which a box can be read or cut; and the named planes of masks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy import units as u
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from typed_values import counting, elements_read

from compositeh5 import kinds
from compositeh5.box import Box
from compositeh5.errors import EncodeError, FormatError, OutsideError
from compositeh5.kinds.image import Image
from compositeh5.kinds.mask import Mask, MaskPlane, MaskPlaneError
from compositeh5.storage.nodes import Array, Group

UNITS = [None, u.nJy, u.ABmag, u.dimensionless_unscaled, u.nJy**2, u.electron / u.s, u.m ** (1 / 3), u.Unit("1e-7 m")]
ORIGINS = st.tuples(st.integers(-(2**62), 2**62), st.integers(-(2**40), 2**40))
INTEGERS = st.one_of(hnp.integer_dtypes(), hnp.unsigned_integer_dtypes())
NUMBERS = INTEGERS | hnp.floating_dtypes(sizes=(16, 32, 64))
NAMES = st.text(min_size=1, max_size=20).filter(lambda name: name.isprintable() and name == name.strip())


def arrays(dtypes, **shape):
    return dtypes.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_side=5, **shape)))


def bit_count(dtype):
    return 8 * dtype.itemsize - (dtype.kind == "i")


@st.composite
def masks(draw):
    array = draw(arrays(INTEGERS, max_dims=3))
    bits = draw(st.lists(st.integers(0, bit_count(array.dtype) - 1), unique=True))
    names = draw(st.lists(NAMES, unique=True, min_size=len(bits), max_size=len(bits)))
    planes = {name: MaskPlane(bit, draw(st.text(max_size=10))) for name, bit in zip(names, bits, strict=True)}
    return Mask(array, planes, draw(ORIGINS))


images = st.builds(Image, arrays(NUMBERS, max_dims=4, min_side=0), ORIGINS, st.sampled_from(UNITS))


@settings(max_examples=60)
@given(images | masks())
def test_images_and_masks_come_back_exactly(value):
    node = kinds.encode(value)
    assert node.read() is value.array
    decoded = kinds.decode(node)
    assert (type(decoded), decoded.dtype, decoded.origin) == (type(value), value.dtype, value.origin)
    np.testing.assert_array_equal(decoded.array, value.array)
    if isinstance(value, Image):
        assert decoded.unit == value.unit
        assert (decoded.unit is None) == (value.unit is None)
    else:
        assert list(decoded.planes.items()) == list(value.planes.items())
        backwards = Mask(value.array, dict(reversed(value.planes.items())), value.origin)
        assert kinds.encode(backwards).attrs["planes"] == node.attrs["planes"]


@given(st.data(), st.sampled_from([Image, Mask]))
def test_a_box_reads_only_itself_and_equals_the_cut(data, cls):
    array = data.draw(arrays(INTEGERS, max_dims=4, min_side=0))
    value = cls(array, origin=data.draw(ORIGINS))
    full = value.box
    y0, y1 = sorted(data.draw(st.tuples(*[st.integers(full.y0, full.y1)] * 2)))
    x0, x1 = sorted(data.draw(st.tuples(*[st.integers(full.x0, full.x1)] * 2)))
    box = Box(y0, y1, x0, x1)
    node = counting(kinds.encode(value))
    part, cut = kinds.decode(node, box=box), value.cut(box)
    assert elements_read(node) == np.prod(array.shape[:-2], dtype=int) * np.prod(box.shape, dtype=int)
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
        *(
            {"origin": np.zeros(2, "i8"), "units": units}
            for units in ("furlong", 3, "m, s", "(" * 5000, "10**100000000 m", "7 9**(100000000/1) m")
        ),
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


# ---- Planes of masks -------------------------------------------------------------------------------------------


@given(masks(), st.data())
def test_setting_and_clearing_changes_only_that_plane_of_those_pixels(mask, data):
    if not mask.planes:
        mask.add("BAD")
    name = data.draw(st.sampled_from(sorted(mask.planes)))
    where = data.draw(hnp.arrays(bool, mask.shape))
    before = mask.array.copy()
    mask.set(name, where)
    assert mask.has(name)[where].all()
    np.testing.assert_array_equal(mask.has(name)[~where], ((before >> mask.planes[name].bit) & 1).astype(bool)[~where])
    mask.clear(name, where)
    assert not mask.has(name)[where].any()
    others = ~mask.dtype.type(mask.bits(name))
    np.testing.assert_array_equal(mask.array & others, before & others)


@given(INTEGERS)
def test_planes_are_added_on_the_lowest_free_bit_until_the_type_is_full(dtype):
    mask = Mask(np.zeros((1, 1), dtype), {"TAKEN": 1})
    bits = [mask.add(f"P{i}") for i in range(bit_count(mask.dtype) - 1)]
    assert bits == [0, *range(2, bit_count(mask.dtype))]
    with pytest.raises(EncodeError, match="no bit is left"):
        mask.add("ONE_TOO_MANY")
    mask.set(f"P{len(bits) - 1}", ...)
    assert mask.array[0, 0] == 2 ** (bit_count(mask.dtype) - 1)


def test_any_of_several_planes_or_any_bit_at_all():
    mask = Mask(np.array([[0, 1, 4, 8]], "u1"), {"BAD": 0, "SAT": 2})
    assert mask.has("BAD").tolist() == [[False, True, False, False]]
    assert mask.has("BAD", "SAT").tolist() == [[False, True, True, False]]
    assert mask.has().tolist() == [[False, True, True, True]]
    assert mask.bits("BAD", "SAT") == 5
    assert mask.bits() == 0


def test_planes_of_that_name_are_asked_for_by_mistake():
    mask = Mask(np.zeros((2, 2), "i4"), {"SAT": 1, "BAD": 0})
    for attempt in (
        lambda: mask.has("CR"),
        lambda: mask.bits("BAD", "CR"),
        lambda: mask.set("CR", ...),
        lambda: mask.clear("CR", ...),
    ):
        with pytest.raises(MaskPlaneError, match="no plane 'CR'; it has BAD, SAT"):
            attempt()
    with pytest.raises(TypeError):
        mask.planes["CR"] = 3
    assert issubclass(MaskPlaneError, KeyError)


def test_a_cut_shares_pixels_but_not_names():
    mask = Mask(np.zeros((4, 4), "u1"), {"BAD": 0}, origin=(10, 20))
    cut = mask.cut(Box(11, 12, 21, 23))
    cut.add("CR")
    cut.set("BAD", ...)
    assert mask.has("BAD").sum() == 2
    assert list(mask.planes) == ["BAD"]


def test_the_encoding_is_readable():
    mask = Mask(np.zeros((2, 2), "i4"), {"SAT": 3, "BAD": MaskPlane(0, "dead — or hot")}, (1, 2))
    assert kinds.encode(mask).attrs["planes"] == (
        '{"BAD": {"bit": 0, "description": "dead — or hot"}, "SAT": {"bit": 3, "description": ""}}'
    )
    assert repr(mask) == "<Mask (2, 2) int32 origin=(1, 2) planes=BAD,SAT>"


@pytest.mark.parametrize(
    ("dtype", "planes", "message"),
    [
        ("u1", {"A": 8}, "bits 0 to 7"),
        ("i1", {"A": 7}, "bits 0 to 6"),
        ("u1", {"A": -1}, "bits 0 to 7"),
        ("u1", {"A": 1, "B": 1}, "'A' and 'B' are both on bit 1"),
        ("u1", {"": 1}, "can't name"),
        ("u1", {" A": 1}, "can't name"),
        ("u1", {"A\n": 1}, "can't name"),
        ("u1", {3: 1}, "can't name"),
        ("u1", {"A" * 81: 1}, "exceeds 80"),
        ("u1", {"A": 1.5}, "integer"),
        ("u1", {"A": True}, "integer"),
        ("u1", {"A": MaskPlane(1, None)}, "description"),
        ("f4", {}, "float32"),
        ("?", {}, "bools"),
    ],
)
def test_masks_that_make_no_sense(dtype, planes, message):
    with pytest.raises(EncodeError, match=message):
        Mask(np.zeros((2, 2), dtype), planes)


def test_an_array_of_integers_is_a_mask_without_names():
    mask = kinds.decode(kinds.encode(np.ones((2, 2), "u2"), "mask"))
    assert (mask.dtype, dict(mask.planes)) == (np.dtype("u2"), {})


@pytest.mark.parametrize(
    "planes",
    [
        3,
        "",
        "[]",
        "{",
        "[" * 10_000,
        *(
            json.dumps(planes)
            for planes in (
                {"A": 3},
                {"A": {}},
                {"A": {"bit": 1, "more": 2}},
                {"A": {"bit": 99}},
                {"A": {"bit": True}},
                {"A": {"bit": 1, "description": 2}},
                {"A": {"bit": 1}, "B": {"bit": 1}},
                {"\n": {"bit": 1}},
            )
        ),
    ],
)
def test_bad_planes_are_format_errors(planes):
    attrs = {"kind": "mask", "kind_version": 1, "origin": np.zeros(2, "i8"), "planes": planes}
    with pytest.raises(FormatError, match="f.h5:/c/mask"):
        kinds.decode(Array(np.zeros((2, 2), "u1"), attrs, "f.h5:/c/mask"))


@pytest.mark.parametrize("dtype", ["u1", "i4", ">i8"])
def test_bad_pixels_by_chosen_planes(dtype):
    mask = Mask(np.array([[0, 1, 2, 4, 5, 8]], dtype), {"BAD": 0, "SAT": 1, "DETECTED": 2})
    assert mask.bad().tolist() == [[False, True, True, False, True, True]]  # 8 has no name, but is set
    assert mask.bad(["SAT", "DETECTED"]).tolist() == [[False, False, True, True, True, False]]
    assert mask.bad("SAT").tolist() == [[False, False, True, False, False, False]]
    assert not mask.bad([]).any()
    assert mask.bad().dtype == bool
    with pytest.raises(MaskPlaneError, match="no plane 'CR'"):
        mask.bad(["CR"])
