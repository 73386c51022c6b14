"""Tables of scalars: whatever goes in comes out again, in the column of its name or in one beside it."""

from __future__ import annotations

import math

from astropy import units as u
from hypothesis import given, settings
from hypothesis import strategies as st

from compositeh5.trees.scalar_columns import Scalar, rows_of, table_of

FLOATS = st.floats(width=64)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
UNITS = st.sampled_from(["", "m", "cm", "s", "deg_C", "nJy / adu", "mag(AB)", "mag(ST)"])
SCALARS = st.one_of(
    st.builds(Scalar, st.just("bool"), st.just(""), st.booleans()),
    st.builds(Scalar, st.just("int"), st.just(""), st.integers(-(2**63), 2**63 - 1)),
    st.builds(Scalar, st.just("float"), UNITS, FLOATS),
    st.builds(Scalar, st.just("text"), st.just(""), TEXTS),
    st.builds(
        Scalar,
        st.just("time"),
        st.sampled_from(["tai", "utc"]),
        st.tuples(st.integers(2_440_000, 2_470_000).map(float), st.floats(-0.5, 0.5)),
    ),
    st.builds(Scalar, st.just("corners"), st.just("deg"), st.tuples(*[st.floats(-360, 360)] * 4)),
)
NAMES = st.sampled_from(["a", "b.c", "a [m]", "a [float]"])
ROWS = st.lists(st.dictionaries(NAMES, SCALARS, max_size=4), max_size=6)


def same(found: Scalar, given: Scalar) -> bool:
    """Return whether a scalar is the one that was given, maybe converted to the unit and type of its column."""
    if given.type == "time":
        # Astropy chooses how a date is split in two.
        parts = (*found.value, *(-part for part in given.value))
        return found[:2] == given[:2] and abs(math.fsum(parts)) < 1e-12
    if found[:2] == given[:2]:
        return found.value == given.value or (found.value != found.value and given.value != given.value)
    assert {found.type, given.type} <= {"int", "float"}
    factor = u.Unit(given.unit).to(found.unit)
    return math.isclose(found.value, given.value * factor, rel_tol=1e-15) or found.value != found.value


@given(ROWS)
@settings(max_examples=50)
def test_rows_come_back(rows: list[dict[str, Scalar]]) -> None:
    table = table_of(rows, {"first": "int"})
    assert table.colnames[0] == "first"
    found = rows_of(table)
    assert [row.keys() for row in found] == [row.keys() for row in rows]
    for row, given_row in zip(found, rows, strict=True):
        assert all(same(row[name], given_row[name]) for name in row)
    again = table_of(found, {"first": "int"})
    assert again.colnames == table.colnames
