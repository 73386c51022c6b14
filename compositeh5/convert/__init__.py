"""Conversion of files of other formats to composites."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import ConversionError

if TYPE_CHECKING:
    from ..composite import Composite
    from ..links import DataId

__all__ = ["convert"]


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    replace: bool = False,
    data_id: DataId | None = None,
) -> Composite:
    """Convert a file to a composite file, all of it or nothing.

    What the source is follows from its content, not from its name. FITS files of exposures in the layout of the LSST
    pipelines can be converted; see `compositeh5.convert.fits.read_exposure`.

    Parameters
    ----------
    source : path
        The file to convert.
    target : path
        The file to write.
    replace : bool, optional
        Whether another composite at the target is replaced.
    data_id : mapping, optional
        Data ID; its items win over what the source says.

    Returns
    -------
    Composite
        What was written, in memory.

    Raises
    ------
    ConversionError
        If the source is of no known format, damaged, or lacks what its format demands; nothing is written then.
    ConflictError
        If the target exists and holds something else.
    OSError
        If a file can't be read or written.
    """
    from .fits import MAGIC, read_exposure

    with open(source, "rb") as file:
        start = file.read(len(MAGIC))
    if start != MAGIC:
        raise ConversionError(
            f"{os.fspath(source)}: its format is not one that can be converted: "
            f"a FITS file would begin with {MAGIC!r}, this begins with {start!r}"
        )
    composite = read_exposure(source, data_id=data_id)
    composite.write(target, replace=replace)
    return composite
