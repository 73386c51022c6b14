"""The kind ``table``."""

from __future__ import annotations

import warnings
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Column, NdarrayMixin, QTable, Table
from astropy.time import Time
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typed_values import (
    arrays,
    assert_same,
    counting,
    elements_read,
    locations,
    masked,
    names,
    quantities,
    row_selections,
    sky_coords,
    stored,
    texts,
    times,
    values,
)

from compositeh5 import kinds
from compositeh5.errors import EncodeError, FormatError, NoSuchComponentError, UnsupportedParameterError
from compositeh5.storage.nodes import Array, Group

exact = settings(max_examples=40, suppress_health_check=list(HealthCheck))


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Tables with columns of every sort, named anyhow."""
    length = draw(st.integers(0, 4))
    shape = st.just((length,)) | st.just((length, 2))
    column = st.one_of(
        shape.flatmap(arrays),
        shape.flatmap(quantities),
        shape.flatmap(masked),
        times((length,)),
        sky_coords((length,)),
        locations((length,)),
    )
    chosen = draw(st.lists(names, max_size=3, unique=True))
    table = draw(st.sampled_from([Table, QTable]))([draw(column) for _ in chosen])
    for made_up, name in zip([f"col{i}" for i in range(len(chosen))], chosen, strict=True):
        table.rename_column(made_up, name)
        added = table[name]
        if type(table) is Table and isinstance(added, Column) and draw(st.booleans()):
            added.unit = draw(st.sampled_from(["nJy", "deg", u.ABmag]))
        if draw(st.booleans()):
            added.info.description = draw(texts)
            added.info.format = draw(st.sampled_from([None, "", "{}"]))
            added.info.meta = draw(st.dictionaries(texts, values(2), max_size=2))
    table.meta.update(draw(st.dictionaries(names, values(3), max_size=2)))
    return table


def assert_same_table(one: Table, other: Table) -> None:
    assert type(one) is type(other)
    assert one.colnames == other.colnames
    assert len(one) == len(other)
    assert one.masked == other.masked
    assert_same(dict(one.meta), dict(other.meta))
    for name in one.colnames:
        column, back = one[name], other[name]
        assert type(column) is type(back)
        assert_same(getattr(column, "data", column), getattr(back, "data", back))
        assert column.info.unit == back.info.unit
        assert column.info.description == back.info.description
        assert column.info.format == back.info.format
        assert_same(dict(column.info.meta or {}), dict(back.info.meta or {}))


@exact
@given(tables())
def test_round_trip(table: Table) -> None:
    node = kinds.encode(table)
    assert_same_table(table, kinds.decode(node))
    assert_same_table(table, kinds.decode(stored(node)))


@exact
@given(tables(), st.data())
def test_parts_are_those_of_the_table(table: Table, data: st.DataObject) -> None:
    node = data.draw(st.sampled_from([lambda node: node, stored]))(kinds.encode(table))
    named = [name for name in table.colnames if name]  # a part of a table makes up a name for an empty one
    columns = data.draw(st.lists(st.sampled_from(named), unique=True) if named else st.just([]))
    rows = data.draw(row_selections(len(table)))
    part = kinds.decode(node, columns=columns, rows=rows)
    if columns:
        assert_same_table(table[columns][rows], part)
    else:
        assert part.colnames == []


@pytest.fixture
def catalogue() -> QTable:
    n = 100
    return QTable(
        {
            "id": np.arange(n),
            "flux": np.linspace(0, 1, n, dtype="f4") * u.nJy,
            "coord": SkyCoord(np.arange(n) * u.deg, np.zeros(n) * u.deg),
            "time": Time(np.arange(50000.0, 50100.0), format="mjd"),
            "psf": np.zeros((n, 7)),
        }
    )


@pytest.mark.parametrize(
    ("columns", "rows", "elements"),
    [
        ("flux", None, 100),
        (["id", "flux"], slice(10, 20), 20),
        (["flux"], slice(0, 100, 10), 10),
        (["flux"], slice(-10, None), 10),
        (["flux"], slice(19, 9, -1), 10),
        (["coord"], slice(0, 5), 10),
        (["time"], slice(0, 5), 10),
        (["psf"], [20, 10, 12], 11 * 7),
        (["id"], np.arange(100) == 3, 1),
        (["id"], [], 0),
        ([], None, 0),
    ],
)
def test_only_what_is_asked_for_is_read(catalogue: QTable, columns: Any, rows: Any, elements: int) -> None:
    node = counting(kinds.encode(catalogue))
    kinds.decode(node, columns=columns, rows=rows)
    names_read = len(catalogue.colnames)  # of the list of columns
    assert elements_read(node) == elements + names_read


def test_columns_are_not_copied(catalogue: QTable) -> None:
    back = kinds.decode(kinds.encode(catalogue))
    for name in ("id", "flux", "psf"):
        assert np.shares_memory(np.asarray(catalogue[name]), np.asarray(back[name]))


def test_classes_units_and_masks_are_kept() -> None:
    class MyTable(QTable):
        pass

    assert type(kinds.decode(kinds.encode(MyTable({"a": [1]})))) is QTable
    plain = QTable({"a": [1, 2], "b": ["x", "y"]})
    plain["a"].unit = plain["b"].unit = "m"
    for table in (plain, Table({"a": [1, 2]}, masked=True)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_same_table(table, kinds.decode(kinds.encode(table)))


@pytest.mark.parametrize(
    ("column", "advice"),
    [
        (np.array([1, "a"], object), "astype"),
        (np.zeros(2, [("x", "f4")]), "field"),
        (np.zeros(2, [("x", "f4")]).view(NdarrayMixin), "column"),
        (np.zeros(2, "M8[s]"), "Time"),
        (np.array(["a\0b", ""]), "bytes"),
        (Column([1, 2], unit=u.def_unit("bottle")), "bottle"),
        (Column([1, 2], description=3), "description"),
        (Column([1, 2], format=lambda value: "x"), "format"),
    ],
)
def test_what_cannot_be_stored_names_the_column(column: Any, advice: str) -> None:
    with pytest.raises(EncodeError, match="'bad/one'.*" + advice):
        kinds.encode(Table({"good": [1, 2], "bad/one": column}))


def test_metadata_that_cannot_be_stored_is_named() -> None:
    with pytest.raises(EncodeError, match="meta.history.when"):
        kinds.encode(Table({"a": [1]}, meta={"history": {"when": object()}}))


def test_unknown_column(catalogue: QTable) -> None:
    with pytest.raises(NoSuchComponentError, match="'mag'.*flux"):
        kinds.decode(kinds.encode(catalogue), columns=["id", "mag"])


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([100], IndexError),
        ([-101], IndexError),
        (np.ones(3, bool), IndexError),
        (3, UnsupportedParameterError),
        ("3", UnsupportedParameterError),
        ([0.5], UnsupportedParameterError),
        ([[1], [2]], UnsupportedParameterError),
    ],
)
def test_wrong_rows(catalogue: QTable, rows: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        kinds.decode(kinds.encode(catalogue), rows=rows)


INT = Array(np.array(1), {"type": "int"})


@pytest.mark.parametrize(
    "change",
    [
        lambda node: node.attrs.update(table_class="os.system"),
        lambda node: node.attrs.update(rows=3),
        lambda node: node.attrs.pop("rows"),
        lambda node: node.children.pop("a"),
        lambda node: node.children.update(c=node.children["a"]),
        lambda node: node.children.update(a=Group({}, {"type": "array"})),
        lambda node: node.children.update(a=Array(np.array("a"), {"type": "str"})),
        lambda node: node.children.update({"@meta": INT}),
        lambda node: node.children.update({"@column_meta": INT}),
        lambda node: node.children["a"].attrs.update(units="furlong/fortnight!"),
        lambda node: node.children["b"].attrs.update(length=10**9),
        lambda node: node.children["a"].attrs.update(display_format="{:>9999999999}"),
        lambda node: node.children["a"].attrs.update(display_format="{0.__class__}"),
        lambda node: node.children["a"].attrs.update(display_format="{"),
    ],
)
def test_bad_nodes(change: Any) -> None:
    node: Any = kinds.encode(Table({"a": [1, 2], "b": ["x", "y"]}))
    change(node)
    with pytest.raises(FormatError):
        kinds.decode(node)
