"""The kinds ``text`` and ``bytes``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typed_values import assert_same, stored, texts

from compositeh5 import kinds
from compositeh5.errors import EncodeError, FormatError
from compositeh5.storage.nodes import Array, Group, Node


@settings(max_examples=60)
@given(st.one_of(texts, texts.map(lambda text: text * 3000), st.binary()))
def test_round_trip(value: str | bytes) -> None:
    node = kinds.encode(value)
    assert_same(value, kinds.decode(node))
    assert_same(value, kinds.decode(stored(node)))


@settings(max_examples=60)
@given(st.text(st.characters(exclude_categories=[])))
def test_any_text_comes_back_or_is_refused(text: str) -> None:
    if "\0" in text or any("\ud800" <= c < "\ue000" for c in text):
        with pytest.raises(EncodeError, match="text"):
            kinds.encode(text)
    else:
        assert kinds.decode(stored(kinds.encode(text))) == text


@pytest.mark.parametrize("value", [b"abc", bytearray(b"abc"), memoryview(b"abc")])
def test_buffers_become_bytes(value: Any) -> None:
    assert_same(b"abc", kinds.decode(kinds.encode(value, "bytes")))


@pytest.mark.parametrize(("value", "kind"), [(b"a", "text"), (1, "text"), ("a", "bytes"), ([1], "bytes")])
def test_wrong_types(value: Any, kind: str) -> None:
    with pytest.raises(EncodeError, match=kind):
        kinds.encode(value, kind)


@pytest.mark.parametrize(
    ("kind", "node"),
    [
        ("text", Array(np.array(1))),
        ("text", Array(np.array(["a"]))),
        ("text", Array(np.array(b"a"))),
        ("text", Group()),
        ("bytes", Array(np.array("a"))),
        ("bytes", Array(np.array([1, 2]))),
        ("bytes", Array(np.zeros((1, 1), np.uint8))),
        ("bytes", Group()),
    ],
)
def test_bad_nodes(kind: str, node: Node) -> None:
    node.attrs = {"kind": kind, "kind_version": 1}
    with pytest.raises(FormatError):
        kinds.decode(node)
