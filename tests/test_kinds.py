"""The registry of kinds, kinds from other packages, and the simple kinds: text, bytes, list and array."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.table import Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typed_values import (
    arrays,
    assert_same,
    counting,
    elements_read,
    masked,
    numpy_scalars,
    quantities,
    row_selections,
    sky_coords,
    stored,
    texts,
    times,
)

import compositeh5 as ch5
from compositeh5 import errors, kinds
from compositeh5.errors import EncodeError, FormatError, UnsupportedParameterError
from compositeh5.storage.nodes import Array, Group, Node

PLUGIN = '''
"""A kind for polynomials."""

import numpy as np

from compositeh5.storage.nodes import Array

TYPES = ("numpy.polynomial.polynomial.Polynomial",)


def encode(value):
    return Array(value.coef)


def decode(node, *, terms=None):
    coefficients = node.read() if terms is None else node.read((slice(0, terms),))
    return np.polynomial.Polynomial(coefficients)
'''

USER = """
import sys
import numpy as np
import compositeh5 as ch5

path = sys.argv[1]
if sys.argv[2] == "write":
    ch5.Composite(None, line=np.polynomial.Polynomial([1, 2, 3]), note="kept").write(path)
with ch5.open(path) as c:
    print(c["note"], c.kind("line"))
    print(c["line"].coef, c.read("line", terms=2).coef)
"""


def run(tmp_path: Path, mode: str, plugin: bool) -> subprocess.CompletedProcess[str]:
    package = tmp_path / "site" / "polynomial_kind"
    info = tmp_path / "site" / "polynomial_kind-1.0.dist-info"
    for folder in (package, info):
        folder.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: polynomial-kind\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[compositeh5.kinds]\npolynomial = polynomial_kind\n")
    paths = [str(Path(ch5.__file__).parents[1]), *([str(tmp_path / "site")] if plugin else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    args = [sys.executable, "-c", USER, str(tmp_path / "a.h5"), mode]
    return subprocess.run(args, capture_output=True, text=True, env=environment, check=False, timeout=60)


def test_another_package_adds_a_kind(tmp_path: Path) -> None:
    written = run(tmp_path, "write", plugin=True)
    assert written.stdout.split("\n")[:2] == ["kept polynomial", "[1. 2. 3.] [1. 2.]"], written.stderr
    without = run(tmp_path, "read", plugin=False)
    assert without.stdout.strip() == "kept polynomial"
    assert "UnknownKindError" in without.stderr
    assert "no installed package knows the kind 'polynomial'" in without.stderr
    assert "/composite/line" in without.stderr


class Line:
    def __init__(self, slope):
        self.slope = slope


class LineKind:
    TYPES = (Line,)
    encode = staticmethod(lambda value: Array(np.float64(value.slope)))
    decode = staticmethod(lambda node: Line(float(node.read())))


def test_a_script_registers_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_registered", {})
    kinds.register("line", LineKind)
    kinds.register("line", LineKind)  # a notebook's cell is run again
    ch5.Composite(fit=Line(2.5)).write(tmp_path / "a.h5")
    with ch5.open(tmp_path / "a.h5") as c:
        assert c.kind("fit") == "line"
        assert c["fit"].slope == 2.5
        assert "line" in kinds.names()
        kinds._registered.clear()
        with pytest.raises(errors.UnknownKindError, match="no installed package knows the kind 'line'"):
            c["fit"]


@pytest.mark.parametrize(
    ("name", "module", "message"),
    [
        ("image", LineKind, "'image', which is built in"),
        ("a b", LineKind, "should be letters"),
        ("line", Line, "has no function 'encode'"),
    ],
)
def test_what_cannot_be_registered(name: str, module: type, message: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=message):
        kinds.register(name, module)
    assert name in kinds.BUILTIN or name not in kinds.names()


def test_a_value_that_no_kind_stores_is_an_error() -> None:
    with pytest.raises(EncodeError, match=r"component 'x': no kind stores a value of type builtins\.object"):
        ch5.Composite(None, x=object())


def test_importing_the_package_is_light() -> None:
    """astropy and yaml are loaded when they are needed."""
    code = "import sys, compositeh5; print({'astropy', 'yaml', 'lsst'} & {m.split('.')[0] for m in sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


# ---- Text, bytes, list and array ----------------------------------------------------------------------------

simple_values = st.one_of(
    texts,
    texts.map(lambda text: text * 3000),
    st.binary(),
    arrays(),
    quantities(),
    st.dictionaries(texts, st.integers(), max_size=2),
)
array_values = st.one_of(arrays(), quantities(), masked(), numpy_scalars, times(), sky_coords())


components = st.recursive(simple_values, lambda inner: st.lists(inner, max_size=3), max_leaves=6)


@settings(max_examples=80, suppress_health_check=list(HealthCheck))
@given(st.tuples(components, st.none()) | st.tuples(array_values, st.just("array")))
def test_round_trip(value_and_kind: tuple[Any, str | None]) -> None:
    value, kind = value_and_kind
    node = kinds.encode(value, kind)
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


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        *(("bytes", given, b"abc") for given in (b"abc", bytearray(b"abc"), memoryview(b"abc"))),
        *(
            ("array", given, np.asarray(given))
            for given in (True, 1, 2.5, 1j, [1, 2], (1.5, 2), [[True], [False]], ["a", "bc"])
        ),
    ],
)
def test_what_becomes_the_type_of_a_kind(kind: str, value: Any, expected: Any) -> None:
    assert_same(expected, kinds.decode(kinds.encode(value, kind)))


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("text", b"a", "text"),
        ("text", 1, "text"),
        ("bytes", "a", "bytes"),
        ("bytes", [1], "bytes"),
        *(("array", value, "array") for value in ("text", {"a": 1}, None, [[1], [1, 2]], [None], np.array(["a\0b"]))),
        ("list", "abc", "list"),
        ("list", ["a", [object()]], "item 1: .*item 0: .*object"),
        *((kind, value, "found") for kind in ("image", "mask", "psf") for value in ([[1, 2]], None)),
        ("photo_calib", 2.5, "found float"),
        ("wcs", "CTYPE1", "found str"),
        ("record", 3, "mapping"),
        ("table", {"a": [1]}, "Table"),
    ],
)
def test_values_of_other_types_are_refused(kind: str, value: Any, message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        kinds.encode(value, kind)


def with_attrs(kind: str, node: Node, **attrs: Any) -> Node:
    node.attrs = {"kind": kind, "kind_version": 1, **attrs}
    return node


@pytest.mark.parametrize(
    ("kind", "node", "message"),
    [
        *((kind, Array(np.zeros((2, 2), "c8")), None) for kind in kinds.BUILTIN if kind != "array"),
        *(("text", Array(np.array(value)), "type|axes") for value in (1, ["a"], b"a")),
        *(("bytes", Array(np.array(value)), "type|axes") for value in ("a", [1, 2], np.zeros((1, 1), np.uint8))),
        *((kind, Group(), "group|dataset") for kind in ("text", "bytes")),
        ("list", Group({"0": kinds.encode("a"), "2": kinds.encode("c")}, {"length": 2}), "item 1"),
        ("list", Group({}, {"length": "three"}), "length"),
        ("array", Array(np.arange(3), {"type": "pickle"}), "pickle"),
    ],
)
def test_bad_nodes_are_format_errors(kind: str, node: Node, message: str | None) -> None:
    with pytest.raises(FormatError, match=message):
        kinds.decode(with_attrs(kind, node, **node.attrs))


def test_each_item_of_a_list_has_its_own_kind() -> None:
    node: Any = kinds.encode((np.arange(3), Table({"a": [1]}), "text"))
    assert [node[str(i)].attrs["kind"] for i in range(3)] == ["array", "table", "text"]
    assert node.attrs["length"] == 3
    assert isinstance(kinds.decode(node), list)


def test_some_items_of_a_list() -> None:
    node = counting(kinds.encode([np.full(10, i) for i in range(12)]))
    first, last = kinds.decode(node, items=[11, -12])
    assert (first[0], last[0]) == (11, 0)
    assert elements_read(node) == 20
    with pytest.raises(IndexError, match="12 items"):
        kinds.decode(node, items=[12])


def test_depth_of_lists() -> None:
    value: list[Any] = []
    for _ in range(15):
        value = [value]
    assert kinds.decode(kinds.encode(value)) == value
    with pytest.raises(EncodeError, match="16"):
        kinds.encode([value])
    node: Node = kinds.encode("x")
    for _ in range(2000):
        node = with_attrs("list", Group({"0": node}), length=1)
    with pytest.raises(FormatError, match="16"):
        kinds.decode(node)


@settings(max_examples=80, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 4), st.data())
def test_rows_of_arrays(length: int, data: st.DataObject) -> None:
    shapes = st.sampled_from([(length,), (length, 2)])
    value = data.draw(
        st.one_of(*(shapes.flatmap(strategy) for strategy in (arrays, quantities, masked, times, sky_coords)))
    )
    rows = data.draw(row_selections(length))
    node = data.draw(st.sampled_from([lambda node: node, stored]))(kinds.encode(value, "array"))
    assert_same(value[rows], kinds.decode(node, rows=rows))


def test_only_the_rows_are_read() -> None:
    node = counting(kinds.encode(np.zeros((100, 10)) * u.m))
    assert kinds.decode(node, rows=slice(10, 20)).shape == (10, 10)
    assert elements_read(node) == 100
    with pytest.raises(UnsupportedParameterError, match="rows"):
        kinds.decode(kinds.encode(np.float32(1)), rows=slice(3))


def test_arrays_are_not_copied() -> None:
    for value in (np.zeros(3), np.zeros(3, ">f4") * u.m, np.array(["a", "b"])):
        assert np.shares_memory(kinds.decode(kinds.encode(value)), value)
