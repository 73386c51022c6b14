"""A FITS file as a composite of its HDUs, so that two can be compared header by header, bit by bit."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table

from ..composite import Composite
from ..errors import ConversionError, EncodeError


@contextmanager
def open_hdus(path: str | os.PathLike[str]) -> Iterator[Composite]:
    """Open a FITS file as a composite with one component for each HDU, itself a composite.

    Its components are ``header`` (the cards, a text), ``data`` (the pixels, for a tile-compressed image those that it
    stands for; or a table of the raw columns; or bytes), and ``heap`` (bytes) where there is one. The component of an
    HDU is called what its EXTNAME is, with a number if that is taken.

    Raises
    ------
    ConversionError
        If it is no FITS file that astropy reads.
    OSError
        If it can't be read.
    """
    with ExitStack() as stack:
        # astropy warns of old headers, which are to be compared as they are.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        try:
            hdus = stack.enter_context(fits.open(path, lazy_load_hdus=False))
            composite = Composite(None, _components(hdus))
            last = hdus.fileinfo(len(hdus) - 1)
            if last["datLoc"] + last["datSpan"] != os.path.getsize(path):
                raise ValueError("it is truncated, or more follows after the last HDU")
        except Exception as error:  # those of astropy for headers and tables that make no sense have no common base
            if isinstance(error, OSError) and error.errno:
                raise
            raise ConversionError(f"{os.fspath(path)}: the FITS file is damaged, or makes no sense: {error}") from error
        yield composite


def _components(hdus: Any) -> dict[str, Composite]:
    components: dict[str, Composite] = {}
    for number, hdu in enumerate(hdus):
        name = re.sub(r"\W", "_", hdu.name or f"HDU_{number}")
        name = name if name.isidentifier() else f"HDU_{name}"
        copies = sum(re.fullmatch(rf"{name}(__\d+)?", other) is not None for other in components)
        components[f"{name}__{copies + 1}" if copies else name] = _hdu(hdu)
    return components


def _hdu(hdu: Any) -> Composite:
    # Before the data are asked for: astropy then takes keywords such as BZERO out of the header.
    parts: dict[str, Any] = {"header": hdu.header.tostring(sep="\n", endcard=False, padding=False)}
    if hdu.is_image and hdu.shape:
        parts["data"] = np.asarray(hdu.data)
    elif isinstance(hdu, fits.BinTableHDU):
        size = hdu.header["NAXIS1"] * hdu.header["NAXIS2"]
        raw = hdu.data.view(np.ndarray)
        try:
            parts["data"] = Table({name: raw[name] for name in raw.dtype.names or ()}, copy=False)
        except EncodeError:
            parts["data"] = _bytes(hdu, 0, size)
        if heap := _bytes(hdu, size, hdu.header.get("PCOUNT", 0)):
            parts["heap"] = heap
    elif data := _bytes(hdu, 0, hdu.fileinfo()["datSpan"]):
        parts["data"] = data
    return Composite(None, parts)


def _bytes(hdu: Any, start: int, size: int) -> bytes:
    info = hdu.fileinfo()
    info["file"].seek(info["datLoc"] + start)
    return bytes(info["file"].read(size))
