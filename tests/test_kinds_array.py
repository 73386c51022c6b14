"""The kind ``array``."""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from typed_values import (
    arrays,
    assert_same,
    counting,
    elements_read,
    masked,
    numpy_scalars,
    quantities,
    sky_coords,
    stored,
    times,
)

from compositeh5 import kinds
from compositeh5.errors import EncodeError, FormatError, UnsupportedParameterError

exact = settings(max_examples=100, suppress_health_check=list(HealthCheck))


@exact
@given(st.one_of(arrays(), quantities(), masked(), numpy_scalars, times(), sky_coords()))
def test_round_trip(value: Any) -> None:
    node = kinds.encode(value, "array")
    assert_same(value, kinds.decode(node))
    assert_same(value, kinds.decode(stored(node)))


@exact
@given(st.integers(0, 4), st.data())
def test_rows(length: int, data: st.DataObject) -> None:
    shapes = st.sampled_from([(length,), (length, 2)])
    value = data.draw(
        st.one_of(*(shapes.flatmap(strategy) for strategy in (arrays, quantities, masked, times, sky_coords)))
    )
    rows = data.draw(
        st.one_of(
            st.slices(length),
            hnp.arrays(bool, length),
            st.lists(st.integers(-length, length - 1), max_size=5).map(np.array) if length else st.just([]),
        )
    )
    node = data.draw(st.sampled_from([lambda node: node, stored]))(kinds.encode(value, "array"))
    index = rows if isinstance(rows, slice) or len(rows) else np.array([], int)
    assert_same(value[index], kinds.decode(node, rows=rows))


def test_only_the_rows_are_read() -> None:
    node = counting(kinds.encode(np.zeros((100, 10)) * u.m))
    assert kinds.decode(node, rows=slice(10, 20)).shape == (10, 10)
    assert elements_read(node) == 100


def test_arrays_are_not_copied() -> None:
    for value in (np.zeros(3), np.zeros(3, ">f4") * u.m, np.array(["a", "b"])):
        assert np.shares_memory(kinds.decode(kinds.encode(value)), value)


@pytest.mark.parametrize("value", [True, 1, 2.5, 1j, [1, 2], (1.5, 2), [[True], [False]], ["a", "bc"]])
def test_numbers_and_sequences_become_arrays(value: Any) -> None:
    assert_same(np.asarray(value), kinds.decode(kinds.encode(value, "array")))


@pytest.mark.parametrize("value", ["text", {"a": 1}, None, [[1], [1, 2]], [None], np.array(["a\0b"])])
def test_what_is_no_array(value: Any) -> None:
    with pytest.raises(EncodeError, match="array"):
        kinds.encode(value, "array")


def test_a_number_has_no_rows() -> None:
    with pytest.raises(UnsupportedParameterError, match="rows"):
        kinds.decode(kinds.encode(np.float32(1)), rows=slice(3))


def test_bad_node() -> None:
    node = kinds.encode(np.arange(3))
    node.attrs = {**node.attrs, "type": "pickle"}
    with pytest.raises(FormatError, match="pickle"):
        kinds.decode(node)
