"""Masks: planes of named bits. What they share with images is tested there."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compositeh5 import kinds
from compositeh5.box import Box
from compositeh5.errors import EncodeError, FormatError
from compositeh5.kinds.mask import Mask, MaskPlane, MaskPlaneError
from compositeh5.storage.nodes import Array

DTYPES = st.one_of(hnp.integer_dtypes(), hnp.unsigned_integer_dtypes())
NAMES = st.text(min_size=1, max_size=20).filter(lambda name: name.isprintable() and name == name.strip())


def bit_count(dtype):
    return 8 * dtype.itemsize - (dtype.kind == "i")


@st.composite
def masks(draw):
    dtype = draw(DTYPES)
    array = draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_dims=3, max_side=5)))
    bits = draw(st.lists(st.integers(0, bit_count(dtype) - 1), unique=True))
    names = draw(st.lists(NAMES, unique=True, min_size=len(bits), max_size=len(bits)))
    planes = {name: MaskPlane(bit, draw(st.text(max_size=10))) for name, bit in zip(names, bits, strict=True)}
    return Mask(array, planes, draw(st.tuples(st.integers(-(2**40), 2**40), st.integers(-9, 9))))


@given(masks())
def test_masks_come_back_exactly(mask):
    node = kinds.encode(mask)
    assert node.read() is mask.array
    decoded = kinds.decode(node)
    assert decoded.dtype == mask.dtype
    np.testing.assert_array_equal(decoded.array, mask.array)
    assert decoded.origin == mask.origin
    assert list(decoded.planes.items()) == list(mask.planes.items())


@given(masks())
def test_the_encoding_does_not_depend_on_the_order_of_the_planes(mask):
    backwards = Mask(mask.array, dict(reversed(mask.planes.items())), mask.origin)
    assert kinds.encode(backwards).attrs["planes"] == kinds.encode(mask).attrs["planes"]


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
    np.testing.assert_array_equal(
        mask.array & ~mask.dtype.type(mask.bits(name)), before & ~mask.dtype.type(mask.bits(name))
    )


@given(DTYPES)
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
    with pytest.raises(EncodeError, match="found list"):
        kinds.encode([[1]], "mask")


@pytest.mark.parametrize(
    "planes",
    [
        3,
        "",
        "[]",
        "{",
        "[" * 10_000,
        '{"A": 3}',
        '{"A": {}}',
        '{"A": {"bit": 1, "more": 2}}',
        '{"A": {"bit": 99, "description": ""}}',
        '{"A": {"bit": true, "description": ""}}',
        '{"A": {"bit": 1, "description": 2}}',
        '{"A": {"bit": 1, "description": ""}, "B": {"bit": 1, "description": ""}}',
        json.dumps({"\n": {"bit": 1, "description": ""}}),
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
