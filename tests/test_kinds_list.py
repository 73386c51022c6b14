"""The kind ``list``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from typed_values import arrays, assert_same, counting, elements_read, quantities, stored, texts

from compositeh5 import kinds
from compositeh5.errors import EncodeError, FormatError
from compositeh5.storage.nodes import Array, Group, Node

components = st.recursive(
    st.one_of(texts, st.binary(), arrays(), quantities(), st.dictionaries(texts, st.integers(), max_size=2)),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60)
@given(st.lists(components, max_size=3))
def test_round_trip(value: list[Any]) -> None:
    node = kinds.encode(value)
    assert_same(value, kinds.decode(node))
    assert_same(value, kinds.decode(stored(node)))


def test_each_item_has_its_own_kind() -> None:
    node: Any = kinds.encode((np.arange(3), Table({"a": [1]}), "text"))
    assert [node[str(i)].attrs["kind"] for i in range(3)] == ["array", "table", "text"]
    assert node.attrs["length"] == 3
    assert isinstance(kinds.decode(node), list)


def test_some_items() -> None:
    node = counting(kinds.encode([np.full(10, i) for i in range(12)]))
    first, last = kinds.decode(node, items=[11, -12])
    assert (first[0], last[0]) == (11, 0)
    assert elements_read(node) == 20
    with pytest.raises(IndexError, match="12 items"):
        kinds.decode(node, items=[12])


def test_what_cannot_be_stored_gives_the_index() -> None:
    with pytest.raises(EncodeError, match="item 1: .*item 0: .*object"):
        kinds.encode(["a", [object()]])
    with pytest.raises(EncodeError, match="list"):
        kinds.encode("abc", "list")


def test_depth() -> None:
    value: list[Any] = []
    for _ in range(15):
        value = [value]
    assert kinds.decode(kinds.encode(value)) == value
    with pytest.raises(EncodeError, match="16"):
        kinds.encode([value])
    node: Node = Array(np.array("x"), {"kind": "text", "kind_version": 1})
    for _ in range(2000):
        node = Group({"0": node}, {"kind": "list", "kind_version": 1, "length": 1})
    with pytest.raises(FormatError, match="16"):
        kinds.decode(node)


def test_missing_items() -> None:
    node: Any = kinds.encode(["a", "b", "c"])
    del node.children["1"]
    with pytest.raises(FormatError, match="item 1"):
        kinds.decode(node)
    node.attrs["length"] = "three"
    with pytest.raises(FormatError, match="length"):
        kinds.decode(node)
    with pytest.raises(FormatError, match="group"):
        kinds.decode(Array(np.arange(3), {"kind": "list", "kind_version": 1}))
