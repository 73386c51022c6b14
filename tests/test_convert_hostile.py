"""FITS files that are damaged or lie about what they hold: each has its own error, and nothing is written."""

from __future__ import annotations

import io
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from fits_samples import CATALOG, PHOTO_CALIB, VISIT_INFO, damaged, exposure_with_archive
from support import data_file

from compositeh5 import Composite
from compositeh5.cli import main
from compositeh5.errors import ConversionError
from compositeh5.fits.conversion import fits_bytes, read_fits

SMALL = [PHOTO_CALIB, CATALOG, VISIT_INFO]
Edit = Callable[[bytes], bytes]


def image() -> bytes:
    """Return a FITS file of one image."""
    return header("SIMPLE  = T", "BITPIX  = -32", "NAXIS   = 2", "NAXIS1  = 30", "NAXIS2  = 20") + bytes(2880)


def header(*cards: str) -> bytes:
    text = "".join(f"{card.split('=')[0]}= {card.split('=')[1].strip():>20}".ljust(80) for card in cards)
    return (text + "END").ljust(2880).encode()


def card(key: str, value: str) -> Edit:
    """Return what gives a keyword another value."""

    def edit(content: bytes) -> bytes:
        start = content.index(key.ljust(8).encode() + b"=")
        return content[:start] + f"{key:8}= {value:>20}".ljust(80).encode() + content[start + 80 :]

    return edit


WRONG: dict[str, tuple[Edit, str]] = {
    "truncated": (lambda content: content[:4000], "truncated"),
    "truncated in the header": (lambda content: content[:1000], "in.fits"),
    "more behind": (lambda content: content + b"more", "4 bytes after HDU 0"),
    "huge axis": (
        card("NAXIS2", "999999999999"),
        "truncated: HDU 0 should end at byte 120000000003840, the file ends at",
    ),
    "long axis": (card("NAXIS2", "999999"), "truncated: HDU 0 should end at byte 120003840, the file ends at 5760"),
    "axis beyond 64 bits": (card("NAXIS2", "9" * 20), "truncated|makes no sense"),
    "negative axis": (card("NAXIS2", "-20"), "NAXIS1 ... NAXIS2 should be integers from 0 on"),
    "axis of text": (card("NAXIS2", "'many'"), "in.fits"),
    "axis that is missing": (card("NAXIS", "3"), "in.fits"),
    "too many axes": (card("NAXIS", "100000"), "NAXIS|makes no sense"),
    "wrong type of pixels": (card("BITPIX", "7"), "BITPIX should be one of .*, not 7"),
    "type of pixels of text": (card("BITPIX", "'float'"), "in.fits"),
    "end that is missing": (lambda content: content.replace(b"END", b"   ", 1), "in.fits"),
    "binary header": (lambda content: content.replace(b"END", b"\xff\x00\x01", 1), "in.fits"),
}


@pytest.mark.parametrize(("edit", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_headers(tmp_path: Path, edit: Edit, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "in.fits"
    path.write_bytes(image())
    assert read_fits(path)["image"].shape == (20, 30)
    path.write_bytes(edit(image()))
    with pytest.raises(ConversionError, match=message):
        read_fits(path)
    assert main(["convert", str(path), str(tmp_path / "out.h5")]) == 2
    assert "in.fits" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.fits"]


def test_compressed_image_that_claims_more_than_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "in.fits"
    hdu = fits.CompImageHDU(np.zeros((20, 30), "f4"), compression_type="GZIP_1", quantize_level=0)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    assert read_fits(path)["image"].shape == (20, 30)
    path.write_bytes(card("ZNAXIS2", "4000000000")(path.read_bytes()))
    with pytest.raises(ConversionError, match="can't hold a tile-compressed image"):
        read_fits(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4e6  # kB


@pytest.mark.parametrize("key", ["NAXIS1", "NAXIS2", "TFIELDS", "PCOUNT"])
def test_tables_whose_sizes_are_wrong(tmp_path: Path, key: str) -> None:
    hdu = fits.BinTableHDU.from_columns([fits.Column("x", "J", array=np.arange(9))], name="T")
    path = tmp_path / "in.fits"
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    whole = path.read_bytes()
    for value in ("99999999999", "-1"):
        # The primary HDU has no axes, so that the table is the first to have these.
        path.write_bytes(card(key, value)(whole))
        with pytest.raises(ConversionError, match="in.fits"):
            read_fits(path)


@pytest.fixture(params=[*SMALL, "exposure"])
def whole(request: pytest.FixtureRequest) -> bytes:
    """A real file, or an exposure with an archive."""
    if request.param != "exposure":
        return data_file(request.param).read_bytes()
    stream = io.BytesIO()
    exposure_with_archive().writeto(stream)
    return stream.getvalue()


def test_damaged_bytes_give_conversion_errors_or_the_same_file(whole: bytes) -> None:
    refused = 0
    for content in damaged(whole, rounds=12, changes=3):
        try:
            composite = read_fits(content)
        except ConversionError:
            refused += 1
        else:
            assert fits_bytes(composite) == content
    assert 0 < refused < 12


def test_truncated_anywhere(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "in.fits"
    for length in [0, 5, 2879, *range(2881, len(whole), len(whole) // 12), len(whole) - 1]:
        if length % 2880 or not length:  # whole HDUs less may be a file
            path.write_bytes(whole[:length])
            with pytest.raises(ConversionError, match="in.fits"):
                read_fits(path)


@pytest.mark.parametrize(
    "records",
    [
        [{"header": "XTENSION= 'BINTABLE'", "component": "table"}],
        [{"header": 5}],
        [{"component": "header"}],
        [{"header": "\u00e4"}],
        [7],
        [{"component": "table", "header": "NAXIS1  = 5", "uncertainty": "none"}],
        [{"component": "image", "uncertainty": "none"}],
    ],
)
def test_composites_whose_records_make_no_sense(records: list[object]) -> None:
    components = {"header": header()[:-2880].decode(), "table": Table({"x": [1]}), "image": np.zeros((3, 3))}
    with pytest.raises(ConversionError):
        fits_bytes(Composite(None, components, fits=records))
