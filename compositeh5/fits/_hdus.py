"""The HDUs of a FITS file: checked, and verbatim.

A record of an HDU holds ``header`` (its cards), ``data`` (its bytes) and more; `conversion` tells what.
"""

from __future__ import annotations

import errno
import hashlib
import io
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from astropy.io import fits

from ..errors import CompositeH5Error, ConversionError
from ..storage.source import FileSource
from . import _headers

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = b"SIMPLE  ="
"""How every FITS file begins."""

_GZIP = b"\x1f\x8b"

_BITPIX = (8, 16, 32, 64, -32, -64)

_RATIO = 20_000
"""Pixels of a tile-compressed image are at most so many times the bytes that hold them. Each row of the table has at
least a descriptor of 8 bytes, so that images of nothing in tiles of usual sizes stay below."""


class FitsFile:
    """An open FITS file, of which HDUs make up all.

    Attributes
    ----------
    hdus : astropy.io.fits.HDUList
        The HDUs. astropy takes keywords such as BZERO out of a header when the pixels are asked for.
    where : str
        Its name, for messages.
    """

    def __init__(self, stream: IO[bytes], hdus: fits.HDUList, where: str) -> None:
        self._stream, self.hdus, self.where = stream, hdus, where

    def header(self, index: int) -> str:
        """Return the cards of a header as they stand in the file, one per line, without END."""
        info = self.hdus.fileinfo(index)
        text = self._bytes(info["hdrLoc"], info["datLoc"]).decode("latin-1")
        cards = [text[start : start + _headers.CARD] for start in range(0, len(text), _headers.CARD)]
        if not text.isascii() or not text.isprintable() or _headers.END not in cards:
            raise ConversionError(
                f"{self.where}: the header of HDU {index} lacks END, or has characters that FITS forbids"
            )
        end = cards.index(_headers.END)
        if "".join(cards[end + 1 :]).strip():
            raise ConversionError(f"{self.where}: the header of HDU {index} goes on after END")
        return "\n".join(cards[:end])

    def records(self) -> Iterator[tuple[int, Any, dict[str, Any]]]:
        """Return index, HDU and record of all HDUs but a primary one without data, read one after the other.

        The record of the primary HDU has no header: that is a component of its own.
        """
        for index, hdu in enumerate(self.hdus):
            info = self.hdus.fileinfo(index)
            record: dict[str, Any] = {"header": self.header(index)} if index else {}
            if index or info["datSpan"]:
                record["data"] = self._bytes(info["datLoc"], info["datLoc"] + info["datSpan"])
                yield index, hdu, record

    def digest(self) -> str:
        """Return the SHA-256 of the file."""
        self._stream.seek(0)
        digest = hashlib.sha256()
        # Not by hashlib.file_digest: it exports the buffer of a BytesIO, which crashes Python 3.12.1.
        while block := self._stream.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()

    def _bytes(self, start: int, end: int) -> bytes:
        self._stream.seek(start)
        return self._stream.read(end - start)


@contextmanager
def open_fits(source: str | os.PathLike[str] | bytes) -> Iterator[FitsFile]:
    """Open a FITS file, or the bytes of one, and give every error that damage causes one name.

    Raises
    ------
    ConversionError
        If it isn't a FITS file, or HDUs that make sense don't make up all of it; also for what is found only inside
        the ``with`` block.
    OSError
        If it can't be read.
    """
    where = "FITS file in memory" if isinstance(source, bytes) else os.fspath(source)
    # Not by `open`, which would wait for the writer of a FIFO.
    raw = io.BytesIO(source) if isinstance(source, bytes) else FileSource(where)
    with io.BufferedReader(raw) as stream, warnings.catch_warnings():
        start = stream.read(len(MAGIC))
        if start != MAGIC:
            hint = "; decompress it with gunzip" if start.startswith(_GZIP) else ""
            raise ConversionError(f"{where}: not a FITS file: it begins with {start!r}, not with {MAGIC!r}{hint}")
        # astropy warns of what is an error here, and of dates and units in old headers, which are kept as they are.
        warnings.simplefilter("ignore")
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        try:
            with fits.open(stream, lazy_load_hdus=False, memmap=False) as hdus:
                _check(hdus, size, where)
                yield FitsFile(stream, hdus, where)
        except CompositeH5Error:
            raise
        except Exception as error:  # those of astropy for headers and tables that make no sense have no common base
            if isinstance(error, OSError) and error.errno == errno.EINVAL:
                raise ConversionError(f"{where}: truncated: a header claims more data than a file can have") from error
            if isinstance(error, OSError) and error.errno:
                raise
            raise ConversionError(f"{where}: the FITS file is damaged, or makes no sense: {error}") from error


def _check(hdus: fits.HDUList, size: int, where: str) -> None:
    """Check what headers say of the sizes of data, before anything of that size is made."""
    for index, hdu in enumerate(hdus):
        # Of a tile-compressed image, that of the image that it stands for.
        header, label = hdu.header, f"{where}: HDU {index}"
        bits, shape = _headers.value(header, "BITPIX"), _shape(header, label)
        if bits not in _BITPIX:
            raise ConversionError(f"{label}: BITPIX should be one of {_BITPIX}, not {bits!r}")
        for key, most in (("PCOUNT", size), ("TFIELDS", 999)):
            if not 0 <= (number := _headers.integer(header, key) or 0) <= most:
                raise ConversionError(f"{label}: {key} should be 0 to {most}, not {number}")
        info = hdus.fileinfo(index)
        end = info["datLoc"] + info["datSpan"]
        if end > size:
            raise ConversionError(f"{where}: truncated: HDU {index} should end at byte {end}, the file ends at {size}")
        if isinstance(hdu, fits.CompImageHDU) and math.prod(shape) > _RATIO * info["datSpan"]:
            raise ConversionError(
                f"{label}: {info['datSpan']} bytes can't hold a tile-compressed image of {shape} pixels"
            )
    if end < size:
        raise ConversionError(f"{where}: truncated or damaged: the {size - end} bytes after HDU {index} aren't an HDU")


def _shape(header: fits.Header, label: str) -> list[int]:
    """Return the lengths of the axes that a header tells."""
    number = _headers.integer(header, "NAXIS")
    if number is None or not 0 <= number <= 999:
        raise ConversionError(f"{label}: NAXIS should be 0 to 999, not {_headers.value(header, 'NAXIS')!r}")
    lengths = [_headers.integer(header, f"NAXIS{axis}") for axis in range(1, number + 1)]
    known = [length for length in lengths if length is not None and length >= 0]
    if len(known) < number:
        raise ConversionError(f"{label}: NAXIS1 ... NAXIS{number} should be integers from 0 on, not {lengths}")
    return known


def read_pixels(hdu: Any, record: dict[str, Any]) -> NDArray[Any]:
    """Return the pixels of an image in native byte order, and take what follows from them out of its record."""
    cards = hdu.header.tostring(sep="\n", endcard=False, padding=False)
    pixels = native(hdu.data)
    if isinstance(hdu, fits.CompImageHDU):
        record |= {"header": cards, "compressed_header": record["header"]}
        del record["data"]
    elif record["data"] == pixel_bytes(pixels):
        del record["data"]
    return pixels


def native(values: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of values in the byte order of the machine."""
    return values.astype(values.dtype.newbyteorder("="))


def pixel_bytes(pixels: NDArray[Any]) -> bytes:
    """Return pixels as the data of an image HDU."""
    kind, size = pixels.dtype.kind, pixels.dtype.itemsize
    if (kind, size) == ("i", 1) or (kind == "u" and size > 1):
        # FITS has no such type: it stores them with an offset (BZERO) of half their range.
        pixels = flipped(pixels)
    return _headers.padded(pixels.astype(pixels.dtype.newbyteorder(">")).tobytes())


def flipped(values: NDArray[Any]) -> NDArray[Any]:
    """Return the bits of integers with the first one flipped, which is what an offset of half their range does."""
    unsigned = values.view(f"u{values.dtype.itemsize}")
    result: NDArray[Any] = unsigned ^ unsigned.dtype.type(1 << (8 * values.dtype.itemsize - 1))
    return result
