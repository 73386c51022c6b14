"""Photometric calibration."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from astropy import units as u
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compositeh5 import kinds
from compositeh5.box import Box
from compositeh5.errors import EncodeError, FormatError
from compositeh5.kinds.photo_calib import COUNTS, ChebyshevField, PhotoCalib
from compositeh5.kinds.units import unit_to_text
from compositeh5.storage.nodes import Array, Group

POSITIVE = st.floats(1e-300, 1e300)
UNITS = ["adu", "electron", "ct / s", "", "nJy", "1000 electron"]
FIELDS = st.builds(
    ChebyshevField,
    hnp.arrays("f8", hnp.array_shapes(min_dims=2, max_dims=2, max_side=4), elements=st.floats(-1e300, 1e300)),
    st.builds(
        lambda y0, x0, ny, nx: Box(y0, y0 + ny, x0, x0 + nx), *[st.integers(-999, 999)] * 2, *[st.integers(1, 99)] * 2
    ),
)
CALIBS = st.builds(PhotoCalib, POSITIVE, st.floats(0, 1e300), st.none() | FIELDS, st.sampled_from(UNITS))


@settings(max_examples=50)
@given(CALIBS)
def test_calibrations_come_back_exactly(calib):
    decoded = kinds.decode(kinds.encode(calib))
    assert decoded == calib
    assert hash(decoded) == hash(calib)
    assert type(decoded.mean) is type(decoded.error) is float
    assert decoded.instrumental_unit == calib.instrumental_unit
    if calib.field is not None:
        assert decoded.field.box == calib.field.box
        assert decoded.field.coefficients.tobytes() == calib.field.coefficients.tobytes()


def afw_evaluate(coefficients, box, y, x):
    """Evaluate as lsst.afw.math.ChebyshevBoundedField does: T_n(z) = cos(n arccos z) on the box's outer edges."""
    width, height = box.x1 - box.x0, box.y1 - box.y0
    centre_x, centre_y = box.x0 - 0.5 + width / 2, box.y0 - 0.5 + height / 2
    sx = np.clip(2.0 / width * x - 2.0 * centre_x / width, -1, 1)
    sy = np.clip(2.0 / height * y - 2.0 * centre_y / height, -1, 1)
    return sum(
        c * np.cos(i * np.arccos(sy)) * np.cos(j * np.arccos(sx))
        for (i, j), c in np.ndenumerate(np.asarray(coefficients))
    )


@given(st.floats(0, 1), st.floats(0, 1))
def test_fields_are_those_of_afw(fy, fx):
    box, coefficients = Box(-7, 93, 1000, 1300), [[3.0, 0.5, -0.2], [0.25, 0.125, 0.1]]
    y, x = box.y0 - 0.5 + fy * 100, box.x0 - 0.5 + fx * 300
    value = ChebyshevField(coefficients, box)(y, x)
    assert value == pytest.approx(afw_evaluate(coefficients, box, y, x), abs=1e-7)


def test_a_field_runs_between_the_outer_edges_of_its_box():
    box = Box(10, 20, 0, 4)
    assert ChebyshevField([[0], [1]], box)([9.5, 14.5, 19.5], 0).tolist() == [-1, 0, 1]
    assert ChebyshevField([[0, 1]], box)(10, [-0.5, 1.5, 3.5]).tolist() == [-1, 0, 1]


def test_the_calibration_at_positions():
    field = ChebyshevField([[2.0, 0.5]], Box(0, 10, 0, 10))
    varying, constant = PhotoCalib(2.0, field=field), PhotoCalib(3)
    np.testing.assert_allclose(varying.calibration([1, 2], [[-0.5], [9.5]]), [[1.5, 1.5], [2.5, 2.5]])
    assert constant.calibration([1, 2], [[5], [6]]).tolist() == [[3, 3], [3, 3]]
    assert varying.calibration() == 2
    assert constant.calibration(1, 1).shape == ()
    with pytest.raises(TypeError, match="both"):
        varying.calibration(y=3)


def test_fluxes_and_their_errors():
    calib = PhotoCalib(2.0, 0.1, ChebyshevField([[2.0, 0.5]], Box(0, 10, 0, 10)))
    flux, error = calib.to_flux([100.0, 10.0], [3.0, 0.0], y=5, x=9.5)
    assert (flux.unit, error.unit) == (u.nJy, u.nJy)
    np.testing.assert_allclose(flux.value, [250, 25])
    # The relative errors, 3 % and that of the calibration, 5 %, add in quadrature, everywhere.
    np.testing.assert_allclose(error.value, [250 * np.hypot(0.03, 0.05), 25 * 0.05])
    assert calib.to_flux(100) == 200 * u.nJy


def test_instrumental_fluxes_with_a_unit_are_converted_to_that_of_the_calibration():
    calib = PhotoCalib(2.0, instrumental_unit="ct / s")
    assert u.isclose(calib.to_flux(120 * u.ct / u.min), 4 * u.nJy)
    with pytest.raises(u.UnitConversionError):
        calib.to_flux(3 * u.adu)


def test_magnitudes_and_their_errors():
    calib = PhotoCalib(1.0, 0.01)
    magnitude, error = calib.to_magnitude([1.0, 100.0, 0.0, -1.0], [0.0, 1.0, 1.0, 1.0])
    assert magnitude.unit == u.ABmag
    assert error.unit == u.mag
    # The zero point of 1 nJy, by the definition of AB magnitudes (Oke & Gunn 1983).
    np.testing.assert_allclose(magnitude.value[:2], [-2.5 * np.log10(1e-32) - 48.6, -2.5 * np.log10(1e-30) - 48.6])
    assert magnitude.value[2] == np.inf
    assert np.isnan(magnitude.value[3])
    np.testing.assert_allclose(error.value[:2], 2.5 / np.log(10) * np.array([0.01, np.hypot(0.01, 0.01)]))
    assert np.isnan(error.value[2:]).all()
    assert calib.to_magnitude(1.0) == magnitude[0]


def test_a_calibration_cannot_be_changed():
    coefficients = np.ones((2, 2))
    calib = PhotoCalib(1, field=ChebyshevField(coefficients, Box(0, 1, 0, 1)))
    coefficients[0, 0] = 5
    assert calib.calibration(0, 0) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        calib.mean = 3
    with pytest.raises(ValueError, match="read-only"):
        calib.field.coefficients[0, 0] = 3
    assert repr(PhotoCalib(2.5, 0.25)) == "<PhotoCalib (2.5 +- 0.25) nJy / adu, constant>"


@pytest.mark.parametrize(
    "arguments",
    [
        *({"mean": mean} for mean in (0, -1, np.nan, "much")),
        *({"mean": 1, "error": error} for error in (-1, np.inf)),
        {"mean": 1, "field": np.ones((2, 2))},
        *({"mean": 1, "instrumental_unit": unit} for unit in ("furlong", "mag(AB)", None)),
    ],
)
def test_calibrations_that_make_no_sense(arguments):
    with pytest.raises(EncodeError):
        PhotoCalib(**arguments)


@pytest.mark.parametrize(
    ("coefficients", "box"),
    [
        ([1, 2], Box(0, 1, 0, 1)),
        ([[]], Box(0, 1, 0, 1)),
        ([[1, np.nan]], Box(0, 1, 0, 1)),
        ([["a"]], Box(0, 1, 0, 1)),
        ([[1]], Box(0, 0, 0, 1)),
        ([[1]], (0, 1, 0, 1)),
    ],
)
def test_fields_that_make_no_sense(coefficients, box):
    with pytest.raises(EncodeError):
        ChebyshevField(coefficients, box)


def stored(unit="adu", **children):
    attrs = {"kind": "photo_calib", "kind_version": 1, "instrumental_unit": unit}
    nodes = {"mean": Array(np.array(2.0)), "error": Array(np.array(0.1)), **children}
    return Group({name: node for name, node in nodes.items() if node is not None}, attrs)


def field(coefficients=((1.0,),), box=(0, 1, 0, 1)):
    return Group({"coefficients": Array(np.array(coefficients))}, {"box": np.array(box)})


@pytest.mark.parametrize(
    "node",
    [
        *(stored(unit) for unit in (3, "furlong", "mag(AB)")),
        *(stored(**{name: None}) for name in ("mean", "error")),
        *(stored(mean=Array(np.array(value))) for value in ([1.0, 1.0], "1", -1.0)),
        stored(error=Array(np.array(np.nan))),
        *(stored(field=node) for node in (Array(np.ones((2, 2))), Group())),
        *(stored(field=field(box=box)) for box in ((0, 1, 0), (0.0, 1.0, 0.0, 1.0), (1, 0, 0, 1), (0, 0, 0, 1))),
        *(stored(field=field(values)) for values in ((1.0, 2.0), ((np.inf,),))),
    ],
)
def test_bad_nodes_are_format_errors(node):
    with pytest.raises(FormatError):
        kinds.decode(node)


def test_stored_calibrations_need_a_unit():
    assert kinds.decode(stored()) == PhotoCalib(2.0, 0.1)
    node = stored()
    del node.attrs["instrumental_unit"]
    with pytest.raises(FormatError, match="instrumental_unit"):
        kinds.decode(node)


@pytest.mark.parametrize("unit", COUNTS)
def test_units_known_as_counts_are_linear_and_spelled_as_stored(unit: str) -> None:
    assert unit_to_text(u.Unit(unit)) == unit
    assert not hasattr(u.Unit(unit), "physical_unit")
    calib = PhotoCalib(2.0, instrumental_unit=unit)
    assert calib == PhotoCalib(2.0, instrumental_unit=u.Unit(unit)) == pickle.loads(pickle.dumps(calib))
    assert hash(calib) == hash(PhotoCalib(2.0, instrumental_unit=u.Unit(unit)))
    assert repr(calib) == repr(PhotoCalib(2.0, instrumental_unit=u.Unit(unit)))
