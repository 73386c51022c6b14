"""World coordinate systems: every bit comes back, or they are refused."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, DistortionLookupTable, Sip
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compositeh5 import kinds
from compositeh5.errors import EncodeError, FormatError
from compositeh5.kinds.wcs import shift
from compositeh5.storage.digests import digest
from compositeh5.storage.nodes import Array, Group

RNG = np.random.default_rng(42)
FLOATS = ["timeoffs", "mjdobs", "mjdbeg", "mjdavg", "mjdend", "jepoch", "bepoch", "tstart", "tstop", "xposure",
          "telapse", "timsyer", "timrder", "timedel", "timepixr", "restfrq", "restwav", "velosys", "zsource", "velangl",
          "equinox", "lonpole", "latpole"]  # fmt: skip
TEXTS = ["timesys", "trefpos", "trefdir", "plephem", "dateobs", "datebeg", "dateavg", "dateend", "dateref",
         "obsorbit", "radesys", "specsys", "ssysobs", "ssyssrc", "name"]  # fmt: skip
AUXILIARY = ["rsun_ref", "dsun_obs", "crln_obs", "hgln_obs", "hglt_obs"]
LOOKUP = ["cpdis1", "cpdis2", "det2im1", "det2im2"]


def celestial(projection="TAN", linear="cd", naxis=2, key=" "):
    """Return a WCS of random numbers."""
    wcs = WCS(naxis=naxis, key=key)
    wcs.wcs.alt = key
    wcs.wcs.ctype = [f"RA---{projection}", f"DEC--{projection}", *["FREQ"] * (naxis - 2)]
    wcs.wcs.crval = RNG.uniform(1, 80, naxis)
    wcs.wcs.crpix = RNG.uniform(-500, 500, naxis)
    if linear == "cd":
        wcs.wcs.cd = RNG.normal(size=(naxis, naxis)) * 1e-5
    else:
        wcs.wcs.cdelt = RNG.normal(size=naxis) * 1e-5
        if linear == "pc":
            wcs.wcs.pc = RNG.normal(size=(naxis, naxis))
    return wcs


def polynomial(order=3):
    coefficients = RNG.normal(size=(order + 1, order + 1)) * 1e-8
    coefficients[np.add.outer(range(order + 1), range(order + 1)) > order] = 0
    return coefficients


def with_sip(wcs=None, inverse=True):
    wcs = wcs or celestial("TAN-SIP")
    wcs.sip = Sip(polynomial(3), polynomial(4), *([polynomial(2)] * 2 if inverse else [None] * 2), wcs.wcs.crpix)
    return wcs


def with_tpv():
    wcs = celestial("TPV")
    terms = [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]
    wcs.wcs.set_pv([(axis, m, (m == 1) + RNG.normal() * 1e-3) for axis in (1, 2) for m in terms])
    return wcs


def with_tables(names=("cpdis1", "det2im2")):
    wcs = celestial()
    for name in names:
        table = RNG.normal(size=(5, 7)).astype("f4")
        setattr(wcs, name, DistortionLookupTable(table, (1.5, 2.0), (30.1, 40.2), (100 / 3, 50.0)))
    return wcs


def spectral():
    wcs = celestial(naxis=3, linear="pc")
    wcs.wcs.cunit = ["deg", "deg", "GHz"]
    wcs.wcs.restfrq, wcs.wcs.specsys, wcs.wcs.velosys = 1.42040575177e9, "LSRK", 1 / 3
    return wcs


def with_set(**values):
    wcs = celestial("STG", linear="pc")
    for name, value in values.items():
        setattr(wcs.wcs, name, value)
    return wcs


def with_pv(projection, terms):
    wcs = celestial(projection)
    wcs.wcs.set_pv(terms)
    return wcs


def parsed(text, **arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return WCS(fits.Header.fromstring(text, sep="\n"), **arguments)


ROTATED = """CTYPE1  = 'RA---TAN'
CTYPE2  = 'DEC--TAN'
CRVAL1  = 10.1
CRVAL2  = 20.2
CDELT1  = -0.1234567890123456
CDELT2  = 0.1
CROTA2  = 33.3
NAXIS1  = 100
NAXIS2  = 200"""
VELOCITY = """CTYPE3  = 'VELO-LSR'
CDELT3  = 100.0
VELREF  = 257
RESTFREQ= 1.4E9
DATE-OBS= '10/05/98'
NAXIS3  = 300"""

EXACT = {
    "linear": WCS(naxis=1),
    "linear 3-d": WCS(naxis=3),
    "unfixed": WCS(naxis=2, fix=False),
    "empty header": parsed("TELESCOP= 'x'"),
    "cd": celestial(),
    "pc": celestial(linear="pc"),
    "cdelt": celestial(linear="cdelt"),
    "crota": parsed(ROTATED),
    "velocity": parsed(f"{ROTATED}\n{VELOCITY}"),
    "two axes of a cube": parsed(f"{ROTATED}\n{VELOCITY}", naxis=2),
    "new axis": celestial().sub([1, 2, 0]),
    "signed zeros": with_set(pc=[[1.0, -0.0], [-0.0, 1.0]], cdelt=[0.1, 0.2]),
    "poles": with_set(lonpole=12.3, latpole=45.6),
    "native pole": with_pv("ZEA", [(1, 1, 10.1), (1, 2, 80.3), (1, 3, 170.1)]),
    "zpn": with_pv("ZPN", [(2, m, 0.1**m / 3) for m in range(1, 8)]),
    "gls": celestial("GLS"),
    "ncp": celestial("NCP"),
    "tpv": with_tpv(),
    "sip": with_sip(),
    "sip forward": with_sip(inverse=False),
    "sip unnamed": with_sip(celestial("TAN")),
    "sip alternate": with_sip(celestial("TAN-SIP", key="B")),
    "spectral": spectral(),
    "lookup": with_tables(),
    "all lookups": with_tables(LOOKUP),
    "alternate": celestial(key="A"),
    "arcsec": with_set(cunit=["arcsec", "arcsec"]),
    "quotes": with_set(name="it's a 'name'", cname=["", "b c"]),
    "errors": with_set(crder=[1 / 3, np.nan], csyer=[np.nan, 0.1], czphs=[0.1, 0.2], cperi=[0.3, np.nan]),
    "reference": with_set(mjdref=(51544.3, 1 / 3), dateref="2000-01-01", timeunit="s"),
    "no reference": with_set(mjdref=(np.nan, np.nan), dateref=""),
    "observatory": with_set(obsgeo=RNG.normal(size=6) * 1e6),
    "half an observatory": with_set(obsgeo=[np.nan, 1.5, 2.5, np.nan, np.nan, 4.5]),
}


@pytest.fixture(autouse=True)
def quiet():
    """Keep astropy from logging what it thinks of SIP coefficients without -SIP."""
    logger = logging.getLogger("astropy")
    level = logger.level
    logger.setLevel("WARNING")
    yield
    logger.setLevel(level)


def bits(value):
    return None if value is None else np.asarray(value).tobytes()


def assert_identical(actual, original):
    """Check all that can be seen of two WCSs, bit for bit, when both are set up."""
    expected = original.deepcopy()
    expected.wcs.set()
    assert type(actual) is WCS
    _ = expected.wcs.aux, actual.wcs.aux
    assert actual.wcs.compare(expected.wcs)
    for name in ("has_cd", "has_pc", "has_crota"):
        assert getattr(actual.wcs, name)() == getattr(expected.wcs, name)()
    for name in ("crpix", "crval", "crder", "csyer", "czphs", "cperi", "obsgeo", "mjdref", "lonpole", "latpole"):
        assert bits(getattr(actual.wcs, name)) == bits(getattr(expected.wcs, name)), name
    assert bits(actual.wcs.get_pc()) == bits(expected.wcs.get_pc())
    assert bits(actual.wcs.get_cdelt()) == bits(expected.wcs.get_cdelt())
    assert actual.wcs.get_pv() == expected.wcs.get_pv()
    assert str(actual.wcs.aux) == str(expected.wcs.aux)
    assert (actual.sip is None) == (expected.sip is None)
    if expected.sip is not None:
        for name in ("a", "b", "ap", "bp", "crpix"):
            np.testing.assert_array_equal(getattr(actual.sip, name), getattr(expected.sip, name), strict=True)
    for name in LOOKUP:
        table, wanted = getattr(actual, name), getattr(expected, name)
        assert (table is None) == (wanted is None)
        if table is not None:
            for part in ("data", "crpix", "crval", "cdelt"):
                assert bits(getattr(table, part)) == bits(getattr(wanted, part)), part
    assert actual.pixel_shape == expected.pixel_shape
    assert actual.pixel_bounds == expected.pixel_bounds
    pixels = RNG.uniform(-100, 2000, (20, actual.naxis))
    assert bits(actual.all_pix2world(pixels, 0)) == bits(expected.all_pix2world(pixels, 0))


def round_trip(wcs):
    return kinds.decode(kinds.encode(wcs))


@pytest.mark.parametrize("name", EXACT)
def test_every_bit_comes_back(name):
    node = kinds.encode(EXACT[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded = kinds.decode(node)
    assert_identical(decoded, EXACT[name])
    assert digest(kinds.encode(decoded)) == digest(node)


DOUBLES = st.floats(-1e30, 1e30)


def is_regular(matrix):
    (a, b), (c, d) = matrix / (abs(matrix).max() or 1)
    return abs(a * d - b * c) > 1e-3


@settings(max_examples=50)
@given(
    st.tuples(st.floats(-180, 360), st.floats(-90, 90)),
    st.lists(DOUBLES, min_size=2, max_size=2),
    hnp.arrays("f8", (2, 2), elements=DOUBLES).filter(is_regular),
    st.booleans(),
    st.lists(st.none() | st.tuples(DOUBLES, DOUBLES), min_size=2, max_size=2),
    st.none() | st.tuples(st.integers(0, 10**9), st.integers(1, 10**9)),
)
def test_any_double_comes_back(crval, crpix, matrix, as_cd, bounds, shape):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["GLON-TAN", "GLAT-TAN"], crval, crpix
    if as_cd:
        wcs.wcs.cd = matrix
    else:
        wcs.wcs.pc = matrix
    wcs.pixel_shape, wcs.pixel_bounds = shape, bounds
    assert_identical(round_trip(wcs), wcs)


@settings(max_examples=30)
@given(hnp.arrays("f8", (3, 3), elements=st.floats(-1e-3, 1e-3)), st.lists(DOUBLES, min_size=2, max_size=2))
def test_sip_with_a_reference_pixel_of_its_own_comes_back(coefficients, crpix):
    coefficients[[1, 2, 2], [2, 1, 2]] = 0
    wcs = celestial("TAN-SIP")
    wcs.sip = Sip(coefficients, -coefficients, None, None, crpix)
    assert_identical(round_trip(wcs), wcs)


TEXT = st.text("ABCabc019 .:'-/()", max_size=30).map(str.strip).filter(bool)


@settings(max_examples=50)
@given(
    st.dictionaries(st.sampled_from(FLOATS), st.floats(0, 1), max_size=8),
    st.dictionaries(st.sampled_from(TEXTS), TEXT, max_size=8),
    st.dictionaries(st.sampled_from(AUXILIARY), DOUBLES),
)
def test_parameters_come_back(numbers, texts, auxiliary):
    wcs = celestial()
    for name, value in (numbers | texts).items():
        setattr(wcs.wcs, name, value)
    for name, value in auxiliary.items():
        setattr(wcs.wcs.aux, name, value)
    decoded = round_trip(wcs)
    assert_identical(decoded, wcs)
    for name, value in (numbers | texts).items():
        assert getattr(decoded.wcs, name) == value or name in ("lonpole", "latpole")


def test_the_text_alone_is_a_header_that_astropy_reads():
    wcs = with_sip()
    wcs.pixel_shape = (300, 200)
    text = str(kinds.encode(wcs).read())
    assert_identical(WCS(fits.Header.fromstring(text, sep="\n"), fix=False), wcs)
    assert text.startswith("WCSAXES =                    2\nCRPIX1  = ")
    assert "\nNAXIS1  =                  300\n" in text


def test_encoding_leaves_the_wcs_alone():
    wcs = spectral()
    wcs.wcs.cunit = ["arcsec", "arcsec", "GHz"]
    kinds.encode(wcs)
    assert [str(unit) for unit in wcs.wcs.cunit] == ["arcsec", "arcsec", "GHz"]


def with_attributes(wcs, **attributes):
    for name, value in attributes.items():
        setattr(wcs, name, value)
    return wcs


def preserved_units():
    try:
        return WCS(fits.Header({"CTYPE1": "WAVE", "CUNIT1": "nm"}), preserve_units=True)
    except TypeError:
        pytest.skip("this astropy always converts units")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: with_set(ctype=["RA---TAB", "DEC--TAB"]), "-TAB"),
        (lambda: with_pv("TPU", [(1, 1, 1.1), (1, 4, 0.1), (2, 1, 1.2), (2, 4, 0.2)]), "distortion"),
        (lambda: with_attributes(celestial(), sip=Sip(*[np.ones((4, 4))] * 2, None, None, (0, 0))), "A_1_3"),
        (lambda: with_attributes(celestial(), sip=Sip(*[np.ones((2, 2))] * 2, None, None, (0, 0))), "order 2"),
        (lambda: with_attributes(celestial(), pixel_shape=(10, None)), "NAXIS2"),
        (lambda: with_set(pc=np.zeros((2, 2))), "(?i)singular"),
        (lambda: with_set(crval=[np.nan, 1]), "CRVAL1"),
        (lambda: with_set(name="x" * 71), "WCSNAME"),
        (preserved_units, "preserve_units"),
    ],
)
def test_what_would_not_come_back_is_refused(make, message):
    with pytest.raises(EncodeError, match=message):
        kinds.encode(make())


@pytest.mark.parametrize("name", ["cd", "pc", "crota", "tpv", "sip", "lookup", "all lookups", "zpn"])
def test_a_shifted_wcs_has_the_same_sky_for_the_same_pixels(name):
    wcs = EXACT[name].deepcopy()
    wcs.pixel_bounds = [(-0.5, 99.5), None]
    before = kinds.encode(wcs)
    part = shift(wcs, 30, 7, (20, 50))
    pixels = RNG.uniform(0, 20, (30, 2))
    expected = wcs.all_pix2world(pixels + [7, 30], 0)
    np.testing.assert_allclose(part.all_pix2world(pixels, 0), expected, rtol=0, atol=1e-11)
    assert part.array_shape == (20, 50)
    assert part.pixel_bounds == [(-7.5, 92.5), None]
    assert_identical(wcs, kinds.decode(before))
    assert_identical(round_trip(part), part)


def test_a_wcs_can_be_shifted_back():
    wcs = celestial("TAN-SIP")
    wcs.wcs.crpix = [100.5, 200.25]
    wcs = with_sip(wcs)
    wcs.pixel_shape = (300, 400)
    assert_identical(shift(shift(wcs, 30, 7, (20, 50)), -30, -7, (400, 300)), wcs)


def test_only_rows_and_columns_of_a_cube_are_shifted():
    wcs = spectral()
    wcs.pixel_shape = (100, 200, 300)
    part = shift(wcs, 3, 5, (20, 10))
    np.testing.assert_array_equal(part.wcs.crpix, wcs.wcs.crpix - [5, 3, 0])
    assert part.array_shape == (300, 20, 10)
    assert shift(spectral(), 3, 5, (20, 10)).pixel_shape == (10, 20, 0)
    with pytest.raises(ValueError, match="no rows"):
        shift(WCS(naxis=1), 0, 0, (1, 1))


GOOD = str(kinds.encode(EXACT["cd"]).read())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "WCSAXES = 2\nWCSAXES = 30000",
        "WCSAXES = 30000",
        "WCSAXES = 2.5",
        "WCSAXES = 2\nWCSAXESA= 30000",
        "WCSAXES = 2\nNAXIS   = 30000",
        "WCSAXES = 2\nwcsaxes = 30000",
        "WCSAXES = 2\nHIERARCH WCSAXES = 30000",
        "WCSAXES = 2\nA_ORDER = 30000\nB_ORDER = 30000",
        "WCSAXES = 2\nCRPIX99 = 1.0",
        "WCSAXES = 2\nCRVAL1  = 1E999",
        "WCSAXES = 2\nCRVAL1  = NAN",
        "WCSAXES = 2\nCPDIS1  = 'LOOKUP'",
        "WCSAXES = 2\nD2IMDIS1= 'LOOKUP'",
        "WCSAXES = 2\nDQ1     = 'NAXES: 1000000000'",
        "WCSAXES = 2\nCTYPE1  = 'RA---TAB'\nCTYPE2  = 'DEC--TAB'",
        "WCSAXES = 2\nCTYPE1  = 'RA---TAN'\nCTYPE2  = 'GLAT-TAN'",
        "WCSAXES = 2\nPC1_1   = 0.0\nPC2_2   = 0.0",
        "WCSAXES = 2\nWCSNAME = 'é'",
        "WCSAXESé= 2",
        "WCSAXES = 2\nWCSNAME = 'x&'\nCONTINUE  'y'",
        f"{GOOD}\n{' ' * 80}",
        f"{GOOD}\nCRVAL1  = 'a' / comment",
        GOOD + "\nCRVAL1  = 1.0" * 10_000,
        GOOD + "\n" * 10_000,
        "WCSAXES = 2" + " " * 2**20,
    ],
)
def test_bad_texts_are_format_errors(text):
    node = Array(np.array(text), {"kind": "wcs", "kind_version": 1}, "f.h5:/c/wcs")
    with pytest.raises(FormatError, match="f.h5:/c/wcs"):
        kinds.decode(node)


@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
@settings(max_examples=50)
@given(st.data())
def test_damaged_texts_are_read_or_format_errors(data):
    text = str(kinds.encode(EXACT["tpv"]).read())
    at = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:at] + data.draw(st.text("0123456789ABCDEP_-+.' \n", max_size=4)) + text[at + 1 :]
    try:
        value = kinds.decode(Array(np.array(damaged), {"kind": "wcs", "kind_version": 1}))
    except FormatError:
        return
    assert isinstance(value, WCS)


ATTRS = {"kind": "wcs", "kind_version": 1}
VECTORS = {name: np.ones(2) for name in ("crpix", "crval", "cdelt")}


@pytest.mark.parametrize(
    "node",
    [
        Array(np.array(3.0), ATTRS),
        Array(np.array([GOOD]), ATTRS),
        Group({}, ATTRS),
        *(
            Array(np.array(GOOD), {**ATTRS, name: value})
            for name, value in (
                ("pixel_bounds", np.zeros(3)),
                ("pixel_bounds", np.zeros((3, 2))),
                ("pixel_bounds", "wide"),
                ("sip_crpix", np.zeros(2)),
            )
        ),
        *(
            Group({"header": Array(np.array(GOOD)), "cpdis1": table}, ATTRS)
            for table in (
                Group(),
                Array(np.ones((2, 2), "f4")),
                Array(np.ones((0, 2), "f4"), VECTORS),
                Array(np.ones(2, "f4"), VECTORS),
                Array(np.ones((2, 2), "f4"), {**VECTORS, "crpix": np.ones(3)}),
                Array(np.array([["a"]]), VECTORS),
            )
        ),
    ],
)
def test_bad_nodes_are_format_errors(node):
    with pytest.raises(FormatError):
        kinds.decode(node)
