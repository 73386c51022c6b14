"""The WCS of images of FITS files."""

from __future__ import annotations

from astropy.io import fits
from astropy.wcs import WCS

from .. import kinds


def wcs(header: fits.Header) -> WCS | None:
    """Return the WCS of the image; None if it has none of the sky."""
    try:
        found = WCS(header)
    except KeyError:  # there are others, with a letter, only
        return None
    return found if found.has_celestial else None


def wcs_if_any(header: fits.Header, hdus: fits.HDUList) -> WCS | None:
    """Return the WCS of an image of any origin, with the tables to which its header refers.

    Returns
    -------
    astropy.wcs.WCS or None
        None if it has none of the sky, or one that astropy can't make sense of, or that can't be stored: the header
        is kept.
    """
    try:
        found = WCS(header, hdus)
        if not found.has_celestial:
            return None
        kinds.encode(found)
    except Exception:  # those of astropy and its wcslib have no common base
        return None
    return found
