"""Conversion of one file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..container.source import FileSource
from ..errors import ConversionError
from ..links import checked_path
from ..opening import open_composite

if TYPE_CHECKING:
    from ..composite import Composite
    from ..links import DataId

__all__ = ["HDF5", "convert"]

HDF5 = b"\x89HDF\r\n\x1a\n"
"""How every HDF5 file begins."""


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    replace: bool = False,
    data_id: DataId | None = None,
) -> Composite:
    """Convert a FITS file to a composite file, or one that was converted from it back, all of it or nothing.

    What the source is follows from its content, not from its name; see `compositeh5.convert.fits` for what becomes of
    a FITS file.

    Parameters
    ----------
    source : path
        The file to convert.
    target : path
        The file to write.
    replace : bool, optional
        Whether something else at the target is replaced.
    data_id : mapping, optional
        Data ID of the composite; its items win over what the FITS file says.

    Returns
    -------
    Composite
        What was converted, in memory.

    Raises
    ------
    ConversionError
        If the source is of no known format, damaged, or lacks what its format demands, or if a composite can't be
        written as the FITS file that it was; nothing is written then.
    NoSuchComponentError
        If a composite was never converted from a FITS file.
    ConflictError
        If the target exists and holds something else.
    OSError
        If a file can't be read or written.
    """
    from .fits import read_fits, write_fits

    # Not by `open`, which would wait for the writer of a FIFO.
    with FileSource(checked_path(source)) as file:
        is_hdf5 = file.read(len(HDF5)) == HDF5
    if is_hdf5:
        if data_id is not None:
            raise ConversionError(f"{os.fspath(source)}: a FITS file can't be given a data ID")
        with open_composite(source) as stored:
            composite = stored.load()
        write_fits(composite, target, replace=replace)
    else:
        composite = read_fits(source, data_id=data_id)
        composite.write(target, replace=replace)
    return composite
