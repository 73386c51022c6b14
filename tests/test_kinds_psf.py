"""Point-spread functions on a grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compositeh5 import kinds
from compositeh5.errors import EncodeError, FormatError
from compositeh5.kinds.psf import Psf
from compositeh5.storage.nodes import Array, Group

COORDINATES = st.floats(-1e4, 1e4)


@st.composite
def psfs(draw):
    ys = draw(st.lists(COORDINATES, min_size=1, max_size=4, unique=True))
    xs = draw(st.lists(COORDINATES, min_size=1, max_size=4, unique=True))
    positions = draw(st.permutations([(y, x) for y in ys for x in xs]))
    dtype = draw(hnp.floating_dtypes(sizes=(32, 64)))
    shape = (len(positions), draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    kernels = draw(hnp.arrays(dtype, shape, elements=st.floats(-100, 100, width=32)))
    return Psf(kernels, np.array(positions), draw(st.tuples(*[st.integers(1, 9)] * 2)))


@settings(max_examples=60)
@given(psfs(), COORDINATES, COORDINATES)
def test_psfs_come_back_exactly(psf, y, x):
    decoded = kinds.decode(kinds.encode(psf))
    assert decoded.kernels.dtype == psf.kernels.dtype
    np.testing.assert_array_equal(decoded.kernels, psf.kernels)
    np.testing.assert_array_equal(decoded.positions, psf.positions)
    assert decoded.oversampling == psf.oversampling
    # At the positions of the grid it is the kernel, outside of the grid that of the edge.
    for kernel, position in zip(psf.kernels, psf.positions, strict=True):
        np.testing.assert_array_equal(psf.at(*position), kernel, strict=True)
    (y0, x0), (y1, x1) = psf.positions.min(axis=0), psf.positions.max(axis=0)
    np.testing.assert_array_equal(psf.at(y, x), psf.at(np.clip(y, y0, y1), np.clip(x, x0, x1)))


@given(st.floats(0, 100), st.floats(-10, 30))
def test_bilinear_functions_are_interpolated_exactly(y, x):
    positions = [(gy, gx) for gx in (-10, 5, 30) for gy in (0, 40, 100)]

    def function(y, x):
        return np.array([[1.0, y], [x, 3 - 2 * y + x]])

    psf = Psf(np.array([function(*position) for position in positions]), positions)
    np.testing.assert_allclose(psf.at(y, x), function(y, x), rtol=1e-12, atol=1e-10)


def test_the_four_kernels_around_a_position_are_weighted():
    psf = Psf(np.array([[[1.0]], [[2.0]], [[4.0]], [[8.0]]]), [(0, 0), (0, 10), (20, 0), (20, 10)])
    assert psf.at(5, 2)[0, 0] == pytest.approx(0.75 * (0.8 * 1 + 0.2 * 2) + 0.25 * (0.8 * 4 + 0.2 * 8))


def test_kernels_that_have_no_weight_do_not_matter():
    psf = Psf(np.array([[[1.0]], [[np.nan]]]), [(0, 0), (0, 10)])
    assert psf.at(3, 0)[0, 0] == 1


def test_a_constant_psf_is_the_same_everywhere_and_shares_its_kernel():
    kernel = np.arange(6, dtype="f4").reshape(2, 3)
    for psf in (Psf.constant(kernel, oversampling=4), kinds.decode(kinds.encode(kernel, "psf"))):
        assert np.shares_memory(psf.kernels, kernel)
        assert (psf.at(1e9, -1e9) == kernel).all()
    assert repr(Psf.constant(kernel, 4)) == "<Psf constant, kernels 2 x 3 float32, oversampling (4, 4)>"


def test_a_psf_cannot_be_changed_but_the_arrays_given_can():
    kernels, positions = np.zeros((1, 2, 2)), np.zeros((1, 2))
    psf = Psf(kernels, positions)
    with pytest.raises(ValueError, match="read-only"):
        psf.kernels[0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        psf.positions[0, 0] = 1
    kernels[0, 0, 0], positions[0, 0] = 1, 1


def test_there_is_no_psf_at_nan():
    with pytest.raises(ValueError, match="nan"):
        Psf.constant(np.zeros((2, 2))).at(np.nan, 1)


KERNELS = np.zeros((4, 2, 2))
GRID = [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize(
    ("kernels", "positions", "oversampling", "message"),
    [
        (KERNELS, [(0, 0), (0, 1), (1, 0), (1, 2)], 1, "no full grid: they have 2 different y and 3 different x"),
        (KERNELS, [(0, 0), (0, 1), (1, 0), (1, 0)], 1, "no full grid"),
        (KERNELS, GRID[:3], 1, r"\(4, 2\)"),
        (KERNELS, [(0, 0), (0, 1), (1, 0), (1, np.nan)], 1, "finite"),
        (KERNELS, "abc", 1, "positions"),
        (KERNELS.astype(int), GRID, 1, "floats"),
        (KERNELS.astype(np.longdouble), GRID, 1, "floats"),
        (KERNELS[0], GRID, 1, "floats"),
        (KERNELS[:0], np.zeros((0, 2)), 1, "no kernels"),
        (KERNELS, GRID, 0, "positive"),
        (KERNELS, GRID, 1.5, "integers"),
        (KERNELS, GRID, (1, 2, 3), "integers"),
    ],
)
def test_psfs_that_make_no_sense(kernels, positions, oversampling, message):
    with pytest.raises(EncodeError, match=message):
        Psf(kernels, positions, oversampling)


@pytest.mark.parametrize("value", ["psf", np.zeros(3), np.zeros((2, 2), int)])
def test_other_values_are_no_psfs(value):
    with pytest.raises(EncodeError):
        kinds.encode(value, "psf")


def stored(kernels=KERNELS, positions=GRID, oversampling=(1, 1)):
    children = {"kernels": Array(np.asarray(kernels)), "positions": Array(np.asarray(positions, float))}
    attrs = {"kind": "psf", "kind_version": 1, "oversampling": np.asarray(oversampling)}
    return Group(children, attrs, "f.h5:/c/psf")


@pytest.mark.parametrize(
    "node",
    [
        Array(KERNELS, stored().attrs),
        Group({"kernels": Array(KERNELS)}, stored().attrs),
        Group({"positions": Array(np.array(GRID, float))}, stored().attrs),
        *(stored(oversampling=oversampling) for oversampling in ((1, 2, 3), (1, 0), (1.5, 1.0), 3)),
        *(stored(positions=positions) for positions in (GRID[:2], [*GRID[:3], (1, np.inf)])),
        *(stored(kernels=kernels) for kernels in (KERNELS[0], KERNELS.astype(int))),
    ],
)
def test_bad_nodes_are_format_errors(node):
    with pytest.raises(FormatError):
        kinds.decode(node)
